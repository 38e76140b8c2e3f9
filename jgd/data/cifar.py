"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) from their official archives, or CIFAR-10 from JPEG copies.

The archives for Python hold pickles of ``data`` ``[N, 3072]`` (red, green and blue planes of 32 x 32) and
``labels`` (``fine_labels`` and ``coarse_labels`` in CIFAR-100); they are read by the restricted unpickler.
The binary archives hold the same as records: one byte for the class (CIFAR-100: coarse, fine), then the 3072.
Either serves; a file that is there is preferred to a download.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jgd.data.archives import archive_files
from jgd.data.facts import dataset
from jgd.data.hashes import SHA256
from jgd.data.images import image_folder, image_task
from jgd.data.pickles import read_pickle
from jgd.data.storage import DataError, Remote, present, reading, require
from jgd.data.subsets import with_validation
from jgd.data.tasks import ArrayTask

__all__ = ["cifar10", "cifar10_jpeg", "cifar100", "remotes"]

CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CIFAR100_MEAN, CIFAR100_STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
_ADDRESS = "https://www.cs.toronto.edu/~kriz/"
_PIXELS = 3 * 32 * 32
_LIMIT = 2**28  # bytes of all files; 60 000 images are 185 MB, and their names two more
_JPEG = Remote("cifar10-jpeg/cifar10-jpeg.tar.gz", ())


def remotes(classes: int) -> tuple[Remote, ...]:
    """Return the archive of CIFAR-10 or -100: the binary one if only that is there, else that for Python."""
    python, binary = (
        Remote(path, (_ADDRESS + Path(path).name,), SHA256[path])
        for path in (f"cifar/cifar-{classes}-{kind}.tar.gz" for kind in ("python", "binary"))
    )
    return (binary if present(binary) and not present(python) else python,)


def cifar10(*, val: int = 0, seed: int = 0) -> ArrayTask:
    """Load 50 000 training and 10 000 test images of 10 classes, ``[N, 32, 32, 3]`` in 0..1.

    Args:
      val: Number of training images to set apart for validation, equally many of each class.
      seed: Seed of the choice.

    Raises:
      DataError: If the archive is missing or damaged.
    """
    return _cifar(10, val, seed)


def cifar100(*, val: int = 0, seed: int = 0) -> ArrayTask:
    """Load 50 000 training and 10 000 test images of 100 classes.

    ``extras["coarse"]`` are the 20 superclasses.

    Args:
      val: Number of training images to set apart for validation, equally many of each class.
      seed: Seed of the choice.

    Raises:
      DataError: If the archive is missing or damaged.
    """
    return _cifar(100, val, seed)


def cifar10_jpeg(*, val: int = 0, seed: int = 0) -> ArrayTask:
    """Load CIFAR-10 from JPEG-compressed copies, in the order of its files: not those of published numbers.

    The first call decodes 60 000 files; later ones read the decoded images from the user's cache.

    Args:
      val: Number of training images to set apart for validation, equally many of each class.
      seed: Seed of the choice.

    Raises:
      DataError: If the archive is missing or damaged.
    """
    task = image_folder(require(_JPEG), name="cifar10 (JPEG copies)")
    return with_validation(task, val, seed) if val else task


def _cifar(classes: int, val: int, seed: int) -> ArrayTask:
    (remote,) = remotes(classes)
    path = require(remote)
    binary = "-binary" in path.name
    wanted = (
        ("train", "test") if classes == 100 else (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
    )
    names = [f"{name}.bin" if binary else name for name in wanted]
    found: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    for inner, content in archive_files(path, wanted=lambda inner: inner.name in names, limit=_LIMIT):
        if inner.name in found:
            raise DataError(f"{path} holds two files {inner.name}: delete it and download it again")
        with reading(path / inner):
            found[inner.name] = (_binary if binary else _python)(content, classes)
    if missing := [name for name in names if name not in found]:
        raise DataError(f"{path} lacks {', '.join(missing)}: delete it and download it again")
    x, y, coarse = (np.concatenate([found[name][i] for name in names]) for i in range(3))
    part = np.concatenate([np.full(len(found[name][1]), 2 * name.startswith("test")) for name in names])
    extras = {"coarse": coarse.astype(np.int32)} if classes == 100 else {}
    x = x.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    task = image_task(x, y.astype(np.int32), part, num_classes=classes, name=f"cifar{classes}", **extras)
    return with_validation(task, val, seed) if val else task


def _python(content: bytes, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    batch = read_pickle(content)
    if not isinstance(batch, dict) or not isinstance(batch.get("data"), np.ndarray):
        raise ValueError("it is no batch of images: it lacks 'data'")
    fine = _classes(batch, "fine_labels" if classes == 100 else "labels", classes)
    coarse = _classes(batch, "coarse_labels", 20) if classes == 100 else fine
    x = batch["data"]
    if x.dtype != np.uint8 or x.shape != (len(fine), _PIXELS) or len(coarse) != len(fine):
        raise ValueError(f"it has {len(fine)} labels and images {x.dtype} {x.shape}")
    return x, fine, coarse


def _classes(batch: dict[str, Any], name: str, count: int) -> np.ndarray:
    labels = batch.get(name)
    if not isinstance(labels, list) or not all(type(y) is int and 0 <= y < count for y in labels):
        raise ValueError(f"{name} are no list of classes 0 to {count - 1}")
    return np.asarray(labels, np.int64)


def _binary(content: bytes, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels = 2 if classes == 100 else 1
    if not content or len(content) % (labels + _PIXELS):
        raise ValueError(f"{len(content)} bytes are no records of {labels + _PIXELS}")
    rows = np.frombuffer(content, np.uint8).reshape(-1, labels + _PIXELS)
    fine, coarse = rows[:, labels - 1], rows[:, 0]
    if fine.max() >= classes or (classes == 100 and coarse.max() >= 20):
        raise ValueError(f"it has a class beyond {classes - 1}")
    return rows[:, labels:], fine, coarse


def _jpeg() -> tuple[Remote, ...]:
    return (_JPEG,)


_SOURCE = "https://www.cs.toronto.edu/~kriz/cifar.html"

ENTRIES = (
    dataset(
        "cifar10",
        cifar10,
        "Colour photographs of animals and vehicles, 32 x 32 pixels.",
        kind="image",
        size=60_000,
        classes=10,
        source=_SOURCE,
        paper="Krizhevsky 2009",
        files=partial(remotes, 10),
    ),
    dataset(
        "cifar100",
        cifar100,
        "Colour photographs of a hundred classes, 32 x 32 pixels.",
        kind="image",
        size=60_000,
        classes=100,
        source=_SOURCE,
        paper="Krizhevsky 2009",
        files=partial(remotes, 100),
    ),
    dataset(
        "cifar10-jpeg",
        cifar10_jpeg,
        "CIFAR-10 compressed to JPEG files.",
        kind="image",
        size=60_000,
        classes=10,
        source="JPEG-compressed copies of CIFAR-10, no address of their own",
        paper="Krizhevsky 2009",
        files=_jpeg,
    ),
)
