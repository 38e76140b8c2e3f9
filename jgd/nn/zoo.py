"""Networks by name.

A name of the catalogue belongs to one network (``gcn``) or to a family (``resnet*``). In the name of a
family, ``*`` stands for a whole number and ``**`` for several of them joined by hyphens; its members are
named by numbers, as in the literature::

    network("gcn", task)        # a graph task: GCN(task.num_classes)
    network("resnet20", task)   # images: ResNet(task.num_classes, 20)
    NETWORKS["resnet*"].make(10, 20)

``make`` takes the number of classes and then the numbers of the name, in a family of texts also
``vocab_size`` and ``length``. The summary of a family names one of its members as an example.
"""

from __future__ import annotations

import re
from typing import Any

import flax.linen as nn
import numpy as np

from jgd.data import ArrayTask, GraphTask, NodeTask
from jgd.nn.gnn import Readout
from jgd.registry import Catalog

__all__ = ["NETWORKS", "members", "network"]

NETWORKS = Catalog(
    "network",
    "jgd.nn",
    {
        "gnn": ("gcn", "sgc", "sage", "gat", "appnp", "cheb", "gin", "mlp", "gprgnn"),
        "perceptron": ("mlp-**",),
        "conv": ("convnet-*-*",),
        "resnet": ("resnet*", "resnet*x4", "wrn-*-*"),
        "vgg": ("vgg*",),
        "transformer": ("transformer-*-*",),
    },
)
"""Networks that can be named."""

_READ = {"nodes": "nodes", "graphs": "sets of graphs", "arrays": "images", "texts": "texts"}
_POOLED = 128  # width of what the readout of a graph network pools


def _pattern(name: str) -> str:
    """Return the regular expression of a name, with one group for each star."""
    return re.escape(name).replace(r"\*\*", r"(\d+(?:-\d+)*)").replace(r"\*", r"(\d+)")


def _example(name: str) -> str:
    """Return a name that `network` knows: the name itself, or the member that a family's summary names."""
    found = re.search(rf"\b{_pattern(name)}\b", NETWORKS[name].summary) if "*" in name else None
    return found.group() if found else name


def members(kind: str) -> tuple[str, ...]:
    """Return names of networks of one kind of data: all plain ones and one member of each family.

    Args:
      kind: Kind of data: ``"nodes"``, ``"graphs"``, ``"arrays"`` or ``"texts"``.
    """
    return tuple(_example(entry.name) for entry in NETWORKS.entries() if kind in entry.kinds)


def _kind(task: Any) -> str:
    if isinstance(task, NodeTask | GraphTask):
        return "nodes" if isinstance(task, NodeTask) else "graphs"
    dtype = np.asarray(task.x).dtype  # rows of bytes are pixels
    words = np.issubdtype(dtype, np.integer) and dtype != np.uint8 and np.ndim(task.x) == 2
    return "texts" if words else "arrays"


def network(name: str, task: NodeTask | GraphTask | ArrayTask) -> nn.Module:
    """Return the network of a name with as many outputs as a task has classes.

    Args:
      name: Name of a network of `NETWORKS` or of a member of a family: ``mlp-<widths of hidden layers>``,
        ``convnet-<width>-<depth>``, ``resnet<depth>``, ``resnet<depth>x4`` (channels 32, 64, 128 and 256),
        ``wrn-<depth>-<widening>``, ``vgg<depth>`` for images, ``transformer-<width>-<depth>`` for texts.
      task: Task whose inputs it reads. For a set of graphs, the network is wrapped in a `jgd.nn.Readout`.

    Raises:
      ValueError: If the name is unknown, or the network cannot read the inputs of the task.
    """
    kind = _kind(task)
    known = f"networks of {_READ[kind]} are {', '.join(members(kind))}"
    found = [(e, m) for e in NETWORKS.entries() if (m := re.fullmatch(_pattern(e.name), name))]
    if not found:
        raise ValueError(f"no network is called {name!r}: {known}")
    ((entry, match),) = found
    if kind not in entry.kinds:
        raise ValueError(f"{name} does not read {_READ[kind]}: {known}")
    numbers = [int(n) for group in match.groups() for n in group.split("-")]
    if kind == "graphs":
        return Readout(entry.make(_POOLED, *numbers), task.num_classes)
    if kind == "texts" and isinstance(task, ArrayTask):
        sizes = {"vocab_size": int(np.max(task.x)) + 1, "length": np.shape(task.x)[1]}
        return entry.make(task.num_classes, *numbers, **sizes)
    return entry.make(task.num_classes, *numbers)
