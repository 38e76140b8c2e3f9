"""Fréchet distance between the Gaussians that fit two weighted samples."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

__all__ = ["frechet_distance", "within_cluster_variance"]


def frechet_distance(
    x: Float[Array, "N d"],
    y: Float[Array, "n d"],
    x_weights: Float[Array, " N"] | None = None,
    y_weights: Float[Array, " n"] | None = None,
) -> Float[Array, ""]:
    """``|mu - mu'|^2 + Tr(S + S' - 2 (S^1/2 S' S^1/2)^1/2)`` (the FID of Heusel et al., 2017).

    With ``S = U^T U`` the last trace is the nuclear norm of ``U U'^T``, so no matrix root is taken. If
    ``y`` are the means of clusters of ``x``, weighted by their sizes, the distance is at most the
    within-cluster variance: moving every point to the mean of its cluster costs as much.

    Args:
      x: one sample.
      y: the other.
      x_weights: nonnegative weights of ``x``; equal by default.
      y_weights: nonnegative weights of ``y``; equal by default.
    """

    def moments(sample, weights):
        weights = jnp.ones(sample.shape[0], sample.dtype) if weights is None else weights
        weights = weights / jnp.sum(weights)
        mu = weights @ sample
        return mu, jnp.sqrt(weights)[:, None] * (sample - mu)

    def narrow(u):
        """Fewer rows with the same ``u^T u``."""
        return jnp.linalg.qr(u, mode="r") if u.shape[0] > u.shape[1] else u

    (mu, u), (nu, v) = moments(x, x_weights), moments(y, y_weights)
    overlap = jnp.linalg.svd(narrow(u) @ narrow(v).T, compute_uv=False)
    distance = jnp.sum((mu - nu) ** 2) + jnp.sum(u**2) + jnp.sum(v**2) - 2 * jnp.sum(overlap)
    return jnp.maximum(distance, 0)


def within_cluster_variance(x: Float[Array, "N d"], labels: Int[Array, " N"], k: int) -> Float[Array, ""]:
    """WCSS / N: the mean squared distance of points from the mean of their cluster."""
    sizes = jax.ops.segment_sum(jnp.ones(x.shape[0], x.dtype), labels, k)
    means = jax.ops.segment_sum(x, labels, k) / jnp.maximum(sizes, 1)[:, None]
    return jnp.mean(jnp.sum((x - means[labels]) ** 2, -1))
