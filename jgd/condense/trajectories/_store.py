"""Experts in a folder, where later runs find them."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from jgd.condense.trajectories._expert import Segment, Span, own_params, train_several, trajectory
from jgd.core import Algorithm, HostStream
from jgd.files import atomic_write

__all__ = ["Store", "store"]

Precision = Literal["float32", "bfloat16", "float16"]


def _digest(tree: PyTree) -> str:
    total = hashlib.blake2b(digest_size=16)
    for leaf in jax.tree.leaves(tree):
        key = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        array = np.asarray(jax.random.key_data(leaf) if key else leaf)
        total.update(f"{array.dtype}{array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


@dataclass(frozen=True)
class Store:
    """Experts in a folder, see `store`.

    Attributes:
      folder: Folder with one file ``expert-<number>.npy`` for each, a row of numbers for each snapshot.
      at: Step numbers of the snapshots.
      count: Number of experts.
      precision: Type of the stored numbers.
      like: Shapes of the parameters.
    """

    folder: Path
    at: tuple[int, ...]
    count: int
    precision: Precision
    like: Any

    def read(self, number: int, position: int) -> PyTree:
        """Return a snapshot, at a position in ``at``, in float32."""
        rows = np.load(self._file(number), mmap_mode="r", allow_pickle=False)
        flat = np.array(rows[position])
        if self.precision == "bfloat16":
            flat = flat.view(jnp.bfloat16)
        flat = flat.astype(np.float32)
        leaves, structure = jax.tree.flatten(self.like)
        ends = np.cumsum([math.prod(leaf.shape) for leaf in leaves])
        parts = np.split(flat, ends[:-1])
        return structure.unflatten(p.reshape(x.shape) for p, x in zip(parts, leaves, strict=True))

    def write(self, number: int, snapshots: PyTree) -> None:
        """Write an expert to its file, whole or not at all."""
        rows = [np.asarray(x, np.float32).reshape(len(self.at), -1) for x in jax.tree.leaves(snapshots)]
        dtype = jnp.bfloat16 if self.precision == "bfloat16" else self.precision
        flat = np.concatenate(rows, axis=1).astype(dtype)
        if self.precision == "float16" and not np.isfinite(flat).all():
            raise ValueError("the parameters of an expert exceed float16: store them as bfloat16 or float32")
        with atomic_write(self._file(number)) as file:
            np.save(file, flat.view(np.uint16) if self.precision == "bfloat16" else flat, allow_pickle=False)

    def segments(self, span: Span, key: Array) -> HostStream:
        """Return a stream of segments for `jgd.core.Loop`: all experts in random order, again and again.

        Raises:
          ValueError: If the experts were stored at other steps than the span needs.
        """
        missing = sorted(set(span.at) - set(self.at))
        if missing:
            raise ValueError(f"{self.folder} holds no snapshots at steps {missing}: store them with at=...")
        seed = np.asarray(jax.random.key_data(key)).ravel().tolist()
        draw = jax.jit(span.draw)
        steps, end = np.asarray(span.at), len(self.at) - 1 if span.end is None else span.end

        def batch_at(t):
            order = np.random.default_rng([*seed, t // self.count]).permutation(self.count)
            number = int(order[t % self.count])
            start, target = steps[np.asarray(draw(jax.random.fold_in(key, t), t))]
            last = self.at[end] if span.end is None else end
            return Segment(*(self.read(number, self.at.index(int(s))) for s in (start, target, last)))

        return HostStream(batch_at)

    def _file(self, number: int) -> Path:
        return self.folder / f"expert-{number:05d}.npy"


def store(
    folder: str | os.PathLike,
    key: Array,
    data: Any,
    alg: Algorithm,
    at: Sequence[int],
    *,
    count: int,
    group: int = 10,
    at_once: int | None = None,
    precision: Precision = "float32",
    note: str = "",
    select: Callable[[Any], PyTree] = own_params,
    batches: Callable[[Any, Array], PyTree] | None = None,
) -> Store:
    """Train the experts that a folder lacks, and write them to it.

    A run that was interrupted continues with the first incomplete group, and a later call may add more
    experts. Expert ``i`` draws from ``fold_in(key, i)``, whatever its group.

    Args:
      folder: Folder, created where it is missing.
      key: Random key.
      data: Data of the experts.
      alg: Training of one expert.
      at: Step numbers of the snapshots, see `trajectory`. A folder that holds more of them is used as well.
      count: Number of experts.
      group: Number of experts that are trained before they are written.
      at_once: Experts of a group that are trained together, see `train_several`.
      precision: Type of the stored numbers; ``"bfloat16"`` takes half the space.
      note: Settings of the experts in words, which must be the same when the folder is used again.
      select: Part of the state to keep, see `trajectory`.
      batches: Batches of an expert, see `trajectory`.

    Raises:
      ValueError: If the folder holds other experts.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}, got {precision!r}")
    if count < 1 or group < 1:
        raise ValueError(f"count and group must be at least 1, got {count} and {group}")
    path, at = Path(folder), tuple(int(s) for s in at)
    settings = {"key": _digest(key), "data": _digest(data), "precision": precision, "note": note}
    header = path / "experts.json"
    if header.exists():
        record = json.loads(header.read_text())
        other = [name for name, value in settings.items() if record.get(name) != value]
        if not set(at) <= set(record["at"]):
            other.append("at")
        if other:
            raise ValueError(f"{path} holds other experts (other {', '.join(other)}): choose another folder")
        at = tuple(record["at"])
    else:
        with atomic_write(header, "w") as file:
            json.dump({**settings, "at": at}, file, indent=1)
    run_one = trajectory(alg, at, select=select, batches=batches)
    like = jax.eval_shape(run_one, key, data)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), like)
    found = Store(path, at, count, precision, like)
    missing = [i for i in range(count) if not found._file(i).exists()]
    train_group = jax.jit(train_several(run_one, at_once))
    for first in range(0, len(missing), group):
        numbers = missing[first : first + group]
        padded = numbers + numbers[-1:] * (min(group, count) - len(numbers))  # compiled once
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.asarray(padded))
        snapshots = jax.device_get(train_group(keys, data))
        for slot, number in enumerate(numbers):
            found.write(number, jax.tree.map(lambda x, slot=slot: x[slot], snapshots))
    return found
