"""Networks (Flax linen)."""

from jgd.nn.classifier import Splits, classifier, features_for, split_accuracy
from jgd.nn.gnn import APPNP, GAT, GCN, GIN, GPRGNN, MLP, SGC, ChebNet, GraphSAGE, Readout
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
    "Linear",
    "Norm",
    "Readout",
    "Splits",
    "classifier",
    "features_for",
    "split_accuracy",
]
