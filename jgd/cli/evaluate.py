"""The command that scores a condensed set."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from jgd.cli.errors import mistakes
from jgd.cli.options import File, Flag, Name, NetworkOptions, Networks, OwnData, Reading

__all__ = ["Evaluate"]


@dataclass(frozen=True)
class Evaluate:
    """Train networks on a condensed set, test on the real data.

    Attributes:
      file: A condensed.npz.
      dataset: The original data, a name or a path; by default the data that the file names.
      seeds: Networks of each architecture.
      seed: Random seed.
      full: Train on the whole training data, too.
      json: File for the numbers.
      quiet: Print the table only.
    """

    file: File
    dataset: Name = None
    seeds: int = 5
    seed: int = 0
    full: Flag = False
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    quiet: Flag = False
    train: NetworkOptions = field(default_factory=Networks)
    reading: OwnData = field(default_factory=Reading)

    def __call__(self, command: str) -> int:
        """Run it."""
        import jax

        from jgd.cli.folders import check_file, teller, write_json
        from jgd.cli.job import load_task, original
        from jgd.data import artifact, checksum
        from jgd.evaluation import evaluate, versions
        from jgd.evaluation.experiment import check_names, default_experiment

        with mistakes():
            check_names(networks=self.train.networks)
            small = artifact.load(self.file)
        dataset, reading = original(small, self.file, self.dataset, self.reading)
        check_file(self.json)
        setting = small.provenance.get("setting", "transductive")
        task = load_task(dataset, reading, setting=setting, quiet=self.quiet)
        with mistakes():
            usual = default_experiment(dataset, task=task)
            networks, config = self.train.applied(usual.networks, usual.config)
            sets: dict[str, Any] = {"condensed": small, **({"full": task} if self.full else {})}
            options = {"seeds": self.seeds, "key": jax.random.key(self.seed)}
            options |= {"log": teller(self.quiet)}
            scores = evaluate(sets, task, networks=networks, config=config, **options)
            if self.json is not None:
                about = {"file": str(self.file), "dataset": dataset, "seed": self.seed}
                about |= {"method": small.provenance.get("method"), "nodes": len(small.targets)}
                parts = {k: {str(n): one.summary() for n, one in v.items()} for k, v in scores.items()}
                how = {"evaluation": asdict(config), "versions": versions(), "command": command}
                write_json(self.json, {**about, **parts, **how})
        said = small.provenance.get("checksum")
        if said and said != checksum(task):
            print(f"note: {self.file} was made from other data than this {dataset}", file=sys.stderr)
        plural = "s" if self.seeds > 1 else ""
        print(f"{self.file}: {len(small.targets)} condensed examples of {dataset}")
        print(f"test scores, mean ± standard deviation over {self.seeds} seed{plural}\n\n{scores}")
        if self.json is not None:
            print(f"\nwritten to {self.json}")
        return 0
