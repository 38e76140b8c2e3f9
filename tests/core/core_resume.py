"""A recipe of two loops with plain work between them, to be killed and run again by test_loop.py."""

import sys
import time

import jax
import numpy as np
from core_toy import DATA, JITTERED, X

from jgd.core import ema, in_memory, keep_best, run

FIRST, SECOND, EVERY = 403, 300, 20
ADAM = ema(JITTERED, 0.9)
BEST = keep_best(ADAM, lambda product, data: -(product(X).logits ** 2).mean())


def recipe(key, task, loop=in_memory, hold=None):
    def middle(logits):
        if hold is not None:
            hold()
        return {"targets": np.asarray(logits) * 0.5, "nested": {"count": len(logits)}}

    k1, k2 = jax.random.split(key)
    teacher = loop("first", ADAM, k1, task, FIRST)
    made = loop.stage("middle", middle, teacher(X).logits)
    return loop("second", BEST, k2, task._replace(targets=made["targets"]), SECOND)


def hold():
    """Killed here; the same function in every process, because it is part of the recipe."""
    if sys.argv[2:] == ["hold"]:
        time.sleep(60)


def main(out):
    product = run(
        lambda key, task, loop: recipe(key, task, loop, hold),
        jax.random.key(3),
        DATA,
        out=out,
        checkpoint_every=EVERY,
    )
    leaves = jax.tree.leaves(product)
    np.savez(f"{out}/product.npz", *leaves)


if __name__ == "__main__":
    main(sys.argv[1])
