"""The accuracy protocol on a small task: what it honours, what it refuses, and how often it compiles."""

import copy
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scores_toy import numbers

import jgd
from jgd.core import Examples, from_linen, in_memory
from jgd.data import Condensed, Training, contextual_sbm
from jgd.evaluation import EvalConfig, Scores, cross_architecture, evaluate, trained
from jgd.graph import DenseOperator, from_adjacency, from_edges, operator, sparse_features
from jgd.nn import GCN, NETWORKS
from jgd.optim import adam_l2
from jgd.registry import Choice
from jgd.training import Splits, classifier
from jgd.training import score as accuracy_of

close = np.testing.assert_allclose
KEY = jax.random.key(7)
TASK = contextual_sbm(
    num_nodes=90, num_classes=3, num_features=6, mean_degree=6, signal=2.0, fractions=(0.4, 0.3, 0.3)
)
INDUCTIVE = replace(TASK, setting="inductive")
QUICK = EvalConfig(steps=12, learning_rate=0.1, hidden=8, dropout=0.0)  # one program serves many tests
SMALL = jgd.condense.degree(label_ratio=0.5)(KEY, TASK)
OTHER = jgd.condense.random(label_ratio=0.5)(KEY, TASK)


def gcn(small, task=TASK, config=QUICK, seeds=2, key=KEY):
    return numbers(evaluate(small, task, seeds=seeds, key=key, config=config)["gcn"])


def equal(a, b):
    for name in ("test", "val", "curve", "loss"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def near(a, b):
    """Equal up to rounding, which may turn the prediction of a node over."""
    close(a.loss, b.loss, rtol=1e-3, atol=1e-4)
    close(a.test, b.test, atol=2.1 / TASK.test.sum())
    close(a.val, b.val, atol=2.1 / TASK.val.sum())


@pytest.fixture(scope="module")
def score():
    return gcn(SMALL)


# --- forms of the call --------------------------------------------------------------------------


@pytest.mark.long
def test_reproducible(score):
    equal(score, gcn(SMALL))
    other = gcn(SMALL, key=jax.random.key(8))
    assert not np.array_equal(score.loss, other.loss)
    assert score.test.shape == score.val.shape == (2,)
    assert score.loss.shape == score.curve.shape == (12,)
    assert np.isfinite(score.curve).all()
    assert score.seconds > 0


@pytest.mark.long
def test_mapping_equals_single_calls(score):
    """A score does not depend on what is evaluated beside it."""
    both = evaluate({"other": OTHER, "small": SMALL}, TASK, seeds=2, key=KEY, config=QUICK)
    assert both.axes["set"] == ("other", "small")
    near(numbers(both["small"]["gcn"]), score)
    near(numbers(both["other"]["gcn"]), gcn(OTHER))
    twins = evaluate({"a": SMALL, "b": SMALL}, TASK, seeds=2, key=KEY, config=QUICK)
    equal(*(numbers(twins[name]["gcn"]) for name in "ab"))


def test_full_graph():
    full = gcn(TASK)
    assert full.test_mean > 0.6
    equal(full, gcn(TASK))


@pytest.mark.long
@pytest.mark.parametrize("name", ["sage", "gat"])  # that read a condensed graph each in its own way
def test_other_networks(name):
    """Sets with and without edges, normalised and not, which run at once; inductively."""
    flat = jgd.condense.average(label_ratio=0.5, hops=2)(KEY, TASK)
    normal = replace(SMALL, training=replace(SMALL.training, adjacency="normalized"))
    sets = {"raw": SMALL, "identity": flat, "normalized": normal}
    found = evaluate(sets, INDUCTIVE, networks=[name], seeds=2, key=KEY, config=QUICK)
    for _, scores in found.items():
        assert np.isfinite(scores[name].curve.loss).all()
    assert ((found.test >= 0) & (found.test <= 1)).all()


def test_score():
    s = gcn(SMALL)
    summary = s.score.summary()
    assert summary == {
        "test_mean": pytest.approx(s.test.mean()),
        "test_std": pytest.approx(s.test.std()),
        "val_mean": pytest.approx(s.val.mean()),
        "seeds": 2,
    }
    assert str(s.score) == f"{100 * s.test.mean():.1f} ± {100 * s.test.std():.1f} %"


# --- against training by hand ---------------------------------------------------------------------


def by_hand(task, own, val, test, config=QUICK):
    """The same training with plain objects: the best state on the validation nodes, and its accuracies."""
    net = GCN(task.num_classes, config.hidden, dropout=config.dropout)
    tx = adam_l2(config.learning_rate, config.weight_decay, num_steps=config.steps)
    alg = classifier(from_linen(net), tx, every=config.select_every)
    keys = lambda k: jax.random.split(k, 2)  # noqa: E731
    many = alg._replace(
        init=lambda k, d, b: jax.vmap(lambda k: alg.init(k, d, b))(keys(k)),
        step=lambda k, t, s, d, b: jax.vmap(lambda k, s: alg.step(k, t, s, d, b))(keys(k), s),
        result=jax.vmap(alg.result, in_axes=(0, None)),
    )
    nets = in_memory("hand", many, KEY, Splits(own, val), config.steps)
    return [jax.vmap(accuracy_of, in_axes=(0, None))(nets, part) for part in (val, test)]


def examples(graph, labels, mask):
    inputs = (operator(graph, **GCN.adjacency), jnp.asarray(graph.nodes))
    return Examples(inputs, jnp.asarray(labels), jnp.asarray(mask, jnp.float32))


@pytest.mark.long
def test_all_labelled_nodes_equal_the_training_subgraph():
    """Check 11: a selection of 100 % is training on the subgraph of the training nodes."""
    small = jgd.condense.degree(label_ratio=1.0)(KEY, TASK)
    part = TASK.induced(TASK.train)
    own = examples(part.graph, part.labels, part.train)
    val, test = (examples(TASK.graph, TASK.labels, m) for m in (TASK.val, TASK.test))
    found = gcn(small)
    by_val, by_test = by_hand(TASK, own, val, test)
    close(found.val, by_val, atol=1.1 / TASK.val.sum())
    close(found.test, by_test, atol=1.1 / TASK.test.sum())


def test_validation_and_test_of_one_state(score):
    """``val`` is the best of the curve, and ``test`` is measured on that state."""
    assert score.val_mean >= score.curve.max() - 1e-6
    # Where validation and test nodes are the same, the two accuracies are, too.
    same = copy.copy(TASK)
    same.__dict__["test"] = TASK.val  # which no task that is made as it should be has
    twin = gcn(SMALL, same)
    np.testing.assert_array_equal(twin.val, twin.test)
    np.testing.assert_array_equal(twin.val, score.val)


def test_validation_nodes_select_and_test_nodes_do_not():
    """Other labels of test nodes change the test accuracy and nothing else; those of validation nodes do."""
    task, wrong = TASK, (np.asarray(TASK.labels) + 1) % 3
    plain = gcn(SMALL, task, seeds=1)
    assert np.ptp(plain.curve) > 0.05  # there is something to choose
    close(plain.val[0], plain.curve.max(), atol=1e-6)
    test = gcn(SMALL, replace(task, labels=np.where(task.test, wrong, task.labels)), seeds=1)
    for name in ("val", "curve", "loss"):
        np.testing.assert_array_equal(getattr(test, name), getattr(plain, name))
    assert test.test[0] < plain.test[0]
    val = gcn(SMALL, replace(task, labels=np.where(task.val, wrong, task.labels)), seeds=1)
    np.testing.assert_array_equal(val.loss, plain.loss)
    assert val.curve.max() < plain.curve.max()
    close(val.val[0], val.curve.max(), atol=1e-6)


@pytest.mark.long
def test_inductive_splits_do_not_see_each_other():
    """Edges between the splits do not matter."""
    part = np.where(TASK.train, 0, np.where(TASK.val, 1, 2))
    inside = part[TASK.graph.senders] == part[TASK.graph.receivers]
    cut = TASK.graph._replace(
        senders=TASK.graph.senders[inside],
        receivers=TASK.graph.receivers[inside],
        n_edge=np.asarray([inside.sum()], np.int32),
    )
    left, right = (gcn(t, t) for t in (INDUCTIVE, replace(INDUCTIVE, graph=cut)))
    equal(left, right)


# --- what a condensed set says about its training -------------------------------------------------


def test_prescribed_training():
    prescription = {"steps": 6, "learning_rate": 0.03, "weight_decay": 0.0, "dropout": 0.3}
    mine = replace(SMALL, training=replace(SMALL.training, **prescription))
    prescribed = replace(QUICK, steps=6, learning_rate=0.03, weight_decay=0.0, dropout=0.3)
    found = gcn(mine)
    assert found.loss.shape == (6,)
    equal(found, gcn(SMALL, config=prescribed))
    mixed = evaluate({"mine": mine, "plain": SMALL}, TASK, seeds=2, key=KEY, config=QUICK)
    near(numbers(mixed["mine"]["gcn"]), found)
    assert mixed["plain"]["gcn"].curve.loss.shape == (12,)


def test_weights():
    """A node of weight zero has no say through its label."""
    weights = np.ones(len(SMALL.targets), np.float32)
    weights[::3] = 0
    wrong = np.where(weights == 0, (SMALL.targets + 1) % 3, SMALL.targets).astype(np.int32)
    left, right = (gcn(replace(SMALL, weights=weights, targets=t)) for t in (SMALL.targets, wrong))
    equal(left, right)
    assert not np.array_equal(left.loss, gcn(SMALL).loss)


def test_soft_targets(score):
    """Probabilities and logits of sure classes equal the classes."""
    sure = np.eye(3, dtype=np.float32)[SMALL.targets]
    near(gcn(replace(SMALL, targets=sure, training=replace(SMALL.training, targets="probabilities"))), score)
    near(gcn(replace(SMALL, targets=60 * sure, training=replace(SMALL.training, targets="logits"))), score)
    uniform = replace(
        SMALL, targets=np.full_like(sure, 1 / 3), training=replace(SMALL.training, targets="probabilities")
    )
    assert gcn(uniform).loss.min() >= np.log(3) - 1e-4


def test_missing_classes():
    """A class that was condensed away is never right, and nothing breaks."""
    kept = replace(TASK, train=TASK.train & (TASK.labels != 2))
    with pytest.warns(UserWarning, match=r"no labelled training examples of 1 of its 3 classes \(2\)"):
        small = jgd.condense.random(nodes=len(SMALL.targets))(KEY, kept)
    assert 2 not in small.targets
    assert 0.3 < gcn(small).test_mean < 0.75


def of(structure, a):
    size = len(a)
    graph = from_adjacency(a, np.zeros((size, 6), np.float32))
    return Condensed(data=graph, targets=np.zeros(size, np.int32), training=Training(adjacency=structure))


def test_structures():
    a = np.asarray([[0, 0.5, 0], [0.5, 0, 0.01], [0, 0.01, 0]], np.float32)
    loops = a + np.eye(3)
    normal = loops / np.sqrt(loops.sum(1)[:, None] * loops.sum(1))

    def dense(small, net, threshold=0.0):
        found = small.operator(**net.adjacency, threshold=threshold)
        assert isinstance(found, DenseOperator)
        return found.todense()

    gcn, sage, gat, cheb = (NETWORKS[n].make for n in ("gcn", "sage", "gat", "cheb"))
    close(dense(of("raw", a), gcn), normal, rtol=1e-6)
    close(dense(of("normalized", normal), gcn), normal, rtol=1e-6)  # not a second time
    close(dense(of("identity", a), gcn), np.eye(3))
    close(dense(of("identity", a), sage), np.eye(3))
    close(dense(of("raw", a), sage), a / a.sum(1, keepdims=True), rtol=1e-6)
    close(dense(of("raw", a), cheb), a / np.sqrt(a.sum(1)[:, None] * a.sum(1)), rtol=1e-6)
    close(dense(of("raw", a), gat), loops)
    close(dense(of("normalized", normal), gat), normal, rtol=1e-6)  # its loops are there
    attended = dense(of("raw", a), gat, 0.05) > 0
    np.testing.assert_array_equal(attended, [[1, 1, 0], [1, 1, 0], [0, 0, 1]])
    none = np.zeros(0, np.int32)
    empty = Condensed(
        data=from_edges(none, none, np.zeros((3, 6), np.float32)),
        targets=np.zeros(3),
        training=Training(adjacency="raw"),
    )
    close(dense(empty, gcn), np.eye(3))


# --- errors ---------------------------------------------------------------------------------------


def test_errors():
    wide = replace(SMALL, data=SMALL.data._replace(nodes=np.ones((len(SMALL.targets), 7), np.float32)))
    soft = replace(SMALL, targets=np.ones((len(SMALL.targets), 4), np.float32))
    for small, task, options, message in (
        (SMALL, TASK, {"networks": ["gcm"]}, "no network is called 'gcm': did you mean sgc or gcn"),
        (SMALL, TASK, {"seeds": 0}, "seeds must be at least 1"),
        (wide, TASK, {}, "has 7 features, task 'sbm' has 6"),
        (soft, TASK, {}, "labels are of 4 classes"),
        (replace(SMALL, targets=SMALL.targets + 1), TASK, {}, "labels are of 4 classes"),
        (SMALL, replace(TASK, val=None), {}, "has no val nodes"),
        (SMALL, replace(TASK, test=np.zeros(90, bool)), {}, "has no test nodes"),
        (TASK, replace(TASK, train=None), {}, None),
        (replace(TASK, train=None), replace(TASK, train=None), {}, "has no training nodes"),
        (SMALL, replace(TASK, graph=TASK.graph._replace(nodes=None)), {}, "no node features"),
        (TASK, replace(TASK, graph=TASK.graph._replace(nodes=None)), {}, "no node features"),
        (
            replace(SMALL, training=Training(predictor=Choice("magic"))),
            TASK,
            {},
            "no predictor is called 'magic'",
        ),
        (replace(SMALL, training=Training(preprocess=Choice("zca"))), TASK, {}, "changed by 'zca'"),
    ):
        if message is not None:
            with pytest.raises(ValueError, match=message):
                evaluate(small, task, **{"config": QUICK, **options})


# --- cost -----------------------------------------------------------------------------------------


@pytest.mark.long
def test_compilations(compilations):
    """One for the loop, whatever the number of sets of a size, and none in a second call."""

    def count(names):
        sets = {str(i): OTHER for i in range(names)}
        compilations.clear()
        evaluate(sets, TASK, seeds=3, key=KEY, config=replace(QUICK, hidden=5))
        return compilations["jit(_advance)"], sum(n for _, n in compilations.items())

    assert count(3)[0] == 1
    assert count(3) == (0, 0)
    again = replace(TASK, graph=TASK.graph._replace(nodes=TASK.graph.nodes + 1))
    compilations.clear()
    evaluate(
        {"a": SMALL, "b": OTHER, "c": SMALL},
        again,
        seeds=3,
        key=jax.random.key(1),
        config=replace(QUICK, hidden=5),
    )
    assert compilations["jit(_advance)"] == 0


def test_sparse_features_equal_dense_ones(score):
    sparse = replace(TASK, graph=TASK.graph._replace(nodes=sparse_features(TASK.graph.nodes)))
    near(gcn(SMALL, sparse), score)


# --- networks, thresholds, means ------------------------------------------------------------------


def test_networks_in_place_of_names(score):
    """A network of the config's width and dropout is what its name stands for."""
    net = GCN(3, hidden=8, dropout=0.0)
    equal(numbers(evaluate(SMALL, TASK, networks=[net], seeds=2, key=KEY, config=QUICK)[net]), score)


@pytest.mark.long
def test_trained_networks_are_those_that_are_tested(score):
    """And those of the whole graph are another kind of data, with the same result."""
    full = gcn(TASK)
    inputs = (operator(TASK.graph, **GCN.adjacency), jnp.asarray(TASK.graph.nodes))
    for source, found in ((SMALL, score), (TASK, full)):
        nets = trained(source, TASK, seeds=2, key=KEY, config=QUICK)
        logits = jax.vmap(lambda net: net(*inputs).logits)(nets)
        right = np.argmax(logits, axis=2) == TASK.labels
        close(right[:, TASK.test].mean(1), found.test, atol=1e-6)
        close(right[:, TASK.val].mean(1), found.val, atol=1e-6)
    prescribed = replace(SMALL, training=replace(SMALL.training, steps=1))
    once, quick = (trained(s, TASK, seeds=2, key=KEY, config=QUICK) for s in (prescribed, SMALL))
    leaves = (jax.tree.leaves(n.params) for n in (once, quick))
    assert not all(np.array_equal(a, b) for a, b in zip(*leaves, strict=True))


@pytest.mark.long
def test_thresholded_networks(score):
    """Weights below the threshold are no edges for the networks that the config names."""
    size = len(SMALL.targets)
    a = operator(SMALL.data).todense()
    faint = np.where(np.eye(size) + a > 0, a, 0.3)
    dense = replace(SMALL, data=from_adjacency(np.asarray(faint, np.float32), SMALL.data.nodes))
    half = replace(QUICK, threshold=0.5, thresholded=("gat", "gcn"))
    near(gcn(dense, config=half), score)
    assert not np.allclose(gcn(dense).loss, score.loss)
    spared = replace(half, thresholded=("gat", "cheb"))
    near(gcn(dense, config=spared), gcn(dense))
    with pytest.raises(ValueError, match="no network in thresholded is called 'gta'"):
        gcn(dense, config=replace(QUICK, thresholded=("gta",)))


@pytest.mark.long
def test_cross_architecture():
    def of_means(**means):
        test = np.asarray([[[m - 0.1], [m + 0.1]] for m in means.values()])
        axes = {"network": tuple(means), "seed": (0, 1), "metric": ("accuracy",)}
        return Scores(test, test, axes, chosen={"set": ""})

    found = cross_architecture(of_means(gcn=0.8, mlp=0.5, gat=0.6))
    close(found, (np.mean([0.8, 0.5, 0.6]), np.std([0.8, 0.5, 0.6])))
    assert cross_architecture(of_means(gcn=0.8)) == (pytest.approx(0.8), 0)
