"""Coarsening: the graph of the clusters of a graph (host side)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Integer

from jgd.graph._operator import AnyArray

__all__ = ["coarsen", "indicator"]


def indicator(assign: Integer[AnyArray, " N"], k: int) -> sp.csr_array:
    """Return the matrix ``S[N, k]`` with ``S[i, assign[i]] = 1``."""
    assign = np.asarray(assign)
    size = len(assign)
    return sp.csr_array((np.ones(size, np.float32), assign, np.arange(size + 1)), shape=(size, k))


def coarsen(
    matrix: sp.sparray,
    assign: Integer[AnyArray, " N"],
    k: int,
    reduce: Literal["mean", "sum"] = "mean",
) -> Float[np.ndarray, "k k"]:
    """Compute the dense matrix of weights between clusters.

    Args:
      matrix: Weights ``[N, N]`` between nodes.
      assign: Cluster of each node.
      k: Number of clusters; empty clusters give zeros.
      reduce: Reduction of the weights: ``"mean"`` returns ``P^T A P`` with ``P = S diag(1 / |C|)``, the mean
        over all pairs of nodes of two clusters; ``"sum"`` returns ``S^T A S``.
    """
    s = indicator(assign, k)
    total = (s.T @ matrix @ s).toarray().astype(np.float32)
    if reduce == "sum":
        return total
    sizes = np.maximum(np.bincount(np.asarray(assign), minlength=k), 1).astype(np.float32)
    return total / sizes[:, None] / sizes
