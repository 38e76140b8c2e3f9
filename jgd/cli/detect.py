"""The command about provenance graphs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from jgd.cli.errors import Mistake, mistakes
from jgd.cli.options import Folder, FolderOptions

__all__ = ["Detect"]


@dataclass(frozen=True)
class Detect:
    """Train an intrusion detector on a distilled provenance graph.

    The method is GraphDART, beside a detector of the whole graph. Without files it records what it needs on
    this machine, in seconds: everyday programs of the standard library, and harmless scripts that behave as
    intrusions do, in a temporary folder. Writes metrics.json and report.html.

    Examples: `jgd detect`, `jgd detect --method herding --label-ratio 0.01`,
    `jgd detect --streamspot all.tsv --seeds 3`.

    Attributes:
      method: Condenser, see `jgd methods`.
      label_ratio: Condensed nodes for each node of the benign graph, in (0, 1].
      rounds: Networks of a detector, each trained on what the ones before did not explain.
      seeds: Detectors of each kind.
      seed: Random seed of the first one.
      streamspot: Events in the layout of StreamSpot: graphs 0 to 299 train, 450 to 599 are the benign test
        and 300 to 399 the attacks.
    """

    method: Annotated[str, tyro.conf.arg(metavar="NAME")] = "clustering"
    label_ratio: float = 0.05
    rounds: int = 1
    seeds: int = 3
    seed: int = 0
    streamspot: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    folder: FolderOptions = field(default_factory=Folder)

    def __call__(self, command: str) -> int:
        """Run it."""
        from jgd.apps.graphdart import GraphDART
        from jgd.cli.folders import check_writable, claimed, finish, run_settings, teller
        from jgd.condense import METHODS
        from jgd.evaluation.detection import benign_and_rest, compare_detectors
        from jgd.evaluation.experiment import check_counts
        from jgd.files import digests

        log, file, resume = teller(self.folder.quiet), self.streamspot, not self.folder.no_resume
        with mistakes():
            check_counts(seeds=self.seeds)
            if not 0 < self.label_ratio <= 1:
                raise ValueError(f"label_ratio must be in (0, 1], got {self.label_ratio}")
            condenser = METHODS.official(self.method, "provenance", label_ratio=self.label_ratio)
            contestants = {"whole graph": None, f"{self.method} {100 * self.label_ratio:g} %": condenser}
            darts = {n: GraphDART(c, rounds=self.rounds) for n, c in contestants.items()}
        out = self.folder.out or Path("runs") / f"detect-{self.method}-seed{self.seed}"
        check_writable(out)
        if file and not file.is_file():
            raise Mistake(f"there is no file {file}")
        log(f"reading {file}" if file else "recording everyday programs and intrusions")
        with mistakes():
            benign, rest = benign_and_rest(file)
            data = digests(file.parent, file.name)[file.name] if file else ""
        with claimed(out, "detect", run_settings(self), data, resume=resume, log=log), mistakes():
            found = compare_detectors(darts, benign, rest, seeds=self.seeds, seed=self.seed, log=log)
            about = {"method": self.method, "label_ratio": self.label_ratio, "command": command}
            finish(out, found.recorded(**about))
        return 0
