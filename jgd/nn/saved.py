"""Trained networks on disk: one ``.npz`` without pickles and with a JSON header.

::

    jgd.save(student, "student.npz")
    student = jgd.load_model("student.npz")  # a network of jgd.nn
    student = jgd.load_model("own.npz", net=Own())  # any other network

Every parameter and every array of the state is a member of the file, stored bit for bit (types that NumPy
cannot store, such as bfloat16, as integers of the same width). The member ``header`` (UTF-8 bytes) holds the
format, the network with its settings if it is one of `jgd.nn`, the arrays, the inputs, the provenance of the
network, and a digest of everything. Files are written atomically.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jgd.core import Bound, Model, as_model
from jgd.core.model import module_of
from jgd.data import Condensed, DataError, artifact, checksum
from jgd.data.arrays import read_npz
from jgd.files import atomic_write
from jgd.graph import from_edges, operator

__all__ = ["VERSION", "choose_saved", "digest", "load_model", "read_header", "save", "save_model"]

VERSION = 1
_FORMAT = "jgd.model"
_PARTS = ("params", "state")


def save(what: Any, path: str | os.PathLike[str], *, provenance: Mapping[str, Any] | None = None) -> Path:
    """Write a trained network (`save_model`) or a condensed dataset (`jgd.data.artifact.save`).

    Args:
      what: `Bound` network, or `Condensed` dataset with its own provenance.
      path: Path of the file, by convention ``*.npz``.
      provenance: Provenance of a network, see `save_model`.

    Returns:
      The path.

    Raises:
      DataError: If the network is of another type, or has values that cannot be stored.
    """
    if isinstance(what, Condensed):
        if provenance is not None:
            raise DataError("a condensed dataset has its own provenance: leave out provenance=")
        return artifact.save(what, path)
    if isinstance(what, Mapping):
        raise DataError(f"save writes one network to a file, got a dict of {', '.join(map(str, what))}")
    return save_model(what, path, provenance=provenance)


def save_model(
    net: Any, path: str | os.PathLike[str], *, provenance: Mapping[str, Any] | None = None
) -> Path:
    """Write a network with its parameters, or several of them with a leading axis.

    Args:
      net: Trained network.
      path: Path of the file, by convention ``*.npz``.
      provenance: Provenance of the network, e.g. recipe, task and seed; plain JSON values.

    Returns:
      The path.

    Raises:
      DataError: If a value cannot be stored; the message names it, and nothing is written.
    """
    if not isinstance(net, Bound):
        raise DataError(f"a trained network (jgd.core.Bound) can be saved, got a {type(net).__name__}")
    arrays: dict[str, np.ndarray] = {}
    header: dict[str, Any] = {
        "format": _FORMAT,
        "version": VERSION,
        "jgd": version("jgd"),
        "network": _network(net.model),
        "example": None if net.example is None else [[list(e.shape), e.dtype.name] for e in net.example],
        "provenance": dict(provenance or {}),
    }
    for part in _PARTS:
        header[part] = [
            _stored(path, leaf, part, arrays)
            for path, leaf in jax.tree_util.tree_flatten_with_path(getattr(net, part))[0]
        ]
    try:
        header = json.loads(json.dumps(header))  # as it will be read
    except (TypeError, ValueError) as error:
        raise DataError(f"provenance must be plain JSON values: {error}") from None
    text = json.dumps(header | {"checksum": digest(header, arrays)})
    with atomic_write(path) as file:
        np.savez_compressed(file, allow_pickle=False, header=np.frombuffer(text.encode(), np.uint8), **arrays)
    return Path(path)


def load_model(path: str | os.PathLike[str], net: Any = None) -> Bound:
    """Read what `save_model` wrote: the network with its parameters, bit for bit.

    Args:
      path: Path of the file.
      net: Network, if it is not in `jgd.nn`: a Flax linen module, an NNX module, or a `Model`.

    Returns:
      The network; several seeds have a leading axis.

    Raises:
      DataError: If the file is missing, damaged, of another kind or of a newer version, if it needs ``net``,
        or if ``net`` has other parameters than the file (the message names the first that differs).
    """
    header, arrays = _read(path)
    try:
        example = _example(header)
        model = as_model(_rebuilt(path, header, sum(x.size for x in arrays.values())) if net is None else net)
        parts = tuple(_leaves(header[part], arrays, path) for part in _PARTS)
        return Bound(*_filled(model, parts, example, path), model, example)
    except DataError:
        raise
    except Exception as error:  # an invented header can raise any error
        raise DataError(f"{path} does not describe a network: {_one_line(error)}") from error


def read_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the header of a file of `save_model`: class and settings of the network, provenance and so on.

    Raises:
      DataError: As `load_model`.
    """
    return _read(path)[0]


# --- writing ------------------------------------------------------------------------------------


def _name(model: Model) -> str:
    module = module_of(model)
    return "the network" if module is None else type(module).__name__


def _network(model: Model) -> dict[str, Any]:
    """Describe how to make a network again, or return ``{"needs": why it cannot be}``."""
    module = module_of(model)
    if module is None:
        return {"needs": "it is no module of jgd.nn"}
    try:
        return _module(module)
    except ValueError as error:
        return {"needs": str(error)}


def _module(module: nn.Module) -> dict[str, Any]:
    kind = type(module)
    if _classes().get(kind.__name__) is not kind:
        raise ValueError(f"it is a {kind.__name__}, which is not in jgd.nn")
    settings = {}
    for field in dataclasses.fields(kind):
        if field.name in ("parent", "name") or not field.init:
            continue
        value = getattr(module, field.name)
        try:
            settings[field.name] = _plain(value, f"{kind.__name__}.{field.name}")
        except ValueError:  # a function that is the default need not be stored
            if field.default is not value:
                raise
    return {"class": kind.__name__, "settings": settings}


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, nn.Module):
        return {"module": _module(value)}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, list | tuple):
        return [_plain(item, name) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"its setting {name} is a {type(value).__name__}")


def _classes() -> dict[str, type[nn.Module]]:
    """Return the networks of `jgd.nn` by name."""
    from jgd import nn as networks

    found = {name: getattr(networks, name) for name in networks.__all__}
    return {
        name: kind for name, kind in found.items() if isinstance(kind, type) and issubclass(kind, nn.Module)
    }


def _stored(path: Any, leaf: Any, part: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Describe an array, and put it among the members."""
    name = jax.tree_util.keystr(path, simple=True, separator="/") if path else ""
    try:
        array = np.asarray(leaf)
    except TypeError as error:  # typed random keys
        raise DataError(f"{part}/{name} cannot be stored: {error}") from None
    if array.dtype.hasobject or (array.dtype.kind == "V" and array.dtype.names is not None):
        raise DataError(f"{part}/{name} is a {type(leaf).__name__}, which cannot be stored: make it an array")
    member = f"array{len(arrays)}"
    spec = {"array": member, "name": name, "shape": list(array.shape), "dtype": array.dtype.name}
    spec["path"] = [entry.key for entry in path] if _is_dict_path(path) else None
    if array.dtype.kind == "V":
        array = np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}").reshape(array.shape)
    arrays[member] = array
    return spec


def _is_dict_path(path: Any) -> bool:
    return all(isinstance(e, jax.tree_util.DictKey) and isinstance(e.key, str) for e in path)


def digest(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """Compute the SHA-256 of the arrays, bit for bit, and of the header without this digest.

    Args:
      header: Header of a file; ``"checksum"`` does not count.
      arrays: Arrays of the file by name.
    """
    said = json.dumps({k: v for k, v in header.items() if k != "checksum"}, sort_keys=True)
    return hashlib.sha256(f"{checksum(dict(arrays))}{said}".encode()).hexdigest()


# --- reading ------------------------------------------------------------------------------------


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    if not Path(path).is_file():
        raise DataError(f"there is no file {path}")
    try:
        arrays = read_npz(path)
    except DataError as error:
        reason = _one_line(error.__cause__ or error)
        raise DataError(f"{path} is damaged or not a saved network: save it again ({reason})") from None
    if "header" not in arrays:
        raise DataError(f"{path} was not written by jgd.save: it has no header")
    try:
        header = json.loads(arrays.pop("header").tobytes().decode())
        said = header.get("format") if isinstance(header, dict) else None
        if said == "jgd.condensed":
            raise DataError(f"{path} is a condensed dataset: load it by jgd.data.artifact.load")
        if said != _FORMAT:
            raise DataError(f"{path} is not a saved network: its header does not name {_FORMAT}")
        if not isinstance(header["version"], int) or header["version"] > VERSION:
            raise DataError(
                f"{path} has format version {header['version']}, this jgd reads up to {VERSION}: upgrade jgd"
            )
        if header["checksum"] != digest(header, arrays):
            raise DataError(f"{path} was changed after it was written: its checksum differs, save it again")
        return header, arrays
    except DataError:
        raise
    except Exception as error:  # a damaged header can raise any error
        raise DataError(f"{path} is damaged: save it again ({_one_line(error)})") from error


def _one_line(error: BaseException) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:300]


def _example(header: Mapping[str, Any]) -> tuple[jax.ShapeDtypeStruct, ...] | None:
    if header["example"] is None:
        return None
    return tuple(jax.ShapeDtypeStruct(tuple(shape), jnp.dtype(dtype)) for shape, dtype in header["example"])


def _rebuilt(path: Any, header: Mapping[str, Any], numbers: int) -> nn.Module:
    """Make the network that a header describes, unless it is larger than a file of that size can hold."""
    network = header["network"]
    if "class" not in network:
        raise DataError(f"{path} needs its network, load_model(path, net=...): {network['needs']}")
    size = _largest(network)
    if size > numbers + 1000:  # because a billion layers would take hours to set up
        raise DataError(f"{path} is damaged: a network of size {size} does not fit its {numbers} numbers")
    try:
        return _made(network)
    except Exception as error:
        raise DataError(f"{path} names a network that this jgd cannot make ({_one_line(error)})") from error


def _largest(spec: Any) -> int:
    """Return the largest number among the settings of a network."""
    if isinstance(spec, dict | list):
        parts = spec.values() if isinstance(spec, dict) else spec
        return max(map(_largest, parts), default=0)
    return spec if isinstance(spec, int) else 0


def _made(spec: Mapping[str, Any]) -> nn.Module:
    kind = _classes()[spec["class"]]
    return kind(**{name: _value(value) for name, value in spec["settings"].items()})


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        return _made(value["module"])
    return tuple(map(_value, value)) if isinstance(value, list) else value


def _leaves(specs: Any, arrays: Mapping[str, np.ndarray], path: Any) -> list[tuple[dict[str, Any], Any]]:
    """Return arrays in their own types, with their descriptions."""
    found = []
    for spec in specs:
        array, dtype = arrays[spec["array"]], jnp.dtype(spec["dtype"])
        array = array.view(dtype) if dtype.kind == "V" else array
        if list(array.shape) != spec["shape"] or array.dtype != dtype:
            raise DataError(f"{path} is damaged: {spec['name']} differs from its header")
        on_device = jnp.asarray(array) if jax.dtypes.canonicalize_dtype(dtype) == dtype else array
        found.append((spec, on_device))
    return found


def _filled(model: Model, parts: tuple, example: Any, path: Any) -> tuple[PyTree, PyTree]:
    """Return the arrays in the structure of a network if its inputs are known, else in nested dicts."""
    failures = []
    for inputs in _inputs(model, example, parts[0]):
        try:
            expected = jax.eval_shape(model.init, jax.random.key(0), *inputs)
        except Exception as error:
            if inputs:  # otherwise the network cannot be set up without inputs
                failures.append(DataError(f"{path} does not fit {_name(model)}: {_one_line(error)}"))
            continue
        try:
            params, state = (
                _fitted(leaves, tree, path, part, _name(model))
                for part, leaves, tree in zip(_PARTS, parts, expected, strict=True)
            )
            return params, state
        except DataError as error:
            failures.append(error)
    if failures:
        raise failures[0]
    return _nested(parts[0], path), _nested(parts[1], path)


def _inputs(model: Model, example: Any, params: list) -> Iterator[tuple]:
    """Yield shapes of inputs with which the network can be set up, as far as they are known."""
    if example is not None:
        floats = {np.dtype(np.uint8): jnp.float32}  # as `as_float` makes of pixels
        yield tuple(jax.ShapeDtypeStruct((1, *e.shape), floats.get(e.dtype, e.dtype)) for e in example)
    elif model.reads is not None:  # a network of graphs: its features are as wide as some matrix is tall
        sizes = dict.fromkeys(leaf.shape[-2] for _, leaf in params if leaf.ndim >= 2)
        for size in sizes:
            graph = from_edges(np.arange(2), np.arange(2)[::-1], np.zeros((2, size), np.float32))
            yield operator(graph, **dict(model.reads)), jax.ShapeDtypeStruct((2, size), jnp.float32)
    elif module_of(model) is None:  # an NNX module is set up without inputs
        yield ()


def _nested(leaves: list[tuple[dict[str, Any], Any]], path: Any) -> Any:
    """Return nested dicts by the names of the arrays."""
    if [spec["path"] for spec, _ in leaves] == [[]]:
        return leaves[0][1]
    tree: dict[str, Any] = {}
    for spec, leaf in leaves:
        if spec["path"] is None:
            raise DataError(f"{path} holds {spec['name']}, which is in no dict: give the network with net=")
        *above, last = spec["path"]
        here = tree
        for key in above:
            here = here.setdefault(key, {})
        here[last] = leaf
    return tree


def _fitted(leaves: list, tree: PyTree, path: Any, part: str, name: str) -> PyTree:
    """Return the arrays in the structure of a network; those of several networks have a leading axis."""
    wanted, structure = jax.tree_util.tree_flatten_with_path(tree)
    both = list(zip(leaves, wanted, strict=False))
    several = all(leaf.ndim == len(like.shape) + 1 for (_, leaf), (_, like) in both)
    for (spec, leaf), (at, like) in both:
        own = jax.tree_util.keystr(at, simple=True, separator="/") if at else ""
        if own != spec["name"]:
            raise DataError(f"{path} holds {part}/{spec['name']} where {name} has {part}/{own}")
        shape = leaf.shape[1:] if several else leaf.shape
        if shape != like.shape:
            raise DataError(
                f"{path} holds {part}/{own} of shape {list(shape)}, {name} has {list(like.shape)} there"
            )
    if len(leaves) != len(wanted):
        raise DataError(f"{path} holds {len(leaves)} arrays of {part}, {name} has {len(wanted)}")
    return structure.unflatten([leaf for _, leaf in leaves])


def choose_saved(where: Path, name: str | None = None) -> tuple[Path, str]:
    """Return the file of a saved network, and what it is called.

    Args:
      where: File of a network, or folder of `jgd distill` (teacher.npz, students/).
      name: In a folder, ``"teacher"`` or an objective; the first student of the run by default.

    Raises:
      ValueError: If the folder holds no networks, or not this one.
    """
    if not where.is_dir():
        if name is not None:
            raise ValueError(f"--model chooses among the networks of a folder, {where} is none")
        return where, where.name
    found = {path.stem: path for path in sorted((where / "students").glob("*.npz"))}
    if (where / "teacher.npz").is_file():
        found["teacher"] = where / "teacher.npz"
    if not found:
        raise ValueError(f"{where} holds no networks (teacher.npz, students/): `jgd distill` writes them")
    try:
        record = json.loads((where / "experiment.json").read_text(encoding="utf-8"))
        first = [n for n in record["experiment"]["objectives"] if n in found]
    except (OSError, ValueError, KeyError, TypeError):
        first = []
    name = [*first, *found][0] if name is None else name
    if name not in found:
        raise ValueError(f"{where} has no network {name!r}, it has {', '.join(found)}")
    return found[name], name if name == "teacher" else f"student {name}"
