"""The contract of one jitted loop, and the trainers that follow it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from jgd.core._objective import Context, Objective, Players, as_objective, one_number
from jgd.core.model import Bound, Model, applied

__all__ = [
    "Algorithm",
    "Examples",
    "Flush",
    "Plan",
    "Player",
    "TrainState",
    "alternate",
    "context",
    "cycle",
    "follow",
    "restart",
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
      flush: Host work between chunks of steps, or None (see `record`).
    """

    init: Callable[[Array, Any, Any], PyTree]
    step: Callable[[Array, Array, PyTree, Any, Any], tuple[PyTree, dict[str, Array]]]
    result: Callable[[PyTree, Any], PyTree]
    flush: Flush | None = None


class Examples(NamedTuple):
    """A set of supervised examples.

    Attributes:
      inputs: Inputs of the network, a tuple.
      targets: Integer classes ``[N]``, probabilities ``[N, C]`` or regression targets.
      weights: Weight ``[N]`` of each example in the loss, zero to leave it out; None for all ones.
      index: Numbers ``[N]`` of the examples, for losses with a memory of each: in a batch of `jgd.distill`
        positions among the training examples, of those in turn the rows of the task
        (``ctx.examples.train.index[ctx.batch.index]``).
      masks: ``{name: bool [N]}``, named sets of examples for losses that count some of them, or None.
    """

    inputs: tuple
    targets: Any = None
    weights: Any = None
    index: Any = None
    masks: Any = None


class TrainState(NamedTuple):
    """State of a player. ``params`` and ``state`` are keyed by network, ``"objective"`` being one."""

    params: dict[str, PyTree]
    state: dict[str, PyTree]
    opt_state: PyTree


class Player(NamedTuple):
    """A network that learns beside others, or several networks that share each step and its loss.

    A player descends on its objective, or has an update of its own::

        Player(net, objective, optax.adam(1e-3))
        Player(net, update=follow("model", 0.99))

    A pool of networks, of which one advances in each step, is a player whose parameters have a leading axis::

        def advance(params, state, ctx, *, key, t):
            one = jax.random.randint(key, (), 0, size)
            old = jax.tree.map(lambda leaf: leaf[one], params)
            new = ...  # a step of the network on ctx.batch, or on the output of another player
            return jax.tree.map(lambda leaf, value: leaf.at[one].set(value), params, new), state, {}

        def start(key, x):
            return jax.vmap(lambda k: net.init(k, x))(jax.random.split(key, size))

        Player(Model(start, apply), update=advance)

    Attributes:
      model: Network, which has the player's name in the context, or ``{name: network}`` of several.
      objective: Loss, an `Objective` or a plain function of the context. Only the player's own parameters and
        those of its objective get gradients.
      tx: Optimiser of these parameters, see `train`.
      update: ``(params, state, ctx, *, key, t) -> (params, state, metrics)`` in place of ``objective`` and
        ``tx``, for players that do not descend, see `follow` and `restart`. With several networks, parameters
        and state are ``{name: ...}``.
    """

    model: Model | Mapping[str, Model]
    objective: Any = None
    tx: optax.GradientTransformation | None = None
    update: Callable | None = None


def follow(player: str, decay: float = 0.99) -> Callable:
    """Return the update of a player that is the moving average of another one; its state is the other's.

    Both start equal with ``start=lambda data: {"average": "model"}``, see `alternate`.

    Args:
      player: Name of the network that is followed.
      decay: Weight of the past in each turn.
    """

    def update(params, state, ctx, *, key, t):
        del state, key, t
        new = jax.tree.map(
            lambda own, other: (decay * own + (1 - decay) * other).astype(own.dtype),
            params,
            ctx.params[player],
        )
        return new, jax.tree.map(jnp.copy, ctx.state[player]), {}

    return update


def restart(every: int = 1) -> Callable:
    """Return the update of a player that gets new random parameters at regular intervals of steps.

    Args:
      every: Steps between restarts, counted from step 0.
    """

    def update(params, state, ctx, *, key, t):
        return *jax.lax.cond(t % every == 0, ctx.fresh, lambda key: (params, state), key), {}

    return update


def _own_inputs(players):
    def prepare(key, t, data, batch):
        del key, t
        batch = data if batch is None else batch
        return batch, dict.fromkeys(players, batch.inputs)

    return prepare


def _descend(tx, loss_fn: Callable, params, opt_state) -> tuple[Any, Any, Array, Any]:
    """Take one step of an optimiser on ``loss_fn(params) -> (loss, aux)``."""

    def value_fn(p, grad_fn=None):  # Optax's line searches want every extra argument to be one of its own
        del grad_fn
        return loss_fn(p)[0]

    tx = optax.with_extra_args_support(tx)
    (loss, aux), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
    updates, opt_state = tx.update(
        grads, opt_state, params, value=loss, grad=grads, value_fn=value_fn, grad_fn=jax.grad(value_fn)
    )
    return optax.apply_updates(params, updates), opt_state, loss, aux


def _call(net: Bound) -> Callable[..., Any]:
    def call(*inputs, params=None, key=None, train=False):
        seen = net if params is None else Bound(params, net.state, net.model)
        return seen(*inputs, key=key, train=train)

    return call


def context(
    nets: Mapping[str, Bound],
    inputs: Mapping[str, tuple],
    batch: Any,
    examples: Any,
    *,
    outputs: Mapping[str, Any] | None = None,
    fresh: Callable[[Array], tuple[PyTree, PyTree]] | None = None,
) -> Context:
    """Return the context of an objective; outputs of a network are computed when the objective reads them.

    Args:
      nets: All networks by name.
      inputs: Inputs of networks by name; a network without inputs has no outputs in the context.
      batch: Examples of the step.
      examples: Data of the loop.
      outputs: Outputs that are known already.
      fresh: See `jgd.core.Context`.
    """
    known = {} if outputs is None else outputs
    without = [name for name in nets if name not in inputs and name not in known]
    reason = f"; of {', '.join(without)}, prepare returns no inputs: use ctx.call" if without else ""
    make = {name: partial(net, *inputs[name]) for name, net in nets.items() if name in inputs}
    make |= {name: lambda out=out: out for name, out in known.items()}

    def entries(of: Callable[[Bound], Any]) -> Players:
        return Players({name: partial(of, net) for name, net in nets.items()})

    return Context(
        Players(make, reason),
        entries(_call),
        entries(lambda net: net.params),
        batch,
        examples,
        entries(lambda net: net.state),
        fresh,
    )


def _split(key: Array | None, names: Iterable[str], alone: bool) -> dict[str, Any]:
    """Return a key for each name; a single name has the key itself."""
    names = list(names)
    if key is None:
        return dict.fromkeys(names)
    return {names[0]: key} if alone else dict(zip(names, jax.random.split(key, len(names)), strict=True))


def _networks(name: str, model: Model | Mapping[str, Model]) -> dict[str, Model]:
    return {name: model} if isinstance(model, Model) else dict(model)


class _Game(NamedTuple):
    """Functions that `train` and `alternate` share; ``state`` is ``{player: TrainState}``.

    Attributes:
      init: ``(key, data, batch) -> state``.
      turn: ``(player, key, t, state, data, batch) -> (state, metrics)``.
      result: ``state -> {player: Bound or {network: Bound}}``.
    """

    init: Callable
    turn: Callable
    result: Callable


def _game(
    players: Mapping[str, Player],
    prepare: Callable | None,
    frozen: Callable | None,
    start: Callable | None,
) -> _Game:
    several = {name: not isinstance(p.model, Model) for name, p in players.items()}
    networks = {name: _networks(name, p.model) for name, p in players.items()}
    everyone = [network for own in networks.values() for network in own]
    if not players or not all(networks.values()) or "objective" in everyone:
        raise ValueError(f'players need names other than "objective", got {sorted(everyone) or "none"}')
    if len(set(everyone)) < len(everyone):
        raise ValueError(f"each network needs a name of its own, got {', '.join(everyone)}")
    prepare = _own_inputs(everyone) if prepare is None else prepare
    titles = {n: "the objective" if len(players) == 1 else f"the objective of {n!r}" for n in players}
    objectives: dict[str, Objective] = {
        name: as_objective(p.objective, "objective" if len(players) == 1 else titles[name])
        for name, p in players.items()
        if p.objective is not None
    }
    updates = {name: p.update for name, p in players.items()}
    optimisers = {name: p.tx or optax.identity() for name, p in players.items()}

    def bound(name, own: TrainState) -> dict[str, Bound]:
        return {n: Bound(own.params[n], own.state[n], net) for n, net in networks[name].items()}

    def others(state, data, besides=None) -> dict[str, Bound]:
        """Return the networks that get no gradients in a turn."""
        nets = {} if frozen is None else dict(frozen(data))
        for name, own in state.items():
            if name != besides:
                nets |= bound(name, own)
        return jax.lax.stop_gradient(nets)

    def seen(name, state, data, batch, inputs, *, key, training) -> tuple[Context, dict]:
        """Return the context in which a player descends, and the state of its networks afterwards."""
        own = bound(name, state[name])
        keys = _split(key, own, not several[name])
        found = {
            n: applied(net.model, net.params, net.state, *inputs[n], key=keys[n], train=training)
            for n, net in own.items()
        }
        nets = {**own, **others(state, data, name)}
        ctx = context(nets, inputs, batch, data, outputs={n: out for n, (out, _) in found.items()})
        return ctx, {n: after for n, (_, after) in found.items()}

    def fresh(name, key, inputs) -> dict[str, tuple[PyTree, PyTree]]:
        """Return new parameters and state of the networks of a player."""
        keys = _split(key, networks[name], not several[name])
        return {n: net.init(keys[n], *inputs[n]) for n, net in networks[name].items()}

    def apart(name, pairs: Mapping[str, tuple]) -> tuple[PyTree, PyTree]:
        """Return parameters and state of a player in the form that its update takes."""
        if not several[name]:
            return pairs[name]
        return {n: pair[0] for n, pair in pairs.items()}, {n: pair[1] for n, pair in pairs.items()}

    def given(data, first) -> dict[str, tuple[PyTree, PyTree]]:
        """Return copies of parameters and state to start from, because a loop may reuse their memory."""
        wanted = {} if start is None else dict(start(data))
        unknown = sorted(set(wanted) - set(everyone))
        if unknown:
            raise ValueError(f"start names {', '.join(unknown)}, the players are {', '.join(everyone)}")
        pairs = {n: first[pair] if isinstance(pair, str) else pair for n, pair in wanted.items()}
        return {n: jax.tree.map(jnp.copy, tuple(pair)) for n, pair in pairs.items()}

    def init(key, data, batch):
        k_model, k_prepare, k_objective = jax.random.split(key, 3)
        batch, inputs = prepare(k_prepare, jnp.zeros((), jnp.int32), data, batch)
        missing = [name for name in everyone if name not in inputs]
        if missing:
            raise ValueError(
                f"prepare must return inputs of every player, {', '.join(missing)} has none: "
                "they are also what its parameters are made by"
            )
        first: dict[str, tuple[PyTree, PyTree]] = {}
        for name, k in _split(k_model, networks, len(networks) == 1).items():
            first |= fresh(name, k, inputs)
        first |= given(data, first)
        state = {
            name: TrainState({n: first[n][0] for n in own}, {n: first[n][1] for n in own}, None)
            for name, own in networks.items()
        }
        done = {}
        for name, k in _split(k_objective, networks, len(networks) == 1).items():
            own = ((), ())
            if name in objectives:
                ctx, _ = seen(name, state, data, batch, inputs, key=None, training=False)
                own = objectives[name].init(k, ctx)
            params = {**state[name].params, "objective": own[0]}
            inner = {**state[name].state, "objective": own[1]}
            done[name] = TrainState(params, inner, optimisers[name].init(params))
        return done

    def turn(name, key, t, state, data, batch):
        k_prepare, k_model, k_objective = jax.random.split(key, 3)
        batch, inputs = prepare(k_prepare, t, data, batch)
        own = state[name]
        if (update := updates[name]) is not None:
            nets = others(state, data)
            ctx = context(nets, inputs, batch, data, fresh=lambda key: apart(name, fresh(name, key, inputs)))
            pair = apart(name, {n: (nets[n].params, nets[n].state) for n in networks[name]})
            params, inner, metrics = update(*pair, ctx, key=k_objective, t=t)
            if not several[name]:
                params, inner = {name: params}, {name: inner}
            params, inner = {**own.params, **params}, {**own.state, **inner}
            return {**state, name: own._replace(params=params, state=inner)}, metrics

        def loss_fn(params):
            now = {**state, name: own._replace(params=params)}
            ctx, after = seen(name, now, data, batch, inputs, key=k_model, training=True)
            loss, o_state, metrics = objectives[name].apply(
                params["objective"], own.state["objective"], ctx, key=k_objective, step=t
            )
            return one_number(loss, titles[name]), ({**after, "objective": o_state}, metrics)

        params, opt_state, loss, (inner, metrics) = _descend(
            optimisers[name], loss_fn, own.params, own.opt_state
        )
        return {**state, name: TrainState(params, inner, opt_state)}, {**metrics, "loss": loss}

    def result(state):
        nets = {name: bound(name, own) for name, own in state.items()}
        return {name: own if several[name] else own[name] for name, own in nets.items()}

    return _Game(init, turn, result)


def train(
    model: Model | Mapping[str, Model],
    objective: Any,
    tx: optax.GradientTransformation,
    *,
    prepare: Callable | None = None,
    frozen: Callable[[Any], Mapping[str, Bound]] | None = None,
    start: Callable[[Any], Mapping[str, Any]] | None = None,
) -> Algorithm:
    """Return supervised training of one network, or of several at once: the loop that most methods need.

    It is `alternate` with one player, ``"model"``, that has all turns.

    Args:
      model: Network to train, ``"model"`` in the context, or ``{name: network}`` of several that share each
        step and its loss. What one of them may learn from another is decided by the objective, see
        `jax.lax.stop_gradient`.
      objective: Loss, an `Objective` or a plain function of the context. Parameters of the objective are
        trained by the same optimiser, as ``{name: ..., "objective": ...}`` (`optax.partition` treats them
        apart).
      tx: Optimiser. It is given ``value``, ``grad``, ``value_fn`` and ``grad_fn`` (both functions of the
        parameters, at this step's batch and key), for line searches and sharpness-aware methods.
      prepare: ``(key, t, data, batch) -> (batch, {network: inputs})``: masking, mixing, noise, negatives, and
        the inputs of each network. By default the batch (the data, where there are no batches) as `Examples`.
      frozen: ``data -> {name: bound model}``, networks that are only evaluated, such as a teacher.
      start: ``data -> {network: (params, state)}`` to start from; the other networks start at random. The
        name of another network in place of a pair makes both start equal.

    Returns:
      An `Algorithm` whose product is the trained network as `Bound`, or ``{name: Bound}``.
    """
    player = Player(model, as_objective(objective), tx)
    begin, turn, end = _game({"model": player}, prepare, frozen, start)

    def init(key, data, batch):
        return begin(key, data, batch)["model"]

    def step(key, t, state, data, batch):
        state, metrics = turn("model", key, t, {"model": state}, data, batch)
        return state["model"], metrics

    def result(state, data):
        del data
        return end({"model": state})["model"]

    return Algorithm(init, step, result)


class Plan(NamedTuple):
    """Order of the turns of players, see `cycle` and `sequence`."""

    turns: tuple[tuple[str, int], ...]
    within_step: bool


def cycle(**steps: int) -> Plan:
    """Return a plan with one player in each step, each for its number of steps in a row, repeatedly.

    Args:
      **steps: Number of steps of each player, in order: ``cycle(adj=10, feat=40)``.
    """
    return Plan(tuple(steps.items()), within_step=False)


def sequence(**repeats: int) -> Plan:
    """Return a plan of all players in each step, in order.

    Args:
      **repeats: Number of turns of each player in a step: ``sequence(fake=5, generator=1)`` begins with five
        of ``fake``.
    """
    return Plan(tuple(repeats.items()), within_step=True)


def alternate(
    players: Mapping[str, Player],
    plan: Plan,
    *,
    prepare: Callable | None = None,
    frozen: Callable[[Any], Mapping[str, Bound]] | None = None,
    start: Callable[[Any], Mapping[str, Any]] | None = None,
) -> Algorithm:
    """Return training of several players that take turns, each with its own loss and optimiser.

    An objective sees in a player's turn what it sees in `train`. The other players are constant: their
    outputs (in evaluation mode, computed where the objective reads them), functions and parameters have no
    gradient. Every turn prepares its batch with a key of its own. Distribution matching of a generator, with
    a score network that learns from its samples::

        players = {"fake": Player(score, denoising, tx), "generator": Player(net, matching, tx)}
        loop = alternate(players, sequence(fake=5, generator=1), prepare=draw_noise)

    Args:
      players: Players by name.
      plan: Order of the turns, see `cycle` and `sequence`.
      prepare: As in `train`, with inputs of the networks of all players.
      frozen: As in `train`.
      start: As in `train`.

    Returns:
      An `Algorithm` whose product is ``{name: Bound}``, or ``{name: {network: Bound}}`` for players of
      several networks. Metrics are ``{name}/{metric}``, floats, and NaN for a player in a step that is not
      its turn; ``loss`` is the sum over the players whose turn it is.

    Raises:
      ValueError: If the plan does not fit the players.
    """
    unknown = {name for name, _ in plan.turns} - set(players)
    if unknown or not plan.turns:
        raise ValueError(
            f"the plan names {sorted(unknown) or 'no players'}, the players are {sorted(players)}"
        )
    for name, count in plan.turns:
        player = players[name]
        if count < 1:
            raise ValueError(f"player {name!r} has {count} turns in the plan, it must be at least 1")
        descends = player.objective is not None and player.tx is not None
        if descends == (player.update is not None):
            raise ValueError(
                f"player {name!r} takes turns: it needs an objective and a tx, or an update in their place"
            )
    begin, turn, end = _game(players, prepare, frozen, start)

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
        return end(state)

    return Algorithm(begin, step, result)
