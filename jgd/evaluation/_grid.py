"""Methods × sizes × seeds on one task: scores against size and against time.

Every cell is one condensed set (method, size, seed) with networks trained on it. With a folder each
cell is kept as soon as it is done, as ``<method>-<size>-seed<k>.npz`` (the set) and ``.json`` (the numbers,
written last), so that the same call goes on where an earlier one ended. Names are quoted as in addresses
(``a/b`` becomes ``a%2Fb``), so that no two share a file, and a cell names its method, size and seed. One
process at a time works in the folder.
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
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jax
import numpy as np
from jaxtyping import Array, Float

from jgd.condense import METHODS
from jgd.core import Recipe
from jgd.core.fingerprint import difference, fingerprint
from jgd.data import Condensed, artifact, checksum
from jgd.evaluation._compare import METRIC_TITLES, score_columns, size_columns, versions
from jgd.evaluation._evaluate import evaluate
from jgd.evaluation.config import EvalConfig
from jgd.evaluation.kinds import KINDS, Kind, kind_of
from jgd.evaluation.networks import network_title
from jgd.files import atomic_write, lock, tidy
from jgd.registry import choose
from jgd.report import Column, Comparison, Line, Picture, plot_lines
from jgd.report.page import percent, size_text

__all__ = ["Cell", "Grid", "Row", "cell_file", "grid"]

_MARK = "sweep.json"


@dataclass(frozen=True)
class Cell:
    """One condensed set, and the networks that were trained on it.

    Attributes:
      method: Name of the method.
      size: How small the set was asked to be, by the setting of the kind of data (`Grid.budget`).
      seed: Number of the set.
      sizes: What it is: nodes, edges, bytes and the like.
      seconds: Time to make it, compilation included; the first set of a size is therefore the slowest.
      test: ``{network: {metric: [networks]}}`` on the test examples.
      val: The same on the validation examples.
      error: Why there is none; the numbers above are then 0 or empty.
    """

    method: str
    size: float
    seed: int
    sizes: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    test: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    val: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class Row:
    """A method at one size: what tables and plots show of its cells.

    Attributes:
      method: Name of the method.
      size: How small its sets were asked to be.
      sizes: What they are, means over sets: nodes, edges, bytes and the like.
      seconds: Time to make a set, one number for each.
      test: ``{network: {metric: [sets, networks]}}`` on the test examples.
      errors: Of the sets that could not be made.
    """

    method: str
    size: float
    sizes: Mapping[str, float]
    seconds: Float[np.ndarray, " S"]
    test: Mapping[str, Mapping[str, Float[np.ndarray, "S n"]]]
    errors: tuple[str, ...] = ()

    def score(self, network: str, metric: str = "accuracy") -> tuple[float, float]:
        """Return mean and standard deviation over all sets and networks; NaN where there is no set.

        Args:
          network: Name of the architecture.
          metric: Name of the metric.
        """
        return _mean_std(self.test.get(network, {}).get(metric, np.zeros(0)))

    @property
    def time(self) -> tuple[float, float]:
        """Mean and standard deviation of the seconds; NaN where there is no set."""
        return _mean_std(self.seconds)


def _mean_std(values: np.ndarray) -> tuple[float, float]:
    return (float(values.mean()), float(values.std())) if values.size else (float("nan"), float("nan"))


@dataclass(frozen=True)
class Grid:
    """All cells of methods × sizes × seeds.

    Attributes:
      dataset: Name of the task.
      kind: Kind of the data.
      setting: ``"transductive"`` or ``"inductive"``; None for data without edges between examples.
      budget: Setting of the methods that says how small a set is.
      original: Sizes of the whole training data.
      networks: Architectures.
      metrics: Metrics, the headline first.
      full: ``{network: {metric: [networks]}}`` on the test examples, trained on the whole training data.
      full_seconds: Time to train them.
      cells: In the order in which they were made.
      config: How networks were trained.
      versions: Versions of what the numbers depend on, and the device.
      protocol: How networks were trained and tested, in words.
    """

    dataset: str
    kind: str
    setting: str | None
    budget: str
    original: Mapping[str, int]
    networks: tuple[str, ...]
    metrics: tuple[str, ...]
    full: Mapping[str, Mapping[str, Float[np.ndarray, " n"]]]
    full_seconds: float
    cells: tuple[Cell, ...]
    config: EvalConfig
    versions: Mapping[str, str] = field(default_factory=dict)
    protocol: str = ""

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods."""
        return tuple(dict.fromkeys(cell.method for cell in self.cells))

    def rows(self) -> list[Row]:
        """Return one row for each method and size, in the order of the methods."""
        places = dict.fromkeys((cell.method, cell.size) for cell in self.cells)
        order = sorted(places, key=lambda p: (self.methods.index(p[0]), p[1]))
        return [self._row(*place) for place in order]

    def _row(self, method: str, size: float) -> Row:
        cells = [c for c in self.cells if (c.method, c.size) == (method, size)]
        done = [c for c in cells if not c.error]
        return Row(
            method=method,
            size=size,
            sizes={name: float(np.mean([c.sizes[name] for c in done])) for name in self.original if done},
            seconds=np.asarray([c.seconds for c in done], np.float64),
            test={
                n: {m: np.asarray([c.test[n][m] for c in done], np.float64) for m in self.metrics}
                for n in self.networks
                if done
            },
            errors=tuple(dict.fromkeys(c.error for c in cells if c.error)),
        )

    def comparison(self) -> Comparison:
        """Return the grid as a table with pictures, for the terminal, HTML, Markdown and JSON."""
        return _comparison(self)

    def record(self, *, command: str = "") -> dict[str, Any]:
        """Return everything as plain JSON values; scores are fractions in 0..1.

        Args:
          command: What the user typed, for the record.
        """
        return {
            "dataset": self.dataset,
            "kind": self.kind,
            "setting": self.setting,
            "budget": self.budget,
            "original": dict(self.original),
            "full": {n: {m: v.tolist() for m, v in of.items()} for n, of in self.full.items()},
            "full_seconds": self.full_seconds,
            "rows": [
                {
                    "method": row.method,
                    self.budget: row.size,
                    **{name: row.sizes.get(name) for name in self.original},
                    "sets": len(row.seconds),
                    "seconds_mean": _finite(row.time[0]),
                    "seconds_std": _finite(row.time[1]),
                    "scores": {
                        n: {
                            f"{m}_{what}": _finite(value)
                            for m in self.metrics
                            for what, value in zip(("mean", "std"), row.score(n, m), strict=True)
                        }
                        for n in self.networks
                    },
                    "errors": list(row.errors),
                }
                for row in self.rows()
            ],
            "cells": [asdict(cell) for cell in self.cells],
            "evaluation": asdict(self.config),
            "versions": dict(self.versions),
            "command": command,
        }


def _comparison(found: Grid) -> Comparison:
    """Return the cells of a grid as a table, and pictures against size and time."""
    kind = KINDS[found.kind].make()
    whole, budget = kind.words.whole, found.budget.replace("_", " ")
    rows: list[dict[str, Any]] = [
        {
            "name": whole,
            **found.original,
            **{f"{n}/{m}": found.full[n][m] for n in found.networks for m in found.metrics},
            "reference": True,
        }
    ]
    for row in sorted(found.rows(), key=lambda row: row.size):
        rows.append(
            {
                "name": row.method,
                "group": f"{budget} {row.size:g}",
                "size": f"{row.size:g}",
                **row.sizes,
                **{f"{n}/{m}": np.ravel(v) for n, of in row.test.items() for m, v in of.items()},
                "seconds": row.seconds,
                "sets": len(row.seconds) or None,
            }
        )
    failed = [f"{row.method} at {row.size:g}: {error}" for row in found.rows() for error in row.errors]
    columns = (
        Column("size", budget.capitalize(), "text", short={"label_ratio": "Ratio"}.get(found.budget, "")),
        *size_columns(found.original),
        *score_columns(found.networks, found.metrics),
        Column("seconds", "Seconds", "seconds", best="smallest"),
        *([Column("sets", "Sets")] if failed else []),
    )
    made = [row for row in found.rows() if len(row.seconds)]
    notes = (
        "Scores: mean ± standard deviation over the networks of all sets, on the test examples. Seconds: "
        "time to make a set, compilation included, which makes the first set of a size the slowest."
    )
    if failed:
        notes += f" No set could be made by {'; '.join(failed)}."
    count = len(found.methods)
    return Comparison(
        title=f"{count} condenser{'s' if count > 1 else ''} on {found.dataset or 'a task'}",
        headline=_headline(found, made),
        rows=tuple(rows),
        columns=columns,
        figures=(_picture(found, made, whole),) if made else (),
        record=found.record(),
        facts=_facts(found, made),
        notes=notes,
        protocol=f"Each method makes its sets from different random keys. {found.protocol}",
    )


def _top(found: Grid, made: Sequence[Row]) -> Row:
    return max(made, key=lambda row: row.score(found.networks[0], found.metrics[0])[0])


def _headline(found: Grid, made: Sequence[Row]) -> str:
    if not made:
        return "No method could make a set."
    network, metric = found.networks[0], found.metrics[0]
    row, full, what = _top(found, made), found.full[network][metric], next(iter(found.original))
    return (
        f"Networks trained on {row.sizes[what]:,.0f} {what} that {row.method} made of "
        f"{found.original[what]:,} reach the highest {METRIC_TITLES.get(metric, metric)} here: "
        f"{percent(*row.score(network, metric))} with {network_title(network)}, where the whole data give "
        f"{percent(full.mean(), full.std())}."
    )


def _facts(found: Grid, made: Sequence[Row]) -> dict[str, tuple[str, str]]:
    what, sets = next(iter(found.original)), sum(len(row.seconds) for row in made)
    sizes = sorted({round(row.sizes[what]) for row in made})
    facts = {
        "Original": (f"{found.original[what]:,} {what}", size_text(found.original["bytes"])),
        "Condensed": (
            f"{', '.join(f'{n:,}' for n in sizes[:4])}{' …' if len(sizes) > 4 else ''} {what}",
            f"{len(found.methods)} methods, {sets} sets",
        ),
    }
    if made:
        times, least = [row.time[0] for row in made], min(row.sizes["bytes"] for row in made)
        facts["Time to make a set"] = (
            f"{min(times):,.2f} to {max(times):,.2f} s",
            f"{found.full_seconds:,.1f} s to train the networks of the whole data",
        )
        facts["Size of a set"] = (size_text(least), f"at least, of {size_text(found.original['bytes'])}")
    return facts


def _picture(found: Grid, made: Sequence[Row], whole: str) -> Picture:
    what, metric = next(iter(found.original)), found.metrics[0]
    title = METRIC_TITLES.get(metric, metric)
    panels, references, values = {}, {}, []
    for network in found.networks:
        label = f"{network_title(network)} test {title}, %"
        references[label] = float(found.full[network][metric].mean())
        panels[label] = {}
        for method in found.methods:
            own = [row for row in made if row.method == method]
            panels[label][method] = Line(
                np.asarray([row.sizes[what] for row in own]),
                np.asarray([row.time for row in own]).reshape(-1, 2),
                np.asarray([row.score(network, metric) for row in own]).reshape(-1, 2),
            )
            values += [
                f"{method} with {row.sizes[what]:,.0f} {what} {percent(*row.score(network, metric))} in "
                f"{row.time[0]:,.2f} s"
                for row in own
            ]
    return Picture(
        "plots",
        "Score, size and time",
        f"Test {title} against the size of the sets (left) and against the seconds to make one (right), "
        "both on logarithmic axes. Marks: means; bars: standard deviations; a line joins the sizes of a "
        "method, whose name stands at its right end. Dashed line: networks trained on the whole data. The "
        "numbers are those of Table 1.",
        partial(plot_lines, panels, references, size=f"condensed {what}", reference=whole),
        f"Two line charts for each architecture. {'; '.join(values)}.",
    )


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def grid(
    methods: Sequence[str] | Mapping[str, Recipe],
    task: Any,
    sizes: Sequence[float] | None = None,
    *,
    seeds: int = 3,
    repeats: int = 1,
    networks: Sequence[str] | None = None,
    key: Array | None = None,
    config: EvalConfig | None = None,
    folder: str | os.PathLike[str] | None = None,
    log: Callable[[str], None] = lambda text: None,
) -> Grid:
    """Condense a task by every method at every size, and train networks on each set.

    A set draws from a key that its method, size and seed determine: it does not depend on what else is
    compared. Networks of all methods start from the same keys. A method that refuses the task, or whose loss
    diverges, leaves a cell that says so.

    Args:
      methods: Names of methods, with their authors' settings for this dataset where those are known; or
        recipes by name, whose size is replaced.
      task: The original task.
      sizes: How small sets are, by the setting of the kind of data: ``label_ratio`` (condensed examples for
        each labelled one), or ``per_class``.
      seeds: Sets for each method and size.
      repeats: Networks of each architecture on each set; on the whole data ``seeds`` times as many.
      networks: Architectures; by default the first of the kind of data.
      key: Random key; 0 by default.
      config: How networks are trained; by default as usual for the kind of data.
      folder: Where cells are kept, and found again; nowhere by default.
      log: Called with one line before each cell.

    Raises:
      ValueError: For an unknown name, an impossible size, or a folder that is in use or holds a grid of other
        settings; nothing has run then.
    """
    kind = kind_of(task)
    sizes = tuple(dict.fromkeys(kind.sizes if sizes is None else sizes))
    networks = kind.networks[:1] if networks is None else tuple(networks)
    config = kind.config if config is None else config
    _check(kind, task, sizes, seeds, repeats, networks, config)
    recipes = _recipes(methods, kind, task, sizes)
    key = jax.random.key(0) if key is None else key
    place = None if folder is None else Path(folder)
    with nullcontext() if place is None else _alone(place):
        store = _Store(place, _settings(recipes, task, repeats, networks, key, config))
        full, cells = _made(recipes, kind, task, seeds, repeats, networks, key, config, store, log)
    return Grid(
        dataset=task.name,
        kind=kind.name,
        setting=getattr(task, "setting", None),
        budget=kind.budget,
        original=kind.size(task),
        networks=networks,
        metrics=tuple(kind.metrics),
        full={n: {m: np.asarray(v) for m, v in full["test"][n].items()} for n in networks},
        full_seconds=full["seconds"],
        cells=tuple(cells),
        config=config,
        versions=versions(),
        protocol=kind.words.protocol(task, config),
    )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Lock a folder, and remove what killed processes left."""
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder):
        tidy(folder)
        yield


def _made(recipes, kind, task, seeds, repeats, networks, key, config, store, log) -> tuple[dict, list[Cell]]:
    """Return scores on the whole training data, and all cells: from the store, or made now."""
    k_sets, k_nets = jax.random.split(key)
    options: dict[str, Any] = {"networks": networks, "config": config}

    count = seeds * repeats
    full = store.load(f"full-{count}", {"test", "seconds"}, {})
    if full is None:
        log(f"the whole training data: {count} network{'s' if count > 1 else ''} of each architecture")
        start = time.perf_counter()
        scores = evaluate(task, task, seeds=count, key=k_nets, **options)
        full = {"test": _plain_scores(scores, "test"), "seconds": time.perf_counter() - start}
        store.save(f"full-{count}", full)

    places = [(name, size, seed) for name, size in recipes for seed in range(seeds)]
    cells = []
    for number, (name, size, seed) in enumerate(places):
        label = _label(name, size, seed)
        own = {"method": name, "size": size, "seed": seed}
        known = store.load(cell_file(name, size, seed), {f.name for f in fields(Cell)}, own)
        if known is not None:
            cells.append(Cell(**known))
            continue
        log(f"{number + 1} of {len(places)}: {name} at {size:g}, seed {seed}")
        keys = jax.random.fold_in(k_sets, zlib.crc32(label.encode())), jax.random.fold_in(k_nets, seed)
        cell, small = _cell(recipes[name, size], kind, task, Cell(name, size, seed), keys, repeats, options)
        cells.append(cell)
        if small is None:
            log(f"{name} at {size:g}, seed {seed}, made no set: {cell.error}")
        else:
            store.save(cell_file(name, size, seed), asdict(cell), small)
    return full, cells


def _plain_scores(scores: Any, split: str) -> dict[str, dict[str, list[float]]]:
    return {
        name: {metric: of.seeds(split).tolist() for metric, of in one.items()} for name, one in scores.items()
    }


def _label(name: str, size: float, seed: int) -> str:
    """Return the label of a cell; its random key depends on it."""
    short = f"{size:g}"
    return f"{name}-{short if float(short) == size else repr(size)}-seed{seed}"


def cell_file(method: str, size: float, seed: int) -> str:
    """Return the name of the files of a cell, without ending: no two cells share one, and none is too long.

    Args:
      method: Name of the method.
      size: How small the set was asked to be.
      seed: Number of the set.
    """
    label = _label(method, size, seed)
    name = quote(label, safe=" ()[]+,=", errors="surrogatepass")
    name = f"%2E{name[1:]}" if name.startswith(".") else name
    if len(name) <= 150:
        return name
    return f"{name[:100]}%{hashlib.blake2b(label.encode(errors='surrogatepass'), digest_size=16).hexdigest()}"


def _recipes(
    methods: Sequence[str] | Mapping[str, Recipe], kind: Kind, task: Any, sizes: Sequence[float]
) -> dict[tuple[str, float], Any]:
    """Return recipes by name and size, the smaller sets of all methods first."""
    if not methods:
        raise ValueError("name at least one method to compare")
    found: dict[tuple[str, float], Any] = {}
    for size in sizes:
        for name in methods:
            if not isinstance(methods, Mapping):
                found[name, size] = METHODS.official(
                    choose(f"method for {kind.name}", name, METHODS.of_kind(kind.name)),
                    task.name,
                    **{kind.budget: size},
                )
                continue
            recipe: Any = methods[name]
            known = {f.name for f in fields(recipe)} if is_dataclass(recipe) else set()
            if kind.budget not in known:
                raise ValueError(f"{name} must be one of jgd.condense, or a dataclass with {kind.budget}")
            others = {"nodes": None} if "nodes" in known and kind.budget == "label_ratio" else {}
            found[name, size] = replace(recipe, **{kind.budget: size}, **others)  # pyright: ignore
    return found


def _check(kind, task, sizes, seeds, repeats, networks, config) -> None:
    for what, values in (("size", sizes), ("network", networks)):
        if not values:
            raise ValueError(f"name at least one {what} to compare")
    for name in networks:
        kind.network(name, task, config)
    for what, value in (("seeds", seeds), ("repeats", repeats)):
        if value < 1:
            raise ValueError(f"{what} must be at least 1, got {value}")
    for size in sizes:
        kind.check_size(task, {kind.budget: size})


def _cell(recipe, kind, task, cell, keys, repeats, options) -> tuple[Cell, Condensed | None]:
    k_set, k_nets = keys
    start = time.perf_counter()
    try:
        small = recipe(k_set, task)
        seconds = time.perf_counter() - start
        scores = evaluate(small, task, seeds=repeats, key=k_nets, **options)
    except (ValueError, FloatingPointError) as error:
        return replace(cell, error=" ".join(str(error).split()) or type(error).__name__), None
    done = replace(
        cell,
        sizes=kind.size(small),
        seconds=seconds,
        test=_plain_scores(scores, "test"),
        val=_plain_scores(scores, "val"),
    )
    said = {"method": cell.method, "seed": cell.seed, "seconds": seconds}
    return done, replace(small, provenance={**small.provenance, **said})


def _settings(recipes, task, repeats, networks, key, config) -> dict[str, Any]:
    """Return what cells of one folder share. Sizes, seeds and methods may be added later."""
    return {
        "dataset": task.name,
        "setting": getattr(task, "setting", None),
        "checksum": checksum(task),
        "repeats": repeats,
        "networks": list(networks),
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "config": asdict(config),
        "methods": {
            f"{name} at {size:g}": {"recipe": type(r).__name__, **_plain(asdict(r))}
            for (name, size), r in recipes.items()
        },
    }


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings as JSON values: functions and the like by their contents, and not by their address."""
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
        """Load a record with these names, which must name this cell itself."""
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
