"""What condensers of nodes share that learn: where a set starts, what it is seen by, which one is kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from jgd.condense.averaging import Average, Clustering
from jgd.condense.clustgdd import ClustGDD
from jgd.condense.common import budget, condensed_nodes, dense_features, propagated_features, training_part
from jgd.condense.selection import Herding, KCenter, Random
from jgd.condense.synthesizers import seen
from jgd.core import Algorithm, Examples, Loop, Model, from_linen, keep_best
from jgd.data.condensed import Condensed
from jgd.data.tasks import NodeTask
from jgd.graph import DiagonalOperator, identity, operator
from jgd.losses import cross_entropy, mean
from jgd.metrics import accuracy
from jgd.nn import GCN, SGC, features_for
from jgd.optim import adam_l2, by_part
from jgd.optim import turns as in_turns

__all__ = [
    "Backbone",
    "Start",
    "backbone",
    "condensed_set",
    "judged",
    "part_optimizer",
    "real_examples",
    "selected",
    "start_from",
    "val_examples",
]

Start = Literal["noise", "random", "herding", "k-center", "average", "average-sgc", "clustering", "clustgdd"]
Backbone = Literal["sgc", "gcn"]


def start_from(how: Start, key: Array, task: NodeTask, size: int, loop: Loop) -> Examples:
    """Features and labels of the set that a method starts from.

    Labels follow the budget of the classes, in order of the class number; ClustGDD brings its own. Edges of
    the start are not used.

    Args:
      how: ``"noise"`` for standard normal features, or the name of a condenser.
      key: random key.
      task: the original task.
      size: number of nodes.
      loop: of the condenser.
    """
    if how not in get_args(Start):
        raise ValueError(f"start must be one of {', '.join(get_args(Start))}, got {how!r}")
    if how == "noise":
        labels = np.repeat(np.arange(task.num_classes), budget(task, size)).astype(np.int32)
        x = jax.random.normal(key, (size, dense_features(task).shape[1]))
        return Examples((x,), jnp.asarray(labels))
    recipe: Any = {
        "random": Random,
        "herding": Herding,
        "k-center": KCenter,
        "average": Average,
        "average-sgc": lambda **kw: Average(hops=2, **kw),
        "clustering": Clustering,
        "clustgdd": ClustGDD,
    }[how](label_ratio=None, nodes=size)
    small: Condensed = recipe(key, task, loop=loop)
    return Examples((jnp.asarray(small.data.nodes, jnp.float32),), jnp.asarray(small.targets))


def backbone(name: Backbone, num_classes: int, hidden: int = 256) -> Model:
    """The network that a set is seen through, without dropout: SGC (two hops) or a GCN (two layers)."""
    if name not in get_args(Backbone):
        raise ValueError(f"backbone must be one of {', '.join(get_args(Backbone))}, got {name!r}")
    return _backbone(name, num_classes, hidden)


@lru_cache(maxsize=64)
def _backbone(name: str, num_classes: int, hidden: int) -> Model:
    return from_linen(SGC(num_classes) if name == "sgc" else GCN(num_classes, hidden, dropout=0.0))


def _seen_by(name: Backbone, task: NodeTask, mask: Any) -> Examples:
    """Nodes in ``mask`` as a backbone sees them on the whole graph.

    The propagations of SGC come first, once: what is left is its linear map on the rows that count.
    """
    labels = np.asarray(task.labels)
    if name == "sgc":
        index = np.flatnonzero(np.asarray(mask))
        x = propagated_features(task, 2)[index]
        return Examples((identity(len(index)), jnp.asarray(x)), jnp.asarray(labels[index]))
    inputs = (operator(task.graph, normalize="sym", self_loops=True), features_for(task.graph))
    return Examples(inputs, jnp.asarray(labels), jnp.asarray(mask, jnp.float32))


def real_examples(name: Backbone, task: NodeTask, *, whole: bool = False) -> Examples:
    """The labelled nodes as a backbone sees them; of an inductive task on the graph of the training nodes.

    Args:
      name: the backbone.
      task: the original task.
      whole: give the operator and dense features of all nodes, to draw neighbourhoods from.
    """
    part = training_part(task)
    if whole:
        a = operator(part.graph, normalize="sym", self_loops=True)
        mask = jnp.asarray(part.train, jnp.float32)
        return Examples((a, jnp.asarray(dense_features(part))), jnp.asarray(part.labels), mask)
    return _seen_by(name, part, part.train)


def val_examples(name: Backbone, task: NodeTask) -> Examples | None:
    """The validation nodes as a backbone sees them, or None where there are none."""
    if task.val is None or not np.any(task.val):
        return None
    if task.setting == "transductive":
        return _seen_by(name, task, task.val)
    part = task.induced(task.val)
    return _seen_by(name, part, np.ones(part.num_nodes, bool))


def part_optimizer(
    lr_x: float, lr_adj: float | None, turns: tuple[int, int] | None, outer: int = 1
) -> optax.GradientTransformationExtraArgs:
    """Adam for the features and for the adjacency of a set, both at once or in turns.

    Args:
      lr_x: learning rate of the part ``x``.
      lr_adj: of the part ``adj``; None where there is none to learn.
      turns: epochs of the adjacency and epochs of the features; None for both at once.
      outer: steps of the set in an epoch.
    """
    x = optax.adam(lr_x)
    if lr_adj is None:
        return by_part(x=x)
    if turns is None:
        return by_part(adj=optax.adam(lr_adj), x=x)
    epochs_adj, epochs_x = turns
    return in_turns(adj=(epochs_adj * outer, optax.adam(lr_adj)), x=(epochs_x * outer, x))


def judged(
    alg: Algorithm,
    recipe: Any,
    num_classes: int,
    *,
    select: bool,
    see: Callable[[Examples], Examples] = seen,
) -> Algorithm:
    """The loop of a recipe, selecting as its ``select_every``, ``select_with`` and ``patience`` say.

    Args:
      alg: the loop.
      recipe: the method.
      num_classes: number of classes.
      select: whether there is anything to select by; else the loop as it is.
      see: as in `selected`.
    """
    if not select:
        return alg
    judge = backbone(recipe.select_with, num_classes, hidden=64)
    return selected(alg, judge, every=recipe.select_every, patience=recipe.patience, see=see)


def selected(
    alg: Algorithm,
    judge: Model,
    *,
    every: int,
    patience: int | None = None,
    see: Callable[[Examples], Examples] = seen,
) -> Algorithm:
    """Of the sets that `match` passes, keep the one that teaches best.

    Args:
      alg: a matching loop over graphs, see `jgd.condense.bilevel.match`.
      judge: network that is trained on the set, from the same weights at every look; its accuracy on
        ``data.val`` is the score.
      every: epochs between looks.
      patience: stop after so many looks without a better one.
      see: what the network is given in place of the set, as in `match`.
    """

    def score(product, data):
        return _taught(judge, see(product["small"]), data.val)

    return keep_best(alg, score, every=every, patience=patience)


def _taught(
    model: Model, small: Examples, val: Examples, *, steps: int = 300, learning_rate: float = 0.01
) -> Float[Array, ""]:
    """Validation accuracy of a network after full-batch training on a set."""
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


def condensed_set(
    recipe: Any, key: Array, task: NodeTask, small: Examples, *, threshold: float = 0.0, **options: Any
) -> Condensed:
    """A learned set as what recipes return.

    Args:
      recipe: the method.
      key: its random key.
      task: the original task.
      small: the set as its synthesizer renders it.
      threshold: weights below it are no edges.
      **options: of `condensed_nodes`.
    """
    a, x = small.inputs
    weights = None if isinstance(a, DiagonalOperator) else np.asarray(a.todense())
    if weights is not None:
        weights = np.where(weights >= threshold, weights, 0)
    return condensed_nodes(
        recipe, key, task, features=x, labels=small.targets, edges=weights, structure="raw", **options
    )
