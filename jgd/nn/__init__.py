"""Networks (Flax linen)."""

from jgd.nn.conv import Conv, ConvNet, ConvNorm, avg_pool, conv2d, max_pool
from jgd.nn.gnn import APPNP, GAT, GCN, GIN, GPRGNN, MLP, SGC, ChebNet, GraphSAGE, Readout
from jgd.nn.layers import Dropout, Linear, Norm
from jgd.nn.mobile import MobileNetV2, ShuffleNetV1, ShuffleNetV2
from jgd.nn.perceptron import Perceptron
from jgd.nn.resnet import ResNet, WideResNet
from jgd.nn.transformer import TextTransformer, VisionTransformer
from jgd.nn.vgg import VGG
from jgd.nn.zoo import NETWORKS, network

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
    "Linear",
    "MLP",
    "MobileNetV2",
    "NETWORKS",
    "Norm",
    "Perceptron",
    "Readout",
    "ResNet",
    "SGC",
    "ShuffleNetV1",
    "ShuffleNetV2",
    "TextTransformer",
    "VGG",
    "VisionTransformer",
    "WideResNet",
    "avg_pool",
    "conv2d",
    "max_pool",
    "network",
]
