"""Drivers that share a database, and what one of them leaves behind when it is killed."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import sys
from datetime import datetime
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from evomerge.errors import StudyError
from evomerge.evaluation.store import ItemStore
from evomerge.space.baselines import baselines
from evomerge.study.drivers import Drivers
from evomerge.study.folder import StudyFolder
from evomerge.study.identity import identify, shared_name
from evomerge.study.ledger import DRIVER, Ledger
from evomerge.study.storage import open_storage
from tests.study.fakes import FormulaExecutor
from tests.study.test_search import MODELS, OBJECTIVES, SPACE, drive, identity, outcome

N_TRIALS = 6


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'study.db'}"


class Killed(BaseException):
    """Ends a driver where a kill would: nothing after it is written."""


def killed_at_ask(folder: Path, url: str, driver: str, number: int) -> None:
    """One driver's life, which ends between the ask for a trial and its mark."""

    def mark(self: Drivers, trial: optuna.trial.FrozenTrial) -> bool:
        if trial.number == number:
            raise Killed
        return own(self, trial)

    own = Drivers.mark
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(Drivers, "mark", mark)
        drive(folder, FormulaExecutor(), trials=N_TRIALS, driver=driver, url=url)


def owners(url: str) -> list[str | None]:
    study = optuna.load_study(study_name="s", storage=open_storage(Path(), url))
    return [t.user_attrs.get(DRIVER) for t in study.trials if t.state != TrialState.WAITING]


@pytest.mark.parametrize("number", [1, 4])  # a baseline that was queued, and a trial of the search
def test_a_driver_that_was_always_alone_resumes_exactly(
    tmp_path: Path, url: str, number: int
) -> None:
    whole = drive(tmp_path / "whole", FormulaExecutor(), trials=N_TRIALS)
    killed_at_ask(tmp_path / "a", url, "a", number)
    assert owners(url)[-1] is None
    never = FormulaExecutor()
    trials = drive(tmp_path / "a", never, trials=N_TRIALS, driver="a", url=url, patience_s=1e9)
    assert outcome(trials) == outcome(whole)
    assert owners(url).count(None) == 0


def test_what_another_driver_left_without_its_mark_is_run_again(tmp_path: Path, url: str) -> None:
    drive(tmp_path / "b", FormulaExecutor(die_after=0), trials=N_TRIALS, driver="b", url=url)
    killed_at_ask(tmp_path / "a", url, "a", number := 1)
    trials = drive(tmp_path / "b", FormulaExecutor(), trials=N_TRIALS, driver="b", url=url)
    assert [t.state for t in trials] == ["complete"] * N_TRIALS
    assert owners(url)[number] == "b"
    assert [t.origin for t in trials[:4]] == ["base", "expert:a", "expert:b", "uniform"]


def test_a_driver_that_has_nothing_left_waits_until_nobodys_trial_is_somebodys(
    tmp_path: Path, url: str
) -> None:
    drive(tmp_path / "b", FormulaExecutor(die_after=0), trials=N_TRIALS, driver="b", url=url)
    killed_at_ask(tmp_path / "a", url, "a", N_TRIALS - 1)
    last = FormulaExecutor()
    trials = drive(tmp_path / "b", last, trials=N_TRIALS, driver="b", url=url, patience_s=0.05)
    assert last.ran[-1] == N_TRIALS - 1
    assert [t.state for t in trials] == ["complete"] * N_TRIALS


def test_of_two_drivers_that_take_over_one_trial_one_runs_it(url: str) -> None:
    study = optuna.create_study(storage=open_storage(Path(), url), study_name="s")
    a, b = Drivers(study, identity("a"), 0.0), Drivers(study, identity("b"), 0.0)
    trial = study.ask()
    a._claim_nobodys("a")  # both have seen it unmarked; the mark of b comes last
    study._storage.set_trial_user_attr(trial._trial_id, DRIVER, "b")
    b._claimed[trial.number] = 0.0
    assert a.abandoned() == []
    assert [t.number for t in b.abandoned()] == [trial.number]
    assert b.abandoned() == []  # once
    assert not a.mark(study.trials[0])  # whoever asked for it long ago lets it go
    assert b.mark(study.trials[0])


def test_a_trial_is_left_to_who_asked_for_it_while_patience_lasts(url: str) -> None:
    study = optuna.create_study(storage=open_storage(Path(), url), study_name="s")
    slow, other = (Drivers(study, identity(name), 1e9) for name in ("slow", "other"))
    study.ask()
    assert other.abandoned() == []
    assert other.is_waiting
    assert slow.mark(study.trials[0])
    assert other.abandoned() == []
    assert not other.is_waiting


def test_drivers_that_ask_at_the_same_moment_keep_to_the_budget(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one driver looks at what there is, the other takes it."""
    study = optuna.create_study(storage=open_storage(Path(), url), study_name="s")
    other = optuna.load_study(storage=open_storage(Path(), url), study_name="s")
    one, two = Drivers(study, identity("one")), Drivers(other, identity("two"))
    taken: list[optuna.Trial | None] = []
    look = study.get_trials

    def look_and_be_overtaken(**kwargs: bool) -> list[optuna.trial.FrozenTrial]:
        found = look(**kwargs)
        if len(taken) < 2:
            taken.append(two.ask(n_trials=3))
        return found

    monkeypatch.setattr(study, "get_trials", look_and_be_overtaken)
    taken += [one.ask(n_trials=3), one.ask(n_trials=3), two.ask(n_trials=3)]
    assert sorted(t.number for t in taken if t is not None) == [0, 1, 2]
    states = [t.state for t in look()]
    assert states[:3] == [TrialState.RUNNING] * 3
    assert set(states[3:]) <= {TrialState.WAITING}  # for a larger budget


def test_baselines_that_two_drivers_queued_at_the_same_moment_are_run_once(
    tmp_path: Path, url: str
) -> None:
    study = optuna.create_study(
        storage=open_storage(Path(), url), study_name="s", directions=["maximize"] * 2
    )
    ledger = Ledger(study, OBJECTIVES, ItemStore(tmp_path / "items"))
    for baseline in [*baselines(SPACE, MODELS), *baselines(SPACE, MODELS)]:
        ledger.queue(baseline)  # neither driver has seen the other's
    trials = drive(tmp_path / "a", FormulaExecutor(), trials=10, driver="a", url=url)
    assert [t.origin for t in trials[:4]] == ["base", "expert:a", "expert:b", "uniform"]
    assert [t.origin for t in trials[4:]] == ["search"] * 6
    assert len({tuple(t.params.values()) for t in trials}) == 10


def test_a_driver_keeps_its_identity_and_a_copy_of_its_folder_has_another(tmp_path: Path) -> None:
    (tmp_path / "st").mkdir()
    first = identify(StudyFolder(tmp_path / "st"))
    assert identify(StudyFolder(tmp_path / "st")).id == first.id
    shutil.copytree(tmp_path / "st", tmp_path / "copy")
    assert identify(StudyFolder(tmp_path / "copy")).id != first.id
    (tmp_path / "st").rename(tmp_path / "moved")
    moved = StudyFolder(tmp_path / "moved")
    assert identify(moved).id == first.id
    assert shared_name(moved) == shared_name(StudyFolder(tmp_path / "copy")) == "st"
    (tmp_path / "on another machine" / "st").mkdir(parents=True)
    assert identify(StudyFolder(tmp_path / "on another machine" / "st")).id != first.id


def test_a_driver_says_who_it_is(tmp_path: Path, url: str) -> None:
    study = optuna.create_study(storage=open_storage(Path(), url), study_name="s")
    me = identify(StudyFolder(tmp_path))
    Drivers(study, me)
    told = study.user_attrs[f"driver:{me.id}"]
    assert (told["host"], told["pid"]) == (platform.node(), os.getpid())
    assert datetime.fromisoformat(told["started"]).tzinfo is not None


@pytest.mark.parametrize(
    ("address", "package", "advice"),
    [
        ("postgresql://host/db", "psycopg", r"pip install 'psycopg\[binary\]' .*psycopg"),
        ("mysql+pymysql://host/db", "pymysql", r"talks to this kind of database; .*pymysql"),
    ],
)
def test_a_missing_package_for_a_database_is_named(
    monkeypatch: pytest.MonkeyPatch, address: str, package: str, advice: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(StudyError, match=advice):
        open_storage(Path(), address)
