"""Classes that come one group after another, remembered by condensed sets.

Class-incremental classification of nodes. At stage ``t`` the nodes of some new classes arrive, with the edges
among them. They are condensed at once, and what was condensed joins the memory; the originals are not trained
on again. A fresh network is trained on the memory alone, old and new sets with equal say: the balanced replay
of Liu, Qiu and Huang, "CaT: Balanced Continual Graph Learning with Graph Condensation", ICDM 2023, here for
any condenser. It is tested on the nodes of every group so far, and chooses among all classes so far::

    S_t = condense(graph of the nodes of group t)
    M_t = S_1 ⊕ ... ⊕ S_t                        block-diagonal: no edges between sets
    A[t, g] = accuracy of a network trained on M_t on the test nodes of group g <= t
    average accuracy = mean_g A[T, g],   average forgetting = mean_{g < T} (A[g, g] - A[T, g])

A network's last layer has an output for each class seen, so that no other can be predicted. The real graph
grows: networks are selected and tested on the graph of all nodes so far, edges between groups included, which
no condensed set has seen. They are selected by the validation nodes of all classes so far, as everywhere
here; ``Protocol(select_every=epochs)`` looks but once, at the end, and so keeps the last state.

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

from jgd.core import Recipe
from jgd.data.checks import need_classes
from jgd.data.condensed import Condensed
from jgd.data.tasks import NodeTask
from jgd.graph import adjacency, from_adjacency
from jgd.nn import split_accuracy
from jgd.protocols.evaluate import PUBLISHED, Protocol, network, real_examples, trained

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
    """What `continual` measured.

    Attributes:
      accuracy: ``[seeds, T, T]``, by stage and group, in 0..1; NaN for groups that had not come.
      groups: the classes of each group.
      nodes: ``[T]`` labelled nodes, condensed or not, that the networks of each stage are trained on.
    """

    accuracy: np.ndarray
    groups: Groups
    nodes: np.ndarray


def average_accuracy(accuracy: Float[np.ndarray, "*runs T T"]) -> Float[np.ndarray, "*runs"]:
    """Mean over groups, whatever their size, after the last stage.

    Args:
      accuracy: by stage and group, see `Continual`.
    """
    return accuracy[..., -1, :].mean(-1)


def average_forgetting(accuracy: Float[np.ndarray, "*runs T T"]) -> Float[np.ndarray, "*runs"]:
    """What groups but the last lost on average since they came; 0 where there is one group.

    Args:
      accuracy: by stage and group, see `Continual`.
    """
    at_first = np.diagonal(accuracy, axis1=-2, axis2=-1)
    lost = (at_first - accuracy[..., -1, :])[..., :-1]
    return lost.sum(-1) / max(1, lost.shape[-1])


def arrivals(task: NodeTask, groups: int | Sequence[Sequence[int]] = 2) -> Groups:
    """The classes of each group, in the order in which they come.

    Args:
      task: the task.
      groups: classes in a group, taken in order (the last group takes what remains); or the groups.

    Raises:
      ValueError: for groups that are impossible: empty, with classes that there are not, or twice, or that
        have no training node; without validation or test nodes.
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
    """The nodes of some classes with the edges among them; classes are numbered by their place in order."""
    place = np.full(task.num_classes, -1, np.int32)
    place[list(order)] = np.arange(len(order), dtype=np.int32)
    part = task.induced(np.isin(np.asarray(task.labels), classes))
    return replace(part, labels=place[part.labels], num_classes=len(order))


def joined_sets(sets: Sequence[Condensed], classes: Sequence[Sequence[int]], num_classes: int) -> Condensed:
    """Condensed sets of different classes as one, without edges between them.

    Args:
      sets: condensed graphs that are stored alike and prescribe the same training.
      classes: of each set, what its classes are called in the whole.
      num_classes: of the whole.

    Raises:
      ValueError: for sets that differ in how they are trained on, or are not for networks on plain data.
    """
    first = sets[0]
    for small in sets:
        if small.preprocess or "predictor" in small.train:
            raise ValueError("a set for changed data, or for a predictor of its own, cannot join others")
        if small.train != first.train or np.ndim(small.targets) != np.ndim(first.targets):
            raise ValueError(f"the sets prescribe different training: {first.train} and {small.train}")

    def renamed(small, names):
        if np.ndim(small.targets) == 1:
            return np.asarray(names, np.int32)[small.targets]
        nothing = -np.inf if small.train.get("targets") == "logit" else 0.0
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
        train=first.train,
        provenance={"sets": [dict(s.provenance) for s in sets], "nodes": len(x)},
    )


_accuracies = jax.jit(jax.vmap(split_accuracy, in_axes=(0, None)))


def _by_group(nets: Any, seen: NodeTask, net: nn.Module, places: list[range]) -> Float[np.ndarray, "seeds G"]:
    """Accuracy of the networks on the test nodes of each group, whose classes are called so."""
    test = real_examples(seen, net, ("test",))["test"]
    each = [test.weights & (test.targets >= p.start) & (test.targets < p.stop) for p in places]
    found = [_accuracies(nets, test._replace(weights=weights)) for weights in each]
    return np.stack([np.asarray(accuracy) for accuracy in found], axis=1)


def continual(
    recipe: Recipe | None,
    task: NodeTask,
    groups: int | Sequence[Sequence[int]] = 2,
    *,
    memory: Literal["all", "newest"] = "all",
    model: str = "gcn",
    seeds: int = 1,
    key: Array | None = None,
    protocol: Protocol = PUBLISHED,
) -> Continual:
    """Condense groups of classes as they come, and test networks that are trained on what is remembered.

    The nodes of a group are those whose label is in it, which the stream tells of all nodes, test nodes
    included: a condenser that uses unlabelled nodes knows that they are of few classes, and can so surpass
    joint training, which has all classes in one graph.

    Args:
      recipe: condenses the graph of each group, whose classes it sees as ``0..``; its budget is for a group.
        Or None, to train on the originals.
      task: the original task, with dense features.
      groups: see `arrivals`.
      memory: ``"all"`` sets so far, or the ``"newest"`` alone, which remembers nothing.
      model: name of the architecture, see `jgd.protocols.evaluate.NETWORKS`.
      seeds: networks at each stage.
      key: random key; 0 by default. Stages have keys of their own, for condensing and for training.
      protocol: how to train.

    Returns:
      Accuracies by stage and group, see `average_accuracy` and `average_forgetting`.

    Raises:
      ValueError: for impossible groups, or condensed sets that cannot be joined.
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
            with warnings.catch_warnings():  # a group may well be of one class
                warnings.filterwarnings("ignore", ".* has one class")
                sets.append(recipe(k_condense, _part(task, group, group)))
            first = 0 if memory == "all" else t
            small = joined_sets(sets[first:], places[first : t + 1], len(order))
            nodes.append(len(small.targets))
        with warnings.catch_warnings():  # without memory the classes of before are missing, as is meant
            warnings.filterwarnings("ignore", ".*( no labelled training examples| has one class)")
            nets = trained(small, seen, model=model, seeds=seeds, key=k_train, protocol=protocol)
        net = network(model, len(order), protocol)
        accuracy[:, t, : t + 1] = _by_group(nets, seen, net, places[: t + 1])
    return Continual(accuracy, found, np.asarray(nodes))
