"""Folders of runs: a run claims a folder, continues what was interrupted in it, and ends there.

A folder holds ``experiment.json`` (whose run it is), ``log.jsonl`` (training curves) and, at the end, the
outputs and, as the sign that all is done, ``metrics.json``. While a run lasts there are ``checkpoints``, from
which it is continued; they are removed once the outputs are written.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from jgd.cli.errors import Finished, Mistake, mistakes, note
from jgd.core import Driver
from jgd.core.driver import check_places
from jgd.evaluation import versions
from jgd.files import atomic_write, digests, lock, remove, tidy
from jgd.report import Comparison
from jgd.report.page import finite

__all__ = [
    "OUTPUTS",
    "check_file",
    "check_writable",
    "claimed",
    "driver",
    "finish",
    "run_settings",
    "taken",
    "teller",
    "write_json",
]

OUTPUTS = ("condensed.npz", "report.html", "metrics.json")
"""What a condenser leaves in its folder; the last one is the sign that all is done."""
_NETWORKS = ("teacher.npz", "students")
_MARK, _CHECKPOINTS, _LOG = "experiment.json", "checkpoints", "log.jsonl"
_OTHERS = (_CHECKPOINTS, "run.json", "cells", *_NETWORKS, *OUTPUTS)


def check_file(path: Path | None) -> None:
    """Check, without touching anything, that a file can be written.

    Raises:
      Mistake: For a file that cannot be written.
    """
    if path is None:
        return
    check_writable(path.parent)
    if path.is_dir():
        raise Mistake(f"{path} is a folder: name a file")


def check_writable(folder: Path) -> None:
    """Check, without touching anything, that files can be written in a folder that may not exist yet.

    Raises:
      Mistake: For a folder that cannot be written.
    """
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise Mistake(f"{folder} cannot be a folder: {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise Mistake(f"{folder} cannot be written: no permission in {there}")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, all of it or nothing."""
    with atomic_write(path, "w") as file:
        json.dump(finite(value), file, indent=1)
        file.write("\n")


def run_settings(command: Any) -> dict[str, Any]:
    """Return what distinguishes a run of a command from others, as plain values.

    Args:
      command: The command with its options; how data are read is not among them because their checksum is.
    """
    settings = dataclasses.asdict(command)
    for name in ("folder", "reading"):
        settings.pop(name, None)
    return {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}


def teller(quiet: bool) -> Callable[[str], None]:
    """Return a function that logs lines on standard error, with the seconds since now."""
    start = time.perf_counter()

    def log(text: str) -> None:
        if not quiet:
            print(f"{time.perf_counter() - start:6.1f} s  {text}", file=sys.stderr, flush=True)

    return log


def driver(out: Path, quiet: bool) -> Driver:
    """Return the loop of a command, which notes damaged files in single lines on standard error."""
    return Driver(out, progress=False if quiet else None, log=note)


@contextmanager
def claimed(
    out: Path,
    command: str,
    settings: dict[str, Any],
    checksum: str,
    *,
    resume: bool,
    log: Callable[[str], None],
) -> Iterator[bool]:
    """Claim a folder for a run, by its mark, and for this process alone while the context lasts.

    `finish` ends the run.

    Args:
      out: Folder.
      command: Name of the command, such as ``condense``.
      settings: Settings of the run, by name.
      checksum: Checksum of the data.
      resume: Whether to continue an interrupted run with the same settings; else an earlier run is removed.
      log: Called with a line that says which of the two happens.

    Yields:
      Whether an interrupted run is continued.

    Raises:
      Mistake: For a folder in use, or of something else, or of a run with other settings.
      Finished: For a folder that holds all of this run already.
    """
    record = {"command": command, "experiment": settings, "checksum": checksum}
    record = json.loads(json.dumps(record))
    with ExitStack() as stack:
        with mistakes():
            out.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock(out))
            for place in (out, out / _CHECKPOINTS):
                tidy(place)
            check_places(out)
        if not resume:
            _remove(out)
        resumed = resume and _look(out, record, log)
        with mistakes():
            write_json(out / _MARK, record)
        yield resumed


def finish(out: Path, found: Comparison, outputs: Sequence[str] = ()) -> None:
    """Write the page and ``metrics.json``, remove the checkpoints, and print what was found.

    ``metrics.json`` is the sign that a run is done. It keeps what is printed and checksums of the outputs,
    because the same command then has nothing to do.

    Args:
      out: Folder of the run.
      found: What was found.
      outputs: Files and folders that the run has written before.
    """
    found.save(out / "report.html")
    files = (*outputs, "report.html")
    names = [f"{name}/" if (out / name).is_dir() else name for name in (*files, "metrics.json")]

    def show() -> None:
        found.show()
        print(f"\nwritten to {out}: {', '.join(names)}")

    text = io.StringIO()
    with redirect_stdout(text):
        show()
    said = {"versions": versions(), "printed": text.getvalue(), "outputs": digests(out, *files)}
    write_json(out / "metrics.json", {**found.record, **said})
    _tidy_up(out)
    show()


def _tidy_up(out: Path) -> None:
    with suppress(OSError):
        remove(out / _CHECKPOINTS)


def taken(out: Path) -> list[str]:
    """Return the outputs of any run that a folder holds."""
    return [name for name in _OTHERS if (out / name).exists()]


def _look(out: Path, record: dict[str, Any], log: Callable[[str], None]) -> bool:
    """Return whether this run continues the one in a folder; refuse a folder of something else."""
    if not (out / _MARK).exists():
        if there := taken(out):
            raise Mistake(
                f"{out} holds {' and '.join(there)} of something else: choose another folder with --out"
            )
        return False
    before = _earlier(out)
    if before["command"] not in (None, record["command"]):
        raise Mistake(
            f"{out} holds a run of `jgd {before['command']}`: "
            "choose another folder with --out, or replace that run with --no-resume"
        )
    if any(before[name] != record[name] for name in ("experiment", "checksum")):
        raise Mistake(
            f"{out} holds a run with other settings ({_difference(before, record)}): "
            "choose another folder with --out, or replace that run with --no-resume"
        )
    if (said := _finished(out)) is not None:
        _tidy_up(out)  # where an earlier process was killed before it had
        log(f"{out} holds this run already: --no-resume computes it again")
        raise Finished(said)
    if (out / _CHECKPOINTS).exists():
        log(f"going on with the interrupted run in {out}")
        return True
    return False


def _finished(out: Path) -> str | None:
    """Return what a finished run printed, if its outputs and versions are the same; else None."""
    try:
        metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
        said, before = str(metrics["printed"]), dict(metrics["outputs"])
        whole = before == digests(out, *before) and metrics["versions"] == versions()
        return said if whole else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _earlier(out: Path) -> dict[str, Any]:
    try:
        before = json.loads((out / _MARK).read_text(encoding="utf-8"))
        settings, command = dict(before["experiment"]), before.get("command")
        return {"command": command, "experiment": settings, "checksum": before["checksum"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Mistake(f"{out / _MARK} cannot be read: choose another folder with --out") from error


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    old, new = before["experiment"], now["experiment"]
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    said = [f"{name} {_plain(old.get(name))}, now {_plain(new.get(name))}" for name in names]
    if before["checksum"] != now["checksum"]:
        said.append("other data files")
    return "; ".join(said[:3]) + (f"; and {len(said) - 3} more" if len(said) > 3 else "")


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _remove(out: Path) -> None:
    """Remove an earlier run, which is known by its mark; anything else stays.

    The mark goes last: what is there is always known.
    """
    if not (out / _MARK).exists():
        _look(out, {}, print)  # refuses a folder with the outputs of something else
        return
    with mistakes():
        for name in (*reversed(OUTPUTS), *_NETWORKS, _LOG, _CHECKPOINTS, _MARK):
            remove(out / name)
