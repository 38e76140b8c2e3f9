"""What condensers of graph tasks share that learn dense graphs: where they start, what they are seen by."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import jraph
import numpy as np
from jaxtyping import Array, Float

from jgd.condense.graph_selection import HerdingGraphs, KCenterGraphs, RandomGraphs
from jgd.condense.graphs import condensed_graphs, training_graphs
from jgd.core import Examples, Loop, Model, Outputs, from_linen
from jgd.data.condensed import Condensed
from jgd.data.tasks import DenseGraphs, GraphTask
from jgd.graph import operator, select_graphs
from jgd.nn import GCN, GIN, GraphSet, Readout, all_graphs, graph_features, graph_set

__all__ = [
    "Encoder",
    "GraphStart",
    "Padding",
    "Pooling",
    "condensed_stack",
    "graphs_of",
    "readout",
    "stack",
    "start_graphs",
    "val_graphs",
]

GraphStart = Literal["noise", "random", "herding", "k-center"]
Encoder = Literal["gcn", "gin"]
Pooling = Literal["sum", "mean", "max"]
Padding = Literal["learned", "none"]
_ENCODERS: dict[str, Any] = {"gcn": GCN, "gin": GIN}


# --- where a set starts ---------------------------------------------------------------------------


def stack(
    graphs: jraph.GraphsTuple, nodes: int
) -> tuple[Float[np.ndarray, "B {nodes} {nodes}"], Float[np.ndarray, "B {nodes} F"]]:
    """Joined graphs as a padded stack (host side): edges, zeros and ones without loops, and features.

    Edges lose their weights and their direction. What is padded has no edges and no features.

    Args:
      graphs: the graphs, none of which has more than ``nodes`` nodes.
      nodes: size of the padded graphs.
    """
    n_node = np.asarray(graphs.n_node)
    if n_node.max(initial=0) > nodes:
        raise ValueError(f"a graph has {n_node.max()} nodes, which do not fit {nodes}")
    features = graph_features(graphs)
    owner = np.repeat(np.arange(len(n_node)), n_node)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(n_node) - n_node, n_node)
    x = np.zeros((len(n_node), nodes, features.shape[1]), np.float32)
    x[owner, place] = features
    a = np.zeros((len(n_node), nodes, nodes), np.float32)
    senders, receivers = np.asarray(graphs.senders), np.asarray(graphs.receivers)
    a[owner[senders], place[senders], place[receivers]] = 1
    a = np.maximum(a, a.transpose(0, 2, 1))
    return a * (1 - np.eye(nodes, dtype=np.float32)), x


def start_graphs(
    how: GraphStart,
    key: Array,
    task: GraphTask,
    graphs_per_class: int,
    nodes: int,
    loop: Loop,
    padding: Padding = "learned",
) -> Examples:
    """The graphs that a method starts from, as a padded stack ``((edges, features, exists), labels)``.

    They are training graphs that fit. Classes are in order; one that has too few such graphs gives all it
    has.

    Args:
      how: ``"noise"`` for uniform features and random edges, as many as the training graphs that fit have on
        average; or how training graphs are chosen.
      key: random key.
      task: the original task.
      graphs_per_class: how many of each class.
      nodes: size of the padded graphs.
      loop: of the condenser.
      padding: ``"learned"`` where all nodes exist; ``"none"`` for graphs that keep the number of nodes they
        start with.

    Raises:
      ValueError: where a class has no graph that fits.
    """
    if task.root is not None:
        raise ValueError(
            f"task {task.name!r} pools over roots, but learned graphs have none: choose graphs instead"
        )
    index, labels = training_graphs(task)
    fits = np.asarray(task.graphs.n_node)[index] <= nodes
    for c in np.unique(labels):
        if not fits[labels == c].any():
            raise ValueError(
                f"no training graph of class {c} of task {task.name!r} has at most {nodes} nodes: give more "
                "nodes"
            )
    if how == "noise":
        small = select_graphs(task.graphs, index[fits])
        pairs = fits.sum() * nodes * (nodes - 1)
        k_edges, k_x = jax.random.split(key)
        count, width = graphs_per_class * task.num_classes, graph_features(small).shape[1]
        upper = jax.random.uniform(k_edges, (count, nodes, nodes)) < np.sum(small.n_edge) / pairs
        a = jnp.triu(upper, 1).astype(jnp.float32)
        y = np.repeat(np.arange(task.num_classes), graphs_per_class)
        x = jax.random.uniform(k_x, (count, nodes, width))
        everywhere = jnp.ones((count, nodes), bool)
        return Examples((a + a.transpose(0, 2, 1), x, everywhere), jnp.asarray(y, jnp.int32))
    choose: dict[str, Callable[..., Any]] = {
        "random": RandomGraphs,
        "herding": HerdingGraphs,
        "k-center": KCenterGraphs,
    }
    train = np.zeros(task.num_graphs, bool)
    train[index[fits]] = True
    with warnings.catch_warnings():  # the recipe that starts here tells sizes and classes itself
        warnings.simplefilter("ignore", UserWarning)
        small = choose[how](graphs_per_class)(key, replace(task, train=train), loop)
    a, x = stack(small.data, nodes)
    exists = np.arange(nodes) < np.asarray(small.data.n_node)[:, None]
    if padding == "learned":
        exists = np.ones_like(exists)
    return Examples((jnp.asarray(a), jnp.asarray(x), jnp.asarray(exists)), jnp.asarray(small.targets))


# --- what a set is seen by ------------------------------------------------------------------------


def readout(
    name: Encoder, num_classes: int, hidden: int = 128, layers: int = 3, pooling: Pooling = "mean"
) -> Model:
    """A graph classifier that takes batches of sparse graphs and padded stacks of dense ones.

    It is a `jgd.nn.Readout`, and takes its inputs; or ``(edges [B, N, N], features [B, N, F], exists
    [B, N])`` as synthesizers render them.

    Args:
      name: ``"gcn"`` or ``"gin"``, without dropout.
      num_classes: width of the output.
      hidden: width of the layers.
      layers: of message passing.
      pooling: over the nodes of a graph.
    """
    if name not in get_args(Encoder):
        raise ValueError(f"the encoder must be one of {', '.join(get_args(Encoder))}, got {name!r}")
    return _readout(name, num_classes, hidden, layers, pooling)


@lru_cache(maxsize=64)  # the same functions again, so that `jit` finds what it compiled
def _readout(name: str, num_classes: int, hidden: int, layers: int, pooling: Any) -> Model:
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
    """The graphs in ``mask``, ready for batches, with the operator that the encoder wants."""
    index = np.flatnonzero(np.asarray(mask))
    graphs = select_graphs(task.graphs._replace(globals=None), index)
    labels = np.asarray(task.labels)[index].astype(np.int32)
    return graph_set(operator(graphs, **_ENCODERS[encoder].adjacency), graphs, labels)


def val_graphs(task: GraphTask, encoder: Encoder) -> Examples | None:
    """The validation graphs as one batch, or None where there are none."""
    if task.val is None or not np.any(task.val):
        return None
    return all_graphs(graphs_of(task, task.val, encoder), rounded=True)


# --- what comes out -------------------------------------------------------------------------------


def condensed_stack(recipe: Any, key: Array, task: GraphTask, small: Examples, **options: Any) -> Condensed:
    """A learned stack as what recipes return, `DenseGraphs`.

    Args:
      recipe: the method.
      key: its random key.
      task: the original task.
      small: edges (zeros and ones), features and which nodes exist, and labels, as synthesizers render them.
      **options: of `jgd.condense.graphs.condensed_graphs`.
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
