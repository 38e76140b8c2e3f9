"""A comparison: rows and columns, figures and a record, for the terminal, HTML, Markdown and JSON.

The page has no scripts, no requests and no dependencies: text, a table and inline SVG that follow the
reader's light or dark theme, fit a phone, print, and can be read with a keyboard and a screen reader.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from jgd.files import atomic_write
from jgd.report.markup import Markup, el, inline_svg, join
from jgd.report.style import CSS
from jgd.report.table import Column, best_rows, cell, markdown, show

__all__ = ["GLUE", "Comparison", "Picture", "finite", "percent", "size_text"]

GLUE = "\N{NO-BREAK SPACE}"


class Picture(NamedTuple):
    """A figure of a comparison.

    Attributes:
      name: Its name, an identifier.
      title: What it is, in a few words.
      caption: What it shows.
      draw: Makes the figure.
      description: What a reader who cannot see it should know; the caption where it is empty.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[], Figure]
    description: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Several contestants under one protocol.

    Attributes:
      title: What was compared, in a few words.
      headline: The outcome in a sentence.
      rows: One row for each contestant: ``"name"``, values by key of the columns, and where they apply
        ``"reference"`` (what all are compared with), ``"stress"`` (the one that it is about) and ``"group"``.
      columns: Columns of the table.
      figures: Pictures.
      record: Everything as plain JSON values.
      facts: The numbers that matter most: value and note by name.
      notes: What to know to read the table.
      protocol: How the contestants were trained and tested, in words.
      products: What was compared, by name: condensed sets, networks.
      scores: Scores as they were measured.
    """

    title: str
    headline: str
    rows: tuple[Mapping[str, Any], ...]
    columns: tuple[Column, ...]
    figures: tuple[Picture, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    notes: str = ""
    protocol: str = ""
    products: Mapping[str, Any] = field(default_factory=dict)
    scores: Any = None

    def recorded(self, **entries: Any) -> Comparison:
        """Return the comparison with further entries of its record, such as ``command`` and ``seed``."""
        return replace(self, record={**self.record, **entries})

    def __str__(self) -> str:
        """Return title and table in Markdown."""
        return f"{self.title}\n\n{self.markdown()}"

    def _repr_markdown_(self) -> str:
        """Return what notebooks show."""
        return str(self)

    def __repr__(self) -> str:
        """Return title and size."""
        return f"Comparison({self.title!r}, {len(self.rows)} rows)"

    def show(self) -> None:
        """Print headline, table and notes on standard output, in the width of the terminal."""
        print(f"{_wrapped(self.headline)}\n")
        bold = next((str(row["name"]) for row in self.rows if row.get("stress")), None)
        texts = [[str(row["name"]), *(cell(row, column) for column in self.columns)] for row in self.rows]
        show(["", *(column.heading for column in self.columns)], texts, bold=bold)
        if self.notes:
            print(f"\n{_wrapped(self.notes)}")

    def markdown(self) -> str:
        """Return the table in Markdown."""
        return markdown(self.rows, self.columns)

    def json(self) -> str:
        """Return the record as JSON; numbers that JSON cannot say are null."""
        return json.dumps(finite(self.record), indent=2, ensure_ascii=False, default=str)

    def html(self) -> str:
        """Return the page as a single self-contained HTML document."""
        sections = {"results": ("Results", _table(self))}
        for i, picture in enumerate(self.figures, 1):
            sections[picture.name] = (picture.title, _picture(i, picture))
        sections["run"] = ("What was run", _run(self))
        sections["data"] = ("The numbers as data", _data(self.json()))
        version = str(self.record.get("versions", {}).get("jgd", ""))
        return document(self.title, self.headline, key_list(self.facts), sections, version=version)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page to a file, whole or not at all.

        Args:
          path: Path of the file; folders are made.
        """
        with atomic_write(path, "w") as file:
            file.write(self.html())
        return Path(path)


def _wrapped(text: str) -> str:
    """Return a text in lines of the width of the terminal."""
    width = min(100, shutil.get_terminal_size().columns)
    return textwrap.fill(text, width, break_on_hyphens=False).replace(GLUE, " ")


# --- numbers as text ----------------------------------------------------------------------------


def percent(fraction: int | float, std: int | float | None = None) -> str:
    """Return a fraction in %, with its standard deviation where that is given."""
    text = f"{100 * fraction:.1f}"
    return f"{text if std is None else f'{text} ± {100 * std:.1f}'} %".replace(" ", GLUE)


def size_text(count: int | float) -> str:
    """Return a number of bytes with a decimal unit."""
    power = min(len(f"{count:.0f}") - 1, 11) // 3
    return f"{count / 1000**power:.3g}{GLUE}{('bytes', 'kB', 'MB', 'GB')[power]}"


# --- the page -----------------------------------------------------------------------------------


def document(
    title: str,
    summary: str,
    key: Markup,
    sections: Mapping[str, tuple[str, Markup]],
    *,
    version: str,
) -> str:
    """Return a whole page.

    Args:
      title: Title, in lower case unless it is a name.
      summary: Outcome in a sentence.
      key: Most important numbers, see `key_list`.
      sections: Heading and content by id.
      version: Version of JGD.
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
    """Return a list of the numbers that matter most: name, value and a note."""
    rows = [
        el("div", el("dt", name), el("dd", el("strong", value), " ", note))
        for name, (value, note) in items.items()
    ]
    return el("dl", *rows, class_="key")


def _table(comparison: Comparison) -> Markup:
    rows, columns = comparison.rows, comparison.columns
    best = [best_rows(rows, column) for column in columns]

    def line(i: int, row: Mapping[str, Any]) -> Markup:
        cells = [_cell(cell(row, column), i in top) for column, top in zip(columns, best, strict=True)]
        head = el("th", str(row["name"]), scope="row")
        return el("tr", head, *cells, class_="method" if row.get("stress") else None)

    bodies = []
    for group in dict.fromkeys(row.get("group") for row in rows):
        lines = [line(i, row) for i, row in enumerate(rows) if row.get("group") == group]
        if group is not None:
            text = el("th", str(group), scope="rowgroup", colspan=1 + len(columns), class_="group")
            lines.insert(0, el("tr", text))
        bodies.append(el("tbody", *lines))
    table = el(
        "table",
        el("caption", el("strong", "Table 1. "), comparison.title, id="table-caption"),
        _head(columns),
        *bodies,
    )
    scroll = el("div", table, class_="scroll", tabindex=0, role="region", aria_labelledby="table-caption")
    marked = "Bold with an asterisk: best of the rows that are compared." if any(best) else ""
    return join(scroll, el("p", " ".join(filter(None, (comparison.notes, marked))), class_="note"))


def _head(columns: Sequence[Column]) -> Markup:
    if not any(column.group for column in columns):
        return el("thead", el("tr", el("td"), *(el("th", c.title, scope="col") for c in columns)))
    upper, lower = [el("td", rowspan=2)], []
    for i, column in enumerate(columns):
        if not column.group:
            upper.append(el("th", column.title, scope="col", rowspan=2))
            continue
        if i == 0 or columns[i - 1].group != column.group:
            count = sum(1 for c in columns[i:] if c.group == column.group)
            upper.append(el("th", column.group, scope="colgroup", colspan=count))
        lower.append(el("th", column.title, scope="col"))
    return el("thead", el("tr", *upper), el("tr", *lower))


def _cell(text: str, best: bool) -> Markup:
    """Return a cell, marked by more than colour where it is the best of its column."""
    if not best:
        return el("td", text, el("span", class_="mark"))
    mark = el(
        "span", el("span", "*", aria_hidden="true"), el("span", " best", class_="hidden"), class_="mark"
    )
    return el("td", text, mark, class_="best")


def _picture(number: int, picture: Picture) -> Markup:
    """Return a figure with a caption that scrolls where the page is narrow."""
    description = picture.description or picture.caption
    svg = inline_svg(picture.draw(), f"{picture.name}-plot", title=picture.title, description=description)
    scroll = el("div", svg, class_="scroll", tabindex=0, role="group", aria_label=picture.title)
    return el("figure", scroll, el("figcaption", el("strong", f"Figure {number}. "), picture.caption))


_APART = {"config": "Settings of the method", "evaluation": "Training of the networks"}
_APART |= {"settings": "Settings", "seconds": "Seconds", "versions": "Versions and device"}


def _run(comparison: Comparison) -> Markup:
    """Command, protocol in words, and settings."""
    record = comparison.record
    parts: list[str] = [el("h3", "Command"), command_block(str(record.get("command") or ""))]
    if comparison.protocol:
        parts += [el("h3", "Protocol"), el("p", comparison.protocol)]
    if record.get("seed") is not None:
        parts += [el("h3", "Random seed"), setting_list({"seed": record["seed"]})]
    for name, heading in _APART.items():
        if record.get(name):
            values = record[name]
            if name == "seconds":
                values = {k: cell({"v": v}, Column("v", "", "seconds")) for k, v in values.items()}
            parts += [el("h3", heading), setting_list(values)]
    return join(*parts)


def _data(text: str) -> Markup:
    """Return everything as JSON, folded away."""
    return el(
        "details",
        el("summary", "All numbers of this report as JSON"),
        el("pre", el("code", text), tabindex=0, role="group", aria_label="All numbers as JSON"),
    )


def command_block(command: str) -> Markup:
    """Return the command, or a note that there is none."""
    if not command:
        return el("p", "Run from Python; no command was recorded.")
    return el("pre", el("code", command), tabindex=0, role="group", aria_label="Command")


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def setting_list(values: Mapping[str, Any]) -> Markup:
    """Names and values in columns."""
    rows = [el("div", el("dt", name), el("dd", _plain(value))) for name, value in values.items()]
    return el("dl", *rows, class_="settings")


def finite(value: Any) -> Any:
    """Return a value with None for numbers that JSON cannot say."""
    if isinstance(value, Mapping):
        return {str(name): finite(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
