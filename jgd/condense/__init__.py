"""Condense: a dataset into a tiny synthetic dataset.

Every method is a recipe: ``small = jgd.condense.clustgdd(label_ratio=0.5)(key, task)``. Where a method has
the name of its module, what a user calls wins.
"""

from jgd.condense.averaging import Average, Clustering
from jgd.condense.cgc import CGC, CGCX
from jgd.condense.clustgdd import ClustGDD
from jgd.condense.coarsening import (
    AffinityGS,
    AlgebraicJC,
    HeavyEdge,
    Kron,
    VariationCliques,
    VariationEdges,
    VariationNeighborhoods,
)
from jgd.condense.doscond_graphs import DosCondGraphs
from jgd.condense.gcdm import DM, GCDM, GCDMX
from jgd.condense.gcond import DosCond, DosCondX, GCond, GCondX
from jgd.condense.gcsr import GCSR
from jgd.condense.gdem import GDEM
from jgd.condense.geom import GEOM
from jgd.condense.graph_selection import HerdingGraphs, KCenterGraphs, RandomGraphs
from jgd.condense.kidd import KIDD
from jgd.condense.mirage import Mirage
from jgd.condense.selection import Degree, Herding, KCenter, PageRank, Random
from jgd.condense.sfgc import SFGC
from jgd.condense.sgdd import SGDD
from jgd.condense.simgc import SimGC
from jgd.condense.sntk import GCSNTK
from jgd.condense.vng import VNG

affinity_gs = AffinityGS
algebraic_jc = AlgebraicJC
average = Average
cgc = CGC
cgc_x = CGCX
clustering = Clustering
clustgdd = ClustGDD
degree = Degree
dm = DM
doscond = DosCond
doscond_graphs = DosCondGraphs
doscond_x = DosCondX
gc_sntk = GCSNTK
gcdm = GCDM
gcdm_x = GCDMX
gcond = GCond
gcond_x = GCondX
gcsr = GCSR
gdem = GDEM
geom = GEOM
heavy_edge = HeavyEdge
herding = Herding
herding_graphs = HerdingGraphs
k_center = KCenter
k_center_graphs = KCenterGraphs
kidd = KIDD
kron = Kron
mirage = Mirage
pagerank = PageRank
random = Random
random_graphs = RandomGraphs
sfgc = SFGC
sgdd = SGDD
simgc = SimGC
variation_cliques = VariationCliques
variation_edges = VariationEdges
variation_neighborhoods = VariationNeighborhoods
vng = VNG

__all__ = [
    "AffinityGS",
    "AlgebraicJC",
    "Average",
    "CGC",
    "CGCX",
    "ClustGDD",
    "Clustering",
    "DM",
    "Degree",
    "DosCond",
    "DosCondGraphs",
    "DosCondX",
    "GCDM",
    "GCDMX",
    "GCSNTK",
    "GCSR",
    "GCond",
    "GCondX",
    "GDEM",
    "GEOM",
    "HeavyEdge",
    "Herding",
    "HerdingGraphs",
    "KCenter",
    "KCenterGraphs",
    "KIDD",
    "Kron",
    "Mirage",
    "PageRank",
    "Random",
    "RandomGraphs",
    "SFGC",
    "SGDD",
    "SimGC",
    "VNG",
    "VariationCliques",
    "VariationEdges",
    "VariationNeighborhoods",
    "affinity_gs",
    "algebraic_jc",
    "average",
    "cgc",
    "cgc_x",
    "clustering",
    "clustgdd",
    "degree",
    "dm",
    "doscond",
    "doscond_graphs",
    "doscond_x",
    "gc_sntk",
    "gcdm",
    "gcdm_x",
    "gcond",
    "gcond_x",
    "gcsr",
    "gdem",
    "geom",
    "heavy_edge",
    "herding",
    "herding_graphs",
    "k_center",
    "k_center_graphs",
    "kidd",
    "kron",
    "mirage",
    "pagerank",
    "random",
    "random_graphs",
    "sfgc",
    "sgdd",
    "simgc",
    "variation_cliques",
    "variation_edges",
    "variation_neighborhoods",
    "vng",
]
