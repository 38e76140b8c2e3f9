"""Metrics of predictions of several labels for each row."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from jgd.losses.common import checked
from jgd.metrics.ranking import roc_auc
from jgd.registry import Entry

__all__ = ["micro_f1", "multilabel_auc"]


def _counted(labels, where):
    """Return the weight of each entry; a negative indicator is unknown."""
    rows = jnp.ones(labels.shape[0]) if where is None else jnp.asarray(where, jnp.float32)
    return jnp.where(labels >= 0, rows[:, None], 0.0)


@checked
def micro_f1(
    logits: Float[Array, "N T"], labels: Shaped[Array, "N T"], where: Shaped[Array, " N"] | None = None
) -> Float[Array, ""]:
    """Compute ``2 TP / (2 TP + FP + FN)`` over all entries; a label is predicted where its logit is positive.

    Args:
      logits: One logit for each label, whose sigmoid is its probability.
      labels: Indicators: 1 where a row has the label, 0 where not, negative where it is unknown.
      where: Weights or a mask of the rows; all count by default.

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
    """Compute the mean over labels of the ROC-AUC, without the labels that all or none of the rows have.

    Args:
      logits: Scores, higher for more likely labels.
      labels: Labels as in `micro_f1`.
      where: Mask of the rows; all count by default.

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


ENTRIES = (
    Entry("micro-f1", micro_f1, "F1 score over all entries of several labels."),
    Entry("multilabel-auc", multilabel_auc, "Area under the ROC curve, averaged over labels."),
)
