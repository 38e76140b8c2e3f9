"""Convolutions of images, channels last, that stay fast inside `jax.lax.scan` and under `jax.vmap` on CPU.

XLA's convolution loses its fast CPU kernel inside a loop, and a convolution with vmapped weights (an
ensemble, several seeds) becomes a grouped one. As a product of matrices (im2col) it has neither problem. So
`conv2d` multiplies matrices on CPU and calls the native convolution on GPU and TPU. The choice is made when a
program is lowered, so that one exported program serves all platforms. Kernels of 1 x 1 are products
everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgd.core import Outputs
from jgd.nn.layers import Linear
from jgd.registry import Entry

__all__ = ["Conv", "ConvNet", "ConvNorm", "avg_pool", "conv2d", "max_pool"]

_he = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


# --- functions ----------------------------------------------------------------------------------


def conv2d(
    x: Float[Array, "B H W C"],
    kernel: Float[Array, "kh kw c O"],
    *,
    stride: int = 1,
    padding: int | None = None,
    groups: int = 1,
) -> Float[Array, "B h w O"]:
    """Compute the cross-correlation of images with a kernel.

    Args:
      x: Images.
      kernel: Weights, with ``c = C / groups`` input channels.
      stride: Stride in both directions.
      padding: Number of zeros on each side; by default ``(k - 1) // 2``, which keeps the size at stride 1.
      groups: Number of groups of channels; a group reads its own channels only.

    Returns:
      Images of size ``(H + 2 padding - k) // stride + 1``.
    """
    kh, kw, part, features = kernel.shape
    if part * groups != x.shape[3] or features % groups:
        raise ValueError(
            f"{x.shape[3]} channels and {features} features in {groups} groups do not fit a kernel of shape "
            f"{kernel.shape}"
        )
    sides = [((k - 1) // 2 if padding is None else padding,) * 2 for k in (kh, kw)]
    settings = {"stride": stride, "sides": tuple(sides), "groups": groups}
    if kh == kw == 1:
        return _product(x, kernel, **settings)
    # Only inputs are kept, because residuals of the product are patches, nine times the image.
    product = jax.checkpoint(partial(_product, **settings))
    return jax.lax.platform_dependent(x, kernel, cpu=product, default=partial(_native, **settings))


def _native(x, kernel, *, stride, sides, groups):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        sides,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _shifts(x: Array, size: tuple[int, int], stride: int, sides: tuple[tuple[int, int], ...]) -> list[Array]:
    """Return what each position of a window of that size reads, row by row."""
    x = jnp.pad(x, ((0, 0), *sides, (0, 0)))
    b, h, w, c = x.shape
    rows, cols = ((n - k) // stride * stride + 1 for n, k in zip((h, w), size, strict=True))
    return [
        jax.lax.slice(x, (0, i, j, 0), (b, i + rows, j + cols, c), (1, stride, stride, 1))
        for i in range(size[0])
        for j in range(size[1])
    ]


def _product(x, kernel, *, stride, sides, groups):
    kh, kw, part, features = kernel.shape
    seen = _shifts(x, (kh, kw), stride, sides)
    if groups == 1:
        return jnp.concatenate(seen, axis=-1) @ kernel.reshape(-1, features)
    if part == 1 and features == groups:  # each channel alone
        return reduce(jnp.add, [y * k for y, k in zip(seen, kernel.reshape(-1, features), strict=True)])
    patches = jnp.stack(seen, axis=3).reshape(*seen[0].shape[:3], kh * kw, groups, part)
    weights = kernel.reshape(kh * kw, part, groups, features // groups)
    return jnp.einsum("bhwkgc,kcgo->bhwgo", patches, weights).reshape(*seen[0].shape[:3], features)


def _blocks(x: Array, size: int) -> Array:
    b, h, w, c = x.shape
    h, w = h // size, w // size
    if not h or not w:
        raise ValueError(
            f"images of {x.shape[1]} x {x.shape[2]} are too small to pool {size} x {size} blocks"
        )
    return x[:, : h * size, : w * size].reshape(b, h, size, w, size, c)


def max_pool(x: Float[Array, "B H W C"], size: int = 2) -> Float[Array, "B h w C"]:
    """Take the maximum of each block of ``size x size`` pixels; pixels left over at the end are dropped."""
    # Pairwise, because the gradient of the maximum of an axis was NaN on CPU in unoptimised XLA programs.
    blocks = _blocks(x, size)
    return reduce(jnp.maximum, [blocks[:, :, i, :, j] for i in range(size) for j in range(size)])


def avg_pool(x: Float[Array, "B H W C"], size: int = 2) -> Float[Array, "B h w C"]:
    """Average each block of ``size x size`` pixels; pixels left over at the end are dropped."""
    return _blocks(x, size).mean((2, 4))


# --- layers -------------------------------------------------------------------------------------


class Conv(nn.Module):
    """Convolution with learned weights; see `conv2d`.

    Attributes:
      features: Number of output channels.
      size: Size of the kernel in both directions.
      stride: Stride in both directions.
      padding: Number of zeros on each side; by default the size is kept at stride 1.
      groups: Number of groups of channels; a group reads its own channels only.
      use_bias: Whether to add a learned number to each channel.
      kernel_init: He's normal initialisation by the fan out.
      bias_init: Initialisation of the bias.
    """

    features: int
    size: int = 3
    stride: int = 1
    padding: int | None = None
    groups: int = 1
    use_bias: bool = False
    kernel_init: Callable = _he
    bias_init: Callable = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w O"]:
        """Convolve images."""
        if x.shape[-1] % self.groups:
            raise ValueError(f"{x.shape[-1]} channels cannot be cut into {self.groups} groups")
        shape = (self.size, self.size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        y = conv2d(x, kernel, stride=self.stride, padding=self.padding, groups=self.groups)
        return y + self.param("bias", self.bias_init, (self.features,)) if self.use_bias else y


def batch_norm(train: bool) -> nn.BatchNorm:
    """Return batch normalisation that forgets a tenth of its running statistics at each step."""
    return nn.BatchNorm(use_running_average=not train, momentum=0.9)


class ConvNorm(nn.Module):
    """Convolution and batch normalisation; attributes as in `Conv`."""

    features: int
    size: int = 3
    stride: int = 1
    groups: int = 1
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], *, train: bool) -> Float[Array, "B h w O"]:
        """Convolve and normalise."""
        conv = Conv(self.features, self.size, self.stride, groups=self.groups, use_bias=self.use_bias)
        return batch_norm(train)(conv(x))


# --- a small network ----------------------------------------------------------------------------

_torch = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # U(-1, 1) / sqrt(fan in)


def _uniform(bound: float) -> Callable:
    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class ConvNet(nn.Module):
    """Convolution, normalisation, ReLU and mean pooling by two, ``depth`` times, and a linear map.

    The defaults are the network of dataset distillation (Zhao, Mopuri and Bilen, "Dataset Condensation with
    Gradient Matching", ICLR 2021), with 320 010 parameters for CIFAR-10; ``ConvNet(10, width=32, depth=2)``
    suits images of 8 x 8. Taps: ``stage1`` ... after ReLU, before pooling, and ``stage1_pre`` before ReLU.

    Attributes:
      num_classes: Number of classes, the width of the output.
      width: Number of channels of every layer.
      depth: Number of layers; the image must have at least ``2**depth`` pixels in each direction.
      norm: Normalisation of each channel of an image (``"instance"``), over the batch (``"batch"``), or of
        all channels of an image together (``"layer"``); None for no normalisation.
      padding: Padding of the first convolution; 3 makes images of 32 x 32 from 28 x 28, as that paper does.
    """

    num_classes: int
    width: int = 128
    depth: int = 3
    norm: Literal["instance", "batch", "layer"] | None = "instance"
    padding: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], *, train: bool = False) -> Outputs:
        """Classify images; the embedding is the flattened last map."""
        taps = {}
        for stage in range(1, self.depth + 1):
            bound = (9 * x.shape[-1]) ** -0.5
            x = Conv(
                self.width,
                padding=self.padding if stage == 1 else 1,
                use_bias=True,
                kernel_init=_torch,
                bias_init=_uniform(bound),
            )(x)
            if self.norm == "batch":
                x = batch_norm(train)(x)
            elif self.norm is not None:
                groups = {"instance": self.width, "layer": 1}[self.norm]
                x = nn.GroupNorm(num_groups=groups, epsilon=1e-5)(x)
            taps[f"stage{stage}_pre"] = x
            x = taps[f"stage{stage}"] = nn.relu(x)
            x = avg_pool(x)
        x = x.reshape(x.shape[0], -1)
        return Outputs(Linear(self.num_classes, kernel_init=_torch)(x), x, taps)


def _sized(num_classes: int, width: int, depth: int) -> ConvNet:
    """Return the network of a width and a depth."""
    return ConvNet(num_classes, width, depth)


ENTRIES = (
    Entry(
        "convnet-*-*",
        _sized,
        "Network of dataset distillation with a width and a depth, e.g. convnet-32-2.",
        "Zhao et al. 2021",
        ("arrays",),
    ),
)
