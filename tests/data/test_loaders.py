"""Every loader on small files of its official format, on damaged files and without files."""

import pickle

import numpy as np
import pytest

from jgd.data import DataError
from jgd.data.cpf import cpf
from jgd.data.planetoid import planetoid
from jgd.data.tu import tu
from jgd.data.webkb import webkb
from jgd.graph import validate


def pairs(graph):
    return sorted(zip(graph.senders.tolist(), graph.receivers.tolist(), strict=True))


@pytest.mark.parametrize("name", ["cora", "citeseer", "pubmed"])
def test_planetoid_format(data_root, official, network, name):
    x, y = official.planetoid(data_root, name)
    task = planetoid(name, normalize=None)
    validate(task.graph)
    ring = {frozenset((i, (i + 1) % 8)) for i in range(8)} | {frozenset((8, 0)), frozenset((10, 1))}
    assert pairs(task.graph) == sorted((a, b) for e in ring for a in e for b in e if a != b)
    known = np.arange(11) != 9
    np.testing.assert_array_equal(task.graph.nodes[known], x[known])
    np.testing.assert_array_equal(task.labels[known], y[known])
    assert task.labels[9] == -1
    assert not task.graph.nodes[9].any()
    assert [np.flatnonzero(m).tolist() for m in (task.train, task.val, task.test)] == [
        [0, 1, 2, 3],
        [4, 5, 6],
        [7, 8, 10],
    ]
    np.testing.assert_allclose(planetoid(name).graph.nodes.sum(1), known, rtol=1e-6)
    assert network == []


def test_planetoid_other_splits(data_root, official):
    official.planetoid(data_root, "pubmed")
    official.split(data_root, "pubmed", 11, 3)
    split = planetoid("pubmed", "geom-gcn-3")
    assert np.flatnonzero(split.train).tolist() == [0, 3, 6]  # 9 has no label
    assert planetoid("pubmed", "random").train.sum() == 10
    for bad in ("geom-gcn-10", "geom-gcn-", "other"):
        with pytest.raises(DataError, match="split"):
            planetoid("pubmed", bad)
    official.split(data_root, "pubmed", 12, 3)
    with pytest.raises(DataError, match="not a split of 11 nodes"):
        planetoid("pubmed", "geom-gcn-3")


@pytest.mark.parametrize("name", ["texas", "squirrel", "film"])
def test_geom_gcn_format(data_root, official, network, name):
    official.webkb(data_root, name)
    task = webkb(name, normalize=None)
    validate(task.graph)
    assert pairs(task.graph) == [(0, 1), (1, 2), (3, 3), (4, 0)]
    assert task.directed
    expected = (
        [[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0]]
        if name == "film"
        else [[1, 0, 3], [0, 1, 0], [0, 0, 0], [0, 2, 2], [1, 1, 0]]
    )
    np.testing.assert_array_equal(task.graph.nodes, expected)
    np.testing.assert_array_equal(task.labels, [0, 1, 0, 1, 0])
    assert task.train.tolist() == [True, False, False, True, False]
    assert network == []


@pytest.mark.parametrize("zipped", [False, True])
def test_tu_format(data_root, official, network, zipped):
    official.tu(data_root, "TOY", zipped)
    task = tu("TOY", folds=5)
    assert (task.num_graphs, task.num_classes) == (20, 2)
    np.testing.assert_array_equal(task.extras["label_values"], [-1, 3])
    np.testing.assert_array_equal(task.labels, np.arange(20) % 2)
    assert task.graphs.nodes.shape == (50, 5)  # three labels, two attributes
    assert [int(m.sum()) for m in (task.train, task.val, task.test)] == [16, 2, 2]
    np.testing.assert_array_equal(np.bincount(task.folds), [4] * 5)
    for i, graph in enumerate(task.unbatch()):
        validate(graph)
        size = 3 - i % 2
        assert pairs(graph) == [(a, b) for a in range(size) for b in range(size) if a != b]
    assert set(task.graphs.edges["code"].tolist()) == {0, 1}
    np.testing.assert_allclose(task.graphs.edges["feature"][:, 0], np.arange(80) / 4)
    assert network == []


def test_tu_features(data_root, official):
    official.tu(data_root)
    shapes = {how: tu("TOY", features=how).graphs.nodes.shape[1] for how in ("labels", "attributes", "ones")}
    assert shapes == {"labels": 3, "attributes": 2, "ones": 1}
    degrees = tu("TOY", features="degree").graphs.nodes
    np.testing.assert_array_equal(degrees.argmax(1)[:5], [2, 2, 2, 1, 1])
    for part in ("node_labels", "node_attributes", "edge_labels", "edge_attributes"):
        (data_root / "tu" / "TOY" / f"TOY_{part}.txt").unlink()
    task = tu("TOY")
    np.testing.assert_array_equal(task.graphs.nodes, degrees)
    assert task.graphs.edges is None
    with pytest.raises(DataError, match="no node labels"):
        tu("TOY", features="labels")


def test_tu_graphs_in_any_order(data_root, official):
    """Nodes and edges that are not sorted by graph come out sorted."""
    official.tu(data_root)
    before = tu("TOY", features="attributes")
    folder = data_root / "tu" / "TOY"
    edges = (folder / "TOY_A.txt").read_text().splitlines()
    (folder / "TOY_A.txt").write_text("\n".join(edges[::-1]))
    for part in ("edge_labels", "edge_attributes"):
        lines = (folder / f"TOY_{part}.txt").read_text().splitlines()
        (folder / f"TOY_{part}.txt").write_text("\n".join(lines[::-1]))
    after = tu("TOY", features="attributes")
    for a, b in zip(before.unbatch(), after.unbatch(), strict=True):
        assert pairs(a) == pairs(b)
        np.testing.assert_array_equal(a.nodes, b.nodes)


def test_tu_checks_that_files_agree(data_root, official):
    official.tu(data_root)
    folder = data_root / "tu" / "TOY"
    path = folder / "TOY_A.txt"
    text = path.read_text()
    for extra, message in (
        ("1, 4\n", "joins two graphs"),
        ("1, 99\n", "do not fit"),
        ("0, 1\n", "do not fit"),
    ):
        path.write_text(extra + text)
        with pytest.raises(DataError, match=message):
            tu("TOY")
    path.write_text(text)
    (folder / "TOY_graph_labels.txt").unlink()
    with pytest.raises(DataError, match=r"TOY_graph_labels.*https.*JGD_DATA_DIR"):
        tu("TOY")
    for name in ("../x", "", "a/b", ".."):
        with pytest.raises(DataError, match="no name"):
            tu(name)


def test_cpf_format(data_root, official, network):
    official.cpf(data_root)
    task = cpf("cora", train_per_class=1, val_per_class=2)
    validate(task.graph)
    assert task.num_nodes == 10
    assert pairs(task.graph) == sorted(
        (a, b) for i in range(10) for a, b in ((i, (i + 1) % 10), ((i + 1) % 10, i))
    )
    np.testing.assert_array_equal(task.graph.nodes, (np.arange(36).reshape(12, 3) % 4 != 0)[:10])
    assert [int(m.sum()) for m in (task.train, task.val, task.test)] == [2, 4, 4]
    assert cpf("cora", train_per_class=1, val_per_class=2, largest_component=False).num_nodes == 12
    assert network == []
    with pytest.raises(DataError, match="fewer than 30"):
        cpf("cora", train_per_class=1)


def test_cpf_refuses_code_in_strings(data_root, official, evil):
    attack, marker = evil
    official.cpf(data_root, names=np.asarray([attack], object))
    with pytest.raises(DataError, match="system"):
        cpf("cora")
    assert not marker.exists()


LOADERS = {
    "planetoid": lambda: planetoid("cora"),
    "webkb": lambda: webkb("texas"),
    "tu": lambda: tu("TOY"),
    "cpf": lambda: cpf("cora", train_per_class=1, val_per_class=1),
}


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("damage", ["empty", "garbage", "truncated"])
def test_damaged_files(data_root, official, kind, damage):
    load = LOADERS[kind]
    getattr(official, kind)(data_root)
    load()
    for path in [p for p in data_root.rglob("*") if p.is_file()]:
        content = path.read_bytes()
        if damage == "truncated" and path.suffix in (".txt", ".index"):
            continue  # a shorter table is still a table
        bad = {"empty": b"", "garbage": b"\xff\xfe\x00garbage\x80", "truncated": content[: len(content) // 2]}
        path.write_bytes(bad[damage])
        with pytest.raises(DataError, match="delete it and download it again") as error:
            load()
        assert str(path.parent) in str(error.value)
        path.write_bytes(content)
    load()


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("planetoid", "ind.cora.x"),
        ("webkb", "out1_graph_edges.txt"),
        ("tu", "TOY.zip"),
        ("cpf", "cpf/cora.npz"),
    ],
)
def test_missing_files(data_root, network, kind, file):
    with pytest.raises(DataError) as error:
        LOADERS[kind]()
    for part in (file, network[0], "https://", "JGD_DATA_DIR"):
        assert part in str(error.value)


def test_planetoid_refuses_code(data_root, official, evil):
    attack, marker = evil
    official.planetoid(data_root)
    (data_root / "planetoid" / "ind.cora.graph").write_bytes(pickle.dumps(attack, protocol=2))
    with pytest.raises(DataError, match="system"):
        planetoid("cora")
    assert not marker.exists()


def test_planetoid_files_that_disagree(data_root, official):
    official.planetoid(data_root)
    path = data_root / "planetoid" / "ind.cora.test.index"
    for text in ("8\n7\n", "8\n7\n2\n"):
        path.write_text(text)
        with pytest.raises(DataError, match="do not match"):
            planetoid("cora")


@pytest.mark.parametrize("load", [planetoid, webkb, cpf])
def test_unknown_names(load):
    with pytest.raises(DataError, match="choose one of"):
        load("corra")


# Real data


@pytest.mark.parametrize(
    ("name", "nodes", "edges", "features", "classes", "unknown"),
    [("cora", 2708, 5278, 1433, 7, 0), ("citeseer", 3327, 4552, 3703, 6, 15)],
)
def test_real_planetoid(real, network, name, nodes, edges, features, classes, unknown):
    real(f"planetoid/ind.{name}.x")
    task = planetoid(name)
    validate(task.graph)
    assert task.graph.nodes.shape == (nodes, features)
    assert len(task.graph.senders) == 2 * edges
    assert task.num_classes == classes
    assert (task.labels == -1).sum() == unknown
    assert [int(m.sum()) for m in (task.train, task.val, task.test)] == [20 * classes, 500, 1000]
    np.testing.assert_array_equal(np.bincount(task.labels[task.train]), [20] * classes)
    assert not task.graph.nodes[task.labels == -1].any()
    degree = np.bincount(task.graph.senders, minlength=nodes)
    assert (degree[task.labels == -1] > 0).all()  # without features and label, but not without edges
    assert network == []


@pytest.mark.parametrize(
    ("name", "nodes", "edges", "counts"),
    [
        ("cornell", 183, 298, [38, 16, 30, 82, 17]),
        ("texas", 183, 325, [33, 1, 18, 101, 30]),
        ("wisconsin", 251, 515, [10, 70, 118, 32, 21]),
    ],
)
def test_real_webkb(real, name, nodes, edges, counts):
    real(f"geom-gcn/{name}/out1_graph_edges.txt")
    for split in range(10):
        task = webkb(name, split)
        assert (task.train.astype(int) + task.val + task.test == 1).all()
    assert task.graph.nodes.shape == (nodes, 1703)
    assert len(task.graph.senders) == edges
    np.testing.assert_array_equal(np.bincount(task.labels), counts)


def test_cornell_with_the_pages_of_texas_warns(real, data_root, tmp_path, monkeypatch):
    monkeypatch.undo()
    real("geom-gcn/texas/out1_node_feature_label.txt")
    from jgd.data import data_dir

    source = data_dir() / "geom-gcn"
    target = data_root / "geom-gcn"
    for path in ("texas/out1_node_feature_label.txt", "texas/out1_graph_edges.txt"):
        copy = target / path.replace("texas", "cornell")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((source / path).read_bytes())
    name = "splits/cornell_split_0.6_0.2_0.npz"
    (target / name).parent.mkdir()
    (target / name).write_bytes((source / name).read_bytes())
    monkeypatch.setenv("JGD_DATA_DIR", str(data_root))
    with pytest.warns(UserWarning, match="pages of Texas"):
        webkb("cornell")


@pytest.mark.parametrize(("name", "nodes", "edges"), [("cora", 2485, 5069), ("citeseer", 2110, 3668)])
def test_real_cpf(real, name, nodes, edges):
    real(f"cpf/{name}.npz")
    task = cpf(name, seed=1)
    assert task.num_nodes == nodes
    assert len(task.graph.senders) == 2 * edges
    for mask, count in ((task.train, 20), (task.val, 30)):
        np.testing.assert_array_equal(np.bincount(task.labels[mask]), [count] * task.num_classes)
    assert (task.train.astype(int) + task.val + task.test == 1).all()


@pytest.mark.parametrize(
    ("name", "graphs", "nodes", "edges", "features"),
    [("MUTAG", 188, 3371, 7442, 7), ("PTC", 344, 8792, 17862, 19), ("IMDB-BINARY", 1000, 19773, 193062, 136)],
)
def test_real_tu(real, name, graphs, nodes, edges, features):
    real(f"tu/{name}/{name}_A.txt")
    task = tu(name, folds=10)
    assert task.num_graphs == graphs
    assert task.graphs.nodes.shape == (nodes, features)
    assert len(task.graphs.senders) == edges
    assert task.num_classes == 2
    for graph in task.unbatch(np.arange(5)):
        validate(graph)
