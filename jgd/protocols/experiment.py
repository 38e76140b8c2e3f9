"""A named experiment: everything that `jgd condense` and `jgd run` do, as one typed value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jgd.condense import ClustGDD
from jgd.protocols.compare import BASELINES
from jgd.protocols.evaluate import Protocol

__all__ = ["Experiment"]


@dataclass(frozen=True)
class Experiment:
    """Condense a dataset with a recipe and evaluate the result.

    Attributes:
      dataset: name, see `jgd datasets`.
      recipe: the method with its settings, see `jgd methods`.
      models: architectures to evaluate with.
      seeds: networks of each architecture.
      baselines: what to compare with.
      protocol: how networks are trained.
      seed: of the random key.
    """

    dataset: str = "digits"
    recipe: Any = field(default_factory=ClustGDD)
    models: tuple[str, ...] = ("gcn",)
    seeds: int = 5
    baselines: tuple[str, ...] = tuple(BASELINES)
    protocol: Protocol = field(default_factory=Protocol)
    seed: int = 0
