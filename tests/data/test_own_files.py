"""Data of a user's own by path: every format gives back what another writer wrote, or says why not."""

import csv
import io
import json
import logging
import pickle
import types
import zipfile
from collections import OrderedDict

import networkx as nx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import jgd
from jgd.data import ArrayTask, DataError, GraphTask, NodeTask, checksum
from jgd.data.prepare import complete_splits
from jgd.data.registry import is_path
from jgd.data.sources import read, short_name
from jgd.data.sources.columns import read_csv

N, E, F = 30, 70, 3
NAMES = ("ash", "elm", "oak")


@pytest.fixture
def graph(rng):
    """A weighted directed graph with words as labels, some unknown, and a split that leaves rows out."""
    pairs = rng.choice(N * N, E, replace=False)
    labels = [NAMES[i % 3] if i % 10 else None for i in range(N)]
    return types.SimpleNamespace(
        x=rng.integers(-50, 50, (N, F)).astype(np.float32) / 8,
        senders=pairs // N,
        receivers=pairs % N,
        weights=rng.integers(1, 9, E).astype(np.float32) / 4,
        labels=labels,
        codes=np.asarray([-1 if name is None else NAMES.index(name) for name in labels]),
        parts=[("train", "val", "test", "")[i % 4] for i in range(N)],
    )


def same_graph(task, graph, *, weighted=True):
    """Whether a task is the graph, edges in any order."""
    assert isinstance(task, NodeTask)
    np.testing.assert_array_equal(task.graph.nodes, graph.x)
    assert np.asarray(task.graph.nodes).dtype == np.float32
    np.testing.assert_array_equal(task.labels, graph.codes)
    assert task.class_names == NAMES
    for i, part in enumerate(("train", "val", "test")):
        np.testing.assert_array_equal(getattr(task, part), np.arange(N) % 4 == i)
    own = np.ones(E) if not weighted else task.graph.edges
    found = sorted(zip(np.asarray(task.graph.senders), np.asarray(task.graph.receivers), own, strict=True))
    weights = graph.weights if weighted else np.ones(E)
    assert found == sorted(zip(graph.senders, graph.receivers, weights, strict=True))
    assert task.directed


# --- writers, each by means other than the reader's ------------------------------------------------


def write_tables(folder, graph, delimiter=",", prefix="paper "):
    folder.mkdir()
    with (folder / "nodes.csv").open("w", newline="") as file:
        out = csv.writer(file, delimiter=delimiter)
        out.writerow(["split", "f0", "Label", "f1", "ID", "f2"])
        for i in range(N):
            f0, f1, f2 = (repr(float(v)) for v in graph.x[i])
            out.writerow([graph.parts[i], f0, graph.labels[i] or "", f1, f"{prefix}{i}", f2])
    with (folder / "edges.csv").open("w", newline="") as file:
        out = csv.writer(file, delimiter=delimiter)
        out.writerow(["target", "weight", "source"])
        for s, r, w in zip(graph.senders, graph.receivers, graph.weights, strict=True):
            out.writerow([f"{prefix}{r}", float(w), f"{prefix}{s}"])
    return folder


def words(graph):
    return np.asarray([name or "" for name in graph.labels])


def masks(graph):
    return {f"{part}_mask": np.asarray(graph.parts) == part for part in ("train", "val", "test")}


def write_npz(path, graph, how):
    x = {"x": graph.x}
    edges = {"edge_index": np.stack([graph.senders, graph.receivers]), "edge_weight": graph.weights}
    split = masks(graph)
    if how == "ends":
        edges = {"senders": graph.senders, "receivers": graph.receivers, "weights": graph.weights}
        split = {name.replace("mask", "idx"): np.flatnonzero(mask) for name, mask in split.items()}
    elif how == "csr":
        import scipy.sparse as sp

        a = sp.csr_array((graph.weights, (graph.senders, graph.receivers)), shape=(N, N))
        b = sp.csr_array(graph.x)
        edges = {f"adj_{k}": getattr(a, k) for k in ("data", "indices", "indptr", "shape")}
        x = {f"attr_{k}": getattr(b, k) for k in ("data", "indices", "indptr", "shape")}
    elif how == "dense":
        adj = np.zeros((N, N), np.float32)
        adj[graph.receivers, graph.senders] = graph.weights
        edges = {"adj": adj}
    np.savez(path, **x, **edges, **split, y=words(graph))
    return path


def as_networkx(graph):
    g = nx.DiGraph()
    for i in range(N):
        attributes = {f"f{k}": float(v) for k, v in enumerate(graph.x[i])}
        if graph.labels[i]:
            attributes["label"] = graph.labels[i]
        if graph.parts[i]:
            attributes["split"] = graph.parts[i]
        g.add_node(f"n{i}", **attributes)
    for s, r, w in zip(graph.senders, graph.receivers, graph.weights, strict=True):
        g.add_edge(f"n{s}", f"n{r}", weight=float(w))
    return g


class Data:
    """Stands for ``torch_geometric.data.Data`` in a pickle."""


class GlobalStorage:
    """Stands for what holds its fields."""


class DataEdgeAttr:
    """Stands for a class that it names."""


class FloatStorage:
    """Stands for ``torch.FloatStorage``."""


class LongStorage:
    """Stands for ``torch.LongStorage``."""


class BoolStorage:
    """Stands for ``torch.BoolStorage``."""


def _rebuild_tensor_v2(*args):
    """Stands for the function of that name."""


for thing, module in (
    (Data, "torch_geometric.data.data"),
    (DataEdgeAttr, "torch_geometric.data.data"),
    (GlobalStorage, "torch_geometric.data.storage"),
    (FloatStorage, "torch"),
    (LongStorage, "torch"),
    (BoolStorage, "torch"),
    (_rebuild_tensor_v2, "torch._utils"),
):
    thing.__module__ = module


class _Tensor:
    def __init__(self, call, args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


class _Pid(tuple):
    pass


class TorchWriter(pickle._Pickler):
    """Writes as ``torch.save`` does: arrays become tensors whose numbers lie in files of their own."""

    def __init__(self, stream):
        super().__init__(stream, protocol=2)
        self.storages = {}

    def persistent_id(self, obj):
        return tuple(obj) if type(obj) is _Pid else None

    def save_global(self, obj, name=None):
        self.write(f"c{obj.__module__}\n{obj.__name__}\n".encode())
        self.memoize(obj)

    def reducer_override(self, obj):
        return NotImplemented

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, np.ndarray):
            kind = {"f": FloatStorage, "i": LongStorage, "b": BoolStorage}[obj.dtype.kind]
            obj = np.ascontiguousarray(obj, {"f": np.float32, "i": np.int64, "b": bool}[obj.dtype.kind])
            key = str(len(self.storages))
            self.storages[key] = obj.tobytes()
            stride = tuple(s // obj.itemsize for s in obj.strides)
            pid = _Pid(("storage", kind, key, "cpu", obj.size))
            obj = _Tensor(_rebuild_tensor_v2, (pid, 0, obj.shape, stride, False, OrderedDict()))
        return super().save(obj, save_persistent_id)

    dispatch = pickle._Pickler.dispatch | dict.fromkeys((type, types.FunctionType), save_global)


def data_of(**fields):
    data, store = Data(), GlobalStorage()
    store.__dict__ = {"_mapping": fields, "_parent": data}
    data.__dict__ = {"_edge_attr_cls": DataEdgeAttr, "_store": store}
    return data


def torch_save(path, value):
    stream = io.BytesIO()
    writer = TorchWriter(stream)
    writer.dump(value)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", stream.getvalue())
        for key, content in writer.storages.items():
            archive.writestr(f"archive/data/{key}", content)
        archive.writestr("archive/version", "3\n")
    return path


# --- one graph -------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_folder_of_tables(tmp_path, graph, delimiter):
    folder = write_tables(tmp_path / "trees", graph, delimiter, prefix='a, "b; \n')
    task, notes = read(folder)
    same_graph(task, graph)
    assert task.name == "trees"
    assert notes == (
        "labels mapped: ash -> 0, elm -> 1, oak -> 2",
        "some edges lack their reverse and are kept so: undirected=True (--undirected) adds it",
    )


@pytest.mark.parametrize("how", ["index", "ends", "csr", "dense"])
def test_arrays(tmp_path, graph, how):
    same_graph(jgd.load(write_npz(tmp_path / "a.npz", graph, how)), graph)


def test_graphml_and_node_link(tmp_path, graph):
    g = as_networkx(graph)
    nx.write_graphml(g, tmp_path / "a.graphml")
    (tmp_path / "a.json").write_text(json.dumps(nx.node_link_data(g, edges="links")))
    for name in ("a.graphml", "a.json"):
        same_graph(jgd.load(tmp_path / name), graph)


def test_a_data_of_pytorch_geometric(tmp_path, graph):
    fields = {
        "x": graph.x,
        "edge_index": np.stack([graph.senders, graph.receivers]),
        "edge_weight": graph.weights,
        "y": graph.codes,
        **masks(graph),
    }
    for content in (data_of(**fields), fields, (data_of(**fields), None), (fields, None, Data)):
        task = jgd.load(torch_save(tmp_path / "a.pt", content))
        assert task.class_names == ()
        same_graph(type(task)(**{**vars_of(task), "class_names": NAMES}), graph)


def vars_of(task):
    return {k: v for k, v in vars(task).items() if k != "target_kind"}


def test_an_undirected_file_gives_both_directions_and_an_option_adds_them(tmp_path, graph):
    g = as_networkx(graph).to_undirected()
    nx.write_graphml(g, tmp_path / "a.graphml")
    (tmp_path / "b.json").write_text(json.dumps(nx.node_link_data(g, edges="edges")))
    wanted = {
        (a, b) for s, r in zip(graph.senders, graph.receivers, strict=True) for a, b in ((s, r), (r, s))
    }
    folder = write_tables(tmp_path / "c", graph)
    for path, options in (("a.graphml", {}), ("b.json", {}), (folder, {"undirected": True})):
        task, notes = read(tmp_path / path, **options)
        found = list(zip(task.graph.senders.tolist(), task.graph.receivers.tolist(), strict=True))
        assert sorted(found) == sorted(wanted)  # each once, self loops too
        assert not task.directed
        assert bool(options) == any(f"{E} edges in the file became {len(wanted)}" in note for note in notes)


def test_what_export_writes_comes_back(tmp_path):
    task = jgd.data.contextual_sbm(num_nodes=40, num_classes=3, num_features=4, mean_degree=4)
    (tmp_path / "a.json").write_text(
        json.dumps(nx.node_link_data(jgd.data.to_networkx(task), edges="edges"), default=lambda a: a.tolist())
    )
    found = jgd.load(tmp_path / "a.json")
    np.testing.assert_array_equal(found.graph.nodes, task.graph.nodes)
    np.testing.assert_array_equal(found.labels, task.labels)
    np.testing.assert_array_equal(found.test, task.test)


def test_planetoid_and_tu_folders(data_root, official):
    x, y = official.planetoid(data_root, "trees")
    task = jgd.load(data_root / "planetoid")
    assert task.name == "trees"
    np.testing.assert_array_equal(task.labels[:9], y[:9])
    np.testing.assert_allclose(task.graph.nodes[:9], (x / x.sum(1, keepdims=True))[:9], rtol=1e-6)
    assert task.train.sum() == 4
    again = read(data_root / "planetoid", split=(0.5, 0.25, 0.25))
    assert again.task.train.sum() == 5
    assert "as requested" in again.notes[-1]
    official.tu(data_root, "TOY")
    task = jgd.load(data_root / "tu" / "TOY")
    assert (task.num_graphs, task.class_names) == (20, (-1, 3))
    assert [int(getattr(task, p).sum()) for p in ("train", "val", "test")] == [12, 4, 4]
    official.planetoid(data_root, "more")
    with pytest.raises(DataError, match=r"several datasets, more and trees: one to a folder"):
        jgd.load(data_root / "planetoid")


# --- sets of graphs --------------------------------------------------------------------------------


@pytest.fixture
def graphs(rng):
    """Twelve small graphs."""
    made = []
    for i in range(12):
        n, e = 2 + i % 3, i % 4
        made.append(
            types.SimpleNamespace(
                x=rng.integers(0, 9, (n, 2)).astype(np.float32),
                edge_index=rng.integers(0, n, (2, e)),
                y=np.asarray([i % 2]),
            )
        )
    return made


def same_graphs(task, graphs):
    assert isinstance(task, GraphTask)
    assert task.num_classes == 2
    np.testing.assert_array_equal(task.labels, [int(g.y[0]) for g in graphs])
    for found, wanted in zip(task.unbatch(), graphs, strict=True):
        np.testing.assert_array_equal(found.nodes, wanted.x)
        pairs = zip(found.senders.tolist(), found.receivers.tolist(), strict=True)
        assert sorted(pairs) == sorted(zip(*wanted.edge_index.tolist(), strict=True))


def write_graph_tables(folder, graphs, *, column=True):
    """Nodes and edges in reverse order; ids are those within a graph, or unique."""
    folder.mkdir()
    name = "{1}" if column else "{0}-{1}"
    with (folder / "graphs.csv").open("w") as file:
        file.write("id,label\n" + "".join(f"g{i},{g.y[0]}\n" for i, g in enumerate(graphs)))
    with (folder / "nodes.csv").open("w") as file:
        rows = [
            (f"g{i},{name.format(i, n)}", *map(repr, map(float, g.x[n])))
            for i, g in enumerate(graphs)
            for n in range(len(g.x))
        ]
        file.write("graph,id,a,b\n" + "".join(",".join(row) + "\n" for row in _mixed(rows)))
    with (folder / "edges.csv").open("w") as file:
        rows = [
            f"{f'g{i},' if column else ''}{name.format(i, s)},{name.format(i, r)}\n"
            for i, g in enumerate(graphs)
            for s, r in g.edge_index.T
        ]
        file.write(("graph," if column else "") + "source,target\n" + "".join(rows[::-1]))
    return folder


def _mixed(rows):
    """Nodes of one graph stay in their order, graphs are mixed."""
    return sorted(rows, key=lambda row: row[0].partition(",")[2].rpartition("-")[2])


@pytest.mark.parametrize("column", [True, False])
def test_tables_of_a_set_of_graphs(tmp_path, graphs, column):
    task, notes = read(write_graph_tables(tmp_path / "set", graphs, column=column))
    same_graphs(task, graphs)
    assert any("split made" in note for note in notes)


def test_a_list_of_data_and_a_collated_dataset(tmp_path, graphs):
    several = [data_of(**vars(g)) for g in graphs]
    same_graphs(jgd.load(torch_save(tmp_path / "a.pt", several)), graphs)
    whole = {
        k: np.concatenate([vars(g)[k] for g in graphs], int(k == "edge_index"))
        for k in ("x", "edge_index", "y")
    }
    sizes = {k: [vars(g)[k].shape[int(k == "edge_index")] for g in graphs] for k in whole}
    slices = {k: np.append(0, np.cumsum(v)) for k, v in sizes.items()}
    for content in ((data_of(**whole), slices), (whole, slices, Data)):
        same_graphs(jgd.load(torch_save(tmp_path / "b.pt", content)), graphs)


def test_arrays_of_a_set_of_graphs(tmp_path, graphs):
    n = np.asarray([len(g.x) for g in graphs])
    first = np.cumsum(n) - n
    pairs = np.concatenate([g.edge_index + at for g, at in zip(graphs, first, strict=True)], 1)[:, ::-1]
    arrays = {"x": np.concatenate([g.x for g in graphs]), "batch": np.repeat(np.arange(12), n)}
    np.savez(tmp_path / "a.npz", edge_index=pairs, y=np.arange(12) % 2, **arrays)
    same_graphs(jgd.load(tmp_path / "a.npz"), graphs)


def test_lists_of_graphs_in_the_library(graphs):
    same_graphs(jgd.data.from_pyg(graphs, name="set"), graphs)
    own = []
    for g in graphs:
        made = nx.MultiDiGraph(y=int(g.y[0]))
        made.add_nodes_from((n, {"x": row}) for n, row in enumerate(g.x))
        made.add_edges_from(g.edge_index.T.tolist())
        own.append(made)
    same_graphs(jgd.data.from_networkx(own), graphs)
    for broken, message in (
        ([], "holds no graphs"),
        ([graphs[0], types.SimpleNamespace(x=graphs[0].x, y=graphs[0].y)], r"graph 1: edge_index is none"),
        ([graphs[0], types.SimpleNamespace(edge_index=graphs[0].edge_index)], "graph 1 lacks"),
        ([types.SimpleNamespace(x=np.ones((2, 1)), edge_index=np.asarray([[0], [2]]))], "from 0 to 2, for 2"),
    ):
        with pytest.raises(DataError, match=message):
            jgd.data.from_pyg(broken)


# --- examples without edges --------------------------------------------------------------------------

TABLE = "id,petal,colour,class\n" + "".join(
    f"r{i},{i / 4},{('red', 'blue')[i % 2]},{('x', 'y', 'z')[i % 3]}\n" for i in range(30)
)


def test_a_table_of_features(tmp_path):
    (tmp_path / "iris.csv").write_text(TABLE)
    task, notes = read(tmp_path / "iris.csv")
    assert isinstance(task, ArrayTask)
    i = np.arange(30)
    np.testing.assert_array_equal(task.x, np.stack([i / 4, i % 2 == 1, i % 2 == 0], 1).astype(np.float32))
    np.testing.assert_array_equal(task.y, i % 3)
    assert task.class_names == ("x", "y", "z")
    assert "column id left out: it names the rows" in notes
    assert "colour (text) became 2 indicators: blue, red" in notes
    assert "split made (not in the file; stratified, seed 0): 18 train, 6 val, 6 test rows" in notes
    scaled = jgd.load(tmp_path / "iris.csv", standardize=True, ignore="colour")
    np.testing.assert_allclose(scaled.x[scaled.train].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.x[scaled.train].std(0), 1, rtol=1e-5)
    other = jgd.load(tmp_path / "iris.csv", label="colour", ignore=["class"])
    assert other.class_names == ("blue", "red")
    assert other.x.shape == (30, 1)


def test_missing_values_are_told_or_imputed(tmp_path):
    lines = TABLE.replace("r5,1.25,", "r5,,").replace("r7,1.75,blue", "r7,1.75,?").splitlines()
    lines = [line + (",train" if n < 20 else ",test") for n, line in enumerate(lines)]
    lines[0] = "id,petal,colour,class,split"
    (tmp_path / "a.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"a\.csv, line 7: no value of petal \(1 are missing\)"):
        jgd.load(tmp_path / "a.csv")
    task, notes = read(tmp_path / "a.csv", missing="impute")
    rows = [i for i in range(19) if i != 5 and task.train[i]]
    assert task.x[5, 0] == pytest.approx(np.mean(rows) / 4)
    assert task.x[7, 1:].tolist() == [0, 0]
    assert "1 missing values of petal imputed: the mean of the training rows" in notes
    assert "val made out of the training rows (not in the file; stratified, seed 0)" in notes[2]


def test_regression_and_labels_that_are_numbers(tmp_path):
    (tmp_path / "a.csv").write_text("a,y\n" + "".join(f"{i},{i + 0.5}\n" for i in range(20)))
    task = jgd.load(tmp_path / "a.csv")
    assert (task.target_kind, task.num_classes) == ("regression", 0)
    assert [int(getattr(task, p).sum()) for p in ("train", "val", "test")] == [12, 4, 4]
    (tmp_path / "b.csv").write_text("a,y\n" + "".join(f"{i},{(10, 20)[i % 2]}\n" for i in range(20)))
    task = jgd.load(tmp_path / "b.csv")
    assert task.class_names == (10, 20)
    assert task.y.tolist() == [0, 1] * 10


def test_arrays_of_examples_and_images(tmp_path, official):
    pixels = np.arange(20 * 16, dtype=np.uint8).reshape(20, 4, 4)
    np.savez(tmp_path / "a.npz", x=pixels, y=np.arange(20) % 2)
    task = jgd.load(tmp_path / "a.npz")
    assert (task.x.shape, task.x.dtype) == ((20, 4, 4, 1), np.uint8)
    for kind, colour in (("cat", (200, 0, 0)), ("dog", (0, 200, 0))):
        (tmp_path / "pets" / kind).mkdir(parents=True)
        for i in range(10):
            (tmp_path / "pets" / kind / f"{i}.png").write_bytes(official.picture(colour))
    task = jgd.load(tmp_path / "pets", size=4)
    assert (task.x.shape, task.class_names) == ((20, 4, 4, 3), ("cat", "dog"))
    assert int(task.train.sum()) == 12


# --- splits ------------------------------------------------------------------------------------------


def test_splits_are_made_of_what_is_missing():
    labels = np.repeat([0, 1, 2, -1], [40, 20, 1, 9])
    none, said = complete_splits(labels, {})
    assert said.startswith("split made (not in the file; stratified, seed 0): 37 train")
    for part, share in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
        assert [int((none[part] & (labels == c)).sum()) for c in (0, 1)] == [share * 40, share * 20]
    assert none["train"][labels == 2].all()  # the only row of its class
    assert not np.logical_or.reduce([*none.values()])[labels == -1].any()
    assert (sum(m.astype(int) for m in none.values())[labels >= 0] == 1).all()
    same, _ = complete_splits(labels, {})
    other, _ = complete_splits(labels, {}, seed=1)
    np.testing.assert_array_equal(same["train"], none["train"])
    assert (other["train"] != none["train"]).any()

    train = np.arange(70) % 2 == 0
    rest, said = complete_splits(labels, {"train": train})
    np.testing.assert_array_equal(rest["train"], train)
    assert "val and test made" in said
    np.testing.assert_array_equal(rest["val"] | rest["test"], ~train & (labels >= 0))
    assert int(rest["val"].sum()) == int(rest["test"].sum()) == 15

    inner, said = complete_splits(labels, {"train": train, "test": ~train})
    np.testing.assert_array_equal(inner["train"] | inner["val"], train & (labels >= 0))
    assert "val made out of the training rows" in said
    whole, said = complete_splits(labels, {"train": train, "val": ~train, "test": None}, (0.5, 0.0, 0.5))
    assert whole["val"] is None
    assert "as requested" in said
    for fractions in ((0.5, 0.5), (0.0, 0.5, 0.5), (0.6, 0.6, 0.2), (1.2, -0.4, 0.2)):
        with pytest.raises(ValueError, match=r"a split (is|needs)"):
            complete_splits(labels, {}, fractions)
    with pytest.raises(ValueError, match="all labelled rows are for training"):
        complete_splits(labels, {"train": np.ones(70, bool)})


def test_a_split_of_the_file_stays_unless_another_is_asked_for(tmp_path, graph):
    folder = write_tables(tmp_path / "a", graph)
    task = jgd.load(folder, split=(0.8, 0.1, 0.1), seed=3)
    assert int(task.train.sum()) > 20
    assert checksum(task) != checksum(jgd.load(folder, split=(0.8, 0.1, 0.1), seed=4))
    assert checksum(task) == checksum(jgd.load(folder, split=[0.8, 0.1, 0.1], seed=3))


def test_notes_go_to_the_log(tmp_path, caplog):
    (tmp_path / "iris.csv").write_text(TABLE)
    with caplog.at_level(logging.WARNING, "jgd.data"):
        jgd.load(tmp_path / "iris.csv")
    assert any("split made" in message and "iris.csv" in message for message in caplog.messages)


# --- names and paths -----------------------------------------------------------------------------------


def test_names_stay_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sbm").mkdir()
    (tmp_path / "mine").mkdir()
    assert [is_path(name) for name in ("sbm", "tu:X", "mine", "mines", "a.csv", "./sbm", "x/y")] == [
        *(False, False, True, False, True, True, True)
    ]
    assert jgd.load("sbm", num_nodes=50).num_nodes == 50
    with pytest.raises(DataError, match=r"no dataset is called 'mines'"):
        jgd.load("mines")
    with pytest.raises(DataError, match=r"there is no file or folder nowhere\.csv"):
        jgd.load("nowhere.csv")
    with pytest.raises(DataError, match="there is no option sise; there are label"):
        jgd.load("mine", sise=3)
    with pytest.raises(
        DataError, match=r"mine holds nothing that is known: expected nodes\.csv and edges\.csv"
    ):
        jgd.load("mine")
    (tmp_path / "a.xlsx").write_text("x")
    with pytest.raises(DataError, match=r"a\.xlsx: files end in \.npz, \.pt, .* not in \.xlsx"):
        jgd.load("./a.xlsx")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/b c.csv", "b-c"),
        ("x.tar.gz", "x"),
        ("dir/", "dir"),
        ("é/ü.npz", "data"),
        ("a.b.npz", "a.b"),
        ("../..//..", "data"),
        ("w" * 200 + ".pt", "w" * 60),
    ],
)
def test_short_names_suit_folders(path, name, monkeypatch):
    monkeypatch.chdir("/")
    assert short_name(path) == name


# --- what is wrong is said in one line -----------------------------------------------------------------

NODES = "id,label,a\nu,x,1\nv,y,2\nw,x,3\n"
EDGES = "source,target\nu,v\n"
GRAPHS = "id,label\ng,x\nh,y\n"
IN_GRAPHS = "id,graph,a\nu,g,1\nv,g,1\nw,h,1\n"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"nodes.csv": NODES}, r"edges\.csv is missing"),
        ({"nodes.csv": "id,a\nu,1\n"}, r"nodes\.csv has no column label or y or class or target"),
        ({"nodes.csv": "label,a\nx,1\n"}, r"nodes\.csv has no column id for the names of nodes"),
        ({"nodes.csv": "id,label,y,a\nu,x,1,1\n"}, r"has the columns label and y for labels; name it with"),
        ({"nodes.csv": NODES + "u,x,4\n"}, r"nodes\.csv, line 5: id 'u' is also that of line 2"),
        ({"nodes.csv": NODES + ",x,4\n"}, r"nodes\.csv, line 5: id is empty"),
        ({"nodes.csv": NODES + "z,x\n"}, r"nodes\.csv, line 5: 2 cells, but the header has 3 columns"),
        ({"nodes.csv": NODES + "z,x,\n"}, r"nodes\.csv, line 5: no value of a \(1 are missing\)"),
        ({"nodes.csv": NODES + "z,x,1e60\n"}, r"nodes\.csv, line 5: a is 1e\+60, which is no finite"),
        ({"nodes.csv": NODES + "z,x,inf\n"}, r"nodes\.csv, line 5: a is inf"),
        ({"nodes.csv": NODES + 'z,x,"1\n'}, r"nodes\.csv, line 5: unexpected end of data"),
        ({"nodes.csv": ""}, r"nodes\.csv is empty"),
        ({"nodes.csv": "\n \n"}, r"nodes\.csv is empty"),
        ({"nodes.csv": "id,label\n"}, r"nodes\.csv has a header, but no rows"),
        ({"nodes.csv": "1,2,3\n4,5,6\n"}, r"line 1: the first line must name the columns"),
        ({"nodes.csv": "id,label,id\n4,5,6\n"}, r"line 1: two columns are called 'id'"),
        ({"nodes.csv": (NODES + "ü,x,4\n").encode("latin1")}, r"nodes\.csv, line 5: byte 0xfc is not UTF-8"),
        ({"nodes.csv": NODES.encode("utf-16")}, r"nodes\.csv, line 1: byte 0xff is not UTF-8"),
        ({"nodes.csv": "id,label,split\nu,x,train\nv,y,dev\n"}, r"line 3: split is dev, expected train, val"),
        ({"nodes.csv": "id,label,a\nu,,1\nv,,2\n"}, "no label is known"),
        ({"edges.csv": EDGES + "u,q\n"}, r"edges\.csv, line 3: target 'q' is no id of nodes\.csv"),
        ({"edges.csv": EDGES + ",u\n"}, r"edges\.csv, line 3: source is empty"),
        ({"edges.csv": "source\nu\n"}, r"edges\.csv has the columns source: edges need source and target"),
        (
            {"edges.csv": "source,target,weight\nu,v,x\n"},
            r"edges\.csv, line 2: weight is 'x', expected a num",
        ),
        (
            {"edges.csv": "source,target,weight\nu,v,1\nu,v,\n"},
            r"edges\.csv, line 3: weight is nan, expected",
        ),
        ({"graphs.csv": GRAPHS}, r"nodes\.csv has no column graph"),
        ({"graphs.csv": GRAPHS, "nodes.csv": IN_GRAPHS + "z,i,1\n"}, r"line 5: graph 'i' is no id of graphs"),
        (
            {"graphs.csv": GRAPHS, "nodes.csv": IN_GRAPHS + "u,g,1\n"},
            r"line 5: id 'u' is also that of line 2",
        ),
        ({"graphs.csv": GRAPHS, "nodes.csv": IN_GRAPHS + "u,h,1\n"}, r"several graphs have a node 'u'"),
        (
            {"graphs.csv": GRAPHS + "i,x\n", "nodes.csv": IN_GRAPHS},
            r"graphs\.csv, line 4: the graph has no n",
        ),
        (
            {"graphs.csv": GRAPHS, "nodes.csv": IN_GRAPHS, "edges.csv": EDGES + "v,w\n"},
            r"edges\.csv, line 3: the edge joins nodes of two graphs",
        ),
    ],
)
def test_damaged_tables(tmp_path, files, message):
    for name, content in ({"nodes.csv": NODES, "edges.csv": EDGES} | files).items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    if "edges.csv is missing" in message.replace("\\", ""):
        (tmp_path / "edges.csv").unlink()
    with pytest.raises(DataError, match=message) as raised:
        jgd.load(tmp_path)
    assert "\n" not in str(raised.value)
    assert str(tmp_path) in str(raised.value)


def test_a_text_of_too_many_kinds_is_left_out_by_hand(tmp_path):
    (tmp_path / "a.csv").write_text("name,a,y\n" + "".join(f"n{i},{i},{i % 2}\n" for i in range(200)))
    with pytest.raises(
        DataError, match=r"name holds 200 different texts, 100 at most become features: leave"
    ):
        jgd.load(tmp_path / "a.csv")
    assert jgd.load(tmp_path / "a.csv", ignore="name").x.shape == (200, 1)
    with pytest.raises(DataError, match="has no column 'nam' to ignore"):
        jgd.load(tmp_path / "a.csv", ignore="nam")
    with pytest.raises(DataError, match="undirected is no option of this format"):
        jgd.load(tmp_path / "a.csv", undirected=True)


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
OUTSIDE = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


def graphml(body, before="", keys=True):
    known = '<key id="k" for="node" attr.name="label" attr.type="string"/>' if keys else ""
    known += '<key id="f" for="node" attr.name="a" attr.type="double"><default>1.5</default></key>'
    return f'{before}<graphml>{known}\n<graph edgedefault="directed">\n{body}\n</graph></graphml>'


NODE = '<node id="u"><data key="k">x</data></node>\n<node id="v"><data key="k">y</data></node>\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (graphml(NODE, BOMB), "line 1: a DOCTYPE or entity is not allowed"),
        (graphml(NODE, OUTSIDE).encode("utf-16"), "a DOCTYPE or entity is not allowed"),
        (graphml(NODE + "<edge source='u' target='q'/>"), "line 5: target 'q' is no id of a node"),
        (graphml(NODE + "<edge source='u'/>"), "line 5: <edge> has no target"),
        (graphml(NODE + '<node id="u"/>'), "line 5: id 'u' is also that of line 3"),
        (graphml('<node id="u"><data key="f">one</data></node>'), "line 3: a is 'one', expected a number"),
        (graphml('<node id="u"><data key="z">1</data></node>'), "line 3: there is no key 'z'"),
        (graphml('<node id="u"><graph/></node>'), "a second graph"),
        (graphml(NODE + "<hyperedge/>"), "hyperedges are not read"),
        (graphml(NODE)[:-20], "no element found|unclosed|not well-formed"),
        ("<html></html>", "<html> is no GraphML"),
        ("<graphml></graphml>", "holds no graph"),
        ("", "is empty"),
        (graphml(""), "holds no nodes"),
        (graphml(NODE, keys=False), "there is no key 'k'"),
        (graphml('<node id="u"/>'), "has no column label"),
    ],
)
def test_damaged_graphml(tmp_path, text, message):
    (tmp_path / "a.graphml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message) as raised:
        jgd.load(tmp_path / "a.graphml")
    assert "\n" not in str(raised.value)
    assert "a.graphml" in str(raised.value)


def test_defaults_and_directions_of_graphml(tmp_path):
    body = NODE + '<edge source="u" target="v" directed="false"/><edge source="u" target="u"/>'
    (tmp_path / "a.graphml").write_text(graphml(body))
    task = jgd.load(tmp_path / "a.graphml")
    assert task.graph.nodes.tolist() == [[1.5], [1.5]]
    assert sorted(zip(task.graph.senders.tolist(), task.graph.receivers.tolist(), strict=True)) == [
        *((0, 0), (0, 1), (1, 0))
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "is no node-link JSON"),
        ({"nodes": []}, "is no node-link JSON"),
        ({"nodes": [], "links": []}, "holds no nodes"),
        ({"nodes": [{"label": 1}], "links": []}, "node 0: it has no id"),
        ({"nodes": [{"id": [1], "label": 1}], "links": []}, "node 0: it has no id"),
        ({"nodes": [{"id": 1, "y": 1}], "links": [{"source": 1}]}, "edge 0: it has no source and target"),
        ({"nodes": [{"id": 1, "y": 1}], "links": [{"source": 1, "target": 2}]}, "edge 0: target 2 is no id"),
        ({"nodes": [{"id": 1, "y": 1}, {"id": 1}], "links": []}, "node 1: id 1 is also that of node 0"),
        (
            {"nodes": [{"id": 1, "y": 1, "x": [1, 2]}, {"id": 2, "y": 0, "x": [1]}], "links": []},
            "node 1: x has 1 numbers, others have 2",
        ),
        (
            {"nodes": [{"id": 1, "y": 1, "x": [1]}, {"id": 2, "y": 0}], "links": []},
            "node 1: x is no list of num",
        ),
        (
            {"nodes": [{"id": 1, "y": 1, "x": [10**400]}, {"id": 2, "y": 0, "x": [0]}], "links": []},
            "too large",
        ),
        ("[" * 100_000, "cannot be read"),
        ("{", "cannot be read"),
    ],
)
def test_damaged_json(tmp_path, content, message):
    (tmp_path / "a.json").write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DataError, match=message) as raised:
        jgd.load(tmp_path / "a.json")
    assert "\n" not in str(raised.value)
    assert "a.json" in str(raised.value)


ARRAYS = {
    "x": np.ones((4, 2), np.float32),
    "y": np.asarray([0, 1, 0, 1]),
    "edge_index": np.asarray([[0, 1], [1, 2]]),
}
SPARSE = {"x": ARRAYS["x"], "y": ARRAYS["y"], "adj_indices": np.asarray([1, 2])}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.ones((4, 2))}, "has no array y or label or labels of labels: it holds x"),
        ({"y": np.arange(3)}, "has neither features nor edges"),
        ({**ARRAYS, "edge_index": np.asarray([[0, 1], [1, 4]])}, "4"),
        ({**ARRAYS, "edge_index": np.asarray([[0, -1], [1, 1]])}, "-1"),
        (
            {**ARRAYS, "edge_index": np.asarray([0, 1])},
            r"edge_index is int64 \(2,\), expected integers \[2, E\]",
        ),
        ({**ARRAYS, "edge_weight": np.ones(3)}, r"edge_weight is float64 \(3,\), there are 2 edges"),
        ({**ARRAYS, "y": np.arange(3)}, "labels has shape"),
        ({**ARRAYS, "train_mask": np.arange(9)}, "nodes"),
        ({**ARRAYS, "x": np.asarray([["a"]] * 4)}, "features are of type"),
        ({**ARRAYS, "x": np.asarray([[1, np.nan]] * 4)}, "first in row 0: fill them in, or set missing="),
        ({**SPARSE, "adj_indptr": np.asarray([0, 2, 1, 2, 2])}, "adj_indptr must rise from 0 to 2"),
        ({**SPARSE, "adj_indptr": np.asarray([0, 1, 1, 2, 9])}, "adj_indptr must rise from 0 to 2"),
        ({**SPARSE, "adj_indptr": np.asarray([0.0, 1, 1, 2, 2])}, "adj_indptr is float64"),
        ({**ARRAYS, "batch": np.asarray([0, 0, 1, 0])}, "batch must rise"),
        ({**ARRAYS, "batch": np.asarray([0, 1, 2, 3])}, "edge 0 joins nodes of two graphs"),
        (
            {
                "y": ARRAYS["y"],
                "attr_data": np.ones(1),
                "attr_indices": np.zeros(1, int),
                "attr_indptr": np.asarray([0, 1, 1, 1, 1]),
                "attr_shape": np.asarray([4, 2**40]),
                "edge_index": ARRAYS["edge_index"],
            },
            "GiB as a dense array",
        ),
    ],
)
def test_damaged_arrays(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message) as raised:
        jgd.load(tmp_path / "a.npz")
    assert "\n" not in str(raised.value)
    assert "a.npz" in str(raised.value)


def test_damaged_torch_files(tmp_path, graphs):
    for content, message in (
        ({"x": np.ones(3)}, "holds a dict, expected a Data"),
        ([], "holds a list of 0, expected a Data"),
        (data_of(x=np.ones((3, 1)), edge_index=np.zeros((2, 1), int)), "has no y, the labels: it has x"),
        (data_of(x=np.ones((3, 1)), edge_index=np.zeros((3, 1), int), y=np.arange(3)), "expected integers"),
        (data_of(x=np.ones((3, 1)), edge_index=np.zeros((2, 1), int), y=np.zeros(1, int)), "with one label"),
        (data_of(x=np.ones((3, 1)), edge_index=np.full((2, 1), 7), y=np.arange(3)), "7"),
        ([data_of(**vars(graphs[0])), data_of(**{**vars(graphs[1]), "y": None})], "graph 1 lacks y"),
        ((data_of(**vars(graphs[0])), {"edge_index": np.asarray([0, 5])}), "do not rise from 0 to 0"),
    ):
        with pytest.raises(DataError, match=message) as raised:
            jgd.load(torch_save(tmp_path / "a.pt", content))
        assert "\n" not in str(raised.value)
    whole = torch_save(tmp_path / "b.pt", data_of(**vars(graphs[3]))).read_bytes()
    (tmp_path / "c.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"c\.pt") as raised:
        jgd.load(tmp_path / "c.pt")
    assert "download" not in str(raised.value)


# --- any table -------------------------------------------------------------------------------------------

CELLS = st.text(
    st.characters(codec="utf-8", exclude_characters="\0\r", exclude_categories=("Cs",)), max_size=8
)


@pytest.mark.long
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=12),
    numbers=st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**9), 10**9)),
    delimiter=st.sampled_from(",;\t"),
)
def test_any_table_comes_back(tmp_path, texts, numbers, delimiter):
    numbers = [*numbers, *([None] * len(texts))][: len(texts)]
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
        out.writerow(["one", "two", "n"])
        out.writerows(
            [(*pair, "x" if n is None else repr(n)) for pair, n in zip(texts, numbers, strict=True)]
        )
    found = read_csv(tmp_path / "a.csv", text=("one", "two"))

    def wanted(cell):
        return None if cell.strip().lower() in ("", "na", "n/a", "nan", "null", "none", "?") else cell.strip()

    assert found.values["one"].tolist() == [wanted(a) for a, _ in texts]
    assert found.values["two"].tolist() == [wanted(b) for _, b in texts]
    if None in numbers:
        assert found.values["n"].tolist() == ["x" if n is None else repr(n) for n in numbers]
    else:
        assert found.values["n"].tolist() == [float(n) for n in numbers]


def test_a_column_that_turns_to_text_late_is_text(tmp_path):
    rows = [str(i) for i in range(5000)] + ["many"]
    (tmp_path / "a.csv").write_text("n,m\n" + "".join(f"{row},1\n" for row in rows))
    found = read_csv(tmp_path / "a.csv")
    assert found.values["n"].tolist() == rows
    assert found.values["m"].dtype == np.float64
    assert found.at(5000) == f"{tmp_path / 'a.csv'}, line 5002"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutants_of_tables_are_read_or_refused_in_one_line(tmp_path, data):
    nodes, edges = bytearray(NODES.encode()), bytearray(EDGES.encode())
    for content in (nodes, edges):
        for _ in range(data.draw(st.integers(0, 3))):
            at = data.draw(st.integers(0, len(content) - 1))
            content[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    (tmp_path / "nodes.csv").write_bytes(nodes)
    (tmp_path / "edges.csv").write_bytes(edges)
    message = ""
    try:
        task = jgd.load(tmp_path)
    except DataError as error:
        message = str(error)
    else:
        assert np.isfinite(task.graph.nodes).all()
    assert "\n" not in message
