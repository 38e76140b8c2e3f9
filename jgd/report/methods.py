"""One self-contained HTML page about a comparison of methods."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np

from jgd.files import atomic_write
from jgd.protocols.sweep import MethodComparison, Row
from jgd.report.markup import Markup, el, inline_svg, join
from jgd.report.parts import (
    GLUE,
    NONE,
    best_rows,
    captioned,
    command_block,
    data_section,
    document,
    key_list,
    setting_list,
    size_text,
    table_cell,
)
from jgd.report.plots import network_title, plot_methods

__all__ = ["write_method_report"]


def write_method_report(path: str | os.PathLike, comparison: MethodComparison, *, command: str = "") -> Path:
    """Write a comparison of methods as a single HTML file, whole or not at all.

    Args:
      path: of the file; folders are made.
      comparison: what `jgd.protocols.compare_methods` returned.
      command: what was typed, for the record.

    Returns:
      The path.
    """
    metrics = comparison.metrics(command=command)
    count = len(comparison.methods)
    plural = "s" if count > 1 else ""
    page = document(
        f"{count} condenser{plural} on {comparison.dataset or 'a graph'}",
        _summary(comparison),
        _key_numbers(comparison),
        {
            "results": ("Results", join(_table(comparison), el("p", _notes(comparison), class_="note"))),
            "plots": ("Accuracy, size and time", _figure(comparison)),
            "run": ("What was run", _run(comparison, command)),
            "data": ("The numbers as data", data_section(metrics)),
        },
        version=comparison.versions.get("jgd", ""),
    )
    with atomic_write(path, "w") as file:
        file.write(page)
    return Path(path)


def _ratio(value: float) -> str:
    return f"{100 * value:.3g}{GLUE}%"


def _seconds(value: float) -> str:
    """Seconds to two digits or to the second; times of several methods differ by orders of magnitude."""
    if not math.isfinite(value):
        return NONE
    if value < 0.01:
        return "<0.01"
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _pair(mean: float, std: float) -> str:
    """Mean and standard deviation of fractions, where the column says that they are in %."""
    return f"{100 * mean:.1f} ± {100 * std:.1f}".replace(" ", GLUE) if math.isfinite(mean) else NONE


def _top(comparison: MethodComparison, model: str) -> Row | None:
    rows = [row for row in comparison.rows() if len(row.seconds)]
    return max(rows, key=lambda row: row.accuracy(model)[0], default=None)


def _summary(comparison: MethodComparison) -> str:
    """The outcome in a sentence."""
    model = comparison.models[0]
    full, row = comparison.full[model], _top(comparison, model)
    if row is None:
        return "No method could make a set."
    mean, std = row.accuracy(model)
    return (
        f"Networks trained on {row.nodes:,.0f} nodes that {row.method} made of "
        f"{comparison.original['nodes']:,} reach the highest accuracy here: {_pair(mean, std)}{GLUE}% with "
        f"{network_title(model)}, where the whole graph gives {_pair(full.mean(), full.std())}{GLUE}%."
    )


def _key_numbers(comparison: MethodComparison) -> Markup:
    original, rows = comparison.original, comparison.rows()
    made = [row for row in rows if len(row.seconds)]
    sizes = sorted({round(row.nodes) for row in made})
    times = [row.time[0] for row in made]
    items = {
        "Original": (f"{original['nodes']:,} nodes", f"{original['labelled']:,} of them labelled"),
        "Condensed": (
            f"{', '.join(f'{n:,}' for n in sizes[:4])}{' …' if len(sizes) > 4 else ''} nodes",
            f"{len(comparison.methods)} methods, {sum(len(r.seconds) for r in rows)} sets",
        ),
    }
    if times:
        low, high = min(times), max(times)
        items["Time to make a set"] = (
            f"{_seconds(low)} to {_seconds(high)} s",
            f"{_seconds(comparison.full_seconds)} s to train the networks of the whole graph",
        )
        items["Size of a set"] = (
            size_text(round(min(row.bytes for row in made))),
            f"at least, of {size_text(original['bytes'])}",
        )
    return key_list(items)


def _table(comparison: MethodComparison) -> Markup:
    """A group of rows for each size; the best of each group is marked."""
    models = comparison.models
    rows = comparison.rows()
    original = comparison.original
    whole = el(
        "tr",
        el("th", "full graph", scope="row"),
        *(table_cell(f"{original[name]:,}", False) for name in ("nodes", "bytes")),
        *(table_cell(_pair(comparison.full[m].mean(), comparison.full[m].std()), False) for m in models),
        *(table_cell(text, False) for text in (NONE, NONE)),
    )
    groups = []
    for ratio in sorted({row.label_ratio for row in rows}):
        own = [row for row in rows if row.label_ratio == ratio]
        top = {m: best_rows([row.accuracy(m)[0] for row in own], largest=True) for m in models}
        light = best_rows([row.bytes for row in own])
        quick = best_rows([row.time[0] for row in own])
        heading = f"{_ratio(ratio)} of the labelled nodes"
        groups.append(
            el(
                "tbody",
                el("tr", el("th", heading, scope="rowgroup", colspan=5 + len(models), class_="group")),
                *(
                    el(
                        "tr",
                        el("th", row.method, scope="row"),
                        table_cell(_count(row.nodes), False),
                        table_cell(_count(row.bytes), i in light),
                        *(table_cell(_pair(*row.accuracy(m)), i in top[m]) for m in models),
                        table_cell(_time(row), i in quick),
                        table_cell(str(len(row.seconds)) if len(row.seconds) else NONE, False),
                    )
                    for i, row in enumerate(own)
                ),
            )
        )
    table = el(
        "table",
        el(
            "caption", el("strong", "Table 1. "), "Methods by size, the whole graph first", id="table-caption"
        ),
        _head(models),
        el("tbody", whole),
        *groups,
    )
    return el("div", table, class_="scroll", tabindex=0, role="region", aria_labelledby="table-caption")


def _count(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) else NONE


def _time(row: Row) -> str:
    mean, std = row.time
    if len(row.seconds) < 2:
        return _seconds(mean)
    return f"{_seconds(mean)} ± {_seconds(std)}".replace(" ", GLUE)


def _head(models: tuple[str, ...]) -> Markup:
    def tall(text):
        return el("th", text, scope="col", rowspan=2)

    return el(
        "thead",
        el(
            "tr",
            *map(tall, ("Method", "Nodes", "Bytes")),
            el("th", "Test accuracy, %", scope="colgroup", colspan=len(models)),
            *map(tall, ("Seconds", "Sets")),
        ),
        el("tr", *(el("th", network_title(model), scope="col") for model in models)),
    )


def _notes(comparison: MethodComparison) -> str:
    rows = comparison.rows()
    several = any(row.test[comparison.models[0]].size > 1 for row in rows)
    text = (
        f"Accuracy: mean{' ± standard deviation' if several else ''} over the networks of all sets. Seconds: "
        "to make a set, compilation included, which makes the first set of a size the slowest. Bytes: of "
        "features, edges and labels. Bold with an asterisk: highest accuracy, fewest bytes and least time "
        "among the sets of a size."
    )
    failed = [f"{row.method} at {_ratio(row.label_ratio)}: {error}" for row in rows for error in row.errors]
    return f"{text} No set could be made by {'; '.join(failed)}." if failed else text


def _figure(comparison: MethodComparison) -> Markup:
    title = "Test accuracy of each method against size and time"
    told = []
    for model in comparison.models:
        for row in comparison.rows():
            if len(row.seconds):
                mean, std = row.accuracy(model)
                told.append(
                    f"{row.method} with {row.nodes:,.0f} nodes {_pair(mean, std)} % in "
                    f"{_seconds(row.time[0])} s"
                )
    description = f"Two line charts for each architecture. {'; '.join(told)}."
    caption = (
        "Test accuracy against the number of condensed nodes (left) and against the seconds to make a set "
        "(right), both on logarithmic axes. Marks: means; bars: standard deviations; a line joins the sizes "
        "of a method, whose name stands at its right end. Dashed line: networks trained on the whole graph. "
        "The numbers are those of Table 1."
    )
    svg = inline_svg(plot_methods(comparison), "methods-plot", title=title, description=description)
    return captioned(1, svg, title, caption)


def _run(comparison: MethodComparison, command: str) -> Markup:
    protocol = comparison.protocol
    networks = {np.asarray(v).size for cell in comparison.cells for v in cell.test.values()}
    each = f"{max(networks)} network{'s' if max(networks) > 1 else ''}" if networks else "no network"
    text = (
        f"The setting is {comparison.setting}. Each method makes its sets from different random keys; "
        f"{each} of each architecture is trained full-batch on each set for {protocol.epochs} epochs. The "
        "state that is best on the validation nodes of the original graph is tested on its test nodes. The "
        "whole graph goes through the same procedure."
    ).replace("networks of each architecture is", "networks of each architecture are")
    return join(
        el("h3", "Command"),
        command_block(command),
        el("h3", "Protocol"),
        el("p", text),
        setting_list(vars(protocol)),
        el("h3", "Versions and device"),
        setting_list(comparison.versions),
    )
