"""The main job: condense a task, and compare with the whole graph and with baselines of the same size."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jgd.condense import Herding, KCenter
from jgd.condense.common import dense_features, symmetric_normalization
from jgd.condense.selection import gcn_embedding
from jgd.core import Loop, Recipe, in_memory
from jgd.data.condensed import Condensed
from jgd.data.tasks import NodeTask
from jgd.graph.build import adjacency
from jgd.metrics import frechet_distance
from jgd.protocols.evaluate import PUBLISHED, Protocol, Score, condensed_operator, evaluate
from jgd.protocols.methods import BASELINES, METHODS, named, preferred

__all__ = [
    "Comparison",
    "compare",
    "graph_bytes",
    "propagated_distance",
    "propagated_pair",
    "versions",
]


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on, and the device."""
    names = ("jgd", "jax", "jaxlib", "flax", "optax", "numpy", "scipy", "scikit-learn")
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in names},
        "device": device.platform if device.platform == device.device_kind else device.device_kind,
    }


def graph_bytes(graph: Any, labels: Any) -> int:
    """Bytes of features, edges (two int32 and a weight where there is one) and labels."""
    arrays = [graph.nodes, graph.edges, graph.senders, graph.receivers, labels]
    return int(sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(arrays)))


def propagated_pair(task: NodeTask, small: Condensed) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``Â²X`` of the original and of the condensed graph, and the weights of the condensed nodes.

    Both have unit mean square, for condensed features may have another scale. Condensed nodes weigh as much
    as the nodes they stand for, where the method says so (``extras["size"]``).
    """
    a_hat = symmetric_normalization(adjacency(task.graph))
    x = a_hat @ (a_hat @ dense_features(task))
    a = condensed_operator(small, "sym", True)
    y = np.asarray(a @ (a @ jnp.asarray(small.data.nodes, jnp.float32)))
    sizes = small.extras.get("size")
    weights = np.ones(len(y), np.float32) if sizes is None else np.asarray(sizes, np.float32)

    def unit(rows, weights=None):
        square = np.average(np.sum(rows**2, axis=1), weights=weights)
        return rows / (np.sqrt(square) or 1.0)

    return unit(x), unit(y, weights).astype(np.float32), weights


def propagated_distance(task: NodeTask, small: Condensed) -> float:
    """Fréchet distance between the two sides of `propagated_pair`: 0 for the same mean and covariance.

    Covariances divide by N - 1; those of a single condensed node, which has none, by N.
    """
    x, y, weights = propagated_pair(task, small)
    distance = jax.jit(partial(frechet_distance, ddof=min(1, len(y) - 1)))
    return float(distance(jnp.asarray(x), jnp.asarray(y), None, jnp.asarray(weights)))


@dataclass(frozen=True)
class Comparison:
    """A condensed set beside the whole graph and the baselines.

    Attributes:
      task: the original task.
      method: name of the method, the first key of ``condensed``.
      condensed: condensed sets by name.
      scores: ``{name: {model: Score}}``, with ``"full"`` for the whole graph.
      seconds: time of each part: ``"condense"`` (the method), ``"evaluate"`` (all), and each set by name.
      fid: `propagated_distance` of each set.
      protocol: how the networks were trained.
    """

    task: NodeTask
    method: str
    condensed: Mapping[str, Condensed]
    scores: Mapping[str, Mapping[str, Score]]
    seconds: Mapping[str, float]
    fid: Mapping[str, float] = field(default_factory=dict)
    protocol: Protocol = PUBLISHED

    @property
    def small(self) -> Condensed:
        """The condensed set of the method."""
        return self.condensed[self.method]

    def rows(self) -> list[dict[str, Any]]:
        """One row for each set, the whole graph first: what tables show."""
        rows = []
        for name, scores in self.scores.items():
            graph, labels = self.task.graph, self.task.labels
            if name != "full":
                graph, labels = self.condensed[name].data, self.condensed[name].targets
            rows.append(
                {
                    "name": name,
                    "nodes": len(labels),
                    "edges": int(np.sum(graph.n_edge)),
                    "bytes": graph_bytes(graph, labels),
                    "scores": scores,
                    "seconds": self.seconds.get(name),
                    "fid": self.fid.get(name),
                }
            )
        return rows

    def metrics(self, *, command: str = "", seed: int | None = None) -> dict[str, Any]:
        """Everything as plain JSON values; accuracies are fractions in 0..1."""

        def plain(scores):
            return {model: score.summary() for model, score in scores.items()}

        small = self.small
        others = [name for name in self.scores if name not in ("full", self.method)]
        return {
            "dataset": self.task.name,
            "setting": self.task.setting,
            "method": self.method,
            "config": small.provenance["config"],
            "label_ratio": small.provenance["label_ratio"],
            "node_ratio": small.provenance["node_ratio"],
            "seed": seed,
            "nodes": len(small.targets),
            "edges": int(np.sum(small.data.n_edge)),
            "bytes": graph_bytes(small.data, small.targets),
            "original": {
                "nodes": self.task.num_nodes,
                "edges": int(np.sum(self.task.graph.n_edge)),
                "bytes": graph_bytes(self.task.graph, self.task.labels),
            },
            "seconds": dict(self.seconds),
            "full": plain(self.scores["full"]),
            "condensed": plain(self.scores[self.method]),
            "baselines": {name: plain(self.scores[name]) for name in others},
            "fid": self.fid.get(self.method),
            "fid_baselines": {name: self.fid[name] for name in others if name in self.fid},
            "protocol": asdict(self.protocol),
            "versions": versions(),
            "command": command,
        }


def compare(
    recipe: Recipe,
    task: NodeTask,
    *,
    key: Array,
    method: str = "clustgdd",
    baselines: Sequence[str] = BASELINES,
    models: Sequence[str] = ("gcn",),
    seeds: int = 5,
    protocol: Protocol = PUBLISHED,
    loop: Loop = in_memory,
    say: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Condense a task with a recipe, and evaluate it beside the whole graph and baselines of its size.

    Args:
      recipe: the condenser.
      task: the original task.
      key: random key.
      method: name of the recipe in the results.
      baselines: names of methods; one that is the method itself is left out.
      models: architectures.
      seeds: networks of each architecture and set.
      protocol: how to train them.
      loop: of the recipe.
      say: told what begins.

    Returns:
      A `Comparison`.
    """
    for name in baselines:
        named("baseline", name, METHODS)
    k_method, k_base, k_eval = jax.random.split(key, 3)
    seconds: dict[str, float] = {}

    def embed():
        return gcn_embedding(k_base, task, hidden=protocol.hidden, epochs=protocol.epochs)

    def timed(name, fn):
        start = time.perf_counter()
        result = fn()
        seconds[name] = time.perf_counter() - start
        return result

    say(f"condensing {task.name} with {method}")
    condensed = {method: timed(method, lambda: recipe(k_method, task, loop=loop))}
    seconds["condense"] = seconds[method]
    size = len(condensed[method].targets)
    shared: dict[str, Any] = {}
    for i, name in enumerate(n for n in baselines if n != method):
        base = preferred(name, task.name, nodes=size, near=size / int(np.sum(task.train)))
        k = jax.random.fold_in(k_base, i)
        if isinstance(base, Herding | KCenter):  # one network serves both
            if "embedding" not in shared:
                say("training the network whose embeddings herding and k-center select by")
                shared["embedding"] = timed("embedding", embed)
            condensed[name] = timed(name, lambda b=base, k=k: b.select(k, task, shared["embedding"]))
        else:
            condensed[name] = timed(name, lambda b=base, k=k: b(k, task))

    start = time.perf_counter()
    scores: dict[str, Any] = {"full": {}, **{name: {} for name in condensed}}
    for model in models:
        say(f"evaluating {model}: {seeds} seeds on the whole graph")
        options = {"models": (model,), "seeds": seeds, "key": k_eval, "protocol": protocol}
        scores["full"] |= evaluate(task, task, **options)
        sets = "the condensed graph" if len(condensed) == 1 else f"each of {len(condensed)} condensed graphs"
        say(f"evaluating {model}: {seeds} seeds on {sets}")
        for name, score in evaluate(condensed, task, **options).items():
            scores[name] |= score
    seconds["evaluate"] = time.perf_counter() - start
    fid = {name: propagated_distance(task, small) for name, small in condensed.items()}
    return Comparison(task, method, condensed, scores, seconds, fid, protocol)
