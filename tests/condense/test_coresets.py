"""Coresets and averages against brute force."""

import itertools
from dataclasses import replace

import graph_toy
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from condense_toy import INDUCTIVE, TASK, same
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

import jgd
from jgd.condense.common import budget, size_of
from jgd.condense.coresets import array_embedding, gcn_embedding, herding, k_center
from jgd.data import ArrayTask
from jgd.graph import adjacency

close = np.testing.assert_allclose
KEY = jax.random.key(3)
ALL = {
    "random": jgd.condense.random(),
    "herding": jgd.condense.herding(hidden=8, epochs=30),
    "k_center": jgd.condense.k_center(hidden=8, epochs=30),
    "degree": jgd.condense.degree(),
    "pagerank": jgd.condense.pagerank(),
    "average": jgd.condense.average(),
    "average_sgc": jgd.condense.average(hops=2),
    "clustering": jgd.condense.clustering(hops=1, restarts=2),
}
CORESETS = ("random", "herding", "k_center", "degree", "pagerank")


@pytest.fixture(scope="module")
def embedding():
    return gcn_embedding(KEY, TASK, hidden=8, epochs=30)


# --- the two greedy rules -------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 10), st.integers(1, 3))
def test_herding_rule(seed, size, width):
    """Each pick brings the sum nearest to its multiple of the mean, until all are in."""
    x = np.random.default_rng(seed).standard_normal((size, width))
    picked = herding(x, size)
    assert sorted(picked) == list(range(size))
    assert picked[0] == np.argmin(np.linalg.norm(x - x.mean(0), axis=1))
    for t in range(size):
        before, free = list(picked[:t]), [i for i in range(size) if i not in picked[:t]]
        gap = [np.linalg.norm((t + 1) * x.mean(0) - x[[*before, i]].sum(0)) for i in free]
        assert gap[free.index(picked[t])] <= min(gap) + 1e-9
    np.testing.assert_array_equal(herding(x, max(1, size // 2)), picked[: max(1, size // 2)])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(1, 4))
def test_k_center_is_a_two_approximation(seed, size, count):
    x = np.random.default_rng(seed).standard_normal((size, 2))
    count = min(count, size)
    distances = cdist(x, x)
    picked = k_center(x, count)
    assert len(set(picked)) == count
    assert picked[0] == np.argmin(np.linalg.norm(x - x.mean(0), axis=1))
    best = min(distances[:, c].min(1).max() for c in itertools.combinations(range(size), count))
    assert distances[:, picked].min(1).max() <= 2 * best + 1e-9


def test_points_that_coincide():
    x = np.ones((5, 2))
    for rule in (herding, k_center):
        assert sorted(rule(x, 5)) == list(range(5))


# --- coresets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CORESETS)
def test_coreset(name):
    """Labelled nodes with their own features and labels, and the edges between them."""
    small = ALL[name](KEY, TASK)
    index, size = small.extras["index"], size_of(TASK, 0.5, None)
    assert len(set(index.tolist())) == size == len(small.targets)
    assert TASK.train[index].all()
    np.testing.assert_array_equal(small.data.nodes, TASK.graph.nodes[index])
    np.testing.assert_array_equal(small.targets, TASK.labels[index])
    np.testing.assert_array_equal(small.targets, np.repeat(np.arange(3), budget(TASK, size)))
    assert small.training.adjacency == "raw"
    full = adjacency(TASK.graph).toarray()
    np.testing.assert_array_equal(adjacency(small.data).toarray(), full[np.ix_(index, index)])
    assert small.provenance["method"] == name.replace("_", "-")


@pytest.mark.parametrize("name", CORESETS)
def test_ratio_one_keeps_all_labelled_nodes(name):
    make = {"herding": lambda **kw: jgd.condense.herding(hidden=8, epochs=30, **kw)}
    make["k_center"] = lambda **kw: jgd.condense.k_center(hidden=8, epochs=30, **kw)
    recipe = make.get(name, getattr(jgd.condense, name))(label_ratio=1.0)
    np.testing.assert_array_equal(np.sort(recipe(KEY, TASK).extras["index"]), np.flatnonzero(TASK.train))


def test_random_depends_on_the_key():
    once, again, other = (
        jgd.condense.random()(k, TASK).extras["index"] for k in (KEY, KEY, jax.random.key(4))
    )
    np.testing.assert_array_equal(once, again)
    assert set(once) != set(other)


def test_central_nodes():
    """The nodes of a class that come first in an order that NetworkX agrees with."""
    full = adjacency(TASK.graph).toarray()
    g = nx.from_numpy_array(full)
    for name, values in (("degree", dict(g.degree())), ("pagerank", nx.pagerank(g))):
        small = ALL[name](KEY, TASK)
        for c in range(3):
            members = np.flatnonzero(TASK.train & (TASK.labels == c))
            chosen = small.extras["index"][small.targets == c]
            left = np.setdiff1d(members, chosen)
            assert min(values[i] for i in chosen) >= max(values[i] for i in left) - 1e-6


def test_herding_and_k_center_read_the_embedding(embedding):
    close(np.exp(embedding).sum(1), 1, rtol=1e-5)
    right = (embedding.argmax(1) == TASK.labels)[TASK.test].mean()
    assert right > 0.55  # of three classes
    for name, rule in (("herding", herding), ("k_center", k_center)):
        small = ALL[name](KEY, TASK)
        expected = []
        for c, count in enumerate(budget(TASK, len(small.targets))):
            members = np.flatnonzero(TASK.train & (TASK.labels == c))
            expected.append(members[rule(embedding[members], count)])
        np.testing.assert_array_equal(small.extras["index"], np.concatenate(expected))
        same(small, ALL[name].select(KEY, TASK, embedding))


# --- averages ---------------------------------------------------------------------------------------


def propagated(task, hops):
    a = adjacency(task.graph).toarray().astype(np.float64) + np.eye(task.num_nodes)
    a = a / np.sqrt(a.sum(1)[:, None] * a.sum(1))
    return np.linalg.matrix_power(a, hops) @ task.graph.nodes


@pytest.mark.parametrize("hops", [0, 2])
def test_average(hops):
    small = jgd.condense.average(nodes=7, hops=hops)(KEY, TASK)
    x = propagated(TASK, hops)
    assert small.training.adjacency == "identity"
    assert len(small.targets) == 7
    for row, c in zip(small.data.nodes, small.targets, strict=True):
        close(row, x[TASK.train & (TASK.labels == c)].mean(0), rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_clustering():
    """One cluster for a class is its mean; as many as it has nodes are the nodes."""
    x = propagated(TASK, 1)
    one = jgd.condense.clustering(nodes=3, hops=1, restarts=2)(KEY, TASK)
    close(one.data.nodes, jgd.condense.average(nodes=3, hops=1)(KEY, TASK).data.nodes, rtol=1e-4, atol=1e-5)
    full = jgd.condense.clustering(label_ratio=1.0, hops=1, restarts=2)(KEY, TASK)
    for c in range(3):
        members = x[TASK.train & (TASK.labels == c)]
        close(np.sort(full.data.nodes[full.targets == c], 0), np.sort(members, 0), rtol=1e-3, atol=1e-4)
    some = ALL["clustering"](KEY, TASK)
    np.testing.assert_array_equal(some.targets, np.repeat(np.arange(3), budget(TASK, len(some.targets))))


# --- all of them ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_inductive_condensers_choose_training_nodes(name):
    """Their numbers are those in the whole graph."""
    small = ALL[name](KEY, INDUCTIVE)
    if "index" in small.extras:
        assert INDUCTIVE.train[small.extras["index"]].all()
        np.testing.assert_array_equal(small.data.nodes, TASK.graph.nodes[small.extras["index"]])


@pytest.mark.filterwarnings("ignore:.* no labelled training examples")
@pytest.mark.parametrize("name", ALL)
def test_absent_classes(name):
    """A class without labelled nodes gets no condensed node."""
    task = replace(TASK, train=TASK.train & (TASK.labels != 1))
    small = ALL[name](KEY, task)
    assert set(small.targets) == {0, 2}
    assert jnp.isfinite(small.data.nodes).all()


# --- arrays and graphs ------------------------------------------------------------------------------


def array_task(rng, counts=(12, 8, 10), width=(3, 2)):
    """Examples of which a third is not for training, and one has no label."""
    y = np.concatenate([np.full(n, c) for c, n in enumerate(counts)])
    x = (rng.standard_normal((len(y), *width)) + 3 * y[:, None, None]).astype(np.float32)
    order = rng.permutation(len(y))
    x, y = x[order], y[order]
    y[0] = -1
    train = np.arange(len(y)) % 3 != 2
    return ArrayTask(x=x, y=y, train=train, test=~train, num_classes=3, name="toy")


def test_coresets_of_arrays(rng):
    """Rows of the training examples with a label, by the budget of the classes, whatever chooses them."""
    task = array_task(rng)
    known = task.train & (task.y >= 0)
    for how in ("random", "herding", "k_center"):
        settings = {} if how == "random" else {"epochs": 5, "hidden": 8}
        small = getattr(jgd.condense, how)(nodes=9, **settings)(KEY, task)
        index = small.extras["index"]
        assert known[index].all()
        assert len(np.unique(index)) == 9
        np.testing.assert_array_equal(small.data, task.x[index])
        np.testing.assert_array_equal(small.targets, task.y[index])
        assert tuple(np.bincount(small.targets)) == budget(replace(task, train=known), 9)
        assert small.provenance["label_ratio"] == 9 / known.sum()
        few = getattr(jgd.condense, how)(per_class=2, **settings)(KEY, task)
        assert np.bincount(few.targets).tolist() == [2, 2, 2]
    half = jgd.condense.random(label_ratio=0.5)(KEY, task)
    assert len(half.targets) == int(0.5 * known.sum())
    with pytest.raises(ValueError, match="choose between 3 and"):
        jgd.condense.random(nodes=2)(KEY, task)


@pytest.mark.parametrize(("how", "rule"), [("herding", herding), ("k_center", k_center)])
def test_arrays_are_chosen_in_their_class_by_the_embedding(rng, how, rule):
    """Raw inputs, by the rule on the rows of one class; and by another embedding other rows."""
    task = array_task(rng, width=(2, 2))
    small = getattr(jgd.condense, how)(per_class=3, embedding="raw")(KEY, task)
    for c in range(3):
        rows = np.flatnonzero(task.train & (task.y == c))
        flat = task.x[rows].reshape(len(rows), -1).astype(np.float64)
        found = small.extras["index"][small.targets == c]
        np.testing.assert_array_equal(found, rows[rule(flat, 3)])
    recipe = getattr(jgd.condense, how)(per_class=3)
    z = rng.standard_normal((int((task.train & (task.y >= 0)).sum()), 5))
    other = recipe.select(KEY, task, z)
    labels = task.y[task.train & (task.y >= 0)]
    rows = np.flatnonzero(task.train & (task.y >= 0))
    for c in range(3):
        members = np.flatnonzero(labels == c)
        expected = rows[members[rule(z[members], 3)]]
        np.testing.assert_array_equal(other.extras["index"][other.targets == c], expected)


@pytest.mark.long
def test_the_embedding_of_arrays_is_learned(rng):
    """A perceptron that was trained separates classes better than one that was not."""
    task = array_task(rng, counts=(40, 40, 40), width=(10, 2))
    noise = np.where(np.arange(20).reshape(10, 2) == 0, 0, 3 * np.maximum(task.y, 0)[:, None, None])
    task = replace(task, x=(task.x - noise).astype(np.float32))  # one number of twenty tells the classes
    labels = task.y[task.train & (task.y >= 0)]

    def apart(steps):
        z = array_embedding(KEY, task, hidden=16, steps=steps)
        means = np.stack([z[labels == c].mean(0) for c in range(3)])
        inside = np.mean((z - means[labels]) ** 2)
        return np.mean((means - means.mean(0)) ** 2) / inside

    assert apart(600) > 1.5 * apart(1)


def test_a_share_of_the_graphs():
    share = jgd.condense.random(label_ratio=0.25)(KEY, graph_toy.TASK)
    assert len(share.targets) == int(0.25 * graph_toy.TASK.train.sum())
    with pytest.raises(ValueError, match="no embedding of their own"):
        jgd.condense.herding(per_class=2, embedding="raw")(KEY, graph_toy.TASK)
