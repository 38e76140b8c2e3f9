"""The command that lists the catalogues: methods, objectives, networks and what else has a name."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated

import tyro

from jgd.cli.errors import mistakes

__all__ = ["Methods"]


@dataclass(frozen=True)
class Methods:
    """List methods, networks and the like, or a method's settings.

    Attributes:
      method: Name of the condenser whose settings are listed.
    """

    method: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="METHOD")] = None

    def __call__(self, command: str) -> int:
        """Run it."""
        del command
        from jgd.condense import METHODS
        from jgd.distill import OBJECTIVES
        from jgd.evaluation import PREDICTORS
        from jgd.metrics import METRICS
        from jgd.nn import NETWORKS
        from jgd.registry import Entry
        from jgd.report.table import listing
        from jgd.training import AUGMENTATIONS

        def summary(entry: Entry) -> str:
            return entry.summary + (f" ({entry.paper})" if entry.paper else "")

        if self.method is not None:
            with mistakes():
                entry = METHODS[self.method]
            recipe = entry.make()
            print(f"{entry.name}: {summary(entry)}\n")
            rows = [[f.name, str(getattr(recipe, f.name))] for f in fields(recipe)]
            listing(["setting", "default"], rows)
            print(f"\nChange them by `jgd condense DATASET --method {entry.name} --set NAME=VALUE`.")
            return 0
        meanings = {
            METHODS: "what it does",
            OBJECTIVES: "what `jgd distill` compares",
            NETWORKS: "what it is",
            AUGMENTATIONS: "how batches are changed",
            PREDICTORS: "what predicts in place of a network",
            METRICS: "what it measures",
        }
        for catalog, meaning in meanings.items():
            entries = catalog.entries()
            columns = {"data": [", ".join(e.kinds) for e in entries], "cost": [e.cost for e in entries]}
            columns = {name: cells for name, cells in columns.items() if any(cells)}
            cells = ([e.name for e in entries], *columns.values(), [summary(e) for e in entries])
            rows = [list(row) for row in zip(*cells, strict=True)]
            if catalog is not METHODS:
                print()
            listing([catalog.what, *columns, meaning], rows, left=tuple(columns))
            if "cost" in columns:
                print("\ncost: none is no training, seconds is one small network; of two CPU cores")
        return 0
