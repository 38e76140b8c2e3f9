"""Datasets by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from jgd.data import cpf as _cpf
from jgd.data import planetoid as _planetoid
from jgd.data import tu as _tu
from jgd.data import webkb as _webkb
from jgd.data.digits import digits_knn
from jgd.data.generate import contextual_sbm, power_law
from jgd.data.storage import DataError, Remote, present

__all__ = ["Dataset", "datasets", "load"]


@dataclass(frozen=True)
class Dataset:
    """What is known of a dataset before it is loaded.

    Attributes:
      name: what `load` takes.
      kind: ``"node"`` or ``"graph"`` classification.
      size: nodes, or graphs; of generated data by default.
      classes: number of classes.
      source: where it comes from.
      licence: as its authors state it.
      present: whether loading it needs no network now.
    """

    name: str
    kind: Literal["node", "graph"]
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
    "digits": (1797, 10, ("https://archive.ics.uci.edu/dataset/80 (in scikit-learn)", "CC BY 4.0")),
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
}


def load(name: str, **options: Any) -> Any:
    """Load a dataset by name.

    Args:
      name: one of `datasets`, or ``"tu:<NAME>"`` for any set of TUDataset.
      **options: of its loader: `planetoid`, `webkb`, `tu`, `cpf`, `digits_knn`, `contextual_sbm` or
        `power_law`.

    Returns:
      The task.

    Raises:
      DataError: for an unknown name (saying which are close), and for files that are missing or damaged.
    """
    if name.startswith("tu:"):
        return _tu.tu(name.removeprefix("tu:"), **options)
    if name not in _LOADERS:
        known = {key.lower(): key for key in (*_NODE_SETS, *_GRAPH_SETS)}
        close = [known[key] for key in difflib.get_close_matches(name.lower(), known, cutoff=0.5)]
        hint = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(known.values())}"
        raise DataError(f"no dataset is called {name!r}: {hint}")
    return _LOADERS[name][0](**options)


def datasets() -> list[Dataset]:
    """All named datasets; TUDataset has more than those listed."""

    def is_present(name: str) -> bool:
        if name.startswith("tu:"):
            name = name.removeprefix("tu:")
            return _tu.edge_file(name).is_file() or all(map(present, _tu.remotes(name)))
        return all(map(present, _LOADERS[name][1]()))

    def row(name: str, kind: Literal["node", "graph"], facts: tuple[int, int, tuple[str, str]]) -> Dataset:
        size, classes, (source, licence) = facts
        return Dataset(name, kind, size, classes, source, licence, is_present(name))

    return [
        *(row(name, "node", facts) for name, facts in _NODE_SETS.items()),
        *(row(name, "graph", facts) for name, facts in _GRAPH_SETS.items()),
    ]
