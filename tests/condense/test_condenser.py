"""What every recipe is given and says: labelled nodes, classes, and the size that it gives."""

import dataclasses
import warnings

import jax
import numpy as np
import pytest

import jgd
from jgd.condense.common import nested
from jgd.data import DataError, NodeTask, Training
from jgd.graph import from_edges, operator, to_undirected
from jgd.nn import GAT, GCN, GraphSAGE

KEY = jax.random.key(0)
N = 36
INDEX = np.arange(N)
Y = INDEX % 3
X = (np.eye(3, 5)[Y] * 2 + 0.4 * np.sin(np.arange(5 * N) ** 2).reshape(N, 5)).astype(np.float32)
GRAPH = to_undirected(from_edges(INDEX, (INDEX + 3) % N, X))
SPLITS = {"train": INDEX < 18, "val": (INDEX >= 18) & (INDEX < 27), "test": INDEX >= 27}
TASK = NodeTask(graph=GRAPH, labels=Y, num_classes=3, name="toy", **SPLITS)
CHEAP = {"random": {}, "degree": {}, "average": {}, "clustering": {}, "cgc": {}, "heavy_edge": {"keep": 0.5}}


def same(a, b):
    np.testing.assert_array_equal(a.data.nodes, b.data.nodes)
    np.testing.assert_array_equal(a.targets, b.targets)


@pytest.mark.parametrize("name", CHEAP)
def test_every_form_of_a_task_gives_the_same_set(name):
    """Masks as numbers or rows, labels as words or a column: the same condensed set, to the bit."""
    recipe = getattr(jgd.condense, name)(nodes=6, **CHEAP[name])
    usual = recipe(KEY, TASK)
    rows = {part: np.flatnonzero(mask) for part, mask in SPLITS.items()}
    numbers = {part: mask.astype(np.uint8) for part, mask in SPLITS.items()}
    for form in (
        NodeTask(graph=GRAPH, labels=Y[:, None].astype(float), name="toy", **rows),
        NodeTask(graph=GRAPH, labels=np.asarray(["a", "b", "c"])[Y], name="toy", **numbers),
        NodeTask(graph=GRAPH, labels=Y + 1, name="toy", **numbers),
    ):
        same(recipe(KEY, form), usual)


@pytest.mark.parametrize("name", CHEAP)
@pytest.mark.parametrize("setting", ["transductive", "inductive"])
def test_unknown_labels_are_no_training_nodes(name, setting):
    """A training node whose label is unknown counts as little as one that is outside of the mask."""
    gap = (INDEX == 4) | (INDEX == 9)
    base = dataclasses.replace(TASK, setting=setting)
    hole = dataclasses.replace(base, labels=np.where(gap, -1, Y))
    recipe = getattr(jgd.condense, name)(nodes=6, **CHEAP[name])
    same(recipe(KEY, hole), recipe(KEY, dataclasses.replace(base, train=TASK.train & ~gap)))


def test_other_targets_are_refused():
    for labels, said in (
        (Y + 0.5, "regression"),
        (np.eye(3)[Y], "probabilities"),
        (np.full(N, -1), "no known"),
    ):
        task = dataclasses.replace(TASK, labels=labels, num_classes=None)
        for recipe in (
            jgd.condense.average(nodes=6),
            jgd.condense.gcond_x(nodes=6),
            jgd.condense.kron(nodes=6),
        ):
            with pytest.raises(DataError, match=said):
                recipe(KEY, task)
        with pytest.raises(DataError, match=said):
            jgd.evaluate(task, task, seeds=1)


def test_a_size_that_is_not_met_is_told():
    none = dataclasses.replace(TASK, graph=from_edges(np.zeros(0, int), np.zeros(0, int), X))
    with pytest.warns(UserWarning, match="HeavyEdge was asked for 6 nodes and gives 18"):
        jgd.condense.heavy_edge(nodes=6)(KEY, none)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jgd.condense.average(nodes=6)(KEY, none)


def test_missing_and_single_classes_are_told():
    few = dataclasses.replace(TASK, train=[0, 1, 3, 4])
    with pytest.warns(UserWarning, match=r"no labelled training examples of 1 of its 3 classes \(2\)"):
        jgd.condense.random(nodes=2)(KEY, few)
    words = NodeTask(graph=GRAPH, labels=np.asarray(["a", "b", "c"])[Y], train=[0, 3])
    with pytest.warns(UserWarning, match=r"2 of its 3 classes \(b, c\)"):
        jgd.condense.random(nodes=1)(KEY, words)
    one = dataclasses.replace(TASK, labels=np.zeros(N, int), num_classes=1)
    with pytest.warns(UserWarning, match="one class"):
        jgd.condense.random(nodes=2)(KEY, one)


def test_a_recipe_inside_another_one_does_not_warn():
    """The outer one has warned of the classes; a size of the inner one is no news."""
    few = dataclasses.replace(TASK, train=[0, 1, 3, 4])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        jgd.condense.dm(nodes=2, start="random", epochs=1, hidden=4, select_every=None)(KEY, few)
    assert [str(w.message).split(" has ")[1][:30] for w in caught] == ["no labelled training examples "]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with nested():
            jgd.condense.random(nodes=2)(KEY, few)
    with pytest.warns(UserWarning, match="no labelled training examples"):
        jgd.condense.random(nodes=2)(KEY, few)


def test_methods_are_recorded_by_their_name():
    """That of the catalogue, which may depend on a setting; or that of a class of one's own."""

    @dataclasses.dataclass(frozen=True)
    class Mine(jgd.condense.Average):
        """A recipe of a user."""

    for recipe, name in (
        (jgd.condense.Average(nodes=6), "average"),
        (jgd.condense.Average(nodes=6, hops=2), "average-sgc"),
        (jgd.condense.Average(nodes=6, hops=1), "average"),
        (jgd.condense.KCenter(nodes=6, hidden=4, epochs=2), "k-center"),
        (Mine(nodes=6), "mine"),
    ):
        assert recipe(KEY, TASK).provenance["method"] == name


@pytest.mark.long
def test_operators_of_condensed_sets():
    """The stored normalisation is applied once, whichever way one asks."""
    raw = jgd.condense.random(nodes=12)(KEY, TASK)
    stored = operator(raw.data, normalize="sym", self_loops=True).todense()
    once = dataclasses.replace(
        raw,
        data=jgd.graph.from_adjacency(np.asarray(stored), raw.data.nodes),
        training=Training(adjacency="normalized"),
    )
    bare = dataclasses.replace(raw, training=Training(adjacency="identity"))
    for small, expected in ((raw, stored), (once, stored), (bare, np.eye(12))):
        for a in (operator(small, **GCN.adjacency), small.operator(**GCN.adjacency)):
            np.testing.assert_allclose(a.todense(), expected, atol=1e-6)
    rows = operator(once, **GraphSAGE.adjacency).todense().sum(1)
    np.testing.assert_allclose(rows, 1, atol=1e-6)
    np.testing.assert_array_equal(np.diag(operator(raw, **GAT.adjacency).todense()) != 0, True)
    with pytest.raises(ValueError, match=r"operator\(task\.graph"):
        operator(TASK)
