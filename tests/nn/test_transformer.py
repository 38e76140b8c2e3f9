"""Attention networks against float64 NumPy, masks, taps, dropout, export."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgd.core import from_linen
from jgd.nn import TextTransformer, VisionTransformer

close = np.testing.assert_allclose
NET = TextTransformer(3, vocab_size=20, width=8, depth=2, heads=2, length=12)
MODEL = from_linen(NET)
TOKENS = jnp.asarray(1 + 5 * np.arange(28).reshape(4, 7) % 19, jnp.int32)
MASK = jnp.arange(7) < jnp.array([7, 5, 1, 0])[:, None]
APPLY = jax.jit(MODEL.apply, static_argnames="train")


@pytest.fixture(scope="module")
def params():
    made, state = MODEL.init(jax.random.key(0), TOKENS, MASK)
    assert state == {}
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: p + 0.1 * jnp.asarray(rng.normal(size=p.shape), p.dtype), made)  # no zeros


def layer_norm(x, p):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def dense(x, p):
    return x @ p["kernel"] + p["bias"]


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def reference(p, tokens, heads=2):
    """One text without padding, in float64."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), p)
    x = p["Embed_0"]["embedding"][tokens] + p["positions"][: len(tokens)]
    enc = p["_Encoder_0"]
    for i in range(2):
        y, a = layer_norm(x, enc[f"LayerNorm_{2 * i}"]), enc[f"_Attention_{i}"]
        q, k, v = (np.split(dense(y, a[n]), heads, axis=1) for n in ("query", "key", "value"))
        parts = []
        for h in range(heads):
            s = np.exp(q[h] @ k[h].T / np.sqrt(q[h].shape[1]))
            parts.append(s / s.sum(1, keepdims=True) @ v[h])
        x = x + dense(np.concatenate(parts, 1), a["out"])
        y = gelu(dense(layer_norm(x, enc[f"LayerNorm_{2 * i + 1}"]), enc[f"Dense_{2 * i}"]))
        x = x + dense(y, enc[f"Dense_{2 * i + 1}"])
    pooled = layer_norm(x, enc["LayerNorm_4"]).mean(0)
    return x, pooled, dense(pooled, p["Linear_0"])


@pytest.mark.long
def test_against_numpy(params):
    outputs, _ = APPLY(params, {}, TOKENS, MASK)
    for row, length in enumerate((7, 5, 1)):
        hidden, pooled, logits = reference(params, np.asarray(TOKENS[row, :length]))
        close(outputs.taps["layer2"][row, :length], hidden, rtol=1e-4, atol=1e-5)
        close(outputs.embedding[row], pooled, rtol=1e-4, atol=1e-5)
        close(outputs.logits[row], logits, rtol=1e-4, atol=1e-5)
    assert np.isfinite(outputs.logits[3]).all()  # a text of padding only


@pytest.mark.long
def test_padding_changes_nothing(params):
    outputs, _ = APPLY(params, {}, TOKENS, MASK)
    other = jnp.where(MASK, TOKENS, 19)
    close(APPLY(params, {}, other, MASK)[0].logits[:3], outputs.logits[:3], rtol=1e-5, atol=1e-6)
    longer = [jnp.pad(a, ((0, 0), (0, 4))) for a in (TOKENS, MASK)]
    close(APPLY(params, {}, *longer)[0].logits, outputs.logits, rtol=1e-4, atol=1e-6)
    close(APPLY(params, {}, TOKENS[:1])[0].logits, outputs.logits[:1], rtol=1e-5, atol=1e-6)  # no mask: all

    def loss(words):
        return jnp.sum(MODEL.apply(params, {}, words, MASK)[0].logits[:3])

    words = outputs.taps["words"]
    gradient = jax.grad(loss)(words)
    assert np.isfinite(gradient).all()
    assert not np.any(np.asarray(gradient)[~np.asarray(MASK)])


@pytest.mark.long
def test_embeddings_in_place_of_tokens(params):
    outputs, _ = APPLY(params, {}, TOKENS, MASK)
    close(APPLY(params, {}, outputs.taps["words"], MASK)[0].logits, outputs.logits, rtol=1e-5, atol=1e-6)


@pytest.mark.long
def test_taps(params):
    taps = APPLY(params, {}, TOKENS, MASK)[0].taps
    assert {name for name in taps if name.startswith("layer")} == {"layer0", "layer1", "layer2"}
    assert taps["query2"].shape == taps["value1"].shape == (4, 2, 7, 4)
    close(taps["layer0"], taps["words"] + params["positions"][:7], rtol=1e-6)


@pytest.mark.long
def test_dropout(params):
    kept = APPLY(params, {}, TOKENS, MASK)[0].logits
    close(APPLY(params, {}, TOKENS, MASK, train=True)[0].logits, kept)  # without a key
    a, b = (APPLY(params, {}, TOKENS, MASK, key=jax.random.key(i), train=True)[0].logits for i in range(2))
    assert not np.allclose(a, kept)
    assert not np.allclose(a, b)


def test_bad_inputs():
    with pytest.raises(ValueError, match="longer than length=12"):
        MODEL.init(jax.random.key(0), jnp.ones((1, 13), jnp.int32))
    with pytest.raises(ValueError, match="multiple of the 3 heads, got 8"):
        from_linen(TextTransformer(3, 20, 8, 1, 3)).init(jax.random.key(0), TOKENS)


@pytest.mark.long
def test_vision(rng):
    """Digits cut into 16 tokens of 2 x 2 pixels, which move with their positions only."""
    model = from_linen(VisionTransformer(10, 2, width=16, depth=1, heads=2))
    x = jnp.asarray(rng.random((2, 8, 8, 1)), jnp.float32)
    params, _ = model.init(jax.random.key(0), x)
    outputs, _ = model.apply(params, {}, x)
    assert outputs.taps["tokens"].shape == (2, 16, 16)
    close(outputs.embedding, outputs.taps["tokens"].mean(1), rtol=1e-4, atol=1e-6)
    turned = x.reshape(2, 4, 2, 4, 2, 1)[:, ::-1].reshape(x.shape)  # rows of patches in reverse
    order = np.arange(16).reshape(4, 4)[::-1].ravel()
    moved = {**params, "positions": params["positions"][order]}
    close(model.apply(moved, {}, turned)[0].logits, outputs.logits, rtol=1e-4, atol=1e-5)
    assert not np.allclose(model.apply(params, {}, turned)[0].logits, outputs.logits, atol=1e-5)


@pytest.mark.long
def test_export(params):
    """A training step with dropout for every platform."""

    def step(raw, params, tokens, mask):
        key = jax.random.wrap_key_data(raw)
        return jax.grad(
            lambda p: jnp.mean(MODEL.apply(p, {}, tokens, mask, key=key, train=True)[0].logits ** 2)
        )(params)

    raw = jax.random.key_data(jax.random.key(1))
    export = jax.export.export(jax.jit(step), platforms=("cpu", "cuda", "tpu"))(raw, params, TOKENS, MASK)
    assert export.platforms == ("cpu", "cuda", "tpu")
    ours, theirs = jax.jit(step)(raw, params, TOKENS, MASK), export.call(raw, params, TOKENS, MASK)
    for a, b in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.long
def test_mixed_texts(params):
    """Embeddings are mixed, each text as long as it is; a share of one or zero is that text alone."""
    others, others_mask = TOKENS[::-1], MASK[::-1]
    share = jnp.array([1.0, 0.0, 0.25, 0.6])
    mixed, _ = APPLY(params, {}, TOKENS, MASK, others, others_mask, share)
    alone, theirs = (APPLY(params, {}, *text)[0] for text in ((TOKENS, MASK), (others, others_mask)))
    close(mixed.logits[0], alone.logits[0], rtol=1e-5, atol=1e-6)
    close(mixed.logits[1], theirs.logits[1], rtol=1e-5, atol=1e-6)
    words = np.asarray(params["Embed_0"]["embedding"])
    expected = 0.25 * words[TOKENS[2]] * MASK[2][:, None] + 0.75 * words[others[2]] * others_mask[2][:, None]
    close(mixed.taps["words"][2], expected, rtol=1e-5, atol=1e-6)
    union = MASK[2] | others_mask[2]
    close(mixed.logits[2], APPLY(params, {}, expected[None], union[None])[0].logits[0], rtol=1e-4, atol=1e-5)
    back, _ = APPLY(params, {}, others, others_mask, TOKENS, MASK, 1 - share)
    close(back.logits, mixed.logits, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="both masks"):
        MODEL.apply(params, {}, TOKENS, MASK, others)
