"""Accuracy."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from jgd.losses import mean
from jgd.losses.common import checked, labelled, several
from jgd.registry import Entry

__all__ = ["accuracy"]


@checked
def accuracy(
    logits: Float[Array, "*B C"], labels: Shaped[Array, "*B"], where: Shaped[Array, "*B"] | None = None
) -> Float[Array, ""]:
    """Compute the share of examples whose largest logit is the label.

    Args:
      logits: Predictions.
      labels: Classes; examples with the label -1 (unknown) do not count.
      where: Weights or a mask of the examples; all count by default.

    Returns:
      A number in 0..1; 0 where no example counts, NaN where a logit that counts is NaN or a traced label is
      impossible.
    """
    several(logits, "accuracy")
    weights = jnp.ones(labels.shape) if where is None else where
    known, wrong = labelled(labels, logits.shape[-1], weights != 0)
    right = (jnp.argmax(logits, -1) == labels).astype(float)  # bfloat16 cannot count
    right = jnp.where(wrong | jnp.any(jnp.isnan(logits), axis=-1), jnp.nan, right)
    return mean(right, jnp.where(known | wrong, weights, 0))


ENTRIES = (Entry("accuracy", accuracy, "Share of examples whose largest logit is the label."),)
