"""Kinds of data: each file here is one kind, and says all that evaluation needs to know about it."""

from __future__ import annotations

from typing import Any

from jgd.evaluation.kinds.base import Kind
from jgd.registry import Catalog

__all__ = ["KINDS", "Kind", "kind_of"]

KINDS = Catalog(
    "kind of data",
    "jgd.evaluation.kinds",
    {
        "nodes": ("nodes",),
        "graphs": ("graphs",),
        "arrays": ("arrays",),
    },
)
"""The kinds of data by name."""


def kind_of(task: Any) -> Kind:
    """Return the kind of a task.

    Args:
      task: Task of any kind.

    Raises:
      ValueError: For a task that no kind can evaluate.
    """
    kinds = [entry.make() for entry in KINDS.entries()]
    for kind in kinds:
        if isinstance(task, kind.task):
            return kind
    known = ", ".join(kind.task.__name__ for kind in kinds)
    raise ValueError(f"evaluation takes a task ({known}), got a {type(task).__name__}")
