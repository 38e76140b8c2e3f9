"""Objectives and networks that the command line names."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jgd import distill
from jgd.core import from_linen, weighted
from jgd.data.tasks import ArrayTask
from jgd.distill.schedule import learning
from jgd.nn import VGG, Perceptron, ResNet, TextTransformer, WideResNet
from jgd.protocols.objectives import NETWORK_NAMES, OBJECTIVES, network

INDEX = np.arange(60)
X = (np.eye(3, 4)[INDEX % 3] * 2).astype(np.float32)
TASK = ArrayTask(x=X, y=(INDEX % 3).astype(np.int32), train=INDEX < 40, test=INDEX >= 40, num_classes=3)
TEXTS = ArrayTask(
    x=1 + np.tile(INDEX[:, None], (1, 7)).astype(np.int32),
    y=TASK.y, mask=np.ones((60, 7), bool), train=TASK.train, test=TASK.test, num_classes=3,
)  # fmt: skip


def test_every_objective_trains():
    """All of them in one program; each says a finite value that is not zero."""
    net, tx = Perceptron(3, (8,)), optax.adam(1e-2)
    teacher = distill.scratch(net, tx, steps=20, batch=20)(jax.random.key(0), TASK)
    every = weighted(**{name: (1.0, one.make()) for name, one in OBJECTIVES.items()})
    recipe = distill.offline(net, teacher, every, tx, batch=20)
    data = recipe.source(jax.random.key(1), TASK)
    alg = learning(recipe.models, every, tx, batch=20, num_classes=3)

    @jax.jit
    def run(key, data):
        state = alg.init(key, data, None)
        return alg.step(key, jnp.asarray(0), state, data, None)[1]

    metrics = run(jax.random.key(2), data)
    for name in OBJECTIVES:
        value = float(metrics[name])
        assert np.isfinite(value), name
        assert value != 0, name


@pytest.mark.parametrize(
    ("name", "task", "expected"),
    [
        ("mlp-64", TASK, Perceptron(3, (64,))),
        ("mlp-64-32", TASK, Perceptron(3, (64, 32))),
        ("resnet20", TASK, ResNet(3, 20)),
        ("resnet8x4", TASK, ResNet(3, 8, widths=(32, 64, 128, 256))),
        ("wrn-16-2", TASK, WideResNet(3, 16, 2)),
        ("vgg8", TASK, VGG(3, 8)),
        ("transformer-96-3", TEXTS, TextTransformer(3, 61, width=96, depth=3, length=7)),
    ],
)
def test_names_of_networks(name, task, expected):
    assert network(name, task) == expected
    assert name == "mlp-64" or name in NETWORK_NAMES


@pytest.mark.parametrize(
    ("name", "task", "message"),
    [
        ("resnet", TASK, "no network is called 'resnet'"),
        ("mlp-8", TEXTS, "does not read texts"),
        ("transformer-8-1", TASK, "does not read images"),
    ],
)
def test_networks_that_are_not(name, task, message):
    with pytest.raises(ValueError, match=message):
        network(name, task)


def test_a_named_transformer_reads_its_texts():
    model = from_linen(network("transformer-8-1", TEXTS))
    params, state = model.init(jax.random.key(0), TEXTS.x[:2], TEXTS.mask[:2])
    assert model.apply(params, state, TEXTS.x, TEXTS.mask)[0].logits.shape == (60, 3)
