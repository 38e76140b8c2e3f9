"""Contracts and drivers: models, objectives, algorithms, their transforms, and the loop."""

from jgd.core.algorithm import (
    Algorithm,
    Examples,
    Flush,
    Plan,
    Player,
    TrainState,
    alternate,
    cycle,
    sequence,
    train,
)
from jgd.core.loop import Diverged, Driver, HostStream, InMemory, Loop, Recipe, atomic_write, in_memory, run
from jgd.core.model import Bound, Model, Outputs, as_model, bind, from_linen, from_nnx
from jgd.core.objective import Context, Objective, objective, weighted
from jgd.core.transforms import ema, ensemble, inner_flush, keep_best, record, sweep

__all__ = [
    "Algorithm",
    "Bound",
    "Context",
    "Diverged",
    "Driver",
    "Examples",
    "Flush",
    "HostStream",
    "InMemory",
    "Loop",
    "Model",
    "Objective",
    "Outputs",
    "Plan",
    "Player",
    "Recipe",
    "TrainState",
    "alternate",
    "atomic_write",
    "bind",
    "cycle",
    "ema",
    "ensemble",
    "as_model",
    "from_linen",
    "from_nnx",
    "in_memory",
    "inner_flush",
    "keep_best",
    "objective",
    "record",
    "run",
    "sequence",
    "sweep",
    "train",
    "weighted",
]
