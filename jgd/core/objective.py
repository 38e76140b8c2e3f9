"""Training signals that compose.

An objective is a loss that may have parameters (a critic, an adaptor) and state (a memory bank) of its
own. `objective` lifts a plain function, `weighted` adds several and keeps them apart in the metrics::

    loss = weighted(ce=(0.1, objective(ce)), kl=(optax.linear_schedule(0, 0.9, 100), objective(kl)))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PyTree

from jgd.core.model import Outputs

__all__ = ["Context", "Objective", "objective", "weighted"]


class Players(dict):
    """What belongs to each player; asking for one that is not there is a mistake in an objective."""

    def __missing__(self, name: str) -> Any:
        """Say who there is."""
        raise ValueError(f"the objective names a player {name!r}, the players are {', '.join(self)}")


class Context(NamedTuple):
    """What an objective sees of one training step.

    Attributes:
      outputs: ``{player: Outputs}`` of the networks at their inputs of this step.
      call: ``{player: fn(*inputs, params=None, key=None, train=False) -> Outputs}``, to evaluate a network
        at another input or with other parameters; changes of its state are dropped.
      params: ``{player: params}``, for losses that read a head.
      batch: the examples of this step, as the trainer's ``prepare`` returned them.
      data: everything that is constant over the run.
    """

    outputs: Mapping[str, Outputs]
    call: Mapping[str, Callable[..., Outputs]]
    params: Mapping[str, PyTree]
    batch: Any
    data: Any = None


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


def objective(fn: Callable[[Context], ArrayLike]) -> Objective:
    """Lift a plain loss ``fn(ctx) -> scalar`` without parameters of its own."""

    def init(key, ctx):
        del key, ctx
        return (), ()

    def apply(params, state, ctx, *, key, step):
        del params, key, step
        return jnp.asarray(fn(ctx)), state, {}

    return Objective(init, apply)


def weighted(
    **terms: tuple[ArrayLike | Callable[[Array], ArrayLike], Objective | Callable[[Context], ArrayLike]],
) -> Objective:
    """The weighted sum of named objectives.

    Args:
      **terms: ``name=(weight, objective)``; a weight is a number or an `optax.Schedule` of the step, a
        plain function counts as ``objective(function)``.

    Returns:
      An `Objective` whose metrics hold each unweighted term under its name, and whose ``terms`` keep them.
    """
    if not terms:
        raise ValueError("weighted() needs at least one term, e.g. ce=(1.0, loss)")
    parts = tuple(
        (name, weight, loss if isinstance(loss, Objective) else objective(loss))
        for name, (weight, loss) in terms.items()
    )

    def init(key, ctx):
        keys = jax.random.split(key, len(parts))
        pairs = {name: loss.init(k, ctx) for k, (name, _, loss) in zip(keys, parts, strict=True)}
        return {n: p for n, (p, _) in pairs.items()}, {n: s for n, (_, s) in pairs.items()}

    def apply(params, state, ctx, *, key, step):
        keys = jax.random.split(key, len(parts))
        total, states, metrics = jnp.zeros(()), {}, {}
        for k, (name, weight, loss) in zip(keys, parts, strict=True):
            value, states[name], inner = loss.apply(params[name], state[name], ctx, key=k, step=step)
            total = total + (weight(step) if callable(weight) else weight) * value
            metrics |= {name: value, **{f"{name}/{k}": v for k, v in inner.items()}}
        return total, states, metrics

    return Objective(init, apply, parts)
