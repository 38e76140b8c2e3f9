"""Arguments for every public loss and metric, made from its signature: new ones are covered too."""

import inspect
import typing

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import scipy.special

from jgd import losses, metrics

# Sizes of named axes, all different, so that no two fit by chance.
SIZES = {
    "*B": (4,), "B": 4, "C": 3, "D": 6, "E": 7, "V": 9, "W": 8, "K": 5, "N": 4, "L": 5, "n": 6, "d": 3,
    "CS": 6, "T": 8,
    "S": 2, "k": 2, "H": 4, "G": 2, "H1": 4, "H2": 2, "H3": 4, "H4": 2, "W1": 4, "W2": 2, "W3": 4, "W4": 2,
    "F": 3,
    "*S": (6,), "*T": (7,), "...": (4, 3),
}  # fmt: skip
# What a signature does not say.
SPECIAL = {
    "num_examples": 20, "num_steps": 3, "k": 2, "S": 2, "C": 3, "alpha": 0.5, "size": (2, 2), "patch": 2,
    "batch": 4,
    "tokens": 9, "weight": 0.3, "epoch": 3,
}  # fmt: skip
MAPS = {
    "attention_transfer",
    "nst_loss",
    "hcl",
    "flow",
    "fsp_loss",
    "ickd_loss",
    "adaptive_average_pool",
    "patchify",
}
INTEGERS = ("labels", "targets", "tokens", "positive", "indices")
# Not functions of arrays of examples: they are tested where they are.
OTHERS = {"Lelp", "METRICS", "Neighbours", "ReliabilityBins", "layer_map", "sample_tokens"} | {
    "property_preservation"
}
# Their targets are tokens to come, clusters, numbers or indicators.
NO_CLASSES = {"losses.shifted", "metrics.davies_bouldin"} | {
    f"metrics.{n}"
    for n in ("mean_squared_error", "mean_absolute_error", "r2_score", "micro_f1", "multilabel_auc")
}
GRAPHS = {
    "homophily", "degree_statistics", "spectrum", "clustering_coefficient", "graph_properties",
    "strict_scores",
    "tolerant_scores",
}  # fmt: skip
NAMES = [f"losses.{n}" for n in losses.__all__ if n not in OTHERS]
NAMES += [f"metrics.{n}" for n in metrics.__all__ if n not in OTHERS | GRAPHS]


def find(name):
    """A public function by its name."""
    module, short = name.split(".")
    return getattr({"losses": losses, "metrics": metrics}[module], short)


def hints(function):
    """``{argument: array types}`` of the alternatives that a signature names."""
    found = typing.get_type_hints(function, include_extras=True)
    return {n: arrays(found[n]) for n in inspect.signature(function).parameters if n in found}


def arrays(hint):
    if hasattr(hint, "dim_str"):
        return [hint]
    return [a for part in typing.get_args(hint) for a in arrays(part)] if typing.get_args(hint) else []


def shape_of(array, name):
    shape, short = (), name.split(".")[1]
    for axis in array.dim_str.split():
        size = SIZES[axis]
        if axis == "W" and short in MAPS:  # the width of a map
            size = 4
        if axis == "V" and short in MAPS:
            size = 2
        shape += size if isinstance(size, tuple) else (size,)
    return shape


def floating(array):
    """Whether an annotation names real numbers, or any."""
    return not isinstance(array.dtypes, tuple) or "float32" in array.dtypes


def integer(array):
    """Whether an annotation allows integers."""
    return not isinstance(array.dtypes, tuple) or "int32" in array.dtypes


def numbers(array, name, argument, rng):
    """An array of the annotated shape and kind."""
    shape = shape_of(array, name)
    if argument == "where" and not floating(array):
        return jnp.ones(shape, bool)
    if (argument in INTEGERS and integer(array)) or not floating(array):
        return jnp.asarray(rng.integers(0, 2, shape), jnp.int32)
    if argument == "ranking":
        return jnp.broadcast_to(jnp.arange(shape[-1]), shape)
    x = rng.standard_normal(shape).astype(np.float32)
    if argument.startswith("log_"):
        x = x - scipy.special.logsumexp(x, axis=-1, keepdims=True) if x.ndim > 1 else -np.abs(x)
    return jnp.asarray(np.abs(x) if "weight" in argument else x)


def arguments(name, *, optional=True):
    """Valid arguments of a function by name."""
    function, given, rng = find(name), {}, np.random.default_rng(0)
    short = name.split(".")[1]
    for argument, parameter in inspect.signature(function).parameters.items():
        found = hints(function).get(argument, [])
        if argument == "key":
            given[argument] = jax.random.key(0)
        elif short == "graph_kl" and argument in ("student", "teacher"):
            indices = jnp.asarray((np.arange(6)[:, None] + [1, 2 + (argument == "teacher")]) % 6)
            given[argument] = losses.Neighbours(indices, jnp.asarray(rng.random((6, 2)), jnp.float32))
        elif short == "lelp_targets" and argument == "state":
            given[argument] = losses.Lelp(jnp.zeros((3, 6)), jnp.zeros((3, 6, 2)), jnp.ones(3))
        elif short == "fsp_loss" and argument in ("student", "teacher"):
            given[argument] = tuple(numbers(a, name, argument, rng) for a in found)
        elif parameter.default is inspect.Parameter.empty:
            made = [a for a in found if a.dim_str]
            given[argument] = numbers(made[0], name, argument, rng) if made else SPECIAL[argument]
        elif optional and found and parameter.default is None and any(a.dim_str for a in found):
            given[argument] = numbers(found[0], name, argument, rng)
    if name == "losses.lelp_fit":
        given["S"] = 2
    if name == "losses.patchify":
        given["features"] = jnp.ones((4, 4, 4, 3))
    return given


def needed(name):
    """Names of the arguments that have no default."""
    parameters = inspect.signature(find(name)).parameters.items()
    return [n for n, p in parameters if p.default is inspect.Parameter.empty]


def of_classes(name):
    """The argument that holds classes, if there is one that is needed."""
    found = hints(find(name))
    names = [
        n
        for n in needed(name)
        if n in ("labels", "targets", "tokens") and found.get(n) and integer(found[n][0])
    ]
    return names[0] if names and name not in NO_CLASSES else None


def real(name):
    """Whether a function takes real numbers."""
    return any(
        a.dim_str and floating(a)
        for n in needed(name)
        for a in hints(find(name)).get(n, [])
        if n not in INTEGERS or not integer(a)
    )


def shared_axes(name):
    """``(argument, axis, place from the left, other argument)`` of axes that a signature names twice."""
    found = hints(find(name))
    named = {n: a[0].dim_str.split() for n, a in found.items() if len(a) == 1 and a[0].dim_str}
    for argument, axes in named.items():
        for i, axis in enumerate(axes):
            for other, others in named.items():
                if other != argument and axis in others and axis != "...":
                    yield argument, axis, i, other
                    break


def wider(array, axes, place, by):
    """The array with more, fewer or one entry along a named axis."""
    x = np.asarray(array)
    axis = place
    for i, name in enumerate(axes[:place]):
        axis += len(SIZES[name]) - 1 if name[0] == "*" else 0
    if by == "one":
        return x.take([0], axis)
    if by == "more":
        return np.concatenate([x, x.take([0], axis)], axis)
    return x.take(range(x.shape[axis] - 1), axis)


def graph(nodes=4):
    """A ring."""
    i = np.arange(nodes)
    return jraph.GraphsTuple(
        np.random.default_rng(0).standard_normal((nodes, 3)).astype(np.float32), None, i, np.roll(i, 1), None,
        np.asarray([nodes]), np.asarray([nodes]),
    )  # fmt: skip
