"""Class partition: confidences, spectral clusters, and features in closed form."""

from dataclasses import replace

import jax
import numpy as np
import pytest
import scipy.special
from condense_toy import INDUCTIVE, TASK, elsewhere, same
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score
from sklearn.preprocessing import PolynomialFeatures

from jgd.condense import METHODS
from jgd.condense._cgc import (
    CGC,
    CGCX,
    OFFICIAL,
    OFFICIAL_X,
    confidence,
    cosine_graph,
    partition,
    smooth_features,
    spectral_rows,
    square_features,
)
from jgd.condense.common import budget
from jgd.data import NodeTask
from jgd.graph import adjacency, from_edges

close = np.testing.assert_allclose
KEY = jax.random.key(3)
INDEX = np.flatnonzero(TASK.train)
LABELS = TASK.labels[INDEX]
A_HAT = adjacency(TASK.graph).toarray().astype(np.float64) + np.eye(TASK.num_nodes)
A_HAT = A_HAT / np.sqrt(A_HAT.sum(1)[:, None] * A_HAT.sum(1))
HOPS = [np.linalg.matrix_power(A_HAT, t) @ TASK.graph.nodes for t in range(3)]


# --- the pieces -----------------------------------------------------------------------------------


def test_confidence():
    logits = np.asarray([[2.0, 0, 0], [0, 1, 0], [0, 3, 0], [0, 0.5, 0], [5, 0, 0]])
    labels = np.asarray([0, 1, 1, 1, 1])
    p = scipy.special.softmax(logits, axis=1)
    # The last row is said to be of class 0: it counts as the least of class 1, which is itself.
    close(confidence(logits, labels), [p[0, 0], p[1, 1], p[2, 1], p[3, 1], p[4, 1]])
    # One that is wrong, but surer of its label than a right one, counts as that one.
    logits[4] = [1.0, 0.9, -5]
    p = scipy.special.softmax(logits, axis=1)
    assert p[4, 1] > p[3, 1]
    close(confidence(logits, labels)[1:], [p[1, 1], p[2, 1], p[3, 1], p[3, 1]])
    close(confidence(logits + 1000, labels), confidence(logits, labels))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_square_features(seed, width):
    """Check 14: ``φ(u) · φ(v) = (u · v + c)²``."""
    rng = np.random.default_rng(seed)
    u, c = rng.standard_normal((5, width)), 2**-0.5
    phi = square_features(u)
    close(phi @ phi.T, (u @ u.T + c) ** 2, rtol=1e-12, atol=1e-12)
    assert phi.shape == (5, PolynomialFeatures(2).fit_transform(u).shape[1])


@pytest.mark.parametrize(("rows", "k"), [(40, 3), (9, 5)])
def test_spectral_rows(rows, k):
    """Singular vectors of the scaled features, by either Gram matrix."""
    h = np.random.default_rng(0).standard_normal((rows, 7))
    u = np.linalg.svd(h - h.mean(0))[0][:, :k]
    affinity = (u @ u.T + 2**-0.5) ** 2
    d = affinity.sum(1)
    normal = affinity / np.sqrt(d[:, None] * d)
    values, vectors = np.linalg.eigh(normal)
    close(values[-1], 1, atol=1e-9)  # the vector that is left out says nothing: it is √d
    found = spectral_rows(h, k)
    assert found.shape == (rows, k)
    close(found.T @ found, np.eye(k), atol=1e-8)
    close(np.abs(np.sum(found * vectors[:, -2 : -k - 2 : -1], axis=0)), 1, atol=1e-6)


def test_partition():
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(3), 10)
    h = 10 * np.eye(3)[groups] + 0.1 * rng.standard_normal((30, 3))
    for how in ("spectral", "kmeans"):
        found = partition(h, 3, how)
        assert len(set(zip(found.tolist(), groups.tolist(), strict=True))) == 3
        np.testing.assert_array_equal(partition(h, 30, how), np.arange(30))


def test_cosine_graph():
    h = np.asarray([[1.0, 0], [2, 0.1], [0, 1], [-1, 0], [0, 0]])
    np.testing.assert_array_equal(cosine_graph(h, 0.9), np.eye(5)[[1, 0, 4, 4, 4]] * [1, 1, 1, 1, 0])


def graph(seed, size=7):
    rng = np.random.default_rng(seed)
    a = np.triu(rng.random((size, size)) < 0.4, 1).astype(float)
    return a + a.T, rng.standard_normal((size, 3))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.05, 10))
def test_smooth_features(seed, alpha):
    """Check 10: the normal equations hold; the solution minimises what it should; α = 0 inverts Â'²."""
    a, h = graph(seed)
    loops = a + np.eye(7)
    a_hat = loops / np.sqrt(loops.sum(1)[:, None] * loops.sum(1))
    d = a.sum(1)
    inverse = np.where(d > 0, 1 / np.sqrt(np.maximum(d, 1)), 0)
    lap = np.diag((d > 0).astype(float)) - inverse[:, None] * a * inverse
    q = a_hat @ a_hat
    x = smooth_features(a, h, alpha)
    close((q.T @ q + alpha * lap) @ x, q.T @ h, atol=1e-8)

    def loss(x):
        return np.sum((q @ x - h) ** 2) + alpha * np.trace(x.T @ lap @ x)

    assert loss(x) <= min(loss(x + 0.01), loss(0.99 * x), loss(h)) + 1e-12
    if np.linalg.cond(q) < 1e6:
        close(q @ smooth_features(a, h, 0.0), h, atol=1e-6)
    theirs = smooth_features(a, h, alpha, swapped=True)
    cube = a_hat @ q
    close((cube @ cube.T + lap) @ theirs, alpha * cube.T @ h, atol=1e-6)


def test_without_edges_features_stay():
    h = np.random.default_rng(0).standard_normal((4, 3))
    close(smooth_features(np.zeros((4, 4)), h, 3.0), h)


# --- recipes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("clustering", ["spectral", "kmeans"])
def test_result_without_augmentation(clustering):
    """CGC-X by brute force from the clusters; CGC adds the graph and its features."""
    settings = {"nodes": 9, "clustering": clustering, "augment": 0.0, "temperature": 0.2}
    bare = CGCX(**settings)(KEY, TASK)
    assign = bare.extras["assign"]
    assert (assign[~TASK.train] == -1).all()
    assert (assign[INDEX] >= 0).all()
    target = np.eye(3)[LABELS]
    w = np.linalg.lstsq(sum(HOPS)[INDEX] / 3, target, rcond=None)[0]
    scores = confidence(HOPS[2][INDEX] @ w, LABELS)
    for k in range(9):
        own = assign[INDEX] == k
        weight = scipy.special.softmax(scores[own] / 0.2)
        close(bare.data.nodes[k], weight @ HOPS[2][INDEX][own], rtol=1e-4, atol=1e-4)
        assert set(LABELS[own]) == {bare.targets[k]}
    np.testing.assert_array_equal(bare.targets, np.repeat(np.arange(3), budget(TASK, 9)))
    assert bare.training.adjacency == "identity"
    full = CGC(**settings, threshold=0.5, alpha=1.0)(KEY, TASK)
    a = cosine_graph(bare.data.nodes.astype(np.float64), 0.5)
    assert 0 < a.sum() < 72
    np.testing.assert_array_equal(adjacency(full.data).toarray(), a)
    close(full.data.nodes, smooth_features(a, bare.data.nodes.astype(float), 1.0), rtol=1e-3, atol=1e-4)
    assert full.training.adjacency == "raw"


def test_temperature():
    """High: plain means of clusters. Low: the most confident row."""
    means = CGCX(nodes=3, augment=0.0, temperature=1e6)(KEY, TASK)
    for c in range(3):
        close(means.data.nodes[c], HOPS[2][INDEX][np.equal(LABELS, c)].mean(0), rtol=1e-3, atol=1e-4)
    cold = CGCX(nodes=3, augment=0.0, temperature=1e-6)(KEY, TASK)
    w = np.linalg.lstsq(sum(HOPS)[INDEX] / 3, np.eye(3)[LABELS], rcond=None)[0]
    scores = confidence(HOPS[2][INDEX] @ w, LABELS)
    for c in range(3):
        members = np.flatnonzero(np.equal(LABELS, c))
        best = members[scores[members].argmax()]
        close(cold.data.nodes[c], HOPS[2][INDEX][best], rtol=1e-3, atol=1e-4)


def test_augmentation():
    """Rows of ÂX, as many as asked for, more of the classes with low F1."""
    recipe = CGCX(augment=0.5)
    rng = np.random.default_rng(0)
    counts = np.zeros(3)
    w = np.linalg.lstsq(sum(HOPS)[INDEX] / 3, np.eye(3)[LABELS], rcond=None)[0]
    f1 = f1_score(LABELS, (HOPS[1][INDEX] @ w).argmax(1), average=None)
    for _ in range(200):
        rows, labels, scores = recipe._rows(TASK, INDEX, LABELS, rng)
        assert len(rows) == len(labels) == len(scores) == len(INDEX) + len(INDEX) // 2
        counts += np.bincount(labels[len(INDEX) :], minlength=3)
    expected = (1 - f1) * np.bincount(LABELS)
    assert (1 - f1).max() > 0.01
    close(counts / counts.sum(), expected / expected.sum(), atol=0.04)
    close(rows[: len(INDEX)], HOPS[2][INDEX], rtol=1e-4, atol=1e-4)
    for row, label in zip(rows[len(INDEX) :][:5], labels[len(INDEX) :][:5], strict=True):
        gaps = np.abs(HOPS[1][INDEX] - row).max(1)
        assert gaps.min() < 1e-4
        assert LABELS[gaps.argmin()] == label


def test_a_separable_class_is_not_hard():
    """Perfect predictions: all rows are as likely, and nothing divides by zero."""
    labels = np.repeat(np.arange(2), 10)
    none = np.zeros(0, np.int32)
    x = np.eye(2, dtype=np.float32)[labels]
    task = NodeTask(graph=from_edges(none, none, x), labels=labels, train=labels >= 0, num_classes=2)
    small = CGC(nodes=4, temperature=1.0)(KEY, task)
    close(small.data.nodes, np.eye(2)[small.targets], atol=1e-5)


@pytest.mark.filterwarnings("ignore:.* no labelled training examples")
@pytest.mark.parametrize("recipe", [CGC(label_ratio=0.5), CGCX(label_ratio=0.5)])
def test_every_setting(recipe):
    once = recipe(KEY, TASK)
    same(once, recipe(KEY, TASK))
    assert np.isfinite(once.data.nodes).all()
    assert np.abs(once.data.nodes - recipe(jax.random.key(4), TASK).data.nodes).max() > 0  # rows drawn
    small = recipe(KEY, INDUCTIVE)
    same(small, recipe(KEY, elsewhere(INDUCTIVE, np.asarray(INDUCTIVE.train))))
    task = replace(TASK, train=TASK.train & (TASK.labels != 1))
    assert set(recipe(KEY, task).targets) == {0, 2}
    full = replace(recipe, label_ratio=1.0, augment=0.0)(KEY, TASK)
    np.testing.assert_array_equal(np.sort(full.extras["assign"][INDEX]), np.arange(len(INDEX)))


def test_official_settings():
    assert len(OFFICIAL) == len(OFFICIAL_X) == 15
    assert METHODS.official("cgc", "cora") == CGC()
    assert METHODS.official("cgc-x", "cora") == CGCX()
    assert METHODS.official("cgc", "citeseer", label_ratio=0.9) == CGC(
        0.9, threshold=0.75, alpha=2.0, temperature=0.5, augment=0.5
    )
    assert METHODS.official("cgc-x", "flickr", label_ratio=0.01) == CGCX(0.01, temperature=0.005, augment=0.6)
    assert METHODS.official("cgc", "elsewhere", nodes=30) == CGC(None, 30)


def test_errors():
    for options, message in (
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"alpha": -1.0}, "alpha must not be negative"),
        ({"augment": -0.1}, "augment must not be negative"),
        ({"restarts": 0}, "restarts must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            CGC(**options)
