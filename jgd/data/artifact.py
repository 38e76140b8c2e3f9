"""A condensed dataset on disk: one ``.npz`` without pickles and a JSON header.

The header (UTF-8 bytes in the array ``header``) describes the structure; every array is a member of its own,
stored bit for bit. Types that NumPy cannot store, such as bfloat16, are stored as integers of the same width
and named in the header. Files are written atomically. Format 1 had plain values in place of `Training`; its
files are still read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jraph
import numpy as np

from jgd.data.arrays import read_npz
from jgd.data.checks import is_number
from jgd.data.condensed import Condensed, Training
from jgd.data.storage import DataError, one_line, reading
from jgd.data.tasks import DenseGraphs
from jgd.files import atomic_write
from jgd.registry import Choice

__all__ = ["VERSION", "load", "save", "validate"]

VERSION = 2
_FORMAT = "jgd.condensed"
_ARRAYS = ("data", "targets", "weights", "extras")
_PLAIN = ("training", "provenance")
_DENSE = ("x", "adj", "mask", "y", "symmetric", "loops")


def save(condensed: Any, path: str | os.PathLike[str]) -> Path:
    """Write a condensed dataset.

    Args:
      condensed: A `Condensed`, whose ``data`` may be a `jraph.GraphsTuple`, `DenseGraphs`, an array, or dicts
        and lists of arrays. Settings and provenance must be plain JSON values (tuples become lists).
      path: File, by convention ``*.npz``.

    Returns:
      The path.

    Raises:
      DataError: For values that cannot be stored, with their names; nothing is written then. A set that is
        not sound (of a run that diverged) is written; `load` refuses it.
    """
    if not isinstance(condensed, Condensed):
        kind = type(condensed).__name__
        raise DataError(f"artifact.save writes a Condensed, got a {kind}: jgd.save writes networks too")
    arrays: dict[str, np.ndarray] = {}
    header: dict[str, Any] = {"format": _FORMAT, "version": VERSION}
    for name in _ARRAYS:
        header[name] = _encode(getattr(condensed, name), name, arrays)
    header |= {"training": _encode_training(condensed.training), "provenance": dict(condensed.provenance)}
    try:
        text = json.dumps(header, default=_plain)
    except (TypeError, ValueError) as error:
        raise DataError(f"training and provenance must be plain JSON values: {error}") from None
    with atomic_write(path) as file:
        np.savez_compressed(file, allow_pickle=False, header=np.frombuffer(text.encode(), np.uint8), **arrays)
    return Path(path)


def load(path: str | os.PathLike[str]) -> Condensed:
    """Read what `save` wrote; arrays come back as NumPy arrays of the same bits.

    Args:
      path: File.

    Raises:
      DataError: For a file that is missing, damaged, of another kind or of a newer version, and for content
        that is no condensed dataset, see `validate`.
    """
    if not Path(path).is_file():
        raise DataError(f"there is no file {path}")
    try:
        arrays = read_npz(path)
    except DataError as error:
        reason = one_line(error.__cause__ or error)
        raise DataError(f"{path} is damaged or no condensed dataset: save it again ({reason})") from None
    if "header" not in arrays:
        raise DataError(f"{path} was not written by jgd.data.artifact.save: it has no header")
    with reading(path, "it is no condensed dataset of jgd, save it again"):
        header = json.loads(arrays["header"].tobytes().decode())
        if isinstance(header, dict) and header.get("format") == "jgd.model":
            raise DataError(f"{path} is a saved network: load it by jgd.load_model")
        if not isinstance(header, dict) or header.get("format") != _FORMAT:
            raise DataError(f"{path} is no condensed dataset: its header does not say {_FORMAT}")
        version = header.get("version")
        if type(version) is not int or version < 1:
            raise ValueError(f"its header states the version {str(version)[:20]}")
        if version > VERSION:
            raise DataError(
                f"{path} has format version {version}, this jgd reads up to {VERSION}: upgrade jgd"
            )
        if version == 1:
            header = _from_version_1(header)
        if missing := [name for name in (*_ARRAYS, *_PLAIN) if name not in header]:
            raise ValueError(f"its header lacks {missing[0]}")
        content = {name: _decode(header[name], arrays) for name in _ARRAYS}
        training = _decode_training(header["training"], content["targets"])
        return validate(Condensed(**content, training=training, provenance=header["provenance"]))


# --- what a condensed dataset must be ------------------------------------------------------------


_CLASSES = 2**20
_WORDS = {
    "adjacency": ("raw", "normalized", "identity"),
    "targets": ("classes", "probabilities", "logits", None),
    "pooling": ("sum", "mean", "max", None),
}


def validate(small: Condensed) -> Condensed:
    """Return a condensed dataset if it is sound, else raise.

    Sound means: indices of edges are integers inside their graph; counts of nodes and edges add up; features,
    adjacencies, targets and weights are finite real numbers of matching length; classes are integers from 0;
    fields of the training have the types and ranges that `Training` states.

    Args:
      small: Condensed dataset.

    Raises:
      ValueError: With what is wrong, and where.
    """
    sizes = _check_data(small.data)
    targets = _numbers(small.targets, "targets")
    if targets.ndim not in (1, 2) or len(targets) not in sizes:
        expected = " or ".join(map(str, sorted(sizes)))
        raise ValueError(
            f"targets have shape {targets.shape}, expected [{expected}] or [{expected}, classes]"
        )
    _check_training(vars(small.training), targets)
    if targets.ndim == 1:
        if targets.dtype.kind not in "iu":
            raise ValueError(f"targets are {targets.dtype.name}, expected integer classes or a matrix")
        if (wrong := (targets < 0) | (targets >= _CLASSES)).any():
            row = int(np.argmax(wrong))
            raise ValueError(f"targets: {targets[row]} in row {row} is no class")
    elif not targets.shape[1]:
        raise ValueError("targets are of no classes")
    if small.weights is not None:
        weights = _numbers(small.weights, "weights")
        if weights.shape != (len(targets),) or (weights < 0).any():
            raise ValueError(f"weights {weights.shape} must be {len(targets)} numbers of at least 0")
    for name in ("extras", "provenance"):
        value = getattr(small, name)
        if not isinstance(value, Mapping):
            raise ValueError(f"{name} is a {type(value).__name__}, expected a dict")
    for name in ("method", "dataset", "setting", "checksum"):
        text = small.provenance.get(name, "")
        if text is not None and (not isinstance(text, str) or len(text) > 500 or not text.isprintable()):
            raise ValueError(f"provenance: {name} is {str(text)[:40]!r}, expected a text of one line")
    return small


def _numbers(value: Any, name: str) -> np.ndarray:
    """Real finite numbers; types that NumPy lacks, such as bfloat16, are widened."""
    if not isinstance(value, np.ndarray | np.generic | jax.Array):
        raise ValueError(f"{name} is a {type(value).__name__}, expected an array")
    array = np.asarray(value)
    if array.dtype.kind == "V" and jnp.issubdtype(array.dtype, jnp.number):
        array = array.astype(np.float32)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} is an array of {array.dtype.name}, expected real numbers")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        place = np.argwhere(~np.isfinite(array))[0]
        raise ValueError(
            f"{name} holds NaN or infinity" + (f", first in row {place[0]}" if len(place) else "")
        )
    return array


def _check_data(data: Any) -> set[int]:
    """See that the examples are sound, and say how many they may count as."""
    if isinstance(data, jraph.GraphsTuple):
        return _check_graphs(data)
    if isinstance(data, DenseGraphs):
        return _check_dense(data)
    leaves = jax.tree.leaves(data)
    if not leaves:
        raise ValueError("data holds no examples")
    arrays = [_numbers(leaf, "data") for leaf in leaves]
    if any(not array.ndim or len(array) != len(arrays[0]) for array in arrays) or not len(arrays[0]):
        raise ValueError("data holds arrays of different lengths, or none")
    return {len(arrays[0])}


def _check_graphs(graph: jraph.GraphsTuple) -> set[int]:
    parts = {}
    for name in ("n_node", "n_edge", "senders", "receivers"):
        array = _numbers(getattr(graph, name), name)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise ValueError(f"{name} is {array.dtype.name} {array.shape}, expected a vector of integers")
        if array.size and (int(array.min()) < 0 or int(array.max()) >= 2**31):
            raise ValueError(f"{name} holds {array.min()} to {array.max()}, expected 0 to {2**31 - 1}")
        parts[name] = array.astype(np.int64)
    n_node, n_edge, senders, receivers = parts.values()
    nodes, edges = int(n_node.sum()), int(n_edge.sum())
    if not len(n_node) or len(n_edge) != len(n_node) or not nodes:
        raise ValueError(
            f"n_node {n_node.shape} and n_edge {n_edge.shape} must count the same graphs, with nodes"
        )
    for name, array in (("senders", senders), ("receivers", receivers)):
        if len(array) != edges:
            raise ValueError(f"{name} has {len(array)} rows, n_edge adds up to {edges}")
        first = np.repeat(np.cumsum(n_node) - n_node, n_edge)
        if (wrong := (array < first) | (array >= first + np.repeat(n_node, n_edge))).any():
            row = int(np.argmax(wrong))
            raise ValueError(f"{name}: {array[row]} in row {row} is no node of its graph, of {nodes} in all")
    for name, tree, count in (("nodes", graph.nodes, nodes), ("edges", graph.edges, edges)):
        for leaf in jax.tree.leaves(tree):
            array = _numbers(leaf, name)
            if array.shape[:1] != (count,):
                raise ValueError(f"{name} has shape {array.shape}, expected {count} rows")
    x: Any = graph.nodes
    if x is not None and not isinstance(x, Mapping) and np.ndim(x) != 2:
        raise ValueError(f"nodes has shape {np.shape(x)}, expected [{nodes}, features]")
    return {nodes} if len(n_node) == 1 else {len(n_node)}


def _check_dense(data: DenseGraphs) -> set[int]:
    x, adj = _numbers(data.x, "x"), _numbers(data.adj, "adj")
    if x.ndim != 3 or not x.shape[0] or adj.ndim not in (3, 4) or adj.shape[:3] != (*x.shape[:2], x.shape[1]):
        raise ValueError(f"x {x.shape} and adj {adj.shape} are not [B, N, F] and [B, N, N]")
    mask = _numbers(data.mask, "mask")
    if mask.shape != x.shape[:2] or mask.dtype.kind != "b":
        raise ValueError(f"mask is {mask.dtype.name} {mask.shape}, expected bool {x.shape[:2]}")
    if data.y is not None and _numbers(data.y, "y").shape[:1] != (len(x),):
        raise ValueError(f"y has shape {np.shape(data.y)}, there are {len(x)} graphs")
    if not isinstance(data.symmetric, bool) or not isinstance(data.loops, bool):
        raise ValueError("symmetric and loops must be true or false")
    return {len(x)}


def _check_training(training: Mapping[str, Any], targets: Any) -> None:
    """Check the fields of a `Training`; those that are not given are not checked."""
    for name, known in _WORDS.items():
        value = training.get(name, known[0])
        if not isinstance(value, str | None) or value not in known:
            words = ", ".join(str(word) for word in known)
            raise ValueError(f"training: {name} is {str(value)[:40]!r}, expected one of {words}")
    meaning, shape = training.get("targets"), np.shape(targets)
    if meaning is not None and (meaning == "classes") != (len(shape) == 1):
        raise ValueError(f"training says that the targets are {meaning}, but they have shape {shape}")
    for name, whole in (
        ("learning_rate", False),
        ("weight_decay", False),
        ("dropout", False),
        ("steps", True),
        ("batch_size", True),
    ):
        value, least = training.get(name), int(whole)
        if value is not None and not is_number(value, least, 1e9, whole=whole):
            what = "a whole number" if whole else "a number"
            raise ValueError(f"training: {name} is {str(value)[:40]!r}, expected {what} of at least {least}")
    for name in _CHOICES:
        value = training.get(name)
        if value is not None and not (
            isinstance(value, Choice)
            and isinstance(value.name, str)
            and isinstance(value.settings, Mapping)
            and all(isinstance(key, str) for key in value.settings)
        ):
            raise ValueError(f"training: {name} is {str(value)[:40]!r}, expected a name and its settings")


# --- encoding ------------------------------------------------------------------------------------


_CHOICES = ("augment", "preprocess", "predictor")
_FIELDS = tuple(field.name for field in fields(Training))


def _encode_training(training: Training) -> dict[str, Any]:
    def plain(value):
        return {"name": value.name, "settings": dict(value.settings)} if isinstance(value, Choice) else value

    return {name: plain(getattr(training, name)) for name in _FIELDS}


def _decode_training(header: Any, targets: Any) -> Training:
    if not isinstance(header, Mapping):
        raise ValueError(f"training is a {type(header).__name__}, expected a dict")
    if unknown := [str(name)[:40] for name in header if name not in _FIELDS]:
        raise ValueError(f"training has the unknown field {unknown[0]!r}")
    chosen = {}
    for name in _CHOICES:
        value = header.get(name)
        if value is not None and (not isinstance(value, Mapping) or set(value) != {"name", "settings"}):
            raise ValueError(f"training: {name} is {str(value)[:40]!r}, expected a name and its settings")
        chosen[name] = None if value is None else Choice(value["name"], value["settings"])
    _check_training({**header, **chosen}, targets)
    return Training(**{**header, **chosen})


_RENAMED = {"structure": "adjacency", "lr": "learning_rate", "epochs": "steps"}
_MEANINGS = {"int": "classes", "prob": "probabilities", "logit": "logits"}


def _from_version_1(header: Mapping[str, Any]) -> dict[str, Any]:
    """Return a header of format 2 for one of format 1, which held plain values in ``train``.

    Values without a place in `Training` changed nothing in the training; the provenance keeps them.
    """
    if missing := [name for name in ("train", "preprocess", "extras", "provenance") if name not in header]:
        raise ValueError(f"its header lacks {missing[0]}")
    for name in ("train", "provenance"):
        if not isinstance(header[name], Mapping):
            raise ValueError(f"{name} is a {type(header[name]).__name__}, expected a dict")
    rest = {_RENAMED.get(name, name): value for name, value in header["train"].items()}
    training = {name: rest.pop(name) for name in list(rest) if name in _FIELDS and name not in _CHOICES}
    if "targets" in training:
        training["targets"] = _MEANINGS.get(str(training["targets"]), training["targets"])
    if "predictor" in rest:
        training["predictor"] = {"name": rest.pop("predictor"), "settings": rest}
        rest = {}
    extras, arrays = header["extras"], dict(header["preprocess"]["dict"])
    if "op" in arrays:
        training["preprocess"] = {"name": arrays.pop("op"), "settings": {}}
        extras = {"dict": {**{f"preprocess/{name}": spec for name, spec in arrays.items()}, **extras["dict"]}}
    provenance = {**header["provenance"], **({"train": rest} if rest else {})}
    return {**header, "extras": extras, "training": training, "provenance": provenance}


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


_WIDENED = (
    "bfloat16",
    "float8_e4m3fn",
    "float8_e5m2",
    "float8_e4m3b11fnuz",
    "float8_e4m3fnuz",
    "float8_e5m2fnuz",
)


def _decode(spec: Any, arrays: dict[str, np.ndarray]) -> Any:
    if not isinstance(spec, dict):
        return spec
    if "array" in spec:
        member = spec["array"]
        if not isinstance(member, str) or member not in arrays:
            raise ValueError(f"its header names the array {str(member)[:40]!r}, which is not there")
        array = arrays[member]
        if "dtype" not in spec:
            return array
        dtype = jnp.dtype(spec["dtype"]) if spec["dtype"] in _WIDENED else None
        if dtype is None or array.dtype.kind != "u" or array.dtype.itemsize != dtype.itemsize:
            raise ValueError(f"array {member!r} cannot be of type {str(spec['dtype'])[:40]!r}")
        return array.view(dtype)
    if len(spec) != 1:
        raise ValueError("its header describes a value in two ways")
    ((kind, content),) = spec.items()
    if kind in ("list", "tuple") and isinstance(content, list):
        items = [_decode(item, arrays) for item in content]
        return items if kind == "list" else tuple(items)
    make: Any = {"dict": dict, "graph": jraph.GraphsTuple, "dense": DenseGraphs}.get(kind)
    if make is None or not isinstance(content, dict):
        raise ValueError(f"its header describes a value of the kind {kind[:40]!r}")
    return make(**{key: _decode(item, arrays) for key, item in content.items()})
