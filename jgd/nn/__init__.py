"""Networks (Flax linen)."""

from jgd.nn.classifier import Splits, classifier, features_for, split_accuracy
from jgd.nn.gnn import APPNP, GAT, GCN, GIN, GPRGNN, MLP, SGC, ChebNet, GraphSAGE, Readout
from jgd.nn.graph_classifier import (
    GraphSet,
    GraphSplits,
    all_graphs,
    graph_classifier,
    graph_examples,
    graph_features,
    graph_scores,
    graph_set,
    graph_splits,
)
from jgd.nn.layers import Dropout, Linear, Norm

__all__ = [
    "APPNP",
    "GAT",
    "GCN",
    "GIN",
    "GPRGNN",
    "MLP",
    "SGC",
    "ChebNet",
    "Dropout",
    "GraphSAGE",
    "GraphSet",
    "GraphSplits",
    "Linear",
    "Norm",
    "Readout",
    "Splits",
    "classifier",
    "all_graphs",
    "features_for",
    "graph_classifier",
    "graph_examples",
    "graph_features",
    "graph_scores",
    "graph_set",
    "graph_splits",
    "split_accuracy",
]
