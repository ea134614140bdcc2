"""The item scores of a study as samplers see them: one row per trial and objective."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evomerge.evaluation.store import ItemStore
from evomerge.study.records import Objective

__all__ = ["ItemRows"]

Rows = tuple[NDArray[np.float64], ...]


class ItemRows:
    """Reads the scores on which the objectives rest; each trial's once.

    The items are those of the first trial that is looked up and has any, so that results are a
    function of what is stored: samplers look trials up by number.

    Args:
        store: The study's item scores.
        objectives: Their tasks and metrics say which scores count, their directions which way is
            better.
    """

    def __init__(self, store: ItemStore, objectives: Sequence[Objective]) -> None:
        self._store, self._objectives = store, objectives
        self._items: list[list[int]] = []  # per objective
        self._rows: dict[int, Rows | None] = {}

    def __call__(self, trial: int) -> Rows | None:
        """Return the scores of a finished trial, larger is better; ``None`` if it has none.

        Returns:
            Per objective (items,), NaN where the trial was not scored; no items for an objective
            that is no mean of item scores, such as a cost or a metric of a group of tasks.
        """
        if trial not in self._rows:
            self._rows[trial] = self._read(trial)
        return self._rows[trial]

    def _read(self, trial: int) -> Rows | None:
        stored = self._store.read_trial(trial, "search")
        columns = [
            {s.item: s.score for s in stored if (s.task, s.metric) == (o.task, o.metric)}
            for o in self._objectives
        ]
        if not any(columns):
            return None
        self._items = self._items or [list(column) for column in columns]
        return tuple(
            o.sign * np.array([column.get(item, np.nan) for item in items], dtype=np.float64)
            for o, column, items in zip(self._objectives, columns, self._items, strict=True)
        )
