"""What a search would have handed over, look by look, judged on items that no search sees."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from evomerge import pareto
from evomerge.execution.protocol import Job
from evomerge.execution.worker import Worker
from evomerge.recipe.recipe import Recipe
from evomerge.runs.loaded import Loaded
from tests.benchmarks.quality import FloatArray, picked, quality
from tests.benchmarks.searches.history import Evaluated
from tests.benchmarks.searches.methods import objective_values

__all__ = ["FRONT", "SHARES", "Judge", "Progress"]

SHARES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Of the budget: when it is looked."""

FRONT = 16
"""Members of a front that are judged, at most."""


@dataclass(frozen=True)
class Progress:
    """What a search would have handed over at each of ``SHARES``.

    Attributes:
        evaluations: Of the budget.
        seconds: Used until then.
        volume: ``quality``: hypervolume of the front.
        mean: And the mean of the trial with the best mean.
        members: Of the front, before it is thinned.
    """

    evaluations: list[float]
    seconds: list[float]
    volume: list[float]
    mean: list[float]
    members: list[int]


class Judge:
    """Scores on the items of ``test`` what was picked on those of ``search``.

    Args:
        parts: Of the case.
    """

    def __init__(self, parts: Loaded) -> None:
        self._parts, self._worker = parts, Worker(parts.worker)
        self._known: dict[str, tuple[float, ...]] = {}
        parents = [baseline.recipe for baseline in parts.seeds]
        self._low = self._scores(parents, "search").min(axis=0)
        self._parents = self._scores(parents, "test")

    def progress(self, evaluated: Sequence[Evaluated], budget: float) -> Progress:
        """Look at a search.

        Args:
            evaluated: What it scored, in order.
            budget: In evaluations; what came later does not count.
        """
        found: list[tuple[float, float, float, float, int]] = []
        for share in SHARES:
            so_far = [one for one in evaluated if one.evaluations <= share * budget]
            seconds = so_far[-1].seconds if so_far else 0.0
            found.append((share * budget, seconds, *self._judged(so_far)))
        return Progress(*map(list, zip(*found, strict=True)))

    def _judged(self, evaluated: Sequence[Evaluated]) -> tuple[float, float, int]:
        whole = [one for one in evaluated if one.values]
        if not whole:
            return 0.0, 0.0, 0
        seen = np.array([one.values for one in whole])
        front, best = picked(seen, self._low, FRONT)
        true = self._scores([whole[i].recipe for i in [*front, best]], "test")
        volume, mean = quality(true[:-1], true[-1], self._parents)
        return volume, mean, int(pareto.non_dominated(seen).sum())

    def _scores(self, recipes: Iterable[Recipe], split: str) -> FloatArray:
        return np.array([self._score(recipe, split) for recipe in recipes])

    def _score(self, recipe: Recipe, split: str) -> tuple[float, ...]:
        key = f"{split} {recipe.digest}"
        if key not in self._known:
            outcome = self._worker.run(Job(len(self._known), recipe, split))
            self._known[key] = objective_values(outcome, self._parts)
        return self._known[key]
