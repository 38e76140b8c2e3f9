"""Comparisons of methods: what a cell holds, what is kept in a folder, and what is refused."""

import json
from dataclasses import dataclass, replace

import jax
import numpy as np
import pytest

import jgd.protocols.sweep as sweep
from jgd.condense import Average, Random
from jgd.core import in_memory
from jgd.data import artifact
from jgd.data.generate import contextual_sbm
from jgd.protocols.compare import graph_bytes
from jgd.protocols.evaluate import Protocol, evaluate
from jgd.protocols.sweep import Cell, MethodComparison, compare_methods

KEY = jax.random.key(2)
TASK = contextual_sbm(
    num_nodes=90, num_classes=3, num_features=6, mean_degree=6, signal=2.0, fractions=(0.4, 0.3, 0.3)
)
QUICK = Protocol(epochs=8, learning_rate=0.1, hidden=8, dropout=0.0)
OPTIONS = {
    "ratios": (0.25, 0.5),
    "seeds": 2,
    "networks": 2,
    "models": ("sgc",),
    "key": KEY,
    "protocol": QUICK,
}


@dataclass(frozen=True)
class Moody:
    """Refuses, or diverges."""

    label_ratio: float | None = 0.5
    nodes: int | None = None

    def __call__(self, key, task, loop=in_memory):
        if self.label_ratio == 0.25:
            raise ValueError("this is\n  not my kind of graph")
        raise FloatingPointError("the loss diverged")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep") / "cells"
    said = []
    return (
        compare_methods(["random", "average-sgc"], TASK, folder=folder, say=said.append, **OPTIONS),
        folder,
        said,
    )


def test_rows_tell_of_all_cells(finished):
    found, _, said = finished
    rows = found.rows()
    assert [(r.method, r.label_ratio) for r in rows] == [
        ("random", 0.25),
        ("random", 0.5),
        ("average-sgc", 0.25),
        ("average-sgc", 0.5),
    ]
    assert len(found.cells) == 8
    assert len(said) == 9
    labelled = int(TASK.train.sum())
    for row in rows:
        cells = [c for c in found.cells if (c.method, c.label_ratio) == (row.method, row.label_ratio)]
        assert row.nodes == int(row.label_ratio * labelled)
        values = np.asarray([c.test["sgc"] for c in cells])
        assert values.shape == row.test["sgc"].shape == (2, 2)
        assert row.accuracy("sgc") == (pytest.approx(values.mean()), pytest.approx(values.std()))
        assert row.time == (
            pytest.approx(np.mean([c.seconds for c in cells])),
            pytest.approx(row.seconds.std()),
        )
        assert row.bytes == np.mean([c.bytes for c in cells])
    assert found.original == {
        "nodes": 90,
        "edges": len(TASK.graph.senders),
        "bytes": graph_bytes(TASK.graph, TASK.labels),
        "labelled": labelled,
    }
    assert found.full["sgc"].shape == (4,)
    assert found.full["sgc"].mean() > 0.6
    metrics = found.metrics(command="typed")
    assert json.loads(json.dumps(metrics)) == json.loads(json.dumps(metrics, allow_nan=False))
    assert metrics["rows"][0]["scores"]["sgc"]["test_mean"] == rows[0].accuracy("sgc")[0]


def test_a_cell_is_a_set_and_its_networks(finished):
    found, folder, _ = finished
    for cell in found.cells:
        name = f"{cell.method}-{cell.label_ratio:g}-seed{cell.seed}"
        small = artifact.load(folder / f"{name}.npz")
        assert (len(small.targets), graph_bytes(small.data, small.targets)) == (cell.nodes, cell.bytes)
        assert small.provenance["method"] == cell.method
        assert Cell(**json.loads((folder / f"{name}.json").read_text())) == cell
    k_nets = jax.random.fold_in(jax.random.split(KEY)[1], cell.seed)
    scores = evaluate(small, TASK, models=("sgc",), seeds=2, key=k_nets, protocol=QUICK)["sgc"]
    np.testing.assert_array_equal(scores.test, np.asarray(cell.test["sgc"], np.float32))
    randoms = [artifact.load(folder / f"random-0.5-seed{i}.npz").extras["index"] for i in range(2)]
    assert not np.array_equal(*randoms)


def test_it_goes_on_where_it_ended(finished, tmp_path, monkeypatch):
    """And a set does not depend on what it is compared with."""
    found, folder, _ = finished
    compare_methods(["random"], TASK, folder=tmp_path, **OPTIONS | {"ratios": (0.5,)})
    drawn = (artifact.load(f / "random-0.5-seed1.npz").extras["index"] for f in (folder, tmp_path))
    np.testing.assert_array_equal(*drawn)
    original, calls, said = sweep._cell, [], []

    def interrupted(recipe, task, cell, *rest):
        calls.append((cell.method, cell.label_ratio, cell.seed))
        if len(calls) == 3 and not said:
            raise KeyboardInterrupt
        return original(recipe, task, cell, *rest)

    monkeypatch.setattr(sweep, "_cell", interrupted)
    methods = ["random", "average-sgc"]
    with pytest.raises(KeyboardInterrupt):
        compare_methods(methods, TASK, folder=tmp_path, **OPTIONS)
    calls.clear()
    again = compare_methods(methods, TASK, folder=tmp_path, say=said.append, **OPTIONS)
    done = {("random", 0.5, 0), ("random", 0.5, 1), *[("random", 0.25, s) for s in (0, 1)]}
    assert set(calls) == {(c.method, c.label_ratio, c.seed) for c in found.cells} - done
    assert not any("whole graph" in text for text in said)
    for before, after in zip(found.cells, again.cells, strict=True):
        assert replace(before, seconds=0.0) == replace(after, seconds=0.0)
    assert not [p for p in tmp_path.iterdir() if p.suffix == ".part"]


def test_methods_that_fail_leave_a_cell_that_says_so(tmp_path):
    said = []
    methods = {"moody": Moody(), "mean": Average(hops=1)}
    options = OPTIONS | {"seeds": 1, "networks": 1}
    found = compare_methods(methods, TASK, folder=tmp_path, say=said.append, **options)
    small, large, *others = found.rows()
    assert small.errors == ("this is not my kind of graph",)
    assert large.errors == ("the loss diverged",)
    assert all(row.errors == () for row in others)
    assert np.isnan([*small.accuracy("sgc"), *large.time, small.nodes]).all()
    assert any("made no set: the loss diverged" in text for text in said)
    assert found.metrics()["rows"][0]["scores"]["sgc"]["test_mean"] is None
    assert not list(tmp_path.glob("moody*"))  # so that it is tried again


def test_refusals(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "evaluate", lambda *_, **__: pytest.fail("nothing may run"))
    for methods, changes, told in (
        (["randm"], {}, "did you mean random"),
        ([], {}, "at least one method"),
        (["random"], {"ratios": ()}, "at least one ratio"),
        (["random"], {"ratios": (0.01,)}, "condensed nodes are impossible"),
        (["random"], {"models": ("gcm",)}, "did you mean sgc or gcn"),
        (["random"], {"models": ()}, "at least one model"),
        (["random"], {"seeds": 0}, "seeds must be at least 1"),
        (["random"], {"networks": 0}, "networks must be at least 1"),
        ({"mine": print}, {}, "mine must be one of jgd.condense"),
    ):
        with pytest.raises(ValueError, match=told):
            compare_methods(methods, TASK, folder=tmp_path / "new", **OPTIONS | changes)
    assert not (tmp_path / "new").exists()


def test_folders_of_something_else(finished, tmp_path, monkeypatch):
    _, folder, _ = finished
    monkeypatch.setattr(sweep, "evaluate", lambda *_, **__: pytest.fail("nothing may run"))
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    other = replace(TASK, graph=TASK.graph._replace(nodes=TASK.graph.nodes + 1))
    for methods, task, changes, told in (
        (["random"], other, {}, "with other checksum"),
        (["random"], TASK, {"networks": 3}, "with other networks"),
        (["random"], TASK, {"key": jax.random.key(0)}, "with other key"),
        (["random"], TASK, {"protocol": replace(QUICK, epochs=9)}, "with other protocol"),
        ({"average-sgc": Average(hops=3)}, TASK, {}, "with other settings of average-sgc at 0.25"),
        ({"random": Average()}, TASK, {}, "with other settings of random"),
    ):
        with pytest.raises(ValueError, match=told):
            compare_methods(methods, task, folder=folder, **OPTIONS | changes)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(ValueError, match="holds something else"):
        compare_methods(["random"], TASK, folder=tmp_path, **OPTIONS)
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        compare_methods(["random"], TASK, folder=tmp_path, **OPTIONS)


def test_a_damaged_cell_is_named(finished, tmp_path):
    import shutil

    shutil.copytree(finished[1], tmp_path / "copy")
    (tmp_path / "copy" / "random-0.5-seed0.json").write_text("{")
    with pytest.raises(ValueError, match=r"random-0.5-seed0.json is damaged"):
        compare_methods({"random": Random()}, TASK, folder=tmp_path / "copy", **OPTIONS)


def test_two_names_never_share_a_cell(tmp_path):
    """And names may be long, odd, or what a folder cannot hold."""
    names = ["a/b", "a-b", "a%2Fb", "..", "ä b", "x" * 400, "x" * 399 + "y", "new\nline", "\udcff"]
    files = {sweep._file(sweep._label(name, 0.25, 0)) for name in names}
    assert len(files) == len(names)
    assert all(len(name) < 200 and "/" not in name and not name.startswith(".") for name in files)
    assert len({sweep._label("a", ratio, 0) for ratio in (0.25, 0.2500001, 1.0)}) == 3
    assert sweep._file(sweep._label("average-sgc", 0.5, 1)) == "average-sgc-0.5-seed1"
    methods = {"a/b": Average(hops=0), "a-b": Average(hops=2)}
    options = OPTIONS | {"seeds": 1, "networks": 1, "ratios": (0.5,)}
    found = compare_methods(methods, TASK, folder=tmp_path, **options)
    assert [c.method for c in found.cells] == ["a/b", "a-b"]
    small = [artifact.load(tmp_path / f"{name}-0.5-seed0.npz") for name in ("a%2Fb", "a-b")]
    assert not np.array_equal(small[0].data.nodes, small[1].data.nodes)
    again = compare_methods(methods, TASK, folder=tmp_path, **options)
    assert again.cells == found.cells


def test_a_cell_says_itself_whose_it_is(finished, tmp_path):
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(finished[1], folder)
    shutil.copy(folder / "average-sgc-0.5-seed0.json", folder / "random-0.5-seed0.json")
    with pytest.raises(ValueError, match=r"another cell's \(method average-sgc, now random\)"):
        compare_methods(["random"], TASK, folder=folder, **OPTIONS)
    (folder / "random-0.5-seed0.json").write_text('{"method": "random"}')
    with pytest.raises(ValueError, match=r"random-0.5-seed0.json is damaged"):
        compare_methods(["random"], TASK, folder=folder, **OPTIONS)


def test_one_comparison_at_a_time(finished):
    from jgd.files import lock

    with lock(finished[1]), pytest.raises(ValueError, match="in use by process"):
        compare_methods(["random"], TASK, folder=finished[1], **OPTIONS)


def test_methods_keep_their_order():
    cells = tuple(Cell(m, r, 0, test={"gcn": [0.5]}, val={"gcn": [0.5]}) for r in (0.5, 0.25) for m in "ba")
    found = MethodComparison("toy", "transductive", {}, ("gcn",), {}, 0.0, cells)
    assert found.methods == ("b", "a")
    assert [(r.method, r.label_ratio) for r in found.rows()] == [
        ("b", 0.25),
        ("b", 0.5),
        ("a", 0.25),
        ("a", 0.5),
    ]
