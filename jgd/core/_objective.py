"""Training signals that compose.

An objective is a loss that may have parameters (a critic, an adaptor) and state (a memory bank) of its
own. `objective` lifts a plain function, `weighted` adds several and keeps them apart in the metrics::

    loss = weighted(ce=(0.1, objective(ce)), kl=(optax.linear_schedule(0, 0.9, 100), objective(kl)))
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import get_opaque_trace_state
from jaxtyping import Array, PyTree

from jgd.core.model import Outputs

__all__ = ["Context", "Objective", "as_objective", "objective", "one_number", "weighted", "with_outputs"]


class Players(Mapping):
    """Values of the players by name, each computed when an objective reads it.

    Args:
      make: Function without arguments for each player that computes its entry.
      reason: Explanation that is added to the error for a player that has no entry.
    """

    def __init__(self, make: Mapping[str, Callable[[], Any]], reason: str = ""):
        self._make, self._reason = dict(make), reason
        self._found: dict[str, Any] = {}
        self._home = get_opaque_trace_state()

    def __getitem__(self, name: str) -> Any:
        if name not in self._make:
            known = ", ".join(self._make)
            raise ValueError(f"the objective names a player {name!r}, the players are {known}{self._reason}")
        if name in self._found:
            return self._found[name]
        value = self._make[name]()
        if get_opaque_trace_state() == self._home:  # a value of an inner scan or cond may not leave it
            self._found[name] = value
        return value

    def __contains__(self, name: object) -> bool:
        return name in self._make

    def __iter__(self) -> Iterator[str]:
        return iter(self._make)

    def __len__(self) -> int:
        return len(self._make)


class Context(NamedTuple):
    """Part of one training step that an objective sees.

    Attributes:
      outputs: ``{player: Outputs}`` of the networks at their inputs of this step.
      call: ``{player: fn(*inputs, params=None, key=None, train=False) -> Outputs}``, to evaluate a network at
        other inputs or with other parameters; changes of its state are dropped.
      params: ``{player: params}``, for losses that read a head.
      batch: Examples of this step, as the trainer's ``prepare`` returned them.
      examples: Data of the loop, constant over the run; in `jgd.distill` a `jgd.distill.data.Source` with all
        training examples.
      state: ``{player: state}``, such as batch statistics.
      fresh: ``key -> (params, state)``, new random parameters of the player whose turn it is; None outside of
        a turn.
    """

    outputs: Mapping[str, Outputs]
    call: Mapping[str, Callable[..., Outputs]]
    params: Mapping[str, PyTree]
    batch: Any
    examples: Any = None
    state: Mapping[str, PyTree] = {}
    fresh: Callable[[Array], tuple[PyTree, PyTree]] | None = None


def with_outputs(ctx: Context, **outputs: Any) -> Context:
    """Return a context with further outputs; those of the players are still computed when they are read.

    Args:
      ctx: Context of a step.
      **outputs: Outputs by name, which take precedence over those of players of the same name.
    """
    make = {name: partial(ctx.outputs.__getitem__, name) for name in ctx.outputs}
    return ctx._replace(outputs=Players(make | {n: lambda out=out: out for n, out in outputs.items()}))


class Objective(NamedTuple):
    """A training signal.

    Attributes:
      init: ``(key, ctx) -> (params, state)`` from the first context; ``()`` for a plain loss.
      apply: ``(params, state, ctx, *, key, step) -> (loss, state, metrics)``.
      terms: ``((name, weight, objective), ...)`` of a sum, for methods that need each term's gradient.
    """

    init: Callable[[Array, Context], tuple[PyTree, PyTree]]
    apply: Callable[..., tuple[Array, PyTree, dict[str, Array]]]
    terms: tuple[tuple[str, Any, Objective], ...] = ()


def one_number(value: Any, what: str) -> Array:
    """Return a loss as a scalar array.

    Args:
      value: Loss, a number or a scalar array.
      what: Name of the function that returned it, for messages.

    Raises:
      ValueError: If the value is not one number; the message states what to do.
    """
    if isinstance(value, Objective) or callable(value):
        raise ValueError(f"{what} returned an objective, not its loss: call what makes it, e.g. supervised()")
    try:
        value = jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} must return one number, got {type(value).__name__}") from error
    if value.ndim:
        raise ValueError(
            f"{what} returned an array of shape {value.shape}, a loss has shape (): average it, e.g. by "
            "jgd.losses.mean(values, ctx.batch.weights)"
        )
    return value


def _is_plain(fn: Callable, what: str) -> None:
    """Refuse functions that are no ``loss(ctx)``, as far as their signature shows.

    Raises:
      ValueError: If the function takes or returns anything else; the message states how it is used.
    """
    name = getattr(fn, "__name__", type(fn).__name__)
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):  # some callables have none
        return
    if signature.return_annotation in ("Objective", Objective):
        raise ValueError(f"{what}: {name} makes an objective: call it, {name}(...)")
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    given = [p for p in signature.parameters.values() if p.kind in kinds]
    needed = [p.name for p in given if p.default is inspect.Parameter.empty]
    if len(needed) > 1:
        raise ValueError(
            f"{what}: a plain loss takes the context alone, {name} takes {', '.join(needed)}: wrap it, "
            f"as jgd.distill.term({name}) between networks or jgd.distill.supervised({name}) on labels"
        )
    several = any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in signature.parameters.values())
    if not given and not several:
        raise ValueError(f"{what}: a plain loss is a function of the context, {name} takes no argument")


def objective(fn: Any) -> Objective:
    """Lift a plain loss ``fn(ctx) -> scalar`` without parameters of its own.

    Args:
      fn: Function of the `Context`.

    Raises:
      ValueError: If the function takes other arguments, or, when it is used, if the loss is not one number.
    """
    name = getattr(fn, "__name__", "the loss")
    if not callable(fn):
        raise ValueError(f"objective() takes a function of the context, got {type(fn).__name__}")
    _is_plain(fn, "objective")

    def init(key, ctx):
        del key, ctx
        return (), ()

    def apply(params, state, ctx, *, key, step):
        del params, key, step
        return one_number(fn(ctx), f"the loss {name}"), state, {}

    return Objective(init, apply)


def as_objective(loss: Any, what: str = "objective") -> Objective:
    """Return an objective unchanged, or lift a plain function of the context.

    Args:
      loss: Objective, or function of the context.
      what: Name of the argument, for messages.

    Raises:
      ValueError: If the loss is neither of them.
    """
    if isinstance(loss, Objective):
        return loss
    if not callable(loss):
        hint = "e.g. weighted(ce=(1.0, supervised()))"
        raise ValueError(
            f"{what} must be an objective or a function of the context, {hint}, got {_shown(loss)}"
        )
    _is_plain(loss, what)
    return objective(loss)


def _shown(value: Any) -> str:
    return type(value).__name__ if callable(value) or isinstance(value, tuple) else f"{value!r:.60}"


def _term(name: str, pair: Any) -> tuple[str, Any, Objective]:
    """Return a named pair of a weight and an objective.

    Raises:
      ValueError: If it is not a pair, is in the wrong order, or has a weight that is not a number.
    """
    what = f"the term {name!r} of weighted()"
    right = f"write {name}=(1.0, objective)"
    if isinstance(pair, Objective) or not isinstance(pair, tuple | list) or len(pair) != 2:
        raise ValueError(f"{what} must be a pair (weight, objective), got {_shown(pair)}: {right}")
    weight, loss = pair
    if isinstance(weight, Objective) or (
        callable(weight) and not callable(loss) and not isinstance(loss, Objective)
    ):
        raise ValueError(f"{what} has the objective first and the weight second: swap them, {right}")
    if not callable(weight):
        shape, real = (), isinstance(weight, int | float)
        if isinstance(weight, np.ndarray | np.generic | jax.Array):
            shape, real = weight.shape, jnp.issubdtype(weight.dtype, jnp.number)
        if shape or not real:
            got = f"an array of shape {shape}" if shape else _shown(weight)
            raise ValueError(f"{what} needs a number or a schedule as its weight, got {got}: {right}")
        if not isinstance(weight, Tracer) and not np.isfinite(np.asarray(weight)):
            raise ValueError(f"{what} has the weight {weight}: it must be finite")
    return name, weight, as_objective(loss, what)


def weighted(**terms: Any) -> Objective:
    """Return the weighted sum of named objectives.

    Args:
      **terms: Pairs ``name=(weight, objective)``; a weight is a number or an `optax.Schedule` of the step, a
        plain function counts as ``objective(function)``. A negative weight raises its term.

    Returns:
      An `Objective` whose metrics hold each unweighted term under its name, and whose ``terms`` keep them.

    Raises:
      ValueError: If there are no terms or one is not such a pair, or, when it is used, if a loss or a weight
        is not one number.
    """
    if not terms:
        raise ValueError("weighted() needs at least one term, e.g. ce=(1.0, loss)")
    parts = tuple(_term(name, pair) for name, pair in terms.items())

    def init(key, ctx):
        keys = jax.random.split(key, len(parts))
        pairs = {name: loss.init(k, ctx) for k, (name, _, loss) in zip(keys, parts, strict=True)}
        return {n: p for n, (p, _) in pairs.items()}, {n: s for n, (_, s) in pairs.items()}

    def apply(params, state, ctx, *, key, step):
        keys = jax.random.split(key, len(parts))
        total, states, metrics = jnp.zeros(()), {}, {}
        for k, (name, weight, loss) in zip(keys, parts, strict=True):
            value, states[name], inner = loss.apply(params[name], state[name], ctx, key=k, step=step)
            value = one_number(value, f"the term {name!r}")
            share = one_number(weight(step), f"the weight of {name!r}") if callable(weight) else weight
            total = total + share * value
            metrics |= {name: value, **{f"{name}/{k}": v for k, v in inner.items()}}
        return total, states, metrics

    return Objective(init, apply, parts)
