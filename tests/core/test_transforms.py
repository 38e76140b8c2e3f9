"""Algorithms from algorithms, against scripted runs, closed forms and single runs."""

import os
import subprocess
import sys
import textwrap
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from core_toy import DATA, JITTERED, LINEAR, X, Y, mse, python_loop, same, scripted, sgd

from jgd.core import (
    Algorithm,
    Driver,
    Examples,
    InMemory,
    ema,
    ensemble,
    in_memory,
    keep_best,
    objective,
    record,
    sweep,
    train,
)

KEY = jax.random.key(0)
FIT = train(LINEAR, objective(mse), sgd())
NAN = float("nan")


@cache
def trajectory():
    """The parameters of `FIT` before each of twelve steps."""
    step = jax.jit(FIT.step)
    states = [python_loop(FIT, KEY, DATA, 0)[0]]
    for t in range(11):
        key = jax.random.fold_in(jax.random.fold_in(KEY, 1), t)
        states.append(step(key, np.int32(t), states[-1], DATA, None)[0])
    return [state.params for state in states]


def score(product, data):
    return product["at"]


# --- keep_best ----------------------------------------------------------------------------------


def best_by_hand(values, *, every=1, patience=None, ties="first"):
    """(script value kept, its step count, steps until the driver may stop)."""
    kept, top, waited = (-1.0, 0), -np.inf, 0
    for t, value in enumerate(values):
        if (t + 1) % every == 0:
            if value > top or (ties == "last" and value == top):
                kept, top, waited = (value, t + 1), value, 0
            else:
                waited += 1
        if patience is not None and waited >= patience:
            return kept, t + 1
    return kept, len(values)


SCRIPTS = {
    "rises and falls": [0.1, 0.5, 0.3, 0.9, 0.2, 0.1, 0.1, 0.1],
    "ties": [0.1, 0.7, 0.7, 0.2, 0.7, 0.1, 0.3, 0.3],
    "late": [0.5, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.9],
    "nan": [NAN, 0.2, NAN, 0.3, NAN, NAN, NAN, NAN],
    "only nan": [NAN] * 8,
}


@pytest.mark.parametrize("ties", ["first", "last"])
@pytest.mark.parametrize(("every", "patience"), [(1, None), (1, 2), (3, None), (2, 2)])
def test_keep_best_follows_the_script(every, patience, ties):
    for script in SCRIPTS.values():
        alg = keep_best(scripted(script), score, every=every, patience=patience, ties=ties)
        loop = InMemory({})
        product = loop("s", alg, KEY, None, len(script))
        (value, steps), stop = best_by_hand(script, every=every, patience=patience, ties=ties)
        np.testing.assert_array_equal(product["at"], np.float32(value))
        assert int(product["steps"]) == steps
        rows = loop.history["s"]
        assert len(rows["best"]) == stop
        looks = [np.float32(v) if (t + 1) % every == 0 else np.nan for t, v in enumerate(script)]
        np.testing.assert_array_equal(rows["score"], looks[:stop])
        if patience is not None:
            assert rows["done"].tolist() == [False] * (stop - 1) + [bool(rows["done"][-1])]


def test_patience_freezes_the_state():
    """As in an ensemble, where a member that is done waits for the others."""
    script = [0.5, 0.1, 0.1, 0.9, 0.9]
    state, rows = python_loop(keep_best(scripted(script), score, patience=2), KEY, None, 5)
    assert int(state.inner["steps"]) == 3
    assert int(state.product["steps"]) == 1
    assert [bool(r["done"]) for r in rows] == [False, False, True, True, True]

    def member(key, data, batch):
        return {"at": jnp.full((), -1.0), "steps": jnp.zeros((), jnp.int32)}

    def step(key, t, state, data, batch):  # each member has a script of its own, in the data
        return {"at": data[t], "steps": state["steps"] + 1}, {"loss": jnp.zeros(())}

    many = ensemble(keep_best(Algorithm(member, step, lambda s, d: s), score, patience=2), 2, data_axis=0)
    scripts = jnp.asarray([script, [0.1, 0.2, 0.1, 0.1, 0.8]])
    loop = InMemory({})
    product = loop("s", many, KEY, scripts, 5)
    np.testing.assert_allclose(product["at"], [0.5, 0.2])
    assert product["steps"].tolist() == [1, 2]
    assert len(loop.history["s"]["best"]) == 4  # the second is done after its fourth step


def test_keep_best_state_holds_no_buffer_twice():
    alg = keep_best(ema(FIT, 0.9), lambda product, data: product.params["out"]["bias"].sum(), every=2)
    state = jax.jit(alg.init)(KEY, DATA, None)
    pointers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(state)]
    assert len(set(pointers)) == len(pointers)
    step = jax.jit(alg.step, donate_argnums=2)
    for t in range(3):
        state, _ = step(KEY, np.int32(t), state, DATA, None)


# --- ema ----------------------------------------------------------------------------------------


def test_ema_closed_form():
    state, _ = python_loop(ema(FIT, 0.8), KEY, DATA, 5)
    tracks = [params["model"] for params in trajectory()[:6]]
    weights = [0.8**5] + [0.2 * 0.8 ** (5 - n) for n in range(1, 6)]
    expected = jax.tree.map(lambda *p: sum(w * x for w, x in zip(weights, p, strict=True)), *tracks)
    same(ema(FIT, 0.8).result(state, DATA).params, expected, rtol=1e-5, atol=1e-6)
    same(state.inner.params["model"], tracks[-1], rtol=1e-6)

    warm = ema(FIT, lambda t: jnp.where(t < 3, 0.0, 1.0))  # follows for three steps, then stays
    state, _ = python_loop(warm, KEY, DATA, 5)
    same(warm.result(state, DATA).params, tracks[3], rtol=1e-6)


def test_ema_of_part_of_the_state():
    alg = ema(
        scripted([1.0, 2.0, 4.0]),
        0.5,
        get=lambda s: s["at"],
        put=lambda s, average: {**s, "at": average},
    )
    product = in_memory("s", alg, KEY, None, 3)
    assert float(product["at"]) == 0.5 * (0.5 * (0.5 * -1 + 0.5 * 1) + 0.5 * 2) + 0.5 * 4
    assert int(product["steps"]) == 3


def test_ema_keeps_the_types():
    half = Algorithm(
        lambda key, data, batch: jnp.ones(3, jnp.bfloat16),
        lambda key, t, state, data, batch: (state * 0, {}),
        lambda state, data: state,
    )
    alg = ema(half, lambda t: jnp.float32(0.5), get=lambda s: s, put=lambda s, p: p)
    product = in_memory("s", alg, KEY, None, 2)
    assert product.dtype == jnp.bfloat16
    np.testing.assert_array_equal(product.astype(jnp.float32), 0.25)


# --- ensemble and sweep -------------------------------------------------------------------------


def single(alg, key, i, n, data, num_steps, batches=None):
    """What member `i` of an ensemble of `n` does, on its own."""
    first = jax.random.split(jax.random.fold_in(key, 0), n)[i]
    state = jax.jit(alg.init)(first, data, batches and batches(0))
    step = jax.jit(alg.step)
    for t in range(num_steps):
        k = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, 1), t), n)[i]
        state, _ = step(k, np.int32(t), state, data, batches and batches(t))
    return alg.result(state, data)


def pick(tree, i):
    return jax.tree.map(lambda x: np.asarray(x)[i], tree)


@pytest.fixture(scope="module")
def members():
    return ensemble(JITTERED, 3)


def test_members_equal_single_runs(members):
    product = in_memory("s", members, KEY, DATA, 6)
    for i in range(3):
        same(pick(product, i), single(JITTERED, KEY, i, 3, DATA, 6), rtol=1e-4, atol=1e-5)
    assert np.ptp(np.asarray(product.params["out"]["kernel"]), axis=0).min() > 0


@pytest.mark.long
@pytest.mark.parametrize("at_once", [1, 2])
def test_members_in_turns(members, at_once):
    """As members of a whole vmap, with data of their own too; two at once leave one over."""
    together = in_memory("s", members, KEY, DATA, 6)
    turns = in_memory("s", ensemble(JITTERED, 3, at_once=at_once), KEY, DATA, 6)
    same(turns, together, rtol=1e-4, atol=1e-5)
    data = Examples((np.stack([X, -X, 2 * X]),), np.stack([Y, Y, -Y]))
    own = (ensemble(FIT, 3, data_axis=0, at_once=n) for n in (None, at_once))
    same(*(in_memory("s", alg, KEY, data, 4) for alg in own), rtol=1e-5, atol=1e-6)


def test_impossible_turns():
    with pytest.raises(ValueError, match="at_once must be"):
        ensemble(FIT, 3, at_once=0)
    with pytest.raises(ValueError, match="as a whole"):
        ensemble(FIT, 3, at_once=1, data_axis=Examples((0,), None))


@pytest.mark.long
def test_members_with_data_or_batches_of_their_own():
    data = Examples((np.stack([X, -X, 2 * X]),), np.stack([Y, Y, -Y]))
    product = in_memory("s", ensemble(FIT, 3, data_axis=0), KEY, data, 4)
    for i in range(3):
        same(pick(product, i), single(FIT, KEY, i, 3, pick(data, i), 4), rtol=1e-5, atol=1e-6)

    def batch_at(t, i=slice(None)):
        rows = (jnp.arange(8) + 8 * t + 3 * jnp.arange(3)[:, None]) % 24
        return Examples((jnp.asarray(X)[rows[i]],), jnp.asarray(Y)[rows[i]])

    product = in_memory("s", ensemble(FIT, 3, batch_axis=0), KEY, DATA, 4, lambda data, t: batch_at(t))
    for i in range(3):
        alone = single(FIT, KEY, i, 3, DATA, 4, partial(batch_at, i=i))
        same(pick(product, i), alone, rtol=1e-5, atol=1e-6)


def test_sweep_equals_separate_runs():
    rates, decays = np.asarray([0.01, 0.1], np.float32), np.asarray([0.0, 0.1], np.float32)

    def make(lr, decay):
        return train(LINEAR, objective(mse), optax.adamw(lr, weight_decay=decay))

    swept = sweep(make, lr=rates, decay=decays)
    loop = InMemory({})
    product = loop("s", swept, KEY, DATA, 5)
    for i, (lr, decay) in enumerate(zip(rates, decays, strict=True)):
        alone = in_memory("s", make(float(lr), float(decay)), KEY, DATA, 5)
        same(pick(product, i), alone, rtol=1e-3, atol=1e-5)
    losses = loop.history["s"]["loss"]
    assert losses.shape == (5, 2)
    np.testing.assert_allclose(losses[0], losses[0, 0], rtol=1e-6)  # all start from the same key


def test_sweep_needs_equal_lengths():
    for values in ({"lr": np.ones(2), "decay": np.ones(1)}, {"lr": 0.1}, {}):
        with pytest.raises(ValueError, match="equal length"):
            sweep(lambda **kw: FIT, **values)


def test_a_step_of_an_ensemble_is_not_a_select(members):
    """The step number is the same for all members, so a branch on it is not computed on both sides."""
    alg = ensemble(keep_best(FIT, lambda p, d: p.params["out"]["bias"].sum(), every=5), 2)
    state = jax.eval_shape(alg.init, KEY, DATA, None)
    text = str(jax.make_jaxpr(alg.step)(KEY, np.int32(0), state, DATA, None))
    assert "cond[" in text


# --- record -------------------------------------------------------------------------------------


def snapshots(num_steps, every):
    """Snapshot i belongs to step i * every."""
    return trajectory()[: num_steps + 1 : every]


def collected(every, capacity, num_steps, **driver):
    calls = []
    alg = record(FIT, every, capacity, sink=lambda tree, first: calls.append((tree, first)))
    loop = Driver(progress=False, **driver) if driver else in_memory
    product, rest = loop("s", alg, KEY, DATA, num_steps)
    return calls, product, rest


@pytest.mark.parametrize("every", [1, 3])
def test_record_equals_a_loop_by_hand(every):
    alg = record(FIT, every, capacity=4)
    product, kept = in_memory("s", alg, KEY, DATA, 7)
    expected = snapshots(7, every)
    for i in range(4):
        if i < len(expected):
            same(pick(kept, i), expected[i], rtol=1e-5, atol=1e-6)
        else:
            assert not any(np.any(x) for x in jax.tree.leaves(pick(kept, i)))
    same(product, in_memory("s", FIT, KEY, DATA, 7), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("every", "capacity"), [(1, 3), (3, 2), (2, 1), (5, 4)])
def test_record_into_a_sink(every, capacity, tmp_path):
    num_steps = 11
    expected = snapshots(num_steps, every)
    for driver in ({}, {"out": tmp_path, "chunk_size": 4}):
        calls, product, rest = collected(every, capacity, num_steps, **driver)
        full = len(expected) // capacity
        assert [first for _, first in calls] == [i * capacity for i in range(full)]
        for tree, first in calls:
            assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(tree))  # and not donated away
            for i in range(capacity):
                same(pick(tree, i), expected[first + i], rtol=1e-5, atol=1e-6)
        for i in range(len(expected) % capacity):  # a partly filled buffer is in the product
            same(pick(rest, i), expected[full * capacity + i], rtol=1e-5, atol=1e-6)
        same(product, in_memory("s", FIT, KEY, DATA, num_steps), rtol=1e-5, atol=1e-6)


@pytest.mark.long
def test_record_inside_other_transforms():
    """In an ensemble, a sweep and under selection, with leading axes where members have them."""
    calls = []
    recorded = record(FIT, 2, 2, sink=lambda tree, first: calls.append((tree, first)))
    _, rest = in_memory("s", ensemble(recorded, 3), KEY, DATA, 4)
    assert [first for _, first in calls] == [0]
    assert calls[0][0]["model"]["out"]["kernel"].shape == (3, 2, 3, 2)
    alone = record(FIT, 2, 3)
    for i in range(3):
        _, kept = single(alone, KEY, i, 3, DATA, 4)
        same(pick(calls[0][0], (i, slice(2))), pick(kept, slice(2)), rtol=1e-5, atol=1e-6)
        same(pick(rest, (i, 0)), pick(kept, 2), rtol=1e-5, atol=1e-6)

    calls.clear()

    def make(lr):
        alg = train(LINEAR, objective(mse), optax.sgd(lr))
        return record(alg, 1, 2, sink=lambda tree, first: calls.append((tree, first)))

    in_memory("s", sweep(make, lr=np.asarray([0.1, 0.2])), KEY, DATA, 3)
    assert [first for _, first in calls] == [0, 2]
    assert calls[0][0]["model"]["out"]["kernel"].shape == (2, 2, 3, 2)

    calls.clear()
    in_memory("s", keep_best(recorded, lambda product, data: 0.0), KEY, DATA, 2)
    assert [first for _, first in calls] == [0]


def test_two_sinks_are_one_too_many():
    def sink(tree, first):
        raise AssertionError

    with pytest.raises(ValueError, match="only one sink"):
        record(record(FIT, 1, 2, sink=sink), 1, 2, sink=sink)


# --- a mesh -------------------------------------------------------------------------------------

MESH = """
    import warnings; warnings.simplefilter("error")
    import sys, tempfile; sys.path[:0] = sys.argv[1:]
    import jax, numpy as np
    from jax.sharding import Mesh
    from core_toy import DATA, JITTERED, X, Y, same
    from interrupts import interrupted_at
    from jgd.core import Driver, Examples, ensemble, in_memory, keep_best, record
    import jgd.core.loop as loop

    assert jax.device_count() == 8
    key = jax.random.key(0)
    fit = keep_best(record(JITTERED, 2, 3), lambda p, d: -(p[0](X).logits ** 2).mean(), every=3, patience=4)
    loss = dict(rtol=1e-4, atol=1e-5)
    mesh = jax.make_mesh((8,), ("members",))
    plain = in_memory("s", ensemble(fit, 8), key, DATA, 7)
    alg = ensemble(fit, 8, mesh=mesh)
    before = loop._advance._cache_size()
    with tempfile.TemporaryDirectory() as out:
        product = Driver(out, progress=False, checkpoint_every=3)("s", alg, key, DATA, 7)
    same(product, plain, **loss)
    leaf = jax.tree.leaves(product)[0]
    assert len(leaf.sharding.device_set) == 8, leaf.sharding
    assert loop._advance._cache_size() == before + 1, "compiled more than once"
    with tempfile.TemporaryDirectory() as out:  # stopped after three steps, and resumed
        with interrupted_at(3):
            Driver(out, progress=False, checkpoint_every=3)("s", alg, key, DATA, 7)
        same(Driver(out, progress=False)("s", alg, key, DATA, 7), product)
    half = Mesh(np.asarray(jax.devices()[:4]), ("m",))  # two members on each device
    data = Examples((np.stack([X * i for i in range(8)]),), np.stack([Y] * 8))
    same(in_memory("s", ensemble(JITTERED, 8, data_axis=0, mesh=half), key, data, 3),
         in_memory("s", ensemble(JITTERED, 8, data_axis=0), key, data, 3), **loss)
    for bad, message in ((dict(n=6), "6 members"), (dict(n=8, data_axis=1), "must be None or 0")):
        try:
            ensemble(fit, mesh=mesh, **bad)
        except ValueError as error:
            assert message in str(error), error
        else:
            raise AssertionError(bad)
    print("fine")
"""


@pytest.mark.long
def test_a_mesh_of_eight_devices():
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MESH), *map(str, Path(__file__).parents[:2])],
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "fine", done.stderr[-4000:]
