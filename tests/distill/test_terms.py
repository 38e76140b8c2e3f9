import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from distill_toy import NET, TALL, TASK, TX, random_teacher

from jgd.core import Context, Examples, Outputs, from_linen, weighted
from jgd.data import contextual_sbm
from jgd.distill.data import examples, take
from jgd.distill.recipes import scratch
from jgd.distill.terms import linear, mean_teacher, mutual, read, supervised, term
from jgd.nn import GCN
from jgd.training import mixup

KEY = jax.random.key(0)


def outputs(seed, width=4, rows=5):
    k1, k2, k3 = jax.random.split(jax.random.key(seed), 3)
    return Outputs(
        jax.random.normal(k1, (rows, 3)),
        jax.random.normal(k2, (rows, width)),
        {"map": jax.random.normal(k3, (rows, 2, 2, width))},
    )


def context(weights=None, targets=None):
    targets = jnp.asarray([0, 1, 2, 0, 1]) if targets is None else targets
    batch = Examples((jnp.ones((5, 4)),), targets, weights)
    return Context({"model": outputs(0), "teacher": outputs(1, 6)}, {}, {}, batch)


def apply(objective, ctx, step=0):
    params, state = objective.init(KEY, ctx)
    return objective.apply(params, state, ctx, key=KEY, step=jnp.asarray(step))


def gap(student, teacher):
    return jnp.sum((student - teacher) ** 2, axis=-1)


def test_read():
    out = outputs(0)
    assert read(out, "logits") is read(out, "value") is out.logits is out.value
    assert read(out, "map") is out.taps["map"]
    assert read(out, lambda o: o.embedding) is out.embedding
    with pytest.raises(ValueError, match="has value, logits, embedding, map"):
        read(out, "stage9")
    with pytest.raises(ValueError, match="no embedding"):
        read(Outputs(out.logits), "embedding")


def test_values_of_examples_are_averaged_by_weight():
    ctx = context(jnp.asarray([1.0, 0, 2, 0, 0]))
    each = np.asarray(gap(ctx.outputs["model"].logits, ctx.outputs["teacher"].logits))
    np.testing.assert_allclose(apply(term(gap), ctx)[0], (each[0] + 2 * each[2]) / 3, rtol=1e-6)
    np.testing.assert_allclose(apply(term(gap, on="all"), ctx)[0], each.mean(), rtol=1e-6)


def test_a_term_counts_the_examples_that_it_is_on():
    """By the weights of the batch, all of them, those of weight zero, named ones, or by a function."""
    ctx = context(jnp.asarray([1.0, 0, 2, 0, 0]))
    masks = {"val": jnp.asarray([False, True, False, False, True]), "hard": jnp.arange(5) > 3}
    ctx = ctx._replace(batch=ctx.batch._replace(masks=masks))
    each = np.asarray(gap(ctx.outputs["model"].logits, ctx.outputs["teacher"].logits))
    for on, weights in (
        ("labelled", [1, 0, 2, 0, 0]),
        ("all", [1, 1, 1, 1, 1]),
        ("unlabelled", [0, 1, 0, 1, 1]),
        ("val", [0, 1, 0, 0, 1]),
        ("hard", [0, 0, 0, 0, 1]),
        (lambda ctx: jnp.arange(5.0) * ctx.batch.weights, [0, 0, 4, 0, 0]),
    ):
        expected = np.average(each, weights=weights)
        np.testing.assert_allclose(apply(term(gap, on=on), ctx)[0], expected, rtol=1e-6)
    twins = ctx._replace(outputs={"a": ctx.outputs["model"], "b": ctx.outputs["teacher"]})
    found = apply(mutual(gap, ("a", "b"), on="val"), twins)[2]
    np.testing.assert_allclose(found["a/b"], np.average(each, weights=[0, 1, 0, 0, 1]), rtol=1e-6)
    with pytest.raises(
        ValueError, match="no examples called 'vall': on is one of labelled, all, unlabelled, val, hard"
    ):
        apply(term(gap, on="vall"), ctx)
    with pytest.raises(ValueError, match="all have weight one"):
        apply(term(gap, on="unlabelled"), context())


@pytest.mark.long
def test_masks_stay_with_their_examples():
    """Of a part of the examples, of mixed ones (which are in a mask where both are), and of a node task."""
    rng = np.random.default_rng(0)
    mask = jnp.asarray(rng.random(40) < 0.7)
    every = Examples((mask.astype(jnp.float32)[:, None],), jnp.arange(40) % 3, masks={"some": mask})
    picked = take(every, jnp.asarray([3, 1, 39]))
    np.testing.assert_array_equal(picked.masks["some"], np.asarray(mask)[[3, 1, 39]])
    mixed = mixup().apply(KEY, 0, take(every, jnp.arange(40)), 3)
    np.testing.assert_array_equal(mixed.masks["some"], np.asarray(mixed.inputs[0])[:, 0] > 1 - 1e-6)
    task = contextual_sbm(num_nodes=30, num_classes=3, num_features=3, mean_degree=4)
    found = examples(task, "val").masks
    assert set(found) == {"train", "val", "test"}
    for name, where in found.items():
        np.testing.assert_array_equal(where, getattr(task, name))


@pytest.mark.long
def test_a_mean_teacher_of_a_graph_counts_unlabelled_nodes():
    task = contextual_sbm(num_nodes=30, num_classes=3, num_features=3, mean_degree=4)
    goal = weighted(ce=(1.0, supervised()), past=(5.0, mean_teacher(gap, on="unlabelled")))
    net = scratch(GCN(3, 4), TX, goal, steps=4)(KEY, task)
    alone = scratch(GCN(3, 4), TX, steps=4)(KEY, task)
    moved = jax.tree.leaves(jax.tree.map(lambda a, b: jnp.abs(a - b).max(), net.params, alone.params))
    assert 0 < max(map(float, moved)) < 1


def test_values_of_tokens_are_averaged_by_the_weight_of_their_example():
    ctx = context(jnp.asarray([1.0, 0, 1, 0, 0]))

    def per_place(s, t):
        return jnp.sum(s**2, -1)

    s = np.asarray(ctx.outputs["model"].taps["map"])
    expected = (s**2).sum(-1)[[0, 2]].mean()
    np.testing.assert_allclose(apply(term(per_place, at="map"), ctx)[0], expected, rtol=1e-5)


def test_a_loss_is_given_what_it_names():
    seen = {}

    def loss(student, teacher, labels, *, key, where=None, scale=1.0):
        seen.update(labels=labels, key=key, where=where)
        return scale * jnp.sum(student)

    ctx = context(jnp.asarray([1.0, 0, 1, 0, 0]))
    value = apply(term(loss, scale=2.0), ctx)[0]
    np.testing.assert_allclose(value, 2 * jnp.sum(ctx.outputs["model"].logits), rtol=1e-6)
    np.testing.assert_array_equal(seen["where"], [True, False, True, False, False])
    np.testing.assert_array_equal(seen["labels"], ctx.batch.targets)
    apply(term(loss, on="all"), ctx)
    assert seen["where"] is None


def test_settings_follow_schedules():
    def loss(student, teacher, *, scale):
        return scale * jnp.ones(())

    changing = term(loss, schedules={"scale": optax.linear_schedule(0.0, 1.0, 10)})
    values = [float(apply(changing, context(), step)[0]) for step in (0, 5, 20)]
    np.testing.assert_allclose(values, [0, 0.5, 1], rtol=1e-6)


def test_an_adaptor_is_trained_with_the_student():
    objective = term(gap, at="embedding", adapt=linear)
    ctx = context()
    params, state = objective.init(KEY, ctx)
    assert jax.tree.leaves(params)[1].shape == (4, 6)
    grads = jax.grad(lambda p: objective.apply(p, state, ctx, key=KEY, step=0)[0])(params)
    assert all(float(jnp.abs(g).max()) > 0 for g in jax.tree.leaves(grads))


def test_an_adaptor_with_batch_statistics_keeps_them():
    class Normed(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            return nn.BatchNorm(use_running_average=not train)(nn.Dense(6)(x))

    objective = term(gap, at="embedding", adapt=lambda s, t: Normed())
    ctx = context()
    params, state = objective.init(KEY, ctx)
    _, later, _ = objective.apply(params, state, ctx, key=KEY, step=0)
    assert float(jnp.abs(jax.tree.leaves(later)[0] - jax.tree.leaves(state)[0]).max()) > 0


def test_no_gradient_reaches_the_teacher():
    ctx = context()

    def value(theirs):
        both = {**ctx.outputs, "teacher": ctx.outputs["teacher"]._replace(value=theirs)}
        return apply(term(gap), ctx._replace(outputs=both))[0]

    np.testing.assert_array_equal(jax.grad(value)(ctx.outputs["teacher"].logits), 0)


def test_supervised_takes_classes_and_probabilities():
    ctx = context()
    soft = context(targets=jax.nn.one_hot(ctx.batch.targets, 3))
    np.testing.assert_allclose(apply(supervised(), ctx)[0], apply(supervised(), soft)[0], rtol=1e-6)


@pytest.mark.long
def test_a_mean_teacher_is_the_average_of_the_past():
    model = from_linen(NET)
    params, state = model.init(KEY, jnp.zeros((1, 4)))
    x = jnp.asarray(TASK.x[:5])

    def ctx(params):
        def call(*inputs, params=params):
            return model.apply(params, state, *inputs)[0]

        return Context({"model": call(x)}, {"model": call}, {"model": params}, Examples((x,)))

    objective = mean_teacher(gap, decay=0.75)
    own, inner = objective.init(KEY, ctx(params))
    moved = jax.tree.map(lambda p: p + 1, params)
    value, (average, _), _ = objective.apply(own, inner, ctx(moved), key=KEY, step=0)
    for a, p in zip(jax.tree.leaves(average), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(a, p + 0.25, rtol=1e-5)
    expected = gap(ctx(moved).outputs["model"].logits, ctx(average).outputs["model"].logits).mean()
    np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.long
def test_teachers_and_students_of_different_shapes_need_an_adaptor():
    with pytest.raises(TypeError):
        apply(term(gap, at="embedding"), context())
    assert random_teacher(TALL)(TASK.x).embedding.shape == (60, 12)
