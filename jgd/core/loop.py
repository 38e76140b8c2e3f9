"""The loop driver: runs an `Algorithm` in chunks, and a recipe of several stages so that it can be resumed.

A recipe is host Python, ``recipe(key, task, loop=in_memory) -> product``, that calls
``loop(name, algorithm, key, data, num_steps)`` for its jitted loops and ``loop.stage(name, fn, *args)``
for plain work that is worth keeping. Called bare it runs in memory; `run` gives it a driver with a
folder, where every stage is a scope of its own.

A stage starts from ``init(fold_in(key, 0), ...)``, the key of step ``t`` is ``fold_in(fold_in(key, 1), t)``
and a stream of batches is a function of ``t``, so neither chunks nor restarts change a result (to the bit
on CPU).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Array, PyTree
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jgd.core.algorithm import Algorithm
from jgd.files import atomic_write

__all__ = [
    "Diverged",
    "Driver",
    "HostStream",
    "InMemory",
    "Loop",
    "Recipe",
    "atomic_write",
    "in_memory",
    "run",
]


class Diverged(FloatingPointError):
    """The loss of every member is NaN or infinite at `step`. The last checkpoint, if any, is from before."""

    def __init__(self, message: str, step: int):
        super().__init__(message)
        self.step = step


@runtime_checkable
class Loop(Protocol):
    """What a recipe is given to run its stages."""

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
        """Return ``fn(*args)``: an array, or nested dicts of arrays; kept where the loop has a folder."""
        ...


@runtime_checkable
class Recipe(Protocol):
    """What a paper is: any number of stages, on the host."""

    def __call__(self, key: Array, task: Any, loop: Loop = ...) -> Any:
        """Run all stages and return the product."""
        ...


@dataclass(frozen=True)
class HostStream:
    """Batches that come from the host: ``batch_at(t)`` returns NumPy arrays of static shapes.

    It must be a function of ``t`` alone, and may be asked for the same batch again.
    """

    batch_at: Callable[[int], PyTree]


# --- one chunk ----------------------------------------------------------------------------------


@partial(jax.jit, static_argnames=("step", "batches", "size"), donate_argnames="state")
def _advance(state, key, start, count, data, xs, *, step, batches, size):
    """Up to `count` steps from `start`; metrics come back in buffers of `size`. Compiles once."""

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
    """The first state. Weak types would become strong in the first step, and compile the second anew."""
    batch = batch if batches is None else batches(data, jnp.zeros((), jnp.int32))
    state = init(jax.random.fold_in(key, 0), data, batch)
    return jax.tree.map(lambda x: x if _is_key(x) else jnp.asarray(x, jnp.result_type(x)), state)


def _beginning(algorithm: Algorithm, key, data, batches) -> Callable[[], PyTree]:
    """A function of nothing that returns the first state."""
    if isinstance(batches, HostStream):
        return partial(_initial, key, data, batches.batch_at(0), init=algorithm.init, batches=None)
    return partial(_initial, key, data, None, init=algorithm.init, batches=batches)


@partial(jax.jit, static_argnames=("result",))
def _product(state, data, *, result):
    return result(state, data)


def _advance_to(
    algorithm: Algorithm, key, data, num_steps: int, batches, *, state=None, start: int = 0, chunk: int
) -> Iterator[tuple[PyTree, int, dict[str, np.ndarray], bool]]:
    """Yield (state, steps done, metrics of the chunk, finished) after every chunk."""
    stream = batches.batch_at if isinstance(batches, HostStream) else None
    in_graph = None if stream is not None else batches
    chunk = max(1, min(chunk, num_steps))
    keys = jax.random.fold_in(key, 1)
    state = _beginning(algorithm, key, data, batches)() if state is None else state
    flush = algorithm.flush
    if flush is not None and start == 0 and flush.offset == 0:
        flush.run(state, 0)
    t, finished = start, start >= num_steps
    while not finished:
        count = min(chunk, num_steps - t)
        if flush is not None:  # the next step count at which the host has work to do
            due = flush.offset + max(0, (t - flush.offset) // flush.every + 1) * flush.every
            count = min(count, due - t)
        xs = None
        if stream is not None:
            rows = [stream(t + i) for i in range(count)]
            rows += rows[-1:] * (chunk - count)
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
            size=chunk,
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
    """The loop of a recipe that is called bare: no files, nothing printed.

    Attributes:
      history: give a dict to find the metrics of every stage in it, ``{stage: {metric: [steps, ...]}}``.
    """

    history: dict[str, dict[str, np.ndarray]] | None = None

    def __call__(self, name, algorithm, key, data, num_steps, batches=None):
        """Run ``num_steps`` steps and return the product."""
        _check_steps(name, num_steps)
        data = jax.device_put(data)  # once, and not in every chunk
        state, rows = None, []
        try:
            for state, _, metrics, _ in _advance_to(  # noqa: B007
                algorithm, key, data, num_steps, batches, chunk=_chunk_size(num_steps, batches)
            ):
                if self.history is not None:
                    rows.append(metrics)
        except Diverged as error:
            raise Diverged(f"stage {name!r}: {error}", error.step) from None
        if self.history is not None:
            self.history[name] = {metric: np.concatenate([r[metric] for r in rows]) for metric in rows[0]}
        return _product(state, data, result=algorithm.result)

    def stage(self, name, fn, *args):
        """Return ``fn(*args)``."""
        del name
        return fn(*args)


in_memory: Loop = InMemory()
"""The default loop: everything in memory, nothing printed."""


def _check_steps(name: str, num_steps: int) -> None:
    if num_steps < 1:
        raise ValueError(f"stage {name!r}: num_steps must be at least 1, got {num_steps}")


def _chunk_size(num_steps: int, batches: Any) -> int:
    """Steps between looks from the host: about fifty, and few batches at once where they are stacked."""
    return min(max(1, num_steps // 50), 32 if isinstance(batches, HostStream) else 1000)


# --- the driver with a folder -------------------------------------------------------------------


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _digest(tree: PyTree) -> str:
    """A checksum of the arrays of a pytree."""
    total = hashlib.blake2b(digest_size=16)
    for leaf in jax.tree.leaves(tree):
        array = np.asarray(_plain(leaf))
        if array.dtype == object:
            kind = type(leaf).__name__
            raise TypeError(f"a run is recognised by its arrays, numbers and text, not by a {kind}")
        total.update(f"{array.dtype}{array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def _shapes(tree: PyTree) -> str:
    """A checksum of the shapes and types of a pytree."""
    shapes = [f"{leaf.dtype}{leaf.shape}" for leaf in jax.tree.leaves(tree)]
    return hashlib.blake2b("\n".join(shapes).encode(), digest_size=16).hexdigest()


_NOTHING = {"nothing": np.zeros((), np.int32)}  # for Orbax refuses a state without arrays, too


def _to_arrays(tree: PyTree) -> dict[str, np.ndarray]:
    """Leaves by number: the structure comes from the code. Orbax refuses arrays without elements."""
    leaves = enumerate(jax.tree.leaves(tree))
    return _NOTHING | {str(i): np.asarray(_plain(x)) for i, x in leaves if x.size}


def _from_arrays(arrays: dict[str, np.ndarray], like: PyTree) -> PyTree:
    leaves, structure = jax.tree.flatten(like)
    impls: dict[int, Any] = {}

    def look(leaves):  # only a key knows what kind of key it is, not its shape and type
        impls.update({i: jax.random.key_impl(x) for i, x in enumerate(leaves) if _is_key(x)})
        return [_plain(x) for x in leaves]

    def one(i, raw):
        array = jnp.asarray(arrays[str(i)]) if str(i) in arrays else jnp.zeros(raw.shape, raw.dtype)
        return jax.random.wrap_key_data(array, impl=impls[i]) if i in impls else array

    return structure.unflatten(one(i, raw) for i, raw in enumerate(jax.eval_shape(look, leaves)))


@dataclass
class Driver:
    """A loop with a folder: progress, a log, checkpoints, and stages that are skipped once finished.

    Attributes:
      out: folder of the run; checkpoints go to ``out/checkpoints/<stage>``, metrics to ``out/log.jsonl``.
      progress: show a progress bar; None for "where standard error is a terminal".
      checkpoint_seconds: time between checkpoints of one stage.
      checkpoint_every: steps between checkpoints, in addition.
      chunk: steps between looks; None for about fifty looks in a stage.
    """

    out: Path
    progress: bool | None = None
    checkpoint_seconds: float = 30.0
    checkpoint_every: int | None = None
    chunk: int | None = None
    used: set[str] = field(default_factory=set)

    def _scope(self, name: str) -> Path:
        if Path(name).name != name or name in ("", ".."):
            raise ValueError(f"a stage cannot be named {name!r}: its name is the name of a folder")
        if name in self.used:
            raise ValueError(f"two stages are named {name!r}: a name is a checkpoint scope, used once")
        self.used.add(name)
        scope = (Path(self.out) / "checkpoints" / name).absolute()
        scope.mkdir(parents=True, exist_ok=True)
        return scope

    def _claim(self, scope: Path, settings: dict[str, Any]) -> dict[str, Any]:
        """The record of a scope, which must belong to the same computation."""
        path = scope / "stage.json"
        if path.exists():
            record = json.loads(path.read_text())
            before = record["settings"]
            if before != settings:
                other = [name for name in settings if before.get(name) != settings[name]]
                raise ValueError(
                    f"{scope} holds stage {scope.name!r} of another run (other {', '.join(other)}): "
                    "choose another folder, or start anew with resume=False"
                )
            return record
        record = {"settings": settings, "finished": None}
        self._write(path, record)
        return record

    @staticmethod
    def _write(path: Path, record: dict[str, Any]) -> None:
        with atomic_write(path, "w") as file:
            json.dump(record, file, indent=1)

    def stage(self, name: str, fn: Callable[..., Any], *args: Any) -> Any:
        """Return ``fn(*args)`` as NumPy arrays, from the folder if it was computed before.

        Raises:
          TypeError: where the arguments or the product are not arrays, numbers or text.
          ValueError: where the folder holds the same stage of another run.
        """
        scope = self._scope(name)
        self._claim(scope, {"arguments": _digest(args)})
        path = scope / "product.npz"
        if path.exists():
            with np.load(path, allow_pickle=False) as file:
                return _nest({key: file[key] for key in file.files})
        flat = _flatten(fn(*args))
        with atomic_write(path) as file:
            np.savez(file, allow_pickle=False, **cast(Any, flat))
        return _nest(flat)

    def __call__(
        self,
        name: str,
        algorithm: Algorithm,
        key: Array,
        data: PyTree,
        num_steps: int,
        batches: Callable[[Any, Array], PyTree] | HostStream | None = None,
    ) -> Any:
        """Run a loop from its last checkpoint, or return the product it left behind.

        Raises:
          Diverged: where the loss stopped being finite.
          ValueError: where the folder holds the same stage of another run.
        """
        _check_steps(name, num_steps)
        scope = self._scope(name)
        data = jax.device_put(data)  # once, and not in every chunk
        like = jax.eval_shape(_beginning(algorithm, key, data, batches))
        settings = {
            "num_steps": num_steps,
            "key": _digest(key),
            "data": _digest(data),
            "shapes of the state": _shapes(like),
        }
        record = self._claim(scope, settings)
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        with ocp.CheckpointManager(scope, options=options) as manager:
            start = manager.latest_step() or 0
            state = self._restore(manager, start, like) if start else None
            if record["finished"] is None or start < record["finished"]:
                self._truncate_log(name, start)
                with self._bar(name, num_steps, start) as update:
                    state = self._steps(
                        manager, update, record, algorithm, key, data, num_steps, batches, state, start
                    )
        return _product(state, data, result=algorithm.result)

    def _steps(self, manager, update, record, algorithm, key, data, num_steps, batches, state, start):
        scope = Path(manager.directory)
        name = scope.name
        chunk = self.chunk or _chunk_size(num_steps, batches)
        if self.checkpoint_every:
            chunk = min(chunk, self.checkpoint_every)
        saved = time.monotonic()
        try:
            for state, t, metrics, finished in _advance_to(  # noqa: B020
                algorithm, key, data, num_steps, batches, state=state, start=start, chunk=chunk
            ):
                first = t - len(next(iter(metrics.values()))) if metrics else t
                self._log(name, first, num_steps, metrics)
                update(t, metrics)
                due = time.monotonic() - saved > self.checkpoint_seconds
                if self.checkpoint_every:
                    due |= t // self.checkpoint_every > first // self.checkpoint_every
                if finished:  # said first, and true once the checkpoint is there
                    self._write(scope / "stage.json", record | {"finished": t})
                if finished or due:
                    manager.save(t, args=ocp.args.StandardSave(_to_arrays(state)))
                    saved = time.monotonic()
        except Diverged as error:
            if error.step in manager.all_steps():  # the state whose loss is not finite
                manager.delete(error.step)
            last = manager.latest_step()
            kept = f"the state after {last} steps is kept in {scope}" if last else "no state is kept yet"
            raise Diverged(f"stage {name!r}: {error}; {kept}", error.step) from None
        return state

    @staticmethod
    def _restore(manager, step, like):
        leaves = jax.eval_shape(lambda tree: [_plain(x) for x in jax.tree.leaves(tree)], like)
        wanted = _NOTHING | {str(i): np.zeros(x.shape, x.dtype) for i, x in enumerate(leaves) if x.size}
        return _from_arrays(manager.restore(step, args=ocp.args.StandardRestore(wanted)), like)

    # --- log and progress ---

    @property
    def _log_path(self) -> Path:
        return Path(self.out) / "log.jsonl"

    def _truncate_log(self, stage: str, step: int) -> None:
        """Drop what an interrupted run logged after its last checkpoint."""
        if not self._log_path.exists():
            return
        rows = []
        for line in self._log_path.read_text().splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:  # the line that was being written
                continue
            if row["stage"] != stage or row["step"] < step:
                rows.append(line)
        with atomic_write(self._log_path, "w") as file:
            file.writelines(f"{row}\n" for row in rows)

    def _log(self, stage: str, first: int, num_steps: int, metrics: dict[str, np.ndarray]) -> None:
        """Append about two hundred rows for a stage, whatever its length."""
        every = max(1, num_steps // 200)
        length = len(next(iter(metrics.values()))) if metrics else 0
        with open(self._log_path, "a", encoding="utf-8") as file:
            for i in range(length):
                if (first + i) % every == 0 or first + i == num_steps - 1:
                    values = {name: _jsonable(rows[i]) for name, rows in metrics.items()}
                    file.write(json.dumps({"stage": stage, "step": first + i, **values}) + "\n")

    @contextmanager
    def _bar(self, name: str, num_steps: int, start: int):
        shown = sys.stderr.isatty() if self.progress is None else self.progress
        if not shown:
            yield lambda t, metrics: None
            return
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=console, transient=console.is_terminal) as bar:
            task = bar.add_task(name, total=num_steps, completed=start, note="")

            def update(t, metrics):
                loss = metrics.get("loss")
                finite = None if loss is None else loss[-1][np.isfinite(loss[-1])]
                note = "" if finite is None else f"loss {np.mean(finite, dtype=float):.4g}"
                bar.update(task, completed=t, note=note)

            yield update


def _jsonable(value: Any) -> Any:
    """A number, or the list of a small array, with None for what JSON cannot say."""
    plain = (value if np.size(value) <= 64 else np.mean(value)).tolist()

    def clean(x):
        if isinstance(x, list):
            return [clean(v) for v in x]
        return None if isinstance(x, float) and not np.isfinite(x) else x

    return clean(plain)


def _flatten(product: Any, path: str = "product") -> dict[str, np.ndarray]:
    if not isinstance(product, dict):
        array = np.asarray(product)
        if array.dtype.kind not in "biufcU":
            kind = f"{type(product).__name__} of {array.dtype}"
            raise TypeError(f"a stage returns arrays of numbers or text, or nested dicts of them, not {kind}")
        return {path: array}
    flat = {}
    for name, value in product.items():
        if not isinstance(name, str) or "/" in name:
            raise TypeError(f"a stage names what it returns by strings without '/', not by {name!r}")
        flat |= _flatten(value, f"{path}/{name}")
    return flat


def _nest(flat: dict[str, np.ndarray]) -> Any:
    root: dict[str, Any] = {"product": {}}
    for path, value in flat.items():
        *parents, last = path.split("/")
        inner = root
        for name in parents:
            inner = inner.setdefault(name, {})
        inner[last] = value
    return root["product"]


def run(
    recipe: Recipe,
    key: Array,
    task: Any,
    *,
    out: str | os.PathLike | None = None,
    resume: bool = True,
    progress: bool | None = None,
    checkpoint_seconds: float = 30.0,
    checkpoint_every: int | None = None,
) -> Any:
    """Run a recipe with progress, a log and checkpoints in a folder.

    Run again with the same arguments after an interruption, it goes on where it was and returns the same
    product (to the bit on CPU).

    Args:
      recipe: what to run.
      key: its random key.
      task: its task.
      out: folder for ``log.jsonl`` and ``checkpoints/``; None to run in memory.
      resume: use what is in the folder; False removes the log and checkpoints of an earlier run first.
      progress: show a bar; None for "where standard error is a terminal".
      checkpoint_seconds: time between checkpoints.
      checkpoint_every: steps between checkpoints, in addition.

    Returns:
      The product of the recipe.
    """
    if out is None:
        return recipe(key, task, loop=in_memory)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    if not resume:
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        (folder / "log.jsonl").unlink(missing_ok=True)
    driver = Driver(folder, progress, checkpoint_seconds, checkpoint_every)
    return recipe(key, task, loop=driver)
