"""Fréchet distance between the Gaussians that fit two weighted samples."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from jgd.losses import mean
from jgd.losses.common import Count, checked, labelled, widened
from jgd.registry import Entry

__all__ = ["frechet_distance", "within_cluster_variance"]


@checked
def frechet_distance(
    x: Float[Array, "N d"],
    y: Float[Array, "n d"],
    x_weights: Float[Array, " N"] | None = None,
    y_weights: Float[Array, " n"] | None = None,
    *,
    ddof: int = 1,
) -> Float[Array, ""]:
    """Compute ``|mu - mu'|^2 + Tr(S + S' - 2 (S^1/2 S' S^1/2)^1/2)``, the Fréchet distance of two Gaussians.

    Heusel et al. (2017) apply it to features of an Inception network and call it FID; here the samples are
    given.

    With ``S = U^T U`` the last trace is the nuclear norm of ``U U'^T``, so no matrix root is taken. If
    ``y`` are the means of clusters of ``x``, weighted by their sizes, the distance with ``ddof=0`` is at most
    the within-cluster variance, which is the cost of moving every point to the mean of its cluster.

    Args:
      x: First sample.
      y: Other sample.
      x_weights: Nonnegative weights of ``x``; equal by default.
      y_weights: Nonnegative weights of ``y``; equal by default.
      ddof: Correction of the covariances. 1 divides the sums of squares of N examples by N - 1, as common
        implementations do; with weights of sum 1 by ``1 - Σ w²``, as `numpy.cov` does (``aweights``). 0
        divides by N and takes the two samples as the whole distributions.

    Returns:
      A number from 0 on; NaN where a number is NaN.

    Raises:
      ValueError: If a sample has one example with ``ddof=1`` or none with ``ddof=0``, or ``ddof`` is another
        number.
    """
    if ddof not in (0, 1):
        raise ValueError(f"frechet_distance: ddof must be 1 (divide by N - 1) or 0 (by N), got {ddof!r}")
    for name, sample in (("x", x), ("y", y)):
        if sample.shape[0] <= ddof:
            raise ValueError(
                f"frechet_distance: {name} of shape {sample.shape} has too few examples for a covariance "
                f"that divides by N - {ddof}{': set ddof=0' if sample.shape[0] else ''}"
            )

    def moments(sample, weights):
        sample = widened(sample)
        weights = jnp.ones(sample.shape[0], sample.dtype) if weights is None else weights
        weights = weights / jnp.sum(weights)
        mu = weights @ sample
        rows = jnp.sqrt(weights)[:, None] * (sample - mu)
        return mu, rows if ddof == 0 else rows * jax.lax.rsqrt(1 - jnp.sum(weights**2))

    def narrow(u):
        """Return fewer rows with the same ``u^T u``."""
        return jnp.linalg.qr(u, mode="r") if u.shape[0] > u.shape[1] else u

    (mu, u), (nu, v) = moments(x, x_weights), moments(y, y_weights)
    overlap = jnp.linalg.svd(narrow(u) @ narrow(v).T, compute_uv=False)
    distance = jnp.sum((mu - nu) ** 2) + jnp.sum(u**2) + jnp.sum(v**2) - 2 * jnp.sum(overlap)
    return jnp.maximum(distance, 0)


@checked
def within_cluster_variance(
    x: Float[Array, "N d"], labels: Shaped[Array, " N"], k: Count
) -> Float[Array, ""]:
    """Compute WCSS / N, the mean squared distance of points from the mean of their cluster.

    Args:
      x: Points.
      labels: Clusters in ``0..k-1``; points of -1 are left out.
      k: Number of clusters.
    """
    x = widened(x)
    known, wrong = labelled(labels, k)
    x = jnp.where(wrong[:, None], jnp.nan, jnp.where(known[:, None], x, 0))
    labels = jnp.where(known | wrong, jnp.clip(labels, 0, k - 1), k).astype(int)  # k: in no sum
    sizes = jax.ops.segment_sum(jnp.ones(x.shape[0], x.dtype), labels, k)
    means = jax.ops.segment_sum(x, labels, k) / jnp.maximum(sizes, 1)[:, None]
    each = jnp.sum((x - means[jnp.minimum(labels, k - 1)]) ** 2, -1)
    return mean(each, known | wrong)


ENTRIES = (
    Entry(
        "frechet-distance",
        frechet_distance,
        "Distance of the Gaussians that fit two samples.",
        paper="Heusel et al. 2017",
    ),
    Entry(
        "within-cluster-variance",
        within_cluster_variance,
        "Mean squared distance of points from the mean of their cluster.",
    ),
)
