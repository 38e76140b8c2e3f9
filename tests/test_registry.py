"""Catalogues: entries of the modules that declare them, clear errors, and no import before it is needed."""

import sys
from types import ModuleType

import pytest

from jgd.registry import Catalog, Choice, Entry


def _settings(**settings):
    return settings


@pytest.fixture
def catalog(monkeypatch):
    module = ModuleType("toy_entries")
    usual = {"cora": {"size": 3}}
    official = lambda dataset, **settings: dict(**{**usual.get(dataset, {}), **settings})  # noqa: E731
    module.ENTRIES = (
        Entry("toy", _settings, "A toy."),
        Entry("toy-x", _settings, "Another toy.", official=official),
    )
    monkeypatch.setitem(sys.modules, "toy_entries", module)
    return Catalog("toy", "", {"toy_entries": ("toy", "toy-x"), "missing_module": ("gone",)})


def test_entries_are_those_of_their_modules(catalog):
    assert list(catalog) == ["toy", "toy-x", "gone"]  # nothing is imported for the names
    assert (len(catalog), "toy-x" in catalog, "toy-y" in catalog) == (3, True, False)
    assert catalog["toy"].make(a=1) == {"a": 1}
    assert list(catalog.of_module("toy_entries")) == ["toy", "toy-x"]
    assert catalog.of_module("elsewhere") == {}
    with pytest.raises(ModuleNotFoundError, match="missing_module"):
        catalog["gone"]


def test_all_entries_take_one_look_at_each_module(monkeypatch):
    """Names of one module need not follow each other, and the order stays that of the names."""
    looks = []

    class Module(ModuleType):
        @property
        def ENTRIES(self):
            looks.append(self.__name__)
            return [Entry(f"{self.__name__}-{i}", dict, "") for i in range(3)]

    for name in ("a", "b"):
        monkeypatch.setitem(sys.modules, f"toy.{name}", Module(name))
    catalog = Catalog("toy", "toy", {"a": ("a-2", "a-0"), "b": ("b-1",)})
    catalog.add("toy.a", "a-1")
    assert [entry.name for entry in catalog.entries()] == ["a-2", "a-0", "b-1", "a-1"]
    assert looks == ["a", "b"]


def test_official_settings_give_way(catalog):
    assert catalog.official("toy-x", "cora") == {"size": 3}
    assert catalog.official("toy-x", "cora", size=5) == {"size": 5}
    assert catalog.official("toy-x", "elsewhere") == catalog.official("toy", "cora") == {}


def test_choices_are_built(catalog):
    assert catalog.build(Choice("toy", {"a": 1})) == {"a": 1}
    assert catalog.build(Choice("toy")) == {}
    with pytest.raises(ValueError, match="no toy is called 'tay'"):
        catalog.build(Choice("tay"))


def test_errors_are_clear(catalog):
    with pytest.raises(ValueError, match="no toy is called 'toyx': did you mean toy-x or toy"):
        catalog["toyx"]
    with pytest.raises(ValueError, match="two modules declare the toy 'toy'"):
        catalog.add("elsewhere", "toy")
    catalog.add("toy_entries", "toy-z")
    with pytest.raises(ValueError, match=r"the catalogue names .*toy-z"):
        catalog["toy"]
