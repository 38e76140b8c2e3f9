"""Steps that loaders share: features, simple graphs and splits (host side, NumPy)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import jraph
import numpy as np
import scipy.sparse as sp

from jgd.graph.build import from_edges, remove_self_loops, to_undirected

__all__ = [
    "dense",
    "folds",
    "masks",
    "normalize_features",
    "one_hot",
    "per_class",
    "stratified",
    "undirected_graph",
]


CELLS = 2**26  # of a dense matrix that is made of a sparse one: 256 MiB of float32


def dense(matrix: Any) -> np.ndarray:
    """A float32 matrix of a sparse or dense one from a file.

    Raises:
      ValueError: where it is no matrix of finite real numbers, or has more than `CELLS` numbers.
    """
    if len(matrix.shape) != 2 or not all(matrix.shape):
        raise ValueError(f"it has shape {matrix.shape}, which is no matrix")
    if matrix.shape[0] * matrix.shape[1] > CELLS:
        raise ValueError(f"a dense matrix {matrix.shape} would have more than {CELLS} numbers")
    if matrix.dtype.kind not in "biuf":
        raise ValueError(f"it is a matrix of {matrix.dtype.name}, not of numbers")
    x = np.asarray(matrix.toarray() if sp.issparse(matrix) else matrix, np.float32)
    if not np.isfinite(x).all():
        raise ValueError(f"row {int(np.argmin(np.isfinite(x).all(1)))} holds a number that is not finite")
    return x


def normalize_features(x: Any, how: Literal["row"] | None) -> np.ndarray:
    """Dense float32 features; with ``"row"``, rows of absolute sum one (rows of zeros stay)."""
    x = np.asarray(x.toarray() if sp.issparse(x) else x, np.float32)
    if how is None:
        return x
    if how != "row":
        raise ValueError(f'normalize must be "row" or None, got {how!r}')
    total = np.abs(x).sum(1, keepdims=True)
    return x / np.where(total > 0, total, 1)


def one_hot(codes: np.ndarray) -> np.ndarray:
    """Float32 indicators of the distinct values of ``codes`` ``[N]``, in their order."""
    values, index = np.unique(codes, return_inverse=True)
    return np.eye(len(values), dtype=np.float32)[index]


def undirected_graph(senders: np.ndarray, receivers: np.ndarray, nodes: np.ndarray) -> jraph.GraphsTuple:
    """A simple graph with every edge in both directions, without self loops or repetitions."""
    return to_undirected(remove_self_loops(from_edges(senders, receivers, nodes=nodes)))


def masks(part: np.ndarray) -> dict[str, Any]:
    """The masks of a task from 0 (train), 1 (val), 2 (test) or -1 (none) for each example."""
    return {name: part == number for number, name in enumerate(("train", "val", "test"))}


def _rank_in_class(labels: np.ndarray, seed: int) -> np.ndarray:
    """A random rank ``0, 1, ...`` of each example among those of its class."""
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    starts = np.searchsorted(labels[order], labels[order])
    rank = np.empty(len(labels), np.int64)
    rank[order] = np.arange(len(labels)) - starts
    return rank


def per_class(
    labels: np.ndarray,
    train: int,
    *,
    seed: int,
    val: int = 0,
    val_per_class: int = 0,
    test: int | None = None,
) -> dict[str, Any]:
    """Random masks with equally many training examples of each class.

    Args:
      labels: ``[N]`` classes; examples with -1 are in no mask.
      train: examples of each class (a class with fewer gives all it has).
      seed: of the choice.
      val: further examples for validation, of any class; or
      val_per_class: as many of each class.
      test: examples of the rest for testing; all by default.
    """
    rank = _rank_in_class(labels, seed)
    part = np.full(len(labels), -1)
    known = labels >= 0
    part[known & (rank < train)] = 0
    part[known & (rank >= train) & (rank < train + val_per_class)] = 1
    rest = np.random.default_rng((seed, 1)).permutation(np.flatnonzero(known & (part < 0)))
    part[rest[:val]] = 1
    part[rest[val:] if test is None else rest[val : val + test]] = 2
    return masks(part)


def stratified(labels: np.ndarray, fractions: Sequence[float], *, seed: int) -> dict[str, Any]:
    """Random masks that take the same fractions (train, val, test) of every class."""
    bounds = np.cumsum(fractions)
    if len(bounds) != 3 or min(fractions) < 0 or not np.isclose(bounds[-1], 1):
        raise ValueError(f"give three fractions that add up to one, got {tuple(fractions)}")
    count = np.unique(labels, return_inverse=True, return_counts=True)
    share = (_rank_in_class(labels, seed) + 0.5) / count[2][count[1]]
    return masks(np.where(labels >= 0, np.searchsorted(bounds[:2], share, side="right"), -1))


def folds(labels: np.ndarray, number: int, *, seed: int) -> np.ndarray:
    """A fold ``0..number-1`` for each example, classes and sizes as even as they can be."""
    rank = _rank_in_class(labels, seed)
    _, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    starts = np.append(0, np.cumsum(counts)[:-1])
    return ((rank + starts[index]) % number).astype(np.int32)
