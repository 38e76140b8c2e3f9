"""Numerical operations besides networks and losses."""

from jgd.ops._kmeans import KMeans, assign, kmeans, kmeans_plus_plus
from jgd.ops.itemsets import frequent_itemsets, itemsets_by_support
from jgd.ops.transport import emd_flow
from jgd.ops.wl import Forest, Trees, unfold, wl_colors

__all__ = [
    "Forest",
    "KMeans",
    "Trees",
    "assign",
    "emd_flow",
    "frequent_itemsets",
    "itemsets_by_support",
    "kmeans",
    "kmeans_plus_plus",
    "unfold",
    "wl_colors",
]
