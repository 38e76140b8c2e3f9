"""Nodes of a graph: full-batch networks on the condensed graph, tested on the original one.

Transductive networks are selected and tested on the whole graph, inductive ones on the subgraphs of the
validation and of the test nodes. Condensed graphs of one size are trained in one program.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import jraph
import numpy as np

from jgd.condense.common import dense_features, normalize_adjacency, size_of
from jgd.condense.coresets import gcn_embedding
from jgd.core import Examples
from jgd.data import Condensed, NodeTask
from jgd.data.checks import need_classes
from jgd.evaluation.config import EvalConfig
from jgd.evaluation.kinds.base import Kind, Words, check_classes, fit, named_network, nbytes, soft_targets
from jgd.graph import adjacency, operator
from jgd.metrics import accuracy, frechet_distance
from jgd.nn import NETWORKS, SGC
from jgd.nn.zoo import members
from jgd.registry import Entry
from jgd.report import Picture, plot_condensed
from jgd.report.figures import MOST_NODES, MOST_POINTS
from jgd.report.geometry import classes_of, edges_of, project
from jgd.training import Splits, features_for, score

__all__ = ["NODES", "propagated_distance", "propagated_pair", "real"]


def _check(small: Condensed, task: NodeTask) -> None:
    nodes: Any = task.graph.nodes
    if nodes is None:
        raise ValueError(f"task {task.name!r} has no node features for the networks to read")
    width = int(small.data.nodes.shape[1])
    if width != nodes.shape[1]:
        raise ValueError(
            f"the condensed graph has {width} features, task {task.name!r} has {nodes.shape[1]}: "
            "it was made from other data"
        )
    check_classes(small, task)


def _holds(small: Condensed) -> bool:
    graph = small.data
    return isinstance(graph, jraph.GraphsTuple) and len(graph.n_node) == 1


def network(name: str | nn.Module, task: NodeTask, config: EvalConfig) -> nn.Module:
    """Return the named network at the width and dropout of the configuration; a module is what it is."""
    if isinstance(name, nn.Module):
        return name
    cls = named_network(name, "nodes")
    options: dict[str, Any] = {"hidden": config.hidden, "dropout": config.dropout}
    if config.layers is not None:
        options["layers"] = config.layers
    if cls is SGC:
        options = {} if config.layers is None else {"hops": config.layers}
    return cls(num_classes=task.num_classes, **options)


def real(task: NodeTask, split: str, net: nn.Module) -> Examples:
    """Return the nodes of a split as a network reads them: on the whole graph, or on their subgraph.

    Nodes without a label have weight zero.
    """
    need_classes(task, "the evaluation")
    part, mask = task.seen_with(task.labelled(split))
    return Examples(_inputs(part.graph, net), jnp.asarray(part.labels), jnp.asarray(mask, jnp.float32))


def _inputs(graph: jraph.GraphsTuple, net: nn.Module) -> tuple:
    how: dict[str, Any] = net.adjacency  # pyright: ignore[reportAttributeAccessIssue]
    return operator(graph, **how), features_for(graph)


def _small(small: Condensed, net: nn.Module, config: EvalConfig, task: NodeTask) -> Examples:
    """Condensed nodes with soft targets and weights, so that sets of one size can be stacked."""
    how: dict[str, Any] = net.adjacency  # pyright: ignore[reportAttributeAccessIssue]
    strong = any(type(net) is NETWORKS[name].make for name in config.thresholded)
    a = small.operator(**how, threshold=config.threshold if strong else 0.0)
    targets = soft_targets(small, task.num_classes)
    weights = jnp.ones(len(targets)) if small.weights is None else jnp.asarray(small.weights, jnp.float32)
    return Examples((a, jnp.asarray(small.data.nodes, jnp.float32)), targets, weights)


def _splits(train: Examples, val: Examples, test: Examples, config: EvalConfig, seed: Any) -> tuple[Any, Any]:
    del config, seed
    return Splits(train, val, test), None


def _size(data: NodeTask | Condensed) -> dict[str, int]:
    graph, labels = (data.graph, data.labels) if isinstance(data, NodeTask) else (data.data, data.targets)
    return {"nodes": len(labels), "edges": int(np.sum(graph.n_edge)), "bytes": nbytes(graph, labels)}


def _same_size(small: Condensed, task: NodeTask) -> dict[str, Any]:
    count = len(small.targets)
    return {"nodes": count, "near": count / int(np.sum(task.train))}


def _check_size(task: NodeTask, settings: Mapping[str, Any]) -> None:
    if "label_ratio" in settings:
        need_classes(task, "a number of condensed nodes")
        size_of(task, settings["label_ratio"], settings.get("nodes"))


def propagated_pair(task: NodeTask, small: Condensed) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ``Â²X`` of the original and of the condensed graph, and the weights of the condensed nodes.

    Both have unit mean square, because condensed features may have another scale. Condensed nodes weigh as
    much as the nodes they stand for, where the method says so (``extras["size"]``).
    """
    a_hat = normalize_adjacency(adjacency(task.graph))
    x = a_hat @ (a_hat @ dense_features(task))
    a = small.operator(normalize="sym", self_loops=True)
    y = np.asarray(a @ (a @ jnp.asarray(small.data.nodes, jnp.float32)))
    sizes = small.extras.get("size")
    weights = np.ones(len(y), np.float32) if sizes is None else np.asarray(sizes, np.float32)

    def unit(rows, weights=None):
        square = np.average(np.sum(rows**2, axis=1), weights=weights)
        return rows / (np.sqrt(square) or 1.0)

    return unit(x), unit(y, weights).astype(np.float32), weights


def propagated_distance(task: NodeTask, small: Condensed) -> float:
    """Return the Fréchet distance between both sides of `propagated_pair`: 0 for equal mean and covariance.

    Covariances divide by N - 1; those of a single condensed node, which has none, by N.
    """
    x, y, weights = propagated_pair(task, small)
    distance = jax.jit(partial(frechet_distance, ddof=min(1, len(y) - 1)))
    return float(distance(jnp.asarray(x), jnp.asarray(y), None, jnp.asarray(weights)))


_SETTINGS = {
    "transductive": "training sees all nodes and edges, but only the labels of training nodes",
    "inductive": "training sees the subgraph of training nodes only; validation and test nodes are judged "
    "each on their own subgraph",
}


def _protocol(task: NodeTask, config: EvalConfig) -> str:
    steps = "every step" if config.select_every == 1 else f"every {config.select_every} steps"
    return (
        f"The setting is {task.setting}: {_SETTINGS[task.setting]}. Each architecture is trained "
        f"full-batch on each set for {config.steps} steps. Its {config.select} on the validation nodes of "
        f"the original graph is measured after {steps}; the state that was best there is tested on the "
        "test nodes of the original graph. The whole graph goes through the same procedure. Standard "
        "deviations are those of the seeds at hand (the sum of squares is divided by their number)."
    )


_MOST_EDGES = 300


def _figures(task: NodeTask, small: Condensed) -> tuple[Picture, ...]:
    """Return the picture of the condensed graph, and of its features among those of the original."""
    identity = small.training.adjacency == "identity"
    edges = edges_of(None if identity else adjacency(small.data), _MOST_EDGES)
    original, condensed, _ = propagated_pair(task, small)
    classes, all_classes = classes_of(small.targets), classes_of(task.labels)
    drawn = len(edges.pairs)
    left = "Left: the condensed nodes; there are no edges between them (A' = I)."
    if drawn:
        which = (
            f"its {drawn:,}" if drawn == edges.total else f"the {drawn:,} strongest of its {edges.total:,}"
        )
        left = (
            f"Left: the condensed graph with {which} undirected edges (no self loops), wider where heavier."
        )
        if len(np.unique(edges.pairs)) < len(classes):
            left += " Nodes without any of them stand below."
    if len(classes) > MOST_NODES:
        left += f" Of its {len(classes):,} nodes {MOST_NODES:,} are marked."
    dots = f"the {task.num_nodes:,} original nodes"
    if task.num_nodes > MOST_POINTS:
        dots = f"{MOST_POINTS:,} of {dots}, evenly spaced by number"
    caption = (
        f"{left} Right: small dots are {dots}, large markers all condensed nodes, by their features "
        "propagated twice (Â²X on the original graph, Â'²X' on the condensed one), each scaled to a mean "
        "squared norm of one and projected on the first two principal components of the original. The "
        "frame holds at least 98 % of the original nodes. Colour, and the shape of large markers: class."
    )

    def draw():
        return plot_condensed(edges, classes, project(original, condensed), all_classes)

    return (Picture("graph", "The condensed graph", caption, draw, f"Two panels. {caption}"),)


NODES = Kind(
    name="nodes",
    task=NodeTask,
    holds=_holds,
    check=_check,
    network=network,
    real=real,
    small=_small,
    splits=_splits,
    fit=fit,
    measure=score,
    metrics={"accuracy": accuracy},
    size=_size,
    same_size=_same_size,
    distances={"Fréchet distance": propagated_distance},
    networks=members("nodes"),
    method="clustgdd",
    baselines=("random", "herding", "k-center", "average", "average-sgc"),
    config=EvalConfig(),
    budget="label_ratio",
    usual={"label_ratio": 0.5},
    sizes=(0.25, 0.5, 1.0),
    check_size=_check_size,
    words=Words(
        whole="full graph",
        protocol=_protocol,
        notes="Edges count once in each direction. Fréchet distance: between the features Â²X of the "
        "original and of the condensed graph, each of mean squared norm one.",
    ),
    stacked=True,
    figures=_figures,
    embedding=lambda key, task, config: gcn_embedding(key, task, hidden=config.hidden, epochs=config.steps),
)
ENTRIES = (Entry("nodes", lambda: NODES, "Nodes of one graph, with classes."),)
