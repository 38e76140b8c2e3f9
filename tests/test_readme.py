"""README: its table is generated, its numbers are those of the results, its examples run as they stand."""

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import tyro

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"
README = (ROOT / "README.md").read_text()
TEXT = " ".join(README.split())


def load(name):
    return json.loads((RESULTS / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def script():
    """The generator of the table, and the experiments' modules that know the values beside ours."""
    before = list(sys.path)
    sys.path[:0] = [str(ROOT / "experiments"), str(ROOT / "experiments" / "benchmarks")]
    import readme_table

    yield readme_table
    sys.path[:] = before


def table():
    """The rows of the table by name, without the header."""
    lines = [line for line in README.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert all(len(row) == 4 for row in rows)
    assert len({row[1] for row in rows}) == len(rows)
    return {row[1]: row for row in rows}


def spread(values, scale=100.0):
    """Mean and deviation to a tenth, or the one value."""
    values = scale * np.asarray(values, np.float64)
    return f"{values.mean():.1f} ± {values.std():.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def test_table_is_what_the_script_writes(script):
    assert script.written(README) == README, "run python experiments/readme_table.py"


def test_table_follows_the_catalogues():
    from jgd.condense import METHODS
    from jgd.distill import OBJECTIVES

    assert list(table()) == [*METHODS, *OBJECTIVES]
    for catalog in (METHODS, OBJECTIVES):
        for entry in catalog.entries():
            assert table()[entry.name][0] == (entry.paper or "–")
            assert table()[entry.name][2].strip("`").split()[-1] == entry.name


def test_marks_are_needed(script):
    with pytest.raises(ValueError, match="no line"):
        script.written(README.replace(script.END, ""))
    with pytest.raises(ValueError, match="no line"):
        script.written("")


def test_condensers_of_nodes(script):
    elsewhere, rebuilt = script.condensation_table.PAPERS, script.condensation_table.REBUILT
    found = {(r["dataset"], r["method"]): r for r in load("condensation")["rows"] if r["ratio"] == 0.5}
    rows, measured = table(), {method for _, method in found}
    assert len(measured) > 30
    for method in measured:
        cells, *notes = rows[method][3].split("; ")
        own = [found[dataset, method] for dataset in ("cora", "citeseer")]
        expected = []
        for dataset, row in zip(("cora", "citeseer"), own, strict=True):
            theirs = elsewhere[dataset].get(method, (None, None, None))[1]
            beside = "" if theirs is None else f" ({theirs:.1f}{'†' if method in rebuilt else ''})"
            budget = {"cora": 70, "citeseer": 60}[dataset]
            size = "" if row["nodes"] == budget else f" with {row['nodes']} nodes"
            expected.append(f"{dataset.capitalize()} {spread(row['test'])}{beside}{size}")
        assert cells == ", ".join(expected), method
        count = len(own[0]["test"])
        assert notes[0] == f"{count} set{'s' if count > 1 else ''}"
        assert ("its own kernel" in notes) == (own[0].get("predictor") == "sntk")
        ran = [own[0].get("note", ""), *notes]  # what ran with less than the authors' settings says so
        assert bool(re.search(r"\d of \d", ran[0])) == bool(re.search(r"\d of \d", "; ".join(ran[1:])))
    for dataset, accuracy in (("Cora", 81.9), ("Citeseer", 71.5)):
        assert f"{accuracy} on {dataset}" in TEXT
        assert round(100 * np.mean(load("condensation")["full"][dataset.lower()]), 1) == accuracy


OBJECTIVES = {
    "ce": "CE",
    "kd": "KD (T 4)",
    "reverse-kl": "reverse KL (T 4)",
    "dkd": "DKD",
    "nkd": "NKD (T 3, gamma 3.5)",
    "dist": "DIST",
    "standardized": "standardised logits",
    "ctkd": "CTKD",
    "pld": "PLD (T 4)",
    "listmle": "ListMLE",
    "fitnet": "FitNet (linear map)",
    "rkd": "RKD",
    "sp": "SP",
    "pkt": "PKT",
    "crd": "CRD",
    "mi": "MI-alpha 0.9",
}


def test_objectives(script):
    record, cards, rows = load("kd"), script.kd_table.CARDS, table()
    for name, row in OBJECTIVES.items():
        expected = []
        for part, title in (("digits-100", "digits"), ("mnist-1000", "MNIST")):
            if row in record[part]:
                theirs = cards.get(part, {}).get(row)
                beside = "" if theirs is None else f" ({theirs:.1f}†)"
                expected.append(f"{title} {spread(record[part][row]['accuracy'])}{beside}")
        assert rows[name][3] == ", ".join(expected), name
    assert len(record["digits-100"]["CE"]["accuracy"]) == 8
    assert len(record["mnist-1000"]["CE"]["accuracy"]) == 4
    teachers = [
        f"{100 * np.mean(record[part]['teacher']['accuracy']):.1f}" for part in ("digits-100", "mnist-1000")
    ]
    assert f"their teachers reach {' and '.join(teachers)}" in TEXT


NCI1 = ("random", "herding", "k-center", "mirage", "doscond-graphs", "kidd")


def test_condensers_of_sets_of_graphs(script):
    rows, record, mirage = table(), load("graph_condensation")["NCI1"], load("mirage")
    for name in NCI1:
        found, cell = record[name], rows[name][3]
        assert f"NCI1 {spread(np.mean(found['gin']['test'], axis=1))}" in cell, name
        assert f"{len(found['nodes'])} sets" in cell
        assert cell.endswith(found["note"]) or "steps" not in found["note"]

    def auc(part, row):
        return f"{100 * mirage[part][row]['auc_mean']:.1f} ± {100 * mirage[part][row]['auc_std']:.1f}"

    for part, support in (("nci1", "25 %"), ("nci1/0.1", "10 %")):  # where it wins, and where it loses
        ours, random = auc(part, "mirage"), auc(part, "random graphs")
        assert re.search(rf"{support} {ours}( \(66\.7†\))?, random graphs {random}", rows["mirage"][3])
    assert mirage["nci1/0.1"]["mirage"]["auc_mean"] < mirage["nci1/0.1"]["random graphs"]["auc_mean"]
    assert "Mirage .667" in (RESULTS / "mirage.md").read_text()
    gcn = spread(np.mean(record["doscond-graphs"]["gcn"]["test"], axis=1))
    assert f"GCN {gcn} (58.0)" in rows["doscond-graphs"][3]
    assert f"all graphs give {spread(np.mean(record['all graphs']['gin']['test'], axis=1))}" in TEXT


def test_speed_and_full_runs():
    assert f"({spread(load('sfgc_full')['test'])} on Cora)" in TEXT
    large = [
        r for r in load("propagation")["results"] if r["size"].startswith("170 k") and r["forward_backward"]
    ]
    found = {
        r["contestant"]: r["forward_backward"]["median"]
        for r in large
        if r["models"] == 1 and "pages" not in r
    }
    ratios = [found[name] / found["jgd"] for name in ("segment_sum", "PyG GCNConv, edge index")]
    assert f"{ratios[0]:.1f} times as fast as `jax.ops.segment_sum`, {ratios[1]:.1f} times as PyTorch" in TEXT
    gcond = load("condensation_speed")["results"]["gcond"]
    ratio = gcond["PyTorch"]["median"] / gcond["jgd"]["median"]
    assert f"an epoch of GCond: {float(f'{ratio:.2g}'):g} times as fast" in TEXT


def test_numbers_in_prose_are_checked():
    """A new number in the text needs a check above, or it is a size that the text names."""
    prose = re.sub(r"```.*?```|\(\S+\)|`[^`]*`", "", README, flags=re.DOTALL)
    prose = "\n".join(line for line in prose.splitlines() if not line.startswith("|"))
    found = set(re.findall(r"\d+\.\d+", prose))
    checked = {"3.11", "81.9", "71.5", "69.7", "1.0", "98.2", "98.4", "81.1", "0.4", "2.5", "7.1", "2.0"}
    assert found <= checked, found - checked


def test_readme_is_short_and_its_links_lead_somewhere():
    assert len(README.splitlines()) <= 180
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert len(links) > 15
    for link in links:
        assert (ROOT / link).exists(), link
    pages = {f"experiments/results/{path.name}" for path in RESULTS.glob("*.md")}
    assert pages <= set(links)


BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
EXAMPLES = [text for language, text in BLOCKS if language == "python"]


@pytest.mark.long
@pytest.mark.parametrize("number", range(5))
def test_example_runs(number, tmp_path, monkeypatch, capsys):
    assert len(EXAMPLES) == 5
    monkeypatch.chdir(tmp_path)
    exec(compile(EXAMPLES[number], f"example {number + 1} of README.md", "exec"), {"__name__": "example"})
    assert re.search(r"\d+\.\d ± \d+\.\d|accuracy \d+\.\d", capsys.readouterr().out)


def commands():
    """What README types: in its blocks of commands and in its table."""
    lines = [line for _, text in BLOCKS for line in text.splitlines() if line.startswith("jgd ")]
    return [*lines, *(row[2].strip("`") for row in table().values())]


def test_commands_have_these_options(monkeypatch):
    from jgd.cli.config import load_config, run_type
    from jgd.cli.main import COMMANDS
    from jgd.condense import METHODS
    from jgd.data import DATASETS

    monkeypatch.chdir(ROOT)
    assert len(commands()) > 60
    for command in commands():
        name, *rest = shlex.split(command)[1:]
        kind = COMMANDS[name]
        if name == "run":
            kind, rest = run_type(load_config(Path(rest[0]))), rest[1:]
        action = tyro.cli(kind, args=rest, config=(tyro.conf.FlagCreatePairsOff,))
        if getattr(action, "method", None) is not None and name == "condense":
            assert action.method in METHODS
        dataset = getattr(action, "dataset", None)
        if dataset is not None and not re.search(r"[/.]", dataset) and ":" not in dataset:
            assert dataset in DATASETS


def test_configs_say_what_to_expect():
    record = load("foundation")
    for path in (ROOT / "configs").glob("*.py"):
        assert "Expected test accuracy of a GCN" in path.read_text()
    for dataset in ("cora", "citeseer"):
        text = (ROOT / "configs" / f"clustgdd_{dataset}.py").read_text()
        assert f"{spread(record[f'{dataset}/0.5/every-epoch']['test'])} %" in text
        assert f"{spread(record[f'{dataset}/full']['test'])} % on the whole graph" in text
