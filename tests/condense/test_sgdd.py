"""SGDD: the graphon, optimal transport between graphs against SciPy, and that the structure follows."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from condense_toy import TASK, same

from jgd.condense._sgdd import (
    OFFICIAL,
    SGDD,
    Real,
    _loss,
    graphon,
    pseudo_inverse,
    signal_covariance,
    structure_distance,
    trace_sqrt,
    transport_plan,
)
from jgd.condense.backbones import backbone, real_examples
from jgd.condense.bilevel import MatchContext
from jgd.core import Examples, InMemory, bind
from jgd.data import Training
from jgd.graph import DenseOperator, adjacency

close = np.testing.assert_allclose
KEY = jax.random.key(0)
SMALL = SGDD(
    nodes=9,
    graphon_hidden=8,
    epochs=4,
    outer=2,
    inner=1,
    turns=(1, 1),
    sample=20,
    lr_x=1e-3,
    lr_adj=1e-2,
    select_every=2,
)
N = 8


def weights(rng, n=N):
    a = np.triu(rng.random((n, n)), 1)
    return a + a.T


def normalised(a):
    a = a + np.eye(len(a))
    return a / np.sqrt(np.outer(a.sum(1), a.sum(1)))


def covariance(a):
    return np.linalg.pinv(np.eye(len(a)) - normalised(a), rcond=1e-9, hermitian=True)


def by_hand(cov, a, plan):
    ours = covariance(a)
    root = np.real(scipy.linalg.sqrtm(ours + 1e-12 * np.eye(len(a))))
    inner = root @ plan.T @ cov @ plan @ root
    fidelity = np.sqrt(np.maximum(np.linalg.eigvalsh(inner), 0)).sum()
    return np.trace(cov) / len(cov) + np.trace(ours) / len(a) - 2 * fidelity


f32 = lambda x: jnp.asarray(x, jnp.float32)  # noqa: E731


# --- the generator --------------------------------------------------------------------------------


@pytest.mark.long
def test_graphon(rng):
    """By hand on all ordered pairs; symmetric, without diagonal, in (0, 1)."""
    x = rng.standard_normal((N, 4))
    adj = graphon(6, mix=0.3)
    params, fixed = adj.init(KEY, f32(x), None)
    a = np.asarray(adj.apply(params, fixed, f32(x), None))
    np.testing.assert_array_equal(a, a.T)
    np.testing.assert_array_equal(np.diag(a), 0)
    assert ((a > 0) == ~np.eye(N, dtype=bool)).all()
    assert (a < 1).all()
    h = np.concatenate([np.repeat(x, N, 0), np.tile(x, (N, 1))], 1)
    grid = np.linspace(-1, 1, N)
    g = np.stack([np.repeat(grid, N), np.tile(grid, N)], 1)

    def block(mlp, k, z):
        z = z @ np.asarray(mlp["linear"][k]["kernel"]) + np.asarray(mlp["linear"][k]["bias"])
        return np.maximum((z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5), 0)

    for k in range(2):
        h, g = block(params["features"], k, h), block(params["positions"], k, g)
        g = g * h
    last = [
        z @ np.asarray(params[p]["linear"][2]["kernel"]) + np.asarray(params[p]["linear"][2]["bias"])
        for p, z in (("features", h), ("positions", g))
    ]
    scores = (0.3 * last[0] + 0.7 * last[1]).reshape(N, N)
    close(a, 1 / (1 + np.exp(-(scores + scores.T) / 2)) * (1 - np.eye(N)), rtol=1e-4, atol=1e-6)


def test_graphon_mix(rng):
    """With all weight on the features it permutes with the nodes; else the order of the nodes is a place."""
    x, order = f32(rng.standard_normal((N, 4))), rng.permutation(N)
    for mix, equal in ((1.0, True), (0.5, False)):
        adj = graphon(6, mix=mix)
        params, fixed = adj.init(KEY, x, None)
        a, b = (np.asarray(adj.apply(params, fixed, z, None)) for z in (x, x[order]))
        assert np.allclose(b, a[np.ix_(order, order)], rtol=1e-4) == equal
    for wrong in ({"layers": 1}, {"mix": 1.5}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            graphon(**wrong)


# --- optimal transport ----------------------------------------------------------------------------


def test_plan(rng):
    scores = f32(rng.standard_normal((5, 3)) * 3)
    plan = np.asarray(transport_plan(scores, 200))
    close(plan.sum(0), 1 / 3, rtol=1e-5)
    close(plan.sum(1), 1 / 5, rtol=1e-4)
    close(np.asarray(transport_plan(scores, 1)).sum(0), 1 / 3, rtol=1e-5)
    assert np.isfinite(transport_plan(f32(scores * 1e4), 10)).all()
    # One permutation stands out: the plan is that one.
    close(transport_plan(100 * jnp.eye(4), 10), np.eye(4) / 4, atol=1e-6)


def test_trace_sqrt(rng):
    """Against SciPy; the derivative is S^-1/2 / 2, and finite for singular, repeated and zero matrices."""
    b = rng.standard_normal((5, 5))
    s = b @ b.T
    close(trace_sqrt(f32(s)), np.trace(np.real(scipy.linalg.sqrtm(s))), rtol=1e-4)
    close(jax.grad(trace_sqrt)(f32(s)), np.linalg.inv(np.real(scipy.linalg.sqrtm(s))) / 2, rtol=2e-2)
    low = b[:, :2] @ b[:, :2].T
    for matrix in (np.eye(5), np.zeros((5, 5)), low, np.diag([1, 1, 1, 0, 0.0])):
        assert np.isfinite(trace_sqrt(f32(matrix)))
        assert np.isfinite(jax.grad(trace_sqrt)(f32(matrix))).all()
    values, vectors = np.linalg.eigh(low)
    inverse = np.where(values > 1e-9, 0.5 / np.sqrt(np.maximum(values, 1e-9)), 0)
    close(jax.grad(trace_sqrt)(f32(low)), (vectors * inverse) @ vectors.T, rtol=1e-2, atol=1e-3)


def test_pseudo_inverse(rng):
    a = weights(rng)
    close(pseudo_inverse(f32(normalised(a))), covariance(a), atol=1e-3)


def test_distance(rng):
    """By hand; never negative; zero for isomorphic graphs at the right plan, and not at a wrong one."""
    a, b = weights(rng), weights(rng, 6)
    plan = np.asarray(transport_plan(f32(rng.standard_normal((N, 6))), 100), np.float64)
    got = structure_distance(f32(covariance(a)), f32(normalised(b)), f32(plan))
    close(got, by_hand(covariance(a), b, plan), atol=5e-3)
    assert got > 0
    order = rng.permutation(N)
    moved = a[np.ix_(order, order)]
    right = np.eye(N)[:, order] / N
    close(structure_distance(f32(covariance(a)), f32(normalised(moved)), f32(right)), 0, atol=5e-3)
    blurred = np.full((N, N), 1 / N**2)
    assert structure_distance(f32(covariance(a)), f32(normalised(moved)), f32(blurred)) > 0.1
    # The scale of the weights of A' does not matter to networks only up to loops: the distance sees it too.
    sparse = np.where(a > 0.8, a, 0) + 1e-3 * (1 - np.eye(N))
    far = structure_distance(f32(covariance(a)), f32(normalised(sparse)), f32(np.eye(N) / N))
    assert far > 0.05


def test_distance_gradient(rng):
    """In the adjacency and the plan, by finite differences."""
    cov, a = covariance(weights(rng)), weights(rng, 6)
    scores = rng.standard_normal((N, 6))

    def value(a, scores):
        hat = a + jnp.eye(6)
        d = jnp.sum(hat, 1)
        return structure_distance(f32(cov), hat / jnp.sqrt(d[:, None] * d), transport_plan(scores, 20))

    slopes = jax.jit(jax.grad(value, argnums=(0, 1)))(f32(a), f32(scores))
    value = jax.jit(value)
    for which, point in enumerate((a, scores)):
        direction = rng.standard_normal(point.shape)
        if which == 0:
            direction = direction + direction.T
            np.fill_diagonal(direction, 0)
        step = 1e-2 * direction
        ends = [
            value(f32(a + s * step), f32(scores)) if which == 0 else value(f32(a), f32(scores + s * step))
            for s in (1, -1)
        ]
        close(np.sum(slopes[which] * direction), (ends[0] - ends[1]) / 2e-2, rtol=5e-2, atol=1e-3)


def test_signal_covariance():
    """Conjugate gradients against a dense pseudo-inverse, on a graph of several components."""
    a = adjacency(TASK.graph).toarray().astype(np.float64)
    a[:3] = a[:, :3] = 0
    a[0, 1] = a[1, 0] = 1  # a pair, and a node alone
    senders, receivers = np.nonzero(a.T)
    graph = TASK.graph._replace(
        senders=senders.astype(np.int32),
        receivers=receivers.astype(np.int32),
        n_edge=np.asarray([len(senders)]),
    )
    index = np.asarray([0, 1, 2, 5, 30, 60])
    close(
        signal_covariance(replace(TASK, graph=graph), index), covariance(a)[np.ix_(index, index)], atol=1e-4
    )


# --- the method -----------------------------------------------------------------------------------


@pytest.mark.long
def test_recipe():
    loop = InMemory({})
    small = SMALL(KEY, TASK, loop)
    assert small.data.nodes.shape == (9, 6)
    assert small.training == Training(adjacency="raw", targets="classes")
    a = adjacency(small.data).toarray()
    close(a, a.T, rtol=1e-5)
    structure = loop.history["match"]["structure"]
    assert (structure[::2] > 0).all()  # only in the generator's turns
    np.testing.assert_array_equal(structure[1::2], 0)
    same(small, SMALL(KEY, TASK))
    for settings in OFFICIAL.values():
        SGDD(**settings)


@pytest.mark.long
def test_loss_is_gradients_and_smoothness_and_structure():
    """Each term with its weight and its sign: edges between classes and a structure of its own cost more."""
    recipe = replace(SMALL, nodes=None, label_ratio=None, sample=20)
    real = Real(real_examples("sgc", TASK), jnp.eye(20))
    net = bind(backbone("sgc", 3), *backbone("sgc", 3).init(KEY, *real.examples.inputs))
    y = jnp.arange(9) % 3
    x = jnp.asarray(np.random.default_rng(0).standard_normal((9, 6)), jnp.float32)
    a = jnp.full((9, 9), 1 / 9)  # every node beside all, with a loop of weight one before normalising
    small = Examples((DenseOperator(a), x), y)
    scores = jnp.zeros((20, 9))

    def value(**weights):
        loss = _loss(replace(recipe, **weights), 3)
        ctx = MatchContext(net, small, {"adj": {"plan": scores}}, real, None, KEY, 0)
        return float(loss(ctx)[0])

    plain = value(smooth=0.0, structure=0.0)
    # A third of the pairs are of one class: of each row two thirds go elsewhere.
    close(value(smooth=0.6, structure=0.0) - plain, 0.6 * 2 / 3, rtol=1e-3)
    distance = float(structure_distance(jnp.eye(20), a, transport_plan(scores, recipe.sinkhorn)))
    assert distance > 0
    close(value(smooth=0.0, structure=2.0) - plain, 2 * distance, rtol=1e-3)
    close(value(smooth=0.6, structure=2.0) - plain, 0.6 * 2 / 3 + 2 * distance, rtol=1e-3)


@pytest.mark.slow
def test_structure_follows():
    """The idea: with the term the condensed graph comes near the real spectrum, without it it does not."""
    recipe = replace(SMALL, epochs=60, outer=1, inner=0, lr_adj=0.05, turns=(5, 1), select_every=None)
    loop = InMemory({})
    replace(recipe, structure=100.0)(KEY, TASK, loop)
    pulled = loop.history["match"]["structure"]
    loop = InMemory({})
    replace(recipe, structure=1e-6)(KEY, TASK, loop)
    free = loop.history["match"]["structure"]
    last = slice(-6, -1)  # turns of the generator
    assert pulled[last].mean() < 0.7 * pulled[0]
    assert pulled[last].mean() < 0.8 * free[last].mean()


def test_refuses():
    for wrong in ({"epochs": 0}, {"mix": 2.0}, {"structure": -1.0}, {"sample": 0}, {"patience": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            SGDD(**wrong)
