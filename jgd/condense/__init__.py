"""Condense: a dataset into a tiny synthetic dataset.

Every method is a recipe: ``small = jgd.condense.clustgdd(label_ratio=0.5)(key, task)``. `METHODS` is the
catalogue of their names; a name with underscores is what it makes (``gcond_x`` for ``"gcond-x"``), and the
classes are here too (``GCondX``). README.md of this package shows how a method is put together.
"""

from importlib import import_module
from typing import Any

from jgd.registry import Catalog

__all__ = ["METHODS"]

METHODS = Catalog(
    "method",
    "jgd.condense",
    {
        "_clustgdd": ("clustgdd",),
        "coresets": ("random", "herding", "k-center", "degree", "pagerank"),
        "_averaging": ("average", "average-sgc", "clustering"),
        "_coarsening": (
            *("variation-neighborhoods", "variation-edges", "variation-cliques"),
            *("heavy-edge", "algebraic-jc", "affinity-gs", "kron"),
        ),
        "_vng": ("vng",),
        "_cgc": ("cgc", "cgc-x"),
        "_gcond": ("gcond", "gcond-x", "doscond", "doscond-x"),
        "_sgdd": ("sgdd",),
        "_gcdm": ("gcdm", "gcdm-x", "dm"),
        "_simgc": ("simgc",),
        "_sfgc": ("sfgc",),
        "_geom": ("geom",),
        "_gcsr": ("gcsr",),
        "_sntk": ("gc-sntk",),
        "_gdem": ("gdem",),
        "_mirage": ("mirage",),
        "_doscond_graphs": ("doscond-graphs",),
        "_kidd": ("kidd",),
    },
)


def __getattr__(name: str) -> Any:
    """Return what a method of the catalogue makes, by its name or as a class."""
    method = name.replace("_", "-")
    if method in METHODS:
        return METHODS[method].make
    if not name.startswith("_"):
        for entry in METHODS.entries() if name[:1].isupper() else ():
            if getattr(entry.make, "__name__", None) == name:
                return entry.make
        try:
            return import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    classes = {entry.make.__name__ for entry in METHODS.entries() if isinstance(entry.make, type)}
    return sorted({*globals(), *classes, *(name.replace("-", "_") for name in METHODS)})
