"""Whole graphs as coresets."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from condense_toy import same
from graph_toy import TASK, together
from hypothesis import given, settings
from hypothesis import strategies as st

import jgd
from jgd.condense.coresets import Herding, KCenter, Random, fill, gin_embedding, herding, k_center
from jgd.graph import select_graphs

equal = np.testing.assert_array_equal
KEY = jax.random.key(2)
INDEX = np.flatnonzero(TASK.train)
LABELS = TASK.labels[INDEX]
SIZES = TASK.graphs.n_node[INDEX]
ALL = {
    "random": Random(per_class=3),
    "herding": Herding(per_class=3, hidden=8, epochs=40),
    "k_center": KCenter(per_class=3, hidden=8, epochs=40),
}


@pytest.fixture(scope="module")
def embedding():
    return gin_embedding(KEY, TASK, hidden=8, steps=40)


@pytest.mark.parametrize("name", ALL)
def test_graphs_of_each_class(name):
    """Training graphs, unchanged, so many of each class."""
    small = ALL[name](KEY, TASK)
    index = small.extras["index"]
    assert len(set(index.tolist())) == 6
    assert TASK.train[index].all()
    equal(small.targets, TASK.labels[index])
    equal(np.bincount(small.targets), [3, 3])
    expected = select_graphs(TASK.graphs, index)
    for field in ("nodes", "senders", "receivers", "n_node", "n_edge"):
        equal(getattr(small.data, field), getattr(expected, field))
    assert small.provenance["graphs"] == 6
    assert small.provenance["nodes"] == expected.n_node.sum()
    with pytest.warns(UserWarning, match="asked for 2000 graphs and gives 32"):
        everything = replace(ALL[name], per_class=1000)(KEY, TASK)
    equal(np.sort(everything.extras["index"]), INDEX)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("nodes", [25, 60])
def test_node_budget(name, nodes):
    """As many as fit: no graph that is left would fit too, and no class is far ahead."""
    small = replace(ALL[name], nodes=nodes)(KEY, TASK)
    total = small.provenance["nodes"]
    left = np.setdiff1d(INDEX, small.extras["index"])
    assert total <= nodes < total + TASK.graphs.n_node[left].min()
    counts = np.bincount(small.targets, minlength=2)
    assert abs(counts[0] - counts[1]) <= 1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=12), st.integers(0, 40), st.integers(0, 10**6))
def test_fill(sizes, nodes, seed):
    sizes = np.asarray(sizes)
    orders = list(np.array_split(np.random.default_rng(seed).permutation(len(sizes)), 2))
    taken = fill(orders, sizes, nodes)
    flat = np.concatenate(taken)
    total = sizes[flat].sum()
    left = np.setdiff1d(np.arange(len(sizes)), flat)
    assert total <= nodes
    assert not len(left) or total + sizes[left].min() > nodes
    for order, chosen in zip(orders, taken, strict=True):
        assert set(chosen) <= set(order)
        if sizes.max() == sizes.min():
            equal(chosen, order[: len(chosen)])


def test_rules_read_the_embedding(embedding):
    assert embedding.shape == (len(INDEX), 8)
    for name, rule in (("herding", herding), ("k_center", k_center)):
        small = ALL[name](KEY, TASK)
        chosen = [np.flatnonzero(c == LABELS) for c in (0, 1)]
        expected = np.concatenate([m[rule(embedding[m], 3)] for m in chosen])
        equal(small.extras["index"], INDEX[expected])
        same(small, ALL[name].select(KEY, TASK, embedding))


def test_embedding_sees_training_graphs_and_classes(embedding):
    """Test graphs do not matter, and classes are apart."""
    nodes = np.repeat(TASK.test, TASK.graphs.n_node)[:, None]
    other = TASK.graphs._replace(nodes=np.where(nodes, 9.0, TASK.graphs.nodes).astype(np.float32))
    changed = replace(TASK, graphs=other, labels=np.where(TASK.test, 0, TASK.labels))
    equal(gin_embedding(KEY, changed, hidden=8, steps=40), embedding)
    blind = replace(TASK, val=None)
    assert np.isfinite(gin_embedding(KEY, blind, hidden=8, steps=40)).all()
    means = [embedding[c == LABELS].mean(0) for c in (0, 1)]
    spread = np.mean([embedding[c == LABELS].std(0).mean() for c in (0, 1)])
    assert np.abs(means[0] - means[1]).max() > spread


def test_random_depends_on_the_key():
    once, again, other = (Random(per_class=5)(k, TASK).extras["index"] for k in (KEY, KEY, jax.random.key(8)))
    equal(once, again)
    assert set(once) != set(other)


def test_masks_and_weights_go_along():
    root = np.arange(len(TASK.graphs.nodes)) % 3 == 0
    weights = np.arange(TASK.num_graphs, dtype=np.float32)
    small = Random(per_class=2)(KEY, replace(TASK, root=root, weights=weights))
    equal(small.weights, weights[small.extras["index"]])
    ends = np.cumsum(TASK.graphs.n_node)
    parts = [root[ends[i] - TASK.graphs.n_node[i] : ends[i]] for i in small.extras["index"]]
    equal(small.extras["root"], np.concatenate(parts))


def test_driver(tmp_path):
    small = jgd.run(ALL["herding"], KEY, TASK, out=tmp_path, progress=False)
    same(small, ALL["herding"](KEY, TASK))
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["embed"]


def test_impossible_settings():
    with pytest.raises(ValueError, match="must be at least 1"):
        Random(per_class=0)
    with pytest.raises(ValueError, match=r"leave no graph for class [01] .*smallest one has"):
        Random(nodes=3)(KEY, TASK)
    with pytest.raises(ValueError, match="no training graphs"):
        Random()(KEY, replace(together(8), train=np.zeros(8, bool)))
