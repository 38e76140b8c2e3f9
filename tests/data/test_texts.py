"""Labelled texts from tables, tokens, bags of words."""

import sys

import numpy as np
import pytest

from jgd.data import (
    Corpus,
    DataError,
    Tokenizer,
    bag_of_words,
    byte_tokenizer,
    load,
    read_texts,
    tokenized,
    word_piece_tokenizer,
    word_tokenizer,
)


def corpus(texts, labels=None, train=None):
    labels = [0] * len(texts) if labels is None else labels
    records = [
        {"id": str(i), "text": t, "label": y} for i, (t, y) in enumerate(zip(texts, labels, strict=True))
    ]
    return Corpus(records=records, splits={"train": list(range(len(texts))) if train is None else train})


@pytest.mark.parametrize("zipped", [False, True])
def test_sst2_format(data_root, official, network, zipped):
    official.sst2(data_root, zipped)
    texts = load("sst2", val=4, seed=1)
    assert {part: len(index) for part, index in texts.splits.items()} == {
        "train": 16, "test": 2, "unlabelled": 3, "val": 4,
    }  # fmt: skip
    first = texts.records[texts.splits["test"][0]]
    assert (first["text"], first["label"]) == ("a fine film .", 1)
    assert {texts.records[i]["label"] for i in texts.splits["unlabelled"]} == {-1}
    assert sorted(texts.records[i]["label"] for i in texts.splits["val"]) == [0, 0, 1, 1]
    assert texts.records[0]["text"] == 'phrase 0 of "it'  # quotes in .tsv are text
    assert not set(texts.splits["train"]) & set(texts.splits["val"])
    assert network == []
    task = tokenized(texts, byte_tokenizer(), 12)
    assert (task.train.sum(), task.val.sum(), task.test.sum(), task.unlabelled.sum()) == (16, 4, 2, 3)


def test_tweets_format(data_root, official):
    official.tweets(data_root)
    texts = load("tweets")
    assert texts.records[3] == {"id": "train-3", "text": 'so, a "phone" 3', "label": 3}
    assert max(r["label"] for r in load("tweets", label="Product_Type").records) == 9
    with pytest.raises(DataError, match="no column 'Mood'; its columns are Text_ID"):
        load("tweets", label="Mood")


def test_missing_texts(data_root):
    with pytest.raises(DataError, match=r"SST-2\.zip"):
        load("sst2")
    with pytest.raises(DataError, match="Cli212/Distiller"):
        load("tweets")


def test_read_texts(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_text(content)
        return path

    words = write("words.csv", "text,mood\none,happy\ntwo,sad\nthree,\ufeffhappy\n".replace("\ufeff", ""))
    numbers = write("numbers.tsv", "mood\ttext\n10\tone\n9\ttwo\n")
    assert [r["label"] for r in read_texts({"train": words}, text="text", label="mood").records] == [0, 1, 0]
    assert [r["label"] for r in read_texts({"train": numbers}, text="text", label="mood").records] == [1, 0]
    bad = {
        "train.csv": ("text,mood\none\n", "line 2 does not have the 2 columns"),
        "more.csv": ("text,mood\none,a,b\n", "line 2 does not have the 2 columns"),
        "none.csv": ("text,mood\none,\n", "line 2 has no label"),
        "empty.csv": ("text,mood\n", "holds no texts"),
        "void.csv": ("", "no column 'text'"),
        "quote.csv": ('text,mood\n"one,a\n', "cannot be read"),
    }
    for name, (content, message) in bad.items():
        with pytest.raises(DataError, match=message):
            read_texts({"train": write(name, content)}, text="text", label="mood")
    (tmp_path / "latin.csv").write_bytes("text,mood\ncafé,a\n".encode("latin1"))
    with pytest.raises(DataError, match=r"latin\.csv cannot be read"):
        read_texts({"train": tmp_path / "latin.csv"}, text="text", label="mood")
    with pytest.raises(DataError, match="no training text has the label 'happy'"):
        read_texts({"train": numbers, "test": words}, text="text", label="mood")
    with pytest.raises(DataError, match="either val="):
        read_texts({"train": words, "val": words}, text="text", label="mood", val=1)
    with pytest.raises(DataError, match="no split is called 'dev'"):
        read_texts({"train": words, "dev": words}, text="text", label="mood")
    with pytest.raises(DataError, match="cannot set 3 of 3"):
        read_texts({"train": words}, text="text", label="mood", val=3)


def test_tokenized():
    texts = corpus(["abc", "", "héllo"], [0, 1, -1])
    task = tokenized(texts, byte_tokenizer(), 4)
    assert task.x.tolist() == [[98, 99, 100, 0], [0] * 4, [105, 196, 170, 109]]
    assert task.mask.tolist() == [[True] * 3 + [False], [True] + [False] * 3, [True] * 4]
    assert (task.y.tolist(), task.num_classes) == ([0, 1, -1], 2)
    for bad in (
        Tokenizer(lambda text: [7], 7),
        Tokenizer(lambda text: [1, 0], 7),
        Tokenizer(lambda _: [-1], 7),
    ):
        with pytest.raises(ValueError, match=r"outside 1\.\.6"):
            tokenized(texts, bad, 4)
    with pytest.raises(ValueError, match="at least 1"):
        tokenized(texts, byte_tokenizer(), 0)


def test_word_tokenizer():
    texts = corpus(["The cat, the dog", "the cat", "a test word"], train=[0, 1])
    tokenizer = word_tokenizer(texts, 4)
    assert tokenizer.vocab_size == 4  # padding, unknown, "the", "cat"
    the, cat = tokenizer.encode("THE cat")
    assert {the, cat} == {2, 3}
    assert tokenizer.encode("the, bird") == [the, 1, 1]
    full = word_tokenizer(texts)
    assert full.vocab_size == 6
    assert full.encode("a test word") == [1, 1, 1]  # only training texts are counted
    assert sorted(full.encode("the cat, dog")) == [2, 3, 4, 5]
    with pytest.raises(ValueError, match="size=2"):
        word_tokenizer(texts, 2)


def test_word_piece_tokenizer():
    pytest.importorskip("tokenizers")
    texts = corpus(["low lower lowest", "new newer newest", "wide"], train=[0, 1])
    tokenizer = word_piece_tokenizer(texts, 40)
    assert 2 < tokenizer.vocab_size <= 40
    assert list(tokenizer.encode("")) == []
    assert list(tokenizer.encode("wide")) == [1]  # letters that no training text has
    whole, parts = tokenizer.encode("lowest"), tokenizer.encode("lowwest")
    assert len(whole) < len(parts)
    assert 1 not in parts  # an unknown word of known pieces
    assert list(tokenizer.encode("LOWEST")) == list(whole)
    assert max([*whole, *parts]) < tokenizer.vocab_size
    task = tokenized(texts, tokenizer, 6)
    np.testing.assert_array_equal(task.x > 0, task.mask)
    again = word_piece_tokenizer(texts, 40)
    np.testing.assert_array_equal(tokenized(texts, again, 6).x, task.x)
    with pytest.raises(ValueError, match="size=2"):
        word_piece_tokenizer(texts, 2)


def test_word_pieces_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"jgd\[llm\]"):
        word_piece_tokenizer(corpus(["a b"], train=[0]))


def test_bag_of_words():
    task = bag_of_words(corpus(["one two two", "two one two", "three"]), 64)
    np.testing.assert_array_equal(task.x[0], task.x[1])
    np.testing.assert_allclose(np.linalg.norm(task.x, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(np.sort(task.x[0])[-2:], np.array([1, 2]) / np.sqrt(5), rtol=1e-6)
    assert (task.x.shape, task.x.dtype) == ((3, 64), np.float32)


def test_real_texts(real):
    real("sst2/train.tsv")
    texts = load("sst2")
    assert {part: len(index) for part, index in texts.splits.items()} == {
        "train": 66_477, "test": 872, "unlabelled": 1821, "val": 872,
    }  # fmt: skip
    assert sum(texts.records[i]["label"] for i in texts.splits["test"]) == 444
    assert texts.records[0]["text"] == "hide new secretions from the parental units"


def test_real_tweets(real):
    real("distiller/Train.csv")
    texts = load("tweets")
    labels = [texts.records[i]["label"] for i in texts.splits["train"]]
    assert np.bincount(labels).tolist() == [95, 343, 3198, 1773]
    assert len(texts.splits["test"]) == 955
    task = tokenized(texts, word_tokenizer(texts, 2000), 40)
    assert task.x.max() == 1999
    assert 0.5 < (task.x[task.mask] > 1).mean() < 1  # most words are known
