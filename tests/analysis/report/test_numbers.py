from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.analysis.intervals import Estimate
from evomerge.analysis.report.numbers import format_duration, format_estimate, format_number


@pytest.mark.parametrize(
    ("value", "stderr", "digits", "expected"),
    [
        (0.7134, 0.0213, 2, "0.713 ± 0.021"),
        (0.7134, 0.0213, 1, "0.71 ± 0.02"),
        (0.7134, 0.0036, 2, "0.7134 ± 0.0036"),
        (123.4, 17.2, 2, "123 ± 17"),
        (0.7134, math.nan, 2, "0.713"),
        (1.0, 0.0, 2, "1.000 ± 0"),
        (-0.5, 0.02, 1, "\N{MINUS SIGN}0.50 ± 0.02"),
        (-0.0001, 0.02, 1, "0.00 ± 0.02"),
    ],
)
def test_digits_end_where_the_noise_begins(
    value: float, stderr: float, digits: int, expected: str
) -> None:
    assert format_estimate(Estimate(value, stderr), digits) == expected


@given(st.floats(-1e4, 1e4), st.floats(1e-6, 1e3))
def test_written_value_is_within_a_tenth_of_the_noise(value: float, stderr: float) -> None:
    text = format_estimate(Estimate(value, stderr)).replace("\N{MINUS SIGN}", "-")
    written, _, error = text.partition(" ± ")
    # With noise of ten or more the value is a whole number, half a unit off at most.
    assert abs(float(written) - value) <= 0.051 * stderr
    assert float(error) == pytest.approx(stderr, rel=0.051)


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0.62134, "0.621"), (12.345, "12.3"), (1.5e7, "1.5e+07"), (math.inf, "inf")],
)
def test_number_without_noise(number: float, expected: str) -> None:
    assert format_number(number) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 s"),
        (0.001, "< 0.01 s"),
        (0.213, "0.21 s"),
        (9.7, "10 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_duration(seconds: float, expected: str) -> None:
    assert format_duration(seconds) == expected
