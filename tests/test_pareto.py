"""Dominance and hypervolume against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evomerge.pareto import gains, non_dominated, volume

LEVELS = st.integers(0, 3).map(float)  # few, so that points are equal and share coordinates
POINTS = st.tuples(st.integers(0, 8), st.integers(1, 3)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=LEVELS)
)


@given(POINTS)
def test_what_is_kept_is_what_nothing_beats(points):
    def beats(one, other):
        return (one >= other).all() and (one > other).any()

    expected = [not any(beats(other, point) for other in points) for point in points]
    assert non_dominated(points).tolist() == expected


def test_gains_are_the_boxes_that_only_the_point_covers():
    """A front of two boxes of volume 0.5 and 0.5 that share 0.25."""
    front = np.array([[1.0, 0.5], [0.5, 1.0]])
    points = np.array([[1.0, 1.0], [0.75, 0.75], [0.5, 0.5], [1.5, 0.5]])
    assert volume(front, np.zeros(2)) == pytest.approx(0.75)
    expected = np.array([0.25, 0.0625, 0.0, 0.25]) / 0.75
    assert gains(points, front, np.zeros(2)) == pytest.approx(expected)


def test_any_gain_is_infinite_beside_a_front_without_volume():
    found = gains(np.array([[0.2], [0.0]]), np.zeros((1, 1)), np.zeros(1))
    assert found.tolist() == [np.inf, 0]
