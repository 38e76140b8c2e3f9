"""Smaller, noisier and less balanced training sets of a task; validation and test stay as they are."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Int, Shaped

from jgd.data.tasks import ArrayTask

__all__ = ["evenly", "long_tail", "noisy_labels", "subset", "with_validation"]


def evenly(labels: Int[np.ndarray, " N"], n: int, *, seed: int) -> Int[np.ndarray, " n"]:
    """Draw the ascending indices of ``n`` random examples, of each class as equally many as possible."""
    if not 0 <= n <= len(labels):
        raise ValueError(f"cannot choose {n} of {len(labels)} examples")
    order = np.random.default_rng(seed).permutation(len(labels))
    grouped = order[np.argsort(labels[order], kind="stable")]
    rank = np.empty(len(labels), np.int64)  # of each example among those of its class
    rank[grouped] = np.arange(len(labels)) - np.searchsorted(labels[grouped], labels[grouped])
    return np.sort(order[np.argsort(rank[order], kind="stable")][:n])


def _train(task: ArrayTask) -> tuple[np.ndarray, np.ndarray]:
    """Return indices and classes of the training examples."""
    if task.train is None or task.y is None or np.ndim(task.y) != 1 or not task.num_classes:
        raise ValueError(f"{task.name or 'the task'} has no training examples with classes")
    index = np.flatnonzero(np.asarray(task.train))
    return index, np.asarray(task.y)[index]


def _mask(size: int, index: np.ndarray) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[index] = True
    return mask


def subset(task: ArrayTask, n: int, seed: int | None = None) -> ArrayTask:
    """Keep ``n`` training examples.

    Args:
      task: Task with training examples.
      n: Number of examples to keep.
      seed: None for the first ``n``; else the seed of ``n`` random ones, of each class as equally many as
        possible.

    Raises:
      ValueError: If the task has fewer training examples.
    """
    index, labels = _train(task)
    if not 0 < n <= len(index):
        raise ValueError(f"{task.name or 'the task'} has {len(index)} training examples, cannot keep {n}")
    kept = index[:n] if seed is None else index[evenly(labels, n, seed=seed)]
    return dataclasses.replace(task, train=_mask(len(task.y), kept))


def with_validation(task: ArrayTask, n: int, seed: int = 0) -> ArrayTask:
    """Set ``n`` random training examples apart for validation, equally many of each class.

    Args:
      task: Task with training examples.
      n: Number of validation examples.
      seed: Seed of the choice.

    Raises:
      ValueError: If the task has a validation set, or no training examples would be left.
    """
    index, labels = _train(task)
    if task.val is not None and np.any(task.val):
        raise ValueError(f"{task.name or 'the task'} has a validation set already")
    if not 0 <= n < len(index):
        raise ValueError(f"cannot set {n} of {len(index)} training examples apart")
    chosen = _mask(len(task.y), index[evenly(labels, n, seed=seed)])
    return dataclasses.replace(task, train=np.asarray(task.train) & ~chosen, val=chosen)


def noisy_labels(task: ArrayTask, rate: float, seed: int = 0) -> ArrayTask:
    """Add symmetric label noise: a share of the training labels becomes another class, each as likely.

    Args:
      task: Task with training examples.
      rate: Share of wrong labels, in 0..1; their number is rounded.
      seed: Seed of the choice.

    Returns:
      The task with ``extras["clean"]``, the original labels.
    """
    index, labels = _train(task)
    if not 0 <= rate <= 1:
        raise ValueError(f"the rate of wrong labels must be in 0..1, got {rate}")
    rng = np.random.default_rng(seed)
    wrong = rng.permutation(len(index))[: round(rate * len(index))]
    clean = np.asarray(task.y)
    noisy = clean.copy()
    shift = rng.integers(1, task.num_classes, len(wrong))
    noisy[index[wrong]] = (labels[wrong] + shift) % task.num_classes
    return dataclasses.replace(task, y=noisy, extras={**task.extras, "clean": clean})


def long_tail(task: ArrayTask, factor: float, seed: int | None = None) -> ArrayTask:
    """Make the sizes of the training classes fall exponentially (Cui et al., CVPR 2019).

    Class ``c`` keeps ``n factor^(-c / (C - 1))`` examples, at least one, where ``n`` is the size of the
    smallest class: the first class is ``factor`` times as large as the last.

    Args:
      task: Task with training examples of every class.
      factor: Imbalance, at least 1.
      seed: None for the first examples of each class; else the seed of random ones.
    """
    index, labels = _train(task)
    if not factor >= 1:
        raise ValueError(f"the imbalance must be at least 1, got {factor}")
    classes = task.num_classes
    smallest = np.bincount(labels, minlength=classes).min()
    if not smallest:
        raise ValueError(f"{task.name or 'the task'} has a class without training examples")
    order = np.arange(len(index)) if seed is None else np.random.default_rng(seed).permutation(len(index))
    sizes = np.maximum(1, np.floor(smallest * factor ** (-np.arange(classes) / max(classes - 1, 1)) + 1e-9))
    kept = [order[labels[order] == c][: int(size)] for c, size in enumerate(sizes)]
    return dataclasses.replace(task, train=_mask(len(task.y), index[np.concatenate(kept)]))


def parts(train: Shaped[np.ndarray, " N"]) -> dict[str, np.ndarray]:
    """Return masks from 0 (train), 1 (val), 2 (test) or 3 (unlabelled); none for an empty part."""
    names = ("train", "val", "test", "unlabelled")
    return {name: train == i for i, name in enumerate(names) if np.any(train == i)}
