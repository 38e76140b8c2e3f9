"""Plots of a comparison, as figures that notebooks show and the report embeds.

Every class and every set of nodes is told apart by shape or dashes as well as by colour; the colours are
those of Okabe and Ito and three more, darkened for white and lightened for black (in the report).
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jgd.data.condensed import Condensed
from jgd.data.tasks import NodeTask
from jgd.protocols.compare import Comparison
from jgd.protocols.evaluate import NETWORKS, Score
from jgd.report.geometry import classes_of, edges_of, positions, project, spread

__all__ = ["Plot", "curve", "network_title", "plot_accuracy", "plot_condensed", "plot_curves"]

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


def _models(comparison: Comparison) -> list[str]:
    return list(comparison.scores["full"])


# --- accuracies ---------------------------------------------------------------------------------


def plot_accuracy(comparison: Comparison) -> Plot:
    """Test accuracy of every set and architecture: bars with standard deviations over seeds.

    Args:
      comparison: what `jgd.compare` returned.

    Returns:
      A figure with a panel for each architecture; the dashed line is the accuracy of the whole graph.
    """
    with theme():
        models, sets = _models(comparison), list(comparison.condensed)
        figure, panels = _panels(len(models), 0.27 * (len(sets) + 1) + 0.75)
        for i, (ax, model) in enumerate(zip(panels, models, strict=True)):
            scores = {name: comparison.scores[name][model] for name in ("full", *sets)}
            _accuracy_panel(ax, scores, comparison.method)
            ax.set_title(network_title(model))
            ax.set_xlabel("test accuracy, %")
            ax.tick_params(axis="y", labelleft=i % _COLUMNS == 0)
        return figure


def _accuracy_panel(ax: Axes, scores: dict[str, Score], method: str) -> None:
    rows = np.arange(len(scores))
    means = np.array([100 * score.test_mean for score in scores.values()])
    spreads = [100 * score.test_std for score in scores.values()]
    names = ["full graph" if name == "full" else name for name in scores]
    fills = [{"full": PAPER, method: HUES[0]}.get(name, BAR) for name in scores]
    bars = ax.barh(rows, means, height=0.66, color=fills, zorder=2)
    bars[0].set(edgecolor=INK, linewidth=0.8)
    ax.errorbar(means, rows, xerr=spreads, fmt="none", ecolor=INK, elinewidth=0.9, capsize=2.5, zorder=4)
    ax.axvline(means[0], color=INK, linewidth=0.9, dashes=(4, 2.5), zorder=3)
    for row, score in zip(rows, scores.values(), strict=True):
        ax.annotate(
            str(score).removesuffix(" %"),
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
