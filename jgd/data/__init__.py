"""Data: tasks, loaders with verified downloads, generators, conversions and artefacts."""

from jgd.data import artifact
from jgd.data.checksum import checksum
from jgd.data.condensed import Condensed
from jgd.data.convert import from_networkx, from_ogb, from_pyg, to_networkx, to_pyg
from jgd.data.digits import digits_knn
from jgd.data.generate import contextual_sbm, power_law
from jgd.data.registry import Dataset, datasets, load
from jgd.data.storage import DataError, data_dir
from jgd.data.tasks import (
    ArrayTask,
    Corpus,
    Database,
    DenseGraphs,
    EventLog,
    GraphTask,
    HeteroGraph,
    InteractionTask,
    Links,
    LinkTask,
    NodeTask,
    SequenceTask,
    TextGraph,
)

__all__ = [
    "ArrayTask",
    "Condensed",
    "Corpus",
    "DataError",
    "Database",
    "Dataset",
    "DenseGraphs",
    "EventLog",
    "GraphTask",
    "HeteroGraph",
    "InteractionTask",
    "LinkTask",
    "Links",
    "NodeTask",
    "SequenceTask",
    "TextGraph",
    "artifact",
    "checksum",
    "contextual_sbm",
    "data_dir",
    "datasets",
    "digits_knn",
    "from_networkx",
    "from_ogb",
    "from_pyg",
    "load",
    "power_law",
    "to_networkx",
    "to_pyg",
]
