"""The optimisers of the condensation protocols against a float64 copy of torch's Adam."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jgd.optim import adam_l2, restart_at

close = np.testing.assert_allclose
START = np.asarray([1.0, -2.0, 0.5])
STEPS = 11


def gradient(x, xp=np):
    return xp.asarray([2.0, 0.3, -1.0]) * x + xp.sin(3 * x)


def torch_adam(lr, weight_decay, decay, steps=STEPS):
    """``torch.optim.Adam(lr, weight_decay)``, made anew with ``decay * lr`` at half of the steps."""
    x, path = START.copy(), []
    for i in range(steps):
        if i in (0, steps // 2):
            rate, t, m, v = lr if i < steps // 2 else lr * decay, 0, 0.0, 0.0
        g = gradient(x) + weight_decay * x
        t, m, v = t + 1, 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        x = x - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        path.append(x)
    return np.stack(path)


def follow(tx, steps=STEPS):
    def step(carry, _):
        x, state = carry
        updates, state = tx.update(gradient(x, jnp), state, x)
        x = optax.apply_updates(x, updates)
        return (x, state), x

    x = jnp.asarray(START, jnp.float32)
    return jax.jit(lambda: jax.lax.scan(step, (x, tx.init(x)), length=steps)[1])()


@pytest.mark.parametrize(
    ("lr", "weight_decay", "decay"), [(0.1, 0.0, 0.1), (0.1, 0.5, 0.1), (0.02, 0.1, 1.0)]
)
def test_adam_l2(lr, weight_decay, decay):
    tx = adam_l2(lr, weight_decay, num_steps=STEPS, decay=decay)
    close(follow(tx), torch_adam(lr, weight_decay, decay), rtol=1e-4, atol=1e-5)


def test_one_step():
    close(follow(adam_l2(0.1, num_steps=1), 1), torch_adam(0.1, 0.0, 0.1, 1), rtol=1e-5)


def test_restart():
    """Before its update number 4 an optimiser forgets: the first steps of a new one follow."""
    restarted = follow(restart_at(optax.trace(0.9), 4), 8)
    x = jnp.asarray(START, jnp.float32)
    plain = optax.trace(0.9)
    state = plain.init(x)
    for i in range(8):
        if i == 4:
            state = plain.init(x)
        updates, state = plain.update(gradient(x, jnp), state, x)
        x = optax.apply_updates(x, updates)
        close(restarted[i], x, rtol=1e-5)
    assert not np.allclose(restarted[7], follow(restart_at(optax.trace(0.9), 100), 8)[7])


def test_restart_passes_extra_arguments_on():
    tx = restart_at(optax.scale_by_backtracking_linesearch(max_backtracking_steps=5), 2)
    x, state = jnp.ones(2), tx.init(jnp.ones(2))
    value_fn = lambda x: jnp.sum(x**2)  # noqa: E731
    g = jax.grad(value_fn)(x)
    updates, state = tx.update(-g, state, x, value=value_fn(x), grad=g, value_fn=value_fn)
    assert value_fn(x + updates) < value_fn(x)


def test_hyperparameters_may_be_traced():
    def last(lr, wd):
        return follow_traced(adam_l2(lr, wd, num_steps=STEPS))

    def follow_traced(tx):
        x = jnp.asarray(START, jnp.float32)
        state = tx.init(x)
        for _ in range(3):
            updates, state = tx.update(gradient(x, jnp), state, x)
            x = optax.apply_updates(x, updates)
        return x

    rates, decays = jnp.asarray([0.1, 0.02]), jnp.asarray([0.0, 0.1])
    both = jax.jit(jax.vmap(last))(rates, decays)
    for i in range(2):
        close(both[i], torch_adam(float(rates[i]), float(decays[i]), 0.1)[2], rtol=1e-4, atol=1e-5)
