"""Virtual nodes: weighted clusters and the propagation matrix in closed form."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from condense_toy import INDUCTIVE, TASK, elsewhere, same
from hypothesis import given, settings
from hypothesis import strategies as st

from jgd.condense._vng import VNG, layer_outputs, virtual_propagation, weighted_kmeans
from jgd.condense.common import normalize_adjacency
from jgd.data import Training
from jgd.graph import adjacency

close = np.testing.assert_allclose
KEY = jax.random.key(3)
SMALL = VNG(nodes=8, hidden=8, epochs=30)


@pytest.fixture(scope="module")
def small():
    return SMALL(KEY, TASK)


@pytest.fixture(scope="module")
def outputs():
    return layer_outputs(jax.random.split(KEY)[0], TASK, hidden=8, epochs=30)


# --- clusters -------------------------------------------------------------------------------------


def test_weights_count_as_copies():
    """A point of weight three is three points: the optimum moves."""
    x = np.asarray([[0.0], [1.4], [2.4], [2.9]])
    assert list(weighted_kmeans(x, 2)) in ([0, 0, 1, 1], [1, 1, 0, 0])
    heavy = weighted_kmeans(x, 2, np.asarray([30.0, 1, 1, 1]))
    copies = weighted_kmeans(np.repeat(x, [30, 1, 1, 1], axis=0), 2)[29:]
    for labels in (heavy, copies):
        assert labels[1] == labels[2] == labels[3] != labels[0]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 7))
def test_no_cluster_is_empty(seed, k):
    """Even where points coincide."""
    x = np.random.default_rng(seed).integers(0, 2, (7, 1)).astype(float)
    assert set(weighted_kmeans(x, k, seed=seed % 1000, restarts=1)) == set(range(k))


def test_impossible_clusters():
    for k in (0, 4):
        with pytest.raises(ValueError, match="between 1 and 3"):
            weighted_kmeans(np.zeros((3, 2)), k)


# --- propagation ----------------------------------------------------------------------------------


def test_virtual_propagation():
    """The least-squares solution: the gradient vanishes, and where Z is full the pseudo-inverse."""
    rng = np.random.default_rng(0)
    z, received = rng.standard_normal((4, 9)), rng.standard_normal((4, 9))
    a = virtual_propagation(z, received)
    close((a @ z - received) @ z.T, np.zeros((4, 4)), atol=1e-10)
    close(a, received @ np.linalg.pinv(z), atol=1e-10)
    exact = rng.standard_normal((4, 4))
    close(virtual_propagation(z, exact @ z), exact, atol=1e-10)
    flat = np.concatenate([z, z[:1]])  # two equal rows: the solution of least norm
    close(virtual_propagation(flat, flat), flat @ np.linalg.pinv(flat), atol=1e-9)


def test_result(small, outputs):
    """X', A' and y' by brute force from the clusters."""
    assign, index = small.extras["assign"], np.flatnonzero(TASK.train)
    assert (assign[~TASK.train] == -1).all()
    a_hat = normalize_adjacency(adjacency(TASK.graph)).toarray()
    weights = a_hat[np.ix_(index, index)].sum(0)
    e = np.zeros((8, len(index)))
    e[assign[index], np.arange(len(index))] = weights
    e /= e.sum(1, keepdims=True)
    close(small.data.nodes, e @ TASK.graph.nodes[index], rtol=1e-4, atol=1e-5)
    expected = (e @ a_hat[index] @ outputs) @ np.linalg.pinv(e @ outputs[index])
    close(adjacency(small.data).toarray(), expected, rtol=1e-2, atol=1e-3)
    votes = [np.bincount(TASK.labels[index][assign[index] == k], minlength=3).argmax() for k in range(8)]
    np.testing.assert_array_equal(small.targets, votes)
    assert small.training == Training(adjacency="normalized", targets="classes")
    # Clusters are those of k-means: nodes are where their outputs are nearest to the weighted mean.
    squares = ((outputs[index][:, None] - e @ outputs[index]) ** 2).sum(-1)
    own = squares[np.arange(len(index)), assign[index]]
    assert weights @ own <= 1.02 * (weights @ squares.min(1))


def test_propagation_imitates_the_network(small, outputs):
    """A' maps the clusters' outputs to what they receive far better than no propagation does."""
    index = np.flatnonzero(TASK.train)
    a_hat = normalize_adjacency(adjacency(TASK.graph)).toarray()
    weights = a_hat[np.ix_(index, index)].sum(0)
    e = np.zeros((8, len(index)))
    e[small.extras["assign"][index], np.arange(len(index))] = weights
    e /= e.sum(1, keepdims=True)
    z, received = e @ outputs[index], e @ a_hat[index] @ outputs
    ours = np.linalg.norm(adjacency(small.data).toarray() @ z - received)
    assert ours < 0.3 * np.linalg.norm(z - received)


def test_messages():
    """Among training nodes only, nothing depends on the others but the embedding."""
    everyone = replace(TASK, train=np.ones(TASK.num_nodes, bool), val=None, test=None)
    recipe = replace(SMALL, nodes=6)
    same(recipe(KEY, everyone), replace(recipe, messages="train")(KEY, everyone))
    a = adjacency(replace(SMALL, messages="train")(KEY, TASK).data).toarray()
    assert np.abs(a - adjacency(SMALL(KEY, TASK).data).toarray()).max() > 0.01


@pytest.mark.long
def test_inductive():
    small = SMALL(KEY, INDUCTIVE)
    same(small, SMALL(KEY, elsewhere(INDUCTIVE, np.asarray(INDUCTIVE.train))))
    same(small, replace(SMALL, messages="train")(KEY, INDUCTIVE))  # there are no other messages


def test_errors():
    for options, message in (
        ({"hidden": 0}, "hidden must be at least 1"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"restarts": 0}, "restarts must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            VNG(**options)
    with pytest.raises(ValueError, match="impossible"):
        VNG(nodes=2)(KEY, TASK)
