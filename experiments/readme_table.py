"""README's table of methods and objectives: paper, name, command, measured beside reported.

    python experiments/readme_table.py            # write the table into README.md
    python experiments/readme_table.py --check    # exit code 1 where README.md has another table

Names and papers are those of the catalogues `jgd.condense.METHODS` and `jgd.distill.OBJECTIVES`, numbers those
of ``experiments/results``. Nothing is measured here.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
import condensation_table
import graph_condensation
import kd_table
import measure
import mirage

from jgd.condense import METHODS
from jgd.distill import OBJECTIVES
from jgd.registry import Entry

README = measure.ROOT / "README.md"
START, END = "<!-- written by experiments/readme_table.py -->", "<!-- end of the table -->"
HEADER = ["paper", "name", "command", "measured, % (reported)"]
OBJECTIVE_ROWS = {
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
"""Rows of ``results/kd.json`` by objective."""
NODES = {"cora": 70, "citeseer": 60}
OBJECTIVE_PARTS = {"digits-100": "digits", "mnist-1000": "MNIST"}
NOTHING = "–"


def load(name: str) -> dict[str, Any]:
    """A committed result."""
    return json.loads((measure.RESULTS / f"{name}.json").read_text())


def mean_std(values: Any, scale: float = 100.0, digits: int = 1) -> str:
    """Mean ± standard deviation over the first axis, or the one value."""
    found = scale * np.asarray(values, np.float64)
    found = found.mean(tuple(range(1, found.ndim))) if found.ndim > 1 else found
    text = f"{found.mean():.{digits}f}"
    return text if len(found) < 2 else f"{text} ± {found.std():.{digits}f}"


def of_nodes(name: str) -> str:
    """Accuracy on Cora with 70 nodes and on Citeseer with 60."""
    rows, cells, notes = load("condensation")["rows"], [], []
    for dataset in condensation_table.DATASETS:
        row = condensation_table.found_row(rows, dataset, name, 0.5)
        if row is None:
            continue
        reported = condensation_table.published(dataset, name, 0.5)
        dagger = "†" if name in condensation_table.REBUILT else ""
        beside = "" if reported is None else f" ({reported:.1f}{dagger})"
        size = "" if row["nodes"] == NODES[dataset] else f" with {row['nodes']} nodes"
        cells.append(f"{dataset.capitalize()} {mean_std(row['test'])}{beside}{size}")
        predictor = "; its own kernel" if row.get("predictor", "gcn") != "gcn" else ""
        budget = row.get("note", "").partition(" (see")[0]
        budget = f"; {budget}" if budget and not budget.startswith("of ") else ""
        notes.append(f"{len(row['test'])} set{'s' if len(row['test']) > 1 else ''}{predictor}{budget}")
    return "; ".join([", ".join(cells), *dict.fromkeys(notes)])


def of_graphs(name: str) -> str:
    """Accuracy on NCI1 with ten graphs of each class, or with as many nodes."""
    row = load("graph_condensation")["NCI1"][name]
    cells = [f"NCI1 {mean_std(row['gin']['test'])}"]
    reported = graph_condensation.PAPER.get(("NCI1", name))
    if reported is not None:
        cells.append(f"GCN {mean_std(row['gcn']['test'])} ({reported:.1f})")
    if name == "mirage":
        cells += [
            f"ROC-AUC at a support of {support} {auc(part, 'mirage')}{beside}, random graphs "
            f"{auc(part, 'random graphs')}"
            for support, part, beside in (
                ("25 %", "nci1", f" ({100 * float(mirage.ELSEWHERE):.1f}†)"),
                ("10 %", "nci1/0.1", ""),
            )
        ]
    note = f"; {row['note']}" if "steps" in row["note"] else ""
    return f"{', '.join(cells)}; {len(row['nodes'])} sets{note}"


def auc(part: str, row: str) -> str:
    """ROC-AUC of Mirage's own page, in %."""
    found = load("mirage")[part][row]
    return f"{100 * found['auc_mean']:.1f} ± {100 * found['auc_std']:.1f}"


def of_objective(name: str) -> str:
    """Accuracy of students that see 100 digits, and 1000 images of MNIST."""
    record, row = load("kd"), OBJECTIVE_ROWS[name]
    cells = []
    for part, title in OBJECTIVE_PARTS.items():
        if row in record[part]:
            reported = kd_table.CARDS.get(part, {}).get(row)
            beside = "" if reported is None else f" ({reported:.1f}†)"
            cells.append(f"{title} {mean_std(record[part][row]['accuracy'])}{beside}")
    return ", ".join(cells)


def line(entry: Entry, command: str, measured: str) -> list[str]:
    """A row of the table."""
    return [entry.paper or NOTHING, entry.name, f"`{command}`", measured]


def table() -> str:
    """The table in Markdown; methods and objectives without a committed result have a dash."""
    nodes = {row["method"] for row in load("condensation")["rows"] if row["ratio"] == 0.5}
    parts = {"cora": (nodes, of_nodes), "tu:NCI1": (load("graph_condensation")["NCI1"], of_graphs)}
    kinds = {"nodes": "cora", "graphs": "tu:NCI1"}
    lines = []
    for entry in METHODS.entries():
        found = [make(entry.name) for measured, make in parts.values() if entry.name in measured]
        dataset = next((kinds[kind] for kind in entry.kinds if kind in kinds), "DATASET")
        command = f"jgd condense {dataset} --method {entry.name}"
        lines.append(line(entry, command, "; ".join(found) or NOTHING))
    for entry in OBJECTIVES.entries():
        found = of_objective(entry.name) if entry.name in OBJECTIVE_ROWS else NOTHING
        lines.append(line(entry, f"jgd distill --objectives {entry.name}", found))
    return measure.table(HEADER, lines)


def written(text: str) -> str:
    """A text with the table between its marks.

    Args:
      text: Text with both marks, each on a line of its own.
    """
    before, start, rest = text.partition(f"{START}\n")
    _, end, after = rest.partition(f"{END}\n")
    if not start or not end:
        raise ValueError(f"the text has no line {START!r} that is followed by a line {END!r}")
    return f"{before}{start}{table()}\n{end}{after}"


def main() -> int:
    """Write the table into README.md, or compare it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare with README.md, and write nothing")
    options = parser.parse_args()
    before = README.read_text()
    after = written(before)
    if options.check:
        return int(before != after)
    README.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
