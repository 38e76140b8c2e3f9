"""Damaged files end in data or in one line: two hundred mutants of each loader's files.

They are loaded by experiments/fuzz.py in processes of its own, with limits of memory and time; its command
line runs thousands.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "fuzz.py"
MUTANTS = 200


@pytest.fixture(scope="module")
def fuzz():
    spec = importlib.util.spec_from_file_location("jgd_fuzz", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["jgd_fuzz"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.long
def test_mutants(tmp_path, fuzz):
    """One process for all: without the checks of annotations a mutant takes milliseconds."""
    count = MUTANTS * len(fuzz.TARGETS)
    path = tmp_path / "rows.json"
    command = [sys.executable, str(SCRIPT), "--mutants", str(count), "--seed", "1", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = json.loads(path.read_text())
    assert {row["what"] for row in rows} == set(fuzz.TARGETS)
    for row in rows:
        assert row["tried"] == row["held"] == row["loaded"] + row["refused"] == MUTANTS, row
        assert row["refused"] > MUTANTS // 4, row


def fail(error):
    def load(root):
        raise error

    return load


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyError("x"), "KeyError"),
        (ValueError("a\nb"), "several lines"),
        (ValueError("it cannot be read (MemoryError)"), "more than"),
        (ValueError("one line"), "refused"),
    ],
)
def test_what_does_not_hold_is_seen(tmp_path, fuzz, error, message):
    assert message in fuzz.outcome(fuzz.Target(lambda root: None, fail(error)), tmp_path)
