from __future__ import annotations

from itertools import accumulate
from math import prod
from operator import mul

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.space.dataflow.scales import guarded, unguarded

SCALES = st.lists(st.floats(0.25, 4.0), min_size=1, max_size=64)
LIMITS = st.floats(1.5, 256.0)


@settings(max_examples=100, deadline=None)
@given(scales=SCALES, limit=LIMITS)
def test_the_guard_keeps_products_within_the_limit_and_can_be_undone(
    scales: list[float], limit: float
) -> None:
    kept = guarded(scales, limit)
    assert all(1 / limit < product < limit for product in accumulate(kept, mul))
    undone = unguarded(kept, limit)
    assert undone is not None
    assert undone == pytest.approx(scales, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(scales=SCALES, limit=LIMITS)
def test_the_guard_moves_scales_only_towards_one(scales: list[float], limit: float) -> None:
    for before, after in zip(scales, guarded(scales, limit), strict=True):
        assert min(before, 1.0) - 1e-12 <= after <= max(before, 1.0) + 1e-12


def test_small_products_are_left_as_they_are() -> None:
    scales = [2.0, 1.7, 0.3, 0.9]
    assert guarded(scales, 16.0) == tuple(scales)


def test_larger_products_stay_in_order() -> None:
    products = [prod(guarded([scale] * 20, 16.0)) for scale in (1.2, 1.5, 2.0, 4.0)]
    assert products == sorted(set(products))


def test_scales_beyond_the_limit_come_from_no_others() -> None:
    assert unguarded([4.0, 4.0, 4.0], 16.0) is None
