"""Control-C at a step of a loop."""

from contextlib import contextmanager

import pytest

from jgd.core.loop import advance_to


@contextmanager
def interrupted_at(step, *, loop=1):
    """Interrupt a driver when a loop has run the chunk that begins at a step or later, and not recorded it.

    Args:
      step: Step of the loop.
      loop: Which of the loops that the driver runs, from 1.
    """
    begun = 0

    def advance(*args, **kwargs):
        nonlocal begun
        begun += 1
        own = begun
        for state, t, metrics, finished in advance_to(*args, **kwargs):
            first = t - len(next(iter(metrics.values()))) if metrics else t
            if own == loop and first >= step:
                raise KeyboardInterrupt
            yield state, t, metrics, finished

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jgd.core.driver.advance_to", advance)
        with pytest.raises(KeyboardInterrupt):
            yield
