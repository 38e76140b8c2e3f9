"""GC-SNTK: its loss by hand, batches, selection, and the predictor that belongs to the set."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from condense_toy import INDUCTIVE, TASK, elsewhere, same

import jgd
from jgd.condense._sntk import GCSNTK, OFFICIAL, sntk_accuracy, sntk_predict
from jgd.condense.coresets import Random
from jgd.core import InMemory
from jgd.data import artifact
from jgd.graph import adjacency, identity, operator
from jgd.ops.kernels import graph_ntk

close = np.testing.assert_allclose
KEY = jax.random.key(0)
SMALL = GCSNTK(nodes=9, hops=1, ridge=1e-2, steps=60, learning_rate=0.05)


class Listening(InMemory):
    """Keeps what the loop was given."""

    def __call__(self, name, algorithm, key, data, num_steps, batches=None):
        self.algorithm, self.data, self.batches = algorithm, data, batches
        return super().__call__(name, algorithm, key, data, num_steps, batches)


@pytest.fixture(scope="module")
def run():
    loop = Listening({})
    return SMALL(KEY, TASK, loop), loop


def predicted(small, mask, settings):
    """Kernel ridge regression in float64 from the task itself."""
    x = np.asarray(TASK.graph.nodes, np.float64)
    x = (x - x.mean(0)) / x.std(0, ddof=1)
    hat = adjacency(TASK.graph).toarray().astype(np.float64) + np.eye(len(x))
    x = (hat / np.sqrt(np.outer(hat.sum(1), hat.sum(1)))) @ x
    inside = adjacency(TASK.graph).toarray()[np.ix_(mask, mask)]
    a = operator(inside, normalize="row", self_loops=True)
    sizes = {"rounds": settings.rounds, "layers": settings.layers}
    x_s, eye = jnp.asarray(small.data.nodes), identity(len(small.targets))
    k_ss = np.asarray(graph_ntk(eye, x_s, eye, x_s, **sizes), np.float64)
    k_ts = np.asarray(graph_ntk(a, jnp.asarray(x[mask], jnp.float32), eye, x_s, **sizes), np.float64)
    shift = settings.ridge * np.trace(k_ss) / len(k_ss)
    logits = k_ts @ np.linalg.solve(k_ss + shift * np.eye(len(k_ss)), np.asarray(small.targets, np.float64))
    p = np.exp(logits - logits.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


@pytest.mark.long
def test_learns(run):
    """The loss falls, the best set on validation nodes is kept, and it predicts the test nodes."""
    small, loop = run
    history = loop.history["match"]
    assert history["loss"][-1] < 0.3 * history["loss"][0]
    close(history["best"][-1], np.nanmax(history["score"]))
    close(sntk_accuracy(small, TASK, "val"), history["best"][-1], atol=1e-6)
    assert sntk_accuracy(small, TASK) > 0.75
    start = replace(SMALL, steps=1, learning_rate=0.0, select_every=None)(KEY, TASK)
    assert sntk_accuracy(start, TASK) < 0.6
    same(small, SMALL(KEY, TASK))


@pytest.mark.long
def test_predictor(run):
    small, _ = run
    for split in ("train", "test"):
        nodes, p = sntk_predict(small, TASK, split)
        np.testing.assert_array_equal(nodes, np.flatnonzero(getattr(TASK, split)))
        close(p, predicted(small, np.asarray(getattr(TASK, split)), SMALL), atol=2e-3)
        accuracy = (p.argmax(1) == TASK.labels[nodes]).mean()
        assert sntk_accuracy(small, TASK, split) == accuracy


@pytest.mark.long
def test_loss(run):
    """The first loss is the mean squared error of the first prediction."""
    _, loop = run
    start = replace(SMALL, steps=1, learning_rate=0.0, select_every=None)(KEY, TASK)
    mask = np.asarray(TASK.train)
    errors = predicted(start, mask, SMALL) - np.eye(3)[TASK.labels[mask]]
    close(loop.history["match"]["loss"][0], (errors**2).mean(), rtol=1e-3)


@pytest.mark.long
def test_is_for_its_own_kernel(run, tmp_path):
    """It says so, `evaluate` scores it by that kernel, and it survives being stored."""
    small, _ = run
    assert small.training.predictor.name == "sntk"
    found = jgd.evaluate(
        {"own": small, "other": Random(nodes=9)(KEY, TASK)}, TASK, networks=("mlp",), seeds=1
    )
    close(found["own"]["mlp"].test_mean, sntk_accuracy(small, TASK), rtol=1e-6)
    assert found.axes["set"] == ("own", "other")
    loaded = artifact.load(artifact.save(small, tmp_path / "small.npz"))
    assert sntk_accuracy(loaded, TASK) == sntk_accuracy(small, TASK)
    with pytest.raises(ValueError, match="GCSNTK"):
        sntk_accuracy(Random(nodes=9)(KEY, TASK), TASK)
    narrow = replace(TASK, graph=TASK.graph._replace(nodes=TASK.graph.nodes[:, :4]))
    with pytest.raises(ValueError, match="other data"):
        sntk_accuracy(small, narrow)
    with pytest.raises(ValueError, match="no test nodes"):
        sntk_accuracy(small, replace(TASK, test=None))


@pytest.mark.long
def test_batches():
    """More nodes than a batch: each is in one batch, padding counts nothing, and it still learns."""
    loop = Listening({})
    small = replace(SMALL, batch_size=10)(KEY, TASK, loop)
    batches = [loop.batches.batch_at(t) for t in range(4)]
    labelled = int(TASK.train.sum())
    assert sum(int(b.weights.sum()) for b in batches) == labelled
    counts = np.bincount(np.concatenate([b.targets[b.weights > 0] for b in batches]), minlength=3)
    np.testing.assert_array_equal(counts, np.bincount(TASK.labels[TASK.train], minlength=3))
    assert all(b.x.shape == (10, 6) and b.a.shape == (10, 10) for b in batches)
    assert all((np.asarray(b.targets)[np.asarray(b.weights) == 0] == -1).all() for b in batches)
    nodes, p = sntk_predict(small, TASK)
    np.testing.assert_array_equal(nodes, np.flatnonzero(TASK.test))
    close(p.sum(1), 1, rtol=1e-5)
    assert sntk_accuracy(small, TASK) > 0.6


@pytest.mark.long
def test_what_it_sees():
    """Inductive: nothing but the training nodes, features' means included; predicted on the test subgraph."""
    recipe = replace(SMALL, select_every=None, steps=5)
    small = recipe(KEY, INDUCTIVE)
    same(small, recipe(KEY, elsewhere(INDUCTIVE, INDUCTIVE.train)))
    changed = elsewhere(INDUCTIVE, INDUCTIVE.test)
    np.testing.assert_array_equal(sntk_predict(small, INDUCTIVE)[1], sntk_predict(small, changed)[1])


def test_refuses():
    for wrong in ({"steps": 0}, {"ridge": -1.0}, {"hops": -1}, {"rounds": 0}, {"batch_size": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            GCSNTK(**wrong)
    for settings in OFFICIAL.values():
        GCSNTK(**settings)
