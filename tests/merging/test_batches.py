"""Runs of bounded size."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from evomerge.merging.batches import in_batches


@given(sizes=st.lists(st.integers(0, 20)), limit=st.integers(0, 30))
def test_batches_keep_order_and_are_as_full_as_their_limit_allows(
    sizes: list[int], limit: int
) -> None:
    batches = list(in_batches(sizes, lambda size: size, limit))
    assert [size for batch in batches for size in batch] == sizes
    assert all(batch and (sum(batch) <= limit or len(batch) == 1) for batch in batches)
    for batch, following in pairwise(batches):
        assert sum(batch) + following[0] > limit
