r"""GEOM: trajectory matching whose experts learn easy nodes first and whose starts come later and later.

Zhang et al., "Navigating Complexity: Toward Lossless Graph Condensation via Expanding Window Matching",
ICML 2024.

It is SFGC with four changes:

curriculum        in step ``t`` an expert sees the easiest share ``g(t)`` of the labelled nodes, rising from λ
                  to 1 in ``T`` steps; a node is difficult where the labels around it are mixed (`difficulty`)
expanding window  matching step ``i`` starts at ``s ~ U{s_min, ..., min(s_0 + i, s_max) - 1}``: what is hard
                  comes when what is easy has been condensed
soft labels       y' = softmax(u) with learned u, from an expert's log-probabilities on X', in which the true
                  class is raised to the largest value; optional, as is
knowledge         + β KL(y' | f_{θ*_last}(I, X')), the last network of the expert on the condensed nodes

and the distance without squares, ``L = |θ_p - θ*_{s+q}| / |θ*_s - θ*_{s+q}|``.

Departures from the authors' code. The difficulty counts known labels only: those of training nodes and, for
all other nodes, what a network trained on them predicts (``neighbours="predicted"``), or those of training
nodes alone (``"train"``); there, labels of test nodes are counted too (``"all"`` is theirs). A node counts
itself once. Soft labels are a softmax throughout (there, exponentials of numbers that no longer need be
log-probabilities). They start from a network of their own, which is also the one that predicts. For the rest
see SFGC.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from jgd.condense._sfgc import SFGC, gcn, match_experts, optimizer, real_nodes, trajectory_matching
from jgd.condense.bilevel import MatchContext, Matching, match
from jgd.condense.common import check_settings, official, training_part
from jgd.condense.synthesizers import Synthesizer, node_set, seen
from jgd.condense.trajectories import (
    Pace,
    RankedExamples,
    Span,
    curriculum,
    difficulty,
    expert,
    pace,
    ranks,
)
from jgd.core import Algorithm, Bound, Examples, Loop
from jgd.core.memo import host, memoized
from jgd.data import NodeTask
from jgd.graph import adjacency, identity, operator
from jgd.losses import cross_entropy, mean
from jgd.optim import by_part
from jgd.registry import Entry
from jgd.training import features_for

__all__ = ["GEOM", "raised", "soft_node_set"]

Neighbours = Literal["predicted", "train", "all"]


def raised(
    log_p: Float[np.ndarray, "n C"] | Float[Array, "n C"], labels: Int[Array, " n"]
) -> Float[Array, "n C"]:
    """Return log-probabilities in which the class of each row is at least as likely as any other."""
    top = jnp.max(log_p, axis=1)
    return jax.nn.log_softmax(jnp.asarray(log_p).at[jnp.arange(len(labels)), labels].set(top))


def soft_node_set(learning_rate: float) -> Synthesizer:
    """Return nodes without edges whose labels are the softmax of the part ``y``, see `node_set`."""
    base = node_set(soft_labels=True, learning_rate=learning_rate)

    def render(parts, fixed, *, key=None, t=None):
        small = base.render(parts, fixed, key=key, t=t)
        return small._replace(targets=jax.nn.softmax(small.targets))

    return Synthesizer(base.init, render, base.update)


@dataclass(frozen=True)
class GEOM(SFGC):
    """Expanding-window matching of experts with a curriculum. The defaults are those for Cora at 0.5.

    Attributes:
      label_ratio: Condensed nodes for each labelled node.
      nodes: Number of condensed nodes, instead of the ratio.
      start: Where the features start.
      select_every: Steps between validation checks; None returns the last set.
      select_with: What judges a set: a network that is trained on it, ``"gcn"`` or ``"sgc"``, or the kernel
        regression ``"gntk"``.
      patience: Validation checks without improvement before stopping; None disables early stopping.
      hidden: Width of the GCNs.
      steps: Matching steps.
      lr_x: Learning rate of the features (Adam).
      student_steps: Steps of a student, ``p``.
      student_lr: Start of its learning rate ``η``.
      lr_lr: Learning rate of ``η`` (SGD with momentum 0.5); 0 to keep it.
      length: Steps of an expert from start to target, ``q``.
      max_start: Bound of the starts, ``s_max``.
      first_start: Bound of the starts in the first matching step, which grows by one in every step, ``s_0``;
        None for ``s_max``.
      min_start: First possible start.
      every: Number of which starts are rounded down to multiples.
      experts: Number of experts.
      group: Number of experts that are trained at once.
      store: Folder to keep the experts in and to draw from; None to train each group, use it and drop it.
      expert_optimizer: Optimiser of an expert, ``"sgd"`` or ``"adam"``.
      expert_lr: Learning rate of an expert.
      expert_decay: L2 coefficient of an expert.
      expert_steps: Training steps of an expert.
      expert_pace: How the share of nodes rises: ``"linear"``, ``"root"`` or ``"geom"``.
      expert_first: First share of nodes, λ.
      expert_pace_steps: Steps until all nodes are seen, ``T``.
      neighbours: Labels that the difficulty counts: those of training nodes and ``"predicted"`` ones of
        others, of ``"train"`` nodes alone, or of ``"all"`` nodes, test nodes too, as in the authors' code.
      soft_labels: Whether to learn soft labels.
      lr_y: Learning rate of the soft labels (SGD with momentum 0.9).
      knowledge: Weight ``β`` of the last network's loss on the set.
      distance: Distance of trajectories: ``"norm"``, or ``"squared"`` as in SFGC.
      segment: Student steps of which only the first state is kept for the backward pass; None keeps all.
    """

    steps: int = 200
    student_steps: int = 2500
    length: int = 1400
    max_start: int = 200
    every: int = 10
    first_start: int | None = host(50)
    min_start: int = host(0)
    expert_steps: int = host(3000)
    expert_pace: Pace = "geom"
    expert_first: float = 0.75
    expert_pace_steps: int = 1500
    neighbours: Neighbours = host("predicted")
    soft_labels: bool = True
    lr_y: float = 5e-5
    knowledge: float = 0.01
    distance: Literal["norm", "squared"] = "norm"

    def __post_init__(self):
        """Refuse impossible settings."""
        super().__post_init__()
        check_settings(self, at_least_one=("expert_steps",))
        pace(self.expert_pace, self.expert_first, self.expert_pace_steps)
        if self.knowledge < 0:
            raise ValueError(f"knowledge must not be negative, got {self.knowledge}")

    def span(self) -> Span:
        """Return what is matched."""
        end = self.expert_steps if self.knowledge else None
        return Span(self.length, self.max_start, self.first_start, self.min_start, self.every, end)

    def learn(self, key: Array, task: NodeTask, size: int, loop: Loop) -> Examples:
        """Match trajectories of experts with a curriculum."""
        k_start, k_first, k_ties, k_match = jax.random.split(key, 4)
        start = self.begin(k_start, task, size, loop)
        real = real_nodes(task)
        alg, teacher, plain = _algorithms(self, task.num_classes)
        first: Any = None
        if self.soft_labels or self.neighbours == "predicted":
            first = loop("teacher", plain, k_first, real, self.expert_steps)
        if self.soft_labels:
            log_p = jax.nn.log_softmax(first(identity(size), start.inputs[-1]).logits)
            start = start._replace(targets=raised(log_p, start.targets))
        values = self._difficulty(task, first)
        seed = int(jax.random.randint(k_ties, (), 0, 2**31 - 1))
        rank = ranks(values, np.ones(len(values), bool), seed)
        data = Matching(start, RankedExamples(real, jnp.asarray(rank)), self.val(task))
        classes, span = task.num_classes, self.span()
        return match_experts(self, loop, k_match, data, classes, alg=alg, teacher=teacher, span=span)

    def _difficulty(self, task: NodeTask, first: Bound | None) -> Float[np.ndarray, " m"]:
        """Return the difficulty of the labelled nodes, in order."""
        part = training_part(task)
        labels, train = np.asarray(part.labels), np.asarray(part.train)
        known = train if self.neighbours == "train" else np.ones_like(train)
        if self.neighbours == "predicted":
            assert first is not None
            labels = np.where(train, labels, predicted(first, part))
        return difficulty(adjacency(part.graph), labels, known)[train]


def predicted(net: Bound, part: NodeTask) -> Int[np.ndarray, " N"]:
    """Return classes of all nodes by a network that takes ``Â`` and ``ÂX``."""
    a = operator(part.graph, normalize="sym", self_loops=True)
    x = jnp.asarray(a @ _dense(features_for(part.graph)))
    return np.asarray(jax.jit(lambda net, a, x: jnp.argmax(net(a, x).logits, axis=1))(net, a, x))


def _dense(x: Any) -> Array:
    return x if isinstance(x, jax.Array) else x.todense()


@memoized
def _algorithms(settings: GEOM, num_classes: int) -> tuple[Algorithm, Algorithm, Algorithm]:
    """Return the matching loop, the training of an expert, and that of a network without a curriculum."""
    model = gcn(num_classes, settings.hidden)
    base = trajectory_matching(
        model, settings.student_steps, kind=settings.distance, segment=settings.segment
    )

    def knows(small: Examples, last: Any) -> Array:
        logits = model.apply(last, {}, *small.inputs)[0].logits
        y = small.targets
        entropy = (
            jnp.zeros(())
            if y.ndim == 1
            else jnp.sum(jnp.where(y > 0, y * jnp.log(jnp.where(y > 0, y, 1)), 0), axis=1)
        )
        return mean(cross_entropy(logits, y) + entropy)

    def loss(ctx: MatchContext):
        distance, metrics = base(ctx)
        if not settings.knowledge:
            return distance, metrics
        extra = knows(ctx.small, ctx.batch.last)
        return distance + settings.knowledge * extra, {**metrics, "distance": distance, "knowledge": extra}

    txs: dict[str, Any] = {
        "x": optax.adam(settings.lr_x),
        "lr": optax.sgd(settings.lr_lr, momentum=0.5),
    }
    synth = node_set(learning_rate=settings.student_lr)
    if settings.soft_labels:
        txs["y"] = optax.sgd(settings.lr_y, momentum=0.9)
        synth = soft_node_set(settings.student_lr)
    tx = optimizer(settings.expert_optimizer, settings.expert_lr, settings.expert_decay)
    share = pace(settings.expert_pace, settings.expert_first, settings.expert_pace_steps)
    alg = match(synth, loss, by_part(**txs), see=seen)
    return alg, curriculum(model, tx, share), expert(model, tx)


_CITESEER = {
    "student_lr": 0.6,  # see `jgd.condense._sfgc.OFFICIAL`
    "expert_optimizer": "adam",
    "expert_lr": 1e-3,
    "expert_decay": 5e-4,
    "expert_steps": 1000,
    "expert_pace": "root",
    "expert_first": 0.8,
    "expert_pace_steps": 250,
    "length": 350,
    "soft_labels": False,
}
_ARXIV = {
    "expert_lr": 1.0,
    "expert_steps": 2400,
    "expert_pace": "root",
    "expert_first": 0.85,
    "expert_pace_steps": 1200,
    "student_lr": 0.1,
    "soft_labels": False,
    "knowledge": 0.0,
    "first_start": 200,
    "max_start": 350,
    "lr_x": 0.03,
    "steps": 400,
}
_ADAM = {"expert_optimizer": "adam", "expert_lr": 1e-3, "expert_decay": 5e-4}
_FLICKR = _ADAM | {
    "expert_steps": 1100,
    "expert_pace": "root",
    "expert_first": 0.95,
    "soft_labels": False,
    "student_lr": 0.2,
    "first_start": 10,
    "expert_pace_steps": 100,
    "knowledge": 0.3,
    "lr_x": 0.07,
    "steps": 400,
}
_REDDIT = _ADAM | {
    "expert_steps": 1000,
    "expert_pace": "linear",
    "expert_first": 0.9,
    "expert_pace_steps": 800,
    "soft_labels": False,
    "student_lr": 0.5,
    "first_start": 1,
    "knowledge": 0.25,
    "steps": 3000,
}
OFFICIAL: dict[tuple[str, float], dict[str, Any]] = {
    ("cora", 0.25): {"steps": 2000},
    ("cora", 0.5): {},
    ("cora", 1.0): {"steps": 2000, "length": 1500},
    ("citeseer", 0.25): _CITESEER
    | {"student_steps": 200, "first_start": 1, "max_start": 30, "lr_x": 1e-4, "knowledge": 0.1}
    | {"steps": 500},
    ("citeseer", 0.5): _CITESEER
    | {"student_steps": 200, "first_start": 10, "max_start": 80, "lr_x": 7e-4, "knowledge": 0.05}
    | {"steps": 2000},
    ("citeseer", 1.0): _CITESEER
    | {"student_steps": 400, "first_start": 1, "max_start": 20, "lr_x": 5e-4, "knowledge": 0.1}
    | {"steps": 2000},
    ("ogbn-arxiv", 0.001): _ARXIV
    | {"length": 1100, "student_steps": 650, "first_start": 30, "max_start": 50, "lr_x": 0.25}
    | {"student_lr": 0.2, "steps": 200},
    ("ogbn-arxiv", 0.005): _ARXIV | {"length": 1600, "student_steps": 2100, "max_start": 300, "lr_x": 0.05},
    ("ogbn-arxiv", 0.01): _ARXIV | {"length": 1900, "student_steps": 2100},
    ("flickr", 0.001): _FLICKR
    | {"length": 600, "student_steps": 700, "max_start": 30, "student_lr": 0.3}
    | {"expert_pace_steps": 150},
    ("flickr", 0.005): _FLICKR
    | {"length": 600, "student_steps": 200, "first_start": 30, "max_start": 60, "lr_x": 0.1}
    | {"knowledge": 100.0},
    ("flickr", 0.01): _FLICKR | {"length": 70, "student_steps": 300, "max_start": 70},
    ("reddit", 0.0005): _REDDIT | {"length": 800, "student_steps": 800, "max_start": 50, "lr_x": 0.02},
    ("reddit", 0.001): _REDDIT
    | {"length": 1000, "student_steps": 1000, "max_start": 20, "lr_x": 0.03, "knowledge": 0.1}
    | {"steps": 500, "expert_steps": 1010},  # theirs of 1000 steps end before the last target
    ("reddit", 0.005): _REDDIT
    | {"length": 900, "student_steps": 800, "max_start": 10, "lr_x": 0.2, "student_lr": 0.2, "lr_lr": 0.0},
}
"""Settings of the authors' runs that differ from the defaults, by dataset and ratio.

Ratios are those of the sections that the authors' commands name, which two comments beside them contradict.
"""

ENTRIES = (
    Entry(
        "geom",
        GEOM,
        "matching of trajectories of curriculum experts over an expanding window",
        "Zhang et al. 2024",
        ("nodes",),
        "hours",
        official(GEOM, OFFICIAL),
    ),
)
