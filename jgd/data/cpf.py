"""Cora and Citeseer as in CPF, the usual data of GNN-to-MLP distillation.

Yang, Liu and Shi, "Extract the Knowledge of Graph Neural Networks and Go Beyond it" (2021). A file
``cpf/<name>.npz`` holds a CSR adjacency (``adj_*``, directed), CSR features (``attr_*``), ``labels``, and
names as strings. The protocol makes the graph undirected, keeps its largest connected component, makes
features binary, and draws 20 training and 30 validation nodes of each class; all others are for testing.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from scipy.sparse.csgraph import connected_components

from jgd.data.arrays import checked_sparse, read_npz
from jgd.data.facts import dataset
from jgd.data.hashes import SHA256
from jgd.data.prepare import dense, masks, undirected_graph
from jgd.data.storage import DataError, Remote, reading, require
from jgd.data.tasks import NodeTask

__all__ = ["cpf", "remotes"]

_SETS = {"cora": (2485, 7), "citeseer": (2110, 6)}
_ADDRESS = (
    "https://raw.githubusercontent.com/BUPT-GAMMA/CPF/389c01aaf238689ee7b1e5aba127842341e123b6/data/npz/"
)


def remotes(name: str) -> tuple[Remote, ...]:
    """Return the file of a dataset.

    Args:
      name: Name: ``"cora"`` or ``"citeseer"``.

    Raises:
      DataError: If the name is unknown.
    """
    if name not in _SETS:
        raise DataError(f"no CPF dataset is called {name!r}: choose one of {', '.join(_SETS)}")
    path = f"cpf/{name}.npz"
    return (Remote(path, (f"{_ADDRESS}{name}.npz",), SHA256.get(path)),)


def cpf(
    name: str,
    *,
    train_per_class: int = 20,
    val_per_class: int = 30,
    largest_component: bool = True,
    seed: int = 0,
) -> NodeTask:
    """Load a CPF graph with the split that its protocol draws for a seed.

    Args:
      name: Name: ``"cora"`` or ``"citeseer"``.
      train_per_class: Number of training nodes of each class.
      val_per_class: Number of validation nodes of each class.
      largest_component: Whether only the largest connected component is kept, as in the protocol.
      seed: Seed of the split; 0 gives the nodes of the authors' code.

    Returns:
      A task with binary float32 features and ``extras["node"]``, the row of each node in the file.

    Raises:
      DataError: If the name is unknown, or the file is missing or damaged.
    """
    path = require(remotes(name)[0])
    arrays = read_npz(path, objects=True)
    with reading(path):
        adjacency, features = (_matrix(arrays, prefix) for prefix in ("adj", "attr"))
        labels = _labels(arrays)
        if len({adjacency.shape[0], adjacency.shape[1], features.shape[0], len(labels)}) != 1:
            raise ValueError("its arrays are of different numbers of nodes")
        if not adjacency.nnz:
            raise ValueError("it has no edges")
        indicators = (dense(features) != 0).astype(np.float32)
        keep = np.arange(len(labels))
        if largest_component:
            component = connected_components(adjacency, directed=False)[1]
            keep = np.flatnonzero(component == np.bincount(component).argmax())
        coo = adjacency[keep][:, keep].tocoo()
        graph = undirected_graph(coo.col, coo.row, indicators[keep])
        labels = labels[keep]
        part = _split(labels, train_per_class, val_per_class, seed)
    return NodeTask(
        graph=graph,
        labels=labels,
        **masks(part),
        extras={"node": keep.astype(np.int32)},
        num_classes=int(labels.max()) + 1,
        name=f"cpf:{name}",
    )


def _matrix(arrays: dict[str, np.ndarray], prefix: str) -> Any:
    names = [f"{prefix}_{k}" for k in ("data", "indices", "indptr", "shape")]
    if missing := [name for name in names if name not in arrays]:
        raise ValueError(f"it lacks the array {missing[0]!r}")
    data, indices, indptr, shape = (arrays[name] for name in names)
    if shape.shape != (2,) or shape.dtype.kind not in "iu":
        raise ValueError(f"{prefix}_shape is no pair of integers")
    return checked_sparse(data, indices, indptr, shape.tolist())


def _labels(arrays: dict[str, np.ndarray]) -> np.ndarray:
    if "labels" not in arrays:
        raise ValueError("it lacks the array 'labels'")
    labels = arrays["labels"]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(f"labels are {labels.dtype.name} {labels.shape}, expected a vector of integers")
    if wrong := np.flatnonzero((labels < 0) | (labels >= len(labels))).tolist():
        raise ValueError(f"label {labels[wrong[0]]} of node {wrong[0]} is no class of {len(labels)} nodes")
    return labels.astype(np.int32)


def _split(labels: np.ndarray, train: int, val: int, seed: int) -> np.ndarray:
    """Draw in the order of the authors' code: training nodes class by class, then validation nodes."""
    rng = np.random.RandomState(seed)
    part = np.full(len(labels), 2)
    for number, count in enumerate((train, val)):
        pools = [np.flatnonzero((labels == c) & (part == 2)) for c in range(labels.max() + 1)]
        for pool in pools:
            if len(pool) < count:
                raise DataError(f"a class has only {len(pool)} nodes left, fewer than {count}")
            part[rng.choice(pool, count, replace=False)] = number
    return part


ENTRIES = tuple(
    dataset(
        f"cpf:{name}",
        partial(cpf, name),
        f"{name.capitalize()} in the protocol of CPF: the largest component, binary features.",
        kind="node",
        size=size,
        classes=classes,
        source="https://github.com/BUPT-GAMMA/CPF",
        paper="Yang, Liu and Shi 2021",
        files=partial(remotes, name),
    )
    for name, (size, classes) in _SETS.items()
)
