"""Coarsening against brute force, closed forms and what theory promises."""

from dataclasses import replace

import jax
import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
from condense_toy import INDUCTIVE, TASK, elsewhere, same
from hypothesis import given, settings
from hypothesis import strategies as st

from jgd.condense._coarsening import (
    AffinityGS,
    AlgebraicJC,
    HeavyEdge,
    Kron,
    VariationCliques,
    VariationEdges,
    VariationNeighborhoods,
    cliques,
    edges,
    greedy_contraction,
    grouping,
    kron_reduction,
    labelled_groups,
    local_variation,
    neighborhoods,
)
from jgd.data import NodeTask, Training
from jgd.graph import adjacency, from_edges
from jgd.graph.spectral import eigenpairs, laplacian

# Contractions come near a size, not always to it; that this is said is tested in test_condenser.py.
pytestmark = pytest.mark.filterwarnings("ignore:.* was asked for")

close = np.testing.assert_allclose
KEY = jax.random.key(3)
CONTRACTIONS = {
    "neighborhoods": VariationNeighborhoods(),
    "edges": VariationEdges(),
    "cliques": VariationCliques(),
    "heavy": HeavyEdge(),
    "algebraic": AlgebraicJC(),
    "affinity": AffinityGS(),
}
ALL = CONTRACTIONS | {"kron": Kron()}


def sparse(graph):
    return sp.csr_array(nx.to_scipy_sparse_array(graph, dtype=float))


def connected(seed, size, extra):
    """A random tree with further edges of random weight."""
    rng = np.random.default_rng(seed)
    w = np.zeros((size, size))
    for i in range(1, size):
        w[i, rng.integers(i)] = rng.uniform(0.5, 2)
    for _ in range(extra):
        i, j = rng.choice(size, 2, replace=False)
        w[max(i, j), min(i, j)] = rng.uniform(0.5, 2)
    return sp.csr_array(w + w.T)


def reduced(recipe, w, target, seed=0):
    return recipe.reduce(w, target, recipe.signals(w), np.random.default_rng(seed))


# --- the pieces -----------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 6))
def test_local_variation(seed, size):
    """The formula with dense matrices; for an edge it is ``(d_i + d_j) |a_i - a_j|^2 / 2``."""
    rng = np.random.default_rng(seed)
    w, a = connected(seed, 9, 8), rng.standard_normal((9, 4))
    dense = w.toarray()
    d = dense.sum(1)
    s = rng.choice(9, size, replace=False)
    inside = dense[np.ix_(s, s)]
    center = np.eye(size) - np.ones((size, size)) / size
    lap = np.diag(2 * d[s] - inside @ np.ones(size)) - inside
    form = (center @ a[s]).T @ lap @ (center @ a[s])
    i, j = edges(w)[0]
    found = local_variation(w, a)([s, np.asarray([i, j])])
    close(found[0], np.linalg.norm(form) / (size - 1), rtol=1e-9)
    close(found[1], (d[i] + d[j]) * np.sum((a[i] - a[j]) ** 2) / 2, rtol=1e-9)


def test_families():
    graph = nx.Graph([(0, 1), (1, 2), (0, 2), (2, 3)])
    w = sparse(graph)
    assert {tuple(s) for s in edges(w)} == {(0, 1), (0, 2), (1, 2), (2, 3)}
    assert [set(s) for s in neighborhoods(w)] == [{0, 1, 2}, {0, 1, 2}, {0, 1, 2, 3}, {2, 3}]
    assert [list(c) for c in cliques(w)] == [[0, 1, 2], [2, 3]]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12))
def test_greedy_contraction(seed, most):
    """The same sets as a slow version that sorts all candidates anew in every step."""
    rng = np.random.default_rng(seed)
    w, a = connected(seed, 12, 8), rng.standard_normal((12, 3))
    cost, sets = local_variation(w, a), neighborhoods(w)
    found = greedy_contraction(sets, cost, 12, most)
    left, free, expected, budget = [list(s) for s in sets], set(range(12)), [], most
    while left and budget:
        costs = [float(cost([np.asarray(s)])[0]) for s in left]
        s = left.pop(int(np.argmin(costs)))
        rest = [i for i in s if i in free]
        if len(rest) == len(s):
            if len(s) - 1 <= budget:
                expected.append(s)
                free -= set(s)
                budget -= len(s) - 1
        elif len(rest) > 1:
            left.append(rest)
    assert [sorted(s) for s in found] == [sorted(s) for s in expected]
    assert sum(len(s) - 1 for s in found) <= most
    together = np.concatenate(found) if found else np.zeros(0, int)
    assert len(set(together)) == len(together)
    assert greedy_contraction([], cost, 12, most) == []


def test_grouping():
    p = grouping([np.asarray([4, 1]), np.asarray([2, 5, 3])], 7)
    dense = p.toarray()
    close(dense @ dense.T, np.eye(4), atol=1e-12)
    close((dense**2).sum(1), 1)
    assert [list(np.flatnonzero(r)) for r in dense] == [[0], [1, 4], [2, 3, 5], [6]]


# --- contraction of a connected graph ---------------------------------------------------------------


@pytest.mark.parametrize("name", CONTRACTIONS)
@pytest.mark.parametrize("keep", [0.7, 0.25])
def test_contraction(name, keep):
    """Check 5: orthonormal rows, constants stay, the number asked for, sums of weights between groups."""
    w = connected(1, 80, 90)
    target = int(np.ceil(keep * 80))
    p, small = reduced(CONTRACTIONS[name], w, target)
    dense, members = p.toarray(), (p.toarray() != 0).astype(float)
    close(dense @ dense.T, np.eye(len(dense)), atol=1e-12)
    close((dense**2) @ np.ones(80), 1)
    close(members.sum(0), 1)
    largest = members.sum(1).max()
    assert target <= len(dense) <= target + largest
    assert len(dense) < 80
    between = members @ w.toarray() @ members.T
    np.fill_diagonal(between, 0)
    close(small.toarray(), between, atol=1e-12)
    close(laplacian(small).toarray(), members @ laplacian(w).toarray() @ members.T, atol=1e-9)
    if name in ("edges", "cliques", "heavy", "algebraic", "affinity"):
        graph = nx.from_scipy_sparse_array(w)
        assert all(nx.is_connected(graph.subgraph(np.flatnonzero(m).tolist())) for m in members)


def error(recipe, w, keep, k=6):
    """How much of the Laplacian form of the leading eigenvectors a coarsening loses, at worst."""
    values, u = eigenpairs(laplacian(w), k)
    p, _ = reduced(recipe, w, int(np.ceil(keep * w.shape[0])))
    lost = u - (p.toarray() != 0).T @ (p.toarray() ** 2 @ u)
    lost = lost[:, 1:] / np.sqrt(values[1:])
    return np.sqrt(np.linalg.eigvalsh(lost.T @ laplacian(w).toarray() @ lost).max())


def ring_of_cliques():
    return sparse(nx.ring_of_cliques(12, 6))


def test_spectral_error_falls_with_the_nodes_kept():
    grid = sparse(nx.grid_2d_graph(9, 11))
    for name in ("neighborhoods", "edges", "cliques"):
        errors = [error(CONTRACTIONS[name], grid, keep) for keep in (0.2, 0.5, 0.9, 1.0)]
        assert errors[0] > errors[1] > errors[2] > errors[3], (name, errors)
        assert errors[3] < 1e-12


def test_local_variation_keeps_smooth_signals():
    """Where every clique of a ring is to become one node, the cost finds them; edges in any order don't."""
    w = ring_of_cliques()
    for name in ("neighborhoods", "cliques", "edges"):
        p, _ = reduced(CONTRACTIONS[name], w, 24)
        groups = (p.toarray() != 0) @ np.eye(12)[np.arange(72) // 6]
        assert ((groups > 0).sum(1) == 1).mean() > 0.8, name
    arbitrary = np.mean([_matched(w, seed) for seed in range(5)])
    assert error(CONTRACTIONS["edges"], w, 0.5) < 0.5 * arbitrary


def _matched(w, seed):
    class Shuffled(VariationEdges):
        def measure(self, w, signals, rng):
            return lambda sets: np.random.default_rng(seed).random(len(sets))

    return error(Shuffled(), w, 0.5)


@pytest.mark.parametrize("name", ["algebraic", "affinity"])
def test_smoothed_test_vectors_tell_bridges(name):
    """Edges between cliques cost more than those within."""
    w = ring_of_cliques()
    recipe = replace(CONTRACTIONS[name], sweeps=5)
    sets = edges(w)
    bridge = np.asarray([i // 6 != j // 6 for i, j in sets])
    ranks = []
    for seed in range(4):
        cost = recipe.measure(w, recipe.signals(w), np.random.default_rng(seed))(sets)
        ranks.append((cost[bridge][:, None] > cost[~bridge]).mean())
    assert np.mean(ranks) > 0.85


def test_algebraic_distance():
    """One vector, one sweep, by hand."""
    w = connected(2, 12, 6)
    recipe = AlgebraicJC(vectors=2, sweeps=2)
    x = np.random.default_rng(9).standard_normal((12, 2)) / np.sqrt(12)
    walk = w.toarray() / w.toarray().sum(1, keepdims=True)
    x = np.linalg.matrix_power((np.eye(12) + walk) / 2, 2) @ x
    expected = [np.max((x[i] - x[j]) ** 2) for i, j in edges(w)]
    close(recipe.measure(w, recipe.signals(w), np.random.default_rng(9))(edges(w)), expected, rtol=1e-9)


def test_affinity():
    w = connected(2, 12, 6)
    lap = laplacian(w).toarray()
    x = np.random.default_rng(9).standard_normal((12, 10)) / np.sqrt(12)
    x = np.linalg.solve(np.tril(lap), -np.triu(lap, 1) @ x)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    c = np.where(w.toarray() > 0, (unit @ unit.T) ** 2, 0)
    expected = [-c[i, j] / max(c[i].max(), c[j].max()) for i, j in edges(w)]
    close(AffinityGS().measure(w, None, np.random.default_rng(9))(edges(w)), expected, rtol=1e-9)


def test_heavy_edges():
    w = connected(4, 12, 6)
    dense = w.toarray()
    expected = [-dense[i, j] / max(dense[i].max(), dense[j].max()) for i, j in edges(w)]
    close(HeavyEdge().measure(w, None, None)(edges(w)), expected, rtol=1e-9)


# --- Kron -----------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 9))
def test_kron_reduction(seed, count):
    """The dense Schur complement; effective resistances between the nodes that stay are the same."""
    w = connected(seed, 10, 7)
    keep = np.sort(np.random.default_rng(seed).choice(10, count, replace=False))
    small = kron_reduction(w, keep)
    lap, gone = laplacian(w).toarray(), np.setdiff1d(np.arange(10), keep)
    schur = lap[np.ix_(keep, keep)] - lap[np.ix_(keep, gone)] @ np.linalg.solve(
        lap[np.ix_(gone, gone)], lap[np.ix_(gone, keep)]
    )
    close(laplacian(small).toarray(), schur, atol=1e-9)
    before, after = np.linalg.pinv(lap), np.linalg.pinv(laplacian(small).toarray())

    def resistance(m, i, j):
        return m[i, i] + m[j, j] - 2 * m[i, j]

    close(resistance(after, 0, count - 1), resistance(before, keep[0], keep[-1]), rtol=1e-6)


def test_kron_keeps_one_side_of_a_bipartite_graph():
    p, small = reduced(Kron(), sparse(nx.cycle_graph(20)), 10)
    kept = p.toarray().argmax(1)
    assert set(kept % 2) in ({0}, {1})
    close(small.toarray(), nx.to_numpy_array(nx.cycle_graph(10)) / 2, atol=1e-9)  # two steps in series
    p, small = reduced(Kron(), sparse(nx.cycle_graph(40)), 7)
    assert p.shape == (7, 40)
    close(p.toarray() @ p.toarray().T, np.eye(7))


# --- labels ---------------------------------------------------------------------------------------


def test_labelled_groups():
    members = sp.csr_array(
        np.asarray(
            [
                [1, 1, 0, 0, 0, 0, 0, 0.0],  # classes 1, 1
                [0, 0, 1, 1, 1, 0, 0, 0],  # classes 0, 0, 2
                [0, 0, 0, 0, 0, 1, 0, 0],  # not for training
                [0, 0, 0, 0, 0, 0, 1, 1],  # class 0 and one not for training
            ]
        )
    )
    labels = np.asarray([1, 1, 0, 0, 2, 1, 0, 2])
    train = np.asarray([1, 1, 1, 1, 1, 0, 1, 0], bool)
    groups, classes = labelled_groups(members, labels, train, 4)
    # Class 2 has no group of its own and gets the one it shares; class 3 has no nodes.
    np.testing.assert_array_equal(groups, [3, 0, 1])
    np.testing.assert_array_equal(classes, [0, 1, 2])
    alone = np.asarray([1, 1, 0, 0, 1, 0, 1, 0], bool)
    groups, classes = labelled_groups(members, labels, alone, 4)
    np.testing.assert_array_equal(classes, [0, 1, 2])
    mixed = labels.copy()
    mixed[4] = 1  # class 1 has a group of its own: the mixed one is dropped
    np.testing.assert_array_equal(labelled_groups(members, mixed, train, 4)[0], [3, 0])


# --- recipes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", ["scaled", "means"])
@pytest.mark.parametrize("name", CONTRACTIONS)
def test_condensed(name, features):
    """One level by brute force: features, weights between groups, and labels of pure groups."""
    small = replace(CONTRACTIONS[name], nodes=20, levels=1, features=features)(KEY, TASK)
    assign, n = small.extras["assign"], len(small.targets)
    w = adjacency(TASK.graph).toarray()
    members = [np.flatnonzero(assign == k) for k in range(n)]
    power = 0.5 if features == "scaled" else 1.0
    close(
        small.data.nodes,
        [TASK.graph.nodes[m].sum(0) / len(m) ** power for m in members],
        rtol=1e-4,
        atol=1e-5,
    )
    between = [[0 if a is b else w[np.ix_(a, b)].sum() for b in members] for a in members]
    close(adjacency(small.data).toarray(), between, atol=1e-5)
    assert small.training == Training(adjacency="raw", targets="classes")
    assert (np.diff(small.targets) >= 0).all()
    seen = [set(TASK.labels[m[TASK.train[m]]]) for m in members]
    assert all(c in s for c, s in zip(small.targets, seen, strict=True))
    assert sum(len(s) > 1 for s in seen) <= 2  # only to rescue a class
    assert set(small.targets) == {0, 1, 2}


@pytest.mark.parametrize("name", ALL)
def test_size(name):
    """Near the number asked for; with all labelled nodes, the graph between them."""
    for nodes in (12, 20, 30):
        small = replace(ALL[name], nodes=nodes)(KEY, TASK)
        assert abs(len(small.targets) - nodes) <= 2, len(small.targets)
        assert 0 < small.extras["keep"] < 1
    full = replace(ALL[name], label_ratio=1.0)(KEY, TASK)
    index = np.flatnonzero(TASK.train)
    index = index[np.argsort(TASK.labels[index], kind="stable")]
    np.testing.assert_array_equal(full.targets, TASK.labels[index])
    close(full.data.nodes, TASK.graph.nodes[index])
    np.testing.assert_array_equal(
        adjacency(full.data).toarray(), adjacency(TASK.graph).toarray()[np.ix_(index, index)]
    )
    assert full.extras["keep"] == 1
    some = replace(ALL[name], keep=0.5)(KEY, TASK)
    assert some.extras["keep"] == 0.5
    assert some.provenance["config"]["keep"] == 0.5


@pytest.mark.filterwarnings("ignore:.* no labelled training examples")
@pytest.mark.parametrize("name", ALL)
def test_inductive_and_absent_classes(name):
    recipe = replace(ALL[name], nodes=14)
    small = recipe(KEY, INDUCTIVE)
    same(small, recipe(KEY, elsewhere(INDUCTIVE, np.asarray(INDUCTIVE.train))))
    assert INDUCTIVE.train[small.extras["assign"] >= 0].all()
    task = replace(TASK, train=TASK.train & (TASK.labels != 1))
    assert set(recipe(KEY, task).targets) <= {0, 2}


def test_components():
    """Small components stay as they are; those without training nodes have no part."""
    graph = nx.disjoint_union_all([nx.cycle_graph(30), nx.path_graph(4), nx.cycle_graph(20)])
    ends = np.asarray(graph.edges()).T
    x = np.random.default_rng(0).standard_normal((54, 2)).astype(np.float32)
    task = NodeTask(
        graph=from_edges(np.append(ends[0], ends[1]), np.append(ends[1], ends[0]), x),
        labels=(np.arange(54) >= 15).astype(np.int32),
        train=np.arange(54) < 34,
        num_classes=2,
    )
    for recipe in (VariationNeighborhoods(keep=0.4), Kron(keep=0.4)):
        assign = recipe(KEY, task).extras["assign"]
        assert len(set(assign[30:34])) == 4
        assert (assign[30:34] >= 0).all()
        assert (assign[34:] == -1).all()
        assert len(set(assign[:30]) - {-1}) <= 12


def test_errors():
    for options, message in (
        ({"keep": 0.0}, "keep must be in"),
        ({"keep": 1.1}, "keep must be in"),
        ({"levels": 0}, "levels must be at least 1"),
        ({"subspace": 0}, "subspace must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            VariationEdges(**options)
    with pytest.raises(ValueError, match="impossible"):
        VariationEdges(nodes=1000)(KEY, TASK)
    negative = TASK.graph._replace(edges=-np.ones(len(TASK.graph.senders), np.float32))
    with pytest.raises(ValueError, match="negative edge weights"):
        VariationEdges()(KEY, replace(TASK, graph=negative))
