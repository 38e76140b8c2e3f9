"""Batches of small graphs in a few static shapes.

A padded batch is one block-diagonal graph, so every network that takes an operator takes it. Sizes
are rounded up to powers of two, so that a data set of any size needs only a few compiled programs.

There are two ways to make a batch. `pad` joins graphs on the host. `blocks` keeps all graphs as one
block-diagonal operator, normalised once, from which `take_blocks` gathers any batch inside a jitted step:
nothing is sorted, nothing comes from the host, and every epoch can have another order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import jraph
import numpy as np
from jaxtyping import Array, Bool, Int, Integer, Shaped

from jgd.graph._operator import AnyArray, Operator, SparseOperator, num_nodes
from jgd.graph.propagation import Structure

__all__ = [
    "Blocks",
    "Budget",
    "batches",
    "blocks",
    "budget_for",
    "graph_ids",
    "node_mask",
    "pad",
    "pool",
    "segment_pool",
    "select_graphs",
    "take_blocks",
]


class Budget(NamedTuple):
    """Static sizes of a padded batch, the padding graph included."""

    n_node: int
    n_edge: int
    n_graph: int


def _power_of_two(n: int) -> int:
    return 1 << max(0, int(n) - 1).bit_length()


def budget_for(graphs: Sequence[jraph.GraphsTuple], n_graph: int | None = None) -> Budget:
    """Return the smallest budget that holds the graphs and one padding graph.

    Args:
      graphs: Graphs of one batch.
      n_graph: Number of graphs in a full batch; as many as given by default.

    Returns:
      Nodes and edges are powers of two; graphs are ``n_graph + 1``.
    """
    nodes = sum(int(np.sum(g.n_node)) for g in graphs)
    edges = sum(int(np.sum(g.n_edge)) for g in graphs)
    count = sum(len(g.n_node) for g in graphs) if n_graph is None else n_graph
    return Budget(_power_of_two(nodes + 1), _power_of_two(max(edges, 1)), count + 1)


def pad(graphs: Sequence[jraph.GraphsTuple], budget: Budget) -> jraph.GraphsTuple:
    """Join graphs into one and pad it; padding edges connect padding nodes only.

    Args:
      graphs: Graphs to join, with dense node features.
      budget: Sizes of the result.

    Raises:
      TypeError: If node features are sparse.
      ValueError: If the graphs do not fit the budget.
    """
    if any(isinstance(g.nodes, SparseOperator) for g in graphs):
        raise TypeError("node features must be dense, because sparse ones cannot be joined")
    joined = jraph.batch_np(graphs)
    sizes = Budget(int(joined.n_node.sum()), int(joined.n_edge.sum()), len(joined.n_node))
    if sizes.n_node >= budget.n_node or sizes.n_edge > budget.n_edge or sizes.n_graph >= budget.n_graph:
        raise ValueError(f"graphs of {sizes} do not fit {budget}, which must hold a padding graph too")
    return jraph.pad_with_graphs(joined, *budget)


def batches(
    graphs: Sequence[jraph.GraphsTuple], size: int, order: Shaped[np.ndarray, " G"] | None = None
) -> Iterator[tuple[jraph.GraphsTuple, Int[np.ndarray, " size"]]]:
    """Yield padded batches of ``size`` graphs, with the index of each graph (-1 for none).

    Args:
      graphs: Graphs of the data set.
      size: Number of graphs in a batch; the last batch may hold fewer.
      order: Permutation of the data set; the given order by default.
    """
    indices = np.arange(len(graphs)) if order is None else np.asarray(order)
    for start in range(0, len(indices), size):
        index = indices[start : start + size]
        members = [graphs[i] for i in index]
        ids = np.full(size, -1, np.int32)
        ids[: len(index)] = index
        yield pad(members, budget_for(members, size)), ids


def graph_ids(graph: jraph.GraphsTuple) -> Int[Array, " N"]:
    """Return the graph that each node of a batch belongs to."""
    n_node = jnp.asarray(graph.n_node)
    return jnp.repeat(jnp.arange(n_node.shape[0]), n_node, total_repeat_length=num_nodes(graph))


def node_mask(graph: jraph.GraphsTuple) -> Bool[Array, " N"]:
    """Return a mask that is true for the real nodes of a padded batch."""
    ids = graph_ids(graph)
    return ids < ids[-1]  # the last node is always padding; empty graphs may follow it


def pool(
    x: Shaped[Array, "N F"],
    graph: jraph.GraphsTuple,
    how: Literal["sum", "mean", "max"] = "mean",
    where: Bool[AnyArray, " N"] | None = None,
) -> Shaped[Array, "G F"]:
    """Compute the sum, mean or max of node features in each graph; zeros for a graph without nodes.

    Args:
      x: Node features.
      graph: Batch of graphs.
      how: Reduction: ``"sum"``, ``"mean"`` or ``"max"``.
      where: Mask of the nodes that count (the roots of a forest); all by default.
    """
    return segment_pool(x, graph_ids(graph), graph.n_node.shape[0], how, where)


def segment_pool(
    x: Shaped[Array, "N F"],
    graph_of: Int[Array, " N"],
    count: int,
    how: Literal["sum", "mean", "max"] = "mean",
    where: Bool[AnyArray, " N"] | None = None,
) -> Shaped[Array, "{count} F"]:
    """Pool as `pool` by ascending graph numbers; nodes whose number is ``count`` or more are left out."""
    if how not in ("sum", "mean", "max"):
        raise ValueError(f'pooling must be "sum", "mean" or "max", got {how!r}')
    there = jnp.ones(x.shape[0], bool) if where is None else jnp.asarray(where)
    size = jax.ops.segment_sum(there.astype(x.dtype), graph_of, count, indices_are_sorted=True)[:, None]
    if how == "max":
        low = jnp.where(there[:, None], x, -jnp.inf)
        top = jax.ops.segment_max(low, graph_of, count, indices_are_sorted=True)
        return jnp.where(size > 0, top, 0).astype(x.dtype)
    kept = x if where is None else jnp.where(there[:, None], x, 0)
    total = jax.ops.segment_sum(kept, graph_of, count, indices_are_sorted=True)
    return total / jnp.maximum(size, 1) if how == "mean" else total


# --- batches out of one block-diagonal operator -------------------------------------------------


def _ranges(first: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Return ``first[i], first[i] + 1, ... (count[i] of them)`` for all ``i``, concatenated (host side)."""
    offset = np.cumsum(count) - count
    return np.repeat(first - offset, count) + np.arange(int(count.sum()))


def select_graphs(graphs: jraph.GraphsTuple, index: Integer[AnyArray, " n"]) -> jraph.GraphsTuple:
    """Return the graphs at ``index`` out of many joined ones, joined again in that order (host side).

    Data of nodes and edges may be arrays, dicts of arrays or None; globals are dropped.
    """
    index = np.asarray(index)
    if index.size and not (index.min() >= 0 and index.max() < len(graphs.n_node)):
        raise ValueError(f"index must lie in 0..{len(graphs.n_node) - 1}, got {index.min()}..{index.max()}")
    n_node, n_edge = np.asarray(graphs.n_node), np.asarray(graphs.n_edge)
    node_at, edge_at = np.cumsum(n_node) - n_node, np.cumsum(n_edge) - n_edge
    nodes, edges = (_ranges(at[index], count[index]) for at, count in ((node_at, n_node), (edge_at, n_edge)))
    new_at = np.cumsum(n_node[index]) - n_node[index]
    shift = np.repeat(new_at - node_at[index], n_edge[index])
    fields: dict[str, Any] = {
        "nodes": jax.tree.map(lambda x: np.asarray(x)[nodes], graphs.nodes),
        "edges": jax.tree.map(lambda x: np.asarray(x)[edges], graphs.edges),
        "senders": (np.asarray(graphs.senders)[edges] + shift).astype(np.int32),
        "receivers": (np.asarray(graphs.receivers)[edges] + shift).astype(np.int32),
        "n_node": n_node[index].astype(np.int32),
        "n_edge": n_edge[index].astype(np.int32),
        "globals": None,
    }
    return jraph.GraphsTuple(**fields)


class Blocks(NamedTuple):
    """Block-diagonal operator of all graphs of a data set.

    Attributes:
      a: Operator of all graphs.
      node_at: ``[G + 1]`` first node of each graph, and the total number of nodes.
      edge_at: ``[G + 1]`` first nonzero of each graph, and the total number of nonzeros.
    """

    a: SparseOperator
    node_at: Any
    edge_at: Any


def blocks(a: Operator, n_node: Integer[AnyArray, " G"]) -> Blocks:
    """Record which rows of an operator belong to which graph (host side).

    Args:
      a: Sparse operator with one value for each nonzero, e.g. ``operator(joined, normalize="sym")``.
      n_node: Number of nodes of each graph.

    Raises:
      ValueError: If the sizes do not add up, or an edge joins two graphs.
    """
    node_at = np.append(0, np.cumsum(np.asarray(n_node))).astype(np.int32)
    if not isinstance(a, SparseOperator) or a.transposed or a.values.ndim != 1:
        raise ValueError("give a sparse operator, not transposed, with one value for each nonzero")
    if a.shape != (node_at[-1], node_at[-1]):
        raise ValueError(f"the graphs have {node_at[-1]} nodes, but the operator has shape {a.shape}")
    owner = np.repeat(np.arange(len(n_node)), np.asarray(n_node))
    if (owner[np.asarray(a.receivers)] != owner[np.asarray(a.senders)]).any():
        raise ValueError("an edge joins two graphs")
    edge_at = np.asarray(a.structure.indptr)[node_at].astype(np.int32)
    return Blocks(a, jnp.asarray(node_at), jnp.asarray(edge_at))


def take_blocks(
    whole: Blocks, index: Int[Array, " B"], n_node: int, n_edge: int
) -> tuple[SparseOperator, Int[Array, " n"], Int[Array, " n"]]:
    """Gather the operator of a batch of graphs, inside or outside of jitted code.

    Args:
      whole: All graphs, from which the batch is taken.
      index: Graphs of the batch, in any order, repeated or not; -1 for none.
      n_node: Static number of nodes, larger than that of the graphs (the last nodes are padding).
      n_edge: Static number of nonzeros, at least that of the graphs.

    Returns:
      The operator; the number of each of its nodes in the whole (one beyond the last for padding, which
      ``jnp.take(x, ..., axis=0, mode="fill", fill_value=0)`` turns into zeros); and the place in ``index`` of
      the graph of each node (``B`` for padding).
    """
    s, total = whole.a.structure, whole.a.shape[0]
    there = index >= 0

    def ranges(at, size):
        first = jnp.where(there, at[index], 0)
        count = jnp.where(there, at[index + 1] - first, 0)
        offset = jnp.cumsum(count) - count
        rest = size - jnp.sum(count)
        owner = jnp.repeat(jnp.arange(len(index) + 1), jnp.append(count, rest), total_repeat_length=size)
        shift = jnp.append(offset - first, 0)  # new numbers minus old ones
        return jnp.arange(size) - shift[owner], owner, shift

    node, graph_of, node_shift = ranges(whole.node_at, n_node)
    edge, owner, edge_shift = ranges(whole.edge_at, n_edge)
    real = owner < len(index)
    edge = jnp.where(real, edge, 0)

    def at_edge(x):
        return x[edge] if len(x) else jnp.zeros(n_edge, x.dtype)  # an empty array has nothing to gather

    def renumber(old, shift, padding):
        return jnp.where(real, at_edge(old) + shift[owner], padding).astype(jnp.int32)

    node = jnp.where(graph_of < len(index), node, total)

    def pointers(indptr):
        # A padding nonzero lies in the last row and column; the rows before it start where they did.
        lengths = jnp.take(jnp.diff(indptr), node, mode="fill", fill_value=0)
        return jnp.append(0, jnp.cumsum(lengths)).at[-1].set(n_edge).astype(jnp.int32)

    last = n_node - 1
    structure = Structure(
        indptr=pointers(s.indptr),
        rows=renumber(s.rows, node_shift, last),
        cols=renumber(s.cols, node_shift, last),
        t_indptr=pointers(s.t_indptr),
        t_cols=renumber(s.t_cols, node_shift, last),
        t_rows=renumber(s.t_rows, node_shift, last),
        perm=renumber(s.perm, edge_shift, jnp.arange(n_edge)),
    )
    values = jnp.where(real, at_edge(whole.a.values), 0)
    return SparseOperator(values, structure), node, graph_of
