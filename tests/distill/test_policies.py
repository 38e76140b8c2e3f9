import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jgd.core import Examples
from jgd.distill.policies import Policy, chain, crop_flip, cutmix, gaussian_noise, mixup, partial_weights

KEY = jax.random.key(0)
STEP = jnp.asarray(0)


def batch(rows=12, shape=(3,), classes=4, weights=None):
    x = jax.random.normal(jax.random.key(1), (rows, *shape))
    return Examples((x,), jnp.arange(rows) % classes, weights, jnp.arange(rows))


def run(policy, given, key=KEY, classes=4):
    return policy.apply(key, STEP, given, classes)


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


def test_the_same_key_gives_the_same_batch_under_jit_and_vmap():
    given, policy = batch(), mixup(0.4, clean=0.5)
    one = run(policy, given)
    jitted = jax.jit(lambda k: run(policy, given, k).inputs[0])(KEY)
    np.testing.assert_allclose(one.inputs[0], jitted, rtol=1e-6)
    many = jax.vmap(lambda k: run(policy, given, k).inputs[0])(jnp.stack([KEY, jax.random.key(9)]))
    np.testing.assert_allclose(many[0], jitted, rtol=1e-6)
    assert np.abs(many[0] - many[1]).max() > 0.1


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
    same = Policy(lambda key, t, batch, num_classes: batch, keeps_inputs=True)
    assert chain(same, same).keeps_inputs
    assert not chain(same, mixup()).keeps_inputs
    np.testing.assert_array_equal(run(chain(same, same), batch()).inputs[0], batch().inputs[0])


def test_tokens_cannot_be_mixed():
    with pytest.raises(ValueError, match="mix embeddings"):
        run(mixup(), Examples((jnp.zeros((4, 7), int),), jnp.zeros(4, int)))
    with pytest.raises(ValueError, match=r"\[B, H, W, C\]"):
        run(cutmix(), batch())


@pytest.mark.parametrize("bad", [{"alpha": 0.0}, {"clean": 1.5}])
def test_impossible_mixtures_are_refused(bad):
    with pytest.raises(ValueError, match="alpha must be positive"):
        mixup(**bad)
