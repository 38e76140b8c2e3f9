"""Every network of the catalogue on a toy task of each kind that it reads.

A new network is covered by its being in the catalogue, a new family by the member that its summary names.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graph_toy import TASK as GRAPHS

from jgd.core import from_linen
from jgd.data import ArrayTask, contextual_sbm
from jgd.graph import EXPORT_CHECKS, graph_ids, operator, select_graphs
from jgd.nn import NETWORKS, VGG, Perceptron, Readout, ResNet, TextTransformer, WideResNet, network, zoo
from jgd.nn.zoo import members

INDEX = np.arange(6)
MASKS = {"train": INDEX < 4, "test": INDEX >= 4}
PIXELS = np.sin(np.arange(384.0) ** 2).reshape(6, 8, 8, 1).astype(np.float32)
WORDS = (1 + 7 * np.arange(30).reshape(6, 5) % 19).astype(np.int32)
TASKS = {
    "nodes": contextual_sbm(num_nodes=24, num_classes=3, num_features=5, mean_degree=4, signal=1.0),
    "graphs": GRAPHS,
    "arrays": ArrayTask(x=PIXELS, y=INDEX % 3, num_classes=3, **MASKS),
    "texts": ArrayTask(x=WORDS, y=INDEX % 3, mask=WORDS % 5 > 0, num_classes=3, **MASKS),
}
CASES = [
    (entry.name, name, kind)
    for kind in TASKS
    for entry, name in zip([e for e in NETWORKS.entries() if kind in e.kinds], members(kind), strict=True)
]


def inputs(net, task, kind):
    """What the network reads of a task, and how many outputs it makes of that."""
    if kind == "nodes":
        graph = task.graph
        return (operator(graph, **net.adjacency), jnp.asarray(graph.nodes)), task.num_nodes
    if kind == "graphs":
        some = select_graphs(task.graphs, np.arange(3))
        owner = graph_ids(some)
        a = operator(some, **net.encoder.adjacency)
        return (a, jnp.asarray(some.nodes), owner, jnp.ones(3)), 3
    given = (task.x,) if task.mask is None else (task.x, task.mask)
    return tuple(map(jnp.asarray, given)), len(task.x)


def drawn(shapes):
    """Random parameters of these shapes, so that nothing is zero; statistics of mean 0 and variance 1."""
    rng = np.random.default_rng(2)
    return jax.tree_util.tree_map_with_path(
        lambda path, p: (
            jnp.ones(p.shape, p.dtype)
            if getattr(path[-1], "key", "") == "var"
            else jnp.asarray(rng.normal(size=p.shape) * max(np.prod(p.shape[:-1]), 1) ** -0.5, p.dtype)
        ),
        shapes,
    )


@pytest.mark.parametrize(("family", "name", "kind"), CASES, ids=lambda value: value)
def test_network(family, name, kind):
    """It sets itself up, gives one row of finite logits for each example, depends on all of its parameters,
    and is one program for every platform."""
    task = TASKS[kind]
    net = network(name, task)
    assert net == network(name, task)  # equal networks share what `jit` compiled
    given, size = inputs(net, task, kind)
    model = from_linen(net)
    shapes = jax.eval_shape(model.init, jax.random.key(0), *given)
    params, state = drawn(shapes[0]), drawn(shapes[1])

    def loss(params):
        out, _ = model.apply(params, state, *given)
        return jnp.sum(jnp.sin(out.logits)), out

    grads, out = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert out.logits.shape == (size, task.num_classes)
    assert len(out.embedding) == size
    assert np.isfinite(out.logits).all()
    assert all(np.isfinite(g).all() and np.any(g) for g in jax.tree.leaves(grads))

    leaves, tree = jax.tree.flatten((params, state, given))

    @jax.jit
    def apply(*leaves):
        params, state, given = tree.unflatten(leaves)
        return model.apply(params, state, *given)[0].logits

    exported = jax.export.export(apply, platforms=("cpu", "cuda", "tpu"), disabled_checks=EXPORT_CHECKS)
    program = exported(*leaves)
    assert program.platforms == ("cpu", "cuda", "tpu")
    assert [x.shape for x in program.out_avals] == [out.logits.shape]


def test_catalogue():
    for entry in NETWORKS.entries():
        assert entry.summary.endswith(".")
        assert len(entry.summary) < 80
        assert set(entry.kinds) <= set(TASKS)
    tried = {family for family, _, _ in CASES}
    assert tried == set(NETWORKS)
    for family, name, _ in CASES:
        assert ("*" in family) == (family != name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mlp-64", Perceptron(3, (64,))),
        ("mlp-64-32", Perceptron(3, (64, 32))),
        ("resnet20", ResNet(3, 20)),
        ("resnet8x4", ResNet(3, 8, widths=(32, 64, 128, 256))),
        ("wrn-16-2", WideResNet(3, 16, 2)),
        ("vgg8", VGG(3, 8)),
    ],
)
def test_members_of_families(name, expected):
    assert network(name, TASKS["arrays"]) == expected
    assert network(name, TASKS["arrays"]) == expected


def test_texts_and_graphs():
    """A transformer is as long as its texts and knows their words; a set of graphs gets a readout."""
    words = int(WORDS.max()) + 1
    expected = TextTransformer(3, words, width=96, depth=3, length=5)
    assert network("transformer-96-3", TASKS["texts"]) == expected
    net = network("gin", GRAPHS)
    assert isinstance(net, Readout)
    assert net.num_classes == GRAPHS.num_classes


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("resnet", "arrays", "no network is called 'resnet': networks of images are mlp-64-32, convnet-32-2"),
        ("resnet*", "arrays", "no network is called"),
        ("mlp-", "arrays", "no network is called"),
        ("resnet8x2", "arrays", "no network is called"),
        ("wrn-16", "arrays", "no network is called"),
        ("mlp-8", "texts", "does not read texts: networks of texts are transformer-96-3"),
        ("transformer-8-1", "arrays", "does not read images"),
        ("vgg8", "nodes", "does not read nodes: networks of nodes are gcn, sgc"),
        ("gcn", "arrays", "does not read images"),
    ],
)
def test_other_names(name, kind, message):
    with pytest.raises(ValueError, match=message.replace("*", r"\*")):
        zoo.network(name, TASKS[kind])
