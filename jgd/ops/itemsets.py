"""Sets of items that occur together often.

Zaki, "Scalable algorithms for association mining" (Eclat), TKDE 2000. A set of items is kept with the bits of
the transactions that hold it; the bits of a larger set are the "and" of those of smaller ones. A superset
never occurs more often than its subset, so a search that always extends the most frequent set found so far
yields all sets in order of falling support and may stop anywhere.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

__all__ = ["frequent_itemsets", "itemsets_by_support"]

Itemset = tuple[tuple[int, ...], int]


def itemsets_by_support(
    transactions: Iterable[Any], min_support: int = 1, *, max_items: int | None = None
) -> Iterator[Itemset]:
    """Yield all non-empty sets of items that occur together, the most frequent first.

    Args:
      transactions: Items (integers) of each transaction; repeated items count once.
      min_support: Least number of transactions that hold a set, at least 1.
      max_items: Largest size of a set; unlimited by default.

    Yields:
      ``(items, support)``: ascending items, and the number of transactions that hold them all; falling by
      support, then rising by size and by items. Sets are computed while they are consumed, and memory grows
      with their number.
    """
    if min_support < 1:
        raise ValueError(f"min_support must be at least 1, got {min_support}")
    if max_items is not None and max_items < 1:
        raise ValueError(f"max_items must be at least 1, got {max_items}")
    return _search(transactions, min_support, max_items)


def _search(transactions, min_support, max_items) -> Iterator[Itemset]:
    holders: dict[int, list[int]] = {}
    number = 0
    for number, items in enumerate(transactions, 1):
        for item in np.unique(np.asarray(list(items), np.int64)).tolist():
            holders.setdefault(item, []).append(number - 1)
    singles = sorted(item for item, rows in holders.items() if len(rows) >= min_support)
    bits = []
    for item in singles:
        row = np.zeros(number, np.uint8)
        row[holders[item]] = 1
        bits.append(int.from_bytes(np.packbits(row).tobytes(), "big"))
    # Sets are extended by later items only, so that each is found once.
    heap: list[tuple[int, int, tuple[int, ...], int]] = [
        (-b.bit_count(), 1, (i,), b) for i, b in enumerate(bits)
    ]
    heapq.heapify(heap)
    while heap:
        support, length, items, held = heapq.heappop(heap)
        yield tuple(singles[i] for i in items), -support
        if max_items is not None and length >= max_items:
            continue
        for i in range(items[-1] + 1, len(bits)):
            both = held & bits[i]
            count = both.bit_count()
            if count >= min_support:
                heapq.heappush(heap, (-count, length + 1, (*items, i), both))


def frequent_itemsets(
    transactions: Iterable[Any],
    min_support: int,
    max_patterns: int | None = None,
    *,
    max_items: int | None = None,
) -> list[Itemset]:
    """Return all sets of items in at least ``min_support`` transactions, exactly.

    Args:
      transactions: Items (integers) of each transaction.
      min_support: Least number of transactions that hold a set, at least 1.
      max_patterns: Number of sets to return, the first in the order of `itemsets_by_support`; all by default.
        There can be exponentially many.
      max_items: Largest size of a set; unlimited by default.

    Returns:
      ``(items, support)`` as `itemsets_by_support` yields them.
    """
    if max_patterns is not None and max_patterns < 1:
        raise ValueError(f"max_patterns must be at least 1, got {max_patterns}")
    return list(islice(itemsets_by_support(transactions, min_support, max_items=max_items), max_patterns))
