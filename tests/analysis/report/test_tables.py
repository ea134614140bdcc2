from __future__ import annotations

import dataclasses
import math

import pytest

from evomerge.analysis.report.tables import (
    failures,
    final_rows,
    front_rows,
    gaps,
    phase_times,
    wall_clock,
)
from evomerge.study.records import FinalRecord, Objective

from ..synthetic import failed, make_study, objectives, study_of, trial


def test_every_objective_has_its_gap_search_minus_test_of_the_same_trial() -> None:
    study = make_study(2)
    number = next(f.number for f in study.finals if f.chosen)
    searched = next(t.values for t in study.trials if t.number == number)
    found = gaps(study)
    assert [one.measure for one in found] == ["mean", "zoo_math", "zoo_list"]
    wanted = [sum(searched) / 2, *searched]
    for one, value in zip(found, wanted, strict=True):
        (chosen,) = [row for row in one.rows if row.is_chosen]
        assert chosen.validation is not None
        assert chosen.test is not None
        assert chosen.search.value == pytest.approx(value)
        assert chosen.validation.value == pytest.approx(value - 0.03)
        assert chosen.test.value == pytest.approx(value - 0.035)
        assert chosen.gap.value == pytest.approx(0.035)
    noise = [next(row.gap.stderr for row in one.rows if row.is_chosen) for one in found]
    assert noise == pytest.approx([0.02, 0.02 * 2**0.5, 0.02 * 2**0.5])
    assert len({tuple(row.number for row in one.rows) for one in found}) == 1, "one order"


def test_what_flatters_is_positive_whichever_way_is_better() -> None:
    of = [Objective("t", "acc", "maximize", "acc"), Objective("t", "bpb", "minimize", "bpb")]
    final = FinalRecord(0, "search", "test", (0.5, 2.0), (0.1, 0.1), chosen=True)
    study = study_of([trial(0, (0.6, 1.5))], of, finals=[final])
    assert {one.measure: one.rows[0].gap.value for one in gaps(study)} == pytest.approx(
        {"acc": 0.1, "bpb": 0.5}
    )


def test_rows_are_sorted_best_first_also_when_smaller_is_better() -> None:
    trials = [trial(0, (3.0,)), trial(1, (1.0,)), trial(2, (2.0,))]
    assert [r.number for r in front_rows(study_of(trials, objectives(1, "minimize")))] == [1, 2, 0]
    assert [r.number for r in front_rows(study_of(trials, objectives(1)))] == [0, 2, 1]


@pytest.mark.parametrize("k", [1, 2, 3])
def test_whiskers_stay_inside_their_cell_and_follow_the_ranking(k: int) -> None:
    whiskers = [row.whisker for row in final_rows(make_study(k))]
    dots = [w.dot for w in whiskers if w]
    assert len(dots) == len(whiskers)
    assert dots == sorted(dots, reverse=True)
    assert all(w.left >= -1e-9 and w.left + w.width <= 100 + 1e-9 for w in whiskers if w)


def test_unknown_noise_draws_a_dot_without_a_bar() -> None:
    trials = [trial(0, (0.2,), stderr=math.nan), trial(1, (0.4,), stderr=math.nan)]
    rows = front_rows(study_of(trials, objectives(1)))
    assert [(r.whisker.dot, r.whisker.width) for r in rows if r.whisker] == [(100, 0), (0, 0)]


def test_failures_are_grouped_by_their_last_line() -> None:
    study = study_of(
        [failed(0, "a\nOOM"), failed(1, "lost worker"), failed(2, "b\nOOM")], objectives(1)
    )
    oom, lost = failures(study)
    assert (oom.reason, oom.numbers, oom.detail) == ("OOM", (0, 2), "a\nOOM")
    assert (lost.reason, lost.numbers, lost.detail) == ("lost worker", (1,), "")


def test_failure_without_a_reason_is_not_lost() -> None:
    study = study_of([dataclasses.replace(failed(0, ""), error=None)], objectives(1))
    assert failures(study)[0].reason == "no reason recorded"


def test_phase_times_add_up() -> None:
    phases = phase_times(study_of([trial(0, (0.5,)), trial(1, (0.6,))], objectives(1)))
    assert [p.phase for p in phases] == ["ask", "merge", "evaluate", "tell"]
    assert phases[2].seconds == 22.0
    assert sum(p.share for p in phases) == pytest.approx(100)


def test_wall_clock_spans_first_start_to_last_end() -> None:
    clock = wall_clock(study_of([trial(0, (0.5,)), trial(1, (0.6,))], objectives(1)))
    assert clock is not None
    assert clock.total_seconds() == 13 + 24
    assert wall_clock(study_of([], objectives(1))) is None
