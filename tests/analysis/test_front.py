from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.analysis.front import (
    complete,
    front,
    hypervolume,
    hypervolume_history,
    scaled_values,
)
from evomerge.analysis.picking import knee, pick
from evomerge.study.records import Objective, StudyRecord, TrialRecord

from .synthetic import failed, make_study, objectives, study_of, trial

Direction = Literal["maximize", "minimize"]
# Few distinct values: ties and duplicates are where fronts go wrong.
SCORE = st.integers(0, 12).map(lambda i: i / 12)


@st.composite
def studies(draw: st.DrawFn, *, min_trials: int = 0) -> StudyRecord:
    k = draw(st.integers(1, 4))
    point = st.tuples(*[SCORE] * k)
    directions: list[Direction] = draw(
        st.lists(st.sampled_from(["maximize", "minimize"]), min_size=k, max_size=k)
    )
    origins = ["search", "base", "expert:a", "expert:b", "uniform"]
    drawn = draw(
        st.lists(st.tuples(point, st.sampled_from(origins)), min_size=min_trials, max_size=25)
    )
    of = [
        dataclasses.replace(o, direction=d) for o, d in zip(objectives(k), directions, strict=True)
    ]
    return study_of([trial(i, p, origin=o) for i, (p, o) in enumerate(drawn)], of)


def dominates(left: TrialRecord, right: TrialRecord, of: Sequence[Objective]) -> bool:
    pairs = [
        (a, b) if o.direction == "maximize" else (b, a)
        for a, b, o in zip(left.values, right.values, of, strict=True)
    ]
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


@given(studies())
def test_front_is_exactly_the_trials_that_no_trial_dominates(study: StudyRecord) -> None:
    expected = [
        t for t in study.trials if not any(dominates(u, t, study.objectives) for u in study.trials)
    ]
    assert list(front(study)) == expected


@given(studies(min_trials=1), st.randoms(use_true_random=False))
def test_order_of_trials_changes_neither_front_nor_knee_nor_hypervolume(
    study: StudyRecord, rng: random.Random
) -> None:
    shuffled = dataclasses.replace(study, trials=tuple(rng.sample(study.trials, len(study.trials))))
    assert front(shuffled) == front(study)
    assert pick(shuffled, "knee") == pick(study, "knee")
    assert knee(shuffled.trials, study.objectives) == knee(study.trials, study.objectives)
    assert hypervolume(shuffled) == pytest.approx(hypervolume(study), rel=1e-9, abs=1e-12)


@given(studies())
def test_flipping_directions_and_signs_together_changes_nothing(study: StudyRecord) -> None:
    flipped = dataclasses.replace(
        study,
        objectives=tuple(
            dataclasses.replace(
                o, direction="minimize" if o.direction == "maximize" else "maximize"
            )
            for o in study.objectives
        ),
        trials=tuple(
            dataclasses.replace(t, values=tuple(-v for v in t.values)) for t in study.trials
        ),
    )
    assert [t.number for t in front(flipped)] == [t.number for t in front(study)]
    assert hypervolume(flipped) == pytest.approx(hypervolume(study))


@given(studies())
def test_hypervolume_never_falls_and_ends_at_the_studys_hypervolume(study: StudyRecord) -> None:
    history = hypervolume_history(study)
    volumes = [volume for _, volume in history]
    assert [number for number, _ in history] == [t.number for t in study.trials]
    assert volumes == sorted(volumes)
    assert hypervolume(study) == (volumes[-1] if volumes else 0.0)


@given(studies(min_trials=1))
def test_knee_is_on_the_front(study: StudyRecord) -> None:
    assert knee(study.trials, study.objectives) in front(study)
    assert pick(study, "knee") in front(study)


def test_hypervolume_of_one_model_equal_to_every_expert_is_one() -> None:
    trials = [
        trial(0, (0.1, 0.2), origin="base"),
        trial(1, (0.7, 0.2), origin="expert:a"),
        trial(2, (0.1, 0.9), origin="expert:b"),
    ]
    assert hypervolume(study_of(trials, objectives(2))) == 0.0
    both = study_of([*trials, trial(3, (0.7, 0.9))], objectives(2))
    assert hypervolume(both) == pytest.approx(1.0)
    half = study_of([*trials, trial(3, (0.4, 0.55))], objectives(2))
    assert hypervolume(half) == pytest.approx(0.25)


def test_hypervolume_without_baselines_is_scaled_by_worst_and_best_trial() -> None:
    study = study_of(
        [trial(0, (0.0, 8.0)), trial(1, (2.0, 0.0)), trial(2, (1.0, 4.0))], objectives(2)
    )
    assert hypervolume(study) == pytest.approx(0.25)


def test_objective_on_which_baselines_agree_is_scaled_by_all_trials() -> None:
    trials = [trial(0, (0.2, 0.0), origin="base"), trial(1, (0.6, 0.0), origin="expert:a")]
    study = study_of([*trials, trial(2, (0.6, 0.5))], objectives(2))
    assert hypervolume(study) == pytest.approx(1.0)


def test_scaled_values_put_baselines_at_zero_and_one() -> None:
    study = make_study(3)
    scaled = scaled_values(study, [t for t in study.trials if t.origin in ("base", "expert:math")])
    assert scaled[:, 0].tolist() == [0.0, 1.0]


def test_trials_without_comparable_scores_are_left_out() -> None:
    study = study_of(
        [failed(0, "boom"), trial(1, (float("nan"),)), trial(2, (0.5,))], objectives(1)
    )
    assert [t.number for t in complete(study)] == [2]
    assert [t.number for t in front(study)] == [2]


def test_hypervolume_of_many_trials_is_the_area_under_each_start_of_them() -> None:
    rng = random.Random(5)
    points = [(1 - rng.random() ** 3, 1 - rng.random() ** 3) for _ in range(300)]
    parents = [trial(0, (0.0, 0.0), origin="base"), trial(1, (0.5, 0.5), origin="expert:a")]
    study = study_of([*parents, *(trial(2 + i, p) for i, p in enumerate(points))], objectives(2))

    def area(covered: Sequence[tuple[float, ...]]) -> float:
        total, height = 0.0, 0.0
        for x, y in sorted(covered, reverse=True):
            total, height = total + x * max(0.0, y - height), max(height, y)
        return total / 0.5**2  # on the scale of the parents

    values = [t.values for t in study.trials]
    expected = [area(values[: i + 1]) for i in range(len(values))]
    assert [v for _, v in hypervolume_history(study)] == pytest.approx(expected)


def test_what_follows_from_a_record_is_computed_once_for_each() -> None:
    study = make_study(2)
    assert complete(study) is complete(study)
    assert front(study) is front(study)
    assert complete(study) is not complete(dataclasses.replace(study, trials=study.trials[:3]))
    assert len(complete(dataclasses.replace(study, trials=study.trials[:3]))) == 3
