"""Where things are drawn: positions of condensed nodes, and a plane for the features of both graphs."""

from __future__ import annotations

from typing import Any, NamedTuple

import networkx as nx
import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from sklearn.decomposition import PCA

__all__ = ["Edges", "Projection", "classes_of", "edges_of", "positions", "project", "thinned"]


class Edges(NamedTuple):
    """Undirected edges of a condensed graph without self loops.

    Attributes:
      pairs: ``[E, 2]`` nodes, the strongest edge last.
      weights: ``[E]`` absolute weights, of both directions the larger.
      total: Number of all edges; the pairs are the strongest of them.
    """

    pairs: Int[np.ndarray, "E 2"]
    weights: Float[np.ndarray, " E"]
    total: int


class Projection(NamedTuple):
    """Features of both graphs in the plane.

    Attributes:
      original: ``[N, 2]``.
      condensed: ``[n, 2]``.
      explained: Share of the variance of the original features along each axis.
    """

    original: Float[np.ndarray, "N 2"]
    condensed: Float[np.ndarray, "n 2"]
    explained: tuple[float, float]


def classes_of(labels) -> Int[np.ndarray, " n"]:
    """Return the class of each node: the label, or the largest of soft ones."""
    labels = np.asarray(labels)
    return (labels if labels.ndim == 1 else labels.argmax(axis=1)).astype(int)


def edges_of(weights: Any | None, limit: int) -> Edges:
    """Return the strongest undirected edges of a graph, without self loops.

    Args:
      weights: Adjacency, or None for a graph without edges.
      limit: Number of edges to keep.
    """
    if weights is None:
        return Edges(np.zeros((0, 2), int), np.zeros(0), 0)
    a: Any = abs(weights)
    upper = sp.coo_array(sp.triu(a.maximum(a.T), k=1))
    strongest = np.argsort(upper.data, kind="stable")[-limit:]
    pairs = np.stack([upper.row, upper.col], axis=1)[strongest]
    return Edges(pairs.astype(int), upper.data[strongest].astype(float), int(np.sum(upper.data > 0)))


def positions(edges: Edges, classes: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n 2"]:
    """Return positions in ``[-1, 1]²``: a spring layout of nodes with edges; below it rows of the others."""
    place = np.zeros((len(classes), 2))
    linked = np.unique(edges.pairs)
    lonely = np.setdiff1d(np.arange(len(classes)), linked)
    lonely = lonely[np.argsort(classes[lonely], kind="stable")]
    share = len(linked) / len(classes)  # of the height
    if len(linked):
        place[linked] = _fit(_spring(edges, linked), low=1 - 2 * share, width=min(1.0, 2 * share**0.5))
    if len(lonely):
        columns = int(np.ceil(np.sqrt(len(lonely) / (1 - share))))
        place[lonely] = _fit(_grid(len(lonely), columns), high=1 - 2 * share - 0.1 * (share > 0))
    return place


def _spring(edges: Edges, linked: Int[np.ndarray, " m"]) -> Float[np.ndarray, "m 2"]:
    graph = nx.Graph()
    graph.add_nodes_from(linked.tolist())
    top = edges.weights.max(initial=0.0) or 1.0
    graph.add_weighted_edges_from(
        (int(i), int(j), float(w / top)) for (i, j), w in zip(edges.pairs, edges.weights, strict=True)
    )
    place = nx.spring_layout(graph, k=2.5 / np.sqrt(len(linked)), iterations=200, seed=0)
    return np.array([place[i] for i in linked.tolist()], float)


def _grid(count: int, columns: int) -> Float[np.ndarray, "n 2"]:
    index = np.arange(count)
    return np.stack([index % columns, -(index // columns)], axis=1).astype(float)


def _fit(
    points: Float[np.ndarray, "n 2"], low: float = -1.0, high: float = 1.0, width: float = 1.0
) -> Float[np.ndarray, "n 2"]:
    """Points moved and scaled along each axis to ``[-width, width] x [low, high]``."""
    corner, size = points.min(axis=0), np.ptp(points, axis=0)
    unit = np.where(size > 0, (points - corner) / np.where(size > 0, size, 1), 0.5)
    return np.array([-width, low]) + unit * np.array([2 * width, high - low])


def thinned(count: int, limit: int) -> Int[np.ndarray, " m"]:
    """Return at most ``limit`` of ``count`` indices, evenly spaced: always the same ones."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(int))


def project(original: Float[np.ndarray, "N F"], condensed: Float[np.ndarray, "n F"]) -> Projection:
    """Project the features of both graphs on the two principal components of the original."""
    if original.shape[1] == 1:  # a plane needs two
        original, condensed = (np.pad(x, ((0, 0), (0, 1))) for x in (original, condensed))
    pca = PCA(2, random_state=0).fit(original)
    first, second = np.nan_to_num(pca.explained_variance_ratio_).tolist()
    planes = (np.asarray(pca.transform(x), float) for x in (original, condensed))
    return Projection(*planes, explained=(first, second))
