"""Predictors of their own that condensed sets are meant for, in place of trained networks."""

from __future__ import annotations

from jgd.registry import Catalog

__all__ = ["PREDICTORS"]

PREDICTORS = Catalog("predictor", "jgd", {"condense._sntk": ("sntk",)})
"""Predictors by name; each is a function ``(condensed, task, split, metric) -> number``."""
