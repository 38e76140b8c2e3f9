r"""Optimisers that treat the gradient of the labels and that of the teacher apart, such as `jgd.optim.dot`.

::

    objective = apart(weighted(ce=(1.0, supervised()), kd=(1.0, term(losses.kd))), "kd")
    student = offline(net, teacher, objective, by_source(jgd.optim.dot(0.05, weight_decay=5e-4)))(key, task)

`apart` gives the objective one parameter s = 1 with ``L = task + s * taught``. The optimiser evaluates the
gradient once more, at s = 0: that is the task's, and the rest of the whole gradient is the teacher's. So any
loop that tells its optimiser ``grad_fn`` will do, as `jgd.core.train` does. A step costs two gradients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jgd.core import Objective

__all__ = ["apart", "by_source"]


def apart(whole: Objective, *names: str) -> Objective:
    """Return the same objective, whose named terms are those of the teacher.

    Args:
      whole: Objective that `jgd.core.weighted` made.
      *names: Names of its terms.

    Raises:
      ValueError: For names that it does not have.
    """
    weights: dict[str, Any] = {name: weight for name, weight, _ in whole.terms}
    if not names or not set(names) <= set(weights):
        raise ValueError(f"apart names terms of weighted(), {sorted(weights) or 'it has none'}; got {names}")

    def init(key, ctx):
        params, state = whole.init(key, ctx)
        return {"share": jnp.ones(()), "terms": params}, state

    def apply(params, state, ctx, *, key, step):
        loss, state, metrics = whole.apply(params["terms"], state, ctx, key=key, step=step)
        taught = jnp.zeros(())
        for name in names:
            weight: Any = weights[name]
            weight = weight(step) if callable(weight) else weight
            taught = taught + weight * metrics[name]
        return loss + (params["share"] - 1) * taught, state, metrics

    return Objective(init, apply, whole.terms)


def by_source(tx: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    """Return an optimiser for `jgd.core.train` from one that takes the teacher's gradients apart.

    Args:
      tx: ``update(task gradients, state, params, distillation=gradients)``.
    """

    def share_of(params, value):
        """Return the parameters with another share of the teacher."""
        own = params.get("objective") if isinstance(params, Mapping) else None
        if not isinstance(own, Mapping) or "share" not in own:
            raise ValueError("the teacher's terms are not known: wrap the objective in jgd.distill.apart")
        return {**params, "objective": {**own, "share": jnp.full_like(own["share"], value)}}

    def init(params):
        return tx.init(share_of(params, 1))

    def update(updates, state, params=None, *, grad_fn=None, **extra):
        if params is None or grad_fn is None:
            raise ValueError("by_source needs the parameters and grad_fn, as jgd.core.train gives them")
        task = share_of(grad_fn(share_of(params, 0)), 0)
        taught = jax.tree.map(jnp.subtract, share_of(updates, 0), task)
        updates, state = tx.update(task, state, params, distillation=taught, **extra)
        return share_of(updates, 0), state

    return optax.GradientTransformationExtraArgs(init, update)
