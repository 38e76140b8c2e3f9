r"""TRG: patches, not images, are the nodes of the graph whose structure a student learns.

Zhang, Liu and He, "Knowledge Distillation via Token-level Relationship Graph", 2023 (arXiv 2306.12442).

The one idea: relations between images are few and coarse; relations between the patches of all images of a
batch are many. m tokens of each image are drawn, and both networks see them as a graph of nearest
neighbours::

    inner    MSE of softmax(F F^T / sqrt(D)) of both networks, in each image, all tokens
    local    KL of the softmax of each node's row of affinities exp(-|t_i - t_j|² / 2σ), k neighbours each
    global   InfoNCE between a student's token, projected, and the teacher's, temperature falling with time
    L = CE + KD + α inner + β local + γ global

Nothing of the authors' settings was public: k, m and the weights are those that showed an effect on digits.
σ is the mean squared distance of neighbours in each network, and the forward KL (teacher first) is the
default. A softmax over hundreds of affinities in 0..1 is almost even, so ``local`` needs a large weight.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jgd import losses
from jgd.core import Objective, from_linen
from jgd.distill.terms import Place, sides

__all__ = ["tokens", "trg"]


def tokens(features: Float[Array, "..."], grid: tuple[int, int] | None = None) -> Float[Array, "B N D"]:
    """Return tokens of a map ``[B, H, W, C]``, one for each cell of a grid, or tokens as they are.

    Args:
      features: Map, or tokens ``[B, N, D]``.
      grid: Cells that the map is averaged to; None for one token for each position.

    Raises:
      ValueError: For anything else.
    """
    if features.ndim == 3:
        return features
    if features.ndim != 4:
        raise ValueError(f"tokens are [B, N, D] or maps [B, H, W, C], got {features.shape}")
    if grid is not None:
        features = losses.adaptive_average_pool(features, grid)
    return features.reshape(features.shape[0], -1, features.shape[-1])


class _Projection(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x, *, train):
        del train
        return nn.Dense(self.width)(x)


def trg(
    *,
    at: Place = "tokens",
    grid: tuple[int, int] | None = None,
    inner: Any = 100.0,
    local: Any = 100.0,
    across: Any = 1.0,
    drawn: int = 4,
    neighbours: int = 8,
    affinity_temperature: Any = 1.0,
    reverse: bool = False,
    temperature: Any = None,
    student: str = "model",
    teacher: str = "teacher",
) -> Objective:
    """Return relations of tokens, in three parts, to be added to cross-entropy and a divergence of logits.

    Args:
      at: Place of tokens ``[B, N, D]`` or maps ``[B, H, W, C]`` of both networks, with as many tokens in
        each.
      grid: Cells that maps are averaged to first.
      inner: Weight of the relations in an image, α; all weights are numbers or schedules.
      local: Weight of the graph of neighbours, β.
      across: Weight of the contrast between networks, γ.
      drawn: Tokens of each image in the graph, m.
      neighbours: Neighbours of each token, k.
      affinity_temperature: Temperature of the softmax of affinities; below 1 it sharpens them.
      reverse: Whether the KL has the student first, as the paper prints it.
      temperature: Temperature of the contrast, a schedule of the step; None for 0.5, falling along a cosine
        to 0.1 over 1000 steps.
      student: Name of the network that learns.
      teacher: Name of the network that it learns from.
    """
    cooling = optax.cosine_decay_schedule(0.5, 1000, alpha=0.2) if temperature is None else temperature

    def both(ctx):
        s, t = (tokens(x, grid) for x in sides(ctx, at, student, teacher))
        if s.shape[:2] != t.shape[:2]:
            raise ValueError(
                f"student and teacher need as many tokens, got {s.shape[1]} and {t.shape[1]}: set grid"
            )
        return s, t

    def projection(t):
        return from_linen(_Projection(t.shape[-1]))

    def init(key, ctx):
        s, t = both(ctx)
        return projection(t).init(key, s)

    def apply(params, state, ctx, *, key, step):
        s, t = both(ctx)
        here = losses.sample_tokens(key, s.shape[0], s.shape[1], drawn)
        ns, nt = (jnp.take_along_axis(x, here[..., None], 1).reshape(-1, x.shape[-1]) for x in (s, t))
        graphs = losses.knn_affinity(ns, neighbours), losses.knn_affinity(nt, neighbours)
        projected = projection(t).apply(params, state, ns)[0].logits
        parts = {
            "inner": jnp.mean(losses.context_loss(s, t)),
            "local": jnp.mean(losses.graph_kl(*graphs, temperature=affinity_temperature, reverse=reverse)),
            "across": jnp.mean(losses.node_infonce(projected, nt, temperature=_at(cooling, step))),
        }
        weights = {"inner": inner, "local": local, "across": across}
        return sum((_at(w, step) * parts[n] for n, w in weights.items()), jnp.zeros(())), state, parts

    return Objective(init, apply)


def _at(value: Any, step: Array) -> Any:
    return value(step) if callable(value) else value
