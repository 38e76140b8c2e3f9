"""Archives and compressed files, read in pieces, to their end, and within a limit.

A few kilobytes can unpack to gigabytes. The unpacked size is therefore limited by what the format can hold,
where a loader knows that, and else by the size of the file, see `unpack_limit`. Links, devices and paths that
lead out of the folder are refused.
"""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import uuid
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from jgd.data.storage import DataError, reading

__all__ = ["archive_files", "open_zip", "read_member", "read_stream", "unpack", "unpack_limit"]

LIMIT_VARIABLE = "JGD_UNPACK_LIMIT"
_CHUNK = 2**20


def unpack_limit(path: str | os.PathLike[str], limit: int | None = None, base: int = 2**28) -> int:
    """Return the number of bytes that a compressed file may unpack to.

    Args:
      path: Path of the file.
      limit: Limit of the format; None for ``$JGD_UNPACK_LIMIT``, else ``base`` and 50 times the file's size.
      base: Bytes that any file may unpack to; 256 MiB by default.

    Raises:
      DataError: If ``$JGD_UNPACK_LIMIT`` is not a number.
    """
    if limit is not None:
        return limit
    chosen = os.environ.get(LIMIT_VARIABLE)
    if chosen is None:
        return base + 50 * os.path.getsize(path)
    if not chosen.isdigit():
        raise DataError(f"{LIMIT_VARIABLE} must be a number of bytes, got {chosen[:40]!r}")
    return int(chosen)


def _too_large(limit: int) -> ValueError:
    return ValueError(
        f"it holds more than the limit of {limit} bytes allows; if you trust it, set {LIMIT_VARIABLE} to a "
        "larger number of bytes"
    )


def _pieces(source: Any, limit: int) -> Iterator[bytes]:
    """Yield at most ``limit`` bytes of a stream, and read it to its end, which compares its checksum."""
    left = limit
    while chunk := source.read(min(_CHUNK, left + 1)):
        left -= len(chunk)
        if left < 0:
            raise _too_large(limit)
        yield chunk


def read_stream(source: Any, limit: int) -> bytearray:
    """Read a whole stream of bytes in pieces.

    Args:
      source: Stream of bytes.
      limit: Largest number of bytes.

    Raises:
      ValueError: If the stream holds more bytes.
    """
    content = bytearray()
    for chunk in _pieces(source, limit):
        content += chunk
    return content


@contextmanager
def open_zip(path: str | os.PathLike[str], limit: int | None = None) -> Iterator[zipfile.ZipFile]:
    """Open a zip file whose members have different names and together state no more than the limit.

    Args:
      path: Path of the file.
      limit: Bytes of all members, see `unpack_limit`.

    Raises:
      ValueError: If two members have the same name, their sizes exceed the limit, or one is compressed by
        another method than deflate.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        names = {entry.filename for entry in entries}
        if len(names) != len(entries):
            raise ValueError("it holds two members of one name")
        for entry in entries:
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{entry.filename[:80]!r} is compressed by other than deflate")
        most = unpack_limit(path, limit)
        if sum(entry.file_size for entry in entries) > most:
            raise _too_large(most)
        yield archive


def read_member(archive: zipfile.ZipFile, name: str) -> bytearray:
    """Read one member of `open_zip` in pieces, and compare its checksum."""
    entry = archive.getinfo(name)
    with archive.open(entry) as source:
        content = read_stream(source, entry.file_size)
    if len(content) != entry.file_size:
        raise ValueError(f"{name[:80]!r} holds {len(content)} bytes but states {entry.file_size}")
    return content


# Files in archives


class _Member(NamedTuple):
    name: str
    kind: str  # "file", "folder", or the name of another kind
    size: int
    open: Callable[[], IO[bytes] | None]


@contextmanager
def _members(archive: Path, limit: int) -> Iterator[Iterator[_Member]]:
    if zipfile.is_zipfile(archive):
        with open_zip(archive, limit) as source:
            yield (
                _Member(
                    entry.filename,
                    "link"
                    if stat.S_ISLNK(entry.external_attr >> 16)
                    else ("folder" if entry.is_dir() else "file"),
                    entry.file_size,
                    lambda entry=entry: source.open(entry),
                )
                for entry in source.infolist()
            )
        return
    with tarfile.open(archive) as tar:
        yield (
            _Member(
                entry.name,
                "file" if entry.isfile() else "folder" if entry.isdir() else "link or device",
                entry.size,
                lambda entry=entry: tar.extractfile(entry),
            )
            for entry in tar
        )
        # The checksum of a compressed archive is at the very end, behind what tarfile reads. The end of a tar
        # is zeros, but tarfile takes a damaged header for it too.
        stream = tar.fileobj
        assert stream is not None
        rest = [any(piece) for piece in _pieces(stream, limit)]
        if any(rest) or not rest:
            raise ValueError("it is cut off, or an entry within it is damaged")


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name:
        raise DataError(f"it holds {name[:200]!r}, which leads out of the folder")
    return path


def _checked(members: Iterator[_Member], limit: int) -> Iterator[tuple[PurePosixPath, _Member]]:
    """Yield the files of an archive; a tar unpacks members that are skipped too, so that all sizes count."""
    left = limit
    for member in members:
        path = _inside(member.name)
        if member.kind not in ("file", "folder"):
            raise DataError(f"{member.name[:200]!r} is a {member.kind}")
        left -= max(member.size, 0)
        if left < 0:
            raise _too_large(limit)
        if member.kind == "file":
            yield path, member


def archive_files(
    archive: str | os.PathLike[str],
    *,
    wanted: Callable[[PurePosixPath], bool] = lambda path: True,
    limit: int | None = None,
) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Read a zip or tar archive file by file, in its order, without unpacking it.

    The stream is read to its end, so that the checksum of a compressed archive is compared too: use the
    files only once the iterator has ended without an error.

    Args:
      archive: Path of the archive.
      wanted: Function that decides by its path within the archive whether a file is read; all by default.
      limit: Bytes that all files together may hold, see `unpack_limit`.

    Yields:
      The path within the archive and the content of each file.

    Raises:
      DataError: If the archive is damaged, or holds links, devices, paths that lead elsewhere, or too many
        bytes.
    """
    with reading(archive):
        most = unpack_limit(archive, limit)
        with _members(Path(archive), most) as members:
            files = _checked(members, most)
            while True:
                try:
                    path, member = next(files)
                except StopIteration:
                    break
                except DataError as error:
                    raise DataError(f"{archive} was not read: {error}") from None
                if not wanted(path):
                    continue
                source = member.open()
                assert source is not None  # regular files have content
                with source:
                    content = read_stream(source, member.size)
                if len(content) != member.size:
                    raise ValueError(f"{path} ends after {len(content)} of {member.size} bytes")
                yield path, bytes(content)


def unpack(
    archive: str | os.PathLike[str],
    dest: str | os.PathLike[str],
    *,
    root: str = "",
    limit: int | None = None,
) -> Path:
    """Unpack a zip or tar archive into a new folder, all of it or nothing.

    Args:
      archive: Path of the archive.
      dest: Folder to create; it must not exist, or be empty.
      root: Folder of the archive that is unpacked, without that prefix.
      limit: Bytes that may be written, see `unpack_limit`.

    Returns:
      ``dest``.

    Raises:
      DataError: If the archive is damaged, or holds links, devices, paths that lead elsewhere, or too many
        bytes.
    """
    archive, dest = Path(archive), Path(dest)
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise DataError(f"{dest} exists already: remove it to unpack {archive} again")
    dest.parent.mkdir(parents=True, exist_ok=True)
    temporary = dest.with_name(f".{dest.name}.{uuid.uuid4().hex}.part")
    temporary.mkdir()
    try:
        with reading(archive):
            most = unpack_limit(archive, limit)
            with _members(archive, most) as members:
                try:
                    _extract(_checked(members, most), temporary, PurePosixPath(root))
                except DataError as error:
                    raise DataError(f"{archive} was not unpacked: {error}") from None
        os.replace(temporary, dest)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return dest


def _extract(files: Iterator[tuple[PurePosixPath, _Member]], folder: Path, root: PurePosixPath) -> None:
    for path, member in files:
        if not path.is_relative_to(root):
            continue
        target = folder / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        source = member.open()
        assert source is not None  # regular files have content
        size = 0
        with source, target.open("xb") as file:
            for chunk in _pieces(source, member.size):
                size += file.write(chunk)
        if size != member.size:
            raise ValueError(f"{path} ends after {size} of {member.size} bytes")
