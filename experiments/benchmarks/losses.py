"""Forward and backward of every loss, against plain PyTorch and, for PLD, against its definition.

    python experiments/benchmarks/losses.py        # needs the [bench] extra; a few minutes

Milliseconds of the value and the gradient in the student, B = 256, C = 100 and 1000 (classes or features), and on
maps of 64 images; compilation left out, contestants in turns. The PyTorch versions are what a user would write: vectorised, eager, no special cases
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


def t_divergence(between: Callable) -> Callable:
    """A divergence of probabilities p and q at T = 4, times 16."""

    def loss(s, t, y):
        lp, lq = F.log_softmax(t / 4, 1), F.log_softmax(s / 4, 1)
        return 16 * between(lp, lq, lp.exp(), lq.exp()).mean()

    return loss


def t_nkd(s, t, y, T=3.0, gamma=3.5):
    """The label, and the other classes normalised among themselves."""
    lq, p = F.log_softmax(s, 1), F.softmax(t, 1)
    own = y[:, None]
    target = -(p.gather(1, own) * lq.gather(1, own)).mean()
    hide = F.one_hot(y, s.shape[1]).bool()
    rest_p = F.softmax((t / T).masked_fill(hide, -1e9), 1)
    rest_q = F.log_softmax((s / T).masked_fill(hide, -1e9), 1)
    return target - gamma * T * T * (rest_p * rest_q.masked_fill(hide, 0)).sum(1).mean()


def t_listmle(s, t, y):
    """The likelihood of the teacher's ranking."""
    ranked = s.gather(1, t.scatter(1, y[:, None], float("inf")).argsort(1, descending=True))
    return (ranked.flip(1).logcumsumexp(1).flip(1) - ranked).sum(1).mean()


def t_cc(s, t, y, gamma=0.4):
    """Taylor series of a Gaussian kernel between examples of unit length."""

    def kernel(x):
        x = F.normalize(x, dim=1)
        k = x @ x.T
        return np.exp(-2 * gamma) * (1 + 2 * gamma * k + (2 * gamma * k) ** 2 / 2)

    return (kernel(s) - kernel(t)).norm() / len(s) ** 2


def t_vid(s, t, y):
    """A Gaussian's negative log-likelihood, variance 5."""
    variance = F.softplus(torch.tensor(float(losses.vid_raw_scale(5.0)))) + 1e-5
    return (0.5 * ((s - t) ** 2 / variance + variance.log())).mean()


def t_node_infonce(s, t, y):
    """Each its own among all."""
    scores = F.normalize(s, dim=1) @ F.normalize(t, dim=1).T / 0.1
    return F.cross_entropy(scores, torch.arange(len(s)))


def t_graph_kl(s, t, y, k=8):
    """Rows of Gaussian affinities of eight neighbours, softened."""

    def affinity(x):
        square = torch.cdist(x, x) ** 2
        near = square.masked_fill(torch.eye(len(x), dtype=torch.bool), float("inf")).topk(k, largest=False)
        weights = torch.exp(-near.values / (2 * near.values.mean().detach()))
        return torch.zeros(len(x), len(x)).scatter(1, near.indices, weights)

    return F.kl_div(F.log_softmax(affinity(s), 1), F.softmax(affinity(t), 1), reduction="batchmean")


def t_subclasses(s, t, y):
    """Cross-entropy with soft targets over subclasses, T = 4."""
    return -16 * (F.softmax(t / 4, 1) * F.log_softmax(s / 4, 1)).sum(1).mean()


# On maps, channels last


def t_at(s, t):
    """Attention, squared."""
    a = [F.normalize((x**2).mean(3).flatten(1), dim=1) for x in (s, t)]
    return ((a[0] - a[1]) ** 2).mean()


def t_nst(s, t):
    """MMD of channels with a squared product."""
    s, t = (F.normalize(x.flatten(1, 2).transpose(1, 2), dim=2) for x in (s, t))

    def k(a, b):
        return (a @ b.transpose(1, 2)).square().mean()

    return k(t, t) + k(s, s) - 2 * k(s, t)


def t_ickd(s, t):
    """Products of channels, rows of unit length."""
    g = []
    for x in (s, t):
        x = x.flatten(1, 2).transpose(1, 2)
        g.append(F.normalize(x @ x.transpose(1, 2), dim=2))
    return ((g[0] - g[1]) ** 2).sum() / len(s) / s.shape[3]


def t_fsp(s, t):
    """Products of the channels of a map and of its square."""

    def flow(x):
        a = x.flatten(1, 2)
        return a.transpose(1, 2) @ a.square() / a.shape[1]

    return ((flow(s) - flow(t)) ** 2).mean()


def j_fsp(s, t):
    """Ours."""
    return jnp.mean(losses.fsp_loss((s, s**2), (t, t**2)))


def t_hcl(s, t):
    """Four resolutions."""
    s, t = s.permute(0, 3, 1, 2), t.permute(0, 3, 1, 2)
    total, weights = F.mse_loss(s, t), 1.0
    for i, size in enumerate((4, 2, 1), 1):
        pooled = (F.adaptive_avg_pool2d(x, size) for x in (s, t))
        total, weights = total + 0.5**i * F.mse_loss(*pooled), weights + 0.5**i
    return total / weights


def t_ofd(s, t):
    """A partial distance above a margin."""
    m = torch.full((s.shape[3],), -1.0)
    t = torch.maximum(t, m)
    gap = (s - t) ** 2
    return (gap * ((s > t) | (t > 0))).flatten(1).sum(1).mean()


def t_ft(s, t):
    """Factors of unit length."""
    return (F.normalize(s.flatten(1), dim=1) - F.normalize(t.flatten(1), dim=1)).abs().mean()


def t_context(s, t):
    """Similarities of the positions of an image, softened."""
    g = []
    for x in (s, t):
        x = x.flatten(1, 2)
        g.append(F.softmax(x @ x.transpose(1, 2) / x.shape[2] ** 0.5, 2))
    return ((g[0] - g[1]) ** 2).mean()


def j_context(s, t):
    """Ours."""
    return jnp.mean(losses.context_loss(*(x.reshape(x.shape[0], -1, x.shape[-1]) for x in (s, t))))


def j_mi_alpha(s, t, y):
    """Ours, with the same critic."""
    return -losses.mi_alpha_bound(t @ s.T / s.shape[1] ** 0.5, jnp.zeros(len(s)), alpha=jnp.asarray(0.9))


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
    "DKD": (lambda s, t, y: jnp.mean(losses.dkd_loss(s, t, y)), t_dkd),
    "DIST": (lambda s, t, y: losses.dist_loss(s, t), t_dist),
    "BD-KD": (mean_of(losses.bd_kd_loss), t_bd_kd),
    "MIX-KD": (lambda s, t, y: jnp.mean(losses.mix_kd_loss(s, t, y)), t_mix_kd),
    "PLD": (lambda s, t, y: jnp.mean(losses.pld_loss(s, t, y, temperature=4.0)), t_pld),
    "RKD distance": (lambda s, t, y: losses.rkd_distance(s, t), t_rkd_distance),
    "RKD angle": (lambda s, t, y: losses.rkd_angle(s, t), t_rkd_angle),
    "SP": (lambda s, t, y: losses.similarity_preserving(s, t), t_sp),
    "PKT": (lambda s, t, y: losses.pkt_loss(s, t), t_pkt),
    "MI-alpha": (j_mi_alpha, t_mi_alpha),
    "reverse KL": (
        mean_of(losses.kd, divergence=losses.reverse_kl), t_divergence(lambda lp, lq, p, q: (q * (lq - lp)).sum(1))
    ),
    "Jeffreys": (
        mean_of(losses.kd, divergence=losses.jeffreys), t_divergence(lambda lp, lq, p, q: ((p - q) * (lp - lq)).sum(1))
    ),
    "total variation": (
        mean_of(losses.kd, divergence=losses.total_variation),
        t_divergence(lambda lp, lq, p, q: (p - q).abs().sum(1) / 2),
    ),
    "alpha divergence 0.5": (
        mean_of(losses.kd, divergence=losses.alpha_divergence),
        t_divergence(lambda lp, lq, p, q: 4 * (1 - ((lp + lq) / 2).exp().sum(1))),
    ),
    "NKD": (lambda s, t, y: jnp.mean(losses.nkd_loss(s, t, y, temperature=3.0, gamma=3.5)), t_nkd),
    "ListMLE": (lambda s, t, y: jnp.mean(losses.listmle(s, t, y)), t_listmle),
    "subclasses (LELP)": (
        lambda s, t, y: jnp.mean(losses.subclass_kd(s, jax.nn.softmax(t / 4)[:, None])), t_subclasses
    ),
    "squares (FitNet)": (mean_of(losses.hint), lambda s, t, y: F.mse_loss(s, t)),
    "cosine": (mean_of(losses.cosine_distance), lambda s, t, y: (1 - F.cosine_similarity(s, t)).mean()),
    "VID": (lambda s, t, y: jnp.mean(losses.vid_loss(s, t, jnp.full(s.shape[1], losses.vid_raw_scale(5.0)))), t_vid),
    "CC": (lambda s, t, y: losses.correlation_congruence(losses.unit(s), losses.unit(t)), t_cc),
    "InfoNCE (TRG, across)": (mean_of(losses.node_infonce), t_node_infonce),
    "graphs (TRG, local)": (
        lambda s, t, y: jnp.mean(losses.graph_kl(losses.knn_affinity(s, 8), losses.knn_affinity(t, 8))), t_graph_kl
    ),
}  # fmt: skip

MAPS: dict[str, tuple[Callable, Callable]] = {
    "AT": (lambda s, t: jnp.mean(losses.attention_transfer(s, t)), t_at),
    "NST": (lambda s, t: jnp.mean(losses.nst_loss(s, t)), t_nst),
    "ICKD": (lambda s, t: jnp.mean(losses.ickd_loss(s, t)), t_ickd),
    "FSP": (j_fsp, t_fsp),
    "HCL (ReviewKD)": (lambda s, t: jnp.mean(losses.hcl(s, t)), t_hcl),
    "OFD": (lambda s, t: jnp.mean(losses.ofd_loss(s, t, jnp.full(s.shape[3], -1.0))), t_ofd),
    "FT": (lambda s, t: jnp.mean(losses.factor_transfer_loss(s, t)), t_ft),
    "context (TRG, inner)": (j_context, t_context),
}
SHAPE = (64, 16, 16, 64)


def data(classes: int, batch: int = BATCH) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random logits of both networks, and labels."""
    rng = np.random.default_rng(0)
    s, t = (3 * rng.standard_normal((batch, classes), np.float32) for _ in range(2))
    return s, t, rng.integers(0, classes, batch)


def maps() -> tuple[np.ndarray, np.ndarray]:
    """Random maps of both networks."""
    rng = np.random.default_rng(0)
    return rng.standard_normal(SHAPE, np.float32), rng.standard_normal(SHAPE, np.float32)


def in_jax(loss: Callable, *args: np.ndarray) -> Callable:
    """Value and gradient, compiled."""
    run = jax.jit(jax.value_and_grad(loss))
    given = tuple(map(jnp.asarray, args))
    return lambda: run(*given)


def in_torch(loss: Callable, s: np.ndarray, *args: np.ndarray) -> Callable:
    """Value and gradient, eager."""
    given = tuple(map(torch.from_numpy, args))

    def run():
        x = torch.from_numpy(s).requires_grad_()
        value = loss(x, *given)
        value.backward()
        assert x.grad is not None
        return value.item(), x.grad.numpy()

    return run


def agree(a: Any, b: Any) -> float:
    """The largest difference of both gradients, relative to the largest entry."""
    return float(np.max(np.abs(np.asarray(a) - b)) / np.max(np.abs(b)))


def contest(pair: tuple[Callable, Callable], args: tuple[np.ndarray, ...]) -> dict[str, Any]:
    """One loss on some data."""
    ours, theirs = pair
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
            f"\nMilliseconds of value and gradient in the student, B = {BATCH} (maps: {' x '.join(map(str, SHAPE))}), median (least–greatest) of {REPEATS} in "
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
    rows = [
        {"loss": name, "classes": c, **contest(pair, data(c))}
        for c in (100, 1000)
        for name, pair in CONTESTS.items()
    ]
    rows += [{"loss": name, "classes": "maps", **contest(pair, maps())} for name, pair in MAPS.items()]
    record |= {"losses": rows, "pld": plackett_luce()}
    measure.write("losses", record, markdown(record))


if __name__ == "__main__":
    main()
