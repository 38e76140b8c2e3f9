"""Which distillation to try next: the table of runs, recommendations, search over our own pipelines."""

import json
import math
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distill_toy import NET, TALL, TX, blobs, random_teacher

from jgd.core import Context, Examples, Outputs
from jgd.data import DataError
from jgd.data.distiller import distillation_runs, remotes
from jgd.distill import autodistiller as auto
from jgd.distill import hinton, offline
from jgd.losses import cross_entropy, kd
from jgd.metrics import accuracy

Pipeline, Run, History = auto.Pipeline, auto.Run, auto.History
KEY = jax.random.key(0)


GRID = auto.space(
    logits=("kd", "mse"), intermediate=("none", "cos"), augmentation=((), ("mixup",)), soft=(0.1, 0.9)
)


def worth(p, task):
    """A planted order: mixup is good everywhere, mse is not, and tasks differ in level and scale."""
    level = {"a": 0.2, "b": 0.9, "c": 0.5}[task]
    value = 3 * ("mixup" in p.augmentation) - 2 * (p.logits == "mse") + (dict(p.settings)["soft"] == 0.9)
    return level + 0.01 * value * (1 + 5 * (task == "a"))


def table(tasks="abc", grid=GRID):
    return History(tuple(Run(t, p, worth(p, t)) for t in tasks for p in grid))


# --- the space ----------------------------------------------------------------------------------


def test_spaces_have_each_pipeline_once_and_nothing_without_use():
    grid = auto.space(
        ("kd", "mse"), ("none", "mse"), temperature=(1, 4), weight=(1, 10, 100), soft=(0.5,)
    )  # fmt: skip
    # kd: 2 temperatures, mse: none; without hidden states no weight.
    assert len(grid) == len(set(grid)) == (2 + 1) * (1 + 3)
    assert {p.layers for p in grid} == {"none", "last"}
    assert dict(grid[0].settings) == {"soft": 0.5, "temperature": 1.0}
    with pytest.raises(ValueError, match="no setting is called 'heat'"):
        auto.space(heat=(1,))
    with pytest.raises(ValueError, match="no loss of logits is called 'dk'"):
        auto.space(("dk",))


@pytest.mark.long
def test_objectives_are_what_the_pipeline_says():
    k1, k2, k3 = jax.random.split(KEY, 3)
    s, t = (
        Outputs(jax.random.normal(k, (8, 3)), jax.random.normal(k, (8, w))) for k, w in ((k1, 4), (k2, 6))
    )
    y = jnp.arange(8) % 3
    ctx = Context({"model": s, "teacher": t}, {}, {}, Examples((), y))

    def value(p, **settings):
        goal = auto.objective_of(p, **settings)
        params, state = jax.jit(lambda key: goal.init(key, ctx))(k3)
        return jax.jit(lambda p: goal.apply(p, state, ctx, key=k3, step=0))(params)

    plain = Pipeline(settings=(("soft", 0.3), ("temperature", 2.0)))
    expected = 0.7 * cross_entropy(s.logits, y).mean() + 0.3 * kd(s.logits, t.logits, temperature=2.0).mean()
    np.testing.assert_allclose(value(plain)[0], expected, rtol=1e-6)
    np.testing.assert_allclose(
        value(plain, soft=0.0)[0], cross_entropy(s.logits, y).mean(), rtol=1e-6
    )  # a setting given by name wins
    for name in ("cos", "rkd", "mi"):
        p = Pipeline("mse", name, "last", (), (("soft", 0.3), ("weight", 2.0)))
        total, _, parts = value(p)
        expected = 0.7 * parts["ce"] + 0.3 * parts["logits"] + 2 * parts["hidden0"]
        np.testing.assert_allclose(total, expected, rtol=1e-5)
        assert abs(float(parts["hidden0"])) > 1e-3
    with pytest.raises(ValueError, match="no choice of layers is called 'skip'"):
        auto.objective_of(Pipeline("kd", "mse", "skip"))


# --- recommendations ------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["rank", "ratio"])
@pytest.mark.parametrize("within", ["task", "pair"])
def test_what_was_good_elsewhere_is_recommended(target, within):
    order = auto.recommend(table("ab"), None, GRID, 3, penalty=0.1, target=target, within=within)
    best = sorted(GRID, key=lambda p: -worth(p, "c"))
    assert {worth(GRID[i], "c") for i in order} == {worth(p, "c") for p in best[:3]}
    assert len(set(order.tolist())) == 3


def test_recommendations_do_not_depend_on_the_order_or_the_scale_of_tasks():
    past = table("ab")
    mixed = past._replace(runs=tuple(np.random.default_rng(0).permutation(len(past.runs)).tolist()))
    mixed = past._replace(runs=tuple(past.runs[i] for i in mixed.runs))
    scaled = past._replace(runs=tuple(r._replace(score=100 * r.score - 7) for r in past.runs))
    expected = auto.recommend(past, None, GRID, 5)
    for other in (mixed, scaled):
        np.testing.assert_array_equal(auto.recommend(other, None, GRID, 5), expected)


def test_tasks_that_are_alike_weigh_more():
    good, bad = Pipeline("kd"), Pipeline("mse")
    runs = tuple(Run(t, p, s) for t, a, b in (("x", 1, 0), ("y", 0, 1)) for p, s in ((good, a), (bad, b)))
    past = History(runs, {"x": np.asarray([0.0, 1.0]), "y": np.asarray([5.0, 1.0])})
    for features, first in (([0.5, 1.0], 0), ([4.0, 1.0], 1)):
        assert auto.recommend(past, np.asarray(features), [good, bad], 1)[0] == first
    with pytest.raises(ValueError, match="does not say what 'x' is like"):
        auto.recommend(past._replace(features={}), np.zeros(2), [good, bad], 1)
    with pytest.raises(ValueError, match="cannot recommend 3 of 2"):
        auto.recommend(past, None, [good, bad], 3)
    with pytest.raises(ValueError, match="no past runs"):
        auto.recommend(History(()), None, [good], 1)


def test_failures_and_short_runs_count_as_worse():
    names = ("kd", "mse", "dist")
    past = History(
        (
            Run("a", Pipeline("kd"), 0.5, 300),
            Run("a", Pipeline("mse"), 0.9, 100),  # good early, but not kept
            Run("a", Pipeline("dist"), math.nan, 100),
        )
    )
    order = auto.recommend(past, None, [Pipeline(n) for n in names], 3, penalty=0.1)
    assert [names[i] for i in order] == ["kd", "mse", "dist"]


def test_leaving_one_out_uses_no_run_of_the_task():
    rows = auto.leave_one_out(table(), 3)
    assert [r.task for r in rows] == ["a", "b", "c"]
    for row in rows:
        scores = np.sort([worth(p, row.task) for p in GRID])
        assert row.candidates == len(GRID)
        np.testing.assert_allclose((row.best, row.average), (scores[-1], scores.mean()))
        np.testing.assert_allclose(row.recommended, scores[-3:].mean())
    # A task where all is the other way round is recommended the worst, and only it.
    past = table()
    liar = past._replace(runs=tuple(r._replace(score=-r.score) if r.task == "b" else r for r in past.runs))
    rows = {r.task: r for r in auto.leave_one_out(liar, 3)}
    assert rows["b"].recommended < rows["b"].average


# --- the table of the authors -----------------------------------------------------------------------


@pytest.fixture
def real():
    root = os.environ.get("JGD_DATA_DIR")
    if not root or not all((Path(root) / r.path).exists() for r in remotes()):
        pytest.skip("distiller/auto_distiller_tabular_data.csv is not under JGD_DATA_DIR")


def test_the_real_table(real):
    table = distillation_runs()
    assert len(table.runs) == 1239
    assert {len(v) for v in table.tasks.values()} == {102}
    assert len(table.tasks) == 10
    assert table.students["cola", "TinyBERT4"] == 20
    assert table.teachers["rte", "BERT_BASE"] == 65
    assert table.majority["cola"] == 0
    past = auto.history()
    assert len({r.task for r in past.runs}) == 8
    assert {r.pipeline.intermediate for r in past.runs} == {"mi", "mse", "cos", "pkd", "ce"}
    best = max((r for r in past.runs if r.task == "rte" and r.student == "TinyBERT4"), key=lambda r: r.score)
    assert (best.pipeline.intermediate, best.pipeline.layers) == ("mi", "last")
    assert dict(best.pipeline.settings)["alpha"] == 0


@pytest.mark.parametrize("settings", [{}, {"similar": True}], ids=["alike", "similar"])
def test_recommended_pipelines_are_better_on_six_of_eight_real_tasks(real, settings):
    rows = auto.leave_one_out(auto.history(), student="TinyBERT4", teacher="BERT_BASE", **settings)
    gains = {r.task: r.recommended - r.average for r in rows}
    assert len(gains) == 8
    assert sum(gain > 0 for gain in gains.values()) >= 6
    assert gains["cola"] > 0.04
    assert gains["stsb"] > 0.15
    assert np.mean(list(gains.values())) > 0.03


def test_tables_that_are_missing_or_damaged(tmp_path, monkeypatch):
    monkeypatch.setenv("JGD_DATA_DIR", str(tmp_path))
    folder = tmp_path / "distiller"
    folder.mkdir()
    for remote in remotes():
        (tmp_path / remote.path).write_text("task,Model\nrte,TinyBERT4\n")
    with pytest.raises(DataError, match="no column 'Teacher'; its columns are task, Model"):
        distillation_runs()
    with pytest.raises(DataError, match=r"no\.jsonl cannot be read"):
        auto.history(tmp_path / "no.jsonl")


# --- search ---------------------------------------------------------------------------------------


def planted(calls, noise=0.2):
    """A search problem whose scores become exact as the budget grows."""

    def run(structure, settings, budget):
        assert structure.settings == ()
        calls.append((structure, {k: v.tolist() for k, v in settings.items()}, budget))
        members = len(next(iter(settings.values())))
        scores = []
        for i in range(members):
            p = structure._replace(settings=tuple((k, float(v[i])) for k, v in settings.items()))
            blur = np.random.default_rng(GRID.index(p)).normal() * noise / budget
            scores.append(worth(p, "a") + blur)
        return np.asarray(scores)

    return run


BEST = max(GRID, key=lambda p: worth(p, "a"))


def test_the_planted_best_is_found_and_settings_come_together():
    calls = []
    found = auto.search(GRID, planted(calls), rungs=(10, 30, 90), keep=0.25)
    assert found[0].pipeline.augmentation == ("mixup",)
    assert worth(found[0].pipeline, "a") == worth(BEST, "a")
    assert [c[2] for c in calls].count(10) == 8  # structures, each with both values of soft
    assert {tuple(c[1]["soft"]) for c in calls if c[2] == 10} == {(0.1, 0.9)}
    assert len(found) == len(GRID)
    assert sorted({r.budget for r in found}) == [10, 30, 90]
    assert [r.budget for r in found] == sorted((r.budget for r in found), reverse=True)
    assert sum(len(c[1]["soft"]) for c in calls) == 16 + 4 + 1


def test_random_search_draws_some():
    calls = []
    found = auto.search(GRID, planted(calls), rungs=(5,), draw=6, seed=1)
    assert len(found) == 6
    again = auto.search(GRID, planted([]), rungs=(5,), draw=6, seed=1)
    assert [r.pipeline for r in again] == [r.pipeline for r in found]
    other = auto.search(GRID, planted([]), rungs=(5,), draw=6, seed=2)
    assert {r.pipeline for r in other} != {r.pipeline for r in found}


def test_an_interrupted_search_goes_on_and_can_be_learned_from(tmp_path):
    log = tmp_path / "runs.jsonl"
    whole, calls = [], []
    expected = auto.search(GRID, planted(whole), rungs=(10, 30), task="a")

    def failing(structure, settings, budget):
        if len(calls) == 3:
            raise KeyboardInterrupt
        return planted(calls)(structure, settings, budget)

    with pytest.raises(KeyboardInterrupt):
        auto.search(GRID, failing, rungs=(10, 30), task="a", log=log)
    with log.open("a") as file:
        file.write('{"task": "a", "pipe')  # the line that was being written
    found = auto.search(GRID, planted(calls), rungs=(10, 30), task="a", log=log)
    assert [(r.pipeline, r.budget) for r in found] == [(r.pipeline, r.budget) for r in expected]
    assert len(calls) == len(whole)
    done = len(calls)
    auto.search(GRID, planted(calls), rungs=(10, 30), task="a", log=log)
    assert len(calls) == done  # all of it was there
    auto.search(GRID[:2], planted(calls), rungs=(10,), task="b", log=log)
    assert len(calls) > done  # but not for another task
    past = auto.history(log)
    assert len([r for r in past.runs if r.task == "a"]) == len(GRID)
    assert max(r.budget for r in past.runs) == 30
    top = auto.recommend(past, None, GRID, 1, penalty=0.1)[0]
    assert "mixup" in GRID[top].augmentation
    assert all(json.loads(line)["task"] for line in log.read_text().splitlines() if line.endswith("}"))


def test_failures_are_last_and_logged(tmp_path):
    log = tmp_path / "runs.jsonl"

    def run(structure, settings, budget):
        return np.where(settings["soft"] == 0.9, np.nan, 0.5)

    found = auto.search(GRID[:4], run, rungs=(1,), log=log)
    assert [math.isnan(r.score) for r in found] == [False, False, True, True]
    assert sum(math.isnan(r.score) for r in auto.history(log).runs) == 2


@pytest.mark.parametrize("bad", [{"rungs": ()}, {"rungs": (3, 2)}, {"rungs": (0,)}, {"keep": 1.0}])
def test_impossible_searches_are_refused(bad):
    with pytest.raises(ValueError, match="ascending budgets"):
        auto.search(GRID, planted([]), **bad)


TASK = blobs()
TEACHER = random_teacher()


@pytest.mark.long
def test_trials_are_offline_distillation():
    run = auto.trials(NET, TEACHER, TASK, TX, key=KEY, batch=10)
    soft = np.asarray([0.0, 0.5, 1.0])
    found = run(Pipeline(), {"soft": soft}, 30)
    assert found.shape == (3,)
    val = np.flatnonzero(TASK.val)
    labels = jnp.asarray(TASK.y[val])
    base = accuracy(TEACHER(TASK.x[val]).logits, labels)
    net = offline(NET, TEACHER, hinton(hard=0.5, soft=0.5), TX, batch=10, steps=30)(KEY, TASK)
    np.testing.assert_allclose(found[1] * base, accuracy(net(TASK.x[val]).logits, labels), atol=1e-6)


@pytest.mark.long
def test_trials_with_hidden_states_augmentation_and_seeds():
    run = auto.trials(NET, TEACHER, TASK, TX, key=KEY, batch=10, seeds=2)
    p = Pipeline("dist", "pkd", "last", ("mixup", "gaussian-noise"))
    found = run(p, {"weight": np.asarray([0.1, 1.0]), "soft": np.asarray([0.5, 0.5])}, 2)
    assert found.shape == (2,)
    assert np.isfinite(found).all()
    assert run(Pipeline("mse"), {}, 2).shape == (1,)
    with pytest.raises(ValueError, match="no augmentation is called 'blur'"):
        run(Pipeline(augmentation=("blur",)), {}, 5)
    with pytest.raises(ValueError, match="judged by validation"):
        auto.trials(
            TALL, TEACHER, type(TASK)(x=TASK.x, y=TASK.y, train=TASK.train, num_classes=3), TX, key=KEY
        )
