"""Condense a set of graphs, and compare with all training graphs and with graphs chosen at the same size."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from jgd.core import Loop, Recipe, in_memory
from jgd.data.condensed import Condensed
from jgd.data.tasks import GraphTask
from jgd.graph import select_graphs
from jgd.protocols.compare import graph_bytes, versions
from jgd.protocols.graphs import GraphProtocol, GraphScore, evaluate_graphs, joined
from jgd.protocols.methods import GRAPH_BASELINES, GRAPH_METHODS, named

__all__ = ["GraphComparison", "compare_graphs"]


@dataclass(frozen=True)
class GraphComparison:
    """Condensed graphs beside all training graphs and baselines of the same number of nodes.

    Attributes:
      task: the original task.
      method: name of the method, the first key of ``condensed``.
      condensed: condensed sets by name.
      scores: ``{name: {model: GraphScore}}``, with ``"full"`` for all training graphs.
      seconds: time of each part: ``"condense"`` (the method), ``"evaluate"`` (all), and each set by name.
      protocol: how the networks were trained.
    """

    task: GraphTask
    method: str
    condensed: Mapping[str, Condensed]
    scores: Mapping[str, Mapping[str, GraphScore]]
    seconds: Mapping[str, float]
    protocol: GraphProtocol = field(default_factory=GraphProtocol)

    @property
    def small(self) -> Condensed:
        """The condensed set of the method."""
        return self.condensed[self.method]

    def rows(self) -> list[dict[str, Any]]:
        """One row for each set, all training graphs first: what tables show."""
        index = np.flatnonzero(np.asarray(self.task.train))
        everything = select_graphs(self.task.graphs, index), np.asarray(self.task.labels)[index]
        rows = []
        for name, scores in self.scores.items():
            data, labels = (
                everything if name == "full" else (self.condensed[name].data, self.condensed[name].targets)
            )
            graphs = joined(data)
            rows.append(
                {
                    "name": name,
                    "graphs": len(labels),
                    "nodes": int(np.sum(graphs.n_node)),
                    "edges": int(np.sum(graphs.n_edge)),
                    "bytes": graph_bytes(graphs, labels),
                    "scores": scores,
                    "seconds": self.seconds.get(name),
                }
            )
        return rows

    def metrics(self, *, command: str = "", seed: int | None = None) -> dict[str, Any]:
        """Everything as plain JSON values; accuracies and areas are fractions in 0..1."""

        def plain(scores):
            return {model: score.summary() for model, score in scores.items()}

        rows = {row.pop("name"): row for row in self.rows()}
        sizes = {
            name: {k: row[k] for k in ("graphs", "nodes", "edges", "bytes")} for name, row in rows.items()
        }
        others = [name for name in self.scores if name not in ("full", self.method)]
        return {
            "dataset": self.task.name,
            "method": self.method,
            "config": self.small.provenance["config"],
            "seed": seed,
            **sizes[self.method],
            "original": sizes["full"],
            "sizes": sizes,
            "seconds": dict(self.seconds),
            "full": plain(self.scores["full"]),
            "condensed": plain(self.scores[self.method]),
            "baselines": {name: plain(self.scores[name]) for name in others},
            "protocol": asdict(self.protocol),
            "versions": versions(),
            "command": command,
        }


def compare_graphs(
    recipe: Recipe,
    task: GraphTask,
    *,
    key: Array,
    method: str = "mirage",
    baselines: Sequence[str] = GRAPH_BASELINES,
    models: Sequence[str] = ("gin",),
    seeds: int = 5,
    protocol: GraphProtocol | None = None,
    loop: Loop = in_memory,
    say: Callable[[str], None] = lambda text: None,
) -> GraphComparison:
    """Condense a set of graphs with a recipe, and evaluate the result beside all graphs and baselines.

    Args:
      recipe: the condenser.
      task: the original task, with training, validation and test graphs.
      key: random key.
      method: name of the recipe in the results.
      baselines: names of methods that choose graphs; they get as many nodes as the recipe used.
      models: architectures.
      seeds: networks of each architecture and set.
      protocol: how to train them; ``GraphProtocol()`` by default.
      loop: of the recipe.
      say: told what begins.
    """
    for name in baselines:
        named("baseline", name, GRAPH_BASELINES)
    protocol = GraphProtocol() if protocol is None else protocol
    k_method, k_base, k_eval = jax.random.split(key, 3)
    condensed: dict[str, Condensed] = {}
    seconds: dict[str, float] = {}

    def timed(name, make):
        start = time.perf_counter()
        condensed[name] = make()
        seconds[name] = time.perf_counter() - start

    say(f"condensing {task.name} with {method}")
    timed(method, lambda: recipe(k_method, task, loop=loop))
    seconds["condense"] = seconds[method]
    nodes = int(np.sum(joined(condensed[method].data).n_node))
    for i, name in enumerate(n for n in baselines if n != method):
        say(f"choosing graphs: {name}")
        base, k = GRAPH_METHODS[name].recipe(nodes=nodes), jax.random.fold_in(k_base, i)
        try:
            timed(name, lambda b=base, k=k: b(k, task))
        except ValueError as error:  # a budget may be too small for a graph of each class
            say(f"{name} is left out: {error}")
    start = time.perf_counter()
    scores: dict[str, Any] = {"full": {}, **{name: {} for name in condensed}}
    for model in models:
        options: dict[str, Any] = {"models": (model,), "seeds": seeds, "key": k_eval, "protocol": protocol}
        for name in scores:
            say(f"evaluating {model}: {seeds} seeds on {'all graphs' if name == 'full' else name}")
            scores[name] |= evaluate_graphs(task if name == "full" else condensed[name], task, **options)
    seconds["evaluate"] = time.perf_counter() - start
    return GraphComparison(task, method, condensed, scores, seconds, protocol)
