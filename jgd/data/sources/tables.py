"""Graphs in folders of tables, and tables of features.

A folder of one graph::

    nodes.csv   id, label, one column a feature, optionally split
    edges.csv   source, target, optionally weight

A folder of a set of graphs has ``graphs.csv`` too::

    graphs.csv  id, label, optionally split
    nodes.csv   id, graph, one column a feature
    edges.csv   source, target, optionally weight

A table of examples, ``NAME.csv``, has a column of labels, one column a feature, and optionally ``split``.

* Names of columns are read in any case; their order does not matter. ``id`` is any text, each once (in a set
  of graphs, once in each graph; edges of a graph whose ids others have too need a column ``graph``).
* ``label`` may also be called ``y``, ``class`` or ``target``, or have the name in the option ``label``. Words
  and numbers are classes, numbers with fractions are regression targets; an empty cell is unknown.
* ``split`` holds train, val (valid, validation) or test; a row with an empty cell is in none.
* Other columns of nodes are features: numbers unchanged, texts as one indicator for each value.
* ``source`` and ``target`` may be called from and to, or src and dst; else they are the first two columns.
  Every line is one edge from source to target: a file that lists an undirected edge once needs the option
  ``undirected``. Columns of edges other than ``weight`` are left out.
* `jgd.data.sources.columns` describes how cells are written.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jgd.data.sources.assemble import (
    Draft,
    Found,
    Options,
    array_task,
    graph_task,
    node_task,
    splits_of,
    weights_of,
)
from jgd.data.sources.columns import Columns, find, labels_of, read_csv
from jgd.data.storage import DataError

__all__ = ["read_feature_table", "read_graph_tables"]

_SOURCES, _TARGETS = ("source", "from", "src"), ("target", "to", "dst")


def _dropped(table: Columns, options: Options) -> Columns:
    """Return the table without the columns that the options ignore."""
    return table.without([name for name in options.ignore if name in table.values])


def _check_ignored(options: Options, *tables: Columns) -> None:
    for name in options.ignore:
        if not any(name in table.values for table in tables):
            raise DataError(
                f"{tables[0].path} has no column {name!r} to ignore: it has {', '.join(tables[0].values)}"
            )


def read_feature_table(path: Path, name: str, options: Options) -> Found:
    """Read a table of examples, see the module."""
    table = read_csv(path, text=("split",))
    _check_ignored(options, table)
    table = _dropped(table, options)
    label, y = labels_of(table, options.label)
    used, masks = splits_of(table)
    draft = Draft(name, str(path), options, y, masks)
    rest = table.without([label, *used])
    for column in rest.values:
        if column.lower() == "id":
            rest = rest.without([column])
            draft.notes.append(f"column {column} left out: it names the rows")
            break
    return array_task(draft, rest, table.size)


def read_graph_tables(folder: Path, name: str, options: Options) -> Found:
    """Read a folder of ``nodes.csv`` and ``edges.csv``, and ``graphs.csv`` of a set; see the module."""
    for file in ("nodes.csv", "edges.csv"):
        if not (folder / file).is_file():
            raise DataError(f"{folder / file} is missing: a folder of tables has nodes.csv and edges.csv")
    several = (folder / "graphs.csv").is_file()
    nodes = read_csv(folder / "nodes.csv", text=("id", "split", *(("graph",) if several else ())))
    edges = _read_edges(folder / "edges.csv", several)
    if several:
        return _several(folder, name, options, nodes, edges)
    _check_ignored(options, nodes, edges)
    nodes = _dropped(nodes, options)
    identity = find(nodes, ("id",), "the names of nodes")
    number = _numbered(nodes, nodes.values[identity].tolist(), identity)
    label, y = labels_of(nodes, options.label)
    used, masks = splits_of(nodes)
    draft = Draft(name, str(folder), options, y, masks)
    ends, rest = _ends(edges)
    senders, receivers = (_looked_up(edges, edges.values[end], number, end, nodes.path) for end in ends)
    weights = weights_of(draft, edges, rest)
    x = nodes.without([identity, label, *used])
    return node_task(draft, senders, receivers, nodes.size, x=x if x.values else None, edges=weights)


def _several(folder: Path, name: str, options: Options, nodes: Columns, edges: Columns) -> Found:
    graphs = read_csv(folder / "graphs.csv", text=("id", "split"))
    _check_ignored(options, graphs, nodes, edges)
    graphs, nodes = _dropped(graphs, options), _dropped(nodes, options)
    identity = find(graphs, ("id",), "the names of graphs")
    graph_number = _numbered(graphs, graphs.values[identity].tolist(), identity)
    label, y = labels_of(graphs, options.label)
    used, masks = splits_of(graphs)
    draft = Draft(name, str(folder), options, y, masks)
    if extra := [c for c in graphs.values if c not in (identity, label, *used)]:
        draft.notes.append(f"columns of graphs.csv left out: {', '.join(extra)}")
    own, home = find(nodes, ("id",), "the names of nodes"), find(nodes, ("graph",), "the graph of each node")
    owner = _looked_up(nodes, nodes.values[home], graph_number, home, graphs.path)
    pairs = list(zip(owner.tolist(), nodes.values[own].tolist(), strict=True))
    _numbered(nodes, [node for _, node in pairs], own, among=pairs)
    order = np.argsort(owner, kind="stable")
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    number = {pair: int(position[row]) for row, pair in enumerate(pairs)}
    ends, rest = _ends(edges)
    homes = [c for c in rest if c.lower() == "graph"]
    if homes:
        where = _looked_up(edges, edges.values[homes[0]], graph_number, homes[0], graphs.path).tolist()
        rest = [c for c in rest if c != homes[0]]
        keys = [list(zip(where, edges.values[end].tolist(), strict=True)) for end in ends]
    else:
        alone: dict[str, int] = {}
        for graph, node in pairs:
            if alone.setdefault(node, graph) != graph:
                raise DataError(
                    f"{nodes.path}: several graphs have a node {node!r}: give edges.csv a column graph"
                )
        keys = [[(alone.get(n, -1), n) for n in edges.values[end].tolist()] for end in ends]
    senders, receivers = (
        _looked_up(edges, np.fromiter(k, object, len(k)), number, end, nodes.path)
        for k, end in zip(keys, ends, strict=True)
    )
    owner = owner[order]
    across = owner[senders] != owner[receivers]
    if across.any():
        raise DataError(f"{edges.at(across.argmax())}: the edge joins nodes of two graphs")
    by_graph = np.argsort(owner[senders], kind="stable")
    weights = weights_of(draft, edges, rest)
    features = nodes.without([own, home])
    sorted_values = {column: values[order] for column, values in features.values.items()}
    rows = Columns(nodes.path, sorted_values, lambda i: nodes.where(int(order[i])), nodes.size)
    count = len(graph_number)
    n_node = np.bincount(owner, minlength=count)
    if (n_node == 0).any():
        raise DataError(f"{graphs.at((n_node == 0).argmax())}: the graph has no nodes in nodes.csv")
    return graph_task(
        draft,
        senders[by_graph],
        receivers[by_graph],
        n_node,
        np.bincount(owner[senders], minlength=count),
        x=rows if rows.values else None,
        edges=None if weights is None else weights[by_graph],
    )


def _read_edges(path: Path, several: bool) -> Columns:
    """Read edges, whose two ends are text, whatever the names of the columns."""
    graph = ("graph",) if several else ()
    table = read_csv(path, text=(*_SOURCES, *_TARGETS, *graph), empty=True)
    ends, _ = _ends(table)
    if all(table.values[end].dtype == object for end in ends):
        return table
    return read_csv(path, text=(*(end.lower() for end in ends), *graph), empty=True)


def _ends(table: Columns) -> tuple[list[str], list[str]]:
    """Return the columns of the two ends of an edge, and the others."""
    by_name = {name.lower(): name for name in table.values}
    ends = [next((by_name[n] for n in names if n in by_name), None) for names in (_SOURCES, _TARGETS)]
    columns = list(table.values)
    if None in ends:
        if any(ends) or len(columns) < 2:
            raise DataError(
                f"{table.path} has the columns {', '.join(columns)}: edges need source and target"
            )
        ends = columns[:2]
    found = [end for end in ends if end is not None]
    return found, [c for c in columns if c not in found]


def _numbered(table: Columns, keys: list, column: str, among: list | None = None) -> dict:
    """Return the row of each key; every row must have its own key."""
    number: dict = {}
    for row, key in enumerate(keys if among is None else among):
        if keys[row] is None:
            raise DataError(f"{table.at(row)}: {column} is empty")
        if (first := number.setdefault(key, row)) != row:
            raise DataError(f"{table.at(row)}: {column} {keys[row]!r} is also that of {table.where(first)}")
    return number


def _looked_up(table: Columns, keys: np.ndarray, number: dict, column: str, other: Path) -> np.ndarray:
    """Return the numbers of ids."""
    found = np.asarray([number.get(key, -1) for key in keys.tolist()], np.int64)
    if (found < 0).any():
        row = int((found < 0).argmax())
        key = keys[row][1] if isinstance(keys[row], tuple) else keys[row]
        what = f"{column} is empty" if key is None else f"{column} {key!r} is no id of {other.name}"
        raise DataError(f"{table.at(row)}: {what}")
    return found
