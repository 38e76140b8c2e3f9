"""Sampled neighbourhoods, for graphs that are too large for a pass over all nodes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Integer

from jgd.graph._operator import SparseOperator
from jgd.graph.propagation import Structure

__all__ = ["sample_tree"]


def sample_tree(
    key: Array, a: SparseOperator, seeds: Integer[Array, " m"], fanouts: tuple[int, ...]
) -> tuple[SparseOperator, Integer[Array, " n"]]:
    """Draw the neighbourhood of some nodes as a tree under each of them.

    Every node on level ``l`` draws ``fanouts[l]`` of its nonzeros in ``A``, with replacement; their values
    are scaled so that ``tree @ x[index]`` is ``A @ x`` at the nodes above the leaves, in expectation. The
    output of a network with ``len(fanouts)`` layers on ``(tree, x[index])`` is valid in the first ``m`` rows.
    Shapes depend on ``m`` and ``fanouts`` alone.

    Args:
      key: Random key.
      a: Square operator with the normalisation of the network.
      seeds: Nodes whose neighbourhoods are drawn.
      fanouts: Number of draws for each node, level by level from the seeds outwards.

    Returns:
      The operator of the trees, and the original node of each of its rows, the seeds first.
    """
    if a.transposed or a.values.ndim != 1:
        raise ValueError("give an operator without heads that is not transposed")
    if not fanouts or min(fanouts) < 1:
        raise ValueError(f"fanouts must be positive numbers, got {fanouts}")
    start, degree = a.structure.indptr[:-1], jnp.diff(a.structure.indptr)
    level, index, values = seeds, [seeds], []
    for k, fanout in zip(jax.random.split(key, len(fanouts)), fanouts, strict=True):
        count = degree[level][:, None]
        draw = (jax.random.uniform(k, (level.shape[0], fanout)) * count).astype(start.dtype)
        edge = start[level][:, None] + jnp.minimum(draw, jnp.maximum(count - 1, 0))
        weight = jnp.where(count > 0, a.values[edge] * count / fanout, 0)
        values.append(weight.reshape(-1))
        level = jnp.where(count > 0, a.structure.cols[edge], level[:, None]).reshape(-1)
        index.append(level)
    structure = _tree(seeds.shape[0], fanouts)
    return SparseOperator(jnp.concatenate(values), jax.tree.map(jnp.asarray, structure)), jnp.concatenate(
        index
    )


def _tree(seeds: int, fanouts: tuple[int, ...]) -> Structure:
    """Return the nonzeros (parent, child) of trees numbered level by level, which depend on shapes alone."""
    sizes = np.cumprod([seeds, *fanouts])
    size, parents, edges = int(sizes.sum()), int(sizes[:-1].sum()), int(sizes[1:].sum())
    rows = np.repeat(np.arange(parents), np.repeat(fanouts, sizes[:-1])).astype(np.int32)
    cols = np.arange(seeds, size, dtype=np.int32)
    order = np.arange(edges, dtype=np.int32)
    return Structure(
        indptr=np.searchsorted(rows, np.arange(size + 1)).astype(np.int32),  # pyright: ignore
        rows=rows,  # pyright: ignore
        cols=cols,  # pyright: ignore
        t_indptr=np.maximum(np.arange(size + 1) - seeds, 0).astype(np.int32),  # pyright: ignore
        t_cols=rows,  # pyright: ignore
        t_rows=cols,  # pyright: ignore
        perm=order,  # pyright: ignore
    )
