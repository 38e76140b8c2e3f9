"""Objectives against each other: the same student, teacher, data and optimiser for all.

::

    objectives = {"CE": supervised(), "KD": hinton(), "PLD": pld()}
    comparison = compare_students(objectives, net, teacher, task, optax.adamw(2e-3), seeds=8)
    print(comparison)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from jgd.core import Bound, Examples, Loop, Objective, as_key, in_memory
from jgd.data.checks import need_classes
from jgd.distill.data import Task, examples
from jgd.distill.schedule import Network, offline, staged
from jgd.metrics import ReliabilityBins, reliability
from jgd.protocols.classifiers import Classified, logits_on, scored
from jgd.protocols.compare import versions
from jgd.protocols.text import spread

__all__ = ["StudentComparison", "compare_students"]


@dataclass(frozen=True)
class StudentComparison:
    """What `compare_students` found.

    Attributes:
      dataset: name of the task.
      scores: ``{objective: scores}`` on the test examples, each an array over seeds.
      bins: ``{objective: bins}`` of confidence and accuracy, over the students of all seeds.
      seconds: ``{objective: seconds}`` to train all its students, compilation included.
      teacher: scores of the teacher.
      teacher_bins: likewise.
      settings: of the training.
      versions: of what the numbers depend on, and the device.
    """

    dataset: str
    scores: Mapping[str, Classified]
    bins: Mapping[str, ReliabilityBins]
    seconds: Mapping[str, float]
    teacher: Classified
    teacher_bins: ReliabilityBins
    settings: Mapping[str, Any]
    versions: Mapping[str, str] = field(default_factory=dict)

    def rows(self) -> list[dict[str, Any]]:
        """A row for the teacher and each objective: name, scores by name as arrays, seconds."""

        def row(name, scores, seconds):
            values = {
                k: np.atleast_1d(np.asarray(v, float)) for k, v in scores._asdict().items() if v is not None
            }
            return {"name": name, **values, "seconds": seconds}

        own = [row(name, scores, self.seconds[name]) for name, scores in self.scores.items()]
        return [row("teacher", self.teacher, None), *own]

    def metrics(self, *, command: str = "") -> dict[str, Any]:
        """Everything as what JSON can say."""
        rows = [
            {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in r.items()} for r in self.rows()
        ]
        bins = {"teacher": self.teacher_bins, **self.bins}
        return {
            "dataset": self.dataset,
            "rows": rows,
            "bins": {
                name: {k: np.asarray(v).tolist() for k, v in b._asdict().items()} for name, b in bins.items()
            },
            "settings": dict(self.settings),
            "versions": dict(self.versions),
            "command": command,
        }

    def __str__(self) -> str:
        """A table."""
        lines = [f"{'':24} accuracy %    ECE %         NLL            agreement %"]
        for row in self.rows():
            cells = (
                spread(row["accuracy"]),
                spread(row["ece"]),
                spread(row["nll"], 1, 3),
                spread(row["agreement"]) if "agreement" in row else "-",
            )
            lines.append(f"{row['name']:24} " + " ".join(f"{c:13}" for c in cells).rstrip())
        return "\n".join(lines)


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
    say: Callable[[str], None] = lambda text: None,
    keep: Callable[[str, Bound], None] = lambda name, nets: None,
    **settings: Any,
) -> StudentComparison:
    """Train students with each objective and test them.

    Args:
      objectives: ``{name: objective}``, or ``{name: (network, objective)}`` for one that needs another
        network, such as LELP with its subclasses.
      net: the student.
      teacher: from whom all learn: a network, or its logits on all rows of the task.
      task: with training and test examples.
      tx: optimiser.
      seeds: students of each objective; they are trained at once.
      key: random key, or a seed. The order of the examples is the same for all.
      loop: runs the stages, ``distill-<objective>``.
      say: is told what is being done.
      keep: is given the students of each objective, with a leading axis, e.g. to `jgd.save` them.
      **settings: of `jgd.distill.offline`.

    Raises:
      ValueError: for no objectives, or a task without what it takes.
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
        say(f"{name}: {seeds} student{'s' if seeds > 1 else ''}")
        start = time.perf_counter()
        nets = jax.block_until_ready(recipe(key, task, staged(loop, name)))
        seconds[name] = time.perf_counter() - start
        keep(name, nets)
        logits = logits_on(nets, task, several=True)
        scores[name] = scored(logits, some, theirs=theirs, several=True)
        bins[name] = _bins(logits, some)
    return StudentComparison(
        dataset=task.name,
        scores=scores,
        bins=bins,
        seconds=seconds,
        teacher=scored(theirs, some),
        teacher_bins=_bins(theirs[None], some),
        settings={"seeds": seeds, **{k: v for k, v in settings.items() if isinstance(v, int | float | str)}},
        versions=versions(),
    )


def _bins(logits: Array, some: Examples) -> ReliabilityBins:
    """Confidence and accuracy of the predictions of all members together."""
    members = logits.shape[0]
    labels = jnp.tile(jnp.asarray(some.targets), members)
    where = None if some.weights is None else jnp.tile(some.weights, members)
    return reliability(logits.reshape(-1, logits.shape[-1]), labels, where=where)
