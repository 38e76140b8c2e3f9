"""The detector against NumPy, its rounds by hand, and detection on a log with a planted attack."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jgd
from jgd.apps.graphdart import (
    OFFICIAL,
    GraphDART,
    TypeNet,
    alarms,
    count_threshold,
    explained,
    graph_alarms,
    official,
    representatives,
    type_task,
)
from jgd.condense.common import condensed_nodes
from jgd.core import Bound, InMemory
from jgd.data import EventLog, NodeTask
from jgd.data.system_logs import events_to_graph
from jgd.graph import EXPORT_CHECKS, DenseOperator, SparseOperator, adjacency, operator
from jgd.registry import Choice
from jgd.text import ppmi_vectors

close = np.testing.assert_allclose
KEY = jax.random.key(5)
QUICK = {"size": 8, "steps": 150, "hidden": 16}


def toy_log(seed, graphs=4, attack=False):
    """Processes that read and write files and talk to sockets; an attack writes to sockets' own words."""
    rng = np.random.default_rng(seed)
    log = EventLog(actor=[], action=[], object=[], time=np.zeros(0))
    group = []

    def add(g, actor, action, target, kind, *words):
        log.actor.append(actor)
        log.action.append(action)
        log.object.append(target)
        log.types |= {actor: "process", target: kind}
        log.words.append(words)
        group.append(g)

    for g in range(graphs):
        for p in range(2):
            actor = f"{g}:p{p}"
            for f in range(6):
                action = ("read", "write")[int(rng.integers(2))]
                add(g, actor, action, f"{g}:f{p}{f}", "file", "tool", action, f"path{f % 3}")
            for s in range(2):
                add(g, actor, "connect", f"{g}:s{p}{s}", "socket", "tool", "connect", f"port{s}")
    bad = set()
    if attack:  # in the last graph
        g = graphs - 1
        for f in range(4):
            add(g, f"{g}:evil", "send", f"{g}:loot{f}", "file", "tool", "connect", "port1")
            bad.add(f"{g}:loot{f}")
    log.time, log.graph_id = np.arange(len(group)), np.asarray(group)
    log.malicious, log.graphs = frozenset(bad), [str(i) for i in range(graphs)]
    return log


BENIGN = toy_log(0)
FOUND = events_to_graph(BENIGN)
KINDS = ("file", "process", "socket")
VECTORS = ppmi_vectors(FOUND.documents, size=8)
TASK = type_task(FOUND, VECTORS, KINDS)


def fitted(**kw):
    return GraphDART(**{**QUICK, **kw})


@pytest.fixture(scope="module")
def full():
    return fitted().fit(KEY, TASK)[0]


class Spy(InMemory):
    """Remembers what it was given; runs nothing unless told so."""

    def __init__(self, run=False):
        super().__init__({})
        self.run = run

    def __call__(self, name, algorithm, key, data, num_steps, batches=None):
        self.algorithm, self.data = algorithm, data
        if self.run:
            return super().__call__(name, algorithm, key, data, num_steps, batches)
        return algorithm.result(jax.eval_shape(lambda: algorithm.init(key, data, None)), data)


def same(a: Bound, b: Bound):
    for x, y in zip(jax.tree.leaves(a.params), jax.tree.leaves(b.params), strict=True):
        np.testing.assert_array_equal(x, y)


# --- the network ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dense", [True, False])
def test_network_is_numpy(dense):
    """Both layers, in float64; a node without in-edges has mean zero, edges count by weight."""
    rng = np.random.default_rng(1)
    a = rng.integers(0, 3, (7, 7)) * (rng.random((7, 7)) < 0.4)
    a[2] = 0
    x = rng.standard_normal((7, 4)).astype(np.float32)
    graph = jgd.graph.from_adjacency(a.astype(np.float32), x)
    op = operator(a.astype(np.float32) if dense else graph, normalize="row")
    assert isinstance(op, DenseOperator if dense else SparseOperator)
    net = TypeNet(num_classes=3, hidden=5)
    variables = jax.jit(net.init)(KEY, op, jnp.asarray(x))
    params = jax.tree.map(
        lambda p: p + 0.1 * jnp.arange(p.size).reshape(p.shape) / p.size, variables["params"]
    )
    y = x.astype(np.float64)
    for i in range(2):
        layer = jax.tree.map(lambda p: np.asarray(p, np.float64), params[f"_Layer_{i}"])
        means = [np.average(y, axis=0, weights=row) if row.any() else np.zeros(y.shape[1]) for row in a]
        z = (
            y @ layer["own"]["kernel"]
            + layer["own"]["bias"]
            + np.stack(means) @ layer["neighbours"]["kernel"]
        )
        y = z / np.linalg.norm(z, axis=1, keepdims=True)
        if i == 0:
            y = np.maximum(y, 0)
    out = jax.jit(net.apply)({"params": params}, op, jnp.asarray(x))
    close(out.logits, y, rtol=1e-4, atol=1e-5)
    close(np.linalg.norm(out.logits, axis=1), 1, rtol=1e-5)


def test_empty_nodes_have_finite_gradients():
    """No text and no neighbours: the row is zero before the bias has moved."""
    net, op, x = TypeNet(num_classes=3, hidden=4), operator(np.zeros((2, 2), np.float32)), jnp.zeros((2, 3))
    params = jax.jit(net.init)(KEY, op, x)
    out, grads = jax.jit(jax.value_and_grad(lambda p: net.apply(p, op, x).logits.sum()))(params)
    assert out == 0
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


# --- rounds ---------------------------------------------------------------------------------------


def test_explained():
    """All right: all explained. One kind always predicted, without confidence: its nodes and no others."""
    types = jnp.asarray([0, 1, 2, 1, 0])
    everyone = jnp.ones(5, bool)
    assert explained(5 * jax.nn.one_hot(types, 3), types, everyone).all()
    constant = jnp.tile(jnp.asarray([0.0, 1.0, 0.2]), (5, 1))
    np.testing.assert_array_equal(explained(constant, types, everyone, confidence=2.0), types == 1)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["or", "and"]))
def test_confidence_by_hand(seed, rule):
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((9, 4)).astype(np.float32)
    types, mask = rng.integers(0, 4, 9), rng.random(9) < 0.6
    p = np.exp(logits.astype(np.float64))
    p = -np.sort(-p / p.sum(1, keepdims=True), 1)
    margin = (p[:, 0] - p[:, 1]) / p[:, 0]
    sure = np.zeros(9, bool)
    if mask.any() and np.ptp(margin[mask]) > 0:
        sure = (margin - margin[mask].min()) / np.ptp(margin[mask]) >= 0.6
    right = logits.argmax(1) == types
    expected = right | sure if rule == "or" else right & sure
    found = explained(jnp.asarray(logits), jnp.asarray(types), jnp.asarray(mask), rule, 0.6)
    np.testing.assert_array_equal(np.asarray(found)[mask], expected[mask])


@pytest.mark.long
def test_rounds_train_on_what_is_left():
    """Alarms only ever become fewer, and training stops once all is explained."""
    history = {}
    make = fitted(rounds=20, steps=15, confidence=2.0)
    models = make.train(KEY, TASK, loop=InMemory(history))
    left, done = (history["detector"][name] for name in ("unexplained", "done"))
    assert (np.diff(left) <= 0).all()
    assert left[14] > 0  # one round is not enough
    assert len(done) < 300  # and twenty are not needed
    assert done[-1]
    assert not done[:-1].any()
    before = np.ones(TASK.num_nodes, bool)
    for m in range(1, 21):
        some = replace(
            models, params=jax.tree.map(lambda p, m=m: p[jnp.minimum(jnp.arange(20), m - 1)], models.params)
        )
        now = alarms(some, TASK.graph, TASK.labels)
        assert not (now & ~before).any()
        assert now.mean() == pytest.approx(left[min(15 * m, len(left)) - 1], abs=1e-6)  # left are the alarms
        before = now
    assert not before.any()
    for leaf in jax.tree.leaves(models.params):  # what was not needed repeats the last model
        np.testing.assert_array_equal(leaf[-1], leaf[len(done) // 15 - 1])


@pytest.mark.long
def test_weights_are_who_is_not_explained():
    """A condensed node counts as often as it stands for a node that is left; then only those train."""
    loop = Spy()
    small = condensed(np.eye(8, dtype=np.float32)[:3], np.arange(3))
    fitted().train(KEY, TASK, small, loop)
    alg, data = loop.algorithm, loop.data
    state = jax.jit(alg.init)(KEY, data, None)
    np.testing.assert_array_equal(state.mask, True)
    step = jax.jit(alg.step)

    def loss(mask):
        return step(KEY, np.int32(0), state._replace(mask=mask), data, None)[1]["loss"]

    each = [float(loss(jnp.asarray(TASK.labels == kind))) for kind in range(3)]
    counts = np.bincount(TASK.labels)
    close(float(loss(state.mask)), np.average(each, weights=counts), rtol=1e-5)
    some = np.asarray(TASK.labels == 0) | (np.arange(TASK.num_nodes) % 2 == 0)
    close(float(loss(jnp.asarray(some))), np.average(each, weights=np.bincount(TASK.labels[some])), rtol=1e-5)


@pytest.mark.long
def test_step_lowers_everywhere():
    from jgd.apps.graphdart import _boosted

    for task in (TASK, _large()):
        loop = Spy()
        fitted().train(KEY, task, loop=loop)
        alg, data = loop.algorithm, loop.data
        state = jax.eval_shape(lambda alg=alg, data=data: alg.init(KEY, data, None))

        def step(state, data, alg=alg):
            return alg.step(KEY, jnp.zeros((), jnp.int32), state, data, None)

        jax.export.export(jax.jit(step), platforms=("cpu", "cuda", "tpu"), disabled_checks=EXPORT_CHECKS)(
            state, data
        )
    assert _boosted.cache_info().hits > 0  # the same functions for the same settings


def _large():
    """More nodes than a dense operator is made for."""
    rng = np.random.default_rng(0)
    graph = jgd.graph.from_edges(
        rng.integers(0, 1100, 2000),
        rng.integers(0, 1100, 2000),
        rng.standard_normal((1100, 8)).astype(np.float32),
    )
    labels = rng.integers(0, 3, 1100).astype(np.int32)
    return NodeTask(graph=graph, labels=labels, train=labels >= 0, num_classes=3, directed=True)


# --- distillation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("edges", ["coarsened", "own"])
def test_a_coreset_of_all_nodes_is_the_full_detector(full, edges):
    same(full, fitted(condenser=jgd.condense.random(label_ratio=1.0), edges=edges).fit(KEY, TASK)[0])


@pytest.mark.long
def test_a_large_coreset_of_all_nodes_is_the_full_detector():
    task, make = _large(), partial(fitted, steps=3, rounds=2)
    whole = make().fit(KEY, task)[0]
    same(whole, make(condenser=jgd.condense.random(label_ratio=1.0)).fit(KEY, task)[0])


CONDENSERS = {
    "average": jgd.condense.average(nodes=9),
    "clustgdd": jgd.condense.clustgdd(nodes=9, refine_steps=0, restarts=1, hidden=8),
}


@pytest.mark.long
@pytest.mark.parametrize("name", CONDENSERS)
def test_any_condenser(name):
    """Fewer nodes, every kind, and nearly all benign nodes explained by a few condensed ones."""
    models, small = fitted(condenser=CONDENSERS[name]).fit(KEY, TASK)
    assert len(small.targets) == 9
    assert jax.tree.leaves(models.params)[0].shape[0] == 1
    alarm = alarms(models, TASK.graph, TASK.labels)
    assert alarm.mean() < 0.35


def condensed(x, targets, **kw):
    return condensed_nodes(jgd.condense.random(), KEY, TASK, features=x, labels=targets, **kw)


@pytest.mark.long
def test_lost_kinds_come_back_and_dense_weights_train():
    """A condenser may return a dense weighted graph, soft labels, and forget a kind."""
    rng = np.random.default_rng(2)
    soft = np.asarray([[0.9, 0.1, 0], [0.2, 0.8, 0], [0.7, 0.3, 0]], np.float32)  # no socket
    a = rng.random((3, 3)).astype(np.float32)
    small = condensed(rng.standard_normal((3, 8)), soft, edges=a, adjacency="raw")
    loop = Spy()
    for edges in ("own", "coarsened"):
        loop.run = edges == "own"
        models = fitted(edges=edges).train(KEY, TASK, small, loop)
        if loop.run:
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(models.params))
            assert np.isfinite(loop.history["detector"]["loss"]).all()
        data = loop.data
        op, x = data.small.inputs
        assert x.shape == (4, 8)
        close(x[3], TASK.graph.nodes[TASK.labels == 2].mean(0), rtol=1e-5)
        np.testing.assert_array_equal(data.small.targets[3], [0, 0, 1])
        to = np.eye(4)[np.asarray(data.represents)].T
        expected = np.zeros((4, 4)) if edges == "own" else to @ adjacency(TASK.graph).toarray() @ to.T
        if edges == "own":
            expected[:3, :3] = a
        total = expected.sum(1, keepdims=True)
        close(op.todense(), np.divide(expected, total, where=total > 0, out=np.zeros((4, 4))), rtol=1e-5)
        np.testing.assert_array_equal(np.asarray(data.represents)[TASK.labels == 2], 3)


def test_coarsened_edges_keep_the_means_of_neighbours():
    """For features that are means of those who are stood for, ``mean(A' X')`` is that over all of them."""
    rng = np.random.default_rng(3)
    assign = np.asarray(TASK.labels) * 2 + rng.integers(0, 2, TASK.num_nodes)
    points = np.eye(6)[assign].astype(np.float32)  # one point for each group
    task = replace(TASK, graph=TASK.graph._replace(nodes=points))
    small = condensed(np.eye(6, dtype=np.float32), np.repeat(np.arange(3), 2))
    loop = Spy()
    fitted().train(KEY, task, small, loop)
    data = loop.data
    np.testing.assert_array_equal(data.represents, assign)
    a = adjacency(task.graph).toarray()
    for group in range(6):
        into = a[assign == group].sum(0)
        expected = into @ points / into.sum() if into.sum() else np.zeros(6)
        op, x = data.small.inputs
        close((op @ x)[group], expected, atol=1e-6)


def test_representatives():
    x = np.asarray([[0.0], [1.0], [2.0], [3.0], [0.0]], np.float32)
    types = np.asarray([0, 0, 1, 1, -1])
    small, kinds = np.asarray([[0.1], [2.9], [1.2]], np.float32), np.asarray([0, 1, 0])
    np.testing.assert_array_equal(representatives(x, types, small, kinds), [0, 2, 1, 1, 0])
    chosen = np.asarray([1, 2])  # kept nodes stand for themselves, whoever else is as near
    twins = np.ones((4, 1), np.float32)
    found = representatives(twins, np.zeros(4, int), np.ones((2, 1), np.float32), np.zeros(2, int), chosen)
    np.testing.assert_array_equal(found[chosen], [0, 1])
    with pytest.raises(ValueError, match="kind 1 has no condensed node"):
        representatives(x, types, small, np.zeros(3, int))


# --- detection ------------------------------------------------------------------------------------


def test_padding_changes_no_alarm(full):
    swapped = np.where(np.arange(TASK.num_nodes) % 7 == 0, (TASK.labels + 1) % 3, TASK.labels)
    plain = alarms(full, TASK.graph, swapped)
    assert plain.any()
    nodes, edges = TASK.num_nodes + 13, len(TASK.graph.senders) + 5
    padded = jraph.pad_with_graphs(TASK.graph, nodes, edges, 2)
    types = np.append(swapped, np.full(13, -1))
    found = alarms(full, padded, types)
    np.testing.assert_array_equal(found[: TASK.num_nodes], plain)
    assert not found[TASK.num_nodes :].any()


def test_swapped_kinds_are_flagged(full):
    """Who is swapped is flagged about as often as the benign are understood."""
    task = type_task(events_to_graph(toy_log(7)), VECTORS, KINDS)
    understood = ~alarms(full, task.graph, task.labels)
    assert understood.mean() > 0.9
    rng, flagged, benign = np.random.default_rng(0), [], []
    for _ in range(20):
        chosen = rng.choice(task.num_nodes, max(1, task.num_nodes // 20), replace=False)
        types = task.labels.copy()
        types[chosen] = (types[chosen] + rng.integers(1, 3, len(chosen))) % 3
        found = alarms(full, task.graph, types)
        flagged += found[chosen].tolist()
        benign += understood[chosen].tolist()
        rest = np.setdiff1d(np.arange(task.num_nodes), chosen)
        np.testing.assert_array_equal(found[rest], ~understood[rest])
    assert np.mean(flagged) >= np.mean(benign) - 0.02


def test_clear_asks_for_confidence(full):
    easy, strict = (alarms(full, TASK.graph, TASK.labels, clear) for clear in (0.0, 0.9))
    assert not (easy & ~strict).any()
    assert strict.sum() > easy.sum()


def test_graph_alarms():
    alarm = np.asarray([True, False, True, True, False])
    found, counts = graph_alarms(alarm, np.asarray([0, 0, 2, 2, 2]), 1.0, count=4)
    np.testing.assert_array_equal(counts, [1, 0, 2, 0])
    np.testing.assert_array_equal(found, [False, False, True, False])
    counts = np.asarray([0, 5, 1, 2] + [0] * 16)
    assert count_threshold(counts) == 5
    assert count_threshold(counts, 0.05) == 2
    assert (counts > count_threshold(counts, 0.1)).mean() <= 0.1


@pytest.mark.long
@pytest.mark.parametrize(
    "condenser", [None, jgd.condense.clustering(nodes=9, restarts=2)], ids=["full", "small"]
)
def test_a_planted_attack_is_found(condenser):
    """Files with the words of sockets are alarms; with shuffled text nothing is understood."""
    detector = fitted(condenser=condenser, false_alarms=0.0)(KEY, BENIGN, toy_log(1))
    attacked = toy_log(2, attack=True)
    found = detector(attacked)
    assert set(found.entities) >= attacked.malicious
    np.testing.assert_array_equal(found.graph_alarm, [False, False, False, True])
    truth = np.isin(found.found.ids, sorted(attacked.malicious))
    assert found.alarm[~truth].mean() < 0.1
    assert (detector.condensed is None) == (condenser is None)
    assert detector.kinds == KINDS

    rng = np.random.default_rng(0)
    shuffled = replace(TASK, graph=TASK.graph._replace(nodes=rng.permutation(TASK.graph.nodes)))
    models, _ = fitted(condenser=condenser).fit(KEY, shuffled)
    test = type_task(found.found, VECTORS, KINDS)
    nodes = rng.permutation(test.graph.nodes)
    lost = alarms(models, test.graph._replace(nodes=nodes), test.labels)
    assert lost[~truth].mean() > 0.2  # against less than a tenth with the text in place


def test_the_same_key_gives_the_same_detector(full):
    same(full, fitted().fit(KEY, TASK)[0])
    other = fitted().fit(jax.random.key(6), TASK)[0]
    pairs = zip(jax.tree.leaves(full.params), jax.tree.leaves(other.params), strict=True)
    assert any((a != b).any() for a, b in pairs)


def test_unknown_kinds():
    task = type_task(FOUND, VECTORS, ("file", "process"))
    assert (task.labels == -1).sum() == (TASK.labels == 2).sum()
    assert not task.train[task.labels == -1].any()
    loop = Spy()
    fitted(condenser=jgd.condense.random(nodes=6)).fit(KEY, task, loop)
    data = loop.data
    state = jax.jit(loop.algorithm.init)(KEY, data, None)
    np.testing.assert_array_equal(state.mask, task.labels >= 0)  # nobody trains on them
    undirected = adjacency(type_task(FOUND, VECTORS, KINDS, directed=False).graph).toarray()
    a = adjacency(FOUND.graph).toarray()
    np.testing.assert_array_equal(undirected, a + a.T)


@pytest.mark.long
def test_settings():
    for name in OFFICIAL:
        official(name)
    assert official("trace").rule == "and"
    assert official("streamspot").rounds == 1
    with pytest.raises(ValueError, match="not for 'other'"):
        official("other")
    for bad in (
        {"rounds": 0},
        {"dropout": 1.0},
        {"rule": "xor"},
        {"edges": "none"},
        {"condenser": "herding"},
    ):
        with pytest.raises((ValueError, TypeError), match=next(iter(bad))):  # choices by annotation
            GraphDART(**bad)
    small = condensed(np.eye(8, dtype=np.float32)[:3], np.arange(3))
    with pytest.raises(ValueError, match="own predictor"):
        fitted().train(KEY, TASK, replace(small, training=replace(small.training, predictor=Choice("sntk"))))
