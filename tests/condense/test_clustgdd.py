"""ClustGDD: the checks of its card, its options, and that clustering by logits is what makes it work."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
import scipy.special
from condense_toy import INDUCTIVE, TASK, elsewhere, same

import jgd
from jgd.condense import METHODS
from jgd.condense._clustgdd import OFFICIAL, ClustGDD, Refinement, _refine, class_views
from jgd.condense._clustgdd import sharpened_consistency as consistency
from jgd.condense.common import normalize_adjacency
from jgd.core import Examples, InMemory, in_memory
from jgd.data import Training, contextual_sbm
from jgd.graph import adjacency, operator, propagate
from jgd.graph.coarsen import coarsen, indicator
from jgd.training import Splits

close = np.testing.assert_allclose
KEY = jax.random.key(0)
SMALL = ClustGDD(nodes=9, hidden=8, head_steps=40, refine_steps=12, restarts=2, scale=0.5, keep_edges=0.3)
N = TASK.num_nodes
A_HAT = adjacency(TASK.graph).toarray().astype(np.float64) + np.eye(N)
A_HAT = A_HAT / np.sqrt(A_HAT.sum(1)[:, None] * A_HAT.sum(1))


def series(a, x, terms, alpha):
    return (1 - alpha) * sum(alpha**t * np.linalg.matrix_power(a, t) @ x for t in range(terms))


class Listening(InMemory):
    """A loop that keeps what every stage was given and what it returned."""

    def __init__(self):
        super().__init__({})
        self.stages = {}

    def __call__(self, name, algorithm, key, data, num_steps, batches=None):
        product = super().__call__(name, algorithm, key, data, num_steps, batches)
        self.stages[name] = (algorithm, data, product)
        return product


@pytest.fixture(scope="module")
def run():
    loop = Listening()
    return SMALL(KEY, TASK, loop), loop


def before_refinement(small, **changes):
    return replace(SMALL, refine_steps=0, **changes)(KEY, TASK)


# --- steps 1-4 ----------------------------------------------------------------------------------


def test_smoothing():
    """Check 2: ``F = (1 - alpha^T) X`` without edges, and the limit solves a linear system."""
    none = np.zeros(0, np.int32)
    bare = replace(TASK, graph=TASK.graph._replace(senders=none, receivers=none, n_edge=np.asarray([0])))
    x = np.asarray(TASK.graph.nodes, np.float64)
    close(SMALL._smooth(bare), (1 - 0.8**5) * x, rtol=1e-5)
    close(replace(SMALL, terms=1)._smooth(TASK), 0.2 * x, rtol=1e-5)
    close(SMALL._smooth(TASK), series(A_HAT, x, 5, 0.8), rtol=1e-4, atol=1e-5)
    limit = 0.2 * np.linalg.solve(np.eye(N) - 0.8 * A_HAT, x)
    a = operator(TASK.graph, normalize="sym", self_loops=True)
    close(propagate(a, jnp.asarray(TASK.graph.nodes), 200, 0.8), limit, rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_result(run):
    """X', A' and y' from the clusters, by brute force."""
    small, loop = run
    assign, head = small.extras["assign"], loop.stages["head"][2]
    smooth = series(A_HAT, np.asarray(TASK.graph.nodes, np.float64), 5, 0.8)
    logits = np.asarray(head(jnp.asarray(smooth, jnp.float32)).logits)
    members = [np.flatnonzero(assign == k) for k in range(9)]
    assert min(len(m) for m in members) > 0
    close(small.extras["size"], [len(m) for m in members])
    delta, _ = loop.stages["refine"][2]
    assert np.abs(delta).max() > 0
    close(
        small.data.nodes, [smooth[m].mean(0) for m in members] + 0.5 * np.asarray(delta), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(small.targets, [logits[m].mean(0).argmax() for m in members])
    between = np.asarray(
        [[A_HAT[np.ix_(a, b)].mean() if a is not b else 0 for b in members] for a in members]
    )
    loops = between + np.eye(9)
    close(adjacency(small.data).toarray(), loops / np.sqrt(loops.sum(1)[:, None] * loops.sum(1)), rtol=1e-4)
    assert small.training == Training(adjacency="normalized", targets="classes")
    assert {"label_ratio", "node_ratio", "edges"} < small.provenance.keys()
    assert small.provenance["config"]["scale"] == 0.5
    # The clusters are those of k-means: every node is where its logits are nearest to a mean.
    centers = np.stack([logits[m].mean(0) for m in members])
    squares = ((logits[:, None] - centers) ** 2).sum(-1)
    assert squares[np.arange(N), assign].sum() <= 1.02 * squares.min(1).sum()


@pytest.mark.long
def test_identity_partition():
    """Check 3: with a cluster for each node, X' = F, A'_0 is Â without its diagonal, y' = argmax H."""
    task = replace(TASK, train=np.ones(N, bool), val=None, test=None)  # so that N nodes may be asked for
    loop = Listening()
    small = replace(SMALL, nodes=N, refine_steps=0)(KEY, task, loop)
    assign = small.extras["assign"]
    assert sorted(assign) == list(range(N))
    smooth = SMALL._smooth(task)
    close(small.data.nodes[assign], smooth, rtol=1e-5)
    np.testing.assert_array_equal(small.targets[assign], loop.stages["head"][2](smooth).logits.argmax(1))
    bare = A_HAT - np.diag(np.diag(A_HAT))
    close(coarsen(sp.csr_array(A_HAT), np.arange(N), N), A_HAT, rtol=1e-5)
    close(
        adjacency(small.data).toarray()[np.ix_(assign, assign)],
        normalize_adjacency(sp.csr_array(bare)).toarray(),
        rtol=1e-4,
    )


def test_coarsening():
    """Check 4: ``P^T A P`` is the mean over all pairs; the order of the nodes does not matter."""
    rng = np.random.default_rng(0)
    a, x = rng.random((10, 10)) * (rng.random((10, 10)) < 0.5), rng.standard_normal((10, 2))
    for matrix, symmetric in ((a, False), (a + a.T, True)):
        assign = rng.integers(0, 4, 10)
        assign[assign == 2] = 1  # cluster 2 is empty
        means, sums = np.zeros((5, 5)), np.zeros((5, 5))
        for k in range(5):
            for m in range(5):
                pairs = [
                    matrix[i, j] for i in np.flatnonzero(assign == k) for j in np.flatnonzero(assign == m)
                ]
                means[k, m], sums[k, m] = np.mean(pairs) if pairs else 0, np.sum(pairs)
        got = coarsen(sp.csr_array(matrix), assign, 5)
        close(got, means, rtol=1e-5)
        close(coarsen(sp.csr_array(matrix), assign, 5, "sum"), sums, rtol=1e-5)
        assert np.allclose(got, got.T) == symmetric
        order = rng.permutation(10)
        shuffled = sp.csr_array(matrix[np.ix_(order, order)])
        close(coarsen(shuffled, assign[order], 5), means, rtol=1e-5)
        close(indicator(assign[order], 5).T @ x[order], indicator(assign, 5).T @ x)
        assert indicator(assign, 5).toarray().argmax(1).tolist() == assign.tolist()


@pytest.mark.long
def test_order_of_the_nodes(run, monkeypatch):
    """Check 4: given the same clusters, a renumbered graph gives the same condensed graph."""
    small, _ = run
    order = np.random.default_rng(0).permutation(N)
    place = np.argsort(order)
    graph = TASK.graph._replace(
        nodes=TASK.graph.nodes[order],
        senders=place[TASK.graph.senders].astype(np.int32),
        receivers=place[TASK.graph.receivers].astype(np.int32),
    )
    masks = {m: getattr(TASK, m)[order] for m in ("train", "val", "test")}
    shuffled = replace(TASK, graph=graph, labels=TASK.labels[order], **masks)

    plain, assign, found = replace(SMALL, refine_steps=0), small.extras["assign"], []
    for task, given in ((TASK, assign), (shuffled, assign[order])):
        monkeypatch.setattr(
            "jgd.condense._clustgdd.kmeans", lambda *_, given=given, **__: SimpleNamespace(labels=given)
        )
        found.append(plain(KEY, task))
    same_graph, renumbered = found
    np.testing.assert_array_equal(same_graph.targets, renumbered.targets)
    close(renumbered.data.nodes, same_graph.data.nodes, rtol=1e-4, atol=1e-5)
    close(adjacency(renumbered.data).toarray(), adjacency(same_graph.data).toarray(), rtol=1e-4)


# --- step 5 ---------------------------------------------------------------------------------------


def views_by_loops(a, logits, keep):
    n, classes = logits.shape
    p = scipy.special.softmax(logits, axis=1)
    norm = np.linalg.norm(logits, axis=1)
    edges = [(i, j) for i in range(n) for j in range(n) if a[i, j]]
    w = {(i, j): a[i, j] * (logits[i] @ logits[j]) / (norm[i] * norm[j]) for i, j in edges}
    d = [sum(w[i, j] for j in range(n) if (i, j) in w) for i in range(n)]
    result = []
    for k in range(classes):
        score = {
            (i, j): p[i, k] * p[j, k] * (w[i, j] / d[i] + w[i, j] / d[j])
            for i, j in edges
            if w[i, j] > 0 and d[i] > 0 and d[j] > 0
        }
        best = sorted(score, key=score.get, reverse=True)[: int(len(edges) * keep)]
        result.append((score, {e: w[e] for e in best}))
    return result


@pytest.mark.parametrize("keep", [0.2, 1.0])
def test_views(keep):
    rng = np.random.default_rng(3)
    a = np.triu(rng.random((12, 12)) * (rng.random((12, 12)) < 0.3), 1)
    a = normalize_adjacency(sp.csr_array(a + a.T)).toarray().astype(np.float64)
    logits = rng.standard_normal((12, 3)) + 0.8
    views = class_views(sp.csr_array(a), logits, keep)
    for view, (score, kept) in zip(views, views_by_loops(a, logits, keep), strict=True):
        coo = view.tocoo()
        got = {(int(i), int(j)): v for i, j, v in zip(coo.row, coo.col, coo.data, strict=True)}
        # Both directions of an edge score the same: at the border either may be the one that is kept.
        close(sorted(score[e] for e in got), sorted(score[e] for e in kept), rtol=1e-9)
        assert all(v > 0 for v in got.values())
        for (i, j), v in got.items():
            unit = logits / np.linalg.norm(logits, axis=1, keepdims=True)
            close(v, a[i, j] * (unit[i] @ unit[j]), rtol=1e-5)


def test_views_of_sure_classes():
    """Check 5: one-hot classes and cosines of one: edges inside the class, ranked by 1/d_i + 1/d_j."""
    classes = np.asarray([0, 0, 0, 0, 1, 1, 1, 1])
    logits = np.where(np.eye(2)[classes] > 0, 200.0, 0.0)
    pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (3, 4), (4, 5), (5, 6), (6, 7)]
    a = np.zeros((8, 8))
    for i, j in pairs:
        a[i, j] = a[j, i] = 1
    degree = np.asarray([a[i, classes == classes[i]].sum() for i in range(8)])  # cosines across are zero
    for k in (0, 1):
        inside = [(i, j) for i in range(8) for j in range(8) if a[i, j] and classes[i] == classes[j] == k]
        views = class_views(sp.csr_array(a), logits, len(inside) / a.sum())
        got = set(zip(*(axis.tolist() for axis in views[k].nonzero()), strict=True))
        assert got == set(inside)
        half = class_views(sp.csr_array(a), logits, 2 / a.sum())[k]
        best = max(1 / degree[i] + 1 / degree[j] for i, j in inside)
        rank = [1 / degree[i] + 1 / degree[j] for i, j in zip(*half.nonzero(), strict=True)]
        close(rank, [best, best])


def test_views_of_opposite_logits():
    """Cosines at or below zero: no division by zero, and none of those edges is kept."""
    logits = np.asarray([[1.0, 0], [-1, 0], [0, 0], [1, 0]])
    views = class_views(sp.csr_array(np.ones((4, 4))), logits, 1.0)
    for view in views:
        assert np.isfinite(view.data).all()
        assert (view.data > 0).all()
        assert {(0, 3), (3, 0), (0, 0), (3, 3)} == set(
            zip(*map(np.ndarray.tolist, view.nonzero()), strict=True)
        )


# --- step 6 -----------------------------------------------------------------------------------------


@pytest.mark.long
def test_consistency():
    """Check 6: zero where the views agree on fixed points of sharpening; else by the formula."""
    one_hot, uniform = np.eye(3)[[0, 2]], np.asarray([[0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3]])
    for rows in (one_hot, uniform):
        close(consistency(jnp.asarray(np.stack([rows] * 4), jnp.float32), 0.5), 0, atol=1e-12)
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), (4, 5))
    same_views = jnp.asarray(np.stack([p[0]] * 4), jnp.float32)
    close(consistency(same_views, 1.0), 0, atol=1e-12)
    assert consistency(same_views, 0.5) > 1e-3
    assert consistency(jnp.asarray(np.stack([one_hot, one_hot[::-1]]), jnp.float32), 0.5) > 1e-3
    q = p.mean(0) ** 2
    q /= q.sum(1, keepdims=True)
    close(consistency(jnp.asarray(p, jnp.float32), 0.5), 0.5 * ((p - q) ** 2).sum() / 4, rtol=1e-5)
    gradient = jax.grad(lambda p: consistency(p, 0.5))(jnp.asarray(p, jnp.float32))
    close(gradient, 2 * 0.5 * (p - q) / 4, rtol=1e-4, atol=1e-6)  # the target has none
    many = jnp.full((2, 1, 100), 1e-30).at[:, :, 0].set(1)  # squares that underflow
    assert np.isfinite(jax.grad(lambda p: consistency(p, 0.5))(many)).all()


take = jax.jit(lambda step, state, data: step(KEY, 0, state, data, None), static_argnums=0)


def problem(settings, seed=0):
    """The refinement on random data: loss and gradient in (head, delta), and the pieces by themselves."""
    rng = np.random.default_rng(seed)
    n, f, c, m = 5, 4, 3, 8
    data = Refinement(
        Splits(*(Examples((normal(rng, m, f),), jnp.arange(m) % c, jnp.ones(m)) for _ in range(2))),
        jnp.abs(normal(rng, c, n, n)) / n,
        normal(rng, n, f),
        jnp.arange(n) % c,
    )
    alg = _refine(settings, c)
    return alg, data, alg.init(KEY, data, None)


def normal(rng, *shape):
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)


def loss_by_hand(settings, data, head, delta, views=None):
    """Step 6 in float64 with explicit sums, features propagated as the paper says."""
    f64 = lambda tree: jax.tree.map(lambda a: np.asarray(a, np.float64), tree)  # noqa: E731
    head, delta = f64(head), np.asarray(delta, np.float64)

    def f(x):
        return (x @ head["w1"] + head["b1"]) @ head["w2"] + head["b2"]

    def ce(logits, labels):
        return -scipy.special.log_softmax(logits, 1)[np.arange(len(labels)), labels].mean()

    own = data.splits.train
    total = ce(f(np.asarray(own.inputs[0], np.float64)), np.asarray(own.targets))
    x, probabilities = np.asarray(data.features, np.float64) + settings.scale * delta, []
    for b in np.asarray(data.views, np.float64):
        z = f(series(b, x, settings.refine_terms, settings.alpha))
        total += settings.gamma * ce(z, np.asarray(data.labels))
        probabilities.append(scipy.special.softmax(z, 1))
    p = np.stack(probabilities)
    q = p.mean(0) ** (1 / settings.temperature)
    q /= q.sum(1, keepdims=True)
    return settings.w2 * total + settings.w1 * settings.temperature * ((p - q) ** 2).sum() / len(p)


def filled(state, seed=1):
    """A state whose head and delta are random numbers."""
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda p: normal(rng, *p.shape), state.inner.params)
    return state._replace(inner=state.inner._replace(params=params))


@pytest.mark.long
@pytest.mark.parametrize("terms", [1, 3])
def test_refinement_loss(terms):
    settings = replace(SMALL, refine_terms=terms, gamma=0.7, w1=0.9, w2=1.3)
    alg, data, state = problem(settings)
    state = filled(state)
    params = state.inner.params
    _, metrics = take(alg.step, state, data)
    by_hand = loss_by_hand(settings, data, params["model"], params["objective"]["delta"])
    close(metrics["loss"], by_hand, rtol=1e-4)


def gradients(settings, at_zero=False):
    """The gradient in delta: Adam's first moment after a step from nothing is a tenth of it."""
    alg, data, state = problem(settings)
    params = filled(state).inner.params
    delta = jnp.zeros_like(params["objective"]["delta"]) if at_zero else params["objective"]["delta"]
    params = {**params, "objective": {**params["objective"], "delta": delta}}
    state = state._replace(inner=state.inner._replace(params=params))
    new, _ = take(alg.step, state, data)
    adam = new.inner.opt_state.inner_states["delta"].inner_state[1].inner
    return 10 * adam.mu["objective"]["delta"] - 5e-4 * delta, data, params


def test_refinement_gradient():
    """By finite differences of the loss in float64, without the consistency whose target is held fixed."""
    settings = replace(SMALL, w1=0.0)
    gradient, data, params = gradients(settings)
    delta = np.asarray(params["objective"]["delta"], np.float64)
    for i, j in ((0, 0), (2, 3), (4, 1)):
        step = np.zeros_like(delta)
        step[i, j] = 1e-5
        up, down = (loss_by_hand(settings, data, params["model"], delta + s) for s in (step, -step))
        close(gradient[i, j], (up - down) / 2e-5, rtol=1e-3, atol=1e-5)


def test_stale_gradient():
    """The authors' code follows the gradient at zero, wherever delta is."""
    stale = gradients(replace(SMALL, stale=True))[0]
    close(stale, gradients(SMALL, at_zero=True)[0], rtol=1e-4, atol=1e-6)
    assert not np.allclose(stale, gradients(SMALL)[0], rtol=1e-2)


@pytest.mark.long
def test_without_scale_nothing_moves(run):
    """Check 7: with lambda = 0 the gradient is zero, X' = X'_0, and there is no refinement to run."""
    close(gradients(replace(SMALL, scale=0.0))[0], 0, atol=1e-7)
    loop = Listening()
    small = replace(SMALL, scale=0.0)(KEY, TASK, loop)
    assert set(loop.stages) == {"head"}
    same(small, replace(SMALL, refine_steps=0)(KEY, TASK))
    np.testing.assert_array_equal(small.extras["assign"], run[0].extras["assign"])


def test_one_term_makes_views_equal():
    """With T' = 1 all Z are equal: the views do not matter."""
    alg, data, state = problem(replace(SMALL, refine_terms=1, gamma=0.7, w1=0.9, w2=1.3))
    _, one = take(alg.step, filled(state), data)
    _, other = take(alg.step, filled(state), data._replace(views=data.views * 7))
    close(one["loss"], other["loss"])


def test_best_delta(run):
    """The delta of the step with the best validation accuracy, not the last one."""
    _, loop = run
    alg, data, (delta, head) = loop.stages["refine"]
    scores = loop.history["refine"]["score"]
    best = int(np.argmax(scores))
    close(loop.history["refine"]["best"], np.maximum.accumulate(scores))
    product, _ = in_memory("again", alg, jax.random.split(KEY, 3)[2], data, best + 1)
    np.testing.assert_array_equal(product, delta)
    val = data.splits.val
    close((head(*val.inputs).logits.argmax(1) == val.targets).mean(), scores[best])
    alg, data, _ = problem(replace(SMALL, refine_steps=30))
    history = {}
    kept, _ = InMemory(history)("noise", alg, KEY, data, 30)
    scores = history["noise"]["score"]
    assert np.argmax(scores) < 29  # labels are noise: the last step is not the best one
    until, _ = in_memory("noise", alg, KEY, data, int(np.argmax(scores)) + 1)
    np.testing.assert_array_equal(kept, until)
    last = in_memory(
        "noise", alg._replace(result=lambda s, d: s.inner.params["objective"]["delta"]), KEY, data, 30
    )
    assert not np.array_equal(kept, last)


def test_learned_views_move_delta():
    alg, data, state = problem(replace(SMALL, reweight_views=True))
    new, _ = take(alg.step, state, data)
    views = new.inner.params["objective"]["views"]
    assert views.shape == data.views.shape
    assert 0 < np.abs(views - 1).max() <= 1.01e-4  # one step of its learning rate


# --- options ------------------------------------------------------------------------------------------


def test_what_is_averaged(run):
    assign = run[0].extras["assign"]
    x = np.asarray(TASK.graph.nodes, np.float64)
    for features, rows in (("raw", x), ("sgc", A_HAT @ A_HAT @ x)):
        small = before_refinement(run, features=features)
        np.testing.assert_array_equal(small.extras["assign"], assign)
        close(small.data.nodes, [rows[assign == k].mean(0) for k in range(9)], rtol=1e-4, atol=1e-5)


def test_structures(run):
    plain = before_refinement(run)
    bare = before_refinement(run, structure="identity")
    assert bare.training.adjacency == "identity"
    assert len(bare.data.senders) == 0
    np.testing.assert_array_equal(bare.data.nodes, plain.data.nodes)
    twice = adjacency(before_refinement(run, normalize_twice=True).data).toarray()
    loops = adjacency(plain.data).toarray() + np.eye(9)
    close(twice, loops / np.sqrt(loops.sum(1)[:, None] * loops.sum(1)), rtol=1e-5)


@pytest.mark.parametrize("rows", ["smoothed", "raw", "random"])
def test_cluster_on(rows, run):
    small = before_refinement(run, cluster_on=rows)
    sizes = small.extras["size"]
    assert sizes.min() > 0
    assert sizes.sum() == N
    if rows == "random":
        assert sizes.max() - sizes.min() <= 1


def test_mini_batches_leave_no_cluster_empty(run):
    small = before_refinement(run, nodes=30, batch_size=10, restarts=1)
    assert small.extras["size"].min() > 0
    assert np.isfinite(small.data.nodes).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha", 1.0),
        ("alpha", -0.1),
        ("dropout", 1.0),
        ("keep_edges", 0.0),
        ("keep_edges", 1.1),
        ("terms", 0),
        ("refine_terms", 0),
        ("head_steps", 0),
        ("hidden", 0),
        ("restarts", 0),
        ("refine_steps", -1),
        ("temperature", 0.0),
        ("features", "smooth"),
        ("structure", "cluster"),
        ("cluster_on", "labels"),
    ],
)
def test_impossible_settings(name, value):
    with pytest.raises((ValueError, TypeError), match=name):  # a choice is refused by its annotation before
        ClustGDD(**{name: value})


TABLE = """
cora 1.0 256 20 .8 .6 80 .4 2000 2 .01 1 .1
cora 0.5 256 5 .8 .6 80 .4 2000 2 .01 1 .1
cora 0.25 256 5 .8 .7 80 .06 2000 2 .01 1 .1
citeseer 0.25 256 2 .8 .7 120 .06 80 1 .01 1 .1
citeseer 0.5 128 2 .5 .8 100 .21 200 1 .01 .05 .1
citeseer 1.0 256 2 .5 .7 200 .2 200 1 .01 .9 .1
ogbn-arxiv .001 256 20 .92 .6 1000 .1 1000 10 1.4 .0125 .1
ogbn-arxiv .005 256 18 .91 .6 1000 .1 1000 10 1.9 .025 .1
ogbn-arxiv .01 256 20 .92 .6 1000 .1 1000 10 1.0 .025 .1
flickr .001 256 2 .8 .6 2000 .5 2000 2 .2 .8 .8
flickr .005 256 2 .8 .6 2000 .5 2000 1 .2 .8 1
flickr .01 256 2 .8 .6 2000 .5 2000 2 .2 .8 .8
reddit .0005 256 10 .92 .6 800 .1 600 7 3.5 .038 .015
reddit .001 256 10 .92 .6 800 .1 600 7 3.3 .024 .015
reddit .005 256 20 .95 .6 1000 .1 1000 10 .8 .05 .01
"""
"""Settings of the official run scripts, from the card."""

COLUMNS = ("hidden", "terms", "alpha", "dropout", "head_steps", "keep_edges", "refine_steps")
COLUMNS += ("refine_terms", "scale", "gamma", "w1")


@pytest.mark.long
def test_official_settings():
    rows = [line.split() for line in TABLE.strip().splitlines()]
    assert len(rows) == len(OFFICIAL) - 1  # the digits are ours
    for dataset, ratio, *values in rows:
        recipe = METHODS.official("clustgdd", dataset, label_ratio=float(ratio))
        assert recipe.label_ratio == float(ratio)
        for name, value in zip(COLUMNS, values, strict=True):
            assert getattr(recipe, name) == float(value), (dataset, ratio, name)
        assert (recipe.w2, recipe.temperature, recipe.stale) == (1.0, 0.5, False)
        assert (recipe.batch_size == 1000) == (dataset in ("ogbn-arxiv", "reddit"))
    assert METHODS.official("clustgdd", "cora", label_ratio=0.6).terms == 5
    assert METHODS.official("clustgdd", "cora", label_ratio=0.6).label_ratio == 0.6
    assert METHODS.official("clustgdd", "cora", nodes=35).nodes == 35
    assert METHODS.official("clustgdd", "unheard-of", label_ratio=0.3) == ClustGDD(label_ratio=0.3)


# --- the whole recipe -----------------------------------------------------------------------------------


@pytest.mark.long
def test_inductive():
    """Training nodes alone are condensed; validation nodes only choose among the states of training."""
    small = SMALL(KEY, INDUCTIVE)
    train, val = np.asarray(INDUCTIVE.train), np.asarray(INDUCTIVE.val)
    assert (small.extras["assign"][~train] == -1).all()
    assert small.extras["size"].sum() == train.sum()
    # Test nodes have no part.
    same(small, SMALL(KEY, elsewhere(INDUCTIVE, train | val)))
    # Means of training nodes, smoothed among themselves.
    part = INDUCTIVE.induced(train)
    bare = replace(SMALL, scale=0.0)(KEY, INDUCTIVE)
    smooth, assign = np.asarray(SMALL._smooth(part)), bare.extras["assign"][train]
    close(bare.data.nodes, [smooth[assign == k].mean(0) for k in range(9)], rtol=1e-4, atol=1e-5)


# --- ablation ---------------------------------------------------------------------------------------------


@pytest.mark.long
def test_random_partition_collapses():
    """The one idea switched off: means of random groups of nodes say little about the classes."""
    task = contextual_sbm(
        num_nodes=600,
        num_classes=8,
        num_features=24,
        mean_degree=6,
        homophily=0.6,
        signal=1.5,
        fractions=(0.2, 0.3, 0.5),
    )
    base = ClustGDD(nodes=24, hidden=64, refine_steps=0, restarts=2)
    sets = {
        f"{rows} {seed}": replace(base, cluster_on=rows)(jax.random.key(seed), task)
        for rows in ("logits", "random")
        for seed in range(3)
    }
    protocol = jgd.EvalConfig(steps=60, hidden=32, select_every=6)
    results = jgd.evaluate(sets, task, networks=["gcn"], seeds=1, config=protocol)
    found = {k: result["gcn"].test_mean for k, result in results.items()}
    gap = [found[f"logits {seed}"] - found[f"random {seed}"] for seed in range(3)]
    assert min(gap) > 0.1, found
    assert np.mean(gap) > 0.2, found
