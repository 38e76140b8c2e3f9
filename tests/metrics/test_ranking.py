"""The area under the ROC curve against scikit-learn and by counting pairs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from jgd.metrics import accuracy, one_vs_rest_auc, roc_auc

close = np.testing.assert_allclose
jitted = jax.jit(roc_auc)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_pairs(seed, levels):
    """The share of pairs in the right order, ties counting half, among the examples that count."""
    rng = np.random.default_rng(seed)
    scores, positive = rng.integers(-levels, levels, 12).astype(np.float32), rng.random(12) < 0.4
    where = rng.random(12) < 0.7
    up, down = scores[positive & where], scores[~positive & where]
    found = float(jitted(jnp.asarray(scores), jnp.asarray(positive), jnp.asarray(where)))
    if len(up) * len(down) == 0:
        assert np.isnan(found)
        return
    order = (up[:, None] > down).mean() + 0.5 * (up[:, None] == down).mean()
    close(found, order, atol=1e-6)
    close(found, roc_auc_score(positive[where], scores[where]), atol=1e-6)


def test_values():
    scores, labels = jnp.asarray([0.1, 0.4, 0.35, 0.8]), jnp.asarray([0, 0, 1, 1])
    assert float(roc_auc(scores, labels)) == 0.75
    assert float(roc_auc(-scores, labels)) == 0.25
    assert float(roc_auc(scores, labels, jnp.asarray([1.0, 0.0, 2.0, 1.0]))) == 1.0
    assert np.isnan(roc_auc(scores.at[0].set(jnp.nan), labels))
    assert float(roc_auc(scores.at[0].set(jnp.nan), labels, jnp.asarray([0, 1, 1, 1]))) == 0.5
    infinite = jnp.asarray([-jnp.inf, 0.0, jnp.inf, jnp.inf])
    assert float(roc_auc(infinite, labels)) == 1.0


def test_many():
    rng = np.random.default_rng(0)
    scores, positive = rng.standard_normal(50_000).astype(np.float32), rng.random(50_000) < 0.01
    found = jitted(jnp.asarray(scores), jnp.asarray(positive), jnp.ones(50_000))
    close(found, roc_auc_score(positive, scores), atol=1e-6)


@pytest.mark.parametrize("classes", [2, 4])
def test_classes(classes):
    rng = np.random.default_rng(classes)
    labels = rng.integers(0, classes, 60)
    logits = rng.standard_normal((60, classes)).astype(np.float32) + 1.5 * np.eye(classes)[labels]
    p = np.asarray(jax.nn.softmax(jnp.asarray(logits, jnp.float32)))
    expected = roc_auc_score(labels, p[:, 1] if classes == 2 else p, multi_class="ovr")
    found = one_vs_rest_auc(jnp.asarray(logits, jnp.float32), jnp.asarray(labels))
    close(found, expected, atol=1e-5)
    # A class that does not occur is left out; one alone has no area.
    where = labels != classes - 1
    rest = one_vs_rest_auc(jnp.asarray(logits, jnp.float32), jnp.asarray(labels), jnp.asarray(where))
    areas = [roc_auc_score(labels[where] == c, p[where, c]) for c in range(classes - 1) if classes > 2]
    close(rest, np.mean(areas) if areas else np.nan, atol=1e-5)
    assert np.isnan(one_vs_rest_auc(jnp.asarray(logits, jnp.float32), jnp.zeros(60, int)))


@pytest.mark.long
def test_unknown_labels_are_left_out():
    """A label of -1 counts as little as an example outside of ``where``."""
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(40, 3)), jnp.float32)
    labels = jnp.asarray(rng.integers(-1, 3, 40))
    known = labels >= 0
    for score in (accuracy, one_vs_rest_auc):
        close(score(logits, labels), score(logits[known], labels[known]), rtol=1e-6)
        where = jnp.asarray(rng.integers(0, 2, 40))
        close(score(logits, labels, where), score(logits[known], labels[known], where[known]), rtol=1e-6)
    two = jnp.where(labels == 2, 1, labels)
    close(roc_auc(logits[:, 0], two), roc_auc(logits[:, 0][known], two[known]), rtol=1e-6)
    assert accuracy(logits, jnp.full(40, -1)) == 0
