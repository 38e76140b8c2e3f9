"""Architecture search on a condensed graph: does it rank networks as the whole graph does?

Training a network on a condensed graph costs a fraction of training it on the whole one. A search over
architectures can therefore run there, and only its winner is trained on the whole graph. That works as far as
the two orders agree. Every architecture of a grid is trained on both, with the same protocol and seeds; the
orders are those of the accuracies on the original validation nodes (Jin et al., ICLR 2022, section 4.3,
report Pearson's correlation; ranks are what a search needs, so here it is Spearman's and Kendall's).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Float
from scipy import stats

from jgd.data import Condensed, NodeTask
from jgd.evaluation._evaluate import evaluate
from jgd.evaluation.config import EvalConfig
from jgd.evaluation.kinds.nodes import NODES
from jgd.evaluation.scores import Scores
from jgd.nn import NETWORKS
from jgd.nn.zoo import members
from jgd.registry import choose

__all__ = ["Architecture", "Search", "architecture_grid", "search"]


@dataclass(frozen=True)
class Architecture:
    """A network of a grid; settings that its kind does not have are None.

    Attributes:
      kind: Name in `jgd.nn.NETWORKS`.
      hidden: Width of the hidden layers.
      layers: Number of layers.
      hops: Number of propagations, for networks that propagate apart from their layers.
      dropout: Dropout rate.
    """

    kind: str
    hidden: int | None = None
    layers: int | None = None
    hops: int | None = None
    dropout: float | None = None

    def network(self, num_classes: int) -> nn.Module:
        """Return the network."""
        return NETWORKS[self.kind].make(num_classes=num_classes, **self._given())  # pyright: ignore

    def _given(self) -> dict[str, Any]:
        names = [f.name for f in fields(self)[1:]]
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def __str__(self) -> str:
        return " ".join([self.kind, *(f"{name}={value}" for name, value in self._given().items())])


def architecture_grid(
    kinds: Sequence[str] = ("gcn", "sgc", "appnp", "sage", "cheb"),
    *,
    hidden: Sequence[int] = (16, 64, 256),
    layers: Sequence[int] = (1, 2, 3),
    hops: Sequence[int] = (2, 5, 10),
    dropout: Sequence[float] = (0.0, 0.5),
) -> tuple[Architecture, ...]:
    """Return all architectures of some kinds, each in every size that it can have.

    A network of one layer has no hidden width and appears once.

    Args:
      kinds: Names in `jgd.nn.NETWORKS`.
      hidden: Widths of the hidden layers.
      layers: Numbers of layers.
      hops: Numbers of propagations of sgc, appnp and gprgnn.
      dropout: Dropout rates.

    Raises:
      ValueError: For an unknown kind or an empty axis.
    """
    axes: dict[str, Sequence[Any]] = {"hidden": hidden, "layers": layers, "hops": hops, "dropout": dropout}
    if empty := [name for name, values in axes.items() if not values]:
        raise ValueError(f"no values of {', '.join(empty)}: the grid is empty")
    found: dict[Architecture, None] = {}
    for kind in kinds:
        choose("network", kind, members("nodes"))
        own = [name for name in axes if name in NETWORKS[kind].make.__dataclass_fields__]
        for values in itertools.product(*(axes[name] for name in own)):
            chosen = dict(zip(own, values, strict=True))
            if chosen.get("layers") == 1:
                chosen.pop("hidden", None)
            found[Architecture(kind, **chosen)] = None
    return tuple(found)


@dataclass(frozen=True)
class Search:
    """The architectures of a grid, on a condensed and on the whole graph.

    Attributes:
      architectures: The grid.
      condensed: Scores of networks trained on the condensed graph, in the same order.
      full: Scores of networks trained on the whole graph.
      seconds: Time of the search on the ``"condensed"`` and on the ``"full"`` graph, compilation included;
        several condensed graphs share theirs.
    """

    architectures: tuple[Architecture, ...]
    condensed: tuple[Scores, ...]
    full: tuple[Scores, ...]
    seconds: Mapping[str, float]

    def _means(self, scores: Sequence[Scores]) -> Float[np.ndarray, " A"]:
        return np.asarray([score.val_mean for score in scores])

    @property
    def spearman(self) -> float:
        """Rank correlation of the validation accuracies, in -1..1; NaN where one of them is constant."""
        return _correlation(stats.spearmanr, self._means(self.condensed), self._means(self.full))

    @property
    def kendall(self) -> float:
        """Kendall's tau-b of the same: of two architectures, how often both agree which is better."""
        return _correlation(stats.kendalltau, self._means(self.condensed), self._means(self.full))

    @property
    def found(self) -> int:
        """Number of the architecture that the search on the condensed graph finds; the first of equals."""
        return int(np.argmax(self._means(self.condensed)))

    @property
    def best(self) -> int:
        """Number of the architecture that a search on the whole graph finds."""
        return int(np.argmax(self._means(self.full)))

    def summary(self) -> dict[str, Any]:
        """Return plain numbers for JSON; accuracies are those of networks trained on the whole graph."""
        return {
            "architectures": len(self.architectures),
            "spearman": self.spearman,
            "kendall": self.kendall,
            "found": str(self.architectures[self.found]),
            "found_test": self.full[self.found].test_mean,
            "best": str(self.architectures[self.best]),
            "best_test": self.full[self.best].test_mean,
            "mean_test": float(np.mean([score.test_mean for score in self.full])),
            "seconds": dict(self.seconds),
        }


def _correlation(measure: Callable[..., Any], a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(measure(a, b).statistic)


def search(
    small: Condensed | Mapping[str, Condensed],
    task: NodeTask,
    architectures: Sequence[Architecture] | None = None,
    *,
    seeds: int = 3,
    key: Array | None = None,
    config: EvalConfig = NODES.config,
    log: Callable[[str], None] = lambda text: None,
) -> Any:
    """Train every architecture on condensed graphs and on the whole graph, and compare the two orders.

    Seeds, and condensed graphs of one size, run at once; each architecture is compiled once for each size.

    Args:
      small: A condensed graph, or several by name.
      task: The original task.
      architectures: The grid; that of `architecture_grid` by default.
      seeds: Networks of each architecture on each graph; their mean counts.
      key: Random key; 0 by default.
      config: How networks are trained; its width and dropout are those of the architectures.
      log: Called with one line before each architecture.

    Returns:
      A `Search`, or ``{name: Search}``.

    Raises:
      ValueError: As `evaluate`, and for an empty grid.
    """
    if not isinstance(small, Mapping):
        return search({"": small}, task, architectures, seeds=seeds, key=key, config=config, log=log)[""]
    architectures = architecture_grid() if architectures is None else tuple(architectures)
    if not architectures:
        raise ValueError("the grid is empty")
    options: dict[str, Any] = {"seeds": seeds, "key": key, "config": config}
    condensed: dict[str, list[Scores]] = {name: [] for name in small}
    full: list[Scores] = []
    seconds = {"condensed": 0.0, "full": 0.0}
    for i, architecture in enumerate(architectures):
        log(f"{i + 1} of {len(architectures)}: {architecture}")
        net = architecture.network(task.num_classes)
        start = time.perf_counter()
        for name, scores in evaluate(small, task, networks=[net], **options).items():
            condensed[name].append(scores[net])
        between = time.perf_counter()
        full.append(evaluate(task, task, networks=[net], **options)[net])
        seconds["condensed"] += between - start
        seconds["full"] += time.perf_counter() - between
    return {
        name: Search(architectures, tuple(scores), tuple(full), seconds) for name, scores in condensed.items()
    }
