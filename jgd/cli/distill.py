"""The command about teachers and students."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from jgd.cli.errors import mistakes
from jgd.cli.options import Data, Folder, FolderOptions, Name, Names, Number, OwnData, Reading

__all__ = ["Distill"]


@dataclass(frozen=True)
class Distill:
    """Distil a teacher into students, and compare objectives.

    Trains a teacher on all training examples of images, texts or a table, and with each objective students
    that learn from it on some of them. Prints one table of accuracy and calibration on the test examples, and
    writes metrics.json and report.html. The same command continues an interrupted run.

    Examples: `jgd distill`, `jgd distill mnist --examples 1000 --objectives ce kd dkd`,
    `jgd distill cifar10-jpeg --teacher resnet20 --student resnet8`, `jgd distill table.csv --standardize`.

    Attributes:
      dataset: Images or texts, see `jgd datasets`, or path of your own table, arrays or folder of images.
      objectives: Objectives of the students, see `jgd methods`.
      teacher: Network, see `jgd methods`; mlp-256-256, or transformer-96-3 for texts, by default.
      student: Network of the students; mlp-32, or transformer-32-1 for texts, by default.
      examples: Training examples of the students, as many of each class; 100 for digits-images, else all.
      steps: Training steps of the teacher and of the students, by AdamW along a cosine.
      batch: Batch size.
      rate: Learning rate.
      seeds: Students of each objective, trained at once.
      seed: Random seed.
      length: Tokens of a text that are read.
    """

    dataset: Data = "digits-images"
    objectives: Names = ("ce", "kd", "dkd", "pld", "rkd")
    teacher: Name = None
    student: Name = None
    examples: Number = None
    steps: int = 1500
    batch: int = 64
    rate: Annotated[float, tyro.conf.arg(aliases=("--learning-rate",))] = 2e-3
    seeds: int = 5
    seed: int = 0
    length: int = 32
    folder: FolderOptions = field(default_factory=Folder)
    reading: OwnData = field(default_factory=Reading)

    def __call__(self, command: str) -> int:
        """Run it."""
        from jgd.cli import folders, job
        from jgd.data import checksum
        from jgd.evaluation.students import check_teaching, teach, unsuitable

        options = {name: getattr(self, name) for name in ("objectives", "steps", "batch", "rate", "seeds")}
        with mistakes():  # names before data, which may be a download
            check_teaching(**options, length=self.length)
        name, quiet = f"distill-{job.short_dataset(self.dataset)}-seed{self.seed}", self.folder.quiet
        out = self.folder.out or Path("runs") / name
        folders.check_writable(out)
        task = job.load_task(self.dataset, self.reading, quiet=quiet, length=self.length, refuse=unsuitable)
        count = 100 if self.examples is None and self.dataset == "digits-images" else self.examples
        log, data = folders.teller(quiet), checksum(task)
        about: dict[str, Any] = {"recipe": "jgd distill", "dataset": self.dataset, "checksum": data}
        about |= {"standardize": self.reading.standardize, "length": self.length, "command": command}
        with mistakes():
            plan = teach(task, self.teacher, self.student, **options, examples=count, seed=self.seed)
        settings, resume = folders.run_settings(self) | dict(plan.networks), not self.folder.no_resume
        with folders.claimed(out, "distill", settings, data, resume=resume, log=log), mistakes():
            found = plan(folders.driver(out, quiet), log, out, about)
            found = found.recorded(command=command, experiment=settings, checksum=data, seed=self.seed)
            folders.finish(out, found, ("teacher.npz", "students"))
        return 0
