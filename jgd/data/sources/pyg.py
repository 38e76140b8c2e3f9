"""Graphs that PyTorch Geometric saved, read without PyTorch.

A file that ``torch.save`` wrote of one ``Data`` with labels of its nodes is a graph; of a list of them, each
with one label, a set of graphs. The file of an ``InMemoryDataset`` (``processed/data.pt``) may be either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from jgd.data.imported import read_torch
from jgd.data.joined import edge_data, joined_pyg
from jgd.data.sources.arrays import masks_in
from jgd.data.sources.assemble import Draft, Found, Options, graph_task, node_task
from jgd.data.sources.columns import hinted, reading_own
from jgd.data.storage import DataError

__all__ = ["read_pyg"]


def read_pyg(path: Path, name: str, options: Options) -> Found:
    """Read one ``Data``, or a list of them."""
    with hinted():
        content = read_torch(path)
    with reading_own(path):
        found = _found(path, content)
        if isinstance(found, list):
            return _many(path, name, options, found)
        return _one(path, name, options, vars(found))


def _found(path: Path, content: Any) -> SimpleNamespace | list[SimpleNamespace]:
    """Return one graph, or several, from any of the forms in use."""
    if isinstance(content, tuple) and 2 <= len(content) <= 3 and not _is_graph(content[1]):
        data: Any = content[0]  # of an InMemoryDataset, with its class since version 2.4
        slices: Any = content[1]
        whole = data if isinstance(data, SimpleNamespace) else SimpleNamespace(**data)
        return whole if slices is None else _parts(path, vars(whole), slices)
    if _is_graph(content):
        graph: Any = content
        return graph if isinstance(graph, SimpleNamespace) else SimpleNamespace(**graph)
    if isinstance(content, list | tuple) and content and all(map(_is_graph, content)):
        return [g if isinstance(g, SimpleNamespace) else SimpleNamespace(**g) for g in content]
    what = f"a list of {len(content)}" if isinstance(content, list | tuple) else f"a {type(content).__name__}"
    raise DataError(
        f"{path} holds {what}, expected a Data of PyTorch Geometric with edge_index, or a list of them"
    )


def _is_graph(value: Any) -> bool:
    fields: Any = value if isinstance(value, Mapping) else getattr(value, "__dict__", {})
    return np.ndim(fields.get("edge_index")) == 2 and all(isinstance(key, str) for key in fields)


def _parts(path: Path, whole: Mapping[str, Any], slices: Any) -> list[SimpleNamespace]:
    """Split a collated dataset into its graphs: graph ``i`` begins at ``slices[name][i]``."""
    if not isinstance(slices, Mapping) or "edge_index" not in slices:
        raise DataError(f"{path} holds a dataset without the places where its graphs begin")
    count = len(slices["edge_index"]) - 1
    graphs: list[dict[str, Any]] = [{} for _ in range(count)]
    for name, array in whole.items():
        if name not in slices or not isinstance(array, np.ndarray):
            continue
        axis = -1 if name == "edge_index" else 0
        places = np.asarray(slices[name])
        size = array.shape[axis] if array.ndim else 0
        whole_numbers = places.dtype.kind in "iu" and places.shape == (count + 1,)
        rising = whole_numbers and (np.diff(places.astype(np.int64)) >= 0).all()
        if not rising or places[0] < 0 or places[-1] > size:
            raise DataError(f"{path}: the places of {name} do not rise from 0 to {size}")
        for i in range(count):
            part = slice(int(places[i]), int(places[i + 1]))
            graphs[i][name] = array[:, part] if axis == -1 else array[part]
    sizes = whole.get("num_nodes")
    for i, graph in enumerate(graphs):
        if "x" not in graph and isinstance(sizes, list) and len(sizes) == count:
            graph["num_nodes"] = sizes[i]
    return [SimpleNamespace(**graph) for graph in graphs]


def _labels(path: Path, fields: Mapping[str, Any], options: Options) -> tuple[str, Any]:
    name = options.label or "y"
    if fields.get(name) is None:
        raise DataError(
            f"{path} has no {name}, the labels: it has {', '.join(map(str, fields))}; "
            "name them with label= (--label-column)"
        )
    return name, fields[name]


def _one(path: Path, name: str, options: Options, fields: dict[str, Any]) -> Found:
    label, y = _labels(path, fields, options)
    pair, x = np.asarray(fields["edge_index"]), fields.get("x")
    if pair.ndim != 2 or pair.shape[0] != 2 or pair.dtype.kind not in "iu":
        raise DataError(f"{path}: edge_index is {pair.dtype} {pair.shape}, expected integers [2, E]")
    size = len(x) if x is not None else fields.get("num_nodes")
    size = len(y) if size is None else int(size)
    if np.size(y) == 1 and size > 1:
        raise DataError(f"{path} holds one graph of {size} nodes with one label: save a list of graphs")
    used = {label, "x", "edge_index", "edge_weight", "edge_attr", "num_nodes"}
    masks = masks_in(fields, used)
    draft = Draft(name, str(path), options, y, masks)
    for part, mask in masks.items():
        if np.ndim(mask) == 2 and mask.shape[1] > 1:
            draft.notes.append(f"{part}_mask has {mask.shape[1]} columns: the first is read")
            masks[part] = mask[:, 0]
    weights, attributes = (
        None if fields.get(k) is None else np.asarray(fields[k]) for k in ("edge_weight", "edge_attr")
    )
    for k, array in (("edge_weight", weights), ("edge_attr", attributes)):
        if array is not None and array.shape[:1] != (pair.shape[1],):
            raise DataError(f"{path}: {k} has shape {array.shape}, for {pair.shape[1]} edges")
    edges = edge_data(weights, attributes)
    if isinstance(edges, dict):
        draft.notes.append("edge_attr is kept as edges['feature'], which most networks do not read")
    if rest := [str(key) for key in fields if key not in used]:
        draft.notes.append(f"fields left out: {', '.join(rest)}")
    return node_task(draft, pair[0], pair[1], size, x=x, edges=edges)


def _many(path: Path, name: str, options: Options, graphs: Sequence[SimpleNamespace]) -> Found:
    label, _ = _labels(path, vars(graphs[0]), options)
    if label != "y":
        for i, graph in enumerate(graphs):
            if getattr(graph, label, None) is None:
                raise DataError(f"{path}: graph {i} lacks {label}")
            graph.y = getattr(graph, label)
    try:
        joined = joined_pyg(graphs)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    g: Any = joined.graphs
    draft = Draft(name, str(path), options, joined.labels)
    known = {label, "y", "x", "edge_index", "edge_weight", "edge_attr", "num_nodes"}
    if rest := [key for key in vars(graphs[0]) if key not in known]:
        draft.notes.append(f"fields left out: {', '.join(map(str, rest))}")
    return graph_task(draft, g.senders, g.receivers, g.n_node, g.n_edge, x=g.nodes, edges=g.edges)
