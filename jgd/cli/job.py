"""The main job: load data, run an experiment, and leave its outputs in a folder."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jgd.cli.errors import Mistake, mistakes
from jgd.cli.folders import check_writable, claimed, driver, finish, teller
from jgd.cli.options import Folder, Reading
from jgd.data import ArrayTask, Condensed, Corpus, NodeTask, artifact, checksum, tokenized, word_tokenizer
from jgd.data.registry import is_known, is_path, load_with_notes
from jgd.data.sources import short_name
from jgd.distill.predictions import FEATURES, fit_features, read_features
from jgd.evaluation import compare, kind_of
from jgd.evaluation.experiment import Experiment
from jgd.report import Comparison

__all__ = ["conduct", "default_folder", "load_inputs", "load_task", "original", "short_dataset"]


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


def load_inputs(data: str, reading: Reading, net: Any, said: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return what a saved network reads of data, and the labels where they are known.

    Args:
      data: Name, path, or file of features alone.
      reading: Options that were given.
      net: The network.
      said: Its provenance.

    Raises:
      Mistake: For data that the network cannot read.
    """
    if Path(data).suffix in FEATURES and not reading.options(data):
        if said.get("standardize"):
            raise Mistake(
                "the network was trained on standardized numbers, whose means it does not keep: "
                "give the data that it was trained on, with --standardize"
            )
        return fit_features(read_features(Path(data)), net), None
    length = said.get("length") or (net.example[0].shape[0] if net.example else 32)
    task = load_task(data, reading, quiet=True, length=length)
    if not isinstance(task, ArrayTask | NodeTask):
        raise Mistake(f"{data} is a set of graphs: jgd predict takes tables, images, texts, one graph")
    labels = task.labels if isinstance(task, NodeTask) else task.y
    classes = labels is not None and task.target_kind == "classes"
    return task, np.asarray(labels) if classes else None


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
        finish(out, found, ("condensed.npz",))
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
