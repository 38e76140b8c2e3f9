"""Kernels of graphs against closed forms, NumPy in float64, wide networks, and ridge regression by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jgd.graph import DiagonalOperator, identity, operator
from jgd.ops.kernels import deviations, gntk_score, graph_ntk, kappa0, kappa1, ridge_predict

close = np.testing.assert_allclose
kernel = jax.jit(graph_ntk, static_argnames=("rounds", "layers"))
N, F, C = 7, 5, 3


def features_and_edges():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, F)).astype(np.float32)
    edges = np.triu(rng.random((N, N)) < 0.4, 1)
    return x, (edges | edges.T).astype(np.float32)


X, A = features_and_edges()
MEAN = operator(A, normalize="row", self_loops=True)


def by_hand(a1, x1, a2, x2, rounds, layers):
    """The recursion in float64, with full self-covariances at every step."""
    a1, x1, a2, x2 = (np.asarray(m, np.float64) for m in (a1, x1, a2, x2))
    cross, theta, own1, own2 = x1 @ x2.T, x1 @ x2.T, x1 @ x1.T, x2 @ x2.T

    def relu(s, d, e):
        scale = np.sqrt(np.outer(d, e))
        rho = np.clip(s / scale, -1, 1)
        return scale * (rho * (np.pi - np.arccos(rho)) + np.sqrt(1 - rho**2)) / np.pi, 1 - np.arccos(
            rho
        ) / np.pi

    for _ in range(rounds):
        cross, theta = a1 @ cross @ a2.T, a1 @ theta @ a2.T
        own1, own2 = a1 @ own1 @ a1.T, a2 @ own2 @ a2.T
        for _ in range(layers):
            d, e = np.diag(own1), np.diag(own2)
            cross, slope = relu(cross, d, e)
            theta = theta * slope + cross
            own1, own2 = relu(own1, d, d)[0], relu(own2, e, e)[0]
    return theta


# --- kappa --------------------------------------------------------------------------------------


def test_kappa_values():
    """Check 8, at the ends and in between."""
    rho = jnp.asarray([-1.0, 0.0, 1.0])
    close(kappa0(rho), [0, 0.5, 1], atol=1e-7)
    close(kappa1(rho), [0, 1 / np.pi, 1], atol=1e-7)
    close(kappa0(jnp.asarray([1.1, -1.1])), [1, 0], atol=1e-7)
    grid = np.concatenate([np.linspace(-1, 1, 201), 1 - np.logspace(-7, -1, 20), np.logspace(-7, -1, 20) - 1])
    grid = grid.astype(np.float32)
    exact = grid.astype(np.float64)
    sure = 1 - exact**2 > 1e-6  # nearer to one, a correlation is rounding
    close(kappa0(jnp.asarray(grid))[sure], 1 - np.arccos(exact[sure]) / np.pi, atol=2e-7)
    close(kappa0(jnp.asarray(grid)), 1 - np.arccos(exact) / np.pi, atol=4e-4)
    k1 = (exact * (np.pi - np.arccos(exact)) + np.sqrt(1 - exact**2)) / np.pi
    close(kappa1(jnp.asarray(grid)), k1, atol=2e-7)


@pytest.mark.long
def test_kappa_gradients():
    """κ1' = κ0, κ0' is that of an angle; both are finite everywhere, twice."""
    grid = jnp.asarray([-1.0, -1 + 1e-7, -0.7, 0.0, 0.3, 0.999, 1 - 1e-7, 1.0, 1.0000001])
    slopes = jax.vmap(jax.grad(kappa1))(grid)
    close(slopes, kappa0(grid), atol=1e-6)
    assert kappa0(jnp.asarray(1 - 1e-7)) == 1  # the diagonal of a kernel has no noise
    inner = jnp.asarray([-0.9, -0.2, 0.4, 0.99])
    close(jax.vmap(jax.grad(kappa0))(inner), 1 / (np.pi * np.sqrt(1 - np.asarray(inner) ** 2)), rtol=1e-4)
    close(jax.vmap(jax.grad(kappa0))(jnp.asarray([-1.0, 1.0])), 0)
    for f in (kappa0, kappa1):
        assert np.isfinite(jax.vmap(jax.grad(jax.grad(f)))(grid)).all()


def test_kappa_is_what_random_units_do(rng):
    """Twice the mean of products of active units, and of their outputs."""
    rho, count = 0.6, 400_000
    u = rng.standard_normal((2, count))
    v = rho * u[0] + np.sqrt(1 - rho**2) * u[1]
    close(kappa0(jnp.asarray(rho)), 2 * np.mean((u[0] > 0) & (v > 0)), atol=5e-3)
    close(kappa1(jnp.asarray(rho)), 2 * np.mean(np.maximum(u[0], 0) * np.maximum(v, 0)), atol=1e-2)


# --- the kernel of a graph ----------------------------------------------------------------------


@pytest.mark.parametrize(("rounds", "layers"), [(1, 1), (2, 2), (3, 1)])
def test_against_numpy(rounds, layers, rng):
    other = rng.standard_normal((4, F)).astype(np.float32)
    mean = np.asarray(MEAN.todense())
    got = kernel(MEAN, jnp.asarray(X), identity(4), jnp.asarray(other), rounds=rounds, layers=layers)
    close(got, by_hand(mean, X, np.eye(4), other, rounds, layers), rtol=2e-5, atol=2e-5)
    total = operator(A, self_loops=True)
    got = kernel(total, jnp.asarray(X), MEAN, jnp.asarray(X), rounds=rounds, layers=layers)
    close(got, by_hand(total.todense(), X, mean, X, rounds, layers), rtol=5e-5, atol=1e-4)


def test_diagonal_is_a_shortcut(rng):
    a = DiagonalOperator(jnp.asarray(rng.random(N) + 0.5, jnp.float32))
    dense = operator(a.todense())
    close(deviations(a, jnp.asarray(X)), deviations(dense, jnp.asarray(X)), rtol=1e-5)
    close(
        kernel(a, jnp.asarray(X), MEAN, jnp.asarray(X)),
        kernel(dense, jnp.asarray(X), MEAN, jnp.asarray(X)),
        rtol=1e-5,
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_gram_is_positive(seed):
    """Check 8: of a set with itself it is symmetric and positive semi-definite, repeated nodes included."""
    draw = np.random.default_rng(seed)
    x = draw.standard_normal((N, F)).astype(np.float32)
    x[1] = x[0]
    x[2] = 0
    k = np.asarray(kernel(MEAN, jnp.asarray(x), MEAN, jnp.asarray(x)), np.float64)
    assert np.isfinite(k).all()
    close(k, k.T, rtol=1e-4, atol=1e-5)
    assert np.linalg.eigvalsh((k + k.T) / 2).min() > -1e-4 * np.trace(k) / N


def wide(key, width, rounds):
    """Tangent kernel of one finite network: rounds of (mean of neighbours, ReLU layer), then a linear map."""
    keys = jax.random.split(key, rounds + 1)
    sizes = [F, *[width] * rounds]
    weights = [jax.random.normal(k, (i, width)) for k, i in zip(keys, sizes[:-1], strict=False)]
    weights.append(jax.random.normal(keys[-1], (width, 1)))

    def net(weights, x):
        h = MEAN @ x @ weights[0]  # the first layer sees features as they are
        for w in weights[1:-1]:
            h = (MEAN @ (jax.nn.relu(h) * (2 / width) ** 0.5)) @ w
        return (jax.nn.relu(h) * (2 / width) ** 0.5 @ weights[-1])[:, 0]

    jacobian = jax.jacrev(net)(weights, jnp.asarray(X))
    return sum(jnp.einsum("iab,jab->ij", j, j) for j in jacobian)


@pytest.mark.long
def test_wide_networks():
    """Check 8: the kernel is the limit of networks, within Monte-Carlo error that falls with the width."""
    for rounds, width, members in ((1, 4096, 4), (2, 512, 24)):
        keys = jax.random.split(jax.random.key(rounds), members)
        kernels = jax.jit(lambda keys, w=width, r=rounds: jax.lax.map(lambda k: wide(k, w, r), keys))(keys)
        limit = np.asarray(kernel(MEAN, jnp.asarray(X), MEAN, jnp.asarray(X), rounds=rounds, layers=1))
        got = np.asarray(kernels).mean(0)
        # Most of the noise is a common factor, the length of the last layer's input.
        close(got / np.trace(got), limit / np.trace(limit), atol=0.03 * limit.max() / np.trace(limit))
        close(np.trace(got), np.trace(limit), rtol=0.06)


def test_gradients_are_finite(rng):
    """Through repeated and zero nodes, whose correlations are one and undefined."""
    x = jnp.asarray(X).at[1].set(X[0]).at[2].set(0.0)

    def total(x):
        k = kernel(identity(N), x, identity(N), x)
        return jnp.sum(ridge_predict(graph_ntk(MEAN, jnp.asarray(X), identity(N), x), k, x, 1e-2) ** 2)

    slope, total = jax.jit(jax.grad(total)), jax.jit(total)
    assert np.isfinite(slope(x)).all()
    direction = jnp.asarray(rng.standard_normal(X.shape), jnp.float32)
    start = jnp.asarray(rng.standard_normal(X.shape), jnp.float32)
    up, down = (total(start + s * 1e-3 * direction) for s in (1, -1))
    close(jnp.sum(slope(start) * direction), (up - down) / 2e-3, rtol=2e-2)


# --- ridge regression ---------------------------------------------------------------------------


def test_ridge(rng):
    k = by_hand(np.eye(N), X, np.eye(N), X, 2, 2)
    y = np.eye(C)[rng.integers(0, C, N)]
    k32, y32 = jnp.asarray(k, jnp.float32), jnp.asarray(y, jnp.float32)
    for ridge in (1e-3, 1.0):
        exact = k @ np.linalg.solve(k + ridge * np.trace(k) / N * np.eye(N), y)
        close(ridge_predict(k32, k32, y32, ridge), exact, rtol=1e-3, atol=1e-4)
    close(ridge_predict(k32, k32, y32, 0.0), y, atol=2e-3)  # check 8: it interpolates
    assert np.abs(np.asarray(ridge_predict(k32, k32, y32, 1.0)) - y).max() > 0.1
    singular = jnp.ones((N, N))
    close(ridge_predict(singular, singular, y32, 1e-3), np.tile(y.mean(0), (N, 1)), atol=1e-3)
    assert np.isfinite(ridge_predict(singular, singular, y32, 0.0)).all()


def test_interpolates_labels(rng):
    """Check 8: without ridge, X' = X_train predicts the labels it has, on the real graph."""
    y = np.eye(C)[rng.integers(0, C, N)].astype(np.float32)
    k = kernel(MEAN, jnp.asarray(X), MEAN, jnp.asarray(X))
    close(ridge_predict(k, k, jnp.asarray(y), 0.0), y, atol=2e-2)


def test_score(rng):
    """SFGC's score: zero for a set that predicts perfectly, half the mean square for one without labels."""
    y = jnp.asarray(np.eye(C)[rng.integers(0, C, N)], jnp.float32)
    same = (MEAN, jnp.asarray(X), y)
    score = jax.jit(gntk_score)
    assert gntk_score(same, same, ridge=0.0) < 1e-4
    blank = (identity(2), jnp.asarray(X[:2]), jnp.zeros((2, C)))
    close(score(blank, same), 0.5 * np.mean(np.asarray(y) ** 2), rtol=1e-6)
    # Loops of weight two and one are the same, once rows sum to one.
    twice = (operator(2 * np.eye(2, dtype=np.float32), normalize="row"), jnp.asarray(X[:2]), y[:2])
    close(score(twice, same), score((identity(2), jnp.asarray(X[:2]), y[:2]), same), rtol=1e-6)


def test_refuses():
    with pytest.raises(ValueError, match="at least 1"):
        graph_ntk(MEAN, jnp.asarray(X), MEAN, jnp.asarray(X), rounds=0)
    with pytest.raises(ValueError, match="at least 1"):
        deviations(MEAN, jnp.asarray(X), layers=0)
