"""Groups of classes come one after another: what is seen when, what is remembered, and how it is scored."""

from dataclasses import replace
from importlib import import_module
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import jgd
from jgd.data import Condensed, Training, contextual_sbm
from jgd.evaluation import EvalConfig, evaluate
from jgd.evaluation._continual import (
    Continual,
    arrivals,
    average_accuracy,
    average_forgetting,
    continual,
    joined_sets,
)
from jgd.evaluation.kinds.nodes import real
from jgd.graph import EXPORT_CHECKS, adjacency, from_adjacency, operator
from jgd.nn import NETWORKS, SGC
from jgd.registry import Choice

close, equal = np.testing.assert_allclose, np.testing.assert_array_equal
MODULE = import_module("jgd.evaluation._continual")
KEY = jax.random.key(3)
TASK = contextual_sbm(
    num_nodes=160, num_classes=5, num_features=8, mean_degree=6, signal=3.0, fractions=(0.4, 0.2, 0.4)
)
LABELS, DENSE = np.asarray(TASK.labels), adjacency(TASK.graph).toarray()
QUICK = EvalConfig(steps=30, learning_rate=0.1, hidden=8, dropout=0.0, select_every=5)
GROUPS = ((3, 0), (1, 4), (2,))
AVERAGE = jgd.condense.average(nodes=8, hops=2)


def run(recipe, task=TASK, groups=GROUPS, **options):
    return continual(
        recipe, task, groups, **{"network": "sgc", "seeds": 2, "key": KEY, "config": QUICK, **options}
    )


class Watched(NamedTuple):
    """A run, and what went on in it: tasks that were condensed, and ``(small, seen, nets, key)`` by stage."""

    result: Continual
    condensed: list
    trained: list


def watch(recipe, *args, **options):
    """Run, and write down who sees what."""
    tasks, stages, real = [], [], MODULE.trained

    def condense(key, task):
        tasks.append(task)
        return recipe(key, task)

    def train(small, seen, *, key, **settings):
        nets = real(small, seen, key=key, **settings)
        stages.append((small, seen, nets, key))
        return nets

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MODULE, "trained", train)
        result = run(None if recipe is None else condense, *args, **options)
    return Watched(result, tasks, stages)


@pytest.fixture(scope="module")
def found():
    """The method, and its bounds."""
    settings = {
        "memory": (AVERAGE, "all"),
        "forgets": (AVERAGE, "newest"),
        "joint": (None, "all"),
        "last": (None, "newest"),
    }
    return {name: watch(recipe, memory=memory) for name, (recipe, memory) in settings.items()}


# --- groups ---------------------------------------------------------------------------------------


def test_groups_in_order():
    """The last group takes what remains."""
    assert arrivals(TASK, 1) == ((0,), (1,), (2,), (3,), (4,))
    assert arrivals(TASK) == ((0, 1), (2, 3, 4))
    assert arrivals(TASK, 3) == arrivals(TASK, 5) == ((0, 1, 2, 3, 4),)
    assert arrivals(TASK, [[4], [0, 2]]) == ((4,), (0, 2))


def without(split, *classes):
    return replace(TASK, **{split: getattr(TASK, split) & ~np.isin(LABELS, classes)})


@pytest.mark.parametrize(
    ("task", "groups", "message"),
    [
        (TASK, 0, "groups of 0 classes are impossible: task 'sbm' has 5"),
        (TASK, 6, "groups of 6 classes"),
        (TASK, [], "must be a group"),
        (TASK, [[0, 1], []], "every group needs a class"),
        (TASK, [[0, 1], [1, 2]], "at most once"),
        (TASK, [[0, 5]], r"classes 0\.\.4"),
        (TASK, [[-1]], r"classes 0\.\.4"),
        (without("train", 3), 2, r"no train nodes of classes \[3\] in group \(2, 3, 4\)"),
        (without("test", 0, 1), 2, r"no test nodes of classes \[0, 1\] in group \(0, 1\)"),
        (replace(TASK, val=None), 2, "no val nodes"),
        (replace(TASK, labels=np.eye(5)[LABELS]), 2, "probabilities as labels"),
    ],
)
def test_impossible_groups(task, groups, message):
    with pytest.raises(ValueError, match=message):
        arrivals(task, groups)


def test_a_class_may_lack_test_nodes_in_a_group_that_has_some():
    assert arrivals(without("test", 0), 2) == arrivals(TASK, 2)


def test_errors():
    with pytest.raises((ValueError, jaxtyping.TypeCheckError), match="memory"):
        run(None, memory="some")
    with pytest.raises(ValueError, match="seeds must be at least 1"):
        run(None, seeds=0)


# --- what is seen ---------------------------------------------------------------------------------


@pytest.mark.long
def test_condensers_see_new_classes_only(found):
    result, tasks, stages = found["memory"]
    assert result.groups == GROUPS
    equal(result.nodes, [8, 16, 24])
    seen = []
    for task, group, (small, stage, _, _) in zip(tasks, GROUPS, stages, strict=True):
        own = np.flatnonzero(np.isin(LABELS, group))
        equal(task.graph.nodes, TASK.graph.nodes[own])
        equal(np.asarray(group)[task.labels], LABELS[own])
        equal(adjacency(task.graph).toarray(), DENSE[np.ix_(own, own)])
        assert task.num_classes == len(group)
        for split in ("train", "val", "test"):
            equal(getattr(task, split), getattr(TASK, split)[own])
        seen += group
        now = np.flatnonzero(np.isin(LABELS, seen))
        equal(np.asarray(seen)[stage.labels], LABELS[now])
        equal(adjacency(stage.graph).toarray(), DENSE[np.ix_(now, now)])
        assert stage.num_classes == len(seen)
        assert set(small.targets.tolist()) == set(range(len(seen)))


@pytest.mark.long
def test_memory_holds_what_was_condensed_before(found):
    """Old sets are kept as they were, and a set has the same labels alone as among others."""
    whole, alone = ([stage[0] for stage in found[name].trained] for name in ("memory", "forgets"))
    for t in range(3):
        rows = slice(8 * t, 8 * t + 8)
        for later in whole[t:]:
            equal(later.data.nodes[rows], alone[t].data.nodes)
            equal(later.targets[rows], alone[t].targets)


def predictions(nets, graph):
    """Of every network, by the graph and not by the module."""
    a, x = operator(graph, **SGC.adjacency), jnp.asarray(graph.nodes)
    return jax.vmap(lambda net: net(a, x).logits)(nets)


@pytest.mark.long
def test_only_seen_classes_are_predicted(found):
    """A network has no output for others; and the matrix is what its predictions say."""
    result, _, stages = found["memory"]
    assert result.accuracy.shape == (2, 3, 3)
    equal(np.isnan(result.accuracy[0]), np.triu(np.ones((3, 3), bool), 1))
    classes = np.asarray([c for group in GROUPS for c in group])
    for t, (_, _, nets, _) in enumerate(stages):
        count = sum(map(len, GROUPS[: t + 1]))
        now = np.flatnonzero(np.isin(LABELS, classes[:count]))
        graph = from_adjacency(DENSE[np.ix_(now, now)], TASK.graph.nodes[now])
        logits = predictions(nets, graph)
        assert logits.shape[-1] == count
        predicted = np.full((2, 160), -1)
        predicted[:, now] = classes[np.argmax(logits, axis=-1)]
        for g, group in enumerate(GROUPS[: t + 1]):
            of = TASK.test & np.isin(LABELS, group)
            close(result.accuracy[:, t, g], (predicted == LABELS)[:, of].mean(1), atol=1e-6)


@pytest.mark.long
def test_one_group_is_the_evaluator():
    """All classes at once, trained on the originals: the whole graph of every table."""
    result, _, [(_, _, _, key)] = watch(None, groups=5)
    score = evaluate(TASK, TASK, networks=["sgc"], seeds=2, key=key, config=QUICK)["sgc"]
    close(result.accuracy[:, 0, 0], score.seeds(), atol=1.1 / TASK.test.sum())
    equal(result.nodes, [TASK.train.sum()])


@pytest.mark.long
def test_keys(found):
    first = found["memory"].result.accuracy
    equal(run(AVERAGE).accuracy, first)
    assert not np.array_equal(run(AVERAGE, key=jax.random.key(4)).accuracy, first)


@pytest.mark.slow
def test_inductive_with_soft_labels():
    """Networks see test nodes alone, of all groups so far; soft labels become labels of the whole."""

    def soft(key, task):
        small = AVERAGE(key, task)
        targets = (0.1 + 0.8 * np.eye(2)[small.targets]).astype(np.float32)
        return replace(small, targets=targets, training=replace(small.training, targets="probabilities"))

    task = replace(TASK, setting="inductive")
    result, condensed, stages = watch(soft, task=task, groups=[[3, 0], [1, 2]])
    small, _, nets, _ = stages[-1]
    assert small.targets.shape == (16, 4)
    close(small.targets.sum(1), 1, rtol=1e-5)
    equal(small.targets[:8, 2:], 0)
    equal(small.targets[8:, :2], 0)
    assert all(part.setting == "inductive" for part in condensed)
    labels = np.asarray([1, 2, 3, 0, 9])[LABELS]
    at = np.flatnonzero(TASK.test & (labels < 4))
    graph = from_adjacency(DENSE[np.ix_(at, at)], TASK.graph.nodes[at])
    right = np.argmax(predictions(nets, graph), axis=-1) == labels[at]
    close(result.accuracy[:, 1, 0], right[:, labels[at] < 2].mean(1), atol=1e-6)
    close(result.accuracy[:, 1, 1], right[:, labels[at] > 1].mean(1), atol=1e-6)
    assert average_accuracy(result.accuracy).mean() > 0.6


# --- the bounds -----------------------------------------------------------------------------------


@pytest.mark.long
def test_bounds(found):
    """Joint training is best; what keeps nothing forgets; the memory is near the former."""
    average = {name: average_accuracy(r.result.accuracy).mean() for name, r in found.items()}
    forgetting = {name: average_forgetting(r.result.accuracy).mean() for name, r in found.items()}
    assert average["joint"] >= average["memory"] - 0.02
    assert average["memory"] > average["forgets"] + 0.3
    assert average["memory"] > average["last"] + 0.3
    for name in ("forgets", "last"):
        assert forgetting[name] > 0.6
        assert found[name].result.accuracy[:, 2, :2].mean() < 0.2
    assert forgetting["memory"] < 0.4
    counts = [int(np.sum(TASK.train & np.isin(LABELS, group))) for group in GROUPS]
    equal(found["joint"].result.nodes, np.cumsum(counts))
    equal(found["last"].result.nodes, counts)
    equal(found["forgets"].result.nodes, [8, 8, 8])


# --- measures -------------------------------------------------------------------------------------


@given(
    hnp.arrays(
        np.float64,
        st.integers(1, 5).flatmap(lambda t: st.tuples(st.integers(1, 3), st.just(t), st.just(t))),
        elements=st.floats(0, 1),
    )
)
def test_measures_against_loops(accuracy):
    size = accuracy.shape[-1]
    accuracy[:, np.triu(np.ones((size, size), bool), 1)] = np.nan
    for one, average, forgotten in zip(
        accuracy, average_accuracy(accuracy), average_forgetting(accuracy), strict=True
    ):
        close(average, sum(one[size - 1][g] for g in range(size)) / size)
        lost = [one[g][g] - one[size - 1][g] for g in range(size - 1)]
        close(forgotten, sum(lost) / len(lost) if lost else 0.0, atol=1e-12)


# --- sets as one ----------------------------------------------------------------------------------


def small_set(seed, size, targets, structure="raw", **options):
    rng = np.random.default_rng(seed)
    a = np.triu(rng.uniform(0, 1, (size, size)) < 0.6, 1) * rng.uniform(0.1, 2, (size, size))
    graph = from_adjacency((a + a.T).astype(np.float32), rng.normal(size=(size, 3)).astype(np.float32))
    training = Training(adjacency=structure)
    return Condensed(data=graph, targets=np.asarray(targets), training=training, **options)


@pytest.mark.parametrize("structure", ["raw", "normalized", "identity"])
@pytest.mark.parametrize("name", ["gcn", "sage"])
def test_networks_see_sets_apart(structure, name):
    sets = [small_set(0, 4, [0, 1, 1, 0], structure), small_set(1, 3, [0, 0, 0], structure)]
    whole = joined_sets(sets, [(2, 0), (1,)], 3)
    equal(whole.targets, [2, 0, 0, 2, 1, 1, 1])
    assert whole.weights is None
    how = NETWORKS[name].make.adjacency
    parts = [s.operator(**how).todense() for s in sets]
    close(whole.operator(**how).todense(), scipy.linalg.block_diag(*parts), rtol=1e-6)
    equal(whole.data.nodes, np.concatenate([s.data.nodes for s in sets]))


def test_soft_labels_and_weights():
    first = small_set(0, 2, np.asarray([[0.2, 0.8], [1.0, 0.0]]))
    second = small_set(1, 1, np.asarray([[1.0]]), weights=np.asarray([3.0]))
    whole = joined_sets([first, second], [(0, 2), (1,)], 3)
    close(whole.targets, [[0.2, 0, 0.8], [1, 0, 0], [0, 1, 0]])
    close(whole.weights, [1, 1, 3])
    logits = [replace(s, training=replace(s.training, targets="logits")) for s in (first, second)]
    odds = jax.nn.softmax(joined_sets(logits, [(0, 2), (1,)], 3).targets)
    close(odds[0], [1 / (1 + np.exp(0.6)), 0, 1 / (1 + np.exp(-0.6))], rtol=1e-6)
    close(odds[2], [0, 1, 0])


def test_sets_that_cannot_be_joined():
    one = small_set(0, 2, [0, 0])
    for other, message in (
        (small_set(1, 2, [0, 0], "normalized"), "different training"),
        (replace(one, training=replace(one.training, learning_rate=0.1)), "different training"),
        (small_set(1, 2, np.ones((2, 1))), "different training"),
        (replace(one, training=Training(preprocess=Choice("zca"))), "changed data"),
        (replace(one, training=replace(one.training, predictor=Choice("sntk"))), "predictor of its own"),
    ):
        with pytest.raises(ValueError, match=message):
            joined_sets([one, other], [(0,), (1,)], 2)


# --- platforms ------------------------------------------------------------------------------------


@pytest.mark.long
def test_lowers_for_every_platform(found):
    _, stage, nets, _ = found["memory"].trained[-1]
    test = real(stage, "test", SGC(5))
    score = MODULE._accuracies
    jax.export.export(score, platforms=("cpu", "cuda", "tpu"), disabled_checks=EXPORT_CHECKS)(nets, test)
