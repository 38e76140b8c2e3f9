"""Errors of predicted numbers."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from jgd.losses import mean
from jgd.losses.common import checked, widened
from jgd.registry import Entry

__all__ = ["mean_absolute_error", "mean_squared_error", "r2_score"]

Numbers = Shaped[Array, " N"] | Shaped[Array, "N D"]


def _gaps(name, predictions, targets, where) -> tuple[Array, Array, Array]:
    """Return differences, targets ``[N, D]`` and weights ``[N, D]``; numbers that do not count are zeros."""
    predictions, targets = widened(predictions), widened(targets)
    shapes = predictions.shape, targets.shape
    predictions, targets = (x[:, None] if x.ndim == 1 else x for x in (predictions, targets))
    if predictions.shape != targets.shape:
        raise ValueError(f"{name}: predictions of shape {shapes[0]} and targets of shape {shapes[1]} differ")
    weights = jnp.ones(len(targets)) if where is None else jnp.asarray(where, jnp.float32)
    weights = jnp.where(jnp.isnan(targets), 0.0, weights[:, None])
    gaps = jnp.where(weights != 0, predictions - targets, 0)
    return gaps, jnp.where(weights != 0, targets, 0), weights


@checked
def mean_squared_error(
    predictions: Numbers,
    targets: Numbers,
    where: Shaped[Array, " N"] | None = None,
) -> Float[Array, ""]:
    """Compute the mean of ``(prediction - target)²`` over all rows and columns.

    Args:
      predictions: Predicted numbers ``[N]``, ``[N, 1]`` or ``[N, D]``.
      targets: True numbers ``[N]`` or ``[N, D]``; NaN is unknown and does not count.
      where: Weights or a mask of the rows; all count by default.

    Returns:
      A number from 0 on; 0 where nothing counts.
    """
    gaps, _, weights = _gaps("mean_squared_error", predictions, targets, where)
    return mean(gaps**2, weights)


@checked
def mean_absolute_error(
    predictions: Numbers,
    targets: Numbers,
    where: Shaped[Array, " N"] | None = None,
) -> Float[Array, ""]:
    """Compute the mean of ``|prediction - target|``; arguments as in `mean_squared_error`."""
    gaps, _, weights = _gaps("mean_absolute_error", predictions, targets, where)
    return mean(jnp.abs(gaps), weights)


@checked
def r2_score(
    predictions: Numbers,
    targets: Numbers,
    where: Shaped[Array, " N"] | None = None,
) -> Float[Array, ""]:
    """Compute the share of the targets' variance that is explained, ``1 - Σ (p - t)² / Σ (t - mean t)²``.

    The mean over columns; arguments as in `mean_squared_error`.

    Returns:
      At most 1; 0 for the mean of the targets; NaN where all targets of a column are equal.
    """
    gaps, targets, weights = _gaps("r2_score", predictions, targets, where)
    centre = jnp.sum(weights * targets, 0) / jnp.sum(weights, 0)
    spread = jnp.sum(weights * (targets - centre) ** 2, 0)
    unexplained = jnp.sum(weights * gaps**2, 0)
    return jnp.mean(jnp.where(spread > 0, 1 - unexplained / jnp.where(spread > 0, spread, 1), jnp.nan))


ENTRIES = (
    Entry("mean-squared-error", mean_squared_error, "Mean of squared differences."),
    Entry("mean-absolute-error", mean_absolute_error, "Mean of absolute differences."),
    Entry("r2-score", r2_score, "Share of the variance that predictions explain."),
)
