"""How results are written in words."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["spread"]


def spread(values: Any, scale: int | float = 100, digits: int = 1) -> str:
    """Return mean ± standard deviation of several numbers, a single one by itself.

    Args:
      values: Numbers, e.g. accuracies in 0..1.
      scale: Factor of the numbers.
      digits: Number of digits after the point.
    """
    values = scale * np.asarray(values)
    deviation = f" ± {values.std():.{digits}f}" if values.size > 1 else ""
    return f"{values.mean():.{digits}f}{deviation}"
