"""Optimisers of a dict of parameters, one for each part, jointly or in turns."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import optax

__all__ = ["by_part", "turns"]


def by_part(**parts: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Apply one optimiser to each entry of a dict of parameters; entries without one stay as they are.

    Example:
      ``by_part(x=optax.adam(1e-4), lr=optax.sgd(1e-6))`` for parameters ``{"x": ..., "y": ..., "lr": ...}``
    """
    if not parts:
        raise ValueError("by_part() needs at least one optimiser, e.g. x=optax.adam(1e-3)")
    frozen = ""  # cannot be a keyword

    def labels(params: Mapping):
        return {
            name: jax.tree.map(lambda _, n=name: n if n in parts else frozen, p) for name, p in params.items()
        }

    return optax.partition({**parts, frozen: optax.set_to_zero()}, labels)


def turns(**parts: tuple[int, optax.GradientTransformation]) -> optax.GradientTransformationExtraArgs:
    """Update one part at a time: ``turns(adj=(10, tx), x=(40, tx))`` repeats ten of ``adj``, forty of ``x``.

    Between its turns a part and the state of its optimiser do not change.
    """
    for name, (count, _) in parts.items():
        if count < 1:
            raise ValueError(f"part {name!r} has {count} turns, it must have at least 1")
    period, start, resting = sum(count for count, _ in parts.values()), 0, {}
    for name, (count, tx) in parts.items():

        def due(step, start=start, end=start + count, **extra):
            del extra
            return (step % period >= start) & (step % period < end)

        resting[name] = optax.conditionally_mask(tx, due)
        start += count
    return by_part(**resting)
