"""What differs between kinds of data: evaluation, comparison, grid and command line are written over it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgd.core import Algorithm, from_linen
from jgd.data import Condensed
from jgd.evaluation.config import EvalConfig
from jgd.nn import NETWORKS
from jgd.nn.zoo import members
from jgd.optim import adam_l2
from jgd.registry import choose
from jgd.report import Picture
from jgd.training import Augmentation, Metric, classifier, score

__all__ = ["Kind", "Words", "check_classes", "fit", "named_network", "nbytes", "soft_targets"]


class Words(NamedTuple):
    """Words for a kind of data, in tables and pages.

    Attributes:
      whole: What the whole training data are called, such as "full graph".
      protocol: ``(task, config) -> text``, how networks are trained and tested.
      notes: What to know to read a table.
    """

    whole: str
    protocol: Callable[[Any, EvalConfig], str]
    notes: str


class Kind(NamedTuple):
    """A kind of data: nodes of a graph, sets of graphs, arrays.

    Attributes:
      name: Its name in `jgd.evaluation.KINDS`.
      task: Type of its tasks.
      holds: ``(condensed) -> bool``, whether a set is of this kind.
      check: ``(condensed, task)`` raises a ValueError where a set of this kind does not fit a task.
      network: ``(name or module, task, config) -> module``, a network at the sizes of the configuration.
      real: ``(task, split, module) -> examples`` of a split as the network reads them; None of validation
        examples where there are none and the last state may be tested.
      small: ``(condensed, module, config, task) -> examples`` of a condensed set.
      splits: ``(train, val, test, config, seed) -> (data, batches)`` of a training loop.
      fit: ``(module, config, metric, augmentation or None) -> Algorithm`` that trains the network; without a
        metric it keeps the last state.
      measure: ``(network, examples, metric) -> number`` for a trained network.
      metrics: Metrics by name; the first one is the headline.
      size: ``(task or condensed) -> {"nodes": ..., "edges": ..., "bytes": ...}``, for tables.
      same_size: ``(condensed, task) -> settings`` for a baseline of the same size.
      distances: ``(task, condensed) -> number`` by name: how far a set is from the data, lower is better.
      networks: Names of the networks; the first one is the default.
      method: Default method.
      baselines: Names of the methods that a set is compared with.
      config: Default configuration.
      budget: Setting of the methods that says how small a set is.
      usual: Size of a set where none is given, by setting.
      sizes: Default values of the budget for a grid.
      check_size: ``(task, settings)`` raises a ValueError for settings of a size that is impossible.
      words: Words for it, in tables and pages.
      augments: Kinds of `jgd.training.AUGMENTATIONS` that change its batches.
      stacked: Whether sets of equal shapes are trained in one program.
      embedding: ``(key, task, config) -> embedding`` that several baselines may share, or None.
      figures: ``(task, condensed) -> pictures`` of a condensed set.
    """

    name: str
    task: type
    holds: Callable[[Condensed], bool]
    check: Callable[[Condensed, Any], None]
    network: Callable[[Any, Any, EvalConfig], nn.Module]
    real: Callable[[Any, str, Any], Any]
    small: Callable[[Condensed, Any, EvalConfig, Any], Any]
    splits: Callable[..., tuple[Any, Any]]
    fit: Callable[..., Algorithm]
    measure: Callable[..., Array]
    metrics: Mapping[str, Metric]
    size: Callable[[Any], dict[str, int]]
    same_size: Callable[[Condensed, Any], dict[str, Any]]
    distances: Mapping[str, Callable[[Any, Condensed], float]]
    networks: tuple[str, ...]
    method: str
    baselines: tuple[str, ...]
    config: EvalConfig
    budget: str
    usual: Mapping[str, Any]
    sizes: tuple[float, ...]
    check_size: Callable[[Any, Mapping[str, Any]], None]
    words: Words
    augments: tuple[str, ...] = ()
    stacked: bool = False
    embedding: Callable[..., Any] | None = None
    figures: Callable[[Any, Condensed], tuple[Picture, ...]] = lambda task, small: ()


# --- what several kinds share -------------------------------------------------------------------


def fit(
    net: nn.Module,
    config: EvalConfig,
    metric: Metric | None,
    augment: Augmentation | None = None,
    *,
    measure: Callable[..., Array] = score,
) -> Algorithm:
    """Return the training of a classifier by Adam with L2, whose learning rate falls at half of the steps.

    Args:
      net: Network.
      config: How it is trained.
      metric: Metric on the validation examples that selects the state; None for the last state.
      augment: Augmentation of each batch, or None.
      measure: ``(network, examples, metric) -> number``.
    """
    tx = adam_l2(config.learning_rate, config.weight_decay, num_steps=config.steps)
    return classifier(
        from_linen(net), tx, every=config.select_every, metric=metric, measure=measure, augment=augment
    )


def named_network(name: str, kind: str) -> Any:
    """Return the class of a network of graphs by its name.

    Args:
      name: Name of the network.
      kind: Kind of data that it reads.

    Raises:
      ValueError: For an unknown name.
    """
    return NETWORKS[choose("network", name, members(kind))].make


def soft_targets(small: Condensed, num_classes: int) -> Float[Array, "n C"]:
    """Return the targets of a condensed set as probabilities."""
    targets = jnp.asarray(small.targets)
    if small.training.targets == "logits":
        targets = jax.nn.softmax(targets)
    elif targets.ndim == 1:
        targets = jax.nn.one_hot(targets, num_classes)
    return targets.astype(jnp.float32)


def check_classes(small: Condensed, task: Any) -> None:
    """Refuse a condensed set with labels of other classes than a task has.

    Raises:
      ValueError: With both numbers.
    """
    soft = np.ndim(small.targets) == 2
    classes = small.targets.shape[1] if soft else int(np.max(small.targets)) + 1
    if classes > task.num_classes or (soft and classes < task.num_classes):
        raise ValueError(
            f"the condensed labels are of {classes} classes, task {task.name!r} has {task.num_classes}"
        )


def nbytes(graph: Any, labels: Any) -> int:
    """Return the bytes of features, edges (two int32, and a weight where there is one) and labels."""
    arrays = [graph.nodes, graph.edges, graph.senders, graph.receivers, labels]
    return int(sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(arrays)))
