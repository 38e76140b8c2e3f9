"""MNIST (LeCun, Bottou, Bengio and Haffner, 1998) from its four official files.

An idx file: two zero bytes, the type (8 for bytes), the number of dimensions, each dimension as a big-endian
32-bit number, and the content, row by row; here compressed by gzip.
"""

from __future__ import annotations

import gzip
import math
import os

import numpy as np

from jgd.data.archives import read_stream, unpack_limit
from jgd.data.facts import dataset
from jgd.data.hashes import SHA256
from jgd.data.images import image_task
from jgd.data.storage import DataError, Remote, reading, require
from jgd.data.subsets import with_validation
from jgd.data.tasks import ArrayTask

__all__ = ["mnist", "read_idx", "remotes"]

MNIST_MEAN, MNIST_STD = (0.1307,), (0.3081,)
_FILES = tuple(
    f"mnist/{part}-{what}-ubyte.gz" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1")
)
_LIMIT = 2**20 * 28 * 28  # bytes of a million images, more than any set in this format
_ADDRESSES = (
    "https://ossci-datasets.s3.amazonaws.com/",
    "https://storage.googleapis.com/cvdf-datasets/",
)


def remotes() -> tuple[Remote, ...]:
    """Return the four files."""
    return tuple(Remote(path, tuple(a + path for a in _ADDRESSES), SHA256[path]) for path in _FILES)


def read_idx(path: str | os.PathLike[str], limit: int | None = None) -> np.ndarray:
    """Read a gzip-compressed idx file of bytes. Its header states how much is unpacked.

    Args:
      path: Path of the file.
      limit: Bytes that the header may state, see `jgd.data.archives.unpack_limit`.

    Raises:
      DataError: If the file is missing, truncated or of another format.
    """
    with reading(path), gzip.open(path) as file:
        start = file.read(4)
        if start[:3] != b"\0\0\x08" or len(start) < 4 or not 1 <= start[3] <= 4:
            raise ValueError(f"it begins with {start.hex()}, which no idx file of bytes does")
        sizes = file.read(4 * start[3])
        if len(sizes) != 4 * start[3]:
            raise ValueError("its header is cut off")
        shape = np.frombuffer(sizes, ">u4").tolist()
        count, most = math.prod(shape), unpack_limit(path, limit)
        if count > most:
            raise ValueError(f"it states shape {tuple(shape)}, which is more than {most} bytes")
        content = read_stream(file, count)  # to the end, which compares the checksum
        if len(content) != count:
            raise ValueError(f"it holds {len(content)} bytes, not those of shape {tuple(shape)}")
        return np.frombuffer(content, np.uint8).reshape(shape)


def mnist(*, val: int = 0, seed: int = 0) -> ArrayTask:
    """Load 60 000 training and 10 000 test images of digits, ``[N, 28, 28, 1]`` in 0..1.

    Args:
      val: Number of training images to set apart for validation, equally many of each class.
      seed: Seed of the choice.

    Raises:
      DataError: If files are missing, damaged or contradict each other.
    """
    arrays = [read_idx(require(remote), _LIMIT) for remote in remotes()]
    x, y = arrays[::2], arrays[1::2]
    for images, labels, path in zip(x, y, _FILES[::2], strict=True):
        if images.ndim != 3 or images.shape[1:] != (28, 28) or labels.shape != (len(images),):
            raise DataError(
                f"{path} has shape {images.shape}, its labels {labels.shape}: download them again"
            )
    part = np.repeat([0, 2], [len(labels) for labels in y])
    labels = np.concatenate(y).astype(np.int32)
    task = image_task(np.concatenate(x), labels, part, num_classes=10, name="mnist")
    return with_validation(task, val, seed) if val else task


ENTRIES = (
    dataset(
        "mnist",
        mnist,
        "Handwritten digits, 28 x 28 pixels.",
        kind="image",
        size=70_000,
        classes=10,
        source="http://yann.lecun.com/exdb/mnist",
        paper="LeCun et al. 1998",
        files=remotes,
    ),
)
