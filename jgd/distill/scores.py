"""Scores of trained networks: accuracy, calibration, agreement with the teacher."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jgd.core import Examples, stacked
from jgd.data import NodeTask
from jgd.data.checks import need_classes
from jgd.distill.data import (
    Task,
    as_teacher,
    examples,
    inputs_of,
    known_rows,
    of_rows,
    outputs,
    predict,
    take,
)
from jgd.losses import kl, mean
from jgd.metrics import (
    accuracy,
    brier_score,
    calibration_error,
    mean_absolute_error,
    mean_squared_error,
    micro_f1,
    multilabel_auc,
    negative_log_likelihood,
    r2_score,
)
from jgd.metrics.spread import spread

__all__ = [
    "Classified",
    "Multilabelled",
    "Regressed",
    "classified",
    "logits_on",
    "scored",
    "scores",
]


class Classified(NamedTuple):
    """Scores of a classifier, or of several, one number each.

    Attributes:
      accuracy: Share of right predictions.
      nll: Mean negative log-likelihood, in nats.
      ece: Expected calibration error of 15 bins.
      brier: Mean squared error of the probabilities, summed over classes.
      agreement: Share of examples with the teacher's prediction, or None.
      divergence: Mean KL from the teacher's probabilities to the student's, or None.
    """

    accuracy: Array
    nll: Array
    ece: Array
    brier: Array
    agreement: Array | None = None
    divergence: Array | None = None

    def __str__(self) -> str:
        """Return the scores in words, mean ± deviation over several classifiers."""
        return _in_words(self, ("accuracy", "ece", "agreement"))


class Regressed(NamedTuple):
    """Scores of a network that predicts numbers, or of several, one number each.

    Attributes:
      mse: Mean squared error.
      mae: Mean absolute error.
      r2: Share of the targets' variance that is explained.
    """

    mse: Array
    mae: Array
    r2: Array

    def __str__(self) -> str:
        """Return the scores in words, mean ± deviation over several networks."""
        return _in_words(self, ())


class Multilabelled(NamedTuple):
    """Scores of a network that predicts several labels for each row, or of several, one number each.

    Attributes:
      micro_f1: F1 over all entries, of labels with a positive logit.
      auc: Mean ROC-AUC of the labels.
    """

    micro_f1: Array
    auc: Array

    def __str__(self) -> str:
        """Return the scores in words, mean ± deviation over several networks."""
        return _in_words(self, ("micro_f1", "auc"))


def _in_words(found: Any, shares: tuple[str, ...]) -> str:
    return ", ".join(
        f"{name} {spread(value)} %" if name in shares else f"{name} {spread(value, 1, 3)}"
        for name, value in found._asdict().items()
        if value is not None
    )


def logits_on(net: Any, task: Task, split: str = "test", *, several: bool | None = None) -> Array:
    """Return logits of a network on all examples of a split; of a `NodeTask` on all nodes.

    Args:
      net: Network, several of them with a leading axis, or another form of a teacher, such as an array of
        logits with one row for each row of the task (see `jgd.distill.offline`).
      task: Task.
      split: Name of the split.
      several: Whether there is such an axis; logits then have it too. None decides by the shapes.
    """
    net = as_teacher(net)
    given = known_rows(net) is not None
    if isinstance(task, NodeTask):
        if given:
            return of_rows(net, task, slice(None)).logits
        inputs = inputs_of(net.model, task)
        several = stacked(net, *inputs) is not None if several is None else several
        if several:
            return jax.vmap(lambda n: outputs(n, inputs).logits)(net)
        return outputs(net, inputs).logits
    some = examples(task, split)
    if given:
        return of_rows(net, task, some.index).logits
    if several is None:
        several = stacked(net, *take(some, jnp.arange(1)).inputs) is not None
    if not several:
        return predict(net, some).logits
    count = jax.tree.leaves(net)[0].shape[0]
    each = [predict(jax.tree.map(lambda leaf, i=i: leaf[i], net), some).logits for i in range(count)]
    return jnp.stack(each)


def classified(
    net: Any, task: Task, split: str = "test", *, teacher: Any = None, several: bool | None = None
) -> Classified:
    """Score a network, e.g. a student of `jgd.distill.offline`.

    Examples whose label is unknown (-1) are left out of every score.

    Args:
      net: Network, or several of them with a leading axis (those of ``seeds=``).
      task: Task; of probabilities as labels the likeliest class counts.
      split: Name of the split.
      teacher: Network whose predictions are compared too, or its logits on all rows of the task.
      several: Whether ``net`` are several; scores then are arrays. None decides by the shapes.

    Raises:
      ValueError: For a task without this split, without a known label there, or whose labels are no classes
        (`scores` takes those).
    """
    if task.target_kind != "probabilities":
        need_classes(task, "classified (jgd.distill.scores.scores takes any)")
    theirs = None if teacher is None else logits_on(teacher, task, split)
    logits = logits_on(net, task, split, several=several)
    return scored(logits, _labelled(task, split), theirs=theirs, several=logits.ndim == 3)


def scores(
    net: Any, task: Task, split: str = "test", *, several: bool | None = None
) -> Classified | Regressed | Multilabelled:
    """Score a network by what the targets of its task are.

    Args:
      net: Network, or several, as in `classified`.
      task: Task.
      split: Name of the split.
      several: Whether ``net`` are several, as in `classified`.

    Returns:
      `Classified` of classes and probabilities, `Regressed` of numbers, `Multilabelled` of indicators.

    Raises:
      ValueError: For a task without this split, or without a known target there.
    """
    if task.target_kind in ("classes", "probabilities"):
        return classified(net, task, split, several=several)
    some = _labelled(task, split)
    logits = logits_on(net, task, split, several=several)

    kind, metrics = Regressed, (mean_squared_error, mean_absolute_error, r2_score)
    if task.target_kind == "multilabel":
        kind, metrics = Multilabelled, (micro_f1, multilabel_auc)

    def one(values: Array) -> Any:
        return kind(*(metric(values, some.targets, some.weights) for metric in metrics))

    return jax.vmap(one)(logits) if logits.ndim == 3 else one(logits)


def _labelled(task: Task, split: str) -> Examples:
    """Return the examples of a split, some of which have labels."""
    some = examples(task, split)
    if some.targets is None:
        raise ValueError(f"none of the {split} examples of {task.name!r} has a label that is known")
    return some


def scored(
    logits: Array, some: Examples, *, theirs: Array | None = None, several: bool = False
) -> Classified:
    """Compute the scores of `classified` from logits that are known.

    Args:
      logits: Logits of a network on examples, or of several with a leading axis.
      some: Examples.
      theirs: The teacher's logits on them.
      several: Whether there is such an axis.
    """
    labels, where = some.targets, some.weights
    labels = jnp.argmax(labels, -1) if labels.ndim == 2 else labels

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
