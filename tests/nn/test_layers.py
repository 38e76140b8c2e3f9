"""Dropout, linear maps and the classifier that networks are trained with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgd.core import Examples, InMemory, from_linen
from jgd.graph import DenseOperator, SparseOperator, from_edges, operator, sparse_features
from jgd.nn import GCN, MLP, Dropout, Linear
from jgd.nn.layers import _keep
from jgd.optim import adam_l2
from jgd.training import Splits, classifier, features_for, score

close = np.testing.assert_allclose
BAG = (np.sin(np.arange(60_000.0) ** 2) > 0.985).reshape(300, 200).astype(np.float32)


def drop(x, rate, *, train=True, key=0):
    rngs = None if key is None else {"dropout": jax.random.key(key)}
    return Dropout(rate).apply({}, x, train=train, rngs=rngs)


@pytest.mark.parametrize("rate", [0.5, 0.6])  # from 8 and from 16 random bits
def test_dropout_rate_and_scale(rate):
    x = jnp.full((400, 100), 2.0)
    y = np.asarray(drop(x, rate))
    assert set(np.unique(y)) == {0, np.float32(2 / np.float32(1 - rate))}
    share = (y == 0).mean()
    assert abs(share - rate) < 4 * np.sqrt(rate * (1 - rate) / x.size)
    assert not np.array_equal(y, drop(x, rate, key=1))


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.9, 0.999999])
def test_dropout_keeps_in_proportion(rate):
    keep = _keep(jax.random.key(0), rate, (10_000,))
    assert abs(float(keep.mean()) - (1 - rate)) < 0.02


def test_dropout_of_operators():
    """Only nonzeros are dropped, at the rate they ask for; the positions stay."""
    sparse = sparse_features(BAG)
    dropped = drop(sparse, 0.5)
    assert isinstance(dropped, SparseOperator)
    assert dropped.values.shape == sparse.values.shape
    assert set(np.unique(dropped.values)) == {0, 2}
    assert abs(float(jnp.mean(dropped.values == 0)) - 0.5) < 0.04
    close(dropped.structure.cols, sparse.structure.cols)
    dense = drop(operator(jnp.asarray(BAG)), 0.5)
    assert isinstance(dense, DenseOperator)
    assert not np.asarray(dense.values)[BAG == 0].any()


def test_dropout_off():
    x = jnp.ones((3, 2))
    for off in ({"train": False}, {"key": None}):
        assert drop(x, 0.5, **off) is x
    assert drop(x, 0.0) is x
    for rate in (1.0, -0.1):
        with pytest.raises(ValueError, match="dropout rate"):
            drop(x, rate)


@pytest.mark.long
def test_dropout_in_networks():
    """A key and training together drop; the expectation is the prediction without (for a linear network)."""
    x = jnp.asarray(BAG[:30])
    a = operator(jnp.eye(30))
    model = from_linen(MLP(4, layers=1, dropout=0.5))
    params, state = model.init(jax.random.key(0), a, x)
    exact = model.apply(params, state, a, x)[0].logits
    close(model.apply(params, state, a, x, train=True)[0].logits, exact)
    close(model.apply(params, state, a, x, key=jax.random.key(1))[0].logits, exact)
    many = jax.vmap(lambda k: model.apply(params, state, a, x, key=k, train=True)[0].logits)
    samples = many(jax.random.split(jax.random.key(2), 4000))
    assert not np.allclose(samples[0], exact)
    close(samples.mean(0), exact, atol=6 * float(samples.std()) / 4000**0.5)


def test_linear():
    x = jnp.asarray(BAG[:20])
    layer = Linear(3)
    params = layer.init(jax.random.key(0), sparse_features(x))
    exact = np.asarray(x, np.float64) @ np.asarray(params["params"]["kernel"], np.float64)
    close(layer.apply(params, x), exact, atol=1e-5)
    close(layer.apply(params, sparse_features(x)), exact, atol=1e-5)
    assert set(Linear(3, use_bias=False).init(jax.random.key(0), x)["params"]) == {"kernel"}


def test_features_for():
    graph = from_edges(np.asarray([0]), np.asarray([1]), nodes=np.zeros((2, 3)))
    assert isinstance(features_for(graph), jax.Array)
    large = np.zeros((400, 300), np.float32)
    large[:, 0] = 1
    sparse = features_for(graph._replace(nodes=large))
    assert isinstance(sparse, SparseOperator)
    assert features_for(graph._replace(nodes=sparse)) is sparse
    close(sparse.todense(), large)
    large[:, :40] = 1
    assert isinstance(features_for(graph._replace(nodes=large)), jax.Array)
    with pytest.raises(ValueError, match="no node features"):
        features_for(graph._replace(nodes=None))


@pytest.mark.long
def test_classifier_keeps_the_best_on_validation_nodes():
    """The product is the first state with the highest validation accuracy, not the last one."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 6)).astype(np.float32)
    graph = from_edges(np.arange(40), rng.permutation(40), nodes=x)
    inputs = (operator(graph, **GCN.adjacency), features_for(graph))
    labels, half = jnp.asarray(rng.integers(0, 3, 40)), jnp.arange(40) < 20  # noise, so accuracy jumps about
    data = Splits(Examples(inputs, labels, half.astype(jnp.float32)), Examples(inputs, labels, ~half))

    def fit(every=1):
        history = {}
        alg = classifier(from_linen(GCN(3, 4)), adam_l2(0.1, num_steps=40), every=every)
        return InMemory(history)("fit", alg, jax.random.key(1), data, 40), history["fit"]

    best, history = fit()
    scores = history["score"]
    assert scores[-1] < scores.max()
    close(score(best, data.val), scores.max())
    close(history["best"], np.maximum.accumulate(scores))
    seldom, history = fit(every=7)
    close(history["score"][6::7], scores[6::7])  # looking does not change the run
    assert np.isfinite(history["score"]).sum() == 5
    close(score(seldom, data.val), scores[6::7].max())
