"""What losses between a student and a teacher share: precision, masks, and a teacher that stays constant."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

__all__ = ["per_example", "ready", "widened"]


def widened(x: Array) -> Array:
    """At least float32, for half precision loses differences of logits."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def ready(
    student: Shaped[Array, "*B D"], teacher: Shaped[Array, "*B E"], where: Bool[Array, "*B"] | None = None
) -> tuple[Float[Array, "*B D"], Float[Array, "*B E"]]:
    """Both in float32 at least, rows that do not count as zeros, the teacher without a gradient.

    The rows are filled before anything is computed with them: a NaN in padding has no way into a gradient.
    """
    student, teacher = widened(student), jax.lax.stop_gradient(widened(teacher))
    if where is not None:
        student, teacher = (jnp.where(where[..., None], x, 0) for x in (student, teacher))
    return student, teacher


def per_example(
    values: Float[Array, "*B"], student: Shaped[Array, "*B D"], where: Bool[Array, "*B"] | None = None
) -> Float[Array, "*B"]:
    """Losses of examples in the precision of the student, zero for those that do not count."""
    return (values if where is None else jnp.where(where, values, 0)).astype(student.dtype)
