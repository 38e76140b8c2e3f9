"""How good a trained classifier is: right, calibrated, and like its teacher."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jgd.core import Bound, Examples
from jgd.data.tasks import NodeTask
from jgd.distill.data import Task, examples, inputs_of, outputs, predict
from jgd.losses import kl, mean
from jgd.metrics import accuracy, brier_score, calibration_error, negative_log_likelihood
from jgd.protocols.text import spread

__all__ = ["Classified", "classified", "logits_on", "scored"]


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

    def __str__(self) -> str:
        """In words, mean ± deviation over several classifiers."""
        parts = []
        for name, value in self._asdict().items():
            if value is not None:
                share = name in ("accuracy", "ece", "agreement")
                parts.append(f"{name} {spread(value)} %" if share else f"{name} {spread(value, 1, 3)}")
        return ", ".join(parts)


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
        if several:
            return jax.vmap(lambda n: outputs(n, inputs).logits)(net)
        return outputs(net, inputs).logits
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
    theirs = None if teacher is None else logits_on(teacher, task, split)
    logits = logits_on(net, task, split, several=several)
    return scored(logits, examples(task, split), theirs=theirs, several=several)


def scored(
    logits: Array, some: Examples, *, theirs: Array | None = None, several: bool = False
) -> Classified:
    """The scores of `classified` from logits that are known.

    Args:
      logits: of a network on examples, or of several with a leading axis.
      some: the examples.
      theirs: the teacher's logits on them.
      several: whether there is such an axis.
    """
    labels, where = some.targets, some.weights

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
            scores["divergence"] = mean(each, where)
        return Classified(**scores)

    return jax.vmap(one)(logits) if several else one(logits)
