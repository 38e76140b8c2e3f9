"""The command that reads condensed graphs of other libraries."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jgd.cli.errors import Mistake, mistakes
from jgd.cli.options import File, Reading

__all__ = ["Import"]

_File = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]


@dataclass(frozen=True)
class Import:
    """Read a condensed graph that another library made.

    Arrays come from .npy, .npz or .pt files (tensors of torch.save, read without PyTorch). An .npz may hold
    features, labels and adjacency together. Without labels, classes are assumed in the order in which GCond
    and its relatives spend their budget; without an adjacency every node stands for itself.

    Example: `jgd import feat.pt --adjacency adj.pt --dataset cora --out gcond.npz`.

    Attributes:
      features: File of [n, F] features.
      dataset: Original data, a name (see `jgd datasets`) or a path.
      labels: File of [n] classes, or of [n, C] probabilities or logits.
      adjacency: File of [n, n] weights.
      structure: Whether the weights are still to be normalised with self loops, or are normalised.
      method: Name of the method.
      setting: Setting of the method that made it.
      out: File to write.
    """

    features: File
    dataset: Annotated[str, tyro.conf.arg(metavar="NAME")]
    labels: _File = None
    adjacency: _File = None
    structure: Literal["raw", "normalized"] = "raw"
    method: Annotated[str, tyro.conf.arg(metavar="NAME")] = "imported"
    setting: Literal["transductive", "inductive"] = "transductive"
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("condensed.npz")

    def __call__(self, command: str) -> int:
        """Run it."""
        from jgd.cli.folders import check_file
        from jgd.cli.job import load_task
        from jgd.data import NodeTask, artifact, checksum, import_condensed
        from jgd.evaluation import versions

        given = [file for file in (self.features, self.labels, self.adjacency) if file is not None]
        for file in given:
            if not file.is_file():
                raise Mistake(f"there is no file {file}")
        check_file(self.out)
        if self.out.resolve() in [file.resolve() for file in given]:
            raise Mistake(f"{self.out} is an input itself: name another file with --out")
        task = load_task(self.dataset, Reading(), setting=self.setting)
        with mistakes():
            if not isinstance(task, NodeTask):
                raise ValueError(f"{self.dataset} is not one graph: `jgd import` reads condensed graphs")
            files: dict[str, Any] = {"labels": self.labels, "adjacency": self.adjacency}
            how: dict[str, Any] = {"structure": self.structure, "method": self.method}
            small = import_condensed(self.features, task, **files, **how)
            said = {"checksum": checksum(task), "versions": versions(), "command": command}
            small = dataclasses.replace(small, provenance={**small.provenance, **said})
            artifact.save(small, self.out)
        edges = int(small.provenance["edges"])
        what = "no edges (adjacency I)" if small.training.adjacency == "identity" else f"{edges} edges"
        print(f"written to {self.out}: {len(small.targets)} nodes of {self.dataset}, {what}")
        if self.labels is None and self.features.suffix != ".npz":
            print("no labels were given: the classes are in the order of GCond's budget, the rarest first")
        print(f"try it: jgd evaluate {self.out}")
        return 0
