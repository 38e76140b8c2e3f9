"""One graph of the events of a log, and some of its graphs."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

import jraph
import numpy as np
from jaxtyping import Int

from jgd.data.tasks import EventLog
from jgd.graph import from_edges

__all__ = ["ProvenanceGraph", "events_to_graph", "subset"]


class ProvenanceGraph(NamedTuple):
    """Entities and the events between them, as `events_to_graph` returns them.

    Attributes:
      graph: Directed edges from actor to object, weighted by the number of events; nodes are None.
      documents: Words of the events of each node in order of time, whether it is their actor or their object.
      types: Name of the type of each node.
      ids: Name of each node.
      graph_id: Graph of each node, ``[N]``. Nodes of one graph follow each other.
    """

    graph: jraph.GraphsTuple
    documents: list[list[str]]
    types: list[str]
    ids: list[str]
    graph_id: Int[np.ndarray, " N"]


def events_to_graph(events: EventLog, kinds: Collection[str] | None = None) -> ProvenanceGraph:
    """Build one graph of all entities that took part in an event.

    Events with an endpoint of unknown type are left out, repeated events (equal in everything, time included)
    count once, and edges between the same two nodes become one with a weight.

    Args:
      events: Log. The words of an event are those of the log; where it has none, the actor's
        attribute ``"exec"``, the action and the object's attribute ``"path"``, as far as they exist.
      kinds: Types of entities to keep; None keeps all.

    Raises:
      ValueError: If columns differ in length, or no event is left.
    """
    lengths = {len(events.actor), len(events.action), len(events.object), len(events.time)}
    if len(lengths) != 1:
        raise ValueError(f"the columns of an event log must be equally long, got {sorted(lengths)}")
    group = np.zeros(len(events.actor), np.int64) if events.graph_id is None else np.asarray(events.graph_id)
    words = _words(events)
    if len(words) != len(events.actor) or len(group) != len(events.actor):
        raise ValueError("an event log needs the words and the graph of every event, or of none")

    def known(entity: str) -> bool:
        return entity in events.types and (kinds is None or events.types[entity] in kinds)

    index: dict[tuple[int, str], int] = {}
    documents: list[list[str]] = []
    weights: dict[tuple[int, int], int] = {}
    seen = set()
    for i in np.lexsort((np.asarray(events.time), group)):
        actor, target, number = events.actor[i], events.object[i], int(group[i])
        event = (number, actor, target, events.action[i], int(events.time[i]), words[i])
        if not (known(actor) and known(target)) or event in seen:
            continue
        seen.add(event)
        ends = []
        for entity in (actor, target):
            node = index.setdefault((number, entity), len(index))
            if node == len(documents):
                documents.append([])
            documents[node].extend(words[i])
            ends.append(node)
        weights[ends[0], ends[1]] = weights.get((ends[0], ends[1]), 0) + 1
    if not index:
        raise ValueError("no event has two endpoints of a known type: there is no graph to make")
    pairs = np.asarray(list(weights), np.int64)
    graph = from_edges(
        pairs[:, 0],
        pairs[:, 1],
        edges=np.asarray(list(weights.values()), np.float32),
        num_nodes=len(index),
    )
    return ProvenanceGraph(
        graph=graph,
        documents=documents,
        types=[events.types[entity] for _, entity in index],
        ids=[entity for _, entity in index],
        graph_id=np.asarray([number for number, _ in index], np.int64),
    )


def subset(log: EventLog, graphs: Iterable[int | str]) -> EventLog:
    """Return the events of some graphs, numbered from 0 in the order given.

    Args:
      log: Log of several graphs.
      graphs: Numbers or names of the graphs to keep.

    Raises:
      ValueError: If the log has one graph only, or a graph is unknown or given twice.
    """
    if log.graph_id is None:
        raise ValueError("the log has one graph only: there is nothing to choose from")
    names = {name: number for number, name in enumerate(log.graphs)}
    chosen = [names.get(graph, -1) if isinstance(graph, str) else int(graph) for graph in graphs]
    if len(set(chosen)) != len(chosen) or any(not 0 <= number < len(log.graphs) for number in chosen):
        raise ValueError(f"graphs must be among the {len(log.graphs)} of the log, each once")
    new = np.full(len(log.graphs), -1)
    new[chosen] = np.arange(len(chosen))
    rows = np.flatnonzero(new[log.graph_id] >= 0)
    actor, target = [log.actor[i] for i in rows], [log.object[i] for i in rows]
    entities = {*actor, *target}
    return EventLog(
        actor=actor,
        action=[log.action[i] for i in rows],
        object=target,
        time=log.time[rows],
        types={entity: log.types[entity] for entity in log.types if entity in entities},
        attributes={entity: log.attributes[entity] for entity in log.attributes if entity in entities},
        graph_id=new[log.graph_id[rows]],
        malicious=log.malicious & entities,
        name=log.name,
        words=[log.words[i] for i in rows],
        graphs=[log.graphs[number] for number in chosen],
    )


def _words(events: EventLog) -> list[tuple[str, ...]]:
    if events.words:
        return events.words

    def attribute(entity, name):
        return events.attributes.get(entity, {}).get(name, "")

    columns = zip(events.actor, events.action, events.object, strict=True)
    full = ((attribute(a, "exec"), action, attribute(o, "path")) for a, action, o in columns)
    return [tuple(word for word in words if word) for words in full]
