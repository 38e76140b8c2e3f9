"""Sets of graphs: networks with a readout on batches of condensed graphs, tested on the original graphs.

Every contestant gets the same number of optimiser steps, on batches of the same size or on all it has where
that is less, and all seeds see the same batches. A condensed set may be joined graphs (with a root mask in
``extras["root"]``, which pooling then reads) or `DenseGraphs`, whose nonzero weights become edges and whose
masked nodes are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jraph
import numpy as np

from jgd.data import Condensed, DenseGraphs, GraphTask
from jgd.data.checks import need_classes
from jgd.evaluation.config import EvalConfig
from jgd.evaluation.kinds.base import Kind, Words, check_classes, fit, named_network, nbytes, soft_targets
from jgd.graph import Operator, edge_weights, operator, select_graphs
from jgd.metrics import accuracy, one_vs_rest_auc
from jgd.nn import NETWORKS, SGC, Readout
from jgd.nn.zoo import members
from jgd.registry import Entry
from jgd.training import GraphSet, Splits, graph_features, graph_set, graph_splits, score

__all__ = ["GRAPHS", "joined"]


def network(name: str | nn.Module, task: GraphTask, config: EvalConfig) -> nn.Module:
    """Return the named node network at the sizes of the configuration, with a readout."""
    if isinstance(name, nn.Module):
        return name
    cls, layers = named_network(name, "graphs"), config.layers or 2
    options: dict[str, Any] = {"dropout": config.dropout}
    options |= {"hops": layers} if cls is SGC else {"hidden": config.hidden, "layers": layers}
    encoder = cls(num_classes=config.hidden, **options)
    return Readout(encoder, task.num_classes, config.pooling, config.dropout)


def joined(data: Any) -> jraph.GraphsTuple:
    """Return condensed graphs as one `jraph.GraphsTuple`.

    Dense graphs lose the nodes outside of their mask; nonzero weights become edges.
    """
    if isinstance(data, jraph.GraphsTuple):
        return data
    if not isinstance(data, DenseGraphs):
        raise ValueError(
            f"condensed graphs are a jraph.GraphsTuple or DenseGraphs, not {type(data).__name__}"
        )
    x, adj, mask = (np.asarray(a) for a in (data.x, data.adj, data.mask))
    if adj.ndim != 3:
        raise ValueError(f"the networks read weights [B, N, N] and no edge features, got shape {adj.shape}")
    mask = mask.astype(bool)
    position = np.cumsum(mask.reshape(-1)).reshape(mask.shape) - 1
    b, receiver, sender = np.nonzero(np.where(mask[:, :, None] & mask[:, None], adj, 0))
    fields: dict[str, Any] = {
        "nodes": x[mask].astype(np.float32),
        "edges": adj[b, receiver, sender].astype(np.float32),
        "senders": position[b, sender].astype(np.int32),
        "receivers": position[b, receiver].astype(np.int32),
        "n_node": mask.sum(1).astype(np.int32),
        "n_edge": np.bincount(b, minlength=len(x)).astype(np.int32),
        "globals": None,
    }
    return jraph.GraphsTuple(**fields)


def _small_operator(
    graph: jraph.GraphsTuple, adjacency: str, encoder: nn.Module, threshold: float
) -> Operator:
    """Return what a network sees of condensed graphs, as their weights are stored (see `Condensed`)."""
    how: dict[str, Any] = dict(encoder.adjacency)  # pyright: ignore[reportAttributeAccessIssue]
    weights, ends = edge_weights(graph), (np.asarray(graph.senders), np.asarray(graph.receivers))
    if adjacency == "identity":
        nodes = np.arange(int(np.sum(graph.n_node)), dtype=np.int32)
        weights, ends = None, (nodes, nodes)
    if adjacency == "normalized" and how["self_loops"] and how["normalize"] in ("sym", None):
        how = {"normalize": None, "self_loops": False}  # the weights hold the loops
    if weights is not None and threshold:
        strong = np.asarray(weights) >= threshold
        weights, ends = np.asarray(weights)[strong], (ends[0][strong], ends[1][strong])
    return operator(graph._replace(edges=weights, senders=ends[0], receivers=ends[1]), **how, negative="keep")


def _small(small: Condensed, net: Any, config: EvalConfig, task: GraphTask) -> GraphSet:
    graph, encoder = joined(small.data), net.encoder
    strong = any(type(encoder) is NETWORKS[name].make for name in config.thresholded)
    a = _small_operator(graph, small.training.adjacency, encoder, config.threshold if strong else 0.0)
    targets = soft_targets(small, task.num_classes)
    return graph_set(a, graph, targets, small.weights, small.extras.get("root"))


def real(task: GraphTask, split: str, net: Any) -> GraphSet:
    """Return the graphs of a split whose label is known, as a network reads them."""
    need_classes(task, "the evaluation")
    mask, labels = task.labelled(split), np.asarray(task.labels)
    index = np.flatnonzero(mask)
    graphs = select_graphs(task.graphs._replace(globals=None), index)
    how: dict[str, Any] = net.encoder.adjacency
    a = operator(graphs, **how)
    root = None
    if task.root is not None:
        at = np.repeat(mask, np.asarray(task.graphs.n_node))
        root = np.asarray(task.root)[at]
    weights = None if task.weights is None or split != "train" else np.asarray(task.weights)[index]
    return graph_set(a, graphs, labels[index].astype(np.int32), weights, root)


def _splits(
    train: GraphSet, val: GraphSet, test: GraphSet, config: EvalConfig, seed: Any
) -> tuple[Splits, Any]:
    size = config.batch_size or len(train.weights)
    return graph_splits(
        train, val, test, batch_size=size, steps=config.steps, seed=seed, replace=config.by_weight
    )


def _check(small: Condensed, task: GraphTask) -> None:
    if isinstance(small.data, DenseGraphs) and "root" in small.extras:
        raise ValueError('dense graphs say by their mask which nodes are pooled, not by extras["root"]')
    width, needed = graph_features(joined(small.data)).shape[1], graph_features(task.graphs).shape[1]
    if width != needed:
        raise ValueError(
            f"the condensed graphs have {width} features, those of task {task.name!r} have {needed}: "
            "they were made from other data"
        )
    check_classes(small, task)


def _size(data: GraphTask | Condensed) -> dict[str, int]:
    if isinstance(data, GraphTask):
        index = np.flatnonzero(np.asarray(data.train))
        graphs, labels = select_graphs(data.graphs, index), np.asarray(data.labels)[index]
    else:
        graphs, labels = joined(data.data), data.targets
    counts = {"nodes": int(np.sum(graphs.n_node)), "edges": int(np.sum(graphs.n_edge))}
    return {"graphs": len(labels), **counts, "bytes": nbytes(graphs, labels)}


def _same_size(small: Condensed, task: GraphTask) -> dict[str, Any]:
    del task
    return {"nodes": int(np.sum(joined(small.data).n_node))}


def _check_size(task: GraphTask, settings: Mapping[str, Any]) -> None:
    del task
    size = settings.get("per_class")
    if size is not None and (size < 1 or size != int(size)):
        raise ValueError(f"per_class must be a whole number of at least 1, got {size}")


def _protocol(task: GraphTask, config: EvalConfig) -> str:
    del task
    return (
        f"Every network takes {config.steps} steps on batches of {config.batch_size} graphs, or on all "
        f"where there are no more. Every {config.select_every} steps its {config.select} on the validation "
        "graphs is measured, and the state that was best there is tested on the test graphs. Baselines "
        "choose graphs with as many nodes as the method used."
    )


GRAPHS = Kind(
    name="graphs",
    task=GraphTask,
    holds=lambda small: isinstance(small.data, jraph.GraphsTuple | DenseGraphs),
    check=_check,
    network=network,
    real=real,
    small=_small,
    splits=_splits,
    fit=fit,
    measure=score,
    metrics={"accuracy": accuracy, "auc": one_vs_rest_auc},
    size=_size,
    same_size=_same_size,
    distances={},
    networks=("gin", *(name for name in members("graphs") if name != "gin")),
    method="mirage",
    baselines=("random", "herding", "k-center"),
    config=EvalConfig(
        steps=500,
        learning_rate=5e-3,
        weight_decay=1e-3,
        hidden=32,
        layers=2,
        dropout=0.0,
        batch_size=128,
        select="auc",
        select_every=10,
    ),
    budget="per_class",
    usual={"per_class": 10},
    sizes=(1, 10, 50),
    check_size=_check_size,
    words=Words("full set", _protocol, "ROC-AUC: of each class against the rest, in %."),
)
ENTRIES = (Entry("graphs", lambda: GRAPHS, "Sets of graphs, each with a class."),)
