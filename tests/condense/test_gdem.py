"""GDEM: the real eigenbasis is a zero of the loss, its terms by hand, and what is kept of a graph."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from condense_toy import TASK, same
from hypothesis import given, settings
from hypothesis import strategies as st

from jgd.condense import METHODS
from jgd.condense._gdem import (
    GDEM,
    OFFICIAL,
    _classified,
    _loss,
    block_eigenvectors,
    class_alignment,
    eigenbasis,
    eigenbasis_set,
    subspace_distance,
)
from jgd.condense.bilevel import MatchContext
from jgd.core import Examples, InMemory, bind, from_linen
from jgd.data import Training, contextual_sbm
from jgd.graph import adjacency, identity
from jgd.nn import MLP

close = np.testing.assert_allclose
KEY = jax.random.key(0)
SMALL = GDEM(
    nodes=9, start_hidden=8, start_steps=20, start_x_steps=20, steps=40, turns=(2, 3), alpha=1.0, beta=0.1
)
SMALL = replace(SMALL, lr_x=0.01, lr_u=0.01, select_every=20)
# A connected graph, all of whose nodes are labelled.
N = 20
WHOLE = contextual_sbm(num_nodes=N, num_classes=2, num_features=5, mean_degree=8, fractions=(0.6, 0.2, 0.2))
WHOLE = replace(WHOLE, train=np.ones(N, bool), val=None, test=None, labels=np.sort(WHOLE.labels))
LINKS = adjacency(WHOLE.graph).toarray().astype(np.float64)
HAT = LINKS + np.eye(N)
HAT = HAT / np.sqrt(np.outer(HAT.sum(1), HAT.sum(1)))


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.long
def test_real_eigenbasis_is_a_zero():
    """Check 9: with k = n = N, the real eigenbasis and features, losses 1 and 3 are zero and A' = Â."""
    assert np.linalg.matrix_rank(np.eye(N) - HAT, tol=1e-8) == N - 1  # one component
    basis = eigenbasis(WHOLE, N, 1.0)
    values, u = np.linalg.eigh(np.eye(N) - HAT)
    close(basis.values, values, atol=1e-6)
    x = jnp.asarray(WHOLE.graph.nodes)
    start = Examples(((jnp.asarray(u, jnp.float32), basis.values), x), jnp.asarray(WHOLE.labels))
    synth = eigenbasis_set()
    parts, fixed = synth.init(KEY, start)
    small = synth.render(parts, fixed)
    close(small.inputs[0].values, HAT, atol=2e-6)
    _, terms = _loss(SMALL, 2)(MatchContext(None, small, parts, basis, None, KEY, 0))
    assert terms["subspaces"] < 1e-7
    assert terms["orthogonality"] < 1e-10
    h = unit(np.stack([(HAT @ np.asarray(x))[WHOLE.labels == c].mean(0) for c in (0, 1)]))
    close(basis.means, h, atol=1e-5)
    close(terms["classes"], ((h @ h.T - np.eye(2)) ** 2).mean(), rtol=1e-4)


@given(st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_subspace_distance(seed):
    """The closed form is the mean over all outer products, of any lengths; the sign of a vector is free."""
    draw = np.random.default_rng(seed)
    a, b = draw.standard_normal((2, 4, 6))
    outer = np.mean([(np.outer(p, p) - np.outer(q, q)) ** 2 for p, q in zip(a, b, strict=True)])
    a, b = jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)
    close(subspace_distance(a, b), outer, rtol=1e-4, atol=1e-5)
    close(subspace_distance(a, -a), 0, atol=1e-4)


@pytest.mark.long
def test_both_ends_of_the_spectrum():
    values, _ = np.linalg.eigh(np.eye(N) - HAT)
    for count, ratio, low in ((7, 0.8, 6), (5, 0.8, 4), (4, 0.0, 0), (6, 1.0, 6)):
        found = eigenbasis(WHOLE, count, ratio)
        expected = np.concatenate([values[:low], values[N - (count - low) :]])
        close(found.values, expected, atol=1e-6)
        close(jnp.linalg.norm(found.subspaces, axis=1), 1, rtol=1e-5)


def test_largest_component(rng):
    """Other components do not matter, nor labels that are not for training; a class outside is left out."""
    graph = WHOLE.graph
    keep = (graph.senders < 14) & (graph.receivers < 14)
    edges = {"senders": graph.senders[keep], "receivers": graph.receivers[keep]}
    task = replace(WHOLE, graph=graph._replace(**edges, n_edge=np.asarray([keep.sum()], np.int32)))
    assert (np.bincount(task.labels[:14], minlength=2) > 0).all()
    found = eigenbasis(task, 5, 0.6)
    inner = task.induced(np.arange(N) < 14)
    for a, b in zip(found, eigenbasis(inner, 5, 0.6), strict=True):
        close(a, b, atol=1e-5)
    hidden = replace(task, train=np.arange(N) < 14, labels=np.where(np.arange(N) < 14, task.labels, -1))
    for a, b in zip(found, eigenbasis(hidden, 5, 0.6), strict=True):
        close(a, b, atol=1e-6)
    lone = replace(task, train=(task.labels == 0) | (np.arange(N) >= 14))
    means = eigenbasis(lone, 5, 0.6).means
    close(means[1], 0)
    # Only the class that is there counts.
    ours = jnp.asarray(unit(rng.standard_normal((2, 5))), jnp.float32)
    close(class_alignment(means, ours), (np.dot(means[0], ours[0]) - 1) ** 2, rtol=1e-5)
    with pytest.raises(ValueError, match="no 15 eigenvalues"):
        eigenbasis(task, 15, 1.0)
    with pytest.raises(ValueError, match="no labelled nodes"):
        eigenbasis(replace(task, train=np.arange(N) >= 14), 5, 1.0)
    with pytest.raises(ValueError, match="ratio"):
        eigenbasis(task, 5, 1.5)


def test_start_of_the_eigenvectors():
    labels = np.repeat(np.arange(3), 30)
    u = block_eigenvectors(KEY, labels, 3)
    close(u.T @ u, np.eye(90), atol=1e-8)
    # The second and third tell the blocks apart.
    centers = np.stack([u[labels == c, 1:3].mean(0) for c in range(3)])
    nearest = ((u[:, None, 1:3] - centers) ** 2).sum(-1).argmin(1)
    assert (nearest == labels).mean() > 0.7


@pytest.fixture(scope="module")
def run():
    loop = InMemory({})
    return SMALL(KEY, TASK, loop), loop.history


@pytest.mark.long
def test_recipe(run):
    small, history = run
    assert small.data.nodes.shape == (9, 6)
    assert small.training == Training(adjacency="normalized", targets="classes")
    a = adjacency(small.data).toarray()
    close(a, a.T, atol=1e-6)
    close(small.operator(normalize="sym", self_loops=True).todense(), a)  # as it is, not normalised again
    assert history["match"]["loss"][-1] < 0.8 * history["match"]["loss"][0]
    close(history["match"]["best"][-1], np.nanmax(history["match"]["score"]))
    same(small, SMALL(KEY, TASK))


@pytest.mark.long
def test_features_move_under_the_dropout_of_the_perceptron(rng):
    """Each step of X' has a mask of its own, drawn from the key; without dropout the key does not matter."""
    x = jnp.asarray(rng.standard_normal((4, 6)), jnp.float32)
    labels = jnp.asarray([0, 1, 0, 1])

    def moved(dropout, seed, steps=2):
        net = from_linen(MLP(2, 8, dropout=dropout))
        net = bind(net, *net.init(KEY, identity(4), x))
        return _classified(net, jax.random.key(seed), x, labels, 0.1, 0.0, steps)

    close(moved(0.0, 0), moved(0.0, 1), rtol=0)
    assert not np.allclose(moved(0.5, 0), moved(0.0, 0))
    assert not np.allclose(moved(0.5, 0), moved(0.5, 1))
    # Adam's first step has one length wherever there is a gradient: not where inputs are dropped.
    first = np.asarray(moved(0.5, 0, steps=1)) - x
    assert 0.2 < np.mean(np.abs(first) < 1e-6) < 0.8
    close(np.abs(first)[np.abs(first) > 1e-6], 0.1, rtol=1e-3)


@pytest.mark.long
def test_turns():
    """U' first, then X'."""
    recipe = replace(SMALL, select_every=None)
    sets = {steps: replace(recipe, steps=steps)(KEY, TASK) for steps in (1, 2, 3)}
    np.testing.assert_array_equal(sets[1].data.nodes, sets[2].data.nodes)
    assert np.abs(sets[2].data.nodes - sets[3].data.nodes).max() > 1e-3
    a = [adjacency(sets[s].data).toarray() for s in (1, 2, 3)]
    assert np.abs(a[0] - a[1]).max() > 1e-3
    np.testing.assert_array_equal(a[1], a[2])


def test_official():
    for name, ratio in OFFICIAL:
        assert METHODS.official("gdem", name, label_ratio=ratio).label_ratio == ratio
    assert METHODS.official("gdem", "citeseer", label_ratio=0.5) == GDEM()
    assert METHODS.official("gdem", "citeseer", label_ratio=0.9).lr_u == 1e-4
    assert METHODS.official("gdem", "cora", nodes=70) == GDEM(label_ratio=None, nodes=70)
    for wrong in ({"low": 1.5}, {"steps": 0}, {"alpha": -1.0}, {"eigenvalues": 0}, {"patience": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            GDEM(**wrong)
