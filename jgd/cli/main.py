"""``jgd COMMAND ...``: the entry point, exit codes, and everything that concerns the process as a whole.

Exit codes: 0 done; 1 a run failed (its loss diverged); 2 a mistake of the user, or something that the machine
refuses (a full disk, no GPU), with one line that says what; 130 Ctrl-C; 143 terminated.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import re
import shlex
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tyro

from jgd.cli.compare import Compare
from jgd.cli.condense import Condense
from jgd.cli.datasets import Datasets
from jgd.cli.describe import Describe
from jgd.cli.detect import Detect
from jgd.cli.distill import Distill
from jgd.cli.errors import Finished, Mistake, Terminated, described, mistakes, note
from jgd.cli.evaluate import Evaluate
from jgd.cli.export import Export
from jgd.cli.imports import Import
from jgd.cli.methods import Methods
from jgd.cli.options import check_seed
from jgd.cli.predict import Predict
from jgd.cli.run import RunOptions

__all__ = ["main"]

COMMANDS: dict[str, type] = {
    "condense": Condense,
    "compare": Compare,
    "distill": Distill,
    "evaluate": Evaluate,
    "export": Export,
    "import": Import,
    "predict": Predict,
    "run": RunOptions,
    "detect": Detect,
    "describe": Describe,
    "datasets": Datasets,
    "methods": Methods,
}

_HELP = """\
usage: jgd COMMAND [OPTIONS]

Make graphs and networks smaller without losing what they know.

commands:
{commands}

`jgd COMMAND --help` lists the options of a command, `jgd --version` says which
jgd this is. Data is kept in JGD_DATA_DIR, compiled code in
JAX_COMPILATION_CACHE_DIR, both under ~/.cache/jgd unless they are set.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
      argv: Arguments after the name of the program. None takes them from the process, and then also sets up
        the process: the compilation cache, quiet logs, and standard streams that never fail on a character.

    Returns:
      The exit code.
    """
    if argv is None:
        argv = sys.argv[1:]
        _set_up_process()
    hint = _CONTINUES.get(argv[0] if argv else "", "")
    try:
        return _dispatch(_renamed(list(argv)))
    except Finished as run:
        print(run, end="")
        return 0
    except Mistake as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return _fail(f"interrupted{hint}", 130)
    except Terminated:
        return _fail(f"terminated{hint}", 143)
    except BrokenPipeError:  # the reader of a pipe has seen enough
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except FloatingPointError as error:
        return _fail(str(error), 1)
    except OSError as error:  # a full disk, a file that cannot be read, a name that is too long
        return _fail(described(error), 2)
    except Exception as error:
        if missing := _missing_device(error):
            return _fail(missing, 2)
        raise


_CONTINUES = {
    **dict.fromkeys(
        ("condense", "condense-graphs", "run", "distill"),
        ": the same command continues from the last checkpoint",
    ),
    "compare": ": the same command continues with the missing sets",
}
_OLD_OPTIONS = {"--models": "--networks", "--epochs": "--steps"}
_OLD = {
    "condense": _OLD_OPTIONS,
    "evaluate": _OLD_OPTIONS,
    "compare": {**_OLD_OPTIONS, "--label-ratios": "--sizes"},
}
_OLD_OF_GRAPHS = {"--graphs-per-class": "--per-class", "--models": "--networks"}
_OLD_OF_GRAPHS |= {"--support": "support", "--epochs": "steps"}  # settings of methods


_OLD_METHODS = {f"{name}-graphs": name for name in ("random", "herding", "k-center")}


def _renamed(argv: list[str]) -> list[str]:
    """Translate earlier names of options and methods, and of ``condense-graphs``, which is ``condense``."""
    if argv[:1] and argv[0] in ("condense", "condense-graphs", "compare"):
        for old in [name for name in argv[1:] if name in _OLD_METHODS]:
            note(f"the method {old} is {_OLD_METHODS[old]} now")
        argv = [argv[0], *(_OLD_METHODS.get(given, given) for given in argv[1:])]
    if argv[:1] != ["condense-graphs"]:
        known, found = _OLD.get(argv[0] if argv else "", {}), []
        for i, given in enumerate(argv):
            option, equals, value = given.partition("=")
            if (
                argv[0] == "compare"
                and option == "--networks"
                and (value or "".join(argv[i + 1 : i + 2])).isdigit()
            ):
                option, known = "--networks N", {**known, "--networks N": "--repeats"}
            if option in known:
                note(f"{option} is {known[option]} now")
            found.append(f"{known.get(option, option)}{equals}{value}")
        return found
    note("`jgd condense-graphs` is `jgd condense` now; settings of a method are given by --set NAME=VALUE")
    found, settings = ["condense"], []
    rest = [
        part for given in argv[1:] for part in (given.split("=", 1) if given.startswith("--") else [given])
    ]
    while rest:
        option = rest.pop(0)
        new = _OLD_OF_GRAPHS.get(option, option)
        if new.startswith("-") or new == option:
            found.append(new)
        elif rest:
            settings.append(f"{new}={rest.pop(0)}")
    return [*found, *(["--set", *settings] if settings else [])]


def _fail(text: str, code: int) -> int:
    """One line on standard error; gives the exit code back."""
    line = _one_line(text)
    line = line if len(line) <= 1000 else f"{line[:500]} ... {line[-450:]}"
    print(f"jgd: {line}", file=sys.stderr)
    return code


def _missing_device(error: Exception) -> str | None:
    """Return advice where JAX finds no device of the kind that is requested; else None."""
    asked = os.environ.get("JAX_PLATFORMS", "")
    if not asked or "jax" not in sys.modules:
        return None
    import jax

    try:
        jax.devices()
    except Exception:
        why = f" ({_one_line(str(error))[:200]})" if str(error) else ""
        return (
            f"JAX finds no device for JAX_PLATFORMS={asked}{why}: unset it to run on what there is, "
            "or install JAX for that device"
        )
    return None


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help(), end="")
        return 0
    if argv[0] in ("-V", "--version"):
        print(_versions())
        return 0
    name, rest = argv[0], argv[1:]
    for given in argv:
        if not given.isprintable() and given != given.encode(errors="replace").decode():
            raise Mistake(f"{given!a} is not text in UTF-8: give files and folders other names")
    if name not in COMMANDS:
        raise Mistake(_unknown(name))
    if name == "run":
        kind, prog, rest = _run(rest)
    else:
        kind, prog = COMMANDS[name], f"jgd {name}"
    action = _parse(kind, prog, rest)
    if isinstance(action, int):
        return action
    if os.environ.get("JAX_PLATFORMS") and not isinstance(action, Datasets | Methods):
        import jax

        jax.devices()  # fails before anything is said or written
    for options in (action, getattr(action, "experiment", None)):
        if (seed := getattr(options, "seed", None)) is not None:
            check_seed(seed)
    return action(f"jgd {shlex.join(argv)}")


def _run(rest: list[str]) -> tuple[type, str, list[str]]:
    """Return what to parse for ``jgd run FILE ...``: the fields of the experiment in the file."""
    if rest and rest[0] in ("-h", "--help"):
        return RunOptions, "jgd run FILE [--FIELD VALUE ...]", ["--help"]
    if not rest or rest[0].startswith("-"):
        raise Mistake("the config file comes first: jgd run FILE [OPTIONS], e.g. jgd run configs/digits.py")
    from jgd.cli.config import load_config, run_type

    return run_type(load_config(Path(rest[0]))), f"jgd run {shlex.quote(rest[0])}", rest[1:]


def _parse(kind: type, prog: str, args: list[str]) -> Callable[[str], int] | int:
    """Parse the arguments of a command; return the exit code where only help is requested."""
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box), mistakes():
            return tyro.cli(
                kind,
                prog=prog,
                args=args,
                description=_description(kind),
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as end:
        if end.code in (0, None):
            return 0
        raise Mistake(f"{_message(box.getvalue())} (see {prog} --help)") from None


def _description(kind: type) -> str:
    """Return the docstring of a command up to its attributes, in lines that tyro keeps."""
    text = inspect.cleandoc(kind.__doc__ or "").partition("\n\nAttributes:")[0]
    first, *others = text.split("\n\n")
    indented = {"width": 78, "initial_indent": "  ", "subsequent_indent": "  ", "break_on_hyphens": False}
    return "\n".join([_one_line(first), *(textwrap.fill(_one_line(p), **indented) for p in others)])


def _message(box: str) -> str:
    """Return the message of tyro's box in one line."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    parts: list[list[str]] = [[]]
    for line in (line.strip(" │┃|") for line in plain.splitlines()):
        if not line.strip("─━═╭╮╰╯┌┐└┘-+ ") or line[0] in "╭╰┌└+":
            parts.append([])  # a rule, a blank line, or the border with the title
        else:
            parts[-1].append(line)
    texts = [" ".join(part) for part in parts if part]
    if len(texts) > 1 and plain.lstrip()[:1] not in "╭┌+":
        del texts[0]  # without borders the title is a text of its own
    message = texts[0].replace(" (required)", "").rstrip(".:") if texts else "these arguments make no sense"
    hints = " ".join(texts[1:])
    if close := re.search(r"(?:similar to \S+|Perhaps you meant):? +(--[\w.-]+)", hints):
        message += f"; did you mean {close.group(1)}?"
    if wrong := re.match(
        r"Error parsing (--\S+): .*(?:invalid literal|could not convert|no type match)", message
    ):
        option = wrong.group(1)
        kind = re.search(rf"helptext: {re.escape(option)} (?:{{None}}\|)?(\S+)", hints)
        value = re.search(r"['\"]([^'\"]*)['\"][^'\"]*$", message)
        message = f"{option} takes {kind.group(1) if kind else 'another kind of value'}"
        message += f", not {value.group(1)!r}" if value else ""
    message = re.sub(r"^Error parsing (?:experiment\.)?(?=\w)", "", message)
    return message[:1].lower() + message[1:]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _unknown(name: str) -> str:
    import difflib

    close = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(COMMANDS)}"
    return f"no command is called {name!r}: {hint}"


def _help() -> str:
    lines = []
    for name, kind in COMMANDS.items():
        summary = (kind.__doc__ or "").strip().split("\n")[0]
        lines.append(f"  {name:<15} {summary}")
    return _HELP.format(commands="\n".join(lines))


def _versions() -> str:
    import platform
    from importlib.metadata import version

    return f"jgd {version('jgd')} (jax {version('jax')}, Python {platform.python_version()})"


_noted: set[str] = set()


def _note(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning of Python in one line, and once."""
    if (text := str(message)) not in _noted:
        _noted.add(text)
        note(text)


def _set_up_process() -> None:
    """Quiet logs, streams that never fail on a character, and compiled code that is kept between runs."""
    import logging
    import signal
    import warnings

    def end(number, frame):
        raise Terminated

    signal.signal(signal.SIGTERM, end)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax
    notes = logging.Handler()
    notes.emit = lambda record: note(record.getMessage())
    logging.getLogger("jgd").addHandler(notes)
    logging.getLogger("jgd").propagate = False  # Orbax gives the root a handler, too
    warnings.showwarning = _note
    for stream in (sys.stdout, sys.stderr):
        reconfigure: Any = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = os.environ.get("XDG_CACHE_HOME")
        folder = (Path(cache) if cache else Path.home() / ".cache") / "jgd" / "xla"
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache")
    if "jax" in sys.modules:  # else it reads the environment when it is imported
        import jax

        jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
        seconds = float(os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"])
        jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)


if __name__ == "__main__":
    sys.exit(main())
