r"""Mirage: a set of graphs is condensed to the computation trees that often occur together in a class.

Gupta, Manchanda, Kodamana and Ranu, "Mirage: Model-Agnostic Graph Distillation for Graph Classification",
ICLR 2024 (arXiv 2310.09486).

The one new idea: a network of ``L`` rounds of message passing sees a graph only as the multiset of the
computation trees of its nodes, and few such trees are frequent. So a class is replaced by the sets of trees
that many of its graphs share. No gradients, no network; of the model only ``L`` is used. It takes seconds.

1. trees       T_L(v): root v, below each node of depth < L *all* nodes that send to it; T_L(v) and T_L(u) are
               isomorphic exactly where the Weisfeiler–Leman colours c_L(v) = c_L(u) (`jgd.ops.wl_colors`)
2. transactions  S_i = { c_L(v) : v in graph i } (presence, not number), D_c = those of class c
3. patterns    all sets P of trees with supp_c(P) = #{i in D_c : P ⊆ S_i} >= θ_c (`jgd.ops.itemsets`)
4. decode      a pattern becomes a forest, the disjoint union of its trees with edges from child to parent;
               its class is c, its weight supp_c(P), and pooling reads the roots alone

Why it works: after ``L`` rounds the embedding of a root is that of every node with that tree, exactly, for
networks that sum or average over neighbours or attend to them (GIN, GraphSAGE, GAT; the last in graphs
without loops, because it counts a node and its loop as one). It is not for GCN, whose normalisation reads
degrees that the lowest leaves of a tree have lost. Attributes must be discrete:
continuous ones make almost every tree unique, and nothing is frequent.

Departures from the authors' code. There, the numbers of both classes' patterns stand beside each other, so
that the class with larger absolute supports dominates: here classes have equal weight
(``class_balanced=False`` is theirs). There, one variant draws as many patterns as there are, once, in
proportion to support, another takes all patterns once: here supports weigh the loss, which is what drawing
forever converges to (``EvalConfig(by_weight=True)`` draws, ``weights="uniform"`` is the other variant). One
variant drops patterns that are frequent in several classes: ``shared=False``. Trees are labelled by
refinement instead of sorted strings; the result is the same. A budget of nodes or bytes replaces the manual
search of thresholds.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby, islice
from typing import Any, Literal

import jax
import jraph
import numpy as np
from jaxtyping import Array, Bool

from jgd.condense.common import check_settings, condensed_graphs, condenser, official, training_graphs
from jgd.core import Loop, in_memory
from jgd.data import Condensed, GraphTask
from jgd.graph import select_graphs
from jgd.ops import Trees, itemsets_by_support, unfold, wl_colors
from jgd.registry import Entry

__all__ = ["OFFICIAL", "STUDENTS", "Mirage", "forest"]

Pattern = tuple[tuple[int, ...], int]
Weights = Literal["support", "uniform"]


def forest(table: Trees, patterns: Sequence[Any]) -> tuple[jraph.GraphsTuple, Bool[np.ndarray, " N"]]:
    """Return one graph for each set of trees: their disjoint union, edges from child to parent.

    Args:
      table: The trees.
      patterns: Numbers of the trees of each graph (a list of integers, or an array).

    Returns:
      The graphs, joined, with the data of nodes and edges that the table holds; and which nodes are roots.
    """
    sizes = np.asarray([len(p) for p in patterns], np.int64)
    whole = unfold(table, np.asarray([i for p in patterns for i in p], np.int64))
    root = whole.parent < 0
    ends = np.cumsum(sizes)
    tree_ends = np.append(0, np.cumsum(whole.n_node))
    n_node = np.diff(np.append(0, tree_ends[ends]))
    fields: dict[str, Any] = {
        "nodes": jax.tree.map(lambda x: x[whole.code], table.nodes),
        "edges": jax.tree.map(lambda x: x[whole.edge[~root]], table.edges),
        "senders": np.flatnonzero(~root).astype(np.int32),
        "receivers": whole.parent[~root].astype(np.int32),
        "n_node": n_node.astype(np.int32),
        "n_edge": (n_node - sizes).astype(np.int32),
        "globals": None,
    }
    return jraph.GraphsTuple(**fields), root


def _row_bytes(data: Any) -> int:
    return sum(np.asarray(x)[:1].nbytes for x in jax.tree.leaves(data))


@dataclass(frozen=True)
class Mirage:
    """Condense a graph task to its frequent sets of computation trees.

    Attributes:
      depth: ``L``, layers of message passing of the networks that will be trained.
      support: ``θ``, least share of the training graphs of a class that hold a pattern, in (0, 1]; one
        number, or one for each class.
      counts: Smallest numbers of graphs instead of shares; one, or one for each class.
      nodes: Largest number of nodes of all forests, which sets an equal share in all classes,
        instead.
      size_bytes: Largest number of bytes of the arrays that make up the forests, instead.
      max_patterns: Largest number of patterns of a class; the most frequent ones are kept.
      max_trees: Largest number of trees in a pattern; 1 for single trees, which is an ablation.
      weights: Weight of a pattern in the loss: its ``"support"``, or ``"uniform"``.
      class_balanced: Whether every class has the same total weight.
      shared: Whether to keep patterns that are frequent in several classes.
    """

    depth: int = 2
    support: float | tuple[float, ...] = 0.25
    counts: int | tuple[int, ...] | None = None
    nodes: int | None = None
    size_bytes: int | None = None
    max_patterns: int = 1000
    max_trees: int | None = None
    weights: Weights = "support"
    class_balanced: bool = True
    shared: bool = True

    def __post_init__(self):
        """Refuse impossible settings."""
        check_settings(
            self,
            at_least_one=("depth", "max_patterns", "max_trees", "nodes", "size_bytes"),
        )
        shares = self.support if isinstance(self.support, tuple) else (self.support,)
        if not all(0 < share <= 1 for share in shares):
            raise ValueError(f"support is a share in (0, 1], got {self.support}: say counts=... for numbers")
        counts = self.counts if isinstance(self.counts, tuple) else (self.counts,)
        if any(count is not None and count < 1 for count in counts):
            raise ValueError(f"counts must be at least 1, got {self.counts}")
        if sum(x is not None for x in (self.counts, self.nodes, self.size_bytes)) > 1:
            raise ValueError("say one of counts, nodes and size_bytes: each of them sets the thresholds")

    @condenser
    def __call__(self, key: Array, task: GraphTask, loop: Loop = in_memory) -> Condensed:
        """Condense a task. The key has no influence."""
        del loop
        index, labels = training_graphs(task)
        graphs = select_graphs(task.graphs, index)
        table, colors = wl_colors(graphs, self.depth)
        trees = np.split(colors[-1], np.cumsum(graphs.n_node)[:-1])
        classes = np.unique(labels).tolist()
        held = {c: [np.unique(trees[i]) for i in np.flatnonzero(labels == c)] for c in classes}
        if self.nodes is None and self.size_bytes is None:
            found = {c: self._at_threshold(held[c], c, task, table) for c in classes}
        else:
            found = self._within_budget(held, table)
        full = [c for c in classes if len(found[c]) == self.max_patterns]
        kept = found if self.shared else _unshared(found)
        for c in classes:
            if not kept[c]:
                remedies = "lower the support, raise the budget, keep shared patterns or quantise attributes"
                raise ValueError(f"no pattern is left for class {c} of task {task.name!r}: {remedies}")
        ordered = [(items, count, c) for c in classes for items, count in kept[c]]
        joined, root = forest(table, [items for items, _, _ in ordered])
        targets = np.asarray([c for _, _, c in ordered])
        weights = np.asarray(
            [count if self.weights == "support" else 1.0 for _, count, _ in ordered], np.float64
        )
        if self.class_balanced:
            weights = weights / np.bincount(targets, weights)[targets]
        return condensed_graphs(
            self,
            key,
            task,
            graphs=joined,
            labels=targets,
            weights=weights,
            extras={"root": root, "support": np.asarray([count for _, count, _ in ordered], np.int32)},
            record={
                "patterns": {str(c): len(kept[c]) for c in classes},
                "least_support": {str(c): min(count for _, count in kept[c]) for c in classes},
                "capped": [int(c) for c in full],
                "distinct_trees": len(np.unique(colors[-1])),
            },
        )

    def _mined(self, transactions: list[Any], least: int, table: Trees) -> Iterator[Pattern]:
        """Return patterns of one class by falling support; isolated nodes alone tell nothing."""
        mined = itemsets_by_support(transactions, least, max_items=self.max_trees)
        telling = (p for p in mined if table.size[list(p[0])].max() > 1)
        return islice(telling, self.max_patterns)

    def _at_threshold(self, transactions: list[Any], c: int, task: GraphTask, table: Trees) -> list[Pattern]:
        given: Any = self.support if self.counts is None else self.counts
        if isinstance(given, tuple):
            if len(given) != task.num_classes:
                raise ValueError(
                    f"{len(given)} thresholds for the {task.num_classes} classes of {task.name!r}"
                )
            given = given[c]
        # 0.3 * 10 is 3.0000000000000004 in some orders of rounding, and means 3
        least = given if self.counts is not None else int(np.ceil(given * len(transactions) - 1e-9))
        return list(self._mined(transactions, max(1, least), table))

    def _within_budget(self, held: dict[int, list[Any]], table: Trees) -> dict[int, list[Pattern]]:
        """Return patterns at the lowest common share whose forests fit."""
        cost = cache(self._cost(table))
        streams = [_by_share(self._mined(held[c], 1, table), len(held[c]), c) for c in held]
        found: dict[int, list[Pattern]] = {c: [] for c in held}
        for _, level in groupby(heapq.merge(*streams, key=lambda p: p[0]), key=lambda p: p[0]):
            grown = {c: list(patterns) for c, patterns in found.items()}
            for _, c, pattern in level:
                grown[c].append(pattern)
            kept = grown if self.shared else _unshared(grown)
            if sum(cost(items) for patterns in kept.values() for items, _ in patterns) > self._budget:
                break
            found = grown
        return found

    @property
    def _budget(self) -> int:
        budget = self.size_bytes if self.nodes is None else self.nodes
        assert budget is not None
        return budget

    def _cost(self, table: Trees) -> Callable[[tuple[int, ...]], int]:
        """Return nodes or bytes of the forest of a pattern."""
        if self.nodes is not None:
            return lambda items: int(table.size[list(items)].sum())
        node, edge = _row_bytes(table.nodes) + 1, _row_bytes(table.edges) + 8  # a mask; two ends

        def size(items):
            total = int(table.size[list(items)].sum())
            return total * node + (total - len(items)) * edge + 20  # two sizes, class, weight, support

        return size


def _by_share(patterns: Iterator[Pattern], total: int, c: int):
    return ((-pattern[1] / total, c, pattern) for pattern in patterns)


def _unshared(found: dict[int, list[Pattern]]) -> dict[int, list[Pattern]]:
    """Remove patterns that several classes have."""
    owners = Counter(items for patterns in found.values() for items, _ in patterns)
    return {c: [p for p in patterns if owners[p[0]] == 1] for c, patterns in found.items()}


OFFICIAL: dict[str, dict[str, Any]] = {
    "ogbg-molbace": {"depth": 3, "counts": (150, 104)},
    "ogbg-molhiv": {"depth": 3, "counts": (1800, 115)},
    "ogbg-molbbbp": {"depth": 2, "counts": (25, 110)},
    "DD": {"depth": 1, "counts": (15, 9)},
    "NCI1": {"depth": 2},
    "IMDB-BINARY": {"depth": 2},
}
"""Settings of the authors' runs by dataset. Counts that are missing they searched by validation ROC-AUC."""

STUDENTS: dict[str, dict[str, Any]] = {
    "ogbg-molbace": {"hidden": 128, "layers": 3, "dropout": 0.6, "learning_rate": 1e-3, "weight_decay": 1e-2},
    "ogbg-molhiv": {"hidden": 128, "layers": 3, "dropout": 0.1, "learning_rate": 1e-3, "weight_decay": 1e-2},
    "ogbg-molbbbp": {"hidden": 128, "layers": 3, "dropout": 0.3, "learning_rate": 1e-3, "weight_decay": 1e-3},
    "DD": {"hidden": 64, "layers": 2, "dropout": 0.1, "learning_rate": 1e-3, "weight_decay": 1e-2},
    "NCI1": {"hidden": 128, "layers": 2, "dropout": 0.5, "learning_rate": 1e-3, "weight_decay": 1e2},
    "IMDB-BINARY": {"hidden": 64, "layers": 2, "dropout": 0.2, "learning_rate": 1e-3, "weight_decay": 0.1},
}
"""How the authors train networks on the result, as settings of `jgd.evaluation.EvalConfig`."""


def _official(dataset: str, *, near: float | None = None, **settings: Any) -> Mirage:
    """Return the authors' settings for a dataset; another way to set the thresholds replaces their counts."""
    del near
    table = dict(OFFICIAL.get(dataset, {}))
    if settings.keys() & {"support", "nodes", "size_bytes"}:
        table.pop("counts", None)
    return official(Mirage, size=None)(dataset, **{**table, **settings})


ENTRIES = (
    Entry(
        "mirage",
        Mirage,
        "frequent sets of computation trees of each class",
        "Gupta et al. 2024",
        ("graphs",),
        "seconds",
        _official,
    ),
)
