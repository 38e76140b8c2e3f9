"""Which of the sets that a loop passes is kept: the one that teaches a network best, on validation data."""

from __future__ import annotations

from collections.abc import Callable

import jax
import optax
from jaxtyping import Array, Float

from jgd.condense.synthesizers import seen
from jgd.core import Algorithm, Examples, Model, keep_best
from jgd.losses import cross_entropy, mean
from jgd.metrics import accuracy
from jgd.optim import adam_l2

__all__ = ["select_on_validation"]


def select_on_validation(
    alg: Algorithm,
    judge: Model,
    *,
    every: int,
    patience: int | None = None,
    see: Callable[[Examples], Examples] = seen,
) -> Algorithm:
    """Keep, of the sets that a loop passes, the one that teaches best.

    Args:
      alg: A matching loop over graphs, see `jgd.condense.bilevel.match`.
      judge: Network that is trained on the set, from the same weights at every check; its accuracy on
        ``data.val`` is the score.
      every: Epochs between checks.
      patience: Checks without improvement before stopping; None disables early stopping.
      see: What the network is given in place of the set, as in `match`.
    """

    def score(product, data):
        return teaching_accuracy(judge, see(product["small"]), data.val)

    return keep_best(alg, score, every=every, patience=patience)


def teaching_accuracy(
    model: Model, small: Examples, val: Examples, *, steps: int = 300, learning_rate: float = 0.01
) -> Float[Array, ""]:
    """Return the validation accuracy of a network after full-batch training on a set."""
    tx = adam_l2(learning_rate, 5e-4, num_steps=steps)
    params, state = model.init(jax.random.key(0), *small.inputs)

    def loss(params):
        logits = model.apply(params, state, *small.inputs)[0].logits
        return mean(cross_entropy(logits, small.targets), small.weights)

    def step(carry, _):
        params, opt_state = carry
        updates, opt_state = tx.update(jax.grad(loss)(params), opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=steps)
    logits = model.apply(params, state, *val.inputs)[0].logits
    return accuracy(logits, val.targets, val.weights)
