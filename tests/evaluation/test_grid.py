"""Comparisons of methods: what a cell holds, what is kept in a folder, and what is refused."""

import json
from dataclasses import dataclass, replace

import jax
import numpy as np
import pytest

from jgd.condense import Average, Random
from jgd.core import in_memory
from jgd.data import artifact, contextual_sbm
from jgd.evaluation import EvalConfig, evaluate
from jgd.evaluation._grid import Cell, Grid, cell_file, grid
from jgd.evaluation.kinds.nodes import NODES

KEY = jax.random.key(2)
TASK = contextual_sbm(
    num_nodes=90, num_classes=3, num_features=6, mean_degree=6, signal=2.0, fractions=(0.4, 0.3, 0.3)
)
QUICK = EvalConfig(steps=8, learning_rate=0.1, hidden=8, dropout=0.0)
OPTIONS = {
    "sizes": (0.25, 0.5),
    "seeds": 2,
    "repeats": 2,
    "networks": ("sgc",),
    "key": KEY,
    "config": QUICK,
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
        grid(["random", "average-sgc"], TASK, folder=folder, log=said.append, **OPTIONS),
        folder,
        said,
    )


@pytest.mark.long
def test_rows_tell_of_all_cells(finished):
    found, _, said = finished
    rows = found.rows()
    assert [(r.method, r.size) for r in rows] == [
        ("random", 0.25),
        ("random", 0.5),
        ("average-sgc", 0.25),
        ("average-sgc", 0.5),
    ]
    assert len(found.cells) == 8
    assert len(said) == 9
    labelled = int(TASK.train.sum())
    assert found.budget == "label_ratio"
    for row in rows:
        cells = [c for c in found.cells if (c.method, c.size) == (row.method, row.size)]
        assert row.sizes["nodes"] == int(row.size * labelled)
        values = np.asarray([c.test["sgc"]["accuracy"] for c in cells])
        assert values.shape == row.test["sgc"]["accuracy"].shape == (2, 2)
        assert row.score("sgc") == (pytest.approx(values.mean()), pytest.approx(values.std()))
        assert row.time == (
            pytest.approx(np.mean([c.seconds for c in cells])),
            pytest.approx(row.seconds.std()),
        )
        assert row.sizes["bytes"] == np.mean([c.sizes["bytes"] for c in cells])
    assert found.original == NODES.size(TASK)
    assert found.full["sgc"]["accuracy"].shape == (4,)
    assert found.full["sgc"]["accuracy"].mean() > 0.6
    metrics = found.record(command="typed")
    assert json.loads(json.dumps(metrics)) == json.loads(json.dumps(metrics, allow_nan=False))
    assert metrics["rows"][0]["scores"]["sgc"]["accuracy_mean"] == rows[0].score("sgc")[0]


@pytest.mark.long
def test_a_cell_is_a_set_and_its_networks(finished):
    found, folder, _ = finished
    for cell in found.cells:
        name = f"{cell.method}-{cell.size:g}-seed{cell.seed}"
        small = artifact.load(folder / f"{name}.npz")
        assert NODES.size(small) == cell.sizes
        assert small.provenance["method"] == cell.method
        assert Cell(**json.loads((folder / f"{name}.json").read_text())) == cell
    k_nets = jax.random.fold_in(jax.random.split(KEY)[1], cell.seed)
    scores = evaluate(small, TASK, networks=("sgc",), seeds=2, key=k_nets, config=QUICK)["sgc"]
    np.testing.assert_array_equal(scores.seeds(), cell.test["sgc"]["accuracy"])
    randoms = [artifact.load(folder / f"random-0.5-seed{i}.npz").extras["index"] for i in range(2)]
    assert not np.array_equal(*randoms)


@pytest.mark.long
def test_it_continues_where_it_ended(finished, tmp_path):
    """And a set does not depend on what it is compared with."""
    found, folder, _ = finished
    grid(["random"], TASK, folder=tmp_path, **OPTIONS | {"sizes": (0.5,)})
    drawn = (artifact.load(f / "random-0.5-seed1.npz").extras["index"] for f in (folder, tmp_path))
    np.testing.assert_array_equal(*drawn)
    said, methods = [], ["random", "average-sgc"]

    def interrupt(text):
        said.append(text)
        if len(said) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grid(methods, TASK, folder=tmp_path, log=interrupt, **OPTIONS)
    done = {("random", 0.5, 0), ("random", 0.5, 1), ("random", 0.25, 0), ("random", 0.25, 1)}
    assert [text.split(": ")[1] for text in said[:2]] == [f"random at 0.25, seed {s}" for s in (0, 1)]
    said.clear()
    again = grid(methods, TASK, folder=tmp_path, log=said.append, **OPTIONS)
    left = [c for c in found.cells if (c.method, c.size, c.seed) not in done]
    wanted = [f"{c.method} at {c.size:g}, seed {c.seed}" for c in left]
    assert [text.split(": ")[1] for text in said] == wanted  # and not the whole data
    for before, after in zip(found.cells, again.cells, strict=True):
        assert replace(before, seconds=0.0) == replace(after, seconds=0.0)
    assert not [p for p in tmp_path.iterdir() if p.suffix == ".part"]


@pytest.mark.long
def test_methods_that_fail_leave_a_cell_that_says_so(tmp_path):
    said = []
    methods = {"moody": Moody(), "mean": Average(hops=1)}
    options = OPTIONS | {"seeds": 1, "repeats": 1}
    found = grid(methods, TASK, folder=tmp_path, log=said.append, **options)
    small, large, *others = found.rows()
    assert small.errors == ("this is not my kind of graph",)
    assert large.errors == ("the loss diverged",)
    assert all(row.errors == () for row in others)
    assert np.isnan([*small.score("sgc"), *large.time]).all()
    assert small.sizes == {}
    assert any("made no set: the loss diverged" in text for text in said)
    assert found.record()["rows"][0]["scores"]["sgc"]["accuracy_mean"] is None
    assert "moody at 0.25: this is not my kind of graph" in found.comparison().notes
    assert not list(tmp_path.glob("moody*"))  # so that it is tried again


def test_refusals(tmp_path):
    for methods, changes, told in (
        (["randm"], {}, "did you mean random"),
        ([], {}, "at least one method"),
        (["random"], {"sizes": ()}, "at least one size"),
        (["random"], {"sizes": (0.01,)}, "condensed nodes are impossible"),
        (["random"], {"networks": ("gcm",)}, "did you mean sgc or gcn"),
        (["random"], {"networks": ()}, "at least one network"),
        (["random"], {"seeds": 0}, "seeds must be at least 1"),
        (["random"], {"repeats": 0}, "repeats must be at least 1"),
        ({"mine": print}, {}, "mine must be one of jgd.condense"),
    ):
        with pytest.raises(ValueError, match=told):
            grid(methods, TASK, folder=tmp_path / "new", **OPTIONS | changes)
    assert not (tmp_path / "new").exists()


def test_folders_of_something_else(finished, tmp_path):
    _, folder, _ = finished
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    other = replace(TASK, graph=TASK.graph._replace(nodes=TASK.graph.nodes + 1))
    for methods, task, changes, told in (
        (["random"], other, {}, "with other checksum"),
        (["random"], TASK, {"repeats": 3}, "with other repeats"),
        (["random"], TASK, {"key": jax.random.key(0)}, "with other key"),
        (["random"], TASK, {"config": replace(QUICK, steps=9)}, "with other config"),
        ({"average-sgc": Average(hops=3)}, TASK, {}, "with other settings of average-sgc at 0.25"),
        ({"random": Average()}, TASK, {}, "with other settings of random"),
    ):
        with pytest.raises(ValueError, match=told):
            grid(methods, task, folder=folder, **OPTIONS | changes)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(ValueError, match="holds something else"):
        grid(["random"], TASK, folder=tmp_path, **OPTIONS)
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        grid(["random"], TASK, folder=tmp_path, **OPTIONS)


def test_a_damaged_cell_is_named(finished, tmp_path):
    import shutil

    shutil.copytree(finished[1], tmp_path / "copy")
    (tmp_path / "copy" / "random-0.5-seed0.json").write_text("{")
    with pytest.raises(ValueError, match=r"random-0.5-seed0.json is damaged"):
        grid({"random": Random()}, TASK, folder=tmp_path / "copy", **OPTIONS)


@pytest.mark.long
def test_two_names_never_share_a_cell(tmp_path):
    """And names may be long, odd, or what a folder cannot hold."""
    names = ["a/b", "a-b", "a%2Fb", "..", "ä b", "x" * 400, "x" * 399 + "y", "new\nline", "\udcff"]
    files = {cell_file(name, 0.25, 0) for name in names}
    assert len(files) == len(names)
    assert all(len(name) < 200 and "/" not in name and not name.startswith(".") for name in files)
    assert len({cell_file("a", size, 0) for size in (0.25, 0.2500001, 1.0)}) == 3
    assert cell_file("average-sgc", 0.5, 1) == "average-sgc-0.5-seed1"
    methods = {"a/b": Average(hops=0), "a-b": Average(hops=2)}
    options = OPTIONS | {"seeds": 1, "repeats": 1, "sizes": (0.5,)}
    found = grid(methods, TASK, folder=tmp_path, **options)
    assert [c.method for c in found.cells] == ["a/b", "a-b"]
    small = [artifact.load(tmp_path / f"{name}-0.5-seed0.npz") for name in ("a%2Fb", "a-b")]
    assert not np.array_equal(small[0].data.nodes, small[1].data.nodes)
    again = grid(methods, TASK, folder=tmp_path, **options)
    assert again.cells == found.cells


def test_a_cell_says_itself_whose_it_is(finished, tmp_path):
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(finished[1], folder)
    shutil.copy(folder / "average-sgc-0.5-seed0.json", folder / "random-0.5-seed0.json")
    with pytest.raises(ValueError, match=r"another cell's \(method average-sgc, now random\)"):
        grid(["random"], TASK, folder=folder, **OPTIONS)
    (folder / "random-0.5-seed0.json").write_text('{"method": "random"}')
    with pytest.raises(ValueError, match=r"random-0.5-seed0.json is damaged"):
        grid(["random"], TASK, folder=folder, **OPTIONS)


def test_one_comparison_at_a_time(finished):
    from jgd.files import lock

    with lock(finished[1]), pytest.raises(ValueError, match="in use by process"):
        grid(["random"], TASK, folder=finished[1], **OPTIONS)


def test_methods_keep_their_order():
    half = {"gcn": {"accuracy": [0.5]}}
    cells = tuple(Cell(m, r, 0, test=half, val=half) for r in (0.5, 0.25) for m in "ba")
    about = ("toy", "nodes", "transductive", "label_ratio", {}, ("gcn",), ("accuracy",))
    found = Grid(*about, {}, 0.0, cells, QUICK)
    assert found.methods == ("b", "a")
    assert [(r.method, r.size) for r in found.rows()] == [
        ("b", 0.25),
        ("b", 0.5),
        ("a", 0.25),
        ("a", 0.5),
    ]
