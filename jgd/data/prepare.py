"""Steps that loaders share: features, simple graphs and splits (host side, NumPy)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jraph
import numpy as np
import scipy.sparse as sp

from jgd.data.checks import TargetKind, known
from jgd.graph import from_edges, remove_self_loops, to_undirected

__all__ = [
    "DEFAULT_SPLIT",
    "complete_splits",
    "dense",
    "folds",
    "masks",
    "normalize_features",
    "one_hot",
    "per_class",
    "stratified",
    "undirected_graph",
]


CELLS = 2**26  # largest number of cells of a dense matrix from a sparse one: 256 MiB of float32


def dense(matrix: Any) -> np.ndarray:
    """Return a sparse or dense matrix from a file as a float32 matrix.

    Args:
      matrix: Sparse or dense matrix.

    Raises:
      ValueError: If it is not a matrix of finite real numbers, or has more than `CELLS` numbers.
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
    """Return dense float32 features; with ``"row"``, rows have absolute sum one (rows of zeros stay)."""
    x = np.asarray(x.toarray() if sp.issparse(x) else x, np.float32)
    if how is None:
        return x
    if how != "row":
        raise ValueError(f'normalize must be "row" or None, got {how!r}')
    total = np.abs(x).sum(1, keepdims=True)
    return x / np.where(total > 0, total, 1)


def one_hot(codes: np.ndarray) -> np.ndarray:
    """Return float32 indicators of the distinct values of ``codes`` ``[N]``, in their order."""
    values, index = np.unique(codes, return_inverse=True)
    return np.eye(len(values), dtype=np.float32)[index]


def undirected_graph(senders: np.ndarray, receivers: np.ndarray, nodes: np.ndarray) -> jraph.GraphsTuple:
    """Build a simple graph with every edge in both directions, without self loops or repetitions."""
    return to_undirected(remove_self_loops(from_edges(senders, receivers, nodes=nodes)))


def masks(part: np.ndarray) -> dict[str, Any]:
    """Return the masks of a task from 0 (train), 1 (val), 2 (test) or -1 (none) for each example."""
    return {name: part == number for number, name in enumerate(("train", "val", "test"))}


def _rank_in_class(labels: np.ndarray, seed: int) -> np.ndarray:
    """Draw a random rank ``0, 1, ...`` of each example among those of its class."""
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
    """Draw random masks with equally many training examples of each class.

    Args:
      labels: Classes ``[N]``; examples with -1 are in no mask.
      train: Number of training examples of each class (a class with fewer gives all it has).
      seed: Seed of the choice.
      val: Number of validation examples, of any class.
      val_per_class: Number of validation examples of each class; give this or ``val``.
      test: Number of test examples among the rest; None takes all.
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
    """Draw random masks that take the same fractions (train, val, test) of every class."""
    bounds = np.cumsum(fractions)
    if len(bounds) != 3 or min(fractions) < 0 or not np.isclose(bounds[-1], 1):
        raise ValueError(f"give three fractions that add up to one, got {tuple(fractions)}")
    count = np.unique(labels, return_inverse=True, return_counts=True)
    share = (_rank_in_class(labels, seed) + 0.5) / count[2][count[1]]
    return masks(np.where(labels >= 0, np.searchsorted(bounds[:2], share, side="right"), -1))


DEFAULT_SPLIT = (0.6, 0.2, 0.2)
"""Shares of training, validation and test examples where data come without a split."""


def complete_splits(
    labels: np.ndarray,
    given: Mapping[str, np.ndarray | None],
    fractions: Sequence[float] | None = None,
    *,
    kind: TargetKind = "classes",
    seed: int = 0,
) -> tuple[dict[str, np.ndarray | None], str]:
    """Return the masks of a task, drawing those that are missing.

    Without a training set all three are drawn; without a test set, the labelled rows that are left are
    divided into the missing parts; without a validation set, it is taken out of the training rows. Every
    class keeps at least one training row, so that a class with one row has no validation or test row.

    Args:
      labels: Classes ``[N]``, or other targets, which are divided at random instead of class by class. Rows
        without a label (see `jgd.data.checks.known`) are in no mask that is drawn.
      given: Bool masks by name; a missing name or None stands for no mask.
      fractions: Fractions of training, validation and test examples, which replace the given masks. None
        keeps those, and draws the others by `DEFAULT_SPLIT`.
      kind: Kind of the labels.
      seed: Seed of the choice.

    Returns:
      The masks by name (None for a part of fraction zero), and one line that states what was drawn, or "".

    Raises:
      ValueError: If fractions are invalid, or no rows are left for a part.
    """
    replaced = fractions is not None
    fractions = _checked_fractions(DEFAULT_SPLIT if fractions is None else fractions)
    have = {name: mask for name, mask in given.items() if mask is not None and not replaced}
    missing = [name for name in _PARTS if name not in have]
    found: dict[str, np.ndarray | None] = dict(have)
    labelled = known(labels, kind)
    strata = np.asarray(labels) if kind == "classes" else np.zeros(len(labels), np.int64)
    how = f"stratified, seed {seed}" if kind == "classes" else f"seed {seed}"
    if missing and not labelled.any():
        raise ValueError("no row has a label: there is nothing to split")
    if "train" in missing:
        free = labelled & ~np.logical_or.reduce([np.zeros(len(labels), bool), *have.values()])
        shares = [fractions[i] if name in missing else 0.0 for i, name in enumerate(_PARTS)]
        found |= _divided(strata, free, shares, seed)
    elif "test" in missing:
        free = labelled & ~np.logical_or.reduce([*have.values()])
        if not free.any():
            raise ValueError("all labelled rows are for training: leave the split out, and it is made")
        shares = [0.0, fractions[1] if "val" in missing else 0.0, fractions[2]]
        found |= _divided(strata, free, shares, seed, keep_first=False)
    elif "val" in missing:
        train = have["train"] & labelled
        found |= _divided(strata, train, [fractions[0], fractions[1], 0.0], seed)
    for name in _PARTS:
        mask = found.get(name)
        found[name] = mask if mask is not None and (mask.any() or name in have) else None
    if not missing:
        return found, ""
    sizes = ", ".join(f"{0 if (m := found[name]) is None else int(m.sum())} {name}" for name in _PARTS)
    why = " out of the training rows" if missing == ["val"] else ""
    what = "split" if len(missing) == 3 else " and ".join(missing)
    why_made = "as requested" if replaced else "not in the file"
    return found, f"{what} made{why} ({why_made}; {how}): {sizes} rows"


_PARTS = ("train", "val", "test")


def _checked_fractions(fractions: Sequence[float]) -> tuple[float, float, float]:
    if len(fractions) != 3 or not all(f >= 0 for f in fractions) or not np.isclose(sum(fractions), 1):
        raise ValueError(f"a split is three fractions that add up to one, got {tuple(fractions)}")
    if not fractions[0]:
        raise ValueError(f"a split needs training rows, got {tuple(fractions)}")
    return tuple(float(f) for f in fractions)  # pyright: ignore[reportReturnType]


def _divided(
    strata: np.ndarray, free: np.ndarray, shares: Sequence[float], seed: int, *, keep_first: bool = True
) -> dict[str, np.ndarray]:
    """Divide the free rows of every class by these shares; the first row of a class is for training."""
    labels = np.where(free, strata, -1)
    total = sum(shares)
    made = stratified(labels, [share / total for share in shares], seed=seed)
    if keep_first:
        first = free & (_rank_in_class(labels, seed) == 0)
        made = {name: mask | first if name == "train" else mask & ~first for name, mask in made.items()}
    return {name: made[name] for name, share in zip(_PARTS, shares, strict=True) if share}


def folds(labels: np.ndarray, number: int, *, seed: int) -> np.ndarray:
    """Draw a fold ``0..number-1`` for each example, classes and sizes as even as they can be."""
    rank = _rank_in_class(labels, seed)
    _, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    starts = np.append(0, np.cumsum(counts)[:-1])
    return ((rank + starts[index]) % number).astype(np.int32)
