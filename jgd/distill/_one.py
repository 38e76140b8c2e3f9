r"""ONE: branches of one network are taught by their own ensemble, while it is made.

Lan, Zhu and Gong, "Knowledge Distillation by On-the-Fly Native Ensemble", NeurIPS 2018.

The one idea: peers need not be whole networks. M branches share a trunk, a gate of the trunk's features mixes
their logits, and the mixture, the strongest of them all, teaches each branch::

    z_e = Σ_m g_m z_m,   g = softmax(ReLU(norm(W pooled trunk)))
    L = Σ_m CE(z_m) + CE(z_e) + r Σ_m T² KL(softmax(z_e / T) || softmax(z_m / T))

with T = 3 and r = exp(-5 (1 - e/80)²) up to epoch 80. There is no teacher; the answer is that of the first
branch, which costs what a plain network does, or that of the ensemble::

    net = Branched(trunk, branch=partial(Perceptron, 10, (64,)), at="stage2")
    student = scratch(net, tx, one(ramp_steps=4000))(key, task)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from jgd import losses
from jgd.core import Context, Objective, Outputs, objective, weighted
from jgd.distill.terms import At, read
from jgd.losses import cross_entropy, mean
from jgd.nn.conv import batch_norm

__all__ = ["Branched", "one", "sigmoid_ramp"]


class Branched(nn.Module):
    """A trunk, branches on top of it, and a gate that mixes them.

    Taps: those of the trunk, ``branches`` ``[B, M, C]``, ``ensemble`` ``[B, C]`` and ``gate`` ``[B, M]``. The
    embedding is what the branches read, averaged over positions.

    Attributes:
      trunk: Any network that takes ``train``.
      branch: Function that makes a branch, a network from the trunk's features to logits that takes
        ``train``.
      count: Number of branches.
      at: Place in the trunk that the branches read; a trunk that returns an array is read as it is.
      answer: Logits of the network: those of the ``"first"`` branch or of the ``"ensemble"``.
    """

    trunk: nn.Module
    branch: Callable[[], nn.Module]
    count: int = 3
    at: At = "embedding"
    answer: Literal["first", "ensemble"] = "first"

    @nn.compact
    def __call__(self, *inputs: Any, train: bool = False) -> Outputs:
        """Classify."""
        if self.count < 1:
            raise ValueError(f"there must be at least one branch, got {self.count}")
        if self.answer not in ("first", "ensemble"):
            raise ValueError(f"answer must be 'first' or 'ensemble', got {self.answer!r}")
        below = self.trunk(*inputs, train=train)
        x = read(below, self.at) if isinstance(below, Outputs) else below
        answers = [self.branch()(x, train=train) for _ in range(self.count)]
        branches = jnp.stack([a.logits if isinstance(a, Outputs) else a for a in answers], axis=1)
        pooled = x.reshape(x.shape[0], -1, x.shape[-1]).mean(1)
        gate = jax.nn.softmax(nn.relu(batch_norm(train)(nn.Dense(self.count)(pooled))))
        ensemble = jnp.einsum("bm,bmc->bc", gate, branches)
        taps = {**below.taps} if isinstance(below, Outputs) else {}
        logits = ensemble if self.answer == "ensemble" else branches[:, 0]
        return Outputs(logits, pooled, {**taps, "branches": branches, "ensemble": ensemble, "gate": gate})


def sigmoid_ramp(steps: int) -> Callable[[Array], Array]:
    """Return a weight ``exp(-5 (1 - t / steps)²)``, 1 from ``steps`` on, as an Optax schedule."""
    return lambda step: jnp.exp(-5 * (1 - jnp.minimum(step / max(steps, 1), 1.0)) ** 2)


def one(*, temperature: Any = 3.0, ramp_steps: int = 1000, player: str = "model") -> Objective:
    """Return all of ONE's loss, labels included.

    Args:
      temperature: Temperature T.
      ramp_steps: Steps until the ensemble counts in full (80 epochs of 300).
      player: Name of a `Branched` network.
    """

    def taps(ctx: Context) -> Any:
        return ctx.outputs[player].taps

    def each(ctx: Context, loss: Callable[[Array], Array]) -> Array:
        branches = read(ctx.outputs[player], "branches")
        return sum((mean(loss(z), ctx.batch.weights) for z in jnp.moveaxis(branches, 1, 0)), jnp.zeros(()))

    def hard(ctx: Context) -> Array:
        return each(ctx, lambda z: cross_entropy(z, ctx.batch.targets))

    def together(ctx: Context) -> Array:
        return mean(cross_entropy(taps(ctx)["ensemble"], ctx.batch.targets), ctx.batch.weights)

    def taught(ctx: Context) -> Array:
        return each(ctx, lambda z: losses.kd(z, taps(ctx)["ensemble"], temperature=temperature))

    return weighted(
        branches=(1.0, objective(hard)),
        ensemble=(1.0, objective(together)),
        kd=(sigmoid_ramp(ramp_steps), objective(taught)),
    )
