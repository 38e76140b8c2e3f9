"""What all condensers of graph tasks share: the training graphs, and the record of what was done."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jraph
import numpy as np
from jaxtyping import Array, Int

from jgd.data.checks import need_classes
from jgd.data.condensed import Condensed
from jgd.data.tasks import GraphTask

__all__ = ["condensed_graphs", "training_graphs"]


def training_graphs(task: GraphTask) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Numbers and classes of the graphs that a condenser may see: training graphs whose label is known.

    Raises:
      ValueError: for a task without training graphs, or whose labels are not one class for each.
    """
    need_classes(task, "condensing")
    index = np.flatnonzero(task.labelled())
    return index, np.asarray(task.labels)[index].astype(np.int64)


def condensed_graphs(
    recipe: Any,
    key: Array,
    task: GraphTask,
    *,
    graphs: jraph.GraphsTuple,
    labels: Any,
    weights: Any = None,
    extras: dict[str, Any] | None = None,
    train: dict[str, Any] | None = None,
    record: dict[str, Any] | None = None,
) -> Condensed:
    """Wrap condensed graphs, with a record of where they come from.

    Args:
      recipe: the method, a dataclass whose fields are its settings.
      key: its random key.
      task: the original task.
      graphs: the graphs, joined.
      labels: ``[G]`` classes or ``[G, C]`` probabilities.
      weights: ``[G]`` of the examples in the loss, or None.
      extras: further arrays; ``"root"`` is a mask of the nodes that pooling reads.
      train: further settings of the training.
      record: further entries of the provenance, plain JSON values.
    """
    index, _ = training_graphs(task)
    labels = np.asarray(labels)
    kind = "int" if labels.ndim == 1 else "prob"
    original = int(np.asarray(task.graphs.n_node)[index].sum())
    size = int(np.sum(graphs.n_node))
    return Condensed(
        data=graphs,
        targets=labels.astype(np.int32) if kind == "int" else labels.astype(np.float32),
        weights=None if weights is None else np.asarray(weights, np.float32),
        extras={k: np.asarray(v) for k, v in (extras or {}).items()},
        train={"structure": "raw", "targets": kind, **(train or {})},
        provenance={
            "method": type(recipe).__name__.lower(),
            "config": dataclasses.asdict(recipe),
            "key": np.asarray(jax.random.key_data(key)).tolist(),
            "dataset": task.name,
            "graphs": len(labels),
            "nodes": size,
            "edges": int(np.sum(graphs.n_edge)),
            "graph_ratio": len(labels) / len(index),
            "node_ratio": size / original,
            **(record or {}),
        },
    )
