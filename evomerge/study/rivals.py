"""The front so far with its item scores: what new trials race against."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from evomerge.arrays import FloatArray
from evomerge.evaluation.item_response import ItemResponse, fit_item_response
from evomerge.evaluation.racing import Contest, Race, RaceRules
from evomerge.evaluation.scores import ItemScore
from evomerge.evaluation.store import ItemStore
from evomerge.pareto import non_dominated
from evomerge.seeds import seed_for
from evomerge.study.records import Objective

__all__ = ["Rivals"]

Columns = Sequence[Mapping[int, float]]  # per objective: score by item

_FEWEST_TRIALS = 20  # complete ones, before an item-response model is fitted
_MOST_TRIALS = 200  # the latest ones: they are the most like what comes next
_GROWTH = 1.2  # of their number, before it is fitted again


class Rivals:
    """The non-dominated trials, as a function of the trials that are complete and feasible.

    There are no races while an objective is not the mean of its items' scores (a corpus metric, a
    cost, the mean over a group): nothing is known of it before the end, so nobody can be dropped.

    Args:
        objectives: In the order of the study's directions.
        rules: Of the races.
        seed: Of the study.
    """

    def __init__(self, objectives: Sequence[Objective], rules: RaceRules, seed: int) -> None:
        self._objectives, self._rules, self._seed = objectives, rules, seed
        self._signs = np.array([1 if o.direction == "maximize" else -1 for o in objectives])
        self._forget()

    def _forget(self) -> None:
        self._front: dict[int, tuple[FloatArray, Columns]] = {}
        self._complete: dict[int, Columns] = {}  # kept for estimates only
        self._worst = np.full(len(self._objectives), np.inf)
        self._can_race = True
        self._fitted: tuple[list[int], ItemResponse] | None = None

    def restore(self, complete: Mapping[int, Sequence[float]], items: ItemStore) -> None:
        """Start over from the trials of a study.

        Args:
            complete: Values by trial number; feasible trials only.
            items: Their item scores.
        """
        self._forget()
        stored = items.read()
        stored = stored[stored["split"] == "search"]
        tables = {cast("int", key): table for key, table in stored.groupby("trial")}
        for number, values in complete.items():
            if number in tables:
                rows = zip(*(tables[number][k] for k in _COLUMNS), strict=True)
                self.add(number, values, [ItemScore(*row) for row in rows])

    def add(self, number: int, values: Sequence[float], scores: Sequence[ItemScore]) -> None:
        """Add a complete, feasible trial, which may push others off the front.

        Args:
            number: Trial number.
            values: One per objective.
            scores: Item scores on the search split.
        """
        columns = [_column(objective, scores) for objective in self._objectives]
        self._can_race &= all(map(_is_mean, values, columns))
        mine = self._signs * np.array(values, dtype=np.float64)
        self._worst = np.minimum(self._worst, mine)
        if self._rules.estimates:
            self._complete[number] = columns
        joined = {**self._front, number: (mine, columns)}
        on_front = non_dominated(np.array([values for values, _ in joined.values()]))
        members = zip(joined.items(), on_front, strict=True)
        self._front = {n: member for (n, member), kept in members if kept}

    def race(self, number: int) -> Race | None:
        """Set up the race of a trial; ``None`` if it cannot be raced.

        Args:
            number: Trial number.
        """
        if not self._front or not self._can_race:
            return None
        contests = tuple(self._contest(i) for i in range(len(self._objectives)))
        seed = seed_for(self._seed, "race", number)
        return Race(self._rules, contests, seed, self._responses())

    def _responses(self) -> ItemResponse | None:
        """Fit the model of the complete trials, unless few have joined since the last fit.

        Which trials it is fitted on follows from how many there are, so that a study that was
        interrupted goes on with the model it had.
        """
        n = _n_fitted(len(self._complete))
        numbers = sorted(self._complete)[:n][-_MOST_TRIALS:]
        if not numbers:
            return None
        if self._fitted is None or self._fitted[0] != numbers:
            tables = [self._table(numbers, i) for i in range(len(self._objectives))]
            self._fitted = numbers, fit_item_response(tables)
        return self._fitted[1]

    def _table(self, numbers: Sequence[int], i: int) -> FloatArray:
        """Lay out the scores of trials in one objective: (trials, items), items ascending."""
        rows = [self._complete[number][i] for number in numbers]
        return np.array([[row[item] for item in sorted(rows[0])] for row in rows])

    def _contest(self, i: int) -> Contest:
        members = [self._front[number] for number in sorted(self._front)]
        objective, items = self._objectives[i], sorted(members[0][1][i])
        table = np.array([[columns[i][item] for item in items] for _, columns in members])
        return Contest(
            task=objective.task,
            metric=objective.metric,
            sign=int(self._signs[i]),
            front=np.array([values[i] for values, _ in members]),
            worst=float(self._worst[i]),
            items=np.array(items, dtype=np.int64),
            easiness=table.mean(axis=0),
            spread=float(table.std(axis=1).max()),  # some members solve nothing, or everything
        )


_COLUMNS = ("task", "item", "metric", "score")


def _n_fitted(n: int) -> int:
    """Round a number of trials down to one at which the model is fitted; 0 for too few."""
    if n < _FEWEST_TRIALS:
        return 0
    fitted = _FEWEST_TRIALS
    while (larger := math.ceil(fitted * _GROWTH)) <= n:
        fitted = larger
    return fitted


def _column(objective: Objective, scores: Sequence[ItemScore]) -> Mapping[int, float]:
    key = objective.task, objective.metric
    return {s.item: s.score for s in scores if (s.task, s.metric) == key}


def _is_mean(value: float, column: Mapping[int, float]) -> bool:
    if not column:
        return False
    return math.isclose(value, math.fsum(column.values()) / len(column), abs_tol=1e-9)
