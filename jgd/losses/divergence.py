"""Divergences of distributions, transforms of logits, and the distillation losses made of them.

A divergence is a function ``(log_p, log_q) -> [*B]`` of log-probabilities: ``p`` is the target (the teacher),
``q`` its approximation (the student), and "forward" always means KL(p‖q). Divergences differentiate
through both arguments; a class of probability zero contributes nothing, neither to the value nor to the
gradient. A loss such as ``kd`` softens both sides by one temperature, stops the teacher's gradient and masks.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from jgd.losses.classification import cross_entropy, mean
from jgd.losses.common import (
    Number,
    Positive,
    PositiveNumber,
    Setting,
    Share,
    checked,
    labelled,
    over_labels,
    per_example,
    ready,
    several,
    widened,
)

__all__ = [
    "alpha_divergence",
    "bd_kd_loss",
    "ctkd_scale",
    "ctkd_temperature",
    "dist_loss",
    "dkd_loss",
    "entropy",
    "entropy_gate",
    "generalized_js",
    "hinton_loss",
    "jeffreys",
    "js",
    "kd",
    "kl",
    "logit_cosine",
    "logit_mse",
    "mix_kd_loss",
    "mixture",
    "mutual_loss",
    "nkd_loss",
    "peer",
    "reverse_gradient",
    "reverse_kl",
    "skew_kl",
    "skew_reverse_kl",
    "standardize",
    "total_variation",
    "weighted_kl",
]

Divergence = Callable[[Array, Array], Array]
Transform = Callable[[Array], Array]


def along_classes(x: Setting) -> Setting:
    """Return a setting for each example ``[*B]`` (or for all) so that it multiplies ``[*B, C]``."""
    return x[..., None] if isinstance(x, jax.Array) and x.ndim else x


def _expectation(log_p: Float[Array, "*B C"], values: Float[Array, "*B C"]) -> Float[Array, "*B"]:
    """Compute the mean of values under p; where p is zero they may be infinite or NaN."""
    p = jnp.exp(log_p)
    return jnp.sum(p * jnp.where(p > 0, values, 0), axis=-1)


# Divergences


@checked
def entropy(log_p: Float[Array, "*B C"]) -> Float[Array, "*B"]:
    """Compute the Shannon entropy ``-Σ p log p`` of each row, in nats."""
    return -_expectation(log_p, log_p)


@checked
def kl(log_p: Float[Array, "*B C"], log_q: Float[Array, "*B C"]) -> Float[Array, "*B"]:
    """Compute the forward divergence ``KL(p‖q) = Σ p (log p - log q)``: q covers all modes of p.

    Infinite where q lacks a class that p has.
    """
    return _expectation(log_p, log_p - log_q)


@checked
def reverse_kl(log_p: Float[Array, "*B C"], log_q: Float[Array, "*B C"]) -> Float[Array, "*B"]:
    """Compute the reverse divergence ``KL(q‖p)``: q seeks a mode of p."""
    return kl(log_q, log_p)


@checked
def jeffreys(log_p: Float[Array, "*B C"], log_q: Float[Array, "*B C"]) -> Float[Array, "*B"]:
    """Compute the Jeffreys divergence ``KL(p‖q) + KL(q‖p)``."""
    return kl(log_p, log_q) + kl(log_q, log_p)


@checked
def weighted_kl(
    log_p: Float[Array, "*B C"], log_q: Float[Array, "*B C"], weight: Setting = 0.9
) -> Float[Array, "*B"]:
    """Compute the weighted sum ``(1 - weight) KL(p‖q) + weight KL(q‖p)``."""
    return (1 - weight) * kl(log_p, log_q) + weight * kl(log_q, log_p)


@checked
def total_variation(log_p: Float[Array, "*B C"], log_q: Float[Array, "*B C"]) -> Float[Array, "*B"]:
    """Compute the total variation ``½ Σ |p - q|``, between 0 and 1."""
    return 0.5 * jnp.sum(jnp.abs(jnp.exp(log_p) - jnp.exp(log_q)), axis=-1)


@checked
def mixture(log_p: Float[Array, "*B C"], log_q: Float[Array, "*B C"], weight: Share) -> Float[Array, "*B C"]:
    """Compute ``log(weight p + (1 - weight) q)``, exactly ``log_q`` at weight 0 and ``log_p`` at weight 1.

    Interpolating the logarithms instead would give another divergence, a mixture of the two KLs.
    """
    weight = along_classes(weight)
    p, q = log_p + jnp.log(weight), log_q + jnp.log1p(-jnp.asarray(weight, log_q.dtype))
    absent = (p == -jnp.inf) & (q == -jnp.inf)  # where the derivative of logaddexp is NaN
    mixed = jnp.logaddexp(jnp.where(absent, 0, p), jnp.where(absent, 0, q))
    return jnp.where(absent, -jnp.inf, mixed)


@checked
def generalized_js(
    log_p: Float[Array, "*B C"], log_q: Float[Array, "*B C"], beta: Share = 0.5
) -> Float[Array, "*B"]:
    """Compute GKD's Jensen-Shannon divergence ``β KL(p‖m) + (1-β) KL(q‖m)``, ``m = β p + (1-β) q``.

    Both ends are special, as the method defines them: ``β = 0`` is KL(p‖q) and ``β = 1`` is KL(q‖p), the
    limits of the divergence over β and over 1-β. In between it is bounded and finite for any supports.

    Paper: Agarwal et al., On-Policy Distillation of Language Models, ICLR 2024.

    Args:
      log_p: Log-probabilities of the teacher.
      log_q: Log-probabilities of the student.
      beta: Share of the teacher in the mixture, between 0 and 1; one for all rows or one for each.

    Returns:
      One value for each row.
    """
    middle = mixture(log_p, log_q, beta)
    beta = jnp.asarray(beta, log_p.dtype)
    # At an end the mixture is one of the two: its own term vanishes, and the other gets the weight 1.
    forward, backward = jnp.where(beta == 0, 1, beta), jnp.where(beta == 1, 1, 1 - beta)
    return forward * kl(log_p, middle) + backward * kl(log_q, middle)


@checked
def js(log_p: Float[Array, "*B C"], log_q: Float[Array, "*B C"]) -> Float[Array, "*B"]:
    """Compute the Jensen-Shannon divergence, ``generalized_js`` at β = ½; symmetric, at most log 2."""
    return generalized_js(log_p, log_q, 0.5)


@checked
def skew_kl(
    log_p: Float[Array, "*B C"], log_q: Float[Array, "*B C"], weight: Share = 0.1
) -> Float[Array, "*B"]:
    """Compute the skew divergence ``KL(p ‖ weight p + (1 - weight) q)``, at most ``-log weight``.

    Paper: Ko et al., DistiLLM, ICML 2024. The authors' code leaves out the teacher's entropy, a constant.
    """
    return kl(log_p, mixture(log_p, log_q, weight))


@checked
def skew_reverse_kl(
    log_p: Float[Array, "*B C"], log_q: Float[Array, "*B C"], weight: Share = 0.1
) -> Float[Array, "*B"]:
    """Compute the skew reverse divergence ``KL(q ‖ weight q + (1 - weight) p)``, at most ``-log weight``."""
    return skew_kl(log_q, log_p, weight)


@checked
def alpha_divergence(
    log_p: Float[Array, "*B C"], log_q: Float[Array, "*B C"], alpha: Setting = 0.5
) -> Float[Array, "*B"]:
    """Compute Amari's α-divergence ``(1 - Σ p^α q^(1-α)) / (α (1-α))``.

    In this parametrisation α = 1 is KL(p‖q) and α = 0 is KL(q‖p) (limits, taken exactly), α = ½ is four times
    the squared Hellinger distance ``1 - Σ √(pq)``, α = 2 half of Pearson's χ². Exchanging p and q is α → 1-α.
    It is computed from ``expm1``, which keeps precision near the limits.

    Args:
      log_p: Log-probabilities of the teacher.
      log_q: Log-probabilities of the student.
      alpha: Any real number; one for all rows or one for each.

    Returns:
      One value for each row.
    """
    alpha = jnp.asarray(along_classes(alpha), log_p.dtype)
    # Σ near (1 - (far/near)^small) / (small (1-small)), with the smaller of the two exponents.
    swap = alpha < 0.5
    near, far = jnp.where(swap, log_q, log_p), jnp.where(swap, log_p, log_q)
    small = jnp.where(swap, alpha, 1 - alpha)
    end = small == 0
    step = jnp.where(end, 1, small)
    mass = jnp.exp(near)
    gap = jnp.where(mass > 0, far - near, 0)
    reach = step * gap
    close = reach < 1
    power = jnp.where(
        close,
        mass * jnp.expm1(jnp.where(close, reach, 0)),
        jnp.exp(near + jnp.where(close, 0, reach)) - mass,
    )
    change = jnp.where(end, mass * jnp.where(end, gap, 0), jnp.where(mass > 0, power, 0) / step)
    return -jnp.sum(change / (1 - small), axis=-1)


# Transforms of logits


@checked
def standardize(logits: Float[Array, "*B C"], eps: PositiveNumber = 1e-7) -> Float[Array, "*B C"]:
    """Subtract from each row its mean, and divide by ``eps`` + its standard deviation (ddof 1).

    The student need not match the teacher's scale. This is a ``transform`` of ``kd`` and related losses; the
    gradient passes through both moments. Logits are finite. Rows whose logits are equal up to rounding have
    no deviation to divide by: they are only centred, so that their gradient stays bounded.

    Paper: Sun et al., Logit Standardization in Knowledge Distillation, CVPR 2024.

    Raises:
      ValueError: Fewer than three classes, whose standardised logits are the same for every input.
    """
    num_classes = logits.shape[-1]
    if num_classes < 3:
        raise ValueError(
            f"dividing {num_classes} logits by their deviation keeps only their order: with fewer than three "
            "classes use a temperature"
        )
    logits = widened(logits)
    rounding = 4 * jnp.finfo(logits.dtype).eps * jnp.max(jnp.abs(logits), axis=-1, keepdims=True)
    # Exact for equal logits; what a rounded mean leaves would be huge over eps.
    logits = logits - jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    centred = logits - jnp.mean(logits, axis=-1, keepdims=True)
    variance = jnp.sum(centred**2, axis=-1, keepdims=True) / (num_classes - 1)
    flat = variance <= jnp.maximum(eps, rounding) ** 2
    return centred / (eps + jnp.where(flat, 1, jnp.sqrt(jnp.where(flat, 1, variance))))


@checked
def reverse_gradient(x: Float[Array, "..."], scale: Setting = -1.0) -> Float[Array, "..."]:
    """Return ``x`` with its gradient multiplied by ``scale``; -1 turns a minimiser into a maximiser."""
    still = jax.lax.stop_gradient(x)
    return still + jax.lax.stop_gradient(scale) * (x - still)


@checked
def ctkd_temperature(
    theta: Float[Array, "..."],
    scale: Setting = -1.0,
    *,
    low: PositiveNumber = 1.0,
    span: PositiveNumber = 20.0,
) -> Float[Array, "..."]:
    """Compute CTKD's learned temperature ``low + span sigmoid(θ)``, which is trained against the student.

    θ starts at 1 and is trained together with the student on
    ``kd(..., temperature=ctkd_temperature(θ, scale))``; its gradient is multiplied by ``scale`` (see
    ``ctkd_scale``), also that of the factor T².

    Paper: Li et al., Curriculum Temperature for Knowledge Distillation, AAAI 2023.

    Args:
      theta: Parameter; one for all examples or one for each.
      scale: Factor of the gradient; a negative one raises the loss.
      low: Least temperature.
      span: Width of the range of temperatures.

    Returns:
      Temperatures in the shape of ``theta``.
    """
    return low + span * jax.nn.sigmoid(reverse_gradient(theta, scale))


@checked
def ctkd_scale(epoch: Setting, ramp: PositiveNumber = 10.0) -> Float[Array, "..."]:
    """Compute CTKD's factor of the gradient: half a cosine from 0 to -1 over ``ramp`` epochs, then -1."""
    return 0.5 * (jnp.cos(jnp.pi * jnp.clip(jnp.asarray(epoch, float) / ramp, 0, 1)) - 1)


# Losses


def _softened(student, teacher, temperature, transform, where) -> tuple[Array, Array]:
    """Compute log-probabilities ``log_p`` of the teacher and ``log_q`` of the student at the temperature."""
    several(student, "a softmax")
    student, teacher = ready(student, teacher, where)
    if transform is not None:
        student, teacher = transform(student), transform(teacher)
    soft = along_classes(temperature)
    return jax.nn.log_softmax(teacher / soft), jax.nn.log_softmax(student / soft)


def _counting(labels: Array, logits: Array, where: Array | None) -> Array:
    """Return labels that are unknown where examples do not count."""
    return labels if where is None or labels.ndim == logits.ndim else jnp.where(where, labels, -1)


@checked
def kd(
    student: Float[Array, "*B C"],
    teacher: Float[Array, "*B C"],
    *,
    temperature: Positive = 4.0,
    divergence: Divergence = kl,
    transform: Transform | None = None,
    where: Bool[Array, "*B"] | None = None,
) -> Float[Array, "*B"]:
    """Compute the distillation loss ``T² D(softmax(t/T), softmax(s/T))`` of each example.

    T² keeps the gradients of KLs in scale: for KL(p‖q) the gradient is ``T (q - p)``, and for T → ∞ the loss
    tends to ``‖(t - mean t) - (s - mean s)‖² / 2C``. Divide it out for a divergence without it (total
    variation, GKD).

    Paper: Hinton et al., Distilling the Knowledge in a Neural Network, 2015.

    Args:
      student: Logits of the student.
      teacher: Logits of the teacher, constants.
      temperature: Temperature T, one for all or one for each example; it may be learned.
      divergence: Function ``(log_p, log_q) -> [*B]``, such as those of this module.
      transform: Transform applied to the logits of both first, such as ``standardize``.
      where: Mask of the examples that count.

    Returns:
      One loss for each example; average them with ``jgd.losses.mean``.
    """
    log_p, log_q = _softened(student, teacher, temperature, transform, where)
    return per_example(temperature**2 * divergence(log_p, log_q), where)


@checked
def hinton_loss(
    student: Float[Array, "*B C"],
    teacher: Float[Array, "*B C"],
    labels: Shaped[Array, "*B"] | Float[Array, "*B C"],
    *,
    alpha: Setting = 0.9,
    temperature: Positive = 4.0,
    where: Bool[Array, "*B"] | None = None,
) -> Float[Array, "*B"]:
    """Compute ``(1-α) CE(s, y) + α T² KL(softmax(t/T) ‖ softmax(s/T))``, a mixture of labels and teacher.

    The smaller the share of the data that is kept, the larger the best α (Ben-Baruch et al., Distilling the
    Knowledge in Data Pruning, ICML 2025); α = 1 needs no labels.

    Args:
      student: Logits of the student.
      teacher: Logits of the teacher, constants.
      labels: Classes ``[*B]`` (unknown ones cost nothing) or probabilities ``[*B, C]``.
      alpha: Weight of the teacher.
      temperature: Temperature T of the teacher's term; labels are learned at 1.
      where: Mask of the examples that count.

    Returns:
      One loss for each example.
    """
    wide, _ = ready(student, teacher, where)
    hard = cross_entropy(wide, _counting(labels, wide, where))
    soft = kd(wide, teacher, temperature=temperature, where=where)
    return per_example((1 - alpha) * hard + alpha * soft, where)


def _target_and_rest(logits: Array, label: Array) -> tuple[Array, Array]:
    """Return ``log (p_y, 1-p_y)`` and the log-probabilities of the other classes among themselves."""
    rest = jnp.where(label, -jnp.inf, logits)
    total, others = (jax.nn.logsumexp(x, axis=-1) for x in (logits, rest))
    target = jnp.sum(jnp.where(label, logits, 0), axis=-1)
    return jnp.stack([target - total, others - total], axis=-1), rest - others[..., None]


@checked
@over_labels
def dkd_loss(
    student: Float[Array, "*B C"],
    teacher: Float[Array, "*B C"],
    labels: Shaped[Array, "*B"] | Float[Array, "*B C"],
    *,
    temperature: Positive = 4.0,
    alpha: Setting = 1.0,
    beta: Setting = 8.0,
    transform: Transform | None = None,
    where: Bool[Array, "*B"] | None = None,
) -> Float[Array, "*B"]:
    """Compute the decoupled distillation loss ``T² [α KL(b(p)‖b(q)) + β KL(p̂‖q̂)]`` of each example.

    ``b(p) = (p_y, 1-p_y)`` is how sure one is of the label, ``p̂`` the distribution over all other classes;
    ``kd`` is α = 1, β = 1-p_y. The label is left out of ``p̂`` exactly, where the authors' code subtracts
    1000 from its logit. The authors let the whole loss grow over the first 20 epochs.

    Paper: Zhao et al., Decoupled Knowledge Distillation, CVPR 2022.

    Args:
      student: Logits of the student.
      teacher: Logits of the teacher, constants.
      labels: Classes ``[*B]``, -1 (unknown) costs nothing; or probabilities ``[*B, C]``, which
        give the expectation over the label.
      temperature: Temperature T.
      alpha: Weight of the label's part.
      beta: Weight of the other classes (2, 6 or 8 on CIFAR-100, 0.5 with T = 1 on ImageNet).
      transform: Transform applied to the logits of both first.
      where: Mask of the examples that count.

    Returns:
      One loss for each example.
    """
    where, wrong = labelled(labels, student.shape[-1], where)
    log_p, log_q = _softened(student, teacher, temperature, transform, where)
    label = labels[..., None] == jnp.arange(student.shape[-1])
    (sure_p, rest_p), (sure_q, rest_q) = _target_and_rest(log_p, label), _target_and_rest(log_q, label)
    loss = alpha * kl(sure_p, sure_q) + beta * kl(rest_p, rest_q)
    return per_example(temperature**2 * loss, where, wrong)


@checked
@over_labels
def nkd_loss(
    student: Float[Array, "*B C"],
    teacher: Float[Array, "*B C"],
    labels: Shaped[Array, "*B"] | Float[Array, "*B C"],
    *,
    temperature: Positive = 1.0,
    gamma: Setting = 1.5,
    transform: Transform | None = None,
    where: Bool[Array, "*B"] | None = None,
) -> Float[Array, "*B"]:
    """Compute the normalised distillation loss ``-p_y log q_y - γ T² Σ_{c≠y} p̂_c log q̂_c`` of each example.

    The first term is at temperature 1, the second over the classes other than the label at temperature T, a
    cross-entropy (its minimum is not zero). It is added to the ordinary cross-entropy.

    Paper: Yang et al., From Knowledge Distillation to Self-Knowledge Distillation, ICCV 2023.

    Args:
      student: Logits of the student.
      teacher: Logits of the teacher, constants.
      labels: Classes ``[*B]``, -1 (unknown) costs nothing; or probabilities ``[*B, C]``, which
        give the expectation over the label.
      temperature: Temperature T of the second term.
      gamma: Weight of the second term (3.5 with T = 3 on CIFAR-100).
      transform: Transform applied to the logits of both first.
      where: Mask of the examples that count.

    Returns:
      One loss for each example.
    """
    where, wrong = labelled(labels, student.shape[-1], where)
    log_p, log_q = _softened(student, teacher, 1.0, transform, where)
    label = labels[..., None] == jnp.arange(student.shape[-1])
    target = -jnp.sum(jnp.where(label, jnp.exp(log_p) * log_q, 0), axis=-1)
    soft_p, soft_q = _softened(student, teacher, temperature, transform, where)
    rest = -_expectation(_target_and_rest(soft_p, label)[1], _target_and_rest(soft_q, label)[1])
    return per_example(target + gamma * temperature**2 * rest, where, wrong)


def _norm(x: Array, axis: int) -> Array:
    """Compute the Euclidean norm with a zero gradient at zero."""
    square = jnp.sum(x**2, axis=axis)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def _cosine(x: Array, y: Array, axis: int, eps: float = 1e-8) -> Array:
    return jnp.sum(x * y, axis=axis) / (_norm(x, axis) * _norm(y, axis) + eps)


@checked
def dist_loss(
    student: Float[Array, "*B C"],
    teacher: Float[Array, "*B C"],
    *,
    temperature: PositiveNumber = 1.0,
    beta: Number = 1.0,
    gamma: Number = 1.0,
    transform: Transform | None = None,
    where: Bool[Array, "*B"] | None = None,
) -> Float[Array, ""]:
    """Compute DIST, ``T² [β (1 - mean_i ρ(q_i·, p_i·)) + γ (1 - mean_c ρ(q_·c, p_·c))]``, on a batch.

    ρ is Pearson's correlation of probabilities: of each example over classes and of each class over examples,
    so the student has to match the teacher only up to shift and scale. A constant row or column has ρ = 0
    and no gradient. The authors weight the sum by 2, add the cross-entropy, and use T = 4 on CIFAR-100.

    Paper: Huang et al., Knowledge Distillation from a Stronger Teacher, NeurIPS 2022.

    Args:
      student: Logits of the student; all leading axes together are the batch.
      teacher: Logits of the teacher, constants.
      temperature: Temperature T, one for all.
      beta: Weight of relations between classes (rows).
      gamma: Weight of relations within classes (columns).
      transform: Transform applied to the logits of both first.
      where: Mask of the examples that count; the others take no part in any correlation.

    Returns:
      A scalar, zero where no example counts.
    """
    log_p, log_q = _softened(student, teacher, temperature, transform, where)
    p, q = (jnp.exp(x).reshape(-1, x.shape[-1]) for x in (log_p, log_q))
    counts = jnp.ones(len(p), bool) if where is None else where.reshape(-1)
    num = jnp.sum(counts)

    def centred(x: Array) -> Array:
        middle = jnp.sum(jnp.where(counts[:, None], x, 0), axis=0) / jnp.maximum(num, 1)
        return jnp.where(counts[:, None], x - middle, 0)

    rows = _cosine(*(x - jnp.mean(x, axis=1, keepdims=True) for x in (q, p)), axis=1)
    columns = _cosine(centred(q), centred(p), axis=0)
    between, within = mean(1 - rows, counts), jnp.where(num > 0, 1 - jnp.mean(columns), 0)
    return temperature**2 * (beta * between + gamma * within)


@checked
def mix_kd_loss(
    student: Float[Array, "*B C"],
    teacher: Float[Array, "*B C"],
    labels: Shaped[Array, "*B"] | Float[Array, "*B C"],
    *,
    gamma: Setting = 0.1,
    alpha: Setting = 0.9,
    where: Bool[Array, "*B"] | None = None,
) -> Float[Array, "*B"]:
    """Compute MIX-KD, ``γ CE(ŝ, y) + α KL(softmax(t̂) ‖ softmax(ŝ))``.

    Here ``ŝ`` and ``t̂`` are logits, each row divided by its own deviation.

    The deviation replaces a temperature. The loss is meant for mixed examples, whose labels are mixed as
    well. The authors only divide; ``ŝ = standardize(s)`` also subtracts the mean, which leaves the softmax
    unchanged and keeps numbers small. The loss does not depend on the scale of the student's logits:
    calibrate ``ŝ``, not ``s``.

    Paper: Choi et al., Understanding the Role of Mixup in Knowledge Distillation, WACV 2023.

    Args:
      student: Logits of at least three classes.
      teacher: Logits at the same (mixed) inputs, constants.
      labels: Classes ``[*B]`` or probabilities ``[*B, C]``.
      gamma: Weight of the labels.
      alpha: Weight of the teacher.
      where: Mask of the examples that count.

    Returns:
      One loss for each example.

    Raises:
      ValueError: Fewer than three classes.
    """
    wide, still = ready(student, teacher, where)
    wide, still = standardize(wide), standardize(still)
    soft = kl(jax.nn.log_softmax(still), jax.nn.log_softmax(wide))
    return per_example(gamma * cross_entropy(wide, _counting(labels, wide, where)) + alpha * soft, where)


@checked
def logit_mse(
    student: Float[Array, "*B C"], teacher: Float[Array, "*B C"], *, where: Bool[Array, "*B"] | None = None
) -> Float[Array, "*B"]:
    """Compute the mean over classes of the squared difference of logits, for each example."""
    wide, still = ready(student, teacher, where)
    return per_example(jnp.mean((wide - still) ** 2, axis=-1), where)


@checked
def logit_cosine(
    student: Float[Array, "*B C"], teacher: Float[Array, "*B C"], *, where: Bool[Array, "*B"] | None = None
) -> Float[Array, "*B"]:
    """Compute ``1 - cos(s, t)`` of the logits of each example; 1 without a gradient where either is zero."""
    wide, still = ready(student, teacher, where)
    return per_example(1 - _cosine(wide, still, axis=-1), where)


# Networks that teach each other


@checked
def entropy_gate(
    log_ps: Float[Array, "*B C"],
    log_pt: Float[Array, "*B C"],
    *,
    delta: Setting = 2.0,
    kappa: Setting | None = None,
) -> tuple[Float[Array, "*B"], Float[Array, "*B"]]:
    """Compute weights of the forward and the reverse KL from the gap ``g = H(p_t) - H(p_s)`` of entropies.

    If the student is more confident (g > 0), the forward divergence gets the weight δ, otherwise the reverse
    one does; the other one has the weight 1. With κ the choice is smooth, ``1 + (δ-1) sigmoid(±κ g)``.
    The two weights sum to 1 + δ and carry no gradient.

    Args:
      log_ps: Log-probabilities of the student.
      log_pt: Log-probabilities of the teacher.
      delta: Weight of the preferred divergence, at least 1; 1 gives the plain sum.
      kappa: Sharpness of a smooth choice; None makes a hard choice.

    Returns:
      Weights ``(nu, rho)`` of KL(p_t‖p_s) and of KL(p_s‖p_t).
    """
    gap = jax.lax.stop_gradient(entropy(log_pt) - entropy(log_ps))
    forward = (gap > 0).astype(gap.dtype) if kappa is None else jax.nn.sigmoid(kappa * gap)
    return 1 + (delta - 1) * forward, 1 + (delta - 1) * (1 - forward)


@checked
def bd_kd_loss(
    student: Float[Array, "*B C"],
    teacher: Float[Array, "*B C"],
    *,
    temperature: Positive = 3.0,
    delta: Setting = 2.0,
    kappa: Setting | None = None,
    where: Bool[Array, "*B"] | None = None,
) -> Float[Array, "*B"]:
    """Compute BD-KD's student loss ``T² [ν KL(p_t‖p_s) + ρ KL(p_s‖p_t)]``, weighted by ``entropy_gate``.

    The cross-entropy is added separately. The loss of the teacher, trained together with the student, is
    ``peer``. The paper's weights are not public, so δ is a setting.

    Paper: Amara et al., BD-KD: Balancing the Divergences for Online Knowledge Distillation, 2022.

    Args:
      student: Logits of the student.
      teacher: Logits of the same examples, constants.
      temperature: Temperature T of both divergences and of the entropies.
      delta: Weight of the preferred divergence.
      kappa: Sharpness of a smooth choice; None makes a hard choice.
      where: Mask of the examples that count.

    Returns:
      One loss for each example.
    """
    log_p, log_q = _softened(student, teacher, temperature, None, where)
    nu, rho = entropy_gate(log_q, log_p, delta=delta, kappa=kappa)
    loss = nu * kl(log_p, log_q) + rho * kl(log_q, log_p)
    return per_example(temperature**2 * loss, where)


@checked
def peer(
    own: Float[Array, "*B C"],
    other: Float[Array, "*B C"],
    *,
    temperature: Positive = 1.0,
    where: Bool[Array, "*B"] | None = None,
) -> Float[Array, "*B"]:
    """Compute the mutual learning loss of one peer, ``T² KL(p_other ‖ p_own)``, with the other as a constant.

    This is ``kd`` at the temperature of mutual learning; ``peer(teacher, student)`` is the teacher's loss in
    an online pair.

    Paper: Zhang et al., Deep Mutual Learning, CVPR 2018 (T = 1).
    """
    return kd(own, other, temperature=temperature, where=where)


@checked
def mutual_loss(
    logits: Float[Array, "K *B C"],
    *,
    temperature: Positive = 1.0,
    where: Bool[Array, "*B"] | None = None,
) -> Float[Array, "K *B"]:
    """Compute the mutual learning losses of K peers: for each, the mean of ``peer`` over the K-1 others.

    Args:
      logits: Logits of all peers, stacked.
      temperature: Temperature T.
      where: Mask of the examples that count.

    Returns:
      One loss for each peer and example.

    Raises:
      ValueError: A single network has no peers.
    """
    num = len(logits)
    if num < 2:
        raise ValueError(
            "mutual learning needs two networks at least: stack their logits along the first axis"
        )

    def learn(own: Array, other: Array) -> Array:
        return peer(own, other, temperature=temperature, where=where)

    table = jax.vmap(lambda own: jax.vmap(lambda other: learn(own, other))(logits))(logits)
    return jnp.sum(table, axis=1) / (num - 1)  # the diagonal is zero
