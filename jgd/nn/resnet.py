"""Residual networks for small images, as the literature of distillation uses them on CIFAR.

Taps: ``stage0`` is the stem, ``stage1`` ... ``stage3`` are the maps after the ReLU that follows a stage, and
``stage1_pre`` ... those before it. The embedding is the mean over pixels that the linear map reads.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from jgd.core import Outputs
from jgd.nn.conv import Conv, ConvNorm, batch_norm
from jgd.nn.layers import Dropout, Linear
from jgd.registry import Entry

__all__ = ["ResNet", "WideResNet"]


class _Block(nn.Module):
    """Block ``x + norm(conv(relu(norm(conv(x)))))``, before the last ReLU."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, x, *, train):
        y = nn.relu(ConvNorm(self.features, stride=self.stride)(x, train=train))
        y = ConvNorm(self.features)(y, train=train)
        if x.shape != y.shape:
            x = ConvNorm(self.features, 1, self.stride)(x, train=train)
        return x + y


class ResNet(nn.Module):
    """Residual network for CIFAR (He et al., CVPR 2016), with shortcuts by 1 x 1 convolutions.

    ResNet-20 is ``ResNet(100, 20)``; the wide "ResNet-8x4" of RepDistiller is
    ``ResNet(100, 8, widths=(32, 64, 128, 256))``.

    Attributes:
      num_classes: Number of classes, the width of the output.
      depth: Number of layers, ``6 n + 2``: 8, 14, 20, 32, 44, 56, 110 ...
      widths: Numbers of channels of the stem and of the three stages; the second and third halve the image.
    """

    num_classes: int
    depth: int = 20
    widths: tuple[int, int, int, int] = (16, 16, 32, 64)

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], *, train: bool = False) -> Outputs:
        """Classify images."""
        blocks, left = divmod(self.depth - 2, 6)
        if left or blocks < 1:
            raise ValueError(f"a ResNet for CIFAR has 6 n + 2 layers (8, 14, 20, ...), got {self.depth}")
        x = nn.relu(ConvNorm(self.widths[0])(x, train=train))
        taps = {"stage0": x}
        for stage, width in enumerate(self.widths[1:], 1):
            for block in range(blocks):
                pre = _Block(width, 2 if stage > 1 and block == 0 else 1)(x, train=train)
                x = nn.relu(pre)
            taps |= {f"stage{stage}": x, f"stage{stage}_pre": pre}
        pooled = x.mean((1, 2))
        return Outputs(Linear(self.num_classes)(pooled), pooled, taps)


class _WideBlock(nn.Module):
    """Block ``x + conv(relu(norm(conv(relu(norm(x))))))``, and the input of its first ReLU."""

    features: int
    stride: int
    dropout: float

    @nn.compact
    def __call__(self, x, *, train):
        pre = batch_norm(train)(x)
        active = nn.relu(pre)
        y: Any = nn.relu(ConvNorm(self.features, stride=self.stride)(active, train=train))
        y = Dropout(self.dropout)(y, train=train)
        y = Conv(self.features)(y)
        if x.shape[-1] != self.features:
            x = Conv(self.features, 1, self.stride)(active)
        return x + y, pre


class WideResNet(nn.Module):
    """Wide residual network (Zagoruyko and Komodakis, BMVC 2016): WRN-40-2 is ``WideResNet(100, 40, 2)``.

    Blocks normalise before they convolve, so the ReLU after a stage is the first of the next one.
    RepDistiller uses the sums before that normalisation, which are the further taps ``stage1_sum`` ...

    Attributes:
      num_classes: Number of classes, the width of the output.
      depth: Number of layers, ``6 n + 4``: 16, 22, 28, 40 ...
      widen: Widening factor: the stages have ``16 widen``, ``32 widen`` and ``64 widen`` channels.
      dropout: Dropout rate between the convolutions of a block.
    """

    num_classes: int
    depth: int = 16
    widen: int = 1
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], *, train: bool = False) -> Outputs:
        """Classify images."""
        blocks, left = divmod(self.depth - 4, 6)
        if left or blocks < 1:
            raise ValueError(f"a wide ResNet has 6 n + 4 layers (10, 16, 22, ...), got {self.depth}")
        x = Conv(16)(x)
        taps = {"stage0": x}
        for stage in range(3):
            for block in range(blocks):
                first = block == 0
                stride = 2 if stage and first else 1
                total, pre = _WideBlock(16 * self.widen * 2**stage, stride, self.dropout)(x, train=train)
                if stage and first:
                    taps |= _active(stage, x, pre)
                x = total
        pre = batch_norm(train)(x)
        taps |= _active(3, x, pre)
        pooled = taps["stage3"].mean((1, 2))
        return Outputs(Linear(self.num_classes)(pooled), pooled, taps)


def _active(stage: int, total: Array, pre: Array) -> dict[str, Array]:
    return {f"stage{stage}": nn.relu(pre), f"stage{stage}_pre": pre, f"stage{stage}_sum": total}


def _times_four(num_classes: int, depth: int) -> ResNet:
    """Return the residual network of RepDistiller with wide layers."""
    return ResNet(num_classes, depth, widths=(32, 64, 128, 256))


ENTRIES = (
    Entry("resnet*", ResNet, "Residual network; resnet20 has 20 layers.", "He et al. 2016", ("arrays",)),
    Entry(
        "resnet*x4",
        _times_four,
        "Residual network with 32 to 256 channels; resnet8x4 has 8 layers.",
        "He et al. 2016",
        ("arrays",),
    ),
    Entry(
        "wrn-*-*",
        WideResNet,
        "Wide residual network; wrn-16-2 has 16 layers, twice as wide.",
        "Zagoruyko & Komodakis 2016",
        ("arrays",),
    ),
)
