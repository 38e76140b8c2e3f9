"""Experts, their trajectories, and the segments of these that are matched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, PyTree

from jgd.core import Algorithm, Context, Model, objective, train
from jgd.losses import cross_entropy, mean

__all__ = ["Segment", "Span", "expert", "train_several", "trajectory", "uniform"]


# --- training -----------------------------------------------------------------------------------


def uniform(fan_in: int) -> Callable[..., Array]:
    """Return an initialiser: uniform within ``1 / sqrt(fan_in)``.

    The published graph condensation codes draw the weights of a linear map and its biases by it.

    Args:
      fan_in: Number of inputs of the linear map.
    """
    bound = fan_in**-0.5

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def expert_loss(ctx: Context) -> Array:
    """Compute the weighted mean cross-entropy of the network.

    Args:
      ctx: Context of a step.
    """
    batch = ctx.batch
    return mean(cross_entropy(ctx.outputs["model"].logits, batch.targets), batch.weights)


def expert(model: Model, tx: optax.GradientTransformation) -> Algorithm:
    """Return full-batch training with cross-entropy on `Examples`.

    Args:
      model: The network.
      tx: Optimiser.
    """
    return train(model, objective(expert_loss), tx)


# --- trajectories --------------------------------------------------------------------------------


def own_params(state: Any) -> PyTree:
    """Return the parameters of the network that `jgd.core.train` trains.

    Args:
      state: State of its training.
    """
    return state.params["model"]


def trajectory(
    alg: Algorithm,
    at: Sequence[int],
    *,
    select: Callable[[Any], PyTree] = own_params,
    batches: Callable[[Any, Array], PyTree] | None = None,
) -> Callable[[Array, Any], PyTree]:
    """Return a function that trains one network and returns its trajectory.

    Args:
      alg: The training.
      at: Step numbers of the snapshots, ascending, from 0, which is the initial network; training ends at the
        last one.
      select: Part of the state to keep; by default the network that `jgd.core.train` trains.
      batches: ``(data, t) -> batch``, where the data are not taken whole.

    Returns:
      ``(key, data) -> snapshots`` with a leading axis of ``len(at)``. It draws as the loop driver does, so
      that snapshots equal those of `jgd.core.record`; `jax.vmap` over keys trains several at once.
    """
    bounds = np.asarray([0, *at], np.int32)
    if len(at) == 0 or (np.diff(bounds[1:]) <= 0).any() or bounds[1] < 0:
        raise ValueError(f"snapshots must be at ascending step numbers from 0, got {list(at)}")

    def run(key, data):
        def batch_at(t):
            return None if batches is None else batches(data, t)

        keys = jax.random.fold_in(key, 1)

        def step(t, state):
            return alg.step(jax.random.fold_in(keys, t), t, state, data, batch_at(t))[0]

        def advance(state, ends):
            state = jax.lax.fori_loop(ends[0], ends[1], step, state)
            return state, select(state)

        state = alg.init(jax.random.fold_in(key, 0), data, batch_at(jnp.zeros((), jnp.int32)))
        state = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), state)  # no weak types
        return jax.lax.scan(advance, state, (jnp.asarray(bounds[:-1]), jnp.asarray(bounds[1:])))[1]

    return run


def train_several(
    run_one: Callable[[Array, Any], PyTree], at_once: int | None = None
) -> Callable[[Array, Any], PyTree]:
    """Return ``(keys, data) -> snapshots`` with a leading axis of experts: the trajectories of several.

    Args:
      run_one: Trajectory of one expert, see `trajectory`.
      at_once: Number of experts that are vmapped, the rest waits; None for one on CPU, where the parameters
        of one expert stay in cache, and for all elsewhere.
    """

    def run(keys, data):
        default = 1 if jax.default_backend() == "cpu" else len(keys)
        size = min(at_once or default, len(keys))
        if size == len(keys):
            return jax.vmap(run_one, in_axes=(0, None))(keys, data)
        return jax.lax.map(lambda key: run_one(key, data), keys, batch_size=None if size == 1 else size)

    return run


# --- what is matched -----------------------------------------------------------------------------


class Segment(NamedTuple):
    """A part of a trajectory: parameters at its start and its end, and at the end of the trajectory."""

    start: PyTree
    target: PyTree
    last: PyTree


@dataclass(frozen=True)
class Span:
    """Which segments are matched: from step ``s`` to step ``s + length``.

    In matching step ``t``, ``s`` is drawn uniformly from ``least <= s < min(first + t, most)`` and rounded
    down to a multiple of ``every``: an expanding range (GEOM), or a fixed one where ``first`` is ``most``.

    Attributes:
      length: Steps from start to target.
      most: Step that all starts are before.
      first: Bound of the starts in the first matching step, which grows by one in every step; None for
        ``most`` from the beginning.
      least: First possible start.
      every: Number of which starts are rounded down to multiples.
      end: Last step of the expert, where its last network is needed; None to stop with the last target.
    """

    length: int
    most: int
    first: int | None = None
    least: int = 0
    every: int = 1
    end: int | None = None

    def __post_init__(self):
        """Refuse impossible settings."""
        if self.every < 1 or self.length < 1:
            raise ValueError(f"every and length must be at least 1, got {self.every} and {self.length}")
        if not 0 <= self.least < self._first <= self.most:
            raise ValueError(
                f"starts need 0 <= least < first <= most, got {self.least}, {self._first} and {self.most}"
            )
        if self.end is not None and self.end < self._starts[-1] + self.length:
            last = self._starts[-1] + self.length
            raise ValueError(f"the expert ends at step {self.end}, before its last target at step {last}")

    @property
    def _first(self) -> int:
        return self.most if self.first is None else self.first

    @property
    def _starts(self) -> np.ndarray:
        return np.arange(self.least // self.every, (self.most - 1) // self.every + 1) * self.every

    @property
    def at(self) -> tuple[int, ...]:
        """Step numbers of the snapshots that are needed."""
        end = () if self.end is None else (self.end,)
        return tuple(int(s) for s in sorted({*self._starts, *(self._starts + self.length), *end}))

    def draw(self, key: Array, t: Array | int) -> Int[Array, "2"]:
        """Return the positions in ``at`` of a start and its target."""
        bound = jnp.minimum(self._first + t, self.most)
        s = jax.random.randint(key, (), self.least, bound)
        which = s // self.every - self.least // self.every
        both = np.stack([self._starts, self._starts + self.length], axis=1)
        return jnp.asarray(np.searchsorted(self.at, both))[which]
