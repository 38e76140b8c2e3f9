"""Networks of either Flax API as pure functions: the four modes, state, sharing, transformations."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jgd.core import (
    Bound,
    Model,
    Outputs,
    as_bound,
    as_float,
    as_key,
    as_model,
    bind,
    from_linen,
    from_nnx,
    stacked,
)
from jgd.core.model import starts_given

X = np.sin(np.arange(80.0) ** 2).reshape(16, 5).astype(np.float32)
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
        return Outputs(y, embedding=h, taps={"input": x}) if self.wrap else y


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
        return Outputs(self.drop(h), embedding=h)


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


class Training(nn.Module):
    """Told by another name whether it trains."""

    @nn.compact
    def __call__(self, x, training):
        return nn.BatchNorm(use_running_average=not training)(x)


class Deterministic(nn.Module):
    @nn.compact
    def __call__(self, x, deterministic=True):
        return nn.Dropout(0.5)(x, deterministic=deterministic)


def test_linen_modules_are_told_what_they_ask_for():
    model = from_linen(nn.Dense(3))  # has no argument of the kind
    params, state = model.init(jax.random.key(0), X)
    for train in (False, True):
        np.testing.assert_allclose(
            model.apply(params, state, X, train=train)[0].logits, X @ params["kernel"], rtol=1e-5
        )
    model = from_linen(Training())
    params, state = model.init(jax.random.key(0), X)
    np.testing.assert_allclose(model.apply(params, state, X, train=True)[0].logits, normalised(X), atol=1e-5)
    model = from_linen(Deterministic())
    np.testing.assert_array_equal(model.apply({}, {}, X, train=True)[0].logits, X)  # no key: no dropout
    np.testing.assert_array_equal(model.apply({}, {}, X, key=jax.random.key(0))[0].logits, X)
    dropped = model.apply({}, {}, X, key=jax.random.key(0), train=True)[0].logits
    assert 0.2 < np.mean(np.asarray(dropped) == 0) < 0.8


# --- intermediate values of foreign modules --------------------------------------------------------


class Block(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.BatchNorm(use_running_average=not train, momentum=MOMENTUM)(nn.Dense(self.width)(x))
        self.sow("intermediates", "before", x)
        return nn.Dropout(0.5, deterministic=not (train and self.has_rng("dropout")))(nn.relu(x))


class Foreign(nn.Module):
    """Returns an array and knows nothing of taps; a branch that costs much hangs on the first block."""

    @nn.compact
    def __call__(self, x, train=False):
        shared = nn.Dense(4)
        x = shared(shared(Block(4)(x, train=train)))
        side = Block(64)(x, train=train)
        return nn.Dense(2)(x) + 0 * side.shape[0]


TAPS = {
    "first": "Block_0",
    "inner": "Block_0/Dense_0",
    "sown": "Block_0/before",
    "twice": "Dense_0",
    "side": "Block_1",
}


def forward(params, x):
    """The module in NumPy, in evaluation."""

    def dense(p, x):
        return x @ np.asarray(p["kernel"], np.float64) + np.asarray(p["bias"], np.float64)

    inner = dense(params["Block_0"]["Dense_0"], np.asarray(x, np.float64))
    sown = inner / np.sqrt(1 + 1e-5)
    first = np.maximum(sown, 0)
    once = dense(params["Dense_0"], first)
    twice = dense(params["Dense_0"], once)
    side = np.maximum(dense(params["Block_1"]["Dense_0"], twice) / np.sqrt(1 + 1e-5), 0)
    taps = {"first": first, "inner": inner, "sown": sown, "twice": (once, twice), "side": side}
    return dense(params["Dense_1"], twice), taps


def close(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)


@pytest.mark.long
def test_taps_of_a_linen_module():
    model, plain, x = from_linen(Foreign(), taps=TAPS), from_linen(Foreign()), X[:, :4]
    params, state = jax.jit(model.init)(jax.random.key(0), x)
    same = plain.init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, (params, state), same)
    for apply in (model.apply, jax.jit(model.apply)):
        outputs, after = apply(params, state, x)
        close((outputs.value, dict(outputs.taps)), forward(params, x))
    assert model.apply(params, state, x)[1] is state

    key = jax.random.key(1)  # what is not tapped stays as it is: dropout, batch statistics
    outputs, after = model.apply(params, state, x, key=key, train=True)
    expected, later = plain.apply(params, state, x, key=key, train=True)
    np.testing.assert_array_equal(outputs.value, expected.value)
    jax.tree.map(np.testing.assert_array_equal, after, later)
    inner = forward(params, x)[1]["inner"]
    np.testing.assert_allclose(outputs.taps["sown"], normalised(inner), atol=1e-4)
    kept = np.asarray(outputs.taps["first"]) != 0
    np.testing.assert_allclose(outputs.taps["first"][kept], 2 * normalised(inner)[kept], atol=1e-4)


@pytest.mark.long
def test_gradients_and_batches_of_taps():
    model, x = from_linen(Foreign(), taps=TAPS), X[:, :4]
    params, state = model.init(jax.random.key(0), x)
    grads = jax.jit(jax.grad(lambda p: jnp.sum(model.apply(p, state, x)[0].taps["first"])))(params)
    active = forward(params, x)[1]["first"] > 0
    np.testing.assert_allclose(
        grads["Block_0"]["Dense_0"]["kernel"], x.T @ active / np.sqrt(1 + 1e-5), rtol=1e-4, atol=1e-5
    )
    assert not np.any(grads["Dense_1"]["kernel"])
    keys = jax.random.split(jax.random.key(0), 3)
    many = jax.vmap(lambda k: model.apply(*model.init(k, x), x)[0].taps["side"])(keys)
    np.testing.assert_allclose(
        many[2], forward(model.init(keys[2], x)[0], x)[1]["side"], rtol=1e-4, atol=1e-5
    )


def test_taps_that_are_not_read_cost_nothing():
    x = X[:, :4]
    params, state = from_linen(Foreign()).init(jax.random.key(0), x)

    def flops(model, read):
        run = jax.jit(lambda p, x: read(model.apply(p, state, x)[0]))
        return run.lower(params, x).compile().cost_analysis()["flops"]

    tapped = from_linen(Foreign(), taps=TAPS)
    assert flops(tapped, lambda out: out.value) == flops(from_linen(Foreign()), lambda out: out.value)
    assert flops(tapped, lambda out: out.taps["side"]) > flops(tapped, lambda out: out.value)


class Layers(nnx.Module):
    def __init__(self, rngs):
        self.encoder = nnx.Sequential(nnx.Linear(5, 4, rngs=rngs), nnx.relu, nnx.Linear(4, 3, rngs=rngs))
        self.head = nnx.Linear(3, 3, rngs=rngs)
        self.norm = nnx.BatchNorm(3, momentum=MOMENTUM, rngs=rngs)
        self.unused = nnx.Linear(3, 3, rngs=rngs)

    def __call__(self, x):
        return self.norm(self.head(self.head(self.encoder(x))))


@pytest.mark.long
def test_taps_of_an_nnx_module():
    taps = {"hidden": "encoder/layers/2", "first": "encoder.layers.0", "head": "head"}
    model, plain = from_nnx(Layers, taps=taps), from_nnx(Layers)
    params, state = jax.jit(model.init)(jax.random.key(0), X)

    def dense(p, x):
        return x @ np.asarray(p["kernel"][...], np.float64) + np.asarray(p["bias"][...], np.float64)

    first = dense(params["encoder"]["layers"][0], X)
    hidden = dense(params["encoder"]["layers"][2], np.maximum(first, 0))
    once = dense(params["head"], hidden)
    twice = dense(params["head"], once)
    for apply in (model.apply, jax.jit(model.apply)):
        outputs, _ = apply(params, state, X)
        close(dict(outputs.taps), {"hidden": hidden, "first": first, "head": (once, twice)})
        close(outputs.value, twice / np.sqrt(1 + 1e-5))
    outputs, after = model.apply(params, state, X, train=True)
    expected, later = plain.apply(params, state, X, train=True)
    np.testing.assert_array_equal(outputs.value, expected.value)
    jax.tree.map(np.testing.assert_array_equal, after, later)
    grads = jax.grad(lambda p: jnp.sum(model.apply(p, state, X)[0].taps["hidden"]))(params)
    expected = np.maximum(first, 0).T @ np.ones((16, 3))
    np.testing.assert_allclose(grads["encoder"]["layers"][2]["kernel"][...], expected, rtol=1e-4, atol=1e-5)
    many = jax.vmap(lambda k: model.apply(*model.init(k, X), X)[0].taps["hidden"])(
        jax.random.split(jax.random.key(0), 3)
    )
    assert many.shape == (3, 16, 3)


def test_equal_taps_share_their_functions():
    reverse = dict(reversed(TAPS.items()))
    assert from_linen(Foreign(), taps=TAPS) is from_linen(Foreign(), taps=reverse)
    assert from_linen(Foreign(), taps=TAPS) is not from_linen(Foreign(), taps={"first": "Block_0"})
    assert from_linen(Foreign(), taps={}) is from_linen(Foreign())
    assert from_nnx(Layers, taps={"a": "head"}) is from_nnx(Layers, taps={"a": "head"})
    assert from_nnx(Layers, taps={"a": "head"}) is not from_nnx(Layers)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (from_linen(Foreign(), taps={"a": "Block_9"}), "tap 'a': the network has no 'Block_9', but Block_"),
        (from_linen(Foreign(), taps={"a": "Block_0/Dense"}), "no 'Block_0/Dense', but Block_0/Dense_0"),
        (from_linen(Linen(), taps={"input": "norm"}), "a tap of this name already"),
        (from_nnx(Layers, taps={"a": "encoder/layers/3"}), "no 'encoder/layers/3', but encoder/layers/"),
        (from_nnx(Layers, taps={"a": "unused"}), "does not call 'unused'"),
    ],
)
def test_taps_that_are_not_there(model, message):
    params, state = model.init(jax.random.key(0), X)
    with pytest.raises(ValueError, match=message) as caught:
        model.apply(params, state, X)
    assert "\n" not in str(caught.value)


# --- bound networks as functions and as data --------------------------------------------------------

DENSE = from_linen(nn.Dense(3))
EXAMPLE = (jax.ShapeDtypeStruct((5,), np.float32),)


def dense(seed=0):
    return Bound(*DENSE.init(jax.random.key(seed), X), DENSE, EXAMPLE)


@pytest.mark.long
def test_a_bound_network_goes_through_transformations_as_a_function():
    net = dense()
    expected = X @ np.asarray(net.params["kernel"])
    for call in (net, jax.jit(net), jax.vmap(net), jax.jit(jax.vmap(net)), lambda x: jax.lax.map(net, x)):
        np.testing.assert_allclose(call(X).logits, expected, rtol=1e-5)
    np.testing.assert_allclose(net(X[0]).logits, expected[0], rtol=1e-5)
    np.testing.assert_allclose(jax.jit(net)(X[0]).logits, expected[0], rtol=1e-5)
    jacobian = jax.jacobian(lambda x: net(x).logits)(jnp.asarray(X[0]))
    np.testing.assert_allclose(jacobian, np.asarray(net.params["kernel"]).T, rtol=1e-5)
    static = jax.jit(lambda net, x: net(x).logits, static_argnums=0)
    np.testing.assert_allclose(static(net, X), expected, rtol=1e-5)


def test_a_bound_network_is_hashed_and_compared_by_identity():
    net, twin = dense(), dense()
    assert {net: 1, twin: 2}[net] == 1
    assert net != twin
    assert len({net, twin, net}) == 2


def test_stacked_networks_are_vmapped_and_told_when_they_are_not():
    nets = jax.tree.map(lambda *leaves: jnp.stack(leaves), dense(0), dense(1))
    assert stacked(nets) == 2
    assert stacked(dense()) is None
    assert jax.vmap(lambda net: jnp.asarray(stacked(net) is None))(nets).all()
    both = jax.vmap(lambda net: net(X).logits)(nets)
    np.testing.assert_allclose(both[1], dense(1)(X).logits, rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(lambda net: net(X[2]).logits)(nets), both[:, 2], rtol=1e-5)
    each = jax.vmap(lambda net, x: net(x).logits, in_axes=(0, None))(nets, X)
    np.testing.assert_allclose(each, both, rtol=1e-6)
    with pytest.raises(ValueError, match=r"2 networks with a leading axis.*jax\.vmap"):
        nets(X)
    unknown = Bound(nets.params, nets.state, nets.model)
    assert stacked(unknown) is None
    assert stacked(unknown, X) == 2
    assert stacked(dense(), X) is None


def test_inputs_of_another_shape_are_told():
    with pytest.raises(ValueError, match=r"inputs of shape \[B, 5\].*got \[16, 4\]") as raised:
        dense()(X[:, :4])
    assert "\n" not in str(raised.value)


def test_pixels_are_scaled_where_a_network_is_called():
    pixels = np.arange(80, dtype=np.uint8).reshape(16, 5)
    net = dense()
    scaled = net(pixels.astype(np.float32) / 255).logits  # XLA multiplies by the rounded reciprocal
    np.testing.assert_allclose(net(pixels).logits, scaled, rtol=1e-5)
    np.testing.assert_allclose(net(pixels[0]).logits, net(pixels).logits[0], rtol=1e-5)
    np.testing.assert_allclose(jax.jit(net)(pixels).logits, net(pixels).logits, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(net)(pixels).logits, net(pixels).logits, rtol=1e-5)
    ids = np.ones((2, 5), np.int32)
    assert as_float(ids) is ids


def test_its_name_is_one_line():
    assert repr(dense()) == "Bound(Dense, 18 parameters, one example: float32 [5])"
    assert repr(jax.tree.map(lambda leaf: object(), dense())).startswith("Bound(Dense, 2 ")


# --- what is taken as a network, as a teacher and as a key ----------------------------------------


def test_an_nnx_module_has_its_parameters():
    module = nnx.Linear(5, 3, rngs=nnx.Rngs(3))
    expected = X @ np.asarray(module.kernel[...])
    np.testing.assert_allclose(as_bound(module)(X).logits, expected, rtol=1e-5)
    model = as_model(module)
    assert starts_given(model)
    assert not starts_given(from_nnx(Nnx))
    bound = bind(model, *model.init(jax.random.key(9), X))
    np.testing.assert_allclose(jax.jit(bound)(X).logits, expected, rtol=1e-5)
    drop = as_bound(Nnx(nnx.Rngs(0)))
    assert np.any(np.asarray(drop(X, key=jax.random.key(0), train=True).logits) == 0)
    assert not np.any(np.asarray(drop(X).logits) == 0)


def test_a_function_is_a_teacher():
    net = as_bound(lambda x: 2 * x)
    np.testing.assert_array_equal(net(X).logits, 2 * X)

    class Scale:
        __hash__ = None

        def __call__(self, x):
            return 3 * x

    np.testing.assert_array_equal(as_bound(Scale())(X).logits, 3 * X)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Linen(), "has no parameters: train it"),
        (from_linen(Linen()), "has no parameters: train it"),
        (Linen, "got Linen"),
        (3, "got a int"),
    ],
)
def test_what_cannot_teach_is_refused(net, message):
    with pytest.raises(ValueError, match=message):
        as_bound(net)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Linen, "got Linen: call it"),
        (lambda x: x, "got a function"),
        (dense(), r"give its model \(net.model\)"),
    ],
)
def test_what_is_no_network_is_refused(net, message):
    with pytest.raises(ValueError, match=message):
        as_model(net)


def test_a_model_may_return_bare_logits_but_not_without_a_state():
    bare = Model(lambda k, x: ((), ()), lambda p, s, x, key=None, train=False: (3 * x, s))
    np.testing.assert_array_equal(bind(bare, ())(X).logits, 3 * X)
    for result in (X, Outputs(X), (X, (), ())):
        model = bare._replace(apply=lambda *a, result=result, **k: result)
        with pytest.raises(ValueError, match="must return a pair"):
            bind(model, ())(X)


def test_keys():
    key = jax.random.key(4)
    assert as_key(key) is key
    for seed in (4, np.int64(4)):
        assert jnp.array_equal(jax.random.key_data(as_key(seed)), jax.random.key_data(key))
    for wrong in (-1, 2**70, True, 0.5, None, jax.random.split(key), np.zeros(2, np.uint32)):
        with pytest.raises(ValueError, match="key must be a random key"):
            as_key(wrong)
