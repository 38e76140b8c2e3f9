"""The command that lists methods, objectives and networks."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated

import tyro

from jgd.cli.errors import mistakes

__all__ = ["Methods"]


@dataclass(frozen=True)
class Methods:
    """List methods, objectives and networks, or a method's settings.

    Attributes:
      method: Name of the condenser whose settings are listed.
    """

    method: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="METHOD")] = None

    def __call__(self, command: str) -> int:
        """Run it."""
        del command
        from jgd.condense import METHODS
        from jgd.distill import OBJECTIVES
        from jgd.nn import NETWORKS
        from jgd.registry import Entry
        from jgd.report.table import listing

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
        rows = [[e.name, ", ".join(e.kinds), e.cost, summary(e)] for e in METHODS.entries()]
        listing(["method", "data", "cost", "what it does"], rows, left=("data", "cost"))
        print("\ncost: none is no training, seconds is one small network; of two CPU cores\n")
        rows = [[e.name, summary(e)] for e in OBJECTIVES.entries()]
        listing(["objective", "what `jgd distill` compares"], rows)
        print()
        rows = [[e.name, ", ".join(e.kinds), summary(e)] for e in NETWORKS.entries()]
        listing(["network", "data", "what it is"], rows, left=("data",))
        return 0
