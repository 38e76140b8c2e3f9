"""Strict and tolerant scores against sets and breadth-first search."""

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support

from jgd.graph import from_edges
from jgd.metrics import strict_scores, tolerant_scores
from jgd.metrics.detection import within_hops


def case(seed, nodes=12, edges=10):
    rng = np.random.default_rng(seed)
    nodes = int(rng.integers(1, nodes + 1))
    count = int(rng.integers(0, edges + 1))
    graph = from_edges(rng.integers(0, nodes, count), rng.integers(0, nodes, count), num_nodes=nodes)
    return graph, rng.random(nodes) < 0.3, rng.random(nodes) < 0.3


def reach(graph, seeds, hops):
    """Breadth-first search from each seed."""
    near = {i: set() for i in range(int(graph.n_node[0]))}
    for a, b in zip(graph.senders.tolist(), graph.receivers.tolist(), strict=True):
        near[a].add(b)
        near[b].add(a)
    found = set()
    for seed in seeds:
        distance, queue = {seed: 0}, deque([seed])
        while queue:
            node = queue.popleft()
            for other in near[node] if distance[node] < hops else ():
                if other not in distance:
                    distance[other] = distance[node] + 1
                    queue.append(other)
        found |= set(distance)
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 3))
def test_tolerance_by_sets(seed, hops):
    """The published definition, written with sets."""
    graph, alarm, truth = case(seed)
    np.testing.assert_array_equal(
        np.flatnonzero(within_hops(truth, graph, hops)), sorted(reach(graph, np.flatnonzero(truth), hops))
    )
    mp, gp = (set(np.flatnonzero(m).tolist()) for m in (alarm, truth))
    everyone = set(range(len(alarm)))
    tp, fp, fn, tn = mp & gp, mp - gp, gp - mp, everyone - (gp | mp)
    near_tp, near_gp = reach(graph, tp, hops), reach(graph, gp, hops)
    tp, fp, fn = len(tp | (fn & near_tp)), len(fp - near_gp), len(fn - near_tp)
    scores = tolerant_scores(alarm, truth, graph, hops)
    assert [scores[k] for k in ("tp", "fp", "fn", "tn")] == [tp, fp, fn, len(tn)]
    assert scores["recall"] == pytest.approx(tp / (tp + fn) if tp + fn else 0)
    assert scores["fpr"] == pytest.approx(fp / (fp + len(tn)) if fp + len(tn) else 0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_tolerance_never_hurts(seed):
    graph, alarm, truth = case(seed)
    strict, tolerant = strict_scores(alarm, truth), tolerant_scores(alarm, truth, graph)
    assert tolerant["tp"] >= strict["tp"]
    assert tolerant["fp"] <= strict["fp"]
    assert tolerant["f1"] >= strict["f1"]
    assert tolerant_scores(alarm, truth, graph, hops=0) == strict
    none = np.zeros(0, np.int32)
    assert tolerant_scores(alarm, truth, from_edges(none, none, num_nodes=len(alarm))) == strict
    p, r, f, _ = precision_recall_fscore_support(truth, alarm, average="binary", zero_division=0)
    np.testing.assert_allclose([strict["precision"], strict["recall"], strict["f1"]], [p, r, f])


def test_a_hub_forgives_everything():
    """One process that touched everything: one hit is all hits, and no alarm is false."""
    graph = from_edges(np.zeros(9, int), np.arange(1, 10), num_nodes=10)
    alarm, truth = np.zeros(10, bool), np.zeros(10, bool)
    alarm[[1, 2, 3, 4]], truth[[4, 5, 6]] = True, True
    assert strict_scores(alarm, truth)["f1"] == pytest.approx(2 / 7)
    assert tolerant_scores(alarm, truth, graph)["f1"] == 1.0


def test_what_is_refused():
    graph, alarm, truth = case(3)
    for bad in (alarm.astype(int), alarm[:-1], alarm[None]):
        with pytest.raises(ValueError, match="boolean vectors"):
            strict_scores(bad, truth)
    with pytest.raises(ValueError, match="length"):
        within_hops(np.ones(99, bool), graph, 1)
    with pytest.raises(ValueError, match="negative"):
        tolerant_scores(alarm, truth, graph, hops=-1)
