"""k-means in JAX: k-means++ seeding, Lloyd's iterations or mini-batches, no empty clusters."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

__all__ = ["KMeans", "assign", "kmeans", "kmeans_plus_plus"]


class KMeans(NamedTuple):
    """Result of `kmeans`.

    Attributes:
      centers: ``[k, d]`` means of the clusters.
      labels: ``[n]`` nearest center of each point (any of equally near ones, so that no cluster is empty).
      inertia: Sum of squared distances to the nearest centers, the WCSS.
      history: ``[max_steps]`` inertia before each of Lloyd's iterations, then NaN.
    """

    centers: Float[Array, "k d"]
    labels: Int[Array, " n"]
    inertia: Float[Array, ""]
    history: Float[Array, " steps"]


def _square_distances(x, centers):
    """Compute squared distances ``[n, k]``, never negative."""
    cross = x @ centers.T
    return jnp.maximum(jnp.sum(x**2, -1)[:, None] - 2 * cross + jnp.sum(centers**2, -1), 0)


def assign(
    x: Float[Array, "n d"], centers: Float[Array, "k d"], *, chunk_size: int = 2**22
) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """Find the nearest center of each point and the squared distance to it, in chunks of bounded memory.

    Args:
      x: Points.
      centers: Centers.
      chunk_size: Most numbers of the distance matrix that are held at once.
    """

    def nearest(chunk):
        labels = jnp.argmin(_square_distances(chunk, centers), -1)
        # The expanded square loses digits for close points: compute the chosen distance directly.
        return labels, jnp.sum((chunk - centers[labels]) ** 2, -1)

    n, size = x.shape[0], max(1, chunk_size // centers.shape[0])
    if n <= size:
        return nearest(x)
    count = -(-n // size)
    chunks = jnp.pad(x, ((0, count * size - n), (0, 0))).reshape(count, size, -1)
    labels, distances = jax.lax.map(nearest, chunks)
    return labels.reshape(-1)[:n], distances.reshape(-1)[:n]


def kmeans_plus_plus(key: Array, x: Float[Array, "n d"], k: int) -> Float[Array, "k d"]:
    """Draw greedy k-means++ seeds (Arthur and Vassilvitskii, SODA 2007).

    Each further seed is the best of ``2 + log k`` points, drawn with probability proportional to the squared
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


def _fill(x, centers, labels, distances):
    """Move each empty cluster to the farthest point of any cluster that holds several."""

    def missing(carry):
        return jnp.any(carry[-1] == 0)

    def take(carry):
        centers, labels, distances, sizes = carry
        point, empty = jnp.argmax(jnp.where(sizes[labels] > 1, distances, -1)), jnp.argmin(sizes)
        return (
            centers.at[empty].set(x[point]),
            labels.at[point].set(empty),
            distances.at[point].set(0),
            sizes.at[labels[point]].add(-1).at[empty].set(1),
        )

    sizes = jnp.bincount(labels, length=centers.shape[0])
    labels = labels.astype(sizes.dtype)
    return jax.lax.while_loop(missing, take, (centers, labels, distances, sizes))[:-1]


def _means(x, labels, k):
    ones = jnp.ones(x.shape[0], x.dtype)
    return jax.ops.segment_sum(x, labels, k) / jax.ops.segment_sum(ones, labels, k)[:, None]


def lloyd(x, centers, max_steps, tol):
    enough = tol * jnp.mean(jnp.var(x, 0))

    def running(carry):
        i, _, shift, _ = carry
        return (i < max_steps) & (shift > enough)

    def body(carry):
        i, centers, _, history = carry
        labels, distances = assign(x, centers)
        history = history.at[i].set(jnp.sum(distances))
        _, labels, _ = _fill(x, centers, labels, distances)
        new = _means(x, labels, centers.shape[0])
        return i + 1, new, jnp.sum((new - centers) ** 2), history

    begin = (0, centers, jnp.asarray(jnp.inf, x.dtype), jnp.full(max_steps, jnp.nan, x.dtype))
    _, centers, _, history = jax.lax.while_loop(running, body, begin)
    return centers, history


def _mini_batch(key, x, centers, steps, size):
    """Run mini-batches (Sculley, WWW 2010): each center is the running mean of all points assigned to it."""

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
    """Cluster points by squared Euclidean distance and return the best of several restarts.

    Args:
      key: Random key.
      x: Points.
      k: Number of clusters, in ``1..n``.
      restarts: Number of independent runs, of which the one with the least inertia is returned.
      max_steps: Largest number of Lloyd's iterations, or number of mini-batches.
      tol: Squared movement of the centers, relative to the mean variance, below which iterations stop.
      batch_size: Number of points in a mini-batch; None uses Lloyd's full iterations.

    Returns:
      Clusters, none of them empty.

    Raises:
      ValueError: If ``k`` is out of range, or there are no restarts.
    """
    if not 1 <= k <= x.shape[0]:
        raise ValueError(f"k must be between 1 and the number of points, {x.shape[0]}; got {k}")
    if restarts < 1:
        raise ValueError(f"restarts must be at least 1, got {restarts}")
    middle = jnp.mean(x, axis=0)
    x = x - middle  # expanded squares lose their digits far from the origin

    def once(key):
        k_seed, k_some, k_batch = jax.random.split(key, 3)
        if batch_size is None:
            centers, history = lloyd(x, kmeans_plus_plus(k_seed, x, k), max_steps, tol)
        else:
            some = jax.random.permutation(k_some, x)[: 3 * max(batch_size, k)]
            centers = _mini_batch(k_batch, x, kmeans_plus_plus(k_seed, some, k), max_steps, batch_size)
            history = jnp.full(max_steps, jnp.nan, x.dtype)
        centers, labels, distances = _fill(x, centers, *assign(x, centers))
        return KMeans(centers + middle, labels, jnp.sum(distances), history)

    runs = jax.lax.map(once, jax.random.split(key, restarts))
    best = jnp.argmin(runs.inertia)
    return jax.tree.map(lambda a: a[best], runs)
