"""What a method is given: data with a purpose and splits.

Tasks are pytrees: arrays are leaves; names, class counts and flags are static. Masks are None where a
split does not exist. ``extras`` carries named arrays that only some methods need (sensitive groups, nodes
to forget, a class taxonomy). Host-only data (texts, tables, event logs) are plain dataclasses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, dataclass_transform

import jax
import jraph
import numpy as np

from jgd.graph.build import induced_subgraph

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

_static: dict[str, Any] = {"metadata": {"static": True}}


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
def _pytree(cls):
    return jax.tree_util.register_dataclass(dataclass(frozen=True, kw_only=True)(cls))


@_pytree
class NodeTask:
    """Predict labels of nodes.

    Attributes:
      graph: one graph; ``nodes`` are features ``[N, F]``, a sparse `Operator`, or None; ``edges`` weights.
      labels: ``[N]`` classes, -1 where unknown, or ``[N, C]`` multi-label indicators.
      train: ``[N]`` bool mask; also ``val`` and ``test``.
      setting: ``"transductive"``: training sees the whole graph without the other labels; ``"inductive"``:
        it sees the subgraph of training nodes only.
      directed: whether edges have a meaningful direction; never symmetrised silently.
    """

    graph: jraph.GraphsTuple
    labels: Any
    train: Any = None
    val: Any = None
    test: Any = None
    extras: Mapping[str, Any] = field(default_factory=dict)
    num_classes: int = field(**_static)
    name: str = field(default="", **_static)
    setting: Literal["transductive", "inductive"] = field(default="transductive", **_static)
    directed: bool = field(default=False, **_static)

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return int(self.labels.shape[0])

    def induced(self, mask: Any) -> NodeTask:
        """The task on the subgraph of the nodes in ``mask`` (host side)."""
        index = np.flatnonzero(np.asarray(mask))

        def pick(x):
            return None if x is None else np.asarray(x)[index]

        return NodeTask(
            graph=induced_subgraph(self.graph, index),
            labels=pick(self.labels),
            train=pick(self.train),
            val=pick(self.val),
            test=pick(self.test),
            extras={
                k: v[index] if np.shape(v)[:1] == (self.num_nodes,) else v for k, v in self.extras.items()
            },
            num_classes=self.num_classes,
            name=self.name,
            setting=self.setting,
            directed=self.directed,
        )


@_pytree
class GraphTask:
    """Predict labels of whole graphs.

    Attributes:
      graphs: all graphs joined into one `jraph.GraphsTuple`, ragged by ``n_node`` and ``n_edge``. Nodes are
        features ``[sum n_node, F]`` or a dict with ``"x"`` and integer ``"code"``; edges likewise.
      labels: ``[G]`` classes, or ``[G, T]`` of several tasks with ``label_mask``.
      train: ``[G]`` bool mask; also ``val`` and ``test``; ``folds`` ``[G]`` for cross-validation.
      weights: ``[G]`` weight of each graph, or None.
      root: ``[sum n_node]`` bool, nodes that pooling reads, or None for all.
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
    num_classes: int = field(**_static)
    name: str = field(default="", **_static)

    @property
    def num_graphs(self) -> int:
        """Number of graphs."""
        return int(self.labels.shape[0])

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


@_pytree
class ArrayTask:
    """Examples without edges: images, tables, vectors, point sets.

    Attributes:
      x: ``[N, ...]`` inputs, uint8 or float32.
      y: ``[N]`` classes, ``[N, C]`` probabilities or regression targets, or None.
      train: ``[N]`` bool mask; also ``val``, ``test`` and ``unlabelled``.
      weights: ``[N]`` weight of each example, or None.
      mask: ``[N, P]`` real points of padded point sets, or None.
      tests: further named test sets, ``{name: (x, y)}``.
      num_classes: 0 for regression or no labels.
      columns: sizes of one-hot blocks of a table, in order.
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
    num_classes: int = field(default=0, **_static)
    columns: tuple[int, ...] = field(default=(), **_static)
    name: str = field(default="", **_static)


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


@_pytree
class SequenceTask:
    """Sequences of tokens, items or places.

    Attributes:
      tokens: ``[N, L]`` ids, or ``[N, L, D]`` embeddings.
      mask: ``[N, L]`` bool, real positions (padding may be left or right).
      loss_mask: ``[N, L]`` positions that count in the loss, or None for all.
      segment: ``[N, L]`` sequence number in packed rows; ``position`` within it; or None.
      y: ``[N]`` labels of whole sequences, or None for next-token prediction.
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
    num_classes: int = field(default=0, **_static)
    name: str = field(default="", **_static)


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
    num_classes: int = field(default=0, **_static)
    name: str = field(default="", **_static)


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
