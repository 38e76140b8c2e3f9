"""The loop: the runner of a recipe's stages, which runs an `Algorithm` in chunks.

A recipe is host Python, ``recipe(key, task, loop=in_memory) -> product``, that calls
``loop(name, algorithm, key, data, num_steps)`` for its jitted loops and ``loop.stage(name, fn, *args)``
for other work whose result is worth keeping. Without a loop it runs in memory; `jgd.run` passes the driver of
`jgd.core.driver`, in which every stage has its own scope in a folder.

A stage starts from ``init(fold_in(key, 0), ...)``, the key of step ``t`` is ``fold_in(fold_in(key, 1), t)``
and a stream of batches is a function of ``t``, so neither chunks nor restarts change a result (to the bit
on CPU).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from jgd.core.algorithm import Algorithm

__all__ = [
    "Diverged",
    "HostStream",
    "InMemory",
    "Loop",
    "Recipe",
    "in_memory",
]


class Diverged(FloatingPointError):
    """Error of a loss that is finite for no member at `step`; the last checkpoint, if any, is earlier."""

    def __init__(self, message: str, step: int):
        super().__init__(message)
        self.step = step


@runtime_checkable
class Loop(Protocol):
    """Runner of the stages of a recipe."""

    def __call__(
        self,
        name: str,
        algorithm: Algorithm,
        key: Array,
        data: PyTree,
        num_steps: int,
        batches: Callable[[Any, Array], PyTree] | HostStream | None = None,
    ) -> Any:
        """Run ``num_steps`` steps and return the product."""
        ...

    def stage(self, name: str, fn: Callable[..., Any], *args: Any) -> Any:
        """Return ``fn(*args)``, an array or nested dicts of arrays, which a loop with a folder keeps."""
        ...


@runtime_checkable
class Recipe(Protocol):
    """Method of a paper: any number of stages, on the host."""

    def __call__(self, key: Array, task: Any, loop: Loop = ...) -> Any:
        """Run all stages and return the product."""
        ...


@dataclass(frozen=True)
class HostStream:
    """Batches that come from the host: ``batch_at(t)`` returns NumPy arrays of static shapes.

    It must be a function of ``t`` alone, and may be called for the same batch again.
    """

    batch_at: Callable[[int], PyTree]


# --- one chunk ----------------------------------------------------------------------------------


@partial(jax.jit, static_argnames=("step", "batches", "size"), donate_argnames="state")
def _advance(state, key, start, count, data, xs, *, step, batches, size):
    """Run up to `count` steps from `start`; metrics come back in buffers of `size`. Compiles once."""

    def one(t, i, state):
        if xs is not None:
            batch = jax.tree.map(lambda x: x[i], xs)
        else:
            batch = None if batches is None else batches(data, t)
        return step(jax.random.fold_in(key, t), t, state, data, batch)

    _, shapes = jax.eval_shape(one, start, 0, state)
    buffers = jax.tree.map(lambda m: jnp.zeros((size, *m.shape), m.dtype), shapes)

    def running(carry):
        i, _, _, done = carry
        return (i < count) & ~done

    def body(carry):
        i, state, buffers, _ = carry
        state, metrics = one(start + i, i, state)
        buffers = jax.tree.map(lambda b, m: b.at[i].set(m), buffers, metrics)
        return i + 1, state, buffers, jnp.all(metrics.get("done", jnp.asarray(False)))

    begin = (jnp.zeros((), jnp.int32), state, buffers, jnp.asarray(False))
    ran, state, buffers, done = jax.lax.while_loop(running, body, begin)
    return state, buffers, ran, done


@partial(jax.jit, static_argnames=("init", "batches"))
def _initial(key, data, batch, *, init, batches):
    """Compute the first state.

    Weak types would become strong in the first step, and the second step would be compiled again.
    """
    batch = batch if batches is None else batches(data, jnp.zeros((), jnp.int32))
    state = init(jax.random.fold_in(key, 0), data, batch)
    return jax.tree.map(lambda x: x if is_key(x) else jnp.asarray(x, jnp.result_type(x)), state)


def beginning(algorithm: Algorithm, key, data, batches) -> Callable[[], PyTree]:
    """Return a function without arguments that returns the first state."""
    if isinstance(batches, HostStream):
        return partial(_initial, key, data, batches.batch_at(0), init=algorithm.init, batches=None)
    return partial(_initial, key, data, None, init=algorithm.init, batches=batches)


@partial(jax.jit, static_argnames=("result",))
def product_of(state, data, *, result):
    return result(state, data)


def advance_to(
    algorithm: Algorithm, key, data, num_steps: int, batches, *, state=None, start: int = 0, chunk_size: int
) -> Iterator[tuple[PyTree, int, dict[str, np.ndarray], bool]]:
    """Yield (state, steps done, metrics of the chunk, finished) after every chunk."""
    stream = batches.batch_at if isinstance(batches, HostStream) else None
    in_graph = None if stream is not None else batches
    chunk_size = max(1, min(chunk_size, num_steps))
    keys = jax.random.fold_in(key, 1)
    state = beginning(algorithm, key, data, batches)() if state is None else state
    flush = algorithm.flush
    if flush is not None and start == 0 and flush.offset == 0:
        flush.run(state, 0)
    t, finished = start, start >= num_steps
    while not finished:
        count = min(chunk_size, num_steps - t)
        if flush is not None:  # the next step count at which the host has work to do
            due = flush.offset + max(0, (t - flush.offset) // flush.every + 1) * flush.every
            count = min(count, due - t)
        xs = None
        if stream is not None:
            rows = [stream(t + i) for i in range(count)]
            rows += rows[-1:] * (chunk_size - count)
            xs = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
        state, buffers, ran, done = _advance(
            state,
            keys,
            np.int32(t),
            np.int32(count),
            data,
            xs,
            step=algorithm.step,
            batches=in_graph,
            size=chunk_size,
        )
        ran = int(ran)
        t += ran
        metrics = {name: np.asarray(values)[:ran] for name, values in buffers.items()}
        finished = t >= num_steps or bool(done)
        _check_finite(metrics, t - ran)
        if flush is not None and t >= flush.offset and (t - flush.offset) % flush.every == 0:
            flush.run(state, t)
        yield state, t, metrics, finished


def _check_finite(metrics: dict[str, np.ndarray], first: int) -> None:
    if "loss" not in metrics:
        return
    loss = metrics["loss"]
    bad = np.flatnonzero(~np.isfinite(loss).reshape(len(loss), -1).any(axis=1))
    if bad.size:
        step = first + int(bad[0])
        raise Diverged(f"the loss is not finite at step {step}", step)


@dataclass
class InMemory:
    """Default loop: no files and no output.

    Attributes:
      history: Dict that receives the metrics of every stage, ``{stage: {metric: [steps, ...]}}``; None keeps
        none.
    """

    history: dict[str, dict[str, np.ndarray]] | None = None

    def __call__(self, name, algorithm, key, data, num_steps, batches=None):
        """Run ``num_steps`` steps and return the product."""
        check_steps(name, num_steps)
        data = jax.device_put(data)  # once, instead of in every chunk
        state, rows = None, []
        try:
            for state, _, metrics, _ in advance_to(  # noqa: B007
                algorithm, key, data, num_steps, batches, chunk_size=usual_chunk_size(num_steps, batches)
            ):
                if self.history is not None:
                    rows.append(metrics)
        except Diverged as error:
            raise Diverged(f"stage {name!r}: {error}", error.step) from None
        if self.history is not None:
            self.history[name] = {metric: np.concatenate([r[metric] for r in rows]) for metric in rows[0]}
        return product_of(state, data, result=algorithm.result)

    def stage(self, name, fn, *args):
        """Return ``fn(*args)``."""
        del name
        return fn(*args)


in_memory: Loop = InMemory()
"""Default loop: everything in memory, nothing printed."""


def check_steps(name: str, num_steps: int) -> None:
    if num_steps < 1:
        raise ValueError(f"stage {name!r}: num_steps must be at least 1, got {num_steps}")


def usual_chunk_size(num_steps: int, batches: Any) -> int:
    """Return the steps of one chunk: about fifty chunks in all, and short ones if batches are stacked."""
    return min(max(1, num_steps // 50), 32 if isinstance(batches, HostStream) else 1000)


def is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
