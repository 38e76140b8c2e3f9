"""Batches gathered from one block-diagonal operator, and pooling with a mask."""

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import pytest
from test_batch import GRAPHS

from jgd.graph import (
    SparseOperator,
    adjacency,
    blocks,
    from_edges,
    operator,
    pool,
    segment_pool,
    select_graphs,
    take_blocks,
)

close, equal = np.testing.assert_allclose, np.testing.assert_array_equal
JOINED = jraph.batch_np(GRAPHS)
take = jax.jit(take_blocks, static_argnums=(2, 3))


def dense(graph, **how):
    return np.asarray(operator(graph, **how).todense())


@jax.jit
def seen(a, x):
    """What an operator does: its entries, products, their gradient, and the sum of its attention."""
    softmax = a.with_values(a.softmax(a.values))
    gradient = jax.grad(lambda x: jnp.sum(jnp.sin(a @ x)))(x)
    return a.todense(), a @ x, a.T @ x, gradient, softmax.values, softmax @ jnp.ones((len(x), 1))


@pytest.mark.parametrize("how", [{}, {"normalize": "sym", "self_loops": True}, {"normalize": "row"}])
@pytest.mark.parametrize("index", [[3, 0, 3, 59], [7], [5, -1, 8, -1], [-1]])
def test_take_blocks(how, index):
    """The operator that the graphs would have had alone, with its transpose; padding reaches nobody."""
    whole = blocks(operator(JOINED, **how), JOINED.n_node)
    members = [GRAPHS[i] for i in index if i >= 0]
    real = sum(len(g.nodes) for g in members)
    edges = sum(dense(g, **how).size and operator(g, **how).values.shape[0] for g in members)
    a, node, graph_of = take(whole, jnp.asarray(index), real + 3, edges + 2)
    expected = np.zeros((real + 3, real + 3))
    at = 0
    for g in members:
        expected[at : at + len(g.nodes), at : at + len(g.nodes)] = dense(g, **how)
        at += len(g.nodes)
    x = np.random.default_rng(0).standard_normal((real + 3, 2)).astype(np.float32)
    entries, product, back, gradient, attention, total = seen(a, x)
    close(entries, expected, atol=1e-6)
    close(product, expected @ x, atol=1e-5)
    close(back, expected.T @ x, atol=1e-5)
    close(gradient, expected.T @ np.cos(expected @ x), atol=1e-4)
    owners = np.repeat(np.arange(len(index)), [len(GRAPHS[i].nodes) if i >= 0 else 0 for i in index])
    equal(graph_of, np.append(owners, [len(index)] * 3))
    features = jnp.take(jnp.asarray(JOINED.nodes), node, axis=0, mode="fill", fill_value=0)
    equal(features, np.concatenate([*(g.nodes for g in members), np.zeros((3, 3), np.float32)]))
    assert np.isfinite(attention).all()  # which stays within graphs
    close(total[:real, 0], (expected[:real] != 0).any(1), atol=1e-5)


def test_whole_set_without_padding():
    whole = blocks(operator(JOINED), JOINED.n_node)
    n, e = len(JOINED.nodes), len(JOINED.senders)
    a, node, graph_of = take_blocks(whole, jnp.arange(len(GRAPHS)), n, e)
    equal(node, np.arange(n))
    equal(graph_of, np.repeat(np.arange(len(GRAPHS)), JOINED.n_node))
    for ours, theirs in zip(jax.tree.leaves(a), jax.tree.leaves(whole.a), strict=True):
        equal(ours, theirs)


def test_graphs_without_edges():
    none = np.zeros(0, np.int32)
    lonely = jraph.batch_np([from_edges(none, none, np.ones((2, 1), np.float32)) for _ in range(3)])
    whole = blocks(operator(lonely), lonely.n_node)
    for edges in (0, 2):
        a, node, _ = take(whole, jnp.asarray([2, 0]), 5, edges)
        equal(node, [4, 5, 0, 1, 6])
        equal(a @ jnp.ones((5, 1)), 0)


def test_impossible_blocks():
    a = operator(JOINED)
    with pytest.raises(ValueError, match="the operator has shape"):
        blocks(a, JOINED.n_node[1:])
    ends = np.asarray([0, 1])
    two = jraph.batch_np([from_edges(ends, ends[::-1].copy(), np.ones((2, 1), np.float32))] * 2)
    with pytest.raises(ValueError, match="joins two graphs"):
        blocks(operator(two), np.asarray([1, 3]))
    for wrong in (a.T, a.with_values(a.values[:, None]), operator(np.eye(3, dtype=np.float32))):
        with pytest.raises(ValueError, match="give a sparse operator"):
            blocks(wrong, JOINED.n_node)
    assert isinstance(a, SparseOperator)


def test_select_graphs():
    index = np.asarray([4, 1, 4, 17])
    chosen, expected = select_graphs(JOINED, index), jraph.batch_np([GRAPHS[i] for i in index])
    for name in ("nodes", "edges", "senders", "receivers", "n_node", "n_edge"):
        equal(getattr(chosen, name), getattr(expected, name))
    rich = JOINED._replace(nodes={"x": JOINED.nodes, "code": np.arange(len(JOINED.nodes))}, edges=None)
    some = select_graphs(rich, index)
    assert some.edges is None
    equal(some.nodes["x"], expected.nodes)
    equal(adjacency(some._replace(nodes=expected.nodes)).toarray() != 0, adjacency(expected).toarray() != 0)
    empty = select_graphs(JOINED, np.zeros(0, int))
    assert len(empty.nodes) == len(empty.n_node) == 0
    with pytest.raises(ValueError, match="index must lie"):
        select_graphs(JOINED, np.asarray([60]))


def test_masked_pooling():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((len(JOINED.nodes), 3)).astype(np.float32)
    root = rng.random(len(x)) < 0.5
    owner = np.repeat(np.arange(len(GRAPHS)), JOINED.n_node)
    for how in ("sum", "mean", "max"):
        found = pool(jnp.asarray(x), JOINED, how, root)
        for g in range(len(GRAPHS)):
            mine = x[(owner == g) & root]
            close(found[g], getattr(np, how)(mine, axis=0) if len(mine) else 0, atol=1e-5)
        close(
            pool(jnp.asarray(x), JOINED, how),
            pool(jnp.asarray(x), JOINED, how, np.ones(len(x), bool)),
            atol=1e-6,
        )
    beyond = segment_pool(jnp.ones((4, 1)), jnp.asarray([0, 0, 2, 2]), 2, "sum")
    equal(beyond, [[2.0], [0.0]])
    with pytest.raises((ValueError, TypeError), match=r"pooling|how"):
        segment_pool(jnp.ones((4, 1)), jnp.asarray([0, 0, 1, 1]), 2, "other")
