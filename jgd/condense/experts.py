"""Experts: networks that learn from the real data, and the ways they take, for trajectory matching.

A *way* is a few snapshots of an expert's parameters, at the step numbers that some matching step may ask for
(`Stretch`): where it starts and where it should have come after ``length`` more steps. Nothing else is kept.
For GCN-256 on Cora and 200 experts that are 2.4 GB for SFGC in place of 74 GB for a snapshot every ten steps.

Two ways to feed a matching loop, which sees a `Window` in each step as its batch:

streamed     a group of experts is trained at once inside the loop, used for some steps and dropped. What is
             held is one group; nothing goes to disk but the checkpoints of the loop.
stored       experts are trained in groups and written to a folder, one file each, where later runs find them;
             a stream of windows reads them back.

Experts are any `Algorithm`, on any data: a GCN on a graph or a ConvNet on batches of images. `curriculum`
trains on easy nodes first (GEOM).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.sparse as sp
from jaxtyping import Array, Bool, Float, Int, PyTree

from jgd.core import Algorithm, Context, Examples, HostStream, Model, objective, train
from jgd.files import atomic_write
from jgd.losses import cross_entropy, mean

__all__ = [
    "Lessons",
    "Pace",
    "Store",
    "Stretch",
    "Window",
    "curriculum",
    "difficulty",
    "expert",
    "pace",
    "ranks",
    "several",
    "store",
    "streamed",
    "trajectory",
    "uniform",
]

Pace = Literal["linear", "root", "geom"]
Precision = Literal["float32", "bfloat16", "float16"]


# --- the way of one expert ----------------------------------------------------------------------


def _own_params(state: Any) -> PyTree:
    return state.params["student"]


def trajectory(
    alg: Algorithm,
    at: Sequence[int],
    *,
    select: Callable[[Any], PyTree] = _own_params,
    batches: Callable[[Any, Array], PyTree] | None = None,
) -> Callable[[Array, Any], PyTree]:
    """Train one network and return what it was on the way.

    Args:
      alg: the training.
      at: step numbers of the snapshots, ascending, from 0, which is the initial network; training ends at the
        last one.
      select: what to keep of the state; by default the network that `jgd.core.train` trains.
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

        def stretch(state, ends):
            state = jax.lax.fori_loop(ends[0], ends[1], step, state)
            return state, select(state)

        state = alg.init(jax.random.fold_in(key, 0), data, batch_at(jnp.zeros((), jnp.int32)))
        state = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), state)  # no weak types
        return jax.lax.scan(stretch, state, (jnp.asarray(bounds[:-1]), jnp.asarray(bounds[1:])))[1]

    return run


def several(
    way: Callable[[Array, Any], PyTree], at_once: int | None = None
) -> Callable[[Array, Any], PyTree]:
    """The ways of several experts: ``(keys, data) -> snapshots`` with a leading axis of experts.

    Args:
      way: of one, see `trajectory`.
      at_once: how many are vmapped, the rest waits; None for one on CPU, where the parameters of one expert
        stay in cache, and for all elsewhere.
    """

    def run(keys, data):
        default = 1 if jax.default_backend() == "cpu" else len(keys)
        size = min(at_once or default, len(keys))
        if size == len(keys):
            return jax.vmap(way, in_axes=(0, None))(keys, data)
        return jax.lax.map(lambda key: way(key, data), keys, batch_size=None if size == 1 else size)

    return run


# --- what matching asks for ---------------------------------------------------------------------


class Window(NamedTuple):
    """A stretch of an expert's way: parameters at its start, at its end, and at the end of the whole way."""

    start: PyTree
    target: PyTree
    last: PyTree


@dataclass(frozen=True)
class Stretch:
    """Which stretches are matched: from step ``s`` to step ``s + length``.

    In matching step ``t``, ``s`` is drawn uniformly from ``least <= s < min(first + t, most)`` and rounded
    down to a multiple of ``every``: an expanding window (GEOM), or a fixed one where ``first`` is ``most``.

    Attributes:
      length: steps from start to target.
      most: no start is at or after this step.
      first: the bound that expands by one with each matching step; None for ``most`` from the beginning.
      least: first possible start.
      every: starts are multiples of it.
      end: last step of the expert, where its last network is wanted; None to stop with the last target.
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
        """Positions in ``at`` of a start and its target."""
        bound = jnp.minimum(self._first + t, self.most)
        s = jax.random.randint(key, (), self.least, bound)
        which = s // self.every - self.least // self.every
        both = np.stack([self._starts, self._starts + self.length], axis=1)
        return jnp.asarray(np.searchsorted(self.at, both))[which]


# --- streamed -----------------------------------------------------------------------------------


class Streamed(NamedTuple):
    """State of `streamed`."""

    inner: PyTree
    snapshots: PyTree


def streamed(
    alg: Algorithm,
    way: Callable[[Array, Any], PyTree],
    stretch: Stretch,
    *,
    group: int,
    every: int,
    at_once: int | None = None,
    get: Callable[[Any], Any] = lambda data: data.real,
) -> Algorithm:
    """Feed a matching algorithm with windows of experts that are trained along the way.

    Args:
      alg: takes a `Window` as its batch.
      way: of one expert, ``trajectory(..., stretch.at)``.
      stretch: which windows are drawn.
      group: experts that are held; matching takes them in turns.
      every: matching steps between groups; the old one is dropped.
      at_once: experts of a group that are trained together, see `several`.
      get: finds the data of the experts in the data of the loop.

    Returns:
      An `Algorithm` that needs no batches. Its state holds the group, so a run can be resumed anywhere.
    """
    if group < 1 or every < 1:
        raise ValueError(f"group and every must be at least 1, got {group} and {every}")

    def group_of(key, data):
        return several(way, at_once)(jax.random.split(key, group), get(data))

    def init(key, data, batch):
        del batch
        k_inner, k_group = jax.random.split(key)
        shapes = jax.eval_shape(group_of, k_group, data)
        return Streamed(
            alg.init(k_inner, data, None), jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        )

    def step(key, t, state, data, batch):
        del batch
        k_group, k_draw, k_step = jax.random.split(key, 3)
        snapshots = jax.lax.cond(
            t % every == 0, lambda _: group_of(k_group, data), lambda kept: kept, state.snapshots
        )
        start, target = stretch.draw(k_draw, t)
        window = Window(
            *(jax.tree.map(lambda x: x[t % group, i], snapshots) for i in (start, target, -1))  # noqa: B023
        )
        inner, metrics = alg.step(k_step, t, state.inner, data, window)
        return Streamed(inner, snapshots), metrics

    def result(state, data):
        return alg.result(state.inner, data)

    if alg.flush is not None:
        raise ValueError("an algorithm with work of its own on the host cannot be streamed to")
    return Algorithm(init, step, result)


# --- stored -------------------------------------------------------------------------------------


def _digest(tree: PyTree) -> str:
    total = hashlib.blake2b(digest_size=16)
    for leaf in jax.tree.leaves(tree):
        key = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        array = np.asarray(jax.random.key_data(leaf) if key else leaf)
        total.update(f"{array.dtype}{array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


@dataclass(frozen=True)
class Store:
    """Experts in a folder, see `store`.

    Attributes:
      folder: one file ``expert-<number>.npy`` for each, a row of numbers for each snapshot.
      at: step numbers of the snapshots.
      count: number of experts.
      precision: how numbers are stored.
      like: shapes of the parameters.
    """

    folder: Path
    at: tuple[int, ...]
    count: int
    precision: Precision
    like: Any

    def read(self, number: int, position: int) -> PyTree:
        """A snapshot, at a position in ``at``, in float32."""
        rows = np.load(self._file(number), mmap_mode="r", allow_pickle=False)
        flat = np.array(rows[position])
        if self.precision == "bfloat16":
            flat = flat.view(jnp.bfloat16)
        flat = flat.astype(np.float32)
        leaves, structure = jax.tree.flatten(self.like)
        ends = np.cumsum([math.prod(leaf.shape) for leaf in leaves])
        parts = np.split(flat, ends[:-1])
        return structure.unflatten(p.reshape(x.shape) for p, x in zip(parts, leaves, strict=True))

    def write(self, number: int, snapshots: PyTree) -> None:
        """Put an expert into its file, whole or not at all."""
        rows = [np.asarray(x, np.float32).reshape(len(self.at), -1) for x in jax.tree.leaves(snapshots)]
        dtype = jnp.bfloat16 if self.precision == "bfloat16" else self.precision
        flat = np.concatenate(rows, axis=1).astype(dtype)
        if self.precision == "float16" and not np.isfinite(flat).all():
            raise ValueError("the parameters of an expert exceed float16: store them as bfloat16 or float32")
        with atomic_write(self._file(number)) as file:
            np.save(file, flat.view(np.uint16) if self.precision == "bfloat16" else flat, allow_pickle=False)

    def windows(self, stretch: Stretch, key: Array) -> HostStream:
        """A stream of windows for `jgd.core.Loop`: all experts once in random order, then anew.

        Raises:
          ValueError: where the experts were stored at other steps than the stretch needs.
        """
        missing = sorted(set(stretch.at) - set(self.at))
        if missing:
            raise ValueError(f"{self.folder} holds no snapshots at steps {missing}: store them with at=...")
        seed = np.asarray(jax.random.key_data(key)).ravel().tolist()
        draw = jax.jit(stretch.draw)
        steps, end = np.asarray(stretch.at), len(self.at) - 1 if stretch.end is None else stretch.end

        def batch_at(t):
            order = np.random.default_rng([*seed, t // self.count]).permutation(self.count)
            number = int(order[t % self.count])
            start, target = steps[np.asarray(draw(jax.random.fold_in(key, t), t))]
            last = self.at[end] if stretch.end is None else end
            return Window(*(self.read(number, self.at.index(int(s))) for s in (start, target, last)))

        return HostStream(batch_at)

    def _file(self, number: int) -> Path:
        return self.folder / f"expert-{number:05d}.npy"


def store(
    folder: str | os.PathLike,
    key: Array,
    data: Any,
    alg: Algorithm,
    at: Sequence[int],
    *,
    count: int,
    group: int = 10,
    at_once: int | None = None,
    precision: Precision = "float32",
    note: str = "",
    select: Callable[[Any], PyTree] = _own_params,
    batches: Callable[[Any, Array], PyTree] | None = None,
) -> Store:
    """Train experts into a folder, those that are not there yet.

    A run that was interrupted goes on with the first group that is not complete; more experts can be asked
    for later. Expert ``i`` draws from ``fold_in(key, i)``, whatever its group.

    Args:
      folder: where; made if it is not there.
      key: random key.
      data: data of the experts.
      alg: training of one expert.
      at: step numbers of the snapshots, see `trajectory`. A folder that holds more is as good.
      count: number of experts.
      group: how many are trained before they are written.
      at_once: experts of a group that are trained together, see `several`.
      precision: how numbers are stored; ``"bfloat16"`` takes half the space.
      note: the settings of the experts in words, which must be the same when the folder is used again.
      select: see `trajectory`.
      batches: see `trajectory`.

    Raises:
      ValueError: where the folder holds other experts.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}, got {precision!r}")
    if count < 1 or group < 1:
        raise ValueError(f"count and group must be at least 1, got {count} and {group}")
    path, at = Path(folder), tuple(int(s) for s in at)
    settings = {"key": _digest(key), "data": _digest(data), "precision": precision, "note": note}
    header = path / "experts.json"
    if header.exists():
        record = json.loads(header.read_text())
        other = [name for name, value in settings.items() if record.get(name) != value]
        if not set(at) <= set(record["at"]):
            other.append("at")
        if other:
            raise ValueError(f"{path} holds other experts (other {', '.join(other)}): choose another folder")
        at = tuple(record["at"])
    else:
        with atomic_write(header, "w") as file:
            json.dump({**settings, "at": at}, file, indent=1)
    way = trajectory(alg, at, select=select, batches=batches)
    like = jax.eval_shape(way, key, data)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), like)
    found = Store(path, at, count, precision, like)
    missing = [i for i in range(count) if not found._file(i).exists()]
    train_group = jax.jit(several(way, at_once))
    for first in range(0, len(missing), group):
        numbers = missing[first : first + group]
        padded = numbers + numbers[-1:] * (min(group, count) - len(numbers))  # compiled once
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.asarray(padded))
        snapshots = jax.device_get(train_group(keys, data))
        for slot, number in enumerate(numbers):
            found.write(number, jax.tree.map(lambda x, slot=slot: x[slot], snapshots))
    return found


# --- experts on graphs --------------------------------------------------------------------------


def uniform(fan_in: int) -> Callable[..., Array]:
    """An initialiser: uniform within ``1 / sqrt(fan_in)``.

    The published graph condensation codes draw the weights of a linear map and its biases by it.

    Args:
      fan_in: number of inputs of the linear map.
    """
    bound = fan_in**-0.5

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def _cross_entropy(ctx: Context) -> Array:
    batch = ctx.batch
    return mean(cross_entropy(ctx.outputs["student"].logits, batch.targets), batch.weights)


def expert(model: Model, tx: optax.GradientTransformation) -> Algorithm:
    """Full-batch training with cross-entropy on `Examples`."""
    return train(model, objective(_cross_entropy), tx)


class Lessons(NamedTuple):
    """Data of a curriculum.

    Attributes:
      examples: all examples; what weighs zero is never trained on.
      rank: of each example, 0 for the easiest.
    """

    examples: Examples
    rank: Int[Array, " N"]


def curriculum(
    model: Model, tx: optax.GradientTransformation, fraction: Callable[[Array], Array]
) -> Algorithm:
    """Training on the easiest share ``fraction(t)`` of the examples of `Lessons` in step ``t``."""

    def prepare(key, t, data, batch):
        del key, batch
        examples = data.examples
        weights = (examples.weights != 0).astype(jnp.float32)
        # The small number is for shares that are whole but for rounding.
        due = jnp.maximum(jnp.floor(fraction(t) * jnp.sum(weights) + 1e-3), 1)
        examples = examples._replace(weights=examples.weights * (data.rank < due))
        return examples, {"student": examples.inputs}

    return train(model, objective(_cross_entropy), tx, prepare=prepare)


def pace(kind: Pace, first: float, length: int) -> Callable[[Array], Array]:
    """The share of examples in step ``t``, rising from ``first`` to one in ``length`` steps.

    With λ = first: ``"linear"`` λ + (1-λ) t/T, ``"root"`` √(λ² + (1-λ²) t/T), ``"geom"`` 2^(log₂λ (1 - t/T)).
    """
    if kind not in get_args(Pace):
        raise ValueError(f"pace must be one of {', '.join(get_args(Pace))}, got {kind!r}")
    if not 0 < first <= 1:
        raise ValueError(f"the first share must be in (0, 1], got {first}")
    if length < 1:
        raise ValueError(f"the length must be at least 1, got {length}")

    def fraction(t):
        done = jnp.minimum(t / length, 1.0)
        if kind == "linear":
            return first + (1 - first) * done
        if kind == "root":
            return jnp.sqrt(first**2 + (1 - first**2) * done)
        return 2 ** (math.log2(first) * (1 - done))

    return fraction


def difficulty(
    adjacency: sp.csr_array, labels: Int[np.ndarray, " N"], known: Bool[np.ndarray, " N"]
) -> Float[np.ndarray, " N"]:
    """How mixed a node's surroundings are: the entropy of the labels of its neighbours and itself, in nats.

    Args:
      adjacency: edges are its nonzeros.
      labels: of all nodes.
      known: nodes whose labels may be looked at; a node that sees none has entropy zero.
    """
    edges: Any = adjacency != 0
    edges = edges.astype(np.float64) + sp.eye_array(len(labels))
    edges.data[:] = 1  # a node counts itself once, whether or not it has a loop
    seen = np.zeros((len(labels), int(labels.max()) + 1))
    index = np.flatnonzero(known & (labels >= 0))
    seen[index, labels[index]] = 1
    counts = edges @ seen
    total = counts.sum(axis=1, keepdims=True)
    p = counts / np.where(total > 0, total, 1)
    return -np.sum(p * np.log(np.where(p > 0, p, 1)), axis=1)


def ranks(
    values: Float[np.ndarray, " N"], mask: Bool[np.ndarray, " N"], seed: int = 0
) -> Int[np.ndarray, " N"]:
    """Rank of each node in ``mask`` by its value, 0 for the lowest; others come after all of them.

    Equal values are put in random order, so that no class is favoured by its node numbers.
    """
    shuffled = np.random.default_rng(seed).permutation(np.flatnonzero(mask))
    order = shuffled[np.argsort(values[shuffled], kind="stable")]
    rank = np.full(len(values), len(values), np.int32)
    rank[order] = np.arange(len(order))
    return rank
