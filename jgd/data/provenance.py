"""System provenance: who did what to which object, recorded on the spot or read from the public layouts.

record        run scripts under a Python audit hook (PEP 578) and keep what they did
darpa_e3      DARPA Transparent Computing, engagement 3: one JSON record of the Common Data Model in a line
streamspot    StreamSpot: tab-separated edges of many graphs

All return an `EventLog`; `events_to_graph` makes one graph of it, with the text that each node was part of.
A recording of `WORKLOADS` and `INTRUSIONS` takes seconds and stands in for logs that are not freely
available: everyday programs of the standard library, and harmless scripts that behave as intrusions do. They
write in a temporary folder only, talk to this machine only, and read nothing that any user may not read.
"""

from __future__ import annotations

import ast
import bz2
import gzip
import json
import lzma
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jraph
import numpy as np
from jaxtyping import Int

from jgd.data.archives import unpack_limit
from jgd.data.storage import DataError, one_line, reading, refuse_web_page
from jgd.data.tasks import EventLog
from jgd.graph.build import from_edges

__all__ = [
    "INTRUSIONS",
    "WORKLOADS",
    "ProvenanceGraph",
    "Script",
    "darpa_e3",
    "events_to_graph",
    "record",
    "streamspot",
    "subset",
]


class ProvenanceGraph(NamedTuple):
    """Entities and what passed between them, as `events_to_graph` returns it.

    Attributes:
      graph: directed edges from actor to object, weighted by the number of events; nodes are None.
      documents: the words of a node's events in order of time, those of an actor and of an object alike.
      types: name of each node's type.
      ids: name of each node.
      graph_id: graph of each node, ``[N]``; nodes of one graph are neighbours in the order.
    """

    graph: jraph.GraphsTuple
    documents: list[list[str]]
    types: list[str]
    ids: list[str]
    graph_id: Int[np.ndarray, " N"]


def events_to_graph(events: EventLog, kinds: Collection[str] | None = None) -> ProvenanceGraph:
    """One graph of all entities that took part in an event.

    Events with an endpoint of unknown type are left out, repeated events (equal in everything, time included)
    count once, and edges between the same two nodes become one with a weight.

    Args:
      events: the log. The words of an event are those of the log; where it has none, the actor's
        attribute ``"exec"``, the action and the object's attribute ``"path"``, as far as they are there.
      kinds: types to keep; all by default.

    Raises:
      ValueError: for columns of different lengths, or where no event is left.
    """
    lengths = {len(events.actor), len(events.action), len(events.object), len(events.time)}
    if len(lengths) != 1:
        raise ValueError(f"the columns of an event log must be equally long, got {sorted(lengths)}")
    group = np.zeros(len(events.actor), np.int64) if events.graph_id is None else np.asarray(events.graph_id)
    words = _words(events)
    if len(words) != len(events.actor) or len(group) != len(events.actor):
        raise ValueError("an event log needs the words and the graph of every event, or of none")

    def known(entity: str) -> bool:
        return entity in events.types and (kinds is None or events.types[entity] in kinds)

    index: dict[tuple[int, str], int] = {}
    documents: list[list[str]] = []
    weights: dict[tuple[int, int], int] = {}
    seen = set()
    for i in np.lexsort((np.asarray(events.time), group)):
        actor, target, number = events.actor[i], events.object[i], int(group[i])
        event = (number, actor, target, events.action[i], int(events.time[i]), words[i])
        if not (known(actor) and known(target)) or event in seen:
            continue
        seen.add(event)
        ends = []
        for entity in (actor, target):
            node = index.setdefault((number, entity), len(index))
            if node == len(documents):
                documents.append([])
            documents[node].extend(words[i])
            ends.append(node)
        weights[ends[0], ends[1]] = weights.get((ends[0], ends[1]), 0) + 1
    if not index:
        raise ValueError("no event has two endpoints of a known type: there is no graph to make")
    pairs = np.asarray(list(weights), np.int64)
    graph = from_edges(
        pairs[:, 0],
        pairs[:, 1],
        edges=np.asarray(list(weights.values()), np.float32),
        num_nodes=len(index),
    )
    return ProvenanceGraph(
        graph=graph,
        documents=documents,
        types=[events.types[entity] for _, entity in index],
        ids=[entity for _, entity in index],
        graph_id=np.asarray([number for number, _ in index], np.int64),
    )


def subset(log: EventLog, graphs: Iterable[int | str]) -> EventLog:
    """The events of some graphs, by number or name, which are numbered anew in the order given.

    Raises:
      ValueError: for a log of one graph only, and for a graph that is unknown or given twice.
    """
    if log.graph_id is None:
        raise ValueError("the log has one graph only: there is nothing to choose from")
    names = {name: number for number, name in enumerate(log.graphs)}
    chosen = [names.get(graph, -1) if isinstance(graph, str) else int(graph) for graph in graphs]
    if len(set(chosen)) != len(chosen) or any(not 0 <= number < len(log.graphs) for number in chosen):
        raise ValueError(f"graphs must be among the {len(log.graphs)} of the log, each once")
    new = np.full(len(log.graphs), -1)
    new[chosen] = np.arange(len(chosen))
    rows = np.flatnonzero(new[log.graph_id] >= 0)
    actor, target = [log.actor[i] for i in rows], [log.object[i] for i in rows]
    entities = {*actor, *target}
    return EventLog(
        actor=actor,
        action=[log.action[i] for i in rows],
        object=target,
        time=log.time[rows],
        types={entity: log.types[entity] for entity in log.types if entity in entities},
        attributes={entity: log.attributes[entity] for entity in log.attributes if entity in entities},
        graph_id=new[log.graph_id[rows]],
        malicious=log.malicious & entities,
        name=log.name,
        words=[log.words[i] for i in rows],
        graphs=[log.graphs[number] for number in chosen],
    )


def _words(events: EventLog) -> list[tuple[str, ...]]:
    if events.words:
        return events.words

    def attribute(entity, name):
        return events.attributes.get(entity, {}).get(name, "")

    columns = zip(events.actor, events.action, events.object, strict=True)
    full = ((attribute(a, "exec"), action, attribute(o, "path")) for a, action, o in columns)
    return [tuple(word for word in words if word) for words in full]


# --- public layouts -----------------------------------------------------------------------------

_LINE = 2**24  # characters of a record
_CDM = re.compile(r"com\.bbn\.tc\.schema\.avro\.cdm\d+\.")
_ENTITIES = ("Subject", "FileObject", "NetFlowObject", "UnnamedPipeObject", "MemoryObject")
_ENTITIES += ("SrcSinkObject", "IpcObject", "RegistryKeyObject", "PacketSocketObject")
_NO_RECORD = (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError)


def _text(path: Path) -> Any:
    """A text file, compressed or not."""
    opener = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}.get(path.suffix, open)
    if path.suffix == ".xz":
        with open(path, "rb") as file:  # its header says how much memory it takes to read
            lzma.LZMADecompressor(memlimit=2**28).decompress(file.read(2**12), max_length=0)
    return opener(path, "rt", encoding="utf-8")


def _lines(path: Path, limit: int | None) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not empty; a `DataError` where the file or its compression is damaged.

    Args:
      path: the file, compressed or not.
      limit: bytes of text that it may hold, see `jgd.data.archives.unpack_limit`.
    """
    with reading(path):
        if not path.is_file():
            raise DataError(f"{path} does not exist: download the log and give its path")
        refuse_web_page(path)
        most = max(unpack_limit(path, limit, 2**26), 0)  # text becomes ten times as much memory
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
    """One line where a log does not fit into memory. What was read is let go: the error needs room."""
    try:
        yield
    except MemoryError:
        held = len(log.actor)
        for part in (log.actor, log.action, log.object, log.words, log.types):
            part.clear()
        raise DataError(f"{too_many} for this machine, of which {held} were read: {advice}") from None


def _inner(value: Any) -> Any:
    """The value of an Avro union, ``{"type": value}`` or null."""
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

    An event gives one row for ``predicateObject`` and one for ``predicateObject2``, as far as they are there.
    The type of an entity is what its record says (``SUBJECT_PROCESS``, ``FILE_OBJECT_FILE`` ...), or the
    record's own name where it says none (``NetFlowObject``). Records of hosts, principals, units and markers
    are passed over. Files may be compressed (``.gz``, ``.bz2``, ``.xz``).

    Args:
      paths: the files of one log, in order; entities may be described in any of them.
      malicious: names of malicious entities, as the ground-truth lists give them.
      limit: bytes of text that each file may hold; 64 MiB and 50 times its size by default, so that a small
        compressed file cannot fill the memory (``JGD_UNPACK_LIMIT`` sets it, too).
      name: of the log.

    Raises:
      DataError: for a missing or truncated file and for a line that is no such record, saying which.
    """
    files = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    log = EventLog(
        actor=[], action=[], object=[], time=np.zeros(0), malicious=frozenset(malicious), name=name
    )
    times: list[int] = []
    told = ", ".join(str(f) for f in files)
    with _within_memory(log, f"{told} hold too many events", "give fewer files"):
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
        raise DataError(f"there is no event in {told or 'no file at all'}")
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

    The order of the lines is their time. A node is named ``graph:node``, for numbers start anew in each
    graph. Of the 600 graphs of the data set, 300 to 399 are attacks.

    Args:
      path: the file, tab-separated, compressed or not.
      graphs: numbers of the graphs to read; all by default.
      limit: bytes of text that the file may hold; 64 MiB and 50 times its size by default, so that a small
        compressed file cannot fill the memory (``JGD_UNPACK_LIMIT`` sets it, too).
      name: of the log.

    Raises:
      DataError: for a missing or truncated file and for a line without these six columns, saying which.
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
        raise DataError(f"there is no edge of the graphs asked for in {path}")
    numbers, log.graph_id = np.unique(group, return_inverse=True)
    log.graphs = [str(n) for n in numbers]
    log.time = np.arange(len(group))
    return log


# --- recording ----------------------------------------------------------------------------------


class Script(NamedTuple):
    """A program to record.

    Attributes:
      name: of the graph that it becomes.
      source: Python source, run in an empty folder of its own.
      malicious: whether it plays an intrusion. What it does after the line ``sys.audit("jgd.attack")`` is
        one: its process, the processes it starts then, and the data, system files, folders and sockets they
        touch.
    """

    name: str
    source: str
    malicious: bool = False


_VARIABLE = "JGD_AUDIT_FILE"
_HOOK = """
import os, sys, time
from _thread import _local  # what is imported here is not seen in the recording: as little as there is

FILES = {"open", "os.remove", "os.rename", "os.chmod", "os.chown", "os.link", "os.symlink", "os.truncate",
         "os.utime", "shutil.copyfile", "shutil.copymode", "shutil.copystat", "shutil.move",
         "sqlite3.connect", "tempfile.mkstemp", "shutil.make_archive", "shutil.unpack_archive"}
FOLDERS = {"os.listdir", "os.scandir", "os.mkdir", "os.rmdir", "os.chdir", "shutil.rmtree",
           "shutil.copytree", "tempfile.mkdtemp"}
TWO = {"os.rename", "os.link", "os.symlink", "shutil.copyfile", "shutil.move", "shutil.copytree"}
SOCKETS = {"socket.connect", "socket.bind", "socket.sendto"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
here = os.path.dirname(os.path.abspath(__file__))
out = os.open(os.environ["JGD_AUDIT_FILE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
own = _local()


def absolute(path):
    if isinstance(path, int) or path is None:
        return None
    path = os.path.abspath(os.fsdecode(path))
    return None if path.startswith(here) or path.startswith("/dev/null") else path


def put(action, kind, target):
    row = time.time_ns(), os.getpid(), os.getppid(), sys.orig_argv[1:4], action, kind, target
    os.write(out, (ascii(row) + "\\n").encode())


def hook(event, args):
    if getattr(own, "busy", False):
        return
    own.busy = True
    try:
        if event == "import":
            put("import", "module", args[0])
        elif event in FILES or event in FOLDERS:
            action, kind = event, "file" if event in FILES else "directory"
            if event == "open":
                flags = args[2] if isinstance(args[2], int) else 0
                writes = flags & WRITES or set(args[1] or "") & set("wax+")
                action = "open.write" if writes else "open.read"
            for i, target in enumerate(args[: 2 if event in TWO else 1]):
                target = absolute(target)
                if target is not None:
                    put(action + ".to" * i, kind, target)
        elif event in SOCKETS:
            address = args[1]
            put(event, "socket", address if isinstance(address, str) else "%s:%s" % tuple(address[:2]))
        elif event == "subprocess.Popen":
            target = absolute(args[0])
            if target is not None:
                put(event, "file", target)
        elif event in ("exec", "compile"):
            target = args[0].co_filename if event == "exec" else args[1]
            if isinstance(target, (str, bytes)):
                target = os.fsdecode(target)
                memory = target.startswith("<")
                target = target if memory else absolute(target)
                if target is not None:
                    put(event, "memory" if memory else "file", target)
        elif event == "jgd.attack":
            put(event, "mark", "")
    except Exception:
        pass
    finally:
        own.busy = False


put("start", "mark", "")
sys.addaudithook(hook)
"""


def record(
    scripts: Sequence[Script] | None = None, *, timeout: float = 60.0, name: str = "recorded"
) -> EventLog:
    """Run scripts one after the other under an audit hook and keep what they and their Python children did.

    Each becomes a graph. Its entities are processes, files of the Python installation (``library``), files of
    its own folder (``data``), other files (``system``), ``directory``, ``module``, ``socket`` and ``memory``
    (compiled strings). Paths are written as ``work/...`` and ``lib/...`` under the folder of the script and
    of the installation, so that they do not depend on the machine.

    Args:
      scripts: what to run; `WORKLOADS` and `INTRUSIONS` by default.
      timeout: seconds that one script may take.
      name: of the log.

    Raises:
      ValueError: for no script at all.
      RuntimeError: where a script fails or takes too long, with the end of what it said.
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
        (root / "hook" / "sitecustomize.py").write_text(_HOOK)
        for number, script in enumerate(scripts):
            rows = _run(script, root, number, timeout)
            guilty |= _add_run(log, times, rows, number, root / f"run{number}", script.malicious)
            group += [number] * (len(times) - len(group))
    log.time, log.graph_id, log.malicious = np.asarray(times), np.asarray(group), frozenset(guilty)
    return log


def _run(script: Script, root: Path, number: int, timeout: float) -> list[tuple[Any, ...]]:
    """The raw records of one script, in order of time."""
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
            _, said = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its children too
            raise RuntimeError(f"script {script.name!r} took longer than {timeout} seconds") from None
    if process.returncode:
        raise RuntimeError(f"script {script.name!r} ended with {process.returncode}: {said[-500:]}")
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
    """The type of a file and its path without what differs between machines."""
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
        # What the interpreter was asked to run: its own name says nothing.
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


# --- what is recorded ---------------------------------------------------------------------------

_FAMILIES: dict[str, str] = {
    "json": """
import json
rows = [{"id": i, "tags": [str(j) for j in range(i % 4)]} for i in range(20 + 5 * N)]
for part in range(2 + N):
    with open(f"part{part}.json", "w") as f:
        json.dump(rows[part::2], f)
total = 0
for part in range(2 + N):
    with open(f"part{part}.json") as f:
        total += len(json.load(f))
""",
    "csv": """
import csv, statistics
with open("table.csv", "w", newline="") as f:
    w = csv.writer(f)
    w.writerows([[i, i * N, i % 3] for i in range(30)])
with open("table.csv", newline="") as f:
    values = [int(r[1]) for r in csv.reader(f)]
with open("summary.txt", "w") as f:
    f.write(str(statistics.mean(values)))
""",
    "zip": """
import os, zipfile
os.makedirs("docs")
for i in range(3 + N):
    with open(f"docs/page{i}.txt", "w") as f:
        f.write("text " * i)
with zipfile.ZipFile("docs.zip", "w") as z:
    for i in range(3 + N):
        z.write(f"docs/page{i}.txt")
with zipfile.ZipFile("docs.zip") as z:
    z.extractall("copy")
os.listdir("copy")
""",
    "tar": """
import os, tarfile
os.mkdir("src")
for i in range(2 + N):
    with open(f"src/file{i}.txt", "w") as f:
        f.write("x" * 10 * i)
with tarfile.open("src.tar.gz", "w:gz") as t:
    t.add("src")
with tarfile.open("src.tar.gz") as t:
    t.getnames()
""",
    "sqlite": """
import sqlite3
c = sqlite3.connect("base.db")
c.execute("create table t (a int, b text)")
c.executemany("insert into t values (?, ?)", [(i, str(i)) for i in range(20 * (N + 1))])
c.commit()
rows = c.execute("select count(*) from t").fetchall()
c.close()
with open("report.txt", "w") as f:
    f.write(str(rows))
""",
    "config": """
import configparser
c = configparser.ConfigParser()
for i in range(2 + N):
    c[f"part{i}"] = {"size": str(i), "name": "value"}
with open("settings.ini", "w") as f:
    c.write(f)
d = configparser.ConfigParser()
d.read("settings.ini")
with open("settings.txt", "w") as f:
    f.write(",".join(d.sections()))
""",
    "compress": """
import bz2, gzip, lzma
data = b"some text to squeeze " * 50 * (N + 1)
for module, name in ((gzip, "a.gz"), (bz2, "a.bz2"), (lzma, "a.xz")):
    with module.open(name, "wb") as f:
        f.write(data)
    with module.open(name, "rb") as f:
        assert f.read() == data
""",
    "unittest": """
import os, sys, unittest
for i in range(1 + N):
    with open(f"test_part{i}.py", "w") as f:
        f.write("import unittest\\nclass T(unittest.TestCase):\\n    def test(self):\\n        pass\\n")
sys.path.insert(0, os.getcwd())
unittest.TextTestRunner(stream=open("result.txt", "w")).run(unittest.defaultTestLoader.discover("."))
""",
    "compileall": """
import compileall, os
os.mkdir("package")
for i in range(2 + N):
    with open(f"package/module{i}.py", "w") as f:
        f.write(f"VALUE = {i}\\n")
compileall.compile_dir("package", quiet=1)
os.listdir("package")
""",
    "subprocess": """
import subprocess, sys
with open("input.txt", "w") as f:
    f.write("one two three")
with open("child.py", "w") as f:
    f.write("import sys\\nprint(len(open(sys.argv[1]).read().split()))\\n")
for i in range(1 + N):
    with open(f"output{i}.txt", "w") as f:
        subprocess.run([sys.executable, "child.py", "input.txt"], stdout=f, check=True)
""",
    "chain": """
import subprocess, sys
with open("last.py", "w") as f:
    f.write("import json\\njson.dump([1], open('last.json', 'w'))\\n")
with open("child.py", "w") as f:
    f.write("import subprocess, sys\\nsubprocess.run([sys.executable, 'last.py'], check=True)\\n")
for i in range(1 + N // 2):
    subprocess.run([sys.executable, "child.py"], check=True)
with open("last.json") as f:
    f.read()
""",
    "http": """
import http.server, threading, urllib.request
with open("index.html", "w") as f:
    f.write("<p>hello</p>")
class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Quiet)
threading.Thread(target=server.serve_forever, daemon=True).start()
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
for i in range(1 + N):
    with opener.open(f"http://127.0.0.1:{server.server_port}/index.html") as r:
        with open(f"page{i}.html", "wb") as f:
            f.write(r.read())
server.shutdown()
""",
    "echo": """
import socket, threading
server = socket.create_server(("127.0.0.1", 0))
def serve():
    for _ in range(1 + N):
        c, _ = server.accept()
        c.sendall(c.recv(100))
        c.close()
threading.Thread(target=serve, daemon=True).start()
with open("log.txt", "w") as f:
    for i in range(1 + N):
        c = socket.create_connection(server.getsockname())
        c.sendall(b"ping")
        f.write(c.recv(100).decode())
        c.close()
""",
    "logging": """
import logging, logging.handlers
h = logging.handlers.RotatingFileHandler("app.log", maxBytes=300, backupCount=2 + N)
log = logging.getLogger("app")
log.addHandler(h)
for i in range(20 + 5 * N):
    log.warning("message number %d", i)
h.close()
with open("app.log") as f:
    f.read()
""",
    "walk": """
import fnmatch, glob, os, pathlib
for i in range(2 + N):
    os.makedirs(f"tree/branch{i}/leaf")
    with open(f"tree/branch{i}/leaf/note.txt", "w") as f:
        f.write(str(i))
found = [p for folder, _, names in os.walk("tree") for p in fnmatch.filter(names, "*.txt")]
for p in sorted(glob.glob("tree/*/leaf/*.txt")):
    pathlib.Path(p).read_text()
""",
    "copy": """
import os, shutil, tempfile
folder = tempfile.mkdtemp()
for i in range(2 + N):
    with open(os.path.join(folder, f"file{i}.txt"), "w") as f:
        f.write("abc")
shutil.copytree(folder, "backup")
shutil.move("backup/file0.txt", "kept.txt")
shutil.copyfile("kept.txt", "kept2.txt")
shutil.rmtree(folder)
""",
    "pickle": """
import pickle, shelve
data = {i: list(range(i)) for i in range(10 + N)}
with open("data.pkl", "wb") as f:
    pickle.dump(data, f)
with open("data.pkl", "rb") as f:
    assert pickle.load(f) == data
import dbm.dumb
with dbm.dumb.open("store", "c") as d:
    for i in range(1 + N):
        d[str(i)] = b"value"
""",
    "xml": """
import html.parser, xml.etree.ElementTree as et
root = et.Element("items")
for i in range(5 + N):
    et.SubElement(root, "item", id=str(i))
et.ElementTree(root).write("items.xml")
for item in et.parse("items.xml").getroot():
    item.attrib["id"]
with open("items.html", "w") as f:
    f.write("<ul>" + "<li>x" * N + "</ul>")
with open("items.html") as f:
    html.parser.HTMLParser().feed(f.read())
""",
    "compare": """
import difflib, filecmp, hashlib
for i in range(2 + N):
    with open(f"text{i}.txt", "w") as f:
        f.write("line\\n" * (i + 3))
digests = []
for i in range(2 + N):
    with open(f"text{i}.txt", "rb") as f:
        digests.append(hashlib.sha256(f.read()).hexdigest())
filecmp.cmp("text0.txt", "text1.txt", shallow=False)
with open("difference.txt", "w") as f:
    f.writelines(difflib.unified_diff(["a\\n"] * N, ["b\\n"] * N))
""",
    "monitor": """
import json, os, platform, shutil
facts = {"python": platform.python_version(), "free": shutil.disk_usage(".").free}
for path in ("/etc/os-release", "/proc/meminfo", "/proc/loadavg", "/proc/cpuinfo", "/etc/hosts")[: 3 + N]:
    if os.path.exists(path):
        with open(path) as f:
            facts[path] = len(f.read())
with open("facts.json", "w") as f:
    json.dump(facts, f)
""",
}

WORKLOADS: tuple[Script, ...] = tuple(
    Script(f"{family}-{n}", f"N = {n}\n{source}") for n in range(3) for family, source in _FAMILIES.items()
)
"""Sixty everyday programs: twenty kinds, each in three sizes (``kind-0`` to ``kind-2``)."""

_HOME = """
import os, sys
for name in ("settings.ini", "notes.txt", "report.csv", ".netrc", "keys/id_rsa", "app.log"):
    os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
    with open(name, "w") as f:
        f.write("name = value\\n" * 5)
"""

_ATTACKS: dict[str, str] = {
    "reconnaissance": """
import json
sys.audit("jgd.attack")
found = {}
for path in ("/etc/passwd", "/etc/group", "/etc/hostname", "/etc/resolv.conf", "/etc/services",
             "/proc/version", "/proc/mounts", "/proc/net/tcp", "/proc/self/status", "/proc/self/maps"):
    try:
        with open(path) as f:
            found[path] = f.read(200)
    except OSError:
        pass
with open(".found", "w") as f:
    json.dump(found, f)
""",
    "dropper": """
import subprocess
sys.audit("jgd.attack")
with open(".update", "w") as f:
    f.write("import os\\nopen('.alive', 'w').close()\\nos.listdir('/proc')\\n")
os.chmod(".update", 0o700)
subprocess.run([sys.executable, ".update"], check=True)
os.remove(".update")
os.remove(".alive")
""",
    "scan": """
import socket
sys.audit("jgd.attack")
ports = []
for _ in range(15):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        ports.append(s.getsockname()[1])
open_ports = []
for port in ports:
    with socket.socket() as s:
        s.settimeout(0.2)
        if s.connect_ex(("127.0.0.1", port)) == 0:
            open_ports.append(port)
with open(".ports", "w") as f:
    f.write(str(open_ports))
""",
    "exfiltration": """
import shutil, socket, threading, zipfile
server = socket.create_server(("127.0.0.1", 0))
def sink():
    c, _ = server.accept()
    while c.recv(4096):
        pass
threading.Thread(target=sink, daemon=True).start()
sys.audit("jgd.attack")
os.mkdir(".stage")
for i, name in enumerate(("settings.ini", "notes.txt", "report.csv", ".netrc")):
    shutil.copyfile(name, f".stage/.{i}")
with zipfile.ZipFile(".stage/.z", "w") as z:
    for i in range(4):
        z.write(f".stage/.{i}")
with open(".stage/.z", "rb") as f, socket.create_connection(server.getsockname()) as c:
    c.sendall(f.read())
shutil.rmtree(".stage")
""",
    "traces": """
import shutil
sys.audit("jgd.attack")
for name in ("app.log", "report.csv", "notes.txt"):
    size = os.path.getsize(name)
    with open(name, "r+") as f:
        f.write("0" * size)
    os.truncate(name, 0)
    os.utime(name, (0, 0))
    os.rename(name, ".gone")
    os.remove(".gone")
shutil.rmtree("keys")
""",
    "persistence": """
sys.audit("jgd.attack")
os.makedirs(".config/autostart")
for name in (".profile", ".bashrc", ".config/autostart/agent.desktop"):
    with open(name, "a") as f:
        f.write("# harmless\\n")
    os.chmod(name, 0o755)
os.symlink(".profile", ".bash_login")
os.utime(".profile", (1, 1))
""",
    "credentials": """
import re
sys.audit("jgd.attack")
found = []
for folder, _, names in os.walk("."):
    for name in names:
        if re.search("rsa|netrc|ini|passw", name):
            with open(os.path.join(folder, name)) as f:
                found.append(f.read())
for path in ("/etc/passwd", "/etc/login.defs", "/etc/nsswitch.conf", "/proc/self/environ"):
    try:
        with open(path) as f:
            found.append(f.read())
    except OSError:
        pass
with open("keys/.all", "w") as f:
    f.write("".join(found)[:1000])
os.chmod("keys/.all", 0o600)
""",
    "backdoor": """
import socket, subprocess, threading
server = socket.create_server(("127.0.0.1", 0))
def operator():
    c, _ = server.accept()
    c.sendall(b"import os; os.listdir('/etc')")
    c.recv(100)
    c.close()
threading.Thread(target=operator, daemon=True).start()
sys.audit("jgd.attack")
with socket.create_connection(server.getsockname()) as c:
    order = c.recv(200).decode()
    exec(compile(order, "<order>", "exec"))
    subprocess.run([sys.executable, "-c", order], check=True)
    c.sendall(b"done")
""",
    "ransom": """
sys.audit("jgd.attack")
for name in ("settings.ini", "notes.txt", "report.csv", "keys/id_rsa", "app.log"):
    with open(name, "rb") as f:
        data = bytes(b ^ 85 for b in f.read())
    with open(name, "wb") as f:
        f.write(data)
    os.rename(name, name + ".locked")
    os.chmod(name + ".locked", 0o400)
with open("README_RESTORE", "w") as f:
    f.write("harmless")
""",
    "masquerade": """
import shutil, subprocess
sys.audit("jgd.attack")
os.mkdir(".cache")
with open(".cache/kworker", "w") as f:
    f.write("import os, sys, subprocess\\n"
            "if len(sys.argv) > 1:\\n"
            "    subprocess.run([sys.executable, sys.argv[1]], check=True)\\n"
            "else:\\n"
            "    open('/proc/self/cmdline').read() if os.path.exists('/proc/self/cmdline') else None\\n"
            "    os.listdir('/tmp')\\n")
shutil.copyfile(".cache/kworker", ".cache/ksoftirqd")
for name in ("kworker", "ksoftirqd"):
    os.chmod(f".cache/{name}", 0o700)
subprocess.run([sys.executable, ".cache/kworker", ".cache/ksoftirqd"], check=True)
for name in ("kworker", "ksoftirqd"):
    os.remove(f".cache/{name}")
""",
}

INTRUSIONS: tuple[Script, ...] = tuple(
    Script(f"intrusion-{name}", _HOME + source, malicious=True) for name, source in _ATTACKS.items()
)
"""Ten harmless scripts that do what intrusions do, within their folder and this machine."""
