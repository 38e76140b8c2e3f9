"""What Optax lacks, as Optax transformations."""

from jgd.optim.schedules import adam_l2, restart_at

__all__ = ["adam_l2", "restart_at"]
