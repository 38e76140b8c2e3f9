"""What the committed results say: they are complete, say where they come from, and reach what is claimed."""

import json
import re
from pathlib import Path

import numpy as np
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


ABOUT = {"command", "date", "device", "processor", "python", "versions", "commit", "stamps", "provenance"}
# A part is a table of rows that run by themselves.
BY_ROW = ("continual", "mirage", "graph_condensation", "robustness")
WITHIN = ("kd", "foundation")  # a stamp can be of one row or column of a part, "part (row)"
AT_ONCE = ("propagation", "training", "kd_training", "losses", "sfgc_full", "condensation_speed")


def rows_of(name, record):
    """Names of what runs by itself."""
    if name == "condensation":
        rows = {f"{r['dataset']}/{r['method']}/{r['ratio']}" for r in record["rows"]}
        settings = {f"settings: {name}" for name in record["settings"]}
        return rows | settings | {f"{dataset}/whole graph" for dataset in record["full"]} | {"golden"}
    if name == "ideas":
        return set(record["tests"])
    parts = {part: rows for part, rows in record.items() if part not in ABOUT}
    if name in BY_ROW:
        return {f"{part}/{row}" for part, rows in parts.items() for row in rows}
    return set(parts)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_every_row_says_when_it_ran(path):
    record = json.loads(path.read_text())
    if path.stem in AT_ONCE:
        found = {"all": record}
    else:
        found = record["stamps"]
        names = {re.sub(r" \(.*\)$", "", name) if path.stem in WITHIN else name for name in found}
        assert names == rows_of(path.stem, record)
        page = path.with_suffix(".md").read_text()
        assert all(stamp["commit"][:10] in page for stamp in found.values())
    for stamp in found.values():
        assert re.fullmatch(r"unknown|[0-9a-f]{40}(\+dirty)?", stamp["commit"])
        assert re.fullmatch(r"unknown|20\d\d-\d\d-\d\d", stamp["date"])


def test_a_stamp_is_set_when_a_part_runs_and_only_then(monkeypatch, tmp_path):
    import sys

    monkeypatch.setattr(sys, "path", [str(RESULTS.parent / "benchmarks"), *sys.path])
    import measure

    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    old = {"commit": "0" * 40, "date": "2020-01-01"}
    record = {"a": 1, "stamps": {"a": old}, "provenance": {"date": "2020-01-01", "backfilled": True}}
    measure.run_parts("x", record, {"a": lambda: 2})
    assert (record["a"], record["stamps"], record["provenance"]["date"]) == (1, {"a": old}, "2020-01-01")
    measure.run_parts("x", record, {"a": lambda: 2, "b": lambda: 3})
    assert (record["a"], record["b"]) == (1, 3)
    assert record["stamps"]["a"] == old
    now = measure.stamp()
    assert record["stamps"]["b"] == now
    assert {name: record["provenance"][name] for name in now} == now
    assert "backfilled" not in record["provenance"]
    measure.run_parts("x", record, {"a": lambda: 2}, frozenset("a"))
    assert (record["a"], record["stamps"]["a"]) == (2, now)
    assert json.loads((tmp_path / "x.json").read_text()) == record
    page = measure.save("x", record, "# X\n")
    assert measure.short(now["commit"]) in page
    assert page == (tmp_path / "x.md").read_text()


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


def test_condensers_are_faster_than_the_same_loops_in_pytorch():
    found = load("condensation_speed")["results"]
    for loop, least in (("gcond", 5), ("sfgc, 20 experts", 10)):
        assert found[loop]["PyTorch"]["median"] > least * found[loop]["jgd"]["median"]


def test_condensation_grows_no_faster_than_the_graph():
    small, *_, large = load("condensation_speed")["scaling"]
    growth = large["nodes"] / small["nodes"]
    assert large["nodes"] >= 170_000
    assert large["later"] / small["later"] < growth
    assert large["peak_mib"] / small["peak_mib"] < growth


def test_condensation_rows_are_complete():
    record = load("condensation")
    for row in record["rows"]:
        assert row.get("test"), f"{row['method']} on {row['dataset']} has no result: {row.get('errors')}"
        assert all(0 <= value <= 1 for value in row["test"])
    methods = {row["method"] for row in record["rows"] if row["dataset"] == "cora"}
    assert {"random", "average-sgc", "gcond", "cgc-x", "clustgdd"} <= methods


def test_learned_condensers_beat_random_nodes():
    means = {
        row["method"]: sum(row["test"]) / len(row["test"])
        for row in load("condensation")["rows"]
        if row["dataset"] == "cora" and row["ratio"] == 0.5 and row.get("test")
    }
    for method in ("gcond", "gcond-x", "cgc", "cgc-x"):
        assert means[method] > means["random"] + 0.05


def test_mirage_beats_random_graphs_of_as_many_nodes():
    found = load("mirage")["nci1"]
    assert found["mirage"]["auc_mean"] > found["random graphs"]["auc_mean"] + 0.03


def test_condensers_of_sets_of_graphs_are_complete():
    from jgd.condense import METHODS

    methods = [entry.name for entry in METHODS.entries() if "graphs" in entry.kinds]
    assert len(methods) == 6
    record = load("graph_condensation")
    page = (RESULTS / "graph_condensation.md").read_text()
    for dataset in ("MUTAG", "PROTEINS", "NCI1", "IMDB-BINARY"):
        rows = record[dataset]
        assert {*methods, "all graphs", "random, nodes of mirage"} <= set(rows)
        for name, row in rows.items():
            scores = row["gin"]
            assert len(row["nodes"]) == len(row["seconds"]) == len(scores["test"]) == len(scores["auc"]) >= 2
            assert all(0 <= value <= 1 for what in scores.values() for pair in what for value in pair)
            assert name == "all graphs" or max(row["nodes"]) < min(rows["all graphs"]["nodes"])
        # What does not beat random graphs is said.
        assert page.count(f"## {dataset}") == 1
    assert "random" in page
    assert sum(map(sum, record["NCI1"]["all graphs"]["gin"]["auc"])) / 6 > 0.72


@pytest.mark.parametrize("dataset", ["cora", "citeseer"])
def test_condensed_memories_keep_old_classes(dataset):
    rows = load("continual")[dataset]
    average, forgetting = (
        {name: sum(map(sum, row[what])) / sum(map(len, row[what])) for name, row in rows.items()}
        for what in ("average", "forgetting")
    )
    joint, last = average["originals of all groups"], average["originals of the newest group"]
    for method in ("random", "herding", "average-sgc", "clustgdd"):
        assert average[method] > last + 0.1
        assert forgetting[method] < forgetting["originals of the newest group"] - 0.2
    assert average["random"] < min(average["average-sgc"], joint)


def test_detection_collapses_without_its_text():
    text = (RESULTS / "graphdart.md").read_text()
    f1 = {
        line.split("|")[1].strip(): float(re.split(r" ± ", line.split("|")[5].strip())[0])
        for line in text.splitlines()
        if line.count("|") > 6 and re.match(r"[\d.]+ ± ", line.split("|")[5].strip() + " ")
    }
    assert f1["shuffled, whole graph"] < 0.5 * f1["whole graph"]
    assert f1["clustering, 5 %"] > f1["whole graph"] - 0.05


def test_distillation_pays_on_pruned_sets():
    record = load("kd_pruning")

    def at(fraction, *setting):
        names = ("labels", "score", "teacher", "alpha")
        rows = record[str(fraction)]["rows"]
        test = next(r["test"] for r in rows if tuple(r[n] for n in names) == setting)
        assert len(test) >= 4
        return sum(test) / len(test)

    for labels in ("clean", "noisy"):
        teachers = record["teachers"][labels]
        assert sum(teachers["big"]) > sum(teachers["small"])
        gains = [
            at(f, labels, "random", "big", 1.0) - at(f, labels, "random", "big", 0.0)
            for f in (0.02, 0.05, 0.5)
        ]
        assert gains[0] > 0.1
        assert gains[0] > gains[1] > gains[2]
        for f in (0.02, 0.05):
            for alpha in (0.0, 0.3, 0.7, 1.0):
                assert at(f, labels, "random", "big", alpha) > at(f, labels, "el2n", "big", alpha)
    for f in (0.02, 0.05, 0.1):  # wrong labels: the more teacher the better, and hard examples are wrong ones
        by_weight = [at(f, "noisy", "random", "big", alpha) for alpha in (0.0, 0.3, 0.7, 1.0)]
        assert by_weight == sorted(by_weight)
        assert at(f, "noisy", "el2n", "big", 0.0) < 0.1
    for f, better in ((0.02, "small"), (0.3, "big"), (0.5, "big")):
        rival = {"small": "big", "big": "small"}[better]
        assert at(f, "noisy", "random", better, 1.0) > at(f, "noisy", "random", rival, 1.0)
    # Cases that fall short of what is claimed are named.
    page = (RESULTS / "kd_pruning.md").read_text()
    assert page.count("**holds**") + page.count("**fails in") == 5


def test_recommended_distillations_are_better_than_random_ones():
    record = load("autodistiller")
    rows = record["leave one out"]["variants"]["ranks within the task"]
    assert len(rows) == 8
    assert sum(row["recommended"] > row["average"] for row in rows) >= 6
    assert sum(row["recommended"] - row["average"] for row in rows) / 8 > 0.03
    halving, every = record["search"]["halving"], record["search"]["all"]
    assert halving["steps"] < every["steps"] / 2
    scores = {json.dumps(r["pipeline"]): r["score"] for r in every["runs"]}
    assert len(scores) == len(every["runs"]) == len(halving["runs"])
    assert scores[json.dumps(halving["runs"][0]["pipeline"])] > sum(scores.values()) / len(scores)


def test_every_loss_of_distillation_was_measured():
    record = load("kd")
    for n in (100, 200, 1000):
        rows = record[f"digits-{n}"]
        assert len(rows) >= 20
        assert all(len(row["accuracy"]) >= 8 for name, row in rows.items() if name != "teacher")
        assert all({"ece", "nll", "agreement"} <= set(row) for name, row in rows.items() if name != "teacher")


def test_claims_of_the_papers_on_six_draws():
    """What is called a "yes" clears its threshold with its 95 % interval, by draw or by key."""
    record = load("kd")

    def of(part, row):
        return np.asarray(record[part][row]["accuracy"])

    def least(difference):
        spread = difference.std(ddof=1) / len(difference) ** 0.5
        return difference.mean() - {6: 2.571, 8: 2.365}[len(difference)] * spread

    for part in ("draws", "parity-draws"):
        assert all(len(row["accuracy"]) == 6 for row in record[part].values())
    assert least(of("draws", "PLD (T 4)") - of("draws", "CE")) > 0.02
    assert least(of("draws", "PLD (T 4)") - of("draws", "KD (T 4)")) > -0.01
    best = np.maximum(of("parity-draws", "KD (T 1)"), of("parity-draws", "KD (T 4)"))
    assert 0 < least(of("parity-draws", "LELP") - best) < 0.015  # above KD, but by 1.5 points is not clear
    assert least(of("parity-draws", "KD (T 4)") - of("parity-draws", "random subclasses")) > 0
    assert least(of("peers", "BD-KD (delta 2, T 3)") - of("peers", "DML (T 3)")) > 0
    page = (RESULTS / "kd.md").read_text()
    claims = [line.split("|") for line in page.splitlines() if " to " in line and line.count("|") == 5]
    assert len(claims) == 13
    verdicts = {cells[1].strip(): cells[4].strip() for cells in claims}
    assert set(verdicts.values()) <= {"yes", "**no**", "not clear"}
    for text, verdict in verdicts.items():
        if "1.5 points above KD" in text:
            assert verdict == "not clear"
        if text.startswith(("PLD at T 4 is at least", "PLD at T 4 is within", "BD-KD", "random subclasses")):
            assert verdict == "yes"
    assert {"maps", "mnist-1000", "mnist-10000", "sst2", "tweets", "cora", "relations-draws"} <= set(record)


@pytest.mark.parametrize(
    ("values", "least", "most", "verdict"),
    [
        ([2.0, 2.2, 2.4], 1.5, np.inf, "yes"),  # half of the interval is 4.303 * 0.2 / sqrt(3) = 0.497
        ([2.0, 2.2, 2.4], 1.8, np.inf, "not clear"),
        ([2.0, 2.2, 2.4], 2.8, np.inf, "**no**"),
        ([2.0, 2.2, 2.4], -1, 2.6, "not clear"),
        ([2.0, 2.2, 2.4], -1, 2.8, "yes"),
        ([2.0, 2.2, 2.4], -1, 1.6, "**no**"),
    ],
)
def test_a_claim_needs_its_interval(monkeypatch, values, least, most, verdict):
    import sys

    monkeypatch.setattr(sys, "path", [str(RESULTS.parent), *sys.path])
    import kd_table

    low, high = kd_table.interval(np.asarray(values))
    np.testing.assert_allclose([low, high], [2.2 - 0.4968, 2.2 + 0.4968], atol=1e-3)
    assert kd_table.verdict(low, high, least, most) == verdict


def test_methods_take_as_long_as_their_class_says():
    """Median seconds on Cora; "hours" are those of schedules that the table shortens."""
    from jgd.condense import METHODS

    most, seen = {"none": 1, "seconds": 60, "minutes": 600}, set()
    for row in load("condensation")["rows"]:
        if (row["dataset"], row["ratio"]) == ("cora", 0.5) and row.get("seconds"):
            seen.add(row["method"])
            cost = METHODS[row["method"]].cost
            assert np.median(row["seconds"]) <= most.get(cost, np.inf), row["method"]
    assert len(seen) > 25


def test_teachers_help_where_labels_are_few():
    def mean(part, row):
        values = load("kd")[part][row]["accuracy"]
        return sum(values) / len(values)

    few = "digits-100"
    for row in ("KD (T 4)", "PLD (T 4)", "DKD", "standardised logits"):
        assert mean(few, row) > mean(few, "CE") + 0.02, row
    # A teacher that knows its images by heart has nothing to say at temperature one.
    assert abs(mean(few, "KD alone (T 1)") - mean(few, "CE")) < 0.01
    assert mean("parity", "LELP") > mean("parity", "random subclasses")


def test_ideas_that_take_long_passed():
    tests = load("ideas")["tests"]
    assert all(entry["outcome"] in ("passed", "skipped") for entry in tests.values())
    assert any("test_sgdd" in name for name in tests)
