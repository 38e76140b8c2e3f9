"""Distillation on pruned digits: which examples, how much teacher, which teacher, with and without wrong labels.

    python experiments/kd_pruning.py         # a few minutes on two busy cores

All students of one size of training set (scores x weights of the teacher x labels x seeds) are trained at once. A
size that is on disk already is not run again (``--fresh`` does).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
import measure

from jgd import losses
from jgd.core import Examples, ensemble, from_linen, in_memory, objective, train
from jgd.data import digits_images, noisy_labels
from jgd.distill.probes import labelled, probes
from jgd.distill.pruning import el2n, keep, random
from jgd.nn import Perceptron

FRACTIONS = (0.02, 0.05, 0.1, 0.3, 0.5)
ALPHAS = (0.0, 0.3, 0.7, 1.0)
SCORES = ("random", "el2n", "forgetting")
LABELS = {"clean": 0.0, "noisy": 0.2}
SEEDS = 4
TRAIN, STEPS, BATCH, TEMPERATURE = 1200, 600, 64, 4.0
NETS = {"big": Perceptron(10, (128,)), "small": Perceptron(10, (16,))}
TX = optax.adamw(2e-3, weight_decay=1e-2)
SHORT = 100  # steps of the nets for EL2N

# What a separate implementation measured: labels, fraction -> score -> alpha 0, .3, .7, 1, and 1 of the small teacher
KNOWN: dict[tuple[str, float], dict[str, tuple[float, ...]]] = {
    ("clean", 0.02): {"random": (69.9, 83.9, 84.4, 84.8, 85.0)},
    ("clean", 0.1): {"random": (91.3, 95.8, 95.9, 95.9, 94.2), "el2n": (71.5, 95.4, 95.7, 95.7, 93.8)},
    ("clean", 0.5): {"random": (97.3, 98.1, 98.1, 97.9, 95.7), "el2n": (98.2, 98.1, 98.0, 98.0, 96.1)},
    ("noisy", 0.05): {"random": (64.3, 76.0, 78.9, 82.6, 88.6), "el2n": (1.0, 21.7, 47.7, 71.3, 83.5)},
    ("noisy", 0.1): {"random": (77.8, 86.1, 88.3, 90.5, 91.9), "el2n": (0.9, 26.3, 57.1, 81.6, 90.0)},
    ("noisy", 0.3): {"random": (83.6, 89.4, 91.7, 94.1, 92.8), "el2n": (16.0, 43.6, 76.7, 91.1, 92.9)},
}
KNOWN_TEACHERS = {"clean": {"big": 98.3, "small": 95.8}, "noisy": {"big": 94.1, "small": 92.3}}


@cache
def digits():
    """1200 digits to train on, 597 to test on."""
    return digits_images(TRAIN, seed=0)


class Prepared(NamedTuple):
    """What students of one labelling and seed need: labels, scores, and a teacher's logits by its size."""

    labels: np.ndarray
    scores: dict[str, np.ndarray]
    logits: dict[str, np.ndarray]
    accuracy: dict[str, float]


@lru_cache
def prepared(kind: str, seed: int) -> Prepared:
    """Teachers, and scores by the same labels that teachers and students see."""
    task = noisy_labels(digits(), LABELS[kind], seed) if LABELS[kind] else digits()
    y = labelled(task).targets
    k_random, k_short, k_teacher = jax.random.split(jax.random.fold_in(jax.random.key(7), seed), 3)
    teachers = {
        name: probes(k_teacher, net, task, TX, members=1, steps=STEPS, batch=BATCH)
        for name, net in NETS.items()
    }
    short = probes(k_short, NETS["big"], task, TX, members=10, steps=SHORT, batch=BATCH)
    scores = {
        "random": random(k_random, TRAIN),
        "el2n": el2n(short.outputs.logits, y),
        "forgetting": teachers["big"].forgetting[0],
    }
    return Prepared(
        np.asarray(y),
        {name: np.asarray(value) for name, value in scores.items()},
        {name: np.asarray(found.outputs.logits[0]) for name, found in teachers.items()},
        {name: float(tested(found.nets)[0]) for name, found in teachers.items()},
    )


def tested(nets: Any) -> np.ndarray:
    """Test accuracy of each of several networks."""
    task = digits()
    test = np.asarray(task.test)
    return np.asarray(_accuracy(nets, jnp.asarray(task.x[test]), jnp.asarray(np.asarray(task.y)[test])))


@jax.jit
def _accuracy(nets, x, y):
    return jax.vmap(lambda net: jnp.mean(jnp.argmax(net(x).logits, -1) == y))(nets)


class Member(NamedTuple):
    """The data of a student: inputs of all examples, and of those it keeps position, label and teacher's logits."""

    x: Any
    index: Any
    labels: Any
    teacher: Any
    alpha: Any


@lru_cache
def students(members: int):
    """Students that are trained at once, each with its own examples and weight of the teacher."""

    def prepare(key, t, data, batch):
        pick = jax.random.randint(key, (BATCH,), 0, data.index.shape[0])
        x = data.x[data.index[pick]]
        return Examples((x,), data.labels[pick], None, pick), {"model": (x,)}

    def loss(ctx):
        teacher = ctx.examples.teacher[ctx.batch.index]
        student = ctx.outputs["model"].logits
        return losses.mean(
            losses.hinton_loss(
                student, teacher, ctx.batch.targets, alpha=ctx.examples.alpha, temperature=TEMPERATURE
            )
        )

    alg = train(from_linen(NETS["big"]), objective(loss), TX, prepare=prepare)
    return ensemble(alg, members, data_axis=Member(None, 0, 0, 0, 0))


def trained(fraction: float, settings: list[tuple[str, str, str, float]], steps: int) -> list[dict[str, Any]]:
    """Rows of test accuracy for (labels, score, teacher, alpha), of all seeds."""
    members, rows = [], []
    for kind, score, teacher, alpha in settings:
        for seed in range(SEEDS):
            given = prepared(kind, seed)
            index = np.arange(TRAIN) if fraction == 1 else keep(given.scores[score], fraction)
            members.append((index, given.labels[index], given.logits[teacher][index], np.float32(alpha)))
    x = jnp.asarray(np.asarray(digits().x)[np.asarray(digits().train)])
    data = Member(x, *(jnp.asarray(np.stack(part)) for part in zip(*members, strict=True)))
    nets = in_memory("students", students(len(members)), jax.random.key(11), data, steps)
    found = tested(nets).reshape(len(settings), SEEDS)
    for setting, test in zip(settings, found, strict=True):
        rows.append(
            dict(zip(("labels", "score", "teacher", "alpha"), setting, strict=True)) | {"test": test.tolist()}
        )
    return rows


def grid(scores=SCORES) -> list[tuple[str, str, str, float]]:
    """Every weight with the big teacher, the small teacher alone."""
    pairs = [("big", a) for a in ALPHAS] + [("small", 1.0)]
    return [(kind, score, *pair) for kind in LABELS for score in scores for pair in pairs]


def teachers() -> dict[str, Any]:
    """Accuracy of the teachers, and how many of the wrong labels a score would keep first."""
    record: dict[str, Any] = {}
    for kind in LABELS:
        given = [prepared(kind, seed) for seed in range(SEEDS)]
        record[kind] = {name: [g.accuracy[name] for g in given] for name in NETS}
        if LABELS[kind]:
            clean = np.asarray(digits().y)[np.asarray(digits().train)]
            record["wrong labels kept, %"] = {
                score: {
                    str(f): float(
                        100 * np.mean([(g.labels != clean)[keep(g.scores[score], f)].mean() for g in given])
                    )
                    for f in FRACTIONS
                }
                for score in SCORES
            }
    return record


def parts() -> dict[str, Any]:
    """What is measured, by name."""

    def timed(fraction, settings, steps):
        start = time.perf_counter()
        rows = trained(fraction, settings, steps)
        return {"steps": steps, "rows": rows, "seconds": time.perf_counter() - start}

    def equal_epochs():
        few = [(kind, "random", "big", alpha) for kind in LABELS for alpha in (0.0, 1.0)]
        return {str(f): timed(f, few, max(1, round(STEPS * f))) for f in FRACTIONS}

    found: dict[str, Any] = {"teachers": teachers}
    for f in FRACTIONS:
        found[str(f)] = lambda f=f: timed(f, grid(), STEPS)
    found["1.0"] = lambda: timed(1.0, grid(("random",)), STEPS)
    return found | {"equal epochs": equal_epochs}


def mean_of(record: dict[str, Any], fraction: float, *setting: Any) -> float:
    """Mean test accuracy in percent of (labels, score, teacher, alpha)."""
    wanted = dict(zip(("labels", "score", "teacher", "alpha"), setting, strict=True))
    rows = record[str(fraction)]["rows"]
    return 100 * float(np.mean(next(r["test"] for r in rows if wanted.items() <= r.items())))


def verdicts(record: dict[str, Any]) -> dict[str, dict[str, float]]:
    """For each criterion its cases, as margins in points: what is positive passes."""

    def at(*setting):
        return mean_of(record, *setting)

    small, tiny = [f for f in FRACTIONS if f <= 0.1], [f for f in FRACTIONS if f <= 0.05]
    best = {f: max(ALPHAS, key=lambda a: at(f, "noisy", "random", "big", a)) for f in small}
    return {
        "distillation (α = 1, random) gains at least 10 points at f ≤ .05": {
            f"{kind}, f = {f}": at(f, kind, "random", "big", 1.0) - at(f, kind, "random", "big", 0.0) - 10
            for kind in LABELS
            for f in tiny
        },
        "random is no worse than EL2N-hard at f ≤ .1": {
            f"{kind}, f = {f}, α = {a:g}": at(f, kind, "random", "big", a) - at(f, kind, "el2n", "big", a)
            for kind in LABELS
            for f in small
            for a in ALPHAS
        },
        "with wrong labels α = 1 is best at f ≤ .1 (random)": {
            f"f = {f}": at(f, "noisy", "random", "big", 1.0)
            - max(at(f, "noisy", "random", "big", a) for a in ALPHAS if a < 1)
            for f in best
        },
        "with wrong labels the small teacher is better at f ≤ .1 (random)": {
            f"f = {f}": at(f, "noisy", "random", "small", 1.0) - at(f, "noisy", "random", "big", 1.0)
            for f in small
        },
        "with wrong labels the small teacher is worse at f ≥ .3 (random)": {
            f"f = {f}": at(f, "noisy", "random", "big", 1.0) - at(f, "noisy", "random", "small", 1.0)
            for f in FRACTIONS
            if f >= 0.3
        },
    }


def markdown(record: dict[str, Any]) -> str:
    """The result as a page."""
    lines = [
        "# Distillation on a pruned training set\n",
        measure.described(record["provenance"]),
        "",
        f"Test accuracy in %, mean ± deviation over {SEEDS} seeds, beside what a separate implementation measured (in "
        f"brackets). Digits of scikit-learn, {TRAIN} to train on and 597 to test on; students and the big teacher have "
        f"128 hidden units, the small one 16; {STEPS} AdamW steps on batches of {BATCH} drawn with replacement, however "
        f"few examples are kept; T = {TEMPERATURE:g}. Teachers see all training examples. With noisy labels 20 % have "
        "another class than their own, drawn anew for each seed (in the other implementation they were drawn at random); "
        f"scores see the same labels. EL2N is of 10 nets after {SHORT} steps, forgetting of the teacher's training. No "
        "setting was chosen by these numbers.",
    ]
    header = ["f", "kept", *(f"α = {a:g}" for a in ALPHAS), "α = 1, small teacher"]
    for kind in LABELS:
        sizes = ", ".join(
            f"{name} {100 * np.mean(record['teachers'][kind][name]):.1f} ({KNOWN_TEACHERS[kind][name]})"
            for name in NETS
        )
        rows = []
        for f in (*FRACTIONS, 1.0):
            for score in SCORES if f < 1 else ("random",):
                known = KNOWN.get((kind, f), {}).get(score)
                cells = []
                for i, (teacher, alpha) in enumerate([*(("big", a) for a in ALPHAS), ("small", 1.0)]):
                    tests = next(
                        r["test"]
                        for r in record[str(f)]["rows"]
                        if (r["labels"], r["score"], r["teacher"], r["alpha"])
                        == (kind, score, teacher, alpha)
                    )
                    cell = f"{100 * np.mean(tests):.1f} ± {100 * np.std(tests):.1f}"
                    cells.append(cell if known is None else f"{cell} ({known[i]})")
                rows.append([f"{f:g}", score if f < 1 else "all", *cells])
        lines.append(f"\n## Labels {kind}; teachers: {sizes}\n\n{measure.table(header, rows)}")
    wrong = record["teachers"]["wrong labels kept, %"]
    rows = [[score, *(f"{wrong[score][str(f)]:.0f}" for f in FRACTIONS)] for score in SCORES]
    lines.append(
        f"\n## Wrong labels among those kept, %\n\n{measure.table(['kept', *(f'f = {f:g}' for f in FRACTIONS)], rows)}"
    )
    rows = []
    for f in FRACTIONS:
        part = record["equal epochs"][str(f)]
        cells = [f"{100 * np.mean(r['test']):.1f} ± {100 * np.std(r['test']):.1f}" for r in part["rows"]]
        rows.append([f"{f:g}", str(part["steps"]), *cells])
    names = [f"{kind}, α = {a}" for kind in LABELS for a in (0, 1)]
    lines.append(
        "\n## Equal epochs instead of equal steps, random\n\n" + measure.table(["f", "steps", *names], rows)
    )
    lines.append(
        "\n## Claims\n\nMeans of the seeds are compared; in brackets, the points that a case is short of the claim. Where that "
        "is less than the deviations in the table, it says nothing either way.\n"
    )
    for claim, cases in verdicts(record).items():
        failed = {case: margin for case, margin in cases.items() if margin < 0}
        verdict = "holds" if not failed else f"fails in {len(failed)} of {len(cases)} cases"
        details = "" if not failed else ": " + "; ".join(f"{c} ({m:+.1f})" for c, m in failed.items())
        lines.append(f"- {claim}: **{verdict}**{details}.")
    full = {kind: mean_of(record, 1.0, kind, "random", "big", 0.0) for kind in LABELS}
    half = {kind: max(mean_of(record, 0.5, kind, "random", "big", a) for a in ALPHAS[1:]) for kind in LABELS}
    lines.append(
        "- More than all examples without a teacher, from a random half with one: "
        + ", ".join(f"{kind} {half[kind]:.1f} against {full[kind]:.1f}" for kind in LABELS)
        + " (the best α by the test set, of three)."
    )
    seconds = sum(part["seconds"] for name, part in record.items() if name[0].isdigit())
    lines.append(f"\nTraining all students took {seconds:.0f} s, on a machine that others used too.")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is missing and write ``results/kd_pruning.{json,md}``."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--fresh", action="store_true", help="run everything again")
    options = parser.parse_args()
    path = measure.RESULTS / "kd_pruning.json"
    record = json.loads(path.read_text()) if path.exists() and not options.fresh else {}
    record.setdefault("provenance", {})
    measure.run_parts("kd_pruning", record, parts())
    measure.write("kd_pruning", record, markdown(record))


if __name__ == "__main__":
    main()
