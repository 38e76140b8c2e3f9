"""The command for config files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import tyro

from jgd.cli.options import Folder, FolderOptions

__all__ = ["RunOptions"]


@dataclass(frozen=True)
class RunOptions:
    """Run a config file; each of its fields can be changed.

    The file is Python and says `config = Experiment(...)`. `jgd run FILE --help` lists all fields, with the
    values of the file as their defaults.
    """

    folder: FolderOptions = field(default_factory=Folder)
    experiment: tyro.conf.Suppress[Any] = None  # `jgd.cli.config.run_type` puts an `Experiment` here
    config: ClassVar[Any] = None  # the one in the file

    def __call__(self, command: str) -> int:
        """Run it."""
        from jgd.cli.config import one_size
        from jgd.cli.job import conduct, load_task
        from jgd.cli.options import Reading

        experiment = one_size(self.config, self.experiment)
        self.folder.check()
        task = load_task(experiment.dataset, Reading(), setting=experiment.setting, quiet=self.folder.quiet)
        conduct(experiment, self.folder, command=command, task=task)
        return 0
