"""Sparse message passing as two JAX primitives that are closed under differentiation.

For a sparse matrix ``A`` of shape ``(M, N)`` whose ``E`` nonzeros sit at ``(row_e, col_e)`` and carry
``K`` channels of values (one per attention head, ensemble member, ...):

* ``spmm``:  ``y[i, k] = sum_{e: row_e = i} v[e, k] x[col_e, k]``   (or with ``A`` transposed)
* ``sddmm``: ``s[e, k] = <a[row_e, k], b[col_e, k]>``

Both are bilinear, and every derivative of one is one of the two again::

    d spmm / dx  -> spmm with A transposed        d sddmm / da -> spmm
    d spmm / dv  -> sddmm                         d sddmm / db -> spmm with A transposed

so forward mode, reverse mode and any nesting of them work, and no derivative scatters at random.
``vmap`` never loops: a batch axis of ``x`` alone is folded into the features (one wide product
instead of many narrow ones), a batch axis of the values becomes more channels, and a batch of
different structures becomes one block-diagonal matrix.

Lowering: on CPU the product is the CSR kernel behind ``jax.experimental.sparse.BCSR`` (about three
times faster than ``segment_sum``); elsewhere it is a gather and a sorted ``segment_sum``. This is the
only file that touches ``jax.experimental.sparse``. The CPU kernel is a custom call without a
compatibility promise, so exporting for CPU needs ``disabled_checks=EXPORT_CHECKS``.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import sparse
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Int, Shaped

__all__ = ["EXPORT_CHECKS", "Structure", "sddmm", "spmm"]

EXPORT_CHECKS = (jax.export.DisabledSafetyCheck.custom_call("cpu_csr_sparse_dense_ffi"),)
"""Pass as ``disabled_checks`` to ``jax.export.export`` when exporting a product for CPU."""

_BLOCK = 2**20  # numbers per gathered block of the CPU sddmm, measured fastest
_CSR_DTYPES = (np.float32, np.float64, np.complex64, np.complex128, np.int32, np.int64)


class Structure(NamedTuple):
    """Where the nonzeros of a sparse ``(M, N)`` matrix are: CSR of ``A`` and of its transpose.

    Nonzeros are sorted by ``(row, col)``. ``t_cols`` and ``perm`` list them sorted by ``(col, row)``:
    ``t_cols = rows[perm]``. Repeated positions are allowed and add up.
    """

    indptr: Int[Array, " M+1"]
    rows: Int[Array, " E"]
    cols: Int[Array, " E"]
    t_indptr: Int[Array, " N+1"]
    t_cols: Int[Array, " E"]
    t_rows: Int[Array, " E"]
    perm: Int[Array, " E"]


def _same_axes(structure, *operands):
    """Let operands vary over the same mesh axes, as every bilinear operation inside `shard_map` must."""

    def varying(x):
        return jax.typeof(x).manual_axis_type.varying

    axes = frozenset().union(*(varying(x) for x in (*structure, *operands)))
    missing = [tuple(axes - varying(x)) for x in operands]
    return tuple(
        jax.lax.pcast(x, m, to="varying") if m else x for x, m in zip(operands, missing, strict=True)
    )


def _check(**shapes):
    """Kernels trust their indices, so that a wrong shape would read foreign memory."""
    for name, (got, expected) in shapes.items():
        if got != expected:
            raise ValueError(f"{name} has shape {got}, but the structure needs {expected}")


def spmm(
    values: Shaped[Array, "E K"],
    x: Shaped[Array, "N K F"],
    structure: Structure,
    *,
    transpose: bool = False,
) -> Shaped[Array, "M K F"]:
    """Multiply a sparse matrix, one per channel, with dense features.

    Args:
      values: nonzeros in the order of ``structure.rows``.
      x: features of the columns of ``A`` (of the rows when ``transpose``).
      structure: the positions of the nonzeros.
      transpose: multiply with the transpose of ``A``.

    Returns:
      Features of the rows of ``A`` (of the columns when ``transpose``), in the promoted dtype.
    """
    width = structure.indptr.shape[0] - 1 if transpose else structure.t_indptr.shape[0] - 1
    edges, channels, features = structure.rows.shape[0], values.shape[1], x.shape[2]
    _check(values=(values.shape, (edges, channels)), x=(x.shape, (width, channels, features)))
    dtype = jnp.result_type(values, x)
    values, x = _same_axes(structure, values.astype(dtype), x.astype(dtype))
    return _spmm_p.bind(values, x, *structure, transpose=transpose)


def sddmm(a: Shaped[Array, "M K F"], b: Shaped[Array, "N K F"], structure: Structure) -> Shaped[Array, "E K"]:
    """Inner products of row and column features at the nonzeros: ``s[e] = <a[row_e], b[col_e]>``.

    No complex conjugation is applied.
    """
    height, width = structure.indptr.shape[0] - 1, structure.t_indptr.shape[0] - 1
    _check(a=(a.shape, (height, *a.shape[1:])), b=(b.shape, (width, *a.shape[1:])))
    dtype = jnp.result_type(a, b)
    a, b = _same_axes(structure, a.astype(dtype), b.astype(dtype))
    return _sddmm_p.bind(a, b, *structure)


# --- spmm ---------------------------------------------------------------------------------------

_spmm_p = Primitive("jgd_spmm")
_sddmm_p = Primitive("jgd_sddmm")


def _rows(x, index):
    """Rows of `x` at indices known to be in range (the default mode checks each one, at a cost)."""
    return x.at[index].get(mode="promise_in_bounds")


def _oriented(values, s: Structure, transpose: bool):
    """Values and CSR arrays of the matrix that multiplies."""
    if transpose:
        return _rows(values, s.perm), s.t_indptr, s.t_rows, s.t_cols
    return values, s.indptr, s.rows, s.cols


def _spmm_segments(values, x, *structure, transpose):
    s = Structure(*structure)
    values, indptr, rows, cols = _oriented(values, s, transpose)
    messages = values[:, :, None] * _rows(x, cols)
    return jax.ops.segment_sum(messages, rows, indptr.shape[0] - 1, indices_are_sorted=True)


def _spmm_csr(values, x, *structure, transpose):
    s = Structure(*structure)
    (edges, channels), (size, _, features) = values.shape, x.shape
    height = (s.t_indptr if transpose else s.indptr).shape[0] - 1
    overflow = channels * max(edges, size, height) > np.iinfo(s.cols.dtype).max
    if edges * channels == 0 or overflow or x.dtype not in _CSR_DTYPES:
        return _spmm_segments(values, x, *structure, transpose=transpose)
    values, indptr, _, cols = _oriented(values, s, transpose)
    if channels > 1:
        # One tall matrix with a row block per channel; column (n, k) is row n * K + k of flat x.
        channel = jnp.arange(channels, dtype=cols.dtype)[:, None]
        cols = (cols * channels + channel).reshape(-1)
        starts = (indptr[:-1] + channel * edges).reshape(-1)
        indptr = jnp.append(starts, jnp.asarray(channels * edges, indptr.dtype))
    matrix = sparse.BCSR((values.T.reshape(-1), cols, indptr), shape=(channels * height, size * channels))
    y = matrix @ x.reshape(size * channels, features)
    return y.reshape(channels, height, features).swapaxes(0, 1)


def _spmm_abstract(values, x, *structure, transpose):
    indptr = structure[3] if transpose else structure[0]
    return x.update(shape=(indptr.shape[0] - 1, *x.shape[1:]))


def _spmm_transpose(ct, values, x, *structure, transpose):
    s = Structure(*structure)
    nones = (None,) * len(s)
    if type(ct) is ad.Zero:
        return (None, None, *nones)
    if ad.is_undefined_primal(x):
        return (None, spmm(values, ct, s, transpose=not transpose), *nones)
    return (sddmm(x, ct, s) if transpose else sddmm(ct, x, s), None, *nones)


# --- sddmm --------------------------------------------------------------------------------------


def _sddmm_gather(a, b, *structure):
    s = Structure(*structure)
    return jnp.sum(_rows(a, s.rows) * _rows(b, s.cols), axis=-1)


def _sddmm_blocks(a, b, *structure):
    """In blocks of edges that stay in cache: XLA's CPU backend neither fuses nor vectorises the rest."""
    s = Structure(*structure)
    (edges,), (_, channels, features) = s.rows.shape, a.shape
    size = max(1, _BLOCK // max(1, channels * features))

    def block(index):
        rows, cols = index
        return jnp.einsum("ekf,ekf->ek", _rows(a, rows), _rows(b, cols))

    if edges <= size:
        return block((s.rows, s.cols))
    count = -(-edges // size)
    padded = (jnp.pad(i, (0, count * size - edges)).reshape(count, size) for i in (s.rows, s.cols))
    return jax.lax.map(block, tuple(padded)).reshape(count * size, channels)[:edges]


def _sddmm_abstract(a, b, *structure):
    return a.update(shape=(structure[1].shape[0], a.shape[1]))


def _sddmm_transpose(ct, a, b, *structure):
    s = Structure(*structure)
    nones = (None,) * len(s)
    if type(ct) is ad.Zero:
        return (None, None, *nones)
    if ad.is_undefined_primal(a):
        return (spmm(ct, b, s), None, *nones)
    return (None, spmm(ct, a, s, transpose=True), *nones)


# --- batching -----------------------------------------------------------------------------------


def _block_diagonal(structure: tuple, dims: tuple, size: int) -> Structure:
    """The structure of ``diag(A_1, ..., A_B)`` from a batch of structures."""
    s = Structure(
        *(
            jnp.broadcast_to(a, (size, *a.shape)) if d is None else jnp.moveaxis(a, d, 0)
            for a, d in zip(structure, dims, strict=True)
        )
    )
    edges, height, width = s.rows.shape[1], s.indptr.shape[1] - 1, s.t_indptr.shape[1] - 1

    def shift(array, by):
        return (array + by * jnp.arange(size, dtype=array.dtype)[:, None]).reshape(-1)

    def pointers(indptr):
        return jnp.append(shift(indptr[:, :-1], edges), jnp.asarray(size * edges, indptr.dtype))

    return Structure(
        pointers(s.indptr),
        shift(s.rows, height),
        shift(s.cols, width),
        pointers(s.t_indptr),
        shift(s.t_cols, height),
        shift(s.t_rows, width),
        shift(s.perm, edges),
    )


def _front(x, dim, size):
    return jnp.broadcast_to(x, (size, *x.shape)) if dim is None else jnp.moveaxis(x, dim, 0)


def _batch_size(args, dims):
    return next(a.shape[d] for a, d in zip(args, dims, strict=True) if d is not None)


def _merge(x, axis):
    """Merge `axis` with the next one."""
    return x.reshape(*x.shape[:axis], x.shape[axis] * x.shape[axis + 1], *x.shape[axis + 2 :])


def _split(x, axis, size):
    """Undo `_merge` of a first axis of length `size`."""
    return x.reshape(*x.shape[:axis], size, x.shape[axis] // size, *x.shape[axis + 1 :])


def _fold(x, dim, axis, size):
    """Merge the batch axis, made if there is none, into `axis` of the unbatched array."""
    return _merge(jnp.moveaxis(_front(x, dim, size), 0, axis), axis)


def _spmm_batch(args, dims, *, transpose):
    values, x, *structure = args
    v_dim, x_dim, *s_dims = dims
    size = _batch_size(args, dims)
    if any(d is not None for d in s_dims):
        s, v_axis, x_axis = _block_diagonal(tuple(structure), tuple(s_dims), size), 0, 0
    else:  # more features where the matrix is shared, else more channels
        s, v_axis, x_axis = Structure(*structure), 1, 1 if v_dim is not None else 2
    if x_axis < 2:
        values = _fold(values, v_dim, v_axis, size)
    y = spmm(values, _fold(x, x_dim, x_axis, size), s, transpose=transpose)
    return _split(y, x_axis, size), x_axis


def _sddmm_batch(args, dims):
    a, b, *structure = args
    a_dim, b_dim, *s_dims = dims
    size = _batch_size(args, dims)
    if any(d is not None for d in s_dims):
        s, axis = _block_diagonal(tuple(structure), tuple(s_dims), size), 0
    else:
        s, axis = Structure(*structure), 1
    y = sddmm(_fold(a, a_dim, axis, size), _fold(b, b_dim, axis, size), s)
    return _split(y, axis, size), axis


# --- registration -------------------------------------------------------------------------------


def _register(primitive: Any, abstract, transpose, batch, lowerings: dict[str | None, Any]):
    config: Any = jax.config

    @partial(jax.jit, static_argnames="parameters")
    def eager(operands, parameters):
        if config.jax_disable_jit:  # jit would come back here for ever
            return lowerings[None](*operands, **dict(parameters))
        return primitive.bind(*operands, **dict(parameters))

    def tangent_in(index):
        def rule(tangent, *operands, **parameters):
            bilinear = (*operands[:index], tangent, *operands[index + 1 : 2])
            # A tangent may vary over mesh axes along which the other operand is replicated.
            return primitive.bind(*_same_axes((), *bilinear), *operands[2:], **parameters)

        return rule

    primitive.def_impl(lambda *operands, **parameters: eager(operands, tuple(parameters.items())))
    primitive.def_abstract_eval(abstract)
    ad.defjvp(primitive, tangent_in(0), tangent_in(1), *(None,) * len(Structure._fields))
    ad.primitive_transposes[primitive] = transpose
    batching.primitive_batchers[primitive] = batch
    for platform, function in lowerings.items():
        rule = mlir.lower_fun(function, multiple_results=False)
        mlir.register_lowering(primitive, rule, platform=platform)


_register(_spmm_p, _spmm_abstract, _spmm_transpose, _spmm_batch, {None: _spmm_segments, "cpu": _spmm_csr})
_register(
    _sddmm_p, _sddmm_abstract, _sddmm_transpose, _sddmm_batch, {None: _sddmm_gather, "cpu": _sddmm_blocks}
)
