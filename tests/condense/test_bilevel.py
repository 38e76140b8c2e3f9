"""The matching loop: turns of set and networks, against a loop by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jgd.condense.bilevel import Matching, fresh, frozen, match
from jgd.condense.gcond import gradient_matching
from jgd.condense.synthesizers import node_set, pge, seen
from jgd.core import Bound, Examples, ensemble, from_linen, in_memory
from jgd.graph import EXPORT_CHECKS, identity
from jgd.losses import cross_entropy, mean
from jgd.nn import SGC
from jgd.optim import by_part

close = np.testing.assert_allclose
KEY = jax.random.key(0)
REAL = Examples(
    (identity(20), jnp.asarray(np.random.default_rng(0).standard_normal((20, 4)), jnp.float32)),
    jnp.asarray(np.arange(20) % 2),
    jnp.ones(20),
)
START = Examples(
    (jnp.asarray(np.random.default_rng(1).standard_normal((6, 4)), jnp.float32),),
    jnp.asarray(np.arange(6) % 2),
)
DATA = Matching(START, REAL)
MODEL = from_linen(SGC(num_classes=2))


def pull_to_the_middle(net, small, parts, data, batch, *, key, t):
    """A loss that also reads the network, so that its training shows."""
    weight = jnp.mean(net.params["Linear_0"]["kernel"] ** 2)
    return jnp.mean((small.inputs[1] - jnp.mean(data.real.inputs[1], 0)) ** 2) + weight, {"weight": weight}


def test_against_a_loop_by_hand():
    """Three outer steps and two inner ones after each but the last, for two epochs."""
    net_tx, tx = optax.adam(0.1), by_part(x=optax.sgd(0.5))
    synth = node_set()
    alg = match(synth, pull_to_the_middle, tx, networks=fresh(MODEL, net_tx), outer=3, inner=2, see=seen)
    state = alg.init(KEY, DATA, None)
    for t in range(2):
        key = jax.random.fold_in(KEY, t)
        parts, fixed, opt_state = state
        params, inner_state = MODEL.init(
            jax.random.split(key, 3)[0], *seen(synth.render(parts, fixed)).inputs
        )
        net_state, losses = net_tx.init(params), []
        for i in range(3):
            small = seen(synth.render(parts, fixed))
            for _ in range(2 if i else 0):

                def ce(p, small=small):
                    return mean(
                        cross_entropy(MODEL.apply(p, inner_state, *small.inputs)[0].logits, small.targets)
                    )

                updates, net_state = net_tx.update(jax.grad(ce)(params), net_state, params)
                params = optax.apply_updates(params, updates)
            net = Bound(params, inner_state, MODEL)

            def value(p, net=net, fixed=fixed):
                small = seen(synth.render(p, fixed))
                return pull_to_the_middle(net, small, p, DATA, None, key=None, t=None)[0]

            loss, grads = jax.value_and_grad(value)(parts)
            losses.append(loss)
            updates, opt_state = tx.update(grads, opt_state, parts)
            parts = optax.apply_updates(parts, updates)
        state, metrics = jax.jit(alg.step)(key, jnp.asarray(t), state, DATA, None)
        close(state.parts["x"], parts["x"], rtol=1e-5, atol=1e-6)
        close(metrics["loss"], np.mean(losses), rtol=1e-4)
    assert len(np.unique(np.round(losses, 5))) == 3  # the network did learn in between


def test_a_frozen_network_stays():
    net = Bound(*MODEL.init(KEY, *REAL.inputs), MODEL)
    data = DATA._replace(real={"teacher": net})

    def loss(net, small, parts, data, batch, *, key, t):
        return mean(cross_entropy(net(*small.inputs).logits, small.targets)), {}

    alg = match(
        node_set(), loss, by_part(x=optax.adam(0.1)), networks=frozen(lambda d: d.real["teacher"]), see=seen
    )
    small = in_memory("s", alg, KEY, data, 50)["small"]
    before = mean(cross_entropy(net(identity(6), *START.inputs).logits, START.targets))
    assert mean(cross_entropy(net(*seen(small).inputs).logits, small.targets)) < 0.2 * before


def test_without_networks_and_with_direct_use_of_a_part():
    """A loss may read parts that no example shows, such as a learning rate."""

    def loss(net, small, parts, data, batch, *, key, t):
        assert net is None
        return (parts["lr"] - 0.25) ** 2 + jnp.sum(small.inputs[1] ** 2), {}

    alg = match(node_set(learning_rate=1.0), loss, by_part(lr=optax.sgd(0.5), x=optax.sgd(0.1)))
    product = in_memory("s", alg, KEY, DATA, 1)
    close(product["parts"]["lr"], 0.25, atol=1e-6)
    close(product["parts"]["x"], 0.8 * START.inputs[0], rtol=1e-5)


def test_identity_point():
    """Check 3: the set that is the real one has loss and gradient zero, but for the epsilon of the cosine."""
    net = Bound(*MODEL.init(KEY, *REAL.inputs), MODEL)
    for distance in ("columns", "squared", "cosine"):
        loss = gradient_matching(2, distance)

        def value(x, loss=loss):
            small = Examples((identity(20), x), REAL.targets)
            return loss(net, small, {}, DATA, None, key=KEY, t=0)[0]

        found, grad = jax.value_and_grad(value)(REAL.inputs[1])
        assert abs(found) < 1e-4
        assert np.abs(grad).max() < 1e-4


def test_the_epoch_lowers_for_all_platforms_and_maps_over_members():
    synth = node_set(pge(hidden=4))
    tx = by_part(x=optax.adam(0.01), adj=optax.adam(0.01))
    alg = match(
        synth, gradient_matching(2), tx, networks=fresh(MODEL, optax.adam(0.01)), outer=2, inner=1, see=seen
    )
    several = ensemble(alg, 2)
    state = several.init(KEY, DATA, None)
    jax.export.export(jax.jit(several.step), platforms=("cpu", "cuda", "tpu"), disabled_checks=EXPORT_CHECKS)(
        KEY, jnp.asarray(0), state, DATA, None
    )
    state, metrics = jax.jit(several.step)(KEY, jnp.asarray(0), state, DATA, None)
    single, lone = jax.jit(alg.step)(
        jax.random.split(KEY, 2)[0],
        jnp.asarray(0),
        alg.init(jax.random.split(KEY, 2)[0], DATA, None),
        DATA,
        None,
    )
    close(state.parts["x"][0], single.parts["x"], rtol=1e-3, atol=1e-5)
    close(metrics["loss"][0], lone["loss"], rtol=1e-3)


def test_refusals():
    tx = by_part(x=optax.sgd(0.1))
    with pytest.raises(ValueError, match="outer must be at least 1"):
        match(node_set(), pull_to_the_middle, tx, outer=0)
    with pytest.raises(ValueError, match="2 inner steps need networks"):
        match(node_set(), pull_to_the_middle, tx, networks=fresh(MODEL), inner=2)
