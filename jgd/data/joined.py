"""Join many graphs of another library into one ragged `jraph.GraphsTuple`, with their labels."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import jraph
import networkx as nx
import numpy as np

from jgd.data.storage import DataError

__all__ = ["Joined", "edge_data", "joined_networkx", "joined_pyg", "to_numpy"]


class Joined(NamedTuple):
    """Joined graphs and their labels.

    Attributes:
      graphs: Graphs, one after another.
      labels: Label of each graph; None where none has one.
    """

    graphs: jraph.GraphsTuple
    labels: np.ndarray | None


def to_numpy(value: Any) -> np.ndarray:
    """Copy an array or a tensor of PyTorch to the host."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)


def edge_data(weights: np.ndarray | None, attributes: np.ndarray | None) -> Any:
    """Return weights and features of edges; one column of fractions is a weight, integers are kinds."""
    if weights is None and attributes is not None:
        one = attributes.ndim == 1 or (attributes.ndim == 2 and attributes.shape[1] == 1)
        if one and np.issubdtype(attributes.dtype, np.floating):
            weights, attributes = attributes.reshape(-1), None
    if attributes is None:
        return None if weights is None else weights.astype(np.float32)
    kinds = np.issubdtype(attributes.dtype, np.integer) or attributes.dtype == bool
    feature = {"feature": attributes.astype(np.int32 if kinds else np.float32)}
    return feature if weights is None else {"weight": weights.astype(np.float32), **feature}


def joined_pyg(data: Sequence[Any]) -> Joined:
    """Join graphs of PyTorch Geometric.

    Args:
      data: Objects with ``edge_index``, and where they exist ``x``, ``y``, ``edge_weight``, ``edge_attr`` and
        ``num_nodes``; all have the same fields, with as many columns.

    Raises:
      DataError: If a graph does not fit; the message names the first.
    """
    if not len(data):
        raise DataError("the list holds no graphs")
    held: dict[str, list[np.ndarray]] = {}
    pairs, n_node = [], []
    for i, one in enumerate(data):
        pair = getattr(one, "edge_index", None)
        pair = None if pair is None else to_numpy(pair)
        if (
            pair is None
            or pair.ndim != 2
            or pair.shape[0] != 2
            or (pair.size and pair.dtype.kind not in "iu")
        ):
            found = "none" if pair is None else f"{pair.dtype} {pair.shape}"
            raise DataError(f"graph {i}: edge_index is {found}, expected integers [2, E]")
        fields = {k: getattr(one, k, None) for k in ("x", "y", "edge_weight", "edge_attr")}
        arrays = {k: to_numpy(v) for k, v in fields.items() if v is not None}
        if i and set(arrays) != set(held):
            odd = sorted(set(arrays) ^ set(held))[0]
            raise DataError(f"graph {i} {'has' if odd in arrays else 'lacks'} {odd}, other than graph 0")
        size = arrays["x"].shape[0] if "x" in arrays else getattr(one, "num_nodes", None)
        size = int(pair.max(initial=-1)) + 1 if size is None else int(size)
        if size < 1:
            raise DataError(f"graph {i} has no nodes")
        if pair.size and not 0 <= int(pair.min()) <= int(pair.max()) < size:
            raise DataError(f"graph {i}: edge_index runs from {pair.min()} to {pair.max()}, for {size} nodes")
        for k in ("edge_weight", "edge_attr"):
            if k in arrays and arrays[k].shape[:1] != (pair.shape[1],):
                raise DataError(f"graph {i}: {k} has shape {arrays[k].shape}, for {pair.shape[1]} edges")
        if "y" in arrays:
            y = arrays["y"]
            arrays["y"] = y.reshape(1) if y.size == 1 else y.reshape(1, -1)
        for k, array in arrays.items():
            if i and array.shape[1:] != held[k][0].shape[1:]:
                raise DataError(f"graph {i}: {k} has shape {array.shape}, that of graph 0 {held[k][0].shape}")
            held.setdefault(k, []).append(array)
        pairs.append(pair.astype(np.int64))
        n_node.append(size)
    whole = {k: np.concatenate(v) for k, v in held.items()}
    x = whole.get("x")
    if x is not None:
        x = x.astype(np.float32).reshape(len(x), -1)
    edges = edge_data(whole.get("edge_weight"), whole.get("edge_attr"))
    return Joined(_shifted(pairs, n_node, x, edges), whole.get("y"))


def _shifted(pairs: Sequence[np.ndarray], n_node: Sequence[int], nodes: Any, edges: Any) -> jraph.GraphsTuple:
    """Join graphs into one, whose nodes are numbered from first to last."""
    sizes: Any = np.asarray(n_node, np.int32)
    counts: Any = np.asarray([pair.shape[1] for pair in pairs], np.int32)
    shift = np.repeat(np.cumsum(sizes, dtype=np.int64) - sizes, counts)
    both = np.concatenate(pairs, 1) + shift
    return jraph.GraphsTuple(
        nodes=nodes,
        edges=edges,
        senders=both[0].astype(np.int32),
        receivers=both[1].astype(np.int32),
        n_node=sizes,
        n_edge=counts,
        globals=None,
    )


def joined_networkx(
    graphs: Sequence[nx.Graph], *, features: str = "x", labels: str = "y", weight: str = "weight"
) -> Joined:
    """Join graphs of NetworkX; an undirected edge becomes one in each direction.

    Args:
      graphs: Graphs with nodes of any kind, which are numbered in their order.
      features: Node attribute of the features; all nodes have it, or none.
      labels: Graph attribute, in ``graph.graph``, of the label; None where a graph has none.
      weight: Edge attribute of the weight; 1 where some edges have it and others do not.

    Raises:
      DataError: If a graph does not fit; the message names the first.
    """
    if not len(graphs):
        raise DataError("the list holds no graphs")
    pairs, n_node, rows, weights = [], [], [], []
    for i, graph in enumerate(graphs):
        index: dict[Hashable, int] = {node: n for n, node in enumerate(graph)}
        if not index:
            raise DataError(f"graph {i} has no nodes")
        both = graph if graph.is_directed() else graph.to_directed()
        edges = [(index[s], index[r], data.get(weight)) for s, r, data in both.edges(data=True)]
        pairs.append(np.asarray([e[:2] for e in edges], np.int64).reshape(-1, 2).T)
        weights += [w for *_, w in edges]
        n_node.append(len(index))
        found = [data[features] for _, data in graph.nodes(data=True) if features in data]
        if len(found) not in (0, len(index)) or (i and bool(found) != bool(rows)):
            raise DataError(
                f"graph {i}: {len(found)} of {len(index)} nodes have {features!r}: all, or none at all"
            )
        wide = [np.atleast_1d(to_numpy(row)) for row in found]
        if odd := [row.shape for row in wide if row.shape != (rows or wide)[0].shape]:
            raise DataError(
                f"graph {i}: {features} of a node has shape {odd[0]}, others {(rows or wide)[0].shape}"
            )
        rows += wide
    edges = np.asarray([1.0 if w is None else w for w in weights], np.float32)
    joined = _shifted(
        pairs,
        n_node,
        np.stack(rows).astype(np.float32) if rows else None,
        edges if any(w is not None for w in weights) else None,
    )
    found = [graph.graph.get(labels) for graph in graphs]
    if all(y is None for y in found):
        return Joined(joined, None)
    return Joined(joined, np.asarray(found, object if None in found or isinstance(found[0], str) else None))
