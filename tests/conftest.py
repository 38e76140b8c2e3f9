"""Shapes and types in signatures are checked while testing; real data is found through JGD_DATA_DIR."""

import atexit
import gc
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

# Before jax is imported. Tests are small: compiling costs more than running, and XLA's older and simpler ways
# compile three times as fast. And the machine's cores are for xdist workers, not for threads of each.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "XLA_FLAGS" not in os.environ:
    quick = "--xla_backend_optimization_level=0"
    quicker = f"{quick} --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    trial = [sys.executable, "-c", "import jax; jax.devices()"]  # ends the process if XLA has no such flag
    known = (
        subprocess.run(trial, env={**os.environ, "XLA_FLAGS": quicker}, capture_output=True).returncode == 0
    )
    os.environ["XLA_FLAGS"] = quicker if known else quick  # workers of xdist inherit it
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # Tests make equal programs from new functions, and each worker its own: one that is compiled is kept
    # for all. The first process makes the folder, and removes it.
    folder = tempfile.mkdtemp(prefix="jgd-tests-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["XLA_FLAGS"] += " --xla_cpu_multi_thread_eigen=false"
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import jax
import jaxtyping
import numpy as np
import pytest

# Imported after the hook, so that every annotated function is checked.
_hook = jaxtyping.install_import_hook("jgd", "beartype.beartype")
_hook.__enter__()


gc.set_threshold(200_000, 50, 100)  # tracing makes many small objects that live for long


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


@pytest.fixture
def rng():
    """A generator of random numbers that is the same for every test, whichever tests ran before."""
    return np.random.default_rng(5)


def pytest_collection_modifyitems(config, items):
    """Leave long tests out of plain ``pytest``: ``-m long`` runs them; a file that is named runs whole."""
    whole = [Path(name).resolve() for name in config.args] == [Path(__file__).parent]
    if whole and config.option.markexpr == "not slow":  # the default
        config.hook.pytest_deselected(items=[item for item in items if "long" in item.keywords])
        items[:] = [item for item in items if "long" not in item.keywords]


def pytest_collection_finish():
    """Spare later garbage collections what is imported: it lives to the end."""
    gc.collect()
    gc.freeze()


_MAPS = Path("/proc/self/maps")


@pytest.fixture(scope="module", autouse=True)
def _room_for_programs():
    """Drop programs: many slow down lowering to a third, and LLVM crashes beyond 65 530 memory maps."""
    yield
    if _MAPS.exists() and _MAPS.read_bytes().count(b"\n") > 3_000:
        jax.clear_caches()
        gc.collect()
