"""Architecture search on a condensed graph: does it rank networks as the whole graph does?

Training a network on a condensed graph costs a fraction of training it on the whole one, so a search over
architectures can run there, and only its winner be trained on the whole graph. That works as far as the two
orders agree. Every architecture of a grid is trained on both, with the same protocol and seeds; the orders
are those of the accuracies on the original validation nodes (Jin et al., ICLR 2022, section 4.3, report
Pearson's correlation; ranks are what a search needs, so here it is Spearman's and Kendall's).
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

from jgd.data.condensed import Condensed
from jgd.data.tasks import NodeTask
from jgd.protocols.evaluate import NETWORKS, PUBLISHED, Protocol, Score, evaluate

__all__ = ["Architecture", "Search", "grid", "search"]


@dataclass(frozen=True)
class Architecture:
    """A network of a grid; what its kind does not have is None.

    Attributes:
      kind: name in `jgd.protocols.NETWORKS`.
      hidden: width of the hidden layers.
      layers: number of layers.
      hops: number of propagations, of the networks that propagate apart from their layers.
      dropout: rate.
    """

    kind: str
    hidden: int | None = None
    layers: int | None = None
    hops: int | None = None
    dropout: float | None = None

    def network(self, num_classes: int) -> nn.Module:
        """The network."""
        return NETWORKS[self.kind](num_classes=num_classes, **self._given())  # pyright: ignore

    def _given(self) -> dict[str, Any]:
        names = [f.name for f in fields(self)[1:]]
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def __str__(self) -> str:
        return " ".join([self.kind, *(f"{name}={value}" for name, value in self._given().items())])


def grid(
    kinds: Sequence[str] = ("gcn", "sgc", "appnp", "sage", "cheb"),
    *,
    hidden: Sequence[int] = (16, 64, 256),
    layers: Sequence[int] = (1, 2, 3),
    hops: Sequence[int] = (2, 5, 10),
    dropout: Sequence[float] = (0.0, 0.5),
) -> tuple[Architecture, ...]:
    """All architectures of some kinds, each in every size that it can have.

    The width says nothing of a network of one layer, which then appears once.

    Args:
      kinds: names in `jgd.protocols.NETWORKS`.
      hidden: widths of the hidden layers.
      layers: depths.
      hops: numbers of propagations of sgc, appnp and gprgnn.
      dropout: rates.

    Raises:
      ValueError: for an unknown kind or an empty axis.
    """
    axes: dict[str, Sequence[Any]] = {"hidden": hidden, "layers": layers, "hops": hops, "dropout": dropout}
    if empty := [name for name, values in axes.items() if not values]:
        raise ValueError(f"no values of {', '.join(empty)}: the grid is empty")
    found: dict[Architecture, None] = {}
    for kind in kinds:
        if kind not in NETWORKS:
            raise ValueError(f"unknown network {kind!r}; there are {', '.join(NETWORKS)}")
        own = [name for name in axes if name in NETWORKS[kind].__dataclass_fields__]
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
      architectures: the grid.
      condensed: scores of networks trained on the condensed graph, in the same order.
      full: scores of networks trained on the whole graph.
      seconds: time of the search on the ``"condensed"`` and on the ``"full"`` graph, compilation included;
        several condensed graphs share theirs.
    """

    architectures: tuple[Architecture, ...]
    condensed: tuple[Score, ...]
    full: tuple[Score, ...]
    seconds: Mapping[str, float]

    def _means(self, scores: Sequence[Score]) -> Float[np.ndarray, " A"]:
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
        """Plain numbers for JSON; accuracies are those of networks trained on the whole graph."""
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
    protocol: Protocol = PUBLISHED,
    say: Callable[[str], None] = lambda text: None,
) -> Any:
    """Train every architecture on condensed graphs and on the whole graph, and compare the two orders.

    Seeds, and condensed graphs of one size, run at once; each architecture is compiled once for each size.

    Args:
      small: a condensed graph, or several by name.
      task: the original task.
      architectures: the grid; `grid` makes one, by default with the default axes.
      seeds: networks of each architecture on each graph; their mean counts.
      key: random key; 0 by default.
      protocol: how to train; its width and dropout are those of the architectures.
      say: told what begins.

    Returns:
      A `Search`, or ``{name: Search}``.

    Raises:
      ValueError: see `evaluate`, and for an empty grid.
    """
    if not isinstance(small, Mapping):
        return search({"": small}, task, architectures, seeds=seeds, key=key, protocol=protocol, say=say)[""]
    architectures = grid() if architectures is None else tuple(architectures)
    if not architectures:
        raise ValueError("the grid is empty")
    options: dict[str, Any] = {"seeds": seeds, "key": key, "protocol": protocol}
    condensed: dict[str, list[Score]] = {name: [] for name in small}
    full: list[Score] = []
    seconds = {"condensed": 0.0, "full": 0.0}
    for i, architecture in enumerate(architectures):
        say(f"{i + 1} of {len(architectures)}: {architecture}")
        net = architecture.network(task.num_classes)
        start = time.perf_counter()
        for name, scores in evaluate(small, task, models=[net], **options).items():
            condensed[name].append(scores[net])
        between = time.perf_counter()
        full.append(evaluate(task, task, models=[net], **options)[net])
        seconds["condensed"] += between - start
        seconds["full"] += time.perf_counter() - between
    return {
        name: Search(architectures, tuple(scores), tuple(full), seconds) for name, scores in condensed.items()
    }
