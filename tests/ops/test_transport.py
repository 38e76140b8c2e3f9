"""Optimal transport against linear programming."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog

from jgd.ops import emd_flow

close = np.testing.assert_allclose


def solved(cost, a, b):
    s, t = cost.shape
    rows = np.kron(np.eye(s), np.ones(t))
    columns = np.kron(np.ones(s), np.eye(t))
    answer = linprog(cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.r_[a, b], bounds=(0, None))
    return answer.fun, answer.x.reshape(s, t)


@pytest.mark.parametrize("shape", [(4, 12), (5, 12), (6, 6), (1, 3), (12, 5)])
def test_equal_masses(shape):
    run = jax.jit(jax.vmap(emd_flow))
    rng = np.random.default_rng(0)
    costs = rng.random((10, *shape)).astype(np.float32)
    costs[-1] -= 0.5  # negative ones too
    for cost, flow in zip(costs, run(costs), strict=True):
        best, expected = solved(
            cost.astype(np.float64), np.full(shape[0], 1 / shape[0]), np.full(shape[1], 1 / shape[1])
        )
        close(flow.sum(1), 1 / shape[0], rtol=1e-5)
        close(flow.sum(0), 1 / shape[1], rtol=1e-5)
        assert (flow >= 0).all()
        close(np.sum(flow * cost), best, rtol=1e-5, atol=1e-6)
        close(flow, expected, atol=1e-5)  # random costs have one best flow


def test_any_masses():
    run = jax.jit(jax.vmap(emd_flow))
    rng = np.random.default_rng(1)
    costs = rng.normal(size=(20, 6, 9)).astype(np.float32)
    costs[10:] = np.round(2 * costs[10:])  # ties, everywhere
    a, b = (rng.dirichlet(np.ones(n), 20).astype(np.float32) for n in (6, 9))
    a[3, 2] = 0
    a /= a.sum(1, keepdims=True)
    for i, flow in enumerate(run(costs, a, b)):
        best, _ = solved(
            costs[i].astype(np.float64), *(np.float64(x[i]) / np.float64(x[i]).sum() for x in (a, b))
        )
        close(flow.sum(1), a[i], atol=2e-6)
        close(flow.sum(0), b[i], atol=2e-6)
        assert (flow >= 0).all()
        close(np.sum(flow * costs[i]), best, rtol=1e-4, atol=1e-5)


def test_a_free_assignment_costs_nothing():
    cost = 1 - jnp.eye(5)[jnp.asarray([3, 1, 4, 0, 2])]
    flow = emd_flow(cost)
    assert jnp.sum(flow * cost) == 0
    close(flow, (1 - cost) / 5)


def test_no_gradient_through_the_flow():
    cost = jnp.asarray(np.random.default_rng(2).random((3, 4)), jnp.float32)
    value, gradient = jax.value_and_grad(lambda c: jnp.sum(emd_flow(c) * c))(cost)
    close(gradient, emd_flow(cost))
    close(value, solved(np.float64(cost), np.full(3, 1 / 3), np.full(4, 1 / 4))[0], rtol=1e-5)


def test_it_ends_when_costs_are_not_numbers():
    assert emd_flow(jnp.full((3, 4), jnp.nan)).shape == (3, 4)


def test_lowers_for_every_platform():
    jax.export.export(jax.jit(emd_flow), platforms=("cpu", "cuda", "tpu"))(jnp.ones((3, 4)))
