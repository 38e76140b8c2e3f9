"""Branches that their own ensemble teaches."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from distill_toy import NET, TASK

from jgd.core import Context, Examples, from_linen
from jgd.distill import _one as one
from jgd.distill.recipes import scratch
from jgd.nn import Perceptron

KEY = jax.random.key(0)
BRANCH = partial(Perceptron, 3, (6,))
X, Y = jnp.asarray(TASK.x[:9]), jnp.asarray(TASK.y[:9])


def bound(net):
    model = from_linen(net)
    return model.apply, *jax.jit(model.init)(KEY, X)


def value(out, step, **settings):
    ctx = Context({"model": out}, {}, {}, Examples((X,), Y))
    objective = one.one(**settings)
    params, state = objective.init(KEY, ctx)
    loss, _, metrics = objective.apply(params, state, ctx, key=KEY, step=jnp.asarray(step))
    return loss, metrics


@pytest.mark.long
def test_the_gate_mixes_branches_and_one_of_them_answers():
    apply, params, state = bound(one.Branched(NET, BRANCH))
    out, _ = apply(params, state, X)
    gate, branches = out.taps["gate"], out.taps["branches"]
    assert branches.shape == (9, 3, 3)
    np.testing.assert_allclose(gate.sum(-1), 1, rtol=1e-6)
    assert np.asarray(gate).std(0).max() > 0  # it depends on the example
    np.testing.assert_allclose(out.taps["ensemble"], np.einsum("bm,bmc->bc", gate, branches), rtol=1e-4)
    np.testing.assert_array_equal(out.logits, branches[:, 0])
    answer, _ = from_linen(one.Branched(NET, BRANCH, answer="ensemble")).apply(params, state, X)
    np.testing.assert_array_equal(answer.logits, answer.taps["ensemble"])


@pytest.mark.long
def test_the_loss_is_that_of_all_branches():
    apply, params, state = bound(one.Branched(NET, BRANCH, count=2))
    out, _ = apply(params, state, X)
    loss, metrics = value(out, step=40, ramp_steps=80)
    z, e = (np.asarray(out.taps[name], np.float64) for name in ("branches", "ensemble"))

    def log_softmax(x):
        return x - np.log(np.exp(x).sum(-1, keepdims=True))

    rows = np.arange(9)
    hard = -sum(log_softmax(z[:, m])[rows, Y].mean() for m in range(2)) - log_softmax(e)[rows, Y].mean()
    p = np.exp(log_softmax(e / 3))
    soft = sum(9 * (p * (log_softmax(e / 3) - log_softmax(z[:, m] / 3))).sum(-1).mean() for m in range(2))
    np.testing.assert_allclose(metrics["kd"], soft, rtol=1e-4)
    np.testing.assert_allclose(loss, hard + np.exp(-5 * 0.25) * soft, rtol=1e-5)
    np.testing.assert_allclose(value(out, step=500, ramp_steps=80)[0], hard + soft, rtol=1e-5)


@pytest.mark.long
def test_equal_branches_teach_each_other_nothing_and_are_not_taught_backwards():
    apply, params, state = bound(one.Branched(NET, BRANCH))
    first = params["Perceptron_0"]
    same = {**params, "Perceptron_1": first, "Perceptron_2": first}
    np.testing.assert_allclose(value(apply(same, state, X)[0], step=0)[1]["kd"], 0, atol=1e-5)

    def taught(gate_params):  # the ensemble is a constant teacher: its gate learns from labels alone
        return value(apply({**params, "Dense_0": gate_params}, state, X)[0], step=0)[1]["kd"]

    assert all(np.all(np.asarray(g) == 0) for g in jax.tree.leaves(jax.grad(taught)(params["Dense_0"])))


@pytest.mark.long
def test_branches_learn_and_their_ensemble_is_no_worse():
    net = one.Branched(NET, BRANCH)
    student = scratch(net, optax.adam(1e-2), one.one(ramp_steps=60), steps=120, batch=20)(KEY, TASK)
    out = student(TASK.x)
    right = {
        n: np.mean(np.argmax(v, -1) == TASK.y)
        for n, v in (("one", out.logits), ("all", out.taps["ensemble"]))
    }
    assert right["one"] > 0.85
    assert right["all"] > right["one"] - 0.05


def test_refusals():
    with pytest.raises(ValueError, match="at least one branch"):
        one.Branched(NET, BRANCH, count=0).init(KEY, X)
