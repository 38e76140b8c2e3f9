r"""CRD: the student's embedding of an example must agree with the teacher's, and not with those of others.

Tian, Krishnan and Isola, "Contrastive Representation Distillation", ICLR 2020.

The one idea: contrast needs many negatives, more than a batch has. Both networks are mapped to unit vectors
of 128 numbers and a bank remembers the last such vector of every training example; an example is told from
K draws of the other network's bank::

    e_s = unit(W_s v_s),  e_t = unit(W_t v_t)
    L = nce(<e_s, M_t> / 0.07) + nce(<e_t, M_s> / 0.07)
    M_i <- unit(0.5 M_i + 0.5 e_i)

Departure: K = 1024 negatives are drawn by default in place of 16384 (which a data set must have); examples of
the own class are drawn again until another class comes up, by rejection over a second draw.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from jgd import losses
from jgd.core import Objective, from_linen
from jgd.distill.data import source_of
from jgd.distill.terms import Place, sides

__all__ = ["crd"]


def crd(
    *,
    at: Place = "embedding",
    dim: int = 128,
    negatives: int = 1024,
    temperature: float = 0.07,
    momentum: float = 0.5,
    student: str = "student",
    teacher: str = "teacher",
) -> Objective:
    """Contrast with banks of all examples; 0.8 is its usual weight beside cross-entropy.

    Its parameters are two linear maps, trained with the student; its state are the two banks ``[N, dim]`` and
    the two constants that normalise the scores. Batches must know which examples they hold (``batch.index``),
    as those of `jgd.distill.offline` do.

    Args:
      at: what is embedded.
      dim: of the embedding.
      negatives: draws for each example.
      temperature: of the scores.
      momentum: weight of the past in the banks.
      student: who learns.
      teacher: from whom.
    """
    embed = from_linen(_Map(dim))

    def features(ctx):
        return [x.reshape(x.shape[0], -1) for x in sides(ctx, at, student, teacher)]

    def init(key, ctx):
        keys = jax.random.split(key, 4)
        maps = [embed.init(k, x)[0] for k, x in zip(keys[:2], features(ctx), strict=True)]
        count, bound = source_of(ctx.data).train.targets.shape[0], 1 / (dim / 3) ** 0.5
        banks = [jax.random.uniform(k, (count, dim), minval=-bound, maxval=bound) for k in keys[2:]]
        return tuple(maps), (tuple(banks), jnp.full((2,), jnp.nan))

    def apply(params, state, ctx, *, key, step):
        del step
        if ctx.batch.index is None:
            raise ValueError("crd needs to know which examples a batch holds: give Examples an index")
        banks, norms = state
        labels, index = source_of(ctx.data).train.targets, ctx.batch.index
        own = [embed.apply(p, {}, x)[0].logits for p, x in zip(params, features(ctx), strict=True)]
        first, second = (
            jax.random.randint(k, (index.shape[0], negatives), 0, labels.shape[0])
            for k in jax.random.split(key)
        )
        drawn = jnp.where(labels[first] == labels[index][:, None], second, first)
        total, used = jnp.zeros(()), []
        for side, (e, bank) in enumerate(((own[0], banks[1]), (own[1], banks[0]))):
            positive = jnp.sum(e * bank[index], -1) / temperature
            negative = jnp.einsum("bd,bkd->bk", e, bank[drawn]) / temperature
            everything = jnp.concatenate([positive[:, None], negative], axis=1)
            found = jax.nn.logsumexp(everything) - jnp.log(everything.size) + jnp.log(labels.shape[0])
            norm = jax.lax.stop_gradient(jnp.where(jnp.isnan(norms[side]), found, norms[side]))
            each = losses.nce(positive - norm, negative - norm, num_examples=labels.shape[0])
            total = total + losses.mean(each, ctx.batch.weights)
            used.append(norm)
        moved = [
            bank.at[index].set(
                losses.unit(momentum * bank[index] + (1 - momentum) * jax.lax.stop_gradient(e))
            )
            for bank, e in zip(banks, own, strict=True)
        ]
        return total, (tuple(moved), jnp.stack(used)), {}

    return Objective(init, apply)


class _Map(nn.Module):
    dim: int

    @nn.compact
    def __call__(self, x, *, train):
        del train
        return losses.unit(nn.Dense(self.dim)(x))
