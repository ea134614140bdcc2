"""Races: a trial is scored rung by rung, and dropped once it will hardly improve the front.

What a trial will score on all items is predicted from the items it was scored on. Items differ in
difficulty, and other trials tell how much: a trial that met hard items first is not held to be bad.
The prediction has a standard error, so there is a probability that the trial improves the front;
where that is small, the rest of the items is saved.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from evomerge.arrays import FloatArray
from evomerge.evaluation.item_response import ItemResponse
from evomerge.evaluation.scores import ItemScore, MetricValue
from evomerge.pareto import gains

__all__ = ["Contest", "Drop", "Race", "RaceRules", "predicted_mean"]


_FEWEST_ITEMS = 20  # per objective; with fewer no standard error is trusted
_N_DRAWS = 2000  # of the scores a trial may turn out to have
_N_MEASURED = 200  # of them whose hypervolume is measured

Share = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True)
class RaceRules:
    """When a trial is dropped.

    Attributes:
        rungs: Shares of every task's items, ascending, after which it may be.
        error_rate: Its probability to improve the front is at most this. So of the trials that are
            dropped, at most this share would have improved it, as far as predictions are right.
        tolerance: To improve the front it must not only be non-dominated, but add more than this
            share to its hypervolume; 0 lets every gain count.
        estimates: Predict scores by an item-response model of the study's own complete trials,
            once there are enough of them, instead of from the front alone.
    """

    rungs: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.1, 0.2, 0.4, 0.6)
    error_rate: Share = 0.05
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.002
    estimates: bool = False

    __pydantic_config__ = ConfigDict(extra="forbid")

    @property
    def summary(self) -> str:
        """What drops a trial, when, and how often that is wrong, in one line."""
        rungs = ", ".join(f"{rung:.0%}" for rung in self.rungs)
        more = f" by more than {self.tolerance:.2%} of its hypervolume" if self.tolerance else ""
        by = "the front's item scores"
        if self.estimates:
            by += " (once fitted, the run's own item-response model)"
        return (
            f"after {rungs} of the items, at least {_FEWEST_ITEMS} of each objective, a trial is "
            f"dropped if {by} give it a probability of at most {self.error_rate:g} to improve the "
            f"front{more}"
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
        front: (members,) their scores, times the sign.
        worst: Lowest score of any trial, times the sign; hypervolumes are measured from here.
        items: (n,) rows of the dataset split, ascending.
        easiness: (n,) mean score of the front in each item.
        spread: Standard deviation of a member's item scores, the largest of any.
    """

    task: str
    metric: str
    sign: int
    front: FloatArray
    worst: float
    items: NDArray[np.int64]
    easiness: FloatArray
    spread: float

    def predict(self, scores: Iterable[ItemScore]) -> MetricValue:
        """Predict the score on all items from the scores of some, and its standard error."""
        found, seen = self.seen(scores)
        places = np.flatnonzero(seen)
        value, stderr = predicted_mean(found[places], places, self.easiness, self.spread)
        return MetricValue(value, stderr, len(places))

    def seen(self, scores: Iterable[ItemScore]) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Lay scores out as (n,) over all items, and tell which items have one."""
        mine = [s for s in scores if (s.task, s.metric) == (self.task, self.metric)]
        places = np.searchsorted(self.items, np.array([s.item for s in mine], dtype=np.int64))
        found, seen = np.zeros(len(self.items)), np.zeros(len(self.items), dtype=np.bool_)
        found[places], seen[places] = [s.score for s in mine], True
        return found, seen


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
        responses: Its tasks are the contests; ``None``: scores are predicted from the front alone.
    """

    rules: RaceRules
    contests: tuple[Contest, ...]
    seed: int
    responses: ItemResponse | None = None

    def drop(self, scores: Sequence[ItemScore]) -> Drop | None:
        """Decide after a rung; ``None`` lets the trial go on.

        Args:
            scores: Of the trial, on the items of the rungs so far.
        """
        found, seen = zip(*(contest.seen(scores) for contest in self.contests), strict=True)
        if min(int(each.sum()) for each in seen) < _FEWEST_ITEMS:
            return None
        if self.responses is None:
            estimates = tuple(contest.predict(scores) for contest in self.contests)
            # As if objectives were independent: different tasks share no items.
            covariance = np.diag([estimate.stderr**2 for estimate in estimates])
        else:
            estimates, covariance = _completed(self.responses, found, seen)
        probability = self._probability_to_improve(estimates, covariance)
        if probability > self.rules.error_rate:
            return None
        n = sum(estimate.n for estimate in estimates)
        reason = (
            f"it would hardly improve the front (probability {probability:.3f} after {n} items)"
        )
        return Drop(reason, estimates)

    def _probability_to_improve(
        self, estimates: Sequence[MetricValue], covariance: FloatArray
    ) -> float:
        """Share of the scores it may turn out to have that improve the front."""
        generator = np.random.default_rng(self.seed)
        signs = np.array([c.sign for c in self.contests])
        means = signs * [e.value for e in estimates]
        spread = signs[:, None] * covariance * signs
        draws = generator.multivariate_normal(means, spread, _N_DRAWS, method="eigh")
        front = np.stack([c.front for c in self.contests], axis=1)
        is_behind: NDArray[np.bool_] = draws[:, None] <= front[None]  # (draws, members, objectives)
        ahead = draws[~np.any(np.all(is_behind, axis=2), axis=1)]
        share = len(ahead) / _N_DRAWS
        if share <= self.rules.error_rate or self.rules.tolerance == 0:
            return share
        worst = np.array([c.worst for c in self.contests])
        added = gains(ahead[:_N_MEASURED], front, worst)
        return share * float(np.mean(added > self.rules.tolerance))


def _completed(
    responses: ItemResponse, found: Sequence[FloatArray], seen: Sequence[NDArray[np.bool_]]
) -> tuple[tuple[MetricValue, ...], FloatArray]:
    """Predict the scores on all items, and the covariance of these predictions."""
    means, covariance = responses.complete(found, seen)
    rows = zip(means, np.sqrt(np.diag(covariance)), seen, strict=True)
    return tuple(MetricValue(float(m), float(e), int(s.sum())) for m, e, s in rows), covariance


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
