"""Sparse message passing as two JAX primitives that are closed under differentiation.

For a sparse matrix ``A`` of shape ``(M, N)`` whose ``E`` nonzeros sit at ``(row_e, col_e)`` and carry
``K`` channels of values (one per attention head, ensemble member, ...):

* ``spmm``:  ``y[i, k] = sum_{e: row_e = i} v[e, k] x[col_e, k]``   (or with ``A`` transposed)
* ``sddmm``: ``s[e, k] = <a[row_e, k], b[col_e, k]>``

Both are bilinear, and every derivative of one is one of the two again::

    d spmm / dx  -> spmm with A transposed        d sddmm / da -> spmm
    d spmm / dv  -> sddmm                         d sddmm / db -> spmm with A transposed

so forward mode, reverse mode and any nesting of them work, and no derivative scatters to random positions.

``vmap`` never loops. Inside, values are ``[V, E, K]`` and features ``[V, B, N, K, F]``: a batch axis of the
features alone joins ``B``, one of the values joins ``V`` (both without moving data), and a batch of
different structures becomes one block-diagonal matrix.

Lowering: on CPU the product is the CSR kernel behind ``jax.experimental.sparse.BCSR`` (two to three times
faster than ``segment_sum``), called once, on a tall matrix with a block of rows for each member, so that the
features of one member stay in cache (for Cora and sixty networks this is three times faster than one product
with wide rows); only narrow features are folded into wide rows. Elsewhere it is a gather and a sorted
``segment_sum`` over all members at once. This is the only file that touches ``jax.experimental.sparse``. The
CPU kernel is a custom call without a compatibility promise, so exporting for CPU needs
``disabled_checks=EXPORT_CHECKS``.
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
_NARROW = 32  # features per row below which folding members into wide rows is faster on CPU
_CSR_DTYPES = (np.float32, np.float64, np.complex64, np.complex128, np.int32, np.int64)


class Structure(NamedTuple):
    """Positions of the nonzeros of a sparse ``(M, N)`` matrix: CSR of ``A`` and of its transpose.

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
    """Refuse wrong shapes, because kernels trust their indices and would read foreign memory."""
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
      values: Nonzeros in the order of ``structure.rows``.
      x: Features of the columns of ``A`` (of the rows if ``transpose``).
      structure: Positions of the nonzeros.
      transpose: Whether to multiply with the transpose of ``A``.

    Returns:
      Features of the rows of ``A`` (of the columns if ``transpose``), in the promoted dtype.
    """
    width = structure.indptr.shape[0] - 1 if transpose else structure.t_indptr.shape[0] - 1
    edges, channels, features = structure.rows.shape[0], values.shape[1], x.shape[2]
    _check(values=(values.shape, (edges, channels)), x=(x.shape, (width, channels, features)))
    dtype = jnp.result_type(values, x)
    values, x = values.astype(dtype)[None], x.astype(dtype)[None, None]
    return _spmm(values, x, structure, transpose=transpose)[0, 0]


def sddmm(a: Shaped[Array, "M K F"], b: Shaped[Array, "N K F"], structure: Structure) -> Shaped[Array, "E K"]:
    """Compute inner products of row and column features at the nonzeros, ``s[e] = <a[row_e], b[col_e]>``.

    No complex conjugation is applied.

    Args:
      a: Features of the rows.
      b: Features of the columns.
      structure: Positions of the nonzeros.
    """
    height, width = structure.indptr.shape[0] - 1, structure.t_indptr.shape[0] - 1
    _check(a=(a.shape, (height, *a.shape[1:])), b=(b.shape, (width, *a.shape[1:])))
    dtype = jnp.result_type(a, b)
    return _sddmm(a.astype(dtype)[None, None], b.astype(dtype)[None, None], structure)[0]


_spmm_p = Primitive("jgd_spmm")
_sddmm_p = Primitive("jgd_sddmm")


def _spmm(values, x, structure, *, transpose):
    values, x = _same_axes(structure, values, x)
    return _spmm_p.bind(values, x, *structure, transpose=transpose)


def _sddmm(a, b, structure):
    a, b = _same_axes(structure, a, b)
    return _sddmm_p.bind(a, b, *structure)


# --- spmm: values [V, E, K], x [V, B, N, K, F] -> [V, B, M, K, F] --------------------------------


def _take(x, index, axis):
    """Take slices of `x` at indices known to be in range (the default mode checks each one, at a cost)."""
    return x.at[(slice(None),) * axis + (index,)].get(mode="promise_in_bounds")


def _oriented(values, s: Structure, transpose: bool):
    """Return values and CSR arrays of the matrix that multiplies."""
    if transpose:
        return _take(values, s.perm, 1), s.t_indptr, s.t_rows, s.t_cols
    return values, s.indptr, s.rows, s.cols


def _spmm_segments(values, x, *structure, transpose):
    values, indptr, rows, cols = _oriented(values, Structure(*structure), transpose)
    weights = jnp.moveaxis(values, 1, 0)[:, :, None, :, None]
    messages = weights * _take(jnp.moveaxis(x, 2, 0), cols, 0)
    y = jax.ops.segment_sum(messages, rows, indptr.shape[0] - 1, indices_are_sorted=True)
    return jnp.moveaxis(y, 0, 2)


def _spmm_csr(values, x, *structure, transpose):
    s = Structure(*structure)
    (edges, channels), (outer, inner, size, _, features) = values.shape[1:], x.shape
    if inner > 1 and features < _NARROW:
        wide = jnp.moveaxis(x, 1, 3).reshape(outer, 1, size, channels, inner * features)
        y = _spmm_csr(values, wide, *structure, transpose=transpose)
        return jnp.moveaxis(y.reshape(outer, y.shape[2], channels, inner, features), 3, 1)
    members = outer * inner
    blocks, height = members * channels, (s.t_indptr if transpose else s.indptr).shape[0] - 1
    overflow = blocks * max(edges, size, height) > np.iinfo(s.cols.dtype).max
    if edges * blocks == 0 or overflow or x.dtype not in _CSR_DTYPES:
        return _spmm_segments(values, x, *structure, transpose=transpose)
    values, indptr, _, cols = _oriented(values, s, transpose)
    values = jnp.moveaxis(values, 2, 1)[:, None]
    values = jnp.broadcast_to(values, (outer, inner, channels, edges)).reshape(-1)
    if blocks > 1:
        # A row block for each member and channel; column (member, n, k) is a row of flat x.
        block = jnp.arange(blocks, dtype=cols.dtype)[:, None]
        member, channel = block // channels, block % channels
        cols = ((member * size + cols) * channels + channel).reshape(-1)
        starts = (indptr[:-1] + block * edges).reshape(-1)
        indptr = jnp.append(starts, jnp.asarray(blocks * edges, indptr.dtype))
    matrix = sparse.BCSR((values, cols, indptr), shape=(blocks * height, members * size * channels))
    y = matrix @ x.reshape(members * size * channels, features)
    return jnp.swapaxes(y.reshape(outer, inner, channels, height, features), 2, 3)


def _spmm_abstract(values, x, *structure, transpose):
    indptr = structure[3] if transpose else structure[0]
    return x.update(shape=(*x.shape[:2], indptr.shape[0] - 1, *x.shape[3:]))


def _spmm_transpose(ct, values, x, *structure, transpose):
    s = Structure(*structure)
    nones = (None,) * len(s)
    if type(ct) is ad.Zero:
        return (None, None, *nones)
    if ad.is_undefined_primal(x):
        return (None, _spmm(values, ct, s, transpose=not transpose), *nones)
    return (_sddmm(x, ct, s) if transpose else _sddmm(ct, x, s), None, *nones)


# --- sddmm: a [V, B, M, K, F], b [V, B, N, K, F] -> [V, E, K], summed over B and F ---------------


def _sddmm_gather(a, b, *structure):
    s = Structure(*structure)
    return jnp.einsum("vbekf,vbekf->vek", _take(a, s.rows, 2), _take(b, s.cols, 2))


def _sddmm_blocks(a, b, *structure, block_size=_BLOCK):
    """Compute in blocks of edges that stay in cache: XLA on CPU neither fuses nor vectorises the rest."""
    s = Structure(*structure)
    edges, outer, channels = s.rows.shape[0], a.shape[0], a.shape[3]
    row = a.size // max(1, a.shape[2])  # numbers gathered for one edge
    size = max(1, block_size // max(1, row))
    if edges <= size:
        return _sddmm_gather(a, b, *structure)

    def block(index):
        rows, cols = index
        return jnp.einsum("vbekf,vbekf->evk", _take(a, rows, 2), _take(b, cols, 2))

    count = -(-edges // size)
    padded = (jnp.pad(i, (0, count * size - edges)).reshape(count, size) for i in (s.rows, s.cols))
    scores = jax.lax.map(block, tuple(padded)).reshape(count * size, outer, channels)[:edges]
    return jnp.moveaxis(scores, 0, 1)


def _sddmm_abstract(a, b, *structure):
    return a.update(shape=(a.shape[0], structure[1].shape[0], a.shape[3]))


def _sddmm_transpose(ct, a, b, *structure):
    s = Structure(*structure)
    nones = (None,) * len(s)
    if type(ct) is ad.Zero:
        return (None, None, *nones)
    if ad.is_undefined_primal(a):
        return (_spmm(ct, b, s, transpose=False), None, *nones)
    return (None, _spmm(ct, a, s, transpose=True), *nones)


# --- batching -----------------------------------------------------------------------------------


def _block_diagonal(structure: tuple, dims: tuple, size: int) -> Structure:
    """Return the structure of ``diag(A_1, ..., A_B)`` from a batch of structures."""
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
    """Merge the batch axis (added if missing) into `axis` of the unbatched array."""
    return _merge(jnp.moveaxis(_front(x, dim, size), 0, axis), axis)


def _spmm_batch(args, dims, *, transpose):
    values, x, *structure = args
    v_dim, x_dim, *s_dims = dims
    size = _batch_size(args, dims)
    s = Structure(*structure)
    if any(d is not None for d in s_dims):
        s, v_axis, x_axis = _block_diagonal(tuple(structure), tuple(s_dims), size), 1, 2
    else:
        v_axis, x_axis = (None, 1) if v_dim is None else (0, 0)
    if v_axis is not None:
        values = _fold(values, v_dim, v_axis, size)
    y = _spmm(values, _fold(x, x_dim, x_axis, size), s, transpose=transpose)
    return _split(y, x_axis, size), x_axis


def _sddmm_batch(args, dims):
    a, b, *structure = args
    a_dim, b_dim, *s_dims = dims
    size = _batch_size(args, dims)
    s, axis, out = Structure(*structure), 0, 0
    if any(d is not None for d in s_dims):
        s, axis, out = _block_diagonal(tuple(structure), tuple(s_dims), size), 2, 1
    y = _sddmm(_fold(a, a_dim, axis, size), _fold(b, b_dim, axis, size), s)
    return _split(y, out, size), out


# --- registration -------------------------------------------------------------------------------


def _register(primitive: Any, abstract, transpose, batch, lowerings: dict[str | None, Any]):
    config: Any = jax.config

    @partial(jax.jit, static_argnames="parameters")
    def eager(operands, parameters):
        if config.jax_disable_jit:  # jit would call this function again without end
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
