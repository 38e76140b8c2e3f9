"""Tables for terminals, pipes and files: plain text that is never cut off."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

__all__ = ["human_bytes", "listing", "show"]

_FOREVER = 10_000


def human_bytes(count: int) -> str:
    """A number of bytes with a decimal unit: ``531 kB``."""
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
      columns: headings; the first names the row and is repeated.
      rows: cells as text.
      left: columns that are text and not numbers.
      bold: first cell of the row to stress.
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
