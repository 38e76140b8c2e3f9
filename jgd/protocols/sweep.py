"""Many condensers on one task, at several sizes: accuracy against size and against time.

Every cell is one condensed set (method, label ratio, seed) with networks trained on it. With a folder each
cell is kept as soon as it is done, as ``<method>-<ratio>-seed<k>.npz`` (the set) and ``.json`` (the numbers,
written last), so that the same call goes on where an earlier one ended. Names are quoted as in addresses
(``a/b`` becomes ``a%2Fb``), so that no two share a file, and a cell says itself whose it is. One process at a
time works in the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jax
import numpy as np
from jaxtyping import Array, Float

from jgd.condense.common import size_of
from jgd.core import Recipe
from jgd.core.fingerprint import difference, fingerprint
from jgd.data import artifact, checksum
from jgd.data.condensed import Condensed
from jgd.data.tasks import NodeTask
from jgd.files import atomic_write, lock, tidy
from jgd.protocols.compare import graph_bytes, versions
from jgd.protocols.evaluate import NETWORKS, PUBLISHED, Protocol, evaluate
from jgd.protocols.experiment import default_experiment
from jgd.protocols.methods import named

__all__ = ["Cell", "MethodComparison", "Row", "compare_methods"]

_MARK = "sweep.json"


@dataclass(frozen=True)
class Cell:
    """One condensed set, and the networks that were trained on it.

    Attributes:
      method: name.
      label_ratio: condensed nodes for each labelled node, as asked for.
      seed: number of the set.
      nodes: its nodes.
      edges: its edges, once in each direction.
      bytes: of features, edges and labels.
      seconds: to make it, compilation included; the first set of a size is therefore the slowest.
      test: ``{model: [networks]}`` accuracies on the test nodes.
      val: the same on the validation nodes.
      error: why there is none, in which case the numbers above are 0 and the accuracies empty.
    """

    method: str
    label_ratio: float
    seed: int
    nodes: int = 0
    edges: int = 0
    bytes: int = 0
    seconds: float = 0.0
    test: Mapping[str, Sequence[float]] = field(default_factory=dict)
    val: Mapping[str, Sequence[float]] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class Row:
    """A method at one size: what tables and plots show of its cells.

    Attributes:
      method: name.
      label_ratio: condensed nodes for each labelled node, as asked for.
      nodes: of a set; also ``edges`` and ``bytes``, all means over sets.
      seconds: to make a set, one number for each.
      test: ``{model: [sets, networks]}`` accuracies on the test nodes.
      errors: of the sets that could not be made.
    """

    method: str
    label_ratio: float
    nodes: float
    edges: float
    bytes: float
    seconds: Float[np.ndarray, " S"]
    test: Mapping[str, Float[np.ndarray, "S n"]]
    errors: tuple[str, ...] = ()

    def accuracy(self, model: str) -> tuple[float, float]:
        """Mean and standard deviation over all sets and networks; NaN where there is no set."""
        values = self.test[model]
        return (float(values.mean()), float(values.std())) if values.size else (float("nan"), float("nan"))

    @property
    def time(self) -> tuple[float, float]:
        """Mean and standard deviation of the seconds; NaN where there is no set."""
        values = self.seconds
        return (float(values.mean()), float(values.std())) if values.size else (float("nan"), float("nan"))


@dataclass(frozen=True)
class MethodComparison:
    """All cells of a comparison of methods.

    Attributes:
      dataset: name of the task.
      setting: transductive or inductive.
      original: nodes, edges and bytes of the whole graph, and its labelled nodes.
      models: architectures.
      full: ``{model: [networks]}`` test accuracies of networks trained on the whole graph.
      full_seconds: time to train them.
      cells: in the order in which they were made.
      protocol: how networks were trained.
      versions: of what the numbers depend on, and the device.
    """

    dataset: str
    setting: str
    original: Mapping[str, int]
    models: tuple[str, ...]
    full: Mapping[str, Float[np.ndarray, " n"]]
    full_seconds: float
    cells: tuple[Cell, ...]
    protocol: Protocol = PUBLISHED
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods."""
        return tuple(dict.fromkeys(cell.method for cell in self.cells))

    def rows(self) -> list[Row]:
        """One row for each method and size, in the order of the methods."""
        places = dict.fromkeys((cell.method, cell.label_ratio) for cell in self.cells)
        order = sorted(places, key=lambda p: (self.methods.index(p[0]), p[1]))
        return [self._row(*place) for place in order]

    def _row(self, method: str, ratio: float) -> Row:
        cells = [c for c in self.cells if (c.method, c.label_ratio) == (method, ratio)]
        done = [c for c in cells if not c.error]

        def mean(name):
            return float(np.mean([getattr(c, name) for c in done])) if done else float("nan")

        return Row(
            method=method,
            label_ratio=ratio,
            nodes=mean("nodes"),
            edges=mean("edges"),
            bytes=mean("bytes"),
            seconds=np.asarray([c.seconds for c in done], np.float64),
            test={m: np.asarray([c.test[m] for c in done], np.float64) for m in self.models}
            if done
            else {m: np.zeros((0, 0)) for m in self.models},
            errors=tuple(dict.fromkeys(c.error for c in cells if c.error)),
        )

    def metrics(self, *, command: str = "") -> dict[str, Any]:
        """Everything as plain JSON values; accuracies are fractions in 0..1."""
        return {
            "dataset": self.dataset,
            "setting": self.setting,
            "original": dict(self.original),
            "full": {m: {"test": v.tolist()} for m, v in self.full.items()},
            "full_seconds": self.full_seconds,
            "rows": [
                {
                    "method": row.method,
                    "label_ratio": row.label_ratio,
                    "nodes": _finite(row.nodes),
                    "edges": _finite(row.edges),
                    "bytes": _finite(row.bytes),
                    "sets": len(row.seconds),
                    "seconds_mean": _finite(row.time[0]),
                    "seconds_std": _finite(row.time[1]),
                    "scores": {
                        m: dict(zip(("test_mean", "test_std"), map(_finite, row.accuracy(m)), strict=True))
                        for m in self.models
                    },
                    "errors": list(row.errors),
                }
                for row in self.rows()
            ],
            "cells": [asdict(cell) for cell in self.cells],
            "protocol": asdict(self.protocol),
            "versions": dict(self.versions),
            "command": command,
        }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def compare_methods(
    methods: Sequence[str] | Mapping[str, Recipe],
    task: NodeTask,
    ratios: Sequence[float] = (0.25, 0.5, 1.0),
    *,
    seeds: int = 3,
    networks: int = 1,
    models: Sequence[str] = ("gcn",),
    key: Array | None = None,
    protocol: Protocol = PUBLISHED,
    folder: str | os.PathLike[str] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> MethodComparison:
    """Condense a task by every method at every size, and train networks on each set.

    A set draws from a key that its method, size and seed determine: what it is does not depend on what else
    is compared. Networks of all methods start from the same keys. A method that refuses the task, or whose
    loss diverges, leaves a cell that says so.

    Args:
      methods: names in `METHODS`, with their authors' settings for this dataset where those are known; or
        recipes by name, whose ``label_ratio`` is replaced.
      task: the original task.
      ratios: condensed nodes for each labelled node.
      seeds: sets for each method and size.
      networks: of each architecture on each set; on the whole graph ``seeds`` times as many.
      models: architectures.
      key: random key; 0 by default.
      protocol: how networks are trained.
      folder: where cells are kept, and found again; nowhere by default.
      say: told what begins.

    Raises:
      ValueError: for an unknown name, an impossible size, or a folder that is in use or holds a comparison
        of other settings; nothing has run then.
    """
    ratios = tuple(dict.fromkeys(float(r) for r in ratios))
    _check(task, ratios, seeds, networks, models)
    recipes = _recipes(methods, task.name, ratios)
    key = jax.random.key(0) if key is None else key
    place = None if folder is None else Path(folder)
    with nullcontext() if place is None else _alone(place):
        store = _Store(place, _settings(recipes, task, networks, models, key, protocol))
        full, cells = _made(recipes, task, seeds, networks, models, key, protocol, store, say)
    return MethodComparison(
        dataset=task.name,
        setting=task.setting,
        original={
            "nodes": task.num_nodes,
            "edges": int(np.sum(task.graph.n_edge)),
            "bytes": graph_bytes(task.graph, task.labels),
            "labelled": int(np.sum(task.train)),
        },
        models=tuple(models),
        full={m: np.asarray(full["test"][m]) for m in models},
        full_seconds=full["seconds"],
        cells=tuple(cells),
        protocol=protocol,
        versions=versions(),
    )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """A folder to oneself, without what killed processes left."""
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder):
        tidy(folder)
        yield


def _made(recipes, task, seeds, networks, models, key, protocol, store, say) -> tuple[dict, list[Cell]]:
    """Scores on the whole graph, and all cells: from the store, or made now."""
    k_sets, k_nets = jax.random.split(key)
    options: dict[str, Any] = {"models": tuple(models), "protocol": protocol}

    count = seeds * networks
    full = store.load(f"full-{count}", {"test", "seconds"}, {})
    if full is None:
        say(f"the whole graph: {count} networks of each kind")
        start = time.perf_counter()
        scores = evaluate(task, task, seeds=count, key=k_nets, **options)
        full = {
            "test": {m: s.test.tolist() for m, s in scores.items()},
            "seconds": time.perf_counter() - start,
        }
        store.save(f"full-{count}", full)

    places = [(name, ratio, seed) for name, ratio in recipes for seed in range(seeds)]
    cells = []
    for number, (name, ratio, seed) in enumerate(places):
        label = _label(name, ratio, seed)
        own = {"method": name, "label_ratio": ratio, "seed": seed}
        known = store.load(_file(label), {f.name for f in fields(Cell)}, own)
        if known is not None:
            cells.append(Cell(**known))
            continue
        say(f"{number + 1} of {len(places)}: {name} at {ratio:g}, seed {seed}")
        keys = jax.random.fold_in(k_sets, zlib.crc32(label.encode())), jax.random.fold_in(k_nets, seed)
        cell, small = _cell(recipes[name, ratio], task, Cell(name, ratio, seed), keys, networks, options)
        cells.append(cell)
        if small is None:
            say(f"{name} at {ratio:g}, seed {seed}, made no set: {cell.error}")
        else:
            store.save(_file(label), asdict(cell), small)
    return full, cells


def _label(name: str, ratio: float, seed: int) -> str:
    """What a cell is called; its random key depends on it."""
    short = f"{ratio:g}"
    return f"{name}-{short if float(short) == ratio else repr(ratio)}-seed{seed}"


def _file(label: str) -> str:
    """A label as the name of a file: other labels have other names, and none is too long."""
    name = quote(label, safe=" ()[]+,=", errors="surrogatepass")
    name = f"%2E{name[1:]}" if name.startswith(".") else name
    if len(name) <= 150:
        return name
    return f"{name[:100]}%{hashlib.blake2b(label.encode(errors='surrogatepass'), digest_size=16).hexdigest()}"


def _recipes(
    methods: Sequence[str] | Mapping[str, Recipe], dataset: str, ratios: Sequence[float]
) -> dict[tuple[str, float], Any]:
    """Recipes by name and ratio, the smaller sets of all methods first."""
    if not methods:
        raise ValueError("name at least one method to compare")
    found: dict[tuple[str, float], Any] = {}
    for ratio in ratios:
        for name in methods:
            if isinstance(methods, Mapping):
                recipe: Any = methods[name]
                if not is_dataclass(recipe) or not {"label_ratio", "nodes"} <= {
                    f.name for f in fields(recipe)
                }:
                    raise ValueError(
                        f"{name} must be one of jgd.condense, or a dataclass with label_ratio and nodes"
                    )
                found[name, ratio] = replace(recipe, label_ratio=ratio, nodes=None)  # pyright: ignore
            else:
                found[name, ratio] = default_experiment(dataset, name, label_ratio=ratio).recipe
    return found


def _check(task, ratios, seeds, networks, models) -> None:
    for what, values in (("ratio", ratios), ("model", models)):
        if not values:
            raise ValueError(f"name at least one {what} to compare")
    for name in models:
        named("model", name, NETWORKS)
    for what, value in (("seeds", seeds), ("networks", networks)):
        if value < 1:
            raise ValueError(f"{what} must be at least 1, got {value}")
    for ratio in ratios:
        size_of(task, ratio, None)


def _cell(recipe, task, cell, keys, networks, options) -> tuple[Cell, Condensed | None]:
    k_set, k_nets = keys
    start = time.perf_counter()
    try:
        small = recipe(k_set, task)
        seconds = time.perf_counter() - start
        scores = evaluate(small, task, seeds=networks, key=k_nets, **options)
    except (ValueError, FloatingPointError) as error:
        return replace(cell, error=" ".join(str(error).split()) or type(error).__name__), None
    done = replace(
        cell,
        nodes=len(small.targets),
        edges=int(np.sum(small.data.n_edge)),
        bytes=graph_bytes(small.data, small.targets),
        seconds=seconds,
        test={m: s.test.tolist() for m, s in scores.items()},
        val={m: s.val.tolist() for m, s in scores.items()},
    )
    said = {"method": cell.method, "seed": cell.seed, "seconds": seconds}
    return done, replace(small, provenance={**small.provenance, **said})


def _settings(recipes, task, networks, models, key, protocol) -> dict[str, Any]:
    """What cells of one folder share. Ratios, seeds and methods may be added later."""
    return {
        "dataset": task.name,
        "setting": task.setting,
        "checksum": checksum(task),
        "networks": networks,
        "models": list(models),
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "protocol": asdict(protocol),
        "methods": {
            f"{name} at {ratio:g}": {"recipe": type(r).__name__, **_plain(asdict(r))}
            for (name, ratio), r in recipes.items()
        },
    }


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as JSON values: functions and the like by what they are made of, and not by their address."""
    return json.loads(json.dumps(settings, default=fingerprint))


class _Store:
    """Cells in a folder, or nowhere."""

    def __init__(self, folder: Path | None, settings: dict[str, Any]):
        self.folder = folder
        if self.folder is None:
            return
        settings = _plain(settings)
        mark = self.folder / _MARK
        if mark.exists():
            settings = self._joined(mark, settings)
        elif self.folder.is_dir() and any(self.folder.glob("*.json")):
            raise ValueError(f"{self.folder} holds something else: choose another folder")
        self._write(_MARK, settings)

    def _joined(self, mark: Path, now: dict[str, Any]) -> dict[str, Any]:
        try:
            before = json.loads(mark.read_text(encoding="utf-8"))
            old = dict(before["methods"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{mark} cannot be read: choose another folder") from error
        differs = [k for k in now if k != "methods" and now[k] != before.get(k)]
        differs += [f"settings of {m}" for m, v in now["methods"].items() if old.get(m, v) != v]
        if differs:
            raise ValueError(
                f"{self.folder} holds a comparison with other {', '.join(differs)}: choose another folder"
            )
        return {**now, "methods": {**old, **now["methods"]}}

    def _write(self, name: str, value: Any) -> None:
        assert self.folder is not None
        with atomic_write(self.folder / name, "w") as file:
            json.dump(value, file, indent=1)
            file.write("\n")

    def load(self, label: str, names: set[str], own: dict[str, Any]) -> dict[str, Any] | None:
        """What was saved: a record with these names, which says itself that it is this cell's own."""
        if self.folder is None or not (self.folder / f"{label}.json").exists():
            return None
        path = self.folder / f"{label}.json"
        try:
            found = dict(json.loads(path.read_text(encoding="utf-8")))
            if set(found) != names:
                raise ValueError(f"it says {sorted(found)}, not {sorted(names)}")
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{path} is damaged: remove it and run again") from error
        if other := difference({k: found[k] for k in own}, own):
            raise ValueError(f"{path} is another cell's ({other}): remove it and run again")
        return found

    def save(self, label: str, value: dict[str, Any], small: Condensed | None = None) -> None:
        if self.folder is None:
            return
        if small is not None:
            artifact.save(small, self.folder / f"{label}.npz")
        self._write(f"{label}.json", value)
