"""Held-out scores with intervals, normalised by base and best expert."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from evomerge.analysis.held_out import held_out_rows
from evomerge.analysis.intervals import wilson_interval
from evomerge.evaluation.scores import ItemScore
from evomerge.evaluation.store import ItemStore
from evomerge.study.records import FinalRecord, Objective, StudyRecord

ACC = Objective("t", "acc", "maximize", "t")
BPB = Objective("t", "gold_bpb", "minimize", "t/gold_bpb")
VALUES = {
    "base": (0.25, 4.0),
    "expert:a": (0.75, 2.0),
    "expert:b": (0.0, 3.0),
    "search": (1.0, 1.0),
}


def rows(folder: Path, values: dict[str, tuple[float, float]]):
    store, finals = ItemStore(folder), []
    for number, (origin, pair) in enumerate(values.items()):
        right = round(4 * pair[0])
        items = [ItemScore("t", i, "acc", float(i < right)) for i in range(4)]
        store.write(number, "test", items)
        for split in ("validation", "test"):
            chosen = origin == "search"
            finals.append(FinalRecord(number, origin, split, pair, (0.1, 0.1), chosen))
    return held_out_rows(StudyRecord("s", (ACC, BPB), (), tuple(finals), 4), store.read())


def test_shares_get_wilson_intervals_other_metrics_their_standard_error(tmp_path):
    base, *_, merge = rows(tmp_path, VALUES)
    assert (base.scores[0].low, base.scores[0].high) == wilson_interval(0.25, 4)
    assert (merge.scores[0].low, merge.scores[0].high) == wilson_interval(1.0, 4)
    assert merge.scores[1].low == pytest.approx(1 - 0.196, abs=1e-4)


def test_bounds_of_a_cost_that_is_a_share_stay_between_0_and_1(tmp_path):
    cut, length = (Objective("cost", m, "minimize", m) for m in ("truncated", "output_tokens"))
    final = FinalRecord(0, "base", "test", (0.02, 0.02), (0.05, 0.05), chosen=False)
    study = StudyRecord("s", (cut, length), (), (final,), 4)
    (row,) = held_out_rows(study, ItemStore(tmp_path).read())
    assert row.scores[0].low == 0
    assert row.scores[0].high == pytest.approx(0.02 + 1.96 * 0.05, abs=1e-4)
    assert row.scores[1].low == pytest.approx(0.02 - 1.96 * 0.05, abs=1e-4)
    (single,) = (replace(final, stderr=(math.nan, 0.05)),)
    (row,) = held_out_rows(replace(study, finals=(single,)), ItemStore(tmp_path).read())
    assert math.isnan(row.scores[0].low)
    assert math.isnan(row.scores[0].high)


def test_the_base_is_zero_and_the_best_expert_one_whichever_way_is_better(tmp_path):
    found = rows(tmp_path, VALUES)
    assert [row.scores[0].normalised for row in found] == [0, 1, -0.5, 1.5]
    assert [row.scores[1].normalised for row in found] == [0, 1, 0.5, 1.5]
    assert [row.origin for row in found if row.chosen] == ["search"]


def test_where_no_expert_beats_the_base_nothing_is_normalised(tmp_path):
    found = rows(tmp_path, {**VALUES, "base": (1.0, 1.0)})
    assert all(math.isnan(score.normalised) for row in found for score in row.scores)


def test_metrics_that_are_no_mean_of_their_items_are_no_share(tmp_path):
    store = ItemStore(tmp_path)
    store.write(0, "test", [ItemScore("t", i, "acc", float(i)) for i in range(2)])
    final = FinalRecord(0, "base", "test", (0.9,), (math.nan,), chosen=False)
    (row,) = held_out_rows(StudyRecord("s", (ACC,), (), (final,), 1), store.read())
    assert math.isnan(row.scores[0].low)


def test_without_finals_there_are_no_rows(tmp_path):
    assert held_out_rows(StudyRecord("s", (ACC,), (), (), 1), ItemStore(tmp_path).read()) == ()
