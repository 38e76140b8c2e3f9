"""Batches of small graphs in a few static shapes.

A padded batch is one block-diagonal graph, so every network that takes an operator takes it. Sizes
are rounded up to powers of two: a data set of any size compiles a handful of programs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import jax.numpy as jnp
import jraph
import numpy as np
from jaxtyping import Array, Bool, Int, Shaped

from jgd.graph.operator import SparseOperator, num_nodes

__all__ = ["Budget", "batches", "budget_for", "graph_ids", "node_mask", "pad", "pool"]


class Budget(NamedTuple):
    """Static sizes of a padded batch, the padding graph included."""

    n_node: int
    n_edge: int
    n_graph: int


def _power_of_two(n: int) -> int:
    return 1 << max(0, int(n) - 1).bit_length()


def budget_for(graphs: Sequence[jraph.GraphsTuple], n_graph: int | None = None) -> Budget:
    """The smallest budget that holds the graphs and one padding graph.

    Args:
      graphs: one batch of them.
      n_graph: how many there are in a full batch; as many as given by default.

    Returns:
      Nodes and edges are powers of two; graphs are ``n_graph + 1``.
    """
    nodes = sum(int(np.sum(g.n_node)) for g in graphs)
    edges = sum(int(np.sum(g.n_edge)) for g in graphs)
    count = sum(len(g.n_node) for g in graphs) if n_graph is None else n_graph
    return Budget(_power_of_two(nodes + 1), _power_of_two(max(edges, 1)), count + 1)


def pad(graphs: Sequence[jraph.GraphsTuple], budget: Budget) -> jraph.GraphsTuple:
    """Join graphs into one and pad it; padding edges connect padding nodes only.

    Raises:
      ValueError: where the graphs do not fit the budget.
    """
    if any(isinstance(g.nodes, SparseOperator) for g in graphs):
        raise TypeError("give dense node features; sparse ones cannot be joined")
    joined = jraph.batch_np(graphs)
    sizes = Budget(int(joined.n_node.sum()), int(joined.n_edge.sum()), len(joined.n_node))
    if sizes.n_node >= budget.n_node or sizes.n_edge > budget.n_edge or sizes.n_graph >= budget.n_graph:
        raise ValueError(f"graphs of {sizes} do not fit {budget}, which must hold a padding graph too")
    return jraph.pad_with_graphs(joined, *budget)


def batches(
    graphs: Sequence[jraph.GraphsTuple], size: int, order: Shaped[np.ndarray, " G"] | None = None
) -> Iterator[tuple[jraph.GraphsTuple, Int[np.ndarray, " size"]]]:
    """Padded batches of ``size`` graphs, with the index of each graph (-1 for none).

    Args:
      graphs: the data set.
      size: graphs in a batch; the last batch may hold fewer.
      order: permutation of the data set; as given by default.
    """
    indices = np.arange(len(graphs)) if order is None else np.asarray(order)
    for start in range(0, len(indices), size):
        index = indices[start : start + size]
        members = [graphs[i] for i in index]
        ids = np.full(size, -1, np.int32)
        ids[: len(index)] = index
        yield pad(members, budget_for(members, size)), ids


def graph_ids(graph: jraph.GraphsTuple) -> Int[Array, " N"]:
    """The graph that each node of a batch belongs to."""
    n_node = jnp.asarray(graph.n_node)
    return jnp.repeat(jnp.arange(n_node.shape[0]), n_node, total_repeat_length=num_nodes(graph))


def node_mask(graph: jraph.GraphsTuple) -> Bool[Array, " N"]:
    """True for real nodes of a padded batch."""
    ids = graph_ids(graph)
    return ids < ids[-1]  # the last node is always padding; empty graphs may follow it


def pool(
    x: Shaped[Array, "N F"], graph: jraph.GraphsTuple, how: Literal["sum", "mean", "max"] = "mean"
) -> Shaped[Array, "G F"]:
    """Sum, mean or max of node features in each graph of a batch; zeros for a graph without nodes."""
    reduce = {"sum": jraph.segment_sum, "mean": jraph.segment_mean, "max": jraph.segment_max}[how]
    size = graph.n_node.shape[0]
    pooled = reduce(x, graph_ids(graph), size, indices_are_sorted=True)
    return jnp.where(jnp.asarray(graph.n_node)[:, None] > 0, pooled, 0)
