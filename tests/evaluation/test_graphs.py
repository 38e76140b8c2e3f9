"""The protocol of graph classification: what it honours, what it refuses, and against training by hand."""

import copy
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graph_toy import TASK, task_of, together, two_hops
from scores_toy import numbers
from sklearn.metrics import roc_auc_score

import jgd
from jgd.condense._mirage import Mirage
from jgd.condense.coresets import Random
from jgd.core import from_linen, in_memory
from jgd.data import Condensed, DenseGraphs, Training
from jgd.evaluation import KINDS, EvalConfig, evaluate
from jgd.evaluation.kinds.graphs import joined, network
from jgd.graph import adjacency, operator, select_graphs
from jgd.metrics import one_vs_rest_auc
from jgd.nn.zoo import members
from jgd.optim import adam_l2
from jgd.registry import Choice
from jgd.training import classifier, graph_examples, graph_set, graph_splits

close, equal = np.testing.assert_allclose, np.testing.assert_array_equal
KEY = jax.random.key(1)
QUICK = replace(KINDS["graphs"].make().config, steps=20, hidden=8, learning_rate=0.02, select_every=5)
SMALL = Random(per_class=4)(KEY, TASK)
FOREST = Mirage(support=0.9)(KEY, TASK)


def gin(small, task=TASK, config=QUICK, seeds=2, key=KEY):
    return numbers(evaluate(small, task, seeds=seeds, key=key, config=config)["gin"])


def same(a, b):
    for name in ("test", "val", "auc", "val_auc", "curve", "loss"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def near(a, b):
    close(a.loss, b.loss, rtol=1e-3, atol=1e-4)
    close(a.auc, b.auc, atol=0.05)
    close(a.test, b.test, atol=2.1 / TASK.test.sum())


@pytest.fixture(scope="module")
def score():
    return gin(SMALL)


# --- forms of the call ----------------------------------------------------------------------------


@pytest.mark.long
def test_scores(score):
    same(score, gin(SMALL))
    same(score, numbers(jgd.evaluate(SMALL, TASK, seeds=2, key=KEY, config=QUICK)["gin"]))
    assert score.test.shape == score.auc.shape == score.val_auc.shape == (2,)
    assert score.loss.shape == score.curve.shape == (20,)
    equal(np.isfinite(score.curve), (np.arange(20) + 1) % 5 == 0)
    assert not np.array_equal(score.loss, gin(SMALL, key=jax.random.key(2)).loss)
    summary = score.score.summary()
    assert summary["auc_mean"] == pytest.approx(score.auc.mean())
    assert summary["test_mean"] == pytest.approx(score.test.mean())
    assert summary["seeds"] == 2
    assert f"{100 * score.auc.mean():.1f} ± {100 * score.auc.std():.1f}" in str(score.score)


@pytest.mark.long
def test_several_sets(score):
    found = evaluate({"a": SMALL, "b": FOREST}, TASK, seeds=2, key=KEY, config=QUICK)
    assert (found.axes["set"], found.axes["network"]) == (("a", "b"), ("gin",))
    same(numbers(found["a"]["gin"]), score)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:Random was asked for 2000 graphs")
def test_training_graphs():
    """The training split in mini-batches, and as the one batch it is where it fits."""
    whole = gin(TASK)
    everything = Random(per_class=1000)(KEY, TASK)
    sorted_ = np.argsort(everything.extras["index"])
    graphs = select_graphs(everything.data, sorted_)
    near(whole, gin(replace(everything, data=graphs, targets=everything.targets[sorted_])))
    easy = together()
    parts = gin(easy, easy, config=replace(QUICK, batch_size=8, steps=60, select_every=20, by_weight=True))
    assert parts.loss.shape == (60,)
    assert parts.auc.max() > 0.95  # a network this small may die
    assert parts.loss[-20:].mean() < 0.9 * parts.loss[:10].mean()


@pytest.mark.parametrize("name", members("graphs"))
def test_networks(name):
    """Every architecture reads graphs; the trained ones are above and below."""
    net = network(name, replace(TASK, num_classes=3), replace(QUICK, layers=3))
    graphs = select_graphs(TASK.graphs, np.arange(3))
    own = graph_set(operator(graphs, **net.encoder.adjacency), graphs, TASK.labels[:3])
    batch = graph_examples(own, jnp.arange(3), 64, 128)
    shapes, _ = jax.eval_shape(lambda k: net.init_with_output(k, *batch.inputs), KEY)
    assert shapes.logits.shape == (3, 3)
    assert shapes.embedding.shape == (3, 8)


# --- against training by hand -----------------------------------------------------------------------


@pytest.mark.long
def test_by_hand(score):
    """One network at a time, scored by scikit-learn."""
    net = network("gin", TASK, QUICK)
    sets = []
    for graphs, labels in (
        (SMALL.data, SMALL.targets),
        *((select_graphs(TASK.graphs, np.flatnonzero(m)), TASK.labels[m]) for m in (TASK.val, TASK.test)),
    ):
        sets.append(graph_set(operator(graphs, **net.encoder.adjacency), graphs, labels))
    data, batches = graph_splits(*sets, batch_size=100, steps=20, seed=0)
    alg = classifier(from_linen(net), adam_l2(0.02, 1e-3, num_steps=20), every=5, metric=one_vs_rest_auc)
    keys = lambda k: jax.random.split(k, 2)  # noqa: E731
    many = alg._replace(
        init=lambda k, d, b: jax.vmap(lambda k: alg.init(k, d, b))(keys(k)),
        step=lambda k, t, s, d, b: jax.vmap(lambda k, s: alg.step(k, t, s, d, b))(keys(k), s),
        result=jax.vmap(alg.result, in_axes=(0, None)),
    )
    nets = in_memory("hand", many, KEY, data, 20, batches)
    logits = np.asarray(jax.vmap(lambda n: n(*data.test.inputs).logits)(nets))
    truth = TASK.labels[TASK.test]
    close(score.auc, [roc_auc_score(truth, z[:, 1] - z[:, 0]) for z in logits], atol=0.02)
    close(score.test, (logits.argmax(-1) == truth).mean(1), atol=1.1 / len(truth))


@pytest.mark.long
def test_validation_selects(score):
    same = copy.copy(TASK)
    same.__dict__["test"] = TASK.val  # which no task that is made as it should be has
    twin = gin(SMALL, same)
    equal(twin.auc, twin.val_auc)
    equal(twin.val_auc, score.val_auc)
    assert score.val_auc.mean() >= np.nanmax(score.curve) - 1e-6
    by_accuracy = gin(SMALL, config=replace(QUICK, select="accuracy"))
    assert by_accuracy.val_mean >= np.nanmax(by_accuracy.curve) - 1e-6
    assert by_accuracy.val_mean >= score.val_mean - 1e-6


# --- forms of the data ------------------------------------------------------------------------------


def dense(small, slots=14, extra=0):
    """The same graphs, padded and dense, with garbage where nodes are not."""
    count = len(small.targets)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((count, slots, small.data.nodes.shape[1])).astype(np.float32)
    adj = rng.random((count, slots, slots)).astype(np.float32)
    mask = np.zeros((count, slots), bool)
    for b in range(count):
        one = select_graphs(small.data, np.asarray([b]))
        n = len(one.nodes)
        x[b, :n], adj[b, :n, :n], mask[b, :n] = one.nodes, adjacency(one).toarray(), True
    return replace(small, data=DenseGraphs(x=x, adj=adj, mask=mask))


@pytest.mark.long
def test_dense_graphs(score):
    """Nonzero weights are edges, masked nodes are not there."""
    near(gin(dense(SMALL)), score)
    graph = joined(dense(SMALL).data)
    equal(graph.n_node, SMALL.data.n_node)
    equal(graph.nodes, SMALL.data.nodes)
    equal(adjacency(graph).toarray(), adjacency(SMALL.data).toarray())
    rng = np.random.default_rng(1)
    learned = DenseGraphs(
        x=rng.standard_normal((6, 5, 8)).astype(np.float32),
        adj=rng.random((6, 5, 5)).astype(np.float32),
        mask=np.ones((6, 5), bool),
    )
    small = Condensed(data=learned, targets=np.arange(6, dtype=np.int32) % 2)
    found = evaluate(small, TASK, networks=("gcn", "gat"), seeds=1, key=KEY, config=QUICK)
    for _, one in found.items():
        assert np.isfinite(one.curve.loss).all()


def test_direction_of_dense_weights():
    """``adj[b, receiver, sender]``."""
    adj = np.zeros((1, 3, 3), np.float32)
    adj[0, 2, 1] = 0.5
    graph = joined(DenseGraphs(x=np.ones((1, 3, 2), np.float32), adj=adj, mask=np.ones((1, 3), bool)))
    assert (graph.senders.tolist(), graph.receivers.tolist(), graph.edges.tolist()) == ([1], [2], [0.5])


@pytest.mark.long
def test_stored_structure():
    """Weights that are normalised already are not normalised again; without structure there is A' = I."""

    def gcn(small):
        return numbers(evaluate(small, TASK, networks=["gcn"], seeds=1, key=KEY, config=QUICK)["gcn"])

    raw = gcn(SMALL)
    a = operator(SMALL.data, normalize="sym", self_loops=True)
    counts = np.bincount(np.repeat(np.arange(8), SMALL.data.n_node)[np.asarray(a.receivers)], minlength=8)
    weighted = SMALL.data._replace(
        edges=np.asarray(a.values),
        senders=np.asarray(a.senders),
        receivers=np.asarray(a.receivers),
        n_edge=counts.astype(np.int32),
    )
    normal = replace(SMALL, data=weighted, training=replace(SMALL.training, adjacency="normalized"))
    near(gcn(normal), raw)
    assert np.abs(gcn(replace(normal, training=SMALL.training)).loss - raw.loss).max() > 1e-3
    none = np.zeros(0, np.int32)
    bare = SMALL.data._replace(senders=none, receivers=none, n_edge=np.zeros(8, np.int32))
    flat = [gcn(replace(SMALL, data=g, training=Training(adjacency="identity"))) for g in (SMALL.data, bare)]
    near(*flat)


@pytest.mark.long
def test_roots(score):
    """Pooling reads the roots that a set, or the task itself, has."""
    all_ = replace(SMALL, extras=SMALL.extras | {"root": np.ones(len(SMALL.data.nodes), bool)})
    same(gin(all_), score)
    some = np.ones(len(SMALL.data.nodes), bool)
    some[::2] = False
    assert np.abs(gin(replace(SMALL, extras={"root": some})).loss - score.loss).max() > 1e-2
    first = np.concatenate([np.arange(n) == 0 for n in TASK.graphs.n_node])
    rooted = gin(TASK, replace(TASK, root=first))
    assert np.abs(rooted.val - gin(TASK).val).max() > 0 or np.abs(rooted.auc - gin(TASK).auc).max() > 0


@pytest.mark.long
def test_soft_targets_and_weights(score):
    hot = np.eye(2, dtype=np.float32)[SMALL.targets]
    soft = replace(SMALL, targets=hot, training=replace(SMALL.training, targets="probabilities"))
    same(gin(soft), score)
    logits = replace(SMALL, targets=40 * hot, training=replace(SMALL.training, targets="logits"))
    near(gin(logits), score)
    same(gin(replace(SMALL, weights=np.full(8, 1.0, np.float32))), score)
    one_sided = replace(SMALL, weights=(SMALL.targets == 0).astype(np.float32))
    assert gin(one_sided).loss[-1] < 0.3 * score.loss[0]


def test_prescribed_training():
    mine = replace(
        SMALL,
        training=replace(SMALL.training, steps=10, learning_rate=0.02, pooling="sum", weight_decay=1e-3),
    )
    same(gin(mine), gin(SMALL, config=replace(QUICK, steps=10)))


@pytest.mark.long
def test_more_classes():
    three = two_hops(48)
    labels = np.arange(48) % 3
    task = task_of(three.unbatch(), labels)
    found = gin(task, task, seeds=1)
    assert 0 <= found.auc_mean <= 1
    assert np.isfinite(found.loss).all()


# --- bad input --------------------------------------------------------------------------------------


def test_refused():
    with pytest.raises(ValueError, match="no network is called"):
        evaluate(SMALL, TASK, networks=["other"])
    with pytest.raises(ValueError, match="seeds"):
        gin(SMALL, seeds=0)
    with pytest.raises(ValueError, match="no test graphs"):
        gin(SMALL, replace(TASK, test=None))
    wide = SMALL.data._replace(nodes=np.ones((len(SMALL.data.nodes), 3), np.float32))
    with pytest.raises(ValueError, match="3 features"):
        gin(replace(SMALL, data=wide))
    with pytest.raises(ValueError, match="of 6 classes"):
        gin(replace(SMALL, targets=SMALL.targets + 4))
    with pytest.raises(ValueError, match="no predictor is called"):
        gin(replace(SMALL, training=Training(predictor=Choice("kernel"))))
    with pytest.raises(ValueError, match="first"):
        gin(replace(SMALL, training=Training(preprocess=Choice("zca"))))
    with pytest.raises(ValueError, match="by their mask"):
        gin(replace(dense(SMALL), extras={"root": np.ones(3, bool)}))
    with pytest.raises(ValueError, match="made from another kind of data"):
        gin(replace(SMALL, data=np.ones(3)))
    with pytest.raises(ValueError, match="no edge features"):
        joined(DenseGraphs(x=np.ones((1, 2, 1)), adj=np.ones((1, 2, 2, 3)), mask=np.ones((1, 2))))
    lonely = replace(TASK, val=TASK.val & (TASK.labels == 0))
    with pytest.raises(ValueError, match="of one class"):
        gin(SMALL, lonely)
    several = np.stack([TASK.labels, TASK.labels], 1)
    with pytest.raises(ValueError, match="several labels"):
        gin(SMALL, replace(TASK, labels=several))
    for bad in ({"steps": 0}, {"hidden": 0}, {"batch_size": 0}, {"steps": 5, "select_every": 6}):
        with pytest.raises(ValueError, match=r"must be at least|no validation check"):
            EvalConfig(**bad)


@pytest.mark.long
def test_compilations_are_shared():
    """Networks of equal settings and sets of equal padded size run the same program."""
    from jgd.core.loop import _advance  # how often it compiled is all that is asked

    gin(SMALL)
    before = _advance._cache_size()
    gin(Random(per_class=4)(jax.random.key(17), TASK))
    gin(replace(SMALL, weights=jnp.arange(8.0)))
    assert _advance._cache_size() <= before + 1
