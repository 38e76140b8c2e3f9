"""Networks of any library as two pure functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache, partial
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, PyTree

from jgd.core.memo import memoized

__all__ = [
    "Bound",
    "Model",
    "Outputs",
    "applied",
    "as_bound",
    "as_float",
    "as_key",
    "as_model",
    "bind",
    "from_linen",
    "from_nnx",
    "module_of",
    "sketch",
    "stacked",
    "starts_given",
]


class Outputs(NamedTuple):
    """Result of a network.

    Attributes:
      value: Prediction; any pytree (a denoiser may return features and adjacency).
      embedding: Representation that the last layer reads, or None.
      taps: Intermediate values by name.
    """

    value: Any = None
    embedding: Any = None
    taps: Mapping[str, Any] = {}

    @property
    def logits(self) -> Any:
        """The value of a classifier: logits."""
        return self.value


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


def applied(
    model: Model, params: PyTree, state: PyTree, *inputs: Any, key: Array | None = None, train: bool = False
) -> tuple[Outputs, PyTree]:
    """Apply a model whose first result may also be logits alone.

    Args:
      model: Network.
      params: Parameters.
      state: State.
      *inputs: Inputs of a batch.
      key: Random key that allows randomness, see `Model`; None for none.
      train: Whether batch statistics are used.

    Raises:
      ValueError: If the model does not return a pair.
    """
    result: Any = model.apply(params, state, *inputs, key=key, train=train)
    if isinstance(result, Outputs) or not isinstance(result, tuple) or len(result) != 2:
        raise ValueError(
            "Model.apply must return a pair (outputs, state), where state may be (), "
            f"got {'Outputs alone' if isinstance(result, Outputs) else f'a {type(result).__name__}'}"
        )
    return _as_outputs(result[0]), result[1]


def as_float(x: Any) -> Any:
    """Scale pixels in 0..255 (uint8) to floats in 0..1; return everything else unchanged.

    Inputs are scaled here only: batches of training and of scoring pass through this function, and so do the
    inputs of a `Bound` network.

    Args:
      x: Inputs.
    """
    if getattr(x, "dtype", None) != np.uint8 or not isinstance(x, np.ndarray | np.generic | jax.Array):
        return x
    return jnp.asarray(x).astype(jnp.float32) / 255


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False, repr=False)
class Bound:
    """A model with its parameters: a teacher, or a distilled student.

    A pytree, so it travels as data into jitted functions instead of being closed over, and `jax.vmap` goes
    over several networks with a leading axis (those of ``seeds=``). As a function, ``jax.jit(net)`` and
    ``jax.vmap(net)`` take it too: it is hashed and compared by identity, as functions are, so that a copy
    with equal parameters counts as another one.

    Attributes:
      params: Parameters that gradients flow to.
      state: Everything else, such as batch statistics.
      model: Network.
      example: Shape and type of the inputs for one example, where they are known (distilled networks know);
        a network can then be called with a single example, and exported or predicted with as it is.
    """

    params: Any
    state: Any
    model: Model = field(metadata={"static": True})
    example: tuple[jax.ShapeDtypeStruct, ...] | None = field(default=None, metadata={"static": True})

    def __call__(self, *inputs: Any, key: Array | None = None, train: bool = False) -> Outputs:
        """Apply the network; changes of its state are dropped.

        Args:
          *inputs: Inputs of a batch, or of a single example where `example` is known; uint8 pixels are
            scaled.
          key: Random key that allows randomness, see `Model`; None for none.
          train: Whether batch statistics are used.

        Raises:
          ValueError: If inputs have another shape than `example`, or there are several networks at once.
        """
        inputs = tuple(as_float(jnp.asarray(x) if isinstance(x, np.ndarray) else x) for x in inputs)
        single = _is_single(inputs, self.example)
        if single:
            inputs = tuple(x[None] for x in inputs)
        try:
            outputs = applied(self.model, self.params, self.state, *inputs, key=key, train=train)[0]
        except Exception as error:
            if reason := _misfit(self, inputs):
                raise ValueError(reason) from error
            raise
        return jax.tree.map(lambda leaf: leaf[0], outputs) if single else outputs

    def export(self, path: Any = None, **settings: Any) -> jax.export.Exported:
        """Return the network as a program that runs without this library, see `jgd.core.export`.

        Args:
          path: Path of a file to write, by convention ``*.jaxexport``; None writes none.
          **settings: ``inputs``, ``graph``, ``batch`` and ``platforms``.
        """
        from jgd.core._export import export

        return export(self, path, **settings)

    def __repr__(self) -> str:
        """In one line: the network, its size, and what it reads."""
        module = module_of(self.model)
        sizes = [getattr(leaf, "size", 1) for leaf in jax.tree.leaves(self.params)]
        parts = [type(module).__name__ if module is not None else "a network", f"{sum(sizes)} parameters"]
        if self.example is not None:
            parts.append(f"one example: {_shapes(self.example)}")
        return f"Bound({', '.join(parts)})"


def _shapes(example: Any) -> str:
    return ", ".join(f"{np.dtype(x.dtype).name} {list(x.shape)}" for x in example)


def _is_single(inputs: tuple, example: tuple[jax.ShapeDtypeStruct, ...] | None) -> bool:
    """Return whether the inputs are those of one example, without a batch axis."""
    return (
        bool(example)
        and len(inputs) == len(cast(tuple, example))
        and all(
            getattr(x, "ndim", -1) == len(e.shape) for x, e in zip(inputs, cast(tuple, example), strict=True)
        )
    )


def _misfit(net: Bound, inputs: tuple) -> str:
    """Return why a network cannot be called with inputs, as far as its `example` shows; else nothing."""
    if net.example is None or not all(hasattr(x, "shape") for x in inputs):
        return ""
    count = stacked(net)
    if count is not None:
        return (
            f"these are {count} networks with a leading axis: call them by "
            "jax.vmap(lambda net: net(x))(nets), or take one by jax.tree.map(lambda leaf: leaf[0], nets)"
        )
    if tuple(x.shape[1:] for x in inputs) == tuple(e.shape for e in net.example):
        return ""
    got = ", ".join(str(list(x.shape)) for x in inputs)
    wanted = ", ".join(str(["B", *e.shape]).replace("'", "") for e in net.example)
    return f"the network reads inputs of shape {wanted} (B examples), got {got}"


@lru_cache(maxsize=256)
def _sketched(model: Model, structure: Any, leaves: tuple[tuple[tuple[int, ...], Any], ...]) -> Any:
    def both(key, inputs):
        params, state = model.init(key, *inputs)
        return params, state, applied(model, params, state, *inputs)[0]

    inputs = structure.unflatten(jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in leaves)
    return jax.eval_shape(both, jax.random.key(0), inputs)


def sketch(model: Model, *inputs: Any) -> tuple[PyTree, PyTree, Outputs]:
    """Return the shapes of parameters, state and outputs of a network at inputs of these shapes.

    Args:
      model: Network.
      *inputs: Inputs of a batch: arrays, shapes, or pytrees of them.
    """
    leaves, structure = jax.tree.flatten(inputs)
    specs = tuple((tuple(np.shape(x)), np.dtype(_dtype(x))) for x in leaves)
    specs = tuple((shape, np.dtype(np.float32) if dtype == np.uint8 else dtype) for shape, dtype in specs)
    return _sketched(model, structure, specs)


def _dtype(x: Any) -> Any:
    return x.dtype if hasattr(x, "dtype") else jnp.result_type(x)


def stacked(net: Bound, *inputs: Any) -> int | None:
    """Return how many networks a `Bound` holds along a leading axis of all arrays; None for one network.

    Args:
      net: One network, or several as ``seeds=`` returns them.
      *inputs: Inputs of a batch, where the network does not know its `example`.
    """
    if not inputs:
        if net.example is None:
            return None
        inputs = tuple(jax.ShapeDtypeStruct((1, *e.shape), e.dtype) for e in net.example)
    expected = jax.tree.leaves(sketch(net.model, *inputs)[:2])
    leaves = jax.tree.leaves((net.params, net.state))
    if len(leaves) != len(expected) or not leaves:
        return None
    if any(np.ndim(x) != len(e.shape) + 1 for x, e in zip(leaves, expected, strict=True)):
        return None
    return leaves[0].shape[0]


def bind(model: Model, params: PyTree, state: PyTree = ()) -> Bound:
    """Join a model with its parameters into a callable.

    Args:
      model: Network.
      params: Parameters.
      state: State, such as batch statistics.
    """
    return Bound(params, state, model)


def as_bound(net: Any, what: str = "teacher") -> Bound:
    """Return a teacher as a `Bound` network.

    Args:
      net: `Bound` network, a Flax NNX module with its parameters, or a function of inputs that JAX can
        trace and that returns logits or `Outputs`.
      what: Role of the network, for messages.

    Raises:
      ValueError: If the network has no parameters, or is of another type.
    """
    if isinstance(net, Bound):
        return net
    if isinstance(net, nnx.Module):
        return _from_instance(net)
    if isinstance(net, nn.Module | Model):
        raise ValueError(
            f"the {what} has no parameters: train it first (jgd.distill.scratch), "
            "or join it with them by jgd.core.bind(model, params, state)"
        )
    if callable(net) and not isinstance(net, type):
        return Bound((), (), _from_function(net))
    kind = net.__name__ if isinstance(net, type) else f"a {type(net).__name__}"
    raise ValueError(f"the {what} must be a trained network (jgd.core.Bound) or a function, got {kind}")


@memoized
def _from_function(fn: Callable[..., Any]) -> Model:
    return Model(
        lambda key, *inputs: ((), ()),
        lambda params, state, *inputs, key=None, train=False: (_as_outputs(fn(*inputs)), state),
    )


def as_key(key: Any) -> Array:
    """Return a random key unchanged, or that of a seed, ``jax.random.key(seed)``.

    Args:
      key: Typed random key, or seed from 0 on.

    Raises:
      ValueError: If the key is neither of them.
    """
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 0:
        return key
    if isinstance(key, int | np.integer) and not isinstance(key, bool) and 0 <= key < 2**63:
        return jax.random.key(int(key))
    raise ValueError(
        f"key must be a random key such as jax.random.key(0), or a seed from 0 on, got {_described(key)}"
    )


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray | jax.Array):
        return f"an array {value.dtype.name} {list(value.shape)}"
    return f"{value!r}"[:60]


def _as_outputs(y: Any) -> Outputs:
    return y if isinstance(y, Outputs) else Outputs(y)


def from_linen(module: nn.Module, *, taps: Mapping[str, str] | None = None) -> Model:
    """Return a Flax linen module as a `Model`.

    Its ``__call__`` takes the inputs and returns `Outputs` or plain logits. Whether it trains is passed as an
    argument ``train`` (also ``training`` or ``is_training``) or as its opposite ``deterministic``, as far as
    it has one. Random numbers come from the streams ``"dropout"`` and ``"sample"``; without a key,
    ``make_rng`` is not available and dropout must be off: modules test ``self.has_rng("dropout")``, as the
    layers in `jgd.nn` do. Equal arguments give the same functions, so that `jax.jit` finds what it compiled.

    Args:
      module: Network, which is not changed.
      taps: ``{name: path}`` of intermediate values that become ``Outputs.taps``: names of submodules
        separated by ``"/"``, such as ``{"stage2": "Block_3"}``, for the output of the submodule's
        ``__call__``, or for a value that it sows in ``"intermediates"``. A submodule that is called several
        times gives a tuple. Taps that are not read cost nothing once compiled. `jgd.save` stores the module
        without them.

    Raises:
      ValueError: If the module lacks a path; this is raised when the model is applied.
    """
    paths = tuple(sorted((taps or {}).items()))
    return _from_linen(module, paths)


def module_of(model: Model) -> nn.Module | None:
    """Return the Flax linen module that a model was made of by `from_linen`; None for any other model."""
    return getattr(model.apply, "module", None)


def as_model(net: Any) -> Model:
    """Return a network as a `Model`.

    An NNX module has parameters, from which training starts. For another start with every key, and for
    several seeds, give ``from_nnx(lambda rngs: Net(rngs))``.

    Args:
      net: `Model`, Flax linen module, or Flax NNX module.

    Raises:
      ValueError: If the network is none of them.
    """
    if isinstance(net, Model):
        return net
    if isinstance(net, nn.Module):
        return from_linen(net)
    if isinstance(net, nnx.Module):
        return _from_instance(net).model
    if isinstance(net, Bound):
        raise ValueError(
            "a network that learns starts from new parameters: give its model (net.model), "
            'and start={"model": net} to go on from these'
        )
    kind = net.__name__ if isinstance(net, type) else f"a {type(net).__name__}"
    raise ValueError(
        "a network is a Flax linen module, a Flax NNX module or a jgd.core.Model, "
        f"got {kind}{': call it with its settings' if isinstance(net, type) else ''}"
    )


def _mode(module: nn.Module) -> Callable[[bool, bool], dict[str, bool]]:
    """Return the arguments of a module for whether it trains and whether there is a key."""
    parameters = inspect.signature(type(module).__call__).parameters
    for name in ("train", "training", "is_training"):
        if name in parameters:
            return lambda train, random: {name: train}
    if "deterministic" in parameters:
        return lambda train, random: {"deterministic": not (train and random)}
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return lambda train, random: {"train": train}
    return lambda train, random: {}


@memoized(maxsize=256)
def _from_linen(module: nn.Module, taps: tuple[tuple[str, str], ...] = ()) -> Model:
    mode = _mode(module)
    paths = {path for _, path in taps}

    def wanted(submodule: nn.Module, method: str) -> bool:
        return method == "__call__" and "/".join(submodule.path) in paths

    def init(key: Array, *inputs: Any):
        settings: dict[str, Any] = mode(False, False)
        variables = dict(module.init(key, *inputs, **settings))
        return variables.pop("params", {}), variables

    def apply(params, state, *inputs, key=None, train=False):
        rngs = None
        if key is not None:
            dropout, sample = jax.random.split(key)
            rngs = {"dropout": dropout, "sample": sample}
        variables = {"params": params, **state}
        updating = list(state) if train else []
        settings: dict[str, Any] = mode(train, key is not None)
        run = partial(module.apply, variables, *inputs, **settings, rngs=rngs)
        if not taps:
            result = run(mutable=updating or False)
            if not updating:
                return _as_outputs(result), state
            assert isinstance(result, tuple)
            y, updated = result
            return _as_outputs(y), {**state, **updated}
        y, updated = cast(tuple, run(mutable=[*updating, "intermediates"], capture_intermediates=wanted))
        updated = dict(updated)
        seen = _flat(updated.pop("intermediates", {}))
        if any(path not in seen for path in paths):
            everything = {"mutable": [*updating, "intermediates"], "capture_intermediates": True}
            seen = _flat(jax.eval_shape(lambda: run(**everything))[1].get("intermediates", {}))
        return _tapped(_as_outputs(y), taps, seen), {**state, **updated} if updating else state

    setattr(apply, "module", module)  # noqa: B010 - a function has no such attribute for a type checker
    reads = getattr(module, "adjacency", None)
    return Model(init, apply, None if reads is None else tuple(reads.items()))


def _flat(tree: Mapping[str, Any], above: str = "") -> dict[str, tuple]:
    """Return the values of a collection of intermediates by path; a submodule stands for its ``__call__``."""
    found: dict[str, tuple] = {}
    for name, value in tree.items():
        path = above if name == "__call__" else f"{above}/{name}" if above else name
        found |= _flat(value, path) if isinstance(value, Mapping) else {path: value}
    return found


def _tapped(outputs: Outputs, taps: tuple[tuple[str, str], ...], seen: Mapping[str, Sequence]) -> Outputs:
    """Return outputs with further taps, of the values of each path in the order of calls.

    Raises:
      ValueError: If the network lacks a path, or already has a tap of the name.
    """
    for name, path in taps:
        if path not in seen:
            known = [p for p in seen if p]
            close = get_close_matches(path, known, n=5, cutoff=0.5) or known[:10]
            raise ValueError(
                f"tap {name!r}: the network has no {path!r}, but {', '.join(close) or 'no parts'}"
            )
        if not seen[path]:
            raise ValueError(f"tap {name!r}: the network does not call {path!r}")
        if name in outputs.taps:
            raise ValueError(f"tap {name!r}: the network has a tap of this name already")
    new = {name: seen[path][0] if len(seen[path]) == 1 else tuple(seen[path]) for name, path in taps}
    return outputs._replace(taps={**outputs.taps, **new})


def from_nnx(make: Callable[[Any], Any], *, taps: Mapping[str, str] | None = None) -> Model:
    """Return a Flax NNX module as a `Model`.

    Equal arguments give the same functions, so that `jax.jit` finds what it compiled.

    Args:
      make: ``make(rngs: nnx.Rngs) -> nnx.Module``; the module takes the inputs and returns `Outputs` or
        logits. Dropout is on where there is a key and ``train``, batch statistics where ``train``.
      taps: ``{name: path}`` of outputs of submodules that become ``Outputs.taps``: attributes and positions
        separated by ``"/"`` or ``"."``, such as ``{"hidden": "encoder/blocks/2"}``; see `from_linen`.

    Raises:
      ValueError: If the module lacks a path; this is raised when the model is applied.
    """
    paths = tuple(sorted((taps or {}).items()))
    return _from_nnx(make, paths)


@memoized(maxsize=256)
def _from_nnx(make: Callable[[Any], Any], taps: tuple[tuple[str, str], ...]) -> Model:
    @lru_cache(maxsize=1)
    def abstract():
        return nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))), nnx.Param, nnx.RngState, ...)

    def init(key: Array, *inputs: Any):
        del inputs
        _, params, _, rest = nnx.split(make(nnx.Rngs(key)), nnx.Param, nnx.RngState, ...)
        return params, rest

    return Model(init, _nnx_apply(abstract, taps))


def _nnx_apply(
    abstract: Callable[[], tuple], taps: tuple[tuple[str, str], ...] = ()
) -> Callable[..., tuple[Outputs, PyTree]]:
    def fresh(key: Array, rngs: PyTree) -> PyTree:
        """Return the random streams of the module, restarted from `key`."""
        leaves, structure = jax.tree.flatten(rngs)
        keys = jax.random.split(key, max(1, len(leaves)))
        return structure.unflatten(
            keys[i] if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else jnp.zeros((), leaf.dtype)
            for i, leaf in enumerate(leaves)
        )

    def apply(params, state, *inputs, key=None, train=False):
        graph, _, rngs, _ = abstract()
        streams = fresh(jax.random.key(0) if key is None else key, rngs)
        module = nnx.merge(graph, params, streams, state, copy=True)
        off = key is None or not train
        module.set_attributes(deterministic=off, use_running_average=not train, raise_if_not_found=False)
        outputs = _nnx_tapped(module, taps, inputs) if taps else _as_outputs(module(*inputs))
        return outputs, nnx.split(module, nnx.Param, nnx.RngState, ...)[3] if train else state

    return apply


_recorded: dict[int, list] = {}  # outputs of the modules that `_nnx_tapped` taps, by their identity


@lru_cache(maxsize=256)
def _recording(kind: type) -> type:
    """Return a class of NNX modules whose calls are recorded."""

    def call(self, *args, **kwargs):
        result = kind.__call__(self, *args, **kwargs)
        _recorded[id(self)].append(result)
        return result

    return type(kind)(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})


def _nnx_tapped(module: nnx.Module, taps: tuple[tuple[str, str], ...], inputs: tuple) -> Outputs:
    """Return outputs of a module without other references, with those of some of its parts as taps."""
    parts = {"/".join(map(str, path)): part for path, part in nnx.iter_modules(module)}
    taps = tuple((name, path.replace(".", "/")) for name, path in taps)
    tapped = {path: parts[path] for _, path in taps if path in parts}
    kinds = {path: type(part) for path, part in tapped.items()}
    seen: dict[str, Sequence] = dict.fromkeys(parts, ())
    try:
        for path, part in tapped.items():
            _recorded.setdefault(id(part), [])
            object.__setattr__(part, "__class__", _recording(kinds[path]))
        outputs = _as_outputs(module(*inputs))
        seen |= {path: tuple(_recorded[id(part)]) for path, part in tapped.items()}
    finally:
        for path, part in tapped.items():
            object.__setattr__(part, "__class__", kinds[path])
            _recorded.pop(id(part), None)
    return _tapped(outputs, taps, seen)


def _from_instance(module: nnx.Module) -> Bound:
    """Return an NNX module with the parameters that it has now."""
    parts: Any = nnx.split(module, nnx.Param, nnx.RngState, ...)
    _, params, _, rest = parts

    def init(key: Array, *inputs: Any):
        del key, inputs
        return jax.tree.map(jnp.copy, (params, rest))  # a loop may reuse the memory of its state

    setattr(init, "given", True)  # noqa: B010 - see `starts_given`
    return Bound(params, rest, Model(init, _nnx_apply(lambda: parts)))


def starts_given(model: Model) -> bool:
    """Return whether a model starts from parameters that it has already, whatever the key.

    Args:
      model: Network.
    """
    return getattr(model.init, "given", False)
