"""Handwritten digits, as a graph and as images: real data that needs no download."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from jgd.data.facts import dataset
from jgd.data.images import image_task
from jgd.data.prepare import per_class
from jgd.data.storage import DataError
from jgd.data.subsets import with_validation
from jgd.data.tasks import ArrayTask, NodeTask
from jgd.graph import knn_graph

__all__ = ["digits_images", "digits_knn"]


def digits_knn(k: int = 8, *, seed: int = 0) -> NodeTask:
    """Load the 1797 digits of scikit-learn, each joined with its ``k`` nearest neighbours.

    Features are the 64 pixels divided by 16, so that they lie in 0..1; distances are Euclidean between them.
    An edge runs in both directions where either node is among the nearest of the other.

    Args:
      k: Number of neighbours of each digit.
      seed: Seed of the split: 20 training nodes of each class (200), 500 validation and 1097 test nodes.
    """
    data: Any = load_digits()
    labels = np.asarray(data.target, np.int32)
    return NodeTask(
        graph=knn_graph(np.asarray(data.data, np.float32) / 16, k),
        labels=labels,
        **per_class(labels, 20, val=500, seed=seed),
        num_classes=10,
        name="digits",
    )


def digits_images(train: int = 1000, *, val: int = 0, seed: int | None = None) -> ArrayTask:
    """Load the 1797 digits of scikit-learn as images ``[N, 8, 8, 1]`` in 0..1.

    Args:
      train: Number of training images; the others are for testing.
      val: Number of training images to set apart for validation, equally many of each class.
      seed: Seed of the split; None takes the first ``train`` images in the order of the file.

    Raises:
      DataError: If no image would be left for testing.
    """
    data: Any = load_digits()
    size = len(data.target)
    if not 0 < train < size:
        raise DataError(f"there are {size} digits: train must be in 1..{size - 1}, got {train}")
    order = np.arange(size) if seed is None else np.random.default_rng(seed).permutation(size)
    part = np.full(size, 2)
    part[order[:train]] = 0
    x, y = np.asarray(data.images, np.float32) / 16, np.asarray(data.target, np.int32)
    task = image_task(x, y, part, num_classes=10, name="digits-images")
    return with_validation(task, val, 0 if seed is None else seed) if val else task


_SOURCE, _LICENCE = "https://archive.ics.uci.edu/dataset/80 (in scikit-learn)", "CC BY 4.0"

ENTRIES = (
    dataset(
        "digits",
        digits_knn,
        "Handwritten digits, joined with their nearest neighbours.",
        kind="node",
        size=1797,
        classes=10,
        source=_SOURCE,
        licence=_LICENCE,
    ),
    dataset(
        "digits-images",
        digits_images,
        "Handwritten digits, 8 x 8 pixels.",
        kind="image",
        size=1797,
        classes=10,
        source=_SOURCE,
        licence=_LICENCE,
    ),
)
