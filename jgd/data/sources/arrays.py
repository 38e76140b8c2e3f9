"""Arrays in one ``.npz``: a graph, a set of graphs, or examples without edges.

========================  ==========================================================================
``x``                     ``[N, F]`` features (also ``features``, ``feat``, ``attr``), or the parts of a
                          CSR matrix ``attr_data``, ``attr_indices``, ``attr_indptr``, ``attr_shape``;
                          examples without edges may have any shape, e.g. images ``[N, H, W, C]``
``y``                     ``[N]`` labels, or ``[G]`` of graphs (also ``label``, ``labels``, ``target``,
                          ``targets``, ``class``, or the name in the option ``label``)
``edge_index``            ``[2, E]`` sources and targets; or ``senders`` and ``receivers`` ``[E]``; or the
                          parts of a CSR matrix ``adj_indptr``, ``adj_indices`` and optionally
                          ``adj_data``, where row i lists the targets of the edges of node i; or a dense
                          ``adj`` ``[N, N]``, ``adj[i, j]`` the weight of the edge from j to i
``edge_weight``           ``[E]`` weights (also ``weight``, ``weights``), or none
``batch``                 ``[N]`` graph of each node, ascending from 0 (also ``graph``): a set of graphs
``train_mask``            ``[N]`` bools, or row numbers as ``train_idx``; also ``val`` and ``test``
========================  ==========================================================================

A file without edges holds examples. Arrays of other names are left out, which is reported.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from jgd.data.arrays import read_npz
from jgd.data.sources.assemble import Draft, Found, Options, array_task, graph_task, node_task
from jgd.data.sources.columns import hinted
from jgd.data.storage import DataError

__all__ = ["masks_in", "read_arrays"]

_X = ("x", "features", "feat", "attr")
_Y = ("y", "label", "labels", "target", "targets", "class")
_WEIGHTS = ("edge_weight", "weight", "weights")
_DENSE = 4 * 2**30  # bytes that sparse features may take as a dense array


class _Arrays:
    """Arrays of a file, with the names of those that were used."""

    def __init__(self, path: Path, arrays: dict[str, np.ndarray]):
        self.path, self.arrays = path, arrays
        self.used: set[str] = set()

    def take(self, *names: str) -> np.ndarray | None:
        """Return the first array of these names that exists."""
        for name in names:
            if name in self.arrays:
                self.used.add(name)
                return self.arrays[name]
        return None

    def need(self, name: str, why: str) -> np.ndarray:
        found = self.take(name)
        if found is None:
            raise DataError(f"{self.path} has {why}, but no {name}")
        return found

    def vector(self, name: str, why: str, *, whole: bool = True) -> np.ndarray:
        """Return an array of one axis, of whole numbers."""
        array = self.need(name, why)
        if array.ndim != 1 or array.dtype.kind not in ("iu" if whole else "biuf"):
            kind = "whole numbers" if whole else "numbers"
            raise DataError(
                f"{self.path}: {name} is {array.dtype} {array.shape}, expected {kind} in one axis"
            )
        return array

    def rest(self) -> list[str]:
        return [name for name in self.arrays if name not in self.used]


def read_arrays(path: Path, name: str, options: Options) -> Found:
    """Read a graph, a set of graphs or examples from an ``.npz``, see the module."""
    with hinted():
        held = _Arrays(path, read_npz(path))
    if "header" in held.arrays:
        raise DataError(f"{path} is a condensed dataset: see jgd evaluate and jgd export")
    for ignored in options.ignore:
        if held.arrays.pop(ignored, None) is None:
            raise DataError(f"{path} has no array {ignored!r} to ignore: it holds {', '.join(held.arrays)}")
    x = held.take(*_X)
    if x is None and "attr_indptr" in held.arrays:
        x = _dense(held)
    y = held.take(*_Y) if options.label is None else held.take(options.label)
    if y is None:
        wanted = " or ".join(_Y[:3]) if options.label is None else repr(options.label)
        raise DataError(
            f"{path} has no array {wanted} of labels: it holds {', '.join(held.arrays) or 'nothing'}"
            "; name it with label= (--label-column)"
        )
    ends = _edges(held, None if x is None else len(x))
    batch = held.take("batch", "graph") if ends is not None else None
    size = len(x) if x is not None and x.ndim else len(y) if batch is None and y.ndim else None
    size = len(batch) if size is None and batch is not None and batch.ndim else size
    if not size:
        raise DataError(f"{path}: x and y hold no rows")
    draft = Draft(name, str(path), options, y, masks_in(held.arrays, held.used))
    if ends is None:
        if x is None:
            raise DataError(f"{path} has neither features nor edges: it holds {', '.join(held.arrays)}")
        _note_rest(held, draft)
        return array_task(draft, _images(x, draft), size)
    senders, receivers, weights = ends
    if weights is None:
        weights = held.take(*_WEIGHTS)
    if weights is not None:
        weights = np.asarray(weights)
        if weights.shape != senders.shape or weights.dtype.kind not in "biuf":
            raise DataError(
                f"{path}: edge_weight is {weights.dtype} {weights.shape}, there are {len(senders)} edges"
            )
        weights = weights.astype(np.float32)
    _note_rest(held, draft)
    if batch is None:
        return node_task(draft, senders, receivers, size, x=x, edges=weights)
    return _graphs(draft, held, senders, receivers, weights, batch, x, size)


def _note_rest(held: _Arrays, draft: Draft) -> None:
    if rest := held.rest():
        draft.notes.append(f"arrays left out: {', '.join(rest)}")


def masks_in(arrays: dict[str, Any], used: set[str]) -> dict[str, np.ndarray]:
    """Return the splits among arrays by name; add the names of those to ``used``."""
    found = {}
    for part, names in (("train", ("train",)), ("val", ("val", "valid")), ("test", ("test",))):
        for name in (f"{n}_{ending}" for n in names for ending in ("mask", "idx", "index")):
            if name in arrays:
                used.add(name)
                found[part] = arrays[name]
                break
    return found


def _edges(held: _Arrays, size: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray | None] | None:
    """Return sources, targets and weights, or None for a file without edges."""
    path = held.path
    pair = held.take("edge_index")
    if pair is not None:
        if pair.ndim != 2 or pair.shape[0] != 2 or pair.dtype.kind not in "iu":
            raise DataError(f"{path}: edge_index is {pair.dtype} {pair.shape}, expected integers [2, E]")
        return pair[0], pair[1], None
    if "senders" in held.arrays or "receivers" in held.arrays:
        held.used |= {"adj"} & set(held.arrays)  # `jgd export` writes it beside them
        ends = [held.vector(name, "edges") for name in ("senders", "receivers")]
        if len(ends[0]) != len(ends[1]):
            raise DataError(f"{path}: {len(ends[0])} senders, but {len(ends[1])} receivers")
        return ends[0], ends[1], None
    for prefix in ("adj_", ""):
        if f"{prefix}indptr" in held.arrays:
            pointers, indices = (held.vector(prefix + part, "a CSR matrix") for part in ("indptr", "indices"))
            rows = _rows_of(path, prefix, pointers, indices)
            shape = held.take(f"{prefix}shape")
            if shape is not None and shape.tolist()[:1] != [len(pointers) - 1]:
                raise DataError(f"{path}: {prefix}shape is {shape}, but there are {len(pointers) - 1} rows")
            held.take(f"{prefix}format")
            data = held.take(f"{prefix}data")
            return rows, indices, None if data is None or (data == 1).all() else data
    matrix = held.take("adj", "adjacency")
    if matrix is None:
        return None
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.dtype.kind not in "biuf":
        raise DataError(f"{path}: adj is {matrix.dtype} {matrix.shape}, expected numbers [N, N]")
    receivers, senders = np.nonzero(matrix)
    data = matrix[receivers, senders]
    return senders, receivers, None if (data == 1).all() else data


def _rows_of(path: Path, prefix: str, pointers: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Return the row of each entry of a CSR matrix after checking the row pointers."""
    steps = np.diff(pointers.astype(np.int64))
    if not len(pointers) or pointers[0] != 0 or (steps < 0).any() or pointers[-1] != len(indices):
        raise DataError(
            f"{path}: {prefix}indptr must rise from 0 to {len(indices)}, the number of {prefix}indices"
        )
    return np.repeat(np.arange(len(steps)), steps)


def _dense(held: _Arrays) -> np.ndarray:
    path = held.path
    pointers, indices = (held.vector(f"attr_{part}", "CSR features") for part in ("indptr", "indices"))
    data = held.vector("attr_data", "CSR features", whole=False)
    shape = held.need("attr_shape", "CSR features").tolist()
    rows = _rows_of(path, "attr_", pointers, indices)
    if len(shape) != 2 or shape[0] != len(pointers) - 1 or len(data) != len(indices):
        raise DataError(
            f"{path}: attr_shape is {shape}, for {len(pointers) - 1} rows and {len(data)} numbers"
        )
    if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < shape[1]:
        raise DataError(f"{path}: attr_indices run to {indices.max()}, there are {shape[1]} columns")
    if 4 * math.prod(shape) > _DENSE:
        raise DataError(
            f"{path}: features {shape} take {4 * math.prod(shape) / 2**30:.0f} GiB as a dense array"
        )
    x = np.zeros(shape, np.float32)
    x[rows, indices] = data
    return x


def _images(x: np.ndarray, draft: Draft) -> np.ndarray:
    """Return examples of more than one axis in the form that networks read."""
    if x.ndim <= 2:
        return x
    if x.dtype.kind not in "biuf":
        raise DataError(f"{draft.source}: x is of type {x.dtype}, expected numbers")
    if x.dtype != np.uint8:
        x = x.astype(np.float32)
        if not np.isfinite(x).all():
            row = int(np.argwhere(~np.isfinite(x))[0][0])
            raise DataError(f"{draft.source}: x holds NaN or infinity, first in row {row}")
    if x.ndim == 3:
        draft.notes.append("x has three axes: read as images of one channel")
        x = x[..., None]
    return x


def _graphs(draft: Draft, held: _Arrays, senders, receivers, weights, batch, x, size) -> Found:
    """Make a set of graphs from the number of the graph of each node."""
    path = held.path
    if batch.shape != (size,) or batch.dtype.kind not in "iu":
        raise DataError(f"{path}: batch is {batch.dtype} {batch.shape}, expected an integer for {size} nodes")
    batch, count = batch.astype(np.int64), len(draft.y)
    if batch[0] < 0 or (np.diff(batch) < 0).any() or batch[-1] >= count:
        raise DataError(f"{path}: batch must rise from 0 to {count - 1}, because there are {count} labels")
    for name, ends in (("sources", senders), ("targets", receivers)):
        if len(ends) and not 0 <= int(ends.min()) <= int(ends.max()) < size:
            raise DataError(
                f"{path}: {name} of edges must be in 0..{size - 1}, got {ends.min()}..{ends.max()}"
            )
    owner = batch[senders]
    if (owner != batch[receivers]).any():
        raise DataError(f"{path}: edge {int((owner != batch[receivers]).argmax())} joins nodes of two graphs")
    order = np.argsort(owner, kind="stable")
    return graph_task(
        draft,
        senders[order],
        receivers[order],
        np.bincount(batch, minlength=count),
        np.bincount(owner, minlength=count),
        x=x,
        edges=None if weights is None else weights[order],
    )
