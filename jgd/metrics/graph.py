"""Statistics of one graph, and their preservation in a condensed graph (host side)."""

from __future__ import annotations

from typing import Any

import jraph
import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Shaped
from sklearn.metrics import davies_bouldin_score

from jgd.graph import AnyArray, SparseOperator, adjacency, num_nodes
from jgd.graph.spectral import eigenpairs, laplacian, normalized_adjacency
from jgd.losses.common import Count, checked
from jgd.registry import Entry

__all__ = [
    "clustering_coefficient",
    "davies_bouldin",
    "degree_statistics",
    "graph_properties",
    "homophily",
    "property_preservation",
    "spectrum",
]


def _of_nodes(graph: jraph.GraphsTuple, labels: Any) -> np.ndarray:
    """Return labels as one number for each node."""
    labels, size = np.asarray(labels), num_nodes(graph)
    if labels.shape == (size, 1):
        labels = labels[:, 0]
    if labels.shape != (size,):
        raise ValueError(f"labels of shape {labels.shape} do not fit a graph of {size} nodes: one for each")
    return labels


def homophily(graph: jraph.GraphsTuple, labels: Shaped[AnyArray, "..."]) -> float:
    """Compute the weighted share of edges between nodes of one class, without self loops and unknown labels.

    NaN if there is no such edge.
    """
    coo = adjacency(graph).tocoo()
    labels = _of_nodes(graph, labels)
    a, b = labels[coo.row], labels[coo.col]
    counted = (coo.row != coo.col) & (a >= 0) & (b >= 0)
    weights = np.abs(coo.data[counted])
    total = weights.sum()
    return float(weights[(a == b)[counted]].sum() / total) if total else float("nan")


def degree_statistics(graph: jraph.GraphsTuple) -> dict[str, float]:
    """Compute mean, deviation, maximum and Gini coefficient of the weighted in-degree, and the density."""
    a = adjacency(graph)
    degrees = np.sort(np.asarray(a.sum(axis=1)).ravel().astype(np.float64))
    n, total = len(degrees), degrees.sum()
    ranks = np.arange(1, n + 1)
    gini = float((2 * (ranks * degrees).sum() / (n * total)) - (n + 1) / n) if total else 0.0
    return {
        "mean": float(degrees.mean()),
        "std": float(degrees.std()),
        "max": float(degrees.max()),
        "density": a.nnz / (n * n),
        "gini": gini,
    }


@checked
def spectrum(graph: jraph.GraphsTuple, k: Count = 16) -> Float[np.ndarray, " k"]:
    """Compute the ``k`` largest eigenvalues of ``D^-1/2 A D^-1/2`` of the symmetrised graph, descending."""
    a: Any = adjacency(graph).astype(np.float64)
    normal: Any = normalized_adjacency((a + a.T) / 2)
    return eigenpairs(normal, min(k, normal.shape[0]), "largest")[0]


def _simple(graph: jraph.GraphsTuple) -> Any:  # SciPy's types do not cover sparse arrays
    """Return magnitudes of the weights in float64, the larger of both directions, without loops."""
    raw: Any = abs(adjacency(graph).astype(np.float64))
    both: Any = sp.csr_array(raw.maximum(raw.T))
    a: Any = sp.csr_array(both - sp.diags_array(both.diagonal()))
    a.eliminate_zeros()
    return a


def clustering_coefficient(graph: jraph.GraphsTuple, *, chunk_size: int = 2048) -> float:
    """Compute the mean over nodes of how closely their neighbours are connected (Onnela et al., 2005).

    The coefficient of a node of ``k`` neighbours is the sum over its ordered pairs of neighbours of
    ``(w_ij w_jk w_ki)^(1/3) / (k (k - 1))``, with weights divided by the largest; with equal weights this is
    the share of pairs that are connected (Watts and Strogatz, 1998). Directions and self loops do not count;
    nodes of fewer than two neighbours have 0.

    Args:
      graph: Graph.
      chunk_size: Number of rows of the squared adjacency that are computed at once.

    Returns:
      A number in 0..1.
    """
    a = _simple(graph)
    pairs = np.diff(a.indptr).astype(np.float64)
    pairs *= pairs - 1
    a.data = np.cbrt(a.data / a.data.max(initial=0)) if a.nnz else a.data
    slabs = [a[i : i + chunk_size] for i in range(0, a.shape[0], chunk_size)]  # a square may be dense
    triangles = np.concatenate([np.asarray((s @ a).multiply(s).sum(axis=1)).ravel() for s in slabs])
    return float(np.mean(np.where(pairs > 0, triangles / np.maximum(pairs, 1), 0)))


@checked
def davies_bouldin(x: Float[AnyArray, "N F"], labels: Shaped[AnyArray, " N"]) -> float:
    """Compute the Davies-Bouldin index of labelled features: spread within groups over distance between.

    Nodes without a label are left out. NaN if fewer than two classes remain, no class has two nodes, or a
    feature is not finite. Lower values mean better separated groups.
    """
    labels = np.asarray(labels)
    known = labels >= 0
    labels, x = labels[known], np.asarray(x, np.float64)[known]
    if not 2 <= len(np.unique(labels)) < len(labels) or not np.isfinite(x).all():
        return float("nan")
    return float(davies_bouldin_score(x, labels))


def graph_properties(
    graph: jraph.GraphsTuple, labels: Shaped[AnyArray, "..."], *, normalized: bool = False
) -> dict[str, float]:
    """Compute the properties by which GC4NC (Gong et al., NeurIPS 2025) compares condensed graphs.

    Args:
      graph: Graph with features; self loops do not count, except in the propagation.
      labels: ``[N]`` classes, -1 where unknown.
      normalized: Whether the weights of the graph are already normalised, with self loops.

    Returns:
      ``density``: edges of all pairs of nodes; ``adjacency_eigenvalue``: the largest of ``A``;
      ``laplacian_eigenvalue``: the largest of ``D - A``, which grows with the degrees and is the one of the
      benchmark; ``normalized_eigenvalue``: the largest of ``I - D^-1/2 A D^-1/2``, in 0..2 for any size;
      ``homophily``: see `homophily`; ``davies_bouldin``: of the features; ``davies_bouldin_propagated``: of
      ``Â²X``; ``clustering``: see `clustering_coefficient`.
    """
    a, nodes, labels = _simple(graph), graph.nodes, _of_nodes(graph, labels)
    raw: Any = adjacency(graph).astype(np.float64)
    if nodes is None:
        raise ValueError("the graph has no node features, whose separation by class is one of the properties")
    x = np.asarray(nodes.todense() if isinstance(nodes, SparseOperator) else nodes, np.float64)
    size = a.shape[0]
    hat: Any = raw if normalized else normalized_adjacency(raw, self_loops=True)

    def top(matrix):
        return float(eigenpairs(matrix, 1, "largest")[0][0])

    return {
        "density": a.nnz / (size * (size - 1)) if size > 1 else 0.0,
        "adjacency_eigenvalue": top(a),
        "laplacian_eigenvalue": top(laplacian(a)),
        "normalized_eigenvalue": top(laplacian(a, normalize=True)),
        "homophily": homophily(graph, labels),
        "davies_bouldin": davies_bouldin(x, labels),
        "davies_bouldin_propagated": davies_bouldin(hat @ (hat @ x), labels),
        "clustering": clustering_coefficient(graph),
    }


def property_preservation(task: Any, small: Any) -> dict[str, tuple[float, float]]:
    """Compute the properties of a graph beside those of its condensed graph.

    For an inductive task, the original is the graph of the training nodes, because the condenser saw no
    other. A condensed graph without edges (A' = I) has density, eigenvalues and clustering 0 and no homophily
    (NaN). Soft labels count as their largest class.

    Args:
      task: Original task, a `jgd.data.NodeTask`.
      small: Condensed graph, a `jgd.data.Condensed`.

    Returns:
      ``{name: (original, condensed)}``, with the names of `graph_properties`.
    """
    part, _ = task.seen_with(task.train)
    targets, structure = np.asarray(small.targets), small.training.adjacency
    labels = targets if targets.ndim == 1 else targets.argmax(axis=1)
    graph = small.data
    if structure == "identity":
        none = np.zeros(0, np.int32)
        graph = graph._replace(senders=none, receivers=none, edges=None, n_edge=np.zeros(1, np.int32))
    before = graph_properties(part.graph, part.labels)
    after = graph_properties(graph, labels, normalized=structure == "normalized")
    return {name: (before[name], after[name]) for name in before}


ENTRIES = (
    Entry(
        "clustering-coefficient",
        clustering_coefficient,
        "Share of pairs of neighbours that are connected.",
        paper="Onnela et al. 2005",
        kinds=("nodes",),
    ),
    Entry(
        "davies-bouldin",
        davies_bouldin,
        "Spread within classes over distance between them.",
        paper="Davies & Bouldin 1979",
        kinds=("nodes",),
    ),
    Entry(
        "degree-statistics",
        degree_statistics,
        "Moments and Gini coefficient of the degrees, and the density.",
        kinds=("nodes",),
    ),
    Entry(
        "graph-properties",
        graph_properties,
        "Eight properties by which condensed graphs are compared.",
        paper="Gong et al. 2025",
        kinds=("nodes",),
    ),
    Entry("homophily", homophily, "Share of edges between nodes of one class.", kinds=("nodes",)),
    Entry(
        "property-preservation",
        property_preservation,
        "Properties of a graph beside those of its condensed graph.",
        paper="Gong et al. 2025",
        kinds=("nodes",),
    ),
    Entry("spectrum", spectrum, "Largest eigenvalues of the normalised adjacency.", kinds=("nodes",)),
)
