"""Condensation on Cora: ours against the same loops written in PyTorch, as a PyTorch user would write them.

    JGD_DATA_DIR=... python experiments/benchmarks/condensation.py             # about ten minutes
    JGD_DATA_DIR=... python experiments/benchmarks/condensation.py --scaling   # time and memory by size of
    the graph

GCond, GCond-X and DosCond-X: one outer epoch, with the loops of the official settings (20 matching steps
with 15 network steps after each; one step for DosCond). Both sides match exact gradients on ``Â²X`` of the
labelled nodes, computed once, class by class from one forward pass; the PyTorch generator concatenates all
pairs of features, as the published code does, where ours splits its first linear map. SFGC: training of 20
experts on the whole graph, and one matching step. End to end is the time for the official number of epochs,
from the time of one epoch, and the compilation. Peers run a few epochs, for theirs are all alike.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import measure
import numpy as np

import jgd
from jgd.condense._gcond import DosCondX, GCond, GCondX
from jgd.condense.backbones import real_examples
from jgd.condense.start import start_from
from jgd.core import in_memory

METHODS: dict[str, Any] = {
    "gcond": GCond(select_every=None),
    "gcond-x": GCondX(select_every=None),
    "doscond-x": DosCondX(backbone="sgc", select_every=None),
}
SIZE = 70


# --- ours ---------------------------------------------------------------------------------------


class Stepping:
    """A loop that compiles one epoch of the stage it is given, and keeps it for timing."""

    def __init__(self):
        self.compile = 0.0

    def __call__(self, name, algorithm, key, data, num_steps, batches=None):
        """Prepare one epoch."""
        self.data, self.key = jax.device_put(data), key
        init, step = jax.jit(algorithm.init), jax.jit(algorithm.step)
        begin = time.perf_counter()
        self.state = init(key, self.data, None)
        self.run = step.lower(key, jnp.asarray(0), self.state, self.data, None).compile()
        self.compile = time.perf_counter() - begin
        raise StopIteration

    def stage(self, name, fn, *args):
        """Run plain code."""
        return fn(*args)

    def epoch(self):
        """One outer epoch."""
        self.state, metrics = self.run(self.key, jnp.asarray(0), self.state, self.data, None)
        return metrics["loss"]


def ours(recipe, task):
    """One outer epoch of a recipe, and the seconds of its compilation."""
    loop = Stepping()
    with suppress(StopIteration):
        replace(recipe, nodes=SIZE)(jax.random.key(0), task, loop)
    return loop.epoch, loop.compile


# --- the same in PyTorch ------------------------------------------------------------------------


def torch_epoch(recipe, task):
    """One outer epoch of GCond, GCond-X or DosCond-X in PyTorch."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.manual_seed(0)
    real = real_examples("sgc", task)
    start = start_from("random", jax.random.key(0), task, SIZE, in_memory)
    h, y = torch.tensor(np.array(real.inputs[1])), torch.tensor(np.array(real.targets)).long()
    labels = torch.tensor(np.array(start.targets)).long()
    x = nn.Parameter(torch.tensor(np.array(start.inputs[0])))
    classes, width, n = task.num_classes, h.shape[1], len(labels)

    class Generator(nn.Module):
        """Edge weights from all concatenated pairs of features."""

        def __init__(self, hidden):
            super().__init__()
            self.maps = nn.ModuleList(
                [nn.Linear(2 * width, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, 1)]
            )
            self.norms = nn.ModuleList([nn.BatchNorm1d(hidden), nn.BatchNorm1d(hidden)])
            self.rows, self.cols = (
                i.reshape(-1) for i in torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
            )

        def forward(self, x):
            z = torch.cat([x[self.rows], x[self.cols]], dim=1)
            for i, linear in enumerate(self.maps):
                z = linear(z)
                if i < 2:
                    z = F.relu(self.norms[i](z))
            a = z.reshape(n, n)
            a = torch.sigmoid((a + a.T) / 2)
            return a - torch.diag(torch.diag(a))

    generator = Generator(recipe.pge_hidden) if recipe.adjacency == "pge" else None
    opt_x = torch.optim.Adam([x], lr=recipe.lr_x)
    opt_adj = None if generator is None else torch.optim.Adam(generator.parameters(), lr=recipe.lr_adj)

    def normalised(a):
        a = a + torch.eye(n)
        d = a.sum(1).rsqrt()
        return d[:, None] * a * d

    def logits(net, inputs, a):
        out = inputs @ net[0]
        if a is not None:
            out = a @ (a @ out)
        return out + net[1]

    def class_gradients(net, inputs, a, y, create_graph):
        log_p = F.log_softmax(logits(net, inputs, a), dim=1)
        found = []
        for c in range(classes):
            rows = y == c
            loss = F.nll_loss(log_p[rows], y[rows])
            found.append(torch.autograd.grad(loss, net, retain_graph=True, create_graph=create_graph))
        return found

    def columns(a, b):
        cos = (a * b).sum(0) / (a.norm(dim=0) * b.norm(dim=0) + 1e-6)
        return (1 - cos).sum()

    counts = torch.bincount(labels, minlength=classes).float()
    calls = [0]

    def epoch():
        bound = classes**-0.5
        net = [
            torch.empty(width, classes).uniform_(-bound, bound).requires_grad_(),
            torch.zeros(classes, requires_grad=True),
        ]
        opt_net = torch.optim.Adam(net, lr=recipe.lr_net)
        turn_of_adj = recipe.turns is not None and calls[0] % sum(recipe.turns) < recipe.turns[0]
        calls[0] += 1
        for step in range(recipe.outer):
            a = None if generator is None else normalised(generator(x))
            theirs = class_gradients(net, h, None, y, False)
            own = class_gradients(net, x, a, labels, True)
            loss: Any = torch.zeros(())
            for c in range(classes):
                if recipe.distance == "columns":
                    distance = columns(theirs[c][0], own[c][0])
                else:
                    distance = sum(((p - q) ** 2).sum() for p, q in zip(theirs[c], own[c], strict=True))
                loss = loss + counts[c] / counts.max() * distance
            opt_x.zero_grad()
            if opt_adj is not None:
                opt_adj.zero_grad()
            loss.backward()
            (opt_adj if turn_of_adj and opt_adj is not None else opt_x).step()
            if step == recipe.outer - 1:
                break
            if recipe.inner:
                with torch.no_grad():
                    frozen = None if generator is None else normalised(generator(x))
                    still = x.detach()
            for _ in range(recipe.inner):
                opt_net.zero_grad()
                F.cross_entropy(logits(net, still, frozen), labels).backward()
                opt_net.step()
        return loss.item()

    return epoch


# --- experts and trajectories -------------------------------------------------------------------


def torch_experts(task, experts: int, epochs: int):
    """Experts of SFGC one after another: a GCN with 256 hidden units on the whole graph, by plain SGD."""
    import torch
    from torch.nn import functional as F
    from torch_geometric.nn import GCNConv

    x = torch.tensor(np.asarray(task.graph.nodes))
    edges = torch.tensor(np.stack([task.graph.senders, task.graph.receivers]), dtype=torch.long)
    y = torch.tensor(np.asarray(task.labels)).long()
    mask = torch.tensor(np.asarray(task.train))

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one = GCNConv(x.shape[1], 256, cached=True)
            self.two = GCNConv(256, task.num_classes, cached=True)

        def forward(self):
            return self.two(self.one(x, edges).relu(), edges)

    def run():
        for seed in range(experts):
            torch.manual_seed(seed)
            net = Net()
            opt = torch.optim.SGD(net.parameters(), lr=0.4)
            for _ in range(epochs):
                opt.zero_grad()
                F.cross_entropy(net()[mask], y[mask]).backward()
                opt.step()

    return run


def our_experts(task, experts: int, epochs: int):
    """The same experts, as SFGC trains a group of them."""
    import optax

    from jgd.condense._sfgc import gcn, real_nodes
    from jgd.condense.trajectories import expert, train_several, trajectory

    way = trajectory(expert(gcn(task.num_classes, 256), optax.sgd(0.4)), at=(0, epochs))
    keys, data = jax.random.split(jax.random.key(0), experts), real_nodes(task)
    run = jax.jit(train_several(way))
    return lambda: run(keys, data)


def torch_trajectory(task, steps: int):
    """One matching step of SFGC: ``steps`` unrolled steps of a student, and the gradient in the features."""
    import torch
    from torch.nn import functional as F

    torch.manual_seed(0)
    start = start_from("random", jax.random.key(0), task, SIZE, in_memory)
    labels = torch.tensor(np.array(start.targets)).long()
    x = torch.nn.Parameter(torch.tensor(np.array(start.inputs[0])))
    rate = torch.nn.Parameter(torch.tensor(0.5))
    shapes = [(x.shape[1], 256), (256,), (256, task.num_classes), (task.num_classes,)]
    begin = [0.02 * torch.randn(s) for s in shapes]
    target = [0.02 * torch.randn(s) for s in shapes]
    opt = torch.optim.Adam([x], lr=1e-4)

    def run():
        theta = [p.clone().requires_grad_() for p in begin]
        for _ in range(steps):
            w1, b1, w2, b2 = theta
            loss = F.cross_entropy((x @ w1 + b1).relu() @ w2 + b2, labels)
            grads = torch.autograd.grad(loss, theta, create_graph=True)
            theta = [p - rate * g for p, g in zip(theta, grads, strict=True)]
        away: Any = sum(((p - q) ** 2).sum() for p, q in zip(theta, target, strict=True))
        opt.zero_grad()
        (away / sum(((p - q) ** 2).sum() for p, q in zip(begin, target, strict=True))).backward()
        opt.step()
        return away.item()

    return run


def our_trajectory(task, steps: int):
    """The same step, as SFGC takes it, and the seconds of its compilation."""
    import optax

    from jgd.condense._sfgc import gcn, trajectory_matching
    from jgd.condense.bilevel import Matching, match
    from jgd.condense.synthesizers import node_set, seen
    from jgd.condense.trajectories import Segment
    from jgd.graph import identity
    from jgd.optim import by_part

    start = start_from("random", jax.random.key(0), task, SIZE, in_memory)
    model = gcn(task.num_classes, 256)
    tx = by_part(x=optax.adam(1e-4), lr=optax.sgd(1e-6, momentum=0.5))
    alg = match(node_set(learning_rate=0.5), trajectory_matching(model, steps), tx, see=seen)
    inputs = identity(SIZE), start.inputs[0]
    begin, end = (model.init(jax.random.key(i), *inputs)[0] for i in (0, 1))
    window = Segment(begin, end, end)
    data, key = Matching(start, None), jax.random.key(0)
    state = alg.init(key, data, window)
    clock = time.perf_counter()
    run = jax.jit(alg.step).lower(key, jnp.asarray(0), state, data, window).compile()
    return lambda: run(key, jnp.asarray(0), state, data, window), time.perf_counter() - clock


# --- scaling ------------------------------------------------------------------------------------


def scaling_child(nodes: int) -> None:
    """Print time and memory of GCond-X on a generated graph of so many nodes."""
    task = jgd.data.power_law(
        0, num_nodes=nodes, num_edges=int(3.5 * nodes), num_features=128, num_classes=10
    )
    recipe = GCondX(nodes=100, label_ratio=None, epochs=20, outer=10, inner=5, select_every=None)
    start = time.perf_counter()
    recipe(jax.random.key(0), task)
    first = time.perf_counter() - start
    start = time.perf_counter()
    recipe(jax.random.key(1), task)
    later = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps(
            {
                "nodes": nodes,
                "edges": int(np.sum(task.graph.n_edge)),
                "first": first,
                "later": later,
                "peak_mib": peak,
            }
        )
    )


def scaling() -> list[dict[str, Any]]:
    """GCond-X from three thousand to 170 thousand nodes, each in a process of its own."""
    rows = []
    for nodes in (3_000, 10_000, 40_000, 170_000):
        command = [sys.executable, __file__, "--child", str(nodes)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
        rows.append(json.loads(done.stdout.strip().splitlines()[-1]))
        print(rows[-1], flush=True)
    return rows


# --- all ----------------------------------------------------------------------------------------


def measured(options) -> dict[str, Any]:
    """All contestants."""
    task = jgd.load("cora")
    results: dict[str, Any] = {}
    for name, recipe in METHODS.items():
        epoch, compile_seconds = ours(recipe, task)
        peer = torch_epoch(recipe, task)
        repeats = options.repeats if recipe.outer > 1 else 10 * options.repeats
        times = measure.timings({"jgd": epoch, "PyTorch": peer}, repeats)
        results[name] = {
            "epochs": recipe.epochs,
            "compile": compile_seconds,
            **{who: measure.summary(seconds) for who, seconds in times.items()},
        }
        print(name, results[name], flush=True)
    run, compile_seconds = our_trajectory(task, options.student_steps)
    times = measure.timings(
        {"jgd": run, "PyTorch": torch_trajectory(task, options.student_steps)}, options.repeats
    )
    results["sfgc, one matching step"] = {
        "steps": options.student_steps,
        "compile": compile_seconds,
        **{who: measure.summary(seconds) for who, seconds in times.items()},
    }
    run = our_experts(task, options.experts, options.expert_epochs)
    start = time.perf_counter()
    jax.block_until_ready(run())
    first = time.perf_counter() - start
    peers = torch_experts(task, 1, options.expert_epochs)
    times = measure.timings({"jgd": run, "PyTorch": peers}, 2)
    times["PyTorch"] = [options.experts * t for t in times["PyTorch"]]
    results[f"sfgc, {options.experts} experts"] = {
        "epochs": options.expert_epochs,
        "first": first,
        **{who: measure.summary(seconds) for who, seconds in times.items()},
    }
    return results


def markdown(record: dict[str, Any]) -> str:
    """The tables."""
    rows = []
    for name, entry in record["results"].items():
        own, peer = entry["jgd"]["median"], entry["PyTorch"]["median"]
        whole = ["–", "–", "–"]
        if name in METHODS:
            total, theirs = own * entry["epochs"] + entry["compile"], peer * entry["epochs"]
            whole = [f"{total:.1f}", f"{theirs:.1f}", f"{theirs / total:.1f}"]
        rows.append(
            [
                name,
                measure.milliseconds(entry["jgd"]),
                measure.milliseconds(entry["PyTorch"]),
                f"{peer / own:.1f}",
                f"{entry.get('compile', entry.get('first', 0)):.1f}",
                *whole,
            ]
        )
    header = [
        "loop",
        "jgd, ms",
        "PyTorch, ms",
        "times faster",
        "compilation, s",
        "all epochs: jgd, s",
        "PyTorch, s",
        "times faster, compilation in",
    ]
    parts = [
        "# Condensation on Cora, 70 nodes\n",
        measure.described(record),
        "\nMedian (least–greatest) of one outer epoch, of one matching step, or of all experts. Of PyTorch's experts, "
        "which follow one another, one was timed and scaled up; the compilation of ours is in its first run, given "
        "in its place.\n",
        measure.table(header, rows),
    ]
    if record.get("scaling"):
        lines = [
            [
                f"{r['nodes']}",
                f"{r['edges']}",
                f"{r['first']:.1f}",
                f"{r['later']:.1f}",
                f"{r['peak_mib']:.0f}",
            ]
            for r in record["scaling"]
        ]
        parts += [
            "\n## GCond-X by the size of the graph\n\nA power-law graph with 128 features and 10 classes, 100 condensed "
            "nodes, 20 epochs of 10 matching steps with 5 network steps each.\n",
            measure.table(["nodes", "edges", "first run, s", "later, s", "peak MiB"], lines),
        ]
    return "\n".join(parts) + "\n"


def main() -> None:
    """Measure and write ``results/condensation_speed.{json,md}``."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--student-steps", type=int, default=100)
    parser.add_argument("--experts", type=int, default=20)
    parser.add_argument("--expert-epochs", type=int, default=50)
    parser.add_argument("--scaling", action="store_true", help="only time and memory by size")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        scaling_child(options.child)
        return
    file = measure.RESULTS / "condensation_speed.json"
    record: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"results": {}}
    record.pop("backfilled", None)
    record |= measure.provenance("torch", "torch_geometric")
    record["command"] = "python experiments/benchmarks/condensation.py, and with --scaling"
    if options.scaling:
        record["scaling"] = scaling()
    else:
        record["results"] = measured(options)
    measure.write("condensation_speed", record, markdown(record))


if __name__ == "__main__":
    main()
