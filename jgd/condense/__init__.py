"""Condense: a dataset into a tiny synthetic dataset.

Every method is a recipe: ``small = jgd.condense.clustgdd(label_ratio=0.5)(key, task)``.
"""

from jgd.condense.averaging import Average, Clustering
from jgd.condense.clustgdd import ClustGDD
from jgd.condense.selection import Degree, Herding, KCenter, PageRank, Random

random = Random
herding = Herding
k_center = KCenter
degree = Degree
pagerank = PageRank
average = Average
clustering = Clustering
clustgdd = ClustGDD  # the name of the module too: what a user calls wins

__all__ = [
    "Average",
    "ClustGDD",
    "Clustering",
    "Degree",
    "Herding",
    "KCenter",
    "PageRank",
    "Random",
    "average",
    "clustering",
    "clustgdd",
    "degree",
    "herding",
    "k_center",
    "pagerank",
    "random",
]
