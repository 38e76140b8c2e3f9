"""The Fréchet distance against matrix square roots in float64, and its bound for clusters."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from jgd.metrics import accuracy, frechet_distance, within_cluster_variance

close = np.testing.assert_allclose


def moments(x, weights=None, ddof=0):
    """By NumPy, which divides by N - ddof, or by what it is with weights."""
    return np.average(x, axis=0, weights=weights), np.cov(x, rowvar=False, ddof=ddof, aweights=weights)


def reference(x, y, wx=None, wy=None, ddof=1):
    (mu, s), (nu, r) = moments(x, wx, ddof), moments(y, wy, ddof)
    # The eigenvalues of S R are those of S^1/2 R S^1/2, and its root exists for singular matrices too.
    root = np.real(scipy.linalg.sqrtm(s))
    inner = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ r @ root), 0)).sum()
    return np.sum((mu - nu) ** 2) + np.trace(s) + np.trace(r) - 2 * inner


@pytest.mark.parametrize(("n", "m", "d"), [(30, 12, 4), (9, 30, 4), (25, 3, 6)])  # the last is singular
@pytest.mark.parametrize("weighted", [False, True])
def test_against_matrix_roots(n, m, d, weighted):
    rng = np.random.default_rng(n)
    x = rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + 3
    y = rng.standard_normal((m, d))
    wx, wy = (rng.random(n), rng.random(m)) if weighted else (None, None)
    with jax.enable_x64(True):
        arguments = [None if a is None else jnp.asarray(a) for a in (x, y, wx, wy)]
        close(frechet_distance(*arguments), reference(x, y, wx, wy), rtol=1e-6)
        close(frechet_distance(*arguments, ddof=0), reference(x, y, wx, wy, 0), rtol=1e-6)
    single = [None if a is None else jnp.asarray(a, jnp.float32) for a in (x, y, wx, wy)]
    close(frechet_distance(*single), reference(x, y, wx, wy), rtol=1e-4)


def test_of_known_gaussians():
    """|mu - mu'|^2 + sum (sigma - sigma')^2 for commuting covariances; zero for one and the same sample."""
    signs = np.asarray([[a, b] for a in (-1, 1) for b in (-1, 1)], np.float32)
    x, y = jnp.asarray(signs * [1, 3]), jnp.asarray(signs * [2, 7] + [5, 0])
    close(frechet_distance(x, y, ddof=0), 25 + 1 + 16, rtol=1e-5)
    close(frechet_distance(y, x, ddof=0), 25 + 1 + 16, rtol=1e-5)
    close(frechet_distance(x, y), 25 + 4 / 3 * (1 + 16), rtol=1e-5)  # N - 1 = 3 of 4
    close(frechet_distance(x, x), 0, atol=1e-4)
    close(frechet_distance(x, x[::-1]), 0, atol=1e-4)
    # A weight of two is a point that is there twice.
    twice = jnp.concatenate([x, x[:1]])
    weighted = frechet_distance(x, y, jnp.asarray([2.0, 1, 1, 1]), ddof=0)
    close(frechet_distance(twice, y, ddof=0), weighted, rtol=1e-5)


@pytest.mark.parametrize(("size", "ddof"), [(1, 1), (0, 1), (0, 0)])
def test_a_covariance_needs_examples(size, ddof):
    y = jnp.ones((4, 2))
    for pair in ((jnp.ones((size, 2)), y), (y, jnp.ones((size, 2)))):
        with pytest.raises(ValueError, match="too few examples"):
            frechet_distance(*pair, ddof=ddof)
    assert np.isfinite(frechet_distance(y[:1], y, ddof=0))
    with pytest.raises(ValueError, match="ddof must be 1"):
        frechet_distance(y, y, ddof=2)


@pytest.mark.long
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12))
def test_bound_by_the_within_cluster_variance(seed, k):
    """Check 1 of the ClustGDD card, for random data and any partition."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((24, 3)) * rng.random(3) * 5 + rng.standard_normal(3)
    labels, k = rng.integers(0, k, 24), 12  # some are empty
    means = np.stack([x[labels == c].mean(0) if (labels == c).any() else np.zeros(3) for c in range(k)])
    rows, sizes = means[labels], np.bincount(labels, minlength=k).astype(float)
    wcss = np.sum((x - rows) ** 2) / 24
    with jax.enable_x64(True):
        close(within_cluster_variance(jnp.asarray(x), jnp.asarray(labels), k), wcss, rtol=1e-9)
        distance = jax.jit(partial(frechet_distance, ddof=0))
        by_row = float(distance(jnp.asarray(x), jnp.asarray(rows)))
        by_size = float(distance(jnp.asarray(x), jnp.asarray(means), None, jnp.asarray(sizes)))
    close(np.trace(moments(x)[1]) - np.trace(moments(rows)[1]), wcss, rtol=1e-9)
    close(by_size, by_row, rtol=1e-6, atol=1e-9)
    assert by_row <= wcss + 1e-9


def test_accuracy():
    logits = jnp.asarray([[2.0, 1, 0], [0, 1, 2], [0, 3, 2], [1, 0, 0]])
    labels = jnp.asarray([0, 2, 2, -1])  # the last is unknown
    close(accuracy(logits, labels), 2 / 3)
    close(accuracy(logits, labels, jnp.asarray([1.0, 0, 0, 5])), 1)
    close(accuracy(logits, labels, jnp.asarray([True, True, True, False])), 2 / 3)
    close(accuracy(logits, labels, jnp.asarray([0.0, 0.0, 3.0, 1.0])), 0)
    close(accuracy(logits, labels, jnp.zeros(4)), 0)
    # Counted in full precision whatever the precision of the network.
    many = jnp.zeros((1001, 2), jnp.bfloat16)
    close(accuracy(many, (jnp.arange(1001) >= 1000).astype(jnp.int32)), 1000 / 1001, rtol=1e-5)
