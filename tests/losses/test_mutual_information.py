"""Bounds on mutual information against double loops, closed forms and correlated Gaussians."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special

from jgd.losses import mutual_information as MI

close = np.testing.assert_allclose
K = 6
F = np.random.default_rng(0).standard_normal((K, K)) * 2
Q = np.random.default_rng(1).standard_normal(K)
ALPHAS = [0.0, 0.3, 0.9, 1.0]
WHERE = np.array([True, False, True, True, True, False])


def f32(x):
    return jnp.asarray(x, jnp.float32)


# --- references: two loops, three with the mean -------------------------------------------------


def reference(f, q, alpha):
    k = len(f)
    others = [[b for b in range(k) if b != a] for a in range(k)]

    def j(a, b):
        mean = np.mean([np.exp(f[a, c]) for c in others[b]])
        return np.log(alpha * mean + (1 - alpha) * np.exp(q[a]))

    pairs = [(a, b) for a in range(k) for b in others[a]]
    gain = np.mean([f[a, a] - j(a, b) for a, b in pairs])
    return 1 + gain - np.mean([np.exp(f[a, b] - j(a, a)) for a, b in pairs])


def off(f):
    return f[~np.eye(len(f), dtype=bool)]


BOUNDS = {
    "mi_alpha": (lambda f, where=None: MI.mi_alpha_bound(f, f32(Q), alpha=0.7, where=where), None),
    "tuba": (
        lambda f, where=None: MI.tuba(f, f32(Q), where=where),
        lambda f, q: 1 + np.mean(np.diag(f) - q) - np.mean(off(np.exp(f - q[:, None]))),
    ),
    "nwj": (MI.nwj, lambda f, q: np.mean(np.diag(f)) - np.mean(off(np.exp(f))) / np.e),
    "dv": (MI.donsker_varadhan, lambda f, q: np.mean(np.diag(f)) - np.log(np.mean(off(np.exp(f))))),
    "info_nce": (
        MI.info_nce,
        lambda f, q: np.mean([f[a, a] - np.log(np.mean(np.exp(f[a]))) for a in range(len(f))]),
    ),
    "js": (
        MI.jensen_shannon,
        lambda f, q: (
            np.log(2)
            + np.mean(np.log(scipy.special.expit(np.diag(f)))) / 2
            + np.mean(np.log(scipy.special.expit(-off(f)))) / 2
        ),
    ),
}
BOUNDS["mi_alpha"] = (BOUNDS["mi_alpha"][0], lambda f, q: reference(f, q, 0.7))


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds(rng, name):
    bound, exact = BOUNDS[name]
    run = jax.jit(jax.value_and_grad(lambda f, where: bound(f, where=where)))
    value, gradient = run(f32(F), jnp.ones(K, bool))
    close(value, exact(F, Q), rtol=1e-5)
    close(jax.jit(bound)(f32(F)), value, rtol=1e-6)
    d, h = rng.standard_normal((K, K)), 1e-6
    close(np.sum(gradient * d), (exact(F + h * d, Q) - exact(F - h * d, Q)) / (2 * h), rtol=1e-4)

    bad = np.where(WHERE[:, None] & WHERE, F, np.nan)
    value, gradient = run(f32(bad), jnp.asarray(WHERE))
    close(value, exact(F[WHERE][:, WHERE], Q[WHERE]), rtol=1e-5)
    assert not gradient[~WHERE].any()
    assert not gradient[:, ~WHERE].any()
    assert jnp.isfinite(gradient).all()
    for few in (jnp.zeros(K, bool), jnp.arange(K) == 2):
        value, gradient = run(f32(F), few)
        assert value == 0
        assert not gradient.any()
    for scale in (100, 1e4, -1e4):
        value, gradient = run(f32(scale * F), jnp.ones(K, bool))
        assert jnp.isfinite(value)
        assert jnp.isfinite(gradient).all()
    assert jax.jit(bound)(f32(F).astype(jnp.bfloat16)).dtype == jnp.float32


def test_one_pair_is_not_enough():
    for bound in (MI.nwj, MI.info_nce, MI.jensen_shannon, MI.donsker_varadhan, MI.leave_one_out_logmean):
        with pytest.raises(ValueError, match="at least two pairs"):
            bound(jnp.ones((1, 1)))
    with pytest.raises(ValueError, match="at least two pairs"):
        MI.mi_alpha_bound(jnp.ones((1, 1)), jnp.ones(1), alpha=0.5)


def test_leave_one_out(rng):
    f = F.copy()
    f[1, 1] = f[1, 4] = 9  # a tie at the top
    f[2, 3] = 60  # one entry is all
    f[3] = 2

    def exact(f):
        return np.array([[np.log(np.mean(np.exp(np.delete(row, b)))) for b in range(K)] for row in f])

    close(jax.jit(MI.leave_one_out_logmean)(f32(f)), exact(f), rtol=1e-5, atol=1e-6)
    d, h = rng.standard_normal((K, K)), 1e-6
    weights = rng.standard_normal((K, K))
    gradient = jax.jit(jax.grad(lambda f: jnp.sum(weights * MI.leave_one_out_logmean(f))))(f32(f))
    close(np.sum(gradient * d), np.sum(weights * (exact(f + h * d) - exact(f - h * d))) / (2 * h), rtol=1e-4)
    part = MI.leave_one_out_logmean(f32(f), where=jnp.asarray(WHERE))
    few = f[WHERE][:, WHERE]
    close(
        part[WHERE][:, WHERE],
        [[np.log(np.mean(np.exp(np.delete(r, b)))) for b in range(4)] for r in few],
        rtol=1e-5,
    )


# --- I_alpha ------------------------------------------------------------------------------------

I_ALPHA = jax.jit(lambda f, q, alpha: MI.mi_alpha_bound(f, q, alpha=alpha))


@pytest.mark.parametrize("alpha", ALPHAS)
def test_double_loop_in_float64(alpha):
    with jax.enable_x64(True):
        close(I_ALPHA(jnp.asarray(F), jnp.asarray(Q), alpha), reference(F, Q, alpha), atol=1e-10)
    close(I_ALPHA(f32(F), f32(Q), alpha), reference(F, Q, alpha), atol=1e-5)


def test_alpha_is_an_array():
    values = jax.vmap(I_ALPHA, (None, None, 0))(f32(F), f32(Q), f32(ALPHAS))
    close(values, [reference(F, Q, a) for a in ALPHAS], rtol=1e-5)


def test_all_multi_sample(rng):
    m = np.array([[np.log(np.mean(np.exp(np.delete(row, b)))) for b in range(K)] for row in F])
    close(I_ALPHA(f32(F), f32(Q), 1.0), np.mean(off(np.diag(F)[:, None] - m)), rtol=1e-5)
    close(I_ALPHA(f32(F), f32(Q + 50), 1.0), I_ALPHA(f32(F), f32(Q), 1.0))  # the baseline is out
    offsets = rng.standard_normal(K) * 10
    close(I_ALPHA(f32(F + offsets[:, None]), f32(Q), 1.0), I_ALPHA(f32(F), f32(Q), 1.0), rtol=1e-4)
    for size in (30, 100, 1e4):  # to the rounding of scores
        close(I_ALPHA(f32(size * np.eye(K)), f32(Q), 1.0), np.log(K - 1), atol=1e-7 * size + 1e-5)
    # A bound for α between, too.
    assert I_ALPHA(f32(1e4 * np.eye(K)), f32(Q), 0.5) < np.log(K / 0.5)


def test_all_baseline():
    exact = 1 + np.mean(np.diag(F) - Q) - np.mean(off(np.exp(F - Q[:, None])))
    close(I_ALPHA(f32(F), f32(Q), 0.0), exact, rtol=1e-5)
    close(I_ALPHA(f32(F), f32(Q), 0.0), MI.tuba(f32(F), f32(Q)), rtol=1e-5)
    close(I_ALPHA(f32(F), jnp.ones(K), 0.0), MI.nwj(f32(F)), rtol=1e-5)
    close(I_ALPHA(f32(F + 3), f32(Q + 3), 0.0), exact, rtol=1e-4)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_order_of_pairs(rng, alpha):
    order = rng.permutation(K)
    value = I_ALPHA(f32(F[order][:, order]), f32(Q[order]), alpha)
    close(value, I_ALPHA(f32(F), f32(Q), alpha), rtol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 1e-3, 0.5, 1.0])
def test_extreme_scores(alpha):
    run = jax.jit(jax.value_and_grad(lambda f, q, a: MI.mi_alpha_bound(f, q, alpha=a), argnums=(0, 1)))
    signs = np.sign(np.random.default_rng(3).standard_normal((3, 3)))
    for f in (100 * signs, -100 * signs, np.full((3, 3), 100.0), 100 * np.eye(3), -100 * np.eye(3)):
        value, gradients = run(f32(f), jnp.zeros(3), alpha)
        assert all(jnp.isfinite(g).all() for g in (value, *gradients))
        exact = reference(f, np.zeros(3), alpha)
        if exact > -1e15:
            close(value, exact, rtol=1e-4, atol=1e-4)
        else:
            assert value < -1e15  # beyond e^44 it grows along the tangent, and still falls
            assert (gradients[0][f == f[~np.eye(3, dtype=bool)].max()] <= 0).any()


def gaussians(key, information, size, dim=20):
    """Pairs whose mutual information is ``-d/2 log(1 - ρ^2)``."""
    rho = np.sqrt(1 - np.exp(-2 * information / dim))
    a, b = jax.random.normal(key, (2, size, dim))
    return a, rho * a + np.sqrt(1 - rho**2) * b, rho


@pytest.mark.parametrize(
    ("information", "measured"), [(2.0, [2.04, 1.95, 1.86, 1.83]), (6.0, [6.03, 4.60, 4.15, 3.74])]
)
def test_true_critic_of_correlated_gaussians(information, measured):
    def once(key):
        x, y, rho = gaussians(key, information, 64)
        # log p(y | x) / p(y), rows x and columns y
        square = jnp.sum((y[None] - rho * x[:, None]) ** 2, -1) / (1 - rho**2)
        f = -0.5 * (square - jnp.sum(y**2, -1)) - 10 * np.log(1 - rho**2)
        return jax.vmap(lambda a: MI.mi_alpha_bound(f, jnp.zeros(64), alpha=a))(f32([0, 0.5, 0.9, 1]))

    values = np.asarray(jax.lax.map(jax.jit(once), jax.random.split(jax.random.key(0), 150)))
    spread = values.std(0)
    close(values.mean(0), measured, atol=4 * spread[0] / np.sqrt(150) + 0.03)
    assert (np.diff(values.mean(0)) < 0).all()  # more bias,
    assert (np.diff(spread) < 0).all()  # less variance
    assert abs(values[:, 0].mean() - information) < 4 * spread[0] / np.sqrt(150)  # right in the mean


def learned(key, information, alphas, steps, size=64, width=256):
    """I_α of fresh pairs under a separable critic trained to maximise it, for several α at once."""
    k_init, k_train, k_test = jax.random.split(key, 3)

    def mlp(params, x):
        for w, b in params[:-1]:
            x = jax.nn.relu(x @ w + b)
        return x @ params[-1][0] + params[-1][1]

    def init(key, sizes):
        keys = jax.random.split(key, len(sizes) - 1)
        pairs = zip(keys, sizes[:-1], sizes[1:], strict=True)
        return [(jax.random.normal(k, (i, o)) * np.sqrt(2 / i), jnp.zeros(o)) for k, i, o in pairs]

    tx = optax.adam(5e-4)

    def bound(params, key, alpha):
        x, y, _ = gaussians(key, information, size)
        f = mlp(params[0], x) @ mlp(params[1], y).T
        return MI.mi_alpha_bound(f, mlp(params[2], x)[:, 0], alpha=alpha)

    def train(alpha):
        ks = jax.random.split(k_init, 3)
        params = [init(k, (20, width, width, o)) for k, o in zip(ks, (32, 32, 1), strict=True)]
        params[0][-1] = (params[0][-1][0] * 0.1, params[0][-1][1])

        def step(carry, key):
            params, state = carry
            updates, state = tx.update(jax.grad(lambda p: -bound(p, key, alpha))(params), state)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), jax.random.split(k_train, steps))
        return jax.vmap(lambda k: bound(params, k, alpha))(jax.random.split(k_test, 50))

    return np.asarray(jax.jit(jax.vmap(train))(f32(alphas)))


@pytest.mark.long
def test_learned_critic():
    values = learned(jax.random.key(1), 6.0, [0.5, 0.9, 1.0], steps=200, width=32).mean(1)
    assert (values > 1).all()
    assert (values < 6).all()
    none = learned(jax.random.key(2), 0.0, [0.5, 0.9, 1.0], steps=100, width=32)
    assert (none.mean(1) < 4 * none.std(1) / np.sqrt(50)).all()


@pytest.mark.slow
def test_learned_critic_in_full():
    """Longer training comes near what the true critic gets, and no further."""
    values = learned(jax.random.key(1), 6.0, [0.5, 0.9, 1.0], steps=1200)
    assert (values.mean(1) > [3.32, 3.12, 2.87]).all()  # measured elsewhere: 3.63±.31, 3.40±.28, 3.12±.25
    assert (values.mean(1) < [4.60, 4.15, 3.74]).all()
    assert (np.diff(values.mean(1)) < 0).all()
    assert values.max() < 6


# --- contrast with noise ------------------------------------------------------------------------


def test_nce_by_hand(rng):
    """The equation in float64, where eps counts as much as c."""
    p, n = np.exp(rng.standard_normal(3)), np.exp(rng.standard_normal((3, 4)))
    c, eps = 4 / 10, 0.25
    expected = -np.log(p / (p + c + eps)) - np.log(c / (n + c + eps)).sum(1)
    close(MI.nce(f32(np.log(p)), f32(np.log(n)), num_examples=10, eps=eps), expected, rtol=1e-5)


def test_nce(rng):
    p, neg = np.exp(rng.standard_normal(5) - 3), np.exp(rng.standard_normal((5, 7)) - 3)
    c = 7 / 100
    exact = -np.log(p / (p + c + 1e-7)) - np.sum(np.log(c / (neg + c + 1e-7)), 1)

    def loss(p, neg, where):
        values = MI.nce(p, neg, num_examples=100, where=where)
        return values.sum(), values

    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    a, b = jnp.log(f32(p)), jnp.log(f32(neg))
    (_, values), (to_positive, to_negative) = run(a, b, jnp.ones(5, bool))
    close(values, exact, rtol=1e-5)
    assert (to_positive < 0).all()
    assert (to_negative > 0).all()
    where = jnp.arange(5) != 3
    (_, masked), gradients = run(a.at[3].set(jnp.nan), b.at[3].set(jnp.nan), where)
    close(masked, jnp.where(where, values, 0), rtol=1e-6)
    assert all(jnp.isfinite(g).all() and not g[3].any() for g in gradients)
    (_, values), gradients = run(1e4 * a, -1e4 * b, where)
    assert jnp.isfinite(values).all()
    assert all(jnp.isfinite(g).all() for g in gradients)


def test_lowers_for_every_platform():
    def total(f, q, alpha):
        bounds = sum(BOUNDS[n][0](f) for n in BOUNDS)
        return bounds + MI.mi_alpha_bound(f, q, alpha=alpha) + MI.nce(q, f, num_examples=10).sum()

    arguments = f32(F), f32(Q), f32(0.5)
    jax.export.export(jax.jit(jax.grad(total)), platforms=("cpu", "cuda", "tpu"))(*arguments)
