"""A function in a process of its own, which may be killed, or end itself."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any


def forked(work: Callable[..., Any], *args: Any, seconds: float | None = None) -> tuple[Any, int | None]:
    """Run a function in a fork of this process, which must not have used JAX.

    Args:
      work: the function; what it returns goes through a pipe, and must be small.
      *args: its arguments.
      seconds: after which the process is killed.

    Returns:
      What it returned, None where it came to no end; and the exit code of the process.
    """
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=lambda: theirs.send(work(*args)))
    process.start()
    theirs.close()
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
    try:
        return mine.recv(), process.exitcode
    except EOFError:
        return None, process.exitcode
