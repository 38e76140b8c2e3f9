"""Checks of masks, labels, graphs and words, which every task passes, and the one form they get.

The constructors of `jgd.data.tasks` call these functions, so every way to a task passes them: constructors,
`dataclasses.replace`, loaders, generators and the graphs of other libraries. They run once, on the host, in
time linear in the data. Values that JAX traces pass unchecked, because they are not known yet.

Masks       Bools ``[N]``; 0/1 numbers ``[N]``; or row numbers, where they cannot be a mask.
Classes     int32 ``[N]`` in ``0..C-1``, -1 where unknown; words and other numbers are mapped (`as_labels`).
Targets     Other kinds of labels, see `TargetKind`.
"""

from __future__ import annotations

import functools
import math
import numbers
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import numpy as np
from jax.core import Tracer

from jgd.data.storage import DataError
from jgd.graph import validate

__all__ = [
    "LabelName",
    "Labels",
    "TargetKind",
    "as_graph",
    "as_labels",
    "as_like",
    "as_mask",
    "as_number",
    "as_rows",
    "as_weights",
    "as_word",
    "disjoint",
    "finite",
    "in_range",
    "is_number",
    "known",
    "need_classes",
    "warn_of_missing",
]

TargetKind: TypeAlias = Literal["classes", "multilabel", "probabilities", "regression", "none"]
"""Kind of labels: ``classes`` ``[N]``; ``multilabel`` indicators ``[N, C]`` of 0 and 1, -1 where unknown;
``probabilities`` ``[N, C]``, rows that sum to one; ``regression`` numbers ``[N, ...]``; ``none``, all
unknown."""

LabelName: TypeAlias = str | int

_MOST = 2.0**53  # beyond it floating-point numbers skip whole numbers


class Labels(NamedTuple):
    """Labels in their one form.

    Attributes:
      values: Classes as int32, indicators, or float32 numbers.
      num_classes: Number of classes; 0 for regression targets or no labels.
      names: Name of each class before it was mapped, or empty.
      kind: Kind of the labels.
    """

    values: Any
    num_classes: int
    names: tuple[LabelName, ...]
    kind: TargetKind


# Arrays


def hidden(value: Any) -> bool:
    """Return whether a value cannot be read: a tracer, a shape without an array, an array of other hosts."""
    if isinstance(value, jax.Array) and not isinstance(value, Tracer):
        return not value.is_fully_addressable
    return isinstance(value, Tracer | jax.ShapeDtypeStruct)


def _gate(check: Callable) -> Callable:
    """Make a check pass None and values that cannot be read."""

    @functools.wraps(check)
    def checked(name: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        return value if value is None or hidden(value) else check(name, value, *args, **kwargs)

    return checked


def _host(name: str, value: Any) -> np.ndarray:
    """Return the numbers or words of a tensor, a list or a column of a table as a plain array on the host."""
    if hasattr(value, "detach"):  # a tensor of PyTorch
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise DataError(
            f"{name} is a masked array with hidden entries: fill them first, unknown labels with -1"
        )
    try:
        array = np.asarray(value)
        if array.dtype.kind in "US" and not isinstance(value, np.ndarray):
            array = np.asarray(value, dtype=object)  # None and NaN among words stay what they are
    except ValueError:
        raise DataError(f"{name} has rows of different lengths: give an array") from None
    if array.dtype.kind not in "biufcOUS" and array.dtype.name != "bfloat16":
        raise DataError(f"{name} holds values of type {array.dtype}: give numbers or words")
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _same(value: Any, array: np.ndarray, dtype: Any) -> Any:
    """Return ``value`` if it is an array of that type and shape already, else the array on the host."""
    if isinstance(value, np.ndarray | jax.Array) and value.dtype == dtype and value.shape == array.shape:
        return value
    return np.ascontiguousarray(array, dtype=dtype)


def _column(array: np.ndarray) -> np.ndarray:
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _first(bad: np.ndarray) -> int:
    """Return the first row in which something is true."""
    return int(np.argwhere(bad)[0][0])


@_gate
def finite(name: str, value: Any) -> Any:
    """Return an array if it holds numbers and none of them is NaN or infinite in float32.

    Args:
      name: Name of the field, for messages.
      value: Array.

    Raises:
      DataError: If the array holds anything else; the message names the first row.
    """
    array = _host(name, value)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name} holds values of type {array.dtype}, not numbers")
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            bad = ~np.isfinite(array.astype(np.float32, copy=False))
        if bad.any():
            where = f", first in row {_first(bad)}" if bad.ndim else ""
            raise DataError(f"{name} holds NaN or infinity{where}: fill or drop it")
    return value if isinstance(value, np.ndarray | jax.Array) else array


@_gate
def as_rows(name: str, value: Any, size: int, of: str) -> Any:
    """Return an array if it has ``size`` rows.

    Args:
      name: Name of the field, for messages.
      value: Array.
      size: Number of rows.
      of: Name of the rows, for messages.

    Raises:
      DataError: If the array has another number of rows.
    """
    array = value if isinstance(value, np.ndarray | jax.Array) else _host(name, value)
    if array.shape[:1] != (size,):
        raise DataError(
            f"{name} has shape {array.shape}, but there are {size} {of}: it needs one row for each"
        )
    return array


# Masks


@_gate
def as_mask(name: str, value: Any, size: int, of: str = "rows") -> Any:
    """Return a mask ``[size]`` of bools.

    Args:
      name: Name of the field, for messages.
      value: Bools ``[size]``; numbers ``[size]`` that are all 0 or 1; or row numbers, whole, each once, in
        ``0..size-1``. Numbers that can be a mask are one: ``[0, 1]`` of two rows is the second row. ``[size,
        1]`` is a column. None stays None.
      size: Number of rows.
      of: Name of the rows, for messages.

    Raises:
      DataError: If the value has none of these forms.
    """
    array = _column(_host(name, value))
    wanted = f"give a mask of {size} bools, or row numbers"
    if array.ndim != 1:
        hint = "give one column of it" if array.ndim == 2 else wanted
        raise DataError(f"{name} has shape {array.shape}, but there are {size} {of}: {hint}")
    if array.dtype == bool:
        if len(array) != size:
            raise DataError(f"{name} has {len(array)} bools, but there are {size} {of}: {wanted}")
        return _same(value, array, bool)
    if array.size and array.dtype.kind not in "iuf":
        raise DataError(f"{name} holds values of type {array.dtype}: {wanted}")
    if len(array) == size and np.isin(array, (0, 1)).all():
        return array.astype(bool)
    if array.size and array.dtype.kind == "f":
        odd = ~np.isin(array, (0, 1))
        which = _first(odd) if odd.any() else 0
        found = f"{name}[{which}] is {array[which]:g}" if odd.any() else f"{name} has {len(array)} numbers"
        raise DataError(f"{found}, which is no mask of {size} {of}: {wanted} as integers")
    outside = (array < 0) | (array >= size)
    if outside.any():
        row = _first(outside)
        raise DataError(f"{name}[{row}] is {array[row]}, but {of} are numbered 0..{size - 1}: {wanted}")
    mask = np.zeros(size, bool)
    mask[array.astype(np.int64)] = True
    if mask.sum() != len(array):
        many = int(np.argmax(np.bincount(array.astype(np.int64), minlength=size) > 1))
        raise DataError(
            f"{name} holds {len(array)} numbers and {many} twice, so it is neither a mask of {size} {of} "
            f"nor row numbers: {wanted}"
        )
    return mask


@_gate
def as_like(name: str, value: Any, shape: tuple[int, ...]) -> Any:
    """Return a mask of a given shape as bools.

    Args:
      name: Name of the field, for messages.
      value: Bools, or numbers that are 0 or 1.
      shape: Required shape.

    Raises:
      DataError: If the value has another shape or holds other numbers.
    """
    array = _host(name, value)
    if array.shape != shape:
        raise DataError(f"{name} has shape {array.shape}, but what it masks has shape {shape}")
    if array.dtype != bool and not (array.dtype.kind in "iuf" and np.isin(array, (0, 1)).all()):
        raise DataError(f"{name} is a mask: it holds bools or the numbers 0 and 1")
    return _same(value, array, bool)


@_gate
def as_weights(name: str, value: Any, size: int, of: str) -> Any:
    """Return weights ``[size]`` if they are finite and not negative.

    Args:
      name: Name of the field, for messages.
      value: Weights.
      size: Number of rows.
      of: Name of the rows, for messages.

    Raises:
      DataError: If a weight is negative or not finite; the message names the first row.
    """
    array = _column(_host(name, finite(name, value)))
    if array.shape != (size,):
        raise DataError(
            f"{name} has shape {array.shape}, but there are {size} {of}: give one weight for each"
        )
    if (array < 0).any():
        row = _first(array < 0)
        raise DataError(f"{name}[{row}] is {array[row]:g}: weights must not be negative")
    return value if np.shape(value) == array.shape and hasattr(value, "dtype") else array


@_gate
def in_range(name: str, value: Any, size: int, of: str, *, least: int = 0) -> Any:
    """Return whole numbers if they are in ``least..size-1``.

    Args:
      name: Name of the field, for messages.
      value: Numbers.
      size: Largest number plus one.
      of: Name of the numbered things, for messages.
      least: Smallest number.

    Raises:
      DataError: If a number is out of range; the message names the first row.
    """
    array = _host(name, value)
    if array.size and array.dtype.kind not in "iu":
        raise DataError(f"{name} holds values of type {array.dtype}, but numbers of {of} are integers")
    outside = (array < least) | (array >= size)
    if outside.any():
        at = tuple(np.argwhere(outside)[0])
        raise DataError(f"{name} has {array[at]} in row {at[0]}, but {of} are numbered {least}..{size - 1}")
    return value


def disjoint(masks: Mapping[str, Any], of: str = "rows") -> None:
    """Refuse masks that share rows, because test rows must not be trained on.

    Args:
      masks: Masks by name; None and traced ones are skipped.
      of: Name of the rows, for messages.

    Raises:
      DataError: If two masks share rows; the message names them and the number of shared rows.
    """
    there = {name: np.asarray(mask) for name, mask in masks.items() if mask is not None and not hidden(mask)}
    names = list(there)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            both = there[first] & there[second]
            if both.any():
                raise DataError(
                    f"{first} and {second} share {int(both.sum())} {of}, the first is {_first(both)}: "
                    "every row belongs to one split"
                )


def is_number(value: Any, least: int | float, below: int | float = math.inf, *, whole: bool = False) -> bool:
    """Return whether a value, e.g. of a file, is a number in a range; a bool is none.

    Args:
      value: Value of any type.
      least: Least number.
      below: Number that it must be less than.
      whole: Whether it must be whole.
    """
    number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    return number and least <= value < below


def as_number(
    name: str, value: Any, least: int | float, below: int | float = math.inf, *, whole: bool = False
) -> Any:
    """Return a number if it is in a range, see `is_number`.

    Args:
      name: Name of the argument, for messages.
      value: Value of any type.
      least: Least number.
      below: Number that it must be less than.
      whole: Whether it must be whole.

    Raises:
      DataError: For another value; the message states the range.
    """
    if not is_number(value, least, below, whole=whole):
        what = "a whole number" if whole else "a number"
        limit = "" if below == math.inf else f" and less than {below}"
        raise DataError(f"{name} must be {what} of at least {least}{limit}, got {value!r}")
    return value


def as_word(name: str, value: Any, kind: Any) -> Any:
    """Return a word if it is one of those in a `typing.Literal`.

    Args:
      name: Name of the argument, for messages.
      value: Word.
      kind: A `typing.Literal`.

    Raises:
      DataError: If the word is another one; the message lists those that are known.
    """
    known_words = get_args(kind)
    if value not in known_words:
        raise DataError(f"{name} must be one of {', '.join(map(str, known_words))}, got {value!r}")
    return value


# Labels


def as_labels(
    name: str,
    value: Any,
    size: int,
    num_classes: int | None,
    names: Sequence[LabelName] = (),
    *,
    of: str = "rows",
    floats: Literal["classes", "regression"] = "classes",
    tasks: bool = False,
) -> Labels:
    """Bring labels into their one form, and find their kind.

    Of one axis (``[N, 1]`` is a column and becomes one, unless its numbers are regression targets):

    * integers in ``0..C-1``, -1 where unknown, are classes; so are bools, and floating-point numbers that are
      whole, with NaN where unknown;
    * without ``num_classes`` the classes are counted: other numbers than ``0..C-1`` are mapped to it in
      ascending order, and exactly {-1, 1} are two classes, because -1 then means no gap;
    * words (and None where unknown) are mapped in alphabetical order, or in that of ``names``;
    * numbers with ``num_classes=0``, and without it fractions, are regression targets, NaN where unknown.

    Of two axes: rows that sum to one are probabilities; numbers 0 and 1, with NaN or -1 where unknown, are
    indicators of several labels; other numbers are regression targets where ``num_classes`` is 0 or None.

    Args:
      name: Name of the field, for messages.
      value: Labels; None without labels.
      size: Number of rows.
      num_classes: Number of classes; None counts them; 0 for regression targets.
      names: Names of the classes; integers are then class numbers, and words must be among the names.
      of: Name of the rows, for messages.
      floats: Kind of whole floating-point numbers without ``num_classes``.
      tasks: Whether the columns of indicators are several tasks, not ``num_classes`` classes.

    Raises:
      DataError: If the labels have none of these forms; the message names the first row.
    """
    num_classes = None if num_classes is None else _as_count("num_classes", num_classes)
    names = _as_names(name, names, num_classes)
    if value is None:
        return Labels(np.full(size, -1, np.int32), num_classes or 0, names, "none")
    if hidden(value):
        return _unseen(name, value, num_classes, names)
    array = _host(name, value)
    if array.shape[:1] != (size,):
        count = len(array) if array.ndim else 0
        raise DataError(f"there are {count} labels for {size} {of}: {name} has shape {array.shape}")
    narrow = _column(array)
    if narrow.dtype.kind in "OUS":
        if narrow.ndim != 1:
            raise DataError(f"{name} has shape {array.shape} of words: give one for each of {size} {of}")
        narrow, names = _from_words(name, narrow, num_classes, names)
        array = value = narrow
    if narrow.dtype.kind == "c":
        raise DataError(f"{name} holds complex numbers: give classes or real numbers")
    if narrow.dtype.kind == "f" and np.isinf(narrow).any():
        raise DataError(f"{name} holds infinity, first in row {_first(np.isinf(narrow))}: fill or drop it")
    if narrow.ndim == 1:
        return _one_axis(name, value, array, narrow, num_classes, names, floats)
    return _several_axes(name, value, array, num_classes, names, tasks)


def _as_count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or int(value) < 0:
        raise DataError(f"{name} must be a whole number, at least 0, or None to count, got {value!r}")
    return int(value)


def _as_names(name: str, names: Sequence[LabelName], num_classes: int | None) -> tuple[LabelName, ...]:
    if isinstance(names, str) or not isinstance(names, Sequence | np.ndarray):
        raise DataError(f"class_names must be several names, got {names!r}")
    plain = tuple(n if isinstance(n, str) else int(n) for n in names)
    if len(set(plain)) < len(plain):
        raise DataError(f"class_names holds a name twice: {', '.join(map(str, plain))[:80]}")
    if num_classes is not None and len(plain) > num_classes:
        raise DataError(f"{len(plain)} class_names for {name}, but num_classes is {num_classes}")
    return plain


def _unseen(name: str, value: Any, num_classes: int | None, names: tuple[LabelName, ...]) -> Labels:
    """Derive the kind of traced labels from their type and shape."""
    if num_classes is None and not names:
        raise DataError(f"{name} has no values to count classes in while it is traced: set num_classes")
    count = len(names) if num_classes is None else num_classes
    whole = np.issubdtype(value.dtype, np.integer) or value.dtype == bool
    kind: TargetKind = "regression" if not count else "classes"
    if count and len(value.shape) > 1:
        kind = "multilabel" if whole else "probabilities"
    return Labels(value, count, names, kind)


def _unknown(word: Any) -> bool:
    """Return whether a word is None, NaN, an empty string, or NA or NaT of pandas."""
    if word is None or (isinstance(word, str) and not word):
        return True
    if isinstance(word, float | np.floating):
        return bool(word != word)
    return type(word).__name__ in ("NAType", "NaTType")


def _from_words(
    name: str, words: np.ndarray, num_classes: int | None, names: tuple[LabelName, ...]
) -> tuple[np.ndarray, tuple[LabelName, ...]]:
    """Map words to class numbers; numbers that were objects because of None become plain numbers."""
    plain = [w.decode(errors="replace") if isinstance(w, bytes) else w for w in words.tolist()]
    gaps = np.asarray([_unknown(w) for w in plain], bool)
    real = [w for w, gap in zip(plain, gaps, strict=True) if not gap]
    if all(isinstance(w, numbers.Real) for w in real):
        whole = all(isinstance(w, numbers.Integral) for w in real)
        values = np.full(len(plain), -1 if whole else np.nan, np.int64 if whole else np.float64)
        try:
            values[~gaps] = real
        except OverflowError:
            raise DataError(f"{name} holds numbers beyond 64 bits: number the classes from 0") from None
        return values, names
    if not all(isinstance(w, str) for w in real):
        odd = next(i for i, w in enumerate(plain) if not gaps[i] and not isinstance(w, str))
        raise DataError(
            f"{name}[{odd}] is {str(plain[odd])[:40]!r} among words: give words, or numbers, alone"
        )
    found = sorted(set(real))
    if not names:
        names = tuple(found)
        if num_classes is not None and len(names) > num_classes:
            raise DataError(f"{name} holds {len(names)} different words, num_classes is {num_classes}")
    number = {word: i for i, word in enumerate(names)}
    if missing := [word for word in found if word not in number]:
        raise DataError(f"{name} holds {missing[0][:40]!r}, which is not among the class_names")
    return np.asarray([-1 if gap else number[w] for w, gap in zip(plain, gaps, strict=True)], np.int32), names


def _one_axis(name, value, array, narrow, num_classes, names, floats) -> Labels:
    is_float = narrow.dtype.kind == "f"
    gaps = np.isnan(narrow) if is_float else np.zeros(len(narrow), bool)
    fractions = is_float & ~gaps & (narrow != np.rint(narrow)) if is_float else gaps
    counted = num_classes is None and not names
    if num_classes == 0 or (counted and (fractions.any() or (is_float and floats == "regression"))):
        if not is_float and (narrow == -1).all():
            return Labels(_same(value, narrow, np.int32), 0, names, "none")
        return Labels(_same(value, array, np.float32), 0, names, "regression")
    if fractions.any():
        row = _first(fractions)
        raise DataError(
            f"{name} are not integers: {name}[{row}] is {narrow[row]:g}, num_classes is {num_classes}; "
            "regression targets need num_classes=0"
        )
    if is_float and (np.abs(narrow) > _MOST).any():
        row = _first(np.abs(narrow) > _MOST)
        raise DataError(f"{name}[{row}] is {narrow[row]:g}, which is no class number")
    classes = np.where(gaps, -1, narrow).astype(np.int64) if is_float else narrow
    if classes.dtype == np.uint64:
        classes = np.minimum(classes, np.uint64(2**63 - 1))
    classes = classes.astype(np.int64)
    if counted:
        classes, num_classes, names = _counted(name, classes)
    else:
        num_classes = len(names) if num_classes is None else num_classes
        _check_range(name, classes, num_classes, bool(names))
    kind: TargetKind = "classes" if (classes >= 0).any() else "none"
    unchanged = not gaps.any() and np.array_equal(classes, narrow)
    return Labels(_same(value if unchanged else None, classes, np.int32), num_classes, names, kind)


def _check_range(name: str, classes: np.ndarray, num_classes: int, named: bool) -> None:
    outside = (classes < -1) | (classes >= num_classes)
    real = classes[classes != -1]
    if outside.any():
        row = _first(outside)
        hint = "give class numbers, or the names" if named else "leave num_classes out to map other numbers"
        raise DataError(
            f"{name} run from {real.min()} to {real.max()}, num_classes is {num_classes}: {name}[{row}] is "
            f"{classes[row]}, classes are 0..{num_classes - 1} and -1 is unknown; {hint}"
        )
    if num_classes == 2 and len(real) < len(classes) and len(real) and (real == 1).all():
        raise DataError(
            f"{name} are -1 and 1, num_classes is 2: -1 means unknown, so class 0 has no rows; leave "
            "num_classes out for two classes called -1 and 1"
        )


def _counted(name: str, classes: np.ndarray) -> tuple[np.ndarray, int, tuple[LabelName, ...]]:
    found = np.unique(classes)
    if found.tolist() != [-1, 1]:
        if found.size and found[0] < -1:
            row = _first(classes < -1)
            raise DataError(
                f"{name}[{row}] is {classes[row]}: classes are not negative and -1 is unknown; give the "
                "names as words to have them mapped"
            )
        found = found[found >= 0]
    if np.array_equal(found, np.arange(len(found))):
        return classes, len(found), ()
    mapped = np.where(np.isin(classes, found), np.searchsorted(found, classes), -1)
    return mapped, len(found), tuple(int(c) for c in found)


def _several_axes(name, value, array, num_classes, names, tasks) -> Labels:
    whole = array.dtype.kind in "biu"
    width = array.shape[1]
    gaps = np.isnan(array) if not whole else (array == -1 if array.dtype.kind == "i" else np.zeros((), bool))
    indicators = array.ndim == 2 and (gaps | (array == -1) | (array == 0) | (array == 1)).all()
    if num_classes != 0 and array.ndim == 2:
        sums = array.sum(1, dtype=np.float64)
        rows = (array >= 0).all(1) & (np.abs(sums - 1) <= 1e-3) if not tasks else np.zeros(1, bool)
        kind: TargetKind | None = "probabilities" if rows.all() else "multilabel" if indicators else None
        if kind is not None:
            if num_classes not in (None, width) and not tasks:
                raise DataError(
                    f"{name} has {width} columns, num_classes is {num_classes}: give one for each class"
                )
            dtype = np.int32 if kind == "multilabel" and whole else np.float32
            if gaps.any():
                array, value = np.where(gaps, -1, array), None
            return Labels(_same(value, array, dtype), num_classes or width, names, kind)
        if num_classes is not None:
            row = _first(~rows) if len(rows) == len(array) else 0
            raise DataError(
                f"{name} are neither classes, nor 0/1 indicators, nor probabilities: row {row} sums to "
                f"{sums[row]:g}; regression targets need num_classes=0"
            )
    elif num_classes:
        raise DataError(f"{name} has shape {array.shape}: classes have one axis, indicators two")
    return Labels(_same(value, array, np.float32), 0, names, "regression")


def known(labels: Any, kind: TargetKind) -> np.ndarray:
    """Return which rows have a label ``[N]``; this function alone defines what unknown means.

    Args:
      labels: Labels of a task, in their one form.
      kind: Kind of the labels.

    Returns:
      Rows whose class is not negative, whose indicators are not all negative, or whose numbers are not NaN.
    """
    array = np.asarray(labels)
    if kind in ("classes", "none"):
        return array >= 0
    rest = tuple(range(1, array.ndim))
    return np.asarray((array >= 0).any(rest) if kind == "multilabel" else ~np.isnan(array).any(rest))


_CALLED = {
    "multilabel": "several labels for each row",
    "probabilities": "probabilities as labels",
    "regression": "regression targets",
    "none": "no known labels",
}


def need_classes(task: Any, what: str) -> None:
    """Refuse a task whose labels are not classes.

    Args:
      task: Task with ``target_kind``.
      what: Name of the method that needs classes, for the message.

    Raises:
      DataError: If the labels are of another kind, which the message states.
    """
    if task.target_kind != "classes":
        name = f"task {task.name!r}" if task.name else "the task"
        raise DataError(f"{name} has {_CALLED[task.target_kind]}, but {what} needs one class for each row")


def warn_of_missing(task: Any) -> None:
    """Warn of classes without labelled training examples, because nothing can learn them.

    Args:
      task: Task with classes and labelled training examples.
    """
    labels = np.asarray(task.y if hasattr(task, "y") else task.labels)[task.labelled()]
    missing = np.setdiff1d(np.arange(task.num_classes), labels)
    name = f"task {task.name!r}" if task.name else "the task"
    if len(missing):
        shown = ", ".join(str(task.class_names[c] if task.class_names else c) for c in missing[:5])
        many = ", ..." if len(missing) > 5 else ""
        warnings.warn(
            f"{name} has no labelled training examples of {len(missing)} of its {task.num_classes} classes "
            f"({shown}{many}), which nothing can learn from them",
            stacklevel=3,
        )
    elif task.num_classes == 1:
        warnings.warn(f"{name} has one class, so every classifier is right", stacklevel=3)


# Graphs


def as_graph(name: str, graph: Any, *, features: bool = False) -> Any:
    """Return a graph, or several joined, if it is sound (see `jgd.graph.validate`).

    Args:
      name: Name of the field, for messages.
      graph: Graph, which should be a `jraph.GraphsTuple`.
      features: Whether node features have to be ``[N, F]`` and edge data weights.

    Raises:
      DataError: If the graph is not sound; the message states what is wrong and where.
    """
    if not all(
        hasattr(graph, part) for part in ("nodes", "edges", "senders", "receivers", "n_node", "n_edge")
    ):
        raise DataError(
            f"{name} must be a jraph.GraphsTuple, got a {type(graph).__name__}: see jgd.graph.from_edges"
        )
    if any(map(hidden, jax.tree.leaves(graph))):
        return graph
    try:
        return validate(graph, features=features)
    except DataError:
        raise
    except ValueError as error:
        raise DataError(str(error)) from None
