"""Numerical operations that are no network and no loss."""

from jgd.ops.kmeans import KMeans, assign, kmeans, kmeans_plus_plus

__all__ = ["KMeans", "assign", "kmeans", "kmeans_plus_plus"]
