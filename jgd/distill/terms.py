"""Objectives from losses: what is compared, between whom, on which examples.

::

    objective = jgd.weighted(
        ce=(0.1, supervised()),
        kd=(0.9, term(losses.kd, temperature=4.0)),
        at=(1000.0, term(losses.attention_transfer, at="stage2")),
        hint=(100.0, term(losses.hint, at=("stage2", "stage3"), adapt=linear)),
    )

A loss is a plain function ``loss(student, teacher)``. If it has arguments named ``labels``, ``where`` or
``key``, they are passed too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from jgd import losses
from jgd.core import Context, Model, Objective, Outputs, from_linen, objective, weighted, with_outputs
from jgd.distill.data import seen_by
from jgd.losses import cross_entropy, hint, listmle, mean
from jgd.registry import Entry

__all__ = [
    "At",
    "On",
    "Place",
    "counted",
    "index_of",
    "linear",
    "mean_teacher",
    "mutual",
    "pair",
    "read",
    "sides",
    "supervised",
    "term",
]

At = str | Callable[[Outputs], Any]
On = str | Callable[[Context], Array]
Place = At | tuple[At, At]


def read(outputs: Outputs, at: At) -> Any:
    """Return a value of a network.

    Args:
      outputs: Outputs of the network.
      at: ``"value"`` (``"logits"`` for classifiers), ``"embedding"``, the name of a tap, or a function of the
        outputs.

    Raises:
      ValueError: For a tap that the network does not have.
    """
    if callable(at):
        return at(outputs)
    if at in ("value", "logits", "embedding"):
        value = getattr(outputs, at)
        if value is None:
            raise ValueError(f"the network returns no {at}")
        return value
    if at not in outputs.taps:
        known = ", ".join(["value", "logits", "embedding", *outputs.taps])
        raise ValueError(f"the network has no output {at!r}, it has {known}")
    return outputs.taps[at]


def pair(place: Any) -> tuple[At, At]:
    """Return where to read the student and where the teacher, of a place that may be one for both.

    Raises:
      ValueError: For anything but a name, a function of the outputs, or a pair of these.
    """
    both = place if isinstance(place, tuple) else (place, place)
    if len(both) != 2 or not all(isinstance(at, str) or callable(at) for at in both):
        raise ValueError(
            "at must be the name of an output, a function of the outputs, or a pair of these, of the student "
            f"and of the teacher; got {place!r:.60}"
        )
    return both


def sides(ctx: Context, place: Place, student: str = "model", teacher: str = "teacher") -> tuple[Any, Any]:
    """Return values of both networks at a place; the teacher's is constant."""
    ours, theirs = pair(place)
    fixed = jax.lax.stop_gradient(read(ctx.outputs[teacher], theirs))
    return read(ctx.outputs[student], ours), fixed


def index_of(ctx: Context, who: str) -> Array:
    """Return positions of the examples of a batch in the training set.

    Raises:
      ValueError: Where they are not known, as after an augmentation that mixes examples.
    """
    if ctx.batch.index is None:
        raise ValueError(
            f"{who} needs to know which examples a batch holds: give Examples an index, and leave out "
            "augmentations that mix examples, such as mixup"
        )
    return ctx.batch.index


def counted(ctx: Context, on: On = "labelled") -> Array | None:
    """Return the weights ``[B]`` by which a loss counts the examples of a batch; None for all alike.

    Args:
      ctx: Context of a step.
      on: ``"labelled"``, the weights of the batch; ``"all"``; ``"unlabelled"``, the examples of weight zero;
        the name of a mask of the batch (`jgd.core.Examples`), which for nodes are ``"train"``, ``"val"`` and
        ``"test"``; or a function ``ctx -> [B]``.

    Raises:
      ValueError: For a name that the batch does not have.
    """
    weights, masks = ctx.batch.weights, ctx.batch.masks or {}
    if callable(on):
        return on(ctx)
    if on == "labelled":
        return weights
    if on == "all":
        return None
    if on in masks:
        return masks[on].astype(jnp.float32)
    if on == "unlabelled":
        if weights is None:
            raise ValueError("on='unlabelled' counts examples of weight zero, and all have weight one")
        return (weights == 0).astype(jnp.float32)
    known = ", ".join(["labelled", "all", "unlabelled", *masks])
    raise ValueError(f"the batch has no examples called {on!r}: on is one of {known}, or a function of ctx")


_GIVEN = ("labels", "where", "key")


def _loss_settings(loss: Any, given: Iterable[str], what: str) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a loss of two arguments, which must have all the given settings.

    Raises:
      ValueError: For no loss, or a setting that it does not have, with those that it has.
    """
    name = getattr(loss, "__name__", type(loss).__name__)
    if isinstance(loss, Objective) or not callable(loss):
        said = "an objective already" if isinstance(loss, Objective) else f"{loss!r:.60}"
        raise ValueError(f"{what} takes a loss (student, teacher), e.g. jgd.losses.kd; got {said}")
    parameters = inspect.signature(loss).parameters
    if inspect.signature(loss).return_annotation in ("Objective", Objective):
        plain = f"{name}_loss" if hasattr(losses, f"{name}_loss") else "kd"
        raise ValueError(
            f"{what} takes a loss, e.g. jgd.losses.{plain}; {name}() of jgd.distill is an objective already"
        )
    kinds = [p.kind for p in parameters.values()]
    if inspect.Parameter.VAR_KEYWORD in kinds:
        return parameters
    placed = [n for n, p in parameters.items() if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    if len(placed) < 2 and inspect.Parameter.VAR_POSITIONAL not in kinds:
        raise ValueError(f"{what} takes a loss of two arguments, {name} has {', '.join(placed) or 'none'}")
    known = [n for n in parameters if n not in (*placed[:2], *_GIVEN)]
    unknown = [n for n in given if n not in known]
    if unknown:
        taken = " (the batch gives it)" if unknown[0] in _GIVEN else ""
        raise ValueError(
            f"{name} takes no setting {unknown[0]!r}{taken}, it has {', '.join(known) or 'none'}"
        )
    return parameters


def supervised(loss: Any = cross_entropy, *, player: str = "model", **settings: Any) -> Objective:
    """Return the loss of a network against the targets of the batch, averaged by their weights.

    Args:
      loss: ``(logits, targets, **settings) -> [B]``.
      player: Name of the network.
      **settings: Settings of the loss.

    Examples of unknown class, -1, count no more than those of weight zero.

    Raises:
      ValueError: For a setting that the loss does not have.
    """
    _loss_settings(loss, settings, "supervised")

    def value(ctx: Context) -> Array:
        logits, targets, weights = ctx.outputs[player].logits, ctx.batch.targets, ctx.batch.weights
        each = jnp.asarray(loss(logits, targets, **settings))
        if not each.ndim:
            return each
        if jnp.issubdtype(targets.dtype, jnp.integer) and targets.shape == each.shape:
            weights = jnp.where(targets == -1, 0, 1 if weights is None else weights)
        return mean(each, weights)

    return objective(value)


def linear(student: Array, teacher: Array) -> nn.Module:
    """Return a linear map from the last axis of the student's features to the teacher's."""
    del student
    return nn.Dense(teacher.shape[-1])


def term(
    loss: Any,
    *,
    at: Any = "logits",
    adapt: Callable[[Any, Any], nn.Module | Model] | None = None,
    student: str = "model",
    teacher: str = "teacher",
    on: On = "labelled",
    schedules: Mapping[str, Callable[[Array], Any]] | None = None,
    **settings: Any,
) -> Objective:
    """Return a loss between two networks as an objective. The teacher's side is constant.

    Args:
      loss: ``(student, teacher, **settings)``, one value for each example or a scalar. It is also given
        ``labels`` (classes of the batch), ``where`` (bool, examples that count) and ``key``, as far as it
        has arguments of these names.
      at: Place that is compared, see `read`; or a pair of places, of the student and of the teacher.
      adapt: ``(student's value, teacher's value) -> network`` that the student's value goes through first.
        It is trained with the student, see `linear`.
      student: Name of the network that learns.
      teacher: Name of the network that it learns from.
      on: Examples that count: ``"labelled"``, ``"all"``, ``"unlabelled"``, the name of a mask of the batch
        (of nodes ``"train"``, ``"val"`` and ``"test"``), or a function ``ctx -> [B]`` of weights.
      schedules: Settings that change, as functions of the step.
      **settings: Settings of the loss.

    Raises:
      ValueError: For a setting that the loss does not have, or that also has a schedule.
    """
    changing = dict(schedules or {})
    wanted = _loss_settings(loss, [*settings, *changing], "term")
    twice = sorted(set(settings) & set(changing))
    if twice:
        raise ValueError(f"{twice[0]!r} has a number and a schedule: give one of them")
    pair(at)

    def network(x, y) -> Model:
        assert adapt is not None
        net = adapt(x, y)
        return from_linen(_Quiet(net)) if isinstance(net, nn.Module) else net

    def init(key, ctx):
        if adapt is None:
            return (), ()
        x, y = sides(ctx, at, student, teacher)
        return network(x, y).init(key, x)

    def apply(params, state, ctx, *, key, step):
        k_adapt, k_loss = jax.random.split(key)
        x, y = sides(ctx, at, student, teacher)
        if adapt is not None:
            out, state = network(x, y).apply(params, state, x, key=k_adapt, train=True)
            x = out.logits
        weights = counted(ctx, on)
        given: dict[str, Any] = {}
        if "labels" in wanted:
            given["labels"] = ctx.batch.targets
        if "where" in wanted and weights is not None:
            given["where"] = weights != 0
        if "key" in wanted:
            given["key"] = k_loss
        now = {name: schedule(step) for name, schedule in changing.items()}
        value = jnp.asarray(loss(x, y, **given, **settings, **now))
        if value.ndim and weights is not None:
            if value.shape[0] != weights.shape[0]:
                name = getattr(loss, "__name__", "the loss")
                raise ValueError(
                    f"{name} returned shape {value.shape}, a loss is one number or one for each of the "
                    f"{weights.shape[0]} examples"
                )
            weights = jnp.broadcast_to(weights.reshape(weights.shape + (1,) * (value.ndim - 1)), value.shape)
        return (mean(value, weights) if value.ndim else value), state, {}

    return Objective(init, apply)


class _Quiet(nn.Module):
    """A module that has no use for ``train``."""

    inner: nn.Module

    @nn.compact
    def __call__(self, *inputs, train):
        takes = "train" in inspect.signature(type(self.inner).__call__).parameters
        return self.inner(*inputs, **({"train": train} if takes else {}))


def mutual(
    loss: Callable, players: tuple[str, ...], *, hard: Callable = cross_entropy, weight: Any = 1.0, **settings
) -> Objective:
    """Return an objective by which every network learns from the labels and from each of the others.

    Each player has ``hard`` on the labels and the mean of ``loss(own, other's)`` over the others (deep mutual
    learning, Zhang et al., CVPR 2018, with `jgd.losses.peer`).

    Args:
      loss: ``(student, teacher, **settings)`` on logits.
      players: Names of the networks, at least two.
      hard: Loss on the labels.
      weight: Weight of the mean over the others, a number or a schedule.
      **settings: Settings of `term`.
    """
    if len(players) < 2:
        raise ValueError(f"mutual learning needs at least two players, got {players}")
    terms: dict[str, tuple[Any, Objective]] = {}
    for one in players:
        terms[f"{one}/hard"] = (1.0, supervised(hard, player=one))
        for other in players:
            if other != one:
                share = _scaled(weight, 1 / (len(players) - 1))
                terms[f"{one}/{other}"] = (share, term(loss, student=one, teacher=other, **settings))
    return weighted(**terms)


def _scaled(weight: Any, by: float) -> Any:
    if not callable(weight):
        return by * weight
    schedule: Callable[[Array], Any] = weight
    return lambda step: by * schedule(step)


def mean_teacher(
    loss: Callable, *, decay: float = 0.99, at: At = "logits", player: str = "model", **settings: Any
) -> Objective:
    """Return a loss between a network and the average of its own past (Tarvainen and Valpola, NeurIPS 2017).

    The average is kept in the state of the objective and is evaluated without dropout at the inputs of the
    batch, ``ctx.batch.inputs``, or at the whole graph of a node task.

    Args:
      loss: Loss, as in `term`.
      decay: Weight of the past in each step.
      at: Place that is compared.
      player: Name of the network.
      **settings: Settings of `term`.
    """
    inner = term(loss, at=at, student=player, teacher="average", **settings)

    def seen(average, ctx):
        return with_outputs(ctx, average=ctx.call[player](*seen_by(ctx, player), params=average))

    def init(key, ctx):
        average = jax.tree.map(jnp.copy, ctx.params[player])
        params, state = inner.init(key, seen(average, ctx))
        return params, (average, state)

    def apply(params, state, ctx, *, key, step):
        average, state = state
        current = jax.lax.stop_gradient(ctx.params[player])
        average = jax.tree.map(lambda a, p: (decay * a + (1 - decay) * p).astype(a.dtype), average, current)
        value, state, metrics = inner.apply(params, state, seen(average, ctx), key=key, step=step)
        return value, (average, state), metrics

    return Objective(init, apply)


def beside_labels(weight: float, make: Callable[[], Objective]) -> Callable[[], Objective]:
    """Return a function that makes an objective beside cross-entropy on the labels.

    Args:
      weight: Weight of the objective; that of cross-entropy is 1.
      make: Makes the objective.
    """
    return lambda: weighted(ce=(1.0, supervised()), more=(weight, make()))


ENTRIES = (
    Entry("ce", supervised, "Labels alone, without a teacher."),
    Entry("listmle", partial(term, listmle), "Order of the classes.", "Xia et al. 2008"),
    Entry(
        "fitnet",
        beside_labels(1.0, partial(term, hint, at="embedding", adapt=linear)),
        "Embeddings, after a linear map.",
        "Romero et al. 2015",
    ),
)
