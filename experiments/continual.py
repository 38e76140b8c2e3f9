"""Condensed graphs as the memory of a network whose classes come two at a time.

    JGD_DATA_DIR=... python experiments/continual.py            # about ten minutes on two cores

See `jgd.evaluation.continual`. A row that is in ``results/continual.json`` is not run again (``--fresh`` does).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
import measure

import jgd
from jgd.condense import METHODS
from jgd.core import atomic_write
from jgd.evaluation import average_accuracy, average_forgetting, continual

DATASETS = ("cora", "citeseer")
RATIO = 0.5
KEYS = 3
NETWORKS = 2
CONFIG = jgd.EvalConfig(steps=300, hidden=64, select_every=10)
FILE = measure.RESULTS / "continual.json"

JOINT, NOTHING = "originals of all groups", "originals of the newest group"
ROWS: dict[str, tuple[str | None, str]] = {
    JOINT: (None, "all"),
    "average-sgc": ("average-sgc", "all"),
    "clustgdd": ("clustgdd", "all"),
    "herding": ("herding", "all"),
    "random": ("random", "all"),
    "average-sgc, newest set": ("average-sgc", "newest"),
    NOTHING: (None, "newest"),
}
"""Method and memory of each row; no method are the originals."""


def measured(dataset: str, method: str | None, memory: Any) -> dict[str, Any]:
    """One row: every key gives its sets and its networks."""
    task, start = jgd.load(dataset), time.process_time()
    recipe = None if method is None else METHODS.official(method, dataset, label_ratio=RATIO)
    found = [
        continual(recipe, task, 2, memory=memory, seeds=NETWORKS, key=jax.random.key(i), config=CONFIG)
        for i in range(KEYS)
    ]
    accuracy = np.stack([r.accuracy for r in found])
    return {
        "average": average_accuracy(accuracy).tolist(),
        "forgetting": average_forgetting(accuracy).tolist(),
        "by_group": [[None if np.isnan(v) else float(v) for v in row] for row in accuracy.mean((0, 1))],
        "groups": found[0].groups,
        "nodes": found[0].nodes.tolist(),
        "seconds": time.process_time() - start,
    }


HEADER = ["trained on", "nodes by stage", "average accuracy %", "average forgetting", "groups at the end %"]
INTRODUCTION = f"""
Classes come two at a time, in order (the last group takes what remains); each group is condensed when it comes, at a
label ratio of {RATIO}, and a fresh GCN (64 hidden, 300 epochs, selected on the validation nodes of all classes so far)
is trained on the condensed sets alone. It is tested after the last group, on the graph with all edges, and chooses among
all classes. Averages are over groups, whatever their size; forgetting is in points lost since a group came. Mean ±
standard deviation over {KEYS} keys, each with {NETWORKS} networks. Nodes are labelled ones that are trained on.

A group is the graph of all nodes of its classes, test nodes included, so that the stream says of every node that it is
of one of few classes. Methods that use nodes without labels (clustgdd clusters them, average-sgc averages over neighbours)
gain by that, and may surpass networks trained on the originals of all groups, which see all classes in one graph.
"""


def over_keys(values: list[list[float]]) -> str:
    """Mean and deviation in points of the means of each key."""
    means = 100 * np.mean(values, axis=1)
    return f"{means.mean():.1f} ± {means.std():.1f}"


def markdown(record: dict[str, Any]) -> str:
    """The result as a page."""
    parts = ["# Classes that come in groups\n", measure.described(record["provenance"]), INTRODUCTION]
    for dataset in (d for d in DATASETS if record.get(d)):
        rows = {name: record[dataset][name] for name in ROWS if name in record[dataset]}
        lines = [
            [
                name,
                ", ".join(map(str, entry["nodes"])),
                over_keys(entry["average"]),
                over_keys(entry["forgetting"]),
                ", ".join(f"{100 * value:.1f}" for value in entry["by_group"][-1]),
            ]
            for name, entry in rows.items()
        ]
        parts += [f"\n## {dataset}\n", measure.table(HEADER, lines)]
    return "\n".join(parts) + "\n"


def main() -> None:
    """Run what is missing, and write ``results/continual.{json,md}``."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--fresh", action="store_true", help="run everything again")
    options = parser.parse_args()
    record = json.loads(FILE.read_text()) if FILE.exists() and not options.fresh else {}
    record.setdefault("provenance", {})
    for dataset in DATASETS:
        for name, (method, memory) in ROWS.items():
            if name in record.setdefault(dataset, {}):
                continue
            start = time.perf_counter()
            record[dataset][name] = found = measured(dataset, method, memory)
            measure.note(record, f"{dataset}/{name}")
            with atomic_write(FILE, "w") as file:
                json.dump(record, file, indent=1)
            said = f"{over_keys(found['average'])} %, {time.perf_counter() - start:.0f} s"
            print(f"{time.strftime('%H:%M:%S')} {dataset} {name}: {said}", flush=True)
    measure.write("continual", record, markdown(record))


if __name__ == "__main__":
    main()
