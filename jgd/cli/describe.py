"""The command that describes data."""

from __future__ import annotations

import json as json_format
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

from jgd.cli.errors import mistakes
from jgd.cli.options import Flag, OwnData, Reading

__all__ = ["Describe"]

_MOST = 30  # classes that are listed


@dataclass(frozen=True)
class Describe:
    """Describe a dataset or your own data.

    Prints the kind of data, sizes, features, classes and splits, and what was mapped, made or left out while
    reading. Takes the path of a file or folder, or a name of `jgd datasets`.

    Examples: `jgd describe papers/`, `jgd describe table.csv --label-column species`, `jgd describe cora`.

    Attributes:
      data: Path or name.
      json: Print JSON.
    """

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATH_OR_NAME")]
    json: Flag = False
    reading: OwnData = field(default_factory=Reading)

    def __call__(self, command: str) -> int:
        """Run it."""
        del command
        from jgd.data import describe

        with mistakes():
            found = describe(self.data, **self.reading.options(self.data))
        print(json_format.dumps(found.as_json(), indent=1)) if self.json else _show(found)
        return 0


def _show(found: Any) -> None:
    """Print facts, the table of classes and splits, and notes."""
    from jgd.report.table import show

    print(f"{found.name}: {found.kind}\n")
    width = max(len(what) for what in found.facts)
    for what, value in found.facts.items():
        print(f"{what:<{width}}  {value}")
    splits = [name for name in ("train", "val", "test", "unlabelled") if name in found.splits]
    missing = [name for name in ("train", "val", "test") if name not in found.splits]
    if found.classes:
        print()
        parts = [name for name in splits if name != "unlabelled"]
        rows = [
            [c.name if c.name == str(c.number) else f"{c.name} ({c.number})", str(c.total)]
            + [str(getattr(c, part)) for part in parts]
            for c in found.classes[:_MOST]
        ]
        total = ["all", str(sum(c.total for c in found.classes))]
        total += [str(sum(getattr(c, part) for c in found.classes)) for part in parts]
        show(["class", "rows", *parts], [*rows, total], bold="all")
        if len(found.classes) > _MOST:
            print(f"and {len(found.classes) - _MOST} more classes, which --json lists")
    print()
    said = ", ".join(f"{found.splits[name]} {name}" for name in splits) or "none"
    outside = found.splits.get("none", 0)
    print(f"splits: {said}" + (f"; {outside} rows in none" if outside and splits else ""))
    if missing and splits:
        print(f"without {' and '.join(missing)}")
    if found.notes:
        print("\nnoted while reading:")
        for note in found.notes:
            print(f"  - {note}")
