"""Examples of a task as a training loop takes them: all at once, or batches gathered inside the jitted step.

Sets of graphs lie on the device once, as a `GraphSet`. A set that fits into one batch is one batch, gathered
before the loop.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jraph
import numpy as np
from jaxtyping import Array, Float, Int

from jgd.core import Examples
from jgd.core.memo import memoized
from jgd.graph import Blocks, Operator, SparseOperator, blocks, sparse_features, take_blocks

__all__ = [
    "GraphSet",
    "Splits",
    "all_graphs",
    "features_for",
    "graph_examples",
    "graph_features",
    "graph_set",
    "graph_splits",
    "schedule",
]


class Splits(NamedTuple):
    """Data of `jgd.training.classifier`; inputs of the splits may be the same arrays.

    Attributes:
      train: Training examples as one batch; None where there are several batches.
      val: Validation examples, which select the state to keep.
      test: Test examples, or None.
      source: What batches are gathered from, or None.
      order: ``[steps, B]`` examples of the batch of each step, or None.
    """

    train: Examples | None
    val: Examples | None
    test: Examples | None = None
    source: Any = None
    order: Any = None


def features_for(graph: jraph.GraphsTuple) -> Array | SparseOperator:
    """Return node features as they multiply fastest: sparse where less than a tenth of many is nonzero.

    Raises:
      ValueError: If the graph has no node features.
    """
    x = graph.nodes
    if x is None:
        raise ValueError("the graph has no node features for the network to read")
    if isinstance(x, SparseOperator):
        return x
    x = np.asarray(x, np.float32)
    if x.size > 100_000 and np.count_nonzero(x) < 0.1 * x.size:
        return sparse_features(x)
    return jnp.asarray(x)


class GraphSet(NamedTuple):
    """Labelled graphs from which batches are gathered.

    Attributes:
      whole: Operator of all graphs.
      x: ``[N, F]`` node features.
      root: ``[N]`` mask of the nodes that pooling reads.
      targets: ``[G]`` classes or ``[G, C]`` probabilities.
      weights: ``[G]`` weights in the loss.
    """

    whole: Blocks
    x: Any
    root: Any
    targets: Any
    weights: Any


def graph_features(graphs: jraph.GraphsTuple) -> Float[np.ndarray, "N F"]:
    """Return node features of joined graphs: their ``nodes``, or ``nodes["x"]``.

    Raises:
      ValueError: If the graphs have no node features.
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
    """Return joined graphs with labels, ready for batches.

    Args:
      a: Operator of the graphs, as the network reads it.
      graphs: Joined graphs.
      targets: ``[G]`` classes or ``[G, C]`` probabilities.
      weights: ``[G]`` weights in the loss, ones by default.
      root: ``[N]`` nodes that pooling reads, all by default.
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
    """Gather a batch: the graphs at ``index`` (-1 for none) in static sizes, see `jgd.graph.take_blocks`.

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
    """Round up to 1, 1.25, 1.5 or 1.75 times a power of two: few sizes, little padding."""
    n = max(n, _LEAST[what])
    unit = max(1, (1 << max(0, int(n) - 1).bit_length()) // 8)
    return -(-int(n) // unit) * unit


def _sizes(graphs: GraphSet, order: Int[np.ndarray, "S B"]) -> tuple[int, int]:
    """Return static numbers of nodes and nonzeros that hold every batch and a padding node."""
    n_node, n_edge = (
        np.append(np.diff(np.asarray(at)), 0) for at in (graphs.whole.node_at, graphs.whole.edge_at)
    )
    most = (int(sizes[order].sum(1).max()) for sizes in (n_node, n_edge))
    return _round_up(next(most) + 1, "nodes"), _round_up(next(most), "edges")


def schedule(
    weights: Float[np.ndarray, " G"], batch_size: int, steps: int, seed: Any, *, replace: bool = False
) -> Int[np.ndarray, "S B"]:
    """Draw the examples of the batch of each step.

    Args:
      weights: Weights of the examples, not negative.
      batch_size: Examples of a batch.
      steps: Number of batches.
      seed: Seed of `numpy.random.default_rng`.
      replace: Whether to draw with replacement in proportion to the weights. Otherwise epochs in random order
        follow each other, and a batch may reach into the next one.
    """
    rng = np.random.default_rng(seed)
    count, needed = len(weights), steps * batch_size
    if replace:
        total = np.asarray(weights, np.float64)
        return rng.choice(count, (steps, batch_size), p=total / total.sum()).astype(np.int32)
    epochs = [rng.permutation(count) for _ in range(-(-needed // count))]
    return np.concatenate(epochs)[:needed].reshape(steps, batch_size).astype(np.int32)


@memoized
def _batches(n_node: int, n_edge: int):
    def batch_at(data: Splits, t: Any) -> Examples:
        assert data.source is not None
        return graph_examples(data.source, data.order[t], n_node, n_edge)

    return batch_at


_gathered = jax.jit(graph_examples, static_argnums=(2, 3))  # one program, not one for each little operation


def all_graphs(graphs: GraphSet, *, rounded: bool = False) -> Examples:
    """Gather all graphs as one batch.

    Args:
      graphs: Set of graphs.
      rounded: Whether the batch is padded to one of few sizes.
    """
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
) -> tuple[Splits, Any]:
    """Return the data of a run, and its batches.

    Args:
      train: Training graphs.
      val: Validation graphs.
      test: Test graphs.
      batch_size: Graphs of a batch; a set that is not larger is one batch.
      steps: Number of steps.
      seed: Seed of the batches, see `schedule`.
      replace: Whether to draw in proportion to the weights, which then do not weight the loss.

    Returns:
      ``(data, batches)`` for the loop: ``loop(name, classifier(...), key, data, steps, batches)``.
    """
    others = (all_graphs(val), None if test is None else all_graphs(test))
    count = len(train.weights)
    if count <= batch_size and not replace:
        return Splits(all_graphs(train, rounded=True), *others), None
    order = schedule(np.asarray(train.weights), min(batch_size, count), steps, seed, replace=replace)
    if replace:
        train = train._replace(weights=jnp.ones_like(train.weights))
    return Splits(None, *others, train, jnp.asarray(order)), _batches(*_sizes(train, order))
