"""Cora, Citeseer and Pubmed: citation graphs with the public split of Planetoid.

Files ``ind.<name>.*`` of Yang, Cohen and Salakhutdinov, "Revisiting Semi-Supervised Learning with Graph
Embeddings" (2016): Python 2 pickles of sparse features (``x`` training, ``allx`` all but test, ``tx`` test),
one-hot labels likewise, the neighbours of each node, and the test nodes in the order of ``tx``.

Fifteen nodes of Citeseer between the test nodes are not in ``tx``. They stay in the graph with their edges
(each has one or two), with zero features and label -1 (unknown), and are in no mask. (Other libraries give
them class 0.)
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import scipy.sparse as sp

from jgd.data.arrays import read_table
from jgd.data.hashes import SHA256
from jgd.data.pickles import restricted_loads
from jgd.data.prepare import masks, normalize_features, per_class, undirected_graph
from jgd.data.storage import DataError, Remote, reading, require
from jgd.data.tasks import NodeTask
from jgd.data.webkb import public_split

__all__ = ["planetoid", "remotes"]

NAMES = ("cora", "citeseer", "pubmed")
_PARTS = ("x", "y", "tx", "ty", "allx", "ally", "graph", "test.index")
_ADDRESS = (
    "https://raw.githubusercontent.com/kimiyoung/planetoid/af6abf468a772cc055bec88c52e4d6f51b7c37e3/data/"
)


def remotes(name: str) -> tuple[Remote, ...]:
    """The files of a dataset.

    Raises:
      DataError: for a name other than cora, citeseer and pubmed.
    """
    if name not in NAMES:
        raise DataError(f"no Planetoid dataset is called {name!r}: choose one of {', '.join(NAMES)}")
    paths = [f"planetoid/ind.{name}.{part}" for part in _PARTS]
    return tuple(Remote(path, (_ADDRESS + Path(path).name,), SHA256.get(path)) for path in paths)


def planetoid(
    name: str, split: str = "public", *, normalize: Literal["row"] | None = "row", seed: int = 0
) -> NodeTask:
    """Load a citation graph, undirected and without repeated edges or self loops.

    Args:
      name: ``"cora"``, ``"citeseer"`` or ``"pubmed"``.
      split: ``"public"`` (20 of each class / 500 / 1000), ``"random"`` (the same sizes, drawn by ``seed``),
        or ``"geom-gcn-0"`` ... ``"geom-gcn-9"`` (the ten public 48/32/20 splits; on Cora they leave out the
        223 nodes outside the largest component).
      normalize: ``"row"`` for features whose rows sum to one, None for the word indicators as they are.
      seed: of the random split.

    Returns:
      A task with dense float32 features. Labels are -1 for the 15 unknown nodes of Citeseer.

    Raises:
      DataError: for an unknown name or split, and for files that are missing or damaged.
    """
    paths = {part: require(remote) for part, remote in zip(_PARTS, remotes(name), strict=True)}
    test_index = read_table(paths["test.index"], np.int64)[:, 0]
    content = {part: restricted_loads(path) for part, path in paths.items() if part != "test.index"}
    with reading(paths["x"].with_name(f"ind.{name}.*")):
        x, labels = _nodes(content, test_index)
        senders = [node for node, others in content["graph"].items() for _ in others]
        receivers = [other for others in content["graph"].values() for other in others]
        graph = undirected_graph(np.asarray(senders), np.asarray(receivers), normalize_features(x, normalize))
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
        num_classes=int(content["ally"].shape[1]),
        name=name,
    )


def _nodes(content: dict, test_index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of all nodes: first those that are no test nodes, then the test nodes by number."""
    first = content["allx"].shape[0]
    if len(test_index) != content["tx"].shape[0] or test_index.min() < first:
        raise ValueError("the test nodes do not match the other files")
    size = int(test_index.max()) + 1

    def join(known, test):
        known, test = (a.toarray() if sp.issparse(a) else np.asarray(a) for a in (known, test))
        rows = np.zeros((size, known.shape[1]), np.float32)
        rows[:first] = known
        rows[test_index] = test
        return rows

    y = join(content["ally"], content["ty"])
    labels = np.where(y.any(1), y.argmax(1), -1).astype(np.int32)
    return join(content["allx"], content["tx"]), labels
