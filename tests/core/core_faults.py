"""A process that dies at the k-th file operation, without dying: that one and every later one fail."""

import os
import sys
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jgd.core import Algorithm, in_memory

_EVENTS = {
    "open",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.truncate",
    "os.listdir",
    "os.scandir",
}


class Killed(BaseException):
    """Nothing catches it, and what cleans up fails with it, too."""


class _Faults:
    def __init__(self):
        self.folder, self.at, self.count, self.kinds = "", 0, 0, []

    def __call__(self, event, args):
        if not self.folder or event not in _EVENTS or not isinstance(args[0], str | bytes | os.PathLike):
            return
        path = os.fsdecode(args[0])
        if (
            event in ("os.remove", "os.rmdir") and args[1] >= 0
        ):  # `shutil.rmtree` names files from their folder
            path = os.path.join(os.readlink(f"/proc/self/fd/{args[1]}"), path)
        if not path.startswith(self.folder):
            return
        self.count += 1
        self.kinds.append(f"{event} {Path(path).name}")
        if self.at and self.count >= self.at:
            raise Killed


_faults = _Faults()
sys.addaudithook(_faults)


@contextmanager
def killed_at(folder, k):
    """Die at the k-th operation under a folder; 0 never. Gives the object that counts."""
    _faults.folder, _faults.at, _faults.count, _faults.kinds = str(folder), k, 0, []
    try:
        yield _faults
    except Killed:
        pass
    finally:
        _faults.folder = ""


def _noisy(scale):
    """Steps that every key and every earlier step count for."""

    def step(key, t, state, data, batch):
        state = 0.9 * state + scale * jax.random.normal(key, state.shape) + data
        return state, {"loss": jnp.sum(state**2)}

    return Algorithm(lambda key, data, batch: jax.random.normal(key, (3,)), step, lambda state, data: state)


FIRST, SECOND = _noisy(1.0), _noisy(0.5)


def short(key, task, loop=in_memory):
    """A loop with three checkpoints, of which one is removed, and plain work."""
    first = loop("first", FIRST, key, task, 6)
    return loop.stage("middle", lambda x: {"double": 2 * x}, np.asarray(first))["double"]


def recipe(key, task, loop=in_memory):
    """Two loops and plain work between them."""
    k1, k2 = jax.random.split(key)
    first = loop("first", FIRST, k1, task, 6)
    middle = loop.stage("middle", lambda x: {"double": 2 * x}, np.asarray(first))
    return loop("second", SECOND, k2, jnp.asarray(middle["double"]), 3)
