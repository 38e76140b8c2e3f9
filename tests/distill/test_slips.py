"""What people hand in by mistake is told in one line; soft labels of mixed examples simply work."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from distill_toy import NET, TASK, random_teacher

from jgd import distill, losses
from jgd.core import Context, Examples, Outputs, train, weighted
from jgd.distill.recipes import offline
from jgd.distill.terms import supervised, term
from jgd.training import cutmix, gaussian_noise, mixup

KEY = jax.random.key(0)
TEACHER = random_teacher()
TX = optax.adam(1e-2)


def go(loss, teacher=TEACHER, **settings):
    return offline(NET, teacher, loss, TX, **{"steps": 2, "batch": 20, **settings})(KEY, TASK)


def line(error):
    assert "\n" not in str(error.value)


def own(student, teacher, *, sharpness=1.0):
    return sharpness * jnp.sum((student - teacher) ** 2, -1)


MADE = {
    "unknown setting": (
        lambda: term(losses.kd, temp=4.0),
        "no setting 'temp', it has temperature, divergence, tr",
    ),
    "own loss": (lambda: term(own, temperature=4.0), "no setting 'temperature', it has sharpness"),
    "no settings at all": (lambda: term(losses.listmle, alpha=1), "it has none"),
    "of a preset": (lambda: distill.dkd(temp=4.0), "it has temperature, alpha, beta, transform"),
    "of labels": (lambda: supervised(losses.cross_entropy, smoothing=0.1), "no setting 'smoothing'"),
    "given by the batch": (lambda: term(losses.dkd_loss, labels=3), "the batch gives it"),
    "schedule of nothing": (lambda: term(losses.kd, schedules={"temp": lambda t: t}), "no setting 'temp'"),
    "number and schedule": (
        lambda: term(losses.kd, temperature=2.0, schedules={"temperature": lambda t: t}),
        "a number and a schedule",
    ),
    "an objective": (lambda: term(supervised()), "an objective already"),
    "a preset": (lambda: term(distill.dkd), "takes a loss, e.g. jgd.losses.dkd_loss;"),
    "a preset without a loss of its name": (lambda: term(distill.crd), "e.g. jgd.losses.kd; crd"),
    "one argument": (lambda: term(losses.entropy), "a loss of two arguments, entropy has log_p"),
    "no function": (lambda: term("kd"), r"takes a loss \(student, teacher\)"),
    "place": (lambda: term(losses.kd, at=3), "at must be the name of an output"),
    "three places": (lambda: term(losses.kd, at=("a", "b", "c")), "at must be the name of an output"),
}


@pytest.mark.parametrize("slip", MADE)
def test_what_cannot_be_made(slip):
    make, said = MADE[slip]
    with pytest.raises(ValueError, match=said) as caught:
        make()
    line(caught)


def per_row(ctx):
    return jnp.sum(ctx.outputs["model"].logits, -1)


def halves(student, teacher):
    return jnp.sum((student - teacher) ** 2, -1)[:10]


FOUR = Outputs(jnp.ones((6, 4)))
RUN = {
    "temperature": (term(losses.kd, temperature=-4.0), "kd: temperature must be positive, got -4.0"),
    "temperature of a preset": (distill.hinton(temperature=0), "kd: temperature must be positive, got 0"),
    "temperature of a schedule": (
        term(losses.kd, schedules={"temperature": lambda t: 0.0}),
        "kd: temperature must be positive, got 0",
    ),
    "one loss for each row": (per_row, r"the loss per_row returned an array of shape \(20,\)"),
    "no such place": (term(losses.kd, at="stage9"), "no output 'stage9', it has value, logits"),
    "widths": (
        term(losses.hint, at="embedding"),
        r"hint: teacher of shape \(20, 12\) .* student of shape \(20, 8\)",
    ),
    "some rows": (weighted(kd=(1.0, term(halves))), r"halves returned shape \(10,\)"),
    "whole objective": (distill.supervised, "call it"),
    "plain loss": (losses.kd, "kd takes student, teacher: wrap it"),
}


@pytest.mark.parametrize("slip", RUN)
def test_what_cannot_run(slip):
    loss, said = RUN[slip]
    weights = np.linspace(0.5, 1, 60).astype(np.float32)  # which "some rows" do not fit
    task = dataclasses.replace(TASK, weights=weights)
    with pytest.raises(ValueError, match=said) as caught:
        offline(NET, TEACHER, loss, TX, steps=2, batch=20)(KEY, task)
    line(caught)


@pytest.mark.parametrize(
    "preset", [distill.hinton(), distill.dkd(), distill.pld(), distill.dist(), distill.nkd()]
)
def test_a_teacher_of_other_classes_is_told_with_both_shapes(preset):
    ctx = Context(
        {"model": Outputs(jnp.ones((6, 3))), "teacher": FOUR}, {}, {}, Examples((), jnp.arange(6) % 3)
    )
    params, state = preset.init(KEY, ctx)
    with pytest.raises(ValueError, match=r"\(6, 4\).*\(6, 3\)") as caught:
        preset.apply(params, state, ctx, key=KEY, step=jnp.asarray(0))
    line(caught)


# --- mixed examples -----------------------------------------------------------------------------

S, T = (jax.random.normal(jax.random.key(i), (5, 4)) * 2 for i in (1, 2))
ONE, TWO = jnp.asarray([0, 1, 2, 3, 3]), jnp.asarray([1, 1, 0, 2, 3])
SHARE = jnp.asarray([0.3, 0.9, 0.5, 1.0, 0.25])
MIXED = SHARE[:, None] * jax.nn.one_hot(ONE, 4) + (1 - SHARE)[:, None] * jax.nn.one_hot(TWO, 4)

LABELLED = ["dkd_loss", "nkd_loss", "pld_loss", "listmle", "p_listmle", "hinton_loss", "mix_kd_loss"]


@pytest.mark.long
@pytest.mark.parametrize("name", LABELLED)
def test_the_loss_of_mixed_labels_is_the_mixture_of_their_losses(name):
    loss = getattr(losses, name)
    where = jnp.asarray([True, True, False, True, True])

    def total(s, labels, where=None):
        return jnp.sum(jnp.arange(1.0, 6) * loss(s, T, labels, where=where))

    for mask in (None, where):
        a, b = loss(S, T, ONE, where=mask), loss(S, T, TWO, where=mask)
        np.testing.assert_allclose(loss(S, T, MIXED, where=mask), SHARE * a + (1 - SHARE) * b, rtol=2e-5)
    mixed, hard = (jax.grad(total)(S, y) for y in (jax.nn.one_hot(ONE, 4), ONE))
    np.testing.assert_allclose(mixed, hard, atol=1e-5)
    unknown = MIXED.at[0].set(0.0)
    if name not in ("hinton_loss", "mix_kd_loss"):
        assert loss(S, T, unknown)[0] == 0


@pytest.mark.long
def test_ensembles_take_mixed_labels():
    k = jnp.stack([S, T, S - T])
    for function in (losses.best_logits, losses.min_logits, losses.general_weights, losses.linear_weights):
        np.testing.assert_allclose(
            function(k, jax.nn.one_hot(ONE, 4)), function(k, ONE), rtol=1e-5, atol=1e-6
        )
    target = np.einsum("kbc,bc->kb", k, MIXED)
    np.testing.assert_allclose(losses.min_logits(k, MIXED), (k - target[..., None]).min(0), rtol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("name", ["dkd", "pld"])
def test_students_learn_from_mixed_examples(name):
    student = go(getattr(distill, name)(), augment=mixup(), steps=100)
    assert np.isfinite(np.asarray(student(TASK.x).logits)).all()


@pytest.mark.long
def test_mixed_examples_are_none_of_the_memory():
    """A bank or a table of each example would be given what belongs to others."""
    batch = Examples((jnp.ones((6, 4)),), jnp.arange(6) % 3, None, jnp.arange(6))
    images = batch._replace(inputs=(jnp.ones((6, 4, 4, 1)),))
    for augment in (mixup(), cutmix()):
        assert augment.apply(KEY, 0, images, 3).index is None
    assert gaussian_noise(0.1).apply(KEY, 0, batch, 3).index is batch.index
    with pytest.raises(ValueError, match="leave out augmentations that mix") as caught:
        go(weighted(ce=(1.0, supervised()), crd=(0.8, distill.crd(negatives=4))), augment=mixup())
    line(caught)


def test_examples_of_unknown_class_are_in_no_mean_of_supervised():
    logits = jax.random.normal(KEY, (4, 3))
    y = jnp.asarray([0, -1, 2, -1])
    for weights in (None, jnp.asarray([2.0, 1, 0.5, 3])):
        ctx = Context({"model": Outputs(logits)}, {}, {}, Examples((), y, weights))
        kept = np.asarray([0, 2])
        some = Examples((), y[kept], None if weights is None else weights[kept])
        less = ctx._replace(outputs={"model": Outputs(logits[kept])}, batch=some)
        both = [supervised().apply((), (), c, key=KEY, step=0)[0] for c in (ctx, less)]
        np.testing.assert_allclose(*both, rtol=1e-6)


def test_a_wrong_label_stops_a_training_loop():
    """Inside of a compiled step nothing can be refused: the loss is NaN, and the loop stops at it."""
    model = offline(NET, TEACHER, supervised(), TX).models["model"]
    data = Examples((jnp.ones((6, 4)),), jnp.asarray([0, 1, 2, 3, 0, 1]))
    alg = train(model, supervised(), TX)
    state = alg.init(KEY, data, None)
    _, metrics = jax.jit(alg.step)(KEY, jnp.asarray(0), state, data, None)
    assert np.isnan(metrics["loss"])
