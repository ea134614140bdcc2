"""Trials that climb on: what is stored of them, what they cost, and that nothing of it is lost."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from evomerge.execution.protocol import Climb, Goal
from evomerge.samplers.learned import CLIMB, CLIMBED
from evomerge.seeds import seed_for
from evomerge.study.records import TrialRecord
from evomerge.study.storage import open_storage
from evomerge.study.timing import read_timing
from tests.study.fakes import FormulaExecutor
from tests.study.test_search import SPACE, drive, outcome


class Chain(BaseSampler):
    """Goes on where the last climb that is known ended; every trial of the search climbs.

    Args:
        items: Of each of the two objectives and two steps, so a climb goes through 4 times as many.
        unlucky: Trial numbers whose climbs fail.
        bar: What the first value must reach for a climb.
    """

    def __init__(self, items: int = 10, unlucky: tuple[int, ...] = (), bar: float = -9.0) -> None:
        self._items, self._unlucky = items, unlucky
        self._goal = Goal((bar, -9.0), (1.0, 1e12), (1.0, 1e-15), 0.0)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return dict(SPACE.distributions)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, float]:
        ends = [t.user_attrs[CLIMBED] for t in study.get_trials() if CLIMBED in t.user_attrs]
        draw = np.random.default_rng(seed_for(1, trial.number, len(ends)))
        start = ends[-1]["params"] if ends else {"coefficient.a": 1.0, "coefficient.b": 1.0}
        params = {name: start[name] * draw.uniform(0.9, 1.0) for name in SPACE.distributions}
        seed = -1 if trial.number in self._unlucky else trial.number
        climb = Climb(
            params, (1.0, len(ends) + 0.5), 2, self._items, 0.1, 0.0, seed, goal=self._goal
        )
        study._storage.set_trial_user_attr(trial._trial_id, CLIMB, asdict(climb))
        return params

    def sample_independent(self, *args: object) -> float:
        raise AssertionError("all genes are proposed together")


def climbs(folder: Path, url: str | None = None) -> list[tuple[object, object]]:
    study = optuna.load_study(study_name="s", storage=open_storage(folder / "study.journal", url))
    return [(t.user_attrs.get(CLIMB), t.user_attrs.get(CLIMBED)) for t in study.trials]


def test_a_trial_goes_on_where_the_climb_of_another_one_ended(tmp_path: Path) -> None:
    trials = drive(tmp_path, FormulaExecutor(), sampler=Chain())
    stored = climbs(tmp_path)
    for trial, (asked, ended) in zip(trials, stored, strict=True):
        if trial.has_climbed:
            assert asked["params"] == trial.params
            half = {"coefficient.a": 0.4, "coefficient.b": 0.3}
            for name, value in ended["params"].items():
                assert value == pytest.approx((trial.params[name] + half[name]) / 2)
    assert sum(trial.has_climbed for trial in trials) >= 5
    assert trials[-1].values[0] > trials[4].values[0]
    assert read_timing(tmp_path / "timing.json")["slopes"] == pytest.approx(
        0.003 * sum(trial.has_climbed for trial in trials)
    )


@pytest.mark.parametrize("items", [1, 5, 7])
def test_climbs_count_against_the_budget(tmp_path: Path, items: int) -> None:
    """Two steps over two objectives are 4 times as many items, each as dear as 3 of 100."""
    trials = drive(tmp_path, FormulaExecutor(), sampler=Chain(items), trials=20)
    extra = 3 * 4 * items / 100
    assert {round(t.evaluations, 9) for t in trials} <= {1.0, round(1 + extra, 9)}
    assert all((t.evaluations > 1) == t.has_climbed for t in trials)
    total = len(trials) + extra * sum(t.has_climbed for t in trials)
    assert 19 < total <= 20  # not one more fits
    assert [t.origin for t in trials[:4]] == ["base", "expert:a", "expert:b", "uniform"]


def test_workers_that_climb_at_once_keep_to_the_budget(tmp_path: Path) -> None:
    trials = drive(tmp_path, FormulaExecutor(n_workers=3), sampler=Chain(), trials=20)
    assert 19 < sum(t.evaluations for t in trials) <= 20


def test_a_failed_climb_keeps_the_scores_with_its_reason(tmp_path: Path) -> None:
    trials = drive(tmp_path, FormulaExecutor(), sampler=Chain(unlucky=(6,)))
    assert trials[6].state == "complete"
    assert trials[6].values
    assert trials[6].climb_error == "RuntimeError: out of memory"
    assert not trials[6].has_climbed
    assert trials[6].evaluations == pytest.approx(1 + 3 * 4 * 10 / 100)  # nobody knows how far
    assert {t.climb_error for t in trials if t.number != 6} == {None}


def test_a_trial_that_got_no_farther_takes_no_climb_and_counts_as_one(tmp_path: Path) -> None:
    trials = drive(tmp_path, FormulaExecutor(), sampler=Chain(bar=0.1))
    got_there = [trial.values[0] >= 0.1 for trial in trials[4:]]
    assert True in got_there
    assert False in got_there
    assert [trial.has_climbed for trial in trials[4:-1]] == got_there[:-1]
    assert all(t.evaluations == 1 and t.climb_error is None for t in trials if not t.has_climbed)


@pytest.mark.parametrize("ending", ["fail", "prune"])
def test_a_trial_that_was_not_scored_has_not_climbed(tmp_path: Path, ending: str) -> None:
    executor = FormulaExecutor(**{ending: frozenset({6})})
    trials = drive(tmp_path, executor, sampler=Chain())
    assert trials[6].state != "complete"
    assert trials[6].evaluations == 1
    assert not trials[6].has_climbed


class EarlierChain(Chain):
    """Stores climbs as studies of earlier versions hold them."""

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, float]:
        params = super().sample_relative(study, trial, search_space)
        climb = dict(study.get_trials()[trial.number].user_attrs[CLIMB])
        climb["weights"] = climb.pop("voices")
        study._storage.set_trial_user_attr(trial._trial_id, CLIMB, climb)
        return params


def test_climbs_that_an_earlier_version_asked_for_are_taken(tmp_path: Path) -> None:
    new = drive(tmp_path / "new", FormulaExecutor(), sampler=Chain())
    old = drive(tmp_path / "old", FormulaExecutor(), sampler=EarlierChain())
    assert any(trial.has_climbed for trial in old)
    assert outcome(old) == outcome(new)


@pytest.mark.parametrize("kill_at", [4, 6])
@pytest.mark.parametrize("database", [False, True])
def test_killed_and_resumed_equals_uninterrupted(
    tmp_path: Path, kill_at: int, database: bool
) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}" if database else None
    whole = drive(tmp_path / "whole", FormulaExecutor(), sampler=Chain(), trials=11)
    run = partial(drive, tmp_path / "parts", sampler=Chain(), trials=11, url=url)
    run(FormulaExecutor(die_after=kill_at))
    resumed = run(FormulaExecutor())
    assert outcome(resumed) == outcome(whole)
    assert climbs(tmp_path / "parts", url) == climbs(tmp_path / "whole")


def test_a_trial_that_is_run_again_keeps_its_climb(tmp_path: Path) -> None:
    """Meanwhile other climbs have ended, so that the sampler would say something else of it."""
    drive(tmp_path, FormulaExecutor(die_after=4), sampler=Chain())
    drive(tmp_path, FormulaExecutor(n_workers=2, die_after=2), sampler=Chain())
    before = climbs(tmp_path)
    ended = [climbed is not None for _, climbed in before[4:]]
    assert ended == [False, True, True, False]  # last job first
    drive(tmp_path, FormulaExecutor(), sampler=Chain())
    after = climbs(tmp_path)[: len(before)]
    assert [asked for asked, _ in after] == [asked for asked, _ in before]
    assert after[4][1] is not None


def test_drivers_that_share_a_store_keep_to_one_budget(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    run = partial(drive, url=url, sampler=Chain(), trials=12)
    run(tmp_path / "a", FormulaExecutor(die_after=4), driver="a")
    run(tmp_path / "b", FormulaExecutor(), driver="b")
    trials: tuple[TrialRecord, ...] = run(tmp_path / "a", FormulaExecutor(), driver="a")
    assert all(t.state == "complete" for t in trials)
    assert 11 < sum(t.evaluations for t in trials) <= 12
