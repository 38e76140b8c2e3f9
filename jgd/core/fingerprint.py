"""Descriptions of computations as flat mappings that are the same in every process.

`fingerprint` walks a recipe (dataclasses, named tuples, mappings, sequences, arrays, Flax modules, functions
with what they close over) down to plain values::

    fingerprint(offline(net, teacher, kd(temperature=4.0), optax.adam(1e-2)))
    {"type": "jgd.distill.recipes.Distillation", "objective.terms.kd.1.…temperature": 4.0, …}

Addresses, hashes of the process and the order of sets are left out, so that equal constructions are equal.
Functions of installed libraries are described by their names, so that another version of a library is not
another recipe; functions of the user are described by their code and the values that it names.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import inspect
import json
import os
import sysconfig
import types
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path, PurePath
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

__all__ = ["difference", "digest", "fingerprint"]

Flat = dict[str, str | int | float | bool | None]

_LONG = 64  # items of a sequence or a mapping that are listed; more become one digest
_MANY = 2000  # entries of a part; more become one digest
_SMALL = 8  # elements of an array that are written out
_HOMES = tuple(
    os.path.realpath(p) + os.sep
    for p in {
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        str(Path(__file__).parents[1]),
    }
)
# Names of paths that describe how functions and tuples are nested and mean nothing to a reader.
_SILENT = {"apply", "args", "closure", "defaults", "fn", "func", "fun", "init", "keywords", "parts", "step"}
_SILENT |= {"globals", "init_fns", "settings", "terms", "update", "update_fns"}


def fingerprint(value: Any) -> Flat:
    """Describe everything that a value is made of by plain values and digests, by path.

    Args:
      value: Value to describe: a recipe, a task, a key, or anything else.

    Returns:
      ``{path: number, text, flag or None}``, which JSON can hold.
    """
    flat: Flat = {}
    for path, leaf in _Walk().parts(value).items():
        flat[path] = leaf if not isinstance(leaf, float) or np.isfinite(leaf) else repr(leaf)
    return flat


def digest(value: Any) -> str:
    """Compute one checksum of a `fingerprint`."""
    return _checksum(json.dumps(fingerprint(value), sort_keys=True).encode())


def difference(before: Mapping[str, Any], now: Mapping[str, Any], *, most: int = 3) -> str:
    """Describe how two flat mappings differ, in one line: ``lr_x 0.0001, now 1.0``; empty for equal ones.

    Args:
      before: Earlier mapping.
      now: Later mapping.
      most: Largest number of differences that are named; others are counted.
    """
    said: dict[str, str] = {}
    for path in {**before, **now}:
        old, new = before.get(path, _MISSING), now.get(path, _MISSING)
        if type(old) is not type(new) or old != new:
            said.setdefault(readable(path), f"{_shown(old)}, now {_shown(new)}")
    # If a part has another type, its own parts differ as well and add no information.
    named = [f"{name} {text}" for name, text in said.items() if not _below(name, said)]
    more = f"; and {len(named) - most} more" if len(named) > most else ""
    return "; ".join(named[:most]) + more


def readable(path: str) -> str:
    """Return a path without the names that only describe how functions are nested."""
    parts = path.split(".")
    kept = [p for p in parts if p not in _SILENT and not p.isdigit()]
    kept = [p for i, p in enumerate(kept) if i == 0 or p != kept[i - 1]]
    if len(kept) > 1 and kept[-1] == "type":
        del kept[-1]
    if len(kept) > 1 and kept[0] == "recipe":
        del kept[0]
    return ".".join(kept) or path


_MISSING = object()


def _shown(value: Any) -> str:
    if value is _MISSING:
        return "nothing"
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _below(name: str, said: Mapping[str, str]) -> bool:
    return any(name.startswith(f"{other}.") for other in said)


def _checksum(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _join(name: str, path: str) -> str:
    return f"{name}.{path}" if path else name


class _Walk:
    """One walk, which records visited values, because closures share and refer to each other."""

    def __init__(self):
        self.known: dict[int, tuple[Any, Flat]] = {}  # the value is kept alive, so that its id stays unique
        self.open: dict[int, int] = {}

    def parts(self, value: Any) -> Flat:
        """Return the flat mapping of one value; the path of the value itself is ''."""
        if value is None or (
            isinstance(value, bool | int | float | str) and not isinstance(value, enum.Enum)
        ):
            return {"": value if type(value) in (bool, int, float, str, type(None)) else _plain(value)}
        number = id(value)
        if number in self.known:
            return self.known[number][1]
        if number in self.open:
            return {"": f"itself, {len(self.open) - self.open[number]} levels up"}
        self.open[number] = len(self.open)
        try:
            found = self._made(value)
            if len(found) > _MANY and len(self.open) > 1:  # shared parts are listed at every occurrence
                found = _shortened(found, len(found))
        finally:
            del self.open[number]
        self.known[number] = (value, found)
        return found

    def _named(self, parts: Mapping[str, Any]) -> Flat:
        return {
            _join(name, path): leaf for name, part in parts.items() for path, leaf in self.parts(part).items()
        }

    def _made(self, value: Any) -> Flat:
        if isinstance(value, enum.Enum):
            return {"": f"{_type(value)}.{value.name}"}
        if isinstance(value, complex | bytes | bytearray | PurePath | np.dtype | types.EllipsisType):
            return {"": _checksum(bytes(value)) if isinstance(value, bytes | bytearray) else str(value)}
        if isinstance(value, np.ndarray | np.generic | jax.Array):
            return self._array(value)
        if isinstance(value, type):
            return _class(value, "")
        if isinstance(value, types.ModuleType):
            return {"": f"module {value.__name__}"}
        if isinstance(value, inspect.Signature | inspect.Parameter):  # the function itself counts
            return {"": _type(value)}
        if isinstance(value, functools.partial):
            return self._named({"func": value.func, "args": value.args, "keywords": value.keywords})
        if isinstance(value, types.MethodType):
            return self._named({"func": value.__func__, "self": value.__self__})
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if callable(value) and hasattr(value, "__wrapped__"):  # jitted and cached functions
            return self.parts(value.__wrapped__)
        if isinstance(
            value, types.BuiltinFunctionType | types.MethodWrapperType | types.WrapperDescriptorType
        ):
            owner = getattr(value, "__module__", None) or type(getattr(value, "__self__", None)).__qualname__
            return {"": f"{owner}.{value.__qualname__}"}
        if isinstance(value, Mapping):
            return self._mapping(value)
        if isinstance(value, AbstractSet):
            items = sorted(_checksum(json.dumps(self.parts(x), sort_keys=True).encode()) for x in value)
            return {"": f"set of {len(items)}, {_checksum(''.join(items).encode())}"}
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return _class(type(value)) | self._named(value._asdict())  # pyright: ignore
        if isinstance(value, Sequence):
            return self._sequence(value)
        if dataclasses.is_dataclass(value):
            names = [f.name for f in dataclasses.fields(value) if f.compare or f.name in ("params", "state")]
            hidden = {"parent"} if hasattr(value, "scope") else set()  # of a Flax module
            return _class(type(value)) | self._fields(value, [n for n in names if n not in hidden])
        return _class(type(value)) | self._fields(value, _attributes(value))

    def _fields(self, value: Any, names: Sequence[str]) -> Flat:
        return self._named({name: getattr(value, name) for name in names if hasattr(value, name)})

    def _array(self, value: Any) -> Flat:
        if hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            return self._array(jax.random.key_data(value))
        if isinstance(value, Tracer):
            return {"": f"traced {value.dtype}{list(value.shape)}"}
        array = np.asarray(value)
        if array.dtype.hasobject:
            return self._sequence([array.shape, *array.ravel().tolist()])
        if array.size <= _SMALL:
            return {"": f"{array.dtype} {array.tolist()}"}
        return {"": f"{array.dtype}{list(array.shape)} {_checksum(np.ascontiguousarray(array).tobytes())}"}

    def _mapping(self, value: Mapping[Any, Any]) -> Flat:
        found = self._named(
            {str(key) if type(key) is str else repr(_plain(key)): v for key, v in value.items()}
        )
        return found if len(value) <= _LONG else _shortened(found, len(value))

    def _sequence(self, value: Sequence[Any]) -> Flat:
        if all(type(x) in (bool, int, float, str, type(None)) for x in value):
            text = json.dumps(list(value))
            return {"": text if len(text) <= 200 else f"{len(value)} items, {_checksum(text.encode())}"}
        found: Flat = {}
        for i, item in enumerate(value):
            # (name, weight, objective): the name is more informative than the number.
            match item:
                case (str(name), *rest) if rest and isinstance(item, tuple):
                    at, part = f"{i}.{name}", self.parts(tuple(rest))
                case _:
                    at, part = str(i), self.parts(item)
            found |= {_join(at, p): leaf for p, leaf in part.items()}
        return found if len(value) <= _LONG else _shortened(found, len(value))

    def _function(self, fn: types.FunctionType) -> Flat:
        ours = _is_library(fn.__code__.co_filename)
        if ours and hasattr(fn, "__wrapped__") and isinstance(fn.__wrapped__, types.FunctionType):
            return self._function(fn.__wrapped__)  # decorated, e.g. by a type checker
        found: dict[str, Any] = {}
        for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
            try:
                found[name] = cell.cell_contents
            except ValueError:  # not assigned yet
                found[name] = None
        flat: Flat = {"type": f"function {fn.__module__}.{fn.__qualname__}"}
        flat |= self._named({"closure": found})
        flat |= self._named({"defaults": _defaults(fn)})
        if not ours:
            flat |= _code(fn)
            flat |= self._named({"globals": _globals(fn)})
        return flat


def _shortened(found: Flat, count: int) -> Flat:
    return {"": f"{count} items, {_checksum(json.dumps(found, sort_keys=True).encode())}"}


def _plain(value: Any) -> Any:
    """Convert a subclass of a number or of text to that type."""
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value if isinstance(value, tuple | bytes | type(None)) else _type(value)


def _type(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _class(kind: type, name: str = "type") -> Flat:
    """Describe a class by its name and, for a user's class, a checksum of its methods."""
    flat: Flat = {name: f"{kind.__module__}.{kind.__qualname__}"}
    methods = {n: inspect.unwrap(f) for n, f in vars(kind).items() if isinstance(f, types.FunctionType)}
    own = {  # without the methods that `dataclass` writes
        n: _code(f)
        for n, f in sorted(methods.items())
        if isinstance(f, types.FunctionType)
        and f.__code__.co_filename != "<string>"
        and not _is_library(f.__code__.co_filename)
    }
    return flat | {"methods": _checksum(repr(own).encode())} if own else flat


def _attributes(value: Any) -> list[str]:
    """Return the names of the attributes of an object of an ordinary class."""
    slots = [
        n for kind in type(value).__mro__ for n in np.atleast_1d(getattr(kind, "__slots__", ())).tolist()
    ]
    cached = {
        n
        for kind in type(value).__mro__
        for n, v in vars(kind).items()
        if isinstance(v, functools.cached_property)
    }
    names = {*getattr(value, "__dict__", {}), *slots} - cached
    return sorted(n for n in names if not n.startswith("__"))


def _is_library(path: str) -> bool:
    return path.startswith("<frozen") or os.path.realpath(path).startswith(_HOMES)


def _defaults(fn: types.FunctionType) -> dict[str, Any]:
    code, values = fn.__code__, fn.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount]
    return {**dict(zip(names[len(names) - len(values) :], values, strict=True)), **(fn.__kwdefaults__ or {})}


def _code(fn: types.FunctionType) -> Flat:
    """Describe the code of a user's function: its constants as they are, the rest as a checksum."""
    bodies, constants = [], []

    def walk(code: types.CodeType, documentation: str | None) -> None:
        bodies.append((code.co_code.hex(), code.co_names, code.co_varnames, code.co_freevars))
        for value in code.co_consts:
            if isinstance(value, types.CodeType):
                walk(value, None)
            elif value != documentation or value is None:
                constants.append(
                    repr(sorted(value, key=repr)) if isinstance(value, frozenset) else repr(value)
                )

    walk(fn.__code__, fn.__doc__)
    return {"code": _checksum(repr(bodies).encode()), "constants": ", ".join(constants)}


def _globals(fn: types.FunctionType) -> dict[str, Any]:
    """Return the module values that a user's function names, except lists and dicts, which change."""
    kinds = (bool, int, float, str, tuple, type, types.FunctionType, functools.partial, enum.Enum)
    kinds += (np.ndarray, jax.Array)
    names: set[str] = set()
    pending = [fn.__code__]
    while pending:
        code = pending.pop()
        names.update(code.co_names)
        pending += [c for c in code.co_consts if isinstance(c, types.CodeType)]
    found = {name: fn.__globals__[name] for name in sorted(names) if name in fn.__globals__}
    return {
        n: v
        for n, v in found.items()
        if isinstance(v, kinds) or dataclasses.is_dataclass(v) or (callable(v) and hasattr(v, "__wrapped__"))
    }
