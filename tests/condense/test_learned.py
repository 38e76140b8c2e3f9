"""Which of the sets on the way is kept, and by what."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from condense_toy import TASK

from jgd.condense.backbones import backbone, val_examples
from jgd.condense.select import select_on_validation, teaching_accuracy
from jgd.core import Algorithm, Examples
from jgd.graph import identity

KEY = jax.random.key(0)
CENTRES = np.stack([np.asarray(TASK.graph.nodes)[TASK.labels == c].mean(0) for c in range(3)]).astype(
    np.float32
)
RIGHT = np.arange(3)


def passing(orders):
    """A loop whose set at step ``t`` calls the centres of the classes by the labels ``orders[t]``."""
    labels = jnp.asarray(orders)

    def step(key, t, state, data, batch):
        return state + 1, {}

    def result(state, data):
        at = jnp.clip(state - 1, 0, len(orders) - 1)
        return {"small": Examples((identity(3), jnp.asarray(CENTRES)), labels[at])}

    return Algorithm(lambda key, data, batch: jnp.zeros((), jnp.int32), step, result)


class Data:
    """What `select_on_validation` looks at."""

    val = val_examples("sgc", TASK)


@pytest.mark.parametrize("good", [0, 1, 2])
def test_the_set_that_teaches_best_is_kept(good):
    """Wherever on the way it comes: neither the first, nor the last, nor the worst."""
    half, none = np.asarray([0, 2, 1]), np.asarray([1, 2, 0])
    orders = [RIGHT if t == good else (half if t % 2 else none) for t in range(3)]
    alg = select_on_validation(passing(orders), backbone("sgc", 3), every=1)
    state = alg.init(KEY, Data, None)
    scores = []
    for t in range(3):
        state, metrics = alg.step(KEY, t, state, Data, None)
        scores.append(float(metrics["score"]))
    assert np.argmax(scores) == good
    assert max(scores) > 0.7
    np.testing.assert_array_equal(alg.result(state, Data)["small"].targets, RIGHT)
    assert float(metrics["best"]) == max(scores)


def test_the_score_is_the_accuracy_on_the_validation_nodes():
    """By labels and weights of those: the set's own labels are learned."""
    model = backbone("sgc", 3)
    small = Examples((identity(3), jnp.asarray(CENTRES)), jnp.asarray(RIGHT))
    val = val_examples("sgc", TASK)
    score = float(teaching_accuracy(model, small, val))
    assert score > 0.7
    wrong = val._replace(targets=(val.targets + 1) % 3)
    assert float(teaching_accuracy(model, small, wrong)) < 0.3
    params, _ = model.init(jax.random.key(0), *small.inputs)
    assert set(params) == {"Linear_0", "bias"}
    turned = small._replace(targets=(small.targets + 1) % 3)
    np.testing.assert_allclose(float(teaching_accuracy(model, turned, wrong)), score, atol=0.1)
    hits = np.asarray(val.targets) == 0
    only = val._replace(weights=jnp.asarray(hits, jnp.float32))
    last = small._replace(targets=jnp.zeros(3, jnp.int32))
    assert float(teaching_accuracy(model, last, only)) == 1
    assert float(teaching_accuracy(model, last, val)) == pytest.approx(hits.mean())
