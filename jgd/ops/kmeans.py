"""k-means in JAX: k-means++ seeding, Lloyd's iterations or mini-batches, no empty clusters."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

__all__ = ["KMeans", "assign", "kmeans", "kmeans_plus_plus"]

_BLOCK = 2**22  # numbers in one block of the distance matrix


class KMeans(NamedTuple):
    """Result of `kmeans`.

    Attributes:
      centers: ``[k, d]`` means of the clusters.
      labels: ``[n]`` nearest center of each point.
      inertia: sum of squared distances to it, the WCSS.
      history: ``[max_steps]`` inertia before each of Lloyd's iterations, then NaN.
    """

    centers: Float[Array, "k d"]
    labels: Int[Array, " n"]
    inertia: Float[Array, ""]
    history: Float[Array, " steps"]


def _square_distances(x, centers):
    """``[n, k]``, never negative."""
    cross = x @ centers.T
    return jnp.maximum(jnp.sum(x**2, -1)[:, None] - 2 * cross + jnp.sum(centers**2, -1), 0)


def assign(
    x: Float[Array, "n d"], centers: Float[Array, "k d"]
) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """The nearest center of each point and the squared distance to it, in blocks of bounded memory."""

    def nearest(block):
        labels = jnp.argmin(_square_distances(block, centers), -1)
        # The expanded square loses digits for close points, so measure the chosen one directly.
        return labels, jnp.sum((block - centers[labels]) ** 2, -1)

    n, size = x.shape[0], max(1, _BLOCK // centers.shape[0])
    if n <= size:
        return nearest(x)
    count = -(-n // size)
    blocks = jnp.pad(x, ((0, count * size - n), (0, 0))).reshape(count, size, -1)
    labels, distances = jax.lax.map(nearest, blocks)
    return labels.reshape(-1)[:n], distances.reshape(-1)[:n]


def kmeans_plus_plus(key: Array, x: Float[Array, "n d"], k: int) -> Float[Array, "k d"]:
    """Greedy k-means++ seeds (Arthur and Vassilvitskii, SODA 2007).

    Each next seed is the best of ``2 + log k`` points drawn with probability proportional to the squared
    distance from the seeds so far.
    """
    trials = 2 + int(math.log(k))
    k_first, k_rest = jax.random.split(key)
    first = x[jax.random.randint(k_first, (), 0, x.shape[0])]
    centers = jnp.zeros((k, x.shape[1]), x.dtype).at[0].set(first)
    nearest = jnp.sum((x - first) ** 2, -1)

    def add(i, carry):
        centers, nearest = carry
        total = jnp.cumsum(nearest)
        draws = jax.random.uniform(jax.random.fold_in(k_rest, i), (trials,)) * total[-1]
        chosen = jnp.minimum(jnp.searchsorted(total, draws, side="right"), x.shape[0] - 1)
        candidates = x[chosen]
        after = jnp.minimum(nearest, _square_distances(candidates, x))
        best = jnp.argmin(jnp.sum(after, -1))
        return centers.at[i].set(candidates[best]), after[best]

    return jax.lax.fori_loop(1, k, add, (centers, nearest))[0]


def _means(x, labels, distances, k):
    """Means of the clusters; an empty one moves to the point that is farthest from its center."""
    sums = jax.ops.segment_sum(x, labels, k)
    sizes = jax.ops.segment_sum(jnp.ones(x.shape[0], x.dtype), labels, k)
    empty = sizes == 0

    def relocate(_):
        _, far = jax.lax.top_k(distances, min(k, x.shape[0]))
        rank = jnp.clip(jnp.cumsum(empty) - 1, 0, far.shape[0] - 1)
        taken = far[rank]
        # The point leaves its old cluster, whose sum and size shrink.
        moved = empty.astype(x.dtype)
        new_sums = sums.at[labels[taken]].add(-moved[:, None] * x[taken])
        new_sizes = sizes.at[labels[taken]].add(-moved)
        new_sums = jnp.where(empty[:, None], x[taken], new_sums)
        return new_sums, jnp.where(empty, 1.0, new_sizes)

    sums, sizes = jax.lax.cond(jnp.any(empty), relocate, lambda _: (sums, sizes), None)
    return sums / jnp.maximum(sizes, 1)[:, None]


def _lloyd(x, centers, max_steps, tol):
    k = centers.shape[0]
    enough = tol * jnp.mean(jnp.var(x, 0))

    def running(carry):
        i, _, shift, _ = carry
        return (i < max_steps) & (shift > enough)

    def body(carry):
        i, centers, _, history = carry
        labels, distances = assign(x, centers)
        new = _means(x, labels, distances, k)
        return i + 1, new, jnp.sum((new - centers) ** 2), history.at[i].set(jnp.sum(distances))

    begin = (0, centers, jnp.asarray(jnp.inf, x.dtype), jnp.full(max_steps, jnp.nan, x.dtype))
    _, centers, _, history = jax.lax.while_loop(running, body, begin)
    return centers, history


def _mini_batch(key, x, centers, steps, size):
    """Sculley (WWW 2010): each center is the running mean of all points it was given."""

    def body(i, carry):
        centers, seen = carry
        batch = x[jax.random.randint(jax.random.fold_in(key, i), (size,), 0, x.shape[0])]
        labels, _ = assign(batch, centers)
        counts = jax.ops.segment_sum(jnp.ones(size, x.dtype), labels, centers.shape[0])
        sums = jax.ops.segment_sum(batch, labels, centers.shape[0])
        seen = seen + counts
        rate = 1 / jnp.maximum(seen, 1)
        return centers + rate[:, None] * (sums - counts[:, None] * centers), seen

    begin = (centers, jnp.zeros(centers.shape[0], x.dtype))
    return jax.lax.fori_loop(0, steps, body, begin)[0]


@partial(jax.jit, static_argnames=("k", "restarts", "max_steps", "batch_size"))
def kmeans(
    key: Array,
    x: Float[Array, "n d"],
    k: int,
    *,
    restarts: int = 10,
    max_steps: int = 300,
    tol: float = 1e-4,
    batch_size: int | None = None,
) -> KMeans:
    """Cluster points by squared Euclidean distance; the best of several restarts.

    Args:
      key: random key.
      x: points.
      k: number of clusters, in ``1..n``.
      restarts: independent runs, of which the one with the least inertia is returned.
      max_steps: most iterations of Lloyd, or number of mini-batches.
      tol: stop when the centers moved by less than this share of the mean variance (squared).
      batch_size: points in a mini-batch; None for Lloyd's full iterations.

    Returns:
      Clusters of which none is empty, as long as there are ``k`` distinct points (mini-batches: as long as
      every seed keeps a point).

    Raises:
      ValueError: for an impossible ``k``.
    """
    if not 1 <= k <= x.shape[0]:
        raise ValueError(f"k must be between 1 and the number of points, {x.shape[0]}; got {k}")

    def once(key):
        k_seed, k_batch = jax.random.split(key)
        centers = kmeans_plus_plus(k_seed, x, k)
        if batch_size is None:
            centers, history = _lloyd(x, centers, max_steps, tol)
        else:
            centers = _mini_batch(k_batch, x, centers, max_steps, batch_size)
            history = jnp.full(max_steps, jnp.nan, x.dtype)
        labels, distances = assign(x, centers)
        return KMeans(centers, labels, jnp.sum(distances), history)

    runs = jax.lax.map(once, jax.random.split(key, restarts))
    best = jnp.argmin(runs.inertia)
    return jax.tree.map(lambda a: a[best], runs)
