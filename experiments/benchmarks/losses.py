"""Forward and backward of every loss, against plain PyTorch and, for PLD, against its definition.

    python experiments/benchmarks/losses.py        # needs the [bench] extra; a few minutes

Milliseconds of the value and the gradient in the student, B = 256, C = 100 and 1000; compilation left out,
contestants in turns. The PyTorch versions are what a user would write: vectorised, eager, no special cases
for extreme logits. PLD runs at C = 50 000 too, where the definition (a C x C table for each example) cannot.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import measure
import numpy as np
import torch
import torch.nn.functional as F

from jgd import losses

BATCH, REPEATS = 256, 15


# --- plain PyTorch ------------------------------------------------------------------------------


def t_kd(s, t, y, T=4.0):
    """Hinton."""
    return T * T * F.kl_div(F.log_softmax(s / T, 1), F.softmax(t / T, 1), reduction="batchmean")


def t_standardized(s, t, y):
    """KD of standardised logits."""

    def z(v):
        return (v - v.mean(1, keepdim=True)) / (1e-7 + v.std(1, keepdim=True))

    return t_kd(z(s), z(t), y, 2.0)


def t_dkd(s, t, y, T=4.0, beta=8.0):
    """Decoupled, with the reference's mask by subtraction."""
    hot = F.one_hot(y, s.shape[1]).bool()
    p, q = F.softmax(t / T, 1), F.softmax(s / T, 1)

    def binary(x):
        own = (x * hot).sum(1, keepdim=True)
        return torch.cat([own, 1 - own], 1)

    target = F.kl_div(binary(q).log(), binary(p), reduction="batchmean")
    rest = F.kl_div(
        F.log_softmax(s / T - 1000 * hot, 1), F.softmax(t / T - 1000 * hot, 1), reduction="batchmean"
    )
    return T * T * (target + beta * rest)


def t_dist(s, t, y):
    """Correlations of rows and columns."""
    p, q = F.softmax(t, 1), F.softmax(s, 1)

    def pearson(a, b):
        return F.cosine_similarity(a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True), 1).mean()

    return 2 - pearson(q, p) - pearson(q.T, p.T)


def t_js(s, t, y, T=4.0):
    """Jensen-Shannon."""
    p, q = F.softmax(t / T, 1), F.softmax(s / T, 1)
    m = ((p + q) / 2).log()
    kl = F.kl_div(m, p, reduction="batchmean") + F.kl_div(m, q, reduction="batchmean")
    return T * T * kl / 2


def t_pld(s, t, y, T=4.0):
    """The listing of the paper: one sort, one cumulative log-sum-exp."""
    keyed = t.scatter(1, y[:, None], float("inf"))
    order = keyed.argsort(1)
    ranked = s.gather(1, order)
    weights = F.softmax(t / T, 1).gather(1, order)
    return (weights * (ranked.logcumsumexp(1) - ranked)).sum(1).mean()


def t_bd_kd(s, t, y, T=3.0, delta=2.0):
    """Both KLs, balanced by the gap of entropies."""
    lp, lq = F.log_softmax(t / T, 1), F.log_softmax(s / T, 1)
    p, q = lp.exp(), lq.exp()
    gap = ((q * lq).sum(1) - (p * lp).sum(1)).detach() > 0
    nu, rho = torch.where(gap, delta, 1.0), torch.where(gap, 1.0, delta)
    return T * T * (nu * (p * (lp - lq)).sum(1) + rho * (q * (lq - lp)).sum(1)).mean()


def t_mix_kd(s, t, y):
    """Logits over their deviation."""
    s, t = s / s.std(1, keepdim=True), t / t.std(1, keepdim=True)
    kl = F.kl_div(F.log_softmax(s, 1), F.softmax(t, 1), reduction="batchmean")
    return 0.1 * F.cross_entropy(s, y) + 0.9 * kl


def t_rkd_distance(s, t, y):
    """Pairwise distances over their mean."""

    def d(x):
        n = (x @ x.T).diagonal()
        r = (n[:, None] + n - 2 * x @ x.T).clamp(min=1e-12).sqrt()
        r = r.masked_fill(torch.eye(len(x), dtype=torch.bool), 0)
        return r / r[r > 0].mean()

    return F.smooth_l1_loss(d(s), d(t))


def t_rkd_angle(s, t, y):
    """Angles of all triples."""

    def a(x):
        e = F.normalize(x[None] - x[:, None], dim=2)
        return torch.bmm(e, e.transpose(1, 2))

    return F.smooth_l1_loss(a(s), a(t))


def t_sp(s, t, y):
    """Similarities of examples."""
    g = [F.normalize(x @ x.T, dim=1) for x in (s, t)]
    return ((g[0] - g[1]) ** 2).sum() / len(s) ** 2


def t_pkt(s, t, y):
    """Conditional probabilities of examples."""
    p = []
    for x in (s, t):
        x = F.normalize(x, dim=1)
        k = (x @ x.T + 1) / 2
        p.append(k / k.sum(1, keepdim=True))
    return (p[1] * ((p[1] + 1e-7) / (p[0] + 1e-7)).log()).mean()


def t_mi_alpha(s, t, y, alpha=0.9):
    """The bound with the product of both as the critic, and no baseline."""
    f = t @ s.T / s.shape[1] ** 0.5
    k = len(f)
    off = ~torch.eye(k, dtype=torch.bool)
    table = f[:, None, :].expand(k, k, k).masked_fill(~off[None], float("-inf"))
    m = table.logsumexp(2) - np.log(k - 1)
    j = torch.logaddexp(np.log(alpha) + m, torch.full_like(m, np.log(1 - alpha)))
    own = f.diagonal()
    return -(1 + (own[:, None] - j)[off].mean() - (f - j.diagonal()[:, None]).exp()[off].mean())


def j_mi_alpha(s, t, y):
    """Ours, with the same critic."""
    return -losses.mi_alpha(t @ s.T / s.shape[1] ** 0.5, jnp.zeros(len(s)), alpha=jnp.asarray(0.9))


def j_pld_definition(s, t, y, T=4.0):
    """PLD as it is written: the log-sum-exp of every tail, from a table of all pairs of ranks."""
    order = jnp.argsort(-t.at[jnp.arange(len(y)), y].set(jnp.inf), axis=1)
    ranked = jnp.take_along_axis(s, order, 1)
    weights = jnp.take_along_axis(jax.nn.softmax(t / T), order, 1)
    c = s.shape[1]
    tails = jnp.where(jnp.arange(c)[:, None] <= jnp.arange(c), ranked[:, None, :], -jnp.inf)
    return jnp.mean(jnp.sum(weights * (jax.nn.logsumexp(tails, axis=2) - ranked), axis=1))


def mean_of(loss: Callable, **settings: Any) -> Callable:
    """A loss of examples as a number."""
    return lambda s, t, y: jnp.mean(loss(s, t, **settings))


CONTESTS: dict[str, tuple[Callable, Callable]] = {
    "cross-entropy": (
        lambda s, t, y: jnp.mean(losses.cross_entropy(s, y)), lambda s, t, y: F.cross_entropy(s, y)
    ),
    "KD": (mean_of(losses.kd), t_kd),
    "KD, standardised": (mean_of(losses.kd, temperature=2.0, transform=losses.standardize), t_standardized),
    "JS": (mean_of(losses.kd, divergence=losses.js), t_js),
    "DKD": (lambda s, t, y: jnp.mean(losses.dkd(s, t, y)), t_dkd),
    "DIST": (lambda s, t, y: losses.dist(s, t), t_dist),
    "BD-KD": (mean_of(losses.bd_kd), t_bd_kd),
    "MIX-KD": (lambda s, t, y: jnp.mean(losses.mix_kd(s, t, y)), t_mix_kd),
    "PLD": (lambda s, t, y: jnp.mean(losses.pld(s, t, y, temperature=4.0)), t_pld),
    "RKD distance": (lambda s, t, y: losses.rkd_distance(s, t), t_rkd_distance),
    "RKD angle": (lambda s, t, y: losses.rkd_angle(s, t), t_rkd_angle),
    "SP": (lambda s, t, y: losses.similarity_preserving(s, t), t_sp),
    "PKT": (lambda s, t, y: losses.pkt(s, t), t_pkt),
    "MI-alpha": (j_mi_alpha, t_mi_alpha),
}  # fmt: skip


def data(classes: int, batch: int = BATCH) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random logits of both networks, and labels."""
    rng = np.random.default_rng(0)
    s, t = (3 * rng.standard_normal((batch, classes), np.float32) for _ in range(2))
    return s, t, rng.integers(0, classes, batch)


def in_jax(loss: Callable, s, t, y) -> Callable:
    """Value and gradient, compiled."""
    run = jax.jit(jax.value_and_grad(loss))
    args = tuple(map(jnp.asarray, (s, t, y)))
    return lambda: run(*args)


def in_torch(loss: Callable, s, t, y) -> Callable:
    """Value and gradient, eager."""
    t, y = torch.from_numpy(t), torch.from_numpy(y)

    def run():
        x = torch.from_numpy(s).requires_grad_()
        value = loss(x, t, y)
        value.backward()
        assert x.grad is not None
        return value.item(), x.grad.numpy()

    return run


def agree(a: Any, b: Any) -> float:
    """The largest difference of both gradients, relative to the largest entry."""
    return float(np.max(np.abs(np.asarray(a) - b)) / np.max(np.abs(b)))


def contest(name: str, classes: int) -> dict[str, Any]:
    """One loss at one number of classes."""
    ours, theirs = CONTESTS[name]
    args = data(classes)
    runs = {"jgd": in_jax(ours, *args), "torch": in_torch(theirs, *args)}
    found = {k: measure.summary(v) for k, v in measure.timings(runs, REPEATS).items()}
    return {**found, "difference": agree(runs["jgd"]()[1], runs["torch"]()[1])}


def plackett_luce() -> list[dict[str, Any]]:
    """PLD by the number of classes: milliseconds, and temporary memory of the compiled gradient."""
    rows = []
    for classes, batch in ((100, 32), (1000, 32), (10_000, 32), (50_000, 32)):
        args = data(classes, batch)
        runs = {"jgd": in_jax(CONTESTS["PLD"][0], *args), "torch": in_torch(t_pld, *args)}
        if classes <= 1000:
            runs["definition"] = in_jax(j_pld_definition, *args)
        row: dict[str, Any] = {"classes": classes, "batch": batch}
        row |= {k: measure.summary(v) for k, v in measure.timings(runs, REPEATS).items()}
        for key, loss in (("jgd", CONTESTS["PLD"][0]), ("definition", j_pld_definition)):
            if key in runs:
                lowered = jax.jit(jax.value_and_grad(loss)).lower(*map(jnp.asarray, args))
                analysis: Any = lowered.compile().memory_analysis()
                row[f"{key}_mib"] = analysis.temp_size_in_bytes / 2**20
        rows.append(row)
    return rows


def markdown(record: dict[str, Any]) -> str:
    """The page."""
    lines = []
    for row in record["losses"]:
        ratio = row["torch"]["median"] / row["jgd"]["median"]
        lines.append(
            [row["loss"], str(row["classes"]), measure.milliseconds(row["jgd"]), measure.milliseconds(row["torch"]),
             f"{ratio:.1f}x", f"{row['difference']:.0e}"]
        )  # fmt: skip
    scale = []
    for row in record["pld"]:
        definition = row.get("definition")
        scale.append(
            [f"{row['classes']} (B {row['batch']})", measure.milliseconds(row["jgd"]),
             measure.milliseconds(row["torch"]),
             measure.milliseconds(definition) if definition else "–", f"{row['jgd_mib']:.1f}",
             f"{row['definition_mib']:.1f}" if definition else "–"]
        )  # fmt: skip
    return "\n".join(
        [
            "# Losses of distillation: speed\n",
            measure.described(record),
            f"\nMilliseconds of value and gradient in the student, B = {BATCH}, median (least–greatest) of {REPEATS} in "
            "turns, compilation\nleft out. PyTorch is eager, plain code; the last column is the largest difference of the "
            "gradients, relative.\n",
            measure.table(["loss", "C", "jgd", "PyTorch", "ratio", "difference"], lines),
            "\n## PLD by the number of classes\n\nTemporary memory is that of the compiled program in MiB. The definition "
            "has a table of all pairs of ranks.\n",
            measure.table(["C", "jgd ms", "PyTorch ms", "definition ms", "jgd MiB", "definition MiB"], scale),
            "",
        ]
    )


def main() -> None:
    """Run all, and write ``results/losses.{json,md}``."""
    record = measure.provenance("torch")
    rows = [{"loss": name, "classes": c, **contest(name, c)} for c in (100, 1000) for name in CONTESTS]
    record |= {"losses": rows, "pld": plackett_luce()}
    measure.write("losses", record, markdown(record))


if __name__ == "__main__":
    main()
