"""Conversion from and to the graphs of other libraries: NetworkX, PyTorch Geometric, OGB.

Graphs of other libraries become a `NodeTask` (labels -1 and masks None where there are none); a
`jraph.GraphsTuple`, a `NodeTask` or a `Condensed` graph can become one of theirs. Arrays are copied to the
host.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, overload

import jraph
import networkx as nx
import numpy as np

from jgd.data.condensed import Condensed
from jgd.data.joined import Joined, edge_data, joined_networkx, joined_pyg, to_numpy
from jgd.data.storage import DataError
from jgd.data.tasks import GraphTask, NodeTask
from jgd.graph import SparseOperator, edge_weights, from_edges, num_nodes

__all__ = ["from_networkx", "from_ogb", "from_pyg", "to_networkx", "to_pyg"]

_MASKS = ("train", "val", "test")


def _is_symmetric(graph: jraph.GraphsTuple) -> bool:
    """Return whether every edge also runs backwards."""
    size = num_nodes(graph)
    senders, receivers = (np.asarray(i).astype(np.int64) for i in (graph.senders, graph.receivers))
    return np.array_equal(np.unique(senders * size + receivers), np.unique(receivers * size + senders))


def _outgoing(source: Any) -> tuple[jraph.GraphsTuple, dict[str, np.ndarray]]:
    """Return the graph of ``source`` and its arrays of nodes by name."""
    if isinstance(source, jraph.GraphsTuple):
        graph, fields = source, {}
    elif isinstance(source, NodeTask):
        graph = source.graph
        fields = {"y": source.labels, **{f"{part}_mask": getattr(source, part) for part in _MASKS}}
    elif isinstance(source, Condensed) and isinstance(source.data, jraph.GraphsTuple):
        graph, fields = source.data, {"y": source.targets}
    else:
        raise DataError(f"a {type(source).__name__} is not one graph: give a GraphsTuple or a NodeTask")
    if isinstance(graph.nodes, SparseOperator):
        graph = graph._replace(nodes=graph.nodes.todense())
    nodes: Any = graph.nodes
    fields = {"x": nodes.get("x") if isinstance(nodes, Mapping) else nodes, **fields}
    return graph, {name: to_numpy(value) for name, value in fields.items() if value is not None}


def _task(
    graph: jraph.GraphsTuple, labels: Any, masks: Mapping[str, Any], *, name: str, directed: bool | None
) -> NodeTask:
    directed = not _is_symmetric(graph) if directed is None else directed
    return NodeTask(graph=graph, labels=labels, **masks, name=name, directed=directed)


def _set_of_graphs(joined: Joined, name: str) -> GraphTask:
    labels = np.full(len(joined.graphs.n_node), -1) if joined.labels is None else joined.labels
    return GraphTask(graphs=joined.graphs, labels=labels, name=name)


# NetworkX


def to_networkx(
    source: jraph.GraphsTuple | NodeTask | Condensed, *, directed: bool | None = None
) -> nx.Graph | nx.DiGraph:
    """Convert a graph to NetworkX, with nodes ``0..N-1``.

    Args:
      source: One graph.
      directed: Whether it becomes a `networkx.DiGraph`; None: where an edge lacks its reverse. In an
        undirected graph the two directions of an edge become one (the last weight stays); repeated edges
        become one too.

    Returns:
      A graph whose nodes have the attributes ``x``, ``y`` and ``train_mask`` ... where the source has them,
      and whose edges have ``weight`` where it is weighted.

    Raises:
      DataError: If ``source`` is not one graph.
    """
    graph, fields = _outgoing(source)
    directed = not _is_symmetric(graph) if directed is None else directed
    result = nx.DiGraph() if directed else nx.Graph()
    for i in range(num_nodes(graph)):
        result.add_node(
            i, **{k: v[i].item() if v[i].ndim == 0 else v[i] for k, v in fields.items() if len(v) > i}
        )
    ends = zip(np.asarray(graph.senders).tolist(), np.asarray(graph.receivers).tolist(), strict=True)
    weights = edge_weights(graph)
    if weights is None:
        result.add_edges_from(ends)
    else:
        weights = to_numpy(weights).tolist()
        result.add_edges_from((s, r, {"weight": w}) for (s, r), w in zip(ends, weights, strict=True))
    return result


@overload
def from_networkx(
    graph: nx.Graph, *, features: str = "x", labels: str = "y", weight: str = "weight", name: str = ""
) -> NodeTask: ...


@overload
def from_networkx(
    graph: Sequence[nx.Graph],
    *,
    features: str = "x",
    labels: str = "y",
    weight: str = "weight",
    name: str = "",
) -> GraphTask: ...


def from_networkx(
    graph: nx.Graph | Sequence[nx.Graph],
    *,
    features: str = "x",
    labels: str = "y",
    weight: str = "weight",
    name: str = "",
) -> NodeTask | GraphTask:
    """Convert a NetworkX graph, or a list of them; an undirected edge becomes one in each direction.

    A list becomes a `GraphTask` without splits; the label of a graph is its attribute
    ``graph.graph[labels]``.

    Args:
      graph: Graph with nodes of any kind, which are numbered in its order, or a list of graphs.
      features: Node attribute of the features; a graph without it has ``nodes=None``.
      labels: Node attribute of the class: integers or words, mapped as in `jgd.data.checks.as_labels`; the
        class of nodes without it, or with None, is unknown. Fractions are regression targets.
      weight: Edge attribute of the weight; 1 where some edges have it and others do not.
      name: Name of the task.

    Raises:
      DataError: If only some nodes have features.
    """
    if not isinstance(graph, nx.Graph):
        return _set_of_graphs(joined_networkx(graph, features=features, labels=labels, weight=weight), name)
    index: dict[Hashable, int] = {node: i for i, node in enumerate(graph)}
    attributes = [data for _, data in graph.nodes(data=True)]

    def column(key: str) -> np.ndarray | None:
        present = [data[key] for data in attributes if key in data]
        if present and len(present) < len(attributes):
            raise DataError(f"only {len(present)} of {len(attributes)} nodes have the attribute {key!r}")
        return np.asarray(present) if present else None

    both = graph if graph.is_directed() else graph.to_directed()
    edges = [(index[s], index[r], data.get(weight)) for s, r, data in both.edges(data=True)]
    weighted = any(w is not None for *_, w in edges)
    x = column(features)
    result = from_edges(
        np.asarray([s for s, _, _ in edges], np.int32),
        np.asarray([r for _, r, _ in edges], np.int32),
        nodes=None if x is None else x.astype(np.float32),
        edges=np.asarray([1.0 if w is None else w for *_, w in edges], np.float32) if weighted else None,
        num_nodes=len(index),
    )
    y = [data.get(labels) for data in attributes] if any(labels in data for data in attributes) else None
    masks = {part: column(f"{part}_mask") for part in _MASKS}
    return _task(result, y, masks, name=name, directed=graph.is_directed())


# PyTorch Geometric


def to_pyg(source: jraph.GraphsTuple | NodeTask | Condensed) -> Any:
    """Convert to a ``torch_geometric.data.Data`` with ``x``, ``edge_index``, ``edge_weight``, ``y``, masks.

    Args:
      source: One graph.

    Raises:
      DataError: If ``source`` is not one graph.
      ImportError: If PyTorch Geometric is missing.
    """
    try:
        import torch
        from torch_geometric.data import Data
    except ImportError as error:
        raise ImportError("this needs PyTorch Geometric: pip install 'jgd[pyg]'") from error

    graph, fields = _outgoing(source)
    fields["edge_index"] = np.stack([to_numpy(graph.senders), to_numpy(graph.receivers)]).astype(np.int64)
    if (weights := edge_weights(graph)) is not None:
        fields["edge_weight"] = to_numpy(weights)
    if "y" in fields and np.issubdtype(fields["y"].dtype, np.integer):
        fields["y"] = fields["y"].astype(np.int64)  # losses of PyTorch need it
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in fields.items()}
    return Data(**tensors, num_nodes=num_nodes(graph))


@overload
def from_pyg(
    data: list | tuple, *, split: int = 0, directed: bool | None = None, name: str = ""
) -> GraphTask: ...


@overload
def from_pyg(data: Any, *, split: int = 0, directed: bool | None = None, name: str = "") -> NodeTask: ...


def from_pyg(
    data: Any, *, split: int = 0, directed: bool | None = None, name: str = ""
) -> NodeTask | GraphTask:
    """Convert a ``torch_geometric.data.Data`` of one graph, or a list of them (without PyTorch).

    A list of graphs becomes a `GraphTask` without splits, whose labels are their ``y``.

    Args:
      data: Object with ``edge_index`` and, where they exist, ``x``, ``y``, ``edge_weight``, ``edge_attr`` and
        masks (bools, or node numbers). An ``edge_attr`` of one column of floating-point numbers is the
        weight; wider ones and integers, which are kinds of edges, become ``edges["feature"]``. Classes are
        read as in `jgd.data.checks.as_labels`; fractions are regression targets.
      split: Number of the column of masks ``[N, splits]``.
      directed: Whether edges have a direction; None: where an edge lacks its reverse.
      name: Name of the task.

    Raises:
      DataError: If a part is missing or does not fit.
    """
    if isinstance(data, list | tuple):
        return _set_of_graphs(joined_pyg(data), name)

    def get(key: str) -> np.ndarray | None:
        value = getattr(data, key, None)
        return None if value is None else to_numpy(value)

    edge_index, x = get("edge_index"), get("x")
    if edge_index is None:
        raise DataError("the data has no edge_index: turn a sparse adj_t into edge_index first")
    if edge_index.ndim != 2 or edge_index.shape[0] != 2:
        raise DataError(f"edge_index has shape {edge_index.shape}, but edges are [2, E]")
    if x is None and getattr(data, "num_nodes", None) is None:
        raise DataError("the data has neither x nor num_nodes: set num_nodes")
    weights, attributes = get("edge_weight"), get("edge_attr")
    masks = {part: get(f"{part}_mask") for part in _MASKS}
    graph = from_edges(
        *edge_index,
        nodes=None if x is None else x.astype(np.float32),
        edges=edge_data(weights, attributes),
        num_nodes=None if x is not None else int(data.num_nodes),
    )
    columns = {
        part: m if m is None or m.ndim != 2 or m.shape[1] == 1 else _of_split(f"{part}_mask", m, split)
        for part, m in masks.items()
    }
    return _task(graph, get("y"), columns, name=name, directed=directed)


def _of_split(name: str, masks: np.ndarray, split: int) -> np.ndarray:
    if not 0 <= split < masks.shape[1]:
        raise DataError(f"{name} has {masks.shape[1]} splits, numbered from 0: there is no split {split}")
    return masks[:, split]


# OGB


def from_ogb(
    graph: Mapping[str, Any],
    labels: Any,
    split_idx: Mapping[str, Any] | None = None,
    *,
    directed: bool | None = None,
    name: str = "",
) -> NodeTask:
    """Convert a graph of OGB's ``NodePropPredDataset``: ``graph, labels = dataset[0]``.

    Args:
      graph: Dict with ``edge_index`` ``[2, E]``, ``node_feat`` ``[N, F]`` or None, ``edge_feat`` and
        ``num_nodes``; ``edge_feat`` is read as ``edge_attr`` in `from_pyg`.
      labels: Classes ``[N, 1]`` (NaN where unknown) or indicators of several tasks ``[N, T]``.
      split_idx: Node numbers under ``train``, ``valid`` and ``test``, from ``dataset.get_idx_split()``.
      directed: Whether edges have a direction; None: where an edge lacks its reverse.
      name: Name of the task.

    Raises:
      DataError: If a part is missing or does not fit.
    """
    try:
        edge_index, x, size = to_numpy(graph["edge_index"]), graph.get("node_feat"), int(graph["num_nodes"])
        split = {} if split_idx is None else {p: to_numpy(split_idx[p]) for p in ("train", "valid", "test")}
    except KeyError as error:
        raise DataError(f"the OGB dataset has no {error}") from None
    features = graph.get("edge_feat")
    result = from_edges(
        *edge_index,
        nodes=None if x is None else to_numpy(x).astype(np.float32),
        edges=edge_data(None, None if features is None else to_numpy(features)),
        num_nodes=size,
    )
    masks: dict[str, Any] = dict(zip(_MASKS, split.values(), strict=False))
    return _task(result, to_numpy(labels), masks, name=name, directed=directed)
