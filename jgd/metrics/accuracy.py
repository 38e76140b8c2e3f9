"""Accuracy."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from jgd.losses.classification import mean

__all__ = ["accuracy"]


def accuracy(
    logits: Float[Array, "*B C"], labels: Int[Array, "*B"], where: Shaped[Array, "*B"] | None = None
) -> Float[Array, ""]:
    """The share of examples whose largest logit is the label, among those in ``where``; 0 if none are."""
    right = (jnp.argmax(logits, -1) == labels).astype(float)  # bfloat16 cannot count
    return mean(right, where)
