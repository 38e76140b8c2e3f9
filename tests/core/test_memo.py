"""Memoized programs: what shares one, what does not, and that none is kept for ever."""

import gc
import weakref
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgd.core.memo import host, host_only, memoized


@dataclass(frozen=True)
class Settings:
    rate: float = 0.5
    epochs: int = host(10)
    name: str | None = host(None)


@dataclass(frozen=True)
class More(Settings):
    epochs: int = 20
    power: int = 2


@memoized
def program(settings: Settings, width: int = 2):
    """A program whose constants are the settings."""

    @jax.jit
    def memoized_program(x):
        return settings.rate * x + width

    return memoized_program


def test_host_only_fields_share_a_program(compilations):
    x = jnp.arange(3.0)
    for epochs in (1, 2, 3):
        np.testing.assert_array_equal(program(Settings(epochs=epochs, name="a" * epochs))(x), x / 2 + 2)
    assert compilations["jit(memoized_program)"] == 1
    np.testing.assert_array_equal(program(Settings(rate=0.25))(x), x / 4 + 2)
    np.testing.assert_array_equal(program(Settings(), 3)(x), x / 2 + 3)
    assert compilations["jit(memoized_program)"] == 3


def test_what_makes_another_program():
    first = program(Settings())
    assert program(Settings()) is first
    assert program(Settings(), width=3) is program(Settings(), width=3)
    assert program(More()) is not first  # another class
    assert program(More(power=3)) is not program(More())
    assert program(More(epochs=1)) is program(More())  # a default that is overridden stays host-only
    assert host_only(More) == {"epochs", "name"}
    assert program(Settings(rate=1)) is not program(Settings(rate=1.0))  # other types are other programs


def test_nested_arguments():
    calls = []

    @memoized
    def make(items, table):
        calls.append(items)
        return object()

    assert make((Settings(epochs=1), "a"), {"x": [1, 2]}) is make((Settings(epochs=2), "a"), {"x": [1, 2]})
    assert make((Settings(), "a"), {"x": [1, 3]}) is not make((Settings(), "a"), {"x": [1, 2]})
    assert len(calls) == 2


USES = (lambda s: s.epochs + 1, lambda s: bool(s.epochs), lambda s: jnp.zeros(s.epochs))


@pytest.mark.parametrize("use", USES)
def test_a_program_cannot_depend_on_host_only_fields(use):
    with pytest.raises(TypeError):
        memoized(use)(Settings())


def test_arguments_without_a_hash_are_not_kept():
    made = memoized(lambda x: [x])
    x = np.arange(3)
    assert made(x) is not made(x)
    assert made.cache_info().currsize == 0


def test_an_error_is_not_kept():
    @memoized
    def fails(x):
        raise ValueError(x)

    for _ in range(2):
        with pytest.raises(ValueError, match="1"):
            fails(1)


class Product:
    """Something that can be watched."""


@pytest.mark.long
def test_the_cache_is_bounded():
    made = memoized(lambda i: Product(), maxsize=3)
    watched = [weakref.ref(made(i)) for i in range(10)]
    gc.collect()
    assert [i for i, ref in enumerate(watched) if ref() is not None] == [7, 8, 9]
    assert made.cache_info().maxsize == 3
    made.cache_clear()
    gc.collect()
    assert not any(ref() for ref in watched)
