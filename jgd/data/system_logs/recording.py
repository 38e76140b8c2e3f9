"""Recording of system events: scripts run under a Python audit hook (PEP 578).

The hook and the scripts are the files of ``scripts/``: ``workloads/`` are everyday programs, whose variable
``N`` sets their size, ``intrusions/`` are harmless scripts that behave as intrusions do, in the folder that
``home.txt`` fills.
"""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jgd.data.tasks import EventLog

__all__ = ["INTRUSIONS", "WORKLOADS", "Script", "record"]

_VARIABLE = "JGD_AUDIT_FILE"  # of the hook: the file that it writes to


class Script(NamedTuple):
    """A program to record.

    Attributes:
      name: Name of the graph that it becomes.
      source: Python source, run in an empty folder of its own.
      malicious: Whether it plays an intrusion. The intrusion begins at the line ``sys.audit("jgd.attack")``;
        its process, the processes that it starts from then on, and the data, system files, folders and
        sockets that they touch are malicious.
    """

    name: str
    source: str
    malicious: bool = False


def record(
    scripts: Sequence[Script] | None = None, *, timeout: float = 60.0, name: str = "recorded"
) -> EventLog:
    """Run scripts one after the other under an audit hook and keep what they and their Python children did.

    Each script becomes a graph. Its entities are processes, files of the Python installation (``library``),
    files of its own folder (``data``), other files (``system``), ``directory``, ``module``, ``socket`` and
    ``memory`` (compiled strings). Paths are written as ``work/...`` and ``lib/...`` under the folder of the
    script and of the installation, so that they do not depend on the machine.

    Args:
      scripts: Programs to run; None runs `WORKLOADS` and `INTRUSIONS`.
      timeout: Seconds that one script may take.
      name: Name of the log.

    Raises:
      ValueError: If there is no script.
      RuntimeError: If a script fails or takes too long; the message holds the end of its error output.
    """
    scripts = [*WORKLOADS, *INTRUSIONS] if scripts is None else list(scripts)
    if not scripts:
        raise ValueError("give at least one script to record")
    log = EventLog(actor=[], action=[], object=[], time=np.zeros(0), name=name)
    log.graphs = [script.name for script in scripts]
    times: list[int] = []
    group: list[int] = []
    guilty: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="jgd-record-") as base:
        root = Path(base).resolve()
        (root / "hook").mkdir()
        (root / "hook" / "sitecustomize.py").write_text(_source("hook"))
        for number, script in enumerate(scripts):
            rows = _run(script, root, number, timeout)
            guilty |= _add_run(log, times, rows, number, root / f"run{number}", script.malicious)
            group += [number] * (len(times) - len(group))
    log.time, log.graph_id, log.malicious = np.asarray(times), np.asarray(group), frozenset(guilty)
    return log


def _run(script: Script, root: Path, number: int, timeout: float) -> list[tuple[Any, ...]]:
    """Run one script and return its raw records in order of time."""
    work, out = root / f"run{number}", root / "hook" / f"{number}.txt"
    work.mkdir()
    (work / "main.py").write_text(script.source)
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(work),
        "TMPDIR": str(work),
        "PYTHONPATH": str(root / "hook"),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "LC_ALL": "C.UTF-8",
        _VARIABLE: str(out),
    }
    command = [sys.executable, "-s", "main.py"]
    with subprocess.Popen(
        command,
        cwd=work,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            _, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its children too
            raise RuntimeError(f"script {script.name!r} took longer than {timeout} seconds") from None
    if process.returncode:
        raise RuntimeError(f"script {script.name!r} ended with {process.returncode}: {errors[-500:]}")
    if not out.exists():
        raise RuntimeError(
            f"script {script.name!r} left no record: {sys.executable} reads no sitecustomize from PYTHONPATH"
        )
    return sorted(ast.literal_eval(line) for line in out.read_text().splitlines())


def _library() -> tuple[str, ...]:
    roots = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, os.path.dirname(os.__file__)}
    roots |= {os.path.realpath(root) for root in roots}
    return tuple(sorted(roots - {"/", "/usr"}, key=len, reverse=True))


def _place(path: str, work: Path) -> tuple[str, str]:
    """Return the type of a file, and its path without what differs between machines."""
    for kind, name, roots in (("data", "work", (str(work),)), ("library", "lib", _library())):
        for root in roots:
            if path == root or path.startswith(root + os.sep):
                return kind, name + path[len(root) :]
    return "system", path


def _add_run(log, times, rows, number: int, work: Path, malicious: bool) -> set[str]:
    """Append the events of one run and return its malicious entities."""
    processes = {row[1]: f"{number}:process:{row[1]}" for row in rows}
    attacking: set[int] = set()
    touched: set[str] = set()
    folders = {row[6] for row in rows if row[5] == "directory"}

    def add(time, actor, action, target, kind, words):
        log.actor.append(actor)
        log.action.append(action)
        log.object.append(target)
        log.types[actor], log.types[target] = "process", kind
        log.words.append(words)
        times.append(time)

    for time, pid, parent, arguments, action, kind, target in rows:
        # The script that the interpreter runs names the program, not the interpreter.
        named = (os.path.basename(a) for a in arguments if not a.startswith("-"))
        program = "-c" if "-c" in arguments else next(named, "python")
        actor = processes[pid]
        if kind == "mark":
            if action == "jgd.attack" or parent in attacking:
                attacking.add(pid)
            if action == "start" and parent in processes:
                add(time, processes[parent], "spawn", actor, "process", (program, "spawn"))
            continue
        path = target
        if kind in ("file", "directory"):
            place, path = _place(target, work)
            kind = "directory" if target in folders else place
        entity = f"{number}:{kind}:{path}"
        add(time, actor, action, entity, kind, (program, action, path))
        common = kind == "directory" and (path == "work" or path.startswith("lib"))
        if pid in attacking and kind in ("data", "system", "socket", "directory") and not common:
            touched.add(entity)
    return touched | {processes[pid] for pid in attacking} if malicious else set()


# What is recorded

_WORKLOADS = (
    "json",
    "csv",
    "zip",
    "tar",
    "sqlite",
    "config",
    "compress",
    "unittest",
    "compileall",
    "subprocess",
)
_WORKLOADS += ("chain", "http", "echo", "logging", "walk", "copy", "pickle", "xml", "compare", "monitor")
_INTRUSIONS = ("reconnaissance", "dropper", "scan", "exfiltration", "traces", "persistence", "credentials")
_INTRUSIONS += ("backdoor", "ransom", "masquerade")


def _source(name: str) -> str:
    return files("jgd.data.system_logs").joinpath(f"scripts/{name}.txt").read_text(encoding="utf-8")


WORKLOADS: tuple[Script, ...] = tuple(
    Script(f"{name}-{n}", f"N = {n}\n{source}")
    for n in range(3)
    for name, source in [(name, _source(f"workloads/{name}")) for name in _WORKLOADS]
)
"""Sixty everyday programs: twenty kinds, each in three sizes (``kind-0`` to ``kind-2``)."""

INTRUSIONS: tuple[Script, ...] = tuple(
    Script(f"intrusion-{name}", _source("home") + _source(f"intrusions/{name}"), malicious=True)
    for name in _INTRUSIONS
)
"""Ten harmless scripts that do what intrusions do, within their folder and this machine."""
