"""DosCond for sets of graphs, and the dense graphs that it learns."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graph_toy import TASK, chains, task_of

from jgd.condense import METHODS
from jgd.condense._doscond_graphs import DosCondGraphs, drawn_graphs, graph_matching
from jgd.condense.backbones import graphs_of, readout, val_graphs
from jgd.condense.bilevel import MatchContext
from jgd.condense.coresets import Random
from jgd.condense.start import stack, start_graphs
from jgd.condense.synthesizers import dense_graph_set
from jgd.core import Bound, Examples, InMemory, in_memory
from jgd.data import DenseGraphs, Training
from jgd.data.artifact import load, save
from jgd.evaluation import KINDS, evaluate
from jgd.evaluation.kinds.graphs import joined
from jgd.graph import select_graphs
from jgd.training import all_graphs

CONFIG = KINDS["graphs"].make().config
close, equal = np.testing.assert_allclose, np.testing.assert_array_equal
KEY = jax.random.key(0)
INDEX = np.flatnonzero(TASK.train)
LABELS = TASK.labels[INDEX]
NODES = int(TASK.graphs.n_node.max())
QUICK = {"per_class": 2, "nodes": NODES, "hidden": 8, "layers": 2, "steps": 20, "batch": 8}
RECIPE = DosCondGraphs(**QUICK, select_every=None)


class Spy(InMemory):
    """Remembers what it ran."""

    def __call__(self, name, alg, key, data, num_steps, batches=None):
        self.ran = alg, data
        return super().__call__(name, alg, key, data, num_steps, batches)


def letters(count=48, seed=0):
    """Chains whose letters are mostly A and B in one class, mostly C and D in the other."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    words = ["".join(rng.choice(list("ABCD"[2 * c :][:2] + "EF"), rng.integers(3, 7))) for c in labels]
    return task_of([chains(word) for word in words], labels)


def whole():
    """All training graphs as a stack in which only their own nodes exist."""
    graphs = select_graphs(TASK.graphs, INDEX)
    a, x = stack(graphs, NODES)
    exists = np.arange(NODES) < graphs.n_node[:, None]
    return Examples(tuple(jnp.asarray(part) for part in (a, x, exists)), jnp.asarray(LABELS))


# --- stacks and what sees them ----------------------------------------------------------------------


def test_stack():
    """Graph by graph; and joined again they are what they were."""
    graphs = select_graphs(TASK.graphs, INDEX)
    a, x = stack(graphs, NODES + 2)
    for i, graph in enumerate(TASK.unbatch(INDEX)):
        n = int(graph.n_node[0])
        brute = np.zeros((NODES + 2, NODES + 2))
        brute[np.asarray(graph.senders), np.asarray(graph.receivers)] = 1
        equal(a[i], brute)
        equal(x[i, :n], graph.nodes)
        equal(x[i, n:], 0)
    exists = np.arange(NODES + 2) < graphs.n_node[:, None]
    again = joined(DenseGraphs(x=x, adj=a, mask=exists))
    equal(again.nodes, graphs.nodes)
    equal(again.n_edge, graphs.n_edge)
    with pytest.raises(ValueError, match="do not fit 3"):
        stack(graphs, 3)


def test_a_directed_graph_becomes_undirected_and_loses_loops():
    graph = chains("AB")._replace(senders=np.asarray([0, 1]), receivers=np.asarray([1, 1]))
    a, _ = stack(graph._replace(n_edge=np.asarray([2])), 2)
    equal(a[0], [[0, 1], [1, 0]])


@pytest.mark.long
@pytest.mark.parametrize("encoder", ["gcn", "gin"])
@pytest.mark.parametrize("pooling", ["sum", "mean"])
def test_a_stack_is_classified_as_the_sparse_batch_is(encoder, pooling):
    model = readout(encoder, 2, hidden=8, layers=2, pooling=pooling)
    small = whole()
    params, state = model.init(KEY, *small.inputs)
    ours = model.apply(params, state, *small.inputs)[0].logits
    sparse = all_graphs(graphs_of(TASK, TASK.train, encoder))
    close(ours, model.apply(params, state, *sparse.inputs)[0].logits, rtol=1e-4, atol=1e-5)
    # Where padding exists, it is pooled like any other node.
    a, x, exists = small.inputs
    padded = model.apply(params, state, a, x, jnp.ones_like(exists))[0].logits
    far = np.abs(padded - ours).max(1) > 1e-5  # its embedding is zero at first, and changes no sum
    equal(far, (exists.sum(1) < NODES) & (pooling == "mean"))


# --- the synthesizer --------------------------------------------------------------------------------


def test_edges_are_drawn_as_often_as_their_logits_say():
    """P(A > 1/2) = σ(S) at any temperature; one draw for both directions; no loops."""
    synth = dense_graph_set()
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 4)), jnp.float32)
    parts = {"x": jnp.zeros((2, 4, 1)), "adj": logits}
    fixed = {"y": jnp.zeros(2, int), "exists": jnp.ones((2, 4), bool)}

    def draw(key, t):
        return synth.render(parts, fixed, key=key, t=t).inputs[0]

    many = np.asarray(jax.vmap(draw, (0, None))(jax.random.split(KEY, 4000), 150))
    equal(many, many.transpose(0, 1, 3, 2))
    equal(np.diagonal(many, axis1=2, axis2=3), 0)
    p = 1 / (1 + np.exp(-(np.asarray(logits) + np.asarray(logits).transpose(0, 2, 1)) / 2))
    off = ~np.eye(4, dtype=bool)
    error = np.sqrt(p * (1 - p) / len(many))
    assert np.all(np.abs((many > 0.5).mean(0) - p)[:, off] < 5 * error[:, off])


def test_temperature():
    """It falls geometrically, to 0.01 after 200 steps, and the same draw only gets harder."""
    synth = dense_graph_set()
    parts = {"x": jnp.zeros((1, 3, 1)), "adj": 0.01 * jnp.ones((1, 3, 3))}
    fixed = {"y": jnp.zeros(1, int), "exists": jnp.ones((1, 3), bool)}
    key = jax.random.key(3)

    def logit(t):
        a = np.asarray(synth.render(parts, fixed, key=key, t=t).inputs[0], np.float64)[
            0, [0, 0, 1], [1, 2, 2]
        ]
        return np.log(a) - np.log1p(-a)

    for t in (10, 50):
        close(logit(t) * 0.01 ** (t / 200), logit(0), rtol=1e-3)
    late = [synth.render(parts, fixed, key=key, t=t).inputs[0] for t in (200, 1000)]
    equal(*late)
    with pytest.raises(ValueError, match="temperature"):
        dense_graph_set(coldest=0.0)


def test_a_start_is_rendered_as_it_is():
    start = start_graphs("random", KEY, TASK, 3, NODES, in_memory, padding="none")
    synth = dense_graph_set()
    parts, fixed = synth.init(KEY, start)
    close(jnp.abs(parts["adj"]), 5, rtol=1e-5)
    assert parts["x"] is not start.inputs[1]  # its own buffer: the state is donated
    small = synth.render(parts, fixed)
    for ours, theirs in zip(small.inputs, start.inputs, strict=True):
        equal(ours, theirs)
    equal(small.targets, [0, 0, 0, 1, 1, 1])
    # What does not exist stays empty, whatever is learned.
    parts = jax.tree.map(lambda p: p + 50.0, parts)
    a, x, exists = (np.asarray(part) for part in synth.render(parts, fixed, key=KEY, t=0).inputs)
    equal(a.any(2) & ~exists, False)
    equal(x[~exists], 0)
    assert a.any(2)[exists].all()


def test_starts():
    start = start_graphs("random", KEY, TASK, 2, NODES + 1, in_memory)
    assert start.inputs[2].all()
    found = joined(Random(per_class=2)(KEY, TASK).data)
    equal(np.asarray(start.inputs[1]).any(2).sum(1), found.n_node)
    noise = start_graphs("noise", KEY, TASK, 30, NODES, in_memory)
    assert noise.inputs[0].shape == (60, NODES, NODES)
    graphs = select_graphs(TASK.graphs, INDEX)
    expected = len(graphs.senders) / (len(INDEX) * NODES * (NODES - 1))
    rate = noise.inputs[0].sum() / (60 * NODES * (NODES - 1))
    assert abs(rate - expected) < 5 * np.sqrt(expected / (30 * NODES * (NODES - 1)))
    with pytest.raises(ValueError, match=r"no training graph of class 0 .* give more nodes"):
        start_graphs("random", KEY, TASK, 2, 3, in_memory)
    with pytest.raises(ValueError, match="pools over roots"):
        start_graphs(
            "random", KEY, replace(TASK, root=np.ones(len(TASK.graphs.nodes), bool)), 1, 9, in_memory
        )


# --- matching ---------------------------------------------------------------------------------------


def drawn(batch, steps=5, **options):
    return drawn_graphs(0, graphs_of(TASK, TASK.train, "gcn"), LABELS, 2, batch=batch, steps=steps, **options)


def test_drawn_graphs():
    real, sizes = drawn(5)
    order = np.asarray(real.order)
    assert order.shape == (5, 2, 5)
    for c in (0, 1):
        assert (LABELS[order[:, c]] == c).all()
    assert all(len(set(group)) == 5 for group in order.reshape(-1, 5).tolist())
    n_node, n_edge = TASK.graphs.n_node[INDEX], TASK.graphs.n_edge[INDEX]
    assert n_node[order].sum(-1).max() < sizes[0]
    assert (n_edge + n_node)[order].sum(-1).max() <= sizes[1]  # a loop for each node
    everything, _ = drawn(30)
    assert (np.asarray(everything.order) >= 0).sum(-1).max() == np.bincount(LABELS).max()
    assert drawn(5, by_class=False)[0].order.shape == (5, 1, 10)


@pytest.mark.long
@pytest.mark.parametrize("by_class", [True, False])
def test_nothing_is_left_to_match_where_the_set_is_the_real_one(by_class):
    """And half of the set is at a distance that is the sum of squares of plain differences."""
    count = np.bincount(LABELS)
    assert count[0] == count[1]
    real, sizes = drawn(int(count[0]), by_class=by_class)
    model = readout("gcn", 2, hidden=8, layers=2)
    small = whole()
    params, state = model.init(KEY, *small.inputs)
    net = Bound(params, state, model)
    parts = {"adj": jnp.full((len(LABELS), NODES, NODES), -20.0)}
    loss = graph_matching(2, sizes, by_class=by_class)

    @jax.jit
    def distance(examples, parts, real):
        return loss(
            MatchContext(net, examples, parts, real._replace(edges=examples.inputs[0]), None, KEY, 2)
        )[0]

    half = small._replace(inputs=tuple(p[::2] for p in small.inputs), targets=small.targets[::2])
    shifted = half._replace(targets=jnp.asarray(np.arange(len(half.targets)) % 2))

    def gradient(examples, c):
        a, x, exists = examples.inputs
        keep = np.ones(len(a), bool) if c is None else np.asarray(examples.targets) == c

        def value(p):
            logits = model.apply(p, state, a[keep], x[keep], exists[keep])[0].logits
            return -jnp.mean(jax.nn.log_softmax(logits)[np.arange(keep.sum()), examples.targets[keep]])

        return jax.tree.leaves(jax.jit(jax.grad(value))(params))

    groups = (0, 1) if by_class else (None,)
    brute = sum(
        float(jnp.sum((p - q) ** 2))
        for c in groups
        for p, q in zip(gradient(small, c), gradient(shifted, c), strict=True)
    )
    short = {"adj": parts["adj"][: len(half.targets)]}
    close(distance(shifted, short, real), brute, rtol=1e-3)
    assert distance(small, parts, real) < 1e-6 * brute


@pytest.mark.long
def test_penalties():
    """Probabilities of edges beyond the density of the start; the norm of pooled propagated features."""
    start = start_graphs("random", KEY, TASK, 2, NODES, in_memory, padding="none")
    synth = dense_graph_set()
    parts, fixed = synth.init(KEY, start)
    parts["adj"] = parts["adj"] + 2
    small = synth.render(parts, fixed)
    model = readout("gcn", 2, hidden=4, layers=2)
    net = Bound(*model.init(KEY, *small.inputs), model)
    real, sizes = drawn(4)
    args = (net, small, parts, real._replace(edges=start.inputs[0]), None)

    def total(**options):
        loss = graph_matching(2, sizes, **options)
        return jax.jit(lambda args: loss(MatchContext(*args, KEY, 0))[0])(args)

    plain = total(sparsity=0.0)
    a, x, exists = (np.asarray(p, np.float64) for p in start.inputs)
    pairs = (exists[:, :, None] * exists[:, None]).astype(bool)
    p = 1 / (1 + np.exp(-np.asarray(parts["adj"], np.float64)))
    close(total(sparsity=2.0) - plain, 2 * (p[pairs].mean() - a[pairs].mean()), rtol=1e-3)
    loops = a + np.eye(NODES)
    d = loops.sum(2)
    normal = loops / np.sqrt(d[:, :, None] * d[:, None])
    pooled = (normal @ normal @ normal @ x * exists[..., None]).sum(1)
    close(total(sparsity=0.0, gap=3.0, pooling="sum") - plain, 3 * np.linalg.norm(pooled), rtol=1e-4)
    pooled /= exists.sum(1)[:, None]
    close(total(sparsity=0.0, gap=3.0) - plain, 3 * np.linalg.norm(pooled), rtol=1e-4)


# --- the method -------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("padding", ["learned", "none"])
def test_result(padding, tmp_path):
    recipe = replace(RECIPE, padding=padding, steps=60, select_every=30 if padding == "learned" else None)
    loop = InMemory({})
    small = recipe(KEY, TASK, loop)
    data = small.data
    assert data.x.shape == (4, NODES, TASK.graphs.nodes.shape[1])
    assert np.isfinite(data.x).all()
    equal(data.adj, data.adj.transpose(0, 2, 1))
    assert set(np.unique(data.adj)) <= {0.0, 1.0}
    assert not np.diagonal(data.adj, axis1=1, axis2=2).any()
    assert data.mask.all() == (padding == "learned")
    equal(small.targets, [0, 0, 1, 1])
    assert small.training == Training(targets="classes", pooling="mean")
    assert small.provenance["graphs"] == 4
    assert small.provenance["nodes"] == data.mask.sum()
    assert small.provenance["edges"] == data.adj.sum() == joined(data).n_edge.sum()
    history = loop.history["match"]
    assert history["matched"][-20:].mean() < history["matched"][:20].mean()
    again = recipe(KEY, TASK)
    equal(again.data.x, data.x)
    equal(again.data.adj, data.adj)
    save(small, tmp_path / "set")
    equal(load(tmp_path / "set").data.adj, data.adj)
    score = evaluate(small, TASK, seeds=2, config=replace(CONFIG, steps=20, hidden=8))["gin"]
    assert np.isfinite(score.test).all()


@pytest.mark.long
def test_test_graphs_are_not_seen():
    nodes = np.repeat(TASK.test, TASK.graphs.n_node)[:, None]
    other = TASK.graphs._replace(nodes=np.where(nodes, 9.0, TASK.graphs.nodes).astype(np.float32))
    changed = replace(TASK, graphs=other, labels=np.where(TASK.test, 0, TASK.labels))
    equal(RECIPE(KEY, changed).data.x, RECIPE(KEY, TASK).data.x)


@pytest.mark.slow
def test_matching_teaches_and_matching_shuffled_labels_does_not():
    """From noise, by the gradients of real graphs; by those of shuffled labels nothing of use is learned."""
    task = letters()
    rng = np.random.default_rng(0)
    shuffled = replace(task, labels=np.where(task.train, rng.permutation(task.labels), task.labels))
    recipe = DosCondGraphs(
        **QUICK | {"nodes": 6, "steps": 150, "start": "noise", "lr_x": 0.05}, select_every=None
    )
    config = replace(CONFIG, steps=100, hidden=16, select="accuracy", pooling="mean")
    real, wrong = (
        evaluate(recipe(KEY, t), task, networks=("gcn",), seeds=3, config=config)["gcn"].seeds()
        for t in (task, shuffled)
    )
    assert real.mean() > 0.85, (real, wrong)
    assert real.mean() > wrong.mean() + 0.2, (real, wrong)


def test_official_settings():
    assert METHODS.official("doscond-graphs", "NCI1").lr_adj == 1.0
    assert METHODS.official("doscond-graphs", "ogbg-molhiv", per_class=1) == DosCondGraphs(
        per_class=1, lr_adj=0.01, pooling="sum", gap=1.0
    )
    assert METHODS.official("doscond-graphs", "unknown") == DosCondGraphs()


@pytest.mark.long
def test_without_validation_graphs_the_last_set_is_returned():
    blind = replace(RECIPE, select_every=10)(KEY, replace(TASK, val=None))
    equal(blind.data.x, RECIPE(KEY, TASK).data.x)
    assert val_graphs(replace(TASK, val=None), "gcn") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"per_class": 0}, "per_class must be at least 1"),
        ({"select_every": 0}, "select_every must be at least 1 or None"),
        ({"lr_adj": -1.0}, "lr_adj must not be negative"),
    ],
)
def test_refusals(change, message):
    with pytest.raises(ValueError, match=message):
        DosCondGraphs(**change)
