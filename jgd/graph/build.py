"""Builders and checks of graphs (host side, NumPy)."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Integer, Shaped
from sklearn.neighbors import NearestNeighbors

from jgd.graph._operator import AnyArray, SparseOperator, check_index, edge_weights, num_nodes

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
    """Build one checked graph from index arrays.

    Args:
      senders: Source of each edge.
      receivers: Target of each edge.
      nodes: Node features ``[N, F]`` (array or `SparseOperator`) or None.
      edges: Edge weights ``[E]``, a dict of edge data, or None.
      num_nodes: Number of nodes; required if ``nodes`` is None, and checked otherwise.

    Raises:
      ValueError: If the graph is not sound, see `validate`.
    """
    if nodes is None and num_nodes is None:
        raise ValueError("a graph without node features needs num_nodes=...")
    if num_nodes is None:
        num_nodes = nodes.shape[0] if isinstance(nodes, SparseOperator) else len(jax.tree.leaves(nodes)[0])
    fields: dict[str, Any] = {
        "nodes": nodes,
        "edges": edges,
        "senders": np.asarray(senders),
        "receivers": np.asarray(receivers),
        "n_node": np.asarray([num_nodes], np.int32),
        "n_edge": np.asarray([len(senders)], np.int32),
        "globals": None,
    }
    return _int32(validate(jraph.GraphsTuple(**fields)))


def _int32(graph: jraph.GraphsTuple) -> jraph.GraphsTuple:
    senders, receivers = np.asarray(graph.senders, np.int32), np.asarray(graph.receivers, np.int32)
    return graph._replace(senders=senders, receivers=receivers)


def validate(graph: jraph.GraphsTuple, *, features: bool = False) -> jraph.GraphsTuple:
    """Return the graph if it is sound, else raise an error.

    A sound graph has at least one node; integer index arrays of equal length within range; ``n_node`` and
    ``n_edge`` that add up, with edges inside their graph where several are joined; finite features and
    weights of matching length. Repeated edges (their weights add up), self loops (kept) and isolated nodes (a
    zero row in the operator) are sound. The check costs ``O(N F + E)`` on the host.

    Args:
      graph: Graph, or several joined.
      features: Whether to require that node features are a matrix ``[N, F]`` of numbers and that an array of
        edge data holds weights, as networks and `operator` read them.

    Raises:
      ValueError: If the graph is not sound; the message names the problem and its place.
    """
    senders, receivers = np.asarray(graph.senders), np.asarray(graph.receivers)
    size = num_nodes(graph)
    if size == 0:
        raise ValueError("the graph has no nodes")
    check_index("senders", senders, size)
    check_index("receivers", receivers, size)
    if len(senders) != len(receivers):
        raise ValueError(f"{len(senders)} senders, but {len(receivers)} receivers")
    for name, counts, total in (("n_node", graph.n_node, size), ("n_edge", graph.n_edge, len(senders))):
        counts = np.asarray(counts)
        if counts.ndim != 1 or not np.issubdtype(counts.dtype, np.integer) or (counts < 0).any():
            raise ValueError(f"{name} must be a vector of counts, got {counts.dtype} of shape {counts.shape}")
        if int(np.sum(counts)) != total:
            raise ValueError(f"{name} adds up to {int(np.sum(counts))}, but there are {total}")
    _check_joined(graph, senders, receivers)
    for name, tree, length in (("nodes", graph.nodes, size), ("edges", graph.edges, len(senders))):
        if isinstance(tree, SparseOperator):
            _check_finite(name, np.asarray(tree.values), np.asarray(tree.receivers))
            continue
        for array in map(np.asarray, jax.tree.leaves(tree)):
            if array.shape[:1] != (length,):
                raise ValueError(f"{name} has shape {array.shape}, but needs {length} rows")
            _check_finite(name, array)
    x: Any = graph.nodes
    if features and hasattr(x, "ndim") and np.ndim(x) != 2:
        shape = np.shape(x)
        raise ValueError(f"nodes has shape {shape}: features are a matrix, one row for each of {size} nodes")
    if features:
        edge_weights(graph)
    return graph


def _check_finite(name: str, array: np.ndarray, rows: np.ndarray | None = None) -> None:
    """Refuse values that are not numbers, or not finite in float32, in which networks compute."""
    if not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool):
        raise ValueError(f"{name} holds values of type {array.dtype}, not numbers")
    if jnp.issubdtype(array.dtype, jnp.inexact):
        with np.errstate(over="ignore"):
            bad = ~np.isfinite(array.astype(np.float32) if array.dtype == np.float64 else array)
        if bad.any():
            row = int(np.argwhere(bad)[0][0]) if rows is None else int(rows[bad].min())
            raise ValueError(f"{name} holds NaN or infinity, first in row {row}: fill or drop it")


def _check_joined(graph: jraph.GraphsTuple, senders: np.ndarray, receivers: np.ndarray) -> None:
    """Refuse edges that leave the graph that counts them, where several graphs are joined."""
    n_node, n_edge = np.asarray(graph.n_node), np.asarray(graph.n_edge)
    if len(n_node) != len(n_edge):
        raise ValueError(f"n_node has {len(n_node)} entries, but n_edge has {len(n_edge)}")
    if len(n_node) > 1:
        owner, counted = np.repeat(np.arange(len(n_node)), n_node), np.repeat(np.arange(len(n_edge)), n_edge)
        outside = (owner[senders] != counted) | (owner[receivers] != counted)
        if outside.any():
            edge = int(np.argmax(outside))
            raise ValueError(
                f"edge {edge} ({senders[edge]} to {receivers[edge]}) is counted in graph {counted[edge]}, "
                "but leaves it"
            )


def adjacency(graph: jraph.GraphsTuple) -> sp.csr_array:
    """Return the SciPy adjacency matrix ``A[receiver, sender]``; repeated edges add up."""
    index = (np.asarray(graph.receivers), np.asarray(graph.senders))
    weights, size = edge_weights(graph), num_nodes(graph)
    weights = np.ones(len(index[0]), np.float32) if weights is None else np.asarray(weights)
    return sp.csr_array(sp.coo_array((weights, index), shape=(size, size)))


def from_adjacency(
    matrix: Shaped[AnyArray, "N N"] | sp.spmatrix | sp.sparray, nodes: Any = None
) -> jraph.GraphsTuple:
    """Build a weighted graph whose edges are the nonzeros of ``A[receiver, sender]``."""
    data: Any = matrix if sp.issparse(matrix) else np.asarray(matrix)
    if data.ndim != 2 or data.shape[0] != data.shape[1]:
        raise ValueError(f"an adjacency matrix is square, got shape {data.shape}")
    coo: Any = sp.coo_array(data)
    coo.eliminate_zeros()
    return from_edges(coo.col, coo.row, nodes, coo.data.astype(np.float32), num_nodes=coo.shape[0])


def _with_edges(graph: jraph.GraphsTuple, senders, receivers, edges) -> jraph.GraphsTuple:
    if len(graph.n_node) != 1:
        raise ValueError(f"give one graph, got a batch of {len(graph.n_node)}: see jraph.unbatch_np")
    count: Any = np.asarray([len(senders)], np.int32)
    return _int32(graph._replace(senders=senders, receivers=receivers, edges=edges, n_edge=count))


def remove_self_loops(graph: jraph.GraphsTuple) -> jraph.GraphsTuple:
    """Drop edges from a node to itself."""
    keep = np.asarray(graph.senders) != np.asarray(graph.receivers)
    edges = jax.tree.map(lambda e: np.asarray(e)[keep], graph.edges)
    return _with_edges(graph, np.asarray(graph.senders)[keep], np.asarray(graph.receivers)[keep], edges)


def coalesce(graph: jraph.GraphsTuple, reduce: Literal["sum", "max", "first"] = "first") -> jraph.GraphsTuple:
    """Merge repeated edges, sorted by (receiver, sender).

    Args:
      graph: Graph, unweighted or weighted.
      reduce: Rule for the weight of a merged edge; an unweighted graph stays unweighted.
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
    """Return the graph on the nodes ``index`` (in that order) with all edges between them."""
    if isinstance(graph.nodes, SparseOperator):
        raise TypeError("give dense node features; make them sparse after taking the subgraph")
    index = np.asarray(index)
    check_index("index", index, num_nodes(graph))
    if len(np.unique(index)) != len(index):
        raise ValueError("index holds a node twice")
    position = np.full(num_nodes(graph), -1, np.int64)
    position[index] = np.arange(len(index))
    senders, receivers = position[np.asarray(graph.senders)], position[np.asarray(graph.receivers)]
    keep = (senders >= 0) & (receivers >= 0)
    nodes = jax.tree.map(lambda x: np.asarray(x)[index], graph.nodes)
    edges = jax.tree.map(lambda e: np.asarray(e)[keep], graph.edges)
    small = from_edges(senders[keep], receivers[keep], nodes, edges, num_nodes=len(index))
    return small._replace(globals=graph.globals)


def knn_graph(
    x: Float[AnyArray, "N F"],
    k: int,
    *,
    metric: Literal["euclidean", "cosine"] = "euclidean",
    symmetric: bool = True,
) -> jraph.GraphsTuple:
    """Connect every row of ``x`` with its ``k`` nearest other rows (exact search, unit weights).

    Among equally near rows the first ones are taken on every machine: the distances of candidates (sixteen
    more than needed) are computed again in float64.

    Args:
      x: Points, which become the node features.
      k: Number of neighbours of each point, in ``1..N-1``.
      metric: Distance between points.
      symmetric: Whether to add the reverse edges; if false, edges run from the neighbour to the point.
    """
    x = np.asarray(x, np.float32)
    if not 1 <= k < len(x):
        raise ValueError(f"k must be between 1 and {len(x) - 1} for {len(x)} points, got {k}")
    search = NearestNeighbors(n_neighbors=min(k + 16, len(x) - 1), metric=metric).fit(x)
    candidates = np.sort(search.kneighbors(return_distance=False), axis=1)
    points = x.astype(np.float64)
    if metric == "cosine":
        points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    distances = np.stack(
        [np.sum((points[c] - p) ** 2, axis=1) for c, p in zip(candidates, points, strict=True)]
    )
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    index = np.take_along_axis(candidates, order, axis=1)
    graph = from_edges(index.reshape(-1), np.repeat(np.arange(len(x)), k), nodes=x)
    return to_undirected(graph) if symmetric else graph
