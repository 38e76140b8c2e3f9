"""Objectives on features: their networks, what they measure, whom they leave alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from distill_toy import NET, TASK, random_teacher
from scipy.optimize import linprog

from jgd import losses
from jgd.core import Context, Examples, Outputs, from_linen, train, weighted
from jgd.data import ArrayTask
from jgd.distill import _features as f
from jgd.distill import _layers as chosen
from jgd.distill import _simkd as simkd
from jgd.distill.data import source, take
from jgd.distill.recipes import offline, scratch
from jgd.distill.terms import supervised
from jgd.graph import EXPORT_CHECKS
from jgd.nn import ConvNet

KEY = jax.random.key(0)
ROWS = 6


def outputs(seed, widths=(3, 4, 5), sizes=(4, 4, 2, 2), embedding=5):
    """A network with a stem and three stages."""
    keys = jax.random.split(jax.random.key(seed), 5)
    taps = {}
    for i, (k, c, n) in enumerate(zip(keys, (widths[0], *widths), sizes, strict=False)):
        taps[f"stage{i}_pre"] = jax.random.normal(k, (ROWS, n, n, c))
        taps[f"stage{i}"] = jax.nn.relu(taps[f"stage{i}_pre"])
    return Outputs(jnp.zeros((ROWS, 3)), jax.random.normal(keys[4], (ROWS, embedding)), taps)


def context(student, teacher, *, weights=None, call=None, data=None, inputs=()):
    return Context(
        {"model": student, "teacher": teacher},
        call or {},
        {},
        Examples(inputs, jnp.arange(ROWS) % 3, weights),
        data,
    )


def values(objective, *contexts, params=None):
    """Loss, metrics and parameters in each context; fresh parameters depend on the key alone."""
    ctx = contexts[0]

    @jax.jit
    def run(outputs, batch):
        own = ctx._replace(outputs=outputs, batch=batch)
        p, state = objective.init(KEY, own)
        p = p if params is None else params
        loss, _, metrics = objective.apply(p, state, own, key=KEY, step=jnp.asarray(0))
        return loss, metrics, p

    return [run(c.outputs, c.batch) for c in contexts]


def value(objective, ctx, params=None):
    return values(objective, ctx, params=params)[0]


PLAIN = {
    "attention": f.attention(),
    "nst": f.nst(),
    "similarity": f.similarity(),
    "pkt": f.pkt(),
    "rkd": f.rkd(),
    "ickd": f.ickd(),
    "fsp": f.fsp(),
}
ALL = {
    **PLAIN,
    "fitnet": f.fitnet(),
    "cc": f.cc(dim=4),
    "neighbours": f.cc(form="neighbours", dim=4),
    "vid": f.vid(("stage2", "embedding")),
    "ofd": f.ofd(("stage1_pre", "stage2_pre"), norms=[(jnp.zeros(c), jnp.ones(c)) for c in (3, 4)]),
    "review": f.review(width=4),
}


def together(some):
    return weighted(**{name: (1.0, one) for name, one in some.items()})


@pytest.mark.long
def test_equal_networks_have_nothing_to_learn():
    same, other = outputs(0), outputs(1)
    found = values(together(PLAIN), context(same, same), context(same, other))
    nothing, something = (metrics for _, metrics, _ in found)
    for name in PLAIN:
        assert abs(float(nothing[name])) < 1e-6, name
        assert float(something[name]) > 1e-4, name


@pytest.mark.long
def test_stages_and_parts_add_up():
    s, t = outputs(0), outputs(1, widths=(3, 4, 7))
    _, metrics, _ = value(together({k: PLAIN[k] for k in ("attention", "rkd")}), context(s, t))
    loss = jax.jit(losses.attention_transfer)
    stages = [np.mean(loss(s.taps[n], t.taps[n])) for n in f.STAGES]
    np.testing.assert_allclose(metrics["attention"], sum(stages), rtol=1e-5)
    np.testing.assert_allclose(metrics["attention/stage2"], stages[1], rtol=1e-5)
    parts = [jax.jit(fn)(s.embedding, t.embedding) for fn in (losses.rkd_distance, losses.rkd_angle)]
    np.testing.assert_allclose(metrics["rkd"], 25 * parts[0] + 50 * parts[1], rtol=1e-5)


@pytest.mark.long
def test_no_gradient_reaches_the_teacher_and_all_reach_the_student():
    s, t = outputs(0), outputs(1)
    objective = together(ALL)
    ctx = context(s, t)
    params, state = jax.jit(lambda o: objective.init(KEY, ctx._replace(outputs=o)))(ctx.outputs)

    def losses_of(params, outputs):
        own = ctx._replace(outputs=outputs)
        return objective.apply(params, state, own, key=KEY, step=jnp.asarray(0))[0]

    own, grads = jax.jit(jax.grad(losses_of, argnums=(0, 1)))(params, ctx.outputs)
    assert all(np.all(np.asarray(g) == 0) for g in jax.tree.leaves(grads["teacher"]))
    assert all(np.any(np.asarray(grads["model"].taps[n]) != 0) for n in f.STAGES)
    for name in ("fitnet", "cc", "neighbours", "vid", "ofd", "review"):
        for leaf in jax.tree.leaves(own[name]):  # also of the map of the teacher, and of the variances
            assert np.any(np.asarray(leaf) != 0), name


@pytest.mark.long
def test_examples_that_do_not_count_change_nothing():
    """Of objectives whose networks do not normalise over the batch."""
    some = together({k: ALL[k] for k in (*PLAIN, "cc", "neighbours", "vid")})
    weights = jnp.asarray([1.0, 1, 0, 1, 0, 1])
    s, t = outputs(0), outputs(1)
    wrong = jax.tree.map(lambda x: x.at[2].set(100.0).at[4].set(-3.0), s)
    found = values(some, *(context(x, t, weights=weights) for x in (s, wrong)))
    metrics, again = (m for _, m, _ in found)
    for name in metrics:
        np.testing.assert_allclose(again[name], metrics[name], rtol=1e-4, atol=1e-6, err_msg=name)


# --- networks -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ((8, 8, 3), (4, 4, 5)),
        ((4, 4, 3), (8, 8, 5)),
        ((7, 7, 3), (5, 5, 6)),
        ((4, 4, 3), (4, 4, 3)),
        ((3,), (5,)),
    ],
)
def test_adaptors_make_shapes_equal(ours, theirs):
    s, t = jnp.zeros((2, *ours)), jnp.zeros((2, *theirs))
    net = f.adaptor(s, t)
    kwargs = {} if s.ndim == 2 else {"train": False}
    out, _ = jax.eval_shape(lambda x: net.init_with_output(KEY, x, **kwargs), s)
    assert out.shape == t.shape


def test_shapes_that_cannot_be_made_equal_are_refused():
    with pytest.raises(ValueError, match="another stage"):
        f.adaptor(jnp.zeros((2, 3, 3, 1)), jnp.zeros((2, 5, 5, 1)))
    with pytest.raises(ValueError, match="equal widths"):
        value(f.fsp(), context(outputs(0), outputs(1, widths=(3, 4, 7))))
    with pytest.raises(ValueError, match="equal size"):
        f.ofd(norms=[(jnp.zeros(3), jnp.ones(3))] * 3).init(
            KEY, context(outputs(0), outputs(1, sizes=(4, 2, 2, 2)))
        )


def test_settings_that_cannot_be_are_refused():
    for wrong, match in (
        (lambda: f.attention(()), "at least one stage"),
        (lambda: f.cc(form="both"), "form"),
        (lambda: f.factor_transfer(rate=0.0), "rate"),
        (lambda: f.ofd(norms=[]), "3 stages"),
    ):
        with pytest.raises(Exception, match=match):
            wrong()


def test_a_hint_between_vectors_is_the_error_of_a_linear_map():
    s, t = outputs(0), outputs(1, embedding=7)
    loss, _, params = value(f.fitnet("embedding"), context(s, t))
    kernel, bias = sorted(jax.tree.leaves(params), key=jnp.ndim, reverse=True)
    np.testing.assert_allclose(loss, np.mean((s.embedding @ kernel + bias - t.embedding) ** 2), rtol=1e-5)


def test_the_kernel_of_cc_is_that_of_unit_embeddings():
    s, t = outputs(0), outputs(1, embedding=7)
    loss, _, params = value(f.cc(dim=4), context(s, t))
    kernels = []
    for p, x in zip(params, (s.embedding, t.embedding), strict=True):
        e = np.asarray(x @ p["params"]["kernel"] + p["params"]["bias"], np.float64)
        y = (
            0.8
            * (e / np.linalg.norm(e, axis=1, keepdims=True))
            @ (e / np.linalg.norm(e, axis=1, keepdims=True)).T
        )
        kernels.append(np.exp(-0.8) * (1 + y + y**2 / 2))
    np.testing.assert_allclose(loss, np.linalg.norm(kernels[0] - kernels[1]) / ROWS**2, rtol=1e-4)


def test_vid_begins_at_its_variance_and_learns_it():
    s, t = outputs(0), outputs(1, embedding=7)
    objective = f.vid(("embedding",), variance=2.0)
    loss, _, params = value(objective, context(s, t))
    params = jax.tree.map(np.asarray, params)
    inner = params["embedding"]["inner"]
    x = np.asarray(s.embedding)
    for i in range(3):
        x = x @ inner[f"Dense_{i}"]["kernel"]
        x = np.maximum(x, 0) if i < 2 else x
    np.testing.assert_allclose(loss, np.mean(0.5 * ((x - t.embedding) ** 2 / 2 + np.log(2))), rtol=1e-4)
    variance = np.mean((x - t.embedding) ** 2, axis=0)  # the best one: 0.5 (1 + log MSE)
    inner["raw_scale"] = jnp.log(jnp.expm1(variance - 1e-5))
    best, _, _ = value(objective, context(s, t), params=params)
    np.testing.assert_allclose(best, np.mean(0.5 * (1 + np.log(variance))), rtol=1e-4)


def pre(x):
    """Maps [n, 2, 2, 2] of the four numbers of an example of the toy task."""
    x = x.reshape(-1, 2, 2, 1)
    return Outputs(None, None, {"stage1_pre": jnp.concatenate([x, 2 * x - 1], -1)})


@pytest.mark.long
def test_margins_are_measured_on_all_training_examples():
    data = source(KEY, TASK, {}, {})
    ctx = context(outputs(0), outputs(1), call={"teacher": pre}, data=data)
    ((mean, std),) = f._moments(ctx, "teacher", ["stage1_pre"], batch=16)  # 40 examples
    maps = np.asarray(pre(np.asarray(TASK.x)[:40]).taps["stage1_pre"], np.float64).reshape(-1, 2)
    np.testing.assert_allclose(mean, maps.mean(0), rtol=1e-5)
    np.testing.assert_allclose(std, maps.std(0), rtol=1e-5)
    some = [pre(np.asarray(TASK.x)[i : i + ROWS]) for i in (0, 10)]
    ctx = context(*some, call={"teacher": pre}, data=data)
    _, (_, margins) = jax.jit(lambda: f.ofd(("stage1_pre",)).init(KEY, ctx))()
    np.testing.assert_allclose(margins[0], losses.ofd_margin(mean, std), rtol=1e-5)


def test_later_stages_of_ofd_count_more():
    loss, metrics, _ = value(ALL["ofd"], context(outputs(0), outputs(1)))
    np.testing.assert_allclose(loss, 0.5 * metrics["0"] + metrics["1"], rtol=1e-5)


@pytest.mark.long
def test_a_review_reads_stages_from_above_and_not_from_below():
    net = f._Review(4, ((4, 4, 3), (2, 2, 5), (1, 1, 6)))
    maps = tuple(jax.random.normal(KEY, (2, n, n, c)) for n, c in ((8, 2), (4, 3), (1, 5)))

    @jax.jit
    def run(maps, other):
        variables = net.init(KEY, maps, train=False)
        changed = [(*maps[:i], other[i], *maps[i + 1 :]) for i in range(3)]
        return [net.apply(variables, m, train=False) for m in (maps, *changed)]

    whole, *changed = run(maps, jax.tree.map(lambda x: x + 1.0, maps))
    assert [x.shape[1:] for x in whole] == list(net.shapes)
    reads = [[bool(np.any(x != y)) for x, y in zip(whole, one, strict=True)] for one in changed]
    assert reads == [[True, False, False], [True, True, False], [True, True, True]]


def convolved(x, kernel):
    """A convolution of odd size that keeps the size of the map, by its definition."""
    n = kernel.shape[0] // 2
    wide = np.pad(x, ((0, 0), (n, n), (n, n), (0, 0)))
    h, w = x.shape[1:3]
    parts = [
        wide[:, i : i + h, j : j + w] @ kernel[i, j]
        for i in range(kernel.shape[0])
        for j in range(kernel.shape[1])
    ]
    return sum(parts)


def normalised(x, norm):
    """Batch normalisation by the batch itself."""
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) / np.sqrt(variance + 1e-5) * norm["scale"] + norm["bias"]


def resized(x, h, w):
    """The nearest position, for sizes of which one is a multiple of the other."""
    rows, columns = (
        (np.arange(to) * n // to + (n > to) * (n // to // 2)) for n, to in zip(x.shape[1:3], (h, w))
    )
    return x[:, rows][:, :, columns]


def reviewed(params, maps, sizes):
    """The fusion of knowledge review in float64: the last stage first, each gated with what is above it."""
    above, found = None, []
    for i, (x, (h, w)) in enumerate(zip(maps[::-1], sizes[::-1])):
        block = params[f"_Fusion_{i}"]
        narrow, wide = block["ConvNorm_0"], block["ConvNorm_1"]
        x = normalised(convolved(x, narrow["Conv_0"]["kernel"]), narrow["BatchNorm_0"])
        if above is not None:
            above = resized(above, *x.shape[1:3])
            gate = np.concatenate([x, above], -1) @ block["Dense_0"]["kernel"] + block["Dense_0"]["bias"]
            gate = 1 / (1 + np.exp(-gate))
            x = gate[..., :1] * x + gate[..., 1:] * above
        above = resized(x, h, w)
        found.append(normalised(convolved(above, wide["Conv_0"]["kernel"]), wide["BatchNorm_0"]))
    return found[::-1]


def hierarchical(s, t):
    """The loss at full size and averaged to 2 x 2 and 1 x 1, as far as these are smaller."""
    levels = [n for n in (4, 2, 1) if n < s.shape[1]]
    total, weight = np.mean((s - t) ** 2), 1.0
    for i, n in enumerate(levels, 1):
        small = [x.reshape(len(x), n, x.shape[1] // n, n, x.shape[2] // n, -1).mean((2, 4)) for x in (s, t)]
        total, weight = total + 0.5**i * np.mean((small[0] - small[1]) ** 2), weight + 0.5**i
    return total / weight


@pytest.mark.long
def test_a_review_is_its_formula_with_attention():
    """Against NumPy in float64: maps that grow and shrink, gates that open and close."""
    student = outputs(0, widths=(3, 4, 5), sizes=(8, 4, 4, 2))
    teacher = outputs(1, widths=(4, 6, 3), sizes=(4, 4, 8, 2), embedding=7)
    stages = ("stage0", "stage1", "stage2", ("stage3", "stage3_pre"), "embedding")
    objective = f.review(stages, width=4)
    ctx = context(student, teacher)
    params, state = objective.init(KEY, ctx)
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    params = jax.tree.unflatten(
        tree, [jnp.asarray(rng.standard_normal(x.shape), jnp.float32) for x in leaves]
    )
    found = objective.apply(params, state, ctx, key=KEY, step=jnp.asarray(0))[0]

    def maps(out, names):
        values = [out.embedding if n == "embedding" else out.taps[n] for n in names]
        values = [np.asarray(x, np.float64) for x in values]
        return [x[:, None, None] if x.ndim == 2 else x for x in values]

    ours = maps(student, [s if isinstance(s, str) else s[0] for s in stages])
    theirs = maps(teacher, [s if isinstance(s, str) else s[1] for s in stages])
    wide = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    fused = reviewed(wide["inner"], ours, [t.shape[1:3] for t in theirs])
    expected = sum(hierarchical(s, t) for s, t in zip(fused, theirs, strict=True))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.long
def test_a_paraphraser_learns_before_the_student_does():
    """Maps with two channels that say the same thing go through half of them."""
    x = jax.nn.relu(jax.random.normal(KEY, (16, 4, 4, 2)))
    maps = jnp.concatenate([x, x], -1)
    run = jax.jit(lambda key: f.paraphrase(key, lambda t: maps, 2, optax.adam(1e-2), 150))
    encoder, errors = run(KEY)
    assert float(errors[-1]) < 0.3 * float(errors[0])
    assert jax.tree.leaves(encoder)[-1].shape[-1] == 2


# --- layers of Transformers ---------------------------------------------------------------------


def hidden(seed, depth, width=4, tokens=3):
    keys = jax.random.split(jax.random.key(seed), depth + 1)
    taps = {f"layer{i}": jax.random.normal(k, (ROWS, tokens, width)) for i, k in enumerate(keys)}
    return Outputs(jnp.zeros((ROWS, 3)), None, {**taps, "query1": jnp.ones(2)})


def mse(a, b):
    return float(np.mean((np.asarray(a) - np.asarray(b)) ** 2))


def test_layers_are_paired_by_table_or_by_hand():
    s, t = hidden(0, 2), hidden(1, 6)
    found = {
        pairs: value(chosen.layers(losses.hidden_mse, pairs), context(s, t))[1] for pairs in ("skip", "last")
    }
    assert list(found["skip"]) == ["0-0", "1-3", "2-6"]
    assert list(found["last"]) == ["0-4", "1-5", "2-6"]
    loss, _, _ = value(chosen.layers(losses.hidden_mse, ((1, 2),)), context(s, t))
    np.testing.assert_allclose(loss, mse(s.taps["layer1"], t.taps["layer2"]), rtol=1e-5)
    first = chosen.layers(losses.pkd, ((1, 2),), pick=lambda h: h[:, 0])
    np.testing.assert_allclose(
        value(first, context(s, t))[0],
        losses.pkd(s.taps["layer1"][:, 0], t.taps["layer2"][:, 0]).mean(),
        rtol=1e-5,
    )
    with pytest.raises(ValueError, match="no layers"):
        chosen.layers(losses.hidden_mse, ((1, 9),)).init(KEY, context(s, t))
    with pytest.raises(ValueError, match="no taps layer0"):
        chosen.layers(losses.hidden_mse).init(KEY, context(outputs(0), t))


@pytest.mark.long
def test_padding_and_examples_without_weight_change_nothing():
    s, t = hidden(0, 2), hidden(1, 3, width=5)
    mask = jnp.asarray(np.arange(3) < np.asarray([[3], [1], [2], [3], [2], [3]]))
    weights = jnp.asarray([1.0, 1, 0, 1, 1, 1])
    inputs = (jnp.zeros((ROWS, 3), jnp.int32), mask)
    bad = jax.tree.map(
        lambda x: jnp.where((mask & (weights[:, None] > 0))[..., None], x, 50.0) if x.ndim == 3 else x, s
    )
    both = weighted(
        layers=(1.0, chosen.layers(losses.hidden_mse)), emd=(1.0, chosen.emd(losses.cosine_distance))
    )
    found = values(both, *(context(x, t, weights=weights, inputs=inputs) for x in (s, bad)))
    metrics, again = (m for _, m, _ in found)
    for name in metrics:
        np.testing.assert_allclose(again[name], metrics[name], rtol=1e-5)


def test_emd_weighs_layers_by_the_cheapest_transport():
    s, t = hidden(0, 2), hidden(1, 3)
    objective = chosen.emd(losses.hidden_mse)
    cost = np.asarray([[mse(s.taps[f"layer{i}"], t.taps[f"layer{j}"]) for j in (1, 2, 3)] for i in (1, 2)])
    rows = np.kron(np.eye(2), np.ones(3))
    columns = np.tile(np.eye(3), 2)
    best = linprog(
        cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.r_[np.full(2, 1 / 2), np.full(3, 1 / 3)]
    )
    loss, metrics, _ = value(objective, context(s, t))
    np.testing.assert_allclose(metrics["layers"], best.fun, rtol=1e-5)
    np.testing.assert_allclose(loss - metrics["layers"], mse(s.taps["layer0"], t.taps["layer0"]), rtol=1e-4)

    def total(x):
        own = s._replace(taps={**s.taps, "layer1": x})
        return objective.apply({"layers": (), "embedding": ()}, (), context(own, t), key=KEY, step=0)[0]

    flow = best.x.reshape(2, 3)
    x = np.asarray(s.taps["layer1"])
    expected = sum(flow[0, j - 1] * 2 * (x - np.asarray(t.taps[f"layer{j}"])) / x.size for j in (1, 2, 3))
    np.testing.assert_allclose(jax.jit(jax.grad(total))(s.taps["layer1"]), expected, atol=1e-6)


def test_a_student_that_has_every_layer_costs_nothing():
    s = hidden(0, 2)
    turned = s._replace(taps={**s.taps, "layer1": s.taps["layer2"], "layer2": s.taps["layer1"]})
    assert float(value(chosen.emd(losses.hidden_mse), context(s, turned))[0]) < 1e-6


# --- SimKD, and training ------------------------------------------------------------------------


def pictures(count=90):
    """Three patterns of 4 x 4 pixels in noise."""
    rng = np.random.default_rng(0)
    y = np.arange(count) % 3
    patterns = rng.standard_normal((3, 4, 4, 1))
    x = 1.5 * patterns[y] + 0.5 * rng.standard_normal((count, 4, 4, 1))
    return ArrayTask(
        x=x.astype(np.float32), y=y, train=np.arange(count) < 60, test=np.arange(count) >= 60, num_classes=3
    )


PICTURES = pictures()
PIXELS = jnp.asarray(PICTURES.x)
WIDE, SLIM = (ConvNet(3, width=w, depth=2, norm="batch") for w in (6, 4))
TX = optax.adam(1e-2)


@pytest.fixture(scope="module")
def teacher():
    return scratch(WIDE, TX, steps=80, batch=20)(KEY, PICTURES)


@pytest.mark.long
def test_a_student_behind_the_teachers_classifier(teacher):
    net = simkd.reusing(SLIM, teacher, at="stage2")
    student = offline(net, teacher, simkd.simkd("stage2"), TX, steps=150, batch=20)(KEY, PICTURES)
    kernel, bias = simkd.last_linear(teacher.params)
    np.testing.assert_array_equal(student.state["head"]["kernel"], kernel)
    out, theirs = student(PIXELS), teacher(PIXELS)
    np.testing.assert_allclose(out.logits, out.embedding @ kernel + bias, rtol=1e-4, atol=1e-5)
    agree = np.mean(np.argmax(out.logits, -1) == np.argmax(theirs.logits, -1))
    own = np.mean(np.argmax(out.taps["own"], -1) == np.argmax(theirs.logits, -1))
    assert agree > 0.9 > own  # the student's own classifier was never trained


@pytest.mark.long
def test_projections_of_vectors_and_of_smaller_maps():
    def shapes(net, x):
        def run(x):
            params, state = net.init(KEY, x)
            return net.apply(params, state, x)[0]

        out = jax.eval_shape(run, x)
        return out.logits.shape, out.taps["projected"].shape

    vectors = simkd.reusing(from_linen(NET), random_teacher(), at="embedding", relu=False)
    assert shapes(vectors, jnp.zeros((5, 4))) == ((5, 3), (5, 1, 1, 12))
    smaller = simkd.reusing(SLIM, random_teacher(), at="stage1", size=(2, 3))
    assert shapes(smaller, jnp.zeros((5, 4, 4, 1))) == ((5, 3), (5, 2, 3, 12))
    with pytest.raises(ValueError, match="factor"):
        simkd.reusing(SLIM, random_teacher(), factor=0)


@pytest.mark.long
def test_the_classifier_is_found_by_its_number():
    layer = {"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3)}
    conv = {"kernel": jnp.ones((3, 3, 1, 4))}
    last = {"kernel": 2 * layer["kernel"]}
    kernel, bias = simkd.last_linear({"Conv_11": conv, "Dense_9": layer, "Dense_10": last})
    assert float(kernel[0, 0]) == 2
    np.testing.assert_array_equal(bias, 0)
    for bad in ({"Conv_0": conv}, {"first": layer, "second": layer}):
        with pytest.raises(ValueError, match="give head="):
            simkd.last_linear(bad)


BEFORE = ("stage1_pre", "stage2_pre")
NETWORKS = weighted(
    ce=(1.0, supervised()),
    ofd=(1e-2, f.ofd(BEFORE)),
    factors=(1.0, f.factor_transfer("stage2", steps=20, batch=8)),
)


@pytest.mark.slow
def test_students_learn_beside_their_networks(teacher):
    """Also where the teacher's outputs are looked up: margins and paraphraser ask for others of its own."""
    student = offline(SLIM, teacher, NETWORKS, TX, steps=80, batch=20)(KEY, PICTURES)
    assert np.mean(np.argmax(student(PIXELS).logits, -1) == PICTURES.y) > 0.85


@pytest.mark.long
def test_a_step_lowers_for_every_platform(teacher):
    data = source(KEY, PICTURES, {}, {"teacher": teacher})._replace(order=jnp.zeros(()))
    more = together(
        {
            "networks": NETWORKS,
            "review": f.review((*BEFORE, "embedding")),
            "fitnet": f.fitnet(),
            "vid": f.vid(("stage2",)),
            "cc": f.cc(dim=4),
        }
    )

    def prepare(key, t, data, batch):
        some = take(data.train, jnp.arange(8))
        return some, dict.fromkeys(("model", "teacher"), some.inputs)

    alg = train(from_linen(SLIM), more, TX, prepare=prepare, frozen=lambda data: data.teachers)
    state = jax.eval_shape(lambda: alg.init(KEY, data, None))
    leaves, tree = jax.tree.flatten((state, data))

    def step(raw, *leaves):
        state, data = tree.unflatten(leaves)
        state, metrics = alg.step(jax.random.wrap_key_data(raw), jnp.int32(0), state, data, None)
        return [*jax.tree.leaves(state), metrics["loss"]]

    raw = jax.random.key_data(KEY)
    export = jax.export.export(jax.jit(step), platforms=("cpu", "cuda", "tpu"), disabled_checks=EXPORT_CHECKS)
    assert export(raw, *leaves).platforms == ("cpu", "cuda", "tpu")
