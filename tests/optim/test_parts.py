"""Optimisers by part: who moves when."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jgd.optim import by_part, turns

PARAMS = {"adj": {"w": jnp.ones(2)}, "x": jnp.ones(3), "y": jnp.ones(())}


def trajectory(tx, steps):
    params, state, seen = PARAMS, tx.init(PARAMS), []
    for i in range(steps):
        grads = jax.tree.map(lambda p, i=i: jnp.full(p.shape, 1.0 + i), params)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        seen.append(jax.tree.map(np.asarray, params))
    return seen


def test_parts_move_by_their_own_optimiser_and_the_rest_stays():
    seen = trajectory(by_part(x=optax.sgd(0.1), adj=optax.sgd(0.01)), 1)[0]
    np.testing.assert_allclose(seen["x"], 0.9)
    np.testing.assert_allclose(seen["adj"]["w"], 0.99)
    assert seen["y"] == 1


def test_turns():
    """Two steps of one part, then three of the other, again and again; at rest, momentum rests too."""
    tx = turns(adj=(2, optax.sgd(1.0, momentum=0.5)), x=(3, optax.sgd(1.0)))
    seen = [PARAMS, *trajectory(tx, 8)]
    moved = {
        name: [
            not np.array_equal(jax.tree.leaves(a[name])[0], jax.tree.leaves(b[name])[0])
            for a, b in pairwise(seen)
        ]
        for name in ("adj", "x", "y")
    }
    assert moved["adj"] == [True, True, False, False, False, True, True, False]
    assert moved["x"] == [False, False, True, True, True, False, False, True]
    assert not any(moved["y"])
    # gradients at its turns are 1, 2, 6, 7; velocities 1, 2.5, 7.25, 10.625
    np.testing.assert_allclose(seen[-1]["adj"]["w"], 1 - 1 - 2.5 - 7.25 - 10.625)


def test_refusals():
    with pytest.raises(ValueError, match="at least one optimiser"):
        by_part()
    with pytest.raises(ValueError, match="'x' has 0 turns"):
        turns(x=(0, optax.sgd(1.0)))
