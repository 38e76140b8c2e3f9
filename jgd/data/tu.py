"""Sets of graphs from TUDataset, by name, read from its text files.

Morris et al., "TUDataset: A collection of benchmark datasets for learning with graphs" (2020). In the folder
``tu/<NAME>``: ``<NAME>_A.txt`` (one edge "sender, receiver" in a line, nodes numbered from 1 through all
graphs), ``_graph_indicator`` (graph of each node), ``_graph_labels``, and where they exist ``_node_labels``,
``_node_attributes``, ``_edge_labels`` and ``_edge_attributes``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import jraph
import numpy as np

from jgd.data.archives import unpack
from jgd.data.arrays import read_table
from jgd.data.facts import dataset
from jgd.data.prepare import folds as make_folds
from jgd.data.prepare import one_hot, stratified
from jgd.data.storage import DataError, Remote, data_dir, present, reading, require
from jgd.data.tasks import GraphTask

__all__ = ["files", "remotes", "tu"]

Features = Literal["auto", "labels", "attributes", "degree", "ones"]
_CELLS = 2**30  # indicators of all nodes: 4 GiB
_ADDRESS = "https://www.chrsmrrs.com/graphkerneldatasets/"


def remotes(name: str) -> tuple[Remote, ...]:
    """Return the archive of a dataset; it has no digest, because TUDataset replaces its archives at times.

    Args:
      name: Name of the dataset.

    Raises:
      DataError: If the text cannot be a name of a dataset.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name):
        raise DataError(f"{str(name)[:40]!r} is no name of TUDataset: they look like MUTAG or IMDB-BINARY")
    return (Remote(f"tu/{name}.zip", (f"{_ADDRESS}{name}.zip",)),)


def files(name: str) -> tuple[Remote, ...]:
    """Return the unpacked edges of a dataset if they are there, else its archive."""
    edges = Remote(f"tu/{name}/{name}_A.txt", ())
    return (edges,) if present(edges) else remotes(name)


def tu(
    name: str,
    *,
    features: Features = "auto",
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    folds: int | None = None,
    seed: int = 0,
    folder: Path | None = None,
) -> GraphTask:
    """Load a set of graphs. Edges are kept as the files list them, usually in both directions.

    Args:
      name: Name as TUDataset spells it, e.g. ``"MUTAG"``.
      features: Node features: ``"labels"`` (one-hot node labels), ``"attributes"``, ``"degree"`` (one-hot
        number of edges), ``"ones"``, or ``"auto"``: labels and attributes where they exist, else degrees.
      fractions: Fractions of each class for training, validation and testing.
      folds: Number of stratified folds for cross-validation, or None.
      seed: Seed of the split and the folds.
      folder: Folder of the files ``<NAME>_*.txt``; None downloads them where they are missing.

    Returns:
      A task with float32 features ``[N, F]`` and classes ``0..C-1`` (``extras["label_values"]`` has the
      values in the file). Edge labels become ``edges["code"]``, edge attributes ``edges["feature"]``.

    Raises:
      DataError: If files are missing, damaged or contradict each other, or there are no such features.
    """
    if features not in get_args(Features):
        raise DataError(f"features must be one of {get_args(Features)}, got {features!r}")
    if folder is None:
        (archive,) = remotes(name)
        folder = data_dir() / "tu" / name
        if not (folder / f"{name}_A.txt").is_file():
            unpack(require(archive), folder, root=name)
        hint = (
            f": delete {folder} to have it downloaded from {archive.urls[0]}, or set JGD_DATA_DIR to a "
            "folder that holds it"
        )
    else:
        hint = ""

    def read(part: str, dtype: Any = np.int64, needed: bool = False) -> np.ndarray | None:
        path = folder / f"{name}_{part}.txt"
        if not path.is_file() and not needed:
            return None
        if not path.is_file():
            raise DataError(f"{path} is missing{hint}")
        return read_table(path, dtype, delimiter=",")

    indicator, values = read("graph_indicator", needed=True), read("graph_labels", needed=True)
    pairs = read("A", needed=True)
    assert indicator is not None
    assert values is not None
    assert pairs is not None
    with reading(folder):
        for part, table in (("graph_indicator", indicator), ("graph_labels", values)):
            if table.shape[1] != 1:
                raise ValueError(f"{name}_{part}.txt has {table.shape[1]} columns, expected one")
        _check(indicator[:, 0], pairs, len(values))
        graph_of, pairs = indicator[:, 0] - 1, pairs - 1
        nodes = _node_features(
            features, read("node_labels"), read("node_attributes", np.float32), pairs, len(graph_of)
        )
        edges = _edge_data(read("edge_labels"), read("edge_attributes", np.float32), len(pairs))
        label_values, labels = np.unique(values[:, 0], return_inverse=True)
        graphs = _join(graph_of, pairs, nodes, edges, len(values))
    return GraphTask(
        graphs=graphs,
        labels=labels.astype(np.int32),
        **stratified(labels, fractions, seed=seed),
        folds=None if folds is None else make_folds(labels, folds, seed=seed),
        extras={"label_values": label_values},
        num_classes=len(label_values),
        name=name,
    )


def _check(graph_of: np.ndarray, pairs: np.ndarray, size: int) -> None:
    """Check that nodes and edges, numbered from 1, fit each other."""
    if (wrong := (graph_of < 1) | (graph_of > size)).any():
        row = int(np.argmax(wrong))
        raise ValueError(f"node {row + 1} is in graph {graph_of[row]}, but there are {size} graph labels")
    if pairs.shape[1] != 2:
        raise ValueError(f"the edges have {pairs.shape[1]} columns, expected two")
    if (wrong := ((pairs < 1) | (pairs > len(graph_of))).any(1)).any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"edge {row + 1} is {pairs[row].tolist()}: the edges do not fit {len(graph_of)} nodes"
        )
    if (wrong := graph_of[pairs[:, 0] - 1] != graph_of[pairs[:, 1] - 1]).any():
        raise ValueError(f"edge {int(np.argmax(wrong)) + 1} joins two graphs")


def _node_features(
    how: Features, labels: np.ndarray | None, attributes: np.ndarray | None, pairs: np.ndarray, size: int
) -> np.ndarray:
    parts = {
        "labels": None if labels is None or how == "attributes" else _one_hot(labels),
        "attributes": attributes,
    }
    if how in parts:
        chosen = [parts[how]]
        if chosen[0] is None:
            raise DataError(f'this dataset has no node {how}: use features="auto"')
    elif how == "ones":
        chosen = [np.ones((size, 1), np.float32)]
    else:
        found = [part for part in parts.values() if part is not None] if how == "auto" else []
        degree = np.bincount(pairs[:, 1], minlength=size)
        chosen = found or [_one_hot(degree[:, None], range(int(degree.max()) + 1))]
    x = np.hstack([part for part in chosen if part is not None])
    if len(x) != size:
        raise ValueError(f"there are features of {len(x)} nodes, but {size} nodes")
    return x


def _one_hot(columns: np.ndarray, values: Sequence[int] | None = None) -> np.ndarray:
    """Return indicators of the values of each column, as many as memory is likely to hold."""
    width = sum(len(np.unique(column)) for column in columns.T) if values is None else len(values)
    if len(columns) * width > _CELLS:
        raise ValueError(
            f"{width} different labels or degrees of {len(columns)} nodes are more than {_CELLS} indicators: "
            'use features="ones"'
        )
    if values is not None:
        return np.eye(width, dtype=np.float32)[columns[:, 0]]
    return np.hstack([one_hot(column) for column in columns.T])


def _edge_data(
    labels: np.ndarray | None, attributes: np.ndarray | None, size: int
) -> dict[str, np.ndarray] | None:
    edges = {}
    if labels is not None:
        columns = [np.unique(column, return_inverse=True)[1] for column in labels.T]
        edges["code"] = (columns[0] if len(columns) == 1 else np.stack(columns, 1)).astype(np.int32)
    if attributes is not None:
        edges["feature"] = attributes
    if any(len(data) != size for data in edges.values()):
        raise ValueError(f"the edge data do not fit {size} edges")
    return edges or None


def _join(graph_of: Any, pairs: Any, nodes: Any, edges: Any, size: int) -> jraph.GraphsTuple:
    """Join graphs into one ragged `jraph.GraphsTuple`, nodes and edges sorted by graph."""
    node_order = np.argsort(graph_of, kind="stable")
    position: Any = np.empty(len(node_order), np.int32)
    position[node_order] = np.arange(len(node_order))
    edge_graph = graph_of[pairs[:, 0]]
    edge_order = np.argsort(edge_graph, kind="stable")
    n_node: Any = np.bincount(graph_of, minlength=size).astype(np.int32)
    n_edge: Any = np.bincount(edge_graph, minlength=size).astype(np.int32)
    return jraph.GraphsTuple(
        nodes=nodes[node_order],
        edges=None if edges is None else {name: data[edge_order] for name, data in edges.items()},
        senders=position[pairs[edge_order, 0]],
        receivers=position[pairs[edge_order, 1]],
        n_node=n_node,
        n_edge=n_edge,
        globals=None,
    )


_SETS = {
    "MUTAG": (188, 2, "Molecules: mutagenic or not."),
    "PTC": (344, 2, "Molecules: carcinogenic or not, in the version of GIN."),
    "PTC_MR": (344, 2, "Molecules: carcinogenic for male rats or not."),
    "PROTEINS": (1113, 2, "Proteins: enzymes or not."),
    "NCI1": (4110, 2, "Molecules: active against lung cancer or not."),
    "ENZYMES": (600, 6, "Proteins: six classes of enzymes."),
    "DD": (1178, 2, "Proteins of many nodes: enzymes or not."),
    "IMDB-BINARY": (1000, 2, "Actors of a film: two genres."),
    "IMDB-MULTI": (1500, 3, "Actors of a film: three genres."),
    "COLLAB": (5000, 3, "Co-authors of a researcher: three fields of physics."),
    "REDDIT-BINARY": (2000, 2, "Threads of Reddit: questions and answers, or discussion."),
}

ENTRIES = tuple(
    dataset(
        f"tu:{name}",
        partial(tu, name),
        summary,
        kind="graph",
        size=size,
        classes=classes,
        source=(
            "the GIN version, no address of its own; TUDataset has PTC_MR"
            if name == "PTC"
            else "https://chrsmrrs.github.io/datasets"
        ),
        paper="Morris et al. 2020",
        files=partial(files, name),
    )
    for name, (size, classes, summary) in _SETS.items()
)
