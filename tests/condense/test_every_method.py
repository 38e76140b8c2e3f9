"""Every method of the catalogue on a toy: it runs, resumes, exports, is stored, and sees what it may see.

A new method is covered by being in the catalogue and having tiny settings here.
"""

from dataclasses import replace
from functools import cache

import condense_toy
import graph_toy
import jax
import jax.numpy as jnp
import jraph
import numpy as np
import pytest
from interrupts import interrupted_at

import jgd
from jgd.condense import METHODS
from jgd.core import Driver, HostStream, InMemory
from jgd.data import ArrayTask, artifact
from jgd.graph import EXPORT_CHECKS

KEY = jax.random.key(3)
_Y = np.arange(48) % 3
ARRAYS = ArrayTask(
    x=(np.random.default_rng(0).standard_normal((48, 4, 2)) + _Y[:, None, None]).astype(np.float32),
    y=_Y,
    train=np.arange(48) < 30,
    val=(np.arange(48) >= 30) & (np.arange(48) < 39),
    test=np.arange(48) >= 39,
    name="arrays",
)
TASKS = {"nodes": condense_toy.TASK, "graphs": graph_toy.TASK, "arrays": ARRAYS}
SIZES = {"nodes": {"nodes": 9}, "graphs": {"per_class": 3}, "arrays": {"nodes": 9}}
_NET = {"hidden": 8, "epochs": 4}
_MATCHED = {"hidden": 8, "select_every": 2, "start": "random"}
_TRAJECTORY = {
    "start": "random",
    **{"experts": 4, "group": 2, "steps": 4, "max_start": 10, "hidden": 8, "select_every": 2},
}
TINY = {
    "herding": _NET,
    "k-center": _NET,
    "vng": _NET,
    "clustgdd": {"hidden": 8, "head_steps": 4, "refine_steps": 4, "restarts": 1},
    "gcond": {**_MATCHED, "epochs": 4, "outer": 2, "inner": 1, "pge_hidden": 8},
    "gcond-x": {**_MATCHED, "epochs": 4, "outer": 2, "inner": 1},
    "doscond": {**_MATCHED, "epochs": 4, "pge_hidden": 8},
    "doscond-x": {**_MATCHED, "epochs": 4},
    "sgdd": {**_MATCHED, "epochs": 4, "outer": 2, "inner": 1, "graphon_hidden": 8, "sample": 12},
    "gcdm": {**_MATCHED, "epochs": 4, "outer": 2, "inner": 1, "pge_hidden": 8},
    "gcdm-x": {**_MATCHED, "epochs": 4, "outer": 2, "inner": 1},
    "dm": {**_MATCHED, "epochs": 4},
    "simgc": {"teacher_hidden": 8, "teacher_steps": 4, "pge_hidden": 8, "steps": 4, "select_every": 2},
    "sfgc": {**_TRAJECTORY, "every": 10, "length": 20, "student_steps": 3, "lr_x": 0.01},
    "geom": {
        **_TRAJECTORY,
        **{"every": 10, "length": 20, "first_start": 5, "student_steps": 3, "lr_x": 0.01},
        **{"expert_steps": 40, "expert_pace_steps": 20},
    },
    "gcsr": {name: value for name, value in _TRAJECTORY.items() if name != "start"} | {"expert_steps": 20},
    "gc-sntk": {"steps": 4, "select_every": 2},
    "gdem": {"steps": 4, "select_every": 2, "start_hidden": 8, "start_steps": 4, "start_x_steps": 3},
    "doscond-graphs": {
        "per_class": 2,
        "nodes": 12,
        "gap": 1.0,
        "hidden": 8,
        "layers": 2,
        "steps": 4,
        "batch": 16,  # all graphs of a class: no draw changes the size of the padded batches
        "select_every": 2,
    },
    "kidd": {"per_class": 2, "steps": 4, "batch": 8, "support": 3, "select_every": 2} | {"start": "random"},
    "mirage": {},
}
"""Settings that make a method tiny; those that are not listed have no loop that takes time."""

CASES = [(name, kind) for name in METHODS for kind in METHODS[name].kinds]
EVERY = pytest.mark.parametrize(("name", "kind"), CASES, ids=lambda x: x)
NODES = [name for name, kind in CASES if kind == "nodes"]
DATASETS = ("cora", "citeseer", "pubmed", "ogbn-arxiv", "flickr", "reddit", "squirrel", "NCI1", "DD", "MUTAG")
pytestmark = pytest.mark.filterwarnings("ignore:.* was asked for .* and gives")


def recipe_of(name, kind):
    sized = {} if METHODS[name].kinds == ("graphs",) else SIZES[kind]
    return METHODS[name].make(**sized, **TINY.get(name, {}))


class Spy(InMemory):
    """A loop in memory that remembers what it ran."""

    def __init__(self):
        super().__init__()
        self.ran = {}

    def __call__(self, name, algorithm, key, data, num_steps, batches=None):
        self.ran[name] = algorithm, data, num_steps, batches
        return super().__call__(name, algorithm, key, data, num_steps, batches)


@cache
def run(name, kind):
    """The recipe, what it gives, and what it ran."""
    recipe, spy = recipe_of(name, kind), Spy()
    return recipe, recipe(KEY, TASKS[kind], spy), spy.ran


def arrays(small):
    graph = isinstance(small.data, jraph.GraphsTuple)
    data = small.data._replace(globals=None) if graph else small.data
    return jax.tree.leaves((data, small.targets, small.weights, dict(sorted(small.extras.items()))))


def same(a, b):
    for left, right in zip(arrays(a), arrays(b), strict=True):
        np.testing.assert_array_equal(left, right)


@EVERY
def test_runs_and_is_stored(name, kind, tmp_path):
    """It says what it is, has every class, is finite, and survives the disk."""
    recipe, small, _ = run(name, kind)
    assert small.provenance["method"] == name
    assert small.provenance["config"].keys() == vars(recipe).keys()
    targets = small.targets if small.targets.ndim == 1 else small.targets.argmax(1)
    if name not in ("kron", "clustgdd"):  # whose labels follow from the nodes that are merged
        assert small.training.targets == "logits" or set(targets) == set(range(TASKS[kind].num_classes))
    assert all(np.isfinite(x).all() for x in arrays(small))
    loaded = artifact.load(artifact.save(small, tmp_path / "small.npz"))
    same(loaded, small)
    assert loaded.training == small.training
    assert loaded.provenance["method"] == name


@EVERY
def test_another_seed_compiles_nothing(name, kind, compilations):
    recipe, _, ran = run(name, kind)
    if not ran:
        pytest.skip("no loops")
    before = compilations["jit(_advance)"]
    recipe(jax.random.key(7), TASKS[kind])
    assert compilations["jit(_advance)"] == before


@EVERY
def test_resumes(name, kind, tmp_path):
    """Stopped in the middle of the last loop it ends, when it is run again, with the same set to the bit."""
    recipe, small, ran = run(name, kind)
    if not ran:
        pytest.skip("no loops")
    *_, (_, _, num_steps, _) = ran.values()
    with interrupted_at(num_steps // 2, loop=len(ran)):
        recipe(KEY, TASKS[kind], Driver(tmp_path, progress=False, checkpoint_every=1))
    same(recipe(KEY, TASKS[kind], Driver(tmp_path, progress=False)), small)


@EVERY
def test_loops_lower_for_all_platforms(name, kind):
    _, _, ran = run(name, kind)
    if not ran:
        pytest.skip("no loops")
    for algorithm, data, _, batches in ran.values():

        def at(t, data=data, batches=batches):
            if batches is None:
                return None
            return batches.batch_at(0) if isinstance(batches, HostStream) else batches(data, t)

        def begin(key, data=data, algorithm=algorithm, at=at):
            return algorithm.init(key, data, at(jnp.int32(0)))

        leaves, tree = jax.tree.flatten((jax.eval_shape(begin, KEY), data))

        def step(raw, *leaves, tree=tree, algorithm=algorithm, at=at):
            state, data = tree.unflatten(leaves)
            key, t = jax.random.wrap_key_data(raw), jnp.int32(0)
            return jax.tree.leaves(algorithm.step(key, t, state, data, at(t, data))[0])

        keys = [jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves]
        assert not any(keys)
        shapes = [jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype) for leaf in leaves]
        raw = jax.eval_shape(jax.random.key_data, KEY)
        platforms = ("cpu", "cuda", "tpu")
        found = jax.export.export(jax.jit(step), platforms=platforms, disabled_checks=EXPORT_CHECKS)
        assert found(raw, *shapes).platforms == platforms


@pytest.mark.long
@pytest.mark.parametrize("name", NODES)
def test_inductive_sees_training_nodes_only(name):
    """Test nodes have no part; where a method selects, validation nodes choose, and nothing else."""
    task = condense_toy.INDUCTIVE
    recipe = recipe_of(name, "nodes")
    selects = name == "clustgdd" or getattr(recipe, "select_every", None) is not None
    keep = np.asarray(task.train) | (np.asarray(task.val) & selects)
    small = recipe(KEY, task)
    same(small, recipe(KEY, condense_toy.elsewhere(task, keep)))
    assert small.provenance["setting"] == "inductive"
    if getattr(recipe, "select_every", None) is not None:
        last = replace(recipe, select_every=None)
        train = np.asarray(task.train)
        if name not in ("simgc", "gdem"):  # whose teacher is chosen on validation nodes
            same(last(KEY, task), last(KEY, condense_toy.elsewhere(task, train)))


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].official is not None])
def test_official_settings_construct(name):
    usual = METHODS[name].make()
    for dataset in DATASETS:
        sizes = [{}] if not hasattr(usual, "label_ratio") else [{}, {"label_ratio": 0.01}, {"nodes": 30}]
        for size in sizes:
            recipe = METHODS.official(name, dataset, **size)
            assert type(recipe) is type(usual)
            if "nodes" in size:
                assert (recipe.label_ratio, recipe.nodes) == (None, 30)
            if "label_ratio" in size:
                assert recipe.label_ratio == 0.01
    with pytest.raises(ValueError, match="no setting of"):
        METHODS.official(name, "cora", unheard_of=1)


@pytest.mark.parametrize("name", list(METHODS))
def test_public_names(name):
    entry = METHODS[name]
    lower = name.replace("-", "_")
    assert getattr(jgd.condense, lower) is entry.make
    assert lower in dir(jgd.condense)
    assert name == name.lower()
    assert entry.summary
    assert entry.cost in ("none", "seconds", "minutes", "hours")
    assert set(entry.kinds) <= {"nodes", "graphs", "arrays"}
    if isinstance(entry.make, type):
        assert getattr(jgd.condense, entry.make.__name__) is entry.make
