"""Frequent sets against trying all of them."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jgd.ops import frequent_itemsets, itemsets_by_support

transactions = st.lists(st.lists(st.integers(-3, 7), max_size=9), max_size=12)


def brute(data, least, largest=None):
    """Every set of items that is in ``least`` transactions."""
    sets = [set(t) for t in data]
    items = sorted(set().union(*sets)) if sets else []
    found = {}
    for size in range(1, (len(items) if largest is None else min(largest, len(items))) + 1):
        for subset in itertools.combinations(items, size):
            support = sum(set(subset) <= t for t in sets)
            if support >= least:
                found[subset] = support
    return found


@settings(max_examples=60, deadline=None)
@given(transactions, st.integers(1, 5))
def test_all_frequent_sets(data, least):
    """Check 3: the same sets and supports, each once, the most frequent first."""
    found = frequent_itemsets(data, least)
    assert dict(found) == brute(data, least)
    keys = [(-support, len(items), items) for items, support in found]
    assert keys == sorted(set(keys))


@settings(max_examples=30, deadline=None)
@given(transactions, st.integers(1, 3), st.integers(1, 4))
def test_sets_up_to_a_size(data, least, largest):
    assert dict(frequent_itemsets(data, least, max_items=largest)) == brute(data, least, largest)


@settings(max_examples=30, deadline=None)
@given(transactions)
def test_supports(data):
    """A superset is never more frequent; a full transaction is found; nothing is in more than there are."""
    found = dict(frequent_itemsets(data, 1))
    for items, support in found.items():
        for smaller in itertools.combinations(items, len(items) - 1):
            assert not smaller or found[smaller] >= support
    for t in data:
        assert not t or tuple(sorted(set(t))) in found
    assert frequent_itemsets(data, len(data) + 1) == []


@settings(max_examples=30, deadline=None)
@given(transactions, st.integers(1, 20))
def test_the_first_ones(data, count):
    """A cap keeps the most frequent; more can be had lazily."""
    everything = frequent_itemsets(data, 1)
    assert frequent_itemsets(data, 1, count) == everything[:count]
    lazily = itertools.islice(itemsets_by_support(iter(data), 1), count)
    assert list(lazily) == everything[:count]


def test_many_patterns_lazily():
    """2^60 sets are frequent; the first ones come at once."""
    data = [np.arange(60)] * 3 + [np.arange(5)]
    found = frequent_itemsets(data, 3, 40)
    assert len(found) == 40
    assert found[:5] == [((i,), 4) for i in range(5)]
    assert sum(support == 4 for _, support in found) == 31  # the subsets of five items
    assert frequent_itemsets([], 1) == []


def test_bad_input():
    with pytest.raises(ValueError, match="min_support"):
        frequent_itemsets([[1]], 0)
    with pytest.raises(ValueError, match="max_patterns"):
        frequent_itemsets([[1]], 1, 0)
    with pytest.raises(ValueError, match="max_items"):
        itemsets_by_support([[1]], 1, max_items=0)
