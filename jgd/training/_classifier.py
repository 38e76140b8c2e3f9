"""Fit a classifier and keep its best state on validation examples."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import optax
from jaxtyping import Array

from jgd.core import Algorithm, Bound, Context, Examples, Model, keep_best, objective, train
from jgd.losses import cross_entropy, mean
from jgd.metrics import accuracy
from jgd.training.augment import Augmentation

__all__ = ["Metric", "classifier", "score"]

Metric = Callable[..., Array]
"""``(logits, targets, weights) -> number``; examples of weight zero do not count."""


def score(net: Bound, examples: Examples, metric: Metric = accuracy) -> Array:
    """Measure a network on examples.

    Args:
      net: Trained network.
      examples: Examples with targets; those of weight zero do not count.
      metric: What is measured, e.g. `jgd.metrics.accuracy`.
    """
    return metric(net(*examples.inputs).logits, examples.targets, examples.weights)


def classifier(
    model: Model,
    tx: optax.GradientTransformation,
    *,
    every: int = 1,
    metric: Metric | None = accuracy,
    measure: Callable[..., Array] = score,
    augment: Augmentation | None = None,
) -> Algorithm:
    """Train with weighted cross-entropy and keep the state that is best on the validation examples.

    Args:
      model: Network with logits ``[N, C]``.
      tx: Optimiser.
      every: Steps between validation checks.
      metric: What is measured there; higher is better. None keeps the last state.
      measure: ``(net, examples, metric) -> number``, for validation examples that do not fit into one batch.
      augment: Augmentation of each batch, whose targets must be probabilities ``[N, C]``.

    Returns:
      An `Algorithm` over `jgd.training.Splits` whose product is the best network. Without batches every step
      sees all of ``data.train``.
    """
    alg = train(model, objective(_loss), tx, prepare=partial(_prepare, augment))
    if metric is None:
        return alg
    return keep_best(alg, lambda net, data: measure(net, data.val, metric), every=every)


def _loss(ctx: Context) -> Array:
    return mean(cross_entropy(ctx.outputs["model"].logits, ctx.batch.targets), ctx.batch.weights)


def _prepare(augment, key, t, data, batch):
    batch = data.train if batch is None else batch
    if augment is not None:
        if batch.targets.ndim != 2:
            raise ValueError(f"augmented batches need probabilities [N, C], got {batch.targets.shape}")
        batch = augment.apply(key, t, batch, batch.targets.shape[1])
    return batch, {"model": batch.inputs}
