"""Every predictor of the catalogue, and kernel ridge regression beside its closed form in float64."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from jgd.condense import GCSNTK, Random
from jgd.data import ArrayTask, artifact, contextual_sbm
from jgd.evaluation import PREDICTORS, evaluate
from jgd.registry import Choice

KEY = jax.random.key(5)
NODES = contextual_sbm(num_nodes=60, num_classes=3, num_features=5, mean_degree=6, signal=2.0)
INDUCTIVE = replace(NODES, setting="inductive")
I = np.arange(150)  # noqa: E741 - rows
ARRAYS = ArrayTask(
    x=(np.eye(3, 5)[I % 3] * 2 + 0.7 * np.random.default_rng(0).standard_normal((150, 5))).astype(np.float32),
    y=(I % 3).astype(np.int32),
    num_classes=3,
    name="blobs",
    train=I < 60,
    val=(I >= 60) & (I < 90),
    test=I >= 90,
)
TASKS = {"nodes": NODES, "inductive": INDUCTIVE, "arrays": ARRAYS}
CASES = [
    (name, task)
    for name in PREDICTORS
    for task in TASKS
    if ("nodes" if task == "inductive" else task) in PREDICTORS[name].kinds
]


def meant_for(name, task):
    """A condensed set that is meant for a predictor."""
    if name == "sntk":
        return GCSNTK(label_ratio=None, nodes=9, steps=60, learning_rate=0.05, select_every=None)(KEY, task)
    small = Random(per_class=3)(KEY, task)
    return replace(small, training=replace(small.training, predictor=Choice(name)))


def propagated(a, x, hops=2):
    a = np.asarray(a, np.float64) + np.eye(len(a))
    a /= np.sqrt(a.sum(1)[:, None] * a.sum(1))
    return np.linalg.matrix_power(a, hops) @ np.asarray(x, np.float64)


def rows(name, task, small):
    """Features of the condensed examples and of all original ones, in float64."""
    if name == "arrays":
        return np.asarray(small.data, np.float64), np.asarray(task.x, np.float64)
    part = [np.asarray(jgd_adjacency(graph)) for graph in (small.data, task.graph)]
    return propagated(part[0], small.data.nodes), propagated(part[1], task.graph.nodes)


def jgd_adjacency(graph):
    a = np.zeros((len(graph.nodes),) * 2)
    weights = 1.0 if graph.edges is None else np.asarray(graph.edges, np.float64)
    np.add.at(a, (np.asarray(graph.receivers), np.asarray(graph.senders)), weights)
    return a


def relu_kernel(x, y, layers=2):
    """The tangent kernel of a ReLU network by its recursion, with angles by arccos."""
    sigma = theta = x @ y.T
    scale = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(y, axis=1)
    for _ in range(layers):
        rho = np.clip(sigma / scale, -1, 1)
        angle = np.arccos(rho)
        sigma = scale * (np.sqrt(1 - rho**2) + (np.pi - angle) * rho) / np.pi
        theta = theta * (np.pi - angle) / np.pi + sigma
    return theta


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_scores_and_survives_storage(name, kind, tmp_path):
    task, small = TASKS[kind], meant_for(name, TASKS[kind])
    scores = evaluate({"own": small}, task, seeds=2)["own"]
    (network,) = scores.axes["network"]
    assert scores[network].test_mean > 0.6  # by chance 0.33
    found = scores[network].seeds()
    np.testing.assert_array_equal(found[0], found)  # one predictor, whatever the seed
    stored = artifact.load(artifact.save(small, tmp_path / "small.npz"))
    assert stored.training == small.training
    np.testing.assert_array_equal(evaluate(stored, task, seeds=1)[network].seeds(), found[:1])
    outputs, labels = PREDICTORS.build(small.training.predictor)(small, task, "test")
    assert outputs.shape == (len(labels), 3)
    np.testing.assert_array_equal(labels, np.asarray(task.labels if kind != "arrays" else task.y)[task.test])


@pytest.mark.parametrize("name", PREDICTORS)
def test_bad_settings_are_refused(name):
    for settings, message in (
        ({"strength": 1.0}, f"settings of the predictor '{name}'.*strength"),
        ({"ridge": -1.0}, "ridge must be a number of at least 0"),
        ({"ridge": float("nan")}, "ridge must be a number of at least 0"),
        ({"hops": -1}, "hops must be a whole number"),
    ):
        with pytest.raises(ValueError, match=message):
            PREDICTORS.build(Choice(name, settings))


@pytest.mark.parametrize(("name", "kernel"), [("ridge", lambda x, y: x @ y.T), ("ntk", relu_kernel)])
@pytest.mark.parametrize("kind", ["nodes", "arrays"])
def test_kernel_ridge_in_float64(name, kernel, kind):
    task, small = TASKS[kind], meant_for(name, TASKS[kind])
    support, every = rows(kind, task, small)
    k = kernel(support, support)
    targets = np.eye(3)[small.targets] - 1 / 3
    shift = 0.1 * np.trace(k) / len(k) * np.eye(len(k))
    expected = kernel(every, support) @ np.linalg.solve(k + shift, targets) + 1 / 3
    for split in ("train", "test"):
        outputs, _ = PREDICTORS.build(Choice(name, {"ridge": 0.1}))(small, task, split)
        np.testing.assert_allclose(outputs, expected[np.asarray(getattr(task, split))], atol=2e-4)


def test_inductive_predictors_see_the_split_alone():
    """Features of nodes outside of the split change nothing."""
    small, outside = meant_for("ridge", INDUCTIVE), ~np.asarray(INDUCTIVE.test)
    x = np.where(outside[:, None], 7.0, np.asarray(INDUCTIVE.graph.nodes)).astype(np.float32)
    changed = replace(INDUCTIVE, graph=INDUCTIVE.graph._replace(nodes=x))
    predict = PREDICTORS.build(Choice("ridge"))
    np.testing.assert_allclose(
        predict(small, changed, "test")[0], predict(small, INDUCTIVE, "test")[0], atol=1e-5
    )


def test_data_without_features_for_it():
    words = replace(ARRAYS, x=np.zeros((150,), np.float32))
    with pytest.raises(ValueError, match="reads arrays of numbers"):
        PREDICTORS.build(Choice("ridge"))(meant_for("ridge", ARRAYS), words, "test")
