"""A small task for the tests of condensers."""

from dataclasses import replace

import numpy as np

from jgd.data import contextual_sbm

TASK = contextual_sbm(
    num_nodes=72, num_classes=3, num_features=6, mean_degree=6, signal=2.5, fractions=(0.5, 0.25, 0.25)
)
INDUCTIVE = replace(TASK, setting="inductive")


def elsewhere(task, keep, seed=0):
    """The task with other features, and other edges, wherever a node is not in ``keep``."""
    rng = np.random.default_rng(seed)
    x = np.where(keep[:, None], task.graph.nodes, rng.standard_normal(task.graph.nodes.shape) * 9)
    inside = keep[task.graph.senders] & keep[task.graph.receivers]
    others = np.flatnonzero(~keep)
    senders = np.append(task.graph.senders[inside], others)
    receivers = np.append(task.graph.receivers[inside], rng.integers(0, len(keep), len(others)))
    count = np.asarray([len(senders)], np.int32)
    graph = task.graph._replace(
        nodes=x.astype(np.float32),
        senders=senders.astype(np.int32),
        receivers=receivers.astype(np.int32),
        n_edge=count,
    )
    labels = np.where(keep, task.labels, (task.labels + 1) % task.num_classes)
    return replace(task, graph=graph, labels=labels)


def same(a, b):
    """Two condensed sets are equal to the bit."""
    for left, right in (
        (a.data.nodes, b.data.nodes),
        (a.data.senders, b.data.senders),
        (a.data.receivers, b.data.receivers),
        (a.data.edges, b.data.edges),
        (a.targets, b.targets),
    ):
        np.testing.assert_array_equal(left, right)
    assert a.extras.keys() == b.extras.keys()
    for name in a.extras:
        np.testing.assert_array_equal(a.extras[name], b.extras[name])
