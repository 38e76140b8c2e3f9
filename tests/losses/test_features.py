"""Losses of features against loops in float64 NumPy, and what they must not see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from jgd.losses import features as F

close = np.testing.assert_allclose
B = 5
WHERE = np.array([True, True, False, True, False])
MARGIN = np.array([-0.7, -0.1, 0.0], np.float32)
SCALES = np.array([-0.5, 1.0, 3.0], np.float32)


# --- references: one example at a time ----------------------------------------------------------


def normalised(x):
    n = np.sqrt(np.sum(x**2))
    return x / n if n > 0 else x


def pool(x, h, w):
    out = np.zeros((h, w, x.shape[-1]))
    for i in range(h):
        for j in range(w):
            rows = slice(int(np.floor(i * x.shape[0] / h)), int(np.ceil((i + 1) * x.shape[0] / h)))
            columns = slice(int(np.floor(j * x.shape[1] / w)), int(np.ceil((j + 1) * x.shape[1] / w)))
            out[i, j] = x[rows, columns].mean((0, 1))
    return out


def same_size(a, b):
    h, w = min(a.shape[0], b.shape[0]), min(a.shape[1], b.shape[1])
    return pool(a, h, w), pool(b, h, w)


def ref_attention(s, t, squared=True):
    q = [normalised(np.mean(x**2, -1).ravel()) for x in same_size(s, t)]
    return np.mean((q[0] - q[1]) ** 2) if squared else np.sqrt(np.sum((q[0] - q[1]) ** 2))


def ref_nst(s, t):
    s, t = ([normalised(x[..., c].ravel()) for c in range(x.shape[-1])] for x in same_size(s, t))

    def kernel(a, b):
        return np.mean([np.dot(u, v) ** 2 for u in a for v in b])

    return kernel(t, t) + kernel(s, s) - 2 * kernel(s, t)


def ref_vid(m, f):
    v = np.log1p(np.exp(np.float64(SCALES))) + 1e-5
    return np.mean(0.5 * ((m - f) ** 2 / v + np.log(v)))


def ref_ofd(s, t):
    total = 0.0
    for index in np.ndindex(s.shape):
        a, b, m = s[index], t[index], np.float64(MARGIN[index[-1]])
        if b > 0:
            total += (a - b) ** 2
        elif b > m:
            total += (a - b) ** 2 if a > b else 0
        else:
            total += (a - m) ** 2 if a > m else 0
    return total


def ref_hcl(s, t):
    total, weights, w = np.mean((s - t) ** 2), 1.0, 1.0
    for n in (4, 2, 1):
        if n < s.shape[0]:
            w /= 2
            total += w * np.mean((pool(s, n, n) - pool(t, n, n)) ** 2)
            weights += w
    return total / weights


def ref_flow(a, b):
    a, b = same_size(a, b)
    return sum(np.outer(a[i, j], b[i, j]) for i, j in np.ndindex(a.shape[:2])) / (a.shape[0] * a.shape[1])


def ref_ickd(s, t):
    def rows(x):
        x = x.reshape(-1, x.shape[-1])
        return np.stack([normalised(row) for row in x.T @ x])

    return np.sum((rows(s) - rows(t)) ** 2) / s.shape[-1]


def ref_cosine(s, t):
    return 1 - np.dot(s, t) / np.sqrt(np.dot(s, s) * np.dot(t, t))


def fsp(s, t, *, where=None):
    """Both ends of a stage made from one array, so that it fits the table."""
    return F.fsp_loss((s, 2 * s[:, ::2, ::2, :2]), (t, 3 * t[:, ::2, ::2, :2]), where=where)


def ref_fsp(s, t):
    return np.mean((ref_flow(s, 2 * s[::2, ::2, :2]) - ref_flow(t, 3 * t[::2, ::2, :2])) ** 2)


MAP, LARGER, VECTOR = (B, 5, 5, 3), (B, 8, 7, 4), (B, 6)
LOSSES = {
    "hint": (F.hint, lambda s, t: np.mean((s - t) ** 2), MAP, MAP),
    "attention": (F.attention_transfer, ref_attention, MAP, LARGER),
    "attention_norm": (
        lambda s, t, where=None: F.attention_transfer(s, t, squared=False, where=where),
        lambda s, t: ref_attention(s, t, squared=False),
        MAP,
        LARGER,
    ),
    "nst": (F.nst_loss, ref_nst, LARGER, MAP),
    "vid": (lambda s, t, where=None: F.vid_loss(s, t, jnp.asarray(SCALES), where=where), ref_vid, MAP, MAP),
    "ofd": (lambda s, t, where=None: F.ofd_loss(s, t, jnp.asarray(MARGIN), where=where), ref_ofd, MAP, MAP),
    "hcl": (F.hcl, ref_hcl, MAP, MAP),
    "fsp": (fsp, ref_fsp, MAP, (B, 8, 8, 3)),
    "factor": (
        F.factor_transfer_loss,
        lambda s, t: np.mean(np.abs(normalised(s) - normalised(t))),
        MAP,
        MAP,
    ),
    "ickd": (F.ickd_loss, ref_ickd, MAP, (B, 4, 4, 3)),
    "hidden_mse": (F.hidden_mse, lambda s, t: np.mean((s - t) ** 2), VECTOR, VECTOR),
    "hidden_ce": (
        F.hidden_cross_entropy,
        lambda s, t: -np.sum(scipy.special.softmax(t) * scipy.special.log_softmax(s)),
        VECTOR,
        VECTOR,
    ),
    "cosine": (F.cosine_distance, ref_cosine, VECTOR, VECTOR),
    "pkd": (F.pkd, lambda s, t: np.sum((normalised(s) - normalised(t)) ** 2), VECTOR, VECTOR),
}
EVERY = pytest.mark.parametrize("name", LOSSES)
ZERO_WHEN_EQUAL = [n for n in LOSSES if n not in ("vid", "ofd", "hidden_ce", "fsp")]


def draw(name, seed=0):
    rng = np.random.default_rng(seed)
    return (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in LOSSES[name][2:])


def compiled(name):
    def total(s, t, where):
        values = LOSSES[name][0](s, t, where=where)
        return jnp.sum(values), values

    return jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))


@EVERY
def test_value_and_gradient(rng, name):
    loss, reference = LOSSES[name][:2]
    s, t = draw(name)
    where = jnp.ones(B, bool)
    run = compiled(name)
    (_, values), (gradient, to_teacher) = run(s, t, where)

    def expected(x):
        return np.array([reference(a, b) for a, b in zip(x, np.float64(t), strict=True)])

    close(values, expected(np.float64(s)), rtol=1e-4, atol=1e-6)
    close(loss(s, t), values, rtol=1e-5, atol=1e-7)  # as it is, without jit or mask
    assert not to_teacher.any()
    direction = rng.standard_normal(s.shape)
    step = 1e-6
    slope = (
        expected(np.float64(s) + step * direction) - expected(np.float64(s) - step * direction)
    ).sum() / (2 * step)
    close(np.sum(gradient * direction), slope, rtol=2e-3, atol=1e-5)

    # Rows that do not count may hold anything; the others are as if alone.
    bad_s, bad_t = (x.at[~WHERE].set(jnp.nan) for x in (s, t))
    (_, masked), (masked_gradient, _) = run(bad_s, bad_t, jnp.asarray(WHERE))
    close(masked, np.where(WHERE, values, 0), rtol=1e-5, atol=1e-7)
    close(masked_gradient[WHERE], gradient[WHERE], rtol=1e-4, atol=1e-6)
    assert not masked_gradient[~WHERE].any()

    # Large, opposite and dead features.
    for a, b in ((1e4 * s, -1e4 * t), (0 * s, t), (s, 0 * t), (0 * s, 0 * t)):
        (_, values), (gradient, _) = run(a, b, where)
        assert jnp.isfinite(values).all()
        assert jnp.isfinite(gradient).all()


@EVERY
def test_half_precision(name):
    s, t = (x.astype(jnp.bfloat16) for x in draw(name))
    values = jax.jit(LOSSES[name][0])(s, t)
    assert values.dtype == jnp.float32
    exact = jax.jit(LOSSES[name][0])(s.astype(jnp.float32), t.astype(jnp.float32))
    close(values.astype(jnp.float32), exact, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("name", ZERO_WHEN_EQUAL)
def test_nothing_to_learn_from_itself(name):
    s, _ = draw(name)
    close(jax.jit(LOSSES[name][0])(s, s), 0, atol=2e-6)


def test_every_step_lowers_for_every_platform():
    def total(features):
        return sum(jnp.sum(LOSSES[n][0](*features[n])) for n in LOSSES)

    features = {n: tuple(draw(n)) for n in LOSSES}
    jax.export.export(jax.jit(jax.grad(total)), platforms=("cpu", "cuda", "tpu"))(features)


# --- parts --------------------------------------------------------------------------------------


MEASURE = jax.jit(lambda x: (F.length(x), F.unit(x)))


@given(
    st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=6),
    st.sampled_from([1e-30, 1e-10, 1.0, 1e10, 1e30]),
)
@settings(max_examples=50, deadline=None)
def test_unit_and_length_at_any_scale(values, scale):
    x = np.zeros(6, np.float32)
    x[: len(values)] = np.float32(values) * np.float32(scale)
    exact = np.linalg.norm(x.astype(np.float64))
    if exact < 1e-36:
        x, exact = 0 * x, 0.0
    size, direction = MEASURE(x)
    close(size, exact, rtol=1e-5)
    close(direction, x / exact if exact else x, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 4), (5, 7)])
def test_adaptive_pool(rng, size):
    x = rng.standard_normal((2, 5, 7, 3))
    pooled = F.adaptive_average_pool(jnp.asarray(x, jnp.float32), size)
    close(pooled, [pool(a, *size) for a in x], atol=1e-6)


# --- what each one is for -----------------------------------------------------------------------


def test_attention_and_nst_ignore_what_they_should(rng):
    s, t = (jnp.asarray(rng.standard_normal((B, 4, 4, 3)), jnp.float32) for _ in range(2))
    turn = scipy.stats.ortho_group.rvs(3, random_state=0).astype(np.float32)
    close(F.attention_transfer(7 * s @ turn, t), F.attention_transfer(s, t), atol=1e-6)
    close(F.nst_loss(s[..., [2, 0, 1]], t), F.nst_loss(s, t), atol=1e-6)
    close(F.nst_loss(s * jnp.asarray([1, 5, 0.2]), t), F.nst_loss(s, t), atol=1e-6)
    assert (np.abs(F.nst_loss(s[:, ::-1], t) - F.nst_loss(s, t)) > 1e-4).all()  # where things are matters


def test_vid_learns_the_error(rng):
    m, f = (jnp.asarray(rng.standard_normal((64, 4, 3)) * [0.1, 1, 3], jnp.float32) for _ in range(2))
    error = np.mean((np.float64(m) - f) ** 2, axis=(0, 1))
    best = jnp.log(jnp.expm1(jnp.asarray(error - 1e-5, jnp.float32)))

    def loss(scale):
        return jnp.mean(F.vid_loss(m, f, scale))

    value, gradient = jax.value_and_grad(loss)(best)
    close(value, np.mean(0.5 * (1 + np.log(error))), rtol=1e-5)
    close(gradient, 0, atol=1e-6)
    assert loss(best + 0.3) > value < loss(best - 0.3)
    close(jax.nn.softplus(F.vid_raw_scale()) + 1e-5, 5, rtol=1e-6)
    fixed = jnp.full(3, F.vid_raw_scale(5.0))
    close(loss(fixed), jnp.mean(F.hint(m, f)) / 10 + np.log(5) / 2, rtol=1e-5)  # never trained: scaled MSE


def test_ofd_margin_is_a_truncated_mean():
    mean, scale = np.float32([0.0, 0.5, -1.0, 2.0, -3.0]), np.float32([1.0, -2.0, 0.5, 1.0, 0.1])
    fit = jax.jit(F.ofd_margin)
    margin = fit(jnp.asarray(mean), jnp.asarray(scale))
    for m, s, value in zip(mean, np.abs(scale), margin, strict=True):
        x = np.random.default_rng(0).normal(m, s, 200_000)
        below = x[x < 0]
        close(value, below.mean(), atol=5 * below.std() / np.sqrt(len(below)) + 1e-4)
    # Seldom negative: the authors' choice; no variance at all: the mean itself.
    close(fit(jnp.float32([4.0, 1.0, -1.0]), jnp.float32([-1.0, 0.0, 0.0])), [-3, 0, -1])
    edge = fit(jnp.float32([3.08, 3.10]), jnp.float32([1.0, 1.0]))
    close(edge, [scipy.stats.truncnorm.mean(-np.inf, -3.08, 3.08, 1), -3], rtol=1e-3)


def test_ofd_pays_for_one_side_only():
    t = jnp.float32([2.0, -0.2, -5.0])[None]
    margin = jnp.full(3, -0.5)
    below, above = jnp.float32([1.0, -9, -9])[None], jnp.float32([3.0, 0.0, 0.0])[None]
    close(F.ofd_loss(below, t, margin), [1])
    close(F.ofd_loss(above, t, margin), [1 + 0.04 + 0.25], rtol=1e-6)


def test_hcl_of_constant_maps():
    for size in (8, 4, 3, 1):
        s, t = jnp.full((2, size, size, 3), 1.5), jnp.full((2, size, size, 3), -0.5)
        close(jax.jit(F.hcl)(s, t), 4, rtol=1e-6)


def test_hidden_states_of_tokens(rng):
    s, t = (jnp.asarray(rng.standard_normal((2, 4, 6)), jnp.float32) for _ in range(2))
    mask = jnp.asarray([[True, True, True, False], [True, False, False, False]])
    for loss in (F.hidden_mse, F.hidden_cross_entropy, F.cosine_distance, F.pkd):
        values = jax.jit(loss)(s, t, where=mask)
        assert values.shape == mask.shape
        assert not values[~mask].any()
        flat = jax.jit(loss)(s.reshape(8, 6), t.reshape(8, 6))
        close(values[mask], flat.reshape(2, 4)[mask], rtol=1e-6)
    close(F.pkd(s, t), 2 * F.cosine_distance(s, t), rtol=1e-5)
    shifted = F.hidden_cross_entropy(s + 3, t - 2)
    close(shifted, F.hidden_cross_entropy(s, t), rtol=1e-5)
    gradient = jax.grad(lambda x: F.hidden_cross_entropy(x, t).sum())(s)
    close(gradient, scipy.special.softmax(s, -1) - scipy.special.softmax(t, -1), atol=1e-6)


def test_layer_map():
    assert F.layer_map("skip", 12, 4) == ((0, 0), (1, 3), (2, 6), (3, 9), (4, 12))
    assert F.layer_map("last", 12, 4) == ((0, 8), (1, 9), (2, 10), (3, 11), (4, 12))
    assert F.layer_map("skip", 12, 5) == tuple((i, int(i * 12 / 5)) for i in range(6))
    with pytest.raises(ValueError, match="use 'skip'"):
        F.layer_map("last", 4, 12)
    with pytest.raises(ValueError, match="at least one layer"):
        F.layer_map("skip", 4, 0)
