"""An objective of one's own: one file and one line, ``OBJECTIVES.add("toy_objective", "toy-mse")``."""

import jax.numpy as jnp

from jgd.distill.terms import beside_labels, term
from jgd.registry import Entry


def squared_logits(student, teacher):
    """The squared distance of the logits of each example."""
    return jnp.sum((student - teacher) ** 2, axis=-1)


ENTRIES = (
    Entry(
        "toy-mse",
        beside_labels(0.1, lambda: term(squared_logits)),
        "Squared distance of the logits.",
        "This file, 2026",
    ),
)
