"""Rankings: loops over picks in float64, closed-form gradients, limits, huge logits and many classes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from jgd.losses import cross_entropy, listmle, p_listmle, plackett_luce_nll, pld_loss, teacher_ranking

close = np.testing.assert_allclose
B, C = 6, 7
S, T = np.random.default_rng(0).standard_normal((2, B, C)) * 2
TOP = T.argmax(-1)
Y = np.where(np.arange(B) % 2, TOP, T.argmin(-1))  # half of them are the teacher's choice


def ranking64(t, y):
    return np.asarray([y, *sorted((c for c in range(len(t)) if c != y), key=lambda c: -t[c])])


def nll64(s, ranking, weights):
    """A loop over picks."""
    left = [scipy.special.logsumexp(s[ranking[k:]]) for k in range(len(s))]
    return sum(w * (a - s[c]) for w, a, c in zip(weights, left, ranking, strict=True))


def pld64(s, t, y, tau=1.0):
    ranking = ranking64(t, y)
    return nll64(s, ranking, scipy.special.softmax(t / tau)[ranking])


def gradient64(s, ranking, weights):
    out = np.zeros(len(s))
    for k, w in enumerate(weights):
        left = ranking[k:]
        out[left] += w * scipy.special.softmax(s[left])
        out[ranking[k]] -= w
    return out


def both(function, *arrays):
    """Values and gradients in float64."""
    with jax.enable_x64(True):
        arrays = [jnp.asarray(x) for x in arrays]

        def total(s, *rest):
            values = function(s, *rest)
            return values.sum(), values

        (_, values), grads = jax.jit(jax.value_and_grad(total, has_aux=True))(*arrays)
        return np.asarray(values), np.asarray(grads)


@pytest.mark.parametrize("tau", [0.5, 1.0, 4.0])
def test_pld_and_its_gradient(tau):
    values, grads = both(lambda s, t, y: pld_loss(s, t, y, temperature=tau), S, T, Y)
    for i in range(B):
        close(values[i], pld64(S[i], T[i], Y[i], tau), rtol=1e-10)
        ranking = ranking64(T[i], Y[i])
        weights = scipy.special.softmax(T[i] / tau)[ranking]
        close(grads[i], gradient64(S[i], ranking, weights), atol=1e-10)
        close(grads[i, Y[i]], -weights[0] * (1 - scipy.special.softmax(S[i])[Y[i]]), atol=1e-10)
    close(grads.sum(-1), 0, atol=1e-10)


@pytest.mark.long
def test_teacher_ranking():
    found = np.asarray(teacher_ranking(jnp.asarray(T, jnp.float32), jnp.asarray(Y)))
    for i in range(B):
        assert found[i].tolist() == ranking64(T[i], Y[i]).tolist()
    ties = jnp.asarray([0.0, 1.0, -jnp.inf, 1.0, 0.0, -jnp.inf])
    assert teacher_ranking(ties, jnp.asarray(4)).tolist() == [4, 1, 3, 0, 2, 5]
    assert teacher_ranking(ties, jnp.asarray(2)).tolist() == [2, 1, 3, 0, 4, 5]
    assert teacher_ranking(ties, jnp.asarray(-1)).tolist() == [1, 3, 0, 4, 2, 5]


def test_cold_teachers():
    values, grads = both(lambda s, t, y: pld_loss(s, t, y, temperature=1e-3), S, T, Y)
    right = Y == TOP
    entropies = -scipy.special.log_softmax(S, -1)[np.arange(B), Y]
    close(values[right], entropies[right], rtol=1e-10)
    for i in np.flatnonzero(~right):
        others = np.delete(np.arange(C), Y[i])
        close(values[i], scipy.special.logsumexp(S[i, others]) - S[i, TOP[i]], rtol=1e-10)
        assert grads[i, Y[i]] == 0


@pytest.mark.long
def test_special_weights(rng):
    values, _ = both(lambda s, t, y: pld_loss(s, t, y, temperature=1e9), S, T, Y)
    uniform, _ = both(listmle, S, T, Y)
    close(values, uniform / C, rtol=1e-7)
    graded, _ = both(p_listmle, S, T, Y)
    gains = 2.0 ** (C - np.arange(1, C + 1)) - 1
    for i in range(B):
        ranking = ranking64(T[i], Y[i])
        close(uniform[i], nll64(S[i], ranking, np.ones(C)), rtol=1e-10)
        close(graded[i], nll64(S[i], ranking, gains / gains.sum()), rtol=1e-10)
    first = jnp.zeros((B, C)).at[:, 0].set(1.0)
    s, y = jnp.asarray(S, jnp.float32), jnp.asarray(Y)
    ranking = teacher_ranking(jnp.asarray(T, jnp.float32), y)
    close(plackett_luce_nll(s, ranking, first), cross_entropy(s, y), rtol=1e-5)
    # Weights of 2^C do not overflow.
    wide = jnp.asarray(rng.standard_normal((2, 1, 3000)), jnp.float32)
    assert np.isfinite(p_listmle(wide[0], wide[1], jnp.asarray([5])))


def test_two_classes():
    s, t, y = S[:, :2], T[:, :2], Y % 2
    values, _ = both(lambda s, t, y: pld_loss(s, t, y, temperature=2.0), s, t, y)
    rows = np.arange(B)
    expected = scipy.special.softmax(t / 2, -1)[rows, y] * np.logaddexp(0, s[rows, 1 - y] - s[rows, y])
    close(values, expected, rtol=1e-10)


def test_flat_students_and_invariances(rng):
    values, _ = both(pld_loss, np.zeros((B, C)), T, Y)
    for i in range(B):
        weights = scipy.special.softmax(T[i])[ranking64(T[i], Y[i])]
        close(values[i], weights @ np.log(np.arange(C, 0, -1)), rtol=1e-10)
    values, _ = both(pld_loss, S, T, Y)
    close(both(pld_loss, S + 11.0, T - 3.0, Y)[0], values, rtol=1e-9)
    order = rng.permutation(C)
    close(both(pld_loss, S[:, order], T[:, order], np.argsort(order)[Y])[0], values, rtol=1e-10)
    assert (np.abs(both(pld_loss, 2 * S, T, Y)[0] - values) > 1e-2).all()


@pytest.mark.long
def test_convexity(rng):
    with jax.enable_x64(True):
        s, r, t = (jnp.asarray(x) for x in (S, rng.standard_normal((B, C)) * 3, T))
        y = jnp.asarray(Y)
        assert (pld_loss((s + r) / 2, t, y) <= (pld_loss(s, t, y) + pld_loss(r, t, y)) / 2 + 1e-12).all()

        def one(s, t, y):
            return pld_loss(s, t, y, temperature=2.0)

        hessians = np.asarray(jax.jit(jax.vmap(jax.hessian(one)))(s, t, y))
        for i in range(B):
            ranking = ranking64(T[i], Y[i])
            weights = scipy.special.softmax(T[i] / 2)[ranking]
            expected = np.zeros((C, C))
            for k, w in enumerate(weights):
                p = np.zeros(C)
                p[ranking[k:]] = scipy.special.softmax(S[i, ranking[k:]])
                expected += w * (np.diag(p) - np.outer(p, p))
            close(hessians[i], expected, atol=1e-10)
            assert np.linalg.eigvalsh(hessians[i]).min() > -1e-10
            close(hessians[i] @ np.ones(C), 0, atol=1e-10)
        # Forward over forward and reverse over reverse agree with it.
        first = (s[0], t[0], y[0])
        close(jax.jit(jax.jacfwd(jax.jacfwd(one)))(*first), hessians[0], atol=1e-10)
        close(jax.jit(jax.jacrev(jax.jacrev(one)))(*first), hessians[0], atol=1e-10)
        # There is no finite minimum: the right order, ever surer.
        ordered = jnp.zeros(C).at[teacher_ranking(t[0], y[0])].set(-jnp.arange(C, dtype=float))
        losses = [float(one(c * ordered, t[0], y[0])) for c in (1.0, 10.0, 100.0)]
        assert losses[0] > losses[1] > losses[2]
        assert losses[2] < 1e-12


@pytest.mark.long
def test_weights_are_differentiable(rng):
    s, ranking, w = (
        jnp.asarray(S[0], jnp.float32),
        teacher_ranking(jnp.asarray(T[0], jnp.float32), jnp.asarray(1)),
        jnp.asarray(rng.random(C), jnp.float32),
    )
    dw = jax.grad(plackett_luce_nll, 2)(s, ranking, w)
    picks = [nll64(S[0], np.asarray(ranking), np.eye(C)[k]) for k in range(C)]
    close(dw, picks, rtol=1e-5, atol=1e-6)
    # How a weight moves the gradient, also from zero.
    mixed = jax.jit(jax.jacfwd(jax.grad(plackett_luce_nll), 2))(s, ranking, jnp.zeros(C))
    for k in range(C):
        close(mixed[:, k], gradient64(S[0], np.asarray(ranking), np.eye(C)[k]), atol=1e-6)
    assert not jax.grad(lambda t: pld_loss(s, t, jnp.asarray(1)))(jnp.asarray(T[0], jnp.float32)).any()


@pytest.mark.parametrize("scale", [1.0, 50.0, 1e4])
def test_huge_logits(scale):
    s, t = ((scale * x).astype(np.float32) for x in (S, T))
    value_and_grad = jax.jit(
        jax.value_and_grad(lambda s, t, y: pld_loss(s, t, y, temperature=4 * scale).sum())
    )
    value, grads = value_and_grad(jnp.asarray(s), jnp.asarray(t), jnp.asarray(Y))
    expected = sum(
        pld64(*(np.float64(x) for x in row), y, 4 * scale) for *row, y in zip(s, t, Y, strict=True)
    )
    close(value, expected, rtol=1e-5)
    for i in range(B):
        ranking = ranking64(t[i], Y[i])
        weights = scipy.special.softmax(np.float64(t[i]) / (4 * scale))[ranking]
        close(grads[i], gradient64(np.float64(s[i]), ranking, weights), atol=2e-7 * max(20, scale))


@pytest.mark.long
def test_classes_ruled_out():
    """A class at -inf on either side, or on both, is as if it were not there."""
    gone = np.asarray([2, 5])
    keep = np.setdiff1d(np.arange(C), gone)
    y = jnp.asarray([0, 1, 3, 4, 6, 0])
    s, t = jnp.asarray(S, jnp.float32), jnp.asarray(T, jnp.float32)
    less_s, less_t = s.at[:, gone].set(-jnp.inf), t.at[:, gone].set(-jnp.inf)
    small = pld_loss(s[:, keep], t[:, keep], jnp.searchsorted(jnp.asarray(keep), y))
    close(pld_loss(less_s, less_t, y), small, rtol=1e-5)
    value_and_grad = jax.jit(jax.value_and_grad(lambda s, t: pld_loss(s, t, y).sum()))
    for pair in ((less_s, less_t), (less_s, t), (s, less_t)):
        value, grads = value_and_grad(*pair)
        assert np.isfinite(value)
        assert np.isfinite(grads).all()
        if pair[0] is less_s:
            assert not grads[:, gone].any()
    assert np.isfinite(jax.jit(jax.hessian(lambda s: pld_loss(s, less_t[0], y[0])))(less_s[0])).all()
    assert pld_loss(jnp.full(C, -jnp.inf), t[0], y[0]) == 0


@pytest.mark.long
def test_jit_and_vmap():
    s, t, y = jnp.asarray(S, jnp.float32), jnp.asarray(T, jnp.float32), jnp.asarray(Y)
    taus = jnp.asarray([0.5, 1.0, 4.0])
    table = jax.jit(
        jax.vmap(
            jax.vmap(lambda s, t, y, tau: pld_loss(s, t, y, temperature=tau), (0, 0, 0, None)),
            (None, None, None, 0),
        )
    )
    for row, tau in zip(table(s, t, y, taus), taus, strict=True):
        close(row, pld_loss(s, t, y, temperature=tau), rtol=1e-6)
    close(
        pld_loss(s, t, y, temperature=jnp.asarray([0.5, 1, 4, 4, 1, 0.5]))[2],
        table(s, t, y, taus)[2, 2],
        rtol=1e-6,
    )
    per_row = jax.vmap(jax.grad(lambda s, t, y: pld_loss(s, t, y)))(s, t, y)
    close(per_row, jax.grad(lambda s: pld_loss(s, t, y).sum())(s), atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-100, 100, width=32), min_size=C, max_size=C), st.integers(0, 2**31))
def test_any_strengths_and_weights(strengths, seed):
    """Also weights of either sign, and zeros."""
    rng = np.random.default_rng(seed)
    ranking, weights = rng.permutation(C), rng.standard_normal(C) * rng.integers(0, 2, C)
    with jax.enable_x64(True):
        arguments = jnp.asarray(strengths), jnp.asarray(ranking), jnp.asarray(weights)
        value, grads = _value_and_grad(*arguments)
    s = np.asarray(strengths, np.float64)
    close(value, nll64(s, ranking, weights), rtol=1e-9, atol=1e-9)
    close(grads, gradient64(s, ranking, weights), atol=1e-9)


_value_and_grad = jax.jit(jax.value_and_grad(plackett_luce_nll))


def test_many_classes(rng):
    """Linear memory, a small program and the right values with a vocabulary of classes."""
    num = 50_000
    s, t = (jnp.asarray(rng.standard_normal(num) * 3, jnp.float32) for _ in range(2))
    compiled = jax.jit(jax.value_and_grad(pld_loss)).lower(s, t, jnp.asarray(7)).compile()
    value, grads = compiled(s, t, jnp.asarray(7))
    analysis = compiled.memory_analysis()
    assert analysis.temp_size_in_bytes < 20 * s.nbytes
    ranking = np.asarray(teacher_ranking(t, jnp.asarray(7)))
    weights = scipy.special.softmax(np.asarray(t, np.float64))[ranking]
    strengths = np.asarray(s, np.float64)[ranking]
    left = np.logaddexp.accumulate(strengths[::-1])[::-1]
    close(value, weights @ (left - strengths), rtol=1e-5)
    expected = np.exp(strengths) * np.cumsum(weights * np.exp(-left)) - weights
    close(np.asarray(grads)[ranking], expected, rtol=1e-3, atol=1e-8)
    assert abs(grads.sum()) < 1e-4


@pytest.mark.parametrize("size", [1, 2, 7, 300, 65_536, 65_537])
def test_ranking_is_a_stable_sort(size):
    """With ties, both zeros, infinities, huge and tiny values; above 2^16 classes by another way."""
    rng = np.random.default_rng(size)
    special = np.asarray([0.0, -0.0, np.inf, -np.inf, 1e-30, -1e-30, 3e38, -3e38, 1.0, np.nextafter(1, 2)])
    x = np.where(rng.random((3, size)) < 0.5, rng.choice(special, (3, size)), rng.standard_normal((3, size)))
    x = x.astype(np.float32)
    found = jax.jit(teacher_ranking)(jnp.asarray(x), jnp.asarray([-1, -1, 0]))
    expected = np.argsort(-x, axis=-1, kind="stable")
    np.testing.assert_array_equal(found[:2], expected[:2])
    rest = expected[2][expected[2] != 0]
    np.testing.assert_array_equal(found[2], np.concatenate([[0], rest]))
    np.testing.assert_array_equal(jax.jit(jax.vmap(teacher_ranking))(x[:2], jnp.asarray([-1, -1])), found[:2])
