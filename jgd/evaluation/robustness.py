"""Networks trained on condensed sets, where the real graph is corrupted.

A corruption is a function ``(key, task, rate) -> task``: random edges added or removed, noise in the
features, missing features, or edges chosen by an attacker. It happens before or after condensing:

* *evasion*: the set is condensed from the clean graph, its networks are tested on the corrupted one;
* *poisoning*: the set is condensed from the corrupted graph.

The attack is greedy GR-BCD (Geisler et al., NeurIPS 2021, "Robustness of graph neural networks at scale"): a
surrogate network is trained on the clean graph. In each round a random block of node pairs is looked at; of
their edges, present or not, those are flipped that raise the loss of the attacked nodes most to first order,
as many as the budget allows a round. Nothing of size ``N²`` is ever made, because the weights of candidates
enter the sparse operator as further entries of value zero, with respect to which it is differentiated. The
loss is ``mean tanh(max_{c != y} z_c - z_y)``, which does not spend the budget on nodes that are lost already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Bool, Float, Int

from jgd.core import Bound, Loop, Recipe, in_memory
from jgd.core.memo import memoized
from jgd.data import Condensed, NodeTask
from jgd.data.checks import as_mask, need_classes
from jgd.evaluation._evaluate import evaluate, trained
from jgd.evaluation.config import EvalConfig
from jgd.evaluation.kinds.nodes import NODES, network, real
from jgd.graph import SparseOperator, adjacency, from_adjacency, from_coo, normalize
from jgd.training import features_for, score

__all__ = [
    "CORRUPTIONS",
    "Corruption",
    "add_edges",
    "attack_edges",
    "evasion",
    "mask_features",
    "noisy_features",
    "poisoning",
    "remove_edges",
]

Corruption = Callable[[Array, NodeTask, float], NodeTask]


def _check_rate(rate: float, top: float = 1.0) -> None:
    if not 0 <= rate <= top:
        raise ValueError(f"rate must be in [0, {top:g}], got {rate}")


def _generator(key: Array) -> np.random.Generator:
    """Return a generator of random numbers of the host that the key determines."""
    return np.random.default_rng(np.asarray(jax.random.bits(key, (4,), jnp.uint32)))


def _with_features(task: NodeTask, x: np.ndarray) -> NodeTask:
    return replace(task, graph=task.graph._replace(nodes=np.asarray(x, np.float32)))


def _features(task: NodeTask) -> Float[np.ndarray, "N F"]:
    nodes: Any = task.graph.nodes
    if nodes is None:
        raise ValueError(f"task {task.name!r} has no node features to corrupt")
    return np.asarray(nodes.todense() if isinstance(nodes, SparseOperator) else nodes, np.float32)


# --- random corruptions -------------------------------------------------------------------------


def noisy_features(key: Array, task: NodeTask, rate: float) -> NodeTask:
    """Add normal noise to all features, of ``rate`` times the standard deviation that they have together."""
    _check_rate(rate, np.inf)
    x = _features(task)
    if rate == 0:
        return task
    return _with_features(task, x + rate * x.std() * np.asarray(jax.random.normal(key, x.shape)))


def mask_features(key: Array, task: NodeTask, rate: float) -> NodeTask:
    """Set each feature of each node to zero with probability ``rate``."""
    _check_rate(rate)
    x = _features(task)
    if rate == 0:
        return task
    return _with_features(task, np.where(jax.random.bernoulli(key, rate, x.shape), 0, x))


def _pairs(task: NodeTask) -> tuple[Any, np.ndarray, np.ndarray]:
    """Return the adjacency, and the pairs ``i < j`` (directed: all) between which there are edges."""
    a: Any = adjacency(task.graph)
    a.sort_indices()
    coo = a.tocoo()
    chosen = coo.row != coo.col if task.directed else coo.row < coo.col
    if not task.directed and (abs(a - a.T) > 1e-6 * abs(a).max() if a.nnz else a).nnz:
        raise ValueError("the graph has edges of one direction: make it undirected, or say directed=True")
    return a, coo.row[chosen].astype(np.int64), coo.col[chosen].astype(np.int64)


def _changed(task: NodeTask, a: Any, rows: Any, cols: Any, values: Any) -> NodeTask:
    """Return the task with other weights at some pairs, in both directions where it is undirected."""
    rows, cols, values = np.asarray(rows), np.asarray(cols), np.asarray(values, a.dtype)
    if not len(rows):
        return task
    if not task.directed:
        rows, cols, values = np.append(rows, cols), np.append(cols, rows), np.append(values, values)
    change = sp.csr_array((values - a[rows, cols], (rows, cols)), shape=a.shape)
    b: Any = sp.csr_array(a + change)
    b.data[np.abs(b.data) < 1e-6 * np.abs(a.data).max(initial=1.0)] = 0  # what rounding leaves of an edge
    return replace(task, graph=from_adjacency(b, task.graph.nodes))


def _typical(a: Any) -> float:
    """Return the weight of a new edge: the mean of the others."""
    return float(a.data.mean()) if a.nnz else 1.0


def add_edges(key: Array, task: NodeTask, rate: float) -> NodeTask:
    """Add ``rate`` times as many edges as there are, between random pairs of nodes without one.

    Of an undirected graph the edges are. A new edge weighs as much as the mean of the others; edge data
    other than weights is dropped.
    """
    _check_rate(rate, np.inf)
    a, rows, cols = _pairs(task)
    rng, count, size = _generator(key), int(rate * len(rows)), a.shape[0]
    free = size * (size - 1) // (1 if task.directed else 2) - len(rows)
    if count > free:
        raise ValueError(f"rate {rate} asks for {count} new edges, but only {free} pairs have none")
    new = _new_pairs(rng, size, count, taken=rows * size + cols, directed=task.directed)
    return _changed(task, a, new // size, new % size, np.full(len(new), _typical(a)))


def _new_pairs(
    rng: np.random.Generator, size: int, count: int, *, taken: Int[np.ndarray, " E"], directed: bool
) -> Int[np.ndarray, " m"]:
    """Draw codes ``i N + j`` of different pairs that are not taken, in random order."""
    if 4 * (count + len(taken)) > size * (size - 1) // 2:  # dense: all pairs at once
        codes = np.arange(size * size)
        i, j = codes // size, codes % size
        codes = codes[(i != j) if directed else (i < j)]
        return rng.permutation(np.setdiff1d(codes, taken))[:count]
    found = np.zeros(0, np.int64)
    while len(found) < count:
        i, j = rng.integers(0, size, (2, 2 * count + 16))
        keep = i != j
        low, high = (i, j) if directed else (np.minimum(i, j), np.maximum(i, j))
        drawn = np.append(found, (low * size + high)[keep])
        _, first = np.unique(drawn, return_index=True)
        found = drawn[np.sort(first)]
        found = found[~np.isin(found, taken)]
    return found[:count]


def remove_edges(key: Array, task: NodeTask, rate: float) -> NodeTask:
    """Remove a share ``rate`` of the edges, chosen at random."""
    _check_rate(rate)
    a, rows, cols = _pairs(task)
    chosen = _generator(key).permutation(len(rows))[: int(rate * len(rows))]
    return _changed(task, a, rows[chosen], cols[chosen], np.zeros(len(chosen)))


# --- an attack ----------------------------------------------------------------------------------


def _margin(logits: Float[Array, "N C"], labels: Int[Array, " N"]) -> Float[Array, " N"]:
    """Compute how far the best wrong class is ahead of the right one."""
    right = jax.nn.one_hot(labels, logits.shape[1], dtype=bool)
    return jnp.max(jnp.where(right, -jnp.inf, logits), axis=1) - jnp.sum(jnp.where(right, logits, 0), axis=1)


def _attacked(change, pairs, edges, x, labels, where, net, options):
    """Compute the loss where the weights of pairs change, in both directions."""
    senders, receivers, weights = edges
    i, j = pairs
    size = labels.shape[0]
    loops = jnp.arange(size, dtype=jnp.int32)
    own = jnp.full(size, float(options["self_loops"]), weights.dtype)
    a = from_coo(
        jnp.concatenate([senders, i, j, loops]),
        jnp.concatenate([receivers, j, i, loops]),
        jnp.concatenate([weights, change, change, own]),
        shape=(size, size),
    )
    how = options["normalize"]
    logits = net(a if how is None else normalize(a, how), x).logits
    margin = jnp.tanh(_margin(logits, labels))
    return jnp.sum(jnp.where(where, margin, 0)) / jnp.maximum(jnp.sum(where), 1)


@memoized
def _gradient(self_loops: bool, normalize: str | None):
    options = {"self_loops": self_loops, "normalize": normalize}
    return jax.jit(jax.grad(partial(_attacked, options=options)))


def attack_edges(
    key: Array,
    task: NodeTask,
    rate: float,
    *,
    attacked: Bool[np.ndarray, " N"] | None = None,
    surrogate: str | nn.Module = "sgc",
    rounds: int = 20,
    block: int = 100_000,
    config: EvalConfig = EvalConfig(steps=100, hidden=64, select_every=10),  # noqa: B008 - it is frozen
) -> NodeTask:
    """Flip the edges that harm a surrogate network most (greedy GR-BCD, see the module).

    The attacker sees everything: features, edges, and the labels of the nodes that it attacks. An existing
    edge is removed, a missing one gets the mean weight. In the inductive setting only edges among the
    attacked nodes are flipped, because nothing else of the graph is seen there.

    Args:
      key: Random key of the surrogate and of the blocks.
      task: Task of an undirected graph.
      rate: Flips for each edge of the graph (inductive: of the attacked part), rounded down.
      attacked: Nodes whose predictions are to become wrong; the test nodes by default.
      surrogate: Network that is attacked, whose logits depend smoothly on the weights of edges: neither gat
        nor mlp.
      rounds: Number of rounds; each spends an equal share of the budget.
      block: Number of candidate pairs of a round: all edges up to half of it, and random other pairs.
      config: How the surrogate is trained.

    Raises:
      ValueError: For a directed graph, a task without labelled nodes to attack, or an unfit surrogate.
    """
    _check_rate(rate)
    if task.directed:
        raise ValueError("the attack flips undirected edges: this task is directed")
    if rounds < 1 or block < 2:
        raise ValueError(f"rounds must be at least 1 and block at least 2, got {rounds} and {block}")
    need_classes(task, "the attack")
    attacked = as_mask("attacked", task.test if attacked is None else attacked, task.num_nodes, "nodes")
    labels = np.asarray(task.labels)
    if attacked is None or not np.any(np.asarray(attacked) & (labels >= 0)):
        raise ValueError(f"task {task.name!r} has no labelled test nodes to attack: say attacked=...")
    if rate == 0:
        return task
    k_net, k_block = jax.random.split(key)
    net: Bound = trained(task, task, network=surrogate, seeds=1, key=k_net, config=config)
    net = jax.tree.map(lambda leaf: leaf[0], net)
    if task.setting == "transductive":
        index, part = np.arange(task.num_nodes), task
    else:
        index, part = np.flatnonzero(attacked), task.induced(attacked)
    where = np.asarray(attacked)[index] & (labels[index] >= 0)
    module = network(surrogate, task, config)
    rows, cols, values = _flips(_generator(k_block), part, where, net, module, rate, rounds, block)
    return _changed(task, adjacency(task.graph), index[rows], index[cols], values)


def _flips(rng, part, where, net, module, rate, rounds, block):
    """Return the pairs whose edges are flipped, and their new weights."""
    a, rows, cols = _pairs(part)
    size, typical = a.shape[0], _typical(a)
    codes = rows * size + cols  # sorted, as the matrix is
    old = np.asarray(a[rows, cols], np.float32)
    budget = int(rate * len(codes))
    gradient = _gradient(bool(module.adjacency["self_loops"]), module.adjacency["normalize"])  # pyright: ignore
    x, labels, where = features_for(part.graph), jnp.asarray(part.labels), jnp.asarray(where)
    coo = a.tocoo()
    edges = [np.asarray(coo.col, np.int32), np.asarray(coo.row, np.int32), np.asarray(coo.data, np.float32)]
    free = size * (size - 1) // 2 - len(codes)
    present = min(len(codes), block // 2)
    absent = min(free, block - present)
    flipped, changes = np.zeros(0, np.int64), np.zeros(0, np.float32)
    for number in range(rounds):
        share = (number + 1) * budget // rounds - len(flipped)
        if not share:
            continue
        kept = rng.permutation(codes)[:present]
        other = _new_pairs(rng, size, absent, taken=codes, directed=False)
        pairs = np.append(kept, other)
        change = np.append(-old[np.searchsorted(codes, kept)], np.full(len(other), typical, np.float32))
        slots = np.zeros((2, budget), np.int64), np.zeros(budget, np.float32)  # of one shape in all rounds
        slots[0][:, : len(flipped)] = flipped // size, flipped % size
        slots[1][: len(flipped)] = changes
        i, j = (np.append(slots[0][n], (pairs // size, pairs % size)[n]).astype(np.int32) for n in (0, 1))
        start = np.append(slots[1], np.zeros(len(pairs), np.float32))
        slope = gradient(jnp.asarray(start), (i, j), tuple(edges), x, labels, where, net)
        if not np.any(slope):
            raise ValueError("the surrogate does not depend on the weights of edges: choose another")
        gain = np.asarray(slope)[budget:] * change
        gain[np.isin(pairs, flipped)] = -np.inf  # an edge is flipped once
        top = np.argsort(-gain, kind="stable")[:share]
        top = top[gain[top] > -np.inf]
        flipped, changes = np.append(flipped, pairs[top]), np.append(changes, change[top])
    there = np.isin(flipped, codes)
    return flipped // size, flipped % size, np.where(there, 0.0, typical)


CORRUPTIONS: dict[str, Corruption] = {
    "more edges": add_edges,
    "fewer edges": remove_edges,
    "noisy features": noisy_features,
    "missing features": mask_features,
    "attacked edges": attack_edges,
}
"""The corruptions by their effect."""


# --- before and after condensing ----------------------------------------------------------------------------


_accuracies = jax.jit(jax.vmap(score, in_axes=(0, None)))


def evasion(
    small: Condensed | NodeTask,
    task: NodeTask,
    corrupt: Corruption,
    rates: Sequence[float] = (0.0, 0.1, 0.2, 0.4),
    *,
    networks: Sequence[str] = ("gcn",),
    seeds: int = 5,
    key: Array | None = None,
    config: EvalConfig = NODES.config,
) -> dict[float, dict[str, Float[np.ndarray, " seeds"]]]:
    """Measure test accuracy on corrupted graphs of networks that were trained and selected on clean data.

    The networks are trained once; every rate draws its corruption from a key of its own.

    Args:
      small: A condensed set, or the task itself.
      task: Clean task.
      corrupt: Corruption, e.g. one of `CORRUPTIONS`.
      rates: Rates of the corruption.
      networks: Architectures, see `evaluate`.
      seeds: Number of networks of each architecture.
      key: Random key; 0 by default.
      config: How they are trained.

    Returns:
      ``{rate: {model: accuracies}}``.
    """
    k_net, *k_rates = jax.random.split(jax.random.key(0) if key is None else key, 1 + len(rates))
    nets = {m: trained(small, task, network=m, seeds=seeds, key=k_net, config=config) for m in networks}
    found: dict[float, dict[str, Any]] = {}
    for k, rate in zip(k_rates, rates, strict=True):
        bad = corrupt(k, task, rate)
        found[rate] = {}
        for name, net in nets.items():
            test = real(bad, "test", network(name, task, config))
            found[rate][name] = np.asarray(_accuracies(net, test))
    return found


def poisoning(
    recipe: Recipe,
    task: NodeTask,
    corrupt: Corruption,
    rates: Sequence[float] = (0.0, 0.1, 0.2, 0.4),
    *,
    tested: Literal["clean", "corrupted"] | None = None,
    networks: Sequence[str] = ("gcn",),
    seeds: int = 5,
    key: Array | None = None,
    config: EvalConfig = NODES.config,
    loop: Loop = in_memory,
) -> dict[float, dict[str, Float[np.ndarray, " seeds"]]]:
    """Measure test accuracy of networks trained on sets that a recipe condenses from corrupted graphs.

    Args:
      recipe: Condenser; it draws from the same key at every rate.
      task: Clean task.
      corrupt: Corruption, e.g. one of `CORRUPTIONS`.
      rates: Rates of the corruption.
      tested: Graph that selects and tests the networks; by default the corrupted one in the transductive
        setting, where there is no other, and the clean one in the inductive setting.
      networks: Architectures, see `evaluate`.
      seeds: Number of networks of each architecture.
      key: Random key; 0 by default.
      config: How they are trained.
      loop: Loop of the recipe.

    Returns:
      ``{rate: {model: accuracies}}``.
    """
    if tested is None:
        tested = "corrupted" if task.setting == "transductive" else "clean"
    keys = jax.random.split(jax.random.key(0) if key is None else key, 2 + len(rates))
    k_recipe, k_net, k_rates = keys[0], keys[1], keys[2:]
    found: dict[float, dict[str, Any]] = {}
    for k, rate in zip(k_rates, rates, strict=True):
        bad = corrupt(k, task, rate)
        small: Condensed = recipe(k_recipe, bad, loop=loop)
        on = bad if tested == "corrupted" else task
        scores = evaluate(small, on, networks=networks, seeds=seeds, key=k_net, config=config)
        found[rate] = {name: one.seeds() for name, one in scores.items()}
    return found
