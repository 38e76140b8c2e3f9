"""Fit a classifier of whole graphs on batches of them, and keep its best state on validation graphs.

All graphs lie on the device once, as a `GraphSet`; a batch is gathered from it inside the jitted step. A set
that fits into one batch is one batch, gathered before the loop.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from jgd.core import Algorithm, Bound, Context, Examples, Model, keep_best, objective, train
from jgd.graph import Blocks, Operator, blocks, take_blocks
from jgd.losses import cross_entropy, mean
from jgd.metrics import accuracy, one_vs_rest_auc

__all__ = [
    "GraphSet",
    "GraphSplits",
    "Selection",
    "all_graphs",
    "graph_classifier",
    "graph_examples",
    "graph_features",
    "graph_scores",
    "graph_set",
    "graph_splits",
    "schedule",
]

Selection = Literal["auc", "accuracy"]


class GraphSet(NamedTuple):
    """Labelled graphs from which batches are gathered.

    Attributes:
      whole: operator of all graphs.
      x: ``[N, F]`` node features.
      root: ``[N]`` bool, nodes that pooling reads.
      targets: ``[G]`` classes or ``[G, C]`` probabilities.
      weights: ``[G]`` weights in the loss.
    """

    whole: Blocks
    x: Any
    root: Any
    targets: Any
    weights: Any


class GraphSplits(NamedTuple):
    """Data of `graph_classifier`.

    Attributes:
      train: the training graphs as one batch, or None where there are several batches.
      val: validation graphs; and ``test``.
      source: what batches are gathered from, or None.
      order: ``[steps, B]`` graphs of the batch of each step, or None.
    """

    train: Examples | None
    val: Examples
    test: Examples | None = None
    source: GraphSet | None = None
    order: Any = None


def graph_features(graphs: jraph.GraphsTuple) -> Float[np.ndarray, "N F"]:
    """Node features of joined graphs: their ``nodes``, or ``nodes["x"]``.

    Raises:
      ValueError: for graphs without node features.
    """
    nodes: Any = graphs.nodes
    x = nodes.get("x") if isinstance(nodes, dict) else nodes
    if x is None:
        raise ValueError("the graphs have no node features for the network to read: one-hot degrees would do")
    x = np.asarray(x, np.float32)
    if x.ndim != 2:
        raise ValueError(
            f"node features are [N, F], got shape {x.shape}: integer codes belong in one-hot rows"
        )
    return x


def graph_set(
    a: Operator, graphs: jraph.GraphsTuple, targets: Any, weights: Any = None, root: Any = None
) -> GraphSet:
    """Joined graphs with labels, ready for batches.

    Args:
      a: their operator, as the network wants it.
      graphs: the graphs.
      targets: ``[G]`` classes or ``[G, C]`` probabilities.
      weights: ``[G]``, ones by default.
      root: ``[N]``, all nodes by default.
    """
    x, count = graph_features(graphs), len(graphs.n_node)
    weights = np.ones(count) if weights is None else np.asarray(weights)
    root = np.ones(len(x), bool) if root is None else np.asarray(root, bool)
    lengths = {
        "targets": (len(targets), count),
        "weights": (len(weights), count),
        "root": (len(root), len(x)),
    }
    for name, (found, needed) in lengths.items():
        if found != needed:
            raise ValueError(f"{name} has {found} rows, but needs {needed}")
    return GraphSet(
        blocks(a, graphs.n_node),
        jnp.asarray(x),
        jnp.asarray(root),
        jnp.asarray(targets),
        jnp.asarray(weights, jnp.float32),
    )


def graph_examples(graphs: GraphSet, index: Int[Array, " B"], n_node: int, n_edge: int) -> Examples:
    """A batch: the graphs at ``index`` (-1 for none) in static sizes, see `jgd.graph.take_blocks`.

    The inputs are those of `jgd.nn.Readout`: operator, features, graph of each node, weights, roots.
    """
    a, node, graph_of = take_blocks(graphs.whole, index, n_node, n_edge)

    def at(x, i):
        return jnp.take(x, i, axis=0, mode="fill", fill_value=0)

    weights = jnp.where(index >= 0, graphs.weights[index], 0)
    return Examples(
        (a, at(graphs.x, node), graph_of, weights, at(graphs.root, node)), graphs.targets[index], weights
    )


_LEAST = {"graphs": 32, "nodes": 512, "edges": 1024}  # sets below that cost nothing, and share a program


def _round_up(n: int, what: str) -> int:
    """The next of 1, 1.25, 1.5 or 1.75 times a power of two: few sizes, little padding."""
    n = max(n, _LEAST[what])
    unit = max(1, (1 << max(0, int(n) - 1).bit_length()) // 8)
    return -(-int(n) // unit) * unit


def _sizes(graphs: GraphSet, order: Int[np.ndarray, "S B"]) -> tuple[int, int]:
    """Static nodes and nonzeros that hold every batch and a padding node."""
    n_node, n_edge = (
        np.append(np.diff(np.asarray(at)), 0) for at in (graphs.whole.node_at, graphs.whole.edge_at)
    )
    most = (int(sizes[order].sum(1).max()) for sizes in (n_node, n_edge))
    return _round_up(next(most) + 1, "nodes"), _round_up(next(most), "edges")


def schedule(
    weights: Float[np.ndarray, " G"], batch_size: int, steps: int, seed: Any, *, replace: bool = False
) -> Int[np.ndarray, "S B"]:
    """Which graphs are in the batch of each step.

    Args:
      weights: of the graphs, not negative.
      batch_size: graphs in a batch.
      steps: number of batches.
      seed: for `numpy.random.default_rng`.
      replace: draw with replacement in proportion to the weights; else epochs in random order follow each
        other, and a batch may reach into the next one.
    """
    rng = np.random.default_rng(seed)
    count, needed = len(weights), steps * batch_size
    if replace:
        total = np.asarray(weights, np.float64)
        return rng.choice(count, (steps, batch_size), p=total / total.sum()).astype(np.int32)
    epochs = [rng.permutation(count) for _ in range(-(-needed // count))]
    return np.concatenate(epochs)[:needed].reshape(steps, batch_size).astype(np.int32)


@lru_cache(maxsize=64)  # the same function for the same sizes: nothing is compiled twice
def _batches(n_node: int, n_edge: int):
    def batch_at(data: GraphSplits, t: Any) -> Examples:
        assert data.source is not None
        return graph_examples(data.source, data.order[t], n_node, n_edge)

    return batch_at


_gathered = jax.jit(graph_examples, static_argnums=(2, 3))  # one program, not one for each little operation


def all_graphs(graphs: GraphSet, *, rounded: bool = False) -> Examples:
    """All graphs as one batch, padded to one of few sizes if ``rounded``."""
    count = len(graphs.weights)
    n_node, n_edge = int(graphs.whole.node_at[-1]), int(graphs.whole.edge_at[-1])
    index = np.arange(count)
    if rounded:
        index = np.append(index, np.full(_round_up(count, "graphs") - count, -1))
        n_node, n_edge = _round_up(n_node + 1, "nodes"), _round_up(n_edge, "edges")
    return _gathered(graphs, jnp.asarray(index, jnp.int32), n_node, n_edge)


def graph_splits(
    train: GraphSet,
    val: GraphSet,
    test: GraphSet | None = None,
    *,
    batch_size: int,
    steps: int,
    seed: Any,
    replace: bool = False,
) -> tuple[GraphSplits, Any]:
    """Data of a run, and its batches.

    Args:
      train: training graphs.
      val: validation graphs.
      test: test graphs.
      batch_size: graphs in a batch; a set that is no larger is one batch.
      steps: length of the run.
      seed: of the batches, see `schedule`.
      replace: draw in proportion to the weights, which then are no part of the loss.

    Returns:
      ``(data, batches)`` for the loop: ``loop(name, graph_classifier(...), key, data, steps, batches)``.
    """
    others = (all_graphs(val), None if test is None else all_graphs(test))
    count = len(train.weights)
    if count <= batch_size and not replace:
        return GraphSplits(all_graphs(train, rounded=True), *others), None
    order = schedule(np.asarray(train.weights), min(batch_size, count), steps, seed, replace=replace)
    if replace:
        train = train._replace(weights=jnp.ones_like(train.weights))
    return GraphSplits(None, *others, train, jnp.asarray(order)), _batches(*_sizes(train, order))


def _loss(ctx: Context) -> Array:
    return mean(cross_entropy(ctx.outputs["student"].logits, ctx.batch.targets), ctx.batch.weights)


def _prepare(key, t, data, batch):
    del key, t
    batch = data.train if batch is None else batch
    return batch, {"student": batch.inputs}


def graph_scores(net: Bound, examples: Examples) -> dict[str, Array]:
    """Accuracy and ROC-AUC (of classes against the rest) of a network on graphs with integer labels."""
    logits = net(*examples.inputs).logits
    return {
        "accuracy": accuracy(logits, examples.targets, examples.weights),
        "auc": one_vs_rest_auc(logits, examples.targets, examples.weights),
    }


def graph_classifier(
    model: Model, tx: optax.GradientTransformation, *, every: int = 1, select: Selection = "accuracy"
) -> Algorithm:
    """Training with weighted cross-entropy, selected by ``select`` on ``data.val``.

    Args:
      model: a `jgd.nn.Readout`, or what takes its inputs.
      tx: optimiser.
      every: steps between looks at the validation graphs.
      select: what the best state has most of.

    Returns:
      An `Algorithm` over `GraphSplits` whose product is the best network.
    """
    alg = train(model, objective(_loss), tx, prepare=_prepare)
    return keep_best(alg, lambda net, data: graph_scores(net, data.val)[select], every=every)
