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
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jgd.data.arrays import read_npz
from jgd.data.hashes import SHA256
from jgd.data.prepare import normalize_features
from jgd.data.storage import DataError, Remote, reading, require
from jgd.data.tasks import NodeTask
from jgd.graph.build import coalesce, from_edges

__all__ = ["files", "public_split", "remotes", "split_remote", "webkb"]

NAMES = ("cornell", "texas", "wisconsin", "chameleon", "squirrel", "film")
_FILES = ("out1_graph_edges.txt", "out1_node_feature_label.txt")
_ADDRESS = "https://raw.githubusercontent.com/graphdml-uiuc-jlu/geom-gcn/"
_COMMIT = "f1fc0d14b3b019c562737240d06ec83b07d16a8f"


def _remote(path: str, source: str, commit: str = _COMMIT) -> Remote:
    return Remote(f"geom-gcn/{path}", (f"{_ADDRESS}{commit}/{source}",), SHA256.get(f"geom-gcn/{path}"))


def remotes(name: str) -> tuple[Remote, ...]:
    """The edge file and the node file of a dataset.

    Raises:
      DataError: for an unknown name.
    """
    if name not in NAMES:
        raise DataError(f"geom-gcn has no dataset {name!r}: choose one of {', '.join(NAMES)}")
    commit = "master" if name == "cornell" else _COMMIT
    return tuple(_remote(f"{name}/{file}", f"new_data/{name}/{file}", commit) for file in _FILES)


def split_remote(name: str, number: int | str) -> Remote:
    """The file of a public split."""
    file = f"splits/{name}_split_0.6_0.2_{number}.npz"
    return _remote(file, file)


def files(name: str) -> tuple[Remote, ...]:
    """All files that `webkb` reads by default."""
    return (*remotes(name), split_remote(name, 0))


def public_split(name: str, number: int | str, size: int) -> dict[str, Any]:
    """One of the ten public 48/32/20 splits as masks (also of cora, citeseer and pubmed).

    Args:
      name: of the dataset.
      number: ``0..9``.
      size: nodes of the graph, to check the file against.

    Raises:
      DataError: for another number, and for a file that is missing, damaged or of another graph.
    """
    if str(number) not in "0123456789" or len(str(number)) != 1:
        raise DataError(f"the public splits are numbered 0 to 9, got {number!r}")
    path = require(split_remote(name, number))
    arrays = read_npz(path)
    with reading(path):
        found = {part: arrays[f"{part}_mask"].astype(bool) for part in ("train", "val", "test")}
        if any(mask.shape != (size,) for mask in found.values()):
            raise ValueError(f"it is not a split of {size} nodes")
    return found


def webkb(name: str, split: int = 0, *, normalize: Literal["row"] | None = "row") -> NodeTask:
    """Load a graph of geom-gcn. Edges keep their direction and self loops; repeated edges are merged.

    Args:
      name: ``"cornell"``, ``"texas"``, ``"wisconsin"``, ``"chameleon"``, ``"squirrel"`` or ``"film"``.
      split: which public split, ``0..9``.
      normalize: ``"row"`` for features whose rows sum to one, None for the counts as they are.

    Returns:
      A task with ``directed=True``, senders from the first column of the file.

    Raises:
      DataError: for an unknown name or split, and for files that are missing or damaged.
    """
    edge_path, node_path = (require(remote) for remote in remotes(name))
    with reading(node_path):
        x, labels = _nodes(node_path.read_text(), indices=name == "film")
        digest = hashlib.sha256(node_path.read_bytes()).hexdigest()
    if name == "cornell" and digest == SHA256["geom-gcn/texas/out1_node_feature_label.txt"]:
        warnings.warn(f"{node_path} holds the pages of Texas, not Cornell: see jgd.data.webkb", stacklevel=2)
    edges = _edges(edge_path)
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


def _edges(path: Path) -> np.ndarray:
    with reading(path):
        _, *lines = path.read_text().splitlines()
        edges = np.loadtxt(lines, dtype=np.int64, ndmin=2) if lines else np.zeros((0, 2), np.int64)
        if edges.shape[1] != 2:
            raise ValueError("it needs two columns")
    return edges


def _nodes(text: str, indices: bool) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels by node number; ``indices``: features are the positions of ones."""
    rows = [line.split("\t") for line in text.splitlines()[1:] if line]
    if not rows or any(len(row) != 3 for row in rows):
        raise ValueError("it needs three columns: node, features, class")
    number = np.asarray([int(row[0]) for row in rows])
    if not np.array_equal(np.sort(number), np.arange(len(rows))):
        raise ValueError("its nodes are not numbered 0 to N-1")
    fields = [row[1] for row in rows]
    values = _indicators(fields) if indices else np.loadtxt(fields, np.float32, delimiter=",", ndmin=2)
    order = np.argsort(number)
    labels = np.asarray([int(row[2]) for row in rows], np.int32)
    if labels.min() < 0:
        raise ValueError("it has a class below 0")
    return values[order], labels[order]


def _indicators(fields: list[str]) -> np.ndarray:
    positions = [[int(index) for index in field.split(",")] if field else [] for field in fields]
    flat = np.asarray([index for row in positions for index in row], np.int64)
    if flat.size and flat.min() < 0:
        raise ValueError("it has a feature below 0")
    x = np.zeros((len(fields), int(flat.max(initial=0)) + 1), np.float32)
    x[np.repeat(np.arange(len(fields)), [len(p) for p in positions]), flat] = 1
    return x
