"""Plots of a comparison, as figures that notebooks show and the report embeds.

Every class and every set of nodes is told apart by shape or dashes as well as by colour; the colours are
those of Okabe and Ito and three more, darkened for white and lightened for black (in the report).
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator
from sklearn.isotonic import isotonic_regression

from jgd.data.condensed import Condensed
from jgd.data.tasks import NodeTask
from jgd.protocols.compare import Comparison
from jgd.protocols.compare_graphs import GraphComparison
from jgd.protocols.evaluate import NETWORKS, Score
from jgd.protocols.sweep import MethodComparison, Row
from jgd.report.geometry import classes_of, edges_of, positions, project, spread

__all__ = [
    "Plot",
    "curve",
    "network_title",
    "plot_accuracy",
    "plot_condensed",
    "plot_curves",
    "plot_methods",
]

INK, MUTED, RULE, PAPER, BAR = "#1f2328", "#5f6670", "#d9dce1", "#fffffe", "#b4bac5"
HUES = (
    "#0072b2", "#d55e00", "#009e73", "#c9689b", "#c78500",
    "#56b4e9", "#857300", "#474e57", "#6f42a8", "#8f1f3f",
)  # fmt: skip
_ON_BLACK = (
    "#4ea8e0", "#ff8c52", "#2ccb9c", "#e59cc6", "#f0b93f",
    "#a9dcf7", "#efe35a", "#c6ccd4", "#ab8cf0", "#e2607d",
)  # fmt: skip
DARK = {
    INK: "#e6e8eb",
    MUTED: "#a3abb6",
    RULE: "#383e47",
    PAPER: "#14171a",
    BAR: "#626b78",
    **dict(zip(HUES, _ON_BLACK, strict=True)),
}
"""The palette, each colour with what it becomes on black."""

_MARKERS = "os^DvPX<>"  # of another length than HUES, so that pairs repeat late
_DASHES = ((4, 1.5), (1, 1.2), (6, 1.5, 1, 1.5), (8, 2), (3, 1, 1, 1, 1, 1))
_THEME: dict[str, Any] = {
    "axes.edgecolor": MUTED,
    "axes.facecolor": PAPER,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "figure.facecolor": PAPER,
    "font.size": 9,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "savefig.facecolor": "auto",
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,  # names are what they are, with dollar signs too
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "xtick.major.size": 2.5,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "ytick.major.size": 2.5,
}

MOST_EDGES = 300
MOST_NODES = 1000
MOST_POINTS = 2000
_COLUMNS = 3  # of panels
_MOST_CLASSES = 20  # in a legend


class Plot(Figure):
    """A figure that notebooks show without pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        with theme():
            self.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


def theme():
    """A context in which figures are made and saved; Matplotlib's settings are as before afterwards."""
    return style.context(["default", _THEME])


def network_title(model: str) -> str:
    """An architecture as people write it: ``"sage"`` is GraphSAGE."""
    return NETWORKS[model].__name__ if model in NETWORKS else model


def curve(score: Score) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Epochs at which somebody looked at the validation nodes, and the accuracies there."""
    values = np.asarray(score.curve, float).reshape(-1)
    seen = np.flatnonzero(np.isfinite(values))
    return seen + 1, values[seen]


def _panels(count: int, height: float) -> tuple[Plot, list[Axes]]:
    """A figure of ``count`` panels in rows of up to three, each of a height in inches."""
    columns = min(count, _COLUMNS)
    rows = math.ceil(count / columns)
    figure = Plot(figsize=({1: 5.6, 2: 8.2, 3: 9.4}[columns], height * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel().tolist()
    for extra in axes[count:]:
        extra.remove()
    return figure, axes[:count]


def _models(comparison: Comparison | GraphComparison) -> list[str]:
    return list(comparison.scores["full"])


# --- accuracies ---------------------------------------------------------------------------------


def plot_accuracy(comparison: Comparison | GraphComparison) -> Plot:
    """Test accuracy of every set and architecture: bars with standard deviations over seeds.

    Args:
      comparison: what `jgd.compare` returned.

    Returns:
      A figure with a panel for each architecture; the dashed line is the accuracy of the whole graph.
    """
    with theme():
        models, sets = _models(comparison), list(comparison.condensed)
        whole = "all graphs" if isinstance(comparison, GraphComparison) else "full graph"
        figure, panels = _panels(len(models), 0.27 * (len(sets) + 1) + 0.75)
        for i, (ax, model) in enumerate(zip(panels, models, strict=True)):
            scores = {name: comparison.scores[name][model] for name in ("full", *sets)}
            _accuracy_panel(ax, scores, comparison.method, whole)
            ax.set_title(network_title(model))
            ax.set_xlabel("test accuracy, %")
            ax.tick_params(axis="y", labelleft=i % _COLUMNS == 0)
        return figure


def _accuracy_panel(ax: Axes, scores: dict[str, Any], method: str, whole: str) -> None:
    rows = np.arange(len(scores))
    means = np.array([100 * score.test_mean for score in scores.values()])
    spreads = [100 * score.test_std for score in scores.values()]
    names = [whole if name == "full" else name for name in scores]
    fills = [{"full": PAPER, method: HUES[0]}.get(name, BAR) for name in scores]
    bars = ax.barh(rows, means, height=0.66, color=fills, zorder=2)
    bars[0].set(edgecolor=INK, linewidth=0.8)
    ax.errorbar(means, rows, xerr=spreads, fmt="none", ecolor=INK, elinewidth=0.9, capsize=2.5, zorder=4)
    ax.axvline(means[0], color=INK, linewidth=0.9, dashes=(4, 2.5), zorder=3)
    for row, score in zip(rows, scores.values(), strict=True):
        ax.annotate(
            f"{100 * score.test_mean:.1f} ± {100 * score.test_std:.1f}",
            (1.03, row),
            xycoords=("axes fraction", "data"),
            va="center",
            annotation_clip=False,
        )
    ax.set_yticks(rows, names)
    ax.set(xlim=(0, 100), ylim=(len(rows) - 0.4, -0.6), xticks=range(0, 101, 20))
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x", zorder=0)
    ax.set_axisbelow(True)


# --- learning curves ----------------------------------------------------------------------------


def plot_curves(comparison: Comparison) -> Plot:
    """Validation accuracy during training, where somebody looked, mean over seeds.

    Args:
      comparison: what `jgd.compare` returned.

    Returns:
      A figure with a panel for each architecture.
    """
    with theme():
        models, sets = _models(comparison), list(comparison.condensed)
        figure, panels = _panels(len(models), 2.7)
        looks = dict(zip(("full", *sets), _line_styles(["full", *sets], comparison.method), strict=True))
        for i, (ax, model) in enumerate(zip(panels, models, strict=True)):
            lines = {name: curve(comparison.scores[name][model]) for name in looks}
            _curve_panel(ax, lines, looks)
            ax.set_title(network_title(model))
            ax.set_ylabel("validation accuracy, %" if i % _COLUMNS == 0 else "")
        handles = [
            Line2D([], [], label="full graph" if name == "full" else name, **look)
            for name, look in looks.items()
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=4, handlelength=3)
        return figure


def _line_styles(names: list[str], method: str) -> list[dict[str, Any]]:
    known = {
        "full": {"color": INK, "linewidth": 1.3, "zorder": 3},
        method: {"color": HUES[0], "linewidth": 2.0, "zorder": 4},
    }
    others = [name for name in names if name not in known]
    for i, name in enumerate(others):
        hue, dashes = HUES[1 + i % (len(HUES) - 1)], _DASHES[i % len(_DASHES)]
        known[name] = {"color": hue, "linewidth": 1.3, "dashes": dashes, "zorder": 2}
    return [known[name] for name in names]


def _curve_panel(ax: Axes, lines: dict[str, Any], looks: dict[str, dict[str, Any]]) -> None:
    for name, (epochs, values) in lines.items():
        if len(epochs):
            marker = "o" if len(epochs) == 1 else None  # one look is a point
            ax.plot(epochs, 100 * values, marker=marker, **looks[name])
    if not any(len(epochs) for epochs, _ in lines.values()):
        ax.text(0.5, 0.5, "nobody looked", ha="center", va="center", color=MUTED, transform=ax.transAxes)
    ax.set_xlabel("epoch")
    ax.margins(x=0.02)
    ax.grid()
    ax.set_axisbelow(True)


# --- many methods -------------------------------------------------------------------------------


def plot_methods(comparison: MethodComparison) -> Plot:
    """Test accuracy of every method against the size of its sets and against the time to make them.

    Marks are means, bars standard deviations (over sets and networks of the accuracy, over sets of the time);
    a line joins the sizes of a method, whose name stands at its right end. The dashed line is the accuracy of
    networks trained on the whole graph. Both horizontal axes are logarithmic.

    Args:
      comparison: what `jgd.protocols.compare_methods` returned.

    Returns:
      A figure with a row of two panels for each architecture.
    """
    with theme():
        models = comparison.models
        height = max(3.1, 0.19 * len(comparison.methods) + 1.4)
        figure = Plot(figsize=(9.4, height * len(models)), layout="constrained")
        axes = figure.subplots(len(models), 2, squeeze=False, sharey="row")
        rows = [row for row in comparison.rows() if len(row.seconds)]
        for (left, right), model in zip(axes.tolist(), models, strict=True):
            _method_panel(left, comparison, rows, model, lambda row: (row.nodes, 0.0))
            _method_panel(right, comparison, rows, model, lambda row: row.time)
            left.set(xlabel="condensed nodes", ylabel=f"{network_title(model)} test accuracy, %")
            right.set(xlabel="seconds to make a set")
            _size_ticks(left, [row.nodes for row in rows])
            right.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}" if x >= 1 else f"{x:g}"))
            right.tick_params(labelleft=False)
        axes[0, 0].set_title("Against size")
        axes[0, 1].set_title("Against time")
        figure.draw_without_rendering()  # so that labels know where things are
        for ax in axes.ravel().tolist():
            _name_lines(ax)
        return figure


def _method_panel(
    ax: Axes,
    comparison: MethodComparison,
    rows: list[Row],
    model: str,
    where: Callable[[Row], tuple[float, float]],
) -> None:
    full = 100 * float(comparison.full[model].mean())
    ax.axhline(full, color=INK, linewidth=0.9, dashes=(4, 2.5), zorder=1)
    for i, name in enumerate(comparison.methods):
        own = [row for row in rows if row.method == name]
        if not own:
            continue
        (x, dx), (y, dy) = (
            np.asarray(v).T for v in ([where(r) for r in own], [r.accuracy(model) for r in own])
        )
        look = {"color": HUES[i % len(HUES)], "marker": _MARKERS[i % len(_MARKERS)], "markersize": 5}
        line, *_ = ax.plot(x, 100 * y, linewidth=1.2, zorder=3, label=name, **look)
        line.set(markeredgecolor=PAPER, markeredgewidth=0.5)
        low = np.minimum(dx, 0.9 * x)  # a logarithmic axis has no zero
        bars = {"fmt": "none", "ecolor": look["color"], "elinewidth": 0.8, "alpha": 0.75, "zorder": 2}
        ax.errorbar(x, 100 * y, yerr=100 * dy, xerr=[low, dx] if dx.any() else None, **bars)
    ax.set_xscale("log")
    _make_room(ax)
    ax.annotate(
        "full graph", (0.005, full), xycoords=("axes fraction", "data"), xytext=(0, 2.5), color=MUTED,
        textcoords="offset points", va="bottom",
    )  # fmt: skip
    ax.margins(y=0.08)
    ax.grid(axis="y")
    ax.set_axisbelow(True)


def _ends(ax: Axes) -> dict[str, tuple[Line2D, Float[np.ndarray, " 2"]]]:
    """The right end of each named line."""
    lines = [line for line in ax.get_lines() if not str(line.get_label()).startswith("_")]
    points = [np.asarray(line.get_xydata(), float) for line in lines]
    return {
        str(line.get_label()): (line, xy[np.argmax(xy[:, 0])]) for line, xy in zip(lines, points, strict=True)
    }


def _make_room(ax: Axes) -> None:
    """Widen a logarithmic axis until names fit beside the ends of lines; the dashed one ends before them."""
    ends = {name: math.log(end[0]) for name, (_, end) in _ends(ax).items()}
    if not ends:
        return
    low, high = np.log(ax.get_xlim()).tolist()
    widths = [(end - low) / max(0.97 - 0.02 * len(name), 0.3) for name, end in ends.items()]
    width = max(high - low, *widths)
    ax.set_xlim(math.exp(low), math.exp(low + width))
    ax.get_lines()[0].set_xdata([0, (max(ends.values()) - low) / width + 0.01])  # names stand clear of it


def _size_ticks(ax: Axes, sizes: list[float]) -> None:
    """Ticks at the sizes that there are, as far as their numbers have room."""
    kept: list[float] = []
    for size in sorted(set(sizes)):
        if not kept or size > 1.15 * kept[-1]:
            kept.append(size)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(kept, [f"{size:,.0f}" for size in kept])


_LINE, _LETTER = 10.5, 5.0  # height of a name and width of a letter, in points


def _name_lines(ax: Axes) -> None:
    """The name of each line beside its right end, with a thin leader where it had to move.

    Names of lines that end at the right stand in a column, pushed apart; others where they hide least.
    """
    found = _ends(ax)
    if not found:
        return
    scale = 72 / ax.figure.dpi  # pyright: ignore[reportOptionalMemberAccess]
    points = scale * ax.transData.transform([end for _, end in found.values()])
    (left, right), (low, high) = (scale * np.asarray(side) for side in (ax.bbox.intervalx, ax.bbox.intervaly))
    column = np.flatnonzero(points[:, 0] > points[:, 0].max() - 12)
    column = column if len(column) > 1 else column[:0]
    marks = np.concatenate(
        [
            _dense(scale * ax.transData.transform(np.asarray(line.get_xydata(), float)))
            for line, _ in found.values()
        ]
    )
    boxes = np.concatenate([marks - 3, marks + 3], axis=1)
    full = scale * ax.transData.transform([[1.0, float(np.asarray(ax.get_lines()[0].get_ydata())[0])]])[0, 1]
    boxes = np.append(boxes, [[left, full - 1, right, full + 1], [left, full, left + 50, full + 12]], axis=0)
    places = points.copy()
    if len(column):
        places[column, 0] += 12
        places[column, 1] = _apart(points[column, 1], _LINE, low, high)
    for i, name in enumerate(found):
        width = _LETTER * len(name)
        if i not in column:
            places[i] = _free_place(points[i], width, boxes, (left, low, right, high))
        x, y = places[i]
        boxes = np.append(boxes, [[x, y - _LINE / 2, x + width, y + _LINE / 2]], axis=0)
    for (name, (line, end)), point, place in zip(found.items(), points, places, strict=True):
        shift = place - point
        far = bool(np.hypot(*np.maximum(np.abs(shift) - [7, 0], 0)) > 5)
        leader = {"arrowstyle": "-", "color": line.get_color(), "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
        note = ax.annotate(
            name,
            (float(end[0]), float(end[1])),
            xytext=(float(shift[0]), float(shift[1])),
            textcoords="offset points",
            va="center",
            arrowprops={**leader, "relpos": (0 if shift[0] >= 0 else 1, 0.5)} if far else None,
            annotation_clip=False,
            zorder=5,
        )
        note.set_in_layout(False)


def _dense(points: Float[np.ndarray, "k 2"]) -> Float[np.ndarray, "m 2"]:
    """Points along the line that joins some, a few units apart."""
    parts = [np.linspace(a, b, 2 + int(np.hypot(*(b - a)) / 6)) for a, b in itertools.pairwise(points)]
    return np.concatenate([points, *parts])


def _free_place(
    point: Float[np.ndarray, " 2"],
    width: float,
    taken: Float[np.ndarray, "n 4"],
    frame: tuple[float, float, float, float],
) -> Float[np.ndarray, " 2"]:
    """The nearest of a few places for a name (its left end, middle) that hides least and is in a frame."""
    shifts = [
        (x, y)
        for y in (0, 9, -9, 20, -20, 31, -31, 42, -42)
        for x in (7.0, -width / 2, -width - 7.0)
        if x == 7 or y
    ]
    shifts.append((-width - 7.0, 0))
    left, low, right, high = frame

    def cost(shift):
        x, y = point + shift
        box = np.asarray([x, y - _LINE / 2, x + width, y + _LINE / 2])
        inside = box[0] >= left and box[1] >= low and box[2] <= right and box[3] <= high
        wide = np.minimum(box[2], taken[:, 2]) - np.maximum(box[0], taken[:, 0])
        tall = np.minimum(box[3], taken[:, 3]) - np.maximum(box[1], taken[:, 1])
        return int(np.sum((wide > 0) & (tall > 0))) + (0 if inside else 3)

    return point + min(sorted(shifts, key=lambda s: np.hypot(*s) + (s[0] < 0)), key=cost)


def _apart(values: Float[np.ndarray, " n"], gap: float, low: float, high: float) -> Float[np.ndarray, " n"]:
    """Heights near the given ones, in the same order, at least ``gap`` apart, within limits where they fit.

    The least squares solution is isotonic regression of the heights less their share of the gaps.
    """
    order = np.argsort(values, kind="stable")
    steps = gap * np.arange(len(values))
    room = max(high - low - steps[-1], 0.0)
    fitted = np.clip(isotonic_regression(values[order] - steps), low, low + room)
    result = np.empty_like(values)
    result[order] = fitted + steps
    return result


# --- the condensed graph ------------------------------------------------------------------------


def plot_condensed(what: Comparison | tuple[NodeTask, Condensed]) -> Plot:
    """The condensed graph, and its features among those of the original.

    Left the condensed nodes with their strongest edges, wider where heavier. Right the features ``Â²X`` of
    both graphs, each scaled to a mean squared norm of one, on the two principal components of the original:
    small dots are original nodes (evenly spaced ones where there are many), large markers condensed nodes.

    Args:
      what: what `jgd.compare` returned, or a task and a condensed set.

    Returns:
      A figure of two panels.
    """
    task, small = (what.task, what.small) if isinstance(what, Comparison) else what
    classes = classes_of(small.targets)
    with theme():
        figure = Plot(figsize=(9.4, 4.9), layout="constrained")
        left, right = figure.subplots(1, 2)
        _graph_panel(left, small, classes)
        _feature_panel(right, task, small, classes)
        handles = _class_handles(np.unique(np.concatenate([classes, classes_of(task.labels)])))
        figure.legend(handles=handles, loc="outside lower center", ncols=11, columnspacing=1.2)
        return figure


def _hue(c: int) -> str:
    return BAR if c < 0 else HUES[c % len(HUES)]


def _marker(c: int) -> str:
    return _MARKERS[c % len(_MARKERS)]


def _class_handles(present: np.ndarray) -> list[Line2D]:
    look = {"linestyle": "none", "markersize": 6, "markeredgecolor": INK, "markeredgewidth": 0.5}
    shown = [c for c in present.tolist() if c >= 0]
    handles = [
        Line2D([], [], marker=_marker(c), color=_hue(c), label=f"class {c}", **look)
        for c in shown[:_MOST_CLASSES]
    ]
    if len(shown) > _MOST_CLASSES:
        label = f"and {len(shown) - _MOST_CLASSES} more"
        handles.append(Line2D([], [], linestyle="none", label=label))
    if np.any(present < 0):
        handles.append(Line2D([], [], marker=".", color=BAR, linestyle="none", label="no label"))
    return handles


def _condensed_markers(ax: Axes, place: np.ndarray, classes: np.ndarray, size: float) -> None:
    for c in np.unique(classes).tolist():
        x, y = place[classes == c].T
        look = {"marker": _marker(c), "s": size, "color": _hue(c), "edgecolors": INK, "linewidths": 0.5}
        ax.scatter(x, y, zorder=3, **look)


def _graph_panel(ax: Axes, small: Condensed, classes: np.ndarray) -> None:
    edges = edges_of(small, MOST_EDGES)
    place = positions(edges, classes)
    if len(edges.pairs):
        strength = edges.weights / edges.weights.max()
        lines = LineCollection(place[edges.pairs].tolist(), linewidths=0.3 + 2.2 * strength, color=MUTED)
        lines.set(alpha=0.55, zorder=1)
        ax.add_collection(lines)
    shown = spread(len(classes), MOST_NODES)
    _condensed_markers(ax, place[shown], classes[shown], size=float(np.clip(4000 / len(shown), 9, 60)))
    ax.set_title("Condensed graph" if len(edges.pairs) else "Condensed nodes (no edges)")
    ax.set(xticks=[], yticks=[], xlim=(-1.08, 1.08), ylim=(-1.08, 1.08))
    ax.spines[:].set_visible(False)


def _feature_panel(ax: Axes, task: NodeTask, small: Condensed, classes: np.ndarray) -> None:
    plane = project(task, small)
    shown = spread(task.num_nodes, MOST_POINTS)
    colors = [_hue(c) for c in classes_of(task.labels)[shown].tolist()]
    ax.scatter(*plane.original[shown].T, s=5, c=colors, linewidths=0, alpha=0.45, zorder=1)
    _condensed_markers(ax, plane.condensed, classes, size=float(np.clip(4000 / len(classes), 9, 60)))
    ax.set_title("Propagated features of both graphs")
    ax.set(**_frame(plane.original, plane.condensed))
    for axis, label, share in zip("xy", ("first", "second"), plane.explained, strict=True):
        ax.set(**{f"{axis}label": f"{label} principal component ({100 * share:.0f} % of the variance)"})
        ax.set(**{f"{axis}ticks": []})


def _frame(original: np.ndarray, condensed: np.ndarray) -> dict[str, tuple[float, float]]:
    """Limits that hold the middle 99 % of the original points along each axis and all condensed ones."""
    low = np.minimum(np.quantile(original, 0.005, axis=0), condensed.min(axis=0))
    high = np.maximum(np.quantile(original, 0.995, axis=0), condensed.max(axis=0))
    pad = np.maximum(0.05 * (high - low), 1e-6)
    (left, bottom), (right, top) = (low - pad).tolist(), (high + pad).tolist()
    return {"xlim": (left, right), "ylim": (bottom, top)}
