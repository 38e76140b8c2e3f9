"""Losses between hidden features of a student and of a teacher: maps, vectors, and how layers are paired.

A map is ``[B, H, W, C]`` (channels last), a vector ``[*B, D]``. Modules that make the two comparable
(adaptors, connectors, fusion modules, paraphrasers) have parameters and are not part of these functions,
which take their outputs. Losses of several stages are summed over the stages.

SimKD is `hint` at the last map, with a projected student; the hidden mean squared error of a Transformer is
`hidden_mse`; a teacher's embedding regressed by a student is either.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jgd.losses.common import PositiveNumber, checked, flat_rows, per_example, ready, widened

__all__ = [
    "adaptive_average_pool",
    "attention_transfer",
    "cosine_distance",
    "factor_transfer_loss",
    "flow",
    "fsp_loss",
    "hcl",
    "hidden_cross_entropy",
    "hidden_mse",
    "hint",
    "ickd_loss",
    "layer_map",
    "length",
    "nst_loss",
    "ofd_loss",
    "ofd_margin",
    "pkd",
    "unit",
    "vid_loss",
    "vid_raw_scale",
]

# --- parts --------------------------------------------------------------------------------------


def _scaled(x: Array, axis: int | tuple[int, ...] | None) -> tuple[Array, Array, Array]:
    """Return numbers within ±1, the largest magnitude, and the sum of squares (1 where all are zero)."""
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=axis, keepdims=True, initial=0))
    x = x / jnp.where(largest > 0, largest, 1)
    return x, largest, jnp.where(largest > 0, jnp.sum(x**2, axis=axis, keepdims=True), 1)


@checked
def length(x: Float[Array, "..."], axis: int | tuple[int, ...] | None = -1) -> Float[Array, "..."]:
    """Compute the Euclidean norm along axes, without overflow; the gradient at zero is zero."""
    _, largest, square = _scaled(x, axis)
    return jnp.squeeze(largest * jnp.sqrt(square), axis)


@checked
def unit(x: Float[Array, "..."], axis: int | tuple[int, ...] | None = -1) -> Float[Array, "..."]:
    """Divide vectors along axes by their Euclidean norm; zero stays zero and has no gradient."""
    x, largest, square = _scaled(x, axis)
    return jnp.where(largest > 0, x * jax.lax.rsqrt(square), 0)


def _bins(size: int, bins: int) -> np.ndarray:
    """Return ``[bins, size]`` averages: row i covers ``floor(i size / bins) .. ceil((i+1) size / bins)``."""
    i, position = np.arange(bins)[:, None], np.arange(size)
    inside = (position >= i * size // bins) & (position < -(-(i + 1) * size // bins))
    return (inside / inside.sum(axis=1, keepdims=True)).astype(np.float32)


@checked
def adaptive_average_pool(x: Float[Array, "*B H W C"], size: tuple[int, int]) -> Float[Array, "*B h w C"]:
    """Average maps down to a given height and width, in bins as even as possible.

    Bins overlap where a size does not divide the other one, as in PyTorch's layer of that name.
    """
    rows, columns = (jnp.asarray(_bins(n, to), x.dtype) for n, to in zip(x.shape[-3:-1], size, strict=True))
    return jnp.einsum("hH,wW,...HWC->...hwC", rows, columns, x, precision="highest")


def _ready(student: Array, teacher: Array, where: Array | None) -> tuple[Array, Array]:
    """Apply `ready` to examples of any shape."""
    flat = ready(flat_rows(student), flat_rows(teacher), where)
    return flat[0].reshape(student.shape), flat[1].reshape(teacher.shape)


def _example_mean(x: Array) -> Array:
    return jnp.mean(flat_rows(x), axis=-1)


def _common_size(a: Array, b: Array) -> tuple[Array, Array]:
    """Average the larger of two maps to the size of the smaller one."""
    size = (min(a.shape[-3], b.shape[-3]), min(a.shape[-2], b.shape[-2]))
    a, b = (x if x.shape[-3:-1] == size else adaptive_average_pool(x, size) for x in (a, b))
    return a, b


def _positions(x: Array) -> Array:
    """Reshape ``[B, H, W, C]`` to ``[B, HW, C]``."""
    return x.reshape(x.shape[0], x.shape[1] * x.shape[2], x.shape[3])


# --- maps ---------------------------------------------------------------------------------------


@checked
def hint(
    student: Float[Array, "B *S"], teacher: Float[Array, "B *S"], *, where: Bool[Array, " B"] | None = None
) -> Float[Array, " B"]:
    """Compute FitNet's hint loss, the mean squared difference over all numbers of an example.

    With a student projected onto the teacher's last map this is the loss of SimKD. FitNet's weight is 100.

    Args:
      student: Features of the student, after the adaptor.
      teacher: Features of the teacher, constant.
      where: Mask of the examples that count.

    Returns:
      One value for each example.

    References:
      Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015; Chen et al., "Knowledge Distillation
      with the Reused Teacher Classifier", CVPR 2022.
    """
    s, t = _ready(student, teacher, where)
    return per_example(_example_mean((s - t) ** 2), where)


@checked
def attention_transfer(
    student: Float[Array, "B H W C"],
    teacher: Float[Array, "B G V D"],
    *,
    squared: bool = True,
    where: Bool[Array, " B"] | None = None,
) -> Float[Array, " B"]:
    """Compute the attention transfer loss, which compares where in a map the activations are strong.

    The attention of an example is ``Q = a / |a|`` with ``a = mean_c f_c^2`` at every position. The larger map
    is averaged to the size of the smaller one first.

    Args:
      student: Map of the student.
      teacher: Map, of any size and number of channels, constant.
      squared: Form of the distance: the mean over positions of ``(Q_s - Q_t)^2`` (weight 1000) if true,
        ``|Q_s - Q_t|`` as in the paper if false.
      where: Mask of the examples that count.

    Returns:
      One value for each example.

    References:
      Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017.
    """
    s, t = (unit(jnp.mean(_positions(x) ** 2, -1)) for x in _common_size(*_ready(student, teacher, where)))
    return per_example(jnp.mean((s - t) ** 2, -1) if squared else length(s - t), where)


@checked
def nst_loss(
    student: Float[Array, "B H W C"],
    teacher: Float[Array, "B G V D"],
    *,
    where: Bool[Array, " B"] | None = None,
) -> Float[Array, " B"]:
    """Compute the neuron selectivity transfer loss, the maximum mean discrepancy of two sets of channels.

    Channels are maps of unit length; the kernel is ``k(a, b) = (a·b)^2``. The loss of an example is
    ``mean k(t, t) + mean k(s, s) - 2 mean k(s, t)``, means over all pairs of channels. The larger map is
    averaged to the size of the smaller one first. Weight 50.

    Args:
      student: Map of the student.
      teacher: Map, of any size and number of channels, constant.
      where: Mask of the examples that count.

    Returns:
      One value for each example.

    References:
      Huang and Wang, "Like What You Like: Knowledge Distill via Neuron Selectivity Transfer", 2017.
    """
    s, t = (unit(_positions(x), axis=1) for x in _common_size(*_ready(student, teacher, where)))

    def kernel(a, b):
        return jnp.mean(jnp.einsum("bpc,bpd->bcd", a, b, precision="highest") ** 2, axis=(1, 2))

    return per_example(kernel(t, t) + kernel(s, s) - 2 * kernel(s, t), where)


@checked
def vid_raw_scale(variance: PositiveNumber = 5.0, *, eps: PositiveNumber = 1e-5) -> Float[Array, ""]:
    """Compute the raw scale ρ with ``softplus(ρ) + eps`` equal to a variance, the start of `vid_loss`."""
    return jnp.log(jnp.expm1(jnp.asarray(variance - eps)))


@checked
def vid_loss(
    prediction: Float[Array, "B *S C"],
    teacher: Float[Array, "B *S C"],
    raw_scale: Float[Array, " C"],
    *,
    eps: PositiveNumber = 1e-5,
    where: Bool[Array, " B"] | None = None,
) -> Float[Array, " B"]:
    """Compute the loss of variational information distillation: -log likelihood of a teacher's features.

    ``mean 0.5 [(m - f)^2 / v + log v]`` with a variance ``v = softplus(ρ) + eps`` for every channel: a bound
    on the mutual information, up to a constant. The scales are parameters: they must be trained.

    Args:
      prediction: Means m that a regressor predicts from the student's features.
      teacher: Features of the teacher, constant.
      raw_scale: Raw scale ρ of each channel, see `vid_raw_scale`.
      eps: Least variance.
      where: Mask of the examples that count.

    Returns:
      One value for each example.

    References:
      Ahn et al., "Variational Information Distillation for Knowledge Transfer", CVPR 2019.
    """
    m, f = _ready(prediction, teacher, where)
    variance = jax.nn.softplus(raw_scale.astype(m.dtype)) + eps
    return per_example(_example_mean(0.5 * ((m - f) ** 2 / variance + jnp.log(variance))), where)


@checked
def ofd_margin(mean: Float[Array, " C"], scale: Float[Array, " C"]) -> Float[Array, " C"]:
    """Compute the expected negative activation of each channel from the teacher's last batch normalisation.

    Before a ReLU a channel is assumed normal with mean m (the bias) and deviation s (the magnitude of the
    scale): ``E[x | x < 0] = m - s φ(m/s) / Φ(-m/s)``. Channels that are negative in fewer than one case in a
    thousand get ``-3 s``, as in the authors' code; channels without variance get ``min(m, 0)``.

    Args:
      mean: Biases of the normalisation.
      scale: Scales of the normalisation, of any sign.

    Returns:
      Margins, never positive.

    References:
      Heo et al., "A Comprehensive Overhaul of Feature Distillation", ICCV 2019.
    """
    mean, scale = widened(mean), jnp.abs(widened(scale))
    ratio = mean / jnp.where(scale > 0, scale, 1)
    log_below = jax.scipy.stats.norm.logcdf(-ratio)
    expected = mean - scale * jnp.exp(jax.scipy.stats.norm.logpdf(ratio) - log_below)
    margin = jnp.where(log_below > jnp.log(0.001), expected, -3 * scale)
    return jax.lax.stop_gradient(jnp.where(scale > 0, margin, jnp.minimum(mean, 0)))


@checked
def ofd_loss(
    student: Float[Array, "B *S C"],
    teacher: Float[Array, "B *S C"],
    margin: Float[Array, " C"],
    *,
    where: Bool[Array, " B"] | None = None,
) -> Float[Array, " B"]:
    """Compute the overhauled feature loss: a partial distance before the ReLU, summed over an example.

    The target is ``max(teacher, margin)``. A positive target has to be met; a target that is not positive
    costs only where the student is above it. Stage l of n has the weight ``2^-(n-l)``, the sum 1e-3.

    Args:
      student: Pre-activation features of the student, after the connector.
      teacher: Pre-activation features of the teacher, constant.
      margin: Margin of each channel, see `ofd_margin`.
      where: Mask of the examples that count.

    Returns:
      One value for each example: a sum over positions and channels.

    References:
      Heo et al., "A Comprehensive Overhaul of Feature Distillation", ICCV 2019.
    """
    s, t = _ready(student, teacher, where)
    target = jnp.maximum(t, jax.lax.stop_gradient(margin.astype(t.dtype)))
    gap = jnp.where((target > 0) | (s > target), s - target, 0)
    return per_example(jnp.sum(flat_rows(gap) ** 2, axis=-1), where)


@checked
def hcl(
    student: Float[Array, "B H W C"],
    teacher: Float[Array, "B H W C"],
    *,
    sizes: tuple[int, ...] = (4, 2, 1),
    where: Bool[Array, " B"] | None = None,
) -> Float[Array, " B"]:
    """Compute ReviewKD's hierarchical context loss, mean squared differences at several resolutions.

    The full size has the weight 1, averages over 4x4, 2x2 and 1x1 bins (sizes below the map's height) have
    1/2, 1/4 and 1/8, divided by the sum of weights.

    Args:
      student: Fused map of the student.
      teacher: Map of the same shape, constant.
      sizes: Numbers of bins of the coarser resolutions.
      where: Mask of the examples that count.

    Returns:
      One value for each example.

    References:
      Chen et al., "Distilling Knowledge via Knowledge Review", CVPR 2021.
    """
    s, t = _ready(student, teacher, where)
    gap = s - t  # averaging is linear
    levels = [gap, *(adaptive_average_pool(gap, (n, n)) for n in sizes if n < gap.shape[1])]
    weights = [0.5**i for i in range(len(levels))]
    total = sum(w * _example_mean(x**2) for w, x in zip(weights, levels, strict=True)) / sum(weights)
    return per_example(jnp.asarray(total), where)


@checked
def flow(first: Float[Array, "*B H W C"], last: Float[Array, "*B G V D"]) -> Float[Array, "*B C D"]:
    """Compute the FSP matrix: inner products of the channels of two layers, a mean over positions.

    The larger map is averaged to the size of the smaller one.
    """
    first, last = _common_size(first, last)
    products = jnp.einsum("...hwc,...hwd->...cd", first, last, precision="highest")
    return products / (first.shape[-3] * first.shape[-2])


@checked
def fsp_loss(
    student: tuple[Float[Array, "B H1 W1 C"], Float[Array, "B H2 W2 D"]],
    teacher: tuple[Float[Array, "B H3 W3 C"], Float[Array, "B H4 W4 D"]],
    *,
    where: Bool[Array, " B"] | None = None,
) -> Float[Array, " B"]:
    """Compute the mean squared difference of two FSP matrices (flow of the solution procedure). Weight 50.

    Args:
      student: Maps at the two ends of a stage.
      teacher: Maps at the two ends of the teacher's stage, with equal numbers of channels, constant.
      where: Mask of the examples that count.

    Returns:
      One value for each example.

    References:
      Yim et al., "A Gift from Knowledge Distillation", CVPR 2017.
    """
    (s_first, t_first), (s_last, t_last) = (
        _ready(s, t, where) for s, t in zip(student, teacher, strict=True)
    )
    gap = flow(s_first, s_last) - flow(t_first, t_last)
    return per_example(_example_mean(gap**2), where)


@checked
def factor_transfer_loss(
    student: Float[Array, "B *S"], teacher: Float[Array, "B *S"], *, where: Bool[Array, " B"] | None = None
) -> Float[Array, " B"]:
    """Compute the factor transfer loss, the mean absolute difference of factors of unit length. Weight 200.

    Args:
      student: Factors of the student's translator.
      teacher: Factors of the teacher's paraphraser, constant.
      where: Mask of the examples that count.

    Returns:
      One value for each example.

    References:
      Kim et al., "Paraphrasing Complex Network: Network Compression via Factor Transfer", NeurIPS 2018.
    """
    s, t = (unit(flat_rows(x)) for x in _ready(student, teacher, where))
    return per_example(jnp.mean(jnp.abs(s - t), -1), where)


@checked
def ickd_loss(
    student: Float[Array, "B H W C"],
    teacher: Float[Array, "B G V C"],
    *,
    where: Bool[Array, " B"] | None = None,
) -> Float[Array, " B"]:
    """Compute the inter-channel correlation loss, which compares normalised rows of Gram matrices.

    The loss of an example is ``|N(F^T F)_s - N(F^T F)_t|_F^2 / C`` with F its positions by channels. Maps may
    differ in size. (Some implementations divide by the batch size a second time; the weight can do that.)

    Args:
      student: Map with the teacher's number of channels.
      teacher: Map of the teacher, constant.
      where: Mask of the examples that count.

    Returns:
      One value for each example.

    References:
      Liu et al., "Exploring Inter-Channel Correlation for Diversity-preserved Knowledge Distillation", ICCV
      2021.
    """

    def rows(x):
        x = _positions(x)
        return unit(jnp.einsum("bpc,bpd->bcd", x, x, precision="highest"))

    s, t = (rows(x) for x in _ready(student, teacher, where))
    return per_example(jnp.sum((s - t) ** 2, axis=(1, 2)) / s.shape[-1], where)


# --- vectors ------------------------------------------------------------------------------------


@checked
def hidden_mse(
    student: Float[Array, "*B D"], teacher: Float[Array, "*B D"], *, where: Bool[Array, "*B"] | None = None
) -> Float[Array, "*B"]:
    """Compute the mean squared difference of hidden states at each token.

    The masked mean of the values equals the reference's sum over valid tokens, divided by their number times
    D.

    Args:
      student: Hidden states, of the teacher's width.
      teacher: Hidden states of the teacher, constant.
      where: Mask of the tokens that count.

    Returns:
      One value for each token.

    References:
      Jiao et al., "TinyBERT", EMNLP Findings 2020; He et al., "Distiller", SustaiNLP 2021.
    """
    s, t = ready(student, teacher, where)
    return per_example(jnp.mean((s - t) ** 2, axis=-1), where)


@checked
def hidden_cross_entropy(
    student: Float[Array, "*B D"], teacher: Float[Array, "*B D"], *, where: Bool[Array, "*B"] | None = None
) -> Float[Array, "*B"]:
    """Compute the cross-entropy of hidden states taken as logits, ``-Σ_d softmax(t)_d log softmax(s)_d``.

    Args:
      student: Hidden states, of the teacher's width.
      teacher: Hidden states of the teacher, constant.
      where: Mask of the tokens that count.

    Returns:
      One value for each token.

    References:
      He et al., "Distiller: A Systematic Study of Model Distillation Methods in NLP", SustaiNLP 2021.
    """
    s, t = ready(student, teacher, where)
    return per_example(-jnp.sum(jax.nn.softmax(t) * jax.nn.log_softmax(s), axis=-1), where)


@checked
def cosine_distance(
    student: Float[Array, "*B D"], teacher: Float[Array, "*B D"], *, where: Bool[Array, "*B"] | None = None
) -> Float[Array, "*B"]:
    """Compute ``1 - cos`` of the angle between two vectors, in 0..2; 1 where one of them is zero.

    Args:
      student: Vectors of the student.
      teacher: Vectors of the teacher, constant.
      where: Mask of the vectors that count.

    Returns:
      One value for each vector.

    References:
      Sanh et al., "DistilBERT", 2019.
    """
    s, t = ready(student, teacher, where)
    return per_example(1 - jnp.sum(unit(s) * unit(t), axis=-1), where)


@checked
def pkd(
    student: Float[Array, "*B D"], teacher: Float[Array, "*B D"], *, where: Bool[Array, "*B"] | None = None
) -> Float[Array, "*B"]:
    """Compute the patient distillation loss ``|s/|s| - t/|t||^2``, twice the cosine distance.

    Args:
      student: Hidden states, usually of the first token.
      teacher: Hidden states of the teacher at the same positions, constant.
      where: Mask of the vectors that count.

    Returns:
      One value for each vector.

    References:
      Sun et al., "Patient Knowledge Distillation for BERT Model Compression", EMNLP 2019.
    """
    s, t = ready(student, teacher, where)
    return per_example(jnp.sum((unit(s) - unit(t)) ** 2, axis=-1), where)


# --- layers -------------------------------------------------------------------------------------


@checked
def layer_map(kind: Literal["skip", "last"], n_teacher: int, n_student: int) -> tuple[tuple[int, int], ...]:
    """Pair each layer of the student with the layer of the teacher that it learns from.

    Layer 0 is the embedding.

    Args:
      kind: "skip" pairs i with ``floor(i n_teacher / n_student)``, "last" with
        ``n_teacher - n_student + i``.
      n_teacher: Number of layers of the teacher, without the embedding.
      n_student: Number of layers of the student, without the embedding.

    Returns:
      Pairs (student, teacher) for student layers ``0..n_student``.

    Raises:
      ValueError: An unknown kind, fewer than one layer, or a "last" map onto a shallower teacher.
    """
    if min(n_teacher, n_student) < 1:
        raise ValueError(f"both need at least one layer, got {n_teacher} and {n_student}")
    if kind == "skip":
        return tuple((i, i * n_teacher // n_student) for i in range(n_student + 1))
    if kind != "last":
        raise ValueError(f"kind must be 'skip' or 'last', got {kind!r}")
    if n_teacher < n_student:
        raise ValueError(
            f"the last {n_student} layers of a teacher with {n_teacher} do not exist; use 'skip'"
        )
    return tuple((i, n_teacher - n_student + i) for i in range(n_student + 1))
