"""The accuracy protocol of graph classification.

Train a graph network (node network, pooling, linear map) on condensed graphs, keep its best state on the
validation graphs, and test that on the test graphs: accuracy and ROC-AUC. Every contestant gets the same
number of optimiser steps, on batches of the same size or on all it has where that is less. Seeds run at once
in one vmapped loop and see the same batches. The training split goes through the same function: it is what
"full" means.

A condensed set may be joined graphs (with a root mask in ``extras["root"]``, which pooling then reads) or
`DenseGraphs`, whose nonzero weights become edges and whose masked nodes are left out.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import jraph
import numpy as np
from jaxtyping import Array

from jgd.core import Algorithm, InMemory, ensemble, from_linen
from jgd.data.checks import as_word, need_classes, warn_of_missing
from jgd.data.condensed import Condensed
from jgd.data.tasks import DenseGraphs, GraphTask
from jgd.graph import Operator, edge_weights, operator, select_graphs
from jgd.nn import (
    GAT,
    SGC,
    GraphSet,
    Readout,
    graph_classifier,
    graph_features,
    graph_scores,
    graph_set,
    graph_splits,
)
from jgd.optim import adam_l2
from jgd.protocols.evaluate import NETWORKS, Score
from jgd.protocols.text import spread

__all__ = ["GraphProtocol", "GraphScore", "evaluate_graphs", "joined"]


@dataclass(frozen=True)
class GraphProtocol:
    """How networks are trained on graphs.

    Attributes:
      steps: of the optimiser; the learning rate falls to a tenth at half of them.
      batch_size: graphs in a batch; sets that are no larger are one batch.
      learning_rate: of Adam.
      weight_decay: L2 coefficient.
      hidden: width of the layers, and of what is pooled.
      layers: of message passing.
      dropout: rate in the network and on what is pooled.
      pooling: over the nodes (or roots) of a graph.
      select: what chooses the state on the validation graphs.
      select_every: steps between looks at the validation graphs.
      replace: draw the graphs of a batch in proportion to their weights instead of weighing the loss.
      threshold: weights below it are no edges for networks that attend to edges without regard to their
        weight (GAT).
    """

    steps: int = 500
    batch_size: int = 128
    learning_rate: float = 5e-3
    weight_decay: float = 1e-3
    hidden: int = 32
    layers: int = 2
    dropout: float = 0.0
    pooling: Literal["sum", "mean", "max"] = "sum"
    select: Literal["auc", "accuracy"] = "auc"
    select_every: int = 10
    replace: bool = False
    threshold: float = 0.05

    def __post_init__(self):
        """Refuse impossible settings."""
        as_word("pooling", self.pooling, Literal["sum", "mean", "max"])
        as_word("select", self.select, Literal["auc", "accuracy"])
        for name in ("steps", "batch_size", "hidden", "layers", "select_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.select_every > self.steps:
            raise ValueError(
                f"in {self.steps} steps nobody looks every {self.select_every}: lower select_every"
            )


@dataclass(frozen=True, repr=False)
class GraphScore(Score):
    """Accuracies and areas under the ROC curve of one architecture, in 0..1.

    ``curve`` is of what the protocol selects by.

    Attributes:
      auc: ``[seeds]`` on the test graphs, classes against the rest.
      val_auc: ``[seeds]`` on the validation graphs.
    """

    auc: np.ndarray
    val_auc: np.ndarray

    @property
    def auc_mean(self) -> float:
        """Mean test ROC-AUC."""
        return float(self.auc.mean())

    @property
    def auc_std(self) -> float:
        """Standard deviation of the test ROC-AUC over seeds (divided by their number)."""
        return float(self.auc.std())

    def summary(self) -> dict[str, float | int]:
        """Plain numbers for JSON."""
        return super().summary() | {
            "auc_mean": self.auc_mean,
            "auc_std": self.auc_std,
            "val_auc_mean": float(self.val_auc.mean()),
        }

    def __str__(self) -> str:
        return f"{super().__str__()}, AUC {spread(self.auc, 1, 3)}"


# --- networks and their data ----------------------------------------------------------------------


def graph_network(name: str, num_classes: int, protocol: GraphProtocol) -> Readout:
    """The named node network at the protocol's sizes, with a readout."""
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}; there are {', '.join(NETWORKS)}")
    cls, p = NETWORKS[name], protocol
    options: dict[str, Any] = {"dropout": p.dropout}
    options |= {"hops": p.layers} if cls is SGC else {"hidden": p.hidden, "layers": p.layers}
    return Readout(cls(num_classes=p.hidden, **options), num_classes, p.pooling, p.dropout)  # pyright: ignore


@lru_cache(maxsize=64)  # the same functions again, so that `jit` finds what it compiled
def _algorithm(name: str, num_classes: int, protocol: GraphProtocol, seeds: int) -> Algorithm:
    model = from_linen(graph_network(name, num_classes, protocol))
    tx = adam_l2(protocol.learning_rate, protocol.weight_decay, num_steps=protocol.steps)
    return ensemble(graph_classifier(model, tx, every=protocol.select_every, select=protocol.select), seeds)


@jax.jit
def _test(nets, val, test):
    def one(net):
        return {"val": graph_scores(net, val), "test": graph_scores(net, test)}

    return jax.vmap(one)(nets)


def joined(data: Any) -> jraph.GraphsTuple:
    """Condensed graphs as one `jraph.GraphsTuple`.

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
    graph: jraph.GraphsTuple, structure: str, encoder: nn.Module, threshold: float
) -> Operator:
    """What a network sees of condensed graphs, honouring how their weights are stored (see `Condensed`)."""
    how: dict[str, Any] = dict(encoder.adjacency)  # pyright: ignore[reportAttributeAccessIssue]
    weights, ends = edge_weights(graph), (np.asarray(graph.senders), np.asarray(graph.receivers))
    if structure == "identity":
        nodes = np.arange(int(np.sum(graph.n_node)), dtype=np.int32)
        weights, ends = None, (nodes, nodes)
    if structure == "normalized" and how["self_loops"] and how["normalize"] in ("sym", None):
        how = {"normalize": None, "self_loops": False}  # the weights hold the loops
    if weights is not None and isinstance(encoder, GAT) and threshold:
        strong = np.asarray(weights) >= threshold
        weights, ends = np.asarray(weights)[strong], (ends[0][strong], ends[1][strong])
    return operator(graph._replace(edges=weights, senders=ends[0], receivers=ends[1]), **how, negative="keep")


def _small_set(small: Condensed, encoder: nn.Module, protocol: GraphProtocol, num_classes: int) -> GraphSet:
    graph = joined(small.data)
    root = small.extras.get("root")
    a = _small_operator(graph, small.train.get("structure", "raw"), encoder, protocol.threshold)
    targets = jnp.asarray(small.targets)
    if small.train.get("targets") == "logit":
        targets = jax.nn.softmax(targets)
    elif targets.ndim == 1:
        targets = jax.nn.one_hot(targets, num_classes)
    return graph_set(a, graph, targets.astype(jnp.float32), small.weights, root)


def _real_set(task: GraphTask, split: str, encoder: nn.Module) -> GraphSet:
    need_classes(task, "the protocol")
    mask, labels = task.labelled(split), np.asarray(task.labels)
    index = np.flatnonzero(mask)
    graphs = select_graphs(task.graphs._replace(globals=None), index)
    how: dict[str, Any] = encoder.adjacency  # pyright: ignore[reportAttributeAccessIssue]
    a = operator(graphs, **how)
    root = None
    if task.root is not None:
        at = np.repeat(mask, np.asarray(task.graphs.n_node))
        root = np.asarray(task.root)[at]
    weights = None if task.weights is None or split != "train" else np.asarray(task.weights)[index]
    return graph_set(a, graphs, labels[index].astype(np.int32), weights, root)


def _check(small: Condensed, task: GraphTask) -> None:
    if "predictor" in small.train:
        raise ValueError(f"this set is meant for its own predictor, {small.train['predictor']!r}")
    if small.preprocess:
        raise ValueError(f"this set is meant for data changed by {small.preprocess.get('op')!r} first")
    if small.train.get("pool") == "root" and "root" not in small.extras:
        raise ValueError('this set wants pooling over roots, but has no extras["root"]')
    if isinstance(small.data, DenseGraphs) and "root" in small.extras:
        raise ValueError('dense graphs say by their mask which nodes are pooled, not by extras["root"]')
    width, needed = graph_features(joined(small.data)).shape[1], graph_features(task.graphs).shape[1]
    if width != needed:
        raise ValueError(
            f"the condensed graphs have {width} features, those of task {task.name!r} have {needed}: "
            "they were made from other data"
        )
    soft = np.ndim(small.targets) == 2
    classes = small.targets.shape[1] if soft else int(np.max(small.targets)) + 1
    if classes > task.num_classes or (soft and classes < task.num_classes):
        raise ValueError(
            f"the condensed labels are of {classes} classes, task {task.name!r} has {task.num_classes}"
        )


_PRESCRIBED = {
    "lr": "learning_rate",
    "steps": "steps",
    "weight_decay": "weight_decay",
    "dropout": "dropout",
    "pooling": "pooling",
    "batch_size": "batch_size",
}


# --- the protocol ---------------------------------------------------------------------------------


def evaluate_graphs(
    small: Condensed | GraphTask | Mapping[str, Condensed],
    task: GraphTask,
    *,
    models: Sequence[str] = ("gin",),
    seeds: int = 5,
    key: Array | None = None,
    protocol: GraphProtocol | None = None,
) -> dict[str, Any]:
    """Accuracy and ROC-AUC on ``task`` of graph networks that are trained on ``small``.

    Args:
      small: a condensed set; or ``task`` itself (or another task), for its training graphs; or several
        condensed sets by name.
      task: the original task.
      models: names of node networks, see `jgd.protocols.evaluate.NETWORKS`.
      seeds: networks of each architecture.
      key: random key; 0 by default.
      protocol: how to train; ``GraphProtocol()`` by default. What a set prescribes (``lr``, ``steps``,
        ``weight_decay``, ``dropout``, ``pooling``, ``batch_size``) wins.

    Returns:
      ``{model: GraphScore}``, or ``{name: {model: GraphScore}}`` for several sets.

    Raises:
      ValueError: for an unknown model, a set that does not belong to the task, a task without a split, or one
        whose labels are not one class for each graph. Graphs whose label is -1 are left out everywhere.
    """
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {seeds}")
    key = jax.random.key(0) if key is None else key
    protocol = GraphProtocol() if protocol is None else protocol
    if isinstance(small, Mapping):
        return {
            name: evaluate_graphs(one, task, models=models, seeds=seeds, key=key, protocol=protocol)
            for name, one in small.items()
        }
    if isinstance(small, Condensed):
        _check(small, task)
        changes = {field: small.train[name] for name, field in _PRESCRIBED.items() if name in small.train}
        protocol = replace(protocol, **changes)
    return {model: _evaluate(small, task, model, seeds, key, protocol) for model in models}


def _evaluate(small, task, model, seeds, key, protocol) -> GraphScore:
    encoder = graph_network(model, task.num_classes, protocol).encoder
    val, test = (_real_set(task, split, encoder) for split in ("val", "test"))
    if protocol.select == "auc" and len(np.unique(val.targets)) < 2:
        raise ValueError(
            f"the validation graphs of task {task.name!r} are of one class, which no ROC-AUC can select by: "
            'use GraphProtocol(select="accuracy") or another split'
        )
    if isinstance(small, Condensed):
        own = _small_set(small, encoder, protocol, task.num_classes)
    else:
        own = _real_set(small, "train", encoder)
        warn_of_missing(small)
    seed = np.asarray(jax.random.key_data(key)).tolist()
    data, batches = graph_splits(
        own,
        val,
        test,
        batch_size=protocol.batch_size,
        steps=protocol.steps,
        seed=seed,
        replace=protocol.replace,
    )
    alg = _algorithm(model, task.num_classes, protocol, seeds)
    history: dict[str, Any] = {}
    start = time.perf_counter()
    nets = InMemory(history)("evaluate", alg, key, data, protocol.steps, batches)
    final = jax.tree.map(np.asarray, _test(nets, data.val, data.test))
    curves = history["evaluate"]
    return GraphScore(
        test=final["test"]["accuracy"],
        val=final["val"]["accuracy"],
        curve=curves["score"].mean(-1),
        loss=curves["loss"].mean(-1),
        seconds=time.perf_counter() - start,
        auc=final["test"]["auc"],
        val_auc=final["val"]["auc"],
    )
