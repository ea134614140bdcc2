"""Constraints and costs in what is shown and chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from evomerge.analysis.front import front, hypervolume
from evomerge.analysis.picking import knee, pick
from evomerge.analysis.report import write_report
from evomerge.analysis.report.scores import measures
from evomerge.analysis.report.tables import final_rows, front_rows
from evomerge.analysis.report.words import verdict
from evomerge.analysis.status import study_status
from evomerge.study.records import Objective, StudyRecord, TrialRecord, has_mean, merits
from evomerge.study.timing import PHASES

from .synthetic import make_study, objectives, study_of, trial

SCORE = Objective("zoo_math", "exact_match", "maximize", "zoo_math")
SIZE = Objective("cost", "parameters", "minimize", "parameters")
HOPS = Objective("cost", "hops", "minimize", "hops")


def limited(number: int, values: Sequence[float], violation: float) -> TrialRecord:
    return replace(trial(number, values), violations=(violation, -1.0))


def with_limits(trials: Sequence[TrialRecord], of: Sequence[Objective]) -> StudyRecord:
    limits = ("zoo_math exact_match at least base", "hops at most 4")
    return replace(study_of(trials, of), constraints=limits)


def test_infeasible_trials_are_neither_on_the_front_nor_picked() -> None:
    base = replace(trial(0, [0.1, 0.1], origin="base"), violations=(0.0, -0.5))
    average = replace(trial(3, [0.3, 0.3], origin="uniform"), violations=(0.0, -0.5))
    trials = [base, limited(1, [0.9, 0.9], 0.2), limited(2, [0.5, 0.6], -0.1), average]
    study = with_limits(trials, objectives(2))
    assert [t.number for t in front(study)] == [2]
    assert pick(study, "knee").number == pick(study, "best:mean").number == 2
    assert pick(study, "trial:1").number == 1  # who names it gets it
    without = with_limits([base, *trials[2:]], objectives(2))
    assert hypervolume(study) == hypervolume(without) > 0
    assert study_status(study, dict.fromkeys((*PHASES, "elapsed"), 0.0)).infeasible == 1


def test_where_nothing_is_feasible_the_least_infeasible_stands_in(tmp_path: Path) -> None:
    study = with_limits(
        [limited(0, [0.9, 0.9], 0.3), limited(1, [0.2, 0.2], 0.1), limited(2, [0.1, 0.1], 0.2)],
        objectives(2),
    )
    assert [t.number for t in front(study)] == [1]
    assert hypervolume(study) == 0
    assert pick(study, "knee").number == 1
    assert verdict(study).startswith("No trial is feasible; this is the least infeasible one.")
    page = write_report(study, tmp_path / "r.html", n_recipes=1, inline_js=False).read_text()
    assert page.count('<span class="tag">infeasible</span>') == 1
    assert "hops at most 4" in page


def test_the_report_greys_what_is_infeasible(tmp_path: Path) -> None:
    study = make_study(2)
    trials = [
        replace(t, violations=(0.5 if t.origin == "base" else -0.5,)) if t.values else t
        for t in study.trials
    ]
    finals = [replace(f, violations=(0.5 if f.origin == "base" else -0.5,)) for f in study.finals]
    study = replace(
        study,
        trials=tuple(trials),
        finals=tuple(finals),
        constraints=("zoo_math at least 0.2",),
    )
    assert [r.label for r in final_rows(study) if not r.is_feasible] == ["base"]
    assert all(row.is_feasible for row in front_rows(study))
    page = write_report(study, tmp_path / "r.html", n_recipes=1, inline_js=False).read_text()
    assert 'class="baseline infeasible"' in page
    assert "<dt>infeasible</dt>" in page


def test_the_report_says_what_the_finals_and_the_baselines_leave_open(tmp_path: Path) -> None:
    study = make_study(2)
    finals = [
        replace(f, violations=(-0.5 if f.origin != "search" else 0.5 if f.chosen else 0.7,))
        for f in study.finals
    ]
    study = replace(study, finals=tuple(finals), constraints=("zoo_math at least 0.2",))
    (row,) = [r for r in final_rows(study) if r.is_chosen]
    said = f"No finalist satisfies the constraints on the validation items; trial {row.number} "
    assert said + "violates them least (zoo_math at least 0.2)." in verdict(study)
    study = replace(study, unenforced=("zoo_math at least base (base was not scored; why)",))
    assert verdict(study).startswith("Not enforced: zoo_math at least base (base was not scored")
    page = write_report(study, tmp_path / "r.html", n_recipes=1, inline_js=False).read_text()
    assert "Not enforced: zoo_math at least base" in page
    assert study_status(study, dict.fromkeys((*PHASES, "elapsed"), 0.0)).unenforced


def test_a_cost_has_no_mean_with_a_score_and_is_no_summary() -> None:
    assert not has_mean([SCORE, SIZE])
    assert not has_mean([SIZE, HOPS])  # both are minimised, but in units of their own
    assert has_mean([SIZE])
    assert [m.label for m in measures([SIZE, SCORE, HOPS])] == ["zoo_math", "parameters", "hops"]


def test_a_unit_does_not_decide_who_wins() -> None:
    rows = [[0.9, 1.01e8], [0.2, 1.0e8], [0.85, 1.001e8]]
    best = merits(rows, [SCORE, SIZE])
    assert best.index(max(best)) == 2
    in_billions = merits([[a, b / 1e9] for a, b in rows], [SCORE, SIZE])
    assert in_billions == pytest.approx(best)
    trials = [trial(i, row) for i, row in enumerate(rows)]
    assert knee(trials, [SCORE, SIZE]).number == 2


def test_minimised_objectives_count_everywhere() -> None:
    study = study_of(
        [trial(0, [0.5, 4.0], origin="base"), trial(1, [0.6, 3.0]), trial(2, [0.4, 9.0])],
        [SCORE, HOPS],
    )
    assert [t.number for t in front(study)] == [1]
    assert pick(study, "best:hops").number == 1
    assert [row.number for row in front_rows(study)] == [1]
