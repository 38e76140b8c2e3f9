"""Convolutions by products and native ones agree; networks of images: sizes, taps, state, export."""

import math
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from jgd.core import from_linen
from jgd.nn import (
    VGG,
    Conv,
    ConvNet,
    MobileNetV2,
    ResNet,
    ShuffleNetV1,
    ShuffleNetV2,
    WideResNet,
    avg_pool,
    conv2d,
    max_pool,
)
from jgd.nn.mobile import _mean3, _shuffle

close = np.testing.assert_allclose


def normal(rng, *shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


def native(x, kernel, stride=1, padding=1, groups=1):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups,
    )  # fmt: skip


# size, channels, features, stride, padding, groups
SETTINGS = [
    (3, 4, 6, 1, None, 1),
    (3, 4, 6, 2, None, 1),
    (5, 2, 3, 2, 0, 1),
    (3, 6, 4, 1, 3, 2),
    (3, 6, 6, 2, None, 6),
    (3, 6, 12, 1, None, 6),
    (1, 6, 4, 2, None, 1),
    (1, 6, 4, 1, None, 2),
]


@pytest.mark.parametrize("setting", SETTINGS)
def test_products_equal_convolutions(rng, setting):
    size, channels, features, stride, padding, groups = setting
    x, kernel = normal(rng, 2, 7, 9, channels), normal(rng, size, size, channels // groups, features)
    sides = (size - 1) // 2 if padding is None else padding

    def ours(x, kernel):
        return conv2d(x, kernel, stride=stride, padding=padding, groups=groups)

    def theirs(x, kernel):
        return native(x, kernel, stride, sides, groups)

    def both(x, kernel):
        y, back = jax.vjp(ours, x, kernel)
        expected, expected_back = jax.vjp(theirs, x, kernel)
        return (y, *back(y)), (expected, *expected_back(expected))

    for a, b in zip(*jax.jit(both)(x, kernel), strict=True):
        close(a, b, atol=1e-3, rtol=1e-4)


def test_against_a_loop(rng):
    x, kernel = normal(rng, 1, 4, 5, 2), normal(rng, 3, 3, 2, 3)
    wide = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = jax.jit(conv2d)(x, kernel)
    for i in range(4):
        for j in range(5):
            close(
                y[0, i, j],
                np.einsum("ijc,ijco->o", wide[0, i : i + 3, j : j + 3], kernel),
                rtol=1e-4,
                atol=1e-5,
            )


def test_derivatives_of_all_orders(rng):
    x, kernel = normal(rng, 1, 4, 4, 2), normal(rng, 3, 3, 2, 2)

    def wave(x, kernel):
        return jnp.sin(conv2d(jnp.asarray(x), jnp.asarray(kernel), stride=2))

    check_grads(jax.jit(wave), (x, kernel), order=2, modes=("fwd", "rev"), rtol=0.02)


def test_vmapped_kernels_and_scan(rng):
    x, kernels = normal(rng, 2, 6, 6, 3), normal(rng, 3, 3, 3, 3, 3)

    @jax.jit
    def run(x, kernels):
        each = jax.vmap(conv2d, in_axes=(None, 0))(x, kernels)
        both = jax.vmap(conv2d)(jnp.stack([x] * 3), kernels)
        last, _ = jax.lax.scan(lambda x, k: (conv2d(x, k), None), x, kernels)
        expected = jnp.stack([native(x, k) for k in kernels])
        for kernel in kernels:
            x = native(x, kernel)
        return each, both, expected, last, x

    each, both, expected, last, after = run(x, kernels)
    close(each, expected, atol=1e-5)
    close(both, expected, atol=1e-5)
    close(last, after, rtol=1e-4, atol=1e-3)


def test_each_platform_gets_its_own(rng):
    """Products on CPU, convolutions elsewhere, in one exported program."""
    step = jax.jit(jax.value_and_grad(lambda k, x: jnp.mean(conv2d(x, k, stride=2) ** 2)))
    kernel, x = normal(rng, 3, 3, 2, 4), normal(rng, 2, 6, 6, 2)
    assert "stablehlo.convolution" not in step.lower(kernel, x).as_text()
    for platform in ("cuda", "tpu"):
        assert (
            "stablehlo.convolution" in jax.export.export(step, platforms=[platform])(kernel, x).mlir_module()
        )
    export = jax.export.export(step, platforms=("cpu", "cuda", "tpu"))(kernel, x)
    restored = jax.export.deserialize(export.serialize())
    for ours, theirs in zip(step(kernel, x), restored.call(kernel, x), strict=True):
        close(ours, theirs, rtol=1e-5)


def test_bad_convolutions(rng):
    with pytest.raises(ValueError, match="4 channels and 6 features in 1 groups"):
        conv2d(normal(rng, 1, 4, 4, 4), normal(rng, 3, 3, 3, 6))
    with pytest.raises(ValueError, match="cannot be cut into 3 groups"):
        Conv(6, groups=3).init(jax.random.key(0), normal(rng, 1, 4, 4, 4))


def test_pools(rng):
    x = normal(rng, 1, 5, 4, 2)
    blocks = np.asarray(x)[0, :4].reshape(2, 2, 2, 2, 2)
    close(max_pool(x)[0], blocks.max((1, 3)))
    close(avg_pool(x)[0], blocks.mean((1, 3)), rtol=1e-6)
    with pytest.raises(ValueError, match="5 x 4 are too small to pool 5 x 5"):
        max_pool(x, 5)
    wide = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    close(_mean3(x)[0, 1, 1], wide[0, 2:5, 2:5].mean((0, 1)), rtol=1e-5, atol=1e-6)


def test_shuffle():
    assert _shuffle(jnp.arange(6)[None], 2).tolist() == [[0, 3, 1, 4, 2, 5]]
    assert _shuffle(jnp.arange(6)[None], 3).tolist() == [[0, 2, 4, 1, 3, 5]]


# --- networks -------------------------------------------------------------------------------------

X4 = (32, 64, 128, 256)
# Parameters as the modules of mdistiller (github.com/megvii-research/mdistiller) count them.
SIZES = [
    (ResNet(100, 8), 83_892),
    (ResNet(100, 20), 278_324),
    (ResNet(100, 56), 861_620),
    (ResNet(100, 8, X4), 1_233_540),
    (ResNet(100, 32, X4), 7_433_860),
    (WideResNet(100, 16, 2), 703_284),
    (WideResNet(100, 40, 1), 569_780),
    (WideResNet(100, 40, 2), 2_255_156),
    (VGG(100, 8), 3_965_028),
    (VGG(100, 13), 9_462_180),
    (VGG(100, 19), 20_086_692),
    (MobileNetV2(100), 812_836),
    (ShuffleNetV1(100), 949_258),
    (ShuffleNetV2(100), 1_355_528),
    (ConvNet(10), 320_010),
]


@lru_cache
def shapes(net, size=32, channels=3):
    """Parameters, state and outputs as shapes: nothing is compiled."""
    model = from_linen(net)
    x = jnp.zeros((2, size, size, channels))

    def run(key):
        params, state = model.init(key, x)
        return params, state, model.apply(params, state, x)[0]

    return jax.eval_shape(run, jax.random.key(0))


@pytest.mark.parametrize(
    ("net", "size"), SIZES, ids=lambda v: str(v) if isinstance(v, int) else type(v).__name__
)
def test_sizes(net, size):
    params, _, outputs = shapes(net)
    assert sum(math.prod(p.shape) for p in jax.tree.leaves(params)) == size
    assert outputs.logits.shape == (2, net.num_classes)
    for name, tap in outputs.taps.items():
        assert outputs.taps[name.removesuffix("_pre").removesuffix("_sum")].shape == tap.shape


@pytest.mark.parametrize(
    ("net", "stages", "embedding"),
    [
        (ResNet(100, 8), [(32, 16), (32, 16), (16, 32), (8, 64)], 64),
        (ResNet(100, 8, X4), [(32, 32), (32, 64), (16, 128), (8, 256)], 256),
        (WideResNet(100, 16, 2), [(32, 16), (32, 32), (16, 64), (8, 128)], 128),
        (VGG(100, 8), [(32, 64), (16, 128), (8, 256), (4, 512), (4, 512)], 512),
        (MobileNetV2(100), [(16, 16), (16, 12), (8, 16), (4, 48), (2, 160)], 1280),
        (ShuffleNetV1(100), [(32, 24), (16, 240), (8, 480), (4, 960)], 960),
        (ShuffleNetV2(100), [(32, 24), (16, 116), (8, 232), (4, 464)], 1024),
    ],
)
def test_stages(net, stages, embedding):
    outputs = shapes(net)[2]
    assert [outputs.taps[f"stage{i}"].shape[2:] for i in range(len(stages))] == stages
    assert outputs.embedding.shape == (2, embedding)


def test_other_sizes_of_images():
    assert shapes(VGG(10, 8), 64)[2].taps["stage4"].shape == (2, 4, 4, 512)
    assert shapes(ConvNet(10, padding=3), 28, 1)[2].embedding.shape == (2, 2048)
    assert shapes(ConvNet(10, width=32, depth=2), 8, 1)[2].embedding.shape == (2, 128)
    assert shapes(ResNet(10, 8), 28, 1)[2].embedding.shape == (2, 64)
    with pytest.raises(ValueError, match="too small to pool"):
        shapes(ConvNet(10, depth=4), 8)


def drawn(shapes):
    """Random parameters of these shapes, without compiling an initialisation."""
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda p: jnp.asarray(rng.normal(size=p.shape) * math.prod(p.shape[:-1]) ** -0.5, p.dtype), shapes
    )


def fresh(state):
    """Batch statistics of mean 0 and variance 1."""
    return jax.tree_util.tree_map_with_path(
        lambda path, s: jnp.full(s.shape, path[-1].key == "var", s.dtype), state
    )


SMALL = [
    ResNet(5, 8, (4, 4, 6, 8)),
    WideResNet(5, 10, 1),
    VGG(5, 8, (4, 4, 6, 6, 8)),
    ShuffleNetV1(5, (36, 48, 96), (1, 1, 1)),
    ShuffleNetV2(5, 0.5, (1, 1, 1)),
    ConvNet(5, 6, 2),
    ConvNet(5, 6, 1, "batch"),
    ConvNet(5, 6, 1, None),
]


@pytest.mark.long
@pytest.mark.parametrize("net", SMALL, ids=lambda net: type(net).__name__)
def test_networks(rng, net):
    """Taps are what they say, the head reads the embedding, batch statistics are kept, gradients arrive."""
    model, x = from_linen(net), normal(rng, 4, 16, 16, 1)
    params, state, _ = shapes(net, 16, 1)
    params, state = drawn(params), fresh(state)

    def loss(params):
        outputs, after = model.apply(params, state, x, train=True)
        return jnp.mean(outputs.logits**2), (outputs, after)

    grads, (outputs, after) = jax.jit(jax.grad(loss, has_aux=True))(params)
    head = params["Linear_0"]
    close(outputs.embedding @ head["kernel"] + head["bias"], outputs.logits, rtol=1e-4, atol=1e-5)
    for name, tap in outputs.taps.items():
        if name.endswith("_pre"):
            close(outputs.taps[name.removesuffix("_pre")], np.maximum(tap, 0))
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    dead = [
        p for p, g in jax.tree_util.tree_leaves_with_path(grads) if p[-1].key == "kernel" and not np.any(g)
    ]
    assert not dead
    normed = not isinstance(net, ConvNet) or net.norm == "batch"
    assert set(state) == ({"batch_stats"} if normed else set())
    assert not normed or optax.tree.norm(optax.tree.sub(after, state)) > 0.1


@pytest.mark.slow
def test_mobile_net(rng):
    """Forward alone: seventeen blocks take long to compile."""
    net = MobileNetV2(5, 0.25, 2)
    params, state, _ = shapes(net, 16, 1)
    params = drawn(params)
    outputs, _ = jax.jit(
        lambda p: from_linen(net).apply(p, fresh(state), normal(rng, 4, 16, 16, 1), train=True)
    )(params)
    head = params["Linear_0"]
    close(outputs.embedding @ head["kernel"] + head["bias"], outputs.logits, rtol=1e-4, atol=1e-5)
    assert outputs.taps["stage4"].min() < 0  # linear ends


def test_wide_sums_are_what_the_next_block_normalises(rng):
    net, x = WideResNet(5, 10), normal(rng, 8, 16, 16, 1)
    params, state, _ = shapes(net, 16, 1)
    params = jax.tree_util.tree_map_with_path(
        lambda path, p: jnp.full(p.shape, path[-1].key == "scale", p.dtype) if p.ndim == 1 else p,
        drawn(params),
    )
    taps = jax.jit(lambda p: from_linen(net).apply(p, fresh(state), x, train=True)[0].taps)(params)
    for stage in (1, 2, 3):
        total = np.asarray(taps[f"stage{stage}_sum"], np.float64)
        normed = (total - total.mean((0, 1, 2))) / np.sqrt(total.var((0, 1, 2)) + 1e-5)
        close(taps[f"stage{stage}_pre"], normed, atol=1e-3)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (ResNet(10, 18), "6 n . 2 layers"),
        (WideResNet(10, 20), "6 n . 4 layers"),
        (VGG(10, 12), "VGG has 8, 11"),
        (ShuffleNetV2(10, 0.7), "sizes 0.5, 1.0"),
    ],
)
def test_bad_settings(net, message):
    with pytest.raises(ValueError, match=message):
        shapes(net)


def test_export(rng):
    """A training step for every platform in one program."""
    net, x = ConvNet(5, 4, 2, "batch"), normal(rng, 2, 8, 8, 3)
    model = from_linen(net)
    params, state, _ = shapes(net, 8, 3)
    params, state = drawn(params), fresh(state)

    @jax.jit
    def step(params, state, x):
        return jax.grad(lambda p: jnp.mean(model.apply(p, state, x, train=True)[0].logits ** 2))(params)

    export = jax.export.export(step, platforms=("cpu", "cuda", "tpu"))(params, state, x)
    assert export.platforms == ("cpu", "cuda", "tpu")
    ours, theirs = step(params, state, x), export.call(params, state, x)
    for a, b in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        close(a, b, rtol=1e-4, atol=1e-6)
