"""Where data files live, and how they get there.

A loader describes a file by a `Remote` and asks `require` for it: a file that is present is never looked up
on the network. What is inside is read by `jgd.data.arrays`, `jgd.data.archives` and `jgd.data.pickles`.
"""

from __future__ import annotations

import hashlib
import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import wrap_file

from jgd.files import atomic_write

__all__ = [
    "DataError",
    "Remote",
    "check_sha256",
    "data_dir",
    "one_line",
    "present",
    "reading",
    "require",
]

_VARIABLE = "JGD_DATA_DIR"
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


def one_line(error: BaseException, size: int = 300) -> str:
    """What an error says, in one line of bounded length; its type where it says nothing."""
    text = "".join(c if c.isprintable() else " " for c in str(error)[: 4 * size])
    text = " ".join(text.split()) or type(error).__name__
    return text if len(text) <= size else f"{text[:size]} ..."


@contextmanager
def reading(path: str | os.PathLike[str], hint: str = "delete it and download it again") -> Iterator[None]:
    """Turn whatever goes wrong while a file is parsed into a `DataError` that names it.

    Args:
      path: the file.
      hint: what to do about it.

    Raises:
      DataError: for any other exception in the block; a `DataError` passes unchanged.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # a damaged file can break a parser in any way
        raise DataError(f"{path} cannot be read ({one_line(error)}): {hint}") from error


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
