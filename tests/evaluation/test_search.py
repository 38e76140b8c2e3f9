"""The search over architectures: the grid, the two orders, and how often it compiles."""

import itertools
from dataclasses import replace

import jax
import numpy as np
import pytest

import jgd
from jgd.data import contextual_sbm
from jgd.evaluation import Architecture, EvalConfig, Scores, Search, architecture_grid, evaluate, search
from jgd.nn import APPNP, GCN, NETWORKS, SGC
from jgd.nn.zoo import members

KEY = jax.random.key(3)
TASK = contextual_sbm(
    num_nodes=90, num_classes=3, num_features=6, mean_degree=6, signal=1.2, fractions=(0.4, 0.3, 0.3)
)
QUICK = EvalConfig(steps=12, learning_rate=0.1)
SMALL = jgd.condense.average(label_ratio=0.5, hops=2)(KEY, TASK)


def test_the_grid_holds_every_size_once():
    found = architecture_grid(
        ("gcn", "sgc", "appnp"), hidden=(4, 8), layers=(1, 2), hops=(1, 3), dropout=(0.0, 0.5)
    )
    assert len(found) == len(set(found)) == 2 * 3 + 2 * 2 + 2 * 3 * 2
    gcn = {(a.hidden, a.layers, a.dropout) for a in found if a.kind == "gcn"}
    assert gcn == {(h, n, d) for (h, n), d in itertools.product([(None, 1), (4, 2), (8, 2)], (0.0, 0.5))}
    assert all(a.hidden is None and a.layers is None for a in found if a.kind == "sgc")
    assert all(a.hops is None for a in found if a.kind == "gcn")
    for name in members("nodes"):
        assert all(isinstance(a.network(3), NETWORKS[name].make) for a in architecture_grid((name,)))


def test_architectures_are_networks():
    assert Architecture("gcn", 8, 3, dropout=0.2).network(4) == GCN(4, hidden=8, layers=3, dropout=0.2)
    assert Architecture("sgc", hops=1, dropout=0.0).network(4) == SGC(4, hops=1)
    assert Architecture("appnp", hops=4).network(4) == APPNP(4, hops=4)
    assert str(Architecture("gcn", 8, 3, dropout=0.2)) == "gcn hidden=8 layers=3 dropout=0.2"
    with pytest.raises(ValueError, match="no network is called 'gcm'"):
        architecture_grid(("gcm",))
    with pytest.raises(ValueError, match="no values of layers"):
        architecture_grid(layers=())
    with pytest.raises(ValueError, match="grid is empty"):
        search(SMALL, TASK, ())


def by_hand(condensed, full, test):
    def scores(values):
        return tuple(
            Scores(
                np.asarray([[t]]),
                np.asarray([[v]]),
                {"seed": (0,), "metric": ("accuracy",)},
                chosen={"set": "", "network": "gcn"},
            )
            for v, t in zip(values, test, strict=True)
        )

    names = tuple(Architecture("gcn", hidden=i + 1) for i in range(len(test)))
    return Search(names, scores(condensed), scores(full), {"condensed": 1.0, "full": 2.0})


def tau_b(a, b):
    pairs = list(itertools.combinations(range(len(a)), 2))
    agree = sum(np.sign((a[i] - a[j]) * (b[i] - b[j])) for i, j in pairs)
    return agree / np.sqrt(sum(a[i] != a[j] for i, j in pairs) * sum(b[i] != b[j] for i, j in pairs))


def test_orders():
    rng = np.random.default_rng(0)
    a, b, test = rng.integers(0, 6, 9) / 10, rng.integers(0, 6, 9) / 10, rng.random(9)
    found = by_hand(a, b, test)
    ranks = [
        np.asarray([np.mean([r for r, v in enumerate(np.sort(x)) if v == y]) for y in x]) for x in (a, b)
    ]
    assert found.spearman == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert found.kendall == pytest.approx(tau_b(a, b))
    assert found.found == list(a).index(max(a))
    assert found.best == list(b).index(max(b))
    summary = found.summary()
    assert summary["found_test"] == test[found.found]
    assert summary["best_test"] == test[found.best]
    assert summary["mean_test"] == pytest.approx(test.mean())
    assert by_hand(a, -a, test).spearman == by_hand(a, -a, test).kendall == pytest.approx(-1)
    assert np.isnan(by_hand(a, np.ones(9), test).spearman)
    assert np.isnan(by_hand([0.5], [0.5], [0.5]).kendall)


@pytest.mark.long
def test_search(compilations):
    """The scores are those of `evaluate`; a good network is told from a useless one on both graphs."""
    nets = (Architecture("gcn", 8, dropout=0.0), Architecture("sgc", hops=2), Architecture("sgc", hops=0))
    said = []
    options = {"seeds": 2, "key": KEY, "config": QUICK}
    found = search(SMALL, TASK, nets, log=said.append, **options)
    assert compilations["jit(_advance)"] == 2 * len(nets)  # a condensed and a whole graph
    assert said == [f"{i + 1} of 3: {net}" for i, net in enumerate(nets)]
    assert min(found.seconds.values()) > 0
    known = evaluate(
        SMALL, TASK, networks=["gcn"], seeds=2, key=KEY, config=replace(QUICK, hidden=8, dropout=0.0)
    )
    np.testing.assert_array_equal(found.condensed[0].test, known["gcn"].test)
    assert found.full[2].test_mean < found.full[1].test_mean - 0.1  # edges matter here
    assert found.condensed[2].val_mean < found.condensed[1].val_mean
    assert found.found != 2
    # Several sets of a size at once share what is compiled and the scores of the whole graph.
    compilations.clear()
    other = jgd.condense.average(label_ratio=0.5)(KEY, TASK)
    both = search({"a": SMALL, "b": other}, TASK, nets[1:2], **options)
    assert compilations["jit(_advance)"] == 1
    assert both["a"].full[0] is both["b"].full[0]
    np.testing.assert_allclose(both["a"].condensed[0].test, found.condensed[1].test, atol=0.08)
