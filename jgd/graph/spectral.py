"""Laplacians and the ends of their spectra (host side, SciPy, float64)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from jaxtyping import Float
from scipy.sparse.linalg import eigsh

__all__ = ["eigenpairs", "laplacian", "normalized_adjacency"]

_DENSE = 300  # up to this size, or beyond a quarter of the spectrum, a full decomposition is faster


def _symmetric(matrix: Any) -> Any:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"a spectrum needs a square matrix, got shape {matrix.shape}")
    matrix = sp.csr_array(matrix, dtype=np.float64)
    gap = abs(matrix - matrix.T)
    if gap.nnz and gap.max() > 1e-6 * abs(matrix).max():
        raise ValueError("the matrix is not symmetric: make the graph undirected first (to_undirected)")
    return matrix


def normalized_adjacency(
    matrix: sp.sparray | Float[np.ndarray, "N N"], *, self_loops: bool = False
) -> sp.csr_array:
    """Compute ``D^-1/2 A D^-1/2`` with the row sums ``D``, or the same of ``A + I``.

    A row whose sum is not positive becomes zero, as in `jgd.graph.normalize`.

    Args:
      matrix: Weights ``[N, N]``; the result has their type.
      self_loops: Whether to add ``I`` before normalising.
    """
    a: Any = sp.csr_array(matrix)  # SciPy's types do not cover sparse arrays
    if self_loops:
        a = sp.csr_array(a + sp.eye_array(a.shape[0], dtype=a.dtype))
    degree = np.asarray(a.sum(axis=1)).ravel()
    scale = sp.diags_array(np.where(degree > 0, np.where(degree > 0, degree, 1) ** -0.5, 0))
    return sp.csr_array(scale @ a @ scale, dtype=a.dtype)


def laplacian(matrix: sp.sparray | Float[np.ndarray, "N N"], *, normalize: bool = False) -> sp.csr_array:
    """Compute the Laplacian ``D - A``, or ``I - D^-1/2 A D^-1/2``, of a symmetric matrix of weights.

    Self loops do not change ``D - A``, but count in the degrees of the normalised Laplacian. A node without
    edges has a zero row in both. Eigenvalues are at least 0, those of the normalised one at most 2.

    Args:
      matrix: Nonnegative weights ``[N, N]``.
      normalize: Whether to return the normalised Laplacian.

    Raises:
      ValueError: If the matrix is not square and symmetric, or has negative weights.
    """
    a = _symmetric(matrix)
    if a.nnz and a.min() < 0:
        raise ValueError("a Laplacian needs weights that are not negative")
    degree = np.asarray(a.sum(axis=1)).ravel()
    if normalize:
        return sp.csr_array(sp.diags_array((degree > 0).astype(float)) - normalized_adjacency(a))
    return sp.csr_array(sp.diags_array(degree) - a)


def eigenpairs(
    matrix: sp.sparray | Float[np.ndarray, "N N"],
    k: int,
    which: Literal["smallest", "largest"] = "smallest",
    *,
    tol: float = 0.0,
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, "N k"]]:
    """Compute the ``k`` smallest or largest eigenvalues of a symmetric matrix, the extreme one first.

    A large matrix is treated by Lanczos iterations (for the smallest eigenvalues on ``b I - M``, so that
    nothing is factorised), a small one by a full decomposition. The entry of largest magnitude of each
    eigenvector is positive, so that results can be repeated; eigenvectors of equal eigenvalues are determined
    up to a rotation only.

    Args:
      matrix: Symmetric matrix, sparse or dense.
      k: Number of eigenvalues, in ``1..N``.
      which: End of the spectrum.
      tol: Relative accuracy of the eigenvalues; 0 is machine precision. Lanczos iterations find further
        copies of a repeated eigenvalue late, so a coarser tolerance may miss them.

    Returns:
      Eigenvalues and orthonormal eigenvectors, as columns.

    Raises:
      ValueError: If the matrix is not square and symmetric, or ``k`` is out of range.
    """
    m = _symmetric(matrix)
    size = m.shape[0]
    if not 1 <= k <= size:
        raise ValueError(f"k must be between 1 and {size}, got {k}")
    if size <= _DENSE or 4 * k > size:
        first = 0 if which == "smallest" else size - k
        values, vectors = scipy.linalg.eigh(m.toarray(), subset_by_index=(first, first + k - 1))
    else:
        bound = float(abs(m).sum(axis=1).max())  # Gershgorin's
        mirrored: Any = bound * sp.eye_array(size, format="csr") - m if which == "smallest" else m
        start = np.random.default_rng(0).standard_normal(size)
        values, vectors = eigsh(mirrored, k=k, which="LA", tol=tol, v0=start)  # pyright: ignore
        values = bound - values if which == "smallest" else values
    order = np.argsort(values if which == "smallest" else -values, kind="stable")
    values, vectors = values[order], vectors[:, order]
    top = vectors[np.argmax(np.abs(vectors), axis=0), np.arange(k)]
    return values, vectors * np.where(top < 0, -1.0, 1.0)
