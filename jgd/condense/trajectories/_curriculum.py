"""Training that sees easy examples first, and how easy a node is (GEOM)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
import optax
import scipy.sparse as sp
from jaxtyping import Array, Bool, Float, Int

from jgd.condense.trajectories._expert import expert_loss
from jgd.core import Algorithm, Examples, Model, objective, train

__all__ = ["Pace", "RankedExamples", "curriculum", "difficulty", "pace", "ranks"]

Pace = Literal["linear", "root", "geom"]


class RankedExamples(NamedTuple):
    """Data of a curriculum.

    Attributes:
      examples: All examples; what weighs zero is never trained on.
      rank: Rank of each example, 0 for the easiest.
    """

    examples: Examples
    rank: Int[Array, " N"]


def curriculum(
    model: Model, tx: optax.GradientTransformation, fraction: Callable[[Array], Array]
) -> Algorithm:
    """Return training on the easiest share ``fraction(t)`` of `RankedExamples` in step ``t``.

    Args:
      model: The network.
      tx: Optimiser.
      fraction: Share of the examples in a step, see `pace`.
    """

    def prepare(key, t, data, batch):
        del key, batch
        examples = data.examples
        weights = (examples.weights != 0).astype(jnp.float32)
        # The small number is for shares that are whole but for rounding.
        due = jnp.maximum(jnp.floor(fraction(t) * jnp.sum(weights) + 1e-3), 1)
        examples = examples._replace(weights=examples.weights * (data.rank < due))
        return examples, {"model": examples.inputs}

    return train(model, objective(expert_loss), tx, prepare=prepare)


def pace(kind: Pace, first: float, length: int) -> Callable[[Array], Array]:
    """Return the share of examples in step ``t``, rising from ``first`` to one in ``length`` steps.

    With λ = first: ``"linear"`` λ + (1-λ) t/T, ``"root"`` √(λ² + (1-λ²) t/T), ``"geom"`` 2^(log₂λ (1 - t/T)).

    Args:
      kind: Course of the share.
      first: First share ``λ``.
      length: Steps ``T`` until the share is one.
    """
    if kind not in get_args(Pace):
        raise ValueError(f"pace must be one of {', '.join(get_args(Pace))}, got {kind!r}")
    if not 0 < first <= 1:
        raise ValueError(f"the first share must be in (0, 1], got {first}")
    if length < 1:
        raise ValueError(f"the length must be at least 1, got {length}")

    def fraction(t):
        done = jnp.minimum(t / length, 1.0)
        if kind == "linear":
            return first + (1 - first) * done
        if kind == "root":
            return jnp.sqrt(first**2 + (1 - first**2) * done)
        return 2 ** (math.log2(first) * (1 - done))

    return fraction


def difficulty(
    adjacency: sp.csr_array, labels: Int[np.ndarray, " N"], known: Bool[np.ndarray, " N"]
) -> Float[np.ndarray, " N"]:
    """Return how mixed a node's surroundings are: the entropy of the labels there, in nats.

    Args:
      adjacency: Matrix whose nonzeros are edges.
      labels: Classes of all nodes; those of a node and of its neighbours are counted.
      known: Nodes whose labels may be read; a node that sees none has entropy zero.
    """
    edges: Any = adjacency != 0
    edges = edges.astype(np.float64) + sp.eye_array(len(labels))
    edges.data[:] = 1  # a node counts itself once, whether or not it has a loop
    seen = np.zeros((len(labels), int(labels.max()) + 1))
    index = np.flatnonzero(known & (labels >= 0))
    seen[index, labels[index]] = 1
    counts = edges @ seen
    total = counts.sum(axis=1, keepdims=True)
    p = counts / np.where(total > 0, total, 1)
    return -np.sum(p * np.log(np.where(p > 0, p, 1)), axis=1)


def ranks(
    values: Float[np.ndarray, " N"], mask: Bool[np.ndarray, " N"], seed: int = 0
) -> Int[np.ndarray, " N"]:
    """Return the rank of each node in ``mask`` by its value, 0 for the lowest; others come after all of them.

    Equal values are put in random order, so that no class is favoured by its node numbers.

    Args:
      values: Value of each node.
      mask: Nodes that are ranked.
      seed: Random seed of the order of equal values.
    """
    shuffled = np.random.default_rng(seed).permutation(np.flatnonzero(mask))
    order = shuffled[np.argsort(values[shuffled], kind="stable")]
    rank = np.full(len(values), len(values), np.int32)
    rank[order] = np.arange(len(order))
    return rank
