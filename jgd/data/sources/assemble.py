"""Tasks from the output of a reader: labels, splits, features, and one line for each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jraph
import numpy as np

from jgd.data.checks import Labels, as_labels, as_mask
from jgd.data.prepare import complete_splits
from jgd.data.sources.columns import Columns, features, is_number, standardized
from jgd.data.storage import DataError
from jgd.data.tasks import ArrayTask, GraphTask, NodeTask
from jgd.graph import from_edges, to_undirected

__all__ = ["Found", "Options", "array_task", "graph_task", "node_task", "splits_of", "weights_of"]


class Found(NamedTuple):
    """Task that a reader made of a file.

    Attributes:
      task: Task.
      notes: One line for each thing that was mapped, generated or left out.
    """

    task: Any
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Options:
    """Options of the readers of a user's own data.

    Attributes:
      label: Column, attribute or array of the labels; None for the one called label, y, class or target.
      split: Fractions of training, validation and test rows, which replace a split in the file. None keeps
        that one, and draws missing parts by 60, 20 and 20 %, class by class; every class has a training row.
      seed: Seed of a split that is drawn.
      undirected: Whether the reverse of every edge is added. By default edges have the directions of the
        file: one direction where a table or an array lists one.
      missing: Treatment of empty cells: ``"refuse"``, or ``"impute"``: the mean of the training rows for a
        number, no indicator for a text.
      standardize: Whether each number has its mean subtracted and is divided by its standard deviation, both
        of the training rows.
      ignore: Columns or attributes to leave out.
      size: Pixels in each direction that images are resized to.
      grey: Whether images have one channel instead of three.
    """

    label: str | None = None
    split: Sequence[float] | None = None
    seed: int = 0
    undirected: bool = False
    missing: Literal["refuse", "impute"] = "refuse"
    standardize: bool = False
    ignore: tuple[str, ...] = ()
    size: int | None = None
    grey: bool = False


@dataclass
class Draft:
    """Parts of a task before it is made: name, source, options, targets, masks and notes."""

    name: str
    source: str
    options: Options
    y: Any
    masks: Mapping[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def splits_of(table: Columns) -> tuple[list[str], dict[str, np.ndarray]]:
    """Return the columns that state the split of each row, and the masks.

    The column ``split`` holds train, val (valid, validation), test or nothing; or the columns ``train_mask``,
    ``val_mask`` and ``test_mask`` hold true or false.
    """
    by_name = {name.lower(): name for name in table.values}
    if "split" in by_name:
        return [by_name["split"]], _parts(table, by_name["split"])
    used = {part: by_name[f"{part}_mask"] for part in ("train", "val", "test") if f"{part}_mask" in by_name}
    return [*used.values()], {part: _flags(table, name) for part, name in used.items()}


def _flags(table: Columns, name: str) -> np.ndarray:
    column = table.values[name]
    words = {"true": True, "false": False, "none": False}
    found = [words.get(str(v).lower()) for v in column] if column.dtype == object else column.tolist()
    for row, value in enumerate(found):
        if value not in (0, 1):
            raise DataError(f"{table.at(row)}: {name} is {column[row]}, expected true or false")
    return np.asarray(found, bool)


def _parts(table: Columns, name: str) -> dict[str, np.ndarray]:
    words = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
    column = table.values[name]
    found = np.asarray(["" if v is None else words.get(str(v).lower(), "?") for v in column.tolist()])
    if column.dtype != object or (found == "?").any():
        row = int((found == "?").argmax()) if column.dtype == object else 0
        raise DataError(f"{table.at(row)}: {name} is {column[row]}, expected train, val, test or nothing")
    return {part: found == part for part in ("train", "val", "test") if (found == part).any()}


def weights_of(draft: Draft, table: Columns, columns: Sequence[str]) -> np.ndarray | None:
    """Return the column ``weight`` of a table of edges; note which others are left out."""
    named = [c for c in columns if c.lower() in ("weight", "edge_weight")]
    others = [c for c in columns if c not in named[:1]]
    if others:
        draft.notes.append(f"columns of edges left out: {', '.join(others)} (only weight is read)")
    if not named:
        return None
    column = table.values[named[0]]
    if not table.size:
        return np.zeros(0, np.float32)
    if column.dtype == object:
        row = next(i for i, value in enumerate(column) if value is None or not is_number(value))
        raise DataError(f"{table.at(row)}: {named[0]} is {column[row]!r}, expected a number")
    with np.errstate(over="ignore"):
        wrong = ~np.isfinite(column.astype(np.float32))
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f"{table.at(row)}: {named[0]} is {column[row]:g}, expected a finite number")
    return column.astype(np.float32)


def _settled(draft: Draft, size: int, of: str) -> tuple[Labels, dict[str, Any]]:
    """Bring labels and masks into their one form, and draw the masks that are missing."""
    try:
        labels = as_labels("labels", draft.y, size, None, of=of)
        given = {name: as_mask(name, mask, size, of) for name, mask in draft.masks.items()}
        if labels.kind == "none":
            raise DataError("no label is known: give at least some")
        masks, made = complete_splits(
            labels.values, given, draft.options.split, kind=labels.kind, seed=draft.options.seed
        )
    except ValueError as error:
        raise DataError(f"{draft.source}: {error}") from None
    if labels.names:
        pairs = [f"{old} -> {new}" for new, old in enumerate(labels.names[:6])]
        more = f" and {len(labels.names) - 6} more" if len(labels.names) > 6 else ""
        draft.notes.append(f"labels mapped: {', '.join(pairs)}{more}")
    if made:
        draft.notes.append(made)
    if draft.options.standardize:
        draft.notes.append("numbers standardised over the training rows, as requested")
    return labels, masks


def _features(draft: Draft, x: Any, train: Any) -> np.ndarray | None:
    """Return float32 features from an array, from columns, or from a list of such blocks."""
    if isinstance(x, list):
        found = [_features(draft, block, train) for block in x]
        return np.concatenate([block for block in found if block is not None], 1)
    if isinstance(x, Columns):
        options = draft.options
        return features(x, draft.notes, missing=options.missing, train=train, scaled=options.standardize)
    if x is None:
        return None
    x = np.asarray(x)
    if x.dtype.kind not in "biuf":
        raise DataError(f"{draft.source}: features are of type {x.dtype}, expected numbers")
    if x.ndim == 1:
        x = x[:, None]
    if x.dtype.kind == "f" and np.isnan(x).any() and draft.options.missing == "impute":
        gone = np.isnan(x)
        with np.errstate(invalid="ignore"):
            rows = np.where(gone, 0, x)[train].sum(0) / np.maximum((~gone)[train].sum(0), 1)
        draft.notes.append(f"{int(gone.sum())} missing numbers imputed: the mean of the training rows")
        x = np.where(gone, rows, x)
    with np.errstate(over="ignore"):
        numbers = x.astype(np.float32)
    if not np.isfinite(numbers).all():
        row = int(np.argwhere(~np.isfinite(numbers))[0][0])
        raise DataError(
            f"{draft.source}: features hold NaN or numbers beyond float32, first in row {row}: fill them in"
            + (", or set missing='impute' (--missing impute)" if np.isnan(x).any() else "")
        )
    return standardized(numbers, train) if draft.options.standardize else numbers


def _degrees(draft: Draft, receivers: np.ndarray, size: int) -> np.ndarray:
    """Return features, from degrees, of nodes that have none."""
    draft.notes.append("no features: made two of each node, 1 and log(1 + edges that end there)")
    degree = np.bincount(receivers, minlength=size).astype(np.float32)
    return np.stack([np.ones(size, np.float32), np.log1p(degree)], 1)


def _graph(draft: Draft, senders: Any, receivers: Any, x: Any, edges: Any, size: int) -> jraph.GraphsTuple:
    try:
        graph = from_edges(senders, receivers, x, edges, num_nodes=size)
    except ValueError as error:
        raise DataError(f"{draft.source}: {error}") from None
    if draft.options.undirected:
        before = len(np.asarray(graph.senders))
        graph = to_undirected(graph)
        after = len(np.asarray(graph.senders))
        draft.notes.append(f"undirected, as requested: {before} edges in the file became {after}, both ways")
    return graph


def _one_way(senders: np.ndarray, receivers: np.ndarray, size: int) -> bool:
    """Return whether an edge lacks its reverse."""
    there, back = (
        np.unique(a.astype(np.int64) * size + b) for a, b in ((senders, receivers), (receivers, senders))
    )
    return not np.array_equal(there, back)


def node_task(
    draft: Draft, senders: Any, receivers: Any, size: int, *, x: Any = None, edges: Any = None
) -> Found:
    """Make a task of one graph whose nodes have labels.

    Args:
      draft: Labels and masks of the nodes.
      senders: Source of each edge.
      receivers: Target of each edge.
      size: Number of nodes.
      x: Features ``[N, F]``, as an array or as columns, or None.
      edges: Weights ``[E]``, a dict of edge data, or None.
    """
    labels, masks = _settled(draft, size, "nodes")
    senders, receivers = np.asarray(senders), np.asarray(receivers)
    graph = _graph(draft, senders, receivers, None, edges, size)
    senders, receivers = np.asarray(graph.senders), np.asarray(graph.receivers)
    nodes = _features(draft, x, masks["train"])
    if nodes is None:
        nodes = _degrees(draft, receivers, size)
    one_way = _one_way(senders, receivers, size)
    if one_way and not draft.options.undirected:
        draft.notes.append(
            "some edges lack their reverse and are kept so: undirected=True (--undirected) adds it"
        )
    task = NodeTask(
        graph=graph._replace(nodes=nodes),
        labels=labels.values,
        **masks,
        num_classes=labels.num_classes,
        class_names=labels.names,
        name=draft.name,
        directed=one_way,
    )
    return Found(task, tuple(draft.notes))


def graph_task(
    draft: Draft, senders: Any, receivers: Any, n_node: Any, n_edge: Any, *, x: Any = None, edges: Any = None
) -> Found:
    """Make a task of graphs with a label each, joined: nodes and edges are sorted by graph.

    Args:
      draft: Labels and masks of the graphs.
      senders: Source of each edge, numbered through all graphs.
      receivers: Target of each edge.
      n_node: Number of nodes of each graph.
      n_edge: Number of edges of each graph.
      x: Features of all nodes, as an array or as columns, or None.
      edges: Weights or edge data, or None.
    """
    n_node, n_edge = np.asarray(n_node, np.int32), np.asarray(n_edge, np.int32)
    labels, masks = _settled(draft, len(n_node), "graphs")
    total = int(n_node.sum())
    if draft.options.undirected:
        owner = np.repeat(np.arange(len(n_node)), n_node)
        both = _graph(draft, senders, receivers, None, edges, total)  # sorted by receiver, so by graph
        senders, receivers, edges = np.asarray(both.senders), np.asarray(both.receivers), both.edges
        n_edge = np.bincount(owner[receivers], minlength=len(n_node)).astype(np.int32)
    nodes = _features(draft, x, np.repeat(masks["train"], n_node))
    if nodes is None:
        nodes = _degrees(draft, np.asarray(receivers), total)
    sources: Any = np.asarray(senders, np.int32)
    targets: Any = np.asarray(receivers, np.int32)
    graphs = jraph.GraphsTuple(
        nodes=nodes,
        edges=edges,
        senders=sources,
        receivers=targets,
        n_node=n_node,
        n_edge=n_edge,
        globals=None,
    )
    if total and _one_way(sources, targets, total):
        draft.notes.append(
            "some edges lack their reverse and are kept so: undirected=True (--undirected) adds it"
        )
    try:
        task = GraphTask(
            graphs=graphs,
            labels=labels.values,
            **masks,
            num_classes=labels.num_classes,
            class_names=labels.names,
            name=draft.name,
        )
    except ValueError as error:
        raise DataError(f"{draft.source}: {error}") from None
    return Found(task, tuple(draft.notes))


def array_task(draft: Draft, x: Any, size: int) -> Found:
    """Make a task of examples without edges.

    Args:
      draft: Labels and masks of the examples.
      x: Features, as an array or as columns.
      size: Number of examples.
    """
    labels, masks = _settled(draft, size, "rows")
    rows = _features(draft, x, masks["train"]) if isinstance(x, Columns) or np.ndim(x) <= 2 else np.asarray(x)
    if rows is None:
        raise DataError(f"{draft.source} has no columns of features beside the labels")
    try:
        task = ArrayTask(
            x=rows,
            y=labels.values,
            **masks,
            num_classes=labels.num_classes,
            class_names=labels.names,
            name=draft.name,
        )
    except ValueError as error:
        raise DataError(f"{draft.source}: {error}") from None
    return Found(task, tuple(draft.notes))
