"""`train` and `alternate` against loops written by hand with Optax."""

from itertools import pairwise
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from core_toy import DATA, LINEAR, NOISY, X, Y, mse, python_loop, same, sgd
from scipy.stats import norm

from jgd.core import (
    Examples,
    Model,
    Objective,
    Outputs,
    Player,
    alternate,
    bind,
    cycle,
    ensemble,
    follow,
    from_linen,
    in_memory,
    objective,
    restart,
    sequence,
    sweep,
    train,
)

KEY = jax.random.key(0)


def vector(begin):
    """A network without inputs whose output is its parameters."""
    return Model(
        lambda key, *inputs: (begin(key), ()),
        lambda params, state, *inputs, key=None, train=False: (Outputs(params), state),
    )


def no_inputs(*names):
    return lambda key, t, data, batch: (data, dict.fromkeys(names, ()))


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
    everything = {"model": params, "objective": ()}
    opt_state = tx.init(everything)

    @jax.jit
    def update(params, stats, opt_state, key, x, y):
        def loss_fn(p):
            outputs, after = NOISY.apply(p["model"], stats, x, key=key, train=True)
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
    same(state.state["model"], stats, rtol=1e-6, atol=1e-7)
    same(state.opt_state, opt_state, rtol=1e-6, atol=1e-7)
    product = alg.result(state, DATA)
    same(product.params, everything["model"], rtol=1e-6, atol=1e-7)


def test_frozen_teacher():
    """The teacher is data: evaluated, shown to the objective, without gradient and without change."""
    teacher = bind(NOISY, *jax.jit(NOISY.init)(jax.random.key(7), X))
    data = (DATA, teacher)

    def prepare(key, t, data, batch):
        return data[0], {"model": data[0].inputs, "teacher": data[0].inputs}

    def kl(ctx):
        assert set(ctx.outputs) == {"model", "teacher"}
        again = ctx.call["teacher"](*ctx.batch.inputs).logits
        # A student could otherwise cheat by way of the teacher's parameters.
        extra = sum(jnp.sum(p) for p in jax.tree.leaves(ctx.params["teacher"]))
        target = (ctx.outputs["teacher"].logits + again) / 2 + 0 * extra
        return jnp.mean((ctx.outputs["model"].logits - target) ** 2)

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
        return data._replace(targets=data.targets + seen), {"model": (x,)}

    alg = train(LINEAR, objective(mse), optax.sgd(0.1), prepare=prepare)
    state, rows = python_loop(alg, KEY, DATA, 3)
    start, _ = python_loop(alg, KEY, DATA, 0)
    w, b = (np.asarray(start.params["model"]["out"][n], np.float64) for n in ("kernel", "bias"))
    for t in range(3):
        key = jax.random.fold_in(jax.random.fold_in(KEY, 1), t)
        x = X * (t + 1) + np.asarray(jax.random.uniform(jax.random.split(key, 3)[0], X.shape))
        error = x @ w + b - (Y + np.asarray(seen))
        np.testing.assert_allclose(rows[t]["loss"], np.mean(error**2), rtol=1e-4)
        w, b = w - 0.1 * x.T @ (2 * error / error.size), b - 0.1 * (2 * error / error.size).sum(0)
    same(state.params["model"]["out"], {"kernel": w, "bias": b}, rtol=1e-4, atol=1e-5)


def test_call_reevaluates_the_network():
    def loss(ctx):
        call, params = ctx.call["model"], ctx.params["model"]
        zeroed = jax.tree.map(jnp.zeros_like, params)
        doubled = call(2 * X).logits - call(X).logits - X @ params["out"]["kernel"]
        return jnp.mean(call(X, params=zeroed).logits ** 2) + jnp.mean(doubled**2)

    _, rows = python_loop(train(LINEAR, objective(loss), sgd()), KEY, DATA, 1)
    np.testing.assert_allclose(rows[0]["loss"], 0, atol=1e-10)


def noisy_inputs(key, t, data, batch):
    return data, {"model": (X + jax.random.normal(key, X.shape),)}


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

    player = Player(vector(lambda key: jnp.ones(3)), lambda ctx: jnp.sum(ctx.params["a"] ** 2), tx)
    state, _ = python_loop(alternate({"a": player}, cycle(a=1), prepare=no_inputs("a")), KEY, None, 3)
    np.testing.assert_allclose(state["a"].params["a"], 0.8**3, rtol=1e-6)
    np.testing.assert_allclose(state["a"].opt_state, 0, atol=1e-6)


@pytest.mark.long
def test_lbfgs_finds_the_least_squares_solution():
    state, _ = python_loop(train(LINEAR, objective(mse), optax.lbfgs()), KEY, DATA, 15)
    design = np.concatenate([X, np.ones((24, 1))], axis=1)
    solution = np.linalg.lstsq(design, Y, rcond=None)[0]
    got = state.params["model"]["out"]
    np.testing.assert_allclose(np.vstack([got["kernel"], got["bias"]]), solution, rtol=1e-3, atol=1e-4)


# --- players that take turns --------------------------------------------------------------------

PULL = {"a": 0.1, "b": 0.3}


def duel(name, other):
    """Minimise ``|p - t + other|^2 / 2``; the state counts the own turns, the key adds noise."""

    def apply(params, turns, ctx, *, key, step):
        target = ctx.outputs[other].value + ctx.batch + 0.1 * jax.random.normal(key, (2,))
        target = target + 0 * ctx.params[other] + 0 * ctx.call[other]().value  # constant, all of them
        return (
            0.5 * jnp.sum((ctx.outputs[name].value - target) ** 2),
            turns + 1,
            {"turns": turns + 1, "t": step},
        )

    objective = Objective(lambda key, ctx: ((), jnp.zeros((), jnp.int32)), apply)
    return Player(vector(lambda key: jax.random.normal(key, (2,))), objective, optax.sgd(PULL[name]))


def by_hand(state, name, other, key, data):
    """One turn of `duel` in NumPy: returns the loss."""
    noise = jax.random.normal(jax.random.split(key, 3)[2], (2,))
    error = state[name] - (state[other] + data + 0.1 * np.asarray(noise))
    state[name] = state[name] - PULL[name] * error
    return 0.5 * np.sum(error**2)


PLAYERS = {"a": duel("a", "b"), "b": duel("b", "a")}
OTHER = {"a": "b", "b": "a"}
SHIFT = np.asarray([0.5, -0.2], np.float32)


def fight(plan, **more):
    return alternate(PLAYERS | more, plan, prepare=no_inputs("a", "b", *more))


def places(state):
    return {n: np.asarray(state[n].params[n], np.float64) for n in "ab"}


def turns(state):
    return [int(state[n].state["objective"]) for n in "ab"]


def test_cycle_takes_turns_over_steps():
    """The 10/40 scheme: only one player moves in a step, the metrics of the other are NaN."""
    alg = fight(cycle(a=10, b=40))
    state, rows = python_loop(alg, KEY, SHIFT, 65)
    hand = places(python_loop(alg, KEY, SHIFT, 0)[0])
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
    assert turns(state) == [20, 45]
    same(places(state), hand, rtol=1e-4, atol=1e-5)
    product = alg.result(state, SHIFT)
    assert set(product) == {"a", "b"}
    np.testing.assert_array_equal(product["b"]().value, state["b"].params["b"])


def test_sequence_takes_turns_within_a_step():
    alg = fight(sequence(a=5, b=1))
    state, rows = python_loop(alg, KEY, SHIFT, 4)
    hand = places(python_loop(alg, KEY, SHIFT, 0)[0])
    for t in range(4):
        key = jax.random.fold_in(jax.random.fold_in(KEY, 1), t)
        for k in jax.random.split(jax.random.fold_in(key, 0), 5):
            last = by_hand(hand, "a", "b", k, SHIFT)
        other = by_hand(hand, "b", "a", jax.random.fold_in(key, 1), SHIFT)
        np.testing.assert_allclose(rows[t]["a/loss"], last, rtol=1e-4)  # of the last of the five
        np.testing.assert_allclose(rows[t]["loss"], last + other, rtol=1e-4)
    assert turns(state) == [20, 4]
    same(places(state), hand, rtol=1e-4, atol=1e-5)


# --- players that do not descend -------------------------------------------------------------------

HALVED = Player(
    vector(lambda key: jnp.ones(2)), lambda ctx: 0.5 * jnp.sum(ctx.params["a"] ** 2), optax.sgd(0.5)
)
SLOW = Player(vector(lambda key: jnp.zeros(2)), update=follow("a", 0.9))


def test_a_follower_is_a_moving_average():
    """In both kinds of plan; it has no loss, which is zero and not NaN: nothing diverged."""
    players = {"a": HALVED, "slow": SLOW}
    prepare = no_inputs("a", "slow")
    alg = alternate(players, sequence(a=1, slow=2), prepare=prepare)
    state, rows = python_loop(alg, KEY, None, 3)
    slow = 0.0
    for a in (0.5, 0.25, 0.125):
        slow = 0.9 * (0.9 * slow + 0.1 * a) + 0.1 * a
    np.testing.assert_allclose(state["slow"].params["slow"], slow, rtol=1e-6)
    np.testing.assert_allclose([r["loss"] for r in rows], [r["a/loss"] for r in rows])

    state, rows = python_loop(alternate(players, cycle(a=1, slow=1), prepare=prepare), KEY, None, 4)
    np.testing.assert_allclose(state["slow"].params["slow"], 0.9 * 0.05 + 0.1 * 0.25, rtol=1e-6)
    assert [float(r["loss"]) for r in rows[1::2]] == [0.0, 0.0]

    equal = alternate(players, cycle(a=1), prepare=prepare, start=lambda data: {"slow": "a"})
    np.testing.assert_array_equal(python_loop(equal, KEY, None, 0)[0]["slow"].params["slow"], 1.0)


def test_a_follower_has_the_batch_statistics_of_the_other():
    players = {"model": Player(NOISY, mse, sgd()), "slow": Player(NOISY, update=follow("model", 0.5))}
    state, _ = python_loop(alternate(players, sequence(model=1, slow=1)), KEY, DATA, 3)
    stats = state["model"].state["model"]
    assert np.any(np.asarray(stats["batch_stats"]["norm"]["mean"]) != 0)
    same(state["slow"].state["slow"], stats)


def test_a_network_restarts():
    """New parameters in steps 0, 3, 6, of a key of its own each time; as they are in between."""
    players = {"a": HALVED, "net": Player(LINEAR, update=restart(3))}

    def prepare(key, t, data, batch):
        return data, {"a": (), "net": (X,)}

    alg = alternate(players, sequence(net=1, a=1), prepare=prepare)
    seen = []
    for steps in range(8):
        state, _ = python_loop(alg, KEY, DATA, steps)
        seen.append(np.asarray(state["net"].params["net"]["out"]["kernel"]))
    changed = [bool(np.any(a != b)) for a, b in pairwise(seen)]
    assert changed == [True, False, False, True, False, False, True]
    key = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(KEY, 1), 3), 0)
    fresh = LINEAR.init(jax.random.split(key, 3)[2], X)[0]
    np.testing.assert_allclose(seen[4], fresh["out"]["kernel"], rtol=1e-6)


def test_a_pool_advances():
    """The pattern of `Player`: one of three networks, at random, takes a step of gradient descent."""

    def begin(key, x):
        return jax.vmap(lambda k: LINEAR.init(k, x))(jax.random.split(key, 3))

    def advance(params, state, ctx, *, key, t):
        one = jax.random.randint(key, (), 0, 3)
        old = jax.tree.map(lambda leaf: leaf[one], params)
        grads = jax.grad(lambda p: jnp.mean((LINEAR.apply(p, {}, X)[0].value - ctx.batch.targets) ** 2))(old)
        new = jax.tree.map(lambda p, g: p - 0.1 * g, old, grads)
        return jax.tree.map(lambda leaf, value: leaf.at[one].set(value), params, new), state, {"one": one}

    model = Model(begin, lambda params, state, x, key=None, train=False: (Outputs(x), state))
    alg = alternate({"pool": Player(model, update=advance)}, cycle(pool=1))
    state, rows = python_loop(alg, KEY, DATA, 7)
    first = python_loop(alg, KEY, DATA, 0)[0]["pool"].params["pool"]
    count = np.bincount([int(r["pool/one"]) for r in rows], minlength=3)
    assert count.sum() == 7
    for member in range(3):
        w, b = (np.asarray(first["out"][n][member], np.float64) for n in ("kernel", "bias"))
        for _ in range(count[member]):
            error = X @ w + b - Y
            w, b = w - 0.1 * X.T @ (2 * error / error.size), b - 0.1 * (2 * error / error.size).sum(0)
        got = jax.tree.map(lambda leaf, i=member: leaf[i], state["pool"].params["pool"]["out"])
        same(got, {"kernel": w, "bias": b}, rtol=1e-4, atol=1e-5)


def test_a_player_without_turns_stays():
    idle = Player(vector(lambda key: jnp.full(2, 3.0)))
    state, rows = python_loop(fight(cycle(a=1, b=1), idle=idle), KEY, SHIFT, 2)
    np.testing.assert_array_equal(state["idle"].params["idle"], 3.0)
    assert not any(name.startswith("idle") for name in rows[0])


def test_plans_that_make_no_sense():
    with pytest.raises(ValueError, match=r"the plan names \['c'\], the players are \['a', 'b'\]"):
        alternate(PLAYERS, cycle(a=1, c=1))
    with pytest.raises(ValueError, match="no players"):
        alternate(PLAYERS, cycle())
    with pytest.raises(ValueError, match="at least 1"):
        alternate(PLAYERS, sequence(a=0, b=1))
    a = PLAYERS["a"]
    for broken in (Player(a.model), Player(a.model, a.objective), a._replace(update=restart())):
        with pytest.raises(ValueError, match="'a' takes turns: it needs an objective and a tx, or an update"):
            alternate({"a": broken}, cycle(a=1))
    with pytest.raises(ValueError, match="a name of its own, got a, a"):
        alternate({"a": a, "b": Player({"a": LINEAR}, mse, sgd())}, cycle(a=1))
    with pytest.raises(ValueError, match='names other than "objective"'):
        alternate({"objective": a}, cycle(objective=1))


def test_players_without_inputs():
    alg = alternate(PLAYERS, cycle(a=1, b=1), prepare=no_inputs("a"))
    with pytest.raises(ValueError, match="prepare must return inputs of every player, b has none"):
        alg.init(KEY, SHIFT, None)
    bare = train(
        LINEAR,
        lambda ctx: jnp.sum(ctx.outputs["teacher"].value),
        sgd(),
        frozen=lambda data: {"teacher": bind(LINEAR, *LINEAR.init(KEY, X))},
    )
    with pytest.raises(ValueError, match=r"of teacher, prepare returns no inputs: use ctx\.call"):
        python_loop(bare, KEY, DATA, 1)


# --- one language: what holds for train holds for players ------------------------------------------


def blurred(names):
    def prepare(key, t, data, batch):
        batch = data if batch is None else batch
        x = batch.inputs[0] + 0.1 * jax.random.normal(key, batch.inputs[0].shape)
        return batch, dict.fromkeys(names, (x,))

    return prepare


def scaled_mse(player):
    """With a parameter and a state of its own, both begun from the context."""

    def init(key, ctx):
        return jax.random.normal(key, (2,)), jnp.mean(ctx.outputs[player].value)

    def apply(scale, seen, ctx, *, key, step):
        out = ctx.outputs[player].value
        value = jnp.mean((out * scale + 0.1 * jax.random.normal(key, (2,)) - ctx.batch.targets) ** 2)
        teacher = ctx.outputs["teacher"].value if "teacher" in ctx.outputs else 0.0
        return value + jnp.mean((out - teacher) ** 2), 0.9 * seen + jnp.mean(out), {"seen": seen}

    return Objective(init, apply)


@pytest.mark.parametrize("plan", [cycle(model=1), sequence(model=1)])
def test_train_is_the_case_of_one_player(plan):
    """To the bit: dropout, batch statistics, mini-batches, a frozen teacher, parameters of the objective."""
    teacher = bind(NOISY, *jax.jit(NOISY.init)(jax.random.key(7), X))
    settings = {"prepare": blurred(("model", "teacher")), "frozen": lambda data: {"teacher": teacher}}
    tx, order = optax.adam(1e-2), np.random.default_rng(0).permuted(np.tile(np.arange(24), (5, 1)), axis=1)

    def batch_at(t):
        return Examples((X[order[t][:8]],), Y[order[t][:8]])

    alone = train(NOISY, scaled_mse("model"), tx, **settings)
    player = alternate({"model": Player(NOISY, scaled_mse("model"), tx)}, plan, **settings)
    one, rows = python_loop(alone, KEY, DATA, 5, batch_at)

    state, step = jax.jit(player.init)(jax.random.fold_in(KEY, 0), DATA, batch_at(0)), jax.jit(player.step)
    if plan != cycle(model=1):
        one, single = jax.jit(alone.init)(jax.random.fold_in(KEY, 0), DATA, batch_at(0)), jax.jit(alone.step)
    for t in range(5):
        key = jax.random.fold_in(jax.random.fold_in(KEY, 1), t)
        state, metrics = step(key, np.int32(t), state, DATA, batch_at(t))
        if plan != cycle(model=1):
            one, rows[t] = single(jax.random.fold_in(key, 0), np.int32(t), one, DATA, batch_at(t))
        same({f"model/{n}": v for n, v in rows[t].items()} | {"loss": rows[t]["loss"]}, metrics)
    same(state, {"model": one})
    same(player.result(state, DATA)["model"], alone.result(one, DATA))


@pytest.mark.long
def test_several_networks_of_one_player():
    """Peers share a step and its loss in a player as in `train`."""

    def peers(ctx):
        a, b = (ctx.outputs[n].value for n in ("a", "b"))
        return jnp.mean((a - ctx.batch.targets) ** 2) + jnp.mean((b - jax.lax.stop_gradient(a)) ** 2)

    nets = {"a": NOISY, "b": LINEAR}
    one, _ = python_loop(train(nets, peers, sgd()), KEY, DATA, 3)
    alg = alternate({"both": Player(nets, peers, sgd())}, cycle(both=1))
    state, _ = python_loop(alg, KEY, DATA, 3)
    same(state, {"both": one})
    assert set(alg.result(state, DATA)["both"]) == {"a", "b"}

    def swap(params, state, ctx, *, key, t):
        return {"c": params["d"], "d": params["c"]}, state, {"gap": jnp.sum(ctx.params["c"] - params["c"])}

    twins = Player({n: vector(lambda key: jax.random.normal(key, (2,))) for n in "cd"}, update=swap)
    alg = alternate({"twins": twins}, cycle(twins=1), prepare=no_inputs("c", "d"))
    first, last = (python_loop(alg, KEY, None, t)[0]["twins"].params for t in (0, 1))
    same((first["c"], first["d"]), (last["d"], last["c"]))
    assert np.any(first["c"] != first["d"])


def test_a_player_without_turns_is_a_frozen_teacher():
    """An objective is the same whether its teacher is frozen or plays; it sees both in evaluation mode."""
    teacher = bind(NOISY, *jax.jit(NOISY.init)(jax.random.key(7), X))

    def loss(ctx):
        again = ctx.call["teacher"](*ctx.batch.inputs).value
        return jnp.mean((ctx.outputs["model"].value - (ctx.outputs["teacher"].value + again) / 2) ** 2)

    settings = {"prepare": blurred(("model", "teacher"))}
    frozen, _ = python_loop(
        train(LINEAR, loss, sgd(), frozen=lambda data: {"teacher": teacher}, **settings), KEY, DATA, 3
    )
    players = {"model": Player(LINEAR, loss, sgd()), "teacher": Player(NOISY)}
    own = LINEAR.init(jax.random.split(jax.random.fold_in(KEY, 0), 3)[0], X)
    start = {"teacher": (teacher.params, teacher.state), "model": own}
    alg = alternate(players, cycle(model=1), start=lambda data: start, **settings)
    state, _ = python_loop(alg, KEY, DATA, 3)
    same(state["model"].params, frozen.params, rtol=1e-5, atol=1e-6)
    same(state["teacher"].params["teacher"], teacher.params)
    same(state["teacher"].state["teacher"], teacher.state)


def test_only_the_own_parameters_move():
    """Whatever an objective does with the others: their parameters and batch statistics stay."""

    def greedy(ctx):
        other = jnp.sum(ctx.outputs["b"].value) + jnp.sum(ctx.call["b"](X).value)
        return (
            other
            + sum(jnp.sum(p) for p in jax.tree.leaves(ctx.params["b"]))
            + jnp.sum(ctx.outputs["a"].value)
        )

    def own(ctx):
        return jnp.mean((ctx.outputs["b"].value - ctx.batch.targets) ** 2)

    players = {"a": Player(NOISY, greedy, sgd()), "b": Player(NOISY, own, sgd())}
    alg = alternate(players, cycle(a=1, b=1))
    first, last = (python_loop(alg, KEY, DATA, t)[0] for t in (0, 1))
    same(first["b"], last["b"])
    assert np.any(first["a"].params["a"]["out"]["kernel"] != last["a"].params["a"]["out"]["kernel"])
    with pytest.raises(ValueError, match="names a player 'model', the players are"):
        python_loop(alternate(players | {"b": Player(NOISY, mse, sgd())}, cycle(a=1, b=1)), KEY, DATA, 1)


def test_start():
    """Given parameters, copied; the objective's own begin from them."""
    given = LINEAR.init(jax.random.key(5), X)
    alg = train(
        LINEAR, scaled_mse("model"), optax.adam(1e-2), start=lambda data: {"model": data[1]}, prepare=first_of
    )
    state, _ = python_loop(alg, KEY, (DATA, given), 0)
    same(state.params["model"], given[0])
    expected = np.mean(X @ np.asarray(given[0]["out"]["kernel"]) + np.asarray(given[0]["out"]["bias"]))
    np.testing.assert_allclose(state.state["objective"], expected, rtol=1e-4)
    random, _ = python_loop(train(LINEAR, scaled_mse("model"), optax.adam(1e-2)), KEY, DATA, 0)
    np.testing.assert_array_equal(state.params["objective"], random.params["objective"])  # of the same key
    with pytest.raises(ValueError, match="start names student, the players are model"):
        python_loop(train(LINEAR, mse, sgd(), start=lambda data: {"student": given}), KEY, DATA, 0)


def first_of(key, t, data, batch):
    return data[0], {"model": data[0].inputs}


class Counted(nn.Module):
    """Says how often it was traced."""

    calls: ClassVar[list] = []

    @nn.compact
    def __call__(self, x, train=False):
        Counted.calls.append(train)
        return nn.Dense(2)(x)


def test_outputs_are_computed_when_they_are_read():
    """Never, once, or in an inner scan as well, where the value must not leave it."""
    frozen = bind(from_linen(Counted()), *from_linen(Counted()).init(KEY, X))

    def calls(loss):
        settings = {"prepare": blurred(("model", "teacher")), "frozen": lambda data: {"teacher": frozen}}
        alg = train(LINEAR, loss, sgd(), **settings)
        state = jax.eval_shape(alg.init, KEY, DATA, None)
        Counted.calls.clear()
        step = jax.jit(alg.step).lower(KEY, np.int32(0), state, DATA, None)
        del step
        return len(Counted.calls)

    def read(ctx):
        return jnp.mean(ctx.outputs["teacher"].value) + jnp.mean(ctx.outputs["model"].value)

    never = calls(lambda ctx: jnp.mean(ctx.outputs["model"].value))
    once = calls(read)
    assert (never, calls(lambda ctx: read(ctx) + 2 * read(ctx))) == (0, once)

    def within(ctx):
        inner = jax.lax.scan(lambda total, _: (total + read(ctx), None), jnp.zeros(()), None, 2)[0]
        return inner + read(ctx)

    assert calls(within) > once
    assert set(Counted.calls) == {False}


# --- distribution matching -------------------------------------------------------------------------

MODES, WEIGHTS, SPREAD = np.asarray([-2.0, 1.5]), np.asarray([0.35, 0.65]), 0.4


def denoised(x, sigma):
    """``E[x0 | x0 + sigma e = x]`` of the mixture: its score in closed form, by Tweedie's formula."""
    variance = SPREAD**2 + sigma**2
    log_p = jnp.log(WEIGHTS) - 0.5 * (x - MODES) ** 2 / variance
    return jnp.sum(
        jax.nn.softmax(log_p, -1) * (MODES * sigma**2 + x * SPREAD**2) / variance, -1, keepdims=True
    )


class OneNet(nn.Module):
    """A denoiser ``E[x0 | x]`` of a point and its noise level, or a generator of noise alone."""

    @nn.compact
    def __call__(self, x, sigma=None, train=False):
        if sigma is None:
            return 2 * x + nn.Dense(1)(nn.relu(nn.Dense(24)(x)))
        scale = jnp.sqrt(1 + sigma**2)
        h = jnp.concatenate([x / scale, jnp.log(sigma)], -1)
        for _ in range(2):
            h = nn.relu(nn.Dense(24)(h))
        return x / scale**2 + nn.Dense(1)(h) * sigma / scale


def draw_noise(key, t, data, batch):
    k_z, k_sigma, k_noise = jax.random.split(key, 3)
    sigma = jnp.exp(jax.random.uniform(k_sigma, (128, 1), minval=np.log(0.1), maxval=np.log(3.0)))
    noise = sigma * jax.random.normal(k_noise, (128, 1))
    return (sigma, noise), {"generator": (jax.random.normal(k_z, (128, 1)),), "fake": (noise, sigma)}


def denoising(ctx):
    sigma, noise = ctx.batch
    x = ctx.outputs["generator"].value
    return jnp.mean(((ctx.call["fake"](x + noise, sigma).value - x) / sigma) ** 2)


def matching(ctx):
    """The gradient of KL(samples | mixture), both blurred: fake minus real score, times sigma squared."""
    sigma, noise = ctx.batch
    x = ctx.outputs["generator"].value
    gap = ctx.call["fake"](x + noise, sigma).value - denoised(x + noise, sigma)
    return jnp.mean(jax.lax.stop_gradient(gap) * x)


@pytest.mark.long
def test_distribution_matching():
    """DMD: a one-step generator becomes the mixture only if the score of its samples is learned with it."""
    net = from_linen(OneNet())

    def pair(rate):  # a rate of zero freezes the score as it began
        fake = Player(net, denoising, optax.adam(rate))
        generator = Player(net, matching, optax.adam(5e-3))
        players = {"fake": fake, "generator": generator}
        return alternate(players, sequence(fake=5, generator=1), prepare=draw_noise)

    alg = ensemble(sweep(pair, rate=jnp.asarray([5e-3, 0.0])), 3)
    generators = in_memory("match", alg, jax.random.key(1), jnp.zeros(()), 300)["generator"]
    p = (np.arange(4000) + 0.5) / 4000
    z = jnp.asarray(norm.ppf(p)[:, None], jnp.float32)
    x = jax.vmap(jax.vmap(lambda net: net(z).value[:, 0]))(generators)
    x = np.sort(np.asarray(x, np.float64), axis=-1)
    grid = np.linspace(-6, 6, 20001)
    parts = zip(WEIGHTS, MODES, strict=True)
    exact = np.interp(p, sum(w * norm.cdf(grid, m, SPREAD) for w, m in parts), grid)
    learned, fixed = np.mean(np.abs(x - exact), axis=-1).T  # Wasserstein distances of each seed
    assert learned.max() < 0.4
    assert fixed.min() > 4 * learned.max()
    good, mean = x[:, 0], WEIGHTS @ MODES
    np.testing.assert_allclose(good.mean(1), mean, atol=0.3)
    np.testing.assert_allclose(good.var(1), SPREAD**2 + WEIGHTS @ MODES**2 - mean**2, rtol=0.2)
    np.testing.assert_allclose(np.mean(good < -0.25, axis=1), WEIGHTS[0], atol=0.1)  # both modes


@pytest.mark.parametrize("which", ["train", "cycle", "sequence"])
def test_one_export_for_all_platforms(which):
    if which == "train":
        alg, data = train(NOISY, objective(mse), optax.adam(1e-2)), DATA
    else:
        plan, again = {"cycle": cycle, "sequence": sequence}[which], SLOW._replace(update=restart(2))
        alg, data = fight(plan(a=2, b=1, slow=1, new=1), slow=SLOW, new=again), SHIFT
    state = jax.eval_shape(alg.init, KEY, data, None)
    t = jax.ShapeDtypeStruct((), jnp.int32)
    exported = jax.export.export(jax.jit(alg.step), platforms=["cpu", "cuda", "tpu"])(
        KEY, t, state, data, None
    )
    assert exported.platforms == ("cpu", "cuda", "tpu")
    if which == "train":
        args = (KEY, np.int32(0), jax.jit(alg.init)(KEY, data, None), data, None)
        same(exported.call(*args), jax.jit(alg.step)(*args), rtol=1e-6, atol=1e-7)
