"""Metrics of a ranking: the area under the ROC curve."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from jgd.losses.common import checked, labelled, several
from jgd.registry import Entry

__all__ = ["one_vs_rest_auc", "roc_auc"]


@checked
def roc_auc(
    scores: Float[Array, " B"], positive: Shaped[Array, " B"], where: Shaped[Array, " B"] | None = None
) -> Float[Array, ""]:
    """Compute the probability that a positive example scores higher than a negative one; ties count half.

    Exact (Mann and Whitney's statistic) and jittable, in ``B log B``.

    Args:
      scores: Scores, higher for examples that are more likely positive.
      positive: Positive examples (above zero or true); a number below zero is unknown and left out.
      where: Mask of the examples that count (nonzero or true); all by default.

    Returns:
      A number in 0..1; NaN if one of the two kinds is missing or a score that counts is NaN.
    """
    there = (jnp.ones(scores.shape, bool) if where is None else where != 0) & (positive >= 0)
    up, down = there & (positive != 0), there & (positive == 0)
    positives, negatives = jnp.sum(up), jnp.sum(down)
    rivals = jnp.sort(jnp.where(down, scores, jnp.inf))  # the others at the end
    below, to = (
        jnp.minimum(jnp.searchsorted(rivals, scores, side=side), negatives) for side in ("left", "right")
    )
    share = (below + to) / (2 * jnp.maximum(negatives, 1))
    area = jnp.sum(jnp.where(up, share, 0)) / jnp.maximum(positives, 1)
    unknown = (positives == 0) | (negatives == 0) | jnp.any(there & jnp.isnan(scores))
    return jnp.where(unknown, jnp.nan, area)


@checked
def one_vs_rest_auc(
    logits: Float[Array, "B C"], labels: Shaped[Array, " B"], where: Shaped[Array, " B"] | None = None
) -> Float[Array, ""]:
    """Compute the mean over classes of the ROC-AUC of each class against the others.

    With two classes it is the ROC-AUC of the probability of class 1. Classes that are all or none of the
    examples are left out.

    Args:
      logits: Unnormalised log-probabilities.
      labels: Classes; examples with the label -1 (unknown) do not count.
      where: Mask of the examples that count; all by default.

    Returns:
      A number in 0..1; NaN where fewer than two classes occur, a logit that counts is NaN or a traced label
      is impossible.
    """
    several(logits, "one_vs_rest_auc")
    there = jnp.ones(labels.shape, bool) if where is None else where != 0
    known, wrong = labelled(labels, logits.shape[1], there)
    where = known | wrong
    logits = jnp.where(wrong[:, None], jnp.nan, logits)
    if logits.shape[1] == 2:
        return roc_auc(logits[:, 1] - logits[:, 0], labels == 1, where)
    p = jax.nn.log_softmax(logits)
    classes = jnp.arange(logits.shape[1])
    areas = jax.vmap(lambda c, s: roc_auc(s, labels == c, where))(classes, p.T)
    number = jnp.sum(where)
    counts = jax.vmap(lambda c: jnp.sum(where & (labels == c)))(classes)
    both = (counts > 0) & (counts < number)
    mean = jnp.sum(jnp.where(both, areas, 0)) / jnp.maximum(jnp.sum(both), 1)
    spoiled = jnp.any(where[:, None] & jnp.isnan(logits))
    return jnp.where(jnp.any(both) & ~spoiled, mean, jnp.nan)


ENTRIES = (
    Entry("roc-auc", roc_auc, "Probability that a positive example scores above a negative one."),
    Entry(
        "one-vs-rest-auc",
        one_vs_rest_auc,
        "Area under the ROC curve of each class against the others, averaged.",
    ),
)
