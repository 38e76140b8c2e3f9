"""What turns a task into batches, and batches into a trained classifier."""

from jgd.training.classifier import Metric, classifier, score
from jgd.training.examples import (
    GraphSet,
    Splits,
    all_graphs,
    features_for,
    graph_examples,
    graph_features,
    graph_set,
    graph_splits,
)

__all__ = [
    "GraphSet",
    "Metric",
    "Splits",
    "all_graphs",
    "classifier",
    "features_for",
    "graph_examples",
    "graph_features",
    "graph_set",
    "graph_splits",
    "score",
]
