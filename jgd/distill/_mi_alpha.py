r"""MI-α: the student's hidden states must tell as much as they can about the teacher's.

He et al., "Distiller: A Systematic Study of Model Distillation Methods in NLP", SustaiNLP 2021.

The one idea: matching hidden states asks a small network to copy a large one; a lower bound on their mutual
information asks it only to know the same. The bound is that of Poole et al. (ICML 2019), between InfoNCE
(α = 1: low variance, at most log K) and a learned baseline (α = 0: unbiased, high variance)::

    f_ab = h(y_a) g(x_b)^T,   q_a = baseline(y_a)          x of the student, y of the teacher, K pairs
    I_α  = 1 + mean_{a≠b} (f_aa - J_ab) - mean_{a≠b} exp(f_ab - J_aa)

Critics g and h and the baseline are perceptrons that are trained with the student by the same optimiser. Rows
are the teacher's, so the baseline may depend on them (the authors' code has rows of the student and a
baseline of the teacher: a looser bound). No map between widths is needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jgd import losses
from jgd.core import Objective, from_linen
from jgd.distill.terms import Place, beside_labels, sides
from jgd.nn import Perceptron
from jgd.registry import Entry

__all__ = ["mi_alpha"]


def mi_alpha(
    *,
    alpha: float | Array = 0.9,
    at: Place = "embedding",
    width: int = 64,
    hidden: Sequence[int] = (512, 512),
    student: str = "model",
    teacher: str = "teacher",
) -> Objective:
    """Return minus the bound I_α on the mutual information of two networks' hidden states.

    Hidden states of more than two axes are averaged over those in between (tokens, positions).

    Args:
      alpha: Position between the two ends of the bound; 0.9 is the usual choice.
      at: Place that is compared, or a pair.
      width: Width of the critics' outputs.
      hidden: Widths of the hidden layers of the critics and of the baseline.
      student: Name of the network that learns.
      teacher: Name of the network that it learns from.
    """
    critic = from_linen(Perceptron(width, tuple(hidden)))
    baseline = from_linen(Perceptron(1, tuple(hidden)))

    def states(ctx):
        both = sides(ctx, at, student, teacher)
        return [v.reshape(v.shape[0], -1, v.shape[-1]).mean(1) for v in both]

    def init(key, ctx):
        x, y = states(ctx)
        nets = zip(
            ("g", "h", "q"), (critic, critic, baseline), (x, y, y), jax.random.split(key, 3), strict=True
        )
        return {name: net.init(k, v)[0] for name, net, v, k in nets}, ()

    def apply(params, state, ctx, *, key, step):
        del key, step
        x, y = states(ctx)
        g = critic.apply(params["g"], {}, x)[0].logits
        h = critic.apply(params["h"], {}, y)[0].logits
        q = baseline.apply(params["q"], {}, y)[0].logits[:, 0]
        where = None if ctx.batch.weights is None else ctx.batch.weights != 0
        bound = losses.mi_alpha_bound(h @ g.T, q, alpha=jnp.asarray(alpha), where=where)
        return -bound, state, {"bound": bound}

    return Objective(init, apply)


ENTRIES = (
    Entry(
        "mi", beside_labels(0.1, mi_alpha), "Mutual information of embeddings, by a bound.", "He et al. 2021"
    ),
)
