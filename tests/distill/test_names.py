"""Public names of losses and objectives: no name means both."""

import inspect
from importlib import import_module
from pkgutil import iter_modules

from jgd import distill, losses


def public(package):
    """Names of a package that do not belong to its modules."""
    return {n for n, value in vars(package).items() if n[0] != "_" and not inspect.ismodule(value)}


def test_no_name_is_a_loss_and_an_objective():
    assert not public(losses) & public(distill)
    assert not set(losses.__all__) & set(distill.__all__)


def test_losses_of_published_objectives_say_that_they_are_losses():
    pairs = {n.removesuffix("_loss") for n in losses.__all__ if n.endswith("_loss")} & set(distill.__all__)
    assert {"dkd", "pld", "hinton", "mutual"} <= pairs
    for name in pairs:
        given = list(inspect.signature(getattr(losses, f"{name}_loss")).parameters.values())
        assert given[0].kind is not inspect.Parameter.KEYWORD_ONLY  # arrays come first


def test_no_module_is_hidden_by_a_function_of_its_name():
    names = [found.name for found in iter_modules(distill.__path__) if found.name[0] != "_"]
    assert {"recipes", "scores", "probes", "ridge"} <= set(names)
    for name in names:
        module = import_module(f"jgd.distill.{name}")
        assert getattr(distill, name) is module
