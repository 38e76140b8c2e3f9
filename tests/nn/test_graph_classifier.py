"""Batches of graphs, how they are drawn, and one training step for every platform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from graph_toy import TASK

from jgd.core import from_linen, in_memory
from jgd.graph import EXPORT_CHECKS, operator, select_graphs
from jgd.metrics import one_vs_rest_auc
from jgd.nn import GIN, Readout
from jgd.optim import adam_l2
from jgd.training import classifier, graph_examples, graph_features, graph_set, graph_splits
from jgd.training.examples import schedule

close, equal = np.testing.assert_allclose, np.testing.assert_array_equal
KEY = jax.random.key(0)
MODEL = from_linen(Readout(GIN(8, 8, 2, dropout=0.0), 2))


def part(mask, weights=None):
    index = np.flatnonzero(mask)
    graphs = select_graphs(TASK.graphs, index)
    return graph_set(operator(graphs, **GIN.adjacency), graphs, TASK.labels[index], weights)


OWN, VAL = part(TASK.train), part(TASK.val)
TX = adam_l2(0.02, num_steps=8)


# --- batches --------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_batch_computes_what_single_graphs_do():
    """Whatever the padding and the company."""
    params, state = MODEL.init(KEY, *graph_examples(OWN, jnp.asarray([0]), 40, 80).inputs)
    index = jnp.asarray([5, -1, 2, 5])
    batch = graph_examples(OWN, index, 64, 128)
    logits = MODEL.apply(params, state, *batch.inputs)[0].logits
    equal(batch.weights, [1, 0, 1, 1])
    for place, i in ((0, 5), (2, 2), (3, 5)):
        one = graph_examples(OWN, jnp.asarray([i]), 30, 60)
        close(logits[place], MODEL.apply(params, state, *one.inputs)[0].logits[0], rtol=1e-4, atol=1e-5)
        assert batch.targets[place] == OWN.targets[i]


def test_schedule_of_epochs():
    order = schedule(np.ones(10), 4, 10, seed=3)
    assert order.shape == (10, 4)
    for epoch in order.reshape(-1).reshape(4, 10):
        equal(np.sort(epoch), np.arange(10))
    equal(order, schedule(np.ones(10), 4, 10, seed=3))
    assert (order != schedule(np.ones(10), 4, 10, seed=4)).any()


def test_draws_follow_the_weights():
    """Check 7: frequencies converge to weight over total weight."""
    weights = np.asarray([1.0, 2.0, 3.0, 10.0, 0.0])
    counts = np.bincount(schedule(weights, 50, 400, seed=0, replace=True).reshape(-1), minlength=5)
    assert counts[4] == 0
    expected = weights[:4] / weights.sum() * counts.sum()
    assert scipy.stats.chisquare(counts[:4], expected).pvalue > 0.01
    assert scipy.stats.chisquare(counts[:4], np.full(4, counts.sum() / 4)).pvalue < 1e-9


@pytest.mark.long
def test_sets_that_fit_are_one_batch():
    data, batches = graph_splits(OWN, VAL, batch_size=len(OWN.weights), steps=3, seed=0)
    assert batches is None
    assert data.source is None
    assert int((data.train.weights > 0).sum()) == len(OWN.weights)
    data, batches = graph_splits(OWN, VAL, batch_size=8, steps=3, seed=0)
    assert data.train is None
    assert data.order.shape == (3, 8)
    batch = batches(data, 1)
    equal(batch.targets, np.asarray(OWN.targets)[data.order[1]])
    again = graph_splits(OWN, VAL, batch_size=8, steps=3, seed=0)[1]
    assert again is batches  # what is compiled for one is found for the other


@pytest.mark.long
def test_drawing_takes_the_weights_out_of_the_loss():
    weights = np.linspace(0, 1, len(OWN.weights))
    data, batches = graph_splits(part(TASK.train, weights), VAL, batch_size=8, steps=3, seed=0, replace=True)
    equal(batches(data, 0).weights, 1)


def test_lengths_are_checked():
    graphs = select_graphs(TASK.graphs, np.arange(3))
    a = operator(graphs)
    for bad in ({"targets": np.zeros(2, int)}, {"weights": np.ones(4)}, {"root": np.ones(1, bool)}):
        with pytest.raises(ValueError, match=f"{next(iter(bad))} has"):
            graph_set(a, graphs, **({"targets": np.zeros(3, int)} | bad))
    with pytest.raises(ValueError, match="no node features"):
        graph_features(graphs._replace(nodes=None))
    with pytest.raises(ValueError, match=r"\[N, F\]"):
        graph_features(graphs._replace(nodes={"x": np.arange(3)}))


# --- training -------------------------------------------------------------------------------------


@pytest.mark.long
def test_weights_count_as_copies():
    """A graph of weight two trains as two of weight one."""
    twice = np.flatnonzero(TASK.train)
    doubled = np.append(twice, twice[:3])
    graphs = select_graphs(TASK.graphs, doubled)
    copies = graph_set(operator(graphs, **GIN.adjacency), graphs, TASK.labels[doubled])
    weights = np.ones(len(twice))
    weights[:3] = 2
    nets = []
    alg = classifier(MODEL, TX, every=8)
    for own in (copies, part(TASK.train, weights)):
        data, _ = graph_splits(own, VAL, batch_size=100, steps=8, seed=0)
        nets.append(in_memory("fit", alg, KEY, data, 8))
    for left, right in zip(jax.tree.leaves(nets[0].params), jax.tree.leaves(nets[1].params), strict=True):
        close(left, right, rtol=1e-3, atol=1e-4)


@pytest.mark.long
def test_export():
    """One step with its batch, for every platform."""
    data, batches = graph_splits(OWN, VAL, batch_size=8, steps=8, seed=0)
    alg = classifier(MODEL, TX, every=2, metric=one_vs_rest_auc)
    state = alg.init(KEY, data, batches(data, 0))
    leaves, tree = jax.tree.flatten((state, data))

    def step(raw, *leaves):
        state, data = tree.unflatten(leaves)
        t = jnp.int32(3)
        state, metrics = alg.step(jax.random.wrap_key_data(raw), t, state, data, batches(data, t))
        return [*jax.tree.leaves(state), metrics["loss"], metrics["score"]]

    raw = jax.random.key_data(jax.random.key(1))
    export = jax.export.export(jax.jit(step), platforms=("cpu", "cuda", "tpu"), disabled_checks=EXPORT_CHECKS)
    restored = jax.export.deserialize(export(raw, *leaves).serialize())
    assert restored.platforms == ("cpu", "cuda", "tpu")
    for ours, theirs in zip(jax.jit(step)(raw, *leaves), restored.call(raw, *leaves), strict=True):
        close(ours, theirs, rtol=1e-5, atol=1e-6)
