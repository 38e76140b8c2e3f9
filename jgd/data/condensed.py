"""A condensed dataset: what every condenser returns and the evaluator trains on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import jax.numpy as jnp
import jraph
import numpy as np

from jgd.graph import DenseOperator, Negative, Normalization, Operator, SelfLoops, adjacency, operator
from jgd.registry import Choice

__all__ = ["Condensed", "Training"]


@dataclass(frozen=True, kw_only=True)
class Training:
    """Training of networks on a condensed set, as the set prescribes it.

    A number that is None is that of the evaluator, see `jgd.evaluation.EvalConfig`.

    Attributes:
      adjacency: Meaning of the edge weights: ``"raw"`` (each network normalises them, with its self loops),
        ``"normalized"`` (used as they are; they hold self loops), or ``"identity"`` (A' = I, no edges).
      targets: Meaning of the targets: ``"classes"``, ``"probabilities"`` or ``"logits"``; None for classes
        ``[n]`` and probabilities ``[n, C]``.
      learning_rate: Learning rate.
      steps: Optimiser steps.
      weight_decay: L2 coefficient.
      dropout: Dropout rate.
      batch_size: Examples of a step.
      pooling: Pooling over the nodes of a graph.
      augment: Augmentation of the batches, a name of `jgd.training.AUGMENTATIONS` with its settings.
      preprocess: Transform of the original data that the set belongs to; its arrays are in the extras.
      predictor: Predictor that the set is meant for in place of trained networks, a name of
        `jgd.evaluation.PREDICTORS` with its settings; its arrays are in the extras.
    """

    adjacency: Literal["raw", "normalized", "identity"] = "raw"
    targets: Literal["classes", "probabilities", "logits"] | None = None
    learning_rate: float | None = None
    steps: int | None = None
    weight_decay: float | None = None
    dropout: float | None = None
    batch_size: int | None = None
    pooling: Literal["sum", "mean", "max"] | None = None
    augment: Choice | None = None
    preprocess: Choice | None = None
    predictor: Choice | None = None


@dataclass(frozen=True, kw_only=True)
class Condensed:
    """A small dataset that says how networks are trained on it (a host object, no pytree).

    Attributes:
      data: Examples: a `jraph.GraphsTuple` of ``n`` nodes with features and edge weights, a batch of graphs,
        `DenseGraphs`, or an array.
      targets: Classes ``[n]``, or probabilities or logits ``[n, C]``.
      weights: Weight of each example in the loss ``[n]``, or None.
      training: How networks are trained on it.
      extras: Named arrays: ``assign`` (condensed node of each original node), ``index`` (chosen nodes), ...
      provenance: Plain JSON values: method, config, seed, dataset, ratios, seconds, versions, checksum.
    """

    data: Any
    targets: Any
    weights: Any = None
    training: Training = field(default_factory=Training)
    extras: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def operator(
        self,
        *,
        normalize: Normalization | None = None,
        self_loops: SelfLoops = False,
        negative: Negative = "keep",
        threshold: float = 0.0,
    ) -> Operator:
        """Return the operator that a network reads, as the weights of the condensed nodes are stored.

        `jgd.graph.operator` of this set gives the same: ``operator(small, **net.adjacency)`` is the operator
        for a training loop of one's own. Normalized weights hold self loops: a network that asks for the
        symmetric normalisation with loops reads them as they are, and one that asks for no normalisation
        reads them without further loops.

        Args:
          normalize: Normalisation, see `jgd.graph.operator`.
          self_loops: Self loops that the network adds.
          negative: Treatment of negative weights, see `jgd.graph.operator`. ``"refuse"`` counts as
            ``"keep"``, because A' of some methods has them.
          threshold: Least weight of an edge.

        Returns:
          A dense operator ``[n, n]``.

        Raises:
          ValueError: For a set that is not one graph of condensed nodes.
        """
        data = self.data
        if not isinstance(data, jraph.GraphsTuple) or len(data.n_node) != 1:
            raise ValueError("only condensed nodes have one operator: of graphs, give each of their graphs")
        negative = "keep" if negative == "refuse" else negative
        structure = self.training.adjacency
        size = len(self.targets)
        a = np.eye(size, dtype=np.float32) if structure == "identity" else adjacency(data).toarray()
        if threshold:
            a = np.where(a >= threshold, a, 0)
        stored = structure == "normalized"
        if stored and normalize == "sym" and self_loops:
            return DenseOperator(jnp.asarray(a, jnp.float32))
        loops = False if stored and normalize is None else self_loops
        a = jnp.asarray(a, jnp.float32)
        return operator(a, normalize=normalize, self_loops=loops, negative=negative)
