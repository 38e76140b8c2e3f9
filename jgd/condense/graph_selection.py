"""Coresets of whole graphs: keep some training graphs as they are.

random        uniformly in each class
herding       greedily match the mean embedding of the class
k-center      farthest first, from the graph nearest to the mean of the class

The two rules are those of nodes (`jgd.condense.selection`), on the pooled embeddings of a GIN that was
trained on all training graphs. The budget is a number of graphs for each class, or a number of nodes: then
classes take turns, and each takes the next of its graphs that still fits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from jgd.condense.common import condenser
from jgd.condense.graphs import condensed_graphs, training_graphs
from jgd.condense.selection import herding, k_center
from jgd.core import Algorithm, Loop, from_linen, in_memory
from jgd.data.condensed import Condensed
from jgd.data.tasks import GraphTask
from jgd.graph import operator, select_graphs
from jgd.nn import GIN, Readout, all_graphs, graph_classifier, graph_set, graph_splits
from jgd.optim import adam_l2

__all__ = ["HerdingGraphs", "KCenterGraphs", "RandomGraphs", "fill", "gin_embedding"]


@lru_cache(maxsize=64)  # the same functions for the same settings: nothing is compiled twice
def _gin(num_classes: int, hidden: int, layers: int, steps: int) -> Algorithm:
    net = Readout(GIN(hidden, hidden, layers, dropout=0.0), num_classes)
    return graph_classifier(from_linen(net), adam_l2(5e-3, 1e-3, num_steps=steps), every=20)


@jax.jit
def _embed(net, inputs):
    return net(*inputs).embedding


def gin_embedding(
    key: Array,
    task: GraphTask,
    loop: Loop = in_memory,
    *,
    hidden: int = 32,
    layers: int = 2,
    steps: int = 300,
    batch_size: int = 128,
) -> Float[np.ndarray, "n d"]:
    """Pooled embeddings of the training graphs (in their order) by a GIN trained on them.

    Args:
      key: random key.
      task: the original task.
      loop: runs the training.
      hidden: width of the network, and of the embedding.
      layers: its layers of message passing.
      steps: its training steps.
      batch_size: graphs in a batch.
    """
    index, labels = training_graphs(task)

    def part(at, classes):
        graphs = select_graphs(task.graphs, at)
        return graph_set(operator(graphs, **GIN.adjacency), graphs, classes.astype(np.int32))

    own, val = part(index, labels), None
    if task.val is not None and np.any(task.val):  # unknown labels have left the masks, see `condenser`
        at = np.flatnonzero(np.asarray(task.val))
        val = part(at, np.asarray(task.labels)[at])
    seed = np.asarray(jax.random.key_data(key)).tolist()
    data, batches = graph_splits(own, val or own, batch_size=batch_size, steps=steps, seed=seed)
    net = loop("embed", _gin(task.num_classes, hidden, layers, steps), key, data, steps, batches)
    return np.asarray(_embed(net, all_graphs(own).inputs))


def fill(orders: list[np.ndarray], sizes: Int[np.ndarray, " n"], nodes: int) -> list[np.ndarray]:
    """Take turns until nothing fits any more.

    Args:
      orders: items (integers) of each class, best first.
      sizes: size of each item.
      nodes: the sum of sizes that must not be exceeded.

    Returns:
      The items taken of each class, in the order they were taken.
    """
    waiting, taken = [list(order) for order in orders], [[] for _ in orders]
    while True:
        before = nodes
        for queue, chosen in zip(waiting, taken, strict=True):
            item = next((i for i in queue if sizes[i] <= nodes), None)
            if item is not None:
                queue.remove(item)
                chosen.append(item)
                nodes -= int(sizes[item])
        if nodes == before:
            return [np.asarray(chosen, np.int64) for chosen in taken]


@dataclass(frozen=True)
class _Graphs:
    """Some training graphs.

    Attributes:
      graphs_per_class: how many of each class (all of a class that has fewer).
      nodes: at most so many nodes in all graphs together, instead.
    """

    graphs_per_class: int = 10
    nodes: int | None = None

    def __post_init__(self):
        """Refuse impossible settings."""
        for name in ("graphs_per_class", "nodes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")

    def _select(
        self, key: Array, task: GraphTask, pick: Callable[[np.ndarray, int], np.ndarray]
    ) -> Condensed:
        """The graphs that ``pick(members, count)`` chooses first in each class; members count from 0."""
        index, labels = training_graphs(task)
        sizes = np.asarray(task.graphs.n_node)[index]
        classes = np.unique(labels)
        members = [np.flatnonzero(labels == c) for c in classes]
        if self.nodes is None:
            chosen = [m[np.asarray(pick(m, min(self.graphs_per_class, len(m))))] for m in members]
        else:
            chosen = fill([m[np.asarray(pick(m, len(m)))] for m in members], sizes, self.nodes)
            for c, graphs, m in zip(classes, chosen, members, strict=True):
                if not len(graphs):
                    raise ValueError(
                        f"{self.nodes} nodes leave no graph for class {c} of task {task.name!r}, "
                        f"whose smallest one has {sizes[m].min()}"
                    )
        where = np.concatenate(chosen)
        graphs = select_graphs(task.graphs, index[where])
        extras = {"index": index[where]}
        if task.root is not None:
            ends = np.cumsum(task.graphs.n_node)
            extras["root"] = np.concatenate(
                [np.asarray(task.root)[ends[i] - task.graphs.n_node[i] : ends[i]] for i in index[where]]
            )
        weights = None if task.weights is None else np.asarray(task.weights)[index[where]]
        return condensed_graphs(
            self, key, task, graphs=graphs, labels=labels[where], weights=weights, extras=extras
        )


class RandomGraphs(_Graphs):
    """Uniformly chosen graphs of each class."""

    @condenser
    def __call__(self, key: Array, task: GraphTask, loop: Loop = in_memory) -> Condensed:
        """Condense a task."""
        del loop
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        return self._select(key, task, lambda m, count: rng.choice(len(m), count, replace=False))


@dataclass(frozen=True)
class _ByEmbedding(_Graphs):
    """Graphs chosen by the embeddings of a GIN.

    Attributes:
      hidden: width of the GIN.
      layers: its layers of message passing.
      steps: its training steps.
    """

    hidden: int = 32
    layers: int = 2
    steps: int = 300

    @staticmethod
    def choose(x: Float[np.ndarray, "m d"], count: int) -> Int[np.ndarray, " count"]:
        """Indices of ``count`` rows of the embeddings of one class."""
        raise TypeError("a method says how it chooses")

    @condenser
    def __call__(self, key: Array, task: GraphTask, loop: Loop = in_memory) -> Condensed:
        """Condense a task."""
        z = gin_embedding(key, task, loop, hidden=self.hidden, layers=self.layers, steps=self.steps)
        return self.select(key, task, z)

    def select(self, key: Array, task: GraphTask, z: Float[np.ndarray, "n d"]) -> Condensed:
        """Choose by embeddings of the training graphs, in their order."""
        return self._select(key, task, lambda members, count: self.choose(z[members], count))


class HerdingGraphs(_ByEmbedding):
    """Graphs whose mean GIN embedding follows that of their class."""

    choose = staticmethod(herding)


class KCenterGraphs(_ByEmbedding):
    """Graphs that cover the GIN embeddings of their class."""

    choose = staticmethod(k_center)
