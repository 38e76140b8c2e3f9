"""Augmentations: random changes of a batch before the networks see it.

::

    augment = chain(crop_flip(), mixup(0.4))
    student = jgd.distill.offline(net, teacher, objective, tx, augment=augment)(key, task)

An augmentation is a pure function of a key and a batch. In distillation teacher and students see the same
inputs. Outputs of the teacher can be computed once, ahead, where the inputs stay what they are in the data
(``keeps_inputs``). Equal settings make the same function, so that another run compiles nothing.

`jgd.training.AUGMENTATIONS` is the catalogue. Kinds are ``"arrays"`` (images and vectors) and ``"texts"``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from jgd.core import Examples
from jgd.core.memo import memoized
from jgd.registry import Entry

__all__ = [
    "Augmentation",
    "chain",
    "crop_flip",
    "cutmix",
    "gaussian_noise",
    "mixup",
    "partial_weights",
    "token_dropout",
    "token_swap",
]


class Augmentation(NamedTuple):
    """A random change of a batch.

    Attributes:
      apply: ``(key, t, batch: Examples, num_classes) -> Examples`` of the same static shapes.
      keeps_inputs: Whether each example keeps its inputs.
    """

    apply: Callable[[Array, Array, Examples, int], Examples]
    keeps_inputs: bool = False


@memoized
def chain(*augmentations: Augmentation) -> Augmentation:
    """Return one augmentation that applies several, one after another, as in `optax.chain`.

    Args:
      *augmentations: Augmentations in order.
    """

    def apply(key, t, batch, num_classes):
        for one, k in zip(augmentations, jax.random.split(key, len(augmentations)), strict=True):
            batch = one.apply(k, t, batch, num_classes)
        return batch

    return Augmentation(apply, all(one.keeps_inputs for one in augmentations))


def _continuous(batch: Examples) -> Array:
    x = batch.inputs[0]
    if len(batch.inputs) != 1 or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"this augmentation needs one array of floating-point inputs, got {len(batch.inputs)} of "
            f"{[str(i.dtype) for i in batch.inputs]}"
        )
    return x


def _tokens(batch: Examples) -> tuple[Int[Array, "B T"], Bool[Array, "B T"]]:
    """Return tokens and the mask of those that are no padding."""
    x = batch.inputs[0]
    if len(batch.inputs) > 2 or x.ndim != 2 or not jnp.issubdtype(x.dtype, jnp.integer):
        raise ValueError(
            f"this augmentation needs tokens [B, T] and at most their mask, got {len(batch.inputs)} arrays, "
            f"the first {x.dtype} of shape {x.shape}"
        )
    return x, batch.inputs[1] if len(batch.inputs) == 2 else jnp.ones(x.shape, bool)


def _soft(batch: Examples, num_classes: int) -> Float[Array, "B C"]:
    y = batch.targets
    return y if y.ndim == 2 else jax.nn.one_hot(y, num_classes)


def _along(weight: Shaped[Array, " B"], x: Array) -> Array:
    return weight.reshape(-1, *(1,) * (x.ndim - 1))


def _blended(batch: Examples, num_classes: int, first, second, weight, inputs) -> Examples:
    """Return the batch with other inputs and labels mixed by ``weight``; loss weights are mixed likewise.

    A mixed example is none of the training set: it has no index, and it is in a mask where both are.
    """
    y = batch.targets
    if y is not None:
        y = _soft(batch, num_classes)
        y = weight[:, None] * y[first] + (1 - weight[:, None]) * y[second]
    w = batch.weights
    w = w if w is None else weight * w[first] + (1 - weight) * w[second]
    masks = jax.tree.map(lambda mask: mask[first] & mask[second], batch.masks)
    return batch._replace(inputs=inputs, targets=y, weights=w, index=None, masks=masks)


def partial_weights(
    key: Array, size: int, alpha: float = 1.0, clean: float = 0.0, exact: bool = True
) -> Float[Array, " B"]:
    """Draw weights ``λ ~ Beta(alpha, alpha)``, one for each example, and set a share of them to one.

    Args:
      key: Random key.
      size: Number of examples.
      alpha: Both parameters of the distribution.
      clean: Share of examples with ``λ = 1``.
      exact: Whether exactly ``round(clean * size)`` of them stay clean. Otherwise ``int(clean * size)``
        examples are drawn with replacement, which leaves a share of ``1 - (1 - 1/size)^(clean * size)``, 59 %
        at 0.9. The authors' code does this, and their numbers come from it.
    """
    k_beta, k_clean = jax.random.split(key)
    weight = jax.random.beta(k_beta, alpha, alpha, (size,))
    mask: Bool[Array, " B"]
    if exact:
        mask = jax.random.permutation(k_clean, size) < round(clean * size)
    else:
        drawn = jax.random.randint(k_clean, (int(clean * size),), 0, size)
        mask = jnp.zeros(size, bool).at[drawn].set(True)
    return jnp.where(mask, 1.0, weight)


@memoized
def mixup(alpha: float = 1.0, *, clean: float = 0.0, exact: bool = True) -> Augmentation:
    """Replace examples by weighted means of two, and their labels alike (Zhang et al., ICLR 2018).

    Both partners are permutations of the batch and every example has a weight of its own. With ``clean`` it
    is the partial mixup of Choi et al. (WACV 2023): only ``1 - clean`` of the batch is mixed.

    Of texts the embeddings are mixed (MixKD, Liang et al., ICLR 2021), in each network its own: networks get
    ``(tokens, mask, other tokens, their mask, weight)``, as `jgd.nn.TextTransformer` takes them.

    Args:
      alpha: Both parameters of the Beta distribution of the weights.
      clean: Share of examples that are not mixed.
      exact: Whether the share is exact, see `partial_weights`.
    """
    if alpha <= 0 or not 0 <= clean <= 1:
        raise ValueError(f"alpha must be positive and clean in [0, 1], got {alpha} and {clean}")

    def apply(key, t, batch, num_classes):
        del t
        size = batch.inputs[0].shape[0]
        k_first, k_second, k_weight = jax.random.split(key, 3)
        first, second = (jax.random.permutation(k, size) for k in (k_first, k_second))
        weight = partial_weights(k_weight, size, alpha, clean, exact)
        if jnp.issubdtype(batch.inputs[0].dtype, jnp.integer):
            x, mask = _tokens(batch)
            inputs = (x[first], mask[first], x[second], mask[second], weight)
        else:
            x = _continuous(batch)
            along = _along(weight, x).astype(x.dtype)
            inputs = (along * x[first] + (1 - along) * x[second],)
        return _blended(batch, num_classes, first, second, weight, inputs)

    return Augmentation(apply)


@memoized
def cutmix(alpha: float = 1.0) -> Augmentation:
    """Replace a rectangle of each image by another image's, labels in proportion (CutMix, Yun et al. 2019).

    Images are ``[B, H, W, C]``; every image has a rectangle of its own.

    Args:
      alpha: Both parameters of the Beta distribution of the share that stays.
    """

    def apply(key, t, batch, num_classes):
        del t
        x = _continuous(batch)
        if x.ndim != 4:
            raise ValueError(f"cutmix needs images [B, H, W, C], got {x.shape}")
        b, h, w, _ = x.shape
        k_other, k_weight, k_row, k_col = jax.random.split(key, 4)
        first, second = jnp.arange(b), jax.random.permutation(k_other, b)
        side = jnp.sqrt(1 - jax.random.beta(k_weight, alpha, alpha, (b,)))
        inside = jnp.ones((b, h, w), bool)
        for size, k, shape in ((h, k_row, (b, h, 1)), (w, k_col, (b, 1, w))):
            middle = jax.random.uniform(k, (b,)) * size
            low, high = (jnp.round(middle + s * side * size / 2) for s in (-1, 1))
            at = jnp.arange(size)
            inside &= ((at >= low[:, None]) & (at < high[:, None])).reshape(shape)
        weight = 1 - jnp.mean(inside, axis=(1, 2))
        mixed = jnp.where(inside[..., None], x[second], x)
        return _blended(batch, num_classes, first, second, weight, (mixed,))

    return Augmentation(apply)


@memoized
def crop_flip(padding: int = 4, *, flip: bool = True) -> Augmentation:
    """Shift images at random, with zeros at the border, and mirror half of them.

    Args:
      padding: Largest shift, in pixels.
      flip: Whether images are mirrored, each with probability 0.5.
    """

    def apply(key, t, batch, num_classes):
        del t, num_classes
        x = _continuous(batch)
        if x.ndim != 4:
            raise ValueError(f"crop_flip needs images [B, H, W, C], got {x.shape}")
        k_shift, k_flip = jax.random.split(key)
        wide = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
        shift = jax.random.randint(k_shift, (x.shape[0], 2), 0, 2 * padding + 1)
        cut = jax.vmap(lambda image, s: jax.lax.dynamic_slice(image, (s[0], s[1], 0), x.shape[1:]))(
            wide, shift
        )
        if flip:
            mirrored = jax.random.bernoulli(k_flip, 0.5, (x.shape[0],))
            cut = jnp.where(_along(mirrored, x), cut[:, :, ::-1], cut)
        return batch._replace(inputs=(cut,))

    return Augmentation(apply)


@memoized
def gaussian_noise(scale: float = 0.1) -> Augmentation:
    """Add normal noise to the inputs.

    Args:
      scale: Standard deviation of the noise.
    """

    def apply(key, t, batch, num_classes):
        del t, num_classes
        x = _continuous(batch)
        return batch._replace(inputs=(x + scale * jax.random.normal(key, x.shape, x.dtype),))

    return Augmentation(apply)


@memoized
def token_swap(rate: float = 0.1) -> Augmentation:
    """Swap neighbouring tokens.

    The tokens of a text are paired in one of two ways, drawn for each text.

    Args:
      rate: Probability of a swap of each pair.
    """
    _probability(rate)

    def apply(key, t, batch, num_classes):
        del t, num_classes
        x, mask = _tokens(batch)
        k_swap, k_odd = jax.random.split(key)
        at = jnp.arange(x.shape[1])
        odd = jax.random.bernoulli(k_odd, 0.5, (x.shape[0], 1)).astype(at.dtype)
        other = jnp.clip(jnp.where((at + odd) % 2 == 0, at + 1, at - 1), 0, x.shape[1] - 1)
        left = jnp.minimum(at, other)  # both of a pair read the same draw
        chosen = jnp.take_along_axis(jax.random.bernoulli(k_swap, rate, x.shape), left, axis=1)
        chosen &= mask & jnp.take_along_axis(mask, other, axis=1)
        swapped = jnp.take_along_axis(x, jnp.where(chosen, other, at), axis=1)
        return batch._replace(inputs=(swapped, *batch.inputs[1:]))

    return Augmentation(apply)


@memoized
def token_dropout(rate: float = 0.1) -> Augmentation:
    """Hide tokens from the networks, but never all of a text.

    Networks get ``(tokens, mask)``.

    Args:
      rate: Probability of each token to be hidden.
    """
    _probability(rate)

    def apply(key, t, batch, num_classes):
        del t, num_classes
        x, mask = _tokens(batch)
        draws = jnp.where(mask, jax.random.uniform(key, x.shape), -1.0)
        last = draws == jnp.max(draws, axis=1, keepdims=True)
        return batch._replace(inputs=(x, mask & ((draws >= rate) | last)))

    return Augmentation(apply)


def _probability(rate: float) -> None:
    if not 0 <= rate <= 1:
        raise ValueError(f"rate is a probability in [0, 1], got {rate}")


ENTRIES = (
    Entry("mixup", mixup, "Weighted means of two examples.", "Zhang et al. 2018", ("arrays", "texts")),
    Entry("cutmix", cutmix, "A rectangle of another image.", "Yun et al. 2019", ("arrays",)),
    Entry("crop-flip", crop_flip, "Images shifted and mirrored.", "", ("arrays",)),
    Entry("gaussian-noise", gaussian_noise, "Normal noise on the inputs.", "", ("arrays",)),
    Entry("token-swap", token_swap, "Neighbouring tokens swapped.", "", ("texts",)),
    Entry("token-dropout", token_dropout, "Tokens hidden at random.", "", ("texts",)),
)
