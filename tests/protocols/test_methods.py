"""Condensers by name."""

import pytest

from jgd.condense import Average, ClustGDD, DosCondX
from jgd.condense.common import preset
from jgd.protocols.methods import BASELINES, METHODS, method_name, named, preferred


def test_names_and_recipes_belong_together():
    for name, method in METHODS.items():
        assert method_name(method.recipe()) == name
        assert name == name.lower()
        assert method.cost in ("none", "seconds", "minutes", "hours")
        assert method.summary
        assert method.paper
    assert set(BASELINES) <= set(METHODS)


def test_preferred_settings_are_those_of_the_nearest_ratio():
    assert preferred("clustgdd", "cora", 0.9).terms == 20
    assert preferred("clustgdd", "cora", nodes=140, near=1.0) == ClustGDD(
        label_ratio=None, nodes=140, terms=20
    )
    assert preferred("clustgdd", "elsewhere", 0.1) == ClustGDD(label_ratio=0.1)
    assert preferred("average-sgc", "cora", 0.25) == Average(label_ratio=0.25, hops=2)
    with pytest.raises(ValueError, match="did you mean doscond-x"):
        preferred("doscondx", "cora")


def test_preset():
    settings = {"a": {"lr_x": 1.0}, ("b", 0.1): {"lr_x": 2.0}, ("b", 1.0): {"lr_x": 3.0}}
    assert preset(DosCondX, settings, "a", 0.25) == DosCondX(label_ratio=0.25, lr_x=1.0)
    assert preset(DosCondX, settings, "b", 0.2).lr_x == 2.0
    assert preset(DosCondX, settings, "b", 0.5).lr_x == 3.0
    assert preset(DosCondX, settings, "b", nodes=12, near=0.1) == DosCondX(
        label_ratio=None, nodes=12, lr_x=2.0
    )
    assert preset(DosCondX, settings, "c").label_ratio == 0.5


def test_named():
    assert named("thing", "b", ["a", "b"]) == "b"
    with pytest.raises(ValueError, match="no thing is called 'zzz': known are a, b"):
        named("thing", "zzz", ["a", "b"])
