import numpy as np
import pytest

from jgd.data import DataError, GraphTask, datasets, load


def test_every_row_can_be_loaded_by_name(data_root, official):
    rows = {row.name: row for row in datasets()}
    assert {name for name, row in rows.items() if row.present} == {
        "digits", "digits-images", "sbm", "power-law",
    }  # fmt: skip
    for name in ("cora", "citeseer", "pubmed"):
        official.planetoid(data_root, name)
    for name in ("cornell", "texas", "wisconsin", "chameleon", "squirrel", "film"):
        official.geom_gcn(data_root, name)
    for name in ("cora", "citeseer"):
        official.cpf(data_root, name)
    for name in rows:
        if name.startswith("tu:"):
            official.tu(data_root, name.removeprefix("tu:"))
    official.mnist(data_root)
    official.cifar(data_root, 10)
    official.cifar(data_root, 100)
    official.jpegs(data_root)
    official.sst2(data_root)
    official.tweets(data_root)
    options = {"power-law": {"num_nodes": 100, "num_edges": 200, "num_classes": 4}, "sst2": {"val": 2}}
    for name in ("cpf:cora", "cpf:citeseer"):
        options[name] = {"train_per_class": 1, "val_per_class": 1}
    for row in datasets():
        assert row.present
        task = load(row.name, **options.get(row.name, {}))
        assert isinstance(task, GraphTask) == (row.kind == "graph")
        assert row.source
        assert row.licence


def test_archives_count_as_present(data_root, official):
    official.tu(data_root, "MUTAG", zipped=True)
    assert next(row.present for row in datasets() if row.name == "tu:MUTAG")
    assert load("tu:MUTAG", seed=1).num_graphs == 20


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("corra", "cora"),
        ("Cora", "cora"),
        ("digit", "digits"),
        ("mutag", "tu:MUTAG"),
        ("powerlaw", "power-law"),
    ],
)
def test_unknown_names_have_suggestions(name, close):
    with pytest.raises(DataError, match=close):
        load(name)
    with pytest.raises(DataError, match=r"known are .*cora"):
        load("????????")


def test_facts_match_the_data(real):
    real("planetoid/ind.cora.x")
    for row in datasets():
        if row.present and row.kind == "node" and row.name != "power-law":
            task = load(row.name)
            assert (task.num_nodes, task.num_classes) == (row.size, row.classes), row.name
            labels = task.labels[task.labels >= 0]
            assert np.array_equal(np.unique(labels), np.arange(row.classes)), row.name
