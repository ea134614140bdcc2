from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from evomerge.analysis.intervals import (
    Estimate,
    difference,
    difference_interval,
    is_clear,
    mean,
    wilson_interval,
)

FINITE = st.floats(-1e6, 1e6)
POSITIVE = st.floats(0, 1e3)


@given(st.integers(1, 5000), st.data(), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_wilson_equals_scipy(n: int, data: st.DataObject, confidence: float) -> None:
    solved = data.draw(st.integers(0, n))
    low, high = wilson_interval(solved / n, n, confidence=confidence)
    expected = binomtest(solved, n).proportion_ci(confidence, method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0 <= low <= solved / n <= high <= 1


@pytest.mark.parametrize(
    ("accuracy", "n", "confidence"), [(1.1, 10, 0.95), (0.5, 0, 0.95), (0.5, 10, 1.0)]
)
def test_wilson_refuses_what_is_no_proportion(accuracy: float, n: int, confidence: float) -> None:
    with pytest.raises(ValueError, match="expected accuracy in"):
        wilson_interval(accuracy, n, confidence=confidence)


@given(st.lists(st.tuples(FINITE, POSITIVE), min_size=1, max_size=8))
def test_mean_is_the_average_and_errors_add_in_squares(pairs: list[tuple[float, float]]) -> None:
    values, errors = [v for v, _ in pairs], [s for _, s in pairs]
    found = mean(values, errors)
    assert found.value == pytest.approx(statistics.fmean(values), rel=1e-9, abs=1e-9)
    assert found.stderr**2 * len(pairs) ** 2 == pytest.approx(
        sum(s * s for s in errors), rel=1e-9, abs=1e-12
    )


def test_mean_of_equal_tasks_is_less_noisy_than_each() -> None:
    assert mean([0.5] * 4, [0.02] * 4).stderr == pytest.approx(0.01)


def test_mean_with_an_unknown_error_has_an_unknown_error() -> None:
    found = mean([0.2, 0.4], [0.01, math.nan])
    assert found.value == pytest.approx(0.3)
    assert math.isnan(found.stderr)


@pytest.mark.parametrize(("values", "stderr"), [([], []), ([0.5], [])])
def test_mean_refuses_unequal_lengths(values: list[float], stderr: list[float]) -> None:
    with pytest.raises(ValueError, match="one standard error per value"):
        mean(values, stderr)


@given(FINITE, POSITIVE, FINITE, POSITIVE)
def test_difference_is_antisymmetric_and_noisier_than_its_parts(
    a: float, a_stderr: float, b: float, b_stderr: float
) -> None:
    left, right = Estimate(a, a_stderr), Estimate(b, b_stderr)
    gap = difference(left, right)
    assert gap.value == -difference(right, left).value
    assert gap.stderr == difference(right, left).stderr >= max(a_stderr, b_stderr)
    assert gap.stderr**2 == pytest.approx(a_stderr**2 + b_stderr**2, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("value", "stderr", "expected"),
    [(0.05, 0.02, True), (-0.05, 0.02, True), (0.03, 0.02, False), (0.5, math.nan, False)],
)
def test_clear_means_beyond_two_standard_errors(
    value: float, stderr: float, expected: bool
) -> None:
    assert is_clear(Estimate(value, stderr)) is expected


@given(st.lists(st.sampled_from((-1.0, 0.0, 1.0)), min_size=1, max_size=200))
def test_paired_differences_of_right_and_wrong_have_an_interval_around_them(
    gains: list[float],
) -> None:
    low, high = difference_interval(np.array(gains))
    assert -1 <= low < high <= 1
    assert low <= np.mean(gains) <= high


def test_a_paired_interval_covers_what_it_promises() -> None:
    generator, inside = np.random.default_rng(0), 0
    for _ in range(2000):
        gains = generator.choice([-1.0, 0.0, 1.0], p=[0.08, 0.88, 0.04], size=80)
        low, high = difference_interval(gains)
        inside += low <= -0.04 <= high
    assert 0.935 < inside / 2000 < 0.975


def test_paired_differences_of_other_scores_have_the_normal_interval() -> None:
    low, high = difference_interval(np.array([0.5, 1.5]))
    assert (low, high) == pytest.approx((1 - 0.98, 1 + 0.98), abs=1e-3)
    assert math.isnan(difference_interval(np.array([0.5]))[0])
