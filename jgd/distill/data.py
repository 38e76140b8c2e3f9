"""What a distillation loop is given: examples of a task, batches of them, and outputs of teachers ahead."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jgd.core import Bound, Context, Examples, Model
from jgd.data.tasks import ArrayTask, NodeTask, SequenceTask
from jgd.graph import operator
from jgd.nn import features_for

__all__ = [
    "Rows",
    "Source",
    "Table",
    "ahead",
    "examples",
    "inputs_of",
    "outputs",
    "outputs_of_all",
    "predict",
    "rows",
    "source",
    "source_of",
    "take",
    "with_table",
]

Task = ArrayTask | NodeTask | SequenceTask


class Source(NamedTuple):
    """Data of a distillation loop.

    Attributes:
      train: examples to learn from.
      val: examples to select by, or None.
      inputs: ``{player: inputs}`` of graph networks, which see the whole graph at every split; empty where
        the inputs of a batch are the inputs of all players.
      teachers: ``{player: network}``.
      order: random key of the order of the examples, the same for all members of an ensemble.
    """

    train: Examples
    val: Examples | None
    inputs: Mapping[str, tuple]
    teachers: Mapping[str, Bound]
    order: Array


class Rows(NamedTuple):
    """Inputs of a network whose outputs are known already: which rows."""

    index: Array


def examples(task: Task, split: str) -> Examples:
    """The examples of a split as arrays; ``"train"`` also has those without labels, at weight zero.

    Of a `NodeTask` the inputs are empty (they depend on the network, see `inputs_of`), the rows are all
    nodes, and the weights say which of them are in the split.

    Raises:
      ValueError: for a task without this split, or with NaN among its inputs.
    """
    mask = getattr(task, split)
    if mask is None or not np.any(np.asarray(mask)):
        raise ValueError(f"the task {task.name!r} has no {split} examples")
    mask = np.asarray(mask)
    if isinstance(task, NodeTask):
        return Examples((), jnp.asarray(task.labels), jnp.asarray(mask, jnp.float32))
    keep = mask
    if split == "train" and getattr(task, "unlabelled", None) is not None:
        keep = mask | np.asarray(task.unlabelled)  # pyright: ignore[reportAttributeAccessIssue]
    index = np.flatnonzero(keep)
    x = task.x if isinstance(task, ArrayTask) else task.tokens
    x = np.asarray(x)[index]
    if np.issubdtype(x.dtype, np.floating) and not np.isfinite(x).all():
        raise ValueError(f"{split} inputs of {task.name!r} have NaN or infinite numbers")
    inputs = (jnp.asarray(x),)
    if task.mask is not None:
        inputs += (jnp.asarray(np.asarray(task.mask)[index]),)
    weights = mask[index].astype(np.float32)
    if isinstance(task, ArrayTask) and task.weights is not None:
        weights = weights * np.asarray(task.weights, np.float32)[index]
    targets = None if task.y is None else jnp.asarray(np.asarray(task.y)[index])
    return Examples(
        inputs, targets, None if (weights == 1).all() else jnp.asarray(weights), jnp.asarray(index)
    )


def inputs_of(model: Model, task: NodeTask) -> tuple:
    """Operator and features of a graph as a network reads them, see `Model.reads`.

    Of an inductive task the training graph has the training nodes alone.
    """
    if task.setting == "inductive":
        raise ValueError("distillation on inductive node tasks: give the induced task of the training nodes")
    settings: dict[str, Any] = dict(model.reads or (("normalize", "sym"), ("self_loops", True)))
    return operator(task.graph, **settings), features_for(task.graph)


def source(key: Array, task: Task, models: Mapping[str, Model], teachers: Mapping[str, Bound]) -> Source:
    """Examples of a task for these players."""
    train = examples(task, "train")
    val = None if task.val is None else examples(task, "val")
    inputs: dict[str, tuple] = {}
    if isinstance(task, NodeTask):
        players = {**models, **{name: net.model for name, net in teachers.items()}}
        inputs = {name: inputs_of(model, task) for name, model in players.items()}
    return Source(train, val, inputs, dict(teachers), key)


def rows(order: Array, t: Array, count: int, batch: int) -> Int[Array, " B"]:
    """Which examples step ``t`` sees: every epoch goes through all in another order, the rest is dropped."""
    epoch = count // batch
    shuffled = jax.random.permutation(jax.random.fold_in(order, t // epoch), count)
    return jax.lax.dynamic_slice(shuffled, ((t % epoch) * batch,), (batch,))


def take(all_examples: Examples, index: Int[Array, " B"]) -> Examples:
    """Some examples; pixels in 0..255 become floats in 0..1, ``index`` the row in the training set."""

    def pick(x):
        x = x[index]
        return x.astype(jnp.float32) / 255 if x.dtype == jnp.uint8 else x

    def pick_or_none(x):
        return None if x is None else x[index]

    return Examples(
        tuple(map(pick, all_examples.inputs)),
        pick_or_none(all_examples.targets),
        pick_or_none(all_examples.weights),
        index,
    )


def source_of(data: Any) -> Source:
    """The source among the data of a loop, see `Context.data`.

    Raises:
      ValueError: where an objective that remembers each example runs in another loop.
    """
    found = data if isinstance(data, Source) else data[0] if isinstance(data, tuple) and data else None
    if not isinstance(found, Source):
        raise ValueError("this objective needs all training examples: run it by offline or online")
    return found


# --- outputs of teachers, once ------------------------------------------------------------------


def predict(net: Bound, given: Examples, batch: int = 512) -> Any:
    """Outputs of a network on all examples, so many at a time."""
    count = given.inputs[0].shape[0]
    if count <= batch:
        return outputs(net, take(given, jnp.arange(count)).inputs)
    pieces = [
        outputs(net, take(given, jnp.arange(start, min(start + batch, count))).inputs)
        for start in range(0, count, batch)
    ]
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *pieces)


@jax.jit
def outputs(net: Bound, inputs: tuple) -> Any:
    """Outputs of a network at its inputs, compiled once for all networks of a kind."""
    return net(*inputs)


def ahead(net: Bound, given: Examples, limit: int = 256 * 2**20) -> Bound | None:
    """The network with its outputs on all examples, which it looks up where it is given `Rows`.

    Args:
      net: a teacher.
      given: the examples.
      limit: bytes; None is returned where the outputs would take more.
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
      state: its own.
      outputs: a row for each example.
    """

    state: Any
    outputs: Any


def with_table(net: Bound, outputs: Any) -> Bound:
    """The network with its outputs on all examples, which it looks up where it is given `Rows`."""
    return Bound(net.params, Table(net.state, outputs), _looked_up(net.model))


@lru_cache(maxsize=64)
def _looked_up(model: Model) -> Model:
    def apply(params, state, *inputs, key=None, train=False):
        if isinstance(inputs[0], Rows):
            return jax.tree.map(lambda values: values[inputs[0].index], state.outputs), state
        out, own = model.apply(params, state.state, *inputs, key=key, train=train)
        return out, Table(own, state.outputs)

    return Model(model.init, apply, model.reads)


def outputs_of_all(ctx: Context, player: str, batch: int = 512) -> Any:
    """Outputs of a player on all training examples, in a traced function such as an objective's ``init``."""
    data = source_of(ctx.data)
    if data.inputs:
        return ctx.call[player](*data.inputs[player])
    count = data.train.targets.shape[0]
    size = min(batch, count)
    index = jnp.arange(-(-count // size) * size).reshape(-1, size) % count
    pieces = jax.lax.map(lambda i: ctx.call[player](*take(data.train, i).inputs), index)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], pieces)
