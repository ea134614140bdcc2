from __future__ import annotations

import dataclasses

import pytest

from evomerge.analysis.report.trials import trial_views
from evomerge.analysis.report.words import headline, verdict
from evomerge.study.records import FinalRecord

from ..synthetic import failed, objectives, study_of, trial

TRIALS = (
    trial(0, (0.1, 0.1), origin="base"),
    trial(1, (0.9, 0.2), origin="expert:a"),
    trial(2, (0.58, 0.58), origin="uniform"),
    trial(3, (0.75, 0.75)),
)


def final(number: int, origin: str, value: float, *, chosen: bool = False) -> FinalRecord:
    return FinalRecord(number, origin, "test", (value, value), (0.0283, 0.0283), chosen)


def test_headline_quotes_the_test_split_with_the_rivals() -> None:
    finals = [
        final(1, "expert:a", 0.55),
        final(2, "uniform", 0.58),
        final(3, "search", 0.71, chosen=True),
    ]
    study = study_of(TRIALS, objectives(2), finals=finals)
    assert headline(study) == (
        "Best merge reaches mean 0.71 ± 0.02 on the test split; "
        "best expert 0.55 ± 0.02, uniform average 0.58 ± 0.02."
    )
    assert verdict(study) == (
        "That is 0.13 ± 0.03 better than the best baseline (uniform average), "
        "a clear difference, more than two standard errors."
    )


def test_a_small_lead_is_not_called_clear() -> None:
    finals = [final(2, "uniform", 0.70), final(3, "search", 0.71, chosen=True)]
    said = verdict(study_of(TRIALS, objectives(2), finals=finals))
    assert said.startswith("No merge is better than the uniform average beyond noise on the test")


@pytest.mark.parametrize(
    ("number", "origin", "who"),
    [(1, "expert:a", "expert a"), (2, "uniform", "the uniform average")],
)
def test_a_baseline_that_was_chosen_is_not_called_a_merge(
    number: int, origin: str, who: str
) -> None:
    finals = [final(number, origin, 0.71, chosen=True), final(3, "search", 0.64)]
    study = study_of(TRIALS, objectives(2), finals=finals)
    assert headline(study) == (
        f"No merge beats {who}, which reaches mean 0.71 ± 0.02 on the test split; "
        "best merge 0.64 ± 0.02."
    )
    assert verdict(study).startswith(
        f"No merge is better than {who} on the validation items, so it is chosen; "
    )


def test_an_ensemble_is_called_one_and_what_may_be_either_neither() -> None:
    together = {"experts": {"a": "zoo:a"}, "ensemble": {"by": "logits", "weights": {"a": 1}}}
    finals = [final(2, "uniform", 0.70), final(3, "search", 0.71, chosen=True)]
    found = (*TRIALS[:3], trial(3, (0.75, 0.75), recipe=together))
    study = study_of(found, objectives(2), finals=finals)
    assert headline(study).startswith("Best ensemble reaches mean 0.71")
    assert "No ensemble is better than the uniform average beyond noise" in verdict(study)
    assert "ensemble 3 reaches mean 0.71" in verdict(study)
    assert next(view.label for view in trial_views(study)) == "ensemble 3"
    seeded = (*found, trial(4, (0.2, 0.2), origin="recipe:mine"))
    assert headline(study_of(seeded, objectives(2), finals=finals)).startswith("Best candidate")


def test_before_the_end_the_search_split_is_quoted_with_a_warning() -> None:
    study = study_of(TRIALS, objectives(2))
    assert headline(study).startswith("Best merge reaches mean 0.75 ± 0.01 on the search split")
    assert "biased upward" in verdict(study)


def test_an_unbeaten_expert_is_called_so() -> None:
    study = study_of([TRIALS[0], trial(1, (0.9, 0.9), origin="expert:a")], objectives(2))
    assert headline(study).startswith("No merge beats expert a, which reaches mean 0.90 ± 0.01")


def test_mixed_directions_have_no_mean() -> None:
    mixed = (objectives(2)[0], objectives(2, "minimize")[1])
    text = headline(study_of([trial(0, (0.5, 12.0))], mixed))
    assert text == (
        "Best merge reaches zoo_math 0.50 ± 0.02 and zoo_list 12.00 ± 0.02 on the search split."
    )


def test_smaller_is_better_when_minimized() -> None:
    study = study_of([trial(0, (9.0,), origin="base"), trial(1, (4.0,))], objectives(1, "minimize"))
    assert "5.00 ± 0.03 better than the best baseline (base)" in verdict(study)


def test_no_complete_trial() -> None:
    study = study_of([failed(0, "boom")], objectives(2))
    assert headline(study) == "No trial has finished yet."
    assert verdict(study) == ""
    assert headline(dataclasses.replace(study, trials=())) == "No trial has finished yet."
