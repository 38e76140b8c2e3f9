"""Ensembles of teachers against SciPy's solvers and hand-made cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special

from jgd.losses import (
    best_logits,
    cross_entropy,
    general_weights,
    kd,
    linear_weights,
    mean_logits,
    min_logits,
    weighted_logits,
    weighted_probabilities,
)

close = np.testing.assert_allclose
K, B, C = 3, 40, 4
fit = jax.jit(linear_weights)
Y = np.random.default_rng(0).integers(0, C, B)
LABELS = jnp.asarray(Y)
# Networks that know something of the labels, with noise of their own.
LOGITS = (
    np.random.default_rng(1).standard_normal((K, B, C))
    + np.eye(C)[Y] * np.asarray([1.5, 1.0, 0.7])[:, None, None]
)
Z = jnp.asarray(LOGITS, jnp.float32)


def test_combinations(rng):
    close(mean_logits(Z), LOGITS.mean(0), rtol=1e-5, atol=1e-6)
    weights = np.asarray([0.5, 0.2, 0.3])
    close(
        weighted_logits(Z, jnp.asarray(weights, jnp.float32)),
        np.tensordot(weights, LOGITS, 1),
        rtol=1e-4,
        atol=1e-6,
    )
    gate = rng.dirichlet(np.ones(K), B).T
    close(
        weighted_logits(Z, jnp.asarray(gate, jnp.float32)),
        np.einsum("kb,kbc->bc", gate, LOGITS),
        rtol=1e-4,
        atol=1e-6,
    )
    mixed = np.log(np.tensordot(weights, scipy.special.softmax(LOGITS, -1), 1))
    close(weighted_probabilities(Z, jnp.asarray(weights, jnp.float32)), mixed, rtol=1e-4, atol=1e-6)
    # Far apart, no probability is lost.
    far = jnp.asarray([[[0.0, -500.0]], [[0.0, -400.0]]])
    close(weighted_probabilities(far, jnp.asarray([0.5, 0.5])), [[0, -400 - np.log(2)]], rtol=1e-6, atol=1e-6)
    # Equal branches agree with their ensemble.
    same = jnp.broadcast_to(Z[:1], Z.shape)
    losses = jax.vmap(kd, in_axes=(0, None))(same, weighted_logits(same, jnp.asarray(gate, jnp.float32)))
    close(losses, 0, atol=1e-5)


def test_best_logits():
    best = np.asarray(best_logits(Z, LABELS))
    for i in range(B):
        costs = -scipy.special.log_softmax(LOGITS[:, i], -1)[:, Y[i]]
        close(best[i], Z[costs.argmin(), i])


def test_min_logits():
    low = np.asarray(min_logits(Z, LABELS))
    assert (low[np.arange(B), Y] == 0).all()
    expected = np.min([[row - row[y] for row, y in zip(z, Y, strict=True)] for z in LOGITS], axis=0)
    close(low, expected, rtol=1e-5, atol=1e-5)
    costs = cross_entropy(jnp.asarray(low), LABELS)
    assert (costs <= cross_entropy(best_logits(Z, LABELS), LABELS) + 1e-5).all()


@pytest.mark.parametrize("scale", [1.0, 8.0, 200.0])
def test_linear_weights(scale):
    z = scale * LOGITS

    def cost(w):
        mixed = np.tensordot(w, z, 1)
        return -scipy.special.log_softmax(mixed, -1)[np.arange(B), Y].mean()

    best = scipy.optimize.minimize(
        cost,
        np.full(K, 1 / K),
        method="SLSQP",
        bounds=[(0, 1)] * K,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-12, "maxiter": 500},
    )
    weights = np.asarray(fit(scale * Z, LABELS), np.float64)
    close(weights.sum(), 1, rtol=1e-5)
    assert (weights >= 0).all()
    assert cost(weights) <= best.fun + 1e-4 * max(1, best.fun)
    assert cost(weights) < cost(np.full(K, 1 / K)) - 1e-4


@pytest.mark.long
def test_linear_weights_of_masks_and_experts():
    where = np.arange(B) < 25
    masked = linear_weights(Z.at[:, 30].set(jnp.nan), LABELS, where=jnp.asarray(where))
    close(masked, linear_weights(Z[:, :25], LABELS[:25]), atol=1e-4)
    # A network that is always right among ones that are always wrong.
    truth = jnp.asarray(np.eye(C)[Y] * 3, jnp.float32)
    close(fit(jnp.stack([-truth, truth, -truth]), LABELS), [0, 1, 0], atol=1e-4)
    close(fit(jnp.stack([truth] * 3), LABELS), [1 / 3] * 3, rtol=1e-5)
    assert not jax.grad(lambda z: linear_weights(z, LABELS)[0])(Z).any()


@pytest.mark.long
def test_general_weights(rng):
    errors = (scipy.special.softmax(LOGITS, -1) - np.eye(C)[Y]).reshape(K, -1)
    inverse = np.linalg.inv(errors @ errors.T)
    close(general_weights(Z, LABELS), inverse.sum(1) / inverse.sum(), rtol=1e-3)
    # The least squared error of all affine combinations.
    weights = np.asarray(general_weights(Z, LABELS), np.float64)
    least = np.sum((weights @ errors) ** 2)
    for other in rng.standard_normal((20, K)) * 0.1:
        other = weights + other - other.mean()
        assert np.sum((other @ errors) ** 2) >= least - 1e-6
    # Copies share, masked examples do not count, perfect networks divide nothing by zero.
    copied = general_weights(jnp.stack([Z[0], Z[0], Z[1]]), LABELS)
    close(copied[0], copied[1], atol=2e-2)
    where = np.arange(B) < 25
    masked = general_weights(Z.at[:, 30].set(jnp.nan), LABELS, where=jnp.asarray(where))
    close(masked, general_weights(Z[:, :25], LABELS[:25]), rtol=1e-3)
    truth = jnp.asarray(np.eye(C)[Y] * 1e4, jnp.float32)
    close(general_weights(jnp.stack([truth, truth]), LABELS), [0.5, 0.5])
