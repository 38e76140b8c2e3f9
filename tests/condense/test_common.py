"""Sizes and label budgets, and what every condenser shares."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jgd.condense.common import (
    budget,
    condensed_nodes,
    dense_features,
    normalize_adjacency,
    size_of,
    training_part,
)
from jgd.data import NodeTask, Training, contextual_sbm
from jgd.graph import adjacency, from_edges, operator, sparse_features

close = np.testing.assert_allclose
TASK = contextual_sbm(num_nodes=40, num_classes=4, num_features=3, mean_degree=4, fractions=(0.5, 0.25, 0.25))


def labelled(counts):
    """A task with that many labelled nodes of each class and one unlabelled node, without edges."""
    labels = np.append(np.repeat(np.arange(len(counts)), counts), 0)
    none = np.zeros(0, np.int32)
    graph = from_edges(none, none, nodes=np.ones((len(labels), 2), np.float32))
    return NodeTask(
        graph=graph, labels=labels, train=np.arange(len(labels)) < len(labels) - 1, num_classes=len(counts)
    )


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=9).filter(any), st.floats(0, 1))
def test_budget(counts, share):
    """The shares add up, every class that is there has a node, and none is asked for more than it has."""
    counts = np.asarray(counts)
    present = int((counts > 0).sum())
    size = round(present + share * (counts.sum() - present))
    got = np.asarray(budget(labelled(counts), size))
    assert got.sum() == size
    assert ((got > 0) == (counts > 0)).all()
    assert (got <= counts).all()
    if size == counts.sum():
        assert (got == counts).all()


def test_budget_of_the_card():
    """``max(int(r N_c), 1)``, and the largest class takes the rest."""
    assert budget(labelled([20] * 7), 35) == (5,) * 7
    assert budget(labelled([20] * 7), 36) == (5, 5, 5, 5, 5, 5, 6)
    assert budget(labelled([1, 3, 100]), 10) == (1, 1, 8)
    assert budget(labelled([100, 3, 1]), 10) == (8, 1, 1)
    assert budget(labelled([4, 0, 9]), 5) == (1, 0, 4)
    assert budget(labelled([10, 10, 10]), 29) != (9, 9, 11)  # one class has but ten


def test_size():
    task = labelled([10, 20, 5])
    assert size_of(task, 0.5, None) == 17
    assert size_of(task, 1.0, None) == 35
    assert size_of(task, 0.5, 4) == 4  # the number wins
    for ratio, nodes, message in (
        (None, None, "say label_ratio"),
        (0.0, None, "label_ratio must be in"),
        (1.5, None, "label_ratio must be in"),
        (float("nan"), None, "label_ratio must be in"),
        (0.05, None, "1 condensed nodes are impossible"),
        (None, 2, "between 3 and 35"),
        (None, 36, "between 3 and 35"),
        (None, 0, "between 3 and 35"),
    ):
        with pytest.raises(ValueError, match=message):
            size_of(task, ratio, nodes)


def test_tasks_without_what_is_needed():
    with pytest.raises(ValueError, match="no training nodes"):
        size_of(replace(TASK, train=None), 0.5, None)
    for train in (None, np.zeros(40, bool)):
        with pytest.raises(ValueError, match="no training nodes"):
            training_part(replace(TASK, train=train))
    with pytest.raises(ValueError, match="no node features"):
        dense_features(replace(TASK, graph=TASK.graph._replace(nodes=None)))
    unknown = replace(TASK, labels=np.where(np.arange(40) == np.flatnonzero(TASK.train)[0], -1, TASK.labels))
    assert size_of(unknown, 1.0, None) == size_of(TASK, 1.0, None) - 1


def test_dense_features():
    sparse = replace(TASK, graph=TASK.graph._replace(nodes=sparse_features(TASK.graph.nodes)))
    close(dense_features(sparse), TASK.graph.nodes)


def test_symmetric_normalization():
    a = adjacency(TASK.graph)
    loops = a.toarray() + np.eye(40)
    d = loops.sum(1)
    close(normalize_adjacency(a).toarray(), loops / np.sqrt(d[:, None] * d), rtol=1e-6)
    close(
        normalize_adjacency(a).toarray(),
        operator(TASK.graph, normalize="sym", self_loops=True).todense(),
        rtol=1e-6,
    )


@dataclass(frozen=True)
class Nothing:
    strength: float = 2.0


def test_record():
    x, key = jnp.ones((4, 3)), jax.random.key(5)
    small = condensed_nodes(Nothing(), key, TASK, features=x, labels=np.arange(4), adjacency="raw")
    assert small.training == Training(adjacency="identity", targets="classes")  # without edges
    assert len(small.data.senders) == 0
    assert small.targets.dtype == np.int32
    known = small.provenance
    assert (known["method"], known["config"], known["dataset"]) == ("nothing", {"strength": 2.0}, "sbm")
    assert (known["nodes"], known["edges"], known["setting"]) == (4, 0, "transductive")
    close([known["label_ratio"], known["node_ratio"]], [4 / TASK.train.sum(), 4 / 40])
    assert known["key"] == [0, 5]
    soft = condensed_nodes(
        Nothing(),
        key,
        TASK,
        features=x,
        labels=np.full((4, 4), 0.25),
        weights=[1, 2, 3, 4],
        edges=np.eye(4, k=1),
        adjacency="normalized",
        training={"learning_rate": 0.1},
    )
    assert soft.training == Training(adjacency="normalized", targets="probabilities", learning_rate=0.1)
    close(adjacency(soft.data).toarray(), np.eye(4, k=1))
    close(soft.weights, [1, 2, 3, 4])
