"""Files and folders that are complete or absent, and belong to one run at a time.

What does not exist yet, or is about to be removed, has a name from `aside`: a process that is killed at any
moment leaves nothing else incomplete, and `tidy` removes it. The module needs the standard library only, so
that every other one may import it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

__all__ = [
    "InUse",
    "aside",
    "atomic_folder",
    "atomic_write",
    "digests",
    "lock",
    "named",
    "read_record",
    "remove",
    "tidy",
    "write_record",
]

_ASIDE = re.compile(r"\..*\.[0-9a-f]{32}\.part", re.DOTALL)
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}


class InUse(ValueError):
    """Error: another process or thread uses the folder."""


# --- complete or absent -------------------------------------------------------------------------


def aside(path: str | os.PathLike) -> Path:
    """Return a name beside ``path`` for what does not exist yet, or is about to be removed."""
    path = Path(path)
    name = path.name.encode(errors="surrogateescape")[:100].decode(errors="ignore")  # names have 255 bytes
    return path.with_name(f".{name}.{uuid.uuid4().hex}.part")


@contextmanager
def named(path: str | os.PathLike) -> Iterator[None]:
    """Name this file in errors of the system in the block that name none, such as those of writing."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = os.fspath(path)
        raise


@contextmanager
def atomic_write(path: str | os.PathLike, mode: str = "wb") -> Iterator[Any]:
    """Open a temporary file beside ``path`` that replaces it if all goes well and is removed otherwise.

    Args:
      path: Path of the file.
      mode: Mode of `open`, ``"wb"`` or ``"w"``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = aside(path)
    try:
        encoding = None if "b" in mode else "utf-8"
        with named(path), temporary.open(mode.replace("w", "x"), encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Open a temporary folder beside ``path`` that replaces it if all goes well and is removed otherwise.

    An earlier file or folder at ``path`` is removed first, completely as well.
    """
    path = Path(path)
    temporary = aside(path)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        remove(path)
        os.rename(temporary, path)
    finally:
        with suppress(OSError):
            _delete(temporary)


def remove(path: str | os.PathLike) -> None:
    """Remove a file or a folder, if it exists: a folder disappears at once and is emptied afterwards."""
    path = Path(path)
    gone = aside(path)
    try:
        os.rename(path, gone)
    except (FileNotFoundError, NotADirectoryError):
        return
    _delete(gone)


def tidy(folder: str | os.PathLike) -> None:
    """Remove what killed processes left in a folder. The caller must hold its `lock`."""
    folder = Path(folder)
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if _ASIDE.fullmatch(path.name):
            _delete(path)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# --- records ------------------------------------------------------------------------------------


def digests(folder: str | os.PathLike, *names: str) -> dict[str, str]:
    """Compute checksums of the files of a folder, by their path in it.

    Args:
      folder: Folder that holds them.
      names: Files and folders in it, all by default; missing ones are left out.
    """
    folder, found = Path(folder), {}
    places = [folder / name for name in names] or [folder]
    for path in sorted(p for place in places for p in (place, *place.rglob("*")) if p.is_file()):
        with path.open("rb") as file:
            total = hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=16))
        found[path.relative_to(folder).as_posix()] = total.hexdigest()
    return found


def write_record(path: str | os.PathLike, record: dict[str, Any]) -> None:
    """Write a JSON object with a checksum of its content."""
    with atomic_write(path, "w") as file:
        json.dump(record | {"checksum": _checksum(record)}, file, indent=1)
        file.write("\n")


def read_record(path: str | os.PathLike) -> dict[str, Any] | None:
    """Read what `write_record` wrote; return None for a missing or damaged record."""
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        return record if record.pop("checksum") == _checksum(record) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _checksum(record: dict[str, Any]) -> str:
    text = json.dumps(record, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


# --- one at a time ------------------------------------------------------------------------------


@contextmanager
def lock(folder: str | os.PathLike) -> Iterator[None]:
    """Hold a folder exclusively. The system releases the lock of a process that was killed.

    Raises:
      InUse: If another process or thread holds it.
    """
    path = Path(folder) / ".lock"
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _take(file)
            if _is_at(file, path):  # its last owner may just have removed it
                break
        except OSError as error:
            if error.errno in _NO_LOCKS:  # a file system without locks
                break
            owner = os.read(file, 200).decode(errors="replace").strip() or "another process"
            os.close(file)
            if error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                raise
            raise InUse(
                f"{folder} is in use by {owner}: wait until it has ended, or choose another folder"
            ) from None
        os.close(file)
    try:
        os.truncate(file, 0)
        os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        try:
            with suppress(OSError):
                path.unlink()
        finally:
            os.close(file)


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _take(file: int) -> None:
    """Lock an open file without waiting."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
