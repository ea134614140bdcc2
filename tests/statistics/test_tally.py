from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.statistics.tally import EXACT, Tally, bucket_edges, buckets_of

floats = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1)


@settings(max_examples=50, deadline=None)
@given(floats, st.booleans())
def test_every_magnitude_lies_inside_its_bucket(values: list[float], exact: bool) -> None:
    tau = np.array(values, np.float32)
    buckets = buckets_of(tau, exact=exact)
    low, high = bucket_edges(buckets)
    magnitude = np.abs(tau.astype(np.float64))
    assert ((low <= magnitude) & (magnitude <= high)).all()
    assert (np.where(buckets % 2 == 0, magnitude == low, magnitude > low)).all()
    assert not exact or (low == high).all()


@pytest.mark.parametrize("exact", [True, False])
def test_buckets_ascend_with_the_magnitude(exact: bool) -> None:
    magnitude = np.sort(np.abs(np.random.default_rng(3).standard_normal(9999, np.float32) ** 3))
    assert (np.diff(buckets_of(magnitude, exact=exact)) >= 0).all()


@pytest.mark.parametrize("sizes", [(5,), (30, 70), (EXACT,), (EXACT, 1), (1, EXACT + 7)])
def test_counts_and_weights_are_those_of_the_elements(sizes: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    tiles = [random.standard_normal(size, np.float32) for size in sizes]
    weights = [random.random((2, size)) for size in sizes]
    tally, sum_of_tallies = Tally(2), Tally(2)
    for tile, weight in zip(tiles, weights, strict=True):
        tally.add(tile, weight)
        part = Tally(2)
        part.add(tile, weight)
        sum_of_tallies.add_buckets(*part.result())
    every = np.concatenate(tiles)
    is_small = every.size <= EXACT
    distinct, place = np.unique(buckets_of(every, exact=is_small), return_inverse=True)
    for found in (tally.result(), sum_of_tallies.result()):
        assert np.array_equal(found[0], distinct)
        assert np.array_equal(found[1], np.bincount(place))
        expected = [np.bincount(place, weights=row) for row in np.concatenate(weights, axis=1)]
        assert np.allclose(found[2], expected)


def test_nothing_has_no_buckets() -> None:
    buckets, counts, weights = Tally(3).result()
    assert buckets.size == counts.size == 0
    assert weights.shape == (3, 0)
