"""Where data files live, how they get there, and how they are read without trusting them.

A loader describes a file by a `Remote` and asks `require` for it: a file that is present is never looked up
on the network. Pickles go through an unpickler that knows arrays, sparse matrices and containers only;
archives are unpacked without links or paths that leave the folder; writes are atomic.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import shutil
import stat
import tarfile
import urllib.request
import uuid
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from rich.console import Console
from rich.progress import wrap_file

from jgd.files import atomic_write

__all__ = [
    "DataError",
    "Remote",
    "archive_files",
    "check_sha256",
    "data_dir",
    "present",
    "read_npz",
    "read_table",
    "reading",
    "require",
    "restricted_loads",
    "unpack",
]

_VARIABLE = "JGD_DATA_DIR"
_LIMIT = 16 * 2**30  # bytes that one archive may unpack to
_CHUNK = 2**20


class DataError(ValueError):
    """A data file or name is missing, damaged or unknown; the message says what to do."""


class Remote(NamedTuple):
    """A file of a dataset.

    Attributes:
      path: where it lies under `data_dir`, with forward slashes.
      urls: official addresses, tried in order.
      sha256: digest of the official file, or None where it is not known; then a download is not verified.
    """

    path: str
    urls: tuple[str, ...]
    sha256: str | None = None


def data_dir() -> Path:
    """The folder of all data files: ``$JGD_DATA_DIR``, else ``jgd`` in the user's cache directory."""
    if chosen := os.environ.get(_VARIABLE):
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "jgd"


def present(remote: Remote) -> bool:
    """Whether the file is under `data_dir`."""
    return (data_dir() / remote.path).is_file()


@contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn whatever goes wrong while a file is parsed into a `DataError` that names it.

    Raises:
      DataError: for any other exception in the block; a `DataError` passes unchanged.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # a damaged file can break a parser in any way
        reason = str(error) or type(error).__name__
        raise DataError(f"{path} cannot be read ({reason}): delete it and download it again") from error


def check_sha256(path: str | os.PathLike[str], expected: str) -> None:
    """Compare the digest of a file.

    Raises:
      DataError: where it differs, naming both digests.
    """
    with reading(path), open(path, "rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != expected:
        raise DataError(f"{path} has SHA-256 {actual}, expected {expected}: delete it and download it again")


def require(remote: Remote) -> Path:
    """The local path of a file, downloaded if it is not there.

    A file that is present is returned as it is, without network access and without checking its digest.

    Args:
      remote: what the file is and where it comes from.

    Raises:
      DataError: where the file is missing and cannot be downloaded, or the download has another digest.
    """
    path = data_dir() / remote.path
    if path.is_file():
        return path
    failures = []
    for url in remote.urls:
        try:
            _download(url, path, remote.sha256)
        except (OSError, HTTPException) as error:
            failures.append(f"{url} ({error})")
        else:
            return path
    tried = "; ".join(failures) or "nowhere: it has no public address"
    raise DataError(
        f"{remote.path} is not in {data_dir()}. Tried to download it from {tried}. "
        f"Put the file there by hand, or set {_VARIABLE} to a folder that holds it."
    )


def _download(url: str, path: Path, sha256: str | None) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "jgd"})
    digest = hashlib.sha256()
    with urllib.request.urlopen(request, timeout=60) as response, atomic_write(path) as file:
        size = int(response.headers.get("Content-Length") or 0)
        progress = wrap_file(response, size, description=path.name, console=Console(stderr=True))
        with progress as source:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                file.write(chunk)
        if size and file.tell() != size:
            raise OSError(f"the connection ended after {file.tell()} of {size} bytes")
        if sha256 is not None and digest.hexdigest() != sha256:
            raise DataError(
                f"{url} has SHA-256 {digest.hexdigest()}, expected {sha256} for {path.name}: not kept. "
                f"If you have the right file, put it under {_VARIABLE}."
            )


# Pickles


def _encode(text: str, encoding: str) -> bytes:
    """What pickles of protocol 2 call to make bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise DataError(f"a pickle with {encoding} bytes is not allowed")
    return text.encode("latin1")


_new_array: Any = np.zeros(1).__reduce__()[0]
_from_buffer: Any = np.zeros(1).__reduce_ex__(5)[0]


def _reconstruct(_: None, shape: tuple[int, ...], dtype: Any) -> Any:
    """What pickles call to make an array that is filled later; always a plain one."""
    return _new_array(np.ndarray, shape, dtype)


def _allowed() -> dict[tuple[str, str], Any]:
    names: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): None,  # named as an argument of `_reconstruct`, never called
        ("numpy", "dtype"): np.dtype,
        ("collections", "defaultdict"): defaultdict,
        ("collections", "OrderedDict"): OrderedDict,
        ("_codecs", "encode"): _encode,
    }
    for core in ("numpy.core", "numpy._core"):
        names[f"{core}.multiarray", "_reconstruct"] = _reconstruct
        names[f"{core}.multiarray", "scalar"] = np.float64(0).__reduce__()[0]
        names[f"{core}.numeric", "_frombuffer"] = _from_buffer
    for builtin in (list, dict, tuple, set, frozenset, int, float, complex, bool, str):
        for module in ("builtins", "__builtin__"):
            names[module, builtin.__name__] = builtin
    return names


_ALLOWED = _allowed()
_SPARSE = {
    (f"scipy.sparse.{private}{kind}", f"{kind}_{form}"): getattr(sp, f"{kind}_{form}")
    for kind in ("csr", "csc")
    for form in ("matrix", "array")
    for private in ("", "_")
}


class _Unpickler(pickle.Unpickler):
    """Knows plain data only. An empty class of its own stands for each sparse matrix class."""

    def __init__(self, file: io.BytesIO, encoding: str):
        super().__init__(file, encoding=encoding)
        self.stand_ins: dict[type, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _SPARSE:
            stand_in = type(name, (), {})
            self.stand_ins[stand_in] = _SPARSE[module, name]
            return stand_in
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise DataError(
                f"the pickle asks for {module}.{name}, which is not plain data: it was not loaded"
            ) from None

    def plain(self) -> Any:
        """Load, and make a sparse matrix through its constructor, which checks its indices."""
        value = self.load()
        make = self.stand_ins.get(type(value))
        return value if make is None else _sparse(make, vars(value))


def _sparse(make: Any, parts: dict[str, Any]) -> Any:
    matrix = make(
        (np.asarray(parts["data"]), np.asarray(parts["indices"]), np.asarray(parts["indptr"])),
        shape=tuple(int(n) for n in parts["_shape"]),
    )
    matrix.check_format(full_check=True)
    return matrix


def restricted_loads(source: bytes | str | os.PathLike[str], *, encoding: str = "latin1") -> Any:
    """Load a pickle of NumPy arrays and plain containers, or of one SciPy CSR or CSC matrix.

    Args:
      source: the pickle itself, or the path of a file that is one.
      encoding: of strings from Python 2.

    Raises:
      DataError: where it asks for anything else (nothing of it is called), or is damaged.
    """
    name = "the pickle" if isinstance(source, bytes) else os.fspath(source)
    with reading(name):
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
        try:
            return _Unpickler(io.BytesIO(content), encoding).plain()
        except DataError as error:
            raise DataError(f"{name}: {error}") from None


# Tables


def read_npz(path: str | os.PathLike[str], *, objects: bool = False) -> dict[str, np.ndarray]:
    """Read all arrays of an ``.npz`` file, checking the CRC of each.

    Args:
      path: the file.
      objects: read arrays of objects through `restricted_loads`; else they are refused.

    Raises:
      DataError: where the file is missing, damaged or holds what is not allowed.
    """
    with reading(path), zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > _LIMIT:
            raise ValueError(f"it unpacks to more than {_LIMIT} bytes")
        return {
            entry.filename.removesuffix(".npy"): _read_npy(archive.read(entry), objects)
            for entry in archive.infolist()
        }


def _read_npy(content: bytes, objects: bool) -> np.ndarray:
    file = io.BytesIO(content)
    if objects:
        version = np.lib.format.read_magic(file)
        header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if header is not None:
            shape, _, dtype = header(file)
            if dtype.hasobject:
                return np.asarray(restricted_loads(file.read()), dtype=object).reshape(shape)
        file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def read_table(path: str | os.PathLike[str], dtype: Any, delimiter: str | None = None) -> np.ndarray:
    """Read a text file of numbers as a matrix ``[rows, columns]``.

    Raises:
      DataError: where the file is missing, empty or no such table.
    """
    with reading(path):
        lines = Path(path).read_text().splitlines()
        if not any(lines):
            raise ValueError("it is empty")
        return np.loadtxt(lines, dtype=dtype, delimiter=delimiter, ndmin=2)


# Archives


class _Member(NamedTuple):
    name: str
    kind: str  # "file", "folder", or what it is else
    open: Callable[[], IO[bytes] | None]


@contextmanager
def _members(archive: Path) -> Iterator[Iterator[_Member]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as source:
            yield (
                _Member(
                    entry.filename,
                    "link"
                    if stat.S_ISLNK(entry.external_attr >> 16)
                    else ("folder" if entry.is_dir() else "file"),
                    lambda entry=entry: source.open(entry),
                )
                for entry in source.infolist()
            )
    else:
        with tarfile.open(archive) as tar:
            yield (
                _Member(
                    entry.name,
                    "file" if entry.isfile() else "folder" if entry.isdir() else "link or device",
                    lambda entry=entry: tar.extractfile(entry),
                )
                for entry in tar
            )


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name:
        raise DataError(f"it holds {name!r}, which leads out of the folder")
    return path


def archive_files(
    archive: str | os.PathLike[str], *, limit: int = _LIMIT
) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Read a zip or tar archive file by file, in its order, without unpacking it.

    Args:
      archive: the file.
      limit: bytes that may be read.

    Yields:
      The path within the archive and the content of each file.

    Raises:
      DataError: for a damaged archive, links, devices, paths that lead elsewhere, or too many bytes.
    """
    with reading(archive), _members(Path(archive)) as members:
        for member in members:
            try:
                path = _inside(member.name)
                if member.kind not in ("file", "folder"):
                    raise DataError(f"{member.name!r} is a {member.kind}")
            except DataError as error:
                raise DataError(f"{archive} was not read: {error}") from None
            source = member.open() if member.kind == "file" else None
            if source is not None:
                with source:
                    content = source.read(limit + 1)
                limit -= len(content)
                if limit < 0:
                    raise DataError(f"{archive} holds more than the limit allows")
                yield path, content


def unpack(
    archive: str | os.PathLike[str],
    dest: str | os.PathLike[str],
    *,
    root: str = "",
    limit: int = _LIMIT,
) -> Path:
    """Unpack a zip or tar archive into a new folder, all of it or nothing.

    Args:
      archive: the file.
      dest: the folder to make; it must not exist, or be empty.
      root: unpack only what lies under this folder of the archive, without that prefix.
      limit: bytes that may be written.

    Returns:
      ``dest``.

    Raises:
      DataError: for a damaged archive, links, devices, paths that lead elsewhere, or too many bytes.
    """
    archive, dest = Path(archive), Path(dest)
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise DataError(f"{dest} exists already: remove it to unpack {archive} again")
    dest.parent.mkdir(parents=True, exist_ok=True)
    temporary = dest.with_name(f".{dest.name}.{uuid.uuid4().hex}.part")
    temporary.mkdir()
    try:
        with reading(archive), _members(archive) as members:
            try:
                _extract(members, temporary, PurePosixPath(root), limit)
            except DataError as error:
                raise DataError(f"{archive} was not unpacked: {error}") from None
        os.replace(temporary, dest)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return dest


def _extract(members: Iterator[_Member], folder: Path, root: PurePosixPath, limit: int) -> None:
    for member in members:
        path = _inside(member.name)
        if member.kind not in ("file", "folder"):
            raise DataError(f"{member.name!r} is a {member.kind}")
        if member.kind == "folder" or not path.is_relative_to(root):
            continue
        target = folder / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        source = member.open()
        assert source is not None  # regular files have content
        with source, target.open("xb") as file:
            while chunk := source.read(_CHUNK):
                limit -= len(chunk)
                if limit < 0:
                    raise DataError("it holds more than the limit allows")
                file.write(chunk)
