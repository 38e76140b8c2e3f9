"""How far predicted numbers are from the true ones."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from jgd.losses.classification import mean

__all__ = ["mean_absolute_error", "mean_squared_error", "r2_score"]

Numbers = Shaped[Array, "N ..."]


def _gaps(predictions, targets, where) -> tuple[Array, Array, Array]:
    """Differences, targets ``[N, D]`` and weights ``[N, D]``; numbers that do not count are zeros."""
    predictions, targets = (
        jnp.asarray(x, jnp.promote_types(jnp.result_type(x), jnp.float32)) for x in (predictions, targets)
    )
    if predictions.ndim == targets.ndim + 1 and predictions.shape[-1] == 1:
        predictions = predictions[..., 0]
    if predictions.shape != targets.shape:
        raise ValueError(
            f"predictions {list(predictions.shape)} and targets {list(targets.shape)} must be alike"
        )
    rows = targets.shape[0] if targets.ndim else 1
    targets, predictions = targets.reshape(rows, -1), predictions.reshape(rows, -1)
    weights = jnp.ones(rows) if where is None else jnp.asarray(where, jnp.float32)
    weights = jnp.where(jnp.isnan(targets), 0.0, weights[:, None])
    gaps = jnp.where(weights != 0, predictions - targets, 0)
    return gaps, jnp.where(weights != 0, targets, 0), weights


def mean_squared_error(
    predictions: Shaped[Array, "N ..."],
    targets: Shaped[Array, "N ..."],
    where: Shaped[Array, " N"] | None = None,
) -> Float[Array, ""]:
    """The mean of ``(prediction - target)²`` over all rows and columns.

    Args:
      predictions: ``[N]``, ``[N, 1]`` or ``[N, D]``.
      targets: ``[N]`` or ``[N, D]``; NaN is unknown and does not count.
      where: weights or a mask of the rows; all count by default.

    Returns:
      A number from 0 on; 0 where nothing counts.
    """
    gaps, _, weights = _gaps(predictions, targets, where)
    return mean(gaps**2, weights)


def mean_absolute_error(
    predictions: Shaped[Array, "N ..."],
    targets: Shaped[Array, "N ..."],
    where: Shaped[Array, " N"] | None = None,
) -> Float[Array, ""]:
    """The mean of ``|prediction - target|``; arguments as in `mean_squared_error`."""
    gaps, _, weights = _gaps(predictions, targets, where)
    return mean(jnp.abs(gaps), weights)


def r2_score(
    predictions: Shaped[Array, "N ..."],
    targets: Shaped[Array, "N ..."],
    where: Shaped[Array, " N"] | None = None,
) -> Float[Array, ""]:
    """The share of the targets' variance that is explained, ``1 - Σ (p - t)² / Σ (t - mean t)²``.

    The mean over columns; arguments as in `mean_squared_error`.

    Returns:
      At most 1; 0 for the mean of the targets; NaN where all targets of a column are equal.
    """
    gaps, targets, weights = _gaps(predictions, targets, where)
    centre = jnp.sum(weights * targets, 0) / jnp.sum(weights, 0)
    spread = jnp.sum(weights * (targets - centre) ** 2, 0)
    unexplained = jnp.sum(weights * gaps**2, 0)
    return jnp.mean(jnp.where(spread > 0, 1 - unexplained / jnp.where(spread > 0, spread, 1), jnp.nan))
