"""Objectives against each other: the same student, teacher, data and optimiser for all.

::

    objectives = {"CE": supervised(), "KD": hinton(), "PLD": pld()}
    comparison = compare_students(objectives, net, teacher, task, optax.adamw(2e-3), seeds=8)
    comparison.show()
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from jgd.core import Bound, Examples, Loop, Objective, as_key, in_memory
from jgd.data import ArrayTask, subset
from jgd.data.checks import need_classes
from jgd.distill import OBJECTIVES, scratch
from jgd.distill.data import Task, examples
from jgd.distill.recipes import Network, offline, staged
from jgd.distill.scores import logits_on, scored
from jgd.evaluation._compare import versions
from jgd.metrics import ReliabilityBins, reliability
from jgd.nn import network
from jgd.nn.saved import save
from jgd.registry import choose
from jgd.report import Column, Comparison, Picture, plot_bars, plot_reliability
from jgd.report.page import percent

__all__ = ["Teaching", "check_teaching", "compare_students", "teach", "unsuitable"]


def compare_students(
    objectives: Mapping[str, Objective | tuple[Network, Objective]],
    net: Network,
    teacher: Any,
    task: Task,
    tx: optax.GradientTransformation,
    *,
    seeds: int = 5,
    key: Array | int = 0,
    loop: Loop = in_memory,
    log: Callable[[str], None] = lambda text: None,
    keep: Callable[[str, Bound], None] = lambda name, nets: None,
    **settings: Any,
) -> Comparison:
    """Train students with each objective and test them.

    Args:
      objectives: ``{name: objective}``, or ``{name: (network, objective)}`` for one that needs another
        network, such as LELP with its subclasses.
      net: Network of the students.
      teacher: Network that all learn from, or its logits on all rows of the task.
      task: Task with training and test examples.
      tx: Optimiser.
      seeds: Students of each objective; they are trained at once.
      key: Random key, or a seed. The order of the examples is the same for all.
      loop: Loop that runs the stages, ``distill-<objective>``.
      log: Called with one line before each objective.
      keep: Called with the name of each objective and its students, stacked along a leading axis, e.g. to
        `jgd.save` them.
      **settings: Settings of `jgd.distill.offline`.

    Raises:
      ValueError: For no objectives, or a task without training or test examples.
    """
    if not objectives:
        raise ValueError('there is nothing to compare: give objectives by name, e.g. {"KD": hinton()}')
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {seeds}")
    key = as_key(key)
    need_classes(task, "compare_students")
    scores, bins, seconds = {}, {}, {}
    some, theirs = examples(task, "test"), logits_on(teacher, task)
    for name, given in objectives.items():
        own, objective = given if not isinstance(given, Objective) else (net, given)
        recipe = offline(own, teacher, objective, tx, seeds=seeds, **settings)
        log(f"{name}: {seeds} student{'s' if seeds > 1 else ''}")
        start = time.perf_counter()
        nets = jax.block_until_ready(recipe(key, task, staged(loop, name)))
        seconds[name] = time.perf_counter() - start
        keep(name, nets)
        logits = logits_on(nets, task, several=True)
        scores[name] = scored(logits, some, theirs=theirs, several=True)
        bins[name] = _bins(logits, some)
    chosen = {k: v for k, v in settings.items() if isinstance(v, int | float | str)}
    return _comparison(
        task,
        scores,
        bins,
        seconds,
        scored(theirs, some),
        _bins(theirs[None], some),
        {"seeds": seeds, **chosen},
    )


# --- a teacher and its students -----------------------------------------------------------------


def check_teaching(
    objectives: Sequence[str], steps: int, batch: int, rate: float, seeds: int, length: int = 1
) -> None:
    """Refuse what cannot be trained whatever the data.

    Args:
      objectives: Names of objectives, see `jgd.distill.OBJECTIVES`.
      steps: Training steps.
      batch: Batch size.
      rate: Learning rate.
      seeds: Students of each objective.
      length: Tokens of a text that are read.

    Raises:
      ValueError: For an unknown name or an impossible number.
    """
    for name in objectives:
        choose("objective", name, OBJECTIVES)
    if not objectives or len(set(objectives)) < len(objectives):
        raise ValueError("name at least one objective, and each once")
    for what, value in (("steps", steps), ("batch", batch), ("seeds", seeds), ("length", length)):
        if value < 1:
            raise ValueError(f"{what} must be at least 1, got {value}")
    if not rate > 0:
        raise ValueError(f"rate must be positive, got {rate}")


@dataclass(frozen=True)
class Teaching:
    """A teacher that is trained on all examples, and students that learn from it on some.

    Attributes:
      task: The data of the teacher.
      few: The data of the students.
      networks: Names of the networks by role, ``"teacher"`` and ``"student"``.
      objectives: Names of objectives.
      steps: Training steps of each network, by AdamW along a cosine.
      batch: Batch size.
      rate: Learning rate.
      seeds: Students of each objective.
      seed: Random seed.
    """

    task: Any
    few: Any
    networks: Mapping[str, str]
    objectives: tuple[str, ...]
    steps: int
    batch: int
    rate: float
    seeds: int
    seed: int

    def __call__(
        self,
        loop: Loop = in_memory,
        log: Callable[[str], None] = lambda text: None,
        out: Path | None = None,
        about: Mapping[str, Any] = MappingProxyType({}),
    ) -> Comparison:
        """Train the teacher and all students, and test them.

        Args:
          loop: Runs the stages.
          log: Called with one line before each training.
          out: Folder for the networks, teacher.npz and students/; None to keep none.
          about: Entries of their provenance.
        """
        large, small = self.networks["teacher"], self.networks["student"]
        origin = {**about, "task": self.task.name, "seed": self.seed}
        origin |= {"class_names": list(map(str, self.task.class_names))}

        def keep(role: str, name: str, nets: Bound) -> None:
            if out is None:
                return
            file = out / ("teacher.npz" if role == "teacher" else f"students/{name}.npz")
            said = {"role": role, "network": self.networks[role]}
            said |= {} if role == "teacher" else {"objective": name}
            save(nets, file, provenance=origin | said)

        seen, learned = int(np.sum(self.task.train)), int(np.sum(self.few.train))
        tx = optax.adamw(optax.cosine_decay_schedule(self.rate, self.steps), weight_decay=1e-4)
        k_teacher, k_students = jax.random.split(jax.random.key(self.seed))
        log(f"teacher: {large} on {seen} examples of {self.task.name}")
        recipe = scratch(network(large, self.task), tx, steps=self.steps, batch=self.batch)
        teacher = recipe(k_teacher, self.task, staged(loop, "teacher"))
        keep("teacher", "", teacher)
        found = compare_students(
            {name: OBJECTIVES[name].make() for name in self.objectives},
            network(small, self.task),
            teacher,
            self.few,
            tx,
            seeds=self.seeds,
            key=k_students,
            loop=loop,
            log=log,
            keep=partial(keep, "student"),
            steps=self.steps,
            batch=self.batch,
            # On a CPU convolutions and attention want its caches for themselves.
            at_once=1 if jax.default_backend() == "cpu" and not small.startswith("mlp") else None,
        )
        notes = f"Students: {small}, {self.seeds} for each objective, trained on {learned:,} examples. "
        notes += f"Teacher: {large}, trained on {seen:,}."
        return replace(found, notes=f"{found.notes} {notes}")


def unsuitable(task: Any) -> str | None:
    """Return why teachers and students cannot take a task; None where they can.

    Args:
      task: Task of any kind.
    """
    if isinstance(task, ArrayTask):
        return None
    name = getattr(task, "name", "") or f"a {type(task).__name__}"
    return (
        f"{name} is made of graphs: teachers and students take kinds 'image' and 'text' of `jgd datasets`, "
        "tables and folders of images"
    )


def teach(
    task: Any,
    teacher: str | None = None,
    student: str | None = None,
    *,
    objectives: Sequence[str],
    examples: int | None = None,
    steps: int = 1500,
    batch: int = 64,
    rate: float = 2e-3,
    seeds: int = 5,
    seed: int = 0,
) -> Teaching:
    """Plan the training of a teacher and of students that learn from it.

    Args:
      task: Images, vectors or tokens with classes.
      teacher: Name of the network of the teacher; mlp-256-256, or transformer-96-3 for tokens, by default.
      student: Name of the network of the students; mlp-32, or transformer-32-1, by default.
      objectives: Names of objectives.
      examples: Training examples of the students, equally many of each class; None for all.
      steps: Training steps.
      batch: Batch size.
      rate: Learning rate.
      seeds: Students of each objective.
      seed: Random seed.

    Raises:
      ValueError: For another kind of data, or networks that cannot read them.
    """
    if (why := unsuitable(task)) is not None:
        raise ValueError(why)
    texts = task.mask is not None
    large = teacher or ("transformer-96-3" if texts else "mlp-256-256")
    small = student or ("transformer-32-1" if texts else "mlp-32")
    for name in (large, small):
        network(name, task)
    few = task if examples is None else subset(task, examples, seed=seed)
    learned = int(np.sum(few.train))
    if learned < batch:
        raise ValueError(f"{learned} training examples are fewer than a batch of {batch}")
    names = {"teacher": large, "student": small}
    return Teaching(task, few, names, tuple(objectives), steps, batch, rate, seeds, seed)


# --- what is shown ------------------------------------------------------------------------------

_COLUMNS = (
    Column("accuracy", "Accuracy, %", 100, best="largest", short="Accuracy %"),
    Column("ece", "ECE, %", 100, best="smallest", short="ECE %"),
    Column("nll", "NLL", 1, 3, "smallest"),
    Column("brier", "Brier", 1, 3, "smallest"),
    Column("agreement", "Agreement, %", 100, best="largest", short="Agreement %"),
    Column("seconds", "Seconds", "seconds"),
)


def _comparison(task, scores, bins, seconds, teacher, teacher_bins, settings) -> Comparison:
    def row(name, found, time):
        values = {k: np.asarray(v, float) for k, v in found._asdict().items() if v is not None}
        return {"name": name, **values, "seconds": time, "reference": name == "teacher"}

    rows = (
        row("teacher", teacher, None),
        *(row(name, found, seconds[name]) for name, found in scores.items()),
    )
    best = max(rows[1:], key=lambda row: row["accuracy"].mean())
    count, right = len(rows) - 1, percent(float(rows[0]["accuracy"]))
    record = {
        "dataset": task.name,
        "rows": [
            {k: np.atleast_1d(v).tolist() if isinstance(v, np.ndarray) else v for k, v in r.items()}
            for r in rows
        ],
        "bins": {
            name: {k: np.asarray(v).tolist() for k, v in b._asdict().items()}
            for name, b in {"teacher": teacher_bins, **bins}.items()
        },
        "settings": settings,
        "versions": versions(),
        "command": "",
    }
    return Comparison(
        title=f"{count} objective{'s' if count > 1 else ''} of distillation on {task.name or 'a task'}",
        headline=(
            f"Students trained by {best['name']} are right on {percent(best['accuracy'].mean())} of the test "
            f"examples, the teacher on {right}."
        ),
        rows=rows,
        columns=_COLUMNS,
        figures=_figures(rows, {"teacher": teacher_bins, **bins}),
        record=record,
        facts={
            "Best students": (percent(best["accuracy"].mean()), best["name"]),
            "Teacher": (right, "test accuracy"),
            "Agreement": (percent(best["agreement"].mean()), "of the best students with the teacher"),
            "Students": (f"{best['accuracy'].size}", "of each objective, trained at once"),
        },
        notes=(
            "Mean ± standard deviation over students, on the test examples. Seconds: time to train all "
            "students of a row at once, compilation included."
        ),
        protocol=(
            "Every objective trains the same student from the same keys, with the same teacher, data, "
            "order of the examples and optimiser. The last state is tested unless a selection is among "
            "the settings."
        ),
        scores=scores,
    )


def _figures(rows, bins) -> tuple[Picture, ...]:
    panels = {
        title: {row["name"]: np.atleast_1d(row[key]) for row in rows if key in row}
        for key, title in (("accuracy", "Test accuracy"), ("agreement", "Agreement with the teacher"))
    }
    errors = {row["name"]: 100 * float(np.mean(row["ece"])) for row in rows}
    values = "; ".join(f"{row['name']} {percent(np.mean(row['accuracy']))}" for row in rows)
    return (
        Picture(
            "accuracy",
            "Accuracy and agreement",
            "Test accuracy (left) and the share of test examples on which a student predicts what the "
            "teacher does (right). Bars and numbers: mean and standard deviation over students. Dashed: "
            "the teacher.",
            partial(plot_bars, panels, label="% of the test examples", reference="teacher", low=None),
            f"Two bar charts. {values}.",
        ),
        Picture(
            "calibration",
            "Calibration",
            "Accuracy of the predictions in fifteen bins of confidence, over the students of all seeds; the "
            "area of a mark is the share of predictions. On the dashed line confidence equals accuracy.",
            partial(plot_reliability, {f"{n}, ECE {errors[n]:.1f}": b for n, b in bins.items()}),
            "A line chart for the teacher and each objective, accuracy against confidence. "
            + "; ".join(f"{n}: expected calibration error {e:.1f} %" for n, e in errors.items())
            + ".",
        ),
    )


def _bins(logits: Array, some: Examples) -> ReliabilityBins:
    """Confidence and accuracy of the predictions of all members together."""
    members = logits.shape[0]
    labels = jnp.tile(jnp.asarray(some.targets), members)
    where = None if some.weights is None else jnp.tile(some.weights, members)
    return reliability(logits.reshape(-1, logits.shape[-1]), labels, where=where)
