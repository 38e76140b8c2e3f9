"""Full-batch GCN training on Cora: ten seeds in one vmapped run against ten PyTorch Geometric runs.

    JGD_DATA_DIR=... python experiments/benchmarks/training.py

Two layers, dropout 0.5, Adam with L2, 200 epochs, cross-entropy on the 140 training nodes; no validation in
the loop, on either side. PyG runs its ``GCNConv`` (normalisation cached) on an edge index and on a sparse
``adj_t``, with dense features as its data sets come, and with the features as a sparse CSR tensor too. Ours
is timed with and without compilation. PyG's runs follow one another, so that a few of them (``--peer-seeds``)
tell what ten take: their time is scaled up.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import jax
import jax.numpy as jnp
import measure
import numpy as np

import jgd
from jgd.core import Examples, InMemory, ensemble, from_linen, objective, train
from jgd.graph import adjacency, operator
from jgd.losses import cross_entropy, mean
from jgd.nn import GCN
from jgd.optim import adam_l2
from jgd.training import features_for


def loss(ctx):
    """Cross-entropy of the training nodes."""
    return mean(cross_entropy(ctx.outputs["model"].logits, ctx.batch.targets), ctx.batch.weights)


def ours(task, hidden: int, seeds: int, epochs: int):
    """A function that trains all seeds, compiled at its first call."""
    net = from_linen(GCN(task.num_classes, hidden=hidden))
    # A constant rate over the run, like the peers: the protocol's decay would start at half.
    tx = adam_l2(0.01, 5e-4, num_steps=2 * epochs + 2)
    alg = ensemble(train(net, objective(loss), tx), seeds)
    a = operator(task.graph, normalize="sym", self_loops=True)
    data = Examples(
        (a, features_for(task.graph)), jnp.asarray(task.labels), jnp.asarray(task.train, jnp.float32)
    )

    def run():
        return InMemory()("gcn", alg, jax.random.key(0), data, epochs)

    def test(nets):
        logits = jax.vmap(lambda n: n(*data.inputs).logits)(nets)
        right = np.asarray(logits.argmax(-1)) == np.asarray(task.labels)
        return float(right[:, np.asarray(task.test)].mean())

    return run, test


def pyg(task, hidden: int, seeds: int, epochs: int, *, sparse_edges: bool, sparse_features: bool):
    """A function that trains the seeds one after another, as a PyTorch Geometric user does."""
    import torch
    from torch.nn import functional as F
    from torch_geometric.nn import GCNConv

    device = "cuda" if torch.cuda.is_available() and jax.default_backend() == "gpu" else "cpu"
    x = torch.tensor(np.asarray(task.graph.nodes), device=device)
    if sparse_features:
        x = x.to_sparse_csr()
    edges = torch.tensor(np.stack([task.graph.senders, task.graph.receivers]), dtype=torch.long).to(device)
    if sparse_edges:
        m = adjacency(task.graph)
        edges = torch.sparse_csr_tensor(
            torch.tensor(m.indptr, dtype=torch.long),
            torch.tensor(m.indices, dtype=torch.long),
            torch.tensor(m.data),
            size=m.shape,
        ).to(device)
    y = torch.tensor(np.asarray(task.labels), dtype=torch.long, device=device)
    mask = torch.tensor(np.asarray(task.train), device=device)
    test_mask = torch.tensor(np.asarray(task.test), device=device)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one = GCNConv(task.graph.nodes.shape[1], hidden, cached=True)
            self.two = GCNConv(hidden, task.num_classes, cached=True)

        def forward(self, x, edges):
            if not sparse_features:  # torch has no dropout of CSR values
                x = F.dropout(x, 0.5, self.training)
            h = F.dropout(self.one(x, edges).relu(), 0.5, self.training)
            return self.two(h, edges)

    accuracies = []

    def run():
        accuracies.clear()
        for seed in range(seeds):
            torch.manual_seed(seed)
            net = Net().to(device)
            opt = torch.optim.Adam(net.parameters(), lr=0.01, weight_decay=5e-4)
            net.train()
            for _ in range(epochs):
                opt.zero_grad()
                F.cross_entropy(net(x, edges)[mask], y[mask]).backward()
                opt.step()
            net.eval()
            with torch.no_grad():
                right = net(x, edges).argmax(-1) == y
            accuracies.append(right[test_mask].float().mean().item())

    def test(_):
        return float(np.mean(accuracies))

    return run, test


def page(record, rows, options) -> str:
    """The result as a page."""
    header = [
        "hidden",
        "contestant",
        "first run, s",
        "later runs, s",
        "first ÷ jgd's",
        "later ÷ jgd's",
        "test %",
    ]
    return "\n".join(
        [
            "# Training a GCN on Cora\n",
            measure.described(record),
            f"\n{options.seeds} seeds × {options.epochs} epochs, seconds for all seeds. Of PyG's runs, which follow one "
            f"another, {options.peer_seeds} was timed and scaled up. The first run of jgd compiles. With CSR features "
            "PyG does not drop out its input (torch cannot), so it does less.\n",
            measure.table(header, rows),
            "",
        ]
    )


def main() -> None:
    """Measure and write ``results/training.{json,md}``."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hidden", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--peer-seeds", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    task = jgd.load("cora")
    record = measure.provenance("torch", "torch_geometric")
    record["results"] = []
    rows = []
    for hidden in options.hidden:
        contestants: dict[str, Any] = {"jgd": ours(task, hidden, options.seeds, options.epochs)}
        try:
            for edges, features in ((False, False), (True, False), (False, True), (True, True)):
                name = f"PyG, {'sparse adj_t' if edges else 'edge index'}, {'CSR' if features else 'dense'} x"
                contestants[name] = pyg(
                    task,
                    hidden,
                    options.peer_seeds,
                    options.epochs,
                    sparse_edges=edges,
                    sparse_features=features,
                )
        except ImportError:
            print("torch and torch_geometric are not installed: no peers (pip install -e '.[bench]')")
        scale = {n: 1.0 if n == "jgd" else options.seeds / options.peer_seeds for n in contestants}
        first, warm, accuracy = {}, {n: [] for n in contestants}, {}
        for name, (run, test) in contestants.items():
            start = time.perf_counter()
            try:
                out = jax.block_until_ready(run())
            except RuntimeError as error:  # an operation that torch lacks for this layout
                print(f"{name}: {str(error).splitlines()[0]}")
                continue
            first[name] = scale[name] * (time.perf_counter() - start)
            accuracy[name] = test(out)
        for _ in range(options.repeats):
            for name in first:
                start = time.perf_counter()
                jax.block_until_ready(contestants[name][0]())
                warm[name].append(scale[name] * (time.perf_counter() - start))
        base, base_first = measure.summary(warm["jgd"])["median"], first["jgd"]
        for name in first:
            took = measure.summary(warm[name])
            record["results"].append(
                {
                    "hidden": hidden,
                    "contestant": name,
                    "first": first[name],
                    "warm": took,
                    "test_accuracy": accuracy[name],
                }
            )
            rows.append(
                [
                    str(hidden),
                    name,
                    f"{first[name]:.2f}",
                    f"{took['median']:.2f} ({took['min']:.2f}–{took['max']:.2f})",
                    f"{first[name] / base_first:.2f}",
                    f"{took['median'] / base:.2f}",
                    f"{100 * accuracy[name]:.1f}",
                ]
            )
            print(rows[-1], flush=True)
        measure.write("training", record, page(record, rows, options))


if __name__ == "__main__":
    main()
