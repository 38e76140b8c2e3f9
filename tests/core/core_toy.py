"""What the tests of this folder share: a tiny problem, a tiny network, hand-written trainers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jgd.core import Algorithm, Examples, from_linen, objective, train

X = 1.4 * np.sin(np.arange(72.0) ** 2).reshape(24, 3).astype(np.float32)
_NOISE = np.cos(np.arange(48.0) ** 2).reshape(24, 2).astype(np.float32)
Y = X @ np.float32([[0.5, -1], [1, 0.3], [-0.7, 0.8]]) + 0.1 * _NOISE
DATA = Examples((X,), Y)


class Linear(nn.Module):
    width: int = 2

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(self.width, name="out")(x)


class Noisy(nn.Module):
    """Dropout and batch statistics: every key and every state counts."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(4, use_bias=False, name="in")(x)
        x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
        x = nn.Dropout(0.3)(x, deterministic=not (train and self.has_rng("dropout")))
        return nn.Dense(2, name="out")(x)


LINEAR = from_linen(Linear())
NOISY = from_linen(Noisy())


def mse(ctx):
    return jnp.mean((ctx.outputs["model"].logits - ctx.batch.targets) ** 2)


def _jitter(key, t, data, batch):
    """Every key counts, and costs little to compile."""
    batch = data if batch is None else batch
    x = batch.inputs[0]
    return batch, {"model": (x + 0.1 * jax.random.normal(key, x.shape),)}


JITTERED = train(LINEAR, objective(mse), optax.adam(1e-2), prepare=_jitter)


def python_loop(alg, key, data, num_steps, batches=None):
    """The contract of the driver, as plain as it can be said."""
    batch_at = (lambda t: None) if batches is None else batches
    init, step = jax.jit(alg.init), jax.jit(alg.step)
    state = init(jax.random.fold_in(key, 0), data, batch_at(0))
    rows = []
    for t in range(num_steps):
        k = jax.random.fold_in(jax.random.fold_in(key, 1), t)
        state, metrics = step(k, np.int32(t), state, data, batch_at(t))
        rows.append(jax.tree.map(np.asarray, metrics))
    return state, rows


def scripted(values, extra=None):
    """An algorithm that does nothing but show the numbers of a script: state, product and loss."""
    values = jnp.asarray(values, jnp.float32)

    def init(key, data, batch):
        return {"at": jnp.full((), -1.0), "steps": jnp.zeros((), jnp.int32)}

    def step(key, t, state, data, batch):
        new = {"at": values[jnp.minimum(t, len(values) - 1)], "steps": state["steps"] + 1}
        return new, {"loss": jnp.zeros(())} | ({} if extra is None else extra(t))

    return Algorithm(init, step, lambda state, data: state)


def same(a, b, **tolerance):
    """Equal trees of arrays: to the bit, or to a tolerance."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if tolerance:
            np.testing.assert_allclose(x, y, **tolerance)
        else:
            np.testing.assert_array_equal(x, y)


def sgd(lr=0.1):
    return optax.sgd(lr, momentum=0.9)
