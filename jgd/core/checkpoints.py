"""Checkpoints of one stage: folders ``<step>`` in its scope, with a state in Orbax's format and a record.

A checkpoint appears whole, by one rename, and disappears by another. Its record says to which computation it
belongs, what is in its files, and what the stage had logged: nothing that is damaged, half there or of
another run is ever given to Orbax.
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

__all__ = ["Checkpoint", "checksum", "prune", "restore", "save", "shapes"]

_NOTHING = {"nothing": np.zeros((), np.int32)}  # because Orbax refuses a state without arrays, too


class Checkpoint(NamedTuple):
    """A state that was kept.

    Attributes:
      step: steps that are done.
      state: after them.
      rows: lines of the log that the stage had written.
    """

    step: int
    state: PyTree
    rows: list[str]


def save(scope: Path, settings: dict[str, Any], checkpoint: Checkpoint) -> None:
    """Keep a state.

    Args:
      scope: folder of the stage.
      settings: what tells its computation from others.
      checkpoint: the state.

    Raises:
      OSError: where it cannot be written; earlier checkpoints stay.
    """
    arrays = _to_arrays(checkpoint.state)
    record = {"settings": settings, "step": checkpoint.step, "rows": checkpoint.rows}
    try:
        with atomic_folder(scope / str(checkpoint.step)) as folder, _orbax() as orbax:
            orbax.save(folder / "default", args=ocp.args.StandardSave(arrays))
            write_record(folder / "record.json", record | {"files": digests(folder / "default")})
    except (OSError, MemoryError):
        raise
    except Exception as error:  # TensorStore tells a full disk by errors of several types
        reason = " ".join(str(error).split()).rpartition(": ")[2]  # what is before names its own files
        reason = reason.partition(" [os_error")[0]
        raise OSError(
            f"the checkpoint after {checkpoint.step} steps cannot be written to {scope}: {reason[:300]}"
        ) from error


def restore(
    scope: Path, settings: dict[str, Any], like: PyTree, last: int, tell: Callable[[str], None]
) -> Checkpoint | None:
    """The newest checkpoint that is whole and belongs to a computation; None where there is none.

    Args:
      scope: folder of the stage.
      settings: what tells the computation from others.
      like: shapes and types of the state.
      last: steps of the stage; later checkpoints do not count.
      tell: is told of each one that cannot be used.
    """
    damaged, found = [], None
    steps = sorted(_steps(scope), reverse=True)
    for step in steps:
        try:
            found = _read(scope / str(step), step, settings, like, last)
            break
        except MemoryError:
            raise
        except Exception:  # whatever Orbax and TensorStore say to damaged files
            damaged.append(step)
    if found is not None:  # and the older ones, which a killed process did not come to
        prune(scope, steps[: len(damaged) + 2])
    if damaged:
        which = f"checkpoint {' and '.join(map(str, damaged))} in {scope} cannot be used"
        then = "the stage starts again" if found is None else f"going on from step {found.step}"
        tell(f"{which} (damaged, or of another run): {then}")
    return found


def prune(scope: Path, keep: Iterable[int]) -> None:
    """Remove all checkpoints but some."""
    for step in _steps(scope) - set(keep):
        remove(scope / str(step))


def checksum(tree: PyTree) -> str:
    """A checksum of the arrays, numbers and texts of a pytree.

    Raises:
      TypeError: where it has other leaves.
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
    """A checksum of the shapes and types of a pytree."""
    told = [f"{leaf.dtype}{leaf.shape}" for leaf in jax.tree.leaves(tree)]
    return hashlib.blake2b("\n".join(told).encode(), digest_size=16).hexdigest()


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
    with _orbax() as orbax:
        arrays = orbax.restore(path / "default", args=ocp.args.StandardRestore(wanted))
    return Checkpoint(step, _from_arrays(arrays, like), record["rows"])


@contextmanager
def _orbax() -> Iterator[ocp.Checkpointer]:
    """A checkpointer whose errors are raised, and not printed as well."""
    logger, hook = logging.getLogger("absl"), sys.unraisablehook
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    sys.unraisablehook = partial(_unless_late, hook)
    try:
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as orbax:
            yield orbax
        sys.unraisablehook = hook
    except Exception:  # the hook stays, because other threads and tasks go on to tell of the same error
        logging.getLogger("asyncio").addFilter(_of_others)
        raise
    finally:
        logger.setLevel(level)


def _unless_late(hook: Callable[[Any], Any], found: Any) -> None:
    """Tell of what a thread cannot raise, but not of writes that end after an error closed their loop."""
    if "Event loop is closed" not in str(found.exc_value):
        hook(found)


def _of_others(record: logging.LogRecord) -> bool:
    """Whether a message is not about a write of Orbax, whose first error was raised."""
    return "/orbax/" not in record.getMessage()


def _plain(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if is_key(leaf) else leaf


def _to_arrays(tree: PyTree) -> dict[str, np.ndarray]:
    """Leaves by number: the structure comes from the code. Orbax refuses arrays without elements."""
    leaves = enumerate(jax.tree.leaves(tree))
    return _NOTHING | {str(i): np.asarray(_plain(x)) for i, x in leaves if x.size}


def _from_arrays(arrays: dict[str, np.ndarray], like: PyTree) -> PyTree:
    leaves, structure = jax.tree.flatten(like)
    impls: dict[int, Any] = {}

    def look(leaves):  # only a key knows what kind of key it is, not its shape and type
        impls.update({i: jax.random.key_impl(x) for i, x in enumerate(leaves) if is_key(x)})
        return [_plain(x) for x in leaves]

    def one(i, raw):
        array = jnp.asarray(arrays[str(i)]) if str(i) in arrays else jnp.zeros(raw.shape, raw.dtype)
        return jax.random.wrap_key_data(array, impl=impls[i]) if i in impls else array

    return structure.unflatten(one(i, raw) for i, raw in enumerate(jax.eval_shape(look, leaves)))
