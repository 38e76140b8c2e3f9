"""One propagation ``A @ x``, forward and forward + backward, against what others use.

    python experiments/benchmarks/propagation.py            # all sizes, a few minutes
    python experiments/benchmarks/propagation.py --quick    # the small size only

Contestants: our operator; ``jax.ops.segment_sum`` (what jraph does); SciPy's CSR product (forward only);
torch CSR; PyG's ``GCNConv`` with its linear map taken out, on an edge index and on a sparse ``adj_t``. Eight
models are one ``vmap`` in JAX; SciPy and torch CSR get them as one wide product (the best that is possible
there), PyG runs them one after another. Backward is the gradient in ``x`` of the sum of squares.

The larger size is measured a second time in a process whose memory comes in huge pages: at that size every
contestant spends much of its time on page faults, and how much is the allocator's doing, not the kernel's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import measure
import numpy as np

import jgd
from jgd.graph import adjacency, operator

SIZES = {
    "Cora size (2 708 nodes, 10 556 edges, 64 features)": (2708, 5278, 64, 30),
    "170 k nodes, 1.2 M edges, 128 features": (170_000, 600_000, 128, 5),
}


def contestants(graph, features: int, models: int):
    """``{name: (forward, forward_and_backward or None)}``; everything is set up outside the timings."""
    a = operator(graph, normalize="sym", self_loops=True)
    size = a.shape[0]
    rng = np.random.default_rng(0)
    shape = (size, features) if models == 1 else (models, size, features)
    x = rng.standard_normal(shape, dtype=np.float32)
    jx = jnp.asarray(x)

    def ours(a, x):
        return a @ x

    def segments(a, x):
        return jax.ops.segment_sum(a.values[:, None] * x[a.senders], a.receivers, size)

    found = {}
    for name, fn in (("jgd", ours), ("segment_sum", segments)):
        apply = fn if models == 1 else jax.vmap(fn, in_axes=(None, 0))
        forward = jax.jit(apply)
        both = jax.jit(jax.value_and_grad(lambda x, a, f=apply: jnp.sum(f(a, x) ** 2)))
        found[name] = (lambda f=forward: f(a, jx), lambda f=both: f(jx, a))

    matrix = adjacency(graph._replace(edges=None))
    matrix.data[:] = 1
    from jgd.condense.common import normalize_adjacency

    matrix = normalize_adjacency(matrix)
    wide = np.ascontiguousarray(np.moveaxis(x, 0, 1).reshape(size, -1)) if models > 1 else x
    found["SciPy CSR"] = (lambda: matrix @ wide, None)
    found |= torch_contestants(matrix, x, wide, models)
    return found


def torch_contestants(matrix, x, wide, models):
    """The PyTorch peers, where they are installed."""
    try:
        import torch
        from torch_geometric.nn import GCNConv
    except ImportError:
        print("torch and torch_geometric are not installed: no PyTorch peers (pip install -e '.[bench]')")
        return {}
    device = "cuda" if torch.cuda.is_available() and jax.default_backend() == "gpu" else "cpu"

    def sync(value):
        if device == "cuda":
            torch.cuda.synchronize()
        return None if value is None else 0

    coo = matrix.tocoo()
    index = torch.tensor(np.stack([coo.col, coo.row]), dtype=torch.long, device=device)
    weight = torch.tensor(coo.data, device=device)
    csr = torch.sparse_csr_tensor(
        torch.tensor(matrix.indptr, dtype=torch.long),
        torch.tensor(matrix.indices, dtype=torch.long),
        torch.tensor(matrix.data),
        size=matrix.shape,
    ).to(device)
    features = x.shape[-1]
    conv = GCNConv(features, features, bias=False, normalize=False).to(device)
    conv.lin = torch.nn.Identity()
    each = [torch.tensor(v, device=device) for v in (x if models > 1 else x[None])]
    wide_t = torch.tensor(wide, device=device)

    def forward(fn, inputs):
        def run():
            with torch.no_grad():
                for v in inputs:
                    fn(v)
            return sync(0)

        return run

    def both(fn, inputs):
        leaves = [v.clone().requires_grad_() for v in inputs]

        def run():
            for v in leaves:
                v.grad = None
                fn(v).square().sum().backward()
            return sync(0)

        return run

    peers = {
        "torch CSR": (lambda v: csr @ v, [wide_t]),
        "PyG GCNConv, edge index": (lambda v: conv(v, index, weight), each),
        "PyG GCNConv, sparse adj_t": (lambda v: conv(v, csr), each),
    }
    return {name: (forward(fn, inputs), both(fn, inputs)) for name, (fn, inputs) in peers.items()}


def gpu_bandwidth(graph, features: int, seconds: float) -> dict[str, float]:
    """Bytes that a product must at least move, per second, as a share of what a copy reaches here."""
    edges, size = len(graph.senders) + int(graph.n_node[0]), int(graph.n_node[0])
    moved = 4 * (edges * features + size * features + 2 * edges)  # gathered rows, result, indices and values
    block = jnp.zeros(2**28, jnp.float32)
    copy = jax.jit(lambda b: b + 1)
    best = measure.summary(measure.timings({"copy": lambda: copy(block)}, 10)["copy"])["min"]
    peak = 2 * block.nbytes / best
    return {"bytes": moved, "share_of_copy_bandwidth": moved / seconds / peak}


def rows_of(entries: list[dict]) -> list[list[str]]:
    """Lines of a table, times relative to ours with as many models."""
    base = {e["models"]: e["forward_backward"]["median"] for e in entries if e["contestant"] == "jgd"}
    rows = []
    for entry in entries:
        both = entry["forward_backward"]
        rows.append(
            [
                str(entry["models"]),
                entry["contestant"],
                measure.milliseconds(entry["forward"]),
                measure.milliseconds(both) if both else "–",
                f"{both['median'] / base[entry['models']]:.2f}" if both else "–",
            ]
        )
    return rows


def measured(title: str, models: tuple[int, ...] = (1, 8)) -> list[dict]:
    """All contestants at one size."""
    nodes, edges, features, repeats = SIZES[title]
    graph = jgd.data.power_law(0, num_nodes=nodes, num_edges=edges, num_features=1, num_classes=7).graph
    graph = graph._replace(nodes=None)
    entries = []
    for count in models:
        found = contestants(graph, features, count)
        times = repeats if count == 1 else 3
        forward = measure.timings({n: f for n, (f, _) in found.items()}, times)
        backward = measure.timings({n: b for n, (_, b) in found.items() if b is not None}, times)
        for name in found:
            entry = {
                "size": title,
                "models": count,
                "contestant": name,
                "forward": measure.summary(forward[name]),
                "forward_backward": measure.summary(backward[name]) if name in backward else None,
            }
            if name == "jgd" and jax.default_backend() == "gpu":
                entry["bandwidth"] = gpu_bandwidth(graph, features * count, entry["forward"]["median"])
            entries.append(entry)
    return entries


def in_huge_pages(title: str) -> list[dict]:
    """The same for one model, in a process of its own whose allocator asks for huge pages."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "part.json"
        command = [sys.executable, __file__, "--part", title, str(file)]
        subprocess.run(command, env=os.environ | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}, check=True)
        return [entry | {"pages": "huge"} for entry in json.loads(file.read_text())]


def main() -> None:
    """Measure and write ``results/propagation.{json,md}``."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the small size only; writes nothing")
    parser.add_argument(
        "--part", nargs=2, metavar=("SIZE", "FILE"), help="one model at one size, into a file"
    )
    options = parser.parse_args()
    if options.part:
        title, file = options.part
        Path(file).write_text(json.dumps(measured(title, models=(1,))))
        return
    small, large = SIZES
    header = ["models", "contestant", "forward", "forward + backward", "time ÷ jgd's"]
    if options.quick:
        print(measure.table(header, rows_of(measured(small))))
        return
    record = measure.provenance("torch", "torch_geometric")
    parts = {small: measured(small), large: measured(large)}
    if jax.default_backend() == "cpu" and platform.libc_ver()[0] == "glibc":
        parts[f"{large}, in huge pages (GLIBC_TUNABLES=glibc.malloc.hugetlb=1)"] = in_huge_pages(large)
    record["results"] = [entry for entries in parts.values() for entry in entries]
    lines = ["# Propagation\n", measure.described(record), "\nMedian milliseconds (least–greatest).\n"]
    lines += [f"\n## {title}\n\n{measure.table(header, rows_of(e))}" for title, e in parts.items()]
    measure.write("propagation", record, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
