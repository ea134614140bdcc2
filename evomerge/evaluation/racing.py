"""Races: a trial is scored rung by rung, and dropped once it will hardly enter the front.

What a trial will score on all items is predicted from the items it was scored on. Items differ in
difficulty, and the members of the front tell how much: a trial that met hard items first is not
held to be bad. The prediction has a standard error, so there is a probability that the trial enters
the front; where that is small, the rest of the items is saved.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from evomerge.evaluation.scores import ItemScore, MetricValue

__all__ = ["Contest", "Drop", "Race", "RaceRules", "predicted_mean"]

FloatArray = NDArray[np.float64]

_FEWEST_ITEMS = 20  # per objective; with fewer no prediction is trusted
_N_DRAWS = 2000  # of the scores a trial may turn out to have

Share = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True)
class RaceRules:
    """When a trial is dropped.

    Attributes:
        rungs: Shares of every task's items, ascending, after which it may be.
        error_rate: Its probability to enter the front is at most this. So of the trials that are
            dropped, at most this share would have entered it, as far as scores are normal.
        tolerance: To enter the front it must not only be non-dominated, but ahead by this many
            standard errors of a full score in some objective; 0 lets every gain count.
    """

    rungs: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.2, 0.4, 0.6)
    error_rate: Share = 0.05
    tolerance: Annotated[float, Field(ge=0)] = 0.0

    __pydantic_config__ = ConfigDict(extra="forbid")

    @property
    def summary(self) -> str:
        """What drops a trial, when, and how often that is wrong, in one line."""
        rungs = ", ".join(f"{rung:.0%}" for rung in self.rungs)
        ahead = f", {self.tolerance:g} standard errors ahead," if self.tolerance else ""
        return (
            f"after {rungs} of the items, at least {_FEWEST_ITEMS} of each objective, a trial is "
            f"dropped if it would enter the front{ahead} with a probability of at most "
            f"{self.error_rate:g}: so often a dropped trial would have, as far as scores are normal"
        )

    def __post_init__(self) -> None:
        if list(self.rungs) != sorted(set(self.rungs)):
            raise ValueError(f"expected ascending rungs, got {', '.join(map(str, self.rungs))}")


@dataclass(frozen=True)
class Contest:
    """One objective that is the mean of its items' scores, and what the front has scored in it.

    Attributes:
        task: lm-eval task name.
        metric: As in ``ItemScore``.
        sign: +1 where more is better, -1 where less is.
        front: (members,) their scores.
        items: (n,) rows of the dataset split, ascending.
        easiness: (n,) mean score of the front in each item.
        spread: Standard deviation of a member's item scores.
    """

    task: str
    metric: str
    sign: int
    front: FloatArray
    items: NDArray[np.int64]
    easiness: FloatArray
    spread: float

    @property
    def noise(self) -> float:
        """Standard error of a score on all items."""
        return self.spread / math.sqrt(len(self.items))

    def predict(self, scores: Iterable[ItemScore]) -> MetricValue:
        """Predict the score on all items from the scores of some, and its standard error."""
        mine = [s for s in scores if (s.task, s.metric) == (self.task, self.metric)]
        places = np.searchsorted(self.items, np.array([s.item for s in mine], dtype=np.int64))
        found = np.array([s.score for s in mine], dtype=np.float64)
        value, stderr = predicted_mean(found, places, self.easiness, self.spread)
        return MetricValue(value, stderr, len(found))


@dataclass(frozen=True)
class Drop:
    """Why a trial is dropped, and what was learned about it.

    Attributes:
        reason: In one line.
        estimates: One per contest: predicted score, its standard error, items behind it.
    """

    reason: str
    estimates: tuple[MetricValue, ...]


@dataclass(frozen=True)
class Race:
    """What one trial is up against.

    Attributes:
        rules: When to drop it.
        contests: Every objective of the study; there is at least one member of the front.
        seed: Of the draws.
    """

    rules: RaceRules
    contests: tuple[Contest, ...]
    seed: int

    def drop(self, scores: Sequence[ItemScore]) -> Drop | None:
        """Decide after a rung; ``None`` lets the trial go on.

        Args:
            scores: Of the trial, on the items of the rungs so far.
        """
        estimates = tuple(contest.predict(scores) for contest in self.contests)
        if min(estimate.n for estimate in estimates) < _FEWEST_ITEMS:
            return None
        probability = self._probability_to_enter(estimates)
        if probability > self.rules.error_rate:
            return None
        n = sum(estimate.n for estimate in estimates)
        reason = f"it would hardly enter the front (probability {probability:.3f} after {n} items)"
        return Drop(reason, estimates)

    def _probability_to_enter(self, estimates: Sequence[MetricValue]) -> float:
        """Share of the scores it may turn out to have that no member of the front dominates.

        Objectives are taken as independent: different tasks share no items.
        """
        signs = np.array([c.sign for c in self.contests])
        means = signs * [e.value for e in estimates]
        stderr = np.array([e.stderr for e in estimates])
        normal = np.random.default_rng(self.seed).standard_normal((_N_DRAWS, len(estimates)))
        draws = means + stderr * normal
        bars = signs * np.stack([c.front for c in self.contests], axis=1)
        bars += self.rules.tolerance * np.array([c.noise for c in self.contests])
        is_behind: NDArray[np.bool_] = draws[:, None] <= bars[None]  # (draws, members, objectives)
        is_dominated = np.any(np.all(is_behind, axis=2), axis=1)
        return float(1 - np.mean(is_dominated))


def predicted_mean(
    scores: FloatArray, places: NDArray[np.int64], easiness: FloatArray, spread: float
) -> tuple[float, float]:
    """Predict the mean score over all items from a random part of them.

    The regression estimator of survey sampling: scores are regressed on how easy the items are,
    and the line is read off at the mean easiness of all items. Two pseudo-items with the front's
    own spread keep the line flat and the variance above zero while there are few items.

    Args:
        scores: (n,) on the items at ``places``.
        places: (n,) positions among all items.
        easiness: (N,) a score every item is expected to get.
        spread: Standard deviation expected of item scores.

    Returns:
        The mean over all N items, and the standard error of this prediction; 0 once n = N.

    Source:
        Cochran 1977, "Sampling Techniques", 3rd edition, sections 7.3 and 7.4.
    """
    n, n_all = len(scores), len(easiness)
    if n == 0:
        return float(np.mean(easiness)), math.inf
    x = easiness[places] - np.mean(easiness[places])
    y = scores - np.mean(scores)
    slope = float(x @ y) / (float(x @ x) + 2 * spread**2 + 1e-12)
    value = float(np.mean(scores)) + slope * float(np.mean(easiness) - np.mean(easiness[places]))
    residuals = y - slope * x
    variance = (float(residuals @ residuals) + 2 * spread**2) / n
    return value, math.sqrt(variance / n * (1 - n / n_all))
