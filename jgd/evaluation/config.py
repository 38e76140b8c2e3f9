"""Configuration of the training in an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jgd.data.checks import as_word
from jgd.nn.zoo import members
from jgd.registry import choose

__all__ = ["EvalConfig", "Pooling"]

Pooling = Literal["sum", "mean", "max"]


@dataclass(frozen=True)
class EvalConfig:
    """Training of networks on a set, and selection of their best state.

    The defaults are the published protocol of node condensation; ``jgd.evaluation.KINDS`` has the defaults of
    each kind of data. What a condensed set prescribes wins.

    Attributes:
      steps: Optimiser steps. The learning rate falls to a tenth at half of them.
      learning_rate: Learning rate of Adam.
      weight_decay: L2 coefficient.
      hidden: Width of the hidden layers.
      layers: Number of layers; None for that of the architecture.
      dropout: Dropout rate.
      batch_size: Examples of a step; None for all at once, as a single graph is always read.
      select: Metric on the validation examples that chooses the state.
      select_every: Steps between validation checks.
      threshold: Least edge weight of a condensed graph for the networks in ``thresholded``.
      thresholded: Networks for which weaker edges are removed. The default is the one that attends to edges
        without regard to their weight (GAT). Benchmarks also use 0.5 for gat, cheb and sage, or 0.01 to 0.05
        for all.
      pooling: Pooling over the nodes of a graph, for sets of graphs.
      by_weight: Whether examples are drawn in proportion to their weights, in place of weighting the loss.
    """

    steps: int = 600
    learning_rate: float = 0.01
    weight_decay: float = 5e-4
    hidden: int = 256
    layers: int | None = None
    dropout: float = 0.5
    batch_size: int | None = None
    select: str = "accuracy"
    select_every: int = 1
    threshold: float = 0.05
    thresholded: tuple[str, ...] = ("gat",)
    pooling: Pooling = "sum"
    by_weight: bool = False

    def __post_init__(self):
        """Refuse impossible settings."""
        as_word("pooling", self.pooling, Pooling)
        for name in ("steps", "hidden", "layers", "batch_size", "select_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if self.learning_rate <= 0 or self.weight_decay < 0:
            raise ValueError(
                "learning_rate must be positive and weight_decay not negative, got "
                f"{self.learning_rate} and {self.weight_decay}"
            )
        if self.select_every > self.steps:
            raise ValueError(
                f"{self.steps} steps have no validation check at select_every={self.select_every}: lower it"
            )
        for name in self.thresholded:
            choose("network in thresholded", name, members("nodes"))
