"""Networks as programs in files, which run without this library."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgd.core.model import Bound, stacked
from jgd.files import atomic_write

__all__ = ["export"]

_PRODUCT = jax.export.DisabledSafetyCheck.custom_call("cpu_csr_sparse_dense_ffi")  # see `jgd.graph`


def export(
    net: Bound,
    path: str | os.PathLike[str] | None = None,
    *,
    inputs: Sequence[Any] | None = None,
    graph: Any = None,
    batch: int | None = None,
    platforms: Sequence[str] | None = None,
) -> jax.export.Exported:
    """Export a network as a `jax.export` program of its inputs that returns logits.

    Reading the file requires JAX alone::

        run = jax.export.deserialize(bytearray(open("student.jaxexport", "rb").read())).call
        logits = run(x)

    Parameters are part of the program. Pixels (uint8) are scaled inside, as in training. For a graph network
    the graph is part of the program too, and the features of its nodes are the input.

    Args:
      net: Network to export.
      path: Path of a file to write, by convention ``*.jaxexport``; None writes none.
      inputs: Batch of inputs, or shapes and types of one, if the network does not know its `example`.
      graph: Operator that a graph network reads, as `jgd.distill.data.inputs_of` returns it with the
        features; then ``inputs`` are the features alone.
      batch: Number of examples of a batch; None allows any number.
      platforms: Platforms of the program, of ``"cpu"``, ``"cuda"``, ``"rocm"`` and ``"tpu"``; the present one
        by default.

    Returns:
      The program, which can also be called directly.

    Raises:
      ValueError: If there are several networks, the inputs are unknown, or the network does not take batches
        of any size.
    """
    if batch is not None and batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    if inputs is not None:
        given = [jax.ShapeDtypeStruct(jnp.shape(x), _dtype(x)) for x in inputs]
    elif net.example is not None and graph is None:
        given = [jax.ShapeDtypeStruct((1, *e.shape), e.dtype) for e in net.example]
    else:
        raise ValueError("what the network reads is not known: give inputs=, a batch of them or its shapes")
    several = stacked(net, *(given if graph is None else (graph, *given)))
    if several is not None:
        raise ValueError(
            f"these are {several} networks with a leading axis: export one, "
            "e.g. jax.tree.map(lambda leaf: leaf[0], nets)"
        )

    def logits(*inputs):
        return net(*inputs).logits if graph is None else net(graph, *inputs).logits

    if graph is None:
        size = jax.export.symbolic_shape("b")[0] if batch is None else batch
        given = [jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype) for x in given]
    try:
        program = jax.export.export(
            jax.jit(logits),
            platforms=None if platforms is None else tuple(platforms),
            disabled_checks=() if graph is None else (_PRODUCT,),
        )(*given)
    except Exception as error:
        if batch is None and graph is None and not isinstance(error, ValueError | OSError):
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"the network does not take batches of any size, give batch=: {reason}"
            ) from error
        raise
    if path is not None:
        with atomic_write(Path(path)) as file:
            file.write(program.serialize())
    return program


def _dtype(x: Any) -> np.dtype:
    return np.dtype(x.dtype if hasattr(x, "dtype") else jnp.result_type(x))
