"""Arrays: images, vectors and sequences of tokens, each with a class.

Networks are trained on batches of condensed examples that are drawn in epochs, the same for all seeds, and
tested on the original examples, some at a time. Without validation examples the last state is tested.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jgd.core import Bound, Examples, as_float
from jgd.data import ArrayTask, Condensed
from jgd.data.checks import need_classes
from jgd.evaluation.config import EvalConfig
from jgd.evaluation.kinds.base import Kind, Words, check_classes, fit, soft_targets
from jgd.metrics import accuracy
from jgd.nn import network as named
from jgd.registry import Entry
from jgd.training import Metric, Splits
from jgd.training.examples import schedule

__all__ = ["ARRAYS"]

_CHUNK = 500


def network(name: str | nn.Module, task: ArrayTask, config: EvalConfig) -> nn.Module:
    """Return the network of a name such as ``"mlp-64"`` or ``"convnet-32-2"``; a module is what it is."""
    del config
    return name if isinstance(name, nn.Module) else named(name, task)


def real(task: ArrayTask, split: str, net: Any) -> Examples | None:
    """Return the examples of a split whose class is known; None where there are no validation examples."""
    del net
    need_classes(task, "the evaluation")
    if split == "val" and (task.val is None or not np.any(task.val)):
        return None
    index = np.flatnonzero(task.labelled(split))
    labels = jnp.asarray(np.asarray(task.y)[index])
    weights = np.ones(len(index), np.float32)
    if task.weights is not None and split == "train":
        weights = np.asarray(task.weights, np.float32)[index]
    return Examples(_inputs(task.x, task.mask, index), labels, jnp.asarray(weights))


def _inputs(x: Any, mask: Any, index: Any) -> tuple:
    rows = (jnp.asarray(np.asarray(x)[index]),)
    return rows if mask is None else (*rows, jnp.asarray(np.asarray(mask)[index]))


def _small(small: Condensed, net: Any, config: EvalConfig, task: ArrayTask) -> Examples:
    del net, config
    targets = soft_targets(small, task.num_classes)
    weights = jnp.ones(len(targets)) if small.weights is None else jnp.asarray(small.weights, jnp.float32)
    return Examples(_inputs(small.data, small.extras.get("mask"), slice(None)), targets, weights)


def _splits(
    train: Examples, val: Examples | None, test: Examples, config: EvalConfig, seed: Any
) -> tuple[Splits, Any]:
    count = len(train.targets)
    if config.batch_size is None or (count <= config.batch_size and not config.by_weight):
        return Splits(_batch(train, slice(None)), val, test), None
    size = min(config.batch_size, count)
    order = schedule(np.asarray(train.weights), size, config.steps, seed, replace=config.by_weight)
    if config.by_weight:
        train = train._replace(weights=jnp.ones_like(train.weights))
    return Splits(None, val, test, train, jnp.asarray(order)), _batch_at


def _batch(examples: Examples, index: Any) -> Examples:
    """Return some examples; pixels in 0..255 become floats in 0..1."""
    inputs = tuple(as_float(x[index]) for x in examples.inputs)
    return Examples(inputs, examples.targets[index], examples.weights[index])


def _batch_at(data: Splits, t: Any) -> Examples:
    return _batch(data.source, data.order[t])


def _measure(net: Bound, examples: Examples, metric: Metric = accuracy) -> Array:
    """Compute a metric of all examples, whose logits are computed some at a time."""
    count = len(examples.targets)
    size = min(_CHUNK, count)
    index = jnp.arange(-(-count // size) * size).reshape(-1, size) % count
    logits = jax.lax.map(lambda i: net(*_batch(examples, i).inputs).logits, index)
    logits = logits.reshape(-1, logits.shape[-1])[:count]
    return metric(logits, examples.targets, examples.weights)


def _check(small: Condensed, task: ArrayTask) -> None:
    shape, needed = np.shape(small.data)[1:], np.shape(task.x)[1:]
    if shape != needed:
        raise ValueError(
            f"the condensed examples have shape {list(shape)}, those of task {task.name!r} {list(needed)}: "
            "they were made from other data"
        )
    if (task.mask is None) != ("mask" not in small.extras):
        raise ValueError(f"one of the condensed set and task {task.name!r} has a mask of real points only")
    check_classes(small, task)


def _size(data: ArrayTask | Condensed) -> dict[str, int]:
    if isinstance(data, ArrayTask):
        index = np.flatnonzero(np.asarray(data.train))
        x, y = np.asarray(data.x)[index], np.asarray(data.y)[index]
    else:
        x, y = np.asarray(data.data), np.asarray(data.targets)
    return {"examples": len(y), "bytes": int(x.nbytes + y.nbytes)}


def _check_size(task: Any, settings: Mapping[str, Any]) -> None:
    del task
    ratio = settings.get("label_ratio")
    if ratio is not None and not 0 < ratio <= 1:
        raise ValueError(f"label_ratio must be in (0, 1], got {ratio}")


def _protocol(task: Any, config: EvalConfig) -> str:
    selected = (
        f"Every {config.select_every} steps its {config.select} on the validation examples is measured, "
        "and the state that was best there is tested on the test examples."
    )
    if task.val is None or not np.any(task.val):
        selected = "There are no validation examples: the last state is tested on the test examples."
    return (
        f"Every network takes {config.steps} steps on batches of {config.batch_size} examples, or on all "
        f"where there are no more. {selected}"
    )


ARRAYS = Kind(
    name="arrays",
    task=ArrayTask,
    holds=lambda small: hasattr(small.data, "ndim"),
    check=_check,
    network=network,
    real=real,
    small=_small,
    splits=_splits,
    fit=partial(fit, measure=_measure),
    measure=_measure,
    metrics={"accuracy": accuracy},
    size=_size,
    same_size=lambda small, task: {"nodes": len(small.targets)},
    distances={},
    networks=("mlp-128", "convnet-32-2", "resnet20"),
    method="herding",
    baselines=("random", "herding", "k-center"),
    config=EvalConfig(steps=500, batch_size=128, learning_rate=1e-3, select_every=25),
    budget="label_ratio",
    usual={"label_ratio": 0.5},
    sizes=(0.01, 0.1),
    check_size=_check_size,
    words=Words("full set", _protocol, ""),
    augments=("arrays", "texts"),
)
ENTRIES = (Entry("arrays", lambda: ARRAYS, "Images, vectors and tokens, each with a class."),)
