"""What merging did to tasks that the search never saw."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from evomerge.analysis.forgetting import ForgettingRow, forgetting_rows
from evomerge.analysis.intervals import difference_interval
from evomerge.evaluation.scores import ItemScore
from evomerge.evaluation.store import ItemStore
from evomerge.study.records import FinalRecord, Objective, ReportOnly, StudyRecord

ACC = Objective("t", "acc", "maximize", "t/acc")
PERPLEXITY = Objective("t", "perplexity", "minimize", "t/perplexity")
ITEMS = {
    "base": [1, 1, 1, 0],
    "expert:a": [1, 0, 0, 0],
    "expert:b": [1, 1, 0, 0],
    "search": [1, 0, 1, 1],
}
PERPLEXITIES = {"base": 4.0, "expert:a": 8.0, "expert:b": 2.0, "search": 5.0}


def rows(folder: Path, split: str = "report_only") -> dict[tuple[str, str], ForgettingRow]:
    store, records = ItemStore(folder), []
    for number, (origin, scores) in enumerate(ITEMS.items()):
        items = [ItemScore("t", i, "acc", float(score)) for i, score in enumerate(scores)]
        store.write(number, split, items)
        values = (sum(scores) / 4, PERPLEXITIES[origin])
        chosen = origin == "search"
        records.append(FinalRecord(number, origin, "report_only", values, (0.1, math.nan), chosen))
    unseen = ReportOnly((ACC, PERPLEXITY), tuple(records))
    found = forgetting_rows(StudyRecord("s", (), (), (), 4, report_only=unseen), store.read())
    return {(row.measure, row.origin): row for row in found}


def test_changes_are_paired_with_base_and_best_expert(tmp_path: Path) -> None:
    merge = rows(tmp_path)["t/acc", "search"]
    assert merge.chosen
    assert merge.versus_base is not None
    assert merge.versus_base.value == 0.0
    assert (merge.versus_base.low, merge.versus_base.high) == difference_interval(
        np.array([0.0, -1.0, 0.0, 1.0])
    )
    assert merge.negative_flips == 0.25
    assert merge.versus_expert is not None
    assert (merge.versus_expert.reference, merge.versus_expert.value) == ("expert:b", 0.25)


def test_the_base_keeps_all_and_more_is_better_whichever_way_the_metric_counts(
    tmp_path: Path,
) -> None:
    found = rows(tmp_path)
    shares = {key: row.normalised for key, row in found.items()}
    assert [shares["t/acc", o] for o in ITEMS] == pytest.approx([1, 1 / 3, 2 / 3, 1])
    assert [shares["t/perplexity", o] for o in ITEMS] == pytest.approx([1, 0.5, 2, 0.8])
    assert found["t/acc", "base"].versus_base is None
    assert found["t/perplexity", "expert:b"].versus_expert is None


def test_metrics_without_item_scores_have_a_change_but_no_interval(tmp_path: Path) -> None:
    change = rows(tmp_path)["t/perplexity", "search"].versus_base
    assert change is not None
    assert change.value == 1.0
    assert math.isnan(change.low)
    assert not change.is_clear


def test_without_items_the_scores_count_as_independent(tmp_path: Path) -> None:
    change = rows(tmp_path, split="test")["t/acc", "search"].versus_base
    assert change is not None
    assert change.high == pytest.approx(1.96 * math.hypot(0.1, 0.1), abs=1e-4)


def test_a_study_without_such_tasks_has_no_rows(tmp_path: Path) -> None:
    study = StudyRecord("s", (ACC,), (), (), 1)
    assert forgetting_rows(study, ItemStore(tmp_path).read()) == ()
