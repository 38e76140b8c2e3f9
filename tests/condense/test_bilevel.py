"""The matching loop: turns of set and networks, against a loop by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jgd.condense.bilevel import MatchContext, Matching, fresh, frozen, match, pool
from jgd.condense.matching import gradient_matching
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


def pull_to_the_middle(ctx):
    """A loss that also reads the network, so that its training shows."""
    weight = jnp.mean(ctx.net.params["Linear_0"]["kernel"] ** 2)
    return jnp.mean((ctx.small.inputs[1] - jnp.mean(ctx.real.inputs[1], 0)) ** 2) + weight, {"weight": weight}


@pytest.mark.long
def test_against_a_loop_by_hand():
    """Three outer steps and two inner ones after each but the last, for two epochs."""
    net_tx, tx = optax.adam(0.1), by_part(x=optax.sgd(0.5))
    synth = node_set()
    alg = match(synth, pull_to_the_middle, tx, networks=fresh(MODEL, net_tx), outer=3, inner=2, see=seen)
    state = alg.init(KEY, DATA, None)
    for t in range(2):
        key = jax.random.fold_in(KEY, t)
        parts, fixed, opt_state, _ = state
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
                return pull_to_the_middle(MatchContext(net, small, p, REAL))[0]

            loss, grads = jax.value_and_grad(value)(parts)
            losses.append(loss)
            updates, opt_state = tx.update(grads, opt_state, parts)
            parts = optax.apply_updates(parts, updates)
        state, metrics = jax.jit(alg.step)(key, jnp.asarray(t), state, DATA, None)
        close(state.parts["x"], parts["x"], rtol=1e-5, atol=1e-6)
        close(metrics["loss"], np.mean(losses), rtol=1e-4)
    assert len(np.unique(np.round(losses, 5))) == 3  # the network did learn in between


@pytest.mark.long
@pytest.mark.parametrize(("outer", "inner"), [(1, 1), (2, 3)])
def test_a_pool_against_a_loop_by_hand(outer, inner):
    """One of three networks in each epoch is matched, trained and put back, or replaced when it is old."""
    k, oldest, epochs = 3, 4, 12
    net_tx, tx = optax.adam(0.1), by_part(x=optax.sgd(0.5))
    synth = node_set()
    networks = pool(MODEL, net_tx, k, oldest)
    alg = match(synth, pull_to_the_middle, tx, networks=networks, outer=outer, inner=inner, see=seen)
    state = alg.init(KEY, DATA, None)
    nets = [jax.tree.map(lambda x, i=i: x[i], state.networks) for i in range(k)]
    assert [int(net.age) for net in nets] == [0, 1, 2]
    first = [net.params["Linear_0"]["kernel"] for net in nets]
    assert len({float(w[0, 0]) for w in first}) == k  # all are random
    parts, opt_state = state.parts, state.opt_state
    step, used, replaced = jax.jit(alg.step), [], 0

    def value(p, net):
        return pull_to_the_middle(MatchContext(net, seen(synth.render(p, state.fixed)), p, REAL))[0]

    def cross(p, small):
        return mean(cross_entropy(MODEL.apply(p, {}, *small.inputs)[0].logits, small.targets))

    slope, trained = jax.jit(jax.grad(lambda p, w: value(p, Bound(w, {}, MODEL)))), jax.jit(jax.grad(cross))
    for t in range(epochs):
        key = jax.random.fold_in(KEY, t)
        state, _ = step(key, jnp.asarray(t), state, DATA, None)
        moved = [
            i
            for i in range(k)
            if not np.array_equal(
                state.networks.params["Linear_0"]["kernel"][i], nets[i].params["Linear_0"]["kernel"]
            )
        ]
        assert len(moved) == 1  # the others stay as they are
        (at,) = moved
        used.append(at)
        params, net_state = nets[at].params, nets[at].opt_state
        for _ in range(outer):
            updates, opt_state = tx.update(slope(parts, params), opt_state, parts)
            parts = optax.apply_updates(parts, updates)
            small = seen(synth.render(parts, state.fixed))
            for _ in range(inner):
                updates, net_state = net_tx.update(trained(params, small), net_state, params)
                params = optax.apply_updates(params, updates)
        age = int(nets[at].age) + outer * inner
        found = jax.tree.map(lambda x, at=at: x[at], state.networks)
        if age >= oldest:
            replaced += 1
            assert int(found.age) == 0
            new = found.params["Linear_0"]["kernel"]
            assert np.abs(new - params["Linear_0"]["kernel"]).max() > 0.01
            assert all(np.abs(leaf).max() == 0 for leaf in jax.tree.leaves(found.opt_state))
        else:
            assert int(found.age) == age
            close(found.params["Linear_0"]["kernel"], params["Linear_0"]["kernel"], rtol=1e-4, atol=1e-5)
        close(state.parts["x"], parts["x"], rtol=1e-4, atol=1e-5)
        nets[at] = found
    assert set(used) == set(range(k))
    assert replaced > 1


@pytest.mark.long
def test_a_pool_resumes_and_maps():
    """What it carries is state of the loop."""
    networks = pool(MODEL, optax.adam(0.1), 2, 3)
    tx = by_part(x=optax.sgd(0.5))
    alg = match(node_set(), gradient_matching(2), tx, networks=networks, inner=1, see=seen)
    several = ensemble(alg, 2)
    state = several.init(KEY, DATA, None)
    assert state.networks.age.shape == (2, 2)
    jax.export.export(jax.jit(several.step), platforms=("cpu", "cuda", "tpu"), disabled_checks=EXPORT_CHECKS)(
        KEY, jnp.asarray(0), state, DATA, None
    )
    with pytest.raises(ValueError, match="at least one network"):
        pool(MODEL, optax.adam(0.1), 0, 3)


def test_a_frozen_network_stays():
    net = Bound(*MODEL.init(KEY, *REAL.inputs), MODEL)
    data = DATA._replace(real={"teacher": net})

    def loss(ctx):
        return mean(cross_entropy(ctx.net(*ctx.small.inputs).logits, ctx.small.targets)), {}

    alg = match(
        node_set(), loss, by_part(x=optax.adam(0.1)), networks=frozen(lambda real: real["teacher"]), see=seen
    )
    small = in_memory("s", alg, KEY, data, 50)["small"]
    before = mean(cross_entropy(net(identity(6), *START.inputs).logits, START.targets))
    assert mean(cross_entropy(net(*seen(small).inputs).logits, small.targets)) < 0.2 * before


def test_without_networks_and_with_direct_use_of_a_part():
    """A loss may read parts that no example shows, such as a learning rate."""

    def loss(ctx):
        assert ctx.net is None
        return (ctx.parts["lr"] - 0.25) ** 2 + jnp.sum(ctx.small.inputs[1] ** 2), {}

    alg = match(node_set(learning_rate=1.0), loss, by_part(lr=optax.sgd(0.5), x=optax.sgd(0.1)))
    product = in_memory("s", alg, KEY, DATA, 1)
    close(product["parts"]["lr"], 0.25, atol=1e-6)
    close(product["parts"]["x"], 0.8 * START.inputs[0], rtol=1e-5)


@pytest.mark.long
def test_identity_point():
    """Check 3: the set that is the real one has loss and gradient zero, but for the epsilon of the cosine."""
    net = Bound(*MODEL.init(KEY, *REAL.inputs), MODEL)
    for distance in ("columns", "squared", "cosine"):
        loss = gradient_matching(2, distance)

        def value(x, loss=loss):
            small = Examples((identity(20), x), REAL.targets)
            return loss(MatchContext(net, small, {}, REAL, None, KEY, 0))[0]

        found, grad = jax.value_and_grad(value)(REAL.inputs[1])
        assert abs(found) < 1e-4
        assert np.abs(grad).max() < 1e-4


@pytest.mark.long
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
