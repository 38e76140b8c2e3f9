"""JGD: make graphs, teachers and samplers smaller without losing what they know.

::

    task = jgd.load("cora")
    small = jgd.condense.clustgdd(label_ratio=0.5)(jax.random.key(0), task)
    print(jgd.evaluate(small, task)["gcn"])

Parts are imported when they are first used, so that ``jgd --help`` need not wait for JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jgd import (
        apps,
        condense,
        core,
        data,
        distill,
        evaluation,
        graph,
        losses,
        metrics,
        nn,
        ops,
        optim,
        report,
        text,
        training,
    )
    from jgd.core import objective, run, weighted
    from jgd.data import describe, load
    from jgd.evaluation import EvalConfig, compare, evaluate
    from jgd.nn.saved import load_model, save

__version__ = "0.1.0"

_PARTS = (
    "apps",
    "condense",
    "core",
    "data",
    "distill",
    "evaluation",
    "graph",
    "losses",
    "metrics",
    "nn",
    "ops",
    "optim",
    "report",
    "text",
    "training",
)
_HOMES = {
    **dict.fromkeys(("objective", "run", "weighted"), "core"),
    **dict.fromkeys(("describe", "load"), "data"),
    **dict.fromkeys(("load_model", "save"), "nn.saved"),
    **dict.fromkeys(("EvalConfig", "compare", "evaluate"), "evaluation"),
}

__all__ = [
    "EvalConfig",
    "apps",
    "compare",
    "condense",
    "core",
    "data",
    "describe",
    "distill",
    "evaluate",
    "evaluation",
    "graph",
    "load",
    "load_model",
    "losses",
    "metrics",
    "nn",
    "objective",
    "ops",
    "optim",
    "report",
    "run",
    "save",
    "text",
    "training",
    "weighted",
]


def __getattr__(name: str):
    """Import a part, or a name from its home, on first use (PEP 562)."""
    if name in _PARTS:
        return import_module(f"jgd.{name}")
    if name in _HOMES:
        value = getattr(import_module(f"jgd.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'jgd' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
