"""1239 distillations of language models, with their settings and scores (He et al., "Distiller", 2021).

Four tables of the authors' repository: every run that their searches finished on eight tasks of GLUE,
features of the tasks, and the scores of students and teachers by themselves. Each run has one seed.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jgd.data.storage import DataError, Remote, reading, refuse_web_page, require

__all__ = ["DistillationRuns", "distillation_runs", "remotes"]

_ADDRESS = "https://raw.githubusercontent.com/Cli212/Distiller/a6a48f7db772ed9c3dfccfe26c9d4553c67132e3/autodistiller_experiments/"
_SHA256 = {
    "auto_distiller_tabular_data.csv": "4bd53753e7187158f8d508699bf96dea8a4e9f60134869c643b88f03b4fbd269",
    "dataset_features_50_concat.csv": "efc1fb462d62a75e1d40600cd13733ed7e33056f6991d981856b5d5af76b3c32",
    "student_baseline.csv": "0851fcac803fc4a0866e0bb9aa912c685c82df780188112c50cdc28136b9f9af",
    "teacher_baseline.csv": "0d8821e95975b2eaf965a992b9e816d895a4f57b85ae2742a7d1df0938ee145a",
}
_REMOTES = tuple(Remote(f"distiller/{name}", (_ADDRESS + name,), digest) for name, digest in _SHA256.items())
_CHOICES = (
    "intermediate_loss_type", "alpha", "intermediate_strategy", "kd_loss_type", "mixup", "repeated_aug",
    "aug_p", "contextual", "backtranslation", "random",
)  # fmt: skip


class DistillationRuns(NamedTuple):
    """Finished distillations.

    Attributes:
      runs: Dict of each run with ``"task"``, ``"student"``, ``"teacher"``, the ``"score"`` on the development
        set in 0..1 (-1..1 for correlations), its ``"ratio"`` to the teacher's, and the settings as words
        by their names in the table.
      tasks: Text embedding ``[100]`` of each task, its number of examples and of labels, as ``[102]``.
      majority: Score in percent of the constant answer, by task.
      students: Score in percent of a published student by task and name.
      teachers: Score in percent of a teacher by task and name.
    """

    runs: tuple[dict[str, str | float], ...]
    tasks: dict[str, np.ndarray]
    majority: dict[str, float]
    students: dict[tuple[str, str], float]
    teachers: dict[tuple[str, str], float]


def remotes() -> tuple[Remote, ...]:
    """Return the four tables."""
    return _REMOTES


def distillation_runs() -> DistillationRuns:
    """Load the runs.

    Raises:
      DataError: If files are missing or damaged.
    """
    table, features, students, teachers = map(require, _REMOTES)
    with reading(table):
        rows = _rows(table, "Model", "Teacher", "task", "score", "ratio", "baseline_score", *_CHOICES)
        runs = tuple(
            {
                "task": row["task"],
                "student": row["Model"],
                "teacher": row["Teacher"],
                "score": _number(row, "score"),
                "ratio": _number(row, "ratio"),
                **{name: row[name] for name in _CHOICES},
            }
            for row in rows
        )
        majority = {row["task"]: _number(row, "baseline_score") for row in rows}
    with reading(features):
        numbers = {
            row["task"]: np.asarray([_number(row, name) for name in row if name != "task"])
            for row in _rows(features, "task")
        }
    return DistillationRuns(
        runs,
        numbers,
        majority,
        _scores(students, "Model", "student_score"),
        _scores(teachers, "model", "score"),
    )


def _scores(path: Path, name: str, score: str) -> dict[tuple[str, str], float]:
    with reading(path):
        return {(row["task"], row[name]): _number(row, score) for row in _rows(path, "task", name, score)}


def _number(row: dict[str, str], name: str) -> float:
    value = float(row[name])
    if not math.isfinite(value):
        raise ValueError(f"{name} of task {row['task'][:40]!r} is {row[name][:24]}, which is not finite")
    return value


def _rows(path: Path, *wanted: str) -> list[dict[str, str]]:
    refuse_web_page(path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file, strict=True)
        columns = list(table.fieldnames or [])
        if missing := [column for column in wanted if column not in columns]:
            raise DataError(f"{path} has no column {missing[0]!r}; its columns are {', '.join(columns)}")
        rows = []
        for row in table:
            if None in row or None in row.values():
                raise ValueError(f"line {table.line_num} does not have {len(columns)} columns, as the first")
            rows.append(row)
    if not rows:
        raise DataError(f"{path} holds no rows")
    return rows
