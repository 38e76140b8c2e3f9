"""Word vectors against counts by hand and known relations; documents against a loop."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jgd.core import InMemory
from jgd.text import WordVectors, encode_documents, position_encoding, ppmi_vectors, skipgram_vectors
from jgd.text.words import _skipgram

close = np.testing.assert_allclose
# Two topics that share one word.
TOPICS = [["cat", "dog", "cat", "pet"], ["dog", "pet", "cat"], ["dog", "cat", "pet", "and"]] * 4
TOPICS += [["sun", "sky", "rain"], ["rain", "sun", "sky", "sun"], ["sky", "rain", "sun", "and"]] * 4


def loop_counts(documents, words, window):
    counts = np.zeros((len(words), len(words)))
    for document in documents:
        for i, a in enumerate(document):
            for j, b in enumerate(document):
                if i != j and abs(i - j) <= window:
                    counts[words.index(a), words.index(b)] += 1
    return counts


def cosine(vectors, a, b):
    x, y = vectors[a], vectors[b]
    return x @ y / np.linalg.norm(x) / np.linalg.norm(y)


@pytest.mark.parametrize("window", [1, 2, 9])
def test_ppmi_at_full_rank_gives_the_matrix(window):
    """With all columns, ``U S U^T`` of the absolute values is ``(M^T M)^1/2``."""
    vectors = ppmi_vectors(TOPICS, size=12, window=window)
    counts = loop_counts(TOPICS, vectors.words, window)
    p = counts / counts.sum()
    with np.errstate(divide="ignore"):
        m = np.maximum(np.log(p / np.outer(p.sum(1), p.sum(0))), 0)
    values, basis = np.linalg.eigh(m @ m.T)
    expected = basis @ np.diag(np.sqrt(np.maximum(values, 0))) @ basis.T
    table = vectors.table.astype(np.float64)
    scale = np.trace(expected) / np.trace(table @ table.T)
    close(table @ table.T * scale, expected, atol=1e-5)
    close(np.mean(np.sum(table**2, 1)), 6.0, rtol=1e-5)  # as long as an encoding of 12 numbers
    assert not table[:, len(vectors.words) :].any()


def test_ppmi_is_deterministic_and_tells_topics_apart():
    a, b = (ppmi_vectors(TOPICS, size=4, window=2) for _ in range(2))
    np.testing.assert_array_equal(a.table, b.table)
    assert cosine(a, "cat", "dog") > cosine(a, "cat", "sun") + 0.3
    again = ppmi_vectors(TOPICS[::-1], size=4, window=2)  # the order of documents does not matter
    assert again.words == a.words
    close(again.table @ again.table.T, a.table @ a.table.T, atol=1e-5)


def test_sparse_and_dense_svd_agree():
    rng = np.random.default_rng(0)
    documents = [[f"w{i}" for i in rng.integers(0, 60, 8) + 20 * (d % 3)] for d in range(80)]
    dense = ppmi_vectors(documents, size=5)
    sparse = ppmi_vectors(documents, size=5, dense_up_to=10)
    assert dense.words == sparse.words
    close(sparse.table, dense.table, atol=1e-3)


def test_skipgram_tells_topics_apart():
    history = {}
    vectors = skipgram_vectors(
        jax.random.key(0), TOPICS, size=6, window=2, steps=150, batch=128, loop=InMemory(history)
    )
    assert cosine(vectors, "cat", "dog") > cosine(vectors, "cat", "sun") + 0.5
    loss = history["words"]["loss"]
    close(loss[0], np.log(2) * 6, rtol=0.2)  # six scores at zero, less those that hit the context
    assert loss[-20:].mean() < 0.8 * loss[:5].mean()
    close(np.mean(np.sum(vectors.table**2, 1)), 3.0, rtol=1e-5)
    same = skipgram_vectors(jax.random.key(0), TOPICS, size=6, window=2, steps=150, batch=128)
    np.testing.assert_array_equal(vectors.table, same.table)


@pytest.mark.long
def test_skipgram_step_lowers_everywhere():
    from jgd.text.words import _Pairs

    alg = _skipgram(7, 6, 128, 5, 0.01)
    one = jax.numpy.linspace(0.1, 1, 9)
    data = _Pairs(jax.numpy.zeros(9, int), jax.numpy.ones(9, int), one, one[:7])
    state = alg.init(jax.random.key(0), data, None)

    def step(state, data):
        return alg.step(jax.random.key(0), jax.numpy.zeros((), int), state, data, None)

    jax.export.export(jax.jit(step), platforms=("cpu", "cuda", "tpu"))(state, data)


# --- documents ------------------------------------------------------------------------------------


def test_position_encoding():
    pe = position_encoding(7, 6)
    np.testing.assert_array_equal(pe[0], [0, 1, 0, 1, 0, 1])
    close(pe[3, 2:4], [np.sin(3 / 10_000 ** (2 / 6)), np.cos(3 / 10_000 ** (2 / 6))])
    assert position_encoding(4, 5).shape == (4, 5)
    close(np.sum(pe**2, 1), 3)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(["cat", "sun", "and", "unknown"]), max_size=9), max_size=5),
    st.booleans(),
)
def test_documents_by_a_loop(documents, positions):
    vectors = WordVectors(("cat", "sun", "and"), np.arange(12, dtype=np.float32).reshape(3, 4) - 5)
    x = encode_documents(vectors, documents, positions)
    assert x.shape == (len(documents), 4)
    for row, document in zip(x, documents, strict=True):
        known = [w for w in document if w in vectors.words]
        expected = np.zeros(4)
        for t, word in enumerate(known):
            expected += vectors[word] + positions * position_encoding(t + 1, 4)[t]
        close(row, expected / max(len(known), 1), rtol=1e-5, atol=1e-5)


def test_order_and_length():
    """One word: its vector and PE(0). Order does not matter, with positions or without; length does."""
    vectors = ppmi_vectors(TOPICS, size=6)
    close(encode_documents(vectors, [["cat"]])[0], vectors["cat"] + [0, 1, 0, 1, 0, 1], rtol=1e-6)
    for positions in (True, False):
        a, b = encode_documents(vectors, [["cat", "sun", "and"], ["and", "cat", "sun"]], positions)
        close(a, b, atol=1e-6)
    once, twice = encode_documents(vectors, [["cat"], ["cat", "cat"]])
    assert np.abs(once - twice).max() > 0.1
    once, twice = encode_documents(vectors, [["cat"], ["cat", "cat"]], positions=False)
    close(once, twice, rtol=1e-6)


def test_long_documents_have_no_positions():
    vectors = WordVectors(("a",), np.full((1, 2), 0.25, np.float32))
    long, short = encode_documents(vectors, [["a"] * 100_000, ["a"] * 99_999])
    close(long, [0.25, 0.25])
    assert np.abs(short - 0.25).max() > 1e-6


def test_what_is_refused():
    with pytest.raises(ValueError, match="no word occurs 2 times"):
        ppmi_vectors([["a", "b"]], min_count=2)
    with pytest.raises(ValueError, match="window must be at least 1"):
        ppmi_vectors(TOPICS, window=0)
    with pytest.raises(ValueError, match="no document holds two words"):
        skipgram_vectors(jax.random.key(0), [["a"], ["b"]])
    with pytest.raises(ValueError, match="negatives"):
        skipgram_vectors(jax.random.key(0), TOPICS, negatives=0)
    with pytest.raises(ValueError, match="twice"):
        WordVectors(("a", "a"), np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match="as many vectors"):
        WordVectors(("a",), np.zeros((2, 3), np.float32))
    with pytest.raises(KeyError):
        ppmi_vectors(TOPICS)["nothing"]
    lonely = ppmi_vectors([["a"], ["b"]], size=3)  # words without context
    assert not lonely.table.any()
