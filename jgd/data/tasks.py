"""Tasks: data with a purpose and splits, which methods take.

Tasks are pytrees: arrays are leaves; names, class counts and flags are static. Masks are None where a
split does not exist. ``extras`` carries named arrays that only some methods need (sensitive groups, nodes
to forget, a class taxonomy). Host-only data (texts, tables, event logs) are plain dataclasses.

The constructor checks a task and brings it into one form (see `jgd.data.checks`): masks become bools, labels
become classes in ``0..C-1`` or another kind of targets; graphs are sound, splits share no rows. A task that
`jax.tree` takes apart and puts together is not checked again: its leaves may be anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, dataclass_transform

import jax
import jraph
import numpy as np

import jgd.data.checks as checks
from jgd.data.checks import LabelName, TargetKind
from jgd.data.storage import DataError
from jgd.graph import induced_subgraph, num_nodes

__all__ = [
    "ArrayTask",
    "Corpus",
    "DenseGraphs",
    "EventLog",
    "GraphTask",
    "NodeTask",
    "SequenceTask",
]

Setting = Literal["transductive", "inductive"]

_static: dict[str, Any] = {"metadata": {"static": True}}
_SPLITS = ("train", "val", "test")


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
def _pytree(cls):
    """Make a class a frozen dataclass and a pytree; its constructor checks it, `jax.tree` does not."""
    cls = dataclass(frozen=True, kw_only=True)(cls)
    static = tuple(f.name for f in fields(cls) if f.metadata.get("static"))
    arrays = tuple(f.name for f in fields(cls) if f.name not in static)

    def flatten(task):
        return tuple(getattr(task, name) for name in arrays), tuple(getattr(task, name) for name in static)

    def flatten_with_keys(task):
        leaves, rest = flatten(task)
        return tuple((jax.tree_util.GetAttrKey(n), x) for n, x in zip(arrays, leaves, strict=True)), rest

    def unflatten(rest, leaves):
        return _unchecked(cls, dict(zip(arrays + static, (*leaves, *rest), strict=True)))

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


def _unchecked(cls: type, values: Mapping[str, Any]) -> Any:
    """Return a task of fields that have their final form already, or stand for arrays."""
    task = object.__new__(cls)
    task.__dict__.update(values)
    return task


def _set(task: Any, **values: Any) -> None:
    """Bring fields of a frozen dataclass into their form."""
    task.__dict__.update(values)


def _set_masks(task: Any, names: Sequence[str], size: int, of: str) -> None:
    _set(task, **{name: checks.as_mask(name, getattr(task, name), size, of) for name in names})
    checks.disjoint({name: getattr(task, name) for name in names if name in _SPLITS}, of)


def _set_labels(task: Any, name: str, size: int, of: str, **rules: Any) -> None:
    found = checks.as_labels(
        name, getattr(task, name), size, task.num_classes, task.class_names, of=of, **rules
    )
    _set(
        task,
        **{name: found.values},
        num_classes=found.num_classes,
        class_names=found.names,
        target_kind=found.kind,
    )


def _rows(labels: Any, name: str) -> int:
    """Return the number of rows of labels."""
    if not np.shape(labels):
        raise DataError(f"{name} is {labels!r}: give one label for each row")
    return int(np.shape(labels)[0])


def _labelled(task: Any, name: str, of: str) -> np.ndarray:
    mask = getattr(task, name)
    of = f"{'training' if name == 'train' else name} {of}"
    where = f"task {task.name!r}" if task.name else "the task"
    if mask is None or not np.any(np.asarray(mask)):
        raise DataError(f"{where} has no {of}")
    there = np.asarray(mask) & checks.known(
        task.y if isinstance(task, ArrayTask) else task.labels, task.target_kind
    )
    if not there.any():
        raise DataError(f"none of the {int(np.sum(np.asarray(mask)))} {of} of {where} has a label")
    return there


def _summary(task: Any, sizes: Sequence[str]) -> str:
    """Return one line: sizes, targets and splits."""
    parts = [repr(task.name)] if task.name else []
    parts += sizes
    kind = task.target_kind
    parts.append(f"{task.num_classes} classes" if kind == "classes" else f"targets: {kind}")
    if task.class_names:
        shown = ", ".join(map(str, task.class_names[:8])) + (", ..." if len(task.class_names) > 8 else "")
        parts[-1] += f" ({shown})"
    for name in (*_SPLITS, "unlabelled"):
        mask = getattr(task, name, None)
        if mask is not None:
            known = (
                isinstance(mask, np.ndarray | jax.Array) and not checks.hidden(mask) and mask.dtype == bool
            )
            parts.append(f"{name} {int(np.sum(np.asarray(mask)))}" if known else f"{name} ?")
    return f"{type(task).__name__}({', '.join(parts)})"


def _length(x: Any) -> Any:
    return np.shape(x)[0] if np.shape(x) else "?"


@_pytree
class NodeTask:
    """Predict labels of nodes.

    Attributes:
      graph: One graph; ``nodes`` are features ``[N, F]``, a sparse `Operator`, or None; ``edges`` weights.
      labels: Labels: ``[N]`` classes, -1 where unknown, or ``[N, C]`` multi-label indicators, in any form
        that `jgd.data.checks.as_labels` reads, e.g. words; None without labels.
      train: Bool mask ``[N]`` of training nodes. Row numbers become a mask; no two masks share a node.
      val: Mask of validation nodes.
      test: Mask of test nodes.
      extras: Further arrays by name, which only some methods need.
      num_classes: Number of classes; None counts them; 0 for regression targets.
      name: Name of the task.
      setting: ``"transductive"``: training sees the whole graph without the other labels; ``"inductive"``:
        it sees the subgraph of training nodes only.
      directed: Whether edges have a meaningful direction; never symmetrised silently.
      class_names: Original names of the classes, where labels were mapped to ``0..C-1``.
      target_kind: Kind of the labels, see `jgd.data.checks.TargetKind`; follows from them.

    Raises:
      DataError: If fields do not fit each other; the message is one line.
    """

    graph: jraph.GraphsTuple
    labels: Any
    train: Any = None
    val: Any = None
    test: Any = None
    extras: Mapping[str, Any] = field(default_factory=dict)
    num_classes: Any = field(default=None, **_static)
    name: str = field(default="", **_static)
    setting: str = field(default="transductive", **_static)
    directed: bool = field(default=False, **_static)
    class_names: Sequence[LabelName] = field(default=(), **_static)
    target_kind: TargetKind = field(default="none", init=False, **_static)

    def __post_init__(self):
        """Check the fields and bring them into their form."""
        checks.as_word("setting", self.setting, Setting)
        graph = checks.as_graph("graph", self.graph, features=True)
        size = num_nodes(graph)
        _set_labels(self, "labels", size, "nodes")
        _set_masks(self, _SPLITS, size, "nodes")

    def __repr__(self) -> str:
        """Sizes, classes and splits in one line."""
        edges = f"{_length(self.graph.senders)} edges"
        return _summary(self, [f"{_length(self.labels)} nodes", edges, self.setting])

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return int(self.labels.shape[0])

    def labelled(self, split: str = "train") -> np.ndarray:
        """Return the mask of the nodes of a split whose label is known (host side).

        Args:
          split: Name of the split.

        Raises:
          DataError: If no label of the split is known.
        """
        return _labelled(self, split, "nodes")

    def seen_with(self, mask: Any) -> tuple[NodeTask, np.ndarray]:
        """Return the task on the graph that is seen when some nodes are used, and their mask in it.

        That is the whole graph, or in the inductive setting the subgraph of these nodes (host side).

        Args:
          mask: Bools ``[N]``.
        """
        if self.setting == "transductive":
            return self, np.asarray(mask)
        part = self.induced(mask)
        return part, np.ones(part.num_nodes, bool)

    def induced(self, mask: Any) -> NodeTask:
        """Return the task on the subgraph of some nodes (host side).

        Args:
          mask: Bools ``[N]``, or node numbers.

        Raises:
          DataError: If the mask selects no node.
        """
        index = np.flatnonzero(np.asarray(checks.as_mask("mask", mask, self.num_nodes, "nodes")))
        if not len(index):
            raise DataError("mask holds no nodes")

        def pick(x):
            return None if x is None else np.asarray(x)[index]

        extras = {k: v[index] if np.shape(v)[:1] == (self.num_nodes,) else v for k, v in self.extras.items()}
        changes = {"graph": induced_subgraph(self.graph, index), "extras": extras}
        picked = {name: pick(getattr(self, name)) for name in ("labels", *_SPLITS)}
        return _unchecked(NodeTask, {**self.__dict__, **changes, **picked})


@_pytree
class GraphTask:
    """Predict labels of whole graphs.

    Attributes:
      graphs: All graphs joined into one `jraph.GraphsTuple`, ragged by ``n_node`` and ``n_edge``. Nodes are
        features ``[sum n_node, F]`` or a dict with ``"x"`` and integer ``"code"``; edges likewise.
      labels: Labels: ``[G]`` classes, -1 where unknown, or ``[G, T]`` indicators of several tasks with
        ``label_mask``, in any form that `jgd.data.checks.as_labels` reads.
      label_mask: Mask ``[G, T]`` of known indicators; None takes those that are neither NaN nor -1.
      train: Bool mask ``[G]`` of training graphs. Graph numbers become a mask; no two masks share a graph.
      val: Mask of validation graphs.
      test: Mask of test graphs.
      folds: Number of the fold of each graph ``[G]``, for cross-validation, or None.
      weights: Weight of each graph ``[G]``, not negative, or None.
      root: Bool mask ``[sum n_node]`` of the nodes that pooling reads; None for all.
      extras: Further arrays by name, which only some methods need.
      num_classes: Number of classes; None counts them; 0 for regression targets.
      name: Name of the task.
      class_names: Original names of the classes, where labels were mapped to ``0..C-1``.
      target_kind: Kind of the labels, see `jgd.data.checks.TargetKind`; follows from them.

    Raises:
      DataError: If fields do not fit each other; the message is one line.
    """

    graphs: jraph.GraphsTuple
    labels: Any
    label_mask: Any = None
    train: Any = None
    val: Any = None
    test: Any = None
    folds: Any = None
    weights: Any = None
    root: Any = None
    extras: Mapping[str, Any] = field(default_factory=dict)
    num_classes: Any = field(default=None, **_static)
    name: str = field(default="", **_static)
    class_names: Sequence[LabelName] = field(default=(), **_static)
    target_kind: TargetKind = field(default="none", init=False, **_static)

    def __post_init__(self):
        """Check the fields and bring them into their form."""
        graphs = checks.as_graph("graphs", self.graphs)
        size, of = int(np.shape(graphs.n_node)[0]), "graphs"
        _set_labels(self, "labels", size, of, tasks=True)
        _set_masks(self, _SPLITS, size, of)
        _set(
            self,
            folds=checks.as_rows(
                "folds", checks.in_range("folds", self.folds, max(size, 1), "folds"), size, of
            ),
            weights=checks.as_weights("weights", self.weights, size, of),
            root=checks.as_mask("root", self.root, num_nodes(graphs), "nodes"),
            label_mask=checks.as_like("label_mask", self.label_mask, np.shape(self.labels)),
        )
        if self.target_kind == "multilabel" and self.label_mask is None and not checks.hidden(self.labels):
            there = np.asarray(self.labels) >= 0
            _set(self, label_mask=None if there.all() else there)

    def __repr__(self) -> str:
        """Sizes, classes and splits in one line."""
        nodes = "? nodes" if not np.shape(self.graphs.n_node) else f"{num_nodes(self.graphs)} nodes"
        return _summary(self, [f"{_length(self.labels)} graphs", nodes])

    @property
    def num_graphs(self) -> int:
        """Number of graphs."""
        return int(self.labels.shape[0])

    def labelled(self, split: str = "train") -> np.ndarray:
        """Return the mask of the graphs of a split whose label is known (host side).

        Args:
          split: Name of the split.

        Raises:
          DataError: If no label of the split is known.
        """
        return _labelled(self, split, "graphs")

    def unbatch(self, index: Any = None) -> list[jraph.GraphsTuple]:
        """Return graphs as a list (host side).

        Args:
          index: Numbers of the graphs; None for all.
        """
        index = np.arange(self.num_graphs) if index is None else np.asarray(index)
        graph: Any = self.graphs
        node_at = np.concatenate([[0], np.cumsum(graph.n_node)])
        edge_at = np.concatenate([[0], np.cumsum(graph.n_edge)])

        def one(i):
            nodes, edges = slice(node_at[i], node_at[i + 1]), slice(edge_at[i], edge_at[i + 1])
            return jraph.GraphsTuple(
                nodes=jax.tree.map(lambda x: x[nodes], graph.nodes),
                edges=jax.tree.map(lambda x: x[edges], graph.edges),
                senders=graph.senders[edges] - node_at[i],
                receivers=graph.receivers[edges] - node_at[i],
                n_node=graph.n_node[i : i + 1],
                n_edge=graph.n_edge[i : i + 1],
                globals=None,
            )

        return [one(i) for i in index]


@_pytree
class ArrayTask:
    """Examples without edges: images, tables, vectors, point sets.

    Attributes:
      x: Inputs ``[N, ...]``, uint8 or float32, none of them NaN.
      y: Targets: ``[N]`` classes, -1 where unknown, ``[N, C]`` probabilities or indicators, or regression
        targets, in any form that `jgd.data.checks.as_labels` reads; None without targets.
      train: Bool mask ``[N]`` of training examples. Row numbers become a mask; ``train``, ``val`` and
        ``test`` share no rows.
      val: Mask of validation examples.
      test: Mask of test examples.
      unlabelled: Mask of examples without labels that training may use.
      weights: Weight of each example ``[N]``, not negative, or None.
      mask: Mask ``[N, P]`` of the real points of padded point sets, or None.
      tests: Further named test sets, ``{name: (x, y)}``.
      extras: Further arrays by name, which only some methods need.
      num_classes: Number of classes; 0 for regression or no labels. None counts them in integers and words,
        and means 0 for floating-point numbers of one axis.
      columns: Sizes of the one-hot blocks of a table, in order.
      name: Name of the task.
      class_names: Original names of the classes, where labels were mapped to ``0..C-1``.
      target_kind: Kind of ``y``, see `jgd.data.checks.TargetKind`; follows from it.

    Raises:
      DataError: If fields do not fit each other; the message is one line.
    """

    x: Any
    y: Any = None
    train: Any = None
    val: Any = None
    test: Any = None
    unlabelled: Any = None
    weights: Any = None
    mask: Any = None
    tests: Mapping[str, Any] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)
    num_classes: Any = field(default=None, **_static)
    columns: tuple[int, ...] = field(default=(), **_static)
    name: str = field(default="", **_static)
    class_names: Sequence[LabelName] = field(default=(), **_static)
    target_kind: TargetKind = field(default="none", init=False, **_static)

    def __post_init__(self):
        """Check the fields and bring them into their form."""
        _set(self, x=checks.finite("x", self.x))
        size, of = _rows(self.x, "x"), "examples"
        if self.y is None:
            _set(self, num_classes=self.num_classes or len(self.class_names), target_kind="none")
        else:
            _set_labels(self, "y", size, of, floats="regression")
        _set_masks(self, (*_SPLITS, "unlabelled"), size, of)
        _set(self, weights=checks.as_weights("weights", self.weights, size, of))
        if self.mask is not None and not checks.hidden(self.mask):
            shape = np.shape(checks.as_rows("mask", self.mask, size, of))
            _set(self, mask=checks.as_like("mask", self.mask, shape))
        _set(self, tests={name: self._further(name, pair) for name, pair in self.tests.items()})

    def _further(self, name: str, pair: Any) -> tuple[Any, Any]:
        """Bring a further test set into the form of the others."""
        x, y = pair
        x = checks.finite(f"tests[{name!r}] x", x)
        if y is None or self.y is None:
            return x, y
        of = f"tests[{name!r}] y"
        rules: Any = {"floats": "regression", "of": "examples"}
        found = checks.as_labels(of, y, _rows(x, of), self.num_classes, self.class_names, **rules)
        return x, found.values

    def __repr__(self) -> str:
        """Sizes, classes and splits in one line."""
        shape = "x".join(map(str, np.shape(self.x)[1:])) or "1"
        return _summary(self, [f"{_length(self.x)} examples of {shape}"])

    def labelled(self, split: str = "train") -> np.ndarray:
        """Return the mask of the examples of a split whose target is known (host side).

        Args:
          split: Name of the split.

        Raises:
          DataError: If no label of the split is known.
        """
        return _labelled(self, split, "examples")


@_pytree
class SequenceTask:
    """Sequences of tokens, items or places.

    Attributes:
      tokens: Tokens ``[N, L]``, or embeddings ``[N, L, D]``.
      mask: Bool mask ``[N, L]`` of real positions (padding may be left or right).
      loss_mask: Mask ``[N, L]`` of the positions that count in the loss; None for all.
      segment: Number of the sequence in packed rows ``[N, L]``, or None.
      position: Position within that sequence ``[N, L]``, or None.
      y: Labels of whole sequences ``[N]``, read as those of an `ArrayTask`; None: predict the next token.
      chosen: Preferred tokens ``[N, L]`` of preference pairs, or None.
      rejected: Tokens ``[N, L]`` that they are preferred to, or None.
      side: Further inputs at each position, ``{name: [N, L, ...]}``.
      user: Owner of each sequence ``[N]``, or None.
      graph: Graph over the vocabulary, or None.
      train: Bool mask ``[N]`` of training sequences.
      val: Mask of validation sequences.
      test: Mask of test sequences.
      extras: Further arrays by name, which only some methods need.
      vocab_size: Number of tokens.
      num_classes: Number of classes; None counts them.
      name: Name of the task.
      class_names: Original names of the classes, where labels were mapped to ``0..C-1``.
      target_kind: Kind of ``y``, see `jgd.data.checks.TargetKind`; follows from it.
    """

    tokens: Any
    mask: Any = None
    loss_mask: Any = None
    segment: Any = None
    position: Any = None
    y: Any = None
    chosen: Any = None
    rejected: Any = None
    side: Mapping[str, Any] = field(default_factory=dict)
    user: Any = None
    graph: jraph.GraphsTuple | None = None
    train: Any = None
    val: Any = None
    test: Any = None
    extras: Mapping[str, Any] = field(default_factory=dict)
    vocab_size: int = field(**_static)
    num_classes: Any = field(default=None, **_static)
    name: str = field(default="", **_static)
    class_names: Sequence[LabelName] = field(default=(), **_static)
    target_kind: TargetKind = field(default="none", init=False, **_static)

    def __post_init__(self):
        """Check the fields and bring them into their form."""
        if checks.hidden(self.tokens):
            return
        _set(self, tokens=checks.finite("tokens", self.tokens))
        size, of, shape = _rows(self.tokens, "tokens"), "sequences", np.shape(self.tokens)
        if self.y is None:
            _set(self, num_classes=self.num_classes or len(self.class_names), target_kind="none")
        else:
            _set_labels(self, "y", size, of, floats="regression")
        _set_masks(self, _SPLITS, size, of)
        for name in ("mask", "loss_mask"):
            _set(self, **{name: checks.as_like(name, getattr(self, name), shape[:2])})
        for name in ("segment", "position", "chosen", "rejected", "user"):
            checks.as_rows(name, getattr(self, name), size, of)
        if len(shape) == 2:  # negative numbers may mark places without a token
            checks.in_range("tokens", self.tokens, self.vocab_size, "tokens", least=-(2**31))
        if self.graph is not None:
            checks.as_graph("graph", self.graph)


@_pytree
class DenseGraphs:
    """A padded batch of small graphs with dense adjacencies.

    Attributes:
      x: Node features ``[B, N, F]``.
      adj: Weights ``[B, N, N]`` or edge features ``[B, N, N, E]``, ``adj[b, receiver, sender]``.
      mask: Bool mask ``[B, N]`` of nodes that exist (all true where padding is learned too).
      y: Labels ``[B]``, or None.
      symmetric: Whether ``adj`` must stay symmetric.
      loops: Whether the diagonal carries data; else it is zero.
    """

    x: Any
    adj: Any
    mask: Any
    y: Any = None
    symmetric: bool = field(default=True, **_static)
    loops: bool = field(default=False, **_static)


@dataclass(kw_only=True)
class EventLog:
    """System events, and which entities are malicious.

    Attributes:
      actor: Entity that acts, of each event.
      action: Name of the action.
      object: Entity that is acted on.
      time: Time of each event.
      types: Type of each entity.
      attributes: Attributes of entities, as texts by name.
      graph_id: Number of the graph of each event; None for one graph.
      malicious: Names of the malicious entities.
      words: Text of each event: the program, the action and, where there is one, the path of the object.
      graphs: Names of the graphs that ``graph_id`` counts.
      name: Name of the log.
    """

    actor: list[str]
    action: list[str]
    object: list[str]
    time: np.ndarray
    types: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, dict[str, str]] = field(default_factory=dict)
    graph_id: np.ndarray | None = None
    malicious: frozenset[str] = frozenset()
    words: list[tuple[str, ...]] = field(default_factory=list)
    graphs: list[str] = field(default_factory=list)
    name: str = ""


@dataclass(kw_only=True)
class Corpus:
    """Text records, e.g. instructions with a teacher's answers.

    Attributes:
      records: Dicts with at least ``"id"``.
      splits: Positions of the records of each split.
      name: Name of the corpus.
    """

    records: list[dict[str, Any]]
    splits: dict[str, list[int]] = field(default_factory=dict)
    name: str = ""
