"""How good networks are that are trained on a condensed set: one protocol for every kind of data.

Train a network on the set, keep its best state on the validation examples of the original task, test that on
the original test examples. Seeds run at once in one vmapped loop. The training examples of the original task
go through the same function: they are what "full" means in every table. All that differs between kinds of
data stands in `jgd.evaluation.kinds`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jgd.core import Algorithm, Bound, InMemory, ensemble
from jgd.core.memo import memoized
from jgd.data import Condensed, Training
from jgd.data.checks import warn_of_missing
from jgd.evaluation.config import EvalConfig
from jgd.evaluation.kinds import Kind, kind_of
from jgd.evaluation.predictors import PREDICTORS, Predict
from jgd.evaluation.scores import Curve, Scores
from jgd.registry import Choice, choose
from jgd.training import AUGMENTATIONS, Augmentation, Metric, Splits

__all__ = ["FULL", "evaluate", "trained"]

FULL = "full"
"""What the whole training data are called beside condensed sets."""
_ONE = ""  # the name of a set that is evaluated alone
_SETS = Splits(train=0, val=None, test=None)  # pyright: ignore - axes: each set has its own examples


def evaluate(
    small: Any,
    task: Any,
    *,
    networks: Sequence[Any] | None = None,
    seeds: int = 5,
    key: Array | None = None,
    config: EvalConfig | None = None,
    log: Callable[[str], None] = lambda text: None,
) -> Scores:
    """Score networks on ``task`` that are trained on ``small``.

    Args:
      small: A condensed set; or ``task`` itself (or another task of its kind), for its training examples; or
        several of these by name. Sets of equal shapes that prescribe the same training run at once.
      task: The original task.
      networks: Names of architectures or Flax modules that read the same inputs; by default the first of
        the kind of data.
      seeds: Networks of each architecture on each set.
      key: Random key; 0 by default.
      config: How networks are trained; by default that of the kind of data. What a set prescribes wins.
      log: Called with one line before each architecture.

    Returns:
      `Scores` with the axes set (where there are several), network, seed and metric. A set that is meant for
      a predictor of its own, such as a kernel regression, is scored by that, once, whatever the network.

    Raises:
      ValueError: For a set that does not belong to the task, an unknown network, a task without a split, or
        one whose labels are not one class for each example. Examples whose label is -1 count nowhere.
    """
    kind, config, key = _settings(task, seeds, key, config)
    several = isinstance(small, Mapping)
    sets: dict[str, Any] = dict(small) if several else {_ONE: small}
    if not sets:
        raise ValueError("there is no set to evaluate")
    labels = tuple(networks or kind.networks[:1])
    for one in sets.values():
        _check(kind, one, task)
    for label in labels:
        kind.network(label, task, config)  # refuses an unknown one before anything is trained
    shape = (len(sets), len(labels), seeds, len(kind.metrics))
    test, val = np.full(shape, np.nan), np.full(shape, np.nan)
    curves: dict[tuple[str, Any], Curve] = {}
    once = {name: choice for name, one in sets.items() if (choice := _predictor(one)) is not None}
    for name, choice in once.items():
        predict, i = PREDICTORS.build(choice), list(sets).index(name)
        for array, split in ((test, "test"), (val, "val")):
            array[i, :, 0] = _predicted(predict, kind, sets[name], task, split)
    for j, label in enumerate(labels):
        log(f"training {label} on {len(sets)} set{'s' if len(sets) > 1 else ''}")
        learned = {name: one for name, one in sets.items() if name not in once}
        for name, (scores, curve) in _scores(kind, learned, task, label, seeds, key, config).items():
            i = list(sets).index(name)
            for array, split in ((test, "test"), (val, "val")):
                if split in scores:
                    array[i, j] = np.stack([scores[split][metric] for metric in kind.metrics], -1)
            curves[name, label] = curve
    axes = {"set": tuple(sets), "network": labels, "seed": tuple(range(seeds)), "metric": tuple(kind.metrics)}
    found = Scores(test, val, axes, curves, tuple(once))
    return found if several else found[_ONE]


def trained(
    small: Any,
    task: Any,
    *,
    network: str | nn.Module | None = None,
    seeds: int = 5,
    key: Array | None = None,
    config: EvalConfig | None = None,
) -> Bound:
    """Train the networks that `evaluate` tests, each in the state that was best on the validation examples.

    Args:
      small: A condensed set, or a task, of which all training examples are used.
      task: The original task, whose validation examples select.
      network: Name of the architecture, or a module.
      seeds: Number of networks.
      key: Random key; 0 by default. With the same one they are those of `evaluate`, up to rounding.
      config: How they are trained.

    Returns:
      One network whose parameters have a leading axis of ``seeds``; `jax.vmap` calls them all.
    """
    kind, config, key = _settings(task, seeds, key, config)
    _check(kind, small, task)
    predictor = _predictor(small)
    if predictor is not None:
        raise ValueError(f"this set is meant for its own predictor, {predictor.name!r}, not for networks")
    config = _prescribed(config, small)
    net = kind.network(kind.networks[0] if network is None else network, task, config)
    stacked = kind.stacked and isinstance(small, Condensed)
    train = _examples(kind, small, task, net, config)
    train = jax.tree.map(lambda leaf: leaf[None], train) if stacked else train
    val, test = (kind.real(task, split, net) for split in ("val", "test"))
    augment = _augmentation(small)
    nets, _ = _train(kind, net, (train, val, test), seeds, stacked, key, config, augment, {})
    return jax.tree.map(lambda leaf: leaf[0], nets) if stacked else nets


def _settings(task, seeds, key, config) -> tuple[Kind, EvalConfig, Array]:
    kind = kind_of(task)
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {seeds}")
    config = kind.config if config is None else config
    choose("metric to select by", config.select, kind.metrics)
    return kind, config, jax.random.key(0) if key is None else key


def _check(kind: Kind, small: Any, task: Any) -> None:
    """Refuse what cannot be evaluated on a task."""
    if isinstance(small, kind.task):
        return
    if not isinstance(small, Condensed):
        raise ValueError(
            f"a {type(small).__name__} cannot be evaluated on a {type(task).__name__}: give a condensed set "
            f"or a {kind.task.__name__}, and the original task second"
        )
    if not kind.holds(small):
        raise ValueError(
            f"a condensed set of {type(small.data).__name__} does not fit a {type(task).__name__} "
            f"({kind.name}): it was made from another kind of data"
        )
    if small.training.preprocess:
        raise ValueError(f"this set is meant for data changed by {small.training.preprocess.name!r} first")
    augment = small.training.augment
    if augment and not set(AUGMENTATIONS[augment.name].kinds) & set(kind.augments):
        raise ValueError(
            f"this set prescribes the augmentation {augment.name!r}, which is not for {kind.name}"
        )
    kind.check(small, task)


def _augmentation(small: Any) -> Augmentation | None:
    choice = small.training.augment if isinstance(small, Condensed) else None
    return None if choice is None else AUGMENTATIONS.build(choice)


def _predictor(small: Any) -> Choice | None:
    return small.training.predictor if isinstance(small, Condensed) else None


def _predicted(predict: Predict, kind: Kind, small: Condensed, task: Any, split: str) -> list[float]:
    """Return every metric of a predictor; NaN without examples of a split."""
    if not np.any(getattr(task, split)):
        return [np.nan] * len(kind.metrics)
    outputs, labels = predict(small, task, split)
    return [float(metric(jnp.asarray(outputs), jnp.asarray(labels))) for metric in kind.metrics.values()]


_PRESCRIBED = tuple(f.name for f in fields(EvalConfig) if f.name in {g.name for g in fields(Training)})


def _prescribed(config: EvalConfig, small: Any) -> EvalConfig:
    """Return the configuration with what a condensed set prescribes."""
    if not isinstance(small, Condensed):
        return config
    given = {name: getattr(small.training, name) for name in _PRESCRIBED}
    return replace(config, **{name: value for name, value in given.items() if value is not None})


def _examples(kind: Kind, small: Any, task: Any, net: Any, config: EvalConfig) -> Any:
    if isinstance(small, Condensed):
        return kind.small(small, net, config, task)
    examples = kind.real(small, "train", net)
    warn_of_missing(small)
    return examples


def _scores(kind, sets, task, label, seeds, key, config) -> dict[str, tuple[dict, Curve]]:
    """Return scores and curve of one architecture on each set; sets that can share a program do."""
    groups: dict[Any, dict[str, Any]] = {}
    for name, small in sets.items():
        settings = _prescribed(config, small)
        net = kind.network(label, task, settings)
        own = _examples(kind, small, task, net, settings)
        alone = not (kind.stacked and isinstance(small, Condensed))
        shapes = name if alone else str(jax.tree.map(jnp.shape, own))
        groups.setdefault((net, settings, _augmentation(small), alone, shapes), {})[name] = own
    found = {}
    for (net, settings, augment, alone, _), members in groups.items():
        val, test = (kind.real(task, split, net) for split in ("val", "test"))
        _two_classes(settings, val, task)
        own = next(iter(members.values()))
        if not alone:
            own = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members.values())
        results = _run(kind, net, (own, val, test), seeds, not alone, key, settings, augment)
        found |= dict(zip(members, results, strict=True))
    return found


def _two_classes(config: EvalConfig, val: Any, task: Any) -> None:
    if val is None:
        return
    there = np.asarray(val.targets)[np.asarray(val.weights) > 0]
    if config.select == "auc" and len(np.unique(there)) < 2:
        raise ValueError(
            f"the validation examples of task {task.name!r} are of one class, which no ROC-AUC can select "
            'by: use EvalConfig(select="accuracy") or another split'
        )


def _run(kind, net, examples, seeds, stacked, key, config, augment) -> list[tuple[dict, Curve]]:
    """Return scores and curve of each set of a group."""
    history: dict[str, Any] = {}
    start = time.perf_counter()
    nets, data = _train(kind, net, examples, seeds, stacked, key, config, augment, history)
    tester = _tester(kind.measure, tuple(kind.metrics.items()), stacked)
    final = jax.tree.map(np.asarray, tester(nets, data.val, data.test))
    seconds = time.perf_counter() - start
    found = history["evaluate"]
    measured = found["score"] if "score" in found else np.full_like(found["loss"], np.nan)
    curves = {name: np.moveaxis(v, 0, -1) for name, v in (("score", measured), ("loss", found["loss"]))}

    def one(pick):
        parts = {name: pick(values).mean(0) for name, values in curves.items()}
        return jax.tree.map(pick, final), Curve(**parts, seconds=seconds)

    if not stacked:
        return [one(lambda values: values)]
    return [one(lambda values, i=i: values[i]) for i in range(len(curves["loss"]))]


def _train(kind, net, examples, seeds, stacked, key, config, augment, history) -> tuple[Any, Splits]:
    seed = np.asarray(jax.random.key_data(key)).tolist()
    data, batches = kind.splits(*examples, config, seed)
    metric = None if examples[1] is None else kind.metrics[config.select]
    alg = _algorithm(kind.fit, net, config, metric, augment, seeds, stacked)
    return InMemory(history)("evaluate", alg, key, data, config.steps, batches), data


@memoized
def _algorithm(
    fit,
    net,
    config: EvalConfig,
    metric: Metric | None,
    augment: Augmentation | None,
    seeds: int,
    stacked: bool,
) -> Algorithm:
    alg = ensemble(fit(net, config, metric, augment), seeds)
    return _over_sets(alg) if stacked else alg


def _over_sets(alg: Algorithm) -> Algorithm:
    """Train the same networks on several sets at once; a score does not depend on the other sets."""
    return Algorithm(
        init=jax.vmap(alg.init, in_axes=(None, _SETS, None)),
        step=jax.vmap(alg.step, in_axes=(None, None, 0, _SETS, None)),
        result=jax.vmap(alg.result, in_axes=(0, _SETS)),
    )


@memoized
def _tester(measure, metrics: tuple[tuple[str, Metric], ...], stacked: bool):
    def one(net, val, test):
        return {
            split: {name: measure(net, examples, metric) for name, metric in metrics}
            for split, examples in (("val", val), ("test", test))
            if examples is not None
        }

    each = jax.vmap(one, in_axes=(0, None, None))
    return jax.jit(jax.vmap(each, in_axes=(0, None, None)) if stacked else each)
