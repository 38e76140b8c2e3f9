"""k-means against scikit-learn, brute force and its own invariants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.cluster
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.datasets import load_digits

import jgd.ops
from jgd.ops import assign, kmeans, kmeans_plus_plus
from jgd.ops._kmeans import lloyd

close = np.testing.assert_allclose
DIGITS = (load_digits().data / 16).astype(np.float32)
KEY = jax.random.key(0)


def blobs():
    centers = np.random.default_rng(1).integers(-3, 4, (6, 3)).repeat(15, 0)
    return (centers + 0.4 * np.random.default_rng(0).standard_normal((90, 3))).astype(np.float32)


BLOBS = blobs()


def check(x, found, k):
    """What holds for every result: full clusters, nearest centers, the inertia that is said."""
    x, centers, labels = (np.asarray(a, np.float64) for a in (x, found.centers, found.labels))
    labels = labels.astype(int)
    assert np.bincount(labels, minlength=k).min() > 0
    assert found.centers.shape == (k, x.shape[1])
    squares = cdist(x, centers) ** 2
    scale = np.square(x - x.mean(0)).sum() / len(x) + 1e-9
    close(squares[np.arange(len(x)), labels], squares.min(1), atol=1e-4 * scale)
    close(found.inertia, squares.min(1).sum(), rtol=1e-3, atol=1e-4 * scale)


def test_lloyd_equals_sklearn():
    """From the same seeds, the same centers."""
    k = 10
    start = BLOBS[np.random.default_rng(k).choice(len(BLOBS), k, replace=False)]
    centers, history = jax.jit(lloyd, static_argnums=2)(BLOBS, start, 50, 0.0)
    theirs = sklearn.cluster.KMeans(k, init=start, n_init=1, max_iter=50, tol=0, algorithm="lloyd").fit(BLOBS)
    close(np.sort(centers, 0), np.sort(theirs.cluster_centers_, 0), rtol=1e-4, atol=1e-4)
    close(np.nanmin(history), theirs.inertia_, rtol=1e-4)


@pytest.mark.long
def test_digits_as_good_as_sklearn():
    found = kmeans(KEY, jnp.asarray(DIGITS), 10, restarts=10)
    check(DIGITS, found, 10)
    theirs = sklearn.cluster.KMeans(10, n_init=10, random_state=0).fit(DIGITS)
    assert found.inertia <= 1.01 * theirs.inertia_
    history = np.asarray(found.history)
    seen = history[~np.isnan(history)]
    assert 2 < len(seen) < 300
    assert (np.diff(seen) <= 1e-4 * seen[0] / len(DIGITS)).all()  # up to rounding
    assert found.inertia <= seen[-1] + 1e-3


def test_mini_batches_as_good_as_sklearn():
    found = kmeans(KEY, jnp.asarray(DIGITS), 20, restarts=2, batch_size=256, max_steps=100)
    check(DIGITS, found, 20)
    assert np.isnan(found.history).all()
    theirs = sklearn.cluster.MiniBatchKMeans(20, batch_size=256, n_init=2, max_iter=15, random_state=0)
    assert found.inertia <= 1.05 * theirs.fit(DIGITS).inertia_


@pytest.mark.long
def test_more_clusters_are_closer():
    x = jnp.asarray(BLOBS)
    inertia = [float(kmeans(KEY, x, k, restarts=8).inertia) for k in (5, 6)]
    assert np.all(np.diff(inertia) < 0)


def test_one_cluster_for_each_point():
    found = kmeans(KEY, jnp.asarray(BLOBS[:20]), 20, restarts=2)
    check(BLOBS[:20], found, 20)
    close(found.inertia, 0, atol=1e-5)
    assert sorted(found.labels.tolist()) == list(range(20))
    close(found.centers[found.labels], BLOBS[:20], atol=1e-5)


@pytest.mark.long
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 24))
def test_no_cluster_is_empty(seed, distinct):
    """Whatever coincides: fewer distinct points than clusters, or all of them one."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((distinct, 2)).astype(np.float32)[rng.integers(0, distinct, 24)]
    for batch_size in (None, 8):
        found = kmeans(
            jax.random.key(seed), jnp.asarray(x), 9, restarts=2, max_steps=20, batch_size=batch_size
        )
        assert np.bincount(found.labels, minlength=9).min() > 0
        assert np.isfinite(found.centers).all()
        if batch_size is None:
            check(x, found, 9)
            if len(np.unique(x, axis=0)) <= 9:
                close(found.inertia, 0, atol=1e-6)


def test_empty_clusters_move_to_the_farthest_points():
    """Seeds far from everything: each takes the farthest point of a cluster that can spare one."""
    x = np.asarray([[0.0], [1], [2], [50]], np.float32)
    start = np.asarray([[0.5], [900], [1000]], np.float32)
    centers, history = jax.jit(lloyd, static_argnums=2)(x, start, 20, 0.0)
    close(np.sort(np.ravel(centers)), [0.5, 2, 50])  # 50 alone, never a center at the origin
    seen = np.asarray(history)[~np.isnan(history)]
    assert (np.diff(seen) <= 0).all()


def test_far_from_the_origin():
    """The offset of the data does not matter."""
    near, far = (kmeans(KEY, jnp.asarray(BLOBS + offset), 6, restarts=8) for offset in (0, 1000))
    close(far.inertia, near.inertia, rtol=1e-2)
    close(np.sort(far.centers, 0) - 1000, np.sort(near.centers, 0), atol=1e-2)


def test_chunks():
    """Assigning in chunks equals assigning at once, also where the last block is not full."""
    centers = jnp.asarray(BLOBS[::9])
    labels, distances = assign(jnp.asarray(BLOBS), centers)
    squares = cdist(BLOBS, centers) ** 2
    close(labels, squares.argmin(1))
    close(distances, squares.min(1), atol=1e-5)
    chunked = assign(jnp.asarray(BLOBS), centers, chunk_size=70)
    close(chunked[0], labels)
    close(chunked[1], distances, rtol=1e-5)


def test_seeds_are_points_and_spread(rng):
    seeds = np.asarray(kmeans_plus_plus(KEY, jnp.asarray(BLOBS), 6))
    assert cdist(seeds, BLOBS).min(1).max() == 0
    assert len(np.unique(seeds, axis=0)) == 6
    ours = cdist(BLOBS, seeds).min(1).sum()
    chance = [cdist(BLOBS, rng.choice(BLOBS, 6, replace=False)).min(1).sum() for _ in range(20)]
    assert ours < np.mean(chance)


def seeds_in_numpy(key, x, k):
    """Greedy k-means++ with the same draws: the candidate that leaves the least sum of squares."""
    x, trials = x.astype(np.float64), 2 + int(np.log(k))
    k_first, k_rest = jax.random.split(key)
    chosen = [int(jax.random.randint(k_first, (), 0, len(x)))]
    for i in range(1, k):
        total = np.cumsum(cdist(x, x[chosen]).min(1) ** 2)
        draws = np.asarray(jax.random.uniform(jax.random.fold_in(k_rest, i), (trials,)), np.float64)
        candidates = np.searchsorted(total, draws * total[-1], side="right")
        left = [(cdist(x, x[[*chosen, c]]).min(1) ** 2).sum() for c in candidates]
        chosen.append(int(candidates[int(np.argmin(left))]))
    return x[chosen]


def test_seeds_are_the_best_of_those_drawn():
    """The same points as a plain loop takes; the first candidate is not always the best."""
    x = BLOBS[:40]
    run = jax.jit(kmeans_plus_plus, static_argnums=2)
    for seed in range(6):
        key = jax.random.key(seed)
        close(run(key, jnp.asarray(x), 5), seeds_in_numpy(key, x, 5), atol=1e-6)


def test_seeds_are_drawn_by_squared_distance():
    """A point far away, 83 % of all squares but 7 % of all distances and 0.1 % of the points, is found."""
    turn = 2 * np.pi * np.arange(1000) / 1000
    x = np.stack([np.append(np.cos(turn), 100), np.append(np.sin(turn), 0)], 1).astype(np.float32)
    seeds = jax.vmap(lambda key: kmeans_plus_plus(key, jnp.asarray(x), 2))(jax.random.split(KEY, 200))
    found = np.asarray((seeds[:, :, 0] > 50).any(1)).mean()
    assert found > 0.9  # one of two draws: 1 - 0.17², about 0.97


@pytest.mark.long
def test_transforms():
    """The same key gives the same clusters; keys can be vmapped."""
    keys = jax.random.split(KEY, 3)
    x = jnp.asarray(BLOBS)
    many = jax.vmap(lambda k: kmeans(k, x, 5, restarts=8))(keys)
    for i, key in enumerate(keys):
        one, again = kmeans(key, x, 5, restarts=8), kmeans(key, x, 5, restarts=8)
        jax.tree.map(np.testing.assert_array_equal, one, again)
        close(many.inertia[i], one.inertia, rtol=1e-4)


def test_errors():
    for k in (0, 91):
        with pytest.raises(ValueError, match="between 1 and the number of points, 90"):
            jgd.ops.kmeans(KEY, jnp.asarray(BLOBS), k)
    with pytest.raises(ValueError, match="restarts"):
        jgd.ops.kmeans(KEY, jnp.asarray(BLOBS), 3, restarts=0)
