"""Synthesizers: what is learned, what is rendered, and the generator of adjacencies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgd.condense.synthesizers import Adjacency, node_set, pairs, pge, seen
from jgd.core import Examples
from jgd.graph import DiagonalOperator

close = np.testing.assert_allclose
X = jnp.asarray(np.sin(np.arange(35.0) ** 2).reshape(7, 5), jnp.float32)
Y = jnp.asarray([2, 1, 1, 2, 0, 0, 2])
KEY = jax.random.key(0)


def test_features_alone():
    synth = node_set()
    parts, fixed = synth.init(KEY, Examples((X,), Y))
    small = synth.render(parts, fixed)
    assert set(parts) == {"x"}
    assert isinstance(small.inputs[0], DiagonalOperator)
    assert parts["x"] is not X  # its own buffer: the state is donated
    close(small.inputs[1], X)
    close(small.targets, Y)
    close(seen(small).inputs[0].todense(), np.eye(7))


def test_soft_labels_and_learning_rate():
    soft = jax.nn.one_hot(Y, 3)
    parts, fixed = node_set(soft_labels=True, learning_rate=0.5).init(KEY, Examples((X,), soft))
    assert set(parts) == {"x", "y", "lr"}
    assert parts["lr"] == 0.5
    assert fixed == {}
    with pytest.raises(ValueError, match="soft labels"):
        node_set(soft_labels=True).init(KEY, Examples((X,), Y))


def test_pairs_are_those_of_concatenation(rng):
    first = {"kernel": jnp.asarray(rng.standard_normal((10, 4)), jnp.float32), "bias": jnp.arange(4.0)}
    brute = [[np.concatenate([a, b]) @ first["kernel"] + first["bias"] for b in X] for a in X]
    close(pairs(first, X), brute, rtol=1e-5, atol=1e-5)


def brute_pge(params, x):
    """The same by the book, in float64, on all concatenated pairs."""
    n = len(x)
    h = np.asarray([np.concatenate([a, b]) for a in x for b in x], np.float64)
    for i, linear in enumerate(params["linear"]):
        h = h @ np.asarray(linear["kernel"], np.float64) + np.asarray(linear["bias"])
        if i < len(params["norm"]):
            norm = params["norm"][i]
            h = (h - h.mean(0)) / np.sqrt(h.var(0) + 1e-5) * np.asarray(norm["scale"]) + np.asarray(
                norm["shift"]
            )
            h = np.maximum(h, 0)
    scores = h.reshape(n, n)
    weights = 1 / (1 + np.exp(-(scores + scores.T) / 2))
    np.fill_diagonal(weights, 0)
    return weights


def test_pge(rng):
    """Checks 4 and 12: symmetric, zero diagonal, in (0, 1), by the book, and it permutes with the nodes."""
    adjacency = pge(hidden=8)
    params, fixed = adjacency.init(KEY, X, Y)
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(KEY, p.shape), params)
    a = np.asarray(adjacency.apply(params, fixed, X, Y))
    close(a, a.T)
    close(np.diag(a), 0)
    off = a[~np.eye(7, dtype=bool)]
    assert np.all((off > 0) & (off < 1))
    close(a, brute_pge(params, X), rtol=1e-4, atol=1e-5)
    order = rng.permutation(7)
    close(adjacency.apply(params, fixed, X[order], Y[order]), a[np.ix_(order, order)], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="layers"):
        pge(layers=1)


@pytest.mark.long
def test_a_generator_is_seen_normalised_and_is_differentiable():
    synth = node_set(pge(hidden=4))
    parts, fixed = synth.init(KEY, Examples((X,), Y))
    small = synth.render(parts, fixed)
    a = np.asarray(small.inputs[0].todense()) + np.eye(7)
    d = a.sum(1)
    close(seen(small).inputs[0].todense(), a / np.sqrt(d[:, None] * d), rtol=1e-5)
    grads = jax.grad(lambda p: jnp.sum(seen(synth.render(p, fixed)).inputs[0].values ** 2))(parts)
    assert all(
        np.isfinite(g).all() and np.any(g) for g in jax.tree.leaves(grads["adj"]["linear"][0]["kernel"])
    )
    assert np.any(grads["x"])


def test_what_follows_is_updated():
    follow = Adjacency(
        init=lambda key, x, y: ((), jnp.zeros((7, 7))),
        apply=lambda params, fixed, x, y, key=None, t=None: fixed,
        update=lambda params, fixed, x, y: fixed + 1,
    )
    synth = node_set(follow)
    parts, fixed = synth.init(KEY, Examples((X,), Y))
    close(synth.update(parts, fixed)["adj"], 1)
    assert node_set().update(*node_set().init(KEY, Examples((X,), Y))) is not None
