"""The main command: condense any dataset, and compare."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from jgd.cli import options as opt
from jgd.cli.errors import mistakes

__all__ = ["Condense"]


@dataclass(frozen=True)
class Condense:
    """Distil a dataset into a tiny one, and compare the two.

    Takes a graph, a set of graphs, images, a table or texts. Trains networks on the condensed set, on the
    whole training data and on baselines of the same size, prints one table, and writes condensed.npz,
    metrics.json and report.html. The same command continues an interrupted run.

    Examples: `jgd condense`, `jgd condense cora --label-ratio 0.5`, `jgd condense tu:NCI1 --nodes 300`,
    `jgd condense mnist --method herding --per-class 10`, `jgd condense papers/ --undirected`.

    Attributes:
      dataset: Name, see `jgd datasets`, or path of your own data, see `jgd describe`.
      method: Name, see `jgd methods`; by default clustgdd for nodes, mirage for sets of graphs, herding else.
      label_ratio: Condensed examples for each labelled one, in (0, 1]. Default 0.5; 0.25 for digits.
      nodes: Number of condensed nodes or examples, in place of the ratio. For sets of graphs: most nodes of
        all together, or nodes of each graph where the method learns them.
      per_class: Condensed graphs or examples of each class; 10 graphs by default.
      set: Further settings of the method, such as `--set steps=500 hidden=64`; see `jgd methods METHOD`.
      baselines: Methods to compare with, by default those of the kind of data; none after an empty
        `--baselines`.
      setting: Whether a condenser of nodes sees the whole graph or only the subgraph of the training nodes.
      seeds: Networks of each architecture on each set.
      seed: Random seed.
    """

    dataset: opt.Data = "digits"
    method: opt.Name = None
    label_ratio: opt.Float = None
    nodes: opt.Number = None
    per_class: opt.Number = None
    set: opt.Settings = ()
    baselines: opt.SomeNames = None
    setting: Literal["transductive", "inductive"] = "transductive"
    seeds: int = 5
    seed: int = 0
    train: opt.NetworkOptions = field(default_factory=opt.Networks)
    folder: opt.FolderOptions = field(default_factory=opt.Folder)
    reading: opt.OwnData = field(default_factory=opt.Reading)

    def __call__(self, command: str) -> int:
        """Run it."""
        from jgd.cli.job import conduct, load_task
        from jgd.evaluation.experiment import default_experiment, parsed_settings

        given: dict[str, Any] = {name: getattr(self, name) for name in ("label_ratio", "nodes", "per_class")}
        with mistakes():
            given |= parsed_settings(self.set)
            if self.method is not None:  # names before data, which may be a download
                self._changed(default_experiment(self.dataset, self.method, **given)).check()
        self.folder.check()
        task = load_task(self.dataset, self.reading, setting=self.setting, quiet=self.folder.quiet)
        with mistakes():
            experiment = self._changed(default_experiment(self.dataset, self.method, task=task, **given))
        source = self.reading.source(self.dataset)
        conduct(experiment, self.folder, command=command, task=task, source=source)
        return 0

    def _changed(self, usual: Any) -> Any:
        networks, config = self.train.applied(usual.networks, usual.config)
        baselines = usual.baselines if self.baselines is None else self.baselines
        changes = {"networks": networks, "config": config, "baselines": baselines, "seeds": self.seeds}
        return dataclasses.replace(usual, setting=self.setting, seed=self.seed, **changes)
