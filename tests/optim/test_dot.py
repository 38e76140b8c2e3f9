"""Two velocities: of the task and of the teacher."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jgd import losses
from jgd.core import Bound, from_linen, objective, weighted
from jgd.data import ArrayTask
from jgd.distill import _dot as split
from jgd.distill.recipes import offline
from jgd.distill.terms import supervised, term
from jgd.nn import Perceptron
from jgd.optim import dot

KEY = jax.random.key(0)


def steps(tx, gradients):
    """Parameters after each pair of gradients."""
    params = {"w": jnp.asarray([1.0, -2.0])}
    state, seen = tx.init(params), []
    for task, taught in gradients:
        updates, state = tx.update(
            {"w": task}, state, params, **({} if taught is None else {"distillation": {"w": taught}})
        )
        params = optax.apply_updates(params, updates)
        seen.append(np.asarray(params["w"]))
    return np.stack(seen)


GRADIENTS = [tuple(x) for x in np.sin(np.arange(20.0) ** 2).reshape(5, 2, 2).astype(np.float32)]


def test_without_a_difference_it_is_descent_on_the_sum():
    plain = optax.chain(optax.add_decayed_weights(0.05), optax.sgd(0.1, momentum=0.9))
    ours = steps(dot(0.1, delta=0.0, weight_decay=0.05), GRADIENTS)
    np.testing.assert_allclose(ours, steps(plain, [(a + b, None) for a, b in GRADIENTS]), rtol=1e-5)
    assert np.abs(ours - steps(dot(0.1, weight_decay=0.05), GRADIENTS)).max() > 1e-2


def test_each_gradient_has_its_own_velocity_and_the_task_decays():
    w, v, u, seen = np.asarray([1.0, -2.0]), 0.0, 0.0, []
    for task, taught in GRADIENTS:
        v = 0.8 * v + task + 0.05 * w
        u = 0.96 * u + taught
        w = w - 0.1 * (v + u)
        seen.append(w)
    ours = steps(dot(0.1, momentum=0.88, delta=0.08, weight_decay=0.05), GRADIENTS)
    np.testing.assert_allclose(ours, np.stack(seen), rtol=1e-5)


def test_momenta_that_grow_without_end_are_refused():
    with pytest.raises(ValueError, match=r"0\.85 and 1\.05"):
        dot(0.1, momentum=0.95, delta=0.1)
    with pytest.raises(ValueError, match="wrap it in jgd"):
        steps(dot(0.1), [(GRADIENTS[0][0], None)])


def test_the_gradients_of_labels_and_teacher_come_apart():
    """Of ``L = a² + s 3 (b + θ)`` in parameters a, b of the network and θ of the objective."""
    params = {
        "model": {"a": jnp.asarray(2.0), "b": jnp.asarray(1.0)},
        "objective": {"share": jnp.ones(()), "terms": jnp.ones(())},
    }

    def loss(p):
        return p["model"]["a"] ** 2 + 3 * p["objective"]["share"] * (
            p["model"]["b"] + p["objective"]["terms"]
        )

    seen = {}

    def update(task, state, params=None, *, distillation, **extra):
        seen.update(task=task, taught=distillation)
        return jax.tree.map(jnp.ones_like, task), state

    tx = split.by_source(optax.GradientTransformationExtraArgs(lambda params: (), update))
    updates, _ = tx.update(jax.grad(loss)(params), tx.init(params), params, grad_fn=jax.grad(loss), value=0.0)
    assert float(updates["objective"]["share"]) == 0  # it stays 1, whatever the optimiser does
    assert jax.tree.map(float, seen["task"]) == {
        "model": {"a": 4, "b": 0},
        "objective": {"share": 0, "terms": 0},
    }
    assert jax.tree.map(float, seen["taught"]) == {
        "model": {"a": 0, "b": 3},
        "objective": {"share": 0, "terms": 3},
    }


@pytest.mark.long
def test_a_student_trains_with_it_as_with_descent_where_the_momenta_are_one():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = (2 * np.eye(3)[y] + 0.5 * rng.standard_normal((60, 3))).astype(np.float32)
    task = ArrayTask(x=x, y=y, train=np.ones(60, bool), num_classes=3)
    net = from_linen(Perceptron(3, (6,)))
    teacher = Bound(*net.init(jax.random.key(1), x[:1]), net)
    whole = weighted(ce=(1.0, supervised()), kd=(0.5, term(losses.kd)))

    def trained(objective, tx):
        return offline(net, teacher, objective, tx, steps=15, batch=20)(KEY, task).params

    apart = split.apart(whole, "kd")
    decayed = optax.chain(optax.add_decayed_weights(1e-3), optax.sgd(0.02, momentum=0.9))
    plain = trained(whole, decayed)
    ours = trained(apart, split.by_source(dot(0.02, delta=0.0, weight_decay=1e-3)))
    for a, b in zip(*map(jax.tree.leaves, (plain, ours)), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_terms_must_be_named():
    whole = weighted(ce=(1.0, lambda ctx: 0.0), kd=(1.0, lambda ctx: 1.0))
    for bad in ((), ("at",)):
        with pytest.raises(ValueError, match=r"\['ce', 'kd'\]"):
            split.apart(whole, *bad)
    with pytest.raises(ValueError, match="it has none"):
        split.apart(objective(lambda ctx: 0.0), "kd")
    tx = split.by_source(dot(0.1))
    with pytest.raises(ValueError, match="wrap the objective"):
        tx.init({"model": jnp.ones(()), "objective": ()})
