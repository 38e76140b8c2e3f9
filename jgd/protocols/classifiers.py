"""How good a trained classifier is: right, calibrated, and like its teacher."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jgd.core import Bound
from jgd.data.tasks import NodeTask
from jgd.distill.data import Task, examples, inputs_of, predict
from jgd.losses import kl
from jgd.metrics import accuracy, brier_score, calibration_error, negative_log_likelihood

__all__ = ["Classified", "classified", "logits_on"]


class Classified(NamedTuple):
    """Scores of a classifier, or of several, one number each.

    Attributes:
      accuracy: share of right predictions.
      nll: mean negative log-likelihood, in nats.
      ece: expected calibration error of 15 bins.
      brier: mean squared error of the probabilities, summed over classes.
      agreement: share of examples with the teacher's prediction, or None.
      divergence: mean KL from the teacher's probabilities to the student's, or None.
    """

    accuracy: Array
    nll: Array
    ece: Array
    brier: Array
    agreement: Array | None = None
    divergence: Array | None = None


def logits_on(net: Bound, task: Task, split: str = "test", *, several: bool = False) -> Array:
    """Logits of a network on all examples of a split; of a `NodeTask` on all nodes.

    Args:
      net: a network, or several of them with a leading axis.
      task: the data.
      split: which examples.
      several: whether there is such an axis; logits then have it too.
    """
    if isinstance(task, NodeTask):
        inputs = inputs_of(net.model, task)
        one = jax.jit(lambda n, inputs: n(*inputs).logits)
        return jax.vmap(one, in_axes=(0, None))(net, inputs) if several else one(net, inputs)
    some = examples(task, split)
    if not several:
        return predict(net, some).logits
    count = jax.tree.leaves(net)[0].shape[0]
    each = [predict(jax.tree.map(lambda leaf, i=i: leaf[i], net), some).logits for i in range(count)]
    return jnp.stack(each)


def classified(
    net: Bound, task: Task, split: str = "test", *, teacher: Bound | None = None, several: bool = False
) -> Classified:
    """Score a network, e.g. a student of `jgd.distill.offline`.

    Args:
      net: a network, or several of them with a leading axis (those of ``seeds=``).
      task: the data.
      split: ``"test"``, or another split.
      teacher: whom the predictions are compared with too.
      several: whether ``net`` are several; scores then are arrays.

    Raises:
      ValueError: for a task without this split.
    """
    some = examples(task, split)
    labels, where = some.targets, some.weights
    theirs = None if teacher is None else logits_on(teacher, task, split)

    def one(logits: Array) -> Classified:
        scores: dict[str, Any] = {
            "accuracy": accuracy(logits, labels, where),
            "nll": negative_log_likelihood(logits, labels, where=where),
            "ece": calibration_error(logits, labels, where=where),
            "brier": brier_score(logits, labels, where=where),
        }
        if theirs is not None:
            scores["agreement"] = accuracy(logits, jnp.argmax(theirs, -1), where)
            each = kl(jax.nn.log_softmax(theirs), jax.nn.log_softmax(logits))
            weights = jnp.ones(each.shape) if where is None else where
            scores["divergence"] = jnp.sum(weights * each) / jnp.sum(weights)
        return Classified(**scores)

    logits = logits_on(net, task, split, several=several)
    return jax.vmap(one)(logits) if several else one(logits)
