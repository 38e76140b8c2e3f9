"""Web and film graphs of geom-gcn, mostly heterophilous, with ten public splits each.

Pei et al., "Geom-GCN: Geometric Graph Convolutional Networks" (2020): ``out1_graph_edges.txt`` (one directed
edge in a line) and ``out1_node_feature_label.txt`` (node, features, class). Cornell, Texas and Wisconsin are
web pages of universities, chameleon and squirrel Wikipedia pages, film actors.

Cornell comes in two versions. In the repository's commit of January 2021 the node file of Cornell is a copy
of Texas's, so features and labels do not belong to the edges (30.5 % of its edges join pages of one class).
The corrected files (13.1 %) are what recent results use. Cornell is therefore taken from the
repository's main branch, its digest is not fixed, and the faulty version gives a warning.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jgd.data.arrays import read_npz, text_lines
from jgd.data.facts import dataset
from jgd.data.hashes import SHA256
from jgd.data.prepare import CELLS, dense, normalize_features
from jgd.data.storage import DataError, Remote, reading, require
from jgd.data.tasks import NodeTask
from jgd.graph import coalesce, from_edges

__all__ = ["files", "public_split", "remotes", "split_remote", "webkb"]

_SETS = {
    "cornell": (183, "Web pages of Cornell."),
    "texas": (183, "Web pages of Texas."),
    "wisconsin": (251, "Web pages of Wisconsin."),
    "chameleon": (2277, "Wikipedia pages on chameleons."),
    "squirrel": (5201, "Wikipedia pages on squirrels."),
    "film": (7600, "Actors on the same Wikipedia pages."),
}
_FILES = ("out1_graph_edges.txt", "out1_node_feature_label.txt")
_ADDRESS = "https://raw.githubusercontent.com/graphdml-uiuc-jlu/geom-gcn/"
_COMMIT = "f1fc0d14b3b019c562737240d06ec83b07d16a8f"


def _remote(path: str, source: str, commit: str = _COMMIT) -> Remote:
    return Remote(f"geom-gcn/{path}", (f"{_ADDRESS}{commit}/{source}",), SHA256.get(f"geom-gcn/{path}"))


def remotes(name: str) -> tuple[Remote, ...]:
    """Return the edge file and the node file of a dataset.

    Args:
      name: Name of the dataset.

    Raises:
      DataError: If the name is unknown.
    """
    if name not in _SETS:
        raise DataError(f"geom-gcn has no dataset {name!r}: choose one of {', '.join(_SETS)}")
    commit = "master" if name == "cornell" else _COMMIT
    return tuple(_remote(f"{name}/{file}", f"new_data/{name}/{file}", commit) for file in _FILES)


def split_remote(name: str, number: int | str) -> Remote:
    """Return the file of a public split."""
    file = f"splits/{name}_split_0.6_0.2_{number}.npz"
    return _remote(file, file)


def files(name: str) -> tuple[Remote, ...]:
    """Return all files that `webkb` reads by default."""
    return (*remotes(name), split_remote(name, 0))


def public_split(name: str, number: int | str, size: int) -> dict[str, Any]:
    """Read one of the ten public 48/32/20 splits as masks (also of cora, citeseer and pubmed).

    Args:
      name: Name of the dataset.
      number: Number of the split, ``0..9``.
      size: Number of nodes of the graph, which the file must match.

    Raises:
      DataError: If the number is out of range, or the file is missing, damaged or of another graph.
    """
    if str(number) not in "0123456789" or len(str(number)) != 1:
        raise DataError(f"the public splits are numbered 0 to 9, got {number!r}")
    path = require(split_remote(name, number))
    arrays = read_npz(path)
    with reading(path):
        found = {}
        for part in ("train", "val", "test"):
            mask = arrays.get(f"{part}_mask")
            if mask is None or mask.shape != (size,) or mask.dtype.kind not in "biu":
                raise ValueError(f"it is not a split of {size} nodes: {part}_mask is no such vector")
            if not np.isin(mask, (0, 1)).all():
                raise ValueError(f"{part}_mask holds other numbers than 0 and 1")
            found[part] = mask.astype(bool)
        if (np.sum(list(found.values()), axis=0) > 1).any():
            raise ValueError("a node is in two of its parts")
    return found


def webkb(name: str, split: int = 0, *, normalize: Literal["row"] | None = "row") -> NodeTask:
    """Load a graph of geom-gcn. Edges keep their direction and self loops; repeated edges are merged.

    Args:
      name: Name: ``"cornell"``, ``"texas"``, ``"wisconsin"``, ``"chameleon"``, ``"squirrel"`` or ``"film"``.
      split: Number of the public split, ``0..9``.
      normalize: Scaling: ``"row"`` for features whose rows sum to one, None for the counts unchanged.

    Returns:
      A task with ``directed=True``, senders from the first column of the file.

    Raises:
      DataError: If the name or split is unknown, or files are missing or damaged.
    """
    edge_path, node_path = (require(remote) for remote in remotes(name))
    with reading(node_path):
        x, labels = _nodes(node_path, indices=name == "film")
        digest = hashlib.sha256(node_path.read_bytes()).hexdigest()
    if name == "cornell" and digest == SHA256["geom-gcn/texas/out1_node_feature_label.txt"]:
        warnings.warn(f"{node_path} holds the pages of Texas, not Cornell: see jgd.data.webkb", stacklevel=2)
    edges = _edges(edge_path, len(labels))
    with reading(edge_path):
        graph = from_edges(edges[:, 0], edges[:, 1], nodes=normalize_features(x, normalize))
    return NodeTask(
        graph=coalesce(graph),
        labels=labels,
        **public_split(name, split, len(labels)),
        num_classes=int(labels.max()) + 1,
        name=name,
        directed=True,
    )


def _rows(path: Path, *columns: str) -> Iterator[tuple[int, list[str]]]:
    """Yield numbered rows of a table whose first line names its columns."""
    header = None
    for number, line in enumerate(text_lines(path), 1):
        if header is None:
            header = line.split("\t")
            if header != list(columns):
                raise ValueError(f"its first line is {line[:80]!r}, expected {' '.join(columns)}")
        elif line:
            row = line.split("\t")
            if len(row) != len(columns):
                raise ValueError(f"line {number} has {len(row)} columns, expected {' '.join(columns)}")
            yield number, row
    if header is None:
        raise ValueError("it is empty")


def _integer(text: str, number: int, size: int, what: str) -> int:
    """Read a number in 0..size-1; its digits are counted before they are converted."""
    text = text.strip()
    if not (text.isascii() and text.isdigit()) or len(text) > 18 or int(text) >= size:
        raise ValueError(f"line {number}: {what} is {text[:24]!r}, expected 0 to {size - 1}")
    return int(text)


def _edges(path: Path, size: int) -> np.ndarray:
    with reading(path):
        edges = [
            [_integer(end, number, size, "an end of the edge") for end in row]
            for number, row in _rows(path, "node_id", "node_id")
        ]
        if not edges:
            raise ValueError("it has no edges")
        return np.asarray(edges, np.int64)


def _nodes(path: Path, indices: bool) -> tuple[np.ndarray, np.ndarray]:
    """Read features and labels by node number; with ``indices``, features are the positions of ones."""
    rows = list(_rows(path, "node_id", "feature", "label"))
    if not rows:
        raise ValueError("it has no nodes")
    node = np.asarray([_integer(row[0], number, len(rows), "the node") for number, row in rows])
    if not np.array_equal(np.sort(node), np.arange(len(rows))):
        raise ValueError(f"its {len(rows)} nodes are not numbered 0 to {len(rows) - 1}, each once")
    labels = np.asarray([_integer(row[2], number, len(rows), "the class") for number, row in rows], np.int32)
    fields = [(number, row[1]) for number, row in rows]
    if indices:
        values = _indicators(fields, path.stat().st_size)
    else:
        values = np.loadtxt([field for _, field in fields], np.float32, delimiter=",", comments=None, ndmin=2)
        if values.shape[0] != len(rows):
            raise ValueError(f"{len(rows) - values.shape[0]} of its nodes have no features")
    order = np.argsort(node)
    return dense(values[order]), labels[order]


def _indicators(fields: list[tuple[int, str]], most: int) -> np.ndarray:
    """Return rows of zeros and ones; there cannot be more features than the file has bytes."""
    positions = [
        [_integer(index, number, most, "a feature") for index in field.split(",")] if field else []
        for number, field in fields
    ]
    flat = np.asarray([index for row in positions for index in row], np.int64)
    width = int(flat.max(initial=0)) + 1
    if len(fields) * width > CELLS:
        raise ValueError(f"{width} features of {len(fields)} nodes are more than {CELLS} numbers")
    x = np.zeros((len(fields), width), np.float32)
    x[np.repeat(np.arange(len(fields)), [len(p) for p in positions]), flat] = 1
    return x


ENTRIES = tuple(
    dataset(
        name,
        partial(webkb, name),
        summary,
        kind="node",
        size=size,
        classes=5,
        source="https://github.com/graphdml-uiuc-jlu/geom-gcn",
        paper="Pei et al. 2020",
        files=partial(files, name),
    )
    for name, (size, summary) in _SETS.items()
)
