"""Pickles of plain data, read by a small stack machine that can do nothing else.

A pickle is a program for a stack machine. The machine here knows the instructions that make numbers, strings
and containers; a name in the file is looked up in a table of stand-ins, all defined here, and anything that
is not in the table is refused. No class of NumPy or SciPy receives a state from the file: types, shapes and
bytes pass through `jgd.data.arrays`, which compares them first. The size of the result is bounded by the size
of the file: memo numbers are keys of a dictionary, and arrays that are made repeatedly of the same bytes are
counted.
"""

from __future__ import annotations

import os
import struct
from codecs import escape_decode
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import scipy.sparse as sp

from jgd.data.arrays import checked_array, checked_sparse, plain_dtype
from jgd.data.storage import DataError, reading

__all__ = ["Kind", "Names", "read_pickle", "restricted_loads"]

Names = Mapping[tuple[str, str], Any]


class Kind:
    """Stand-in for a class: an object of it becomes what ``build`` returns for its state."""

    def __init__(self, build: Callable[[Any], Any]):
        self.build = build


class _Unfinished:
    """Object whose state follows later, and its places in the memo."""

    def __init__(self, build: Callable[[Any], Any]):
        self.build = build
        self.slots: list[int] = []


# Stand-ins for the names in a file


def _plain(value: Any, kind: Any, what: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{what} is a {type(value).__name__}")
    return value


def _dtype(code: Any, align: Any = False, copy: Any = True) -> _Unfinished:
    """Stand in for ``numpy.dtype``: the state that follows may only state the order of bytes."""
    del align, copy

    def build(state: Any) -> np.dtype | None:
        if not isinstance(state, tuple) or not 8 <= len(state) <= 9:
            raise ValueError("the state of a NumPy type is invalid")
        _, order, *compound = state[:5]
        if code in ("O", "O8", "O4") and compound == [None, None, None]:
            return None
        dtype = plain_dtype(code)
        if compound != [None, None, None] or state[5] not in (-1, dtype.itemsize):
            raise ValueError(f"type {code!r} is stated with fields or a size of its own: only plain types")
        if not isinstance(order, str) or order not in ("<", ">", "|", "="):
            raise ValueError(f"type {code!r} is stated with the byte order {str(order)[:10]!r}")
        return dtype if order in "|=" else dtype.newbyteorder(order)

    return _Unfinished(build)


def _array(dtype: Any, shape: Any, content: Any, fortran: Any) -> np.ndarray:
    if dtype is None:  # objects: a list
        items = _plain(content, list, "the content of an array of objects")
        count = 1
        for size in _plain(shape, tuple, "the shape of an array"):
            count *= _plain(size, int, "a size of an array")
        if count != len(items) or len(shape) > 32 or min(shape, default=0) < 0:
            raise ValueError(f"an array of {str(count)[:24]} objects holds {len(items)}")
        flat = np.empty(len(items), object)
        for i, item in enumerate(items):
            flat[i] = item
        return flat.reshape(shape, order="F" if fortran else "C")
    if isinstance(content, str):  # written by Python 2
        content = content.encode("latin1")
    _plain(content, bytes | bytearray, "the content of an array")
    _plain(dtype, np.dtype, "the type of an array")
    return checked_array(content, dtype, shape, fortran=bool(fortran))


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Unfinished:
    """Stand in for ``numpy._core.multiarray._reconstruct``: an array whose state follows."""
    del kind, shape, code

    def build(state: Any) -> np.ndarray:
        if not isinstance(state, tuple) or len(state) != 5:
            raise ValueError("the state of a NumPy array is invalid")
        _, shape, dtype, fortran, content = state
        return _array(dtype, shape, content, fortran).copy("K")

    return _Unfinished(build)


def _frombuffer(content: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """Stand in for ``numpy._core.numeric._frombuffer``."""
    return _array(dtype, shape, content, order == "F").copy("K")


def _scalar(dtype: Any, content: Any) -> Any:
    """Stand in for ``numpy._core.multiarray.scalar``."""
    if dtype is None:
        raise ValueError("a scalar cannot be an object")
    return _array(dtype, (), content, False)[()]


def _encode(text: Any = "", encoding: Any = "latin1") -> bytes:
    """Make bytes; pickles of protocol 2 call this."""
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"bytes of the encoding {str(encoding)[:20]} are not allowed")
    return _plain(text, str, "what is to be bytes").encode("latin1")


def _items(of: type) -> Callable[..., Any]:
    def make(items: Any = ()) -> Any:
        return of(_key(item) for item in _plain(items, list | tuple, "what is to be a set"))

    return make


def _ordered(pairs: Any = ()) -> OrderedDict:
    made = OrderedDict()
    for pair in _plain(pairs, list | tuple, "what is to be a dictionary"):
        key, value = _plain(pair, list | tuple, "a pair of a dictionary")
        made[_key(key)] = value
    return made


def _default(factory: Any = None) -> defaultdict:
    if not any(factory is kind for kind in (None, list, dict, set, int, float, str)):
        raise ValueError("a dictionary cannot make such values")
    return defaultdict(factory)


def _complex(real: Any = 0.0, imaginary: Any = 0.0) -> complex:
    return complex(*(_plain(part, int | float, "a part of a complex number") for part in (real, imaginary)))


def _reconstructor(kind: Any, base: Any, state: Any) -> _Unfinished:
    """Make an object; protocols before 2 call this."""
    del base, state
    return _Unfinished(_plain(kind, Kind, "what is to be made").build)


def _key(value: Any) -> Any:
    """Check a key of a dictionary or an item of a set: without depth, so that its hash needs no recursion."""
    parts = value if isinstance(value, tuple) else (value,)
    plain = str | bytes | int | float | complex | np.generic | None
    if not all(isinstance(part, plain) for part in parts):
        raise ValueError(f"a {type(value).__name__} cannot be a key of plain data")
    return value


def _sparse(make: Any) -> Callable[[Any], Any]:
    def build(state: Any) -> Any:
        parts = _plain(state, dict, "the state of a sparse matrix")
        if missing := [n for n in ("data", "indices", "indptr", "_shape") if n not in parts]:
            raise ValueError(f"a sparse matrix lacks {missing[0]}")
        shape = _plain(parts["_shape"], tuple, "the shape of a sparse matrix")
        return checked_sparse(parts["data"], parts["indices"], parts["indptr"], shape, make)

    return build


def _names() -> dict[tuple[str, str], Any]:
    """List the names that a pickle may use. Functions are called; a type is a name, or calls its `_MAKE`."""
    names: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): np.ndarray,  # an argument of `_reconstruct`
        ("numpy", "dtype"): _dtype,
        ("collections", "defaultdict"): defaultdict,
        ("collections", "OrderedDict"): OrderedDict,
        ("_codecs", "encode"): _encode,
    }
    for core in ("numpy.core", "numpy._core"):
        names[f"{core}.multiarray", "_reconstruct"] = _reconstruct
        names[f"{core}.multiarray", "scalar"] = _scalar
        names[f"{core}.numeric", "_frombuffer"] = _frombuffer
    for of in (list, dict, tuple, set, frozenset, int, float, complex, bool, str, bytes, object):
        for module in ("builtins", "__builtin__"):
            names[module, of.__name__] = of
    for module in ("copyreg", "copy_reg"):
        names[module, "_reconstructor"] = _reconstructor
    for form in ("csr", "csc"):
        for kind in ("matrix", "array"):
            for private in ("", "_"):
                make = getattr(sp, f"{form}_{kind}")
                names[f"scipy.sparse.{private}{form}", make.__name__] = Kind(_sparse(make))
    return names


_NAMES = _names()
_MAKE: dict[Any, Callable[..., Any]] = {
    set: _items(set),
    frozenset: _items(frozenset),
    complex: _complex,
    bytes: _encode,
    OrderedDict: _ordered,
    defaultdict: _default,
}


# The machine


def _unknown(module: str, name: str) -> ValueError:
    return ValueError(f"it asks for {module[:80]}.{name[:80]}, which is not plain data: it was not loaded")


class _Machine:
    """Machine for one pickle. ``stack`` holds the values, ``marks`` the positions of the marks on it."""

    def __init__(self, content: bytes, encoding: str, names: Names, persistent: Callable[[Any], Any] | None):
        self.content, self.at, self.encoding = content, 0, encoding
        self.names, self.persistent = names, persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.budget = 4 * len(content) + 4096  # bytes of values made of memoised parts
        self.unfinished = 0

    def run(self) -> Any:
        """Return the value that the pickle describes."""
        content, operations = self.content, _OPERATIONS
        try:
            while True:
                code = content[self.at]
                self.at += 1
                if code == 0x2E:  # STOP
                    if self.unfinished or len(self.stack) != 1:
                        raise ValueError("the pickle ends with unfinished objects")
                    return self.stack[0]
                operations[code](self)
        except IndexError:
            raise ValueError("the pickle is cut off or damaged") from None
        except KeyError as error:
            raise ValueError(f"the pickle has an unknown instruction or memo number {error}") from None

    # reading

    def take(self, count: int) -> bytes:
        end = self.at + count
        if count < 0 or end > len(self.content):
            raise ValueError("the pickle is cut off: it promises more bytes than there are")
        start, self.at = self.at, end
        return self.content[start:end]

    def number(self, form: struct.Struct) -> Any:
        (value,) = form.unpack(self.take(form.size))
        return value

    def line(self) -> str:
        end = self.content.find(b"\n", self.at)
        if end < 0:
            raise ValueError("the pickle is cut off in a line of text")
        return self.take(end + 1 - self.at)[:-1].decode("latin1")

    # the stack

    def pop(self) -> Any:
        if self.marks and self.marks[-1] == len(self.stack):
            raise IndexError
        return self.stack.pop()

    def marked(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def top(self, kind: type) -> Any:
        return _plain(self.stack[-1], kind, f"what should be a {kind.__name__}")

    # instructions

    def put(self, slot: int) -> None:
        value = self.stack[-1]
        self.memo[slot] = value
        if isinstance(value, _Unfinished):
            value.slots.append(slot)

    def named(self, module: str, name: str) -> None:
        if (module, name) not in self.names:
            raise _unknown(module, name)
        self.push(self.names[module, name])

    def spend(self, value: Any) -> Any:
        if sp.issparse(value):
            size = value.data.nbytes + value.indices.nbytes + value.indptr.nbytes
        elif isinstance(value, np.ndarray):
            size = value.nbytes
        else:
            size = len(value) if isinstance(value, bytes | set | frozenset | dict) else 0
        self.budget -= size
        if self.budget < 0:
            raise ValueError("the pickle makes more data than it holds")
        return value

    def call(self, function: Any, args: Any) -> None:
        """Execute REDUCE: only functions of this library are called."""
        function = _MAKE.get(function) if isinstance(function, type) else function
        if not isinstance(function, FunctionType) or not isinstance(args, tuple):
            raise ValueError("the pickle calls what is not callable")
        value = function(*args)
        if isinstance(value, _Unfinished):
            self.unfinished += 1
        self.push(self.spend(value))

    def new(self, kind: Any, args: Any) -> None:
        """Execute NEWOBJ."""
        if isinstance(kind, type) and kind in _MAKE:
            return self.call(kind, args)
        if args != () or not isinstance(kind, Kind):
            raise ValueError("the pickle makes an object that is not plain data")
        self.unfinished += 1
        return self.push(_Unfinished(kind.build))

    def build(self) -> None:
        """Execute BUILD: an object takes its state, and its place on the stack and in the memo."""
        state, target = self.pop(), self.stack[-1]
        if isinstance(target, OrderedDict | defaultdict):  # attributes of a dictionary are not used
            return
        if not isinstance(target, _Unfinished):
            raise ValueError(f"the pickle sets the state of a {type(target).__name__}")
        made = self.spend(target.build(state))
        self.unfinished -= 1
        for slot in target.slots:
            if self.memo.get(slot) is target:
                self.memo[slot] = made
        self.stack[-1] = made

    def append(self) -> None:
        value = self.pop()
        self.top(list).append(value)

    def appends(self) -> None:
        items = self.marked()
        self.top(list).extend(items)

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.top(dict)[_key(key)] = value

    def set_items(self) -> None:
        items = self.marked()
        self._pairs(self.top(dict), items)

    def add_items(self) -> None:
        items = self.marked()
        self.top(set).update(map(_key, items))

    def make_dict(self) -> None:
        items = self.marked()
        made: dict[Any, Any] = {}
        self._pairs(made, items)
        self.push(made)

    @staticmethod
    def _pairs(target: Any, items: list[Any]) -> None:
        if len(items) % 2:
            raise ValueError("the pickle gives a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value

    def make_tuple(self, size: int) -> None:
        items = [self.pop() for _ in range(size)]
        self.push(tuple(items[::-1]))

    def pop_or_mark(self) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def text(self, content: bytes) -> str | bytes:
        return content if self.encoding == "bytes" else content.decode(self.encoding)

    def quoted(self) -> None:
        line = self.line().strip()
        if len(line) < 2 or line[0] != line[-1] or line[0] not in "'\"":
            raise ValueError("the pickle has a string without quotes")
        self.push(self.text(escape_decode(line[1:-1].encode("latin1"))[0]))

    def whole(self) -> None:
        line = self.line()
        self.push({"00": False, "01": True}[line] if line in ("00", "01") else int(line))

    def refer(self, pid: Any) -> None:
        if self.persistent is None:
            raise ValueError("the pickle refers to something outside of it")
        self.push(self.persistent(pid))

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        self.named(_plain(module, str, "a module"), _plain(name, str, "a name"))


def _table() -> dict[int, Callable[[_Machine], Any]]:
    u1, u2, u4, u8, i4, f8 = (struct.Struct(f) for f in ("B", "<H", "<I", "<Q", "<i", ">d"))
    M = _Machine
    table: dict[bytes, Callable[[_Machine], Any]] = {
        b"\x80": lambda m: m.take(1),
        b"\x95": lambda m: m.take(8),  # FRAME: nothing is read ahead here
        b"N": lambda m: m.push(None),
        b"\x88": lambda m: m.push(True),
        b"\x89": lambda m: m.push(False),
        b"I": M.whole,
        b"L": lambda m: m.push(int(m.line().rstrip("L"))),
        b"F": lambda m: m.push(float(m.line())),
        b"S": M.quoted,
        b"V": lambda m: m.push(m.line().encode("latin1").decode("raw-unicode-escape")),
        b"(": lambda m: m.marks.append(len(m.stack)),
        b"0": M.pop_or_mark,
        b"1": M.marked,
        b"2": lambda m: m.push(m.stack[-1]),
        b")": lambda m: m.push(()),
        b"t": lambda m: m.push(tuple(m.marked())),
        b"\x85": lambda m: m.make_tuple(1),
        b"\x86": lambda m: m.make_tuple(2),
        b"\x87": lambda m: m.make_tuple(3),
        b"]": lambda m: m.push([]),
        b"l": lambda m: m.push(m.marked()),
        b"a": M.append,
        b"e": M.appends,
        b"}": lambda m: m.push({}),
        b"d": M.make_dict,
        b"s": M.set_item,
        b"u": M.set_items,
        b"\x8f": lambda m: m.push(set()),
        b"\x90": M.add_items,
        b"\x91": lambda m: m.push(frozenset(map(_key, m.marked()))),
        b"c": lambda m: m.named(m.line(), m.line()),
        b"\x93": M.stack_global,
        b"R": lambda m: m.call(*[m.pop(), m.pop()][::-1]),
        b"\x81": lambda m: m.new(*[m.pop(), m.pop()][::-1]),
        b"b": M.build,
        b"Q": lambda m: m.refer(m.pop()),
        b"P": lambda m: m.refer(m.line()),
        b"p": lambda m: m.put(int(m.line())),
        b"q": lambda m: m.put(m.number(u1)),
        b"r": lambda m: m.put(m.number(u4)),
        b"\x94": lambda m: m.put(len(m.memo)),
        b"g": lambda m: m.push(m.memo[int(m.line())]),
        b"h": lambda m: m.push(m.memo[m.number(u1)]),
        b"j": lambda m: m.push(m.memo[m.number(u4)]),
    }
    for code, form in ((b"K", u1), (b"M", u2), (b"J", i4), (b"G", f8)):
        table[code] = lambda m, form=form: m.push(m.number(form))

    def unicode(m: _Machine, content: bytes) -> str:
        del m
        return content.decode("utf-8", "surrogatepass")

    def integer(m: _Machine, content: bytes) -> int:
        del m
        return int.from_bytes(content, "little", signed=True)

    def as_bytes(m: _Machine, content: bytes) -> bytes:
        del m
        return content

    def as_bytearray(m: _Machine, content: bytes) -> bytearray:
        del m
        return bytearray(content)

    for code, form, make in (
        (b"U", u1, M.text), (b"T", i4, M.text),
        (b"\x8c", u1, unicode), (b"X", u4, unicode), (b"\x8d", u8, unicode),
        (b"C", u1, as_bytes), (b"B", u4, as_bytes), (b"\x8e", u8, as_bytes), (b"\x96", u8, as_bytearray),
        (b"\x8a", u1, integer), (b"\x8b", i4, integer),
    ):  # fmt: skip
        table[code] = lambda m, form=form, make=make: m.push(make(m, m.take(m.number(form))))
    return {code[0]: operation for code, operation in table.items()}


_OPERATIONS = _table()


def read_pickle(
    content: bytes,
    *,
    encoding: str = "latin1",
    names: Names | None = None,
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """Return the plain data of a pickle.

    Args:
      content: Content of the pickle.
      encoding: Encoding of strings from Python 2; ``"bytes"`` leaves them as bytes.
      names: Further names that the pickle may use: `Kind` objects, functions to call and plain values.
      persistent: Function that returns the value of a persistent id.

    Raises:
      ValueError: If the pickle uses any other name (nothing of it is called), or is damaged.
    """
    return _Machine(content, encoding, _NAMES if names is None else {**_NAMES, **names}, persistent).run()


def restricted_loads(source: bytes | str | os.PathLike[str], *, encoding: str = "latin1") -> Any:
    """Load a pickle of NumPy arrays, SciPy CSR and CSC matrices, and plain containers.

    Args:
      source: Content of the pickle, or path of its file.
      encoding: Encoding of strings from Python 2.

    Raises:
      DataError: If the pickle uses any other name (nothing of it is called), or is damaged.
    """
    name = "the pickle" if isinstance(source, bytes) else os.fspath(source)
    with reading(name):
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
        try:
            return read_pickle(content, encoding=encoding)
        except DataError as error:
            raise DataError(f"{name}: {error}") from None
