"""Pruned training sets: scores, what is kept, the loss at its ends, ridge regression in closed form."""

import dataclasses
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from distill_toy import NET, TASK, TX, blobs
from hypothesis import given, settings
from hypothesis import strategies as st

from jgd import losses
from jgd.core import bind, from_linen, in_memory, objective, train
from jgd.data import NodeTask
from jgd.distill import hinton, offline, probes, pruning, ridge, scratch
from jgd.graph import from_edges
from jgd.ops.kernels import ridge_predict

KEY = jax.random.key(0)
S, T = jnp.asarray(np.random.default_rng(0).normal(size=(2, 12, 5)), jnp.float32)
Y = jnp.asarray(np.random.default_rng(1).integers(0, 5, 12))


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


# --- the loss -----------------------------------------------------------------------------------


def gradient(y=Y, teacher=T, **settings):
    return jax.grad(lambda s: losses.mean(losses.hinton_loss(s, teacher, y, **settings)))(S)


@pytest.mark.long
def test_without_the_teacher_it_is_cross_entropy_and_with_it_alone_needs_no_labels():
    plain = jax.grad(lambda s: losses.mean(losses.cross_entropy(s, Y)))(S)
    np.testing.assert_array_equal(gradient(alpha=0.0), plain)
    np.testing.assert_array_equal(gradient(alpha=1.0), gradient((Y + 1) % 5, alpha=1.0))
    assert not np.allclose(gradient(alpha=0.9), gradient((Y + 1) % 5, alpha=0.9))


@pytest.mark.parametrize("tau", [1.0, 4.0])
def test_gradient_of_the_teachers_term(tau):
    expected = tau * (softmax(np.asarray(S) / tau) - softmax(np.asarray(T) / tau)) / len(S)
    np.testing.assert_allclose(gradient(alpha=1.0, temperature=tau), expected, atol=1e-6)


def test_hot_teachers_are_matched_by_centred_logits():
    s, t = np.asarray(S), np.asarray(T)
    expected = (s - s.mean(1, keepdims=True) - t + t.mean(1, keepdims=True)) / (s.size)
    np.testing.assert_allclose(gradient(alpha=1.0, temperature=300.0), expected, rtol=0.05, atol=2e-4)


def test_a_teacher_that_is_the_student_or_the_labels():
    np.testing.assert_allclose(gradient(teacher=S, alpha=1.0), 0, atol=1e-7)
    sure = 200.0 * jax.nn.one_hot(Y, 5)
    for alpha in (0.0, 0.3, 1.0):
        value = losses.hinton_loss(S, sure, Y, alpha=alpha, temperature=1.0)
        np.testing.assert_allclose(value, losses.cross_entropy(S, Y), rtol=1e-5)


# --- what is kept -------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(0, 3), st.booleans(), st.booleans(), st.integers(0, 9))
def test_kept_examples_are_nested_and_exactly_as_many(count, ties, balanced, hard, seed):
    rng = np.random.default_rng(seed)
    score = rng.integers(0, 3, count) if ties else rng.normal(size=count)
    labels = rng.integers(0, 3, count)
    before = set()
    for fraction in (0.1, 0.3, 0.5, 0.77, 1.0):
        if round(fraction * count) == 0:
            with pytest.raises(ValueError, match="keeps nothing"):
                pruning.keep(score, fraction, labels, balanced=balanced, hard=hard)
            continue
        kept = pruning.keep(score, fraction, labels, balanced=balanced, hard=hard)
        assert len(kept) == round(fraction * count)
        assert (np.diff(kept) > 0).all()
        assert before <= set(kept)
        before = set(kept)
    assert before == set(range(count))


def test_balanced_classes_differ_by_one_and_each_keeps_its_hardest(rng):
    labels = np.arange(60) % 3
    labels[:20] = 0  # the first class is the largest
    score = rng.normal(size=60)
    kept = pruning.keep(score, 1 / 3, labels, balanced=True)
    counts = np.bincount(labels[kept], minlength=3)
    assert np.ptp(counts) <= 1
    for c in range(3):
        mine = np.flatnonzero(labels == c)
        assert set(kept[labels[kept] == c]) == set(mine[np.argsort(-score[mine])[: counts[c]]])


def test_hard_and_easy_halves_are_complements_and_ties_go_to_the_first(rng):
    score = rng.permutation(20).astype(float)
    hard, easy = pruning.keep(score, 0.5), pruning.keep(score, 0.5, hard=False)
    assert sorted([*hard, *easy]) == list(range(20))
    assert score[hard].min() > score[easy].max()
    np.testing.assert_array_equal(pruning.keep(np.zeros(10), 0.3), [0, 1, 2])
    np.testing.assert_array_equal(pruning.keep(np.asarray([1, np.inf, 0, np.inf]), 0.5), [1, 3])


def test_what_cannot_be_kept_is_refused():
    with pytest.raises(ValueError, match="more than all"):
        pruning.keep(np.zeros(4), 1.5)
    with pytest.raises(ValueError, match="NaN"):
        pruning.keep(np.asarray([0.0, np.nan]), 0.5)
    with pytest.raises(ValueError, match="give labels"):
        pruning.keep(np.zeros(4), 0.5, balanced=True)


def test_pruned_tasks_keep_what_is_not_for_training():
    small = pruning.pruned(TASK, np.asarray([0, 3, 39]))
    np.testing.assert_array_equal(np.flatnonzero(small.train), [0, 3, 39])
    assert small.x is TASK.x
    assert small.test is TASK.test
    shifted = dataclasses.replace(TASK, train=np.roll(TASK.train, 5), val=None, test=None)
    np.testing.assert_array_equal(np.flatnonzero(pruning.pruned(shifted, np.asarray([0, 2])).train), [5, 7])
    with pytest.raises(ValueError, match=r"0\.\.39"):
        pruning.pruned(TASK, np.asarray([40]))


def test_the_graph_of_nodes_stays_whole():
    graph = from_edges(np.arange(3), np.arange(1, 4), np.eye(4, dtype=np.float32))
    task = NodeTask(graph=graph, labels=np.arange(4) % 2, train=np.asarray([1, 0, 1, 1], bool), num_classes=2)
    small = pruning.pruned(task, np.asarray([1]))
    np.testing.assert_array_equal(small.train, [False, False, True, False])
    assert small.graph is graph


def test_the_weight_of_the_teacher_falls_as_more_is_kept():
    np.testing.assert_allclose(pruning.weight_of(np.asarray([0.05, 0.5, 1.0])), [0.95, 0.5, 0.0])
    np.testing.assert_allclose(pruning.weight_of(0.02, 0.3, 0.9), 0.9)
    np.testing.assert_allclose(pruning.weight_of(1.0, 0.3), 0.3, rtol=1e-6)


# --- scores -------------------------------------------------------------------------------------

LOGITS = jnp.asarray(np.random.default_rng(2).normal(size=(3, 12, 5)) * 3, jnp.float32)


def test_scores_of_logits_are_their_formulas(rng):
    p = softmax(np.asarray(LOGITS, np.float64))
    error = p - np.eye(5)[np.asarray(Y)]
    ranked = np.sort(p, -1)
    h = rng.normal(size=(3, 12, 7))
    full = np.linalg.norm(
        error[..., None] * np.append(h, np.ones((3, 12, 1)), -1)[..., None, :], axis=(-2, -1)
    )
    for found, expected in (
        (pruning.el2n(LOGITS, Y), np.sqrt((error**2).sum(-1)).mean(0)),
        (pruning.el2n(LOGITS[0], Y), np.sqrt((error[0] ** 2).sum(-1))),
        (pruning.entropy(LOGITS), -(p * np.log(p)).sum(-1).mean(0)),
        (pruning.margin(LOGITS), 1 - (ranked[..., -1] - ranked[..., -2]).mean(0)),
        (pruning.grand_last(LOGITS, jnp.asarray(h, jnp.float32), Y), full.mean(0)),
    ):
        np.testing.assert_allclose(found, expected, rtol=2e-5)


def test_el2n_reaches_its_bounds():
    extreme = jnp.asarray([[1e4, 0, 0], [-1e4, 0, -1e4]], jnp.float32)
    np.testing.assert_allclose(pruning.el2n(extreme, np.asarray([0, 0])), [0, np.sqrt(2)], atol=1e-6)


def test_forgetting_counts_by_hand():
    right = np.asarray(
        # always, never, forgotten once, twice, learned late, learned and lost
        [[1, 0, 1, 1, 0, 1], [1, 0, 0, 0, 0, 0], [1, 0, 1, 1, 0, 0], [1, 0, 1, 0, 1, 0]],
        bool,
    )
    np.testing.assert_array_equal(probes.forgetting(right), [0, np.inf, 1, 2, 0, 1])


def test_counting_in_the_loop_is_counting_afterwards(rng):
    history = rng.random((9, 6)) < 0.6
    # An "algorithm" that knows at step t what row t of the history says.
    counter = objective(lambda ctx: 0.0)
    model = from_linen(NET)
    alg = train(model, counter, optax.sgd(0.0))
    alg = alg._replace(
        init=lambda key, data, batch: jnp.zeros((), jnp.int32),
        step=lambda key, t, state, data, batch: (state + 1, {"loss": jnp.zeros(())}),
        result=lambda state, data: state,
    )
    for every in (1, 3):
        watched = probes.count_forgetting(alg, lambda steps, data: data[steps - 1], 6, every=every)
        steps, score = in_memory("count", watched, KEY, jnp.asarray(history), 9)
        assert int(steps) == 9
        np.testing.assert_array_equal(score, probes.forgetting(history[every - 1 :: every]))


def test_memorized_examples_are_right_only_where_they_were_seen():
    held = np.asarray([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 0, 0]], bool)
    right = ~held
    right[:, 1] = True
    np.testing.assert_allclose(pruning.memorization(jnp.asarray(right), jnp.asarray(held)), [1, 0, 1])


def test_distances_to_the_mean_of_the_group(rng):
    x = rng.normal(size=(20, 4))
    groups = np.asarray([5, 9] * 10)
    expected = [np.linalg.norm(v - x[groups == g].mean(0)) for v, g in zip(x, groups, strict=True)]
    np.testing.assert_allclose(pruning.centroid_distance(x, groups), expected)


def test_herding_keeps_the_mean_of_each_class():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(60, 3))
    labels = np.arange(60) % 3
    turns = pruning.herding(x, labels)
    for c in range(3):
        assert sorted(turns[labels == c]) == list(range(20))

    def gap(index):
        means = [(x[labels == c].mean(0), x[index][labels[index] == c].mean(0)) for c in range(3)]
        return sum(np.linalg.norm(all_of - some) for all_of, some in means)

    kept = pruning.keep(turns, 0.2, labels, balanced=True, hard=False)
    drawn = [pruning.keep(rng.random(60), 0.2, labels, balanced=True) for _ in range(20)]
    assert gap(kept) < 0.5 * np.mean([gap(index) for index in drawn])


# --- networks to score by -------------------------------------------------------------------------

NOISY = dataclasses.replace(TASK, y=np.where(np.isin(np.arange(60), [4, 11, 23]), (TASK.y + 1) % 3, TASK.y))
WRONG = {4, 11, 23}


@pytest.fixture(scope="module")
def seen():
    return probes.probes(KEY, NET, NOISY, TX, members=4, steps=60, batch=10, folds=2)


@pytest.mark.long
def test_wrong_labels_are_hard(seen):
    y = probes.labelled(NOISY).targets
    for score in (
        pruning.el2n(seen.outputs.logits, y),
        pruning.grand_last(seen.outputs.logits, seen.outputs.embedding, y),
        pruning.grand(seen.nets, probes.labelled(NOISY), batch=16),
        pruning.centroid_distance(probes.labelled(NOISY).inputs[0], y),
    ):
        assert set(pruning.keep(score, 3 / 40)) == WRONG
    assert {"value", "embedding"} <= {n for n, v in seen.outputs._asdict().items() if v is not None}
    assert seen.outputs.logits.shape == (4, 40, 3)
    assert seen.forgetting.shape == (4, 40)
    # They are never learned where most of them were held out or outvoted.
    often = np.isinf(np.asarray(seen.forgetting)).mean(0)
    assert often[list(WRONG)].min() > often[[i for i in range(40) if i not in WRONG]].mean()


@pytest.mark.long
def test_folds_leave_every_example_out_equally_often(seen):
    held = np.asarray(seen.held)
    np.testing.assert_array_equal(held.sum(0), 2)
    np.testing.assert_array_equal(held.sum(1), 20)
    assert (held[0] ^ held[1]).all()
    assert not (held[0] == held[2]).all()


@pytest.mark.long
def test_gradient_norms_are_those_of_each_example_alone(seen):
    data = probes.labelled(NOISY)
    found = pruning.grand(seen.nets, data, batch=7)
    for i in (0, 4, 39):
        norms = []
        for m in range(4):
            params, state = jax.tree.map(lambda v: v[m], (seen.nets.params, seen.nets.state))

            def loss(params, i=i, state=state):
                logits = bind(seen.nets.model, params, state)(data.inputs[0][i : i + 1]).logits
                return losses.cross_entropy(logits, data.targets[i : i + 1])[0]

            leaves = jax.tree.leaves(jax.grad(loss)(params))
            norms.append(np.linalg.norm(np.concatenate([np.ravel(g) for g in leaves])))
        np.testing.assert_allclose(found[i], np.mean(norms), rtol=1e-5)


@pytest.mark.long
def test_held_out_examples_do_not_change_a_net():
    other = dataclasses.replace(NOISY, y=np.where(np.arange(60) == 7, (NOISY.y + 1) % 3, NOISY.y))
    first, second = (
        probes.probes(KEY, NET, task, TX, members=4, steps=60, batch=10, folds=2) for task in (NOISY, other)
    )
    same = [
        np.array_equal(a, b)
        for a, b in zip(np.asarray(first.outputs.logits), np.asarray(second.outputs.logits), strict=True)
    ]
    np.testing.assert_array_equal(same, np.asarray(first.held)[:, 7])


def test_impossible_probes_are_refused():
    with pytest.raises(ValueError, match="a batch of 64 from 40"):
        probes.probes(KEY, NET, TASK, TX)
    with pytest.raises(ValueError, match="divide the members"):
        probes.probes(KEY, NET, TASK, TX, members=3, folds=2, batch=8)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_probes_lower_everywhere(platform):
    stage = {}

    def loop(name, alg, key, data, steps):
        stage.update(alg=alg, data=data)
        return in_memory(name, alg, key, data, steps)

    loop.stage = in_memory.stage
    task = dataclasses.replace(TASK, train=np.arange(60) < 12)
    probes.probes(KEY, NET, task, TX, members=2, steps=1, batch=4, every=3, loop=loop)

    def run(x, y):
        data = stage["data"]._replace(train=stage["data"].train._replace(inputs=(x,), targets=y))
        alg = stage["alg"]
        state = alg.init(KEY, data, None)
        return alg.step(KEY, jnp.asarray(2), state, data, None)[1]["loss"]

    shapes = (jax.ShapeDtypeStruct((12, 4), jnp.float32), jax.ShapeDtypeStruct((12,), jnp.int32))
    assert jax.export.export(jax.jit(run), platforms=[platform])(*shapes).out_avals[0].shape == (2,)


@pytest.mark.long
def test_distilling_from_a_pruned_set():
    task = blobs(300, noise=1.2, labelled=200)
    teacher = scratch(NET, TX, steps=200, batch=32)(KEY, task)
    small = pruning.pruned(task, pruning.keep(pruning.random(KEY, 200), 0.04))
    accuracy = {}
    for alpha in (0.0, 1.0):
        recipe = offline(NET, teacher, hinton(hard=1 - alpha, soft=alpha), TX, steps=200, batch=8, seeds=6)
        nets = recipe(KEY, small)
        logits = jax.vmap(lambda net: net(task.x).logits)(nets)
        right = np.asarray(jnp.argmax(logits, -1) == task.y)
        accuracy[alpha] = right[:, task.test].mean()
    assert accuracy[1.0] > accuracy[0.0] + 0.05


# --- ridge regression ---------------------------------------------------------------------------

D, N, LAM = 10, 200, 5.0
X = np.random.default_rng(3).normal(size=(N, D))
TRUTH = np.random.default_rng(4).normal(size=D) / np.sqrt(D) * 2


def first(fraction):
    return np.arange(N) < round(fraction * N)


def student(y, kept, alpha, taught):
    """Two fits, one after the other, by least squares on stacked rows."""

    def fit(x, y):
        rows = np.vstack([x, np.sqrt(LAM) * np.eye(D)])
        return np.linalg.lstsq(rows, np.vstack([y, np.zeros((D, y.shape[1]))]), rcond=None)[0]

    teacher = fit(X[taught], y[taught])
    return fit(X[kept], (1 - alpha) * y[kept] + alpha * X[kept] @ teacher)


@pytest.fixture
def wide():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize(("alpha", "share"), [(0.0, 1.0), (0.4, 1.0), (1.0, 1.0), (1.0, 0.1)])
def test_ridge_moments_are_those_of_simulation(rng, wide, alpha, share):
    kept, taught = first(0.1), first(share)
    noise = rng.normal(size=(N, 4000))
    found = ridge.ridge_distillation(
        *map(jnp.asarray, (X, X @ TRUTH + noise[:, 0], kept)),
        alpha, LAM, truth=jnp.asarray(TRUTH), taught=jnp.asarray(taught),
    )  # fmt: skip
    drawn = student((X @ TRUTH)[:, None] + noise, kept, alpha, taught)
    np.testing.assert_allclose(found.theta, drawn[:, 0], rtol=1e-9)
    np.testing.assert_allclose(found.variance, drawn.var(1).sum(), rtol=0.03)
    exact = student((X @ TRUTH)[:, None], kept, alpha, taught)[:, 0]  # the mean, for it is linear
    np.testing.assert_allclose(found.bias2, ((exact - TRUTH) ** 2).sum(), rtol=1e-9)
    np.testing.assert_allclose(((drawn.mean(1) - TRUTH) ** 2).sum(), found.bias2, rtol=0.05)


def moments(fraction, alpha, taught=None):
    taught = None if taught is None else jnp.asarray(taught)
    return ridge.ridge_distillation(
        *map(jnp.asarray, (X, X @ TRUTH, first(fraction))),
        alpha,
        LAM,
        truth=jnp.asarray(TRUTH),
        taught=taught,
    )


def test_a_teacher_of_all_has_less_bias_and_variance_collapses(wide):
    none, whole, same = moments(0.1, 0.0), moments(0.1, 1.0), moments(0.1, 1.0, first(0.1))
    assert none.bias2 < whole.bias2 < 0.75 * same.bias2
    assert whole.variance < 0.3 * same.variance < same.variance < none.variance


@pytest.mark.long
def test_the_best_weight_falls_from_small_sets_to_none_for_the_whole(wide):
    fractions = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
    truth, x = jnp.asarray(TRUTH), jnp.asarray(X)
    lam = D / float(TRUTH @ TRUTH)  # about its optimum, σ² d / |θ|²
    orders = jax.vmap(lambda key: jax.random.permutation(key, N))(jax.random.split(KEY, 40))
    best = []
    for fraction in fractions:
        kept = orders < round(fraction * N)
        each = jax.vmap(lambda k: ridge.best_alpha(x, k, lam, truth=truth))(kept)
        best.append(float(each.mean()))
        risks = jax.vmap(lambda a, k=kept[0]: sum(ridge.ridge_distillation(
            x, x @ truth, k, a, lam, truth=truth)[1:]))(jnp.linspace(0, 1, 201))  # fmt: skip
        assert abs(float(each[0]) - float(jnp.argmin(risks)) / 200) <= 0.0026
    assert best[-1] == 0
    assert best[0] > 0.6
    assert all(b < a for a, b in pairwise(best))


@pytest.mark.long
def test_it_is_the_ridge_of_kernels(rng, wide):
    y = X @ TRUTH + rng.normal(size=N)
    kept, alpha, new = first(0.3), 0.7, rng.normal(size=(5, D))

    def kernel_fit(x, y, at):
        gram = x @ x.T
        relative = LAM * len(x) / np.trace(gram)
        return np.asarray(
            ridge_predict(jnp.asarray(at @ x.T), jnp.asarray(gram), jnp.asarray(y[:, None]), relative)
        )[:, 0]

    teacher = kernel_fit(X, y, X[kept])
    expected = kernel_fit(X[kept], (1 - alpha) * y[kept] + alpha * teacher, new)
    found = ridge.ridge_distillation(
        *map(jnp.asarray, (X, y, kept)), alpha, LAM, truth=jnp.asarray(TRUTH)
    ).theta
    np.testing.assert_allclose(new @ found, expected, rtol=1e-7)
