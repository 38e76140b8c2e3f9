"""Coresets: keep some labelled examples as they are: nodes and the edges between them, graphs, or arrays.

random        uniformly in each class
herding       Welling (ICML 2009): greedily match the mean embedding of the class
k-center      Sener and Savarese (ICLR 2018): farthest first, from the example nearest to the class mean
degree        the nodes with most edges in each class
pagerank      the nodes with the highest PageRank in each class

Embeddings are those of a network that was trained on what a condenser may see: the log-probabilities of a
GCN, as in the condensation benchmarks; the pooled embedding of a GIN; the last hidden layer of a perceptron.
Each class gets its share of the budget; examples come in order of the class number. A budget of nodes for
graphs is filled in turns: each class takes the next of its graphs that still fits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from jgd.condense.common import (
    budget,
    check_settings,
    condensed_arrays,
    condensed_graphs,
    condensed_nodes,
    condenser,
    dense_features,
    official,
    size_of,
    training_graphs,
    training_part,
)
from jgd.core import Algorithm, Bound, Examples, Loop, from_linen, in_memory, objective, train
from jgd.core.memo import memoized
from jgd.data import ArrayTask, Condensed, GraphTask, NodeTask
from jgd.graph import adjacency, induced_subgraph, operator, select_graphs
from jgd.losses import cross_entropy, mean
from jgd.nn import GCN, GIN, Perceptron, Readout
from jgd.optim import adam_l2
from jgd.registry import Entry
from jgd.training import Splits, all_graphs, classifier, features_for, graph_set, graph_splits

__all__ = [
    "Degree",
    "Herding",
    "KCenter",
    "PageRank",
    "Random",
    "array_embedding",
    "fill",
    "fitted_gcn",
    "gcn_embedding",
    "gin_embedding",
    "herding",
    "k_center",
]

Task = NodeTask | GraphTask | ArrayTask
Pick = Callable[[np.ndarray, int], Any]
Embedding = Literal["network", "raw"]


# --- the rules --------------------------------------------------------------------------------------


def herding(x: Float[np.ndarray, "m d"], count: int) -> Int[np.ndarray, " count"]:
    """Return indices of ``count`` rows whose running mean follows the mean of all rows.

    Step ``t`` picks the row that minimises ``|(t + 1) mean - sum of the picked - row|``.

    Args:
      x: The rows.
      count: Number of rows to pick.
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
    """Return indices of ``count`` rows: that nearest to the mean, then always that farthest from all picked.

    The largest distance of any row to its nearest pick is at most twice the least possible.

    Args:
      x: The rows.
      count: Number of rows to pick.
    """
    picked = [int(np.argmin(np.linalg.norm(x - x.mean(0), axis=1)))]
    nearest = np.linalg.norm(x - x[picked[0]], axis=1)
    for _ in range(count - 1):
        nearest[picked] = -1.0  # never twice, even where rows coincide
        picked.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, np.linalg.norm(x - x[picked[-1]], axis=1))
    return np.asarray(picked, np.int64)


def fill(orders: list[np.ndarray], sizes: Int[np.ndarray, " n"], nodes: int) -> list[np.ndarray]:
    """Take items in turns until nothing fits any more.

    Args:
      orders: Items (integers) of each class, best first.
      sizes: Size of each item.
      nodes: Largest sum of sizes.

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


# --- embeddings -------------------------------------------------------------------------------------


@memoized
def _gcn(num_classes: int, hidden: int, epochs: int) -> Algorithm:
    net = GCN(num_classes=num_classes, hidden=hidden)
    return classifier(from_linen(net), adam_l2(0.01, 5e-4, num_steps=epochs))


def fitted_gcn(
    key: Array, task: NodeTask, loop: Loop = in_memory, *, hidden: int = 256, epochs: int = 600
) -> tuple[Bound, tuple]:
    """Train a GCN on what a condenser may see, see `training_part`.

    Args:
      key: Random key.
      task: The original task.
      loop: Loop that runs the training.
      hidden: Width of the GCN.
      epochs: Training steps.

    Returns:
      The network, and its inputs.
    """
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
    """Return log-probabilities of a GCN trained on what a condenser may see.

    Args:
      key: Random key.
      task: The original task.
      loop: Loop that runs the training.
      hidden: Width of the GCN.
      epochs: Training steps.
    """
    gcn, inputs = fitted_gcn(key, task, loop, hidden=hidden, epochs=epochs)
    return np.asarray(jax.jit(lambda net, x: jax.nn.log_softmax(net(*x).logits))(gcn, inputs))


@memoized
def _gin(num_classes: int, hidden: int, layers: int, steps: int) -> Algorithm:
    net = Readout(GIN(hidden, hidden, layers, dropout=0.0), num_classes)
    return classifier(from_linen(net), adam_l2(5e-3, 1e-3, num_steps=steps), every=20)


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
    """Return pooled embeddings of the training graphs (in their order) by a GIN trained on them.

    Args:
      key: Random key.
      task: The original task.
      loop: Loop that runs the training.
      hidden: Width of the network, and of the embedding.
      layers: Layers of message passing.
      steps: Training steps.
      batch_size: Graphs in a batch.
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


@memoized
def _perceptron(num_classes: int, hidden: int, steps: int, batch_size: int) -> Algorithm:
    def prepare(key, t, data, batch):
        del t, batch
        (x,), y = data.inputs, data.targets
        index = jax.random.randint(key, (min(batch_size, len(y)),), 0, len(y))
        examples = Examples((x[index],), y[index])
        return examples, {"model": examples.inputs}

    def loss(ctx):
        return mean(cross_entropy(ctx.outputs["model"].logits, ctx.batch.targets))

    tx = optax.adamw(optax.cosine_decay_schedule(5e-3, steps), weight_decay=1e-2)
    return train(from_linen(Perceptron(num_classes, (hidden,))), objective(loss), tx, prepare=prepare)


def _rows(task: ArrayTask) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, "n d"], Int[np.ndarray, " n"]]:
    """Return numbers, flat inputs (standardised) and classes of the labelled training examples."""
    index = np.flatnonzero(task.labelled())
    x = np.asarray(task.x)[index].reshape(len(index), -1).astype(np.float32)
    x = (x - x.mean()) / max(float(x.std()), 1e-6)
    return index, x, np.asarray(task.y)[index].astype(np.int64)


def array_embedding(
    key: Array,
    task: ArrayTask,
    loop: Loop = in_memory,
    *,
    hidden: int = 256,
    steps: int = 600,
    batch_size: int = 256,
) -> Float[np.ndarray, "n d"]:
    """Return embeddings of the training examples (in their order) by a perceptron trained on them.

    Args:
      key: Random key.
      task: The original task.
      loop: Loop that runs the training.
      hidden: Width of the network, and of the embedding.
      steps: Training steps.
      batch_size: Examples in a batch.
    """
    _, x, labels = _rows(task)
    data = Examples((jnp.asarray(x),), jnp.asarray(labels, jnp.int32))
    net = loop("embed", _perceptron(task.num_classes, hidden, steps, batch_size), key, data, steps)
    return np.asarray(_embed(net, data.inputs))


# --- what is kept -----------------------------------------------------------------------------------


def _shares(recipe: Any, task: Task, counts: np.ndarray) -> list[int]:
    """Return examples of each class that are kept."""
    each = getattr(recipe, "per_class", None)
    if each is not None:
        return [min(each, int(count)) for count in counts]
    return list(budget(task, size_of(task, recipe.label_ratio, recipe.nodes)))


def _members(labels: np.ndarray, num_classes: int) -> list[np.ndarray]:
    return [np.flatnonzero(labels == c) for c in range(num_classes)]


def _picked(recipe: Any, task: Task, members: list[np.ndarray], pick: Pick) -> np.ndarray:
    shares = _shares(recipe, task, np.asarray([len(m) for m in members]))
    kept = [m[np.asarray(pick(m, count))] for m, count in zip(members, shares, strict=True) if count]
    return np.concatenate(kept)


def _keep(recipe: Any, key: Array, task: Task, pick: Pick) -> Condensed:
    """Return what ``pick(members of a class, count)`` chooses, numbers among what is seen."""
    if isinstance(task, NodeTask):
        return _keep_nodes(recipe, key, task, pick)
    if isinstance(task, GraphTask):
        return _keep_graphs(recipe, key, task, pick)
    return _keep_arrays(recipe, key, task, pick)


def _keep_nodes(recipe: Any, key: Array, task: NodeTask, pick: Pick) -> Condensed:
    part = training_part(task)
    labels = np.asarray(part.labels)
    members = _members(np.where(np.asarray(part.train), labels, -1), task.num_classes)
    index = _picked(recipe, task, members, pick)
    original = index if part is task else np.flatnonzero(np.asarray(task.train))[index]
    graph = induced_subgraph(part.graph, index)
    return condensed_nodes(
        recipe,
        key,
        task,
        features=graph.nodes,
        labels=labels[index],
        edges=graph,
        adjacency="raw",
        extras={"index": original},
    )


def _keep_graphs(recipe: Any, key: Array, task: GraphTask, pick: Pick) -> Condensed:
    index, labels = training_graphs(task)
    members = _members(labels, task.num_classes)
    if recipe.nodes is None:
        where = _picked(recipe, task, members, pick)
    else:
        sizes = np.asarray(task.graphs.n_node)[index]
        chosen = fill([m[np.asarray(pick(m, len(m)))] if len(m) else m for m in members], sizes, recipe.nodes)
        for c, (graphs, m) in enumerate(zip(chosen, members, strict=True)):
            if len(m) and not len(graphs):
                raise ValueError(
                    f"{recipe.nodes} nodes leave no graph for class {c} of task {task.name!r}, "
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
        recipe, key, task, graphs=graphs, labels=labels[where], weights=weights, extras=extras
    )


def _keep_arrays(recipe: Any, key: Array, task: ArrayTask, pick: Pick) -> Condensed:
    index, _, labels = _rows(task)
    where = _picked(recipe, task, _members(labels, task.num_classes), pick)
    weights = None if task.weights is None else np.asarray(task.weights)[index[where]]
    extras = {"index": index[where]}
    if task.mask is not None:
        extras["mask"] = np.asarray(task.mask)[index[where]]
    x = np.asarray(task.x)[index[where]]
    return condensed_arrays(recipe, key, task, x=x, labels=labels[where], weights=weights, extras=extras)


# --- random -----------------------------------------------------------------------------------------


def _at_random(key: Array) -> Pick:
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    return lambda members, count: rng.choice(len(members), count, replace=False)


@dataclass(frozen=True)
class Random:
    """Uniformly chosen nodes, graphs or arrays of each class.

    Attributes:
      label_ratio: Condensed examples for each labelled one.
      nodes: Number of condensed nodes or arrays, or the largest number of nodes in all condensed graphs
        together, instead of the ratio.
      per_class: Number of condensed examples of each class, instead of the ratio.
    """

    label_ratio: float | None = 0.5
    nodes: int | None = None
    per_class: int | None = None

    def __post_init__(self):
        """Refuse impossible settings."""
        check_settings(self, optional=("per_class",))

    @condenser
    def __call__(self, key: Array, task: Task, loop: Loop = in_memory) -> Condensed:
        """Condense a task."""
        del loop
        return _keep(self, key, task, _at_random(key))


# --- by embedding -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _ByEmbedding:
    """Examples chosen by the embeddings of a network that was trained on the task.

    Attributes:
      label_ratio: Condensed examples for each labelled one.
      nodes: Number of condensed nodes or arrays, or the largest number of nodes in all condensed graphs
        together, instead of the ratio.
      per_class: Number of condensed examples of each class, instead of the ratio.
      hidden: Width of the network; None for 256, for graphs 32.
      epochs: Training steps of the network; None for 600, for graphs 300.
      embedding: ``"network"``, or ``"raw"`` for the features of nodes and arrays themselves.
    """

    label_ratio: float | None = 0.5
    nodes: int | None = None
    hidden: int | None = None
    epochs: int | None = None
    per_class: int | None = None
    embedding: Embedding = "network"

    def __post_init__(self):
        """Refuse impossible settings."""
        check_settings(self, optional=("per_class", "hidden", "epochs"))

    @staticmethod
    def choose(x: Float[np.ndarray, "m d"], count: int) -> Int[np.ndarray, " count"]:
        """Return indices of ``count`` rows of the embeddings of one class."""
        raise TypeError("a method says how it chooses")

    @condenser
    def __call__(self, key: Array, task: Task, loop: Loop = in_memory) -> Condensed:
        """Condense a task."""
        return self.select(key, task, self._embedding(key, task, loop))

    def _embedding(self, key: Array, task: Task, loop: Loop) -> Float[np.ndarray, "n d"]:
        """Return embeddings of what is seen: all nodes, or the training examples."""
        if isinstance(task, GraphTask):
            if self.embedding == "raw":
                raise ValueError("graphs have no embedding of their own: choose them by that of a network")
            return gin_embedding(key, task, loop, hidden=self.hidden or 32, steps=self.epochs or 300)
        hidden, epochs = self.hidden or 256, self.epochs or 600
        if isinstance(task, NodeTask):
            if self.embedding == "raw":
                return dense_features(training_part(task))
            return gcn_embedding(key, task, loop, hidden=hidden, epochs=epochs)
        if self.embedding == "raw":
            return _rows(task)[1]
        return array_embedding(key, task, loop, hidden=hidden, steps=epochs)

    def select(self, key: Array, task: Task, z: Float[np.ndarray, "N d"]) -> Condensed:
        """Choose by embeddings of what a condenser may see, nodes or training examples, in their order.

        Args:
          key: Random key.
          task: The original task.
          z: The embeddings.
        """
        return _keep(self, key, task, lambda members, count: self.choose(z[members], count))


class Herding(_ByEmbedding):
    """Examples whose mean embedding follows that of their class.

    Time goes into the embedding network, ``epochs`` times over the whole graph; fewer do on large graphs.
    """

    choose = staticmethod(herding)


class KCenter(_ByEmbedding):
    """Examples that cover the embeddings of their class."""

    choose = staticmethod(k_center)


# --- by the graph -----------------------------------------------------------------------------------


def _highest(values):
    """Pick the members with the highest values; the lower node number wins among equals."""
    return lambda members, count: np.argsort(-values[members], kind="stable")[:count]


@dataclass(frozen=True)
class Degree:
    """Nodes with the most edges in each class.

    Attributes:
      label_ratio: Condensed nodes for each labelled node.
      nodes: Number of condensed nodes, instead of the ratio.
    """

    label_ratio: float | None = 0.5
    nodes: int | None = None

    @condenser
    def __call__(self, key: Array, task: NodeTask, loop: Loop = in_memory) -> Condensed:
        """Condense a task."""
        del loop
        a: Any = adjacency(training_part(task).graph)
        return _keep(self, key, task, _highest(np.asarray((a != 0).sum(axis=1)).ravel()))


@dataclass(frozen=True)
class PageRank:
    """Nodes with the highest PageRank in each class.

    Attributes:
      label_ratio: Condensed nodes for each labelled node.
      nodes: Number of condensed nodes, instead of the ratio.
      damping: Probability of following an edge.
    """

    label_ratio: float | None = 0.5
    nodes: int | None = None
    damping: float = 0.85

    @condenser
    def __call__(self, key: Array, task: NodeTask, loop: Loop = in_memory) -> Condensed:
        """Condense a task."""
        del loop
        a: Any = adjacency(training_part(task).graph)
        found = nx.pagerank(nx.from_scipy_sparse_array(a.T, create_using=nx.DiGraph), alpha=self.damping)
        return _keep(self, key, task, _highest(np.asarray([found[i] for i in range(a.shape[0])])))


_ALL, _NODES = ("nodes", "graphs", "arrays"), ("nodes",)
ENTRIES = (
    Entry("random", Random, "examples chosen at random in each class", "", _ALL, "none", official(Random)),
    Entry(
        "herding",
        Herding,
        "examples whose mean embedding is that of their class",
        "Welling 2009",
        _ALL,
        "seconds",
        official(Herding),
    ),
    Entry(
        "k-center",
        KCenter,
        "examples that cover the embeddings of their class",
        "Sener & Savarese 2018",
        _ALL,
        "seconds",
        official(KCenter),
    ),
    Entry("degree", Degree, "labelled nodes with most edges", "", _NODES, "none", official(Degree)),
    Entry(
        "pagerank",
        PageRank,
        "labelled nodes with highest PageRank",
        "Page et al. 1999",
        _NODES,
        "none",
        official(PageRank),
    ),
)
