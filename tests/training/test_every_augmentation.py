"""Every augmentation of the catalogue: valid batches of the same shapes, compiled, exported, trained on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jgd.core import Examples
from jgd.data import ArrayTask
from jgd.distill import scratch
from jgd.nn import Perceptron, TextTransformer
from jgd.training import AUGMENTATIONS, Augmentation, chain

KEY, OTHER = jax.random.key(0), jax.random.key(1)
ROWS, CLASSES = 16, 4
CASES = [pytest.param(e, kind, id=f"{e.name}-{kind}") for e in AUGMENTATIONS.entries() for kind in e.kinds]


@pytest.fixture
def batches(rng):
    """A batch of each kind: images in 0..1; texts of token i + 1 at place i, each of another length."""
    labels = jnp.arange(ROWS) % CLASSES
    tokens = np.tile(np.arange(1, 8, dtype=np.int32), (ROWS, 1))
    real = np.arange(7) < 1 + np.arange(ROWS)[:, None] % 7
    inputs = {
        "arrays": (jnp.asarray(rng.random((ROWS, 6, 6, 2)), jnp.float32),),
        "texts": (jnp.asarray(tokens * real), jnp.asarray(real)),
    }
    masks = {"train": jnp.ones(ROWS, bool)}
    return {kind: Examples(x, labels, jnp.ones(ROWS), jnp.arange(ROWS), masks) for kind, x in inputs.items()}


def run(augmentation, batch, key=KEY):
    return augmentation.apply(key, jnp.asarray(0), batch, CLASSES)


def same(a, b):
    a, b = jax.tree.leaves(a), jax.tree.leaves(b)
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("entry", AUGMENTATIONS.entries(), ids=lambda e: e.name)
def test_it_constructs(entry):
    made = entry.make()
    assert isinstance(made, Augmentation)
    assert entry.kinds
    assert set(entry.kinds) <= {"arrays", "texts"}
    assert entry.summary.endswith(".")
    assert entry.name == entry.name.lower().replace("_", "-")
    # Equal settings make the same functions, so that another run finds what was compiled.
    assert made.apply is entry.make().apply
    assert chain(made, made).apply is chain(entry.make(), entry.make()).apply


@pytest.mark.parametrize(("entry", "kind"), CASES)
def test_shapes_targets_and_weights_stay_valid(entry, kind, batches):
    batch, made = batches[kind], entry.make()
    changed = run(made, batch)
    assert same(changed.inputs, batch.inputs) == made.keeps_inputs
    assert changed.inputs[0].shape == batch.inputs[0].shape
    assert changed.inputs[0].dtype == batch.inputs[0].dtype
    assert {leaf.shape[0] for leaf in jax.tree.leaves(changed)} == {ROWS}
    targets = np.asarray(changed.targets)
    if targets.ndim == 2:
        assert targets.shape == (ROWS, CLASSES)
        assert (targets >= 0).all()
        np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-6)
        assert changed.index is None  # a mixture is no example of the training set
    else:
        np.testing.assert_array_equal(targets, batch.targets)
        np.testing.assert_array_equal(changed.index, batch.index)
    np.testing.assert_allclose(changed.weights, 1, rtol=1e-6)
    assert changed.masks["train"].dtype == bool
    assert changed.masks["train"].all()
    # Weights and masks follow the labels: the weight of a mixture is the share of the classes that count.
    counts = jnp.arange(CLASSES) < 2
    by_class = run(
        made, batch._replace(weights=1.0 * counts[batch.targets], masks={"half": counts[batch.targets]})
    )
    shares = targets if targets.ndim == 2 else np.eye(CLASSES)[targets]
    np.testing.assert_allclose(by_class.weights, shares @ np.asarray(counts), atol=1e-6)
    np.testing.assert_allclose(shares[np.asarray(by_class.masks["half"])] @ np.asarray(~counts), 0, atol=1e-6)
    assert by_class.masks["half"].any()
    # What does not count does not count afterwards, and unknown targets stay unknown.
    nothing = batch._replace(targets=None, weights=jnp.zeros(ROWS), masks={"train": jnp.zeros(ROWS, bool)})
    changed = run(made, nothing)
    assert changed.targets is None
    np.testing.assert_array_equal(changed.weights, 0)
    assert not changed.masks["train"].any()
    assert run(made, batch._replace(weights=None)).weights is None


@pytest.mark.parametrize("name", AUGMENTATIONS.of_kind("texts"))
def test_padding_stays_padding(name, batches):
    tokens, mask = run(AUGMENTATIONS[name].make(), batches["texts"]).inputs[:2]
    assert (np.asarray(tokens)[np.asarray(mask)] > 0).all()
    assert (np.asarray(mask).sum(1) >= 1).all()


@pytest.mark.parametrize(("entry", "kind"), CASES)
def test_it_compiles_and_depends_on_its_key_alone(entry, kind, batches):
    batch, made = batches[kind], entry.make()
    compiled = jax.jit(lambda key, batch: run(made, batch, key))
    first = compiled(KEY, batch)
    assert same(first, compiled(KEY, batch))
    assert not same(first, compiled(OTHER, batch))
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(run(made, batch)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("entry", "kind"), CASES)
def test_it_exports(entry, kind, batches):
    """One program for CPU, CUDA and TPU, which runs here as the function does."""
    batch, made = batches[kind], entry.make()
    data = jax.random.key_data(KEY)

    def program(data, batch):
        return jax.tree.leaves(run(made, batch, jax.random.wrap_key_data(data)))

    exported = jax.export.export(jax.jit(program), platforms=["cpu", "cuda", "tpu"])(data, batch)
    for a, b in zip(exported.call(data, batch), program(data, batch), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize(("entry", "kind"), CASES)
def test_a_network_trains_on_it(entry, kind, batches):
    x, index = batches[kind].inputs, np.arange(ROWS)
    task = ArrayTask(
        x=np.asarray(x[0]), y=(index % CLASSES).astype(np.int32), mask=np.asarray(x[1]) if x[1:] else None,
        train=index < 12, test=index >= 12, num_classes=CLASSES,
    )  # fmt: skip
    net = Perceptron(CLASSES, (4,))
    if kind == "texts":
        net = TextTransformer(CLASSES, 9, width=4, depth=1, heads=1, length=7)
    student = scratch(net, optax.adam(1e-2), augment=entry.make(), steps=2, batch=8)(KEY, task)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(student.params))


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="no augmentation is called 'crop_flip': did you mean crop-flip"):
        AUGMENTATIONS["crop_flip"]
    with pytest.raises(ValueError, match="no augmentation is called 'zzz': known are mixup, cutmix"):
        AUGMENTATIONS["zzz"]
