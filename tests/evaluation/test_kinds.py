"""Kinds of data: arrays with a real user, wrong pairs, scores with named axes, and a kind of one's own."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
from scores_toy import numbers
from sklearn.linear_model import LogisticRegression

import jgd
from jgd.condense import Herding, KCenter, Random
from jgd.data import ArrayTask, Condensed, Training, contextual_sbm
from jgd.evaluation import KINDS, EvalConfig, Scores, compare, evaluate, grid, kind_of, trained
from jgd.registry import Choice

KEY = jax.random.key(5)
NODES = contextual_sbm(num_nodes=60, num_classes=3, num_features=5, mean_degree=6, signal=2.0)
QUICK = EvalConfig(steps=60, batch_size=16, learning_rate=0.02, weight_decay=0.0, select_every=20)


def blobs(rng, count=240, **changes):
    """Three clusters in five dimensions, as bytes of images where they are asked for."""
    y = np.arange(count) % 3
    x = np.eye(3, 5)[y] * 2 + 0.7 * rng.standard_normal((count, 5))
    i = np.arange(count)
    masks = {"train": i < 120, "val": (i >= 120) & (i < 160), "test": i >= 160}
    fields = {"x": x.astype(np.float32), "y": y.astype(np.int32), "num_classes": 3, "name": "blobs"}
    return ArrayTask(**{**fields, **masks, **changes})


@pytest.fixture
def task(rng):
    return blobs(rng)


def score(small, task, config=QUICK, **options):
    return numbers(
        evaluate(small, task, networks=["mlp-16"], seeds=2, key=KEY, config=config, **options)["mlp-16"]
    )


@pytest.mark.long
def test_subsets_of_arrays_are_scored(task):
    """All examples, and coresets of them; a linear model in float64 is about as good as all."""
    x, y = np.asarray(task.x, np.float64), task.y
    linear = LogisticRegression().fit(x[task.train], y[task.train]).score(x[task.test], y[task.test])
    assert score(task, task).test_mean > linear - 0.08
    for recipe in (Random(per_class=5), Herding(per_class=5), KCenter(per_class=5)):
        small = recipe(KEY, task)
        assert np.bincount(small.targets).tolist() == [5, 5, 5]
        np.testing.assert_array_equal(small.data, task.x[small.extras["index"]])
        found = score(small, task)
        assert found.test.shape == found.val.shape == (2,)
        assert found.test_mean > 0.6
        assert np.isfinite(found.curve).sum() == 3


@pytest.mark.long
def test_the_state_that_is_best_on_validation_examples_is_tested(rng):
    task = blobs(rng)
    wrong = np.where(task.test, (task.y + 1) % 3, task.y).astype(np.int32)
    plain, other = score(task, task), score(task, replace(task, y=wrong))
    np.testing.assert_array_equal(plain.val, other.val)
    assert other.test_mean < 0.3 < plain.test_mean
    last = score(task, replace(task, val=None))  # without validation examples the last state
    assert np.isnan(last.val).all()
    assert last.test_mean > 0.6
    assert json.loads(json.dumps({"loss": last.loss.tolist()}))


@pytest.mark.long
def test_weights_and_targets_of_arrays_count(task):
    small = Random(per_class=6)(KEY, task)
    sure = np.eye(3, dtype=np.float32)[small.targets]
    soft = replace(small, targets=sure, training=Training(targets="probabilities"))
    np.testing.assert_allclose(score(soft, task).loss, score(small, task).loss, rtol=1e-4)
    half = (small.targets != 0).astype(np.float32)
    wrong = np.where(small.targets == 0, 1, small.targets).astype(np.int32)
    left, right = (score(replace(small, weights=half, targets=t), task) for t in (small.targets, wrong))
    np.testing.assert_array_equal(left.test, right.test)
    drawn = score(replace(small, weights=half), task, replace(QUICK, by_weight=True))
    assert drawn.loss[-1] < 0.7


@pytest.mark.long
def test_a_prescribed_augmentation_changes_the_batches(task):
    """Noise without scale changes nothing; a lot of it leaves nothing to learn; other kinds refuse it."""
    small = Random(per_class=6)(KEY, task)

    def noisy(scale):
        choice = Choice("gaussian-noise", {"scale": scale})
        return score(replace(small, training=replace(small.training, augment=choice)), task)

    plain = score(small, task)
    np.testing.assert_array_equal(noisy(0.0).loss, plain.loss)
    assert noisy(100.0).test_mean < plain.test_mean - 0.1
    mixed = replace(small, training=replace(small.training, augment=Choice("mixup", {"alpha": 1.0})))
    assert score(mixed, task).loss[-1] > plain.loss[-1] + 0.1  # mixtures of two classes are never certain
    nodes = Random(nodes=6)(KEY, NODES)
    with pytest.raises(ValueError, match="augmentation 'mixup', which is not for nodes"):
        evaluate(replace(nodes, training=Training(augment=Choice("mixup"))), NODES)
    with pytest.raises(ValueError, match="no augmentation is called 'mixap'"):
        evaluate(replace(nodes, training=Training(augment=Choice("mixap"))), NODES)


def test_pixels_are_scaled_alike_everywhere(rng):
    """Bytes and their floats in 0..1 are the same data, in a coreset too."""
    task = blobs(rng)
    low, high = task.x.min(), task.x.max()
    pixels = np.round(255 * (task.x - low) / (high - low)).astype(np.uint8)
    bytes_, floats = replace(task, x=pixels), replace(task, x=(pixels / np.float32(255)).astype(np.float32))
    left, right = (score(Random(per_class=6)(KEY, t), t) for t in (bytes_, floats))
    np.testing.assert_allclose(left.loss, right.loss, rtol=1e-4)
    np.testing.assert_allclose(left.test, right.test, atol=0.03)


@pytest.mark.long
def test_test_examples_are_read_in_pieces(rng):
    """More examples than fit into one piece, of a number that pieces do not divide."""
    many = blobs(rng, count=1373)
    nets = trained(Random(per_class=5)(KEY, many), many, network="mlp-16", seeds=2, key=KEY, config=QUICK)
    right = [
        np.mean(
            np.argmax(jax.tree.map(lambda leaf, i=i: leaf[i], nets)(many.x).logits, 1)[many.test]
            == many.y[many.test]
        )
        for i in range(2)
    ]
    np.testing.assert_allclose(score(Random(per_class=5)(KEY, many), many).test, right, atol=1e-6)


@pytest.mark.long
def test_comparison_and_grid_of_arrays(task):
    options = {"seeds": 2, "networks": ("mlp-16",), "config": QUICK, "key": KEY}
    found = compare(Herding(per_class=3), task, method="herding", **options)
    assert [row["name"] for row in found.rows] == ["full set", "herding", "random", "k-center"]
    assert {row["examples"] for row in found.rows[1:]} == {9}
    assert "<svg" in found.html()
    cells = grid(["random", "herding"], task, (0.05, 0.1), **options).cells
    assert [c.sizes["examples"] for c in cells] == [6] * 4 + [12] * 4
    assert all(not c.error for c in cells)


# --- wrong pairs ----------------------------------------------------------------------------------


def test_wrong_pairs_are_refused(task):
    nodes, rows = Random(nodes=6)(KEY, NODES), Random(per_class=2)(KEY, task)
    other = blobs(np.random.default_rng(0), x=np.ones((240, 4), np.float32))
    for small, real, message in (
        (task, NODES, "a ArrayTask cannot be evaluated on a NodeTask"),
        (NODES, task, "a NodeTask cannot be evaluated on a ArrayTask"),
        (rows, NODES, r"a condensed set of ndarray does not fit a NodeTask \(nodes\)"),
        (nodes, task, r"a condensed set of GraphsTuple does not fit a ArrayTask \(arrays\)"),
        (rows, other, r"have shape \[5\], those of task 'blobs' \[4\]"),
        ({}, task, "no set to evaluate"),
        (np.ones(3), task, "a ndarray cannot be evaluated"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(small, real)
    with pytest.raises(ValueError, match="evaluation takes a task"):
        kind_of("cora")
    with pytest.raises(ValueError, match="no metric to select by is called 'auc'"):
        evaluate(rows, task, config=replace(QUICK, select="auc"))
    with pytest.raises(ValueError, match="own predictor"):
        trained(replace(nodes, training=Training(predictor=Choice("sntk"))), NODES)


# --- scores ---------------------------------------------------------------------------------------


def made(sets=("a", "b"), networks=("gcn", "mlp"), metrics=("accuracy", "auc"), seeds=3):
    shape = len(sets), len(networks), seeds, len(metrics)
    test = np.arange(np.prod(shape)).reshape(shape) / 100
    axes = {"set": sets, "network": networks, "seed": tuple(range(seeds)), "metric": metrics}
    return Scores(test, test / 2, axes)


def test_axes_of_scores():
    scores = made()
    assert scores["b"]["mlp"]["auc"].test.tolist() == scores.test[1, 1, :, 1].tolist()
    assert scores["auc"]["b"]["mlp"].seeds("val").tolist() == scores.val[1, 1, :, 1].tolist()
    one = scores["a"]["gcn"]
    assert one.test_mean == pytest.approx(scores.test[0, 0, :, 0].mean())
    assert one.summary()["auc_std"] == pytest.approx(scores.test[0, 0, :, 1].std())
    assert [label for label, _ in scores.items()] == ["a", "b"]
    with pytest.raises(ValueError, match=r"several networks are left \(gcn, mlp\)"):
        scores["a"].seeds()
    with pytest.raises(ValueError, match="no set, network or metric is called 'mlq': did you mean mlp"):
        scores["mlq"]


def test_scores_print_as_a_table():
    lines = str(made(seeds=2)).splitlines()
    assert lines[0].split("  ")[-1].strip() == "mlp auc %"
    assert [line.split()[0] for line in lines[1:]] == ["a", "b"]
    assert str(made(("a",), ("gcn",), ("accuracy",), 2)) == "0.5 ± 0.5 %"
    assert "3 seeds" in repr(made())


def test_scores_as_records():
    scores = replace(made(), once=("b",))
    rows = scores.records()
    assert len(rows) == 3 * 2 * 2 + 2 * 2  # of a set that is scored once one seed counts
    assert rows[0] == {"set": "a", "network": "gcn", "seed": 0, "metric": "accuracy", "test": 0.0, "val": 0.0}
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    assert scores.to_pandas().equals(pandas.DataFrame(rows))


def test_every_kind_has_what_evaluation_needs():
    for entry in KINDS.entries():
        kind = entry.make()
        assert kind.name == entry.name
        assert entry.summary.endswith(".")
        assert kind.method in jgd.condense.METHODS.of_kind(kind.name)
        assert set(kind.baselines) <= set(jgd.condense.METHODS.of_kind(kind.name))
        assert kind.config.select in kind.metrics
        assert not kind.holds(Condensed(data="neither", targets=np.zeros(1)))
