"""``jgd distill``: teacher, students, one table; it goes on after an interruption; mistakes are one line."""

import json

import pytest

from jgd.cli.main import main

SMALL = ["distill", "--objectives", "ce", "kd", "--teacher", "mlp-16", "--student", "mlp-8"]
SMALL += ["--steps", "40", "--seeds", "2", "--quiet"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


@pytest.mark.long
def test_distill(tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:  # interrupted while it writes, when all students are trained
        patch.setattr("jgd.report.Comparison.save", _interrupt)
        assert main([*SMALL, "--out", str(out)]) == 130
    assert (out / "checkpoints" / "distill-kd").is_dir()
    assert "the same command continues from the last checkpoint" in capsys.readouterr().err

    assert main([*SMALL, "--seed", "1", "--out", str(out)]) == 2
    assert "seed 0, now 1" in capsys.readouterr().err

    assert main([*SMALL, "--out", str(out)]) == 0
    told = capsys.readouterr().out
    text = " ".join(told.split())
    assert text.startswith("Students trained by ")
    assert "Students: mlp-8, 2 for each objective, trained on 100 examples. " in text
    assert "Teacher: mlp-16, trained on 1,000." in text
    assert "Accuracy %" in text
    assert told.endswith(f"\n\nwritten to {out}: teacher.npz, students/, report.html, metrics.json\n")
    assert max(map(len, told.splitlines()[:-1])) <= 100
    found = json.loads((out / "metrics.json").read_text())
    assert [row["name"] for row in found["rows"]] == ["teacher", "ce", "kd"]
    for row in found["rows"][1:]:
        assert len(row["accuracy"]) == 2
        assert f"{100 * sum(row['accuracy']) / 2:.1f}" in told
    assert found["experiment"]["student"] == "mlp-8"
    assert "kd" in (out / "report.html").read_text()
    assert not (out / "checkpoints").exists()
    assert main([*SMALL, "--out", str(out)]) == 0
    assert capsys.readouterr().out == told  # with its seconds: nothing is trained again

    again = tmp_path / "again"
    assert main([*SMALL, "--out", str(again)]) == 0
    rows = json.loads((again / "metrics.json").read_text())["rows"]
    assert [r["accuracy"] for r in rows] == [r["accuracy"] for r in found["rows"]]


def _interrupt(*args, **settings):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--objectives kdd", "did you mean"),
        ("--objectives kd kd", "each once"),
        ("--teacher mlp", "mlp does not read images"),
        ("--student transformer-8-1", "does not read images"),
        ("--steps 0", "steps must be at least 1"),
        ("--rate 0", "rate must be positive"),
        ("--examples 10", "fewer than a batch"),
        ("digits", "made of graphs"),
        ("nowhere", "no dataset is called"),
    ],
)
def test_mistakes(arguments, message, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["distill", *arguments.split(), "--quiet", "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()
