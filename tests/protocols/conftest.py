"""What tests of protocols share."""

import logging
from collections import Counter

import jax
import pytest


class _Compilations(logging.Handler):
    """Counts what JAX compiles, by name."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def emit(self, record):
        words = record.getMessage().split()
        if words[:3] == ["Finished", "XLA", "compilation"]:
            self.counts[words[4]] += 1


@pytest.fixture
def compilations():
    handler, logger = _Compilations(), logging.getLogger("jax")
    logger.addHandler(handler)
    with jax.log_compiles():
        yield handler.counts
    logger.removeHandler(handler)
