"""GEOM: soft labels, the loss with knowledge of the last network, the curriculum in the recipe."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from condense_toy import TASK, same
from hypothesis import given, settings
from hypothesis import strategies as st

from jgd.condense import METHODS
from jgd.condense._geom import GEOM, OFFICIAL, _algorithms, predicted, raised, soft_node_set
from jgd.condense._sfgc import follow, gcn
from jgd.condense.bilevel import Matching
from jgd.condense.trajectories import Segment, difficulty
from jgd.core import Examples, InMemory
from jgd.data import Training
from jgd.graph import adjacency, identity, operator

close = np.testing.assert_allclose
KEY = jax.random.key(0)
SMALL = GEOM(
    nodes=6,
    hidden=8,
    start="random",
    steps=6,
    lr_x=0.01,
    lr_y=0.05,
    student_steps=4,
    length=10,
    max_start=6,
    first_start=2,
    every=2,
    experts=4,
    group=2,
    expert_steps=20,
    expert_pace_steps=10,
    knowledge=0.1,
    select_every=2,
)


class Listening(InMemory):
    """A loop that keeps what every stage was given."""

    def __init__(self):
        super().__init__({})
        self.given = {}

    def __call__(self, name, algorithm, key, data, num_steps, batches=None):
        product = super().__call__(name, algorithm, key, data, num_steps, batches)
        self.given[name] = (algorithm, data, product)
        return product


# --- labels ---------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_raised(seed):
    """Distributions in which no class is more likely than the true one; right rows stay as they are."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((5, 4)) * 3
    log_p = np.asarray(jax.nn.log_softmax(logits))
    labels = rng.integers(0, 4, 5)
    got = np.asarray(raised(log_p, jnp.asarray(labels)))
    close(np.exp(got).sum(1), 1, rtol=1e-5)
    own = got[np.arange(5), labels]
    assert (own >= got.max(1) - 1e-6).all()
    right = log_p.argmax(1) == labels
    close(got[right], log_p[right], rtol=1e-4, atol=1e-5)
    others = np.arange(4) != labels[:, None]
    shift = np.where(others, got - log_p, 0).sum(1, keepdims=True) / 3
    close(np.where(others, got - log_p, shift), np.broadcast_to(shift, got.shape), atol=1e-4)


def test_soft_labels_are_distributions(rng):
    synth = soft_node_set(0.3)
    logits = jnp.asarray(rng.standard_normal((4, 3)))
    parts, fixed = synth.init(KEY, Examples((jnp.ones((4, 2)),), logits))
    assert set(parts) == {"x", "y", "lr"}
    close(synth.render(parts, fixed).targets, jax.nn.softmax(logits), rtol=1e-6)


# --- the loss -------------------------------------------------------------------------------------


def pieces(rng, recipe):
    """The matching step on six nodes, with windows of random networks."""
    alg, *_ = _algorithms(replace(recipe, nodes=None, label_ratio=None), 3)
    x = jnp.asarray(rng.standard_normal((6, 9)), jnp.float32)
    labels = jnp.asarray([0, 1, 2, 0, 1, 2])
    logits = jnp.asarray(rng.standard_normal((6, 3)), jnp.float32)
    start = Examples((x,), logits if recipe.soft_labels else labels)
    model = gcn(3, recipe.hidden)
    like = jax.eval_shape(lambda: model.init(KEY, identity(6), x)[0])

    def drawn(leaf):
        return jnp.asarray(rng.uniform(-0.5, 0.5, leaf.shape), jnp.float32)

    window = Segment(*(jax.tree.map(drawn, like) for _ in range(3)))
    state = alg.init(KEY, Matching(start, None), None)
    return alg, model, start, window, state


@pytest.mark.parametrize("soft", [True, False])
def test_loss_by_hand(rng, soft):
    """``|θ_p - θ*| / |θ*_s - θ*| + β KL(y' | f_last(X'))``."""
    recipe = replace(SMALL, soft_labels=soft)
    alg, model, start, window, state = pieces(rng, recipe)
    metrics = jax.jit(alg.step)(KEY, 0, state, Matching(start, None), window)[1]
    y = np.asarray(jax.nn.softmax(start.targets) if soft else np.eye(3)[start.targets], np.float64)
    small = Examples((identity(6), start.inputs[0]), jnp.asarray(y))
    end = follow(model, window.start, small, recipe.student_lr, recipe.student_steps)

    def distance(a, b):
        pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
        return np.sqrt(sum(np.sum((np.asarray(x, np.float64) - np.asarray(z)) ** 2) for x, z in pairs))

    ratio = distance(end, window.target) / distance(window.start, window.target)
    log_p = np.asarray(jax.nn.log_softmax(model.apply(window.last, {}, *small.inputs)[0].logits), np.float64)
    kl = np.mean(np.sum(y * (np.log(np.where(y > 0, y, 1)) - log_p), axis=1))
    close(metrics["distance"], ratio, rtol=1e-4)
    close(metrics["knowledge"], kl, rtol=1e-4)
    close(metrics["loss"], ratio + 0.1 * kl, rtol=1e-4)
    assert kl > 0.05


def test_options_of_the_loss(rng):
    alg, _, start, window, state = pieces(rng, replace(SMALL, knowledge=0.0, distance="squared"))
    data = Matching(start, None)
    squared = jax.jit(alg.step)(KEY, 0, state, data, window)[1]
    assert "knowledge" not in squared
    alg, *_ = _algorithms(replace(SMALL, nodes=None, label_ratio=None, knowledge=0.0), 3)
    plain = jax.jit(alg.step)(KEY, 0, state, data, window)[1]
    close(squared["loss"], plain["loss"] ** 2, rtol=1e-4)


def test_all_parts_move(rng):
    alg, _, start, window, state = pieces(rng, replace(SMALL, lr_lr=1e-2))
    new, _ = jax.jit(alg.step)(KEY, 0, state, Matching(start, None), window)
    for name in ("x", "y", "lr"):
        assert np.abs(np.asarray(new.parts[name]) - np.asarray(state.parts[name])).max() > 0, name


# --- the recipe -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run():
    loop = Listening()
    return SMALL(KEY, TASK, loop), loop


@pytest.mark.long
def test_result(run):
    small, loop = run
    assert small.training == Training(adjacency="identity", targets="probabilities")
    close(small.targets.sum(1), 1, rtol=1e-5)
    assert small.provenance["method"] == "geom"
    history = loop.history["match"]
    close(history["loss"], history["distance"] + 0.1 * history["knowledge"], rtol=1e-5)
    close(history["best"][-1], np.nanmax(history["score"]))
    start = loop.given["match"][1].start
    labels = np.asarray([0, 0, 1, 1, 2, 2])
    own = start.targets[np.arange(6), labels]
    assert (own >= start.targets.max(1) - 1e-6).all()
    first = loop.given["teacher"][2]
    log_p = jax.nn.log_softmax(first(identity(6), start.inputs[0]).logits)
    close(start.targets, raised(log_p, jnp.asarray(labels)), rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_lessons(run):
    """Ranks follow the entropy of true labels of training nodes and predicted ones of others."""
    _, loop = run
    _, data, _ = loop.given["match"]
    first = loop.given["teacher"][2]
    a = operator(TASK.graph, normalize="sym", self_loops=True)
    logits = first(a, a @ jnp.asarray(TASK.graph.nodes)).logits
    guess = np.asarray(logits).argmax(1)
    np.testing.assert_array_equal(predicted(first, TASK), guess)
    train = np.asarray(TASK.train)
    labels = np.where(train, TASK.labels, guess)
    values = difficulty(adjacency(TASK.graph), labels, np.ones(72, bool))[train]
    rank = np.asarray(data.real.rank)
    assert sorted(rank) == list(range(train.sum()))
    assert (np.diff(values[np.argsort(rank)]) >= -1e-12).all()
    assert np.ptp(values) > 0


@pytest.mark.long
@pytest.mark.parametrize("neighbours", ["predicted", "train"])
def test_labels_of_test_nodes_have_no_part(neighbours):
    recipe = replace(SMALL, neighbours=neighbours)
    known = np.asarray(TASK.train) | np.asarray(TASK.val)
    other = replace(TASK, labels=np.where(known, TASK.labels, (np.asarray(TASK.labels) + 1) % 3))
    same(recipe(KEY, TASK), recipe(KEY, other))


def test_the_published_leak():
    """With ``"all"`` the order of the lessons does depend on labels of test nodes."""
    known = np.asarray(TASK.train) | np.asarray(TASK.val)
    other = replace(TASK, labels=np.where(known, TASK.labels, np.arange(72) % 3))
    recipe = replace(SMALL, neighbours="all")
    values = [recipe._difficulty(task, None) for task in (TASK, other)]
    assert not np.allclose(*values)


@pytest.mark.long
def test_hard_labels():
    loop = Listening()
    small = replace(SMALL, soft_labels=False, neighbours="train", select_every=None)(KEY, TASK, loop)
    assert small.training.targets == "classes"
    np.testing.assert_array_equal(small.targets, [0, 0, 1, 1, 2, 2])
    assert "teacher" not in loop.given


@pytest.mark.long
def test_stored_experts(tmp_path):
    recipe = replace(SMALL, store=str(tmp_path), select_every=None)
    first = recipe(KEY, TASK)
    same(recipe(KEY, TASK), first)
    assert len(list(tmp_path.glob("expert-*.npy"))) == 4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("neighbours", "none"),
        ("distance", "cosine"),
        ("expert_pace", "cosine"),
        ("expert_first", 0.0),
        ("expert_pace_steps", 0),
        ("expert_steps", 100),
        ("first_start", 300),
        ("min_start", 60),
        ("knowledge", -1.0),
        ("steps", 0),
    ],
)
def test_impossible_settings(name, value):
    with pytest.raises((ValueError, TypeError)):
        GEOM(**{name: value})


TABLE = """
cora .25 1400 2500 50 200 1e-4 .01 .75 1500 geom
cora .5 1400 2500 50 200 1e-4 .01 .75 1500 geom
cora 1 1500 2500 50 200 1e-4 .01 .75 1500 geom
citeseer .25 350 200 1 30 1e-4 .1 .8 250 root
citeseer .5 350 200 10 80 7e-4 .05 .8 250 root
citeseer 1 350 400 1 20 5e-4 .1 .8 250 root
ogbn-arxiv .001 1100 650 30 50 .25 0 .85 1200 root
ogbn-arxiv .005 1600 2100 200 300 .05 0 .85 1200 root
ogbn-arxiv .01 1900 2100 200 350 .03 0 .85 1200 root
flickr .001 600 700 10 30 .07 .3 .95 150 root
flickr .005 600 200 30 60 .1 100 .95 100 root
flickr .01 70 300 10 70 .07 .3 .95 100 root
reddit .0005 800 800 1 50 .02 .25 .9 800 linear
reddit .001 1000 1000 1 20 .03 .1 .9 800 linear
reddit .005 900 800 1 10 .2 .25 .9 800 linear
"""
COLUMNS = ("length", "student_steps", "first_start", "max_start", "lr_x", "knowledge", "expert_first")
COLUMNS += ("expert_pace_steps", "expert_pace")


def test_official_settings():
    rows = [line.split() for line in TABLE.strip().splitlines()]
    assert len(rows) == len(OFFICIAL)
    for dataset, ratio, *values in rows:
        recipe = METHODS.official("geom", dataset, label_ratio=float(ratio))
        for name, value in zip(COLUMNS, values, strict=True):
            got = getattr(recipe, name)
            assert got == (value if isinstance(got, str) else float(value)), (dataset, ratio, name)
        assert recipe.soft_labels == (dataset == "cora")
    assert METHODS.official("geom", "unheard-of") == GEOM()


# --- ablation -------------------------------------------------------------------------------------


@pytest.mark.long
def test_knowledge_moves_nodes_to_where_the_expert_is_sure(rng):
    """A large β makes the last network agree with the labels of the set; hardly any does not."""
    found = {}
    for beta in (1e-6, 10.0):
        recipe = replace(SMALL, soft_labels=False, lr_x=0.05, knowledge=beta)
        alg, _, start, window, state = pieces(rng, recipe)
        step = jax.jit(alg.step)
        for t in range(40):
            state, metrics = step(jax.random.key(t), t, state, Matching(start, None), window)
        found[beta] = float(metrics["knowledge"])
    assert found[10.0] < 0.5 * found[1e-6], found


def test_bound_of_windows_is_used():
    """A window that has not expanded yet asks for early starts only."""
    early = replace(SMALL, first_start=2, max_start=2, expert_steps=20)
    assert early.span().at == (0, 10, 20)
    assert SMALL.span().at == (0, 2, 4, 10, 12, 14, 20)
    assert replace(SMALL, knowledge=0.0).span().at == (0, 2, 4, 10, 12, 14)
