r"""Objectives on hidden features, with the networks that make them comparable.

Each is a signal to be added to cross-entropy with its authors' weight, which is given in its docstring::

    objective = jgd.weighted(ce=(1.0, supervised()), at=(1000.0, attention()))

================= =========================================================================================
objective         what the student has in common with its teacher
================= =========================================================================================
`fitnet`          one map, after a convolution that is learned (Romero et al., ICLR 2015)
`attention`       where maps are strong (Zagoruyko and Komodakis, ICLR 2017)
`nst`             the distribution of channels (Huang and Wang, 2017)
`similarity`      which examples of a batch are alike (Tung and Mori, ICCV 2019)
`pkt`             the same as a distribution (Passalis and Tefas, ECCV 2018)
`rkd`             distances and angles between examples (Park et al., CVPR 2019)
`cc`              a kernel between examples after linear maps of both (Peng et al., ICCV 2019)
`vid`             as much information as a regressor can find (Ahn et al., CVPR 2019)
`ofd`             maps before ReLU, as far as they are positive (Heo et al., ICCV 2019)
`review`          all maps, each read from those above it too (Chen et al., CVPR 2021)
`factor_transfer` factors of a map that a paraphraser found first (Kim et al., NeurIPS 2018)
`fsp`             products of the channels of two layers (Yim et al., CVPR 2017)
`ickd`            products of the channels of one layer (Liu et al., ICCV 2021)
================= =========================================================================================

A *place* is what a network returns under a name (see `jgd.distill.terms.read`), or a pair of those, of the
student and of the teacher. Objectives of several stages take ``stages``, a tuple of places, and add them up.
Their networks (adaptors, connectors, regressors) are parameters of the objective, trained with the student.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jgd import losses
from jgd.core import Context, Model, Objective, from_linen, weighted
from jgd.distill.data import count as number_of
from jgd.distill.data import source_of, take
from jgd.distill.terms import At, Place, beside_labels, pair, read, sides, term
from jgd.losses import mean
from jgd.nn import Conv, ConvNorm
from jgd.nn.conv import batch_norm
from jgd.registry import Entry

__all__ = [
    "adaptor",
    "attention",
    "cc",
    "connector",
    "factor_transfer",
    "fitnet",
    "fsp",
    "ickd",
    "nst",
    "ofd",
    "paraphrase",
    "pkt",
    "review",
    "rkd",
    "same_size",
    "similarity",
    "vid",
]

STAGES = ("stage1", "stage2", "stage3")


def _sum(one: Callable[[Place], Objective], stages: Sequence[Place]) -> Objective:
    """Return the sum of an objective for each place; the metrics have one entry for each."""
    if not stages:
        raise ValueError("there must be at least one stage")
    parts: dict[str, tuple[Any, Objective]] = {}
    for i, place in enumerate(stages):
        name = pair(place)[0]
        parts[name if isinstance(name, str) and name not in parts else f"{i}"] = (1.0, one(place))
    return weighted(**parts)


def _counted(ctx: Context) -> Array | None:
    return None if ctx.batch.weights is None else ctx.batch.weights != 0


def same_size(*maps: Float[Array, "B ..."]) -> list[Array]:
    """Return maps ``[B, H, W, C]`` averaged to the size of the smallest; vectors as they are."""
    if maps[0].ndim != 4:
        return list(maps)
    size = (min(m.shape[1] for m in maps), min(m.shape[2] for m in maps))
    return [m if m.shape[1:3] == size else losses.adaptive_average_pool(m, size) for m in maps]


# --- networks -----------------------------------------------------------------------------------


class _Adaptor(nn.Module):
    features: int
    kind: Literal["down", "up", "valid"]
    size: int
    relu: bool

    @nn.compact
    def __call__(self, x, *, train):
        if self.kind == "down":
            x = Conv(self.features, 3, 2)(x)
        elif self.kind == "up":
            x = nn.ConvTranspose(self.features, (4, 4), (2, 2), use_bias=False)(x)
        else:
            x = Conv(self.features, self.size, padding=0)(x)
        x = batch_norm(train)(x)
        return nn.relu(x) if self.relu else x


def adaptor(student: Array, teacher: Array, *, relu: bool = True) -> nn.Module:
    """Return a network from features of the student to the shape of the teacher's.

    Of maps a convolution, normalised: 3x3 of stride 2 onto half the size, a transposed 4x4 of stride 2 onto
    the double size, else one without padding. Of vectors a linear map.

    Args:
      student: Features of the student.
      teacher: Features of the teacher.
      relu: Whether a ReLU follows the convolution, for a teacher's map after one.

    Raises:
      ValueError: For sizes that none of these makes equal.
    """
    if student.ndim != 4:
        return nn.Dense(teacher.shape[-1])
    (h, w), (height, width), features = student.shape[1:3], teacher.shape[1:3], teacher.shape[-1]
    if (h, w) == (2 * height, 2 * width):
        return _Adaptor(features, "down", 3, relu)
    if (2 * h, 2 * w) == (height, width):
        return _Adaptor(features, "up", 4, relu)
    if h - height == w - width >= 0:
        return _Adaptor(features, "valid", 1 + h - height, relu)
    raise ValueError(
        f"no convolution makes a map of {height} x {width} from {h} x {w}: compare another stage"
    )


class _Connector(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x, *, train):
        return batch_norm(train)(nn.Dense(self.features, use_bias=False)(x))


def connector(student: Array, teacher: Array) -> nn.Module:
    """Return a 1x1 convolution to the teacher's channels, normalised."""
    del student
    return _Connector(teacher.shape[-1])


class _Same(nn.Module):
    def __call__(self, x):
        return x


# --- one place, one loss ------------------------------------------------------------------------


def fitnet(at: Place = "stage2", *, relu: bool = True, **settings: Any) -> Objective:
    """Return FitNet's hint: a map of the student, adapted, must be the teacher's. Weight 100.

    Args:
      at: Place of a map or a vector.
      relu: Whether a ReLU follows, see `adaptor`; False for places before a ReLU.
      **settings: Settings of `jgd.distill.term`.
    """
    return term(losses.hint, at=at, adapt=lambda s, t: adaptor(s, t, relu=relu), **settings)


def attention(stages: Sequence[Place] = STAGES, **settings: Any) -> Objective:
    """Return attention transfer. Weight 1000; ``squared=False`` for the paper's distance.

    Args:
      stages: Places of maps, of any sizes and widths.
      **settings: Settings of `jgd.distill.term` and `jgd.losses.attention_transfer`.
    """
    return _sum(lambda at: term(losses.attention_transfer, at=at, **settings), stages)


def nst(stages: Sequence[Place] = STAGES, **settings: Any) -> Objective:
    """Return neuron selectivity transfer. Weight 50.

    Args:
      stages: Places of maps, of any sizes and widths.
      **settings: Settings of `jgd.distill.term`.
    """
    return _sum(lambda at: term(losses.nst_loss, at=at, **settings), stages)


def similarity(at: Place = "stage3", **settings: Any) -> Objective:
    """Return similarity-preserving distillation. Weight 3000, with batches of 64."""
    return term(losses.similarity_preserving, at=at, **settings)


def pkt(at: Place = "embedding", **settings: Any) -> Objective:
    """Return probabilistic knowledge transfer. Weight 30000, with batches of 64."""
    return term(losses.pkt_loss, at=at, **settings)


def rkd(at: Place = "embedding", *, distance: Any = 25.0, angle: Any = 50.0, **settings: Any) -> Objective:
    """Return relational distillation, distances and angles in the authors' proportion. Weight 1.

    Args:
      at: Place of vectors.
      distance: Weight of the distances, a number or a schedule.
      angle: Weight of the angles.
      **settings: Settings of `jgd.distill.term`.
    """
    return weighted(
        distance=(distance, term(losses.rkd_distance, at=at, **settings)),
        angle=(angle, term(losses.rkd_angle, at=at, **settings)),
    )


def ickd(at: Place = "stage3", **settings: Any) -> Objective:
    """Return inter-channel correlation, with a connector where the networks differ in channels.

    Args:
      at: Place of maps, of any sizes.
      **settings: Settings of `jgd.distill.term`.
    """

    def adapt(s, t):
        return _Same() if s.shape[-1] == t.shape[-1] else connector(s, t)

    return term(losses.ickd_loss, at=at, adapt=adapt, **settings)


def fsp(
    stages: Sequence[tuple[At, At]] = (("stage0", "stage1"), ("stage1", "stage2"), ("stage2", "stage3")),
    **settings: Any,
) -> Objective:
    """Return the flow of the solution procedure, for networks of equal widths. Weight 50.

    The authors train on it first and on labels afterwards: give the student of the first run as ``start`` of
    the second one.

    Args:
      stages: Pairs of places, the two ends of each stage, the same in both networks.
      **settings: Settings of `jgd.distill.term`.
    """

    def loss(student, teacher, *, where=None):
        widths = [[x.shape[-1] for x in side] for side in (student, teacher)]
        if widths[0] != widths[1]:
            raise ValueError(f"fsp needs networks of equal widths, got {widths[0]} and {widths[1]}")
        return losses.fsp_loss(student, teacher, where=where)

    def both(ends) -> At:
        return lambda out: tuple(read(out, end) for end in ends)

    return weighted(**{"-".join(map(str, e)): (1.0, term(loss, at=both(e), **settings)) for e in stages})


# --- with networks ------------------------------------------------------------------------------


def cc(
    at: Place = "embedding",
    *,
    form: Literal["kernel", "neighbours"] = "kernel",
    dim: int = 128,
    student: str = "model",
    teacher: str = "teacher",
) -> Objective:
    """Return correlation congruence between linear embeddings of both networks, both trained.

    ``"kernel"`` compares Gaussian kernels of embeddings of unit length, ``|K_s - K_t|_F / B²``, weight 0.003;
    ``"neighbours"`` is what the authors' code has, weight 0.02. With a map of the teacher that is trained,
    the loss alone could be lowered by forgetting: weights are small.

    Args:
      at: Place that is embedded.
      form: ``"kernel"`` or ``"neighbours"``.
      dim: Width of the embeddings.
      student: Name of the network that learns.
      teacher: Name of the network that it learns from.
    """
    if form not in ("kernel", "neighbours"):
        raise ValueError(f"form must be 'kernel' or 'neighbours', got {form!r}")
    embed = nn.Dense(dim)

    def init(key, ctx):
        both = zip(jax.random.split(key), sides(ctx, at, student, teacher), strict=True)
        return tuple(embed.init(k, x.reshape(x.shape[0], -1)) for k, x in both), ()

    def apply(params, state, ctx, *, key, step):
        del key, step
        both = zip(params, sides(ctx, at, student, teacher), strict=True)
        s, t = (jnp.asarray(embed.apply(p, x.reshape(x.shape[0], -1))) for p, x in both)
        where = _counted(ctx)
        if form == "neighbours":
            return losses.neighbour_congruence(s, t, where=where), state, {}
        return losses.correlation_congruence(losses.unit(s), losses.unit(t), where=where), state, {}

    return Objective(init, apply)


class _Regressor(nn.Module):
    """Means of the teacher's features, and the raw scale of each channel."""

    features: int
    size: tuple[int, ...]
    variance: float

    @nn.compact
    def __call__(self, x):
        if self.size and (x.shape[1] > self.size[0] or x.shape[2] > self.size[1]):
            smaller = (min(x.shape[1], self.size[0]), min(x.shape[2], self.size[1]))
            x = losses.adaptive_average_pool(x, smaller)
        for _ in range(2):
            x = nn.relu(nn.Dense(self.features, use_bias=False)(x))
        x = nn.Dense(self.features, use_bias=False)(x)
        begin = losses.vid_raw_scale(self.variance)
        return x, self.param("raw_scale", lambda _: jnp.full((self.features,), begin, x.dtype))


def vid(stages: Sequence[Place] = STAGES, *, variance: float = 5.0, **settings: Any) -> Objective:
    """Return variational information distillation. Weight 1.

    A regressor of three 1x1 convolutions for each stage; the variances of the teacher's channels are trained
    too, as the authors meant (one implementation in use leaves them where they begin).

    Args:
      stages: Places of maps or vectors; the larger of two maps is averaged first.
      variance: Initial variance of all channels.
      **settings: Settings of `jgd.distill.term`.
    """

    def adapt(s, t):
        del s
        return _Regressor(t.shape[-1], t.shape[1:3] if t.ndim == 4 else (), variance)

    def loss(student, teacher, *, where=None):
        predicted, raw_scale = student
        predicted, teacher = same_size(predicted, teacher)
        return losses.vid_loss(predicted, teacher, raw_scale, where=where)

    return _sum(lambda at: term(loss, at=at, adapt=adapt, **settings), stages)


def ofd(
    stages: Sequence[Place] = ("stage1_pre", "stage2_pre", "stage3_pre"),
    *,
    norms: Sequence[tuple[Array, Array]] | None = None,
    student: str = "model",
    teacher: str = "teacher",
) -> Objective:
    """Return the overhaul of feature distillation: maps before ReLU, later stages count more. Weight 1e-3.

    Stage l of n counts ``2^-(n-l)``; its sum of squares is averaged over examples. The margin of a channel is
    the mean of its negative values, taken as normal: with mean and deviation from the batch normalisation
    before the ReLU (``norms``), or, by default, measured over all training examples once, before the first
    step. In networks with shortcuts the ReLU reads a sum, of which the last normalisation knows only a part.

    Args:
      stages: Places of what a ReLU reads, of equal sizes in both networks.
      norms: Bias and scale of the teacher's normalisation at each stage.
      student: Name of the network that learns, through a 1x1 convolution, normalised, for each stage.
      teacher: Name of the network that it learns from.

    Raises:
      ValueError: For norms of another number than stages, or when it is run in a loop that does not know all
        examples and has no norms.
    """
    if norms is not None and len(norms) != len(stages):
        raise ValueError(f"norms must have one pair for each of {len(stages)} stages, got {len(norms)}")

    def network(s, t):
        if s.shape[:-1] != t.shape[:-1]:
            raise ValueError(f"ofd needs maps of equal size, got {s.shape[1:3]} and {t.shape[1:3]}")
        return from_linen(connector(s, t))

    def init(key, ctx):
        pairs = [sides(ctx, place, student, teacher) for place in stages]
        keys = jax.random.split(key, len(pairs))
        made = [network(s, t).init(k, s) for k, (s, t) in zip(keys, pairs, strict=True)]
        found = norms or _moments(ctx, teacher, [pair(place)[1] for place in stages])
        margins = tuple(losses.ofd_margin(jnp.asarray(m), jnp.asarray(s)) for m, s in found)
        return tuple(p for p, _ in made), (tuple(s for _, s in made), margins)

    def apply(params, state, ctx, *, key, step):
        del key, step
        states, margins = state
        total, later, metrics = jnp.zeros(()), [], {}
        for i, place in enumerate(stages):
            s, t = sides(ctx, place, student, teacher)
            out, new = network(s, t).apply(params[i], states[i], s, train=True)
            value = mean(losses.ofd_loss(out.logits, t, margins[i], where=_counted(ctx)), ctx.batch.weights)
            total = total + 0.5 ** (len(stages) - 1 - i) * value
            later.append(new)
            metrics[f"{i}"] = value
        return total, (tuple(later), margins), metrics

    return Objective(init, apply)


def _moments(ctx: Context, player: str, places: Sequence[At], batch: int = 256) -> list[tuple[Array, Array]]:
    """Return mean and standard deviation of each channel over all training examples and positions."""
    train = source_of(ctx, "ofd without norms").train
    count = number_of(train)
    size = min(batch, count)

    def one(index):
        out = ctx.call[player](*take(train, index % count).inputs)
        here = (index < count).astype(jnp.float32)
        found = []
        for place in places:
            x = read(out, place)
            x = x.reshape(size, -1, x.shape[-1])
            centre = jnp.einsum("b,bpc->c", here, x) / (jnp.sum(here) * x.shape[1])
            square = jnp.einsum("b,bpc->c", here, (x - centre) ** 2) / (jnp.sum(here) * x.shape[1])
            found.append((centre, square))
        return jnp.sum(here), found

    index = jnp.arange(-(-count // size) * size).reshape(-1, size)
    counts, moments = jax.lax.map(one, index)
    share = (counts / jnp.sum(counts))[:, None]

    def joined(centres, squares):
        centre = jnp.sum(share * centres, 0)
        return centre, jnp.sqrt(jnp.sum(share * (squares + (centres - centre) ** 2), 0))

    return [joined(*found) for found in moments]


class _Fusion(nn.Module):
    """ReviewKD's attention-based fusion of a stage with those above it."""

    width: int
    features: int
    size: tuple[int, int]

    @nn.compact
    def __call__(self, x, above, *, train):
        x = ConvNorm(self.width, 1)(x, train=train)
        if above is not None:
            above = jax.image.resize(above, (*x.shape[:3], self.width), "nearest")
            weights = nn.sigmoid(nn.Dense(2)(jnp.concatenate([x, above], -1)))
            x = x * weights[..., :1] + above * weights[..., 1:]
        if x.shape[1:3] != self.size:
            x = jax.image.resize(x, (x.shape[0], *self.size, self.width), "nearest")
        return ConvNorm(self.features)(x, train=train), x


class _Review(nn.Module):
    """All stages of the student, the last one first, as all stages of the teacher."""

    width: int
    shapes: tuple[tuple[int, int, int], ...]

    @nn.compact
    def __call__(self, maps, *, train):
        above, found = None, []
        for x, (h, w, features) in zip(reversed(maps), reversed(self.shapes), strict=True):
            y, above = _Fusion(self.width, features, (h, w))(x, above, train=train)
            found.insert(0, y)
        return tuple(found)


def review(
    stages: Sequence[Place] = (*((s, f"{s}_pre") for s in STAGES), "embedding"),
    *,
    width: int | None = None,
    **settings: Any,
) -> Objective:
    """Return knowledge review: the student's stages, fused from the last down, each compared by `losses.hcl`.

    Weight 1 (5 for ResNet-32x4 to 8x4), growing over 20 epochs: see `jgd.distill.ramp`.

    Args:
      stages: Places of maps, or vectors as maps of one position, from the first to the last; by default the
        teacher's are those before ReLU.
      width: Channels of the fusion; None for those of the last stage, at most 512.
      **settings: Settings of `jgd.distill.term`.
    """

    def all_of(side: int) -> At:
        def maps(out):
            found = (read(out, pair(place)[side]) for place in stages)
            return tuple(x[:, None, None] if x.ndim == 2 else x for x in found)

        return maps

    def adapt(s, t):
        return _Review(width or min(512, s[-1].shape[-1]), tuple(x.shape[1:] for x in t))

    def loss(student, teacher, *, where=None):
        return sum(losses.hcl(s, t, where=where) for s, t in zip(student, teacher, strict=True))

    return term(loss, at=(all_of(0), all_of(1)), adapt=adapt, **settings)


class _Coder(nn.Module):
    """3x3 convolutions, each with a leaky ReLU."""

    widths: tuple[int, ...]
    norm: bool

    @nn.compact
    def __call__(self, x, *, train):
        for width in self.widths:
            x = Conv(width, use_bias=True)(x)
            x = nn.leaky_relu(batch_norm(train)(x) if self.norm else x, 0.1)
        return x


def paraphrase(
    key: Array,
    features: Callable[[Array], Float[Array, "B H W C"]],
    width: int,
    tx: optax.GradientTransformation,
    steps: int,
) -> tuple[Any, Float[Array, " steps"]]:
    """Train factor transfer's paraphraser: maps into fewer channels, from which they can be made again.

    Args:
      key: Random key.
      features: Function from the step to the maps that are learned from.
      width: Channels of the factors.
      tx: Optimiser.
      steps: Steps of the optimiser.

    Returns:
      Parameters of the encoder, and the mean squared error of each step.
    """
    k1, k2 = jax.random.split(key)
    first = features(jnp.zeros((), jnp.int32))
    encoder, decoder = _coders(first.shape[-1], width)
    params, _ = encoder.init(k1, first)
    params = (params, decoder.init(k2, encoder.apply(params, {}, first)[0].logits)[0])

    def error(params, x):
        factors = encoder.apply(params[0], {}, x)[0].logits
        return jnp.mean((decoder.apply(params[1], {}, factors)[0].logits - x) ** 2)

    def step(carry, t):
        params, state = carry
        value, grads = jax.value_and_grad(error)(params, features(t))
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), value

    (found, _), errors = jax.lax.scan(step, (params, tx.init(params)), jnp.arange(steps))
    encoded: Any = found
    return encoded[0], errors


def _coders(channels: int, width: int) -> tuple[Model, Model]:
    encoder, decoder = (channels, width, width), (width, channels, channels)
    return from_linen(_Coder(encoder, False)), from_linen(_Coder(decoder, False))


def factor_transfer(
    at: Place = "stage3",
    *,
    rate: float = 0.5,
    steps: int = 1000,
    batch: int = 64,
    tx: optax.GradientTransformation | None = None,
    student: str = "model",
    teacher: str = "teacher",
) -> Objective:
    """Return factor transfer: the student's translator must equal the teacher's paraphraser. Weight 200.

    The paraphraser is an autoencoder of the teacher's map. It is trained first, when the objective is made,
    on batches of all training examples; then it is fixed (the state of the objective), and the translator is
    trained with the student.

    Args:
      at: Place of maps.
      rate: Channels of the factors, as a share of the teacher's.
      steps: Steps of the paraphraser's optimiser.
      batch: Examples of each of these steps.
      tx: Optimiser of the paraphraser; Adam at 1e-3 by default (the authors: 30 epochs of gradient descent).
      student: Name of the network that learns.
      teacher: Name of the network that it learns from.
    """
    if not 0 < rate <= 1:
        raise ValueError(f"rate is a share of the channels in (0, 1], got {rate}")
    adam = optax.adam(1e-3) if tx is None else tx

    def networks(s, t) -> tuple[int, Model, Model]:
        width = max(1, round(rate * t.shape[-1]))
        translator = from_linen(_Coder((s.shape[-1], width, width), True))
        return width, _coders(t.shape[-1], width)[0], translator

    def init(key, ctx):
        k_order, k_first, k_second = jax.random.split(key, 3)
        s, t = sides(ctx, at, student, teacher)
        width, _, translator = networks(s, t)
        train = source_of(ctx, "factor_transfer").train
        count = number_of(train)

        def features(step):
            index = jax.random.choice(jax.random.fold_in(k_order, step), count, (min(batch, count),), False)
            return read(ctx.call[teacher](*take(train, index).inputs), pair(at)[1])

        encoder, _ = paraphrase(k_first, features, width, adam, steps)
        params, state = translator.init(k_second, s)
        return params, (state, encoder)

    def apply(params, state, ctx, *, key, step):
        del key, step
        own, encoder = state
        s, t = sides(ctx, at, student, teacher)
        _, paraphraser, translator = networks(s, t)
        ours, own = translator.apply(params, own, s, train=True)
        factors = same_size(ours.logits, paraphraser.apply(encoder, {}, t)[0].logits)
        value = mean(losses.factor_transfer_loss(*factors, where=_counted(ctx)), ctx.batch.weights)
        return value, (own, encoder), {}

    return Objective(init, apply)


ENTRIES = (
    Entry("rkd", beside_labels(1.0, rkd), "Distances and angles of embeddings.", "Park et al. 2019"),
    Entry(
        "sp",
        beside_labels(3000.0, partial(similarity, at="embedding")),
        "Similarity of examples.",
        "Tung & Mori 2019",
    ),
    Entry(
        "pkt",
        beside_labels(30000.0, pkt),
        "Similarity of examples as a distribution.",
        "Passalis & Tefas 2018",
    ),
)
