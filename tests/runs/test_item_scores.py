from __future__ import annotations

from pathlib import Path

import numpy as np

from evomerge.evaluation.scores import ItemScore
from evomerge.evaluation.store import ItemStore
from evomerge.runs.sampling import ItemRows
from evomerge.study.records import make_objectives


def test_rows_hold_the_same_items_in_the_same_order_and_larger_is_better(tmp_path: Path) -> None:
    store = ItemStore(tmp_path)
    store.write(0, "search", [ItemScore("t", i, "acc", float(i)) for i in (3, 5, 7)])
    store.write(1, "search", [ItemScore("t", i, "acc", 9.0) for i in (7, 3, 8)])
    store.write(2, "test", [ItemScore("t", 3, "acc", 1.0)])
    store.write(3, "search", [ItemScore("t", 3, "unused", 1.0)])
    for direction, sign in (("maximize", 1), ("minimize", -1)):
        rows = ItemRows(store, make_objectives([("t", "acc", direction)]))
        assert np.array_equal(rows(0), sign * np.array([[3.0, 5.0, 7.0]]))
        assert np.array_equal(rows(1), sign * np.array([[9.0, np.nan, 9.0]]), equal_nan=True)
        assert rows(2) is None
        assert rows(3) is None


def test_rows_are_told_apart_by_task_and_metric(tmp_path: Path) -> None:
    store = ItemStore(tmp_path)
    scores = [ItemScore(task, 0, "acc", 1.0) for task in ("t", "u", "of_no_objective")]
    store.write(0, "search", [*scores, ItemScore("t", 1, "acc", 2.0)])
    wanted = [("t", "acc", "maximize"), ("cost", "hops", "minimize"), ("u", "acc", "minimize")]
    found = ItemRows(store, make_objectives(wanted))(0)
    assert found is not None
    assert [row.tolist() for row in found] == [[1.0, 2.0], [], [-1.0]]
