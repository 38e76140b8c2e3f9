"""The page about condensed sets of graphs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from jgd.files import atomic_write
from jgd.protocols.compare_graphs import GraphComparison
from jgd.protocols.text import spread
from jgd.report.markup import Markup, el, inline_svg
from jgd.report.parts import (
    captioned,
    column,
    data_section,
    document,
    key_list,
    number_range,
    percent,
    run_section,
    seconds_text,
    set_table,
    size_text,
)
from jgd.report.plots import network_title, plot_accuracy

__all__ = ["write_graph_report"]


def write_graph_report(path: str | os.PathLike, comparison: GraphComparison, metrics: dict[str, Any]) -> Path:
    """Write a report as a single HTML file, whole or not at all.

    Args:
      path: of the file; folders are made.
      comparison: what `compare_graphs` returned.
      metrics: what `GraphComparison.metrics` returned.
    """
    rows = {row["name"]: row for row in comparison.rows()}
    full, own = rows["full"], rows[comparison.method]
    model = next(iter(comparison.scores["full"]))
    small, whole = own["scores"][model], full["scores"][model]
    page = document(
        f"{metrics['dataset'] or 'graphs'} condensed by {metrics['method']}",
        f"{full['graphs']:,} training graphs with {full['nodes']:,} nodes became {own['graphs']:,} with "
        f"{own['nodes']:,}. A {network_title(model)} trained on these reaches a test accuracy of "
        f"{percent(small.test_mean)}, one trained on all graphs {percent(whole.test_mean)}.",
        key_list(
            {
                "Graphs": (f"{own['graphs']:,}", f"of {full['graphs']:,}"),
                "Nodes": (f"{own['nodes']:,}", f"of {full['nodes']:,}"),
                "Bytes": (size_text(own["bytes"]), f"of {size_text(full['bytes'])}"),
                "ROC-AUC": (f"{100 * small.auc_mean:.1f}", f"{100 * whole.auc_mean:.1f} with all graphs, %"),
            }
        ),
        {
            "results": ("Results", _table(comparison)),
            "accuracy": ("Accuracy", _figure(comparison)),
            "run": ("What was run", run_section(metrics, _protocol(comparison))),
            "data": ("The numbers as data", data_section(metrics)),
        },
        version=metrics["versions"].get("jgd", ""),
    )
    with atomic_write(path, "w") as file:
        file.write(page)
    return Path(path)


def _table(comparison: GraphComparison) -> Markup:
    rows, models = comparison.rows(), list(comparison.scores["full"])

    def scores(model: str) -> list[list[Markup]]:
        def of(name):
            def values(row):
                return getattr(row["scores"][model], name)

            return column(rows, lambda row: spread(values(row)), lambda row: values(row).mean(), largest=True)

        return [of("test"), of("auc")]

    columns = [
        column(rows, lambda row: f"{row['graphs']:,}"),
        column(rows, lambda row: f"{row['nodes']:,}"),
        column(rows, lambda row: f"{row['edges']:,}"),
        column(rows, lambda row: f"{row['bytes']:,}", lambda row: row["bytes"]),
        *(c for model in models for c in scores(model)),
        column(rows, lambda row: seconds_text(row["seconds"])),
    ]

    def tall(text):
        return el("th", text, scope="col", rowspan=2)

    head = el(
        "thead",
        el(
            "tr",
            *map(tall, ("Set", "Graphs", "Nodes", "Edges", "Bytes")),
            *(el("th", f"{network_title(m)}, %", scope="colgroup", colspan=2) for m in models),
            tall("Seconds"),
        ),
        el("tr", *(el("th", what, scope="col") for _ in models for what in ("accuracy", "ROC-AUC"))),
    )
    seeds = {len(score.test) for by_model in comparison.scores.values() for score in by_model.values()}
    note = (
        f"Mean ± standard deviation over {number_range(seeds)} seeds, on the test graphs. Seconds: to make "
        "the set. Bold with an asterisk: fewest bytes and highest scores among the condensed sets."
    )
    return set_table(rows, columns, head, whole="all graphs", method=comparison.method, note=note)


def _figure(comparison: GraphComparison) -> Markup:
    title = "Test accuracy of each set and architecture"
    panels = [
        f"{network_title(model)}: "
        + ", ".join(f"{name} {scores[model]}" for name, scores in comparison.scores.items())
        for model in comparison.scores["full"]
    ]
    svg = inline_svg(
        plot_accuracy(comparison),
        "accuracy-plot",
        title=title,
        description=f"Bar chart, one panel for each architecture. {'; '.join(panels)}.",
    )
    return captioned(
        1,
        svg,
        title,
        "Test accuracy of networks trained on each set. Error bars and numbers: standard deviation over "
        "seeds. Dashed line: all graphs.",
    )


def _protocol(comparison: GraphComparison) -> str:
    """How networks were trained and tested."""
    protocol = comparison.protocol
    return (
        f"Every network takes {protocol.steps} steps on batches of {protocol.batch_size} graphs, or on all "
        f"where there are no more. Every {protocol.select_every} steps its {protocol.select} on the "
        "validation graphs is measured, and the state that was best there is tested on the test graphs. "
        "Baselines choose graphs with as many nodes as the method used."
    )
