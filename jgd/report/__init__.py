"""Comparisons as tables, pages and figures."""

from jgd.report.figures import (
    Line,
    Plot,
    plot_bars,
    plot_condensed,
    plot_curves,
    plot_lines,
    plot_reliability,
)
from jgd.report.page import Comparison, Picture
from jgd.report.table import Column

__all__ = [
    "Column",
    "Comparison",
    "Line",
    "Picture",
    "Plot",
    "plot_bars",
    "plot_condensed",
    "plot_curves",
    "plot_lines",
    "plot_reliability",
]
