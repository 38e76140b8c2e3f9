"""A named experiment: everything that `jgd condense` and `jgd run` do, as one typed value."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from jgd.condense import Average, Clustering, ClustGDD, Degree, Herding, KCenter, PageRank, Random
from jgd.condense.clustgdd import official  # jgd.condense.clustgdd is the class: the module's name lost
from jgd.core import Recipe
from jgd.data.tasks import NodeTask
from jgd.protocols.compare import BASELINES
from jgd.protocols.evaluate import NETWORKS, PUBLISHED, Protocol

__all__ = ["DIGITS", "METHODS", "Experiment", "Method", "default_experiment", "method_name", "named"]


class Method(NamedTuple):
    """A condenser that can be named.

    Attributes:
      recipe: makes the recipe from its settings, ``label_ratio`` and ``nodes`` among them.
      paper: where it comes from.
      setting: what it can condense.
      cost: how long it takes: ``"none"`` (no training), ``"seconds"`` (one small network), ``"minutes"``,
        ``"hours"`` (bilevel).
      summary: what it does, in one line.
    """

    recipe: Callable[..., Recipe]
    paper: str
    setting: str
    cost: str
    summary: str


_ANY = "transductive, inductive"

METHODS: dict[str, Method] = {
    "clustgdd": Method(
        ClustGDD, "Lai et al. 2025", _ANY, "seconds", "cluster all nodes by the logits of a linear head"
    ),
    "random": Method(Random, "-", _ANY, "none", "labelled nodes chosen at random in each class"),
    "herding": Method(
        Herding, "Welling 2009", _ANY, "seconds", "labelled nodes whose mean embedding is their class's"
    ),
    "k-center": Method(
        KCenter, "Sener & Savarese 2018", _ANY, "seconds", "labelled nodes that cover the embeddings"
    ),
    "degree": Method(Degree, "-", _ANY, "none", "labelled nodes with most edges"),
    "pagerank": Method(PageRank, "Page et al. 1999", _ANY, "none", "labelled nodes with highest PageRank"),
    "average": Method(Average, "-", _ANY, "none", "the mean of each class"),
    "average-sgc": Method(
        partial(Average, hops=2), "-", _ANY, "none", "the mean of each class after two propagations"
    ),
    "clustering": Method(Clustering, "-", _ANY, "none", "k-means in each class, without edges"),
}
"""The condensers by the name that the command line knows; a new one is one entry."""


def named(kind: str, name: str, known: Iterable[str] | Mapping[str, Any]) -> str:
    """The name, if it is known.

    Raises:
      ValueError: else, saying which names are close.
    """
    known = list(known)
    if name in known:
        return name
    close = difflib.get_close_matches(name.lower(), known, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(known)}"
    raise ValueError(f"no {kind} is called {name!r}: {hint}")


def method_name(recipe: Any) -> str:
    """The name of a recipe in `METHODS`, or that of its class in lower case."""
    for exact in (True, False):
        for name, method in METHODS.items():
            usual: Any = method.recipe()
            if type(usual) is not type(recipe):
                continue
            sized = replace(usual, label_ratio=recipe.label_ratio, nodes=recipe.nodes)
            if not exact or sized == recipe:
                return name
    return type(recipe).__name__.lower()


@dataclass(frozen=True)
class Experiment:
    """Condense a dataset with a recipe and evaluate the result.

    Attributes:
      dataset: name, see `jgd datasets`.
      setting: whether the condenser sees the whole graph, or only the subgraph of the training nodes.
      recipe: the method with its settings, see `jgd methods`.
      models: architectures to evaluate with: gcn, sgc, sage, gat, appnp, cheb, gin, mlp, gprgnn.
      seeds: networks of each architecture.
      baselines: what to compare with: random, herding, k-center, average, average-sgc.
      protocol: how networks are trained.
      seed: of the random key.
    """

    dataset: str = "digits"
    setting: Literal["transductive", "inductive"] = "transductive"
    recipe: Any = field(default_factory=ClustGDD)
    models: tuple[str, ...] = ("gcn",)
    seeds: int = 5
    baselines: tuple[str, ...] = tuple(BASELINES)
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
        for kind, names, known in (("model", self.models, NETWORKS), ("baseline", self.baselines, BASELINES)):
            for name in names:
                named(kind, name, known)
            if len(set(names)) < len(names):
                raise ValueError(f"a {kind} is named twice in {', '.join(names)}")
        if not self.models:
            raise ValueError(f"name at least one model: {', '.join(NETWORKS)}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
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
    if method != "clustgdd":
        recipe = METHODS[method].recipe(label_ratio=label_ratio, nodes=nodes)
    elif small:
        recipe = ClustGDD(label_ratio=label_ratio, nodes=nodes, **DIGITS)
    else:
        ratio = label_ratio
        if nodes is not None and nodes > 0 and task is not None and task.train is not None:
            ratio = nodes / max(1, int(np.sum(task.train)))
        recipe = official(dataset, ratio, nodes)
        recipe = replace(recipe, label_ratio=label_ratio, nodes=nodes)
    if not small:
        return Experiment(dataset, recipe=recipe, protocol=PUBLISHED)
    protocol = Protocol(epochs=200, hidden=64, select_every=5)
    return Experiment(dataset, recipe=recipe, models=("gcn", "mlp"), protocol=protocol)
