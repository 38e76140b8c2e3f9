"""Handwritten digits as a graph: real data that needs no download."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from jgd.data.prepare import per_class
from jgd.data.tasks import NodeTask
from jgd.graph.build import knn_graph

__all__ = ["digits_knn"]


def digits_knn(k: int = 8, *, seed: int = 0) -> NodeTask:
    """The 1797 digits of scikit-learn, each joined with its ``k`` nearest neighbours.

    Features are the 64 pixels divided by 16, so that they lie in 0..1; distances are Euclidean between them.
    An edge runs in both directions where either node is among the nearest of the other.

    Args:
      k: neighbours of each digit.
      seed: of the split: 20 training nodes of each class (200), 500 validation and 1097 test nodes.
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
