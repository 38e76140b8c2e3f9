"""What the benchmarks share: timing, the description of the machine, results on disk."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

RESULTS = Path(__file__).parents[1] / "results"
ROOT = Path(__file__).parents[2]


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


def stamp() -> dict[str, str]:
    """The commit that runs, ``+dirty`` where the code differs from it, and today's date."""

    def git(*arguments):
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        commit = git("rev-parse", "HEAD") or "unknown"
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!experiments/results")
    except OSError:  # no git here
        commit, changed = "unknown", None
    today = datetime.date.today().isoformat()
    return {"commit": f"{commit}+dirty" if changed else commit, "date": today}


def provenance(*packages: str) -> dict[str, Any]:
    """Command, commit, date, versions and device of a result."""

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
        **stamp(),
        "device": device.platform if device.platform == device.device_kind else device.device_kind,
        "processor": f"{processor}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "versions": {name: installed(name) for name in names if installed(name)},
    }


def _relative(arguments: list[str]) -> list[str]:
    """Paths from the root of the project, which is all that a reader needs."""
    root = f"{ROOT}{os.sep}"
    return [os.path.abspath(a).removeprefix(root) if os.path.exists(a) else a for a in arguments]


def described(record: dict[str, Any]) -> str:
    """The provenance of the rows that ran last, as lines of Markdown."""
    versions = ", ".join(f"{name} {v}" for name, v in record["versions"].items())
    where = "recorded in commit" if record.get("backfilled") else "commit"
    commit = f"{where} {short(record['commit'])}, " if "commit" in record else ""
    return (
        f"`{record['command']}`, {commit}{record['date']}, {record['device']}, {record['processor']}, "
        f"Python {record['python']}, {versions}."
    )


def short(commit: str) -> str:
    """The first ten letters of a commit, and whether the code differed from it."""
    name, plus, dirty = commit.partition("+")
    return f"{name[:10]}{plus}{dirty}"


def note(record: dict[str, Any], part: str, about: dict[str, Any] | None = None) -> None:
    """Stamp a part of a record that has just run, and make its provenance that of the record.

    Args:
      record: of all parts; its provenance stands under ``"provenance"`` where it has that key, else beside
        the parts.
      part: name of what ran.
      about: see `provenance`.
    """
    about = about or provenance()
    record.setdefault("stamps", {})[part] = {name: about[name] for name in ("commit", "date")}
    home = record.get("provenance", record)
    home.pop("backfilled", None)
    home.update(about)


def note_within(record: dict[str, Any], part: str, what: str, about: dict[str, Any]) -> None:
    """Stamp what ran of a part, the rest of which stays as it was: a row, or a column."""
    record["stamps"][f"{part} ({what})"] = {name: about[name] for name in ("commit", "date")}


HISTORY = """
## When rows ran

The commit that a row ran at; "in" marks rows that ran before that was recorded: theirs is the commit that brought
them into the file.

"""


def history(found: dict[str, dict[str, Any]]) -> str:
    """When rows ran, as a section of Markdown; see `note`.

    Args:
      found: stamps by the name of the row. Those with ``"backfilled"`` ran before commits were recorded: they
        carry the commit that brought them into the file.
    """
    groups: dict[tuple[str, str, bool], list[str]] = {}
    for name, entry in found.items():
        key = (entry["date"], entry["commit"], bool(entry.get("backfilled")))
        groups.setdefault(key, []).append(name)
    lines = [
        [f"{'in ' if backfilled else ''}{short(commit)}", date, "; ".join(names)]
        for (date, commit, backfilled), names in sorted(groups.items())
    ]
    return HISTORY + table(["commit", "date", "rows"], lines) + "\n"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def run_parts(
    name: str,
    record: dict[str, Any],
    parts: dict[str, Callable[[], Any]],
    again: frozenset[str] = frozenset(),
    about: dict[str, Any] | None = None,
) -> None:
    """Run the parts that a record lacks, and write ``results/<name>.json`` after each, so that one can stop.

    Each part is stamped with its commit and date, see `note`; without a part to run nothing is changed.

    Args:
      name: of the result.
      record: what is there, which grows.
      parts: what to run, by its name in the record.
      again: parts to run though they are there.
      about: see `provenance`.
    """
    from jgd.core import atomic_write

    for part, run in parts.items():
        if part in record and part not in again:
            continue
        print(f"{time.strftime('%H:%M:%S')} {part}", flush=True)
        about = about or provenance()
        record[part] = run()
        note(record, part, about)
        with atomic_write(RESULTS / f"{name}.json", "w") as file:
            json.dump(record, file, indent=1)


def save(name: str, record: dict[str, Any], markdown: str) -> str:
    """Write ``results/<name>.json`` and ``.md``, when rows ran at the end of the latter, which is returned."""
    from jgd.core import atomic_write

    RESULTS.mkdir(exist_ok=True)
    if "stamps" in record:
        markdown = markdown.rstrip("\n") + "\n" + history(record["stamps"])
    with atomic_write(RESULTS / f"{name}.json", "w") as file:
        json.dump(record, file, indent=1)
    with atomic_write(RESULTS / f"{name}.md", "w") as file:
        file.write(markdown)
    return markdown


def write(name: str, record: dict[str, Any], markdown: str) -> None:
    """`save`, and show the page."""
    print(save(name, record, markdown))
