"""Networks as programs: they run in a process that knows JAX alone."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgd.core import Bound, from_linen
from jgd.graph import from_edges, operator
from jgd.nn import GCN, ConvNet, Perceptron, TextTransformer

KEY = jax.random.key(0)
RUN = """
import sys
import jax, numpy as np
import jax.experimental.sparse  # has the kernel of products with sparse matrices on CPU
files = np.load(sys.argv[1])
for name in sys.argv[2:]:
    with open(name + ".jaxexport", "rb") as file:
        run = jax.export.deserialize(bytearray(file.read())).call
    key = name.rpartition("/")[2]
    np.testing.assert_allclose(run(files[key]), files[key + "-logits"], rtol=1e-4, atol=1e-5)
assert not any(name == "jgd" or name.startswith("jgd.") for name in sys.modules)
print("equal", len(sys.argv) - 2)
"""


def bound(net, x):
    model = from_linen(net)
    example = (jax.ShapeDtypeStruct(x.shape[1:], x.dtype),)
    floats = jnp.asarray(x, jnp.float32) if x.dtype == np.uint8 else x
    return Bound(*model.init(KEY, floats), model, example)


@pytest.mark.long
def test_programs_run_without_this_library(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for name, net, x in (
        ("rows", Perceptron(3, (6,)), rng.normal(size=(7, 4)).astype(np.float32)),
        ("pixels", ConvNet(3, width=4, depth=1, norm="batch"), rng.bytes(80)),
    ):
        x = np.frombuffer(x, np.uint8).reshape(5, 4, 4, 1) if isinstance(x, bytes) else x
        student = bound(net, x)
        program = student.export(tmp_path / f"{name}.jaxexport", platforms=("cpu", "cuda", "tpu"))
        assert program.platforms == ("cpu", "cuda", "tpu")
        arrays |= {name: x, f"{name}-logits": np.asarray(jax.jit(student)(x).logits)}
    features = rng.normal(size=(4, 5)).astype(np.float32)
    graph = from_edges(np.arange(4), np.asarray([1, 2, 3, 0]), features)
    net = GCN(3, hidden=4)
    model, a = from_linen(net), operator(graph, **net.adjacency)
    student = Bound(*model.init(KEY, a, jnp.asarray(features)), model)
    student.export(tmp_path / "graph.jaxexport", inputs=(features,), graph=a, platforms=("cpu", "cuda"))
    arrays |= {"graph": features, "graph-logits": np.asarray(jax.jit(student)(a, features).logits)}
    np.savez(tmp_path / "arrays.npz", **arrays)
    names = [str(tmp_path / name) for name in ("rows", "pixels", "graph")]
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path / "arrays.npz"), *names],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout == "equal 3\n", done.stderr[-2000:]


@pytest.mark.long
def test_a_text_network_takes_batches_of_any_size(tmp_path):
    x = np.arange(12).reshape(2, 6) % 5
    student = bound(TextTransformer(3, 5, width=8, depth=1, heads=2, length=6), x.astype(np.int32))
    program = student.export()
    expected = jax.jit(student)(x.astype(np.int32)).logits
    for count in (1, 2):
        found = program.call(x[:count].astype(np.int32))
        np.testing.assert_allclose(found, expected[:count], rtol=1e-4, atol=1e-5)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_told():
    x = np.ones((2, 4), np.float32)
    student = bound(Perceptron(3, (6,)), x)
    unknown = Bound(student.params, student.state, student.model)
    with pytest.raises(ValueError, match="give inputs="):
        unknown.export()
    assert unknown.export(inputs=(x,)).in_avals[0].shape[1] == 4
    assert student.export(batch=3).in_avals[0].shape == (3, 4)
    with pytest.raises(ValueError, match="batch must be at least 1"):
        student.export(batch=0)
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), student)
    with pytest.raises(ValueError, match="2 networks with a leading axis: export one"):
        both.export()

    fixed = Bound((), (), student.model._replace(
        init=lambda key, x: ((), ()),
        apply=lambda p, s, x, key=None, train=False: (x[: int(x.shape[0])] * np.ones(x.shape), s),
    ), student.example)  # fmt: skip
    with pytest.raises(ValueError, match="does not take batches of any size, give batch="):
        fixed.export()
    assert fixed.export(batch=2).in_avals[0].shape == (2, 4)
