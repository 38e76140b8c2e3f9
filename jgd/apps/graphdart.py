r"""GraphDART: intrusion detection on provenance graphs, trained on a distilled graph.

Rabooki et al., "GraphDART: Graph Distillation for Efficient Advanced Persistent Threat Detection", 2025
(arXiv 2501.02796), with the detector of FLASH (Rehman, Ahmadi and Hassan, IEEE S&P 2024).

The one new idea: a detector learns normal behaviour from a huge benign graph, and any condenser of node
classification can shrink that graph first, because the detector's task *is* node classification: predict the
kind of a node (process, file, socket, ...) from its events. A node whose kind no model can predict is an
alarm.

1. graph       entities and their events, ``A[object, actor]`` the number of events (`events_to_graph`)
2. features    ``x_v = mean_t (word vector + PE(t))`` over the words of the node's events (`jgd.text`)
3. distil      ``(X', A', y') = condenser(X, A, y)`` with y the kinds, all nodes training nodes
4. detector    ``h = norm(W_1 x_v + W_2 mean_{u -> v} x_u + b)``, ReLU, dropout, once more: logits of norm one
5. rounds      m = 1 .. M: train on the nodes that are not explained; keep θ_m; a node is explained once θ_m
               predicts its kind, or (rule "or") / and (rule "and") its confidence ``(p_1 - p_2) / p_1``,
               scaled to 0..1 over the nodes that are not, is at least .9
6. detect      alarm(v) iff no θ_m predicts y_v;  graph alarm iff it holds more alarms than a threshold

A distilled graph has so few nodes that boosting on them would end after one or two rounds. Therefore the
benign nodes of the original graph decide the rounds, by inference: each is represented by the nearest
condensed node of its kind, and the weight of a condensed node in the loss is the number of unexplained nodes
that it represents. Edges between condensed nodes are, by default, the sums of those between the nodes that
they represent: neighbours of a process are files, so A' = I, or a coreset that lost its neighbours, would
train W_2 on inputs that do not occur. A node that was kept represents itself, so a coreset of all nodes is
the full detector, to the bit.

Departures. FLASH applies softmax in the network and again in the loss; here the network returns logits. FLASH
scales confidence within each mini-batch, by the maximum before the shift; here it is scaled over all nodes,
to 0..1. One epoch of mini-batches of 5000 with whole neighbourhoods becomes a number of full-batch steps, and
the loss covers the nodes of the round only, without their neighbours. If a condenser loses a kind, the mean
of its nodes is added. Weights of a condenser are replaced by the counts. No code of GraphDART is public, so
the pipeline follows the paper's description.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import jraph
import numpy as np
import optax
import scipy.sparse as sp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Shaped
from sklearn.metrics import pairwise_distances_argmin

from jgd.condense.common import check_settings
from jgd.core import (
    Algorithm,
    Bound,
    Context,
    Examples,
    Loop,
    Outputs,
    Recipe,
    from_linen,
    in_memory,
    objective,
    train,
)
from jgd.core.memo import memoized
from jgd.data import Condensed, EventLog, NodeTask
from jgd.data.system_logs import ProvenanceGraph, events_to_graph
from jgd.graph import Operator, adjacency, from_adjacency, induced_subgraph, operator
from jgd.losses import cross_entropy, mean
from jgd.nn import Dropout, Linear
from jgd.text import WordVectors, encode_documents, ppmi_vectors

__all__ = [
    "Detector",
    "Findings",
    "GraphDART",
    "OFFICIAL",
    "TypeNet",
    "alarms",
    "count_threshold",
    "explained",
    "graph_alarms",
    "official",
    "representatives",
    "type_task",
]

Rule = Literal["or", "and"]
Edges = Literal["coarsened", "own"]

_DENSE = 1024  # nodes up to which a graph is dense: faster, and one compilation for all graphs of a size


# --- the network --------------------------------------------------------------------------------


class _Layer(nn.Module):
    """Layer ``normalize(W_1 x_v + W_2 mean_{u -> v} x_u + b)``; a row of zeros stays zero."""

    features: int

    @nn.compact
    def __call__(self, a: Operator, x: Float[Array, "N F"]) -> Float[Array, "N {self.features}"]:
        y = Linear(self.features, name="own")(x)
        y = y + a @ Linear(self.features, use_bias=False, name="neighbours")(x)
        square = jnp.sum(y**2, axis=-1, keepdims=True)
        return jnp.where(square > 0, y * jax.lax.rsqrt(jnp.where(square > 0, square, 1.0)), 0.0)


class TypeNet(nn.Module):
    """FLASH's network: two GraphSAGE layers with normalised outputs, so logits are between -1 and 1.

    Attributes:
      num_classes: Number of kinds of nodes.
      hidden: Width of the first layer.
      dropout: Dropout rate between the layers.
    """

    num_classes: int
    hidden: int = 32
    dropout: float = 0.5

    @nn.compact
    def __call__(self, a: Operator, x: Float[Array, "N F"], *, train: bool = False) -> Outputs:
        """Classify nodes; ``a`` averages over senders (``normalize="row"``)."""
        h = nn.relu(_Layer(self.hidden)(a, x))
        dropped: Any = Dropout(self.dropout)(h, train=train)
        return Outputs(_Layer(self.num_classes)(a, dropped), h)


# --- boosted rounds -----------------------------------------------------------------------------


def explained(
    logits: Float[Array, "N C"],
    types: Int[Array, " N"],
    mask: Bool[Array, " N"],
    rule: Rule = "or",
    confidence: ArrayLike = 0.9,
) -> Bool[Array, " N"]:
    """Return the nodes that a model explains: their kind is predicted, or (and) the prediction is confident.

    Args:
      logits: Logits of the model.
      types: Kind of each node.
      mask: Mask of the nodes not explained before, over which confidence is scaled to 0..1.
      rule: Combination of the two conditions.
      confidence: Least scaled confidence that counts; above 1 only the prediction counts (rule ``"or"``).
    """
    right = jnp.argmax(logits, -1) == types
    top = jax.lax.top_k(jax.nn.softmax(logits), min(2, logits.shape[-1]))[0]
    margin = (top[:, 0] - top[:, -1]) / top[:, 0]
    low = jnp.min(margin, where=mask, initial=jnp.inf)
    high = jnp.max(margin, where=mask, initial=-jnp.inf)
    scaled = jnp.where(high > low, (margin - low) / jnp.where(high > low, high - low, 1.0), 0.0)
    sure = scaled >= confidence
    return (right & sure) if rule == "and" else (right | sure)


class Benign(NamedTuple):
    """Data of the rounds.

    Attributes:
      small: Examples to train on.
      real: Original benign nodes.
      represents: ``[N]`` node of ``small`` that represents each original node.
    """

    small: Examples
    real: Examples
    represents: Int[Array, " N"]


class Rounds(NamedTuple):
    """State of the boosted rounds: the training state, the nodes not yet explained, and θ_1 .. θ_M."""

    inner: Any
    mask: Bool[Array, " N"]
    models: Any


def _loss(ctx: Context) -> Array:
    return mean(cross_entropy(ctx.outputs["model"].logits, ctx.batch.targets), ctx.batch.weights)


@memoized
def _boosted(settings: _Settings) -> Algorithm:
    """Train one network on the nodes that it has not explained, and keep its state after every round.

    The product is a `Bound` whose parameters have a leading axis of rounds. Training ends early once all
    nodes are explained; the remaining rounds then repeat the last model, which changes no alarm.
    """
    model = from_linen(TypeNet(settings.num_classes, settings.hidden, settings.dropout))
    l2: Any = optax.add_decayed_weights(settings.weight_decay)
    alg = train(model, objective(_loss), optax.chain(l2, optax.adam(settings.learning_rate)))

    def weighted(data, mask):
        """Return the condensed examples, weighted by the number of nodes of ``mask`` that each represents."""
        left = jax.ops.segment_sum(mask.astype(float), data.represents, data.small.targets.shape[0])
        return data.small._replace(weights=left)

    def init(key, data, batch):
        inner = alg.init(key, data.small, batch)
        first = inner.params["model"]
        models = jax.tree.map(lambda p: jnp.broadcast_to(p, (settings.rounds, *p.shape)) + 0, first)
        return Rounds(inner, data.real.targets >= 0, models)

    def step(key, t, state, data, batch):
        inner, metrics = alg.step(key, t, state.inner, weighted(data, state.mask), batch)

        def look(operand):
            mask, models = operand
            net = alg.result(inner, data.small)
            seen = explained(
                net(*data.real.inputs).logits, data.real.targets, mask, settings.rule, settings.confidence
            )
            # This round and later ones, as long as some nodes were not explained.
            due = (jnp.arange(settings.rounds) >= t // settings.steps) & jnp.any(mask)
            models = jax.tree.map(
                lambda old, new: jnp.where(due.reshape(-1, *(1,) * new.ndim), new, old), models, net.params
            )
            return mask & ~seen, models

        at_end = (t + 1) % settings.steps == 0
        mask, models = jax.lax.cond(at_end, look, lambda operand: operand, (state.mask, state.models))
        metrics = {**metrics, "unexplained": jnp.mean(mask.astype(float)), "done": ~jnp.any(mask)}
        return Rounds(inner, mask, models), metrics

    def result(state, data):
        return Bound(state.models, alg.result(state.inner, data.small).state, model)

    return Algorithm(init, step, result)


class _Settings(NamedTuple):
    num_classes: int
    hidden: int
    dropout: float
    learning_rate: float
    weight_decay: float
    rounds: int
    steps: int
    rule: Rule
    confidence: float


@jax.jit
def _cleared(models: Bound, a: Operator, x: Array, types: Array, confidence: Array) -> Array:
    """Return whether any of the models predicts each node's kind; one after the other, to save memory."""

    def one(found, params):
        logits = models.model.apply(params, models.state, a, x)[0].logits
        return found | explained(logits, types, types >= 0, "and", confidence), None

    return jax.lax.scan(one, jnp.zeros(types.shape, bool), models.params)[0]


def alarms(
    models: Bound, graph: jraph.GraphsTuple, types: Shaped[np.ndarray, " N"], clear: float = 0.0
) -> Bool[np.ndarray, " N"]:
    """Return the nodes whose kind no model predicts. A negative kind (unknown, or padding) is never an alarm.

    Args:
      models: Parameters with a leading axis of rounds, as `GraphDART.fit` returns them.
      graph: Graph with features as nodes and weights as edges; may be padded.
      types: Kind of each node.
      clear: Scaled confidence that a right prediction must reach, see `explained`.
    """
    cleared = _cleared(
        models, _mean_operator(graph), jnp.asarray(graph.nodes), jnp.asarray(types), jnp.asarray(clear)
    )
    return np.asarray((np.asarray(types) >= 0) & ~np.asarray(cleared))


def graph_alarms(
    alarm: Shaped[np.ndarray, " N"], graph_id: Shaped[np.ndarray, " N"], threshold: float, count: int = 0
) -> tuple[Bool[np.ndarray, " G"], Int[np.ndarray, " G"]]:
    """Return the graphs that hold more alarms than ``threshold``, and the number of alarms of each.

    Args:
      alarm: Mask of the nodes that are alarms.
      graph_id: Number of each node's graph.
      threshold: Largest number of alarms of a graph that is no alarm itself.
      count: Number of graphs, required if the last ones have no node.
    """
    counts = np.bincount(np.asarray(graph_id)[np.asarray(alarm)], minlength=max(count, graph_id.max() + 1))
    return counts > threshold, counts


def count_threshold(counts: Shaped[np.ndarray, " G"], false_alarms: float = 0.0) -> float:
    """Return the least number of alarms that only a share ``false_alarms`` of benign graphs exceeds.

    Args:
      counts: Number of alarms of each benign graph.
      false_alarms: Share of the graphs that may exceed the threshold.
    """
    return float(np.quantile(counts, 1 - false_alarms, method="inverted_cdf"))


# --- from events to a task ----------------------------------------------------------------------


def type_task(
    found: ProvenanceGraph,
    vectors: WordVectors,
    kinds: Sequence[str],
    *,
    positions: bool = True,
    directed: bool = True,
    name: str = "provenance",
) -> NodeTask:
    """Build the task of predicting the kind of each node; all nodes are training nodes.

    Args:
      found: Graph with its documents.
      vectors: Vectors of the words, learned from benign documents only.
      kinds: Names of the classes; a node of another kind has label -1 and is in no split.
      positions: Whether to encode positions.
      directed: Whether edges run from actor to object only; if false, they run back as well.
      name: Name of the task.
    """
    number = {kind: i for i, kind in enumerate(kinds)}
    labels = np.asarray([number.get(kind, -1) for kind in found.types], np.int32)
    graph = found.graph._replace(nodes=encode_documents(vectors, found.documents, positions))
    if not directed:
        a: Any = adjacency(graph)
        graph = from_adjacency(sp.csr_array(a + a.T), graph.nodes)
    return NodeTask(
        graph=graph,
        labels=labels,
        train=labels >= 0,
        num_classes=len(kinds),
        name=name,
        directed=directed,
    )


def _mean_operator(graph: jraph.GraphsTuple) -> Operator:
    """Return the operator that averages over senders, dense where the graph is small."""
    matrix: Any = adjacency(graph)
    if matrix.shape[0] <= _DENSE:
        matrix = np.asarray(matrix.toarray(), np.float32)
    return operator(matrix, normalize="row")


# --- distillation -------------------------------------------------------------------------------


def representatives(
    x: Float[np.ndarray, "N F"],
    types: Int[np.ndarray, " N"],
    small_x: Float[np.ndarray, "n F"],
    small_types: Int[np.ndarray, " n"],
    index: Int[np.ndarray, " m"] | None = None,
) -> Int[np.ndarray, " N"]:
    """Find the condensed node that represents each original one: itself if kept, else the nearest of a kind.

    Args:
      x: Original features.
      types: Original kinds; a node of unknown kind (-1) is stood for by the nearest of any kind.
      small_x: Condensed features.
      small_types: Condensed kinds, among them every kind of ``types``.
      index: Original node of each of the first condensed ones, if the condenser chose nodes.
    """
    result = np.zeros(len(x), np.int64)
    for kind in np.unique(types):
        candidates = np.flatnonzero(small_types == kind) if kind >= 0 else np.arange(len(small_x))
        if not len(candidates):
            raise ValueError(f"kind {kind} has no condensed node")
        members = np.flatnonzero(types == kind)
        result[members] = candidates[pairwise_distances_argmin(x[members], small_x[candidates])]
    if index is not None:  # further condensed nodes may follow the chosen ones
        result[index] = np.arange(len(index))
    return result


class Distilled(NamedTuple):
    """Condensed graph of the detector, kinds of its nodes, and the node that represents each original."""

    graph: jraph.GraphsTuple
    targets: np.ndarray
    represents: np.ndarray


def _distilled(small: Condensed, task: NodeTask, edges: Edges) -> Distilled:
    """Return a condensed graph with nodes of every kind, and the node that represents each original one."""
    if small.training.preprocess or small.training.predictor:
        raise ValueError(
            "this condensed set is meant for changed data or its own predictor, not for GraphSAGE"
        )
    x, types = np.asarray(task.graph.nodes, np.float32), np.asarray(task.labels)
    index = small.extras.get("index")
    graph, targets = small.data, np.asarray(small.targets)
    if index is not None:  # in the order of the original, so that all nodes are the original graph
        order = np.argsort(index, kind="stable")
        graph, targets, index = induced_subgraph(graph, order), targets[order], np.asarray(index)[order]
    if small.training.targets == "logits":
        targets = np.asarray(jax.nn.softmax(targets))
    hard = targets if targets.ndim == 1 else targets.argmax(1)
    own: Any = sp.eye_array(len(hard)) if small.training.adjacency == "identity" else adjacency(graph)
    nodes = np.asarray(graph.nodes, np.float32)
    lost = np.setdiff1d(types[types >= 0], hard)
    if lost.size:  # one node for every lost kind, without edges
        means = np.stack([x[types == kind].mean(0) for kind in lost])
        extra = lost if targets.ndim == 1 else np.eye(task.num_classes)[lost]
        nodes = np.concatenate([nodes, means]).astype(np.float32)
        targets, hard = np.concatenate([targets, extra]), np.concatenate([hard, lost])
        own = sp.block_diag([own, sp.csr_array((len(lost), len(lost)))])
    represents = representatives(x, types, nodes, hard.astype(np.int64), index)
    matrix = sp.csr_array(own)
    if edges == "coarsened":
        to = sp.csr_array((np.ones(len(x)), (represents, np.arange(len(x)))), shape=(len(hard), len(x)))
        matrix = sp.csr_array(to @ adjacency(task.graph) @ to.T)
    dtype = np.int32 if targets.ndim == 1 else np.float32
    graph = from_adjacency(matrix, nodes)
    return Distilled(graph, targets.astype(dtype), represents)


# --- the system ---------------------------------------------------------------------------------


class Findings(NamedTuple):
    """Findings of a detector in a log.

    Attributes:
      alarm: ``[N]`` nodes whose kind no model predicts.
      graph_alarm: ``[G]`` graphs with more alarms than the detector's threshold.
      counts: ``[G]`` alarms in each graph.
      found: Graph, its documents and the names of its nodes.
    """

    alarm: Bool[np.ndarray, " N"]
    graph_alarm: Bool[np.ndarray, " G"]
    counts: Int[np.ndarray, " G"]
    found: ProvenanceGraph

    @property
    def entities(self) -> list[str]:
        """Names of the nodes that are alarms."""
        return [name for name, alarm in zip(self.found.ids, self.alarm, strict=True) if alarm]


@dataclass(frozen=True)
class Detector:
    """Trained detector, called with a log.

    Attributes:
      models: Networks, with a leading axis of rounds.
      vectors: Vectors of the words.
      kinds: Names of the classes.
      positions: Whether features encode positions.
      directed: Whether edges run from actor to object only.
      clear: Scaled confidence that clears a node whose kind is predicted.
      threshold: Largest number of alarms of a graph that is no alarm itself.
      condensed: Condensed graph that it was trained on, or None for the whole graph.
    """

    models: Bound
    vectors: WordVectors
    kinds: tuple[str, ...]
    positions: bool = True
    directed: bool = True
    clear: float = 0.0
    threshold: float = 0.0
    condensed: Condensed | None = None

    def __call__(self, events: EventLog) -> Findings:
        """Find alarms in a log; entities of a kind that training did not have are left out."""
        found = events_to_graph(events, self.kinds)
        task = type_task(found, self.vectors, self.kinds, positions=self.positions, directed=self.directed)
        alarm = alarms(self.models, task.graph, task.labels, self.clear)
        count = 1 if events.graph_id is None else int(np.max(events.graph_id)) + 1
        return Findings(alarm, *graph_alarms(alarm, found.graph_id, self.threshold, count), found)


@dataclass(frozen=True)
class GraphDART:
    """Recipe that distils a benign log with any condenser and trains FLASH's detector on the result.

    Attributes:
      condenser: Recipe of `jgd.condense`, or None for the whole graph.
      edges: Edges of the condensed graph: ``"coarsened"`` sums the original edges between the nodes that
        condensed nodes represent, so that means over neighbours survive whatever edges the condenser returns;
        ``"own"`` takes the condenser's.
      size: Length of a word vector.
      window: Number of words on either side that count as context.
      positions: Whether to encode positions of words.
      directed: Whether edges run from actor to object only, as in FLASH; if false, they run back as well.
      hidden: Width of the detector.
      dropout: Dropout rate between the layers of the detector.
      learning_rate: Learning rate of Adam.
      weight_decay: Coefficient of the L2 term.
      rounds: Largest number ``M`` of rounds. FLASH uses 13 to 22 for hundreds of thousands of nodes and one
        for many small graphs; every further round explains more nodes, attacks included, so small logs need
        few.
      steps: Number of full-batch steps in a round.
      rule: Combination of prediction and confidence: ``"or"``, or ``"and"`` as FLASH has it for Trace.
      confidence: Least scaled confidence that explains a node.
      clear: Scaled confidence that a right prediction must reach in detection.
      false_alarms: Share of the benign validation graphs that may be alarms.
    """

    condenser: Any = None
    edges: Edges = "coarsened"
    size: int = 30
    window: int = 5
    positions: bool = True
    directed: bool = True
    hidden: int = 32
    dropout: float = 0.5
    learning_rate: float = 0.01
    weight_decay: float = 5e-4
    rounds: int = 1
    steps: int = 200
    rule: Rule = "or"
    confidence: float = 0.9
    clear: float = 0.0
    false_alarms: float = 0.05

    def __post_init__(self):
        """Refuse impossible settings."""
        check_settings(
            self,
            at_least_one=("size", "window", "hidden", "rounds", "steps"),
        )
        for name in ("dropout", "false_alarms"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if self.condenser is not None and not callable(self.condenser):
            raise ValueError(
                f"condenser must be a recipe such as jgd.condense.herding(), got {self.condenser!r}"
            )

    def __call__(
        self, key: Array, benign: EventLog, validation: EventLog | None = None, loop: Loop = in_memory
    ) -> Detector:
        """Train a detector.

        Args:
          key: Random key.
          benign: Events before any attack, the only source of words, kinds and networks.
          validation: Further benign events, by which the threshold of a graph is chosen: the least number of
            alarms that all but a share ``false_alarms`` of its graphs do not exceed. Without them it is 0.
          loop: Loop that runs the stages.
        """
        found = events_to_graph(benign)
        kinds = tuple(sorted(set(found.types)))
        vectors = ppmi_vectors(found.documents, size=self.size, window=self.window)
        task = type_task(found, vectors, kinds, positions=self.positions, directed=self.directed)
        models, small = self.fit(key, task, loop)
        detector = Detector(
            models, vectors, kinds, self.positions, self.directed, self.clear, condensed=small
        )
        if validation is None:
            return detector
        counts = detector(validation).counts
        return replace(detector, threshold=count_threshold(counts, self.false_alarms))

    def fit(self, key: Array, task: NodeTask, loop: Loop = in_memory) -> tuple[Bound, Condensed | None]:
        """Distil a task of `type_task` and train the rounds on it.

        The key of the rounds does not depend on the condenser.

        Args:
          key: Random key.
          task: Task of the benign graph.
          loop: Loop that runs the stages.

        Returns:
          The networks, and the condensed graph that they were trained on (None for the whole graph).
        """
        k_condense, k_train = jax.random.split(key)
        small = None if self.condenser is None else self._condense(k_condense, task, loop)
        return self.train(k_train, task, small, loop), small

    def _condense(self, key: Array, task: NodeTask, loop: Loop) -> Condensed:
        recipe: Recipe = self.condenser
        return recipe(key, task, loop)

    def train(
        self, key: Array, task: NodeTask, small: Condensed | None = None, loop: Loop = in_memory
    ) -> Bound:
        """Train the rounds on a condensed set or on the whole task."""
        types = np.asarray(task.labels)
        if small is None:
            whole = Distilled(task.graph, types.astype(np.int32), np.arange(len(types)))
        else:
            whole = _distilled(small, task, self.edges)
        data = Benign(
            small=Examples(
                (_mean_operator(whole.graph), jnp.asarray(whole.graph.nodes)),
                jnp.asarray(whole.targets),
            ),
            real=Examples(
                (_mean_operator(task.graph), jnp.asarray(task.graph.nodes)), jnp.asarray(types, jnp.int32)
            ),
            represents=jnp.asarray(whole.represents, jnp.int32),
        )
        alg = _boosted(
            _Settings(
                task.num_classes,
                self.hidden,
                self.dropout,
                self.learning_rate,
                self.weight_decay,
                self.rounds,
                self.steps,
                self.rule,
                self.confidence,
            )
        )
        return loop("detector", alg, key, data, self.rounds * self.steps)


OFFICIAL: dict[str, dict[str, Any]] = {
    "cadets": {"rounds": 22, "steps": 50},
    "theia": {"rounds": 20, "steps": 50, "clear": 0.53},
    "trace": {"rounds": 10, "steps": 50, "rule": "and"},  # twenty rounds are trained, ten are used
    "fivedirections": {"rounds": 13, "steps": 50, "clear": 0.94},
    "streamspot": {"window": 10, "rounds": 1, "steps": 300},
}
"""Settings of FLASH that differ from the defaults, by data set; ``steps`` is about its mini-batches."""


def official(dataset: str, condenser: Any = None) -> GraphDART:
    """Return GraphDART with FLASH's settings for a data set.

    Args:
      dataset: Name of the data set.
      condenser: Recipe of `jgd.condense`, or None for the whole graph.

    Raises:
      ValueError: Unknown data set.
    """
    if dataset not in OFFICIAL:
        raise ValueError(f"there are settings for {', '.join(OFFICIAL)}, not for {dataset!r}")
    return GraphDART(condenser=condenser, **OFFICIAL[dataset])
