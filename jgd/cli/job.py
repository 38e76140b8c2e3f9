"""The main job: run an experiment, keep it resumable, and leave its outputs in a folder.

A folder holds ``experiment.json`` (whose run it is), ``log.jsonl`` (training curves) and, at the end,
``condensed.npz``, ``report.html`` and, as the sign that all is done, ``metrics.json``. While the condenser
runs there are ``checkpoints``, from which an interrupted run goes on; they are removed once the outputs are
written.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import jax

from jgd.cli.errors import Finished, Mistake, mistakes, note
from jgd.cli.results import OUTPUTS, conclude
from jgd.condense.common import size_of
from jgd.core import Driver
from jgd.core.driver import check_places
from jgd.data import GraphTask, NodeTask, artifact, checksum
from jgd.data.registry import is_path, load_with_notes
from jgd.data.sources import short_name
from jgd.files import atomic_write, digests, lock, remove, tidy
from jgd.protocols import Comparison, compare
from jgd.protocols.compare import versions
from jgd.protocols.experiment import Experiment

__all__ = [
    "check_writable",
    "claimed",
    "conduct",
    "default_folder",
    "driver",
    "finish",
    "load_data",
    "load_nodes",
    "short_dataset",
    "taken",
    "teller",
    "write_json",
]

_NETWORKS = ("teacher.npz", "students")
_MARK, _CHECKPOINTS, _LOG = "experiment.json", "checkpoints", "log.jsonl"
_OTHERS = (_CHECKPOINTS, "run.json", "cells", *_NETWORKS, *OUTPUTS)


def default_folder(experiment: Experiment) -> Path:
    """``runs/<dataset>-<method>-<size>-seed<k>``, under the folder one is in."""
    recipe = experiment.recipe
    size = f"{recipe.nodes}nodes" if recipe.nodes is not None else f"{recipe.label_ratio:g}"
    setting = "" if experiment.setting == "transductive" else f"-{experiment.setting}"
    dataset = short_dataset(experiment.dataset)
    name = f"{dataset}{setting}-{experiment.method}-{size}-seed{experiment.seed}"
    return Path("runs") / name


def check_writable(folder: Path) -> None:
    """See, without touching anything, that files can be written in a folder that may not exist yet.

    Raises:
      Mistake: where they cannot.
    """
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise Mistake(f"{folder} cannot be a folder: {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise Mistake(f"{folder} cannot be written: no permission in {there}")


def short_dataset(dataset: str) -> str:
    """A name of a dataset, or what data of your own at a path are called, for names of folders."""
    return (short_name(dataset) if is_path(dataset) else dataset).replace(":", "-")


def load_data(
    dataset: str,
    options: Mapping[str, Any] | None = None,
    *,
    refuse: Callable[[Any], str | None] = lambda task: None,
    quiet: bool = False,
) -> Any:
    """A dataset by name or path; tells on standard error what was done to read a path.

    Args:
      dataset: name or path.
      options: of `jgd.load`.
      refuse: why a command cannot take a task, or None.
      quiet: tell nothing.

    Raises:
      Mistake: where it is unknown, missing, damaged, or refused.
    """
    with mistakes():
        task, notes = load_with_notes(dataset, **(options or {}))
    if (why := refuse(task)) is not None:
        raise Mistake(why)
    if not quiet:
        for note in notes:
            print(f"{dataset}: {note}", file=sys.stderr, flush=True)
    return task


def load_nodes(
    dataset: str, setting: str, options: Mapping[str, Any] | None = None, *, quiet: bool = False
) -> NodeTask:
    """A dataset with one graph.

    Raises:
      Mistake: where it is unknown, missing, damaged, or of another kind.
    """

    def refuse(task: Any) -> str | None:
        if isinstance(task, NodeTask):
            return None
        takes = "(this command takes kind 'node' of `jgd datasets`)"
        if isinstance(task, GraphTask):
            return f"{dataset} is a set of graphs: `jgd condense-graphs {dataset}` condenses it {takes}"
        return f"{dataset} is no graph: `jgd distill {dataset}` distils a teacher of it {takes}"

    task = load_data(dataset, options, refuse=refuse, quiet=quiet)
    return dataclasses.replace(task, setting=setting)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, all of it or nothing."""
    with atomic_write(path, "w") as file:
        json.dump(value, file, indent=1)
        file.write("\n")


def teller(quiet: bool) -> Callable[[str], None]:
    """What says on standard error what is being done, after how many seconds."""
    start = time.perf_counter()

    def say(text: str) -> None:
        if not quiet:
            print(f"{time.perf_counter() - start:6.1f} s  {text}", file=sys.stderr, flush=True)

    return say


def driver(out: Path, quiet: bool) -> Driver:
    """The loop of a command, whose notes about damaged files are single lines on standard error."""
    return Driver(out, progress=False if quiet else None, tell=note)


@contextmanager
def claimed(
    out: Path,
    command: str,
    settings: dict[str, Any],
    checksum: str,
    *,
    resume: bool,
    say: Callable[[str], None],
) -> Iterator[bool]:
    """A folder that is that of a run, by its mark, and of this process alone while the context lasts.

    `finish` ends the run.

    Args:
      out: the folder.
      command: its name, such as ``condense``.
      settings: by name.
      checksum: of the data.
      resume: go on with what an interrupted run with the same settings left; else remove the earlier run.
      say: is told which it is.

    Yields:
      Whether there is something to go on with.

    Raises:
      Mistake: where the folder is in use, or belongs to something else, or to a run with other settings.
      Finished: where the folder holds all of this run already.
    """
    record = {"command": command, "experiment": settings, "checksum": checksum}
    record = json.loads(json.dumps(record))
    with ExitStack() as stack:
        with mistakes():
            out.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock(out))
            for place in (out, out / _CHECKPOINTS):
                tidy(place)
            check_places(out)
        if not resume:
            _remove(out)
        resumed = resume and _look(out, record, say)
        with mistakes():
            write_json(out / _MARK, record)
        yield resumed


def finish(out: Path, metrics: Mapping[str, Any], outputs: Sequence[str], tell: Callable[[], None]) -> None:
    """Write ``metrics.json``, the sign that a run is done, remove its checkpoints, and say what was found.

    The file keeps what is said and checksums of the outputs, because the same command then has nothing to do.

    Args:
      out: folder of the run.
      metrics: what was measured.
      outputs: files and folders that the run has written.
      tell: prints the results.
    """
    text = io.StringIO()
    with redirect_stdout(text):
        tell()
    said = {"versions": versions(), "printed": text.getvalue(), "outputs": digests(out, *outputs)}
    write_json(out / "metrics.json", {**metrics, **said})
    _tidy_up(out)
    tell()


def _tidy_up(out: Path) -> None:
    with suppress(OSError):
        remove(out / _CHECKPOINTS)


def conduct(
    experiment: Experiment,
    out: Path | None,
    *,
    command: str,
    resume: bool = True,
    quiet: bool = False,
    task: NodeTask | None = None,
    source: Mapping[str, Any] | None = None,
) -> tuple[Comparison, Path]:
    """Condense, compare, write the outputs, and print what was found.

    Args:
      experiment: what to do.
      out: the folder; None for `default_folder`.
      command: what the user typed, for the record.
      resume: go on with what an interrupted run left in the folder; else remove the earlier run.
      quiet: no progress on standard error.
      task: the dataset of the experiment, if it is loaded already.
      source: path of data of the user's own, and the options they were read with, for the record.

    Returns:
      The comparison, and the folder.

    Raises:
      Mistake: for whatever the user can put right; the folder is not made then.
      Finished: where the folder holds all of this run already.
    """
    out = default_folder(experiment) if out is None else out
    say = teller(quiet)
    with mistakes():
        experiment.check()
    check_writable(out)
    if task is None:
        task = load_nodes(experiment.dataset, experiment.setting)
    with mistakes():
        size_of(task, experiment.recipe.label_ratio, experiment.recipe.nodes)
    digest = checksum(task)
    settings = experiment.settings()
    with claimed(out, "condense", settings, digest, resume=resume, say=say) as resumed:
        try:
            comparison = compare(
                experiment.recipe,
                task,
                key=jax.random.key(experiment.seed),
                method=experiment.method,
                baselines=experiment.baselines,
                models=experiment.models,
                seeds=experiment.seeds,
                protocol=experiment.protocol,
                loop=driver(out, quiet),
                say=say,
            )
        except ValueError as error:
            if "of another run" in str(error):  # the checkpoints of another version of the method
                raise Mistake(
                    f"{out} holds checkpoints that this version cannot use: start over with --no-resume"
                ) from error
            raise
        metrics = comparison.metrics(command=command, seed=experiment.seed)
        metrics |= {"checksum": digest, "experiment": settings, "resumed": resumed}
        if source:
            metrics["source"] = dict(source)
        comparison = _with_provenance(comparison, metrics)
        say("writing the report")
        with mistakes():
            _write(out, comparison, metrics)
    return comparison, out


def _look(out: Path, record: dict[str, Any], say: Callable[[str], None]) -> bool:
    """See whose run is in a folder, and whether this one goes on with it."""
    if not (out / _MARK).exists():
        if there := taken(out):
            raise Mistake(
                f"{out} holds {' and '.join(there)} of something else: choose another folder with --out"
            )
        return False
    before = _earlier(out)
    if before["command"] not in (None, record["command"]):
        raise Mistake(
            f"{out} holds a run of `jgd {before['command']}`: "
            "choose another folder with --out, or replace that run with --no-resume"
        )
    if any(before[name] != record[name] for name in ("experiment", "checksum")):
        raise Mistake(
            f"{out} holds a run with other settings ({_difference(before, record)}): "
            "choose another folder with --out, or replace that run with --no-resume"
        )
    if (said := _finished(out)) is not None:
        _tidy_up(out)  # where an earlier process was killed before it had
        say(f"{out} holds this run already: --no-resume computes it again")
        raise Finished(said)
    if (out / _CHECKPOINTS).exists():
        say(f"going on with the interrupted run in {out}")
        return True
    return False


def taken(out: Path) -> list[str]:
    """What a folder holds of any run."""
    return [name for name in _OTHERS if (out / name).exists()]


def _finished(out: Path) -> str | None:
    """What a run printed that is done, whose outputs are as they were, and that these versions have made."""
    try:
        metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
        said, before = str(metrics["printed"]), dict(metrics["outputs"])
        whole = before == digests(out, *before) and metrics["versions"] == versions()
        return said if whole else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _earlier(out: Path) -> dict[str, Any]:
    try:
        before = json.loads((out / _MARK).read_text(encoding="utf-8"))
        settings, command = dict(before["experiment"]), before.get("command")
        return {"command": command, "experiment": settings, "checksum": before["checksum"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Mistake(f"{out / _MARK} cannot be read: choose another folder with --out") from error


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    old, new = before["experiment"], now["experiment"]
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    said = [f"{name} {_plain(old.get(name))}, now {_plain(new.get(name))}" for name in names]
    if before["checksum"] != now["checksum"]:
        said.append("other data files")
    return "; ".join(said[:3]) + (f"; and {len(said) - 3} more" if len(said) > 3 else "")


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _remove(out: Path) -> None:
    """Remove an earlier run, which is known by its mark; anything else stays.

    The mark goes last: what is there is always known.
    """
    if not (out / _MARK).exists():
        _look(out, {}, print)  # refuses a folder with the outputs of something else
        return
    with mistakes():
        for name in (*reversed(OUTPUTS), *_NETWORKS, _LOG, _CHECKPOINTS, _MARK):
            remove(out / name)


def _with_provenance(comparison: Comparison, metrics: dict[str, Any]) -> Comparison:
    """The comparison, whose condensed set says how it was made."""
    small = comparison.small
    provenance = {
        **small.provenance,
        "method": comparison.method,
        "seed": metrics["seed"],
        "seconds": metrics["seconds"]["condense"],
        "checksum": metrics["checksum"],
        "versions": versions(),
        "command": metrics["command"],
        "metrics": {"condensed": metrics["condensed"], "full": metrics["full"]},
        **({"source": metrics["source"]} if "source" in metrics else {}),
    }
    small = dataclasses.replace(small, provenance=provenance)
    return dataclasses.replace(comparison, condensed={**comparison.condensed, comparison.method: small})


def _write(out: Path, comparison: Comparison, metrics: dict[str, Any]) -> None:
    from jgd.report import write_report

    artifact.save(comparison.small, out / "condensed.npz")
    write_report(out / "report.html", comparison, metrics)
    finish(out, metrics, OUTPUTS[:-1], lambda: conclude(comparison, out))
