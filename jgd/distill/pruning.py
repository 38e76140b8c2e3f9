r"""Distillation on a pruned training set: keep a share of the examples, take labels from a teacher of all.

Ben-Baruch, Botach, Kviatkovsky, Aggarwal and Medioni, "Distilling the Knowledge in Data Pruning" (ICML 2025).
A student that sees a share f of the data, ``n = round(f N)`` examples, learns from
``(1-α) CE + α T² KL`` of a teacher that saw all of it. Then random examples do as well as those of elaborate
scores, the best α grows as f falls, and for small f a small teacher is better than a large one. The authors
published no code; the ridge theory is derived again from their setting. ::

    seen = probes(key, net, task, tx, members=10, steps=100)       # ten nets, trained a little, at once
    score = el2n(seen.outputs.logits, labelled(task).targets)
    small = pruned(task, keep(score, 0.1))
    alpha = weight_of(0.1)
    student = offline(net, teacher, hinton(hard=1 - alpha, soft=alpha), tx)(key, small)

==================  =======================================================================  ================
score               large for                                                                paper
==================  =======================================================================  ================
`random`            any                                                                      -
`forgetting`        examples that were right and then wrong most often, or never right        Toneva 2019
`el2n`              wrong or unsure probabilities early in training                          Paul 2021
`grand`             large gradients early in training; `grand_last` those of the last layer   Paul 2021
`entropy`           unsure probabilities; `margin` two classes that are close                 Coleman 2020
`centroid_distance` examples far from the mean of their class or cluster                     Sorscher 2022
`herding`           examples that herding would choose late                                  Welling 2009
`memorization`      examples that only nets trained on them get right                        Feldman 2020
==================  =======================================================================  ================

Scores belong to the training examples in their order, and come from the labels as they are, wrong ones
included: among the examples that are hard then are those with wrong labels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

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
from jgd.data.tasks import ArrayTask, NodeTask
from jgd.distill.data import Source, examples, predict, rows, take
from jgd.distill.terms import supervised
from jgd.losses import cross_entropy
from jgd.losses import entropy as entropy_of

__all__ = [
    "Probes",
    "Ridge",
    "best_alpha",
    "centroid_distance",
    "count_forgetting",
    "el2n",
    "entropy",
    "forgetting",
    "grand",
    "grand_last",
    "herding",
    "keep",
    "labelled",
    "margin",
    "memorization",
    "probes",
    "pruned",
    "random",
    "ridge_distillation",
    "weight_of",
]

Labels = Int[Array | np.ndarray, " N"]
AnyTask = TypeVar("AnyTask", ArrayTask, NodeTask)


# --- scores -------------------------------------------------------------------------------------


def random(key: PRNGKeyArray, count: int) -> Int[Array, " N"]:
    """Return the examples in random order."""
    return jax.random.permutation(key, count)


def el2n(logits: Float[Array, "*M N C"], labels: Labels) -> Float[Array, " N"]:
    """Return the length of the error, ``‖softmax(z) - onehot(y)‖``, a mean over nets; in 0..√2."""
    error = jax.nn.softmax(logits) - jax.nn.one_hot(labels, logits.shape[-1])
    return _over_nets(jnp.linalg.norm(error, axis=-1))


def entropy(logits: Float[Array, "*M N C"]) -> Float[Array, " N"]:
    """Return the entropy of the probabilities in nats, a mean over nets; it needs no labels."""
    return _over_nets(entropy_of(jax.nn.log_softmax(logits)))


def margin(logits: Float[Array, "*M N C"]) -> Float[Array, " N"]:
    """One minus what the likeliest class is ahead of the second, a mean over nets; in 0..1."""
    top = jax.lax.top_k(jax.nn.softmax(logits), 2)[0]
    return _over_nets(1 - (top[..., 0] - top[..., 1]))


def grand_last(
    logits: Float[Array, "*M N C"], embedding: Float[Array, "*M N D"], labels: Labels
) -> Float[Array, " N"]:
    """`grand` of the last layer alone, in closed form: ``‖p - y‖ √(‖h‖² + 1)``, a mean over nets.

    Args:
      logits: ``W h + b``.
      embedding: Input of the last layer, ``h``.
      labels: Classes.
    """
    error = jax.nn.softmax(logits) - jax.nn.one_hot(labels, logits.shape[-1])
    scale = jnp.sqrt(jnp.sum(embedding**2, axis=-1) + 1)
    return _over_nets(jnp.linalg.norm(error, axis=-1) * scale)


def grand(nets: Bound, given: Examples, *, batch: int = 64) -> Float[Array, " N"]:
    """Return the length of each example's gradient of cross-entropy by all parameters, a mean over nets.

    Nets are evaluated without dropout. Memory grows with ``batch`` times all parameters of all nets; where
    that is too much, `grand_last` is the usual stand-in.

    Args:
      nets: Networks with a leading axis of all parameters, as `probes` returns them.
      given: Examples, see `labelled`.
      batch: Examples at a time.
    """
    return _gradient_norms(nets, given, batch)


@partial(jax.jit, static_argnames="batch")
def _gradient_norms(nets, given, batch):
    def member(net):
        def one(i):
            row = take(given, i[None])

            def loss(params):
                out, _ = net.model.apply(params, net.state, *row.inputs)
                return cross_entropy(out.logits, row.targets)[0]

            return jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(jax.grad(loss)(net.params))))

        return jax.lax.map(one, jnp.arange(given.targets.shape[0]), batch_size=batch)

    return jnp.mean(jax.vmap(member)(nets), axis=0)


def memorization(right: Bool[Array, "M N"], held: Bool[Array, "M N"]) -> Float[Array, " N"]:
    """How much likelier an example is right in a net that was trained on it than in one that was not.

    Feldman and Zhang's estimate of the leave-one-out difference from nets that leave out many examples each;
    NaN where no net, or every one, left an example out.

    Args:
      right: Whether a net gets an example right.
      held: Whether the net did not see it, see `probes` with ``folds``.
    """
    return jnp.mean(right, 0, where=~held) - jnp.mean(right, 0, where=held)


def centroid_distance(
    x: Float[Array | np.ndarray, "N D"], groups: Int[Array | np.ndarray, " N"]
) -> Float[np.ndarray, " N"]:
    """Return the distance to the mean of the group.

    Args:
      x: Embeddings.
      groups: Classes, or clusters of k-means where labels are not to be used (the prototypes of Sorscher
        et al., "Beyond neural scaling laws").
    """
    wide = np.asarray(x, np.float64)
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.zeros((group.max() + 1, wide.shape[1]))
    np.add.at(sums, group, wide)
    return np.linalg.norm(wide - (sums / np.bincount(group)[:, None])[group], axis=1)


def herding(x: Float[Array | np.ndarray, "N D"], labels: Labels) -> Float[np.ndarray, " N"]:
    """Return the turn at which herding would choose the example in its class; low ones are kept.

    ``keep(herding(x, y), f, y, balanced=True, hard=False)`` are the coresets of herding.
    """
    from jgd.condense.coresets import herding as chosen  # here, for condense and distill are neighbours

    wide, classes = np.asarray(x, np.float64), np.asarray(labels)
    turn = np.empty(len(wide))
    for c in np.unique(classes):
        members = np.flatnonzero(classes == c)
        turn[members[chosen(wide[members], len(members))]] = np.arange(len(members))
    return turn


def _over_nets(values: Float[Array, "*M N"]) -> Float[Array, " N"]:
    return jnp.mean(values.reshape(-1, values.shape[-1]), axis=0)


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
    """How often an example that was right at one look was wrong at the next; ∞ if it never was right."""
    seen = jax.lax.scan(lambda s, r: (_look(s, r), None), _unseen(right.shape[1]), jnp.asarray(right))[0]
    return _score(seen)


class _Counting(NamedTuple):
    inner: Any
    seen: _Seen


def count_forgetting(
    alg: Algorithm, right: Callable[[Any, Any], Array], count: int, *, every: int = 1
) -> Algorithm:
    """Count forgetting events in the loop: all examples are looked at after every so many steps.

    Toneva et al. look at an example when it is in the batch; looking at all at once makes counts comparable.

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


@lru_cache(maxsize=64)
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
      ValueError: for a batch larger than the training set, or members that are no multiple of the folds.
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


# --- which are kept -------------------------------------------------------------------------------


def keep(
    score: Shaped[Array | np.ndarray, " N"],
    fraction: float,
    labels: Labels | None = None,
    *,
    balanced: bool = False,
    hard: bool = True,
) -> Int[np.ndarray, " n"]:
    """Return the positions, ascending, of exactly ``round(fraction * N)`` examples.

    What a smaller fraction keeps a larger one keeps too. Among equal scores the lower position wins.

    Args:
      score: Score of each training example.
      fraction: Share that is kept (not the share removed), in 0..1.
      labels: Classes, for ``balanced``.
      balanced: Whether as many of each class are kept, as far as there are.
      hard: Whether large scores are kept, else small ones.

    Raises:
      ValueError: for scores that are not numbers, no labels to balance by, or nothing kept.
    """
    score = np.asarray(score, np.float64)
    n = round(fraction * len(score))
    if not 0 < fraction <= 1 or n < 1:
        raise ValueError(f"a fraction of {fraction} of {len(score)} examples keeps nothing, or more than all")
    if np.isnan(score).any():
        raise ValueError("there are NaNs among the scores")
    order = np.argsort(-score if hard else score, kind="stable")
    if balanced:
        if labels is None or len(labels) != len(score):
            raise ValueError("balanced needs the class of each example: give labels")
        classes = np.asarray(labels)[order]
        place = np.empty(len(order), np.int64)  # of each among those of its class
        for c in np.unique(classes):
            place[classes == c] = np.arange(np.sum(classes == c))
        order = order[np.argsort(place, kind="stable")]
    return np.sort(order[:n])


def pruned(task: AnyTask, index: Int[np.ndarray, " n"]) -> AnyTask:
    """Return the task with some of its training examples; the graph of a `NodeTask` stays whole.

    Args:
      task: Task with training examples.
      index: Positions among them, see `keep`.

    Raises:
      ValueError: for positions that do not exist.
    """
    if task.train is None:
        raise ValueError(f"{task.name or 'the task'} has no training examples")
    train = np.flatnonzero(np.asarray(task.train))
    if not len(index) or index.min() < 0 or index.max() >= len(train):
        raise ValueError(f"positions must be in 0..{len(train) - 1}, the training examples")
    mask = np.zeros(len(np.asarray(task.train)), bool)
    mask[train[index]] = True
    return dataclasses.replace(task, train=mask)


def weight_of(fraction: Any, low: float = 0.0, high: float = 1.0) -> Any:
    """α by the share that is kept, ``clip(1 - f, low, high)``: a rule of ours that falls as the best α does.

    `best_alpha` is what theory says for linear regression. With wrong labels, or scores that keep hard
    examples, larger is better: raise ``low``.
    """
    return jnp.clip(1 - jnp.asarray(fraction), low, high)


# --- ridge regression, where everything has a closed form -----------------------------------------


class Ridge(NamedTuple):
    """A linear student.

    Attributes:
      theta: Coefficients ``[d]`` for the targets that were given.
      bias2: ``‖E θ_s - θ‖²`` over noise.
      variance: ``E ‖θ_s - E θ_s‖²`` over noise.
    """

    theta: Array
    bias2: Array
    variance: Array


def _solver(x, kept, lam) -> Array:
    """Return the coefficients of ridge regression, linear in all targets: ``(A + λ I)^-1 X_f S_f``."""
    x = x * kept[:, None]
    gram = jnp.matmul(x.T, x, precision="highest") + lam * jnp.eye(x.shape[1], dtype=x.dtype)
    return jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(gram), x.T)


def _linear_students(x, kept, lam, taught) -> tuple[Array, Array]:
    """Return maps ``[d, N]`` from targets to the student without a teacher, and to that with nothing else."""
    product = partial(jnp.matmul, precision="highest")
    alone = _solver(x, kept, lam)
    teacher = _solver(x, jnp.ones_like(kept) if taught is None else taught, lam)
    return alone, product(product(alone, x), teacher)


def ridge_distillation(
    x: Float[Array, "N d"],
    y: Float[Array, " N"],
    kept: Shaped[Array, " N"],
    alpha: Any,
    lam: Any,
    *,
    truth: Float[Array, " d"],
    noise: Any = 1.0,
    taught: Shaped[Array, " N"] | None = None,
) -> Ridge:
    """Ridge regression on some examples, from a mixture of their targets and a teacher's predictions.

    ``y = X θ + η``. The student ``(A_f + λ I)^-1 X_f^T ((1-α) y_f + α X_f θ_t)`` of the teacher
    ``θ_t = (A_t + λ I)^-1 X_t^T y_t`` is linear in all targets, ``θ_s = M y``, so that its mean is ``M X θ``
    and its variance ``σ² ‖M‖_F²``. A teacher of all examples lowers the bias of one that saw only the kept
    ones; beside no teacher the bias rises a little and the variance collapses.

    Args:
      x: Inputs.
      y: Targets.
      kept: Mask of the student's examples.
      alpha: Weight of the teacher.
      lam: Penalty λ.
      truth: True coefficients θ.
      noise: Standard deviation σ of η.
      taught: Mask of the teacher's examples; None for all.
    """
    kept = kept.astype(x.dtype)
    alone, copied = _linear_students(x, kept, lam, None if taught is None else taught.astype(x.dtype))
    m = (1 - alpha) * alone + alpha * copied
    bias = jnp.matmul(m, x @ truth, precision="highest") - truth
    theta = jnp.matmul(m, y, precision="highest")
    return Ridge(theta, jnp.sum(bias**2), noise**2 * jnp.sum(m**2))


def best_alpha(
    x: Float[Array, "N d"],
    kept: Shaped[Array, " N"],
    lam: Any,
    *,
    truth: Float[Array, " d"],
    noise: Any = 1.0,
    taught: Shaped[Array, " N"] | None = None,
) -> Float[Array, ""]:
    """Return the α in 0..1 of the least bias² + variance of `ridge_distillation`, a vertex."""
    kept = kept.astype(x.dtype)
    alone, copied = _linear_students(x, kept, lam, None if taught is None else taught.astype(x.dtype))
    change = copied - alone
    signal = x @ truth
    bias, slope = (jnp.matmul(m, signal, precision="highest") for m in (alone, change))
    down = jnp.sum((bias - truth) * slope) + noise**2 * jnp.sum(alone * change)
    curve = jnp.sum(slope**2) + noise**2 * jnp.sum(change**2)
    return jnp.clip(-down / jnp.maximum(curve, jnp.finfo(x.dtype).tiny), 0, 1)
