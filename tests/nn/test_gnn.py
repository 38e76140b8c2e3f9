"""Networks against float64 NumPy, on sparse, dense and batched graphs, with dense and sparse features."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special

from jgd.core import Examples, from_linen
from jgd.graph import (
    EXPORT_CHECKS,
    adjacency,
    budget_for,
    from_edges,
    graph_ids,
    node_mask,
    operator,
    pad,
    sparse_features,
)
from jgd.nn import APPNP, GAT, GCN, GIN, GPRGNN, MLP, SGC, ChebNet, GraphSAGE, Readout
from jgd.optim import adam_l2
from jgd.training import Splits, classifier

close = np.testing.assert_allclose
N, F, C, H = 9, 5, 3, 4


def undirected(seed, pairs):
    rng = np.random.default_rng(seed)
    senders, receivers = np.asarray(pairs).T
    x = (rng.standard_normal((N, F)) * (rng.random((N, F)) < 0.5)).astype(np.float32)
    return from_edges(np.append(senders, receivers), np.append(receivers, senders), nodes=x)


GRAPH = undirected(
    0, [(0, 1), (0, 2), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (1, 6), (6, 7)]
)  # 8 is isolated
OTHER = undirected(1, [(0, 8), (8, 3), (3, 5), (5, 7), (7, 0), (1, 2)])
BATCH = pad([GRAPH, OTHER], budget_for([GRAPH, OTHER]))
A = adjacency(GRAPH).toarray().astype(np.float64)
X = np.asarray(GRAPH.nodes, np.float64)
NODES = jnp.asarray(GRAPH.nodes)

NETS = {
    "mlp": MLP(C, H),
    "gcn": GCN(C, H),
    "sage": GraphSAGE(C, H),
    "gin": GIN(C, H),
    "cheb": ChebNet(C, H, order=4),
    "gat": GAT(C, H, heads=2),
    "sgc": SGC(C),
    "appnp": APPNP(C, H, hops=4, alpha=0.2),
    "gprgnn": GPRGNN(C, H, hops=4),
}


# --- float64 references -------------------------------------------------------------------------


def power(d, exponent):
    return np.where(d > 0, np.maximum(d, 1e-300) ** exponent, 0)


def symmetric(a):
    d = power(a.sum(1), -0.5)
    return d[:, None] * a * d


A_HAT = symmetric(A + np.eye(N))


def relu(x):
    return np.maximum(x, 0)


def linear(p, x):
    return x @ p["kernel"] + p.get("bias", 0)


def mlp(p, x):
    return linear(p["_Dense_1"]["Linear_0"], relu(linear(p["_Dense_0"]["Linear_0"], x)))


def stacked(layer, name):
    return lambda p, x: layer(p[f"_{name}_1"], relu(layer(p[f"_{name}_0"], x, False)), True)


def gcn(p, x, last):
    return A_HAT @ x @ p["Linear_0"]["kernel"] + p["bias"]


def sage(p, x, last):
    neighbours = np.stack([x[A[i] > 0].mean(0) if A[i].any() else np.zeros(x.shape[1]) for i in range(N)])
    return linear(p["own"], x) + linear(p["neighbours"], neighbours)


def gin(p, x, last):
    total = (1 + p["eps"]) * x + A @ x
    return linear(p["Linear_1"], relu(total @ p["Linear_0"]["kernel"] + p["bias"]))


def cheb(p, x, last):
    laplacian = np.eye(N) - symmetric(A)
    scaled = 2 * laplacian / 2 - np.eye(N)
    terms = [np.eye(N), scaled]
    while len(terms) < 4:
        terms.append(2 * scaled @ terms[-1] - terms[-2])
    return sum(t @ x @ p[f"Linear_{k}"]["kernel"] for k, t in enumerate(terms)) + p["Linear_0"]["bias"]


def gat(p, x, last):
    heads = []
    for h in range(2):
        y = (x @ p["Linear_0"]["kernel"]).reshape(N, 2, -1)[:, h]
        out = np.zeros_like(y)
        for i in range(N):
            near = [j for j in range(N) if A[i, j] or i == j]
            score = np.asarray([y[i] @ p["receiver"][h] + y[j] @ p["sender"][h] for j in near])
            out[i] = scipy.special.softmax(np.where(score > 0, score, 0.2 * score)) @ y[near]
        heads.append(out)
    return (np.mean(heads, 0) if last else np.concatenate(heads, 1)) + p["bias"]


def appnp(p, x):
    z = start = mlp(p["MLP_0"], x)
    for _ in range(4):
        z = 0.8 * A_HAT @ z + 0.2 * start
    return z


REFERENCE = {
    "mlp": mlp,
    "gcn": stacked(gcn, "GCNLayer"),
    "sage": stacked(sage, "SAGELayer"),
    "gin": stacked(gin, "GINLayer"),
    "cheb": stacked(cheb, "ChebLayer"),
    "gat": stacked(gat, "GATLayer"),
    "sgc": lambda p, x: A_HAT @ A_HAT @ x @ p["Linear_0"]["kernel"] + p["bias"],
    "appnp": appnp,
    "gprgnn": lambda p, x: sum(
        g * np.linalg.matrix_power(A_HAT, k) @ mlp(p["MLP_0"], x) for k, g in enumerate(p["gamma"])
    ),
}


def random_params(params, seed=0):
    """Every parameter random, the biases and eps too, so that no term can hide."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: jnp.asarray(0.7 * rng.standard_normal(p.shape), jnp.float32), params)


# --- one network on every kind of graph -----------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_network(rng, name):
    net = NETS[name]
    model = from_linen(net)
    x, x_other = jnp.asarray(GRAPH.nodes), jnp.asarray(OTHER.nodes)
    order = np.random.default_rng(1).permutation(N)
    shuffled = from_edges(
        np.argsort(order)[GRAPH.senders], np.argsort(order)[GRAPH.receivers], nodes=x[order]
    )
    operators = {
        "sparse": operator(GRAPH, **net.adjacency),
        "dense": operator(jnp.asarray(A, jnp.float32), **net.adjacency),
        "other": operator(adjacency(OTHER).toarray(), **net.adjacency),
        "shuffled": operator(shuffled, **net.adjacency),
        "batch": operator(BATCH, **net.adjacency),
    }
    params, state = model.init(jax.random.key(0), operators["sparse"], x)
    params = random_params(params)
    pull = jnp.asarray(rng.standard_normal((N, C)), jnp.float32)

    @jax.jit
    def everything(params, ops, bag):
        def logits(params, a, x):
            return model.apply(params, state, a, x)[0].logits

        def pulled(params, x):
            y = logits(params, ops["sparse"], x)
            return jnp.sum(y * pull), y

        both = jax.value_and_grad(pulled, has_aux=True)
        return {
            "dense": both(params, x),
            "bag": both(params, bag),
            "on_dense": logits(params, ops["dense"], x),
            "shuffled": logits(params, ops["shuffled"], x[order]),
            "other": logits(params, ops["other"], x_other),
            "batch": logits(params, ops["batch"], jnp.asarray(BATCH.nodes)),
        }

    out = everything(params, operators, sparse_features(x))
    (_, y), grads = out["dense"]
    exact = REFERENCE[name](jax.tree.map(lambda p: np.asarray(p, np.float64), params), X)
    close(y, exact, rtol=1e-4, atol=1e-4)
    close(out["on_dense"], y, rtol=1e-4, atol=1e-4)
    close(out["shuffled"], y[order], rtol=1e-4, atol=1e-4)
    close(out["batch"][np.asarray(node_mask(BATCH))], [*y, *out["other"]], rtol=1e-4, atol=1e-4)
    (_, from_bag), bag_grads = out["bag"]
    close(from_bag, y, rtol=1e-4, atol=1e-4)
    jax.tree.map(lambda a, b: close(a, b, rtol=1e-3, atol=1e-3), bag_grads, grads)


def test_pagerank_weights():
    params, _ = from_linen(GPRGNN(C, H, hops=6, alpha=0.3)).init(jax.random.key(0), operator(GRAPH), NODES)
    close(params["gamma"], [*(0.3 * 0.7 ** np.arange(6)), 0.7**6], rtol=1e-5)
    close(np.sum(params["gamma"]), 1, rtol=1e-5)


@pytest.mark.parametrize("layers", [1, 3])
def test_depth(layers):
    a = operator(GRAPH, **GCN.adjacency)
    model = from_linen(GCN(C, H, layers=layers, residual=True))
    params, state = model.init(jax.random.key(0), a, NODES)
    out, _ = model.apply(params, state, a, NODES)
    assert len(params) == layers
    h = X
    for i in range(layers - 1):
        p = params[f"_GCNLayer_{i}"]
        y = relu(A_HAT @ h @ np.asarray(p["Linear_0"]["kernel"], np.float64) + p["bias"])
        h = y + h if y.shape == h.shape else y
    close(out.embedding, h, atol=1e-5)
    close(out.logits, A_HAT @ h @ params[f"_GCNLayer_{layers - 1}"]["Linear_0"]["kernel"], atol=1e-5)


def test_residual_of_sparse_features():
    a = operator(GRAPH, **GCN.adjacency)
    model = from_linen(GCN(C, F, residual=True))
    params, state = model.init(jax.random.key(0), a, NODES)
    dense, sparse = (model.apply(params, state, a, x)[0].logits for x in (NODES, sparse_features(NODES)))
    close(sparse, dense, atol=1e-5)


def test_norms():
    """Layer norm from each row, batch norm from the batch when training and from the average else."""
    x = NODES
    for norm in ("layer", "batch"):
        model = from_linen(MLP(C, H, norm=norm, dropout=0.0))
        params, state = model.init(jax.random.key(0), operator(GRAPH), x)
        h = X @ np.asarray(params["_Dense_0"]["Linear_0"]["kernel"], np.float64)
        axis = 1 if norm == "layer" else 0
        normal = (h - h.mean(axis, keepdims=True)) / np.sqrt(h.var(axis, keepdims=True) + 1e-6)
        if norm == "batch":
            normal = (h - h.mean(0)) / np.sqrt(h.var(0) + 1e-5)
        out, new = model.apply(params, state, operator(GRAPH), x, train=True)
        close(out.embedding, relu(normal), atol=1e-4)
        if norm == "batch":
            mean = new["batch_stats"]["Norm_0"]["BatchNorm_0"]["mean"]
            close(mean, 0.1 * h.mean(0), atol=1e-5)
            still, _ = model.apply(params, state, operator(GRAPH), x)
            close(still.embedding, relu(h / np.sqrt(1 + 1e-5)), atol=1e-4)


@pytest.mark.long
def test_readout():
    ids, weight = graph_ids(BATCH), jnp.ones(len(BATCH.n_node))
    a = operator(BATCH, **GIN.adjacency)
    nodes = None
    for pooling in ("sum", "mean", "max"):
        model = from_linen(Readout(GIN(H, H), 2, pooling))
        params, state = model.init(jax.random.key(0), a, jnp.asarray(BATCH.nodes), ids, weight)
        out, _ = model.apply(params, state, a, jnp.asarray(BATCH.nodes), ids, weight)
        if nodes is None:
            encoder = from_linen(GIN(H, H))
            inner = params["encoder"]
            nodes = relu(np.asarray(encoder.apply(inner, {}, a, jnp.asarray(BATCH.nodes))[0].logits))
        for g in range(2):
            pooled = getattr(np, pooling)(nodes[np.asarray(ids) == g], axis=0)
            close(out.embedding[g], pooled, atol=1e-5)
        close(out.logits, linear(jax.tree.map(np.asarray, params["Linear_0"]), out.embedding), atol=1e-5)
    empty = jnp.where(ids == 1, 0, ids)  # graph 1 has no nodes
    out, _ = model.apply(params, state, a, jnp.asarray(BATCH.nodes), empty, weight)
    close(out.embedding[1], 0)


def test_impossible_networks():
    a = operator(GRAPH, **GAT.adjacency)
    with pytest.raises(ValueError, match="at least one layer"):
        MLP(C, layers=0).init(jax.random.key(0), a, NODES)
    with pytest.raises(ValueError, match="multiple of"):
        GAT(C, hidden=12, heads=8).init(jax.random.key(0), a, NODES)


@pytest.mark.long
def test_export():
    """One training step of a GCN on sparse graph and features, for every platform."""
    inputs = (operator(GRAPH, **GCN.adjacency), sparse_features(GRAPH.nodes))
    examples = Examples(inputs, jnp.arange(N) % C, jnp.ones(N))
    alg = classifier(from_linen(GCN(C, H)), adam_l2(0.01, 5e-4, num_steps=10))
    data = Splits(examples, examples)
    state = alg.init(jax.random.key(0), data, None)
    leaves, tree = jax.tree.flatten((state, data))

    def step(raw, *leaves):
        state, data = tree.unflatten(leaves)
        state, metrics = alg.step(jax.random.wrap_key_data(raw), jnp.int32(3), state, data, None)
        return [*jax.tree.leaves(state), metrics["loss"]]

    raw = jax.random.key_data(jax.random.key(1))
    export = jax.export.export(jax.jit(step), platforms=("cpu", "cuda", "tpu"), disabled_checks=EXPORT_CHECKS)
    restored = jax.export.deserialize(export(raw, *leaves).serialize())
    assert restored.platforms == ("cpu", "cuda", "tpu")
    for ours, theirs in zip(jax.jit(step)(raw, *leaves), restored.call(raw, *leaves), strict=True):
        close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_one_compilation_serves_all_seeds():
    """Networks of equal settings share their functions, so `jit` finds what it compiled."""
    assert from_linen(GCN(C, H)) is from_linen(GCN(C, H))
    assert optax.tree.size(
        from_linen(GCN(C, H)).init(jax.random.key(0), operator(GRAPH), NODES)[0]
    ) == F * H + H + (H * C + C)
