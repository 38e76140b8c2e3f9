import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from distill_toy import NET, TALL, TASK, random_teacher

from jgd.core import Context, Examples, Outputs, from_linen
from jgd.distill.terms import linear, mean_teacher, read, supervised, term

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
    return Context({"student": outputs(0), "teacher": outputs(1, 6)}, {}, {}, batch)


def apply(objective, ctx, step=0):
    params, state = objective.init(KEY, ctx)
    return objective.apply(params, state, ctx, key=KEY, step=jnp.asarray(step))


def gap(student, teacher):
    return jnp.sum((student - teacher) ** 2, axis=-1)


def test_read():
    out = outputs(0)
    assert read(out, "logits") is out.logits
    assert read(out, "map") is out.taps["map"]
    assert read(out, lambda o: o.embedding) is out.embedding
    with pytest.raises(ValueError, match="has logits, embedding, map"):
        read(out, "stage9")
    with pytest.raises(ValueError, match="no embedding"):
        read(Outputs(out.logits), "embedding")


def test_values_of_examples_are_averaged_by_weight():
    ctx = context(jnp.asarray([1.0, 0, 2, 0, 0]))
    each = np.asarray(gap(ctx.outputs["student"].logits, ctx.outputs["teacher"].logits))
    np.testing.assert_allclose(apply(term(gap), ctx)[0], (each[0] + 2 * each[2]) / 3, rtol=1e-6)
    np.testing.assert_allclose(apply(term(gap, everywhere=True), ctx)[0], each.mean(), rtol=1e-6)


def test_values_of_tokens_are_averaged_by_the_weight_of_their_example():
    ctx = context(jnp.asarray([1.0, 0, 1, 0, 0]))

    def per_place(s, t):
        return jnp.sum(s**2, -1)

    s = np.asarray(ctx.outputs["student"].taps["map"])
    expected = (s**2).sum(-1)[[0, 2]].mean()
    np.testing.assert_allclose(apply(term(per_place, at="map"), ctx)[0], expected, rtol=1e-5)


def test_a_loss_is_given_what_it_names():
    seen = {}

    def loss(student, teacher, labels, *, key, where=None, scale=1.0):
        seen.update(labels=labels, key=key, where=where)
        return scale * jnp.sum(student)

    ctx = context(jnp.asarray([1.0, 0, 1, 0, 0]))
    value = apply(term(loss, scale=2.0), ctx)[0]
    np.testing.assert_allclose(value, 2 * jnp.sum(ctx.outputs["student"].logits), rtol=1e-6)
    np.testing.assert_array_equal(seen["where"], [True, False, True, False, False])
    np.testing.assert_array_equal(seen["labels"], ctx.batch.targets)
    apply(term(loss, everywhere=True), ctx)
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
        both = {**ctx.outputs, "teacher": ctx.outputs["teacher"]._replace(logits=theirs)}
        return apply(term(gap), ctx._replace(outputs=both))[0]

    np.testing.assert_array_equal(jax.grad(value)(ctx.outputs["teacher"].logits), 0)


def test_supervised_takes_classes_and_probabilities():
    ctx = context()
    soft = context(targets=jax.nn.one_hot(ctx.batch.targets, 3))
    np.testing.assert_allclose(apply(supervised(), ctx)[0], apply(supervised(), soft)[0], rtol=1e-6)


def test_a_mean_teacher_is_the_average_of_the_past():
    model = from_linen(NET)
    params, state = model.init(KEY, jnp.zeros((1, 4)))
    x = jnp.asarray(TASK.x[:5])

    def ctx(params):
        def call(*inputs, params=params):
            return model.apply(params, state, *inputs)[0]

        return Context({"student": call(x)}, {"student": call}, {"student": params}, Examples((x,)))

    objective = mean_teacher(gap, decay=0.75)
    own, inner = objective.init(KEY, ctx(params))
    moved = jax.tree.map(lambda p: p + 1, params)
    value, (average, _), _ = objective.apply(own, inner, ctx(moved), key=KEY, step=0)
    for a, p in zip(jax.tree.leaves(average), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(a, p + 0.25, rtol=1e-5)
    expected = gap(ctx(moved).outputs["student"].logits, ctx(average).outputs["student"].logits).mean()
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_teachers_and_students_of_different_shapes_need_an_adaptor():
    with pytest.raises(TypeError):
        apply(term(gap, at="embedding"), context())
    assert random_teacher(TALL)(TASK.x).embedding.shape == (60, 12)
