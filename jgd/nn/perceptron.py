"""Multilayer perceptron of arrays; `jgd.nn.MLP` is the one among graph networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array, Float

from jgd.core import Outputs
from jgd.nn.layers import Dropout
from jgd.registry import Entry

__all__ = ["Perceptron"]


class Perceptron(nn.Module):
    """Linear maps with ReLU in between, on flattened inputs.

    Attributes:
      num_classes: Number of classes, the width of the output.
      hidden: Widths of the hidden layers.
      dropout: Dropout rate after each hidden layer.
    """

    num_classes: int
    hidden: Sequence[int] = (128, 128)
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Float[Array | np.ndarray, "B ..."], *, train: bool) -> Outputs:
        """Return logits, the last hidden layer as embedding, and all layers as taps ``layer1``, ..."""
        h: Any = x.reshape(x.shape[0], -1)
        taps = {}
        for i, width in enumerate(self.hidden):
            h = jax.nn.relu(nn.Dense(width)(h))
            taps[f"layer{i + 1}"] = h
            h = Dropout(self.dropout)(h, train=train)
        return Outputs(nn.Dense(self.num_classes)(h), h, taps)


def _with_widths(num_classes: int, *widths: int) -> Perceptron:
    """Return a perceptron with hidden layers of these widths."""
    return Perceptron(num_classes, widths)


ENTRIES = (
    Entry("mlp-**", _with_widths, "Perceptron; mlp-64-32 has hidden layers of 64 and 32.", "", ("arrays",)),
)
