"""Teachers made of several networks: functions of stacked logits ``[K, *B, C]``.

Each function returns logits of a teacher, as in ``kd(student, ensemble)``, or weights for
``weighted_logits``. For peers that teach each other, ``jax.vmap(kd, in_axes=(0, None))(logits, ensemble)`` is
the loss of each.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from jgd.losses.classification import cross_entropy, mean
from jgd.losses.common import Count, checked, labelled, widened

__all__ = [
    "best_logits",
    "general_weights",
    "linear_weights",
    "mean_logits",
    "min_logits",
    "weighted_logits",
    "weighted_probabilities",
]


@checked
def mean_logits(logits: Float[Array, "K *B C"]) -> Float[Array, "*B C"]:
    """Compute the mean of the networks' logits."""
    return jnp.mean(logits, axis=0)


def _combine(weights: Array, x: Array) -> Array:
    weights = weights.reshape(weights.shape + (1,) * (x.ndim - weights.ndim))
    return jnp.sum(weights * x, axis=0)


@checked
def weighted_logits(
    logits: Float[Array, "K *B C"], weights: Float[Array, "K"] | Float[Array, "K *B"]
) -> Float[Array, "*B C"]:
    """Compute ``Σ_k w_k z_k``.

    Weights are ``[K]`` or ``[K, *B]``, such as the gate of ONE (Lan et al., NeurIPS 2018).
    """
    return _combine(weights, logits)


@checked
def weighted_probabilities(
    logits: Float[Array, "K *B C"], weights: Float[Array, "K"] | Float[Array, "K *B"]
) -> Float[Array, "*B C"]:
    """Compute ``log Σ_k w_k softmax(z_k)``, the mixture as log-probabilities, which serve as logits."""
    log_p = jax.nn.log_softmax(logits)
    top = jax.lax.stop_gradient(jnp.max(log_p, axis=0))
    top = jnp.where(top == -jnp.inf, 0, top)
    return jnp.log(_combine(weights, jnp.exp(log_p - top))) + top


def _shares(labels: Array, num_classes: int, axes: int, where: Array | None = None) -> Array:
    """Return labels as probabilities ``[*B, C]``, zero where they are unknown, NaN where impossible."""
    if labels.ndim == axes:
        return labels if where is None else jnp.where(where[..., None], labels, 0)
    known, wrong = labelled(labels, num_classes, where)
    shares = (labels[..., None] == jnp.arange(num_classes)) & known[..., None]
    return jnp.where(wrong[..., None], jnp.nan, shares)


@checked
def best_logits(
    logits: Float[Array, "K *B C"], labels: Shaped[Array, "*B"] | Float[Array, "*B C"]
) -> Float[Array, "*B C"]:
    """Return for each example the logits of the network with the lowest cross-entropy (KDCL-Naive).

    Paper: Guo et al., Online Knowledge Distillation via Collaborative Learning, CVPR 2020.
    """
    costs = jax.vmap(cross_entropy, in_axes=(0, None))(widened(logits), labels)
    choice = jnp.argmin(costs, axis=0)
    best = jnp.take_along_axis(logits, choice[None, ..., None], axis=0)[0]
    return jnp.where(jnp.isnan(costs[0])[..., None], jnp.nan, best)  # an impossible label


@checked
def min_logits(
    logits: Float[Array, "K *B C"], labels: Shaped[Array, "*B"] | Float[Array, "*B C"]
) -> Float[Array, "*B C"]:
    """Compute the elementwise minimum of the networks' margins over the label (KDCL-MinLogit).

    From each network's logits its logit of the label is subtracted, then the minimum over networks is taken.
    The label's logit becomes 0 and no network's margin is exceeded. For probabilities the expected logit is
    subtracted; for an unknown label the networks' own logits are compared.

    Paper: Guo et al., Online Knowledge Distillation via Collaborative Learning, CVPR 2020.
    """
    share = _shares(labels, logits.shape[-1], logits.ndim - 1)
    target = jnp.sum(jnp.where(share != 0, share * logits, 0), axis=-1, keepdims=True)
    return jnp.min(logits - target, axis=0)


@checked
def linear_weights(
    logits: Float[Array, "K *B C"],
    labels: Shaped[Array, "*B"] | Float[Array, "*B C"],
    *,
    num_steps: Count = 100,
    where: Bool[Array, "*B"] | None = None,
) -> Float[Array, "K"]:
    """Find weights of the convex combination of logits with the least cross-entropy (KDCL-Linear).

    A convex problem on the simplex, solved by exponentiated gradients; the step doubles when it lowers the
    loss and halves when it does not, so the loss never rises above that of equal weights.

    Paper: Guo et al., Online Knowledge Distillation via Collaborative Learning, CVPR 2020.

    Args:
      logits: Logits of all networks, stacked.
      labels: Labels: classes or probabilities.
      num_steps: Number of steps of the solver.
      where: Mask of the examples that count.

    Returns:
      Weights that sum to one, constants.
    """
    logits = jax.lax.stop_gradient(widened(logits))
    if where is not None:
        logits = jnp.where(where[..., None], logits, 0)

    def cost(weights: Array) -> Array:
        return mean(cross_entropy(weighted_logits(logits, weights), labels), where)

    value_and_grad = jax.value_and_grad(cost)

    def step(state, _):
        log_w, value, gradient, rate = state
        trial = jax.nn.log_softmax(log_w - rate * gradient)
        new, new_gradient = value_and_grad(jnp.exp(trial))
        better = new < value
        state = jax.tree.map(
            lambda a, b: jnp.where(better, a, b), (trial, new, new_gradient), (log_w, value, gradient)
        )
        return (*state, jnp.where(better, 2 * rate, 0.5 * rate)), None

    log_w = jnp.full(len(logits), -jnp.log(len(logits)), logits.dtype)
    value, gradient = value_and_grad(jnp.exp(log_w))
    spread = jnp.max(gradient) - jnp.min(gradient)
    start = (log_w, value, gradient, 1 / jnp.where(spread > 0, spread, 1))
    found = jnp.exp(jax.lax.scan(step, start, length=num_steps)[0][0])
    return jnp.where(jnp.isnan(value), jnp.nan, found)


@checked
def general_weights(
    logits: Float[Array, "K *B C"],
    labels: Shaped[Array, "*B"] | Float[Array, "*B C"],
    *,
    where: Bool[Array, "*B"] | None = None,
) -> Float[Array, "K"]:
    """Compute the weights ``Σ⁻¹1 / 1ᵀΣ⁻¹1`` of least expected error (KDCL-General).

    ``Σ_jk = mean_i ⟨e_ji, e_ki⟩`` is the covariance of the networks' errors ``e = softmax(z) - onehot(y)``:
    networks with similar errors share a weight. Weights may be negative. A relative ridge of 1e-6 makes
    copies share equally.

    Paper: Guo et al., Online Knowledge Distillation via Collaborative Learning, CVPR 2020.

    Args:
      logits: Logits of all networks on validation examples, stacked.
      labels: Classes, -1 for unknown (such examples do not count), or probabilities.
      where: Mask of the examples that count.

    Returns:
      Weights that sum to one, constants.
    """
    logits = jax.lax.stop_gradient(widened(logits))
    if where is not None:
        logits = jnp.where(where[..., None], logits, 0)
    label = _shares(labels, logits.shape[-1], logits.ndim - 1, where)
    counts = jnp.any(label != 0, axis=-1)
    errors = jnp.where(counts[..., None], jax.nn.softmax(logits) - label, 0)
    errors = errors.reshape(len(errors), math.prod(errors.shape[1:]))
    # The number of examples scales Σ and cancels; so does the trace, which makes the ridge relative.
    covariance = errors @ errors.T
    trace = jnp.trace(covariance)
    covariance = covariance / jnp.where(trace > 0, trace, 1) + 1e-6 * jnp.eye(len(errors), dtype=errors.dtype)
    weights = jnp.linalg.solve(covariance, jnp.ones(len(errors), errors.dtype))
    return weights / jnp.sum(weights)
