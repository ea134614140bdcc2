from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.study.constraints import Bound, Constraint, parse_bound, violations

NUMBER = st.floats(-1e6, 1e6).map(lambda x: round(x, 6))
KNOWN = {"base": 0.5, "expert:math": 0.8, "uniform": 0.6}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        (0.25, 0.25),
        (40, 40.0),
        ("1e-3", 0.001),
        ("base", 0.5),
        ("base - 0.01", 0.49),
        ("uniform + 1", 1.6),
        ("expert:math * 0.95", 0.76),
        ("  base   -   .5 ", 0.0),
    ],
)
def test_bounds_are_numbers_or_a_baselines_score_and_a_number(
    written: float | str, value: float
) -> None:
    assert parse_bound(written).value(KNOWN) == pytest.approx(value)


@pytest.mark.parametrize(
    "written",
    [
        *("", "bas", "expert:", "base -", "base / 2", "base - x", "base - nan", "inf", "2 * base"),
        *("base-0.01", "base - 1 - 1", "__import__('os')", "base - 0.01; 1", "expert:math ** 2"),
    ],
)
def test_anything_else_is_explained(written: str) -> None:
    with pytest.raises(ValueError, match=r"expected a number, or base, uniform or expert:NAME"):
        parse_bound(written)


@given(st.sampled_from(sorted(KNOWN)), st.sampled_from("+-*"), NUMBER)
def test_a_bound_is_what_python_would_compute(origin: str, sign: str, number: float) -> None:
    score = KNOWN[origin]
    expected = {"+": score + number, "-": score - number, "*": score * number}[sign]
    found = parse_bound(f"{origin} {sign} {number!r}").value(KNOWN)
    assert found == pytest.approx(expected)


@given(NUMBER, NUMBER, st.sampled_from(["at_least", "at_most"]))
def test_a_value_is_feasible_exactly_within_the_bound(
    value: float, bound: float, side: str
) -> None:
    constraint = Constraint("t", "acc", side, Bound(None, 0.0, bound), str(bound))  # type: ignore[arg-type]
    within = value >= bound if side == "at_least" else value <= bound
    found = constraint.violation(value, {})
    assert math.isfinite(found)
    assert (found <= 0) == within


def test_a_bound_that_is_not_known_yet_is_not_enforced() -> None:
    held = Constraint("t", "acc", "at_least", parse_bound("expert:a - 0.1"), "expert:a - 0.1")
    limit = Constraint("cost", "hops", "at_most", parse_bound(4), "4")
    assert violations([held, limit], [0.0, 5.0], []) == (0.0, 0.25)
    assert violations([held, limit], [0.45, 4.0], [("expert:a", [1.0, 4.0])]) == (
        pytest.approx(0.5),
        0.0,
    )
    assert [c.name for c in (held, limit)] == ["t acc at least expert:a - 0.1", "hops at most 4"]
