"""Objectives: sums, schedules, metrics, parameters and state of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from core_toy import DATA, LINEAR, X, Y, mse, python_loop, same, sgd

from jgd.core import (
    Context,
    Examples,
    Objective,
    Outputs,
    Player,
    alternate,
    cycle,
    in_memory,
    objective,
    train,
    weighted,
)

CTX = Context({"model": Outputs(jnp.asarray([1.0, 2.0]))}, {}, {}, batch=None)


def total(ctx):
    return ctx.outputs["model"].logits.sum()


def squares(ctx):
    return (ctx.outputs["model"].logits ** 2).sum()


def apply(loss, params, state, step=0, key=None):
    key = jax.random.key(0) if key is None else key
    return loss.apply(params, state, CTX, key=key, step=jnp.asarray(step))


def counter(init_value=0.0):
    """Counts its calls in its state, has one parameter and reports its key."""

    def init(key, ctx):
        return jnp.asarray(init_value), jnp.zeros((), jnp.int32)

    def step(params, state, ctx, *, key, step):
        return params * total(ctx), state + 1, {"calls": state + 1, "draw": jax.random.uniform(key)}

    return Objective(init, step)


def test_plain_loss():
    loss = objective(total)
    assert loss.init(jax.random.key(0), CTX) == ((), ())
    value, state, metrics = apply(loss, (), ())
    assert float(value) == 3.0
    assert state == ()
    assert metrics == {}
    assert float(apply(objective(lambda ctx: 2), (), ())[0]) == 2.0  # a number will do


def test_weighted_is_the_sum():
    schedule = optax.linear_schedule(0.0, 1.0, 10)
    loss = weighted(a=(0.25, total), b=(schedule, objective(squares)), c=(2.0, counter(3.0)))
    params, state = loss.init(jax.random.key(0), CTX)
    assert set(params) == set(state) == {"a", "b", "c"}
    for step, ramp in ((0, 0.0), (5, 0.5), (10, 1.0), (99, 1.0)):
        value, after, metrics = apply(loss, params, state, step)
        np.testing.assert_allclose(value, 0.25 * 3 + ramp * 5 + 2 * 3 * 3, rtol=1e-6)
        assert set(metrics) == {"a", "b", "c", "c/calls", "c/draw"}
        np.testing.assert_allclose([metrics["a"], metrics["b"], metrics["c"]], [3, 5, 9], rtol=1e-6)
        assert int(after["c"]) == 1


def test_terms_are_kept():
    loss = weighted(a=(0.25, total), c=(2.0, counter(3.0)))
    assert [(name, weight) for name, weight, _ in loss.terms] == [("a", 0.25), ("c", 2.0)]
    params, state = loss.init(jax.random.key(0), CTX)
    values = [apply(term, params[n], state[n])[0] * w for n, w, term in loss.terms]
    np.testing.assert_allclose(sum(values), apply(loss, params, state)[0])
    assert objective(total).terms == ()


def test_terms_draw_from_different_keys():
    loss = weighted(a=(1.0, counter()), b=(1.0, counter()))
    _, _, metrics = apply(loss, *loss.init(jax.random.key(0), CTX))
    assert float(metrics["a/draw"]) != float(metrics["b/draw"])


def test_sums_nest():
    loss = weighted(outer=(2.0, weighted(a=(1.0, total), b=(3.0, squares))), c=(1.0, total))
    value, _, metrics = apply(loss, *loss.init(jax.random.key(0), CTX))
    assert float(value) == 2 * (3 + 15) + 3
    assert set(metrics) == {"outer", "outer/a", "outer/b", "c"}


def test_nothing_to_sum():
    with pytest.raises(ValueError, match="at least one term"):
        weighted()


def test_a_term_named_loss_does_not_hide_the_total():
    _, rows = python_loop(
        train(LINEAR, weighted(loss=(0.5, mse)), sgd()), jax.random.key(0), DATA, num_steps=1
    )
    state, _ = python_loop(train(LINEAR, mse_objective(), sgd()), jax.random.key(0), DATA, num_steps=0)
    out = LINEAR.apply(state.params["model"], {}, X)[0].logits
    value = np.mean((np.asarray(out) - Y) ** 2)
    np.testing.assert_allclose(rows[0]["loss"], 0.5 * value, rtol=1e-5)


def mse_objective():
    return objective(mse)


def test_parameters_and_state_of_an_objective_are_trained():
    """An adaptor from two logits to three targets, and a memory of each example's last prediction."""
    wide = np.concatenate([Y, Y[:, :1] - Y[:, 1:]], axis=1)
    data = Examples((X,), wide, index=np.arange(len(X)))

    def init(key, ctx):
        logits = ctx.outputs["model"].logits
        adaptor = jax.random.normal(key, (logits.shape[1], ctx.batch.targets.shape[1])) * 0.5
        return adaptor, jnp.zeros((len(X), logits.shape[1]))

    def apply(adaptor, memory, ctx, *, key, step):
        logits = ctx.outputs["model"].logits
        fit = jnp.mean((logits @ adaptor - ctx.batch.targets) ** 2)
        stay = jnp.mean((logits - memory[ctx.batch.index]) ** 2)
        memory = memory.at[ctx.batch.index].set(jax.lax.stop_gradient(logits))
        return fit + 0.1 * stay, memory, {"fit": fit}

    alg = train(LINEAR, Objective(init, apply), optax.sgd(0.1))
    state, rows = python_loop(alg, jax.random.key(0), data, num_steps=4)
    start, _ = python_loop(alg, jax.random.key(0), data, num_steps=0)

    dense = start.params["model"]["out"]  # the same in NumPy, with gradients by hand
    w, b, a = (np.asarray(v, np.float64) for v in (dense["kernel"], dense["bias"], start.params["objective"]))
    memory = np.zeros((len(X), 2))
    fits = []
    for _ in range(4):
        h = X @ w + b
        error = h @ a - wide
        fits.append(np.mean(error**2))
        d_out = 2 * error / error.size
        d_h = d_out @ a.T + 0.1 * 2 * (h - memory) / h.size
        d_a = h.T @ d_out
        memory = h
        w, b, a = w - 0.1 * X.T @ d_h, b - 0.1 * d_h.sum(0), a - 0.1 * d_a
    got = state.params["model"]["out"]
    same((got["kernel"], got["bias"], state.params["objective"]), (w, b, a), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state.state["objective"], memory, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose([r["fit"] for r in rows], fits, rtol=1e-4)


def test_objective_parameters_can_be_treated_apart():
    loss = weighted(fit=(1.0, mse), c=(1.0, counter(3.0)))
    tx = optax.partition(
        {"net": optax.sgd(0.1), "own": optax.set_to_zero()},
        lambda params: {
            k: jax.tree.map(lambda _: "own" if k == "objective" else "net", v) for k, v in params.items()
        },
    )
    state, _ = python_loop(train(LINEAR, loss, tx), jax.random.key(0), DATA, num_steps=2)
    assert float(state.params["objective"]["c"]) == 3.0
    assert int(state.state["objective"]["c"]) == 2


def test_the_step_reaches_a_schedule():
    loss = weighted(fit=(lambda step: jnp.where(step < 4, 1.0, 0.0), mse))
    _, rows = python_loop(train(LINEAR, loss, sgd()), jax.random.key(0), DATA, num_steps=5)
    assert [float(r["loss"]) == 0.0 for r in rows] == [False, False, False, False, True]
    bound = in_memory("fit", train(LINEAR, loss, sgd()), jax.random.key(0), DATA, 5)
    assert bound(X).logits.shape == Y.shape


# --- slips --------------------------------------------------------------------------------------


def makes_objective(player="model") -> Objective:
    return objective(total)


def between(student, teacher):
    return jnp.sum(student - teacher)


SLIPS = {
    "not called": (
        lambda: weighted(ce=(1.0, makes_objective)),
        "makes_objective makes an objective: call it",
    ),
    "no weight": (lambda: weighted(ce=counter()), r"must be a pair \(weight, objective\)"),
    "no weight, plain": (
        lambda: weighted(ce=total),
        r"must be a pair \(weight, objective\), got function|must be a pair",
    ),
    "swapped": (lambda: weighted(ce=(counter(), 1.0)), "swap them"),
    "swapped, plain": (lambda: weighted(ce=(total, 1.0)), "swap them"),
    "three": (lambda: weighted(ce=(1.0, total, 2)), "must be a pair"),
    "of two networks": (lambda: weighted(kd=(1.0, between)), "takes student, teacher: wrap it"),
    "of nothing": (lambda: weighted(kd=(1.0, lambda: 1.0)), "takes no argument"),
    "weight None": (
        lambda: weighted(ce=(None, total)),
        "needs a number or a schedule as its weight, got None",
    ),
    "weight in words": (lambda: weighted(ce=("0.5", total)), "needs a number or a schedule"),
    "weight of three": (lambda: weighted(ce=(jnp.ones(3), total)), r"got an array of shape \(3,\)"),
    "weight NaN": (lambda: weighted(ce=(np.nan, total)), "must be finite"),
    "loss a number": (lambda: weighted(ce=(1.0, 2.0)), "must be an objective or a function of the context"),
    "no function": (lambda: objective("ce"), "takes a function of the context, got str"),
    "trained, not called": (lambda: train(LINEAR, makes_objective, sgd()), "call it"),
    "trained, a number": (lambda: train(LINEAR, 1.0, sgd()), "must be an objective or a function"),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_slips_are_told_in_one_line(slip):
    make, said = SLIPS[slip]
    with pytest.raises(ValueError, match=said) as caught:
        make()
    assert "\n" not in str(caught.value)


NOT_A_NUMBER = {
    "one for each": (
        lambda ctx: ctx.outputs["model"].logits,
        r"shape \(2,\), a loss has shape \(\): average it",
    ),
    "one in a list": (lambda ctx: ctx.outputs["model"].logits[:1], r"shape \(1,\)"),
    "objective": (lambda ctx: objective(total), "returned an objective"),
    "nothing": (lambda ctx: None, "must return one number, got NoneType"),
    "several": (lambda ctx: (1.0, {}), "must return one number|shape"),
}


@pytest.mark.parametrize("what", NOT_A_NUMBER)
def test_a_loss_is_one_number(what):
    fn, said = NOT_A_NUMBER[what]
    whole = Objective(
        lambda key, ctx: ((), ()), lambda params, state, ctx, *, key, step: (fn(ctx), state, {})
    )
    for loss in (weighted(m=(1.0, fn)), objective(fn), weighted(m=(1.0, whole))):
        with pytest.raises(ValueError, match=said) as caught:
            apply(loss, *loss.init(jax.random.key(0), CTX))
        assert "\n" not in str(caught.value)
    schedule = weighted(m=(lambda step: fn(CTX), total))
    with pytest.raises(ValueError, match=said):
        apply(schedule, *schedule.init(jax.random.key(0), CTX))


def test_a_loop_says_that_its_loss_is_no_number():
    per_row = Objective(
        lambda key, ctx: ((), ()),
        lambda params, state, ctx, *, key, step: (jnp.sum(ctx.outputs["model"].logits, -1), state, {}),
    )
    with pytest.raises(ValueError, match=rf"the objective returned an array of shape \({len(X)},\)"):
        python_loop(train(LINEAR, per_row, sgd()), jax.random.key(0), DATA, num_steps=1)
    several = alternate(
        {name: Player(LINEAR, per_row, sgd()) for name in ("model", "other")}, cycle(model=1, other=1)
    )
    with pytest.raises(
        ValueError, match=rf"the objective of 'model' returned an array of shape \({len(X)},\)"
    ):
        python_loop(several, jax.random.key(0), DATA, num_steps=1)


def test_a_plain_loss_trains_as_it_is():
    one, two = (
        python_loop(train(LINEAR, loss, sgd()), jax.random.key(0), DATA, num_steps=2)[0].params
        for loss in (mse, objective(mse))
    )
    same(one, two)


def test_weights_may_be_negative_whole_and_arrays():
    for weight in (-1, np.float32(-1), jnp.asarray(-1.0), lambda step: -1):
        loss = weighted(a=(weight, total))
        assert float(apply(loss, *loss.init(jax.random.key(0), CTX))[0]) == -3
    traced = jax.jit(lambda w: apply(weighted(a=(w, total)), {"a": ()}, {"a": ()})[0])
    assert float(traced(2.0)) == 6
