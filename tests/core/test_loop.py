"""The loop: chunks, streams, compilations, files, and what remains of a run that was killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import core_resume
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from core_toy import DATA, JITTERED, LINEAR, X, Y, mse, python_loop, same, scripted
from interrupts import interrupted_at

import jgd
from jgd.core import (
    Algorithm,
    Diverged,
    Driver,
    Examples,
    HostStream,
    InMemory,
    ema,
    ensemble,
    in_memory,
    keep_best,
    objective,
    run,
    train,
)
from jgd.files import atomic_write

KEY = jax.random.key(0)
ADAM = JITTERED
SELECTED = keep_best(ema(ADAM, 0.9), lambda product, data: -(product(X).logits ** 2).mean(), every=2)


def driver(out, **options):
    return Driver(out, **{"progress": False, **options})


def take(data, t):
    """A batch in the graph: eight examples from place 5t on."""
    rows = (5 * t + jnp.arange(8)) % 24
    return Examples((jnp.asarray(data.inputs[0])[rows],), jnp.asarray(data.targets)[rows])


def take_on_host(t):
    rows = (5 * t + np.arange(8)) % 24
    return Examples((X[rows],), Y[rows])


def log(out):
    return [json.loads(line) for line in (Path(out) / "log.jsonl").read_text().splitlines()]


def steps_of(out, stage):
    return [row["step"] for row in log(out) if row["stage"] == stage]


# --- chunks, streams, compilations --------------------------------------------------------------


@pytest.fixture(scope="module")
def plain():
    state, rows = python_loop(SELECTED, KEY, DATA, 17, lambda t: take(DATA, t))
    return SELECTED.result(state, DATA), rows


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 5, 6, 7, 100])
def test_chunks_do_not_change_the_result(chunk, plain, tmp_path):
    reference = in_memory("s", SELECTED, KEY, DATA, 17, take)
    product = driver(tmp_path, chunk_size=chunk)("s", SELECTED, KEY, DATA, 17, take)
    same(product, reference)
    same(product, plain[0], rtol=1e-5, atol=1e-6)
    assert steps_of(tmp_path, "s") == list(range(17))
    np.testing.assert_allclose([r["loss"] for r in log(tmp_path)], [r["loss"] for r in plain[1]], rtol=1e-5)


def test_a_plain_python_loop_is_equal_to_the_bit():
    state, rows = python_loop(ADAM, KEY, DATA, 9)
    loop = InMemory({})
    same(loop("s", ADAM, KEY, DATA, 9), ADAM.result(state, DATA))
    np.testing.assert_array_equal(loop.history["s"]["loss"], [r["loss"] for r in rows])


@pytest.mark.long
def test_streams_from_host_and_graph_are_equal(tmp_path):
    asked = []

    def batch_at(t):
        asked.append(t)
        return take_on_host(t)

    reference = in_memory("s", ADAM, KEY, DATA, 11, take)
    for chunk in (1, 4, 100):
        out = tmp_path / str(chunk)
        product = driver(out, chunk_size=chunk)("s", ADAM, KEY, None, 11, HostStream(batch_at))
        same(product, reference)
    assert max(asked) == 10
    assert Counter(asked)[10] == 3  # once in each run, however much room there was in the chunk


def test_one_compilation_whatever_the_remainder(compilations, tmp_path):
    """Weakly typed leaves in the state, a remainder, early chunks for a sink: all the same program."""
    alg = train(LINEAR, objective(mse), optax.adam(1e-2))

    def init(key, data, batch):
        return alg.init(key, data, batch), jnp.asarray(0.0), 1

    def step(key, t, state, data, batch):
        inner, metrics = alg.step(key, t, state[0], data, batch)
        return (inner, state[1] + metrics["loss"], state[2] * 2), metrics

    driver(tmp_path, chunk_size=4)("s", Algorithm(init, step, lambda s, data: s[1]), KEY, DATA, 11)
    assert compilations["jit(_advance)"] == 1, compilations
    assert compilations["jit(_initial)"] == 1, compilations


def test_data_are_an_argument(compilations):
    """The same shapes with other values are the same program, in memory as on the host."""
    in_memory("s", ADAM, KEY, DATA, 3)
    compilations.clear()
    in_memory("s", ADAM, KEY, jax.tree.map(lambda x: x + 1, DATA), 3)
    in_memory("s", ADAM, KEY, jax.tree.map(jnp.asarray, DATA), 3)
    assert compilations["jit(_advance)"] == 0


def test_state_may_start_as_the_data():
    """And the data survive: the state is donated, they are not."""

    def step(key, t, state, data, batch):
        return (state[0] + 1, state[0]), {"loss": jnp.sum(state[1])}

    data = jnp.arange(4.0)
    alg = Algorithm(lambda key, data, batch: (data, data), step, lambda state, data: state)
    a, b = in_memory("s", alg, KEY, data, 3)
    np.testing.assert_array_equal(a, np.arange(4) + 3)
    np.testing.assert_array_equal(b, np.arange(4) + 2)
    np.testing.assert_array_equal(data, np.arange(4))


def test_done_ends_early(tmp_path):
    alg = scripted(range(50), lambda t: {"done": t >= 20})
    product = driver(tmp_path, chunk_size=8)("s", alg, KEY, None, 50)
    assert int(product["steps"]) == 21
    assert steps_of(tmp_path, "s") == list(range(21))
    same(driver(tmp_path)("s", alg, KEY, None, 50), product)  # and stays ended


def test_history():
    loop = InMemory({})
    loop("s", scripted([1.0, 2.0, 3.0], lambda t: {"t": t}), KEY, None, 3)
    assert loop.history["s"]["t"].tolist() == [0, 1, 2]


def test_no_steps(tmp_path):
    for loop in (in_memory, driver(tmp_path)):
        with pytest.raises(ValueError, match="stage 's': num_steps must be at least 1, got 0"):
            loop("s", ADAM, KEY, DATA, 0)


# --- the folder ---------------------------------------------------------------------------------


def interrupted(out, at, alg=ADAM, num_steps=12, **options):
    """A run that stops, as by Control-C, after `at` steps."""
    loop = driver(out, chunk_size=1, **options)
    with interrupted_at(at):
        loop("s", alg, KEY, DATA, num_steps)


@pytest.mark.parametrize("at", [2, 3, 11])
def test_resume_is_equal_to_the_bit(at, tmp_path):
    interrupted(tmp_path, at, SELECTED, checkpoint_every=3)
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"stage": "s", "st')  # killed while writing
    loop = driver(tmp_path)
    same(loop("s", SELECTED, KEY, DATA, 12), in_memory("s", SELECTED, KEY, DATA, 12))
    assert steps_of(tmp_path, "s") == list(range(12))


def test_a_finished_stage_is_not_run_again(tmp_path):
    product = driver(tmp_path)("s", ADAM, KEY, DATA, 4)

    def refuse(*args):
        raise AssertionError

    idle = ADAM._replace(step=refuse)
    same(driver(tmp_path)("s", idle, KEY, DATA, 4), product)
    assert steps_of(tmp_path, "s") == list(range(4))


@pytest.mark.parametrize("lost", ["all", "last"])
def test_finished_but_the_checkpoint_is_lost(lost, tmp_path):
    product = driver(tmp_path, checkpoint_every=3)("s", ADAM, KEY, DATA, 7)
    scope = tmp_path / "checkpoints" / "s"
    kept = {p.name for p in scope.iterdir() if p.is_dir()}
    assert kept == {"6", "7"}
    for name in kept if lost == "all" else ["7"]:
        shutil.rmtree(scope / name)
    same(driver(tmp_path)("s", ADAM, KEY, DATA, 7), product)
    assert steps_of(tmp_path, "s") == list(range(7))


def test_killed_between_the_last_checkpoint_and_the_end(tmp_path):
    """An early end is on record before its checkpoint is: not one step more after a restart."""
    alg = scripted(range(50), lambda t: {"done": t >= 4})
    loop = driver(tmp_path, chunk_size=3)
    product = loop("s", alg, KEY, None, 50)
    assert json.loads((tmp_path / "checkpoints" / "s" / "stage.json").read_text())["finished"] == 5
    os.rename(tmp_path / "checkpoints" / "s" / "5", tmp_path / "away")
    same(driver(tmp_path, chunk_size=3)("s", alg, KEY, None, 50), product)
    assert int(product["steps"]) == 5


def test_keys_empty_arrays_and_small_types_survive(tmp_path):
    def init(key, data, batch):
        rbg = jax.random.key(1, impl="rbg")
        return {
            "key": key,
            "keys": jax.random.split(rbg, 3),
            "no_keys": jax.random.split(key, 2)[:0],
            "empty": jnp.zeros((0, 3), jnp.int8),
            "half": jnp.ones(2, jnp.bfloat16),
            "flag": jnp.asarray(True),
            "none": None,
        }

    def step(key, t, state, data, batch):
        draw = jax.random.uniform(state["key"]) + jax.random.uniform(state["keys"][1])
        new = {**state, "key": jax.random.fold_in(state["key"], t), "half": state["half"] * 2}
        return new, {"loss": draw.astype(jnp.bfloat16), "many": jnp.full(100, draw)}

    def result(state, data):
        return {**state, "key": jax.random.key_data(state["key"]), "keys": jax.random.key_data(state["keys"])}

    alg = Algorithm(init, step, result)
    interrupted(tmp_path, 4, alg, num_steps=6, checkpoint_every=2)
    product = driver(tmp_path)("s", alg, KEY, DATA, 6)
    reference = in_memory("s", alg, KEY, DATA, 6)
    for name in ("key", "keys", "empty", "half", "flag"):
        assert product[name].dtype == reference[name].dtype
        np.testing.assert_array_equal(np.asarray(product[name]), np.asarray(reference[name]))
    assert product["no_keys"].shape == (0,)
    assert product["no_keys"].dtype == reference["no_keys"].dtype
    rows = log(tmp_path)
    assert all(isinstance(r["loss"], float) and isinstance(r["many"], float) for r in rows)


def test_a_state_without_arrays(tmp_path):
    alg = Algorithm(lambda *a: (), lambda key, t, s, d, b: (s, {"t": t}), lambda s, d: d.targets.sum())
    for _ in range(2):
        total = driver(tmp_path)("s", alg, KEY, DATA, 3)
        np.testing.assert_allclose(total, Y.sum(), rtol=1e-5)


def test_another_run_in_the_same_folder(tmp_path):
    driver(tmp_path)("s", ADAM, KEY, DATA, 2)
    other = DATA._replace(targets=Y + 1)
    changed = train(LINEAR, objective(mse), optax.sgd(1e-2))
    for args, what in (
        ((ADAM, KEY, DATA, 3), "num_steps"),
        ((ADAM, jax.random.key(1), DATA, 2), "key"),
        ((ADAM, KEY, other, 2), "data"),
        ((changed, KEY, DATA, 2), "shapes of the state"),
    ):
        with pytest.raises(ValueError, match=rf"another run \(other {what}\).*resume=False"):
            driver(tmp_path)("s", *args)


def test_run_in_a_folder(tmp_path):
    def recipe(key, task, loop=in_memory):
        return loop("s", ADAM, key, task, 3)

    in_mem = run(recipe, KEY, DATA)
    same(run(recipe, KEY, DATA, out=tmp_path), in_mem)
    with pytest.raises(ValueError, match="another run"):
        run(recipe, jax.random.key(1), DATA, out=tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    anew = run(recipe, jax.random.key(1), DATA, out=str(tmp_path), resume=False)
    same(anew, run(recipe, jax.random.key(1), DATA))
    assert steps_of(tmp_path, "s") == [0, 1, 2]
    assert (tmp_path / "notes.txt").exists()


def test_stage_products_are_kept(tmp_path):
    calls = []

    def work(x, text):
        calls.append(text)
        return {"a": {"file": jnp.asarray(x), "b": 2}, "names": np.asarray(["u", "v"])}

    for _ in range(2):
        loop = driver(tmp_path)
        product = loop.stage("nested", work, np.arange(3), "hello")
        assert set(product) == {"a", "names"}
        np.testing.assert_array_equal(product["a"]["file"], np.arange(3))
        assert product["a"]["b"] == 2
        assert product["names"].tolist() == ["u", "v"]
        array = loop.stage("array", lambda k: calls.append("array") or jnp.eye(2), KEY)
        np.testing.assert_array_equal(array, np.eye(2))
        assert isinstance(array, np.ndarray)  # the first time as well as later
        assert loop.stage("empty", dict) == {}
    assert calls == ["hello", "array"]
    with pytest.raises(ValueError, match="another run"):
        driver(tmp_path).stage("nested", work, np.arange(4), "hello")
    assert in_memory.stage("any", lambda x: x + 1, 2) == 3


def test_a_stage_that_fails_is_computed_again(tmp_path):
    with pytest.raises(ZeroDivisionError):
        driver(tmp_path).stage("s", lambda: 1 / 0)
    assert driver(tmp_path).stage("s", lambda: 1) == 1


def test_what_a_stage_cannot_keep(tmp_path):
    loop = driver(tmp_path)
    for i, product in enumerate([None, object(), jnp.ones(2, jnp.bfloat16), {1: 2}, {"a/b": 1}, KEY]):
        with pytest.raises(TypeError):
            loop.stage(f"s{i}", lambda product=product: product)
    with pytest.raises(TypeError, match="not by a object"):
        loop.stage("argument", lambda x: 1, object())


def test_names_of_stages(tmp_path):
    loop = driver(tmp_path)
    loop("s", ADAM, KEY, DATA, 1)
    with pytest.raises(ValueError, match="two stages are named 's'"):
        loop("s", ADAM, KEY, DATA, 1)
    with pytest.raises(ValueError, match="two stages are named 's'"):
        loop.stage("s", lambda: 1)
    for name in ("a/b", "..", ""):
        with pytest.raises(ValueError, match="cannot be named"):
            loop.stage(name, lambda: 1)


def test_atomic_write(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with atomic_write(path, "w") as file:
        file.write("ä")
    assert path.read_text("utf-8") == "ä"
    assert path.stat().st_mode & 0o777 == 0o666 & ~_current_umask()

    def fail():
        with atomic_write(path) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text("utf-8") == "ä"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def _current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


# --- divergence ---------------------------------------------------------------------------------


def explode(at):
    """Parameters that turn NaN by step `at`: the loss of that step is the first to be NaN."""

    def step(key, t, state, data, batch):
        return jnp.where(t + 1 >= at, jnp.nan, state + 1), {"loss": state * 2.0}

    return Algorithm(lambda key, data, batch: jnp.zeros(()), step, lambda state, data: state)


@pytest.mark.parametrize("chunk", [1, 2, 4, 100])
def test_divergence_keeps_a_good_state(chunk, tmp_path):
    with pytest.raises(Diverged, match=r"stage 'fit': the loss is not finite at step 6") as caught:
        driver(tmp_path, chunk_size=chunk, checkpoint_every=2)("fit", explode(6), KEY, None, 20)
    assert caught.value.step == 6
    assert "the state after 4 steps is kept" in str(caught.value)
    with ocp.CheckpointManager((tmp_path / "checkpoints" / "fit").absolute()) as manager:
        assert manager.latest_step() == 4
        kept = manager.restore(
            4,
            args=ocp.args.StandardRestore({"0": np.zeros((), np.float32), "nothing": np.zeros((), np.int32)}),
        )
    assert float(kept["0"]) == 4.0
    healed = explode(100)  # the code was mended: on it goes from the good state
    assert float(driver(tmp_path)("fit", healed, KEY, None, 20)) == 20.0


def test_divergence_in_memory_and_before_any_checkpoint(tmp_path):
    with pytest.raises(Diverged, match="stage 'fit': the loss is not finite at step 3"):
        in_memory("fit", explode(3), KEY, None, 20)
    with pytest.raises(Diverged, match="no state is kept"):
        driver(tmp_path)("fit", explode(3), KEY, None, 20)


@pytest.mark.parametrize("progress", [False, True])
def test_one_member_may_diverge(progress, tmp_path, capsys):
    def step(key, t, state, data, batch):
        return state + 1, {"loss": jnp.where(state > data, jnp.inf, state)}

    alg = Algorithm(lambda key, data, batch: jnp.zeros(()), step, lambda state, data: state)
    many = ensemble(alg, 3, data_axis=0)
    product = driver(tmp_path, progress=progress)("s", many, KEY, jnp.asarray([2.0, 9.0, 99.0]), 8)
    np.testing.assert_array_equal(product, 8.0)
    assert log(tmp_path)[-1]["loss"] == [None, 7.0, 7.0]
    with pytest.raises(Diverged, match="at step 10"):
        in_memory("s", many, KEY, jnp.asarray([2.0, 9.0, 9.0]), 20)


# --- what is shown ------------------------------------------------------------------------------


def test_progress_bar(tmp_path, capsys):
    silent = Algorithm(lambda *a: jnp.zeros(()), lambda key, t, s, d, b: (s + 1, {}), lambda s, d: s)
    driver(tmp_path, progress=True, chunk_size=3)("fit", ADAM, KEY, DATA, 7)
    assert float(driver(tmp_path, progress=True)("silent", silent, KEY, None, 7)) == 7.0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "fit" in captured.err
    assert "7/7" in captured.err
    assert f"loss {log(tmp_path)[6]['loss']:.4g}" in captured.err


def test_quiet_where_there_is_no_terminal(tmp_path, capfd):
    Driver(tmp_path)("fit", ADAM, KEY, DATA, 7)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


# --- kill -9 ------------------------------------------------------------------------------------


@pytest.mark.long
def test_killed_and_restarted(tmp_path):
    """Killed in the first stage, between the stages and in the second: the product is equal to the bit."""
    here, out = Path(__file__).parent, tmp_path / "out"
    checkpoints = out / "checkpoints"
    env = os.environ | {
        "PYTHONPATH": str(Path(jgd.__file__).parents[1]),
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

    def start(*args):
        command = [sys.executable, str(here / "core_resume.py"), str(out), *args]
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def kill_when(there, *args):
        child = start(*args)
        for _ in range(6000):
            if there():
                break
            assert child.poll() is None, child.communicate()[1][-3000:]
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert not (out / "product.npz").exists()

    def latest(stage):
        return max((int(p.name) for p in (checkpoints / stage).glob("*") if p.name.isdigit()), default=0)

    kill_when(lambda: latest("first") >= 100)
    assert latest("first") < core_resume.FIRST
    kill_when((checkpoints / "middle").exists, "hold")
    assert latest("first") == core_resume.FIRST
    assert not (checkpoints / "middle" / "product.npz").exists()
    kill_when(lambda: latest("second") >= 100)
    assert latest("second") < core_resume.SECOND
    child = start()
    printed, complaints = child.communicate()
    assert child.returncode == 0, complaints[-3000:]
    assert printed == ""

    expected = core_resume.recipe(jax.random.key(3), DATA)
    with np.load(out / "product.npz") as file:
        same([file[name] for name in file.files], [np.asarray(x) for x in jax.tree.leaves(expected)])
    counts = Counter((row["stage"], row["step"]) for row in log(out))
    wanted = [("first", t) for t in range(core_resume.FIRST) if t % 2 == 0]
    wanted += [("second", t) for t in range(core_resume.SECOND)]
    assert counts == Counter(wanted)
