"""What the benchmarks share: timing, the description of the machine, results on disk."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

RESULTS = Path(__file__).parents[1] / "results"


def timings(contestants: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each contestant, in turns (so that all meet the same load), after one warm-up each."""
    for run in contestants.values():
        jax.block_until_ready(run())
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, run in contestants.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - start)
    return seconds


def summary(seconds: list[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}


def milliseconds(record: dict[str, float]) -> str:
    """A median with its range, for tables."""
    return f"{1e3 * record['median']:.4g} ({1e3 * record['min']:.4g}–{1e3 * record['max']:.4g})"


def provenance(*packages: str) -> dict[str, Any]:
    """Command, date, versions and device of a result."""

    def installed(name):
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    device = jax.devices()[0]
    processor = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    names = ("jgd", "jax", "jaxlib", "flax", "optax", "numpy", "scipy", *packages)
    return {
        "command": " ".join(["python", *_relative(sys.argv)]),
        "date": datetime.date.today().isoformat(),
        "device": device.platform if device.platform == device.device_kind else device.device_kind,
        "processor": f"{processor}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "versions": {name: installed(name) for name in names if installed(name)},
    }


def _relative(arguments: list[str]) -> list[str]:
    """Paths from the root of the project, which is all that a reader needs."""
    root = f"{Path(__file__).parents[2]}{os.sep}"
    return [os.path.abspath(a).removeprefix(root) if os.path.exists(a) else a for a in arguments]


def described(record: dict[str, Any]) -> str:
    """The provenance as lines of Markdown."""
    versions = ", ".join(f"{name} {v}" for name, v in record["versions"].items())
    return (
        f"`{record['command']}`, {record['date']}, {record['device']}, {record['processor']}, "
        f"Python {record['python']}, {versions}."
    )


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def run_parts(
    name: str,
    record: dict[str, Any],
    parts: dict[str, Callable[[], Any]],
    again: frozenset[str] = frozenset(),
) -> None:
    """Run the parts that a record lacks, and write ``results/<name>.json`` after each, so that one can stop.

    Args:
      name: of the result.
      record: what is there, which grows.
      parts: what to run, by its name in the record.
      again: parts to run though they are there.
    """
    from jgd.core import atomic_write

    for part, run in parts.items():
        if part in record and part not in again:
            continue
        print(f"{time.strftime('%H:%M:%S')} {part}", flush=True)
        record[part] = run()
        with atomic_write(RESULTS / f"{name}.json", "w") as file:
            json.dump(record, file, indent=1)


def write(name: str, record: dict[str, Any], markdown: str) -> None:
    """Write ``results/<name>.json`` and ``.md``, and show the latter."""
    from jgd.core import atomic_write

    with atomic_write(RESULTS / f"{name}.json", "w") as file:
        json.dump(record, file, indent=1)
    with atomic_write(RESULTS / f"{name}.md", "w") as file:
        file.write(markdown)
    print(markdown)
