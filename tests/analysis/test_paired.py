"""Paired gains and negative flips, from item scores."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from evomerge.analysis.paired import paired_rows
from evomerge.evaluation.scores import ItemScore
from evomerge.evaluation.store import ItemStore
from evomerge.study.records import FinalRecord, Objective, StudyRecord

ACC = Objective("t", "acc", "maximize", "t")
F1 = Objective("t", "f1", "maximize", "t/f1")


def final(number: int, origin: str, *, chosen: bool = False) -> FinalRecord:
    return FinalRecord(number, origin, "test", (0.0,), (0.0,), chosen)


def rows(tmp_path: Path, finals: tuple[FinalRecord, ...], **scores: list[float]):
    store = ItemStore(tmp_path)
    for number, name in enumerate(("base", "expert", "merge")):
        found = enumerate(scores[name])
        items = [ItemScore("t", i, m, s) for i, s in found for m in ("acc", "f1")]
        store.write(number, "test", items)
    study = StudyRecord("s", (ACC, F1), (), finals, 3)
    return paired_rows(study, store.read())


FINALS = (final(0, "base"), final(1, "expert:a"), final(2, "search", chosen=True))


def test_gains_are_paired_and_flips_are_what_broke(tmp_path):
    found = rows(tmp_path, FINALS, base=[0, 0, 1, 0], expert=[1, 1, 0, 1], merge=[1, 1, 1, 0])
    base, _, expert, _ = found
    assert (base.reference, expert.reference) == ("base", "expert:a")
    assert (base.gain.value, base.negative_flips, base.n_items) == (0.5, 0.0, 4)
    assert base.gain.stderr == pytest.approx(math.sqrt((4 * 0.25) / 3 / 4))
    assert (expert.gain.value, expert.negative_flips) == (0.0, 0.25)


def test_scores_between_right_and_wrong_have_no_flips(tmp_path):
    found = rows(tmp_path, FINALS, base=[0.5, 0.2], expert=[0, 1], merge=[0.6, 0.1])
    assert math.isnan(found[0].negative_flips)
    assert found[0].gain.value == pytest.approx(0.0)


def test_without_finals_there_is_nothing_to_compare(tmp_path):
    assert rows(tmp_path, (), base=[0], expert=[0], merge=[1]) == ()
