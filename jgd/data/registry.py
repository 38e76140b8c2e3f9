"""Datasets by name, and data of a user's own by path."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from jgd.data import cifar as _cifar
from jgd.data import cpf as _cpf
from jgd.data import mnist as _mnist
from jgd.data import planetoid as _planetoid
from jgd.data import sources as _sources
from jgd.data import texts as _texts
from jgd.data import tu as _tu
from jgd.data import webkb as _webkb
from jgd.data.digits import digits_images, digits_knn
from jgd.data.generate import contextual_sbm, power_law
from jgd.data.storage import DataError, Remote, present

__all__ = ["Dataset", "datasets", "is_known", "is_path", "load", "load_with_notes"]

_log = logging.getLogger("jgd.data")

Kind = Literal["node", "graph", "image", "text"]


@dataclass(frozen=True)
class Dataset:
    """What is known of a dataset before it is loaded.

    Attributes:
      name: what `load` takes.
      kind: classification of a ``"node"``, a ``"graph"``, an ``"image"`` or a ``"text"``.
      size: nodes, graphs, images or texts; of generated data by default.
      classes: number of classes.
      source: where it comes from.
      licence: as its authors state it.
      present: whether loading it needs no network now.
    """

    name: str
    kind: Kind
    size: int
    classes: int
    source: str
    licence: str
    present: bool


_UNSTATED = "not stated"
_PLANETOID = ("https://github.com/kimiyoung/planetoid", "MIT (repository)")
_GEOM_GCN = ("https://github.com/graphdml-uiuc-jlu/geom-gcn", _UNSTATED)
_TU = ("https://chrsmrrs.github.io/datasets", _UNSTATED)
_CPF = ("https://github.com/BUPT-GAMMA/CPF", _UNSTATED)
_DIGITS = ("https://archive.ics.uci.edu/dataset/80 (in scikit-learn)", "CC BY 4.0")
_CIFAR = ("https://www.cs.toronto.edu/~kriz/cifar.html", _UNSTATED)

# name -> size, classes, (source, licence)
_NODE_SETS: dict[str, tuple[int, int, tuple[str, str]]] = {
    "cora": (2708, 7, _PLANETOID),
    "citeseer": (3327, 6, _PLANETOID),
    "pubmed": (19717, 3, _PLANETOID),
    "cornell": (183, 5, _GEOM_GCN),
    "texas": (183, 5, _GEOM_GCN),
    "wisconsin": (251, 5, _GEOM_GCN),
    "chameleon": (2277, 5, _GEOM_GCN),
    "squirrel": (5201, 5, _GEOM_GCN),
    "film": (7600, 5, _GEOM_GCN),
    "cpf:cora": (2485, 7, _CPF),
    "cpf:citeseer": (2110, 6, _CPF),
    "digits": (1797, 10, _DIGITS),
    "sbm": (2000, 4, ("generated", "none")),
    "power-law": (170_000, 40, ("generated", "none")),
}
_GRAPH_SETS: dict[str, tuple[int, int, tuple[str, str]]] = {
    "tu:MUTAG": (188, 2, _TU),
    "tu:PTC": (344, 2, ("the GIN version, no address of its own; TUDataset has PTC_MR", _UNSTATED)),
    "tu:PTC_MR": (344, 2, _TU),
    "tu:PROTEINS": (1113, 2, _TU),
    "tu:NCI1": (4110, 2, _TU),
    "tu:ENZYMES": (600, 6, _TU),
    "tu:DD": (1178, 2, _TU),
    "tu:IMDB-BINARY": (1000, 2, _TU),
    "tu:IMDB-MULTI": (1500, 3, _TU),
    "tu:COLLAB": (5000, 3, _TU),
    "tu:REDDIT-BINARY": (2000, 2, _TU),
}
_IMAGE_SETS: dict[str, tuple[int, int, tuple[str, str]]] = {
    "mnist": (70_000, 10, ("http://yann.lecun.com/exdb/mnist", _UNSTATED)),
    "cifar10": (60_000, 10, _CIFAR),
    "cifar100": (60_000, 100, _CIFAR),
    "cifar10-jpeg": (60_000, 10, ("JPEG-compressed copies of CIFAR-10, no address of their own", _UNSTATED)),
    "digits-images": (1797, 10, _DIGITS),
}
_TEXT_SETS: dict[str, tuple[int, int, tuple[str, str]]] = {
    "sst2": (70_042, 2, ("https://gluebenchmark.com (SST-2)", _UNSTATED)),
    "tweets": (6364, 4, ("https://github.com/Cli212/Distiller", _UNSTATED)),
}
_SETS: dict[Kind, dict[str, tuple[int, int, tuple[str, str]]]] = {
    "node": _NODE_SETS,
    "graph": _GRAPH_SETS,
    "image": _IMAGE_SETS,
    "text": _TEXT_SETS,
}


def _no_files() -> tuple[Remote, ...]:
    return ()


# name -> (loader, files); names "tu:..." are open-ended and handled in `_find`
_LOADERS: dict[str, tuple[Callable[..., Any], Callable[[], tuple[Remote, ...]]]] = {
    **{n: (partial(_planetoid.planetoid, n), partial(_planetoid.remotes, n)) for n in _planetoid.NAMES},
    **{n: (partial(_webkb.webkb, n), partial(_webkb.files, n)) for n in _webkb.NAMES},
    **{f"cpf:{n}": (partial(_cpf.cpf, n), partial(_cpf.remotes, n)) for n in _cpf.NAMES},
    "digits": (digits_knn, _no_files),
    "sbm": (contextual_sbm, _no_files),
    "power-law": (power_law, _no_files),
    "mnist": (_mnist.mnist, _mnist.remotes),
    "cifar10": (_cifar.cifar10, partial(_cifar.remotes, 10)),
    "cifar100": (_cifar.cifar100, partial(_cifar.remotes, 100)),
    "cifar10-jpeg": (_cifar.cifar10_jpeg, lambda: (_cifar.JPEG,)),
    "digits-images": (digits_images, _no_files),
    "sst2": (_texts.sst2, _texts.sst2_remotes),
    "tweets": (_texts.tweets, _texts.tweets_remotes),
}


_READERS = ("darpa_e3", "streamspot", "image_folder", "read_texts", "import_condensed")


def load(name: str | os.PathLike[str], **options: Any) -> Any:
    """Load a dataset by name, or data of your own by path.

    Args:
      name: one of `datasets`, or ``"tu:<NAME>"`` for any set of TUDataset; else the path of a file or folder
        of one of the formats in `jgd.data.sources`.
      **options: of a path: the fields of `jgd.data.sources.Options`. Of a name: those of its loader,
        `planetoid`, `webkb`, `tu`, `cpf`, `digits_knn`, `contextual_sbm`, `power_law`, `mnist`, `cifar10`,
        `cifar100`, `cifar10_jpeg`, `digits_images`, `sst2` or `tweets`.

    Returns:
      The task; a `Corpus` for texts (see `jgd.data.tokenized`). What was mapped, made or left out while a
      path was read goes to the logger ``jgd.data``, and `jgd.describe` tells it.

    Raises:
      DataError: for an unknown name (saying which are close), and for files that are missing or damaged.
    """
    if not isinstance(name, str | os.PathLike):
        raise DataError(f"a dataset is named by a text such as 'cora' or a path, got a {type(name).__name__}")
    found = load_with_notes(name, **options)
    for note in found.notes:
        _log.warning("%s: %s", os.fspath(name), note)
    return found.task


def is_known(name: str | os.PathLike[str]) -> bool:
    """Whether it is the name of a dataset."""
    return isinstance(name, str) and (name in _LOADERS or name.startswith("tu:"))


def is_path(name: str | os.PathLike[str]) -> bool:
    """Whether `load` takes it as a path: it is no name of a dataset, and is there or looks like a path."""
    return not is_known(name) and _sources.looks_like_path(name)


def load_with_notes(name: str | os.PathLike[str], **options: Any) -> _sources.Found:
    """The task of `load`, and one line for each thing that was done to make it."""
    if is_path(name):
        return _sources.read(name, **options)
    return _sources.Found(_by_name(os.fspath(name), **options))


def _by_name(name: str, **options: Any) -> Any:
    if name.startswith("tu:"):
        return _tu.tu(name.removeprefix("tu:"), **options)
    if name not in _LOADERS:
        known = {key.lower(): key for sets in _SETS.values() for key in sets}
        close = [known[key] for key in difflib.get_close_matches(name.lower()[:60], known, cutoff=0.5)]
        hint = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(known.values())}"
        if name in _READERS:
            hint = f"it reads files of yours, call jgd.data.{name}(path)"
        raise DataError(f"no dataset is called {name[:60]!r}, and no file or folder is: {hint}")
    return _LOADERS[name][0](**options)


def datasets() -> list[Dataset]:
    """All named datasets; TUDataset has more than those listed."""

    def is_present(name: str) -> bool:
        if name.startswith("tu:"):
            name = name.removeprefix("tu:")
            return _tu.edge_file(name).is_file() or all(map(present, _tu.remotes(name)))
        return all(map(present, _LOADERS[name][1]()))

    def row(name: str, kind: Kind, facts: tuple[int, int, tuple[str, str]]) -> Dataset:
        size, classes, (source, licence) = facts
        return Dataset(name, kind, size, classes, source, licence, is_present(name))

    return [row(name, kind, facts) for kind, sets in _SETS.items() for name, facts in sets.items()]
