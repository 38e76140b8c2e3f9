"""Differentiating through an inner optimisation."""

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

    Each step is computed again in the backward pass, so that one state per step is kept and none of what
    a step computes inside. In segments of ``s`` steps only ``num_steps / s + s`` states are kept, for one
    more forward pass.

    Args:
      step: ``(state, i) -> state`` of the same structure, shapes and types.
      state: where to begin.
      num_steps: number of steps, 0 for none.
      segment: steps in a segment; None for no segments, and about the square root of ``num_steps`` needs
        least memory. What does not fill a segment runs first.

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
