"""A digest of the arrays of a task, for provenance and caches."""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import numpy as np

from jgd.data.condensed import Condensed

__all__ = ["checksum"]


def checksum(task: Any) -> str:
    """Compute the SHA-256 of all arrays of a task, with their names, types and shapes.

    It is the same on every machine and for NumPy and JAX arrays alike. Names, flags and other static fields
    do not count, nor do the training and provenance of a `Condensed`.

    Args:
      task: Task, `Condensed`, or any pytree of arrays.

    Returns:
      64 hexadecimal digits.
    """
    if isinstance(task, Condensed):
        names = ("data", "targets", "weights", "extras")
        task = {name: getattr(task, name) for name in names}
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(task)[0]:
        array = np.asarray(leaf)
        if array.dtype.kind in "iufcb":
            array = array.astype(array.dtype.newbyteorder("<"))
        name = "/".join(str(_key(entry)) for entry in path)
        digest.update(f"{name}:{array.dtype.name}:{array.shape};".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _key(entry: Any) -> Any:
    """Return the name, key or number that an entry of a pytree path stands for."""
    return next(getattr(entry, kind) for kind in ("name", "key", "idx") if hasattr(entry, kind))
