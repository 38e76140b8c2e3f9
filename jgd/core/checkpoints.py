"""Checkpoints of one stage: folders ``<step>`` in its scope, with a state in Orbax's format and a record.

A checkpoint appears complete, by one rename, and disappears by another. Its record holds the computation to
which it belongs, the digests of its files, and the logged lines of the stage: nothing that is damaged,
incomplete or of another run is ever passed to Orbax.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from jgd.core.loop import is_key
from jgd.files import atomic_folder, digests, read_record, remove, write_record

__all__ = ["Checkpoint", "checkpointer", "checksum", "prune", "restore", "save", "shapes"]

_NOTHING = {"nothing": np.zeros((), np.int32)}  # because Orbax refuses a state without arrays


class Checkpoint(NamedTuple):
    """Stored state of a stage.

    Attributes:
      step: Number of steps that are done.
      state: State after those steps.
      rows: Lines of the log that the stage has written.
    """

    step: int
    state: PyTree
    rows: list[str]


def save(scope: Path, settings: dict[str, Any], checkpoint: Checkpoint) -> None:
    """Write a checkpoint.

    Args:
      scope: Folder of the stage.
      settings: Settings that distinguish its computation from others.
      checkpoint: State to keep.

    Raises:
      OSError: If it cannot be written; earlier checkpoints remain.
    """
    arrays = _to_arrays(checkpoint.state)
    record = {"settings": settings, "step": checkpoint.step, "rows": checkpoint.rows}
    try:
        with atomic_folder(scope / str(checkpoint.step)) as folder, checkpointer() as orbax:
            orbax.save(folder / "default", args=ocp.args.StandardSave(arrays))
            write_record(folder / "record.json", record | {"files": digests(folder / "default")})
    except (OSError, MemoryError):
        raise
    except Exception as error:  # TensorStore reports a full disk by errors of several types
        reason = " ".join(str(error).split()).rpartition(": ")[2]  # without TensorStore's files
        reason = reason.partition(" [os_error")[0]
        raise OSError(
            f"the checkpoint after {checkpoint.step} steps cannot be written to {scope}: {reason[:300]}"
        ) from error


def restore(
    scope: Path, settings: dict[str, Any], like: PyTree, last: int, log: Callable[[str], None]
) -> Checkpoint | None:
    """Read the newest checkpoint that is whole and belongs to a computation; return None if there is none.

    Args:
      scope: Folder of the stage.
      settings: Settings that distinguish the computation from others.
      like: Shapes and types of the state.
      last: Number of steps of the stage; later checkpoints do not count.
      log: Function that receives a message about each checkpoint that cannot be used.
    """
    damaged, found = [], None
    steps = sorted(_steps(scope), reverse=True)
    for step in steps:
        try:
            found = _read(scope / str(step), step, settings, like, last)
            break
        except MemoryError:
            raise
        except Exception:  # damaged files raise many types of errors in Orbax and TensorStore
            damaged.append(step)
    if found is not None:  # older ones may be left by a killed process
        prune(scope, steps[: len(damaged) + 2])
    if damaged:
        which = f"checkpoint {' and '.join(map(str, damaged))} in {scope} cannot be used"
        then = "the stage starts again" if found is None else f"going on from step {found.step}"
        log(f"{which} (damaged, or of another run): {then}")
    return found


def prune(scope: Path, keep: Iterable[int]) -> None:
    """Remove all checkpoints except those of the steps ``keep``."""
    for step in _steps(scope) - set(keep):
        remove(scope / str(step))


def checksum(tree: PyTree) -> str:
    """Compute a checksum of the arrays, numbers and texts of a pytree.

    Raises:
      TypeError: If it has other leaves.
    """
    total = hashlib.blake2b(digest_size=16)
    for leaf in jax.tree.leaves(tree):
        array = np.asarray(_plain(leaf))
        if array.dtype == object:
            kind = type(leaf).__name__
            raise TypeError(f"a run is recognised by its arrays, numbers and text, not by a {kind}")
        total.update(f"{array.dtype}{array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def shapes(tree: PyTree) -> str:
    """Compute a checksum of the shapes and types of a pytree."""
    lines = [f"{leaf.dtype}{leaf.shape}" for leaf in jax.tree.leaves(tree)]
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


def _steps(scope: Path) -> set[int]:
    return {int(p.name) for p in scope.iterdir() if p.name.isascii() and p.name.isdigit()}


def _read(path: Path, step: int, settings: dict[str, Any], like: PyTree, last: int) -> Checkpoint:
    record = read_record(path / "record.json")
    if record is None or (record["settings"], record["step"]) != (settings, step) or step > last:
        raise ValueError("not of this computation")
    if digests(path / "default") != record["files"]:
        raise ValueError("damaged")
    plain = jax.eval_shape(lambda tree: [_plain(x) for x in jax.tree.leaves(tree)], like)
    wanted = _NOTHING | {str(i): np.zeros(x.shape, x.dtype) for i, x in enumerate(plain) if x.size}
    with checkpointer() as orbax:
        arrays = orbax.restore(path / "default", args=ocp.args.StandardRestore(wanted))
    return Checkpoint(step, _from_arrays(arrays, like), record["rows"])


@contextmanager
def checkpointer() -> Iterator[ocp.Checkpointer]:
    """Open a checkpointer of Orbax whose errors are raised, and not printed as well."""
    logger, hook = logging.getLogger("absl"), sys.unraisablehook
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    sys.unraisablehook = partial(_unless_late, hook)
    try:
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as orbax:
            yield orbax
        sys.unraisablehook = hook
    except Exception:  # the hook stays, because other threads and tasks report the same error later
        logging.getLogger("asyncio").addFilter(_of_others)
        raise
    finally:
        logger.setLevel(level)


def _unless_late(hook: Callable[[Any], Any], found: Any) -> None:
    """Report what a thread cannot raise, except writes that end after an error closed their loop."""
    if "Event loop is closed" not in str(found.exc_value):
        hook(found)


def _of_others(record: logging.LogRecord) -> bool:
    """Return whether a message is not about a write of Orbax, whose first error was raised."""
    return "/orbax/" not in record.getMessage()


def _plain(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if is_key(leaf) else leaf


def _to_arrays(tree: PyTree) -> dict[str, np.ndarray]:
    """Return leaves by number (the structure comes from the code), because Orbax refuses empty arrays."""
    leaves = enumerate(jax.tree.leaves(tree))
    return _NOTHING | {str(i): np.asarray(_plain(x)) for i, x in leaves if x.size}


def _from_arrays(arrays: dict[str, np.ndarray], like: PyTree) -> PyTree:
    leaves, structure = jax.tree.flatten(like)
    impls: dict[int, Any] = {}

    def look(leaves):  # shape and type of a key do not hold its implementation
        impls.update({i: jax.random.key_impl(x) for i, x in enumerate(leaves) if is_key(x)})
        return [_plain(x) for x in leaves]

    def one(i, raw):
        array = jnp.asarray(arrays[str(i)]) if str(i) in arrays else jnp.zeros(raw.shape, raw.dtype)
        return jax.random.wrap_key_data(array, impl=impls[i]) if i in impls else array

    return structure.unflatten(one(i, raw) for i, raw in enumerate(jax.eval_shape(look, leaves)))
