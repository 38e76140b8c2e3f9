r"""Coarsening: contract sets of nodes into super-nodes, without learning and without looking at labels.

Loukas, "Graph reduction with spectral and cut guarantees", JMLR 2019, and the multigrid heuristics it is
compared with; as condensers Huang et al., "Scaling up graph neural networks via graph coarsening", KDD 2021.

The one idea: a coarsening of a connected graph is good if the Laplacian form ``|x|_L = (xᵀ L x)^½`` of smooth
signals survives it. One greedy algorithm serves all methods but the last; they differ in the sets that may be
contracted and in what a set costs:

==========================  ================================  ==============================================
method                      candidate sets                    cost
==========================  ================================  ==============================================
`VariationNeighborhoods`    closed neighbourhoods             local variation (below)
`VariationEdges`            edges                             local variation
`VariationCliques`          maximal cliques                   local variation
`HeavyEdge`                 edges                             -w_ij / max(w_i·, w_j·)
`AlgebraicJC`               edges                             max_k (x_k,i - x_k,j)², x_k smoothed by Jacobi
`AffinityGS`                edges                             -c_ij / max(c_i·, c_j·),
                                                              c_ij = <x_i, x_j>² / (|x_i|² |x_j|²), x smoothed
                                                              by Gauss and Seidel
`Kron`                      no sets: half of the nodes are eliminated by a Schur complement
==========================  ================================  ==============================================

Contraction of one connected component with weights W and Laplacian L to ``n`` nodes, at most ten levels:

1. signals    B = U Λ^{-½} from the K smallest eigenpairs of L (zero for the constant); on later levels the
              means of B in the super-nodes.  A = B (Bᵀ L B)^{-½}
2. cost       of a set S with s nodes: |(Π A_S)ᵀ L_S (Π A_S)|_F / (s - 1), with Π = I - 11ᵀ / s and
              L_S = diag(2 d_S - W_S 1) - W_S: how much of the smooth signals contracting S would lose
3. greedily   take the cheapest set; contract it if it is disjoint from what was contracted and does not
              reduce too much; else drop its contracted nodes and queue the rest with its own cost
4. coarse     P has 1/√s on the members of a group, M = [P ≠ 0];  W <- M W Mᵀ without its diagonal

The condensed features are P X (which grow with the super-node: ``features="means"`` takes the means of the
members instead), edges M W Mᵀ. A super-node whose training nodes are of one class takes
that label; one that mixes classes is no training example. Only labelled super-nodes are returned, with the
edges between them.

What can't be promised. How many labelled super-nodes come out is known only afterwards, so the share of nodes
that each component keeps is searched (bisection) for the number asked for; the result comes near it, seldom
exactly, and a method may have no share with so many. A class all of whose nodes were mixed with others
gets back the super-node in which its share is largest; if other classes took those, it is missing. `Kron`
may lose a class with all its training nodes.

Departures from the authors' code. Signals of later levels are means, which is what L and M W Mᵀ belong to;
theirs are scaled by √s. Affinity is Livne and Brandt's; theirs squares the norms twice and multiplies the
maxima. Distances of test vectors are not cut off at 1e-6, which would tie most of them. Equal costs are
decided by the key instead of by node number (in many datasets training nodes come first). A level ends the
search only when it contracts nothing (theirs: at most two nodes). Components of at most ten nodes are kept as
they are where they hold training nodes; theirs drop out. The condensation benchmarks' own "Kron" contracts
arbitrary edges; here it is the Kron reduction.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import jax
import networkx as nx
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Bool, Float, Int
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu, spsolve_triangular

from jgd.condense.common import condensed_nodes, condenser, dense_features, official, size_of, training_part
from jgd.core import Loop, in_memory
from jgd.data import Condensed, NodeTask
from jgd.graph import adjacency
from jgd.graph.spectral import eigenpairs, laplacian
from jgd.registry import Entry

__all__ = [
    "AffinityGS",
    "AlgebraicJC",
    "HeavyEdge",
    "Kron",
    "VariationCliques",
    "VariationEdges",
    "VariationNeighborhoods",
    "cliques",
    "edges",
    "greedy_contraction",
    "grouping",
    "kron_reduction",
    "labelled_groups",
    "local_variation",
    "neighborhoods",
]

Sparse: TypeAlias = Any  # a SciPy CSR array, of which its types know too little
Nodes: TypeAlias = np.ndarray  # the numbers of some nodes
Features: TypeAlias = Literal["scaled", "means"]
Cost: TypeAlias = Callable[[Sequence[Nodes]], np.ndarray]  # of each of several sets

_SMALL = 10  # components of at most so many nodes are left as they are
_TRIALS = 10  # steps of the bisection


# --- sets that may be contracted ------------------------------------------------------------------


def edges(w: Sparse) -> list[Nodes]:
    """Return both ends of each edge."""
    upper = sp.coo_array(sp.triu(w, 1))
    return list(np.stack([upper.row, upper.col], axis=1))


def neighborhoods(w: Sparse) -> list[Nodes]:
    """Return each node with its neighbours."""
    rows = np.split(w.indices, w.indptr[1:-1])
    return [np.append(i, row[row != i]) for i, row in enumerate(rows)]


def cliques(w: Sparse) -> list[Nodes]:
    """Return maximal sets of nodes that are all neighbours."""
    found = nx.find_cliques(nx.from_scipy_sparse_array(w))
    return [np.asarray(c) for c in sorted(sorted(c) for c in found)]


# --- what contracting a set costs -----------------------------------------------------------------


def local_variation(w: Sparse, signals: Float[np.ndarray, "n K"]) -> Cost:
    """Return the cost ``|(Π A_S)ᵀ L_S (Π A_S)|_F / (s - 1)`` of contracting a set of nodes (step 2).

    Args:
      w: Weights between the nodes.
      signals: ``A``; their span is what should survive.
    """
    degree = np.asarray(w.sum(axis=1)).ravel()
    place = np.full(w.shape[0], -1)

    def cost(s: Nodes) -> float:
        place[s] = np.arange(len(s))
        spans = [np.arange(*w.indptr[i : i + 2]) for i in s]
        at = np.concatenate(spans)
        rows, cols = np.repeat(np.arange(len(s)), [len(span) for span in spans]), place[w.indices[at]]
        kept = cols >= 0
        inside = np.zeros((len(s), len(s)))
        inside[rows[kept], cols[kept]] = w.data[at[kept]]
        place[s] = -1
        b = signals[s] - signals[s].mean(axis=0)
        form = b.T @ ((2 * degree[s] - inside.sum(axis=1))[:, None] * b - inside @ b)
        return float(np.linalg.norm(form)) / (len(s) - 1)

    return lambda sets: np.asarray([cost(s) for s in sets])


def _on_edges(w: Sparse, closeness: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Cost:
    """Return the cost ``-c_ij / max(c_i·, c_j·)`` of edges, from ``c`` between the ends of edges."""
    coo = w.tocoo()
    most = np.zeros(w.shape[0])
    np.maximum.at(most, coo.row, closeness(coo.row, coo.col))

    def cost(sets: Sequence[Nodes]) -> np.ndarray:
        i, j = np.stack(sets).T
        return -closeness(i, j) / np.maximum(np.maximum(most[i], most[j]), 1e-300)

    return cost


def _test_vectors(w: Sparse, count: int, rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((w.shape[0], count)) / np.sqrt(w.shape[0])


# --- contraction ----------------------------------------------------------------------------------


def greedy_contraction(sets: Sequence[Nodes], cost: Cost, size: int, reduce: int) -> list[Nodes]:
    """Return disjoint sets of nodes to contract, the cheapest first (step 3).

    Args:
      sets: Candidates with at least two nodes each; among equally cheap ones the first wins.
      cost: Cost of several sets, computed again for what is left of a candidate.
      size: Number of nodes.
      reduce: Largest number of nodes that may disappear.
    """
    if not sets:
        return []
    queue = [(c, i, s) for i, (c, s) in enumerate(zip(cost(sets).tolist(), sets, strict=True))]
    heapq.heapify(queue)
    free, chosen = np.ones(size, bool), []
    while queue and reduce > 0:
        _, i, s = heapq.heappop(queue)
        rest = s[free[s]]
        if len(rest) < len(s):
            if len(rest) > 1:
                heapq.heappush(queue, (float(cost([rest])[0]), i, rest))
        elif len(s) - 1 <= reduce:
            free[s] = False
            chosen.append(s)
            reduce -= len(s) - 1
    return chosen


def grouping(sets: Sequence[Nodes], size: int) -> Sparse:
    """Return the matrix ``P`` with ``1/√s`` on the members of each group; nodes in no set are groups of one.

    Its rows are orthonormal. Groups come in the order of their first members.
    """
    head = np.arange(size)
    for s in sets:
        head[s] = np.min(s)
    _, group = np.unique(head, return_inverse=True)
    values = np.bincount(group)[group] ** -0.5
    return sp.csr_array((values, (group, np.arange(size))), shape=(int(group.max()) + 1, size))


def _members(p: Sparse) -> Sparse:
    return sp.csr_array((np.ones_like(p.data), p.indices, p.indptr), shape=p.shape)


def _without_diagonal(w: Any) -> Sparse:
    coo = sp.coo_array(w)
    off = (coo.row != coo.col) & (coo.data > 0)
    return sp.csr_array((coo.data[off], (coo.row[off], coo.col[off])), shape=coo.shape)


def kron_reduction(w: Sparse, keep: Int[np.ndarray, " n"]) -> Sparse:
    """Return weights of the Schur complement ``L_11 - L_12 L_22^-1 L_21`` of the Laplacian on ``keep``.

    Every component needs a node to keep. Effective resistances between the nodes that stay do not change.
    """
    gone = np.setdiff1d(np.arange(w.shape[0]), keep)
    lap = laplacian(w)
    kept = lap[keep][:, keep].toarray()
    if len(gone):
        across = lap[gone][:, keep].toarray()
        kept = kept - across.T @ splu(sp.csc_array(lap[gone][:, gone])).solve(across)
    weights = -(kept + kept.T) / 2
    weights[weights < 1e-12 * np.abs(weights).max(initial=0.0)] = 0  # rounding
    return _without_diagonal(weights)


# --- recipes --------------------------------------------------------------------------------------


def labelled_groups(
    members: Sparse, labels: Int[np.ndarray, " N"], train: Bool[np.ndarray, " N"], num_classes: int
) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " m"]]:
    """Return groups that stand for a class, and the class of each, in order of the class number.

    They are the groups whose training nodes are of one class; and, for each class without any, the group in
    which its share of the training nodes is largest (the one with more nodes among equals).

    Args:
      members: ``[n, N]`` of zeros and ones.
      labels: Classes of the nodes; only those of training nodes are read.
      train: Mask of the training nodes.
      num_classes: Number of classes.
    """
    index = np.flatnonzero(train)
    counts = np.zeros((members.shape[0], num_classes))
    for c in np.unique(labels[index]):
        counts[:, c] = members @ (train & (labels == c)).astype(float)
    total = counts.sum(axis=1)
    pure = (counts > 0).sum(axis=1) == 1
    classes = np.where(pure, counts.argmax(axis=1), -1)
    for c in np.setdiff1d(labels[index], classes):
        open_to = np.flatnonzero((classes < 0) & (counts[:, c] > 0))
        if len(open_to):
            share = counts[open_to, c] / total[open_to]
            classes[open_to[np.lexsort((counts[open_to, c], share))[-1]]] = c
    groups = np.flatnonzero(classes >= 0)
    groups = groups[np.argsort(classes[groups], kind="stable")]
    return groups, classes[groups]


@dataclass(frozen=True)
class _Coarsening:
    """Coarsen every component, then keep the labelled super-nodes."""

    label_ratio: float | None = 0.5
    nodes: int | None = None
    keep: float | None = None
    features: Features = "scaled"

    def __post_init__(self):
        """Refuse impossible settings."""
        if self.features not in get_args(Features):
            raise ValueError(
                f"features must be one of {', '.join(get_args(Features))}, got {self.features!r}"
            )
        if self.keep is not None and not 0 < self.keep <= 1:
            raise ValueError(f"keep must be in (0, 1], got {self.keep}")
        for name in ("levels", "subspace", "vectors", "sweeps"):
            if getattr(self, name, 1) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def signals(self, w: Sparse) -> Float[np.ndarray, "n K"]:
        """Return what is computed once for a component, whatever it is reduced to."""
        return np.zeros((w.shape[0], 0))

    def reduce(
        self, w: Sparse, target: int, signals: np.ndarray, rng: np.random.Generator
    ) -> tuple[Sparse, Sparse]:
        """Return ``P`` and the coarse weights of a connected graph, with ``target`` nodes or few more."""
        raise TypeError(f"{type(self).__name__} does not say how it reduces")

    @condenser
    def __call__(self, key: Array, task: NodeTask, loop: Loop = in_memory) -> Condensed:
        """Condense a task."""
        del loop
        size = size_of(task, self.label_ratio if self.keep is None else 1.0, self.nodes)
        part = training_part(task)
        labels, train = np.asarray(part.labels), np.asarray(part.train)
        coarse = self._coarsener(np.asarray(jax.random.key_data(key)), part)

        def attempt(keep: float):
            p, w = coarse(keep)
            return keep, p, w, *labelled_groups(_members(p), labels, train, task.num_classes)

        best = attempt(1.0 if self.keep is None else self.keep)
        low, high = 0.0, 1.0
        for _ in range(_TRIALS):
            if self.keep is not None or len(best[-1]) == size:
                break
            found = attempt((low + high) / 2)
            low, high = (low, found[0]) if len(found[-1]) > size else (found[0], high)
            if abs(len(found[-1]) - size) < abs(len(best[-1]) - size):
                best = found
        keep, p, w, groups, classes = best
        members = _members(p)[groups].tocoo()
        assign = np.full(task.num_nodes, -1, np.int32)
        where = np.arange(task.num_nodes) if part is task else np.flatnonzero(np.asarray(task.train))
        assign[where[members.col]] = members.row
        return condensed_nodes(
            self,
            key,
            task,
            features=(p if self.features == "scaled" else p.power(2))[groups] @ dense_features(part),
            labels=classes,
            edges=w[groups][:, groups].toarray(),
            adjacency="raw",
            extras={"assign": assign, "keep": np.asarray(keep)},
        )

    def _coarsener(self, seed: np.ndarray, part: NodeTask):
        """Return a function from the share of nodes to keep to ``P`` and the coarse weights of the graph."""
        a: Any = adjacency(part.graph).astype(np.float64)
        if a.nnz and a.min() < 0:
            raise ValueError(f"task {part.name!r} has negative edge weights, which can't be coarsened")
        a = _without_diagonal((a + a.T) / 2)
        count, component = connected_components(a, directed=False)
        with_labels = np.bincount(component[np.asarray(part.train)], minlength=count) > 0
        pieces = []
        for c in np.flatnonzero(with_labels):
            index = np.flatnonzero(component == c)
            w = sp.csr_array(a[index][:, index])
            pieces.append((index, w, self.signals(w) if len(index) > _SMALL else None))

        def coarse(keep: float) -> tuple[Sparse, Sparse]:
            steps, weights = [], []
            for number, (_, w, signals) in enumerate(pieces):
                size = w.shape[0]
                target = max(1, int(np.ceil(keep * size)))
                if signals is None or target == size:
                    p = sp.csr_array(sp.eye_array(size))
                else:
                    p, w = self.reduce(w, target, signals, np.random.default_rng([*seed, number]))
                steps.append(p)
                weights.append(w)
            index = np.concatenate([index for index, *_ in pieces])
            p: Any = sp.block_diag(steps, format="coo")
            p = sp.csr_array((p.data, (p.row, index[p.col])), shape=(p.shape[0], part.num_nodes))
            return p, sp.csr_array(sp.block_diag(weights))

        return coarse


@dataclass(frozen=True)
class _Contraction(_Coarsening):
    """The greedy multilevel contraction, by default of edges."""

    levels: int = 10

    def family(self, w: Sparse) -> list[Nodes]:
        """Return sets that may be contracted."""
        return edges(w)

    def measure(self, w: Sparse, signals: np.ndarray, rng: np.random.Generator) -> Cost:
        """Return what contracting a set costs."""
        raise TypeError(f"{type(self).__name__} does not say what a set costs")

    def reduce(self, w, target, signals, rng):
        """Contract level by level."""
        p = sp.csr_array(sp.eye_array(w.shape[0]))
        for _ in range(self.levels):
            size = w.shape[0]
            if size <= target:
                break
            sets = self.family(w)
            sets = [sets[i] for i in rng.permutation(len(sets))]
            chosen = greedy_contraction(sets, self.measure(w, signals, rng), size, size - target)
            if not chosen:
                break
            step = grouping(chosen, size)
            members = _members(step)
            p, w = step @ p, _without_diagonal(members @ w @ members.T)
            signals = step.power(2) @ signals
        return p, w


@dataclass(frozen=True)
class _Variation(_Contraction):
    """Contraction of the sets that lose least of the smooth signals."""

    subspace: int = 10

    def signals(self, w):
        """Return ``U Λ^{-½}``, zero for the constant signal."""
        values, vectors = eigenpairs(laplacian(w), min(self.subspace, w.shape[0]))
        scale = np.maximum(values, 1e-12) ** -0.5
        scale[0] = 0  # the one constant signal of a connected graph
        return vectors * scale

    def measure(self, w, signals, rng):
        """Return the local variation of the signals, orthonormal in the Laplacian form."""
        del rng
        values, vectors = np.linalg.eigh(signals.T @ (laplacian(w) @ signals))
        small = values <= 1e-10 * values[-1]
        return local_variation(
            w, signals @ (vectors * np.where(small, 0, np.where(small, 1, values) ** -0.5))
        )


class VariationNeighborhoods(_Variation):
    """Contract closed neighbourhoods of least local variation (Loukas 2019).

    Attributes:
      label_ratio: Condensed nodes for each labelled node; the result comes near it.
      nodes: Number of condensed nodes, instead of the ratio.
      keep: Share of the nodes of each component to keep, in (0, 1], instead of both.
      features: ``"scaled"`` for P X, ``"means"`` for the means of the members.
      levels: Largest number of levels.
      subspace: ``K``, smooth signals that should survive.
    """

    def family(self, w):
        """Return closed neighbourhoods."""
        return neighborhoods(w)


class VariationEdges(_Variation):
    """Contract edges of least local variation (Loukas 2019).

    Attributes:
      label_ratio: Condensed nodes for each labelled node; the result comes near it.
      nodes: Number of condensed nodes, instead of the ratio.
      keep: Share of the nodes of each component to keep, in (0, 1], instead of both.
      features: ``"scaled"`` for P X, ``"means"`` for the means of the members.
      levels: Largest number of levels.
      subspace: ``K``, smooth signals that should survive.
    """


class VariationCliques(_Variation):
    """Contract maximal cliques of least local variation (Loukas 2019).

    Attributes:
      label_ratio: Condensed nodes for each labelled node; the result comes near it.
      nodes: Number of condensed nodes, instead of the ratio.
      keep: Share of the nodes of each component to keep, in (0, 1], instead of both.
      features: ``"scaled"`` for P X, ``"means"`` for the means of the members.
      levels: Largest number of levels.
      subspace: ``K``, smooth signals that should survive.
    """

    def family(self, w):
        """Return maximal cliques."""
        return cliques(w)


class HeavyEdge(_Contraction):
    """Contract edges that are heavy among those of both ends (Karypis and Kumar 1998; Dhillon et al. 2007).

    Attributes:
      label_ratio: Condensed nodes for each labelled node; the result comes near it.
      nodes: Number of condensed nodes, instead of the ratio.
      keep: Share of the nodes of each component to keep, in (0, 1], instead of both.
      features: ``"scaled"`` for P X, ``"means"`` for the means of the members.
      levels: Largest number of levels.
    """

    def measure(self, w, signals, rng):
        """Return minus the relative weight."""
        del signals, rng
        return _on_edges(w, lambda i, j: np.asarray(w[i, j]).ravel())


@dataclass(frozen=True)
class AlgebraicJC(_Contraction):
    """Contract edges whose ends agree on random signals smoothed by Jacobi (Ron, Safro and Brandt 2011).

    Attributes:
      label_ratio: Condensed nodes for each labelled node; the result comes near it.
      nodes: Number of condensed nodes, instead of the ratio.
      keep: Share of the nodes of each component to keep, in (0, 1], instead of both.
      features: ``"scaled"`` for P X, ``"means"`` for the means of the members.
      levels: Largest number of levels.
      vectors: Number of random signals.
      sweeps: Sweeps of the damped iteration ``x <- (x + D^-1 W x) / 2``.
    """

    vectors: int = 10
    sweeps: int = 20

    def measure(self, w, signals, rng):
        """Return the largest squared difference."""
        del signals
        x, degree = _test_vectors(w, self.vectors, rng), np.asarray(w.sum(axis=1))
        for _ in range(self.sweeps):
            x = (x + (w @ x) / degree[:, None]) / 2

        def cost(sets):
            i, j = np.stack(sets).T
            return np.max((x[i] - x[j]) ** 2, axis=1)

        return cost


@dataclass(frozen=True)
class AffinityGS(_Contraction):
    """Contract edges of high affinity on signals smoothed by Gauss-Seidel (Livne and Brandt 2012).

    Attributes:
      label_ratio: Condensed nodes for each labelled node; the result comes near it.
      nodes: Number of condensed nodes, instead of the ratio.
      keep: Share of the nodes of each component to keep, in (0, 1], instead of both.
      features: ``"scaled"`` for P X, ``"means"`` for the means of the members.
      levels: Largest number of levels.
      vectors: Number of random signals.
      sweeps: Sweeps of Gauss-Seidel on ``L x = 0``.
    """

    vectors: int = 10
    sweeps: int = 1

    def measure(self, w, signals, rng):
        """Return minus the relative affinity."""
        del signals
        x, lap = _test_vectors(w, self.vectors, rng), laplacian(w)
        lower, upper = sp.csr_array(sp.tril(lap)), sp.csr_array(sp.triu(lap, 1))
        for _ in range(self.sweeps):
            x = -spsolve_triangular(lower, upper @ x, lower=True)
        x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300)
        return _on_edges(w, lambda i, j: np.einsum("ek,ek->e", x[i], x[j]) ** 2)


class Kron(_Coarsening):
    """Keep the nodes where the largest Laplacian eigenvector is high, eliminate the others.

    Level by level half of the nodes go (fewer on the last), those below the others in the eigenvector of the
    largest eigenvalue; on a bipartite graph that is one of its two sides. What stays has its own features and
    labels, and the weights of the Schur complement (Kron reduction; Dörfler and Bullo 2013; Shuman et al.
    2016). Only paths within a component contribute.

    Attributes:
      label_ratio: Condensed nodes for each labelled node; the result comes near it.
      nodes: Number of condensed nodes, instead of the ratio.
      keep: Share of the nodes of each component to keep, in (0, 1], instead of both.
      features: ``"scaled"`` for P X, ``"means"`` for the means of the members.
    """

    def reduce(self, w, target, signals, rng):
        """Eliminate level by level."""
        del signals, rng
        size, kept = w.shape[0], np.arange(w.shape[0])
        while w.shape[0] > target:
            _, vectors = eigenpairs(laplacian(w), 1, "largest")
            count = max(w.shape[0] // 2, target)
            index = np.sort(np.argsort(-vectors[:, 0], kind="stable")[:count])
            w, kept = kron_reduction(w, index), kept[index]
        rows = np.arange(len(kept))
        return sp.csr_array((np.ones(len(kept)), (rows, kept)), shape=(len(kept), size)), w


ENTRIES = (
    Entry(
        "variation-neighborhoods",
        VariationNeighborhoods,
        "contraction of neighbourhoods that smooth signals do not miss",
        "Loukas 2019",
        ("nodes",),
        "seconds",
        official(VariationNeighborhoods),
    ),
    Entry(
        "variation-edges",
        VariationEdges,
        "contraction of edges that smooth signals do not miss",
        "Loukas 2019",
        ("nodes",),
        "seconds",
        official(VariationEdges),
    ),
    Entry(
        "variation-cliques",
        VariationCliques,
        "contraction of cliques that smooth signals do not miss",
        "Loukas 2019",
        ("nodes",),
        "seconds",
        official(VariationCliques),
    ),
    Entry(
        "heavy-edge",
        HeavyEdge,
        "contraction of relatively heavy edges",
        "Karypis & Kumar 1998",
        ("nodes",),
        "seconds",
        official(HeavyEdge),
    ),
    Entry(
        "algebraic-jc",
        AlgebraicJC,
        "contraction of edges whose ends agree on smoothed signals",
        "Ron et al. 2011",
        ("nodes",),
        "seconds",
        official(AlgebraicJC),
    ),
    Entry(
        "affinity-gs",
        AffinityGS,
        "contraction of edges of high affinity",
        "Livne & Brandt 2012",
        ("nodes",),
        "seconds",
        official(AffinityGS),
    ),
    Entry(
        "kron",
        Kron,
        "elimination of nodes by a Schur complement",
        "Dörfler & Bullo 2013",
        ("nodes",),
        "seconds",
        official(Kron),
    ),
)
