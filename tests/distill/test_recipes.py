import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from distill_toy import NET, TALL, TASK, TX, blobs, random_teacher

from jgd.core import Bound, Driver, Outputs, from_linen, weighted
from jgd.data import ArrayTask, contextual_sbm
from jgd.distill import (
    assistants,
    bd_kd,
    generations,
    mutual,
    offline,
    online,
    scratch,
    supervised,
    term,
)
from jgd.distill.data import Rows, ahead, examples, inputs_of, predict, rows, take
from jgd.distill.recipes import learning
from jgd.losses import cross_entropy
from jgd.nn import GCN, MLP
from jgd.training import mixup

KEY = jax.random.key(0)


def soft(student, teacher):
    """Cross-entropy against a teacher's probabilities."""
    return cross_entropy(student, jax.nn.softmax(teacher))


SOFT = term(soft)


def distance(a, b):
    return max(float(jnp.max(jnp.abs(x - y))) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


def accuracy(net, task, split="test"):
    some = examples(task, split)
    return float(jnp.mean(jnp.argmax(predict(net, some).logits, -1) == some.targets))


# --- data ---------------------------------------------------------------------------------------


def test_an_epoch_sees_every_example_once_and_the_next_in_another_order():
    order = jax.random.key(3)
    epochs = [np.concatenate([rows(order, jnp.asarray(4 * e + i), 12, 3) for i in range(4)]) for e in (0, 1)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(12))
    assert not np.array_equal(epochs[0], epochs[1])


def test_batches_that_do_not_divide_drop_the_rest():
    seen = np.concatenate([rows(jax.random.key(0), jnp.asarray(i), 11, 4) for i in range(2)])
    assert len(set(seen.tolist())) == 8


def test_pixels_become_floats():
    task = ArrayTask(
        x=np.full((4, 2, 2, 1), 255, np.uint8), y=np.zeros(4, int), train=np.ones(4, bool), num_classes=2
    )
    x = take(examples(task, "train"), jnp.arange(2)).inputs[0]
    assert x.dtype == jnp.float32
    np.testing.assert_array_equal(x, 1.0)


def test_unlabelled_examples_come_with_weight_zero():
    i = np.arange(6)
    task = ArrayTask(
        x=np.ones((6, 2), np.float32),
        y=np.where(i < 2, i, -1),
        train=i < 2,
        unlabelled=(i >= 2) & (i < 5),
        num_classes=2,
    )
    got = examples(task, "train")
    np.testing.assert_array_equal(got.weights, [1, 1, 0, 0, 0])
    np.testing.assert_array_equal(got.index, [0, 1, 2, 3, 4])


def test_a_missing_split_and_nan_inputs_are_refused():
    with pytest.raises(ValueError, match="no val examples"):
        examples(ArrayTask(x=np.ones((2, 1)), y=np.zeros(2, int), train=np.ones(2, bool)), "val")
    with pytest.raises(ValueError, match="x holds NaN or infinity, first in row 1"):
        ArrayTask(x=np.asarray([[1.0], [np.nan]]), y=np.zeros(2, int), train=np.ones(2, bool))


def test_a_table_gives_what_the_network_gives():
    net, some = random_teacher(), examples(TASK, "train")
    table = ahead(net, some)
    assert table is not None
    index = jnp.asarray([3, 0, 17])
    expected = net(some.inputs[0][index])
    np.testing.assert_allclose(table(Rows(index)).logits, expected.logits, rtol=1e-5)
    np.testing.assert_allclose(table(Rows(index)).taps["layer1"], expected.taps["layer1"], rtol=1e-5)
    np.testing.assert_allclose(table(some.inputs[0][index]).logits, expected.logits, rtol=1e-5)
    assert ahead(net, some, limit=100) is None


def test_predicting_in_pieces_changes_nothing():
    net, some = random_teacher(), examples(TASK, "train")
    np.testing.assert_allclose(predict(net, some, 7).logits, predict(net, some).logits, rtol=1e-5)


# --- schedules ----------------------------------------------------------------------------------


@pytest.mark.long
def test_outputs_ahead_change_nothing():
    teacher = random_teacher()
    one = offline(NET, teacher, SOFT, TX, steps=12, batch=8)(KEY, TASK)
    other = offline(NET, teacher, SOFT, TX, steps=12, batch=8, cache=False)(KEY, TASK)
    assert distance(one.params, other.params) < 1e-5


@pytest.mark.long
def test_a_student_approaches_its_teacher_without_labels():
    teacher = scratch(TALL, TX, steps=150, batch=20)(KEY, TASK)
    blind = blobs()
    blind = ArrayTask(x=blind.x, y=np.full(60, -1), train=blind.train, num_classes=3)
    student = offline(TALL, teacher, SOFT, TX, steps=200, batch=20)(jax.random.key(5), blind)
    agree = np.mean(np.argmax(student(TASK.x).logits, -1) == np.argmax(teacher(TASK.x).logits, -1))
    assert agree > 0.95


def test_the_teacher_stays_as_it_is():
    teacher = random_teacher()
    before = jax.tree.map(np.array, teacher.params)
    offline(NET, teacher, SOFT, TX, steps=3, batch=8)(KEY, TASK)
    assert distance(before, teacher.params) == 0


@pytest.mark.long
def test_students_of_an_ensemble_differ_and_each_is_a_student():
    teacher = random_teacher()
    many = offline(NET, teacher, SOFT, TX, steps=8, batch=8, seeds=3)(KEY, TASK)
    kernels = jax.tree.leaves(many.params)[1]
    assert kernels.shape[0] == 3
    assert distance(kernels[0], kernels[1]) > 0.01
    logits = jax.vmap(lambda net: net(TASK.x).logits)(many)
    assert logits.shape == (3, 60, 3)


@pytest.mark.long
def test_peers_learn_from_each_other():
    """With one peer's labels hidden from it, all it can know comes from the other."""
    objective = weighted(a=(1.0, supervised(player="a")), b=(1.0, term(soft, student="b", teacher="a")))
    found = online({"a": NET, "b": TALL}, objective, TX, steps=200, batch=20)(KEY, TASK)
    assert accuracy(found["a"], TASK, "train") > 0.85
    assert accuracy(found["b"], TASK, "train") > 0.85


@pytest.mark.long
def test_peers_without_a_common_term_learn_as_if_alone():
    objective = weighted(a=(1.0, supervised(player="peer0")), b=(1.0, supervised(player="peer1")))
    together = online([NET, TALL], objective, optax.sgd(0.1), steps=5, batch=None)(KEY, TASK)
    alone = weighted(a=(1.0, supervised(player="peer0")), b=(0.0, supervised(player="peer1")))
    half = online([NET, TALL], alone, optax.sgd(0.1), steps=5, batch=None)(KEY, TASK)
    assert distance(together["peer0"].params, half["peer0"].params) < 1e-6
    assert distance(together["peer1"].params, half["peer1"].params) > 1e-3


def test_no_gradient_crosses_from_one_peer_to_another():
    """The loss of one on the other leaves the other where it started."""
    objective = weighted(only=(1.0, term(soft, student="a", teacher="b")))
    first = online({"a": NET, "b": NET}, objective, optax.sgd(0.5), steps=1, batch=None)(KEY, TASK)
    later = online({"a": NET, "b": NET}, objective, optax.sgd(0.5), steps=9, batch=None)(KEY, TASK)
    assert distance(first["b"].params, later["b"].params) == 0
    assert distance(first["a"].params, later["a"].params) > 1e-3


def test_mutual_learning_has_a_term_for_each_pair():
    objective = mutual(soft, ("a", "b", "c"))
    assert [name for name, _, _ in objective.terms] == [
        "a/hard", "a/b", "a/c", "b/hard", "b/a", "b/c", "c/hard", "c/a", "c/b"
    ]  # fmt: skip
    assert objective.terms[1][1] == 0.5
    with pytest.raises(ValueError, match="at least two"):
        mutual(soft, ("a",))


@pytest.mark.long
def test_generations_are_scratch_and_then_students_of_it():
    chain = generations(NET, SOFT, TX, 2, steps=10, batch=8)(KEY, TASK)
    first = scratch(NET, TX, steps=10, batch=8)(jax.random.fold_in(KEY, 0), TASK)
    second = offline(NET, first, SOFT, TX, steps=10, batch=8)(jax.random.fold_in(KEY, 1), TASK)
    assert distance(chain.params, second.params) < 1e-6
    with pytest.raises(ValueError, match="seeds"):
        generations(NET, SOFT, TX, 2, seeds=3)


def test_assistants_end_with_the_student():
    net = assistants([TALL, NET], random_teacher(), SOFT, TX, steps=5, batch=8)(KEY, TASK)
    assert net(TASK.x).taps.keys() == {"layer1"}


def test_a_start_is_where_training_starts():
    begin = random_teacher(NET, seed=1)
    net = offline(NET, random_teacher(), SOFT, optax.sgd(0.0), steps=2, batch=8, start={"model": begin})(
        KEY, TASK
    )
    assert distance(net.params, begin.params) == 0
    with pytest.raises(ValueError, match=r'the players are \[\'model\'\]: write start=\{"model": net\}'):
        scratch(NET, TX, start={"student": begin})


@pytest.mark.long
def test_selection_returns_the_best_on_validation():
    """A network that climbs its loss from the sixtieth step on must not be what is returned."""
    tx = optax.sgd(lambda t: jnp.where(jnp.asarray(t) < 60, 0.3, -3.0))
    best = scratch(NET, tx, steps=80, batch=20, select_every=5)(KEY, TASK)
    last = scratch(NET, tx, steps=80, batch=20)(KEY, TASK)
    assert accuracy(best, TASK, "val") >= 0.9
    assert accuracy(last, TASK, "val") < 0.6


@pytest.mark.long
def test_an_average_lags_behind():
    last = scratch(NET, TX, steps=30, batch=None)(KEY, TASK)
    slow = scratch(NET, TX, steps=30, batch=None, average=0.9)(KEY, TASK)
    start = scratch(NET, optax.sgd(0.0), steps=1, batch=None)(KEY, TASK)
    assert 0 < distance(start.params, slow.params) < distance(start.params, last.params)


class WithNorm(nn.Module):
    """A network with batch statistics."""

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(6)(x))
        return Outputs(nn.Dense(3)(jax.nn.relu(x)))


@pytest.mark.long
def test_batch_statistics_of_the_student_move_and_those_of_the_teacher_do_not():
    model = from_linen(WithNorm())
    teacher = Bound(*model.init(KEY, jnp.zeros((1, 4))), model)
    student = offline(WithNorm(), teacher, SOFT, TX, steps=3, batch=8, cache=False)(KEY, TASK)
    assert distance(student.state, teacher.state) > 1e-3
    fresh = model.init(KEY, jnp.zeros((1, 4)))[1]
    assert distance(teacher.state, fresh) == 0


def test_a_run_that_stops_goes_on_to_the_same_result(tmp_path):
    recipe = offline(NET, random_teacher(), SOFT, TX, steps=20, batch=8)
    whole = recipe(KEY, TASK)
    driven = recipe(KEY, TASK, loop=Driver(tmp_path, chunk_size=7, progress=False))
    assert distance(whole.params, driven.params) < 1e-6


@pytest.mark.long
def test_graph_networks_teach_graph_networks_and_perceptrons():
    task = contextual_sbm(num_nodes=60, num_classes=3, num_features=6, mean_degree=6, signal=2.0)
    tx = optax.adam(0.02)
    teacher = scratch(GCN(3, hidden=8), tx, steps=60)(KEY, task)
    objective = term(soft, on="all")
    student = offline(MLP(3, hidden=32, dropout=0.0), teacher, objective, tx, steps=150)(KEY, task)
    a = inputs_of(teacher.model, task)
    agree = np.mean(np.argmax(student(*a).logits, -1) == np.argmax(teacher(*a).logits, -1))
    assert agree > 0.9
    with pytest.raises(ValueError, match="whole graph"):
        offline(MLP(3), teacher, objective, tx, augment=mixup())(KEY, task)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps"),
        ({"average": 1.0}, "decay"),
        ({"patience": 3}, "select_every"),
        ({"start": {"nobody": random_teacher()}}, "nobody"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        offline(NET, random_teacher(), SOFT, TX, **settings)


def test_impossible_data_are_refused():
    with pytest.raises(ValueError, match="batch of 64"):
        offline(NET, random_teacher(), SOFT, TX)(KEY, TASK)
    with pytest.raises(ValueError, match="cannot be cached"):
        offline(NET, random_teacher(), SOFT, TX, augment=mixup(), cache=True, batch=8)(KEY, TASK)
    no_val = ArrayTask(x=TASK.x, y=TASK.y, train=TASK.train, num_classes=3)
    with pytest.raises(ValueError, match="validation"):
        scratch(NET, TX, batch=8, select_every=2)(KEY, no_val)


@pytest.mark.long
def test_an_objective_for_others_says_who_there_is():
    with pytest.raises(ValueError, match="names a player 'model', the players are peer0, peer1"):
        online([NET, TALL], bd_kd(), TX, batch=8, steps=2)(KEY, TASK)
    nets = online([NET, TALL], bd_kd(student="peer0", teacher="peer1"), TX, batch=8, steps=2)(KEY, TASK)
    assert set(nets) == {"peer0", "peer1"}


def test_another_key_compiles_nothing(compilations):
    recipe = offline(NET, random_teacher(), SOFT, TX, batch=8, steps=3, seeds=2, select_every=2)
    recipe(KEY, TASK)
    compilations.clear()
    again = offline(NET, recipe.teachers["teacher"], SOFT, TX, batch=8, steps=3, seeds=2, select_every=2)
    again(jax.random.key(5), TASK)
    assert compilations["jit(_advance)"] == compilations["jit(_initial)"] == 0


def test_a_step_lowers():
    recipe = offline(NET, random_teacher(), SOFT, TX, batch=8, augment=mixup())
    data = recipe.source(KEY, TASK)
    alg = learning(recipe.models, SOFT, TX, augment=recipe.augment, batch=8, num_classes=3)
    state = alg.init(KEY, data, None)
    platforms = ("cpu", "cuda", "tpu")
    found = jax.export.export(jax.jit(alg.step), platforms=platforms)(KEY, jnp.asarray(0), state, data, None)
    assert found.platforms == platforms
