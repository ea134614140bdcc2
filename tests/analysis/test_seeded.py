"""Advice on methods from scores, not from angles."""

from __future__ import annotations

import pytest

from evomerge.analysis.seeded import seeds_advice, space_warning
from evomerge.study.records import StudyRecord

from .synthetic import objectives, study_of, trial

EXPERTS: dict[str, object] = {"experts": {"a": "zoo:a", "b": "zoo:b"}}


def seeded(**values: float) -> StudyRecord:
    origins = {"base": "base", "uniform": "uniform", "small": "task_arithmetic:0.3"}
    origins["sum"] = "task_arithmetic:1"
    trials = [
        trial(n, (value,), origin=origins[name], recipe=EXPERTS)
        for n, (name, value) in enumerate(values.items())
    ]
    return study_of([*trials, trial(9, (0.99,))], objectives(1))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"base": 0.2, "uniform": 0.5, "small": 0.4, "sum": 0.1}, "Sums go too far"),
        ({"base": 0.2, "uniform": 0.5, "small": 0.4, "sum": 0.7}, "Adding up beats averaging"),
        ({"base": 0.6, "uniform": 0.5, "small": 0.4, "sum": 0.7 - 0.6}, "No fixed mix beats"),
        ({"base": 0.2, "uniform": 0.5}, "Sums were not tried"),
    ],
)
def test_the_best_seed_decides(values: dict[str, float], expected: str) -> None:
    said = seeds_advice(seeded(**values))
    assert said is not None
    assert expected in said
    order = sorted(values.values(), reverse=True)
    places = [said.index(f"{value:.3f} ± 0.020") for value in order]
    assert places == sorted(places)


def test_without_seeds_nothing_was_measured() -> None:
    assert seeds_advice(seeded(base=0.2)) is None
    assert space_warning(seeded(base=0.2), {"linear"}) is None


def test_a_space_that_cannot_reach_the_best_seed_is_named() -> None:
    adding = seeded(base=0.2, uniform=0.5, sum=0.7)
    said = space_warning(adding, {"linear"})
    assert said is not None
    assert "(linear) and cannot reach task arithmetic 1" in said
    assert space_warning(adding, {"linear", "ties"}) is None
    assert space_warning(seeded(base=0.2, uniform=0.7, sum=0.5), {"linear"}) is None
