"""How good predictions of several labels for each row are."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from jgd.losses.common import checked
from jgd.metrics.ranking import roc_auc

__all__ = ["micro_f1", "multilabel_auc"]


def _counted(labels, where):
    """Which entries count; a negative indicator is unknown."""
    rows = jnp.ones(labels.shape[0]) if where is None else jnp.asarray(where, jnp.float32)
    return jnp.where(labels >= 0, rows[:, None], 0.0)


@checked
def micro_f1(
    logits: Float[Array, "N T"], labels: Shaped[Array, "N T"], where: Shaped[Array, " N"] | None = None
) -> Float[Array, ""]:
    """``2 TP / (2 TP + FP + FN)`` over all entries; a label is predicted where its logit is positive.

    Args:
      logits: one for each label; the sigmoid gives its probability.
      labels: 1 where a row has the label, 0 where not, negative where it is unknown.
      where: weights or a mask of the rows; all count by default.

    Returns:
      A number in 0..1; 0 where nothing is predicted and nothing true, NaN where a logit that counts is NaN.
    """
    weights = _counted(labels, where)
    predicted, true = logits > 0, labels == 1
    hit = jnp.sum(weights * (predicted & true))
    both = jnp.sum(weights * predicted) + jnp.sum(weights * true)
    value = 2 * hit / jnp.where(both > 0, both, 1)
    return jnp.where(jnp.any((weights != 0) & jnp.isnan(logits)), jnp.nan, value)


@checked
def multilabel_auc(
    logits: Float[Array, "N T"], labels: Shaped[Array, "N T"], where: Shaped[Array, " N"] | None = None
) -> Float[Array, ""]:
    """The mean over labels of the ROC-AUC; labels that all or none of the rows have are left out.

    Args:
      logits: higher for what is more likely.
      labels: as in `micro_f1`.
      where: a mask of the rows; all count by default.

    Returns:
      A number in 0..1; NaN where every label is left out.
    """
    weights = _counted(labels, where)
    areas = jax.vmap(roc_auc, in_axes=1)(logits, labels == 1, weights != 0)
    there = (weights != 0).T
    true = jnp.sum(there & (labels == 1).T, 1)
    both = (true > 0) & (true < jnp.sum(there, 1))
    value = jnp.sum(jnp.where(both, areas, 0)) / jnp.maximum(jnp.sum(both), 1)
    return jnp.where(jnp.any(both), value, jnp.nan)
