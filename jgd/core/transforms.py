"""Transforms of algorithms: selection, averaging, ensembles, sweeps, recording."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, ArrayLike, PyTree

from jgd.core.algorithm import Algorithm, Flush

__all__ = ["Best", "Recording", "ema", "ensemble", "inner_flush", "keep_best", "record", "sweep"]


class Best(NamedTuple):
    """State of `keep_best`."""

    inner: PyTree
    product: PyTree
    score: Array
    waited: Array


def _copied(tree: PyTree) -> PyTree:
    """Copy all leaves, because a state must not hold the same buffer twice."""
    return jax.tree.map(jnp.copy, tree)


def keep_best(
    alg: Algorithm,
    score: Callable[[PyTree, Any], ArrayLike],
    *,
    every: int = 1,
    patience: int | None = None,
    ties: Literal["first", "last"] = "first",
) -> Algorithm:
    """Return the product with the best score, e.g. the accuracy on validation nodes.

    Args:
      alg: Algorithm whose ``result`` is cheap and jittable (it is evaluated inside the loop).
      score: Function ``(product, data) -> scalar``; higher is better, and NaN never wins.
      every: Steps between evaluations. The product after the last step is evaluated only if its number is a
        multiple of it.
      patience: Evaluations without improvement before the state is frozen and the metric ``"done"`` turns
        true; None disables early stopping.
      ties: Winner among equal scores, the first or the last.

    Returns:
      An `Algorithm` with the same product type; metrics gain ``score`` (of the last evaluation) and ``best``.
    """

    def init(key, data, batch):
        inner = alg.init(key, data, batch)
        product = _copied(alg.result(inner, data))
        return Best(inner, product, jnp.full((), -jnp.inf), jnp.zeros((), jnp.int32))

    def step(key, t, state, data, batch):
        frozen = jnp.asarray(False) if patience is None else state.waited >= patience
        inner, metrics = alg.step(key, t, state.inner, data, batch)
        if patience is not None:
            inner = jax.tree.map(lambda old, new: jnp.where(frozen, old, new), state.inner, inner)

        def look(best, best_score, waited):
            product = alg.result(inner, data)
            value = jnp.asarray(score(product, data), best_score.dtype)
            better = value >= best_score if ties == "last" else value > best_score
            better &= ~frozen
            best = jax.tree.map(lambda new, old: jnp.where(better, new, old), product, best)
            waited = jnp.where(better, 0, waited + 1)
            return best, jnp.where(better, value, best_score), waited, value

        def skip(best, best_score, waited):
            return best, best_score, waited, jnp.full((), jnp.nan, best_score.dtype)

        operands = (state.product, state.score, state.waited)
        due = (t + 1) % every == 0
        best, top, waited, value = look(*operands) if every == 1 else jax.lax.cond(due, look, skip, *operands)
        metrics = {**metrics, "score": value, "best": top}
        if patience is not None:
            metrics["done"] = waited >= patience
        return Best(inner, best, top, waited), metrics

    def result(state, data):
        del data
        return state.product

    return Algorithm(init, step, result, inner_flush(alg.flush))


def inner_flush(flush: Flush | None) -> Flush | None:
    """Return the flush of a wrapped algorithm, for a wrapper whose state has it as `inner`."""
    return None if flush is None else flush._replace(run=lambda state, t: flush.run(state.inner, t))


class Averaged(NamedTuple):
    """State of `ema`."""

    inner: PyTree
    average: PyTree


def ema(
    alg: Algorithm,
    decay: float | Callable[[Array], ArrayLike],
    get: Callable[[PyTree], PyTree] = lambda state: state.params,
    put: Callable[[PyTree, PyTree], PyTree] = lambda state, params: state._replace(params=params),
) -> Algorithm:
    """Return the product of an exponential moving average of part of the state.

    Args:
      alg: Any algorithm.
      decay: Weight of the past in each step, a number or a schedule of the step.
      get: Function that returns the part of the state to average, the parameters by default.
      put: Function that returns the state with that part replaced.
    """

    def init(key, data, batch):
        inner = alg.init(key, data, batch)
        return Averaged(inner, _copied(get(inner)))

    def step(key, t, state, data, batch):
        inner, metrics = alg.step(key, t, state.inner, data, batch)
        keep = decay(t) if callable(decay) else decay
        average = jax.tree.map(
            lambda a, p: jnp.asarray(keep * a + (1 - keep) * p, a.dtype), state.average, get(inner)
        )
        return Averaged(inner, average), metrics

    def result(state, data):
        return alg.result(put(state.inner, state.average), data)

    return Algorithm(init, step, result, inner_flush(alg.flush))


def ensemble(
    alg: Algorithm,
    n: int,
    *,
    data_axis: Any = None,
    batch_axis: Any = None,
    at_once: int | None = None,
    mesh: Mesh | None = None,
) -> Algorithm:
    """Run ``n`` independent members in one program; state, metrics and product gain a leading axis.

    Members are vmapped, and spread over the first axis of ``mesh`` if it is given. Each member has its own
    key. A member equals a single run with its key up to rounding, not to the bit.

    Args:
      alg: Algorithm of one member.
      n: Number of members, a multiple of the mesh axis.
      data_axis: Axis of members in the data: None if all share them, 0 if each has its own (a leading axis of
        ``n``), or a pytree prefix of those, as `jax.vmap`'s ``in_axes``.
      batch_axis: Axis of members in batches, as ``data_axis``.
      at_once: Number of members that are vmapped; the others follow one group after another in every step.
        This needs less memory and is faster where one member's computation just fits the caches, as
        convolutions on CPU do. None vmaps all.
      mesh: Devices over which members are spread; None uses the default device.
    """
    if at_once is not None and at_once < 1:
        raise ValueError(f"at_once must be at least 1, got {at_once}")
    split = mesh is not None or at_once is not None
    if split and any(a not in (None, 0) for a in (data_axis, batch_axis)):
        raise ValueError("with at_once or over a mesh, data_axis and batch_axis must be None or 0 as a whole")
    if mesh is not None:
        axis, *_ = mesh.axis_names
        if n % mesh.shape[axis]:
            raise ValueError(f"{n} members cannot be spread evenly over {mesh.shape[axis]} devices")
        mesh = Mesh(mesh.devices, mesh.axis_names)  # with automatic axes

    def keys_of(key):
        return jax.random.split(key, n)

    group = None if at_once == 1 else at_once

    def each(fn, *axes):
        if at_once is None:
            return jax.vmap(fn, in_axes=axes)

        def in_turns(*args):
            def one(own):
                own = iter(own)
                return fn(*(a if axis is None else next(own) for a, axis in zip(args, axes, strict=True)))

            own = [a for a, axis in zip(args, axes, strict=True) if axis is not None]
            return jax.lax.map(one, own, batch_size=group)

        return in_turns

    def over_mesh(fn, *args, member: tuple):
        if mesh is None:
            return fn(*args)
        own = P(mesh.axis_names[0])
        specs = tuple(own if m else P() for m in member)
        # Members do not communicate, and a branch may mix constants with values that differ by member.
        return jax.shard_map(fn, mesh=mesh, in_specs=specs, out_specs=own, check_vma=False)(*args)

    own_data, own_batch = data_axis is not None, batch_axis is not None

    def init(key, data, batch):
        fn = each(alg.init, 0, data_axis, batch_axis)
        return over_mesh(fn, keys_of(key), data, batch, member=(True, own_data, own_batch))

    def step(key, t, state, data, batch):
        fn = each(alg.step, 0, None, 0, data_axis, batch_axis)
        member = (True, False, True, own_data, own_batch)
        return over_mesh(fn, keys_of(key), t, state, data, batch, member=member)

    def result(state, data):
        return jax.vmap(alg.result, in_axes=(0, data_axis))(state, data)

    return Algorithm(init, step, result, alg.flush)


class Swept(NamedTuple):
    """State of `sweep`."""

    inner: PyTree
    values: Mapping[str, Array]


def sweep(make: Callable[..., Algorithm], **values: ArrayLike) -> Algorithm:
    """Run one member for each setting of float hyperparameters, all from the same key.

    Args:
      make: Constructor ``make(lr=...) -> Algorithm``; it must accept tracers.
      **values: Array of settings for each argument, all of the same length.

    Example:
      ``sweep(lambda lr: train(model, loss, optax.adam(lr)), lr=jnp.logspace(-4, -1, 7))``
    """
    grid = {name: jnp.asarray(v) for name, v in values.items()}
    lengths = {v.shape[:1] for v in grid.values()}
    if len(lengths) != 1 or lengths == {()}:
        raise ValueError("sweep needs arrays of equal length, one for each argument to vary")

    def init(key, data, batch):
        inner = jax.vmap(lambda v: make(**v).init(key, data, batch))(grid)
        return Swept(inner, jax.tree.map(jnp.copy, grid))

    def step(key, t, state, data, batch):
        def one(v, inner):
            return make(**v).step(key, t, inner, data, batch)

        inner, metrics = jax.vmap(one)(state.values, state.inner)
        return Swept(inner, state.values), metrics

    def result(state, data):
        return jax.vmap(lambda v, inner: make(**v).result(inner, data))(state.values, state.inner)

    flush = make(**{name: v[0] for name, v in grid.items()}).flush
    return Algorithm(init, step, result, inner_flush(flush))


class Recording(NamedTuple):
    """State of `record`."""

    inner: PyTree
    snapshots: PyTree


def record(
    alg: Algorithm,
    every: int,
    capacity: int,
    select: Callable[[PyTree], PyTree] = lambda state: state.params,
    sink: Callable[[PyTree, int], None] | None = None,
) -> Algorithm:
    """Keep a trajectory: the result of ``select`` at step 0 and after every ``every`` steps.

    Args:
      alg: Any algorithm.
      every: Number of steps between snapshots.
      capacity: Number of snapshots held. Snapshot ``i`` belongs to step ``i * every``. Without a sink,
        further ones are dropped.
      select: Function of the state that returns what to record, the parameters by default.
      sink: Function ``(snapshots, first)``, called on the host each time the buffer is full, with
        ``capacity`` snapshots as NumPy arrays, of which the first has number ``first``; later snapshots then
        overwrite the buffer. It may be called again with the same numbers after a restart. A buffer that is
        partly filled at the end is in the product.

    Returns:
      An `Algorithm` whose product is ``(product, snapshots)``, the latter with a leading ``capacity`` axis.
    """

    def write(snapshots, state, number):
        slot = number % capacity if sink is not None else number
        return jax.tree.map(
            lambda buffer, leaf: buffer.at[slot].set(leaf, mode="drop"), snapshots, select(state)
        )

    def init(key, data, batch):
        inner = alg.init(key, data, batch)
        shapes = jax.eval_shape(select, inner)
        empty = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), shapes)
        return Recording(inner, write(empty, inner, 0))

    def step(key, t, state, data, batch):
        inner, metrics = alg.step(key, t, state.inner, data, batch)
        due = (t + 1) % every == 0
        snapshots = jax.lax.cond(
            due,
            lambda s: write(s, inner, (t + 1) // every),
            lambda s: s,
            state.snapshots,
        )
        return Recording(inner, snapshots), metrics

    def result(state, data):
        return alg.result(state.inner, data), state.snapshots

    if sink is None:
        return Algorithm(init, step, result, inner_flush(alg.flush))
    if alg.flush is not None:
        raise ValueError("only one sink at a time: the algorithm to record has a flush of its own")
    # The buffer is full after snapshot number capacity - 1, 2 * capacity - 1, ...
    full = Flush(
        lambda state, t: sink(jax.device_get(state.snapshots), t // every + 1 - capacity),
        every=every * capacity,
        offset=every * (capacity - 1),
    )
    return Algorithm(init, step, result, full)
