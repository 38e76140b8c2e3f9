"""Every metric of the catalogue against an independent reference, jitted, vmapped and masked.

A new metric is covered by its being in the catalogue, once its reference stands in `REFERENCES`. Extreme
values and refused arguments are covered by ``tests/losses/test_every_loss.py`` and the files of the metrics.
"""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import sqrtm
from sklearn import metrics as sk

from jgd import metrics
from jgd.data import Condensed, NodeTask
from jgd.graph import from_adjacency
from jgd.metrics import METRICS

N, C = 36, 4
ON_HOST = [entry.name for entry in METRICS.entries() if "nodes" in entry.kinds]
OF_ARRAYS = [name for name in METRICS if name not in ON_HOST]
MASKED = [name for name in OF_ARRAYS if "where" in inspect.signature(METRICS[name].make).parameters]


# --- inputs -------------------------------------------------------------------------------------


def float32(x):
    return np.asarray(x, np.float32)


def predictions(rng):
    return {"logits": float32(2 * rng.normal(size=(N, C))), "labels": rng.permutation(N) % C}


def scores(rng):
    return {"scores": float32(rng.normal(size=N).round(1)), "positive": rng.permutation(N) % 3 == 0}


def several(rng):
    return {
        "logits": float32(rng.normal(size=(N, C))),
        "labels": (rng.permutation(N * C) % 3 == 0).reshape(N, C),
    }


def numbers(rng):
    return {"predictions": float32(rng.normal(size=(N, 2))), "targets": float32(rng.normal(size=(N, 2)))}


def samples(rng):
    x, y = rng.normal(size=(N, 3)) @ rng.normal(size=(3, 3)) + 2, rng.normal(size=(N // 2, 3))
    return {"x": float32(x), "y": float32(y)}


def clusters(rng):
    return {"x": float32(rng.normal(size=(N, 3))), "labels": rng.permutation(N) % C, "k": C}


INPUTS = {
    "roc-auc": scores,
    "micro-f1": several,
    "multilabel-auc": several,
    "mean-squared-error": numbers,
    "mean-absolute-error": numbers,
    "r2-score": numbers,
    "frechet-distance": samples,
    "within-cluster-variance": clusters,
}


def inputs_of(name, rng):
    return INPUTS.get(name, predictions)(rng)


def graph(rng, size=14):
    """Weights of an undirected graph with loops, features and labels, one of them unknown."""
    a = np.triu(rng.random((size, size)) * (rng.random((size, size)) < 0.4))
    labels = rng.permutation(size) % 3
    labels[0] = -1
    return float32(a + a.T), float32(rng.normal(size=(size, 4))), labels


# --- references of predictions and samples -------------------------------------------------------


def softmax(logits):
    p = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def accuracy(w, logits, labels):
    return np.average(logits.argmax(1) == labels, weights=w)


def by_width(p, num_bins):
    edges = np.linspace(0, 1, num_bins + 1)
    return np.array([next(m for m in range(num_bins) if v <= edges[m + 1] or m == num_bins - 1) for v in p])


def by_mass(top, w, num_bins):
    below = np.array([w[top < t].sum() + w[top <= t].sum() for t in top]) / 2 / w.sum()
    return np.minimum((below * num_bins).astype(int), num_bins - 1)


def gap(values, hits, w, bins):
    """Sum over bins of their weight times |mean hit - mean value|, by a loop."""
    return sum(abs((w * (hits - values))[bins == m].sum()) for m in np.unique(bins)) / w.sum()


def confidence(logits, labels):
    p = softmax(logits)
    return p.max(1), (p.argmax(1) == labels).astype(float)


def reliability(w, logits, labels, num_bins=15):
    top, hit = confidence(logits, labels)
    bins = by_width(top, num_bins)
    mass = np.array([w[bins == m].sum() for m in range(num_bins)])
    means = [[(w * v)[bins == m].sum() for m in range(num_bins)] / np.maximum(mass, 1e-9) for v in (top, hit)]
    return [*means, mass / w.sum()]


def calibration_error(w, logits, labels, num_bins=15):
    top, hit = confidence(logits, labels)
    return gap(top, hit, w, by_width(top, num_bins))


def adaptive_calibration_error(w, logits, labels, num_bins=15):
    top, hit = confidence(logits, labels)
    return gap(top, hit, w, by_mass(top, w, num_bins))


def classwise_calibration_error(w, logits, labels, num_bins=15):
    return np.mean([gap(p, labels == c, w, by_width(p, num_bins)) for c, p in enumerate(softmax(logits).T)])


def negative_log_likelihood(w, logits, labels):
    return sk.log_loss(labels, softmax(logits), sample_weight=w, labels=range(C))


def brier_score(w, logits, labels):
    return np.average(((softmax(logits) - np.eye(C)[labels]) ** 2).sum(1), weights=w)


def one_vs_rest_auc(w, logits, labels):
    return np.mean([roc_auc(w, p, labels == c) for c, p in enumerate(softmax(logits).T)])


def roc_auc(w, scores, positive):
    up, down = scores[positive & (w != 0)], scores[~positive & (w != 0)]
    return (np.sign(up[:, None] - down) / 2 + 0.5).mean()


def micro_f1(w, logits, labels):
    return sk.f1_score(labels, logits > 0, average="micro", sample_weight=w)


def multilabel_auc(w, logits, labels):
    return np.mean([roc_auc(w, logits[:, c], labels[:, c]) for c in range(C)])


def frechet_distance(w, x, y):
    s, t = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    return np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(s + t - 2 * np.real(sqrtm(s @ t)))


def within_cluster_variance(w, x, labels, k):
    return np.mean([np.sum((row - x[labels == c].mean(0)) ** 2) for row, c in zip(x, labels, strict=True)])


def of_sklearn(function):
    return lambda w, predictions, targets: function(targets, predictions, sample_weight=w)


REFERENCES = {
    "accuracy": accuracy,
    "reliability": reliability,
    "calibration-error": calibration_error,
    "adaptive-calibration-error": adaptive_calibration_error,
    "classwise-calibration-error": classwise_calibration_error,
    "negative-log-likelihood": negative_log_likelihood,
    "brier-score": brier_score,
    "one-vs-rest-auc": one_vs_rest_auc,
    "roc-auc": roc_auc,
    "micro-f1": micro_f1,
    "multilabel-auc": multilabel_auc,
    "frechet-distance": frechet_distance,
    "within-cluster-variance": within_cluster_variance,
    "mean-squared-error": of_sklearn(sk.mean_squared_error),
    "mean-absolute-error": of_sklearn(sk.mean_absolute_error),
    "r2-score": of_sklearn(sk.r2_score),
}
CASES = [(name, {}) for name in OF_ARRAYS] + [
    (name, {"num_bins": bins})
    for name in OF_ARRAYS
    for bins in (1, 7)
    if "num_bins" in inspect.signature(METRICS[name].make).parameters
]


# --- references of graphs -------------------------------------------------------------------------


def largest(matrix):
    return np.linalg.eigvalsh(matrix)[-1]


def normal(a):
    d = a.sum(1) ** -0.5
    return d[:, None] * a * d


def homophily(a, x, labels):
    counted = a * (labels >= 0) * (labels >= 0)[:, None] * (1 - np.eye(len(a)))
    return (counted * (labels[:, None] == labels)).sum() / counted.sum()


def degree_statistics(a, x, labels):
    d = a.sum(1)
    gini = np.abs(d[:, None] - d).mean() / (2 * d.mean())
    return {"mean": d.mean(), "std": d.std(), "max": d.max(), "density": (a != 0).mean(), "gini": gini}


def clustering_coefficient(a, x, labels):
    a = a * (1 - np.eye(len(a)))
    w, k = np.cbrt(a / a.max()), (a > 0).sum(1)
    return np.mean(np.einsum("ij,jk,ki->i", w, w, w) / np.maximum(k * (k - 1), 1))


def davies_bouldin(a, x, labels):
    return sk.davies_bouldin_score(x[labels >= 0], labels[labels >= 0])


def graph_properties(a, x, labels):
    simple, size = a * (1 - np.eye(len(a))), len(a)
    hat = normal(a + np.eye(size))
    laplacian = np.diag(simple.sum(1)) - simple
    return {
        "density": (simple > 0).sum() / (size * (size - 1)),
        "adjacency_eigenvalue": largest(simple),
        "laplacian_eigenvalue": largest(laplacian),
        "normalized_eigenvalue": largest(np.eye(size) - normal(simple)),
        "homophily": homophily(a, x, labels),
        "davies_bouldin": davies_bouldin(a, x, labels),
        "davies_bouldin_propagated": davies_bouldin(a, hat @ hat @ x, labels),
        "clustering": clustering_coefficient(a, x, labels),
    }


def strict_scores(alarm, truth):
    p, r, f, _ = sk.precision_recall_fscore_support(truth, alarm, average="binary")
    tn, fp, fn, tp = sk.confusion_matrix(truth, alarm).ravel()
    counts = {"tp": tp, "fp": fp, "fn": fn, "tn": tn}
    return counts | {"precision": p, "recall": r, "f1": f, "fpr": fp / (fp + tn)}


def on_graph(reference, metric):
    """Compare a metric of ``(graph[, labels])`` or ``(x, labels)`` with a reference on dense arrays."""

    def check(rng):
        a, x, labels = graph(rng)
        given = {"graph": from_adjacency(a, x), "labels": labels, "x": x}
        names = inspect.signature(metric).parameters
        return metric(*(given[n] for n in names if n in given)), reference(a.astype(np.float64), x, labels)

    return check


def check_strict(rng):
    alarm, truth = rng.random((2, 40)) < 0.5
    return metrics.strict_scores(alarm, truth), strict_scores(alarm, truth)


def check_tolerant(rng):
    """A path: an alarm next to the truth is forgiven, a miss next to a hit is found."""
    path = from_adjacency(np.eye(9, k=1) + np.eye(9, k=-1))
    alarm, truth = np.zeros((2, 9), bool)
    alarm[[0, 1, 7]], truth[[1, 2, 5]] = True, True
    found = np.array([0, 1, 1, 0, 0, 0, 0, 1, 0], bool)  # without the forgiven alarm, with the found miss
    expected = strict_scores(found, truth)
    return metrics.tolerant_scores(alarm, truth, path, hops=1), expected | {
        "tn": 4,
        "fpr": 1 / 5,
    }  # forgiven alarms are no true negatives


def check_preservation(rng):
    """Of a condensed graph with edges and of one without."""
    a, x, labels = graph(rng)
    ones = np.ones(len(x), bool)
    task = NodeTask(graph=from_adjacency(a, x), labels=labels, train=ones, val=None, test=None, num_classes=3)
    b, y, targets = graph(rng, 9)
    targets[0] = 1
    small = Condensed(data=from_adjacency(b, y), targets=targets.astype(np.int32))
    before, after = (
        graph_properties(m.astype(np.float64), z, c) for m, z, c in ((a, x, labels), (b, y, targets))
    )
    return metrics.property_preservation(task, small), {n: (before[n], after[n]) for n in before}


ON_GRAPHS = {
    "homophily": on_graph(homophily, metrics.homophily),
    "degree-statistics": on_graph(degree_statistics, metrics.degree_statistics),
    "clustering-coefficient": on_graph(clustering_coefficient, metrics.clustering_coefficient),
    "davies-bouldin": on_graph(davies_bouldin, metrics.davies_bouldin),
    "graph-properties": on_graph(graph_properties, metrics.graph_properties),
    "spectrum": on_graph(
        lambda a, x, labels: np.linalg.eigvalsh(normal(a))[::-1][:5], partial(metrics.spectrum, k=5)
    ),
    "strict-scores": check_strict,
    "tolerant-scores": check_tolerant,
    "property-preservation": check_preservation,
}


# --- tests ----------------------------------------------------------------------------------------


def close(found, expected, **tolerance):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, **{"rtol": 1e-4, "atol": 1e-6} | tolerance)


def arrays(given):
    return {n: jnp.asarray(v) if isinstance(v, np.ndarray) else v for n, v in given.items()}


def test_catalogue():
    """Every public function is an entry of the same name, and every entry a public function."""
    public = {n for n in metrics.__all__ if inspect.isfunction(getattr(metrics, n))}
    assert {name.replace("-", "_") for name in METRICS} == public
    assert set(REFERENCES) | set(ON_GRAPHS) == set(METRICS)
    for entry in METRICS.entries():
        assert entry.make is getattr(metrics, entry.name.replace("-", "_"))
        assert entry.summary.endswith(".")
        assert len(entry.summary) < 80
    with pytest.raises(ValueError, match="did you mean accuracy"):
        METRICS["acuracy"]


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_reference(rng, name, settings):
    given = inputs_of(name, rng)
    expected = REFERENCES[name](np.ones(N), **given, **settings)
    close(METRICS[name].make(**arrays(given), **settings), expected)


@pytest.mark.parametrize("name", [name for name in CASES if name[0] in MASKED])
def test_weights(rng, name):
    """Examples of weight zero do not count, whatever they hold; the others count by their weight."""
    (name, settings), given, w = name, inputs_of(name[0], rng), np.arange(N) % 3
    expected = REFERENCES[name](w, **given, **settings)
    first = next(iter(given))
    spoiled = {
        **given,
        first: np.where((w == 0).reshape(-1, *[1] * (given[first].ndim - 1)), np.nan, given[first]),
    }
    close(METRICS[name].make(**arrays(spoiled), where=jnp.asarray(w), **settings), expected)
    if name not in ("reliability", "roc-auc"):  # a mask of booleans is a weight of one
        mask = METRICS[name].make(**arrays(given), where=jnp.asarray(w > 0), **settings)
        close(mask, REFERENCES[name]((w > 0).astype(float), **given, **settings))


@pytest.mark.parametrize("name", OF_ARRAYS)
def test_jit_and_vmap(rng, name):
    given = [arrays(inputs_of(name, rng)) for _ in range(2)]
    fixed = {n: v for n, v in given[0].items() if not isinstance(v, jax.Array)}
    call = partial(METRICS[name].make, **fixed)
    both = [{n: v for n, v in one.items() if n not in fixed} for one in given]
    alone = [call(**one) for one in both]

    def score(one):
        return call(**one)

    close(jax.jit(score)(both[0]), alone[0], rtol=1e-5)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *both)
    found = jax.jit(jax.vmap(score))(stacked)
    close(found, jax.tree.map(lambda *x: np.stack(x), *alone), rtol=1e-5)


@pytest.mark.parametrize("name", ON_GRAPHS)
def test_graphs(rng, name):
    found, expected = ON_GRAPHS[name](rng)
    if isinstance(expected, dict):
        assert set(found) == set(expected)
    close(found, expected)
