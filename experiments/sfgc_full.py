"""SFGC with its full count of experts on Cora: 200 experts, 2000 matching steps, within a memory and a disk budget.

    JGD_DATA_DIR=... python experiments/sfgc_full.py              # about half an hour on two idle cores
    JGD_DATA_DIR=... python experiments/sfgc_full.py --out DIR    # resumable: the same command goes on

All snapshots of all experts (every ten epochs, float32) would be 74 GB. Experts are trained in groups inside the
loop, used and dropped; what is on disk are the checkpoints of one group.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
import measure

import jgd
from jgd.condense import METHODS


def folder_bytes(folder: Path) -> int:
    """Bytes of all files under a folder, as far as they stay."""
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.stat().st_size
        except OSError:  # a checkpoint that was just removed
            continue
    return total


def main() -> None:
    """Run, and write ``results/sfgc_full.{json,md}``."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, help="folder of the run; a temporary one by default")
    options = parser.parse_args()
    task = jgd.load("cora")
    recipe = METHODS.official("sfgc", "cora", label_ratio=0.5)
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary)
        most, done = [0], threading.Event()

        def watch():
            while not done.wait(2.0):
                most[0] = max(most[0], folder_bytes(out))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        wall, cpu = time.perf_counter(), time.process_time()
        small = jgd.run(recipe, jax.random.key(0), task, out=out, resume=True)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        done.set()
        watcher.join()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    score = jgd.evaluate(small, task, seeds=5, config=jgd.EvalConfig(select_every=10))["gcn"].seeds()
    command = "python experiments/sfgc_full.py" + (" --out DIR" if options.out else "")
    record = measure.provenance() | {
        "command": command,
        "config": small.provenance["config"],
        "test": score.tolist(),
        "wall_seconds": wall,
        "cpu_seconds": cpu,
        "peak_gib": peak,
        "disk_gib": most[0] / 2**30,
    }
    lines = [
        "# SFGC on Cora, 70 nodes, with all its experts\n",
        measure.described(record),
        f"\n{recipe.experts} experts in groups of {recipe.group}, {recipe.steps} matching steps, one key. Test accuracy of "
        f"five GCNs trained on the result: {100 * np.mean(score):.1f} ± {100 * np.std(score):.1f} %.\n",
        measure.table(
            ["wall clock, s", "CPU, s", "peak memory, GiB", "most on disk, GiB"],
            [[f"{wall:.0f}", f"{cpu:.0f}", f"{peak:.2f}", f"{most[0] / 2**30:.2f}"]],
        ),
        "\nOther jobs ran on the machine at the same time: read the wall clock as an upper bound.\n",
    ]
    measure.write("sfgc_full", record, "\n".join(lines))


if __name__ == "__main__":
    main()
