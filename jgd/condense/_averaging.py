"""Condensers without learning: means of classes and of clusters within classes, with A' = I.

average       every condensed node of a class is the mean of its training features (``hops=0``), or of the
              features propagated ``hops`` times, ``Â^hops X``. With two hops this zero-learning baseline
              reaches most published condensers on Cora and Citeseer; every claim is compared with it.
clustering    k-means within each class, on the same features; condensed nodes are the means.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jgd.condense.common import (
    budget,
    condensed_nodes,
    condenser,
    official,
    propagated_features,
    size_of,
    training_part,
)
from jgd.core import Loop, in_memory
from jgd.data import Condensed, NodeTask
from jgd.ops import kmeans
from jgd.registry import Entry

__all__ = ["Average", "Clustering"]


def _classes(recipe: Any, task: NodeTask) -> tuple[tuple[int, ...], list[np.ndarray]]:
    """Return condensed nodes of each class, and propagated features of the training nodes of each class."""
    shares = budget(task, size_of(task, recipe.label_ratio, recipe.nodes))
    part = training_part(task)
    x, labels = propagated_features(part, recipe.hops), np.asarray(part.labels)
    return shares, [x[np.asarray(part.train) & (labels == c)] for c in range(task.num_classes)]


@dataclass(frozen=True)
class Average:
    """Means of the classes, repeated to fill the budget.

    Attributes:
      label_ratio: Condensed nodes for each labelled node.
      nodes: Number of condensed nodes, instead of the ratio.
      hops: Propagations before averaging.
    """

    label_ratio: float | None = 0.5
    nodes: int | None = None
    hops: int = 0

    @condenser
    def __call__(self, key: Array, task: NodeTask, loop: Loop = in_memory) -> Condensed:
        """Condense a task."""
        del loop
        shares, members = _classes(self, task)
        classes = np.repeat(np.arange(task.num_classes), shares)
        means = {c: members[c].mean(0) for c in np.unique(classes)}
        return condensed_nodes(
            self, key, task, features=np.stack([means[c] for c in classes]), labels=classes
        )


@dataclass(frozen=True)
class Clustering:
    """Means of k-means clusters within the training nodes of each class.

    Attributes:
      label_ratio: Condensed nodes for each labelled node.
      nodes: Number of condensed nodes, instead of the ratio.
      hops: Propagations before clustering.
      restarts: Random starts of k-means.
    """

    label_ratio: float | None = 0.5
    nodes: int | None = None
    hops: int = 0
    restarts: int = 4

    @condenser
    def __call__(self, key: Array, task: NodeTask, loop: Loop = in_memory) -> Condensed:
        """Condense a task."""
        del loop
        shares, members = _classes(self, task)
        centers = []
        for c, count in enumerate(shares):
            if count:
                rows, k_class = jnp.asarray(members[c]), jax.random.fold_in(key, c)
                centers.append(np.asarray(kmeans(k_class, rows, count, restarts=self.restarts).centers))
        classes = np.repeat(np.arange(task.num_classes), shares)
        return condensed_nodes(self, key, task, features=np.concatenate(centers), labels=classes)


_PROPAGATED = partial(Average, hops=2)
ENTRIES = (
    Entry("average", Average, "mean of each class", "", ("nodes",), "none", official(Average)),
    Entry(
        "average-sgc",
        _PROPAGATED,
        "mean of each class after two propagations",
        "",
        ("nodes",),
        "none",
        official(_PROPAGATED),
    ),
    Entry(
        "clustering",
        Clustering,
        "k-means in each class, without edges",
        "",
        ("nodes",),
        "none",
        official(Clustering),
    ),
)
