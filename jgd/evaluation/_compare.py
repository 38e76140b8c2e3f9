"""Condense a task, and compare with the whole training data and with baselines of the same size."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from typing import Any

import jax
from jaxtyping import Array

from jgd.condense import METHODS
from jgd.core import Loop, Recipe, in_memory
from jgd.evaluation._evaluate import FULL, evaluate
from jgd.evaluation.config import EvalConfig
from jgd.evaluation.kinds import kind_of
from jgd.evaluation.networks import network_title
from jgd.evaluation.scores import Scores
from jgd.registry import choose
from jgd.report import Column, Comparison, Picture, plot_bars, plot_curves
from jgd.report.page import percent, size_text

__all__ = ["METRIC_TITLES", "compare", "score_columns", "size_columns", "versions"]


def versions() -> dict[str, str]:
    """Return the versions of what the numbers depend on, and the device."""
    names = ("jgd", "jax", "jaxlib", "flax", "optax", "numpy", "scipy", "scikit-learn")
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in names},
        "device": device.platform if device.platform == device.device_kind else device.device_kind,
    }


def compare(
    recipe: Recipe,
    task: Any,
    *,
    key: Array,
    method: str = "condensed",
    baselines: Sequence[str] | None = None,
    networks: Sequence[str] | None = None,
    seeds: int = 5,
    config: EvalConfig | None = None,
    loop: Loop = in_memory,
    log: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Condense a task with a recipe, and evaluate it beside the whole data and baselines of its size.

    Args:
      recipe: The condenser.
      task: The original task.
      key: Random key.
      method: Name of the recipe in the results.
      baselines: Names of methods; by default those of the kind of data. The method itself is left out, and
        so is a baseline that cannot make a set of this size.
      networks: Architectures; by default the first of the kind of data.
      seeds: Networks of each architecture and set.
      config: How they are trained; by default as usual for the kind of data.
      loop: Runs the stages of the recipe.
      log: Called with one line before each step.

    Returns:
      A `jgd.report.Comparison` whose products are the condensed sets by name, that of the method first.

    Raises:
      ValueError: For an unknown name, or where the recipe refuses the task.
    """
    kind = kind_of(task)
    baselines = kind.baselines if baselines is None else baselines
    networks = tuple(networks or kind.networks[:1])
    config = kind.config if config is None else config
    for name in baselines:
        choose("baseline", name, METHODS.of_kind(kind.name))
    k_method, k_base, k_eval = jax.random.split(key, 3)
    seconds: dict[str, float] = {}

    def timed(name, fn):
        start = time.perf_counter()
        result = fn()
        seconds[name] = time.perf_counter() - start
        return result

    log(f"condensing {task.name} with {method}")
    condensed = {method: timed(method, lambda: recipe(k_method, task, loop=loop))}
    seconds["condense"] = seconds[method]
    size = kind.same_size(condensed[method], task)
    embeddings: list[Any] = []
    for i, name in enumerate(n for n in baselines if n != method):
        try:
            base, k = METHODS.official(name, task.name, **size), jax.random.fold_in(k_base, i)
            if kind.embedding is not None and hasattr(base, "select"):  # one network serves all of these
                if not embeddings:
                    log("training the network whose embeddings herding and k-center select by")
                    embeddings.append(timed("embedding", partial(kind.embedding, k_base, task, config)))
                condensed[name] = timed(name, lambda b=base, k=k: b.select(k, task, embeddings[0]))
            else:
                condensed[name] = timed(name, lambda b=base, k=k: b(k, task))
        except ValueError as error:  # a budget may be too small for an example of each class
            log(f"{name} is left out: {error}")

    start = time.perf_counter()
    log(f"evaluating {', '.join(networks)}: {seeds} seeds on {1 + len(condensed)} sets")
    sets = {FULL: task, **condensed}
    scores = evaluate(sets, task, networks=networks, seeds=seeds, key=k_eval, config=config)
    seconds["evaluate"] = time.perf_counter() - start
    distances = {
        what: {name: distance(task, small) for name, small in condensed.items()}
        for what, distance in kind.distances.items()
    }
    return _comparison(kind, task, method, condensed, scores, seconds, distances, config)


# --- what is shown ------------------------------------------------------------------------------

METRIC_TITLES = {"auc": "ROC-AUC"}
"""Metrics whose titles are not their names."""


def score_columns(networks: Sequence[Any], metrics: Sequence[str]) -> list[Column]:
    """Return the columns of test scores, whose keys are ``"<network>/<metric>"``.

    Args:
      networks: Architectures.
      metrics: Metrics.
    """
    columns = []
    for network in networks:
        for metric in metrics:
            title, name = METRIC_TITLES.get(metric, metric), network_title(network)
            group, inner = (f"Test {title}, %", name) if len(metrics) == 1 else (f"{name}, %", title)
            short = f"{name} %" if len(metrics) == 1 else f"{name} {title} %"
            key = f"{network}/{metric}"
            columns.append(Column(key, inner, 100, best="largest", group=group, short=short))
    return columns


def size_columns(sizes: Iterable[str]) -> list[Column]:
    """Return the columns of sizes: nodes, edges, bytes and the like.

    Args:
      sizes: Names of the sizes.
    """
    return [
        Column(k, "Size", "bytes", best="smallest") if k == "bytes" else Column(k, k.capitalize())
        for k in sizes
    ]


def _comparison(kind, task, method, condensed, scores, seconds, distances, config) -> Comparison:
    networks, metrics = scores.axes["network"], scores.axes["metric"]
    words, sizes = kind.words, {FULL: kind.size(task)}
    sizes |= {name: kind.size(small) for name, small in condensed.items()}
    rows = tuple(
        {
            "name": words.whole if name == FULL else name,
            **sizes[name],
            **{f"{n}/{m}": one[n][m].seeds() for n in networks for m in metrics},
            **{what: of.get(name) for what, of in distances.items()},
            "seconds": seconds.get(name),
            "reference": name == FULL,
            "stress": name == method,
        }
        for name, one in scores.items()
    )
    columns = (
        *size_columns(sizes[FULL]),
        *score_columns(networks, metrics),
        *(Column(what, what, 1, 4, "smallest", short=what.split()[0]) for what in distances),
        Column("seconds", "Seconds", "seconds"),
    )
    return Comparison(
        title=f"{task.name or 'The task'} condensed by {method}",
        headline=_headline(kind, task, method, scores, sizes),
        rows=rows,
        columns=columns,
        figures=(*_figures(kind, method, scores), *kind.figures(task, condensed[method])),
        record=_record(kind, task, method, condensed, scores, seconds, distances, config, sizes),
        facts=_facts(kind, method, condensed, scores, seconds, sizes),
        notes=_notes(kind, condensed, scores, seconds),
        protocol=words.protocol(task, config),
        products=condensed,
        scores=scores,
    )


def _difference(score: Scores, other: Scores) -> str:
    points = 100 * (score.test_mean - other.test_mean)
    if abs(points) < 0.05:
        return "the same as"
    return f"{abs(points):.1f} points {'above' if points > 0 else 'below'}"


def _text(score: Scores) -> str:
    return percent(score.test_mean, score.test_std)


def _headline(kind, task, method, scores, sizes) -> str:
    network, metric = scores.axes["network"][0], scores.axes["metric"][0]
    of = {name: one[network] for name, one in scores.items()}
    count = next(iter(sizes[FULL]))
    text = (
        f"Trained on the {sizes[method][count]:,} {count} that {method} made of the {sizes[FULL][count]:,} "
        f"of {task.name or 'the task'}, {network_title(network)} reaches {_text(of[method])} test "
        f"{METRIC_TITLES.get(metric, metric)}, {_difference(of[method], of[FULL])} the {_text(of[FULL])} "
        f"of the {kind.words.whole}"
    )
    others = {name: one for name, one in of.items() if name not in (FULL, method)}
    if others:
        best = max(others, key=lambda name: others[name].test_mean)
        named = "the baseline" if len(others) == 1 else f"the best of {len(others)} baselines of that size"
        text += f" and {_difference(of[method], of[best])} {named} ({best}, {_text(of[best])})"
    return f"{text}."


def _facts(kind, method, condensed, scores, seconds, sizes) -> dict[str, tuple[str, str]]:
    own, whole, network = sizes[method], sizes[FULL], scores.axes["network"][0]
    said = condensed[method].provenance
    ratios = {"label_ratio": "of the labelled", "node_ratio": "of all nodes", "graph_ratio": "of the graphs"}
    shares = [f"{percent(said[name])} {text}" for name, text in ratios.items() if name in said]
    factor = whole["bytes"] / max(1, own["bytes"])
    count = next(iter(own))
    return {
        count.capitalize(): (f"{own[count]:,} of {whole[count]:,}", ", ".join(shares)),
        "Size": (
            size_text(own["bytes"]),
            f"{factor:.3g} times smaller than {size_text(whole['bytes'])}"
            if factor >= 1
            else f"larger than the {size_text(whole['bytes'])} of the original",
        ),
        f"Test score, {network_title(network)}": (
            _text(scores[method][network]),
            f"{_text(scores[FULL][network])} with the {kind.words.whole}",
        ),
        "Time to condense": (
            f"{seconds['condense']:,.1f} s",
            f"{seconds['evaluate']:,.1f} s to evaluate all sets",
        ),
    }


def _notes(kind, condensed, scores, seconds) -> str:
    count = len(scores.axes["seed"])
    text = (
        f"Scores: mean ± standard deviation over {count} seed{'s' if count > 1 else ''}, on the test "
        f"examples. {kind.words.notes}".rstrip()
        + " Seconds: time to make the set."
    )
    if scores.once:
        text += f" {', '.join(scores.once)}: by the predictor that the set is meant for, whatever the column."
    if "embedding" in seconds:
        text += (
            " Not in the table is the time to train the network whose embeddings herding and k-center select "
            f"by: {seconds['embedding']:.1f} s."
        )
    return text


def _figures(kind, method, scores) -> list[Picture]:
    networks, whole = scores.axes["network"], kind.words.whole
    names = {name: whole if name == FULL else name for name in scores.axes["set"]}
    bars = {network_title(n): {names[name]: one[n].seeds() for name, one in scores.items()} for n in networks}
    values = "; ".join(
        f"{title}: " + ", ".join(f"{name} {percent(v.mean(), v.std())}" for name, v in panel.items())
        for title, panel in bars.items()
    )
    metric = METRIC_TITLES.get(scores.axes["metric"][0], scores.axes["metric"][0])
    curves = {
        network_title(n): {
            names[name]: scores.curves[name, n].score for name in names if (name, n) in scores.curves
        }
        for n in networks
    }
    return [
        Picture(
            "accuracy",
            f"Test {metric} of each set and architecture",
            f"Test {metric} of networks trained on each set. Error bars and numbers: standard deviation over "
            f"seeds. Dashed line: the {whole}.",
            partial(plot_bars, bars, label=f"test {metric}, %", reference=whole, stress=method),
            f"Bar chart, one panel for each architecture. {values}.",
        ),
        Picture(
            "curves",
            "Learning curves",
            "Score on the validation examples of the original data, which selects the state, while a network "
            "is trained on each set: mean over seeds, at the steps where it was measured.",
            partial(plot_curves, curves, label="validation score, %", reference=whole, stress=method),
        ),
    ]


def _record(kind, task, method, condensed, scores, seconds, distances, config, sizes) -> dict[str, Any]:
    """Return everything as plain JSON values; scores are fractions in 0..1."""

    def plain(name):
        return {str(label): one.summary() for label, one in scores[name].items()}

    said = condensed[method].provenance
    ratios = {name: said[name] for name in ("label_ratio", "node_ratio", "graph_ratio") if name in said}
    return {
        "dataset": task.name,
        "kind": kind.name,
        "setting": getattr(task, "setting", None),
        "method": method,
        "config": said.get("config", {}),
        **ratios,
        "seed": None,
        **sizes[method],
        "original": sizes[FULL],
        "sizes": sizes,
        "seconds": dict(seconds),
        "full": plain(FULL),
        "condensed": plain(method),
        "baselines": {name: plain(name) for name in condensed if name != method},
        "distances": {what: dict(of) for what, of in distances.items()},
        "evaluation": asdict(config),
        "versions": versions(),
        "command": "",
    }
