"""Sparse and dense operators against each other and against float64 NumPy and SciPy."""

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from jgd.core import from_linen
from jgd.graph import (
    DenseOperator,
    DiagonalOperator,
    SparseOperator,
    adjacency,
    edge_weights,
    from_coo,
    from_edges,
    identity,
    induced_subgraph,
    normalize,
    num_nodes,
    operator,
    propagate,
    sparse_features,
)
from jgd.nn import APPNP, GAT, GCN, GIN, SGC, ChebNet, GraphSAGE

close = np.testing.assert_allclose
N = 6  # node 5 has no edges
SENDERS = np.asarray([0, 1, 2, 2, 3, 4, 4, 1, 0])
RECEIVERS = np.asarray([1, 0, 0, 3, 2, 4, 2, 3, 4])  # directed, with a self loop, no repeated edge
WEIGHTS = np.linspace(0.5, 2.0, len(SENDERS)).astype(np.float32)
GRAPH = from_edges(SENDERS, RECEIVERS, edges=WEIGHTS, num_nodes=N)
ADJACENCY = np.zeros((N, N))
ADJACENCY[RECEIVERS, SENDERS] = WEIGHTS
TALL = sp.coo_array(np.maximum(np.sin(np.arange(8 * N) ** 2), 0).reshape(8, N).astype(np.float32))


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def pair(matrix=GRAPH, array=ADJACENCY):
    return operator(matrix), operator(jnp.asarray(array, jnp.float32))


def scatter(a, values):
    """Edge values of a sparse operator as the array a dense one has."""
    return jnp.zeros((*a.shape, *values.shape[1:])).at[a.receivers, a.senders].set(values)


BOTH = {
    "square": pair(),
    "transposed": tuple(a.T for a in pair()),
    "tall": pair(TALL, TALL.toarray()),
    "wide": tuple(a.T for a in pair(TALL, TALL.toarray())),
}


def applied(a, on_edges, x, y, q, k):
    """Everything an operator does; ``on_edges`` brings edge values of the sparse one into its form."""
    s = a.scores(q, k)
    soft = a.softmax(s)
    many = (x[:, 0], x, x[:, :, None] * jnp.ones(2))
    return {
        "dense": a.todense(),
        "transposed": a.T.todense(),
        "products": [a @ z for z in many],
        "transposed product": (a.T @ y, a.H @ y),
        "on edges": [on_edges(e) for e in (s, soft, a.at_senders(x), a.at_receivers(y))],
        "attention": (a.with_values(soft) @ x, a.with_values(s).T @ y),
    }


@pytest.mark.parametrize("name", BOTH)
def test_sparse_equals_dense(name):
    sparse, dense = BOTH[name]
    m, n = sparse.shape
    assert isinstance(sparse, SparseOperator)
    assert isinstance(dense, DenseOperator)
    assert dense.shape == (m, n)
    assert sparse.dtype == dense.dtype == jnp.float32
    arguments = x, _, q, k = normal(1, n, 3), normal(2, m, 3), normal(3, m, 3), normal(4, n, 3)
    mask = np.asarray(dense.mask)

    def masked(e):
        return jnp.where(mask.reshape(m, n, *(1,) * (e.ndim - 2)), e, 0)

    a = jax.jit(lambda a, *args: applied(a, lambda e: scatter(a, e), *args))(sparse, *arguments)
    b = jax.jit(lambda a, *args: applied(a, masked, *args))(dense, *arguments)
    for key in a:
        jax.tree.map(lambda u, v: close(u, v, atol=1e-5, err_msg=key), a[key], b[key])
    matrix, x, q, k = (np.asarray(z, np.float64) for z in (dense.values, x, q, k))
    close(a["products"][1], matrix @ x, atol=1e-5)
    close(a["transposed"], matrix.T)
    weights = np.where(mask, np.exp(q @ k.T), 0)
    close(a["on edges"][0], np.where(mask, q @ k.T, 0), atol=1e-5)
    close(a["on edges"][1], weights / np.maximum(weights.sum(1, keepdims=True), 1e-30), atol=1e-5)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("how", ["sum", "mean", "max", "min"])
def test_reduce(name, how):
    sparse, dense = BOTH[name]
    messages = normal(5, len(sparse.values), 2) - 3.0  # negative, so that zeros would win a maximum
    rows = np.asarray(sparse.receivers)
    expected = np.zeros((sparse.shape[0], 2))
    for i in set(rows):
        expected[i] = getattr(np, how)(np.asarray(messages, np.float64)[rows == i], axis=0)

    @jax.jit
    def run(messages):
        both = (sparse.reduce(messages, how), dense.reduce(scatter(sparse, messages), how))
        one = messages[:, 0]
        return both, (sparse.reduce(one, how), dense.reduce(scatter(sparse, one), how))

    both, one = run(messages)
    for a, b in zip(both, one, strict=True):
        close(a, expected, atol=1e-5)
        close(b, expected[:, 0], atol=1e-5)


def test_reduce_keeps_integers_infinities_and_nan():
    sparse, _ = BOTH["square"]
    counts = jnp.arange(len(sparse.values))
    assert sparse.reduce(counts, "max")[5] == 0
    messages = jnp.full(len(sparse.values), jnp.inf).at[0].set(jnp.nan)
    top = sparse.reduce(messages, "max")
    assert jnp.isnan(top[sparse.receivers[0]])
    assert jnp.isinf(top).sum() == 4


@pytest.mark.parametrize("name", BOTH)
def test_heads(name):
    sparse, dense = BOTH[name]
    m, n = sparse.shape
    q, k, x, messages = (
        normal(6, m, 2, 3),
        normal(7, n, 2, 3),
        normal(8, n, 2, 4),
        normal(9, len(sparse.values), 2),
    )

    @jax.jit
    def run(sparse, dense, q, k, x, messages):
        out = []
        for a in (sparse, dense):
            heads = a.with_values(a.softmax(a.scores(q, k)))
            y = heads @ x
            square = normalize(heads, "sym").todense()
            out.append((heads.todense(), y, heads @ x[..., 0], heads.T @ y, square))
        bare = DenseOperator(out[1][0])  # heads without a pattern of their own
        reduced = sparse.reduce(messages, "mean"), bare.reduce(scatter(sparse, messages), "mean")
        single = [
            sparse.with_values(sparse.softmax(sparse.scores(q[:, h], k[:, h]))) @ x[:, h] for h in range(2)
        ]
        return out, reduced, jnp.stack(single, 1)

    (a, b), reduced, single = run(sparse, dense, q, k, x, messages)
    jax.tree.map(lambda u, v: close(u, v, atol=1e-5), a, b)
    close(*reduced, atol=1e-5)
    close(a[1], single, atol=1e-5)
    for h in range(2):
        close(a[4][..., h], normalized(a[0][..., h], "sym"), atol=1e-5)


def test_transposed_pattern_with_heads():
    a = DenseOperator(jnp.ones((2, 3, 4))).with_values(jnp.zeros((2, 3, 4)))
    assert a.T.mask.shape == a.T.values.shape == (3, 2, 4)


@pytest.mark.long
def test_softmax_of_large_scores_and_no_edges():
    sparse, dense = BOTH["square"]
    scores = jnp.full(len(sparse.values), 1e4)

    @jax.jit
    def run(scores):
        def softmax(scores):
            return scatter(sparse, sparse.softmax(scores)), dense.softmax(scatter(sparse, scores))

        return softmax(scores), jax.jacrev(softmax)(scores)

    values, gradients = run(scores)
    close(*values, atol=1e-6)
    close(*gradients, atol=1e-6)
    empty = operator(from_edges(np.zeros(0, int), np.zeros(0, int), num_nodes=3), normalize="sym")
    assert empty.softmax(jnp.zeros((0, 2))).shape == (0, 2)
    assert not (empty @ jnp.ones((3, 2))).any()
    close(empty.reduce(jnp.zeros((0, 2)), "max"), np.zeros((3, 2)))


def test_attention_gradients_sparse_equal_dense():
    sparse, dense = BOTH["tall"]
    q, k, x = normal(10, 8, 3), normal(11, N, 3), normal(12, N, 2)

    def loss(a, q, k, x):
        return jnp.sum(jnp.sin(a.with_values(a.softmax(a.scores(q, k))) @ x))

    gradient = jax.jit(jax.grad(loss, (1, 2, 3)), static_argnums=())
    for a, b in zip(gradient(sparse, q, k, x), gradient(dense, q, k, x), strict=True):
        close(a, b, atol=1e-5)


# --- normalisation --------------------------------------------------------------------------------


def normalized(a, how):
    """In float64."""
    a = np.asarray(a, np.float64)

    def power(d, e):
        return np.where(d > 0, np.where(d > 0, d, 1) ** e, 0)

    rows, cols = a.sum(1), a.sum(0)
    if how == "sym":
        return power(rows, -0.5)[:, None] * a * power(cols, -0.5)
    return power(rows, -1)[:, None] * a if how == "row" else a * power(cols, -1)


@pytest.mark.parametrize("how", ["sym", "row", "col"])
@pytest.mark.parametrize("loops", [False, True, 0.5])
def test_normalisations(how, loops):
    expected = normalized(ADJACENCY + float(loops) * np.eye(N), how)
    sources = (GRAPH, ADJACENCY.astype(np.float32), sp.csr_array(ADJACENCY), sp.coo_matrix(ADJACENCY))

    @jax.jit
    def run():
        tall = operator(TALL)
        square = [operator(source, normalize=how, self_loops=loops).todense() for source in sources]
        return square, [normalize(tall, how).todense(), normalize(tall.T, how).todense()]

    square, (tall, wide) = run()
    for a in square:
        close(a, expected, atol=1e-6)
    if loops is True and how != "sym":
        close(square[0].sum(1 if how == "row" else 0), 1, atol=1e-6)
    if loops is False:
        assert not expected[5].any()
    close(tall, normalized(TALL.toarray(), how), atol=1e-6)
    close(wide, normalized(TALL.toarray().T, how), atol=1e-6)


def test_repeated_edges_add_up_before_normalising():
    twice = from_edges([0, 0, 1] * np.ones(3, int), [1, 1, 0] * np.ones(3, int), num_nodes=2)
    a = operator(twice, normalize="sym", self_loops=True)
    close(a.todense(), normalized([[1, 1], [2, 1]], "sym"), atol=1e-6)


@pytest.mark.parametrize("dtype", [bool, np.int32, np.uint8, np.float64])
def test_weights_become_floating(dtype):
    weights = np.ones(len(SENDERS), dtype)
    counts = (ADJACENCY != 0).astype(np.float64)
    graph = from_edges(SENDERS, RECEIVERS, edges=weights, num_nodes=N)
    sources = (graph, sp.csr_array(counts.astype(dtype)), counts.astype(dtype))
    for a in jax.jit(lambda: [operator(s, normalize="row", self_loops=0.5).todense() for s in sources])():
        assert a.dtype == jnp.float32
        close(a, normalized(counts + 0.5 * np.eye(N), "row"), atol=1e-6)


def test_weights_of_a_graph():
    plain = GRAPH._replace(edges=None)
    close(operator(plain).todense(), ADJACENCY != 0)
    for edges in (WEIGHTS, WEIGHTS[:, None], {"weight": WEIGHTS, "other": np.ones((9, 4))}):
        close(operator(GRAPH._replace(edges=edges)).todense(), ADJACENCY, atol=1e-6)
    assert edge_weights(GRAPH._replace(edges={"other": np.ones((9, 4))})) is None
    with pytest.raises(ValueError, match="keep them in a dict"):
        operator(GRAPH._replace(edges=np.ones((9, 4))))


@pytest.mark.long
def test_gradient_through_normalisations():
    """A learned adjacency: the sparse and dense gradients agree, and with finite differences."""
    w = normal(13, N, N) * jnp.asarray(ADJACENCY != 0)
    x = normal(14, N, 2)
    sparse = operator(GRAPH)

    def dense_loss(w, how):
        return jnp.sum(jnp.sin(operator(w**2, normalize=how, self_loops=True) @ x))

    def sparse_loss(v, how):
        a = from_coo(
            jnp.append(sparse.senders, jnp.arange(N)),
            jnp.append(sparse.receivers, jnp.arange(N)),
            jnp.append(v**2, jnp.ones(N)),
            shape=(N, N),
        )
        return jnp.sum(jnp.sin(normalize(a, how) @ x))

    v = w[sparse.receivers, sparse.senders]
    for how in ("sym", "row", "col"):
        dense = jax.jit(jax.grad(lambda w: dense_loss(w, how)))(w)
        on_edges = np.asarray(dense)[np.asarray(sparse.receivers), np.asarray(sparse.senders)]
        close(on_edges, jax.jit(jax.grad(lambda v: sparse_loss(v, how)))(v), atol=1e-5)

        def f(w):
            return np.sin(normalized(w**2 + np.eye(N), how) @ np.asarray(x, np.float64)).sum()

        w64, step = np.asarray(w, np.float64), np.zeros((N, N))
        step[1, 0] = 1e-5
        close(dense[1, 0], (f(w64 + step) - f(w64 - step)) / 2e-5, atol=1e-4)
    alone = jax.grad(lambda v: jnp.sum(normalize(sparse.with_values(v), "sym").values ** 2))(
        jnp.zeros(len(v))
    )
    assert jnp.isfinite(alone).all()  # degrees of zero


def test_under_jit_with_traced_senders():
    @jax.jit
    def run(graph, x):
        return operator(graph, normalize="sym", self_loops=True) @ x

    x = normal(15, N, 3)
    graph = GRAPH._replace(nodes=x)  # whose rows say how many nodes there are
    close(run(graph, x), normalized(ADJACENCY + np.eye(N), "sym") @ np.asarray(x), atol=1e-5)


def test_operators_are_pytrees():
    a = operator(GRAPH)
    x = normal(16, N, 2)
    close(jax.jit(lambda a, x: a.T @ x)(a, x), ADJACENCY.T @ np.asarray(x), atol=1e-5)
    many = a.with_values(jnp.stack([a.values, 2 * a.values]))
    axes = SparseOperator(0, None)
    close(jax.vmap(lambda a: a @ x, (axes,))(many)[1], 2 * (a @ x), atol=1e-5)
    dense = jax.vmap(lambda w: operator(w, normalize="row") @ x)(jnp.stack([a.todense(), a.todense().T]))
    close(dense[1], normalized(ADJACENCY.T, "row") @ np.asarray(x), atol=1e-5)


def test_complex_operator():
    phase = np.exp(1j * np.linspace(0, 1, len(SENDERS))).astype(np.complex64)
    a = from_coo(SENDERS, RECEIVERS, WEIGHTS * phase, shape=(N, N))
    matrix = np.zeros((N, N), complex)
    matrix[RECEIVERS, SENDERS] = WEIGHTS * phase
    x = normal(17, N, 2)
    close(a @ x, matrix @ np.asarray(x), atol=1e-5)
    close(a.H @ x, matrix.conj().T @ np.asarray(x), atol=1e-5)
    close(a.T @ x, matrix.T @ np.asarray(x), atol=1e-5)
    close(DenseOperator(a.todense()).H @ x, matrix.conj().T @ np.asarray(x), atol=1e-5)
    with pytest.raises(ValueError, match="complex"):
        normalize(a, "sym")


@pytest.mark.parametrize("kind", [0, 1])
def test_wrong_shapes(kind):
    a = BOTH["tall"][kind]
    with pytest.raises(ValueError, match=r"A has 6 columns, but x has shape \(5, 2\)"):
        a @ jnp.ones((5, 2))
    heads = a.with_values(jnp.ones((*a.values.shape, 2)))
    for x in (jnp.ones(6), jnp.ones((6, 3, 1))):
        with pytest.raises(ValueError, match="A has 2 heads"):
            heads @ x
    with pytest.raises((ValueError, TypeError)):
        a.scores(jnp.ones((6, 2)), jnp.ones((6, 3)))


def test_wrong_coordinates():
    ok = np.asarray([0, 1])
    for senders, receivers, message in (
        (np.asarray([0, 2]), ok, r"senders\[1\] is 2, but indices run from 0 to 1"),
        (ok, np.asarray([-1, 0]), r"receivers\[0\] is -1"),
        (np.asarray([0, 2**32]), ok, r"senders\[1\] is 4294967296"),
    ):
        with pytest.raises(ValueError, match=message):
            from_coo(senders, receivers, shape=(2, 2))
    with pytest.raises(ValueError, match="normalize must be one of"):
        normalize.__wrapped__(operator(GRAPH), "rows")  # unchecked, as where no hook is installed


# --- products -------------------------------------------------------------------------------------


def test_propagate():
    x, alpha = normal(18, N, 3), 0.8
    identity = operator(jnp.zeros((N, N)), self_loops=True)
    for terms in (1, 2, 7):
        close(propagate(identity, x, terms, alpha), (1 - alpha**terms) * x, atol=1e-5)
    a = operator(GRAPH, normalize="row", self_loops=True)
    matrix = normalized(ADJACENCY + np.eye(N), "row")
    expected = (1 - alpha) * np.linalg.solve(np.eye(N) - alpha * matrix, np.asarray(x, np.float64))
    close(propagate(a, x, 200, alpha), expected, atol=1e-5)
    close(
        jax.vmap(lambda alpha: propagate(a, x, 200, alpha))(jnp.asarray([0.8, 0.0]))[0], expected, atol=1e-5
    )
    series = sum(0.5 * 0.5**t * np.linalg.matrix_power(matrix, t) @ np.asarray(x) for t in range(4))
    close(propagate(a, x, 4, 0.5), series, atol=1e-5)
    assert propagate(a, x.astype(jnp.bfloat16), 3, alpha).dtype == jnp.float32
    assert propagate(a, jnp.ones((N, 1), int), 3, alpha).dtype == jnp.float32
    with pytest.raises(ValueError, match="at least 1"):
        propagate(a, x, 0, alpha)


def test_sparse_features():
    matrix = TALL.toarray().astype(np.float64)
    w = normal(19, N, 4)
    for source in (TALL, TALL.tocsr(), TALL.toarray(), jnp.asarray(TALL.toarray()), sp.csr_matrix(TALL)):
        x = sparse_features(source)
        assert len(x.values) == TALL.nnz
        close(x @ w, matrix @ np.asarray(w), atol=1e-5)
    gradient = jax.grad(lambda w: jnp.sum((x @ w) ** 2))(w)
    close(gradient, 2 * matrix.T @ matrix @ np.asarray(w), atol=1e-4)
    close(sparse_features(np.eye(3, dtype=bool)).todense(), np.eye(3))
    graph = from_edges(np.asarray([0, 1]), np.asarray([1, 7]), nodes=x)
    assert num_nodes(graph) == 8
    close((operator(graph) @ (graph.nodes @ w))[7], matrix[1] @ np.asarray(w), atol=1e-5)


@jax.jit
def diffused(graph):
    return propagate(operator(graph, normalize="sym", self_loops=True), graph.nodes, 5, 0.7)


@given(st.permutations(range(N)))
@settings(max_examples=15, deadline=None, database=None)
def test_permutation_equivariance(order):
    order = np.asarray(order)
    x = np.asarray(normal(20, N, 2))
    graph = GRAPH._replace(nodes=x)
    renamed = induced_subgraph(graph, order)
    close(adjacency(renamed).toarray(), ADJACENCY[np.ix_(order, order)])
    close(diffused(renamed), diffused(graph)[order], atol=1e-5)


def test_a_batch_of_graphs_is_block_diagonal():
    both = jraph.batch_np([GRAPH, GRAPH])
    close(operator(both).todense(), np.kron(np.eye(2), ADJACENCY), atol=1e-6)


# --- diagonal -----------------------------------------------------------------------------------


def test_diagonal_equals_dense():
    rng = np.random.default_rng(0)
    v, x = rng.uniform(0.5, 2, 5).astype(np.float32), rng.standard_normal((5, 3), np.float32)
    d, dense = DiagonalOperator(jnp.asarray(v)), DenseOperator(jnp.diag(jnp.asarray(v)))
    close = np.testing.assert_allclose
    close(d @ x, dense @ x, rtol=1e-6)
    close(d.T @ x, dense.T @ x, rtol=1e-6)
    close(d.todense(), dense.todense())
    close(d.scores(x, x), np.diag(dense.scores(jnp.asarray(x), jnp.asarray(x))), rtol=1e-5)
    close(d.softmax(jnp.asarray(v)), 1)
    close(d.with_values(2 * d.values).todense(), 2 * np.diag(v))
    for how in ("sum", "mean", "max", "min"):
        close(d.reduce(jnp.asarray(x), how), x)
    for options in ({"normalize": "sym"}, {"normalize": "row"}, {"normalize": "sym", "self_loops": True}):
        close(operator(d, **options).todense(), operator(np.diag(v), **options).todense(), rtol=1e-6)
    heads = DiagonalOperator(jnp.asarray(rng.uniform(size=(5, 2)).astype(np.float32)))
    y = rng.standard_normal((5, 2, 3), np.float32)
    close(heads @ y, np.asarray(heads.values)[..., None] * y, rtol=1e-6)
    close(heads.todense()[2, 2], heads.values[2])
    with pytest.raises(ValueError, match="5 columns"):
        d @ x[:4]


@pytest.mark.parametrize("net", [GCN, SGC, GAT, ChebNet, APPNP, GraphSAGE, GIN])
def test_networks_without_edges(net):
    """On a diagonal as on the dense matrix that it is."""
    x = np.random.default_rng(1).standard_normal((5, 3)).astype(np.float32)
    model = from_linen(net(num_classes=2, **({} if net is SGC else {"hidden": 8})))
    ones = identity(5)
    a, dense = (operator(m, **net.adjacency) for m in (ones, np.eye(5, dtype=np.float32)))
    params, state = model.init(jax.random.key(0), dense, jnp.asarray(x))
    found, expected = (model.apply(params, state, m, jnp.asarray(x))[0].logits for m in (a, dense))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
