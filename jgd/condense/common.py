"""What all condensers of node tasks share: sizes, label budgets, and the record of what was done."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Float

from jgd.data.checks import need_classes, warn_of_missing
from jgd.data.condensed import Condensed
from jgd.data.tasks import GraphTask, NodeTask
from jgd.graph import SparseOperator, from_adjacency, from_edges, operator
from jgd.graph.spectral import normalized_adjacency

__all__ = [
    "budget",
    "check_settings",
    "condensed_nodes",
    "condenser",
    "dense_features",
    "preset",
    "propagated_features",
    "propagations",
    "size_of",
    "symmetric_normalization",
    "training_part",
]


def condenser(call: Callable[..., Condensed]) -> Callable[..., Condensed]:
    """What every recipe does before and after its own work: a decorator of its ``__call__``.

    Before: the task must have one class for each node or graph. Those of ``train`` and ``val`` whose label is
    unknown leave these masks, so that no method takes -1 for a class; of an inductive task they are then not
    seen either. Classes without training examples are told in a warning.

    After: a set of another size than the recipe was asked for is told in a warning with both numbers.
    """

    @functools.wraps(call)
    def condense(self: Any, key: Array, task: Any, *args: Any, **kwargs: Any) -> Condensed:
        name = type(self).__name__
        need_classes(task, name)
        task = _labelled(task)
        warn_of_missing(task)
        asked = _asked(self, task)
        small = call(self, key, task, *args, **kwargs)
        found = len(small.targets)
        if asked is not None and found != asked:
            of = "nodes" if isinstance(task, NodeTask) else "graphs"
            hint = "choose another size, or compare at the size it gives"
            warnings.warn(f"{name} was asked for {asked} {of} and gives {found}: {hint}", stacklevel=2)
        return small

    return condense


def _labelled(task: Any) -> Any:
    """The task without unlabelled examples in the masks that methods read; itself where there are none."""
    known, train = np.asarray(task.labels) >= 0, task.labelled()
    val = None if task.val is None else np.asarray(task.val) & known
    same = (train == np.asarray(task.train)).all() and (val is None or (val == np.asarray(task.val)).all())
    return task if same else dataclasses.replace(task, train=train, val=val)


def _asked(recipe: Any, task: NodeTask | GraphTask) -> int | None:
    """How many nodes or graphs a recipe was asked for, where it says a number."""
    if isinstance(task, GraphTask):
        each = getattr(recipe, "graphs_per_class", None)
        if each is None or getattr(recipe, "nodes", None) is not None:
            return None
        return each * len(np.unique(np.asarray(task.labels)[task.labelled()]))
    if not hasattr(recipe, "label_ratio") or getattr(recipe, "keep", None) is not None:
        return None
    return size_of(task, recipe.label_ratio, recipe.nodes)


def dense_features(task: NodeTask) -> Float[np.ndarray, "N F"]:
    """The features of a task as a dense array."""
    nodes = task.graph.nodes
    if nodes is None:
        raise ValueError(f"task {task.name!r} has no node features, which this method condenses")
    if isinstance(nodes, SparseOperator):
        nodes = nodes.todense()
    return np.asarray(nodes, np.float32)


def propagations(task: NodeTask, hops: int) -> list[Float[np.ndarray, "N F"]]:
    """``X``, ``ÂX``, ... ``Â^hops X`` of all nodes of a task."""
    x = jnp.asarray(dense_features(task))
    a = operator(task.graph, normalize="sym", self_loops=True)
    found = [x]
    for _ in range(hops):
        found.append(a @ found[-1])
    return [np.asarray(y) for y in found]


def propagated_features(task: NodeTask, hops: int) -> Float[np.ndarray, "N F"]:
    """``Â^hops X`` of all nodes of a task."""
    return propagations(task, hops)[-1]


def training_part(task: NodeTask) -> NodeTask:
    """What a condenser may see: all of a transductive task, of an inductive one the training nodes."""
    if task.train is None or not np.any(task.train):
        raise ValueError(f"task {task.name!r} has no training nodes to condense")
    return task if task.setting == "transductive" else task.induced(task.train)


def size_of(task: NodeTask, label_ratio: float | None, nodes: int | None) -> int:
    """The number of condensed nodes, from one of the two ways to say it.

    Args:
      task: the original task.
      label_ratio: condensed nodes for each labelled training node, in (0, 1].
      nodes: their number, which wins over the ratio.

    Raises:
      ValueError: for a size that is impossible or leaves a class without a node.
    """
    need_classes(task, "a number of condensed nodes")
    labels = np.asarray(task.labels)[task.labelled()]
    labelled, present = len(labels), len(np.unique(labels))
    if nodes is None:
        if label_ratio is None:
            raise ValueError("say label_ratio=... or nodes=...")
        if not 0 < label_ratio <= 1:
            raise ValueError(f"label_ratio must be in (0, 1], got {label_ratio}")
        nodes = int(label_ratio * labelled)
    if not present <= nodes <= labelled:
        raise ValueError(
            f"{nodes} condensed nodes are impossible: task {task.name!r} has {present} classes among "
            f"{labelled} labelled nodes, so choose between {present} and {labelled}"
        )
    return nodes


def budget(task: NodeTask, size: int) -> tuple[int, ...]:
    """Condensed nodes of each class, in order of the class number, adding up to ``size``.

    In proportion to the labelled nodes, rounded down, at least one for a class that has any; the largest
    class takes what remains (the last one by number among equals, as the published code does). No class is
    asked for more nodes than it has.
    """
    labels = np.asarray(task.labels)[task.labelled()]
    counts = np.bincount(labels, minlength=task.num_classes)
    share = np.where(counts > 0, np.maximum(size * counts // max(1, counts.sum()), 1), 0)
    order = np.argsort(counts, kind="stable")
    last = order[-1]
    share[last] = size - share[order[:-1]].sum()
    while share[last] < 1:  # many tiny classes can leave too little: take from the largest shares
        share[np.argmax(share)] -= 1
        share[last] += 1
    while share[last] > counts[last]:  # and near ratio one rounding leaves more than it has
        share[np.argmax(counts - share)] += 1
        share[last] -= 1
    return tuple(int(n) for n in share)


def check_settings(
    recipe: Any,
    *,
    choices: Mapping[str, Any] = MappingProxyType({}),
    at_least_one: Sequence[str] = (),
    optional: Sequence[str] = (),
    not_negative: Sequence[str] = (),
) -> None:
    """Refuse impossible settings of a recipe.

    Args:
      recipe: the method.
      choices: the `typing.Literal` of each setting that is one of several words.
      at_least_one: settings that count something.
      optional: settings that count something or are None.
      not_negative: settings that weigh something.

    Raises:
      ValueError: naming the first that is impossible.
    """
    for name, kind in choices.items():
        if getattr(recipe, name) not in get_args(kind):
            known = ", ".join(map(str, get_args(kind)))
            raise ValueError(f"{name} must be one of {known}, got {getattr(recipe, name)!r}")
    for names, least, said in (
        (at_least_one, 1, "be at least 1"),
        (optional, 1, "be at least 1 or None"),
        (not_negative, 0, "not be negative"),
    ):
        for name in names:
            value = getattr(recipe, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must {said}, got {value}")


def preset(
    recipe: Callable[..., Any],
    settings: Mapping[Any, Mapping[str, Any]],
    dataset: str,
    label_ratio: float | None = None,
    nodes: int | None = None,
    *,
    near: float | None = None,
) -> Any:
    """A recipe with the settings that its authors used for a dataset, or its defaults elsewhere.

    Args:
      recipe: the method.
      settings: what differs from the defaults, by dataset, or by dataset and label ratio; the nearest ratio
        counts.
      dataset: name, e.g. ``"cora"``.
      label_ratio: condensed nodes for each labelled node.
      nodes: number of condensed nodes, instead of the ratio.
      near: the label ratio that ``nodes`` is, where it is known, to find the nearest one.
    """
    size = {"label_ratio": None if nodes else label_ratio or 0.5, "nodes": nodes}
    ratio = near or label_ratio or 0.5
    known = [key[1] for key in settings if isinstance(key, tuple) and key[0] == dataset]
    if known:
        return recipe(**size, **settings[dataset, min(known, key=lambda r: abs(np.log(r / ratio)))])
    return recipe(**size, **settings.get(dataset, {}))


def symmetric_normalization(matrix: sp.csr_array) -> sp.csr_array:
    """``D^-1/2 (A + I) D^-1/2`` on the host."""
    return sp.csr_array(normalized_adjacency(matrix, self_loops=True), dtype=np.float32)


def condensed_nodes(
    recipe: Any,
    key: Array,
    task: NodeTask,
    *,
    features: Any,
    labels: Any,
    weights: Any = None,
    edges: Any = None,
    structure: Literal["identity", "raw", "normalized"] = "identity",
    extras: dict[str, Any] | None = None,
    train: dict[str, Any] | None = None,
) -> Condensed:
    """Wrap condensed nodes, with a record of where they come from.

    Args:
      recipe: the method, a dataclass whose fields are its settings.
      key: its random key.
      task: the original task.
      features: ``[n, F]``.
      labels: ``[n]`` or ``[n, C]``.
      weights: ``[n]`` of the examples in the loss, or None.
      edges: None for A' = I, a graph, or an adjacency ``[n, n]``.
      structure: how the edges are meant, see `Condensed`.
      extras: further arrays.
      train: further settings of the training.
    """
    features, labels = np.asarray(features, np.float32), np.asarray(labels)
    if edges is None:
        none = np.zeros(0, np.int32)
        graph = from_edges(none, none, features)
        structure = "identity"
    elif isinstance(edges, jraph.GraphsTuple):
        graph = edges._replace(nodes=features)
    else:
        graph = from_adjacency(np.asarray(edges), features)
    size, labelled = len(features), int(np.sum(task.train))
    kind = "int" if labels.ndim == 1 else "prob"
    return Condensed(
        data=graph,
        targets=labels.astype(np.int32) if kind == "int" else labels.astype(np.float32),
        weights=None if weights is None else np.asarray(weights, np.float32),
        extras={k: np.asarray(v) for k, v in (extras or {}).items()},
        train={"structure": structure, "targets": kind, **(train or {})},
        provenance={
            "method": type(recipe).__name__.lower(),
            "config": dataclasses.asdict(recipe),
            "key": np.asarray(jax.random.key_data(key)).tolist(),
            "dataset": task.name,
            "setting": task.setting,
            "nodes": size,
            "edges": int(np.sum(graph.n_edge)),
            "label_ratio": size / labelled,
            "node_ratio": size / task.num_nodes,
        },
    )
