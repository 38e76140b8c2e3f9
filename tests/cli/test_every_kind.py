"""Images on the command line: condensed, evaluated and exported by the commands that graphs have."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import jgd
from jgd.cli.main import main
from jgd.data import artifact

TRAINING = ["--networks", "mlp-8", "--seeds", "2", "--steps", "20"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of five images of each digit, chosen by herding."""
    out = tmp_path_factory.mktemp("images") / "run"
    argv = "condense digits-images --method herding --per-class 5 --set epochs=5 --baselines random --quiet"
    assert main([*argv.split(), *TRAINING, "--out", str(out)]) == 0
    return out


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


def test_condense_images(run, capsys):
    argv = "condense digits-images --method herding --per-class 5 --set epochs=5 --baselines random --quiet"
    assert main([*argv.split(), *TRAINING, "--out", str(run)]) == 0  # shown again
    headline, table, notes, place = capsys.readouterr().out.rstrip("\n").split("\n\n")
    text = " ".join(headline.split())
    assert text.startswith(
        "Trained on the 50 examples that herding made of the 1,000 of digits-images, mlp-8"
    )
    lines = table.splitlines()
    assert re.split(r"\s{2,}", lines[0].strip()) == ["Examples", "Size", "mlp-8 %", "Seconds"]
    assert [line.split("  ")[0] for line in lines[2:]] == ["full set", "herding", "random"]
    assert "  " not in notes
    assert place == f"written to {run}: condensed.npz, report.html, metrics.json"
    metrics = json.loads((run / "metrics.json").read_text())
    assert (metrics["kind"], metrics["setting"], metrics["config"]["epochs"]) == ("arrays", None, 5)
    assert metrics["sizes"]["random"]["examples"] == 50
    small = artifact.load(run / "condensed.npz")
    task = jgd.load("digits-images")
    np.testing.assert_array_equal(np.bincount(small.targets), [5] * 10)
    rows = {row.tobytes() for row in np.asarray(task.x)[np.asarray(task.train)]}
    assert all(row.tobytes() in rows for row in np.asarray(small.data))


def test_evaluate_images_by_the_file_alone_and_on_a_named_dataset(run, capsys):
    file = str(run / "condensed.npz")
    assert main(["evaluate", file, *TRAINING, "--quiet", "--json", "alone.json"]) == 0
    alone = capsys.readouterr().out
    assert alone.startswith(f"{file}: 50 condensed examples of digits-images\n")
    more = ["--dataset", "digits-images", "--full", "--json", "named.json"]
    assert main(["evaluate", file, *TRAINING, "--quiet", *more]) == 0
    named = capsys.readouterr().out
    first, second = (json.loads(Path(f"{name}.json").read_text()) for name in ("alone", "named"))
    assert first["condensed"]["mlp-8"] == pytest.approx(second["condensed"]["mlp-8"], abs=0.02)
    for scores, printed in ((first, alone), (second, named)):
        one = scores["condensed"]["mlp-8"]
        assert f"{100 * one['test_mean']:.1f} ± {100 * one['test_std']:.1f}" in printed
    assert second["full"]["mlp-8"]["seeds"] == 2
    assert main(["evaluate", file, "--dataset", "digits", "--quiet"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines()[-1].startswith("jgd: ")
    assert "NodeTask" in told.err or "nodes" in told.err


def test_export_images(run, capsys):
    file = str(run / "condensed.npz")
    small = artifact.load(file)
    assert main(["export", file, "--to", "npz", "--out", "plain.npz"]) == 0
    assert capsys.readouterr().out == "written to plain.npz: 50 examples\n"
    with np.load("plain.npz", allow_pickle=False) as plain:
        assert set(plain) == {"x", "y"}
        np.testing.assert_array_equal(plain["x"], small.data)
        np.testing.assert_array_equal(plain["y"], small.targets)
    for target in ("pyg", "networkx"):
        assert main(["export", file, "--to", target, "--out", "other"]) == 2
        told = capsys.readouterr()
        assert (told.out, told.err.count("\n")) == ("", 1)
    assert [p.name for p in Path.cwd().iterdir()] == ["plain.npz"]


def test_compare_images(capsys):
    argv = "compare digits-images --methods random --sizes 0.01 0.05 --seeds 1 --out few --quiet"
    training = ["--networks", "mlp-8", "--seeds", "1", "--steps", "20"]
    assert main([*argv.split(), *training]) == 0
    told = capsys.readouterr().out
    metrics = json.loads(Path("few/metrics.json").read_text())
    assert [(row["label_ratio"], row["examples"]) for row in metrics["rows"]] == [(0.01, 10), (0.05, 50)]
    assert re.search(r"^random +0\.05 +50 ", told, re.M)
    assert Path("few/report.html").exists()
