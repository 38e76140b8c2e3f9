"""A named experiment: everything that `jgd condense` and `jgd run` do, as one typed value."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal

import numpy as np

from jgd.condense import ClustGDD
from jgd.data.tasks import NodeTask
from jgd.protocols.evaluate import NETWORKS, PUBLISHED, Protocol
from jgd.protocols.methods import BASELINES, METHODS, method_name, named, preferred

__all__ = ["DIGITS", "Experiment", "default_experiment"]


@dataclass(frozen=True)
class Experiment:
    """Condense a dataset with a recipe and evaluate the result.

    Attributes:
      dataset: name, see `jgd datasets`.
      setting: whether the condenser sees the whole graph, or only the subgraph of the training nodes.
      recipe: the method with its settings, see `jgd methods`.
      models: architectures to evaluate with: gcn, sgc, sage, gat, appnp, cheb, gin, mlp, gprgnn.
      seeds: networks of each architecture.
      baselines: methods to compare with, of the same size; random, herding, k-center, average, average-sgc.
      protocol: how networks are trained.
      seed: of the random key.
    """

    dataset: str = "digits"
    setting: Literal["transductive", "inductive"] = "transductive"
    recipe: Any = field(default_factory=ClustGDD)
    models: tuple[str, ...] = ("gcn",)
    seeds: int = 5
    baselines: tuple[str, ...] = BASELINES
    protocol: Protocol = field(default_factory=Protocol)
    seed: int = 0

    @property
    def method(self) -> str:
        """The name of the recipe."""
        return method_name(self.recipe)

    def check(self) -> None:
        """Refuse what cannot be run whatever the data, before anything is loaded.

        Raises:
          ValueError: for an unknown name or an impossible number.
        """
        for kind, names, known in (("model", self.models, NETWORKS), ("baseline", self.baselines, METHODS)):
            for name in names:
                named(kind, name, known)
            if len(set(names)) < len(names):
                raise ValueError(f"a {kind} is named twice in {', '.join(names)}")
        if not self.models:
            raise ValueError(f"name at least one model: {', '.join(NETWORKS)}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if self.seed >= 2**32:  # as random keys of JAX have 32 bits, others would repeat
            raise ValueError(f"seed must be less than 2**32 = {2**32}, got {self.seed}")
        for name, value in (
            ("seeds", self.seeds),
            ("epochs", self.protocol.epochs),
            ("hidden", self.protocol.hidden),
            ("select_every", self.protocol.select_every),
        ):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 <= self.protocol.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.protocol.dropout}")
        if not callable(self.recipe) or not is_dataclass(self.recipe):
            raise ValueError("recipe must be one of jgd.condense, or a dataclass that is called like one")

    def settings(self) -> dict[str, Any]:
        """All fields as plain values under dotted names, for comparing and writing down."""
        return dict(_flat(self))


def _flat(value: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    for f in fields(value):
        inner = getattr(value, f.name)
        if is_dataclass(inner):
            yield f"{prefix}{f.name}", type(inner).__name__
            yield from _flat(inner, f"{prefix}{f.name}.")
        else:
            yield f"{prefix}{f.name}", list(inner) if isinstance(inner, tuple) else inner


DIGITS: dict[str, Any] = {"terms": 10, "refine_steps": 200}
"""Settings of ClustGDD on the embedded digits that differ from the defaults, chosen on validation nodes."""


def default_experiment(
    dataset: str = "digits",
    method: str = "clustgdd",
    *,
    label_ratio: float | None = None,
    nodes: int | None = None,
    task: NodeTask | None = None,
) -> Experiment:
    """What ``jgd condense DATASET`` runs: the authors' settings where they are known.

    Args:
      dataset: name, see `jgd.data.datasets`.
      method: name in `METHODS`.
      label_ratio: condensed nodes for each labelled node; 0.25 for the digits and 0.5 else, by default.
      nodes: number of condensed nodes, instead of the ratio.
      task: the dataset, to tell which ratio ``nodes`` is.

    Returns:
      The experiment; `dataclasses.replace` changes it.

    Raises:
      ValueError: for an unknown method, or a ratio and a number of nodes at once.
    """
    named("method", method, METHODS)
    if label_ratio is not None and nodes is not None:
        raise ValueError("say how small by label_ratio or by nodes, not by both")
    if label_ratio is not None and not 0 < label_ratio <= 1:
        raise ValueError(f"label_ratio must be in (0, 1], got {label_ratio}")
    small = dataset == "digits"
    if nodes is None and label_ratio is None:
        label_ratio = 0.25 if small else 0.5
    near = None
    if nodes is not None and nodes > 0 and task is not None and task.train is not None:
        near = nodes / max(1, int(np.sum(task.train)))
    recipe = preferred(method, dataset, label_ratio, nodes, near=near)
    if method == "clustgdd" and small:
        recipe = replace(recipe, **DIGITS)
    if not small:
        return Experiment(dataset, recipe=recipe, protocol=PUBLISHED)
    protocol = Protocol(epochs=200, hidden=64, select_every=5)
    return Experiment(dataset, recipe=recipe, models=("gcn", "mlp"), protocol=protocol)
