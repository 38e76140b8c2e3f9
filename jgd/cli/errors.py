"""What a user did wrong, or what the machine refuses, in one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Finished", "Mistake", "Terminated", "mistakes", "note", "described"]


class Mistake(Exception):
    """A user's mistake. The message is one line that says what to do; the exit code is 2."""


class Finished(Exception):
    """There is nothing to do: the folder holds this run. The message is what the run printed."""


class Terminated(BaseException):
    """The process was asked to end (SIGTERM). Nothing catches it but the entry point."""


def note(text: str) -> None:
    """Tell something in one line on standard error."""
    print(f"jgd: note: {' '.join(text.split())}", file=sys.stderr, flush=True)


def described(error: OSError) -> str:
    """Return what the system refused, and where."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


@contextmanager
def mistakes() -> Iterator[None]:
    """Turn what the library refuses in this block into a mistake of the user.

    Raises:
      Mistake: For a `ValueError`, `ImportError` or `OSError`.
    """
    try:
        yield
    except BrokenPipeError:  # no mistake: the reader of a pipe has seen enough
        raise
    except OSError as error:
        raise Mistake(described(error)) from error
    except (ValueError, ImportError) as error:
        raise Mistake(str(error)) from error
