"""Labelled texts: from tables, as tokens and as bags of words.

A `jgd.data.Corpus` holds records with ``"id"``, ``"text"`` and ``"label"`` (a class, -1 where unknown), and
the positions of each split. `tokenized` and `bag_of_words` make an `ArrayTask` of it::

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

from jgd.data.storage import DataError, reading, refuse_web_page
from jgd.data.subsets import evenly
from jgd.data.tasks import ArrayTask, Corpus

__all__ = [
    "Tokenizer",
    "bag_of_words",
    "byte_tokenizer",
    "read_texts",
    "tokenized",
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
      files: Table of each split: ``train``, and any of ``val``, ``test`` and ``unlabelled``. In ``.tsv`` tabs
        separate and quotes are part of the text; else commas separate and quotes may enclose a field.
      text: Name of the column with the text.
      label: Name of the column with the class; ``unlabelled`` tables need none. Classes are numbered in
        order of their values: as numbers if all are, else as words.
      val: Number of training texts to set apart for validation, equally many of each class.
      seed: Seed of the choice.
      name: Name of the corpus.

    Returns:
      The texts in the order of `files`, without white space around them.

    Raises:
      DataError: If files, columns or labels are missing or damaged, or a class has no training text.
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
    """Function from texts to numbers. 0 stands for padding only.

    Any tokeniser fits; one of the ``tokenizers`` library, trained with its padding token first, is
    ``Tokenizer(lambda text: t.encode(text).ids, t.get_vocab_size())``.

    Attributes:
      encode: Function that returns the tokens of a text, in ``1..vocab_size - 1``.
      vocab_size: Number of tokens, padding included.
    """

    encode: Callable[[str], Sequence[int]]
    vocab_size: int


def byte_tokenizer() -> Tokenizer:
    """Return a tokenizer of the bytes of UTF-8, from 1 on, which needs no training and knows every text."""
    return Tokenizer(lambda text: [byte + 1 for byte in text.encode()], 257)


def word_tokenizer(corpus: Corpus, size: int = 8192) -> Tokenizer:
    """Return a tokenizer of the most frequent lower-case words and punctuation marks; 1 is any other.

    Args:
      corpus: Texts, whose ``train`` split is counted.
      size: Largest vocabulary, with padding and the unknown word.

    Raises:
      ValueError: If the size leaves no room for a word.
    """
    if size < 3:
        raise ValueError(f"a vocabulary needs room for padding, the unknown and one word, got size={size}")
    words = CountVectorizer(token_pattern=r"\w+|[^\w\s]", max_features=size - 2)
    words.fit(_texts(corpus, corpus.splits["train"]))
    split, number = words.build_analyzer(), {word: i + 2 for word, i in words.vocabulary_.items()}
    return Tokenizer(lambda text: [number.get(word, 1) for word in split(text)], len(number) + 2)


def word_piece_tokenizer(corpus: Corpus, size: int = 8192) -> Tokenizer:
    """Learn BERT's word pieces from the training texts by the ``tokenizers`` library; 1 is the unknown.

    Lower-case words and punctuation marks are cut into the longest pieces of the vocabulary, so that rare
    words consist of frequent parts instead of being unknown.

    Args:
      corpus: Texts, whose ``train`` split is used.
      size: Largest vocabulary, with padding, the unknown piece and single characters.

    Raises:
      ImportError: If the ``tokenizers`` library is missing (``pip install jgd[llm]``).
      ValueError: If the size leaves no room for a piece.
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
    """Turn texts into rows of tokens, cut or padded at the end.

    Args:
      corpus: Texts, see `read_texts`.
      tokenizer: Function from texts to tokens.
      length: Number of tokens of a row.

    Returns:
      A task with ``x`` ``[N, length]`` int32, 0 where there is no token, and ``mask`` ``[N, length]``, true
      where there is one. A text without any token is one padding token that counts.

    Raises:
      ValueError: If the length is below one, or tokens are out of range.
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
    """Count words, hashed to ``size`` numbers and scaled to length one: ``x`` ``[N, size]`` float32."""
    counts: Any = HashingVectorizer(n_features=size, alternate_sign=False, dtype=np.float32)  # pyright: ignore[reportArgumentType]
    return _task(corpus, counts.transform(_texts(corpus)).toarray(), None)
