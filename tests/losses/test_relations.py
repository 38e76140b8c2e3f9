"""Losses of relations against loops in float64 NumPy; token graphs against SciPy's trees."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from scipy.spatial import cKDTree
from scipy.stats import ortho_group

from jgd.losses import relations as R

close = np.testing.assert_allclose
B = 6
WHERE = np.array([True, True, False, True, True, False])


def array(rng, *shape):
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)


# --- references ---------------------------------------------------------------------------------


def normalised(x):
    n = np.sqrt(np.sum(x**2))
    return x / n if n > 0 else x


def smooth_l1(d):
    return 0.5 * d * d if abs(d) < 1 else abs(d) - 0.5


def ref_distance(s, t):
    def relative(x):
        d = np.array([[np.sqrt(np.sum((a - b) ** 2)) for b in x] for a in x])
        return d / d[d > 0].mean()

    return np.mean([smooth_l1(d) for d in (relative(s) - relative(t)).ravel()])


def cosines(x):
    n = len(x)
    out = np.zeros((n, n, n))
    for i, j, k in itertools.product(range(n), repeat=3):
        out[i, j, k] = np.dot(normalised(x[j] - x[i]), normalised(x[k] - x[i]))
    return out


def ref_angle(s, t):
    return np.mean([smooth_l1(d) for d in (cosines(s) - cosines(t)).ravel()])


def ref_similarity(s, t):
    def gram(x):
        x = x.reshape(len(x), -1)
        return np.stack([normalised(row) for row in x @ x.T])

    return np.sum((gram(s) - gram(t)) ** 2) / len(s) ** 2


def ref_pkt(s, t, eps=1e-7):
    def rows(x):
        k = np.array([[(np.dot(normalised(a), normalised(b)) + 1) / 2 for b in x] for a in x])
        return k / k.sum(1, keepdims=True)

    p, q = rows(t), rows(s)
    return np.mean(p * np.log((p + eps) / (q + eps)))


def ref_congruence(s, t, gamma=0.4, order=2):
    def kernel(x):
        y = x @ x.T
        return sum(np.exp(-2 * gamma) * (2 * gamma) ** p / math.factorial(p) * y**p for p in range(order + 1))

    return np.sqrt(np.sum((kernel(s) - kernel(t)) ** 2)) / len(s) ** 2


def ref_neighbour(s, t):
    e = np.abs(s - t)
    return np.mean([np.sum(e[i] * e[i + 1]) for i in range(len(e) - 1)])


LOSSES = {
    "distance": (R.rkd_distance, ref_distance, (B, 4), (B, 7)),
    "angle": (R.rkd_angle, ref_angle, (B, 4), (B, 7)),
    "similarity": (R.similarity_preserving, ref_similarity, (B, 2, 3, 4), (B, 9)),
    "pkt": (R.pkt_loss, ref_pkt, (B, 4), (B, 7)),
    "congruence": (R.correlation_congruence, ref_congruence, (B, 4), (B, 7)),
    "neighbour": (R.neighbour_congruence, ref_neighbour, (B, 4), (B, 4)),
}
EVERY = pytest.mark.parametrize("name", LOSSES)
BOTH_LEARN = ("congruence", "neighbour")


@EVERY
def test_value_and_gradient(rng, name):
    loss, reference, *shapes = LOSSES[name]
    s, t = array(rng, *shapes[0]), array(rng, *shapes[1])

    run = jax.jit(jax.value_and_grad(lambda s, t, where: loss(s, t, where=where), argnums=(0, 1)))
    value, (gradient, to_teacher) = run(s, t, jnp.ones(B, bool))
    exact, target = np.float64(s), np.float64(t)
    close(value, reference(exact, target), rtol=1e-4)
    close(loss(s, t), value, rtol=1e-5)
    assert to_teacher.any() == (name in BOTH_LEARN)
    direction, step = rng.standard_normal(s.shape), 1e-6
    slope = (reference(exact + step * direction, target) - reference(exact - step * direction, target)) / (
        2 * step
    )
    close(np.sum(gradient * direction), slope, rtol=2e-3, atol=1e-6)

    # Rows that do not count may hold anything; the relation is that of the others.
    value, (gradient, _) = run(s.at[~WHERE].set(jnp.nan), t.at[~WHERE].set(jnp.inf), jnp.asarray(WHERE))
    close(value, reference(exact[WHERE], target[WHERE]), rtol=1e-4)
    assert not gradient[~WHERE].any()
    assert jnp.isfinite(gradient).all()
    assert gradient[WHERE].any()

    # Large, dead and repeated features, one example, none.
    one, none = jnp.arange(B) == 2, jnp.zeros(B, bool)
    for a, b, where in (
        (1e4 * s, -1e4 * t, jnp.ones(B, bool)),
        (0 * s, t, jnp.ones(B, bool)),
        (s, 0 * t, jnp.ones(B, bool)),
        (s[jnp.asarray([0, 0, 0, 1, 1, 2])], t, jnp.ones(B, bool)),
        (s, t, one),
        (s, t, none),
    ):
        value, (gradient, _) = run(a, b, where)
        assert jnp.isfinite(value)
        assert jnp.isfinite(gradient).all()
    assert value == 0  # none at all
    assert not gradient.any()


@EVERY
def test_half_precision(rng, name):
    loss, _, *shapes = LOSSES[name]
    s, t = (array(rng, *shape).astype(jnp.bfloat16) for i, shape in enumerate(shapes))
    value = jax.jit(loss)(s, t)
    assert value.dtype == jnp.float32
    close(np.float32(value), jax.jit(loss)(s.astype(jnp.float32), t.astype(jnp.float32)), rtol=1e-2)


@EVERY
def test_what_leaves_it_unchanged(rng, name):
    loss = jax.jit(LOSSES[name][0])
    s, t = array(rng, B, 4), array(rng, B, 4)
    value = loss(s, t)
    assert value > 1e-5
    close(loss(s, s), 0, atol=1e-6)
    order = jnp.asarray([3, 5, 0, 1, 4, 2])
    turn = jnp.asarray(ortho_group.rvs(4, random_state=0), jnp.float32)
    same = {
        "order": loss(s[order], t[order]),
        "turn": loss(s @ turn, t),
        "shift": loss(s + 2, t),
        "scale": loss(3 * s, t),
        "scale_each": loss(s * jnp.arange(1, B + 1)[:, None], t),
    }
    kept = {
        "distance": {"order", "turn", "shift", "scale"},
        "angle": {"order", "turn", "shift", "scale"},
        "similarity": {"order", "turn", "scale"},
        "pkt": {"order", "turn", "scale", "scale_each"},
        "congruence": {"order", "turn"},
        "neighbour": set(),
    }[name]
    assert {k for k, v in same.items() if abs(v - value) < 1e-5 * abs(value) + 1e-7} == kept


def test_angles_of_six_points():
    x = np.random.default_rng(5).standard_normal((6, 3))
    c = cosines(x)
    for i, j in itertools.product(range(6), repeat=2):
        assert c[i, i, j] == c[i, j, i] == 0
        close(c[i, j, j], i != j)
    # Against a teacher at one point, whose angles are all zero, the loss is that of the angles themselves.
    loss = R.rkd_angle(jnp.asarray(x, jnp.float32), jnp.zeros((6, 2)))
    close(loss, np.mean([smooth_l1(a) for a in c.ravel()]), rtol=1e-5)


def test_similarity_of_two_examples_by_hand():
    s, t = jnp.asarray([[1.0, 0], [0, 2]]), jnp.asarray([[1.0, 0], [1, 0]])
    # Rows of the student: (1, 0), (0, 1); of the teacher: (1, 1) / sqrt 2, twice.
    close(R.similarity_preserving(s, t), 2 * ((1 - 0.5**0.5) ** 2 + 0.5) / 4, rtol=1e-6)


def test_congruence_is_an_rbf_kernel_for_unit_vectors(rng):
    x = np.stack([normalised(v) for v in rng.standard_normal((B, 4))])
    y = np.stack([normalised(v) for v in rng.standard_normal((B, 4))])
    rbf = [np.exp(-0.4 * ((v[:, None] - v) ** 2).sum(-1)) for v in (x, y)]
    exact = np.sqrt(np.sum((rbf[0] - rbf[1]) ** 2)) / B**2
    value = R.correlation_congruence(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32), order=8)
    close(value, exact, rtol=1e-4)


# --- tokens -------------------------------------------------------------------------------------


def test_patchify():
    x = jnp.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3).astype(jnp.float32)
    tokens = R.patchify(x, (2, 3))
    assert tokens.shape == (2, 4, 18)
    for n, (i, j) in enumerate(itertools.product(range(2), repeat=2)):
        close(tokens[:, n], x[:, 2 * i : 2 * i + 2, 3 * j : 3 * j + 3].reshape(2, -1))
    close(R.patchify(x, 2), R.patchify(x[0], 2)[None].repeat(2, 0) + jnp.asarray([0, 72])[:, None, None])
    with pytest.raises(ValueError, match="do not tile"):
        R.patchify(x, 3)


def test_sample_tokens():
    draw = jax.jit(jax.vmap(lambda key: R.sample_tokens(key, 3, 8, 4)))
    positions = np.asarray(draw(jax.random.split(jax.random.key(0), 2000)))
    assert positions.shape == (2000, 3, 4)
    assert (np.diff(np.sort(positions, -1)) > 0).all()  # none twice
    counts = np.stack([np.bincount(positions[:, i].ravel(), minlength=8) for i in range(3)])
    assert (abs(counts - 1000) < 5 * np.sqrt(2000 * 0.25)).all()
    assert (positions[:, 0] != positions[:, 1]).any()
    with pytest.raises(ValueError, match="between 1 and the number of tokens, 8"):
        R.sample_tokens(jax.random.key(0), 3, 8, 9)


@pytest.mark.long
def test_context(rng):
    s, t = array(rng, 3, 5, 4), array(rng, 3, 5, 4)

    def similarity(x):
        x = np.float64(x)
        return scipy.special.softmax(x @ x.swapaxes(-1, -2) / np.sqrt(x.shape[-1]), -1)

    run = jax.jit(jax.value_and_grad(lambda s, t: R.context_loss(s, t).sum(), argnums=(0, 1)))
    value, (gradient, to_teacher) = run(s, t)
    close(value, np.sum(np.mean((similarity(s) - similarity(t)) ** 2, (1, 2))), rtol=1e-5)
    assert gradient.any()
    assert not to_teacher.any()
    close(R.context_similarity(s), similarity(s), rtol=1e-5)
    close(R.context_similarity(s).sum(-1), 1, rtol=1e-6)
    value, (gradient, _) = run(s, s)
    assert value == 0
    assert not gradient.any()

    values = R.context_loss(s, t)
    turn = jnp.asarray(ortho_group.rvs(4, random_state=1), jnp.float32)
    close(R.context_loss(s @ turn, t), values, rtol=1e-4)
    order = jnp.asarray([2, 0, 4, 1, 3])
    close(R.context_loss(s[:, order], t[:, order]), values, rtol=1e-4)
    assert (abs(R.context_loss(s[:, order], t) - values) > 1e-4).all()
    where = jnp.asarray([True, False, True])
    close(R.context_loss(s.at[1].set(jnp.nan), t, where=where), jnp.where(where, values, 0), rtol=1e-5)
    # Orthogonal tokens of length r.
    r, n = 1.7, 4
    e = np.exp(r**2 / np.sqrt(6))
    close(jnp.diagonal(R.context_similarity(r * jnp.eye(n, 6))), e / (e + n - 1), rtol=1e-5)


def dense(graph, n):
    out = np.zeros((n, n))
    for i in range(n):
        for j, a in zip(
            np.asarray(graph.indices[i]), np.asarray(graph.affinities[i], np.float64), strict=True
        ):
            out[i, j] = a
    return out


def affinities(x, k, sigma=None):
    """Dense, by a tree."""
    x = np.float64(x)
    distance, index = cKDTree(x).query(x, k + 1)
    square, index = distance[:, 1:] ** 2, index[:, 1:]
    sigma = square.mean() if sigma is None else sigma
    out = np.zeros((len(x), len(x)))
    np.put_along_axis(out, index, np.exp(-square / (2 * sigma)), 1)
    return out


def row_kl(p, q):
    return np.sum(p * np.log(p / q), -1)


N, K = 64, 8
S, T = array(np.random.default_rng(6), N, 5), array(np.random.default_rng(7), N, 9)
KNN = jax.jit(R.knn_affinity, static_argnames="k")


def test_nearest_neighbours():
    graph = KNN(S, K)
    _, index = cKDTree(np.asarray(S)).query(np.asarray(S), K + 1)
    assert (np.asarray(graph.indices) == index[:, 1:]).all()
    a = dense(graph, N)
    assert np.count_nonzero(a) == N * K
    assert not np.diagonal(a).any()
    close(a, affinities(S, K), rtol=1e-4)
    close(dense(KNN(S, K, sigma=0.7), N), affinities(S, K, 0.7), rtol=1e-4)
    assert (KNN(1e3 + S, K).indices == graph.indices).mean() > 0.99  # far from the origin
    with pytest.raises(ValueError, match="between 1 and the number of other rows, 3"):
        R.nearest(S[:4], 4)


def test_knn_graph_is_jraph():
    graph = jax.jit(R.knn_graph, static_argnums=1)(S, K)
    assert graph.nodes.shape == (N, 5)
    assert (np.bincount(graph.senders, minlength=N) == K).all()
    assert (graph.senders != graph.receivers).all()
    assert (int(graph.n_node[0]), int(graph.n_edge[0])) == (N, N * K)
    # The dense softmax of a row equals one over its edges and n - k zeros.
    a = np.zeros((N, N))
    a[np.asarray(graph.senders), np.asarray(graph.receivers)] = graph.edges
    close(a, affinities(S, K), rtol=1e-4)
    total = jax.ops.segment_sum(jnp.exp(graph.edges), graph.senders, N) + (N - K)
    dense_rows = scipy.special.softmax(a, 1)[graph.senders, graph.receivers]
    close(jnp.exp(graph.edges) / total[graph.senders], dense_rows, rtol=1e-5)
    close(scipy.special.softmax(a, 1).sum(1), 1)


@pytest.mark.parametrize("temperature", [1.0, 0.02])
@pytest.mark.parametrize("reverse", [False, True])
def test_graph_kl(temperature, reverse):
    s, t = (scipy.special.softmax(affinities(x, K) / temperature, 1) for x in (S, T))
    kl = jax.jit(R.graph_kl, static_argnames="reverse")
    value = kl(KNN(S, K), KNN(T, K), temperature=temperature, reverse=reverse)
    close(value, row_kl(s, t) if reverse else row_kl(t, s), rtol=2e-4)
    assert (value >= 0).all()


def test_graph_kl_over_the_teachers_neighbours():
    s, t = affinities(S, K), affinities(T, K)
    support = t > 0
    p, q = (scipy.special.softmax(np.where(support, x, -np.inf), 1)[support].reshape(N, K) for x in (t, s))
    over = jax.jit(lambda s, t: R.graph_kl(s, t, implicit_zeros=False))
    close(over(KNN(S, K), KNN(T, K)), row_kl(p, q), rtol=2e-4)
    # A student on the teacher's graph.
    teacher = KNN(T, K)
    student = jax.jit(R.affinity)(S, teacher.indices)
    square = np.sum((np.float64(S)[:, None] - np.float64(S)[teacher.indices]) ** 2, -1)
    p = scipy.special.softmax(np.float64(teacher.affinities), 1)
    q = scipy.special.softmax(np.exp(-square / (2 * square.mean())), 1)
    close(over(student, teacher), row_kl(p, q), rtol=2e-4)


def local(s, t, where=None, k=K):
    return R.graph_kl(R.knn_affinity(s, k, where=where), R.knn_affinity(t, k, where=where), where=where)


LOCAL = jax.jit(
    jax.value_and_grad(lambda *a: (lambda v: (v.sum(), v))(local(*a)), argnums=(0, 1), has_aux=True)
)


@pytest.mark.long
def test_local_loss_and_its_gradient(rng):
    everything = jnp.ones(N, bool)
    (_, values), (gradient, to_teacher) = LOCAL(S, T, everything)
    assert not to_teacher.any()
    # The scale is constant, so the reference holds it too.
    x = np.float64(S)
    d, _ = cKDTree(x).query(x, K + 1)
    sigma, t = (d[:, 1:] ** 2).mean(), scipy.special.softmax(affinities(T, K), 1)

    def exact(x):
        return row_kl(t, scipy.special.softmax(affinities(x, K, sigma), 1)).sum()

    direction, step = rng.standard_normal(S.shape), 1e-6
    slope = (exact(x + step * direction) - exact(x - step * direction)) / (2 * step)
    close(np.sum(gradient * direction), slope, rtol=1e-3)

    (_, same), (gradient, _) = LOCAL(S, S, everything)
    close(same, 0, atol=1e-12)
    close(gradient, 0, atol=1e-7)

    turn = jnp.asarray(ortho_group.rvs(5, random_state=2), jnp.float32)
    for changed in (S @ turn, S + 3, 5 * S):
        close(LOCAL(changed, T, everything)[0][1], values, rtol=1e-3)
    order = jnp.asarray(rng.permutation(N))
    close(LOCAL(S[order], T[order], everything)[0][1], values[order], rtol=1e-3)
    assert LOCAL(S[order], S, everything)[0][0] > 0.1 * values.sum()  # only one of them permuted


@pytest.mark.long
def test_local_loss_without_some_nodes(rng):
    where = jnp.asarray(rng.random(N) < 0.6)
    count = int(where.sum())
    (_, values), (gradient, _) = LOCAL(S.at[~where].set(jnp.nan), T.at[~where].set(9.0), where)
    alone = jax.jit(local, static_argnames="k")
    close(values[where], alone(S[where], T[where]), rtol=1e-4)
    assert not values[~where].any()
    assert not gradient[~where].any()
    assert jnp.isfinite(gradient).all()
    # Fewer nodes than neighbours: each is joined to all others that there are.
    few = jnp.arange(N) < 5
    values = LOCAL(S, T, few)[0][1]
    close(values[:5], alone(S[:5], T[:5], k=4), rtol=1e-3)
    for nothing in (jnp.zeros(N, bool), jnp.arange(N) < 1):
        (value, _), (gradient, _) = LOCAL(S, T, nothing)
        assert value == 0
        assert not gradient.any()
    assert count > K


def test_repeated_and_dead_tokens():
    everything = jnp.ones(N, bool)
    for x in (S[jnp.arange(N) % 5], 0 * S, 1e4 * S, 1e-4 * S):
        (value, _), (gradient, _) = LOCAL(x, T, everything)
        assert jnp.isfinite(value)
        assert jnp.isfinite(gradient).all()


@pytest.mark.long
def test_two_clusters(rng):
    c, n = 6, 12
    x = 1e-3 * array(rng, n, 3) + jnp.where(jnp.arange(n)[:, None] < c, 0.0, 100.0)
    graph = KNN(x, c - 1, sigma=1.0)
    a = dense(graph, n)
    block = np.kron(np.eye(2), np.ones((c, c))) - np.eye(n)
    close(a, block, atol=1e-4)
    row = scipy.special.softmax(a, 1)
    close(row[block > 0], np.e / ((c - 1) * np.e + n - c + 1), rtol=1e-4)
    # The same clusters, so the same graph, whatever the width.
    other = KNN(1e-3 * array(rng, n, 7) + jnp.where(jnp.arange(n)[:, None] < c, 0.0, 50.0), c - 1, sigma=1.0)
    close(R.graph_kl(graph, other), 0, atol=1e-6)


@pytest.mark.long
def test_node_infonce(rng):
    s, t = array(rng, N, 9), T

    def exact(s, t, tau):
        a, b = (np.float64(x) / np.linalg.norm(np.float64(x), axis=1, keepdims=True) for x in (s, t))
        return -np.diagonal(scipy.special.log_softmax(a @ b.T / tau, 1))

    run = jax.jit(
        jax.value_and_grad(
            lambda s, t, tau, where: (lambda v: (v.sum(), v))(
                R.node_infonce(s, t, temperature=tau, where=where)
            ),
            argnums=(0, 1),
            has_aux=True,
        )
    )
    everything = jnp.ones(N, bool)
    (_, values), (gradient, to_teacher) = run(s, t, 0.1, everything)
    close(values, exact(s, t, 0.1), rtol=1e-4)
    assert gradient.any()
    assert not to_teacher.any()
    close(run(t, t, 1e-3, everything)[0][1], 0, atol=1e-6)
    close(run(s, t, 1e5, everything)[0][1], np.log(N), rtol=1e-4)
    close(run(s[::-1], t[::-1], 0.1, everything)[0][1], values[::-1], rtol=1e-4)
    where = jnp.arange(N) % 3 > 0
    (_, masked), (gradient, _) = run(s.at[~where].set(jnp.nan), t.at[~where].set(jnp.nan), 0.1, where)
    close(masked[where], exact(s[where], t[where], 0.1), rtol=1e-4)
    assert not masked[~where].any()
    assert not gradient[~where].any()
    assert jnp.isfinite(gradient).all()


@pytest.mark.long
def test_settings_are_vmapped_and_nothing_is_compiled_twice(rng, compilations):
    @jax.jit
    def trg(key, s, t, tau):
        positions = R.sample_tokens(key, 4, 16, 4)

        def nodes(x):
            return jnp.take_along_axis(x, positions[..., None], axis=1).reshape(16, -1)

        kl = R.graph_kl(R.knn_affinity(nodes(s), 3), R.knn_affinity(nodes(t), 3), temperature=tau)
        return (
            R.context_loss(s, t).mean()
            + kl.mean()
            + R.node_infonce(nodes(s), nodes(t), temperature=tau).mean()
        )

    s, t = array(rng, 4, 16, 5), array(rng, 4, 16, 5)
    keys = jax.random.split(jax.random.key(0), 3)
    taus = jnp.asarray([0.1, 0.5, 1.0])
    singles = [trg(k, s, t, tau) for k, tau in zip(keys, taus, strict=True)]
    assert compilations["jit(trg)"] == 1
    close(jax.vmap(trg, (0, None, None, 0))(keys, s, t, taus), singles, rtol=1e-5)
    jax.export.export(jax.jit(jax.grad(trg, argnums=1)), platforms=("cpu", "cuda", "tpu"))(
        keys[0], s, t, taus[0]
    )


def test_batch_losses_lower_for_every_platform(rng):
    def total(features):
        return sum(LOSSES[n][0](*features[n]) for n in LOSSES)

    features = {n: (array(rng, *LOSSES[n][2]), array(rng, *LOSSES[n][3])) for n in LOSSES}
    jax.export.export(jax.jit(jax.grad(total)), platforms=("cpu", "cuda", "tpu"))(features)
