"""Arrays, sparse matrices and tables from files, checked before NumPy or SciPy sees them.

A native kernel trusts its arguments: an item size, a row pointer or an index from a damaged file makes it
read foreign memory. Types, shapes and indices are therefore compared with the bytes of the file first.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from jgd.data.archives import open_zip, read_member
from jgd.data.storage import one_line, reading, refuse_web_page

__all__ = [
    "checked_array",
    "checked_sparse",
    "plain_dtype",
    "read_npy",
    "read_npz",
    "read_table",
    "text_lines",
]

_TYPES = re.compile(r"[<>=|]?(?:\?|b1|[iu][1248]|f[248]|c8|c16|[SaU][1-9]\d{0,6})")
_DIMENSIONS = 32


def plain_dtype(code: Any) -> np.dtype:
    """Return the NumPy type of a code such as ``"<f4"``: Booleans, numbers or strings of a bounded length.

    Args:
      code: Code of the type.

    Raises:
      ValueError: If the code names anything else, such as a structured type, objects or dates.
    """
    if not isinstance(code, str) or not _TYPES.fullmatch(code):
        raise ValueError(f"{str(code)[:40]!r} is no plain type of numbers or strings")
    return np.dtype(code)


def checked_array(
    data: bytes | bytearray | memoryview, dtype: np.dtype, shape: Any, *, fortran: bool = False
) -> np.ndarray:
    """Return an array on a buffer, without a copy.

    Args:
      data: Content; the array is read-only where this is.
      dtype: Type, see `plain_dtype`.
      shape: Shape that the file states.
      fortran: Whether the first index runs fastest.

    Raises:
      ValueError: If the shape is not a shape or does not fit the bytes, or the content does not fit the type.
    """
    sizes = _sizes(shape)
    count = _count(sizes)
    if count * dtype.itemsize != len(data):
        text = ", ".join(str(size)[:24] for size in sizes)
        raise ValueError(f"it states an array ({text}) of {dtype.name} but holds {len(data)} bytes of it")
    if not count:
        return np.empty(sizes, dtype)
    flat = np.frombuffer(data, dtype)
    if dtype.kind == "b" and flat.view(np.uint8).max() > 1:
        raise ValueError("it holds truth values that are neither 0 nor 1")
    if dtype.kind == "U":
        points = flat.view(np.dtype(np.uint32).newbyteorder(dtype.byteorder))
        if points.max() > 0x10FFFF:
            raise ValueError("it holds text that is no Unicode")
    return flat.reshape(sizes, order="F" if fortran else "C")


def _sizes(shape: Any) -> tuple[int, ...]:
    sizes = tuple(shape) if isinstance(shape, list | tuple) else None
    if sizes is None or len(sizes) > _DIMENSIONS:
        raise ValueError(f"an array cannot have the shape {str(shape)[:60]}")
    for size in sizes:
        if type(size) is not int or not 0 <= size < 2**48:
            raise ValueError(f"an array cannot have {str(size)[:40]} rows or columns")
    return sizes


def _count(sizes: Sequence[int]) -> int:
    """Multiply sizes; integers of Python do not overflow."""
    count = 1
    for size in sizes:
        count *= size
    return count


def checked_sparse(
    data: Any, indices: Any, indptr: Any, shape: Sequence[Any], make: Any = sp.csr_array
) -> Any:
    """Return a CSR or CSC matrix after checking that every index lies inside it.

    Args:
      data: Real numbers ``[nnz]``.
      indices: Column of each number ``[nnz]`` (row for CSC), in any integer type.
      indptr: Begin of each row ``[rows + 1]`` (column for CSC).
      shape: Shape ``(rows, columns)``.
      make: Class: `scipy.sparse.csr_array` or one of its relatives.

    Raises:
      ValueError: If the arrays are not those of such a matrix; the message states what is wrong.
    """
    arrays = {"data": data, "indices": indices, "indptr": indptr}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.ndim != 1:
            raise ValueError(f"{name} of a sparse matrix must be a vector")
        if array.dtype.kind not in ("biuf" if name == "data" else "iu"):
            raise ValueError(f"{name} of a sparse matrix cannot be {array.dtype.name}")
    try:
        rows, columns = (int(n) for n in shape)
    except (TypeError, ValueError):
        raise ValueError(f"a sparse matrix cannot have the shape {str(shape)[:60]}") from None
    if not (0 <= rows < 2**31 and 0 <= columns < 2**31):
        raise ValueError(f"a sparse matrix cannot have the shape ({str(rows)[:24]}, {str(columns)[:24]})")
    major, minor = (rows, columns) if "csr" in make.__name__ else (columns, rows)
    if len(indptr) != major + 1:
        raise ValueError(f"a sparse matrix of {major} rows has {len(indptr)} row pointers, not {major + 1}")
    for name, array in (("indices", indices), ("indptr", indptr)):
        if array.size and int(array.max()) >= 2**62:
            raise ValueError(f"{name} of a sparse matrix hold {int(array.max())}")
    starts, places = indptr.astype(np.int64), indices.astype(np.int64)
    if starts[0] != 0 or (np.diff(starts) < 0).any():
        row = 0 if starts[0] != 0 else int(np.argmax(np.diff(starts) < 0)) + 1
        raise ValueError(f"the row pointers of a sparse matrix do not rise from 0: number {row}")
    count = int(starts[-1])
    if count != len(places) or count != len(data):
        raise ValueError(
            f"the row pointers of a sparse matrix end at {count}, but it has {len(places)} indices and "
            f"{len(data)} numbers"
        )
    if count and (places.min() < 0 or places.max() >= minor):
        wrong = int(np.argmax((places < 0) | (places >= minor)))
        raise ValueError(f"index {wrong} of a sparse matrix is {places[wrong]}, outside 0..{minor - 1}")
    return make((data, places, starts), shape=(rows, columns))


# Files of arrays


_DESCR = re.compile(r"""['"]descr['"]\s*:\s*['"]([^'"]*)['"]""")
_ORDER = re.compile(r"""['"]fortran_order['"]\s*:\s*(True|False)""")
_SHAPE = re.compile(r"""['"]shape['"]\s*:\s*\(([\d, L]*)\)""")
_OBJECTS = ("|O", "O", "|O8")


def _npy(content: bytearray | bytes, objects: bool) -> np.ndarray:
    """Read the content of an ``.npy`` file. The header is matched, not evaluated."""
    if content[:6] != b"\x93NUMPY" or len(content) < 10 or content[6] not in (1, 2, 3):
        raise ValueError(f"it begins with {bytes(content[:6])!r}, which no file of NumPy does")
    width = 2 if content[6] == 1 else 4
    start = 8 + width
    end = start + int.from_bytes(content[8:start], "little")
    if end > len(content) or end > 2**16:
        raise ValueError("its header is cut off")
    header = bytes(content[start:end]).decode("latin1")
    descr, order, shape = (pattern.findall(header) for pattern in (_DESCR, _ORDER, _SHAPE))
    if len(order) != 1 or len(shape) != 1:
        raise ValueError(f"its header {header[:80].strip()!r} states no shape")
    if len(descr) != 1:
        raise ValueError(f"its header {header[:80].strip()!r} states no plain type of numbers or strings")
    sizes = tuple(int(size.strip().rstrip("L")) for size in shape[0].split(",") if size.strip())
    fortran = order[0] == "True"
    data = memoryview(content)[end:]
    if descr[0] in _OBJECTS:
        if not objects:
            raise ValueError("it holds Python objects, which are not read")
        return _objects(bytes(data), sizes)
    return checked_array(data, plain_dtype(descr[0]), sizes, fortran=fortran)


def _objects(content: bytes, sizes: tuple[int, ...]) -> np.ndarray:
    from jgd.data.pickles import read_pickle  # it imports this module

    value = read_pickle(content)
    if not isinstance(value, np.ndarray) or value.dtype != object or value.size != _count(sizes):
        raise ValueError(f"its objects do not fit the shape {sizes}")
    return value.reshape(sizes)


def read_npy(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an ``.npy`` file of numbers or strings.

    Args:
      path: Path of the file.

    Raises:
      DataError: If the file is missing, damaged or holds something else.
    """
    with reading(path):
        return _npy(Path(path).read_bytes(), objects=False).copy("K")


def read_npz(
    path: str | os.PathLike[str], *, objects: bool = False, limit: int | None = None
) -> dict[str, np.ndarray]:
    """Read all arrays of an ``.npz`` file, comparing the checksum of each.

    Args:
      path: Path of the file.
      objects: Whether arrays of objects are read, by `jgd.data.pickles`; else they are refused.
      limit: Bytes that the file may unpack to, see `jgd.data.archives.unpack_limit`.

    Raises:
      DataError: If the file is missing, damaged or holds what is not allowed; the message names the array.
    """
    arrays = {}
    with reading(path), open_zip(path, limit) as archive:
        for member in archive.namelist():
            name = member.removesuffix(".npy")
            if name in arrays:
                raise ValueError(f"it holds two arrays {name[:80]!r}")
            try:
                arrays[name] = _npy(read_member(archive, member), objects)
            except ValueError as error:
                raise ValueError(f"array {name[:80]!r}: {one_line(error)}") from error
    return arrays


def text_lines(path: str | os.PathLike[str]) -> Iterator[str]:
    """Yield the lines of a text file in UTF-8 without their ends, which may be those of Windows.

    Args:
      path: Path of the file.

    Raises:
      DataError: If the file is missing, a web page, or not text; the message names the line.
    """
    refuse_web_page(path)
    number = 0
    with reading(path):
        try:
            with open(path, encoding="utf-8-sig") as file:
                for number, line in enumerate(file, 1):
                    if "\0" in line:
                        raise ValueError(f"line {number} holds a NUL byte")
                    yield line.rstrip("\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"after line {number} it is no text in UTF-8: {error.reason}") from None


def read_table(path: str | os.PathLike[str], dtype: Any, delimiter: str | None = None) -> np.ndarray:
    """Read a text file of numbers as a matrix ``[rows, columns]``.

    Args:
      path: Path of the file.
      dtype: Type of the numbers.
      delimiter: Separator of the columns; None for white space.

    Raises:
      DataError: If the file is missing, empty or no such table; the message names the row.
    """
    rows = (line for line in text_lines(path) if line.strip())
    with reading(path):
        first = next(rows, None)
        if first is None:
            raise ValueError("it is empty")
        table = np.loadtxt(
            itertools.chain([first], rows), dtype=dtype, delimiter=delimiter, comments=None, ndmin=2
        )
        if table.dtype.kind == "f" and not np.isfinite(table).all():
            row = int(np.argmin(np.isfinite(table).all(1)))
            raise ValueError(f"row {row + 1} holds a number that is not finite")
        return table
