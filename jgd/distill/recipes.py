"""Who teaches whom: a teacher its student, peers each other, a network itself, a chain of assistants.

::

    student = jgd.distill.offline(net, teacher, objective, optax.adamw(1e-3), augment=mixup())(key, task)
    peers = jgd.distill.online({"small": net, "large": other}, objective, optax.adamw(1e-3))(key, task)

Both are one recipe, `Distillation`: players that learn, networks that do not, one objective over all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array

from jgd.core import (
    Algorithm,
    Bound,
    Context,
    Examples,
    Loop,
    Model,
    Objective,
    Outputs,
    as_key,
    as_model,
    as_objective,
    ema,
    ensemble,
    in_memory,
    keep_best,
    train,
)
from jgd.core.algorithm import context
from jgd.core.memo import memoized
from jgd.core.model import sketch, starts_given
from jgd.data import NodeTask
from jgd.distill.data import (
    Rows,
    Source,
    Table,
    Task,
    ahead,
    as_teacher,
    count,
    is_given,
    known_rows,
    of_rows,
    outputs,
    rows,
    source,
    take,
    with_table,
)
from jgd.distill.terms import supervised
from jgd.metrics import accuracy
from jgd.training import Augmentation

__all__ = [
    "Distillation",
    "assistants",
    "generations",
    "learning",
    "mean_accuracy",
    "offline",
    "online",
    "scratch",
    "staged",
]

Network = Model | nn.Module | nnx.Module


@dataclass(frozen=True, eq=False)
class Distillation:
    """Networks that learn together, from labels, from teachers and from each other.

    Attributes:
      models: ``{player: network}`` of those that learn.
      teachers: ``{player: network}`` of those that do not, in any form that `offline` takes; stored as bound
        networks.
      objective: Loss over all of them.
      tx: Optimiser of ``{player: params, "objective": params}``.
      augment: Change of each batch, see `jgd.training.AUGMENTATIONS`; None for none.
      steps: Steps of the optimiser.
      batch: Examples of a step; None for all at once, as graphs of nodes are always.
      cache: Whether outputs of teachers are computed once, ahead; None does so where the augmentation keeps
        the inputs and they take less than 256 MiB.
      select_every: Steps between validation checks, which select the state that is returned:
        by accuracy, or, for targets that are no classes, by the objective; None for the last state.
      metric: Score of the validation checks in place of these, ``metric(ctx) -> number`` over all validation
        examples; higher is better. ``ctx`` is the context of an objective (`jgd.core.Context`), with the
        outputs of teachers too.
      patience: Validation checks without improvement before stopping; None disables early stopping.
      average: Decay of a moving average of the parameters that is returned in their place; None for none.
      start: ``{player: bound network}`` to start from.
      seeds: Number of students that are trained in one program; parameters get a leading axis. None for one.
      at_once: Number of students that are vmapped, the others after them in every step; None for all. With
        convolutions on CPU 1 is faster.
      alone: Whether the product is the bound network in place of ``{player: bound network}``.
    """

    models: Mapping[str, Model]
    teachers: Mapping[str, Any]
    objective: Any
    tx: optax.GradientTransformation
    augment: Augmentation | None = None
    steps: int = 1500
    batch: int | None = 64
    cache: bool | None = None
    select_every: int | None = None
    metric: Callable[[Context], Any] | None = None
    patience: int | None = None
    average: float | None = None
    start: Mapping[str, Bound] | None = None
    seeds: int | None = None
    at_once: int | None = None
    alone: bool = False

    def __post_init__(self):
        """Refuse impossible settings."""
        teachers = {name: as_teacher(net) for name, net in self.teachers.items()}
        object.__setattr__(self, "teachers", teachers)
        object.__setattr__(self, "objective", as_objective(self.objective))
        for name in ("steps", "batch", "select_every", "patience", "seeds", "at_once"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.average is not None and not 0 <= self.average < 1:
            raise ValueError(f"average is a decay in [0, 1), got {self.average}")
        if self.patience is not None and self.select_every is None:
            raise ValueError("patience counts validation checks: set select_every too")
        if self.metric is not None and self.select_every is None:
            raise ValueError("metric is computed in validation checks: set select_every too")
        given = [name for name, model in self.models.items() if starts_given(model)]
        if given and (self.seeds or 1) > 1:
            raise ValueError(
                f"an NNX module has its parameters, so {self.seeds} seeds of {given[0]!r} would start equal: "
                "give jgd.core.from_nnx(lambda rngs: Net(rngs))"
            )
        both = set(self.models) & set(self.teachers)
        if both:
            raise ValueError(f"{sorted(both)} cannot both learn and teach as they are: use other names")
        unknown = set(self.start or {}) - set(self.models)
        if unknown:
            hint = ': write start={"model": net}' if unknown == {"student"} and "model" in self.models else ""
            raise ValueError(f"start names {sorted(unknown)}, the players are {sorted(self.models)}{hint}")

    def __call__(self, key: Array | int, task: Task, loop: Loop = in_memory) -> Any:
        """Train all players.

        Args:
          key: Random key, or a seed.
          task: Task with training examples; labels are needed where the objective reads them.
          loop: Loop that runs the stage ``distill``.

        Raises:
          ValueError: For a task without training examples, a batch larger than them, an augmentation that
            changes the inputs of a whole graph, a selection without validation examples, networks whose
            outputs do not fit the task, or a task without the labels that the objective reads.
        """
        k_order, k_train = jax.random.split(as_key(key))
        data = self.source(k_order, task)
        alg = _cached(
            tuple(self.models.items()), self.objective, self.tx, self.augment, self.batch, task.num_classes,
            self.select_every, self._score(task, data), self.patience, self.average,
            self.seeds, self.at_once,
        )  # fmt: skip
        try:
            found = loop("distill", alg, k_train, data, self.steps)
        except Exception as error:
            if data.train.targets is None and _runs(alg, k_train, data):
                raise ValueError(
                    f"the objective reads labels, and no training label of {task.name!r} is known: "
                    "leave out the terms on labels, such as supervised()"
                ) from error
            raise
        if not data.inputs:
            inputs = tuple(jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in data.train.inputs)
            found = {name: dataclasses.replace(net, example=inputs) for name, net in found.items()}
        return found[next(iter(self.models))] if self.alone else found

    def source(self, key: Array, task: Task) -> Source:
        """Return the data of its loop, with outputs of teachers where these stay the same.

        Args:
          key: Random key of the order of the examples.
          task: Task with training examples.
        """
        data = source(key, task, self.models, self.teachers)
        keeps = self.augment is None or self.augment.keeps_inputs
        if data.inputs and not keeps:
            raise ValueError("an augmentation cannot change the inputs of networks that see a whole graph")
        total = count(data.train)
        if self.batch is not None and self.batch > total and not data.inputs:
            raise ValueError(f"a batch of {self.batch} from {total} training examples")
        if self.select_every is not None and data.val is None:
            raise ValueError(f"select_every needs validation examples, {task.name!r} has none")
        if self.cache and not keeps:
            raise ValueError("outputs of a teacher cannot be cached: the augmentation changes its inputs")
        given = [name for name, net in self.teachers.items() if known_rows(net) is not None]
        if given and (self.cache is False or not keeps):
            why = "cache=False asks for the network" if keeps else "the augmentation changes its inputs"
            raise ValueError(f"the {given[0]!r} is an array of outputs for the inputs as they are: {why}")
        self._check_widths(task, data)

        def known(name: str, net: Bound) -> Bound:
            if known_rows(net) is not None:
                return with_table(net, of_rows(net, task, _row_numbers(task, data)))
            if not keeps or self.cache is False:
                return net
            if data.inputs:
                return with_table(net, outputs(net, data.inputs[name]))
            return ahead(net, data.train, *((2**62,) if self.cache else ())) or net

        start = self.start and {name: (net.params, net.state) for name, net in self.start.items()}
        teachers = {name: known(name, net) for name, net in self.teachers.items()}
        return data._replace(teachers=teachers, start=start)

    def _check_widths(self, task: Task, data: Source) -> None:
        """Compare the outputs of all networks with the task, by their shapes."""
        width = _width_of(task)
        for name, net in {**self.models, **self.teachers}.items():
            bound = isinstance(net, Bound)
            if bound and known_rows(net) is not None:
                logits: Any = net.state.logits
            else:
                inputs = data.inputs.get(name) or take_specs(data.train)
                out = _shapes(net, inputs, name) if bound else sketch(net, *inputs)[2]
                logits = out.logits
            shape = getattr(logits, "shape", None)
            if width is None or shape is None or not shape:
                continue
            if shape[-1] != width:
                what = "classes" if task.num_classes else "columns of targets"
                whose = repr(task.name) if task.name else "the task"
                raise ValueError(
                    f"the {name} has {shape[-1]} outputs, {whose} has {width} {what}: make them equal"
                )

    def _score(self, task: Task, data: Source) -> Callable | None:
        """Return the score by which states are selected."""
        if self.select_every is None:
            return None
        if self.metric is not None:
            return _measured(self.metric)
        assert data.val is not None
        if task.target_kind == "none" or data.val.targets is None:
            raise ValueError(
                f"select_every compares predictions with validation labels, {task.name!r} has none: "
                "give metric=, a function of the context, e.g. the agreement with the teacher"
            )
        return mean_accuracy if task.target_kind == "classes" else _by_objective(self.objective, self.steps)


def _width_of(task: Task) -> int | None:
    """Return the number of outputs of a network for a task, None where the task leaves it open."""
    if task.num_classes:
        return task.num_classes
    labels = task.labels if isinstance(task, NodeTask) else task.y
    return None if labels is None or np.ndim(labels) != 2 else np.shape(labels)[1]


def take_specs(some: Examples) -> tuple:
    """Return the shapes of the inputs of one example, as a batch."""
    return tuple(jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype) for x in some.inputs)


def _shapes(net: Bound, inputs: tuple, name: str) -> Outputs:
    """Return the shapes of the outputs of a teacher."""
    specs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), inputs)
    specs = tuple(
        jax.ShapeDtypeStruct(x.shape, jnp.float32) if getattr(x, "dtype", None) == np.uint8 else x
        for x in specs
    )
    try:
        return jax.eval_shape(lambda net, inputs: net(*inputs), net, specs)
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError) as error:
        raise ValueError(
            f"the {name} cannot be traced by JAX (it needs numbers where there are only shapes): "
            "give its outputs on all rows as an array instead"
        ) from error


def _row_numbers(task: Task, data: Source) -> Any:
    """Return rows of the task in the order of a table of given outputs: training, then validation."""
    if isinstance(task, NodeTask):
        return slice(None)
    parts = [data.train.index, *([] if data.val is None else [data.val.index])]
    return np.concatenate([np.asarray(part) for part in parts])


def _runs(alg: Algorithm, key: Array, data: Source) -> bool:
    """Return whether an algorithm that failed on a task without labels has no other fault."""
    labels = jnp.zeros(count(data.train), jnp.int32)
    labelled = data._replace(train=data.train._replace(targets=labels))

    def one_step(key, data):
        state = alg.init(key, data, None)
        return alg.step(key, jnp.zeros((), jnp.int32), state, data, None)

    try:
        jax.eval_shape(one_step, key, labelled)
    except Exception:
        return False
    return True


def learning(
    models: Mapping[str, Model],
    objective: Any,
    tx: optax.GradientTransformation,
    *,
    augment: Augmentation | None = None,
    batch: int | None = 64,
    num_classes: int = 0,
) -> Algorithm:
    """Return the loop of `Distillation` over a `Source`; settings in ``objective`` and ``tx`` may be traced.

    Args:
      models: ``{player: network}`` of those that learn.
      objective: Loss over all players and teachers.
      tx: Optimiser.
      augment: Change of each batch.
      batch: Examples of a step; None for all, as graphs of nodes are always.
      num_classes: Classes of the task, for augmentations.

    Returns:
      An `Algorithm` whose product is ``{player: Bound}``.
    """

    def prepare(key, t, data, given):
        del given
        total = count(data.train)
        if data.inputs:
            examples, inputs, index = data.train, dict(data.inputs), jnp.arange(total)
        else:
            index = jnp.arange(total) if batch is None else rows(data.order, t, total, batch)
            examples = take(data.train, index)
            if augment is not None:
                examples = augment.apply(key, t, examples, num_classes)
            inputs = dict.fromkeys([*models, *data.teachers], examples.inputs)
        known = [name for name, net in data.teachers.items() if isinstance(net.state, Table)]
        return examples, {**inputs, **{name: (Rows(index),) for name in known}}

    return train(
        models,
        objective,
        tx,
        prepare=prepare,
        frozen=lambda data: data.teachers,
        start=lambda data: data.start or {},
    )


@memoized(maxsize=256)
def _cached(
    models,
    objective,
    tx,
    augment,
    batch,
    classes,
    every,
    score,
    patience,
    average,
    seeds,
    at_once,
) -> Algorithm:
    alg = learning(dict(models), objective, tx, augment=augment, batch=batch, num_classes=classes)
    if every is not None and score is not mean_accuracy:
        alg = _with_objective(alg)
    if average is not None:
        alg = ema(
            alg,
            average,
            get=lambda state: {n: p for n, p in state.params.items() if n != "objective"},
            put=lambda state, params: state._replace(params={**state.params, **params}),
        )
    if every is not None:
        alg = keep_best(alg, score, every=every, patience=patience)
        if score is not mean_accuracy:
            alg = _networks_alone(alg)
    return alg if seeds is None else ensemble(alg, seeds, at_once=at_once)


def _with_objective(alg: Algorithm) -> Algorithm:
    """Return the algorithm whose product has the objective's parameters and state too."""

    def result(state, data):
        return alg.result(state, data), (state.params["objective"], state.state["objective"])

    return alg._replace(result=result)


def _networks_alone(alg: Algorithm) -> Algorithm:
    return alg._replace(result=lambda state, data: alg.result(state, data)[0])


@memoized
def _measured(metric: Callable[[Context], Any]) -> Callable:
    def score(found, data):
        value = jnp.asarray(metric(_validation(found[0], data)))
        if value.ndim:
            raise ValueError(f"metric must return one number, got an array of shape {list(value.shape)}")
        return value

    return score


@memoized
def _by_objective(objective: Any, steps: int) -> Callable:
    """Return minus the objective, as it is weighted in the last step."""

    def score(found, data):
        nets, (params, state) = found
        ctx = _validation(nets, data)
        step = jnp.asarray(steps - 1, jnp.int32)
        return -objective.apply(params, state, ctx, key=jax.random.key(0), step=step)[0]

    return score


def _validation(nets: Mapping[str, Bound], data: Source) -> Context:
    """Return the context of all players on the validation examples, without dropout."""
    assert data.val is not None
    total = count(data.val)
    val = data.val if data.inputs else take(data.val, jnp.arange(total))
    everyone = {**nets, **jax.lax.stop_gradient(data.teachers)}
    inputs = {name: data.inputs.get(name) or val.inputs for name in everyone}
    looked_up = (Rows((0 if data.inputs else count(data.train)) + jnp.arange(total)),)
    inputs |= {n: looked_up for n, net in everyone.items() if isinstance(net.state, Table) and is_given(net)}
    return context(everyone, inputs, val, data)


def mean_accuracy(nets: Mapping[str, Bound], data: Source) -> Array:
    """Return the mean accuracy of all players on the validation examples."""
    assert data.val is not None
    val = data.val
    if val.targets is None:
        raise ValueError("accuracy needs validation labels, and none is known")

    def one(name, net):
        inputs = data.inputs.get(name) or take(val, jnp.arange(count(val))).inputs
        return accuracy(net(*inputs).logits, val.targets, val.weights)

    return jnp.mean(jnp.stack([one(name, net) for name, net in nets.items()]))


# --- what users call ----------------------------------------------------------------------------


def offline(
    net: Network, teacher: Any, objective: Any, tx: optax.GradientTransformation, **settings: Any
) -> Distillation:
    """Return a recipe of a network that learns from one that is trained already.

    Args:
      net: Student, ``"model"`` in the objective.
      teacher: ``"teacher"`` in the objective: a `Bound` network, an NNX module, a function of the inputs, or
        its outputs: logits ``[N, C]`` with one row for each row of the task (training or not), as an array,
        as `Outputs` of arrays, or as the path of a ``.npy`` or ``.npz`` file.
      objective: Loss, e.g. ``weighted(ce=(0.1, supervised()), kd=(0.9, term(losses.kd)))``.
      tx: Optimiser.
      **settings: Settings of `Distillation`.

    Returns:
      A recipe whose product is the student as a `Bound` network.
    """
    players = {"model": as_model(net)}
    return Distillation(players, {"teacher": teacher}, objective, tx, alone=True, **settings)


def online(
    peers: Mapping[str, Network] | Sequence[Network],
    objective: Any,
    tx: optax.GradientTransformation,
    **settings: Any,
) -> Distillation:
    """Return a recipe of networks that learn at the same time, from the labels and from each other.

    Args:
      peers: ``{player: network}``; of a sequence the players are ``"peer0"``, ``"peer1"``, ...
      objective: Loss over all of them, e.g. `mutual`.
      tx: Optimiser of all parameters.
      **settings: Settings of `Distillation`.

    Returns:
      A recipe whose product is ``{player: bound network}``.
    """
    named = peers if isinstance(peers, Mapping) else {f"peer{i}": net for i, net in enumerate(peers)}
    return Distillation({name: as_model(net) for name, net in named.items()}, {}, objective, tx, **settings)


def scratch(
    net: Network, tx: optax.GradientTransformation, objective: Any = None, **settings: Any
) -> Distillation:
    """Return a recipe of a network that learns from labels alone, for teachers and for comparison."""
    objective = supervised() if objective is None else objective
    return Distillation({"model": as_model(net)}, {}, objective, tx, alone=True, **settings)


@dataclass(frozen=True, eq=False)
class _Chain:
    """Distillations one after another, each with the network before as its teacher."""

    links: tuple[Callable[[Bound | None], Distillation], ...]
    first: Bound | None

    def __call__(self, key: Array | int, task: Task, loop: Loop = in_memory) -> Bound:
        """Run all of them."""
        net, key = self.first, as_key(key)
        for i, link in enumerate(self.links):
            recipe = link(net)
            net = recipe(jax.random.fold_in(key, i), task, staged(loop, f"{i}"))
        assert net is not None
        return net


def staged(loop: Loop, suffix: str) -> Any:
    """Return the loop with stages of other names, ``stage-suffix``, for a recipe that runs several times."""

    def run(name, *args, **kwargs):
        return loop(f"{name}-{suffix}", *args, **kwargs)

    def stage(name, fn, *args):
        return loop.stage(f"{name}-{suffix}", fn, *args)

    setattr(run, "stage", stage)  # noqa: B010 - a function has no such attribute for a type checker
    return run


def assistants(
    nets: Sequence[Network],
    teacher: Any,
    objective: Any,
    tx: optax.GradientTransformation,
    **settings: Any,
) -> _Chain:
    """Return a chain from a large teacher to a small student over assistants (Mirzadeh et al., AAAI 2020).

    Args:
      nets: Assistants, and the student last.
      teacher: Teacher of the first of them.
      objective: Objective of each.
      tx: Optimiser of each.
      **settings: Settings of `Distillation`.
    """
    if not nets:
        raise ValueError("a chain needs at least the student")
    _one_at_a_time(settings)
    links = tuple(
        lambda net, own=own: offline(own, _needed(net), objective, tx, **settings)
        for own in map(as_model, nets)
    )
    return _Chain(links, as_teacher(teacher))


def generations(
    net: Network,
    objective: Any,
    tx: optax.GradientTransformation,
    count: int,
    *,
    first: Objective | None = None,
    **settings: Any,
) -> _Chain:
    """Return a chain: a network learns from labels, then again from itself (Furlanello et al., ICML 2018).

    Args:
      net: Network.
      objective: Objective with the generation before as the teacher.
      tx: Optimiser of each generation.
      count: Number of generations, the first included.
      first: Objective of the first generation, cross-entropy by default.
      **settings: Settings of `Distillation`.
    """
    if count < 1:
        raise ValueError(f"there must be at least one generation, got {count}")
    _one_at_a_time(settings)
    model = as_model(net)
    begin: list[Callable] = [lambda net: scratch(model, tx, first, **settings)]
    return _Chain(
        (*begin, *[lambda net: offline(model, _needed(net), objective, tx, **settings)] * (count - 1)), None
    )


def _needed(net: Bound | None) -> Bound:
    assert net is not None
    return net


def _one_at_a_time(settings: Mapping[str, Any]) -> None:
    if settings.get("seeds") is not None:
        raise ValueError("members of an ensemble cannot teach the next in a chain: leave out seeds")
