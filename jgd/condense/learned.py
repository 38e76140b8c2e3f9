"""What recipes share that learn a set: sizes, checks, where it starts, which one is kept, what is returned.

A paper's file holds its settings, its equations and ``learn``, which runs the loop::

    @dataclass(frozen=True)
    class Mine(LearnedNodes):
        epochs: int = host(600)
        lr_x: float = 1e-2

        def learn(self, key, task, size, loop):
            k_start, k_match = jax.random.split(key)
            data = Matching(self.begin(k_start, task, size, loop), real_examples("sgc", task), self.val(task))
            alg = _algorithm(self, task.num_classes, data.val is not None)
            return loop("match", alg, k_match, data, self.epochs)["small"]


    @memoized
    def _algorithm(settings: Mine, num_classes: int, select: bool) -> Algorithm:
        ...
        return settings.selecting(alg, num_classes) if select else alg

Fields that compiled programs do not depend on are declared with `jgd.core.memo.host`. A method that has no
choice in a shared setting fixes it: ``start: ClassVar = "random"``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jraph
import numpy as np
from jaxtyping import Array

from jgd.condense.backbones import Backbone, Encoder, Pooling, backbone, readout, val_examples, val_graphs
from jgd.condense.common import check_settings, condensed_graphs, condensed_nodes, condenser, size_of
from jgd.condense.select import select_on_validation
from jgd.condense.start import GraphStart, Padding, Start, start_from, start_graphs
from jgd.condense.synthesizers import seen
from jgd.core import Algorithm, Examples, Loop, in_memory
from jgd.core.memo import host
from jgd.data import Condensed, DenseGraphs, GraphTask, NodeTask
from jgd.graph import DiagonalOperator

__all__ = ["LearnedGraphs", "LearnedNodes", "condensed_stack"]


# --- nodes ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LearnedNodes:
    """Learned nodes, perhaps with edges.

    Attributes:
      label_ratio: Condensed nodes for each labelled node.
      nodes: Number of condensed nodes, instead of the ratio.
      start: Where the features start.
      threshold: Smallest weight of A' that is an edge in the result.
      select_every: Epochs between validation checks; None returns the last set.
      select_with: Network that is trained on the set for a check.
      patience: Validation checks without improvement before stopping; None disables early stopping.
    """

    label_ratio: float | None = host(0.5)
    nodes: int | None = host(None)
    start: Start = host("random")
    threshold: float = 0.0
    select_every: int | None = 10
    select_with: Backbone = "gcn"
    patience: int | None = None

    def __post_init__(self):
        """Refuse impossible settings."""
        check_settings(self, optional=("select_every", "patience"))

    @condenser
    def __call__(self, key: Array, task: NodeTask, loop: Loop = in_memory) -> Condensed:
        """Condense a task."""
        size = size_of(task, self.label_ratio, self.nodes)
        return self.wrap(key, task, self.learn(key, task, size, loop))

    def learn(self, key: Array, task: NodeTask, size: int, loop: Loop) -> Examples:
        """Learn a set of ``size`` nodes, as its synthesizer renders it."""
        raise TypeError(f"{type(self).__name__} does not say how it learns")

    def begin(self, key: Array, task: NodeTask, size: int, loop: Loop) -> Examples:
        """Return the set that the method starts from."""
        return start_from(self.start, key, task, size, loop)

    def val(self, task: NodeTask) -> Examples | None:
        """Return the examples to select by; None where the last set is returned."""
        return None if self.select_every is None else val_examples(self.select_with, task)

    def selecting(
        self, alg: Algorithm, num_classes: int, see: Callable[[Examples], Examples] = seen
    ) -> Algorithm:
        """Return a loop that keeps the set that is best on validation nodes.

        Args:
          alg: The loop.
          num_classes: Number of classes.
          see: What networks are given in place of the rendered set.
        """
        assert self.select_every is not None
        judge = backbone(self.select_with, num_classes, hidden=64)
        return select_on_validation(alg, judge, every=self.select_every, patience=self.patience, see=see)

    def wrap(self, key: Array, task: NodeTask, small: Examples) -> Condensed:
        """Return a learned set with its provenance; weights below the threshold are no edges."""
        a, x = small.inputs
        edges = None if isinstance(a, DiagonalOperator) else np.asarray(a.todense())
        if edges is not None:
            edges = np.where(edges >= self.threshold, edges, 0)
        return condensed_nodes(
            self, key, task, features=x, labels=small.targets, edges=edges, adjacency="raw"
        )


# --- sets of graphs ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class LearnedGraphs:
    """Learned graphs, padded to one size.

    Attributes:
      per_class: Number of condensed graphs of each class.
      nodes: Number of nodes of every condensed graph.
      start: How the training graphs are chosen that the set starts from, or ``"noise"``.
      padding: ``"learned"``, or ``"none"`` for graphs that keep the number of nodes they start with.
      select_every: Steps between validation checks; None returns the last set.
      select_with: Network that is trained on the set for a check.
      patience: Validation checks without improvement before stopping; None disables early stopping.
    """

    per_class: int = host(10)
    nodes: int | None = host(None)
    start: GraphStart = host("random")
    padding: Padding = host("learned")
    select_every: int | None = 50
    select_with: Encoder = "gcn"
    patience: int | None = None

    def __post_init__(self):
        """Refuse impossible settings."""
        optional = ("nodes", "select_every", "patience")
        check_settings(self, at_least_one=("per_class",), optional=optional)

    @condenser
    def __call__(self, key: Array, task: GraphTask, loop: Loop = in_memory) -> Condensed:
        """Condense a task."""
        return self.wrap(key, task, self.learn(key, task, loop))

    def learn(self, key: Array, task: GraphTask, loop: Loop) -> Examples:
        """Learn a set of graphs, as its synthesizer renders it."""
        raise TypeError(f"{type(self).__name__} does not say how it learns")

    def begin(self, key: Array, task: GraphTask, nodes: int, loop: Loop) -> Examples:
        """Return the set that the method starts from, of graphs with ``nodes`` nodes."""
        return start_graphs(self.start, key, task, self.per_class, nodes, loop, self.padding)

    def val(self, task: GraphTask) -> Examples | None:
        """Return the graphs to select by; None where the last set is returned."""
        return None if self.select_every is None else val_graphs(task, self.select_with)

    def selecting(self, alg: Algorithm, num_classes: int, layers: int, pooling: Pooling) -> Algorithm:
        """Return a loop that keeps the set that is best on validation graphs.

        Args:
          alg: The loop.
          num_classes: Number of classes.
          layers: Layers of the network that is trained on the set for a check.
          pooling: Pooling of that network.
        """
        assert self.select_every is not None
        judge = readout(self.select_with, num_classes, hidden=64, layers=layers, pooling=pooling)
        every, patience = self.select_every, self.patience
        return select_on_validation(alg, judge, every=every, patience=patience, see=lambda small: small)

    def wrap(self, key: Array, task: GraphTask, small: Examples) -> Condensed:
        """Return a learned set with its provenance."""
        return condensed_stack(self, key, task, small)


def condensed_stack(recipe: Any, key: Array, task: GraphTask, small: Examples, **options: Any) -> Condensed:
    """Return a learned stack of graphs as recipes return it, `DenseGraphs`.

    Args:
      recipe: The method.
      key: Its random key.
      task: The original task.
      small: Edges (zeros and ones), features and which nodes exist, and labels, as synthesizers render them.
      **options: Options of `condensed_graphs`.
    """
    a, x, exists = (np.asarray(part) for part in small.inputs)
    labels = np.asarray(small.targets)
    fields: dict[str, Any] = dict.fromkeys(("nodes", "edges", "senders", "receivers", "globals"))
    sizes = jraph.GraphsTuple(
        **fields,
        n_node=np.sum(exists, axis=1).astype(np.int32),
        n_edge=np.count_nonzero(a, axis=(1, 2)).astype(np.int32),
    )
    whole = condensed_graphs(recipe, key, task, graphs=sizes, labels=labels, **options)
    data = DenseGraphs(x=x, adj=a, mask=exists, y=labels.astype(np.int32))
    return replace(whole, data=data)
