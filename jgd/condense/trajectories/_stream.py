"""Experts that are trained inside the matching loop, used for some steps and dropped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from jgd.condense.trajectories._expert import Segment, Span, train_several
from jgd.core import Algorithm

__all__ = ["streamed"]


class Streamed(NamedTuple):
    """State of `streamed`."""

    inner: PyTree
    snapshots: PyTree


def streamed(
    alg: Algorithm,
    run_one: Callable[[Array, Any], PyTree],
    span: Span,
    *,
    group: int,
    every: int,
    at_once: int | None = None,
    get: Callable[[Any], Any] = lambda data: data.real,
) -> Algorithm:
    """Feed a matching algorithm with segments of experts that are trained inside the loop.

    Args:
      alg: Matching algorithm, which takes a `Segment` as its batch.
      run_one: Trajectory of one expert, ``trajectory(..., span.at)``.
      span: Which segments are drawn.
      group: Number of experts that are held; matching takes them in turns.
      every: Matching steps between groups; the old one is dropped.
      at_once: Experts of a group that are trained together, see `train_several`.
      get: ``data -> data`` of the experts, in the data of the loop.

    Returns:
      An `Algorithm` that needs no batches. Its state holds the group, so a run can be resumed anywhere.
    """
    if group < 1 or every < 1:
        raise ValueError(f"group and every must be at least 1, got {group} and {every}")

    def group_of(key, data):
        return train_several(run_one, at_once)(jax.random.split(key, group), get(data))

    def init(key, data, batch):
        del batch
        k_inner, k_group = jax.random.split(key)
        shapes = jax.eval_shape(group_of, k_group, data)
        return Streamed(
            alg.init(k_inner, data, None), jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        )

    def step(key, t, state, data, batch):
        del batch
        k_group, k_draw, k_step = jax.random.split(key, 3)
        snapshots = jax.lax.cond(
            t % every == 0, lambda _: group_of(k_group, data), lambda kept: kept, state.snapshots
        )
        start, target = span.draw(k_draw, t)
        segment = Segment(
            *(jax.tree.map(lambda x: x[t % group, i], snapshots) for i in (start, target, -1))  # noqa: B023
        )
        inner, metrics = alg.step(k_step, t, state.inner, data, segment)
        return Streamed(inner, snapshots), metrics

    def result(state, data):
        return alg.result(state.inner, data)

    if alg.flush is not None:
        raise ValueError("an algorithm with work of its own on the host cannot be streamed to")
    return Algorithm(init, step, result)
