"""The Stanford Sentiment Treebank (Socher et al., 2013) in the version of GLUE: phrases of film reviews."""

from __future__ import annotations

from jgd.data.archives import unpack
from jgd.data.facts import dataset
from jgd.data.hashes import SHA256
from jgd.data.storage import Remote, data_dir, present, require
from jgd.data.tasks import Corpus
from jgd.data.texts import read_texts

__all__ = ["files", "sst2"]

_TABLES = {part: Remote(f"sst2/{part}.tsv", ()) for part in ("train", "dev", "test")}
_ARCHIVE = Remote("sst2.zip", ("https://dl.fbaipublicfiles.com/glue/data/SST-2.zip",), SHA256["sst2.zip"])


def files() -> tuple[Remote, ...]:
    """Return the three tables if they are there, else the archive that holds them."""
    tables = tuple(_TABLES.values())
    return tables if all(map(present, tables)) else (_ARCHIVE,)


def sst2(*, val: int = 872, seed: int = 0) -> Corpus:
    """Load the Stanford Sentiment Treebank of GLUE: 67 349 phrases, negative (0) or positive (1).

    The labels of its test set are not public, so ``test`` is its development set (872 sentences), ``val`` is
    taken from the training set, and ``unlabelled`` are the 1821 test sentences. Training phrases are parts of
    sentences, so a phrase in ``val`` may be part of one in ``train``.

    Args:
      val: Number of training phrases to set apart for validation, equally many of each class.
      seed: Seed of the choice.

    Raises:
      DataError: If files are missing or damaged.
    """
    if not all(map(present, _TABLES.values())):
        unpack(require(_ARCHIVE), data_dir() / "sst2", root="SST-2")
    train, dev, test = (data_dir() / remote.path for remote in _TABLES.values())
    return read_texts(
        {"train": train, "test": dev, "unlabelled": test},
        text="sentence",
        label="label",
        val=val,
        seed=seed,
        name="sst2",
    )


ENTRIES = (
    dataset(
        "sst2",
        sst2,
        "Phrases of film reviews: negative or positive.",
        kind="text",
        size=70_042,
        classes=2,
        source="https://gluebenchmark.com (SST-2)",
        paper="Socher et al. 2013",
        files=files,
    ),
)
