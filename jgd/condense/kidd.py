r"""KIDD: a set of graphs is condensed by ridge regression with the tangent kernel of graph networks.

Xu, Chen, Pan, Chen, Das, Yang and Tong, "Kernel Ridge Regression-Based Graph Dataset Distillation", KDD 2023
(KiDD-D; with ``rank=``, KiDD-LR).

The one new idea: training a network on the condensed graphs, the inner loop, has a closed form for infinitely
wide ones, ridge regression with their tangent kernel; and a kernel with *one* ReLU, whose other layers only
propagate (LiteGNTK), is cheap enough to learn graphs with::

    Ā = A + 1e-4 I,   H = Ā [X, 0.01],   d_a = |H_a|,   ρ_ab = <H_a, H_b> / (d_a d_b)
    Θ_ab = d_a d_b (ρ_ab κ0(ρ_ab) + κ1(ρ_ab))                   nodes a and b of two graphs
    K(G, G') = Σ_ab (Ā^(L-1) Θ Ā'^(L-1)^T)_ab = w^T Θ w',      w = (Ā^T)^(L-1) 1
    min over X' and logits of A':  CE(K_ts (K_ss + λ tr(K_ss)/s I)^-1 Y', y) + 1e-3 |K̄_ss - I|_F

with K̄ the kernel scaled to a diagonal of ones, which keeps the condensed graphs apart. Each step draws some
of them, a batch of real graphs, and edges from the relaxed Bernoulli variables of
`jgd.condense.synthesizers.dense_graph_set`.

Pooling after linear propagation means that Θ is never propagated: a graph is the ``H`` and ``w`` of its
nodes. For real graphs both are found once, and nodes with the same ``H`` (molecules have few kinds) once for
the whole data set. All of this is exact.

KiDD-LR learns A' = U V of low rank, without logits or noise, and puts the ReLU before all L propagations,
``H = [X, 0.01]``. An edge is then where (A' + A'^T) / 2 > 1/2.

Departures from the authors' code. There, Θ adds κ1(ρ) without the scale ``d_a d_b`` of the kernel that the
paper derives; correlations are clipped at 0.9999; logits of padding beyond the largest start of a class
begin at 0, half dense, here all padding begins at -5; degree scaling divides once, by a power, here each
propagation is by rows that sum to one; the mean over pairs counts the padding of each batch, which scales
predictions by its largest graph, here pairs are summed; the kernel between low-rank and real graphs
propagates the former 3 and the latter 2 times, here both 3; λ is 1e-6, below the rounding of a kernel in
float32, here 1e-4; low-rank graphs may become directed; features are clamped to [0, 1], which has no effect
there; the test accuracy of the last look is reported, here the set with the best validation accuracy of a
network trained on it is returned (``select_every=None`` for the last).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from jgd.condense.bilevel import Matching, match
from jgd.condense.common import check_settings, condenser
from jgd.condense.graphs import training_graphs
from jgd.condense.learned import selected
from jgd.condense.learned_graphs import (
    Encoder,
    GraphStart,
    Padding,
    Pooling,
    condensed_stack,
    readout,
    start_graphs,
    val_graphs,
)
from jgd.condense.synthesizers import Synthesizer, dense_graph_set, existing, undirected
from jgd.core import Algorithm, Examples, Loop, in_memory
from jgd.data.condensed import Condensed
from jgd.data.tasks import GraphTask
from jgd.graph import Operator, operator, select_graphs
from jgd.losses import cross_entropy
from jgd.nn import graph_features
from jgd.nn.graph_classifier import schedule
from jgd.ops.kernels import kappa0, kappa1, ridge_predict
from jgd.optim import by_part

__all__ = [
    "KIDD",
    "OFFICIAL",
    "OFFICIAL_LR",
    "Nodes",
    "arc_cosine_ntk",
    "kernel_regression",
    "lite_gntk",
    "low_rank_set",
    "node_kernel",
    "official",
    "real_nodes",
    "seen_by_kernel",
]

Scaling = Literal["uniform", "degree"]
_LOOP, _CONSTANT = 1e-4, 0.01  # of every node: the weight of its loop, and a feature


# --- the kernel -----------------------------------------------------------------------------------


def arc_cosine_ntk(h: Float[Array, "n D"], g: Float[Array, "m D"]) -> Float[Array, "n m"]:
    """The tangent kernel of one ReLU layer, ``|h| |g| (ρ κ0(ρ) + κ1(ρ))``; zero for a row of zeros."""
    inner = jnp.matmul(h, g.T, precision="highest")
    scale = _lengths(h)[:, None] * _lengths(g)
    rho = jnp.where(scale > 0, inner / jnp.where(scale > 0, scale, 1), 0)
    return scale * (rho * kappa0(rho) + kappa1(rho))


def _lengths(x: Array) -> Array:
    squares = jnp.sum(x**2, axis=-1)
    return jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)


def seen_by_kernel(
    a: Operator, x: Float[Array, "n F"], *, before: int, after: int, scaling: Scaling = "uniform"
) -> tuple[Float[Array, "n D"], Float[Array, " n"]]:
    """What the kernel needs to know of nodes: ``H = Ā^before [X, 0.01]`` and ``w = (Ā^T)^after 1``.

    Args:
      a: adjacency of one graph, or of many as blocks.
      x: features.
      before: propagations before the ReLU.
      after: propagations after it.
      scaling: ``"degree"`` for rows of Ā that sum to one.
    """
    size = x.shape[0]
    degree = a @ jnp.ones((size, 1)) + _LOOP
    share = 1 / degree if scaling == "degree" else jnp.ones_like(degree)
    h = jnp.concatenate([x, jnp.full((size, 1), _CONSTANT)], axis=1)
    for _ in range(before):
        h = share * (a @ h + _LOOP * h)
    w = jnp.ones((size, 1))
    for _ in range(after):
        w = share * w
        w = a.T @ w + _LOOP * w
    return h, w[:, 0]


def node_kernel(
    h: Float[Array, "S n D"], w: Float[Array, "S n"], rows: Float[Array, "R D"]
) -> Float[Array, "S R"]:
    """``Σ_a w_a Θ(h_a, row)`` of each graph and row, one graph at a time to save memory."""
    return jax.lax.map(jax.checkpoint(lambda graph: graph[1] @ arc_cosine_ntk(graph[0], rows)), (h, w))


class Nodes(NamedTuple):
    """Real graphs as the kernel sees them.

    Attributes:
      rows: ``[R, D]`` the distinct ``H`` of all nodes.
      at: ``[T, m]`` which of them each graph has; 0 for padding.
      w: ``[T, m]`` with which weight; 0 for padding.
      labels: ``[T]``.
      order: ``[steps, B]`` graphs of each step.
    """

    rows: Any
    at: Any
    w: Any
    labels: Any
    order: Any = None


def real_nodes(
    task: GraphTask, index: Int[np.ndarray, " T"], *, before: int, after: int, scaling: Scaling = "uniform"
) -> Nodes:
    """The graphs at ``index`` as the kernel sees them (host side).

    Args:
      task: where they are from.
      index: which of them.
      before: propagations before the ReLU.
      after: propagations after it.
      scaling: see `seen_by_kernel`.
    """
    graphs = select_graphs(task.graphs._replace(edges=None, globals=None), index)
    x = jnp.asarray(graph_features(graphs))
    seen = jax.jit(seen_by_kernel, static_argnames=("before", "after", "scaling"))
    h, w = seen(operator(graphs), x, before=before, after=after, scaling=scaling)
    rows, kind = np.unique(np.asarray(h), axis=0, return_inverse=True)
    owner = np.repeat(np.arange(len(index)), np.asarray(graphs.n_node))
    # Nodes of the same kind in the same graph are one, whose weight is the sum.
    pairs, slot = np.unique(np.stack([owner, kind.reshape(-1)]), axis=1, return_inverse=True)
    weight = np.bincount(slot.reshape(-1), np.asarray(w, np.float64), minlength=pairs.shape[1])
    sizes = np.bincount(pairs[0], minlength=len(index))
    place = np.arange(pairs.shape[1]) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    at = np.zeros((len(index), sizes.max()), np.int32)
    found = np.zeros(at.shape, np.float32)
    at[pairs[0], place], found[pairs[0], place] = pairs[1], weight
    labels = np.asarray(task.labels)[index].astype(np.int32)
    return Nodes(*(jnp.asarray(part) for part in (rows, at, found, labels)))


def lite_gntk(
    h: Float[Array, "S n D"], w: Float[Array, "S n"], real: Nodes, index: Int[Array, " B"]
) -> tuple[Float[Array, "S S"], Float[Array, "B S"]]:
    """The kernel of a stack of graphs with itself and of real graphs with it.

    Args:
      h: nodes of the stack, see `seen_by_kernel`.
      w: their weights.
      real: real graphs.
      index: those wanted.
    """
    count, nodes, _ = h.shape
    own = node_kernel(h, w, h.reshape(count * nodes, -1)).reshape(count, count, nodes)
    own = jnp.einsum("stn,tn->st", own, w, precision="highest")
    rows, at, weight = real.rows, real.at[index], real.w[index]
    if at.size < len(rows):  # fewer than all kinds of nodes
        rows, at = rows[at.reshape(-1)], jnp.arange(at.size).reshape(at.shape)
    cross = node_kernel(h, w, rows)[:, at]
    return (own + own.T) / 2, jnp.einsum("sbm,bm->bs", cross, weight, precision="highest")


# --- the method -----------------------------------------------------------------------------------


def low_rank_set(rank: int) -> Synthesizer:
    """Synthetic graphs, padded to one size, whose adjacency is the symmetric part of ``U V`` of low rank.

    Parts: ``x`` features ``[B, N, F]``; ``adj`` with ``u`` ``[B, N, rank]`` and ``v`` ``[B, rank, N]``, at
    first the best approximation of the start's edges. With a key edges are those numbers, without one
    ``A_ij = [(UV + V^T U^T)_ij / 2 > 1/2]``. There are no loops. Inputs are those of
    `jgd.condense.synthesizers.dense_graph_set`.
    """

    def init(key, start):
        del key
        a, x, exists = start.inputs
        if rank > a.shape[-1]:
            raise ValueError(f"graphs of {a.shape[-1]} nodes have no adjacency of rank {rank}")
        u, s, v = jnp.linalg.svd(jnp.asarray(a, jnp.float32))
        root = jnp.sqrt(s[:, :rank])
        factors = {"u": u[:, :, :rank] * root[:, None], "v": root[:, :, None] * v[:, :rank]}
        return {"x": jnp.array(x), "adj": factors}, {
            "y": jnp.array(start.targets),
            "exists": jnp.array(exists),
        }

    def render(parts, fixed, *, key=None, t=None):
        del t
        a = undirected(parts["adj"]["u"] @ parts["adj"]["v"])
        a = jnp.where(a > 0.5, 1.0, 0.0) if key is None else a
        return Examples(existing(a, parts["x"], fixed["exists"]), fixed["y"])

    return Synthesizer(init, render)


def kernel_regression(
    num_classes: int,
    *,
    before: int,
    after: int,
    scaling: Scaling = "uniform",
    support: int = 16,
    ridge: float = 1e-4,
    orthogonal: float = 1e-3,
    squared: bool = False,
):
    """The loss of KIDD, for `jgd.condense.bilevel.match`; ``data.real`` are `Nodes` with an order.

    Args:
      num_classes: number of classes.
      before: propagations before the ReLU.
      after: propagations after it.
      scaling: see `seen_by_kernel`.
      support: condensed graphs of a step, all where there are fewer.
      ridge: in units of the mean diagonal of the kernel.
      orthogonal: weight of the distance of the scaled kernel from the identity.
      squared: half the squared error of predictions, averaged over examples and classes; else cross-entropy
        with predictions as logits.
    """

    def loss(net, small: Examples, parts, data, batch, *, key, t):
        del net, parts, batch
        (a, x, exists), y = small.inputs, small.targets
        if support < len(y):
            chosen = jax.random.choice(key, len(y), (support,), replace=False)
            a, x, exists, y = a[chosen], x[chosen], exists[chosen], y[chosen]

        def see(a, x, exists):
            h, w = seen_by_kernel(operator(a), x, before=before, after=after, scaling=scaling)
            return h, jnp.where(exists, w, 0)

        index = data.real.order[t]
        k_ss, k_ts = lite_gntk(*jax.vmap(see)(a, x, exists), data.real, index)
        predicted = ridge_predict(k_ts, k_ss, jax.nn.one_hot(y, num_classes), ridge)
        targets = data.real.labels[index]
        if squared:
            fit = jnp.mean((predicted - jax.nn.one_hot(targets, num_classes)) ** 2) / 2
        else:
            fit = jnp.mean(cross_entropy(predicted, targets))
        diagonal = jnp.diagonal(k_ss)  # next to nothing for a graph whose edges were all drawn away
        d = jnp.sqrt(jnp.maximum(diagonal, jnp.finfo(k_ss.dtype).eps * jnp.mean(diagonal)))
        apart = _lengths((k_ss / (d[:, None] * d) - jnp.eye(len(d))).reshape(-1))
        right = jnp.mean(jnp.argmax(predicted, axis=-1) == targets)
        return fit + orthogonal * apart, {"fit": fit, "accuracy": right}

    return loss


@dataclass(frozen=True)
class KIDD:
    """Kernel ridge regression with the LiteGNTK. The defaults are those of the authors' script.

    Attributes:
      graphs_per_class: condensed graphs of each class.
      size: nodes of every condensed graph, in units of the mean training graph.
      nodes: number of nodes of every condensed graph, instead.
      start: training graphs that fit (``"herding"``, ``"k-center"``, ``"random"``), or ``"noise"``.
      padding: ``"learned"``, or ``"none"`` for graphs that keep the number of nodes they start with.
      rank: of the adjacency (KiDD-LR), or None for free logits (KiDD-D).
      depth: propagations ``L`` of the kernel; None for 5, or 3 with a rank.
      scaling: of propagation: ``"uniform"`` sums over neighbours, ``"degree"`` averages.
      loss: of the predictions: ``"ce"`` or ``"mse"``.
      ridge: in units of the mean diagonal of the kernel.
      orthogonal: weight of the distance of the scaled kernel from the identity.
      steps: of the optimisers.
      batch: real graphs in a step.
      support: condensed graphs in a step, all where there are fewer.
      lr_x: learning rate of the features.
      lr_adj: of the logits, or of the factors.
      anneal: steps until the temperature is at its lowest.
      select_every: steps between looks at the validation graphs; None to return the last set.
      select_with: network that is trained on the set for a look.
      select_pooling: what it pools with.
      patience: stop after so many looks without a better one; None to go on to the end.
    """

    graphs_per_class: int = 10
    size: float = 2.0
    nodes: int | None = None
    start: GraphStart = "herding"
    padding: Padding = "learned"
    rank: int | None = None
    depth: int | None = None
    scaling: Scaling = "uniform"
    loss: Literal["ce", "mse"] = "ce"
    ridge: float = 1e-4
    orthogonal: float = 1e-3
    steps: int = 300
    batch: int = 128
    support: int = 16
    lr_x: float = 1e-3
    lr_adj: float = 1e-6
    anneal: int = 200
    select_every: int | None = 50
    select_with: Encoder = "gin"
    select_pooling: Pooling = "sum"
    patience: int | None = None

    def __post_init__(self):
        """Refuse impossible settings."""
        if self.size <= 0:
            raise ValueError(f"size must be positive, got {self.size}")
        check_settings(
            self,
            choices={
                "start": GraphStart,
                "padding": Padding,
                "scaling": Scaling,
                "loss": Literal["ce", "mse"],
                "select_with": Encoder,
                "select_pooling": Pooling,
            },
            at_least_one=("graphs_per_class", "steps", "batch", "support", "anneal"),
            optional=("nodes", "rank", "depth", "select_every", "patience"),
            not_negative=("ridge", "orthogonal", "lr_x", "lr_adj"),
        )

    @condenser
    def __call__(self, key: Array, task: GraphTask, loop: Loop = in_memory) -> Condensed:
        """Condense a task."""
        k_start, k_order, k_match = jax.random.split(key, 3)
        index, labels = training_graphs(task)
        mean = np.asarray(task.graphs.n_node)[index].mean()
        nodes = self.nodes or max(1, round(self.size * float(mean)))
        start = start_graphs(self.start, k_start, task, self.graphs_per_class, nodes, loop, self.padding)
        val = None if self.select_every is None else val_graphs(task, self.select_with)
        seed = np.asarray(jax.random.key_data(k_order)).tolist()
        order = schedule(np.ones(len(labels)), min(self.batch, len(labels)), self.steps, seed)
        real = real_nodes(task, index, **_rounds(self), scaling=self.scaling)
        data = Matching(start, real._replace(order=jnp.asarray(order)), val)
        plain = replace(
            self, graphs_per_class=1, size=1.0, nodes=None, start="noise", padding="learned", steps=1, batch=1
        )
        if val is None:
            plain = replace(plain, select_every=None, patience=None)
        alg = _algorithm(plain, task.num_classes)
        found = loop("match", alg, k_match, data, self.steps)
        return condensed_stack(self, key, task, found["small"])


def _rounds(s: KIDD) -> dict[str, int]:
    if s.rank is None:
        return {"before": 1, "after": (s.depth or 5) - 1}
    return {"before": 0, "after": s.depth or 3}


@lru_cache(maxsize=64)  # the same functions again, so that `jit` finds what it compiled
def _algorithm(s: KIDD, num_classes: int) -> Algorithm:
    synth = dense_graph_set(anneal=s.anneal) if s.rank is None else low_rank_set(s.rank)
    loss = kernel_regression(
        num_classes,
        **_rounds(s),
        scaling=s.scaling,
        support=s.support,
        ridge=s.ridge,
        orthogonal=s.orthogonal,
        squared=s.loss == "mse",
    )
    alg = match(synth, loss, by_part(x=optax.adam(s.lr_x), adj=optax.adam(s.lr_adj)))
    if s.select_every is None:
        return alg
    judge = readout(s.select_with, num_classes, hidden=64, layers=3, pooling=s.select_pooling)
    return selected(alg, judge, every=s.select_every, patience=s.patience, see=lambda small: small)


def _settings(*rows: tuple) -> dict[tuple[str, int], dict[str, Any]]:
    names = ("start", "size", "lr_adj", "lr_x", "rank")
    return {
        (name, count): dict(zip(names, values, strict=False)) | extra for name, count, values, extra in rows
    }


_FEW = {"batch": 8, "support": 8}

OFFICIAL: dict[tuple[str, int], dict[str, Any]] = _settings(
    ("ogbg-molbace", 1, ("random", 1.0, 1e-6, 1e-6), {}),
    ("ogbg-molbace", 10, ("random", 2.0, 1e-6, 1e-6), {}),
    ("ogbg-molbace", 50, ("herding", 2.0, 1e-6, 1e-6), {}),
    ("ogbg-molbbbp", 1, ("herding", 2.0, 0.0, 1e-4), {}),
    ("ogbg-molbbbp", 10, ("herding", 2.0, 0.0, 1e-4), {}),
    ("ogbg-molbbbp", 50, ("herding", 2.0, 0.0, 1e-4), {}),
    ("ogbg-molhiv", 1, ("k-center", 4.0, 0.0, 1e-4), {}),
    ("ogbg-molhiv", 10, ("k-center", 4.0, 0.0, 1e-2), {}),
    ("ogbg-molhiv", 50, ("k-center", 4.0, 0.0, 1e-2), {}),
    ("DD", 1, ("herding", 2.0, 0.0, 1e-4), _FEW),
    ("DD", 10, ("herding", 2.0, 0.0, 1e-4), _FEW),
    ("DD", 50, ("herding", 3.0, 0.0, 1e-4), _FEW),
    ("PROTEINS", 1, ("herding", 4.0, 0.0, 1e-3), {}),
    ("PROTEINS", 10, ("herding", 4.0, 1e-6, 1e-3), {}),
    ("PROTEINS", 50, ("herding", 4.0, 0.0, 1e-3), {}),
    ("NCI109", 1, ("herding", 3.0, 1e-6, 1e-3), {}),
    ("NCI109", 10, ("herding", 2.0, 1e-6, 1e-3), {}),
    ("NCI109", 50, ("herding", 2.0, 1e-6, 1e-3), {}),
    ("NCI1", 1, ("herding", 3.0, 0.0, 1e-4), {}),
    ("NCI1", 10, ("herding", 3.0, 0.0, 1e-4), {}),
    ("NCI1", 50, ("herding", 3.0, 0.0, 1e-4), {}),
)
"""Settings of the authors' runs of KiDD-D, by dataset and graphs of each class."""

OFFICIAL_LR: dict[tuple[str, int], dict[str, Any]] = _settings(
    ("ogbg-molbace", 1, ("random", 1.0, 1e-6, 1e-6, 16), {}),
    ("ogbg-molbace", 10, ("random", 2.0, 1e-6, 1e-6, 16), {}),
    ("ogbg-molbace", 50, ("herding", 2.0, 1e-6, 1e-6, 32), {}),
    ("ogbg-molbbbp", 1, ("herding", 2.0, 1e-6, 1e-3, 16), {}),
    ("ogbg-molbbbp", 10, ("herding", 3.0, 1e-6, 1e-3, 32), {}),
    ("ogbg-molbbbp", 50, ("herding", 3.0, 1e-6, 1e-3, 32), {}),
    ("ogbg-molhiv", 1, ("herding", 4.0, 1e-5, 1e-4, 16), {}),
    ("ogbg-molhiv", 10, ("herding", 4.0, 1e-5, 1e-2, 16), {}),
    ("ogbg-molhiv", 50, ("k-center", 4.0, 1e-6, 1e-2, 64), {}),
    ("DD", 1, ("herding", 2.0, 1e-6, 1e-4, 16), _FEW),
    ("DD", 10, ("herding", 2.0, 1e-5, 1e-4, 32), _FEW),
    ("DD", 50, ("k-center", 3.0, 1e-5, 1e-4, 16), _FEW),
    ("PROTEINS", 1, ("herding", 4.0, 1e-5, 1e-3, 32), {}),
    ("PROTEINS", 10, ("herding", 4.0, 1e-6, 1e-3, 16), {}),
    ("PROTEINS", 50, ("herding", 4.0, 1e-5, 1e-3, 32), {}),
    ("NCI109", 1, ("herding", 3.0, 1e-6, 1e-3, 16), {}),
    ("NCI109", 10, ("herding", 2.0, 1e-6, 1e-3, 16), {}),
    ("NCI109", 50, ("herding", 2.0, 1e-6, 1e-3, 16), {}),
    ("NCI1", 1, ("herding", 3.0, 1e-5, 1e-4, 24), {}),
    ("NCI1", 10, ("herding", 3.0, 1e-5, 1e-4, 24), {}),
    ("NCI1", 50, ("herding", 3.0, 1e-5, 1e-4, 24), {}),
)
"""Settings of the authors' runs of KiDD-LR, by dataset and graphs of each class."""


def official(dataset: str, graphs_per_class: int = 10, *, low_rank: bool = False, **changes: Any) -> KIDD:
    """The authors' settings for a dataset, at the nearest number of graphs they ran, or else the defaults.

    Args:
      dataset: name, e.g. ``"NCI1"``.
      graphs_per_class: condensed graphs of each class.
      low_rank: KiDD-LR; its rank is 16 elsewhere.
      **changes: settings to use instead of them.
    """
    table: dict[tuple[str, int], dict[str, Any]] = OFFICIAL_LR if low_rank else OFFICIAL
    known = [count for name, count in table if name == dataset]
    settings: dict[str, Any] = {"rank": 16} if low_rank else {}
    if known:
        settings = table[dataset, min(known, key=lambda c: abs(np.log(c / graphs_per_class)))]
    return KIDD(graphs_per_class=graphs_per_class, **(settings | changes))
