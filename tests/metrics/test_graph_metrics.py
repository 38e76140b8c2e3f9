"""Statistics of graphs against NetworkX and brute force."""

from dataclasses import replace

import jax
import jraph
import networkx as nx
import numpy as np
import pytest

import jgd
from jgd.data import contextual_sbm
from jgd.graph import from_adjacency, from_edges
from jgd.metrics import (
    clustering_coefficient,
    davies_bouldin,
    degree_statistics,
    graph_properties,
    homophily,
    property_preservation,
    spectrum,
)

close = np.testing.assert_allclose
TASK = contextual_sbm(num_nodes=90, num_classes=3, num_features=6, mean_degree=6, signal=2.0)


def graph_of(g, weight="weight"):
    return from_adjacency(nx.to_numpy_array(g, weight=weight))


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


# --- properties of condensed graphs ---------------------------------------------------------------


def weighted_graph(size=40, seed=3):
    rng = np.random.default_rng(seed)
    g = nx.gnp_random_graph(size, 0.25, seed=seed)
    for _, _, data in g.edges(data=True):
        data["weight"] = rng.random() + 0.1
    return g


def test_clustering_coefficient():
    g = weighted_graph()
    for chunk_size in (7, 2048):
        found = clustering_coefficient(graph_of(g), chunk_size=chunk_size)
        close(found, nx.average_clustering(g, weight="weight"), rtol=1e-6)
    close(clustering_coefficient(graph_of(g, weight=None)), nx.average_clustering(g), rtol=1e-6)
    g.add_edge(0, 0, weight=9.0)
    g.remove_edges_from(nx.selfloop_edges(g))
    looped = nx.to_numpy_array(g) + 9 * np.eye(40)
    close(
        clustering_coefficient(from_adjacency(looped)), nx.average_clustering(g, weight="weight"), rtol=1e-6
    )
    one_way = np.triu(nx.to_numpy_array(g))
    close(
        clustering_coefficient(from_adjacency(one_way)), nx.average_clustering(g, weight="weight"), rtol=1e-6
    )
    assert clustering_coefficient(graph_of(nx.complete_graph(5))) == pytest.approx(1)
    assert clustering_coefficient(graph_of(nx.star_graph(5))) == 0
    none = np.zeros(0, np.int32)
    assert clustering_coefficient(from_edges(none, none, num_nodes=3)) == 0


def test_davies_bouldin():
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    x = 5 * np.eye(3, 4)[labels] + rng.standard_normal((30, 4))
    means = np.stack([x[labels == c].mean(0) for c in range(3)])
    inner = [np.linalg.norm(x[labels == c] - means[c], axis=1).mean() for c in range(3)]
    ratio = np.asarray(
        [
            [0 if i == j else (inner[i] + inner[j]) / np.linalg.norm(means[i] - means[j]) for j in range(3)]
            for i in range(3)
        ]
    )
    close(davies_bouldin(x, labels), ratio.max(1).mean(), rtol=1e-9)
    unknown = np.append(labels, [-1, -1])
    close(davies_bouldin(np.concatenate([x, 1e3 * x[:2]]), unknown), ratio.max(1).mean(), rtol=1e-9)
    assert davies_bouldin(3 * x, labels) < davies_bouldin(x + 3 * rng.standard_normal(x.shape), labels)
    for few in (np.zeros(30, int), np.full(30, -1), np.arange(30)):
        assert np.isnan(davies_bouldin(x, few))


def test_properties_against_networkx():
    g = weighted_graph()
    labels = np.arange(40) % 3
    x = np.random.default_rng(1).standard_normal((40, 5)).astype(np.float32)
    a = nx.to_numpy_array(g)
    found = graph_properties(from_adjacency(a, x), labels)
    close(found["density"], nx.density(g))
    close(found["adjacency_eigenvalue"], np.linalg.eigvalsh(a)[-1], rtol=1e-6)
    close(found["laplacian_eigenvalue"], np.linalg.eigvalsh(nx.laplacian_matrix(g).toarray())[-1], rtol=1e-6)
    normal = nx.normalized_laplacian_matrix(g).toarray()
    close(found["normalized_eigenvalue"], np.linalg.eigvalsh(normal)[-1], rtol=1e-6)
    close(found["homophily"], homophily(from_adjacency(a), labels))
    close(found["clustering"], nx.average_clustering(g, weight="weight"), rtol=1e-6)
    loops = a + np.eye(40)
    hat = loops / np.sqrt(loops.sum(1)[:, None] * loops.sum(1))
    close(found["davies_bouldin"], davies_bouldin(x, labels))
    close(found["davies_bouldin_propagated"], davies_bouldin(hat @ hat @ x, labels), rtol=1e-5)
    # The same graph, stored with its normalised weights, propagates in the same way.
    stored = graph_properties(from_adjacency(hat.astype(np.float32), x), labels, normalized=True)
    close(stored["davies_bouldin_propagated"], found["davies_bouldin_propagated"], rtol=1e-4)
    close(stored["density"], found["density"])
    with pytest.raises(ValueError, match="no node features"):
        graph_properties(from_adjacency(a), labels)


def test_preservation():
    key = jax.random.key(0)
    chosen = jgd.condense.degree(label_ratio=1.0)(key, TASK)
    pairs = property_preservation(TASK, chosen)
    part = TASK.induced(TASK.train)
    for name, value in graph_properties(part.graph, part.labels).items():
        close(pairs[name][1], value, rtol=1e-5, err_msg=name)
    for name, value in graph_properties(TASK.graph, TASK.labels).items():
        assert pairs[name][0] == value
    # Of an inductive task, the condenser sees the training nodes only: choosing all of them keeps everything.
    inductive = replace(TASK, setting="inductive")
    for before, after in property_preservation(inductive, chosen).values():
        close(before, after, rtol=1e-5)


def test_preservation_without_edges():
    flat = jgd.condense.average(label_ratio=0.5)(jax.random.key(0), TASK)
    soft = replace(flat, targets=np.eye(3, dtype=np.float32)[flat.targets])
    drawn = replace(flat, data=from_adjacency(np.eye(len(flat.targets)), flat.data.nodes))
    for small in (flat, soft, drawn):
        after = {name: pair[1] for name, pair in property_preservation(TASK, small).items()}
        for name in ("density", "adjacency_eigenvalue", "laplacian_eigenvalue", "normalized_eigenvalue"):
            assert after[name] == 0
        assert after["clustering"] == 0
        assert np.isnan(after["homophily"])
        assert after["davies_bouldin"] == pytest.approx(after["davies_bouldin_propagated"])
