"""Objectives and networks of distillation by name: what the command line knows.

Weights are the authors'; those of objectives on embeddings are for batches of 64.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from jgd import distill, losses
from jgd.core import Objective, weighted
from jgd.data.tasks import ArrayTask
from jgd.distill import supervised
from jgd.nn import VGG, Perceptron, ResNet, TextTransformer, WideResNet

__all__ = ["NETWORK_NAMES", "OBJECTIVES", "Named", "network"]


class Named(NamedTuple):
    """An objective that can be named.

    Attributes:
      make: makes it.
      paper: where it comes from.
      summary: what of student and teacher is compared, in one line.
    """

    make: Callable[[], Objective]
    paper: str
    summary: str


def _beside_labels(weight: float, make: Callable[[], Objective]) -> Callable[[], Objective]:
    return lambda: weighted(ce=(1.0, supervised()), more=(weight, make()))


OBJECTIVES: Mapping[str, Named] = {
    "ce": Named(supervised, "-", "labels alone, no teacher"),
    "kd": Named(distill.hinton, "Hinton et al. 2015", "softened class probabilities"),
    "reverse-kl": Named(
        partial(distill.hinton, divergence=losses.reverse_kl), "-", "the same, the student's modes first"
    ),
    "dkd": Named(distill.dkd, "Zhao et al. 2022", "the label and the other classes apart"),
    "nkd": Named(distill.nkd, "Yang et al. 2023", "the other classes, normalised among themselves"),
    "dist": Named(distill.dist, "Huang et al. 2022", "correlations over classes and over examples"),
    "standardized": Named(distill.standardized, "Sun et al. 2024", "logits over their deviation"),
    "ctkd": Named(partial(distill.ctkd, ramp_steps=300), "Li et al. 2023", "a temperature that resists"),
    "pld": Named(distill.pld, "Bassam et al. 2025", "the order of the classes, weighed by the teacher"),
    "listmle": Named(partial(distill.term, losses.listmle), "Xia et al. 2008", "the order of the classes"),
    "fitnet": Named(
        _beside_labels(1.0, partial(distill.term, losses.hint, at="embedding", adapt=distill.linear)),
        "Romero et al. 2015",
        "embeddings, after a linear map",
    ),
    "rkd": Named(_beside_labels(1.0, distill.rkd), "Park et al. 2019", "distances and angles of embeddings"),
    "sp": Named(
        _beside_labels(3000.0, partial(distill.similarity, at="embedding")),
        "Tung & Mori 2019",
        "which examples are alike",
    ),
    "pkt": Named(_beside_labels(30000.0, distill.pkt), "Passalis & Tefas 2018", "the same as a distribution"),
    "crd": Named(_beside_labels(0.8, distill.crd), "Tian et al. 2020", "embeddings, by contrast"),
    "mi": Named(
        _beside_labels(0.1, distill.mi_alpha), "He et al. 2021", "the information of embeddings, by a bound"
    ),
}
"""The objectives that need nothing but logits and an embedding."""

NETWORK_NAMES = "mlp-64-32, resnet20, resnet8x4, wrn-16-2, vgg8 for images, transformer-96-3 for texts"
"""Examples of names that `network` knows, for messages."""


def network(name: str, task: ArrayTask) -> nn.Module:
    """A network by the name that the literature of distillation gives it.

    Args:
      name: ``mlp-<widths of hidden layers>``, ``resnet<depth>``, ``resnet<depth>x4`` (of channels 32, 64, 128
        and 256), ``wrn-<depth>-<widening>``, ``vgg<depth>``, or ``transformer-<width>-<depth>``, the only one
        that reads texts.
      task: what it classifies.

    Raises:
      ValueError: for another name, or a network that cannot read these examples.
    """
    found = [make for pattern, make in _MAKERS.items() if re.fullmatch(pattern, name)]
    if not found:
        raise ValueError(f"no network is called {name!r}: there are {NETWORK_NAMES}")
    texts = np.issubdtype(np.asarray(task.x).dtype, np.integer) and np.ndim(task.x) == 2
    if texts != name.startswith("transformer"):
        what = "texts" if texts else "images"
        raise ValueError(f"{name} does not read {what}: networks are {NETWORK_NAMES}")
    return found[0](task, *map(int, re.findall(r"\d+", name)))


def _transformer(task: ArrayTask, width: int, depth: int) -> TextTransformer:
    vocabulary, length = int(np.max(task.x)) + 1, np.shape(task.x)[1]
    return TextTransformer(task.num_classes, vocabulary, width=width, depth=depth, length=length)


_MAKERS: Mapping[str, Callable[..., Any]] = {
    r"mlp(-\d+)+": lambda task, *widths: Perceptron(task.num_classes, widths),
    r"resnet\d+": lambda task, depth: ResNet(task.num_classes, depth),
    r"resnet\d+x4": lambda task, depth, _: ResNet(task.num_classes, depth, widths=(32, 64, 128, 256)),
    r"wrn-\d+-\d+": lambda task, depth, widen: WideResNet(task.num_classes, depth, widen),
    r"vgg\d+": lambda task, depth: VGG(task.num_classes, depth),
    r"transformer-\d+-\d+": _transformer,
}
"""By pattern of the name: ``(task, *numbers in the name) -> network``."""
