"""A condensed dataset on disk: one ``.npz`` without pickles and a JSON header.

The header (UTF-8 bytes in the array ``header``) describes the structure; every array is a member of its own,
stored bit for bit. Types that NumPy cannot store, such as bfloat16, are stored as integers of the same width
and named in the header. Files are written atomically.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jraph
import numpy as np

from jgd.data.arrays import read_npz
from jgd.data.condensed import Condensed
from jgd.data.storage import DataError, reading
from jgd.data.tasks import DenseGraphs
from jgd.files import atomic_write

__all__ = ["VERSION", "load", "save"]

VERSION = 1
_FORMAT = "jgd.condensed"
_ARRAYS = ("data", "targets", "weights", "preprocess", "extras")
_PLAIN = ("train", "provenance")
_DENSE = ("x", "adj", "mask", "y", "symmetric", "loops")


def save(condensed: Condensed, path: str | os.PathLike[str]) -> Path:
    """Write a condensed dataset.

    Args:
      condensed: ``data`` may be a `jraph.GraphsTuple`, `DenseGraphs`, an array, or dicts and lists of arrays.
        ``train`` and ``provenance`` must be plain JSON values (tuples come back as lists).
      path: the file, by convention ``*.npz``.

    Returns:
      The path.

    Raises:
      DataError: for values that cannot be stored, naming them; nothing is written then.
    """
    arrays: dict[str, np.ndarray] = {}
    header: dict[str, Any] = {"format": _FORMAT, "version": VERSION}
    for name in _ARRAYS:
        header[name] = _encode(getattr(condensed, name), name, arrays)
    for name in _PLAIN:
        header[name] = dict(getattr(condensed, name))
    try:
        text = json.dumps(header, default=_plain)
    except (TypeError, ValueError) as error:
        raise DataError(f"train and provenance must be plain JSON values: {error}") from None
    with atomic_write(path) as file:
        np.savez_compressed(file, allow_pickle=False, header=np.frombuffer(text.encode(), np.uint8), **arrays)
    return Path(path)


def load(path: str | os.PathLike[str]) -> Condensed:
    """Read what `save` wrote; arrays come back as NumPy arrays of the same bits.

    Args:
      path: the file.

    Raises:
      DataError: where the file is missing, damaged, of another kind or of a newer version.
    """
    if not Path(path).is_file():
        raise DataError(f"there is no file {path}")
    try:
        arrays = read_npz(path)
    except DataError as error:
        raise DataError(
            f"{path} is damaged or no condensed dataset: save it again ({error.__cause__})"
        ) from None
    if "header" not in arrays:
        raise DataError(f"{path} was not written by jgd.data.artifact.save: it has no header")
    with reading(path):
        header = json.loads(arrays["header"].tobytes().decode())
        if isinstance(header, dict) and header.get("format") == "jgd.model":
            raise DataError(f"{path} is a saved network: load it by jgd.load_model")
        if not isinstance(header, dict) or header.get("format") != _FORMAT:
            raise DataError(f"{path} is no condensed dataset: its header does not say {_FORMAT}")
        if header["version"] > VERSION:
            raise DataError(
                f"{path} has format version {header['version']}, this jgd reads up to {VERSION}: upgrade jgd"
            )
        fields = {name: _decode(header[name], arrays) for name in _ARRAYS}
        return Condensed(**fields, **{name: header[name] for name in _PLAIN})


def _plain(value: Any) -> Any:
    """NumPy and JAX scalars as JSON values."""
    if isinstance(value, np.generic | np.ndarray | jax.Array) and np.ndim(value) == 0:
        return value.item()
    raise TypeError(f"{value!r} is a {type(value).__name__}")


def _encode(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """Describe a value in JSON, putting its arrays into ``arrays``."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, jraph.GraphsTuple):
        return {"graph": _encode(value._asdict(), name, arrays)["dict"]}
    if isinstance(value, DenseGraphs):
        return {"dense": _encode({k: getattr(value, k) for k in _DENSE}, name, arrays)["dict"]}
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise DataError(f"the keys of {name} must be strings")
        return {"dict": {key: _encode(item, f"{name}/{key}", arrays) for key, item in value.items()}}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_encode(item, f"{name}/{i}", arrays) for i, item in enumerate(value)]}
    if not isinstance(value, np.ndarray | np.generic | jax.Array):
        raise DataError(f"{name} is a {type(value).__name__}, which cannot be stored: make it an array")
    return _encode_array(value, name, arrays)


def _encode_array(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    try:
        array = np.asarray(value)
    except TypeError as error:  # typed random keys
        raise DataError(f"{name} cannot be stored: {error}") from None
    if array.dtype.hasobject:
        raise DataError(f"{name} is an array of Python objects: make it one of numbers or strings")
    member = f"array{len(arrays)}"
    spec = {"array": member, "name": name}
    if array.dtype.kind == "V" and array.dtype.names is None:
        spec["dtype"] = array.dtype.name
        array = np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}").reshape(array.shape)
    arrays[member] = array
    return spec


def _decode(spec: Any, arrays: dict[str, np.ndarray]) -> Any:
    if not isinstance(spec, dict):
        return spec
    if "array" in spec:
        array = arrays[spec["array"]]
        return array.view(jnp.dtype(spec["dtype"])) if "dtype" in spec else array
    ((kind, content),) = spec.items()
    if kind in ("list", "tuple"):
        items = [_decode(item, arrays) for item in content]
        return items if kind == "list" else tuple(items)
    make = {"dict": dict, "graph": jraph.GraphsTuple, "dense": DenseGraphs}[kind]
    return make(**{key: _decode(item, arrays) for key, item in content.items()})
