"""A condensed dataset: what every condenser returns and the evaluator trains on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import jax.numpy as jnp
import jraph
import numpy as np

from jgd.graph.build import adjacency
from jgd.graph.operator import DenseOperator, Negative, Normalization, Operator, SelfLoops, operator

__all__ = ["Condensed"]

Structure = Literal["identity", "raw", "normalized"]


@dataclass(frozen=True, kw_only=True)
class Condensed:
    """A small dataset that carries how it wants to be trained on (a host object, no pytree).

    Attributes:
      data: the examples: a `jraph.GraphsTuple` of ``n`` nodes with features and edge weights, a batch of
        graphs, `DenseGraphs`, or an array.
      targets: ``[n]`` classes or ``[n, C]`` soft labels.
      weights: ``[n]`` weight of each example in the loss, or None.
      preprocess: ``{"op": name, ...arrays}`` applied to real data before the network, or empty.
      extras: named arrays: ``assign`` (original node -> condensed node), ``index`` (chosen nodes), ...
      train: plain JSON values: how to train on it. ``structure``: ``"identity"`` (A' = I), ``"raw"`` (weights
        to be normalised with self loops) or ``"normalized"`` (used as they are); ``targets``: ``"int"``,
        ``"prob"`` or ``"logit"``; ``lr``, ``epochs`` ... where the method prescribes them.
      provenance: plain JSON values: method, config, seed, dataset, ratios, seconds, versions, checksum.
    """

    data: Any
    targets: Any
    weights: Any = None
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
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
        for a training loop of one's own. A set without edges (``structure`` "identity") has A' = I. Weights
        that are ``"normalized"`` hold self loops: where a network asks for the symmetric normalisation with
        loops they are used as they are, and where it asks for none without further loops.

        Args:
          normalize: as in `jgd.graph.operator`; also ``self_loops`` and ``negative``.
          self_loops: loops of a network.
          negative: A' of some methods has negative weights, whose sums count unless this says otherwise.
          threshold: weights below it are no edges.

        Returns:
          A dense operator ``[n, n]``.

        Raises:
          ValueError: for a set that is not one graph of condensed nodes.
        """
        data = self.data
        if not isinstance(data, jraph.GraphsTuple) or len(data.n_node) != 1:
            raise ValueError("only condensed nodes have one operator: of graphs, give each of their graphs")
        negative = "keep" if negative == "refuse" else negative
        structure = self.train.get("structure", "raw")
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
