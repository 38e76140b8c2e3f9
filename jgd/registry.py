"""Names of things: methods, objectives, networks, datasets, metrics, predictors, augmentations.

A `Catalog` knows names and the modules that hold them; what a name stands for is declared in that module, as
``ENTRIES``, and imported when it is first asked for::

    METHODS = Catalog("method", "jgd.condense", {"_gcond": ("gcond", "gcond-x")})

    ENTRIES = (                                                              # in jgd/condense/_gcond.py
        Entry("gcond", GCond, "Gradient matching.", paper="Jin et al. 2022"),
        Entry("gcond-x", GCondX, "Gradient matching of features alone.", paper="Jin et al. 2022"),
    )

    METHODS["gcond"].make(nodes=30)
    METHODS.official("gcond", "cora", nodes=30)

Every list of names that a person reads (help, tables, README) is made from a catalogue. A name is spelled in
one way everywhere: small letters and hyphens.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any, NamedTuple

__all__ = ["Catalog", "Entry", "choose"]


class Entry(NamedTuple):
    """Something that has a name.

    Attributes:
      name: Its name.
      make: What the name stands for: a class or a function that is called with settings.
      summary: What it does, in one line.
      paper: Authors and year; empty for what has no paper.
      kinds: Kinds of data that it is made for, see `jgd.evaluation.kinds`; empty where that says nothing.
      cost: How long it takes on two CPU cores at the authors' settings for Cora: ``"none"`` (at most a
        second), ``"seconds"`` (a minute), ``"minutes"`` (ten), ``"hours"``; empty where that says nothing.
      official: ``(dataset, **settings) -> product``, ``make`` with its authors' settings for a dataset as
        defaults; None where the authors have one setting for all.
    """

    name: str
    make: Callable[..., Any]
    summary: str
    paper: str = ""
    kinds: tuple[str, ...] = ()
    cost: str = ""
    official: Callable[..., Any] | None = None


class Catalog:
    """Entries by name, imported when they are first used.

    Args:
      what: What its entries are, in the singular, for messages.
      package: Package of the modules.
      modules: Names by module of the package. Each module declares its entries as ``ENTRIES``.
    """

    def __init__(self, what: str, package: str, modules: Mapping[str, Iterable[str]]):
        self.what = what
        self._homes: dict[str, str] = {}
        for module, names in modules.items():
            self.add(f"{package}.{module}" if package else module, *names)

    def add(self, module: str, *names: str) -> None:
        """Add a module of one's own.

        Args:
          module: Its full name; it declares ``ENTRIES``.
          *names: Names of these entries.

        Raises:
          ValueError: For a name that is taken by another module.
        """
        for name in names:
            if self._homes.setdefault(name, module) != module:
                raise ValueError(f"two modules declare the {self.what} {name!r}")

    def __getitem__(self, name: str) -> Entry:
        """The entry of a name.

        Raises:
          ValueError: For an unknown name; the message says which are close.
        """
        return self.of_module(self._homes[choose(self.what, name, self)])[name]

    def of_module(self, module: str) -> dict[str, Entry]:
        """The entries that a module declares, by name; none of a module that is not in the catalogue.

        Args:
          module: Its full name.

        Raises:
          ValueError: For a module that declares other names than the catalogue has.
        """
        names = [name for name, home in self._homes.items() if home == module]
        if not names:
            return {}
        found = {entry.name: entry for entry in import_module(module).ENTRIES}
        if set(names) - set(found):
            raise ValueError(f"{module} declares {sorted(found)}, the catalogue names {sorted(names)}")
        return {name: found[name] for name in names}

    def official(self, name: str, dataset: str, **settings: Any) -> Any:
        """What a name stands for, with the settings that its authors used for a dataset.

        Args:
          name: Its name.
          dataset: Name of the dataset, e.g. ``"cora"``. For unknown ones the defaults are used.
          **settings: Settings to use in place of the authors'.
        """
        entry = self[name]
        return entry.make(**settings) if entry.official is None else entry.official(dataset, **settings)

    def entries(self) -> list[Entry]:
        """All entries, in the order of the catalogue."""
        return [self[name] for name in self]

    def __contains__(self, name: object) -> bool:
        return name in self._homes

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)

    def __repr__(self) -> str:
        return f"Catalog({self.what}: {', '.join(self._homes)})"


def choose(what: str, name: str, known: Iterable[str]) -> str:
    """A name, if it is known.

    Args:
      what: What is named, for the message.
      name: The name.
      known: All names.

    Raises:
      ValueError: For another name; the message says which are close.
    """
    known = list(known)
    if name in known:
        return name
    close = difflib.get_close_matches(str(name).lower(), known, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(known)}"
    raise ValueError(f"no {what} is called {name!r}: {hint}")
