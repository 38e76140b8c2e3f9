"""A small task and small networks for the tests of distillation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jgd.core import Bound, from_linen
from jgd.data import ArrayTask
from jgd.nn import Perceptron

TX = optax.adam(1e-2)
NET = Perceptron(num_classes=3, hidden=(8,))
TALL = Perceptron(num_classes=3, hidden=(16, 12))


def blobs(count=60, *, seed=0, noise=0.6, labelled=40):
    """Three clusters in four dimensions; the first ``labelled`` train, then validation and test."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % 3
    x = np.eye(3, 4)[y] * 2 + noise * rng.standard_normal((count, 4))
    i = np.arange(count)
    return ArrayTask(
        x=x.astype(np.float32),
        y=y.astype(np.int32),
        train=i < labelled,
        val=(i >= labelled) & (i < labelled + 10),
        test=i >= labelled + 10,
        num_classes=3,
        name="blobs",
    )


TASK = blobs()


def random_teacher(net=TALL, seed=7, features=4):
    """A network that nobody trained."""
    model = from_linen(net)
    return Bound(*model.init(jax.random.key(seed), jnp.zeros((1, features))), model)
