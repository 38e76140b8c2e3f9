"""Colours and trees against a recursive definition."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jgd.data import DataError
from jgd.data.tu import tu
from jgd.graph import from_edges, select_graphs
from jgd.ops import Trees, unfold, wl_colors

equal = np.testing.assert_array_equal


def graph(seed, nodes=None, directed=False):
    """A small random graph with node and edge codes; some repeated edges, some isolated nodes."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 9)) if nodes is None else nodes
    pairs = rng.integers(0, n, (int(rng.integers(0, 2 * n)), 2))
    codes = rng.integers(0, 2, len(pairs))
    if not directed:
        pairs, codes = np.concatenate([pairs, pairs[:, ::-1]]), np.tile(codes, 2)
    x = np.eye(2, dtype=np.float32)[rng.integers(0, 2, n)]
    return from_edges(pairs[:, 0], pairs[:, 1], x, {"code": codes.astype(np.int32)})


def canonical(g, v, depth):
    """The rooted labelled tree of ``v``, written so that isomorphic trees are equal (Aho et al.)."""
    below = [] if depth == 0 else np.flatnonzero(g.receivers == v)
    children = sorted((int(g.edges["code"][e]), canonical(g, g.senders[e], depth - 1)) for e in below)
    return (tuple(g.nodes[v].tolist()), tuple(children))


def same_partition(ids, forms):
    """Equal numbers exactly where forms are equal."""
    pairs = set(zip(ids, forms, strict=True))
    assert len(pairs) == len(set(ids)) == len(set(forms))


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_colors_are_isomorphism_classes(depth, directed):
    graphs = [graph(i, directed=directed) for i in range(40)]
    table, colors = wl_colors(graphs, depth)
    assert colors.shape == (depth + 1, sum(len(g.nodes) for g in graphs))
    for t in range(depth + 1):
        forms = [canonical(g, v, t) for g in graphs for v in range(len(g.nodes))]
        same_partition(colors[t].tolist(), forms)
    # One number for one tree, whatever the round.
    forms = [canonical(g, v, t) for t in range(depth + 1) for g in graphs for v in range(len(g.nodes))]
    same_partition(colors.reshape(-1).tolist(), forms)
    assert len(table) == len(set(forms))


def shuffled(g, seed):
    rng = np.random.default_rng(seed)
    to, order = rng.permutation(len(g.nodes)), rng.permutation(len(g.senders))
    nodes = np.empty_like(g.nodes)
    nodes[to] = g.nodes
    codes = {"code": g.edges["code"][order]}
    return from_edges(to[g.senders][order], to[g.receivers][order], nodes, codes), to


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_numbers_do_not_depend_on_order(seed):
    """The same numbers, not only the same partition, for nodes, edges and graphs in another order."""
    first, second = graph(seed), graph(seed + 1)
    (left, to), (right, _) = shuffled(first, seed), shuffled(second, seed)
    table, colors = wl_colors([first, second], 2)
    again, moved = wl_colors([right, left], 2)
    equal(moved[:, len(right.nodes) + to], colors[:, : len(to)])
    equal(np.sort(moved[:, : len(right.nodes)], 1), np.sort(colors[:, len(to) :], 1))
    for name in ("code", "indptr", "child", "edge", "size"):
        equal(getattr(again, name), getattr(table, name))


def test_an_edge_code_changes_what_it_can_reach():
    """Exactly the nodes whose trees hold the edge change, all of them within ``depth`` hops."""
    n = 12
    ring = np.arange(n)
    senders, receivers = np.append(ring, (ring + 1) % n), np.append((ring + 1) % n, ring)
    x = np.ones((n, 1), np.float32)
    codes = np.zeros(2 * n, np.int32)
    before = from_edges(senders, receivers, x, {"code": codes})
    codes = codes.copy()
    codes[[0, n]] = 1  # the edge between 0 and 1, both ways
    after = from_edges(senders, receivers, x, {"code": codes})
    for depth in (1, 2, 3):
        table, colors = wl_colors(before, depth)
        _, changed = wl_colors(after, depth, table)
        differs = changed[-1] != colors[-1]
        distance = np.minimum(np.minimum(ring, n - ring), np.minimum(abs(ring - 1), n - abs(ring - 1)))
        equal(differs, distance < depth)
        forms = [[canonical(g, v, depth) for v in ring] for g in (before, after)]
        equal(differs, [a != b for a, b in zip(*forms, strict=True)])


def rebuilt(table, forest, node):
    children = np.flatnonzero(forest.parent == node)
    below = sorted((int(table.edges["code"][forest.edge[c]]), rebuilt(table, forest, c)) for c in children)
    return (tuple(table.nodes[forest.code[node]].tolist()), tuple(below))


@pytest.mark.parametrize("directed", [False, True])
def test_trees_are_written_out(directed):
    g, depth = graph(3, nodes=7, directed=directed), 3
    table, colors = wl_colors(g, depth)
    forest = unfold(table, colors[-1])
    roots = np.cumsum(forest.n_node) - forest.n_node
    equal(np.flatnonzero(forest.parent < 0), roots)
    equal(forest.edge < 0, forest.parent < 0)
    inner = np.flatnonzero(forest.parent >= 0)
    assert (forest.parent[inner] < inner).all()
    for v, root in enumerate(roots):
        assert rebuilt(table, forest, root) == canonical(g, v, depth)
    # Any order, repeated: each tree is the same again.
    ids = colors[-1][[2, 2, 0]]
    some = unfold(table, ids)
    ends = np.cumsum(some.n_node)
    equal(some.code[: ends[0]], some.code[ends[0] : ends[1]])
    equal(some.code[ends[1] :], forest.code[: forest.n_node[0]])
    none = unfold(table, [])
    assert len(none.code) == len(none.n_node) == 0


@pytest.mark.parametrize("directed", [False, True])
def test_size_counts_walks(directed):
    """A tree of depth L has a node for every walk of at most L edges that ends at its root."""
    for seed in range(20):
        g = graph(seed, directed=directed)
        n = len(g.nodes)
        a = np.zeros((n, n))
        np.add.at(a, (g.receivers, g.senders), 1)
        table, colors = wl_colors(g, 3)
        walks, power = np.ones(n), np.ones(n)
        for _ in range(3):
            power = a @ power
            walks = walks + power
        equal(table.size[colors[-1]], walks)
        equal(unfold(table, colors[-1]).n_node, walks)


def test_a_table_grows():
    left, right = graph(1, nodes=8), graph(2, nodes=8)
    table, colors = wl_colors(left, 2)
    before = len(table), dict(table.index)
    bigger, more = wl_colors(right, 2, table)
    assert (len(table), table.index) == before
    equal(bigger.code[: len(table)], table.code)
    _, again = wl_colors(left, 2, bigger)
    equal(again, colors)
    both = [canonical(g, v, 2) for g in (left, right) for v in range(8)]
    same_partition(np.append(colors[-1], more[-1]).tolist(), both)
    same, _ = wl_colors([left, right], 2, bigger)
    assert len(same) == len(bigger)
    forest = unfold(bigger, more[-1])
    assert rebuilt(bigger, forest, 0) == canonical(right, 0, 2)


def test_attributes():
    """No attributes, vectors, dicts of several; two zeros are equal."""
    path = from_edges(np.asarray([0, 1, 1, 2]), np.asarray([1, 0, 2, 1]), num_nodes=3)
    table, colors = wl_colors(path, 2)
    assert table.nodes is None
    assert table.edges is None
    assert colors[-1][0] == colors[-1][2] != colors[-1][1]
    equal(table.size[colors[-1]], [4, 5, 4])
    x = np.asarray([[0.5, 0.0], [0.5, -0.0], [0.5, 1e-30]], np.float32)
    table, colors = wl_colors(path._replace(nodes=x), 0)
    assert colors[0][0] == colors[0][1] != colors[0][2]
    rich = path._replace(nodes={"x": x, "code": np.asarray([3, 3, 3])}, edges=np.asarray([1.0, 2, 2, 1]))
    table, colors = wl_colors(rich, 1)
    assert len(set(colors[1].tolist())) == 3
    forest = unfold(table, colors[1])
    equal(table.nodes["code"][forest.code], 3)
    equal(table.edges[forest.edge[forest.parent >= 0]], [2, 1, 1, 2])
    none = np.zeros(0, np.int32)
    alone, ids = wl_colors(from_edges(none, none, np.ones((2, 1), np.float32)), 3)
    assert len(alone) == 1
    equal(ids, 0)


def test_bad_input():
    g = graph(0, nodes=4)
    table, _ = wl_colors(g, 1)
    with pytest.raises(ValueError, match="negative"):
        wl_colors(g, -1)
    with pytest.raises(ValueError, match="at least one graph"):
        wl_colors([], 1)
    with pytest.raises(ValueError, match="the table is of graphs with data"):
        wl_colors(g._replace(nodes=np.ones((4, 3), np.float32)), 1, table)
    with pytest.raises(ValueError, match="both have node attributes"):
        wl_colors(g._replace(nodes=None), 1, table)
    with pytest.raises(ValueError, match="do not belong"):
        wl_colors(g._replace(nodes=np.ones((5, 2), np.float32)), 1)
    with pytest.raises(ValueError, match=r"numbered 0\.\."):
        unfold(table, [len(table)])
    assert dataclasses.is_dataclass(Trees)


@pytest.mark.parametrize("name", ["MUTAG", "NCI1"])
def test_real_molecules(name):
    """The partition that the recursive definition gives, on 40 graphs."""
    try:
        task = tu(name)
    except DataError as error:
        pytest.skip(str(error))
    graphs = select_graphs(task.graphs, np.arange(0, 160, 4))
    coded = graphs._replace(edges={"code": np.zeros(len(graphs.senders), np.int32)})
    table, colors = wl_colors(coded, 2)
    ones = [select_graphs(coded, np.asarray([i])) for i in range(40)]
    same_partition(colors[-1].tolist(), [canonical(g, v, 2) for g in ones for v in range(len(g.nodes))])
    degree = np.bincount(graphs.receivers, minlength=len(graphs.nodes))
    two = np.bincount(graphs.receivers, degree[graphs.senders], len(graphs.nodes))
    equal(table.size[colors[-1]], 1 + degree + two)
