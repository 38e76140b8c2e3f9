"""Data of one's own on the command line: described, condensed, distilled, evaluated, compared."""

import importlib.util
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from jgd.cli.main import main
from jgd.data import artifact

# The commands of README's section on data of one's own, exactly.
EXAMPLES = """\
jgd describe papers/
jgd condense papers/ --undirected --nodes 6 --method average --baselines random --epochs 100
jgd evaluate runs/papers-average-6nodes-seed0/condensed.npz --models gcn --epochs 100
jgd condense-graphs molecules.pt --graphs-per-class 2 --method random-graphs --baselines --steps 50
jgd distill flowers.csv --label-column species --standardize --batch 16 --steps 100 --objectives ce kd
"""
SMALL = ["--method=average", "--baselines", "--models", "mlp", "--seeds=1", "--epochs=2", "--quiet"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def papers(rng):
    """A folder of tables: 40 papers of three fields, four without a field, cited within their field."""
    fields = ("logic", "speech", "vision")
    Path("papers").mkdir()
    rows = [
        f"p{i},{fields[i % 3] if i > 3 else ''},{i % 3 + rng.normal():.3f},{'AB'[i % 2]}" for i in range(40)
    ]
    Path("papers/nodes.csv").write_text("id,label,score,venue\n" + "\n".join(rows) + "\n")
    ends = [(int(a), int(a - a % 3 + b) % 39 + a % 3 % 2) for a, b in rng.integers(0, 36, (80, 2))]
    Path("papers/edges.csv").write_text("source,target\n" + "".join(f"p{a},p{b}\n" for a, b in ends))
    return Path("papers")


@pytest.fixture
def molecules(rng):
    """Twenty graphs of PyTorch Geometric in a file."""
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
    return writers.torch_save(Path("molecules.pt"), graphs)


@pytest.fixture
def flowers(rng):
    rows = [
        f"{i % 3 + rng.normal() / 4:.2f},{100 * (i % 3) + rng.normal():.1f},{'rb'[i % 2]},{'xyz'[i % 3]}"
        for i in range(60)
    ]
    Path("flowers.csv").write_text("sepal,petal,colour,species\n" + "\n".join(rows) + "\n")
    return Path("flowers.csv")


def mistake(capsys, *argv):
    assert main([str(a) for a in argv]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    return told.err


def test_the_examples_of_the_readme_run(papers, molecules, flowers, capsys):
    for line in EXAMPLES.splitlines():
        program, *argv = shlex.split(line)
        assert program == "jgd"
        assert main(argv) == 0, line
        printed = capsys.readouterr()
        assert printed.out
    assert sorted(p.name for p in Path("runs").iterdir()) == [
        "distill-flowers-seed0",
        "molecules-random-graphs-seed0",
        "papers-average-6nodes-seed0",
    ]
    metrics = json.loads(Path("runs/distill-flowers-seed0/metrics.json").read_text())
    assert min(metrics["rows"][0]["accuracy"]) > 0.8  # petal, of a scale of its own, tells species apart
    said = artifact.load(Path("runs/papers-average-6nodes-seed0/condensed.npz")).provenance
    assert said["dataset"] == "papers"
    assert said["source"] == {"path": "papers/", "undirected": True}


def test_describe_tells_what_was_understood(papers, capsys):
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


def test_describe_in_json_and_of_names(papers, capsys):
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


def test_describe_of_sets_of_graphs_and_of_tables(molecules, flowers, capsys):
    assert main(["describe", "molecules.pt"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"nodes +90; 3 to 6 a graph, 4\.5 on average", printed)
    assert re.search(r"direction +every one with its reverse", printed)
    assert main(["describe", "flowers.csv", "--label-column", "colour", "--ignore", "species"]) == 0
    printed = capsys.readouterr().out
    assert "flowers: examples without edges" in printed
    assert "features  2 columns" in printed


def test_changed_data_are_noticed_and_evaluate_finds_them_again(papers, capsys):
    command = ["condense", "papers", *SMALL, "--nodes=6", "--undirected"]
    assert main(command) == 0
    out = Path("runs/papers-average-6nodes-seed0")
    record = json.loads((out / "experiment.json").read_text())
    assert len(record["checksum"]) == 64
    capsys.readouterr()
    assert main(["evaluate", str(out / "condensed.npz"), "--models", "mlp", "--seeds=1", "--epochs=2"]) == 0
    told = capsys.readouterr()
    assert "undirected, as asked for" in told.err
    assert "other data" not in told.err
    text = (papers / "nodes.csv").read_text()
    (papers / "nodes.csv").write_text(text.replace("p5,", "p5,", 1).replace(",A", ",B", 1))
    assert "other data" in mistake(capsys, *command)
    assert main(["evaluate", str(out / "condensed.npz"), "--models", "mlp", "--seeds=1", "--epochs=2"]) == 0
    assert "was made from other data than this papers" in capsys.readouterr().err
    papers.rename("moved")
    assert "was made from papers, which is not here: say where with --dataset PATH" in mistake(
        capsys, "evaluate", out / "condensed.npz"
    )


def test_compare_names_its_folder_by_the_data(papers, capsys):
    argv = ["compare", "papers/", "--methods", "random", "--label-ratios", "0.5", "--seeds=1", "--networks=1"]
    assert main([*argv, "--models", "mlp", "--epochs=2", "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    assert Path("runs/compare-papers-seed0/metrics.json").is_file()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["condense", "molecules.pt"], "molecules.pt is a set of graphs: `jgd condense-graphs molecules.pt`"),
        (["condense", "flowers.csv", "--label-column=species"], "flowers.csv is no graph: `jgd distill"),
        (["condense-graphs", "papers"], "papers is one graph: `jgd condense papers`"),
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
def test_mistakes_are_told_in_one_line(papers, molecules, flowers, capsys, argv, message):
    Path("broken").mkdir()
    Path("broken/nodes.csv").write_text("id,label\n1,2,3\n")
    Path("broken/edges.csv").write_text("source,target\n")
    told = mistake(capsys, *argv)
    assert message in told
    assert not Path("runs").exists()
