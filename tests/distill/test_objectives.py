"""The methods of distillation as objectives: what they learn, remember and leave alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from distill_toy import NET, TALL, TASK, TX, blobs, random_teacher

from jgd import distill, losses
from jgd.core import Context, Examples, Outputs, from_linen, weighted
from jgd.distill import _crd as crd
from jgd.distill import _lelp as lelp
from jgd.distill import _logits as logits
from jgd.distill import _mi_alpha as mi_alpha
from jgd.distill import _trg as trg
from jgd.distill.data import source
from jgd.distill.recipes import offline, online, scratch
from jgd.distill.terms import supervised
from jgd.nn import Perceptron

KEY = jax.random.key(0)
TEACHER = random_teacher()


def as_tokens(net):
    """A perceptron whose hidden layer counts as two tokens of four numbers."""
    model = from_linen(net)

    def apply(params, state, *inputs, key=None, train=False):
        out, state = model.apply(params, state, *inputs, key=key, train=train)
        return out._replace(
            taps={**out.taps, "tokens": out.taps["layer1"].reshape(-1, 2, net.hidden[0] // 2)}
        ), state

    return model._replace(apply=apply)


def context(student, teacher, *, data=None, index=None, targets=None, weights=None):
    rows = student.logits.shape[0]
    targets = jnp.arange(rows) % 3 if targets is None else targets
    return Context(
        {"model": student, "teacher": teacher}, {}, {}, Examples((), targets, weights, index), data
    )


def outputs(seed, rows=12, width=4, tokens=None):
    k1, k2 = jax.random.split(jax.random.key(seed))
    taps = {} if tokens is None else {"tokens": jax.random.normal(k2, (rows, *tokens))}
    return Outputs(jax.random.normal(k1, (rows, 3)), jax.random.normal(k2, (rows, width)), taps)


def value(objective, ctx, key=KEY, step=0):
    params, state = objective.init(key, ctx)
    return objective.apply(params, state, ctx, key=key, step=jnp.asarray(step))


# --- logits -------------------------------------------------------------------------------------

PRESETS = {
    "hinton": (logits.hinton(), lambda s, t, y: 0.1 * losses.cross_entropy(s, y) + 0.9 * losses.kd(s, t)),
    "dkd": (logits.dkd(), lambda s, t, y: losses.cross_entropy(s, y) + losses.dkd_loss(s, t, y)),
    "nkd": (logits.nkd(), lambda s, t, y: losses.cross_entropy(s, y) + losses.nkd_loss(s, t, y)),
    "pld": (logits.pld(), lambda s, t, y: losses.pld_loss(s, t, y, temperature=4.0)),
    "mix_kd": (logits.mix_kd(), lambda s, t, y: losses.mix_kd_loss(s, t, y)),
    "standardized": (
        logits.standardized(),
        lambda s, t, y: (
            0.1 * losses.cross_entropy(s, y)
            + 9 * losses.kd(s, t, temperature=2.0, transform=losses.standardize)
        ),
    ),
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_their_formulas(name):
    objective, formula = PRESETS[name]
    s, t = outputs(0), outputs(1)
    ctx = context(s, t)
    expected = jnp.mean(formula(s.logits, t.logits, ctx.batch.targets))
    np.testing.assert_allclose(value(objective, ctx)[0], expected, rtol=1e-5)


def test_dist_is_cross_entropy_and_twice_both_correlations():
    s, t = outputs(0), outputs(1)
    ctx = context(s, t)
    expected = jnp.mean(losses.cross_entropy(s.logits, ctx.batch.targets)) + 2 * losses.dist_loss(
        s.logits, t.logits, temperature=4.0
    )
    np.testing.assert_allclose(value(logits.dist(), ctx)[0], expected, rtol=1e-5)


def test_dkd_warms_up():
    s, t = outputs(0), outputs(1)
    ctx = context(s, t)
    hard = jnp.mean(losses.cross_entropy(s.logits, ctx.batch.targets))
    full = value(logits.dkd(warm_up=10), ctx, step=9)[0] - hard
    half = value(logits.dkd(warm_up=10), ctx, step=4)[0] - hard
    np.testing.assert_allclose(half, full / 2, rtol=1e-4)


@pytest.mark.long
def test_the_temperature_of_ctkd_climbs_where_its_gradient_is_reversed():
    """Descending the objective must raise the loss in the temperature, once the reversal is whole."""
    s, t = (x._replace(value=20 * x.logits) for x in (outputs(0), outputs(1)))
    ctx = context(s, t)
    objective = logits.ctkd(hard=0.0, soft=1.0, ramp_steps=10)

    def at(theta, step):
        return objective.apply(theta, (), ctx, key=KEY, step=jnp.asarray(step))[0]

    theta = jnp.asarray(1.0)
    slope = (at(theta + 0.05, 100) - at(theta - 0.05, 100)) / 0.1
    np.testing.assert_allclose(jax.grad(at)(theta, 100), -slope, rtol=2e-2)
    np.testing.assert_allclose(jax.grad(at)(theta, 0), 0, atol=1e-7)


def test_bd_kd_with_even_weights_is_jeffreys_divergence():
    s, t = outputs(0), outputs(1)
    ctx = context(s, t)
    _, _, metrics = value(logits.bd_kd(delta=1.0, temperature=3.0), ctx)
    log_p, log_q = (jax.nn.log_softmax(x.logits / 3) for x in (t, s))
    expected = 9 * jnp.mean(losses.kl(log_p, log_q) + losses.kl(log_q, log_p))
    np.testing.assert_allclose(metrics["balanced"], expected, rtol=1e-5)


def test_bd_kd_separates_student_and_teacher():
    """The gradient of the whole is that of each loss in its own network's outputs."""
    s, t = outputs(0), outputs(1)
    objective = logits.bd_kd()

    def total(s_logits, t_logits):
        ctx = context(s._replace(value=s_logits), t._replace(value=t_logits))
        return value(objective, ctx)[0]

    def student(s_logits):
        y = jnp.arange(12) % 3
        each = losses.cross_entropy(s_logits, y) + losses.bd_kd_loss(s_logits, t.logits)
        return jnp.mean(each)

    def teacher(t_logits):
        y = jnp.arange(12) % 3
        return jnp.mean(losses.cross_entropy(t_logits, y) + losses.peer(t_logits, s.logits, temperature=3.0))

    ours = jax.grad(total, argnums=(0, 1))(s.logits, t.logits)
    np.testing.assert_allclose(ours[0], jax.grad(student)(s.logits), atol=1e-6)
    np.testing.assert_allclose(ours[1], jax.grad(teacher)(t.logits), atol=1e-6)


@pytest.mark.parametrize("ensemble", ["mean", "best", "linear", "min"])
def test_kdcl_teaches_every_peer_by_the_ensemble(ensemble):
    a, b = outputs(0), outputs(1)
    ctx = Context({"a": a, "b": b}, {}, {}, Examples((), jnp.arange(12) % 3))
    total, _, metrics = value(logits.kdcl(("a", "b"), ensemble=ensemble), ctx)
    assert float(metrics["ensemble"]) > 0
    np.testing.assert_allclose(total, metrics["a/hard"] + metrics["b/hard"] + metrics["ensemble"], rtol=1e-5)


def test_equal_peers_have_nothing_to_learn_from_their_mean():
    same = outputs(0)
    ctx = Context({"a": same, "b": same}, {}, {}, Examples((), jnp.arange(12) % 3))
    np.testing.assert_allclose(
        value(logits.kdcl(("a", "b"), ensemble="mean"), ctx)[2]["ensemble"], 0, atol=1e-6
    )


def test_an_ensemble_needs_two():
    with pytest.raises(ValueError, match="at least two"):
        logits.kdcl(("a",))


WEIGHED = {
    "kdcl mean": logits.kdcl(("model", "teacher"), ensemble="mean"),
    "kdcl best": logits.kdcl(("model", "teacher"), ensemble="best"),
    "kdcl linear": logits.kdcl(("model", "teacher"), ensemble="linear"),
    "kdcl min": logits.kdcl(("model", "teacher"), ensemble="min"),
    "ctkd": logits.ctkd(),
    "bd_kd": logits.bd_kd(),
    "dist": logits.dist(),
    "mix_kd": logits.mix_kd(),
    "pld": logits.pld(),
    "mi_alpha": mi_alpha.mi_alpha(width=3, hidden=(5,)),
}


@pytest.mark.parametrize("name", WEIGHED)
def test_examples_of_weight_zero_have_no_say(name):
    """Neither their outputs nor their labels change the loss."""
    objective = WEIGHED[name]
    weights = jnp.asarray([0.0, 2, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1])
    s, t = outputs(0), outputs(1)
    out = weights == 0

    def changed(x):
        return jax.tree.map(lambda v: jnp.where(out.reshape(-1, *(1,) * (v.ndim - 1)), 5 - 3 * v, v), x)

    y = jnp.arange(12) % 3
    targets = jnp.where(out, (y + 1) % 3, y)

    @jax.jit
    def run(s, t, y):
        return value(objective, context(s, t, targets=y, weights=weights))[0]

    np.testing.assert_allclose(run(changed(s), changed(t), targets), run(s, t, y), rtol=1e-5)
    other = t._replace(value=t.logits.at[1].multiply(-2), embedding=t.embedding.at[1].multiply(-2))
    assert abs(float(run(s, other, y)) - float(run(s, t, y))) > 1e-6


# --- CRD ----------------------------------------------------------------------------------------


def crd_context(s, t, index):
    data = source(KEY, TASK, {}, {})
    return context(s, t, data=data, index=index, targets=data.train.targets[index])


@pytest.mark.long
def test_banks_hold_unit_vectors_of_the_examples_that_were_seen():
    index = jnp.arange(12)
    ctx = crd_context(outputs(0), outputs(1, width=6), index)
    objective = crd.crd(dim=8, negatives=5)
    params, (banks, norms, by_class) = objective.init(KEY, ctx)
    assert np.isnan(norms).all()
    _, (later, found, _), _ = objective.apply(params, (banks, norms, by_class), ctx, key=KEY, step=0)
    for old, new in zip(banks, later, strict=True):
        np.testing.assert_allclose(jnp.linalg.norm(new[:12], axis=1), 1, rtol=1e-5)
        np.testing.assert_array_equal(old[12:], new[12:])
    assert np.isfinite(found).all()
    again = objective.apply(params, (later, found, by_class), ctx, key=jax.random.key(5), step=1)[1][1]
    np.testing.assert_array_equal(found, again)


def embedded(params, x):
    """``unit(W x + b)`` in float64."""
    bias, kernel = (np.asarray(p, np.float64) for p in jax.tree.leaves(params))
    e = np.asarray(x, np.float64) @ kernel + bias
    return e / np.linalg.norm(e, axis=1, keepdims=True)


@pytest.mark.long
@pytest.mark.parametrize("momentum", [0.0, 0.2, 1.0])
def test_banks_keep_the_share_of_the_past_that_momentum_says(momentum):
    """``unit(m M + (1 - m) e)``, each bank with its own network's embedding."""
    index = jnp.asarray([3, 0, 7, 11, 20, 21, 30, 31, 1, 2, 4, 5])
    ctx = crd_context(outputs(0), outputs(1, width=6), index)
    objective = crd.crd(dim=8, negatives=5, momentum=momentum)
    params, state = objective.init(KEY, ctx)
    later = objective.apply(params, state, ctx, key=KEY, step=0)[1][0]
    for p, x, old, new in zip(params, ("model", "teacher"), state[0], later, strict=True):
        e, past = embedded(p, ctx.outputs[x].embedding), np.asarray(old, np.float64)[index]
        moved = momentum * past + (1 - momentum) * e
        moved /= np.linalg.norm(moved, axis=1, keepdims=True)
        np.testing.assert_allclose(new[index], moved, atol=1e-6)
        rest = np.setdiff1d(np.arange(len(old)), index)
        np.testing.assert_array_equal(new[rest], old[rest])


def test_negatives_are_drawn_evenly_from_all_other_classes():
    """Of classes of sizes 1, 2, 5 and two examples of unknown class, which are in no class but their own."""
    labels = jnp.asarray([2, 0, 2, -1, 1, 2, 1, 2, -1, 2])
    draws = 3000
    drawn = np.asarray(crd.draw_others(KEY, crd.groups(labels), jnp.arange(10), draws))
    for i, row in enumerate(drawn):
        own = np.asarray(labels) == labels[i] if labels[i] >= 0 else np.arange(10) == i
        share = np.bincount(row, minlength=10) / draws
        assert not share[own].any()
        even = 1 / (~own).sum()
        np.testing.assert_allclose(share[~own], even, atol=5 * np.sqrt(even / draws))


def test_crd_of_one_class_is_not_a_number():
    ctx = crd_context(outputs(0), outputs(1), jnp.arange(12))
    targets = jnp.zeros_like(ctx.examples.train.targets)
    ctx = ctx._replace(examples=ctx.examples._replace(train=ctx.examples.train._replace(targets=targets)))
    assert np.isnan(value(crd.crd(negatives=3), ctx)[0])
    unlabelled = ctx._replace(examples=ctx.examples._replace(train=ctx.examples.train._replace(targets=None)))
    assert np.isfinite(value(crd.crd(negatives=3), unlabelled)[0])


@pytest.mark.parametrize("wrong", [{"dim": 0}, {"negatives": 0}, {"temperature": 0.0}, {"momentum": 1.5}])
def test_settings_of_crd_have_a_range(wrong):
    with pytest.raises(ValueError, match="must be"):
        crd.crd(**wrong)


def test_one_negative_is_the_two_term_formula():
    """In float64, with another bank, norm and embedding on each side; the negative is of another class."""
    index = jnp.arange(12)
    ctx = crd_context(outputs(0), outputs(1, width=6), index)
    objective = crd.crd(dim=8, negatives=1, temperature=0.5)
    params, (banks, _, by_class) = objective.init(KEY, ctx)
    norms = jnp.asarray([2.0, 3.0])
    value = objective.apply(params, (banks, norms, by_class), ctx, key=KEY, step=0)[0]
    labels = np.asarray(source(KEY, TASK, {}, {}).train.targets)
    n = len(labels)
    drawn = np.asarray(crd.draw_others(KEY, by_class, index, 1))[:, 0]
    assert (labels[drawn] != labels[:12]).all()
    total = 0.0
    for side, (x, bank) in enumerate((("model", banks[1]), ("teacher", banks[0]))):
        e, bank = embedded(params[side], ctx.outputs[x].embedding), np.asarray(bank, np.float64)
        pos = np.exp((e * bank[:12]).sum(1) / 0.5 - float(norms[side]))
        neg = np.exp((e * bank[drawn]).sum(1) / 0.5 - float(norms[side]))
        c = 1 / n
        total += np.mean(-np.log(pos / (pos + c + 1e-7)) - np.log(c / (neg + c + 1e-7)))
    np.testing.assert_allclose(value, total, rtol=1e-4)


def test_crd_needs_an_index_and_all_examples():
    ctx = crd_context(outputs(0), outputs(1), jnp.arange(12))
    objective = crd.crd(negatives=3)
    params, state = objective.init(KEY, ctx)
    blind = ctx._replace(batch=ctx.batch._replace(index=None))
    with pytest.raises(ValueError, match="index"):
        objective.apply(params, state, blind, key=KEY, step=0)
    with pytest.raises(ValueError, match="all training examples"):
        objective.init(KEY, ctx._replace(examples=None))


# --- MI-α ---------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_bound_is_that_of_its_critics():
    s, t = outputs(0), outputs(1, width=6)
    ctx = context(s, t)
    objective = mi_alpha.mi_alpha(alpha=0.5, width=5, hidden=(7,))
    params, state = objective.init(KEY, ctx)
    loss, _, metrics = objective.apply(params, state, ctx, key=KEY, step=0)

    def net(p, x):
        d = p["Dense_0"], p["Dense_1"]
        return np.maximum(x @ d[0]["kernel"] + d[0]["bias"], 0) @ d[1]["kernel"] + d[1]["bias"]

    f = net(params["h"], t.embedding) @ net(params["g"], s.embedding).T
    q = net(params["q"], t.embedding)[:, 0]
    np.testing.assert_allclose(-loss, losses.mi_alpha_bound(f, q, alpha=0.5), rtol=1e-4)
    np.testing.assert_allclose(metrics["bound"], -loss)


@pytest.mark.long
def test_hidden_states_of_tokens_are_averaged():
    s, t = outputs(0, tokens=(3, 4)), outputs(1, tokens=(3, 4))
    by_token = mi_alpha.mi_alpha(at="tokens", width=5, hidden=(7,))
    by_mean = mi_alpha.mi_alpha(at=lambda out: out.taps["tokens"].mean(1), width=5, hidden=(7,))
    np.testing.assert_allclose(value(by_token, context(s, t))[0], value(by_mean, context(s, t))[0], rtol=1e-5)


@pytest.mark.long
def test_information_is_found_where_there_is_some():
    """Critics learn more from a student that knows its teacher than from one that does not."""
    rng = np.random.default_rng(0)

    def learned(dependent):
        objective, tx = mi_alpha.mi_alpha(alpha=0.9, width=8, hidden=(32,)), optax.adam(3e-3)
        y = rng.standard_normal((400, 32, 3)).astype(np.float32)
        x = y + 0.3 * rng.standard_normal(y.shape) if dependent else rng.standard_normal(y.shape)
        x = x.astype(np.float32)

        def ctx(x, y):
            return context(Outputs(jnp.zeros((32, 3)), x), Outputs(jnp.zeros((32, 3)), y))

        params, _ = objective.init(KEY, ctx(x[0], y[0]))

        def step(carry, xy):
            params, state = carry
            loss, grads = jax.value_and_grad(lambda p: objective.apply(p, (), ctx(*xy), key=KEY, step=0)[0])(
                params
            )
            updates, state = tx.update(grads, state)
            return (optax.apply_updates(params, updates), state), -loss

        _, bounds = jax.lax.scan(step, (params, tx.init(params)), (x, y))
        return float(bounds[-50:].mean())

    assert learned(True) > 1.0
    assert learned(False) < 0.1


# --- TRG ----------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_student_with_the_teachers_tokens_has_no_relation_to_learn():
    same = outputs(0, tokens=(4, 5))
    _, _, parts = value(trg.trg(drawn=2, neighbours=3), context(same, same))
    np.testing.assert_allclose([parts["inner"], parts["local"]], 0, atol=1e-6)
    assert float(parts["across"]) > 0


@pytest.mark.long
def test_weights_and_the_temperature_follow_the_step():
    ctx = context(outputs(0, tokens=(4, 5)), outputs(1, tokens=(4, 6)))
    off = trg.trg(drawn=2, neighbours=3, inner=0.0, local=0.0, across=lambda step: 0.0 * step)
    np.testing.assert_array_equal(value(off, ctx)[0], 0)
    early, late = (value(trg.trg(drawn=2, neighbours=3), ctx, step=s)[2]["across"] for s in (0, 5000))
    assert float(late) > float(early)  # a random projection is punished more where it is colder


def test_maps_of_different_sizes_need_a_grid():
    s, t = jnp.ones((2, 4, 4, 3)), jnp.ones((2, 8, 8, 5))
    assert trg.tokens(t, (4, 4)).shape == (2, 16, 5)
    ctx = context(outputs(0, 2)._replace(taps={"tokens": s}), outputs(1, 2)._replace(taps={"tokens": t}))
    with pytest.raises(ValueError, match="set grid"):
        trg.trg().init(KEY, ctx)
    with pytest.raises(ValueError, match=r"\[B, N, D\]"):
        trg.tokens(jnp.ones((2, 3)))


# --- LELP ---------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_head_of_a_network_is_found_from_its_outputs():
    out = TEACHER(TASK.x)
    kernel = TEACHER.params["Dense_2"]["kernel"]
    alive = np.asarray(out.embedding).std(0) > 1e-6
    np.testing.assert_allclose(lelp.head(out.embedding, out.logits)[alive], kernel[alive], atol=1e-3)


@pytest.mark.long
def test_a_student_of_subclasses_answers_with_classes():
    model = lelp.subclassed(Perceptron(6, (8,)), 3, temperature=2.0)
    params, state = model.init(KEY, TASK.x[:2])
    out, _ = model.apply(params, state, TASK.x[:5])
    u = out.taps["subclasses"].reshape(5, 3, 2)
    np.testing.assert_allclose(
        jax.nn.softmax(out.logits / 2),
        jax.nn.softmax(u.reshape(5, 6) / 2).reshape(5, 3, 2).sum(-1),
        rtol=1e-5,
    )


@pytest.mark.long
def test_lelp_fits_once_and_its_targets_are_those_of_the_teacher():
    teacher = scratch(TALL, TX, steps=60, batch=20)(KEY, TASK)
    recipe = offline(
        lelp.subclassed(Perceptron(6, (16,)), 3), teacher, lelp.lelp(subclasses=2), TX, steps=150, batch=20
    )
    student = recipe(KEY, TASK)
    agree = np.mean(np.argmax(student(TASK.x).logits, -1) == np.argmax(teacher(TASK.x).logits, -1))
    assert agree > 0.9
    with pytest.raises(ValueError, match="subclassed"):
        offline(NET, teacher, lelp.lelp(subclasses=2), TX, steps=1, batch=20)(KEY, TASK)


# --- all of them --------------------------------------------------------------------------------

LEARNERS = {
    "crd": weighted(ce=(1.0, supervised()), crd=(0.8, crd.crd(dim=6, negatives=4))),
    "mi_alpha": weighted(ce=(1.0, supervised()), mi=(0.1, mi_alpha.mi_alpha(width=4, hidden=(8,)))),
    "trg": weighted(ce=(1.0, supervised()), trg=(0.1, trg.trg(drawn=1, neighbours=3))),
    "ctkd": logits.ctkd(ramp_steps=10),
    "pld": logits.pld(),
}


@pytest.mark.long
@pytest.mark.parametrize("name", LEARNERS)
def test_students_learn_with(name):
    teacher = as_tokens(TALL)
    teacher = distill.scratch(teacher, TX, steps=60, batch=20)(KEY, TASK)
    student = offline(as_tokens(NET), teacher, LEARNERS[name], optax.adam(2e-2), steps=120, batch=20)(
        KEY, TASK
    )
    assert np.mean(np.argmax(student(TASK.x).logits, -1) == TASK.y) > 0.85


@pytest.mark.long
def test_bd_kd_trains_both():
    found = online({"model": NET, "teacher": TALL}, logits.bd_kd(), TX, steps=120, batch=20)(KEY, blobs())
    for net in found.values():
        assert np.mean(np.argmax(net(TASK.x).logits, -1) == TASK.y) > 0.85
