"""The slow tests: what a paper's idea does that its absence does not, on tasks too long for the default suite.

    JGD_DATA_DIR=... python experiments/ideas.py                  # those that have no outcome yet
    JGD_DATA_DIR=... python experiments/ideas.py --fresh          # all of them
    JGD_DATA_DIR=... python experiments/ideas.py --only sgdd      # those whose name has the word

Each test runs in a process of its own, so that one can stop in between.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
import measure

NAME = "ideas"
COMMAND = [sys.executable, "-m", "pytest", "-n", "0", "-m", "slow", "-p", "no:cacheprovider"]
INTRODUCTION = """
Tests marked `slow`, which the default suite leaves out (`pytest -m slow` runs them). Seconds include compilation, on a
machine that others used too.
"""


def slow_tests() -> list[str]:
    """Names of the tests, as pytest calls them; a test with parameters is one."""
    found = subprocess.run(
        [*COMMAND, "--collect-only", "tests"], cwd=measure.ROOT, capture_output=True, text=True
    )
    names = [*dict.fromkeys(line.partition("[")[0] for line in found.stdout.splitlines() if "::" in line)]
    if not names:
        raise SystemExit(
            f"pytest finds no slow tests: {found.stdout.strip()[-300:]}{found.stderr.strip()[-300:]}"
        )
    return names


def outcome(name: str) -> dict[str, Any]:
    """What became of a test, and how long it took."""
    start = time.perf_counter()
    done = subprocess.run([*COMMAND, "-rs", name], cwd=measure.ROOT, capture_output=True, text=True)
    last = (done.stdout.strip().splitlines() or ["no output"])[-1]
    skipped = "skipped" in last or any(line.startswith("SKIPPED") for line in done.stdout.splitlines())
    word = {0: "skipped" if skipped else "passed", 1: "failed"}.get(done.returncode, "error")
    return {"outcome": word, "seconds": time.perf_counter() - start, "last": "" if word == "passed" else last}


def markdown(record: dict[str, Any]) -> str:
    """The page."""
    stamps = record["stamps"]
    rows = [
        [
            f"`{name}`",
            entry["outcome"],
            f"{entry['seconds']:.0f}",
            stamps[name]["date"],
            measure.short(stamps[name]["commit"]),
        ]
        for name, entry in record["tests"].items()
    ]
    header = ["test", "outcome", "seconds", "date", "commit"]
    about = measure.described(record["provenance"])
    return (
        "\n".join(["# Ideas that take long to test\n", about, INTRODUCTION, measure.table(header, rows)])
        + "\n"
    )


def main() -> None:
    """Run what is missing, and write ``results/ideas.{json,md}``."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", metavar="WORD", help="tests whose name has the word")
    parser.add_argument("--fresh", action="store_true", help="run tests again that have an outcome")
    options = parser.parse_args()
    file = measure.RESULTS / f"{NAME}.json"
    record: dict[str, Any] = (
        json.loads(file.read_text()) if file.exists() else {"provenance": {}, "tests": {}}
    )
    about = measure.provenance() | {"command": "python experiments/ideas.py"}
    names = slow_tests()
    for gone in set(record["tests"]) - set(names):
        record["tests"].pop(gone)
        record["stamps"].pop(gone)
    for name in names:
        if options.only and options.only not in name:
            continue
        if name in record["tests"] and not options.fresh:
            continue
        record["tests"][name] = found = outcome(name)
        measure.note(record, name, about)
        measure.save(NAME, record, markdown(record))
        print(f"{time.strftime('%H:%M:%S')} {name}: {found['outcome']}, {found['seconds']:.0f} s", flush=True)
    measure.write(NAME, record, markdown(record))


if __name__ == "__main__":
    main()
