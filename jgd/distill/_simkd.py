r"""SimKD: the student keeps the teacher's classifier and learns only what it reads.

Chen et al., "Knowledge Distillation with the Reused Teacher Classifier", CVPR 2022.

The one idea: much of what a teacher knows is in its last layer. A projector (1x1, 3x3, 1x1 convolutions,
normalised, ReLU) maps the student's last map onto the teacher's, the only loss is their squared distance, and
the answer is that of the teacher's own linear layer on the pooled projection::

    student = offline(reusing(net, teacher), teacher, simkd(), tx)(key, task)

The projector belongs to the student and is trained with it, so the student is used, scored and selected like
any other. The teacher's layer is in its state, which no optimiser touches. No labels are used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgd import losses
from jgd.core import Bound, Model, Objective, applied, as_model, from_linen
from jgd.distill._features import same_size
from jgd.distill.terms import At, read, term
from jgd.nn import ConvNorm

__all__ = ["last_linear", "reusing", "simkd"]


def last_linear(params: Mapping[str, Any]) -> tuple[Float[Array, "D C"], Float[Array, " C"]]:
    """Return weights and biases of the last linear layer at the top of a Flax network, by its number.

    Raises:
      ValueError: Where there is none, or several without numbers.
    """
    found = {
        name: layer
        for name, layer in params.items()
        if isinstance(layer, Mapping) and getattr(layer.get("kernel"), "ndim", 0) == 2
    }
    numbers = {name: int((re.findall(r"\d+$", name) or [-1])[0]) for name in found}
    last = [name for name in found if numbers[name] == max(numbers.values())]
    if len(last) != 1:
        raise ValueError(f"cannot tell the classifier among {sorted(params)}: give head=")
    kernel = found[last[0]]["kernel"]
    return kernel, found[last[0]].get("bias", jnp.zeros(kernel.shape[1]))


class _Projector(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with a bottleneck."""

    features: int
    factor: int
    relu: bool

    @nn.compact
    def __call__(self, x, *, train):
        narrow = max(1, self.features // self.factor)
        x = nn.relu(ConvNorm(narrow, 1)(x, train=train))
        x = nn.relu(ConvNorm(narrow, 3)(x, train=train))
        x = ConvNorm(self.features, 1)(x, train=train)
        return nn.relu(x) if self.relu else x


def reusing(
    net: Model | nn.Module,
    teacher: Bound,
    *,
    at: At = "stage3",
    size: tuple[int, int] | None = None,
    factor: int = 2,
    relu: bool = True,
    head: Callable[[Any], tuple[Array, Array]] = last_linear,
) -> Model:
    """Return a network that answers by the classifier of another one.

    Its logits are ``mean over positions of project(map) @ W + b``; the projection is the tap ``"projected"``.

    Args:
      net: Student, of which only what is at ``at`` is used.
      teacher: Network whose embedding is the mean of its last map over positions.
      at: Place of the student's last map, or of a vector, which counts as a map of one position.
      size: Size that larger maps are averaged to first, that of the teacher's map where it is smaller.
      factor: Ratio by which the projector is narrower inside.
      relu: Whether the projection ends with a ReLU; False for a teacher whose embedding may be negative.
      head: ``teacher's parameters -> (W [D, C], b [C])``.
    """
    if factor < 1:
        raise ValueError(f"factor must be at least 1, got {factor}")
    model = as_model(net)
    kernel, bias = head(teacher.params)
    projector = from_linen(_Projector(kernel.shape[0], factor, relu))

    def source(out):
        x = read(out, at)
        x = x[:, None, None] if x.ndim == 2 else x
        return x if size is None else same_size(x, jnp.zeros((x.shape[0], *size, 1)))[0]

    def init(key, *inputs):
        k_net, k_projector = jax.random.split(key)
        own, state = model.init(k_net, *inputs)
        out, _ = applied(model, own, state, *inputs)
        params, inner = projector.init(k_projector, source(out))
        # Copies: a loop may reuse the memory of its state, and the teacher keeps its own.
        reused = {"kernel": jnp.copy(kernel), "bias": jnp.copy(bias)}
        return {"net": own, "projector": params}, {"net": state, "projector": inner, "head": reused}

    def apply(params, state, *inputs, key=None, train=False):
        out, own = applied(model, params["net"], state["net"], *inputs, key=key, train=train)
        projected, inner = projector.apply(params["projector"], state["projector"], source(out), train=train)
        pooled = projected.logits.mean((1, 2))
        logits = pooled @ state["head"]["kernel"] + state["head"]["bias"]
        taps = {**out.taps, "projected": projected.logits, "own": out.logits}
        return out._replace(value=logits, embedding=pooled, taps=taps), {
            "net": own, "projector": inner, "head": state["head"],
        }  # fmt: skip

    return Model(init, apply, model.reads)


def simkd(at: At = "stage3", **settings: Any) -> Objective:
    """Return the distance of the projection and the teacher's last map, all of SimKD's loss. Weight 1.

    Args:
      at: Place of the teacher's last map, or of a vector.
      **settings: Settings of `jgd.distill.term`.
    """

    def loss(student, teacher, *, where=None):
        teacher = teacher[:, None, None] if teacher.ndim == 2 else teacher
        return losses.hint(*same_size(student, teacher), where=where)

    return term(loss, at=("projected", at), **settings)
