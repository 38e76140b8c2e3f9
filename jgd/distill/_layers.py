r"""Layers of Transformers: which of the student learns from which of the teacher, and by which loss.

He et al., "Distiller: A Systematic Study of Model Distillation Methods in NLP", SustaiNLP 2021; Li et al.,
"BERT-EMD", EMNLP 2020.

Layers are the taps ``"layer0"`` (the embedding) to ``"layerL"``, hidden states ``[B, T, D]``, or ``[B, D]``
of networks without tokens. `layers` adds a loss over given pairs; `emd` has all pairs, as far as the cheapest
transport of one network's layers to the other's uses them::

    D_ij = loss(student layer i, teacher layer j),   F = argmin_F Σ F_ij D_ij,   L = Σ F_ij D_ij + D_00

with rows of F that sum to 1/L_S and columns to 1/L_T, constant in the gradient. Where widths differ, the
student's states go through a linear map that is learned: one for each pair of `layers`, and one for each
layer of the student for `emd`. Losses see the tokens that a batch says are there (its second input), and
examples whose weight is not zero.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from jgd.core import Context, Objective, Outputs
from jgd.losses import layer_map, mean
from jgd.ops import emd_flow

__all__ = ["emd", "layers"]

Pick = Callable[[Array], Array]


def _states(outputs: Outputs, pick: Pick | None) -> dict[int, Array]:
    """Return hidden states by the number of their layer."""
    found = {
        int(name[5:]): value if pick is None else pick(value)
        for name, value in outputs.taps.items()
        if name.startswith("layer") and name[5:].isdigit()
    }
    if not found:
        raise ValueError(f"the network has no taps layer0, layer1, ...; it has {sorted(outputs.taps)}")
    return found


def _both(ctx: Context, student: str, teacher: str, pick: Pick | None):
    ours, theirs = (_states(ctx.outputs[name], pick) for name in (student, teacher))
    return ours, {i: jax.lax.stop_gradient(x) for i, x in theirs.items()}


def _weights(ctx: Context, shape: tuple[int, ...]) -> Array | None:
    """Return weights of hidden states: those of their examples, zero where there is no token."""
    batch, weights = ctx.batch, None
    if batch.weights is not None:
        weights = jnp.broadcast_to(batch.weights.reshape(-1, *[1] * (len(shape) - 1)), shape)
    mask: Any = batch.inputs[1] if len(batch.inputs) > 1 else None
    if getattr(mask, "dtype", None) == jnp.bool_ and mask.shape == shape:
        weights = mask.astype(jnp.float32) if weights is None else jnp.where(mask, weights, 0)
    return weights


def _compare(loss: Callable, ctx: Context, s: Array, t: Array, settings: dict[str, Any]) -> Array:
    weights = _weights(ctx, s.shape[:-1])
    given = {}
    if weights is not None and "where" in inspect.signature(loss).parameters:
        given["where"] = weights != 0
    value = jnp.asarray(loss(s, t, **given, **settings))
    return mean(value, weights) if value.ndim else value


def _map(s: Array, t: Array) -> nn.Dense | None:
    return None if s.shape[-1] == t.shape[-1] else nn.Dense(t.shape[-1])


def _mapped(params: Any, s: Array, t: Array) -> Array:
    net = _map(s, t)
    return s if net is None else jnp.asarray(net.apply(params, s))


def _init(key: Array, s: Array, t: Array) -> Any:
    net = _map(s, t)
    return () if net is None else net.init(key, s)


def layers(
    loss: Callable,
    pairs: Sequence[tuple[int, int]] | Literal["skip", "last"] = "skip",
    *,
    pick: Pick | None = None,
    student: str = "model",
    teacher: str = "teacher",
    **settings: Any,
) -> Objective:
    """Return a loss between pairs of layers, added up. Weight 1.

    Args:
      loss: ``(student, teacher, **settings)`` of hidden states, such as `jgd.losses.hidden_mse`, one value
        for each vector or a scalar; it is given ``where`` if it has this argument.
      pairs: Layers (of the student, of the teacher), or how `jgd.losses.layer_map` chooses them: ``"skip"``
        spreads them evenly, ``"last"`` takes the teacher's last. Networks without layer 0 start at 1.
      pick: Selection from the hidden states, e.g. ``lambda h: h[:, 0]`` for the first token (with
        `jgd.losses.pkd`); None for all.
      student: Name of the network that learns.
      teacher: Name of the network that it learns from.
      **settings: Settings of the loss.

    Raises:
      ValueError: For a pair of which one network has no such layer, when it is run.
    """

    def chosen(ctx):
        ours, theirs = _both(ctx, student, teacher, pick)
        if isinstance(pairs, str):
            numbers = [
                (i, j) for i, j in layer_map(pairs, max(theirs), max(ours)) if i in ours and j in theirs
            ]
        else:
            numbers = [(i, j) for i, j in pairs]
        missing = [(i, j) for i, j in numbers if i not in ours or j not in theirs]
        if missing or not numbers:
            have = f"the student has {sorted(ours)}, the teacher {sorted(theirs)}"
            raise ValueError(f"no layers {missing or list(pairs)}: {have}")
        return {f"{i}-{j}": (ours[i], theirs[j]) for i, j in numbers}

    def init(key, ctx):
        found = chosen(ctx)
        keys = jax.random.split(key, len(found))
        return {name: _init(k, *pair) for k, (name, pair) in zip(keys, found.items(), strict=True)}, ()

    def apply(params, state, ctx, *, key, step):
        del key, step
        values = {
            name: _compare(loss, ctx, _mapped(params[name], s, t), t, settings)
            for name, (s, t) in chosen(ctx).items()
        }
        return sum(values.values(), jnp.zeros(())), state, values

    return Objective(init, apply)


def emd(
    loss: Callable,
    *,
    pick: Pick | None = None,
    student: str = "model",
    teacher: str = "teacher",
    **settings: Any,
) -> Objective:
    """Return a loss between all pairs of layers, weighed by the earth mover's flow. Weight 1.

    Args:
      loss: Loss, as in `layers`.
      pick: Selection from the hidden states, as in `layers`.
      student: Name of the network that learns; its layers must be of one shape, and so must the teacher's.
      teacher: Name of the network that it learns from.
      **settings: Settings of the loss.
    """

    def split(ctx):
        """Return stacked layers of both, and the pair of embeddings if they have them."""
        sides = _both(ctx, student, teacher, pick)
        first = [side[0] for side in sides] if all(0 in side for side in sides) else None
        sides = [{i: x for i, x in side.items() if i} for side in sides]
        for side in sides:
            if len({x.shape for x in side.values()}) != 1:
                raise ValueError(f"emd needs layers of one shape, got {[x.shape for x in side.values()]}")
        stacked = [jnp.stack([side[i] for i in sorted(side)]) for side in sides]
        return stacked, first

    def init(key, ctx):
        (s, t), first = split(ctx)
        k_layers, k_first = jax.random.split(key)
        keys = jax.random.split(k_layers, s.shape[0])
        maps = jax.vmap(lambda k, x: _init(k, x, t[0]))(keys, s)
        return {"layers": maps, "embedding": () if first is None else _init(k_first, *first)}, ()

    def apply(params, state, ctx, *, key, step):
        del key, step
        (s, t), first = split(ctx)
        s = jax.vmap(lambda p, x: _mapped(p, x, t[0]))(params["layers"], s)

        def row(x):
            return jax.vmap(lambda y: _compare(loss, ctx, x, y, settings))(t)

        costs = jax.vmap(row)(s)
        value = jnp.sum(emd_flow(costs).astype(costs.dtype) * costs)
        metrics = {"layers": value}
        if first is not None:
            metrics["embedding"] = _compare(
                loss, ctx, _mapped(params["embedding"], *first), first[1], settings
            )
        return sum(metrics.values(), jnp.zeros(())), state, metrics

    return Objective(init, apply)
