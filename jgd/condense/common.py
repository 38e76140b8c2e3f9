"""What condensers share: which examples they see, sizes, label budgets, and the record of what was done."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Float, Int

from jgd.data import ArrayTask, Condensed, GraphTask, NodeTask, Training
from jgd.data.checks import need_classes, warn_of_missing
from jgd.graph import SparseOperator, from_adjacency, from_edges, operator
from jgd.graph.spectral import normalized_adjacency
from jgd.registry import choose

__all__ = [
    "budget",
    "check_settings",
    "condensed_arrays",
    "condensed_graphs",
    "condensed_nodes",
    "condenser",
    "dense_features",
    "method_name",
    "nested",
    "normalize_adjacency",
    "official",
    "propagated_features",
    "propagations",
    "size_of",
    "training_graphs",
    "training_part",
]

_AROUND: ContextVar[Literal["nothing", "caller", "recipe"]] = ContextVar("around", default="nothing")


# --- the decorator of recipes -----------------------------------------------------------------------


@contextmanager
def nested() -> Iterator[None]:
    """Run recipes inside as parts of something else, which warns of sizes and classes itself."""
    with _inside("recipe" if _AROUND.get() == "recipe" else "caller"):
        yield


@contextmanager
def _inside(what: Literal["caller", "recipe"]) -> Iterator[None]:
    token = _AROUND.set(what)
    try:
        yield
    finally:
        _AROUND.reset(token)


def condenser(call: Callable[..., Condensed]) -> Callable[..., Condensed]:
    """Decorate the ``__call__`` of a recipe with what every recipe does before and after its own work.

    Before: the task must have one class for each node, graph or array. Examples of ``train`` and ``val``
    whose label is unknown leave these masks, so that no method takes -1 for a class; of an inductive task
    they are then not seen either. Classes without training examples lead to a warning.

    After: a set of another size than the recipe was asked for leads to a warning with both numbers.

    A recipe inside another one does its own work alone, and one inside `nested` does not warn.

    Args:
      call: ``(self, key, task, ...) -> Condensed``.
    """

    @functools.wraps(call)
    def condense(self: Any, key: Array, task: Any, *args: Any, **kwargs: Any) -> Condensed:
        if _AROUND.get() == "recipe":
            return call(self, key, task, *args, **kwargs)
        name, warn = type(self).__name__, _AROUND.get() == "nothing"
        need_classes(task, name)
        task = _labelled(task)
        if warn:
            warn_of_missing(task)
        asked = _asked(self, task)
        with _inside("recipe"):
            small = call(self, key, task, *args, **kwargs)
        found = len(small.targets)
        if warn and asked is not None and found != asked:
            of = {NodeTask: "nodes", GraphTask: "graphs"}.get(type(task), "examples")
            hint = "choose another size, or compare at the size it gives"
            warnings.warn(f"{name} was asked for {asked} {of} and gives {found}: {hint}", stacklevel=2)
        return small

    return condense


def _labelled(task: Any) -> Any:
    """Return the task without unlabelled examples in its masks; itself where there are none."""
    labels = task.y if isinstance(task, ArrayTask) else task.labels
    known, train = np.asarray(labels) >= 0, task.labelled()
    val = None if task.val is None else np.asarray(task.val) & known
    same = (train == np.asarray(task.train)).all() and (val is None or (val == np.asarray(task.val)).all())
    return task if same else dataclasses.replace(task, train=train, val=val)


def _asked(recipe: Any, task: Any) -> int | None:
    """Return how many nodes or graphs a recipe was asked for, where it says a number."""
    if isinstance(task, GraphTask):
        each = getattr(recipe, "per_class", None)
        if each is None or getattr(recipe, "nodes", None) is not None:
            return None
        return each * len(np.unique(np.asarray(task.labels)[task.labelled()]))
    if not isinstance(task, NodeTask):
        return None
    if not hasattr(recipe, "label_ratio") or getattr(recipe, "keep", None) is not None:
        return None
    return None if getattr(recipe, "per_class", None) else size_of(task, recipe.label_ratio, recipe.nodes)


# --- what is seen -----------------------------------------------------------------------------------


def dense_features(task: NodeTask) -> Float[np.ndarray, "N F"]:
    """Return the features of a task as a dense array."""
    nodes = task.graph.nodes
    if nodes is None:
        raise ValueError(f"task {task.name!r} has no node features, which this method condenses")
    if isinstance(nodes, SparseOperator):
        nodes = nodes.todense()
    return np.asarray(nodes, np.float32)


def propagations(task: NodeTask, hops: int) -> list[Float[np.ndarray, "N F"]]:
    """Return ``X``, ``ÂX``, ... ``Â^hops X`` of all nodes of a task."""
    x = jnp.asarray(dense_features(task))
    a = operator(task.graph, normalize="sym", self_loops=True)
    found = [x]
    for _ in range(hops):
        found.append(a @ found[-1])
    return [np.asarray(y) for y in found]


def propagated_features(task: NodeTask, hops: int) -> Float[np.ndarray, "N F"]:
    """Return ``Â^hops X`` of all nodes of a task."""
    return propagations(task, hops)[-1]


def normalize_adjacency(matrix: sp.csr_array) -> sp.csr_array:
    """Return ``D^-1/2 (A + I) D^-1/2`` (host side)."""
    return sp.csr_array(normalized_adjacency(matrix, self_loops=True), dtype=np.float32)


def training_part(task: NodeTask) -> NodeTask:
    """Return what a condenser may see: all of a transductive task, of an inductive one the training nodes."""
    if task.train is None or not np.any(task.train):
        raise ValueError(f"task {task.name!r} has no training nodes to condense")
    return task.seen_with(task.train)[0]


def training_graphs(task: GraphTask) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Return numbers and classes of the graphs that a condenser may see: those for training with a label.

    Args:
      task: The original task.

    Raises:
      ValueError: For a task without training graphs, or whose labels are not one class for each.
    """
    need_classes(task, "condensing")
    index = np.flatnonzero(task.labelled())
    return index, np.asarray(task.labels)[index].astype(np.int64)


# --- sizes ------------------------------------------------------------------------------------------


def _train_labels(task: NodeTask | GraphTask | ArrayTask) -> Int[np.ndarray, " n"]:
    """Return the classes of the labelled training examples."""
    return np.asarray(task.y if isinstance(task, ArrayTask) else task.labels)[task.labelled()]


def size_of(task: NodeTask | GraphTask | ArrayTask, label_ratio: float | None, nodes: int | None) -> int:
    """Return the number of condensed examples, from one of the two ways to say it.

    Args:
      task: The original task.
      label_ratio: Condensed examples for each labelled training example, in (0, 1].
      nodes: Their number, which takes precedence over the ratio.

    Raises:
      ValueError: For a size that is impossible or leaves a class without an example.
    """
    what = {NodeTask: "nodes", GraphTask: "graphs"}.get(type(task), "examples")
    labels = _train_labels(task)
    labelled, present = len(labels), len(np.unique(labels))
    if nodes is None:
        if label_ratio is None:
            raise ValueError("say label_ratio=... or nodes=...")
        if not 0 < label_ratio <= 1:
            raise ValueError(f"label_ratio must be in (0, 1], got {label_ratio}")
        nodes = int(label_ratio * labelled)
    if not present <= nodes <= labelled:
        raise ValueError(
            f"{nodes} condensed {what} are impossible: task {task.name!r} has {present} classes among "
            f"{labelled} labelled {what}, so choose between {present} and {labelled}"
        )
    return nodes


def budget(task: NodeTask | GraphTask | ArrayTask, size: int) -> tuple[int, ...]:
    """Return the condensed examples of each class, in order of the class number, adding up to ``size``.

    In proportion to the labelled examples, rounded down, at least one for a class that has any; the largest
    class takes what remains (the last one by number among equals, as the published code does). No class is
    asked for more examples than it has.

    Args:
      task: The original task.
      size: Their number.
    """
    labels = _train_labels(task)
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


# --- settings ---------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def _choices(kind: type) -> dict[str, tuple]:
    """Return the words of each field that is one of several words."""
    hints = get_type_hints(kind)
    fields = [f.name for f in dataclasses.fields(kind)]
    return {name: get_args(hints[name]) for name in fields if get_origin(hints[name]) is Literal}


def check_settings(
    recipe: Any,
    *,
    at_least_one: Sequence[str] = (),
    optional: Sequence[str] = (),
    not_negative: Sequence[str] = (),
) -> None:
    """Refuse impossible settings of a recipe; a field that is annotated with a `Literal` is one of its words.

    Args:
      recipe: The method, a dataclass.
      at_least_one: Settings that count something.
      optional: Settings that count something or are None.
      not_negative: Settings that weigh something.

    Raises:
      ValueError: Naming the first that is impossible.
    """
    for name, words in _choices(type(recipe)).items():
        if getattr(recipe, name) not in words:
            known = ", ".join(map(str, words))
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


def official(
    make: Callable[..., Any],
    table: Mapping[Any, Mapping[str, Any]] | None = None,
    *,
    size: str | None = "label_ratio",
    at: float | int = 0.5,
) -> Callable[..., Any]:
    """Return ``(dataset, *, near=None, **settings) -> recipe``, with the settings of a method's authors.

    Elsewhere than on the datasets of the table, the recipe has its defaults.

    Args:
      make: The method.
      table: What differs from the defaults, by dataset, or by dataset and size; the nearest size counts.
      size: The setting that is the size: ``"label_ratio"``, ``"per_class"``, or None where none is.
      at: The size where none is asked for.
    """
    table = table or {}
    kind: Any = make.func if isinstance(make, functools.partial) else make
    known = [f.name for f in dataclasses.fields(kind) if f.init]

    def build(dataset: str, *, near: float | int | None = None, **settings: Any) -> Any:
        for name in settings:
            choose(f"setting of {kind.__name__}", name, known)
        near = near or settings.get(size or "") or at
        sizes = [key[1] for key in table if isinstance(key, tuple) and key[0] == dataset]
        if sizes:
            found = table[dataset, min(sizes, key=lambda s: abs(np.log(s / near)))]
        else:
            found = table.get(dataset, {})
        if size == "label_ratio":  # of the ways to say a size, the one that was used
            given = settings.get("nodes") or settings.get("per_class")
            settings["label_ratio"] = None if given else settings.get("label_ratio") or at
        return make(**{**found, **settings})

    return build


# --- what is returned -------------------------------------------------------------------------------


def method_name(recipe: Any) -> str:
    """Return the name of a recipe in the catalogue, or that of its class in lower case.

    Args:
      recipe: The recipe.
    """
    from jgd.condense import METHODS  # here: the catalogue is above the methods

    names = [
        (len(given), entry.name)
        for entry in METHODS.of_module(type(recipe).__module__).values()
        for given in [entry.make.keywords if isinstance(entry.make, functools.partial) else {}]
        if getattr(entry.make, "func", entry.make) is type(recipe)
        and all(getattr(recipe, name) == value for name, value in given.items())
    ]
    return max(names)[1] if names else type(recipe).__name__.lower()


def _origin(recipe: Any, key: Array, dataset: str) -> dict[str, Any]:
    return {
        "method": method_name(recipe),
        "config": dataclasses.asdict(recipe),
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "dataset": dataset,
    }


def _product(
    data: Any, labels: np.ndarray, weights: Any, extras: Any, training: Any, provenance: Any
) -> Condensed:
    classes = labels.ndim == 1
    return Condensed(
        data=data,
        targets=labels.astype(np.int32 if classes else np.float32),
        weights=None if weights is None else np.asarray(weights, np.float32),
        extras={k: np.asarray(v) for k, v in (extras or {}).items()},
        training=Training(**{"targets": "classes" if classes else "probabilities", **training}),
        provenance=provenance,
    )


def condensed_nodes(
    recipe: Any,
    key: Array,
    task: NodeTask,
    *,
    features: Any,
    labels: Any,
    weights: Any = None,
    edges: Any = None,
    adjacency: Literal["identity", "raw", "normalized"] = "identity",
    extras: dict[str, Any] | None = None,
    training: Mapping[str, Any] = MappingProxyType({}),
) -> Condensed:
    """Wrap condensed nodes, with a record of where they come from.

    Args:
      recipe: The method, a dataclass whose fields are its settings.
      key: Its random key.
      task: The original task.
      features: Features ``[n, F]``.
      labels: Classes ``[n]`` or probabilities ``[n, C]``.
      weights: Weights of the examples in the loss ``[n]``, or None.
      edges: None for A' = I, a graph, or an adjacency ``[n, n]``.
      adjacency: Meaning of the edge weights, see `Training`.
      extras: Further arrays.
      training: Further fields of `Training`.
    """
    features, labels = np.asarray(features, np.float32), np.asarray(labels)
    if edges is None:
        none = np.zeros(0, np.int32)
        graph = from_edges(none, none, features)
        adjacency = "identity"
    elif isinstance(edges, jraph.GraphsTuple):
        graph = edges._replace(nodes=features)
    else:
        graph = from_adjacency(np.asarray(edges), features)
    provenance = {
        **_origin(recipe, key, task.name),
        "setting": task.setting,
        "nodes": len(features),
        "edges": int(np.sum(graph.n_edge)),
        "label_ratio": len(features) / int(np.sum(task.train)),
        "node_ratio": len(features) / task.num_nodes,
    }
    return _product(graph, labels, weights, extras, {"adjacency": adjacency, **training}, provenance)


def condensed_graphs(
    recipe: Any,
    key: Array,
    task: GraphTask,
    *,
    graphs: jraph.GraphsTuple,
    labels: Any,
    weights: Any = None,
    extras: dict[str, Any] | None = None,
    training: Mapping[str, Any] = MappingProxyType({}),
    record: dict[str, Any] | None = None,
) -> Condensed:
    """Wrap condensed graphs, with a record of where they come from.

    Args:
      recipe: The method, a dataclass whose fields are its settings.
      key: Its random key.
      task: The original task.
      graphs: The graphs, joined.
      labels: Classes ``[G]`` or probabilities ``[G, C]``.
      weights: Weights of the examples in the loss ``[G]``, or None.
      extras: Further arrays; ``"root"`` is a mask of the nodes that pooling reads.
      training: Further fields of `Training`.
      record: Further entries of the provenance, plain JSON values.
    """
    index, _ = training_graphs(task)
    labels, size = np.asarray(labels), int(np.sum(graphs.n_node))
    provenance = {
        **_origin(recipe, key, task.name),
        "graphs": len(labels),
        "nodes": size,
        "edges": int(np.sum(graphs.n_edge)),
        "graph_ratio": len(labels) / len(index),
        "node_ratio": size / int(np.asarray(task.graphs.n_node)[index].sum()),
        **(record or {}),
    }
    return _product(graphs, labels, weights, extras, training, provenance)


def condensed_arrays(
    recipe: Any,
    key: Array,
    task: ArrayTask,
    *,
    x: Any,
    labels: Any,
    weights: Any = None,
    extras: dict[str, Any] | None = None,
    training: Mapping[str, Any] = MappingProxyType({}),
) -> Condensed:
    """Wrap condensed examples without edges, with a record of where they come from.

    Args:
      recipe: The method, a dataclass whose fields are its settings.
      key: Its random key.
      task: The original task.
      x: Inputs ``[n, ...]``.
      labels: Classes ``[n]`` or probabilities ``[n, C]``.
      weights: Weights of the examples in the loss ``[n]``, or None.
      extras: Further arrays.
      training: Further fields of `Training`.
    """
    labels = np.asarray(labels)
    provenance = {
        **_origin(recipe, key, task.name),
        "examples": len(labels),
        "label_ratio": len(labels) / int(np.sum(task.labelled())),
    }
    return _product(np.asarray(x), labels, weights, extras, training, provenance)
