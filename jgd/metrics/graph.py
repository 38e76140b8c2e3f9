"""Statistics of one graph: homophily, degrees, spectrum (host side)."""

from __future__ import annotations

import jraph
import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg
from jaxtyping import Float, Shaped

from jgd.graph.build import adjacency
from jgd.graph.operator import AnyArray

__all__ = ["degree_statistics", "homophily", "spectrum"]


def homophily(graph: jraph.GraphsTuple, labels: Shaped[AnyArray, " N"]) -> float:
    """The weighted share of edges between nodes of one class, self loops and unknown labels left out.

    NaN where there is no such edge.
    """
    coo = adjacency(graph).tocoo()
    labels = np.asarray(labels)
    a, b = labels[coo.row], labels[coo.col]
    counted = (coo.row != coo.col) & (a >= 0) & (b >= 0)
    weights = np.abs(coo.data[counted])
    total = weights.sum()
    return float(weights[(a == b)[counted]].sum() / total) if total else float("nan")


def degree_statistics(graph: jraph.GraphsTuple) -> dict[str, float]:
    """Mean, deviation, maximum and Gini coefficient of the weighted in-degree, and the density."""
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


def spectrum(graph: jraph.GraphsTuple, k: int = 16) -> Float[np.ndarray, " k"]:
    """The ``k`` largest eigenvalues of ``D^-1/2 A D^-1/2`` of the symmetrised graph, in descending order."""
    a = adjacency(graph).astype(np.float64)
    a = (a + a.T) / 2
    degree = np.asarray(a.sum(axis=1)).ravel()
    scale = sp.diags_array(np.where(degree > 0, np.maximum(degree, 1e-300) ** -0.5, 0.0))
    normal = scale @ a @ scale
    k = min(k, normal.shape[0])
    if normal.shape[0] <= max(2 * k, 512):
        return np.linalg.eigvalsh(normal.toarray())[::-1][:k]
    start = np.random.default_rng(0).standard_normal(normal.shape[0])
    values = scipy.sparse.linalg.eigsh(normal, k=k, which="LA", return_eigenvectors=False, v0=start)
    return np.sort(values)[::-1]
