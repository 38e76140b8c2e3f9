"""A method of one's own: one file and one line, ``METHODS.add("toy_method", "class-medians")``.

Every condensed node is the median of the labelled nodes of its class; there are no edges.
"""

from dataclasses import dataclass

import numpy as np

from jgd.condense.common import budget, condensed_nodes, condenser, dense_features, official, size_of
from jgd.core import in_memory
from jgd.registry import Entry


@dataclass(frozen=True)
class ClassMedians:
    """The median of the features of each class.

    Attributes:
      label_ratio: Condensed nodes for each labelled node; each class gets its share, all of them equal.
      nodes: Number of condensed nodes, in place of the ratio.
    """

    label_ratio: float | None = 0.5
    nodes: int | None = None

    @condenser
    def __call__(self, key, task, loop=in_memory):
        """Condense a task of nodes."""
        x, labels, train = dense_features(task), np.asarray(task.labels), task.labelled()
        shares = budget(task, size_of(task, self.label_ratio, self.nodes))
        classes = np.repeat(np.arange(task.num_classes), shares)
        medians = np.stack([np.median(x[train & (labels == c)], axis=0) for c in classes])
        return condensed_nodes(self, key, task, features=medians, labels=classes)


ENTRIES = (
    Entry(
        "class-medians",
        ClassMedians,
        "Median of each class.",
        paper="This file, 2026",
        kinds=("nodes",),
        cost="none",
        official=official(ClassMedians),
    ),
)
