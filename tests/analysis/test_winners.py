"""Who goes to the finals."""

from __future__ import annotations

from dataclasses import replace

from evomerge.analysis.winners import finalists
from tests.analysis.synthetic import objectives, study_of, trial


def test_the_best_of_every_pull_goes_to_the_finals() -> None:
    """The weakest prior fits the search items best; its trials alone would fill the finals."""
    values = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    pulls = [0.0, 0.0, 0.0, 0.5, 2.0, 2.0]
    trials = [
        replace(trial(number, [value]), pull=pull)
        for number, (value, pull) in enumerate(zip(values, pulls, strict=True))
    ]
    best, beside = finalists(study_of(trials, objectives(1)), 4)
    assert [t.number for t in best] == [0, 3, 4, 1]
    assert beside == []
    alike = [replace(t, pull=0.5) for t in trials]
    best, beside = finalists(study_of(alike, objectives(1)), 4)
    assert [t.number for t in (*best, *beside)] == [0, 1, 2, 3]


def test_with_one_objective_the_top_few_go_to_the_finals() -> None:
    """The best on the search items is the luckiest; validation must have others to choose from."""
    values = [0.3, 0.9, 0.5, 0.8, 0.7]
    trials = [trial(number, [value]) for number, value in enumerate(values)]
    best, beside = finalists(study_of(trials, objectives(1)), 3)
    assert [t.number for t in best] == [1, 3, 4]
    assert beside == []
    two = [trial(number, [value, value]) for number, value in enumerate(values)]
    best, beside = finalists(study_of(two, objectives(2)), 3)
    assert [t.number for t in best] == [1]
    assert [t.number for t in beside] == [3, 4]
