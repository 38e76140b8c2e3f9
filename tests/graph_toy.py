"""Small graph tasks for the tests of condensers and protocols."""

import jraph
import numpy as np

from jgd.data import GraphTask
from jgd.data.prepare import stratified

CODES = 8


def chains(*words):
    """Paths whose nodes carry the letters of each word as one-hot features, edges both ways."""
    codes = [ord(letter) - ord("A") for word in words for letter in word]
    senders, receivers, first = [], [], 0
    for word in words:
        for i in range(first, first + len(word) - 1):
            senders += [i, i + 1]
            receivers += [i + 1, i]
        first += len(word)
    return jraph.GraphsTuple(
        nodes=np.eye(CODES, dtype=np.float32)[codes],
        edges=None,
        senders=np.asarray(senders, np.int32),
        receivers=np.asarray(receivers, np.int32),
        n_node=np.asarray([len(codes)], np.int32),
        n_edge=np.asarray([len(senders)], np.int32),
        globals=None,
    )


def task_of(graphs, labels, fractions=(0.5, 0.25, 0.25), name="toy"):
    labels = np.asarray(labels, np.int32)
    return GraphTask(
        graphs=jraph.batch_np(graphs),
        labels=labels,
        **stratified(labels, fractions, seed=0),
        num_classes=int(labels.max()) + 1,
        name=name,
    )


def two_hops(count=64, seed=0):
    """Classes with the same trees of depth 1 that differ in those of depth 2, and noise of G and H."""
    rng = np.random.default_rng(seed)
    words = (("CAAC", "DAAD"), ("CAAD", "CAAD"))
    labels = np.arange(count) % 2
    noise = ["".join(rng.choice(["G", "H"], rng.integers(2, 5))) for _ in range(count)]
    return task_of([chains(*words[c], n) for c, n in zip(labels, noise, strict=True)], labels)


def together(count=64):
    """Class 0 has two motifs, class 1 has one of them."""
    kinds = [(0, ("AB", "CD")), (1, ("AB",)), (0, ("AB", "CD")), (1, ("CD",))]
    picked = [kinds[i % 4] for i in range(count)]
    return task_of([chains("EF", *words) for _, words in picked], [c for c, _ in picked])


TASK = two_hops()
