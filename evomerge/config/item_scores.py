"""The item scores of a study as samplers see them: one row per trial, the same items in each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evomerge.evaluation.scores import ItemScore
from evomerge.evaluation.store import ItemStore
from evomerge.study.records import Objective

__all__ = ["ItemRows"]


class ItemRows:
    """Reads the scores on which the objectives rest; each trial's once.

    The items are those of the first trial that is looked up and has any, so that results are a
    function of what is stored: samplers look trials up by number.

    Args:
        store: The study's item scores.
        objectives: Their metrics say which scores count, their directions which way is better.
    """

    def __init__(self, store: ItemStore, objectives: Sequence[Objective]) -> None:
        self._store = store
        self._signs = {o.metric: 1.0 if o.direction == "maximize" else -1.0 for o in objectives}
        self._items: list[tuple[str, int, str]] = []
        self._rows: dict[int, NDArray[np.float64] | None] = {}

    def __call__(self, trial: int) -> NDArray[np.float64] | None:
        """Return the scores of a finished trial, larger is better; ``None`` if it has none.

        Returns:
            (items,), NaN where the trial was not scored.
        """
        if trial not in self._rows:
            self._rows[trial] = self._read(trial)
        return self._rows[trial]

    def _read(self, trial: int) -> NDArray[np.float64] | None:
        scores = {
            _key(item): self._signs[item.metric] * item.score
            for item in self._store.read_trial(trial, "search")
            if item.metric in self._signs
        }
        if not scores:
            return None
        self._items = self._items or list(scores)
        return np.array([scores.get(item, np.nan) for item in self._items])


def _key(item: ItemScore) -> tuple[str, int, str]:
    return item.task, item.item, item.metric
