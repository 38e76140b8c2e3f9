"""GCSR: the closed form and its minimiser, priors that follow, class pairs, the network, the recipe."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from condense_toy import TASK, same
from hypothesis import given, settings
from hypothesis import strategies as st

from jgd.condense import METHODS
from jgd.condense._gcsr import (
    GCSR,
    OFFICIAL,
    _algorithms,
    class_pairs,
    linear_sgc,
    propagated,
    real_rows,
    self_expressive,
    self_expressive_weights,
)
from jgd.condense.bilevel import Matching
from jgd.condense.trajectories import Segment
from jgd.core import Examples, InMemory
from jgd.data import Training, contextual_sbm
from jgd.graph import DenseOperator, adjacency

close = np.testing.assert_allclose
KEY = jax.random.key(0)
SMALL = GCSR(
    nodes=6, hidden=8, steps=6, lr_x=0.01, max_start=4, experts=4, group=2, expert_steps=10, select_every=2
)


def random_problem(n=5, width=7, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, width)), rng.random((n, n)), rng.random((n, n))


# --- the closed form ------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 5), st.floats(0.1, 5))
def test_minimiser(seed, alpha, beta):
    """Check 9: the gradient is zero, and no other Z near or far does better (float64, in NumPy)."""
    x, p, q = random_problem(seed=seed)
    z = np.asarray(self_expressive_weights(*map(jnp.asarray, (x, p, q)), alpha, beta), np.float64)

    def cost(z):
        fit = np.sum((x.T - x.T @ z) ** 2)
        return fit + alpha * np.sum((z - p) ** 2) + beta * np.sum((z - q) ** 2)

    gradient = x @ (x.T @ z - x.T) + alpha * (z - p) + beta * (z - q)
    close(gradient, 0, atol=2e-4)
    rng = np.random.default_rng(seed)
    for scale in (1e-2, 1):
        assert cost(z + scale * rng.standard_normal(z.shape)) > cost(z)


def test_limits(rng):
    """Check 9: strong priors give their weighted mean, weak ones with full row rank the identity."""
    x, p, q = map(jnp.asarray, random_problem())
    close(self_expressive_weights(x, p, q, 3e6, 1e6), 0.75 * p + 0.25 * q, atol=1e-4)
    close(self_expressive_weights(x, p, q, 5e-5, 5e-5), np.eye(5), atol=1e-3)
    few = jnp.asarray(rng.standard_normal((5, 2)))  # of low rank: not the identity
    assert np.abs(self_expressive_weights(few, p, q, 1e-4, 1e-4) - np.eye(5)).max() > 0.1


def structure(alpha=1.0, beta=0.9, tau=0.9, gamma=0.5):
    edges = self_expressive(alpha, beta, tau, gamma)
    x, p, q = map(lambda a: jnp.asarray(a, jnp.float32), random_problem())  # noqa: C417
    return edges, x, {"P": p, "Q": q}


def test_adjacency():
    """Symmetric, not negative, and the mean of |Z| and its transpose; permutes with the nodes."""
    edges, x, fixed = structure()
    a = np.asarray(edges.apply((), fixed, x, None))
    z = np.abs(np.asarray(self_expressive_weights(x, fixed["P"], fixed["Q"], 1.0, 0.9)))
    close(a, (z + z.T) / 2, rtol=1e-5)
    close(a, a.T)
    assert (a >= 0).all()
    order = np.asarray([3, 1, 4, 0, 2])
    moved = edges.apply((), jax.tree.map(lambda m: m[order][:, order], fixed), x[order], None)
    close(moved, a[order][:, order], rtol=1e-4, atol=1e-5)


def test_priors_follow():
    """P and Q move towards A' by their own shares, and no gradient flows through them."""
    edges, x, fixed = structure()
    a = edges.apply((), fixed, x, None)
    new = edges.update((), fixed, x, None)
    close(new["P"], 0.9 * fixed["P"] + 0.1 * a, rtol=1e-5)
    close(new["Q"], 0.5 * fixed["Q"] + 0.5 * a, rtol=1e-5)
    gradient = jax.grad(lambda x: sum(jnp.sum(v) for v in edges.update((), fixed, x, None).values()))(x)
    close(gradient, 0)
    gradient = jax.grad(lambda x: jnp.sum(edges.apply((), fixed, x, None) ** 2))(x)
    assert np.abs(gradient).max() > 1e-3
    _, begin = edges.init(KEY, x, None)
    close(begin["P"], np.eye(5))
    close(begin["Q"], np.eye(5))


def test_priors_over_many_steps():
    """Check 15: they stay non-negative with finite row sums; with τ = γ = 1 they never change."""
    edges, x, fixed = structure()
    still = structure(tau=1.0, gamma=1.0)[0]
    step = jax.jit(lambda f: edges.update((), f, x, None))
    moved = fixed
    for _ in range(50):
        moved = step(moved)
    for m in moved.values():
        assert (np.asarray(m) >= 0).all()
        assert np.isfinite(m).all()
        assert np.asarray(m).sum(1).max() < 20
    kept = still.update((), fixed, x, None)
    jax.tree.map(lambda a, b: close(a, b, rtol=1e-6), kept, fixed)
    close(still.apply((), kept, x, None), edges.apply((), fixed, x, None), rtol=1e-5)


# --- class pairs ----------------------------------------------------------------------------------


def test_class_pairs():
    """By brute force: entry (i, j) counts class i next to class j over all that is next to class j."""
    labels, train = np.asarray(TASK.labels), np.asarray(TASK.train)
    a = adjacency(TASK.graph).toarray() != 0
    for pairs, known, extra in (("train", train, 1), ("all", np.ones(72, bool), 0)):
        counts = np.full((3, 3), float(extra))
        for u in range(72):
            for v in range(72):
                if a[u, v] and known[u] and known[v]:
                    counts[labels[u], labels[v]] += 1
        expected = counts / counts.sum(1)  # divided along columns by the sums of rows, as published
        close(class_pairs(TASK, pairs), expected, rtol=1e-6)
    close(
        class_pairs(TASK, "all").sum(0), 1, rtol=1e-5
    )  # of a symmetric graph: shares of a node's neighbours


@pytest.mark.long
def test_class_pairs_without_leak():
    """Labels outside of the training set count only where they are asked for."""
    train = np.asarray(TASK.train)
    other = replace(TASK, labels=np.where(train, TASK.labels, (np.asarray(TASK.labels) + 1) % 3))
    np.testing.assert_array_equal(class_pairs(TASK), class_pairs(other))
    assert np.abs(class_pairs(TASK, "all") - class_pairs(other, "all")).max() > 0.01
    lonely = replace(TASK, train=np.zeros(72, bool))
    close(class_pairs(lonely), 1 / 3)  # nothing is known: uniform
    same(SMALL(KEY, TASK), SMALL(KEY, replace(other, labels=np.where(TASK.val, TASK.labels, other.labels))))


# --- the network ----------------------------------------------------------------------------------


def test_weights_start_within_the_fan_in():
    """Uniform within one over the root of the inputs of a map, biases too, whatever its outputs."""
    found = jax.jit(lambda: linear_sgc(16, 100).init(KEY, jnp.ones(5), jnp.ones((5, 49)))[0])()
    bounds = {"first": 1 / 7, "first_bias": 1 / 7, "second": 1 / 10, "second_bias": 1 / 10}
    assert found.keys() == bounds.keys()
    for name, bound in bounds.items():
        assert np.abs(found[name]).max() <= bound, name
        assert np.abs(found[name]).max() > 0.8 * bound, name
    close(np.var(found["first"]), (1 / 7) ** 2 / 3, rtol=0.05)


def test_linear_sgc(rng):
    """Two linear maps and then two propagations, as published, on the real graph and on a dense one."""
    model = linear_sgc(3, 4)
    real = real_rows(TASK)
    p = jax.jit(lambda: model.init(KEY, *real.inputs)[0])()
    p = {k: np.asarray(v, np.float64) for k, v in p.items()}

    def published(a, x):
        loops = a + np.eye(len(a))
        d = loops.sum(1)
        a = loops / np.sqrt(d[:, None] * d)
        return a @ (a @ ((x @ p["first"] + p["first_bias"]) @ p["second"] + p["second_bias"]))

    x = np.asarray(TASK.graph.nodes, np.float64)
    expected = published(adjacency(TASK.graph).toarray().astype(np.float64), x)
    close(model.apply(p, {}, *real.inputs)[0].logits, expected[np.asarray(TASK.train)], rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(real.targets, np.asarray(TASK.labels)[np.asarray(TASK.train)])

    weights = rng.random((5, 5))
    weights = weights + weights.T
    x = rng.standard_normal((5, 6))
    small = propagated(Examples((DenseOperator(jnp.asarray(weights)), jnp.asarray(x)), None))
    close(model.apply(p, {}, *small.inputs)[0].logits, published(weights, x), rtol=1e-3, atol=1e-4)


# --- the recipe -----------------------------------------------------------------------------------


class Listening(InMemory):
    def __init__(self):
        super().__init__({})
        self.given = {}

    def __call__(self, name, algorithm, key, data, num_steps, batches=None):
        product = super().__call__(name, algorithm, key, data, num_steps, batches)
        self.given[name] = (algorithm, data, product)
        return product


@pytest.fixture(scope="module")
def run():
    loop = Listening()
    return SMALL(KEY, TASK, loop), loop


@pytest.mark.long
def test_result(run):
    small, loop = run
    assert small.training == Training(adjacency="raw", targets="classes")
    np.testing.assert_array_equal(small.targets, [0, 0, 1, 1, 2, 2])
    a = adjacency(small.data).toarray()
    close(a, a.T, rtol=1e-5)
    assert (a > 0).sum() > 30  # dense
    assert np.isfinite(loop.history["match"]["loss"]).all()
    start = loop.given["match"][1].start
    close(start.inputs[0], class_pairs(TASK)[np.ix_(small.targets, small.targets)], rtol=1e-6)
    loops = adjacency(TASK.graph).toarray() + np.eye(72)
    a_hat = loops / np.sqrt(loops.sum(1)[:, None] * loops.sum(1))
    wide = a_hat @ a_hat @ np.asarray(TASK.graph.nodes)
    for row, label in zip(np.asarray(start.inputs[1]), small.targets, strict=True):
        members = np.flatnonzero(np.asarray(TASK.train) & (np.asarray(TASK.labels) == label))
        assert np.abs(wide[members] - row).max(1).min() < 1e-4


def test_the_set_is_its_own_closed_form(rng):
    """After t steps by hand: A' from X' and the P and Q that followed."""
    recipe = replace(SMALL, select_every=None)
    alg, _ = _algorithms(replace(recipe, nodes=None, label_ratio=None, steps=1), 3)
    x, p, _ = map(lambda a: jnp.asarray(a, jnp.float32), random_problem(6, 9))  # noqa: C417
    p = jnp.asarray(rng.random((6, 6)), jnp.float32)
    data = Matching(Examples((p, x), jnp.asarray([0, 0, 1, 1, 2, 2])), None)
    model = linear_sgc(3, 8)
    window = Segment(*(model.init(jax.random.key(i), jnp.ones(6), x)[0] for i in range(3)))
    state = alg.init(KEY, data, None)
    close(state.fixed["adj"]["P"], p)
    q, step = np.eye(6), jax.jit(alg.step)
    for t in range(3):
        state, _ = step(jax.random.key(t), t, state, data, window)
        z = np.abs(
            self_expressive_weights(state.parts["x"], jnp.asarray(p), jnp.asarray(q, jnp.float32), 1.0, 1.0)
        )
        a = (z + z.T) / 2
        p, q = 0.9 * np.asarray(p) + 0.1 * a, 0.5 * q + 0.5 * a
        p = jnp.asarray(p, jnp.float32)
    close(state.fixed["adj"]["P"], p, rtol=1e-3, atol=1e-5)
    close(state.fixed["adj"]["Q"], q, rtol=1e-3, atol=1e-5)
    assert np.abs(np.asarray(state.parts["x"]) - np.asarray(x)).max() > 0.01


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha", -1.0),
        ("tau", 1.1),
        ("gamma", -0.1),
        ("hops", -1),
        ("pairs", "test"),
        ("student_steps", 0),
        ("max_start", 0),
        ("expert_steps", 60),
        ("select_with", "gntk"),
    ],
)
def test_impossible_settings(name, value):
    with pytest.raises((ValueError, TypeError)):
        GCSR(**{name: value})
    with pytest.raises(ValueError, match="nor both zero"):
        GCSR(alpha=0.0, beta=0.0)


TABLE = """
cora .25 8000 1e-6 1 .9 .9 3 5 2 50
cora .5 7000 1e-6 1 1 .9 2 5 2 60
cora 1 5000 1e-6 .1 .999 .9 2 5 2 60
citeseer .25 6000 5e-7 1 .999 .9 4 5 2 60
citeseer .5 1000 1e-6 1 .999 .9 4 5 2 60
citeseer 1 100 5e-8 10 .999 .99 4 5 2 60
ogbn-arxiv .001 3000 1e-2 .1 1 .9 2 100 1 60
ogbn-arxiv .005 25000 5e-3 10 .9 .99 2 100 1 60
ogbn-arxiv .01 20000 5e-3 10 1 .9 1 100 1 90
flickr .001 20000 5e-5 1 .999 .9 2 50 1 50
flickr .005 10000 5e-5 500 1 .9 2 50 2 95
flickr .01 10000 1e-4 1000 1 .9 2 100 1 95
reddit .0005 14000 1e-3 500 .1 .99999 3 20 1 50
reddit .001 10000 5e-3 1 .1 .99999 3 20 1 95
reddit .002 10000 1e-2 1 .1 .99999 3 20 1 95
"""
COLUMNS = ("steps", "lr_x", "alpha", "beta", "tau", "hops", "student_steps", "length", "max_start")


def test_official_settings():
    rows = [line.split() for line in TABLE.strip().splitlines()]
    assert len(rows) == len(OFFICIAL)
    for dataset, ratio, *values in rows:
        recipe = METHODS.official("gcsr", dataset, label_ratio=float(ratio))
        for name, value in zip(COLUMNS, values, strict=True):
            assert getattr(recipe, name) == float(value), (dataset, ratio, name)
        assert recipe.gamma == 0.5
    assert METHODS.official("gcsr", "unheard-of") == GCSR()


# --- ablation -------------------------------------------------------------------------------------


def test_structure_expresses_classes(rng):
    """A' joins nodes of one class more than others, by the class prior: with P = I it does so far less."""
    task = contextual_sbm(
        num_nodes=400, num_classes=4, num_features=24, mean_degree=8, homophily=0.85, signal=1.0
    )
    x = rng.standard_normal((40, 24)).astype(np.float32)
    y = np.repeat(np.arange(4), 10)
    pairs = class_pairs(task)[np.ix_(y, y)]
    edges = self_expressive(5.0, 1.0, 0.9, 0.5)
    inside = (y[:, None] == y) & ~np.eye(40, dtype=bool)
    outside = y[:, None] != y

    def contrast(p):
        a = np.asarray(edges.apply((), {"P": jnp.asarray(p), "Q": jnp.eye(40)}, jnp.asarray(x), None))
        return a[inside].mean() / a[outside].mean()

    assert contrast(pairs) > 1.5
    assert contrast(np.eye(40, dtype=np.float32)) < 1.2
