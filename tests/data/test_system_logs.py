"""Recorded, DARPA and StreamSpot events, and the graph that they become."""

import gzip
import io
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jgd.data import DataError, EventLog, system_logs
from jgd.data.system_logs import (
    INTRUSIONS,
    WORKLOADS,
    Script,
    darpa_e3,
    events_to_graph,
    record,
    streamspot,
    subset,
)
from jgd.graph import adjacency

# --- events to a graph ----------------------------------------------------------------------------

TYPES = {"p": "process", "q": "process", "f": "file", "s": "socket"}


def log(rows, **kw):
    actor, action, target, time = (list(c) for c in zip(*rows, strict=True))
    return EventLog(actor=actor, action=action, object=target, time=np.asarray(time), types=TYPES, **kw)


def test_events_to_graph():
    rows = [
        ("p", "write", "f", 5),
        ("p", "read", "f", 2),
        ("p", "read", "f", 2),  # the same event again
        ("q", "connect", "s", 3),
        ("q", "connect", "unknown", 3),
        ("p", "read", "f", 4),
    ]
    attributes = {"p": {"exec": "nginx"}, "f": {"path": "/etc/f"}}
    found = events_to_graph(log(rows, attributes=attributes))
    assert found.ids == ["p", "f", "q", "s"]  # by time
    assert found.types == ["process", "file", "process", "socket"]
    assert (
        found.documents[0]
        == found.documents[1]
        == ["nginx", "read", "/etc/f"] * 2 + ["nginx", "write", "/etc/f"]
    )
    assert found.documents[2] == found.documents[3] == ["connect"]
    a = adjacency(found.graph).toarray()
    assert a[1, 0] == 3  # object receives from actor, three events
    assert a[3, 2] == 1
    assert a.sum() == 4
    np.testing.assert_array_equal(found.graph.edges, [3, 1])
    few = events_to_graph(log(rows), kinds=["process", "socket"])
    assert few.ids == ["q", "s"]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("pq"), st.sampled_from("rw"), st.sampled_from("pfsx"), st.integers(0, 3)),
        min_size=1,
    )
)
def test_weights_count_different_events(rows):
    kept = {row for row in rows if row[2] != "x"}
    if not kept:
        with pytest.raises(ValueError, match="no event"):
            events_to_graph(log(rows))
        return
    found = events_to_graph(log(rows))
    a = adjacency(found.graph).toarray()
    assert a.sum() == len(kept)
    for actor in {r[0] for r in kept}:
        for target in {r[2] for r in kept}:
            count = sum(r[0] == actor and r[2] == target for r in kept)
            if actor in found.ids and target in found.ids:
                assert a[found.ids.index(target), found.ids.index(actor)] == count
    # a node is in its events' documents, twice where it acts on itself
    for node, document in zip(found.ids, found.documents, strict=True):
        assert len(document) == sum((r[0] == node) + (r[2] == node) for r in kept)


def test_graphs_stay_apart():
    rows = [("p", "a", "f", 3), ("p", "b", "f", 1), ("p", "c", "f", 2)]
    found = events_to_graph(log(rows, graph_id=np.asarray([1, 1, 0])))
    assert found.ids == ["p", "f"] * 2
    np.testing.assert_array_equal(found.graph_id, [0, 0, 1, 1])
    assert found.documents == [["c"], ["c"], ["b", "a"], ["b", "a"]]


def test_columns_must_fit():
    events = log([("p", "a", "f", 0)])
    events.action.append("b")
    with pytest.raises(ValueError, match="equally long"):
        events_to_graph(events)
    with pytest.raises(ValueError, match="every event"):
        events_to_graph(
            EventLog(
                actor=["p"] * 2,
                action=["a"] * 2,
                object=["f"] * 2,
                time=np.zeros(2),
                types=TYPES,
                words=[("a",)],
            )
        )


# --- DARPA ----------------------------------------------------------------------------------------

CDM = "com.bbn.tc.schema.avro.cdm18."


def cdm(kind, **value):
    return json.dumps({"datum": {CDM + kind: value}, "CDMVersion": "18", "source": "SOURCE"})


def uuid(name):
    return None if name is None else {CDM + "UUID": name}


def event(subject, first, second=None, **kw):
    value = {
        "type": "EVENT_RENAME",
        "timestampNanos": 1523280000000000000,
        "subject": uuid(subject),
        "predicateObject": uuid(first),
        "predicateObjectPath": {"string": "/srv/a"},
        "predicateObject2": uuid(second),
        "predicateObject2Path": None,
        "properties": {"map": {"exec": "mv"}},
    }
    return cdm("Event", **{**value, **kw})


LINES = [
    cdm("Host", uuid="H", hostName="h"),
    cdm("Principal", uuid="U", type="PRINCIPAL_LOCAL"),
    cdm("Subject", uuid="S", type="SUBJECT_PROCESS", parentSubject=None),
    cdm("FileObject", uuid="F", type="FILE_OBJECT_FILE", baseObject={}),
    cdm("FileObject", uuid="G", type="FILE_OBJECT_DIR", baseObject={}),
    cdm("NetFlowObject", uuid="N", localAddress="10.0.0.1"),
    cdm("UnnamedPipeObject", uuid="P", baseObject={}),
    event("S", "F", "G"),
    event("S", "N", timestampNanos=1523270000000000000, type="EVENT_CONNECT", properties=None),
    event(None, "F"),
    cdm("TimeMarker", tsNanos=1),
]


@pytest.mark.parametrize("packed", [False, True])
def test_darpa_layout(tmp_path, packed):
    first, second = tmp_path / "log.json", tmp_path / ("log.json.1.gz" if packed else "log.json.1")
    first.write_text("\n".join(LINES[:4]) + "\n")
    text = "\n".join(LINES[4:]) + "\n\n"
    second.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    found = darpa_e3([first, second], malicious=["G"])
    assert found.types == {
        "S": "SUBJECT_PROCESS",
        "F": "FILE_OBJECT_FILE",
        "G": "FILE_OBJECT_DIR",
        "N": "NetFlowObject",
        "P": "UnnamedPipeObject",
    }
    assert list(zip(found.actor, found.object, strict=True)) == [("S", "F"), ("S", "G"), ("S", "N")]
    assert found.words == [
        ("mv", "EVENT_RENAME", "/srv/a"),
        ("mv", "EVENT_RENAME"),
        ("EVENT_CONNECT", "/srv/a"),
    ]
    assert found.time.tolist() == [1523280000000000000] * 2 + [1523270000000000000]
    assert found.malicious == {"G"}
    graph = events_to_graph(found)
    assert graph.ids[:2] == ["S", "N"]  # the connection was first


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (LINES[7][:-30], "line 3: no record"),  # cut off
        ('{"datum": {}}', "line 3: no record"),
        ("[1, 2]", "line 3: no record"),
        (event("S", "F", timestampNanos=None), "line 3: no record"),
        (cdm("Subject", type="SUBJECT_PROCESS"), "line 3: no record"),
    ],
)
def test_damaged_darpa(tmp_path, bad, message):
    path = tmp_path / "log.json"
    path.write_text("\n".join([LINES[2], "", bad]))
    with pytest.raises(DataError, match=message):
        darpa_e3(path)


def test_truncated_files(tmp_path):
    whole = gzip.compress("\n".join(LINES).encode() * 50)
    path = tmp_path / "log.json.gz"
    path.write_bytes(whole[: len(whole) // 2])
    for read in (darpa_e3, streamspot):
        with pytest.raises(DataError, match=r"log\.json\.gz"):
            read(path)
        with pytest.raises(DataError, match="does not exist"):
            read(tmp_path / "nothing.tsv")
    path = tmp_path / "empty.json"
    path.write_text(LINES[0])
    with pytest.raises(DataError, match="no event"):
        darpa_e3(path)


@pytest.mark.parametrize(
    ("read", "lines", "what"),
    [(darpa_e3, LINES[7:9], "events"), (streamspot, ["1\ta\t2\tc\tr\t7"] * 3, "edges")],
)
def test_more_than_memory_holds(read, lines, what, monkeypatch, tmp_path):
    class Full(io.StringIO):
        def readline(self, size=-1):
            line = super().readline(size)
            if not line:
                raise MemoryError
            return line

    path = tmp_path / "log.gz"
    path.write_bytes(b"")
    monkeypatch.setattr(gzip, "open", lambda *_, **__: Full("".join(f"{line}\n" for line in lines)))
    with pytest.raises(DataError, match=f"too many {what} for this machine, of which 3 were read") as error:
        read(path)
    assert "\n" not in str(error.value)


# --- StreamSpot -----------------------------------------------------------------------------------

EDGES = ["1\ta\t2\tc\tr\t7", "1\ta\t3\tb\tw\t7", "1\ta\t2\tc\tr\t9", "1\ta\t2\tc\tr\t9"]


def test_streamspot_layout(tmp_path):
    path = tmp_path / "all.tsv"
    path.write_text("\n".join(EDGES) + "\n")
    found = streamspot(path)
    assert found.graphs == ["7", "9"]
    assert found.types == {"7:1": "a", "7:2": "c", "7:3": "b", "9:1": "a", "9:2": "c"}
    graph = events_to_graph(found)
    np.testing.assert_array_equal(graph.graph_id, [0, 0, 0, 1, 1])
    np.testing.assert_array_equal(graph.graph.edges, [1, 1, 2])  # two lines are two events
    some = streamspot(path, graphs={9})
    assert (some.graphs, len(some.actor)) == (["9"], 2)
    with pytest.raises(DataError, match="no edge"):
        streamspot(path, graphs={1})


@pytest.mark.parametrize("bad", ["1\ta\t2\tc\tr", "1\ta\t2\tc\tr\tx", "1\ta\t\tc\tr\t7", "no tabs at all"])
def test_damaged_streamspot(tmp_path, bad):
    path = tmp_path / "all.tsv"
    path.write_text("\n".join([*EDGES, bad]))
    with pytest.raises(DataError, match="line 5: expected six columns"):
        streamspot(path)


# --- recording ------------------------------------------------------------------------------------

ATTACK = Script(
    "attack",
    """
import os, subprocess, sys, json
open("before.txt", "w").close()
sys.audit("jgd.attack")
with open("after.txt", "w") as f:
    f.write("x")
os.rename("after.txt", "hidden")
with open("/etc/passwd") as f:
    f.read()
open("child.py", "w").write("import csv, os\\nopen('grown.txt', 'w').close()\\n")
subprocess.run([sys.executable, "child.py"], check=True)
""",
    malicious=True,
)


@pytest.fixture(scope="module")
def recorded():
    return record([WORKLOADS[0], ATTACK, next(s for s in WORKLOADS if s.name == "echo-1")])


def test_a_recording(recorded):
    assert recorded.graphs == ["json-0", "attack", "echo-1"]
    np.testing.assert_array_equal(np.unique(recorded.graph_id), [0, 1, 2])
    assert len(recorded.words) == len(recorded.actor) == len(recorded.time)
    first = [w for w, g in zip(recorded.words, recorded.graph_id, strict=True) if g == 0]
    assert ("main.py", "open.write", "work/part0.json") in first
    assert ("main.py", "open.read", "work/part1.json") in first
    assert ("main.py", "import", "json") in first
    found = events_to_graph(recorded)
    kinds = {0: set(), 1: set(), 2: set()}
    for kind, graph in zip(found.types, found.graph_id, strict=True):
        kinds[int(graph)].add(kind)
    assert {"process", "data", "library", "module"} <= kinds[0]
    assert "socket" in kinds[2]
    assert "system" in kinds[1]
    assert not any("jgd-record" in path or "sitecustomize" in path for w in recorded.words for path in w)


def test_what_of_a_recording_is_malicious(recorded):
    guilty = {name.partition(":")[2] for name in recorded.malicious}
    assert all(name.startswith("1:") for name in recorded.malicious)
    files = {name for name in guilty if not name.startswith("process")}
    assert files == {
        "data:work/after.txt",
        "data:work/hidden",
        "data:work/child.py",
        "data:work/grown.txt",
        "system:/etc/passwd",
    }
    assert len(guilty - files) == 2  # the script and its child
    spawned = [i for i, action in enumerate(recorded.action) if action == "spawn"]
    assert len(spawned) == 1
    assert recorded.types[recorded.object[spawned[0]]] == "process"
    assert recorded.object[spawned[0]] in recorded.malicious
    child = [
        w for a, w in zip(recorded.actor, recorded.words, strict=True) if a == recorded.object[spawned[0]]
    ]
    assert ("child.py", "open.write", "work/grown.txt") in child


def test_recordings_repeat():
    """The same but for time, process numbers and ports."""
    once, again = (record([WORKLOADS[1]]) for _ in range(2))
    assert once.words == again.words
    assert sorted(once.types.values()) == sorted(again.types.values())


def test_subset(recorded):
    part = subset(recorded, ["echo-1", "attack"])
    assert part.graphs == ["echo-1", "attack"]
    assert part.malicious == recorded.malicious
    assert set(part.types) == {*part.actor, *part.object}
    expected = [w for w, g in zip(recorded.words, recorded.graph_id, strict=True) if g != 0]
    assert part.words == expected
    np.testing.assert_array_equal(part.graph_id, 2 - recorded.graph_id[recorded.graph_id > 0])
    assert not subset(recorded, [0]).malicious
    for bad in ([3], [0, 0], ["nothing"]):
        with pytest.raises(ValueError, match="each once"):
            subset(recorded, bad)


def test_failures_are_reported():
    with pytest.raises(RuntimeError, match=r"(?s)'broken' ended with 1: .*ZeroDivisionError"):
        record([Script("broken", "1 / 0")])
    with pytest.raises(RuntimeError, match=r"longer than 0\.3 seconds"):
        record([Script("slow", "import time\ntime.sleep(30)")], timeout=0.3)
    with pytest.raises(ValueError, match="at least one"):
        record([])


def test_every_script_is_listed_and_packaged():
    package = Path(system_logs.__file__).parent
    there = {path.relative_to(package).as_posix() for path in package.rglob("*.txt")}
    listed = {f"scripts/workloads/{s.name[:-2]}.txt" for s in WORKLOADS}
    listed |= {f"scripts/intrusions/{s.name.removeprefix('intrusion-')}.txt" for s in INTRUSIONS}
    assert there == listed | {"scripts/home.txt", "scripts/hook.txt"}
    settings = tomllib.loads((package.parents[2] / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["jgd.data.system_logs"]
    assert there == {path.relative_to(package).as_posix() for p in patterns for path in package.glob(p)}


def test_what_there_is_to_record():
    assert (len(WORKLOADS), len(INTRUSIONS)) == (60, 10)
    names = [s.name for s in (*WORKLOADS, *INTRUSIONS)]
    assert len(set(names)) == 70
    assert not any(s.malicious for s in WORKLOADS)
    for script in INTRUSIONS:
        assert script.malicious
        assert script.source.count('sys.audit("jgd.attack")') == 1
    for script in (*WORKLOADS, *INTRUSIONS):
        compile(script.source, script.name, "exec")
        assert "://" not in script.source.replace("http://127.0.0.1", "")  # nothing leaves the machine
