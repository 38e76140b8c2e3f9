"""Optimisers in addition to those of Optax, as Optax transformations."""

from jgd.optim._dot import dot, scale_by_dot
from jgd.optim.parts import by_part, turns
from jgd.optim.schedules import adam_l2, restart_at

__all__ = ["adam_l2", "by_part", "dot", "restart_at", "scale_by_dot", "turns"]
