"""Every objective of the catalogue trains, and has a summary and a paper of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jgd import distill
from jgd.core import from_linen, weighted
from jgd.data import ArrayTask
from jgd.distill import OBJECTIVES
from jgd.distill.recipes import learning
from jgd.nn import Perceptron, network

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
    every = weighted(**{one.name: (1.0, one.make()) for one in OBJECTIVES.entries()})
    recipe = distill.offline(net, teacher, every, tx, batch=20)
    data = recipe.source(jax.random.key(1), TASK)
    alg = learning(recipe.models, every, tx, batch=20, num_classes=3)

    @jax.jit
    def run(key, data):
        state = alg.init(key, data, None)
        return alg.step(key, jnp.asarray(0), state, data, None)[1]

    metrics = run(jax.random.key(2), data)
    assert all(one.summary.endswith(".") for one in OBJECTIVES.entries())
    for name in OBJECTIVES:
        value = float(metrics[name])
        assert np.isfinite(value), name
        assert value != 0, name


@pytest.mark.long
def test_a_named_transformer_reads_its_texts():
    model = from_linen(network("transformer-8-1", TEXTS))
    params, state = model.init(jax.random.key(0), TEXTS.x[:2], TEXTS.mask[:2])
    assert model.apply(params, state, TEXTS.x, TEXTS.mask)[0].logits.shape == (60, 3)
