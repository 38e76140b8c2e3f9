"""Folder of the data files, downloads with digests, and errors of files.

A loader describes a file by a `Remote` and calls `require`: a file that is present needs no network. The
content is read by `jgd.data.arrays`, `jgd.data.archives` and `jgd.data.pickles`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import wrap_file

from jgd.files import atomic_write

__all__ = [
    "DataError",
    "Remote",
    "cache_dir",
    "check_sha256",
    "data_dir",
    "one_line",
    "present",
    "reading",
    "refuse_web_page",
    "require",
]

_VARIABLE = "JGD_DATA_DIR"
_CHUNK = 2**20
LARGEST = 2**33  # bytes of a download, so that an endless one does not fill the disk
_HINT = "delete it and download it again"
_log = logging.getLogger("jgd")


def one_line(text: object, size: int = 300) -> str:
    """Return a text or the message of an error in one line of bounded length.

    Args:
      text: Text or error; the type of an error stands for an empty message. A text from a file may be long
        and hold control characters.
      size: Largest number of characters.
    """
    given = str(text)
    short = "".join(c if c.isprintable() else " " for c in given[: 4 * size])
    short = " ".join(short.split()) or type(text).__name__
    return short if len(short) <= size and len(given) <= 4 * size else f"{short[:size]} ..."


class DataError(ValueError):
    """Error of a data file or name that is missing, damaged or unknown; one line that states what to do."""

    def __init__(self, message: object = ""):
        super().__init__(one_line(message, 1500))


class Remote(NamedTuple):
    """A file of a dataset.

    Attributes:
      path: Path under `data_dir`, with forward slashes.
      urls: Official addresses, tried in order.
      sha256: Digest of the official file; None where it is not known, so that a download is not verified.
    """

    path: str
    urls: tuple[str, ...]
    sha256: str | None = None


def cache_dir() -> Path:
    """Return ``jgd`` in the user's cache directory, for files that can be made again."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "jgd"


def data_dir() -> Path:
    """Return the folder of all data files: ``$JGD_DATA_DIR``, else `cache_dir`."""
    if chosen := os.environ.get(_VARIABLE):
        return Path(chosen).expanduser()
    return cache_dir()


def present(remote: Remote) -> bool:
    """Return whether a file is under `data_dir`."""
    return (data_dir() / remote.path).is_file()


@contextmanager
def reading(path: str | os.PathLike[str], hint: str = _HINT) -> Iterator[None]:
    """Turn any error while a file is parsed into a `DataError` that names the file.

    Args:
      path: Path of the file.
      hint: Advice at the end of the message.

    Raises:
      DataError: If the block raises any other exception; a `DataError` passes unchanged.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # a damaged file can break a parser in any way
        raise DataError(f"{path} cannot be read ({one_line(error)}): {hint}") from error


_WEB_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype html|html|head|\?xml)\b", re.IGNORECASE)


def _is_web_page(content: bytes) -> bool:
    return _WEB_PAGE.match(content) is not None


def refuse_web_page(path: str | os.PathLike[str]) -> None:
    """Check that a file is not a web page that a server sent in its place.

    Args:
      path: Path of the file.

    Raises:
      DataError: If the file is a web page, or cannot be read.
    """
    with reading(path), open(path, "rb") as file:
        if _is_web_page(file.read(512)):
            raise DataError(
                f"{path} is a web page, which a server or a proxy sent in place of the data: {_HINT}, or "
                "get it from elsewhere"
            )


# Digests


def _digest(path: str | os.PathLike[str]) -> str:
    with reading(path), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: str | os.PathLike[str], expected: str) -> None:
    """Compare the digest of a file.

    Args:
      path: Path of the file.
      expected: Expected digest.

    Raises:
      DataError: If the digest differs; the message holds both.
    """
    actual = _digest(path)
    if actual != expected:
        raise DataError(f"{path} has SHA-256 {actual}, expected {expected}: {_HINT}")


def _known_digest(path: Path) -> str:
    """Return the digest of a file, computed once while its size and time of change stay the same.

    Digests are kept in ``digests.json`` in the user's cache, because the folder of the data may be read-only;
    where the cache is read-only too, they are computed each time.
    """
    store = cache_dir() / "digests.json"
    status = path.stat()
    name, stamp = str(path.absolute()), [status.st_size, status.st_mtime_ns]
    known: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError, RecursionError):  # absent or damaged: start again
        found = json.loads(store.read_text(encoding="utf-8"))
        known = found if isinstance(found, dict) else {}
    entry = known.get(name)
    if isinstance(entry, list) and entry[:2] == stamp and len(entry) == 3 and isinstance(entry[2], str):
        return entry[2]
    digest = _digest(path)
    known[name] = [*stamp, digest]
    with contextlib.suppress(OSError, ValueError), atomic_write(store, "w") as file:
        json.dump(known, file)
    return digest


_warned: set[Path] = set()


def _compare(path: Path, expected: str) -> None:
    """Warn, once for each folder in a process, if a file is not the official one; it is read all the same."""
    actual = _known_digest(path)
    if actual != expected and path.parent not in _warned:
        _warned.add(path.parent)
        _log.warning(
            "%s is not the official file (SHA-256 %s..., expected %s...): results may differ; delete it to "
            "have it downloaded again",
            path,
            actual[:12],
            expected[:12],
        )


# Downloads


def require(remote: Remote) -> Path:
    """Return the local path of a file; download it if it is not there.

    A file that is present needs no network. Where its official digest is known, it is compared once, and a
    difference is logged, because the file may be one's own in the official format.

    Args:
      remote: File and its addresses.

    Raises:
      DataError: If the file is missing and cannot be downloaded, no address returns the official file, or a
        web page is in its place.
    """
    path = data_dir() / remote.path
    if path.is_file():
        refuse_web_page(path)
        if remote.sha256 is not None:
            _compare(path, remote.sha256)
        return path
    failures = []
    for url in remote.urls:
        try:
            _download(url, path, remote.sha256)
        except (OSError, HTTPException, DataError) as error:
            failures.append(f"{url} ({one_line(error)})")
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
        length = response.headers.get("Content-Length") or ""
        size = int(length) if length.isascii() and length.isdigit() else 0
        progress = wrap_file(response, size, description=path.name, console=Console(stderr=True))
        with progress as source:
            while chunk := source.read(_CHUNK):
                if not file.tell() and _is_web_page(chunk[:512]):
                    raise DataError("it sent a web page, not the file: not kept")
                if file.tell() + len(chunk) > (size or LARGEST):
                    raise DataError(f"it sent more than {size or LARGEST} bytes: not kept")
                digest.update(chunk)
                file.write(chunk)
        if size and file.tell() != size:
            raise OSError(f"the connection ended after {file.tell()} of {size} bytes")
        if sha256 is not None and digest.hexdigest() != sha256:
            raise DataError(f"its file has SHA-256 {digest.hexdigest()}, expected {sha256}: not kept")
