"""DOT: separate momenta for the task and the teacher.

Zhao et al., "DOT: A Distillation-Oriented Trainer", ICCV 2023.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

__all__ = ["dot", "scale_by_dot"]


class DotState(NamedTuple):
    """State of `scale_by_dot`: two velocities."""

    task: Any
    distillation: Any


def scale_by_dot(momentum: float = 0.9, delta: float = 0.075) -> optax.GradientTransformationExtraArgs:
    """Sum two velocities: of the task's gradients and of the extra argument ``distillation``.

    ``v ← (μ - Δ) v + g`` for the task, ``w ← (μ + Δ) w + h`` for the teacher, and ``v + w`` is returned.

    Args:
      momentum: Momentum μ.
      delta: Difference Δ of the momenta: the teacher's gradients decay more slowly by it, the task's faster.

    Raises:
      ValueError: If one of the momenta ``μ ± Δ`` is outside [0, 1).
    """
    ours, theirs = momentum - delta, momentum + delta
    if not (0 <= ours < 1 and 0 <= theirs < 1):
        raise ValueError(f"momentum ± delta must be in [0, 1), got {ours:g} and {theirs:g}")

    def init(params):
        return DotState(jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.zeros_like, params))

    def update(updates, state, params=None, *, distillation=None, **extra):
        del params, extra
        if distillation is None:
            raise ValueError("dot needs the teacher's gradients too: wrap it in jgd.distill.by_source")
        task = jax.tree.map(lambda v, g: ours * v + g, state.task, updates)
        taught = jax.tree.map(lambda w, g: theirs * w + g, state.distillation, distillation)
        return jax.tree.map(jnp.add, task, taught), DotState(task, taught)

    return optax.GradientTransformationExtraArgs(init, update)


def dot(
    learning_rate: optax.ScalarOrSchedule,
    momentum: float = 0.9,
    delta: float = 0.075,
    weight_decay: float = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """Build DOT, gradient descent with ``update(task, state, params, distillation=gradients)``.

    With ``delta=0`` it is gradient descent with momentum on the sum of both. `jgd.distill.by_source` supplies
    the two gradients.

    Args:
      learning_rate: Learning rate, a number or a schedule.
      momentum: Momentum μ.
      delta: Difference Δ of the momenta; 0.075 on CIFAR-100, 0.09 on ImageNet.
      weight_decay: Coefficient of an L2 term, which belongs to the task.
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        scale_by_dot(momentum, delta),
        optax.scale_by_learning_rate(learning_rate),
    )
