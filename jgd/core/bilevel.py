"""Differentiation through an inner optimisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

__all__ = ["unroll"]


def unroll(
    step: Callable[[PyTree, Any], PyTree], state: PyTree, num_steps: int, *, segment: int | None = None
) -> PyTree:
    """Run ``state = step(state, i)`` for ``i = 0 .. num_steps - 1``, with exact gradients in little memory.

    Each step is computed again in the backward pass, so that one state per step is kept and no intermediate
    values. With segments of ``s`` steps only ``num_steps / s + s`` states are kept, at the cost of one more
    forward pass.

    Args:
      step: Function ``(state, i) -> state`` that keeps structure, shapes and types.
      state: First state.
      num_steps: Number of steps, from 0 on.
      segment: Number of steps in a segment; None uses no segments, and about the square root of ``num_steps``
        needs the least memory. Steps that do not fill a segment run first.

    Returns:
      The last state.
    """
    if num_steps < 0:
        raise ValueError(f"num_steps must not be negative, got {num_steps}")
    if segment is not None and segment < 1:
        raise ValueError(f"segment must be at least 1, got {segment}")

    def run(state, start, count):
        def body(state, i):
            return step(state, i), None

        return jax.lax.scan(jax.checkpoint(body), state, start + jnp.arange(count))[0]

    if segment is None or segment >= num_steps:
        return run(state, 0, num_steps)
    rest = num_steps % segment
    state = run(state, 0, rest)

    @jax.checkpoint
    def outer(state, k):
        return run(state, rest + k * segment, segment), None

    return jax.lax.scan(outer, state, jnp.arange(num_steps // segment))[0]
