"""What a comparison looks like: plots for notebooks, and one self-contained HTML page."""

from jgd.report.html import write_report
from jgd.report.plots import Plot, plot_accuracy, plot_condensed, plot_curves

__all__ = ["Plot", "plot_accuracy", "plot_condensed", "plot_curves", "write_report"]
