"""Networks of either Flax API as pure functions: the four modes, state, sharing, transformations."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jgd.core import Bound, Outputs, bind, from_linen, from_nnx

X = np.random.default_rng(0).normal(size=(16, 5)).astype(np.float32)
MOMENTUM = 0.9


class Linen(nn.Module):
    """Batch normalisation, then dropout: each mode is visible in the output."""

    rate: float = 0.5
    wrap: bool = True

    @nn.compact
    def __call__(self, x, train=False):
        h = nn.BatchNorm(use_running_average=not train, momentum=MOMENTUM, name="norm")(x)
        drop = not train or not self.has_rng("dropout")
        y = nn.Dropout(self.rate)(h, deterministic=drop)
        return Outputs(logits=y, embedding=h, taps={"input": x}) if self.wrap else y


class Sampling(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return x + jax.random.normal(self.make_rng("sample"), x.shape) if self.has_rng("sample") else x


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(5, 5, rngs=rngs)
        self.norm = nnx.BatchNorm(5, momentum=MOMENTUM, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        h = self.norm(self.dense(x))
        return Outputs(logits=self.drop(h), embedding=h)


def normalised(x):
    return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)


def linear(params, x):
    return x @ np.asarray(params["dense"]["kernel"][...]) + np.asarray(params["dense"]["bias"][...])


def test_linen_modes():
    model = from_linen(Linen())
    params, state = model.init(jax.random.key(0), X)
    assert set(params) == {"norm"}
    assert set(state) == {"batch_stats"}
    key = jax.random.key(1)

    for k in (None, key):  # evaluation: running statistics (0 and 1), no dropout, state as it was
        outputs, after = model.apply(params, state, X, key=k, train=False)
        np.testing.assert_allclose(outputs.logits, X / np.sqrt(1 + 1e-5), rtol=1e-5)
        np.testing.assert_array_equal(outputs.taps["input"], X)
        assert after is state

    outputs, after = model.apply(params, state, X, train=True)  # batch statistics, no dropout
    np.testing.assert_allclose(outputs.logits, normalised(X), atol=1e-5)
    stats = after["batch_stats"]["norm"]
    np.testing.assert_allclose(stats["mean"], (1 - MOMENTUM) * X.mean(0), atol=1e-6)
    np.testing.assert_allclose(stats["var"], MOMENTUM + (1 - MOMENTUM) * X.var(0), atol=1e-6)
    np.testing.assert_array_equal(state["batch_stats"]["norm"]["mean"], 0)

    outputs, after = model.apply(params, state, X, key=key, train=True)  # training
    kept = np.asarray(outputs.logits) != 0
    assert 0.2 < kept.mean() < 0.8
    np.testing.assert_allclose(outputs.logits, np.where(kept, 2 * normalised(X), 0), atol=1e-5)
    np.testing.assert_allclose(after["batch_stats"]["norm"]["mean"], stats["mean"])


def test_linen_sampling_is_independent_of_train():
    model = from_linen(Sampling())
    params, state = model.init(jax.random.key(0), X)
    assert params == {}
    assert state == {}
    np.testing.assert_array_equal(model.apply(params, state, X)[0].logits, X)
    for train in (False, True):
        a, b = (model.apply(params, state, X, key=jax.random.key(k), train=train)[0].logits for k in (1, 2))
        assert np.abs(a - b).min() > 0


def test_linen_logits_become_outputs():
    plain, wrapped = from_linen(Linen(wrap=False)), from_linen(Linen())
    params, state = plain.init(jax.random.key(0), X)
    a, b = (m.apply(params, state, X, key=jax.random.key(3), train=True)[0] for m in (plain, wrapped))
    assert isinstance(a, Outputs)
    assert a.embedding is None
    np.testing.assert_array_equal(a.logits, b.logits)


def test_equal_modules_share_their_functions():
    assert from_linen(Linen(rate=0.3)) is from_linen(Linen(rate=0.3))
    assert from_linen(Linen(rate=0.3)).apply is not from_linen(Linen(rate=0.4)).apply


def test_unhashable_module():
    class Stack(nn.Module):
        layers: list

        @nn.compact
        def __call__(self, x, train=False):
            for layer in self.layers:
                x = layer(x)
            return x

    model = from_linen(Stack([nn.Dense(3), nn.relu]))
    params, state = model.init(jax.random.key(0), X)
    assert model.apply(params, state, X)[0].logits.shape == (16, 3)


def test_bound_is_a_pytree():
    model = from_linen(Linen())
    bound = bind(model, *model.init(jax.random.key(0), X))
    leaves, structure = jax.tree.flatten(bound)
    assert len(leaves) == 4
    assert isinstance(structure.unflatten(leaves), Bound)

    @jax.jit
    def evaluate(bound, x):
        return bound(x).logits, bound

    logits, back = evaluate(bound, X)
    np.testing.assert_allclose(logits, bound(X).logits, rtol=1e-6)
    np.testing.assert_array_equal(back(X).logits, bound(X).logits)
    evaluate(bind(from_linen(Linen()), bound.params, bound.state), X)  # an equal module: nothing to compile
    assert evaluate._cache_size() == 1

    many = jax.vmap(lambda k: bind(model, *model.init(k, X)))(jax.random.split(jax.random.key(0), 3))
    assert jax.vmap(lambda b: b(X).logits)(many).shape == (3, 16, 5)


def test_nnx_modes():
    model = from_nnx(Nnx)
    params, state = model.init(jax.random.key(0), X)
    h = linear(params, X)
    key = jax.random.key(1)
    for k in (None, key):
        outputs, after = model.apply(params, state, X, key=k, train=False)
        np.testing.assert_allclose(outputs.logits, h / np.sqrt(1 + 1e-5), rtol=1e-4, atol=1e-6)
        assert after is state

    outputs, after = model.apply(params, state, X, train=True)
    np.testing.assert_allclose(outputs.logits, normalised(h), atol=1e-4)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    np.testing.assert_allclose(after["norm"]["mean"][...], (1 - MOMENTUM) * h.mean(0), atol=1e-5)
    np.testing.assert_allclose(after["norm"]["var"][...], MOMENTUM + (1 - MOMENTUM) * h.var(0), atol=1e-5)
    np.testing.assert_array_equal(state["norm"]["mean"][...], 0)

    outputs, _ = model.apply(params, state, X, key=key, train=True)
    kept = np.asarray(outputs.logits) != 0
    assert 0.2 < kept.mean() < 0.8
    np.testing.assert_allclose(outputs.logits, np.where(kept, 2 * normalised(h), 0), atol=1e-4)


def test_nnx_under_transformations():
    model = from_nnx(Nnx)
    params, state = jax.jit(model.init)(jax.random.key(0), X)  # the first call of all is a traced one
    eager = model.init(jax.random.key(0), X)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), (params, state), eager)
    keys = jax.random.split(jax.random.key(1), 4)

    def run(k):
        return model.apply(params, state, X, key=k, train=True)[0].logits

    singly = np.stack([run(k) for k in keys])
    np.testing.assert_allclose(jax.vmap(jax.jit(run))(keys), singly, rtol=1e-5, atol=1e-6)
    assert len({row.tobytes() for row in singly != 0}) == 4  # each key has a mask of its own

    inputs = jnp.asarray(X)

    def loss(p, weight):
        return jnp.vdot(weight, model.apply(p, state, inputs)[0].logits)

    weight = np.ones((16, 5), np.float32)
    grads = jax.jit(jax.grad(loss))(params, weight)
    expected = X.T @ weight / np.sqrt(1 + 1e-5)  # d/dW of 1' (XW + b) / sqrt(1 + eps)
    np.testing.assert_allclose(grads["dense"]["kernel"][...], expected, rtol=1e-4, atol=1e-5)
    many = jax.vmap(model.init)(keys)
    assert many[0]["dense"]["kernel"][...].shape == (4, 5, 5)


def test_nnx_bound_passes_through_jit():
    model = from_nnx(Nnx)
    bound = bind(model, *model.init(jax.random.key(0), X))
    np.testing.assert_allclose(jax.jit(lambda b: b(X).logits)(bound), bound(X).logits, rtol=1e-5)


def test_linen_needs_train():
    with pytest.raises(TypeError):
        from_linen(nn.Dense(3)).init(jax.random.key(0), X)
