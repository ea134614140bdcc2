"""Whether a search found anything better than what was there before it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from evomerge.analysis.gain import compared, gain, no_gain
from evomerge.evaluation.scores import ItemScore
from evomerge.evaluation.store import ItemStore
from evomerge.execution.costs import COST
from evomerge.study.records import FinalRecord, Objective, StudyRecord

from .synthetic import objectives, study_of, trial

ORIGINS = ("base", "expert:a", "uniform", "search")


def with_finals(
    values: list[tuple[float, ...]], chosen: int, *, stderr: float = 0.02, of=None
) -> StudyRecord:
    """Base, expert, average and merge with these scores on the test items."""
    of = of or objectives(len(values[0]))
    finals = [
        FinalRecord(n, origin, "test", scores, (stderr,) * len(scores), chosen=n == chosen)
        for n, (origin, scores) in enumerate(zip(ORIGINS, values, strict=True))
    ]
    trials = [trial(f.number, f.values, origin=f.origin) for f in finals]
    return study_of(trials, of, finals=finals)


def items_of(folder: Path, right: dict[int, list[int]], n: int) -> pd.DataFrame:
    """Item scores of one task, by trial the items it gets right."""
    store = ItemStore(folder)
    for number, rows in right.items():
        scores = [ItemScore("zoo_math", i, "exact_match", float(i in rows)) for i in range(n)]
        store.write(number, "test", scores)
    return store.read()


def test_an_expert_that_validation_chose_is_named_with_what_the_best_merge_reaches() -> None:
    study = with_finals([(0.1,), (0.94,), (0.3,), (0.47,)], chosen=1)
    assert no_gain(study) == (
        "No merge is better than expert a on the validation items, so it is chosen; on the test "
        "items merge 3 reaches zoo_math 0.470 ± 0.020, expert a 0.940 ± 0.020. Try more trials "
        "(a larger budget.trials on resume) or another search space."
    )


def test_a_lead_within_noise_is_no_gain_and_a_clear_one_needs_no_word() -> None:
    small = no_gain(with_finals([(0.1, 0.1), (0.8, 0.2), (0.5, 0.54), (0.54, 0.54)], chosen=3))
    assert small is not None
    assert small.startswith(
        "No merge is better than the uniform average beyond noise on the test items: merge 3 "
        "reaches mean 0.540 ± 0.014, the uniform average 0.520 ± 0.014. "
    )
    assert small.endswith("another search space, or fewer objectives.")
    assert no_gain(with_finals([(0.1, 0.1), (0.8, 0.2), (0.5, 0.5), (0.6, 0.6)], chosen=3)) is None


def test_noise_is_that_of_the_same_items_where_they_are_known(tmp_path: Path) -> None:
    """50 and 58 of 100: as if independent within noise, on the same items 8 won and none lost."""
    study = with_finals([(0.1,), (0.2,), (0.5,), (0.58,)], chosen=3, stderr=0.05)
    assert no_gain(study) is not None
    right = {2: list(range(50)), 3: list(range(58))}
    items = items_of(tmp_path, right, 100)
    assert compared(study) == {0, 1, 2, 3}
    assert compared(replace(study, finals=())) == {2, 3}
    found = gain(study, items)
    assert found is not None
    assert found.difference.value == pytest.approx(0.08)
    assert found.difference.stderr == pytest.approx(math.sqrt(0.08 * 0.92 / 99))
    assert no_gain(study, items) is None


def test_smaller_is_better_when_minimised() -> None:
    of = objectives(1, "minimize")
    assert no_gain(with_finals([(9.0,), (5.0,), (6.0,), (4.0,)], chosen=3, of=of)) is None
    worse = no_gain(with_finals([(9.0,), (5.0,), (6.0,), (5.5,)], chosen=3, of=of))
    assert worse is not None
    assert worse.startswith("No merge is better than expert a on the test items: merge 3 reaches")


def test_a_cost_counts_by_the_range_of_the_models_and_without_noise() -> None:
    of = (*objectives(1), Objective(COST, "distance", "minimize", "distance"))
    study = with_finals([(0.1, 0.0), (0.9, 8.0), (0.5, 4.0), (0.9, 4.0)], chosen=3, of=of)
    found = gain(study)
    assert found is not None
    # By hand: score over 0.8, distance over 8. Merge 0.9/0.8 - 0.5; all baselines 0.125.
    assert found.difference.value == pytest.approx((0.9 / 0.8 - 0.5 - 0.1 / 0.8) / 2)
    finals = [replace(f, stderr=(0.02, math.nan)) for f in study.finals]
    assert no_gain(replace(study, finals=tuple(finals))) is None


def test_a_baseline_that_violates_more_is_no_rival() -> None:
    study = with_finals([(0.1,), (0.9,), (0.3,), (0.5,)], chosen=3)
    finals = [replace(f, violations=(0.2 * (f.number == 1),)) for f in study.finals]
    found = gain(replace(study, finals=tuple(finals)))
    assert found is not None
    assert found.rival.origin == "uniform"


def test_before_the_finals_the_search_items_are_what_there_is() -> None:
    trials = [trial(0, (0.1,), origin="base"), trial(1, (0.9,), origin="expert:a")]
    assert no_gain(study_of(trials, objectives(1))) is None  # no merge yet
    found = no_gain(study_of([*trials, trial(2, (0.5,)), trial(3, (0.6,))], objectives(1)))
    assert found is not None
    assert found.startswith("No merge is better than expert a on the search items: merge 3 reaches")


def test_where_noise_is_not_known_a_lead_is_not_judged() -> None:
    study = with_finals([(0.1,), (0.2,), (0.5,), (0.58,)], chosen=3, stderr=math.nan)
    assert no_gain(study) is None
