r"""Neural tangent kernels of graphs, and ridge regression with them.

Cho and Saul, "Kernel Methods for Deep Learning", NeurIPS 2009 (arc-cosine kernels); Jacot et al., "Neural
Tangent Kernel", NeurIPS 2018; Du et al., "Graph Neural Tangent Kernel", NeurIPS 2019; Wang et al., "Fast
Graph Condensation with Structure-based Neural Tangent Kernel", WWW 2024.

The kernel of two sets of nodes is that of an infinitely wide network which in each of K rounds propagates and
then applies L layers of ReLU. With covariances Σ and tangent kernels Θ between the sets, both ``X_1 X_2^T``
at first::

    Σ, Θ ← A_1 Σ A_2^T, A_1 Θ A_2^T                             a round begins
    ρ = Σ / (d_1 d_2^T),   Θ ← Θ κ0(ρ) + d_1 d_2^T κ1(ρ),   Σ ← d_1 d_2^T κ1(ρ)         a layer

where d are the root diagonals of each set's covariance with itself at the same stage. A layer keeps them
(κ1(1) = 1), so there is one d for each round.

With rows of A that sum to one this is the SNTK ("average"), and also the degree-scaled GNTK that scores the
sets of SFGC: K = 2 rounds of L = 2 layers, with self loops. With plain sums it is the SNTK called "add".
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgd.graph import DiagonalOperator, Operator

__all__ = ["deviations", "gntk_score", "graph_ntk", "kappa0", "kappa1", "ridge_predict"]

# --- arc-cosine kernels -------------------------------------------------------------------------


def _angle(rho: Array, rest: Array) -> Array:
    return jnp.arctan2(jnp.sqrt(rest), rho)


def _inside(rho: Array) -> tuple[Array, Array]:
    """Return ``1 - ρ²``, and whether that exceeds the rounding of a computed correlation."""
    rest = (1 - rho) * (1 + rho)
    return rest, rest > 8 * jnp.finfo(rho.dtype).eps


@jax.custom_jvp
def kappa0(rho: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """Compute ``(π - acos ρ) / π``, twice the probability that two correlated units are both active.

    ``κ0(1) = 1``, ``κ0(0) = 1/2``, ``κ0(-1) = 0``. Correlations are clipped to [-1, 1]. An angle is a norm:
    near both ends the rounding error of ρ becomes its square root, and the derivative is infinite. Therefore
    correlations that are ±1 up to rounding count as ±1, with a derivative of zero.
    """
    rho = jnp.clip(rho, -1, 1)
    rest, inside = _inside(rho)
    return 1 - _angle(rho, jnp.where(inside, rest, 0)) / jnp.pi


@kappa0.defjvp
def _kappa0_jvp(primals, tangents):
    (rho,), (change,) = primals, tangents
    rest, inside = _inside(rho)
    slope = jnp.where(inside, 1 / (jnp.pi * jnp.sqrt(jnp.where(inside, rest, 1))), 0)
    return kappa0(rho), slope * change


@jax.custom_jvp
def kappa1(rho: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """Compute ``(ρ (π - acos ρ) + √(1 - ρ²)) / π``, the correlation of two inputs after a ReLU layer.

    ``κ1(1) = 1``, ``κ1(0) = 1/π``, ``κ1(-1) = 0``, and its derivative is κ0. Correlations are clipped to
    [-1, 1].
    """
    rho = jnp.clip(rho, -1, 1)
    rest, _ = _inside(rho)
    return (rho * (jnp.pi - _angle(rho, rest)) + jnp.sqrt(rest)) / jnp.pi


@kappa1.defjvp
def _kappa1_jvp(primals, tangents):
    (rho,), (change,) = primals, tangents
    return kappa1(rho), kappa0(rho) * change


# --- kernels of graphs --------------------------------------------------------------------------


def _products(x: Array, y: Array) -> Array:
    return jnp.matmul(x, y.T, precision="highest")  # a kernel in bfloat16 is not positive


def _aggregate(a: Operator, matrix: Array, b: Operator) -> Array:
    """Compute ``A M B^T``."""
    return (b @ (a @ matrix).T).T


def _root(x: Array) -> Array:
    """Compute the square root with a derivative of zero at zero."""
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1)), 0)


def _layers(sigma: Array, theta: Array, d1: Array, d2: Array, layers: int) -> tuple[Array, Array]:
    scale = d1[:, None] * d2
    rho = jnp.where(scale > 0, sigma / jnp.where(scale > 0, scale, 1), 0)
    for _ in range(layers):
        theta = theta * kappa0(rho)
        rho = kappa1(rho)
        theta = theta + scale * rho
    return scale * rho, theta


def _check(rounds: int, layers: int) -> None:
    if rounds < 1 or layers < 1:
        raise ValueError(f"rounds and layers must be at least 1, got {rounds} and {layers}")


def deviations(
    a: Operator, x: Float[Array, "n F"], *, rounds: int = 2, layers: int = 2
) -> Float[Array, "{rounds} n"]:
    """Compute the root diagonal of a set's covariance with itself in each round.

    Args:
      a: Operator ``[n, n]`` by which the nodes of the set propagate.
      x: Features of the nodes.
      rounds: Number of propagations.
      layers: Number of ReLU layers after each propagation.
    """
    _check(rounds, layers)
    if isinstance(a, DiagonalOperator):  # nodes do not mix, and layers keep the diagonal
        lengths = _root(jnp.sum(x**2, axis=1))
        return jnp.stack([lengths * jnp.abs(a.values) ** (k + 1) for k in range(rounds)])
    sigma, found = _products(x, x), []
    for k in range(rounds):
        sigma = _aggregate(a, sigma, a)
        found.append(_root(jnp.diagonal(sigma)))
        if k + 1 < rounds:
            sigma, _ = _layers(sigma, sigma, found[-1], found[-1], layers)
    return jnp.stack(found)


def graph_ntk(
    a1: Operator,
    x1: Float[Array, "n F"],
    a2: Operator,
    x2: Float[Array, "m F"],
    *,
    rounds: int = 2,
    layers: int = 2,
    first: Float[Array, "K n"] | None = None,
    second: Float[Array, "K m"] | None = None,
) -> Float[Array, "n m"]:
    """Compute the tangent kernel between two sets of nodes, as the module describes.

    Args:
      a1: Operator by which the nodes of the first set propagate; rows that sum to one give the usual scaling.
      x1: Features of the first set.
      a2: Operator of the second set.
      x2: Features of the second set.
      rounds: Number of propagations.
      layers: Number of ReLU layers after each propagation.
      first: `deviations` of the first set, where they are known already.
      second: `deviations` of the second set, where they are known already.

    Returns:
      The kernel, symmetric and positive semi-definite for a set with itself.
    """
    _check(rounds, layers)
    first = deviations(a1, x1, rounds=rounds, layers=layers) if first is None else first
    second = deviations(a2, x2, rounds=rounds, layers=layers) if second is None else second
    sigma = theta = _products(x1, x2)
    for k in range(rounds):
        sigma, theta = _aggregate(a1, sigma, a2), _aggregate(a1, theta, a2)
        sigma, theta = _layers(sigma, theta, first[k], second[k], layers)
    return theta


# --- ridge regression ---------------------------------------------------------------------------


def ridge_predict(
    k_ts: Float[Array, "t s"], k_ss: Float[Array, "s s"], y: Float[Array, "s C"], ridge: float | Array
) -> Float[Array, "t C"]:
    """Predict ``K_ts (K_ss + λ I)^-1 Y`` with ``λ = ridge tr(K_ss) / s`` (kernel ridge regression, Cholesky).

    Args:
      k_ts: Kernel between the predicted points and the support.
      k_ss: Kernel of the support, symmetric and positive semi-definite.
      y: Targets of the support.
      ridge: Ridge in units of the mean diagonal of the kernel. It is never less than the rounding of the
        kernel, ``s`` times the machine epsilon, which interpolates up to rounding.
    """
    size = k_ss.shape[0]
    ridge = jnp.maximum(ridge, size * jnp.finfo(k_ss.dtype).eps)
    shift = ridge * jnp.trace(k_ss) / size
    factor = jax.scipy.linalg.cho_factor(k_ss + shift * jnp.eye(size, dtype=k_ss.dtype), lower=True)
    return jnp.matmul(k_ts, jax.scipy.linalg.cho_solve(factor, y), precision="highest")


def gntk_score(
    small: tuple[Operator, Float[Array, "n F"], Float[Array, "n C"]],
    real: tuple[Operator, Float[Array, "m F"], Float[Array, "m C"]],
    *,
    ridge: float = 1.0,
    rounds: int = 2,
    layers: int = 2,
) -> Float[Array, ""]:
    """Compute the error of a small set in predicting real nodes by kernel ridge regression, SFGC's criterion.

    Args:
      small: Operator, features and targets of the small set. Operators have self loops and rows that sum to
        one: ``operator(graph, normalize="row", self_loops=True)``.
      real: Operator, features and targets of the real nodes, e.g. of the validation graph.
      ridge: Ridge, see `ridge_predict`; 1 for small data sets.
      rounds: Number of propagations, see `graph_ntk`.
      layers: Number of ReLU layers after each propagation, see `graph_ntk`.

    Returns:
      Half the mean squared error; smaller is better.
    """
    (a, x, y), (b, z, targets) = small, real
    own = deviations(a, x, rounds=rounds, layers=layers)
    k_ss = graph_ntk(a, x, a, x, rounds=rounds, layers=layers, first=own, second=own)
    k_ts = graph_ntk(b, z, a, x, rounds=rounds, layers=layers, second=own)
    return jnp.mean((ridge_predict(k_ts, k_ss, y, ridge) - targets) ** 2) / 2
