"""Build, check and clean graphs (host side, NumPy)."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jraph
import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Integer, Shaped
from sklearn.neighbors import NearestNeighbors

from jgd.graph.operator import AnyArray, SparseOperator, edge_weights, num_nodes

__all__ = [
    "adjacency",
    "coalesce",
    "from_adjacency",
    "from_edges",
    "induced_subgraph",
    "knn_graph",
    "remove_self_loops",
    "to_undirected",
    "validate",
]


def from_edges(
    senders: Integer[AnyArray, " E"],
    receivers: Integer[AnyArray, " E"],
    nodes: Any = None,
    edges: Any = None,
    *,
    num_nodes: int | None = None,
) -> jraph.GraphsTuple:
    """One checked graph from index arrays.

    Args:
      senders: source of each edge.
      receivers: target of each edge.
      nodes: node features ``[N, F]`` (array or `SparseOperator`) or None.
      edges: edge weights ``[E]``, a dict of edge data, or None.
      num_nodes: needed only where ``nodes`` is None.

    Raises:
      ValueError: see `validate`.
    """
    size = num_nodes
    if nodes is not None:
        size = int(nodes.shape[0]) if isinstance(nodes, SparseOperator) else len(jax.tree.leaves(nodes)[0])
    elif size is None:
        raise ValueError("say num_nodes=... for a graph without node features")
    graph = jraph.GraphsTuple(
        nodes=nodes,
        edges=edges,
        senders=np.asarray(senders, np.int32) if len(senders) else np.zeros(0, np.int32),
        receivers=np.asarray(receivers, np.int32) if len(receivers) else np.zeros(0, np.int32),
        n_node=np.asarray([size], np.int32),
        n_edge=np.asarray([len(senders)], np.int32),
        globals=None,
    )
    return validate(graph)


def validate(graph: jraph.GraphsTuple) -> jraph.GraphsTuple:
    """Return the graph if it is sound, else raise.

    Sound means: at least one node; integer index arrays of equal length within range; ``n_node`` and
    ``n_edge`` that add up; finite features and weights of matching length. Repeated edges (their weights
    add up), self loops (kept) and isolated nodes (a zero row in the operator) are sound.

    Raises:
      ValueError: saying what is wrong and where.
    """
    senders, receivers = np.asarray(graph.senders), np.asarray(graph.receivers)
    size = num_nodes(graph)
    if size == 0:
        raise ValueError("the graph has no nodes")
    for name, index in (("senders", senders), ("receivers", receivers)):
        if index.ndim != 1 or not np.issubdtype(index.dtype, np.integer):
            raise ValueError(f"{name} must be a vector of integers, got {index.dtype} of shape {index.shape}")
        outside = np.flatnonzero((index < 0) | (index >= size))
        if outside.size:
            first = outside[0]
            raise ValueError(
                f"{name}[{first}] is {index[first]}, but the graph has {size} nodes, numbered from 0"
            )
    if len(senders) != len(receivers):
        raise ValueError(f"{len(senders)} senders, but {len(receivers)} receivers")
    for name, counts, total in (("n_node", graph.n_node, size), ("n_edge", graph.n_edge, len(senders))):
        if int(np.sum(counts)) != total:
            raise ValueError(f"{name} adds up to {int(np.sum(counts))}, but there are {total}")
    for name, tree, length in (("nodes", graph.nodes, size), ("edges", graph.edges, len(senders))):
        if isinstance(tree, SparseOperator):
            tree, length = tree.values, tree.values.shape[0]
        for leaf in jax.tree.leaves(tree):
            array = np.asarray(leaf)
            if array.shape[:1] != (length,):
                raise ValueError(f"{name} has shape {array.shape}, but needs {length} rows")
            if np.issubdtype(array.dtype, np.inexact) and not np.isfinite(array).all():
                row = int(np.argwhere(~np.isfinite(array))[0][0])
                raise ValueError(f"{name} holds NaN or infinity, first in row {row}: fill or drop it")
    return graph


def adjacency(graph: jraph.GraphsTuple) -> sp.csr_array:
    """The SciPy adjacency matrix ``A[receiver, sender]``; repeated edges add up."""
    weights = edge_weights(graph)
    weights = np.ones(len(graph.senders), np.float32) if weights is None else np.asarray(weights)
    index = (np.asarray(graph.receivers), np.asarray(graph.senders))
    size = num_nodes(graph)
    return sp.csr_array(sp.coo_array((weights, index), shape=(size, size)))


def from_adjacency(
    matrix: Shaped[AnyArray, "N N"] | sp.spmatrix | sp.sparray, nodes: Any = None
) -> jraph.GraphsTuple:
    """A weighted graph whose edges are the nonzeros of ``A[receiver, sender]``."""
    coo = sp.coo_array(matrix)
    coo.eliminate_zeros()
    return from_edges(
        coo.col, coo.row, nodes=nodes, edges=np.asarray(coo.data, np.float32), num_nodes=int(coo.shape[0])
    )


def _with_edges(graph: jraph.GraphsTuple, senders, receivers, edges) -> jraph.GraphsTuple:
    return graph._replace(
        senders=np.asarray(senders, np.int32),
        receivers=np.asarray(receivers, np.int32),
        edges=edges,
        n_edge=np.asarray([len(senders)], np.int32),
    )


def remove_self_loops(graph: jraph.GraphsTuple) -> jraph.GraphsTuple:
    """Drop edges from a node to itself."""
    keep = np.asarray(graph.senders) != np.asarray(graph.receivers)
    edges = jax.tree.map(lambda e: np.asarray(e)[keep], graph.edges)
    return _with_edges(graph, np.asarray(graph.senders)[keep], np.asarray(graph.receivers)[keep], edges)


def coalesce(graph: jraph.GraphsTuple, reduce: Literal["sum", "max", "first"] = "first") -> jraph.GraphsTuple:
    """Merge repeated edges, sorted by (receiver, sender).

    Args:
      graph: one graph, unweighted or weighted.
      reduce: what the weight of a merged edge is; an unweighted graph stays unweighted.
    """
    senders, receivers = np.asarray(graph.senders), np.asarray(graph.receivers)
    pair = receivers.astype(np.int64) * num_nodes(graph) + senders
    _, first, inverse = np.unique(pair, return_index=True, return_inverse=True)

    def merge(e):
        e = np.asarray(e)
        if reduce == "first":
            return e[first]
        out = np.zeros_like(e[first]) if reduce == "sum" else e[first].copy()
        (np.add if reduce == "sum" else np.maximum).at(out, inverse, e)
        return out

    return _with_edges(graph, senders[first], receivers[first], jax.tree.map(merge, graph.edges))


def to_undirected(graph: jraph.GraphsTuple) -> jraph.GraphsTuple:
    """Add the reverse of every edge, then merge repeated edges (the larger weight wins)."""
    senders, receivers = np.asarray(graph.senders), np.asarray(graph.receivers)
    edges = jax.tree.map(lambda e: np.concatenate([np.asarray(e)] * 2), graph.edges)
    both = _with_edges(graph, np.append(senders, receivers), np.append(receivers, senders), edges)
    return coalesce(both, "max")


def induced_subgraph(graph: jraph.GraphsTuple, index: Integer[AnyArray, " n"]) -> jraph.GraphsTuple:
    """The graph on the nodes ``index`` (in that order) with all edges between them."""
    index = np.asarray(index)
    position = np.full(num_nodes(graph), -1, np.int64)
    position[index] = np.arange(len(index))
    senders, receivers = position[np.asarray(graph.senders)], position[np.asarray(graph.receivers)]
    keep = (senders >= 0) & (receivers >= 0)
    if isinstance(graph.nodes, SparseOperator):
        raise TypeError("give dense node features; make them sparse after taking the subgraph")
    nodes = jax.tree.map(lambda x: np.asarray(x)[index], graph.nodes)
    edges = jax.tree.map(lambda e: np.asarray(e)[keep], graph.edges)
    return from_edges(senders[keep], receivers[keep], nodes, edges, num_nodes=len(index))


def knn_graph(
    x: Float[AnyArray, "N F"],
    k: int,
    *,
    metric: Literal["euclidean", "cosine"] = "euclidean",
    symmetric: bool = True,
) -> jraph.GraphsTuple:
    """Connect every row of ``x`` with its ``k`` nearest other rows (exact search, unit weights).

    Args:
      x: points, which become the node features.
      k: neighbours of each, in ``1..N-1``.
      metric: distance.
      symmetric: add the reverse edges; else edges run from the neighbour to the point.
    """
    x = np.asarray(x, np.float32)
    if not 1 <= k < len(x):
        raise ValueError(f"k must be between 1 and {len(x) - 1} for {len(x)} points, got {k}")
    index = NearestNeighbors(n_neighbors=k, metric=metric).fit(x).kneighbors(return_distance=False)
    graph = from_edges(index.reshape(-1), np.repeat(np.arange(len(x)), k), nodes=x)
    return to_undirected(graph) if symmetric else graph
