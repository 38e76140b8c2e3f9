"""Who teaches whom: a teacher its student, peers each other, a network itself, a chain of assistants.

::

    student = jgd.distill.offline(net, teacher, objective, optax.adamw(1e-3), policy=mixup())(key, task)
    peers = jgd.distill.online({"small": net, "large": other}, objective, optax.adamw(1e-3))(key, task)

Both are one recipe, `Distillation`: players that learn, networks that do not, one objective over all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from jgd.core import (
    Algorithm,
    Bound,
    Loop,
    Model,
    Objective,
    as_model,
    ema,
    ensemble,
    in_memory,
    keep_best,
    train,
)
from jgd.distill.data import (
    Rows,
    Source,
    Table,
    Task,
    ahead,
    outputs,
    rows,
    source,
    source_of,
    take,
    with_table,
)
from jgd.distill.policies import Policy
from jgd.distill.terms import supervised
from jgd.metrics import accuracy

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

Network = Model | nn.Module


@dataclass(frozen=True, eq=False)
class Distillation:
    """Networks that learn together, from labels, from teachers and from each other.

    Attributes:
      models: ``{player: network}`` of those that learn.
      teachers: ``{player: bound network}`` of those that do not.
      objective: the loss over all of them.
      tx: optimiser of ``{player: params, "objective": params}``.
      policy: what happens to each batch; None for nothing.
      steps: of the optimiser.
      batch: examples of a step; None for all at once, as graphs of nodes are always.
      cache: whether outputs of teachers are computed once, ahead. By default where the policy keeps the
        inputs and they take less than 256 MiB.
      select_every: steps between looks at the validation examples, whose accuracy selects the state that is
        returned; None for the last.
      patience: stop after so many looks without a better one.
      average: decay of a moving average of the parameters that is returned in their place; None for none.
      start: ``{player: bound network}`` to start from.
      seeds: students that are trained in one program; parameters get a leading axis. None for one.
      at_once: how many of them are vmapped, the others after them in every step; None for all. With
        convolutions on CPU 1 is faster.
      alone: return the bound network in place of ``{player: bound network}``.
    """

    models: Mapping[str, Model]
    teachers: Mapping[str, Bound]
    objective: Objective
    tx: optax.GradientTransformation
    policy: Policy | None = None
    steps: int = 1500
    batch: int | None = 64
    cache: bool | None = None
    select_every: int | None = None
    patience: int | None = None
    average: float | None = None
    start: Mapping[str, Bound] | None = None
    seeds: int | None = None
    at_once: int | None = None
    alone: bool = False

    def __post_init__(self):
        """Refuse impossible settings."""
        for name in ("steps", "batch", "select_every", "patience", "seeds", "at_once"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.average is not None and not 0 <= self.average < 1:
            raise ValueError(f"average is a decay in [0, 1), got {self.average}")
        if self.patience is not None and self.select_every is None:
            raise ValueError("patience counts looks at the validation examples: set select_every too")
        both = set(self.models) & set(self.teachers)
        if both:
            raise ValueError(f"{sorted(both)} cannot both learn and teach as they are: use other names")
        unknown = set(self.start or {}) - set(self.models)
        if unknown:
            raise ValueError(f"start names {sorted(unknown)}, the players are {sorted(self.models)}")

    def __call__(self, key: Array, task: Task, loop: Loop = in_memory) -> Any:
        """Train all players.

        Raises:
          ValueError: for a task without training examples, a batch larger than them, a policy that changes
            the inputs of a whole graph, or a selection without validation examples.
        """
        k_order, k_train = jax.random.split(key)
        data: Any = self.source(k_order, task)
        if self.start is not None:
            data = (data, {n: (net.params, net.state) for n, net in self.start.items()})
        alg = _cached(
            tuple(self.models.items()), self.objective, self.tx, self.policy, self.batch, task.num_classes,
            self.select_every, self.patience, self.average, self.start is not None, self.seeds, self.at_once,
        )  # fmt: skip
        found = loop("distill", alg, k_train, data, self.steps)
        return found[next(iter(self.models))] if self.alone else found

    def source(self, key: Array, task: Task) -> Source:
        """The data of its loop, with outputs of teachers where these stay the same.

        Args:
          key: of the order of the examples.
          task: with training examples.
        """
        data = source(key, task, self.models, self.teachers)
        keeps = self.policy is None or self.policy.keeps_inputs
        if data.inputs and not keeps:
            raise ValueError("a policy cannot change the inputs of networks that see a whole graph")
        count = data.train.targets.shape[0]
        if self.batch is not None and self.batch > count and not data.inputs:
            raise ValueError(f"a batch of {self.batch} from {count} training examples")
        if self.select_every is not None and data.val is None:
            raise ValueError(f"select_every looks at validation examples, {task.name!r} has none")
        if self.cache and not keeps:
            raise ValueError("outputs of a teacher cannot be cached: the policy changes its inputs")
        if not keeps or self.cache is False:
            return data

        def known(name: str, net: Bound) -> Bound:
            if data.inputs:
                return with_table(net, outputs(net, data.inputs[name]))
            return ahead(net, data.train, *((2**62,) if self.cache else ())) or net

        return data._replace(teachers={name: known(name, net) for name, net in self.teachers.items()})


def learning(
    models: Mapping[str, Model],
    objective: Objective,
    tx: optax.GradientTransformation,
    *,
    policy: Policy | None = None,
    batch: int | None = 64,
    num_classes: int = 0,
) -> Algorithm:
    """The loop of `Distillation` over its `Source`; settings in ``objective`` and ``tx`` may be traced.

    Args:
      models: ``{player: network}`` of those that learn.
      objective: over all players and teachers.
      tx: optimiser.
      policy: what happens to each batch.
      batch: examples of a step; None for all, as graphs of nodes are always.
      num_classes: of the task, for policies.

    Returns:
      An `Algorithm` whose product is ``{player: Bound}``.
    """

    def prepare(key, t, data, given):
        del given
        data = source_of(data)
        count = data.train.targets.shape[0]
        if data.inputs:
            examples, inputs, index = data.train, dict(data.inputs), jnp.arange(count)
        else:
            index = jnp.arange(count) if batch is None else rows(data.order, t, count, batch)
            examples = take(data.train, index)
            if policy is not None:
                examples = policy.apply(key, t, examples, num_classes)
            inputs = dict.fromkeys([*models, *data.teachers], examples.inputs)
        known = [name for name, net in data.teachers.items() if isinstance(net.state, Table)]
        return examples, {**inputs, **{name: (Rows(index),) for name in known}}

    return train(models, objective, tx, prepare=prepare, frozen=lambda data: source_of(data).teachers)


@lru_cache(maxsize=256)  # the same functions again, so that `jit` finds what it compiled
def _cached(
    models, objective, tx, policy, batch, num_classes, every, patience, average, started, seeds, at_once
) -> Algorithm:
    alg = learning(dict(models), objective, tx, policy=policy, batch=batch, num_classes=num_classes)
    if started:
        alg = _started(alg, tx)
    if average is not None:
        alg = ema(
            alg,
            average,
            get=lambda state: {n: p for n, p in state.params.items() if n != "objective"},
            put=lambda state, params: state._replace(params={**state.params, **params}),
        )
    if every is not None:
        alg = keep_best(alg, _validated, every=every, patience=patience)
    return alg if seeds is None else ensemble(alg, seeds, at_once=at_once)


def _validated(nets, data) -> Array:
    return mean_accuracy(nets, source_of(data))


def _started(alg: Algorithm, tx) -> Algorithm:
    """The algorithm from given parameters: its data are ``(data, {player: (params, state)})``."""

    def init(key, data, batch):
        state = alg.init(key, data, batch)
        params, inner = dict(state.params), dict(state.state)
        for name, (own, other) in data[1].items():
            params[name], inner[name] = jax.tree.map(jnp.copy, (own, other))
        return state._replace(params=params, state=inner, opt_state=tx.init(params))

    return alg._replace(init=init)


def mean_accuracy(nets: Mapping[str, Bound], data: Source) -> Array:
    """The mean accuracy of all players on the validation examples."""
    assert data.val is not None
    val = data.val

    def one(name, net):
        inputs = data.inputs.get(name) or take(val, jnp.arange(val.targets.shape[0])).inputs
        return accuracy(net(*inputs).logits, val.targets, val.weights)

    return jnp.mean(jnp.stack([one(name, net) for name, net in nets.items()]))


# --- what users call ----------------------------------------------------------------------------


def offline(
    net: Network, teacher: Bound, objective: Objective, tx: optax.GradientTransformation, **settings: Any
) -> Distillation:
    """A network learns from one that is trained already.

    Args:
      net: the student, ``"student"`` in the objective.
      teacher: ``"teacher"`` in the objective.
      objective: e.g. ``weighted(ce=(0.1, supervised()), kd=(0.9, term(losses.kd)))``.
      tx: optimiser.
      **settings: of `Distillation`.

    Returns:
      A recipe whose product is the student as a `Bound` network.
    """
    players = {"student": as_model(net)}
    return Distillation(players, {"teacher": teacher}, objective, tx, alone=True, **settings)


def online(
    peers: Mapping[str, Network] | Sequence[Network],
    objective: Objective,
    tx: optax.GradientTransformation,
    **settings: Any,
) -> Distillation:
    """Networks that learn at the same time, from the labels and from each other.

    Args:
      peers: ``{player: network}``; of a sequence the players are ``"peer0"``, ``"peer1"``, ...
      objective: over all of them, e.g. `mutual`.
      tx: optimiser of all parameters.
      **settings: of `Distillation`.

    Returns:
      A recipe whose product is ``{player: bound network}``.
    """
    named = peers if isinstance(peers, Mapping) else {f"peer{i}": net for i, net in enumerate(peers)}
    return Distillation({name: as_model(net) for name, net in named.items()}, {}, objective, tx, **settings)


def scratch(
    net: Network, tx: optax.GradientTransformation, objective: Objective | None = None, **settings: Any
) -> Distillation:
    """A network learns from labels alone: how teachers are made, and what students are compared with."""
    objective = supervised() if objective is None else objective
    return Distillation({"student": as_model(net)}, {}, objective, tx, alone=True, **settings)


@dataclass(frozen=True, eq=False)
class _Chain:
    """Distillations one after another, each with the network before as its teacher."""

    links: tuple[Callable[[Bound | None], Distillation], ...]
    first: Bound | None

    def __call__(self, key: Array, task: Task, loop: Loop = in_memory) -> Bound:
        """Run all of them."""
        net = self.first
        for i, link in enumerate(self.links):
            recipe = link(net)
            net = recipe(jax.random.fold_in(key, i), task, staged(loop, f"{i}"))
        assert net is not None
        return net


def staged(loop: Loop, suffix: str) -> Any:
    """The loop with stages of other names, ``stage-suffix``, for a recipe that runs several times."""

    def run(name, *args, **kwargs):
        return loop(f"{name}-{suffix}", *args, **kwargs)

    def stage(name, fn, *args):
        return loop.stage(f"{name}-{suffix}", fn, *args)

    setattr(run, "stage", stage)  # noqa: B010 - a function has no such attribute for a type checker
    return run


def assistants(
    nets: Sequence[Network],
    teacher: Bound,
    objective: Objective,
    tx: optax.GradientTransformation,
    **settings: Any,
) -> _Chain:
    """A chain from a large teacher to a small student over networks in between (Mirzadeh et al., AAAI 2020).

    Args:
      nets: the assistants, and the student last.
      teacher: of the first of them.
      objective: of each.
      tx: optimiser of each.
      **settings: of `Distillation`.
    """
    if not nets:
        raise ValueError("a chain needs at least the student")
    _one_at_a_time(settings)
    links = tuple(
        lambda net, own=own: offline(own, _needed(net), objective, tx, **settings)
        for own in map(as_model, nets)
    )
    return _Chain(links, teacher)


def generations(
    net: Network,
    objective: Objective,
    tx: optax.GradientTransformation,
    count: int,
    *,
    first: Objective | None = None,
    **settings: Any,
) -> _Chain:
    """A network learns from labels, then anew from itself, and so on (Furlanello et al., ICML 2018).

    Args:
      net: the network.
      objective: with the generation before as the teacher.
      tx: optimiser of each generation.
      count: generations, the first included.
      first: objective of the first generation, cross-entropy by default.
      **settings: of `Distillation`.
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
