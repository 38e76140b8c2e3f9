"""Catalogues of names: methods, objectives, networks, datasets, metrics, predictors, augmentations.

A `Catalog` knows names and the modules that hold them. The module declares the entry of a name in ``ENTRIES``
and is imported when the entry is first used::

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
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any, NamedTuple

__all__ = ["Catalog", "Choice", "Entry", "choose"]


class Entry(NamedTuple):
    """Entry of a catalogue.

    Attributes:
      name: Name, in small letters and hyphens.
      make: Class or function that is called with settings.
      summary: Description in one line.
      paper: Authors and year; empty without a paper.
      kinds: Kinds of data that it applies to, see `jgd.evaluation.kinds`; empty where kinds do not matter.
      cost: Time on two CPU cores at the authors' settings for Cora: ``"none"`` (at most a second),
        ``"seconds"`` (at most a minute), ``"minutes"`` (at most ten), ``"hours"``; empty where it does not
        matter.
      official: ``(dataset, **settings) -> product``, ``make`` with the authors' settings for a dataset as
        defaults; None where the authors have one setting for all.
      facts: Further facts by name, which the package of the catalogue describes.
    """

    name: str
    make: Callable[..., Any]
    summary: str
    paper: str = ""
    kinds: tuple[str, ...] = ()
    cost: str = ""
    official: Callable[..., Any] | None = None
    facts: Mapping[str, Any] = MappingProxyType({})


class Choice(NamedTuple):
    """A name of a catalogue, with settings: plain JSON values, so that it can be stored in a file.

    Attributes:
      name: Name of the entry.
      settings: Arguments of what it stands for.
    """

    name: str
    settings: Mapping[str, Any] = MappingProxyType({})


class Catalog:
    """Entries by name, imported when they are first used.

    Args:
      what: Singular noun that names an entry in messages.
      package: Package of the modules.
      modules: Names by module of the package. Each module declares its entries as ``ENTRIES``.
    """

    def __init__(self, what: str, package: str, modules: Mapping[str, Iterable[str]]):
        self.what = what
        self._homes: dict[str, str] = {}
        for module, names in modules.items():
            self.add(f"{package}.{module}" if package else module, *names)

    def add(self, module: str, *names: str) -> None:
        """Add the entries of a module.

        Args:
          module: Full name of the module, which declares ``ENTRIES``.
          *names: Names of the entries.

        Raises:
          ValueError: If a name belongs to another module already.
        """
        for name in names:
            if self._homes.setdefault(name, module) != module:
                raise ValueError(f"two modules declare the {self.what} {name!r}")

    def remove(self, *names: str) -> None:
        """Remove names; their modules stay importable.

        Args:
          *names: Names of the catalogue.
        """
        for name in names:
            del self._homes[choose(self.what, name, self)]

    def __getitem__(self, name: str) -> Entry:
        """Return the entry of a name.

        Raises:
          ValueError: If the name is unknown; the message lists close ones.
        """
        return self.of_module(self._homes[choose(self.what, name, self)])[name]

    def of_module(self, module: str) -> dict[str, Entry]:
        """Return the entries that a module declares, by name; none for a module outside of the catalogue.

        Args:
          module: Full name of the module.

        Raises:
          ValueError: If the module declares other names than the catalogue has.
        """
        names = [name for name, home in self._homes.items() if home == module]
        if not names:
            return {}
        found = {entry.name: entry for entry in import_module(module).ENTRIES}
        if set(names) - set(found):
            raise ValueError(f"{module} declares {sorted(found)}, the catalogue names {sorted(names)}")
        return {name: found[name] for name in names}

    def official(self, name: str, dataset: str, **settings: Any) -> Any:
        """Return the product of a name with the settings that its authors used for a dataset.

        Args:
          name: Name of the entry.
          dataset: Name of the dataset, e.g. ``"cora"``; an unknown one gives the defaults.
          **settings: Settings that replace those of the authors.
        """
        entry = self[name]
        return entry.make(**settings) if entry.official is None else entry.official(dataset, **settings)

    def build(self, choice: Choice) -> Any:
        """Return what a name makes with the settings of a choice.

        Args:
          choice: Name and settings.

        Raises:
          ValueError: For an unknown name, and for settings that what it stands for does not take.
        """
        make = self[choice.name].make
        try:
            inspect.signature(make).bind(**choice.settings)
        except TypeError as error:
            raise ValueError(f"settings of the {self.what} {choice.name!r}: {error}") from None
        return make(**choice.settings)

    def of_kind(self, kind: str) -> list[str]:
        """Return the names of the entries that apply to a kind of data.

        Args:
          kind: Name of the kind.
        """
        return [entry.name for entry in self.entries() if kind in entry.kinds]

    def entries(self) -> list[Entry]:
        """Return all entries, in the order of the catalogue."""
        found = {module: self.of_module(module) for module in dict.fromkeys(self._homes.values())}
        return [found[module][name] for name, module in self._homes.items()]

    def __contains__(self, name: object) -> bool:
        return name in self._homes

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)

    def __repr__(self) -> str:
        return f"Catalog({self.what}: {', '.join(self._homes)})"


def choose(what: str, name: str, known: Iterable[str]) -> str:
    """Return a name if it is known.

    Args:
      what: Noun for the named thing, for the message.
      name: Name to look up.
      known: Known names.

    Raises:
      ValueError: If the name is unknown; the message lists close ones.
    """
    known = list(known)
    if name in known:
        return name
    close = difflib.get_close_matches(str(name).lower(), known, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(known)}"
    raise ValueError(f"no {what} is called {name!r}: {hint}")
