"""What a search has scored, and what it had cost by then: in evaluations and in seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evomerge.recipe.recipe import Recipe

__all__ = ["Evaluated", "Step", "history"]


@dataclass(frozen=True)
class Step:
    """One trial as it was run.

    Attributes:
        recipe: What was scored.
        values: One per objective, larger is better; empty if it was given up.
        seconds: By phase; nothing is merged where the scores were known from an earlier search.
        evaluations: What it costs, 1 and more where it climbs on along slopes once it is scored.
    """

    recipe: Recipe
    values: tuple[float, ...]
    seconds: Mapping[str, float]
    evaluations: float = 1.0

    @property
    def scoring(self) -> float | None:
        """Seconds of merging and scoring; ``None`` if the scores were known."""
        if not self.seconds.get("merge"):
            return None
        return self.seconds["merge"] + self.seconds["evaluate"]


@dataclass(frozen=True)
class Evaluated:
    """One model that a search has scored.

    Attributes:
        recipe: How to make it.
        values: As the search saw them, one per objective; empty if it was given up.
        evaluations: What the search had cost when it was scored, in evaluations of all items.
        seconds: The same in seconds of asking, merging, scoring and climbing.
    """

    recipe: Recipe
    values: tuple[float, ...]
    evaluations: float
    seconds: float


def history(steps: Sequence[Step]) -> list[Evaluated]:
    """Add up what trials cost, one after the other.

    Its scores are there for 1 evaluation, however early it was given up; a climb is paid for after
    that. Scores that were known count as many seconds as the median of the others, NaN if there are
    none.
    """
    measured = [step.scoring for step in steps if step.scoring is not None]
    usual = float(np.median(measured)) if measured else math.nan
    found, evaluations, seconds = [], 0.0, 0.0
    for step in steps:
        scoring = step.scoring
        evaluations += 1
        seconds += step.seconds.get("ask", 0.0) + (usual if scoring is None else scoring)
        values = step.values if all(map(math.isfinite, step.values)) else ()
        found.append(Evaluated(step.recipe, values, evaluations, seconds))
        evaluations += step.evaluations - 1
        seconds += step.seconds.get("slopes", 0.0)
    return found
