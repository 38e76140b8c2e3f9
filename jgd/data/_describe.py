"""Description of data: sizes, features, classes and splits, as plain values."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from jgd.data._checksum import checksum
from jgd.data.checks import known
from jgd.data.registry import load_with_notes
from jgd.data.storage import DataError
from jgd.data.tasks import ArrayTask, Corpus, GraphTask, NodeTask
from jgd.graph import SparseOperator, edge_weights

__all__ = ["ClassCount", "Description", "describe"]

_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class ClassCount:
    """A class.

    Attributes:
      number: Number in the task.
      name: Name in the file, or the number.
      total: Number of rows.
      train: Number of training rows; None without such a split.
      val: Number of validation rows.
      test: Number of test rows.
    """

    number: int
    name: str
    total: int
    train: int | None = None
    val: int | None = None
    test: int | None = None


@dataclass(frozen=True)
class Description:
    """Content of a task.

    Attributes:
      name: Name of the task.
      kind: Unit that is classified, in words.
      facts: Sizes, edges, features and labels, ``{name: text or number}``, in reading order.
      classes: One `ClassCount` for each class; empty for targets that are not classes.
      splits: Number of rows by split, and under ``"none"`` those in no split.
      notes: One line for each thing that was mapped, generated or left out.
      checksum: SHA-256 of the arrays, which shows changes of the data.
    """

    name: str
    kind: str
    facts: Mapping[str, str | int]
    classes: tuple[ClassCount, ...] = ()
    splits: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    checksum: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return everything as values that JSON can hold."""
        return dataclasses.asdict(self) | {"facts": dict(self.facts), "splits": dict(self.splits)}

    def __str__(self) -> str:
        """Return a few lines of text."""
        lines = [f"{self.name}: {self.kind}", *(f"{what}: {value}" for what, value in self.facts.items())]
        lines += [f"class {c.name}: {c.total}" for c in self.classes]
        lines += [f"{name}: {count}" for name, count in self.splits.items()]
        return "\n".join([*lines, *self.notes])


def describe(data: Any, **options: Any) -> Description:
    """Describe data: sizes, features, classes, splits, and what was mapped, generated or left out.

    Args:
      data: Path or name as `jgd.load` takes it, or a task.
      **options: Options of `jgd.load`.

    Raises:
      DataError: If `jgd.load` raises one, or the task is not one of nodes, graphs, arrays or texts.
    """
    notes: tuple[str, ...] = ()
    if isinstance(data, str | os.PathLike):
        data, notes = load_with_notes(data, **options)
    if isinstance(data, Corpus):
        facts: dict[str, str | int] = {"texts": len(data.records)}
        splits = {name: len(rows) for name, rows in data.splits.items()}
        return Description(data.name, "texts", facts, (), splits, notes)
    if isinstance(data, NodeTask):
        kind, facts, labels = "one graph, whose nodes have labels", _node_facts(data), data.labels
    elif isinstance(data, GraphTask):
        kind, facts, labels = "a set of graphs, which have labels", _graph_facts(data), data.labels
    elif isinstance(data, ArrayTask):
        kind, facts, labels = "examples without edges", _array_facts(data), data.y
    else:
        raise DataError(f"a {type(data).__name__} cannot be described: give a task of nodes, graphs or rows")
    facts |= _label_facts(data, labels)
    size = len(data.x) if isinstance(data, ArrayTask) else len(labels)
    return Description(
        data.name, kind, facts, _classes(data, labels), _splits(data, size), notes, checksum(data)
    )


def _node_facts(task: NodeTask) -> dict[str, str | int]:
    graph: Any = task.graph
    senders, receivers = np.asarray(graph.senders, np.int64), np.asarray(graph.receivers, np.int64)
    facts: dict[str, str | int] = {
        "nodes": task.num_nodes,
        "edges": _edges(senders, receivers, task.num_nodes),
    }
    return facts | _edge_facts(graph, senders, receivers, task.num_nodes) | _features(graph.nodes)


def _edges(senders: np.ndarray, receivers: np.ndarray, size: int) -> str:
    forward, backward = np.unique(senders * size + receivers), np.unique(receivers * size + senders)
    if not len(senders):
        return "0"
    if np.array_equal(forward, backward):
        return f"{len(senders)}, every one with its reverse (undirected)"
    lonely = len(np.setdiff1d(forward, backward, assume_unique=True))
    return f"{len(senders)}, {lonely} of them without their reverse (directed)"


def _edge_facts(graph: Any, senders: np.ndarray, receivers: np.ndarray, size: int) -> dict[str, str | int]:
    weights = edge_weights(graph)
    held = "none"
    if weights is not None and len(senders):
        held = f"{np.min(weights):g} to {np.max(weights):g}"
    facts: dict[str, str | int] = {
        "edge weights": held,
        "self loops": int((senders == receivers).sum()),
        "repeated edges": len(senders) - len(np.unique(senders * size + receivers)),
        "isolated nodes": size - len(np.unique(np.append(senders, receivers))),
    }
    others = [name for name in graph.edges if name != "weight"] if isinstance(graph.edges, Mapping) else []
    return facts | ({"edge data": ", ".join(others)} if others else {})


def _graph_facts(task: GraphTask) -> dict[str, str | int]:
    graph: Any = task.graphs
    n_node, n_edge = np.asarray(graph.n_node), np.asarray(graph.n_edge)
    senders, receivers = np.asarray(graph.senders, np.int64), np.asarray(graph.receivers, np.int64)
    size = int(n_node.sum())
    facts: dict[str, str | int] = {"graphs": task.num_graphs}
    for name, counts in (("nodes", n_node), ("edges", n_edge)):
        facts[name] = (
            f"{int(counts.sum())}; {counts.min()} to {counts.max()} a graph, {counts.mean():.1f} on average"
            if len(counts)
            else 0
        )
    facts["direction"] = _edges(senders, receivers, size).partition(", ")[2] or "no edges"
    return facts | _edge_facts(graph, senders, receivers, size) | _features(graph.nodes)


def _array_facts(task: ArrayTask) -> dict[str, str | int]:
    x = np.asarray(task.x)
    facts: dict[str, str | int] = {"examples": len(x)}
    if x.ndim <= 2:
        return facts | _features(x)
    return facts | {"shape": " x ".join(map(str, x.shape[1:])), "numbers": _range(x)}


def _range(x: np.ndarray) -> str:
    return f"{x.dtype}, {x.min():g} to {x.max():g}" if x.size else str(x.dtype)


def _features(nodes: Any) -> dict[str, str | int]:
    if nodes is None:
        return {"features": "none"}
    if isinstance(nodes, SparseOperator):
        return {"features": f"{nodes.shape[1]} columns, sparse, {len(nodes.values)} numbers"}
    if isinstance(nodes, Mapping):
        return {"features": ", ".join(f"{name} {tuple(np.shape(v)[1:])}" for name, v in nodes.items())}
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(nodes)]
    x = leaves[0].reshape(len(leaves[0]), -1)
    if not x.size:
        return {"features": f"{x.shape[1]} columns"}
    return {"features": f"{x.shape[1]} columns, {_range(x)}, {100 * np.mean(x == 0):.0f} % zeros"}


_KINDS = {
    "classes": "classes",
    "multilabel": "several labels for each row",
    "probabilities": "probabilities of classes",
    "regression": "numbers (regression)",
    "none": "none",
}


def _label_facts(task: Any, labels: Any) -> dict[str, str | int]:
    kind = task.target_kind
    text = f"{task.num_classes} classes" if kind == "classes" else _KINDS[kind]
    if labels is None or kind == "none":
        return {"labels": "none"}
    values = np.asarray(labels)
    there = known(values, kind)
    if kind == "regression" and there.any():
        text += f", {values[there].min():g} to {values[there].max():g}"
    if kind in ("multilabel", "probabilities"):
        text += f", {values.shape[1]} columns"
    gone = int((~there).sum())
    return {"labels": text + (f"; {gone} rows without a label" if gone else "")}


def _classes(task: Any, labels: Any) -> tuple[ClassCount, ...]:
    if task.target_kind != "classes" or labels is None:
        return ()
    y = np.asarray(labels)

    def count(mask: Any = None) -> list[int | None]:
        if mask is None:
            return [None] * task.num_classes
        chosen = y[np.asarray(mask) & (y >= 0)]
        return np.bincount(chosen, minlength=task.num_classes).tolist()

    columns = [count(np.ones(len(y), bool)), *(count(getattr(task, part)) for part in _SPLITS)]
    names = [str(n) for n in task.class_names] + [
        str(i) for i in range(len(task.class_names), task.num_classes)
    ]
    return tuple(
        ClassCount(i, names[i], *counts)  # pyright: ignore[reportArgumentType]
        for i, counts in enumerate(zip(*columns, strict=True))
    )


def _splits(task: Any, size: int) -> dict[str, int]:
    masks = {part: getattr(task, part, None) for part in (*_SPLITS, "unlabelled")}
    found = {part: np.asarray(mask) for part, mask in masks.items() if mask is not None}
    rest = ~np.logical_or.reduce([np.zeros(size, bool), *found.values()])
    return {part: int(mask.sum()) for part, mask in found.items()} | {"none": int(rest.sum())}
