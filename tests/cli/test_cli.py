"""The command line, called in process as a user would type it; one real process at the end."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

import jgd.cli.main as main_module
from jgd.cli.main import COMMANDS, main
from jgd.condense import METHODS, Average, ClustGDD, KCenter
from jgd.condense.common import method_name
from jgd.data import Training, artifact
from jgd.distill import OBJECTIVES
from jgd.evaluation import KINDS, PREDICTORS, EvalConfig
from jgd.evaluation.experiment import default_experiment
from jgd.metrics import METRICS
from jgd.nn import NETWORKS
from jgd.report.table import human_bytes, listing, show
from jgd.training import AUGMENTATIONS

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = ["--method=average", "--baselines", "random", "--networks", "mlp"]
SMALL += ["--seeds=2", "--steps=5", "--nodes=20"]
CONFIG = """
from dataclasses import dataclass
from pathlib import Path

from jgd.condense import ClustGDD
from jgd.evaluation import EvalConfig
from jgd.evaluation.experiment import Experiment


@dataclass(frozen=True)
class Mine(ClustGDD):
    def __call__(self, key, task, loop=None):
        if Path("stop").exists():
            raise KeyboardInterrupt
        small = super().__call__(key, task, loop=loop)
        if Path("stop later").exists():
            raise KeyboardInterrupt
        return small


config = Experiment(
    recipe=Mine(label_ratio=0.1, head_steps=4, refine_steps=0, hidden=8, restarts=1),
    networks=("mlp",), seeds=2, baselines=("random",), config=EvalConfig(steps=5, hidden=64, select_every=5),
)
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """Each test works in a folder of its own, where nothing may be left behind by a mistake."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A folder with a finished run, and what was printed."""
    out = tmp_path_factory.mktemp("cli") / "run"
    import contextlib
    import io

    printed, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
        assert main(["condense", *SMALL, "--out", str(out)]) == 0
    return out, printed.getvalue(), said.getvalue()


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(CONFIG)
    return path


def _mistake(capsys, *argv, leaves=()):
    """The one line that a mistake is told in."""
    assert main([str(a) for a in argv]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.endswith("\n")
    assert told.err.count("\n") == 1
    assert told.err.startswith("jgd: ")
    assert sorted(p.name for p in Path.cwd().iterdir()) == sorted(leaves)
    return told.err


# --- condense -----------------------------------------------------------------------------------


@pytest.mark.long
def test_condense_writes_outputs_and_says_where(finished):
    out, printed, said = finished
    assert sorted(p.name for p in out.iterdir()) == [
        "condensed.npz",
        "experiment.json",
        "metrics.json",
        "report.html",
    ]
    assert f"written to {out}" in printed
    assert "<html" in (out / "report.html").read_text()[:2000]
    assert "evaluating mlp" in said


def test_the_print_is_plain_text_headline_table_notes_and_place(finished):
    printed = finished[1]
    lines = printed.splitlines()
    assert max(map(len, lines[:-1])) <= 80  # the last one says where, which is as long as it is
    assert "\x1b" not in printed
    assert not re.search(r"[.,] {2,}\w", printed)
    headline, table, notes, place = printed.rstrip("\n").split("\n\n")
    text = " ".join(headline.split())
    assert text.startswith("Trained on the 20 nodes that average made of the 1,797 of digits, MLP reaches ")
    assert re.search(
        r"\d+\.\d ± \d+\.\d % test accuracy, .* the full graph and .* the baseline \(random", text
    )
    lines = table.splitlines()
    assert re.split(r"\s{2,}", lines[0].strip()) == ["Nodes", "Edges", "Size", "MLP %", "Fréchet", "Seconds"]
    assert [line.split("  ")[0] for line in lines[2:]] == ["full graph", "average", "random"]
    assert re.match(r"full graph +1,797 +19,858 +626 kB +\d+\.\d ± \d+\.\d +– +–", lines[2])
    assert notes.startswith("Scores: mean ± standard deviation over 2 seeds, on the test examples. Edges")
    assert place == f"written to {finished[0]}: condensed.npz, report.html, metrics.json"


def test_metrics_have_the_promised_schema(finished):
    metrics = json.loads((finished[0] / "metrics.json").read_text())
    wanted = (
        "dataset kind setting method config label_ratio node_ratio seed nodes edges bytes original sizes "
        "seconds full condensed baselines distances evaluation versions command"
    )
    assert set(wanted.split()) <= set(metrics)
    assert (metrics["kind"], metrics["setting"], metrics["seed"]) == ("nodes", "transductive", 0)
    assert metrics["original"] == metrics["sizes"]["full"]
    assert metrics["sizes"]["average"] == {name: metrics[name] for name in ("nodes", "edges", "bytes")}
    assert set(metrics["distances"]["Fréchet distance"]) == {"average", "random"}
    assert metrics["evaluation"]["steps"] == 5
    assert (metrics["dataset"], metrics["method"], metrics["nodes"]) == ("digits", "average", 20)
    assert metrics["label_ratio"] == pytest.approx(0.1)
    assert metrics["node_ratio"] == pytest.approx(20 / 1797)
    assert {"condense", "evaluate"} <= set(metrics["seconds"])
    for scores in (metrics["full"], metrics["condensed"], metrics["baselines"]["random"]):
        assert set(scores["mlp"]) == {"test_mean", "test_std", "val_mean", "seeds"}
        assert 0 <= scores["mlp"]["test_mean"] <= 1
        assert scores["mlp"]["seeds"] == 2
    assert metrics["command"].startswith("jgd condense --method=average --baselines random")
    assert metrics["versions"]["jax"]


def test_the_artefact_says_how_it_was_made(finished):
    small = artifact.load(finished[0] / "condensed.npz")
    said = small.provenance
    assert said["dataset"] == "digits"
    assert said["method"] == "average"
    assert said["seed"] == 0
    assert said["seconds"] >= 0
    assert re.fullmatch("[0-9a-f]{64}", said["checksum"])
    assert said["versions"]["jgd"]
    assert said["command"].startswith("jgd condense")


def test_a_finished_run_is_shown_and_other_settings_are_refused(finished, capsys):
    out, printed, _ = finished
    (out / "checkpoints" / "left").mkdir(parents=True)  # a process was killed before it had tidied up
    before = {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()}
    assert main(["condense", *SMALL, "--out", str(out)]) == 0
    told = capsys.readouterr()
    assert "condensing" not in told.err
    assert "holds this run already: --no-resume computes it again" in told.err
    assert told.out == printed
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    after = json.loads(before["metrics.json"])
    told = _mistake(capsys, "condense", *SMALL, "--seed", 1, "--out", out)
    assert "seed 0, now 1" in told
    assert "--no-resume" in told
    assert json.loads((out / "metrics.json").read_text()) == after


@pytest.mark.parametrize("what", ["damaged", "gone", "another version"])
def test_a_run_whose_outputs_are_not_its_own_is_computed_again(what, finished, tmp_path, capsys):
    out = shutil.copytree(finished[0], tmp_path / "copy")
    whole = (out / "condensed.npz").read_bytes()
    if what == "damaged":
        (out / "condensed.npz").write_bytes(whole[:-1])
    elif what == "gone":
        (out / "report.html").unlink()
    else:
        metrics = json.loads((out / "metrics.json").read_text())
        metrics["versions"]["jgd"] = "0"
        (out / "metrics.json").write_text(json.dumps(metrics))
    assert main(["condense", *SMALL, "--out", str(out)]) == 0
    assert "holds this run already" not in capsys.readouterr().err
    before = json.loads((finished[0] / "metrics.json").read_text())
    after = json.loads((out / "metrics.json").read_text())
    assert (after["condensed"], after["versions"]) == (before["condensed"], before["versions"])
    assert (out / "report.html").exists()
    artifact.load(out / "condensed.npz")


@pytest.mark.long
def test_quiet_and_no_resume(tmp_path, capsys):
    arguments = ["condense", *SMALL, "--quiet"]
    assert main(arguments) == 0
    told = capsys.readouterr()
    assert told.err == ""
    (out,) = (tmp_path / "runs").iterdir()
    assert out.name == "digits-average-20nodes-seed0"
    arguments += ["--seed", "1", "--out", str(out)]
    assert "seed 0, now 1" in _mistake(capsys, *arguments, leaves=["runs"])
    (out / "notes.txt").touch()
    assert main([*arguments, "--no-resume"]) == 0
    assert (out / "notes.txt").exists()
    assert '"seed": 1' in (out / "experiment.json").read_text()


def test_old_names_of_options_and_the_old_command(finished, capsys):
    """They are the same run, which is therefore shown again."""
    old = [part.replace("--networks", "--models").replace("--steps", "--epochs") for part in SMALL]
    graphs = [part.replace("--networks", "--models") for part in SMALL]
    assert main(["condense", *old, "--out", str(finished[0])]) == 0
    told = capsys.readouterr()
    assert told.out == finished[1]
    hints = ["jgd: note: --models is --networks now", "jgd: note: --epochs is --steps now"]
    assert told.err.splitlines()[:2] == hints
    assert "holds this run already" in told.err
    assert main(["condense-graphs", *graphs, "--out", str(finished[0]), "--quiet"]) == 0
    told = capsys.readouterr()
    assert told.out == finished[1]
    assert told.err == (
        "jgd: note: `jgd condense-graphs` is `jgd condense` now; settings of a method are given by "
        "--set NAME=VALUE\n"
    )
    assert main(["condense", "--help"]) == 0
    assert not re.search("--models|--epochs", capsys.readouterr().out)
    assert main([]) == 0
    assert "condense-graphs" not in capsys.readouterr().out


def test_a_command_runs_the_default_experiment_with_what_was_given(finished):
    said = json.loads((finished[0] / "experiment.json").read_text())["experiment"]
    usual = json.loads(json.dumps(default_experiment("digits", "average", nodes=20).settings()))
    changed = {name: said[name] for name in usual if said[name] != usual[name]}
    assert changed == {"networks": ["mlp"], "seeds": 2, "baselines": ["random"], "config.steps": 5}


def test_a_foreign_folder_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine" / "checkpoints").mkdir(parents=True)
    for more in ([], ["--no-resume"]):
        told = _mistake(capsys, "condense", *SMALL, "--out", tmp_path / "mine", *more, leaves=["mine"])
        assert "of something else" in told
    assert (tmp_path / "mine" / "checkpoints").is_dir()


@pytest.mark.long
def test_an_interrupted_run_goes_on(tmp_path, config, capsys):
    Path("stop later").touch()
    assert main(["run", str(config), "--out", "out"]) == 130
    told = capsys.readouterr().err
    assert told.splitlines()[-1] == "jgd: interrupted: the same command continues from the last checkpoint"
    stage = tmp_path / "out" / "checkpoints" / "head" / "stage.json"
    before = stage.read_bytes(), (tmp_path / "out" / "log.jsonl").read_bytes()
    assert not (tmp_path / "out" / "metrics.json").exists()

    Path("stop later").unlink()
    assert main(["run", str(config), "--out", "out"]) == 0
    assert "going on with the interrupted run" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["resumed"] is True
    assert not (tmp_path / "out" / "checkpoints").exists()
    assert (tmp_path / "out" / "log.jsonl").read_bytes() == before[1]  # no step ran twice
    assert main(["run", str(config), "--out", "whole", "--quiet"]) == 0
    whole, parts = (artifact.load(tmp_path / name / "condensed.npz") for name in ("whole", "out"))
    np.testing.assert_array_equal(whole.data.nodes, parts.data.nodes)


# --- run ----------------------------------------------------------------------------------------


def test_a_config_field_is_overridden(config, capsys):
    Path("stop").touch()  # the mark in the folder says what would be run
    arguments = "--recipe.label-ratio 0.3 --recipe.structure identity --networks gcn sgc --config.steps 7"
    assert main(["run", str(config), *arguments.split(), "--out", "there"]) == 130
    assert main(["run", str(config), "--recipe.nodes", "30", "--out", "other"]) == 130
    first, second = (
        json.loads(Path(name, "experiment.json").read_text())["experiment"] for name in ("there", "other")
    )
    assert first["recipe"] == "Mine"
    assert [first[f"recipe.{name}"] for name in ("label_ratio", "structure", "hidden")] == [
        0.3,
        "identity",
        8,
    ]
    assert first["networks"] == ["gcn", "sgc"]
    assert [first[f"config.{name}"] for name in ("steps", "hidden", "select_every")] == [7, 64, 5]
    assert (second["recipe.nodes"], second["recipe.label_ratio"]) == (30, None)
    capsys.readouterr()


def test_help_of_a_config_lists_fields_with_defaults(config, capsys):
    assert main(["run", str(config), "--help"]) == 0
    told = capsys.readouterr().out
    assert "--recipe.head-steps INT" in told
    assert "(default: 4)" in told
    assert "--recipe.features {smoothed,raw,sgc}" in told
    assert "--config.learning-rate FLOAT" in told
    assert "share of the edges in a class view" in told


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda p: p.stem)
def test_the_configs_in_the_repository_can_be_parsed(path, capsys):
    assert main(["run", str(path), "--help"]) == 0
    assert "--recipe.label-ratio" in capsys.readouterr().out


def test_default_experiments_use_official_settings():
    cora = default_experiment("cora", nodes=35)
    assert (cora.recipe.nodes, cora.recipe.label_ratio) == (35, None)
    assert default_experiment("cora", label_ratio=0.25).recipe.keep_edges == 0.06
    assert default_experiment("cora").recipe == ClustGDD(label_ratio=0.5)
    assert default_experiment("cora").config == EvalConfig()


def test_names_of_methods():
    assert [method_name(METHODS[name].make()) for name in METHODS] == list(METHODS)
    assert method_name(Average(hops=2, nodes=7)) == "average-sgc"
    assert method_name(Average(hops=1)) == "average"
    assert method_name(KCenter(hidden=3)) == "k-center"
    for kind in KINDS:
        assert set(KINDS[kind].make().baselines) <= set(METHODS.of_kind(kind))


# --- evaluate and export ------------------------------------------------------------------------


@pytest.mark.long
def test_evaluate(finished, tmp_path, capsys):
    file = finished[0] / "condensed.npz"
    arguments = "--networks mlp --seeds 2 --steps 5 --full --json scores.json --quiet"
    assert main(["evaluate", str(file), *arguments.split()]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert told.out.startswith(f"{file}: 20 condensed examples of digits\n")
    scores = json.loads((tmp_path / "scores.json").read_text())
    for name in ("condensed", "full"):
        one = scores[name]["mlp"]
        text = f"{100 * one['test_mean']:.1f} ± {100 * one['test_std']:.1f}"
        assert re.search(rf"^{name} +{re.escape(text)}$", told.out, re.M)
    assert scores["condensed"]["mlp"]["seeds"] == 2
    assert scores["full"]["mlp"]["test_mean"] > 0
    assert (scores["dataset"], scores["method"], scores["nodes"]) == ("digits", "average", 20)


def test_evaluate_mistakes(finished, tmp_path, capsys):
    good = finished[0] / "condensed.npz"
    assert "there is no file" in _mistake(capsys, "evaluate", "nothing.npz")
    assert "did you mean mlp?" in _mistake(capsys, "evaluate", good, "--networks", "mpl")
    told = _mistake(capsys, "evaluate", good, "--dataset", "sbm", "--networks", "mlp")
    assert "has 64 features, task 'sbm' has 32" in told
    assert "seeds must be at least 1" in _mistake(capsys, "evaluate", good, "--seeds", 0)
    assert "is a file" in _mistake(capsys, "evaluate", good, "--json", good / "x.json")
    (tmp_path / "bad.npz").write_bytes(good.read_bytes()[:3000])
    assert "damaged" in _mistake(capsys, "evaluate", "bad.npz", leaves=["bad.npz"])


# --- compare ------------------------------------------------------------------------------------

FEW = ["--methods", "random", "average-sgc", "--sizes", "0.1", "0.2", "--networks", "mlp"]
FEW += ["--seeds=1", "--repeats=1", "--steps=5", "--out", "few"]


@pytest.mark.long
def test_compare(capsys):
    assert main(["compare", "digits", *FEW]) == 0
    told = capsys.readouterr()
    assert sorted(p.name for p in Path("few").iterdir()) == ["cells", "metrics.json", "report.html"]
    headline, table, notes, place = told.out.rstrip("\n").split("\n\n")
    assert re.match(r"Networks trained on [24]0 nodes that \S+ made of 1,797 reach", headline)
    lines = table.splitlines()
    columns = ["Ratio", "Nodes", "Edges", "Size", "MLP %", "Seconds"]
    assert re.split(r"\s{2,}", lines[0].strip()) == columns
    rows = [re.split(r"\s{2,}", line)[:3] for line in lines[2:]]
    assert rows[1:] == [[name, ratio, n] for ratio, n in (("0.1", "20"), ("0.2", "40")) for name in FEW[1:3]]
    assert rows[0] == ["full graph", "–", "1,797"]
    assert max(map(len, told.out.splitlines())) <= 80
    assert notes.startswith("Scores: mean ± standard deviation over the networks of all sets")
    assert place == "written to few: report.html, metrics.json, cells"
    assert "4 of 4: average-sgc at 0.2, seed 0" in told.err
    metrics = json.loads(Path("few/metrics.json").read_text())
    assert [(r["method"], r["label_ratio"], r["nodes"]) for r in metrics["rows"]] == [
        ("random", 0.1, 20.0),
        ("random", 0.2, 40.0),
        ("average-sgc", 0.1, 20.0),
        ("average-sgc", 0.2, 40.0),
    ]
    assert metrics["command"].startswith("jgd compare digits --methods random")
    assert (metrics["evaluation"]["steps"], metrics["seed"]) == (5, 0)
    # Again, under old names, with one method more: only that one is made.
    old = [part.replace("--sizes", "--label-ratios").replace("--networks", "--models") for part in FEW]
    more = [*old[:3], "average", *old[3:]]
    assert main(["compare", "digits", *more]) == 0
    told = capsys.readouterr()
    assert "average-sgc" in told.out
    hints, lines = told.err.splitlines()[:2], told.err.splitlines()[2:]
    assert hints == [
        f"jgd: note: {name} now" for name in ("--label-ratios is --sizes", "--models is --networks")
    ]
    made = [line.split(": ")[1] for line in lines]
    assert made == ["average at 0.1, seed 0", "average at 0.2, seed 0"]
    small = artifact.load("few/cells/average-0.2-seed0.npz")
    assert len(small.targets) == 40
    # Other settings are refused, and so are folders of something else.
    told = _mistake(capsys, "compare", "digits", *FEW, "--steps=6", leaves=["few"])
    assert "with other config: choose another folder" in told
    Path("few/experiment.json").write_text("{}")
    assert "a run of something else" in _mistake(capsys, "compare", "digits", *FEW, leaves=["few"])


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ("digts", "did you mean digits"),
        ("--methods randm", "did you mean random"),
        ("--methods mirage", "no method for nodes is called 'mirage'"),
        ("--methods", "at least one method"),
        ("--methods random random", "named twice"),
        ("--sizes", "at least one size"),
        ("--sizes 2", "label_ratio must be in (0, 1], got 2"),
        ("--sizes 0.01", "choose between 10 and 200"),
        ("--networks gcm", "did you mean"),
        ("--seeds 0", "seeds must be at least 1"),
        ("--repeats 0", "repeats must be at least 1"),
        ("--out /dev/null/run", "/dev/null is a file"),
    ],
)
def test_mistakes_of_compare(argv, told, capsys):
    assert told in _mistake(capsys, "compare", *argv.split())


def test_networks_of_compare_were_a_number(capsys):
    """They are names now; a number means repeats, with a hint."""
    assert main(["compare", "--networks", "0"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == "jgd: note: --networks N is --repeats now"
    assert second == "jgd: repeats must be at least 1, got 0"


# --- import -------------------------------------------------------------------------------------


def test_import(finished, capsys, tmp_path):
    small = artifact.load(finished[0] / "condensed.npz")
    x, y = np.asarray(small.data.nodes), np.asarray(small.targets)
    a = np.triu(np.random.default_rng(0).random((20, 20)) < 0.2, 1)
    np.save("x.npy", x)
    np.save("y.npy", y)
    np.save("a.npy", (a + a.T).astype(np.float32))
    assert main(["import", "x.npy", "--labels", "y.npy", "--dataset", "digits"]) == 0
    told = capsys.readouterr().out
    assert "written to condensed.npz: 20 nodes of digits, no edges (adjacency I)" in told
    again = artifact.load("condensed.npz")
    np.testing.assert_array_equal(again.data.nodes, x)
    np.testing.assert_array_equal(again.targets, y)
    assert again.training.adjacency == "identity"
    assert again.provenance["checksum"] == small.provenance["checksum"]
    more = ["--adjacency", "a.npy", "--dataset", "digits", "--method", "theirs", "--out", "other.npz"]
    assert main(["import", "x.npy", *more]) == 0
    told = capsys.readouterr().out
    assert f"{2 * a.sum()} edges" in told
    assert "order of GCond's budget" in told
    assert artifact.load("other.npz").provenance["method"] == "theirs"
    assert main(["evaluate", "other.npz", "--networks", "mlp", "--seeds=1", "--steps=5", "--quiet"]) == 0
    assert "other.npz: 20 condensed examples of digits" in capsys.readouterr().out


def test_mistakes_of_import(capsys):
    np.save("x.npy", np.zeros((20, 5), np.float32))
    for argv, told in (
        (("x.npy",), "--dataset"),
        (("none.npy", "--dataset", "digits"), "there is no file none.npy"),
        (("x.npy", "--dataset", "digits"), "has shape (20, 5), task 'digits' has 64 features"),
        (("x.npy", "--dataset", "digts"), "did you mean digits"),
        (("x.npy", "--dataset", "digits", "--out", "x.npy"), "is an input itself"),
        (("x.npy", "--dataset", "digits", "--out", "."), "is a folder"),
    ):
        assert told in _mistake(capsys, "import", *argv, leaves=["x.npy"])


def test_export_round_trip(finished, tmp_path, capsys):
    source = finished[0] / "condensed.npz"
    small = artifact.load(source)
    assert main(["export", str(source), "--to", "npz", "--out", "plain.npz"]) == 0
    assert "written to plain.npz: 20 nodes" in capsys.readouterr().out
    with np.load("plain.npz", allow_pickle=False) as plain:
        assert np.array_equal(plain["x"], small.data.nodes)
        assert np.array_equal(plain["y"], small.targets)
        adj = np.zeros((20, 20), np.float32)
        adj[plain["receivers"], plain["senders"]] = plain["weights"]
        assert np.array_equal(plain["adj"], adj)
    assert main(["export", str(source), "--to", "networkx", "--out", "sub/graph.json"]) == 0
    graph = nx.node_link_graph(json.loads(Path("sub/graph.json").read_text()), edges="edges")
    assert len(graph) == 20
    assert [graph.nodes[i]["y"] for i in range(20)] == small.targets.tolist()
    assert np.allclose(graph.nodes[3]["x"], small.data.nodes[3])


def test_export_of_weighted_edges(tmp_path, capsys):
    from jgd.data import Condensed
    from jgd.graph import from_adjacency

    adj = np.asarray([[0.5, 0.25, 0], [0.25, 0.5, 0], [0, 0, 1]], np.float32)
    graph = from_adjacency(adj, np.eye(3, dtype=np.float32))
    small = Condensed(
        data=graph, targets=np.arange(3, dtype=np.int32), training=Training(adjacency="normalized")
    )
    artifact.save(small, tmp_path / "a.npz")
    assert main(["export", "a.npz", "--to", "npz"]) == 0
    assert "normalize=False" in capsys.readouterr().out
    with np.load("a.arrays.npz", allow_pickle=False) as plain:
        assert np.array_equal(plain["adj"], adj)
    assert main(["export", "a.npz", "--to", "networkx"]) == 0
    graph = nx.node_link_graph(json.loads(Path("a.json").read_text()), edges="edges")
    assert graph.edges[0, 1]["weight"] == 0.25
    capsys.readouterr()


def test_export_mistakes(finished, capsys, monkeypatch):
    source = finished[0] / "condensed.npz"
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "jgd[pyg]" in _mistake(capsys, "export", source, "--to", "pyg", "--out", "a.pt")
    assert "'pyg', 'networkx', 'npz'" in _mistake(capsys, "export", source, "--to", "csv")
    assert "--to" in _mistake(capsys, "export", source)
    assert "the input itself" in _mistake(capsys, "export", source, "--to", "npz", "--out", source)
    assert "is a folder" in _mistake(capsys, "export", source, "--to", "npz", "--out", source.parent)


# --- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ("condens", "did you mean condense?"),
        ("condense digts", "did you mean digits"),
        ("condense nothing-like-this", "known are cora"),
        ("condense --steps=0", "steps must be at least 1"),
        ("condense digits --method mirage", "no method for nodes is called 'mirage'"),
        ("condense digits-images --method gcond", "no method for arrays is called 'gcond'"),
        ("condense digits-images --networks gcn", "gcn does not read images"),
        ("condense digits-images --method herding --per-class 0", "per_class must be at least 1"),
        ("condense digits-images --setting inductive", "--setting is for graphs with classes of nodes"),
        ("condense --method gcond --set stepps=3", "no setting of GCond is called 'stepps'"),
        ("condense --set hidden", "a setting is written NAME=VALUE"),
        ("condense --label-ratio 1.5", "label_ratio must be in (0, 1], got 1.5"),
        ("condense --label-ratio 0", "label_ratio must be in (0, 1], got 0"),
        ("condense --label-ratio 0.01", "choose between 10 and 200"),
        ("condense --nodes 201", "choose between 10 and 200"),
        ("condense --nodes -3", "choose between 10 and 200"),
        ("condense --nodes 20 --label-ratio 0.1", "not by both"),
        ("condense --nodes many", "--nodes"),
        ("condense --networks gcn mpl", "no network is called 'mpl': did you mean mlp?"),
        ("condense --networks gcn gcn", "named twice"),
        ("condense --networks", "at least one network"),
        ("condense --baselines randm", "did you mean random"),
        ("condense --method clustgd", "did you mean clustgdd"),
        ("condense --seeds 0", "seeds must be at least 1"),
        ("condense --steps 0", "steps must be at least 1"),
        ("condense --seed -1", "seed must not be negative"),
        ("condense --setting other", "'transductive', 'inductive'"),
        ("condense --lable-ratio 0.1", "--label-ratio"),
        ("condense --bla", "--bla"),
        ("condense --out /dev/null/run", "/dev/null is a file"),
        ("condense --out /proc/run", "/proc/run"),
        ("run", "config file comes first"),
        ("run --seed 1", "config file comes first"),
        ("run nothing.py", "no config file nothing.py"),
        ("evaluate", "FILE"),
        ("datasets now", "now"),
        ("methods clustgd", "did you mean clustgdd"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(argv, told, capsys):
    assert told in _mistake(capsys, *argv.split())


def test_missing_data_files_are_named(capsys, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("JGD_DATA_DIR", str(tmp_path_factory.mktemp("empty")))

    def offline(*_, **__):
        raise OSError("no network in this test")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    told = _mistake(capsys, "condense", "cora")
    assert "planetoid/ind.cora" in told
    assert "JGD_DATA_DIR" in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = 1\n", "does not say `config = Experiment(...)`"),
        ("config = {}\n", "is no Experiment"),
        ("import jgd\n\nconfig = jgd.nothing\n", "line 3: AttributeError"),
        ("config = (\n", "line 1: SyntaxError"),
        (CONFIG + "config = Experiment(recipe=ClustGDD(alpha=3.0))\n", "alpha must be in"),
        (CONFIG + "config = Experiment('digts')\n", "did you mean digits"),
    ],
)
def test_mistakes_in_a_config(text, told, tmp_path, capsys):
    (tmp_path / "bad.py").write_text(text)
    assert told in _mistake(capsys, "run", "bad.py", leaves=["bad.py"])


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ("--recipe.alpha 3", "alpha must be in [0, 1), got 3"),
        ("--recipe.nodes 5", "choose between 10 and 200"),
        ("--recipe.nodes 20 --recipe.label-ratio 0.2", "not both"),
        ("--recipe.lable-ratio 0.2", "did you mean --recipe.label-ratio?"),
        ("--recipe.structure round", "'clusters', 'identity'"),
        ("--config.hidden 0", "hidden must be at least 1"),
    ],
)
def test_mistakes_in_an_override(argv, told, config, capsys):
    assert told in _mistake(capsys, "run", config, *argv.split(), leaves=["config.py"])


# --- help, lists, tables ------------------------------------------------------------------------


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_help_lists_the_commands(argv, capsys):
    assert main(argv) == 0
    told = capsys.readouterr().out
    assert all(f"\n  {name} " in told for name in COMMANDS)
    assert max(map(len, told.splitlines())) <= 80


def test_version(capsys):
    assert main(["--version"]) == 0
    assert re.match(r"jgd \d+\.\d+\.\d+ \(jax ", capsys.readouterr().out)


@pytest.mark.parametrize("command", list(COMMANDS))
def test_help_of_each_command(command, capsys):
    assert main([command, "--help"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert "usage: jgd " + command in told.out


def test_help_of_condense_has_defaults_and_no_old_names(capsys):
    assert main(["condense", "--help"]) == 0
    told = capsys.readouterr().out
    assert "(default: digits)" in told
    assert "{None}" not in told


def test_datasets_and_methods(capsys):
    assert main(["datasets"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"^digits +node +1797 +10 +yes ", told, re.M)
    assert main(["methods"]) == 0
    told = capsys.readouterr().out
    for catalog in (METHODS, OBJECTIVES, NETWORKS, AUGMENTATIONS, PREDICTORS, METRICS):
        assert all(re.search(rf"^{re.escape(n)} ", told, re.M) for n in catalog)
    assert max(map(len, told.splitlines())) <= 80


def test_settings_of_a_method(capsys):
    assert main(["methods", "clustgdd"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("clustgdd: ")
    recipe = METHODS["clustgdd"].make()
    for f in fields(recipe):
        assert re.search(rf"^{f.name} +{re.escape(str(getattr(recipe, f.name)))} *$", told, re.M)
    assert "--method clustgdd --set NAME=VALUE" in told
    assert max(map(len, told.splitlines())) <= 80


@pytest.mark.parametrize("columns", ["20", "80", "200"])
def test_tables_are_split_and_never_cut(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    names = ["", *(f"column{i}" for i in range(9))]
    show(names, [[f"row {r}", *(f"{r}.{c} ± 1.0" for c in range(9))] for r in range(3)], bold="row 1")
    told = capsys.readouterr().out
    assert "…" not in told
    for r in range(3):
        assert all(f"{r}.{c} ± 1.0" in told for c in range(9))
    if columns != "20":
        assert max(map(len, told.splitlines())) <= int(columns)
    assert told.count("row 0") == {"20": 9, "80": 2, "200": 1}[columns]
    listing(["name", "text"], [["a", "word " * 30]])
    assert capsys.readouterr().out.count("word") == 30


def test_human_bytes():
    assert [human_bytes(n) for n in (0, 999, 1000, 99_940, 99_960, 531_400, 999_600, 2_000_000_000)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "99.9 kB",
        "100 kB",
        "531 kB",
        "1.0 MB",
        "2.0 GB",
    ]


# --- a process of its own -----------------------------------------------------------------------


@pytest.mark.long
def test_the_entry_point(tmp_path):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "COLUMNS": "80"}
    for name in ("JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS"):  # a user has neither
        environment.pop(name, None)
    program = Path(sys.executable).with_name("jgd")
    start = [str(program)] if program.exists() else [sys.executable, "-m", "jgd.cli.main"]
    command = [
        *start,
        *["condense", "digits", "--method", "random", "--nodes", "10", "--baselines", "--networks", "sgc"],
    ]
    command += ["--seeds", "1", "--steps", "5", "--out", "run"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "written to run" in done.stdout
    assert "Warning" not in done.stderr
    assert (tmp_path / "run" / "metrics.json").exists()
    assert any((tmp_path / "cache" / "jgd" / "xla").iterdir())
    wrong = subprocess.run([*start, "condense", "digts"], capture_output=True, text=True, env=environment)
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (2, "", 1)


def test_a_warning_is_one_line_and_once(capsys):
    for _ in range(2):
        main_module._note(UserWarning("a class has\nno examples"), UserWarning, "file.py", 3)
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "jgd: note: a class has no examples\n")
