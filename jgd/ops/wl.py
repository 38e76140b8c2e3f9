"""Weisfeiler–Leman colours and the trees that they represent.

Weisfeiler and Leman (1968); Shervashidze et al., "Weisfeiler-Lehman graph kernels", JMLR 2011.

Colour refinement is ``c_0(v) = code of v`` and ``c_t(v) = (code of v, {{(code of uv, c_{t-1}(u)) : u ->
v}})``. Two nodes have the same colour after ``t`` rounds exactly if their computation trees of depth ``t``
are isomorphic: the tree with root ``v`` whose children are *all* nodes that send to ``v`` (including the
parent of ``v``), and so on. So a colour is a tree, and the dictionary of the refinement, `Trees`, holds each
distinct tree once, as a node code and a multiset of (edge code, smaller tree); `unfold` writes trees out in
full.

Everything is exact (no hashing that could collide) and runs on the host.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jraph
import numpy as np
from jaxtyping import Int, Integer

__all__ = ["Forest", "Trees", "unfold", "wl_colors"]

_EMPTY = np.zeros(0, np.int64)
_KEY = ">i4"  # big-endian bytes sort as numbers do


@dataclass(frozen=True)
class Trees:
    """Distinct rooted trees by number (a host object, not a pytree).

    Tree ``i`` has the root ``code[i]`` and the subtrees ``child[indptr[i]:indptr[i + 1]]`` (numbers below
    ``i``) over edges ``edge[...]``, ascending by edge and subtree.

    Attributes:
      nodes: Data of each node code: the ``nodes`` of the graphs, with one row for each code.
      edges: Data of each edge code; None where edges have no data.
      code: ``[T]`` node code of the root.
      indptr: ``[T + 1]`` first child of each tree.
      child: ``[M]`` subtrees.
      edge: ``[M]`` code of the edge to each subtree.
      size: ``[T]`` number of nodes of each tree.
      index: Number of a tree by ``(code, edge, child, edge, child, ...)`` as bytes.
    """

    nodes: Any = None
    edges: Any = None
    code: Int[np.ndarray, " T"] = field(default_factory=lambda: _EMPTY)
    indptr: Int[np.ndarray, " T1"] = field(default_factory=lambda: np.zeros(1, np.int64))
    child: Int[np.ndarray, " M"] = field(default_factory=lambda: _EMPTY)
    edge: Int[np.ndarray, " M"] = field(default_factory=lambda: _EMPTY)
    size: Int[np.ndarray, " T"] = field(default_factory=lambda: _EMPTY)
    index: dict[bytes, int] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.code)


class Forest(NamedTuple):
    """Trees written out, one after another; in each, parents come before children.

    Attributes:
      code: ``[N]`` node codes.
      parent: ``[N]`` position of the parent, -1 for roots.
      edge: ``[N]`` code of the edge to the parent, -1 for roots.
      n_node: ``[K]`` nodes of each tree.
    """

    code: Int[np.ndarray, " N"]
    parent: Int[np.ndarray, " N"]
    edge: Int[np.ndarray, " N"]
    n_node: Int[np.ndarray, " K"]


# --- codes of attributes --------------------------------------------------------------------------


def _row_bytes(data: Any, rows: int) -> np.ndarray:
    """Return all data of each node (or edge) as one string of bytes ``[rows]``."""
    parts = []
    for leaf in map(np.asarray, jax.tree.leaves(data)):
        if len(leaf) != rows:
            raise ValueError(f"data of shape {leaf.shape} do not belong to {rows} nodes or edges")
        if np.issubdtype(leaf.dtype, np.floating):
            leaf = leaf + 0  # no negative zeros
        width = leaf.dtype.itemsize * math.prod(leaf.shape[1:])
        parts.append(np.frombuffer(np.ascontiguousarray(leaf).tobytes(), np.uint8).reshape(rows, width))
    joined = np.concatenate([np.zeros((rows, 1), np.uint8), *parts], axis=1)  # never without bytes
    return joined.view(f"V{joined.shape[1]}")[:, 0]


def _encode(data: Any, rows: int, known: Any) -> tuple[np.ndarray, Any]:
    """Return the code of each row, and one row of data for each code; known codes stay."""
    described = (
        jax.tree.structure(data),
        [(a.shape[1:], a.dtype) for a in map(np.asarray, jax.tree.leaves(data))],
    )
    if known is not None:
        expected = jax.tree.structure(known), [(a.shape[1:], a.dtype) for a in jax.tree.leaves(known)]
        if described != expected:
            raise ValueError(f"the table is of graphs with data {expected}, these have {described}")
    old = 0 if known is None else len(jax.tree.leaves(known)[0])
    keys = _row_bytes(data, rows)
    values, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    number = {} if known is None else {k.tobytes(): i for i, k in enumerate(_row_bytes(known, old))}
    before = len(number)
    fresh = [i for i, value in enumerate(values) if value.tobytes() not in number]
    number |= {values[i].tobytes(): before + j for j, i in enumerate(fresh)}
    codes = np.asarray([number[value.tobytes()] for value in values], np.int64)
    added = jax.tree.map(lambda x: np.asarray(x)[first[fresh]], data)
    merged = added if known is None else jax.tree.map(lambda a, b: np.concatenate([a, b]), known, added)
    return codes[inverse.reshape(-1)] if rows else _EMPTY, merged


# --- refinement -----------------------------------------------------------------------------------


def _joined(graphs: jraph.GraphsTuple | Sequence[jraph.GraphsTuple]) -> jraph.GraphsTuple:
    if isinstance(graphs, jraph.GraphsTuple):
        return graphs
    if not graphs:
        raise ValueError("give at least one graph")
    return jraph.batch_np(graphs)


def wl_colors(
    graphs: jraph.GraphsTuple | Sequence[jraph.GraphsTuple], depth: int, table: Trees | None = None
) -> tuple[Trees, Int[np.ndarray, "depth1 N"]]:
    """Compute Weisfeiler–Leman colours of all nodes after ``0..depth`` rounds.

    Messages go from senders to receivers, as in networks; list an undirected edge both ways. Repeated edges
    count as often as they occur. Attributes are the content of ``nodes`` and ``edges`` (arrays, dicts of
    arrays, or None), compared bit by bit: with continuous ones almost every node has its own colour, so
    quantise them first.

    Args:
      graphs: Graphs, joined or in a sequence.
      depth: Number of rounds; 0 uses the attributes alone.
      table: Known trees, which keep their numbers; it is not changed.

    Returns:
      The trees, and the number of the tree of each node after each round. Numbers depend on the set of trees
      alone, not on the order of nodes, edges or graphs. A tree has the same number in every round, so a node
      without senders keeps its colour.
    """
    if depth < 0:
        raise ValueError(f"depth must not be negative, got {depth}")
    graph = _joined(graphs)
    size = int(np.sum(graph.n_node))
    senders, receivers = np.asarray(graph.senders), np.asarray(graph.receivers)
    table = Trees() if table is None else table
    if len(table) and (table.nodes is None) != (graph.nodes is None):
        raise ValueError("the table and the graphs must both have node attributes, or neither")
    if len(table.child) and len(senders) and (table.edges is None) != (graph.edges is None):
        raise ValueError("the table and the graphs must both have edge attributes, or neither")
    codes, nodes = _encode(graph.nodes, size, table.nodes)
    links, edges = _encode(graph.edges, len(senders), table.edges)

    grown = _Growing(table)
    degree = np.bincount(receivers, minlength=size)
    start = np.cumsum(degree) - degree
    none = np.zeros(size, np.int64)
    colors = [grown.number(codes, none, _EMPTY, _EMPTY)]
    for _ in range(depth):
        children = colors[-1][senders]
        order = np.lexsort((children, links, receivers))
        colors.append(grown.number(codes, degree, links[order], children[order], start))
    return grown.finish(nodes, edges), np.stack(colors)


class _Growing:
    """Table to which trees are added."""

    def __init__(self, table: Trees):
        self.index = dict(table.index)
        self.table = table
        self.keys: list[bytes] = []

    def number(self, codes, degree, links, children, start=None) -> np.ndarray:
        """Return numbers of the trees with these roots and (sorted) children; add new ones, sorted."""
        header = np.arange(len(codes)) + 2 * (np.cumsum(degree) - degree)
        words = np.empty(len(codes) + 2 * len(links), _KEY)
        words[header] = codes
        if start is not None:
            within = np.arange(len(links)) - np.repeat(start, degree)
            at = np.repeat(header, degree) + 1 + 2 * within
            words[at], words[at + 1] = links, children
        raw, ends = words.tobytes(), 4 * np.append(header[1:], len(words))
        begins = 4 * header
        keys = [raw[a:b] for a, b in zip(begins.tolist(), ends.tolist(), strict=True)]
        index = self.index
        fresh = sorted({key for key in keys if key not in index}, key=lambda key: (len(key), key))
        for key in fresh:
            index[key] = len(index)
        self.keys += fresh
        return np.asarray([index[key] for key in keys], np.int64)

    def finish(self, nodes, edges) -> Trees:
        """Return the table with the added trees."""
        old = self.table
        counts = np.asarray([len(key) // 8 for key in self.keys], np.int64)
        words = np.frombuffer(b"".join(self.keys), _KEY).astype(np.int64)
        header = np.arange(len(counts)) + 2 * (np.cumsum(counts) - counts)
        pairs = np.delete(words, header).reshape(-1, 2)
        code = np.concatenate([old.code, words[header]])
        indptr = np.concatenate([old.indptr, old.indptr[-1] + np.cumsum(counts)])
        child, edge = (np.concatenate([a, b]) for a, b in ((old.child, pairs[:, 1]), (old.edge, pairs[:, 0])))
        sizes = old.size.tolist()
        for i in range(len(old), len(code)):  # children come first
            sizes.append(1 + sum(sizes[j] for j in child[indptr[i] : indptr[i + 1]]))
        return Trees(nodes, edges, code, indptr, child, edge, np.asarray(sizes, np.int64), self.index)


# --- decoding -------------------------------------------------------------------------------------


def unfold(table: Trees, ids: Integer[np.ndarray, " K"] | Sequence[Any]) -> Forest:
    """Write trees out in full, one after another.

    Args:
      table: Trees.
      ids: Numbers of the trees to write out, in any order, repeated or not.

    Raises:
      ValueError: If numbers are not in the table.
    """
    ids = np.asarray(ids, np.int64).reshape(-1)
    if ids.size and not (ids.min() >= 0 and ids.max() < len(table)):
        raise ValueError(f"trees are numbered 0..{len(table) - 1}, got {ids.min()}..{ids.max()}")
    tree, parent, edge = np.arange(len(ids)), np.full(len(ids), -1), np.full(len(ids), -1)
    levels, first = [], 0
    while len(ids):
        levels.append((ids, tree, parent, edge))
        begin, count = table.indptr[ids], np.diff(table.indptr)[ids]
        at = np.repeat(begin - (np.cumsum(count) - count), count) + np.arange(int(count.sum()))
        parent = np.repeat(first + np.arange(len(ids)), count)
        first += len(ids)
        tree, edge, ids = np.repeat(tree, count), table.edge[at], table.child[at]
    if not levels:
        return Forest(_EMPTY, _EMPTY, _EMPTY, _EMPTY)
    which, tree, parent, edge = (np.concatenate(column) for column in zip(*levels, strict=True))
    order = np.argsort(tree, kind="stable")  # from levels of all trees to whole trees
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    moved = np.where(parent >= 0, position[parent], -1)
    return Forest(table.code[which][order], moved[order], edge[order], np.bincount(tree))
