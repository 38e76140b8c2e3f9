"""What a comparison looks like: plots for notebooks, and self-contained HTML pages."""

from jgd.report.graphs import write_graph_report
from jgd.report.html import write_report
from jgd.report.methods import write_method_report
from jgd.report.plots import Plot, plot_accuracy, plot_condensed, plot_curves, plot_methods
from jgd.report.students import plot_reliability, plot_students, write_student_report

__all__ = [
    "Plot",
    "plot_accuracy",
    "plot_condensed",
    "plot_curves",
    "plot_methods",
    "plot_reliability",
    "plot_students",
    "write_graph_report",
    "write_method_report",
    "write_report",
    "write_student_report",
]
