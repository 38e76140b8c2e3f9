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

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from jgd.condense.backbones import Encoder, Pooling
from jgd.condense.bilevel import MatchContext, Matching, match
from jgd.condense.common import check_settings, official, training_graphs
from jgd.condense.learned import LearnedGraphs
from jgd.condense.start import GraphStart
from jgd.condense.synthesizers import Synthesizer, dense_graph_set, existing, undirected
from jgd.core import Algorithm, Examples, Loop
from jgd.core.memo import host, memoized
from jgd.data import GraphTask
from jgd.graph import Operator, operator, select_graphs
from jgd.losses import cross_entropy
from jgd.ops.kernels import kappa0, kappa1, ridge_predict
from jgd.optim import by_part
from jgd.registry import Entry
from jgd.training import graph_features
from jgd.training.examples import schedule

__all__ = [
    "KIDD",
    "Nodes",
    "arc_cosine_ntk",
    "kernel_regression",
    "lite_gntk",
    "low_rank_set",
    "node_kernel",
    "real_nodes",
    "seen_by_kernel",
]

Scaling = Literal["uniform", "degree"]
_LOOP, _CONSTANT = 1e-4, 0.01  # of every node: the weight of its loop, and a feature


# --- the kernel -----------------------------------------------------------------------------------


def arc_cosine_ntk(h: Float[Array, "n D"], g: Float[Array, "m D"]) -> Float[Array, "n m"]:
    """Return the tangent kernel of one ReLU layer, ``|h| |g| (ρ κ0(ρ) + κ1(ρ))``; zero for a row of zeros."""
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
    """Return what the kernel needs to know of nodes: ``H = Ā^before [X, 0.01]`` and ``w = (Ā^T)^after 1``.

    Args:
      a: Adjacency of one graph, or of many as blocks.
      x: Features.
      before: Propagations before the ReLU.
      after: Propagations after it.
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
    """Return ``Σ_a w_a Θ(h_a, row)`` of each graph and row, one graph at a time to save memory."""
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
    """Return the graphs at ``index`` as the kernel sees them (host side).

    Args:
      task: Task of the graphs.
      index: Numbers of the graphs.
      before: Propagations before the ReLU.
      after: Propagations after it.
      scaling: Scaling of propagation, see `seen_by_kernel`.
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
    """Return the kernel of a stack of graphs with itself and of real graphs with it.

    Args:
      h: Nodes of the stack, see `seen_by_kernel`.
      w: Weights of these nodes.
      real: Real graphs.
      index: Numbers of the real graphs.
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
    """Return graphs, padded to one size, whose adjacency is the symmetric part of ``U V`` of low rank.

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
    """Return the loss of KIDD, for `match`; the real data are `Nodes` with an order.

    Args:
      num_classes: Number of classes.
      before: Propagations before the ReLU.
      after: Propagations after it.
      scaling: Scaling of propagation, see `seen_by_kernel`.
      support: Condensed graphs of a step, all where there are fewer.
      ridge: Ridge in units of the mean diagonal of the kernel.
      orthogonal: Weight of the distance of the scaled kernel from the identity.
      squared: Whether to take half the squared error of predictions, averaged over examples and classes; else
        cross-entropy with predictions as logits.
    """

    def loss(ctx: MatchContext):
        (a, x, exists), y = ctx.small.inputs, ctx.small.targets
        if support < len(y):
            chosen = jax.random.choice(ctx.key, len(y), (support,), replace=False)
            a, x, exists, y = a[chosen], x[chosen], exists[chosen], y[chosen]

        def see(a, x, exists):
            h, w = seen_by_kernel(operator(a), x, before=before, after=after, scaling=scaling)
            return h, jnp.where(exists, w, 0)

        index = ctx.real.order[ctx.t]
        k_ss, k_ts = lite_gntk(*jax.vmap(see)(a, x, exists), ctx.real, index)
        predicted = ridge_predict(k_ts, k_ss, jax.nn.one_hot(y, num_classes), ridge)
        targets = ctx.real.labels[index]
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
class KIDD(LearnedGraphs):
    """Kernel ridge regression with the LiteGNTK. The defaults are those of the authors' script.

    Attributes:
      per_class: Number of condensed graphs of each class.
      nodes: Number of nodes of every condensed graph, instead of ``size``.
      start: How the training graphs are chosen that the set starts from, those that fit: ``"random"``,
        ``"herding"``, ``"k-center"``; or ``"noise"``.
      padding: ``"learned"``, or ``"none"`` for graphs that keep the number of nodes they start with.
      select_every: Steps between validation checks; None returns the last set.
      select_with: Network that is trained on the set for a check.
      patience: Validation checks without improvement before stopping; None disables early stopping.
      select_pooling: Pooling of that network.
      size: Nodes of every condensed graph, in units of the mean training graph.
      rank: Rank of the adjacency (KiDD-LR), or None for free logits (KiDD-D).
      depth: Propagations ``L`` of the kernel; None for 5, or 3 with a rank.
      scaling: How a node combines its neighbours: ``"uniform"`` sums, ``"degree"`` averages.
      loss: Loss of the predictions: ``"ce"`` or ``"mse"``.
      ridge: Ridge in units of the mean diagonal of the kernel.
      orthogonal: Weight of the distance of the scaled kernel from the identity.
      steps: Steps of the optimisers.
      batch: Real graphs in a step.
      support: Condensed graphs in a step, all where there are fewer.
      lr_x: Learning rate of the features.
      lr_adj: Learning rate of the logits, or of the factors.
      anneal: Steps until the temperature is at its lowest.
    """

    start: GraphStart = "herding"
    select_with: Encoder = "gin"
    select_pooling: Pooling = "sum"
    size: float = host(2.0)
    rank: int | None = None
    depth: int | None = None
    scaling: Scaling = "uniform"
    loss: Literal["ce", "mse"] = "ce"
    ridge: float = 1e-4
    orthogonal: float = 1e-3
    steps: int = host(300)
    batch: int = host(128)
    support: int = 16
    lr_x: float = 1e-3
    lr_adj: float = 1e-6
    anneal: int = 200

    def __post_init__(self):
        """Refuse impossible settings."""
        super().__post_init__()
        if self.size <= 0:
            raise ValueError(f"size must be positive, got {self.size}")
        check_settings(
            self,
            at_least_one=("steps", "batch", "support", "anneal"),
            optional=("rank", "depth"),
            not_negative=("ridge", "orthogonal", "lr_x", "lr_adj"),
        )

    def learn(self, key: Array, task: GraphTask, loop: Loop) -> Examples:
        """Descend the error of kernel ridge regression."""
        k_start, k_order, k_match = jax.random.split(key, 3)
        index, labels = training_graphs(task)
        mean = np.asarray(task.graphs.n_node)[index].mean()
        nodes = self.nodes or max(1, round(self.size * float(mean)))
        start = self.begin(k_start, task, nodes, loop)
        seed = np.asarray(jax.random.key_data(k_order)).tolist()
        order = schedule(np.ones(len(labels)), min(self.batch, len(labels)), self.steps, seed)
        real = real_nodes(task, index, **_rounds(self), scaling=self.scaling)
        data = Matching(start, real._replace(order=jnp.asarray(order)), self.val(task))
        alg = _algorithm(self, task.num_classes, data.val is not None)
        return loop("match", alg, k_match, data, self.steps)["small"]


def _rounds(s: KIDD) -> dict[str, int]:
    if s.rank is None:
        return {"before": 1, "after": (s.depth or 5) - 1}
    return {"before": 0, "after": s.depth or 3}


@memoized
def _algorithm(s: KIDD, num_classes: int, select: bool) -> Algorithm:
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
    return s.selecting(alg, num_classes, 3, s.select_pooling) if select else alg


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


def _official(dataset: str, *, low_rank: bool = False, **settings: Any) -> KIDD:
    """Return the authors' settings for a dataset; with ``low_rank`` those of KiDD-LR."""
    table: dict[tuple[str, int], dict[str, Any]] = OFFICIAL_LR if low_rank else OFFICIAL
    if low_rank and dataset not in {name for name, _ in table}:
        settings = {"rank": 16, **settings}
    return official(KIDD, table, size="per_class", at=10)(dataset, **settings)


ENTRIES = (
    Entry(
        "kidd",
        KIDD,
        "kernel ridge regression with a graph neural tangent kernel",
        "Xu et al. 2023",
        ("graphs",),
        "minutes",
        _official,
    ),
)
