"""VGG for small images (Simonyan and Zisserman, ICLR 2015), with batch normalisation and one linear map."""

from __future__ import annotations

import flax.linen as nn
from jaxtyping import Array, Float

from jgd.core import Outputs
from jgd.nn.conv import ConvNorm, max_pool
from jgd.nn.layers import Linear
from jgd.registry import Entry

__all__ = ["VGG"]

_LAYERS = {
    8: (1, 1, 1, 1, 1),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


class VGG(nn.Module):
    """Five stages of 3 x 3 convolutions, pooled by two after three of them (after four from 64 pixels on).

    Taps: ``stage0`` ... ``stage4`` are after the last ReLU of a stage, ``stage0_pre`` ... before it. The
    embedding is the mean over pixels.

    Attributes:
      num_classes: Number of classes, the width of the output.
      depth: Number of layers: 8, 11, 13, 16 or 19.
      widths: Numbers of channels of the stages.
    """

    num_classes: int
    depth: int = 8
    widths: tuple[int, int, int, int, int] = (64, 128, 256, 512, 512)

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], *, train: bool = False) -> Outputs:
        """Classify images."""
        if self.depth not in _LAYERS:
            raise ValueError(f"VGG has {', '.join(map(str, _LAYERS))} layers, got {self.depth}")
        pooled = 4 if min(x.shape[1:3]) >= 64 else 3
        taps = {}
        for stage, (layers, width) in enumerate(zip(_LAYERS[self.depth], self.widths, strict=True)):
            if 0 < stage <= pooled:
                x = max_pool(x)
            for _ in range(layers):
                pre = ConvNorm(width, use_bias=True)(x, train=train)
                x = nn.relu(pre)
            taps |= {f"stage{stage}": x, f"stage{stage}_pre": pre}
        mean = x.mean((1, 2))
        return Outputs(Linear(self.num_classes)(mean), mean, taps)


ENTRIES = (
    Entry(
        "vgg*",
        VGG,
        "Plain stack of convolutions; vgg8 has 8 layers.",
        "Simonyan & Zisserman 2015",
        ("arrays",),
    ),
)
