r"""Vectors of words, learned from documents, and vectors of documents, computed from those of words.

ppmi_vectors        truncated SVD of positive pointwise mutual information (Levy and Goldberg, NIPS 2014):
                    ``M_wc = max(0, log (#(w, c) |D| / (#(w) #(c))))``, ``M ~ U S V^T``, vectors ``U S^1/2``.
                    Deterministic and without training; skip-gram factorises the same matrix implicitly.
skipgram_vectors    skip-gram with negative sampling (Mikolov et al., NIPS 2013):
                    ``-log s(u_c . v_w) - sum_k log s(-u_k . v_w)``, ``k ~ count^3/4``.
encode_documents    mean of a document's word vectors, each plus the sinusoidal encoding of its position.

The mean over positions separates into a mean of words and a mean of encodings, so a document's vector does
not depend on the order of its words: the encodings add only its length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.sparse as sp
import scipy.sparse.linalg
from jaxtyping import Array, Float, Int

from jgd.core import Algorithm, Context, Loop, Model, Outputs, in_memory, objective, train
from jgd.core.memo import memoized

__all__ = ["WordVectors", "encode_documents", "position_encoding", "ppmi_vectors", "skipgram_vectors"]

_LONG = 100_000  # number of words from which a document gets no positions, as in published detectors


@dataclass(frozen=True)
class WordVectors:
    """Vectors of words.

    Attributes:
      words: Words, each once.
      table: ``[V, D]`` vectors of the words.
    """

    words: tuple[str, ...]
    table: Float[np.ndarray, "V D"]

    def __post_init__(self):
        """Refuse words and vectors that do not match."""
        if self.table.ndim != 2 or len(self.table) != len(self.words):
            raise ValueError(f"{len(self.words)} words need as many vectors, got shape {self.table.shape}")
        if len(set(self.words)) != len(self.words):
            raise ValueError("a word is given twice")

    @property
    def size(self) -> int:
        """Length of a vector."""
        return self.table.shape[1]

    def __getitem__(self, word: str) -> Float[np.ndarray, " D"]:
        """Return the vector of a word; raise a `KeyError` for an unknown one."""
        if word not in self.words:
            raise KeyError(word)
        return self.table[self.words.index(word)]


# --- from documents to pairs --------------------------------------------------------------------


def _vocabulary(documents: Sequence[Sequence[str]], min_count: int) -> tuple[str, ...]:
    counts: dict[str, int] = {}
    for document in documents:
        for word in document:
            counts[word] = counts.get(word, 0) + 1
    words = tuple(sorted((w for w, n in counts.items() if n >= min_count), key=lambda w: (-counts[w], w)))
    if not words:
        raise ValueError(
            f"no word occurs {min_count} times in {len(documents)} documents: nothing to learn from"
        )
    return words


def _numbers(documents: Sequence[Sequence[str]], words: Sequence[str]) -> list[Int[np.ndarray, " n"]]:
    """Return the known words of each document by number."""
    index = {word: i for i, word in enumerate(words)}
    return [np.asarray([index[w] for w in document if w in index], np.int64) for document in documents]


def _cooccurrences(numbered: Sequence[np.ndarray], size: int, window: int) -> sp.csr_array:
    """Count how often two words stand at most ``window`` apart, ``[V, V]``, symmetric."""
    flat = np.concatenate([np.zeros(0, np.int64), *numbered])
    owner = np.repeat(np.arange(len(numbered)), [len(n) for n in numbered])
    total = sp.csr_array((size, size), dtype=np.float64)
    for gap in range(1, window + 1):
        same = owner[gap:] == owner[:-gap]
        pair = (flat[:-gap][same], flat[gap:][same])
        total = total + sp.csr_array(sp.coo_array((np.ones(len(pair[0])), pair), shape=(size, size)))
    return sp.csr_array(total + total.T)


def _check(**settings: int) -> None:
    for name, value in settings.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def _scaled(table: np.ndarray) -> np.ndarray:
    """Scale a table to the average length ``sqrt(D / 2)`` of position encodings: neither dominates."""
    length = np.sqrt(np.mean(np.sum(table**2, axis=1)))
    return np.asarray(table * (np.sqrt(table.shape[1] / 2) / (length or 1.0)), np.float32)


# --- word vectors -------------------------------------------------------------------------------


def ppmi_vectors(
    documents: Sequence[Sequence[str]],
    *,
    size: int = 30,
    window: int = 5,
    min_count: int = 1,
    dense_up_to: int = 3000,
) -> WordVectors:
    """Compute word vectors by PPMI and SVD; equal to the bit whenever they are computed on one machine.

    Columns with a singular value of zero and columns beyond the rank are zeros. The table is scaled to a root
    mean square length of ``sqrt(size / 2)``.

    Args:
      documents: Words of each document.
      size: Length of a vector.
      window: Number of words on either side that count as context.
      min_count: Least number of occurrences of a word.
      dense_up_to: Number of words up to which the SVD is dense; above, only the first `size` vectors are
        computed.

    Raises:
      ValueError: If a setting is below one, or no word is frequent.
    """
    _check(size=size, window=window, min_count=min_count, dense_up_to=dense_up_to)
    words = _vocabulary(documents, min_count)
    counts = _cooccurrences(_numbers(documents, words), len(words), window)
    marginal = np.asarray(counts.sum(axis=1)).ravel()
    coo = counts.tocoo()
    ratio = coo.data * marginal.sum() / (marginal[coo.row] * marginal[coo.col])
    keep = ratio > 1
    m = sp.csr_array(sp.coo_array((np.log(ratio[keep]), (coo.row[keep], coo.col[keep])), shape=coo.shape))
    if len(words) <= dense_up_to or size >= len(words) - 1:
        u, s, _ = np.linalg.svd(m.toarray())
    else:
        start = np.random.default_rng(0).standard_normal(len(words))
        found: Any = scipy.sparse.linalg.svds(m, k=size, v0=start)
        u, s, _ = found
        u, s = u[:, ::-1], s[::-1]
    u, s = u[:, :size], s[:size]
    u = u * np.where(u[np.argmax(np.abs(u), axis=0), np.arange(u.shape[1])] < 0, -1, 1)
    table = np.zeros((len(words), size))
    kept = s > 1e-10 * max(s[0], 1e-300)
    table[:, : len(s)] = np.where(kept, u * np.sqrt(s), 0)
    return WordVectors(words, _scaled(table))


class _Pairs(NamedTuple):
    """Data of skip-gram: pairs with their cumulative frequencies, and those of the negatives."""

    centers: Int[Array, " P"]
    contexts: Int[Array, " P"]
    cumulative: Float[Array, " P"]
    negatives: Float[Array, " V"]


@memoized
def _skipgram(vocabulary: int, size: int, batch: int, negatives: int, learning_rate: float) -> Algorithm:
    def init(key, centers, others):
        del centers, others
        table = jax.random.uniform(key, (vocabulary, size), minval=-0.5, maxval=0.5) / size
        return {"words": table, "contexts": jnp.zeros((vocabulary, size))}, {}

    def apply(params, state, centers, others, *, key=None, train=False):
        del key, train
        words, contexts = params["words"][centers], params["contexts"][others]
        return Outputs(jnp.einsum("bd,bkd->bk", words, contexts), words), state

    def prepare(key, t, data, batch_):
        del t, batch_
        k_pair, k_negative = jax.random.split(key)
        draw = jax.random.uniform(k_pair, (batch,)) * data.cumulative[-1]
        pair = jnp.clip(jnp.searchsorted(data.cumulative, draw, side="right"), 0, len(data.cumulative) - 1)
        draw = jax.random.uniform(k_negative, (batch, negatives)) * data.negatives[-1]
        noise = jnp.clip(jnp.searchsorted(data.negatives, draw, side="right"), 0, vocabulary - 1)
        others = jnp.concatenate([data.contexts[pair][:, None], noise], axis=1)
        return others, {"model": (data.centers[pair], others)}

    def loss(ctx: Context) -> Array:
        scores = ctx.outputs["model"].logits
        true, noise = scores[:, 0], scores[:, 1:]
        # A negative equal to the context carries no information and is left out.
        other = ctx.batch[:, 1:] != ctx.batch[:, :1]
        return -jnp.mean(jax.nn.log_sigmoid(true) + jnp.sum(other * jax.nn.log_sigmoid(-noise), axis=1))

    return train(Model(init, apply), objective(loss), optax.adam(learning_rate), prepare=prepare)


def skipgram_vectors(
    key: Array,
    documents: Sequence[Sequence[str]],
    *,
    size: int = 30,
    window: int = 5,
    min_count: int = 1,
    negatives: int = 5,
    steps: int = 2000,
    batch: int = 1024,
    learning_rate: float = 0.01,
    loop: Loop = in_memory,
) -> WordVectors:
    """Train word vectors by skip-gram with negative sampling.

    Pairs are drawn by their frequency in the whole text, so the cost of a step does not depend on its length.
    The table is scaled to a root mean square length of ``sqrt(size / 2)``.

    Args:
      key: Random key.
      documents: Words of each document.
      size: Length of a vector.
      window: Number of words on either side that count as context.
      min_count: Least number of occurrences of a word.
      negatives: Number of negative words for each pair.
      steps: Number of steps of Adam.
      batch: Number of pairs in a step.
      learning_rate: Learning rate of Adam.
      loop: Loop that runs the training.

    Raises:
      ValueError: If a setting is below one, or there are no frequent words or no pairs of words.
    """
    _check(size=size, window=window, min_count=min_count)
    _check(negatives=negatives, batch=batch, steps=steps)
    words = _vocabulary(documents, min_count)
    numbered = _numbers(documents, words)
    coo = _cooccurrences(numbered, len(words), window).tocoo()
    if not coo.nnz:
        raise ValueError("no document holds two words: there is no context to learn from")
    occurrences = np.bincount(np.concatenate(numbered), minlength=len(words))
    data = _Pairs(
        jnp.asarray(coo.row, jnp.int32),
        jnp.asarray(coo.col, jnp.int32),
        jnp.asarray(np.cumsum(coo.data) / coo.data.sum(), jnp.float32),
        jnp.asarray(np.cumsum(occurrences**0.75) / np.sum(occurrences**0.75), jnp.float32),
    )
    alg = _skipgram(len(words), size, batch, negatives, learning_rate)
    trained = loop("words", alg, key, data, steps)
    return WordVectors(words, _scaled(np.asarray(trained.params["words"], np.float64)))


# --- documents ----------------------------------------------------------------------------------


def position_encoding(length: int, size: int, base: float = 10_000.0) -> Float[np.ndarray, "length size"]:
    """Compute ``PE(t)_2i = sin(t base^(-2i/size))``, ``PE(t)_2i+1`` its cosine (Vaswani et al., 2017).

    Args:
      length: Number of positions.
      size: Length of an encoding.
      base: Base of the wavelengths.
    """
    angles = np.arange(length)[:, None] * base ** (-np.arange(0, size, 2) / size)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, size + size % 2)[:, :size]


def encode_documents(
    vectors: WordVectors, documents: Sequence[Sequence[str]], positions: bool = True
) -> Float[np.ndarray, "N D"]:
    """Compute ``x = mean_t (vector(word_t) + PE(t))`` over the known words of each document.

    Positions count known words only. A document without known words gives zeros; a document of 100 000 words
    or more (unknown ones included) gets no positions, as in FLASH.

    Args:
      vectors: Vectors of the words.
      documents: Words of each document.
      positions: Whether to add the position encoding.
    """
    numbered = _numbers(documents, vectors.words)
    count = np.asarray([len(n) for n in numbered], np.int64)
    owner = np.repeat(np.arange(len(numbered)), count)
    columns = np.concatenate([np.zeros(0, np.int64), *numbered])
    shape = (len(documents), len(vectors.words))
    bags = sp.csr_array(sp.coo_array((np.ones(len(columns)), (owner, columns)), shape=shape))
    x = (bags @ vectors.table.astype(np.float64)) / np.maximum(count, 1)[:, None]
    if positions:
        short = np.asarray([len(document) < _LONG for document in documents], bool) & (count > 0)
        longest = int(count[short].max(initial=0))
        means = np.cumsum(position_encoding(longest, vectors.size), axis=0)
        means /= np.arange(1, longest + 1)[:, None]
        x[short] += means[count[short] - 1]
    return x.astype(np.float32)
