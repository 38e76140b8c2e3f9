"""Every way to a task passes one gate: any valid form gives the same task, any damage one clear line."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jgd.data import ArrayTask, DataError, GraphTask, NodeTask, SequenceTask, from_pyg
from jgd.data.checks import as_labels, as_mask, known, need_classes
from jgd.graph import from_edges, sparse_features, validate

N = 12
INDEX = np.arange(N)
X = np.eye(N, 4, dtype=np.float32)
GRAPH = from_edges(INDEX, (INDEX + 1) % N, X)
Y = (INDEX % 3).astype(np.int32)
TRAIN, VAL, TEST = (i == INDEX // 4 for i in range(3))


SPLITS = {"num_classes": 3, "train": TRAIN, "val": VAL, "test": TEST}


def node_task(**changes):
    return NodeTask(**{"graph": GRAPH, "labels": Y, **SPLITS, **changes})


def array_task(**changes):
    return ArrayTask(**{"x": X, "y": Y, **SPLITS, **changes})


def graph_task(**changes):
    one, three = np.arange(3), np.array([3])
    cycle = {"senders": one, "receivers": np.roll(one, 1), "n_node": three, "n_edge": three}
    graphs = [jraph.GraphsTuple(nodes=np.ones((3, 2)), edges=None, globals=None, **cycle) for _ in INDEX]
    return GraphTask(**{"graphs": jraph.batch_np(graphs), "labels": Y, **SPLITS, **changes})


TASKS = [node_task, array_task, graph_task]


def refused(make, *words):
    """A `DataError` of one line with these words in it."""
    with pytest.raises(DataError) as info:
        make()
    message = str(info.value)
    assert "\n" not in message
    assert len(message) < 300
    for word in words:
        assert word in message, message


# --- masks --------------------------------------------------------------------------------------

FORMS = [
    lambda m: m,
    lambda m: m.tolist(),
    lambda m: m.astype(int),
    lambda m: m.astype(np.uint8),
    lambda m: m.astype(np.float32),
    lambda m: m[:, None],
    lambda m: jnp.asarray(m),
    lambda m: np.flatnonzero(m),
    lambda m: np.flatnonzero(m)[::-1].tolist(),
    lambda m: np.flatnonzero(m).astype(np.uint64),
]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=9), st.integers(0, len(FORMS) - 1))
def test_any_form_of_a_mask(bits, form):
    """The one case that can be read in two ways, row numbers that are a 0/1 mask too, is a mask."""
    mask = np.asarray(bits)
    value = FORMS[form](mask)
    found = as_mask("train", value, len(mask))
    assert found.dtype == bool
    twofold = form >= 7 and len(value) == len(mask) and set(np.asarray(value).tolist()) <= {0, 1}
    expected = np.asarray(value).astype(bool) if twofold else mask
    np.testing.assert_array_equal(found, expected)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-2, 9), max_size=8), st.integers(2, 6))
def test_numbers_are_a_mask_or_row_numbers_or_refused(values, size):
    array = np.asarray(values, int)
    is_mask = len(values) == size and set(values) <= {0, 1}
    is_rows = len(set(values)) == len(values) and all(0 <= v < size for v in values)
    if is_mask or is_rows:
        found = as_mask("train", array, size)
        np.testing.assert_array_equal(found, array == 1 if is_mask else np.isin(np.arange(size), array))
    else:
        refused(lambda: as_mask("train", array, size), "train")


@pytest.mark.parametrize("make", TASKS)
@pytest.mark.parametrize("form", range(len(FORMS)))
def test_every_task_reads_every_form(make, form):
    task = make(train=FORMS[form](TRAIN), test=FORMS[form](TEST))
    assert task.train.dtype == task.test.dtype == bool
    np.testing.assert_array_equal(task.train, TRAIN)
    np.testing.assert_array_equal(task.test, TEST)


BAD_MASKS = {
    "short": (TRAIN[:-1], "11 bools"),
    "empty": (np.zeros(0, bool), "0 bools"),
    "outside": ([0, 12], "train[1] is 12"),
    "negative": ([-1, 3], "train[0] is -1"),
    "twice": ([4, 4, 5], "4 twice"),
    "wrong length of 0 and 1": (TRAIN[:-1].astype(int), "neither"),
    "fractions": (np.full(N, 0.5), "train[0] is 0.5"),
    "floating rows": ([0.0, 4.0], "train[1] is 4"),
    "NaN": (np.where(TRAIN, np.nan, 0), "nan"),
    "columns": (np.ones((N, 2), bool), "one column"),
    "scalar": (True, "shape ()"),
    "word": ("train", "shape ()"),
    "objects": ([True, None] * 6, "object"),
}


@pytest.mark.parametrize("make", TASKS)
@pytest.mark.parametrize("damage", BAD_MASKS)
def test_damaged_masks(make, damage):
    mask, word = BAD_MASKS[damage]
    refused(lambda: make(train=mask), "train", word)
    refused(lambda: dataclasses.replace(make(), train=mask), word)


@pytest.mark.parametrize("make", TASKS)
def test_splits_share_nothing(make):
    refused(lambda: make(val=TRAIN | VAL), "train and val share 4", "first is 0")
    refused(lambda: make(test=np.flatnonzero(VAL | TEST)), "val and test share 4", "first is 4")
    assert make(val=None, test=np.zeros(N, bool)).val is None


def test_rows_without_labels_may_be_anywhere():
    task = array_task(unlabelled=np.flatnonzero(TEST))
    np.testing.assert_array_equal(task.unlabelled, TEST)
    refused(lambda: array_task(unlabelled=[N]), "unlabelled[0]")


@pytest.mark.parametrize("form", range(len(FORMS)))
def test_induced_reads_every_form(form):
    part = node_task().induced(FORMS[form](TRAIN))
    np.testing.assert_array_equal(part.graph.nodes, X[TRAIN])
    assert part.train.all()
    assert not part.test.any()
    assert part.target_kind == "classes"
    refused(lambda: node_task().induced([]), "no nodes")


# --- labels -------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_form_of_classes(data):
    """Numbers, words, columns and floating-point numbers of the same classes are the same labels."""
    count = data.draw(st.integers(2, 4))
    y = np.asarray(
        data.draw(st.permutations([*range(count), *data.draw(st.lists(st.integers(-1, count - 1)))]))
    )
    words = np.asarray([None, *"abcd"], object)[y + 1]
    forms = [y, y.tolist(), y[:, None], y.astype(float), np.where(y < 0, np.nan, y), words, words[:, None]]
    forms += [[None if v < 0 else v for v in y.tolist()], np.where(y < 0, -1, 3 * y + 2), y.astype(np.int8)]
    for form in forms:
        found = as_labels("labels", form, len(y), None)
        assert (found.num_classes, found.kind) == (count, "classes")
        assert np.asarray(found.values).dtype == np.int32
        np.testing.assert_array_equal(found.values, y)
        if form is words:
            assert found.names == tuple("abcd"[:count])
        again = as_labels("labels", found.values, len(y), found.num_classes, found.names)
        assert again.values is found.values
        assert again.names == found.names


@pytest.mark.parametrize("make", TASKS)
def test_classes_are_counted_and_mapped(make):
    name = "y" if make is array_task else "labels"
    assert make(num_classes=None).num_classes == 3
    task = make(**{name: Y + 1}, num_classes=None)
    np.testing.assert_array_equal(getattr(task, name), Y)
    assert task.class_names == (1, 2, 3)
    assert "3 classes (1, 2, 3)" in repr(task)
    twice = make(**{name: np.where(INDEX % 2, 1, -1)}, num_classes=None)
    np.testing.assert_array_equal(getattr(twice, name), INDEX % 2)
    assert twice.class_names == (-1, 1)
    kept = dataclasses.replace(task, train=None)
    assert kept.class_names == (1, 2, 3)
    assert getattr(kept, name) is getattr(task, name)
    mine = make(**{name: np.asarray(["c", "b", "a"])[Y]}, num_classes=None, class_names=("c", "b", "a"))
    np.testing.assert_array_equal(getattr(mine, name), Y)


BAD_LABELS = {
    "from one": (Y + 1, "run from 1 to 3, num_classes is 3"),
    "below": (Y - 2, "run from -2"),
    "signs": (np.where(INDEX % 2, 1, -1), 2, "class 0 has no rows"),
    "fractions": (Y + 0.5, "labels[0] is 0.5"),
    "infinite": (np.where(INDEX == 3, np.inf, Y), "row 3"),
    "huge": (np.where(INDEX == 3, 1e300, Y), "[3] is 1e+300"),
    "short": (Y[:-1], "(11,)"),
    "scalar": (1, "shape ()"),
    "ragged": ([[0, 1], [0]] * 6, "different lengths"),
    "complex": (Y + 1j, "complex"),
    "mixed": (["a", 1, "b"] * 4, "words"),
    "many words": (np.asarray([*"abcdefghijkl"]), "12 different words"),
    "matrix": (np.full((N, 3), 0.7), "row 0 sums to 2.1"),
    "narrow": (np.eye(N, 2), 3, "2 columns"),
    "wide": (np.eye(4)[Y], "4 columns"),
    "dates": (np.full(N, "2020-01-01", "datetime64[D]"), "datetime"),
}


@pytest.mark.parametrize("damage", BAD_LABELS)
@pytest.mark.parametrize("make", [node_task, array_task])
def test_damaged_labels(make, damage):
    labels, *classes, word = BAD_LABELS[damage]
    name = "y" if make is array_task else "labels"
    count = classes[0] if classes else 3
    refused(lambda: make(**{name: labels}, num_classes=count), word.replace("labels", name))


def test_kinds_of_targets():
    soft = np.full((N, 3), 1 / 3, np.float32)
    several = np.stack([INDEX % 2, INDEX % 3 == 0, INDEX > 3], 1)
    cases = [
        (Y, 3, "classes", 3),
        (soft, 3, "probabilities", 3),
        (soft, None, "probabilities", 3),
        (np.eye(3)[Y], 3, "probabilities", 3),
        (several, 3, "multilabel", 3),
        (several.astype(np.float32), None, "multilabel", 3),
        (Y + 0.25, 0, "regression", 0),
        (Y + 0.25, None, "regression", 0),
        (Y, 0, "regression", 0),
        (np.full(N, -1), None, "none", 0),
        (np.full(N, -1), 3, "none", 3),
    ]
    for labels, given_classes, kind, count in cases:
        for make in (node_task, array_task):
            task = make(**{"y" if make is array_task else "labels": labels}, num_classes=given_classes)
            assert (task.target_kind, task.num_classes) == (kind, count)
            values = task.y if make is array_task else task.labels
            assert values.dtype == (np.float32 if kind in ("regression", "probabilities") else values.dtype)
            np.testing.assert_allclose(values, labels)
    column = array_task(y=X[:, :1] * 3 + 0.5, num_classes=None)
    assert column.target_kind == "regression"
    assert column.y.shape == (N, 1)
    assert array_task(y=None, num_classes=None).target_kind == "none"
    assert array_task(y=Y.astype(float), num_classes=None).target_kind == "regression"
    refused(lambda: need_classes(column, "herding"), "regression targets", "herding")


def test_gaps_in_indicators_become_their_mask():
    gaps = np.where(INDEX[:, None] == 2, np.nan, np.stack([INDEX % 2, INDEX > 3], 1))
    task = graph_task(labels=gaps, num_classes=2)
    assert task.target_kind == "multilabel"
    np.testing.assert_array_equal(task.label_mask, ~np.isnan(gaps))
    np.testing.assert_array_equal(known(task.labels, task.target_kind), INDEX != 2)
    refused(lambda: graph_task(labels=gaps, label_mask=np.ones((N, 3), bool)), "label_mask", "(12, 3)")


@pytest.mark.parametrize("make", TASKS)
def test_unknown_labels_are_not_labelled(make):
    hole = np.where(INDEX < 2, -1, Y)
    task = make(**{"y" if make is array_task else "labels": hole}, name="toy")
    np.testing.assert_array_equal(task.labelled(), TRAIN & (INDEX >= 2))
    refused(lambda: dataclasses.replace(task, train=[0, 1]).labelled(), "none of the 2 training", "'toy'")
    refused(lambda: dataclasses.replace(task, val=None).labelled("val"), "no val")


# --- graphs, arrays and words -------------------------------------------------------------------


def test_graphs_are_sound():
    bad = X.copy()
    bad[5, 1] = np.nan
    huge = np.where(np.isnan(bad), 1e300, bad.astype(np.float64))
    weights = np.ones(N, np.float32)
    weights[7] = np.inf
    cases = [
        (GRAPH._replace(nodes=bad), "nodes holds NaN or infinity, first in row 5"),
        (GRAPH._replace(nodes=huge), "row 5"),
        (GRAPH._replace(nodes=sparse_features(bad)), "row 5"),
        (GRAPH._replace(edges=weights), "edges holds NaN or infinity, first in row 7"),
        (GRAPH._replace(nodes=X.astype(object)), "object"),
        (GRAPH._replace(nodes=X[:, 0]), "matrix"),
        (GRAPH._replace(edges=np.ones((N, 2))), "features and not weights"),
        (GRAPH._replace(edges=np.ones(N - 1)), "needs 12 rows"),
        (GRAPH._replace(senders=GRAPH.senders.astype(float)), "senders"),
        (GRAPH._replace(senders=GRAPH.senders + 1), "senders[11] is 12"),
        (GRAPH._replace(receivers=GRAPH.receivers - 1), "receivers[11] is -1"),
        (GRAPH._replace(receivers=GRAPH.receivers[:-1]), "11 receivers"),
        (GRAPH._replace(n_node=np.array([11])), "n_node"),
        (GRAPH._replace(n_edge=np.array([5.0])), "n_edge"),
    ]
    for graph, word in cases:
        refused(lambda g=graph: node_task(graph=g), word)
        refused(lambda g=graph: dataclasses.replace(node_task(), graph=g), word)


def test_edges_stay_in_their_graph():
    task = graph_task()
    senders = task.graphs.senders.copy()
    senders[4] = 0
    refused(lambda: graph_task(graphs=task.graphs._replace(senders=senders)), "edge 4 (0 to", "graph 1")
    with pytest.raises(ValueError, match="n_edge has"):
        validate(task.graphs._replace(n_edge=np.array([N * 3])))


def test_arrays_are_finite_and_aligned():
    x = X.copy()
    x[4, 0] = np.inf
    refused(lambda: array_task(x=x), "x holds NaN or infinity, first in row 4")
    refused(lambda: array_task(weights=-np.ones(N)), "weights[0] is -1")
    refused(lambda: array_task(weights=np.ones(3)), "weights")
    refused(lambda: array_task(tests={"other": (X[:3], Y[:2])}), "tests['other'] y")
    refused(lambda: array_task(mask=np.full((N, 2), 2)), "mask")
    refused(lambda: graph_task(folds=np.full(N, -1)), "folds")
    refused(lambda: graph_task(root=np.ones(5, bool)), "root")
    assert array_task(tests={"other": (X[:3], np.asarray([[0], [1], [2]]))}).tests["other"][1].shape == (3,)


@pytest.mark.parametrize("word", ["Inductive", "", "induktiv"])
def test_setting_is_a_word_that_is_known(word):
    refused(lambda: node_task(setting=word), "setting must be one of transductive, inductive")


def test_sequences_are_in_range():
    tokens = np.ones((4, 3), int)
    refused(lambda: SequenceTask(tokens=tokens, vocab_size=1), "tokens has 1")
    refused(lambda: SequenceTask(tokens=tokens, vocab_size=2, train=[0, 4]), "train[1] is 4")
    task = SequenceTask(tokens=tokens, vocab_size=2, y=[0, 1, 1, 0], train=[0, 3])
    assert task.num_classes == 2
    assert task.train.tolist() == [True, False, False, True]


# --- pytrees ------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", TASKS)
def test_putting_together_checks_nothing(make):
    task = make()
    leaves, structure = jax.tree.flatten(task)
    strange = jax.tree.unflatten(structure, [object()] * len(leaves))
    assert strange.num_classes == 3
    assert isinstance(repr(strange), str)
    shapes = jax.eval_shape(lambda t: t, task)
    assert shapes.train.shape == (N,)
    assert shapes.target_kind == "classes"
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(task)]
    assert ".train" in paths
    same = jax.tree.map(lambda x: x, task)
    assert same.train is task.train
    assert same.class_names == task.class_names


@pytest.mark.parametrize("make", TASKS)
def test_tasks_are_made_while_traced(make):
    name = "y" if make is array_task else "labels"

    @jax.jit
    def count(task):
        changed = dataclasses.replace(task, **{name: getattr(task, name) + 0, "train": ~task.val})
        return changed.train.sum() + getattr(changed, name).sum()

    assert count(make()) == N - 4 + Y.sum()


def test_valid_input_is_kept_as_it_is():
    """Nothing is copied where nothing has to change."""
    task = node_task()
    assert task.labels is Y
    assert task.train is TRAIN
    assert task.graph is GRAPH


def test_pyg_masks_of_node_numbers():
    data = SimpleNamespace(
        x=X, edge_index=np.stack([GRAPH.senders, GRAPH.receivers]), y=Y, train_mask=np.asarray([0, 4, 9])
    )
    assert np.flatnonzero(from_pyg(data).train).tolist() == [0, 4, 9]
