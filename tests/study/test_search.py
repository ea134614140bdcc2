from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import optuna
import pytest
from optuna.samplers import BaseSampler

from evomerge.errors import StudyError
from evomerge.evaluation.racing import RaceRules
from evomerge.evaluation.store import ItemStore
from evomerge.execution.protocol import Executor, Outcome
from evomerge.runs.parts import build_space
from evomerge.samplers import GeneSpace, SearchProblem, build_sampler, sampler_names
from evomerge.space.baselines import baselines
from evomerge.space.protocol import ModelSet
from evomerge.study.constraints import Constraint, parse_bound, unenforced
from evomerge.study.drivers import Drivers
from evomerge.study.folder import StudyFolder
from evomerge.study.identity import Identity
from evomerge.study.ledger import Ledger
from evomerge.study.log import StudyLog
from evomerge.study.records import TrialRecord, make_objectives
from evomerge.study.rivals import Rivals
from evomerge.study.search import Budget, Host, Search
from evomerge.study.storage import open_storage, repair_journal
from evomerge.study.timing import Timing, read_timing
from tests.study.fakes import FormulaExecutor

MODELS = ModelSet("base", {"a": "a", "b": "b"}, n_layers=2)
SPACE = build_space(
    {"method": "task_arithmetic", "genes": {"coefficient": {"range": [0, 1]}}}, MODELS
)
LIMITS = (
    Constraint("one", "acc", "at_least", parse_bound("base"), "base"),
    Constraint("two", "acc", "at_most", parse_bound("expert:b - 0.1"), "expert:b - 0.1"),
)
OBJECTIVES = make_objectives([("one", "acc", "maximize"), ("two", "acc", "maximize")])


class Crash(BaseException):
    """Ends a driver as a signal would: nothing of it is written after."""


class CrashingExecutor(FormulaExecutor):
    """Ends its driver whenever it runs trial 2."""

    def next_outcome(self) -> Outcome:
        outcome = super().next_outcome()
        if outcome.job.trial == 2:
            raise Crash
        return outcome


def identity(name: str) -> Identity:
    return Identity(name, study="s", folder=1, host="here", pid=1, started="now")


def drive(
    root: Path,
    executor: Executor,
    *,
    trials: int = 20,
    sampler: str | BaseSampler = "nsga2",
    options: Mapping[str, object] = {},
    driver: str | None = None,
    url: str | None = None,
    patience_s: float = 0.0,
    constraints: tuple[Constraint, ...] = (),
    race: RaceRules | None = None,
    runs_here: bool = False,
    is_stopping: Callable[[], bool] = lambda: False,
) -> tuple[TrialRecord, ...]:
    """One driver's life: open the study, search, perhaps be interrupted."""
    folder = StudyFolder(root)
    root.mkdir(exist_ok=True)
    repair_journal(folder.journal)
    study = optuna.create_study(
        storage=open_storage(folder.journal, url),
        study_name="s",
        directions=["maximize", "maximize"],
        sampler=sampler
        if isinstance(sampler, BaseSampler)
        else build_sampler(
            sampler,
            options,
            SearchProblem(
                space=GeneSpace(SPACE.distributions, SPACE.defaults),
                n_objectives=2,
                n_trials=trials,
                seed=1,
                constrained=bool(constraints),
                sloped=frozenset(SPACE.distributions),
                sloped_objectives=(True, True),
            ),
        ),
        load_if_exists=True,
    )
    ledger = Ledger(study, OBJECTIVES, ItemStore(folder.items), constraints)
    search = Search(
        ledger,
        SPACE,
        executor,
        budget=Budget(trials, n_items=100),
        timing=Timing(folder.timing),
        drivers=Drivers(study, driver and identity(driver), patience_s),
        rivals=None if race is None else Rivals(OBJECTIVES, race, seed=1),
        host=Host(StudyLog(folder.log), is_stopping, runs_here),
    )
    search.seed(baselines(SPACE, MODELS))
    with contextlib.suppress(KeyboardInterrupt):
        search.run()
    return ledger.records()


def outcome(trials: tuple[TrialRecord, ...]) -> list[object]:
    return [(t.number, t.state, t.origin, t.values, dict(t.params)) for t in trials]


def test_baselines_come_first_and_the_budget_is_met(tmp_path: Path) -> None:
    trials = drive(tmp_path, FormulaExecutor())
    assert [t.origin for t in trials[:5]] == ["base", "expert:a", "expert:b", "uniform", "search"]
    assert len(trials) == 20
    assert all(t.state == "complete" and t.recipe and t.stderr == (0.01, 0.02) for t in trials)
    assert {t.device for t in trials} == {"cpu"}
    assert set(ItemStore(tmp_path / "items").read()["trial"]) == set(range(20))


@pytest.mark.parametrize("sampler", sorted(sampler_names().keys() - {"auto", "gp"}))  # gp: slow
@pytest.mark.parametrize("kill_at", [0, 2, 7, 19])
def test_killed_and_resumed_equals_uninterrupted(
    tmp_path: Path, sampler: str, kill_at: int
) -> None:
    whole = drive(tmp_path / "whole", FormulaExecutor(), sampler=sampler)
    drive(tmp_path / "parts", FormulaExecutor(die_after=kill_at), sampler=sampler)
    resumed = drive(tmp_path / "parts", FormulaExecutor(), sampler=sampler)
    assert outcome(resumed) == outcome(whole)


def test_several_interruptions_with_several_workers_lose_and_repeat_nothing(tmp_path: Path) -> None:
    runs = [FormulaExecutor(n_workers=3, die_after=n) for n in (4, 5, 3)]
    runs.append(FormulaExecutor(n_workers=3))
    for executor in runs:
        trials = drive(tmp_path, executor)
    assert len(trials) == 20
    ran = [number for executor in runs for number in executor.ran]
    assert sorted(ran) == list(range(20))


def test_a_study_may_be_moved_between_drivers(tmp_path: Path) -> None:
    drive(tmp_path / "here", FormulaExecutor(n_workers=2, die_after=6))
    (tmp_path / "here").rename(tmp_path / "there")
    trials = drive(tmp_path / "there", FormulaExecutor())
    assert [t.state for t in trials] == ["complete"] * 20


def test_drivers_that_share_a_store_leave_each_others_trials_alone(tmp_path: Path) -> None:
    drive(tmp_path, FormulaExecutor(n_workers=2, die_after=6), driver="a")
    other = FormulaExecutor()
    trials = drive(tmp_path, other, driver="b")
    assert [t.state for t in trials].count("running") == 2
    trials = drive(tmp_path, FormulaExecutor(), driver="a")
    assert [t.state for t in trials] == ["complete"] * 20


def test_a_finished_study_does_nothing(tmp_path: Path) -> None:
    drive(tmp_path, FormulaExecutor())
    again = FormulaExecutor()
    drive(tmp_path, again)
    assert again.ran == []


def test_a_larger_budget_continues(tmp_path: Path) -> None:
    first = drive(tmp_path, FormulaExecutor(), trials=8)
    more = drive(tmp_path, FormulaExecutor(), trials=12)
    assert len(more) == 12
    assert outcome(more)[:8] == outcome(first)


@pytest.mark.parametrize("sampler", ["random", "tpe", "gp", "nsga2", "pycma"])
def test_a_pruned_trial_counts_and_every_sampler_goes_on(tmp_path: Path, sampler: str) -> None:
    executor = FormulaExecutor(prune=frozenset({1, 4, 5, 9}))  # trial 1 is a baseline: not gated
    trials = drive(tmp_path, executor, sampler=sampler, trials=16)
    pruned = [t for t in trials if t.state == "pruned"]
    assert [t.number for t in pruned] == [4, 5, 9]
    assert all(t.error == "asked to give up" and t.values == () for t in pruned)
    assert [t.state for t in trials].count("complete") == 13
    assert pruned[0].seconds["evaluate"] == 0.001


def test_a_failed_trial_is_kept_with_its_reason_and_the_run_goes_on(tmp_path: Path) -> None:
    trials = drive(tmp_path, FormulaExecutor(fail=frozenset({3, 9})))
    failed = [t for t in trials if t.state == "failed"]
    assert [t.number for t in failed] == [3, 9]
    assert failed[0].error == "ValueError: asked to fail"
    assert failed[0].values == ()
    assert len(trials) == 20


def test_a_run_whose_trials_all_fail_stops_early_and_says_why(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"all of the first 10 trials failed.*asked to fail"):
        drive(tmp_path, FormulaExecutor(fail=frozenset(range(100))))


def test_a_torn_journal_line_is_repaired(tmp_path: Path) -> None:
    drive(tmp_path, FormulaExecutor(die_after=6))
    journal = tmp_path / "study.journal"
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-7])
    (tmp_path / "study.journal.lock").touch()
    trials = drive(tmp_path, FormulaExecutor())
    assert len(trials) == 20
    assert all(t.state == "complete" for t in trials)


def test_timing_adds_up_over_drivers(tmp_path: Path) -> None:
    drive(tmp_path, FormulaExecutor(die_after=10))
    drive(tmp_path, FormulaExecutor())
    seconds = read_timing(tmp_path / "timing.json")
    assert seconds["evaluate"] == pytest.approx(20 * 0.002)
    assert seconds["ask"] > 0
    assert seconds["elapsed"] > 0


def test_every_trial_is_held_to_the_constraints(tmp_path: Path) -> None:
    trials = drive(tmp_path, FormulaExecutor(), constraints=LIMITS)
    values = {t.origin: t.values for t in trials}
    for t in trials:
        is_within = (
            t.values[0] >= values["base"][0] and t.values[1] <= values["expert:b"][1] - 0.1 + 1e-12
        )
        assert t.is_feasible == is_within
    assert 0 < sum(t.is_feasible for t in trials) < 20


def test_samplers_are_told_the_constraints_as_known_at_the_time(tmp_path: Path) -> None:
    """Results of several workers arrive last job first, so the base comes late."""
    drive(tmp_path, FormulaExecutor(n_workers=8), constraints=LIMITS)
    study = optuna.load_study(study_name="s", storage=open_storage(tmp_path / "study.journal"))
    early = study.trials[7]
    records = Ledger(study, OBJECTIVES, ItemStore(tmp_path / "items"), LIMITS).records()
    assert early.user_attrs["constraints"] == [0.0, 0.0]  # told before any baseline
    assert records[7].violations != (0.0, 0.0)  # held to the bounds all the same


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("stderr", [0.1]), ("stderr", [{}, 0.1]), ("stderr", 3), ("n_items", ["x"]), ("recipe", [1])],
)
def test_a_trial_that_was_not_stored_so_is_named(
    tmp_path: Path, attribute: str, value: object
) -> None:
    drive(tmp_path, FormulaExecutor(), trials=5)
    study = optuna.load_study(study_name="s", storage=open_storage(tmp_path / "study.journal"))
    assert attribute in study.trials[2].user_attrs
    trial = study.trials[2]
    trial.user_attrs[attribute] = value
    ledger = Ledger(study, OBJECTIVES, ItemStore(tmp_path / "items"))
    ledger.trials = lambda: [trial]  # type: ignore[method-assign]
    with pytest.raises(StudyError, match=r"what is stored of trial 2 is damaged: .*; restore"):
        ledger.records()


def test_a_failed_baseline_that_constraints_refer_to_is_scored_again(tmp_path: Path) -> None:
    trials = drive(tmp_path, FormulaExecutor(fail=frozenset({0, 1, 2})), constraints=LIMITS)
    origins = [t.origin for t in trials]
    assert origins.count("base") == origins.count("expert:b") == 2
    assert origins.count("expert:a") == 1  # nothing refers to it
    values = {t.origin: t.values for t in trials if t.values}
    assert len(trials) == 20
    for t in trials[3:]:
        is_within = (
            t.values[0] >= values["base"][0] and t.values[1] <= values["expert:b"][1] - 0.1 + 1e-12
        )
        assert t.is_feasible == is_within


def test_a_run_whose_constraint_has_no_baseline_ends_and_resuming_tries_again(
    tmp_path: Path,
) -> None:
    failing = FormulaExecutor(fail=frozenset({0, 4}))
    with pytest.raises(StudyError) as error:
        drive(tmp_path, failing, constraints=LIMITS)
    (line,) = str(error.value).splitlines()
    assert "one acc at least base (base was not scored; trial 4: ValueError: asked to fail)" in line
    trials = drive(tmp_path, FormulaExecutor(), constraints=LIMITS)
    assert [t.state for t in trials if t.origin == "base"] == ["failed", "failed", "complete"]
    assert len(trials) == 20
    assert not unenforced(LIMITS, trials, 20)


def test_a_budget_that_ends_without_a_baseline_is_no_success(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"got none for .*with a larger budget if none is left"):
        drive(tmp_path, FormulaExecutor(fail=frozenset({2})), constraints=LIMITS, trials=4)
    trials = drive(tmp_path, FormulaExecutor(), constraints=LIMITS, trials=5)
    assert [t.state for t in trials if t.origin == "expert:b"] == ["failed", "complete"]


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_killed_and_resumed_equals_uninterrupted_with_constraints(
    tmp_path: Path, sampler: str
) -> None:
    whole = drive(tmp_path / "whole", FormulaExecutor(), sampler=sampler, constraints=LIMITS)
    drive(tmp_path / "parts", FormulaExecutor(die_after=9), sampler=sampler, constraints=LIMITS)
    resumed = drive(tmp_path / "parts", FormulaExecutor(), sampler=sampler, constraints=LIMITS)
    assert outcome(resumed) == outcome(whole)
    assert [t.violations for t in resumed] == [t.violations for t in whole]


def test_a_trial_that_ends_its_process_three_times_has_failed(tmp_path: Path) -> None:
    ran = []
    for _ in range(5):
        executor = CrashingExecutor()
        with contextlib.suppress(Crash):
            trials = drive(tmp_path, executor, trials=6, runs_here=True)
        ran.append(executor.ran)
    assert ran == [[0, 1, 2], [2], [2], [3, 4, 5], []]
    assert [t.state for t in trials] == [*(["complete"] * 2), "failed", *(["complete"] * 3)]
    assert trials[2].error is not None
    assert "ended the process that ran it 3 times" in trials[2].error


def test_a_trial_that_is_interrupted_is_started_as_often_as_need_be(tmp_path: Path) -> None:
    for _ in range(5):
        drive(tmp_path, FormulaExecutor(die_after=0), trials=6, runs_here=True)
    trials = drive(tmp_path, FormulaExecutor(), trials=6, runs_here=True)
    assert [t.state for t in trials] == ["complete"] * 6


def test_a_search_that_is_to_stop_finishes_what_runs(tmp_path: Path) -> None:
    executor = FormulaExecutor(n_workers=3)
    trials = drive(tmp_path, executor, is_stopping=lambda: len(executor.ran) >= 4)
    assert sorted(executor.ran) == list(range(6))
    assert [t.state for t in trials] == ["complete"] * 6 + ["running"] * (len(trials) - 6)
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [one["trial"] for one in events if one["event"] == "asked"] == list(range(6))
    assert [one["event"] for one in events if one.get("trial") == 0] == ["asked", "scored", "told"]
    scored = next(one for one in events if one["event"] == "scored")
    assert scored["seconds"] == {"merge": 0.001, "evaluate": 0.002}
    assert events[-1]["event"] == "stopped"
