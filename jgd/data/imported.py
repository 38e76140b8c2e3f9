"""Condensed graphs that other implementations saved, as `Condensed`.

Features, labels and adjacency are one file each: ``.npy``, ``.npz``, or ``.pt`` as ``torch.save`` writes
tensors. The latter are read without PyTorch, by a reader that knows tensors and plain containers only.
Implementations that save no labels imply them by the order in which they spend the budget of the classes.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

from jgd.data.archives import open_zip, read_member
from jgd.data.arrays import checked_array, read_npy, read_npz
from jgd.data.condensed import Condensed, Training
from jgd.data.pickles import Kind, read_pickle
from jgd.data.storage import DataError, reading
from jgd.data.tasks import NodeTask
from jgd.graph import from_adjacency, from_edges

__all__ = ["import_condensed", "labels_by_count", "read_array", "read_torch"]

_STORAGES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",  # widened to float32
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "b1",
}


class _Storage(NamedTuple):
    """Name of a type of storage."""

    name: str


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> np.ndarray:
    """Return a view of a storage as PyTorch describes it. Bounds are checked: the file may state anything."""
    del rest  # whether it requires gradients, and hooks
    shaped = isinstance(size, tuple) and isinstance(stride, tuple)
    numbers: Any = (offset, *size, *stride) if shaped else (None,)
    if not isinstance(storage, np.ndarray) or not all(type(n) is int for n in numbers):
        raise ValueError("a tensor is described by other than numbers")
    if len(size) != len(stride) or len(size) > 32 or min(numbers) < 0 or max(numbers) >= 2**48:
        raise ValueError(f"a tensor of size {size} with strides {stride} from {offset} makes no sense"[:300])
    count = math.prod(size)
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if count and last >= len(storage):
        raise ValueError(
            f"a tensor reaches number {last} of a storage of {len(storage)}: the file is damaged"
        )
    if count > len(storage):
        raise ValueError(
            f"a tensor of {count} numbers shares a storage of {len(storage)}: save it by .clone()"
        )
    if not count:
        return np.empty(size, storage.dtype)
    steps = tuple(s * storage.itemsize for s in stride)
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False)


def _parameter(data: Any, *rest: Any) -> Any:
    """Return the tensor inside a parameter."""
    del rest
    return data


def _size(sizes: Any = ()) -> tuple:
    """Stand in for ``torch.Size``."""
    return tuple(sizes) if isinstance(sizes, list | tuple) else ()


def _mapping(state: Any) -> dict[str, Any]:
    """Return the fields of a storage of PyTorch Geometric, without its owner."""
    fields = state.get("_mapping") if isinstance(state, dict) else None
    if not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields):
        raise ValueError("the graph has a store without fields")
    return fields


def _data(state: Any) -> SimpleNamespace:
    """Return the fields of a ``torch_geometric.data.Data``, which version 2 keeps in a store."""
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise ValueError("the graph has no fields")
    if "_store" in state:
        fields = state["_store"]
        if not isinstance(fields, dict):
            raise ValueError("the graph has a store without fields")
    else:
        renamed = {name.replace("__num_nodes__", "num_nodes"): value for name, value in state.items()}
        fields = {name: v for name, v in renamed.items() if v is not None and not name.startswith("_")}
    return SimpleNamespace(**fields)


_GEOMETRIC = "torch_geometric.data"
_NAMES: dict[tuple[str, str], Any] = {
    **{("torch", name): _Storage(name) for name in _STORAGES},
    ("torch", "Size"): _size,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    (f"{_GEOMETRIC}.data", "Data"): Kind(_data),
    (f"{_GEOMETRIC}.storage", "GlobalStorage"): Kind(_mapping),
    # Classes that a graph of version 2 names without using them.
    (f"{_GEOMETRIC}.data", "DataTensorAttr"): None,
    (f"{_GEOMETRIC}.data", "DataEdgeAttr"): None,
    (f"{_GEOMETRIC}.feature_store", "TensorAttr"): None,
    (f"{_GEOMETRIC}.graph_store", "EdgeAttr"): None,
}


def _storages(archive: zipfile.ZipFile, root: str) -> Callable[[Any], np.ndarray]:
    """Return a reader of the storages of an archive, each once: tensors that share one are views of it."""
    members = set(archive.namelist())
    big = f"{root}byteorder" in members and read_member(archive, f"{root}byteorder") == b"big"
    found: dict[tuple[str, str], np.ndarray] = {}

    def read(pid: Any) -> np.ndarray:
        if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage":
            raise ValueError("it refers to what is no storage of numbers")
        _, kind, key, _, count = pid
        if not isinstance(kind, _Storage) or not isinstance(key, str) or f"{root}data/{key}" not in members:
            raise ValueError(f"it refers to {str(key)[:40]!r}, which is no storage of numbers")
        if (key, kind.name) not in found:
            content = bytes(read_member(archive, f"{root}data/{key}"))
            dtype = np.dtype(_STORAGES[kind.name]).newbyteorder(">" if big else "<")
            if type(count) is not int or len(content) != count * dtype.itemsize:
                raise ValueError(
                    f"a storage holds {len(content) // dtype.itemsize} numbers, but states "
                    f"{str(count)[:24]}: the file is damaged"
                )
            numbers = checked_array(content, dtype, (count,))
            if kind.name == "BFloat16Storage":
                numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
            found[key, kind.name] = numbers
        return found[key, kind.name]

    return read


def read_torch(path: str | os.PathLike[str]) -> Any:
    """Read what ``torch.save`` wrote, without PyTorch: tensors as arrays, and plain containers of them.

    A ``torch_geometric.data.Data`` becomes a `types.SimpleNamespace` of its fields (of versions 1 and 2), so
    that `jgd.data.from_pyg` takes it. Nothing of the file is executed. Arrays are read-only, because tensors
    that share a storage share it here.

    Args:
      path: The file.

    Raises:
      DataError: If the file is missing, damaged, in the format before PyTorch 1.6, or holds anything else.
    """
    with reading(path):
        if not zipfile.is_zipfile(path):
            Path(path).stat()  # a missing file is missing
            raise DataError(f"{path} is no archive of torch.save: save it again with PyTorch 1.6 or later")
        # PyTorch stores without compression: what unpacks to much more is none of its files.
        with open_zip(path, 2**24 + 2 * os.path.getsize(path)) as archive:
            names = [n for n in archive.namelist() if PurePosixPath(n).name == "data.pkl"]
            if len(names) != 1:
                raise DataError(f"{path} holds {len(names)} pickles, expected one")
            storages = _storages(archive, names[0].removesuffix("data.pkl"))
            content = bytes(read_member(archive, names[0]))
            return read_pickle(content, names=_NAMES, persistent=storages)


def read_array(path: str | os.PathLike[str], names: tuple[str, ...] = ()) -> Shaped[np.ndarray, "..."]:
    """Read one array from ``.npy``, ``.npz`` or ``.pt``.

    Args:
      path: The file.
      names: Names of the array in a file of several, tried in order.

    Raises:
      DataError: If the file cannot be read, or holds several arrays and none of these names.
    """
    suffix = Path(path).suffix
    if suffix == ".npy":
        return read_npy(path)
    value = read_npz(path) if suffix == ".npz" else read_torch(path)
    if isinstance(value, dict):
        found = [n for n in names if n in value] or ([*value] if len(value) == 1 else [])
        if not found:
            raise DataError(
                f"{path} holds {', '.join(map(str, value)) or 'nothing'}: none of {', '.join(names)}"
            )
        value = value[found[0]]
    if not isinstance(value, np.ndarray):
        raise DataError(f"{path} holds a {type(value).__name__}, expected an array")
    return value


def labels_by_count(task: NodeTask, size: int) -> Int[np.ndarray, " n"]:
    """Return labels in the order in which GCond and its relatives spend their budget.

    Classes are ordered by the number of their training nodes, the rarest first, among equals the one that
    appears first; each gets its share, rounded down, at least one, and the last class the remainder.

    Args:
      task: Original task.
      size: Number of condensed nodes.

    Raises:
      ValueError: If there are too few nodes for the classes.
    """
    labels = np.asarray(task.labels)[np.asarray(task.train)]
    order = sorted(Counter(labels.tolist()).items(), key=lambda item: item[1])
    counts = [max(size * n // len(labels), 1) for _, n in order]
    counts[-1] = size - sum(counts[:-1])
    if counts[-1] < 1:
        raise ValueError(f"{size} nodes are too few for {len(order)} classes")
    return np.repeat([c for c, _ in order], counts).astype(np.int32)


def _finite(array: np.ndarray, path: Any, what: str) -> np.ndarray:
    """Return real numbers as float32, or raise an error that names the file and the row."""
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{path}: {what} are {array.dtype.name}, expected real numbers")
    with np.errstate(over="ignore"):
        numbers = np.array(array, np.float32)
    if not np.isfinite(numbers).all():
        row = int(np.argwhere(~np.isfinite(numbers))[0][0])
        raise ValueError(f"{path}: row {row} of the {what} holds a number that is not finite in float32")
    return numbers


def _labels(y: np.ndarray, path: Any, size: int, num_classes: int) -> np.ndarray:
    """Return classes as int32, or a matrix with a column for each class as float32."""
    if y.ndim == 2 and y.shape == (size, 1) and num_classes > 1:
        y = y[:, 0]
    if y.ndim not in (1, 2) or len(y) != size:
        raise ValueError(f"{path} has shape {y.shape}, there are {size} nodes")
    if y.ndim == 2:
        if y.shape[1] != num_classes:
            raise ValueError(f"{path} has {y.shape[1]} columns, the task has {num_classes} classes")
        return _finite(y, path, "labels")
    whole = _finite(y, path, "labels") if y.dtype.kind == "f" else y
    if (
        y.dtype.kind not in "iuf"
        or (wrong := (whole != np.floor(whole)) | (whole < 0) | (whole >= num_classes)).any()
    ):
        row = int(np.argmax(wrong)) if y.dtype.kind in "iuf" else 0
        raise ValueError(f"{path}: label {y[row]} of row {row} is none of the classes 0 to {num_classes - 1}")
    return y.astype(np.int32)


_FEATURES, _LABELS = ("x", "feat", "features", "X"), ("y", "label", "labels", "targets", "Y")
_ADJACENCY = ("adj", "a", "A", "adjacency", "edges")


def import_condensed(
    features: str | os.PathLike[str],
    task: NodeTask,
    *,
    labels: str | os.PathLike[str] | None = None,
    adjacency: str | os.PathLike[str] | None = None,
    structure: Literal["raw", "normalized"] = "raw",
    method: str = "imported",
) -> Condensed:
    """Read a condensed graph from files of other implementations.

    Args:
      features: File of features ``[n, F]``; an ``.npz`` may hold labels and adjacency too.
      task: Original task.
      labels: File of labels ``[n]`` or ``[n, C]``; None implies them, see `labels_by_count`.
      adjacency: File of the adjacency ``[n, n]``; None for A' = I.
      structure: Whether training normalises the weights with self loops, or they are normalised already.
      method: Name of the method.

    Raises:
      DataError: If a file cannot be read.
      ValueError: If shapes do not fit each other or the task.
    """
    together = set(read_npz(features)) if Path(features).suffix == ".npz" else set()
    if labels is None and together & set(_LABELS):
        labels = features
    if adjacency is None and together & set(_ADJACENCY):
        adjacency = features
    x = read_array(features, _FEATURES)
    nodes: Any = task.graph.nodes
    if x.ndim != 2 or not len(x) or x.shape[1] != nodes.shape[1]:
        raise ValueError(f"{features} has shape {x.shape}, task {task.name!r} has {nodes.shape[1]} features")
    x = _finite(x, features, "features")
    y = (
        labels_by_count(task, len(x))
        if labels is None
        else _labels(read_array(labels, _LABELS), labels, len(x), task.num_classes)
    )
    a = np.eye(len(x), dtype=np.float32) if adjacency is None else read_array(adjacency, _ADJACENCY)
    if a.shape != (len(x), len(x)):
        raise ValueError(f"{adjacency} has shape {a.shape}, there are {len(x)} nodes")
    a = _finite(a, adjacency or features, "weights of edges")
    alone = np.array_equal(a, np.eye(len(x)))
    none = np.zeros(0, np.int32)
    graph = from_edges(none, none, x) if alone else from_adjacency(a, x)
    labelled = int(np.sum(np.asarray(task.train)))
    return Condensed(
        data=graph,
        targets=y,
        training=Training(
            adjacency="identity" if alone else structure,
            targets="classes"
            if y.ndim == 1
            else "probabilities"
            if np.allclose(y.sum(1), 1, atol=1e-3)
            else "logits",
        ),
        provenance={
            "method": method,
            "dataset": task.name,
            "setting": task.setting,
            "nodes": len(x),
            "edges": int(np.sum(graph.n_edge)),
            "label_ratio": len(x) / labelled,
            "node_ratio": len(x) / task.num_nodes,
            "files": [Path(f).name for f in (features, labels, adjacency) if f is not None],
        },
    )
