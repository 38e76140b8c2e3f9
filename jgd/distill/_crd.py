r"""CRD: the student's embedding of an example must agree with the teacher's, and not with those of others.

Tian, Krishnan and Isola, "Contrastive Representation Distillation", ICLR 2020.

The one idea: contrast needs many negatives, more than a batch has. Both networks are mapped to unit vectors
of 128 numbers and a bank remembers the last such vector of every training example; an example is
distinguished from K draws of the other network's bank::

    e_s = unit(W_s v_s),  e_t = unit(W_t v_t)
    L = nce(<e_s, M_t> / 0.07) + nce(<e_t, M_s> / 0.07)
    M_i <- unit(0.5 M_i + 0.5 e_i)

The K draws are uniform over the examples of all other classes, as the authors'; an example of unknown class
is a class of its own. Departures: K = 1024 by default in place of 16384, and draws may repeat (the authors'
repeat only where the other classes have fewer than K examples).
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jgd import losses
from jgd.core import Objective, from_linen
from jgd.distill.data import count, source_of
from jgd.distill.terms import Place, beside_labels, index_of, sides
from jgd.registry import Entry

__all__ = ["Groups", "crd", "draw_others", "groups"]


class Groups(NamedTuple):
    """Examples sorted by class: those of one class stand side by side.

    Attributes:
      order: ``[N]`` the examples.
      first: ``[N]`` where in the order the class of each example begins.
      size: ``[N]`` how many examples that class has.
    """

    order: Int[Array, " N"]
    first: Int[Array, " N"]
    size: Int[Array, " N"]


def groups(labels: Int[Array, " N"]) -> Groups:
    """Sort examples by class; those of unknown class (negative) are a class each."""
    alone = jnp.max(labels, initial=0) + 1 + jnp.arange(labels.shape[0])
    labels = jnp.where(labels < 0, alone, labels)
    order = jnp.argsort(labels)
    ranked = labels[order]
    first, end = (jnp.searchsorted(ranked, labels, side=side) for side in ("left", "right"))
    return Groups(order, first, end - first)


def draw_others(key: Array, sorted_by: Groups, index: Int[Array, " B"], draws: int) -> Int[Array, "B K"]:
    """Draw examples uniformly from those of all classes but that of each example.

    Args:
      key: Random key.
      sorted_by: Examples by class, see `groups`.
      index: Examples whose classes are left out.
      draws: Draws for each example, with replacement.
    """
    first, size = sorted_by.first[index][:, None], sorted_by.size[index][:, None]
    others = sorted_by.order.shape[0] - size
    place = jax.random.randint(key, (index.shape[0], draws), 0, jnp.maximum(others, 1))
    return sorted_by.order[jnp.where(place < first, place, place + size)]


def crd(
    *,
    at: Place = "embedding",
    dim: int = 128,
    negatives: int = 1024,
    temperature: float = 0.07,
    momentum: float = 0.5,
    student: str = "model",
    teacher: str = "teacher",
) -> Objective:
    """Return contrast with banks of all examples; 0.8 is its usual weight beside cross-entropy.

    Its parameters are two linear maps, trained with the student; its state are the two banks ``[N, dim]``,
    the two constants that normalise the scores, and the examples by class. Batches must know which examples
    they hold (``batch.index``), as those of `jgd.distill.offline` do. The loss is NaN where there is
    no other class to draw from.

    Args:
      at: Place that is embedded.
      dim: Width of the embedding.
      negatives: Draws for each example.
      temperature: Temperature of the scores.
      momentum: Weight of the past in the banks, in [0, 1].
      student: Name of the network that learns.
      teacher: Name of the network that it learns from.

    Raises:
      ValueError: For settings outside their range.
    """
    if dim < 1 or negatives < 1 or temperature <= 0 or not 0 <= momentum <= 1:
        raise ValueError(
            f"dim and negatives must be at least 1, temperature positive, momentum in [0, 1]; got {dim}, "
            f"{negatives}, {temperature} and {momentum}"
        )
    embed = from_linen(_Map(dim))

    def features(ctx):
        return [x.reshape(x.shape[0], -1) for x in sides(ctx, at, student, teacher)]

    def init(key, ctx):
        keys = jax.random.split(key, 4)
        maps = [embed.init(k, x)[0] for k, x in zip(keys[:2], features(ctx), strict=True)]
        train, bound = source_of(ctx, "crd").train, 1 / (dim / 3) ** 0.5
        total = count(train)
        banks = [jax.random.uniform(k, (total, dim), minval=-bound, maxval=bound) for k in keys[2:]]
        labels = jnp.full(total, -1) if train.targets is None else train.targets
        labels = jnp.argmax(labels, -1) if labels.ndim == 2 else labels
        return tuple(maps), (tuple(banks), jnp.full((2,), jnp.nan), groups(labels))

    def apply(params, state, ctx, *, key, step):
        del step
        banks, norms, by_class = state
        index, total_count = index_of(ctx, "crd"), by_class.order.shape[0]
        own = [embed.apply(p, {}, x)[0].logits for p, x in zip(params, features(ctx), strict=True)]
        drawn = draw_others(key, by_class, index, negatives)
        alone = by_class.size[index] == total_count
        total, used = jnp.zeros(()), []
        for side, (e, bank) in enumerate(((own[0], banks[1]), (own[1], banks[0]))):
            positive = jnp.sum(e * bank[index], -1) / temperature
            negative = jnp.einsum("bd,bkd->bk", e, bank[drawn]) / temperature
            everything = jnp.concatenate([positive[:, None], negative], axis=1)
            found = jax.nn.logsumexp(everything) - jnp.log(everything.size) + jnp.log(total_count)
            norm = jax.lax.stop_gradient(jnp.where(jnp.isnan(norms[side]), found, norms[side]))
            each = losses.nce(positive - norm, negative - norm, num_examples=total_count)
            total = total + losses.mean(jnp.where(alone, jnp.nan, each), ctx.batch.weights)
            used.append(norm)
        moved = [
            bank.at[index].set(
                losses.unit(momentum * bank[index] + (1 - momentum) * jax.lax.stop_gradient(e))
            )
            for bank, e in zip(banks, own, strict=True)
        ]
        return total, (tuple(moved), jnp.stack(used), by_class), {}

    return Objective(init, apply)


class _Map(nn.Module):
    dim: int

    @nn.compact
    def __call__(self, x, *, train):
        del train
        return losses.unit(nn.Dense(self.dim)(x))


ENTRIES = (Entry("crd", beside_labels(0.8, crd), "Contrast of embeddings.", "Tian et al. 2020"),)
