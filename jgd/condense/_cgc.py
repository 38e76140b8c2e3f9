r"""CGC: partition each class, average within the parts, and solve for features under a graph of the parts.

Gao et al., "Rethinking and accelerating graph condensation: a training-free approach with class partition",
WWW 2025.

The one idea: matching whole classes is replaced by matching parts of classes with condensed nodes, which
needs no training: the parts come from clustering, everything else is in closed form.

With ``Â = D^-1/2 (A + I) D^-1/2``, ``H_t = Â^t X`` and the one-hot labels Y of the training nodes:

1. assess      W = argmin |(H_0 + H_1 + H_2) W / 3 - Y|_F;  confidence s_i = softmax(H_2 W)_{i, y_i}, and the
               least confidence of its class where the prediction is wrong
2. augment     a N_train further rows, drawn from H_1 with probability ∝ 1 - F1(class) of the predictions
               argmax H_1 W, with their confidences: hard classes get more
3. partition   the rows of each class into n_c clusters
4. average     x̄_k = Σ_{i in k} softmax(s / τ)_i h_i
5. CGC-X       X' = x̄,  A' = I
   CGC         A'_kl = 1[cos(x̄_k, x̄_l) > T], no loops; X' minimises |Â'² X' - x̄|² + α tr(X'ᵀ L' X'):
               (QᵀQ + α L') X' = Qᵀ x̄,  Q = Â'²,  L' = I - D'^-1/2 A' D'^-1/2

Spectral partition: U holds the n_c leading left singular vectors of the centred rows, and the affinity of two
rows is (u·v + c)², the inner product of explicit features φ(u) of degree two; k-means of the singular vectors
2 .. n_c + 1 of φ / √(φ Σφ).

Departures from the authors' code. There, Q = Â'³, and the system is (Q Qᵀ + L') X' = α Qᵀ x̄, where α only
scales the features (``swapped=True`` is theirs; α was tuned with it). There, a wrong prediction takes the
least confidence of all classes. Empty clusters, there rows of zeros, do not occur here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from jgd.condense._vng import weighted_kmeans
from jgd.condense.common import (
    budget,
    check_settings,
    condensed_nodes,
    condenser,
    dense_features,
    normalize_adjacency,
    official,
    size_of,
    training_part,
)
from jgd.core import Loop, in_memory
from jgd.data import Condensed, NodeTask
from jgd.graph import adjacency
from jgd.graph.spectral import laplacian
from jgd.registry import Entry

__all__ = [
    "CGC",
    "CGCX",
    "OFFICIAL",
    "OFFICIAL_X",
    "confidence",
    "cosine_graph",
    "partition",
    "smooth_features",
    "spectral_rows",
    "square_features",
]

Structure = Literal["cosine", "identity"]
Clustering = Literal["spectral", "kmeans"]


def confidence(logits: Float[np.ndarray, "m C"], labels: Int[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """Return the probability of the label, and the least of its class where another class is predicted."""
    exponent = np.exp(logits - logits.max(axis=1, keepdims=True))
    own = exponent[np.arange(len(labels)), labels] / exponent.sum(axis=1)
    least = np.ones(logits.shape[1])
    np.minimum.at(least, labels, own)
    return np.where(logits.argmax(axis=1) == labels, own, least[labels])


def square_features(u: Float[np.ndarray, "m k"], c: float = 2**-0.5) -> Float[np.ndarray, "m p"]:
    """Return features ``φ`` with ``φ(u) · φ(v) = (u · v + c)²``: a constant, ``k`` terms, all products."""
    i, j = np.triu_indices(u.shape[1], 1)
    constant = np.full((len(u), 1), c)
    return np.concatenate([constant, np.sqrt(2 * c) * u, u**2, np.sqrt(2.0) * u[:, i] * u[:, j]], axis=1)


def spectral_rows(h: Float[np.ndarray, "m d"], k: int) -> Float[np.ndarray, "m k"]:
    """Return coordinates in which the spectral partition runs k-means: the singular vectors 2 .. k + 1.

    Args:
      h: Rows to cluster, more than ``k``.
      k: Number of clusters.
    """
    u = np.linalg.svd(h - h.mean(axis=0), full_matrices=False)[0][:, :k]
    z = square_features(u)
    z /= np.sqrt(z @ z.sum(axis=0))[:, None]
    if z.shape[1] < len(z):  # left singular vectors by the smaller of the two Gram matrices
        values, right = np.linalg.eigh(z.T @ z)
        top = slice(-2, -k - 2, -1)
        return z @ right[:, top] / np.sqrt(np.maximum(values[top], 1e-12))
    return np.linalg.eigh(z @ z.T)[1][:, -2 : -k - 2 : -1]


def partition(
    h: Float[np.ndarray, "m d"], k: int, how: Clustering, *, seed: int = 0, restarts: int = 4
) -> Int[np.ndarray, " m"]:
    """Return the cluster of each row of a class; every row its own where there are as many clusters."""
    if k == len(h):
        return np.arange(k)
    rows = spectral_rows(h, k) if how == "spectral" else h
    return weighted_kmeans(rows, k, seed=seed, restarts=restarts)


def cosine_graph(h: Float[np.ndarray, "n d"], threshold: float) -> Float[np.ndarray, "n n"]:
    """Return ones between different rows whose cosine is above the threshold, else zeros."""
    unit = h / np.maximum(np.linalg.norm(h, axis=1, keepdims=True), 1e-12)
    a = (unit @ unit.T > threshold).astype(np.float64)
    np.fill_diagonal(a, 0)
    return np.maximum(a, a.T)  # rounding may differ between the two triangles


def smooth_features(
    a: Float[np.ndarray, "n n"], h: Float[np.ndarray, "n d"], alpha: float, *, swapped: bool = False
) -> Float[np.ndarray, "n d"]:
    """Return the features ``X'`` that become ``h`` after two propagations, but smooth (step 5).

    Args:
      a: Adjacency ``A'`` without loops.
      h: Rows that propagation should give.
      alpha: Weight of smoothness.
      swapped: Whether to solve the system of the authors' code instead.
    """
    loops = a + np.eye(len(a))
    scale = loops.sum(axis=1) ** -0.5
    a_hat, lap = scale[:, None] * loops * scale, laplacian(a, normalize=True).toarray()
    if swapped:
        q = a_hat @ a_hat @ a_hat
        return np.linalg.lstsq(q @ q.T + lap, alpha * q.T @ h, rcond=1e-12)[0]
    q = a_hat @ a_hat
    if alpha == 0:
        return np.linalg.lstsq(q, h, rcond=1e-12)[0]
    return np.linalg.solve(q.T @ q + alpha * lap, q.T @ h)


@dataclass(frozen=True)
class CGC:
    """Class partition with a graph between the parts. The defaults are the official ones for Cora at 0.5.

    Attributes:
      label_ratio: Condensed nodes for each labelled node.
      nodes: Number of condensed nodes, instead of the ratio.
      structure: ``"cosine"`` for the graph above, ``"identity"`` for A' = I (CGC-X).
      clustering: ``"spectral"`` or ``"kmeans"`` within the classes.
      threshold: ``T``, cosine above which parts are connected.
      alpha: ``α``, weight of smoothness.
      temperature: ``τ``; high for plain means, low for the most confident row.
      augment: ``a``, further rows for each labelled node.
      restarts: Random starts of k-means.
      swapped: Whether to solve the system of the authors' code.
    """

    label_ratio: float | None = 0.5
    nodes: int | None = None
    structure: Structure = "cosine"
    clustering: Clustering = "spectral"
    threshold: float = 0.8
    alpha: float = 7.0
    temperature: float = 1.0
    augment: float = 0.5
    restarts: int = 4
    swapped: bool = False

    def __post_init__(self):
        """Refuse impossible settings."""
        if self.temperature <= 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        check_settings(
            self,
            at_least_one=("restarts",),
            not_negative=("alpha", "augment"),
        )

    @condenser
    def __call__(self, key: Array, task: NodeTask, loop: Loop = in_memory) -> Condensed:
        """Condense a task."""
        del loop
        shares = budget(task, size_of(task, self.label_ratio, self.nodes))
        part = training_part(task)
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        index = np.flatnonzero(np.asarray(part.train))
        labels = np.asarray(part.labels)[index]
        rows, labels, scores = self._rows(part, index, labels, rng)

        assign = np.full(task.num_nodes, -1, np.int32)
        original = np.flatnonzero(np.asarray(task.train))
        means = []
        for c, count in enumerate(shares):
            if not count:
                continue
            members = np.flatnonzero(labels == c)
            seed = int(rng.integers(2**31 - 1))
            found = partition(rows[members], count, self.clustering, seed=seed, restarts=self.restarts)
            own = members < len(index)
            assign[original[members[own]]] = len(means) + found[own]
            for k in range(count):
                cluster = members[found == k]
                weight = np.exp((scores[cluster] - scores[cluster].max()) / self.temperature)
                means.append((weight / weight.sum()) @ rows[cluster])
        x = np.stack(means)
        edges = None if self.structure == "identity" else cosine_graph(x, self.threshold)
        if edges is not None:
            x = smooth_features(edges, x, self.alpha, swapped=self.swapped)
        return condensed_nodes(
            self,
            key,
            task,
            features=x,
            labels=np.repeat(np.arange(task.num_classes), shares),
            edges=edges,
            adjacency="raw",
            extras={"assign": assign},
        )

    def _rows(self, part: NodeTask, index: np.ndarray, labels: np.ndarray, rng: np.random.Generator):
        """Return rows to partition with their labels and confidences; those of the augmentation come last."""
        a_hat: Any = normalize_adjacency(adjacency(part.graph))
        x, hops = dense_features(part), []
        for _ in range(3):
            hops.append(x[index].astype(np.float64))
            x = a_hat @ x
        h0, h1, h2 = hops
        target = np.eye(part.num_classes)[labels]
        weights = np.linalg.lstsq((h0 + h1 + h2) / 3, target, rcond=None)[0]
        scores = confidence(h2 @ weights, labels)
        count = int(self.augment * len(index))
        if not count:
            return h2, labels, scores
        logits = h1 @ weights
        hits = labels[logits.argmax(axis=1) == labels]
        right, true, said = (
            np.bincount(c, minlength=part.num_classes) for c in (hits, labels, logits.argmax(axis=1))
        )
        f1 = 2 * right / np.maximum(true + said, 1)
        hard = 1 - f1[labels] + 1e-20
        drawn = rng.choice(len(index), size=count, p=hard / hard.sum())
        more = confidence(logits[drawn], labels[drawn])
        return (
            np.concatenate([h2, h1[drawn]]),
            np.concatenate([labels, labels[drawn]]),
            np.concatenate([scores, more]),
        )


@dataclass(frozen=True)
class CGCX(CGC):
    """Class partition with A' = I. The defaults are the official ones for Cora at 0.5; see `CGC`."""

    structure: Structure = "identity"
    temperature: float = 10.0
    augment: float = 0.7


def _cgc(threshold: float, alpha: float, temperature: float, augment: float) -> dict[str, float]:
    return {"threshold": threshold, "alpha": alpha, "temperature": temperature, "augment": augment}


def _cgcx(temperature: float, augment: float) -> dict[str, float]:
    return {"temperature": temperature, "augment": augment}


OFFICIAL: dict[tuple[str, float], dict[str, float]] = {
    ("cora", 0.25): _cgc(0.8, 1.0, 0.5, 0.5),
    ("cora", 0.5): _cgc(0.8, 7.0, 1.0, 0.5),
    ("cora", 1.0): _cgc(0.9, 7.0, 0.1, 0.3),
    ("citeseer", 0.25): _cgc(0.8, 2.0, 0.05, 0.6),
    ("citeseer", 0.5): _cgc(0.8, 1.0, 0.05, 0.1),
    ("citeseer", 1.0): _cgc(0.75, 2.0, 0.5, 0.5),
    ("ogbn-arxiv", 0.001): _cgc(0.92, 3.0, 5.0, 0.4),
    ("ogbn-arxiv", 0.005): _cgc(0.92, 3.0, 15.0, 0.4),
    ("ogbn-arxiv", 0.01): _cgc(0.92, 3.0, 1.0, 3.0),
    ("flickr", 0.001): _cgc(0.996, 1.0, 0.1, 0.5),
    ("flickr", 0.005): _cgc(0.996, 1.0, 0.08, 0.3),
    ("flickr", 0.01): _cgc(0.996, 1.0, 0.01, 0.5),
    ("reddit", 0.0005): _cgc(0.95, 3.0, 10.0, 0.2),
    ("reddit", 0.001): _cgc(0.95, 3.0, 10.0, 0.55),
    ("reddit", 0.002): _cgc(0.95, 3.0, 10.0, 0.75),
}
"""Settings of the authors' run scripts for CGC, by dataset and label ratio (tuned with ``swapped=True``)."""

OFFICIAL_X: dict[tuple[str, float], dict[str, float]] = {
    ("cora", 0.25): _cgcx(0.7, 0.3),
    ("cora", 0.5): _cgcx(10.0, 0.7),
    ("cora", 1.0): _cgcx(0.7, 0.3),
    ("citeseer", 0.25): _cgcx(0.1, 0.6),
    ("citeseer", 0.5): _cgcx(0.1, 0.8),
    ("citeseer", 1.0): _cgcx(10.0, 0.7),
    ("ogbn-arxiv", 0.001): _cgcx(0.3, 0.7),
    ("ogbn-arxiv", 0.005): _cgcx(0.3, 0.4),
    ("ogbn-arxiv", 0.01): _cgcx(10.0, 0.8),
    ("flickr", 0.001): _cgcx(0.1, 0.4),
    ("flickr", 0.005): _cgcx(0.08, 0.5),
    ("flickr", 0.01): _cgcx(0.005, 0.6),
    ("reddit", 0.0005): _cgcx(10.0, 0.8),
    ("reddit", 0.001): _cgcx(10.0, 0.2),
    ("reddit", 0.002): _cgcx(10.0, 0.2),
}
"""Settings of the authors' run scripts for CGC-X, by dataset and label ratio."""

ENTRIES = (
    Entry(
        "cgc",
        CGC,
        "partition of each class, averages by confidence, features in closed form",
        "Gao et al. 2025",
        ("nodes",),
        "seconds",
        official(CGC, OFFICIAL),
    ),
    Entry(
        "cgc-x",
        CGCX,
        "partition of each class, averages by confidence, without edges",
        "Gao et al. 2025",
        ("nodes",),
        "seconds",
        official(CGCX, OFFICIAL_X),
    ),
)
