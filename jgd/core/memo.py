"""A cache of the products of functions of settings, so that programs are compiled once.

`jit` finds what it has compiled by the functions that it is given. A recipe that makes its `Algorithm` in
every run would be compiled in every run, although nothing has changed. The function that makes it is
therefore memoized: equal settings lead to the same functions::

    @dataclass(frozen=True)
    class Settings:
        hidden: int = 256
        epochs: int = host(600)              # how often the host calls the program: no part of it

    @memoized
    def algorithm(settings: Settings, num_classes: int) -> Algorithm: ...

    algorithm(Settings(epochs=10), 7) is algorithm(Settings(epochs=20), 7)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, NoReturn, TypeVar

__all__ = ["host", "host_only", "memoized"]

Made = TypeVar("Made", bound=Callable[..., Any])
_HOST = "host"


def host(default: Any) -> Any:
    """Declare a field of a settings dataclass that no compiled program depends on.

    Args:
      default: Default of the field.
    """
    return dataclasses.field(default=default, metadata={_HOST: True})


@lru_cache(maxsize=1024)
def host_only(kind: type) -> frozenset[str]:
    """Return the names of the host-only fields of a dataclass.

    A field that overrides a host-only one, with another default, is host-only too.

    Args:
      kind: Class of the settings, a dataclass.
    """
    declared = [vars(base).get("__dataclass_fields__", {}) for base in kind.__mro__]
    return frozenset(name for fields in declared for name, f in fields.items() if f.metadata.get(_HOST))


class _HostOnly:
    """Value of a host-only field in a memoized function; using it as a number or a flag raises an error."""

    def __repr__(self) -> str:
        return "<host-only>"

    def __bool__(self) -> NoReturn:
        raise TypeError("a program depends on a setting that is declared host-only, see jgd.core.memo.host")


_ABSENT = _HostOnly()


class _Call:
    """Arguments of a call, compared by what programs depend on."""

    __slots__ = ("args", "key", "kwargs")

    def __init__(self, key: Any, args: tuple, kwargs: dict[str, Any]):
        self.key, self.args, self.kwargs = key, args, kwargs

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Call) and self.key == other.key


def memoized(make: Made | None = None, *, maxsize: int = 64) -> Made:
    """Return the same product for arguments that lead to the same program.

    It exists so that `jit` finds what it has compiled, see the module. Arguments are compared by value and
    type: frozen dataclasses by their fields that are not host-only, tuples, lists and dicts by their
    items, everything else by its own hash (a function, hence a `Model` or an optimiser, by identity). The
    function receives dataclasses without their host-only fields, so that its product cannot depend on them. A
    call with an argument that has no hash, such as an array, is made every time.

    Args:
      make: Function to memoize.
      maxsize: Largest number of products that are kept; the least recently used one is dropped first.
    """
    if make is None:
        return lambda make: memoized(make, maxsize=maxsize)  # pyright: ignore[reportReturnType]

    @lru_cache(maxsize=maxsize)
    def made(call: _Call) -> Any:
        return make(*call.args, **call.kwargs)

    @wraps(make)
    def find(*args: Any, **kwargs: Any) -> Any:
        keys = tuple(_key(x) for x in args), tuple((name, _key(x)) for name, x in sorted(kwargs.items()))
        plain = tuple(_without_host(x) for x in args)
        named = {name: _without_host(x) for name, x in kwargs.items()}
        try:
            hash(keys)
        except TypeError:
            return make(*plain, **named)
        return made(_Call(keys, plain, named))

    find.cache_info, find.cache_clear = made.cache_info, made.cache_clear  # pyright: ignore
    return find  # pyright: ignore[reportReturnType]


def _settings(value: Any) -> bool:
    """Return whether a value is a frozen dataclass with host-only fields."""
    frozen = dataclasses.is_dataclass(value) and type(value).__hash__ is not None
    return frozen and not isinstance(value, type) and bool(host_only(type(value)))


def _key(value: Any) -> Any:
    if _settings(value):
        names = [f.name for f in dataclasses.fields(value) if f.name not in host_only(type(value))]
        return type(value), tuple(_key(getattr(value, name)) for name in names)
    if isinstance(value, tuple | list):
        return type(value), tuple(_key(x) for x in value)
    if isinstance(value, dict):
        return type(value), tuple((name, _key(x)) for name, x in value.items())
    return type(value), value


def _without_host(value: Any) -> Any:
    """Return the same value, in whose dataclasses host-only fields hold nothing."""
    if _settings(value):
        plain = object.__new__(type(value))
        for f in dataclasses.fields(value):
            hidden = f.name in host_only(type(value))
            object.__setattr__(plain, f.name, _ABSENT if hidden else _without_host(getattr(value, f.name)))
        return plain
    if isinstance(value, tuple | list):
        items = [_without_host(x) for x in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, dict):
        return {name: _without_host(x) for name, x in value.items()}
    return value
