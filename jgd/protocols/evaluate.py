"""The accuracy protocol of graph condensation.

Train a network on the condensed graph, keep its best state by accuracy on the validation nodes of the
original graph, test it on the original test nodes (in the inductive setting: on the subgraphs of validation
and of test nodes). Seeds run at once in one vmapped loop; condensed sets of one size share a compilation.
The whole graph goes through the same function: it is what "full" means in every table.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import jraph
import numpy as np
from jaxtyping import Array

from jgd.condense.sntk import sntk_accuracy
from jgd.core import Algorithm, Bound, Examples, InMemory, ensemble, from_linen
from jgd.data.checks import need_classes, warn_of_missing
from jgd.data.condensed import Condensed
from jgd.data.tasks import GraphTask, NodeTask
from jgd.graph import Operator, induced_subgraph, operator
from jgd.graph.operator import Normalization, SelfLoops
from jgd.nn import (
    APPNP,
    GAT,
    GCN,
    GIN,
    GPRGNN,
    MLP,
    SGC,
    ChebNet,
    GraphSAGE,
    Splits,
    classifier,
    features_for,
    split_accuracy,
)
from jgd.optim import adam_l2
from jgd.protocols.text import spread

__all__ = ["NETWORKS", "PUBLISHED", "Protocol", "Score", "cross_architecture", "evaluate", "trained"]

NETWORKS: dict[str, type[nn.Module]] = {
    "gcn": GCN,
    "sgc": SGC,
    "sage": GraphSAGE,
    "gat": GAT,
    "appnp": APPNP,
    "cheb": ChebNet,
    "gin": GIN,
    "mlp": MLP,
    "gprgnn": GPRGNN,
}
"""The architectures that can be named."""


@dataclass(frozen=True)
class Protocol:
    """How an evaluator trains (defaults: the published condensation protocol).

    Attributes:
      epochs: full-batch steps; the learning rate falls to a tenth at half of them.
      learning_rate: of Adam.
      weight_decay: L2 coefficient.
      hidden: width of the hidden layers.
      dropout: rate in the networks that drop out.
      select_every: epochs between looks at the validation nodes.
      threshold: weights of a condensed graph below it are no edges for the networks in ``thresholded``.
      thresholded: names of networks; by default the one that attends to edges without regard to their weight
        (GAT). Benchmarks also use 0.5 for gat, cheb and sage, or 0.01 to 0.05 for all.
    """

    epochs: int = 600
    learning_rate: float = 0.01
    weight_decay: float = 5e-4
    hidden: int = 256
    dropout: float = 0.5
    select_every: int = 1
    threshold: float = 0.05
    thresholded: tuple[str, ...] = ("gat",)

    def __post_init__(self):
        """Refuse impossible settings."""
        for name in ("epochs", "hidden", "select_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if self.learning_rate <= 0 or self.weight_decay < 0:
            raise ValueError(
                "learning_rate must be positive and weight_decay not negative, got "
                f"{self.learning_rate} and {self.weight_decay}"
            )
        if unknown := set(self.thresholded) - set(NETWORKS):
            named = ", ".join(sorted(map(str, unknown)))
            raise ValueError(f"thresholded names {named}; there are {', '.join(NETWORKS)}")


PUBLISHED = Protocol()
"""The published condensation protocol."""


@dataclass(frozen=True)
class Score:
    """Accuracies of one architecture, fractions in 0..1.

    Attributes:
      test: ``[seeds]`` on the test nodes, of the state that was best on the validation nodes.
      val: ``[seeds]`` on the validation nodes, of the same state.
      curve: ``[epochs]`` mean validation accuracy during training, NaN where nobody looked.
      loss: ``[epochs]`` mean training loss.
      seconds: wall time of the run it was part of (compilation included), shared by the sets in it.
    """

    test: np.ndarray
    val: np.ndarray
    curve: np.ndarray
    loss: np.ndarray
    seconds: float

    @property
    def test_mean(self) -> float:
        """Mean test accuracy."""
        return float(self.test.mean())

    @property
    def test_std(self) -> float:
        """Standard deviation of the test accuracy over seeds (divided by their number)."""
        return float(self.test.std())

    def __repr__(self) -> str:
        """Mean ± deviation; the curves are too long to print."""
        of = {
            f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("curve", "loss", "seconds")
        }
        parts = [f"{name} {spread(x)} %" for name, x in of.items()]
        return f"{type(self).__name__}({', '.join(parts)}, {len(self.test)} seeds)"

    @property
    def val_mean(self) -> float:
        """Mean validation accuracy."""
        return float(self.val.mean())

    def summary(self) -> dict[str, float | int]:
        """Plain numbers for JSON."""
        return {
            "test_mean": self.test_mean,
            "test_std": self.test_std,
            "val_mean": self.val_mean,
            "seeds": len(self.test),
        }

    def __str__(self) -> str:
        return f"{spread(self.test)} %"


def cross_architecture(scores: Mapping[str, Score]) -> tuple[float, float]:
    """Mean and standard deviation over architectures of the mean test accuracy, one number for each of them.

    How well a set serves networks that it was not made for; the deviation tells how evenly.

    Args:
      scores: what `evaluate` returned for one set.

    Raises:
      ValueError: where there is none.
    """
    if not scores:
        raise ValueError("a mean over architectures needs at least one")
    means = np.asarray([score.test_mean for score in scores.values()])
    return float(means.mean()), float(means.std())


def network(name: str | nn.Module, num_classes: int, protocol: Protocol) -> nn.Module:
    """The named architecture at the protocol's width and dropout; a network is what it is."""
    if isinstance(name, nn.Module):
        return name
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}; there are {', '.join(NETWORKS)}")
    cls = NETWORKS[name]
    options = {"hidden": protocol.hidden, "dropout": protocol.dropout} if cls is not SGC else {}
    return cls(num_classes=num_classes, **options)  # pyright: ignore[reportCallIssue]


def _over_sets(alg: Algorithm) -> Algorithm:
    """The same networks on several sets at once: a score does not depend on what it is computed beside."""
    return Algorithm(
        init=jax.vmap(alg.init, in_axes=(None, _SETS, None)),
        step=jax.vmap(alg.step, in_axes=(None, None, 0, _SETS, None)),
        result=jax.vmap(alg.result, in_axes=(0, _SETS)),
    )


@lru_cache(maxsize=64)  # the same functions again, so that `jit` finds what it compiled
def _algorithm(name: str | nn.Module, num_classes: int, protocol: Protocol, seeds: int, several: bool):
    model = from_linen(network(name, num_classes, protocol))
    tx = adam_l2(protocol.learning_rate, protocol.weight_decay, num_steps=protocol.epochs)
    alg = ensemble(classifier(model, tx, every=protocol.select_every), seeds)
    return _over_sets(alg) if several else alg


@lru_cache(maxsize=64)
def _tester(several: bool):
    def one(net, data):
        return {"val": split_accuracy(net, data.val), "test": split_accuracy(net, data.test)}

    each = jax.vmap(one, in_axes=(0, None))
    return jax.jit(jax.vmap(each, in_axes=(0, _SETS)) if several else each)


_SETS = Splits(train=0, val=None, test=None)  # pyright: ignore - axes: each set has its own examples


# --- data for one network -----------------------------------------------------------------------


def _real_inputs(graph: jraph.GraphsTuple, net: nn.Module) -> tuple:
    return operator(graph, **net.adjacency), features_for(graph)  # pyright: ignore


def _split(task: NodeTask, name: str) -> np.ndarray:
    """The nodes of a split that have a label: those that have none count in no loss and no score."""
    need_classes(task, "the protocol")
    return task.labelled(name)


def real_examples(task: NodeTask, net: nn.Module, names: Sequence[str]) -> dict[str, Examples]:
    """Examples of the named splits as a network reads them: on the whole graph, or each on its own."""
    labels = np.asarray(task.labels)
    if task.setting == "transductive":
        inputs = _real_inputs(task.graph, net)
        return {n: Examples(inputs, jnp.asarray(labels), jnp.asarray(_split(task, n))) for n in names}
    examples = {}
    for n in names:
        index = np.flatnonzero(_split(task, n))
        inputs = _real_inputs(induced_subgraph(task.graph, index), net)
        examples[n] = Examples(inputs, jnp.asarray(labels[index]), jnp.ones(len(index), bool))
    return examples


def condensed_operator(
    small: Condensed, normalize: Normalization | None, self_loops: SelfLoops, threshold: float = 0.0
) -> Operator:
    """The dense operator of condensed nodes: `jgd.data.Condensed.operator`."""
    return small.operator(normalize=normalize, self_loops=self_loops, threshold=threshold)


def _small_examples(small: Condensed, net: nn.Module, protocol: Protocol, num_classes: int) -> Examples:
    """Condensed examples with soft targets and weights, so that sets of one size can be stacked."""
    sparse = any(isinstance(net, NETWORKS[name]) for name in protocol.thresholded)
    threshold = protocol.threshold if sparse else 0.0
    a = condensed_operator(small, **net.adjacency, threshold=threshold)  # pyright: ignore
    targets = jnp.asarray(small.targets)
    if small.train.get("targets") == "logit":
        targets = jax.nn.softmax(targets)
    elif targets.ndim == 1:
        targets = jax.nn.one_hot(targets, num_classes)
    weights = jnp.ones(len(targets)) if small.weights is None else jnp.asarray(small.weights, jnp.float32)
    return Examples((a, jnp.asarray(small.data.nodes, jnp.float32)), targets.astype(jnp.float32), weights)


def _by_own_predictor(small: Condensed, task: NodeTask) -> Score:
    """The score of the predictor that a set is meant for."""
    if small.train["predictor"] != "sntk":
        raise ValueError(f"this set is meant for a predictor that is not known: {small.train['predictor']!r}")
    start = time.perf_counter()
    test, val = (np.asarray([sntk_accuracy(small, task, split)]) for split in ("test", "val"))
    seconds = time.perf_counter() - start
    return Score(test=test, val=val, curve=np.full(1, np.nan), loss=np.full(1, np.nan), seconds=seconds)


def _check(small: Condensed, task: NodeTask) -> None:
    if small.preprocess:
        raise ValueError(f"this set is meant for data changed by {small.preprocess.get('op')!r} first")
    nodes: Any = task.graph.nodes
    if nodes is None:
        raise ValueError(f"task {task.name!r} has no node features for the networks to read")
    width = int(small.data.nodes.shape[1])
    if width != nodes.shape[1]:
        raise ValueError(
            f"the condensed graph has {width} features, task {task.name!r} has {nodes.shape[1]}: "
            "it was made from other data"
        )
    soft = np.ndim(small.targets) == 2
    classes = small.targets.shape[1] if soft else int(np.max(small.targets)) + 1
    if classes > task.num_classes or (soft and classes < task.num_classes):
        raise ValueError(
            f"the condensed labels are of {classes} classes, task {task.name!r} has {task.num_classes}"
        )


def _with_overrides(protocol: Protocol, small: Condensed) -> Protocol:
    """The protocol, with what the condensed set prescribes."""
    names = {"lr": "learning_rate", "epochs": "epochs", "weight_decay": "weight_decay", "dropout": "dropout"}
    changes = {field: small.train[name] for name, field in names.items() if name in small.train}
    return Protocol(**{**protocol.__dict__, **changes})


# --- the protocol -------------------------------------------------------------------------------


def evaluate(
    small: Condensed | NodeTask | GraphTask | Mapping[str, Condensed],
    task: NodeTask | GraphTask,
    *,
    models: Sequence[Any] | None = None,
    seeds: int = 5,
    key: Array | None = None,
    protocol: Any = None,
) -> dict[Any, Any]:
    """Accuracy on ``task`` of networks that are trained on ``small``.

    Args:
      small: a condensed set; or ``task`` itself, for the whole graph; or several condensed sets by name,
        which run at once where they have the same size and prescribe the same training.
      task: the original task. A `GraphTask` is handed to `jgd.protocols.graphs.evaluate_graphs`.
      models: names of architectures, see `NETWORKS`; ``("gcn",)`` by default, ``("gin",)`` for graphs. Of
        nodes also networks themselves, Flax modules that are called as those of `jgd.nn` are.
      seeds: networks of each architecture.
      key: random key; 0 by default.
      protocol: how to train: a `Protocol`, the published one by default; for graphs a `GraphProtocol`.

    Returns:
      ``{model: Score}``, or ``{name: {model: Score}}`` for several sets. A set that is meant for a predictor
      of its own (GC-SNTK's kernel regression) is scored by that, once, whatever the model.

    Raises:
      ValueError: for an unknown model, a set that does not belong to the task, a task without a split, or one
        whose labels are not one class for each node. Nodes whose label is -1 are left out everywhere: they
        count in no loss, choose no state and are not scored.
    """
    if isinstance(task, GraphTask):
        from jgd.protocols.graphs import evaluate_graphs  # which imports this module

        return evaluate_graphs(
            small,  # pyright: ignore[reportArgumentType]
            task,
            models=models or ("gin",),
            seeds=seeds,
            key=key,
            protocol=protocol,
        )
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {seeds}")
    models, protocol = models or ("gcn",), protocol or PUBLISHED
    key = jax.random.key(0) if key is None else key
    if isinstance(small, Mapping):
        results: dict[Any, Any] = {name: {} for name in small}
        alone = {name: one for name, one in small.items() if "predictor" in one.train}
        for name, one in alone.items():
            results[name] = dict.fromkeys(models, _by_own_predictor(one, task))
        small = {name: one for name, one in small.items() if name not in alone}
        for group, settings in _groups(small, protocol):
            members = {name: small[name] for name in group}
            for model in models:
                scores = _evaluate_sets(members, task, model, seeds, key, settings)
                for name, score in scores.items():
                    results[name][model] = score
        return results
    if isinstance(small, NodeTask):
        return {model: _evaluate_full(small, task, model, seeds, key, protocol) for model in models}
    assert isinstance(small, Condensed)
    scores = evaluate({"": small}, task, models=models, seeds=seeds, key=key, protocol=protocol)
    return scores[""]


def _groups(sets: Mapping[str, Condensed], protocol: Protocol):
    """Names of sets that can share a run: equal sizes, equal settings."""
    groups: dict[Any, list[str]] = {}
    for name, small in sets.items():
        settings = _with_overrides(protocol, small)
        groups.setdefault((small.data.nodes.shape, settings), []).append(name)
    return [(names, settings) for (_, settings), names in groups.items()]


def trained(
    small: Condensed | NodeTask,
    task: NodeTask,
    *,
    model: str | nn.Module = "gcn",
    seeds: int = 5,
    key: Array | None = None,
    protocol: Protocol = PUBLISHED,
) -> Bound:
    """The networks that `evaluate` tests: each in the state that was best on the validation nodes.

    Args:
      small: a condensed set, or a task of which all training nodes are.
      task: the original task, whose validation nodes select.
      model: the architecture.
      seeds: networks.
      key: random key; 0 by default. With the same one they are those of `evaluate`, up to rounding.
      protocol: how to train.

    Returns:
      One network whose parameters have a leading axis of ``seeds``; `jax.vmap` calls them all.
    """
    key = jax.random.key(0) if key is None else key
    if isinstance(small, NodeTask):
        data = _full_data(small, task, model, protocol)
        return _train(model, data, task, seeds, False, key, protocol, {})
    protocol = _with_overrides(protocol, small)
    data = _set_data({"": small}, task, model, protocol)
    nets = _train(model, data, task, seeds, True, key, protocol, {})
    return jax.tree.map(lambda leaf: leaf[0], nets)


def _set_data(sets, task, model, protocol) -> Splits:
    for small in sets.values():
        _check(small, task)
    net = network(model, task.num_classes, protocol)
    real = real_examples(task, net, ("val", "test"))
    each = [_small_examples(small, net, protocol, task.num_classes) for small in sets.values()]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    return Splits(stacked, real["val"], real["test"])


def _full_data(source, task, model, protocol) -> Splits:
    net = network(model, task.num_classes, protocol)
    real = real_examples(task, net, ("train", "val", "test") if source is task else ("val", "test"))
    own = real["train"] if source is task else real_examples(source, net, ("train",))["train"]
    warn_of_missing(source)
    return Splits(own._replace(weights=own.weights.astype(jnp.float32)), real["val"], real["test"])


def _evaluate_sets(sets, task, model, seeds, key, protocol):
    data = _set_data(sets, task, model, protocol)
    scores = _run(model, data, task, seeds, len(sets), key, protocol)
    return dict(zip(sets, scores, strict=True))


def _evaluate_full(source, task, model, seeds, key, protocol):
    data = _full_data(source, task, model, protocol)
    return _run(model, data, task, seeds, None, key, protocol)[0]


def _train(model, data, task, seeds, several, key, protocol, history) -> Any:
    alg = _algorithm(model, task.num_classes, protocol, seeds, several)
    return InMemory(history)("evaluate", alg, key, data, protocol.epochs)


def _run(model, data, task, seeds, sets, key, protocol) -> list[Score]:
    history: dict[str, Any] = {}
    start = time.perf_counter()
    nets = _train(model, data, task, seeds, sets is not None, key, protocol, history)
    final = jax.tree.map(np.asarray, _tester(sets is not None)(nets, data))
    seconds = time.perf_counter() - start
    curves = history["evaluate"]

    def score(pick):
        return Score(
            test=pick(final["test"]),
            val=pick(final["val"]),
            curve=pick(np.moveaxis(curves["score"], 0, -1)).mean(0),
            loss=pick(np.moveaxis(curves["loss"], 0, -1)).mean(0),
            seconds=seconds,
        )

    if sets is None:
        return [score(lambda a: a)]
    return [score(lambda a, i=i: a[i]) for i in range(sets)]
