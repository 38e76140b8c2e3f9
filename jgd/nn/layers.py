"""Layers for dense arrays and sparse operators."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgd.graph import Operator

__all__ = ["Dropout", "Linear", "Norm"]

Features = Float[Array, "N F"] | Operator


def _keep(key: Array, rate: float, shape: tuple[int, ...]) -> Array:
    """Draw true with probability ``1 - rate``, from as few random bits as give that rate to 1/65536.

    `jax.random.bits` of small integers is ten times slower on CPU than cutting words into pieces.
    """
    dtype, levels = (jnp.uint8, 256) if (rate * 256).is_integer() else (jnp.uint16, 65536)
    count, pieces = math.prod(shape), 4 // jnp.dtype(dtype).itemsize
    words = jax.random.bits(key, (-(-count // pieces),), jnp.uint32)
    bits = jax.lax.bitcast_convert_type(words, dtype).reshape(-1)[:count].reshape(shape)
    return bits >= min(round(rate * levels), levels - 1)


class Dropout(nn.Module):
    """Dropout: zero each number with probability ``rate`` and scale the rest; only nonzeros of an operator.

    It is off if ``train`` is false or if the model has no random key.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "..."] | Operator, *, train: bool) -> Float[Array, "..."] | Operator:
        """Drop numbers of ``x``."""
        if not 0 <= self.rate < 1:
            raise ValueError(f"the dropout rate must be in [0, 1), got {self.rate}")
        if not train or self.rate == 0 or not self.has_rng("dropout"):
            return x
        values = x.values if isinstance(x, Operator) else x
        keep = _keep(self.make_rng("dropout"), float(self.rate), values.shape)
        dropped = jnp.where(keep, values / (1 - self.rate), 0)
        return x.with_values(dropped) if isinstance(x, Operator) else dropped


class Linear(nn.Module):
    """Linear map ``x @ W + b`` of dense or sparse ``x``."""

    features: int
    use_bias: bool = True
    kernel_init: Callable = nn.initializers.glorot_uniform()
    bias_init: Callable = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: Features) -> Float[Array, "N {self.features}"]:
        """Transform features."""
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        y = x @ kernel
        return y + self.param("bias", self.bias_init, (self.features,)) if self.use_bias else y


class Norm(nn.Module):
    """Batch or layer normalisation, or none."""

    kind: Literal["batch", "layer"] | None

    @nn.compact
    def __call__(self, x: Float[Array, "N F"], *, train: bool) -> Float[Array, "N F"]:
        """Normalise features."""
        if self.kind == "batch":
            return nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        return nn.LayerNorm()(x) if self.kind == "layer" else x
