r"""AutoDistiller: which distillation to try on a new task, learned from those that were run on others.

He, Shi, Mueller, Zha, Li and Karypis, "Distiller: A Systematic Study of Model Distillation Methods in NLP"
(SustaiNLP 2021). A distillation is a `Pipeline`: a loss of logits × a loss of hidden states × which layers ×
augmentation × numbers. From a table of finished runs a regression learns what makes a pipeline good; on a new
task it names the few that are worth running. ::

    past = history()                                            # the authors' 1239 runs
    best = recommend(past, None, candidates, 5)                 # positions among the candidates

    run = trials(net, teacher, task, tx, key=key)               # pipelines of our own
    grid = space(intermediate=("none", "mi"), soft=(0.5, 0.9))
    found = search(grid, run, rungs=(100, 400), log="runs.jsonl")
    past = history("runs.jsonl")                                # what was run is what can be learned from

The authors give the table to an AutoML library. Here it is ridge regression on which choices were made:
scores become ranks within each task (``target="ratio"`` takes the student's over the teacher's score as it
is), because scores of different tasks do not compare. What a task is like can only weigh the tasks that are
learned from: a linear model of ranks within tasks has no other use for it.
"""

from __future__ import annotations

import inspect
import itertools
import json
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import Float, Int, PRNGKeyArray
from scipy.stats import rankdata

from jgd import losses
from jgd.core import Bound, Loop, Objective, ensemble, in_memory, sweep, weighted
from jgd.data.distiller import distillation_runs
from jgd.data.storage import reading
from jgd.distill._mi_alpha import mi_alpha
from jgd.distill.data import Task
from jgd.distill.recipes import Network, learning, mean_accuracy, offline
from jgd.distill.terms import At, linear, supervised, term
from jgd.training import AUGMENTATIONS, Augmentation, chain

__all__ = [
    "INTERMEDIATE",
    "LAYERS",
    "LOGITS",
    "History",
    "LeftOut",
    "Pipeline",
    "Run",
    "history",
    "leave_one_out",
    "objective_of",
    "recommend",
    "search",
    "space",
    "trials",
]


class Pipeline(NamedTuple):
    """One way to distil.

    Attributes:
      logits: Loss between logits.
      intermediate: Loss between hidden states, or ``"none"``.
      layers: Layers that it compares, or ``"none"``.
      augmentation: Changes of batches, in order.
      settings: Numbers by name, in order of the names.
    """

    logits: str = "kd"
    intermediate: str = "none"
    layers: str = "none"
    augmentation: tuple[str, ...] = ()
    settings: tuple[tuple[str, float], ...] = ()


class Run(NamedTuple):
    """A pipeline that was run.

    Attributes:
      task: Name of the task.
      pipeline: Pipeline that was run.
      score: Score, higher is better; the student's over the teacher's where that is known, NaN if it failed.
      budget: Budget, e.g. steps. Of two runs on a task the one with the larger budget counts as
        better: it is what was kept.
      student: Name of the student.
      teacher: Name of the teacher.
    """

    task: str
    pipeline: Pipeline
    score: float
    budget: int = 1
    student: str = ""
    teacher: str = ""


class History(NamedTuple):
    """Finished runs.

    Attributes:
      runs: Runs in any order.
      features: Numbers that describe a task, by its name.
    """

    runs: tuple[Run, ...]
    features: Mapping[str, np.ndarray] = {}


# --- what was run ---------------------------------------------------------------------------------


def history(path: str | os.PathLike[str] | None = None) -> History:
    """Return finished runs.

    Args:
      path: Log of `search`, of which each pipeline's run with the largest budget counts; None for the
        authors' table, see `jgd.data.distiller.distillation_runs`.

    Raises:
      DataError: For files that are missing or damaged.
    """
    if path is not None:
        with reading(path):
            runs: dict[Any, Run] = {}
            for run in _read(Path(path)):
                key = (run.task, run.student, run.teacher, run.pipeline)
                if key not in runs or run.budget >= runs[key].budget:
                    runs[key] = run
        return History(tuple(runs.values()))
    table = distillation_runs()
    return History(tuple(map(_official, table.runs)), table.tasks)


def _official(row: Mapping[str, Any]) -> Run:
    """Return a row of the authors' table."""
    settings = {"aug_p": float(row["aug_p"]), "repeated_aug": float(row["repeated_aug"])}
    if row["intermediate_loss_type"] == "mi":  # of no meaning elsewhere
        settings["alpha"] = float(row["alpha"])
    texts = [
        f"{name}:{row[name]}" for name in ("contextual", "backtranslation", "random") if row[name] != "0"
    ]
    pipeline = Pipeline(
        row["kd_loss_type"],
        row["intermediate_loss_type"],
        row["intermediate_strategy"],
        (*texts, *(["mixup"] if row["mixup"] == "TRUE" else [])),
        tuple(sorted(settings.items())),
    )
    return Run(row["task"], pipeline, row["ratio"], student=row["student"], teacher=row["teacher"])


def _read(path: Path) -> list[Run]:
    runs = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # the line that was being written
            continue
        choices = dict(row.pop("pipeline"))
        choices["augmentation"] = tuple(choices["augmentation"])
        choices["settings"] = tuple((name, float(value)) for name, value in choices["settings"])
        score = row.pop("score")
        runs.append(Run(pipeline=Pipeline(**choices), score=math.nan if score is None else score, **row))
    return runs


def _append(path: Path, runs: Iterable[Run]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    broken = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" if broken else "")
        for run in runs:
            score = run.score if math.isfinite(run.score) else None
            row = run._asdict() | {"pipeline": run.pipeline._asdict(), "score": score}
            file.write(json.dumps(row) + "\n")


# --- what to run next -----------------------------------------------------------------------------


def _choices(pipeline: Pipeline) -> set[str]:
    """Return what a pipeline consists of, as words: the columns of the regression."""
    return {
        f"logits={pipeline.logits}",
        f"intermediate={pipeline.intermediate}",
        f"layers={pipeline.layers}",
        *(f"augmentation={name}" for name in pipeline.augmentation),
        *(f"{name}={value:g}" for name, value in pipeline.settings),
    }


def _targets(runs: Sequence[Run], target: str, within: str) -> Float[np.ndarray, " R"]:
    """Return ranks in (-1/2, 1/2), or centred scores, within each task."""
    groups: dict[Any, list[int]] = defaultdict(list)
    for i, run in enumerate(runs):
        groups[run.task if within == "task" else (run.task, run.student, run.teacher)].append(i)
    y = np.zeros(len(runs))
    for index in groups.values():
        score = np.asarray([runs[i].score for i in index])
        if target == "ratio":
            y[index] = score - np.nanmean(score) if np.isfinite(score).any() else 0
            continue
        failed = np.where(np.isnan(score), -np.inf, score)
        order = sorted({(runs[i].budget, s) for i, s in zip(index, failed, strict=True)})
        place = {pair: n for n, pair in enumerate(order)}
        rank = rankdata([place[runs[i].budget, s] for i, s in zip(index, failed, strict=True)])
        y[index] = (rank - 0.5) / len(index) - 0.5
    return np.nan_to_num(y, nan=float(np.nanmin(y)))


def _similarity(past: History, features: np.ndarray | None) -> Float[np.ndarray, " R"]:
    """Return the weight of each run, the similarity of its task to the new one; else one."""
    if features is None:
        return np.ones(len(past.runs))
    tasks = sorted({run.task for run in past.runs})
    if unknown := [task for task in tasks if task not in past.features]:
        raise ValueError(f"the history does not say what {unknown[0]!r} is like: give features=None")
    rows = np.stack(
        [np.asarray(past.features[task], float) for task in tasks] + [np.asarray(features, float)]
    )
    scale = rows.std(0)
    rows = (rows - rows.mean(0)) / np.where(scale > 0, scale, 1)
    distance = np.mean((rows[:-1] - rows[-1]) ** 2, axis=1)
    like = np.exp(-distance / max(float(np.median(distance)), 1e-12))
    weight = dict(zip(tasks, like, strict=True))
    weights = np.asarray([weight[run.task] for run in past.runs])
    return weights / weights.mean()


def recommend(
    past: History,
    features: np.ndarray | None,
    candidates: Sequence[Pipeline],
    k: int,
    *,
    penalty: float = 5.0,
    target: Literal["rank", "ratio"] = "rank",
    within: Literal["task", "pair"] = "task",
) -> Int[np.ndarray, " k"]:
    """Return the pipelines that are likely to be best on a new task.

    Args:
      past: Finished runs, without those of the new task.
      features: Numbers that describe the new task; runs of similar tasks weigh more. None: all weigh alike.
      candidates: Pipelines that could be run.
      k: Number of recommendations.
      penalty: Penalty of the ridge regression, which has a column for each choice and for the names of
        students and teachers; the mean is not penalised.
      target: ``"rank"`` within the task, or the ``"ratio"`` itself, centred.
      within: Runs that are compared with each other: those of a ``"task"``, or of each task, student and
        teacher.

    Returns:
      Positions among the candidates, the best first; among equals the first.

    Raises:
      ValueError: For more recommendations than candidates, or without past runs.
    """
    if not past.runs:
        raise ValueError("there are no past runs to learn from")
    if not 0 < k <= len(candidates):
        raise ValueError(f"cannot recommend {k} of {len(candidates)} candidates")
    words = [
        _choices(run.pipeline) | {f"student={run.student}", f"teacher={run.teacher}"} for run in past.runs
    ]
    column = {word: i for i, word in enumerate(sorted(set().union(*words)))}

    def matrix(rows):
        x = np.zeros((len(rows), len(column)))
        for i, row in enumerate(rows):
            x[i, [column[word] for word in row if word in column]] = 1
        return x

    x, y, w = matrix(words), _targets(past.runs, target, within), _similarity(past, features)
    x = x - (w @ x) / w.sum()
    y = y - (w @ y) / w.sum()
    theta = np.linalg.solve(x.T @ (w[:, None] * x) + penalty * np.eye(x.shape[1]), x.T @ (w * y))
    rating = np.round(matrix([_choices(p) for p in candidates]) @ theta, 9)  # equal sums are equal
    return np.argsort(-rating, kind="stable")[:k]


class LeftOut(NamedTuple):
    """How recommendations for a task did that were learned from all other tasks.

    Attributes:
      task: Name of the task.
      recommended: Mean score of the recommended pipelines.
      average: Mean score of all, the expectation for random ones.
      best: Best score of all.
      candidates: Number of different pipelines that were run on it.
    """

    task: str
    recommended: float
    average: float
    best: float
    candidates: int


def leave_one_out(
    past: History,
    k: int = 5,
    *,
    student: str | None = None,
    teacher: str | None = None,
    similar: bool = False,
    **settings: Any,
) -> list[LeftOut]:
    """Recommend for each task from the runs of the others, and look up the scores of the recommended ones.

    Candidates are the pipelines that were run on the task, in an order that does not depend on how they did;
    several runs of one count by their mean, failed ones not.

    Args:
      past: Runs of at least two tasks.
      k: Number of recommendations.
      student: Name of the student whose runs are scored; all runs are learned from. None for all.
      teacher: Name of the teacher, likewise.
      similar: Whether similar tasks weigh more.
      **settings: Settings of `recommend`.
    """
    table = []
    for task in sorted({run.task for run in past.runs}):
        scores: dict[Pipeline, list[float]] = defaultdict(list)
        for run in past.runs:
            wanted = student in (None, run.student) and teacher in (None, run.teacher)
            if run.task == task and wanted and math.isfinite(run.score):
                scores[run.pipeline].append(run.score)
        if len(scores) < k:
            continue
        candidates = sorted(scores)
        means = np.asarray([np.mean(scores[p]) for p in candidates])
        others = past._replace(runs=tuple(run for run in past.runs if run.task != task))
        features = past.features[task] if similar else None
        top = recommend(others, features, candidates, k, **settings)
        table.append(
            LeftOut(task, float(means[top].mean()), float(means.mean()), float(means.max()), len(candidates))
        )
    return table


# --- pipelines of our own -------------------------------------------------------------------------

LOGITS: Mapping[str, Callable] = {"kd": losses.kd, "mse": losses.logit_mse, "dist": losses.dist_loss}
"""Losses of logits by name."""

INTERMEDIATE: Mapping[str, Callable[..., Objective]] = {
    "mse": partial(term, losses.hidden_mse, adapt=linear),
    "cos": partial(term, losses.cosine_distance, adapt=linear),
    "pkd": partial(term, losses.pkd, adapt=linear),
    "ce": partial(term, losses.hidden_cross_entropy, adapt=linear),
    "rkd": partial(term, losses.rkd_distance),
    "mi": mi_alpha,
}
"""Objectives of hidden states by name, ``(at=(student's, teacher's)) -> Objective``."""

LAYERS: Mapping[str, tuple[tuple[At, At], ...]] = {"last": (("embedding", "embedding"),)}
"""Pairs of the student's and the teacher's layers by name; those of other layers depend on the networks."""


def space(
    logits: Sequence[str] = ("kd",),
    intermediate: Sequence[str] = ("none",),
    layers: Sequence[str] = ("last",),
    augmentation: Sequence[tuple[str, ...]] = ((),),
    **settings: Sequence[float | int],
) -> tuple[Pipeline, ...]:
    """Return all pipelines of a grid, each once, without settings that a structure does not read.

    Args:
      logits: Names in `LOGITS`.
      intermediate: Names in `INTERMEDIATE`, or ``"none"``.
      layers: Names in `LAYERS`.
      augmentation: Tuples of names in `jgd.training.AUGMENTATIONS`, or of one's own, see `trials`.
      **settings: Values of ``soft`` (the teacher's share of the loss, the labels have the rest),
        ``temperature`` and ``weight`` (of the intermediate loss).
    """
    if unknown := set(settings) - set(_DEFAULTS):
        raise ValueError(f"no setting is called {sorted(unknown)[0]!r}: they are {', '.join(_DEFAULTS)}")
    found: dict[Pipeline, None] = {}
    for one, other, where, what in itertools.product(logits, intermediate, layers, augmentation):
        unused = set() if _has_temperature(one) else {"temperature"}
        if other == "none":
            where, unused = "none", unused | {"weight"}
        names = [name for name in sorted(settings) if name not in unused]
        for values in itertools.product(*[settings[name] for name in names]):
            pairs = tuple((name, float(value)) for name, value in zip(names, values, strict=True))
            found[Pipeline(one, other, where, tuple(what), pairs)] = None
    return tuple(found)


_DEFAULTS = {"soft": 0.9, "temperature": 4.0, "weight": 1.0}


def _has_temperature(name: str) -> bool:
    return "temperature" in inspect.signature(_named(LOGITS, name, "loss of logits")).parameters


def _named(choices: Mapping[str, Any], name: str, what: str) -> Any:
    if name not in choices:
        raise ValueError(f"no {what} is called {name!r}: they are {', '.join(choices)}")
    return choices[name]


def objective_of(
    pipeline: Pipeline, layers: Mapping[str, tuple[tuple[At, At], ...]] = LAYERS, **settings: Any
) -> Objective:
    """Return the objective of a pipeline: labels, logits, and hidden states in equal shares of the layers.

    Args:
      pipeline: Pipeline.
      layers: Pairs of layers by name.
      **settings: Settings in place of those of the pipeline; they may be tracers.
    """
    now = {**_DEFAULTS, **dict(pipeline.settings), **settings}
    loss = _named(LOGITS, pipeline.logits, "loss of logits")
    given = {"temperature": now["temperature"]} if _has_temperature(pipeline.logits) else {}
    parts: dict[str, Any] = {
        "ce": (lambda step: 1 - now["soft"], supervised()),
        "logits": (lambda step: now["soft"], term(loss, **given)),
    }
    if pipeline.intermediate != "none":
        make = _named(INTERMEDIATE, pipeline.intermediate, "loss of hidden states")
        pairs = _named(layers, pipeline.layers, "choice of layers")
        for i, pair in enumerate(pairs):
            parts[f"hidden{i}"] = (lambda step: now["weight"] / len(pairs), make(at=pair))
    return weighted(**parts)


Trial = Callable[[Pipeline, Mapping[str, np.ndarray], int], Any]


def trials(
    net: Network,
    teacher: Bound,
    task: Task,
    tx: optax.GradientTransformation,
    *,
    key: PRNGKeyArray,
    batch: int | None = 64,
    seeds: int | None = None,
    layers: Mapping[str, tuple[tuple[At, At], ...]] = LAYERS,
    augmentations: Mapping[str, Augmentation] | None = None,
    loop: Loop = in_memory,
) -> Trial:
    """Return what `search` runs: `jgd.distill.offline` with the objective and the augmentation of a pipeline.

    Settings of one structure are trained at once (`jgd.core.sweep`), all from the same key, as ``offline``
    with that key would.

    Args:
      net: Student.
      teacher: Trained network.
      task: Task, whose validation examples score the pipelines.
      tx: Optimiser.
      key: Random key of everything.
      batch: Examples of a step.
      seeds: Number of students of each pipeline, whose mean counts; None for one.
      layers: Pairs of layers by name.
      augmentations: Augmentations of one's own by name, beside those of `jgd.training.AUGMENTATIONS`.
      loop: Loop that runs the stages.

    Returns:
      ``(structure, {setting: values [m]}, steps) -> [m]``, validation accuracy over the teacher's.
    """
    if task.val is None:
        raise ValueError(f"pipelines are judged by validation examples, {task.name!r} has none")

    own = augmentations or {}

    def augmentation(name: str) -> Augmentation:
        return own[name] if name in own else AUGMENTATIONS[name].make()

    def run(structure: Pipeline, settings: Mapping[str, np.ndarray], steps: int) -> np.ndarray:
        augment = chain(*map(augmentation, structure.augmentation)) if structure.augmentation else None
        recipe = offline(net, teacher, supervised(), tx, augment=augment, steps=steps, batch=batch)
        k_order, k_train = jax.random.split(key)
        data = recipe.source(k_order, task)

        def algorithm(**now):
            goal = objective_of(structure, layers, **now)
            return learning(
                recipe.models, goal, tx, augment=augment, batch=batch, num_classes=task.num_classes
            )

        alg = sweep(algorithm, **settings) if settings else ensemble(algorithm(), 1)
        nets = loop("trial", alg if seeds is None else ensemble(alg, seeds), k_train, data, steps)
        if seeds is not None:
            nets = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), nets)
        reached = np.asarray(_scores(nets, data)).reshape(seeds or 1, -1).mean(0)
        return reached / max(float(_teacher_score({"teacher": teacher}, data)), 1e-12)

    return run


_scores = jax.jit(jax.vmap(mean_accuracy, in_axes=(0, None)))
_teacher_score = jax.jit(mean_accuracy)


def search(
    pipelines: Sequence[Pipeline],
    run: Trial,
    *,
    rungs: Sequence[int] = (100, 300, 900),
    keep: float = 1 / 3,
    draw: int | None = None,
    seed: int = 0,
    task: str = "task",
    log: str | os.PathLike[str] | None = None,
) -> list[Run]:
    """Run all pipelines a little, the better ones longer: successive halving; random search with one rung.

    Args:
      pipelines: Pipelines to try.
      run: ``(structure, {setting: values [m]}, budget) -> scores [m]``, see `trials`; the structure is a
        pipeline without settings. Pipelines of one structure come together. NaN is a failure.
      rungs: Budgets, ascending. A pipeline starts again in every rung.
      keep: Share that goes on to the next rung, at least one.
      draw: Number of pipelines that are tried, drawn at random; None for all.
      seed: Random seed of the draw.
      task: Name of the task and everything else that ``run`` depends on: runs in the log with this name
        are not run again.
      log: File of JSON lines that every run is added to, and that an interrupted search goes on from.

    Returns:
      The last run of each pipeline, the best first: those that went further, then those with better scores.

    Raises:
      ValueError: For no pipelines, budgets that do not ascend, or a share outside 0..1.
    """
    alive = list(dict.fromkeys(pipelines))
    if not alive or not rungs or list(rungs) != sorted(set(rungs)) or rungs[0] < 1 or not 0 < keep < 1:
        raise ValueError("search needs pipelines, ascending budgets of at least 1, and a share in 0..1")
    if draw is not None:
        chosen = np.random.default_rng(seed).permutation(len(alive))[:draw]
        alive = [alive[i] for i in sorted(chosen)]
    path = None if log is None else Path(log)
    done: dict[tuple[Pipeline, int], Run] = {}
    if path is not None and path.exists():
        with reading(path):
            done = {(r.pipeline, r.budget): r for r in _read(path) if r.task == task}
    last: dict[Pipeline, Run] = {}
    for budget in rungs:
        groups: dict[Any, list[Pipeline]] = defaultdict(list)
        for p in alive:
            if (p, budget) not in done:
                groups[p._replace(settings=()), tuple(name for name, _ in p.settings)].append(p)
        for (structure, names), group in groups.items():
            settings = {name: np.asarray([dict(p.settings)[name] for p in group]) for name in names}
            scores = np.asarray(run(structure, settings, budget), float).reshape(len(group))
            new = [Run(task, p, float(s), budget) for p, s in zip(group, scores, strict=True)]
            if path is not None:
                _append(path, new)
            done |= {(r.pipeline, budget): r for r in new}
        last |= {p: done[p, budget] for p in alive}
        ranked = sorted(alive, key=lambda p: _standing(last[p]), reverse=True)
        alive = ranked[: max(1, math.ceil(keep * len(ranked)))]
    return sorted(last.values(), key=_standing, reverse=True)


def _standing(run: Run) -> tuple[int, float]:
    return run.budget, run.score if math.isfinite(run.score) else -math.inf
