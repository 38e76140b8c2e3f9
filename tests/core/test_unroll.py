"""Unrolled gradients against finite differences, closed forms and plain differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgd.core.bilevel import unroll

close = np.testing.assert_allclose


def quadratic(rng, size=4):
    """``|A θ - b|² / 2`` with a well-conditioned A, as float64 arrays."""
    a = rng.standard_normal((size + 2, size)) / 2
    return a, rng.standard_normal(size + 2), rng.standard_normal(size)


def descend(a, b, rate, start, num_steps, segment=None):
    def step(theta, i):
        del i
        return theta - rate * a.T @ (a @ theta - b)

    return unroll(step, start, num_steps, segment=segment)


@pytest.mark.parametrize("segment", [None, 1, 3, 4, 12, 50])
def test_quadratic_closed_form(rng, segment):
    """θ_p = S^p θ_0 + Σ_k S^k η A^T b with S = I - η A^T A; the derivatives in θ_0 and b are linear maps."""
    a, b, start = quadratic(rng)
    rate, steps = 0.2, 12
    s = np.eye(4) - rate * a.T @ a
    powers = [np.linalg.matrix_power(s, k) for k in range(steps + 1)]
    through = sum(powers[:steps]) @ (rate * a.T)
    end = jax.jit(lambda b, x: descend(a, b, rate, x, steps, segment))(b, start)
    close(end, powers[steps] @ start + through @ b, rtol=1e-5)
    by_b, by_start = jax.jacobian(lambda b, x: descend(a, b, rate, x, steps, segment), (0, 1))(
        jnp.asarray(b), jnp.asarray(start)
    )
    close(by_start, powers[steps], rtol=1e-4, atol=1e-6)
    close(by_b, through, rtol=1e-4, atol=1e-6)


def mlp(params, x):
    return jnp.tanh(x @ params["in"]) @ params["out"]


def trained(x, rate, num_steps, segment=None):
    """How well a small network fits after some steps on learned inputs, from a fixed start."""
    rng = np.random.default_rng(1)
    params = {"in": jnp.asarray(rng.standard_normal((3, 4))), "out": jnp.asarray(rng.standard_normal((4, 2)))}
    y, probe = jnp.asarray(rng.standard_normal((5, 2))), jnp.asarray(rng.standard_normal((6, 3)))

    def step(p, i):
        grads = jax.grad(lambda p: jnp.mean((mlp(p, x) - y) ** 2))(p)
        return jax.tree.map(lambda p, g: p - rate * (1 + 0.1 * i) * g, p, grads)

    return jnp.sum(mlp(unroll(step, params, num_steps, segment=segment), probe) ** 2)


@pytest.mark.parametrize("segment", [None, 2])
def test_finite_differences(rng, segment):
    """Three steps, in float64: gradients in the inputs and in the step size."""
    with jax.enable_x64(True):
        x = jnp.asarray(rng.standard_normal((5, 3)))
        value = jax.jit(lambda x, r: trained(x, r, 3, segment))
        by_x, by_rate = jax.grad(value, (0, 1))(x, 0.3)
        h = 1e-5
        for i, j in ((0, 0), (2, 1), (4, 2)):
            e = jnp.zeros_like(x).at[i, j].set(h)
            close(by_x[i, j], (value(x + e, 0.3) - value(x - e, 0.3)) / (2 * h), rtol=1e-6, atol=1e-9)
        close(by_rate, (value(x, 0.3 + h) - value(x, 0.3 - h)) / (2 * h), rtol=1e-6)


def test_segments_change_nothing(rng):
    """Also where the steps do not fill the segments, and with the step number counting through."""
    x = jnp.asarray(rng.standard_normal((5, 3)), jnp.float32)
    plain, found = [jax.jit(jax.value_and_grad(lambda x, s=s: trained(x, 0.1, 7, s)))(x) for s in (None, 3)]
    for a, b in zip(plain, found, strict=True):
        close(a, b, rtol=1e-5, atol=1e-6)


def test_step_numbers_and_no_steps():
    for segment in (None, 1, 2, 3, 9):
        total = unroll(lambda s, i: 10 * s + i, jnp.asarray(0), 5, segment=segment)
        assert int(total) == 1234, segment
    start = {"a": jnp.arange(3.0)}
    np.testing.assert_array_equal(unroll(lambda s, i: s, start, 0)["a"], start["a"])
    gradient = jax.grad(lambda x: unroll(lambda s, i: s * x, x, 0, segment=2) ** 2)(3.0)
    assert float(gradient) == 6.0


@pytest.mark.parametrize(
    ("changes", "message"), [({"num_steps": -1}, "num_steps"), ({"segment": 0}, "segment")]
)
def test_impossible_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        unroll(lambda s, i: s, jnp.zeros(()), **{"num_steps": 3, **changes})


def wide(x, num_steps, segment, checkpointed=True):
    """Steps that compute much more inside than they keep."""

    def step(s, i):
        h = jnp.sin(s[:, None] * jnp.linspace(0.5, 1.5, 64) + i)
        return s + 0.01 * jnp.mean(jnp.cos(h * x), axis=1)

    start = jnp.linspace(0, 1, 512)
    if checkpointed:
        return jnp.sum(unroll(step, start, num_steps, segment=segment) ** 2)
    return jnp.sum(jax.lax.scan(lambda s, i: (step(s, i), None), start, jnp.arange(num_steps))[0] ** 2)


def test_memory():
    """Compiled programs need one state for each step, and with segments about 2 √p of them."""

    def megabytes(fn):
        return jax.jit(jax.grad(fn)).lower(1.0).compile().memory_analysis().temp_size_in_bytes / 2**20

    steps = 400
    state = 512 * 4 / 2**20
    naive = megabytes(lambda x: wide(x, steps, None, checkpointed=False))
    plain, segments = (megabytes(lambda x, s=s: wide(x, steps, s)) for s in (None, 20))
    inside = 64 * state
    assert plain < steps * state + 8 * inside, (plain, state)
    assert segments < 0.35 * steps * state + 8 * inside, (segments, state)
    assert naive > 10 * plain, (naive, plain)
    assert segments < plain
