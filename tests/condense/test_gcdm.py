"""Distribution matching, and the generator of edges that it shares with GCond."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from condense_toy import TASK, same

from jgd.condense._gcdm import DM, GCDM, GCDMX, OFFICIAL, distribution_matching
from jgd.condense.backbones import backbone, real_examples
from jgd.condense.bilevel import MatchContext, fresh
from jgd.condense.start import start_from
from jgd.condense.synthesizers import pge
from jgd.core import Examples, bind, in_memory
from jgd.data import Training
from jgd.graph import adjacency, identity

close = np.testing.assert_allclose
KEY = jax.random.key(0)
SMALL = GCDM(
    nodes=9,
    hidden=8,
    pge_hidden=8,
    start="random",
    epochs=6,
    outer=2,
    inner=1,
    lr_x=1e-2,
    lr_adj=1e-2,
    turns=(1, 1),
    select_every=2,
)
LOSS = distribution_matching(3)


def f32(x):
    return jnp.asarray(x, jnp.float32)


def net_of(name, width):
    model = backbone(name, 3, 16)
    params, state = model.init(KEY, identity(4), jnp.zeros((4, width)))
    return bind(model, params, state)


def distance(net, small, real):
    value, _ = LOSS(MatchContext(net, small, {}, real, None, KEY, 0))
    return float(value)


# --- check 6 --------------------------------------------------------------------------------------


@pytest.mark.long
def test_loss_is_zero_where_means_match(rng):
    """Zero for equal sets, for permutations inside classes, and where class means of embeddings agree."""
    x, y = rng.standard_normal((12, 5)).astype(np.float32), np.repeat(np.arange(3), 4)
    real = Examples((identity(12), jnp.asarray(x)), jnp.asarray(y))
    for name in ("gcn", "sgc"):
        net = net_of(name, 5)
        assert distance(net, real, real) < 1e-10
        order = np.concatenate([rng.permutation(4) + 4 * c for c in range(3)])
        shuffled = Examples((identity(12), jnp.asarray(x[order])), jnp.asarray(y))
        assert distance(net, shuffled, real) < 1e-10
        across = Examples((identity(12), jnp.asarray(x[::-1].copy())), jnp.asarray(y))
        assert distance(net, across, real) > 1e-3
    means = np.stack([x[y == c].mean(0) for c in range(3)])
    averages = Examples((identity(3), jnp.asarray(means)), jnp.arange(3))
    assert distance(net_of("sgc", 5), averages, real) < 1e-10  # embeddings are linear
    assert distance(net_of("gcn", 5), averages, real) > 1e-4  # and these are not


def test_loss_by_hand(rng):
    """Weighted by the sizes of the classes; nodes that count nothing do not count."""
    x, y = rng.standard_normal((8, 5)), np.asarray([0, 0, 0, 1, 1, 2, 2, 2])
    weights = np.asarray([1, 1, 0, 1, 1, 1, 1, 1.0])
    small_x, small_y = rng.standard_normal((5, 5)), np.asarray([0, 1, 1, 2, 2])
    net = net_of("gcn", 5)
    (w1,) = (np.asarray(p) for p in jax.tree.leaves(net.params) if p.shape == (5, 16))

    def embed(x):
        return np.maximum(x @ w1, 0)  # biases start as zeros

    real = Examples((identity(8), jnp.asarray(x, jnp.float32)), jnp.asarray(y), jnp.asarray(weights))
    small = Examples((identity(5), jnp.asarray(small_x, jnp.float32)), jnp.asarray(small_y))
    expected = 0
    for c, share in enumerate((0.5, 1, 1)):
        mine = embed(small_x[small_y == c]).mean(0)
        theirs = embed(x[(y == c) & (weights > 0)]).mean(0)
        expected += share * ((mine - theirs) ** 2).sum()
    close(distance(net, small, real), expected, rtol=1e-4)


@pytest.mark.long
def test_inner_steps(rng):
    """They move the network, and nothing else, to make the matching loss smaller."""
    x, y = f32(rng.standard_normal((12, 5))), jnp.arange(12) % 3
    real = Examples((identity(12), x), y)
    small = Examples((identity(3), f32(rng.standard_normal((3, 5)))), jnp.arange(3))
    networks = fresh(backbone("gcn", 3, 16), optax.adam(0.01), LOSS)
    assert networks.update is not None
    net, state = networks.draw(KEY, (), small, real)
    before = distance(net, small, real)
    for _ in range(3):
        net, state = networks.update(net, state, MatchContext(net, small, {}, real))
    assert distance(net, small, real) < before


def test_descent_finds_the_class_means():
    """With a linear encoder that matches, X' ends with the class means of the real embeddings."""
    recipe = replace(SMALL, backbone="sgc", adjacency="identity", epochs=600, outer=1, inner=0, lr_x=0.03)
    small = replace(recipe, select_every=None)(KEY, TASK)
    real = real_examples("sgc", TASK)
    x, y = np.asarray(real.inputs[1]), np.asarray(real.targets)
    means = np.stack([x[y == c].mean(0) for c in range(3)])
    ours = np.stack([small.data.nodes[small.targets == c].mean(0) for c in range(3)])
    close(ours, means, atol=0.05)


# --- the generator: checks 4 and 12 ---------------------------------------------------------------


def test_generator(rng):
    """Symmetric, without diagonal, in (0, 1), and it permutes with the nodes."""
    x = jnp.asarray(rng.standard_normal((7, 4)), jnp.float32)
    adj = pge(8)
    params, fixed = adj.init(KEY, x, None)
    a = np.asarray(adj.apply(params, fixed, x, None))
    np.testing.assert_array_equal(a, a.T)
    np.testing.assert_array_equal(np.diag(a), 0)
    off = a[~np.eye(7, dtype=bool)]
    assert (off > 0).all()
    assert (off < 1).all()
    order = rng.permutation(7)
    close(adj.apply(params, fixed, x[order], None), a[np.ix_(order, order)], rtol=1e-5)
    # By hand, on all ordered pairs as rows.
    pairs = np.concatenate([np.repeat(x, 7, 0), np.tile(x, (7, 1))], 1).astype(np.float64)
    for linear, norm in zip(params["linear"][:-1], params["norm"], strict=True):
        h = pairs @ np.asarray(linear["kernel"]) + np.asarray(linear["bias"])
        h = (h - h.mean(0)) / np.sqrt(h.var(0) + 1e-5)
        pairs = np.maximum(h * np.asarray(norm["scale"]) + np.asarray(norm["shift"]), 0)
    scores = (pairs @ np.asarray(params["linear"][-1]["kernel"]) + np.asarray(params["linear"][-1]["bias"]))[
        :, 0
    ].reshape(7, 7)
    expected = 1 / (1 + np.exp(-(scores + scores.T) / 2)) * (1 - np.eye(7))
    close(a, expected, rtol=1e-4, atol=1e-6)


# --- the method -----------------------------------------------------------------------------------


@pytest.mark.long
def test_recipes():
    small = SMALL(KEY, TASK)
    assert small.data.nodes.shape == (9, 6)
    assert small.training == Training(adjacency="raw", targets="classes")
    a = adjacency(small.data).toarray()
    close(a, a.T, rtol=1e-5)
    assert ((a == 0) | (a >= 0.05)).all()
    same(small, SMALL(KEY, TASK))
    shared = {f: getattr(SMALL, f) for f in ("nodes", "hidden", "start", "epochs", "lr_x", "select_every")}
    small = DM(**shared)(KEY, TASK)
    assert small.training.adjacency == "identity"
    assert small.provenance["method"] == "dm"
    assert GCDMX(**shared).adjacency == "identity"
    assert (DM().outer, DM().inner) == (1, 0)
    for settings in OFFICIAL.values():
        GCDM(**settings)


@pytest.mark.long
def test_turns():
    """One epoch of the generator, one of the features."""
    recipe = replace(SMALL, select_every=None, threshold=0.0)
    start = np.asarray(start_from("random", jax.random.split(KEY)[0], TASK, 9, in_memory).inputs[0])
    first, second = (replace(recipe, epochs=epochs)(KEY, TASK) for epochs in (1, 2))
    np.testing.assert_array_equal(first.data.nodes, start)
    assert np.abs(second.data.nodes - start).max() > 1e-3


def test_refuses():
    for wrong in ({"epochs": 0}, {"inner": -1}, {"hidden": 0}, {"patience": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            GCDM(**wrong)
