"""Tweets about products, from the repository of Distiller (He et al., SustaiNLP 2021)."""

from __future__ import annotations

from jgd.data.facts import dataset
from jgd.data.hashes import SHA256
from jgd.data.storage import Remote, require
from jgd.data.tasks import Corpus
from jgd.data.texts import read_texts

__all__ = ["files", "tweets"]

_TABLES = tuple(
    Remote(
        f"distiller/{name}",
        (f"https://raw.githubusercontent.com/Cli212/Distiller/a6a48f7db772ed9c3dfccfe26c9d4553c67132e3/kaggle/{name}",),
        SHA256[f"distiller/{name}"],
    )
    for name in ("Train.csv", "Dev.csv")
)  # fmt: skip


def files() -> tuple[Remote, ...]:
    """Return the two tables."""
    return _TABLES


def tweets(label: str = "Sentiment", *, val: int = 0, seed: int = 0) -> Corpus:
    """Load 5409 tweets about products for training and 955 for testing.

    Args:
      label: Column of the classes: ``"Sentiment"`` (4) or ``"Product_Type"`` (10).
      val: Number of training texts to set apart for validation, equally many of each class.
      seed: Seed of the choice.

    Raises:
      DataError: If files are missing or damaged.
    """
    train, dev = map(require, _TABLES)
    return read_texts(
        {"train": train, "test": dev},
        text="Product_Description",
        label=label,
        val=val,
        seed=seed,
        name="tweets",
    )


ENTRIES = (
    dataset(
        "tweets",
        tweets,
        "Tweets about products: four sentiments.",
        kind="text",
        size=6364,
        classes=4,
        source="https://github.com/Cli212/Distiller",
        paper="He et al. 2021",
        files=files,
    ),
)
