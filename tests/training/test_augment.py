"""Augmentations: what they change, in what shares, and what they leave as it is."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jgd.core import Examples
from jgd.data import ArrayTask
from jgd.distill import hinton, offline, scratch
from jgd.nn import TextTransformer
from jgd.training import (
    Augmentation,
    chain,
    crop_flip,
    cutmix,
    gaussian_noise,
    mixup,
    token_dropout,
    token_swap,
)
from jgd.training.augment import partial_weights

KEY = jax.random.key(0)
STEP = jnp.asarray(0)


def batch(rows=12, shape=(3,), classes=4, weights=None):
    x = jax.random.normal(jax.random.key(1), (rows, *shape))
    return Examples((x,), jnp.arange(rows) % classes, weights, jnp.arange(rows))


def run(augment, given, key=KEY, classes=4):
    return augment.apply(key, STEP, given, classes)


@pytest.mark.long
def test_all_clean_is_a_permutation():
    given = batch()
    mixed = run(mixup(clean=1.0), given)
    assert sorted(map(tuple, np.asarray(mixed.inputs[0]))) == sorted(map(tuple, np.asarray(given.inputs[0])))
    assert set(np.unique(mixed.targets)) == {0.0, 1.0}


def test_inputs_and_labels_are_mixed_alike():
    """Inputs that are the labels stay the labels: the same weights and partners are used for both."""
    y = jax.nn.one_hot(jnp.arange(12) % 4, 4)
    mixed = run(mixup(), Examples((y,), jnp.arange(12) % 4))
    np.testing.assert_allclose(mixed.inputs[0], mixed.targets, atol=1e-6)
    np.testing.assert_allclose(mixed.targets.sum(1), 1, rtol=1e-6)


def test_an_affine_map_of_a_mixture_is_the_mixture_of_its_values():
    given = batch(shape=(3,))
    w = jax.random.normal(KEY, (3, 2))
    mapped = run(mixup(), given._replace(inputs=(given.inputs[0] @ w + 1.0,)))
    np.testing.assert_allclose(
        run(mixup(), given).inputs[0] @ w + 1.0, mapped.inputs[0], rtol=1e-4, atol=1e-5
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 1))
def test_exactly_so_many_stay_clean(seed, clean):
    weights = np.asarray(partial_weights(jax.random.key(seed), 20, 1.0, clean))
    assert (weights == 1).sum() == round(clean * 20)


@pytest.mark.long
def test_the_share_that_the_authors_leave_clean():
    """Drawn with replacement: 1 - (1 - 1/B)^int(0.9 B) of the batch, within three standard errors."""
    b, draws = 64, 400
    keys = jax.random.split(KEY, draws)
    share = jax.vmap(lambda k: jnp.mean(partial_weights(k, b, 1.0, 0.9, False) == 1))(keys)
    expected = 1 - (1 - 1 / b) ** int(0.9 * b)
    assert abs(float(share.mean()) - expected) < 3 * float(share.std()) / draws**0.5
    assert abs(expected - 0.59) < 0.01


def test_loss_weights_are_mixed_too():
    given = batch(weights=jnp.zeros(12))
    np.testing.assert_array_equal(run(mixup(), given).weights, 0)


@pytest.mark.long
def test_the_same_key_gives_the_same_batch_under_jit_and_vmap():
    given, augment = batch(), mixup(0.4, clean=0.5)
    one = run(augment, given)
    jitted = jax.jit(lambda k: run(augment, given, k).inputs[0])(KEY)
    np.testing.assert_allclose(one.inputs[0], jitted, rtol=1e-6)
    many = jax.vmap(lambda k: run(augment, given, k).inputs[0])(jnp.stack([KEY, jax.random.key(9)]))
    np.testing.assert_allclose(many[0], jitted, rtol=1e-6)
    assert np.abs(many[0] - many[1]).max() > 0.1


@pytest.mark.long
def test_cutmix_takes_a_rectangle_and_the_labels_in_proportion():
    rows = 10
    x = jnp.broadcast_to(jnp.arange(rows, dtype=float)[:, None, None, None], (rows, 8, 8, 1))
    mixed = run(cutmix(), Examples((x,), jnp.arange(rows)), classes=rows)
    for i in range(rows):
        image = np.asarray(mixed.inputs[0][i, :, :, 0])
        foreign = image != i
        np.testing.assert_allclose(mixed.targets[i, i], 1 - foreign.mean(), atol=1e-6)
        assert len(np.unique(image[foreign])) <= 1
        r, c = np.any(foreign, 1), np.any(foreign, 0)
        assert foreign.sum() == r.sum() * c.sum()


def test_crop_flip_shifts_and_mirrors():
    rows, pad = 200, 1
    x = jnp.zeros((rows, 3, 3, 1)).at[:, 1, 2, 0].set(1.0)
    moved = np.asarray(run(crop_flip(pad), Examples((x,), jnp.zeros(rows, int))).inputs[0][..., 0])
    assert set(moved.sum((1, 2))) <= {0.0, 1.0}
    columns = moved.sum((0, 1))
    assert (columns > 0).all()  # column 0 is reached by mirrored images only
    still = run(crop_flip(0, flip=False), Examples((x,), jnp.zeros(rows, int))).inputs[0]
    np.testing.assert_array_equal(still, x)


def test_noise_has_its_scale():
    given = Examples((jnp.zeros((500, 20)),), jnp.zeros(500, int))
    assert abs(float(run(gaussian_noise(0.3), given).inputs[0].std()) - 0.3) < 0.01


def test_a_chain_keeps_inputs_where_all_do():
    same = Augmentation(lambda key, t, batch, num_classes: batch, keeps_inputs=True)
    assert chain(same, same).keeps_inputs
    assert not chain(same, mixup()).keeps_inputs
    np.testing.assert_array_equal(run(chain(same, same), batch()).inputs[0], batch().inputs[0])


def texts(rows=12, length=6):
    """Text i has tokens 10 i + 1, 10 i + 2, ..., as many as i says, and label i."""
    lengths = 1 + np.arange(rows) % length
    x = 10 * np.arange(rows)[:, None] + 1 + np.arange(length)
    mask = np.arange(length) < lengths[:, None]
    return Examples((jnp.asarray(np.where(mask, x, 0)), jnp.asarray(mask)), jnp.arange(rows))


def test_texts_are_mixed_as_pairs_with_the_labels_shares():
    given = texts()
    for masked in (given, given._replace(inputs=given.inputs[:1])):
        mixed = run(mixup(clean=0.25), masked, classes=12)
        x, mask, others, others_mask, share = map(np.asarray, mixed.inputs)
        first, second = x[:, 0] // 10, others[:, 0] // 10
        np.testing.assert_array_equal(x, given.inputs[0][first])
        np.testing.assert_array_equal(others, given.inputs[0][second])
        if masked is given:
            np.testing.assert_array_equal(mask, given.inputs[1][first])
            np.testing.assert_array_equal(others_mask, given.inputs[1][second])
        else:
            assert mask.all()
        eye = np.eye(12)
        np.testing.assert_allclose(
            mixed.targets, share[:, None] * eye[first] + (1 - share[:, None]) * eye[second], atol=1e-6
        )
        assert (share == 1).sum() == 3


@pytest.mark.long
def test_a_student_learns_from_mixed_texts():
    """The whole way: two Transformers of different widths, their own embeddings mixed."""
    rng = np.random.default_rng(0)
    y = np.arange(48) % 2
    x = rng.integers(1, 5, (48, 5)) + 4 * y[:, None]  # the classes share no word
    part = np.arange(48)
    task = ArrayTask(
        x=x.astype(np.int32), y=y.astype(np.int32), mask=np.ones(x.shape, bool),
        train=part < 32, test=part >= 32, num_classes=2,
    )  # fmt: skip
    large, small = (TextTransformer(2, 9, width=w, depth=1, heads=2, length=5, dropout=0.0) for w in (12, 8))
    tx = optax.adam(1e-2)
    teacher = scratch(large, tx, steps=40, batch=16)(KEY, task)
    augment = chain(token_swap(), mixup())
    student = offline(small, teacher, hinton(), tx, steps=120, batch=16, augment=augment)(KEY, task)
    assert np.mean(student(x[part >= 32]).logits.argmax(-1) == y[part >= 32]) > 0.9


@pytest.mark.long
def test_swapped_tokens_are_the_same_tokens_next_door():
    given = texts(rows=60)
    x, mask = map(np.asarray, given.inputs)
    swapped = np.asarray(run(token_swap(0.5), given).inputs[0])
    np.testing.assert_array_equal(np.sort(swapped, 1), np.sort(x, 1))
    np.testing.assert_array_equal(swapped[~mask], 0)
    away = np.abs((swapped - 1) % 10 - np.arange(6))[mask]
    assert set(away) == {0, 1}
    np.testing.assert_array_equal(run(token_swap(0.0), given).inputs[0], x)
    whole = Examples((jnp.tile(jnp.arange(1, 7), (2000, 1)),), jnp.zeros(2000, int))
    moved = np.asarray(run(token_swap(0.3), whole).inputs[0]) != np.arange(1, 7)
    # Of two pairings one keeps the ends alone: each pair is tried in half of all texts.
    np.testing.assert_allclose(moved.mean(0), [0.15, 0.3, 0.3, 0.3, 0.3, 0.15], atol=0.03)


def test_dropped_tokens_leave_one():
    given = texts(rows=60)
    x, mask = run(token_dropout(1.0), given).inputs
    np.testing.assert_array_equal(x, given.inputs[0])
    np.testing.assert_array_equal(mask.sum(1), 1)
    assert not (np.asarray(mask) & ~np.asarray(given.inputs[1])).any()
    whole = Examples((jnp.ones((500, 40), int),), jnp.zeros(500, int))
    assert abs(float(run(token_dropout(0.2), whole).inputs[1].mean()) - 0.8) < 0.01
    assert run(token_dropout(0.0), whole).inputs[1].all()


@pytest.mark.long
def test_augmentations_say_what_they_need():
    with pytest.raises(ValueError, match="floating-point"):
        run(gaussian_noise(1.0), texts())
    for augment in (mixup(), token_swap(), token_dropout()):
        with pytest.raises(ValueError, match=r"tokens \[B, T\]"):
            run(augment, Examples((jnp.zeros((4, 7, 2), int),), jnp.zeros(4, int)))
    with pytest.raises(ValueError, match="probability"):
        token_swap(1.5)
    with pytest.raises(ValueError, match=r"\[B, H, W, C\]"):
        run(cutmix(), batch())


@pytest.mark.long
@pytest.mark.parametrize("bad", [{"alpha": 0.0}, {"clean": 1.5}])
def test_impossible_mixtures_are_refused(bad):
    with pytest.raises(ValueError, match="alpha must be positive"):
        mixup(**bad)
