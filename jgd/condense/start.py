"""Where a learned set starts: noise, or the product of a cheap condenser."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import jraph
import numpy as np
from jaxtyping import Array, Float

from jgd.condense._averaging import Average, Clustering
from jgd.condense._clustgdd import ClustGDD
from jgd.condense.common import budget, dense_features, nested, training_graphs
from jgd.condense.coresets import Herding, KCenter, Random
from jgd.core import Examples, Loop
from jgd.data import Condensed, GraphTask, NodeTask
from jgd.graph import select_graphs
from jgd.training import graph_features

__all__ = ["GraphStart", "Padding", "Start", "stack", "start_from", "start_graphs"]

Start = Literal["noise", "random", "herding", "k-center", "average", "average-sgc", "clustering", "clustgdd"]
GraphStart = Literal["noise", "random", "herding", "k-center"]
Padding = Literal["learned", "none"]


def start_from(how: Start, key: Array, task: NodeTask, size: int, loop: Loop) -> Examples:
    """Return features and labels of the set that a method starts from.

    Labels follow the budget of the classes, in order of the class number; ClustGDD brings its own. Edges of
    the start are not used.

    Args:
      how: ``"noise"`` for standard normal features, or the name of a condenser.
      key: Random key.
      task: The original task.
      size: Number of nodes.
      loop: Loop that runs the condenser.
    """
    if how not in get_args(Start):
        raise ValueError(f"start must be one of {', '.join(get_args(Start))}, got {how!r}")
    if how == "noise":
        labels = np.repeat(np.arange(task.num_classes), budget(task, size)).astype(np.int32)
        x = jax.random.normal(key, (size, dense_features(task).shape[1]))
        return Examples((x,), jnp.asarray(labels))
    recipe: Any = {
        "random": Random,
        "herding": Herding,
        "k-center": KCenter,
        "average": Average,
        "average-sgc": lambda **kw: Average(hops=2, **kw),
        "clustering": Clustering,
        "clustgdd": ClustGDD,
    }[how](label_ratio=None, nodes=size)
    small: Condensed = recipe(key, task, loop=loop)
    return Examples((jnp.asarray(small.data.nodes, jnp.float32),), jnp.asarray(small.targets))


def stack(
    graphs: jraph.GraphsTuple, nodes: int
) -> tuple[Float[np.ndarray, "B {nodes} {nodes}"], Float[np.ndarray, "B {nodes} F"]]:
    """Return joined graphs as a padded stack: edges, zeros and ones without loops, and features (host side).

    Edges lose their weights and their direction. What is padded has no edges and no features.

    Args:
      graphs: The graphs, none of which has more than ``nodes`` nodes.
      nodes: Number of nodes of the padded graphs.
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
    per_class: int,
    nodes: int,
    loop: Loop,
    padding: Padding = "learned",
) -> Examples:
    """Return the graphs that a method starts from, as a padded stack ``((edges, features, exists), labels)``.

    They are training graphs that fit. Classes are in order; one that has too few such graphs gives all it
    has.

    Args:
      how: ``"noise"`` for uniform features and random edges, as many as the training graphs that fit have on
        average; or how training graphs are chosen.
      key: Random key.
      task: The original task.
      per_class: Number of graphs of each class.
      nodes: Number of nodes of the padded graphs.
      loop: Loop that runs the condenser.
      padding: ``"learned"`` where all nodes exist; ``"none"`` for graphs that keep the number of nodes they
        start with.

    Raises:
      ValueError: Where a class has no graph that fits.
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
        count, width = per_class * task.num_classes, graph_features(small).shape[1]
        upper = jax.random.uniform(k_edges, (count, nodes, nodes)) < np.sum(small.n_edge) / pairs
        a = jnp.triu(upper, 1).astype(jnp.float32)
        y = np.repeat(np.arange(task.num_classes), per_class)
        x = jax.random.uniform(k_x, (count, nodes, width))
        everywhere = jnp.ones((count, nodes), bool)
        return Examples((a + a.transpose(0, 2, 1), x, everywhere), jnp.asarray(y, jnp.int32))
    choose: dict[str, Any] = {"random": Random, "herding": Herding, "k-center": KCenter}
    train = np.zeros(task.num_graphs, bool)
    train[index[fits]] = True
    with nested():  # fewer graphs fit, which is no news
        small = choose[how](per_class=per_class)(key, replace(task, train=train), loop)
    a, x = stack(small.data, nodes)
    exists = np.arange(nodes) < np.asarray(small.data.n_node)[:, None]
    if padding == "learned":
        exists = np.ones_like(exists)
    return Examples((jnp.asarray(a), jnp.asarray(x), jnp.asarray(exists)), jnp.asarray(small.targets))
