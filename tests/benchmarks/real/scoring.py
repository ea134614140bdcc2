"""Scores recipes on one split after the other with a study's own models and suites."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType

import pandas as pd

from evomerge.analysis.intervals import Estimate, mean
from evomerge.analysis.paired import paired_difference
from evomerge.evaluation.scores import ItemScore
from evomerge.execution.batch import run_all
from evomerge.execution.protocol import Job, Scored
from evomerge.recipe.recipe import Recipe
from evomerge.runs.loaded import Loaded
from evomerge.runs.workers import on_device, start_executor
from evomerge.study.records import FinalRecord

__all__ = ["Scorer"]


class Scorer:
    """Workers as a study has them; what it has scored already comes from its cache.

    Args:
        loaded: The experiment.
    """

    def __init__(self, loaded: Loaded) -> None:
        self._objectives = loaded.objectives
        self._executor = start_executor(loaded.experiment.execution)
        self._executor.load(on_device(loaded.worker, loaded.experiment.execution))
        self._known: dict[tuple[str, str], Scored] = {}

    def __enter__(self) -> Scorer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None
    ) -> None:
        self._executor.close()

    def score(self, recipes: Iterable[Recipe], split: str) -> None:
        """Score recipes that are not scored yet, as many at a time as there are workers."""
        new = {r.digest: r for r in recipes if (r.digest, split) not in self._known}
        jobs = [Job(i, recipe, split) for i, recipe in enumerate(new.values())]
        for outcome in run_all(self._executor, jobs):
            if not isinstance(outcome, Scored):
                raise RuntimeError(f"a merge could not be scored: {outcome}")
            self._known[outcome.job.recipe.digest, split] = outcome

    def values(self, recipe: Recipe, split: str) -> list[Estimate]:
        """Return a value for each objective."""
        self.score([recipe], split)
        metrics = self._known[recipe.digest, split].scores.metrics
        found = [metrics[o.task][o.metric] for o in self._objectives]
        return [Estimate(one.value, one.stderr) for one in found]

    def mean(self, recipe: Recipe, split: str) -> Estimate:
        """Average the objectives."""
        values = self.values(recipe, split)
        return mean([v.value for v in values], [v.stderr for v in values])

    def items(self, recipe: Recipe, split: str) -> tuple[ItemScore, ...]:
        """Return the scores of all items."""
        self.score([recipe], split)
        return self._known[recipe.digest, split].scores.items

    def lead(self, one: Recipe, other: Recipe, split: str) -> Estimate:
        """Subtract the means of two recipes, with the error of differences on the same items."""
        rows = [
            {**vars(item), "trial": i}
            for i, recipe in enumerate((one, other))
            for item in self.items(recipe, split)
        ]
        left, right = (self._record(recipe, split, i) for i, recipe in enumerate((one, other)))
        gaps = [
            paired_difference(pd.DataFrame(rows), objective, i, left, right)
            for i, objective in enumerate(self._objectives)
        ]
        return mean([gap.value for gap in gaps], [gap.stderr for gap in gaps])

    def _record(self, recipe: Recipe, split: str, number: int) -> FinalRecord:
        values = self.values(recipe, split)
        return FinalRecord(
            number=number,
            origin="",
            split="test",
            values=tuple(v.value for v in values),
            stderr=tuple(v.stderr for v in values),
            chosen=False,
        )
