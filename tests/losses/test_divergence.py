"""Divergences, transforms and distillation losses against float64 NumPy and closed forms."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from jgd.losses import (
    alpha_divergence,
    bd_kd_loss,
    cross_entropy,
    ctkd_scale,
    ctkd_temperature,
    dist_loss,
    dkd_loss,
    entropy,
    entropy_gate,
    generalized_js,
    hinton_loss,
    jeffreys,
    js,
    kd,
    kl,
    listmle,
    logit_cosine,
    logit_mse,
    mix_kd_loss,
    mixture,
    mutual_loss,
    nkd_loss,
    p_listmle,
    peer,
    pld_loss,
    reverse_gradient,
    reverse_kl,
    skew_kl,
    skew_reverse_kl,
    standardize,
    total_variation,
    weighted_kl,
)

close = np.testing.assert_allclose
B, C = 6, 5
S64, T64 = np.random.default_rng(0).standard_normal((2, B, C)) * 2
S, T = jnp.asarray(S64, jnp.float32), jnp.asarray(T64, jnp.float32)
Y = jnp.asarray([0, 1, 2, 3, 4, 2])
P64, Q64 = scipy.special.softmax(T64, -1), scipy.special.softmax(S64, -1)
LOG_P, LOG_Q = jax.nn.log_softmax(T), jax.nn.log_softmax(S)


def kl64(p, q):
    return scipy.stats.entropy(p, q, axis=-1)


def gjs64(p, q, beta):
    m = beta * p + (1 - beta) * q
    return beta * kl64(p, m) + (1 - beta) * kl64(q, m)


def alpha64(p, q, a):
    return (1 - np.sum(p**a * q ** (1 - a), -1)) / (a * (1 - a))


DIVERGENCES = {
    "kl": (kl, kl64),
    "reverse_kl": (reverse_kl, lambda p, q: kl64(q, p)),
    "jeffreys": (jeffreys, lambda p, q: kl64(p, q) + kl64(q, p)),
    "weighted_kl": (weighted_kl, lambda p, q: 0.1 * kl64(p, q) + 0.9 * kl64(q, p)),
    "total_variation": (total_variation, lambda p, q: 0.5 * np.abs(p - q).sum(-1)),
    "js": (js, lambda p, q: gjs64(p, q, 0.5)),
    "gjs_0.2": (partial(generalized_js, beta=0.2), lambda p, q: gjs64(p, q, 0.2)),
    "gjs_0": (partial(generalized_js, beta=0.0), kl64),
    "gjs_1": (partial(generalized_js, beta=1.0), lambda p, q: kl64(q, p)),
    "skew_kl": (skew_kl, lambda p, q: kl64(p, 0.1 * p + 0.9 * q)),
    "skew_reverse_kl": (skew_reverse_kl, lambda p, q: kl64(q, 0.1 * q + 0.9 * p)),
    "alpha_0.3": (partial(alpha_divergence, alpha=0.3), lambda p, q: alpha64(p, q, 0.3)),
    "alpha_0.5": (alpha_divergence, lambda p, q: 4 * (1 - np.sqrt(p * q).sum(-1))),
    "alpha_0.7": (partial(alpha_divergence, alpha=0.7), lambda p, q: alpha64(p, q, 0.7)),
    "alpha_2": (partial(alpha_divergence, alpha=2.0), lambda p, q: 0.5 * ((p - q) ** 2 / q).sum(-1)),
    "alpha_-1": (partial(alpha_divergence, alpha=-1.0), lambda p, q: 0.5 * ((p - q) ** 2 / p).sum(-1)),
    "alpha_1": (partial(alpha_divergence, alpha=1.0), kl64),
    "alpha_0": (partial(alpha_divergence, alpha=0.0), lambda p, q: kl64(q, p)),
}
BOUNDED = (
    "total_variation",
    "js",
    "gjs_0.2",
    "skew_kl",
    "skew_reverse_kl",
    "alpha_0.3",
    "alpha_0.5",
    "alpha_0.7",
)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_divergence_and_its_gradient(name):
    function, reference = DIVERGENCES[name]
    with jax.enable_x64(True):
        s, t = jnp.asarray(S64), jnp.asarray(T64)

        def loss(s, t):
            return function(jax.nn.log_softmax(t), jax.nn.log_softmax(s))

        # Values, and both arguments' gradients along a random direction, against finite differences.
        ds, dt = np.random.default_rng(1).standard_normal((2, B, C))
        h = 1e-6
        ends = [
            reference(scipy.special.softmax(T64 + e * dt, -1), scipy.special.softmax(S64 + e * ds, -1))
            for e in (h, -h)
        ]
        values, slope = jax.jit(lambda *to: jax.jvp(loss, (s, t), to))(ds, dt)
        close(values, reference(P64, Q64), rtol=1e-10)
        assert (values > 0).all()
        close(slope, (ends[0] - ends[1]) / (2 * h), rtol=1e-6, atol=1e-8)
        # Equal distributions: no divergence, no gradient.
        value, grads = jax.jit(jax.value_and_grad(lambda s, t: loss(s, t).sum(), (0, 1)))(s, s)
        close(value, 0, atol=1e-12)
        close(grads, 0, atol=1e-12)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_zero_probabilities(name):
    """A class that both lack might not exist; where one lacks it, bounded divergences are finite."""
    function, reference = DIVERGENCES[name]
    hole = jnp.arange(C) == 2

    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1))
    def value_and_grads(s, t):
        return function(jax.nn.log_softmax(t), jax.nn.log_softmax(s)).sum()

    s, t = (jnp.where(hole, -jnp.inf, x) for x in (S, T))
    value, grads = value_and_grads(s, t)
    keep = [0, 1, 3, 4]
    expected = reference(scipy.special.softmax(T64[:, keep], -1), scipy.special.softmax(S64[:, keep], -1))
    close(value, expected.sum(), rtol=1e-5)
    assert all(np.isfinite(g).all() and not g[:, 2].any() for g in grads)
    for pair in ((s, T), (S, t)):
        value, grads = value_and_grads(*pair)
        if name in BOUNDED or (name in ("kl", "gjs_0", "alpha_1", "alpha_2") and pair[0] is S):
            assert np.isfinite(value)
            assert all(np.isfinite(g).all() for g in grads)
        elif pair[0] is s and name in ("kl", "gjs_0", "jeffreys"):
            assert value == jnp.inf


def test_one_hot_target_is_cross_entropy():
    target = jnp.log(jax.nn.one_hot(Y, C))
    value, grads = jax.value_and_grad(lambda s: kl(target, jax.nn.log_softmax(s)).sum())(S)
    close(value, cross_entropy(S, Y).sum(), rtol=1e-6)
    close(grads, jax.nn.softmax(S) - jax.nn.one_hot(Y, C), atol=1e-6)
    assert entropy(target).tolist() == [0.0] * B
    close(entropy(LOG_P), scipy.stats.entropy(P64, axis=-1), rtol=1e-5)


def test_gradients_of_logits_in_closed_form():
    with jax.enable_x64(True):
        s, log_p = jnp.asarray(S64), jnp.log(jnp.asarray(P64))

        def grad(function):
            return jax.grad(lambda s: function(log_p, jax.nn.log_softmax(s)).sum())(s)

        close(grad(kl), Q64 - P64, atol=1e-12)
        ratio = np.log(Q64 / P64)
        close(grad(reverse_kl), Q64 * (ratio - kl64(Q64, P64)[:, None]), atol=1e-12)
        r = P64 / (0.1 * P64 + 0.9 * Q64)
        close(grad(skew_kl), -0.9 * Q64 * (r - (Q64 * r).sum(-1, keepdims=True)), atol=1e-12)


def test_limits_of_the_families():
    with jax.enable_x64(True):
        log_p, log_q = jnp.log(jnp.asarray(P64)), jnp.log(jnp.asarray(Q64))
        forward, backward = kl64(P64, Q64), kl64(Q64, P64)
        near = jax.vmap(lambda beta: generalized_js(log_p, log_q, beta))(jnp.asarray([1e-6, 1 - 1e-6]))
        close(near[0] / 1e-6, forward, rtol=1e-4)
        close(near[1] / 1e-6, backward, rtol=1e-4)
        close(mixture(log_p, log_q, 0.0), log_q, rtol=0)
        close(mixture(log_p, log_q, 1.0), log_p, rtol=0)
        close(jnp.exp(mixture(log_p, log_q, 0.3)), 0.3 * P64 + 0.7 * Q64, rtol=1e-12)
        close(skew_kl(log_p, log_q, 1.0), 0, atol=1e-15)
    # Single precision, where 1 - Σ p^α q^(1-α) would have lost everything.
    alphas = jnp.asarray([0.0, 1e-6, 1e-3, 0.5, 1 - 1e-3, 1 - 1e-6, 1.0])
    values = jax.jit(jax.vmap(lambda a: alpha_divergence(LOG_P, LOG_Q, a)))(alphas)
    close(values[0], backward, rtol=2e-6)
    close(values[1], backward, rtol=1e-5)
    close(values[2], alpha64(P64, Q64, 1e-3), rtol=1e-5)
    close(values[4], alpha64(P64, Q64, 1 - 1e-3), rtol=1e-4)
    close(values[5], forward, rtol=1e-5)
    close(values[6], forward, rtol=2e-6)
    close(alpha_divergence(LOG_P, LOG_Q, 0.2), alpha_divergence(LOG_Q, LOG_P, 0.8), rtol=1e-5)


rows = st.lists(st.floats(-30, 30, width=32), min_size=2 * C, max_size=2 * C)


@jax.jit
def _all(t, s):
    p, q = jax.nn.log_softmax(t), jax.nn.log_softmax(s)
    forward = {k: f(p, q) for k, (f, _) in DIVERGENCES.items()}
    return (
        forward,
        js(q, p),
        {k: f(*(x[jnp.arange(C)[::-1]] for x in (p, q))) for k, (f, _) in DIVERGENCES.items()},
    )


@settings(deadline=None, max_examples=40)
@given(rows)
def test_bounds_symmetry_and_order(numbers):
    t, s = jnp.asarray(numbers, jnp.float32).reshape(2, C)
    values, swapped, reordered = _all(t, s)
    for name, value in values.items():
        assert value >= -2e-6, name
        close(reordered[name], value, rtol=1e-4, atol=1e-5)
    close(swapped, values["js"], atol=1e-6)
    assert values["js"] <= np.log(2) + 1e-6
    assert values["total_variation"] <= min(1, np.sqrt(max(values["kl"], 0) / 2)) + 1e-3  # Pinsker
    assert values["skew_kl"] <= np.log(10) + 1e-5
    # A tight f-divergence order: Hellinger ≤ TV ≤ √(2 Hellinger).
    hellinger = values["alpha_0.5"] / 4
    assert hellinger <= values["total_variation"] + 1e-5
    assert values["total_variation"] <= np.sqrt(max(2 * hellinger, 0)) + 1e-3


# Transforms


def test_standardize():
    with jax.enable_x64(True):
        z = np.asarray(standardize(jnp.asarray(S64)))
        close(z, scipy.stats.zscore(S64, axis=-1, ddof=1), rtol=1e-6)
        # Blind to positive affine maps of either side, zero only for these.
        s, t = jnp.asarray(S64), jnp.asarray(T64)
        plain = kd(s, t, temperature=1.0, transform=standardize)
        close(kd(3 * s + 1, 0.2 * t - 5, temperature=1.0, transform=standardize), plain, rtol=1e-5)
        close(kd(2.5 * t + 7, t, temperature=2.0, transform=standardize), 0, atol=1e-12)
        assert (kd(-t, t, temperature=2.0, transform=standardize) > 0.1).all()
        # On standardised logits it is ordinary distillation.
        zt = jnp.asarray(scipy.stats.zscore(T64, axis=-1, ddof=1))
        close(kd(jnp.asarray(z), zt, transform=standardize), kd(jnp.asarray(z), zt), rtol=1e-5)


@pytest.mark.long
def test_deviations_that_vanish():
    flat = jnp.zeros((2, C)).at[1].set(3.0)
    value, grads = jax.value_and_grad(lambda s: kd(s, T[:2], transform=standardize).sum())(flat)
    assert np.isfinite(value)
    assert np.isfinite(grads).all()
    with pytest.raises(ValueError, match="fewer than three classes"):
        standardize(jnp.ones((2, 2)))


def test_reverse_gradient_and_temperature_of_ctkd():
    x = jnp.asarray([1.0, -2.0, 1e-3])
    for scale in (-1.0, 0.3, 0.0):
        value, grads = jax.value_and_grad(lambda x: jnp.sum(reverse_gradient(x, scale) ** 2))(x)
        assert value == jnp.sum(x**2)
        close(grads, 2 * scale * x)
    close(ctkd_temperature(jnp.asarray(1.0)), 1 + 20 / (1 + np.exp(-1)), rtol=1e-6)
    close(
        ctkd_scale(jnp.arange(0.0, 13.0)),
        0.5 * (1 + np.cos(np.pi * np.minimum(np.arange(13), 10) / 10)) - 1,
        atol=1e-6,
    )
    with jax.enable_x64(True):
        s, t = jnp.asarray(S64), jnp.asarray(T64)

        def loss(s, theta, scale):
            return kd(s, t, temperature=ctkd_temperature(theta, scale)).mean()

        theta, h = jnp.asarray(1.0), 1e-5
        slope = (loss(s, theta + h, 1.0) - loss(s, theta - h, 1.0)) / (2 * h)
        for scale in (1.0, -1.0, -0.25):
            ds, dtheta = jax.grad(loss, (0, 1))(s, theta, scale)
            close(dtheta, scale * slope, rtol=1e-6)  # also the factor T² has the reversed gradient
            temp = 1 + 20 / (1 + np.exp(-1.0))
            soft = [scipy.special.softmax(x / temp, -1) for x in (S64, T64)]
            close(ds, temp * (soft[0] - soft[1]) / B, rtol=1e-9)


# Losses


def test_kd():
    for temperature in (1.0, 4):
        p, q = (scipy.special.softmax(x / temperature, -1) for x in (T64, S64))
        value, grads = jax.value_and_grad(lambda s: kd(s, T, temperature=temperature).sum())(S)
        close(value, temperature**2 * kl64(p, q).sum(), rtol=1e-5)
        close(grads, temperature * (q - p), atol=1e-5)
    close(
        kd(S, T, temperature=2.0, divergence=js),
        4 * js(*(jax.nn.log_softmax(x / 2) for x in (T, S))),
        rtol=1e-6,
    )
    with jax.enable_x64(True):
        s, t = jnp.asarray(S64), jnp.asarray(T64)
        centred = (T64 - T64.mean(-1, keepdims=True)) - (S64 - S64.mean(-1, keepdims=True))
        close(kd(s, t, temperature=1000.0), (centred**2).sum(-1) / (2 * C), rtol=1e-2)
        close(kd(t + 5.0, t), 0, atol=1e-14)
    per_row = kd(S, T, temperature=jnp.arange(1.0, 1.0 + B))
    close(per_row[3], kd(S, T, temperature=4.0)[3], rtol=1e-6)
    close(jax.vmap(lambda x: kd(S, T, temperature=x))(jnp.asarray([1.0, 4.0]))[1], kd(S, T), rtol=1e-6)


def test_hinton():
    def gradient(alpha, labels, s=S, **settings):
        return jax.grad(lambda s: hinton_loss(s, T, labels, alpha=alpha, **settings).sum())(s)

    assert (gradient(0.0, Y) == jax.grad(lambda s: cross_entropy(s, Y).sum())(S)).all()
    assert (gradient(1.0, Y) == gradient(1.0, (Y + 1) % C)).all()
    close(gradient(1.0, Y, T), 0, atol=1e-6)
    # High temperatures match logits.
    high = jax.grad(lambda s: hinton_loss(s, T, Y, alpha=1.0, temperature=1e3).sum())(S)
    centred = (S64 - S64.mean(-1, keepdims=True)) - (T64 - T64.mean(-1, keepdims=True))
    close(high, centred / C, atol=5e-3)
    sure = jnp.where(jax.nn.one_hot(Y, C) > 0, 0.0, -jnp.inf)
    for alpha in (0.0, 0.4, 1.0):
        close(hinton_loss(S, sure, Y, alpha=alpha, temperature=1.0), cross_entropy(S, Y), rtol=1e-5)
    close(hinton_loss(S, T, Y, alpha=0.3), 0.7 * cross_entropy(S, Y) + 0.3 * kd(S, T), rtol=1e-5)
    soft = jnp.asarray(P64, jnp.float32)
    close(hinton_loss(S, T, soft, alpha=0.3), 0.7 * cross_entropy(S, soft) + 0.3 * kd(S, T), rtol=1e-5)


def rest64(z, y, temperature):
    p = scipy.special.softmax(z / temperature, -1)
    rest = np.stack(
        [scipy.special.softmax(np.delete(row, c) / temperature) for row, c in zip(z, y, strict=True)]
    )
    return p[np.arange(len(y)), y], rest


dkd_jit = jax.jit(dkd_loss)


def test_dkd():
    y, temperature = np.asarray(Y), 4.0
    (p_y, rest_p), (q_y, rest_q) = rest64(T64, y, temperature), rest64(S64, y, temperature)
    target = kl64(np.stack([p_y, 1 - p_y], -1), np.stack([q_y, 1 - q_y], -1))
    others = kl64(rest_p, rest_q)
    close(dkd_jit(S, T, Y), 16 * (target + 8 * others), rtol=1e-4)
    close(dkd_jit(S, T, Y, alpha=0.0, beta=1.0), 16 * others, rtol=1e-4)
    with jax.enable_x64(True):
        s, t, weight = jnp.asarray(S64), jnp.asarray(T64), jnp.asarray(1 - p_y)
        close(dkd_jit(s, t, Y, beta=weight), kd(s, t), rtol=1e-10)
        grads = jax.jit(jax.grad(lambda s: (dkd_loss(s, t, Y, beta=weight) - kd(s, t)).sum()))(s)
        close(grads, 0, atol=1e-10)
        # Logits of thousands, where a label shifted by -1000 is still the largest.
        big = dkd_jit(s * 1000, t * 1000, Y, alpha=0.0, beta=1.0)
        a, b = rest64(T64 * 1000, y, temperature)[1], rest64(S64 * 1000, y, temperature)[1]
        with np.errstate(divide="ignore"):
            log_a, log_b = (
                np.stack(
                    [scipy.special.log_softmax(np.delete(r, c) * 250) for r, c in zip(x, y, strict=True)]
                )
                for x in (T64, S64)
            )
        close(big, 16 * np.where(a > 0, a * (log_a - log_b), 0).sum(-1), rtol=1e-8)
        assert b.shape == a.shape
    # Two classes have nothing besides the label.
    close(dkd_jit(S[:, :2], T[:, :2], Y % 2, alpha=0.0), 0, atol=1e-6)
    close(dkd_jit(S[:, :2], T[:, :2], Y % 2), kd(S[:, :2], T[:, :2]), rtol=1e-4, atol=1e-6)


@pytest.mark.long
def test_nkd():
    y = np.asarray(Y)
    for temperature, gamma in ((1.0, 1.5), (3.0, 3.5)):
        (_, rest_p), (_, rest_q) = rest64(T64, y, temperature), rest64(S64, y, temperature)
        target = -P64[np.arange(B), y] * np.log(Q64[np.arange(B), y])
        expected = target - gamma * temperature**2 * (rest_p * np.log(rest_q)).sum(-1)
        close(nkd_loss(S, T, Y, temperature=temperature, gamma=gamma), expected, rtol=1e-5)
    with jax.enable_x64(True):
        s, t = jnp.asarray(S64), jnp.asarray(T64)

        def gradient(function, **settings):
            return jax.grad(lambda s: function(s, t, Y, temperature=2.0, **settings).sum())(s)

        rest = gradient(nkd_loss, gamma=1.5) - gradient(nkd_loss, gamma=0.0)
        close(rest, 1.5 * gradient(dkd_loss, alpha=0.0, beta=1.0), atol=1e-10)


def dist64(s, t, temperature=1.0, beta=1.0, gamma=1.0):
    q, p = (scipy.special.softmax(x / temperature, -1) for x in (s, t))
    inter = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(q, p, strict=True)])
    intra = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(q.T, p.T, strict=True)])
    return temperature**2 * (beta * inter + gamma * intra)


dist_jit = jax.jit(dist_loss)


def test_dist():
    close(dist_jit(S, T), dist64(S64, T64), rtol=1e-4)
    close(dist_jit(S, T, temperature=4.0, beta=2.0, gamma=0.5), dist64(S64, T64, 4.0, 2.0, 0.5), rtol=1e-4)
    close(dist_jit(T + 2.0, T), 0, atol=1e-5)
    close(dist_jit(S.reshape(2, 3, C), T.reshape(2, 3, C)), dist_jit(S, T), rtol=1e-5)
    # Rows that do not count are in no correlation.
    where = jnp.asarray([True, False, True, True, False, True])
    close(
        dist_loss(S.at[1].set(jnp.nan), T.at[4].set(jnp.inf), where=where),
        dist64(S64[where], T64[where]),
        rtol=1e-4,
    )
    assert dist_jit(S, T, where=jnp.zeros(B, bool)) == 0
    # Mixing the teacher with the uniform distribution, any share for each row, changes no row's correlation.
    share = np.linspace(0.2, 0.9, B)[:, None]
    softer = jnp.asarray(np.log(share * P64 + (1 - share) / C), jnp.float32)
    close(dist_jit(softer, T, gamma=0.0), 0, atol=1e-5)
    assert dist_jit(softer, T, beta=0.0) > 1e-3
    # Two classes: rows are correlated by ±1, whatever their confidence.
    two = dist_jit(S[:, :2], T[:, :2], gamma=0.0)
    agree = (S64[:, 0] > S64[:, 1]) == (T64[:, 0] > T64[:, 1])
    close(two, 2 * np.mean(~agree), atol=1e-5)


def test_dist_of_a_dead_student():
    value_and_grad = jax.jit(jax.value_and_grad(lambda s: dist_loss(s, T)))
    for dead in (jnp.zeros((B, C)), jnp.broadcast_to(S[0], (B, C))):
        value, grads = value_and_grad(dead)
        assert np.isfinite(value)
        assert np.isfinite(grads).all()
    assert np.abs(grads).max() > 0  # equal rows still learn from their rows' correlations


def test_mix_kd(rng):
    mixed = jnp.asarray(rng.dirichlet(np.ones(C), B), jnp.float32)
    s, t = (x / x.std(-1, ddof=1, keepdims=True) for x in (S64, T64))
    hard = -(np.asarray(mixed, np.float64) * scipy.special.log_softmax(s, -1)).sum(-1)
    soft = kl64(scipy.special.softmax(t, -1), scipy.special.softmax(s, -1))
    close(mix_kd_loss(S, T, mixed), 0.1 * hard + 0.9 * soft, rtol=1e-5)
    close(
        mix_kd_loss(S, T, Y, gamma=0.0, alpha=1.0),
        kd(S, T, temperature=1.0, transform=standardize),
        rtol=1e-4,
    )
    with jax.enable_x64(True):
        s, t = jnp.asarray(S64), jnp.asarray(T64)
        for settings_ in ({"gamma": 1.0, "alpha": 0.0}, {"gamma": 0.0, "alpha": 1.0}):
            grads = np.asarray(jax.grad(lambda s: mix_kd_loss(s, t, Y, **settings_).sum())(s))
            close((grads * (S64 - S64.mean(-1, keepdims=True))).sum(-1), 0, atol=1e-6)
            close(grads.sum(-1), 0, atol=1e-12)
            assert np.abs(grads).max() > 1e-2
        # Equal deviations are a temperature.
        s, t = (3 * standardize(x, eps=1e-15) for x in (s, t))
        close(mix_kd_loss(s, t, Y, gamma=0.0), 0.9 * kd(s, t, temperature=3.0) / 9, rtol=1e-6)
        close(mix_kd_loss(s, s * 4 + 1, Y, gamma=0.0), 0, atol=1e-12)
    with pytest.raises(ValueError, match="fewer than three classes"):
        mix_kd_loss(S[:, :2], T[:, :2], Y % 2)


def test_logit_losses():
    close(logit_mse(S, T), ((S64 - T64) ** 2).mean(-1), rtol=1e-5)
    cosine = (S64 * T64).sum(-1) / np.linalg.norm(S64, axis=-1) / np.linalg.norm(T64, axis=-1)
    close(logit_cosine(S, T), 1 - cosine, rtol=1e-5)
    value, grads = jax.value_and_grad(lambda s: logit_cosine(s, T).sum())(jnp.zeros((B, C)))
    assert value == B
    assert np.isfinite(grads).all()


# Networks that teach each other


def test_bd_kd_gradients(rng):
    temperature = 3.0
    p, q = (scipy.special.softmax(x / temperature, -1) for x in (T64, S64))
    gap = scipy.stats.entropy(p, axis=-1) - scipy.stats.entropy(q, axis=-1)
    assert (gap > 0).any()
    assert (gap < 0).any()
    nu, rho = np.where(gap > 0, 2.0, 1.0), np.where(gap > 0, 1.0, 2.0)
    with jax.enable_x64(True):
        s, t = jnp.asarray(S64), jnp.asarray(T64)
        value, grads = jax.value_and_grad(lambda s: bd_kd_loss(s, t).sum())(s)
        forward, reverse = kl64(p, q), kl64(q, p)
        close(value, 9 * (nu * forward + rho * reverse).sum(), rtol=1e-9)
        expected = nu[:, None] * (q - p) + rho[:, None] * q * (np.log(q / p) - reverse[:, None])
        close(grads, temperature * expected, atol=1e-9)
        # The plain sum is Jeffreys' divergence, symmetric.
        plain = bd_kd_loss(s, t, delta=1.0)
        close(plain, kd(s, t, temperature=3.0, divergence=jeffreys), rtol=1e-10)
        close(plain, bd_kd_loss(t, s, delta=1.0), rtol=1e-10)
        # Equal networks: nothing to learn from each other.
        value, grads = jax.value_and_grad(lambda s: bd_kd_loss(s, t).sum())(t)
        close(value, 0, atol=1e-14)
        close(grads, 0, atol=1e-14)
        # Both divergences are ½ε² Var(d)/T² to second order.
        d = jnp.asarray(rng.standard_normal((B, C)))
        variance = (p * np.asarray(d) ** 2).sum(-1) - (p * np.asarray(d)).sum(-1) ** 2
        for divergence in (kl, reverse_kl):
            near = kd(t + 1e-3 * d, t, temperature=temperature, divergence=divergence)
            close(near, 0.5e-6 * variance, rtol=5e-3)


def test_bd_kd_joint_gradient():
    """The gradient of the sum of both sides' losses is the two separate ones."""

    def student(s, t):
        return bd_kd_loss(s, t).sum()

    def teacher(s, t):
        return peer(t, s, temperature=3.0).sum()

    joint = jax.grad(lambda s, t: student(s, t) + teacher(s, t), (0, 1))(S, T)
    close(joint[0], jax.grad(student)(S, T), rtol=1e-6)
    close(joint[1], jax.grad(teacher, 1)(S, T), rtol=1e-6)
    assert not jax.grad(student, 1)(S, T).any()
    assert not jax.grad(teacher)(S, T).any()


def test_entropy_gate():
    uniform, peaked = jnp.full(C, -jnp.log(C)), jax.nn.log_softmax(jnp.eye(C)[0] * 5)
    assert [float(x) for x in entropy_gate(peaked, uniform)] == [2.0, 1.0]
    assert [float(x) for x in entropy_gate(uniform, peaked)] == [1.0, 2.0]
    assert [float(x) for x in entropy_gate(peaked, peaked)] == [1.0, 2.0]  # ties go with the less confident
    hard, smooth = entropy_gate(LOG_Q, LOG_P, delta=4.0), entropy_gate(LOG_Q, LOG_P, delta=4.0, kappa=1e3)
    close(smooth, hard, rtol=1e-5)
    soft = entropy_gate(LOG_Q, LOG_P, delta=4.0, kappa=2.0)
    gap = scipy.stats.entropy(P64, axis=-1) - scipy.stats.entropy(Q64, axis=-1)
    close(soft[0], 1 + 3 * scipy.special.expit(2 * gap), rtol=1e-5)
    for nu, rho in (hard, soft):
        close(nu + rho, 5.0)
    grads = jax.grad(lambda q, p: jnp.sum(entropy_gate(q, p, kappa=2.0)[0]), (0, 1))(LOG_Q, LOG_P)
    assert not any(g.any() for g in grads)


def test_forward_covers_and_reverse_seeks_modes():
    """The best single bump for a teacher with two, over a grid of centres and widths."""
    x = np.arange(32.0)
    teacher = np.log(0.6 * np.exp(-((x - 8) ** 2) / 4) + 0.4 * np.exp(-((x - 24) ** 2) / 4) + 1e-6)
    centre, width = (g.reshape(-1) for g in np.meshgrid(np.linspace(4, 28, 49), np.linspace(1, 12, 23)))
    students = jnp.asarray(-((x - centre[:, None]) ** 2) / (2 * width[:, None] ** 2), jnp.float32)
    log_p = jax.nn.log_softmax(jnp.broadcast_to(jnp.asarray(teacher, jnp.float32), students.shape))
    log_q = jax.nn.log_softmax(students)
    covering, seeking = (int(jnp.argmin(f(log_p, log_q))) for f in (kl, reverse_kl))
    assert 12 < centre[covering] < 20
    assert width[covering] > 5
    assert abs(centre[seeking] - 8) < 1
    assert width[seeking] < 3
    assert entropy(log_q)[covering] > entropy(log_q)[seeking] + 1


mutual_jit = jax.jit(mutual_loss)


def test_mutual():
    stack = jnp.stack([S, T])
    losses = mutual_jit(stack)
    close(losses[0], kl64(P64, Q64), rtol=1e-5)
    close(losses[1], kl64(Q64, P64), rtol=1e-5)
    grads = jax.jit(jax.grad(lambda z: mutual_loss(z).sum()))(stack)
    close(grads[0], Q64 - P64, atol=1e-6)  # each learns from the other as a constant
    close(grads[1], P64 - Q64, atol=1e-6)
    three = jnp.stack([S, T, S + T])
    expected = (peer(S, T, temperature=2.0) + peer(S, S + T, temperature=2.0)) / 2
    close(mutual_jit(three, temperature=2.0)[0], expected, rtol=1e-5)
    close(mutual_jit(jnp.stack([S, S])), 0, atol=1e-6)
    with pytest.raises(ValueError, match="two networks"):
        mutual_loss(S[None])


# What all losses have in common

LOSSES = {
    **{
        f"kd_{name}": lambda s, t, y, where, f=f: kd(s, t, divergence=f, where=where)
        for name, (f, _) in DIVERGENCES.items()
        if name not in ("alpha_2", "alpha_-1")  # infinite where others are huge
    },
    "standardize": lambda s, t, y, where: kd(s, t, temperature=2.0, transform=standardize, where=where),
    "hinton": lambda s, t, y, where: hinton_loss(s, t, y, where=where),
    "dkd": lambda s, t, y, where: dkd_loss(s, t, y, where=where),
    "dkd_standardize": lambda s, t, y, where: dkd_loss(s, t, y, transform=standardize, where=where),
    "nkd": lambda s, t, y, where: nkd_loss(s, t, y, where=where),
    "dist": lambda s, t, y, where: dist_loss(s, t, temperature=4.0, where=where),
    "mix_kd": lambda s, t, y, where: mix_kd_loss(s, t, y, where=where),
    "bd_kd": lambda s, t, y, where: bd_kd_loss(s, t, where=where),
    "logit_mse": lambda s, t, y, where: logit_mse(s, t, where=where),
    "logit_cosine": lambda s, t, y, where: logit_cosine(s, t, where=where),
    "pld": lambda s, t, y, where: pld_loss(s, t, y, where=where),
    "listmle": lambda s, t, y, where: listmle(s, t, y, where=where),
    "p_listmle": lambda s, t, y, where: p_listmle(s, t, y, where=where),
}
LABELLED = ("dkd", "dkd_standardize", "nkd", "pld", "listmle", "p_listmle")


@pytest.fixture(scope="module")
def evaluate():
    """The values and both gradients of every loss, compiled once for each."""
    compiled = {}

    def run(name, s, t, y, where):
        def total(s, t, y, where):
            values = LOSSES[name](s, t, y, where)
            return jnp.sum(values), values

        if name not in compiled:
            compiled[name] = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))
        (_, values), grads = compiled[name](s, t, y, where)
        return values, *grads

    return run


@pytest.mark.parametrize("name", LOSSES)
def test_common_properties(name, evaluate):
    everyone = jnp.ones(B, bool)
    values, ds, dt = evaluate(name, S, T, Y, everyone)
    assert np.isfinite(values).all()
    assert np.abs(ds).max() > 1e-4
    assert not dt.any()
    close(LOSSES[name](S, T, Y, None), values, rtol=1e-4, atol=1e-5)
    # Shifts of logits and orders of classes and examples do not matter.
    classes, order = jnp.asarray([3, 0, 4, 1, 2]), jnp.asarray([5, 2, 0, 1, 4, 3])
    renamed = evaluate(name, S[:, classes], T[:, classes], jnp.argsort(classes)[Y], everyone)
    close(renamed[0], values, rtol=1e-4, atol=2e-5)
    close(renamed[1], ds[:, classes], rtol=1e-3, atol=2e-5)
    if not name.startswith("logit"):
        close(evaluate(name, S + 1.5, T - 2.5, Y, everyone)[0], values, rtol=1e-4, atol=5e-5)
    shuffled = evaluate(name, S[order], T[order], Y[order], everyone)
    close(shuffled[0], values if values.ndim == 0 else values[order], rtol=1e-4, atol=1e-5)
    # Rows that do not count: whatever is there changes nothing.
    where = jnp.asarray([True, True, False, True, False, True])
    junk = jnp.asarray([jnp.nan, jnp.inf, -jnp.inf, 1e30, 0.0])
    first = evaluate(name, S, T, Y, where)
    second = evaluate(name, S.at[2].set(junk), T.at[4].set(junk), Y.at[2].set(-1), where)
    for a, b in zip(first, second, strict=True):
        close(a, b, rtol=1e-6)
    assert not first[1][~where].any()
    if values.ndim:
        close(first[0], jnp.where(where, values, 0), rtol=1e-5)
    # Unknown labels cost nothing.
    if name in LABELLED:
        unknown = evaluate(name, S, T, Y.at[1].set(-1).at[3].set(-1), everyone)
        assert not unknown[0][jnp.asarray([1, 3])].any()
        assert not unknown[1][jnp.asarray([1, 3])].any()


@pytest.mark.parametrize("name", LOSSES)
def test_huge_logits(name, evaluate):
    """Logits of ±1e4: sure and wrong, sure and right, and all alike."""
    s = 1e4 * jnp.asarray(
        [
            [1, -1, 0, 0, 0],
            [-1, 1, 0.5, 0, 0],
            [1, 1, 1, 1, 1],
            [0, 0, 0, 0, 0],
            [1, 1, -1, -1, 0],
            [-1, 0, 0, 0, 1],
        ]
    )
    t = 1e4 * jnp.asarray(
        [
            [-1, 1, 0, 0, 0],
            [-1, 1, 0.5, 0, 0],
            [1, 0, -1, 0, 0],
            [1, 1, 1, 1, 1],
            [-1, 1, -1, 1, 0.1],
            [0, 0, 0, 1, -1],
        ]
    )
    values, ds, dt = evaluate(name, s.astype(jnp.float32), t.astype(jnp.float32), Y, jnp.ones(B, bool))
    assert np.isfinite(values).all()
    assert np.isfinite(ds).all()
    assert not dt.any()


@pytest.mark.parametrize("name", ["kd_kl", "kd_js", "dkd", "nkd", "dist", "mix_kd", "bd_kd", "hinton", "pld"])
def test_half_precision_and_batch_axes(name):
    loss = jax.jit(LOSSES[name], static_argnums=3)
    half = loss(S.astype(jnp.bfloat16), T.astype(jnp.bfloat16), Y, None)
    assert half.dtype == jnp.float32
    wide = loss(*(x.astype(jnp.bfloat16).astype(jnp.float32) for x in (S, T)), Y, None)
    close(half.astype(jnp.float32), wide, rtol=1e-2)
    if name != "dist":
        folded = loss(S.reshape(2, 3, C), T.reshape(2, 3, C), Y.reshape(2, 3), None)
        flat = loss(S, T, Y, None)
        close(folded.reshape(-1), flat, rtol=1e-5)
        one_by_one = jax.vmap(lambda s, t, y: loss(s, t, y, None))(S, T, Y)
        close(one_by_one, flat, rtol=1e-5)


@pytest.mark.long
def test_lowers_everywhere():
    def step(s, t, y, where):
        return jax.grad(lambda s: sum(jnp.sum(f(s, t, y, where)) for f in LOSSES.values()))(s)

    export = jax.export.export(jax.jit(step), platforms=("cpu", "cuda", "tpu"))(S, T, Y, jnp.ones(B, bool))
    assert export.platforms == ("cpu", "cuda", "tpu")
