"""Class-incremental learning: classes arrive in groups, and condensed sets are the memory.

Class-incremental classification of nodes. At stage ``t`` the nodes of some new classes arrive, with the edges
among them. They are condensed at once, and what was condensed joins the memory; the originals are not trained
on again. A fresh network is trained on the memory alone, old and new sets with equal weight: the balanced
replay of Liu, Qiu and Huang, "CaT: Balanced Continual Graph Learning with Graph Condensation", ICDM 2023,
here for any condenser. It is tested on the nodes of every group so far, and chooses among all classes so
far::

    S_t = condense(graph of the nodes of group t)
    M_t = S_1 ⊕ ... ⊕ S_t                        block-diagonal: no edges between sets
    A[t, g] = accuracy of a network trained on M_t on the test nodes of group g <= t
    average accuracy = mean_g A[T, g],   average forgetting = mean_{g < T} (A[g, g] - A[T, g])

The last layer of a network has one output for each class seen so far. The real graph
grows: networks are selected and tested on the graph of all nodes so far, edges between groups included, which
no condensed set has seen. They are selected by the validation nodes of all classes so far, as everywhere
here; ``EvalConfig(select_every=steps)`` has one validation check, at the end, and so keeps the last state.

The bounds are the same loop without condensing: ``recipe=None`` trains on the originals, of everything so far
(joint training) or with ``memory="newest"`` on those of the newest group (nothing is remembered).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Float

from jgd.condense.common import nested
from jgd.core import Recipe
from jgd.data import Condensed, NodeTask
from jgd.data.checks import need_classes
from jgd.evaluation._evaluate import trained
from jgd.evaluation.config import EvalConfig
from jgd.evaluation.kinds.nodes import NODES, real
from jgd.graph import adjacency, from_adjacency
from jgd.training import score

__all__ = [
    "Continual",
    "arrivals",
    "average_accuracy",
    "average_forgetting",
    "continual",
    "joined_sets",
]

Groups = tuple[tuple[int, ...], ...]


class Continual(NamedTuple):
    """Results of `continual`.

    Attributes:
      accuracy: ``[seeds, T, T]`` accuracies by stage and group, in 0..1; NaN for groups that had not arrived.
      groups: Classes of each group.
      nodes: ``[T]`` numbers of labelled nodes, condensed or not, that the networks of each stage are trained
        on.
    """

    accuracy: np.ndarray
    groups: Groups
    nodes: np.ndarray


def average_accuracy(accuracy: Float[np.ndarray, "*runs T T"]) -> Float[np.ndarray, "*runs"]:
    """Compute the mean over groups, whatever their size, after the last stage.

    Args:
      accuracy: Accuracies by stage and group, see `Continual`.
    """
    return accuracy[..., -1, :].mean(-1)


def average_forgetting(accuracy: Float[np.ndarray, "*runs T T"]) -> Float[np.ndarray, "*runs"]:
    """Compute the mean loss of accuracy of all groups but the last since they arrived; 0 for a single group.

    Args:
      accuracy: Accuracies by stage and group, see `Continual`.
    """
    at_first = np.diagonal(accuracy, axis1=-2, axis2=-1)
    lost = (at_first - accuracy[..., -1, :])[..., :-1]
    return lost.sum(-1) / max(1, lost.shape[-1])


def arrivals(task: NodeTask, groups: int | Sequence[Sequence[int]] = 2) -> Groups:
    """Return the classes of each group, in the order of arrival.

    Args:
      task: Original task.
      groups: Number of classes of a group, taken in order (the last group takes what remains); or the groups.

    Raises:
      ValueError: For impossible groups: empty, with unknown or repeated classes, or without training,
        validation or test nodes.
    """
    need_classes(task, "a stream of classes")
    labels, count = np.asarray(task.labels), task.num_classes
    if isinstance(groups, int):
        if not 1 <= groups <= count:
            raise ValueError(f"groups of {groups} classes are impossible: task {task.name!r} has {count}")
        starts = [groups * i for i in range(count // groups)]
        found = [tuple(range(a, b)) for a, b in zip(starts, [*starts[1:], count], strict=True)]
    else:
        found = [tuple(int(c) for c in group) for group in groups]
    named = [c for group in found for c in group]
    if not found or not all(found):
        raise ValueError("every group needs a class, and there must be a group")
    if len(set(named)) < len(named) or not set(named) <= set(range(count)):
        raise ValueError(f"groups hold each of the classes 0..{count - 1} at most once, got {found}")
    for split in ("train", "val", "test"):
        mask = getattr(task, split)
        present = set() if mask is None else set(labels[np.asarray(mask)].tolist())
        for group in found:
            lacking = set(group) - present
            if (split == "train" and lacking) or lacking == set(group):
                raise ValueError(
                    f"task {task.name!r} has no {split} nodes of classes {sorted(lacking)} in group {group}"
                )
    return tuple(found)


def _part(task: NodeTask, classes: Sequence[int], order: Sequence[int]) -> NodeTask:
    """Return the nodes of some classes with the edges among them; classes are numbered by their place."""
    place = np.full(task.num_classes, -1, np.int32)
    place[list(order)] = np.arange(len(order), dtype=np.int32)
    part = task.induced(np.isin(np.asarray(task.labels), classes))
    return replace(part, labels=place[part.labels], num_classes=len(order))


def joined_sets(sets: Sequence[Condensed], classes: Sequence[Sequence[int]], num_classes: int) -> Condensed:
    """Join condensed sets of different classes into one, without edges between them.

    Args:
      sets: Condensed graphs that are stored alike and prescribe the same training.
      classes: Numbers of the classes of each set in the whole.
      num_classes: Number of classes of the whole.

    Raises:
      ValueError: For sets that prescribe different training, or are not for networks on plain data.
    """
    first = sets[0]
    for small in sets:
        if small.training.preprocess or small.training.predictor:
            raise ValueError("a set for changed data, or for a predictor of its own, cannot join others")
        if small.training != first.training or np.ndim(small.targets) != np.ndim(first.targets):
            raise ValueError(f"the sets prescribe different training: {first.training} and {small.training}")

    def renamed(small, names):
        if np.ndim(small.targets) == 1:
            return np.asarray(names, np.int32)[small.targets]
        nothing = -np.inf if small.training.targets == "logits" else 0.0
        soft = np.full((len(small.targets), num_classes), nothing, np.float32)
        soft[:, list(names)] = small.targets
        return soft

    weights = None
    if any(s.weights is not None for s in sets):
        each = (np.ones(len(s.targets)) if s.weights is None else s.weights for s in sets)
        weights = np.concatenate([np.asarray(w, np.float32) for w in each])
    x = np.concatenate([np.asarray(s.data.nodes, np.float32) for s in sets])
    edges = sp.block_diag([adjacency(s.data) for s in sets], format="csr")
    return Condensed(
        data=from_adjacency(edges, x),
        targets=np.concatenate([renamed(s, names) for s, names in zip(sets, classes, strict=True)]),
        weights=weights,
        training=first.training,
        provenance={"sets": [dict(s.provenance) for s in sets], "nodes": len(x)},
    )


_accuracies = jax.jit(jax.vmap(score, in_axes=(0, None)))


def _by_group(nets: Any, seen: NodeTask, net: nn.Module, places: list[range]) -> Float[np.ndarray, "seeds G"]:
    """Compute the accuracy of the networks on the test nodes of each group."""
    test = real(seen, "test", net)
    each = [(test.weights > 0) & (test.targets >= p.start) & (test.targets < p.stop) for p in places]
    found = [_accuracies(nets, test._replace(weights=weights)) for weights in each]
    return np.stack([np.asarray(accuracy) for accuracy in found], axis=1)


def continual(
    recipe: Recipe | None,
    task: NodeTask,
    groups: int | Sequence[Sequence[int]] = 2,
    *,
    memory: Literal["all", "newest"] = "all",
    network: str = "gcn",
    seeds: int = 1,
    key: Array | None = None,
    config: EvalConfig = NODES.config,
) -> Continual:
    """Condense groups of classes as they arrive, and test networks that are trained on the memory.

    The nodes of a group are those whose label is in it, test nodes included: a condenser that uses unlabelled
    nodes knows that they are of few classes, and can therefore surpass joint training, which has all classes
    in one graph.

    Args:
      recipe: Condenser of the graph of each group, whose classes are numbered from 0; its budget is for a
        group. None trains on the originals.
      task: Original task, with dense features.
      groups: Groups of classes, see `arrivals`.
      memory: ``"all"`` sets so far, or the ``"newest"`` alone.
      network: Name of the architecture, see `jgd.nn.NETWORKS`.
      seeds: Number of networks at each stage.
      key: Random key; 0 by default. Stages have keys of their own, for condensing and for training.
      config: How networks are trained.

    Returns:
      Accuracies by stage and group, see `average_accuracy` and `average_forgetting`.

    Raises:
      ValueError: For impossible groups, or condensed sets that cannot be joined.
    """
    if memory not in ("all", "newest"):
        raise ValueError(f'memory must be "all" or "newest", got {memory!r}')
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {seeds}")
    key = jax.random.key(0) if key is None else key
    found = arrivals(task, groups)
    ends = np.cumsum([len(group) for group in found]).tolist()
    places = [range(end - len(group), end) for group, end in zip(found, ends, strict=True)]
    accuracy = np.full((seeds, len(found), len(found)), np.nan, np.float32)
    nodes, sets = [], []
    for t, group in enumerate(found):
        k_condense, k_train = jax.random.split(jax.random.fold_in(key, t))
        order = [c for known in found[: t + 1] for c in known]
        seen = _part(task, order, order)
        if recipe is None:
            small = seen if memory == "all" else _part(task, group, order)
            nodes.append(int(np.sum(small.train)))
        else:
            with nested():  # a group may well be of one class
                sets.append(recipe(k_condense, _part(task, group, group)))
            first = 0 if memory == "all" else t
            small = joined_sets(sets[first:], places[first : t + 1], len(order))
            nodes.append(len(small.targets))
        with warnings.catch_warnings():  # without memory the classes of before are missing, as is meant
            warnings.filterwarnings("ignore", ".*( no labelled training examples| has one class)")
            nets = trained(small, seen, network=network, seeds=seeds, key=k_train, config=config)
        net = NODES.network(network, seen, config)
        accuracy[:, t, : t + 1] = _by_group(nets, seen, net, places[: t + 1])
    return Continual(accuracy, found, np.asarray(nodes))
