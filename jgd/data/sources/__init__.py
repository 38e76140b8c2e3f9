"""Readers of a user's own data by path, one file a format.

=======================================  ==================================================================
``NAME.npz``                             arrays of a graph, of a set of graphs, or of examples: `arrays`
``NAME.pt``                              a ``Data`` of PyTorch Geometric, or a list of them: `pyg`
``NAME.csv``, ``NAME.tsv``               a table of features with a column of labels: `tables`
``NAME.graphml``, ``NAME.json``          a graph in GraphML or node-link JSON: `networks`
a folder with ``nodes.csv``              tables of one graph, or of a set with ``graphs.csv``: `tables`
a folder with ``ind.NAME.*``             a citation graph in the files of Planetoid
a folder with ``NAME_A.txt``             a set of graphs in the files of TUDataset
a folder or archive of class folders     images ``CLASS/FILE.png`` or ``train/CLASS/FILE.png``
=======================================  ==================================================================

What a file lacks is generated and reported: splits (60/20/20 %, class by class, seeded), features of nodes
that have none. Nothing is read without bounds, and no pickle is executed.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jgd.data.images import image_folder
from jgd.data.planetoid import planetoid
from jgd.data.prepare import DEFAULT_SPLIT, complete_splits
from jgd.data.sources.arrays import read_arrays
from jgd.data.sources.assemble import Found, Options
from jgd.data.sources.networks import read_graphml, read_node_link
from jgd.data.sources.pyg import read_pyg
from jgd.data.sources.tables import read_feature_table, read_graph_tables
from jgd.data.storage import DataError
from jgd.data.tu import tu

__all__ = ["Found", "Options", "looks_like_path", "read", "short_name"]

_COMMON = ("split", "seed")
_GRAPH = (*_COMMON, "label", "undirected", "missing", "standardize", "ignore")
_Reader = Callable[[Path, str, Options], Found]

# suffix -> reader, the options that it takes
_FILES: dict[str, tuple[_Reader, tuple[str, ...]]] = {
    ".npz": (read_arrays, _GRAPH),
    ".pt": (read_pyg, (*_COMMON, "label", "undirected", "missing", "standardize")),
    ".pth": (read_pyg, (*_COMMON, "label", "undirected", "missing", "standardize")),
    ".csv": (read_feature_table, (*_COMMON, "label", "missing", "standardize", "ignore")),
    ".tsv": (read_feature_table, (*_COMMON, "label", "missing", "standardize", "ignore")),
    ".graphml": (read_graphml, _GRAPH),
    ".json": (read_node_link, _GRAPH),
}
_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")
_PICTURES = (".jpg", ".jpeg", ".png")


def looks_like_path(name: str | os.PathLike[str]) -> bool:
    """Return whether a text that is no name of a dataset looks like a path."""
    if not isinstance(name, str):
        return True
    if "\0" in name or not name:
        return False
    path = Path(name).expanduser()
    known = name.lower().endswith((*_FILES, *_ARCHIVES))
    return known or name.startswith((".", "~")) or "/" in name or os.sep in name or _exists(path)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long a name
        return False


def short_name(path: str | os.PathLike[str]) -> str:
    """Return the name of data at a path, without its ending, in characters that suit any file name."""
    name = Path(os.path.abspath(Path(path).expanduser())).name
    for ending in sorted((*_FILES, *_ARCHIVES), key=len, reverse=True):
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
            break
    return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-.")[:60] or "data"


def read(path: str | os.PathLike[str], **options: Any) -> Found:
    """Read a user's own data.

    Args:
      path: File or folder, see the module.
      **options: Fields of `Options`.

    Returns:
      The task, and one line for each thing that was mapped, generated or left out.

    Raises:
      DataError: If the path is missing, of an unknown format or damaged, or the format lacks an option.
    """
    known = [field.name for field in dataclasses.fields(Options)]
    if unknown := [name for name in options if name not in known]:
        raise DataError(f"{path}: there is no option {unknown[0]}; there are {', '.join(known)}")
    chosen = _checked(options)
    path = Path(path).expanduser()
    if not _exists(path):
        raise DataError(f"there is no file or folder {path}")
    reader, takes = _reader(path)
    for field in dataclasses.fields(Options):
        if field.name not in takes and getattr(chosen, field.name) != field.default:
            raise DataError(f"{path}: {field.name} is no option of this format, which has {', '.join(takes)}")
    return reader(path, short_name(path), chosen)


def _checked(given: dict[str, Any]) -> Options:
    ignore = given.get("ignore", ())
    options = Options(**{**given, "ignore": (ignore,) if isinstance(ignore, str) else tuple(ignore)})
    if options.missing not in ("refuse", "impute"):
        raise DataError(f'missing must be "refuse" or "impute", got {options.missing!r}')
    if isinstance(options.seed, bool) or not isinstance(options.seed, int) or options.seed < 0:
        raise DataError(f"seed must be a whole number, at least 0, got {options.seed!r}")
    return options


def _reader(path: Path) -> tuple[_Reader, tuple[str, ...]]:
    """Choose the reader of a file or folder, and list its options."""
    pictures = (*_COMMON, "size", "grey")
    if path.is_dir():
        if (path / "nodes.csv").is_file() or (path / "edges.csv").is_file():
            return read_graph_tables, _GRAPH
        if any(path.glob("ind.*.allx")):
            return _planetoid, _COMMON
        if any(path.glob("*_A.txt")):
            return _tu, _COMMON
        if any(f.suffix.lower() in _PICTURES for f in path.rglob("*")):
            return _images, pictures
        raise DataError(
            f"{path} holds nothing that is known: expected nodes.csv and edges.csv, ind.NAME.* (Planetoid), "
            "NAME_A.txt (TUDataset), or class folders of JPEG and PNG images"
        )
    lower = path.name.lower()
    if lower.endswith(_ARCHIVES):
        return _images, pictures
    if path.suffix.lower() in _FILES:
        return _FILES[path.suffix.lower()]
    raise DataError(
        f"{path}: files end in {', '.join(_FILES)}, or {', '.join(_ARCHIVES[:3])} for images, "
        f"not in {path.suffix or 'no suffix'}"
    )


# Formats that have a loader by name


def _again_split(task: Any, given: dict[str, Any], options: Options, notes: list[str]) -> Found:
    """Add the splits that are missing or requested by the options."""
    labels = np.asarray(task.labels if hasattr(task, "labels") else task.y)
    try:
        masks, made = complete_splits(labels, given, options.split, kind=task.target_kind, seed=options.seed)
    except ValueError as error:
        raise DataError(f"{task.name}: {error}") from None
    return Found(dataclasses.replace(task, **masks), (*notes, *([made] if made else [])))


def _only(folder: Path, found: list[str]) -> str:
    if len(found) > 1:
        raise DataError(
            f"{folder} holds several datasets, {' and '.join(sorted(found)[:3])}: one to a folder"
        )
    return found[0]


def _planetoid(folder: Path, name: str, options: Options) -> Found:
    stem = _only(folder, [f.name.split(".")[1] for f in folder.glob("ind.*.allx")])
    task = planetoid(stem, folder=folder)
    parts = {part: getattr(task, part) for part in ("train", "val", "test")}
    return _again_split(
        task, parts, options, ["features divided by their sums; edges both ways, without self loops"]
    )


def _tu(folder: Path, name: str, options: Options) -> Found:
    task = tu(_only(folder, [f.name.removesuffix("_A.txt") for f in folder.glob("*_A.txt")]), folder=folder)
    values = np.asarray(task.extras["label_values"]).tolist()
    if values != list(range(len(values))):
        task = dataclasses.replace(task, class_names=tuple(values))
    return _again_split(task, {}, options, [])


def _images(path: Path, name: str, options: Options) -> Found:
    shares: Any = DEFAULT_SPLIT if options.split is None else tuple(options.split)
    task = image_folder(
        path, size=options.size, grey=options.grey, name=name, fractions=shares, seed=options.seed
    )
    given = {part: getattr(task, part) for part in ("train", "val", "test")}
    if not path.is_dir():
        return _again_split(
            task, given, options, ["split: as the folders say, else 60/20/20 % of each class"]
        )
    files = [f.relative_to(path).parts for f in path.rglob("*") if f.suffix.lower() in _PICTURES]
    names = tuple(sorted({parts[-2] for parts in files if len(parts) > 1}))
    if len(names) == task.num_classes:
        task = dataclasses.replace(task, class_names=names)
    return _again_split(task, given if any(len(parts) > 2 for parts in files) else {}, options, [])
