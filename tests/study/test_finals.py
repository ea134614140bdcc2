"""The finals: merges and baselines compete on validation, held to the constraints there."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from evomerge.evaluation.scores import MetricValue
from evomerge.evaluation.store import ItemStore
from evomerge.execution.protocol import Outcome, Scored
from evomerge.study.constraints import Constraint, finals_note, parse_bound
from evomerge.study.finals import Finals, run_finals
from evomerge.study.finals_file import read_finals, write_finals
from evomerge.study.records import FinalRecord, TrialRecord
from tests.study.fakes import FormulaExecutor
from tests.study.test_search import OBJECTIVES, drive


class HeldOut(FormulaExecutor):
    """Held-out items on which task ``two`` is harder for some trials."""

    def __init__(self, harder: frozenset[int], fail: frozenset[int] = frozenset()) -> None:
        super().__init__(fail=fail)
        self._harder = harder

    def next_outcome(self) -> Outcome:
        outcome = super().next_outcome()
        if isinstance(outcome, Scored) and outcome.job.trial in self._harder:
            two = {"acc": MetricValue(0.0, 0.02, 100)}
            scores = replace(outcome.scores, metrics={**outcome.scores.metrics, "two": two})
            return replace(outcome, scores=scores)
        return outcome


LIMIT = (Constraint("two", "acc", "at_least", parse_bound("base - 0.2"), "base - 0.2"),)


@pytest.fixture
def trials(tmp_path: Path) -> tuple[TrialRecord, ...]:
    return drive(tmp_path / "study", FormulaExecutor(), constraints=LIMIT)


def finals(
    trials: tuple[TrialRecord, ...], folder: Path, executor: FormulaExecutor
) -> tuple[FinalRecord, ...]:
    merges = [t for t in trials if t.origin == "search"]
    feasible = sorted((t for t in merges if t.is_feasible), key=lambda t: -sum(t.values))[:3]
    found = run_finals(feasible, trials[:4], OBJECTIVES, executor, ItemStore(folder), LIMIT)
    return found.records


def chosen(records: tuple[FinalRecord, ...]) -> FinalRecord:
    (found,) = [r for r in records if r.chosen and r.split == "validation"]
    return found


def test_the_best_finalist_that_keeps_the_constraints_on_validation_is_chosen(
    trials: tuple[TrialRecord, ...], tmp_path: Path
) -> None:
    first = chosen(finals(trials, tmp_path, HeldOut(frozenset())))
    records = finals(trials, tmp_path, HeldOut(frozenset({first.number})))
    second = chosen(records)
    assert second.number != first.number
    assert second.is_feasible
    assert not next(r for r in records if r.number == first.number).is_feasible
    write_finals(tmp_path / "finals.json", Finals(records), ["two acc at least base - 0.2"])
    assert json.loads((tmp_path / "finals.json").read_text())["note"] is None
    assert read_finals(tmp_path / "finals.json") == Finals(records)


def best_merge(records: tuple[FinalRecord, ...]) -> FinalRecord:
    (found,) = [r for r in records if r.origin == "search" and r.split == "test"]
    return found


@pytest.mark.parametrize("rank", [0, -1])
def test_what_is_chosen_is_no_worse_on_validation_than_any_baseline(
    trials: tuple[TrialRecord, ...], tmp_path: Path, rank: int
) -> None:
    merges = sorted((t for t in trials if t.origin == "search"), key=lambda t: sum(t.values))
    run = FormulaExecutor(), ItemStore(tmp_path)
    records = run_finals([merges[rank]], trials[:4], OBJECTIVES, *run).records
    rated = {r.number: sum(r.values) for r in records if r.split == "validation"}
    assert rated[chosen(records).number] == max(rated.values())
    assert (chosen(records).origin == "search") == (rank == -1)
    # The merge is reported also where a baseline wins: what would it have been?
    assert best_merge(records).number == merges[rank].number
    assert [r.number for r in records if r.split == "test" and r.chosen] == [chosen(records).number]


def test_without_a_merge_the_best_baseline_is_chosen(
    trials: tuple[TrialRecord, ...], tmp_path: Path
) -> None:
    run = FormulaExecutor(), ItemStore(tmp_path)
    records = run_finals([], trials[:4], OBJECTIVES, *run).records
    assert chosen(records).origin == "uniform"
    assert len(records) == 8


def test_a_reserve_is_chosen_only_where_every_finalist_violates_a_constraint(
    trials: tuple[TrialRecord, ...], tmp_path: Path
) -> None:
    merges = [t for t in trials if t.origin == "search" and t.is_feasible]
    worst, *others = sorted(merges, key=lambda t: sum(t.values))

    def winner(harder: frozenset[int]) -> int:
        run = HeldOut(harder), ItemStore(tmp_path), LIMIT
        return best_merge(
            run_finals([worst], trials[:4], OBJECTIVES, *run, reserves=others).records
        ).number

    assert winner(frozenset()) == worst.number
    assert winner(frozenset({worst.number})) == others[-1].number


def test_bounds_are_the_baselines_scores_on_the_same_items(
    trials: tuple[TrialRecord, ...], tmp_path: Path
) -> None:
    """Everything scores 0 there, the base too: nothing is worse than the base minus 0.2."""
    records = finals(trials, tmp_path, HeldOut(frozenset(range(20))))
    assert all(r.is_feasible for r in records)


def test_where_no_finalist_keeps_the_constraints_a_baseline_that_does_is_chosen_and_it_is_said(
    trials: tuple[TrialRecord, ...], tmp_path: Path
) -> None:
    merges = frozenset(t.number for t in trials if t.origin == "search")
    records = finals(trials, tmp_path, HeldOut(merges))
    assert chosen(records).origin == "uniform"
    assert chosen(records).is_feasible
    names = ["two acc at least base - 0.2"]
    write_finals(tmp_path / "finals.json", Finals(records), names)
    note = json.loads((tmp_path / "finals.json").read_text())["note"]
    assert note == finals_note(records, names)
    assert note is not None
    assert f"trial {best_merge(records).number} violates them least ({names[0]})" in note


def test_where_nothing_keeps_the_constraints_the_least_violating_is_chosen(
    trials: tuple[TrialRecord, ...], tmp_path: Path
) -> None:
    limit = (Constraint("two", "acc", "at_least", parse_bound("1.1"), "1.1"),)
    run = FormulaExecutor(), ItemStore(tmp_path), limit
    records = run_finals(trials[4:], trials[:4], OBJECTIVES, *run).records
    violations = {r.number: r.violation for r in records if r.split == "validation"}
    assert chosen(records).violation == min(violations.values()) > 0


def test_finals_of_earlier_versions_are_read(
    trials: tuple[TrialRecord, ...], tmp_path: Path
) -> None:
    records = finals(trials, tmp_path, HeldOut(frozenset()))
    rows = [{k: v for k, v in vars(r).items() if k != "violations"} for r in records]
    (tmp_path / "finals.json").write_text(json.dumps({"schema_version": 1, "records": rows}))
    found = read_finals(tmp_path / "finals.json")
    assert [r.values for r in found.records] == [r.values for r in records]


def test_every_model_that_is_scored_is_counted(
    trials: tuple[TrialRecord, ...], tmp_path: Path
) -> None:
    counted: list[tuple[int, int]] = []
    run = HeldOut(frozenset()), ItemStore(tmp_path)

    def count(done: int, total: int) -> None:
        counted.append((done, total))

    run_finals(trials[5:7], trials[:4], OBJECTIVES, *run, on_scored=count)
    assert counted == [(n, 11) for n in range(1, 12)]  # 2 + 4 on validation, 1 + 4 on test


class NoNumber(FormulaExecutor):
    """Held-out items on which task ``one`` has no number for one trial."""

    def __init__(self, of: int, metrics: dict[str, MetricValue]) -> None:
        super().__init__()
        self._of, self._metrics = of, metrics

    def next_outcome(self) -> Outcome:
        outcome = super().next_outcome()
        if isinstance(outcome, Scored) and outcome.job.trial == self._of:
            metrics = {**outcome.scores.metrics, "one": self._metrics}
            return replace(outcome, scores=replace(outcome.scores, metrics=metrics))
        return outcome


@pytest.mark.parametrize("metrics", [{}, {"acc": MetricValue(math.nan, 0.01, 100)}])
def test_a_finalist_without_a_number_is_left_out_and_cannot_win(
    trials: tuple[TrialRecord, ...],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    metrics: dict[str, MetricValue],
) -> None:
    first = chosen(finals(trials, tmp_path, FormulaExecutor()))
    records = finals(trials, tmp_path, NoNumber(first.number, metrics))
    assert first.number not in {r.number for r in records}
    assert chosen(records).number != first.number
    assert f"trial {first.number} could not be scored on validation" in caplog.text
