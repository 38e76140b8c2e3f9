"""Loops that a graph has already, and weights below zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp

from jgd.graph import from_edges, identity, operator
from jgd.nn import GAT

SENDERS = np.asarray([0, 1, 1, 2, 2, 0])
RECEIVERS = np.asarray([1, 0, 1, 2, 2, 2])  # one loop of node 1, two of node 2, none of nodes 0 and 3
WEIGHTS = np.asarray([1.0, 2.0, 0.5, 0.25, 0.75, 3.0], np.float32)
GRAPH = from_edges(SENDERS, RECEIVERS, edges=WEIGHTS, num_nodes=4)
MATRIX = np.zeros((4, 4), np.float32)
np.add.at(MATRIX, (RECEIVERS, SENDERS), WEIGHTS)
FILLED = MATRIX + np.diag([1.0, 0, 0, 1])


def traced_edges(f, graph):
    """``f`` of a graph whose edges and weights are traced."""

    def inside(senders, receivers, edges):
        return f(graph._replace(senders=senders, receivers=receivers, edges=edges))

    return jax.jit(inside)(graph.senders, graph.receivers, graph.edges)


def test_remaining_loops():
    for source in (GRAPH, MATRIX, sp.csr_array(MATRIX)):
        np.testing.assert_allclose(operator(source, self_loops="remaining").todense(), FILLED, rtol=1e-6)
    a = operator(GRAPH, self_loops="remaining")
    assert int((a.senders == a.receivers).sum()) == 4  # one of each node, even of node 2
    traced = traced_edges(lambda g: operator(g, self_loops="remaining").todense(), GRAPH)
    np.testing.assert_allclose(traced, FILLED, rtol=1e-6)
    sym = operator(GRAPH, normalize="sym", self_loops="remaining").todense()
    d_in, d_out = FILLED.sum(1), FILLED.sum(0)
    np.testing.assert_allclose(sym, FILLED / np.sqrt(d_in[:, None] * d_out[None]), rtol=1e-5)
    np.testing.assert_array_equal(operator(identity(3), self_loops="remaining").values, np.ones(3))


@pytest.mark.long
def test_attention_counts_a_loop_once():
    """GAT is the same on a graph with its loops, without them, with one of weight 0, sparse and dense."""
    ends = np.asarray([[0, 1], [1, 0], [1, 2], [2, 1], [3, 0]])
    loops = np.stack([np.arange(4)] * 2, 1)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5)), jnp.float32)
    net = GAT(num_classes=2, hidden=8, heads=2)
    bare = operator(from_edges(*ends.T, x), **net.adjacency)
    variables = net.init(jax.random.key(0), bare, x)
    expected = net.apply(variables, bare, x).logits
    graphs = [from_edges(*np.concatenate([ends, *[loops] * times]).T, x) for times in (1, 2)]
    void = from_edges(*np.append(ends, [[3, 1]], 0).T, x, np.asarray([1, 1, 1, 1, 1, 0], np.float32))
    dense = np.zeros((4, 4), np.float32)
    dense[ends[:, 1], ends[:, 0]] = 1
    for graph in (*graphs, void, dense):
        found = net.apply(variables, operator(graph, **net.adjacency), x).logits
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    inside = traced_edges(lambda g: net.apply(variables, operator(g, **net.adjacency), x).logits, graphs[1])
    np.testing.assert_allclose(inside, expected, rtol=1e-5, atol=1e-6)


SIGNED = from_edges(
    np.arange(3), np.asarray([1, 2, 0]), edges=np.asarray([1.0, -2.0, 0.5], np.float32), num_nodes=3
)


@pytest.mark.parametrize("how", ["sym", "row", "col"])
def test_negative_weights(how):
    dense = operator(SIGNED).todense()
    for source in (SIGNED, dense, sp.csr_array(np.asarray(dense))):
        with pytest.raises(ValueError, match="the edge from 1 to 2 has the weight -2"):
            operator(source, normalize=how)
        found = operator(source, normalize=how, negative="absolute").todense()
        absolute = operator(jnp.abs(dense), normalize=how).todense()
        np.testing.assert_allclose(found, absolute * np.sign(dense), rtol=1e-6)
    kept = operator(SIGNED, normalize="row", negative="keep").todense()
    np.testing.assert_array_equal(kept[2], np.zeros(3))
    assert operator(SIGNED).values.min() < 0
    inside = traced_edges(lambda g: operator(g, normalize=how, negative="absolute").todense(), SIGNED)
    np.testing.assert_allclose(inside, found, rtol=1e-6)
