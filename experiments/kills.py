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
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_CHILD = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import jax, numpy as np
import kills
kills.child(*sys.argv[2:])
"""
_OPERATIONS = ("rename", "remove", "rmdir", "mkdir", "truncate", "listdir", "scandir")
_EVENTS = {
    "open",
    *(f"os.{name}" for name in ["rename", "remove", "rmdir", "mkdir", "truncate", "listdir", "scandir"]),
}


def recipe(key: Any, task: Any, loop: Any = None) -> Any:
    """Two loops and plain work between them."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jgd.core import Algorithm

    def step(key, t, state, data, batch):
        state = 0.9 * state + jax.random.normal(key, state.shape) + data
        return state, {"loss": jnp.sum(state**2)}

    noisy = Algorithm(lambda key, data, batch: jax.random.normal(key, (3,)), step, lambda state, data: state)
    k1, k2 = jax.random.split(key)
    first = loop("first", noisy, k1, task, 6)
    middle = loop.stage("middle", lambda x: {"double": 2 * x}, np.asarray(first))
    return loop("second", noisy, k2, jnp.asarray(middle["double"]), 4)


def child(out: str, product: str, seed: str, fresh: str, at: str) -> None:
    """One run, which ends itself at a file operation; prints how many there were."""
    import jax
    import numpy as np

    import jgd

    count, limit = [0], int(at)

    def look(event, args):
        if event not in _EVENTS or not isinstance(args[0], str | bytes | os.PathLike):
            return
        path = os.fsdecode(args[0])
        if event in ("os.remove", "os.rmdir") and args[1] >= 0:  # named from their folder
            path = os.path.join(os.readlink(f"/proc/self/fd/{args[1]}"), path)
        if path.startswith(out):
            count[0] += 1
            if count[0] == limit:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)
    options: dict[str, Any] = {
        "out": out,
        "fresh": fresh == "fresh",
        "checkpoint_every": 2,
        "progress": False,
    }
    found = jgd.run(recipe, jax.random.key(int(seed)), np.ones(3, np.float32), **options)
    np.save(product, np.asarray(found))
    print(count[0])


def start(folder: Path, seed: int, fresh: bool, at: int = 0, seconds: float | None = None) -> tuple[int, str]:
    """Run a child; its exit code, and what it printed."""
    env = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(folder.parent / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
    }
    arguments = [folder / "run", folder / "product.npy", seed, "fresh" if fresh else "same", at]
    command = [sys.executable, "-c", _CHILD, str(Path(__file__).parent), *map(str, arguments)]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        printed, told = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        printed, told = process.communicate()
    return process.returncode, printed or told


def kept(folder: Path) -> tuple[bytes, bytes]:
    """The product and the log of a run."""
    return (folder / "product.npy").read_bytes(), (folder / "run" / "log.jsonl").read_bytes()


def kill(base: Path, fresh: bool, every: int, timed: int = 0) -> dict[str, Any]:
    """Kill at every operation; give what was tried, and what failed."""
    name = "a run that starts over" if fresh else "a run"

    def folder(label: str) -> Path:
        place = base / f"{'fresh' if fresh else 'plain'}-{label}"
        place.mkdir()
        if fresh:
            code, told = start(place, 2, False)
            assert code == 0, told
            (place / "product.npy").unlink()
        return place

    whole = folder("whole")
    begin = time.perf_counter()
    code, printed = start(whole, 1, fresh)
    took = time.perf_counter() - begin
    assert code == 0, printed
    expected, count = kept(whole), int(printed)
    points: list[tuple[int, float | None]] = [(k, None) for k in range(1, count + 1, every)]
    points += [(0, took * (i + 1) / (timed + 1)) for i in range(timed)]
    failed = []
    for number, (k, seconds) in enumerate(points):
        place = folder(str(number))
        code, _ = start(place, 1, fresh, k, seconds)
        (place / "product.npy").unlink(missing_ok=True)
        again, told = start(place, 1, fresh)
        if code not in (-signal.SIGKILL, 0) or again != 0 or kept(place) != expected:
            failed.append(f"at {k or seconds}: {' '.join(told.split())[-200:]}")
    what = f"{name} of {count} file operations, SIGKILL at {len(points)} points"
    return {"what": what, "tried": len(points), "held": len(points) - len(failed), "failed": failed}


def rows(every: int = 1, timed: int = 10) -> list[dict[str, Any]]:
    """What was killed and how it went.

    Args:
      every: kill at every nth operation.
      timed: kills at times between, for what happens outside of Python.

    Returns:
      Dicts of ``what``, ``tried``, ``held`` and ``failed`` (texts).
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
        print(f"| {row['what']} | {row['tried']} | {row['held']} | {len(row['failed'])} |")
    for row in found:
        for text in row["failed"]:
            print(f"{row['what']}: {text}")
    return int(any(row["failed"] for row in found))


if __name__ == "__main__":
    sys.exit(main())
