r"""Distribution matching: a graph is condensed by matching class means of embeddings by random networks.

Liu et al., "Graph Condensation via Receptive Field Distribution Matching", 2022 (GCDM); Liu et al., "CaT:
Balanced Continual Graph Learning with Graph Condensation", ICDM 2023 (DM).

The one idea: a network that embeds the classes of two graphs alike has the same to learn from both. No
gradient of a gradient is needed, only that of an embedding::

    for each epoch: θ ~ init
      repeat τ_o times:
        A' = PGE(X'),  L = Σ_c (n_c / max n) |mean_c E_θ(A, X) - mean_c E_θ(A', X')|²
        a step on L of X' or of the generator, in turns
        τ_i steps of θ on L

``E`` is what the last layer of a GCN reads. GCDM-X has A' = I; DM has A' = I and fresh networks only
(τ_o = 1, τ_i = 0), and with them is the fastest condenser that learns.

There is no code of the authors of GCDM. Settings and inner steps are those of GCondenser (Liu et al., 2024):
the inner steps move θ to make the same loss smaller. Training θ on the condensed graph instead, as gradient
matching does, sends X' against networks that know it by heart: the accuracy on Cora falls with every epoch.
The networks' weights are Glorot's, as there.
Departures from GCondenser: classes are weighted by their sizes, there all alike; and the generator's learning
rate is 1e-2. At the 3e-4 of the features A' is still near one half everywhere after a hundred epochs, and a
GCN on such a graph sees one average (39 % on Cora with 70 nodes, against 81 %).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jgd.condense._gcond import Edges
from jgd.condense.backbones import Backbone, backbone, real_examples
from jgd.condense.bilevel import MatchContext, Matching, fresh, match, part_optimizer
from jgd.condense.common import check_settings, official
from jgd.condense.learned import LearnedNodes
from jgd.condense.matching import class_moments, class_weights
from jgd.condense.start import Start
from jgd.condense.synthesizers import node_set, pge, seen
from jgd.core import Algorithm, Bound, Examples, Loop
from jgd.core.memo import host, memoized
from jgd.data import NodeTask
from jgd.registry import Entry

__all__ = ["DM", "GCDM", "GCDMX", "distribution_matching"]


def _class_means(net: Bound, examples: Examples, num_classes: int) -> Float[Array, "C D"]:
    return class_moments(net(*examples.inputs).embedding, class_weights(examples, num_classes))[0]


def distribution_matching(num_classes: int):
    """Return the matching loss of GCDM: squared distances of class means of embeddings.

    Zero exactly where the means of all classes in the small set agree; nodes of a class may trade places.

    Args:
      num_classes: Number of classes.
    """

    def loss(ctx: MatchContext):
        real = jax.lax.stop_gradient(_class_means(ctx.net, ctx.real, num_classes))
        ours = _class_means(ctx.net, ctx.small, num_classes)
        counts = jnp.sum(class_weights(ctx.small, num_classes), axis=0)
        return jnp.sum(counts / jnp.max(counts) * jnp.sum((real - ours) ** 2, axis=1)), {}

    return loss


@dataclass(frozen=True)
class GCDM(LearnedNodes):
    """Distribution matching with a learned adjacency. The defaults are the settings for small graphs.

    Attributes:
      label_ratio: Condensed nodes for each labelled node.
      nodes: Number of condensed nodes, instead of the ratio.
      start: Where the features start.
      threshold: Smallest weight of A' that is an edge in the result.
      select_every: Epochs between validation checks; None returns the last set.
      select_with: Network that is trained on the set for a check.
      patience: Validation checks without improvement before stopping; None disables early stopping.
      backbone: Network whose embeddings are matched: ``"gcn"``, or ``"sgc"`` for linear ones.
      hidden: Width of a GCN backbone.
      adjacency: ``"pge"`` for the learned generator, ``"identity"`` for A' = I.
      pge_hidden: Width of the generator.
      epochs: Number of networks that are drawn.
      outer: Matching steps with each network, ``τ_o``.
      inner: Steps of the network after each of them, ``τ_i``.
      lr_x: Learning rate of the features.
      lr_adj: Learning rate of the generator.
      lr_net: Learning rate of the networks.
      turns: Epochs of the generator and epochs of the features, in turns; None for both at once.
    """

    start: Start = "k-center"
    threshold: float = host(0.05)
    backbone: Backbone = "gcn"
    hidden: int = 256
    adjacency: Edges = "pge"
    pge_hidden: int = 128
    epochs: int = host(1000)
    outer: int = 5
    inner: int = 10
    lr_x: float = 3e-4
    lr_adj: float = 1e-2
    lr_net: float = 0.01
    turns: tuple[int, int] | None = (10, 20)

    def __post_init__(self):
        """Refuse impossible settings."""
        super().__post_init__()
        check_settings(
            self, at_least_one=("hidden", "pge_hidden", "epochs", "outer"), not_negative=("inner",)
        )

    def learn(self, key: Array, task: NodeTask, size: int, loop: Loop) -> Examples:
        """Match class means of embeddings."""
        k_start, k_match = jax.random.split(key)
        real = real_examples(self.backbone, task)
        data = Matching(self.begin(k_start, task, size, loop), real, self.val(task))
        alg = _algorithm(self, task.num_classes, data.val is not None)
        return loop("match", alg, k_match, data, self.epochs)["small"]


@memoized
def _algorithm(settings: GCDM, num_classes: int, select: bool) -> Algorithm:
    model = backbone(settings.backbone, num_classes, settings.hidden)
    loss = distribution_matching(num_classes)
    # Inner steps move a network to make the matching loss smaller.
    networks = fresh(model, optax.adam(settings.lr_net), loss) if settings.inner else fresh(model)
    learned = settings.adjacency == "pge"
    lr_adj = settings.lr_adj if learned else None
    tx = part_optimizer(settings.lr_x, lr_adj, settings.turns, settings.outer)
    synth = node_set(pge(settings.pge_hidden) if learned else None)
    alg = match(synth, loss, tx, networks=networks, outer=settings.outer, inner=settings.inner, see=seen)
    return settings.selecting(alg, num_classes) if select else alg


@dataclass(frozen=True)
class GCDMX(GCDM):
    """Distribution matching of features alone: `GCDM` with A' = I."""

    adjacency: Edges = "identity"


@dataclass(frozen=True)
class DM(GCDMX):
    """Distribution matching of features alone, with networks that are never trained."""

    outer: int = 1
    inner: int = 0
    turns: tuple[int, int] | None = None


_LARGE = {"lr_x": 0.01, "lr_adj": 0.01, "pge_hidden": 256}
OFFICIAL: dict[str, dict[str, Any]] = {
    "cora": {},
    "citeseer": {"lr_x": 1e-4, "select_every": 4},
    "pubmed": {},
    "ogbn-arxiv": _LARGE,
    "flickr": _LARGE,
    "reddit": _LARGE,
}
"""Settings of GCDM that differ from the defaults, by dataset: GCondenser's, from the middle of its grids.

On Citeseer the least rate of its grid, and more looks: at 3e-4 the 3703 features drift apart (63 % where 1e-4
gives 70). DM takes one step with each network where GCDM takes five, and needs neither.
"""
OFFICIAL_DM: dict[str, dict[str, Any]] = {**OFFICIAL, "citeseer": {}}
"""Likewise of DM."""

ENTRIES = (
    Entry(
        "gcdm",
        GCDM,
        "matching of class means of embeddings",
        "Liu et al. 2022",
        ("nodes",),
        "minutes",
        official(GCDM, OFFICIAL),
    ),
    Entry(
        "gcdm-x",
        GCDMX,
        "matching of class means of embeddings, without edges",
        "Liu et al. 2022",
        ("nodes",),
        "minutes",
        official(GCDMX, OFFICIAL),
    ),
    Entry(
        "dm",
        DM,
        "matching of class means of embeddings of fresh networks",
        "Liu et al. 2023",
        ("nodes",),
        "seconds",
        official(DM, OFFICIAL_DM),
    ),
)
