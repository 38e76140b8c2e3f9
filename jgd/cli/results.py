"""What the commands say about their results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jgd.cli.tables import human_bytes, show
from jgd.protocols import Comparison, Score, StudentComparison
from jgd.protocols.compare_graphs import GraphComparison
from jgd.protocols.sweep import MethodComparison
from jgd.protocols.text import spread

__all__ = [
    "OUTPUTS",
    "comparison_table",
    "conclude",
    "graph_table",
    "methods_table",
    "percent",
    "score_table",
    "student_table",
]

OUTPUTS = ("condensed.npz", "report.html", "metrics.json")
"""What a condenser leaves in its folder; the last one is the sign that all is done."""


def percent(score: Score) -> str:
    """Mean and standard deviation in %, where the column says so."""
    return f"{100 * score.test_mean:.1f} ± {100 * score.test_std:.1f}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}" if value >= 0.05 else "<0.1"


def comparison_table(comparison: Comparison) -> None:
    """Print what was compared: the whole graph, the condensed one, and the baselines of its size."""
    models = list(comparison.scores["full"])
    columns = ["", "nodes", "edges", "size", *(f"{model} %" for model in models), "Fréchet", "seconds"]
    rows = []
    for row in comparison.rows():
        scores: dict[str, Any] = row["scores"]
        rows.append(
            [
                "full graph" if row["name"] == "full" else row["name"],
                str(row["nodes"]),
                str(row["edges"]),
                human_bytes(row["bytes"]),
                *(percent(scores[model]) for model in models),
                "-" if row["fid"] is None else f"{row['fid']:.4f}",
                _seconds(row["seconds"]),
            ]
        )
    show(columns, rows, bold=comparison.method)


def conclude(comparison: Comparison, out: Path) -> None:
    """The headline, the table, and where the outputs are."""
    task, small = comparison.task, comparison.small.provenance
    labelled, whole = 100 * small["label_ratio"], 100 * small["node_ratio"]
    print(f"{task.name}: {task.num_nodes} nodes condensed to {small['nodes']} with {comparison.method}")
    print(f"({labelled:.3g} % of the labelled nodes, {whole:.3g} % of all)\n")
    comparison_table(comparison)
    count = next(iter(next(iter(comparison.scores.values())).values())).test.size
    print(f"\ntest accuracy ± standard deviation over {count} seed{'s' if count > 1 else ''}")
    own = [name for name, small in comparison.condensed.items() if "predictor" in small.train]
    if own:
        print(f"{', '.join(own)}: by the predictor that the set is meant for, whatever the column")
    shared = comparison.seconds.get("embedding")
    if shared is not None:
        print(f"herding and k-center also share a network that took {shared:.1f} s")
    print(f"written to {out}: {', '.join(OUTPUTS)}")


def score_table(scores: Mapping[str, Mapping[str, Score]]) -> None:
    """Print one row for each network: on the condensed graph and, where it is there, on the whole one."""
    columns = ["", "test", "val"] + (["full test", "full val", "kept"] if "full" in scores else [])
    rows = []
    for model, score in scores["condensed"].items():
        cells = [model, percent(score), f"{100 * score.val_mean:.1f}"]
        if full := scores.get("full", {}).get(model):
            kept = f"{100 * score.test_mean / full.test_mean:.1f} %" if full.test_mean else "-"
            cells += [percent(full), f"{100 * full.val_mean:.1f}", kept]
        rows.append(cells)
    show(columns, rows)


def methods_table(found: MethodComparison) -> None:
    """Print one row for each method and size, the whole graph first."""

    def accuracy(mean: float, std: float) -> str:
        return f"{100 * mean:.1f} ± {100 * std:.1f}" if mean == mean else "failed"

    def number(value: float, show: Callable[[float], str]) -> str:
        return show(value) if value == value else "-"

    columns = ["", "ratio", "nodes", "size", *(f"{m} %" for m in found.models), "seconds", "sets"]
    full = [accuracy(found.full[m].mean(), found.full[m].std()) for m in found.models]
    original = found.original
    rows = [["full graph", "-", str(original["nodes"]), human_bytes(original["bytes"]), *full, "-", "-"]]
    for row in found.rows():
        rows.append(
            [
                row.method,
                f"{row.label_ratio:g}",
                number(row.nodes, lambda n: f"{n:.0f}"),
                number(row.bytes, lambda n: human_bytes(round(n))),
                *(accuracy(*row.accuracy(m)) for m in found.models),
                number(row.time[0], _seconds),
                str(len(row.seconds)),
            ]
        )
    print(f"{found.dataset}: {len(found.methods)} methods, {len(found.cells)} sets\n")
    show(columns, rows)
    print("\ntest accuracy ± standard deviation over sets and networks; seconds to make a set")
    for row in found.rows():
        for error in row.errors:
            print(f"{row.method} at {row.label_ratio:g} made no set: {error}")


def student_table(found: StudentComparison) -> None:
    """Print one row for each objective, the teacher first."""
    columns = (("accuracy", 100, 1), ("ece", 100, 1), ("nll", 1, 3), ("agreement", 100, 1))
    rows = []
    for row in found.rows():
        values = ((row.get(what), scale, digits) for what, scale, digits in columns)
        cells = ["-" if value is None else spread(np.squeeze(value), *how) for value, *how in values]
        rows.append([row["name"], *cells, "-" if row["seconds"] is None else f"{row['seconds']:.1f}"])
    show(["", "accuracy %", "ECE %", "NLL", "agreement %", "seconds"], rows)


def graph_table(found: GraphComparison) -> None:
    """Print one row for each set of graphs, the whole one first."""
    models = list(found.rows()[0]["scores"])
    columns = ["", "graphs", "nodes", "edges", "size"]
    columns += [f"{model} {what}" for model in models for what in ("%", "AUC")] + ["seconds"]
    rows = []
    for row in found.rows():
        cells = ["all graphs" if row["name"] == "full" else row["name"]]
        cells += [str(row["graphs"]), str(row["nodes"]), str(row["edges"]), human_bytes(row["bytes"])]
        cells += [
            spread(x) for model in models for x in (row["scores"][model].test, row["scores"][model].auc)
        ]
        cells.append("-" if row["seconds"] is None else f"{row['seconds']:.1f}")
        rows.append(cells)
    show(columns, rows, bold=found.method)
