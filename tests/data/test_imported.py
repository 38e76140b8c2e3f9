"""Condensed graphs of other implementations: read without PyTorch, and without trusting the file."""

import io
import os
import pickle
import re
import types
import zipfile
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest

import jgd
from jgd.data import DataError, Training, contextual_sbm, import_condensed
from jgd.data.imported import labels_by_count, read_array, read_torch

TASK = contextual_sbm(num_nodes=60, num_classes=3, num_features=5, mean_degree=4)


class FloatStorage:
    """Stands for ``torch.FloatStorage`` in a pickle."""


class LongStorage:
    """Stands for ``torch.LongStorage``."""


class Call:
    """Pickles as a call of a function of some module."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def _rebuild_tensor_v2(*args):
    """Stands for the function of that name."""


def _rebuild_parameter(*args):
    """Stands for the function of that name."""


for thing, module in (
    (FloatStorage, "torch"),
    (LongStorage, "torch"),
    (_rebuild_tensor_v2, "torch._utils"),
    (_rebuild_parameter, "torch._utils"),
):
    thing.__module__ = module


class Writer(pickle._Pickler):  # the one in Python, which does not look whether a name exists
    """Writes as ``torch.save`` does."""

    def persistent_id(self, obj):
        return obj[1] if isinstance(obj, tuple) and len(obj) == 2 and obj[0] == "pid" else None

    def save_global(self, obj, name=None):
        self.write(f"c{obj.__module__}\n{obj.__name__}\n".encode())
        self.memoize(obj)

    dispatch = pickle._Pickler.dispatch | dict.fromkeys(
        (type, types.FunctionType, types.BuiltinFunctionType), save_global
    )


def tensor(key, array, *, stride=None, offset=0, count=None, size=None):
    storage = LongStorage if array.dtype == np.int64 else FloatStorage
    count = array.size if count is None else count
    stride = tuple(s // array.itemsize for s in array.strides) if stride is None else stride
    pid = ("pid", ("storage", storage, key, "cuda:0", count))
    return Call(_rebuild_tensor_v2, pid, offset, size or array.shape, stride, False, OrderedDict())


def save(path, value, storages):
    stream = io.BytesIO()
    Writer(stream, protocol=2).dump(value)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", stream.getvalue())
        for key, array in storages.items():
            archive.writestr(f"archive/data/{key}", array.tobytes())
        archive.writestr("archive/version", "3\n")
    return path


X = np.sin(np.arange(30.0) ** 2).reshape(6, 5).astype(np.float32)


def test_tensors_parameters_views_and_containers(tmp_path):
    np.testing.assert_array_equal(read_torch(save(tmp_path / "a.pt", tensor("0", X), {"0": X})), X)
    parameter = Call(_rebuild_parameter, tensor("0", X), True, OrderedDict())
    np.testing.assert_array_equal(read_torch(save(tmp_path / "b.pt", parameter, {"0": X})), X)
    view = tensor("0", X, stride=(1, 5), size=(5, 5), offset=5)  # rows 1..5, transposed
    np.testing.assert_array_equal(read_torch(save(tmp_path / "c.pt", view, {"0": X})), X[1:].T)
    both = {"x": tensor("0", X), "y": tensor("1", np.arange(6))}
    found = read_torch(save(tmp_path / "d.pt", both, {"0": X, "1": np.arange(6)}))
    np.testing.assert_array_equal(found["y"], np.arange(6))
    np.testing.assert_array_equal(read_array(tmp_path / "d.pt", ("feat", "x")), X)
    with pytest.raises(DataError, match="holds x, y: none of adj"):
        read_array(tmp_path / "d.pt", ("adj",))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Call(os.system, "touch hacked"), "system, which is not plain data"),
        (tensor("0", X, stride=(5, 2)), "reaches number 33 of a storage of 30"),
        (tensor("0", X, stride=(5, -1)), "makes no sense"),
        (tensor("0", X, count=31), "states 31"),
        (tensor("../version", X), "no storage of numbers"),
        (tensor("1", X), "cannot be read"),
        (["text"], "holds a list, expected an array"),
    ],
)
def test_hostile_and_damaged_files(tmp_path, monkeypatch, value, message):
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path / "a.pt", value, {"0": X})
    with pytest.raises(DataError, match=message):
        read_array(path)
    assert not (tmp_path / "hacked").exists()


class Data:
    """Stands for ``torch_geometric.data.data.Data``."""


class GlobalStorage:
    """Stands for ``torch_geometric.data.storage.GlobalStorage``."""


class DataTensorAttr:
    """Stands for the class of that name, which a graph of version 2 names."""


class DataEdgeAttr:
    """Stands for the class of that name, which a graph of version 2 names."""


Data.__module__ = DataTensorAttr.__module__ = DataEdgeAttr.__module__ = "torch_geometric.data.data"
GlobalStorage.__module__ = "torch_geometric.data.storage"


def geometric(version, fields):
    """A graph as version 1 or 2 of PyTorch Geometric pickles it; of version 2 the store knows its graph."""
    data = Data()
    if version == 1:
        names = ("x", "edge_index", "edge_attr", "y", "pos", "norm", "face")
        vars(data).update(dict.fromkeys(names), **fields, __num_nodes__=6)
    else:
        store = GlobalStorage()
        vars(store).update(_mapping=fields, _parent=data)
        vars(data).update(_edge_attr_cls=DataEdgeAttr, _tensor_attr_cls=DataTensorAttr, _store=store)
    return data


@pytest.mark.parametrize("version", [1, 2])
def test_graphs_of_pytorch_geometric(tmp_path, version):
    """Checked against torch_geometric/data/data.py and storage.py of version 2.8 and data.py of 1.7."""
    edges = np.asarray([[0, 1, 2, 3], [1, 0, 3, 2]])
    fields = {"x": tensor("0", X), "edge_index": tensor("1", edges), "y": tensor("2", np.arange(6) % 2)}
    storages = {"0": X, "1": edges, "2": np.arange(6) % 2}
    path = save(tmp_path / "a.pt", geometric(version, fields), storages)
    data = read_torch(path)
    np.testing.assert_array_equal(data.x, X)
    np.testing.assert_array_equal(data.edge_index, edges)
    assert set(vars(data)) - {"num_nodes"} == {"x", "edge_index", "y"}
    task = jgd.data.from_pyg(data)
    assert task.labels.tolist() == [0, 1, 0, 1, 0, 1]
    graphs = read_torch(save(tmp_path / "b.pt", [geometric(version, fields)] * 2, storages))
    assert [type(graph) for graph in graphs] == [types.SimpleNamespace] * 2


def test_arrays_of_numpy_beside_tensors(tmp_path):
    """And what is not plain data beside them is refused by name."""
    both = {"t": tensor("0", X), "size": (6, 5)}
    assert read_torch(save(tmp_path / "a.pt", both, {"0": X}))["size"] == (6, 5)
    sparse = Call(GlobalStorage, 1)
    with pytest.raises(DataError, match="not callable"):
        read_torch(save(tmp_path / "b.pt", sparse, {}))


def test_truncated_missing_and_old_files(tmp_path):
    whole = save(tmp_path / "a.pt", tensor("0", X), {"0": X}).read_bytes()
    (tmp_path / "b.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "c.pt").write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
    for name in ("b", "c"):
        with pytest.raises(DataError, match="no archive of torch"):
            read_torch(tmp_path / f"{name}.pt")
    with pytest.raises(DataError, match="missing"):
        read_torch(tmp_path / "missing.pt")


def test_labels_by_count():
    """The rarest class first; among equals the first to appear; the last takes the rest."""
    labels = np.asarray([2, 2, 2, 2, 1, 1, 0, 0, 2, 1])
    ten = TASK.induced(np.arange(10))
    task = replace(ten, labels=labels, train=np.arange(9), val=None, test=None)
    assert labels_by_count(task, 4).tolist() == [1, 0, 2, 2]
    assert labels_by_count(task, 7).tolist() == [1, 0, 2, 2, 2, 2, 2]
    with pytest.raises(ValueError, match="too few"):
        labels_by_count(task, 2)


def test_import(rng, tmp_path):
    np.save(tmp_path / "x.npy", X)
    bare = import_condensed(tmp_path / "x.npy", TASK)
    assert bare.training == Training(adjacency="identity", targets="classes")
    np.testing.assert_array_equal(bare.targets, labels_by_count(TASK, 6))
    a = np.triu(rng.uniform(size=(6, 6)), 1).astype(np.float32)
    soft = rng.dirichlet(np.ones(3), 6)
    np.savez(tmp_path / "all.npz", feat=X, label=soft, adj=a + a.T)
    small = import_condensed(tmp_path / "all.npz", TASK, method="theirs")
    assert small.training == Training(adjacency="raw", targets="probabilities")
    np.testing.assert_allclose(jgd.graph.adjacency(small.data).toarray(), a + a.T)
    assert small.provenance["method"] == "theirs"
    jgd.data.artifact.save(small, tmp_path / "small.npz")
    again = jgd.data.artifact.load(tmp_path / "small.npz")
    np.testing.assert_array_equal(again.targets, small.targets)
    np.save(tmp_path / "eye.npy", np.eye(6))
    alone = import_condensed(tmp_path / "x.npy", TASK, adjacency=tmp_path / "eye.npy")
    assert alone.training.adjacency == "identity"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 2, 0, 1, -1], "label -1 of row 5 is none of the classes 0 to 2"),
        ([0, 1, 2, 0, 1, 3], "label 3 of row 5"),
        ([0, 1, 2, 0, 1, 2_000_000_000], "label 2000000000 of row 5"),
        ([0, 1, 0.5, 0, 1, 2], "label 0.5 of row 2"),
        ([0, 1, np.nan, 0, 1, 2], "row 2 of the labels holds a number that is not finite"),
        (np.eye(6, 2), "has 2 columns, the task has 3 classes"),
        (np.full((6, 3), np.nan), "not finite"),
        (3, "has shape ()"),
        ([1j] * 6, "label 1j of row 0"),
        (["a"] * 6, "label a of row 0"),
    ],
)
def test_labels_that_are_no_classes(tmp_path, labels, message):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", np.asarray(labels))
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        import_condensed(tmp_path / "x.npy", TASK, labels=tmp_path / "y.npy")
    assert "y.npy" in str(error.value)


def test_integral_floats_are_classes(tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", np.asarray([[0.0], [1], [2], [0], [1], [2]]))
    small = import_condensed(tmp_path / "x.npy", TASK, labels=tmp_path / "y.npy")
    assert small.targets.tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("what", ["x", "a"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300, 1j])
def test_numbers_that_are_not_finite(tmp_path, what, value):
    arrays = {"x": X.astype(type(value)), "a": np.ones((6, 6), type(value))}
    arrays[what][4, 2] = value
    if what == "a":
        arrays["x"] = X
    np.save(tmp_path / "x.npy", arrays["x"])
    np.save(tmp_path / "a.npy", arrays["a"])
    with pytest.raises(ValueError, match=rf"{what}\.npy: .*(row 4|complex128)"):
        import_condensed(tmp_path / "x.npy", TASK, adjacency=tmp_path / "a.npy")


def test_a_tensor_promises_no_more_than_its_storage_holds(tmp_path):
    """A stride of 0 states gigabytes in a file of a kilobyte; compression hides them in a storage."""
    path = save(tmp_path / "a.pt", tensor("0", X, stride=(0, 0), size=(2**20, 2**20)), {"0": X})
    with pytest.raises(DataError, match="shares a storage of 30"):
        read_torch(path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/1", bytes(2**25))
    with pytest.raises(DataError, match="limit"):
        read_torch(path)


def test_shapes_that_do_not_fit(tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "wide.npy", np.ones((6, 9)))
    np.save(tmp_path / "short.npy", np.ones(5, int))
    with pytest.raises(ValueError, match="has 5 features"):
        import_condensed(tmp_path / "wide.npy", TASK)
    with pytest.raises(ValueError, match="there are 6 nodes"):
        import_condensed(tmp_path / "x.npy", TASK, labels=tmp_path / "short.npy")
    with pytest.raises(ValueError, match="there are 6 nodes"):
        import_condensed(tmp_path / "x.npy", TASK, adjacency=tmp_path / "wide.npy")
