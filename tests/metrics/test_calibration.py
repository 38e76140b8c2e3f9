"""Calibration: known cases and properties."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jgd import metrics
from jgd.metrics import ReliabilityBins

close = np.testing.assert_allclose


def on_device(metric):
    """The metric of NumPy arrays."""

    def call(logits, labels, *, where=None, **settings):
        where = None if where is None else jnp.asarray(where)
        return metric(jnp.asarray(logits), jnp.asarray(labels), where=where, **settings)

    return call


calibration_error = on_device(metrics.calibration_error)
adaptive_calibration_error = on_device(metrics.adaptive_calibration_error)
classwise_calibration_error = on_device(metrics.classwise_calibration_error)
negative_log_likelihood = on_device(metrics.negative_log_likelihood)
brier_score = on_device(metrics.brier_score)
reliability = on_device(metrics.reliability)
METRICS = (
    calibration_error,
    adaptive_calibration_error,
    classwise_calibration_error,
    negative_log_likelihood,
    brier_score,
)
NAMES = (
    "calibration_error",
    "adaptive_calibration_error",
    "classwise_calibration_error",
    "negative_log_likelihood",
    "brier_score",
)
LOGITS = 3 * np.sin(np.arange(240.0) ** 2).reshape(60, 4).astype(np.float32)
LABELS = np.arange(60) ** 2 // 7 % 4


def softmax(logits):
    p = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def test_equal_mass_bins_hold_equally_many():
    """Without ties the bins are the sorted confidences cut into equal parts."""
    p = softmax(LOGITS)
    top, hit = p.max(1), p.argmax(1) == LABELS
    order = np.argsort(top)
    parts = np.array_split(order, 15)
    expected = sum(abs(hit[i].mean() - top[i].mean()) * len(i) for i in parts) / 60
    close(adaptive_calibration_error(LOGITS, LABELS), expected, atol=1e-6)


@pytest.mark.long
def test_confidence_that_is_right_that_often():
    """Confidence 0.8, right in 80 of 100; certain, right with rate a."""
    p = np.full((100, 3), 0.1, np.float32)
    p[:, 1] = 0.8
    labels = np.where(np.arange(100) < 80, 1, 2)
    sure = np.zeros((100, 3), np.float32)
    sure[:, 1] = 1e4
    for error in (calibration_error, adaptive_calibration_error):
        close(error(np.log(p), labels), 0, atol=1e-6)
        close(error(sure, labels), 0.2, rtol=1e-6)
    close(brier_score(sure, labels), 0.2 * 2, rtol=1e-6)
    close(negative_log_likelihood(sure, labels), 2000, rtol=1e-6)


@pytest.mark.long
def test_predictions_drawn_from_themselves_are_calibrated():
    """Labels drawn from the prediction: the error is that of sampling; sharpened predictions are worse."""
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(20_000, 5)).astype(np.float32) * 2
    labels = (softmax(logits).cumsum(1) > rng.random((20_000, 1))).argmax(1)
    for error in (calibration_error, adaptive_calibration_error):
        assert error(logits, labels) < 0.02
        assert error(3 * logits, labels) > 0.1
    for score in (negative_log_likelihood, brier_score):
        assert score(logits, labels) < min(score(0.7 * logits, labels), score(1.4 * logits, labels))


@pytest.mark.long
def test_reliability():
    bins: ReliabilityBins = reliability(
        np.log(np.array([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7]], np.float32)), np.array([0, 1, 1]), num_bins=4
    )
    close(bins.share, [0, 0, 1 / 3, 2 / 3], rtol=1e-6)
    close(bins.confidence, [0, 0, 0.7, 0.9], rtol=1e-5)
    close(bins.accuracy, [0, 0, 1, 0.5], rtol=1e-6)
    edge = reliability(
        np.zeros((1, 2), np.float32), np.array([0]), num_bins=2
    )  # 0.5 belongs to the lower bin
    close(edge.share, [1, 0])


@pytest.mark.long
@settings(max_examples=20, deadline=None)
@given(st.permutations(range(12)), st.integers(1, 4))
def test_order_does_not_matter(order, ties):
    logits, labels = LOGITS[np.arange(12) // ties], LABELS[:12]
    order = np.asarray(order)
    for metric in METRICS:
        close(metric(logits[order], labels[order]), metric(logits, labels), atol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("metric", METRICS, ids=NAMES)
def test_masks_weights_and_shapes(metric):
    value = metric(LOGITS[:40], LABELS[:40])
    padded = LOGITS.copy()
    padded[40:] = np.nan
    close(metric(padded, LABELS, where=np.arange(60) < 40), value, rtol=1e-5)
    close(metric(LOGITS, np.where(np.arange(60) < 40, LABELS, -1)), value, rtol=1e-5)
    twice = np.repeat(np.arange(40), np.arange(40) % 3)
    close(
        metric(LOGITS[:40], LABELS[:40], where=np.arange(40) % 3),
        metric(LOGITS[twice], LABELS[twice]),
        rtol=1e-5,
    )
    close(metric(LOGITS[:40].reshape(5, 8, 4), LABELS[:40].reshape(5, 8)), value, rtol=1e-5)
    assert metric(LOGITS, LABELS, where=np.zeros(60)) == 0
    assert np.isnan(metric(padded, LABELS))
    assert metric(jnp.asarray(LOGITS, jnp.bfloat16), LABELS).dtype == jnp.float32
    assert np.isfinite(metric(LOGITS * 1e4, LABELS))
