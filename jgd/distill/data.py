"""Data of a distillation loop: examples of a task, batches of them, outputs of teachers computed ahead."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jgd.core import Bound, Context, Examples, Model, Outputs, applied, as_bound, as_float
from jgd.core.memo import memoized
from jgd.data import ArrayTask, DataError, NodeTask, SequenceTask
from jgd.data.arrays import read_npy, read_npz
from jgd.data.checks import known
from jgd.graph import operator
from jgd.training import features_for

__all__ = [
    "Rows",
    "Source",
    "Table",
    "ahead",
    "as_teacher",
    "count",
    "examples",
    "inputs_at",
    "inputs_of",
    "is_given",
    "known_rows",
    "of_rows",
    "outputs",
    "outputs_of_all",
    "predict",
    "rows",
    "seen_by",
    "source",
    "source_of",
    "take",
    "with_table",
]

Task = ArrayTask | NodeTask | SequenceTask


class Source(NamedTuple):
    """Data of a distillation loop.

    Attributes:
      train: Examples to learn from.
      val: Examples to select by, or None.
      inputs: ``{player: inputs}`` of graph networks, which see the whole graph at every split; empty where
        the inputs of a batch are the inputs of all players.
      teachers: ``{player: network}``.
      order: Random key of the order of the examples, the same for all members of an ensemble.
      start: ``{player: (params, state)}`` to start from, or None for random parameters.
    """

    train: Examples
    val: Examples | None
    inputs: Mapping[str, tuple]
    teachers: Mapping[str, Bound]
    order: Array
    start: Mapping[str, Any] | None = None


class Rows(NamedTuple):
    """Inputs of a network whose outputs are known already: which rows."""

    index: Array


def examples(task: Any, split: str) -> Examples:
    """Return the examples of a split; ``"train"`` also has those without labels, at weight zero.

    An unknown label (see `jgd.data.checks.known`, -1 of classes) means here, and so for losses, selection and
    every score, that its example has weight zero. Where no label of those that count is known the targets are
    None, and the weights are those of the split.

    Of a `NodeTask` the inputs are empty (they depend on the network, see `inputs_of`), the rows are all
    nodes, the weights say which of them are in the split, and the masks are those of all splits.

    Raises:
      ValueError: For another kind of task, a task without this split, or with NaN among its inputs.
    """
    if not isinstance(task, ArrayTask | NodeTask | SequenceTask):
        raise ValueError(
            f"distillation takes an ArrayTask, NodeTask or SequenceTask, got {type(task).__name__}"
        )
    mask = getattr(task, split)
    if mask is None or not np.any(np.asarray(mask)):
        raise ValueError(f"the task {task.name!r} has no {split} examples")
    mask = np.asarray(mask)
    if isinstance(task, NodeTask):
        targets, there = _targets(task, slice(None), mask)
        splits = {name: getattr(task, name) for name in ("train", "val", "test")}
        masks = {name: jnp.asarray(m, bool) for name, m in splits.items() if m is not None}
        return Examples((), targets, jnp.asarray(mask & there, jnp.float32), masks=masks)
    keep = mask
    if split == "train" and getattr(task, "unlabelled", None) is not None:
        keep = mask | np.asarray(task.unlabelled)  # pyright: ignore[reportAttributeAccessIssue]
    index = np.flatnonzero(keep)
    inputs = inputs_at(task, index, f"{split} inputs")
    targets, there = _targets(task, index, mask[index])
    weights = (mask[index] & there).astype(np.float32)
    if isinstance(task, ArrayTask) and task.weights is not None:
        weights = weights * np.asarray(task.weights, np.float32)[index]
    return Examples(
        inputs, targets, None if (weights == 1).all() else jnp.asarray(weights), jnp.asarray(index)
    )


def _targets(task: Task, index: Any, counted: np.ndarray) -> tuple[Array | None, Any]:
    """Return targets (None where none of those that count is known), and which of them are known."""
    labels = task.labels if isinstance(task, NodeTask) else task.y
    if labels is None:
        return None, True
    labels = np.asarray(labels)[index]
    there = known(labels, task.target_kind)
    return (jnp.asarray(labels), there) if np.any(there & counted) else (None, True)


def inputs_at(task: ArrayTask | SequenceTask, index: Any, what: str = "inputs") -> tuple[Array, ...]:
    """Return inputs of some rows of a task.

    Raises:
      ValueError: For NaN or infinite numbers, naming the first row.
    """
    x = np.asarray(task.x if isinstance(task, ArrayTask) else task.tokens)[index]
    if np.issubdtype(x.dtype, np.floating) and not (finite := np.isfinite(x)).all():
        row = np.arange(len(task.x if isinstance(task, ArrayTask) else task.tokens))[index][
            np.flatnonzero(~finite.reshape(len(x), -1).all(1))[0]
        ]
        raise ValueError(f"{what} of {task.name!r} have NaN or infinite numbers, the first in row {row}")
    inputs = (jnp.asarray(x),)
    return inputs if task.mask is None else (*inputs, jnp.asarray(np.asarray(task.mask)[index]))


def count(some: Examples) -> int:
    """Return the number of examples, with or without labels."""
    first = some.targets if some.targets is not None else some.weights
    return some.inputs[0].shape[0] if first is None else first.shape[0]


def inputs_of(model: Model, task: NodeTask) -> tuple:
    """Return operator and features of a graph as a network reads them, see `Model.reads`.

    Of an inductive task the training graph has the training nodes alone.
    """
    if task.setting == "inductive":
        raise ValueError(
            "distillation does not take inductive node tasks: give the induced task of the training nodes"
        )
    settings: dict[str, Any] = dict(model.reads or (("normalize", "sym"), ("self_loops", True)))
    return operator(task.graph, **settings), features_for(task.graph)


def source(key: Array, task: Task, models: Mapping[str, Model], teachers: Mapping[str, Bound]) -> Source:
    """Return the data of a loop on a task, for these players."""
    train = examples(task, "train")
    val = None if task.val is None else examples(task, "val")
    inputs: dict[str, tuple] = {}
    if isinstance(task, NodeTask):
        known = {name: net.model for name, net in teachers.items() if known_rows(net) is None}
        players = {**models, **known}
        inputs = {name: inputs_of(model, task) for name, model in players.items()}
    return Source(train, val, inputs, dict(teachers), key)


def rows(order: Array, t: Array, count: int, batch: int) -> Int[Array, " B"]:
    """Return the examples of step ``t``; every epoch has its own order, an incomplete batch is dropped."""
    epoch = count // batch
    shuffled = jax.random.permutation(jax.random.fold_in(order, t // epoch), count)
    return jax.lax.dynamic_slice(shuffled, ((t % epoch) * batch,), (batch,))


def take(all_examples: Examples, index: Int[Array, " B"]) -> Examples:
    """Return some examples; pixels in 0..255 become floats in 0..1, ``index`` the row in the training set."""

    def pick_or_none(x):
        return None if x is None else x[index]

    return Examples(
        tuple(as_float(x[index]) for x in all_examples.inputs),
        pick_or_none(all_examples.targets),
        pick_or_none(all_examples.weights),
        index,
        jax.tree.map(lambda mask: mask[index], all_examples.masks),
    )


_taken = jax.jit(take)  # one program, not one for each little operation


def source_of(ctx: Context, who: str) -> Source:
    """Return the data of the loop, for objectives that need all training examples.

    Args:
      ctx: Context of a step.
      who: Name of the objective, for the error.

    Raises:
      ValueError: Where the loop has other data.
    """
    if not isinstance(ctx.examples, Source):
        raise ValueError(
            f"{who} needs all training examples, ctx.examples is a {type(ctx.examples).__name__}: train by "
            "jgd.distill.offline or online, or give the loop a jgd.distill.data.Source as its data"
        )
    return ctx.examples


def seen_by(ctx: Context, player: str) -> tuple:
    """Return the inputs of a network: those of the batch, or the whole graph of a node task."""
    graphs = ctx.examples.inputs if isinstance(ctx.examples, Source) else {}
    return graphs.get(player) or ctx.batch.inputs


def predict(net: Bound, given: Any, batch: int = 512) -> Outputs:
    """Return outputs of a network on all examples, some at a time.

    Args:
      net: Network.
      given: Inputs ``[N, ...]`` as an array or a tuple of arrays, `Examples`, or a task, all
        of its rows; pixels in 0..255 (uint8) are scaled as in training.
      batch: Examples at a time; a graph is read as a whole.

    Raises:
      ValueError: For inputs of different lengths or without examples.
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    if isinstance(given, NodeTask):
        return outputs(net, inputs_of(net.model, given))
    if isinstance(given, ArrayTask | SequenceTask):
        given = inputs_at(given, slice(None))
    inputs = given.inputs if isinstance(given, Examples) else given if isinstance(given, tuple) else (given,)
    inputs = tuple(x if isinstance(x, jax.Array) else jnp.asarray(x) for x in inputs)
    lengths = {x.shape[0] if x.ndim else 0 for x in inputs}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"predict needs inputs [N, ...] of one length, got {[x.shape for x in inputs]}")
    if net.example and len(inputs) == len(net.example) and inputs[0].ndim == len(net.example[0].shape):
        raise ValueError(
            f"predict needs a batch axis: inputs [N, {', '.join(map(str, net.example[0].shape))}], "
            f"got {list(inputs[0].shape)}; a single example is net(x)"
        )
    some, total = Examples(inputs), inputs[0].shape[0]
    pieces = [
        outputs(net, _taken(some, np.arange(start, min(start + batch, total))).inputs)
        for start in range(0, total, batch)
    ]
    return pieces[0] if len(pieces) == 1 else jax.tree.map(lambda *parts: jnp.concatenate(parts), *pieces)


@jax.jit
def outputs(net: Bound, inputs: tuple) -> Any:
    """Return outputs of a network at its inputs, compiled once for all networks of a kind."""
    return net(*inputs)


def ahead(net: Bound, given: Examples, limit: int = 256 * 2**20) -> Bound | None:
    """Return the network with its outputs on all examples, which it looks up where its input is `Rows`.

    Args:
      net: Teacher.
      given: Examples.
      limit: Bytes; the result is None where the outputs would take more.
    """
    one = take(given, jnp.arange(1)).inputs
    shapes = jax.eval_shape(lambda n, inputs: n(*inputs), net, one)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
    if size * given.inputs[0].shape[0] > limit:
        return None
    return with_table(net, predict(net, given))


class Table(NamedTuple):
    """State of a network whose outputs on all examples are known.

    Attributes:
      state: State of the network.
      outputs: Outputs, a row for each example.
    """

    state: Any
    outputs: Any


def with_table(net: Bound, outputs: Any) -> Bound:
    """Return the network with its outputs on all examples, which it looks up where its input is `Rows`."""
    return Bound(net.params, Table(net.state, outputs), _looked_up(net.model))


@memoized
def _looked_up(model: Model) -> Model:
    def apply(params, state, *inputs, key=None, train=False):
        if isinstance(inputs[0], Rows):
            return jax.tree.map(lambda values: values[inputs[0].index], state.outputs), state
        out, own = applied(model, params, state.state, *inputs, key=key, train=train)
        return out, Table(own, state.outputs)

    return Model(model.init, apply, model.reads)


# --- teachers whose outputs are given -------------------------------------------------------------


def _nothing_else(params, state, *inputs, key=None, train=False):
    raise ValueError(
        "the teacher is an array of outputs: it answers for the rows of its task as they are, "
        "and not at other inputs"
    )


_GIVEN = Model(lambda key, *inputs: ((), ()), _nothing_else)


def as_teacher(teacher: Any) -> Bound:
    """Return what may teach: a `Bound` network, an NNX module, a function, or outputs that are known.

    Args:
      teacher: Network, see `jgd.core.as_bound`; or logits ``[N, C]``, one row for each row of the task, as an
        array, `Outputs` of arrays, or the path of a ``.npy`` or ``.npz`` file (``logits``, optionally
        ``embedding``; other arrays are taps) or of a network that `jgd.save` has written.

    Raises:
      ValueError: For anything else, and for outputs that are no numbers.
      DataError: For a file that cannot be read.
    """
    if isinstance(teacher, str | os.PathLike):
        return _from_file(Path(teacher))
    if isinstance(teacher, Outputs):
        return _given(teacher)
    if isinstance(teacher, list) or (hasattr(teacher, "__array__") and not isinstance(teacher, type)):
        return _given(Outputs(teacher))
    return as_bound(teacher)


def _from_file(path: Path) -> Bound:
    if path.suffix == ".npy":
        if not path.is_file():
            raise DataError(f"there is no file {path}")
        return _given(Outputs(read_npy(path)))
    arrays = read_npz(path)
    if "header" in arrays:
        from jgd.nn.saved import load_model

        return load_model(path)
    if "value" in arrays and "logits" not in arrays:
        arrays["logits"] = arrays.pop("value")
    if "logits" not in arrays and len(arrays) == 1:
        arrays = {"logits": next(iter(arrays.values()))}
    if "logits" not in arrays:
        raise DataError(f"{path} has no array 'logits', it has {', '.join(sorted(arrays)) or 'nothing'}")
    return _given(Outputs(arrays.pop("logits"), arrays.pop("embedding", None), arrays))


def _given(found: Outputs) -> Bound:
    logits = np.asarray(found.logits)
    found = found._replace(value=logits)
    if logits.ndim < 2 or logits.dtype.kind not in "fiu":
        raise ValueError(
            f"a teacher's logits are numbers [N, C], got {logits.dtype.name} {list(logits.shape)}"
        )
    arrays = jax.tree.map(lambda x: np.asarray(x, np.float32), found)
    for leaf in jax.tree.leaves(arrays):
        if len(leaf) != len(logits):
            raise ValueError(
                f"a teacher's outputs have {len(logits)} rows of logits and {len(leaf)} of others"
            )
        if not (good := np.isfinite(leaf.reshape(len(leaf), -1)).all(1)).all():
            raise ValueError(f"the teacher's outputs have NaN or infinite numbers in row {np.argmin(good)}")
    return Bound((), jax.tree.map(jnp.asarray, arrays), _GIVEN)


def known_rows(net: Bound) -> int | None:
    """Return the number of rows for which a teacher's outputs are given; None for a network."""
    return net.state.logits.shape[0] if net.model is _GIVEN else None


def is_given(net: Bound) -> bool:
    """Return whether a network in a `Source` only looks up outputs that were given."""
    return net.model is _looked_up(_GIVEN)


def of_rows(net: Bound, task: Task, index: Any) -> Outputs:
    """Return outputs that are given, of some rows of a task.

    Raises:
      ValueError: Where they are not those of all rows of the task.
    """
    have = known_rows(net)
    rows_of_task = len(np.asarray(task.train)) if task.train is not None else have
    if have != rows_of_task:
        train = int(np.sum(np.asarray(task.train)))
        hint = "these are as many as there are training rows: " if have == train else ""
        raise ValueError(
            f"the teacher has outputs of {have} rows, {task.name!r} has {rows_of_task}: "
            f"{hint}give one row for each row of the task, those of validation and test included"
        )
    return jax.tree.map(lambda x: x[index], net.state)


def outputs_of_all(ctx: Context, player: str, who: str, batch: int = 512) -> Any:
    """Return outputs of a player on all training examples.

    Args:
      ctx: Context of a step, in a traced function such as an objective's ``init``.
      player: Name of the network.
      who: Name of the objective, for errors.
      batch: Examples at a time.
    """
    data = source_of(ctx, who)
    total = count(data.train)
    if player in data.teachers and is_given(data.teachers[player]):
        return ctx.call[player](Rows(jnp.arange(total)))
    if data.inputs:
        return ctx.call[player](*data.inputs[player])
    size = min(batch, total)
    index = jnp.arange(-(-total // size) * size).reshape(-1, size) % total
    pieces = jax.lax.map(lambda i: ctx.call[player](*take(data.train, i).inputs), index)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:total], pieces)
