"""Coresets: keep some labelled nodes and the edges between them.

random        uniformly in each class
herding       Welling (ICML 2009): greedily match the mean embedding of the class
k-center      Sener and Savarese (ICLR 2018): farthest first, from the node nearest to the class mean
degree        the nodes with most edges in each class
pagerank      the nodes with the highest PageRank in each class

Embeddings are the log-probabilities of a GCN trained on the whole graph, as in the condensation benchmarks.
Each class gets its share of the budget; nodes come in order of the class number.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
from jaxtyping import Array, Float, Int

from jgd.condense.common import budget, condensed_nodes, condenser, size_of, training_part
from jgd.core import Algorithm, Bound, Examples, Loop, from_linen, in_memory
from jgd.data.condensed import Condensed
from jgd.data.tasks import NodeTask
from jgd.graph import induced_subgraph, operator
from jgd.graph.build import adjacency
from jgd.nn import GCN, Splits, classifier, features_for
from jgd.optim import adam_l2

__all__ = [
    "Degree",
    "Herding",
    "KCenter",
    "PageRank",
    "Random",
    "fitted_gcn",
    "gcn_embedding",
    "herding",
    "k_center",
]


def herding(x: Float[np.ndarray, "m d"], count: int) -> Int[np.ndarray, " count"]:
    """Indices of ``count`` rows whose running mean follows the mean of all rows.

    Step ``t`` picks the row that minimises ``|(t + 1) mean - sum of the picked - row|``.
    """
    mean, total = x.mean(0), np.zeros(x.shape[1])
    free, picked = np.ones(len(x), bool), []
    for t in range(count):
        distance = np.linalg.norm((t + 1) * mean - total - x, axis=1)
        best = int(np.argmin(np.where(free, distance, np.inf)))
        picked.append(best)
        free[best] = False
        total += x[best]
    return np.asarray(picked, np.int64)


def k_center(x: Float[np.ndarray, "m d"], count: int) -> Int[np.ndarray, " count"]:
    """Indices of ``count`` rows: the one nearest to the mean, then always the one farthest from all picked.

    The largest distance of any row to its nearest pick is at most twice the least possible.
    """
    picked = [int(np.argmin(np.linalg.norm(x - x.mean(0), axis=1)))]
    nearest = np.linalg.norm(x - x[picked[0]], axis=1)
    for _ in range(count - 1):
        nearest[picked] = -1.0  # never twice, even where rows coincide
        picked.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, np.linalg.norm(x - x[picked[-1]], axis=1))
    return np.asarray(picked, np.int64)


@lru_cache(maxsize=64)  # the same functions for the same settings: nothing is compiled twice
def _gcn(num_classes: int, hidden: int, epochs: int) -> Algorithm:
    net = GCN(num_classes=num_classes, hidden=hidden)
    return classifier(from_linen(net), adam_l2(0.01, 5e-4, num_steps=epochs))


def fitted_gcn(
    key: Array, task: NodeTask, loop: Loop = in_memory, *, hidden: int = 256, epochs: int = 600
) -> tuple[Bound, tuple]:
    """A GCN trained on what a condenser may see (see `training_part`), and its inputs."""
    task = training_part(task)
    inputs = (operator(task.graph, normalize="sym", self_loops=True), features_for(task.graph))
    labels = jnp.asarray(task.labels)

    def examples(mask):
        return Examples(inputs, labels, jnp.asarray(mask, jnp.float32))

    val = task.val if task.val is not None and np.any(task.val) else task.train
    alg = _gcn(task.num_classes, hidden, epochs)
    data = Splits(examples(task.train), examples(val))
    return loop("embed", alg, key, data, epochs), inputs


def gcn_embedding(
    key: Array, task: NodeTask, loop: Loop = in_memory, *, hidden: int = 256, epochs: int = 600
) -> Float[np.ndarray, "N C"]:
    """Log-probabilities of a GCN trained on what a condenser may see."""
    gcn, inputs = fitted_gcn(key, task, loop, hidden=hidden, epochs=epochs)
    return np.asarray(jax.jit(lambda net, x: jax.nn.log_softmax(net(*x).logits))(gcn, inputs))


def _select(recipe, key: Array, task: NodeTask, pick) -> Condensed:
    """The subgraph of the nodes that ``pick(class members, count)`` chooses in every class."""
    size = size_of(task, recipe.label_ratio, recipe.nodes)
    part = training_part(task)
    labels, train = np.asarray(part.labels), np.asarray(part.train)
    chosen = []
    for c, count in enumerate(budget(task, size)):
        members = np.flatnonzero(train & (labels == c))
        if count:
            chosen.append(members[np.asarray(pick(members, count))])
    index = np.concatenate(chosen)
    original = index if part is task else np.flatnonzero(np.asarray(task.train))[index]
    graph = induced_subgraph(part.graph, index)
    return condensed_nodes(
        recipe,
        key,
        task,
        features=graph.nodes,
        labels=labels[index],
        edges=graph,
        structure="raw",
        extras={"index": original},
    )


def _highest(values):
    """Pick the members with the highest values; the lower node number wins among equals."""
    return lambda members, count: np.argsort(-values[members], kind="stable")[:count]


@dataclass(frozen=True)
class Random:
    """Uniformly chosen nodes of each class.

    Attributes:
      label_ratio: condensed nodes for each labelled node.
      nodes: number of condensed nodes, instead of the ratio.
    """

    label_ratio: float | None = 0.5
    nodes: int | None = None

    @condenser
    def __call__(self, key: Array, task: NodeTask, loop: Loop = in_memory) -> Condensed:
        """Condense a task."""
        del loop
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        return _select(self, key, task, lambda m, count: rng.choice(len(m), count, replace=False))


@dataclass(frozen=True)
class _ByEmbedding:
    """Nodes chosen by the embeddings of a GCN.

    Attributes:
      label_ratio: condensed nodes for each labelled node.
      nodes: number of condensed nodes, instead of the ratio.
      hidden: width of the GCN.
      epochs: its training steps.
    """

    label_ratio: float | None = 0.5
    nodes: int | None = None
    hidden: int = 256
    epochs: int = 600

    @staticmethod
    def choose(x: Float[np.ndarray, "m d"], count: int) -> Int[np.ndarray, " count"]:
        """Indices of ``count`` rows of the embeddings of one class."""
        raise TypeError("a method says how it chooses")

    @condenser
    def __call__(self, key: Array, task: NodeTask, loop: Loop = in_memory) -> Condensed:
        """Condense a task."""
        z = gcn_embedding(key, task, loop, hidden=self.hidden, epochs=self.epochs)
        return self.select(key, task, z)

    def select(self, key: Array, task: NodeTask, z: Float[np.ndarray, "N d"]) -> Condensed:
        """Choose by embeddings of the nodes that a condenser may see."""
        return _select(self, key, task, lambda members, count: self.choose(z[members], count))


class Herding(_ByEmbedding):
    """Nodes whose mean GCN embedding follows that of their class.

    Time goes into the embedding network, ``epochs`` times over the whole graph; fewer do on large graphs.
    """

    choose = staticmethod(herding)


class KCenter(_ByEmbedding):
    """Nodes that cover the GCN embeddings of their class."""

    choose = staticmethod(k_center)


@dataclass(frozen=True)
class Degree:
    """Nodes with the most edges in each class.

    Attributes:
      label_ratio: condensed nodes for each labelled node.
      nodes: number of condensed nodes, instead of the ratio.
    """

    label_ratio: float | None = 0.5
    nodes: int | None = None

    @condenser
    def __call__(self, key: Array, task: NodeTask, loop: Loop = in_memory) -> Condensed:
        """Condense a task."""
        del loop
        a: Any = adjacency(training_part(task).graph)
        return _select(self, key, task, _highest(np.asarray((a != 0).sum(axis=1)).ravel()))


@dataclass(frozen=True)
class PageRank:
    """Nodes with the highest PageRank in each class.

    Attributes:
      label_ratio: condensed nodes for each labelled node.
      nodes: number of condensed nodes, instead of the ratio.
      damping: probability of following an edge.
    """

    label_ratio: float | None = 0.5
    nodes: int | None = None
    damping: float = 0.85

    @condenser
    def __call__(self, key: Array, task: NodeTask, loop: Loop = in_memory) -> Condensed:
        """Condense a task."""
        del loop
        a: Any = adjacency(training_part(task).graph)
        ranks = nx.pagerank(nx.from_scipy_sparse_array(a.T, create_using=nx.DiGraph), alpha=self.damping)
        return _select(self, key, task, _highest(np.asarray([ranks[i] for i in range(a.shape[0])])))
