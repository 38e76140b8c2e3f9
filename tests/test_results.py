"""What the committed results say: they are complete, say where they come from, and reach what is claimed."""

import json
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[1] / "experiments" / "results"
RATIOS = ("0.25", "0.5", "1.0")


def load(name):
    return json.loads((RESULTS / f"{name}.json").read_text())


def part(record, name):
    if name not in record:
        pytest.skip(f"{name} has not been measured yet (python experiments/foundation.py does)")
    return record[name]


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_results_say_where_they_come_from(path):
    record = json.loads(path.read_text())
    record = record.get("provenance", record)
    assert record["command"].startswith("python experiments/")
    assert {"date", "device", "processor", "python", "versions"} <= set(record)
    assert {"jax", "jgd"} <= set(record["versions"])
    assert path.with_suffix(".md").exists()


@pytest.mark.parametrize(("dataset", "least"), [("cora", 0.805), ("citeseer", 0.70)])
def test_full_graph_reaches_what_is_known(dataset, least):
    full = load("foundation")[f"{dataset}/full"]
    assert full["seeds"] >= 5
    assert full["test_mean"] >= least


@pytest.mark.parametrize(
    ("dataset", "least"), [("cora", (0.765, 0.77, 0.805)), ("citeseer", (0.68, 0.67, 0.69))]
)
def test_clustgdd_reaches_its_aims(dataset, least):
    record = load("foundation")
    for ratio, aim in zip(RATIOS, least, strict=True):
        methods = part(record, f"{dataset}/{ratio}")["methods"]
        # The card's evaluator looks after every epoch; the table every ten, which is a little worse.
        ours = record.get(f"{dataset}/{ratio}/every-epoch", methods["clustgdd"])
        assert len(ours["test"]) >= 5
        assert ours["test_mean"] >= aim
    smallest = part(record, f"{dataset}/0.25")["methods"]
    # A random partition must not do: the clusters are what counts.
    assert smallest["clustgdd, random partition"]["test_mean"] < smallest["clustgdd"]["test_mean"] - 0.1
    rival = max(smallest[name]["test_mean"] for name in ("random", "herding", "k-center"))
    assert smallest["clustgdd"]["test_mean"] >= rival + 0.03


@pytest.mark.parametrize("dataset", ["cora", "citeseer"])
@pytest.mark.parametrize("ratio", RATIOS)
def test_the_challenge_is_reported_with_its_search(dataset, ratio):
    found = part(load("foundation"), f"{dataset}/{ratio}/challenge")
    best = max(found["search"], key=lambda setting: setting["val"])
    assert {k: v for k, v in best.items() if k != "val"}.items() <= found["setting"].items()
    assert {"chosen", "average-sgc"} <= set(found)


def test_time_and_memory_grow_no_faster_than_the_graph():
    small, *_, large = part(load("foundation"), "scaling")
    growth = large["nodes"] / small["nodes"]
    assert large["nodes"] >= 170_000
    assert large["edges"] >= 1_190_000
    assert large["seconds"] / small["seconds"] < growth
    assert large["peak_mib"] / small["peak_mib"] < growth


@pytest.mark.parametrize("name", ["propagation", "training"])
def test_benchmarks_name_their_peers(name):
    contestants = {entry["contestant"] for entry in load(name)["results"]}
    assert "jgd" in contestants
    assert any(c.startswith("PyG") for c in contestants)
