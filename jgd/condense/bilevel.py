"""The loop of all condensers that learn a synthetic set: synthesizer × matching loss × networks × optimiser.

One step is one outer epoch: a network is drawn (where the loss wants any), then ``outer`` times a step of the
set on the matching loss, with ``inner`` steps of the network on the set in between. The whole epoch is one
program::

    networks.draw ──► net ──► loss(ctx) ──► step of the set ──► networks.put
                       ▲                         │ outer times
                       └──── networks.update ◄───┘ inner times

Where networks come from is an axis of its own: `fresh` ones for every epoch, a `pool` of which one advances,
or always the same `frozen` one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from jgd.condense.synthesizers import Synthesizer
from jgd.core import Algorithm, Bound, Examples, Model
from jgd.losses import cross_entropy, mean
from jgd.optim import by_part
from jgd.optim import turns as in_turns

__all__ = ["MatchContext", "Matching", "Networks", "fresh", "frozen", "match", "part_optimizer", "pool"]

_POOL = 0x706F6F6C  # folded into keys for the random numbers of networks that are carried


class Matching(NamedTuple):
    """Data of a matching loop.

    Attributes:
      start: The set to start from.
      real: What the matching loss compares with.
      val: Examples to select by, or None.
    """

    start: Examples
    real: Any
    val: Any = None


class MatchContext(NamedTuple):
    """What a matching loss reads.

    Attributes:
      net: The network that the set is seen through, a `jgd.core.Bound`; None for a loss without one.
      small: The rendered set, as networks see it.
      parts: The parts of the set that are learned.
      real: The real data, ``Matching.real``.
      batch: Batch of the step, where the loop has batches.
      key: Random key.
      t: Number of the epoch.
    """

    net: Any
    small: Examples
    parts: Any
    real: Any
    batch: Any = None
    key: Any = None
    t: Any = None


Loss = Callable[[MatchContext], tuple[Array, dict[str, Array]]]


class Networks(NamedTuple):
    """The networks that a set is seen through, with a state that is carried from epoch to epoch.

    Attributes:
      init: ``(key, small) -> carry`` at the start of a run.
      draw: ``(key, carry, small, real) -> (net: Bound, state)`` at the start of an outer epoch.
      update: ``(net, state, ctx) -> (net, state)``, one inner step on the set ``ctx.small``; None if there
        are none.
      put: ``(key, carry, net, state, small) -> carry`` at the end of an outer epoch, after ``inner`` further
        steps on the set; None for networks that are dropped then.
    """

    init: Callable[..., PyTree]
    draw: Callable[..., tuple[Any, PyTree]]
    update: Callable[..., tuple[Any, PyTree]] | None = None
    put: Callable[..., PyTree] | None = None


def nothing(key: Array, small: Examples) -> tuple:
    """Return the state of networks that carry none."""
    del key, small
    return ()


def fresh(model: Model, tx: optax.GradientTransformation | None = None, loss: Loss | None = None) -> Networks:
    """Draw a random network for every outer epoch, trained on the set between outer steps.

    Args:
      model: The network.
      tx: Optimiser of the network; None for networks that are not trained.
      loss: Loss of the inner steps, of a `MatchContext`; None for the cross-entropy on the set.
    """

    def draw(key, carry, small, real):
        del carry, real
        params, state = model.init(key, *small.inputs)
        return Bound(params, state, model), () if tx is None else tx.init(params)

    return Networks(nothing, draw, None if tx is None else _training(model, tx, loss))


def _training(model: Model, tx: optax.GradientTransformation, loss: Loss | None = None):
    """Return a step of a network on the set."""

    def update(net, opt_state, ctx: MatchContext):
        def value(params):
            if loss is not None:
                return loss(ctx._replace(net=Bound(params, net.state, model)))[0]
            logits = model.apply(params, net.state, *ctx.small.inputs)[0].logits
            return mean(cross_entropy(logits, ctx.small.targets), ctx.small.weights)

        updates, opt_state = tx.update(jax.grad(value)(net.params), opt_state, net.params)
        return Bound(optax.apply_updates(net.params, updates), net.state, model), opt_state

    return update


def frozen(get: Callable[[Any], Bound]) -> Networks:
    """Use always the same network.

    Args:
      get: ``real -> net``, which finds it in the real data.
    """
    return Networks(nothing, lambda key, carry, small, real: (get(real), ()))


class Pool(NamedTuple):
    """Networks of a `pool`, each array with a leading axis of networks.

    Attributes:
      params: Parameters.
      state: States of the model.
      opt_state: States of the optimiser.
      age: Steps that each has been trained.
    """

    params: PyTree
    state: PyTree
    opt_state: PyTree
    age: Array


def pool(
    model: Model, tx: optax.GradientTransformation, k: int, max_steps: int, loss: Loss | None = None
) -> Networks:
    """Keep several networks of different age, of which one is drawn in every epoch and advances on the set.

    As in FRePo (Zhou et al., NeurIPS 2022): the set meets networks at every stage of training, for the price
    of one step each. A network that has been trained for ``max_steps`` is replaced by a random one. In the
    beginning all are random, with ages from 0 to ``max_steps`` in equal distances, so that they are not
    replaced at once.

    Args:
      model: The network.
      tx: Optimiser of the networks.
      k: Number of networks.
      max_steps: Steps after which a network is replaced.
      loss: Loss of the inner steps, of a `MatchContext`; None for the cross-entropy on the set.
    """
    if k < 1 or max_steps < 1:
        raise ValueError(f"a pool needs at least one network and one step, got k={k}, max_steps={max_steps}")
    train = _training(model, tx, loss)

    def begin(key, small) -> Pool:
        params, state = model.init(key, *small.inputs)
        return Pool(params, state, tx.init(params), jnp.zeros((), jnp.int32))

    def init(key, small):
        ages = jnp.arange(k) * max_steps // k
        return jax.vmap(lambda key: begin(key, small))(jax.random.split(key, k))._replace(age=ages)

    def draw(key, carry, small, real):
        del small, real
        which = jax.random.randint(key, (), 0, k)
        one = jax.tree.map(lambda x: x[which], carry)
        return Bound(one.params, one.state, model), (which, one.opt_state, one.age)

    def update(net, state, ctx):
        which, opt_state, age = state
        net, opt_state = train(net, opt_state, ctx)
        return net, (which, opt_state, age + 1)

    def put(key, carry, net, state, small):
        which, opt_state, age = state
        one = Pool(net.params, net.state, opt_state, age)
        one = jax.lax.cond(age >= max_steps, lambda: begin(key, small), lambda: one)
        return jax.tree.map(lambda all, x: all.at[which].set(x), carry, one)

    return Networks(init, draw, update, put)


class MatchState(NamedTuple):
    """State of `match`.

    Attributes:
      parts: What is learned.
      fixed: What else the set is made of.
      opt_state: State of the optimiser.
      networks: What the networks carry.
    """

    parts: dict[str, PyTree]
    fixed: PyTree
    opt_state: PyTree
    networks: PyTree = ()


def match(
    synth: Synthesizer,
    loss: Loss,
    tx: optax.GradientTransformation,
    *,
    networks: Networks | None = None,
    outer: int = 1,
    inner: int = 0,
    see: Callable[[Examples], Examples] = lambda small: small,
) -> Algorithm:
    """Learn a synthetic set by descending a matching loss.

    Args:
      synth: The set.
      loss: ``ctx -> (loss, metrics)``, see `MatchContext`.
      tx: Optimiser of the dict of parts, see `jgd.optim.by_part` and `jgd.optim.turns`; it counts outer
        steps.
      networks: What the set is seen through; None where the loss needs no network.
      outer: Steps of the set in an epoch, with the same network.
      inner: Steps of the network on the set after each of them; after the last one only where networks are
        put back.
      see: What networks and loss are given in place of the rendered set, e.g. with its adjacency normalised.

    Returns:
      An `Algorithm` over `Matching` data; its product is ``{"parts": ..., "small": Examples}``, the latter as
      rendered. Metrics are means over the epoch.
    """
    if outer < 1 or inner < 0:
        raise ValueError(f"outer must be at least 1 and inner not negative, got {outer} and {inner}")
    update, put = (None, None) if networks is None else (networks.update, networks.put)
    if inner and update is None:
        raise ValueError(f"{inner} inner steps need networks with an optimiser")

    def init(key, data, batch):
        del batch
        parts, fixed = synth.init(key, data.start)
        carry = ()
        if networks is not None:
            k_networks, k_first = jax.random.split(jax.random.fold_in(key, _POOL))
            carry = networks.init(k_networks, see(synth.render(parts, fixed, key=k_first, t=0)))
        return MatchState(parts, fixed, tx.init(parts), carry)

    def train(net, inner_state, ctx):
        def one(carry, _):
            net, inner_state = carry
            return update(net, inner_state, ctx), None  # pyright: ignore[reportOptionalCall]

        return jax.lax.scan(one, (net, inner_state), length=inner)[0]

    def step(key, t, state, data, batch):
        k_net, k_first, k_rest = jax.random.split(key, 3)
        carry = state.networks
        if networks is None:
            net = inner_state = None
        else:
            small = see(synth.render(state.parts, state.fixed, key=k_first, t=t))
            net, inner_state = networks.draw(k_net, carry, small, data.real)

        def context(net, small, parts, key):
            return MatchContext(net, small, parts, data.real, batch, key, t)

        def one(carry, xs):
            (parts, fixed, opt_state), net, inner_state = carry
            i, key = xs
            k_render, k_loss = jax.random.split(key)
            # Rendered once: for the network's steps, for the loss, and backwards to the parts.
            small, pull = jax.vjp(lambda p: see(synth.render(p, fixed, key=k_render, t=t)), parts)
            if inner:
                net, inner_state = jax.lax.cond(
                    i > 0,
                    lambda c: train(c[0], c[1], context(c[0], small, parts, None)),
                    lambda c: c,
                    (net, inner_state),
                )

            def value(parts, small):
                return loss(context(net, small, parts, k_loss))

            found, back, metrics = jax.vjp(value, parts, small, has_aux=True)
            direct, through = back(jnp.ones_like(found))
            grads = jax.tree.map(jnp.add, direct, pull(through)[0])
            updates, opt_state = tx.update(grads, opt_state, parts)
            parts = cast(dict, optax.apply_updates(parts, updates))
            if synth.update is not None:
                fixed = synth.update(parts, fixed)
            return ((parts, fixed, opt_state), net, inner_state), {**metrics, "loss": found}

        begin = ((state.parts, state.fixed, state.opt_state), net, inner_state)
        steps = (jnp.arange(outer), jax.random.split(k_rest, outer))
        if outer == 1:
            (learned, net, inner_state), metrics = one(begin, jax.tree.map(lambda x: x[0], steps))
        else:
            (learned, net, inner_state), metrics = jax.lax.scan(one, begin, steps)
            metrics = jax.tree.map(lambda m: jnp.mean(m, axis=0), metrics)
        if put is not None:
            parts, fixed, _ = learned
            k_render, k_put = jax.random.split(jax.random.fold_in(key, _POOL))
            small = see(synth.render(parts, fixed, key=k_render, t=t))
            if inner:
                net, inner_state = train(net, inner_state, context(net, small, parts, None))
            carry = put(k_put, carry, net, inner_state, small)
        parts, fixed, opt_state = learned
        return MatchState(parts, fixed, opt_state, carry), metrics

    def result(state, data):
        del data
        return {"parts": state.parts, "small": synth.render(state.parts, state.fixed)}

    return Algorithm(init, step, result)


def part_optimizer(
    lr_x: float, lr_adj: float | None, turns: tuple[int, int] | None, outer: int = 1
) -> optax.GradientTransformationExtraArgs:
    """Return Adam for the features and for the adjacency of a set, both at once or in turns.

    Args:
      lr_x: Learning rate of the part ``x``.
      lr_adj: Learning rate of the part ``adj``; None where there is none to learn.
      turns: Epochs of the adjacency and epochs of the features; None for both at once.
      outer: Steps of the set in an epoch.
    """
    x = optax.adam(lr_x)
    if lr_adj is None:
        return by_part(x=x)
    if turns is None:
        return by_part(adj=optax.adam(lr_adj), x=x)
    epochs_adj, epochs_x = turns
    return in_turns(adj=(epochs_adj * outer, optax.adam(lr_adj)), x=(epochs_x * outer, x))
