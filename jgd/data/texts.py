"""Labelled texts: from tables, as tokens and as bags of words.

A `jgd.data.Corpus` holds what humans read: records with ``"id"``, ``"text"`` and ``"label"`` (a class, -1
where unknown), and the positions of each split. `tokenized` and `bag_of_words` make an `ArrayTask` of it::

    corpus = jgd.load("sst2")
    tokenizer = word_tokenizer(corpus, 8192)
    task = tokenized(corpus, tokenizer, length=64)          # x: tokens [N, 64], mask: [N, 64]
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer

from jgd.data.archives import unpack
from jgd.data.hashes import SHA256
from jgd.data.storage import DataError, Remote, data_dir, present, reading, refuse_web_page, require
from jgd.data.subsets import evenly
from jgd.data.tasks import ArrayTask, Corpus

__all__ = [
    "Tokenizer",
    "bag_of_words",
    "byte_tokenizer",
    "read_texts",
    "sst2",
    "tokenized",
    "tweets",
    "word_piece_tokenizer",
    "word_tokenizer",
]

_SPLITS = ("train", "val", "test", "unlabelled")


# Tables


def read_texts(
    files: Mapping[str, str | os.PathLike[str]],
    *,
    text: str,
    label: str,
    val: int = 0,
    seed: int = 0,
    name: str = "texts",
) -> Corpus:
    """Read labelled texts from tables with named columns.

    Args:
      files: the table of each split: ``train``, and any of ``val``, ``test`` and ``unlabelled``. In ``.tsv``
        tabs separate and quotes are part of the text; else commas separate and quotes may enclose a field.
      text: name of the column with the text.
      label: name of the column with the class; ``unlabelled`` tables need none. Classes are numbered in
        order of their values: as numbers if all are, else as words.
      val: training texts to set apart for validation, equally many of each class.
      seed: of that choice.
      name: of the corpus.

    Returns:
      The texts in the order of `files`, stripped of white space around them.

    Raises:
      DataError: for missing or damaged files, columns or labels, and classes only seen outside training.
    """
    if unknown := set(files) - set(_SPLITS):
        raise DataError(f"{name}: no split is called {sorted(unknown)[0]!r}: use {', '.join(_SPLITS)}")
    if "train" not in files or (val and "val" in files):
        raise DataError(f"{name}: give a table for train, and either val= or a table for val")
    rows = {
        part: _rows(Path(file), text, None if part == "unlabelled" else label) for part, file in files.items()
    }
    known = {value for part in rows for _, value in rows[part] if value is not None}
    trained = {str(value) for _, value in rows["train"]}
    if new := sorted(known - trained):
        raise DataError(f"{name}: no training text has the label {new[0]!r}")
    try:
        values = sorted(trained, key=int)
    except ValueError:
        values = sorted(trained)
    number = {value: i for i, value in enumerate(values)}
    records, splits = [], {}
    for part, pairs in rows.items():
        splits[part] = list(range(len(records), len(records) + len(pairs)))
        records += [
            {"id": f"{part}-{i}", "text": words, "label": -1 if value is None else number[value]}
            for i, (words, value) in enumerate(pairs)
        ]
    if val:
        labels = np.asarray([records[i]["label"] for i in splits["train"]])
        if not 0 < val < len(labels):
            raise DataError(f"{name}: cannot set {val} of {len(labels)} training texts apart")
        chosen = set(evenly(labels, val, seed=seed).tolist())
        splits["val"] = [i for n, i in enumerate(splits["train"]) if n in chosen]
        splits["train"] = [i for n, i in enumerate(splits["train"]) if n not in chosen]
    return Corpus(records=records, splits=splits, name=name)


def _rows(path: Path, text: str, label: str | None) -> list[tuple[str, str | None]]:
    tabs = path.suffix == ".tsv"
    refuse_web_page(path)
    with reading(path), path.open(encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(
            file,
            delimiter="\t" if tabs else ",",
            quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
            strict=True,
        )
        wanted = [text] if label is None else [text, label]
        columns = list(table.fieldnames or [])
        if missing := [column for column in wanted if column not in columns]:
            raise DataError(f"{path} has no column {missing[0]!r}; its columns are {', '.join(columns)}")
        rows = []
        for row in table:
            if None in row or None in row.values():
                raise ValueError(
                    f"line {table.line_num} does not have the {len(columns)} columns of the first"
                )
            value = None if label is None else row[label].strip()
            if value == "":
                raise ValueError(f"line {table.line_num} has no label")
            rows.append((row[text].strip(), value))
    if not rows:
        raise DataError(f"{path} holds no texts")
    return rows


# Tokens


class Tokenizer(NamedTuple):
    """How texts become numbers. 0 stands for padding and comes from nowhere else.

    Any tokeniser fits; one of the ``tokenizers`` library, trained with its padding token first, is
    ``Tokenizer(lambda text: t.encode(text).ids, t.get_vocab_size())``.

    Attributes:
      encode: the tokens of a text, in ``1..vocab_size - 1``.
      vocab_size: number of tokens, padding included.
    """

    encode: Callable[[str], Sequence[int]]
    vocab_size: int


def byte_tokenizer() -> Tokenizer:
    """Bytes of UTF-8, from 1 on: needs no training and knows every text."""
    return Tokenizer(lambda text: [byte + 1 for byte in text.encode()], 257)


def word_tokenizer(corpus: Corpus, size: int = 8192) -> Tokenizer:
    """Lower-case words and punctuation marks, the most frequent of the training texts; 1 is any other.

    Args:
      corpus: whose ``train`` split is counted.
      size: largest vocabulary, with padding and the unknown word.
    """
    if size < 3:
        raise ValueError(f"a vocabulary needs room for padding, the unknown and one word, got size={size}")
    words = CountVectorizer(token_pattern=r"\w+|[^\w\s]", max_features=size - 2)
    words.fit(_texts(corpus, corpus.splits["train"]))
    split, number = words.build_analyzer(), {word: i + 2 for word, i in words.vocabulary_.items()}
    return Tokenizer(lambda text: [number.get(word, 1) for word in split(text)], len(number) + 2)


def word_piece_tokenizer(corpus: Corpus, size: int = 8192) -> Tokenizer:
    """BERT's word pieces, learned from the training texts by the ``tokenizers`` library; 1 is the unknown.

    Lower-case words and punctuation marks are cut into the longest pieces of the vocabulary, so that rare
    words are made of frequent parts in place of being unknown.

    Args:
      corpus: whose ``train`` split is learned from.
      size: largest vocabulary, with padding, the unknown piece and single characters.

    Raises:
      ImportError: without that library (``pip install jgd[llm]``).
      ValueError: for a size without room for a piece.
    """
    if size < 3:
        raise ValueError(f"a vocabulary needs room for padding, the unknown and one piece, got size={size}")
    try:
        import tokenizers as hf
    except ImportError as e:
        raise ImportError(
            "word pieces need the tokenizers library: pip install 'jgd[llm]', or use word_tokenizer or "
            "byte_tokenizer"
        ) from e
    special = ["[PAD]", "[UNK]"]
    trainer = hf.trainers.WordPieceTrainer(vocab_size=size, special_tokens=special, show_progress=False)

    def bert(vocab: dict[str, int] | None) -> Any:
        pieces: Any = hf.Tokenizer(
            hf.models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100)
        )
        pieces.normalizer = hf.normalizers.BertNormalizer(lowercase=True)
        pieces.pre_tokenizer = hf.pre_tokenizers.BertPreTokenizer()
        return pieces

    learner = bert(None)
    learner.train_from_iterator(_texts(corpus, corpus.splits["train"]), trainer)
    # It finds the same pieces every time, but numbers some of them by chance.
    found = [*special, *sorted(set(learner.get_vocab()) - set(special))]
    pieces = bert({piece: i for i, piece in enumerate(found)})
    return Tokenizer(lambda text: pieces.encode(text).ids, len(found))


def _texts(corpus: Corpus, index: Sequence[int] | None = None) -> list[str]:
    records = corpus.records if index is None else [corpus.records[i] for i in index]
    return [record["text"] for record in records]


def _task(corpus: Corpus, x: np.ndarray, mask: np.ndarray | None) -> ArrayTask:
    y = np.asarray([record["label"] for record in corpus.records], np.int32)
    masks = {}
    for part, index in corpus.splits.items():
        masks[part] = np.zeros(len(y), bool)
        masks[part][index] = True
    return ArrayTask(x=x, y=y, mask=mask, **masks, num_classes=int(y.max()) + 1, name=corpus.name)


def tokenized(corpus: Corpus, tokenizer: Tokenizer, length: int) -> ArrayTask:
    """Texts as rows of tokens, cut or padded at the end.

    Args:
      corpus: see `read_texts`.
      tokenizer: what makes tokens.
      length: tokens of a row.

    Returns:
      A task with ``x`` ``[N, length]`` int32, 0 where there is no token, and ``mask`` ``[N, length]``,
      where there is one. A text without any token is one padding token that counts.

    Raises:
      ValueError: for a length below one, or tokens out of range.
    """
    if length < 1:
        raise ValueError(f"the length must be at least 1, got {length}")
    x = np.zeros((len(corpus.records), length), np.int32)
    mask = np.zeros(x.shape, bool)
    for row, text in enumerate(_texts(corpus)):
        tokens = list(tokenizer.encode(text))[:length]
        x[row, : len(tokens)], mask[row, : max(1, len(tokens))] = tokens, True
    if x.min() < 0 or x.max() >= tokenizer.vocab_size or (x[:, 1:] == 0)[mask[:, 1:]].any():
        raise ValueError(f"the tokenizer gave tokens outside 1..{tokenizer.vocab_size - 1}")
    return _task(corpus, x, mask)


def bag_of_words(corpus: Corpus, size: int = 4096) -> ArrayTask:
    """Counts of words, hashed to ``size`` numbers and scaled to length one: ``x`` ``[N, size]`` float32."""
    counts: Any = HashingVectorizer(n_features=size, alternate_sign=False, dtype=np.float32)  # pyright: ignore[reportArgumentType]
    return _task(corpus, counts.transform(_texts(corpus)).toarray(), None)


# Datasets

_SST2 = {part: Remote(f"sst2/{part}.tsv", ()) for part in ("train", "dev", "test")}
_SST2_ARCHIVE = Remote(
    "sst2.zip", ("https://dl.fbaipublicfiles.com/glue/data/SST-2.zip",), SHA256["sst2.zip"]
)
_TWEETS = tuple(
    Remote(
        f"distiller/{name}",
        (f"https://raw.githubusercontent.com/Cli212/Distiller/a6a48f7db772ed9c3dfccfe26c9d4553c67132e3/kaggle/{name}",),
        SHA256[f"distiller/{name}"],
    )
    for name in ("Train.csv", "Dev.csv")
)  # fmt: skip


def sst2_remotes() -> tuple[Remote, ...]:
    """The three tables if they are there, else the archive that holds them."""
    tables = tuple(_SST2.values())
    return tables if all(map(present, tables)) else (_SST2_ARCHIVE,)


def tweets_remotes() -> tuple[Remote, ...]:
    """The two tables."""
    return _TWEETS


def sst2(*, val: int = 872, seed: int = 0) -> Corpus:
    """The Stanford Sentiment Treebank in the version of GLUE: 67 349 phrases, negative (0) or positive (1).

    The labels of its test set are not public, so ``test`` is its development set (872 sentences), ``val`` is
    taken from the training set, and ``unlabelled`` are the 1821 test sentences. Training phrases are parts of
    sentences, so a phrase in ``val`` may be part of one in ``train``.

    Args:
      val: training phrases to set apart for validation, equally many of each class.
      seed: of that choice.

    Raises:
      DataError: for files that are missing or damaged.
    """
    if not all(map(present, _SST2.values())):
        unpack(require(_SST2_ARCHIVE), data_dir() / "sst2", root="SST-2")
    train, dev, test = (data_dir() / remote.path for remote in _SST2.values())
    return read_texts(
        {"train": train, "test": dev, "unlabelled": test},
        text="sentence",
        label="label",
        val=val,
        seed=seed,
        name="sst2",
    )


def tweets(label: str = "Sentiment", *, val: int = 0, seed: int = 0) -> Corpus:
    """5409 tweets about products to train on and 955 to test on (He et al., "Distiller", SustaiNLP 2021).

    Args:
      label: ``"Sentiment"`` (4 classes) or ``"Product_Type"`` (10).
      val: training texts to set apart for validation, equally many of each class.
      seed: of that choice.

    Raises:
      DataError: for files that are missing or damaged.
    """
    train, dev = map(require, _TWEETS)
    return read_texts(
        {"train": train, "test": dev},
        text="Product_Description",
        label=label,
        val=val,
        seed=seed,
        name="tweets",
    )
