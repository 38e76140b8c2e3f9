"""Losses of classifiers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Shaped

from jgd.losses.common import checked, labelled, per_example, several, widened

__all__ = ["cross_entropy", "mean"]


@checked
def cross_entropy(
    logits: Float[Array, "*B C"], targets: Shaped[Array, "*B"] | Float[Array, "*B C"]
) -> Float[Array, "*B"]:
    """Compute the cross-entropy of each example.

    Args:
      logits: Unnormalised log-probabilities.
      targets: Classes ``[*B]`` (or a column of them) or probabilities ``[*B, C]``; the class -1, an unknown
        label, gives zero.

    Returns:
      One loss for each example, in float32 at least; NaN where a traced class is impossible.

    Raises:
      ValueError: Shapes that do not fit, fewer than two classes, a class outside ``-1..C-1``, or real
        targets that are not probabilities.
    """
    several(logits, "cross_entropy")
    log_p, wrong = jax.nn.log_softmax(widened(logits)), None
    if targets.ndim < logits.ndim:
        _, wrong = labelled(targets, logits.shape[-1], name="targets")
        targets = jax.nn.one_hot(targets, logits.shape[-1], dtype=log_p.dtype)
    else:
        _probabilities(targets)
    return per_example(-jnp.sum(targets * log_p, axis=-1), wrong=wrong)


def _probabilities(targets: Array) -> None:
    """Refuse real targets that are not probabilities, such as the labels of a binary classifier."""
    if isinstance(targets, Tracer):
        return
    numbers = np.asarray(targets, np.float32)
    if numbers.size and not (numbers.min() > -1e-3 and numbers.sum(-1).max() < 1.01):
        raise ValueError(
            f"cross_entropy: targets of shape {tuple(targets.shape)} must be probabilities, got numbers from "
            f"{numbers.min():.4g} on that add up to {numbers.sum(-1).max():.4g}: classes are integers"
        )


@checked
def mean(values: Shaped[Array, "*B"], weights: Shaped[Array, "*B"] | None = None) -> Float[Array, ""]:
    """Compute the weighted mean, in float32 at least; zero if all weights are zero or there are no values."""
    values = widened(values)
    if weights is None:
        return jnp.mean(values) if values.size else jnp.zeros((), values.dtype)
    weights = weights.astype(values.dtype)
    total = jnp.sum(weights)
    return jnp.sum(weights * jnp.where(weights != 0, values, 0)) / jnp.where(total == 0, 1, total)
