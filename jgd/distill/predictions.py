"""Predictions of trained networks on data of any form, and files of them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jgd.core import Bound, stacked
from jgd.data import DataError, NodeTask
from jgd.data.arrays import read_npy, read_npz
from jgd.distill.data import inputs_of, predict
from jgd.files import atomic_write

__all__ = ["FEATURES", "class_counts", "fit_features", "probabilities", "read_features", "write_predictions"]

FEATURES = (".npy", ".npz", ".csv")
"""Endings of files that may hold features alone."""


def read_features(path: Path) -> np.ndarray:
    """Read rows of numbers from a .npy, .npz or .csv file without labels.

    Args:
      path: The file.

    Raises:
      DataError: For a file that holds no finite numbers, one row for each example.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    if path.suffix == ".npy":
        x = read_npy(path)
    elif path.suffix == ".npz":
        arrays = read_npz(path)
        if "x" not in arrays and len(arrays) != 1:
            raise DataError(f"{path} holds {', '.join(sorted(arrays)) or 'nothing'}: name the features x")
        x = arrays["x"] if "x" in arrays else next(iter(arrays.values()))
    else:
        x = _rows_of_csv(path)
    if x.dtype.kind not in "iufb" or x.ndim < 2 or not len(x):
        raise DataError(f"{path} must hold numbers [N, ...], got {x.dtype.name} {list(x.shape)}")
    bad = ~np.isfinite(np.asarray(x, np.float64).reshape(len(x), -1)).all(1)
    if bad.any():
        raise DataError(f"{path} holds NaN or infinity, first in row {bad.argmax()}")
    return x


def _rows_of_csv(path: Path) -> np.ndarray:
    """Return the numbers of a table without labels; a first line of names is left out."""

    def number(cell: str) -> float | None:
        try:
            return float(cell)
        except ValueError:
            return None

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = [row for row in csv.reader(file) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no table of text: {error}") from None
    if table and any(number(cell) is None for cell in table[0]):
        table = table[1:]
    for i, row in enumerate(table):
        if len(row) != len(table[0]):
            raise DataError(f"{path} has {len(row)} columns in row {i}, {len(table[0])} in row 0")
        wrong = [cell for cell in row if number(cell) is None]
        if wrong:
            raise DataError(
                f"{path} has {wrong[0][:40]!r} in row {i}, which is no number: give features alone, or "
                "name the labels with --label-column"
            )
    return np.asarray(table, np.float64).astype(np.float32).reshape(len(table), -1)


def fit_features(x: np.ndarray, net: Bound) -> np.ndarray:
    """Return features in the shape and type of the inputs of a network, where these are known.

    Args:
      x: Features ``[N, ...]``.
      net: The network.

    Raises:
      ValueError: For features that do not fit.
    """
    if not net.example:
        return np.asarray(x, np.float32) if x.dtype.kind == "f" else x
    if len(net.example) > 1:
        raise ValueError("the network reads tokens and their mask: give the name of a dataset of texts")
    wanted = net.example[0]  # pyright: ignore[reportGeneralTypeIssues]
    if x.shape[1:] != wanted.shape:
        if int(np.prod(x.shape[1:])) != int(np.prod(wanted.shape)):
            shapes = f"[N, {', '.join(map(str, wanted.shape))}], got {list(x.shape)}"
            raise ValueError(
                f"the network reads inputs of shape {shapes} (labels are named by --label-column)"
            )
        x = x.reshape(len(x), *wanted.shape)
    if wanted.dtype == np.uint8 and x.dtype != np.uint8:
        if (x == np.floor(x)).all() and x.min() >= 0 and 1 < x.max() <= 255:
            return x.astype(np.uint8)
        if x.min() < 0 or x.max() > 1:
            raise ValueError(
                f"the network reads pixels in 0..255 or in 0..1, got numbers in {x.min()}..{x.max()}"
            )
        return x.astype(np.float32)
    return x.astype(wanted.dtype)


def probabilities(net: Bound, given: Any) -> np.ndarray:
    """Return probabilities ``[N, C]``, the mean over several networks.

    Args:
      net: A network, or several with a leading axis.
      given: A task or inputs, see `jgd.distill.predict`.

    Raises:
      ValueError: For inputs that the network cannot read.
    """
    inputs = inputs_of(net.model, given) if isinstance(given, NodeTask) else ()
    try:
        count = stacked(net, *inputs)
        nets = (
            [net] if count is None else [jax.tree.map(lambda leaf, i=i: leaf[i], net) for i in range(count)]
        )
        each = [np.asarray(jax.nn.softmax(predict(one, given).logits)) for one in nets]
    except (ValueError, OSError):
        raise
    except Exception as error:  # networks refuse inputs in ways of their own
        raise ValueError(
            f"the network cannot read these data: {' '.join(str(error).split())[:200]}"
        ) from error
    return np.mean(each, axis=0)


def class_counts(
    classes: np.ndarray, probabilities: np.ndarray, names: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of a table: how often each class was predicted, and with what confidence.

    Args:
      classes: Predicted classes ``[N]``.
      probabilities: ``[N, C]``.
      names: Names of the classes.
    """
    rows = []
    for number, name in enumerate(names):
        chosen = classes == number
        sure = f"{100 * probabilities[chosen, number].mean():.1f}" if chosen.any() else "-"
        rows.append([name, str(chosen.sum()), f"{100 * chosen.mean():.1f}", sure])
    return ["class", "rows", "share %", "mean confidence %"], rows


def write_predictions(out: Path, probabilities: np.ndarray, names: Sequence[str]) -> None:
    """Write number, class and probability of each class, a row for each example.

    Args:
      out: File to write, .csv or .npz.
      probabilities: ``[N, C]``.
      names: Names of the classes.
    """
    classes = probabilities.argmax(1)
    if out.suffix == ".npz":
        with atomic_write(out) as file:
            np.savez_compressed(
                file, classes=classes, probabilities=probabilities, class_names=np.asarray(names)
            )
        return
    with atomic_write(out, "w") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["row", "class", *(f"p({name})" for name in names)])
        for i, (chosen, values) in enumerate(zip(classes, probabilities, strict=True)):
            rows.writerow([i, names[chosen], *(f"{value:.6g}" for value in values)])
