"""README's tables are those of the committed results, cell by cell."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"
README = (ROOT / "README.md").read_text()


def load(name):
    return json.loads((RESULTS / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def scripts():
    """The experiments' modules, for the values that they put beside ours."""
    before = list(sys.path)
    sys.path[:0] = [str(ROOT / "experiments"), str(ROOT / "experiments" / "benchmarks")]
    import condensation_table
    import kd_table

    yield condensation_table, kd_table
    sys.path[:] = before


def table(first, last=""):
    """The rows of the table whose header begins and ends so, without the header."""
    lines = README.splitlines()
    starts = [i for i, x in enumerate(lines) if x.startswith(f"| {first} |") and x.endswith(f"{last} |")]
    assert len(starts) == 1, (first, last, starts)
    rows = []
    for line in lines[starts[0] + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
    return rows


def spread(values, scale=100.0):
    """Mean and deviation to a tenth, or the one value."""
    values = scale * np.asarray(values, np.float64)
    return f"{values.mean():.1f} ± {values.std():.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def test_condensers(scripts):
    elsewhere, rebuilt = scripts[0].PAPERS, scripts[0].REBUILT
    found = {(r["dataset"], r["method"]): r for r in load("condensation")["rows"] if r["ratio"] == 0.5}
    rows = table("method", "Citeseer 60")
    assert {row[0] for row in rows} == {method for _, method in found}
    for method, *_, predictor, cora, citeseer in rows:
        for dataset, cell in (("cora", cora), ("citeseer", citeseer)):
            row = found[dataset, method]
            theirs = elsewhere[dataset].get(method, (None, None, None))[1]
            beside = "" if theirs is None else f" ({theirs:.1f}{'†' if method in rebuilt else ''})"
            budget = {"cora": 70, "citeseer": 60}[dataset]
            size = "" if row["nodes"] == budget else f", {row['nodes']} nodes"
            assert cell == spread(row["test"]) + beside + size, (dataset, method)
            own = {"gcn": "GCN", "sntk": "its kernel"}[row.get("predictor", "gcn")]
            assert predictor == f"{own}, {len(row['test'])}", (dataset, method)
    for dataset, accuracy in (("Cora", 81.9), ("Citeseer", 71.5)):
        assert f"{accuracy} on {dataset}" in README
        assert round(100 * np.mean(load("condensation")["full"][dataset.lower()]), 1) == accuracy


DIGITS = {
    "cross-entropy": "CE",
    "Hinton": "KD (T 4)",
    "reverse KL": "reverse KL (T 4)",
    "JS": "JS (T 4)",
    "NKD": "NKD (T 3, gamma 3.5)",
    "logit standardisation": "standardised logits",
    "PLD": "PLD (T 4)",
    "MIX-KD's loss": "MIX-KD, nothing mixed",
    "FitNet": "FitNet (linear map)",
    "MI-α (α 0.9)": "MI-alpha 0.9",
}
PARTS = ("digits-100", "digits-200", "mnist-1000", "mnist-10000")


def test_objectives_on_digits(scripts):
    record, cards = load("kd"), scripts[1].CARDS
    rows = table("objective", "MNIST 10 000")
    assert len(rows) == 20
    for name, _, _, *cells in rows:
        row = DIGITS.get(name, name)
        for part, cell in zip(PARTS, cells, strict=True):
            if row not in record[part]:
                assert cell == "–", (name, part)
                continue
            theirs = cards.get(part, {}).get(row)
            beside = "" if theirs is None else f" ({theirs:.1f}†)"
            assert cell == spread(record[part][row]["accuracy"]) + beside, (name, part)


MAPS = {
    "cross-entropy": "CE",
    "Hinton": "KD (T 4)",
    "AT": "AT (60: maps have a sixteenth of the positions)",
    "ICKD": "ICKD (2.5)",
    "FSP, a slim teacher": "FSP, teacher of the student's widths",
    "Hinton, a slim teacher": "KD (T 4), teacher of the student's widths",
    "ONE, no teacher": "ONE (no teacher)",
    "Hinton by gradient descent": "KD by SGD",
    "DOT": "KD by DOT",
}


def test_objectives_on_maps():
    record = load("kd")["maps"]
    rows = table("objective", "accuracy")
    assert len(rows) == len(record) - 2  # the teacher, and AT with its authors' weight
    for name, *_, cell in rows:
        assert cell == spread(record[MAPS.get(name, name)]["accuracy"]), name


NCI1 = {
    "Mirage": ("mirage", ("58.7 ± 1.3",)),
    "DosCond for graphs": ("doscond-graphs", ("53.0 ± 1.0", "two sets", "200 of 1000 steps")),
    "KIDD": ("kidd", ("56.0 ± 0.7", "two sets", "100 of 300 steps")),
    "herding": ("herding-graphs", ("61.4 ± 0.7",)),
    "k-center": ("k-center-graphs", ("55.2 ± 1.7",)),
}


def test_condensers_of_sets_of_graphs():
    rows = {row[0]: row[-1] for row in table("method", "entry point | command | measured")}
    record, mirage = load("graph_condensation")["NCI1"], load("mirage")
    for name, (row, parts) in NCI1.items():
        found = record[row]
        assert rows[name].startswith(spread(np.mean(found["gin"]["test"], axis=1))), name
        assert all(part in rows[name] for part in parts), name
        if "two sets" in parts:
            assert len(found["nodes"]) == 2
            assert parts[-1] == found["note"]
        else:
            assert len(found["nodes"]) == 3

    def auc(part, row):
        return f"{mirage[part][row]['auc_mean']:.3f} ± {mirage[part][row]['auc_std']:.3f}".replace("0.", ".")

    for part in ("nci1", "nci1/0.1"):  # where it wins, and where it loses
        assert auc(part, "mirage") in rows["Mirage"]
        assert auc(part, "random graphs") in rows["Mirage"]
    assert mirage["nci1/0.1"]["mirage"]["auc_mean"] < mirage["nci1/0.1"]["random graphs"]["auc_mean"]
    gcn = {
        row: spread(np.mean(record[row]["gcn"]["test"], axis=1))
        for row in ("doscond-graphs", "random-graphs")
    }
    assert gcn["doscond-graphs"] in rows["DosCond for graphs"]
    assert gcn["random-graphs"] in rows["DosCond for graphs"]
    assert spread(np.mean(record["kidd, not padded"]["gin"]["test"], axis=1)) in rows["KIDD"]
    text = " ".join(README.split())
    for row, name in (("random-graphs", "random graphs"), ("all graphs", "all graphs")):
        assert f"{name} {spread(np.mean(record[row]['gin']['test'], axis=1))}" in text


def test_the_rest_of_the_objectives():
    record = load("kd")
    rows = {row[0]: row[-1] for row in table("method", "entry point `jgd.distill.…` | measured")}
    wanted = {
        "BD-KD, DML, KDCL (online)": [
            ("peers", row) for row in ("CE", "DML (T 3)", "BD-KD (delta 2, T 3)") if row in record["peers"]
        ],
        "LELP": [("parity-draws", row) for row in ("KD (T 1)", "LELP", "random subclasses")]
        + [(part, row) for part in ("sst2", "tweets") for row in ("KD (T 4)", "LELP")],
        "TRG": [("relations-draws", row) for row in ("KD", "KD + local (100)", "KD + all")],
    }
    for name, cells in wanted.items():
        for part, row in cells:
            assert spread(record[part][row]["accuracy"]) in rows[name], (name, part, row)


def test_speed():
    large = [
        r for r in load("propagation")["results"] if r["size"].startswith("170 k") and r["forward_backward"]
    ]
    found = {
        (r["models"], r["contestant"]): r["forward_backward"]["median"] for r in large if "pages" not in r
    }
    names = {"`jax.ops.segment_sum`": "segment_sum"}
    for name, *cells in table("against", "one model | eight models"):
        for models, cell in zip((1, 8), cells, strict=True):
            ratio = found[models, names.get(name, name)] / found[models, "jgd"]
            assert f"{ratio:.1f}" == cell, (name, models)
    ours = [1000 * r["forward"]["median"] for r in large if (r["models"], r["contestant"]) == (1, "jgd")]
    assert f"(ours from {ours[0]:.0f} to {ours[1]:.0f} ms forward" in " ".join(README.split())
    assert 0.2 < 1 - ours[1] / ours[0] < 0.3  # "a quarter of our forward time"
    training = {(r["hidden"], r["contestant"]): r["warm"]["median"] for r in load("training")["results"]}
    for name, *cells in table("against", "hidden 16 | 64 | 256"):
        for hidden, cell in zip((16, 64, 256), cells, strict=True):
            assert cell == f"{training[hidden, name] / training[hidden, 'jgd']:.1f}", (name, hidden)
    speed = load("condensation_speed")["results"]
    loops = ("gcond", "gcond-x", "doscond-x", "sfgc, one matching step", "sfgc, 20 experts")
    for loop, cell in zip(loops, table("GCond, outer epoch")[0], strict=True):
        ratio = speed[loop]["PyTorch"]["median"] / speed[loop]["jgd"]["median"]
        assert float(cell) == float(f"{ratio:.2g}"), loop


LOSSES = {
    "cross-entropy": {"cross-entropy"},
    "PLD": {"PLD"},
    "reverse KL": {"reverse KL"},
    "squares": {"squares (FitNet)"},
    "PKT": {"PKT"},
    "LELP's subclasses": {"subclasses (LELP)"},
    "Jeffreys": {"Jeffreys"},
    "ListMLE": {"ListMLE"},
    "CC": {"CC"},
    "InfoNCE": {"InfoNCE (TRG, across)"},
    "FSP": {"FSP"},
    "ICKD": {"ICKD"},
    "TRG's context": {"context (TRG, inner)"},
}


def test_all_losses_that_are_slower_are_named():
    text = " ".join(README.split())
    said = re.search(r"Slower than PyTorch: (.*?)\. RKD", text)
    assert said
    groups = re.findall(r"(at a hundred classes|at a thousand|on maps) (.*?)(?:;|$)", said[1])
    assert len(groups) == 3
    slower = {}
    for row in load("losses")["losses"]:
        ratio = float(f"{row['torch']['median'] / row['jgd']['median']:.1f}")
        if ratio < 1:
            slower.setdefault(row["classes"], {})[row["loss"]] = ratio
    for classes, (_, words) in zip((100, 1000, "maps"), groups, strict=True):
        named = {}
        for names, ratio in re.findall(r"(.+?) \((0\.\d)(?: times)?\)(?:, )?", words):
            for name in re.split(r", | and ", names):
                named |= dict.fromkeys(LOSSES[name.strip()], float(ratio))
        assert named == slower[classes], classes
