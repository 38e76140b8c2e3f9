r"""Lower bounds on mutual information from a critic's scores, and contrast with noise.

A critic scores K pairs in all combinations: ``f[a, b]`` for the row variable of pair a and the column
variable of pair b. Pairs on the diagonal belong together, all others are samples of the product of marginals.
All bounds are maximised; the loss is their negative. Gradients flow to every argument: stop the gradient of
a teacher at its hidden states.

Poole et al., "On Variational Bounds of Mutual Information", ICML 2019; as a loss between hidden states: He
et al., "Distiller: A Systematic Study of Model Distillation Methods in NLP", SustaiNLP 2021. With a learned
log-baseline ``q[a]`` of the row variable::

    m[a, b] = log mean_{c≠b} exp f[a, c]
    J[a, b] = log(α exp m[a, b] + (1-α) exp q[a])
    I_α = 1 + mean_{a≠b} (f[a, a] - J[a, b]) - mean_{a≠b} exp(f[a, b] - J[a, a])

α = 1 has a low variance and cannot exceed log(K-1) (multi-sample, like InfoNCE); α = 0 is `tuba`, which is
unbiased at the best critic and has a high variance.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jgd.losses.common import PositiveNumber, Share, bounded_exp, checked, per_example, ready

__all__ = [
    "donsker_varadhan",
    "info_nce",
    "jensen_shannon",
    "leave_one_out_logmean",
    "mi_alpha_bound",
    "nce",
    "nwj",
    "tuba",
]


def _scores(f: Array, where: Array | None) -> tuple[Array, Array, Array]:
    """Return scores in float32 at least (zeros where masked), the rows that count, and their number."""
    if f.shape[0] < 2:
        raise ValueError("a bound needs at least two pairs: there are no others to compare one with")
    rows = jnp.ones(f.shape[0], bool) if where is None else where
    f = jnp.where(rows, ready(f, f, where)[0], 0)
    return f, rows, jnp.sum(rows).astype(f.dtype)


def _pairs(rows: Array) -> Array:
    """Return the combinations of two different pairs that count; all of them if there are none."""
    pairs = rows[:, None] & rows & ~jnp.eye(len(rows), dtype=bool)
    return pairs | ~jnp.any(pairs)


def _mean(x: Array, mask: Array) -> Array:
    return jnp.sum(jnp.where(mask, x, 0)) / jnp.maximum(jnp.sum(mask), 1)


def _log_mean_exp(x: Array, mask: Array) -> Array:
    return jax.nn.logsumexp(x, where=mask) - jnp.log(jnp.sum(mask).astype(x.dtype))


def _bound(value: Array, count: Array) -> Array:
    """Return a bound, or zero for fewer than two pairs, which carry no information."""
    return jnp.where(count < 2, 0, value)


@checked
def leave_one_out_logmean(
    f: Float[Array, "K K"], *, where: Bool[Array, " K"] | None = None
) -> Float[Array, "K K"]:
    """Compute each row's mean without one entry, ``m[a, b] = log mean_{c≠b} exp f[a, c]``, in log space.

    The largest entry of a row is left out by summing the others; any other one is at most half of the whole,
    which is then safe to subtract.

    Args:
      f: Scores of the critic.
      where: Mask of the pairs that count; other pairs are in no mean, and the values in their rows and
        columns have no meaning.

    Returns:
      Log-means, in float32 at least.

    Raises:
      ValueError: Fewer than two pairs.
    """
    f, rows, count = _scores(f, where)
    rows = rows | (count < 2)
    top = jnp.argmax(jnp.where(rows, f, -jnp.inf), axis=1)[:, None] == jnp.arange(len(rows))
    whole = jax.nn.logsumexp(f, axis=1, where=rows[None] & jnp.ones_like(top), keepdims=True)
    # At least one entry remains: if only one pair counts, m is undefined, but finite.
    others = rows & ~top
    others = others | ~jnp.any(others, axis=1, keepdims=True)
    rest = jax.nn.logsumexp(f, axis=1, where=others, keepdims=True)
    part = rows & ~top
    share = jnp.where(part, jnp.exp(jnp.where(part, f - whole, 0)), 0)
    return jnp.where(top, rest, whole + jnp.log1p(-share)) - jnp.log(jnp.maximum(count - 1, 1))


@checked
def mi_alpha_bound(
    f: Float[Array, "K K"],
    q: Float[Array, " K"],
    *,
    alpha: Share,
    where: Bool[Array, " K"] | None = None,
) -> Float[Array, ""]:
    """Compute the interpolated bound I_α.

    Args:
      f: Scores ``f[a, b]`` of the critic.
      q: Log-baseline of each row; it may depend on the row variable only. (A baseline of the column variable
        still gives a bound, a looser one, as in Distiller's MLP critic.)
      alpha: Interpolation weight in 0..1, ends included, a number or an array. 0.9 is a common choice.
      where: Mask of the pairs that count.

    Returns:
      A lower bound on the mutual information in nats, in the mean over batches; zero from fewer than two
      pairs. Where the term ``exp(f - J)`` exceeds e^44 (float32) it grows linearly.

    Raises:
      ValueError: Fewer than two rows.
    """
    scores, rows, count = _scores(f, where)
    q = jnp.where(rows, q.astype(scores.dtype), 0)[:, None]
    alpha = jnp.asarray(alpha, scores.dtype)

    def log(x):
        return jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1)), -jnp.inf)

    m = leave_one_out_logmean(scores, where=where)
    base = jnp.logaddexp(log(alpha) + m, log(1 - alpha) + q)
    diagonal, pairs = jnp.diagonal, _pairs(rows)
    gain = _mean(diagonal(scores)[:, None] - base, pairs)
    cost = bounded_exp(_log_mean_exp(scores - diagonal(base)[:, None], pairs), f.dtype)
    return _bound(1 + gain - cost, count)


@checked
def tuba(
    f: Float[Array, "K K"], q: Float[Array, " K"], *, where: Bool[Array, " K"] | None = None
) -> Float[Array, ""]:
    """Compute Barber and Agakov's bound without its normaliser, ``1 + E[f - q] - E'[exp(f - q)]``.

    E is a mean over pairs, E' over combinations of different ones. It is I_α at α = 0.

    Args:
      f: Scores of the critic.
      q: Log-baseline of each row.
      where: Mask of the pairs that count.

    Returns:
      A lower bound on the mutual information.
    """
    scores, rows, count = _scores(f, where)
    gap = scores - jnp.where(rows, q.astype(scores.dtype), 0)[:, None]
    return _bound(
        1 + _mean(jnp.diagonal(gap), rows) - bounded_exp(_log_mean_exp(gap, _pairs(rows)), f.dtype), count
    )


@checked
def nwj(f: Float[Array, "K K"], *, where: Bool[Array, " K"] | None = None) -> Float[Array, ""]:
    """Compute Nguyen, Wainwright and Jordan's bound ``E[f] - E'[exp f] / e``, `tuba` with a baseline of 1."""
    return tuba(f, jnp.ones(f.shape[0]), where=where)


@checked
def donsker_varadhan(f: Float[Array, "K K"], *, where: Bool[Array, " K"] | None = None) -> Float[Array, ""]:
    """Compute ``E[f] - log E'[exp f]``, as in MINE: a bound in the limit, biased upwards in a batch."""
    scores, rows, count = _scores(f, where)
    return _bound(_mean(jnp.diagonal(scores), rows) - _log_mean_exp(scores, _pairs(rows)), count)


@checked
def info_nce(f: Float[Array, "K K"], *, where: Bool[Array, " K"] | None = None) -> Float[Array, ""]:
    """Compute ``E[f_aa - log mean_b exp f_ab]``, the own pair included in the mean: at most log K."""
    scores, rows, count = _scores(f, where)
    columns = rows[None] & jnp.ones_like(scores, bool) | ~jnp.any(rows)
    log_mean = jax.nn.logsumexp(scores, axis=1, where=columns) - jnp.log(jnp.maximum(count, 1))
    return _bound(_mean(jnp.diagonal(scores) - log_mean, rows), count)


@checked
def jensen_shannon(f: Float[Array, "K K"], *, where: Bool[Array, " K"] | None = None) -> Float[Array, ""]:
    """Compute ``log 2 - (E[softplus(-f)] + E'[softplus(f)]) / 2``, at most log 2.

    This bounds the Jensen-Shannon divergence of joint and product, not the mutual information, but the best
    critic is the same log-ratio, and it is stable where the other bounds are not (f-GAN, Deep InfoMax).
    """
    scores, rows, count = _scores(f, where)
    own = _mean(jax.nn.softplus(-jnp.diagonal(scores)), rows)
    return _bound(math.log(2) - (own + _mean(jax.nn.softplus(scores), _pairs(rows))) / 2, count)


@checked
def nce(
    positive: Float[Array, "*B"],
    negatives: Float[Array, "*B K"],
    *,
    num_examples: PositiveNumber,
    eps: PositiveNumber = 1e-7,
    where: Bool[Array, "*B"] | None = None,
) -> Float[Array, "*B"]:
    """Compute CRD's contrastive value of the positive against K draws of noise, uniform over N examples.

    With ``P = exp(score)`` and ``c = K / N``::

        -log P+ / (P+ + c + eps) - Σ_negatives log c / (P- + c + eps)

    CRD's log-score is ``<e, memory> / 0.07 - log Z``, with Z = N times the mean of the first batch, frozen.
    Its loss adds the values of student anchors against the teacher's memory and the reverse, each a mean over
    examples.

    Args:
      positive: Log-score of the example's own memory.
      negatives: Log-scores of memories of other classes.
      num_examples: Size N of the memory.
      eps: Small number that keeps the fraction below one.
      where: Mask of the examples that count.

    Returns:
      One loss for each example; gradients flow to all scores.

    References:
      Tian et al., "Contrastive Representation Distillation", ICLR 2020.
    """
    scores = jnp.concatenate([positive[..., None], negatives], axis=-1)
    x, _ = ready(scores, scores, where)
    c = jnp.asarray(negatives.shape[-1] / num_examples, x.dtype)
    total = jnp.logaddexp(x, jnp.log(c + eps))
    values = (total - x)[..., 0] + jnp.sum(total[..., 1:] - jnp.log(c), axis=-1)
    return per_example(values, where)
