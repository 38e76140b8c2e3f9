"""What a method is given: data with a purpose and splits.

Tasks are pytrees: arrays are leaves; names, class counts and flags are static. Masks are None where a
split does not exist. ``extras`` carries named arrays that only some methods need (sensitive groups, nodes
to forget, a class taxonomy). Host-only data (texts, tables, event logs) are plain dataclasses.

A task that is made is checked and brought into one form (see `jgd.data.checks`): masks become bools, labels
classes in ``0..C-1`` or another kind of targets; graphs are sound, splits share no rows. What `jax.tree`
takes apart and puts together is not checked again: its leaves may be anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, dataclass_transform

import jax
import jraph
import numpy as np

from jgd.data import checks
from jgd.data.checks import LabelName, TargetKind
from jgd.data.storage import DataError
from jgd.graph.build import induced_subgraph
from jgd.graph.operator import num_nodes

__all__ = [
    "ArrayTask",
    "Corpus",
    "Database",
    "DenseGraphs",
    "EventLog",
    "GraphTask",
    "HeteroGraph",
    "InteractionTask",
    "LinkTask",
    "Links",
    "NodeTask",
    "SequenceTask",
    "TextGraph",
]

Setting = Literal["transductive", "inductive"]

_static: dict[str, Any] = {"metadata": {"static": True}}
_SPLITS = ("train", "val", "test")


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
def _pytree(cls):
    """A frozen dataclass and pytree that is checked when it is made, not when leaves are put together."""
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
    """A task of fields that are in their form already, or stand for arrays."""
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
    """How many rows labels have."""
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
    """One line: sizes, targets and splits."""
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
      graph: one graph; ``nodes`` are features ``[N, F]``, a sparse `Operator`, or None; ``edges`` weights.
      labels: ``[N]`` classes, -1 where unknown, or ``[N, C]`` multi-label indicators; given in any form that
        `jgd.data.checks.as_labels` reads, e.g. words. None where there are none.
      train: ``[N]`` bool mask; also ``val`` and ``test``. Row numbers become masks; no two share a node.
      num_classes: classes; counted where it is left out; 0 for regression targets.
      class_names: what the classes were called, where their labels were mapped to ``0..C-1``.
      setting: ``"transductive"``: training sees the whole graph without the other labels; ``"inductive"``:
        it sees the subgraph of training nodes only.
      directed: whether edges have a meaningful direction; never symmetrised silently.
      target_kind: what the labels are, see `jgd.data.checks.TargetKind`; follows from them.

    Raises:
      DataError: for fields that do not fit, in one line.
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
        """The nodes of a split whose label is known, as a mask (host side).

        Raises:
          DataError: where there are none.
        """
        return _labelled(self, split, "nodes")

    def induced(self, mask: Any) -> NodeTask:
        """The task on the subgraph of the nodes in ``mask`` (bools or node numbers; host side)."""
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
      graphs: all graphs joined into one `jraph.GraphsTuple`, ragged by ``n_node`` and ``n_edge``. Nodes are
        features ``[sum n_node, F]`` or a dict with ``"x"`` and integer ``"code"``; edges likewise.
      labels: ``[G]`` classes, -1 where unknown, or ``[G, T]`` indicators of several tasks with
        ``label_mask``; given in any form that `jgd.data.checks.as_labels` reads.
      label_mask: ``[G, T]`` which indicators are known; those that are not NaN or -1, where it is left out.
      train: ``[G]`` bool mask; also ``val`` and ``test``. Graph numbers become masks; no two share a graph.
      folds: ``[G]`` number of the fold of each graph, for cross-validation, or None.
      weights: ``[G]`` weight of each graph, not negative, or None.
      root: ``[sum n_node]`` bool, nodes that pooling reads, or None for all.
      num_classes: classes; counted where it is left out; 0 for regression targets.
      class_names: what the classes were called, where their labels were mapped to ``0..C-1``.
      target_kind: what the labels are, see `jgd.data.checks.TargetKind`; follows from them.

    Raises:
      DataError: for fields that do not fit, in one line.
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
        """The graphs of a split whose label is known, as a mask (host side).

        Raises:
          DataError: where there are none.
        """
        return _labelled(self, split, "graphs")

    def unbatch(self, index: Any = None) -> list[jraph.GraphsTuple]:
        """The graphs at ``index`` (all by default) as a list (host side)."""
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
class Links:
    """Supervised pairs: ``src`` and ``dst`` ``[M]``; ``label``, ``relation``, ``time`` ``[M]`` or None."""

    src: Any
    dst: Any
    label: Any = None
    relation: Any = None
    time: Any = None

    def __post_init__(self):
        """Check that all columns have a row for each pair."""
        if checks.hidden(self.src):
            return
        size = _rows(self.src, "src")
        for name in ("dst", "label", "relation", "time"):
            checks.as_rows(name, getattr(self, name), size, "pairs")


@_pytree
class LinkTask:
    """Predict edges, their relation or direction. Messages go over ``graph``, supervision is apart.

    Attributes:
      graph: the graph that messages pass over.
      train: supervised pairs; also ``val`` and ``test``.
      known: all true pairs, to leave out when ranking.
      candidates: ``[M, K]`` candidates to rank for each test pair, or None for all nodes.
      num_relations: kinds of edges.
    """

    graph: jraph.GraphsTuple
    train: Links
    val: Links | None = None
    test: Links | None = None
    known: Links | None = None
    candidates: Any = None
    extras: Mapping[str, Any] = field(default_factory=dict)
    num_relations: int = field(default=1, **_static)
    name: str = field(default="", **_static)
    directed: bool = field(default=True, **_static)

    def __post_init__(self):
        """Check the graph, and that pairs are of its nodes and relations."""
        size = num_nodes(checks.as_graph("graph", self.graph))
        for name in (*_SPLITS, "known"):
            pairs = getattr(self, name)
            if pairs is not None:
                checks.in_range(f"{name}.src", pairs.src, size, "nodes")
                checks.in_range(f"{name}.dst", pairs.dst, size, "nodes")
                checks.in_range(f"{name}.relation", pairs.relation, self.num_relations, "relations")
        checks.in_range("candidates", self.candidates, size, "nodes", least=-1)


@_pytree
class ArrayTask:
    """Examples without edges: images, tables, vectors, point sets.

    Attributes:
      x: ``[N, ...]`` inputs, uint8 or float32, none of them NaN.
      y: ``[N]`` classes, -1 where unknown, ``[N, C]`` probabilities or indicators, regression targets, or
        None; given in any form that `jgd.data.checks.as_labels` reads.
      train: ``[N]`` bool mask; also ``val``, ``test`` and ``unlabelled``. Row numbers become masks; train,
        val and test share no rows.
      weights: ``[N]`` weight of each example, not negative, or None.
      mask: ``[N, P]`` real points of padded point sets, or None.
      tests: further named test sets, ``{name: (x, y)}``.
      num_classes: classes; 0 for regression or no labels. Left out it is counted in integers and words, and 0
        for floating-point numbers of one axis.
      columns: sizes of one-hot blocks of a table, in order.
      class_names: what the classes were called, where their labels were mapped to ``0..C-1``.
      target_kind: what ``y`` is, see `jgd.data.checks.TargetKind`; follows from it.

    Raises:
      DataError: for fields that do not fit, in one line.
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
        """A further test set in the form of the others."""
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
        """The examples of a split whose target is known, as a mask (host side).

        Raises:
          DataError: where there are none.
        """
        return _labelled(self, split, "examples")


@_pytree
class InteractionTask:
    """Recommend items to users from implicit feedback.

    Attributes:
      train: ``[M, 2]`` pairs (user, item); also ``val`` and ``test``.
      behaviours: further kinds of interaction, ``{name: [M, 2]}``, in order.
      time: ``[M]`` times of the training pairs, or None.
      candidates: ``[U, K]`` items to rank for each user, or None for all.
    """

    train: Any
    val: Any = None
    test: Any = None
    behaviours: Mapping[str, Any] = field(default_factory=dict)
    time: Any = None
    candidates: Any = None
    extras: Mapping[str, Any] = field(default_factory=dict)
    num_users: int = field(**_static)
    num_items: int = field(**_static)
    name: str = field(default="", **_static)

    def __post_init__(self):
        """Check that pairs are of users and items."""
        given = {name: getattr(self, name) for name in _SPLITS} | dict(self.behaviours)
        for name, pairs in given.items():
            if pairs is None or checks.hidden(pairs):
                continue
            if np.ndim(pairs) != 2 or np.shape(pairs)[1] != 2:
                raise DataError(f"{name} has shape {np.shape(pairs)}: pairs of users and items are [M, 2]")
            checks.in_range(f"{name} users", np.asarray(pairs)[:, 0], self.num_users, "users")
            checks.in_range(f"{name} items", np.asarray(pairs)[:, 1], self.num_items, "items")
        if self.time is not None and not checks.hidden(self.train):
            checks.as_rows("time", self.time, len(self.train), "pairs")


@_pytree
class SequenceTask:
    """Sequences of tokens, items or places.

    Attributes:
      tokens: ``[N, L]`` ids, or ``[N, L, D]`` embeddings.
      mask: ``[N, L]`` bool, real positions (padding may be left or right).
      loss_mask: ``[N, L]`` positions that count in the loss, or None for all.
      segment: ``[N, L]`` sequence number in packed rows; ``position`` within it; or None.
      y: ``[N]`` labels of whole sequences, read as those of an `ArrayTask`, or None: predict the next token.
      chosen: ``[N, L]`` and ``rejected``: preference pairs, or None.
      side: further inputs at each position, ``{name: [N, L, ...]}``.
      user: ``[N]`` who the sequence belongs to, or None.
      graph: graph over the vocabulary, or None.
      train: ``[N]`` bool mask; also ``val`` and ``test``.
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
        if len(shape) == 2:  # negative numbers are left to mark what is no token
            checks.in_range("tokens", self.tokens, self.vocab_size, "tokens", least=-(2**31))
        if self.graph is not None:
            checks.as_graph("graph", self.graph)


@_pytree
class HeteroGraph:
    """Nodes and edges of several types, with the labels of one node type.

    Attributes:
      nodes: ``{type: features [N_type, F_type]}``, None where a type has none.
      edges: ``{(source, relation, target): {"senders", "receivers"[, "weight", "time"]}}``.
      time: ``{type: [N_type]}`` creation times, empty where there are none.
      labels: ``[N_target]``, with masks ``train``, ``val`` and ``test``.
      counts: ``((type, N_type), ...)``.
      target: the node type that is labelled.
    """

    nodes: Mapping[str, Any]
    edges: Mapping[tuple[str, str, str], Mapping[str, Any]]
    time: Mapping[str, Any] = field(default_factory=dict)
    labels: Any = None
    train: Any = None
    val: Any = None
    test: Any = None
    extras: Mapping[str, Any] = field(default_factory=dict)
    counts: tuple[tuple[str, int], ...] = field(**_static)
    target: str = field(default="", **_static)
    num_classes: Any = field(default=None, **_static)
    name: str = field(default="", **_static)
    class_names: Sequence[LabelName] = field(default=(), **_static)
    target_kind: TargetKind = field(default="none", init=False, **_static)

    def __post_init__(self):
        """Check features and edges of each type, and the labels of the target."""
        counts = dict(self.counts)
        for kind, x in self.nodes.items():
            if kind not in counts:
                raise DataError(f"nodes of type {kind!r} are not among counts")
            checks.as_rows(f"nodes[{kind!r}]", checks.finite(f"nodes[{kind!r}]", x), counts[kind], "nodes")
        for (source, relation, end), pairs in self.edges.items():
            for side, kind in (("senders", source), ("receivers", end)):
                if kind not in counts:
                    raise DataError(f"edges {relation!r} are of type {kind!r}, which is not among counts")
                checks.in_range(f"{relation} {side}", pairs[side], counts[kind], f"nodes of type {kind!r}")
                checks.as_rows(f"{relation} {side}", pairs[side], _length(pairs["senders"]), "edges")
        if self.labels is None:
            _set(self, num_classes=self.num_classes or len(self.class_names))
            return
        if self.target not in counts:
            raise DataError(f"there are labels, but target {self.target!r} is no type of nodes")
        _set_labels(self, "labels", counts[self.target], "nodes")
        _set_masks(self, _SPLITS, counts[self.target], "nodes")


@_pytree
class DenseGraphs:
    """A padded batch of small graphs with dense adjacencies.

    Attributes:
      x: ``[B, N, F]`` node features.
      adj: ``[B, N, N]`` weights or ``[B, N, N, E]`` edge features, ``adj[b, receiver, sender]``.
      mask: ``[B, N]`` bool, nodes that exist (all true where padding is learned too).
      y: ``[B]`` labels, or None.
      symmetric: whether ``adj`` must stay symmetric.
      loops: whether the diagonal carries data; else it is zero.
    """

    x: Any
    adj: Any
    mask: Any
    y: Any = None
    symmetric: bool = field(default=True, **_static)
    loops: bool = field(default=False, **_static)


@dataclass(kw_only=True)
class TextGraph:
    """A graph whose nodes carry text: ``texts[i]`` is a dict of fields such as title and abstract."""

    graph: jraph.GraphsTuple
    texts: list[dict[str, str]]
    ids: list[str] = field(default_factory=list)
    labels: Any = None
    class_names: list[str] = field(default_factory=list)
    node_types: list[str] = field(default_factory=list)
    edge_texts: list[str] = field(default_factory=list)
    splits: dict[str, Any] = field(default_factory=dict)
    name: str = ""


@dataclass(kw_only=True)
class Database:
    """A relational database: columns by table, primary and foreign keys, and the time column of each."""

    tables: dict[str, dict[str, np.ndarray]]
    primary: dict[str, str] = field(default_factory=dict)
    foreign: dict[str, dict[str, str]] = field(default_factory=dict)
    time: dict[str, str] = field(default_factory=dict)
    labels: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    val_time: Any = None
    test_time: Any = None
    name: str = ""


@dataclass(kw_only=True)
class EventLog:
    """System events: who did what to which object when, and which entities are malicious.

    ``words`` are the text of each event: the program, the action and, where there is one, the path of the
    object; ``graphs`` are the names of the graphs that ``graph_id`` counts.
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
    """Text records, e.g. instructions with a teacher's answers: dicts with at least ``"id"``."""

    records: list[dict[str, Any]]
    splits: dict[str, list[int]] = field(default_factory=dict)
    name: str = ""
