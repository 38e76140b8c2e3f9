"""The contract of one jitted loop, and the trainers that follow it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from jgd.core.model import Bound, Model, applied
from jgd.core.objective import Context, Players, as_objective, one_number

__all__ = [
    "Algorithm",
    "Examples",
    "Flush",
    "Plan",
    "Player",
    "TrainState",
    "alternate",
    "cycle",
    "sequence",
    "train",
]


class Flush(NamedTuple):
    """Host work of an algorithm: ``run(state, t)`` after ``t = offset, offset + every, ...`` steps."""

    run: Callable[[PyTree, int], None]
    every: int
    offset: int


class Algorithm(NamedTuple):
    """One loop: training, matching, sampling-based optimisation.

    Its functions, not the algorithm, are what `jax.jit` takes. ``t`` is the step number; it is the same
    for all members of an `ensemble`, so a branch on it stays a branch. ``data`` is constant over the run
    and always an argument: arrays that are closed over become constants of the program. The state must
    not alias its leaves (the driver donates it): copy where two should start equal.

    Attributes:
      init: ``(key, data, batch) -> state``; ``batch`` is the batch of step 0, None where the data are all.
      step: ``(key, t, state, data, batch) -> (state, metrics)``; pure, static shapes; metrics are a flat
        dict of arrays. A metric ``"loss"`` that is nowhere finite stops the run, a metric ``"done"`` that
        is everywhere true ends it early.
      result: ``(state, data) -> product``; a pytree.
      flush: host work between chunks of steps, or None (see `record`).
    """

    init: Callable[[Array, Any, Any], PyTree]
    step: Callable[[Array, Array, PyTree, Any, Any], tuple[PyTree, dict[str, Array]]]
    result: Callable[[PyTree, Any], PyTree]
    flush: Flush | None = None


class Examples(NamedTuple):
    """A set of supervised examples.

    Attributes:
      inputs: what the network takes, a tuple.
      targets: integer classes ``[N]``, probabilities ``[N, C]`` or regression targets.
      weights: ``[N]`` weight of each example in the loss, zero to leave it out; None for all ones.
      index: ``[N]`` which examples these are, for losses with a memory of each: in a batch of
        `jgd.distill` positions among the training examples, of those in turn the rows of the task
        (``source_of(ctx.data).train.index[ctx.batch.index]``).
    """

    inputs: tuple
    targets: Any = None
    weights: Any = None
    index: Any = None


class TrainState(NamedTuple):
    """State of `train`. ``params`` and ``state`` are keyed by player, ``"objective"`` being one."""

    params: dict[str, PyTree]
    state: dict[str, PyTree]
    opt_state: PyTree


def _own_inputs(players):
    def prepare(key, t, data, batch):
        del key, t
        batch = data if batch is None else batch
        return batch, dict.fromkeys(players, batch.inputs)

    return prepare


def _descend(tx, loss_fn: Callable, params, opt_state) -> tuple[Any, Any, Array, Any]:
    """One step of an optimiser on ``loss_fn(params) -> (loss, aux)``."""

    def value_fn(p, grad_fn=None):  # Optax's line searches want every extra argument to be one of its own
        del grad_fn
        return loss_fn(p)[0]

    tx = optax.with_extra_args_support(tx)
    (loss, aux), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
    updates, opt_state = tx.update(
        grads, opt_state, params, value=loss, grad=grads, value_fn=value_fn, grad_fn=jax.grad(value_fn)
    )
    return optax.apply_updates(params, updates), opt_state, loss, aux


def train(
    model: Model | Mapping[str, Model],
    objective: Any,
    tx: optax.GradientTransformation,
    *,
    player: str = "student",
    prepare: Callable | None = None,
    frozen: Callable[[Any], Mapping[str, Bound]] | None = None,
) -> Algorithm:
    """Supervised training of one network, or of several at once: the loop that most methods need.

    Args:
      model: the network to train, or ``{player: network}`` of several that share each step and its loss.
        What one of them may learn from another is the objective's business, see `jax.lax.stop_gradient`.
      objective: its loss, an `Objective` or a plain function of the context; parameters of the objective are
        trained by the same optimiser, as ``{player: ..., "objective": ...}`` (use `optax.partition` to treat
        them apart).
      tx: optimiser. It is given ``value``, ``grad``, ``value_fn`` and ``grad_fn`` (both of the parameters,
        at this step's batch and key), for line searches and sharpness-aware methods.
      player: name in the context of a single network.
      prepare: ``(key, t, data, batch) -> (batch, {player: inputs})``: masking, mixing, noise, negatives, and
        what each player is given. By default the batch (the data, where there are no batches) as `Examples`.
      frozen: ``data -> {name: bound model}``, players that are only evaluated, e.g. a teacher.

    Returns:
      An `Algorithm` whose product is the trained network as `Bound`, or ``{player: Bound}``.
    """
    several = not isinstance(model, Model)
    models: dict[str, Model] = dict(model) if several else {player: model}
    if not models or "objective" in models:
        raise ValueError(f'players need names other than "objective", got {sorted(models) or "none"}')
    prepare = _own_inputs(models) if prepare is None else prepare
    objective = as_objective(objective)

    def keys_of(key):
        return (
            dict(zip(models, jax.random.split(key, len(models)), strict=True)) if several else {player: key}
        )

    def call_of(name, params, state):
        def call(*args, params=None, key=None, train=False, _own=params):
            params = _own if params is None else params
            return applied(models[name], params, state, *args, key=key, train=train)[0]

        return call

    def context(params, state, data, batch, inputs, *, key, training):
        teachers = {} if frozen is None else dict(frozen(data))
        outputs, calls, everyone = Players(), Players(), Players()
        own = {}
        keys = dict.fromkeys(models) if key is None else keys_of(key)
        for name, network in models.items():
            outputs[name], own[name] = applied(
                network, params[name], state[name], *inputs[name], key=keys[name], train=training
            )
            calls[name] = call_of(name, params[name], state[name])
            everyone[name] = params[name]
        for name, bound in teachers.items():
            bound = jax.lax.stop_gradient(bound)
            everyone[name], calls[name] = bound.params, bound
            if name in inputs:
                outputs[name] = bound(*inputs[name])
        return Context(outputs, calls, everyone, batch, data), own

    def init(key, data, batch):
        k_model, k_prepare, k_objective = jax.random.split(key, 3)
        batch, inputs = prepare(k_prepare, jnp.zeros((), jnp.int32), data, batch)
        first = {n: models[n].init(k, *inputs[n]) for n, k in keys_of(k_model).items()}
        params, state = ({n: pair[i] for n, pair in first.items()} for i in (0, 1))
        ctx, _ = context(params, state, data, batch, inputs, key=None, training=False)
        o_params, o_state = objective.init(k_objective, ctx)
        everything = {**params, "objective": o_params}
        return TrainState(everything, {**state, "objective": o_state}, tx.init(everything))

    def step(key, t, state, data, batch):
        k_prepare, k_model, k_objective = jax.random.split(key, 3)
        batch, inputs = prepare(k_prepare, t, data, batch)

        def loss_fn(params):
            ctx, own = context(params, state.state, data, batch, inputs, key=k_model, training=True)
            loss, o_state, metrics = objective.apply(
                params["objective"], state.state["objective"], ctx, key=k_objective, step=t
            )
            return one_number(loss, "the objective"), ({**own, "objective": o_state}, metrics)

        params, opt_state, loss, (inner, metrics) = _descend(tx, loss_fn, state.params, state.opt_state)
        return TrainState(params, inner, opt_state), {**metrics, "loss": loss}

    def result(state, data):
        del data
        bound = {n: Bound(state.params[n], state.state[n], network) for n, network in models.items()}
        return bound if several else bound[player]

    return Algorithm(init, step, result)


class Player(NamedTuple):
    """One of several things that `alternate` updates.

    Attributes:
      init: ``(key, data, batch) -> (params, state)``.
      loss: ``(params, state, others, data, batch, *, key, t) -> (loss, state, metrics)``; ``others`` is
        ``{name: (params, state)}`` of all players, and only the own parameters get gradients.
      tx: optimiser of the own parameters; it is given the same extra arguments as in `train`.
      update: for players that do not descend (an average that follows, a pool that advances, a network
        that starts anew): ``(params, state, others, data, batch, *, key, t) -> (params, state, metrics)``,
        in place of ``loss`` and ``tx``.
    """

    init: Callable
    loss: Callable | None = None
    tx: optax.GradientTransformation | None = None
    update: Callable | None = None


class Plan(NamedTuple):
    """Whose turn it is: see `cycle` and `sequence`."""

    turns: tuple[tuple[str, int], ...]
    within_step: bool


def cycle(**steps: int) -> Plan:
    """One player in each step: ``cycle(adj=10, feat=40)`` is 10 steps of ``adj``, then 40 of ``feat``, ..."""
    return Plan(tuple(steps.items()), within_step=False)


def sequence(**repeats: int) -> Plan:
    """All players in each step, in order: ``sequence(fake=5, gen=1)`` updates ``fake`` five times first."""
    return Plan(tuple(repeats.items()), within_step=True)


def alternate(players: Mapping[str, Player], plan: Plan) -> Algorithm:
    """Several players, each with its own loss and optimiser, taking turns.

    Args:
      players: the players by name.
      plan: whose turn it is.

    Returns:
      An `Algorithm` whose product is ``{name: (params, state)}``. Metrics are ``{name}/{metric}``, floats
      and NaN for a player in a step that is not its turn; ``loss`` is the sum over the players whose turn
      it is.
    """
    unknown = {name for name, _ in plan.turns} - set(players)
    if unknown or not plan.turns:
        raise ValueError(f"the plan names {sorted(unknown) or 'nobody'}, the players are {sorted(players)}")
    for name, count in plan.turns:
        player = players[name]
        if count < 1:
            raise ValueError(f"player {name!r} has {count} turns in the plan, it must be at least 1")
        if player.update is None and (player.loss is None or player.tx is None):
            raise ValueError(f"player {name!r} takes turns: it needs a loss and a tx, or an update")

    def init(key, data, batch):
        keys = jax.random.split(key, len(players))
        own = {n: p.init(k, data, batch) for k, (n, p) in zip(keys, players.items(), strict=True)}
        return {n: (params, state, optimiser(n).init(params)) for n, (params, state) in own.items()}

    def optimiser(name):
        return players[name].tx or optax.identity()

    def turn(name, key, t, state, data, batch):
        player = players[name]
        params, inner, opt_state = state[name]
        others = jax.lax.stop_gradient({n: s[:2] for n, s in state.items()})
        if player.update is not None:
            params, inner, metrics = player.update(params, inner, others, data, batch, key=key, t=t)
            return {**state, name: (params, inner, opt_state)}, metrics
        evaluate = cast(Callable, player.loss)

        def loss_fn(params):
            loss, new, metrics = evaluate(params, inner, others, data, batch, key=key, t=t)
            return one_number(loss, f"the loss of player {name!r}"), (new, metrics)

        params, opt_state, loss, (inner, metrics) = _descend(optimiser(name), loss_fn, params, opt_state)
        return {**state, name: (params, inner, opt_state)}, {**metrics, "loss": loss}

    def repeated(name, count, key, t, state, data, batch):
        if count == 1:
            return turn(name, key, t, state, data, batch)

        def body(state, k):
            return turn(name, k, t, state, data, batch)

        state, metrics = jax.lax.scan(body, state, jax.random.split(key, count))
        return state, jax.tree.map(lambda m: m[-1], metrics)

    def labelled(name, metrics):
        return {f"{name}/{k}": jnp.asarray(v, float) for k, v in metrics.items()}

    def step(key, t, state, data, batch):
        if plan.within_step:
            collected, total = {}, jnp.zeros(())
            for i, (name, count) in enumerate(plan.turns):
                state, metrics = repeated(name, count, jax.random.fold_in(key, i), t, state, data, batch)
                collected |= labelled(name, metrics)
                total = total + metrics.get("loss", 0.0)
            return state, {**collected, "loss": total}

        def branch(name):
            def run(operand):
                new, metrics = turn(name, key, t, operand, data, batch)
                loss = jnp.asarray(metrics.get("loss", 0.0), float)
                return new, {**missing, **labelled(name, metrics), "loss": loss}

            return run

        missing = {}
        for name in dict.fromkeys(name for name, _ in plan.turns):
            shapes = jax.eval_shape(lambda s, n=name: turn(n, key, t, s, data, batch)[1], state)
            missing |= {f"{name}/{k}": jnp.full(m.shape, jnp.nan, float) for k, m in shapes.items()}
        ends = jnp.cumsum(jnp.asarray([count for _, count in plan.turns]))
        which = jnp.searchsorted(ends, t % ends[-1], side="right")
        return jax.lax.switch(which, [branch(name) for name, _ in plan.turns], state)

    def result(state, data):
        del data
        return {name: (params, inner) for name, (params, inner, _) in state.items()}

    return Algorithm(init, step, result)
