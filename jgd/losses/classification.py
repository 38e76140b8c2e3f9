"""Losses of classifiers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

__all__ = ["cross_entropy", "mean"]


def cross_entropy(logits: Float[Array, "*B C"], targets: Shaped[Array, "*B ..."]) -> Float[Array, "*B"]:
    """Cross-entropy of each example.

    Args:
      logits: unnormalised log-probabilities.
      targets: integer classes ``[*B]`` or probabilities ``[*B, C]``; an integer outside ``0..C-1`` (an
        unknown label) gives zero.

    Returns:
      One loss for each example.
    """
    log_p = jax.nn.log_softmax(logits)
    if targets.ndim < logits.ndim:
        targets = jax.nn.one_hot(targets, logits.shape[-1], dtype=log_p.dtype)
    return -jnp.sum(targets * log_p, axis=-1)


def mean(values: Float[Array, "*B"], weights: Shaped[Array, "*B"] | None = None) -> Float[Array, ""]:
    """The weighted mean; zero where all weights are zero."""
    if weights is None:
        return jnp.mean(values)
    weights = weights.astype(values.dtype)
    total = jnp.sum(weights)
    return jnp.sum(weights * jnp.where(weights != 0, values, 0)) / jnp.where(total == 0, 1, total)
