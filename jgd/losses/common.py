"""Parts shared by losses and metrics: checks of arguments, precision, masks, and a constant teacher."""

from __future__ import annotations

import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, NamedTuple, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Shaped

__all__ = [
    "Count",
    "Number",
    "Positive",
    "PositiveNumber",
    "Setting",
    "Share",
    "bounded_exp",
    "checked",
    "flat_rows",
    "labelled",
    "over_labels",
    "per_example",
    "ready",
    "several",
    "widened",
]

# --- arguments ----------------------------------------------------------------------------------

Setting = Array | float | int
"""One number for all examples, or one for each ``[*B]``."""
Number = float | int | Float[Array, ""]
"""One number for all examples."""
Positive = Annotated[Setting, "positive"]
PositiveNumber = Annotated[Number, "positive"]
Share = Annotated[Setting, "between 0 and 1"]
Count = Annotated[int, "a whole number from 1 on"]

_RANGES: dict[str, Callable[[np.ndarray], Any]] = {
    "positive": lambda v: (v > 0) & (v < math.inf),
    "between 0 and 1": lambda v: (v >= 0) & (v <= 1),
    "a whole number from 1 on": lambda v: (v >= 1) & (np.mod(v, 1) == 0),
}
_CLASSES = ("labels", "targets")  # arguments that may come as one column ``[*B, 1]``

P = ParamSpec("P")
R = TypeVar("R")


class _Rule(NamedTuple):
    """Rule of one argument from its annotation: axes of its alternatives, or of its parts, and its range.

    ``real`` marks the alternatives that hold real numbers, because integers are not probabilities.
    """

    axes: tuple[tuple[str, ...], ...] = ()
    real: tuple[bool, ...] = ()
    on_host: bool = False
    mask: bool = False
    setting: bool = False
    scalar: bool = False
    parts: tuple[_Rule, ...] = ()
    within: str | None = None


def _members(hint: Any) -> Iterator[Any]:
    """Yield the alternatives of a union, and the words beside an annotated type."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType, Annotated):
        for part in typing.get_args(hint):
            yield from _members(part)
    else:
        yield hint


def _only(annotation: Any, kind: str) -> bool:
    """Return whether an annotation of an array allows only one kind of numbers."""
    return isinstance(annotation.dtypes, tuple) and all(
        d.strip("^").startswith((kind, "b" + kind)) for d in annotation.dtypes
    )


def _rule(hint: Any) -> _Rule:
    members = list(_members(hint))
    within = next((m for m in members if isinstance(m, str) and m in _RANGES), None)
    arrays = [m for m in members if hasattr(m, "dim_str")]
    tuples = [m for m in members if typing.get_origin(m) is tuple or hasattr(m, "_fields")]
    parts: tuple[_Rule, ...] = ()
    if tuples:
        fields = typing.get_type_hints(tuples[0]).values() if hasattr(tuples[0], "_fields") else ()
        parts = tuple(_rule(part) for part in fields or typing.get_args(tuples[0]) if part is not Ellipsis)
    return _Rule(
        tuple(tuple(m.dim_str.split()) for m in arrays),
        tuple(len(arrays) > 1 and _only(m, "float") for m in arrays),
        any(m.array_type is np.ndarray for m in arrays),
        any(_only(m, "bool") for m in arrays),
        not arrays and jax.Array in members,
        float in members or int in members,
        parts if any(part.axes for part in parts) else (),
        within,
    )


_Sizes = dict[str, tuple[Any, str, tuple[int, ...]]]  # {axis: (size, argument it was found in, its shape)}


def _fit(sizes: _Sizes, axes: tuple[str, ...], shape: tuple[int, ...]) -> dict[str, Any] | str | None:
    """Return the new axes of a shape.

    The result is the name of an axis whose size is known and differs, and None for too few or too many axes.
    """
    wide = next((i for i, a in enumerate(axes) if a[0] in "*."), None)
    if len(shape) != len(axes) if wide is None else len(shape) < len(axes) - 1:
        return None
    values: dict[int, Any] = dict(enumerate(shape))
    if wide is not None:
        extra = len(shape) - len(axes) + 1
        values = {i: shape[i if i < wide else i + extra - 1] for i in range(len(axes)) if i != wide}
        values[wide] = shape[wide : wide + extra]
    new: dict[str, Any] = {}
    for i, axis in enumerate(axes):
        if axis == "...":
            continue
        known = new[axis] if axis in new else sizes[axis][0] if axis in sizes else values[i]
        if known != values[i]:
            return axis
        new[axis] = values[i]
    return new


def _as_array(rule: _Rule, name: str, value: Any, function: str) -> Any:
    if not rule.on_host and (not hasattr(value, "shape") or isinstance(value, np.ndarray)):
        try:
            value = jnp.asarray(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{function}: {name} is not an array of numbers, got {value!r:.60}") from error
    return value != 0 if rule.mask and value.dtype != bool else value


def _place(sizes: _Sizes, rule: _Rule, name: str, value: Any, function: str) -> Any:
    """Return an argument as an array whose axes fit the known sizes, and add its axes to these."""
    if rule.scalar and not np.shape(value):
        return value
    if rule.parts and isinstance(value, tuple):
        parts = [
            _place(sizes, part, f"{name}[{i}]", v, function) if part.axes else v
            for i, (part, v) in enumerate(zip(rule.parts, value, strict=True))
        ]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    value = _as_array(rule, name, value, function)
    shape = tuple(np.shape(value))
    problem: str | None = None
    column = name in _CLASSES and shape[-1:] == (1,)
    real = jnp.issubdtype(value.dtype, jnp.inexact) if any(rule.real) else True
    fitting = [axes for axes, only in zip(rule.axes, rule.real, strict=True) if real or not only]
    for axes, cut in [(axes, False) for axes in fitting] + [(axes, True) for axes in fitting if column]:
        new = _fit(sizes, axes, shape[:-1] if cut else shape)
        if isinstance(new, dict):
            for axis, size in new.items():
                sizes.setdefault(axis, (size, name, shape))
            return value[..., 0] if cut else value
        problem = new if problem is None else problem
    wanted = " or ".join(f"[{', '.join(axes)}]" for axes in rule.axes)
    if problem in sizes:
        _, other, known = sizes[problem]
        raise ValueError(
            f"{function}: {name} of shape {shape} does not fit {other} of shape {known}: {name} must be "
            f"{wanted}, with the axis {problem.lstrip('*')} of {other}"
        )
    others = {other: known for _, other, known in sizes.values()}
    beside = "".join(f", beside {other} of shape {known}" for other, known in others.items())
    raise ValueError(f"{function}: {name} must have the axes {wanted}, got shape {shape}{beside}")


def _check_setting(sizes: _Sizes, name: str, value: Any, function: str) -> Any:
    if isinstance(value, np.ndarray | list | tuple):
        value = jnp.asarray(value)
    shape = tuple(np.shape(value))
    examples = sizes.get("*B")
    if shape and examples is not None and shape != examples[0]:
        raise ValueError(
            f"{function}: {name} of shape {shape} does not fit {examples[1]} of shape {examples[2]}: it is "
            f"one number, or one for each example {examples[0]}"
        )
    return value


def _check_range(within: str, name: str, value: Any, function: str) -> None:
    if isinstance(value, Tracer):
        return
    numbers = np.asarray(value)
    if numbers.dtype.kind not in "biuf" or not np.all(_RANGES[within](numbers)):
        raise ValueError(f"{function}: {name} must be {within}, got {value!r:.80}".replace("\n", " "))


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Compare the arguments of a loss or a metric with its signature, before anything broadcasts.

    The shapes in the annotations are the rule: axes with the same name have the same size. ``labels`` and
    ``targets`` of shape ``[*B, 1]`` lose their last axis, lists and NumPy arrays become JAX arrays, masks
    become boolean. Settings are one number or one for each example and lie in their range, where they are not
    traced.

    Raises:
      ValueError: One line with the argument, both shapes and what was expected.
    """
    signature = inspect.signature(function)
    name = function.__name__

    @functools.cache
    def rules() -> Mapping[str, _Rule]:
        hints = typing.get_type_hints(function, include_extras=True)
        found = {n: _rule(hint) for n, hint in hints.items() if n in signature.parameters}
        return {n: rule for n, rule in found.items() if rule != _Rule()}

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            given = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{name}(): {error}") from None
        arguments, sizes = given.arguments, {}
        for n, rule in rules().items():
            value = arguments.get(n)
            if value is None or not (rule.axes or rule.parts):
                continue
            arguments[n] = _place(sizes, rule, n, value, name)
        for n, rule in rules().items():
            if arguments.get(n) is None:
                continue
            if rule.setting:
                arguments[n] = _check_setting(sizes, n, arguments[n], name)
            if rule.within is not None:
                _check_range(rule.within, n, arguments[n], name)
        return function(*given.args, **given.kwargs)

    return call


def several(logits: Shaped[Array, "*B C"], function: str) -> None:
    """Refuse a single column of logits, whose softmax is always one.

    Raises:
      ValueError: Fewer than two classes.
    """
    if logits.shape[-1] < 2:
        raise ValueError(
            f"{function}: logits of shape {tuple(logits.shape)} have {logits.shape[-1]} class, at least two "
            "are needed: give the logit z of a binary classifier as the two columns [0, z]"
        )


def labelled(
    labels: Shaped[Array, "*B"],
    num_classes: int,
    where: Bool[Array, "*B"] | None = None,
    *,
    unknown: tuple[int, ...] = (-1,),
    name: str = "labels",
) -> tuple[Bool[Array, "*B"], Bool[Array, "*B"]]:
    """Return masks of the counting examples that have a label, and of those that have an impossible one.

    A label is a whole number in ``0..C-1`` or -1, which means unknown. Traced labels cannot be refused:
    losses of examples in the second mask have to be NaN, so that no training continues with them.

    Args:
      labels: Labels of the examples.
      num_classes: Number of classes C.
      where: Mask of the examples that count; all by default.
      unknown: Labels that mean unknown.
      name: Name of the labels in the message.

    Raises:
      ValueError: Impossible labels among those that count, if they are not traced.
    """
    if not isinstance(labels, Tracer) and not isinstance(where, Tracer):
        numbers = np.asarray(labels)
        fine = np.isin(numbers, unknown) | (
            (numbers >= 0) & (numbers < num_classes) & (np.mod(numbers, 1) == 0)
        )
        bad = numbers[~fine if where is None else ~fine & np.asarray(where)]
        if bad.size:
            raise ValueError(
                f"{name} must be in 0..{num_classes - 1}, as there are {num_classes} classes, or -1 for "
                f"unknown; got {bad[0]} ({bad.size} of {numbers.size} are outside)"
            )
    known = (labels >= 0) & (labels < num_classes)
    if jnp.issubdtype(labels.dtype, jnp.floating):
        known &= labels == jnp.floor(labels)
    counted = jnp.ones(labels.shape, bool) if where is None else where
    absent = functools.reduce(jnp.logical_or, [labels == value for value in unknown])
    return known & counted, counted & ~known & ~absent


def over_labels(loss: Callable[P, Array]) -> Callable[P, Array]:
    """Let a loss ``(student, teacher, labels, ...)`` of classes also take probabilities ``[*B, C]``.

    Probabilities give the expectation ``Σ_c y_c loss(c)``, as mixup mixes the losses of two labels. Time
    grows with the number of classes, memory does not.
    """

    @functools.wraps(loss)
    def call(*args: P.args, **kwargs: P.kwargs) -> Array:
        given = inspect.signature(loss).bind(*args, **kwargs).arguments
        student, labels, where = given["student"], given["labels"], given.get("where")
        if labels.ndim < student.ndim:
            return loss(*args, **kwargs)
        plain: Callable[..., Array] = loss

        def add(total, c):
            share = labels[..., c]
            here = (share != 0) if where is None else where & (share != 0)
            classes = jnp.full(share.shape, c, jnp.int32)
            value = plain(**{**given, "labels": classes, "where": here})
            return total + share.astype(total.dtype) * value, None

        start = jnp.zeros(student.shape[:-1], jnp.promote_types(student.dtype, jnp.float32))
        return jax.lax.scan(add, start, jnp.arange(student.shape[-1]))[0]

    return call


# --- precision and masks ------------------------------------------------------------------------


def widened(x: Array) -> Array:
    """Return an array in float32 at least, because half precision loses differences of logits."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def ready(
    student: Shaped[Array, "*B D"], teacher: Shaped[Array, "*B E"], where: Bool[Array, "*B"] | None = None
) -> tuple[Float[Array, "*B D"], Float[Array, "*B E"]]:
    """Return both arrays in float32 at least, masked rows as zeros, the teacher without a gradient.

    The rows are filled before any computation, so that a NaN in padding cannot reach a gradient.
    """
    student, teacher = widened(student), jax.lax.stop_gradient(widened(teacher))
    if where is not None:
        student, teacher = (jnp.where(where[..., None], x, 0) for x in (student, teacher))
    return student, teacher


def flat_rows(x: Shaped[Array, "B ..."]) -> Shaped[Array, "B D"]:
    """Return one vector for each example; there may be no examples."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def per_example(
    values: Float[Array, "*B"],
    where: Bool[Array, "*B"] | None = None,
    wrong: Bool[Array, "*B"] | None = None,
) -> Float[Array, "*B"]:
    """Return losses of examples, zero for those that do not count, NaN for those with impossible labels."""
    values = values if where is None else jnp.where(where, values, 0)
    return values if wrong is None else jnp.where(wrong, jnp.nan, values)


def bounded_exp(x: Float[Array, "..."], dtype: Any = None) -> Float[Array, "..."]:
    """Compute exp, continued by its tangent beyond the root of the largest number.

    This keeps its squares, in an optimiser's second moments, finite. In float32 the tangent begins at e^44.

    Args:
      x: Exponents.
      dtype: Type of the gradient, if it is narrower than that of ``x``.
    """
    limit = math.log(float(jnp.finfo(x.dtype if dtype is None else dtype).max)) / 2
    return jnp.exp(jnp.minimum(x, limit)) * (1 + jnp.maximum(x - limit, 0))
