"""What the pages of the report are built of: the document, tables, figures, and numbers as text."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jgd.protocols.evaluate import Score
from jgd.report.markup import Markup, el, join
from jgd.report.stylesheet import CSS

__all__ = [
    "GLUE",
    "NONE",
    "accuracy_text",
    "best_rows",
    "table_cell",
    "data_section",
    "distance_text",
    "document",
    "captioned",
    "column",
    "command_block",
    "key_list",
    "number_range",
    "percent",
    "run_section",
    "seconds_text",
    "set_table",
    "setting_list",
    "size_text",
]

NONE = "\N{EN DASH}"
GLUE = "\N{NO-BREAK SPACE}"


def document(
    title: str,
    summary: str,
    key: Markup,
    sections: Mapping[str, tuple[str, Markup]],
    *,
    version: str,
) -> str:
    """A whole page.

    Args:
      title: in lower case where it is no name.
      summary: the outcome in a sentence.
      key: the most important numbers, see `key_list`.
      sections: heading and content by id; the first is what one skips to.
      version: of JGD.
    """
    links = [el("li", el("a", heading, href=f"#{name}")) for name, (heading, _) in sections.items()]
    header = el(
        "header",
        el("h1", title[0].upper() + title[1:]),
        el("p", summary, class_="lead"),
        key,
        el("nav", el("ul", *links), aria_label="Sections"),
    )
    main = [
        el(
            "section",
            el("h2", heading, id=f"{name}-heading"),
            body,
            id=name,
            aria_labelledby=f"{name}-heading",
        )
        for name, (heading, body) in sections.items()
    ]
    body = el(
        "body",
        el("a", "Skip to the results", class_="skip", href="#main"),
        header,
        el("main", *main, id="main", tabindex=-1),
        el("footer", f"Written by JGD {version}."),
    )
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    head = (
        '<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"{el('title', title)}\n<style>{CSS}</style>"
    )
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n{body}\n</html>\n'


def key_list(items: Mapping[str, tuple[str, str]]) -> Markup:
    """The numbers that matter most: name, value and a note."""
    rows = [
        el("div", el("dt", name), el("dd", el("strong", value), " ", note))
        for name, (value, note) in items.items()
    ]
    return el("dl", *rows, class_="key")


# --- numbers as text ----------------------------------------------------------------------------


def percent(fraction: int | float) -> str:
    """A fraction in %."""
    return f"{100 * fraction:.1f}{GLUE}%"


def accuracy_text(score: Score) -> str:
    """Mean and standard deviation in %."""
    return str(score).replace(" ", GLUE)


def size_text(count: int) -> str:
    """Bytes with a decimal unit."""
    power = min(len(f"{count}") - 1, 11) // 3
    return f"{count / 1000**power:.3g}{GLUE}{('bytes', 'kB', 'MB', 'GB')[power]}"


def seconds_text(value: int | float | None) -> str:
    """Seconds to a hundredth."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:,.2f}" if value >= 0.005 else "<0.01"


def distance_text(value: int | float | None) -> str:
    """A distance, however small."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:.4f}" if value >= 0.0005 or value == 0 else f"{value:.1e}"


def number_range(numbers: set[int]) -> str:
    """The number, or from which to which."""
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


# --- tables and figures -------------------------------------------------------------------------


def best_rows(values: Sequence[int | float | None], *, largest: bool = False) -> set[int]:
    """Indices of the best finite values; none where all are the same."""
    finite = {i: v for i, v in enumerate(values) if v is not None and math.isfinite(v)}
    if len(set(finite.values())) < 2:
        return set()
    top = (max if largest else min)(finite.values())
    return {i for i, v in finite.items() if v == top}


def table_cell(text: str, best: bool) -> Markup:
    """A cell, marked by more than colour where it is the best of its column."""
    if not best:
        return el("td", text, el("span", class_="mark"))
    mark = el(
        "span", el("span", "*", aria_hidden="true"), el("span", " best", class_="hidden"), class_="mark"
    )
    return el("td", text, mark, class_="best")


def column(
    rows: Sequence[Mapping[str, Any]],
    show: Callable[[Any], str],
    value: Callable[[Any], Any] | None = None,
    **which: bool,
) -> list[Markup]:
    """Cells of one column; among all rows but the first, the whole data, the best values are marked.

    Args:
      rows: of the table.
      show: a row as text.
      value: what to compare; None to mark nothing.
      **which: as in `best_rows`.
    """
    numbers = [] if value is None else [value(row) for row in rows[1:]]
    best = best_rows([None if n is None else float(n) for n in numbers], **which)
    return [table_cell(show(row), i - 1 in best) for i, row in enumerate(rows)]


def set_table(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[Sequence[Markup]],
    head: Markup,
    *,
    whole: str,
    method: str,
    note: str,
    caption: str = "The sets, and networks trained on them",
) -> Markup:
    """A table with a row for each set, the whole data first.

    Args:
      rows: with a ``"name"`` each.
      columns: cells by column, see `column`.
      head: of the table.
      whole: what the first row is called.
      method: name of the row to stress.
      note: below the table.
      caption: above it.
    """
    names = [whole, *(row["name"] for row in rows[1:])]
    cells = zip([el("th", name, scope="row") for name in names], *columns, strict=True)
    lines = [
        el("tr", *line, class_="method" if row["name"] == method else None)
        for row, line in zip(rows, cells, strict=True)
    ]
    table = el(
        "table",
        el("caption", el("strong", "Table 1. "), caption, id="table-caption"),
        head,
        el("tbody", lines[0]),
        el("tbody", *lines[1:]),
    )
    scroll = el("div", table, class_="scroll", tabindex=0, role="region", aria_labelledby="table-caption")
    return join(scroll, el("p", note, class_="note"))


def command_block(command: str) -> Markup:
    """What was typed, or that nothing was."""
    if not command:
        return el("p", "Run from Python; no command was recorded.")
    return el("pre", el("code", command), tabindex=0, role="group", aria_label="Command")


def run_section(metrics: Mapping[str, Any], protocol: str) -> Markup:
    """What was run: the command, the protocol in words and numbers, settings, seconds and versions."""
    seed, command = metrics["seed"], metrics["command"]
    parts: list[str] = [
        el("h3", "Command"),
        command_block(command),
        el("h3", "Protocol"),
        el("p", protocol),
    ]
    if metrics.get("protocol"):
        parts.append(setting_list(metrics["protocol"]))
    groups = {
        f"Settings of {metrics['method']}": metrics["config"],
        "Random seed": {"seed": "not recorded" if seed is None else seed},
        "Seconds": {name: seconds_text(value) for name, value in metrics["seconds"].items()},
        "Versions and device": metrics["versions"],
    }
    for heading, values in groups.items():
        parts += [el("h3", heading), setting_list(values)]
    return join(*parts)


def captioned(number: int, svg: Markup, label: str, caption: str) -> Markup:
    """A figure that scrolls where the page is narrow, with a caption."""
    scroll = el("div", svg, class_="scroll", tabindex=0, role="group", aria_label=label)
    return el("figure", scroll, el("figcaption", el("strong", f"Figure {number}. "), caption))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def setting_list(values: Mapping[str, Any]) -> Markup:
    """Names and values in columns."""
    rows = [el("div", el("dt", name), el("dd", _plain(value))) for name, value in values.items()]
    return el("dl", *rows, class_="settings")


def _finite(value: Any) -> Any:
    """The value with None for numbers that JSON cannot say."""
    if isinstance(value, Mapping):
        return {str(name): _finite(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def data_section(metrics: dict[str, Any]) -> Markup:
    """Everything as JSON, folded away."""
    text = json.dumps(_finite(metrics), indent=2, ensure_ascii=False, default=str)
    return el(
        "details",
        el("summary", "All numbers of this report as JSON"),
        el("pre", el("code", text), tabindex=0, role="group", aria_label="All numbers as JSON"),
    )
