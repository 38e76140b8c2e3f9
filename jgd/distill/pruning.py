r"""Distillation on a pruned training set: keep a share of the examples, take labels from a teacher of all.

Ben-Baruch, Botach, Kviatkovsky, Aggarwal and Medioni, "Distilling the Knowledge in Data Pruning" (ICML 2025).
A student that sees a share f of the data, ``n = round(f N)`` examples, learns from
``(1-α) CE + α T² KL`` of a teacher that saw all of it. Then random examples do as well as those of elaborate
scores, the best α grows as f falls, and for small f a small teacher is better than a large one. The authors
published no code. Networks that scores come from are trained by `jgd.distill.probes`; the theory, for ridge
regression, is `jgd.distill.ridge`. ::

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

`forgetting` is counted while the networks train, see `jgd.distill.probes`. Scores belong to the training
examples in their order, and come from the labels as they are: examples with wrong labels are among the hard
ones.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from jgd.core import Bound, Examples
from jgd.data import ArrayTask, NodeTask
from jgd.distill.data import take
from jgd.losses import cross_entropy
from jgd.losses import entropy as entropy_of

__all__ = [
    "centroid_distance",
    "el2n",
    "entropy",
    "grand",
    "grand_last",
    "herding",
    "keep",
    "margin",
    "memorization",
    "pruned",
    "random",
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
    """Return one minus the lead of the likeliest class over the second, a mean over nets; in 0..1."""
    top = jax.lax.top_k(jax.nn.softmax(logits), 2)[0]
    return _over_nets(1 - (top[..., 0] - top[..., 1]))


def grand_last(
    logits: Float[Array, "*M N C"], embedding: Float[Array, "*M N D"], labels: Labels
) -> Float[Array, " N"]:
    """Return `grand` of the last layer alone in closed form, ``‖p - y‖ √(‖h‖² + 1)``, a mean over nets.

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
      nets: Networks with a leading axis of all parameters, as `jgd.distill.probes` returns them.
      given: Examples, see `jgd.distill.probes.labelled`.
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
    """Return how much likelier an example is right in a net trained on it than in one that left it out.

    Feldman and Zhang's estimate of the leave-one-out difference from nets that leave out many examples each;
    NaN where no net, or every one, left an example out.

    Args:
      right: Whether a net gets an example right.
      held: Whether the net did not see it, see `jgd.distill.probes` with ``folds``.
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
    from jgd.condense.coresets import herding as chosen  # not at the top: condense and distill are neighbours

    wide, classes = np.asarray(x, np.float64), np.asarray(labels)
    turn = np.empty(len(wide))
    for c in np.unique(classes):
        members = np.flatnonzero(classes == c)
        turn[members[chosen(wide[members], len(members))]] = np.arange(len(members))
    return turn


def _over_nets(values: Float[Array, "*M N"]) -> Float[Array, " N"]:
    return jnp.mean(values.reshape(-1, values.shape[-1]), axis=0)


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
      ValueError: For scores that are not numbers, no labels to balance by, or nothing kept.
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
      ValueError: For positions that do not exist.
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
    """Return α for the share that is kept, ``clip(1 - f, low, high)``: our rule, falling like the best α.

    `jgd.distill.ridge.best_alpha` is what theory says of linear regression. With wrong labels, or scores that
    keep hard examples, larger is better: raise ``low``.
    """
    return jnp.clip(1 - jnp.asarray(fraction), low, high)
