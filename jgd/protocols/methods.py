"""The condensers by name: what the command line, configs and comparisons know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import partial
from typing import Any, NamedTuple

from jgd.condense.averaging import Average, Clustering
from jgd.condense.cgc import CGC, CGCX
from jgd.condense.cgc import OFFICIAL as CGC_SETTINGS
from jgd.condense.cgc import OFFICIAL_X as CGCX_SETTINGS
from jgd.condense.clustgdd import OFFICIAL as CLUSTGDD
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
from jgd.condense.common import preset
from jgd.condense.doscond_graphs import DosCondGraphs
from jgd.condense.doscond_graphs import official as doscond_settings
from jgd.condense.gcdm import DM, GCDM, GCDMX
from jgd.condense.gcdm import OFFICIAL as GCDM_SETTINGS
from jgd.condense.gcdm import OFFICIAL_DM as DM_SETTINGS
from jgd.condense.gcond import OFFICIAL as GCOND
from jgd.condense.gcond import OFFICIAL_DOSCOND as DOSCOND
from jgd.condense.gcond import DosCond, DosCondX, GCond, GCondX
from jgd.condense.gcsr import GCSR
from jgd.condense.gcsr import OFFICIAL as GCSR_SETTINGS
from jgd.condense.gdem import GDEM
from jgd.condense.gdem import OFFICIAL as GDEM_SETTINGS
from jgd.condense.geom import GEOM
from jgd.condense.geom import OFFICIAL as GEOM_SETTINGS
from jgd.condense.graph_selection import HerdingGraphs, KCenterGraphs, RandomGraphs
from jgd.condense.kidd import KIDD
from jgd.condense.kidd import official as kidd_settings
from jgd.condense.mirage import Mirage
from jgd.condense.mirage import official as mirage_settings
from jgd.condense.selection import Degree, Herding, KCenter, PageRank, Random
from jgd.condense.sfgc import OFFICIAL as SFGC_SETTINGS
from jgd.condense.sfgc import SFGC
from jgd.condense.sgdd import OFFICIAL as SGDD_SETTINGS
from jgd.condense.sgdd import SGDD
from jgd.condense.simgc import OFFICIAL as SIMGC_SETTINGS
from jgd.condense.simgc import SimGC
from jgd.condense.sntk import GCSNTK
from jgd.condense.sntk import OFFICIAL as SNTK_SETTINGS
from jgd.condense.vng import VNG
from jgd.core import Recipe
from jgd.registry import choose as named

__all__ = [
    "BASELINES",
    "GRAPH_BASELINES",
    "GRAPH_METHODS",
    "METHODS",
    "Method",
    "method_name",
    "named",
    "preferred",
    "preferred_for_graphs",
]


class Method(NamedTuple):
    """A condenser that can be named.

    Attributes:
      recipe: makes the recipe from its settings, ``label_ratio`` and ``nodes`` among them.
      paper: where it comes from.
      setting: what it can condense.
      cost: how long it takes on two CPU cores with the authors' settings for Cora (2 708 nodes): ``"none"``
        (at most a second), ``"seconds"`` (at most a minute), ``"minutes"`` (at most ten), ``"hours"``. On
        other graphs it grows in proportion to nodes, edges and features: a network that takes ten seconds
        there, such as that of herding, takes minutes on fifty thousand nodes.
      summary: what it does, in one line.
      settings: the authors', see `jgd.condense.common.preset`.
    """

    recipe: Callable[..., Recipe]
    paper: str
    setting: str
    cost: str
    summary: str
    settings: Mapping[Any, Mapping[str, Any]] = {}


_ANY = "transductive, inductive"

METHODS: dict[str, Method] = {
    "clustgdd": Method(
        ClustGDD,
        "Lai et al. 2025",
        _ANY,
        "seconds",
        "cluster all nodes by the logits of a linear head",
        CLUSTGDD,
    ),
    "random": Method(Random, "-", _ANY, "none", "labelled nodes chosen at random in each class"),
    "herding": Method(
        Herding, "Welling 2009", _ANY, "seconds", "labelled nodes whose mean embedding is their class's"
    ),
    "k-center": Method(
        KCenter, "Sener & Savarese 2018", _ANY, "seconds", "labelled nodes that cover the embeddings"
    ),
    "degree": Method(Degree, "-", _ANY, "none", "labelled nodes with most edges"),
    "pagerank": Method(PageRank, "Page et al. 1999", _ANY, "none", "labelled nodes with highest PageRank"),
    "average": Method(Average, "-", _ANY, "none", "the mean of each class"),
    "average-sgc": Method(
        partial(Average, hops=2), "-", _ANY, "none", "the mean of each class after two propagations"
    ),
    "clustering": Method(Clustering, "-", _ANY, "none", "k-means in each class, without edges"),
    "variation-neighborhoods": Method(
        VariationNeighborhoods,
        "Loukas 2019",
        _ANY,
        "seconds",
        "contract neighbourhoods that smooth signals do not miss",
    ),
    "variation-edges": Method(
        VariationEdges, "Loukas 2019", _ANY, "seconds", "contract edges that smooth signals do not miss"
    ),
    "variation-cliques": Method(
        VariationCliques, "Loukas 2019", _ANY, "seconds", "contract cliques that smooth signals do not miss"
    ),
    "heavy-edge": Method(
        HeavyEdge, "Karypis & Kumar 1998", _ANY, "seconds", "contract relatively heavy edges"
    ),
    "algebraic-jc": Method(
        AlgebraicJC, "Ron et al. 2011", _ANY, "seconds", "contract edges whose ends agree on smoothed signals"
    ),
    "affinity-gs": Method(
        AffinityGS, "Livne & Brandt 2012", _ANY, "seconds", "contract edges of high affinity"
    ),
    "kron": Method(Kron, "Dörfler & Bullo 2013", _ANY, "seconds", "eliminate nodes by a Schur complement"),
    "vng": Method(
        VNG, "Si et al. 2023", _ANY, "seconds", "weighted clusters of GCN outputs; propagation in closed form"
    ),
    "cgc": Method(
        CGC,
        "Gao et al. 2025",
        _ANY,
        "seconds",
        "partition each class, average by confidence, solve for features",
        CGC_SETTINGS,
    ),
    "cgc-x": Method(
        CGCX,
        "Gao et al. 2025",
        _ANY,
        "seconds",
        "partition each class, average by confidence; without edges",
        CGCX_SETTINGS,
    ),
    "gcond": Method(
        GCond, "Jin et al. 2022", _ANY, "minutes", "match gradients; features and adjacency in turns", GCOND
    ),
    "gcond-x": Method(GCondX, "Jin et al. 2022", _ANY, "minutes", "match gradients; features alone", GCOND),
    "doscond": Method(
        DosCond,
        "Jin et al. 2022",
        _ANY,
        "minutes",
        "match gradients of fresh networks; features and adjacency",
        DOSCOND,
    ),
    "doscond-x": Method(
        DosCondX, "Jin et al. 2022", _ANY, "minutes", "match gradients of fresh networks; features alone"
    ),
    "sgdd": Method(
        SGDD,
        "Yang et al. 2023",
        _ANY,
        "hours",
        "match gradients; a graphon and the spectrum of the original structure",
        SGDD_SETTINGS,
    ),
    "gcdm": Method(
        GCDM, "Liu et al. 2022", _ANY, "minutes", "match class means of embeddings", GCDM_SETTINGS
    ),
    "gcdm-x": Method(
        GCDMX,
        "Liu et al. 2022",
        _ANY,
        "minutes",
        "match class means of embeddings, without edges",
        GCDM_SETTINGS,
    ),
    "dm": Method(
        DM,
        "Liu et al. 2023",
        _ANY,
        "seconds",
        "match class means of embeddings of fresh networks",
        DM_SETTINGS,
    ),
    "simgc": Method(
        SimGC, "Xiao et al. 2024", _ANY, "minutes", "match statistics seen by a trained SGC", SIMGC_SETTINGS
    ),
    "sfgc": Method(
        SFGC,
        "Zheng et al. 2023",
        _ANY,
        "hours",
        "match the training trajectories of experts, without edges",
        SFGC_SETTINGS,
    ),
    "geom": Method(
        GEOM,
        "Zhang et al. 2024",
        _ANY,
        "hours",
        "match trajectories of curriculum experts over an expanding window",
        GEOM_SETTINGS,
    ),
    "gcsr": Method(
        GCSR,
        "Liu et al. 2024",
        _ANY,
        "minutes",
        "match trajectories; a self-expressive adjacency",
        GCSR_SETTINGS,
    ),
    "gc-sntk": Method(
        GCSNTK,
        "Wang et al. 2024",
        _ANY,
        "seconds",
        "kernel ridge regression with a structure-based tangent kernel",
        SNTK_SETTINGS,
    ),
    "gdem": Method(
        GDEM, "Liu et al. 2024", _ANY, "seconds", "match the eigenbasis of the Laplacian", GDEM_SETTINGS
    ),
}
"""The condensers by the name that the command line knows; a new one is one entry."""

BASELINES = ("random", "herding", "k-center", "average", "average-sgc")
"""What the main job compares with, unless it is told otherwise."""


GRAPH_METHODS: dict[str, Method] = {
    "mirage": Method(
        Mirage, "Gupta et al. 2024", "graphs", "seconds", "frequent sets of computation trees of each class"
    ),
    "random-graphs": Method(RandomGraphs, "-", "graphs", "none", "graphs chosen at random in each class"),
    "herding-graphs": Method(
        HerdingGraphs, "Welling 2009", "graphs", "seconds", "graphs whose mean embedding is their class's"
    ),
    "k-center-graphs": Method(
        KCenterGraphs, "Sener & Savarese 2018", "graphs", "seconds", "graphs that cover the embeddings"
    ),
    "doscond-graphs": Method(
        DosCondGraphs,
        "Jin et al. 2022",
        "graphs",
        "minutes",
        "match gradients of fresh networks; features and edges of dense graphs",
    ),
    "kidd": Method(
        KIDD,
        "Xu et al. 2023",
        "graphs",
        "minutes",
        "kernel ridge regression with a graph neural tangent kernel",
    ),
}
"""The condensers of sets of graphs."""

GRAPH_BASELINES = ("random-graphs", "herding-graphs", "k-center-graphs")
"""What those are compared with: graphs chosen at the same number of nodes."""


_FOR_GRAPHS: dict[str, Callable[..., Any]] = {
    "mirage": mirage_settings,
    "doscond-graphs": doscond_settings,
    "kidd": kidd_settings,
}


def preferred_for_graphs(name: str, dataset: str, **changes: Any) -> Any:
    """The named method of `GRAPH_METHODS` with its authors' settings for a dataset, and changes of these.

    Raises:
      ValueError: for an unknown name, or a setting that the method does not have.
    """
    recipe = GRAPH_METHODS[named("method", name, GRAPH_METHODS)].recipe
    known = [f.name for f in fields(recipe)]  # pyright: ignore[reportArgumentType]
    for setting in changes:
        named(f"setting of {name}", setting, known)
    return _FOR_GRAPHS[name](dataset, **changes) if name in _FOR_GRAPHS else recipe(**changes)


def preferred(
    name: str,
    dataset: str,
    label_ratio: float | None = None,
    nodes: int | None = None,
    *,
    near: float | None = None,
) -> Any:
    """The named method with its authors' settings for a dataset (see `jgd.condense.common.preset`)."""
    method = METHODS[named("method", name, METHODS)]
    return preset(method.recipe, method.settings, dataset, label_ratio, nodes, near=near)


def method_name(recipe: Any) -> str:
    """The name of a recipe in `METHODS`, or that of its class in lower case."""
    for exact in (True, False):
        for name, method in METHODS.items():
            usual: Any = method.recipe()
            if type(usual) is not type(recipe):
                continue
            sized = replace(usual, label_ratio=recipe.label_ratio, nodes=recipe.nodes)
            if not exact or sized == recipe:
                return name
    return type(recipe).__name__.lower()
