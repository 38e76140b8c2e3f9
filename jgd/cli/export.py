"""The command that writes condensed sets for other libraries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jgd.cli.errors import Mistake, mistakes
from jgd.cli.options import File

__all__ = ["Export"]


@dataclass(frozen=True)
class Export:
    """Write a condensed set for another library.

    pyg: a torch_geometric Data, written with torch.save. networkx: node-link JSON, read back with
    networkx.node_link_graph(json.load(file), edges="edges"). npz: plain arrays x, y, adj (adj[i, j] weighs
    the edge from j to i), senders, receivers, weights; of arrays x and y.

    Attributes:
      file: A condensed.npz.
      to: Format.
      out: File to write; beside the input by default, ending in .pt, .json or .arrays.npz.
    """

    file: File
    to: Literal["pyg", "networkx", "npz"]
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None

    def __call__(self, command: str) -> int:
        """Run it."""
        del command
        from jgd.cli.folders import check_file
        from jgd.data import artifact
        from jgd.data.exported import ENDINGS, export_condensed

        out = self.file.with_suffix(ENDINGS[self.to]) if self.out is None else self.out
        with mistakes():
            small = artifact.load(self.file)
        check_file(out)
        if out.resolve() == self.file.resolve():
            raise Mistake(f"{out} is the input itself: name another file with --out")
        with mistakes():
            export_condensed(small, out, self.to)
        edges = f", {len(small.data.senders)} edges" if hasattr(small.data, "senders") else ""
        print(f"written to {out}: {len(small.targets)} {'nodes' if edges else 'examples'}{edges}")
        if small.training.adjacency == "normalized":
            print("edge weights are normalized and hold self loops: use them as they are (normalize=False)")
        elif small.training.adjacency == "identity":
            print("it has no edges: every node stands for itself (adjacency I)")
        return 0
