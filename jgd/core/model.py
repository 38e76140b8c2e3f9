"""Networks of any library as two pure functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

__all__ = ["Bound", "Model", "Outputs", "as_model", "bind", "from_linen", "from_nnx"]


class Outputs(NamedTuple):
    """What a network returns.

    Attributes:
      logits: the prediction; any pytree (a denoiser may return features and adjacency).
      embedding: the representation that the last layer reads, or None.
      taps: named intermediate values.
    """

    logits: Any = None
    embedding: Any = None
    taps: Mapping[str, Any] = {}


class Model(NamedTuple):
    """A network: ``init(key, *inputs)`` and ``apply(params, state, *inputs, key=None, train=False)``.

    ``params`` are what gradients flow to, ``state`` is the rest (batch statistics, codebooks). ``apply``
    returns ``(Outputs, state)``. ``train`` chooses batch statistics, ``key`` allows randomness, and the
    two are independent:

    ========  ========  =============================================================
    train     key       meaning
    ========  ========  =============================================================
    False     None      evaluation
    False     key       evaluation with sampling (a variational code, random anchors)
    True      None      batch statistics, no dropout
    True      key       training
    ========  ========  =============================================================

    ``reads`` says how a network of graphs wants the adjacency, as arguments of `jgd.graph.operator`; None
    where it does not matter.
    """

    init: Callable[..., tuple[PyTree, PyTree]]
    apply: Callable[..., tuple[Outputs, PyTree]]
    reads: tuple[tuple[str, Any], ...] | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Bound:
    """A model with its parameters: a teacher, or a distilled student.

    A pytree, so it travels as data into jitted functions instead of being closed over.
    """

    params: Any
    state: Any
    model: Model = field(metadata={"static": True})

    def __call__(self, *inputs: Any, key: Array | None = None, train: bool = False) -> Outputs:
        """Apply the network; changes of its state are dropped."""
        return self.model.apply(self.params, self.state, *inputs, key=key, train=train)[0]


def bind(model: Model, params: PyTree, state: PyTree = ()) -> Bound:
    """Join a model with its parameters into a callable."""
    return Bound(params, state, model)


def _as_outputs(y: Any) -> Outputs:
    return y if isinstance(y, Outputs) else Outputs(logits=y)


def from_linen(module: nn.Module) -> Model:
    """A Flax linen module as a `Model`.

    Its ``__call__`` takes the inputs and ``train: bool``, and returns `Outputs` or plain logits. Random
    numbers come from the streams ``"dropout"`` and ``"sample"``; without a key, ``make_rng`` is not
    available and dropout must be off: ask ``self.has_rng("dropout")``, as the layers in `jgd.nn` do.
    Equal modules give the same functions, so that `jax.jit` finds what it compiled.
    """
    try:
        return _cached_linen(module)
    except TypeError:  # not hashable, e.g. a module with a list of layers
        return _from_linen(module)


def as_model(net: Model | nn.Module) -> Model:
    """A network that is a `Model` already, or a Flax linen module as one."""
    return from_linen(net) if isinstance(net, nn.Module) else net


def _from_linen(module: nn.Module) -> Model:
    def init(key: Array, *inputs: Any):
        variables = dict(module.init(key, *inputs, train=False))
        return variables.pop("params", {}), variables

    def apply(params, state, *inputs, key=None, train=False):
        rngs = None
        if key is not None:
            dropout, sample = jax.random.split(key)
            rngs = {"dropout": dropout, "sample": sample}
        variables = {"params": params, **state}
        mutable = list(state) if train and state else False
        result = module.apply(variables, *inputs, train=train, rngs=rngs, mutable=mutable)
        if mutable is False:
            return _as_outputs(result), state
        assert isinstance(result, tuple)
        y, updated = result
        return _as_outputs(y), {**state, **updated}

    reads = getattr(module, "adjacency", None)
    return Model(init, apply, None if reads is None else tuple(reads.items()))


_cached_linen = lru_cache(maxsize=256)(_from_linen)


def from_nnx(make: Callable[[Any], Any]) -> Model:
    """A Flax NNX module as a `Model`.

    Args:
      make: ``make(rngs: nnx.Rngs) -> nnx.Module``; the module takes the inputs and returns `Outputs` or
        logits. Dropout is on where there is a key and ``train``, batch statistics where ``train``.
    """
    from flax import nnx

    @lru_cache(maxsize=1)
    def abstract():
        return nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))), nnx.Param, nnx.RngState, ...)

    def fresh(key: Array, rngs: PyTree) -> PyTree:
        """Random streams of the module, restarted from `key`."""
        leaves, structure = jax.tree.flatten(rngs)
        keys = jax.random.split(key, max(1, len(leaves)))
        return structure.unflatten(
            keys[i] if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else jnp.zeros((), leaf.dtype)
            for i, leaf in enumerate(leaves)
        )

    def init(key: Array, *inputs: Any):
        del inputs
        _, params, _, rest = nnx.split(make(nnx.Rngs(key)), nnx.Param, nnx.RngState, ...)
        return params, rest

    def apply(params, state, *inputs, key=None, train=False):
        graph, _, rngs, _ = abstract()
        streams = fresh(jax.random.key(0) if key is None else key, rngs)
        module = nnx.merge(graph, params, streams, state, copy=True)
        off = key is None or not train
        module.set_attributes(deterministic=off, use_running_average=not train, raise_if_not_found=False)
        outputs = _as_outputs(module(*inputs))
        return outputs, nnx.split(module, nnx.Param, nnx.RngState, ...)[3] if train else state

    return Model(init, apply)
