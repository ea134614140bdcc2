from __future__ import annotations

import pytest

from evomerge import origins

EVERY = (
    *(origins.BASE, origins.UNIFORM, origins.SEARCH, origins.expert("math")),
    *(origins.winner("w1"), origins.task_arithmetic(0.5), origins.recipe("mine")),
    origins.study("earlier", 7),
)


@pytest.mark.parametrize(
    ("holds", "expected"),
    [
        (origins.is_single_model, {"base", "expert:math"}),
        (origins.is_baseline, {"base", "expert:math", "uniform"}),
        (origins.is_reference, {"base", "expert:math", "uniform"}),
        (origins.is_handed_on, {"winner:w1"}),
    ],
)
def test_each_question_holds_for_some_origins(holds, expected) -> None:
    assert set(filter(holds, EVERY)) == expected


@pytest.mark.parametrize("text", ["expert", "expert:", "experts:math", "search", "7"])
def test_what_names_no_baseline_is_no_reference(text: str) -> None:
    assert not origins.is_reference(text)


def test_an_origin_is_taken_apart_at_its_first_colon() -> None:
    assert origins.kind_and_name("study:a:b#7") == ("study", "a:b#7")
    assert origins.kind_and_name(origins.BASE) == ("base", "")
