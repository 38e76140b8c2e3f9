"""Data: tasks, loaders with verified downloads, generators, conversions and artefacts."""

from jgd.data import artifact
from jgd.data._checksum import checksum
from jgd.data._describe import Description, describe
from jgd.data.condensed import Condensed, Training
from jgd.data.convert import from_networkx, from_ogb, from_pyg, to_networkx, to_pyg
from jgd.data.digits import digits_images, digits_knn
from jgd.data.generate import contextual_sbm, power_law
from jgd.data.images import channel_statistics, image_folder, image_task, standardized
from jgd.data.imported import import_condensed
from jgd.data.registry import DATASETS, Dataset, datasets, load
from jgd.data.storage import DataError, data_dir
from jgd.data.subsets import long_tail, noisy_labels, subset, with_validation
from jgd.data.system_logs import darpa_e3, events_to_graph, record, streamspot
from jgd.data.tasks import (
    ArrayTask,
    Corpus,
    DenseGraphs,
    EventLog,
    GraphTask,
    NodeTask,
    SequenceTask,
)
from jgd.data.texts import (
    Tokenizer,
    bag_of_words,
    byte_tokenizer,
    read_texts,
    tokenized,
    word_piece_tokenizer,
    word_tokenizer,
)

__all__ = [
    "DATASETS",
    "ArrayTask",
    "Condensed",
    "Corpus",
    "DataError",
    "Dataset",
    "DenseGraphs",
    "Description",
    "EventLog",
    "GraphTask",
    "NodeTask",
    "SequenceTask",
    "Tokenizer",
    "Training",
    "artifact",
    "bag_of_words",
    "byte_tokenizer",
    "channel_statistics",
    "checksum",
    "contextual_sbm",
    "darpa_e3",
    "data_dir",
    "datasets",
    "describe",
    "digits_images",
    "digits_knn",
    "events_to_graph",
    "from_networkx",
    "from_ogb",
    "from_pyg",
    "image_folder",
    "image_task",
    "import_condensed",
    "load",
    "long_tail",
    "noisy_labels",
    "power_law",
    "read_texts",
    "record",
    "standardized",
    "streamspot",
    "subset",
    "to_networkx",
    "to_pyg",
    "tokenized",
    "with_validation",
    "word_piece_tokenizer",
    "word_tokenizer",
]
