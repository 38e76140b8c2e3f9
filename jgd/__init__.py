"""JGD: make graphs, teachers and samplers smaller without losing what they know.

::

    task = jgd.load("cora")
    small = jgd.condense.clustgdd(label_ratio=0.5)(jax.random.key(0), task)
    print(jgd.evaluate(small, task)["gcn"])
"""

from jgd import condense, core, data, graph, losses, metrics, nn, ops, optim, protocols, report
from jgd.core import objective, run, weighted
from jgd.data import load
from jgd.protocols import Protocol, compare, evaluate

__version__ = "0.1.0"

__all__ = [
    "Protocol",
    "compare",
    "condense",
    "core",
    "data",
    "evaluate",
    "graph",
    "load",
    "losses",
    "metrics",
    "nn",
    "objective",
    "ops",
    "optim",
    "protocols",
    "report",
    "run",
    "weighted",
]
