"""The main job on a small task: its numbers, its record, its baselines."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

import jgd
from jgd.condense.common import condensed_nodes
from jgd.data import contextual_sbm
from jgd.evaluation import EvalConfig, compare
from jgd.evaluation._compare import versions
from jgd.evaluation.kinds.nodes import NODES, propagated_distance
from jgd.graph import adjacency

close = np.testing.assert_allclose
KEY = jax.random.key(0)
TASK = contextual_sbm(
    num_nodes=60, num_classes=3, num_features=5, mean_degree=6, signal=2.0, fractions=(0.4, 0.3, 0.3)
)
RECIPE = jgd.condense.clustgdd(nodes=6, hidden=8, head_steps=10, refine_steps=3, restarts=1)
QUICK = EvalConfig(steps=10, hidden=8, select_every=5)
BASELINES = NODES.baselines


@pytest.fixture(scope="module")
def comparison():
    said = []
    options = {"networks": ("sgc",), "seeds": 2, "config": QUICK, "log": said.append}
    result = compare(RECIPE, TASK, key=KEY, method="clustgdd", **options)
    assert any("herding and k-center" in line for line in said)
    return result


@pytest.mark.long
def test_metrics(comparison):
    """The schema of ``metrics.json``, with nothing in it that JSON cannot say."""
    metrics = json.loads(comparison.recorded(command="jgd condense", seed=4).json())
    assert {
        "dataset",
        "method",
        "label_ratio",
        "seed",
        "nodes",
        "edges",
        "bytes",
        "seconds",
    } <= metrics.keys()
    assert {"full", "condensed", "distances", "baselines", "versions", "command"} <= metrics.keys()
    assert (metrics["dataset"], metrics["method"], metrics["seed"]) == ("sbm", "clustgdd", 4)
    assert (metrics["nodes"], metrics["label_ratio"], metrics["node_ratio"]) == (6, 6 / 24, 6 / 60)
    assert metrics["edges"] == len(comparison.products["clustgdd"].data.senders)
    assert metrics["command"] == "jgd condense"
    assert {"condense", "evaluate"} <= metrics["seconds"].keys()
    assert all(s >= 0 for s in metrics["seconds"].values())
    assert metrics["config"]["hidden"] == 8
    assert metrics["original"]["nodes"] == 60
    assert set(metrics["baselines"]) == set(BASELINES)
    assert set(metrics["distances"]["Fréchet distance"]) == {"clustgdd", *BASELINES}
    for scores in (metrics["full"], metrics["condensed"], *metrics["baselines"].values()):
        assert set(scores) == {"sgc"}
        for score in scores.values():
            assert set(score) == {"test_mean", "test_std", "val_mean", "seeds"}
            assert score["seeds"] == 2
            assert 0 <= score["test_mean"] <= 1
            assert 0 <= score["val_mean"] <= 1
    assert {"python", "jax", "jgd", "device"} <= versions().keys()


def test_rows(comparison):
    rows = {row["name"]: row for row in comparison.rows}
    assert list(rows) == ["full graph", "clustgdd", *BASELINES]
    assert rows["full graph"]["nodes"] == 60
    assert {row["nodes"] for name, row in rows.items() if name != "full graph"} == {6}
    assert rows["average"]["edges"] == 0
    assert all(row["Fréchet distance"] >= 0 for name, row in rows.items() if name != "full graph")


def test_parts_equal_single_calls(comparison):
    """The condensed set is that of its key; scores are those of `evaluate` with the third key."""
    k_method, _, k_eval = jax.random.split(KEY, 3)
    np.testing.assert_array_equal(
        comparison.products["clustgdd"].data.nodes, RECIPE(k_method, TASK).data.nodes
    )
    alone = jgd.evaluate(TASK, TASK, networks=["sgc"], seeds=2, key=k_eval, config=QUICK)["sgc"]
    np.testing.assert_array_equal(alone.test, comparison.scores["full"]["sgc"].test)


def test_a_baseline_as_the_method():
    result = compare(
        jgd.condense.random(nodes=6),
        TASK,
        key=KEY,
        method="random",
        baselines=("random", "average"),
        networks=("sgc",),
        seeds=2,
        config=QUICK,
    )
    assert result.scores.axes["set"] == ("full", "random", "average")
    assert list(result.record["baselines"]) == ["average"]


def test_unknown_baseline():
    with pytest.raises(ValueError, match="no baseline is called 'herdin': did you mean herding"):
        compare(RECIPE, TASK, key=KEY, baselines=("herdin",))


def test_bytes():
    """Features, both indices, weights and labels."""
    small = jgd.condense.degree(nodes=6)(KEY, TASK)
    edges = len(small.data.senders)
    assert NODES.size(small)["bytes"] == 6 * 5 * 4 + edges * 8 + 6 * 4
    weighted = RECIPE(KEY, TASK)
    edges = len(weighted.data.senders)
    assert NODES.size(weighted)["bytes"] == 6 * 5 * 4 + edges * 12 + 6 * 4


@pytest.mark.long
def test_distance():
    """Zero to the graph itself; else by matrix roots in float64."""
    whole = condensed_nodes(
        RECIPE, KEY, TASK, features=TASK.graph.nodes, labels=TASK.labels, edges=TASK.graph, adjacency="raw"
    )
    close(propagated_distance(TASK, whole), 0, atol=1e-4)
    small = RECIPE(KEY, TASK)

    def propagated(a, x, normal):
        if not normal:
            a = a + np.eye(len(a))
            a = a / np.sqrt(a.sum(1)[:, None] * a.sum(1))
        return a @ a @ np.asarray(x, np.float64)

    def gaussian(x, weights):
        weights = weights / weights.sum()
        x = x / np.sqrt(weights @ np.sum(x**2, 1))
        mu = weights @ x
        return mu, (x - mu).T @ (weights[:, None] * (x - mu)) / (1 - weights @ weights)

    mu, s = gaussian(propagated(adjacency(TASK.graph).toarray(), TASK.graph.nodes, False), np.ones(60))
    nu, r = gaussian(
        propagated(adjacency(small.data).toarray(), small.data.nodes, True),
        small.extras["size"].astype(float),
    )
    root = np.real(scipy.linalg.sqrtm(s))
    inner = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ r @ root), 0)).sum()
    exact = np.sum((mu - nu) ** 2) + np.trace(s) + np.trace(r) - 2 * inner
    close(propagated_distance(TASK, small), exact, rtol=1e-3, atol=1e-5)
    assert jnp.isfinite(exact)
