"""GCond, DosCond and their X variants on a small task."""

import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from condense_toy import TASK, same

import jgd
from jgd.condense._gcond import DosCond, DosCondX, GCond, GCondX
from jgd.condense.backbones import backbone, real_examples
from jgd.condense.bilevel import MatchContext, Matching, fresh, match
from jgd.condense.common import budget
from jgd.condense.matching import exact_gradients, gradient_matching, sampled_gradients, smoothness
from jgd.condense.start import start_from
from jgd.condense.synthesizers import node_set, seen
from jgd.core import Bound, Examples, InMemory, in_memory
from jgd.graph import DenseOperator, identity
from jgd.optim import by_part

close = np.testing.assert_allclose
KEY = jax.random.key(0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


QUICK = {
    "nodes": 9,
    "epochs": 12,
    "outer": 3,
    "inner": 2,
    "select_every": 3,
    "pge_hidden": 8,
    "lr_x": 0.02,
    "lr_adj": 0.02,
}
ONE_STEP = {"nodes": 9, "epochs": 60, "select_every": 30, "hidden": 8, "pge_hidden": 8}
RECIPES = {
    "gcond": GCond(**QUICK, turns=(1, 1)),
    "gcond-x": GCondX(**QUICK),
    "doscond": DosCond(**ONE_STEP),
    "doscond-x": DosCondX(**ONE_STEP),
}


@pytest.mark.long
@pytest.mark.parametrize("name", RECIPES)
def test_result(name):
    recipe = RECIPES[name]
    loop = InMemory({})
    small = recipe(KEY, TASK, loop)
    assert np.bincount(small.targets).tolist() == list(budget(TASK, 9))
    assert small.data.nodes.shape == (9, 6)
    assert np.isfinite(small.data.nodes).all()
    assert small.training.adjacency == ("identity" if name.endswith("x") else "raw")
    loss = loop.history["match"]["loss"]
    assert loss[len(loss) // 2 :].mean() < loss[: len(loss) // 2].mean()
    if not name.endswith("x"):
        a = np.asarray(jgd.graph.adjacency(small.data).todense())
        close(a, a.T)
        assert np.all((a == 0) | (a >= recipe.threshold))
    same(recipe(KEY, TASK), small)


@pytest.mark.long
def test_turns():
    """In the turns of the generator the features rest."""
    base = replace(RECIPES["gcond"], epochs=4, turns=(4, 4), select_every=None)
    start = start_from("random", jax.random.split(KEY)[0], TASK, 9, in_memory)
    close(base(KEY, TASK).data.nodes, start.inputs[0])
    assert not np.allclose(replace(base, epochs=6)(KEY, TASK).data.nodes, start.inputs[0], atol=1e-7)


@pytest.mark.long
def test_doscond_is_gcond_with_one_step():
    """Check 16."""
    settings = {"outer": 1, "inner": 0, "turns": None, "distance": "squared", "backbone": "gcn"}
    rates = {"lr_x": 1e-2, "lr_adj": 1e-2}
    other = GCond(**{**ONE_STEP, **settings, **rates})
    one = RECIPES["doscond"]
    close(other(KEY, TASK).data.nodes, one(KEY, TASK).data.nodes, rtol=1e-5, atol=1e-6)


@pytest.mark.long
def test_sampled_gradients_are_exact_where_everything_is_drawn_and_unbiased_else():
    """With SGC and zero weights a gradient is linear in the features that the network sees."""
    model = backbone("sgc", 3)
    exact, whole = real_examples("sgc", TASK), real_examples("sgc", TASK, whole=True)
    params, state = model.init(KEY, *exact.inputs)
    net = Bound(jax.tree.map(jnp.zeros_like, params), state, model)
    truth = exact_gradients(3)(net, exact, KEY)
    draw = sampled_gradients(3, (3, 3), batch=40)
    keys = jax.random.split(KEY, 100)
    found = jax.jit(jax.vmap(lambda k: draw(net, whole, k)))(keys)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(truth), strict=True):
        error = np.asarray(a).std(0) / np.sqrt(len(keys))
        assert np.all(np.abs(np.asarray(a).mean(0) - b) < 5 * error + 1e-5)
    small = replace(RECIPES["gcond-x"], fanouts=(3, 2), batch=8)(KEY, TASK)
    assert np.isfinite(small.data.nodes).all()


def test_smoothness():
    """``tr(Y^T (I - Â) Y) / n`` by brute force; zero where a normalised graph joins equal labels only."""
    y = np.asarray([0, 0, 1, 1])
    same_class = np.kron(np.eye(2), np.ones((2, 2)) / 2).astype(np.float32)
    small = Examples((DenseOperator(jnp.asarray(same_class)), jnp.zeros((4, 1))), jnp.asarray(y))
    close(smoothness(small, 2), 0, atol=1e-6)
    a = np.full((4, 4), 0.25, np.float32)
    onehot = np.eye(2)[y]
    brute = np.trace(onehot.T @ (np.eye(4) - a) @ onehot) / 4
    small = small._replace(inputs=(DenseOperator(jnp.asarray(a)), small.inputs[1]))
    close(smoothness(small, 2), brute, rtol=1e-5)


# --- the loss in NumPy ------------------------------------------------------------------------------


def published_loss(x, y, a, real_x, real_y, w, b, *, distance, smooth):
    """Jin et al.'s loss of SGC, in float64: propagated rows ``a @ a @ x`` through one linear map.

    Classes are weighted by how many condensed nodes they have; ``real_x`` is propagated already.
    """
    classes = np.eye(w.shape[1])

    def gradients(h, y, c):
        logits = h @ w + b
        p = np.exp(logits - logits.max(1, keepdims=True))
        p = (p / p.sum(1, keepdims=True) - classes[y])[y == c] / np.sum(y == c)
        return h[y == c].T @ p, p.sum(0)

    def columns(g, r):
        cos = np.sum(g[0] * r[0], 0) / (np.linalg.norm(g[0], axis=0) * np.linalg.norm(r[0], axis=0))
        return np.sum(1 - cos)

    def squares(g, r):
        return np.sum((g[0] - r[0]) ** 2) + np.sum((g[1] - r[1]) ** 2)

    between = {"columns": columns, "squared": squares}[distance]
    counts = np.bincount(y, minlength=len(classes))
    total = sum(
        counts[c] / counts.max() * between(gradients(a @ a @ x, y, c), gradients(real_x, real_y, c))
        for c in range(len(classes))
    )
    # Half the sum over pairs of weight times squared difference, where rows sum to one.
    rough = sum(
        a[i, j] * np.sum((classes[y[i]] - classes[y[j]]) ** 2) for i in range(len(y)) for j in range(len(y))
    )
    return total + smooth * rough / 2 / len(y)


def lopsided(rng):
    """Five, two and one condensed nodes of the classes, and other shares among the real ones."""
    y, real_y = np.asarray([0] * 5 + [1] * 2 + [2]), np.asarray([0] * 3 + [1] * 4 + [2] * 9)
    weights = rng.random((8, 8)) + np.eye(8)
    for _ in range(200):  # symmetric, and rows that sum to one
        weights = (weights + weights.T) / 2
        weights /= weights.sum(1, keepdims=True)
    x, real_x = rng.standard_normal((8, 4)), rng.standard_normal((16, 4))
    return x, y, (weights + weights.T) / 2, real_x, real_y


@pytest.mark.parametrize("smooth", [0.0, 0.7])
@pytest.mark.parametrize("distance", ["columns", "squared"])
def test_the_loss_is_the_published_one(rng, distance, smooth):
    """Class weights and the smoothness of labels included: both count, and add to the loss."""
    x, y, a, real_x, real_y = lopsided(rng)
    w, b = rng.standard_normal((4, 3)), rng.standard_normal(3)
    params = {"Linear_0": {"kernel": jnp.asarray(w, jnp.float32)}, "bias": jnp.asarray(b, jnp.float32)}
    net = Bound(params, {}, backbone("sgc", 3))
    small = Examples(
        (DenseOperator(jnp.asarray(a, jnp.float32)), jnp.asarray(x, jnp.float32)), jnp.asarray(y)
    )
    rows = Examples((identity(16), jnp.asarray(real_x, jnp.float32)), jnp.asarray(real_y))
    loss = gradient_matching(3, distance, smooth)
    found = loss(MatchContext(net, small, {}, rows, None, KEY, 0))[0]
    expected = published_loss(x, y, a, real_x, real_y, w, b, distance=distance, smooth=smooth)
    close(found, expected, rtol=1e-4)


@pytest.mark.parametrize(("recipe", "distance"), [(DosCondX, "squared"), (GCondX, "columns")])
def test_a_step_descends_the_published_loss(rng, monkeypatch, recipe, distance):
    """From the features of the start along the derivative of the NumPy loss, by Adam's first step."""
    w, b = rng.standard_normal((6, 3)), np.zeros(3)
    sgc = backbone("sgc", 3)
    params = {"Linear_0": {"kernel": jnp.asarray(w, jnp.float32)}, "bias": jnp.zeros(3)}
    known = sgc._replace(init=lambda key, *inputs: (params, {}))
    module = sys.modules["jgd.condense._gcond"]  # the name in `jgd.condense` is the method
    monkeypatch.setattr(module, "backbone", lambda *args: known)
    one = recipe(nodes=9, epochs=1, backbone="sgc", lr_x=1e-3, select_every=None, hidden=17)
    one = replace(one, **({} if recipe is DosCondX else {"outer": 1, "inner": 0}))
    loop = InMemory({})
    small = one(KEY, TASK, loop)
    start = np.asarray(
        start_from("random", jax.random.split(KEY)[0], TASK, 9, in_memory).inputs[0], np.float64
    )
    real = real_examples("sgc", TASK)
    real_x, real_y = np.asarray(real.inputs[1], np.float64), np.asarray(real.targets)

    def value(x):
        return published_loss(
            x, small.targets, np.eye(9), real_x, real_y, w, b, distance=distance, smooth=0.0
        )

    close(loop.history["match"]["loss"], [value(start)], rtol=1e-3)
    slopes = np.zeros_like(start)
    for place in np.ndindex(*start.shape):
        step = np.zeros_like(start)
        step[place] = 1e-5
        slopes[place] = (value(start + step) - value(start - step)) / 2e-5
    clear = np.abs(slopes) > 1e-2 * np.abs(slopes).max()
    assert clear.mean() > 0.5
    close((small.data.nodes - start)[clear], -1e-3 * np.sign(slopes)[clear], rtol=2e-2)


def accuracy(small, task):
    config = jgd.EvalConfig(steps=100, hidden=16, select_every=10)
    return jgd.evaluate(small, task, seeds=3, config=config)["gcn"].test_mean


@pytest.mark.long
def test_matching_teaches_and_matching_shuffled_labels_does_not():
    """From noise, by the real gradients; by those of shuffled labels a set learns nothing of use."""
    recipe = DosCondX(nodes=9, backbone="sgc", start="noise", epochs=200, lr_x=0.05, select_every=None)
    rng = np.random.default_rng(0)
    labels = np.where(TASK.train, rng.permutation(TASK.labels), TASK.labels)
    shuffled = replace(TASK, labels=labels.astype(TASK.labels.dtype))
    real, wrong = [], []
    for seed in range(3):
        key = jax.random.key(seed)
        real.append(accuracy(recipe(key, TASK), TASK))
        wrong.append(accuracy(recipe(key, shuffled), TASK))
    assert np.mean(real) > np.mean(wrong) + 0.2
    assert np.mean(real) > 0.75


@pytest.mark.long
def test_one_compilation_for_all_seeds(compilations):
    recipe = RECIPES["gcond-x"]
    recipe(KEY, TASK)
    compilations.clear()
    replace(recipe, start="average")(jax.random.key(1), TASK)
    assert compilations["jit(_advance)"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outer": 0}, "outer must be at least 1"),
        ({"inner": -1}, "inner must not be negative"),
        ({"select_every": 0}, "select_every must be at least 1"),
    ],
)
def test_refusals(change, message):
    with pytest.raises(ValueError, match=message):
        GCond(**change)


@pytest.mark.long
def test_the_loss_of_a_hand_made_problem_falls_to_zero():
    """Two classes, features as many as the real ones: gradients can be matched exactly."""
    real = real_examples("sgc", TASK)
    start = start_from("average", KEY, TASK, 9, in_memory)
    alg = match(
        node_set(),
        gradient_matching(3, "squared"),
        by_part(x=optax.adam(0.02)),
        networks=fresh(backbone("sgc", 3)),
        see=seen,
    )
    loop = InMemory({})
    loop("match", alg, KEY, Matching(start, real), 400)
    loss = loop.history["match"]["loss"]
    assert loss[-20:].mean() < 0.05 * loss[:20].mean()
