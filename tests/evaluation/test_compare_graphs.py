"""Condensed sets of graphs beside all graphs and chosen ones: the comparison, its page, its command."""

import json
import re

import jax
import numpy as np
import pytest
from graph_toy import TASK

from jgd.cli.main import main
from jgd.condense import METHODS, Mirage
from jgd.evaluation import KINDS, compare

QUICK = {"steps": 20, "hidden": 8, "select_every": 10}


@pytest.fixture(scope="module")
def found():
    said = []
    config = KINDS["graphs"].make().config
    comparison = compare(
        Mirage(support=0.4),
        TASK,
        key=jax.random.key(0),
        method="mirage",
        baselines=("random",),
        seeds=2,
        config=type(config)(**{**vars(config), **QUICK}),
        log=said.append,
    )
    assert any("mirage" in text for text in said)
    return comparison


@pytest.mark.long
def test_rows_and_metrics(found):
    rows = {row["name"]: row for row in found.rows}
    assert list(rows) == ["full set", "mirage", "random"]
    train = np.asarray(TASK.train)
    assert rows["full set"]["graphs"] == train.sum()
    assert rows["full set"]["nodes"] == np.asarray(TASK.graphs.n_node)[train].sum()
    assert rows["random"]["nodes"] <= rows["mirage"]["nodes"]
    metrics = json.loads(found.recorded(command="here", seed=3).json())
    assert metrics["nodes"] == rows["mirage"]["nodes"]
    assert metrics["original"]["graphs"] == rows["full set"]["graphs"]
    assert 0 <= metrics["condensed"]["gin"]["test_mean"] <= 1
    assert 0 <= metrics["condensed"]["gin"]["auc_mean"] <= 1
    assert set(metrics["baselines"]) == {"random"}


@pytest.mark.long
def test_page(found, tmp_path):
    page = found.save(tmp_path / "r.html").read_text()
    assert "mirage" in page
    assert "ROC-AUC" in page
    assert len(re.findall(r"<tr", page)) >= 5
    assert not re.search(r'(src|href)="http', page)


def test_settings_by_dataset_and_refusals():
    assert METHODS.official("mirage", "DD").counts == (15, 9)
    assert METHODS.official("mirage", "DD", nodes=50).nodes == 50
    assert METHODS.official("doscond-graphs", "NCI1").lr_adj == 1.0
    for name in ("mirage", "doscond-graphs", "kidd", "random"):
        assert METHODS.official(name, "elsewhere") == METHODS[name].make()
    with pytest.raises(ValueError, match="per_class"):
        METHODS.official("mirage", "DD", per_class=3)


@pytest.mark.long
def test_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("jgd.cli.job.load_with_notes", lambda name, **_: (TASK, []))
    out = tmp_path / "run"
    arguments = ["condense-graphs", "toy", "--support", "0.4", "--seeds", "2", "--steps", "20"]
    assert main([*arguments, "--baselines", "random-graphs", "--out", str(out)]) == 0
    told = capsys.readouterr()
    assert "mirage" in told.out
    assert "full set" in told.out
    assert "`jgd condense-graphs` is `jgd condense` now" in told.err
    assert "the method random-graphs is random now" in told.err
    assert json.loads((out / "metrics.json").read_text())["method"] == "mirage"
    assert (out / "condensed.npz").exists()
    assert (out / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["toy", "--method", "mirag"], "did you mean mirage"),
        (["toy", "--method", "mirage", "--per-class", "3"], "per_class"),
        (["toy", "--method", "mirage", "--networks", "gim"], "did you mean gin"),
        (["toy", "--method", "mirage", "--baselines", "mirag"], "no baseline"),
        (["nowhere"], "no dataset is called"),
        (["digits", "--method", "mirage"], "no method for nodes is called 'mirage'"),
        (["tu:MUTAG", "--set", "support"], "a setting is written NAME=VALUE"),
    ],
)
def test_mistakes(arguments, message, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["condense", *arguments, "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()
