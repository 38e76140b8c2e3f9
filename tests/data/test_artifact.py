import io
import json
import os

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jgd.data import Condensed, DataError, DenseGraphs, Training, checksum
from jgd.data.artifact import VERSION, load, save
from jgd.graph import from_edges, sparse_features
from jgd.registry import Choice


def same(a, b):
    """Equal structure and types, and arrays of the same bits."""
    if isinstance(a, np.ndarray | jax.Array):
        a = np.asarray(a)
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, DenseGraphs):
        a, b = vars(a), vars(b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, tuple | list):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or a != a)


def equal(a, b):
    return all(same(value, getattr(b, name)) for name, value in vars(a).items())


arrays = hnp.arrays(
    st.one_of(hnp.floating_dtypes(), hnp.integer_dtypes(), hnp.boolean_dtypes(), hnp.unicode_string_dtypes()),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
names = st.text(max_size=5)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
named = st.dictionaries(
    names, st.none() | arrays | st.text(max_size=3) | st.floats(allow_nan=False) | st.booleans(), max_size=3
)
finite = {"allow_nan": False, "allow_infinity": False}


def numbers(*shape):
    """Real finite numbers of any type."""
    kinds = hnp.floating_dtypes() | hnp.integer_dtypes() | hnp.boolean_dtypes()
    return kinds.flatmap(
        lambda dtype: hnp.arrays(
            dtype,
            shape,
            elements=hnp.from_dtype(dtype, **(finite if dtype.kind == "f" else {})),
        )
    )


choices = st.none() | st.builds(Choice, names, st.dictionaries(names, json_values, max_size=2))
trainings = st.builds(
    Training,
    adjacency=st.sampled_from(["raw", "normalized", "identity"]),
    learning_rate=st.none() | st.floats(0, 1e3),
    steps=st.none() | st.integers(1, 1000),
    pooling=st.sampled_from(["sum", "mean", "max", None]),
    augment=choices,
    predictor=choices,
)


@st.composite
def sound(draw):
    """A condensed dataset that `validate` takes: one graph, a batch of graphs, or an array."""
    n_node = draw(hnp.arrays(np.int32, st.integers(1, 3), elements=st.integers(1, 4)))
    n_edge = draw(hnp.arrays(np.int64, len(n_node), elements=st.integers(0, 3)))
    first, size = np.repeat(np.cumsum(n_node) - n_node, n_edge), np.repeat(n_node, n_edge)
    ends = [
        first + draw(hnp.arrays(np.uint8, len(first), elements=st.integers(0, 255))) % np.maximum(size, 1)
        for _ in range(2)
    ]
    nodes, edges, n = int(n_node.sum()), int(n_edge.sum()), len(n_node)
    graph = jraph.GraphsTuple(
        nodes=draw(st.none() | numbers(nodes, 2) | st.dictionaries(names, numbers(nodes), max_size=2)),
        edges=draw(st.none() | numbers(edges) | st.dictionaries(names, numbers(edges, 2), max_size=2)),
        senders=ends[0].astype(np.int32),
        receivers=ends[1],
        n_node=n_node,
        n_edge=n_edge,
        globals=draw(st.none() | arrays),
    )
    count = nodes if n == 1 else n
    classes = hnp.arrays(np.int32, count, elements=st.integers(0, 9))
    return Condensed(
        data=draw(st.just(graph) | numbers(count, 3)),
        targets=draw(classes | numbers(count, 3)),
        weights=draw(st.none() | hnp.arrays(np.float32, count, elements=st.floats(0, 1, width=32))),
        extras=draw(named),
        training=draw(trainings),
        provenance=draw(st.dictionaries(names, json_values, max_size=3)),
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(condensed=sound())
def test_round_trip(condensed, tmp_path):
    back = load(save(condensed, tmp_path / "c.npz"))
    assert equal(condensed, back)
    assert checksum(condensed) == checksum(back)


def test_nan_among_plain_values(tmp_path):
    """JSON has one NaN only; arrays keep the bits of theirs."""
    extras = {"plain": -np.nan, "array": np.array([-np.nan, np.inf])}
    before = Condensed(data=np.ones((2, 1)), targets=np.array([0, 1]), extras=extras)
    after = load(save(before, tmp_path / "c.npz"))
    assert np.isnan(after.extras["plain"])
    assert same(before.extras["array"], after.extras["array"])


def example():
    graph = from_edges(
        np.array([0, 1]), np.array([1, 0]), jnp.ones((2, 3), jnp.bfloat16), {"weight": np.ones(2, np.float32)}
    )
    return Condensed(
        data=graph,
        targets=jnp.array([0, 1]),
        extras={"scale": jnp.bfloat16(0.1), "cut": (1, [2.5, None])},
        training=Training(learning_rate=0.5),
        provenance={"method": "test", "seed": 0},
    )


def test_jax_types_and_scalars(tmp_path):
    before, after = example(), load(save(example(), tmp_path / "deep" / "c.npz"))
    assert same(before.data._asdict(), after.data._asdict())
    assert after.data.nodes.dtype == jnp.bfloat16
    assert same(before.extras["cut"], after.extras["cut"])
    assert float(after.extras["scale"]) == float(before.extras["scale"])
    assert after.training == Training(learning_rate=0.5)
    assert after.weights is None
    assert os.listdir(tmp_path / "deep") == ["c.npz"]


def test_dense_graphs(tmp_path):
    data = DenseGraphs(x=np.ones((2, 3, 1)), adj=np.ones((2, 3, 3)), mask=np.ones((2, 3), bool), loops=True)
    before = Condensed(data=data, targets=np.zeros(2, int))
    assert equal(before, load(save(before, tmp_path / "c.npz")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extras": {"bad": object()}}, "extras/bad is a object"),
        ({"extras": {"bad": np.asarray([None])}}, "Python objects"),
        ({"extras": {"bad": {1: 2}}}, "keys of extras/bad"),
        ({"extras": {"key": jax.random.key(0)}}, "extras/key cannot be stored"),
        ({"training": Training(predictor=Choice("ridge", {"fn": print}))}, "plain JSON"),
        ({"data": sparse_features(np.eye(2))}, "data is a SparseOperator"),
    ],
)
def test_what_cannot_be_stored(tmp_path, change, message):
    path = save(example(), tmp_path / "c.npz")
    before = path.read_bytes()
    with pytest.raises(DataError, match=message):
        save(Condensed(**{**vars(example()), **change}), path)
    assert path.read_bytes() == before


def test_damaged_files(tmp_path):
    path = save(example(), tmp_path / "c.npz")
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[60] ^= 255
    for bad in (b"", b"garbage", content[:-30], content[: len(content) // 2], bytes(flipped)):
        path.write_bytes(bad)
        with pytest.raises(DataError, match=r"c\.npz"):
            load(path)
    with pytest.raises(DataError, match="no file"):
        load(tmp_path / "absent.npz")


def test_foreign_and_newer_files(tmp_path, evil):
    path = tmp_path / "c.npz"

    def header(**values):
        np.savez(path, header=np.frombuffer(json.dumps(values).encode(), np.uint8))

    np.savez(path, x=np.ones(3))
    with pytest.raises(DataError, match="no header"):
        load(path)
    header(format="other")
    with pytest.raises(DataError, match="does not say"):
        load(path)
    header(format="jgd.condensed", version=VERSION + 1)
    with pytest.raises(DataError, match="upgrade jgd"):
        load(path)
    header(format="jgd.condensed", version=VERSION, data={"array": "absent"})
    with pytest.raises(DataError, match="cannot be read"):
        load(path)
    attack, marker = evil
    np.savez(path, header=np.asarray([attack], object))
    with pytest.raises(DataError, match="damaged"):
        load(path)
    assert not marker.exists()


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = save(example(), tmp_path / "c.npz")
    before = path.read_bytes()

    def fail(file, **_):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="disk full"):
        save(example(), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["c.npz"]


def test_no_pickles_inside(tmp_path):
    path = save(example(), tmp_path / "c.npz")
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)


def test_checksum_sees_arrays_only():
    base = checksum(example())
    assert len(base) == 64
    assert checksum(Condensed(**{**vars(example()), "provenance": {}})) == base
    assert checksum(Condensed(**{**vars(example()), "targets": np.array([0, 1], np.int32)})) == base
    assert checksum(Condensed(**{**vars(example()), "targets": np.array([1, 0], np.int32)})) != base
    assert checksum({"a": np.zeros(2)}) != checksum({"b": np.zeros(2)})
    assert checksum({"a": np.zeros(4)}) != checksum({"a": np.zeros((2, 2))})
    assert checksum([np.arange(3, dtype=">i4")]) == checksum([np.arange(3, dtype="<i4")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"senders": np.asarray([0, 2])}, "senders: 2 in row 1 is no node"),
        ({"senders": np.asarray([-1, 0])}, "senders holds -1"),
        ({"receivers": np.asarray([0.0, 1.0])}, "receivers is float64"),
        ({"receivers": np.asarray([0])}, "receivers has 1 rows, n_edge adds up to 2"),
        ({"n_node": np.asarray([3])}, "expected 3 rows"),
        ({"n_edge": np.asarray([2, 0])}, "must count the same graphs"),
        ({"nodes": np.asarray([[1.0, np.nan], [0, 0]])}, "nodes holds NaN or infinity, first in row 0"),
        ({"nodes": np.ones((2, 2), complex)}, "nodes is an array of complex128"),
        ({"nodes": np.asarray([["a"], ["b"]])}, "expected real numbers"),
        ({"nodes": np.ones(2)}, "expected .2, features."),
        ({"edges": np.asarray([1, np.inf])}, "edges holds NaN or infinity, first in row 1"),
    ],
)
def test_graphs_that_are_none_are_refused_on_load(tmp_path, change, message):
    small = example()
    broken = Condensed(**{**vars(small), "data": small.data._replace(**change)})
    path = save(broken, tmp_path / "c.npz")
    with pytest.raises(DataError, match=message) as error:
        load(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": np.asarray([0, -1])}, "targets: -1 in row 1"),
        ({"targets": np.asarray([0, 2**31])}, "is no class"),
        ({"targets": np.asarray([0.0, 1.0])}, "expected integer classes"),
        ({"targets": np.asarray([0, 1, 2])}, "targets have shape"),
        ({"targets": np.asarray(3)}, "targets have shape"),
        ({"targets": np.asarray([[np.nan, 1], [0, 1]])}, "targets holds NaN"),
        ({"targets": "words"}, "targets is a str"),
        ({"weights": np.asarray([1.0, np.inf])}, "weights holds NaN"),
        ({"weights": np.asarray([1.0, -1.0])}, "at least 0"),
        ({"provenance": {"dataset": "two\nlines"}}, "dataset is"),
        ({"provenance": {"method": 7}}, "method is '7'"),
        ({"data": np.zeros((0, 3))}, "different lengths, or none"),
        ({"data": None}, "no examples"),
    ],
)
def test_sets_that_are_none_are_refused_on_load(tmp_path, change, message):
    path = save(Condensed(**{**vars(example()), **change}), tmp_path / "c.npz")
    with pytest.raises(DataError, match=message) as error:
        load(path)
    assert "\n" not in str(error.value)


def write_version_1(path, train, preprocess=None, **extras):
    """Write a file as format 1 had it: plain values in ``train``, and a transform in ``preprocess``."""
    content = {"data": np.ones((2, 3), np.float32), "targets": np.asarray([0, 1]), **extras}
    spec = {name: {"array": name, "name": name} for name in content}
    header = {
        "format": "jgd.condensed",
        "version": 1,
        "data": spec["data"],
        "targets": spec["targets"],
        "weights": None,
        "preprocess": {"dict": preprocess or {}},
        "extras": {"dict": {name: spec[name] for name in extras}},
        "train": train,
        "provenance": {"method": "old"},
    }
    np.savez(path, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **content)
    return path


def test_files_of_version_1_are_read(tmp_path):
    path = tmp_path / "old.npz"
    small = load(write_version_1(path, {"structure": "identity", "targets": "int", "lr": 0.1, "epochs": 30}))
    assert small.training == Training(adjacency="identity", targets="classes", learning_rate=0.1, steps=30)
    assert small.provenance == {"method": "old"}
    assert load(write_version_1(path, {})).training == Training()
    kernel = {"predictor": "sntk", "targets": "int", "rounds": 2, "ridge": 0.5}
    small = load(write_version_1(path, kernel, center=np.zeros(3)))
    assert small.training.predictor == Choice("sntk", {"rounds": 2, "ridge": 0.5})
    assert list(small.extras) == ["center"]
    rooted = load(write_version_1(path, {"pool": "root", "depth": 2}, root=np.ones(2, bool)))
    assert (rooted.training, rooted.provenance["train"]) == (Training(), {"pool": "root", "depth": 2})
    whitened = {"op": "zca", "mean": {"array": "center", "name": "center"}}
    small = load(write_version_1(path, {}, whitened, center=np.full(3, 2.0)))
    assert small.training.preprocess == Choice("zca", {})
    np.testing.assert_array_equal(small.extras["preprocess/mean"], np.full(3, 2.0))
    for train, message in (({"structure": "dense"}, "adjacency is 'dense'"), ([], "train is a list")):
        with pytest.raises(DataError, match=message):
            load(write_version_1(path, train))


def test_trainings_that_are_none_are_refused(tmp_path):
    path = tmp_path / "c.npz"
    save(example(), path)
    with np.load(path) as file:
        content = dict(file)
    for change, message in (
        ({"momentum": 0.9}, "unknown field 'momentum'"),
        (3, "training is a int"),
        ({"predictor": "ridge"}, "predictor is 'ridge', expected a name and its settings"),
        ({"predictor": {"name": 3, "settings": {}}}, "predictor is"),
        ({"augment": {"name": "mixup", "settings": []}}, "augment is"),
        ({"adjacency": "dense"}, "adjacency is 'dense', expected one of raw, normalized"),
        ({"adjacency": ["raw"]}, "adjacency is"),
        ({"targets": "logits"}, "the targets are logits, but"),
        ({"steps": "many"}, "steps is 'many', expected a whole number"),
        ({"steps": 0}, "steps is '0'"),
        ({"learning_rate": -1.0}, "learning_rate is '-1.0'"),
        ({"dropout": True}, "dropout is 'True'"),
        ({"pooling": "root"}, "pooling is 'root', expected one of sum"),
    ):
        header = json.loads(content["header"].tobytes()) | {"training": change}
        np.savez(path, **content | {"header": np.frombuffer(json.dumps(header).encode(), np.uint8)})
        with pytest.raises(DataError, match=message):
            load(path)


def test_what_is_no_condensed_set_is_named(tmp_path):
    with pytest.raises(DataError, match=r"writes a Condensed, got a dict: jgd\.save writes networks"):
        save({"x": np.ones(2)}, tmp_path / "x.npz")
    assert not list(tmp_path.iterdir())
