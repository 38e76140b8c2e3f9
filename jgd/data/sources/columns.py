"""Tables of a user: columns by name, of numbers or of text, and their features.

Text is UTF-8 with one header line; cells are separated by commas, semicolons or tabs, whichever is most
frequent in the header. A column is numeric if each of its cells is a number. Empty cells and ``NA``, ``NaN``,
``null``, ``None`` and ``?`` are missing values.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jgd.data.storage import DataError, reading

__all__ = [
    "LABELS",
    "Columns",
    "features",
    "find",
    "is_number",
    "labels_of",
    "numbers_or_text",
    "read_csv",
    "read_text",
    "reading_own",
]

LABELS = ("label", "y", "class", "target")
"""Names of the column of labels, in any case."""

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
MOST_TEXTS = 100  # largest number of different texts of a column that becomes indicators
_CHUNK = 4096  # rows that are lists of strings at one time


@dataclass(frozen=True)
class Columns:
    """A table.

    Attributes:
      path: Path of the file, for messages.
      values: Columns ``{name: [N]}``: float64 with NaN where a number is missing, or objects, str or None.
      where: Function that returns the place of a row in the file, for messages.
      size: Number of rows.
    """

    path: Path
    values: dict[str, np.ndarray]
    where: Callable[[int], str]
    size: int

    def at(self, row: Any) -> str:
        """Return the file and the place of a row in it."""
        return f"{self.path}, {self.where(int(row))}"

    def without(self, names: Collection[str]) -> Columns:
        """Return the table without some columns."""
        rest = {name: column for name, column in self.values.items() if name not in names}
        return Columns(self.path, rest, self.where, self.size)


_HINT = "check that the file is complete"


def reading_own(path: str | os.PathLike[str]) -> AbstractContextManager[None]:
    """Return `jgd.data.storage.reading` with advice for a file that cannot be downloaded again."""
    return reading(path, _HINT)


@contextmanager
def hinted() -> Iterator[None]:
    """Replace the advice of readers that have their own, see `reading_own`."""
    try:
        yield
    except DataError as error:
        raise DataError(str(error).replace("delete it and download it again", _HINT)) from error


# Text


def read_text(path: str | os.PathLike[str]) -> str:
    """Read a text file in UTF-8.

    Args:
      path: Path of the file.

    Raises:
      DataError: If the file is missing, empty, or in another encoding.
    """
    with reading_own(path):
        content = Path(path).read_bytes()
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            raise DataError(
                f"{path}, line {line}: byte 0x{content[error.start]:02x} is not UTF-8: save the file as UTF-8"
            ) from None
    if not text.strip():
        raise DataError(f"{path} is empty")
    return text


def read_csv(path: str | os.PathLike[str], text: Collection[str] = (), *, empty: bool = False) -> Columns:
    """Read a table.

    Args:
      path: Path of the file.
      text: Names, in lower case, of columns that are always text.
      empty: Whether a header without rows is allowed.

    Raises:
      DataError: If the encoding is another, there is no header or row, a name appears twice, or a row differs
        from the header in length; the message names the line.
    """
    path = Path(path)
    content = read_text(path)
    header = next((line for line in content.splitlines() if line.strip()), "")
    delimiter = max(",;\t", key=header.count)
    with reading_own(path):
        table, mixed = _parse(path, content, delimiter, {name.lower() for name in text}, ())
        if mixed:  # numbers first and words later: read again as text
            table, _ = _parse(path, content, delimiter, {name.lower() for name in text}, mixed)
    if not table.size and not empty:
        raise DataError(f"{path} has a header, but no rows")
    return table


def _parse(
    path: Path, content: str, delimiter: str, text: Collection[str], mixed: Collection[str]
) -> tuple[Columns, set[str]]:
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    rows = _rows(path, reader)
    _, header = next(rows)
    names = [name.strip() or f"column {i + 1}" for i, name in enumerate(header)]
    if twice := [name for name, number in Counter(names).items() if number > 1]:
        raise DataError(f"{path}, line 1: two columns are called {twice[0]!r}")
    if all(is_number(name) for name in names):
        raise DataError(f"{path}, line 1: the first line must name the columns, got {','.join(header)[:60]}")
    columns: list[list[np.ndarray]] = [[] for _ in names]
    lines: list[int] = []
    known: dict[str, str] = {}
    is_text = [name.lower() in text or name in mixed for name in names]
    late: set[str] = set()
    chunk: list[list[str]] = []

    def convert() -> None:
        for i, cells in enumerate(zip(*chunk, strict=True)):
            column = None if is_text[i] else _numbers(cells)
            if column is None:
                if not is_text[i] and columns[i]:
                    late.add(names[i])
                is_text[i] = True
                column = _texts(cells, known)
            columns[i].append(column)
        chunk.clear()

    for line, row in rows:
        if len(row) != len(names):
            raise DataError(f"{path}, line {line}: {len(row)} cells, but the header has {len(names)} columns")
        chunk.append(row)
        lines.append(line)
        if len(chunk) == _CHUNK:
            convert()
    if chunk:
        convert()
    at = np.asarray(lines)
    nothing = [np.empty(0, object)]
    values = {} if late else {n: np.concatenate(c or nothing) for n, c in zip(names, columns, strict=True)}
    return Columns(path, values, lambda row: f"line {at[row]}", len(lines)), late


def _rows(path: Path, reader: Any) -> Any:
    """Yield lines that are not blank, each with its number."""
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{path}, line {line}: {error}") from None
        if row and any(cell.strip() for cell in row):
            yield line, row


def is_number(text: str) -> bool:
    """Return whether a cell is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(cells: Sequence[str]) -> np.ndarray | None:
    """Convert cells to float64; return None if one is not a number."""
    try:
        return np.asarray(list(map(float, cells)), np.float64)
    except ValueError:
        pass
    try:
        return np.asarray([np.nan if c.strip().lower() in MISSING else float(c) for c in cells], np.float64)
    except ValueError:
        return None


def _texts(cells: Sequence[str], known: dict[str, str]) -> np.ndarray:
    """Convert cells to an array of str, None where missing; equal texts are one object."""
    column = np.empty(len(cells), object)
    for i, cell in enumerate(cells):
        cell = cell.strip()
        column[i] = None if cell.lower() in MISSING else known.setdefault(cell, cell)
    return column


def numbers_or_text(values: Sequence[Any]) -> np.ndarray:
    """Make a column of values of JSON or attributes: numbers and truth values, or texts; None is missing."""
    column = np.empty(len(values), object)
    column[:] = values
    if all(v is None or isinstance(v, bool | int | float) for v in values):
        return np.asarray([np.nan if v is None else float(v) for v in values], np.float64)
    for i, value in enumerate(values):
        text = None if value is None else str(value).strip()
        column[i] = None if text is None or text.lower() in MISSING else text
    return column


# Roles of columns


def find(table: Columns, names: Sequence[str], what: str, option: str = "") -> str:
    """Find the column that has one of some names, in any case.

    Args:
      table: The table.
      names: Names in lower case.
      what: Content of the column, for messages.
      option: Option that names the column, for messages.

    Raises:
      DataError: If no column or several columns have such a name.
    """
    found = [own for name in names for own in table.values if own.lower() == name]
    hint = f"; name it with {option}" if option else ""
    if not found:
        raise DataError(
            f"{table.path} has no column {' or '.join(names)} for {what}: "
            f"its columns are {_some(table.values)}{hint}"
        )
    if len(found) > 1:
        raise DataError(f"{table.path} has the columns {' and '.join(found)} for {what}{hint}")
    return found[0]


def _some(names: Collection[str], most: int = 8) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def labels_of(table: Columns, label: str | None) -> tuple[str, np.ndarray]:
    """Return the name of the column of labels, and its values.

    Args:
      table: Table of examples.
      label: Name of the column; None for one of `LABELS`.

    Raises:
      DataError: If no column or several columns have such a name.
    """
    if label is None:
        name = find(table, LABELS, "labels", "label= (--label-column)")
    elif label in table.values:
        name = label
    else:
        raise DataError(f"{table.path} has no column {label!r}: its columns are {_some(table.values)}")
    return name, table.values[name]


# Features


def features(
    table: Columns,
    notes: list[str],
    *,
    missing: str = "refuse",
    train: np.ndarray | None = None,
    scaled: bool = False,
) -> np.ndarray | None:
    """Return float32 features of all columns: numbers unchanged, texts as indicators of their values.

    Args:
      table: Table without the columns that are no features.
      notes: List that receives one line for each column that became indicators or was imputed.
      missing: Missing values: ``"refuse"``, or ``"impute"``: the mean of a number over training rows, no
        indicator of a text.
      train: Mask of the training rows ``[N]``; None for all rows.
      scaled: Whether numbers are standardised over the training rows.

    Returns:
      ``[N, F]``, or None for a table without columns.

    Raises:
      DataError: If values are missing and refused, numbers are not finite in float32, or a column has too
        many different texts.
    """
    blocks: list[np.ndarray] = []
    for name, column in table.values.items():
        text = column.dtype == object
        gone = np.asarray([v is None for v in column]) if text else np.isnan(column)
        if gone.any():
            if missing != "impute":
                raise DataError(
                    f"{table.at(gone.argmax())}: no value of {name} ({int(gone.sum())} are missing): "
                    "fill them in, or set missing='impute' (--missing impute)"
                )
            how = "no indicator" if text else "the mean of the training rows"
            notes.append(f"{int(gone.sum())} missing values of {name} imputed: {how}")
        if text:
            blocks.append(_indicators(table, name, column, notes))
        else:
            numbers = _filled(table, name, column, gone, train)
            blocks.append(standardized(numbers, train) if scaled else numbers)
    return np.concatenate(blocks, 1) if blocks else None


def _filled(
    table: Columns, name: str, column: np.ndarray, gone: np.ndarray, train: np.ndarray | None
) -> np.ndarray:
    with np.errstate(over="ignore"):
        numbers = column.astype(np.float32)
    wrong = ~np.isfinite(numbers) & ~gone
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f"{table.at(row)}: {name} is {column[row]:g}, which is no finite float32 number")
    if gone.any():
        seen = ~gone if train is None or not (train & ~gone).any() else train & ~gone
        if not seen.any():
            raise DataError(
                f"{table.path}: {name} has no values at all: leave it out with ignore= (--ignore)"
            )
        numbers = np.where(gone, np.float32(numbers[seen].mean(dtype=np.float64)), numbers)
    return numbers[:, None]


def standardized(x: np.ndarray, train: np.ndarray | None) -> np.ndarray:
    """Scale columns to mean zero and deviation one over the training rows; constant ones become zero."""
    rows = (x if train is None else x[train]).astype(np.float64)
    deviation = rows.std(0)
    return ((x - rows.mean(0)) / np.where(deviation > 0, deviation, 1)).astype(np.float32)


def _indicators(table: Columns, name: str, column: np.ndarray, notes: list[str]) -> np.ndarray:
    kinds = sorted({value for value in column if value is not None})
    if len(kinds) > MOST_TEXTS or not kinds:
        raise DataError(
            f"{table.path}: {name} holds {len(kinds)} different texts, {MOST_TEXTS} at most become "
            "features: leave it out with ignore= (--ignore)"
        )
    number = {kind: i for i, kind in enumerate(kinds)}
    block = np.zeros((len(column), len(kinds)), np.float32)
    for row, value in enumerate(column):
        if value is not None:
            block[row, number[value]] = 1
    notes.append(f"{name} (text) became {len(kinds)} indicators: {_some(kinds)}")
    return block
