"""Condensed sets of graphs beside all graphs and chosen ones: the comparison, its page and its command."""

import json
import re

import jax
import numpy as np
import pytest
from graph_toy import TASK

from jgd.cli.main import main
from jgd.condense import Mirage
from jgd.protocols import GraphProtocol, compare_graphs
from jgd.protocols.methods import GRAPH_METHODS, preferred_for_graphs
from jgd.report import write_graph_report

QUICK = GraphProtocol(steps=20, hidden=8, select_every=10)


@pytest.fixture(scope="module")
def found():
    said = []
    comparison = compare_graphs(
        Mirage(support=0.4),
        TASK,
        key=jax.random.key(0),
        baselines=("random-graphs",),
        seeds=2,
        protocol=QUICK,
        say=said.append,
    )
    assert any("mirage" in text for text in said)
    return comparison


def test_rows_and_metrics(found):
    rows = {row["name"]: row for row in found.rows()}
    assert list(rows) == ["full", "mirage", "random-graphs"]
    train = np.asarray(TASK.train)
    assert rows["full"]["graphs"] == train.sum()
    assert rows["full"]["nodes"] == np.asarray(TASK.graphs.n_node)[train].sum()
    assert rows["random-graphs"]["nodes"] <= rows["mirage"]["nodes"]
    metrics = json.loads(json.dumps(found.metrics(command="here", seed=3)))
    assert metrics["nodes"] == rows["mirage"]["nodes"]
    assert metrics["original"]["graphs"] == rows["full"]["graphs"]
    assert 0 <= metrics["condensed"]["gin"]["test_mean"] <= 1
    assert set(metrics["baselines"]) == {"random-graphs"}


def test_page(found, tmp_path):
    page = write_graph_report(tmp_path / "r.html", found, found.metrics(seed=0)).read_text()
    assert "Mirage" in page or "mirage" in page
    assert len(re.findall(r"<tr", page)) >= 5
    assert not re.search(r'(src|href)="http', page)


def test_settings_by_dataset_and_refusals():
    assert preferred_for_graphs("mirage", "DD").counts == (15, 9)
    assert preferred_for_graphs("mirage", "DD", nodes=50).nodes == 50
    assert preferred_for_graphs("doscond-graphs", "NCI1").lr_adj == 1.0
    for name in GRAPH_METHODS:
        assert preferred_for_graphs(name, "elsewhere") == GRAPH_METHODS[name].recipe()
    with pytest.raises(ValueError, match="no setting of mirage is called 'graphs_per_class'"):
        preferred_for_graphs("mirage", "DD", graphs_per_class=3)


def test_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("jgd.cli.job.load_with_notes", lambda name: (TASK, []))
    out = tmp_path / "run"
    arguments = ["condense-graphs", "toy", "--support", "0.4", "--seeds", "2", "--steps", "20", "--quiet"]
    assert main([*arguments, "--baselines", "random-graphs", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "mirage" in told
    assert "all graphs" in told
    assert json.loads((out / "metrics.json").read_text())["method"] == "mirage"
    assert (out / "condensed.npz").exists()
    assert (out / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["toy", "--method", "mirag"], "did you mean mirage"),
        (["toy", "--graphs-per-class", "3"], "no setting of mirage"),
        (["toy", "--models", "gim"], "did you mean gin"),
        (["toy", "--baselines", "mirage"], "no baseline"),
        (["nowhere"], "no dataset is called"),
        (["digits"], "is one graph: `jgd condense digits`"),
    ],
)
def test_mistakes(arguments, message, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["condense-graphs", *arguments, "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()
