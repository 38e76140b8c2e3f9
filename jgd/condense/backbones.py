"""The networks that a set is seen through, and the real data as these networks see it."""

from __future__ import annotations

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jgd.condense.common import dense_features, propagated_features, training_part
from jgd.core import Examples, Model, Outputs, from_linen
from jgd.core.memo import memoized
from jgd.data import GraphTask, NodeTask
from jgd.graph import identity, operator, select_graphs
from jgd.nn import GCN, GIN, SGC, Readout
from jgd.training import GraphSet, all_graphs, features_for, graph_set

__all__ = [
    "Backbone",
    "Encoder",
    "Pooling",
    "backbone",
    "graphs_of",
    "readout",
    "real_examples",
    "val_examples",
    "val_graphs",
]

Backbone = Literal["sgc", "gcn"]
Encoder = Literal["gcn", "gin"]
Pooling = Literal["sum", "mean", "max"]
_ENCODERS: dict[str, Any] = {"gcn": GCN, "gin": GIN}


# --- nodes ------------------------------------------------------------------------------------------


@memoized
def backbone(name: Backbone, num_classes: int, hidden: int = 256) -> Model:
    """Return a network without dropout: SGC (two hops) or a GCN (two layers).

    Args:
      name: ``"sgc"`` or ``"gcn"``.
      num_classes: Number of classes.
      hidden: Width of the GCN.
    """
    if name not in get_args(Backbone):
        raise ValueError(f"backbone must be one of {', '.join(get_args(Backbone))}, got {name!r}")
    return from_linen(SGC(num_classes) if name == "sgc" else GCN(num_classes, hidden, dropout=0.0))


def _seen_by(name: Backbone, task: NodeTask, mask: Any) -> Examples:
    """Return nodes in ``mask`` as a backbone sees them on the whole graph.

    The propagations of SGC come first, once: what is left is its linear map on the rows that count.
    """
    labels = np.asarray(task.labels)
    if name == "sgc":
        index = np.flatnonzero(np.asarray(mask))
        x = propagated_features(task, 2)[index]
        return Examples((identity(len(index)), jnp.asarray(x)), jnp.asarray(labels[index]))
    inputs = (operator(task.graph, normalize="sym", self_loops=True), features_for(task.graph))
    return Examples(inputs, jnp.asarray(labels), jnp.asarray(mask, jnp.float32))


def real_examples(name: Backbone, task: NodeTask, *, whole: bool = False) -> Examples:
    """Return the labelled nodes as a backbone sees them; of an inductive task on its training graph.

    Args:
      name: The backbone.
      task: The original task.
      whole: Whether to return the operator and dense features of all nodes, to draw neighbourhoods from.
    """
    part = training_part(task)
    if whole:
        a = operator(part.graph, normalize="sym", self_loops=True)
        mask = jnp.asarray(part.train, jnp.float32)
        return Examples((a, jnp.asarray(dense_features(part))), jnp.asarray(part.labels), mask)
    return _seen_by(name, part, part.train)


def val_examples(name: Backbone, task: NodeTask) -> Examples | None:
    """Return the validation nodes as a backbone sees them, or None where there are none."""
    if task.val is None or not np.any(task.val):
        return None
    return _seen_by(name, *task.seen_with(task.val))


# --- sets of graphs ---------------------------------------------------------------------------------


@memoized
def readout(
    name: Encoder, num_classes: int, hidden: int = 128, layers: int = 3, pooling: Pooling = "mean"
) -> Model:
    """Return a graph classifier that takes batches of sparse graphs and padded stacks of dense ones.

    It is a `jgd.nn.Readout`, and takes its inputs; or ``(edges [B, N, N], features [B, N, F], exists
    [B, N])`` as synthesizers render them.

    Args:
      name: ``"gcn"`` or ``"gin"``, without dropout.
      num_classes: Number of classes.
      hidden: Width of the layers.
      layers: Layers of message passing.
      pooling: Pooling over the nodes of a graph.
    """
    if name not in get_args(Encoder):
        raise ValueError(f"the encoder must be one of {', '.join(get_args(Encoder))}, got {name!r}")
    net = Readout(_ENCODERS[name](hidden, hidden, layers, dropout=0.0), num_classes, pooling)
    base, how = from_linen(net), _ENCODERS[name].adjacency

    def alone(a, x, exists):
        return operator(a, **how), x, jnp.zeros(x.shape[0], jnp.int32), jnp.ones(1), exists

    def init(key, *inputs):
        if len(inputs) == 3:
            inputs = alone(*(part[0] for part in inputs))
        return base.init(key, *inputs)

    def apply(params, state, *inputs, key=None, train=False):
        if len(inputs) != 3:
            return base.apply(params, state, *inputs, key=key, train=train)

        def one(a, x, exists):
            found = base.apply(params, state, *alone(a, x, exists))[0]
            return Outputs(found.logits[0], found.embedding[0])

        return jax.vmap(one)(*inputs), state

    return Model(init, apply)


def graphs_of(task: GraphTask, mask: Any, encoder: Encoder) -> GraphSet:
    """Return the graphs in ``mask``, ready for batches, with the operator that the encoder wants."""
    index = np.flatnonzero(np.asarray(mask))
    graphs = select_graphs(task.graphs._replace(globals=None), index)
    labels = np.asarray(task.labels)[index].astype(np.int32)
    return graph_set(operator(graphs, **_ENCODERS[encoder].adjacency), graphs, labels)


def val_graphs(task: GraphTask, encoder: Encoder) -> Examples | None:
    """Return the validation graphs as one batch, or None where there are none."""
    if task.val is None or not np.any(task.val):
        return None
    return all_graphs(graphs_of(task, task.val, encoder), rounded=True)
