"""SFGC: the student against plain descent and float64, the checks of trajectory matching, the recipe."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from condense_toy import TASK, same

import jgd
from jgd.condense import METHODS
from jgd.condense._sfgc import (
    OFFICIAL,
    SFGC,
    follow,
    gcn,
    trajectory_matching,
    val_nodes,
)
from jgd.condense.bilevel import MatchContext
from jgd.condense.trajectories import Segment
from jgd.core import Examples, InMemory
from jgd.data import Training, contextual_sbm
from jgd.graph import identity, operator
from jgd.ops.kernels import gntk_score

close = np.testing.assert_allclose
KEY = jax.random.key(0)
SMALL = SFGC(
    nodes=6,
    hidden=8,
    start="random",
    steps=6,
    lr_x=0.01,
    student_steps=4,
    length=20,
    max_start=2,
    every=2,
    experts=4,
    group=2,
    select_every=2,
)


def problem(rng, rows, width, hidden=5, classes=3, soft=False, dtype=np.float32):
    """A set, a start and a target of random numbers."""
    model = gcn(classes, hidden)
    x = rng.standard_normal((rows, width)).astype(dtype)
    y = rng.dirichlet(np.ones(classes), rows).astype(dtype) if soft else np.arange(rows) % classes
    small = Examples((identity(rows), jnp.asarray(x)), jnp.asarray(y))
    params, target = (
        jax.tree.map(lambda p: jnp.asarray(p, dtype), model.init(jax.random.key(i), *small.inputs)[0])
        for i in (1, 2)
    )
    return model, small, params, target


def by_hand(x, y, p, rate, steps):
    """The student in NumPy: ReLU network, softmax cross-entropy, gradients written out."""
    p = {
        "w": np.asarray(p["first"]["kernel"], np.float64),
        "b": np.asarray(p["first"]["bias"], np.float64),
        "v": np.asarray(p["second"]["kernel"], np.float64),
        "c": np.asarray(p["bias"], np.float64),
    }
    for _ in range(steps):
        z = x @ p["w"] + p["b"]
        h = np.maximum(z, 0)
        o = h @ p["v"] + p["c"]
        q = np.exp(o - o.max(1, keepdims=True))
        d = (q / q.sum(1, keepdims=True) - y) / len(x)
        g = (d @ p["v"].T) * (z > 0)
        grads = {"w": x.T @ g, "b": g.sum(0), "v": h.T @ d, "c": d.sum(0)}
        p = {n: v - rate * grads[n] for n, v in p.items()}
    return p


# --- the student ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "width"), [(4, 9), (9, 4)])
def test_follow_equals_descent_by_hand(rng, rows, width):
    """With fewer rows than features (in their span) and with more."""
    for soft in (False, True):
        model, small, params, _ = problem(rng, rows, width, soft=soft)
        x, y = np.asarray(small.inputs[1], np.float64), np.asarray(small.targets)
        got = jax.jit(lambda p, s: follow(model, p, s, 0.7, 7))(params, small)
        expected = by_hand(x, y if soft else np.eye(3)[y], params, 0.7, 7)
        close(got["first"]["kernel"], expected["w"], rtol=1e-4, atol=1e-5)
        close(got["first"]["bias"], expected["b"], rtol=1e-4, atol=1e-5)
        close(got["second"]["kernel"], expected["v"], rtol=1e-4, atol=1e-5)
        close(got["bias"], expected["c"], rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_the_span_is_used(rng):
    """With few rows no state of the features' width is kept: memory does not grow with the features."""

    def megabytes(width, steps=200):
        model, small, params, target = problem(rng, 4, width, hidden=16)

        def value(x):
            end = follow(model, params, small._replace(inputs=(identity(4), x)), 0.5, steps)
            return sum(
                jnp.sum((a - b) ** 2) for a, b in zip(*map(jax.tree.leaves, (end, target)), strict=True)
            )

        compiled = jax.jit(jax.grad(value)).lower(small.inputs[1]).compile()
        return compiled.memory_analysis().temp_size_in_bytes / 2**20

    wide = 2000
    assert megabytes(wide) < megabytes(20) + 20 * wide * 16 * 4 / 2**20  # and not 200 times that


def test_span_differentiates_as_plain_descent(rng):
    """Rows that are all there, padded by zero weights to more rows than features: the other path."""
    model, small, params, target = problem(rng, 4, 6)
    more = jnp.zeros((4, 6))

    def value(x, rate, padded):
        rows = jnp.concatenate([x, more]) if padded else x
        y = jnp.concatenate([small.targets, small.targets]) if padded else small.targets
        weights = jnp.arange(len(rows)) < 4
        end = follow(model, params, Examples((identity(len(rows)), rows), y, weights), rate, 9)
        return sum(jnp.sum((a - b) ** 2) for a, b in zip(*map(jax.tree.leaves, (end, target)), strict=True))

    grads = [
        jax.jit(jax.value_and_grad(lambda x, r, p=p: value(x, r, p), (0, 1)))(small.inputs[1], 0.6)
        for p in (False, True)
    ]
    jax.tree.map(lambda a, b: close(a, b, rtol=1e-4, atol=1e-5), *grads)


@pytest.mark.long
@pytest.mark.parametrize(("rows", "width"), [(3, 5), (5, 3)])
def test_finite_differences(rng, rows, width):
    """Check 7: three unrolled steps, in float64; features and step size."""
    with jax.enable_x64(True):
        model, small, params, target = problem(rng, rows, width, dtype=np.float64)
        matching = trajectory_matching(model, 3)
        window = Segment(params, target, target)

        def value(x, rate):
            examples = small._replace(inputs=(identity(rows), x))
            return matching(MatchContext(None, examples, {"lr": rate}, None, window))[0]

        value = jax.jit(value)
        x, h = small.inputs[1], 1e-6
        by_x, by_rate = jax.grad(value, (0, 1))(x, jnp.asarray(0.5))
        for i, j in ((0, 0), (1, 2), (2, 1)):
            e = jnp.zeros_like(x).at[i, j].set(h)
            close(by_x[i, j], (value(x + e, 0.5) - value(x - e, 0.5)) / (2 * h), rtol=1e-4, atol=1e-8)
        close(by_rate, (value(x, 0.5 + h) - value(x, 0.5 - h)) / (2 * h), rtol=1e-4)


@pytest.mark.parametrize("kind", ["squared", "norm"])
def test_loss_at_the_ends(rng, kind):
    """Check 7: one without steps, zero at the target. Check 17: there the gradient is zero, too."""
    model, small, params, target = problem(rng, 4, 6)

    def loss(steps, goal, small=small):
        matching = trajectory_matching(model, steps, kind=kind)
        ctx = MatchContext(None, small, {"lr": jnp.asarray(0.3)}, None, Segment(params, goal, goal))
        return matching(ctx)[0]

    close(loss(0, target), 1, rtol=1e-6)
    reached = follow(model, params, small, 0.3, 1)

    def value(x):
        return loss(1, reached, small._replace(inputs=(identity(4), x)))

    found, gradient = jax.jit(jax.value_and_grad(value))(small.inputs[1])
    close(found, 0, atol=1e-6)
    if kind == "squared":
        close(gradient, 0, atol=1e-5)
    assert float(loss(1, target)) > 0.1


def test_loss_by_hand(rng):
    """The ratio of distances, of all parameters together."""
    model, small, params, target = problem(rng, 4, 6)
    window = Segment(params, target, target)
    end = by_hand(
        np.asarray(small.inputs[1], np.float64), np.eye(3)[np.asarray(small.targets)], params, 0.4, 5
    )

    def flat(p):
        if "w" in p:
            return np.concatenate([p[n].ravel() for n in "wbvc"])
        parts = p["first"]["kernel"], p["first"]["bias"], p["second"]["kernel"], p["bias"]
        return np.concatenate([np.asarray(x, np.float64).ravel() for x in parts])

    ratio = np.linalg.norm(flat(end) - flat(target)) / np.linalg.norm(flat(params) - flat(target))
    for kind, power in (("squared", 2), ("norm", 1)):
        matching = trajectory_matching(model, 5, kind=kind, learning_rate=0.4)
        close(matching(MatchContext(None, small, {}, None, window))[0], ratio**power, rtol=1e-4)


# --- the recipe -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run():
    loop = InMemory({})
    return SMALL(KEY, TASK, loop), loop.history["match"]


@pytest.mark.long
def test_result(run):
    small, history = run
    assert small.training == Training(adjacency="identity", targets="classes")
    assert len(small.data.senders) == 0
    assert small.data.nodes.shape == (6, 6)
    np.testing.assert_array_equal(small.targets, [0, 0, 1, 1, 2, 2])
    assert small.provenance["method"] == "sfgc"
    assert history["loss"].shape == (6,)
    assert np.isfinite(history["loss"]).all()
    assert np.ptp(history["student_lr"]) > 0  # it is learned
    close(history["best"][-1], np.nanmax(history["score"]))


@pytest.mark.long
def test_stored_experts(tmp_path, run):
    """The first run fills the folder, the second finds it, and both are equal to the bit."""
    recipe = replace(SMALL, store=str(tmp_path / "experts"))
    first = recipe(KEY, TASK)
    files = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "experts").iterdir()}
    assert len(files) == 5
    same(recipe(KEY, TASK), first)
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "experts").iterdir()} == files
    assert not np.array_equal(first.data.nodes, run[0].data.nodes)
    with pytest.raises(ValueError, match="other note"):
        replace(recipe, expert_lr=0.1)(KEY, TASK)


@pytest.mark.long
def test_labels_of_test_nodes_have_no_part():
    """Of a transductive task, the labels outside of training and validation are not looked at."""
    known = np.asarray(TASK.train) | np.asarray(TASK.val)
    other = replace(TASK, labels=np.where(known, TASK.labels, (np.asarray(TASK.labels) + 1) % 3))
    same(SMALL(KEY, TASK), SMALL(KEY, other))


@pytest.mark.long
def test_kernel_as_judge():
    """`select_with="gntk"` keeps the set whose kernel regression errs least on validation nodes."""
    loop = InMemory({})
    recipe = replace(SMALL, select_with="gntk")
    small = recipe(KEY, TASK, loop)
    history = loop.history["match"]
    part = TASK.induced(TASK.val)
    real = operator(part.graph, normalize="row", self_loops=True), jnp.asarray(part.graph.nodes)
    score = gntk_score(
        (identity(6), jnp.asarray(small.data.nodes), jnp.eye(3)[small.targets] - 1 / 3),
        (*real, jnp.eye(3)[np.asarray(part.labels)] - 1 / 3),
    )
    close(-history["best"][-1], score, rtol=1e-4)
    close(history["best"][-1], np.nanmax(history["score"]))
    few = val_nodes("gntk", replace(TASK, val=np.zeros(72, bool)))
    assert few is None


def test_kernel_judges_by_a_sample_of_many():
    big = contextual_sbm(num_nodes=4500, num_features=3, fractions=(0.1, 0.6, 0.3))
    few = val_nodes("gntk", big, limit=20)
    assert few.targets.shape == (80, 4)
    close(few.targets.sum(0), 0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden", 0),
        ("steps", 0),
        ("student_steps", 0),
        ("experts", 0),
        ("group", 0),
        ("segment", 0),
        ("select_every", 0),
        ("patience", 0),
        ("length", 0),
        ("every", 0),
        ("max_start", -200),
        ("start", "herd"),
        ("expert_optimizer", "lion"),
        ("select_with", "mlp"),
    ],
)
def test_impossible_settings(name, value):
    with pytest.raises((ValueError, TypeError), match="start" if name == "max_start" else name):
        SFGC(**{name: value})


TABLE = """
cora .25 1500 400 1e-4 .5 500 sgd .4
cora .5 1200 500 1e-4 .5 300 sgd .4
cora 1 2000 500 1e-4 .5 300 sgd .4
citeseer .25 500 200 5e-4 .6 30 adam 1e-3
citeseer .5 500 200 1e-3 .6 30 adam 1e-3
citeseer 1 400 300 1e-3 .6 30 adam 1e-3
ogbn-arxiv .001 1800 600 .2 .2 30 sgd 1
ogbn-arxiv .005 1900 1200 .1 .1 30 sgd 1
ogbn-arxiv .01 1900 1000 .1 .1 10 sgd 1
flickr .001 700 600 .1 .3 30 adam 1e-3
flickr .005 900 600 .01 .2 30 adam 1e-3
flickr .01 900 900 .02 .2 30 adam 1e-3
reddit .0005 900 900 .02 .5 30 adam 1e-3
reddit .001 900 900 .05 .5 50 adam 1e-3
reddit .005 900 900 .2 .2 30 adam 1e-3
"""
COLUMNS = ("length", "student_steps", "lr_x", "student_lr", "max_start", "expert_optimizer", "expert_lr")


def test_official_settings():
    rows = [line.split() for line in TABLE.strip().splitlines()]
    assert len(rows) == len(OFFICIAL)
    for dataset, ratio, *values in rows:
        recipe = METHODS.official("sfgc", dataset, label_ratio=float(ratio))
        for name, value in zip(COLUMNS, values, strict=True):
            got = getattr(recipe, name)
            assert got == (value if isinstance(got, str) else float(value)), (dataset, ratio, name)
        assert recipe.every == (100 if dataset == "cora" else 10)
    assert METHODS.official("sfgc", "cora").span().at == (0, 100, 200, 300, 1200, 1300, 1400, 1500)
    assert METHODS.official("sfgc", "unheard-of") == SFGC()
    assert METHODS.official("sfgc", "citeseer", nodes=60).expert_decay == 5e-4


# --- ablation -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def noisy():
    """A task whose features say little, but whose edges do."""
    return contextual_sbm(
        num_nodes=400,
        num_classes=4,
        num_features=24,
        mean_degree=8,
        homophily=0.85,
        signal=1.2,
        fractions=(0.15, 0.25, 0.6),
    )


@pytest.mark.slow
def test_matching_puts_the_edges_into_the_features(noisy):
    """Matched nodes teach far better than those they start from; experts of wrong labels ruin them."""
    recipe = SFGC(
        nodes=12,
        hidden=32,
        start="random",
        steps=60,
        lr_x=0.05,
        student_steps=30,
        student_lr=0.5,
        length=100,
        max_start=10,
        experts=6,
        group=3,
        expert_lr=0.5,
        select_every=None,
    )
    rng = np.random.default_rng(0)
    labels, train = np.asarray(noisy.labels).copy(), np.asarray(noisy.train)
    labels[train] = rng.permutation(labels[train])
    wrong = replace(noisy, labels=labels)
    config = jgd.EvalConfig(steps=100, hidden=32, select_every=5)
    sets = {}
    for seed in range(2):
        key = jax.random.key(seed)
        sets[f"matched {seed}"] = recipe(key, noisy)
        sets[f"start {seed}"] = replace(recipe, steps=1, lr_x=0.0)(key, noisy)
        sets[f"shuffled {seed}"] = recipe(key, wrong)
    scores = jgd.evaluate(sets, noisy, seeds=2, config=config)
    found = {k: v["gcn"].test_mean for k, v in scores.items()}
    for seed in range(2):
        assert found[f"matched {seed}"] > found[f"start {seed}"] + 0.05, found
        assert found[f"matched {seed}"] > found[f"shuffled {seed}"] + 0.2, found
