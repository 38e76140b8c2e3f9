import numpy as np
import pytest

from jgd.data import DataError, checksum, contextual_sbm, digits_knn, power_law
from jgd.data.prepare import folds, normalize_features, per_class, stratified
from jgd.graph import validate


def homophily(task):
    return (task.labels[task.graph.senders] == task.labels[task.graph.receivers]).mean()


def check_simple(task):
    graph = validate(task.graph)
    code = graph.receivers.astype(np.int64) * task.num_nodes + graph.senders
    assert (np.diff(code) > 0).all()  # sorted, no repetition
    assert (graph.senders != graph.receivers).all()
    back = graph.senders.astype(np.int64) * task.num_nodes + graph.receivers
    np.testing.assert_array_equal(np.sort(back), code)


def nearest_mean(task, x):
    """Test accuracy of the nearest class mean."""
    means = np.stack([x[task.train & (task.labels == c)].mean(0) for c in range(task.num_classes)])
    guess = (x @ means.T - (means**2).sum(1) / 2).argmax(1)
    return (guess == task.labels)[task.test].mean()


def neighbours(task):
    x = np.zeros_like(task.graph.nodes)
    np.add.at(x, task.graph.receivers, task.graph.nodes[task.graph.senders])
    return x + task.graph.nodes


@pytest.mark.parametrize("target", [0.1, 0.8, 1.0])
def test_contextual_sbm(target):
    task = contextual_sbm(3, num_nodes=3000, num_classes=5, mean_degree=8, homophily=target)
    check_simple(task)
    assert len(task.graph.senders) == 24_000
    assert abs(homophily(task) - target) < 0.02
    np.testing.assert_array_equal(np.bincount(task.labels), [600] * 5)
    assert [int(m.sum()) for m in (task.train, task.val, task.test)] == [1800, 600, 600]


def test_the_sbm_signal():
    """Features have the stated means, and averaging neighbours helps where the graph is homophilous."""
    task = contextual_sbm(0, num_nodes=4000, signal=2.0, num_features=16)
    means = np.stack([task.graph.nodes[task.labels == c].mean(0) for c in range(4)])
    np.testing.assert_allclose(np.linalg.norm(means, axis=1), 2, atol=0.2)
    np.testing.assert_allclose((task.graph.nodes - means[task.labels]).std(), 1, atol=0.02)
    weak = contextual_sbm(0, signal=0.7)
    assert nearest_mean(weak, neighbours(weak)) > nearest_mean(weak, weak.graph.nodes) + 0.1
    noise = contextual_sbm(0, signal=0.0)
    assert abs(nearest_mean(noise, noise.graph.nodes) - 0.25) < 0.08


def test_power_law():
    task = power_law(1, 20_000, 80_000, 16, 10)
    check_simple(task)
    assert len(task.graph.senders) == 160_000
    assert abs(homophily(task) - 0.65) < 0.05
    degree = np.sort(np.bincount(task.graph.senders, minlength=20_000))[::-1]
    assert degree[0] > 50 * degree.mean()
    top = np.arange(20, 1000)  # rank-size slope of p(d) ~ d^-2.5 is -1/1.5
    slope = np.polyfit(np.log(top), np.log(degree[top]), 1)[0]
    assert abs(slope + 1 / 1.5) < 0.1
    assert nearest_mean(task, neighbours(task)) > nearest_mean(task, task.graph.nodes)


def test_seeds():
    make = [lambda s: contextual_sbm(s, num_nodes=100), lambda s: power_law(s, 100, 200, 4, 3)]
    for generator in (*make, lambda s: digits_knn(seed=s)):
        assert checksum(generator(1)) == checksum(generator(1)) != checksum(generator(2))


def test_impossible_requests():
    with pytest.raises(DataError, match="cannot take"):
        contextual_sbm(0, num_nodes=10, mean_degree=12)
    with pytest.raises(DataError, match="exponent"):
        power_law(0, 10, 10, exponent=2.0)
    with pytest.raises(DataError, match="homophily"):
        contextual_sbm(0, homophily=1.5)
    with pytest.raises(DataError, match="classes"):
        contextual_sbm(0, num_nodes=3, num_classes=4)


def test_digits():
    task = digits_knn()
    check_simple(task)
    assert task.graph.nodes.shape == (1797, 64)
    assert task.graph.nodes.min() == 0
    assert task.graph.nodes.max() == 1
    assert np.bincount(task.graph.senders).min() >= 8
    assert [int(m.sum()) for m in (task.train, task.val, task.test)] == [200, 500, 1097]
    np.testing.assert_array_equal(np.bincount(task.labels[task.train]), [20] * 10)
    assert homophily(task) > 0.9
    assert len(digits_knn(3).graph.senders) < len(task.graph.senders)


# Splits


LABELS = np.repeat([0, 1, 2, -1], [50, 20, 5, 7])


def parts(masks):
    return [masks[name] for name in ("train", "val", "test")]


def test_per_class_split():
    masks = parts(per_class(LABELS, 10, val=8, test=20, seed=0))
    np.testing.assert_array_equal(np.bincount(LABELS[masks[0]]), [10, 10, 5])
    assert [int(m.sum()) for m in masks] == [25, 8, 20]
    assert np.sum(masks, axis=0).max() == 1
    assert not np.any(masks, axis=0)[LABELS < 0].any()
    masks = parts(per_class(LABELS, 2, val_per_class=3, seed=0))
    np.testing.assert_array_equal(np.bincount(LABELS[masks[1]]), [3, 3, 3])
    assert np.sum(masks) == 75


def test_stratified_split():
    masks = parts(stratified(LABELS, (0.6, 0.2, 0.2), seed=1))
    counts = [np.bincount(LABELS[m]).tolist() for m in masks]
    assert counts == [[30, 12, 3], [10, 4, 1], [10, 4, 1]]
    with pytest.raises(ValueError, match="add up to one"):
        stratified(LABELS, (0.5, 0.2, 0.2), seed=1)


def test_folds():
    known = LABELS[LABELS >= 0]
    fold = folds(known, 5, seed=2)
    for c, count in enumerate((10, 4, 1)):
        np.testing.assert_array_equal(np.bincount(fold[known == c], minlength=5), [count] * 5)
    assert not np.array_equal(fold, folds(known, 5, seed=3))


def test_normalize_features():
    x = np.array([[1, 3], [0, 0], [-1, 1]])
    np.testing.assert_allclose(normalize_features(x, "row"), [[0.25, 0.75], [0, 0], [-0.5, 0.5]])
    np.testing.assert_array_equal(normalize_features(x, None), x)
