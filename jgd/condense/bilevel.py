"""The loop of all condensers that learn a synthetic set: synthesizer × matching loss × networks × optimiser.

One step is one outer epoch: fresh networks (where the loss wants any), then ``outer`` times a step of the
set on the matching loss, each followed by ``inner`` steps of the network on the set. The whole epoch is one
program.
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

__all__ = ["Matching", "Networks", "frozen", "fresh", "match"]


class Matching(NamedTuple):
    """Data of a matching loop.

    Attributes:
      start: the set to start from.
      real: what the matching loss compares with.
      val: examples to select by, or None.
    """

    start: Examples
    real: Any
    val: Any = None


class Networks(NamedTuple):
    """The networks that a set is seen through.

    Attributes:
      init: ``(key, small, data) -> (net: Bound, state)`` at the start of an outer epoch.
      update: ``(net, state, small) -> (net, state)``, one inner step on the set; None if there are none.
    """

    init: Callable[..., tuple[Any, PyTree]]
    update: Callable[..., tuple[Any, PyTree]] | None = None


def fresh(model: Model, tx: optax.GradientTransformation | None = None) -> Networks:
    """A random network for every outer epoch, trained by ``tx`` on the set between outer steps."""

    def init(key, small, data):
        del data
        params, state = model.init(key, *small.inputs)
        return Bound(params, state, model), () if tx is None else tx.init(params)

    def update(net, opt_state, small):
        assert tx is not None

        def loss(params):
            logits = model.apply(params, net.state, *small.inputs)[0].logits
            return mean(cross_entropy(logits, small.targets), small.weights)

        updates, opt_state = tx.update(jax.grad(loss)(net.params), opt_state, net.params)
        return Bound(optax.apply_updates(net.params, updates), net.state, model), opt_state

    return Networks(init, None if tx is None else update)


def frozen(get: Callable[[Any], Bound]) -> Networks:
    """Always the same network, found in the data by ``get``."""
    return Networks(lambda key, small, data: (get(data), ()))


class MatchState(NamedTuple):
    """State of `match`."""

    parts: dict[str, PyTree]
    fixed: PyTree
    opt_state: PyTree


def match(
    synth: Synthesizer,
    loss: Callable[..., tuple[Array, dict[str, Array]]],
    tx: optax.GradientTransformation,
    *,
    networks: Networks | None = None,
    outer: int = 1,
    inner: int = 0,
    see: Callable[[Examples], Examples] = lambda small: small,
) -> Algorithm:
    """Learn a synthetic set by descending a matching loss.

    Args:
      synth: the set.
      loss: ``(net, small, parts, data, batch, *, key, t) -> (loss, metrics)`` of the rendered set.
      tx: optimiser of the dict of parts, see `jgd.optim.by_part` and `jgd.optim.turns`; it counts outer
        steps.
      networks: what the set is seen through; None where the loss needs no network, which is then None.
      outer: steps of the set in an epoch, with the same network.
      inner: steps of the network on the set after each of them but the last.
      see: what networks and loss are given in place of the rendered set, e.g. with its adjacency normalised.

    Returns:
      An `Algorithm` over `Matching` data; its product is ``{"parts": ..., "small": Examples}``, the latter as
      rendered. Metrics are means over the epoch.
    """
    if outer < 1 or inner < 0:
        raise ValueError(f"outer must be at least 1 and inner not negative, got {outer} and {inner}")
    update = None if networks is None else networks.update
    if inner and update is None:
        raise ValueError(f"{inner} inner steps need networks with an optimiser")

    def init(key, data, batch):
        del batch
        parts, fixed = synth.init(key, data.start)
        return MatchState(parts, fixed, tx.init(parts))

    def train(carry, small):
        return jax.lax.scan(lambda c, _: (update(*c, small), None), carry, length=inner)[0]  # pyright: ignore

    def step(key, t, state, data, batch):
        k_net, k_first, k_rest = jax.random.split(key, 3)
        if networks is None:
            net = inner_state = None
        else:
            net, inner_state = networks.init(
                k_net, see(synth.render(state.parts, state.fixed, key=k_first, t=t)), data
            )

        def one(carry, xs):
            (parts, fixed, opt_state), net, inner_state = carry
            i, key = xs
            k_render, k_loss = jax.random.split(key)
            # Rendered once: for the network's steps, for the loss, and backwards to the parts.
            small, pull = jax.vjp(lambda p: see(synth.render(p, fixed, key=k_render, t=t)), parts)
            if inner:
                net, inner_state = jax.lax.cond(
                    i > 0, lambda c: train(c, small), lambda c: c, (net, inner_state)
                )

            def value(parts, small):
                return loss(net, small, parts, data, batch, key=k_loss, t=t)

            found, back, metrics = jax.vjp(value, parts, small, has_aux=True)
            direct, through = back(jnp.ones_like(found))
            grads = jax.tree.map(jnp.add, direct, pull(through)[0])
            updates, opt_state = tx.update(grads, opt_state, parts)
            parts = cast(dict, optax.apply_updates(parts, updates))
            if synth.update is not None:
                fixed = synth.update(parts, fixed)
            return (MatchState(parts, fixed, opt_state), net, inner_state), {**metrics, "loss": found}

        begin = (state, net, inner_state)
        steps = (jnp.arange(outer), jax.random.split(k_rest, outer))
        if outer == 1:
            (state, _, _), metrics = one(begin, jax.tree.map(lambda x: x[0], steps))
            return state, metrics
        (state, _, _), metrics = jax.lax.scan(one, begin, steps)
        return state, jax.tree.map(lambda m: jnp.mean(m, axis=0), metrics)

    def result(state, data):
        del data
        return {"parts": state.parts, "small": synth.render(state.parts, state.fixed)}

    return Algorithm(init, step, result)
