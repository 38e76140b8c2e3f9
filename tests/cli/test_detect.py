"""``jgd detect``: it records, trains twice and says what it found; mistakes are one line."""

import json

import pytest

from jgd.cli.main import main


@pytest.mark.long
def test_detect(tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["detect", "--seeds", "1", "--quiet", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "whole graph" in told
    assert "clustering 5 %" in told
    found = json.loads((out / "metrics.json").read_text())["results"]
    for scores in found.values():
        strict, tolerant = scores["strict"][0], scores["tolerant"][0]
        assert 0 < strict["f1"] <= tolerant["f1"] <= 1
    assert found["clustering 5 %"]["nodes"] < 200
    assert told.startswith("The highest F1 here is ")
    assert told.endswith(f"\n\nwritten to {out}: report.html, metrics.json\n")
    assert main(["detect", "--seeds", "1", "--quiet", "--out", str(out)]) == 0
    assert capsys.readouterr().out == told  # with its seconds: nothing is trained again


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--method clusterin", "did you mean clustering"),
        ("--label-ratio 0", "label_ratio must be in (0, 1]"),
        ("--seeds 0", "seeds must be at least 1"),
        ("--streamspot nowhere.tsv", "nowhere.tsv"),
    ],
)
def test_mistakes(arguments, message, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["detect", *arguments.split(), "--quiet", "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()
