"""Scores of one set and network as plain arrays, for the tests of evaluation."""

from types import SimpleNamespace


def numbers(score):
    """Scores for each seed, curves and means of one set and network."""
    found = SimpleNamespace(test=score.seeds(), val=score.seeds("val"), test_mean=score.test_mean)
    found.val_mean, found.score = score.val_mean, score
    if score.curve is not None:
        found.curve, found.loss, found.seconds = score.curve.score, score.curve.loss, score.curve.seconds
    if "auc" in score.axes["metric"]:
        found.auc, found.val_auc = score["auc"].seeds(), score["auc"].seeds("val")
        found.auc_mean = score["auc"].test_mean
    return found
