"""The loop driver: runs recipes in a folder, with progress, a log and checkpoints, and resumes them.

A folder of `run` holds ``run.json`` (the identity of the run), ``log.jsonl`` (training curves) and
``checkpoints/<stage>``. One process at a time holds it. After an interruption at any moment, the same call
continues and returns the same product (to the bit on CPU): files appear complete, folders appear and
disappear by a rename, checkpoints and products of stages record the computation to which they belong, and the
log is restored from them.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from jaxtyping import Array, PyTree
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import jgd
from jgd.core.algorithm import Algorithm
from jgd.core.checkpoints import Checkpoint, checksum, prune, restore, save, shapes
from jgd.core.fingerprint import difference, fingerprint
from jgd.core.loop import (
    Diverged,
    HostStream,
    Recipe,
    advance_to,
    beginning,
    check_steps,
    in_memory,
    product_of,
    usual_chunk_size,
)
from jgd.files import atomic_write, lock, named, read_record, remove, tidy, write_record

__all__ = ["Driver", "check_places", "run"]

_MARK, _CHECKPOINTS, _LOG = "run.json", "checkpoints", "log.jsonl"
_CODE = {"code", "constants", "defaults", "methods"}  # changed by other versions of Python and libraries


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=3)


@dataclass
class Driver:
    """Loop with a folder: progress, a log, checkpoints, and stages that are skipped once finished.

    It assumes that no other process uses the folder, which `run` ensures.

    Attributes:
      out: Folder of the run; checkpoints go to ``out/checkpoints/<stage>``, metrics to ``out/log.jsonl``.
      progress: Whether to show a progress bar; None shows one where standard error is a terminal.
      checkpoint_seconds: Seconds between checkpoints of one stage.
      checkpoint_every: Steps between additional checkpoints; None adds none.
      chunk_size: Number of steps of a compiled chunk; None divides a stage into about fifty.
      log: Function that receives a one-line message about what was damaged and how the run continues; it
        warns by default.
    """

    out: Path
    progress: bool | None = None
    checkpoint_seconds: float = 30.0
    checkpoint_every: int | None = None
    chunk_size: int | None = None
    log: Callable[[str], None] = _warn
    used: set[str] = field(default_factory=set)
    rows: dict[str, list[str]] = field(default_factory=dict)  # lines of the log, by stage

    def _scope(self, name: str) -> Path:
        if Path(name).name != name or name in ("", "..") or name.startswith("."):
            raise ValueError(f"a stage cannot be named {name!r}: its name is the name of a folder")
        if name in self.used:
            raise ValueError(f"two stages are named {name!r}: a name is a checkpoint scope, used once")
        self.used.add(name)
        scope = (Path(self.out) / _CHECKPOINTS / name).absolute()
        check_places(Path(self.out), name)
        scope.mkdir(parents=True, exist_ok=True)
        tidy(scope)
        return scope

    def _claim(self, scope: Path, settings: dict[str, Any]) -> dict[str, Any]:
        """Return the record of a scope, which must be of the same computation; empty a scope without one."""
        path = scope / "stage.json"
        record = read_record(path)
        if record is not None and "settings" in record and "finished" in record:
            before = record["settings"]
            if before != settings:
                other = [name for name in settings if before.get(name) != settings[name]]
                raise ValueError(
                    f"{scope} holds stage {scope.name!r} of another run (other {', '.join(other)}): "
                    "choose another folder, or start over with fresh=True or resume=False"
                )
            return record
        if any(scope.iterdir()):
            self.log(f"{scope} has no stage.json that can be read: the stage {scope.name!r} starts again")
            remove(scope)
            scope.mkdir()
        record = {"settings": settings, "finished": None}
        write_record(path, record)
        return record

    def stage(self, name: str, fn: Callable[..., Any], *args: Any) -> Any:
        """Return ``fn(*args)`` as NumPy arrays, from the folder if it was computed before.

        Raises:
          TypeError: If the arguments or the product are not arrays, numbers or text.
          ValueError: If the folder holds the same stage of another run.
        """
        scope = self._scope(name)
        settings = {"arguments": checksum(args)}
        self._claim(scope, settings)
        path = scope / "product.npz"
        if path.exists():
            kept = _read_product(path, settings)
            if kept is not None:
                return _nest(kept)
            self.log(f"{path} cannot be used (damaged, or of another run): the stage {name!r} starts again")
            remove(path)
        flat = _flatten(fn(*args))
        with atomic_write(path) as file:
            np.savez(file, allow_pickle=False, **cast(Any, flat | {_OWNER: _owner(settings, flat)}))
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
          Diverged: If the loss is no longer finite.
          ValueError: If the folder holds the same stage of another run.
          OSError: If a checkpoint cannot be written.
        """
        check_steps(name, num_steps)
        scope = self._scope(name)
        data = jax.device_put(data)  # once, instead of in every chunk
        like = jax.eval_shape(beginning(algorithm, key, data, batches))
        settings = {
            "num_steps": num_steps,
            "key": checksum(key),
            "data": checksum(data),
            "shapes of the state": shapes(like),
        }
        record = self._claim(scope, settings)
        last = num_steps if record["finished"] is None else record["finished"]
        found = restore(scope, settings, like, last, self.log)
        begin = Checkpoint(0, None, []) if found is None else found
        self._settle(name, begin.rows)
        state = begin.state
        if record["finished"] is None or begin.step < record["finished"]:
            with self._bar(name, num_steps, begin.step) as update:
                state = self._steps(
                    scope, update, record, algorithm, key, data, num_steps, batches, state, begin.step
                )
        return product_of(state, data, result=algorithm.result)

    def _steps(self, scope, update, record, algorithm, key, data, num_steps, batches, state, start):
        name = scope.name
        kept = [start] if start else []
        chunk_size = self.chunk_size or usual_chunk_size(num_steps, batches)
        if self.checkpoint_every:
            chunk_size = min(chunk_size, self.checkpoint_every)
        saved = time.monotonic()
        try:
            for state, t, metrics, finished in advance_to(  # noqa: B020
                algorithm, key, data, num_steps, batches, state=state, start=start, chunk_size=chunk_size
            ):
                first = t - len(next(iter(metrics.values()))) if metrics else t
                self._write_rows(name, first, num_steps, metrics)
                update(t, metrics)
                due = time.monotonic() - saved > self.checkpoint_seconds
                if self.checkpoint_every:
                    due |= t // self.checkpoint_every > first // self.checkpoint_every
                if finished:  # written first, and valid once the checkpoint exists
                    write_record(scope / "stage.json", record | {"finished": t})
                if finished or due:
                    save(scope, record["settings"], Checkpoint(t, state, self.rows.get(name, [])))
                    kept = [*kept, t][-2:]
                    prune(scope, kept)
                    saved = time.monotonic()
        except Diverged as error:
            if error.step in kept:  # its state has a loss that is not finite
                kept.remove(error.step)
                remove(scope / str(error.step))
            last = kept[-1] if kept else None
            left = f"the state after {last} steps is kept in {scope}" if last else "no state is kept yet"
            raise Diverged(f"stage {name!r}: {error}; {left}", error.step) from None
        return state

    # --- log and progress ---

    @property
    def _log_path(self) -> Path:
        return Path(self.out) / _LOG

    def _settle(self, stage: str, rows: list[str]) -> None:
        """Restore the rows of a stage in the log from its checkpoint, without incomplete lines."""
        self.rows[stage] = list(rows)
        try:
            text = self._log_path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            text = ""
        *whole, rest = text.split("\n")
        others = [line for line in [*whole, rest] if _stage_of(line) not in {None, *self.rows}]
        wanted = "".join(f"{row}\n" for row in [*chain(*self.rows.values()), *others])
        if any(_stage_of(line) is None for line in whole):  # the last line may be incomplete
            self.log(f"{self._log_path} is damaged: its rows are taken from the checkpoints")
        if text != wanted:
            with atomic_write(self._log_path, "w") as file:
                file.write(wanted)

    def _write_rows(self, stage: str, first: int, num_steps: int, metrics: dict[str, np.ndarray]) -> None:
        """Append rows of a stage to the log, about two hundred for a stage of any length."""
        every = max(1, num_steps // 200)
        length = len(next(iter(metrics.values()))) if metrics else 0
        rows = []
        for i in range(length):
            if (first + i) % every == 0 or first + i == num_steps - 1:
                values = {name: _jsonable(column[i]) for name, column in metrics.items()}
                rows.append(json.dumps({"stage": stage, "step": first + i, **values}))
        with named(self._log_path), open(self._log_path, "a", encoding="utf-8") as file:
            file.writelines(f"{row}\n" for row in rows)
        self.rows.setdefault(stage, []).extend(rows)

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


def check_places(out: Path, stage: str = "") -> None:
    """Check that no folder is in the place of a file of a run, and no file in the place of a folder.

    Args:
      out: Folder of the run.
      stage: Name of a stage, whose folder is checked too.

    Raises:
      ValueError: If there is one.
    """
    for path in (out / _CHECKPOINTS, out / _CHECKPOINTS / stage):
        if path.exists() and not path.is_dir():
            raise ValueError(f"{path} is not a folder: remove it, or choose another folder for the run")
    for path in (out / _LOG, out / _MARK):
        if path.exists() and not path.is_file():
            raise ValueError(f"{path} is not a file: remove it, or choose another folder for the run")


def _stage_of(line: str) -> str | None:
    """Return the stage of a line of the log; None for anything else."""
    try:
        row = json.loads(line)
        return row["stage"] if isinstance(row["stage"], str) and type(row["step"]) is int else None
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None


def _jsonable(value: Any) -> Any:
    """Return a number, or the list of a small array, with None for values that JSON cannot hold."""
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


_OWNER = "owner"  # member that identifies a product; its arrays are named product, product/a, …


def _owner(settings: dict[str, Any], flat: dict[str, np.ndarray]) -> np.ndarray:
    """Return the description by which a product is recognised."""
    return np.asarray(json.dumps([settings, sorted(flat), checksum(flat)]))


def _read_product(path: Path, settings: dict[str, Any]) -> dict[str, np.ndarray] | None:
    """Read the arrays of a stage's product; return None if the file is damaged or of another computation."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                return None
        with np.load(path, allow_pickle=False) as file:
            flat = {name: file[name] for name in file.files}
        owner = flat.pop(_OWNER)
        return flat if owner.shape == () and owner == _owner(settings, flat) else None
    except MemoryError:
        raise
    except Exception:  # damaged files raise many types of errors in zipfile and NumPy
        return None


# --- a run in a folder --------------------------------------------------------------------------


def run(
    recipe: Recipe,
    key: Array,
    task: Any,
    *,
    out: str | os.PathLike | None = None,
    resume: bool = True,
    fresh: bool = False,
    progress: bool | None = None,
    checkpoint_seconds: float = 30.0,
    checkpoint_every: int | None = None,
) -> Any:
    """Run a recipe with progress, a log and checkpoints in a folder.

    After an interruption, a call with the same arguments continues and returns the same product (to the bit
    on CPU). The folder records the settings of the recipe, the key and the content of the task; a different
    run is refused, and the message names the difference.

    Args:
      recipe: Recipe to run.
      key: Random key of the recipe.
      task: Task of the recipe.
      out: Folder of ``run.json``, ``log.jsonl`` and ``checkpoints/``; None runs in memory.
      resume: Whether to continue from the content of the folder; False is the same as ``fresh=True``.
      fresh: Whether to remove the log and checkpoints of an earlier run first.
      progress: Whether to show a progress bar; None shows one where standard error is a terminal.
      checkpoint_seconds: Seconds between checkpoints.
      checkpoint_every: Steps between additional checkpoints; None adds none.

    Returns:
      The product of the recipe.

    Raises:
      ValueError: If the folder holds another run or something else, or is in use.
      OSError: If it cannot be written.
    """
    if out is None:
        return recipe(key, task, loop=in_memory)
    parts = fingerprint({"recipe": recipe, "key": key, "task": task})
    with _opened(Path(out), parts, fresh=fresh or not resume) as folder:
        return recipe(key, task, loop=Driver(folder, progress, checkpoint_seconds, checkpoint_every))


@contextmanager
def _opened(folder: Path, parts: Mapping[str, Any], *, fresh: bool) -> Iterator[Path]:
    """Open a folder that belongs to a run, and to this process as long as the context lasts."""
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder):
        check_places(folder)
        for place in (folder, folder / _CHECKPOINTS):
            tidy(place)
        now = {"parts": dict(parts), "versions": _versions()}
        if fresh:  # run.json last, so that the content always belongs to the run that it names
            remove(folder / _CHECKPOINTS)
            remove(folder / _LOG)
            write_record(folder / _MARK, now)
        elif not _holds(folder, now):
            write_record(folder / _MARK, now)
        yield folder


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    own = {"jgd": jgd.__version__, "python": platform.python_version()}
    return own | {name: version(name) for name in ("jax", "flax", "optax")}


def _holds(folder: Path, now: dict[str, Any]) -> bool:
    """Return whether a folder already holds a run, which must be the same one."""
    before = read_record(folder / _MARK)
    if before is None or not before.keys() >= now.keys():
        there = [n for n in (_MARK, _CHECKPOINTS, _LOG, "experiment.json") if (folder / n).exists()]
        if there:
            raise ValueError(
                f"{folder} holds {' and '.join(there)}, but no run.json that can be read: "
                "choose another folder, or start over with fresh=True"
            )
        return False
    old, new = before["parts"], now["parts"]
    if before["versions"] != now["versions"]:  # only settings that both have are compared
        both = [k for k in new if k in old and not _CODE & {*k.split(".")}]
        old, new = ({k: flat[k] for k in both} for flat in (old, new))
    if other := difference(old, new):
        raise ValueError(
            f"{folder} holds another run ({other}): choose another folder, or start over with fresh=True"
        )
    if other := difference(before["versions"], now["versions"]):
        _warn(f"{folder} holds a run of another version ({other}): going on with what it has")
        return False
    return True
