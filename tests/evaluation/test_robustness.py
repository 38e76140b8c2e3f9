"""Corruptions change what they say and nothing else; attacks harm more than chance."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jgd
from jgd.data import NodeTask, contextual_sbm
from jgd.evaluation import EvalConfig, evaluate, trained
from jgd.evaluation.robustness import (
    CORRUPTIONS,
    _attacked,
    _gradient,
    add_edges,
    attack_edges,
    evasion,
    mask_features,
    noisy_features,
    poisoning,
    remove_edges,
)
from jgd.graph import EXPORT_CHECKS, adjacency, from_adjacency, from_edges, operator, sparse_features

close = np.testing.assert_allclose
KEY = jax.random.key(5)
TASK = contextual_sbm(
    num_nodes=90, num_classes=3, num_features=6, mean_degree=6, signal=1.5, fractions=(0.4, 0.3, 0.3)
)
QUICK = EvalConfig(steps=12, learning_rate=0.1, hidden=8, dropout=0.0)
SMALL = jgd.condense.average(label_ratio=0.5, hops=2)(KEY, TASK)
EDGES = len(TASK.graph.senders) // 2


def dense(task):
    return adjacency(task.graph).toarray()


def weighted(task, seed=0):
    rng = np.random.default_rng(seed)
    a = np.triu(dense(task)) * rng.uniform(0.5, 2, (90, 90))
    return replace(task, graph=from_adjacency((a + a.T).astype(np.float32), task.graph.nodes))


@pytest.mark.parametrize("name", list(CORRUPTIONS))
def test_every_corruption(name):
    options = {"config": QUICK} if name == "attacked edges" else {}
    corrupt = CORRUPTIONS[name]
    first, again = (corrupt(KEY, TASK, 0.2, **options) for _ in range(2))
    np.testing.assert_array_equal(dense(first), dense(again))
    np.testing.assert_array_equal(first.graph.nodes, again.graph.nodes)
    edges = not np.array_equal(dense(first), dense(TASK))
    features = not np.array_equal(first.graph.nodes, TASK.graph.nodes)
    assert (edges, features) == ("edges" in name, "features" in name)
    for mask in ("labels", "train", "val", "test"):
        np.testing.assert_array_equal(getattr(first, mask), getattr(TASK, mask))
    np.testing.assert_array_equal(dense(first), dense(first).T)
    nothing = corrupt(KEY, TASK, 0.0, **options)
    np.testing.assert_array_equal(dense(nothing), dense(TASK))
    np.testing.assert_array_equal(nothing.graph.nodes, TASK.graph.nodes)
    with pytest.raises(ValueError, match="rate must be in"):
        corrupt(KEY, TASK, -0.1)


@pytest.mark.parametrize("rate", [0.3, 1.0, 12.0])
def test_more_edges(rate):
    for task in (TASK, weighted(TASK)):
        before, after = dense(task), dense(add_edges(KEY, task, rate))
        kept = before != 0
        close(after[kept], before[kept])
        new = np.triu((after != 0) & ~kept)
        assert new.sum() == int(rate * EDGES)
        close(after[new], before[kept].mean(), rtol=1e-5)
        assert not np.diag(after).any()
    other = dense(add_edges(jax.random.key(6), TASK, rate))
    assert not np.array_equal(other, dense(add_edges(KEY, TASK, rate)))


def test_fewer_edges():
    task = weighted(TASK)
    before, after = dense(task), dense(remove_edges(KEY, task, 0.3))
    left = after != 0
    close(after[left], before[left])
    assert np.triu(left).sum() == EDGES - int(0.3 * EDGES)
    assert not dense(remove_edges(KEY, TASK, 1.0)).any()


def test_edges_with_a_direction():
    senders, receivers = np.asarray([0, 1, 2, 3]), np.asarray([1, 2, 3, 3])
    graph = from_edges(senders, receivers, np.eye(6, dtype=np.float32))
    path = NodeTask(graph=graph, labels=np.arange(6) % 2, directed=True)
    assert dense(add_edges(KEY, path, 2.0)).astype(bool).sum() == 4 + 6
    assert dense(remove_edges(KEY, path, 1.0)).sum() == 1  # the loop stays
    assert adjacency(add_edges(KEY, path, 27 / 3).graph).nnz == 6 * 6 - 5
    with pytest.raises(ValueError, match="only 27 pairs have none"):
        add_edges(KEY, path, 10.0)
    with pytest.raises(ValueError, match="edges of one direction"):
        remove_edges(KEY, replace(path, directed=False), 0.5)
    with pytest.raises(ValueError, match="this task is directed"):
        attack_edges(KEY, path, 0.5)


def test_features():
    x = np.asarray(TASK.graph.nodes)
    noise = noisy_features(KEY, TASK, 0.5).graph.nodes - x
    assert noise.std() / x.std() == pytest.approx(0.5, rel=0.1)
    assert abs(noise.mean()) < 0.1 * x.std()
    masked = np.asarray(mask_features(KEY, TASK, 0.3).graph.nodes)
    gone = masked == 0
    assert gone.mean() == pytest.approx(0.3, abs=0.06)
    np.testing.assert_array_equal(masked[~gone], x[~gone])
    assert not mask_features(KEY, TASK, 1.0).graph.nodes.any()
    sparse = replace(TASK, graph=TASK.graph._replace(nodes=sparse_features(x)))
    np.testing.assert_array_equal(mask_features(KEY, sparse, 0.3).graph.nodes, masked)
    with pytest.raises(ValueError, match="no node features"):
        noisy_features(KEY, replace(TASK, graph=TASK.graph._replace(nodes=None)), 0.1)


# --- the attack -----------------------------------------------------------------------------------


def arguments(task, pairs, change):
    net = jax.tree.map(
        lambda leaf: leaf[0], trained(task, task, network="sgc", seeds=1, key=KEY, config=QUICK)
    )
    coo = adjacency(task.graph).tocoo()
    edges = tuple(jnp.asarray(v) for v in (coo.col, coo.row, coo.data))
    i, j = (jnp.asarray(p, jnp.int32) for p in zip(*pairs, strict=True))
    x, labels = jnp.asarray(task.graph.nodes), jnp.asarray(task.labels)
    return jnp.asarray(change, jnp.float32), (i, j), edges, x, labels, jnp.asarray(task.test), net


@pytest.mark.long
def test_the_slope_is_that_of_changing_the_graph():
    """Against networks on graphs whose adjacency was changed, by differences."""
    task = weighted(TASK)
    a = dense(task)
    present = tuple(np.argwhere(np.triu(a))[3])
    absent = tuple(np.argwhere(np.triu(a == 0, 1))[5])
    change, pairs, *rest = arguments(task, [present, absent], [0.0, 0.0])
    slope = _gradient(True, "sym")(change, pairs, *rest)
    net, labels = rest[-1], np.asarray(task.labels)

    def loss(pair, by):
        b = a.copy()
        b[pair] += by
        b[pair[::-1]] += by
        hat = operator(jnp.asarray(b), normalize="sym", self_loops=True, negative="keep")
        z = np.asarray(net(hat, jnp.asarray(task.graph.nodes)).logits, np.float64)
        right = z[np.arange(90), labels]
        z[np.arange(90), labels] = -np.inf
        return np.tanh(z.max(1) - right)[np.asarray(task.test)].mean()

    options = {"self_loops": True, "normalize": "sym"}
    close(_attacked(change, pairs, *rest, options), loss(present, 0.0), rtol=1e-5)
    for pair, found in zip((present, absent), slope, strict=True):
        close(found, (loss(pair, 0.05) - loss(pair, -0.05)) / 0.1, rtol=0.02, atol=2e-5)


def test_the_attack_keeps_to_its_budget():
    for task in (TASK, weighted(TASK)):
        before = dense(task)
        bad = attack_edges(KEY, task, 0.2, rounds=7, config=QUICK)
        changed = np.triu(dense(bad) != before)
        assert changed.sum() == int(0.2 * EDGES)
        after = dense(bad)[changed]
        close(after, np.where(before[changed] != 0, 0, before[before != 0].mean()), rtol=1e-5)
    assert 0 < (after == 0).sum() < len(after)  # edges go and come


@pytest.fixture(scope="module")
def harm():
    """Test accuracies of networks trained on a condensed set: clean, at random and attacked."""
    options = {"rates": (0.0, 0.3), "networks": ("gcn",), "seeds": 2, "key": KEY, "config": QUICK}
    return {
        name: evasion(SMALL, TASK, CORRUPTIONS[name], **options) for name in ("more edges", "attacked edges")
    }


@pytest.mark.long
def test_the_attack_harms_more_than_chance(harm):
    """And networks other than the one it was made for."""
    clean, chance = (harm["more edges"][rate]["gcn"].mean() for rate in (0.0, 0.3))
    assert harm["attacked edges"][0.0]["gcn"].mean() == clean
    assert harm["attacked edges"][0.3]["gcn"].mean() < min(clean, chance) - 0.2


@pytest.mark.long
def test_small_blocks_and_other_targets():
    """A block of few pairs finds less; the nodes that are attacked are those that suffer."""
    val = np.asarray(TASK.val)
    bad = attack_edges(KEY, TASK, 0.3, attacked=val, config=QUICK)
    net = jax.tree.map(lambda n: n[0], trained(TASK, TASK, network="sgc", seeds=1, key=KEY, config=QUICK))

    def accuracy(task, mask):
        hat = operator(task.graph, normalize="sym", self_loops=True)
        right = np.argmax(net(hat, jnp.asarray(task.graph.nodes)).logits, 1) == TASK.labels
        return right[mask].mean()

    lost = {
        n: accuracy(TASK, m) - accuracy(bad, m) for n, m in (("val", val), ("test", np.asarray(TASK.test)))
    }
    assert lost["val"] > max(0.3, lost["test"] + 0.1)
    blind = attack_edges(KEY, TASK, 0.3, attacked=val, block=60, config=QUICK)
    assert np.triu(dense(blind) != dense(TASK)).sum() == int(0.3 * EDGES)
    assert accuracy(blind, val) > accuracy(bad, val)


@pytest.mark.long
def test_inductive_attacks_stay_among_the_attacked():
    task = replace(TASK, setting="inductive")
    bad = attack_edges(KEY, task, 0.5, config=QUICK)
    changed = dense(bad) != dense(task)
    test = np.asarray(task.test)
    assert changed.any()
    assert not changed[~test].any()
    assert np.triu(changed).sum() == int(0.5 * adjacency(task.induced(test).graph).nnz / 2)


def test_unfit_attacks_are_refused():
    for options, told in (
        ({"surrogate": "mlp"}, "does not depend on the weights of edges"),
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"attacked": np.zeros(90, bool)}, "no labelled test nodes"),
    ):
        with pytest.raises(ValueError, match=told):
            attack_edges(KEY, TASK, 0.2, config=QUICK, **options)


def test_lowers_for_every_platform():
    spec = arguments(TASK, [(0, 1), (2, 3)], [0.0, 0.0])
    gradient = _gradient(True, "sym")
    jax.export.export(gradient, platforms=("cpu", "cuda", "tpu"), disabled_checks=EXPORT_CHECKS)(*spec)


# --- when it strikes ------------------------------------------------------------------------------


@pytest.mark.long
def test_evasion_equals_the_evaluator_on_clean_data(harm):
    clean = evaluate(SMALL, TASK, seeds=2, key=jax.random.split(KEY, 3)[0], config=QUICK)["gcn"]
    close(harm["more edges"][0.0]["gcn"], clean.seeds(), atol=1.1 / TASK.test.sum())


@pytest.mark.long
def test_poisoning():
    recipe = jgd.condense.average(label_ratio=0.5, hops=2)
    seen = []

    def corrupt(key, task, rate):
        seen.append(mask_features(key, task, rate))
        return seen[-1]

    options = {"rates": (0.0, 1.0), "seeds": 2, "key": KEY, "config": QUICK}
    found = poisoning(recipe, TASK, corrupt, **options)
    assert found[0.0]["gcn"].mean() > 0.6
    assert found[1.0]["gcn"].mean() < 0.5  # nothing to tell the classes by
    k_recipe, k_net, *_ = jax.random.split(KEY, 4)
    by_hand = evaluate(recipe(k_recipe, TASK), TASK, seeds=2, key=k_net, config=QUICK)["gcn"]
    np.testing.assert_array_equal(found[0.0]["gcn"], by_hand.seeds())
    # Inductively the real data stays clean, where means of noisy features serve well.
    inductive = replace(TASK, setting="inductive")
    k = {"rates": (0.0, 0.5), "seeds": 2, "key": KEY, "config": QUICK}
    clean, corrupted = (poisoning(recipe, inductive, noisy, tested=t, **k) for t in (None, "corrupted"))
    np.testing.assert_array_equal(clean[0.0]["gcn"], corrupted[0.0]["gcn"])
    assert clean[0.5]["gcn"].mean() > corrupted[0.5]["gcn"].mean() + 0.05


def noisy(key, task, rate):
    return noisy_features(key, task, 3 * rate)
