import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_softmax

from jgd import distill
from jgd.core import Bound, from_linen
from jgd.data import ArrayTask, contextual_sbm
from jgd.distill.data import inputs_of
from jgd.distill.scores import classified, logits_on
from jgd.evaluation import compare_students
from jgd.nn import GCN, MLP, Perceptron

INDEX = np.arange(60)
X = (np.eye(3, 4)[INDEX % 3] * 2 + 0.6 * np.random.default_rng(0).standard_normal((60, 4))).astype(np.float32)
TASK = ArrayTask(
    x=X, y=(INDEX % 3).astype(np.int32), train=INDEX < 40, test=INDEX >= 40, num_classes=3, name="blobs"
)
NET, TX = Perceptron(3, (8,)), optax.adam(1e-2)


def network(seed=0):
    model = from_linen(NET)
    return Bound(*model.init(jax.random.key(seed), X[:1]), model)


@pytest.fixture(scope="module")
def comparison():
    teacher = distill.scratch(NET, TX, steps=60, batch=20)(jax.random.key(1), TASK)
    objectives = {"labels": distill.supervised(), "wide <b>": (Perceptron(3, (12,)), distill.hinton())}
    return compare_students(objectives, NET, teacher, TASK, TX, seeds=2, steps=40, batch=20)


@pytest.mark.long
def test_scores_are_their_definitions():
    net, teacher = network(0), network(1)
    found = classified(net, TASK, teacher=teacher)
    x, y = X[40:], (INDEX % 3)[40:]
    log_q, log_p = (log_softmax(np.asarray(n(x).logits, np.float64), axis=1) for n in (net, teacher))
    np.testing.assert_allclose(found.accuracy, np.mean(log_q.argmax(1) == y), rtol=1e-6)
    np.testing.assert_allclose(found.nll, -log_q[np.arange(20), y].mean(), rtol=1e-5)
    assert found.agreement is not None
    assert found.divergence is not None
    np.testing.assert_allclose(found.agreement, np.mean(log_q.argmax(1) == log_p.argmax(1)), rtol=1e-6)
    np.testing.assert_allclose(found.divergence, np.mean((np.exp(log_p) * (log_p - log_q)).sum(1)), rtol=1e-4)


@pytest.mark.long
def test_scores_can_be_read():
    one, both = network(0), jax.tree.map(lambda *leaves: jnp.stack(leaves), network(0), network(1))
    alone = classified(one, TASK)
    assert str(alone).startswith(
        f"accuracy {100 * float(alone.accuracy):.1f} %, nll {float(alone.nll):.3f}, ece "
    )
    assert "agreement" not in str(alone)
    assert " ± " in str(classified(both, TASK, several=True, teacher=one))


@pytest.mark.long
def test_several_networks_are_scored_one_by_one():
    nets = jax.tree.map(lambda *leaves: jnp.stack(leaves), network(0), network(1))
    found = classified(nets, TASK, several=True)
    alone = [classified(network(seed), TASK) for seed in (0, 1)]
    np.testing.assert_allclose(found.nll, [one.nll for one in alone], rtol=1e-6)
    assert logits_on(nets, TASK, several=True).shape == (2, 20, 3)


@pytest.mark.long
def test_of_a_graph_only_the_nodes_of_the_split_count():
    task = contextual_sbm(num_nodes=40, num_classes=3, num_features=4, mean_degree=4, signal=2.0)
    for net in (GCN(3, hidden=4), MLP(3, hidden=4)):
        model = from_linen(net)
        inputs = inputs_of(model, task)
        bound = Bound(*model.init(jax.random.key(0), *inputs), model)
        test = np.asarray(task.test)
        right = np.asarray(bound(*inputs).logits).argmax(1) == np.asarray(task.labels)
        np.testing.assert_allclose(classified(bound, task).accuracy, right[test].mean(), rtol=1e-6)


@pytest.mark.long
def test_a_comparison_scores_all_students(comparison):
    assert [row["name"] for row in comparison.rows] == ["teacher", "labels", "wide <b>"]
    for row in comparison.rows[1:]:
        assert row["accuracy"].shape == (2,)
        assert row["accuracy"].mean() > 0.6
    np.testing.assert_allclose(np.sum(comparison.record["bins"]["labels"]["share"]), 1, rtol=1e-5)
    assert "labels" in str(comparison)


@pytest.mark.long
def test_its_numbers_are_json(comparison):
    metrics = json.loads(comparison.recorded(command="a command").json())
    assert metrics["command"] == "a command"
    assert len(metrics["rows"]) == 3


@pytest.mark.long
def test_plots_and_the_page(comparison, tmp_path):
    bars, reliability = comparison.figures
    assert (len(bars.draw().axes), len(reliability.draw().axes)) == (2, 3)
    page = comparison.recorded(command="a command").save(tmp_path / "page.html").read_text()
    assert "wide &lt;b&gt;" in page
    assert "<b>" not in page.replace("wide <b>", "")
    assert page.count("<figure") == 2
    assert "a command" in page


def test_nothing_to_compare_is_refused():
    with pytest.raises(ValueError, match="nothing to compare"):
        compare_students({}, NET, network(), TASK, TX)
    with pytest.raises(ValueError, match="seeds"):
        compare_students({"CE": distill.supervised()}, NET, network(), TASK, TX, seeds=0)
    with pytest.raises(ValueError, match="no val examples"):
        classified(network(), TASK, "val")
