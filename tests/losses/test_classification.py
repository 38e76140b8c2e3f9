"""Losses of classifiers against SciPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from jgd.losses import cross_entropy, mean

close = np.testing.assert_allclose
LOGITS = (np.random.default_rng(0).standard_normal((6, 4)) * 3).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, 4, 6)


def reference(logits, targets):
    return -np.sum(targets * scipy.special.log_softmax(np.asarray(logits, np.float64), axis=-1), axis=-1)


@pytest.mark.parametrize("scale", [1, 1e4, -1e4])
def test_cross_entropy(rng, scale):
    logits = jnp.asarray(scale * LOGITS)
    close(cross_entropy(logits, jnp.asarray(LABELS)), reference(logits, np.eye(4)[LABELS]), rtol=1e-5)
    soft = rng.dirichlet(np.ones(4), 6).astype(np.float32)
    close(cross_entropy(logits, jnp.asarray(soft)), reference(logits, soft), rtol=1e-5)
    gradient = jax.grad(lambda x: cross_entropy(x, jnp.asarray(soft)).sum())(logits)
    close(gradient, scipy.special.softmax(np.asarray(logits, np.float64), -1) - soft, atol=1e-5)


def test_cross_entropy_of_huge_logits():
    sure = jnp.asarray([[1e4, -1e4, 0.0]])
    close(cross_entropy(sure, jnp.asarray([0])), [0])
    close(cross_entropy(sure, jnp.asarray([1])), [2e4])
    gradient = jax.grad(lambda x: cross_entropy(x, jnp.asarray([1])).sum())(sure)
    close(gradient, [[1, -1, 0]])


def test_unknown_labels_cost_nothing():
    logits = jnp.asarray(LOGITS)
    labels = jnp.asarray(LABELS).at[2].set(-1).at[4].set(-1)
    values, gradient = (
        cross_entropy(logits, labels),
        jax.grad(lambda x: cross_entropy(x, labels).sum())(logits),
    )
    for i in (2, 4):
        assert values[i] == 0
        assert not gradient[i].any()


def test_batch_axes():
    logits = jnp.asarray(LOGITS).reshape(2, 3, 4)
    values = cross_entropy(logits, jnp.asarray(LABELS).reshape(2, 3))
    close(values.reshape(-1), cross_entropy(jnp.asarray(LOGITS), jnp.asarray(LABELS)))


def test_mean():
    values = jnp.asarray([1.0, 2.0, jnp.nan, 6.0])
    close(mean(values[:2]), 1.5)
    close(mean(values, jnp.asarray([True, True, False, False])), 1.5)
    close(mean(values, jnp.asarray([1.0, 0.0, 0.0, 3.0])), 19 / 4)
    assert mean(values, jnp.zeros(4)) == 0
    gradient = jax.grad(mean)(values, jnp.asarray([1.0, 0.0, 0.0, 3.0]))
    close(gradient, [0.25, 0, 0, 0.75])
    close(jax.grad(mean)(values, jnp.zeros(4)), 0)
