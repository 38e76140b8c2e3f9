import sys
import types
from types import SimpleNamespace

import jraph
import networkx as nx
import numpy as np
import pytest

from jgd.data import (
    Condensed,
    DataError,
    NodeTask,
    contextual_sbm,
    from_networkx,
    from_ogb,
    from_pyg,
    to_networkx,
    to_pyg,
)
from jgd.graph import adjacency, edge_weights, from_edges, sparse_features


def task(directed=False):
    base = contextual_sbm(0, num_nodes=30, num_features=4)
    graph = base.graph
    if directed:
        graph = from_edges(graph.senders[::2], graph.receivers[::2], graph.nodes)
    weights = np.linspace(0.5, 2, len(graph.senders)).astype(np.float32)
    if not directed:
        weights = 1 + ((graph.senders + graph.receivers) % 7).astype(np.float32)
    return NodeTask(
        graph=graph._replace(edges=weights),
        labels=base.labels,
        train=base.train,
        val=base.val,
        test=base.test,
        num_classes=base.num_classes,
        directed=directed,
    )


def assert_same(a, b):
    np.testing.assert_array_equal(adjacency(a.graph).toarray(), adjacency(b.graph).toarray())
    for name in ("labels", "train", "val", "test"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    np.testing.assert_array_equal(a.graph.nodes, b.graph.nodes)
    assert (a.num_classes, a.directed) == (b.num_classes, b.directed)


@pytest.mark.parametrize("directed", [False, True])
def test_networkx_round_trip(directed):
    before = task(directed)
    graph = to_networkx(before)
    assert graph.is_directed() == directed
    assert graph.number_of_edges() == len(before.graph.senders) // (1 if directed else 2)
    s, r = int(before.graph.senders[3]), int(before.graph.receivers[3])
    assert graph.edges[s, r]["weight"] == before.graph.edges[3]
    assert_same(before, from_networkx(graph))


def test_networkx_of_other_things():
    plain = from_networkx(nx.karate_club_graph(), weight="none")
    assert plain.graph.nodes is None
    assert plain.graph.edges is None
    assert len(plain.graph.senders) == 2 * 78
    assert (plain.labels == -1).all()
    assert (plain.num_classes, plain.train, plain.directed) == (0, None, False)
    names = nx.DiGraph([("a", "b"), ("b", "b")])
    nx.set_node_attributes(names, {"b": 2}, "club")
    named = from_networkx(names, labels="club")
    np.testing.assert_array_equal(named.labels, [-1, 0])
    assert named.class_names == (2,)
    np.testing.assert_array_equal(named.graph.receivers, [1, 1])
    assert named.directed
    names.nodes["a"]["x"] = [1.0]
    with pytest.raises(DataError, match="only 1 of 2 nodes"):
        from_networkx(names)
    empty = from_networkx(nx.empty_graph(3))
    assert len(empty.graph.senders) == 0


def test_sources_of_to_networkx():
    base = task()
    assert to_networkx(base.graph, directed=True).is_directed()
    condensed = Condensed(data=base.graph, targets=np.eye(4, dtype=np.float32)[base.labels])
    np.testing.assert_array_equal(to_networkx(condensed).nodes[0]["y"], np.eye(4)[base.labels[0]])
    sparse = base.graph._replace(nodes=sparse_features(base.graph.nodes))
    np.testing.assert_allclose(to_networkx(sparse).nodes[1]["x"], base.graph.nodes[1])
    with pytest.raises(DataError, match="not one graph"):
        to_networkx(Condensed(data=np.ones((2, 2)), targets=np.ones(2)))


class Tensor:
    """As much of a tensor as conversion needs."""

    def __init__(self, array):
        self.array = array

    def detach(self):
        return self

    def cpu(self):
        return self

    def numpy(self):
        return self.array


@pytest.fixture
def fake_pyg(monkeypatch):
    torch, pyg, data = (types.ModuleType(n) for n in ("torch", "torch_geometric", "torch_geometric.data"))
    torch.from_numpy = Tensor
    data.Data = types.SimpleNamespace
    for module in (torch, pyg, data):
        monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.mark.parametrize("directed", [False, True])
def test_pyg_round_trip(fake_pyg, directed):
    before = task(directed)
    data = to_pyg(before)
    assert data.edge_index.array.dtype == data.y.array.dtype == np.int64
    assert data.edge_index.array.shape == (2, len(before.graph.senders))
    assert data.num_nodes == 30
    assert_same(before, from_pyg(data))


def test_pyg_needs_an_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"jgd\[pyg\]"):
        to_pyg(task())


def test_pyg_with_many_splits_and_edge_features():
    mask = np.array([[True, False], [False, True]])
    index = np.array([[0, 1], [1, 0]])
    data = types.SimpleNamespace(
        edge_index=index, edge_attr=np.ones((2, 3)), num_nodes=2, train_mask=mask, y=np.array([[1], [0]])
    )
    result = from_pyg(data, split=1)
    np.testing.assert_array_equal(result.train, [False, True])
    np.testing.assert_array_equal(result.labels, [1, 0])
    assert result.graph.edges["feature"].shape == (2, 3)
    assert not result.directed
    data.edge_attr = np.array([[2.0], [3.0]])
    np.testing.assert_array_equal(from_pyg(data).graph.edges, [2, 3])
    data.edge_index = None
    with pytest.raises(DataError, match="edge_index"):
        from_pyg(data)


def test_ogb():
    graph = {
        "edge_index": np.array([[0, 1, 2], [1, 2, 0]]),
        "node_feat": np.ones((4, 2), np.float32),
        "edge_feat": None,
        "num_nodes": 4,
    }
    split = {"train": np.array([0, 2]), "valid": np.array([1]), "test": np.array([], np.int64)}
    result = from_ogb(graph, np.array([[0.0], [3.0], [1.0], [np.nan]]), split, name="arxiv")
    np.testing.assert_array_equal(result.labels, [0, 2, 1, -1])
    assert result.class_names == (0, 1, 3)
    np.testing.assert_array_equal(result.train, [True, False, True, False])
    assert not result.test.any()
    assert (result.num_classes, result.directed, result.name) == (3, True, "arxiv")
    many = from_ogb({**graph, "edge_feat": np.ones((3, 8))}, np.ones((4, 5)))
    assert (many.num_classes, many.labels.shape, many.train) == (5, (4, 5), None)
    assert many.graph.edges["feature"].shape == (3, 8)
    with pytest.raises(DataError, match="num_nodes"):
        from_ogb({"edge_index": graph["edge_index"]}, np.ones((4, 1)))
    with pytest.raises(DataError, match="labels for"):
        from_ogb(graph, np.ones((5, 1)))
    assert isinstance(many.graph, jraph.GraphsTuple)


# --- what other libraries leave open ------------------------------------------------------------


def pyg(**fields):
    given = {"x": np.eye(4), "edge_index": np.array([[0, 1, 2], [1, 2, 0]]), "y": np.array([0, 1, 1, 0])}
    return SimpleNamespace(**{**given, **fields})


@pytest.mark.parametrize(
    "kinds", [np.array([[0], [0], [1]]), np.array([0, 0, 1]), np.array([False, False, True])]
)
def test_integers_at_edges_are_kinds(kinds):
    """A kind of 0 removes no edge."""
    for graph in (
        from_pyg(pyg(edge_attr=kinds)).graph,
        from_ogb({"edge_index": pyg().edge_index, "edge_feat": kinds, "num_nodes": 4}, pyg().y).graph,
    ):
        np.testing.assert_array_equal(graph.edges["feature"], kinds)
        assert graph.edges["feature"].dtype == np.int32
        assert edge_weights(graph) is None
    weighted = from_pyg(pyg(edge_attr=kinds.astype(np.float32))).graph
    np.testing.assert_array_equal(edge_weights(weighted), kinds.reshape(-1))


def test_masks_of_pyg():
    rows = from_pyg(pyg(train_mask=np.array([0, 3])))
    np.testing.assert_array_equal(rows.train, [True, False, False, True])
    splits = np.array([[1, 0], [0, 1], [0, 1], [0, 0]])
    np.testing.assert_array_equal(from_pyg(pyg(train_mask=splits), split=1).train, splits[:, 1] == 1)
    for bad, split, said in (
        ([0, 4], 0, "train\\[1\\] is 4"),
        (splits, 2, "2 splits"),
        ([0, 0, 1], 0, "twice"),
    ):
        with pytest.raises(DataError, match=said):
            from_pyg(pyg(train_mask=np.asarray(bad)), split=split)


def test_targets_of_pyg():
    fractions = from_pyg(pyg(y=np.array([0.3, 1.7, 2.2, -0.4])))
    assert (fractions.target_kind, fractions.num_classes) == ("regression", 0)
    np.testing.assert_allclose(fractions.labels, [0.3, 1.7, 2.2, -0.4])
    from_one = from_pyg(pyg(y=np.array([[1.0], [2.0], [3.0], [np.nan]])))
    np.testing.assert_array_equal(from_one.labels, [0, 1, 2, -1])
    assert from_one.class_names == (1, 2, 3)
    assert from_pyg(pyg(y=None)).target_kind == "none"
    for change, said in (
        ({"edge_index": np.zeros((3, 2), int)}, "edges are"),
        ({"x": None}, "num_nodes"),
        ({"x": np.full((4, 2), np.nan)}, "first in row 0"),
        ({"edge_index": np.array([[0, 1], [1, 9]])}, "receivers.1. is 9"),
        ({"y": np.zeros(3, int)}, "3 labels for 4 nodes"),
    ):
        with pytest.raises(ValueError, match=said):
            from_pyg(pyg(**change))


def test_words_and_gaps_of_networkx():
    """Zachary's karate club, the first graph that anyone tries."""
    club = nx.karate_club_graph()
    task = from_networkx(club, labels="club")
    assert (task.class_names, task.num_classes) == (("Mr. Hi", "Officer"), 2)
    np.testing.assert_array_equal(task.labels, [d["club"] == "Officer" for _, d in club.nodes(data=True)])
    nx.set_node_attributes(club, {0: 0, 1: None, 2: 1}, "y")
    nx.set_node_attributes(club, {i: int(i < 3) for i in club}, "train_mask")
    gaps = from_networkx(club)
    np.testing.assert_array_equal(gaps.labels[:4], [0, -1, 1, -1])
    assert gaps.train.dtype == bool
    np.testing.assert_array_equal(np.flatnonzero(gaps.labelled()), [0, 2])
