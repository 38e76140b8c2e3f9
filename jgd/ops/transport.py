"""Optimal transport of small masses, exact and inside a compiled program."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["emd_flow"]


def _augment(cost: Array, flow: Array, supply: Array, demand: Array) -> tuple[Array, Array, Array]:
    """Send as much as fits along the cheapest path from a source with supply to a sink with demand.

    A path may return earlier flow (Bellman and Ford on the residual graph). A distance replaces another one
    only if it is lower by more than rounding, so that paths have no cycles.
    """
    sources, sinks = cost.shape
    enough = 8 * jnp.finfo(cost.dtype).eps * jnp.max(jnp.abs(cost))

    def relax(_, carry):
        to_source, to_sink, source_from, sink_from = carry
        ways = to_source[:, None] + cost
        best = jnp.min(ways, axis=0)
        shorter = best < to_sink - enough
        sink_from = jnp.where(shorter, jnp.argmin(ways, axis=0), sink_from)
        to_sink = jnp.where(shorter, best, to_sink)
        ways = jnp.where(flow > 0, to_sink - cost, jnp.inf)
        best = jnp.min(ways, axis=1)
        shorter = best < to_source - enough
        source_from = jnp.where(shorter, jnp.argmin(ways, axis=1), source_from)
        return jnp.where(shorter, best, to_source), to_sink, source_from, sink_from

    begin = (
        jnp.where(supply > 0, 0, jnp.inf).astype(cost.dtype),
        jnp.full(sinks, jnp.inf, cost.dtype),
        jnp.full(sources, -1),
        jnp.zeros(sinks, int),
    )
    _, to_sink, source_from, sink_from = jax.lax.fori_loop(0, sources, relax, begin)
    end = jnp.argmin(jnp.where(demand > 0, to_sink, jnp.inf))

    def back(_, carry):
        path, sink, source, done = carry
        i = jnp.where(done, source, sink_from[sink])
        path = path.at[i, sink].add(jnp.where(done, 0, 1))
        previous = source_from[i]
        done = done | (previous < 0)
        path = path.at[i, previous].add(jnp.where(done, 0, -1))
        return path, jnp.where(done, sink, previous), i, done

    path, _, start, _ = jax.lax.fori_loop(
        0, sources, back, (jnp.zeros_like(flow), end, jnp.asarray(0), jnp.asarray(False))
    )
    returned = jnp.min(jnp.where(path < 0, flow, jnp.inf))
    amount = jnp.minimum(jnp.minimum(supply[start], demand[end]), returned)
    return flow + amount * path, supply.at[start].add(-amount), demand.at[end].add(-amount)


def emd_flow(
    cost: Float[Array, "S T"],
    a: Float[Array, " S"] | None = None,
    b: Float[Array, " T"] | None = None,
) -> Float[Array, "S T"]:
    """Find the cheapest flow of masses a to masses b, ``min Σ F_ij cost_ij`` with row sums a, column sums b.

    It is exact up to rounding, by successive cheapest paths, and meant for tens of sources and sinks, such as
    the layers of two networks (BERT-EMD; Li et al., EMNLP 2020), whose loss is then ``Σ F_ij cost_ij``.

    Args:
      cost: Cost of moving one unit, of any sign.
      a: Nonnegative masses of the sources; None uses equal masses of sum 1.
      b: Nonnegative masses of the sinks, with the same sum; None uses equal masses of sum 1.

    Returns:
      The flow, without a gradient; any of several equally cheap ones.
    """
    sources, sinks = cost.shape
    dtype = jnp.promote_types(cost.dtype, jnp.float32)
    a = jnp.full(sources, 1 / sources) if a is None else a
    b = jnp.full(sinks, 1 / sinks) if b is None else b
    cost, supply, demand = (jax.lax.stop_gradient(x.astype(dtype)) for x in (cost, a, b))

    def running(carry):
        step, _, supply, demand = carry
        # Each path empties a source, a sink or a flow; the bound ends the loop if a cost is NaN.
        return (step < 4 * (sources + sinks) ** 2) & jnp.any(supply > 0) & jnp.any(demand > 0)

    def body(carry):
        step, *state = carry
        return step + 1, *_augment(cost, *state)

    begin = (0, jnp.zeros_like(cost), supply, demand)
    return jax.lax.while_loop(running, body, begin)[1]
