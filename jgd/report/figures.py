"""Plots as figures that notebooks show and the report embeds.

Every class and every line differs by shape or dashes as well as by colour; the colours are those of Okabe and
Ito and three more, darkened for white and lightened for black (in the report).
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
from sklearn.isotonic import isotonic_regression

from jgd.report.geometry import Edges, Projection, positions, thinned

__all__ = [
    "Line",
    "Plot",
    "plot_bars",
    "plot_condensed",
    "plot_curves",
    "plot_lines",
    "plot_reliability",
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

MOST_NODES = 1000
MOST_POINTS = 2000
_COLUMNS = 3  # of panels
_MOST_CLASSES = 20  # in a legend


class Plot(Figure):
    """Return a figure that notebooks show without pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        with theme():
            self.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


def theme():
    """Set the style of figures within a context; Matplotlib's settings are restored afterwards."""
    return style.context(["default", _THEME])


def _panels(count: int, height: float) -> tuple[Plot, list[Axes]]:
    """Make a figure of ``count`` panels in rows of up to three, each of a height in inches."""
    columns = min(count, _COLUMNS)
    rows = math.ceil(count / columns)
    figure = Plot(figsize=({1: 5.6, 2: 8.2, 3: 9.4}[columns], height * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel().tolist()
    for extra in axes[count:]:
        extra.remove()
    return figure, axes[:count]


# --- bars ---------------------------------------------------------------------------------------


def plot_bars(
    panels: Mapping[str, Mapping[str, Any]],
    *,
    label: str = "",
    reference: str = "",
    stress: str = "",
    low: float | None = 0.0,
) -> Plot:
    """Plot scores by name: bars with standard deviations.

    Args:
      panels: By title of the panel, numbers in 0..1 by name of the bar (one, or one for each seed).
      label: Label of the horizontal axes, where titles are not it.
      reference: Name of the bar whose mean is a dashed line.
      stress: Name of the bar in colour.
      low: Left end of the axes in %; None for somewhat less than the smallest bar.
    """
    with theme():
        names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
        figure, axes = _panels(len(panels), 0.27 * len(names) + 0.75)
        for i, (ax, (title, values)) in enumerate(zip(axes, panels.items(), strict=True)):
            _bar_panel(ax, names, values, reference, stress, low)
            ax.set_title(title)
            ax.set_xlabel(label)
            ax.tick_params(axis="y", labelleft=i % _COLUMNS == 0)
        return figure


def _bar_panel(
    ax: Axes, names: list[str], values: Mapping[str, Any], reference: str, stress: str, low: float | None
) -> None:
    shown = [(names.index(name), name, 100 * np.asarray(v, float)) for name, v in values.items()]
    rows = [row for row, _, _ in shown]
    means = np.array([v.mean() for _, _, v in shown])
    spreads = np.array([v.std() for _, _, v in shown])
    fills = [{reference: PAPER, stress: HUES[0]}.get(name, BAR) for _, name, _ in shown]
    edges = [INK if name == reference else "none" for _, name, _ in shown]
    ax.barh(rows, means, height=0.66, color=fills, edgecolor=edges, linewidth=0.8, zorder=2)
    ax.errorbar(means, rows, xerr=spreads, fmt="none", ecolor=INK, elinewidth=0.9, capsize=2.5, zorder=4)
    if reference in values:
        mean = 100 * float(np.mean(values[reference]))
        ax.axvline(mean, color=INK, linewidth=0.9, dashes=(4, 2.5), zorder=3)
    for row, mean, deviation in zip(rows, means, spreads, strict=True):
        ax.annotate(
            f"{mean:.1f} ± {deviation:.1f}",
            (1.03, row),
            xycoords=("axes fraction", "data"),
            va="center",
            annotation_clip=False,
        )
    least = max(0.0, 10 * np.floor((np.min(means - spreads) - 5) / 10)) if low is None else low
    ax.set_yticks(range(len(names)), names)
    ax.set(xlim=(least, 100), ylim=(len(names) - 0.4, -0.6))
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x", zorder=0)
    ax.set_axisbelow(True)


# --- learning curves ----------------------------------------------------------------------------


def plot_curves(
    panels: Mapping[str, Mapping[str, Any]], *, label: str, reference: str = "", stress: str = ""
) -> Plot:
    """Plot numbers in 0..1 against the step, where they were measured.

    Args:
      panels: By title of the panel, ``[steps]`` numbers by name of the line; NaN where not measured.
      label: Label of the vertical axes.
      reference: Name of the line in black.
      stress: Name of the thick line.
    """
    with theme():
        names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
        figure, axes = _panels(len(panels), 2.7)
        looks = dict(zip(names, _line_styles(names, reference, stress), strict=True))
        for i, (ax, (title, lines)) in enumerate(zip(axes, panels.items(), strict=True)):
            _curve_panel(ax, lines, looks)
            ax.set_title(title)
            ax.set_ylabel(label if i % _COLUMNS == 0 else "")
        handles = [Line2D([], [], label=name, **look) for name, look in looks.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=4, handlelength=3)
        return figure


def _line_styles(names: list[str], reference: str, stress: str) -> list[dict[str, Any]]:
    known = {
        reference: {"color": INK, "linewidth": 1.3, "zorder": 3},
        stress: {"color": HUES[0], "linewidth": 2.0, "zorder": 4},
    }
    others = [name for name in names if name not in known]
    for i, name in enumerate(others):
        hue, dashes = HUES[1 + i % (len(HUES) - 1)], _DASHES[i % len(_DASHES)]
        known[name] = {"color": hue, "linewidth": 1.3, "dashes": dashes, "zorder": 2}
    return [known[name] for name in names]


def _curve_panel(ax: Axes, lines: Mapping[str, Any], looks: dict[str, dict[str, Any]]) -> None:
    points = False
    for name, values in lines.items():
        values = np.asarray(values, float).reshape(-1)
        at = np.flatnonzero(np.isfinite(values))
        if len(at):
            points = True
            marker = "o" if len(at) == 1 else None  # a line of one point is a point
            ax.plot(at + 1, 100 * values[at], marker=marker, **looks[name])
    if not points:
        ax.text(0.5, 0.5, "not measured", ha="center", va="center", color=MUTED, transform=ax.transAxes)
    ax.set_xlabel("step")
    ax.margins(x=0.02)
    ax.grid()
    ax.set_axisbelow(True)


# --- scores against size and time ---------------------------------------------------------------


class Line(NamedTuple):
    """A method at several sizes.

    Attributes:
      size: ``[k]`` sizes of its sets.
      time: ``[k, 2]`` mean and standard deviation of the seconds to make a set.
      score: ``[k, 2]`` mean and standard deviation of the score, in 0..1.
    """

    size: Float[np.ndarray, " k"]
    time: Float[np.ndarray, "k 2"]
    score: Float[np.ndarray, "k 2"]


def plot_lines(
    panels: Mapping[str, Mapping[str, Line]],
    references: Mapping[str, float],
    *,
    size: str,
    reference: str = "full",
) -> Plot:
    """Plot the score of every method against the size of its sets and against the time to make them.

    Marks are means, bars standard deviations; a line joins the sizes of a method, whose name stands at its
    right end. Both horizontal axes are logarithmic.

    Args:
      panels: By label of the vertical axis, a `Line` by name of the method.
      references: By the same labels, the score of the whole data, a dashed line.
      size: Label of the axis of sizes.
      reference: Name of the dashed line.
    """
    with theme():
        names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
        height = max(3.1, 0.19 * len(names) + 1.4)
        figure = Plot(figsize=(9.4, height * len(panels)), layout="constrained")
        axes = figure.subplots(len(panels), 2, squeeze=False, sharey="row")
        for (left, right), (label, lines) in zip(axes.tolist(), panels.items(), strict=True):
            for ax, where in ((left, "size"), (right, "time")):
                _line_panel(ax, names, lines, 100 * references[label], where, reference)
            left.set(xlabel=size, ylabel=label)
            right.set(xlabel="seconds to make a set")
            _size_ticks(left, [x for line in lines.values() for x in line.size.tolist()])
            right.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}" if x >= 1 else f"{x:g}"))
            right.tick_params(labelleft=False)
        axes[0, 0].set_title("Against size")
        axes[0, 1].set_title("Against time")
        figure.draw_without_rendering()  # so that labels know where things are
        for ax in axes.ravel().tolist():
            _name_lines(ax)
        return figure


def _line_panel(
    ax: Axes, names: Sequence[str], lines: Mapping[str, Line], full: float, where: str, reference: str
) -> None:
    ax.axhline(full, color=INK, linewidth=0.9, dashes=(4, 2.5), zorder=1)
    for i, name in enumerate(names):
        if name not in lines or not len(lines[name].size):
            continue
        line = lines[name]
        x, dx = (line.size, np.zeros(len(line.size))) if where == "size" else line.time.T
        y, dy = line.score.T
        look = {"color": HUES[i % len(HUES)], "marker": _MARKERS[i % len(_MARKERS)], "markersize": 5}
        drawn, *_ = ax.plot(x, 100 * y, linewidth=1.2, zorder=3, label=name, **look)
        drawn.set(markeredgecolor=PAPER, markeredgewidth=0.5)
        low = np.minimum(dx, 0.9 * x)  # a logarithmic axis has no zero
        bars = {"fmt": "none", "ecolor": look["color"], "elinewidth": 0.8, "alpha": 0.75, "zorder": 2}
        ax.errorbar(x, 100 * y, yerr=100 * dy, xerr=[low, dx] if dx.any() else None, **bars)
    ax.set_xscale("log")
    _make_room(ax)
    ax.annotate(
        reference, (0.005, full), xycoords=("axes fraction", "data"), xytext=(0, 2.5), color=MUTED,
        textcoords="offset points", va="bottom",
    )  # fmt: skip
    ax.margins(y=0.08)
    ax.grid(axis="y")
    ax.set_axisbelow(True)


def _ends(ax: Axes) -> dict[str, tuple[Line2D, Float[np.ndarray, " 2"]]]:
    """Return the right end of each named line."""
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
    """Write the name of each line beside its right end, with a thin leader where it is moved.

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
    """Choose the nearest of a few places for a name (its left end, middle) that hides least."""
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


# --- calibration --------------------------------------------------------------------------------


def plot_reliability(panels: Mapping[str, Any]) -> Plot:
    """Plot how often predictions of some confidence are right: on the diagonal where a network is calibrated.

    Args:
      panels: By title of the panel, a `jgd.metrics.ReliabilityBins`; the size of a mark is the share of the
        predictions.
    """
    rows = -(-len(panels) // _COLUMNS)
    with theme():
        columns = min(_COLUMNS, len(panels))
        figure = Plot(figsize=(3.1 * columns, 2.6 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for ax in axes[len(panels) :]:
            ax.remove()
        for i, (ax, (title, bins)) in enumerate(zip(axes, panels.items(), strict=False)):
            share = np.asarray(bins.share)
            used = share > 0
            confidence, right = np.asarray(bins.confidence)[used], np.asarray(bins.accuracy)[used]
            ax.plot([0, 1], [0, 1], color=INK, linewidth=0.8, dashes=(4, 2.5), zorder=1)
            ax.plot(confidence, right, color=HUES[0], zorder=2)
            look = {"color": HUES[0], "edgecolor": PAPER, "linewidth": 0.5, "zorder": 3}
            ax.scatter(confidence, right, s=6 + 160 * share[used], **look)
            ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), title=title)
            ax.grid()
            ax.set_axisbelow(True)
            if i % columns == 0:
                ax.set_ylabel("accuracy")
            if i + columns >= len(panels):
                ax.set_xlabel("confidence")
                ax.tick_params(labelbottom=True)
        return figure


# --- the condensed graph ------------------------------------------------------------------------


def plot_condensed(
    edges: Edges,
    classes: Int[np.ndarray, " n"],
    plane: Projection,
    original: Int[np.ndarray, " N"],
) -> Plot:
    """Plot a condensed graph, and its features among those of the original.

    Left the condensed nodes with their strongest edges, wider where heavier. Right the features of both
    graphs in a plane: small dots are original nodes (evenly spaced ones where there are many), large markers
    condensed nodes.

    Args:
      edges: Edges of the condensed graph, see `jgd.report.geometry.edges_of`.
      classes: Classes of the condensed nodes.
      plane: Features of both graphs, see `jgd.report.geometry.project`.
      original: Classes of the original nodes, -1 where unknown.
    """
    with theme():
        figure = Plot(figsize=(9.4, 4.9), layout="constrained")
        left, right = figure.subplots(1, 2)
        _graph_panel(left, edges, classes)
        _feature_panel(right, plane, original, classes)
        handles = _class_handles(np.unique(np.concatenate([classes, original])))
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


def _graph_panel(ax: Axes, edges: Edges, classes: np.ndarray) -> None:
    place = positions(edges, classes)
    if len(edges.pairs):
        strength = edges.weights / edges.weights.max()
        lines = LineCollection(place[edges.pairs].tolist(), linewidths=0.3 + 2.2 * strength, color=MUTED)
        lines.set(alpha=0.55, zorder=1)
        ax.add_collection(lines)
    shown = thinned(len(classes), MOST_NODES)
    _condensed_markers(ax, place[shown], classes[shown], size=float(np.clip(4000 / len(shown), 9, 60)))
    ax.set_title("Condensed graph" if len(edges.pairs) else "Condensed nodes (no edges)")
    ax.set(xticks=[], yticks=[], xlim=(-1.08, 1.08), ylim=(-1.08, 1.08))
    ax.spines[:].set_visible(False)


def _feature_panel(ax: Axes, plane: Projection, original: np.ndarray, classes: np.ndarray) -> None:
    shown = thinned(len(original), MOST_POINTS)
    colors = [_hue(c) for c in original[shown].tolist()]
    ax.scatter(*plane.original[shown].T, s=5, c=colors, linewidths=0, alpha=0.45, zorder=1)
    _condensed_markers(ax, plane.condensed, classes, size=float(np.clip(4000 / len(classes), 9, 60)))
    ax.set_title("Propagated features of both graphs")
    ax.set(**_frame(plane.original, plane.condensed))
    for axis, label, share in zip("xy", ("first", "second"), plane.explained, strict=True):
        ax.set(**{f"{axis}label": f"{label} principal component ({100 * share:.0f} % of the variance)"})
        ax.set(**{f"{axis}ticks": []})


def _frame(original: np.ndarray, condensed: np.ndarray) -> dict[str, tuple[float, float]]:
    """Return limits that hold the middle 99 % of the original points on each axis and all condensed ones."""
    low = np.minimum(np.quantile(original, 0.005, axis=0), condensed.min(axis=0))
    high = np.maximum(np.quantile(original, 0.995, axis=0), condensed.max(axis=0))
    pad = np.maximum(0.05 * (high - low), 1e-6)
    (left, bottom), (right, top) = (low - pad).tolist(), (high + pad).tolist()
    return {"xlim": (left, right), "ylim": (bottom, top)}
