"""A condensed dataset: what every condenser returns and the evaluator trains on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

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
