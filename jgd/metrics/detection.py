"""Scores of alarms on the nodes of a graph, strict and with tolerance of the neighbourhood (host side)."""

from __future__ import annotations

import jraph
import numpy as np
import scipy.sparse as sp
from jaxtyping import Shaped

from jgd.graph import AnyArray, check_index, num_nodes
from jgd.registry import Entry

__all__ = ["strict_scores", "tolerant_scores", "within_hops"]


def within_hops(
    seeds: Shaped[AnyArray, " N"], graph: jraph.GraphsTuple, hops: int
) -> Shaped[np.ndarray, " N"]:
    """Return the nodes at most ``hops`` edges from a seed, seeds included; edges have no direction.

    Args:
      seeds: Mask of the seeds.
      graph: Graph whose edges are followed.
      hops: Largest number of edges.

    Raises:
      ValueError: If the mask has another length, or the number of hops is negative.
    """
    reached, size = np.asarray(seeds, bool), num_nodes(graph)
    if reached.shape != (size,):
        raise ValueError(f"a mask of the nodes must have length {size}, got shape {reached.shape}")
    if hops < 0:
        raise ValueError(f"hops must not be negative, got {hops}")
    senders, receivers = np.asarray(graph.senders), np.asarray(graph.receivers)
    check_index("senders", senders, size)
    check_index("receivers", receivers, size)
    ones = np.ones(2 * len(senders), np.int64)
    ends = (np.append(senders, receivers), np.append(receivers, senders))
    a = sp.csr_array(sp.coo_array((ones, ends), shape=(size, size)))
    for _ in range(hops):
        reached = reached | (a @ reached.astype(np.int64) > 0)
    return reached


def _checked(alarm, truth) -> tuple[np.ndarray, np.ndarray]:
    alarm, truth = np.asarray(alarm), np.asarray(truth)
    if alarm.ndim != 1 or alarm.shape != truth.shape or alarm.dtype != bool or truth.dtype != bool:
        raise ValueError(
            "alarm and truth must be boolean vectors of equal length, got "
            f"{alarm.dtype}{alarm.shape} and {truth.dtype}{truth.shape}"
        )
    return alarm, truth


def _rates(tp: int, fp: int, fn: int, tn: int) -> dict[str, float]:
    """Compute ratios of counts, zero where the denominator is zero."""

    def ratio(part, whole):
        return float(part / whole) if whole else 0.0

    counts = {"tp": float(tp), "fp": float(fp), "fn": float(fn), "tn": float(tn)}
    return counts | {
        "precision": ratio(tp, tp + fp),
        "recall": ratio(tp, tp + fn),
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
        "fpr": ratio(fp, fp + tn),
    }


def strict_scores(alarm: Shaped[AnyArray, "..."], truth: Shaped[AnyArray, "..."]) -> dict[str, float]:
    """Count ``tp``, ``fp``, ``fn``, ``tn`` of alarms; compute ``precision``, ``recall``, ``f1``, ``fpr``.

    Args:
      alarm: Mask of the nodes that were flagged.
      truth: Mask of the nodes that are malicious.

    Raises:
      ValueError: If the arguments are not boolean vectors of equal length.
    """
    alarm, truth = _checked(alarm, truth)
    pairs = ((alarm & truth), (alarm & ~truth), (~alarm & truth), (~alarm & ~truth))
    return _rates(*(int(p.sum()) for p in pairs))


def tolerant_scores(
    alarm: Shaped[AnyArray, "..."], truth: Shaped[AnyArray, "..."], graph: jraph.GraphsTuple, hops: int = 2
) -> dict[str, float]:
    """Compute scores of intrusion detection on provenance graphs, where an alarm nearby counts.

    With ``N(.)`` the nodes within ``hops`` of a set, a miss in ``N(true positives)`` becomes a true positive
    and a false alarm in ``N(malicious nodes)`` is not counted; true negatives stay (Rehman, Ahmadi and
    Hassan, "FLASH", IEEE S&P 2024). Around hubs ``N`` covers nearly all nodes, so report the strict scores as
    well.

    Args:
      alarm: Mask of the nodes that were flagged.
      truth: Mask of the nodes that are malicious.
      graph: Graph, whose edges are taken without direction.
      hops: Radius; 0 gives `strict_scores`.

    Returns:
      What `strict_scores` returns; ``f1`` is never lower than the strict one.

    Raises:
      ValueError: If the arguments are not boolean vectors of the graph's length, or the radius is negative.
    """
    alarm, truth = _checked(alarm, truth)
    hit, false, missed = alarm & truth, alarm & ~truth, ~alarm & truth
    found = missed & within_hops(hit, graph, hops)
    false = false & ~within_hops(truth, graph, hops)
    counts = (int((hit | found).sum()), int(false.sum()), int((missed & ~found).sum()))
    return _rates(*counts, tn=int((~alarm & ~truth).sum()))


ENTRIES = (
    Entry(
        "strict-scores",
        strict_scores,
        "Precision, recall, F1 and false positive rate of alarms.",
        kinds=("nodes",),
    ),
    Entry(
        "tolerant-scores",
        tolerant_scores,
        "Scores of alarms where a hit nearby counts.",
        paper="Rehman et al. 2024",
        kinds=("nodes",),
    ),
)
