from __future__ import annotations

import math
from pathlib import Path

import pytest
from scipy.stats import binomtest

from evomerge.analysis.front import front
from evomerge.analysis.picking import pick
from evomerge.analysis.report.trials import candidates, trial_views
from evomerge.evaluation.scores import ItemScore
from evomerge.evaluation.store import ItemStore
from evomerge.origins import is_single_model

from ..synthetic import make_study, objectives, study_of, trial


def test_what_people_ask_for_comes_first() -> None:
    study = make_study(2, n_trials=30, layers=2)
    views = list(trial_views(study))
    assert len(views) == sum(bool(t.values) for t in study.trials)
    assert views[0].is_chosen
    members = {t.number for t in front(study)} - {views[0].number}
    assert {view.number for view in views[1 : 1 + len(members)]} == members
    finals = {f.number for f in study.finals} - members - {views[0].number}
    after = views[1 + len(members) :]
    assert {view.number for view in after[: len(finals)]} == finals


def test_a_view_has_every_split_ranks_and_the_command() -> None:
    trials = [trial(0, (0.2, 9.0), origin="base"), trial(1, (0.5, 4.0)), trial(2, (0.6, 5.0))]
    mixed = (objectives(2)[0], objectives(2, "minimize")[1])
    view = next(v for v in trial_views(study_of(trials, mixed), folder="my runs") if v.number == 1)
    assert view.command == "evomerge export 'my runs' --pick trial:1 --out OUT"
    assert [line.rank for line in view.lines] == [2, 1]
    assert view.splits == ("search",)
    assert view.place == (
        "Trial 1: on the front, its knee; rank 2 of 3 by zoo_math on the search items."
    )
    assert view.recipe is None
    finalist = next(trial_views(make_study(2, n_trials=30, layers=2)))
    assert finalist.splits == ("search", "validation", "test")
    assert "chosen on the validation items" in finalist.place


def test_shares_of_items_have_wilsons_interval(tmp_path: Path) -> None:
    store = ItemStore(tmp_path)
    store.write(0, "search", [ItemScore("zoo_math", i, "exact_match", i < 7) for i in range(20)])
    study = study_of([trial(0, (0.35,), stderr=0.1), trial(1, (0.35,), stderr=0.1)], objectives(1))
    views = {view.number: view for view in trial_views(study, store.read())}
    (score,) = views[0].lines[0].scores
    expected = binomtest(7, 20).proportion_ci(method="wilson")
    assert (score.low, score.high) == pytest.approx((expected.low, expected.high))
    (other,) = views[1].lines[0].scores  # no items: from the standard error
    assert (other.low, other.high) == pytest.approx(
        (0.35 - 1.96 * 0.1, 0.35 + 1.96 * 0.1), abs=1e-4
    )


def test_equal_weights_prefer_what_the_best_mean_is() -> None:
    study = make_study(3, n_trials=40, layers=2)
    found = candidates(study)
    assert found[0].number == pick(study, "best:mean").number
    best = max(found, key=lambda one: one.merits[1])
    assert best.number == pick(study, "best:zoo_list").number
    assert {c.number for c in found} == {
        t.number for t in front(study) if not is_single_model(t.origin)
    }


def test_objectives_of_other_units_are_scaled_and_turned() -> None:
    mixed = (objectives(2)[0], objectives(2, "minimize")[1])
    trials = [trial(0, (0.2, 100.0)), trial(1, (0.6, 500.0))]
    found = {one.number: one.merits for one in candidates(study_of(trials, mixed))}
    assert found[1][0] - found[0][0] == pytest.approx(1)
    assert found[1][1] - found[0][1] == pytest.approx(-1)
    assert not any(math.isnan(merit) for merits in found.values() for merit in merits)
