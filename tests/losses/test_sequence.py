"""Losses of sequences: whole languages enumerated, closed forms and loops."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from jgd.losses import (
    bradley_terry,
    clipped_surrogate,
    distillm,
    dpo,
    generalized_js,
    gkd,
    importance_weight,
    ipo,
    js,
    kl,
    mixture,
    pro,
    reverse_kl,
    reward_to_go,
    rrhf,
    sequence_kd,
    sequence_log_prob,
    sft,
    shifted,
    skew_kl,
    skew_reverse_kl,
    token_log_prob,
    token_mean,
    total_variation,
    uld,
    whiten,
)

close = np.testing.assert_allclose
N, L, V = 3, 5, 6
S64, T64 = np.random.default_rng(0).standard_normal((2, N, L, V)) * 2
S, T = jnp.asarray(S64, jnp.float32), jnp.asarray(T64, jnp.float32)
TOKENS = jnp.asarray(np.random.default_rng(1).integers(0, V, (N, L)))
WHERE = jnp.asarray(np.arange(L) < np.asarray([5, 3, 1])[:, None])
LOG_Q64 = scipy.special.log_softmax(S64, -1)


def chosen64(log_q=LOG_Q64):
    return np.take_along_axis(log_q, np.asarray(TOKENS)[..., None], -1)[..., 0]


@pytest.mark.long
def test_tokens():
    close(token_log_prob(S, TOKENS), chosen64(), rtol=1e-5)
    close(sft(S, TOKENS, where=WHERE), -chosen64() * np.asarray(WHERE), rtol=1e-5)
    close(token_mean(sft(S, TOKENS), WHERE), -chosen64()[np.asarray(WHERE)].mean(), rtol=1e-5)
    close(sequence_log_prob(S, TOKENS, where=WHERE), (chosen64() * np.asarray(WHERE)).sum(-1), rtol=1e-5)
    means = (chosen64() * np.asarray(WHERE)).sum(-1) / [5, 3, 1]
    close(sequence_log_prob(S, TOKENS, where=WHERE, normalize=True), means, rtol=1e-5)
    close(sequence_log_prob(S, TOKENS, normalize=True), chosen64().mean(-1), rtol=1e-5)
    assert not sequence_log_prob(S, TOKENS, where=WHERE & False, normalize=True).any()
    # Padding tokens outside the vocabulary, and logits of nothing there.
    padded = jnp.where(WHERE, TOKENS, -100)
    grads = jax.grad(lambda s: token_mean(sft(s, padded), WHERE))(S)
    nothing = jnp.where(WHERE[..., None], S, jnp.nan)
    close(token_mean(sft(nothing, padded, where=WHERE), WHERE), token_mean(sft(S, TOKENS), WHERE), rtol=1e-6)
    expected = (
        (scipy.special.softmax(S64, -1) - np.eye(V)[np.asarray(TOKENS)]) * np.asarray(WHERE)[..., None] / 9
    )
    close(grads, expected, atol=1e-6)
    assert sft(S.astype(jnp.bfloat16), TOKENS).dtype == jnp.float32


def test_shifted():
    """A model that has read t tokens predicts the next one."""
    text = jnp.asarray([[1, 2, 3, 4, 5]])
    after = jax.nn.one_hot(jnp.asarray([[2, 3, 4, 5, 0]]), V) * 50
    logits, tokens, where = shifted(after, text, jnp.asarray([[False, False, True, True, False]]))
    assert tokens.tolist() == [[2, 3, 4, 5]]
    assert where.tolist() == [[False, True, True, False]]
    close(sft(logits, tokens), 0, atol=1e-5)


DIVERGENCES = {
    "kl": kl,
    "reverse": reverse_kl,
    "js": js,
    "gjs": partial(generalized_js, beta=0.3),
    "tv": total_variation,
    "skew": skew_kl,
    "skew_reverse": skew_reverse_kl,
}


@pytest.mark.parametrize("name", DIVERGENCES)
def test_sequence_kd(name):
    divergence = DIVERGENCES[name]

    @jax.jit
    def run(s, t, where):
        def loss(s, t):
            tokens = sequence_kd(s, t, divergence=divergence, where=where)
            return token_mean(tokens, where), tokens

        (_, tokens), grads = jax.value_and_grad(loss, (0, 1), has_aux=True)(s, t)
        return tokens, *grads

    tokens, ds, dt = run(S, T, WHERE)
    log_p, log_q = jax.nn.log_softmax(T), jax.nn.log_softmax(S)
    close(tokens, jnp.where(WHERE, divergence(log_p, log_q), 0), rtol=1e-5, atol=1e-6)
    assert not dt.any()
    assert not ds[~WHERE].any()
    # Garbage in tokens that do not count.
    hidden = ~WHERE[..., None]
    again = run(jnp.where(hidden, jnp.nan, S), jnp.where(hidden, jnp.inf, T), WHERE)
    close(again[0], tokens)
    close(again[1], ds)
    # A vocabulary masked on either side: both speak the words in common.
    s, t = S.at[..., 1].set(-jnp.inf), T.at[..., 4].set(-jnp.inf)
    keep = jnp.asarray([0, 2, 3, 5])
    tokens, ds, _ = run(s, t, WHERE)
    close(
        tokens,
        sequence_kd(S[..., keep], T[..., keep], divergence=divergence, where=WHERE),
        rtol=1e-5,
        atol=1e-6,
    )
    assert np.isfinite(ds).all()
    assert not ds[..., jnp.asarray([1, 4])].any()
    # Words that are almost impossible.
    tokens, ds, _ = run(1e4 * jnp.sign(S), -1e4 * jnp.sign(T), WHERE)
    assert np.isfinite(tokens).all()
    assert np.isfinite(ds).all()


def test_named_token_losses():
    log_p, log_q = jax.nn.log_softmax(T / 2), jax.nn.log_softmax(S / 2)
    close(gkd(S, T, beta=0.3, temperature=2.0), generalized_js(log_p, log_q, 0.3), rtol=1e-5)
    close(gkd(S, T, beta=0.0), kl(jax.nn.log_softmax(T), jax.nn.log_softmax(S)), rtol=1e-5)
    close(distillm(S, T, skew=0.2), skew_kl(jax.nn.log_softmax(T), jax.nn.log_softmax(S), 0.2), rtol=1e-5)
    close(distillm(S, T, divergence=skew_reverse_kl), distillm(T, S), rtol=1e-5)
    per_token = sequence_kd(S, T, temperature=jnp.full((N, L), 2.0))
    close(per_token, sequence_kd(S, T, temperature=2.0), rtol=1e-6)


@pytest.mark.long
def test_uld():
    wider = jnp.concatenate([T, T[..., :3] - 1], -1)
    p = -np.sort(-scipy.special.softmax(np.asarray(wider, np.float64), -1), -1)
    q = np.pad(-np.sort(-scipy.special.softmax(S64, -1), -1), [(0, 0), (0, 0), (0, 3)])
    close(uld(S, wider, where=WHERE), np.abs(p - q).sum(-1) * np.asarray(WHERE), rtol=1e-4)
    close(uld(wider, S), np.abs(p - q).sum(-1), rtol=1e-4)
    close(uld(S[..., jnp.asarray([3, 1, 0, 5, 4, 2])], S), 0, atol=1e-6)
    assert not jax.grad(lambda t: uld(S, t).sum())(wider).any()
    assert np.abs(jax.grad(lambda s: uld(s, wider).sum())(S)).max() > 1e-3


# A language of three words and texts of three words: everything can be enumerated.

WORDS, LENGTH = 3, 3
TEXTS = jnp.asarray(list(itertools.product(range(WORDS), repeat=LENGTH)))


def language(params):
    """Logits of all texts: the next word depends on all words so far."""
    one = jnp.zeros(len(TEXTS), int)
    states = [one, 1 + TEXTS[:, 0], 4 + 3 * TEXTS[:, 0] + TEXTS[:, 1]]
    return jnp.stack([params[s] for s in states], axis=1)


PARAMS = np.random.default_rng(2).standard_normal((2, 13, WORDS))


@pytest.mark.long
def test_chain_rule_of_sequences():
    with jax.enable_x64(True):
        p, q = (language(jnp.asarray(x)) for x in PARAMS)
        log_p, log_q = sequence_log_prob(p, TEXTS), sequence_log_prob(q, TEXTS)
        close(jnp.exp(log_p).sum(), 1, rtol=1e-12)
        whole = kl(log_p, log_q)
        close(whole, jnp.sum(jnp.exp(log_p) * sequence_kd(q, p).sum(-1)), rtol=1e-12)
        back = jnp.sum(jnp.exp(log_q) * sequence_kd(q, p, divergence=reverse_kl).sum(-1))
        close(reverse_kl(log_p, log_q), back, rtol=1e-12)


@pytest.mark.long
@pytest.mark.parametrize("single_step", [False, True])
def test_policy_gradient_of_the_reverse_divergence(single_step):
    """MiniLLM's estimators have the gradient of KL(q‖p) of whole texts as their mean, here an exact sum."""
    with jax.enable_x64(True):
        teacher, student = (jnp.asarray(x) for x in PARAMS)
        log_p = sequence_log_prob(language(teacher), TEXTS)
        exact = jax.grad(lambda w: reverse_kl(log_p, sequence_log_prob(language(w), TEXTS)))(student)
        probabilities = jnp.exp(sequence_log_prob(language(student), TEXTS))

        def surrogate(w):
            z = language(w)
            words_q, words_p = token_log_prob(z, TEXTS), token_log_prob(language(teacher), TEXTS)
            returns = reward_to_go(words_p - words_q, skip=int(single_step))
            losses = clipped_surrogate(words_q, jax.lax.stop_gradient(words_q), returns)
            if single_step:
                losses = losses + sequence_kd(z, language(teacher), divergence=reverse_kl)
            return jnp.sum(probabilities * losses.sum(-1))

        close(jax.jit(jax.grad(surrogate))(student), exact, atol=1e-12)
        assert np.abs(exact).max() > 1e-2


def test_importance_weights():
    """Texts from the mixture, weighted, have the student's mean of any function of the next word."""
    log_p, log_q = jax.nn.log_softmax(T[0, 0]), jax.nn.log_softmax(S[0, 0])
    weights = importance_weight(log_q, log_p, mix=0.2)
    sampled = jnp.exp(mixture(log_p, log_q, 0.2))
    close(sampled * weights, jnp.exp(log_q), rtol=1e-5)
    assert (weights <= 1 / 0.8 + 1e-5).all()
    assert not jax.grad(lambda q: importance_weight(q, log_p).sum())(log_q).any()


def test_reward_to_go(rng):
    rewards, where = rng.standard_normal((N, L)), np.asarray(WHERE)
    for discount, normalize in ((1.0, False), (0.9, False), (0.9, True)):
        expected = np.zeros((N, L + 1))
        for i, t in itertools.product(range(N), range(L)):
            if where[i, t]:
                later = [u for u in range(t, L) if where[i, u]]
                total = sum(discount ** (u - t) * rewards[i, u] for u in later)
                expected[i, t] = total / (len(later) if normalize else 1)
        settings = {"discount": discount, "normalize": normalize, "where": WHERE}
        found = reward_to_go(jnp.asarray(rewards, jnp.float32), **settings)
        close(found, expected[:, :L], rtol=1e-4, atol=1e-5)
        found = reward_to_go(jnp.asarray(rewards, jnp.float32), skip=1, **settings)
        close(found, expected[:, 1:] * where, rtol=1e-4, atol=1e-5)
    assert not jax.grad(lambda r: reward_to_go(r).sum())(S[..., 0]).any()


def test_whiten(rng):
    values = jnp.asarray(rng.standard_normal((N, L)) * 4 + 7, jnp.float32)
    white = np.asarray(whiten(values, WHERE))
    inside = np.asarray(values, np.float64)[np.asarray(WHERE)]
    close(white[np.asarray(WHERE)], (inside - inside.mean()) / inside.std(), rtol=1e-4, atol=1e-5)
    assert not white[~np.asarray(WHERE)].any()
    close(whiten(jnp.full((N, L), 3.0)), 0)
    close(whiten(values), scipy.stats.zscore(np.asarray(values, np.float64), None), rtol=1e-4, atol=1e-5)


def test_clipped_surrogate(rng):
    gaps, advantages = (x.ravel() for x in np.meshgrid([-1.0, -0.1, 0.0, 0.1, 1.0], [-2.0, 0.0, 3.0]))
    weights = rng.uniform(0.5, 1.25, gaps.shape)
    for w in (None, weights):
        ratio = np.exp(gaps) * (1 if w is None else w)
        expected = np.maximum(-advantages * ratio, -advantages * np.clip(ratio, 0.8, 1.2))
        arguments = (
            jnp.asarray(gaps - 3, jnp.float32),
            jnp.full(gaps.shape, -3.0),
            jnp.asarray(advantages, jnp.float32),
        )
        extra = None if w is None else jnp.asarray(w, jnp.float32)
        close(clipped_surrogate(*arguments, weights=extra), expected, rtol=1e-5, atol=1e-6)
        grads = jax.grad(lambda *a: clipped_surrogate(*a, weights=extra).sum(), (0, 1, 2))(*arguments)
        free = np.where(advantages > 0, ratio < 1.2, ratio > 0.8)
        close(grads[0], -advantages * ratio * free, rtol=1e-4, atol=1e-5)
        assert not any(g.any() for g in grads[1:])
    where = jnp.asarray([True, False])
    hidden = clipped_surrogate(
        jnp.asarray([-1.0, jnp.nan]), jnp.asarray([-1.0, 0.0]), jnp.asarray([2.0, jnp.inf]), where=where
    )
    assert hidden.tolist() == [-2.0, 0.0]


# Preferences


def test_dpo(rng):
    policy = jnp.asarray(rng.standard_normal((2, N)) * 5 - 20, jnp.float32)
    reference = jnp.asarray(rng.standard_normal((2, N)) * 5 - 20, jnp.float32)
    margin = (
        np.float64(policy[0]) - np.float64(reference[0]) - np.float64(policy[1]) + np.float64(reference[1])
    )
    close(dpo(*policy, *reference, beta=0.3), np.logaddexp(0, -0.3 * margin), rtol=1e-5)
    close(ipo(*policy, *reference, beta=0.3), (margin - 1 / 0.6) ** 2, rtol=1e-5)
    close(bradley_terry(*policy), np.logaddexp(0, np.float64(policy[1]) - np.float64(policy[0])), rtol=1e-5)
    close(dpo(*policy, *policy), np.log(2), rtol=1e-6)
    grads = jax.grad(lambda *a: dpo(*a, beta=0.4).sum(), (0, 1, 2, 3))(*policy, *policy)
    close(grads[0], -0.2, rtol=1e-6)
    close(grads[1], 0.2, rtol=1e-6)
    assert not grads[2].any()
    assert not grads[3].any()
    close(dpo(*(policy + 4.0), *(reference - 3.0)), dpo(*policy, *reference), rtol=1e-3)
    assert np.isfinite(dpo(policy[0] - 1e4, policy[1], *reference, beta=1.0)).all()


def test_optimum_of_dpo_and_of_rewards(rng):
    """With all pairs of Bradley-Terry preferences the best policy is ``ref exp(r/β) / Z``."""
    beta, num = 0.5, 5
    reward, reference = rng.standard_normal(num), scipy.special.log_softmax(rng.standard_normal(num))
    best = scipy.special.log_softmax(reference + reward / beta)
    i, j = (jnp.asarray(x) for x in np.nonzero(~np.eye(num, dtype=bool)))
    with jax.enable_x64(True):
        chance = jax.nn.sigmoid(jnp.asarray(reward)[i] - jnp.asarray(reward)[j])
        ref = jnp.asarray(reference)

        def loss(z):
            log_pi = jax.nn.log_softmax(z)
            return jnp.sum(chance * dpo(log_pi[i], log_pi[j], ref[i], ref[j], beta=beta))

        close(jax.jit(jax.grad(loss))(jnp.asarray(best)), 0, atol=1e-12)
        curvature = np.linalg.eigvalsh(jax.jit(jax.hessian(loss))(jnp.asarray(best)))
        assert curvature[1] > 1e-3  # flat only along shifts of all logits

        def value(z):
            log_pi = jax.nn.log_softmax(z)
            return jnp.sum(jnp.exp(log_pi) * reward) - beta * kl(log_pi, ref)

        top = beta * scipy.special.logsumexp(reference + reward / beta)
        close(value(jnp.asarray(best)), top, rtol=1e-12)
        others = best + rng.standard_normal((50, num))
        assert (jax.jit(jax.vmap(value))(jnp.asarray(others)) < top).all()


@pytest.mark.long
def test_rrhf_and_pro(rng):
    p, r = rng.standard_normal((2, N, 4))
    log_probs, rewards = jnp.asarray(p, jnp.float32), jnp.asarray(r, jnp.float32)
    hinges, likelihoods = np.zeros(N), np.zeros(N)
    for n in range(N):
        for i, j in itertools.permutations(range(4), 2):
            hinges[n] += max(0, p[n, i] - p[n, j]) * (r[n, i] < r[n, j])
        order = np.argsort(-r[n])
        likelihoods[n] = -sum(p[n, order[k]] - scipy.special.logsumexp(p[n, order[k:]]) for k in range(3))
    close(rrhf(log_probs, rewards), hinges, rtol=1e-5, atol=1e-6)
    close(pro(log_probs, rewards), likelihoods, rtol=1e-5)
    close(rrhf(rewards * 3, rewards), 0)
    assert (rrhf(-rewards, rewards) > 0).all()
    better = rewards[:, 0] > rewards[:, 1]
    pair = (
        jnp.where(better, log_probs[:, 0], log_probs[:, 1]),
        jnp.where(better, log_probs[:, 1], log_probs[:, 0]),
    )
    close(pro(log_probs[:, :2], rewards[:, :2]), bradley_terry(*pair), rtol=1e-5)
    where = jnp.asarray([True, True, False, True])
    keep = jnp.asarray([0, 1, 3])
    for loss in (rrhf, pro):
        masked = loss(log_probs.at[:, 2].set(jnp.nan), rewards, where=jnp.broadcast_to(where, (N, 4)))
        close(masked, loss(log_probs[:, keep], rewards[:, keep]), rtol=1e-5, atol=1e-6)
        mask = jnp.broadcast_to(where, (N, 4))
        grads = jax.jit(jax.grad(lambda p, loss=loss, mask=mask: loss(p, rewards, where=mask).sum()))(
            log_probs
        )
        assert np.isfinite(grads).all()
        assert not grads[:, 2].any()


def test_lowers_everywhere():
    def step(s, t, tokens, where):
        def loss(s):
            words = token_log_prob(s, tokens, where=where)
            returns = whiten(
                reward_to_go(token_log_prob(t, tokens) - words, normalize=True, where=where), where
            )
            parts = sft(s, tokens, where=where) + gkd(s, t, where=where) + distillm(s, t, where=where)
            parts = parts + clipped_surrogate(words, words, returns, where=where) + uld(s, t)
            texts = sequence_log_prob(s, tokens, where=where)
            return token_mean(parts, where) + pro(texts, returns[:, 0]) + dpo(*texts[:2], *texts[1:])

        return jax.grad(loss)(s)

    export = jax.export.export(jax.jit(step), platforms=("cpu", "cuda", "tpu"))(S, T, TOKENS, WHERE)
    assert export.platforms == ("cpu", "cuda", "tpu")
