"""What holds for every public loss and metric: shapes, ranges, extremes. One added later is covered too."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from loss_inputs import (
    GRAPHS,
    NAMES,
    arguments,
    find,
    graph,
    hints,
    needed,
    of_classes,
    real,
    shared_axes,
    wider,
)

from jgd import losses, metrics


def refused(function, *args, **kwargs):
    """The line with which arguments are refused."""
    with pytest.raises(ValueError, match=r"\w") as caught:
        function(*args, **kwargs)
    text = str(caught.value)
    assert text
    assert "\n" not in text
    return text


# --- shapes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_shapes_that_do_not_fit_are_named(name):
    """An axis that two arguments share, and that differs in one of them, in every way of differing."""
    function, given = find(name), arguments(name)
    for argument, _, place, _ in shared_axes(name):
        axes = hints(function)[argument][0].dim_str.split()
        for by in ("one", "more", "fewer"):
            other = wider(given[argument], axes, place, by)
            text = refused(function, **{**given, argument: other})
            assert text.startswith(name.split(".")[1])
            assert str(other.shape) in text
            if len(set(axes)) == len(axes):
                assert any(str(x.shape) in text for x in jax.tree.leaves(given) if hasattr(x, "shape"))


@pytest.mark.parametrize("name", NAMES)
def test_too_few_or_too_many_axes_are_refused(name):
    function, given = find(name), arguments(name)
    for argument, found in hints(function).items():
        if argument not in given or not found or not any(a.dim_str for a in found) or len(found) > 1:
            continue
        axes = found[0].dim_str.split()
        if axes == ["..."]:
            continue
        if not any(a[0] in "*." for a in axes):
            text = refused(function, **{**given, argument: np.asarray(given[argument])[None]})
            assert argument in text
        text = refused(
            function, **{**given, argument: np.float32(1) if len(axes) > 1 else np.ones((2, 2, 2, 2))}
        )
        assert argument in text


def test_every_one_is_tested():
    """At least the losses between a student and a teacher have axes in common."""
    count = sum(any(True for _ in shared_axes(name)) for name in NAMES)
    assert count > 75, count


CLASSES = [n for n in NAMES if of_classes(n)]


@pytest.mark.parametrize("name", [n for n in CLASSES if of_classes(n) != "tokens"])
def test_labels_of_one_column_are_squeezed_and_others_refused(name):
    function, given = find(name), arguments(name, optional=False)
    argument = of_classes(name)
    static = {n: v for n, v in given.items() if not hasattr(v, "shape")}
    arrays = {n: v for n, v in given.items() if n not in static}

    def shapes(labels):
        return jax.eval_shape(lambda x: function(**x, **static), {**arrays, argument: labels})

    assert shapes(given[argument][..., None]) == shapes(given[argument])
    wide = np.zeros((*given[argument].shape, 2), np.int32)
    assert str(wide.shape) in refused(function, **{**given, argument: wide})


@pytest.mark.parametrize("name", ["losses.cross_entropy", "losses.kd", "metrics.accuracy"])
def test_a_column_of_labels_gives_the_same_number(name):
    given = arguments(name, optional=False)
    if "labels" not in given and "targets" not in given:
        return
    argument = of_classes(name)
    column = {**given, argument: given[argument][..., None]}
    np.testing.assert_array_equal(find(name)(**column), find(name)(**given))


@pytest.mark.parametrize("name", CLASSES)
def test_impossible_labels_are_refused_and_unknown_ones_left_out(name):
    """Traced, an impossible label makes the result NaN; of an unknown one the logits do not matter."""
    function, given, argument = find(name), arguments(name, optional=False), of_classes(name)
    corner = (0,) * given[argument].ndim
    for wrong in (50, -2):
        text = refused(function, **{**given, argument: given[argument].at[corner].set(wrong)})
        assert str(wrong) in text
    first = next(n for n in given if n != "key")
    axis = 1 if name in STACKED else 0
    labels = jnp.stack([given[argument].at[0].set(v) for v in (50, -2, -1, -1)])
    row = (slice(None),) * axis + (0,)
    other = given[first].at[row].set(-3 * given[first][row] + jnp.arange(given[first].shape[-1]))
    logits = jnp.stack([given[first]] * 3 + [other])
    static = {n: v for n, v in given.items() if not hasattr(v, "shape") or n == "key"}
    rest = {n: v for n, v in given.items() if n not in (first, argument, *static)}

    @jax.jit
    @jax.vmap
    def found(labels, logits):
        return jax.tree.leaves(function(**{first: logits, argument: labels}, **rest, **static))

    results = found(labels, logits)
    if name != "losses.teacher_ranking":  # an order, not a number
        for i in (0, 1):
            assert any(np.isnan(leaf[i]).any() for leaf in results)
    if name not in REST:
        for leaf in results:
            assert np.isfinite(leaf[2]).all()
            np.testing.assert_allclose(leaf[2], leaf[3], rtol=1e-6)


STACKED = {"losses.best_logits", "losses.min_logits", "losses.linear_weights", "losses.general_weights"}
# Logits or an order; two with a term that needs no label.
REST = {
    "losses.best_logits",
    "losses.min_logits",
    "losses.teacher_ranking",
    "losses.hinton_loss",
    "losses.mix_kd_loss",
}


@pytest.mark.parametrize(
    "name",
    ["cross_entropy", "kd", "dkd_loss", "nkd_loss", "pld_loss", "listmle", "bd_kd_loss", "dist_loss", "peer"],
)
def test_a_single_column_of_logits_is_refused(name):
    """Softmax makes one of it whatever it says: of a binary classifier it must be two columns."""
    given = arguments(f"losses.{name}", optional=False)
    one = {n: v[..., :1] if v.ndim == 2 else jnp.zeros(4, int) for n, v in given.items()}
    assert "(4, 1)" in refused(getattr(losses, name), **one)


@pytest.mark.parametrize(
    "metric", ["accuracy", "negative_log_likelihood", "brier_score", "calibration_error"]
)
def test_binary_predictions_are_refused(metric):
    y = jnp.asarray([0, 1, 1, 0])
    for x in (jnp.ones(4), jnp.ones((4, 1))):
        assert "shape" in refused(getattr(metrics, metric), x, y)


def test_integers_are_no_probabilities():
    """Logits [B] and labels [B] are no single example of B classes."""
    y = jnp.asarray([0, 1, 1, 0])
    assert "(4,)" in refused(losses.cross_entropy, jnp.ones(4), y)
    assert "probabilities" in refused(losses.cross_entropy, jnp.ones(4), y.astype(float))


@pytest.mark.parametrize("name", sorted(GRAPHS - {"strict_scores", "tolerant_scores"}))
def test_labels_of_a_graph_are_one_for_each_node(name):
    function = getattr(metrics, name)
    if "labels" not in inspect.signature(function).parameters:
        pytest.skip("no labels")
    y = np.asarray([0, 0, 1, 1])
    np.testing.assert_equal(function(graph(), y[:, None]), function(graph(), y))
    for wrong in (np.append(y, 0), y[:3]):
        assert str(wrong.shape) in refused(function, graph(), wrong)


def test_lists_and_numpy_arrays_are_taken():
    rng = np.random.default_rng(0)
    s, t = rng.standard_normal((2, 4, 3)).astype(np.float32)
    a = losses.kd(s, t, temperature=np.full(4, 2.0, np.float32), where=[1, 1, 0, 1])
    b = losses.kd(
        jnp.asarray(s), jnp.asarray(t), temperature=2.0, where=jnp.asarray([True, True, False, True])
    )
    np.testing.assert_allclose(a, b, rtol=1e-6)
    assert "not an array" in refused(losses.kd, s, "teacher")


def test_settings_are_one_number_or_one_for_each_example():
    s = jnp.ones((4, 3))
    for shape in ((3,), (4, 1), (1, 3)):
        assert f"{shape}" in refused(losses.kd, s, s, temperature=np.ones(shape))
    assert losses.kd(s, s, temperature=np.ones(4)).shape == (4,)


# --- ranges -------------------------------------------------------------------------------------


def limits():
    for name in NAMES:
        for argument, parameter in inspect.signature(find(name)).parameters.items():
            words = str(parameter.annotation)
            if words.startswith(("Positive", "Count", "Share")):
                yield name, argument, words.split(" ")[0]


@pytest.mark.parametrize(("name", "argument", "kind"), list(limits()))
def test_settings_outside_their_range_are_refused(name, argument, kind):
    given = arguments(name, optional=False)
    wrong = {"Share": (-0.1, 1.1, np.nan), "Count": (0, -1, 2.5)}.get(kind, (0, -4.0, np.nan, np.inf))
    for value in wrong:
        text = refused(find(name), **{**given, argument: value})
        assert argument in text
        assert str(value) in text
    if kind != "Count":
        refused(find(name), **{**given, argument: jnp.asarray(-1.0)})


def test_every_temperature_has_a_range():
    known = {(name, argument) for name, argument, _ in limits()}
    for name in NAMES:
        for argument in inspect.signature(find(name)).parameters:
            if argument in ("temperature", "num_bins", "num_steps", "eps", "sigma"):
                assert (name, argument) in known, (name, argument)


def test_traced_settings_pass():
    s = jnp.ones((4, 3))
    assert np.isfinite(jax.jit(lambda t: losses.kd(s, s * 2, temperature=t))(2.0)).all()


# --- extremes -----------------------------------------------------------------------------------

FLOATS = [n for n in NAMES if real(n) and n != "metrics.davies_bouldin"]
NO_GRADIENT = {  # nothing to differentiate, or not meant to be
    "losses.knn_graph", "losses.lelp_fit", "losses.nearest", "losses.teacher_ranking", "losses.ofd_margin",
    "losses.linear_weights", "losses.general_weights", "losses.reverse_gradient",
}  # fmt: skip


def extremes(x, kind, argument):
    """Numbers of an argument: large ones of both signs, equal ones, or some in half precision."""
    x = np.asarray(x)
    signs = np.where(np.arange(x.size).reshape(x.shape) % 3 == 0, -1.0, 1.0)
    values = {"large": 1e4 * signs, "equal": 0 * x + 0.1, "half": x, "zeros": 0 * x}[kind.split()[-1]]
    if "weight" in argument or argument in ("rewards", "rejected", "old_log_prob"):
        values = x
    elif argument.startswith("log_") and x.ndim > 1:
        values = values - scipy.special.logsumexp(values, axis=-1, keepdims=True)
    return jnp.asarray(values, jnp.float16 if kind.startswith("half") else jnp.float32)


def evaluated(name, kinds, gradients):
    """Values and gradients of a function at some extremes of its real arguments, one after the other."""
    given = arguments(name, optional=False)
    kinds_of = {n: {getattr(x, "dtype", int) for x in jax.tree.leaves(v)} for n, v in given.items()}
    moving = [n for n, found in kinds_of.items() if all(jnp.issubdtype(d, jnp.floating) for d in found)]
    fixed = {n: v for n, v in given.items() if n not in moving}
    values = {
        n: jax.tree.map(lambda x, n=n: jnp.stack([extremes(x, kind, n) for kind in kinds]), given[n])
        for n in moving
    }

    def total(values):
        found = jax.tree.leaves(find(name)(**values, **fixed))
        found = [x for x in found if jnp.issubdtype(x.dtype, jnp.floating)]
        return sum((jnp.sum(x.astype(jnp.float32)) for x in found), jnp.zeros(())), found

    if not moving:
        return jax.tree.leaves(find(name)(**fixed))
    if not gradients:
        return jax.tree.leaves(jax.jit(jax.vmap(total))(values))
    return jax.tree.leaves(jax.jit(jax.vmap(jax.value_and_grad(total, has_aux=True)))(values))


@pytest.mark.parametrize("name", FLOATS)
def test_values_and_gradients_are_finite(name):
    for x in evaluated(name, ("large", "equal"), name not in NO_GRADIENT and name.startswith("losses.")):
        assert np.isfinite(x).all()
        assert np.abs(x).max(initial=0) < 1e30


@pytest.mark.slow
@pytest.mark.parametrize("name", FLOATS)
def test_values_of_half_precision_are_finite(name):
    for x in evaluated(name, ("half", "half zeros"), False):
        assert np.isfinite(np.asarray(x, np.float32)).all()


@pytest.mark.parametrize(
    "name",
    ["standardize", "whiten", "mix_kd_loss", "clipped_surrogate", "dkd_loss", "nkd_loss", "mi_alpha_bound"],
)
def test_gradients_of_half_precision_are_finite(name):
    for x in evaluated(f"losses.{name}", ("half", "half zeros", "half large"), True):
        assert np.isfinite(np.asarray(x, np.float32)).all()


def batches(name):
    """``{argument: place of the batch axis}`` of the arguments that have one."""
    found = {n: hints(find(name)).get(n, []) for n in needed(name)}
    axes = {n: a[0].dim_str.split() for n, a in found.items() if a}
    return {
        n: next(i for i, x in enumerate(a) if x in ("*B", "B")) for n, a in axes.items() if {"*B", "B"} & {*a}
    }


@pytest.mark.parametrize("name", [n for n in FLOATS if batches(n) and "auc" not in n])
def test_a_batch_of_none(name):
    """Nothing, zero, or a refusal: never NaN."""
    given = arguments(name, optional=False)
    for argument, place in batches(name).items():
        none = (slice(None),) * place + (slice(0, 0),)
        given[argument] = jax.tree.map(lambda x, none=none: x[none], given[argument])
    try:
        result, line = jax.jit(lambda: find(name)(**given))(), ""
    except ValueError as error:
        result, line = (), str(error)
    assert "\n" not in line
    for x in jax.tree.leaves(result):
        assert not np.isnan(np.asarray(x, np.float32)).any()


@pytest.mark.parametrize(
    "name", [n for n in NAMES if n.startswith("metrics.") and "within" not in n and "davies" not in n]
)
def test_nan_predictions_give_nan(name):
    """One NaN, or nothing else; but not where it does not count."""
    given = arguments(name, optional=False)
    first = next(iter(given))
    for n in ("labels", "positive", "targets"):  # two classes, two values
        if n in given and given[n].ndim == 1:
            given[n] = jnp.asarray([0, 1, 0, 1])
    rest = {n: v for n, v in given.items() if n != first}
    masked = "where" in hints(find(name))

    @jax.jit
    @jax.vmap
    def found(x, where):
        return jax.tree.leaves(find(name)(x, **rest, **({"where": where} if masked else {})))

    x = given[first]
    inputs = jnp.stack([x.at[0].set(jnp.nan), jnp.full_like(x, jnp.nan), x.at[0].set(jnp.nan), x])
    masks = jnp.stack([jnp.ones(4), jnp.ones(4), jnp.asarray([0.0, 1, 1, 1]), jnp.ones(4)])
    for leaf in found(inputs, masks):
        assert np.isnan(leaf[0]).any()
        assert np.isnan(leaf[1]).any()
        assert np.isfinite(leaf[3]).all()
        if masked:
            assert np.isfinite(leaf[2]).all()


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.int32, jnp.float32])
def test_means_are_in_single_precision(dtype):
    values = jnp.ones(70_000, dtype)
    assert losses.mean(values).dtype == jnp.float32
    np.testing.assert_allclose([losses.mean(values), losses.mean(values, values)], 1)
    np.testing.assert_allclose(losses.mean(jnp.asarray([1, 2, 4], dtype)), 7 / 3, rtol=1e-6)
    assert losses.mean(values[:0]) == losses.mean(values[:0], values[:0]) == 0


def test_the_gradient_of_equal_logits_is_that_of_centring():
    """As equal as rounding allows, too; and one more step away it is the whole transform's."""
    rng, c = np.random.default_rng(0), 5
    for row in (np.zeros(c), np.full(c, 7.3), np.full(c, 100.0) + np.asarray([0, 0, 7.6e-6, 0, 0])):
        jac = jax.jit(jax.jacobian(losses.standardize))(jnp.asarray(row, jnp.float32))
        np.testing.assert_allclose(jac, np.eye(c) - 1 / c, atol=1e-5)
    z = rng.standard_normal(c)
    far = jax.jit(jax.jacobian(losses.standardize))(jnp.asarray(z, jnp.float32))
    centred, s = z - z.mean(), z.std(ddof=1)
    expected = (np.eye(c) - 1 / c) / s - np.outer(centred, centred) / ((c - 1) * s**3)
    np.testing.assert_allclose(far, expected, atol=1e-5)


def test_huge_ratios_are_clipped_or_linear():
    """A positive advantage is clipped; a negative one costs more and more, with a finite slope."""

    @jax.jit
    def loss(x, a):
        return losses.clipped_surrogate(x[None], jnp.zeros(1), jnp.asarray([a]))[0]

    for x in (1e4, -1e4):
        values = [float(loss(jnp.asarray(x), a)) for a in (1.0, -1.0)]
        slopes = [float(jax.grad(loss)(jnp.asarray(x), a)) for a in (1.0, -1.0)]
        assert np.isfinite(values + slopes).all()
        if x > 0:
            np.testing.assert_allclose(values[0], -1.2, rtol=1e-6)
            assert slopes[0] == 0
            assert slopes[1] > 0
