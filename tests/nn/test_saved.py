"""Networks on disk: every network of `jgd.nn` comes back bit for bit, and what is no such file is refused."""

import io
import json
import zipfile

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jgd
from jgd.core import Bound, Model, as_bound, as_model, from_linen
from jgd.data import Condensed, DataError
from jgd.graph import from_edges, operator
from jgd.nn import (
    APPNP,
    GAT,
    GCN,
    GIN,
    GPRGNN,
    MLP,
    SGC,
    VGG,
    ChebNet,
    ConvNet,
    GraphSAGE,
    MobileNetV2,
    Perceptron,
    Readout,
    ResNet,
    ShuffleNetV1,
    ShuffleNetV2,
    TextTransformer,
    VisionTransformer,
    WideResNet,
)
from jgd.nn.saved import digest, read_header

KEY = jax.random.key(0)
IMAGE = jax.ShapeDtypeStruct((8, 8, 3), jnp.uint8)
ROW = jax.ShapeDtypeStruct((4,), jnp.float32)
GRAPH = from_edges(np.arange(3), np.asarray([1, 2, 0]), np.eye(3, 5, dtype=np.float32))
ARRAYS = [
    (Perceptron(3, (6, 5), dropout=0.25), ROW),
    (ResNet(3, 8, widths=(2, 2, 3, 4)), IMAGE),
    (WideResNet(3, 10, 1, dropout=0.1), IMAGE),
    (VGG(3, 8, widths=(2, 2, 2, 2, 2)), jax.ShapeDtypeStruct((16, 16, 3), jnp.uint8)),
    (MobileNetV2(3, width=0.25), IMAGE),
    (ShuffleNetV1(3, widths=(36, 48, 96), blocks=(1, 1, 1)), IMAGE),
    (ShuffleNetV2(3, size=0.5, blocks=(1, 1, 1)), IMAGE),
    (ConvNet(3, width=4, depth=2, norm="batch"), IMAGE),
    (VisionTransformer(3, patch=4, width=8, depth=1, heads=2), IMAGE),
    (TextTransformer(3, 20, width=8, depth=1, heads=2, length=6), jax.ShapeDtypeStruct((6,), jnp.int32)),
]
GNNS = [
    GCN(3, hidden=4, norm="batch"), GAT(3, hidden=4, heads=2), GIN(3, hidden=4), MLP(3, hidden=4),
    SGC(3, hops=1), APPNP(3, hidden=4, alpha=0.2), GPRGNN(3, hidden=4, hops=2), ChebNet(3, hidden=4, order=2),
    GraphSAGE(3, hidden=4, layers=3, residual=True),
]  # fmt: skip


def filled(model, inputs, *, lead=(), seed=0):
    """A network with random parameters and state, which need not be computed with."""
    shapes = jax.eval_shape(model.init, KEY, *inputs)
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=(*lead, *x.shape)), x.dtype), shapes)


def bound(net, example, **settings):
    model = as_model(net)
    batch = jax.ShapeDtypeStruct(
        (1, *example.shape), jnp.float32 if example.dtype == np.uint8 else example.dtype
    )
    return Bound(*filled(model, (batch,), **settings), model, (example,))


def same(one, other):
    leaves = [jax.tree_util.tree_flatten_with_path((net.params, net.state))[0] for net in (one, other)]
    assert [path for path, _ in leaves[0]] == [path for path, _ in leaves[1]]
    for (_, a), (_, b) in zip(*leaves, strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert jax.tree.structure(one) == jax.tree.structure(other)


@pytest.mark.parametrize(("net", "example"), ARRAYS, ids=[type(net).__name__ for net, _ in ARRAYS])
def test_every_network_of_arrays_comes_back(net, example, tmp_path):
    student = bound(net, example)
    found = jgd.load_model(jgd.save(student, tmp_path / "net.npz"))
    same(student, found)
    assert found.model is from_linen(net)  # equal settings
    assert found.example == (example,)


@pytest.mark.parametrize("net", GNNS, ids=[type(net).__name__ for net in GNNS])
def test_every_graph_network_comes_back(net, tmp_path):
    model = from_linen(net)
    inputs = operator(GRAPH, **net.adjacency), jnp.asarray(GRAPH.nodes)
    student = Bound(*filled(model, inputs), model)
    found = jgd.load_model(jgd.save(student, tmp_path / "net.npz"))
    same(student, found)
    assert found.model is model
    several = Bound(*filled(model, inputs, lead=(2,)), model)
    same(several, jgd.load_model(jgd.save(several, tmp_path / "several.npz")))


def test_no_network_of_the_package_is_forgotten():
    parts = {"Conv", "ConvNorm", "Dropout", "Linear", "Norm", "Readout"}  # layers, and what a test below has
    kinds = {name for name in jgd.nn.__all__ if isinstance(getattr(jgd.nn, name), type)}
    kinds = {name for name in kinds if issubclass(getattr(jgd.nn, name), nn.Module)}
    assert kinds == parts | {type(net).__name__ for net in (*(n for n, _ in ARRAYS), *GNNS)}


def test_a_network_within_a_network_comes_back(tmp_path):
    net = Readout(GIN(5, hidden=4), 3, pooling="mean")
    model = from_linen(net)
    inputs = operator(GRAPH, **GIN.adjacency), jnp.asarray(GRAPH.nodes), jnp.zeros(3, int), jnp.ones(1)
    student = Bound(*filled(model, inputs), model)
    found = jgd.load_model(jgd.save(student, tmp_path / "net.npz"))
    same(student, found)
    np.testing.assert_array_equal(found(*inputs).logits, student(*inputs).logits)


def test_several_seeds_and_half_precision_are_kept(tmp_path):
    student = bound(Perceptron(3, (6,)), ROW, lead=(4,))
    student = jax.tree.map(lambda x: x.astype(jnp.bfloat16), student)
    found = jgd.load_model(jgd.save(student, tmp_path / "net.npz"))
    same(student, found)
    assert jax.vmap(lambda net: net(np.ones((2, 4), np.float32)).logits)(found).shape == (4, 2, 3)


def test_where_a_network_comes_from_is_kept(tmp_path):
    said = {"recipe": "offline", "task": "blobs", "seed": 3, "settings": {"steps": 4, 1: None}}
    path = jgd.save(bound(Perceptron(3, (6,)), ROW), tmp_path / "net.npz", provenance=said)
    header = read_header(path)
    assert header["provenance"] == {**said, "settings": {"steps": 4, "1": None}}
    assert header["network"] == {
        "class": "Perceptron", "settings": {"num_classes": 3, "hidden": [6], "dropout": 0.0}
    }  # fmt: skip
    with np.load(path, allow_pickle=False) as file:  # plain arrays, whoever reads them
        assert {file[name].dtype.name for name in file.files} == {"uint8", "float32"}
    with pytest.raises(DataError, match="provenance must be plain JSON"):
        jgd.save(bound(Perceptron(3, (6,)), ROW), tmp_path / "other.npz", provenance={"f": print})
    assert [p.name for p in tmp_path.iterdir()] == ["net.npz"]


class Own(nn.Module):
    width: int = 3

    @nn.compact
    def __call__(self, x, train):
        return nn.BatchNorm(use_running_average=not train)(nn.Dense(self.width)(x))


class OwnGraph(nn.Module):
    width: int = 4
    adjacency = {"normalize": "sym", "self_loops": True}  # noqa: RUF012 - as the networks of the package

    @nn.compact
    def __call__(self, a, x):
        return a @ nn.Dense(self.width)(x)


def bare(width=3):
    def init(key, x):
        return (jnp.zeros((x.shape[-1], width)), [jnp.ones(2)]), ()

    return Model(init, lambda p, s, x, key=None, train=False: (x @ p[0], s))


def test_other_networks_come_back_with_their_network(tmp_path):
    module = nnx.Sequential(nnx.Linear(4, 3, rngs=nnx.Rngs(0)), nnx.Linear(3, 3, rngs=nnx.Rngs(1)))
    other = nnx.Sequential(nnx.Linear(4, 3, rngs=nnx.Rngs(2)), nnx.Linear(3, 3, rngs=nnx.Rngs(3)))
    graphs = from_linen(OwnGraph())
    a = operator(GRAPH, **OwnGraph.adjacency)
    for student, net, wrong, first in (
        (bound(Own(), ROW), Own(), Own(4), "params/BatchNorm_0/bias of shape [3], Own has [4]"),
        (bound(Own(), ROW), Own(), Perceptron(3, ()), "holds params/BatchNorm_0/bias where Perceptron has"),
        (bound(bare(), ROW), bare(), bare(2), "params/0 of shape [4, 3], the network has [4, 2]"),
        (as_bound(module), other, nnx.Linear(4, 3, rngs=nnx.Rngs(0)), "params/layers/0/bias/value where"),
        (
            Bound(*filled(graphs, (a, jnp.asarray(GRAPH.nodes))), graphs), OwnGraph(), OwnGraph(5),
            "params/Dense_0/bias of shape [4], OwnGraph has [5]",
        ),
    ):  # fmt: skip
        path = jgd.save(student, tmp_path / "net.npz")
        with pytest.raises(DataError, match=r"needs its network, load_model\(path, net=...\): it is "):
            jgd.load_model(path)
        found = jgd.load_model(path, net)
        for one, two in zip(*map(jax.tree.leaves, (student, found)), strict=True):
            np.testing.assert_array_equal(one, two)
        if student.example:
            x = np.ones((2, 4), np.float32)
            np.testing.assert_allclose(found(x).logits, student(x).logits, rtol=1e-6)
        with pytest.raises(DataError) as raised:
            jgd.load_model(path, wrong)
        assert first in str(raised.value)
        assert "\n" not in str(raised.value)


def test_a_setting_that_is_a_function_needs_the_network(tmp_path):
    net = jgd.nn.Linear(3, kernel_init=nn.initializers.ones)

    class Kept(jgd.nn.Linear):
        pass

    for module, why in (
        (net, "its setting Linear.kernel_init is a"),
        (Kept(3), "is a Kept, which is not in"),
    ):
        student = bound(module, ROW)
        path = jgd.save(student, tmp_path / "net.npz")
        with pytest.raises(DataError, match=why):
            jgd.load_model(path)
        same(student, jgd.load_model(path, module))


def test_what_is_no_network_cannot_be_saved(tmp_path):
    student = bound(Perceptron(3, (6,)), ROW)
    for what, message in (
        ({"a": student}, "one network to a file, got a dict of a"),
        (student.params, "one network to a file"),
        (Perceptron(3), "got a Perceptron"),
        (Bound({"k": jax.random.key(0)}, (), student.model), "params/k cannot be stored"),
        (Bound({"k": np.asarray(["a", None])}, (), student.model), "params/k is a ndarray"),
    ):
        with pytest.raises(DataError, match=message):
            jgd.save(what, tmp_path / "net.npz")
    assert not list(tmp_path.iterdir())


def test_a_condensed_set_and_a_network_are_told_apart(tmp_path):
    small = Condensed(data=np.ones((2, 3)), targets=np.arange(2))
    data = jgd.save(small, tmp_path / "data.npz")
    np.testing.assert_array_equal(jgd.data.artifact.load(data).data, small.data)
    with pytest.raises(DataError, match=r"condensed dataset: load it by jgd\.data\.artifact\.load"):
        jgd.load_model(data)
    net = jgd.save(bound(Perceptron(3, (6,)), ROW), tmp_path / "net.npz")
    with pytest.raises(DataError, match=r"saved network: load it by jgd\.load_model"):
        jgd.data.artifact.load(net)


def rewritten(path, change):
    """The file with another header or other arrays, as whoever makes one up would write it."""
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(arrays["header"].tobytes())
    header, arrays = change(header, arrays) or (header, arrays)
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(path, **arrays)
    return path


def test_damaged_and_other_files_are_told_in_one_line(tmp_path):
    path = jgd.save(bound(Perceptron(3, (6,)), ROW), tmp_path / "net.npz")
    whole = path.read_bytes()

    def refused(message):
        with pytest.raises(DataError, match=message) as raised:
            jgd.load_model(path)
        assert "\n" not in str(raised.value)

    def with_changed(name, value):
        return lambda header, arrays: header.update({name: value})

    def array_changed(header, arrays):
        arrays["array0"] = arrays["array0"] + 1

    path.unlink()
    refused("there is no file")
    for content in (b"", b"not a zip", whole[: len(whole) // 2]):
        path.write_bytes(content)
        refused("damaged or not a saved network")
    np.savez(path, x=np.ones(2))
    refused("no header")
    np.savez(path, header=np.ones(2))
    refused("damaged|not a saved network")
    for change, message in (
        (array_changed, "was changed after it was written"),
        (with_changed("provenance", {"seed": 9}), "was changed after it was written"),
        (with_changed("version", 2), "format version 2, this jgd reads up to 1"),
        (with_changed("format", "other"), "does not name jgd.model"),
        (with_changed("checksum", None), "was changed"),
    ):
        path.write_bytes(whole)
        rewritten(path, change)
        refused(message)


def test_a_header_that_was_made_up_is_refused(tmp_path):
    """With a right checksum: whatever is in it, one line says so."""
    path = jgd.save(bound(Perceptron(3, (6,)), ROW), tmp_path / "net.npz")
    whole = path.read_bytes()
    network = {"class": "Perceptron", "settings": {"num_classes": 3, "hidden": [6]}}

    def forged(name, value):
        def change(header, arrays):
            header[name] = value
            header["checksum"] = digest(header, {k: x for k, x in arrays.items() if k != "header"})

        return change

    for name, value, message in (
        ("network", {"class": "os", "settings": {}}, "cannot make"),
        ("network", network | {"settings": {"made_up": 3}}, "cannot make"),
        ("network", network | {"settings": {"num_classes": "x"}}, "does not|cannot|Perceptron"),
        (
            "network",
            network | {"settings": {"num_classes": 3, "hidden": [10**9]}},
            "size 1000000000 does not",
        ),
        (
            "network",
            {"class": "GCN", "settings": {"num_classes": 3, "layers": 10**9}},
            "size 1000000000 does",
        ),
        ("network", [], "does not describe|needs"),
        ("params", [], "holds 0 arrays of params, Perceptron has 4"),
        ("params", [{"array": "array9"}], "does not describe"),
        ("params", [{"array": "array0", "name": "x", "shape": [6], "dtype": "O", "path": ["x"]}], "damaged"),
        ("example", [[[9], "float32"]], r"Dense_0/kernel of shape \[4, 6\], Perceptron has \[9, 6\]"),
        ("example", 3, "does not describe"),
    ):
        path.write_bytes(whole)
        rewritten(path, forged(name, value))
        with pytest.raises(DataError, match=message) as raised:
            jgd.load_model(path)
        assert "\n" not in str(raised.value)


def test_every_changed_byte_is_noticed_or_changes_nothing(tmp_path):
    rng = np.random.default_rng(0)
    path = jgd.save(bound(Perceptron(3, (6,)), ROW), tmp_path / "net.npz")
    whole, before = path.read_bytes(), jgd.load_model(path)
    messages = []
    for at in rng.integers(0, len(whole), 120):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << rng.integers(8))]) + whole[at + 1 :])
        try:
            same(before, jgd.load_model(path))
        except DataError as error:
            messages.append(str(error))
    assert not any("\n" in text for text in messages)
    assert len(messages) > 60


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = jgd.save(bound(Perceptron(3, (6,)), ROW), tmp_path / "net.npz")
    before = path.read_bytes()

    def full(file, **arrays):
        file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="no space"):
        jgd.save(bound(Perceptron(3, (7,)), ROW), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["net.npz"]
    assert zipfile.is_zipfile(io.BytesIO(before))
