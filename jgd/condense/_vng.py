r"""VNG: virtual nodes that send the messages that the training nodes would send.

Si et al., "Serving graph compression for graph neural networks", ICLR 2023.

The one idea: replace the training nodes by the weighted means of clusters of their embeddings, and choose the
weights between those virtual nodes so that a trained network computes on them what it computed before.

With a GCN trained on the task with ``Â``, and ``Z`` the outputs of all its layers side by side:

1. cluster     k-means of the rows Z_i of training nodes, weighted by w_i, the column sums of Â among the
               training nodes (what node i sends);  E_ki = w_i / Σ_{j in k} w_j for i in cluster k
2. average     X' = E X,  y'_k the majority of the labels in cluster k
3. propagate   A' = argmin |A' (E Z) - E (Â Z)|_F = (E Â Z)(E Z)^+

Clusters are not made for each class, so a class may have no virtual node and A' may be negative and not
symmetric; it is a propagation matrix, to be used as it is by networks that ask for the normalised adjacency.

Departures from the code of the condensation benchmark (the authors published none). There, Â in steps 1 and 3
is the bare adjacency between training nodes, which the evaluator normalises after; a few labelled nodes of a
large graph have hardly any edges among them, and A' is mostly noise. Here Â is the normalised adjacency that
the network was trained with, and Â Z is what training nodes receive from all nodes that may be seen
(``messages="train"`` restricts it to those from training nodes).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from jgd.condense.common import (
    check_settings,
    condensed_nodes,
    condenser,
    dense_features,
    normalize_adjacency,
    official,
    size_of,
    training_part,
)
from jgd.condense.coresets import fitted_gcn
from jgd.core import Loop, in_memory
from jgd.data import Condensed, NodeTask
from jgd.graph import adjacency
from jgd.registry import Entry

__all__ = ["VNG", "layer_outputs", "virtual_propagation", "weighted_kmeans"]

Messages = Literal["all", "train"]


def weighted_kmeans(
    x: Float[np.ndarray, "n d"],
    k: int,
    weights: Float[np.ndarray, " n"] | None = None,
    *,
    seed: int = 0,
    restarts: int = 4,
) -> Int[np.ndarray, " n"]:
    """Run k-means on weighted points (host side) and return the cluster of each, none of them empty.

    Args:
      x: Points.
      k: Number of clusters, in ``1..n``.
      weights: Weights of the points in the sum of squares, positive; ones by default.
      seed: Seed of the random starts.
      restarts: Number of random starts, of which the best counts.

    Raises:
      ValueError: For more clusters than points.
    """
    if not 1 <= k <= len(x):
        raise ValueError(f"k must be between 1 and {len(x)} for {len(x)} points, got {k}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # points that coincide: handled below
        run: Any = KMeans(k, n_init=restarts, random_state=seed)  # pyright: ignore - its types know no numbers
        found = run.fit(x, sample_weight=weights)
    labels = found.labels_.astype(np.int64)
    distances = np.linalg.norm(x - found.cluster_centers_[labels], axis=1)
    for empty in np.setdiff1d(np.arange(k), labels):  # takes the farthest point of a cluster with several
        point = np.argmax(np.where(np.bincount(labels, minlength=k)[labels] > 1, distances, -1.0))
        labels[point], distances[point] = empty, 0.0
    return labels


def virtual_propagation(
    z: Float[np.ndarray, "k d"], received: Float[np.ndarray, "k d"]
) -> Float[np.ndarray, "k k"]:
    """Return the ``A'`` of least norm among those that minimise ``|A' Z - received|_F`` (step 3)."""
    return np.linalg.lstsq(z.T, received.T, rcond=1e-6)[0].T


def layer_outputs(
    key: Array, task: NodeTask, loop: Loop = in_memory, *, hidden: int = 256, epochs: int = 600
) -> Float[np.ndarray, "N d"]:
    """Return outputs of both layers of a GCN trained on what a condenser may see, side by side."""
    gcn, inputs = fitted_gcn(key, task, loop, hidden=hidden, epochs=epochs)

    def both(net, x):
        outputs = net(*x)
        return jnp.concatenate([outputs.embedding, outputs.logits], axis=1)

    return np.asarray(jax.jit(both)(gcn, inputs))


@dataclass(frozen=True)
class VNG:
    """Virtual nodes with a propagation matrix in closed form.

    Attributes:
      label_ratio: Condensed nodes for each labelled node.
      nodes: Number of condensed nodes, instead of the ratio.
      hidden: Width of the GCN.
      epochs: Training steps of the GCN.
      restarts: Random starts of k-means.
      messages: A' imitates what training nodes receive from ``"all"`` nodes, or from ``"train"`` only.
    """

    label_ratio: float | None = 0.5
    nodes: int | None = None
    hidden: int = 256
    epochs: int = 600
    restarts: int = 4
    messages: Messages = "all"

    def __post_init__(self):
        """Refuse impossible settings."""
        check_settings(self, at_least_one=("hidden", "epochs", "restarts"))

    @condenser
    def __call__(self, key: Array, task: NodeTask, loop: Loop = in_memory) -> Condensed:
        """Condense a task."""
        size = size_of(task, self.label_ratio, self.nodes)
        k_net, k_cluster = jax.random.split(key)
        part = training_part(task)
        z = layer_outputs(k_net, task, loop, hidden=self.hidden, epochs=self.epochs).astype(np.float64)
        index = np.flatnonzero(np.asarray(part.train))
        a_hat: Any = normalize_adjacency(adjacency(part.graph))
        among = a_hat[index][:, index]
        weights = np.asarray(among.sum(axis=0), np.float64).ravel()
        seed = int(jax.random.randint(k_cluster, (), 0, 2**31 - 1))
        assign = weighted_kmeans(z[index], size, weights, seed=seed, restarts=self.restarts)

        share = np.zeros((size, len(index)))
        share[assign, np.arange(len(index))] = weights
        share /= share.sum(axis=1, keepdims=True)
        received = a_hat[index] @ z if self.messages == "all" else among @ z[index]
        votes = np.zeros((size, task.num_classes))
        np.add.at(votes, (assign, np.asarray(part.labels)[index]), 1)
        full = np.full(task.num_nodes, -1, np.int32)
        full[np.flatnonzero(np.asarray(task.train))] = assign
        return condensed_nodes(
            self,
            key,
            task,
            features=share @ dense_features(part)[index],
            labels=votes.argmax(axis=1),
            edges=virtual_propagation(share @ z[index], share @ received),
            adjacency="normalized",
            extras={"assign": full},
        )


ENTRIES = (
    Entry(
        "vng",
        VNG,
        "weighted clusters of GCN outputs, propagation in closed form",
        "Si et al. 2023",
        ("nodes",),
        "seconds",
        official(VNG),
    ),
)
