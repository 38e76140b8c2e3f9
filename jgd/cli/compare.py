"""The command that compares condensers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jgd.cli import options as opt
from jgd.cli.errors import Mistake, mistakes

__all__ = ["Compare"]


@dataclass(frozen=True)
class Compare:
    """Compare condensers at several sizes.

    Makes sets by every method at every size, trains networks on each, prints a table, and writes metrics.json
    and report.html. Every set is kept in cells as soon as it is done: the same command continues an
    interrupted run, also with further methods, sizes or seeds.

    Example: `jgd compare cora --methods random herding average-sgc clustgdd --sizes 0.25 0.5 1`.

    Attributes:
      dataset: Name, see `jgd datasets`, or path of your own data, see `jgd describe`.
      methods: Names, see `jgd methods`, with their authors' settings where these are known; by default the
        baselines of the kind of data and its usual method.
      sizes: Condensed examples for each labelled one, in (0, 1]; of sets of graphs, graphs of each class.
      seeds: Sets for each method and size.
      repeats: Networks of each architecture on each set.
      setting: Whether condensers of nodes see the whole graph or only the subgraph of the training nodes.
      seed: Random seed.
    """

    dataset: opt.Data = "digits"
    methods: opt.SomeNames = None
    sizes: opt.Sizes = None
    seeds: int = 3
    repeats: int = 1
    setting: Literal["transductive", "inductive"] = "transductive"
    seed: int = 0
    train: opt.NetworkOptions = field(default_factory=opt.Networks)
    folder: opt.FolderOptions = field(default_factory=opt.Folder)
    reading: opt.OwnData = field(default_factory=opt.Reading)

    def __call__(self, command: str) -> int:
        """Run it."""
        import jax

        from jgd.cli import folders, job
        from jgd.evaluation import grid, kind_of
        from jgd.evaluation.experiment import check_counts, check_names, default_experiment

        with mistakes():  # names before data, which may be a download
            check_names(self.methods, self.sizes, self.train.networks)
            check_counts(seeds=self.seeds, repeats=self.repeats)
        name = f"compare-{job.short_dataset(self.dataset, self.setting)}-seed{self.seed}"
        out = Path("runs") / name if self.folder.out is None else self.folder.out
        folders.check_writable(out)
        if (out / "experiment.json").exists() or (folders.taken(out) and not (out / "cells").is_dir()):
            raise Mistake(f"{out} holds a run of something else: choose another folder with --out")
        task = job.load_task(self.dataset, self.reading, setting=self.setting, quiet=self.folder.quiet)
        kind = kind_of(task)
        with mistakes():
            usual = default_experiment(self.dataset, task=task)
            networks, config = self.train.applied(usual.networks, usual.config)
            methods = (*kind.baselines, kind.method) if self.methods is None else self.methods
            options = {"seeds": self.seeds, "repeats": self.repeats, "networks": networks}
            key, log = jax.random.key(self.seed), folders.teller(self.folder.quiet)
            options |= {"config": config, "key": key, "folder": out / "cells", "log": log}
            found = grid(tuple(dict.fromkeys(methods)), task, self.sizes, **options).comparison()
            found = found.recorded(command=command, seed=self.seed)
            found.save(out / "report.html")
            folders.write_json(out / "metrics.json", found.record)
        found.show()
        print(f"\nwritten to {out}: report.html, metrics.json, cells")
        return 0
