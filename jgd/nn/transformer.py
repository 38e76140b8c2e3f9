"""Attention networks for token sequences and for image patches, normalised before each layer.

Taps of both: ``layer0`` is the input of the first block, ``layer1`` ... are the outputs of the blocks,
``tokens`` is the last of them, normalised, and ``query1``, ``key1``, ``value1`` ... are ``[B, heads, T, d]``
of each attention.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jgd.core import Outputs
from jgd.losses import patchify
from jgd.nn.layers import Dropout, Linear
from jgd.registry import Entry

__all__ = ["TextTransformer", "VisionTransformer"]

_small = nn.initializers.normal(0.02)


class _Attention(nn.Module):
    heads: int
    dropout: float

    @nn.compact
    def __call__(self, x, mask, *, train):
        width = x.shape[-1]
        if width % self.heads:
            raise ValueError(f"the width must be a multiple of the {self.heads} heads, got {width}")

        def project(name):
            y = nn.Dense(width, name=name)(x)
            return y.reshape(*y.shape[:2], self.heads, -1).swapaxes(1, 2)

        q, k, v = project("query"), project("key"), project("value")
        scores = jnp.einsum("bhqd,bhkd->bhqk", q, k) * q.shape[-1] ** -0.5
        scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
        if mask is not None:  # a finite number keeps rows of padding finite
            scores = jnp.where(mask[:, None, None], scores, jnp.finfo(scores.dtype).min)
        weights = Dropout(self.dropout)(jax.nn.softmax(scores).astype(x.dtype), train=train)
        y = jnp.einsum("bhqk,bhkd->bqhd", weights, v).reshape(x.shape)
        return nn.Dense(width, name="out")(y), {"query": q, "key": k, "value": v}


class _Encoder(nn.Module):
    """Blocks of attention and perceptron, each added to its input."""

    depth: int
    heads: int
    ratio: int
    dropout: float

    @nn.compact
    def __call__(self, x, mask, *, train):
        taps, width = {"layer0": x}, x.shape[-1]
        for layer in range(1, self.depth + 1):
            y, seen = _Attention(self.heads, self.dropout)(nn.LayerNorm()(x), mask, train=train)
            x = x + Dropout(self.dropout)(y, train=train)
            y = nn.gelu(nn.Dense(self.ratio * width)(nn.LayerNorm()(x)))
            x = x + Dropout(self.dropout)(nn.Dense(width)(y), train=train)
            taps |= {f"{name}{layer}": value for name, value in seen.items()} | {f"layer{layer}": x}
        taps["tokens"] = nn.LayerNorm()(x)
        return taps


class TextTransformer(nn.Module):
    """Classifier of token sequences by the mean of their last hidden states.

    The further tap ``words`` holds the embeddings of the tokens alone. Embeddings can replace tokens, and the
    embeddings of two texts can be mixed (see `jgd.training.mixup`).

    Attributes:
      num_classes: Number of classes, the width of the output.
      vocab_size: Number of tokens of the vocabulary.
      width: Width of the hidden states.
      depth: Number of blocks.
      heads: Number of attention heads; they share the width.
      ratio: Ratio of a perceptron's inner width to the width.
      length: Length of the longest sequence.
      dropout: Dropout rate on embeddings, attention weights and the outputs of layers.
    """

    num_classes: int
    vocab_size: int
    width: int = 128
    depth: int = 4
    heads: int = 4
    ratio: int = 4
    length: int = 512
    dropout: float = 0.1

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array | np.ndarray, "B T"] | Float[Array, "B T D"],
        mask: Bool[Array | np.ndarray, "B T"] | None = None,
        others: Int[Array, "B T"] | None = None,
        others_mask: Bool[Array | np.ndarray, "B T"] | None = None,
        share: Float[Array, " B"] | None = None,
        *,
        train: bool = False,
    ) -> Outputs:
        """Classify sequences.

        Args:
          tokens: Ids of the tokens, or their embeddings.
          mask: Mask of the real tokens; all by default. The content of the other positions changes nothing.
          others: Tokens of other texts to mix in. The mixture is as long as the longer text, and a text adds
            nothing at positions without a token.
          others_mask: Mask of the real tokens of the other texts.
          share: Share of the first text; the other text has the rest.
          train: Whether to apply dropout.
        """
        if tokens.shape[1] > self.length:
            raise ValueError(f"sequences of {tokens.shape[1]} tokens are longer than length={self.length}")
        embed = nn.Embed(self.vocab_size, self.width, embedding_init=_small)
        words = embed(tokens) if tokens.ndim == 2 else jnp.asarray(tokens)
        if others is not None:
            if mask is None or others_mask is None or share is None:
                raise ValueError("texts are mixed by their masks and share: give both masks and the share")
            parts = zip((words, embed(others)), (mask, others_mask), (share, 1 - share), strict=True)
            words = jnp.asarray(
                sum(jnp.where(m[:, :, None], w[:, None, None].astype(e.dtype) * e, 0) for e, m, w in parts)
            )
            # A share of one leaves the first text as it is, for any length of the other.
            mask = (mask & (share > 0)[:, None]) | (others_mask & (share < 1)[:, None])
        positions = self.param("positions", _small, (self.length, self.width))
        x = Dropout(self.dropout)(words + positions[: words.shape[1]], train=train)
        taps = _Encoder(self.depth, self.heads, self.ratio, self.dropout)(x, mask, train=train)
        last = taps["tokens"]
        if mask is None:
            pooled = last.mean(1)
        else:
            count = jnp.maximum(mask.sum(1, keepdims=True), 1)
            pooled = jnp.where(mask[..., None], last, 0).sum(1) / count
        return Outputs(Linear(self.num_classes)(pooled), pooled, taps | {"words": words})


class VisionTransformer(nn.Module):
    """Classifier of images by attention between patches (Dosovitskiy et al., ICLR 2021), pooled by the mean.

    Attributes:
      num_classes: Number of classes, the width of the output.
      patch: Number of pixels of a patch in each direction.
      width: Width of the hidden states.
      depth: Number of blocks.
      heads: Number of attention heads; they share the width.
      ratio: Ratio of a perceptron's inner width to the width.
      dropout: Dropout rate on embeddings, attention weights and the outputs of layers.
    """

    num_classes: int
    patch: int = 4
    width: int = 192
    depth: int = 6
    heads: int = 4
    ratio: int = 4
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], *, train: bool = False) -> Outputs:
        """Classify images."""
        tokens = nn.Dense(self.width)(patchify(x, self.patch))
        tokens = tokens + self.param("positions", _small, tokens.shape[1:])
        seen = Dropout(self.dropout)(tokens, train=train)
        taps = _Encoder(self.depth, self.heads, self.ratio, self.dropout)(seen, None, train=train)
        pooled = taps["tokens"].mean(1)
        return Outputs(Linear(self.num_classes)(pooled), pooled, taps)


def _of_texts(num_classes: int, width: int, depth: int, *, vocab_size: int, length: int) -> TextTransformer:
    """Return a transformer of texts with the numbers of its name first."""
    return TextTransformer(num_classes, vocab_size, width=width, depth=depth, length=length)


ENTRIES = (
    Entry(
        "transformer-*-*",
        _of_texts,
        "Attention between tokens; transformer-96-3 has 3 blocks of width 96.",
        "Vaswani et al. 2017",
        ("texts",),
    ),
)
