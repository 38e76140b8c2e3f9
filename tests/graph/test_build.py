"""Builders and their checks."""

import ml_dtypes
import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from jgd.graph import (
    adjacency,
    coalesce,
    from_adjacency,
    from_edges,
    induced_subgraph,
    knn_graph,
    operator,
    remove_self_loops,
    sparse_features,
    to_undirected,
    validate,
)

ints = np.asarray
X = np.arange(8.0, dtype=np.float32).reshape(4, 2)


def graph(**changes):
    return from_edges(ints([0, 1, 2]), ints([1, 2, 0]), X, np.ones(3, np.float32))._replace(**changes)


def spoiled(array, value):
    array = array.copy()
    array[1] = value
    return array


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"senders": ints([0, 1, 4])}, r"senders\[2\] is 4, but indices run from 0 to 3"),
        ({"receivers": ints([0, -1, 2])}, r"receivers\[1\] is -1"),
        ({"senders": ints([0.0, 1.0, 2.0])}, "senders must be a vector of integers, got float64"),
        ({"receivers": ints([[0], [1], [2]])}, r"receivers must be a vector of integers, got .* \(3, 1\)"),
        ({"senders": None}, "senders must be a vector of integers"),
        ({"senders": ints([0, 1])}, "2 senders, but 3 receivers"),
        ({"n_node": ints([5])}, "n_node adds up to 5, but there are 4"),
        ({"n_edge": ints([2])}, "n_edge adds up to 2, but there are 3"),
        ({"nodes": np.zeros((0, 2))}, "no nodes"),
        ({"nodes": spoiled(X, np.nan)}, "nodes holds NaN or infinity, first in row 1"),
        ({"nodes": spoiled(X, np.inf)}, "nodes holds NaN or infinity"),
        ({"nodes": spoiled(X, np.nan).astype(ml_dtypes.bfloat16)}, "nodes holds NaN"),
        ({"nodes": {"a": X, "b": X[:3]}}, r"nodes has shape \(3, 2\), but needs 4 rows"),
        ({"edges": spoiled(np.ones(3), np.nan)}, "edges holds NaN or infinity, first in row 1"),
        ({"edges": np.ones(4)}, r"edges has shape \(4,\), but needs 3 rows"),
        ({"edges": {"weight": np.ones(3), "feature": np.ones((2, 2))}}, "needs 3 rows"),
    ],
)
def test_unsound_graphs(changes, message):
    with pytest.raises(ValueError, match=message):
        validate(graph(**changes))


def test_unsound_arguments():
    plain = from_edges.__wrapped__  # unchecked, as where no hook is installed
    with pytest.raises(ValueError, match="needs num_nodes"):
        from_edges(ints([0]), ints([0]))
    with pytest.raises(ValueError, match="no nodes"):
        from_edges(np.zeros(0, int), np.zeros(0, int), num_nodes=0)
    with pytest.raises(ValueError, match="n_node adds up to 5, but there are 4"):
        from_edges(ints([0]), ints([1]), X, num_nodes=5)
    with pytest.raises(ValueError, match="integers"):
        plain(ints([0.5]), ints([1]), X)
    with pytest.raises(ValueError, match="2 senders, but 1 receivers"):
        plain(ints([0, 1]), ints([1]), X)
    with pytest.raises(ValueError, match=r"senders\[0\] is 4294967297"):
        from_edges(ints([2**32 + 1]), ints([1]), X)
    bad = sparse_features(X)
    with pytest.raises(ValueError, match="nodes holds NaN"):
        from_edges(ints([0]), ints([1]), bad.with_values(bad.values * np.nan))


def test_sound_graphs():
    """Isolated nodes, repeated edges, self loops and no edges at all."""
    g = from_edges(ints([0, 0, 1]), ints([1, 1, 1]), num_nodes=3)
    assert g.senders.dtype == np.int32
    np.testing.assert_array_equal(adjacency(g).toarray(), [[0, 0, 0], [2, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(operator(g).todense(), adjacency(g).toarray())
    empty = from_edges(np.zeros(0, int), np.zeros(0, int), num_nodes=2)
    assert adjacency(empty).nnz == 0
    assert from_edges.__wrapped__([], [], num_nodes=2).senders.dtype == np.int32
    for clean in (coalesce, to_undirected, remove_self_loops):
        assert len(clean(empty).senders) == 0
    with pytest.raises(ValueError, match="give one graph"):
        remove_self_loops(g._replace(n_node=ints([1, 2]), n_edge=ints([3, 0])))


edge_lists = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(1, 9)), max_size=15)


@given(edge_lists)
@settings(max_examples=60, deadline=None, database=None)
def test_cleaning_equals_dictionaries(edges):
    s, r, w = (ints([e[i] for e in edges], dtype=t) for i, t in ((0, int), (1, int), (2, np.float32)))
    g = from_edges(s, r, edges={"weight": w, "id": np.arange(len(s))}, num_nodes=5)

    def check(result, expected):
        assert {
            (i, j): x for i, j, x in zip(result.senders, result.receivers, result.edges["weight"])
        } == expected
        assert len(result.senders) == len(expected)
        assert validate(result) is result
        order = result.receivers.astype(int) * 5 + result.senders
        return np.all(np.diff(order) > 0)

    first, total, largest, undirected = {}, {}, {}, {}
    for i, j, x in edges:
        first.setdefault((i, j), x)
        total[i, j] = total.get((i, j), 0) + x
        largest[i, j] = max(largest.get((i, j), 0), x)
        for pair in ((i, j), (j, i)):
            undirected[pair] = max(undirected.get(pair, 0), x)
    assert check(coalesce(g), first)
    assert check(coalesce(g, "sum"), total)
    assert check(coalesce(g, "max"), largest)
    assert check(to_undirected(g), undirected)
    kept = remove_self_loops(g)
    assert list(kept.edges["id"]) == [n for n, (i, j, _) in enumerate(edges) if i != j]

    matrix = adjacency(g)
    dense = np.zeros((5, 5))
    np.add.at(dense, (r, s), w)
    np.testing.assert_array_equal(matrix.toarray(), dense)
    for source in (matrix, dense, sp.coo_matrix(dense)):
        back = from_adjacency(source)
        assert len(back.senders) == np.count_nonzero(dense)
        np.testing.assert_array_equal(adjacency(back).toarray(), dense)
    index = ints([3, 0, 4])
    small = induced_subgraph(g, index)
    np.testing.assert_array_equal(adjacency(small).toarray(), dense[np.ix_(index, index)])


def test_unweighted_graphs_stay_unweighted():
    g = from_edges(ints([0, 0, 1]), ints([1, 1, 0]), X)
    for clean in (coalesce, to_undirected, remove_self_loops):
        assert clean(g).edges is None
    assert len(coalesce(g).senders) == len(to_undirected(g).senders) == 2


def test_adjacency_agrees_with_networkx():
    ours = to_undirected(from_edges(ints([0, 1, 3]), ints([1, 2, 3]), X))
    theirs = nx.Graph([(0, 1), (1, 2), (3, 3)])
    np.testing.assert_array_equal(adjacency(ours).toarray(), nx.to_numpy_array(theirs, nodelist=range(4)))


def test_from_adjacency_refuses_rectangles_and_keeps_the_input():
    with pytest.raises(ValueError, match="square"):
        from_adjacency(sp.csr_array(np.ones((2, 3))))
    stored = sp.coo_array(([0.0, 2.0], ([0, 1], [1, 0])), shape=(2, 2))
    assert len(from_adjacency(stored, nodes=X[:2]).senders) == 1
    assert stored.nnz == 2
    with pytest.raises(ValueError, match="n_node"):
        from_adjacency(stored, nodes=X)


def test_induced_subgraph():
    g = graph(globals={"y": ints([7])}, edges={"weight": ints([1.0, 2.0, 3.0])})
    small = induced_subgraph(g, ints([2, 1]))
    np.testing.assert_array_equal(small.nodes, X[[2, 1]])
    np.testing.assert_array_equal(small.senders, [1])
    np.testing.assert_array_equal(small.receivers, [0])
    np.testing.assert_array_equal(small.edges["weight"], [2.0])
    assert small.globals == g.globals
    with pytest.raises(ValueError, match=r"index\[0\] is -1"):
        induced_subgraph(g, ints([-1, 0]))
    with pytest.raises(ValueError, match="twice"):
        induced_subgraph(g, ints([1, 1]))
    with pytest.raises(ValueError, match="no nodes"):
        induced_subgraph(g, np.zeros(0, int))
    with pytest.raises(TypeError, match="dense node features"):
        induced_subgraph(g._replace(nodes=sparse_features(X)), ints([0]))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_knn_equals_brute_force(metric):
    x = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    wide = x.astype(np.float64)
    unit = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    distance = 1 - unit @ unit.T if metric == "cosine" else np.linalg.norm(wide[:, None] - wide, axis=-1)
    np.fill_diagonal(distance, np.inf)
    expected = np.zeros((20, 20))
    for i, row in enumerate(distance):
        expected[i, np.argsort(row)[:4]] = 1  # edges run from the neighbour to the point
    directed = knn_graph(x, 4, metric=metric, symmetric=False)
    np.testing.assert_array_equal(adjacency(directed).toarray(), expected)
    np.testing.assert_array_equal(
        adjacency(knn_graph(x, 4, metric=metric)).toarray(), np.maximum(expected, expected.T)
    )
    np.testing.assert_array_equal(directed.nodes, x)


def test_knn_of_equal_points_and_bad_input():
    same = knn_graph(np.ones((4, 2)), 2)
    assert not adjacency(same).diagonal().any()
    assert adjacency(knn_graph(X, 3)).nnz == 12
    for k in (0, 4, -1):
        with pytest.raises(ValueError, match="k must be between 1 and 3 for 4 points"):
            knn_graph(X, k)
    with pytest.raises(ValueError, match="NaN"):
        knn_graph(spoiled(X, np.nan), 1)
