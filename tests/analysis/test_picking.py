from __future__ import annotations

from dataclasses import replace

import pytest

from evomerge.analysis.picking import knee, pick
from evomerge.errors import StudyError
from evomerge.study.records import make_objectives

from .synthetic import failed, objectives, study_of, trial


def test_knee_is_the_bulge_and_not_the_balanced_point() -> None:
    trials = [
        trial(0, (0.0, 1.0)),
        trial(1, (0.5, 0.5)),
        trial(2, (0.4, 0.8)),
        trial(3, (1.0, 0.0)),
    ]
    assert knee(trials, objectives(2)).number == 2


def test_knee_of_a_straight_front_is_its_most_balanced_trial() -> None:
    trials = [trial(0, (0.0, 1.0)), trial(1, (0.5, 0.5)), trial(2, (1.0, 0.0))]
    assert knee(trials, objectives(2)).number == 1


def test_knee_of_one_objective_is_its_best_trial() -> None:
    trials = [trial(0, (3.0,)), trial(1, (1.0,)), trial(2, (2.0,))]
    assert knee(trials, objectives(1)).number == 0
    assert knee(trials, objectives(1, "minimize")).number == 1


def test_pick_prefers_merges_to_the_models_they_are_made_of() -> None:
    trials = [
        trial(0, (0.9, 0.1), origin="expert:a"),
        trial(1, (0.8, 0.3)),
        trial(2, (0.5, 0.7)),
        trial(3, (0.4, 0.2)),
    ]
    study = study_of(trials, objectives(2))
    assert pick(study, "best:zoo_math").number == 1
    assert pick(study, "best:zoo_list").number == 2
    assert pick(study, "best:mean").number == 2
    assert pick(study, "trial:3").number == 3


def test_pick_of_an_expert_when_no_merge_is_on_the_front() -> None:
    study = study_of([trial(0, (0.9, 0.9), origin="expert:a"), trial(1, (0.1, 0.1))], objectives(2))
    assert pick(study, "knee").number == 0


def test_pick_best_of_a_minimized_objective_is_the_smallest() -> None:
    study = study_of([trial(0, (3.0,)), trial(1, (1.0,))], objectives(1, "minimize"))
    assert pick(study, "best:zoo_math").number == 1
    assert pick(study, "best:mean").number == 1


@pytest.mark.parametrize("choice", ["best", "best:", "best:other", "kne", ""])
def test_unknown_choice_is_told_what_is_possible(choice: str) -> None:
    study = study_of([trial(0, (0.5, 0.5))], objectives(2))
    with pytest.raises(
        StudyError,
        match=r"knee, best:zoo_math, best:zoo_list, best:mean, prefer:zoo_math=NUMBER,… or trial:N",
    ):
        pick(study, choice)


def test_mean_of_mixed_directions_is_refused() -> None:
    mixed = (objectives(2)[0], objectives(2, "minimize")[1])
    with pytest.raises(
        StudyError, match=r"knee, best:zoo_math, best:zoo_list, prefer:zoo_math=NUMBER,… or trial:N"
    ):
        pick(study_of([trial(0, (0.5, 0.5))], mixed), "best:mean")


def test_trial_that_failed_cannot_be_picked() -> None:
    study = study_of([trial(0, (0.5,)), failed(1, "boom")], objectives(1))
    with pytest.raises(StudyError, match=r"'trial:1' which is failed"):
        pick(study, "trial:1")
    with pytest.raises(StudyError, match=r"'trial:7' which is unknown"):
        pick(study, "trial:7")


@pytest.mark.parametrize("choice", ["knee", "best:mean"])
def test_pick_from_nothing_says_so(choice: str) -> None:
    with pytest.raises(StudyError, match="expected a complete trial"):
        pick(study_of([failed(0, "boom")], objectives(1)), choice)


def test_a_preference_picks_the_best_sum() -> None:
    trials = [trial(0, (0.9, 0.1)), trial(1, (0.6, 0.6)), trial(2, (0.1, 0.9))]
    study = study_of(trials, objectives(2))
    assert pick(study, "prefer:zoo_math=1").number == 0
    assert pick(study, "prefer:zoo_math=0.7,zoo_list=.3").number == 0  # 0.66 against 0.60
    assert pick(study, "prefer:zoo_math=0.5,zoo_list=0.5").number == 1
    assert pick(study, "prefer:zoo_math=1,zoo_list=4").number == 2


def test_a_preference_knows_objectives_whose_names_have_commas() -> None:
    """One task by two filters: their names are ``TASK/METRIC,FILTER``."""
    measures = ("exact_match,strict-match", "exact_match,rouge1")
    named = make_objectives([("gsm8k", metric, "maximize") for metric in measures])
    study = study_of([trial(0, (0.9, 0.1)), trial(1, (0.1, 0.8))], named)
    one, other = (objective.name for objective in named)
    assert pick(study, f"prefer:{one}=0.3,{other}=0.7").number == 1
    assert pick(study, f"prefer:{other}=0.3,{one}=0.7").number == 0
    assert pick(study, f"prefer:{other}=1").number == 1


@pytest.mark.parametrize(
    "wrong",
    [
        *("", "other=1", "zoo_math", "zoo_math=-1", "zoo_math=0", "zoo_math=1,zoo_list", "=1"),
        *("zoo_math=1,zoo_math=2", "zoo_math=1=2", "zoo_math==1", "zoo_math=1,,zoo_list=1"),
    ],
)
def test_a_preference_needs_objectives_and_numbers(wrong: str) -> None:
    study = study_of([trial(0, (0.5, 0.5))], objectives(2))
    with pytest.raises(StudyError, match="expected"):
        pick(study, f"prefer:{wrong}")


def test_an_objective_that_counts_more_moves_the_mean() -> None:
    trials = [trial(0, (0.9, 0.1)), trial(1, (0.3, 0.6))]
    math_first, list_first = (
        [replace(o, preference=p) for o, p in zip(objectives(2), counts, strict=True)]
        for counts in ((3.0, 1.0), (1.0, 3.0))
    )
    assert pick(study_of(trials, math_first), "best:mean").number == 0
    assert pick(study_of(trials, list_first), "best:mean").number == 1
