"""Networks that are trained a little, several at once, to score the examples of a training set.

::

    seen = probes(key, net, task, tx, members=10, steps=100)
    score = el2n(seen.outputs.logits, labelled(task).targets)

Few steps suit `jgd.distill.pruning.el2n` and ``grand``, many suit `forgetting`; networks that leave out parts
of the examples (``folds``) are what `jgd.distill.pruning.memorization` compares. Examples are in the order of
`labelled`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jgd.core import (
    Algorithm,
    Bound,
    Examples,
    Loop,
    Model,
    Outputs,
    as_model,
    ensemble,
    in_memory,
    inner_flush,
    train,
)
from jgd.core.memo import memoized
from jgd.data import ArrayTask
from jgd.distill.data import Source, examples, predict, rows, take
from jgd.distill.terms import supervised

__all__ = ["Probes", "count_forgetting", "forgetting", "labelled", "probes"]


# --- forgetting, counted while a network trains ---------------------------------------------------


class _Seen(NamedTuple):
    right: Array
    ever: Array
    lost: Array


def _unseen(count: int) -> _Seen:
    return _Seen(jnp.zeros(count, bool), jnp.zeros(count, bool), jnp.zeros(count, jnp.int32))


def _look(seen: _Seen, right: Array) -> _Seen:
    return _Seen(right, seen.ever | right, seen.lost + (seen.right & ~right))


def _score(seen: _Seen) -> Array:
    return jnp.where(seen.ever, seen.lost.astype(jnp.float32), jnp.inf)


def forgetting(right: Bool[Array | np.ndarray, "T N"]) -> Float[Array, " N"]:
    """Return how often an example that was right at one check was wrong at the next; ∞ if never right."""
    seen = jax.lax.scan(lambda s, r: (_look(s, r), None), _unseen(right.shape[1]), jnp.asarray(right))[0]
    return _score(seen)


class _Counting(NamedTuple):
    inner: Any
    seen: _Seen


def count_forgetting(
    alg: Algorithm, right: Callable[[Any, Any], Array], count: int, *, every: int = 1
) -> Algorithm:
    """Count forgetting events in the loop, by checks of all examples at regular intervals of steps.

    Toneva et al. check an example when it is in the batch; checking all at once makes counts comparable.

    Args:
      alg: Algorithm whose ``result`` is cheap and jittable.
      right: ``(product, data) -> bool [N]``.
      count: N.
      every: Steps between checks, usually an epoch.

    Returns:
      An `Algorithm` whose product is ``(product, scores [N])``, the scores as of `forgetting`.
    """

    def init(key, data, batch):
        return _Counting(alg.init(key, data, batch), _unseen(count))

    def step(key, t, state, data, batch):
        inner, metrics = alg.step(key, t, state.inner, data, batch)
        seen = jax.lax.cond(
            (t + 1) % every == 0,
            lambda seen: _look(seen, right(alg.result(inner, data), data)),
            lambda seen: seen,
            state.seen,
        )
        return _Counting(inner, seen), metrics

    def result(state, data):
        return alg.result(state.inner, data), _score(state.seen)

    return Algorithm(init, step, result, inner_flush(alg.flush))


# --- networks to score by -------------------------------------------------------------------------


class Probes(NamedTuple):
    """Networks that were trained to score examples.

    Attributes:
      nets: Networks with a leading axis M of all parameters.
      outputs: Logits ``[M, N, C]`` and embeddings ``[M, N, D]`` of all training examples.
      forgetting: ``[M, N]``, see `forgetting`.
      held: ``[M, N]``, whether a net did not train on an example.
    """

    nets: Bound
    outputs: Outputs
    forgetting: Array
    held: Array


def labelled(task: ArrayTask) -> Examples:
    """Return the training examples, in whose order scores are, without unlabelled ones."""
    return examples(dataclasses.replace(task, unlabelled=None), "train")


@memoized
def _probe(model: Model, tx, members: int, count: int, batch: int, every: int) -> Algorithm:
    def prepare(key, t, data, given):
        del key, given
        picked = take(data.train, rows(data.order, t, count, batch))
        return picked, {"model": picked.inputs}

    def right(net, data):
        return jnp.argmax(predict(net, data.train).logits, -1) == data.train.targets

    alg = count_forgetting(train(model, supervised(), tx, prepare=prepare), right, count, every=every)
    own = Source(Examples(None, None, 0, None), None, None, None, 0)  # pyright: ignore[reportArgumentType]
    return ensemble(alg, members, data_axis=own)


def probes(
    key: PRNGKeyArray,
    net: Model | nn.Module,
    task: ArrayTask,
    tx: optax.GradientTransformation,
    *,
    members: int = 10,
    steps: int = 500,
    batch: int = 64,
    every: int | None = None,
    folds: int | None = None,
    loop: Loop = in_memory,
) -> Probes:
    """Train several networks from labels at once: few steps for `el2n` and `grand`, many for `forgetting`.

    Args:
      key: Random key of initial weights, orders and folds.
      net: Network, often the student itself.
      task: Task with training examples.
      tx: Optimiser.
      members: Number of networks; they differ in their weights and the order of the examples.
      steps: Steps of the optimiser.
      batch: Examples of a step.
      every: Steps between checks for `forgetting`; None for an epoch.
      folds: Number of random parts, of which each network leaves one out (its examples weigh nothing), for
        `memorization`. ``members`` is a multiple: every multiple has parts of its own.
      loop: Loop that runs the stage.

    Raises:
      ValueError: For a batch larger than the training set, or members that are no multiple of the folds.
    """
    given = labelled(task)
    count = int(given.targets.shape[0])
    if not 0 < batch <= count:
        raise ValueError(f"a batch of {batch} from {count} training examples")
    if folds is not None and (folds < 2 or members % folds):
        raise ValueError(f"folds must be at least 2 and divide the members, got {folds} and {members}")
    k_order, k_fold, k_train = jax.random.split(key, 3)
    held = jnp.zeros((members, count), bool)
    if folds is not None:
        keys = jax.random.split(k_fold, members // folds)
        part = jax.vmap(lambda k: jax.random.permutation(k, count) % folds)(keys)
        held = (part[:, None] == jnp.arange(folds)[:, None]).reshape(members, count)
    weights = jnp.ones(count) if given.weights is None else given.weights
    given = given._replace(weights=weights * ~held)
    data = Source(given, None, {}, {}, jax.random.split(k_order, members))
    model = as_model(net)
    alg = _probe(model, tx, members, count, batch, every or count // batch)
    nets, lost = loop("probe", alg, k_train, data, steps)
    outputs = _outputs(nets, given._replace(weights=None))
    return Probes(nets, outputs, lost, held)


@jax.jit
def _outputs(nets, given):
    return jax.vmap(lambda net: predict(net, given)._replace(taps={}))(nets)
