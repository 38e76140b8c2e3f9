"""Datasets by name, and data of a user's own by path."""

from __future__ import annotations

import difflib
import logging
import os
from dataclasses import dataclass
from typing import Any, get_args

from jgd.data.facts import Kind
from jgd.data.sources import Found, looks_like_path, read
from jgd.data.storage import DataError, present
from jgd.data.tu import tu
from jgd.registry import Catalog

__all__ = ["DATASETS", "Dataset", "datasets", "is_known", "is_path", "load", "load_with_notes"]

_log = logging.getLogger("jgd.data")

DATASETS = Catalog(
    "dataset",
    "jgd.data",
    {
        "planetoid": ("cora", "citeseer", "pubmed"),
        "webkb": ("cornell", "texas", "wisconsin", "chameleon", "squirrel", "film"),
        "cpf": ("cpf:cora", "cpf:citeseer"),
        "generate": ("sbm", "power-law"),
        "tu": (
            "tu:MUTAG", "tu:PTC", "tu:PTC_MR", "tu:PROTEINS", "tu:NCI1", "tu:ENZYMES", "tu:DD",
            "tu:IMDB-BINARY", "tu:IMDB-MULTI", "tu:COLLAB", "tu:REDDIT-BINARY",
        ),
        "mnist": ("mnist",),
        "cifar": ("cifar10", "cifar100", "cifar10-jpeg"),
        "digits": ("digits", "digits-images"),
        "sst2": ("sst2",),
        "tweets": ("tweets",),
    },
)  # fmt: skip
"""All datasets that have a name; each is declared in the file of its loader, see `jgd.data.facts`."""


@dataclass(frozen=True)
class Dataset:
    """Facts about a dataset that are known before it is loaded.

    Attributes:
      name: Name that `load` takes.
      kind: Unit that is classified: ``"node"``, ``"graph"``, ``"image"`` or ``"text"``.
      size: Number of nodes, graphs, images or texts; of generated data by default.
      classes: Number of classes.
      source: Origin of the data, usually an address.
      licence: Licence that its authors state.
      present: Whether its files are present, so that loading needs no network.
    """

    name: str
    kind: Kind
    size: int
    classes: int
    source: str
    licence: str
    present: bool


_READERS = ("darpa_e3", "streamspot", "image_folder", "read_texts", "import_condensed")


def load(name: str | os.PathLike[str], **options: Any) -> Any:
    """Load a dataset by name, or data of your own by path.

    Args:
      name: Name of one of `datasets`, or ``"tu:<NAME>"`` for any set of TUDataset; else the path of a file or
        folder of one of the formats in `jgd.data.sources`.
      **options: Options of a path: the fields of `jgd.data.sources.Options`. Options of a name: the arguments
        of its loader, ``jgd.data.DATASETS[name].make``.

    Returns:
      The task; a `Corpus` for texts (see `jgd.data.tokenized`). What was mapped, generated or left out while
      a path was read goes to the logger ``jgd.data``, and is among the notes of `jgd.describe`.

    Raises:
      DataError: If the name is unknown (the message lists close ones), or files are missing or damaged.
    """
    if not isinstance(name, str | os.PathLike):
        raise DataError(f"a dataset is named by a text such as 'cora' or a path, got a {type(name).__name__}")
    found = load_with_notes(name, **options)
    for note in found.notes:
        _log.warning("%s: %s", os.fspath(name), note)
    return found.task


def is_known(name: str | os.PathLike[str]) -> bool:
    """Return whether a text is the name of a dataset."""
    return isinstance(name, str) and (name in DATASETS or name.startswith("tu:"))


def is_path(name: str | os.PathLike[str]) -> bool:
    """Return whether `load` takes a text as a path, which is no name of a dataset and looks like a path."""
    return not is_known(name) and looks_like_path(name)


def load_with_notes(name: str | os.PathLike[str], **options: Any) -> Found:
    """Return the task of `load`, and one line for each step that was taken to make it."""
    if is_path(name):
        return read(name, **options)
    return Found(_by_name(os.fspath(name), **options))


def _by_name(name: str, **options: Any) -> Any:
    if name.startswith("tu:"):
        return tu(name.removeprefix("tu:"), **options)
    if name not in DATASETS:
        known = {key.lower(): key for key in DATASETS}
        close = [known[key] for key in difflib.get_close_matches(name.lower()[:60], known, cutoff=0.5)]
        hint = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(DATASETS)}"
        if name in _READERS:
            hint = f"it reads files of yours, call jgd.data.{name}(path)"
        raise DataError(f"no dataset is called {name[:60]!r}, and no file or folder is: {hint}")
    return DATASETS[name].make(**options)


def datasets() -> list[Dataset]:
    """Return all named datasets, by kind; TUDataset has more than those listed."""
    rows = []
    for entry in DATASETS.entries():
        known = {field: entry.facts[field] for field in ("kind", "size", "classes", "source", "licence")}
        rows.append(Dataset(name=entry.name, **known, present=all(map(present, entry.facts["files"]()))))
    return sorted(rows, key=lambda row: get_args(Kind).index(row.kind))
