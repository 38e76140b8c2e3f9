"""Commands and their folders: one at a time, one line for what the machine refuses, nothing lost."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import jgd
from jgd.cli.main import main
from jgd.files import lock

SMALL = ["--method=average", "--baselines", "--networks", "sgc", "--seeds=1", "--steps=5", "--nodes=20"]
LONG = "a" * 5000


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refused(capsys, *argv):
    """The one line in which a command refuses."""
    assert main([str(a) for a in argv]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1, told.err
    assert told.err.startswith("jgd: ")
    assert len(told.err) < 1100
    return told.err


@pytest.mark.long
def test_whose_folder_it_is(capsys):
    """In use, of another command, or killed while it tidied up."""
    assert main(["condense", *SMALL, "--out", "run", "--quiet"]) == 0
    capsys.readouterr()
    before = {p.name: p.read_bytes() for p in Path("run").iterdir()}
    with lock("run"):
        for more in ([], ["--no-resume"]):
            told = refused(capsys, "condense", *SMALL, "--out", "run", *more)
            assert f"run is in use by process {os.getpid()}" in told
    for argv in (
        ["distill", "--steps=1", "--out", "run"],
        ["detect", "--seeds=1", "--out", "run"],
    ):
        assert "holds a run of `jgd condense`" in refused(capsys, *argv, "--quiet")
    assert "a run of something else" in refused(capsys, "compare", "--out", "run")
    assert {p.name: p.read_bytes() for p in Path("run").iterdir()} == before
    Path("run/checkpoints/x").mkdir(parents=True)
    Path("run", f".checkpoints.{'0' * 32}.part").mkdir()
    assert main(["condense", *SMALL, "--out", "run", "--quiet"]) == 0
    capsys.readouterr()
    assert {p.name for p in Path("run").iterdir()} == set(before)
    assert json.loads(Path("run/metrics.json").read_text())["resumed"] is False


def test_compare_leaves_folders_of_other_commands_alone(capsys):
    Path("other").mkdir()
    Path("other/metrics.json").write_text("{}")
    assert "a run of something else" in refused(capsys, "compare", "--out", "other")
    assert [p.name for p in Path("other").iterdir()] == ["metrics.json"]


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ("condense --seed 100000000000000000000", "seed must be less than 2**32"),
        ("compare --seed 4294967296", "seed must be less than 2**32"),
        ("distill --seed -1", "seed must not be negative"),
        ("detect --seed -1", "seed must not be negative"),
        ("condense tu:MUTAG --seed -1", "seed must not be negative"),
        ("evaluate x.npz --seed 100000000000000000000", "seed must be less than 2**32"),
        (f"condense {LONG}", "no dataset is called"),
        (f"condense --out {LONG}", "File name too long"),
        (f"condense --out {LONG[:300]}", "File name too long"),
        (f"compare --methods {LONG}", "no method is called"),
        (f"distill {LONG}", "File name too long"),
        (f"evaluate {LONG}", "a"),
        (f"run {LONG}", "a"),
        (f"detect --streamspot {LONG}", "a"),
        (LONG, "no command is called"),
        ("condense --out odd\udcff", "is not text in UTF-8"),
    ],
    ids=lambda text: text[:40].encode("ascii", "replace").decode(),
)
def test_arguments_of_any_size_are_one_line(argv, told, capsys):
    assert told in refused(capsys, *argv.split())


def test_a_folder_where_a_file_is_expected(capsys):
    Path("run/log.jsonl").mkdir(parents=True)
    assert "log.jsonl is not a file" in refused(capsys, "condense", *SMALL, "--quiet", "--out", "run")


FULL = """
from dataclasses import dataclass

from jgd.evaluation.experiment import Experiment


@dataclass(frozen=True)
class Full:
    label_ratio: float = 0.1

    def __call__(self, key, task, loop=None):
        raise OSError(28, "No space left on device", "run/x")


config = Experiment(recipe=Full())
"""


def test_a_full_disk_is_one_line(capsys):
    Path("full.py").write_text(FULL)
    assert refused(capsys, "run", "full.py", "--quiet", "--out", "run").endswith(
        "run/x: No space left on device\n"
    )


def _process(argv, **environment):
    env = os.environ | {"PYTHONPATH": str(Path(jgd.__file__).parents[1])} | environment
    return subprocess.Popen(
        [sys.executable, "-m", "jgd.cli.main", *argv],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_no_device_is_one_line():
    child = _process(["detect", "--out", "run"], JAX_PLATFORMS="cuda")
    printed, told = child.communicate(timeout=300)
    assert (child.returncode, printed, told.count("\n")) == (2, "", 1)
    assert "JAX finds no device for JAX_PLATFORMS=cuda" in told
    assert not Path("run").exists()


@pytest.mark.long
def test_terminated():
    child = _process(["distill", "--steps=200000", "--out", "run"])
    assert child.stderr is not None
    for line in child.stderr:
        if "teacher" in line:
            break
    child.send_signal(signal.SIGTERM)
    _, told = child.communicate(timeout=300)
    assert child.returncode == 143
    assert told.splitlines()[-1:] == ["jgd: terminated: the same command continues from the last checkpoint"]
    assert "Traceback" not in told
    assert not Path("run/.lock").exists()
