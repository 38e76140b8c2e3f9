r"""LELP: invent subclasses from linear projections of a teacher's embeddings.

Loo, Iliopoulos, Hu and Vee, "Linear Projections of Teacher Embeddings for Few-Class Distillation", 2024
(arXiv 2409.20449). The logits of a teacher of few classes hold little more than a label. Differences within a
class lie in its embeddings h, in directions that its head W ignores. So, once::

    h~ = h - U U^T h                       U spans the columns of the centred head
    V_c = top S principal directions of h~ within class c, times a random rotation

and each example gets soft targets over C x S subclasses, split from its class probabilities::

    g_cs = v_cs^T (h~ - μ_c) / scale_c
    q_cs = softmax(z / τ)_c  softmax_s(g_c / β)_s

The student has C S outputs; its probability of a class is the sum over that class's subclasses. The paper
gives no code; here a class's scale is the mean deviation of its projections (so β is free of units), each
class has its own rotation, and signs are fixed by the skewness of the projections, which no change of basis
alters.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jgd.losses.common import Count, PositiveNumber, checked, labelled, per_example, ready

__all__ = ["Lelp", "lelp_fit", "lelp_targets", "marginal_logits", "subclass_kd"]


class Lelp(NamedTuple):
    """Result of `lelp_fit`.

    Attributes:
      mu: ``[C, D]`` mean embedding of each class, without the part that the head reads.
      V: ``[C, D, S]`` orthonormal directions of each class; those for which a class has too few examples are
        zero, and the split over them is even.
      scale: ``[C]`` mean deviation of a class's projections, 0 where it has no direction.
    """

    mu: Float[Array, "C D"]
    V: Float[Array, "C D S"]
    scale: Float[Array, " C"]


def _dot(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")


def _rotation(key: Array, size: int, rank: Array) -> Array:
    """Draw a uniform random rotation of the first ``rank`` coordinates that leaves the others as they are."""
    inside = jnp.arange(size) < rank
    both = inside[:, None] & inside
    q, r = jnp.linalg.qr(jnp.where(both, jax.random.normal(key, (size, size)), jnp.eye(size)))
    return q * jnp.where(jnp.diagonal(r) < 0, -1, 1)


@checked
def lelp_fit(
    key: Array,
    h: Float[Array, "n D"],
    z: Float[Array, "n C"],
    W: Float[Array, "D C"],
    *,
    S: Count = 5,
    null_space: bool = True,
    rotate: bool = True,
    labels: Int[Array, " n"] | None = None,
    where: Bool[Array, " n"] | None = None,
) -> Lelp:
    """Find the directions of the subclasses, once, from the transfer set.

    Args:
      key: Random key of the rotations.
      h: Embeddings of the teacher's last layer.
      z: Logits of the teacher.
      W: Weights of its head: ``z = h W + b``.
      S: Number of subclasses of a class.
      null_space: Whether to look for directions only outside the space that the head reads.
      rotate: Whether to rotate the directions at random, so that none has all the variance.
      labels: Classes of the examples, -1 for unknown; None takes the teacher's predictions.
      where: Mask of the examples that count.

    Returns:
      Means, directions and scales; constants, without a gradient.

    Raises:
      ValueError: If the space has fewer than S directions.
    """
    (n, dim), classes = h.shape, z.shape[-1]
    room = dim - (min(classes - 1, dim) if null_space else 0)
    if not 1 <= S <= room:
        besides = " besides those of the head" if null_space else ""
        raise ValueError(f"S must be between 1 and {room}, the directions{besides}; got {S}")
    h, z = jax.lax.stop_gradient(ready(h, z, where))
    W = jax.lax.stop_gradient(W.astype(h.dtype))
    rows = jnp.ones(n, bool) if where is None else where
    labels = jnp.argmax(z, axis=-1) if labels is None else labels
    rows, wrong = labelled(labels, classes, rows)
    h = jnp.where(jnp.any(wrong), jnp.nan, h)

    basis, sizes, _ = jnp.linalg.svd(W - jnp.mean(W, axis=1, keepdims=True), full_matrices=False)
    basis = jnp.where(sizes > 1e-5 * jnp.max(sizes), basis, 0) * null_space

    def outside(x):  # rows of x without the part that the head reads
        return x - _dot(_dot(x, basis), basis.T)

    h = outside(h)

    def fit(arguments):
        key, c = arguments
        member = (rows & (labels == c)).astype(h.dtype)[:, None]
        count = jnp.maximum(jnp.sum(member), 1)
        mu = jnp.sum(member * h, axis=0) / count
        centred = member * (h - mu)
        values, vectors = jnp.linalg.eigh(_dot(centred.T, centred) / count)
        # Ascending; rounding turns a variance of zero into a small one.
        values, directions = values[::-1][:S], vectors[:, ::-1][:, :S]
        alive = values > 1e-6 * jnp.maximum(values[0], 1e-6 * jnp.mean(h**2))
        directions = jnp.where(alive, directions, 0)
        directions = outside(directions.T).T
        skew = jnp.sum(_dot(centred, directions) ** 3, axis=0)
        directions = directions * jnp.where(skew < 0, -1, 1)
        rank = jnp.sum(alive)
        if rotate:
            directions = _dot(directions, _rotation(key, S, rank).astype(h.dtype))
        deviation = jnp.sqrt(jnp.sum(_dot(centred, directions) ** 2, axis=0) / count)
        scale = jnp.sum(deviation) / jnp.maximum(rank, 1)
        return mu, directions, scale

    return Lelp(*jax.lax.map(fit, (jax.random.split(key, classes), jnp.arange(classes))))


@checked
def lelp_targets(
    state: Lelp,
    h: Float[Array, "*B D"],
    z: Float[Array, "*B C"],
    *,
    beta: PositiveNumber = 0.25,
    temperature: PositiveNumber = 4.0,
) -> Float[Array, "*B C S"]:
    """Compute soft targets over subclasses: class probabilities, split by the projections of the embedding.

    Args:
      state: Directions of the subclasses, see `lelp_fit`.
      h: Embeddings of the teacher.
      z: Logits of the teacher.
      beta: Temperature of the split: small for hard clusters, large for an even split (then the target holds
        no more than KD's).
      temperature: Temperature τ of the class probabilities, the same as in the loss.

    Returns:
      Probabilities that sum to one over ``C S``, and over S to ``softmax(z / τ)``; constants.
    """
    h, z = jax.lax.stop_gradient(ready(h, z))
    mu, directions, scale = jax.lax.stop_gradient(state)
    centred = h[..., None, :] - mu  # directions do not see the head's part of h
    g = jnp.einsum("...cd,cds->...cs", centred, directions, precision="highest")
    g = g / jnp.where(scale > 0, scale, 1)[:, None]  # 0 where there is no direction: the split is even
    return jax.nn.softmax(z / temperature)[..., None] * jax.nn.softmax(g / beta)


@checked
def subclass_kd(
    student: Float[Array, "*B CS"],
    targets: Float[Array, "*B C S"],
    *,
    temperature: PositiveNumber = 4.0,
    where: Bool[Array, "*B"] | None = None,
) -> Float[Array, "*B"]:
    """Compute the cross-entropy with soft targets over subclasses, ``-τ^2 Σ q_cs log softmax(u / τ)_cs``.

    Any partition of classes can be used: that of `lelp_targets`, clusters, or known subclasses.

    Args:
      student: Logits u, subclasses of the first class first.
      targets: Target probabilities, constant.
      temperature: Temperature τ.
      where: Mask of the examples that count.

    Returns:
      One value for each example.
    """
    u, q = ready(student, targets.reshape(*targets.shape[:-2], math.prod(targets.shape[-2:])), where)
    values = -(temperature**2) * jnp.sum(q * jax.nn.log_softmax(u / temperature), axis=-1)
    return per_example(values, where)


@checked
def marginal_logits(
    u: Float[Array, "*B CS"], C: Count, *, temperature: PositiveNumber = 1.0
) -> Float[Array, "*B C"]:
    """Compute logits of classes from those of subclasses, ``τ logsumexp_s (u_cs / τ)``.

    At the temperature their softmax is the sum of the subclasses' probabilities. At 1, the paper's choice, a
    class with one likely subclass wins against a class with several subclasses that were equally likely
    together when the student was trained at a higher temperature; so predict at the temperature of the loss.

    Args:
      u: Logits of the subclasses, those of the first class first.
      C: Number of classes.
      temperature: Temperature τ.

    Raises:
      ValueError: If the number of outputs is not a multiple of the number of classes.
    """
    if u.shape[-1] % C:
        raise ValueError(f"{u.shape[-1]} outputs cannot be {C} classes of equally many subclasses")
    grouped = u.reshape(*u.shape[:-1], C, u.shape[-1] // C)
    return temperature * jax.nn.logsumexp(grouped / temperature, axis=-1)
