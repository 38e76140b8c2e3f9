"""Matching losses: how far a synthetic set is from the real one, in some space.

gradient      gradients of the loss of a network, class by class (Zhao et al., ICLR 2021; GCond)
moments       means and standard deviations of embeddings, class by class (distribution matching)
mmd           maximum mean discrepancy of embeddings
trajectory    parameters after some steps on the synthetic set and after many on the real one (MTT, SFGC)

Plain functions of arrays and pytrees. Graphs and images use the same ones. `gradient_matching` is a loss for
`jgd.condense.bilevel.match`; other such losses stand in the file of their paper.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, Shaped

from jgd.condense.bilevel import MatchContext
from jgd.core import Bound, Examples
from jgd.graph import sample_tree
from jgd.losses import cross_entropy, mean

__all__ = [
    "GradientDistance",
    "class_gradients",
    "class_moments",
    "class_weights",
    "column_cosine",
    "cosine",
    "exact_gradients",
    "gradient_matching",
    "mmd",
    "one_hot",
    "sampled_gradients",
    "smoothness",
    "squared",
    "trajectory_distance",
]

Distance = Callable[[PyTree, PyTree], Array]


# --- distances between gradients ----------------------------------------------------------------


def column_cosine(a: PyTree, b: PyTree) -> Float[Array, ""]:
    """Return ``1 - cos`` between corresponding columns, summed over all columns of all weight matrices.

    A column is all that leads to one output (the last axis); vectors, i.e. biases, do not count. The
    distance is that of GCond: it ignores the length of each column.
    """

    def one(x, y):
        if x.ndim < 2:
            return jnp.zeros((), x.dtype)
        x, y = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
        lengths = _norm(x, 0) * _norm(y, 0)
        return jnp.sum(1 - jnp.sum(x * y, axis=0) / (lengths + 1e-6))

    return _total(one, a, b)


def cosine(a: PyTree, b: PyTree) -> Float[Array, ""]:
    """Return ``1 - cos`` between all numbers of both, as one vector each."""
    dot = _total(lambda x, y: jnp.sum(x * y), a, b)
    lengths = _root(_total(lambda x, y: jnp.sum(x * y), a, a)) * _root(
        _total(lambda x, y: jnp.sum(x * y), b, b)
    )
    return 1 - dot / (lengths + 1e-6)


def squared(a: PyTree, b: PyTree) -> Float[Array, ""]:
    """Return the squared Euclidean distance of all numbers."""
    return _total(lambda x, y: jnp.sum((x - y) ** 2), a, b)


def _total(fn, a: PyTree, b: PyTree) -> Array:
    return jax.tree.reduce(jnp.add, jax.tree.map(fn, a, b), jnp.zeros(()))


def _root(x: Array) -> Array:
    """Return a square root whose derivative at zero is zero."""
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1)), 0)


def _norm(x: Array, axis: int) -> Array:
    return _root(jnp.sum(x**2, axis=axis))


# --- class by class -----------------------------------------------------------------------------


def one_hot(targets: Shaped[Array, "N ..."], num_classes: int) -> Float[Array, "N C"]:
    """Return targets as probabilities, whether they are classes or probabilities already."""
    return targets if targets.ndim == 2 else jax.nn.one_hot(targets, num_classes)


def class_weights(examples: Examples, num_classes: int) -> Float[Array, "N C"]:
    """Return how much each example counts in each class: its weight times the probability of the class."""
    weights = one_hot(examples.targets, num_classes)
    return weights if examples.weights is None else weights * examples.weights[:, None].astype(weights.dtype)


def class_gradients(net: Bound, examples: Examples, num_classes: int) -> PyTree:
    """Return the gradient of the mean cross-entropy over each class, in the parameters of a network.

    The network sees all inputs at once (a graph stays whole); only which outputs count differs by class.

    Returns:
      The structure of ``net.params`` with a leading axis of classes; zeros for a class without examples.
    """
    weights = class_weights(examples, num_classes)

    def loss(params, weight):
        logits = net.model.apply(params, net.state, *examples.inputs)[0].logits
        return mean(cross_entropy(logits, examples.targets), weight)

    return jax.vmap(jax.grad(loss), in_axes=(None, 1))(net.params, weights)


def class_moments(
    x: Float[Array, "N D"], weights: Float[Array, "N C"]
) -> tuple[Float[Array, "C D"], Float[Array, "C D"]]:
    """Return mean and standard deviation (divided by the weight) of the rows of each class."""
    total = jnp.sum(weights, axis=0)[:, None]
    share = jnp.where(total > 0, weights.T / jnp.where(total > 0, total, 1), 0)
    means = share @ x
    variance = jnp.maximum(share @ x**2 - means**2, 0)
    return means, _root(variance)


def mmd(
    x: Float[Array, "N D"],
    y: Float[Array, "M D"],
    x_weights: Float[Array, " N"],
    y_weights: Float[Array, " M"],
    widths: Float[Array, " K"],
) -> Float[Array, ""]:
    """Return the squared maximum mean discrepancy of two weighted sets under a mean of Gaussian kernels.

    Args:
      x: One set.
      y: The other.
      x_weights: Weights of the rows of ``x``, scaled to sum to one.
      y_weights: Weights of the rows of ``y``, scaled to sum to one.
      widths: Standard deviations of the kernels.
    """

    def kernel(a, b):
        d2 = jnp.sum(a**2, 1)[:, None] + jnp.sum(b**2, 1) - 2 * a @ b.T
        scaled = jnp.maximum(d2, 0)[..., None] / (2 * widths**2)
        return jnp.mean(jnp.exp(-scaled), axis=-1)

    p, q = x_weights / jnp.sum(x_weights), y_weights / jnp.sum(y_weights)
    return p @ kernel(x, x) @ p + q @ kernel(y, y) @ q - 2 * p @ kernel(x, y) @ q


# --- trajectories -------------------------------------------------------------------------------


def trajectory_distance(
    student: PyTree, target: PyTree, start: PyTree, kind: Literal["squared", "norm"] = "squared"
) -> Float[Array, ""]:
    """Return ``|student - target|² / |start - target|²``, or the same without the squares.

    One where the student did not move, zero where it reached the target.
    """
    ratio = squared(student, target) / squared(start, target)
    return ratio if kind == "squared" else _root(ratio)


# --- gradient matching, for `jgd.condense.bilevel.match` ----------------------------------------

GradientDistance = Literal["columns", "cosine", "squared"]
_DISTANCES = {"columns": column_cosine, "cosine": cosine, "squared": squared}


def exact_gradients(num_classes: int):
    """Return ``(net, real, key) -> [C, ...]``, the gradients of the real examples, class by class.

    Args:
      num_classes: Number of classes.
    """

    def gradients(net, real, key):
        del key
        return class_gradients(net, real, num_classes)

    return gradients


def sampled_gradients(num_classes: int, fanouts: tuple[int, ...], batch: int = 256):
    """Return gradients of up to ``batch`` nodes of each class, drawn for each call, in their neighbourhoods.

    The real examples are a sparse operator and dense features of all nodes.

    Args:
      num_classes: Number of classes.
      fanouts: Neighbours of a node, see `jgd.graph.sample_tree`; one number for each layer of the network.
      batch: Labelled nodes of a class.
    """

    def gradients(net, real, key):
        (a, x), labels, mask = real.inputs, real.targets, real.weights
        size = min(batch, labels.shape[0])

        def one(args):
            c, key = args
            k_nodes, k_tree = jax.random.split(key)
            order = jax.random.gumbel(k_nodes, labels.shape)
            top, seeds = jax.lax.top_k(jnp.where((labels == c) & (mask > 0), order, -jnp.inf), size)
            tree, index = sample_tree(k_tree, a, seeds, fanouts)

            def loss(params):
                logits = net.model.apply(params, net.state, tree, x[index])[0].logits[:size]
                return mean(cross_entropy(logits, labels[seeds]), jnp.isfinite(top))

            return jax.grad(loss)(net.params)

        return jax.lax.map(one, (jnp.arange(num_classes), jax.random.split(key, num_classes)))

    return gradients


def gradient_matching(
    num_classes: int,
    distance: GradientDistance = "columns",
    smooth: float = 0.0,
    real: Callable | None = None,
):
    """Return the matching loss of GCond.

    Args:
      num_classes: Number of classes.
      distance: Distance between gradients: one minus the cosine of each column, or of all numbers at once, or
        the squared difference.
      smooth: Weight of the smoothness ``tr(Y'^T L Y')`` of the labels on the condensed graph.
      real: Gradients of the real set, `exact_gradients` by default.
    """
    between, gradients = _DISTANCES[distance], real or exact_gradients(num_classes)

    def loss(ctx: MatchContext):
        theirs = jax.lax.stop_gradient(gradients(ctx.net, ctx.real, ctx.key))
        ours = class_gradients(ctx.net, ctx.small, num_classes)
        counts = jnp.sum(class_weights(ctx.small, num_classes), axis=0)
        total = jnp.sum(counts / jnp.max(counts) * jax.vmap(between)(theirs, ours))
        if smooth:
            total = total + smooth * smoothness(ctx.small, num_classes)
        return total, {}

    return loss


def smoothness(small: Examples, num_classes: int) -> Array:
    """Return ``tr(Y^T (I - Â) Y)`` over the number of nodes, for examples whose operator is normalised."""
    y = class_weights(small, num_classes)
    return jnp.sum(y * (y - small.inputs[0] @ y)) / y.shape[0]
