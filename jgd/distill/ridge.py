r"""Distillation by ridge regression: bias, variance and the best weight of the teacher in closed form.

The linear case of distillation on a pruned training set, see `jgd.distill.pruning`. Targets are
``y = X θ + η`` and ``A = X^T X``; the teacher ``θ_t = (A_t + λ I)^-1 X_t^T y_t`` sees the examples t, the
student the kept examples f::

    θ_s = (A_f + λ I)^-1 X_f^T ((1-α) y_f + α X_f θ_t) = M y

so that the student's mean is ``M X θ`` and its variance ``σ² ‖M‖_F²``. A teacher of all examples lowers the
bias of one that saw only the kept ones; compared with no teacher the bias rises a little and the variance
collapses. The authors published no code: the theory is derived again from their setting.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

__all__ = ["Ridge", "best_alpha", "ridge_distillation"]


class Ridge(NamedTuple):
    """A linear student.

    Attributes:
      theta: Coefficients ``[d]`` for the targets that were given.
      bias2: ``‖E θ_s - θ‖²`` over noise.
      variance: ``E ‖θ_s - E θ_s‖²`` over noise.
    """

    theta: Array
    bias2: Array
    variance: Array


def _solver(x, kept, lam) -> Array:
    """Return the coefficients of ridge regression, linear in all targets: ``(A + λ I)^-1 X_f S_f``."""
    x = x * kept[:, None]
    gram = jnp.matmul(x.T, x, precision="highest") + lam * jnp.eye(x.shape[1], dtype=x.dtype)
    return jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(gram), x.T)


def _linear_students(x, kept, lam, taught) -> tuple[Array, Array]:
    """Return maps ``[d, N]`` from targets to the student without a teacher, and to that with nothing else."""
    product = partial(jnp.matmul, precision="highest")
    alone = _solver(x, kept, lam)
    teacher = _solver(x, jnp.ones_like(kept) if taught is None else taught, lam)
    return alone, product(product(alone, x), teacher)


def ridge_distillation(
    x: Float[Array, "N d"],
    y: Float[Array, " N"],
    kept: Shaped[Array, " N"],
    alpha: Any,
    lam: Any,
    *,
    truth: Float[Array, " d"],
    noise: Any = 1.0,
    taught: Shaped[Array, " N"] | None = None,
) -> Ridge:
    """Fit ridge regression on some examples to a mixture of their targets and a teacher's predictions.

    Args:
      x: Inputs.
      y: Targets.
      kept: Mask of the student's examples.
      alpha: Weight of the teacher.
      lam: Penalty λ.
      truth: True coefficients θ.
      noise: Standard deviation σ of η.
      taught: Mask of the teacher's examples; None for all.
    """
    kept = kept.astype(x.dtype)
    alone, copied = _linear_students(x, kept, lam, None if taught is None else taught.astype(x.dtype))
    m = (1 - alpha) * alone + alpha * copied
    bias = jnp.matmul(m, x @ truth, precision="highest") - truth
    theta = jnp.matmul(m, y, precision="highest")
    return Ridge(theta, jnp.sum(bias**2), noise**2 * jnp.sum(m**2))


def best_alpha(
    x: Float[Array, "N d"],
    kept: Shaped[Array, " N"],
    lam: Any,
    *,
    truth: Float[Array, " d"],
    noise: Any = 1.0,
    taught: Shaped[Array, " N"] | None = None,
) -> Float[Array, ""]:
    """Return the α in 0..1 of the least bias² + variance of `ridge_distillation`, a vertex."""
    kept = kept.astype(x.dtype)
    alone, copied = _linear_students(x, kept, lam, None if taught is None else taught.astype(x.dtype))
    change = copied - alone
    signal = x @ truth
    bias, slope = (jnp.matmul(m, signal, precision="highest") for m in (alone, change))
    down = jnp.sum((bias - truth) * slope) + noise**2 * jnp.sum(alone * change)
    curve = jnp.sum(slope**2) + noise**2 * jnp.sum(change**2)
    return jnp.clip(-down / jnp.maximum(curve, jnp.finfo(x.dtype).tiny), 0, 1)
