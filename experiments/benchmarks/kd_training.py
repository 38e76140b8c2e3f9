"""Eight students at once against eight PyTorch runs, one after another.

    JGD_DATA_DIR=... python experiments/benchmarks/kd_training.py     # needs the [bench] extra; some minutes

The same student, teacher outputs, loss (0.1 CE + 0.9 KD at T 4), optimiser, batches and steps. Outputs of the
teacher are computed once in both. Wall clock of all eight, compilation in and out, and images a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import measure
import numpy as np
import optax
import torch
import torch.nn.functional as F

from jgd import distill
from jgd.data import subset
from jgd.data.mnist import mnist
from jgd.distill import offline, scratch
from jgd.distill.scores import classified
from jgd.nn import ConvNet, Perceptron

SEEDS, BATCH = 8, 64


def torch_perceptron() -> torch.nn.Module:
    """784-64-10."""
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(784, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)
    )


def torch_convolutions() -> torch.nn.Module:
    """Twice convolution, instance normalisation, ReLU and mean pooling."""
    layers: list[torch.nn.Module] = []
    for channels in (1, 16):
        layers += [torch.nn.Conv2d(channels, 16, 3, padding=1), torch.nn.GroupNorm(16, 16), torch.nn.ReLU()]
        layers.append(torch.nn.AvgPool2d(2))
    return torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(16 * 49, 10))


CONVOLUTIONS = ConvNet(10, width=16, depth=2)
STUDENTS: dict[str, tuple[Any, Callable[[], torch.nn.Module], int, int | None]] = {
    "perceptron 784-64-10": (Perceptron(10, (64,)), torch_perceptron, 1000, None),
    "two convolutions of 16 channels, all at once": (CONVOLUTIONS, torch_convolutions, 100, None),
    "two convolutions of 16 channels, in turns": (CONVOLUTIONS, torch_convolutions, 100, 1),
}
"""Ours, theirs, steps, how many at once."""


def in_torch(make: Callable, x: torch.Tensor, y: torch.Tensor, t: torch.Tensor, steps: int, seed: int) -> Any:
    """One run, as a PyTorch user would write it."""
    torch.manual_seed(seed)
    net = make()
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    per_epoch, order = len(x) // BATCH, torch.randperm(len(x))
    for step in range(steps):
        if step and step % per_epoch == 0:
            order = torch.randperm(len(x))
        index = order[(step % per_epoch) * BATCH :][:BATCH]
        s = net(x[index])
        soft = 16 * F.kl_div(F.log_softmax(s / 4, 1), F.softmax(t[index] / 4, 1), reduction="batchmean")
        loss = 0.1 * F.cross_entropy(s, y[index]) + 0.9 * soft
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net


def tensors(task: Any, mask: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Images ``[N, 1, 28, 28]`` in 0..1 and classes."""
    index = np.flatnonzero(np.asarray(mask))
    x = np.asarray(task.x)[index]
    x = x.astype(np.float32) / (255 if x.dtype == np.uint8 else 1)
    labels = np.asarray(task.y)[index].astype(int)
    return torch.from_numpy(np.moveaxis(x, -1, 1).copy()), torch.from_numpy(labels)


def main() -> None:
    """Run both, and write ``results/kd_training.{json,md}``."""
    whole = mnist()
    task = subset(whole, 10_000, seed=0)
    teacher = scratch(Perceptron(10, (256, 256)), optax.adamw(1e-3), steps=800)(jax.random.key(0), whole)
    (x, y), (test_x, test_y) = tensors(task, task.train), tensors(task, task.test)
    t = torch.from_numpy(np.array(teacher(jnp.asarray(np.moveaxis(x.numpy(), 1, -1))).logits))
    record: dict[str, Any] = measure.provenance("torch")
    found = []
    for name, (net, make, steps, at_once) in STUDENTS.items():
        tx = optax.adamw(optax.cosine_decay_schedule(2e-3, steps), weight_decay=1e-4)
        settings = {"steps": steps, "batch": BATCH, "seeds": SEEDS, "at_once": at_once}
        recipe = offline(net, teacher, distill.hinton(), tx, **settings)
        seconds, nets = [], None
        for key in (1, 2, 3):
            start = time.perf_counter()
            nets = jax.block_until_ready(recipe(jax.random.key(key), task))
            seconds.append(time.perf_counter() - start)
        theirs, accuracies = [], []
        for seed in range(SEEDS):
            start = time.perf_counter()
            peer = in_torch(make, x, y, t, steps, seed)
            theirs.append(time.perf_counter() - start)
            with torch.no_grad():
                accuracies.append(float((peer(test_x).argmax(1) == test_y).float().mean()))
        assert nets is not None
        found.append(
            {
                "student": name,
                "steps": steps,
                "jgd_first": seconds[0],
                "jgd": min(seconds[1:]),
                "torch": sum(theirs),
                "images": SEEDS * steps * BATCH,
                "accuracy": np.asarray(classified(nets, task, several=True).accuracy).tolist(),
                "torch_accuracy": accuracies,
            }
        )
    record["rows"] = found
    lines = [
        [
            r["student"], str(r["steps"]), f"{r['jgd']:.1f}", f"{r['jgd_first']:.1f}", f"{r['torch']:.1f}",
            f"{r['torch'] / r['jgd']:.1f}x", f"{r['torch'] / r['jgd_first']:.1f}x",
            f"{r['images'] / r['jgd']:.3g}", f"{r['images'] / r['torch']:.3g}",
            f"{100 * np.mean(r['accuracy']):.1f} ± {100 * np.std(r['accuracy']):.1f}",
            f"{100 * np.mean(r['torch_accuracy']):.1f} ± {100 * np.std(r['torch_accuracy']):.1f}",
        ]
        for r in found
    ]  # fmt: skip
    header = ["student", "steps", "jgd s", "with compilation", "PyTorch s", "ratio", "with compilation",
              "jgd images/s", "PyTorch images/s", "jgd accuracy", "PyTorch accuracy"]  # fmt: skip
    page = [
        "# Eight students at once\n",
        measure.described(record),
        "\nEight students of one teacher on 10 000 images of MNIST (the teacher has seen all 60 000): in one "
        "program,\nvmapped or one after another in every step (`at_once=1`), and eight PyTorch runs in a row. "
        "Seconds of all eight.\n",
        measure.table(header, lines),
        "",
    ]
    measure.write("kd_training", record, "\n".join(page))


if __name__ == "__main__":
    main()
