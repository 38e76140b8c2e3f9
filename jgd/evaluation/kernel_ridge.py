r"""Kernel ridge regression on a condensed set: the closed-form predictor of kernel-based distillation.

Nguyen, Chen and Lee, "Dataset Meta-Learning from Kernel Ridge-Regression", ICLR 2021. With features X_s and
targets Y_s of the condensed set, the examples X_t are predicted as::

    K(X_t, X_s) (K(X_s, X_s) + λ I)^-1 (Y_s - 1/C) + 1/C,        λ = ridge · tr K(X_s, X_s) / n

The kernel is linear (``ridge``) or that of an infinitely wide ReLU network (``ntk``). The features of nodes
are ``Â^hops X``, on the condensed graph ``Â'^hops X'``; those of arrays are the flattened inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jgd.condense.common import propagated_features
from jgd.core import as_float
from jgd.data import ArrayTask, Condensed, NodeTask
from jgd.data.checks import as_number
from jgd.evaluation.kinds.base import soft_targets
from jgd.evaluation.predictors import Predict
from jgd.graph import identity
from jgd.ops.kernels import graph_ntk, ridge_predict
from jgd.registry import Entry

__all__ = ["ntk", "ridge"]

_CHUNK, _MOST = 1000, 101  # a file may name any number of hops and layers
Kernel = Callable[[Array, Array], Array]


def ridge(*, ridge: float = 1e-2, hops: int = 2) -> Predict:
    """Return ridge regression on the features.

    Args:
      ridge: Ridge in units of the mean diagonal of the kernel.
      hops: Propagations of the features of nodes; arrays have none.
    """
    as_number("ridge", ridge, 0)
    as_number("hops", hops, 0, _MOST, whole=True)
    return partial(_predicted, _linear, ridge, hops)


def ntk(*, ridge: float = 1e-2, hops: int = 2, layers: int = 2) -> Predict:
    """Return kernel ridge regression with the tangent kernel of a fully connected ReLU network.

    Args:
      ridge: Ridge in units of the mean diagonal of the kernel.
      hops: Propagations of the features of nodes; arrays have none.
      layers: Number of ReLU layers.
    """
    as_number("ridge", ridge, 0)
    as_number("hops", hops, 0, _MOST, whole=True)
    as_number("layers", layers, 1, _MOST, whole=True)
    return partial(_predicted, partial(_tangent, layers=layers), ridge, hops)


def _linear(x: Float[Array, "n F"], y: Float[Array, "m F"]) -> Float[Array, "n m"]:
    return jnp.matmul(x, y.T, precision="highest")


def _tangent(x: Float[Array, "n F"], y: Float[Array, "m F"], *, layers: int) -> Float[Array, "n m"]:
    return graph_ntk(identity(len(x)), x, identity(len(y)), y, rounds=1, layers=layers)


def _predicted(
    kernel: Kernel, ridge: float, hops: int, small: Condensed, task: Any, split: str
) -> tuple[Float[np.ndarray, "M C"], Int[np.ndarray, " M"]]:
    x_s, (x, labels) = _support(small, hops), _examples(task, split, hops)
    targets = soft_targets(small, task.num_classes) - 1 / task.num_classes
    k_ss = kernel(x_s, x_s)
    rows = [
        ridge_predict(kernel(jnp.asarray(x[i : i + _CHUNK]), x_s), k_ss, targets, ridge)
        for i in range(0, len(x), _CHUNK)
    ]
    return np.concatenate(rows) + 1 / task.num_classes, labels


def _support(small: Condensed, hops: int) -> Float[Array, "n F"]:
    """Return the features of the condensed examples."""
    if not hasattr(small.data, "nodes"):
        return _flat(small.data)
    a, x = small.operator(normalize="sym", self_loops=True), jnp.asarray(small.data.nodes, jnp.float32)
    for _ in range(hops):
        x = a @ x
    return x


def _examples(task: Any, split: str, hops: int) -> tuple[Any, Int[np.ndarray, " M"]]:
    """Return features and labels of the examples of a split."""
    if isinstance(task, ArrayTask):
        index = np.flatnonzero(task.labelled(split))
        return _flat(np.asarray(task.x)[index]), np.asarray(task.y)[index]
    if not isinstance(task, NodeTask):
        raise ValueError(f"kernel ridge regression reads nodes or arrays, not a {type(task).__name__}")
    part, mask = task.seen_with(task.labelled(split))
    return propagated_features(part, hops)[mask], np.asarray(part.labels)[mask]


def _flat(x: Any) -> Float[Array, "n F"]:
    if not jnp.issubdtype(jnp.asarray(x[:1]).dtype, jnp.number) or np.ndim(x) < 2:
        raise ValueError(f"kernel ridge regression reads arrays of numbers [n, ...], not {np.shape(x)}")
    return jax.vmap(jnp.ravel)(as_float(jnp.asarray(x))).astype(jnp.float32)


ENTRIES = (
    Entry(
        "ridge",
        ridge,
        "Ridge regression on the features.",
        paper="Bohdal et al. 2020",
        kinds=("nodes", "arrays"),
    ),
    Entry(
        "ntk",
        ntk,
        "Kernel ridge regression with the tangent kernel of a fully connected network.",
        paper="Nguyen et al. 2021",
        kinds=("nodes", "arrays"),
    ),
)
