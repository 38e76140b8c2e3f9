"""Synthesizers: learnable data sets.

A synthesizer turns parameters into examples. What is learned is a dict of parts, so that optimisers and turns
can name them (`jgd.optim.by_part`, `jgd.optim.turns`)::

    synth = node_set(adjacency=pge(hidden=128))
    parts, fixed = synth.init(key, start)          # {"x": ..., "adj": ...}, labels and what else is not
    learned examples = synth.render(parts, fixed)          # Examples((A', X'), y')

The adjacency is an axis of its own: none (A' = I), `pge`, `graphon`, `self_expressive`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from jgd.core import Examples
from jgd.graph import DenseOperator, identity, operator

__all__ = ["Adjacency", "Synthesizer", "dense_graph_set", "existing", "node_set", "pge", "seen", "undirected"]


class Synthesizer(NamedTuple):
    """A learnable data set.

    Attributes:
      init: ``(key, start: Examples) -> (parts, fixed)``: a dict of what is learned, and what is not.
      render: ``(parts, fixed, *, key=None, t=None) -> Examples``; with a key a sample of a random set,
        without one the set to return.
      update: ``(parts, fixed) -> fixed`` after every step of the optimiser, or None.
    """

    init: Callable[[Array, Examples], tuple[dict[str, PyTree], PyTree]]
    render: Callable[..., Examples]
    update: Callable[[dict[str, PyTree], PyTree], PyTree] | None = None


class Adjacency(NamedTuple):
    """A learnable adjacency of synthetic nodes.

    Attributes:
      init: ``(key, x, y) -> (params, fixed)``.
      apply: ``(params, fixed, x, y, *, key=None, t=None) -> [n, n]`` weights, before normalisation.
      update: ``(params, fixed, x, y) -> fixed`` after every step, or None.
    """

    init: Callable[..., tuple[PyTree, PyTree]]
    apply: Callable[..., Array]
    update: Callable[..., PyTree] | None = None


def seen(small: Examples) -> Examples:
    """Return the set as networks see it: with ``D^-1/2 (A' + I) D^-1/2`` in place of A'."""
    a, x = small.inputs
    raw: Any = a.values if isinstance(a, DenseOperator) else a
    return small._replace(inputs=(operator(raw, normalize="sym", self_loops=True, negative="keep"), x))


def node_set(
    adjacency: Adjacency | None = None, *, soft_labels: bool = False, learning_rate: float | None = None
) -> Synthesizer:
    """Return synthetic nodes: features, and perhaps an adjacency, labels and the learning rate to train with.

    Parts: ``x`` features ``[n, F]``; ``adj`` parameters of the adjacency; ``y`` labels ``[n, C]``, free
    numbers that are used as they are; ``lr`` the learning rate, under a name of its own because a matching
    loss reads it.

    Args:
      adjacency: How edges follow from the features; None for A' = I.
      soft_labels: Whether to learn the labels, which then start as one-hot unless the start has soft ones.
      learning_rate: Start of the learned learning rate; None if there is none.
    """

    def init(key, start):
        x, y = jnp.array(start.inputs[-1]), jnp.array(start.targets)
        parts: dict[str, Any] = {"x": x}
        fixed: dict[str, Any] = {} if soft_labels else {"y": y}
        if soft_labels:
            if y.ndim == 1:
                raise ValueError("give soft labels [n, C] to start with, e.g. one-hot ones")
            parts["y"] = y
        if learning_rate is not None:
            parts["lr"] = jnp.asarray(learning_rate, jnp.float32)
        if adjacency is not None:
            parts["adj"], fixed["adj"] = adjacency.init(key, x, y)
        return parts, fixed

    def labels(parts, fixed):
        return parts["y"] if soft_labels else fixed["y"]

    def render(parts, fixed, *, key=None, t=None):
        x, y = parts["x"], labels(parts, fixed)
        if adjacency is None:
            return Examples((identity(x.shape[0]), x), y)
        weights = adjacency.apply(parts["adj"], fixed["adj"], x, y, key=key, t=t)
        return Examples((DenseOperator(weights), x), y)

    def update(parts, fixed):
        if adjacency is None or adjacency.update is None:
            return fixed
        x, y = parts["x"], labels(parts, fixed)
        return {**fixed, "adj": adjacency.update(parts["adj"], fixed["adj"], x, y)}

    return Synthesizer(init, render, update)


def undirected(weights: Float[Array, "*B N N"]) -> Float[Array, "*B N N"]:
    """Return the symmetric part of each matrix, with a zero diagonal."""
    loop = jnp.eye(weights.shape[-1], dtype=bool)
    return jnp.where(loop, 0, (weights + jnp.swapaxes(weights, -1, -2)) / 2)


def existing(
    a: Float[Array, "B N N"], x: Float[Array, "B N F"], exists: Bool[Array, "B N"]
) -> tuple[Float[Array, "B N N"], Float[Array, "B N F"], Bool[Array, "B N"]]:
    """Return edges and features of the nodes that exist, zeros elsewhere."""
    both = exists[:, :, None] & exists[:, None]
    return jnp.where(both, a, 0), jnp.where(exists[..., None], x, 0), exists


def dense_graph_set(
    *, anneal: int = 200, hottest: float = 1.0, coldest: float = 0.01, certain: float = 5.0
) -> Synthesizer:
    """Return synthetic graphs, padded to one size: features, and a free logit for every pair of nodes.

    Parts: ``x`` features ``[B, N, F]``; ``adj`` logits ``S`` ``[B, N, N]``, of which the symmetric part
    counts. Inputs, of the start too, are edges ``[B, N, N]`` (zeros and ones, or probabilities), features,
    and ``[B, N]`` which nodes exist: the others have neither, whatever is learned.

    With a key edges are drawn from the binary concrete distribution (Maddison et al., ICLR 2017; Jang et al.,
    ICLR 2017), ``A_ij = σ((S_ij + log u_ij - log(1 - u_ij)) / τ)`` with ``u_ij = u_ji`` uniform; τ falls
    geometrically from ``hottest`` at t = 0 to ``coldest`` at t = ``anneal``, and stays there. Without one,
    edges are those that are more likely than not: ``A_ij = [S_ij > 0]``.

    Args:
      anneal: Steps until the lowest temperature.
      hottest: The first temperature.
      coldest: The last one.
      certain: The logit of an edge that the start has; the opposite of one that it has not.
    """
    if anneal < 1 or not 0 < coldest <= hottest:
        raise ValueError(
            f"the temperature falls for at least one step to a positive one, got {anneal} steps from "
            f"{hottest} to {coldest}"
        )

    def init(key, start):
        del key
        a, x, exists = start.inputs
        least = jax.nn.sigmoid(-certain)
        p = jnp.clip(jnp.asarray(a, jnp.float32), least, 1 - least)
        logits = jnp.clip(jnp.log(p) - jnp.log1p(-p), -certain, certain)
        return {"x": jnp.array(x), "adj": logits}, {
            "y": jnp.array(start.targets),
            "exists": jnp.array(exists),
        }

    def render(parts, fixed, *, key=None, t=None):
        logits = undirected(parts["adj"])
        if key is None:
            a = jnp.where(logits > 0, 1.0, 0.0)
        else:
            noise = jnp.triu(jax.random.logistic(key, logits.shape), 1)
            noise = noise + jnp.swapaxes(noise, -1, -2)
            age = jnp.minimum(jnp.asarray(0 if t is None else t) / anneal, 1)
            a = undirected(jax.nn.sigmoid((logits + noise) / (hottest * (coldest / hottest) ** age)))
        return Examples(existing(a, parts["x"], fixed["exists"]), fixed["y"])

    return Synthesizer(init, render)


# --- adjacencies --------------------------------------------------------------------------------


def uniform_linear(key: Array, fan_in: int, width: int) -> dict[str, Array]:
    """Return weights and biases of a linear map, uniform within ``1 / sqrt(fan_in)``."""
    k_kernel, k_bias = jax.random.split(key)
    bound = fan_in**-0.5
    kernel = jax.random.uniform(k_kernel, (fan_in, width), minval=-bound, maxval=bound)
    return {"kernel": kernel, "bias": jax.random.uniform(k_bias, (width,), minval=-bound, maxval=bound)}


def batch_norm(params: dict[str, Array], x: Float[Array, "... H"]) -> Float[Array, "... H"]:
    """Normalise with the statistics of all rows at hand, never with running ones."""
    axes = tuple(range(x.ndim - 1))
    mean = jnp.mean(x, axes)
    variance = jnp.mean((x - mean) ** 2, axes)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * params["scale"] + params["shift"]


def pairs(first: dict[str, Array], x: Float[Array, "n F"]) -> Float[Array, "n n H"]:
    """Return a linear map of all concatenated pairs ``[x_i; x_j]``, without building them."""
    width = x.shape[1]
    of, to = x @ first["kernel"][:width], x @ first["kernel"][width:]
    return of[:, None] + to[None] + first["bias"]


def pge(hidden: int = 128, layers: int = 3) -> Adjacency:
    """Return GCond's generator: ``A'_ij = sigmoid((MLP([x_i; x_j]) + MLP([x_j; x_i])) / 2)``, zero for i = j.

    The MLP normalises with the statistics of all ``n²`` pairs, when the set is returned too, so that A' is a
    function of the features and the weights alone, and permutes with the nodes.

    Args:
      hidden: Width of the hidden layers.
      layers: Linear maps, at least 2.
    """
    if layers < 2:
        raise ValueError(f"layers must be at least 2, got {layers}")

    def init(key, x, y):
        del y
        widths = [2 * x.shape[1], *[hidden] * (layers - 1), 1]
        keys = jax.random.split(key, layers)
        linear = [uniform_linear(k, i, o) for k, i, o in zip(keys, widths[:-1], widths[1:], strict=True)]
        norms = [{"scale": jnp.ones(hidden), "shift": jnp.zeros(hidden)} for _ in range(layers - 1)]
        return {"linear": linear, "norm": norms}, ()

    def apply(params, fixed, x, y, *, key=None, t=None):
        del fixed, y, key, t
        first, *rest = params["linear"]
        h = pairs(first, x)
        for norm, linear in zip(params["norm"], rest, strict=True):
            h = jax.nn.relu(batch_norm(norm, h)) @ linear["kernel"] + linear["bias"]
        return symmetric_weights(h[..., 0])

    return Adjacency(init, apply)


def symmetric_weights(scores: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Return the sigmoid of the symmetric part, with a zero diagonal."""
    weights = jax.nn.sigmoid((scores + scores.T) / 2)
    return jnp.where(jnp.eye(scores.shape[0], dtype=bool), 0, weights)
