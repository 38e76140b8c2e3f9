"""Runs in a folder: killed at every file operation, damaged, shared, and of other settings."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
import pytest
from core_faults import killed_at, recipe, short
from core_toy import same
from interrupts import interrupted_at

import jgd
from jgd.core import Algorithm, checkpoints, in_memory, run
from jgd.files import InUse, lock, read_record, remove, tidy, write_record

KEY, OTHER = jax.random.key(1), jax.random.key(2)
TASK = np.ones(3, np.float32)
EVERY = {"checkpoint_every": 2, "progress": False}


@pytest.fixture(scope="module")
def expected():
    return {"key": recipe(KEY, TASK), "other": recipe(OTHER, TASK)}


class _Plain:
    """Stands in for Orbax where a test makes hundreds of checkpoints: the same places, small files."""

    def save(self, path, args):
        unfinished = path.with_name(f"{path.name}.orbax-checkpoint-tmp")
        unfinished.mkdir()
        for name, array in args.item.items():
            np.save(unfinished / f"{name}.npy", array)
        os.rename(unfinished, path)

    def restore(self, path, args):
        return {name: np.load(path / f"{name}.npy") for name in args.item}


@pytest.fixture
def plain_checkpoints(monkeypatch):
    @contextmanager
    def plain():
        yield _Plain()

    monkeypatch.setattr(checkpoints, "checkpointer", plain)
    monkeypatch.setattr(os, "fsync", lambda file: None)  # which disks take their time for


def log(out):
    return [json.loads(line) for line in (Path(out) / "log.jsonl").read_text().splitlines()]


ROWS = [("first", t) for t in range(6)] + [("second", t) for t in range(3)]


def whole(out, product, expected, rows=tuple(ROWS)):
    """The product, the log and the folder of a run that was never interrupted."""
    same(product, expected)
    assert tuple((row["stage"], row["step"]) for row in log(out)) == rows
    assert {p.name for p in out.iterdir()} == {"run.json", "log.jsonl", "checkpoints"}
    assert {p.name for p in (out / "checkpoints" / "first").iterdir()} == {"stage.json", "4", "6"}
    assert {p.name for p in (out / "checkpoints" / "middle").iterdir()} == {"stage.json", "product.npz"}


# --- killed at every file operation -------------------------------------------------------------


def operations(folder, begin):
    """How many there are, and what they are."""
    with killed_at(folder, 0) as faults:
        begin(folder)
    return faults.count, faults.kinds


SHORT_ROWS = tuple(ROWS[:6])


@pytest.fixture(scope="module")
def short_expected():
    return {"key": short(KEY, TASK), "other": short(OTHER, TASK)}


@pytest.mark.long
def test_killed_at_every_file_operation(tmp_path, plain_checkpoints, short_expected):
    def begin(out):
        return run(short, KEY, TASK, out=out, **EVERY)

    count, kinds = operations(tmp_path / "whole", begin)
    assert count > 85
    assert sum(kind.startswith("os.rmdir") for kind in kinds) >= 2  # old checkpoints are removed, too
    reference = (tmp_path / "whole" / "log.jsonl").read_text()
    for k in range(1, count + 1):
        out = tmp_path / str(k)
        with killed_at(out, k):
            begin(out)
            raise AssertionError(f"not killed at {k}")
        whole(out, begin(out), short_expected["key"], SHORT_ROWS)
        assert (out / "log.jsonl").read_text() == reference
        shutil.rmtree(out)


@pytest.mark.long
def test_killed_while_it_goes_on(tmp_path, plain_checkpoints, short_expected):
    """A second kill, at every operation of a run that goes on after a first one."""

    def begin(out):
        return run(short, KEY, TASK, out=out, **EVERY)

    count, _ = operations(tmp_path / "whole", begin)
    with killed_at(tmp_path / "half", 2 * count // 3):
        begin(tmp_path / "half")
    shutil.copytree(tmp_path / "half", tmp_path / "copy")
    rest, _ = operations(tmp_path / "copy", begin)
    for k in range(1, rest + 1, 3):
        out = tmp_path / str(k)
        shutil.copytree(tmp_path / "half", out)
        with killed_at(out, k):
            begin(out)
        whole(out, begin(out), short_expected["key"], SHORT_ROWS)
        shutil.rmtree(out)


@pytest.mark.long
def test_a_start_over_never_returns_the_earlier_product(tmp_path, plain_checkpoints, short_expected):
    run(short, KEY, TASK, out=tmp_path / "earlier", **EVERY)
    shutil.copytree(tmp_path / "earlier", tmp_path / "copy")
    count, _ = operations(
        tmp_path / "copy", lambda out: run(short, OTHER, TASK, out=out, fresh=True, **EVERY)
    )
    for k in [*range(1, 24), *range(24, count + 1, 9)]:
        out = tmp_path / str(k)
        shutil.copytree(tmp_path / "earlier", out)
        with killed_at(out, k):
            run(short, OTHER, TASK, out=out, resume=False, **EVERY)
        if k % 2:
            product = run(short, OTHER, TASK, out=out, fresh=True, **EVERY)
        else:
            try:
                product = run(short, OTHER, TASK, out=out, **EVERY)
            except ValueError as error:
                assert "holds another run (key uint32 [0, 1]" in str(error)  # noqa: PT017
                same(run(short, KEY, TASK, out=out, **EVERY), short_expected["key"])
                product = run(short, OTHER, TASK, out=out, fresh=True, **EVERY)
        whole(out, product, short_expected["other"], SHORT_ROWS)
        shutil.rmtree(out)


@pytest.mark.long
def test_killed_with_real_checkpoints(tmp_path, expected):
    """A few points with Orbax itself; `experiments/kills.py` kills real processes at all of them."""

    def begin(out):
        return run(recipe, KEY, TASK, out=out, **EVERY)

    count, kinds = operations(tmp_path / "whole", begin)
    places = [
        i for i, kind in enumerate(kinds, 1) if "orbax" in kind or "METADATA" in kind or "rmdir" in kind
    ]
    for k in [places[len(places) // 3], places[-1], count - 3]:
        out = tmp_path / str(k)
        with killed_at(out, k):
            begin(out)
        whole(out, begin(out), expected["key"])


# --- damaged folders ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "run"
    run(recipe, KEY, TASK, out=out, **EVERY)
    return out


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """Stopped in the second loop, after its first checkpoint."""
    out = tmp_path_factory.mktemp("interrupted") / "run"
    with interrupted_at(2, loop=2):
        run(recipe, KEY, TASK, out=out, **EVERY)
    return out


def _truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _emptied(path):
    path.write_bytes(b"")


def _other(path):
    path.write_bytes(b'["not", {"what": "was here"}, null]\n')


def _flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x41
    path.write_bytes(bytes(data))


def _folder(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    path.mkdir()
    (path / "x").touch()


def _lost(path):
    remove(path)


def _file(path):
    shutil.rmtree(path)
    path.write_text("a file")


def _nothing_inside(path):
    for inner in path.iterdir():
        remove(inner)


def _arrays(path):
    """The largest file of a checkpoint, in which its arrays are."""
    return max((p for p in path.rglob("*") if p.is_file()), key=lambda p: (p.stat().st_size, p.name))


_FILES = [
    "run.json",
    "log.jsonl",
    "checkpoints/first/stage.json",
    "checkpoints/middle/stage.json",
    "checkpoints/middle/product.npz",
    "checkpoints/second/stage.json",
]
_INSIDE = [
    "record.json",
    "default/_METADATA",
    "default/manifest.ocdbt",
    "default/_CHECKPOINT_METADATA",
    "arrays",
]
_DAMAGES = [
    (name, how) for name in _FILES for how in (_truncated, _emptied, _other, _flipped, _folder, _lost)
]
_DAMAGES += [
    (f"checkpoints/{step}/{name}", how)
    for step in ("first/6", "second/2")
    for name in _INSIDE
    for how in (_truncated, _emptied, _flipped, _lost)
]
_DAMAGES += [("checkpoints/second/2", how) for how in (_file, _nothing_inside, _lost)]
_DAMAGES += [("checkpoints/first", _file), ("checkpoints/first", _nothing_inside), ("checkpoints", _file)]


@pytest.mark.filterwarnings("ignore:.*starts again", "ignore:.*going on from", "ignore:.*is damaged")
@pytest.mark.parametrize(
    ("name", "damage"), _DAMAGES, ids=[f"{n.replace('/', '-')}{h.__name__}" for n, h in _DAMAGES]
)
def test_a_damaged_folder(name, damage, interrupted, tmp_path, expected):
    """The result of an uninterrupted run, or one line that refuses; the log stays what it was."""
    out = tmp_path / "run"
    shutil.copytree(interrupted, out)
    path = out / name if not name.endswith("/arrays") else _arrays(out / name.removesuffix("/arrays"))
    damage(path)
    before = (out / "log.jsonl").read_bytes() if (out / "log.jsonl").is_file() else None
    try:
        product = run(recipe, KEY, TASK, out=out, **EVERY)
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017
        assert str(out) in str(error)  # noqa: PT017
        if before is not None:
            assert (out / "log.jsonl").read_bytes() == before
        if path.exists() or path.name == "run.json":
            _mend(out, name, interrupted)
        product = run(recipe, KEY, TASK, out=out, **EVERY)
    same(product, expected["key"])
    assert [(row["stage"], row["step"]) for row in log(out)] == ROWS


def _mend(out, name, good):
    remove(out / name)
    if (good / name).is_dir():
        shutil.copytree(good / name, out / name)
    else:
        shutil.copy(good / name, out / name)


def test_what_is_damaged_is_told_in_one_line(finished, tmp_path, expected):
    for place, damage, told in (
        ("checkpoints/first/6/record.json", _emptied, "checkpoint 6 in .*first cannot be used.*from step 4"),
        ("checkpoints/second/stage.json", _lost, "no stage.json that can be read: the stage 'second' starts"),
        ("checkpoints/middle/product.npz", _truncated, "product.npz cannot be used.*'middle' starts again"),
        ("log.jsonl", lambda p: p.write_text("?\n" + p.read_text()), "log.jsonl is damaged"),
    ):
        out = tmp_path / Path(place).name
        shutil.copytree(finished, out)
        damage(out / place)
        with pytest.warns(UserWarning, match=told) as caught:
            product = run(recipe, KEY, TASK, out=out, **EVERY)
        assert len(caught) == 1
        whole(out, product, expected["key"])


def test_checkpoints_of_another_run_are_not_taken(finished, tmp_path, expected):
    """Not a step beyond the end, not another key's, not without stage.json."""
    other = tmp_path / "other"
    run(recipe, OTHER, TASK, out=other, **EVERY)
    for step in ("6", "8"):
        out = tmp_path / step
        shutil.copytree(finished, out)
        remove(out / "checkpoints" / "first" / "6")
        shutil.copytree(other / "checkpoints" / "first" / "6", out / "checkpoints" / "first" / step)
        with pytest.warns(UserWarning, match=f"checkpoint {step} in"):
            product = run(recipe, KEY, TASK, out=out, **EVERY)
        whole(out, product, expected["key"])
    out = tmp_path / "scope"
    shutil.copytree(finished, out)
    remove(out / "checkpoints")
    shutil.copytree(other / "checkpoints", out / "checkpoints")
    with pytest.raises(ValueError, match=r"another run \(other key"):
        run(recipe, KEY, TASK, out=out, **EVERY)
    for stage in ("first", "middle", "second"):
        remove(out / "checkpoints" / stage / "stage.json")
    with pytest.warns(UserWarning, match="starts again"):
        product = run(recipe, KEY, TASK, out=out, **EVERY)
    whole(out, product, expected["key"])


@pytest.mark.parametrize("what", ["files of another step", "later than the end"])
def test_a_checkpoint_that_is_whole_and_does_not_count(what, tmp_path):
    """Orbax would read it."""
    for step in (2, 4, 6):
        kept = checkpoints.Checkpoint(step, {"x": np.full(3, step, np.float32)}, [f"row {step}"])
        checkpoints.save(tmp_path, {"key": "a"}, kept)
    last = 6
    if what == "later than the end":
        last = 5
    else:
        remove(tmp_path / "6" / "default")
        shutil.copytree(tmp_path / "2" / "default", tmp_path / "6" / "default")
    said = []
    found = checkpoints.restore(tmp_path, {"key": "a"}, {"x": np.zeros(3, np.float32)}, last, said.append)
    assert found is not None
    assert (found.step, found.state["x"].tolist(), found.rows) == (4, [4.0] * 3, ["row 4"])
    assert len(said) == 1
    assert said[0].startswith("checkpoint 6 in ")


# --- the folder remembers its run ---------------------------------------------------------------


def test_other_arguments_are_refused_by_name(tmp_path):
    def scaled(scale):
        def inner(key, task, loop=in_memory):
            return scale * recipe(key, task, loop)

        return inner

    out = tmp_path / "run"
    product = run(scaled(2.0), KEY, TASK, out=out, **EVERY)
    same(run(scaled(2.0), KEY, TASK, out=out, **EVERY), product)
    for args, told in (
        ((scaled(3.0), KEY, TASK), r"\(scale 2.0, now 3.0\)"),
        ((scaled(2.0), OTHER, TASK), r"\(key uint32 \[0, 1\], now uint32 \[0, 2\]\)"),
        ((scaled(2.0), KEY, 2 * TASK), r"\(task float32 \[1.0, 1.0, 1.0\], now float32 \[2.0"),
        ((lambda key, task, loop: scaled(2.0)(key, task, loop), KEY, TASK), "holds another run"),
    ):
        with pytest.raises(ValueError, match=told) as caught:
            run(args[0], *args[1:], out=out, **EVERY)
        assert "fresh=True" in str(caught.value)
    same(run(scaled(2.0), KEY, TASK, out=out, **EVERY), product)
    same(run(scaled(3.0), KEY, TASK, out=out, fresh=True, **EVERY), 1.5 * product, rtol=1e-6)


def test_another_version_is_told(finished, tmp_path, expected):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    record = read_record(out / "run.json")
    assert record is not None
    record["versions"]["jgd"] = "0.0.1"
    record["parts"]["recipe.code"] = "compiled by another Python"
    write_record(out / "run.json", record)
    with pytest.raises(ValueError, match=r"holds another run \(key uint32 \[0, 1\], now uint32 \[0, 2\]\)"):
        run(recipe, OTHER, TASK, out=out, **EVERY)  # what both versions have is compared
    with pytest.warns(UserWarning, match=rf"jgd 0.0.1, now {jgd.__version__}"):
        same(run(recipe, KEY, TASK, out=out, **EVERY), expected["key"])
    same(run(recipe, KEY, TASK, out=out, **EVERY), expected["key"])  # told once


def test_folders_of_something_else(tmp_path):
    for name in ("checkpoints/s/4", "log.jsonl/", "experiment.json"):
        out = tmp_path / Path(name).name
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).mkdir() if name.endswith(("/", "4")) else (out / name).touch()
        with pytest.raises(ValueError, match=r"no run.json that can be read|is not a file"):
            run(recipe, KEY, TASK, out=out, **EVERY)


# --- one at a time ------------------------------------------------------------------------------


def test_a_second_run_in_the_folder_is_refused(tmp_path, expected):
    inside, go_on, products = threading.Event(), threading.Event(), []

    def slow(key, task, loop):
        inside.set()
        assert go_on.wait(60)
        return recipe(key, task, loop)

    thread = threading.Thread(target=lambda: products.append(run(slow, KEY, TASK, out=tmp_path, **EVERY)))
    thread.start()
    assert inside.wait(60)
    for options in ({}, {"fresh": True}):
        with pytest.raises(InUse, match=f"in use by process {os.getpid()} on .*: wait"):
            run(slow, KEY, TASK, out=tmp_path, **options)
    go_on.set()
    thread.join()
    same(products[0], expected["key"])
    assert not (tmp_path / ".lock").exists()


def test_a_lock_ends_with_its_process(tmp_path):
    code = (
        "import sys; from jgd.files import lock\nwith lock(sys.argv[1]):\n  print('in', flush=True); input()"
    )
    env = os.environ | {"PYTHONPATH": str(Path(jgd.__file__).parents[1])}
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"in\n"
    with pytest.raises(InUse, match=f"process {child.pid}"), lock(tmp_path):
        pass
    child.kill()
    child.communicate()
    assert (tmp_path / ".lock").exists()
    with lock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_is_passed_on_and_never_held_twice(tmp_path):
    """Many threads in turn, while the file of the lock is made and removed."""
    held, most, taken = [0], [0], [0]

    def work():
        for _ in range(40):
            try:
                with lock(tmp_path):
                    held[0] += 1
                    most[0] = max(most[0], held[0])
                    taken[0] += 1
                    held[0] -= 1
            except InUse:
                pass

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1
    assert taken[0] > 1


# --- files --------------------------------------------------------------------------------------


def test_records(tmp_path):
    path = tmp_path / "record.json"
    write_record(path, {"a": [1, 2.5, None], "b": {"c": "ä"}})
    assert read_record(path) == {"a": [1, 2.5, None], "b": {"c": "ä"}}
    path.write_text(path.read_text().replace("2.5", "2.6"))
    assert read_record(path) is None
    assert read_record(tmp_path / "nothing") is None
    assert read_record(tmp_path) is None


def test_remove_and_tidy(tmp_path):
    (tmp_path / "full" / "inner").mkdir(parents=True)
    (tmp_path / "full" / "inner" / "file").touch()
    keep = tmp_path / ".keep.part"
    keep.touch()
    with killed_at(tmp_path, 3):  # renamed, not emptied yet
        remove(tmp_path / "full")
    (left,) = set(tmp_path.iterdir()) - {keep}
    assert left.name.startswith(".full.")
    tidy(tmp_path)
    assert list(tmp_path.iterdir()) == [keep]
    remove(tmp_path / "nothing")
    remove(keep)
    assert list(tmp_path.iterdir()) == []


# --- a disk that is full ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        (100, r"run\.json"),
        (40_000, r"the checkpoint after 2 steps cannot be written to \S+: File too large"),
        (120_000, r"product\.npz"),
    ],
)
def test_a_file_that_becomes_too_large(limit, told, tmp_path, capfd):
    """Where the system itself refuses to write on: one line, no noise of other threads, nothing lost."""
    noise = Algorithm(  # 80 kB, which do not compress
        lambda key, data, batch: jax.random.normal(key, (20_000,)),
        lambda key, t, state, data, batch: (state + data, {"loss": state[0]}),
        lambda state, data: state,
    )

    def large(key, task, loop=in_memory):
        found = loop("first", noise, key, task, 6)
        return loop.stage("twice", lambda x: {"both": np.stack([x, x])}, np.asarray(found))["both"]

    task, (soft, hard) = np.float32(1), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        with pytest.raises(OSError, match="File too large") as caught:
            run(large, KEY, task, out=tmp_path, **EVERY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert re.search(told, str(caught.value))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""
    same(run(large, KEY, task, out=tmp_path, **EVERY), large(KEY, task))
    assert [row["step"] for row in log(tmp_path)] == [*range(6)]


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, monkeypatch, expected):
    count = [0]
    real = checkpoints.checkpointer

    class Full(_Plain):
        def save(self, path, args):
            count[0] += 1
            if count[0] == 3:
                path.mkdir()
                raise ValueError("RESOURCE_EXHAUSTED: writing\nfile: No space left on device")
            with real() as orbax:
                orbax.save(path, args=args)

    @contextmanager
    def full():
        yield Full()

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "checkpointer", full)
        with pytest.raises(OSError, match=r"after 6 steps cannot be written to .*No space left") as caught:
            run(recipe, KEY, TASK, out=tmp_path / "run", **EVERY)
    assert "\n" not in str(caught.value)
    scope = tmp_path / "run" / "checkpoints" / "first"
    assert {p.name for p in scope.iterdir()} == {"stage.json", "2", "4"}
    whole(tmp_path / "run", run(recipe, KEY, TASK, out=tmp_path / "run", **EVERY), expected["key"])
