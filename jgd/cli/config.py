"""Config files: short Python files that say ``config = Experiment(...)``."""

from __future__ import annotations

import dataclasses
import sys
import types
from pathlib import Path
from typing import Annotated

import tyro

from jgd.cli.errors import Mistake
from jgd.cli.run import RunOptions
from jgd.evaluation.experiment import Experiment

__all__ = ["load_config", "one_size", "run_type"]

_MODULE = "jgd_config"


def run_type(config: Experiment) -> type:
    """Return `RunOptions` with the fields of an experiment, whose defaults are those of ``config``."""
    annotation = Annotated[Experiment, tyro.conf.arg(name="", help="")]
    return dataclasses.make_dataclass(
        "Run",
        [("experiment", annotation, dataclasses.field(default=config))],
        bases=(RunOptions,),
        namespace={"__doc__": RunOptions.__doc__, "config": config},
        frozen=True,
    )


def load_config(path: Path) -> Experiment:
    """Load the experiment of a config file.

    Raises:
      Mistake: For a file that is missing, fails, or has no experiment.
    """
    if not path.is_file():
        raise Mistake(f"there is no config file {path}")
    module = types.ModuleType(_MODULE)
    module.__file__ = str(path)
    sys.modules[_MODULE] = module  # where the help finds the docstrings of its classes
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), vars(module))
    except Exception as error:
        raise Mistake(f"{path}{_line(error, path)}: {type(error).__name__}: {error}") from error
    found = vars(module)
    if "config" not in found:
        raise Mistake(f"{path} does not say `config = Experiment(...)` (from jgd.evaluation.experiment)")
    if not isinstance(found["config"], Experiment):
        raise Mistake(f"`config` in {path} is no Experiment (from jgd.evaluation.experiment)")
    return found["config"]


def _line(error: BaseException, path: Path) -> str:
    """Return where in the file it failed."""
    if isinstance(error, SyntaxError):
        return f" line {error.lineno}"
    trace, line = error.__traceback__, ""
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = f" line {trace.tb_lineno}"
        trace = trace.tb_next
    return line


def one_size(before: Experiment, now: Experiment) -> Experiment:
    """Keep the size that was given last: a ratio on the command line replaces nodes of the file."""
    old, new = before.recipe, now.recipe
    if not all(hasattr(r, name) for r in (old, new) for name in ("label_ratio", "nodes")):
        return now
    ratio, nodes = (getattr(old, name) != getattr(new, name) for name in ("label_ratio", "nodes"))
    if ratio and nodes and new.label_ratio is not None and new.nodes is not None:
        raise Mistake("say --recipe.label-ratio or --recipe.nodes, not both")
    if new.nodes is not None and new.label_ratio is not None:
        other = {"nodes": None} if ratio else {"label_ratio": None}
        return dataclasses.replace(now, recipe=dataclasses.replace(new, **other))
    return now
