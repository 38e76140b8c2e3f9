"""Tables whose columns say how numbers are shown: for terminals, pages and Markdown."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

__all__ = ["NONE", "Column", "best_rows", "cell", "human_bytes", "listing", "markdown", "show"]

NONE = "\N{EN DASH}"


class Column(NamedTuple):
    """A column of numbers or text.

    Attributes:
      key: Where rows have the value: a number, numbers that are shown as mean ± standard deviation, text, or
        None.
      title: Heading.
      scale: What numbers are multiplied by; or a unit: ``"count"`` (whole numbers), ``"bytes"``,
        ``"seconds"``, ``"text"``.
      digits: Digits after the point.
      best: Whether the largest or the smallest number is marked, among the rows that are not a reference.
      group: Heading above several columns, of which the title is then a part.
      short: Heading where there is no room for a group; group and title by default.
    """

    key: str
    title: str
    scale: float | Literal["count", "bytes", "seconds", "text"] = "count"
    digits: int = 1
    best: Literal["largest", "smallest"] | None = None
    group: str = ""
    short: str = ""

    @property
    def heading(self) -> str:
        """Heading in one line."""
        if self.short:
            return self.short
        return f"{self.group}, {self.title}" if self.group and self.title else self.group or self.title


def cell(row: Mapping[str, Any], column: Column) -> str:
    """Return the text of a value.

    Args:
      row: Values by key.
      column: Which value, and how it is shown.
    """
    value = row.get(column.key)
    if value is None or (not isinstance(value, str) and np.size(value) == 0):
        return NONE
    if isinstance(value, str):
        return value
    values = np.asarray(value, float)
    if not np.isfinite(values).all():
        return NONE
    mean, std = float(values.mean()), float(values.std())
    if column.scale == "count":
        return f"{mean:,.0f}"
    if column.scale == "bytes":
        return human_bytes(round(mean))
    if column.scale == "seconds":
        return _seconds(mean) if values.size < 2 else f"{_seconds(mean)} ± {_seconds(std)}"
    if column.scale == "text":
        return str(value)
    mean, std = column.scale * mean, column.scale * std
    if 0 < abs(mean) < 0.5 * 10**-column.digits and not values.ndim:
        return f"{mean:.1e}"
    return f"{mean:.{column.digits}f}" + (f" ± {std:.{column.digits}f}" if values.size > 1 else "")


def _seconds(value: float) -> str:
    """Two digits of small times, whole seconds of large ones, because times differ by magnitudes."""
    if value < 0.01:
        return "<0.01"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def best_rows(rows: Sequence[Mapping[str, Any]], column: Column) -> set[int]:
    """Return the places of the rows with the best number of a column; none where all are the same.

    Args:
      rows: Rows; one with a true ``"reference"`` does not compete, and rows compete within their ``"group"``.
      column: The column.
    """
    if column.best is None:
        return set()
    found: set[int] = set()
    for group in dict.fromkeys(row.get("group") for row in rows):
        values = {
            i: float(np.mean(row[column.key]))
            for i, row in enumerate(rows)
            if row.get("group") == group
            and not row.get("reference")
            and row.get(column.key) is not None
            and np.size(row[column.key])
        }
        values = {i: v for i, v in values.items() if math.isfinite(v)}
        if len(set(values.values())) > 1:
            top = (max if column.best == "largest" else min)(values.values())
            found |= {i for i, v in values.items() if v == top}
    return found


def markdown(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> str:
    """Return a table in Markdown; the best numbers are bold.

    Args:
      rows: Rows with a ``"name"`` each.
      columns: Columns.
    """
    best = [best_rows(rows, column) for column in columns]
    lines = [
        "| | " + " | ".join(column.heading for column in columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    for i, row in enumerate(rows):
        texts = [cell(row, column) for column in columns]
        cells = [f"**{text}**" if i in top else text for text, top in zip(texts, best, strict=True)]
        lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


_FOREVER = 10_000


def human_bytes(count: int) -> str:
    """Return a number of bytes with a decimal unit: ``531 kB``."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5 or unit == "GB":
            digits = 0 if unit == "B" or size >= 99.95 else 1
            return f"{size:.{digits}f} {unit}"
        size /= 1000
    raise AssertionError("the last unit takes all")


def _table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[str], bold: str | None
) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in columns:
        table.add_column(Text(name), justify="left" if name in left else "right", no_wrap=True)
    for row in rows:
        style = "bold" if bold is not None and row[0] == bold else None
        table.add_row(*(Text(cell) for cell in row), style=style)
    return table


def show(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    left: Sequence[str] = (),
    bold: str | None = None,
) -> None:
    """Print a table on standard output; columns that do not fit go into a second one below.

    Args:
      columns: Headings; the first names the row and is repeated.
      rows: Cells as text.
      left: Columns that are text and not numbers.
      bold: First cell of the row to stress.
    """
    console = Console(file=sys.stdout, highlight=False)
    left = (columns[0], *left)

    def part(chosen: Sequence[int]) -> Table:
        picked = [[row[i] for i in chosen] for row in rows]
        return _table([columns[i] for i in chosen], picked, left, bold)

    def width(chosen: Sequence[int]) -> int:
        return Measurement.get(console, console.options.update(width=_FOREVER), part(chosen)).maximum

    blocks: list[list[int]] = [[0]]
    for i in range(1, len(columns)):
        if len(blocks[-1]) > 1 and width([*blocks[-1], i]) > console.width:
            blocks.append([0])
        blocks[-1].append(i)
    for n, chosen in enumerate(blocks):
        if n:
            console.print()
        console.print(part(chosen), width=max(console.width, width(chosen)), crop=False, no_wrap=True)


def listing(columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[str] = ()) -> None:
    """Print a table whose last column is text that may run over several lines."""
    console = Console(file=sys.stdout, highlight=False)
    table = _table(columns, rows, (*left, columns[0], columns[-1]), None)
    table.columns[-1].no_wrap = False
    table.columns[-1].overflow = "fold"
    fixed = Measurement.get(console, console.options.update(width=_FOREVER), table).maximum
    last = max(len(row[-1]) for row in rows)
    console.print(table, width=min(fixed, max(console.width, fixed - last + 20)), crop=False)
