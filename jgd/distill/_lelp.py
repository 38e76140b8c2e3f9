"""LELP: a teacher of few classes teaches subclasses that its embeddings know of.

Loo et al., "Linear Projections of Teacher Embeddings for Few-Class Distillation", 2024; the projections and
the targets are those of `jgd.losses.lelp_fit` and `jgd.losses.lelp_targets`::

    student = offline(subclassed(net, num_classes=2), teacher, lelp(subclasses=5), tx)(key, task)

with ``net`` of ``2 * 5`` outputs. The student's logits are those of the classes again, so it is used and
scored like any other. Where we depart from the paper: it adds up probabilities of subclasses at temperature
1 whatever the loss's; `subclassed` does so at the temperature of the loss. With four classes of tweets the
paper's rule costs twelve points.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgd import losses
from jgd.core import Context, Model, Objective, applied, as_model
from jgd.core.memo import memoized
from jgd.distill.data import count, outputs_of_all, source_of
from jgd.distill.terms import index_of
from jgd.losses import mean

__all__ = ["head", "lelp", "random_subclasses", "subclassed"]


def subclassed(net: Model | nn.Module, num_classes: int, *, temperature: float = 4.0) -> Model:
    """Return a network over subclasses as one over classes, with their logits as the tap ``"subclasses"``.

    Args:
      net: Network of ``num_classes * S`` logits, subclasses of the first class first.
      num_classes: Number of classes.
      temperature: Temperature at which subclasses add up to classes, that of the loss (see
        `losses.marginal_logits`); the paper's rule is 1.
    """
    return _subclassed(as_model(net), num_classes, temperature)


@memoized
def _subclassed(model: Model, num_classes: int, temperature: float) -> Model:
    def apply(params, state, *inputs, key=None, train=False):
        out, state = applied(model, params, state, *inputs, key=key, train=train)
        taps = {**out.taps, "subclasses": out.logits}
        logits = losses.marginal_logits(out.logits, num_classes, temperature=temperature)
        return out._replace(value=logits, taps=taps), state

    return Model(model.init, apply, model.reads)


def head(h: Float[Array, "n D"], z: Float[Array, "n C"]) -> Float[Array, "D C"]:
    """Return the weights W of ``z = h W + b`` by least squares, exact for a linear head of any library."""
    centred = h - jnp.mean(h, axis=0)
    return jnp.linalg.lstsq(centred, z - jnp.mean(z, axis=0), rcond=1e-5)[0]


def lelp(
    *,
    subclasses: int = 5,
    beta: Any = 0.25,
    temperature: Any = 4.0,
    null_space: bool = True,
    rotate: bool = True,
    student: str = "model",
    teacher: str = "teacher",
) -> Objective:
    """Return cross-entropy to the teacher's subclasses; the whole loss (the paper adds no labels).

    The projections are fitted once, from the teacher's embeddings of all training examples, before the first
    step; they are the objective's state. The student needs the tap ``"subclasses"``, see `subclassed`.

    Args:
      subclasses: Subclasses of each class, S.
      beta: Temperature of the split within a class.
      temperature: Temperature of the classes, τ.
      null_space: Whether only the null space of the teacher's head is used.
      rotate: Whether the directions are mixed at random.
      student: Name of the network that learns.
      teacher: Name of the network that it learns from; it must return an embedding.
    """

    def init(key, ctx):
        out = outputs_of_all(ctx, teacher, "lelp")
        h = out.embedding.reshape(out.embedding.shape[0], -1)
        weights = head(h, out.logits)
        fit = losses.lelp_fit(key, h, out.logits, weights, S=subclasses, null_space=null_space, rotate=rotate)
        return (), fit

    def apply(params, state, ctx, *, key, step):
        del params, key, step
        out = jax.lax.stop_gradient(ctx.outputs[teacher])
        h = out.embedding.reshape(out.embedding.shape[0], -1)
        targets = losses.lelp_targets(state, h, out.logits, beta=beta, temperature=temperature)
        return _against(ctx, student, targets, temperature), state, {}

    return Objective(init, apply)


def random_subclasses(
    *, subclasses: int = 5, temperature: Any = 4.0, student: str = "model", teacher: str = "teacher"
) -> Objective:
    """Return the control of LELP: each example has a fixed random subclass of every class."""

    def init(key, ctx):
        return (), jax.random.randint(key, (count(source_of(ctx, "random_subclasses").train),), 0, subclasses)

    def apply(params, state, ctx, *, key, step):
        del params, key, step
        classes = jax.nn.softmax(jax.lax.stop_gradient(ctx.outputs[teacher].logits) / temperature)
        within = jax.nn.one_hot(state[index_of(ctx, "random_subclasses")], subclasses)
        return _against(ctx, student, classes[..., None] * within[:, None], temperature), state, {}

    return Objective(init, apply)


def _against(ctx: Context, student: str, targets: Array, temperature: Any) -> Array:
    taps = ctx.outputs[student].taps
    if "subclasses" not in taps:
        raise ValueError("the student has no subclasses: wrap it in jgd.distill.subclassed")
    each = losses.subclass_kd(taps["subclasses"], targets, temperature=temperature)
    return mean(each, ctx.batch.weights)
