"""The linear operator of all message passing.

A graph network sees a graph only as ``A = operator(graph, ...)`` and uses ``A @ x``, ``A.T``,
``A.scores(q, k)``, ``A.softmax(values)`` and ``A.with_values(values)``. The same network then runs
on a large sparse graph, on a small learned dense adjacency and on a padded batch of graphs.
Convention: ``(A @ x)[receiver]`` sums over senders, so ``A[receiver, sender]`` is the edge weight.

Sparse matrices of other kinds are operators too: bag-of-words features (``X @ W``), hypergraph
incidences, user-item matrices, complex magnetic Laplacians.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import scipy.sparse as sp
from jax.core import Tracer
from jaxtyping import Array, Integer, Num, Shaped

from jgd.graph.propagation import Structure, sddmm, spmm

__all__ = [
    "AnyArray",
    "DenseOperator",
    "DiagonalOperator",
    "Negative",
    "Normalization",
    "Operator",
    "SelfLoops",
    "SparseOperator",
    "check_index",
    "edge_weights",
    "from_coo",
    "identity",
    "normalize",
    "num_nodes",
    "operator",
    "propagate",
    "sparse_features",
]

Normalization: TypeAlias = Literal["sym", "row", "col"]
SelfLoops: TypeAlias = bool | float | int | Literal["remaining"]
Negative: TypeAlias = Literal["refuse", "absolute", "keep"]
Reduction: TypeAlias = Literal["sum", "mean", "max", "min"]
AnyArray: TypeAlias = Array | np.ndarray


def _check_columns(a: Operator, heads: tuple[int, ...], x: Array) -> None:
    if x.ndim == 0 or x.shape[0] != a.shape[1]:
        raise ValueError(f"A has {a.shape[1]} columns, but x has shape {x.shape}")
    if heads and x.shape[1:2] != heads:
        raise ValueError(f"A has {heads[0]} heads: x must be [N, {heads[0]}, ...], got {x.shape}")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SparseOperator:
    """Sparse ``(M, N)`` matrix, or ``H`` of them on the same positions (attention heads).

    Attributes:
      values: Values ``[E]`` or ``[E, H]`` in the order of ``structure``, transposed or not.
      structure: Positions of the nonzeros.
      transposed: Whether this is the transpose of the matrix that ``structure`` describes.
    """

    values: Any
    structure: Any  # a `Structure`, or its counterpart in a tree of axes or shardings
    transposed: bool = field(default=False, metadata={"static": True})

    @property
    def shape(self) -> tuple[int, int]:
        """Rows (receivers) and columns (senders)."""
        rows, cols = self.structure.indptr.shape[-1] - 1, self.structure.t_indptr.shape[-1] - 1
        return (cols, rows) if self.transposed else (rows, cols)

    @property
    def dtype(self) -> Any:
        """Type of the values."""
        return self.values.dtype

    @property
    def receivers(self) -> Array:
        """Row of each nonzero, ``[E]``."""
        return self.structure.cols if self.transposed else self.structure.rows

    @property
    def senders(self) -> Array:
        """Column of each nonzero, ``[E]``."""
        return self.structure.rows if self.transposed else self.structure.cols

    @property
    def T(self) -> SparseOperator:
        """The transpose (no conjugation); costs nothing."""
        return replace(self, transposed=not self.transposed)

    @property
    def H(self) -> SparseOperator:
        """The conjugate transpose."""
        return replace(self.T, values=jnp.conj(self.values))

    def __matmul__(self, x: Shaped[AnyArray, "N ..."]) -> Shaped[Array, "M ..."]:
        """Multiply with ``x`` of shape ``[N, ...]``; with ``H`` heads, ``x`` is ``[N, H, ...]``."""
        x, heads = jnp.asarray(x), self.values.shape[1:]
        _check_columns(self, heads, x)
        values = self.values if heads else self.values[:, None]
        flat = x.reshape(x.shape[0], values.shape[1], math.prod(x.shape[1 + len(heads) :]))
        y = spmm(values, flat, self.structure, transpose=self.transposed)
        return y.reshape(self.shape[0], *x.shape[1:])

    def scores(self, q: Shaped[AnyArray, "M ..."], k: Shaped[AnyArray, "N ..."]) -> Shaped[Array, "E ..."]:
        """Compute inner products at the nonzeros: ``[M, F], [N, F] -> [E]``, with heads ``[E, H]``."""
        q, k = jnp.asarray(q), jnp.asarray(k)
        a, b = (k, q) if self.transposed else (q, k)
        if q.ndim == 2:
            return sddmm(a[:, None], b[:, None], self.structure)[:, 0]
        return sddmm(a, b, self.structure)

    def softmax(self, values: Shaped[Array, "E ..."]) -> Shaped[Array, "E ..."]:
        """Compute the softmax of ``values`` over the nonzeros of each row."""
        channels = values.reshape(values.shape[0], math.prod(values.shape[1:]))
        rows, height = self.receivers, self.shape[0]
        top = jax.ops.segment_max(
            jax.lax.stop_gradient(channels), rows, height, indices_are_sorted=not self.transposed
        )
        weights = self.with_values(jnp.exp(channels - top[rows]))
        ones = jnp.ones((self.shape[1], channels.shape[1], 1), channels.dtype)
        totals = self.scores(weights @ ones, ones)  # gathered by products, which differentiate well
        return (weights.values / totals).reshape(values.shape)

    def with_values(self, values: Shaped[Array, "E ..."]) -> SparseOperator:
        """Return an operator with the same positions and other values; nothing is normalised again."""
        return replace(self, values=values)

    def at_senders(self, x: Shaped[Array, "N ..."]) -> Shaped[Array, "E ..."]:
        """Return the features of the column of each nonzero."""
        return jnp.take(x, self.senders, axis=0)

    def at_receivers(self, x: Shaped[Array, "M ..."]) -> Shaped[Array, "E ..."]:
        """Return the features of the row of each nonzero."""
        return jnp.take(x, self.receivers, axis=0)

    def reduce(self, messages: Shaped[Array, "E ..."], how: Reduction = "sum") -> Shaped[Array, "M ..."]:
        """Gather messages, one for each nonzero, into rows. Rows without any give zero."""
        segment = {"max": jax.ops.segment_max, "min": jax.ops.segment_min}.get(how, jax.ops.segment_sum)
        result = segment(messages, self.receivers, self.shape[0], indices_are_sorted=not self.transposed)
        indptr = self.structure.t_indptr if self.transposed else self.structure.indptr
        return _finish(result, jnp.diff(indptr), how)

    def todense(self) -> Array:
        """Return the matrix ``[M, N]`` or ``[M, N, H]``; repeated positions add up."""
        dense = jnp.zeros((*self.shape, *self.values.shape[1:]), self.dtype)
        return dense.at[self.receivers, self.senders].add(self.values)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DenseOperator:
    """Dense ``(M, N)`` matrix, or ``(M, N, H)`` with heads; zero entries are not edges.

    Batches of dense graphs use `jax.vmap`.
    """

    values: Any
    pattern: Any = None  # where edges are, once `with_values` has replaced the values

    @property
    def shape(self) -> tuple[int, int]:
        """Rows (receivers) and columns (senders)."""
        return self.values.shape[0], self.values.shape[1]

    @property
    def dtype(self) -> Any:
        """Type of the values."""
        return self.values.dtype

    @property
    def mask(self) -> Array:
        """Positions of the edges, ``[M, N]``."""
        return self.values != 0 if self.pattern is None else self.pattern

    def _mask(self, values: Array) -> Array:
        """Return the mask of values that may have more axes."""
        return self.mask.reshape(*self.mask.shape, *(1,) * (values.ndim - self.mask.ndim))

    @property
    def T(self) -> DenseOperator:
        """The transpose (no conjugation)."""
        pattern = None if self.pattern is None else jnp.swapaxes(self.pattern, 0, 1)
        return DenseOperator(jnp.swapaxes(self.values, 0, 1), pattern)

    @property
    def H(self) -> DenseOperator:
        """The conjugate transpose."""
        return replace(self.T, values=jnp.conj(self.T.values))

    def __matmul__(self, x: Shaped[AnyArray, "N ..."]) -> Shaped[Array, "M ..."]:
        """Multiply with ``x`` of shape ``[N, ...]``; with ``H`` heads, ``x`` is ``[N, H, ...]``."""
        x, heads = jnp.asarray(x), self.values.shape[2:]
        _check_columns(self, heads, x)
        if heads:
            return jnp.einsum("mnh,nh...->mh...", self.values, x)
        return jnp.tensordot(self.values, x, axes=1)

    def scores(self, q: Shaped[AnyArray, "M ..."], k: Shaped[AnyArray, "N ..."]) -> Shaped[Array, "M N ..."]:
        """Compute inner products of all pairs, ``[M, F], [N, F] -> [M, N]``, with heads ``[M, N, H]``."""
        return jnp.einsum("mf,nf->mn" if q.ndim == 2 else "mhf,nhf->mnh", q, k)

    def softmax(self, values: Shaped[Array, "M N ..."]) -> Shaped[Array, "M N ..."]:
        """Compute the softmax of ``values`` over the edges of each row; rows without edges give zeros."""
        return jax.nn.softmax(values, axis=1, where=self._mask(values))

    def with_values(self, values: Shaped[Array, "M N ..."]) -> DenseOperator:
        """Return an operator with other values on the same edges; values elsewhere are ignored."""
        return DenseOperator(jnp.where(self._mask(values), values, 0), self.mask)

    def at_senders(self, x: Shaped[Array, "N ..."]) -> Shaped[Array, "M N ..."]:
        """Return the column features at each pair."""
        return jnp.broadcast_to(x[None], (self.shape[0], *x.shape))

    def at_receivers(self, x: Shaped[Array, "M ..."]) -> Shaped[Array, "M N ..."]:
        """Return the row features at each pair."""
        return jnp.broadcast_to(x[:, None], (self.shape[0], self.shape[1], *x.shape[1:]))

    def reduce(self, messages: Shaped[Array, "M N ..."], how: Reduction = "sum") -> Shaped[Array, "M ..."]:
        """Gather messages, one for each edge, into rows. Rows without any give zero."""
        mask = self._mask(messages)
        if how in ("max", "min"):
            reduce, start = (jnp.max, -jnp.inf) if how == "max" else (jnp.min, jnp.inf)
            result = reduce(messages, axis=1, where=mask, initial=start)
        else:
            result = jnp.sum(messages, axis=1, where=mask)
        return _finish(result, jnp.sum(self.mask, axis=1), how)

    def todense(self) -> Array:
        """Return the matrix itself."""
        return self.values


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DiagonalOperator:
    """Diagonal ``(N, N)`` matrix, the operator of a graph without edges: nodes receive only from themselves.

    Attributes:
      values: Diagonal ``[N]``, or ``[N, H]`` with heads.
    """

    values: Any

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.values.shape[0], self.values.shape[0]

    @property
    def dtype(self) -> Any:
        """Type of the values."""
        return self.values.dtype

    @property
    def T(self) -> DiagonalOperator:
        """The transpose, which is the matrix itself."""
        return self

    @property
    def H(self) -> DiagonalOperator:
        """The conjugate transpose."""
        return DiagonalOperator(jnp.conj(self.values))

    def __matmul__(self, x: Shaped[AnyArray, "N ..."]) -> Shaped[Array, "N ..."]:
        """Multiply with ``x`` of shape ``[N, ...]``; with ``H`` heads, ``x`` is ``[N, H, ...]``."""
        x, heads = jnp.asarray(x), self.values.shape[1:]
        _check_columns(self, heads, x)
        return self.values.reshape(*self.values.shape, *(1,) * (x.ndim - self.values.ndim)) * x

    def scores(self, q: Shaped[AnyArray, "N ..."], k: Shaped[AnyArray, "N ..."]) -> Shaped[Array, "N ..."]:
        """Compute inner products of each node with itself, ``[N, F] -> [N]``, with heads ``[N, H]``."""
        return jnp.sum(jnp.asarray(q) * jnp.asarray(k), axis=-1)

    def softmax(self, values: Shaped[Array, "N ..."]) -> Shaped[Array, "N ..."]:
        """Return the softmax over the one nonzero of each row: ones."""
        return jnp.ones_like(values)

    def with_values(self, values: Shaped[Array, "N ..."]) -> DiagonalOperator:
        """Return an operator with another diagonal."""
        return DiagonalOperator(values)

    def at_senders(self, x: Shaped[Array, "N ..."]) -> Shaped[Array, "N ..."]:
        """Return the features of the column of each nonzero, ``x``."""
        return x

    def at_receivers(self, x: Shaped[Array, "N ..."]) -> Shaped[Array, "N ..."]:
        """Return the features of the row of each nonzero, ``x``."""
        return x

    def reduce(self, messages: Shaped[Array, "N ..."], how: Reduction = "sum") -> Shaped[Array, "N ..."]:
        """Gather messages, one for each node, into rows; every reduction returns them."""
        del how
        return messages

    def todense(self) -> Array:
        """Return the matrix ``[N, N]`` or ``[N, N, H]``."""
        eye = jnp.eye(self.shape[0], dtype=self.dtype)
        return eye.reshape(*eye.shape, *(1,) * (self.values.ndim - 1)) * self.values


def identity(size: int) -> DiagonalOperator:
    """Return ``A = I`` of ``size`` nodes."""
    return DiagonalOperator(jnp.ones(size))


Operator: TypeAlias = SparseOperator | DenseOperator | DiagonalOperator


def _finish(result: Array, count: Array, how: Reduction) -> Array:
    """Divide by the count for a mean; return zeros for an extreme of no values."""
    count = count.reshape(*count.shape, *(1,) * (result.ndim - count.ndim))
    return {
        "sum": lambda: result,
        "mean": lambda: result / jnp.maximum(count, 1),
        "max": lambda: jnp.where(count > 0, result, 0),
        "min": lambda: jnp.where(count > 0, result, 0),
    }[how]()


def check_index(name: str, index: Any, size: int) -> None:
    """Check that an index is a vector of integers in ``0..size-1``; a traced one is not checked.

    Args:
      name: Name of the index, for messages.
      index: Array.
      size: Largest number plus one.

    Raises:
      ValueError: If the index is anything else; the message names the first entry out of range.
    """
    if index.ndim != 1 or not (np.issubdtype(index.dtype, np.integer) or index.size == 0):
        raise ValueError(f"{name} must be a vector of integers, got {index.dtype} of shape {index.shape}")
    if isinstance(index, Tracer):
        return
    index = np.asarray(index)
    outside = np.flatnonzero((index < 0) | (index >= size))
    if outside.size:
        first = outside[0]
        raise ValueError(f"{name}[{first}] is {index[first]}, but indices run from 0 to {size - 1}")


def from_coo(
    senders: Integer[AnyArray, " E"],
    receivers: Integer[AnyArray, " E"],
    values: Shaped[AnyArray, "E *H"] | None = None,
    *,
    shape: tuple[int, int],
) -> SparseOperator:
    """Build a sparse operator from coordinates: rows are ``receivers``, columns ``senders``.

    The arrays are concrete (checked and sorted on the host) or traced, in which case indices must be in
    range. Repeated positions add up.

    Args:
      senders: Column of each nonzero.
      receivers: Row of each nonzero.
      values: Values ``[E]`` or ``[E, H]``; ones by default.
      shape: Number of rows and of columns.

    Raises:
      ValueError: If indices are not integers or out of range, or lengths differ.
    """
    check_index("senders", senders, shape[1])
    check_index("receivers", receivers, shape[0])
    lengths = [len(x) for x in (senders, receivers, values) if x is not None]
    if len(set(lengths)) > 1:
        raise ValueError(f"senders, receivers and values must have equal lengths, got {lengths}")
    traced = any(isinstance(a, Tracer) for a in (senders, receivers))
    xp: Any = jnp if traced else np
    rows, cols = (xp.asarray(a).astype(np.int32) for a in (receivers, senders))
    order = xp.lexsort((cols, rows))
    rows, cols = rows[order], cols[order]
    perm = xp.lexsort((rows, cols))

    def pointers(index, size):
        return xp.searchsorted(index, xp.arange(size + 1)).astype(np.int32)

    t_rows = cols[perm]
    structure = Structure(
        indptr=pointers(rows, shape[0]),
        rows=rows,
        cols=cols,
        t_indptr=pointers(t_rows, shape[1]),
        t_cols=rows[perm],
        t_rows=t_rows,
        perm=perm.astype(np.int32),
    )
    if values is None:
        values = np.ones(rows.shape, np.float32)
    ordered = values[order] if isinstance(values, np.ndarray) and not traced else _rows(values, order)
    return SparseOperator(jnp.asarray(ordered), jax.tree.map(jnp.asarray, structure))


# Graphs are prepared on the host, or by one program: single operations would be compiled for every size.
@jax.jit
def _rows(x: Shaped[AnyArray, "N ..."], index: Integer[AnyArray, " E"]) -> Shaped[Array, "E ..."]:
    return jnp.asarray(x)[index]


def num_nodes(graph: jraph.GraphsTuple) -> int:
    """Return the static number of nodes of a graph, padding included."""
    nodes: Any = graph.nodes
    if isinstance(nodes, SparseOperator):
        return nodes.shape[0]
    leaves = jax.tree.leaves(nodes)
    return int(leaves[0].shape[0]) if leaves else int(np.sum(np.asarray(graph.n_node)))


def edge_weights(graph: jraph.GraphsTuple) -> Any:
    """Return the edge weights ``[E]`` of a graph, or None for unit weights.

    ``graph.edges`` is None, an array ``[E]`` or ``[E, 1]`` of weights, or a dict of edge data whose
    ``"weight"``, if present, is such an array. Other edge features are not weights.
    """
    edges: Any = graph.edges
    weights = edges.get("weight") if isinstance(edges, dict) else edges
    if weights is None:
        return None
    if weights.ndim == 2 and weights.shape[1] == 1:
        return weights[:, 0]
    if weights.ndim != 1:
        raise ValueError(
            f"edges have shape {weights.shape}, which are features and not weights: "
            "keep them in a dict, e.g. edges={'feature': ...}, with the weights under 'weight'"
        )
    return weights


def operator(
    graph: Any,
    *,
    normalize: Normalization | None = None,
    self_loops: SelfLoops = False,
    negative: Negative = "refuse",
) -> Operator:
    """Build the adjacency operator of a graph.

    Args:
      graph: Graph (sparse), adjacency array ``[M, N]`` (dense), SciPy sparse matrix, diagonal operator, or
        `jgd.data.Condensed` of nodes, whose stored normalisation is then applied once.
      normalize: Normalisation: ``"sym"`` is ``D_r^-1/2 A D_c^-1/2``, ``"row"`` makes rows sum to one,
        ``"col"`` makes columns sum to one, None keeps the weights. Degrees are sums of weights: ``D_r`` of
        the edges that arrive at a node, ``D_c`` of those that leave it. They differ in a directed graph,
        where PyTorch Geometric uses the arriving edges on both sides. A node without edges keeps a zero row.
      self_loops: Weight of a loop added to every node (True is 1) before normalising. Existing loops are kept
        and add up. ``"remaining"`` adds a loop of weight 1 only to nodes without one, as PyTorch Geometric
        does; several loops of a node become one with the sum of their weights.
      negative: Treatment of weights below zero when normalising: ``"refuse"`` raises an error; ``"absolute"``
        takes degrees of their absolute values and keeps their signs; ``"keep"`` takes their signed sums,
        where a row whose sum is not positive becomes zero. Traced weights are not checked.

    Weights of other types (booleans, counts) become floating-point numbers.

    Returns:
      `SparseOperator` or `DenseOperator` with ``A[receiver, sender] = weight``.

    Raises:
      ValueError: If the graph is not sound, or weights are negative.
    """
    data: Any = graph
    if isinstance(self_loops, str) and self_loops != "remaining":
        raise ValueError(f'self_loops must be a weight, a bool or "remaining", got {self_loops!r}')
    if hasattr(data, "operator"):
        return data.operator(normalize=normalize, self_loops=self_loops, negative=negative)
    if hasattr(data, "graph"):
        raise ValueError(f"a {type(data).__name__} is not a graph: give its graph, operator(task.graph, ...)")
    remaining = self_loops == "remaining"
    loop = 0.0 if remaining else float(self_loops)
    if isinstance(data, jraph.GraphsTuple):
        size = num_nodes(data)
        senders: Any = data.senders
        receivers: Any = data.receivers
        weights = edge_weights(data)
        weights = np.ones(len(senders), jnp.result_type(float)) if weights is None else _floating(weights)
        if remaining:
            senders, receivers, weights = _one_loop_each(senders, receivers, weights, size)
        elif loop:
            xp: Any = jnp if any(isinstance(i, Tracer) for i in (senders, receivers)) else np
            nodes = xp.arange(size, dtype=np.int32)
            weights = _append(weights, np.full(size, loop, weights.dtype))
            senders, receivers = xp.append(senders, nodes), xp.append(receivers, nodes)
        a: Operator = from_coo(senders, receivers, weights, shape=(size, size))
    elif sp.issparse(data):
        if remaining:
            missing = (data.diagonal() == 0).astype(np.float32)
            data = data + sp.dia_array((missing[None], [0]), shape=data.shape)
        coo = (data + loop * sp.eye_array(*data.shape) if loop else data).tocoo()
        a = from_coo(coo.col, coo.row, _floating(coo.data), shape=coo.shape)
    elif isinstance(data, DiagonalOperator):
        a = DiagonalOperator(jnp.where(data.values == 0, 1, data.values) if remaining else data.values + loop)
    else:
        dense = _floating(data)
        if dense.ndim != 2:
            raise ValueError(f"an adjacency array is [M, N], got shape {dense.shape}")
        eye = jnp.eye(*dense.shape, dtype=dense.dtype)
        if remaining:
            dense = jnp.where((eye > 0) & (dense == 0), 1, dense)
        a = DenseOperator(dense + loop * eye if loop else dense)
    return a if normalize is None else _normalize(a, normalize, negative=negative)


@partial(jax.jit, static_argnames="size")
def _loops(receivers: Any, there: Any, weights: AnyArray, size: int) -> Array:
    own = jnp.zeros(size, weights.dtype).at[receivers].add(jnp.where(there, weights, 0))
    count = jnp.zeros(size, jnp.int32).at[receivers].add(there)
    return jnp.where(count > 0, own, 1).astype(weights.dtype)


def _append(a: AnyArray, b: AnyArray) -> AnyArray:
    on_host = isinstance(a, np.ndarray) and not isinstance(b, Tracer)
    return np.append(a, np.asarray(b)) if on_host else jnp.append(a, b)


def _one_loop_each(senders: Any, receivers: Any, weights: AnyArray, size: int) -> tuple[Any, Any, AnyArray]:
    """Return edges with exactly one loop of each node: the sum of those it has, or one of weight 1."""
    traced = any(isinstance(i, Tracer) for i in (senders, receivers))
    xp: Any = jnp if traced else np
    senders, receivers = xp.asarray(senders), xp.asarray(receivers)
    there = senders == receivers
    loops = _loops(receivers, there, weights, size)
    nodes = xp.arange(size, dtype=np.int32)
    if traced:  # shapes are static, and a weight of 0 is not an edge
        weights = jnp.where(there, 0, weights)
    else:
        senders, receivers, weights = senders[~there], receivers[~there], weights[np.flatnonzero(~there)]
    return xp.append(senders, nodes), xp.append(receivers, nodes), _append(weights, loops)


def _floating(x: AnyArray) -> AnyArray:
    return (x if isinstance(x, np.ndarray) else jnp.asarray(x)).astype(jnp.result_type(x, float))


@jax.jit
def _any_negative(values: Shaped[Array, "..."]) -> Array:
    return jnp.any(values < 0)


def _check_signs(a: Operator) -> None:
    """Refuse negative weights that are not traced, naming the first edge."""
    if isinstance(a.values, Tracer):
        return
    with jax.ensure_compile_time_eval():  # values may be known while another function is traced
        if not bool(_any_negative(a.values)):
            return
    at = tuple(np.argwhere(np.asarray(a.values) < 0)[0])
    row, col = (at * 2)[:2] if not isinstance(a, SparseOperator) else (a.receivers[at[0]], a.senders[at[0]])
    raise ValueError(
        f"the edge from {int(col)} to {int(row)} has the weight {float(a.values[at]):g}: degrees need "
        'weights that are not negative; negative="absolute" takes their absolute values'
    )


def normalize(a: Operator, how: Normalization, *, negative: Negative = "refuse") -> Operator:
    """Scale rows and columns by their sums (see `operator`); differentiable in the values.

    Each head is scaled by its own sums. A row or column whose sum is not positive becomes zero.

    Args:
      a: Operator with real values.
      how: Normalisation: ``"sym"``, ``"row"`` or ``"col"``.
      negative: Treatment of negative weights, see `operator`.

    Raises:
      ValueError: If the normalisation is unknown, weights are complex, or weights are negative although
        ``negative`` refuses them.
    """
    exponents = {"sym": (-0.5, -0.5), "row": (-1.0, 0.0), "col": (0.0, -1.0)}
    if how not in exponents:
        raise ValueError(f"normalize must be one of {list(exponents)} or None, got {how!r}")
    if jnp.iscomplexobj(a.values):
        raise ValueError("sums of complex weights are not degrees: normalise the magnitudes instead")
    if negative not in get_args(Negative):
        raise ValueError(f"negative must be one of {', '.join(get_args(Negative))}, got {negative!r}")
    if negative == "refuse":
        _check_signs(a)
    scaled = _scaled if isinstance(a.values, Tracer) else _scaled_at_once  # a trace is one program already
    return replace(a, values=scaled(a, exponents[how], how, negative == "absolute"))


def _scaled(
    a: Operator, exponents: tuple[Any, Any], how: Normalization, absolute: bool
) -> Shaped[Array, "..."]:
    sizes = replace(a, values=jnp.abs(a.values)) if absolute else a
    heads = a.values.shape[2:] if isinstance(a, DenseOperator) else a.values.shape[1:]

    def scale(matrix, exponent, scaled):
        ones = jnp.ones((matrix.shape[1], *heads), jnp.result_type(a.dtype, float))
        if not scaled:
            return jnp.ones((matrix.shape[0], *heads, 1), ones.dtype)
        d = matrix @ ones
        return jnp.where(d > 0, jnp.where(d > 0, d, 1.0) ** exponent, 0.0)[..., None]

    rows, cols = exponents
    return a.values * a.scores(scale(sizes, rows, how != "col"), scale(sizes.T, cols, how != "row"))


_scaled_at_once = jax.jit(_scaled, static_argnames=("how", "absolute"))
_normalize = normalize  # because `operator` has an argument of that name


def sparse_features(x: Shaped[AnyArray, "N F"] | sp.spmatrix | sp.sparray) -> SparseOperator:
    """Return node features as an operator; ``X @ W`` then costs its nonzeros only (host side)."""
    matrix: Any = x if sp.issparse(x) else np.asarray(x)
    result = operator(sp.csr_array(matrix, dtype=np.float32))
    assert isinstance(result, SparseOperator)
    return result


def propagate(a: Operator, x: Num[Array, "N F"], terms: int, alpha: float | Array) -> Num[Array, "N F"]:
    """Compute the truncated personalised-propagation series ``(1 - alpha) sum_{t<terms} alpha^t A^t x``.

    For ``terms -> inf`` and a spectral radius of at most one it solves ``(I - alpha A) y = (1 - alpha) x``.

    Args:
      a: Square operator.
      x: Node features.
      terms: Number of terms, at least one; one term is ``(1 - alpha) x``.
      alpha: Weight of each further step, in ``[0, 1)``.
    """
    if terms < 1:
        raise ValueError(f"terms must be at least 1, got {terms}")
    x = x.astype(jnp.result_type(x, a.dtype, alpha))
    y, _ = jax.lax.scan(lambda y, _: (x + alpha * (a @ y), None), x, length=terms - 1)
    return (1 - alpha) * y
