r"""Objectives on logits with their authors' weights: one line each, and each a starting point for others.

``weighted(ce=(w, labels), kd=(v, teacher))`` with the values of the reference implementations for CIFAR.
PLD and MIX-KD are whole losses of their own: no cross-entropy is added.

==============  ======================================================================  =====================
objective       loss                                                                    paper
==============  ======================================================================  =====================
`hinton`        0.1 CE + 0.9 T² KL, T = 4                                               Hinton et al. 2015
`dkd`           CE + ramp (TCKD + 8 NCKD), T = 4                                        Zhao et al. 2022
`nkd`           CE + target and non-target cross-entropies                              Yang et al. 2023
`dist`          CE + 2 (inter-class + intra-class correlation), T = 4                   Huang et al. 2022
`standardized`  0.1 CE + 9 T² KL of standardised logits, T = 2                          Sun et al. 2024
`pld`           Plackett-Luce likelihood of the teacher's ranking, the label first      Bassam et al. 2025
`mix_kd`        0.1 CE + 0.9 KL of logits over their deviation                          Choi et al. 2023
`bd_kd`         CE + balanced KLs for the student, CE + KL for its teacher, online      Amara et al. 2022
`kdcl`          CE + KL to an ensemble of all peers, online                             Guo et al. 2020
==============  ======================================================================  =====================
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jgd import losses
from jgd.core import Context, Objective, objective, weighted
from jgd.distill.terms import supervised, term
from jgd.losses import mean
from jgd.registry import Entry

__all__ = ["bd_kd", "ctkd", "dist", "dkd", "hinton", "kdcl", "mix_kd", "nkd", "pld", "ramp", "standardized"]


def ramp(steps: int, weight: float = 1.0) -> Callable[[Array], Array]:
    """Return a weight that grows in proportion to the step until ``steps``, as an Optax schedule."""
    return lambda step: weight * jnp.minimum((step + 1) / max(steps, 1), 1.0)


def hinton(*, temperature: Any = 4.0, hard: Any = 0.1, soft: Any = 0.9, **settings: Any) -> Objective:
    """Return Hinton's loss: labels and softened outputs of the teacher.

    Args:
      temperature: Temperature T.
      hard: Weight of the labels.
      soft: Weight of the teacher.
      **settings: Settings of `jgd.distill.term` and `jgd.losses.kd`, e.g. ``divergence=losses.js``.
    """
    return weighted(ce=(hard, supervised()), kd=(soft, term(losses.kd, temperature=temperature, **settings)))


def dkd(
    *, temperature: Any = 4.0, alpha: Any = 1.0, beta: Any = 8.0, warm_up: int = 0, **settings: Any
) -> Objective:
    """Return decoupled distillation, whose weight grows over ``warm_up`` steps (20 epochs on CIFAR)."""
    loss = term(losses.dkd_loss, temperature=temperature, alpha=alpha, beta=beta, **settings)
    return weighted(ce=(1.0, supervised()), dkd=(ramp(warm_up) if warm_up else 1.0, loss))


def nkd(*, temperature: Any = 1.0, gamma: Any = 1.5, **settings: Any) -> Objective:
    """Return the loss of normalised distillation."""
    return weighted(
        ce=(1.0, supervised()),
        nkd=(1.0, term(losses.nkd_loss, temperature=temperature, gamma=gamma, **settings)),
    )


def dist(
    *, temperature: Any = 4.0, beta: Any = 1.0, gamma: Any = 1.0, weight: Any = 2.0, **settings: Any
) -> Objective:
    """Return the loss of DIST: correlations of rows and of columns in place of a divergence."""
    loss = term(losses.dist_loss, temperature=temperature, beta=beta, gamma=gamma, **settings)
    return weighted(ce=(1.0, supervised()), dist=(weight, loss))


def standardized(*, temperature: Any = 2.0, hard: Any = 0.1, soft: Any = 9.0, **settings: Any) -> Objective:
    """Return Hinton's loss on standardised logits, with labels on the raw ones."""
    return hinton(temperature=temperature, hard=hard, soft=soft, transform=losses.standardize, **settings)


def pld(*, temperature: Any = 4.0, **settings: Any) -> Objective:
    """Return the loss of the teacher's ranking with the label first; the whole loss.

    The temperature softens the weights of the ranks alone. 4 is the value for CIFAR-100, 1 that for
    ImageNet: a teacher that knows its transfer set by heart has nothing to rank at 1, and the loss is
    cross-entropy.
    """
    return weighted(pld=(1.0, term(losses.pld_loss, temperature=temperature, **settings)))


def mix_kd(*, gamma: Any = 0.1, alpha: Any = 0.9, **settings: Any) -> Objective:
    """Return labels and teacher without a temperature, for batches of `mixup(clean=0.9)`."""
    return weighted(mix_kd=(1.0, term(losses.mix_kd_loss, gamma=gamma, alpha=alpha, **settings)))


def bd_kd(
    *,
    temperature: Any = 3.0,
    delta: Any = 2.0,
    kappa: Any = None,
    teacher_weight: Any = 1.0,
    student: str = "model",
    teacher: str = "teacher",
) -> Objective:
    """Return online distillation with balanced divergences of the student, for two players.

    The student has both KLs, the one that its entropy gap asks for with weight ``delta``; the teacher the
    plain mutual term. ``jgd.distill.online({"model": net, "teacher": large}, bd_kd(), tx)``. The paper's
    own weights could not be seen: ``delta`` and ``teacher_weight`` are ours (1 gives the unweighted sum).

    Args:
      temperature: Temperature T of all divergences.
      delta: Weight of the divergence that is preferred.
      kappa: Sharpness of a smooth choice; None makes a hard choice.
      teacher_weight: Weight of the teacher's mutual term; 0 leaves it undisturbed.
      student: Name of the small network.
      teacher: Name of the large network.
    """
    balanced = term(
        losses.bd_kd_loss, temperature=temperature, delta=delta, kappa=kappa, student=student, teacher=teacher
    )
    back = term(losses.peer, temperature=temperature, student=teacher, teacher=student)
    return weighted(
        ce=(1.0, supervised(player=student)),
        balanced=(1.0, balanced),
        teacher_ce=(1.0, supervised(player=teacher)),
        teacher_peer=(teacher_weight, back),
    )


Ensemble = Literal["mean", "best", "linear", "min"]


def kdcl(
    players: tuple[str, ...], *, ensemble: Ensemble = "min", temperature: Any = 2.0, weight: Any = 1.0
) -> Objective:
    """Return the loss of peers that learn from labels and from an ensemble of them all.

    Args:
      players: Names of the networks.
      ensemble: Kind of teacher: the mean of the logits, those of the peer that is best on the example, the
        convex combination that is best on the batch, or the least of the logits once the label's is at zero.
      temperature: Temperature T.
      weight: Weight of the ensemble, a number or a schedule.
    """
    if len(players) < 2:
        raise ValueError(f"an ensemble needs at least two players, got {players}")

    def joined(logits: Array, labels: Array, where: Array | None) -> Array:
        if ensemble == "mean":
            return losses.mean_logits(logits)
        if ensemble == "best":
            return losses.best_logits(logits, labels)
        if ensemble == "min":
            return losses.min_logits(logits, labels)
        if ensemble == "linear":
            return losses.weighted_logits(logits, losses.linear_weights(logits, labels, where=where))
        raise ValueError(f"ensemble must be mean, best, linear or min, got {ensemble!r}")

    def together(ctx: Context) -> Array:
        logits = jax.lax.stop_gradient(jnp.stack([ctx.outputs[p].logits for p in players]))
        where = None if ctx.batch.weights is None else ctx.batch.weights != 0
        teacher = joined(logits, ctx.batch.targets, where)
        each = [losses.kd(ctx.outputs[p].logits, teacher, temperature=temperature) for p in players]
        return mean(sum(each[1:], each[0]), ctx.batch.weights)

    hard: dict[str, Any] = {f"{p}/hard": (1.0, supervised(player=p)) for p in players}
    return weighted(**hard, ensemble=(weight, objective(together)))


def ctkd(
    *, hard: Any = 0.1, soft: Any = 0.9, ramp_steps: int = 1000, start: float = 1.0, **settings: Any
) -> Objective:
    """Return Hinton's loss at a temperature that is learned against the student (Li et al., AAAI 2023).

    One temperature for all examples, ``1 + 20 sigmoid(θ)``, is trained by the same optimiser with its
    gradient reversed; the reversal sets in over ``ramp_steps`` (10 epochs in the paper).

    Args:
      hard: Weight of the labels.
      soft: Weight of the teacher.
      ramp_steps: Steps until the reversal is whole.
      start: Initial θ; 1 is a temperature of 15.6.
      **settings: Settings of `jgd.losses.kd`.
    """
    labels = supervised()

    def init(key, ctx):
        del key, ctx
        return jnp.asarray(start), ()

    def apply(params, state, ctx, *, key, step):
        temperature = losses.ctkd_temperature(params, losses.ctkd_scale(step, float(ramp_steps)))
        student, teacher = ctx.outputs["model"].logits, ctx.outputs["teacher"].logits
        each = losses.kd(student, teacher, temperature=temperature, **settings)
        own = labels.apply((), (), ctx, key=key, step=step)[0]
        return hard * own + soft * mean(each, ctx.batch.weights), state, {"temperature": temperature}

    return Objective(init, apply)


ENTRIES = (
    Entry("kd", hinton, "Softened class probabilities.", "Hinton et al. 2015"),
    Entry(
        "reverse-kl",
        partial(hinton, divergence=losses.reverse_kl),
        "Softened class probabilities, the modes of the student first.",
    ),
    Entry("dkd", dkd, "The label and the other classes apart.", "Zhao et al. 2022"),
    Entry("nkd", nkd, "The other classes, normalised among themselves.", "Yang et al. 2023"),
    Entry("dist", dist, "Correlations over classes and over examples.", "Huang et al. 2022"),
    Entry("standardized", standardized, "Logits divided by their deviation.", "Sun et al. 2024"),
    Entry(
        "ctkd",
        partial(ctkd, ramp_steps=300),
        "A temperature that is trained against the student.",
        "Li et al. 2023",
    ),
    Entry("pld", pld, "Order of the classes, weighted by the teacher.", "Bassam et al. 2025"),
)
