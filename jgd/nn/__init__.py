"""Networks (Flax linen)."""

from jgd.nn.classifier import Splits, classifier, features_for, split_accuracy
from jgd.nn.conv import Conv, ConvNet, ConvNorm, avg_pool, conv2d, max_pool
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
from jgd.nn.mobile import MobileNetV2, ShuffleNetV1, ShuffleNetV2
from jgd.nn.perceptron import Perceptron
from jgd.nn.resnet import ResNet, WideResNet
from jgd.nn.transformer import TextTransformer, VisionTransformer
from jgd.nn.vgg import VGG

__all__ = [
    "APPNP",
    "ChebNet",
    "Conv",
    "ConvNet",
    "ConvNorm",
    "Dropout",
    "GAT",
    "GCN",
    "GIN",
    "GPRGNN",
    "GraphSAGE",
    "GraphSet",
    "GraphSplits",
    "Linear",
    "MLP",
    "MobileNetV2",
    "Norm",
    "Perceptron",
    "Readout",
    "ResNet",
    "SGC",
    "ShuffleNetV1",
    "ShuffleNetV2",
    "Splits",
    "TextTransformer",
    "VGG",
    "VisionTransformer",
    "WideResNet",
    "all_graphs",
    "avg_pool",
    "classifier",
    "conv2d",
    "features_for",
    "graph_classifier",
    "graph_examples",
    "graph_features",
    "graph_scores",
    "graph_set",
    "graph_splits",
    "max_pool",
    "split_accuracy",
]
