"""Padded batches: the padding changes no result, and few programs are compiled."""

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import pytest

from jgd.graph import (
    Budget,
    batches,
    budget_for,
    from_edges,
    graph_ids,
    node_mask,
    operator,
    pad,
    pool,
    sparse_features,
)


def random_graph(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 12))
    e = int(rng.integers(0, 25))
    x = rng.standard_normal((n, 3)).astype(np.float32)
    return from_edges(rng.integers(0, n, e), rng.integers(0, n, e), x, rng.random(e).astype(np.float32))


GRAPHS = [random_graph(seed) for seed in range(60)]
W = np.sin(np.arange(12.0) ** 2).reshape(3, 4)


def network(graph, how):
    """Two propagations, and a bias that makes padding nodes nonzero."""
    a = operator(graph, normalize="sym", self_loops=True)
    return pool(jnp.tanh(a @ jnp.tanh(a @ graph.nodes @ jnp.asarray(W, jnp.float32) + 1.0)), graph, how)


def reference(graph, how):
    a = np.eye(len(graph.nodes))
    np.add.at(a, (graph.receivers, graph.senders), graph.edges)
    a = a / np.sqrt(a.sum(1))[:, None] / np.sqrt(a.sum(0))
    return getattr(np, how)(np.tanh(a @ np.tanh(a @ graph.nodes @ W + 1.0)), axis=0)


def is_power_of_two(n):
    return n & (n - 1) == 0


def test_budgets():
    for size in (1, 3, 8):
        for start in range(0, 24, size):
            members = GRAPHS[start : start + size]
            budget = budget_for(members, size)
            nodes = sum(len(g.nodes) for g in members)
            edges = sum(len(g.senders) for g in members)
            assert is_power_of_two(budget.n_node)
            assert nodes < budget.n_node <= 2 * nodes + 2
            assert is_power_of_two(budget.n_edge)
            assert edges <= budget.n_edge <= max(2 * edges, 1)
            assert budget.n_graph == size + 1
    assert budget_for(GRAPHS[:5]).n_graph == 6


def test_pad_and_unpad():
    members = GRAPHS[:7]
    padded = pad(members, budget_for(members, 9))
    back = jraph.unbatch_np(jraph.unpad_with_graphs(padded))
    assert len(back) == 7
    for a, b in zip(members, back, strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)
    assert padded.n_node.shape == (10,)


def test_too_small_budgets():
    members = GRAPHS[:3]
    nodes, edges = sum(len(g.nodes) for g in members), sum(len(g.senders) for g in members)
    pad(members, Budget(nodes + 1, edges, 4))
    for budget in (Budget(nodes, edges, 4), Budget(nodes + 1, edges - 1, 4), Budget(nodes + 1, edges, 3)):
        with pytest.raises(ValueError, match="do not fit"):
            pad(members, budget)
    sparse = members[0]._replace(nodes=sparse_features(members[0].nodes))
    with pytest.raises(TypeError, match="must be dense"):
        pad([sparse], Budget(64, 64, 2))


@pytest.mark.long
def test_results_equal_those_of_single_graphs_with_few_compilations():
    compiled = []

    @jax.jit
    def run(graph):
        compiled.append(graph.nodes.shape)
        return {how: network(graph, how) for how in ("sum", "mean", "max")}, node_mask(graph)

    order = np.random.default_rng(0).permutation(len(GRAPHS))[:58]
    seen = []
    for batch, index in batches(GRAPHS, 8, order):
        pooled, mask = run(batch)
        real = index >= 0
        assert len(index) == 8
        assert int(mask.sum()) == sum(len(GRAPHS[i].nodes) for i in index[real])
        for how, values in pooled.items():
            expected = [reference(GRAPHS[i], how) for i in index[real]]
            np.testing.assert_allclose(values[:8][real], expected, atol=1e-5)
            assert np.isfinite(values).all()
        seen += index[real].tolist()
    assert seen == order.tolist()
    assert len(compiled) <= 4
    assert len(list(batches(GRAPHS, 7))) == 9


def test_ids_and_masks_of_a_batch_that_is_not_full():
    members = GRAPHS[:2]
    padded = pad(members, budget_for(members, 5))
    nodes = [len(g.nodes) for g in members]
    ids, mask = jax.jit(lambda g: (graph_ids(g), node_mask(g)))(padded)
    real = np.repeat([0, 1], nodes)
    np.testing.assert_array_equal(ids[: len(real)], real)
    np.testing.assert_array_equal(mask, np.arange(len(padded.nodes)) < len(real))
    np.testing.assert_array_equal(mask, jraph.get_node_padding_mask(padded))
    named = padded._replace(nodes={"x": padded.nodes})
    np.testing.assert_array_equal(jax.jit(node_mask)(named), mask)
    np.testing.assert_array_equal(node_mask(padded._replace(nodes=None)), mask)


def test_gradients_ignore_padding():
    members = GRAPHS[:3]
    count = sum(len(g.nodes) for g in members)

    @jax.jit
    def gradients(graph):
        def loss(x, how):
            return jnp.sum(network(graph._replace(nodes=x), how)[:3] ** 2)

        return [jax.grad(loss)(graph.nodes, how) for how in ("sum", "mean", "max")]

    padded = [pad(members, Budget(nodes, 128, 4 + nodes // 64)) for nodes in (64, 128)]
    for small, large in zip(*map(gradients, padded), strict=True):
        np.testing.assert_allclose(small[:count], large[:count], rtol=1e-5, atol=1e-6)
        assert not large[count:].any()
