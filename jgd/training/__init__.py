"""What turns a task into batches, changes batches, and fits a classifier to them."""

from jgd.registry import Catalog
from jgd.training._classifier import Metric, classifier, score
from jgd.training.augment import (
    Augmentation,
    chain,
    crop_flip,
    cutmix,
    gaussian_noise,
    mixup,
    token_dropout,
    token_swap,
)
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
    "AUGMENTATIONS",
    "Augmentation",
    "GraphSet",
    "Metric",
    "Splits",
    "all_graphs",
    "chain",
    "classifier",
    "crop_flip",
    "cutmix",
    "features_for",
    "gaussian_noise",
    "graph_examples",
    "graph_features",
    "graph_set",
    "graph_splits",
    "mixup",
    "score",
    "token_dropout",
    "token_swap",
]

AUGMENTATIONS = Catalog(
    "augmentation",
    "jgd.training",
    {"augment": ("mixup", "cutmix", "crop-flip", "gaussian-noise", "token-swap", "token-dropout")},
)
"""Augmentations that can be named."""
