"""What a computation is made of: equal for equal constructions, in every process, and different by name."""

import enum
import functools
import os
import subprocess
import sys
from collections import namedtuple
from dataclasses import dataclass, field
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from core_toy import LINEAR, Linear, Noisy

import jgd
from jgd.core import Examples, bind, ema, from_linen, objective, train, weighted
from jgd.core.fingerprint import difference, digest, fingerprint, readable

SCALE = 3.0


class Kind(enum.Enum):
    A = 1
    B = 2


@dataclass
class Recipe:
    rate: float = 0.1
    parts: dict = field(default_factory=dict)
    seen: list = field(default_factory=list, compare=False)


class Plain:
    def __init__(self, width):
        self.width, self.other = width, {"deep": (width, "x")}

    def method(self, x):
        return x * self.width


def loss(temperature, weight=1.0):
    return lambda ctx: weight * jnp.mean(ctx.outputs["model"].logits / temperature)


def scaled(x):
    return SCALE * x


@functools.partial(jax.jit, static_argnames="power")
def jitted(x, power=2):
    return x**power


def everything(rate=0.01, temperature=4.0, width=2, array=1.0, kind=Kind.A):
    """One of each kind of thing that recipes are made of."""
    net = from_linen(Linear(width))
    point = namedtuple("Point", "x y")
    return {
        "dataclass": Recipe(rate, {"net": Linear(width), "none": None}),
        "objective": weighted(
            kd=(1.0, objective(loss(temperature))), ce=(optax.linear_schedule(0, 1, 9), loss(1.0))
        ),
        "tx": optax.chain(optax.clip(1.0), optax.adamw(optax.cosine_decay_schedule(rate, 100))),
        "algorithm": ema(train(net, objective(loss(temperature)), optax.sgd(rate)), 0.9),
        "partial": functools.partial(scaled, rate),
        "method": Plain(width).method,
        "jitted": jitted,
        "arrays": [np.full(20, array), jnp.full((2, 2), array, jnp.bfloat16), np.float32(array)],
        "keys": (jax.random.key(3), jax.random.key(4, impl="rbg")),
        "bound": bind(net, {"out": {"kernel": jnp.full((3, 2), array)}}),
        "plain": [Path("/a"), kind, 1j, b"bytes", {"b", "a", "c"}, frozenset({1, 2}), point(1, [width])],
        "types": (Linear, int, np.dtype("float32"), jnp.float32, np, len, ...),
        "text": ["a sentence"] * 500,
    }


def test_equal_constructions_are_equal():
    first, again = fingerprint(everything()), fingerprint(everything())
    assert first == again
    assert digest(everything()) == digest(everything())
    assert all(isinstance(v, str | int | float | bool | None) for v in first.values())
    assert not any(" at 0x" in str(v) for v in first.values())
    assert len(first) < 2000


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"rate": 0.02}, "dataclass.rate 0.01, now 0.02"),
        ({"rate": 0.02}, "partial [0.01], now [0.02]"),
        ({"rate": 0.02}, "init_value 0.01, now 0.02"),
        ({"rate": 0.02}, "step_size -0.01, now -0.02"),
        ({"temperature": 40.0}, "objective.kd.temperature 4.0, now 40.0"),
        ({"width": 3}, "dataclass.net.width 2, now 3"),
        ({"width": 3}, "method.self.width 2, now 3"),
        ({"width": 3}, "module.width 2, now 3"),
        ({"array": 2.0}, "bound.params.out.kernel float32"),
        ({"array": 2.0}, "arrays float64[20]"),
        ({"kind": Kind.B}, "Kind.A, now"),
    ],
)
def test_differences_are_named(change, told):
    text = difference(fingerprint(everything()), fingerprint(everything(**change)), most=99)
    assert told in text
    assert "\n" not in text


@pytest.mark.long
def test_the_same_in_every_process(tmp_path):
    here = Path(__file__).parent
    code = "import test_fingerprint as t; print(t.digest(t.everything()))"
    path = os.pathsep.join([str(Path(jgd.__file__).parents[1]), str(here)])
    told = set()
    for seed in ("1", "2"):
        env = os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        told.add(done.stdout)
    assert len(told) == 1


def test_code_of_the_user_counts():
    def other(x):
        return 2 * SCALE * x

    def third(x):
        return SCALE + x

    third.__qualname__ = other.__qualname__ = scaled.__qualname__
    assert "constants" in difference(fingerprint(scaled), fingerprint(other))
    assert "code" in difference(fingerprint(scaled), fingerprint(third))
    same_code = eval(compile("lambda x: x + 1", "a.py", "eval"))  # elsewhere in another file
    same_again = eval(compile("\n\nlambda x: x + 1", "b.py", "eval"))
    assert fingerprint(same_code) == fingerprint(same_again)


def test_names_at_the_top_of_the_module_count(monkeypatch):
    before = fingerprint({"recipe": scaled})
    monkeypatch.setitem(globals(), "SCALE", 4.0)
    assert difference(before, fingerprint({"recipe": scaled})) == "SCALE 3.0, now 4.0"


def test_methods_of_a_users_class_count(monkeypatch):
    before = fingerprint(Noisy())
    monkeypatch.setattr(Noisy, "extra", lambda self: 1, raising=False)
    assert "methods" in difference(before, fingerprint(Noisy()))


def test_fields_that_do_not_compare_do_not_count():
    assert fingerprint(Recipe(seen=[1])) == fingerprint(Recipe(seen=[]))


def test_cycles_end():
    ring: list = [1]
    ring.append(ring)

    def even(n):
        return n == 0 or odd(n - 1)

    def odd(n):
        return n != 0 and even(n - 1)

    for value in (ring, even):
        assert fingerprint(value) == fingerprint(value)
    big = [LINEAR] * 3
    for _ in range(12):  # shared parts are walked once, but listed where they are
        big = [big, big]
    assert digest(big) == digest(big)


def test_nans_and_signs():
    assert fingerprint({"a": float("nan")}) == fingerprint({"a": float("nan")})
    assert difference({"a": 1}, {"a": True}) == "a 1, now True"
    assert difference({"a": 1}, {}) == "a 1, now nothing"
    assert difference({"a": 1}, {"a": 1}) == ""


def test_the_content_of_tasks_counts():
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    first = fingerprint({"task": Examples((x,), x[:, 0])})
    assert first == fingerprint({"task": Examples((jnp.asarray(x, x.dtype),), x[:, 0].copy())})
    assert "task.inputs" in difference(first, fingerprint({"task": Examples((x + 1,), x[:, 0])}))


def test_readable():
    assert (
        readable("recipe.objective.terms.0.kd.1.apply.closure.settings.temperature")
        == "objective.kd.temperature"
    )
    assert readable("recipe.type") == "recipe"
    assert readable("0.1") == "0.1"
