"""Losses of rankings: likelihoods of an order of classes under a Plackett-Luce model.

The student's logits ``s`` are strengths: the ranking ``π`` is drawn one pick after the other, each with
probability ``exp s_{π_k} / Σ_{l≥k} exp s_{π_l}`` among the remaining classes.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from jgd.losses.common import (
    Positive,
    checked,
    labelled,
    over_labels,
    per_example,
    ready,
    several,
)
from jgd.losses.divergence import along_classes

__all__ = ["listmle", "p_listmle", "plackett_luce_nll", "pld_loss", "teacher_ranking"]


@checked
def teacher_ranking(teacher: Float[Array, "*B C"], labels: Shaped[Array, "*B"]) -> Int[Array, "*B C"]:
    """Rank the classes: the label first, then the others by descending teacher logit.

    Ties are broken by the index of the class. The label -1, unknown, leaves the teacher's own order.
    """
    labelled(labels, teacher.shape[-1])
    label = labels[..., None] == jnp.arange(teacher.shape[-1])
    return _argsort(jnp.where(label, -jnp.inf, -teacher))


def _argsort(x: Float[Array, "*B C"]) -> Int[Array, "*B C"]:
    """Sort positions in ascending order, stably; on CPU twice as fast as XLA's sort of pairs."""
    if x.dtype == jnp.float64 or x.shape[-1] > 2**16:
        return jnp.argsort(x, axis=-1, stable=True)
    return jax.lax.platform_dependent(
        x, cpu=_radix_argsort, default=partial(jnp.argsort, axis=-1, stable=True)
    )


def _radix_argsort(x: Float[Array, "*B C"]) -> Int[Array, "*B C"]:
    """Sort single integers twice: by the low half of the number, then by the high half, above the place."""
    x = jnp.where(x == 0, 0, x.astype(jnp.float32))  # one zero, not two
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    bits = jnp.where(bits >> 31, ~bits, bits | jnp.uint32(2**31))  # in the order of the numbers
    place = jnp.arange(x.shape[-1], dtype=jnp.uint32)

    def order(half):
        packed = jax.lax.sort(half << 16 | place, dimension=x.ndim - 1, is_stable=False)
        return (packed & 0xFFFF).astype(jnp.int32)

    first = order(bits & 0xFFFF)
    return jnp.take_along_axis(first, order(jnp.take_along_axis(bits >> 16, first, -1)), -1)


def _floor(x: Array) -> Array:
    """Return a stand-in for log 0 whose sums and differences are finite, where infinities would make NaNs."""
    return jnp.asarray(jnp.finfo(x.dtype).min / 4, x.dtype)


def _passes(size: int) -> int:
    return max(size - 1, 0).bit_length()


@jax.jit
def _logsumexp_of_rest(x: Float[Array, "*B C"]) -> Float[Array, "*B C"]:
    """Compute the log-sum-exp of each position and all after it, by doubling.

    ``jax.lax.cumlogsumexp`` gives the same values; log C passes over the row in a loop need linear memory,
    are faster on a CPU than its window, and compile to a program whose size does not grow with C, unlike an
    associative scan.
    """
    size, axis = x.shape[-1], x.ndim - 1
    nothing = jnp.full_like(x, _floor(x))

    def double(i: Array, x: Array) -> Array:
        after = jax.lax.dynamic_slice_in_dim(jnp.concatenate([x, nothing], -1), 2**i, size, axis)
        return jnp.maximum(x, after) + jnp.log1p(jnp.exp(-jnp.abs(x - after)))

    return jax.lax.fori_loop(0, _passes(size), double, x)


@jax.jit
def _share_of_picks(weights: Float[Array, "*B C"], left: Float[Array, "*B C"]) -> Float[Array, "*B C"]:
    """Compute ``Σ_{k≤j} w_k exp(left_j - left_k)`` by doubling; ``left`` falls: no exponent is positive."""
    size, axis = left.shape[-1], left.ndim - 1
    none, endless = jnp.zeros_like(weights), jnp.full_like(left, -_floor(left))

    def double(i: Array, total: Array) -> Array:
        before, left_before = (
            jax.lax.dynamic_slice_in_dim(jnp.concatenate(x, -1), size - 2**i, size, axis)
            for x in ([none, total], [endless, left])
        )
        return total + jnp.exp(left - left_before) * before

    return jax.lax.fori_loop(0, _passes(size), double, weights)


@jax.custom_jvp
def _weighted_nll(strengths: Float[Array, "*B C"], weights: Float[Array, "*B C"]) -> Float[Array, "*B"]:
    left = _logsumexp_of_rest(strengths)
    return jnp.sum(weights * (left - strengths), axis=-1)


@_weighted_nll.defjvp
def _weighted_nll_jvp(primals, tangents):
    """Use the closed form ``∂L/∂s_j = Σ_{k≤j} w_k exp(s_j - lse_k) - w_j``, itself differentiable.

    It is linear in memory, whereas the derivative of a scan keeps all its levels.
    """
    (strengths, weights), (d_strengths, d_weights) = primals, tangents
    left = _logsumexp_of_rest(strengths)
    costs = left - strengths
    gradient = jnp.exp(-costs) * _share_of_picks(weights, left) - weights
    return jnp.sum(weights * costs, axis=-1), jnp.sum(gradient * d_strengths + costs * d_weights, axis=-1)


@checked
def plackett_luce_nll(
    student: Float[Array, "*B C"], ranking: Int[Array, "*B C"], weights: Float[Array, "*B C"]
) -> Float[Array, "*B"]:
    """Compute ``Σ_k w_k [logsumexp_{l≥k} s_{π_l} - s_{π_k}]``, the weighted cost of a ranking.

    Time C log C, memory C, stable for any logits; forward and reverse mode of any order. A class at ``-inf``
    takes no part: it is never picked, never among the remaining classes, and its weight does not count.

    Args:
      student: Strengths of the classes.
      ranking: Classes, best first.
      weights: Weights of the picks in the order of the ranking; differentiable.

    Returns:
      One loss for each row.
    """
    strengths = jnp.take_along_axis(student, ranking, axis=-1)
    present = strengths > -jnp.inf
    top = jax.lax.stop_gradient(jnp.max(strengths, axis=-1, keepdims=True))
    strengths = jnp.where(present, strengths - jnp.where(top > -jnp.inf, top, 0), _floor(strengths))
    return _weighted_nll(strengths, jnp.where(present, weights, 0))


def _ranked(student, teacher, labels, where) -> tuple[Array, Array, Array, Array, Array]:
    several(student, "a ranking")
    where, wrong = labelled(labels, student.shape[-1], where)
    student, teacher = ready(student, teacher, where)
    labels = jnp.where(where, labels, -1)
    return student, teacher, teacher_ranking(teacher, labels), where, wrong


@checked
@over_labels
def pld_loss(
    student: Float[Array, "*B C"],
    teacher: Float[Array, "*B C"],
    labels: Shaped[Array, "*B"] | Float[Array, "*B C"],
    *,
    temperature: Positive = 1.0,
    where: Bool[Array, "*B"] | None = None,
) -> Float[Array, "*B"]:
    """Compute the likelihood of the teacher's ranking with picks weighted by its probabilities (PLD).

    ``Σ_k softmax(t/τ)_{π_k} [logsumexp_{l≥k} s_{π_l} - s_{π_k}]`` with ``π = teacher_ranking(t, y)``. It is
    the whole objective, without an additional cross-entropy (the first pick is the label). The temperature
    softens the weights only: the student's logits are never divided, and there is no T². If a teacher has
    memorised its examples, the weights at τ = 1 are those of cross-entropy and have to be softened.

    Paper: Bassam et al., PLD: A Choice-Theoretic List-Wise Knowledge Distillation, NeurIPS 2025.

    Args:
      student: Logits of the student.
      teacher: Logits of the teacher, constants; ``-inf`` rules a class out.
      labels: Classes ``[*B]``, -1 (unknown) costs nothing; or probabilities ``[*B, C]``, which
        give the expectation over the label.
      temperature: Temperature τ of the weights (1 on ImageNet, 4 on CIFAR-100), one for all or one for each
        example.
      where: Mask of the examples that count.

    Returns:
      One loss for each example.
    """
    wide, still, ranking, where, wrong = _ranked(student, teacher, labels, where)
    weights = jnp.take_along_axis(jax.nn.softmax(still / along_classes(temperature)), ranking, axis=-1)
    return per_example(plackett_luce_nll(wide, ranking, jax.lax.stop_gradient(weights)), where, wrong)


@checked
@over_labels
def listmle(
    student: Float[Array, "*B C"],
    teacher: Float[Array, "*B C"],
    labels: Shaped[Array, "*B"] | Float[Array, "*B C"],
    *,
    where: Bool[Array, "*B"] | None = None,
) -> Float[Array, "*B"]:
    """Compute ListMLE, the likelihood of the teacher's ranking with equal picks: C × ``pld_loss`` at τ → ∞.

    Paper: Xia et al., Listwise Approach to Learning to Rank, ICML 2008.

    Args:
      student: Logits of the student.
      teacher: Logits of the teacher, constants; only their order counts.
      labels: Classes, ranked first (-1 is unknown), or probabilities, which give the expectation over labels.
      where: Mask of the examples that count.

    Returns:
      One loss for each example.
    """
    wide, _, ranking, where, wrong = _ranked(student, teacher, labels, where)
    return per_example(plackett_luce_nll(wide, ranking, jnp.ones_like(wide)), where, wrong)


@checked
@over_labels
def p_listmle(
    student: Float[Array, "*B C"],
    teacher: Float[Array, "*B C"],
    labels: Shaped[Array, "*B"] | Float[Array, "*B C"],
    *,
    where: Bool[Array, "*B"] | None = None,
) -> Float[Array, "*B"]:
    """Compute position-aware ListMLE: the k-th pick has a weight in proportion to ``2^(C-k) - 1``, 1 in all.

    Paper: Lan et al., Position-Aware ListMLE, UAI 2014 (there the weights are not normalised).

    Args:
      student: Logits of the student.
      teacher: Logits of the teacher, constants; only their order counts.
      labels: Classes, ranked first (-1 is unknown), or probabilities, which give the expectation over labels.
      where: Mask of the examples that count.

    Returns:
      One loss for each example.
    """
    wide, _, ranking, where, wrong = _ranked(student, teacher, labels, where)
    num_classes = student.shape[-1]
    gains = np.exp2(-np.arange(1.0, num_classes + 1)) - np.exp2(-float(num_classes))
    gains = jnp.asarray(gains / max(gains.sum(), np.finfo(float).tiny), wide.dtype)
    return per_example(plackett_luce_nll(wide, ranking, jnp.broadcast_to(gains, wide.shape)), where, wrong)
