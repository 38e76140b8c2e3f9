"""The two primitives against dense float64 NumPy, under every JAX transformation."""

import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from jgd.graph import EXPORT_CHECKS, Structure, from_coo, sddmm, spmm
from jgd.graph import propagation as implementation

close = np.testing.assert_allclose


def make(senders, receivers, shape):
    return from_coo(np.asarray(senders, np.int32), np.asarray(receivers, np.int32), shape=shape).structure


def random_structure(seed, shape, edges):
    """With repeated edges and, for a few edges, empty rows."""
    rng = np.random.default_rng(seed)
    index = rng.integers(0, shape[1], edges), rng.integers(0, shape[0], edges)
    if edges > 2:
        index[0][1], index[1][1] = index[0][0], index[1][0]
    return make(*index, shape)


STRUCTURES = {
    "rectangular": random_structure(0, (5, 7), 12),
    "square": random_structure(1, (6, 6), 15),
    "self loops": make([0, 1, 2, 2, 1], [0, 1, 2, 2, 0], (3, 3)),
    "empty rows": make([1, 1, 1], [4, 4, 4], (6, 3)),
    "one edge": make([0], [1], (2, 2)),
    "no edges": make([], [], (3, 4)),
}
RECT = STRUCTURES["rectangular"]
M, N, E = 5, 7, 12


def normal(seed, *shape, dtype=np.float32):
    draw = np.random.default_rng(seed).standard_normal
    if np.issubdtype(dtype, np.complexfloating):
        return jnp.asarray(draw(shape) + 1j * draw(shape), dtype)
    return jnp.asarray(draw(shape), dtype)


def dense(values, s):
    """``[K, M, N]`` in float64, one nonzero at a time."""
    values = np.asarray(values)
    dtype = np.complex128 if np.iscomplexobj(values) else np.float64
    a = np.zeros((values.shape[1], len(s.indptr) - 1, len(s.t_indptr) - 1), dtype)
    for e in range(len(s.rows)):
        a[:, s.rows[e], s.cols[e]] += values[e]
    return a


def spmm_ref(values, x, s, transpose=False):
    a = dense(values, s)
    return np.einsum("knm,nkf->mkf" if transpose else "kmn,nkf->mkf", a, np.asarray(x).astype(a.dtype))


def sddmm_ref(a, b, s):
    a, b = np.asarray(a), np.asarray(b)
    return np.asarray([(a[i] * b[j]).sum(-1) for i, j in zip(s.rows, s.cols, strict=True)]).reshape(
        len(s.rows), a.shape[1]
    )


def segments(values, x, s):
    """The same product from public JAX pieces, for derivatives of nonlinear functions."""
    return jax.ops.segment_sum(values[:, :, None] * x[s.cols], s.rows, s.indptr.shape[0] - 1)


def dots(a, b, s):
    return jnp.sum(a[s.rows] * b[s.cols], -1)


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("channels", [1, 3])
def test_products_equal_dense(name, channels):
    s = STRUCTURES[name]
    height, width = len(s.indptr) - 1, len(s.t_indptr) - 1
    v = normal(2, len(s.rows), channels)
    x, y = normal(3, width, channels, 4), normal(4, height, channels, 4)
    close(spmm(v, x, s), spmm_ref(v, x, s), atol=1e-5)
    close(spmm(v, y, s, transpose=True), spmm_ref(v, y, s, transpose=True), atol=1e-5)
    close(sddmm(y, x, s), sddmm_ref(y, x, s), atol=1e-5)


@jax.jit
def all_products(v, x, y, s):
    return spmm(v, x, s), spmm(v, y, s, transpose=True), sddmm(y, x, s)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=6, max_size=6))
@settings(max_examples=50, deadline=None, database=None)
def test_any_structure(edges):
    s = make([e[0] for e in edges], [e[1] for e in edges], (4, 3))
    assert np.array_equal(s.rows[s.perm], s.t_cols)
    assert np.array_equal(s.cols[s.perm], s.t_rows)
    assert np.all(np.diff(s.rows) >= 0)
    assert np.all(np.diff(s.t_rows) >= 0)
    v, x, y = normal(5, 6, 2), normal(6, 3, 2, 2), normal(7, 4, 2, 2)
    forward, transposed, scores = all_products(v, x, y, s)
    close(forward, spmm_ref(v, x, s), atol=1e-5)
    close(transposed, spmm_ref(v, y, s, True), atol=1e-5)
    close(scores, sddmm_ref(y, x, s), atol=1e-5)
    close(np.vdot(forward, y), np.vdot(transposed, x), atol=1e-4)  # <Ax, y> = <x, A'y>


@pytest.mark.long
def test_without_jit():
    v, x, y = normal(5, E, 2), normal(6, N, 2, 2), normal(7, M, 2, 2)
    with jax.disable_jit():
        for got, expected in zip(
            all_products(v, x, y, RECT), all_products.__wrapped__(v, x, y, RECT), strict=True
        ):
            close(got, expected, atol=1e-5)
    close(all_products(v, x, y, RECT)[0], spmm_ref(v, x, RECT), atol=1e-5)


@pytest.mark.parametrize("sizes", [(0, 4), (3, 0)])
@pytest.mark.parametrize("name", ["rectangular", "no edges"])
def test_empty_axes(sizes, name):
    channels, features = sizes
    s = STRUCTURES[name]
    height, width, edges = len(s.indptr) - 1, len(s.t_indptr) - 1, len(s.rows)
    v, x = jnp.ones((edges, channels)), jnp.ones((width, channels, features))
    assert spmm(v, x, s).shape == (height, channels, features)
    close(sddmm(jnp.ones((height, channels, features)), x, s), np.zeros((edges, channels)))


def test_vmap_without_edges():
    s = STRUCTURES["no edges"]
    v, x, y = jnp.ones((2, 0, 1)), jnp.ones((2, 4, 1, 3)), jnp.ones((2, 3, 1, 3))
    stacked = jax.tree.map(lambda a: np.stack([a, a]), s)
    both = jax.vmap(lambda v, x, y, t: (spmm(v, x, s), spmm(v, x, t), sddmm(y, x, s), sddmm(y, x, t)))
    a, b, c, d = jax.jit(both)(v, x, y, stacked)
    assert a.shape == b.shape == (2, 3, 1, 3)
    assert not a.any()
    assert not b.any()
    assert c.shape == d.shape == (2, 0, 1)


@pytest.mark.parametrize(("outer", "inner"), [(1, 1), (1, 3), (2, 1), (2, 3)])
@pytest.mark.parametrize("features", [3, 40])  # folded into wide rows, and a row block for each member
def test_segment_implementation_equals_csr_implementation(outer, inner, features):
    v = normal(8, outer, E, 2)
    x, y = normal(9, outer, inner, N, 2, features), normal(10, outer, inner, M, 2, features)

    @jax.jit
    def run(v, x, y):
        spmms = implementation._spmm_segments, implementation._spmm_csr
        sddmms = implementation._sddmm_gather, implementation._sddmm_blocks
        return [
            (f(v, x, *RECT, transpose=False), f(v, y, *RECT, transpose=True), g(y, x, *RECT))
            for f, g in zip(spmms, sddmms, strict=True)
        ]

    jax.tree.map(lambda a, b: close(a, b, atol=1e-5), *run(v, x, y))


def test_blocks_of_edges():
    y, x = normal(11, M, 2, 3), normal(12, N, 2, 3)
    expected = sddmm_ref(y, x, RECT)
    y, x = y[None, None], x[None, None]
    for size in (1, 7, 30, 72):  # one edge in a block, some, a padded last one, all
        close(implementation._sddmm_blocks(y, x, *RECT, block_size=size)[0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("values", "x", "result", "tolerance"),
    [
        (np.complex64, np.complex64, np.complex64, 1e-5),
        (np.float32, np.complex64, np.complex64, 1e-5),
        (jnp.bfloat16, jnp.bfloat16, jnp.bfloat16, 0.1),
        (jnp.bfloat16, np.float32, np.float32, 0.1),
        (np.int32, np.int32, np.int32, 0),
        (np.int32, np.float32, np.float32, 1e-5),
        (np.float16, np.float32, np.float32, 1e-2),
    ],
)
def test_dtypes(values, x, result, tolerance):
    scale = 5 if np.int32 in (values, x) else 1
    v = jnp.asarray(normal(13, E, 2, dtype=np.complex64 if values is np.complex64 else np.float32) * scale)
    z = jnp.asarray(normal(14, N, 2, 3, dtype=np.complex64 if x is np.complex64 else np.float32) * scale)
    v, z = v.astype(values), z.astype(x)
    y = spmm(v, z, RECT)
    assert y.dtype == result
    as64 = [np.asarray(a).astype(np.complex128) for a in (v, z)]
    close(np.asarray(y).astype(np.complex128), spmm_ref(*as64, RECT), atol=tolerance)
    s = sddmm(y, z, RECT)
    assert s.dtype == result
    expected = sddmm_ref(np.asarray(y).astype(np.complex128), as64[1], RECT)
    close(np.asarray(s).astype(np.complex128), expected, atol=tolerance, rtol=max(tolerance, 1e-5))


def test_float64():
    with jax.enable_x64(True):
        v, x = normal(15, E, 2, dtype=np.float64), normal(16, N, 2, 3, dtype=np.float64)
        y = spmm(jnp.asarray(v), jnp.asarray(x), RECT)
        assert y.dtype == np.float64
        close(y, spmm_ref(v, x, RECT), atol=1e-14)


def test_wrong_shapes_are_refused():
    v, x, y = jnp.ones((E, 2)), jnp.ones((N, 2, 3)), jnp.ones((M, 2, 3))
    for call in (
        lambda: spmm(v, y, RECT),
        lambda: spmm(v, x, RECT, transpose=True),
        lambda: spmm(v[:-1], x, RECT),
        lambda: sddmm(x, x, RECT),
        lambda: sddmm(y, y, RECT),
    ):
        with pytest.raises(ValueError, match="but the structure needs"):
            call()


# --- vmap -----------------------------------------------------------------------------------------

AXES = [(None, 0), (None, 2), (0, None), (2, None), (0, 0), (1, 3), (2, 1), (-1, -1)]


def looped(f, args, axes, size):
    """Python's version of vmap."""
    at = [[a if d is None else np.take(a, i, axis=d) for a, d in zip(args, axes)] for i in range(size)]
    return np.stack([f(*a) for a in at])


def batched(array, axis, size):
    """Several variants of an array, stacked at an axis."""
    if axis is None:
        return array
    return np.stack([array * (i + 1) + i for i in range(size)], axis)


def test_vmap_axes():
    v, x, y = normal(17, E, 2), normal(18, N, 2, 3), normal(19, M, 2, 3)
    arguments, results = [], []
    for v_axis, x_axis in AXES:
        vs, xs, ys = batched(v, v_axis, 3), batched(x, x_axis, 3), batched(y, x_axis, 3)
        y_axis = v_axis if v_axis is None else min(v_axis, 2)
        arguments.append((vs, xs, ys, batched(y, y_axis, 3)))
        axes = (v_axis, x_axis)
        results.append(
            (
                looped(lambda v, x: spmm_ref(v, x, RECT), (vs, xs), axes, 3),
                looped(lambda v, y: spmm_ref(v, y, RECT, True), (vs, ys), axes, 3),
                looped(lambda a, x: sddmm_ref(a, x, RECT), (arguments[-1][3], xs), (y_axis, x_axis), 3),
            )
        )

    @jax.jit
    def all_axes(arguments):
        out = []
        for (v_axis, x_axis), (v, x, y, a) in zip(AXES, arguments, strict=True):
            axes, y_axis = (v_axis, x_axis), v_axis if v_axis is None else min(v_axis, 2)
            forward = jax.vmap(lambda v, x: spmm(v, x, RECT), axes, out_axes=2)(v, x)
            transposed = jax.vmap(lambda v, y: spmm(v, y, RECT, transpose=True), axes)(v, y)
            scores = jax.vmap(lambda a, x: sddmm(a, x, RECT), (y_axis, x_axis), out_axes=-1)(a, x)
            out.append((jnp.moveaxis(forward, 2, 0), transposed, jnp.moveaxis(scores, -1, 0)))
        return out

    for expected, got in zip(results, all_axes(arguments), strict=True):
        for e, g in zip(expected, got, strict=True):
            close(g, e, atol=1e-4, rtol=1e-5)


def test_vmap_over_structures_and_nested():
    graphs = [random_structure(seed, (M, N), E) for seed in (20, 21, 22)]
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *graphs)
    v, x, y = normal(23, E, 2), normal(24, N, 2, 3), normal(25, M, 2, 3)
    vs, xs = normal(26, 3, E, 2), normal(27, 4, N, 2, 3)

    @jax.jit
    def run(v, x, y, vs, xs, stacked):
        return (
            jax.vmap(lambda s: spmm(v, x, s))(stacked),
            jax.vmap(lambda s: spmm(v, y, s, transpose=True))(stacked),
            jax.vmap(lambda s: sddmm(y, x, s))(stacked),
            jax.vmap(lambda v, s: spmm(v, x, s))(vs, stacked),
            jax.vmap(lambda x: jax.vmap(lambda v: spmm(v, x, RECT))(vs))(xs),
            jax.vmap(lambda v: jax.vmap(lambda x: spmm(v, x, RECT))(xs))(vs),
            jax.vmap(lambda x: jax.vmap(lambda v, s: spmm(v, x, s))(vs, stacked))(xs),
            jax.vmap(lambda x: jax.vmap(lambda s: jax.grad(lambda v: spmm(v, x, s).sum())(v))(stacked))(xs),
        )

    a, b, c, d, e, f, g, h = run(v, x, y, vs, xs, stacked)
    close(a, [spmm_ref(v, x, s) for s in graphs], atol=1e-5)
    close(b, [spmm_ref(v, y, s, True) for s in graphs], atol=1e-5)
    close(c, [sddmm_ref(y, x, s) for s in graphs], atol=1e-5)
    close(d, [spmm_ref(v, x, s) for v, s in zip(vs, graphs)], atol=1e-5)
    close(e, [[spmm_ref(v, x, RECT) for v in vs] for x in xs], atol=1e-5)
    close(f, [[spmm_ref(v, x, RECT) for x in xs] for v in vs], atol=1e-5)
    close(g, [[spmm_ref(v, x, s) for v, s in zip(vs, graphs)] for x in xs], atol=1e-5)
    close(h, [[sddmm_ref(np.ones_like(y), x, s) for s in graphs] for x in xs], atol=1e-5)


def test_vmap_with_one_mapped_structure_field():
    """A batch in which only the permutation is mapped is still a batch of structures."""
    perm = jnp.stack([RECT.perm, RECT.perm])
    v, y = normal(28, E, 1), normal(29, M, 1, 2)
    got = jax.vmap(lambda p: spmm(v, y, RECT._replace(perm=p), transpose=True))(perm)
    close(got, [spmm_ref(v, y, RECT, True)] * 2, atol=1e-5)


# --- derivatives ----------------------------------------------------------------------------------


def losses(product, inner):
    """Nonlinear in the values and in x, through both products."""

    def loss(v, x, y):
        return jnp.sum(jnp.sin(inner(jnp.tanh(product(v, x, RECT)) + y, x, RECT)) * v)

    return loss


def derivatives(loss, v, x, y, dv, dx):
    def f(v, x):
        return loss(v, x, y)

    grad = jax.grad(f, (0, 1))

    def directional(v, x):
        return jnp.vdot(dv, grad(v, x)[0]) + jnp.vdot(dx, grad(v, x)[1])

    def scanned(v):
        return jax.lax.scan(lambda c, _: (c - 0.1 * jax.grad(f)(c, x), f(c, x)), v, length=3)

    return {
        "value": f(v, x),
        "grad": grad(v, x),
        "jvp": jax.jvp(f, (v, x), (dv, dx)),
        "jvp of one": (jax.jvp(lambda v: f(v, x), (v,), (dv,)), jax.jvp(lambda x: f(v, x), (x,), (dx,))),
        "grad of grad": jax.grad(directional, (0, 1))(v, x),
        "forward over reverse": jax.jvp(grad, (v, x), (dv, dx)),
        "reverse over forward": jax.grad(lambda v, x: jax.jvp(f, (v, x), (dv, dx))[1], (0, 1))(v, x),
        "jacfwd of grad": jax.jacfwd(jax.grad(f))(v, x),
        "jacrev of grad": jax.jacrev(jax.grad(f, 1), 1)(v, x),
        "remat": jax.grad(jax.checkpoint(f), (0, 1))(v, x),
        "scan": scanned(v),
        "grad of scan": jax.grad(lambda v: scanned(v)[1].sum())(v),
        "vmap of grad": jax.vmap(grad, (0, None))(jnp.stack([v, v + dv]), x),
        "vmap of grad in x": jax.vmap(grad, (None, 0))(v, jnp.stack([x, x + dx])),
        "grad of vmap": jax.grad(lambda v: jax.vmap(f, (None, 0))(v, jnp.stack([x, dx])).sum())(v),
        "linearize": jax.linearize(f, v, x)[1](dv, dx),
    }


@pytest.mark.long
def test_derivatives_equal_those_of_segment_sum():
    arguments = (
        *(normal(30, E, 2), normal(31, N, 2, 2), normal(32, M, 2, 2)),
        *(normal(33, E, 2), normal(34, N, 2, 2)),
    )
    ours = jax.jit(lambda *a: derivatives(losses(spmm, sddmm), *a))(*arguments)
    with jax.enable_x64(True):
        wide = [a.astype(np.float64) for a in arguments]
        reference = jax.jit(lambda *a: derivatives(losses(segments, dots), *a))(*wide)
    for name, expected in reference.items():
        for a, b in zip(jax.tree.leaves(ours[name]), jax.tree.leaves(expected), strict=True):
            close(a, b, atol=1e-4 * max(1, np.abs(b).max()), rtol=1e-3, err_msg=name)


@pytest.mark.parametrize("product", ["forward", "transposed", "scores"])
def test_numerical_gradients(product):
    with jax.enable_x64(True):
        v, a, b = (normal(35, *shape, dtype=np.float64) for shape in ((E, 1), (M, 1, 2), (N, 1, 2)))
        f, arguments = {
            "forward": (lambda v, x: spmm(v, jnp.sin(x), RECT) ** 2, (v, b)),
            "transposed": (lambda v, x: spmm(v, jnp.sin(x), RECT, transpose=True) ** 2, (v, a)),
            "scores": (lambda a, b: jnp.sin(sddmm(a, b, RECT)), (a, b)),
        }[product]
        check_grads(jax.jit(f), arguments, order=2, modes=("fwd", "rev"))


def test_complex_derivatives():
    v, x = normal(36, E, 1, dtype=np.complex64), normal(37, N, 1, 2, dtype=np.complex64)

    def size(product):
        return lambda v, x: jnp.sum(jnp.abs(product(v, x, RECT)) ** 2)

    for i in (0, 1):
        close(*(jax.jit(jax.grad(size(f), i))(v, x) for f in (spmm, segments)), rtol=1e-4, atol=1e-4)


def test_a_real_matrix_with_complex_features():
    v, x = normal(38, E, 1), normal(39, N, 1, 2, dtype=np.complex64)

    def size(product):
        return lambda v: jnp.sum(jnp.abs(product(v, x, RECT)) ** 2)

    got = jax.grad(size(spmm))(v)
    assert got.dtype == np.float32
    close(got, jax.grad(size(segments))(v), rtol=1e-4, atol=1e-4)


def test_derivatives_do_not_scatter_and_vmap_does_not_loop():
    v, x = jnp.ones((E, 2)), jnp.ones((N, 2, 3))

    def f(v, x):
        return jnp.sum(jnp.sin(spmm(v, x, RECT)))

    def second(v, x):
        return jax.grad(lambda v, x: jnp.sum(jax.grad(f, 1)(v, x) ** 2), (0, 1))(v, x)

    def share_values(v, x):
        return jax.vmap(f, (None, 0))(v, jnp.stack([x, x])).sum()

    def share_nothing(v, x):
        return jax.vmap(f)(jnp.stack([v, v]), jnp.stack([x, x])).sum()

    def scores(v, x):
        return jnp.sum(jnp.sin(sddmm(spmm(v, x, RECT), x, RECT)))

    for function in (
        *(jax.grad(f, 0), jax.grad(f, 1), second, jax.grad(scores, (0, 1))),
        *(jax.grad(share_values, (0, 1)), jax.grad(share_nothing, (0, 1)), jax.hessian(f)),
    ):
        text = jax.jit(function).lower(v, x).as_text()
        assert "cpu_csr_sparse_dense_ffi" in text
        assert "scatter" not in text
        assert "while" not in text


# --- export and devices ---------------------------------------------------------------------------


def test_export():
    v, x = normal(40, E, 2), normal(41, N, 2, 3)
    forward = jax.jit(lambda v, x, s: spmm(v, x, Structure(**s)))  # dicts serialise
    gradient = jax.jit(jax.grad(lambda v, x, s: jnp.sum(jnp.sin(spmm(v, x, Structure(**s)))), (0, 1)))
    for function in (forward, gradient):
        export = jax.export.export(function, platforms=("cpu", "cuda", "tpu"), disabled_checks=EXPORT_CHECKS)
        exported = export(v, x, RECT._asdict())
        assert exported.platforms == ("cpu", "cuda", "tpu")
        pytest.importorskip("flatbuffers")  # which serialising needs
        restored = jax.export.deserialize(exported.serialize())
        got, expected = restored.call(v, x, RECT._asdict()), function(v, x, RECT._asdict())
        jax.tree.map(lambda a, b: close(a, b, atol=1e-6), got, expected)


SHARDED = """
    import warnings
    warnings.simplefilter("error")
    import jax, jax.numpy as jnp, numpy as np
    from jax.sharding import AxisType, PartitionSpec as P
    from jgd.graph import from_coo, sddmm, spmm

    assert jax.device_count() == 8
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    M, N, E, B = 5, 7, 12, 16
    make = lambda: from_coo(rng.integers(0, N, E), rng.integers(0, M, E), shape=(M, N)).structure
    s, many = make(), jax.tree.map(lambda *a: jnp.stack(a), *(make() for _ in range(B)))
    v, x, y, vs, xs = draw(E, 2), draw(N, 2, 3), draw(M, 2, 3), draw(B, E, 2), draw(B, N, 2, 3)
    mesh = jax.make_mesh((8,), ("members",), axis_types=(AxisType.Auto,))
    near = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4 * np.abs(b).max())

    def score(v, x, y, s):
        z = jnp.tanh(spmm(v, x, s)) + y
        return jnp.sum(jnp.sin(sddmm(z, x, s)) * v)

    cases = {
        "x sharded": ((v, xs, y, s), (0, 1, 0, 0)),
        "values sharded": ((vs, x, y, s), (1, 0, 0, 0)),
        "structure sharded": ((v, x, y, many), (0, 0, 0, 1)),
    }
    for name, (args, sharded) in cases.items():
        total = lambda *a: jnp.sum(jax.vmap(score, [0 if i else None for i in sharded])(*a) ** 2)
        specs = tuple(P("members") if i else P() for i in sharded)
        everywhere = lambda *a: jax.lax.psum(total(*a), "members")
        inside = jax.shard_map(
            lambda *a: (
                jax.grad(everywhere, (0, 1, 2))(*a),
                jax.jvp(lambda *b: everywhere(*b, a[3]), a[:3], a[:3])[1],
            ),
            mesh=mesh,
            in_specs=specs,
            out_specs=(specs[:3], P()),
        )
        outside = jax.grad(jax.shard_map(everywhere, mesh=mesh, in_specs=specs, out_specs=P()), (0, 1, 2))
        (first, tangent), second = jax.jit(lambda *a: (inside(*a), outside(*a)))(*args)
        single = jax.jit(jax.grad(total, (0, 1, 2)))(*args)
        jax.tree.map(near, first, single)
        jax.tree.map(near, second, single)
        near(tangent, sum(np.vdot(g, a) for g, a in zip(single, args)))
    print("equal on", jax.device_count(), "devices")
"""


@pytest.mark.long
def test_shards_equal_a_single_device():
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SHARDED)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "equal on 8 devices" in done.stdout
