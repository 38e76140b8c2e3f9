"""Predictors that condensed sets are meant for in place of trained networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jgd.registry import Catalog

__all__ = ["PREDICTORS", "Predict"]

Predict = Callable[[Any, Any, str], tuple[np.ndarray, np.ndarray]]
"""``(condensed, task, split) -> (outputs, labels)``: outputs ``[M, C]`` and labels ``[M]`` of the examples of
a split. The largest output is the class, and a label of -1 is unknown."""

PREDICTORS = Catalog(
    "predictor", "jgd", {"condense._sntk": ("sntk",), "evaluation.kernel_ridge": ("ntk", "ridge")}
)
"""Predictors by name; each makes a `Predict` of its settings. A set names one as ``training.predictor``."""
