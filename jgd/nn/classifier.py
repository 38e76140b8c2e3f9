"""Fit a classifier of nodes and keep its best state on validation nodes."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import jraph
import numpy as np
import optax
from jaxtyping import Array

from jgd.core import Algorithm, Bound, Context, Examples, Model, keep_best, objective, train
from jgd.graph import SparseOperator, sparse_features
from jgd.losses import cross_entropy, mean
from jgd.metrics import accuracy

__all__ = ["Splits", "classifier", "features_for", "split_accuracy"]


class Splits(NamedTuple):
    """Examples to train on, to select by and to test on; their inputs may be the same arrays."""

    train: Examples
    val: Examples
    test: Examples | None = None


def features_for(graph: jraph.GraphsTuple) -> Array | SparseOperator:
    """Node features as they multiply fastest: sparse where less than a tenth of many numbers is nonzero.

    Raises:
      ValueError: for a graph without node features.
    """
    x = graph.nodes
    if x is None:
        raise ValueError("the graph has no node features for the network to read")
    if isinstance(x, SparseOperator):
        return x
    x = np.asarray(x, np.float32)
    if x.size > 100_000 and np.count_nonzero(x) < 0.1 * x.size:
        return sparse_features(x)
    return jnp.asarray(x)


def _loss(ctx: Context) -> Array:
    batch = ctx.batch
    return mean(cross_entropy(ctx.outputs["student"].logits, batch.targets), batch.weights)


def _prepare(key, t, data, batch):
    del key, t, batch
    return data.train, {"student": data.train.inputs}


def split_accuracy(net: Bound, examples: Examples) -> Array:
    """Accuracy of a network on the examples with nonzero weight."""
    return accuracy(net(*examples.inputs).logits, examples.targets, examples.weights)


def classifier(model: Model, tx: optax.GradientTransformation, *, every: int = 1) -> Algorithm:
    """Full-batch training with cross-entropy on ``data.train``, selected by accuracy on ``data.val``.

    Args:
      model: a network with logits ``[N, C]``.
      tx: optimiser.
      every: steps between looks at the validation examples.

    Returns:
      An `Algorithm` over `Splits` whose product is the best network.
    """
    alg = train(model, objective(_loss), tx, prepare=_prepare)
    return keep_best(alg, lambda net, data: split_accuracy(net, data.val), every=every)
