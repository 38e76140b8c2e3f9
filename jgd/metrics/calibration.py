"""Calibration of predicted probabilities.

Every function takes logits; log-probabilities are logits too, so an averaged prediction ``p`` is passed as
``log p``. Examples of weight zero and examples with the label -1 (unknown) do not count; other labels outside
``0..C-1`` are refused. A result over no examples is 0; a NaN in a prediction that counts, or an impossible
label that is traced, gives NaN.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from jgd.losses import cross_entropy, mean
from jgd.losses.common import Count, checked, labelled, several, widened
from jgd.registry import Entry

__all__ = [
    "ReliabilityBins",
    "adaptive_calibration_error",
    "brier_score",
    "calibration_error",
    "classwise_calibration_error",
    "negative_log_likelihood",
    "reliability",
]


class ReliabilityBins(NamedTuple):
    """Examples by confidence, for a reliability diagram.

    Attributes:
      confidence: Mean confidence of each bin; 0 where it is empty.
      accuracy: Share of right predictions of each bin; 0 where it is empty.
      share: Share of the total weight in each bin; they add up to one.
    """

    confidence: Float[Array, " M"]
    accuracy: Float[Array, " M"]
    share: Float[Array, " M"]


def _counted(logits, labels, where):
    """Return flat logits in float32, labels, weights; rows without weight are zeros, impossible ones NaN."""
    several(logits, "calibration")
    classes = logits.shape[-1]
    weights = jnp.ones(labels.shape) if where is None else where.astype(float)
    known, wrong = labelled(labels, classes, weights != 0)
    labels = jnp.where(wrong, 0, labels)  # their logits, not their labels, make the result NaN
    weights, wrong = jnp.where(known | wrong, weights, 0).reshape(-1), wrong.reshape(-1)
    logits = widened(logits.reshape(-1, classes))
    logits = jnp.where(wrong[:, None], jnp.nan, jnp.where(weights[:, None] != 0, logits, 0))
    return logits, labels.reshape(-1), weights


def _equal_width(confidence, num_bins):
    """Return the bin of each confidence: bin ``m`` holds ``(m / M, (m + 1) / M]``, the first also 0."""
    return jnp.clip(jnp.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)


def _equal_mass(confidence, weights, num_bins):
    """Return bins of equal weight; equal confidences share one, so that order does not matter."""
    order = jnp.argsort(confidence)
    ranked = confidence[order]
    mass = jnp.concatenate([jnp.zeros(1), jnp.cumsum(weights[order])])
    below, to = (mass[jnp.searchsorted(ranked, confidence, side=side)] for side in ("left", "right"))
    total = jnp.where(mass[-1] == 0, 1, mass[-1])
    return jnp.clip(((below + to) / 2 / total * num_bins).astype(int), 0, num_bins - 1)


def _binned(confidence, hit, weights, bins, num_bins) -> ReliabilityBins:
    def total(values):
        return jax.ops.segment_sum(weights * values, bins, num_bins)

    mass = total(jnp.ones_like(confidence))
    safe = jnp.where(mass == 0, 1, mass)
    every = jnp.sum(mass)
    found = ReliabilityBins(
        total(confidence) / safe, total(hit) / safe, mass / jnp.where(every == 0, 1, every)
    )
    spoiled = jnp.any((weights != 0) & jnp.isnan(confidence))  # which belongs to no bin
    return jax.tree.map(lambda x: jnp.where(spoiled, jnp.nan, x), found)


def _gap(bins: ReliabilityBins) -> Array:
    return jnp.sum(bins.share * jnp.abs(bins.accuracy - bins.confidence))


def _top(logits, labels):
    """Return the confidence of the prediction, and whether it is right."""
    confidence = jnp.max(jax.nn.softmax(logits), -1)
    return confidence, (jnp.argmax(logits, -1) == labels).astype(confidence.dtype)


@checked
def reliability(
    logits: Float[Array, "*B C"],
    labels: Shaped[Array, "*B"],
    *,
    num_bins: Count = 15,
    where: Shaped[Array, "*B"] | None = None,
) -> ReliabilityBins:
    """Compute confidence, accuracy and weight of bins of equal width in the largest probability.

    Args:
      logits: Predictions.
      labels: Classes.
      num_bins: Number M of bins ``(m / M, (m + 1) / M]``.
      where: Weights or a mask of the examples; all count by default.

    Returns:
      `ReliabilityBins`.
    """
    logits, labels, weights = _counted(logits, labels, where)
    confidence, hit = _top(logits, labels)
    return _binned(confidence, hit, weights, _equal_width(confidence, num_bins), num_bins)


@checked
def calibration_error(
    logits: Float[Array, "*B C"],
    labels: Shaped[Array, "*B"],
    *,
    num_bins: Count = 15,
    where: Shaped[Array, "*B"] | None = None,
) -> Float[Array, ""]:
    """Compute the expected calibration error (ECE), ``sum_m share_m |accuracy_m - confidence_m|``.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017. With few examples it is biased
    upwards: compare on one test set, together with `negative_log_likelihood` and `brier_score`, which need no
    bins.

    Args:
      logits: Predictions.
      labels: Classes.
      num_bins: Number of bins of equal width.
      where: Weights or a mask of the examples; all count by default.

    Returns:
      A number in 0..1.
    """
    return _gap(reliability(logits, labels, num_bins=num_bins, where=where))


@checked
def adaptive_calibration_error(
    logits: Float[Array, "*B C"],
    labels: Shaped[Array, "*B"],
    *,
    num_bins: Count = 15,
    where: Shaped[Array, "*B"] | None = None,
) -> Float[Array, ""]:
    """Compute the calibration error with bins of equal weight, which adapt to the confidences.

    Nguyen and O'Connor, "Posterior calibration and exploratory analysis for natural language processing
    models", EMNLP 2015. Equal confidences share a bin.

    Args:
      logits: Predictions.
      labels: Classes.
      num_bins: Number of bins of equal weight.
      where: Weights or a mask of the examples; all count by default.

    Returns:
      A number in 0..1.
    """
    logits, labels, weights = _counted(logits, labels, where)
    confidence, hit = _top(logits, labels)
    return _gap(_binned(confidence, hit, weights, _equal_mass(confidence, weights, num_bins), num_bins))


@checked
def classwise_calibration_error(
    logits: Float[Array, "*B C"],
    labels: Shaped[Array, "*B"],
    *,
    num_bins: Count = 15,
    where: Shaped[Array, "*B"] | None = None,
) -> Float[Array, ""]:
    """Compute the mean over classes of the calibration error of the probability of each class.

    Kull et al., "Beyond temperature scaling", NeurIPS 2019.

    Args:
      logits: Predictions.
      labels: Classes.
      num_bins: Number of bins of equal width.
      where: Weights or a mask of the examples; all count by default.

    Returns:
      A number in 0..1.
    """
    logits, labels, weights = _counted(logits, labels, where)

    def of_class(c, p):
        hit = (labels == c).astype(p.dtype)
        return _gap(_binned(p, hit, weights, _equal_width(p, num_bins), num_bins))

    return jnp.mean(jax.vmap(of_class)(jnp.arange(logits.shape[1]), jax.nn.softmax(logits).T))


@checked
def negative_log_likelihood(
    logits: Float[Array, "*B C"], labels: Shaped[Array, "*B"], where: Shaped[Array, "*B"] | None = None
) -> Float[Array, ""]:
    """Compute the mean of ``-log p_y`` in nats: lower is better, and only the true probabilities are best.

    Args:
      logits: Predictions.
      labels: Classes.
      where: Weights or a mask of the examples; all count by default.

    Returns:
      A number from 0 on.
    """
    logits, labels, weights = _counted(logits, labels, where)
    return mean(cross_entropy(logits, labels), weights)


@checked
def brier_score(
    logits: Float[Array, "*B C"], labels: Shaped[Array, "*B"], where: Shaped[Array, "*B"] | None = None
) -> Float[Array, ""]:
    """Compute the mean of ``sum_c (p_c - [y = c])^2`` (Brier, 1950): 0 is perfect, 2 the worst.

    Args:
      logits: Predictions.
      labels: Classes.
      where: Weights or a mask of the examples; all count by default.

    Returns:
      A number in 0..2.
    """
    logits, labels, weights = _counted(logits, labels, where)
    truth = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return mean(jnp.sum((jax.nn.softmax(logits) - truth) ** 2, -1), weights)


ENTRIES = (
    Entry("reliability", reliability, "Confidence, accuracy and weight by bins of confidence."),
    Entry(
        "calibration-error",
        calibration_error,
        "Gap of confidence and accuracy, in bins of equal width.",
        paper="Guo et al. 2017",
    ),
    Entry(
        "adaptive-calibration-error",
        adaptive_calibration_error,
        "Gap of confidence and accuracy, in bins of equal weight.",
        paper="Nguyen & O'Connor 2015",
    ),
    Entry(
        "classwise-calibration-error",
        classwise_calibration_error,
        "Calibration error of every class, averaged.",
        paper="Kull et al. 2019",
    ),
    Entry("negative-log-likelihood", negative_log_likelihood, "Mean of -log p of the label."),
    Entry(
        "brier-score", brier_score, "Squared distance of probabilities from the label.", paper="Brier 1950"
    ),
)
