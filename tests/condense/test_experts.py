"""Experts: trajectories against the loop driver, segments, both ways to feed a loop, the curriculum."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.sparse as sp
from condense_toy import TASK
from hypothesis import given, settings
from hypothesis import strategies as st
from interrupts import interrupted_at

from jgd.condense._sfgc import gcn, real_nodes
from jgd.condense.trajectories import (
    RankedExamples,
    Segment,
    Span,
    curriculum,
    difficulty,
    expert,
    pace,
    ranks,
    store,
    streamed,
    train_several,
    trajectory,
)
from jgd.core import Algorithm, Driver, Examples, InMemory, from_linen, in_memory, record
from jgd.graph import adjacency, identity, operator
from jgd.losses import cross_entropy, mean
from jgd.nn import GCN

close = np.testing.assert_allclose
KEY = jax.random.key(0)
REAL = real_nodes(TASK)
MODEL = gcn(3, 4)
EXPERT = expert(MODEL, optax.sgd(0.4))
AT = (0, 2, 3, 7)


def trees(a, b, **tolerance):
    tolerance = tolerance or {"rtol": 0}
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: close(x, y, **tolerance), a, b)


def pick(tree, i):
    return jax.tree.map(lambda x: np.asarray(x)[i], tree)


# --- trajectories ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def way():
    return jax.jit(trajectory(EXPERT, AT))(KEY, REAL)


def test_trajectory_equals_the_driver(way):
    """Snapshots are those of `record` in a loop with the same key; the initial network is the first."""
    net, recorded = in_memory("s", record(EXPERT, 1, 8), KEY, REAL, 7)
    for position, step in enumerate(AT):
        trees(pick(way, position), pick(recorded["model"], step), rtol=1e-5, atol=1e-6)
    trees(pick(way, -1), net.params, rtol=1e-5, atol=1e-6)
    assert np.abs(pick(way, 0)["first"]["kernel"] - pick(way, 1)["first"]["kernel"]).max() > 0


def test_batches_and_selection():
    """An expert on batches of any data: here least squares on rows that come in turns."""
    rows = np.random.default_rng(0).standard_normal((6, 2)).astype(np.float32)

    def step(key, t, state, data, batch):
        return state - 0.1 * batch * (batch @ state - 1), {}

    alg = Algorithm(lambda key, data, batch: jnp.ones(2), step, lambda state, data: state)
    run = trajectory(alg, (0, 4, 9), select=lambda s: {"w": s}, batches=lambda data, t: data[t % 6])
    found = jax.jit(run)(KEY, rows)["w"]
    w = np.ones(2)
    for t in range(10):
        if t in (0, 4, 9):
            close(found[(0, 4, 9).index(t)], w, rtol=1e-5)
        w = w - 0.1 * rows[t % 6] * (rows[t % 6] @ w - 1)


@pytest.mark.parametrize("at", [(), (2, 1), (1, 1), (-1, 2)])
def test_impossible_snapshots(at):
    with pytest.raises(ValueError, match="ascending"):
        trajectory(EXPERT, at)


@pytest.mark.long
def test_several_are_single_ones():
    """Two at once and then one, or all at once: the same experts up to rounding."""
    keys = jax.random.split(KEY, 3)
    run = trajectory(EXPERT, (0, 3))
    single = jax.jit(run)
    alone = [single(k, REAL) for k in keys]
    for at_once in (2, 3):
        together = jax.jit(train_several(run, at_once))(keys, REAL)
        for i in range(3):
            trees(pick(together, i), alone[i], rtol=1e-5, atol=1e-6)


def test_weights_start_within_the_fan_in():
    """Uniform within one over the root of the inputs of a layer, biases too, whatever its outputs."""
    params = {"features": 7 * 7, "hidden": 100}
    x, a = jnp.ones((5, params["features"])), identity(5)
    draw = jax.jit(lambda key: gcn(16, params["hidden"]).init(key, a, x)[0])
    found = draw(KEY)
    bounds = {
        "first": {"kernel": 1 / 7, "bias": 1 / 7},
        "second": {"kernel": 1 / 10},
        "bias": 1 / 10,
    }
    assert jax.tree.structure(found) == jax.tree.structure(bounds)
    for leaf, bound in zip(jax.tree.leaves(found), jax.tree.leaves(bounds), strict=True):
        assert np.abs(leaf).max() <= bound
        assert np.abs(leaf).max() > 0.8 * bound
        assert len(np.unique(leaf)) > 0.9 * leaf.size
    kernel = np.asarray(found["first"]["kernel"])
    close(kernel.var(), (1 / 7) ** 2 / 3, rtol=0.05)  # of a uniform one
    assert abs(kernel.mean()) < 0.01
    assert not np.array_equal(found["bias"], draw(jax.random.key(1))["bias"])


# --- segments ------------------------------------------------------------------------------------


def test_span_of_sfgc():
    """Starts 0, 10, 20, 30 with equal chances, targets 1200 steps later; eight snapshots and no more."""
    span = Span(1200, 40, every=10)
    assert span.at == (0, 10, 20, 30, 1200, 1210, 1220, 1230)
    keys = jax.random.split(KEY, 4000)
    pairs = np.asarray(jax.vmap(lambda k: span.draw(k, 5))(keys))
    np.testing.assert_array_equal(pairs[:, 1], pairs[:, 0] + 4)
    counts = np.bincount(pairs[:, 0], minlength=4)
    assert len(counts) == 4
    assert np.abs(counts / 4000 - 0.25).max() < 0.03


def test_span_expands():
    """GEOM: in step t a start lies before min(s_0 + t, s_max), rounded down."""
    span = Span(70, 35, first=5, least=2, every=10, end=200)
    assert span.at == (0, 10, 20, 30, 70, 80, 90, 100, 200)
    keys = jax.random.split(KEY, 300)
    for t, highest in ((0, 0), (5, 0), (6, 1), (15, 1), (16, 2), (26, 3), (1000, 3)):
        starts = np.asarray(jax.vmap(lambda k, t=t: span.draw(k, t))(keys))[:, 0]
        assert starts.min() == 0
        assert starts.max() == highest, t
    late = Span(3, 9, least=4, every=2)  # overlapping starts and targets share snapshots
    assert late.at == (4, 6, 7, 8, 9, 11)
    assert {tuple(p) for p in np.asarray(jax.vmap(lambda k: late.draw(k, 0))(keys)).tolist()} == {
        (0, 2),
        (1, 4),
        (3, 5),
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": 0}, "length"),
        ({"every": 0}, "every"),
        ({"first": 50}, "first"),
        ({"least": 40}, "least"),
        ({"first": 0}, "first"),
        ({"end": 99}, "ends at step 99, before its last target at step 139"),
    ],
)
def test_impossible_segments(changes, message):
    with pytest.raises(ValueError, match=message):
        Span(**{"length": 100, "most": 40, **changes})


# --- feeding a loop -------------------------------------------------------------------------------


def watch():
    """A matching algorithm that shows what it was given."""

    def init(key, data, batch):
        return jnp.zeros(())

    def step(key, t, state, data, batch):
        seen = {n: getattr(batch, n)["first"]["kernel"] for n in Segment._fields}
        return state + jnp.sum(seen["target"] - seen["start"]), {**seen, "loss": jnp.zeros(())}

    return Algorithm(init, step, lambda state, data: state)


SPAN = Span(3, 4, every=2, end=9)
GROUPS = streamed(watch(), trajectory(EXPERT, SPAN.at), SPAN, group=2, every=5, get=lambda data: data)


WAY = jax.jit(trajectory(EXPERT, SPAN.at))


@pytest.mark.long
def test_streamed_segments():
    """Members take turns, a new group comes in time, and segments are segments of one member's trajectory."""
    loop = InMemory({})
    loop("s", GROUPS, KEY, REAL, 12)
    rows = loop.history["s"]
    used = []

    @jax.jit
    def member(t):
        t_key = jax.random.fold_in(jax.random.fold_in(KEY, 1), t - t % 5)
        return jax.random.split(jax.random.split(t_key, 3)[0], 2)[t % 2]

    for t in range(12):
        snapshots = np.asarray(WAY(member(t), REAL)["first"]["kernel"])
        at = SPAN.at
        close(rows["last"][t], snapshots[-1], rtol=1e-4, atol=1e-6)
        fits = [s for s in (0, 2) if np.allclose(rows["start"][t], snapshots[at.index(s)], atol=1e-6)]
        assert len(fits) == 1, t
        close(rows["target"][t], snapshots[at.index(fits[0] + 3)], rtol=1e-4, atol=1e-6)
        used.append(fits[0])
    assert set(used) == {0, 2}
    assert len({rows["last"][t].tobytes() for t in range(12)}) == 6  # three groups of two


@pytest.mark.long
def test_streamed_resumes(tmp_path):
    """Interrupted anywhere, the run goes on to the same state to the bit: the group is in the checkpoint."""
    whole = in_memory("s", GROUPS, KEY, REAL, 12)
    driver = Driver(tmp_path, progress=False, checkpoint_every=3)
    with interrupted_at(7):
        driver("s", GROUPS, KEY, REAL, 12)
    again = Driver(tmp_path, progress=False)("s", GROUPS, KEY, REAL, 12)
    np.testing.assert_array_equal(again, whole)


def test_impossible_streams():
    way = trajectory(EXPERT, SPAN.at)
    with pytest.raises(ValueError, match="group and every"):
        streamed(watch(), way, SPAN, group=0, every=5)
    sink = record(watch(), 1, 2, sink=lambda tree, first: None)
    with pytest.raises(ValueError, match="on the host"):
        streamed(sink, way, SPAN, group=1, every=5)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experts")
    return store(folder, KEY, REAL, EXPERT, SPAN.at, count=5, group=2, note="small")


@pytest.mark.long
def test_store(shelf):
    """Each expert is that of its own key, whatever its group; a second call trains nothing."""
    for number in (0, 3, 4):
        expected = WAY(jax.random.fold_in(KEY, number), REAL)
        for position in (0, 2, -1):
            trees(shelf.read(number, position), pick(expected, position), rtol=1e-5, atol=1e-6)
    before = {p.name: p.stat().st_mtime_ns for p in shelf.folder.iterdir()}
    again = store(shelf.folder, KEY, REAL, EXPERT, SPAN.at[1:3], count=5, group=3, note="small")
    assert {p.name: p.stat().st_mtime_ns for p in shelf.folder.iterdir()} == before
    assert again.at == SPAN.at  # what is there, though less was asked for


@pytest.mark.long
def test_store_goes_on_after_an_interruption(shelf, tmp_path):
    """What is missing is trained, and nothing else; half-written files do not count."""
    first = store(tmp_path, KEY, REAL, EXPERT, SPAN.at, count=3, group=2, note="small")
    first._file(1).unlink()
    (tmp_path / ".expert-00001.npy.x.part").write_bytes(b"half")
    kept = first._file(0).stat().st_mtime_ns
    store(tmp_path, KEY, REAL, EXPERT, SPAN.at, count=5, group=2, note="small")
    assert first._file(0).stat().st_mtime_ns == kept
    for number in range(5):
        trees(first.read(number, 1), shelf.read(number, 1), rtol=1e-5, atol=1e-6)


def test_store_refuses_others(shelf):
    common = {"count": 2, "note": "small"}
    for changes, message in (
        ({"note": "large"}, "other note"),
        ({"precision": "float16"}, "other precision"),
        ({"precision": "int8"}, "precision"),
        ({"count": 0}, "at least 1"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            store(shelf.folder, KEY, REAL, EXPERT, SPAN.at, **{**common, **changes})
    with pytest.raises(ValueError, match="other key, at"):
        store(shelf.folder, jax.random.key(1), REAL, EXPERT, (0, 77), **common)
    other = REAL._replace(targets=REAL.targets[::-1])
    with pytest.raises(ValueError, match="other data"):
        store(shelf.folder, KEY, other, EXPERT, SPAN.at, **common)
    with pytest.raises(ValueError, match=r"no snapshots at steps \[11\]"):
        shelf.segments(Span(11, 1), KEY)


@pytest.mark.parametrize(("precision", "error", "size"), [("bfloat16", 2**-8, 2), ("float16", 2**-10, 2)])
def test_store_in_half_precision(shelf, tmp_path, precision, error, size):
    half = store(tmp_path, KEY, REAL, EXPERT, SPAN.at, count=1, group=1, precision=precision, note="small")
    whole = shelf.read(0, 2)
    got = half.read(0, 2)
    assert all(x.dtype == np.float32 for x in jax.tree.leaves(got))
    trees(got, whole, rtol=error, atol=1e-5)
    numbers = sum(x.size for x in jax.tree.leaves(whole)) * len(SPAN.at)
    assert half._file(0).stat().st_size < size * numbers + 200
    assert json.loads((tmp_path / "experts.json").read_text())["precision"] == precision


def test_stored_segments(shelf):
    """A stream of the step number alone: every expert once in each round, segments of one trajectory."""
    stream = shelf.segments(SPAN, KEY)
    lasts = {shelf.read(i, -1)["first"]["kernel"].tobytes(): i for i in range(5)}
    order = []
    for t in range(10):
        window = stream.batch_at(t)
        trees(window, stream.batch_at(t))
        number = lasts[window.last["first"]["kernel"].tobytes()]
        order.append(number)
        at = SPAN.at
        starts = [
            s for s in (0, 2) if np.array_equal(window.start["bias"], shelf.read(number, at.index(s))["bias"])
        ]
        assert len(starts) == 1
        trees(window.target, shelf.read(number, at.index(starts[0] + 3)))
    assert sorted(order[:5]) == sorted(order[5:]) == list(range(5))
    assert order[:5] != order[5:]
    loop = InMemory({})
    loop("s", watch(), KEY, REAL, 10, stream)
    np.testing.assert_array_equal([lasts[x.tobytes()] for x in loop.history["s"]["last"]], order)


# --- the curriculum -------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["linear", "root", "geom"]), st.floats(0.05, 1), st.integers(1, 200), st.integers(0, 300)
)
def test_pace(kind, first, length, t):
    """Starts at λ, reaches one at T, never falls, and follows its formula in between."""
    share = pace(kind, first, length)
    close(share(0), first, rtol=1e-5)
    close(share(length), 1, rtol=1e-5)
    assert float(share(t + 1)) >= float(share(t)) - 1e-6
    done = t / length
    formula = {
        "linear": first + (1 - first) * done,
        "root": np.sqrt(first**2 + (1 - first**2) * done),
        "geom": 2 ** min(0, np.log2(first) * (1 - done)),
    }[kind]
    close(share(t), min(1, formula), rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [(("steps", 0.5, 3), "pace"), (("root", 0.0, 3), "first share"), (("root", 0.5, 0), "length")],
)
def test_impossible_paces(settings, message):
    with pytest.raises((ValueError, TypeError), match=message):
        pace(*settings)


def test_difficulty():
    """Entropy by brute force, with known labels only, each node once for itself."""
    a = adjacency(TASK.graph).toarray()
    labels = np.asarray(TASK.labels)
    for known in (np.ones(72, bool), np.asarray(TASK.train)):
        expected = []
        for i in range(72):
            around = [j for j in range(72) if (a[i, j] or i == j) and known[j]]
            p = np.bincount(labels[around], minlength=3) / max(1, len(around))
            expected.append(-sum(x * np.log(x) for x in p if x > 0))
        close(difficulty(sp.csr_array(a), labels, known), expected, atol=1e-12)
    loops = sp.csr_array(a + np.eye(72))
    close(difficulty(loops, labels, known), expected, atol=1e-12)
    mixed = difficulty(sp.csr_array(np.ones((4, 4))), np.asarray([0, 1, 2, 3]), np.ones(4, bool))
    close(mixed, np.log(4))
    assert difficulty(sp.csr_array((3, 3)), np.asarray([0, 1, 1]), np.zeros(3, bool)).tolist() == [0, 0, 0]


def test_unknown_labels_do_not_count():
    labels = np.asarray(TASK.labels).copy()
    train = np.asarray(TASK.train)
    before = difficulty(adjacency(TASK.graph), labels, train)
    labels[~train] = (labels[~train] + 1) % 3
    np.testing.assert_array_equal(difficulty(adjacency(TASK.graph), labels, train), before)


def test_ranks():
    values, mask = np.asarray([3.0, 1, 2, 0, 5]), np.asarray([True, True, False, True, True])
    np.testing.assert_array_equal(ranks(values, mask), [2, 1, 5, 0, 3])
    ties = np.stack([ranks(np.zeros(6), np.ones(6, bool), seed) for seed in range(40)])
    assert (np.sort(ties) == np.arange(6)).all()
    assert len({tuple(r) for r in ties}) > 30


@pytest.mark.long
def test_curriculum_takes_the_easiest():
    """One step sees floor(g(t) n) examples, those of lowest rank; at the end it is plain training."""
    count = len(REAL.targets)
    rank = np.random.default_rng(0).permutation(count).astype(np.int32)
    data = RankedExamples(REAL, jnp.asarray(rank))
    alg = curriculum(MODEL, optax.sgd(0.4), pace("linear", 0.25, 8))
    state = jax.jit(alg.init)(KEY, data, None)
    step, plain = jax.jit(alg.step), jax.jit(EXPERT.step)
    for t in (0, 3, 8, 20):
        share = int(np.floor(min(1, 0.25 + 0.75 * t / 8) * count + 1e-3))
        part = REAL._replace(weights=jnp.asarray(rank < share, jnp.float32))
        trees(
            step(KEY, t, state, data, None)[0].params, plain(KEY, t, state, part, None)[0].params, rtol=1e-5
        )
    weightless = RankedExamples(REAL._replace(weights=REAL.weights.at[rank < 5].set(0)), jnp.asarray(rank))
    assert np.isfinite(step(KEY, 0, state, weightless, None)[1]["loss"])


@pytest.mark.long
def test_real_nodes_is_the_whole_graph():
    """The two-hop shortcut gives the loss and the gradients of a GCN on everything."""
    params = jax.jit(lambda: MODEL.init(KEY, *REAL.inputs)[0])()
    same = {
        "_GCNLayer_0": {"Linear_0": {"kernel": params["first"]["kernel"]}, "bias": params["first"]["bias"]},
        "_GCNLayer_1": {"Linear_0": {"kernel": params["second"]["kernel"]}, "bias": params["bias"]},
    }
    whole = from_linen(GCN(3, 4, dropout=0.0))
    inputs = operator(TASK.graph, normalize="sym", self_loops=True), jnp.asarray(TASK.graph.nodes)

    def everything(p):
        logits = whole.apply(p, {}, *inputs)[0].logits
        return mean(cross_entropy(logits, jnp.asarray(TASK.labels)), jnp.asarray(TASK.train))

    def ours(p):
        return mean(cross_entropy(MODEL.apply(p, {}, *REAL.inputs)[0].logits, REAL.targets), REAL.weights)

    loss, grads = jax.jit(jax.value_and_grad(everything))(same)
    found, got = jax.jit(jax.value_and_grad(ours))(params)
    close(found, loss, rtol=1e-5)
    close(got["first"]["kernel"], grads["_GCNLayer_0"]["Linear_0"]["kernel"], rtol=1e-4, atol=1e-6)
    close(got["bias"], grads["_GCNLayer_1"]["bias"], rtol=1e-4, atol=1e-6)
    inductive = real_nodes(replace(TASK, setting="inductive"))
    assert inductive.inputs[0].shape == (int(TASK.train.sum()),) * 2
    assert isinstance(inductive, Examples)
