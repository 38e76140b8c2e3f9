"""SimGC: its terms by hand, what moves when, and that the scale of features matters."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from condense_toy import TASK, same

from jgd.condense._simgc import (
    OFFICIAL,
    Real,
    SimGC,
    _loss,
    class_statistics,
    neighbour_similarity,
)
from jgd.condense.bilevel import MatchContext
from jgd.core import Examples, InMemory, bind, from_linen
from jgd.data import Training
from jgd.graph import DenseOperator, adjacency, identity
from jgd.nn import MLP

close = np.testing.assert_allclose
KEY = jax.random.key(0)
SMALL = SimGC(
    nodes=9, teacher_hidden=16, teacher_steps=50, pge_hidden=8, steps=30, turns=(1, 4), select_every=10
)


def test_statistics(rng):
    x = rng.standard_normal((9, 4))
    y = np.asarray([0, 0, 0, 0, 1, 1, 1, 2, 2])
    weights = np.eye(4)[y]
    weights[8] = 0  # leaves class 2 with one node; class 3 has none
    means, spread = class_statistics(jnp.asarray(x, jnp.float32), jnp.asarray(weights, jnp.float32))
    for c in (0, 1):
        close(means[c], x[y == c].mean(0), rtol=1e-5)
        close(spread[c], x[y == c].std(0, ddof=1), rtol=1e-4)
    close(means[2], x[7], rtol=1e-5)
    close(spread[2:], 0)
    close(means[3], 0)


def test_similarity(rng):
    x, a = rng.standard_normal((6, 5)), np.triu(rng.random((6, 6)), 1)
    a = a + a.T
    expected = (
        sum(a[i, j] * np.exp(-0.5 * (x[i] - x[j]) ** 2).mean() for i in range(6) for j in range(6)) / a.sum()
    )
    close(neighbour_similarity(jnp.asarray(a, jnp.float32), jnp.asarray(x, jnp.float32)), expected, rtol=1e-5)
    close(neighbour_similarity(jnp.asarray(a, jnp.float32), jnp.ones((6, 5))), 1, rtol=1e-6)
    assert neighbour_similarity(jnp.zeros((6, 6)), jnp.ones((6, 5))) == 0


def test_loss_by_hand(rng):
    """All three terms in float64; weights below the threshold are no edges, and a lone node has no spread."""
    n, f, c = 5, 4, 2
    y = np.asarray([0, 0, 0, 0, 1])
    x, a = rng.standard_normal((n, f)), np.triu(rng.random((n, n)), 1)
    a = a + a.T
    a[0, 1] = a[1, 0] = 0.004
    factor = 3.0
    model = from_linen(MLP(c, 8, dropout=0.0))
    params, state = model.init(KEY, identity(1), jnp.zeros((1, f)))
    means, spread = rng.standard_normal((c, 3 * f)), rng.random((c, 3 * f))
    teacher = bind(model, params, state)
    real = Real(
        teacher,
        jnp.asarray(factor),
        *(jnp.asarray(m, jnp.float32) for m in (means, spread)),
        jnp.asarray([True, True]),
    )
    small = Examples(
        (DenseOperator(jnp.asarray(a, jnp.float32)), jnp.asarray(x, jnp.float32)), jnp.asarray(y)
    )
    value, terms = _loss(SMALL, c)(MatchContext(teacher, small, {}, real))

    a = np.where(a >= 0.01, a, 0)
    x = x * factor
    hat = a + np.eye(n)
    hat = hat / np.sqrt(np.outer(hat.sum(1), hat.sum(1)))
    h = np.concatenate([x, hat @ x, hat @ hat @ x], 1)
    logits = np.asarray(teacher(identity(n), jnp.asarray(hat @ hat @ x, jnp.float32)).logits, np.float64)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    prediction = -log_p[np.arange(n), y].mean()
    alignment = (
        4 / 5 * (((h[:4].mean(0) - means[0]) ** 2).mean() + ((h[:4].std(0, ddof=1) - spread[0]) ** 2).mean())
        + 1 / 5 * ((h[4] - means[1]) ** 2).mean()
    )
    similar = sum(a[i, j] * np.exp(-0.5 * (x[i] - x[j]) ** 2).mean() for i in range(n) for j in range(n))
    close(terms["prediction"], prediction, rtol=1e-4)
    close(terms["alignment"], alignment, rtol=1e-4)
    close(terms["similarity"], similar / a.sum(), rtol=1e-4)
    close(value, prediction + 10 * alignment - 0.1 * similar / a.sum(), rtol=1e-4)


@pytest.mark.long
def test_alignment_is_zero_at_the_real_graph():
    """X' = X, A' = A, the same normalisation: moments agree, and nothing is left but the teacher."""
    x = np.asarray(TASK.graph.nodes)
    a = jnp.asarray(adjacency(TASK.graph).toarray(), jnp.float32)
    hat = np.asarray(a, np.float64) + np.eye(len(x))
    hat = hat / np.sqrt(np.outer(hat.sum(1), hat.sum(1)))
    h = np.concatenate([x, hat @ x, hat @ hat @ x], 1)
    classes = jnp.asarray(np.eye(3)[TASK.labels], jnp.float32)
    statistics = class_statistics(jnp.asarray(h, jnp.float32), classes)
    model = from_linen(MLP(3, 8, dropout=0.0))
    teacher = bind(model, *model.init(KEY, identity(1), jnp.zeros((1, x.shape[1]))))
    real = Real(teacher, jnp.asarray(1.0), *statistics, jnp.ones(3, bool))
    small = Examples((DenseOperator(a), jnp.asarray(x)), jnp.asarray(TASK.labels))
    _, terms = _loss(SMALL, 3)(MatchContext(teacher, small, {}, real))
    assert terms["alignment"] < 1e-6


@pytest.fixture(scope="module")
def run():
    loop = InMemory({})
    return SMALL(KEY, TASK, loop), loop.history["match"]


@pytest.mark.long
def test_recipe(run):
    small, history = run
    assert small.data.nodes.shape == (9, 6)
    assert small.training == Training(adjacency="raw", targets="classes")
    a = adjacency(small.data).toarray()
    close(a, a.T, rtol=1e-5)
    assert history["loss"][-5:].mean() < 0.9 * history["loss"][:5].mean()
    assert history["best"][-1] == np.nanmax(history["score"])
    same(small, SMALL(KEY, TASK))
    for settings in OFFICIAL.values():
        SimGC(**settings)


@pytest.mark.long
def test_scale():
    """Features in other units give the same set in other units."""
    recipe = replace(SMALL, select_every=None, steps=6)
    tenth = replace(TASK, graph=TASK.graph._replace(nodes=TASK.graph.nodes / 8))
    ours, theirs = recipe(KEY, TASK), recipe(KEY, tenth)
    close(theirs.data.nodes * 8, ours.data.nodes, rtol=1e-4, atol=1e-4)


def test_refuses():
    for wrong in ({"steps": 0}, {"align": -1.0}, {"scale": 0.0}, {"teacher_hidden": 0}, {"patience": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            SimGC(**wrong)
