"""A named experiment: everything that `jgd condense` and `jgd run` do, as one typed value."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

import numpy as np

from jgd.condense import METHODS, ClustGDD
from jgd.condense.common import method_name
from jgd.evaluation.config import EvalConfig
from jgd.evaluation.kinds import KINDS, Kind, kind_of
from jgd.registry import choose

__all__ = ["Experiment", "check_counts", "check_names", "default_experiment", "parsed_settings"]


@dataclass(frozen=True)
class Experiment:
    """Condense a dataset with a recipe and evaluate the result.

    Attributes:
      dataset: Name of a dataset, see `jgd datasets`, or path of your own data.
      setting: Whether a condenser of nodes sees the whole graph, or only the subgraph of the training nodes.
      recipe: Method with its settings, see `jgd methods`.
      networks: Architectures to evaluate with.
      seeds: Networks of each architecture and set.
      baselines: Methods to compare with, at the same size.
      config: How networks are trained.
      seed: Random seed.
    """

    dataset: str = "digits"
    setting: Literal["transductive", "inductive"] = "transductive"
    recipe: Any = field(default_factory=ClustGDD)
    networks: tuple[str, ...] = ("gcn",)
    seeds: int = 5
    baselines: tuple[str, ...] = ("random", "herding", "k-center", "average", "average-sgc")
    config: EvalConfig = field(default_factory=EvalConfig)
    seed: int = 0

    @property
    def method(self) -> str:
        """Name of the recipe."""
        return method_name(self.recipe)

    def check(self, kind: Kind | None = None) -> None:
        """Refuse what cannot be run whatever the data, before anything is loaded.

        Args:
          kind: Kind of the data, where it is known.

        Raises:
          ValueError: For an unknown name or an impossible number.
        """
        kinds = _kinds_of_method(self.method) if kind is None else (kind,)
        known = {"network": [name for kind in kinds for name in kind.networks]}
        known["baseline"] = [name for kind in kinds for name in METHODS.of_kind(kind.name)]
        for what, names in (("network", self.networks), ("baseline", self.baselines)):
            if what == "baseline" or all(kind.name != "arrays" for kind in kinds):
                for name in names:  # those of arrays have numbers that depend on the data
                    choose(what, name, dict.fromkeys(known[what]))
            if len(set(names)) < len(names):
                raise ValueError(f"a {what} is named twice in {', '.join(names)}")
        if not self.networks:
            raise ValueError(f"name at least one network: {', '.join(dict.fromkeys(known['network']))}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if self.seed >= 2**32:  # as random keys of JAX have 32 bits, others would repeat
            raise ValueError(f"seed must be less than 2**32 = {2**32}, got {self.seed}")
        check_counts(seeds=self.seeds)
        if not callable(self.recipe) or not is_dataclass(self.recipe):
            raise ValueError("recipe must be one of jgd.condense, or a dataclass that is called like one")

    def settings(self) -> dict[str, Any]:
        """Return all fields as plain values under dotted names, for comparing and writing down."""
        return dict(_flat(self))


def _flat(value: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    for f in fields(value):
        inner = getattr(value, f.name)
        if is_dataclass(inner):
            yield f"{prefix}{f.name}", type(inner).__name__
            yield from _flat(inner, f"{prefix}{f.name}.")
        else:
            yield f"{prefix}{f.name}", list(inner) if isinstance(inner, tuple) else inner


_DIGITS = EvalConfig(steps=200, hidden=64, select_every=5)


_SIZES = {"label_ratio", "nodes", "per_class"}


def default_experiment(
    dataset: str = "digits", method: str | None = None, *, task: Any = None, **settings: Any
) -> Experiment:
    """Return what ``jgd condense DATASET`` runs: the authors' settings where they are known.

    Args:
      dataset: Name of the dataset, see `jgd.data.datasets`.
      method: Name of the method, see `jgd methods`; by default the usual one of the kind of data.
      task: The dataset, to know its kind, and which ratio ``nodes`` is.
      **settings: Settings of the method, such as ``label_ratio`` (condensed nodes for each labelled node;
        0.25 for the digits and 0.5 else, by default) or ``nodes`` in place of it.

    Returns:
      The experiment; `dataclasses.replace` changes it.

    Raises:
      ValueError: For an unknown method or setting, or a ratio and a number of nodes at once.
    """
    if method is not None:
        choose("method", method, METHODS)
    if task is None:
        kind = KINDS["nodes"].make() if method is None else _kinds_of_method(method)[0]
    else:
        kind = kind_of(task)
    method = choose(f"method for {kind.name}", method or kind.method, METHODS.of_kind(kind.name))
    settings = {name: value for name, value in settings.items() if value is not None}
    ratio, nodes = settings.get("label_ratio"), settings.get("nodes")
    if ratio is not None and nodes is not None:
        raise ValueError("say how small by label_ratio or by nodes, not by both")
    if ratio is not None and not 0 < ratio <= 1:
        raise ValueError(f"label_ratio must be in (0, 1], got {ratio}")
    small = dataset == "digits"
    if not _SIZES & set(settings):
        usual = {"label_ratio": 0.25} if small else kind.usual
        known = inspect.signature(METHODS[method].make).parameters
        settings |= {name: value for name, value in usual.items() if name in known}
    if nodes and nodes > 0 and kind.budget == "label_ratio" and task is not None and task.train is not None:
        settings["near"] = nodes / max(1, int(np.sum(task.train)))
    recipe = METHODS.official(method, dataset, **settings)
    networks = ("gcn", "mlp") if small else kind.networks[:1]
    config = _DIGITS if small else kind.config
    return Experiment(dataset, recipe=recipe, networks=networks, baselines=kind.baselines, config=config)


def _kinds_of_method(name: str) -> tuple[Kind, ...]:
    """Return the kinds of data that a method is for; nodes for a method of the user's own."""
    return tuple(KINDS[kind].make() for kind in (METHODS[name].kinds if name in METHODS else ("nodes",)))


def parsed_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Return settings from texts such as ``"steps=500"``: Python literals where they are some, else words.

    Args:
      texts: One text for each setting.

    Raises:
      ValueError: For a text without a name or a value.
    """
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier() or not value:
            raise ValueError(f"a setting is written NAME=VALUE, e.g. steps=500, got {text!r}")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found


def check_counts(**counts: int) -> None:
    """Refuse numbers of things below one.

    Args:
      **counts: Numbers by name.

    Raises:
      ValueError: For such a number.
    """
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def check_names(
    methods: Sequence[str] | None = None,
    sizes: Sequence[float] | None = None,
    networks: Sequence[str] | None = None,
) -> None:
    """Refuse lists of names and sizes that are empty or have something twice.

    Args:
      methods: Names of methods, or None.
      sizes: Sizes, or None.
      networks: Names of networks, or None.

    Raises:
      ValueError: For such a list, or an unknown method.
    """
    for what, values in (("method", methods), ("size", sizes), ("network", networks)):
        if values is None:
            continue
        if not values:
            raise ValueError(f"name at least one {what}")
        if len(set(values)) < len(values):
            raise ValueError(f"a {what} is named twice in {', '.join(map(str, values))}")
    for name in methods or ():
        METHODS[name]
