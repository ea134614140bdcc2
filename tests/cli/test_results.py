"""What a study looks like in a terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from evomerge.cli.results import _thinned
from evomerge.study.records import TrialRecord


@dataclass(frozen=True)
class Numbered:
    """All that thinning looks at."""

    number: int


@given(n=st.integers(1, 60), most=st.integers(2, 20), data=st.data())
def test_a_long_front_keeps_its_ends_the_knee_and_its_order(
    n: int, most: int, data: st.DataObject
) -> None:
    trials = cast(list[TrialRecord], [Numbered(i) for i in range(n)])
    knee = data.draw(st.sampled_from(trials))
    shown = _thinned(trials, most, knee)
    assert shown == sorted(shown, key=lambda t: t.number)
    assert {trials[0], trials[-1], knee} <= set(shown)
    assert min(n, most) <= len(shown) <= most + 1
