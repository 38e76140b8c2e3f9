"""KIDD: the LiteGNTK against its definition, and graphs learned by it."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graph_toy import TASK, chains, task_of

from jgd.condense import METHODS
from jgd.condense._kidd import (
    KIDD,
    Nodes,
    arc_cosine_ntk,
    kernel_regression,
    lite_gntk,
    low_rank_set,
    real_nodes,
    seen_by_kernel,
)
from jgd.condense.bilevel import MatchContext
from jgd.condense.start import stack, start_graphs
from jgd.core import Examples, InMemory, in_memory
from jgd.evaluation import KINDS, evaluate
from jgd.graph import EXPORT_CHECKS, operator, select_graphs

close, equal = np.testing.assert_allclose, np.testing.assert_array_equal
KEY = jax.random.key(0)
INDEX = np.flatnonzero(TASK.train)
LABELS = TASK.labels[INDEX]
NODES = int(TASK.graphs.n_node.max())
QUICK = {"per_class": 3, "nodes": NODES, "steps": 20, "batch": 12, "support": 4, "start": "random"}
FULL = KIDD(**QUICK, select_every=None, lr_x=0.01, lr_adj=0.01)
LOW = replace(FULL, rank=4)
VARIANTS = {"full": {"before": 1, "after": 4}, "low-rank": {"before": 0, "after": 3}}


class Spy(InMemory):
    """Remembers what it ran."""

    def __call__(self, name, alg, key, data, num_steps, batches=None):
        self.ran = alg, data
        return super().__call__(name, alg, key, data, num_steps, batches)


def letters(count=48, seed=0):
    """Chains whose letters are mostly A and B in one class, mostly C and D in the other."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    words = ["".join(rng.choice(list("ABCD"[2 * c :][:2] + "EF"), rng.integers(3, 7))) for c in labels]
    return task_of([chains(word) for word in words], labels)


# --- the kernel -------------------------------------------------------------------------------------


def k0(rho):
    return (np.pi - np.arccos(np.clip(rho, -1, 1))) / np.pi


def k1(rho):
    rho = np.clip(rho, -1, 1)
    return (rho * (np.pi - np.arccos(rho)) + np.sqrt(1 - rho**2)) / np.pi


def brute(a, x, b, z, before, after, scaling="uniform"):
    """The sum over node pairs of the kernel of two graphs, by the book: matrices of pairs, in float64."""
    a, b = (m.astype(np.float64) + 1e-4 * np.eye(len(m)) for m in (a, b))
    if scaling == "degree":
        a, b = (m / m.sum(1, keepdims=True) for m in (a, b))
    sigma, own, other = x @ z.T + 1e-4, x @ x.T + 1e-4, z @ z.T + 1e-4
    for _ in range(before):
        sigma, own, other = a @ sigma @ b.T, a @ own @ a.T, b @ other @ b.T
    d = np.sqrt(np.diag(own))[:, None] * np.sqrt(np.diag(other))
    theta = sigma * k0(sigma / d) + d * k1(sigma / d)
    for _ in range(after):
        theta = a @ theta @ b.T
    return theta.sum()


@pytest.mark.parametrize("scaling", ["uniform", "degree"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_lite_gntk_is_its_definition(rng, variant, scaling):
    """Weighted and directed condensed graphs, real ones whose nodes are counted by kind."""
    rounds = VARIANTS[variant]
    a = rng.uniform(size=(3, 5, 5)).astype(np.float32)
    x = rng.normal(size=(3, 5, 8)).astype(np.float32)
    see = jax.vmap(lambda a, x: seen_by_kernel(operator(a), x, **rounds, scaling=scaling))
    h, w = see(jnp.asarray(a), jnp.asarray(x))
    real = real_nodes(TASK, INDEX, **rounds, scaling=scaling)
    assert len(real.rows) < len(select_graphs(TASK.graphs, INDEX).nodes) / 4
    graphs = select_graphs(TASK.graphs, INDEX)
    b, z = stack(graphs, NODES)
    n = graphs.n_node
    for chosen in (np.arange(len(INDEX)), np.asarray([4, 0])):  # by kind, and node by node
        k_ss, k_ts = jax.jit(lite_gntk)(h, w, real, jnp.asarray(chosen))
        own = [[brute(a[s], x[s], a[t], x[t], **rounds, scaling=scaling) for t in range(3)] for s in range(3)]
        cross = [
            [
                brute(b[t, : n[t], : n[t]], z[t, : n[t]], a[s], x[s], **rounds, scaling=scaling)
                for s in range(3)
            ]
            for t in chosen
        ]
        close(k_ss, own, rtol=2e-4)
        close(k_ts, cross, rtol=2e-4)


@pytest.mark.long
def test_few_graphs_are_seen_node_by_node(rng):
    """Both ways to the kernel agree: all kinds of nodes, or those of the batch."""
    real = real_nodes(TASK, INDEX, before=1, after=2)
    h, w = (jnp.asarray(rng.uniform(size=s), jnp.float32) for s in ((2, 3, 9), (2, 3)))
    every = lite_gntk(h, w, real, jnp.arange(len(INDEX)))[1]
    repeated = Nodes(jnp.tile(real.rows, (50, 1)), real.at, real.w, real.labels)
    assert real.at[:2].size < len(repeated.rows)
    close(lite_gntk(h, w, repeated, jnp.asarray([3, 1]))[1], every[jnp.asarray([3, 1])], rtol=1e-5)


@pytest.mark.long
def test_single_nodes_have_the_arc_cosine_kernel(rng):
    """Check 13: A = I and one node for each graph."""
    x = rng.normal(size=(6, 4)).astype(np.float32)
    see = jax.vmap(lambda x: seen_by_kernel(operator(jnp.ones((1, 1))), x, before=1, after=4))
    h, w = see(jnp.asarray(x[:, None]))
    none = Nodes(h[:1, 0], jnp.zeros((1, 1), int), w[:1], jnp.zeros(1, int))
    s = x.astype(np.float64) @ x.T + 1e-4
    d = np.sqrt(np.diag(s))[:, None] * np.sqrt(np.diag(s))
    expected = (s * k0(s / d) + d * k1(s / d)) * (1 + 1e-4) ** 10
    close(lite_gntk(h, w, none, jnp.asarray([0]))[0], expected, rtol=1e-4, atol=1e-5)
    close(arc_cosine_ntk(h[:, 0], jnp.zeros((1, 5))), 0)


@pytest.mark.long
def test_the_kernel_is_positive_and_does_not_see_padding():
    graphs = select_graphs(TASK.graphs, INDEX)
    real = real_nodes(TASK, INDEX, before=1, after=4)
    kernels = []
    for nodes in (NODES, NODES + 4):
        a, x = (jnp.asarray(part) for part in stack(graphs, nodes))
        h, w = jax.vmap(lambda a, x: seen_by_kernel(operator(a), x, before=1, after=4))(a, x)
        kernels.append(np.asarray(lite_gntk(h, w, real, jnp.arange(len(INDEX)))))
    k_ss, k_ts = kernels[0]
    close(k_ss, k_ts, rtol=1e-4)
    equal(k_ss, k_ss.T)
    values = np.linalg.eigvalsh(k_ss.astype(np.float64))
    assert values.min() > -1e-6 * values.max()
    close(kernels[1], kernels[0], rtol=1e-5)


# --- the loss ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("squared", [False, True])
def test_loss(squared):
    """Ridge regression, cross-entropy or squares, and the scaled kernel's distance from I, in float64."""
    start = start_graphs("random", KEY, TASK, 2, NODES, in_memory, padding="none")
    real = real_nodes(TASK, INDEX, before=1, after=2)._replace(order=jnp.arange(10)[None])
    loss = kernel_regression(2, before=1, after=2, ridge=0.1, orthogonal=0.3, squared=squared)
    found, metrics = jax.jit(lambda s, d: loss(MatchContext(None, s, {}, d, None, KEY, 0)))(start, real)
    (a, x, exists), y = (np.asarray(p, np.float64) for p in start.inputs), np.asarray(start.targets)
    small = [(a[i][: int(m.sum()), : int(m.sum())], x[i][: int(m.sum())]) for i, m in enumerate(exists)]
    b, z = stack(select_graphs(TASK.graphs, INDEX[:10]), NODES)
    k_ss = np.asarray([[brute(*s, *t, 1, 2) for t in small] for s in small])
    k_ts = np.asarray([[brute(b[i], z[i], *s, 1, 2) for s in small] for i in range(10)])
    shift = 0.1 * np.trace(k_ss) / 4 * np.eye(4)
    predicted = k_ts @ np.linalg.solve(k_ss + shift, np.eye(2)[y])
    if squared:
        fit = np.mean((predicted - np.eye(2)[LABELS[:10]]) ** 2) / 2
    else:
        log_p = predicted - np.log(np.exp(predicted).sum(1, keepdims=True))
        fit = -log_p[np.arange(10), LABELS[:10]].mean()
    d = np.sqrt(np.diag(k_ss))
    apart = np.linalg.norm(k_ss / d[:, None] / d - np.eye(4))
    close(metrics["fit"], fit, rtol=1e-3)
    close(found, fit + 0.3 * apart, rtol=1e-3)
    close(metrics["accuracy"], (predicted.argmax(1) == LABELS[:10]).mean(), rtol=1e-6)


def test_a_support_of_all_kinds_interpolates():
    """With a small ridge, real graphs (one of each kind) predict their own labels."""
    task = letters()
    index = np.flatnonzero(task.train)
    _, x = stack(select_graphs(task.graphs, index), 6)
    _, first = np.unique(x.reshape(len(x), -1), axis=0, return_index=True)
    kept = np.sort(first)[:12]
    train = np.zeros(task.num_graphs, bool)
    train[index[kept]] = True
    alone = replace(task, train=train)
    start = start_graphs("random", KEY, alone, 12, 6, in_memory)
    real = real_nodes(alone, index[kept], before=1, after=2)._replace(order=jnp.arange(12)[None])
    loss = kernel_regression(2, before=1, after=2, ridge=1e-5, orthogonal=0.0, squared=True)
    assert jax.jit(lambda s, d: loss(MatchContext(None, s, {}, d, None, KEY, 0)))(start, real)[0] < 1e-3


# --- low rank ---------------------------------------------------------------------------------------


def test_low_rank_graphs():
    """The best approximation of the start, whose edges are those beyond one half."""
    start = start_graphs("random", KEY, TASK, 2, NODES, in_memory, padding="none")
    a = np.asarray(start.inputs[0])
    for rank in (2, NODES):
        synth = low_rank_set(rank)
        parts, fixed = synth.init(KEY, start)
        assert parts["adj"]["u"].shape == (4, NODES, rank)
        product = np.asarray(parts["adj"]["u"] @ parts["adj"]["v"])
        tail = np.linalg.svd(a, compute_uv=False)[:, rank:]
        close(np.linalg.norm(product - a, axis=(1, 2)), np.linalg.norm(tail, axis=1), atol=1e-5)
        seen = np.asarray(synth.render(parts, fixed, key=KEY, t=0).inputs[0])
        equal(seen, seen.transpose(0, 2, 1))
        symmetric = (product + product.transpose(0, 2, 1)) / 2 * (1 - np.eye(NODES))
        close(seen, symmetric, atol=1e-6)
        equal(synth.render(parts, fixed).inputs[0], seen > 0.5)
    equal(synth.render(parts, fixed).inputs[0], a)
    with pytest.raises(ValueError, match="no adjacency of rank"):
        low_rank_set(NODES + 1).init(KEY, start)


# --- the method -------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("recipe", [FULL, LOW], ids=["full", "low-rank"])
def test_result(recipe):
    task, loop = letters(), InMemory({})
    recipe = replace(recipe, nodes=6, steps=60, lr_x=0.03, select_every=30 if recipe is FULL else None)
    small = recipe(KEY, task, loop)
    data = small.data
    assert data.x.shape == (6, 6, task.graphs.nodes.shape[1])
    assert np.isfinite(data.x).all()
    equal(data.adj, data.adj.transpose(0, 2, 1))
    assert set(np.unique(data.adj)) <= {0.0, 1.0}
    assert not np.diagonal(data.adj, axis1=1, axis2=2).any()
    equal(small.targets, [0, 0, 0, 1, 1, 1])
    loss = loop.history["match"]["loss"]
    assert loss[-20:].mean() < loss[:20].mean()
    again = recipe(KEY, task)
    equal(again.data.x, data.x)
    equal(again.data.adj, data.adj)
    score = evaluate(small, task, seeds=2, config=replace(KINDS["graphs"].make().config, steps=20, hidden=8))[
        "gin"
    ]
    assert np.isfinite(score.test).all()


@pytest.mark.long
def test_size():
    mean = TASK.graphs.n_node[INDEX].mean()
    quick = replace(FULL, nodes=None, size=1.5, steps=1, select_every=None)
    assert quick(KEY, TASK).data.x.shape[1] == round(1.5 * mean)


@pytest.mark.long
def test_rates_of_zero_keep_the_start():
    still = replace(FULL, lr_x=0.0, lr_adj=0.0, select_every=None, padding="none")
    start = start_graphs("random", jax.random.split(KEY, 3)[0], TASK, 3, NODES, in_memory)
    small = still(KEY, TASK)
    equal(small.data.x, start.inputs[1])
    equal(small.data.adj, start.inputs[0])


@pytest.mark.slow
def test_the_kernel_learns_from_noise_and_from_shuffled_labels_does_not():
    """Ridge regression on the learned graphs predicts test graphs, which on random ones it does not."""
    task = letters()
    rng = np.random.default_rng(0)
    shuffled = replace(task, labels=np.where(task.train, rng.permutation(task.labels), task.labels))
    recipe = KIDD(per_class=3, nodes=6, start="noise", steps=150, batch=24, lr_x=0.05, select_every=None)
    test = np.flatnonzero(task.test)
    real = real_nodes(task, test, before=1, after=4)._replace(order=jnp.arange(len(test))[None])
    loss = kernel_regression(task.num_classes, before=1, after=4)

    def accuracy(recipe, task):
        small = recipe(KEY, task)
        inputs = tuple(jnp.asarray(part) for part in (small.data.adj, small.data.x, small.data.mask))
        examples = Examples(inputs, jnp.asarray(small.targets))
        return float(loss(MatchContext(None, examples, {}, real, None, KEY, jnp.asarray(0)))[1]["accuracy"])

    learned, wrong = accuracy(recipe, task), accuracy(recipe, shuffled)
    noise = accuracy(replace(recipe, lr_x=0.0, lr_adj=0.0), task)
    assert learned > 0.9, (learned, wrong, noise)
    assert learned > max(wrong, noise) + 0.2, (learned, wrong, noise)


@pytest.mark.long
def test_the_step_of_low_rank_lowers_for_all_platforms():
    spy = Spy({})
    LOW(KEY, TASK, spy)
    alg, data = spy.ran
    state = alg.init(KEY, data, None)
    jax.export.export(jax.jit(alg.step), platforms=("cpu", "cuda", "tpu"), disabled_checks=EXPORT_CHECKS)(
        KEY, jnp.asarray(0), state, data, None
    )


def test_official_settings():
    found = METHODS.official("kidd", "NCI1", per_class=12)
    assert (found.per_class, found.start, found.size, found.lr_adj, found.lr_x) == (
        12,
        "herding",
        3.0,
        0.0,
        1e-4,
    )
    assert METHODS.official("kidd", "DD", per_class=50, low_rank=True) == KIDD(
        50, start="k-center", size=3.0, lr_adj=1e-5, lr_x=1e-4, rank=16, batch=8, support=8
    )
    assert METHODS.official("kidd", "MUTAG", per_class=1, low_rank=True) == KIDD(1, rank=16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": 0}, "rank must be at least 1 or None"),
        ({"support": 0}, "support must be at least 1"),
        ({"size": 0.0}, "size must be positive"),
        ({"ridge": -1.0}, "ridge must not be negative"),
    ],
)
def test_refusals(change, message):
    with pytest.raises(ValueError, match=message):
        KIDD(**change)
