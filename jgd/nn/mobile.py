"""Networks for small devices, in the versions for CIFAR of RepDistiller and its successors."""

from __future__ import annotations

from functools import reduce

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgd.core import Outputs
from jgd.nn.conv import ConvNorm, _shifts
from jgd.nn.layers import Linear

__all__ = ["MobileNetV2", "ShuffleNetV1", "ShuffleNetV2"]


class _Inverted(nn.Module):
    """Block that widens, convolves each channel alone and narrows; the narrow end is linear."""

    features: int
    stride: int
    expansion: int

    @nn.compact
    def __call__(self, x, *, train):
        wide = x.shape[-1] * self.expansion
        y = nn.relu(ConvNorm(wide, 1)(x, train=train))
        y = nn.relu(ConvNorm(wide, 3, self.stride, groups=wide)(y, train=train))
        y = ConvNorm(self.features, 1)(y, train=train)
        return x + y if self.stride == 1 and x.shape == y.shape else y


class MobileNetV2(nn.Module):
    """MobileNetV2 (Sandler et al., CVPR 2018), half as wide as on ImageNet, with strides for 32 x 32 pixels.

    Taps: ``stage0`` is the stem after ReLU, ``stage1`` ... ``stage4`` are the linear ends of blocks, without
      a
    ReLU (``stage1_pre`` ... are the same). The embedding is the mean over pixels of 1280 channels.

    Attributes:
      num_classes: Number of classes, the width of the output.
      width: Factor on the published numbers of channels.
      expansion: Ratio of a block's inner width to its outer width.
    """

    num_classes: int
    width: float = 0.5
    expansion: int = 6

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], *, train: bool = False) -> Outputs:
        """Classify images."""
        t = self.expansion
        groups = (
            (1, 16, 1, 1),
            (t, 24, 2, 1),
            (t, 32, 3, 2),
            (t, 64, 4, 2),
            (t, 96, 3, 1),
            (t, 160, 3, 2),
            (t, 320, 1, 1),
        )
        x = nn.relu(ConvNorm(int(32 * self.width), stride=2)(x, train=train))
        taps, stage = {"stage0": x}, 0
        for number, (expansion, channels, blocks, stride) in enumerate(groups):
            for block in range(blocks):
                first = block == 0
                net = _Inverted(int(channels * self.width), stride if first else 1, expansion)
                x = net(x, train=train)
            if number in (1, 2, 4, 6):
                stage += 1
                taps |= {f"stage{stage}": x, f"stage{stage}_pre": x}
        last = 1280 if self.width <= 1 else int(1280 * self.width)
        pooled = nn.relu(ConvNorm(last, 1)(x, train=train)).mean((1, 2))
        return Outputs(Linear(self.num_classes)(pooled), pooled, taps)


def _shuffle(x: Array, groups: int) -> Array:
    """Take the channels of the groups in turn."""
    return x.reshape(*x.shape[:-1], groups, -1).swapaxes(-1, -2).reshape(x.shape)


def _mean3(x: Array) -> Array:
    """Average over windows of 3 x 3 at stride 2, with zeros outside."""
    return reduce(jnp.add, _shifts(x, (3, 3), 2, ((1, 1), (1, 1)))) / 9


class _ShuffleV1(nn.Module):
    features: int
    stride: int
    groups: int
    first: int  # groups of the first convolution

    @nn.compact
    def __call__(self, x, *, train):
        inner = self.features // 4
        y = nn.relu(ConvNorm(inner, 1, groups=self.first)(x, train=train))
        y = _shuffle(y, self.first)
        y = nn.relu(ConvNorm(inner, 3, self.stride, groups=inner)(y, train=train))
        y = ConvNorm(self.features, 1, groups=self.groups)(y, train=train)
        return jnp.concatenate([y, _mean3(x)], -1) if self.stride == 2 else y + x


class ShuffleNetV1(nn.Module):
    """ShuffleNet with grouped 1 x 1 convolutions (Zhang et al., CVPR 2018), for 32 x 32 pixels.

    Taps: ``stage0`` is the stem, ``stage1`` ... ``stage3`` are after ReLU, ``stage1_pre`` ... before it.

    Attributes:
      num_classes: Number of classes, the width of the output.
      widths: Numbers of channels of the three stages, each of which halves the image.
      blocks: Number of blocks of each stage.
      groups: Number of groups of the 1 x 1 convolutions.
    """

    num_classes: int
    widths: tuple[int, int, int] = (240, 480, 960)
    blocks: tuple[int, int, int] = (4, 8, 4)
    groups: int = 3

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], *, train: bool = False) -> Outputs:
        """Classify images."""
        x = nn.relu(ConvNorm(24, 1)(x, train=train))
        taps = {"stage0": x}
        for stage, (width, blocks) in enumerate(zip(self.widths, self.blocks, strict=True), 1):
            for block in range(blocks):
                start = block == 0  # a pooled copy of the input joins the output
                new = width - x.shape[-1] if start else width
                first = 1 if start and stage == 1 else self.groups
                pre = _ShuffleV1(new, 2 if start else 1, self.groups, first)(x, train=train)
                x = nn.relu(pre)
            taps |= {f"stage{stage}": x, f"stage{stage}_pre": pre}
        pooled = x.mean((1, 2))
        return Outputs(Linear(self.num_classes)(pooled), pooled, taps)


class _Down(nn.Module):
    """Two branches that halve the pixels, side by side."""

    features: int

    @nn.compact
    def __call__(self, x, *, train):
        half, channels = self.features // 2, x.shape[-1]
        a = ConvNorm(channels, 3, 2, groups=channels)(x, train=train)
        a = ConvNorm(half, 1)(a, train=train)
        b = nn.relu(ConvNorm(half, 1)(x, train=train))
        b = ConvNorm(half, 3, 2, groups=half)(b, train=train)
        b = ConvNorm(half, 1)(b, train=train)
        return _shuffle(jnp.concatenate([a, b], -1), 2)


class _ShuffleV2(nn.Module):
    """Block that passes half of the channels and transforms the other half."""

    @nn.compact
    def __call__(self, x, *, train):
        passed, y = jnp.split(x, 2, axis=-1)
        half = y.shape[-1]
        y = nn.relu(ConvNorm(half, 1)(y, train=train))
        y = ConvNorm(half, 3, groups=half)(y, train=train)
        y = ConvNorm(half, 1)(y, train=train)
        return _shuffle(jnp.concatenate([passed, y], -1), 2)


_SIZES = {
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (224, 488, 976, 2048),
}


class ShuffleNetV2(nn.Module):
    """ShuffleNetV2 (Ma et al., ECCV 2018), for 32 x 32 pixels.

    Taps are those of `ShuffleNetV1`; half of the channels of a ``_pre`` tap are outputs of an earlier ReLU.

    Attributes:
      num_classes: Number of classes, the width of the output.
      size: Size of the network: 0.5, 1, 1.5 or 2.
      blocks: Number of blocks of each stage after the one that halves the image.
    """

    num_classes: int
    size: float = 1.0
    blocks: tuple[int, int, int] = (3, 7, 3)

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], *, train: bool = False) -> Outputs:
        """Classify images."""
        if self.size not in _SIZES:
            raise ValueError(f"ShuffleNetV2 has sizes {', '.join(map(str, _SIZES))}, got {self.size}")
        *widths, last = _SIZES[self.size]
        x = nn.relu(ConvNorm(24, 1)(x, train=train))
        taps = {"stage0": x}
        for stage, (width, blocks) in enumerate(zip(widths, self.blocks, strict=True), 1):
            pre = _Down(width)(x, train=train)
            for _ in range(blocks):
                pre = _ShuffleV2()(nn.relu(pre), train=train)
            x = nn.relu(pre)
            taps |= {f"stage{stage}": x, f"stage{stage}_pre": pre}
        pooled = nn.relu(ConvNorm(last, 1)(x, train=train)).mean((1, 2))
        return Outputs(Linear(self.num_classes)(pooled), pooled, taps)
