"""Losses of sequences: per-token distillation, policy gradients towards a teacher, preferences.

Tokens are a batch axis like any other: logits are ``[*B, V]`` with ``*B`` such as ``[batch, length]``,
aligned so that position t predicts token t (see ``shifted``), and ``where`` marks the tokens of the response.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from jgd.losses.classification import mean
from jgd.losses.common import (
    Number,
    Positive,
    PositiveNumber,
    Share,
    bounded_exp,
    checked,
    labelled,
    per_example,
    ready,
    several,
    widened,
)
from jgd.losses.divergence import (
    Divergence,
    along_classes,
    generalized_js,
    kl,
    mixture,
    skew_kl,
)
from jgd.losses.ranking import plackett_luce_nll

__all__ = [
    "bradley_terry",
    "clipped_surrogate",
    "distillm",
    "dpo",
    "gkd",
    "importance_weight",
    "ipo",
    "pro",
    "reward_to_go",
    "rrhf",
    "sequence_kd",
    "sequence_log_prob",
    "sft",
    "shifted",
    "token_log_prob",
    "token_mean",
    "uld",
    "whiten",
]


PADDING = (-1, -100)

# Tokens


@checked
def shifted(
    logits: Float[Array, "*B L V"], tokens: Int[Array, "*B L"], where: Bool[Array, "*B L"]
) -> tuple[Float[Array, "*B M V"], Int[Array, "*B M"], Bool[Array, "*B M"]]:
    """Align logits for the losses here: the logits at one position with the token after it, ``M = L - 1``.

    Args:
      logits: Logits of a causal model, in which position t has read token t.
      tokens: Tokens of the text.
      where: Tokens to be learned (the response, not the prompt, not padding).

    Returns:
      Logits, the tokens they predict, and which of these count.
    """
    return logits[..., :-1, :], tokens[..., 1:], where[..., 1:]


@checked
def token_mean(values: Float[Array, "*B"], where: Bool[Array, "*B"] | None = None) -> Float[Array, ""]:
    """Compute the mean over the tokens that count in the whole batch: long sequences have more weight."""
    return mean(values, where)


@checked
def token_log_prob(
    logits: Float[Array, "*B V"], tokens: Int[Array, "*B"], *, where: Bool[Array, "*B"] | None = None
) -> Float[Array, "*B"]:
    """Compute ``log softmax(logits)`` at the tokens, differentiable; zero where they do not count.

    The tokens -1 and -100, the usual marks of padding, do not count; others outside the vocabulary are
    refused, or give NaN if they are traced.
    """
    several(logits, "a softmax")
    known, wrong = labelled(tokens, logits.shape[-1], where, unknown=PADDING, name="tokens")
    wide = jnp.where(known[..., None], widened(logits), 0)
    return per_example(_at(wide, tokens), known, wrong)


def _at(logits: Array, tokens: Array) -> Array:
    """Gather, because one-hot vectors have the size of a vocabulary."""
    chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1, mode="clip")[..., 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)


@checked
def sequence_log_prob(
    logits: Float[Array, "*B L V"],
    tokens: Int[Array, "*B L"],
    *,
    where: Bool[Array, "*B L"] | None = None,
    normalize: bool = False,
) -> Float[Array, "*B"]:
    """Compute the log-probability of each sequence, summed over its tokens (what ``dpo`` needs).

    Args:
      logits: Logits, aligned with ``tokens``.
      tokens: Tokens of the sequences.
      where: Mask of the tokens that count.
      normalize: Whether to divide by the number of tokens that count, as ``rrhf`` and ``pro`` need it.

    Returns:
      One value for each sequence, zero where no token counts.
    """
    total = jnp.sum(token_log_prob(widened(logits), tokens, where=where), axis=-1)
    if normalize:
        there = tokens >= 0 if where is None else where & (tokens >= 0)
        total = total / jnp.maximum(jnp.sum(there, axis=-1), 1)
    return total


@checked
def sft(
    student: Float[Array, "*B V"], tokens: Int[Array, "*B"], *, where: Bool[Array, "*B"] | None = None
) -> Float[Array, "*B"]:
    """Compute the negative log-likelihood of each token, for fine-tuning or sequence distillation.

    In sequence distillation the teacher wrote the text.

    Paper: Kim & Rush, Sequence-Level Knowledge Distillation, EMNLP 2016.

    Args:
      student: Logits of the student.
      tokens: Target tokens; -1 and -100, the usual marks of padding, cost nothing.
      where: Mask of the tokens that count.

    Returns:
      One loss for each token; reduce with ``token_mean``.
    """
    return -token_log_prob(student, tokens, where=where)


@checked
def sequence_kd(
    student: Float[Array, "*B V"],
    teacher: Float[Array, "*B V"],
    *,
    divergence: Divergence = kl,
    temperature: Positive = 1.0,
    where: Bool[Array, "*B"] | None = None,
) -> Float[Array, "*B"]:
    """Compute ``D(softmax(t/T), softmax(s/T))`` of each token, without T², over the words that both allow.

    A word at ``-inf`` on either side (a masked vocabulary) is left out on both sides, so that no divergence
    is infinite. With ``divergence=reverse_kl`` on the student's own text this is the exact single step of
    MiniLLM.

    Args:
      student: Logits of the student.
      teacher: Logits over the same vocabulary, constants.
      divergence: Function ``(log_p, log_q) -> [*B]``, such as those of ``jgd.losses.divergence``.
      temperature: Temperature T.
      where: Mask of the tokens that count.

    Returns:
      One loss for each token; reduce with ``token_mean``.
    """
    several(student, "a softmax")
    wide, still = ready(student, teacher, where)
    both = (wide > -jnp.inf) & (still > -jnp.inf)
    soft = along_classes(temperature)
    log_q, log_p = (jax.nn.log_softmax(jnp.where(both, x, -jnp.inf) / soft) for x in (wide, still))
    return per_example(divergence(log_p, log_q), where)


@checked
def gkd(
    student: Float[Array, "*B V"],
    teacher: Float[Array, "*B V"],
    *,
    beta: Share = 0.5,
    temperature: Positive = 1.0,
    where: Bool[Array, "*B"] | None = None,
) -> Float[Array, "*B"]:
    """Compute ``generalized_js`` of each token, on text of which the student wrote a share (GKD).

    Paper: Agarwal et al., On-Policy Distillation of Language Models, ICLR 2024.

    Args:
      student: Logits of the student.
      teacher: Logits on the same text, constants.
      beta: Share of the teacher in the mixture; 0 is the forward KL, 1 the reverse.
      temperature: Temperature T, without T².
      where: Mask of the tokens that count.

    Returns:
      One loss for each token.
    """
    between = partial(generalized_js, beta=beta)
    return sequence_kd(student, teacher, divergence=between, temperature=temperature, where=where)


@checked
def distillm(
    student: Float[Array, "*B V"],
    teacher: Float[Array, "*B V"],
    *,
    skew: Share = 0.1,
    divergence: Callable[..., Array] = skew_kl,
    where: Bool[Array, "*B"] | None = None,
) -> Float[Array, "*B"]:
    """Compute DistiLLM's skew divergence of each token, ``skew_kl`` or ``skew_reverse_kl``.

    Paper: Ko et al., DistiLLM: Towards Streamlined Distillation for Large Language Models, ICML 2024.

    Args:
      student: Logits of the student.
      teacher: Logits on the same text, constants.
      skew: Share of the first distribution that is mixed into the second.
      divergence: Skew divergence, a function of ``(log_p, log_q, weight)``.
      where: Mask of the tokens that count.

    Returns:
      One loss for each token.
    """
    return sequence_kd(student, teacher, divergence=partial(divergence, weight=skew), where=where)


@checked
def uld(
    student: Float[Array, "*B V"], teacher: Float[Array, "*B W"], *, where: Bool[Array, "*B"] | None = None
) -> Float[Array, "*B"]:
    """Compute the universal logit distillation loss ``Σ_i |sort(p)_i - sort(q)_i|`` across vocabularies.

    Paper: Boizard et al., Towards Cross-Tokenizer Distillation, TMLR 2025.

    Args:
      student: Logits of the student.
      teacher: Logits over another vocabulary, constants; the smaller one is filled up with zeros.
      where: Mask of the tokens that count.

    Returns:
      One loss for each token, at most 2.
    """
    size = max(student.shape[-1], teacher.shape[-1])

    def sorted_probabilities(logits: Array) -> Array:
        p = jnp.sort(jax.nn.softmax(logits), axis=-1, descending=True)
        return jnp.pad(p, [(0, 0)] * (p.ndim - 1) + [(0, size - p.shape[-1])])

    wide, still = ready(student, teacher, where)
    distance = jnp.sum(jnp.abs(sorted_probabilities(still) - sorted_probabilities(wide)), axis=-1)
    return per_example(distance, where)


# Policy gradients (MiniLLM: Gu et al., Knowledge Distillation of Large Language Models, ICLR 2024)


@checked
def importance_weight(
    log_student: Float[Array, "*B"], log_teacher: Float[Array, "*B"], *, mix: Share = 0.2
) -> Float[Array, "*B"]:
    """Compute ``q / (mix p + (1-mix) q)`` of tokens from the mixture of teacher p and student q, a constant.

    Sample from ``mixture(log_p, log_q, mix)``; MiniLLM weights every token by itself, not by its prefix.
    """
    log_student, log_teacher = (jax.lax.stop_gradient(widened(x)) for x in (log_student, log_teacher))
    return bounded_exp(log_student - mixture(log_teacher, log_student, mix))


@checked
def reward_to_go(
    rewards: Float[Array, "*B L"],
    *,
    discount: Number = 1.0,
    normalize: bool = False,
    skip: int = 0,
    where: Bool[Array, "*B L"] | None = None,
) -> Float[Array, "*B L"]:
    """Compute the return ``R_t = Σ_{t'≥t} γ^(t'-t) r_t'`` of each token, a constant.

    MiniLLM's reward is ``log p(y_t) - log q(y_t)``; the gradient of the sequence-level KL(q‖p) is
    ``-E Σ_t R_t ∇ log q(y_t)``, or with less variance ``-E Σ_t R_{t+1} ∇ log q(y_t)`` and the exact single
    step (``sequence_kd`` with ``reverse_kl``).

    Args:
      rewards: Reward of each token.
      discount: Discount γ.
      normalize: Whether to divide by the number of tokens that are left, which prevents a preference for
        short texts.
      skip: Offset of the return: ``R_{t+skip}`` at position t; 1 leaves the token itself out.
      where: Mask of the tokens that count.

    Returns:
      One return for each token.
    """
    rewards = jax.lax.stop_gradient(widened(rewards))
    counts = jnp.ones(rewards.shape, bool) if where is None else where
    rewards = jnp.where(counts, rewards, 0)
    decay = jnp.broadcast_to(jnp.asarray(discount, rewards.dtype), rewards.shape)
    axis = rewards.ndim - 1

    def join(later, earlier):
        return later[0] * earlier[0], earlier[1] + earlier[0] * later[1]

    _, returns = jax.lax.associative_scan(join, (decay, rewards), reverse=True, axis=axis)
    if normalize:
        left = jax.lax.cumsum(counts.astype(rewards.dtype), axis=axis, reverse=True)
        returns = returns / jnp.maximum(left, 1)
    length = rewards.shape[-1]
    returns = jnp.pad(returns, [(0, 0)] * axis + [(0, skip)])[..., skip : skip + length]
    return jnp.where(counts, returns, 0)


@checked
def whiten(
    values: Float[Array, "*B"], where: Bool[Array, "*B"] | None = None, *, eps: PositiveNumber = 1e-8
) -> Float[Array, "*B"]:
    """Subtract the mean of the values that count and divide by their standard deviation; zero elsewhere."""
    values = widened(values)
    counts = jnp.ones(values.shape, bool) if where is None else where
    centred = jnp.where(counts, values - mean(values, counts), 0)
    return centred * jax.lax.rsqrt(mean(centred**2, counts) + eps)


@checked
def clipped_surrogate(
    log_prob: Float[Array, "*B"],
    old_log_prob: Float[Array, "*B"],
    advantages: Float[Array, "*B"],
    *,
    weights: Float[Array, "*B"] | None = None,
    clip: Positive = 0.2,
    where: Bool[Array, "*B"] | None = None,
) -> Float[Array, "*B"]:
    """Compute PPO's loss ``max(-A r, -A clip(r, 1-ε, 1+ε))`` of each token, ``r = w exp(log π - log π_old)``.

    Ratios beyond the root of the largest number grow along their tangent, so that all gradients are finite.
    With ``old_log_prob`` equal to the detached ``log_prob`` and no weights its gradient is REINFORCE's.

    Args:
      log_prob: Log-probability of each token now; the only input with a gradient.
      old_log_prob: Log-probability of each token at the time of sampling.
      advantages: Advantage of each token: its return minus the expected one.
      weights: ``importance_weight`` of tokens from a mixture; clipped with the ratio, as MiniLLM's code does.
      clip: Clipping range ε.
      where: Mask of the tokens that count.

    Returns:
      One loss for each token.
    """
    dtype = log_prob.dtype
    log_prob, old_log_prob, advantages = (widened(x) for x in (log_prob, old_log_prob, advantages))
    gap = log_prob - jax.lax.stop_gradient(old_log_prob)
    if where is not None:
        gap, advantages = jnp.where(where, gap, 0), jnp.where(where, advantages, 0)
    ratio, advantages = bounded_exp(gap, dtype), jax.lax.stop_gradient(advantages)
    if weights is not None:
        weights = jax.lax.stop_gradient(weights)
        ratio = ratio * (weights if where is None else jnp.where(where, weights, 0))
    return jnp.maximum(-advantages * ratio, -advantages * jnp.clip(ratio, 1 - clip, 1 + clip))


# Preferences


def _margin(chosen, rejected, reference_chosen, reference_rejected) -> Array:
    chosen, rejected = widened(chosen), widened(rejected)
    reference_chosen, reference_rejected = (
        jax.lax.stop_gradient(widened(x)) for x in (reference_chosen, reference_rejected)
    )
    return (chosen - reference_chosen) - (rejected - reference_rejected)


@checked
def bradley_terry(chosen: Float[Array, "*B"], rejected: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """Compute ``-log σ(r_w - r_l)`` of each pair, the loss of a reward model."""
    return jax.nn.softplus(widened(rejected) - widened(chosen))


@checked
def dpo(
    chosen: Float[Array, "*B"],
    rejected: Float[Array, "*B"],
    reference_chosen: Float[Array, "*B"],
    reference_rejected: Float[Array, "*B"],
    *,
    beta: Positive = 0.1,
) -> Float[Array, "*B"]:
    """Compute the direct preference optimisation loss ``-log σ(β margin)`` of each pair.

    The margin is ``(log π_w - log ref_w) - (log π_l - log ref_l)``.

    Log-probabilities are summed over tokens: means would be another objective. SPIN is the same loss with the
    data as the chosen and the student's own sample as the rejected text.

    Paper: Rafailov et al., Direct Preference Optimization, NeurIPS 2023.

    Args:
      chosen: Log-probabilities of the preferred responses.
      rejected: Log-probabilities of the other responses.
      reference_chosen: Log-probabilities of the preferred responses under the reference model, constants.
      reference_rejected: Log-probabilities of the other responses under the reference model, constants.
      beta: Strength of the pull towards the reference.

    Returns:
      One loss for each pair.
    """
    margin = _margin(chosen, rejected, reference_chosen, reference_rejected)
    return jax.nn.softplus(-beta * margin)


@checked
def ipo(
    chosen: Float[Array, "*B"],
    rejected: Float[Array, "*B"],
    reference_chosen: Float[Array, "*B"],
    reference_rejected: Float[Array, "*B"],
    *,
    beta: Positive = 0.1,
) -> Float[Array, "*B"]:
    """Compute the identity preference optimisation loss ``(margin - 1/(2β))²`` of each pair.

    The margin and the arguments are those of ``dpo``. The margin should reach ``1/(2β)`` and not exceed it.

    Paper: Azar et al., A General Theoretical Paradigm to Understand Learning from Human Preferences, AISTATS
    2024.
    """
    margin = _margin(chosen, rejected, reference_chosen, reference_rejected)
    return (margin - 1 / (2 * beta)) ** 2


@checked
def rrhf(
    log_probs: Float[Array, "*B N"],
    rewards: Shaped[Array, "*B N"],
    *,
    where: Bool[Array, "*B N"] | None = None,
) -> Float[Array, "*B"]:
    """Compute ``Σ_{r_i < r_j} max(0, p_i - p_j)`` over N responses to each prompt; zero if the orders agree.

    The authors add ``sft`` of the best response.

    Paper: Yuan et al., RRHF: Rank Responses to Align Language Models with Human Feedback, NeurIPS 2023.

    Args:
      log_probs: Log-probabilities of the responses, divided by their length.
      rewards: Rewards of the responses; only their order counts.
      where: Mask of the responses that count.

    Returns:
      One loss for each prompt.
    """
    wide = widened(log_probs)
    worse = rewards[..., :, None] < rewards[..., None, :]
    if where is not None:
        wide = jnp.where(where, wide, 0)
        worse = worse & where[..., :, None] & where[..., None, :]
    gap = jax.nn.relu(wide[..., :, None] - wide[..., None, :])
    return jnp.sum(jnp.where(worse, gap, 0), axis=(-2, -1))


@checked
def pro(
    log_probs: Float[Array, "*B N"],
    rewards: Shaped[Array, "*B N"],
    *,
    where: Bool[Array, "*B N"] | None = None,
) -> Float[Array, "*B"]:
    """Compute the preference ranking optimisation loss ``-Σ_{k<N} log(exp p_k / Σ_{i≥k} exp p_i)``.

    The Plackett-Luce likelihood of the order of N responses by descending reward; with two it is
    ``bradley_terry``.

    Paper: Song et al., Preference Ranking Optimization for Human Alignment, AAAI 2024.

    Args:
      log_probs: Log-probabilities of the responses, divided by their length.
      rewards: Rewards of the responses; only their order counts, ties are broken by position.
      where: Mask of the responses that count.

    Returns:
      One loss for each prompt.
    """
    wide = widened(log_probs)
    if where is not None:
        wide = jnp.where(where, wide, -jnp.inf)
    ranking = jnp.argsort(-rewards, axis=-1, stable=True)
    return plackett_luce_nll(wide, ranking, jnp.ones_like(wide))
