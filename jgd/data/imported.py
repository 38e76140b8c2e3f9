"""Condensed graphs that other implementations saved, as `Condensed`.

They come as one file for each of features, labels and adjacency: ``.npy``, ``.npz``, or ``.pt`` as
``torch.save`` writes tensors. The latter are read without PyTorch, by a reader that knows tensors and plain
containers only. Implementations that save no labels imply them by the order in which they spend the budget
of the classes.
"""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from jaxtyping import Int, Shaped

from jgd.data.condensed import Condensed
from jgd.data.storage import DataError, read_npz, reading
from jgd.data.tasks import NodeTask
from jgd.graph import from_adjacency, from_edges

__all__ = ["import_condensed", "labels_by_count", "read_array", "read_torch"]

_STORAGES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


def _tensor(storage, offset, size, stride, *rest) -> np.ndarray:
    """A view of a storage as PyTorch describes it, copied. Bounds are checked: the file may say anything."""
    del rest  # whether it wants gradients, and hooks
    size, stride = tuple(map(int, size)), tuple(map(int, stride))
    if len(size) != len(stride) or min((*size, *stride, offset), default=0) < 0:
        raise DataError(f"a tensor of size {size} with strides {stride} from {offset} makes no sense")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if np.prod(size) and last >= len(storage):
        raise DataError(f"a tensor reaches number {last} of a storage of {len(storage)}: the file is damaged")
    steps = tuple(s * storage.itemsize for s in stride)
    view = np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False)
    return view.copy()


class _Reader(pickle.Unpickler):
    """Knows tensors, parameters and plain containers."""

    def __init__(self, content: bytes, archive: zipfile.ZipFile, root: str):
        super().__init__(io.BytesIO(content))
        self.archive, self.root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        known = {
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch._utils", "_rebuild_parameter"): lambda data, *rest: data,
            ("collections", "OrderedDict"): OrderedDict,
        }
        if (module, name) not in known:
            raise DataError(f"it asks for {module}.{name}, which is no tensor: it was not loaded")
        return known[module, name]

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, dtype, key, _, count = pid
        if kind != "storage" or PurePosixPath(str(key)).name != str(key):
            raise DataError(f"it refers to {pid!r}, which is no storage of numbers")
        numbers = np.frombuffer(self.archive.read(f"{self.root}data/{key}"), dtype)
        if len(numbers) != count:
            raise DataError(f"a storage holds {len(numbers)} numbers, but says {count}: the file is damaged")
        return numbers


def read_torch(path: str | os.PathLike[str]) -> Any:
    """Read what ``torch.save`` wrote: a tensor as an array, or plain containers of them.

    Raises:
      DataError: where the file is missing, damaged, in the format of before PyTorch 1.6, or holds anything
        else.
    """
    with reading(path):
        if not zipfile.is_zipfile(path):
            raise DataError(f"{path} is no archive of torch.save: save it again with PyTorch 1.6 or later")
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if PurePosixPath(n).name == "data.pkl"]
            if len(names) != 1:
                raise DataError(f"{path} holds {len(names)} pickles, expected one")
            root = names[0].removesuffix("data.pkl")
            try:
                return _Reader(archive.read(names[0]), archive, root).load()
            except DataError as error:
                raise DataError(f"{path}: {error}") from None


def read_array(path: str | os.PathLike[str], names: tuple[str, ...] = ()) -> Shaped[np.ndarray, "..."]:
    """Read one array from ``.npy``, ``.npz`` or ``.pt``.

    Args:
      path: the file.
      names: of the array in a file of several, tried in order.

    Raises:
      DataError: where the file cannot be read, or it is not clear which array is meant.
    """
    suffix = Path(path).suffix
    if suffix == ".npy":
        with reading(path):
            return np.load(path, allow_pickle=False)
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
    """Labels in the order in which GCond and its relatives spend their budget.

    Classes by the number of their training nodes, the rarest first, among equals the one that appears first;
    each gets its share, rounded down, at least one, and the last what remains.

    Args:
      task: the original task.
      size: number of condensed nodes.
    """
    labels = np.asarray(task.labels)[np.asarray(task.train)]
    order = sorted(Counter(labels.tolist()).items(), key=lambda item: item[1])
    counts = [max(size * n // len(labels), 1) for _, n in order]
    counts[-1] = size - sum(counts[:-1])
    if counts[-1] < 1:
        raise ValueError(f"{size} nodes are too few for {len(order)} classes")
    return np.repeat([c for c, _ in order], counts).astype(np.int32)


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
    """A condensed graph from files of other implementations.

    Args:
      features: file of ``[n, F]``; an ``.npz`` may hold labels and adjacency too.
      task: the original task.
      labels: file of ``[n]`` or ``[n, C]``; where there is none, see `labels_by_count`.
      adjacency: file of ``[n, n]``; None for A' = I.
      structure: whether the weights are to be normalised with self loops, or are so already.
      method: what to call it.

    Raises:
      DataError: for a file that cannot be read.
      ValueError: where shapes do not fit each other or the task.
    """
    together = set(read_npz(features)) if Path(features).suffix == ".npz" else set()
    if labels is None and together & set(_LABELS):
        labels = features
    if adjacency is None and together & set(_ADJACENCY):
        adjacency = features
    x = np.asarray(read_array(features, _FEATURES), np.float32)
    nodes: Any = task.graph.nodes
    if x.ndim != 2 or x.shape[1] != nodes.shape[1]:
        raise ValueError(f"{features} has shape {x.shape}, task {task.name!r} has {nodes.shape[1]} features")
    y = labels_by_count(task, len(x)) if labels is None else read_array(labels, _LABELS)
    y = y.astype(np.float32 if y.ndim == 2 else np.int32)
    if len(y) != len(x) or y.ndim not in (1, 2):
        raise ValueError(f"{labels} has shape {y.shape}, there are {len(x)} nodes")
    a = np.eye(len(x)) if adjacency is None else read_array(adjacency, _ADJACENCY)
    if a.shape != (len(x), len(x)):
        raise ValueError(f"{adjacency} has shape {a.shape}, there are {len(x)} nodes")
    alone = np.array_equal(a, np.eye(len(x)))
    none = np.zeros(0, np.int32)
    graph = from_edges(none, none, x) if alone else from_adjacency(np.asarray(a, np.float32), x)
    labelled = int(np.sum(np.asarray(task.train)))
    return Condensed(
        data=graph,
        targets=y,
        train={
            "structure": "identity" if alone else structure,
            "targets": "int" if y.ndim == 1 else "prob" if np.allclose(y.sum(1), 1, atol=1e-3) else "logit",
        },
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
