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

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jgd.condense.bilevel import Matching, Networks, fresh, match
from jgd.condense.common import check_settings, condenser, size_of
from jgd.condense.gcond import Edges
from jgd.condense.learned import (
    Backbone,
    Start,
    backbone,
    condensed_set,
    judged,
    part_optimizer,
    real_examples,
    start_from,
    val_examples,
)
from jgd.condense.matching import class_moments, class_weights
from jgd.condense.synthesizers import node_set, pge, seen
from jgd.core import Algorithm, Bound, Examples, Loop, Model, in_memory
from jgd.data.condensed import Condensed
from jgd.data.tasks import NodeTask

__all__ = ["DM", "GCDM", "GCDMX", "OFFICIAL", "OFFICIAL_DM", "distribution_matching", "matched"]


def _class_means(net: Bound, examples: Examples, num_classes: int) -> Float[Array, "C D"]:
    return class_moments(net(*examples.inputs).embedding, class_weights(examples, num_classes))[0]


def distribution_matching(num_classes: int):
    """The matching loss of GCDM, for `match`: squared distances of class means of embeddings.

    Zero exactly where the means of all classes in the small set agree; nodes of a class may trade places.

    Args:
      num_classes: number of classes.
    """

    def loss(net, small: Examples, parts, data, batch, *, key, t):
        del parts, batch, key, t
        real = jax.lax.stop_gradient(_class_means(net, data.real, num_classes))
        ours = _class_means(net, small, num_classes)
        counts = jnp.sum(class_weights(small, num_classes), axis=0)
        return jnp.sum(counts / jnp.max(counts) * jnp.sum((real - ours) ** 2, axis=1)), {}

    return loss


def matched(model: Model, loss: Callable, tx: optax.GradientTransformation) -> Networks:
    """A random network for every outer epoch, which inner steps move to make the matching loss smaller."""

    def init(key, small, data):
        params, state = model.init(key, *small.inputs)
        return Bound(params, state, model), (tx.init(params), data)

    def update(net, state, small):
        opt_state, data = state

        def value(params):
            return loss(Bound(params, net.state, model), small, {}, data, None, key=None, t=None)[0]

        updates, opt_state = tx.update(jax.grad(value)(net.params), opt_state, net.params)
        return Bound(optax.apply_updates(net.params, updates), net.state, model), (opt_state, data)

    return Networks(init, update)


@dataclass(frozen=True)
class GCDM:
    """Distribution matching with a learned adjacency. The defaults are the settings for small graphs.

    Attributes:
      label_ratio: condensed nodes for each labelled node.
      nodes: number of condensed nodes, instead of the ratio.
      backbone: network whose embeddings are matched: ``"gcn"``, or ``"sgc"`` for linear ones.
      hidden: width of a GCN backbone.
      adjacency: ``"pge"`` for the learned generator, ``"identity"`` for A' = I.
      pge_hidden: width of the generator.
      start: where the features start.
      epochs: networks that are drawn.
      outer: matching steps with each, ``τ_o``.
      inner: steps of the network after each of them, ``τ_i``.
      lr_x: learning rate of the features.
      lr_adj: of the generator.
      lr_net: of the networks.
      turns: epochs of the generator and epochs of the features, in turns; None for both at once.
      threshold: weights of A' below it are no edges in the result.
      select_every: epochs between looks at the validation nodes; None to return the last set.
      select_with: network that is trained on the set for a look.
      patience: stop after so many looks without a better one; None to go on to the end.
    """

    label_ratio: float | None = 0.5
    nodes: int | None = None
    backbone: Backbone = "gcn"
    hidden: int = 256
    adjacency: Edges = "pge"
    pge_hidden: int = 128
    start: Start = "k-center"
    epochs: int = 1000
    outer: int = 5
    inner: int = 10
    lr_x: float = 3e-4
    lr_adj: float = 1e-2
    lr_net: float = 0.01
    turns: tuple[int, int] | None = (10, 20)
    threshold: float = 0.05
    select_every: int | None = 10
    select_with: Backbone = "gcn"
    patience: int | None = None

    def __post_init__(self):
        """Refuse impossible settings."""
        check_settings(
            self,
            choices={"backbone": Backbone, "select_with": Backbone, "start": Start, "adjacency": Edges},
            at_least_one=("hidden", "pge_hidden", "epochs", "outer"),
            optional=("select_every", "patience"),
            not_negative=("inner",),
        )

    @condenser
    def __call__(self, key: Array, task: NodeTask, loop: Loop = in_memory) -> Condensed:
        """Condense a task."""
        k_start, k_match = jax.random.split(key)
        size = size_of(task, self.label_ratio, self.nodes)
        start = start_from(self.start, k_start, task, size, loop)
        val = None if self.select_every is None else val_examples(self.select_with, task)
        data = Matching(start, real_examples(self.backbone, task), val)
        settings = replace(self, label_ratio=None, nodes=None, start="noise", epochs=1)
        alg = _algorithm(settings, task.num_classes, val is not None)
        found = loop("match", alg, k_match, data, self.epochs)
        return condensed_set(self, key, task, found["small"], threshold=self.threshold)


@lru_cache(maxsize=64)  # the same functions again, so that `jit` finds what it compiled
def _algorithm(settings: GCDM, num_classes: int, select: bool) -> Algorithm:
    model = backbone(settings.backbone, num_classes, settings.hidden)
    loss = distribution_matching(num_classes)
    networks = matched(model, loss, optax.adam(settings.lr_net)) if settings.inner else fresh(model)
    learned = settings.adjacency == "pge"
    lr_adj = settings.lr_adj if learned else None
    tx = part_optimizer(settings.lr_x, lr_adj, settings.turns, settings.outer)
    synth = node_set(pge(settings.pge_hidden) if learned else None)
    alg = match(synth, loss, tx, networks=networks, outer=settings.outer, inner=settings.inner, see=seen)
    return judged(alg, settings, num_classes, select=select)


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
