"""A kind of data of one's own: one file and one line, ``KINDS.add("toy_kind", "bags")``.

A bag is a set of vectors with one class; networks read the mean of a bag. What differs from arrays is how
examples are read; training, metrics, comparison, grid and command line are those of arrays.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from jgd.core import Examples
from jgd.data import Condensed
from jgd.evaluation.kinds.arrays import ARRAYS
from jgd.evaluation.kinds.base import check_classes, soft_targets
from jgd.nn import Perceptron
from jgd.registry import Entry


@dataclass(frozen=True)
class BagTask:
    """Bags of vectors: ``bags`` is ``[B, N, F]``, ``labels`` ``[B]``, masks are ``[B]``."""

    bags: np.ndarray
    labels: np.ndarray
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    num_classes: int
    name: str = "bags"
    target_kind: str = "classes"
    class_names: tuple = ()

    def labelled(self, split="train"):
        """The bags of a split."""
        return getattr(self, split)


def real(task, split, net):
    """The means of the bags of a split."""
    index = np.flatnonzero(task.labelled(split))
    x = jnp.asarray(task.bags[index].mean(1), jnp.float32)
    return Examples((x,), jnp.asarray(task.labels[index]), jnp.ones(len(index)))


def small(condensed, net, config, task):
    """The means of condensed bags."""
    targets = soft_targets(condensed, task.num_classes)
    return Examples((jnp.asarray(condensed.data.mean(1)),), targets, jnp.ones(len(targets)))


@dataclass(frozen=True)
class FewBags:
    """The first bags of each class.

    Attributes:
      per_class: Bags of each class.
      label_ratio: Share of the training bags, in place of a number.
    """

    per_class: int = 2
    label_ratio: float | None = None

    def __call__(self, key, task, loop=None):
        """Choose bags."""
        index = np.flatnonzero(task.train)
        count = self.per_class
        if self.label_ratio is not None:
            count = max(1, int(self.label_ratio * len(index)) // task.num_classes)
        chosen = [index[task.labels[index] == c][:count] for c in range(task.num_classes)]
        chosen = np.concatenate(chosen)
        said = {"method": "few-bags", "config": {"per_class": self.per_class}}
        return Condensed(data=task.bags[chosen], targets=task.labels[chosen], provenance=said)


def size(data):
    """How many bags there are, and their bytes."""
    bags, labels = (data.bags, data.labels) if isinstance(data, BagTask) else (data.data, data.targets)
    return {"bags": len(labels), "bytes": int(bags.nbytes + labels.nbytes)}


BAGS = ARRAYS._replace(
    name="bags",
    task=BagTask,
    holds=lambda condensed: np.ndim(condensed.data) == 3,
    check=lambda condensed, task: check_classes(condensed, task),
    network=lambda name, task, config: Perceptron(task.num_classes, (16,)),
    real=real,
    small=small,
    size=size,
    networks=("mlp-16",),
    method="few-bags",
    baselines=("few-bags",),
)
ENTRIES = (
    Entry("bags", lambda: BAGS, "Bags of vectors, each bag with a class."),
    Entry("few-bags", FewBags, "First bags of each class.", kinds=("bags",), cost="none"),
)
