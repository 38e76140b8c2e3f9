"""Readers of public logs of system events: DARPA's engagement 3 and StreamSpot.

Lines are read one by one, within bounds on their length and on the text of a whole file, because a log may
come from anywhere.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jgd.data.archives import unpack_limit
from jgd.data.storage import DataError, one_line, reading, refuse_web_page
from jgd.data.tasks import EventLog

__all__ = ["darpa_e3", "streamspot"]

_LINE = 2**24  # characters of a record
_CDM = re.compile(r"com\.bbn\.tc\.schema\.avro\.cdm\d+\.")
_ENTITIES = ("Subject", "FileObject", "NetFlowObject", "UnnamedPipeObject", "MemoryObject")
_ENTITIES += ("SrcSinkObject", "IpcObject", "RegistryKeyObject", "PacketSocketObject")
_NO_RECORD = (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError)


def _text(path: Path) -> Any:
    """Open a text file, compressed or not."""
    opener = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}.get(path.suffix, open)
    if path.suffix == ".xz":
        with open(path, "rb") as file:  # its header states how much memory reading it takes
            lzma.LZMADecompressor(memlimit=2**28).decompress(file.read(2**12), max_length=0)
    return opener(path, "rt", encoding="utf-8")


def _lines(path: Path, limit: int | None) -> Iterator[tuple[int, str]]:
    """Yield numbered lines that are not empty.

    Args:
      path: File, compressed or not.
      limit: Bytes of text that it may hold, see `jgd.data.archives.unpack_limit`.

    Raises:
      DataError: If the file or its compression is damaged.
    """
    with reading(path):
        if not path.is_file():
            raise DataError(f"{path} does not exist: download the log and give its path")
        refuse_web_page(path)
        most = max(unpack_limit(path, limit, 2**26), 0)  # text takes ten times its size in memory
        left, number = most, 0
        with _text(path) as file:
            while line := file.readline(min(_LINE, left) + 1):
                number += 1
                left -= len(line)
                if left < 0:
                    raise ValueError(
                        f"it holds more than {most} bytes of text: give a larger limit= if you trust it"
                    )
                if len(line) > _LINE:
                    raise ValueError(f"line {number} is longer than {_LINE} characters")
                if "\0" in line:
                    raise ValueError(f"line {number} holds a NUL byte")
                if line.strip():
                    yield number, line.rstrip("\n")


@contextmanager
def _within_memory(log: EventLog, too_many: str, advice: str) -> Iterator[None]:
    """Raise an error of one line if a log does not fit into memory; what was read is freed first."""
    try:
        yield
    except (MemoryError, DataError) as error:
        if not isinstance(error, MemoryError) and not isinstance(error.__cause__, MemoryError):
            raise
        held = len(log.actor)
        for part in (log.actor, log.action, log.object, log.words, log.types):
            part.clear()
        raise DataError(f"{too_many} for this machine, of which {held} were read: {advice}") from None


def _inner(value: Any) -> Any:
    """Return the value of an Avro union, ``{"type": value}`` or null."""
    if isinstance(value, dict) and len(value) == 1:
        return next(iter(value.values()))
    return value


def _word(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a text, got {str(value)[:40]}")
    return value


def darpa_e3(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    malicious: Iterable[str] = (),
    limit: int | None = None,
    name: str = "darpa-e3",
) -> EventLog:
    """Read logs of DARPA's engagement 3 (CADETS, Theia, Trace, FiveDirections) in their JSON-lines layout.

    An event becomes one row for ``predicateObject`` and one for ``predicateObject2``, as far as they exist.
    The type of an entity is the one in its record (``SUBJECT_PROCESS``, ``FILE_OBJECT_FILE`` ...), or the
    name of the record where it has none (``NetFlowObject``). Records of hosts, principals, units and markers
    are skipped. Files may be compressed (``.gz``, ``.bz2``, ``.xz``).

    Args:
      paths: Files of one log, in order; entities may be described in any of them.
      malicious: Names of malicious entities, as in the lists of the ground truth.
      limit: Bytes of text that each file may hold; None allows 64 MiB and 50 times its size, so that a small
        compressed file cannot fill the memory (the variable ``JGD_UNPACK_LIMIT`` sets it, too).
      name: Name of the log.

    Raises:
      DataError: If a file is missing or truncated, or a line is no such record; the message names the line.
    """
    files = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    log = EventLog(
        actor=[], action=[], object=[], time=np.zeros(0), malicious=frozenset(malicious), name=name
    )
    times: list[int] = []
    shown = ", ".join(str(f) for f in files)
    with _within_memory(log, f"{shown} hold too many events", "give fewer files"):
        for path in map(Path, files):
            for number, line in _lines(path, limit):
                try:
                    _add_record(log, times, line)
                except _NO_RECORD as error:
                    raise DataError(
                        f"{path}, line {number}: no record of the Common Data Model ({type(error).__name__}: "
                        f"{one_line(error)}); the file may be cut off, download it again"
                    ) from error
    if not times:
        raise DataError(f"there is no event in {shown or 'no file at all'}")
    log.time = np.asarray(times, np.int64)
    return log


def _add_record(log: EventLog, times: list[int], line: str) -> None:
    ((kind, value),) = json.loads(line)["datum"].items()
    kind = _CDM.sub("", kind)
    if kind in _ENTITIES:
        log.types[_word(value["uuid"])] = _word(value.get("type") or kind)
    elif kind == "Event":
        _add_event(log, times, value)


def _add_event(log: EventLog, times: list[int], event: dict[str, Any]) -> None:
    actor, action, time = _inner(event["subject"]), _word(event["type"]), int(event["timestampNanos"])
    if not -(2**63) <= time < 2**63:
        raise ValueError(f"the time {str(time)[:24]} is no number of nanoseconds")
    if actor is None:
        return
    _word(actor)
    fields = _inner(event.get("properties")) or {}
    program = _word(fields.get("exec") or "")
    for which in ("predicateObject", "predicateObject2"):
        target = _inner(event.get(which))
        if target is None:
            continue
        path = _word(_inner(event.get(f"{which}Path")) or "")
        _word(target)
        log.actor.append(actor)
        log.action.append(action)
        log.object.append(target)
        log.words.append(tuple(word for word in (program, action, path) if word and word != "null"))
        times.append(time)


def streamspot(
    path: str | os.PathLike[str],
    *,
    graphs: Collection[int] | None = None,
    limit: int | None = None,
    name: str = "streamspot",
) -> EventLog:
    """Read edges in the layout of StreamSpot: source, its type, destination, its type, edge type, graph.

    The order of the lines is their time. A node is named ``graph:node``, because numbers start from 0 in
    each graph. Of the 600 graphs of the data set, 300 to 399 are attacks.

    Args:
      path: File, tab-separated, compressed or not.
      graphs: Numbers of the graphs to read; None reads all.
      limit: Bytes of text that the file may hold; None allows 64 MiB and 50 times its size, so that a small
        compressed file cannot fill the memory (the variable ``JGD_UNPACK_LIMIT`` sets it, too).
      name: Name of the log.

    Raises:
      DataError: If the file is missing or truncated, or a line lacks these six columns; the message names it.
    """
    path = Path(path)
    log = EventLog(actor=[], action=[], object=[], time=np.zeros(0), name=name)
    group: list[int] = []
    words: dict[str, tuple[str, ...]] = {}
    with _within_memory(log, f"{path} has too many edges", "choose graphs=..."):
        for number, line in _lines(path, limit):
            columns = line.split("\t")
            last = columns[-1].strip()
            if (
                len(columns) != 6
                or not all(columns)
                or not (last.isascii() and last.isdigit() and len(last) < 10)
            ):
                raise DataError(
                    f"{path}, line {number}: expected six columns that end in the number of a graph, got "
                    f"{line[:80]!r}; the file may be cut off, download it again"
                )
            graph = int(columns[5])
            if graphs is not None and graph not in graphs:
                continue
            for i, events in ((0, log.actor), (2, log.object)):
                node = sys.intern(f"{graph}:{columns[i]}")  # once in memory: there are millions of edges
                events.append(node)
                log.types[node] = columns[i + 1]
            action = sys.intern(columns[4])
            log.action.append(action)
            log.words.append(words.setdefault(action, (action,)))
            group.append(graph)
    if not group:
        raise DataError(f"there is no edge of the chosen graphs in {path}")
    numbers, log.graph_id = np.unique(group, return_inverse=True)
    log.graphs = [str(n) for n in numbers]
    log.time = np.arange(len(group))
    return log
