"""Data of one's own on the command line: described, condensed, distilled, evaluated, compared."""

import contextlib
import importlib.util
import io
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from jgd.cli.main import main
from jgd.data import artifact

# Every kind of data of one's own.
EXAMPLES = """\
jgd describe papers/
jgd condense papers/ --undirected --nodes 6 --method average --baselines random --steps 100
jgd condense molecules.pt --per-class 2 --method random --baselines --steps 50
jgd condense flowers.csv --label-column species --standardize --per-class 3 --method random --baselines
jgd distill flowers.csv --label-column species --standardize --batch 16 --steps 100 --objectives kd
"""
QUICK = ["--seeds=1", "--steps=5"]


def write_papers(rng):
    """A folder of tables: 40 papers of three fields, four without a field."""
    fields = ("logic", "speech", "vision")
    Path("papers").mkdir()
    rows = [
        f"p{i},{fields[i % 3] if i > 3 else ''},{i % 3 + rng.normal():.3f},{'AB'[i % 2]}" for i in range(40)
    ]
    Path("papers/nodes.csv").write_text("id,label,score,venue\n" + "\n".join(rows) + "\n")
    ends = rng.integers(0, 40, (80, 2))
    Path("papers/edges.csv").write_text("source,target\n" + "".join(f"p{a},p{b}\n" for a, b in ends))


def write_molecules(rng):
    """Twenty graphs of PyTorch Geometric in a file: rings of three and of six."""
    path = Path(__file__).parents[1] / "data" / "test_own_files.py"
    spec = importlib.util.spec_from_file_location("own_file_writers", path)
    writers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writers)
    graphs = []
    for i in range(20):
        n = 3 + i % 2 * 3
        ring = np.stack([np.arange(n), (np.arange(n) + 1) % n])
        pairs = np.concatenate([ring, ring[::-1]], 1)
        x = rng.normal(size=(n, 2)).astype(np.float32)
        graphs.append(writers.data_of(x=x, edge_index=pairs, y=np.asarray([i % 2])))
    writers.torch_save(Path("molecules.pt"), graphs)


def write_flowers(rng):
    """A table of 60 flowers whose species the petal tells, in a scale of its own."""
    rows = [
        f"{i % 3 + rng.normal() / 4:.2f},{100 * (i % 3) + rng.normal():.1f},{'rb'[i % 2]},{'xyz'[i % 3]}"
        for i in range(60)
    ]
    Path("flowers.csv").write_text("sepal,petal,colour,species\n" + "\n".join(rows) + "\n")


def write_all():
    rng = np.random.default_rng(0)
    for write in (write_papers, write_molecules, write_flowers):
        write(rng)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder of its own with data of all three kinds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    write_all()
    return tmp_path


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The folder in which the examples ran, and the exit code and print of each."""
    folder = tmp_path_factory.mktemp("examples")
    results = {}
    with contextlib.chdir(folder):
        write_all()
        for line in EXAMPLES.splitlines():
            program, *argv = shlex.split(line)
            assert program == "jgd"
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                results[line] = main(argv), printed.getvalue()
    return folder, results


def mistake(capsys, *argv):
    assert main([str(a) for a in argv]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    return told.err


@pytest.mark.long
def test_the_examples_run(ran):
    folder, results = ran
    for line, (code, printed) in results.items():
        assert code == 0, line
        assert printed, line
    assert sorted(p.name for p in (folder / "runs").iterdir()) == [
        "distill-flowers-seed0",
        "flowers-random-3each-seed0",
        "molecules-random-2each-seed0",
        "papers-average-6nodes-seed0",
    ]
    metrics = json.loads((folder / "runs/distill-flowers-seed0/metrics.json").read_text())
    assert min(metrics["rows"][0]["accuracy"]) > 0.8
    said = artifact.load(folder / "runs/papers-average-6nodes-seed0/condensed.npz").provenance
    assert said["dataset"] == "papers"
    assert said["source"] == {"path": "papers/", "undirected": True}


@pytest.mark.long
def test_what_is_done_is_shown_again(ran, capsys, monkeypatch):
    folder, results = ran
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "80")
    for line, (_, printed) in results.items():
        if line.startswith(("jgd condense", "jgd distill")):
            assert main(shlex.split(line)[1:]) == 0
            told = capsys.readouterr()
            assert "holds this run already" in told.err
            assert told.out == printed  # with its seconds


def test_describe_tells_what_was_understood(here, capsys):
    assert main(["describe", "papers"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert max(map(len, printed.out.splitlines())) <= 100
    assert printed.out.startswith("papers: one graph, whose nodes have labels\n")
    for pattern in (
        r"nodes +40\n",
        r"edges +\d+, \d+ of them without their reverse \(directed\)",
        r"features +3 columns, float32",
        r"labels +3 classes; 4 rows without a label",
        r"logic \(0\) +12 +7 +3 +2\n",
        r"all +36 ",
        r"splits: \d+ train, \d+ val, \d+ test; 4 rows in none",
        r"  - labels mapped: logic -> 0, speech -> 1, vision -> 2\n",
        r"  - split made \(not in the file; stratified, seed 0\)",
        r"  - venue \(text\) became 2 indicators: A, B\n",
        r"  - some edges lack their reverse",
    ):
        assert re.search(pattern, printed.out), pattern


def test_describe_in_json_and_of_names(here, capsys):
    assert main(["describe", "papers", "--json", "--ignore", "venue", "--split", "0.5", "0.25", "0.25"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["facts"]["nodes"] == 40
    assert [c["name"] for c in found["classes"]] == ["logic", "speech", "vision"]
    assert [c["train"] for c in found["classes"]] == [6, 6, 6]
    assert found["splits"]["none"] == 4
    assert len(found["checksum"]) == 64
    assert main(["describe", "digits"]) == 0
    assert "1797" in capsys.readouterr().out
    assert main(["describe", "digits-images"]) == 0
    assert "shape     8 x 8 x 1" in capsys.readouterr().out


def test_describe_of_sets_of_graphs_and_of_tables(here, capsys):
    assert main(["describe", "molecules.pt"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"nodes +90; 3 to 6 a graph, 4\.5 on average", printed)
    assert re.search(r"direction +every one with its reverse", printed)
    assert main(["describe", "flowers.csv", "--label-column", "colour", "--ignore", "species"]) == 0
    printed = capsys.readouterr().out
    assert "flowers: examples without edges" in printed
    assert "features  2 columns" in printed


@pytest.mark.long
def test_evaluate_finds_the_data_again_and_changed_data_are_noticed(ran, monkeypatch, capsys):
    monkeypatch.chdir(ran[0])
    small = "runs/papers-average-6nodes-seed0/condensed.npz"
    record = json.loads(Path(small).with_name("experiment.json").read_text())
    assert len(record["checksum"]) == 64
    assert main(["evaluate", small, *QUICK]) == 0
    told = capsys.readouterr().err
    assert "undirected, as requested" in told
    assert "other data" not in told
    nodes = Path("papers/nodes.csv")
    nodes.write_text(nodes.read_text().replace(",A", ",B", 1))
    again = shlex.split(EXAMPLES.splitlines()[1])[1:]
    assert "other data" in mistake(capsys, *again, "--quiet")
    assert main(["evaluate", small, *QUICK]) == 0
    assert "was made from other data than this papers" in capsys.readouterr().err
    Path("papers").rename("moved")
    told = mistake(capsys, "evaluate", small)
    assert "was made from papers/, which is not here: say where with --dataset PATH" in told
    Path("moved").rename("papers")


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "count", "options"),
    [
        ("molecules-random-2each-seed0", 4, ["--dataset", "molecules.pt"]),
        ("flowers-random-3each-seed0", 9, ["--dataset", "flowers.csv", "--label-column", "species"]),
    ],
)
def test_evaluate_sets_of_graphs_and_tables(name, count, options, ran, monkeypatch, capsys):
    """From the file alone, which knows its data and how they were read, and with data that are named."""
    monkeypatch.chdir(ran[0])
    small = f"runs/{name}/condensed.npz"
    scaled = ["--standardize"] if "flowers.csv" in options else []
    printed = []
    for more in ([], [*options, *scaled]):
        assert main(["evaluate", small, *QUICK, *more, "--quiet"]) == 0
        told = capsys.readouterr()
        assert told.err == ""
        assert told.out.startswith(f"{small}: {count} condensed examples of ")
        printed.append(told.out.partition("\n")[2])
    assert printed[0] == printed[1]


@pytest.mark.long
def test_compare_names_its_folder_by_the_data(here, capsys):
    argv = "compare papers/ --methods random --sizes 0.5 --seeds 1 --quiet --networks sgc"
    assert main([*argv.split(), *QUICK]) == 0
    assert "written to runs/compare-papers-seed0: report.html" in capsys.readouterr().out
    assert sorted(p.name for p in Path("runs/compare-papers-seed0/cells").iterdir()) == [
        "full-1.json",
        "random-0.5-seed0.json",
        "random-0.5-seed0.npz",
        "sweep.json",
    ]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["condense", "molecules.pt", "--method=clustgdd", "--quiet"], "no method for graphs is called"),
        (["condense", "flowers.csv", "--label-column=species", "--method=gcond", "--quiet"], "for arrays"),
        (["condense", "flowers.csv"], "flowers.csv has no column label or y or class or target"),
        (["condense", "papers", "--method=mirage", "--quiet"], "no method for nodes is called 'mirage'"),
        (["condense", "molecules.pt", "--setting=inductive", "--quiet"], "--setting is for graphs with"),
        (["compare", "molecules.pt", "--sizes", "1.5", "--quiet"], "per_class must be a whole number"),
        (["distill", "papers"], "papers is made of graphs"),
        (["condense", "nowhere.csv"], "there is no file or folder nowhere.csv"),
        (["condense", "nowhere"], "no dataset is called 'nowhere', and no file or folder is"),
        (["describe", "cora", "--undirected"], "--undirected is for data of your own, but cora is the name"),
        (["describe", "papers", "--label-column", "score2"], "nodes.csv has no column 'score2'"),
        (["describe", "papers", "--image-size", "4"], "size is no option of this format"),
        (["describe", "papers", "--split", "0.5", "0.5", "0.5"], "a split is three fractions that add up to"),
        (["describe", "papers", "--split-seed", "-1"], "seed must be a whole number"),
        (["describe", "broken"], "broken/nodes.csv, line 2: 3 cells, but the header has 2 columns"),
    ],
)
def test_mistakes_are_told_in_one_line(here, capsys, argv, message):
    Path("broken").mkdir()
    Path("broken/nodes.csv").write_text("id,label\n1,2,3\n")
    Path("broken/edges.csv").write_text("source,target\n")
    told = mistake(capsys, *argv)
    assert message in told
    assert not Path("runs").exists()
