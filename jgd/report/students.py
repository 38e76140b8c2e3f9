"""The page about students and what they were taught by."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from jgd.files import atomic_write
from jgd.protocols.compare_students import StudentComparison
from jgd.protocols.text import spread
from jgd.report.markup import Markup, el, inline_svg, join
from jgd.report.parts import (
    captioned,
    column,
    command_block,
    data_section,
    document,
    key_list,
    percent,
    seconds_text,
    set_table,
    setting_list,
)
from jgd.report.plots import BAR, HUES, INK, PAPER, Plot, theme

__all__ = ["plot_reliability", "plot_students", "write_student_report"]

_COLUMNS = 3


def plot_students(comparison: StudentComparison) -> Plot:
    """Test accuracy of each objective, and how often its students predict what the teacher does.

    Bars are means over seeds, error bars standard deviations; the dashed line is the teacher's accuracy.
    """
    rows = comparison.rows()
    names, places = [row["name"] for row in rows], np.arange(len(rows))
    with theme():
        figure = Plot(figsize=(9.4, 0.3 * len(rows) + 1.1), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        _bars(left, rows, "accuracy", "test accuracy, %")
        left.axvline(100 * rows[0]["accuracy"].mean(), color=INK, linewidth=0.9, dashes=(4, 2.5), zorder=3)
        _bars(right, rows, "agreement", "agreement with the teacher, %")
        left.set_yticks(places, names)
        left.set_ylim(len(rows) - 0.4, -0.6)
        return figure


def _bars(ax: Axes, rows: list[dict[str, Any]], what: str, label: str) -> None:
    shown = [(i, row[what]) for i, row in enumerate(rows) if what in row]
    means = np.array([100 * v.mean() for _, v in shown])
    spreads = [100 * v.std() for _, v in shown]
    at = [i for i, _ in shown]
    fills = [PAPER if i == 0 else BAR for i in at]
    ax.barh(at, means, height=0.66, color=fills, edgecolor=[INK if i == 0 else "none" for i in at], zorder=2)
    ax.errorbar(means, at, xerr=spreads, fmt="none", ecolor=INK, elinewidth=0.9, capsize=2.5, zorder=4)
    low = max(0.0, 10 * np.floor((np.min(means - spreads) - 5) / 10))
    ax.set(xlim=(low, 100), xlabel=label)
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for i, mean, deviation in zip(at, means, spreads, strict=True):
        ax.annotate(
            f"{mean:.1f} ± {deviation:.1f}",
            (1.02, i),
            xycoords=("axes fraction", "data"),
            va="center",
            annotation_clip=False,
        )
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x", zorder=0)
    ax.set_axisbelow(True)


def plot_reliability(comparison: StudentComparison) -> Plot:
    """How often predictions of some confidence are right: on the diagonal where a network is calibrated.

    A panel for the teacher and each objective, over the students of all seeds; the size of a mark is the
    share of the predictions.
    """
    panels = {"teacher": comparison.teacher_bins, **comparison.bins}
    rows = -(-len(panels) // _COLUMNS)
    with theme():
        columns = min(_COLUMNS, len(panels))
        figure = Plot(figsize=(3.1 * columns, 2.6 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for ax in axes[len(panels) :]:
            ax.remove()
        for i, (ax, (name, bins)) in enumerate(zip(axes, panels.items(), strict=False)):
            share = np.asarray(bins.share)
            used = share > 0
            ax.plot([0, 1], [0, 1], color=INK, linewidth=0.8, dashes=(4, 2.5), zorder=1)
            ax.plot(
                np.asarray(bins.confidence)[used], np.asarray(bins.accuracy)[used], color=HUES[0], zorder=2
            )
            ax.scatter(
                np.asarray(bins.confidence)[used],
                np.asarray(bins.accuracy)[used],
                s=6 + 160 * share[used],
                color=HUES[0],
                edgecolor=PAPER,
                linewidth=0.5,
                zorder=3,
            )
            ece = _ece(comparison, name)
            ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), title=f"{name}, ECE {100 * ece:.1f}")
            ax.grid()
            ax.set_axisbelow(True)
            if i % columns == 0:
                ax.set_ylabel("accuracy")
            if i + columns >= len(panels):
                ax.set_xlabel("confidence")
                ax.tick_params(labelbottom=True)
        return figure


def _ece(comparison: StudentComparison, name: str) -> float:
    scores = comparison.teacher if name == "teacher" else comparison.scores[name]
    return float(np.mean(np.asarray(scores.ece)))


def write_student_report(
    path: str | os.PathLike, comparison: StudentComparison, *, command: str = ""
) -> Path:
    """Write a comparison of objectives as a single HTML file, whole or not at all.

    Args:
      path: of the file; folders are made.
      comparison: what `jgd.protocols.compare_students` returned.
      command: what was typed, for the record.
    """
    metrics = comparison.metrics(command=command)
    rows = comparison.rows()
    best = max(rows[1:], key=lambda row: row["accuracy"].mean())
    count = len(rows) - 1
    page = document(
        f"{count} objective{'s' if count > 1 else ''} of distillation on {comparison.dataset or 'a task'}",
        f"Students that learned by {best['name']} are right on {percent(best['accuracy'].mean())} of the "
        f"test examples, the teacher on {percent(rows[0]['accuracy'].mean())}.",
        key_list(
            {
                "Best students": (percent(best["accuracy"].mean()), best["name"]),
                "Teacher": (percent(rows[0]["accuracy"].mean()), "test accuracy"),
                "Agreement": (percent(best["agreement"].mean()), "of the best students with the teacher"),
                "Students": (f"{len(best['accuracy'])}", "of each objective, trained at once"),
            }
        ),
        {
            "results": ("Results", _table(rows)),
            "accuracy": ("Accuracy and agreement", _accuracy(comparison)),
            "calibration": ("Calibration", _calibration(comparison)),
            "run": ("What was run", _run(metrics)),
            "data": ("The numbers as data", data_section(metrics)),
        },
        version=comparison.versions.get("jgd", ""),
    )
    with atomic_write(path, "w") as file:
        file.write(page)
    return Path(path)


def _table(rows: list[dict[str, Any]]) -> Markup:
    def of(name: str, scale: float, digits: int, **which: bool) -> list[Markup]:
        def show(row):
            return spread(row[name], scale, digits) if name in row else "–"

        return column(rows, show, lambda row: row[name].mean() if name in row else None, **which)

    columns = [
        of("accuracy", 100.0, 1, largest=True),
        of("ece", 100.0, 1),
        of("nll", 1.0, 3),
        of("brier", 1.0, 3),
        of("agreement", 100.0, 1, largest=True),
        column(rows, lambda row: seconds_text(row["seconds"])),
    ]
    heads = ("", "Accuracy, %", "ECE, %", "NLL", "Brier", "Agreement, %", "Seconds")
    head = el("thead", el("tr", *(el("th", text, scope="col") for text in heads)))
    note = (
        "Mean ± standard deviation over students, on the test examples. Seconds: to train all students of a "
        "row at once, compilation included. Bold with an asterisk: best of the objectives."
    )
    return set_table(
        rows,
        columns,
        head,
        whole="teacher",
        method="",
        note=note,
        caption="Students by objective, the teacher first",
    )


def _accuracy(comparison: StudentComparison) -> Markup:
    def told(row: Mapping[str, Any]) -> str:
        return f"{row['name']} {spread(row['accuracy'])} %"

    title = "Test accuracy by objective, and agreement with the teacher"
    return _figure(
        1,
        plot_students,
        comparison,
        "students-plot",
        title,
        f"Two bar charts. {'; '.join(map(told, comparison.rows()))}.",
        "Test accuracy (left) and the share of test examples on which a student predicts what the teacher "
        "does (right). Bars and numbers: mean and standard deviation over students. Dashed: the teacher.",
    )


def _calibration(comparison: StudentComparison) -> Markup:
    names = ["teacher", *comparison.bins]
    told = "; ".join(f"{n}: expected calibration error {100 * _ece(comparison, n):.1f} %" for n in names)
    return _figure(
        2,
        plot_reliability,
        comparison,
        "reliability-plot",
        "Reliability diagrams",
        f"A line chart for the teacher and each objective, accuracy against confidence. {told}.",
        "Accuracy of the predictions in fifteen bins of confidence, over the students of all seeds; the area "
        "of a mark is the share of predictions. On the dashed line a network is right as often as it says.",
    )


def _figure(
    number: int,
    plot: Callable,
    comparison: StudentComparison,
    name: str,
    title: str,
    description: str,
    caption: str,
) -> Markup:
    svg = inline_svg(plot(comparison), name, title=title, description=description)
    return captioned(number, svg, title, caption)


def _run(metrics: Mapping[str, Any]) -> Markup:
    text = (
        "Every objective trains the same student from the same keys, with the same teacher, data, order of "
        "the examples and optimiser. The last state is tested unless a selection is among the settings."
    )
    return join(
        el("h3", "Command"), command_block(metrics["command"]),
        el("h3", "Protocol"), el("p", text), setting_list(metrics["settings"]),
        el("h3", "Versions and device"), setting_list(metrics["versions"]),
    )  # fmt: skip
