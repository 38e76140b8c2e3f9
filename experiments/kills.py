"""Kill a small run by SIGKILL at every file operation, and start it again.

A run of two loops and plain work between them, with Orbax checkpoints of which old ones are removed, is made
in a process of its own that kills itself at its k-th file operation, for every k. Started again, it must give
the product and the log of a run that was never interrupted, to the bit. The same is done where the folder
holds the finished run of another key and the run starts over. TensorStore writes outside of Python: the
operations of Orbax around it are counted, and further processes are killed at times between.

::

    python experiments/kills.py --every 1
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint  # noqa: F401  # imported once, before the forks
from forks import forked

import jgd
import jgd.core.driver
from jgd.core import Algorithm

_OPERATIONS = ("rename", "remove", "rmdir", "mkdir", "truncate", "listdir", "scandir")
_EVENTS = {"open", *(f"os.{name}" for name in _OPERATIONS)}


def recipe(key: Any, task: Any, loop: Any = None) -> Any:
    """Two loops and plain work between them."""

    def step(key, t, state, data, batch):
        state = 0.9 * state + jax.random.normal(key, state.shape) + data
        return state, {"loss": jnp.sum(state**2)}

    noisy = Algorithm(lambda key, data, batch: jax.random.normal(key, (3,)), step, lambda state, data: state)
    k1, k2 = jax.random.split(key)
    first = loop("first", noisy, k1, task, 6)
    middle = loop.stage("middle", lambda x: {"double": 2 * x}, np.asarray(first))
    return loop("second", noisy, k2, jnp.asarray(middle["double"]), 4)


def child(folder: Path, seed: int, fresh: bool, at: int) -> int | str:
    """One run, which ends itself at a file operation: how many there were, or what went wrong."""
    jax.config.update("jax_compilation_cache_dir", str(folder.parent / "cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    out, count = str(folder / "run"), 0

    def look(event, args):
        nonlocal count
        if event not in _EVENTS or not isinstance(args[0], str | bytes | os.PathLike):
            return
        path = os.fsdecode(args[0])
        if event in ("os.remove", "os.rmdir") and args[1] >= 0:  # named from their folder
            path = os.path.join(os.readlink(f"/proc/self/fd/{args[1]}"), path)
        if path.startswith(out):
            count += 1
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)
    try:
        options: dict[str, Any] = {"out": out, "fresh": fresh, "checkpoint_every": 2, "progress": False}
        found = jgd.run(recipe, jax.random.key(seed), np.ones(3, np.float32), **options)
        np.save(folder / "product.npy", np.asarray(found))
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return count


def start(
    folder: Path, seed: int, fresh: bool, at: int = 0, seconds: float | None = None
) -> int | str | None:
    """Run a child: its file operations, what went wrong, or None where it was killed."""
    found, code = forked(child, folder, seed, fresh, at, seconds=seconds)
    return f"ended with {code}" if found is None and code != -signal.SIGKILL else found


def kept(folder: Path) -> tuple[bytes, bytes]:
    """The product and the log of a run."""
    return (folder / "product.npy").read_bytes(), (folder / "run" / "log.jsonl").read_bytes()


def kill(base: Path, fresh: bool, every: int, timed: int = 0) -> dict[str, Any]:
    """Kill at every operation; give what was tried, and what failed."""
    name, other = "a run that starts over" if fresh else "a run", base / "other"
    if fresh:
        other.mkdir()
        found = start(other, 2, False)
        assert isinstance(found, int), found

    def folder(label: str) -> Path:
        place = base / f"{'fresh' if fresh else 'plain'}-{label}"
        if fresh:
            shutil.copytree(other / "run", place / "run")
        else:
            place.mkdir()
        return place

    start(folder("first"), 1, fresh)  # compiles
    whole = folder("whole")
    begin = time.perf_counter()
    count = start(whole, 1, fresh)
    took = time.perf_counter() - begin
    assert isinstance(count, int), count
    expected = kept(whole)
    points: list[tuple[int, float | None]] = [(k, None) for k in range(1, count + 1, every)]
    points += [(0, took * (i + 1) / (timed + 1)) for i in range(timed)]
    failures = []
    for number, (k, seconds) in enumerate(points):
        place = folder(str(number))
        first = start(place, 1, fresh, k, seconds)
        (place / "product.npy").unlink(missing_ok=True)
        again = start(place, 1, fresh)
        if isinstance(first, str) or not isinstance(again, int) or kept(place) != expected:
            failures.append(f"at {k or seconds}: {first}, then {again}")
        shutil.rmtree(place)
    return {
        "what": f"{name} of {count} file operations, SIGKILL at {len(points)} points",
        "tried": len(points),
        "held": len(points) - len(failures),
        "failed": len(failures),
        "failures": failures,
    }


def rows(every: int = 1, timed: int = 10) -> list[dict[str, Any]]:
    """What was killed and how it went.

    Args:
      every: kill at every nth operation.
      timed: kills at times between, for what happens outside of Python.

    Returns:
      Dicts of ``what``, ``tried``, ``held``, ``failed`` and ``failures`` (texts).
    """
    with tempfile.TemporaryDirectory() as base:
        return [kill(Path(base), False, every, timed), kill(Path(base), True, every)]


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--every", type=int, default=1, help="Kill at every nth operation.")
    parser.add_argument("--timed", type=int, default=10, help="Kills at times between.")
    options = parser.parse_args()
    found = rows(options.every, options.timed)
    print("| what | tried | held | failed |\n|---|---|---|---|")
    for row in found:
        print(f"| {row['what']} | {row['tried']} | {row['held']} | {row['failed']} |")
    for row in found:
        for text in row["failures"]:
            print(f"{row['what']}: {text}")
    return int(any(row["failed"] for row in found))


if __name__ == "__main__":
    sys.exit(main())
