"""Cora, Citeseer and Pubmed: citation graphs with the public split of Planetoid.

Files ``ind.<name>.*`` of Yang, Cohen and Salakhutdinov, "Revisiting Semi-Supervised Learning with Graph
Embeddings" (2016): Python 2 pickles of sparse features (``x`` training, ``allx`` all but test, ``tx`` test),
one-hot labels likewise, the neighbours of each node, and the test nodes in the order of ``tx``.

Fifteen nodes of Citeseer between the test nodes are not in ``tx``. They stay in the graph with their edges
(each has one or two), with zero features and label -1 (unknown), and are in no mask. (Other libraries give
them class 0.)
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import scipy.sparse as sp

from jgd.data.arrays import read_table
from jgd.data.facts import dataset
from jgd.data.hashes import SHA256
from jgd.data.pickles import restricted_loads
from jgd.data.prepare import dense, masks, normalize_features, per_class, undirected_graph
from jgd.data.storage import DataError, Remote, reading, require
from jgd.data.tasks import NodeTask
from jgd.data.webkb import public_split

__all__ = ["planetoid", "remotes"]

_SETS = {
    "cora": (2708, 7, "Papers on machine learning."),
    "citeseer": (3327, 6, "Papers on computer science."),
    "pubmed": (19717, 3, "Papers on diabetes."),
}
_PARTS = ("x", "y", "tx", "ty", "allx", "ally", "graph", "test.index")
_ADDRESS = (
    "https://raw.githubusercontent.com/kimiyoung/planetoid/af6abf468a772cc055bec88c52e4d6f51b7c37e3/data/"
)


def remotes(name: str) -> tuple[Remote, ...]:
    """Return the files of a dataset.

    Args:
      name: Name: ``"cora"``, ``"citeseer"`` or ``"pubmed"``.

    Raises:
      DataError: If the name is unknown.
    """
    if name not in _SETS:
        raise DataError(f"no Planetoid dataset is called {name!r}: choose one of {', '.join(_SETS)}")
    paths = [f"planetoid/ind.{name}.{part}" for part in _PARTS]
    return tuple(Remote(path, (_ADDRESS + Path(path).name,), SHA256.get(path)) for path in paths)


def planetoid(
    name: str,
    split: str = "public",
    *,
    normalize: Literal["row"] | None = "row",
    seed: int = 0,
    folder: Path | None = None,
) -> NodeTask:
    """Load a citation graph, undirected and without repeated edges or self loops.

    Args:
      name: Name: ``"cora"``, ``"citeseer"`` or ``"pubmed"``.
      split: Split: ``"public"`` (20 of each class / 500 / 1000), ``"random"`` (the same sizes, drawn by
        ``seed``), or ``"geom-gcn-0"`` ... ``"geom-gcn-9"`` (the ten public 48/32/20 splits; on Cora they
        leave out the 223 nodes outside the largest component).
      normalize: Scaling: ``"row"`` for features whose rows sum to one, None for unchanged indicators.
      seed: Seed of the random split.
      folder: Folder of the files ``ind.<name>.*`` of a graph of any name; None downloads those of the three
        graphs where they are missing.

    Returns:
      A task with dense float32 features. Labels are -1 for the 15 unknown nodes of Citeseer.

    Raises:
      DataError: If the name or split is unknown, or files are missing or damaged.
    """
    if folder is None:
        paths = {part: require(remote) for part, remote in zip(_PARTS, remotes(name), strict=True)}
    else:
        paths = {part: folder / f"ind.{name}.{part}" for part in _PARTS}
    content = {part: _matrix(paths[part]) for part in ("x", "y", "tx", "ty", "allx", "ally")}
    test_index = _test_index(paths["test.index"], len(content["allx"]), len(content["tx"]))
    with reading(paths["x"].with_name(f"ind.{name}.*")):
        x, labels = _nodes(content, test_index)
        senders, receivers = _edges(paths["graph"], len(labels))
        graph = undirected_graph(senders, receivers, normalize_features(x, normalize))
        public = np.full(len(labels), -1)
        count = len(content["y"])
        public[:count] = 0
        public[count : min(count + 500, len(content["ally"]))] = 1
        public[test_index] = 2
    if split == "public":
        parts = masks(public)
    elif split == "random":
        parts = per_class(labels, 20, val=500, test=1000, seed=seed)
    elif split.startswith("geom-gcn-"):
        parts = public_split(name, split.removeprefix("geom-gcn-"), len(labels))
    else:
        raise DataError(f'no split is called {split!r}: use "public", "random" or "geom-gcn-0" to "-9"')
    return NodeTask(
        graph=graph,
        labels=labels,
        **{part: mask & (labels >= 0) for part, mask in parts.items()},
        num_classes=content["ally"].shape[1],
        name=name,
    )


def _matrix(path: Path) -> np.ndarray:
    """Read features or one-hot labels from a pickle as a dense matrix."""
    value = restricted_loads(path)
    with reading(path):
        if not sp.issparse(value) and not isinstance(value, np.ndarray):
            raise ValueError(f"it holds a {type(value).__name__}, not a matrix")
        matrix = dense(value)
        if path.suffix in (".y", ".ty", ".ally") and not (
            np.isin(matrix, (0, 1)).all() and (matrix.sum(1) <= 1).all()
        ):
            row = int(np.argmax(~np.isin(matrix, (0, 1)).all(1) | (matrix.sum(1) > 1)))
            raise ValueError(f"row {row} names no class: it must hold zeros and at most one 1")
    return matrix


def _test_index(path: Path, first: int, count: int) -> np.ndarray:
    """Read the numbers of the test nodes, which follow the others with few gaps."""
    index = read_table(path, np.int64)
    with reading(path):
        if index.shape != (count, 1):
            raise ValueError(
                f"its shape is {index.shape}: the test nodes do not match the {count} rows of tx"
            )
        index = index[:, 0]
        if index.min() < first or len(np.unique(index)) != count:
            raise ValueError(
                f"the test nodes do not match allx: they are to be different and {first} or more"
            )
        if index.max() >= first + 10 * count:
            raise ValueError(
                f"test node {index.max()} is far beyond the {first + count} nodes of allx and tx"
            )
    return index


def _edges(path: Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Read both ends of all edges from the pickle of ``{node: [neighbours]}``."""
    value = restricted_loads(path)
    with reading(path):
        if not isinstance(value, dict) or not value:
            raise ValueError(f"it holds a {type(value).__name__}, not the neighbours of each node")
        senders, receivers, most = [], [], path.stat().st_size  # a neighbour takes a byte or more
        for node, others in value.items():
            if type(node) is not int or not 0 <= node < size:
                raise ValueError(f"{str(node)[:40]} is none of the {size} nodes")
            if not isinstance(others, list) or len(receivers) + len(others) > most:
                raise ValueError(f"the neighbours of node {node} are no list of a possible length")
            for other in others:
                if type(other) is not int or not 0 <= other < size:
                    raise ValueError(
                        f"{str(other)[:40]}, a neighbour of node {node}, is none of {size} nodes"
                    )
            senders += [node] * len(others)
            receivers += others
        if not senders:
            raise ValueError("it has no edges")
    return np.asarray(senders), np.asarray(receivers)


def _nodes(content: dict[str, np.ndarray], test_index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Join features and labels: first the nodes that are no test nodes, then the test nodes by number."""
    shapes = {part: matrix.shape for part, matrix in content.items()}
    for x, y in (("x", "y"), ("tx", "ty"), ("allx", "ally")):
        if shapes[x][0] != shapes[y][0]:
            raise ValueError(f"{x} has {shapes[x][0]} rows, {y} {shapes[y][0]}")
        for part, whole in ((x, "allx"), (y, "ally")):
            if shapes[part][1] != shapes[whole][1]:
                raise ValueError(f"{part} has {shapes[part][1]} columns, {whole} {shapes[whole][1]}")
    first = shapes["allx"][0]
    if shapes["x"][0] > first:
        raise ValueError(f"x has {shapes['x'][0]} rows, more than the {first} of allx")
    size = int(test_index.max()) + 1

    def join(known: np.ndarray, test: np.ndarray) -> np.ndarray:
        rows = np.zeros((size, known.shape[1]), np.float32)
        rows[:first] = known
        rows[test_index] = test
        return rows

    y = join(content["ally"], content["ty"])
    labels = np.where(y.any(1), y.argmax(1), -1).astype(np.int32)
    return join(content["allx"], content["tx"]), labels


ENTRIES = tuple(
    dataset(
        name,
        partial(planetoid, name),
        summary,
        kind="node",
        size=size,
        classes=classes,
        source="https://github.com/kimiyoung/planetoid",
        licence="MIT (repository)",
        paper="Yang et al. 2016",
        files=partial(remotes, name),
    )
    for name, (size, classes, summary) in _SETS.items()
)
