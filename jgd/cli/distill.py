"""The command about teachers and students."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from jgd.cli.errors import mistakes
from jgd.cli.options import Flag, Names, Number, Out, OwnData, Reading

__all__ = ["Distill"]

_Name = Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]


@dataclass(frozen=True)
class Distill:
    """Distil a teacher into students, and compare objectives.

    Trains a teacher on all training examples of a set of images or texts, or of a table, and, with each
    objective, students that learn from it on some of them; prints one table of accuracy and calibration on
    the test examples, and writes metrics.json and report.html. An interrupted run goes on where it was when
    the same command is given again.

    Examples: `jgd distill`, `jgd distill mnist --examples 1000 --objectives ce kd dkd`,
    `jgd distill cifar10-jpeg --teacher resnet20 --student resnet8`, `jgd distill table.csv --standardize`.

    Attributes:
      dataset: images or texts, see `jgd datasets`, or the path of a table, arrays or a folder of images of
        your own, see `jgd describe`.
      objectives: what students learn by, of ce, kd, reverse-kl, dkd, nkd, dist, standardized, ctkd, pld,
        listmle, fitnet, rkd, sp, pkt, crd, mi.
      teacher: network such as mlp-256-256, resnet20, resnet8x4, wrn-16-2, vgg8 (images) or transformer-96-3
        (texts); mlp-256-256 or transformer-96-3 by default.
      student: likewise; mlp-32 or transformer-32-1 by default.
      examples: training examples of the students, equally many of each class; 100 for digits-images, else
        all of them.
      steps: of the optimiser, AdamW along a cosine, for the teacher and for students.
      batch: examples of a step.
      rate: of learning.
      seeds: students of each objective, trained at once.
      seed: of the random key.
      length: tokens of a text that are read.
      out: folder for the outputs; runs/distill-DATASET-seedSEED by default.
      no_resume: replace an earlier run in the folder instead of going on with it.
      quiet: print the table only.
    """

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")] = "digits-images"
    objectives: Names = ("ce", "kd", "dkd", "pld", "rkd")
    teacher: _Name = None
    student: _Name = None
    examples: Number = None
    steps: int = 1500
    batch: int = 64
    rate: float = 2e-3
    seeds: int = 5
    seed: int = 0
    length: int = 32
    out: Out = None
    no_resume: Flag = False
    quiet: Flag = False
    reading: OwnData = field(default_factory=Reading)

    def __call__(self, command: str) -> int:
        """Run it."""
        import jax
        import optax

        from jgd.cli.job import check_writable, claimed, driver, finish, short_dataset, teller
        from jgd.cli.results import student_table
        from jgd.core import Bound, Loop
        from jgd.data import checksum, subset
        from jgd.distill import scratch
        from jgd.distill.schedule import staged
        from jgd.nn.saved import save
        from jgd.protocols import compare_students
        from jgd.protocols.methods import named
        from jgd.protocols.objectives import OBJECTIVES, network
        from jgd.report import write_student_report

        say = teller(self.quiet)
        with mistakes():  # names before data, which may be a download
            for name in self.objectives:
                named("objective", name, OBJECTIVES)
            for what in ("steps", "batch", "seeds", "length"):
                if getattr(self, what) < 1:
                    raise ValueError(f"{what} must be at least 1, got {getattr(self, what)}")
            if not self.objectives or len(set(self.objectives)) < len(self.objectives):
                raise ValueError("name at least one objective, and each once")
            if not self.rate > 0 or self.seed < 0:
                raise ValueError(f"rate must be positive and seed not negative, got {self.rate}, {self.seed}")
        named_so = f"distill-{short_dataset(self.dataset)}-seed{self.seed}"
        out = Path("runs") / named_so if self.out is None else self.out
        check_writable(out)
        with mistakes():
            task = self._task()
            texts = task.mask is not None
            large = self.teacher or ("transformer-96-3" if texts else "mlp-256-256")
            small = self.student or ("transformer-32-1" if texts else "mlp-32")
            nets = network(large, task), network(small, task)
            count = 100 if self.examples is None and self.dataset == "digits-images" else self.examples
            few = task if count is None else subset(task, count, seed=self.seed)
            seen, learned = int(task.train.sum()), int(few.train.sum())
            if learned < self.batch:
                raise ValueError(f"{learned} training examples are fewer than a batch of {self.batch}")
        settings = dataclasses.asdict(self) | {"teacher": large, "student": small}
        for name in ("out", "no_resume", "quiet", "reading"):  # how data are read is told by their checksum
            del settings[name]
        data = checksum(task)
        origin = {
            "recipe": "jgd distill", "dataset": self.dataset, "task": task.name,
            "checksum": data, "seed": self.seed, "length": self.length if texts else None,
            "standardize": self.reading.standardize, "class_names": list(map(str, task.class_names)),
            "command": command,
        }  # fmt: skip
        loop: Loop = driver(out, self.quiet)
        tx = optax.adamw(optax.cosine_decay_schedule(self.rate, self.steps), weight_decay=1e-4)
        k_teacher, k_students = jax.random.split(jax.random.key(self.seed))
        with claimed(out, "distill", settings, data, resume=not self.no_resume, say=say), mistakes():
            say(f"teacher: {large} on {seen} examples of {self.dataset}")
            recipe = scratch(nets[0], tx, steps=self.steps, batch=self.batch)
            teacher = recipe(k_teacher, task, staged(loop, "teacher"))
            save(teacher, out / "teacher.npz", provenance=origin | {"role": "teacher", "network": large})

            def keep(name: str, nets: Bound) -> None:
                said = origin | {"role": "student", "network": small, "objective": name}
                save(nets, out / "students" / f"{name}.npz", provenance=said)

            found = compare_students(
                {name: OBJECTIVES[name].make() for name in self.objectives},
                nets[1],
                teacher,
                few,
                tx,
                seeds=self.seeds,
                key=k_students,
                loop=loop,
                say=say,
                keep=keep,
                steps=self.steps,
                batch=self.batch,
                # On a CPU convolutions and attention want its caches for themselves.
                at_once=1 if jax.default_backend() == "cpu" and not small.startswith("mlp") else None,
            )
            write_student_report(out / "report.html", found, command=command)
            metrics = found.metrics(command=command) | {"experiment": settings, "checksum": data}

            def tell() -> None:
                student_table(found)
                print(
                    f"\ntest examples; {self.seeds} students {small} on {learned} of the {seen} "
                    f"that {large} has seen"
                )
                print(f"written to {out}: report.html, metrics.json, teacher.npz, students/")

            finish(out, metrics, ("report.html", "teacher.npz", "students"), tell)
        return 0

    def _task(self):
        """Images as they are, texts as tokens."""
        from jgd.cli.job import load_data
        from jgd.data import Corpus, tokenized, word_tokenizer
        from jgd.data.tasks import ArrayTask

        def refuse(task: object) -> str | None:
            if isinstance(task, ArrayTask | Corpus):
                return None
            return (
                f"{self.dataset} is made of graphs: "
                "`jgd distill` takes kinds 'image' and 'text' of `jgd datasets`, tables and folders of images"
            )

        options = self.reading.options(self.dataset)
        task = load_data(self.dataset, options, refuse=refuse, quiet=self.quiet)
        if isinstance(task, Corpus):
            return tokenized(task, word_tokenizer(task), self.length)
        return task
