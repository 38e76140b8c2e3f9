"""Sampled trees: unbiased, static in shape, and exact where everything is drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgd.core import from_linen
from jgd.data import contextual_sbm
from jgd.graph import EXPORT_CHECKS, from_coo, operator, sample_tree
from jgd.nn import SGC

TASK = contextual_sbm(num_nodes=40, num_classes=2, num_features=5, mean_degree=4)
A = operator(TASK.graph, normalize="sym", self_loops=True)
X = jnp.asarray(TASK.graph.nodes)
SEEDS = jnp.asarray([3, 17, 3, 30])
KEYS = jax.random.split(jax.random.key(0), 3000)


def test_two_hops_are_unbiased():
    @jax.jit
    @jax.vmap
    def estimate(key):
        tree, index = sample_tree(key, A, SEEDS, (3, 2))
        return (tree @ (tree @ X[index]))[:4]

    found, exact = np.asarray(estimate(KEYS)), np.asarray((A @ (A @ X))[SEEDS])
    error = found.std(0) / np.sqrt(len(KEYS))
    assert np.all(np.abs(found.mean(0) - exact) < 5 * error + 1e-6)
    assert found.std() > 0.05  # it does draw


@pytest.mark.long
def test_edges_are_edges_and_shapes_are_static():
    tree, index = sample_tree(KEYS[0], A, SEEDS, (3, 2))
    assert tree.shape == (4 + 12 + 24,) * 2
    assert index.shape == (40,)
    dense = np.asarray(A.todense())
    parents, children = np.asarray(index)[tree.receivers], np.asarray(index)[tree.senders]
    assert np.all(dense[parents, children] > 0)
    np.testing.assert_array_equal(tree.receivers, np.repeat(np.arange(16), [3] * 4 + [2] * 12))
    np.testing.assert_array_equal(np.asarray(tree.T.todense()), np.asarray(tree.todense()).T)
    close = np.testing.assert_allclose
    x = jnp.asarray(np.random.default_rng(0).standard_normal((40, 3), np.float32))
    close(tree @ x, np.asarray(tree.todense()) @ x, rtol=1e-5, atol=1e-5)
    close(tree.T @ x, np.asarray(tree.todense()).T @ x, rtol=1e-5, atol=1e-5)


@pytest.mark.long
def test_rows_with_one_nonzero_are_exact_and_rows_without_are_zero():
    chain = from_coo(np.arange(1, 5), np.arange(4), np.full(4, 0.5, np.float32), shape=(5, 5))
    x = jnp.arange(5.0)[:, None]
    tree, index = sample_tree(KEYS[0], chain, jnp.asarray([0, 2, 4]), (2, 3))
    np.testing.assert_allclose((tree @ (tree @ x[index]))[:3, 0], [0.5, 1.0, 0.0], rtol=1e-6)


@pytest.mark.long
def test_a_network_reads_a_tree_and_the_step_lowers():
    model = from_linen(SGC(num_classes=2))

    def logits(key, a, x, seeds):
        tree, index = sample_tree(key, a, seeds, (3, 2))
        params, state = model.init(key, tree, x[index])
        return model.apply(params, state, tree, x[index])[0].logits[:4]

    jax.export.export(jax.jit(logits), platforms=("cpu", "cuda", "tpu"), disabled_checks=EXPORT_CHECKS)(
        KEYS[0], A, X, SEEDS
    )
    assert logits(KEYS[0], A, X, SEEDS).shape == (4, 2)


def test_refusals():
    with pytest.raises(ValueError, match="positive"):
        sample_tree(KEYS[0], A, SEEDS, (3, 0))
    with pytest.raises(ValueError, match="transposed"):
        sample_tree(KEYS[0], A.T, SEEDS, (3,))
