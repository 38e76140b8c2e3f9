"""What holds of every dataset of the catalogue: a new one is covered by its being there."""

import importlib
import inspect
import pkgutil
from typing import get_args

import numpy as np
import pytest

import jgd.data
from jgd.data import DATASETS, Corpus, GraphTask, NodeTask, checksum, datasets, load
from jgd.data.checks import known
from jgd.data.facts import Facts, Kind
from jgd.data.storage import Remote, present

SPLITS = ("train", "val", "test", "unlabelled")
SLOW = {"cifar10-jpeg": "60 000 files are decoded"}
SMALL = {  # arguments that small files of the official format need
    "power-law": {"num_nodes": 100, "num_edges": 200, "num_classes": 4},
    "sst2": {"val": 2},
    "cpf:cora": {"train_per_class": 1, "val_per_class": 1},
    "cpf:citeseer": {"train_per_class": 1, "val_per_class": 1},
}


def every():
    return [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else [], id=n) for n in DATASETS]


def write(official, root, name):
    """Small files of the official format."""
    make = DATASETS[name].make
    loader = getattr(make, "func", make).__name__
    if loader in ("cifar10", "cifar100"):
        official.cifar(root, int(loader.removeprefix("cifar")))
    elif loader in ("mnist", "cifar10_jpeg", "sst2", "tweets"):
        getattr(official, loader)(root)
    else:
        getattr(official, loader)(root, name.rpartition(":")[2])


def rows(task):
    """Labels with the kind of them, and the masks that there are."""
    if isinstance(task, Corpus):
        labels = np.asarray([record["label"] for record in task.records])
        masks = {part: np.isin(np.arange(len(labels)), index) for part, index in task.splits.items()}
        assert sum(map(len, task.splits.values())) == sum(int(mask.sum()) for mask in masks.values())
        return labels, "classes", masks
    labels = task.labels if isinstance(task, NodeTask | GraphTask) else task.y
    masks = {part: getattr(task, part, None) for part in SPLITS}
    return labels, task.target_kind, {part: np.asarray(m) for part, m in masks.items() if m is not None}


def check(task):
    """Labels are classes in range, splits share no rows, and what is learned from has labels."""
    labels, kind, masks = rows(task)
    assert kind == "classes"
    assert labels.min() >= -1
    if not isinstance(task, Corpus):
        assert labels.max() < task.num_classes
    assert set(masks) >= {"train", "test"}
    assert sum(mask.astype(int) for mask in masks.values()).max() == 1
    for part in ("train", "test"):
        assert masks[part].any()
        assert known(labels, kind)[masks[part]].all()


def digest(task):
    return checksum(
        {"records": [str(task.records)], "splits": task.splits} if isinstance(task, Corpus) else task
    )


@pytest.mark.parametrize("name", DATASETS)
def test_its_facts_are_stated(name):
    entry = DATASETS[name]
    assert entry.name == name
    assert set(entry.facts) == set(Facts.__annotations__)
    assert entry.facts["kind"] in get_args(Kind)
    assert entry.kinds == ({"node": "nodes", "graph": "graphs"}.get(entry.facts["kind"], "arrays"),)
    assert entry.facts["size"] > entry.facts["classes"] > 1
    for text in (entry.summary, entry.facts["source"], entry.facts["licence"]):
        assert text
        assert text == text.strip()
        assert len(text.splitlines()) == 1
    assert entry.summary.endswith(".")
    for file in entry.facts["files"]():
        assert isinstance(file, Remote)
        assert all(url.startswith("https://") for url in file.urls)
    needed = [p for p in inspect.signature(entry.make).parameters.values() if p.default is p.empty]
    assert not needed


@pytest.mark.parametrize("name", DATASETS)
def test_small_files_of_its_format_load(name, data_root, official):
    files = DATASETS[name].facts["files"]
    if files():
        assert not any(map(present, files()))
        write(official, data_root, name)
    assert all(map(present, files()))
    assert next(row.present for row in datasets() if row.name == name)
    task = load(name, **SMALL.get(name, {}))
    check(task)
    assert digest(task) == digest(load(name, **SMALL.get(name, {})))


@pytest.mark.parametrize("name", every())
def test_its_data_agree_with_its_facts(name):
    entry = DATASETS[name]
    if missing := [file.path for file in entry.facts["files"]() if not present(file)]:
        pytest.skip(f"{missing[0]} is not under JGD_DATA_DIR")
    task = load(name)
    check(task)
    labels, kind, _ = rows(task)
    assert len(labels) == entry.facts["size"]
    classes = np.unique(labels[known(labels, kind)])
    np.testing.assert_array_equal(classes, np.arange(entry.facts["classes"]))
    if not isinstance(task, Corpus):
        assert task.num_classes == entry.facts["classes"]
    assert digest(task) == digest(load(name))


def test_the_catalogue_names_what_is_declared():
    declared = []
    for module in pkgutil.iter_modules(jgd.data.__path__, "jgd.data."):
        declared += getattr(importlib.import_module(module.name), "ENTRIES", ())
    assert sorted(entry.name for entry in declared) == sorted(DATASETS)
    assert [row.name for row in datasets()] == [
        name for kind in get_args(Kind) for name in DATASETS if DATASETS[name].facts["kind"] == kind
    ]


def test_all_are_listed_by_the_command_line(capsys):
    from jgd.cli.main import main

    assert main(["datasets"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    for row in datasets():
        (line,) = [words for words in lines if words[:1] == [row.name] and words[1:2] == [row.kind]]
        assert line[2:5] == [str(row.size), str(row.classes), "yes" if row.present else "no"]
