"""Graphs in exchange formats: GraphML, and the node-link JSON of NetworkX and D3.

Attributes of nodes have the roles of columns of ``nodes.csv`` (see `jgd.data.sources.tables`): a label,
``split`` or ``train_mask`` ..., and features; in JSON a feature may be a list of numbers. The ``weight`` of
edges is read. An undirected edge becomes one in each direction. A document with a DOCTYPE or entities is
refused, because they can refer to other files and expand without bound.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.parsers import expat

import numpy as np

from jgd.data.sources.assemble import Draft, Found, Options, node_task, splits_of, weights_of
from jgd.data.sources.columns import Columns, labels_of, numbers_or_text, read_text, reading_own
from jgd.data.storage import DataError

__all__ = ["read_graphml", "read_node_link"]


class _Edge(NamedTuple):
    source: Any
    target: Any
    directed: bool
    weight: Any
    where: str


def _task(
    path: Path,
    name: str,
    options: Options,
    ids: Sequence[Any],
    attributes: Sequence[Mapping[str, Any]],
    where: Callable[[int], str],
    edges: Sequence[_Edge],
    notes: list[str],
) -> Found:
    """Make a task of nodes with attributes and edges between them."""
    number: dict[Any, int] = {}
    for row, node in enumerate(ids):
        if (first := number.setdefault(node, row)) != row:
            raise DataError(f"{path}, {where(row)}: id {node!r} is also that of {where(first)}")
    if not number:
        raise DataError(f"{path} holds no nodes")
    table, vectors = _table(path, attributes, where)
    for ignored in options.ignore:
        if ignored not in table.values and ignored not in vectors:
            raise DataError(f"{path} has no attribute {ignored!r} to ignore")
        vectors.pop(ignored, None)
    table = table.without(options.ignore)
    if options.label in vectors:
        label, y = str(options.label), vectors.pop(str(options.label))
    else:
        label, y = labels_of(table, options.label)
    used, masks = splits_of(table)
    draft = Draft(name, str(path), options, y, masks, notes)
    ends = []
    for edge in edges:
        for what, end in (("source", edge.source), ("target", edge.target)):
            if end not in number:
                raise DataError(f"{path}, {edge.where}: {what} {end!r} is no id of a node")
        ends.append((number[edge.source], number[edge.target]))
    pairs = np.asarray(ends, np.int64).reshape(-1, 2)
    weights = None
    if any(edge.weight is not None for edge in edges):
        column = numbers_or_text([1.0 if edge.weight is None else edge.weight for edge in edges])
        held = Columns(path, {"weight": column}, lambda i: edges[i].where, len(edges))
        weights = weights_of(draft, held, ["weight"])
    back = np.flatnonzero([not e.directed and e.source != e.target for e in edges]).astype(np.int64)
    senders, receivers = (np.append(pairs[:, i], pairs[back, 1 - i]) for i in (0, 1))
    weights = None if weights is None else np.append(weights, weights[back])
    table = table.without([label, *used])
    blocks: list[Any] = [*([table] if table.values else []), *vectors.values()]
    return node_task(draft, senders, receivers, len(ids), x=blocks or None, edges=weights)


def _table(
    path: Path, attributes: Sequence[Mapping[str, Any]], where: Callable[[int], str]
) -> tuple[Columns, dict[str, np.ndarray]]:
    """Return attributes as columns, and separately those that are lists of numbers."""
    columns: dict[str, np.ndarray] = {}
    vectors: dict[str, np.ndarray] = {}
    for name in dict.fromkeys(name for node in attributes for name in node):
        values = [node.get(name) for node in attributes]
        if not any(isinstance(value, list | dict) for value in values):
            columns[name] = numbers_or_text(values)
            continue
        width = next(len(value) for value in values if isinstance(value, list | dict))
        for row, value in enumerate(values):
            if not isinstance(value, list) or not all(isinstance(v, int | float) for v in value):
                raise DataError(
                    f"{path}, {where(row)}: {name} is no list of numbers, as that of other nodes is"
                )
            if len(value) != width:
                raise DataError(f"{path}, {where(row)}: {name} has {len(value)} numbers, others have {width}")
        vectors[name] = np.asarray(values, np.float64).reshape(len(values), width)
    return Columns(path, columns, where, len(attributes)), vectors


# Node-link JSON


def read_node_link(path: Path, name: str, options: Options) -> Found:
    """Read a graph that `networkx.node_link_data` wrote, with edges under ``edges`` or ``links``."""
    text = read_text(path)
    with reading_own(path):
        content = json.loads(text)
        links = None if not isinstance(content, dict) else content.get("links", content.get("edges"))
        nodes = content.get("nodes") if links is not None else None
        if not isinstance(nodes, list) or not isinstance(links, list):
            raise DataError(f"{path} is no node-link JSON: it needs lists under nodes, and links or edges")
        directed = content.get("directed", False) is True
        ids, attributes = [], []
        for i, node in enumerate(nodes):
            if not isinstance(node, dict) or not isinstance(node.get("id"), str | int | float):
                raise DataError(f"{path}, node {i}: it has no id of text or number")
            ids.append(node["id"])
            attributes.append({str(key): value for key, value in node.items() if key != "id"})
        edges = []
        for i, edge in enumerate(links):
            ends = [edge.get(end) for end in ("source", "target")] if isinstance(edge, dict) else [None]
            if not all(isinstance(end, str | int | float) for end in ends):
                raise DataError(f"{path}, edge {i}: it has no source and target of text or number")
            edges.append(_Edge(ends[0], ends[1], directed, edge.get("weight"), f"edge {i}"))
        notes = _left_out(
            name for edge in links for name in edge if name not in ("source", "target", "weight", "key")
        )
        return _task(path, name, options, ids, attributes, lambda i: f"node {i}", edges, notes)


def _left_out(names: Any) -> list[str]:
    others = list(dict.fromkeys(names))
    return (
        [f"attributes of edges left out: {', '.join(map(str, others))} (only weight is read)"]
        if others
        else []
    )


# GraphML


def read_graphml(path: Path, name: str, options: Options) -> Found:
    """Read a graph in GraphML: one graph without ports, hyperedges or graphs inside of nodes."""
    with reading_own(path):
        content = path.read_bytes()
        if not content.strip():
            raise DataError(f"{path} is empty")
        document = _Document(path)
        document.parse(content)
        notes = _left_out(document.others)
        lines = document.lines
        return _task(
            path,
            name,
            options,
            document.ids,
            document.nodes,
            lambda i: f"line {lines[i]}",
            document.edges,
            notes,
        )


class _Key(NamedTuple):
    about: str
    name: str
    kind: str


class _Document:
    """Content of a GraphML file, read element by element."""

    def __init__(self, path: Path):
        self.path = path
        self.keys: dict[str, _Key] = {}
        self.defaults: dict[str, dict[str, Any]] = {"node": {}, "edge": {}}
        self.ids: list[str] = []
        self.nodes: list[dict[str, Any]] = []
        self.lines: list[int] = []
        self.edges: list[_Edge] = []
        self.others: dict[str, None] = {}
        self.stack: list[str] = []
        self.directed = False
        self.graphs = 0
        self.key: str | None = None
        self.text: list[str] = []
        self.now: dict[str, Any] = {}
        self.ends: tuple[Any, Any, bool] = (None, None, False)
        self.lines_of_edge = 0
        self.parser = expat.ParserCreate(namespace_separator=" ")

    def fail(self, what: str) -> DataError:
        return DataError(f"{self.path}, line {self.parser.CurrentLineNumber}: {what}")

    def parse(self, content: bytes) -> None:
        """Read the document.

        Args:
          content: Bytes of the file.

        Raises:
          DataError: If the content is not GraphML; the message names the line.
        """

        def refuse(*_: Any) -> Any:
            raise self.fail("a DOCTYPE or entity is not allowed: remove it")

        parser = self.parser
        parser.StartDoctypeDeclHandler = refuse
        parser.EntityDeclHandler = refuse
        parser.ExternalEntityRefHandler = refuse
        parser.StartElementHandler = self.start
        parser.EndElementHandler = self.end
        parser.CharacterDataHandler = self.text.append
        try:
            parser.Parse(content, True)
        except expat.ExpatError as error:
            raise DataError(f"{self.path}, line {error.lineno}: {expat.ErrorString(error.code)}") from None
        if not self.graphs:
            raise DataError(f"{self.path} is no GraphML: it holds no graph")

    def need(self, attributes: Mapping[str, str], name: str, what: str) -> str:
        if name not in attributes:
            raise self.fail(f"<{what}> has no {name}")
        return attributes[name]

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        tag = tag.rpartition(" ")[2]
        self.text.clear()
        if not self.stack and tag != "graphml":
            raise self.fail(f"<{tag}> is no GraphML")
        if tag == "graph":
            self.graphs += 1
            if self.graphs > 1:
                raise self.fail("a second graph: one graph to a file, without graphs inside of nodes")
            self.directed = attributes.get("edgedefault") == "directed"
        elif tag == "hyperedge":
            raise self.fail("hyperedges are not read")
        elif tag == "key":
            self.key = self.need(attributes, "id", tag)
            self.keys[self.key] = _Key(
                attributes.get("for", "all"),
                attributes.get("attr.name", ""),
                attributes.get("attr.type", "string"),
            )
        elif tag == "data":
            self.key = self.need(attributes, "key", tag)
            if self.key not in self.keys:
                raise self.fail(f"there is no key {self.key!r}")
        elif tag == "node":
            self.now = {}
            self.ids.append(self.need(attributes, "id", tag))
            self.lines.append(self.parser.CurrentLineNumber)
        elif tag == "edge":
            self.now = {}
            directed = {"true": True, "false": False}.get(attributes.get("directed", ""), self.directed)
            self.ends = (self.need(attributes, "source", tag), self.need(attributes, "target", tag), directed)
            self.lines_of_edge = self.parser.CurrentLineNumber
        self.stack.append(tag)

    def end(self, tag: str) -> None:
        tag = self.stack.pop()
        if tag == "default" and self.key is not None and self.keys[self.key].name:
            key = self.keys[self.key]
            for about in ("node", "edge"):
                if key.about in (about, "all"):
                    self.defaults[about][key.name] = self.value(key)
        elif tag == "data" and self.key is not None and self.stack[-1] in ("node", "edge"):
            key = self.keys[self.key]
            if key.name:  # others, such as those of yEd, hold drawings
                self.now[key.name] = self.value(key)
        elif tag == "node":
            self.nodes.append({**self.defaults["node"], **self.now})
        elif tag == "edge":
            found = {**self.defaults["edge"], **self.now}
            self.others |= dict.fromkeys(name for name in found if name != "weight")
            source, target, directed = self.ends
            where = f"line {self.lines_of_edge}"
            self.edges.append(_Edge(source, target, directed, found.get("weight"), where))

    def value(self, key: _Key) -> Any:
        text = "".join(self.text).strip()
        self.text.clear()
        if key.kind in ("int", "long", "float", "double", "integer"):
            try:
                return float(text)
            except ValueError:
                raise self.fail(f"{key.name} is {text[:40]!r}, expected a number") from None
        if key.kind == "boolean":
            if text.lower() not in ("true", "false", "1", "0"):
                raise self.fail(f"{key.name} is {text[:40]!r}, expected true or false")
            return text.lower() in ("true", "1")
        return text
