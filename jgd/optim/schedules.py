"""Optimisers of the condensation protocols."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike

__all__ = ["adam_l2", "restart_at"]


class RestartState(NamedTuple):
    """State of `restart_at`."""

    count: Array
    inner: Any


def restart_at(tx: optax.GradientTransformation, step: int) -> optax.GradientTransformationExtraArgs:
    """Reset the state of an optimiser before its update number ``step`` (counted from 0)."""
    tx = optax.with_extra_args_support(tx)

    def init(params):
        return RestartState(jnp.zeros((), jnp.int32), tx.init(params))

    def update(updates, state, params=None, **extra):
        start = state.count == step
        fresh = tx.init(params if params is not None else updates)
        inner = jax.tree.map(lambda new, old: jnp.where(start, new, old), fresh, state.inner)
        updates, inner = tx.update(updates, inner, params, **extra)
        return updates, RestartState(state.count + 1, inner)

    return optax.GradientTransformationExtraArgs(init, update)


def adam_l2(
    learning_rate: ArrayLike, weight_decay: ArrayLike = 0.0, *, num_steps: int, decay: float = 0.1
) -> optax.GradientTransformationExtraArgs:
    """Build Adam as the graph condensation papers use it.

    Weight decay is an L2 term in the gradient (as in ``torch.optim.Adam``, not AdamW), and at half of the
    steps the state of the optimiser is reset and the learning rate multiplied by ``decay``.

    Args:
      learning_rate: Learning rate of the first half.
      weight_decay: Coefficient of the L2 term.
      num_steps: Number of steps of the run.
      decay: Factor of the learning rate in the second half.
    """
    half = num_steps // 2

    def rate(count):
        return learning_rate * jnp.where(count < half, 1.0, decay)

    adam = restart_at(optax.scale_by_adam(), half)
    l2 = optax.add_decayed_weights(weight_decay)  # pyright: ignore[reportArgumentType] - arrays are fine
    return optax.chain(l2, adam, optax.scale_by_learning_rate(rate))
