"""Images as tasks: from arrays, from folders of files, and from archives of them.

Images are float32 in 0..1, channels last. Files are decoded with Pillow. Images decoded from an archive are
kept in the user's cache, because decoding thousands of small files takes longer than reading one large file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float

from jgd.data.archives import archive_files, unpack_limit
from jgd.data.arrays import read_npz
from jgd.data.prepare import stratified
from jgd.data.storage import DataError, cache_dir, reading, refuse_web_page
from jgd.data.subsets import parts
from jgd.data.tasks import ArrayTask
from jgd.files import atomic_write

__all__ = ["channel_statistics", "image_folder", "image_task", "standardized"]

_SUFFIXES = (".jpg", ".jpeg", ".png")
_PIXELS = 2**24  # of one image
_PARTS = {"train": 0, "val": 1, "valid": 1, "validation": 1, "test": 2}


def image_task(
    x: np.ndarray,
    y: np.ndarray,
    part: np.ndarray,
    *,
    num_classes: int | None = None,
    name: str = "images",
    **extras: np.ndarray,
) -> ArrayTask:
    """Make a task of arrays of images.

    Args:
      x: Images ``[N, H, W]`` or ``[N, H, W, C]``; uint8 is divided by 255, floating point is used unchanged.
      y: Classes ``0..C-1`` ``[N]``, -1 where unknown.
      part: Split of each image ``[N]``: 0 for training, 1 validation, 2 testing, 3 unlabelled.
      num_classes: Number of classes; None for the largest label plus one.
      name: Name of the task.
      **extras: Further arrays of the task.

    Raises:
      DataError: If shapes or types differ from these, numbers are not finite, labels are out of range, or
        there are no training examples.
    """
    if x.ndim not in (3, 4) or not x.size:
        raise DataError(f"{name}: images must be [N, H, W] or [N, H, W, C], got shape {x.shape}")
    if x.dtype == np.uint8:
        x = np.divide(x, np.float32(255), dtype=np.float32)
    elif np.issubdtype(x.dtype, np.floating):
        x = x.astype(np.float32, copy=False)
        if not np.isfinite(x).all():
            raise DataError(f"{name}: the images hold NaN or infinite numbers")
    else:
        raise DataError(f"{name}: images must be uint8 or floating point, got {x.dtype}")
    if y.shape != (len(x),) or part.shape != (len(x),) or not np.issubdtype(y.dtype, np.integer):
        raise DataError(f"{name}: {len(x)} images need as many integer labels, got {y.dtype} {y.shape}")
    classes = int(y.max()) + 1 if num_classes is None else num_classes
    if y.min() < -1 or y.max() >= classes:
        raise DataError(f"{name}: labels must be in 0..{classes - 1}, got {y.min()}..{y.max()}")
    masks: dict[str, Any] = parts(part)
    if "train" not in masks:
        raise DataError(f"{name}: no example is for training")
    return ArrayTask(
        x=x if x.ndim == 4 else x[..., None],
        y=y.astype(np.int32),
        **masks,
        extras=extras,
        num_classes=classes,
        name=name,
    )


def channel_statistics(task: ArrayTask) -> tuple[Float[np.ndarray, " C"], Float[np.ndarray, " C"]]:
    """Compute mean and standard deviation of each channel over all pixels of the training images."""
    x = np.asarray(task.x)[np.asarray(task.train)]
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axes, dtype=np.float64)
    return mean.astype(np.float32), x.std(axes, dtype=np.float64).astype(np.float32)


def standardized(task: ArrayTask, mean: Any = None, std: Any = None) -> ArrayTask:
    """Subtract a mean from each channel and divide it by a standard deviation.

    Args:
      task: Task of images, or of anything with channels in the last place.
      mean: Mean of each channel ``[C]``; None for that of the training images.
      std: Standard deviation of each channel ``[C]``; None for that of the training images. Channels of
        deviation zero are not divided.
    """
    if mean is None or std is None:
        own = channel_statistics(task)
        mean, std = own[0] if mean is None else mean, own[1] if std is None else std
    mean, std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    std = np.where(std > 0, std, 1).astype(np.float32)

    def scale(x):
        return (np.asarray(x, np.float32) - mean) / std

    tests = {name: (scale(x), y) for name, (x, y) in task.tests.items()}
    return dataclasses.replace(task, x=scale(task.x), tests=tests)


# Files


def image_folder(
    path: str | os.PathLike[str],
    *,
    size: int | None = None,
    grey: bool = False,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    name: str | None = None,
) -> ArrayTask:
    """Load JPEG and PNG files ``<class>/<file>`` or ``train|val|test/<class>/<file>``.

    Classes are numbered by the order of their names, examples come in the order of their paths. Hidden files
    and files of other kinds are skipped.

    Args:
      path: Folder, or a tar or zip archive of one; links in an archive are refused.
      size: Pixels in each direction that images are resized to; None requires one size of all.
      grey: Whether images have one channel instead of red, green and blue.
      fractions: Fractions of each class for training, validation and testing, where no folders state them.
      seed: Seed of the split.
      name: Name of the task; None for the file name.

    Raises:
      DataError: If the archive or folder is missing, damaged or empty, images are damaged or of several
        sizes, files lie outside class folders, or a split lacks a class.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} does not exist: give a folder, or a tar or zip archive, of images")
    if size is not None and not 1 <= size <= 4096:
        raise DataError(f"size must be 1 to 4096 pixels, got {size}")
    x, y, part = _decoded(path, size, grey)
    if (part < 0).all():
        split = stratified(y, fractions, seed=seed)
        part = np.select([split["train"], split["val"], split["test"]], [0, 1, 2])
    return image_task(x, y, part, name=path.name.split(".")[0] if name is None else name)


def _decoded(path: Path, size: int | None, grey: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if path.is_dir():
        files = sum(file.stat().st_size for file in _image_files(path))
        return _decode(path, _folder_files(path), size, grey, 2**28 + 50 * files)
    cached = _cache(path, size, grey)
    if cached.is_file():
        with contextlib.suppress(DataError):  # a damaged one is written again
            return _cached(cached)
    refuse_web_page(path)
    x, y, part = _decode(path, archive_files(path, wanted=_is_image), size, grey, unpack_limit(path))
    with contextlib.suppress(OSError), atomic_write(cached) as file:  # a read-only home costs time only
        np.savez(file, x=x, y=y, part=part)
    return x, y, part


def _cached(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    arrays = read_npz(path, limit=2**40)  # our own file, of images that were within the limit
    with reading(path):
        x, y, part = arrays["x"], arrays["y"], arrays["part"]
        if x.dtype != np.uint8 or x.ndim not in (3, 4) or not y.shape == part.shape == (len(x),):
            raise ValueError("it holds no images")
        if y.dtype != np.int32 or part.dtype != np.int8 or y.min() < 0 or part.min() < -1 or part.max() > 2:
            raise ValueError("it holds no classes and parts")
        return x, y, part


def _cache(archive: Path, size: int | None, grey: bool) -> Path:
    """Return the path of the decoded images of an archive; its name states their content and decoding."""
    with reading(archive), archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    folder = cache_dir() / "decoded"
    return folder / f"{archive.name.split('.')[0]}-{digest}-{size or 'own'}-{'grey' if grey else 'rgb'}.npz"


def _is_image(path: PurePosixPath) -> bool:
    """Return whether a file is an image, by its path within the folder or archive."""
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".") and "__MACOSX" not in path.parts


def _image_files(folder: Path) -> list[Path]:
    return [
        file
        for file in sorted(folder.rglob("*"))
        if _is_image(PurePosixPath(file.relative_to(folder).as_posix())) and file.is_file()
    ]


def _folder_files(folder: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    for file in _image_files(folder):
        with reading(file):
            yield PurePosixPath(file.relative_to(folder).as_posix()), file.read_bytes()


def _image(content: bytes, size: int | None, grey: bool) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
        if image.width * image.height > _PIXELS:
            raise ValueError(f"its {image.width} x {image.height} pixels are more than {_PIXELS}")
        image = image.convert("L" if grey else "RGB")
        image = image if size is None else image.resize((size, size), Image.Resampling.BICUBIC)
        return np.asarray(image)


def _decode(
    source: Path, files: Iterator[tuple[PurePosixPath, bytes]], size: int | None, grey: bool, limit: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    images: dict[PurePosixPath, np.ndarray] = {}
    left = limit
    for path, content in files:
        with reading(source / path):
            if path in images:
                raise ValueError("it is there twice")
            images[path] = _image(content, size, grey)
        left -= images[path].nbytes
        if left < 0:
            raise DataError(f"{source}: the images are more than {limit} bytes once decoded: give a size")
    if not images:
        raise DataError(f"{source} holds no JPEG or PNG files")
    sizes = sorted({image.shape[:2] for image in images.values()})
    if len(sizes) > 1:
        raise DataError(
            f"{source} holds images of {sizes[0]} and {sizes[-1]} pixels: give a size to resize them to"
        )
    paths = sorted(images)
    if loose := [path for path in paths if len(path.parts) < 2]:
        raise DataError(f"{source}: {loose[0]} is in no class folder, expected <class>/{loose[0].name}")
    part = np.asarray([_PARTS.get(path.parts[-3], -1) if len(path.parts) > 2 else -1 for path in paths])
    if (part < 0).any() and (part >= 0).any():
        lost = paths[int(np.argmax(part < 0))]
        raise DataError(f"{source}: {lost} is in no folder train, val or test, as other images are")
    names = sorted({path.parts[-2] for path in paths})
    y = np.asarray([names.index(path.parts[-2]) for path in paths], np.int32)
    for number in np.unique(part):
        if missing := sorted(set(range(len(names))) - set(y[part == number])):
            raise DataError(
                f"{source}: {('train', 'val', 'test')[number]} has no images of class {names[missing[0]]!r}"
            )
    return np.stack([images[path] for path in paths]), y, part.astype(np.int8)
