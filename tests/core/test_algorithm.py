"""`train` and `alternate` against loops written by hand with Optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from core_toy import DATA, LINEAR, NOISY, X, Y, mse, python_loop, same, sgd

from jgd.core import Examples, Player, alternate, bind, cycle, objective, sequence, train

KEY = jax.random.key(0)


def test_train_equals_a_loop_by_hand():
    """Dropout, batch statistics, mini-batches and Adam, with the keys as the contract says."""
    tx = optax.adam(1e-2)
    alg = train(NOISY, objective(mse), tx)
    order = np.stack([np.random.default_rng(t).permutation(24)[:8] for t in range(6)])

    def batch_at(t):
        return Examples((X[order[t]],), Y[order[t]])

    state, rows = python_loop(alg, KEY, DATA, 6, batch_at)

    k_model, _, _ = jax.random.split(jax.random.fold_in(KEY, 0), 3)
    params, stats = jax.jit(NOISY.init)(k_model, X[order[0]])
    everything = {"student": params, "objective": ()}
    opt_state = tx.init(everything)

    @jax.jit
    def update(params, stats, opt_state, key, x, y):
        def loss_fn(p):
            outputs, after = NOISY.apply(p["student"], stats, x, key=key, train=True)
            return jnp.mean((outputs.logits - y) ** 2), after

        (loss, after), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), after, opt_state, loss

    for t in range(6):
        key = jax.random.fold_in(jax.random.fold_in(KEY, 1), t)
        _, k_model, _ = jax.random.split(key, 3)
        everything, stats, opt_state, loss = update(
            everything, stats, opt_state, k_model, X[order[t]], Y[order[t]]
        )
        np.testing.assert_allclose(rows[t]["loss"], loss, rtol=1e-6)
    same(state.params, everything, rtol=1e-6, atol=1e-7)
    same(state.state["student"], stats, rtol=1e-6, atol=1e-7)
    same(state.opt_state, opt_state, rtol=1e-6, atol=1e-7)
    product = alg.result(state, DATA)
    same(product.params, everything["student"], rtol=1e-6, atol=1e-7)


def test_frozen_teacher():
    """The teacher is data: evaluated, shown to the objective, without gradient and without change."""
    teacher = bind(NOISY, *jax.jit(NOISY.init)(jax.random.key(7), X))
    data = (DATA, teacher)

    def prepare(key, t, data, batch):
        return data[0], {"student": data[0].inputs, "teacher": data[0].inputs}

    def kl(ctx):
        assert set(ctx.outputs) == {"student", "teacher"}
        again = ctx.call["teacher"](*ctx.batch.inputs).logits
        # A student could otherwise cheat by way of the teacher's parameters.
        extra = sum(jnp.sum(p) for p in jax.tree.leaves(ctx.params["teacher"]))
        target = (ctx.outputs["teacher"].logits + again) / 2 + 0 * extra
        return jnp.mean((ctx.outputs["student"].logits - target) ** 2)

    alg = train(LINEAR, objective(kl), sgd(), prepare=prepare, frozen=lambda data: {"teacher": data[1]})
    state, _ = python_loop(alg, KEY, data, 3)
    direct = train(LINEAR, objective(mse), sgd())
    expected, _ = python_loop(direct, KEY, Examples((X,), teacher(X).logits), 3)
    same(state.params, expected.params, rtol=1e-5, atol=1e-6)

    def total(teacher):
        return alg.step(jax.random.key(1), jnp.asarray(0), state, (DATA, teacher), None)[1]["loss"]

    for g in jax.tree.leaves(jax.grad(total)(teacher)):
        np.testing.assert_array_equal(g, 0)


def test_prepare_hook():
    """It is given the step, a key and the data, and decides what network and objective see."""
    seen = jnp.linspace(0.0, 1.0, 24)[:, None]

    def prepare(key, t, data, batch):
        x = data.inputs[0] * (t + 1) + jax.random.uniform(key, data.inputs[0].shape)
        return data._replace(targets=data.targets + seen), {"student": (x,)}

    alg = train(LINEAR, objective(mse), optax.sgd(0.1), prepare=prepare)
    state, rows = python_loop(alg, KEY, DATA, 3)
    start, _ = python_loop(alg, KEY, DATA, 0)
    w, b = (np.asarray(start.params["student"]["out"][n], np.float64) for n in ("kernel", "bias"))
    for t in range(3):
        key = jax.random.fold_in(jax.random.fold_in(KEY, 1), t)
        x = X * (t + 1) + np.asarray(jax.random.uniform(jax.random.split(key, 3)[0], X.shape))
        error = x @ w + b - (Y + np.asarray(seen))
        np.testing.assert_allclose(rows[t]["loss"], np.mean(error**2), rtol=1e-4)
        w, b = w - 0.1 * x.T @ (2 * error / error.size), b - 0.1 * (2 * error / error.size).sum(0)
    same(state.params["student"]["out"], {"kernel": w, "bias": b}, rtol=1e-4, atol=1e-5)


def test_call_reevaluates_the_network():
    def loss(ctx):
        call, params = ctx.call["student"], ctx.params["student"]
        zeroed = jax.tree.map(jnp.zeros_like, params)
        doubled = call(2 * X).logits - call(X).logits - X @ params["out"]["kernel"]
        return jnp.mean(call(X, params=zeroed).logits ** 2) + jnp.mean(doubled**2)

    _, rows = python_loop(train(LINEAR, objective(loss), sgd()), KEY, DATA, 1)
    np.testing.assert_allclose(rows[0]["loss"], 0, atol=1e-10)


def noisy_inputs(key, t, data, batch):
    return data, {"student": (X + jax.random.normal(key, X.shape),)}


def test_extra_arguments_reach_the_optimiser():
    """value, grad, value_fn and grad_fn describe the loss of this step, at this step's key."""

    def init(params):
        return jnp.zeros(())

    def update(updates, state, params, *, value, grad, value_fn, grad_fn, **_):
        again = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), grad_fn(params), grad)
        worst = jax.tree.reduce(jnp.maximum, again) + jnp.abs(value_fn(params) - value)
        moved = value_fn(jax.tree.map(lambda p, g: p - 1e-2 * g, params, grad))
        return jax.tree.map(lambda g: -0.1 * g, updates), jnp.maximum(state, worst + (moved >= value))

    tx = optax.GradientTransformationExtraArgs(init, update)
    state, _ = python_loop(train(LINEAR, objective(mse), tx, prepare=noisy_inputs), KEY, DATA, 3)
    np.testing.assert_allclose(state.opt_state, 0, atol=1e-6)

    player = Player(
        init=lambda key, data, batch: (jnp.ones(3), ()),
        loss=lambda p, s, others, data, batch, *, key, t: (jnp.sum(p**2), s, {}),
        tx=tx,
    )
    state, _ = python_loop(alternate({"a": player}, cycle(a=1)), KEY, None, 3)
    np.testing.assert_allclose(state["a"][0], 0.8**3, rtol=1e-6)
    np.testing.assert_allclose(state["a"][2], 0, atol=1e-6)


def test_lbfgs_finds_the_least_squares_solution():
    state, _ = python_loop(train(LINEAR, objective(mse), optax.lbfgs()), KEY, DATA, 15)
    design = np.concatenate([X, np.ones((24, 1))], axis=1)
    solution = np.linalg.lstsq(design, Y, rcond=None)[0]
    got = state.params["student"]["out"]
    np.testing.assert_allclose(np.vstack([got["kernel"], got["bias"]]), solution, rtol=1e-3, atol=1e-4)


# --- players that take turns --------------------------------------------------------------------

PULL = {"a": 0.1, "b": 0.3}


def duel(name, other):
    """Minimise ``|p - t + other|^2 / 2``; the state counts the own turns, the key adds noise."""

    def init(key, data, batch):
        return jax.random.normal(key, (2,)), jnp.zeros((), jnp.int32)

    def loss(params, state, others, data, batch, *, key, t):
        target = others[other][0] + data + 0.1 * jax.random.normal(key, (2,))
        value = 0.5 * jnp.sum((params - target) ** 2) + 0 * jnp.sum(others[name][0])
        return value, state + 1, {"turns": state + 1, "t": t}

    return Player(init, loss, optax.sgd(PULL[name]))


def by_hand(state, name, other, key, data):
    """One turn of `duel` in NumPy: returns the loss."""
    target = state[other] + data + 0.1 * np.asarray(jax.random.normal(key, (2,)))
    error = state[name] - target
    state[name] = state[name] - PULL[name] * error
    return 0.5 * np.sum(error**2)


PLAYERS = {"a": duel("a", "b"), "b": duel("b", "a")}
OTHER = {"a": "b", "b": "a"}
SHIFT = np.asarray([0.5, -0.2], np.float32)


def test_cycle_takes_turns_over_steps():
    """The 10/40 scheme: only one player moves in a step, the metrics of the other are NaN."""
    alg = alternate(PLAYERS, cycle(a=10, b=40))
    state, rows = python_loop(alg, KEY, SHIFT, 65)
    start, _ = python_loop(alg, KEY, SHIFT, 0)
    hand = {n: np.asarray(start[n][0], np.float64) for n in "ab"}
    for t in range(65):
        name = "a" if t % 50 < 10 else "b"
        key = jax.random.fold_in(jax.random.fold_in(KEY, 1), t)
        loss = by_hand(hand, name, OTHER[name], key, SHIFT)
        assert set(rows[t]) == {"loss", "a/loss", "a/turns", "a/t", "b/loss", "b/turns", "b/t"}
        np.testing.assert_allclose(rows[t]["loss"], loss, rtol=1e-3, atol=1e-6)
        np.testing.assert_array_equal(rows[t][f"{name}/loss"], rows[t]["loss"])
        assert float(rows[t][f"{name}/t"]) == t
        for metric in ("loss", "turns", "t"):
            assert np.isnan(rows[t][f"{OTHER[name]}/{metric}"])
    assert (int(state["a"][1]), int(state["b"][1])) == (20, 45)
    for name in "ab":
        np.testing.assert_allclose(state[name][0], hand[name], rtol=1e-4, atol=1e-5)
    assert set(alg.result(state, SHIFT)) == {"a", "b"}
    assert len(alg.result(state, SHIFT)["a"]) == 2


def test_sequence_takes_turns_within_a_step():
    alg = alternate(PLAYERS, sequence(a=5, b=1))
    state, rows = python_loop(alg, KEY, SHIFT, 4)
    start, _ = python_loop(alg, KEY, SHIFT, 0)
    hand = {n: np.asarray(start[n][0], np.float64) for n in "ab"}
    for t in range(4):
        key = jax.random.fold_in(jax.random.fold_in(KEY, 1), t)
        for k in jax.random.split(jax.random.fold_in(key, 0), 5):
            last = by_hand(hand, "a", "b", k, SHIFT)
        other = by_hand(hand, "b", "a", jax.random.fold_in(key, 1), SHIFT)
        np.testing.assert_allclose(rows[t]["a/loss"], last, rtol=1e-4)  # of the last of the five
        np.testing.assert_allclose(rows[t]["loss"], last + other, rtol=1e-4)
    assert (int(state["a"][1]), int(state["b"][1])) == (20, 4)
    for name in "ab":
        np.testing.assert_allclose(state[name][0], hand[name], rtol=1e-4, atol=1e-5)


def test_players_that_do_not_descend():
    """A follower (exponential average) beside a descending player, in both kinds of plan."""

    def follow(params, state, others, data, batch, *, key, t):
        return 0.9 * params + 0.1 * others["a"][0], state, {"distance": jnp.sum(others["a"][0] - params)}

    follower = Player(init=lambda key, data, batch: (jnp.zeros(2), ()), update=follow)
    descend = Player(
        init=lambda key, data, batch: (jnp.ones(2), ()),
        loss=lambda p, s, others, data, batch, *, key, t: (0.5 * jnp.sum(p**2), s, {}),
        tx=optax.sgd(0.5),
    )
    players = {"a": descend, "slow": follower}
    state, rows = python_loop(alternate(players, sequence(a=1, slow=2)), KEY, None, 3)
    slow = 0.0
    for a in (0.5, 0.25, 0.125):
        slow = 0.9 * (0.9 * slow + 0.1 * a) + 0.1 * a
    np.testing.assert_allclose(state["slow"][0], slow, rtol=1e-6)
    np.testing.assert_allclose([r["loss"] for r in rows], [r["a/loss"] for r in rows])

    state, rows = python_loop(alternate(players, cycle(a=1, slow=1)), KEY, None, 4)
    np.testing.assert_allclose(state["slow"][0], 0.9 * 0.05 + 0.1 * 0.25, rtol=1e-6)
    assert [float(r["loss"]) for r in rows[1::2]] == [0.0, 0.0]  # and not NaN: nothing diverged
    assert all(np.isnan(r["slow/distance"]) for r in rows[::2])


def test_a_player_without_turns_stays():
    idle = Player(init=lambda key, data, batch: (jnp.full(2, 3.0), ()))
    state, rows = python_loop(alternate(PLAYERS | {"idle": idle}, cycle(a=1, b=1)), KEY, SHIFT, 2)
    np.testing.assert_array_equal(state["idle"][0], 3.0)
    assert not any(name.startswith("idle") for name in rows[0])


def test_plans_that_make_no_sense():
    with pytest.raises(ValueError, match=r"the plan names \['c'\], the players are \['a', 'b'\]"):
        alternate(PLAYERS, cycle(a=1, c=1))
    with pytest.raises(ValueError, match="nobody"):
        alternate(PLAYERS, cycle())
    with pytest.raises(ValueError, match="at least 1"):
        alternate(PLAYERS, sequence(a=0, b=1))
    init, loss = PLAYERS["a"].init, PLAYERS["a"].loss
    for broken in (Player(init), Player(init, loss)):  # without an optimiser it would climb
        with pytest.raises(ValueError, match="'a' takes turns: it needs a loss and a tx, or an update"):
            alternate({"a": broken}, cycle(a=1))


@pytest.mark.parametrize("which", ["train", "cycle", "sequence"])
def test_one_export_for_all_platforms(which):
    if which == "train":
        alg, data = train(NOISY, objective(mse), optax.adam(1e-2)), DATA
    else:
        alg, data = alternate(PLAYERS, {"cycle": cycle, "sequence": sequence}[which](a=2, b=1)), SHIFT
    state = jax.eval_shape(alg.init, KEY, data, None)
    t = jax.ShapeDtypeStruct((), jnp.int32)
    exported = jax.export.export(jax.jit(alg.step), platforms=["cpu", "cuda", "tpu"])(
        KEY, t, state, data, None
    )
    assert exported.platforms == ("cpu", "cuda", "tpu")
    if which == "train":
        args = (KEY, np.int32(0), jax.jit(alg.init)(KEY, data, None), data, None)
        same(exported.call(*args), jax.jit(alg.step)(*args), rtol=1e-6, atol=1e-7)
