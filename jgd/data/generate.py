"""Generated graphs of any size, in time linear in their edges.

Both generators draw edges in the same way. Every node has a weight (equal, or of a power law). An edge takes
its first end in proportion to the weights; the other end likewise, among the nodes of the same class with
probability ``homophily`` and among all others else. This is a degree-corrected stochastic block model with an
exact number of edges. Features are a class mean of length ``signal`` plus standard normal noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jgd.data.facts import dataset
from jgd.data.prepare import stratified
from jgd.data.storage import DataError
from jgd.data.tasks import NodeTask
from jgd.graph import from_edges

__all__ = ["contextual_sbm", "power_law"]

_ROUNDS = 100


def contextual_sbm(
    seed: int = 0,
    *,
    num_nodes: int = 2000,
    num_classes: int = 4,
    num_features: int = 32,
    mean_degree: float | int = 10.0,
    homophily: float | int = 0.8,
    signal: float | int = 1.0,
    fractions: Sequence[float] = (0.6, 0.2, 0.2),
) -> NodeTask:
    """Generate a contextual stochastic block model: classes of equal size, seen in edges and features.

    Args:
      seed: Random seed.
      num_nodes: Number of nodes.
      num_classes: Number of classes, as equal in size as they can be.
      num_features: Number of features of each node.
      mean_degree: Mean number of neighbours; the graph has ``num_nodes * mean_degree / 2`` edges.
      homophily: Share of edges within classes; ``1 / num_classes`` carries no information.
      signal: Length of each class mean, in standard deviations of the noise; 0 for pure noise.
      fractions: Fractions of each class for training, validation and testing.

    Raises:
      DataError: If there cannot be so many edges.
    """
    num_edges = round(num_nodes * mean_degree / 2)
    weights = np.ones(num_nodes)
    return _generate("sbm", seed, weights, num_edges, num_features, num_classes, homophily, signal, fractions)


def power_law(
    seed: int = 0,
    num_nodes: int = 170_000,
    num_edges: int = 600_000,
    num_features: int = 128,
    num_classes: int = 40,
    *,
    exponent: float | int = 2.5,
    homophily: float | int = 0.65,
    signal: float | int = 2.0,
    fractions: Sequence[float] = (0.6, 0.2, 0.2),
) -> NodeTask:
    """Generate a large graph whose degrees follow a power law; the defaults have the size of ogbn-arxiv.

    Args:
      seed: Random seed.
      num_nodes: Number of nodes.
      num_edges: Number of undirected edges; the graph lists each in both directions.
      num_features: Number of features of each node.
      num_classes: Number of classes, as equal in size as they can be.
      exponent: Exponent of the degree distribution ``p(d) ~ d^-exponent``, above 2.
      homophily: Share of edges within classes.
      signal: Length of each class mean, in standard deviations of the noise.
      fractions: Fractions of each class for training, validation and testing.

    Raises:
      DataError: If there cannot be so many edges.
    """
    if exponent <= 2:
        raise DataError(f"exponent must be above 2 for degrees with a mean, got {exponent}")
    weights = np.arange(1, num_nodes + 1) ** (-1 / (exponent - 1))
    return _generate(
        "power-law", seed, weights, num_edges, num_features, num_classes, homophily, signal, fractions
    )


def _generate(
    name, seed, weights, num_edges, num_features, num_classes, homophily, signal, fractions
) -> NodeTask:
    if not 0 <= homophily <= 1 or not 1 < num_classes <= len(weights):
        raise DataError("homophily must be in 0..1, and there must be two classes or more, none empty")
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(len(weights)) % num_classes).astype(np.int32)
    pairs = _draw_edges(rng, labels, rng.permutation(weights), num_edges, homophily)
    senders, receivers = np.concatenate([pairs, pairs[::-1]], axis=1)
    order = np.lexsort((senders, receivers))
    means = rng.standard_normal((num_classes, num_features), np.float32)
    means *= np.float32(signal) / np.linalg.norm(means, axis=1, keepdims=True)
    x = rng.standard_normal((len(labels), num_features), np.float32)
    x += means[labels]
    return NodeTask(
        graph=from_edges(senders[order], receivers[order], nodes=x),
        labels=labels,
        **stratified(labels, fractions, seed=seed),
        num_classes=num_classes,
        name=name,
    )


def _draw_edges(rng, labels, weights, num_edges: int, homophily: float) -> np.ndarray:
    """Draw distinct undirected edges ``[2, num_edges]`` without loops."""
    size = len(labels)
    by_class = np.argsort(labels, kind="stable")
    total = np.append(0, np.cumsum(weights[by_class]))
    bounds = total[np.searchsorted(labels[by_class], np.arange(labels.max() + 2))]

    def node_at(point):
        return by_class[np.clip(np.searchsorted(total, point, side="right") - 1, 0, size - 1)]

    def draw(count):
        first = node_at(rng.random(count) * total[-1])
        low, high = bounds[labels[first]], bounds[labels[first] + 1]
        share = rng.random(count)
        inside = low + share * (high - low)
        outside = share * (total[-1] - (high - low))
        outside += np.where(outside >= low, high - low, 0)  # jump over the node's own class
        second = node_at(np.where(rng.random(count) < homophily, inside, outside))
        code = np.minimum(first, second) * np.int64(size) + np.maximum(first, second)
        return code[first != second]

    codes = np.zeros(0, np.int64)
    for _ in range(_ROUNDS):
        missing = num_edges - len(codes)
        if missing <= 0:
            break
        new = np.setdiff1d(draw(missing + missing // 8 + 16), codes)
        codes = np.append(codes, rng.permutation(new)[:missing])
    else:
        raise DataError(f"{size} nodes cannot take {num_edges} edges of this kind: ask for fewer")
    return np.stack([codes // size, codes % size])


ENTRIES = (
    dataset(
        "sbm",
        contextual_sbm,
        "Classes of equal size, seen in both edges and features.",
        kind="node",
        size=2000,
        classes=4,
        source="generated",
        licence="none",
    ),
    dataset(
        "power-law",
        power_law,
        "A large graph of the size of ogbn-arxiv.",
        kind="node",
        size=170_000,
        classes=40,
        source="generated",
        licence="none",
    ),
)
