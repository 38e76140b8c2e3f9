r"""Losses that compare relations in a student and in a teacher: among examples of a batch, or among tokens.

The relation losses take one vector (or map) for each example of a batch and return a scalar: student and
teacher may differ in width, since only their B x B relations are compared. Rows where ``where`` is False
are left out of every relation. Several reference weights assume a batch of 64, because means run over all
B^2 (or B^3) entries including the diagonal.

A token graph (TRG; Zhang, Liu and He, "Knowledge Distillation via Token-level Relationship Graph", 2023)
joins each token of a batch to its k nearest ones, with affinities ``A_ij = exp(-|x_i - x_j|^2 / 2σ)``, in the
space of each network::

    L = L_kd + α context_loss + β mean graph_kl + γ mean node_infonce
    context_loss    within an image: similarities of its tokens, softmax(F F^T / sqrt(D))
    graph_kl        local: softmax over all tokens of A_i, absent edges being zeros, not minus infinity
    node_infonce    global: the student's token has to identify the same token of the teacher among all

The paper gives no code. Affinities lie in 0..1, so over n tokens the softmax is almost uniform and its KL
of order 1/n, which needs a weight of 10 to 100 or a ``temperature`` below one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jraph
import optax
from jaxtyping import Array, Bool, Float, Int

from jgd.losses.common import Count, PositiveNumber, checked, flat_rows, per_example, ready
from jgd.losses.features import length, unit

__all__ = [
    "Neighbours",
    "affinity",
    "context_loss",
    "context_similarity",
    "correlation_congruence",
    "graph_kl",
    "knn_affinity",
    "knn_graph",
    "nearest",
    "neighbour_congruence",
    "node_infonce",
    "patchify",
    "pkt_loss",
    "rkd_angle",
    "rkd_distance",
    "sample_tokens",
    "similarity_preserving",
]

# --- parts --------------------------------------------------------------------------------------


def _counted(x: Array, where: Array | None) -> tuple[Array, Array]:
    """Return a mask of the rows that count, and their number (at least one, as a divisor)."""
    rows = jnp.ones(x.shape[0], bool) if where is None else where
    return rows, jnp.maximum(jnp.sum(rows), 1).astype(jnp.promote_types(x.dtype, jnp.float32))


def _flat(student: Array, teacher: Array, where: Array | None) -> tuple[Array, Array]:
    return ready(flat_rows(student), flat_rows(teacher), where)


def _wide(x: Array, where: Array | None) -> Array:
    """Apply `ready` to features whose gradient is needed."""
    return ready(x, x, where)[0]


def _dot(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b.T, precision="highest")


# --- relations of a batch -----------------------------------------------------------------------


def _products(x: Array, rows: Array, count: Array) -> tuple[Array, Array, Array]:
    """Compute inner products of centred rows, their squares, and the squared distances of all pairs."""
    x = jnp.where(rows[:, None], x - jnp.sum(x, 0) / count, 0)  # expanded squares lose digits far from 0
    products, length = _dot(x, x), jnp.sum(x**2, axis=-1)
    return products, length, length[:, None] - 2 * products + length


@checked
def rkd_distance(
    student: Float[Array, "B *S"], teacher: Float[Array, "B *T"], *, where: Bool[Array, " B"] | None = None
) -> Float[Array, ""]:
    """Compare Euclidean distances between all examples, relative to their mean (relational KD).

    The smooth L1 difference of both networks' relative distances, a mean over all B^2 pairs (an example with
    itself included). The student's mean distance is differentiated too. Weight 25.

    Args:
      student: Features of the student.
      teacher: Features of the teacher, of any width, constant.
      where: Mask of the examples that count.

    Returns:
      A scalar.

    References:
      Park et al., "Relational Knowledge Distillation", CVPR 2019.
    """
    s, t = _flat(student, teacher, where)
    rows, count = _counted(s, where)
    pairs = rows[:, None] & rows & ~jnp.eye(len(rows), dtype=bool)

    def relative(x):
        _, _, square = _products(x, rows, count)
        distance = jnp.where(pairs, jnp.sqrt(jnp.maximum(square, 1e-12)), 0)
        mean = jnp.sum(distance) / jnp.maximum(jnp.sum(pairs), 1)
        return distance / jnp.where(mean > 0, mean, 1)

    total = jnp.sum(optax.losses.huber_loss(relative(s), relative(t)))
    return total / count**2


@checked
def rkd_angle(
    student: Float[Array, "B *S"], teacher: Float[Array, "B *T"], *, where: Bool[Array, " B"] | None = None
) -> Float[Array, ""]:
    """Compare the cosines at every example between the directions to two others (relational KD).

    The smooth L1 difference, a mean over all B^3 triples (degenerate ones included: their cosine is 0).
    Weight 50. The cosines come from the inner products of all pairs: time grows with B^3, memory with B^2.
    Examples closer than a thousandth of their distance from the mean count as equal.

    Args:
      student: Features of the student.
      teacher: Features of the teacher, of any width, constant.
      where: Mask of the examples that count.

    Returns:
      A scalar.

    References:
      Park et al., "Relational Knowledge Distillation", CVPR 2019.
    """
    s, t = _flat(student, teacher, where)
    rows, count = _counted(s, where)
    pairs = rows[:, None] & rows

    def parts(x):
        products, length, square = _products(x, rows, count)
        apart = pairs & (square > 1e-6 * (length[:, None] + length))
        return products, length, jnp.where(apart, jax.lax.rsqrt(jnp.where(apart, square, 1)), 0)

    both = parts(s), parts(t)
    if not s.shape[0]:
        return jnp.zeros(())

    @jax.checkpoint  # a table of one example at a time, in both directions
    def at(i):
        def cosines(products, length, inverse):
            # (x_i - x_j) (x_i - x_k), without a table of differences
            inner = products - products[i][:, None] - products[i] + length[i]
            return inner * inverse[i][:, None] * inverse[i]

        return jnp.sum(optax.losses.huber_loss(*(cosines(*one) for one in both)))

    total = jnp.sum(jax.lax.map(at, jnp.arange(len(rows)), batch_size=16))
    return total / count**3


@checked
def similarity_preserving(
    student: Float[Array, "B *S"], teacher: Float[Array, "B *T"], *, where: Bool[Array, " B"] | None = None
) -> Float[Array, ""]:
    """Compute ``|N(F_s F_s^T) - N(F_t F_t^T)|_F^2 / B^2``, where N scales rows to unit length.

    Weight 3000, at the last map.

    Args:
      student: Features of the student; maps are flattened.
      teacher: Features of the teacher, of any size, constant.
      where: Mask of the examples that count.

    Returns:
      A scalar.

    References:
      Tung and Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019.
    """
    s, t = _flat(student, teacher, where)
    _, count = _counted(s, where)
    return jnp.sum((unit(_dot(s, s)) - unit(_dot(t, t))) ** 2) / count**2


@checked
def pkt_loss(
    student: Float[Array, "B *S"],
    teacher: Float[Array, "B *T"],
    *,
    eps: PositiveNumber = 1e-7,
    where: Bool[Array, " B"] | None = None,
) -> Float[Array, ""]:
    """Compare each example's similarities to all as a distribution (probabilistic knowledge transfer).

    Similarities are ``(cos + 1) / 2``, rows divided by their sum (the example itself included); the loss is
    the mean over all B^2 entries of ``P_t log((P_t + eps) / (P_s + eps))``. Weight 30000.

    Args:
      student: Features of the student.
      teacher: Features of the teacher, of any width, constant.
      eps: Small number added to both probabilities.
      where: Mask of the examples that count.

    Returns:
      A scalar.

    References:
      Passalis and Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer", ECCV 2018.
    """
    s, t = _flat(student, teacher, where)
    rows, count = _counted(s, where)
    pairs = rows[:, None] & rows

    def conditional(x):
        similarity = jnp.where(pairs, (_dot(unit(x), unit(x)) + 1) / 2, 0)
        total = jnp.sum(similarity, axis=-1, keepdims=True)
        return similarity / jnp.where(total > 0, total, 1)

    p, q = conditional(t), conditional(s)
    return jnp.sum(p * (jnp.log(p + eps) - jnp.log(q + eps))) / count**2


@checked
def correlation_congruence(
    student: Float[Array, "B D"],
    teacher: Float[Array, "B E"],
    *,
    gamma: PositiveNumber = 0.4,
    order: Count = 2,
    where: Bool[Array, " B"] | None = None,
) -> Float[Array, ""]:
    """Compute the correlation congruence loss ``|K_s - K_t|_F / B^2`` (not squared). Weight 0.003.

    ``K = exp(-2γ) Σ_p (2γ)^p / p! (x·y)^p`` up to an order: for x and y of unit length (see `unit`) a Taylor
    series of ``exp(-γ |x - y|^2)``. Vectors are taken as they are.

    Args:
      student: Embeddings, linear in the student's features.
      teacher: Embeddings of the teacher's features. The embedding is trained too, so this argument has a
        gradient: stop it at the features.
      gamma: Sharpness of the kernel.
      order: Highest power of the series.
      where: Mask of the examples that count.

    Returns:
      A scalar.

    References:
      Peng et al., "Correlation Congruence for Knowledge Distillation", ICCV 2019.
    """
    s, t = _wide(student, where), _wide(teacher, where)
    rows, count = _counted(s, where)

    def kernel(x):
        y = 2 * gamma * _dot(x, x)
        series = jnp.ones_like(y)
        for p in range(order, 0, -1):
            series = 1 + series * y / p
        return jnp.exp(-2 * jnp.asarray(gamma, y.dtype)) * series

    gap = jnp.where(rows[:, None] & rows, kernel(s) - kernel(t), 0)
    return length(gap, axis=(0, 1)) / count**2


@checked
def neighbour_congruence(
    student: Float[Array, "B D"], teacher: Float[Array, "B D"], *, where: Bool[Array, " B"] | None = None
) -> Float[Array, ""]:
    """Compute correlation congruence in the form of its authors' code, by products of neighbouring errors.

    The loss is ``mean_i Σ_d |e_i,d| |e_i+1,d|`` with ``e = student - teacher``: neighbours in the batch
    should not both have errors. It depends on the order of examples; examples that do not count are dropped
    before neighbours are paired. Weight 0.02.

    Args:
      student: Embeddings of the student.
      teacher: Embeddings, with a gradient: see `correlation_congruence`.
      where: Mask of the examples that count.

    Returns:
      A scalar.

    References:
      Peng et al., "Correlation Congruence for Knowledge Distillation", ICCV 2019; form of RepDistiller.
    """
    error = jnp.abs(_wide(student, where) - _wide(teacher, where))
    rows, count = _counted(error, where)
    error = error[jnp.argsort(~rows, stable=True)]  # rows left out come last, and are zero
    return jnp.sum(error[:-1] * error[1:]) / jnp.maximum(count - 1, 1)


# --- tokens -------------------------------------------------------------------------------------


@checked
def patchify(features: Float[Array, "*B H W C"], patch: int | tuple[int, int]) -> Float[Array, "*B N D"]:
    """Cut maps into patches: tokens from left to right, then down, each a flattened ``[p, q, C]``.

    Raises:
      ValueError: If patches do not tile the map.
    """
    p, q = (patch, patch) if isinstance(patch, int) else patch
    *batch, height, width, channels = features.shape
    if min(p, q) < 1 or height % p or width % q:
        raise ValueError(f"patches of {p}x{q} do not tile a map of {height}x{width}")
    x = features.reshape(*batch, height // p, p, width // q, q, channels)
    return jnp.swapaxes(x, -4, -3).reshape(*batch, (height // p) * (width // q), p * q * channels)


@checked
def sample_tokens(key: Array, batch: int, tokens: int, size: int) -> Int[Array, "B m"]:
    """Draw positions of some tokens of each image, without repetition; use the same ones for both networks.

    Args:
      key: Random key.
      batch: Number of images.
      tokens: Number of tokens of an image.
      size: Number of tokens to draw from each image.

    Returns:
      Positions for ``jnp.take_along_axis(features, positions[..., None], axis=1)``.

    Raises:
      ValueError: A size outside ``1..tokens``.
    """
    if not 1 <= size <= tokens:
        raise ValueError(f"size must be between 1 and the number of tokens, {tokens}; got {size}")
    keys = jax.random.split(key, batch)
    return jax.vmap(lambda k: jax.random.choice(k, tokens, (size,), replace=False))(keys)


@checked
def context_similarity(x: Float[Array, "*B N D"]) -> Float[Array, "*B N N"]:
    """Compute the attention between the tokens of an image: rows of ``softmax(F F^T / sqrt(D))``."""
    products = jnp.einsum("...nd,...md->...nm", x, x, precision="highest")
    return jax.nn.softmax(products / math.sqrt(x.shape[-1]), axis=-1)


@checked
def context_loss(
    student: Float[Array, "*B N D"],
    teacher: Float[Array, "*B N E"],
    *,
    where: Bool[Array, "*B"] | None = None,
) -> Float[Array, "*B"]:
    """Compute TRG's inner-instance loss, the mean squared difference of both `context_similarity`.

    Args:
      student: Tokens of the student.
      teacher: Tokens at the same positions, of any width, constant.
      where: Mask of the images that count.

    Returns:
      One value for each image, a mean over its N^2 pairs.
    """
    tokens = None if where is None else jnp.broadcast_to(where[..., None], student.shape[:-1])
    s, t = ready(student, teacher, tokens)
    values = jnp.mean((context_similarity(s) - context_similarity(t)) ** 2, axis=(-1, -2))
    return per_example(values, where)


class Neighbours(NamedTuple):
    """Graph with k edges from every node, the rows of a sparse matrix.

    Attributes:
      indices: ``[n, k]`` nodes at the other end.
      affinities: ``[n, k]`` weights of the edges, in 0..1; zero for an edge to or from a row left out.
    """

    indices: Int[Array, "n k"]
    affinities: Float[Array, "n k"]


def _present(indices: Array, rows: Array) -> Array:
    """Return a mask of the edges between two different rows that count."""
    itself = indices == jnp.arange(indices.shape[0])[:, None]
    return rows[indices] & rows[:, None] & ~itself


@checked
def nearest(x: Float[Array, "n D"], k: int, *, where: Bool[Array, " n"] | None = None) -> Int[Array, "n k"]:
    """Find the k nearest other rows of each row, nearest first, the lower index first among equals.

    Args:
      x: Rows.
      k: Number of neighbours, static.
      where: Mask of the rows that count; with fewer than k other rows, some indices have no meaning (see
        `affinity`).

    Returns:
      Indices; nothing is differentiated.

    Raises:
      ValueError: A k outside ``1..n-1``.
    """
    n = x.shape[0]
    if not 1 <= k < n:
        raise ValueError(f"k must be between 1 and the number of other rows, {n - 1}; got {k}")
    x = jax.lax.stop_gradient(_wide(x, where))
    rows, count = _counted(x, where)
    x = jnp.where(rows[:, None], x - jnp.sum(x, 0) / count, 0)  # expanded squares lose digits far from 0
    square = jnp.sum(x**2, -1)
    distance = square[:, None] - 2 * _dot(x, x) + square
    return jax.lax.top_k(-jnp.where(rows & ~jnp.eye(n, dtype=bool), distance, jnp.inf), k)[1]


@checked
def affinity(
    x: Float[Array, "n D"],
    indices: Int[Array, "n k"],
    *,
    sigma: PositiveNumber | None = None,
    where: Bool[Array, " n"] | None = None,
) -> Neighbours:
    """Compute Gaussian weights ``exp(-|x_i - x_j|^2 / 2σ)`` of given edges; they are differentiable in x.

    With the indices of the teacher this gives a student's affinities on the teacher's graph.

    Args:
      x: Rows.
      indices: Nodes at the other ends of the edges, see `nearest`.
      sigma: Scale of squared distances; None takes their mean over the edges as a constant, so that scaling
        all rows changes nothing.
      where: Mask of the rows that count.

    Returns:
      The edges and their weights.
    """
    x = _wide(x, where)
    present = _present(indices, _counted(x, where)[0])
    square = jnp.sum((x[:, None] - x[indices]) ** 2, axis=-1)
    if sigma is None:
        mean = jnp.sum(jnp.where(present, square, 0)) / jnp.maximum(jnp.sum(present), 1)
        sigma = jax.lax.stop_gradient(jnp.where(mean > 0, mean, 1))
    return Neighbours(indices, jnp.where(present, jnp.exp(-square / (2 * sigma)), 0))


@checked
def knn_affinity(
    x: Float[Array, "n D"],
    k: int,
    *,
    sigma: PositiveNumber | None = None,
    where: Bool[Array, " n"] | None = None,
) -> Neighbours:
    """Find the k nearest rows of each row with Gaussian weights: `nearest`, then `affinity`."""
    return affinity(x, nearest(x, k, where=where), sigma=sigma, where=where)


@checked
def knn_graph(x: Float[Array, "n D"], k: int, *, sigma: PositiveNumber | None = None) -> jraph.GraphsTuple:
    """Return `knn_affinity` as a graph: k edges leave every node for its neighbours, weighted by affinity."""
    indices, affinities = knn_affinity(x, k, sigma=sigma)
    n = x.shape[0]
    return jraph.GraphsTuple(
        nodes=x,
        edges=affinities.reshape(-1),
        senders=jnp.repeat(jnp.arange(n), k),
        receivers=indices.reshape(-1),
        n_node=jnp.asarray([n]),
        n_edge=jnp.asarray([n * k]),
        globals=None,
    )


def _at(graph: Neighbours, indices: Array) -> tuple[Array, Array]:
    """Return affinities of a graph at other edges, zero where it has none, and a mask of the edges it has."""
    match = graph.indices[:, :, None] == indices[:, None, :]
    return jnp.sum(graph.affinities[:, :, None] * match, axis=1), jnp.any(match, axis=1)


def _divergence(log_p: Array, d: Array) -> Array:
    """Compute ``p log(p/q) - p + q`` with ``d = log(p/q)``, precise where p and q are almost equal."""
    p, near = jnp.exp(log_p), jnp.abs(d) < 1
    small = jnp.where(near, d, 0)
    return jnp.where(near, p * (jnp.expm1(-small) + small), p * (d - 1) + jnp.exp(log_p - d))


@checked
def graph_kl(
    student: Neighbours,
    teacher: Neighbours,
    *,
    temperature: PositiveNumber = 1.0,
    implicit_zeros: bool = True,
    reverse: bool = False,
    where: Bool[Array, " n"] | None = None,
) -> Float[Array, " n"]:
    """Compute the KL divergence of the softmax of each node's row in two weighted graphs on the same nodes.

    Rows are ``softmax_j(A_ij / temperature)`` over all n nodes, with zeros for absent edges (and the node
    itself). Equal entries are counted, not stored, so memory is n k^2.

    Args:
      student: Edges and affinities of the student (`knn_affinity`).
      teacher: Edges and affinities of the teacher, constant.
      temperature: Temperature of the softmax; below one, rows are less uniform and the loss is larger.
      implicit_zeros: Whether rows include absent edges as zeros; if false, rows hold the teacher's neighbours
        only, and an edge that the student lacks has affinity 0.
      reverse: Whether to return ``KL(student || teacher)`` instead of ``KL(teacher || student)``.
      where: Mask of the nodes that count, as given when the graphs were made.

    Returns:
      One value for each node; TRG takes their mean.
    """
    rows, _ = _counted(student.affinities, where)
    teacher = jax.lax.stop_gradient(teacher)
    s_at_t, _ = _at(student, teacher.indices)
    t_at_s, shared = _at(teacher, student.indices)
    # Entries of a row that may differ from zero in either graph, then one for all that are zero in both.
    zeros = jnp.zeros((len(rows), 1))
    s = jnp.concatenate([s_at_t, student.affinities, zeros], axis=-1) / temperature
    t = jnp.concatenate([teacher.affinities, t_at_s, zeros], axis=-1) / temperature
    edges = _present(teacher.indices, rows)
    others = _present(student.indices, rows) & ~shared & implicit_zeros
    used = jnp.concatenate([edges, others], axis=-1).astype(s.dtype)
    left = jnp.sum(rows) * implicit_zeros - jnp.sum(used, axis=-1, keepdims=True)
    empty = jnp.sum(used, axis=-1, keepdims=True) == 0  # a row without entries needs any one
    times = jnp.concatenate([used, jnp.maximum(left, empty)], axis=-1)

    log_s, log_t = (x - jax.nn.logsumexp(x, axis=-1, b=times, keepdims=True) for x in (s, t))
    log_p, log_q = (log_s, log_t) if reverse else (log_t, log_s)
    return per_example(jnp.sum(times * _divergence(log_p, log_p - log_q), axis=-1), where)


@checked
def node_infonce(
    student: Float[Array, "n D"],
    teacher: Float[Array, "n D"],
    *,
    temperature: PositiveNumber = 0.1,
    where: Bool[Array, " n"] | None = None,
) -> Float[Array, " n"]:
    """Compute InfoNCE between nodes: a student's node and its own teacher node are the positive pair.

    ``-log exp(cos(s_i, t_i) / τ) / Σ_j exp(cos(s_i, t_j) / τ)``. TRG lowers τ while it trains.

    Args:
      student: Nodes, projected to the teacher's width.
      teacher: The same nodes in the teacher, constant.
      temperature: Temperature τ.
      where: Mask of the nodes that count; the others are not used as negatives either.

    Returns:
      One value for each node.
    """
    s, t = ready(student, teacher, where)
    scores = _dot(unit(s), unit(t)) / temperature
    candidates = _counted(s, where)[0] | jnp.eye(len(s), dtype=bool)
    values = jax.nn.logsumexp(scores, axis=-1, where=candidates) - jnp.diagonal(scores)
    return per_example(values, where)
