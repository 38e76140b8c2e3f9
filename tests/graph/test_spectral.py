"""Laplacians and eigenpairs against NetworkX, closed forms and full decompositions."""

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from jgd.graph.spectral import eigenpairs, laplacian

close = np.testing.assert_allclose


def weights(seed, size, density=0.3):
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.random((size, size)) * (rng.random((size, size)) < density), 1)
    return upper + upper.T


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 12))
def test_laplacian(seed, size):
    w = weights(seed, size)
    graph = nx.from_numpy_array(w)
    close(laplacian(w).toarray(), nx.laplacian_matrix(graph).toarray(), atol=1e-12)
    close(
        laplacian(sp.csr_array(w), normalize=True).toarray(),
        nx.normalized_laplacian_matrix(graph).toarray(),
        atol=1e-12,
    )
    x = np.random.default_rng(seed).standard_normal(size)
    close(x @ laplacian(w) @ x, (w * (x[:, None] - x) ** 2).sum() / 2, atol=1e-10)


def test_self_loops_and_isolated_nodes():
    w = np.asarray([[0.0, 2, 0], [2, 0, 0], [0, 0, 0]])
    loops = w + np.diag([3.0, 0, 0])
    close(laplacian(loops).toarray(), laplacian(w).toarray())
    close(laplacian(w, normalize=True).toarray(), [[1, -1, 0], [-1, 1, 0], [0, 0, 0]])
    close(laplacian(loops, normalize=True).toarray()[0, :2], [1 - 3 / 5, -2 / np.sqrt(5 * 2)])


def test_closed_forms():
    """A cycle has the eigenvalues ``2 - 2 cos(2 pi k / n)``; Lanczos and the full decomposition find them."""
    for size in (50, 601):
        ring = laplacian(sp.csr_array(nx.to_scipy_sparse_array(nx.cycle_graph(size), dtype=float)))
        exact = np.sort(2 - 2 * np.cos(2 * np.pi * np.arange(size) / size))
        low, u = eigenpairs(ring, 5)
        high, v = eigenpairs(ring, 3, "largest")
        close(low, exact[:5], atol=1e-6)
        close(high, exact[:-4:-1], atol=1e-6)
        close(ring @ v, v * high, atol=1e-4)
        close(u.T @ u, np.eye(5), atol=1e-8)


def test_lanczos_agrees_with_the_full_decomposition():
    w = weights(0, 400, density=0.02)
    lap = laplacian(w, normalize=True)
    exact, basis = np.linalg.eigh(lap.toarray())
    for which, order in (("smallest", slice(0, 6)), ("largest", slice(-1, -7, -1))):
        values, vectors = eigenpairs(lap, 6, which)
        close(values, exact[order], atol=1e-7)
        close(np.abs(np.sum(vectors * basis[:, order], axis=0)), 1, atol=1e-6)
        top = vectors[np.abs(vectors).argmax(0), np.arange(6)]
        assert (top > 0).all()
        again = eigenpairs(lap, 6, which)[1]
        np.testing.assert_array_equal(vectors, again)


def test_all_pairs():
    w = weights(3, 20)
    values, vectors = eigenpairs(laplacian(w), 20)
    close((vectors * values) @ vectors.T, laplacian(w).toarray(), atol=1e-10)


def test_errors():
    w = weights(1, 5)
    for bad, message in (
        (sp.csr_array(w[:, :3]), "square"),
        (np.triu(w), "not symmetric"),
        (-w, "not negative"),
    ):
        with pytest.raises(ValueError, match=message):
            laplacian(bad)
    apart = np.zeros((5, 5))
    apart[0, 1] = 1
    for scale in (1e-4, 1e4):  # symmetric is what rounding leaves, whatever the unit
        laplacian(scale * (w + 1e-8 * apart))
        with pytest.raises(ValueError, match="not symmetric"):
            laplacian(scale * (w + 1e-3 * apart))
    for k in (0, 6):
        with pytest.raises(ValueError, match="between 1 and 5"):
            eigenpairs(w, k)
