import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as reference

from jgd.metrics import mean_squared_error, micro_f1, multilabel_auc, r2_score


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_a_column_of_predictions_and_unknown_targets():
    p, t = numbers(20, 1), numbers(20, seed=1)
    gap = np.where(np.arange(20) < 5, np.nan, t)
    expected = np.mean((p[5:, 0] - t[5:]) ** 2)
    np.testing.assert_allclose(mean_squared_error(jnp.asarray(p), jnp.asarray(gap)), expected, rtol=1e-5)
    with pytest.raises(ValueError, match=r"\(20, 2\) and .*\(20,\)"):
        mean_squared_error(jnp.zeros((20, 2)), jnp.asarray(t))
    assert np.isnan(r2_score(jnp.asarray(t), jnp.ones(20)))
    np.testing.assert_allclose(r2_score(jnp.full(20, t.mean()), jnp.asarray(t)), 0, atol=1e-6)


@pytest.mark.long
def test_multilabel_metrics_are_their_definitions():
    logits, labels = numbers(40, 4), (numbers(40, 4, seed=1) > 0.3).astype(int)
    labels[:, 3] = 1  # no ROC curve: left out
    where = np.arange(40) < 30
    found = micro_f1(jnp.asarray(logits), jnp.asarray(labels))
    np.testing.assert_allclose(found, reference.f1_score(labels, logits > 0, average="micro"), rtol=1e-6)
    auc = multilabel_auc(jnp.asarray(logits), jnp.asarray(labels), jnp.asarray(where))
    expected = reference.roc_auc_score(labels[:30, :3], logits[:30, :3], average="macro")
    np.testing.assert_allclose(auc, expected, rtol=1e-6)
    hidden = np.where(where[:, None], labels, -1)  # unknown entries count as little as rows that are left out
    np.testing.assert_allclose(multilabel_auc(jnp.asarray(logits), jnp.asarray(hidden)), expected, rtol=1e-6)
    np.testing.assert_allclose(
        micro_f1(jnp.asarray(logits), jnp.asarray(hidden)),
        reference.f1_score(labels[:30], logits[:30] > 0, average="micro"),
        rtol=1e-6,
    )
    assert np.isnan(micro_f1(jnp.asarray(logits).at[0, 0].set(jnp.nan), jnp.asarray(labels)))
    with pytest.raises(ValueError, match="does not fit"):
        micro_f1(jnp.zeros((3, 2)), jnp.zeros((3, 1)))
