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
from jgd.cli.options import Folder, Reading
from jgd.core import Driver
from jgd.core.driver import check_places
from jgd.data import Condensed, Corpus, NodeTask, artifact, checksum, tokenized, word_tokenizer
from jgd.data.registry import is_known, is_path, load_with_notes
from jgd.data.sources import short_name
from jgd.evaluation import compare, kind_of, versions
from jgd.evaluation.experiment import Experiment
from jgd.files import atomic_write, digests, lock, remove, tidy
from jgd.report import Comparison
from jgd.report.page import finite

__all__ = [
    "OUTPUTS",
    "check_file",
    "check_writable",
    "claimed",
    "conduct",
    "default_folder",
    "driver",
    "finish",
    "load_task",
    "run_settings",
    "original",
    "short_dataset",
    "taken",
    "teller",
    "write_json",
]

OUTPUTS = ("condensed.npz", "report.html", "metrics.json")
"""What a condenser leaves in its folder; the last one is the sign that all is done."""
_NETWORKS = ("teacher.npz", "students")
_MARK, _CHECKPOINTS, _LOG = "experiment.json", "checkpoints", "log.jsonl"
_OTHERS = (_CHECKPOINTS, "run.json", "cells", *_NETWORKS, *OUTPUTS)


def default_folder(experiment: Experiment) -> Path:
    """Return ``runs/<dataset>-<method>-<size>-seed<k>``, under the working directory."""
    size = ""
    for name, text in (("nodes", "{}nodes"), ("per_class", "{}each")):
        value = getattr(experiment.recipe, name, None)
        if value is not None:
            size = f"-{text.format(value)}"
            break
    ratio = getattr(experiment.recipe, "label_ratio", None)
    size = f"-{ratio:g}" if not size and ratio is not None else size
    dataset = short_dataset(experiment.dataset, experiment.setting)
    return Path("runs") / f"{dataset}-{experiment.method}{size}-seed{experiment.seed}"


def check_file(path: Path | None) -> None:
    """See, without touching anything, that a file can be written.

    Raises:
      Mistake: Where it cannot.
    """
    if path is None:
        return
    check_writable(path.parent)
    if path.is_dir():
        raise Mistake(f"{path} is a folder: name a file")


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


def short_dataset(dataset: str, setting: str = "transductive") -> str:
    """Return the name of a dataset, or of your own data at a path, for names of folders.

    Args:
      dataset: Name or path.
      setting: Setting of a task of nodes; another than the usual one is added to the name.
    """
    name = (short_name(dataset) if is_path(dataset) else dataset).replace(":", "-")
    return name if setting == "transductive" else f"{name}-{setting}"


def load_task(
    dataset: str,
    reading: Reading | Mapping[str, Any],
    *,
    setting: str = "transductive",
    quiet: bool = False,
    length: int = 32,
    refuse: Callable[[Any], str | None] = lambda task: None,
) -> Any:
    """Load a dataset by name or path; texts become tokens.

    Notes about how a path was read go to standard error.

    Args:
      dataset: Name or path.
      reading: How data of the user's own are read: options of a command, or of `jgd.load`.
      setting: Setting of a task of nodes.
      quiet: Say nothing.
      length: Tokens of a text that are read.
      refuse: Returns why a command cannot take a task, or None.

    Raises:
      Mistake: Where it is unknown, missing, damaged or refused.
    """
    options = reading.options(dataset) if isinstance(reading, Reading) else reading
    with mistakes():
        task, notes = load_with_notes(dataset, **options)
        if isinstance(task, Corpus):
            task = tokenized(task, word_tokenizer(task), length)
    if (why := refuse(task)) is not None:
        raise Mistake(why)
    if not quiet:
        for text in notes:
            print(f"{dataset}: {text}", file=sys.stderr, flush=True)
    if isinstance(task, NodeTask):
        return dataclasses.replace(task, setting=setting)
    if setting != "transductive":
        raise Mistake(f"--setting is for graphs with classes of nodes, and {dataset} is none")
    return task


def original(
    small: Condensed, file: Path, dataset: str | None, reading: Reading
) -> tuple[str, Reading | dict[str, Any]]:
    """Return the data that a condensed set was made from, and how they are read.

    Args:
      small: The condensed set.
      file: Its file, for messages.
      dataset: Name or path that was given, or None.
      reading: Options that were given.

    Raises:
      Mistake: Where the set does not say, or the data are not here.
    """
    source = dict(small.provenance.get("source") or {})
    path = source.pop("path", None)
    found = dataset or path or small.provenance.get("dataset")
    if not found:
        raise Mistake(f"{file} does not say what it was made from: give --dataset")
    if dataset is None and not is_known(found) and not (is_path(found) and Path(found).exists()):
        raise Mistake(f"{file} was made from {found}, which is not here: say where with --dataset PATH")
    if reading.options(found) or path is None:
        return found, reading
    return found, source


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, all of it or nothing."""
    with atomic_write(path, "w") as file:
        json.dump(finite(value), file, indent=1)
        file.write("\n")


def run_settings(command: Any) -> dict[str, Any]:
    """Return what distinguishes a run of a command from others, as plain values.

    Args:
      command: The command with its options; how data are read is not among them because their checksum is.
    """
    settings = dataclasses.asdict(command)
    for name in ("folder", "reading"):
        settings.pop(name, None)
    return {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}


def teller(quiet: bool) -> Callable[[str], None]:
    """Return a function that logs lines on standard error, with the seconds since now."""
    start = time.perf_counter()

    def log(text: str) -> None:
        if not quiet:
            print(f"{time.perf_counter() - start:6.1f} s  {text}", file=sys.stderr, flush=True)

    return log


def driver(out: Path, quiet: bool) -> Driver:
    """Return the loop of a command, which notes damaged files in single lines on standard error."""
    return Driver(out, progress=False if quiet else None, tell=note)


@contextmanager
def claimed(
    out: Path,
    command: str,
    settings: dict[str, Any],
    checksum: str,
    *,
    resume: bool,
    log: Callable[[str], None],
) -> Iterator[bool]:
    """Claim a folder for a run, by its mark, and for this process alone while the context lasts.

    `finish` ends the run.

    Args:
      out: the folder.
      command: its name, such as ``condense``.
      settings: by name.
      checksum: of the data.
      resume: go on with what an interrupted run with the same settings left; else remove the earlier run.
      log: Called with a line that says which it is.

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
        resumed = resume and _look(out, record, log)
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
    folder: Folder,
    *,
    command: str,
    task: Any,
    source: Mapping[str, Any] | None = None,
) -> tuple[Comparison, Path]:
    """Condense, compare, write the outputs, and print what was found.

    Args:
      experiment: What to do.
      folder: Where to write.
      command: What the user typed, for the record.
      task: The dataset of the experiment.
      source: Path of data of the user's own, and the options they were read with, for the record.

    Returns:
      The comparison, and the folder.

    Raises:
      Mistake: For whatever the user can put right; the folder is not made then.
      Finished: Where the folder holds all of this run already.
    """
    out = default_folder(experiment) if folder.out is None else folder.out
    kind, log = kind_of(task), teller(folder.quiet)
    check_writable(out)
    with mistakes():
        experiment.check(kind)
        kind.check_size(task, vars(experiment.recipe))
        for name in experiment.networks:
            kind.network(name, task, experiment.config)
    digest, settings = checksum(task), experiment.settings()
    resume = not folder.no_resume
    with claimed(out, "condense", settings, digest, resume=resume, log=log) as resumed, mistakes():
        try:
            found = compare(
                experiment.recipe,
                task,
                key=jax.random.key(experiment.seed),
                method=experiment.method,
                baselines=experiment.baselines,
                networks=experiment.networks,
                seeds=experiment.seeds,
                config=experiment.config,
                loop=driver(out, folder.quiet),
                log=log,
            )
        except ValueError as error:
            if "of another run" in str(error):  # the checkpoints of another version of the method
                raise Mistake(
                    f"{out} holds checkpoints that this version cannot use: start over with --no-resume"
                ) from error
            raise
        said = {"command": command, "seed": experiment.seed, "checksum": digest}
        said |= {"experiment": settings, "resumed": resumed} | ({"source": dict(source)} if source else {})
        found = found.recorded(**said)
        log("writing the report")
        artifact.save(_with_provenance(found, experiment.method), out / "condensed.npz")
        found.save(out / "report.html")

        def show() -> None:
            found.show()
            print(f"\nwritten to {out}: {', '.join(OUTPUTS)}")

        finish(out, found.record, OUTPUTS[:-1], show)
    return found, out


def _with_provenance(found: Comparison, method: str) -> Condensed:
    """Return the condensed set with a record of how it was made."""
    small, record = found.products[method], found.record
    provenance = {
        **small.provenance,
        "method": method,
        "seconds": record["seconds"]["condense"],
        "metrics": {"condensed": record["condensed"], "full": record["full"]},
        **{k: record[k] for k in ("seed", "checksum", "versions", "command", "source") if k in record},
    }
    return dataclasses.replace(small, provenance=provenance)


def _look(out: Path, record: dict[str, Any], log: Callable[[str], None]) -> bool:
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
        log(f"{out} holds this run already: --no-resume computes it again")
        raise Finished(said)
    if (out / _CHECKPOINTS).exists():
        log(f"going on with the interrupted run in {out}")
        return True
    return False


def taken(out: Path) -> list[str]:
    """Return the outputs of any run that a folder holds."""
    return [name for name in _OTHERS if (out / name).exists()]


def _finished(out: Path) -> str | None:
    """Return what a finished run printed, if its outputs and versions are the same; else None."""
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
