"""Declaration of a dataset in the file of its loader: an entry of the catalogue `jgd.data.DATASETS`.

A new dataset needs its file, with ``ENTRIES``, and one line in `jgd.data.registry`::

    ENTRIES = (
        dataset("mine", mine, "Two moons.", kind="node", size=200, classes=2, source="https://example.org"),
    )
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypedDict

from jgd.data.storage import Remote
from jgd.registry import Entry

__all__ = ["Facts", "Kind", "dataset"]

Kind = Literal["node", "graph", "image", "text"]
_EVALUATED: dict[Kind, str] = {"node": "nodes", "graph": "graphs", "image": "arrays", "text": "arrays"}


class Facts(TypedDict):
    """Facts about a dataset that are known before it is loaded.

    Attributes:
      kind: Unit that is classified: ``"node"``, ``"graph"``, ``"image"`` or ``"text"``.
      size: Number of nodes, graphs, images or texts; of generated data by default.
      classes: Number of classes.
      source: Origin of the data, usually an address.
      licence: Licence that its authors state.
      files: Function that returns the files that its loader reads by default.
    """

    kind: Kind
    size: int
    classes: int
    source: str
    licence: str
    files: Callable[[], tuple[Remote, ...]]


def _no_files() -> tuple[Remote, ...]:
    return ()


def dataset(
    name: str,
    make: Callable[..., Any],
    summary: str,
    *,
    kind: Kind,
    size: int,
    classes: int,
    source: str,
    licence: str = "not stated",
    paper: str = "",
    files: Callable[[], tuple[Remote, ...]] = _no_files,
) -> Entry:
    """Return the entry of a dataset.

    Args:
      name: Name of the dataset.
      make: Loader; all its arguments have defaults.
      summary: Description in one line.
      kind: Unit that is classified.
      size: Number of nodes, graphs, images or texts.
      classes: Number of classes.
      source: Origin of the data, usually an address.
      licence: Licence that its authors state.
      paper: Authors and year.
      files: Function that returns the files that the loader reads by default.
    """
    facts = Facts(kind=kind, size=size, classes=classes, source=source, licence=licence, files=files)
    return Entry(name, make, summary, paper, kinds=(_EVALUATED[kind],), facts=facts)
