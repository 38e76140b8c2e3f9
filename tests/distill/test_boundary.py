"""What distillation is called with: teachers of all kinds, no labels, targets that are no classes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distill_toy import NET, TASK, TX, random_teacher
from flax import nnx

from jgd import losses
from jgd.core import Model, Outputs, from_nnx, in_memory, weighted
from jgd.data import ArrayTask, contextual_sbm
from jgd.distill import generations, lelp, offline, predict, scratch, supervised, term
from jgd.distill.data import as_teacher, examples
from jgd.distill.scores import classified, logits_on, scores
from jgd.evaluation import compare_students
from jgd.nn import GCN, Perceptron
from jgd.nn.saved import save
from jgd.training import crop_flip, mixup

KEY = jax.random.key(0)
KD = weighted(kd=(1.0, term(losses.kd)))
SHORT = {"steps": 12, "batch": 8}


def go(net=NET, teacher=None, objective=KD, task=TASK, key=KEY, **settings):
    teacher = random_teacher() if teacher is None else teacher
    return offline(net, teacher, objective, TX, **SHORT | settings)(key, task)


def distance(a, b):
    return max(float(jnp.max(jnp.abs(x - y))) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


def changed(**fields):
    own = {n: getattr(TASK, n) for n in ("x", "y", "train", "val", "test", "num_classes", "name")}
    return ArrayTask(**own | fields)


# --- teachers -------------------------------------------------------------------------------------


@pytest.mark.long
def test_outputs_that_are_known_teach_as_their_network_does(tmp_path):
    teacher = random_teacher()
    out = predict(teacher, TASK)
    logits = np.asarray(out.logits)
    np.save(tmp_path / "logits.npy", logits)
    np.savez(tmp_path / "only.npz", anything=logits)
    np.savez(tmp_path / "value.npz", value=logits, layer1=logits)
    np.savez(tmp_path / "named.npz", logits=logits, embedding=np.asarray(out.embedding), layer1=logits)
    expected = go(teacher=teacher)
    for known in (
        logits, jnp.asarray(logits), logits.tolist(), Outputs(logits), tmp_path / "logits.npy",
        str(tmp_path / "only.npz"), tmp_path / "named.npz", tmp_path / "value.npz",
        save(teacher, tmp_path / "net.npz"), lambda x: teacher(x).logits,
    ):  # fmt: skip
        assert distance(expected.params, go(teacher=known).params) < 1e-5


@pytest.mark.long
def test_known_embeddings_teach_too():
    teacher = random_teacher()
    hint = weighted(hint=(1.0, term(losses.hint, at="embedding", adapt=lambda s, t: nn.Dense(t.shape[-1]))))
    one, other = (go(teacher=t, objective=hint) for t in (teacher, predict(teacher, TASK)._replace(taps={})))
    assert distance(one.params, other.params) < 1e-5
    goal = lelp(subclasses=2)
    sub = Model(*random_teacher(Perceptron(6, (8,))).model[:2])
    from jgd.distill import subclassed

    one, other = (
        go(subclassed(sub, 3), teacher=t, objective=goal)
        for t in (teacher, predict(teacher, TASK)._replace(taps={}))
    )
    assert distance(one.params, other.params) < 1e-4


@pytest.mark.long
def test_known_outputs_of_nodes_and_on_validation_examples():
    task = contextual_sbm(num_nodes=60, num_classes=3, num_features=6, mean_degree=6, signal=2.0)
    logits = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    student = offline(GCN(3, hidden=8, dropout=0.0), logits, term(losses.kd, on="all"), TX, steps=150)(
        KEY, task
    )
    fit = losses.kd(predict(student, task).logits, jnp.asarray(logits)).mean()
    start = losses.kd(jnp.zeros((60, 3)), jnp.asarray(logits)).mean()
    assert fit < 0.9 * start

    seen = []

    def alike(ctx):
        jax.debug.callback(lambda known: seen.append(np.asarray(known)), ctx.outputs["teacher"].logits)
        return -losses.mean(losses.kd(ctx.outputs["model"].logits, ctx.outputs["teacher"].logits))

    task = changed(y=None, num_classes=3)
    teacher = random_teacher()
    one, other = (
        go(teacher=t, task=task, select_every=3, metric=alike) for t in (teacher, predict(teacher, task))
    )
    jax.effects_barrier()
    assert len(seen) == 8  # four looks of each student, at the rows of validation
    for known in seen:
        np.testing.assert_allclose(known, teacher(task.x[40:50]).logits, rtol=1e-4, atol=1e-6)
    assert distance(one.params, other.params) < 1e-5


@pytest.mark.long
def test_known_outputs_score_beside_a_student():
    teacher = random_teacher()
    logits = np.asarray(teacher(TASK.x).logits)
    np.testing.assert_allclose(logits_on(logits, TASK), logits[50:], rtol=1e-6)
    one, other = (classified(random_teacher(seed=1), TASK, teacher=t) for t in (teacher, logits))
    np.testing.assert_allclose(one.divergence, other.divergence, rtol=1e-5)
    found = compare_students({"KD": KD}, NET, logits, TASK, TX, seeds=2, key=0, **SHORT)
    right = np.mean(logits[50:].argmax(1) == TASK.y[50:])
    np.testing.assert_allclose(found.rows[0]["accuracy"], right, rtol=1e-6)


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (
            np.ones((40, 3)),
            r"outputs of 40 rows, 'blobs' has 60: these are as many as there are training",
        ),
        (np.ones((50, 3)), "outputs of 50 rows, 'blobs' has 60: give one row for each"),
        (np.ones((60, 4)), "the teacher has 4 outputs, 'blobs' has 3 classes"),
        (np.ones(60), r"numbers \[N, C\], got float64 \[60\]"),
        (np.full((60, 3), np.nan), "NaN or infinite numbers in row 0"),
        (np.asarray([["a", "b"]]), "numbers"),
        (Outputs(np.ones((60, 3)), np.ones((3, 3))), "60 rows of logits and 3 of others"),
        (NET, "the teacher has no parameters: train it"),
        (random_teacher().model, "the teacher has no parameters"),
        (Perceptron, "got Perceptron"),
        (None, "got a NoneType"),
        (lambda x: np.asarray(x), "cannot be traced by JAX"),
        (random_teacher(Perceptron(4, (8,))), "the teacher has 4 outputs, 'blobs' has 3 classes"),
        ("nowhere.npy", "nowhere.npy"),
        ("nowhere.npz", "nowhere.npz"),
    ],
)
def test_what_cannot_teach_is_told_in_one_line(teacher, message):
    with pytest.raises(ValueError, match=message) as raised:
        offline(NET, teacher, KD, TX, **SHORT)(KEY, TASK)
    assert "\n" not in str(raised.value)


def test_known_outputs_and_changed_inputs_exclude_each_other(tmp_path):
    logits = np.ones((60, 3))
    for settings, message in (
        ({"augment": mixup()}, "the augmentation changes its inputs"),
        ({"cache": False}, "cache=False asks for the network"),
    ):
        with pytest.raises(ValueError, match=f"'teacher' is an array of outputs.*{message}"):
            go(teacher=logits, **settings)
    with pytest.raises(ValueError, match="answers for the rows of its task as they are"):
        as_teacher(logits)(TASK.x)
    np.savez(tmp_path / "two.npz", a=logits, b=logits)
    with pytest.raises(ValueError, match="has no array 'logits', it has a, b"):
        as_teacher(tmp_path / "two.npz")


@pytest.mark.long
def test_an_nnx_module_learns_and_teaches():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.inner, self.head = nnx.Linear(4, 8, rngs=rngs), nnx.Linear(8, 3, rngs=rngs)

        def __call__(self, x):
            return self.head(jax.nn.relu(self.inner(x)))

    module = Net(nnx.Rngs(0))
    before = np.asarray(module.head.kernel[...])
    student = scratch(module, TX, steps=80, batch=20)(KEY, TASK)
    assert classified(student, TASK).accuracy > 0.8
    np.testing.assert_array_equal(module.head.kernel[...], before)  # the module stays as it was
    assert distance(go(teacher=module).params, go(teacher=lambda x: module(x)).params) < 1e-5
    with pytest.raises(ValueError, match="2 seeds of 'model' would start equal"):
        scratch(module, TX, seeds=2)
    several = scratch(from_nnx(Net), TX, seeds=2, **SHORT)(KEY, TASK)
    assert classified(several, TASK).accuracy.shape == (2,)


@pytest.mark.long
def test_a_model_of_bare_logits_learns():
    bare = Model(
        lambda k, x: (0.01 * jax.random.normal(k, (4, 3)), ()),
        lambda p, s, x, key=None, train=False: (x @ p, s),
    )
    student = scratch(bare, TX, steps=80, batch=20)(KEY, TASK)
    assert classified(student, TASK).accuracy > 0.8


# --- what is called -------------------------------------------------------------------------------


@pytest.mark.long
def test_a_seed_is_a_key():
    assert distance(go(key=0).params, go(key=KEY).params) == 0
    chain = generations(NET, KD, TX, 2, **SHORT)
    assert distance(chain(3, TASK).params, chain(jax.random.key(3), TASK).params) == 0
    with pytest.raises(ValueError, match="key must be a random key"):
        go(key=-1)


@pytest.mark.long
def test_a_distilled_network_knows_its_inputs():
    student = go(seeds=2)
    assert [tuple(e.shape) for e in student.example] == [(4,)]
    with pytest.raises(ValueError, match="2 networks with a leading axis"):
        predict(student, TASK)
    one = jax.tree.map(lambda leaf: leaf[0], student)
    np.testing.assert_allclose(one(TASK.x[7]).logits, one(TASK.x).logits[7], rtol=1e-5)
    np.testing.assert_allclose(predict(one, TASK.x, batch=7).logits, one(TASK.x).logits, rtol=1e-5)
    np.testing.assert_allclose(predict(one, TASK).logits, one(TASK.x).logits, rtol=1e-5)
    for wrong, message in (
        (TASK.x[0], r"batch axis: inputs \[N, 4\], got \[4\]"),
        (TASK.x[:0], "inputs"),
        ((TASK.x, TASK.x[:3]), "one length"),
    ):
        with pytest.raises(ValueError, match=message):
            predict(one, wrong)


@pytest.mark.long
def test_pixels_are_scaled_alike_everywhere():
    pixels = np.random.default_rng(0).integers(0, 256, (60, 2, 2, 1)).astype(np.uint8)
    task = changed(x=pixels)
    student = scratch(NET, TX, **SHORT)(KEY, task)
    twin = scratch(NET, TX, **SHORT)(KEY, changed(x=pixels.astype(np.float32) / 255))
    assert distance(student.params, twin.params) < 1e-6  # a division may be rounded otherwise when compiled
    expected = student(pixels.astype(np.float32) / 255).logits
    for found in (
        student(pixels),
        jax.jit(student)(pixels),
        predict(student, pixels),
        predict(student, task),
    ):
        np.testing.assert_allclose(found.logits, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(logits_on(student, task), expected[50:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("width", [2, 4])
def test_a_student_of_another_width_is_refused_before_it_trains(width):
    def loop(*args, **kwargs):
        raise AssertionError("it trains")

    loop.stage = in_memory.stage
    with pytest.raises(ValueError, match=f"the model has {width} outputs, 'blobs' has 3 classes"):
        scratch(Perceptron(width, (8,)), TX, **SHORT)(KEY, TASK, loop)


def test_other_tasks_are_refused():
    with pytest.raises(ValueError, match="takes an ArrayTask, NodeTask or SequenceTask, got dict"):
        examples({}, "train")


# --- labels ---------------------------------------------------------------------------------------


@pytest.mark.long
def test_without_labels_a_teacher_is_enough():
    bare = changed(y=None)
    assert distance(go(task=bare).params, go().params) == 0  # labels are not looked at
    assert distance(go(task=changed(y=np.full(60, -1))).params, go().params) == 0
    go(task=bare, augment=mixup())
    images = ArrayTask(x=np.ones((12, 4, 4, 1), np.float32), train=np.ones(12, bool), num_classes=3)
    net = Perceptron(3, (8,))
    go(net, random_teacher(net, features=16), KD, images, augment=crop_flip(1))
    for objective in (supervised(), weighted(kd=(1.0, term(losses.kd)), ce=(0.1, supervised()))):
        with pytest.raises(ValueError, match="reads labels, and no training label of 'blobs' is known"):
            go(objective=objective, task=bare)
    with pytest.raises(ValueError, match="a fault of its own"):
        go(objective=_broken, task=bare)
    with pytest.raises(ValueError, match="validation labels, 'blobs' has none: give metric="):
        go(task=bare, select_every=4)
    with pytest.raises(ValueError, match="no known labels"):
        classified(random_teacher(), bare)


def _fault(ctx):
    raise ValueError("a fault of its own")


_broken = weighted(own=(1.0, _fault))


@pytest.mark.long
def test_unknown_labels_count_nowhere():
    """In each split the examples without a label can as well not be in it."""
    hole = np.where(np.arange(60) % 4 == 1, -1, TASK.y)
    task = changed(y=hole)
    smaller = changed(**{s: getattr(TASK, s) & (hole >= 0) for s in ("train", "val", "test")})
    net = random_teacher(seed=3)
    for one, other in zip(classified(net, task), classified(net, smaller), strict=True):
        if one is not None:
            np.testing.assert_allclose(one, other, rtol=1e-5)
    full = {"steps": 20, "batch": None, "select_every": 1}
    one, other = (scratch(NET, TX, **full)(KEY, t) for t in (task, smaller))
    assert distance(one.params, other.params) < 1e-5
    one, other = (go(task=t, batch=None) for t in (task, smaller))
    assert distance(one.params, other.params) < 1e-5
    with pytest.raises(ValueError, match="none of the test examples"):
        classified(net, changed(y=np.where(TASK.test, -1, TASK.y)))


# --- targets that are no classes ------------------------------------------------------------------


def numbers(**fields):
    x = np.asarray(TASK.x)
    return changed(**{"y": 3 * x[:, 0] + 1, "num_classes": 0} | fields)


def squares(outputs, targets):
    return jnp.mean((outputs - targets.reshape(outputs.shape)) ** 2, -1)


@pytest.mark.long
def test_numbers_are_selected_by_the_objective_or_a_metric():
    """The rate explodes after sixty steps: selection must return what was there before."""
    import optax

    tx = optax.sgd(lambda t: jnp.where(jnp.asarray(t) < 60, 0.02, -0.02))
    task, goal = numbers(), supervised(squares)

    def error(net):
        return float(scores(net, task).mse)

    last = scratch(Perceptron(1, (8,)), tx, goal, steps=80, batch=20)(KEY, task)
    best = scratch(Perceptron(1, (8,)), tx, goal, steps=80, batch=20, select_every=5)(KEY, task)
    assert error(best) < 0.2 * error(last)

    def metric(ctx):
        return -jnp.mean((ctx.outputs["model"].logits[:, 0] - ctx.batch.targets) ** 2)

    several = scratch(
        Perceptron(1, (8,)), tx, goal, steps=80, batch=20, select_every=5, metric=metric, seeds=2
    )(KEY, task)
    assert scores(several, task).mse.shape == (2,)
    assert float(scores(several, task).mse.max()) < 0.2 * error(last)
    for wrong, message in (
        (lambda ctx: ctx.outputs["model"].logits, r"one number, got an array of shape \[10, 1\]"),
        (lambda ctx: ctx.outputs["nobody"], "names a player 'nobody', the players are model"),
    ):
        with pytest.raises(ValueError, match=message):
            scratch(Perceptron(1, (8,)), TX, goal, select_every=5, metric=wrong, **SHORT)(KEY, task)
    with pytest.raises(ValueError, match="set select_every too"):
        scratch(NET, TX, metric=metric)


@pytest.mark.long
def test_targets_that_are_no_classes_have_scores_of_their_own():
    x = np.asarray(TASK.x)
    task, net = numbers(), random_teacher(Perceptron(1, (8,)))
    with pytest.raises(ValueError, match="regression targets, but classified"):
        classified(net, task)
    found, p, t = scores(net, task), np.asarray(net(x).logits)[50:, 0], 3 * x[50:, 0] + 1
    np.testing.assert_allclose(found.mse, np.mean((p - t) ** 2), rtol=1e-5)
    np.testing.assert_allclose(found.mae, np.mean(np.abs(p - t)), rtol=1e-5)
    assert str(found).startswith(f"mse {float(found.mse):.3f}, mae ")
    several = changed(y=(x > 1).astype(int), num_classes=4)
    assert several.target_kind == "multilabel"
    net = random_teacher(Perceptron(4, (8,)))
    found = scores(net, several)
    hit, true = np.asarray(net(x).logits)[50:] > 0, x[50:] > 1
    np.testing.assert_allclose(found.micro_f1, 2 * (hit & true).sum() / (hit.sum() + true.sum()), rtol=1e-6)
    with pytest.raises(ValueError, match="the model has 3 outputs, 'blobs' has 4 classes"):
        scratch(NET, TX, supervised(squares), **SHORT)(KEY, several)
    soft = changed(y=np.asarray(jax.nn.softmax(2 * jnp.eye(3)[TASK.y])))
    assert soft.target_kind == "probabilities"
    net = random_teacher()
    np.testing.assert_allclose(classified(net, soft).nll, classified(net, TASK).nll, rtol=1e-5)
    two = numbers(y=x[:, :2])
    with pytest.raises(ValueError, match="the model has 1 outputs, 'blobs' has 2 columns of targets"):
        scratch(Perceptron(1, (8,)), TX, supervised(squares), **SHORT)(KEY, two)
