"""Statistics of graphs against NetworkX and brute force."""

import jraph
import networkx as nx
import numpy as np
import pytest

from jgd.graph import from_adjacency, from_edges
from jgd.metrics import degree_statistics, homophily, spectrum

close = np.testing.assert_allclose


def graph_of(g, weight="weight"):
    return from_adjacency(nx.to_numpy_array(g, weight=weight))


def test_homophily():
    rng = np.random.default_rng(0)
    g = nx.gnp_random_graph(30, 0.2, seed=1)
    for _, _, data in g.edges(data=True):
        data["weight"] = rng.random() + 0.1
    g.add_edge(3, 3, weight=5.0)  # a self loop says nothing
    labels = rng.integers(-1, 3, 30)
    same = total = 0.0
    for u, v, w in g.edges(data="weight"):
        if u != v and labels[u] >= 0 and labels[v] >= 0:
            same, total = same + w * (labels[u] == labels[v]), total + w
    close(homophily(graph_of(g), labels), same / total, rtol=1e-6)


def test_homophily_of_extremes():
    labels = np.asarray([0, 0, 1, 1])

    def between(*pairs):
        senders, receivers = np.asarray(pairs).T
        return from_edges(senders, receivers, num_nodes=4)

    assert homophily(between((0, 1), (3, 2)), labels) == 1
    assert homophily(between((0, 2), (3, 1)), labels) == 0
    assert homophily(between((0, 1), (0, 2)), labels) == 0.5
    assert np.isnan(homophily(between((0, 0)), labels))
    assert np.isnan(homophily(between((0, 1)), np.full(4, -1)))


def test_degrees():
    g = nx.barabasi_albert_graph(40, 3, seed=0)
    degrees = np.asarray([d for _, d in g.degree()], float)
    stats = degree_statistics(graph_of(g))
    close([stats["mean"], stats["std"], stats["max"]], [degrees.mean(), degrees.std(), degrees.max()])
    close(stats["density"], 2 * g.number_of_edges() / 40**2)
    gini = np.abs(degrees[:, None] - degrees).sum() / (2 * 40**2 * degrees.mean())
    close(stats["gini"], gini, rtol=1e-6)


def test_degrees_of_extremes():
    regular = degree_statistics(graph_of(nx.cycle_graph(8)))
    close([regular["mean"], regular["std"], regular["gini"]], [2, 0, 0], atol=1e-9)
    none = np.zeros(0, np.int32)
    empty = degree_statistics(from_edges(none, none, num_nodes=3))
    assert empty == {"mean": 0, "std": 0, "max": 0, "density": 0, "gini": 0}
    # In-degrees: two edges into node 0, whose weights count.
    directed = from_edges(np.asarray([1, 2]), np.asarray([0, 0]), edges=np.asarray([2.0, 3.0]), num_nodes=3)
    assert degree_statistics(directed)["max"] == 5


@pytest.mark.parametrize("size", [40, 600])  # dense, and sparse by Lanczos
def test_spectrum(size):
    g = nx.connected_watts_strogatz_graph(size, 4, 0.3, seed=0)
    values = spectrum(graph_of(g), k=5)
    exact = 1 - np.sort(np.linalg.eigvalsh(nx.normalized_laplacian_matrix(g).toarray()))
    close(values, exact[:5], atol=1e-6)
    close(values[0], 1, atol=1e-6)


def test_spectrum_of_extremes():
    close(spectrum(graph_of(nx.complete_graph(4)), k=16), [1, -1 / 3, -1 / 3, -1 / 3], atol=1e-9)
    isolated = nx.path_graph(2)
    isolated.add_node(2)
    close(spectrum(graph_of(isolated)), [1, 0, -1], atol=1e-9)
    # Edges in one direction count half in each.
    one_way = from_edges(np.asarray([0]), np.asarray([1]), num_nodes=2)
    assert isinstance(one_way, jraph.GraphsTuple)
    close(spectrum(one_way), [1, -1], atol=1e-9)
