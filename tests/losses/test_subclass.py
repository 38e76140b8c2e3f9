"""LELP: projections against NumPy's decomposition, targets and losses against identities."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from scipy.stats import ortho_group
from sklearn.metrics import adjusted_rand_score

from jgd.losses import Lelp, lelp_fit, lelp_targets, marginal_logits, subclass_kd

close = np.testing.assert_allclose
KEY = jax.random.key(0)
fit = jax.jit(lelp_fit, static_argnames=("S", "null_space", "rotate"))
targets = jax.jit(lelp_targets)
loss = jax.jit(subclass_kd)


def teacher(n=120, dim=10, classes=3, seed=0):
    """Skewed embeddings of unequal variances, a head, and its logits."""
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((dim, classes))
    h = rng.exponential(size=(n, dim)) * np.linspace(3, 0.3, dim) @ ortho_group.rvs(dim, random_state=seed)
    h += 3 * rng.standard_normal((classes, dim))[rng.integers(0, classes, n)]
    return tuple(jnp.asarray(x, jnp.float32) for x in (h, (h - h.mean(0)) @ W, W))


def complement(W):
    centred = np.float64(W) - np.float64(W).mean(1, keepdims=True)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    u = u[:, s > 1e-6 * s.max()]
    return np.eye(len(u)) - u @ u.T


def softmax(x):
    return scipy.special.softmax(np.float64(x), -1)


@pytest.mark.parametrize("null_space", [True, False])
def test_directions_are_those_of_pca(null_space):
    h, z, W = teacher()
    S = 4
    state = fit(KEY, h, z, W, S=S, null_space=null_space, rotate=False)
    rotated = fit(KEY, h, z, W, S=S, null_space=null_space)
    inside = np.float64(h) @ (complement(W) if null_space else np.eye(10))
    labels = np.asarray(z).argmax(-1)
    for c in range(3):
        members = inside[labels == c]
        close(state.mu[c], members.mean(0), atol=1e-4)
        centred = members - members.mean(0)
        _, sizes, v = np.linalg.svd(centred, full_matrices=False)
        V, VQ = np.float64(state.V[c]), np.float64(rotated.V[c])
        close(abs(np.sum(V * v[:S].T, 0)), 1, atol=1e-4)
        close(V.T @ V, np.eye(S), atol=1e-5)
        close(VQ.T @ VQ, np.eye(S), atol=1e-5)
        variances = sizes**2 / len(members)
        for directions, scale in ((V, state.scale[c]), (VQ, rotated.scale[c])):
            deviations = (centred @ directions).std(0)
            close(np.sum(deviations**2), variances[:S].sum(), rtol=1e-4)
            close(scale, deviations.mean(), rtol=1e-4)
        close(((centred @ V).std(0)) ** 2, variances[:S], rtol=1e-3)
        close(V @ (V.T @ VQ), VQ, atol=1e-4)  # the same span
        if null_space:
            shift = np.float64(W).T @ V
            close(shift - shift.mean(0), 0, atol=1e-5)
            before = softmax(z)
            close(softmax(np.float64(z) + 5 * shift[:, 0]), before, atol=1e-5)


def test_rotations_share_the_variance():
    h, z, W = teacher(60, 6, 2)
    S = 3
    states = jax.jit(jax.vmap(partial(lelp_fit, S=S), (0, None, None, None)))(
        jax.random.split(KEY, 2000), h, z, W
    )
    inside = np.float64(h) @ complement(W)
    labels = np.asarray(z).argmax(-1)
    for c in range(2):
        centred = inside[labels == c] - inside[labels == c].mean(0)
        variances = np.einsum("nd,kds->kns", centred, np.float64(states.V[:, c])).var(1)
        close(variances.sum(1), variances.sum(1)[0], rtol=1e-4)
        close(variances.mean(0), variances.sum(1)[0] / S, rtol=0.04)
        assert variances.std(0).min() > 0.05 * variances.mean()
    # The rotations are uniform: no entry is favoured in sign or size.
    plain = fit(KEY, h, z, W, S=S, rotate=False)
    Q = np.einsum("ds,kdt->kst", np.float64(plain.V[0]), np.float64(states.V[:, 0]))
    close(Q.mean(0), 0, atol=5 * np.sqrt(1 / 3 / 2000))
    close((Q**2).mean(0), 1 / 3, atol=5 * np.sqrt(0.09 / 2000))
    assert (abs(np.asarray(states.V[:, 0, :, 0]) - np.asarray(states.V[:, 1, :, 0])).max(1) > 1e-3).all()


def test_targets():
    h, z, W = teacher()
    state = fit(KEY, h, z, W, S=4)
    q = targets(state, h, z, beta=0.3, temperature=2.0)
    close(q.sum(-1), softmax(z / 2), atol=1e-6)
    close(q.sum((-1, -2)), 1, rtol=1e-6)
    assert (q >= 0).all()
    inside = np.float64(h) @ complement(W)
    for c in range(3):
        g = (inside - np.float64(state.mu[c])) @ np.float64(state.V[c]) / np.float64(state.scale[c])
        close(q[:, c], softmax(z / 2)[:, [c]] * softmax(g / 0.3), atol=2e-5)
    close(
        targets(state, h.reshape(4, 30, -1), z.reshape(4, 30, -1), beta=0.3, temperature=2.0).reshape(
            q.shape
        ),
        q,
        atol=1e-6,
    )
    close(targets(state, h, z, beta=1e6), np.repeat(softmax(z / 4)[..., None] / 4, 4, -1), atol=1e-5)
    hard = targets(state, h, z, beta=1e-6, temperature=2.0)
    close(hard.max(-1), softmax(z / 2), atol=1e-5)


def test_targets_do_not_depend_on_units_or_axes():
    h, z, W = teacher()
    options = {"S": 3}
    q = targets(fit(KEY, h, z, W, **options), h, z)
    turn = jnp.asarray(ortho_group.rvs(10, random_state=5), jnp.float32)
    for name, (a, b) in {
        "shift": (h + 2, W),
        "scale": (7 * h, W),
        "turn": (h @ turn, turn.T @ W),
    }.items():
        close(targets(fit(KEY, a, z, b, **options), a, z), q, atol=2e-3, err_msg=name)
    other = targets(fit(jax.random.key(1), h, z, W, **options), h, z)
    assert abs(other - q).max() > 0.05
    again = fit(KEY, h, z, W, **options)
    assert all((a == b).all() for a, b in zip(again, fit(KEY, h, z, W, **options), strict=True))


def test_labels_and_masks():
    h, z, W = teacher()
    labels = jnp.asarray(np.random.default_rng(1).integers(0, 3, len(h)))
    state = fit(KEY, h, z, W, S=2, labels=labels)
    inside = np.float64(h) @ complement(W)
    close(state.mu, [inside[np.asarray(labels) == c].mean(0) for c in range(3)], atol=1e-4)
    where = jnp.arange(len(h)) % 3 > 0
    masked = fit(KEY, h.at[~where].set(jnp.nan), z.at[~where].set(jnp.nan), W, S=2, where=where)
    for a, b in zip(masked, fit(KEY, h[where], z[where], W, S=2), strict=True):
        close(a, b, atol=1e-3)


def test_classes_with_few_examples():
    h, z, W = teacher(dim=8)
    labels = jnp.full(len(h), 0).at[:3].set(1)  # 3 examples: two directions; the third class has none
    state = fit(KEY, h, z, W, S=4, labels=labels)
    gram = np.float64(jnp.swapaxes(state.V, 1, 2) @ state.V)
    close(gram[0], np.eye(4), atol=1e-4)
    close(gram[1], np.diag([1, 1, 0, 0]), atol=1e-4)
    close(gram[2], 0)
    q = targets(state, h, z)
    assert jnp.isfinite(q).all()
    close(q[:, 1, 2], q[:, 1, 3], rtol=1e-5)
    close(q[:, 2], q[:, 2, :1].repeat(4, 1), rtol=1e-5)
    with pytest.raises(ValueError, match="between 1 and 6, the directions besides those of the head; got 7"):
        lelp_fit(KEY, h, z, W, S=7)
    assert fit(KEY, h, z, W, S=7, null_space=False).V.shape == (3, 8, 7)


@pytest.mark.parametrize(("subclasses", "S"), [(2, 1), (2, 2), (3, 3)])
def test_true_subclasses_are_found(subclasses, S):
    rng = np.random.default_rng(2)
    dim, classes, n = 12, 2, 600
    axes = ortho_group.rvs(dim, random_state=1)
    W = axes[:2].T @ rng.standard_normal((2, classes))
    y, sub = rng.integers(0, classes, n), rng.integers(0, subclasses, n)
    # A triangle on two axes that the head does not read; the first of its corners is far from the others.
    offsets = np.array([[8.0, 0.0], [-4.0, 5.0], [-4.0, -5.0]])[:subclasses] @ axes[2:4]
    h = offsets[sub] + 3 * W.T[y] + 0.2 * rng.standard_normal((n, dim))
    h, z, W = (jnp.asarray(x, jnp.float32) for x in (h, h @ W, W))
    state = fit(KEY, h, z, W, S=S, rotate=False)
    labels = np.asarray(z).argmax(-1)
    q = np.asarray(targets(state, h, z, beta=0.05))
    for c in range(classes):
        members = labels == c
        if S == 1:
            found = np.asarray((h[members] - state.mu[c]) @ state.V[c])[:, 0] > 0
        else:  # one direction has no variance but noise: it is the largest where all others are negative
            found = q[members, c].argmax(-1)
        assert adjusted_rand_score(sub[members], found) > 0.9


def test_loss():
    rng = np.random.default_rng(3)
    u = jnp.asarray(rng.standard_normal((5, 12)), jnp.float32)
    q = jnp.asarray(rng.dirichlet(np.ones(12), 5).reshape(5, 3, 4), jnp.float32)
    exact = -4.0 * np.sum(np.float64(q).reshape(5, 12) * scipy.special.log_softmax(np.float64(u) / 2, -1), -1)
    close(loss(u, q, temperature=2.0), exact, rtol=1e-5)

    def total(u, q, where):
        return subclass_kd(u, q, temperature=2.0, where=where).sum()

    run = jax.jit(jax.grad(total, argnums=(0, 1)))
    gradient, to_targets = run(u, q, jnp.ones(5, bool))
    close(gradient, 2 * (softmax(u / 2) - np.float64(q).reshape(5, 12)), atol=1e-5)
    assert not to_targets.any()
    where = jnp.asarray([True, True, False, True, False])
    bad, _ = run(u.at[~where].set(jnp.nan), q.at[~where].set(jnp.nan), where)
    close(bad, jnp.where(where[:, None], gradient, 0), atol=1e-6)
    extreme, _ = run(1e4 * u, q, where)
    assert jnp.isfinite(extreme).all()
    assert loss(u.astype(jnp.bfloat16), q).dtype == jnp.float32
    # The same permutation of subclasses on both sides.
    order = jnp.asarray([2, 0, 3, 1])
    both = loss(u.reshape(5, 3, 4)[..., order].reshape(5, 12), q[..., order], temperature=2.0)
    close(both, exact, rtol=1e-5)


def test_it_is_kd_when_subclasses_say_nothing():
    h, z, W = teacher()
    tau = 2.0

    def kd(logits):  # cross-entropy form
        return -(tau**2) * np.sum(
            softmax(z / tau) * scipy.special.log_softmax(np.float64(logits) / tau, -1), -1
        )

    rng = np.random.default_rng(4)
    u = jnp.asarray(rng.standard_normal((len(h), 3)), jnp.float32)
    one = targets(fit(KEY, h, z, W, S=1), h, z, temperature=tau)
    close(loss(u, one, temperature=tau), kd(u), rtol=1e-5)
    # An even split costs log S more, if the student splits evenly, and otherwise more than that.
    S = 4
    even = targets(fit(KEY, h, z, W, S=S), h, z, beta=1e7, temperature=tau)
    copies = jnp.repeat(u, S, -1)
    close(loss(copies, even, temperature=tau), kd(u) + tau**2 * np.log(S), rtol=1e-5)
    uneven = copies + jnp.asarray(rng.standard_normal(copies.shape), jnp.float32)
    classes = marginal_logits(uneven, 3, temperature=tau)
    assert (loss(uneven, even, temperature=tau) > kd(classes) + tau**2 * np.log(S)).all()


def test_prediction():
    u = jnp.asarray(np.random.default_rng(5).standard_normal((50, 12)) * 3, jnp.float32)
    for tau in (1.0, 4.0):
        summed = softmax(u / tau).reshape(50, 3, 4).sum(-1)
        logits = marginal_logits(u, 3, temperature=tau)
        close(softmax(logits / tau), summed, rtol=1e-5)
        assert (logits.argmax(-1) == summed.argmax(-1)).all()
    # Two classes that are as likely at the temperature of the loss: one is sure of its subclass, one is not.
    even = jnp.asarray([[4 * np.log(2.0), -400.0, 0.0, 0.0]])
    close(marginal_logits(even, 2, temperature=4.0), [[4 * np.log(2), 4 * np.log(2)]], rtol=1e-5)
    assert marginal_logits(even, 2)[0, 0] > marginal_logits(even, 2)[0, 1] + 2
    with pytest.raises(ValueError, match="12 outputs cannot be 5 classes"):
        marginal_logits(u, 5)


@pytest.mark.long
def test_teacher_is_constant_and_everything_lowers():
    h, z, W = teacher()

    def step(u, state, h, z):
        q = lelp_targets(state, h, z, beta=0.25, temperature=4.0)
        return subclass_kd(u, q).mean() + 0 * marginal_logits(u, 3).sum()

    state = fit(KEY, h, z, W, S=2)
    u = jnp.ones((len(h), 6))
    gradients = jax.jit(jax.grad(step, argnums=(1, 2, 3)))(u, state, h, z)
    assert all(not g.any() for g in jax.tree.leaves(gradients))
    assert isinstance(gradients[0], Lelp)
    jax.export.export(jax.jit(jax.grad(step)), platforms=("cpu", "cuda", "tpu"))(u, state, h, z)

    def fitted(h, z, W):
        return sum(jnp.sum(x) for x in lelp_fit(KEY, h, z, W, S=2))

    gradients = jax.jit(jax.grad(fitted, argnums=(0, 1, 2)))(h, z, W)
    assert all(not g.any() for g in gradients)
