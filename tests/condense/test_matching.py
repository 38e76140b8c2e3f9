"""Matching losses against closed forms, brute force and float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from jgd.condense.matching import (
    class_gradients,
    class_moments,
    class_weights,
    column_cosine,
    cosine,
    mmd,
    squared,
    trajectory_distance,
)
from jgd.core import Bound, Examples, from_linen
from jgd.graph import identity
from jgd.nn import SGC

close = np.testing.assert_allclose


def tree(seed):
    rng = np.random.default_rng(seed)
    return {"kernel": jnp.asarray(rng.standard_normal((6, 4))), "bias": jnp.asarray(rng.standard_normal(4))}


# --- distances ----------------------------------------------------------------------------------


@given(st.integers(0, 1000), st.floats(0.1, 100))
@settings(max_examples=20, deadline=None)
def test_column_cosine(seed, scale):
    """Check 2: zero at itself, twice the outputs at the opposite, blind to lengths and biases."""
    g, h = tree(seed), tree(seed + 1)
    assert abs(column_cosine(g, g)) < 1e-5
    scales = jnp.asarray(np.random.default_rng(seed).uniform(0.1, scale, 4))
    scaled = {"kernel": g["kernel"] * scales, "bias": h["bias"]}
    close(column_cosine(scaled, h), column_cosine(g, h), rtol=1e-4, atol=1e-4)
    close(column_cosine(g, jax.tree.map(jnp.negative, g)), 8, rtol=1e-5)
    a, b = np.asarray(g["kernel"]), np.asarray(h["kernel"])
    brute = sum(1 - a[:, j] @ b[:, j] / np.linalg.norm(a[:, j]) / np.linalg.norm(b[:, j]) for j in range(4))
    close(column_cosine(g, h), brute, rtol=1e-4)


def test_column_cosine_of_convolutions_goes_by_output(rng):
    g, h = rng.standard_normal((2, 3, 3, 2, 5)).astype(np.float32)
    flat = column_cosine({"k": jnp.asarray(g.reshape(18, 5))}, {"k": jnp.asarray(h.reshape(18, 5))})
    close(column_cosine({"k": jnp.asarray(g)}, {"k": jnp.asarray(h)}), flat, rtol=1e-6)


def test_the_other_distances():
    g, h = tree(3), tree(4)
    flat = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(t)]) for t in (g, h)]
    close(squared(g, h), np.linalg.norm(flat[0] - flat[1]) ** 2, rtol=1e-5)
    close(cosine(g, h), 1 - flat[0] @ flat[1] / np.linalg.norm(flat[0]) / np.linalg.norm(flat[1]), rtol=1e-4)


@pytest.mark.parametrize("distance", [column_cosine, cosine, squared])
def test_gradients_are_finite_at_zero_and_at_equality(distance):
    zero = jax.tree.map(jnp.zeros_like, tree(0))
    for a, b in ((zero, tree(0)), (tree(0), zero), (zero, zero), (tree(0), tree(0))):
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(jax.grad(distance)(a, b)))


# --- class by class -----------------------------------------------------------------------------

Y = np.repeat([2, 0, 1], [2, 4, 6])


@pytest.fixture
def x(rng):
    return rng.standard_normal((12, 5))


@pytest.mark.long
def test_class_gradients_of_a_linear_network(x):
    """Check 3: ``H_c^T (softmax - Y) / n_c``; for zero weights, class means times (1/C - 1[c])."""
    model = from_linen(SGC(num_classes=3, hops=1))
    examples = Examples((identity(12), jnp.asarray(x, jnp.float32)), jnp.asarray(Y))
    params, state = model.init(jax.random.key(0), *examples.inputs)
    found = class_gradients(Bound(params, state, model), examples, 3)["Linear_0"]["kernel"]
    w = np.asarray(params["Linear_0"]["kernel"], np.float64)
    p = scipy.special.softmax(x @ w, axis=1)
    for c in range(3):
        rows = c == Y
        close(found[c], x[rows].T @ (p - np.eye(3)[Y])[rows] / rows.sum(), rtol=1e-4, atol=1e-5)
    nothing = Bound(jax.tree.map(jnp.zeros_like, params), state, model)
    found = class_gradients(nothing, examples, 3)["Linear_0"]["kernel"]
    for c in range(3):
        close(found[c], np.outer(x[c == Y].mean(0), 1 / 3 - np.eye(3)[c]), rtol=1e-4, atol=1e-5)


def test_weights_and_soft_targets_count(rng):
    soft = rng.dirichlet(np.ones(3), 12)
    weights = rng.uniform(0, 2, 12)
    examples = Examples((), jnp.asarray(soft), jnp.asarray(weights))
    close(class_weights(examples, 3), soft * weights[:, None], rtol=1e-6)
    close(class_weights(Examples((), jnp.asarray(Y)), 3), np.eye(3)[Y])


def test_a_class_without_examples_has_no_gradient(x):
    model = from_linen(SGC(num_classes=4))
    examples = Examples((identity(12), jnp.asarray(x, jnp.float32)), jnp.asarray(Y))
    net = Bound(*model.init(jax.random.key(0), *examples.inputs), model)
    assert not np.any(class_gradients(net, examples, 4)["Linear_0"]["kernel"][3])


def test_class_moments(x):
    means, deviations = class_moments(jnp.asarray(x), jnp.asarray(np.eye(4)[Y]))
    for c in range(3):
        close(means[c], x[c == Y].mean(0), rtol=1e-4, atol=1e-6)
        close(deviations[c], x[c == Y].std(0), rtol=1e-3, atol=1e-4)
    assert not np.any(means[3])
    assert not np.any(deviations[3])
    grads = jax.grad(lambda z: class_moments(z, jnp.asarray(np.eye(4)[Y]))[1].sum())(jnp.ones((12, 2)))
    assert np.isfinite(grads).all()


@pytest.mark.long
def test_mmd(x, rng):
    """Zero between equal distributions, and what the definition says."""
    y = x[:7] + 0.5
    p, q = rng.uniform(0.5, 1, 12), rng.uniform(0.5, 1, 7)
    widths = np.asarray([0.5, 2.0])

    def k(a, b):
        d2 = ((a[:, None] - b[None]) ** 2).sum(-1)
        return np.mean([np.exp(-d2 / 2 / w**2) for w in widths], axis=0)

    u, v = p / p.sum(), q / q.sum()
    brute = u @ k(x, x) @ u + v @ k(y, y) @ v - 2 * u @ k(x, y) @ v
    args = [jnp.asarray(a, jnp.float32) for a in (x, y, p, q, widths)]
    close(mmd(*args), brute, rtol=1e-3)
    twice = [jnp.asarray(np.concatenate([a, a]), jnp.float32) for a in (x, p)]
    close(mmd(args[0], twice[0], args[2], twice[1], args[4]), 0, atol=1e-5)


# --- trajectories -------------------------------------------------------------------------------


def test_trajectory_distance():
    """Check 7: one where the student did not move, zero where it reached the target; scale-free."""
    start, target = tree(0), tree(1)
    for kind in ("squared", "norm"):
        close(trajectory_distance(start, target, start, kind), 1, rtol=1e-6)
        close(trajectory_distance(target, target, start, kind), 0, atol=1e-6)
        assert all(
            np.isfinite(g).all()
            for g in jax.tree.leaves(jax.grad(trajectory_distance)(target, target, start, kind))
        )
    half = jax.tree.map(lambda a, b: (a + b) / 2, start, target)
    close(trajectory_distance(half, target, start), 0.25, rtol=1e-5)
    close(trajectory_distance(half, target, start, "norm"), 0.5, rtol=1e-5)


def test_one_equal_step_reaches_the_target(rng):
    """Check 17: the same step on the same data gives loss and gradient zero."""
    tx = optax.sgd(0.1)

    def stepped(params, x):
        updates, _ = tx.update(jax.grad(lambda p: jnp.sum((x @ p["kernel"]) ** 2))(params), tx.init(params))
        return optax.apply_updates(params, updates)

    x, start = jnp.asarray(rng.standard_normal((12, 6))), tree(0)
    target = stepped(start, x)
    value, grad = jax.value_and_grad(lambda z: trajectory_distance(stepped(start, z), target, start))(x)
    close(value, 0, atol=1e-10)
    close(grad, 0, atol=1e-6)
