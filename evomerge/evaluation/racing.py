"""Races: a trial is scored rung by rung, and dropped once it can no longer enter the front.

A trial is dropped when one member of the front, its rival, is better on every objective beyond
doubt, judged on the items that both were scored on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from scipy.special import bdtr, stdtr

from evomerge.evaluation.scores import ItemScore, MetricValue

__all__ = ["Column", "Contest", "Drop", "Race", "RaceRules", "Rival", "p_no_worse"]

FloatArray = NDArray[np.float64]

_FEWEST_FOR_T = 30  # items; below, the t-test's level is not to be trusted on skewed scores

Share = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True)
class RaceRules:
    """How trials are raced.

    Attributes:
        rungs: Shares of every task's items, ascending, after which a trial may be dropped.
        error_rate: At most this share of the trials that no rival dominates is dropped.
    """

    rungs: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.25, 0.5)
    error_rate: Share = 0.05

    __pydantic_config__ = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        if list(self.rungs) != sorted(set(self.rungs)):
            raise ValueError(f"expected ascending rungs, got {', '.join(map(str, self.rungs))}")


@dataclass(frozen=True)
class Contest:
    """One objective that is the mean of its items' scores.

    Attributes:
        task: lm-eval task name.
        metric: As in ``ItemScore``.
        sign: +1 where more is better, -1 where less is.
    """

    task: str
    metric: str
    sign: int


@dataclass(frozen=True)
class Column:
    """The item scores of one model in one contest.

    Attributes:
        items: (n,) rows of the dataset split, ascending.
        scores: (n,) one per item.
    """

    items: NDArray[np.int64]
    scores: FloatArray

    @classmethod
    def of(cls, contest: Contest, scores: Iterable[ItemScore]) -> Column:
        """Pick the scores of one contest out of all."""
        key = contest.task, contest.metric
        found = sorted((s.item, s.score) for s in scores if (s.task, s.metric) == key)
        rows = np.array([row for row, _ in found], dtype=np.int64)
        return cls(rows, np.array([score for _, score in found], dtype=np.float64))

    def at(self, items: NDArray[np.int64]) -> FloatArray:
        """Return the scores of some of the items."""
        return self.scores[np.searchsorted(self.items, items)]

    def estimate(self) -> MetricValue:
        """Estimate the mean over all items from these: (mean, standard error, n)."""
        n = len(self.scores)
        stderr = float(np.std(self.scores, ddof=1)) / n**0.5 if n > 1 else float("nan")
        return MetricValue(float(np.mean(self.scores)), stderr, n)


@dataclass(frozen=True)
class Rival:
    """A member of the front.

    Attributes:
        number: Trial number.
        columns: One per contest, over all items.
    """

    number: int
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class Drop:
    """Why a trial is dropped, and what was learned about it.

    Attributes:
        reason: In one line.
        estimates: One per contest, from the items scored so far.
    """

    reason: str
    estimates: tuple[MetricValue, ...]


@dataclass(frozen=True)
class Race:
    """What one trial is up against.

    A trial that no rival dominates is dropped with a probability of at most ``rules.error_rate``.
    Take one rival and one look. Since the rival does not dominate the trial, there is an objective
    in which the trial is no worse. To drop the trial, the test of that objective has to err, which
    happens with a probability of at most its level: requiring *every* objective to be worse costs
    no correction for their number. Any of the rivals may drop it, at any of the looks, so the level
    is the error rate over (rivals x looks), and the union bound does the rest. The rivals must be
    chosen before the trial's scores are seen.

    Attributes:
        rules: How.
        contests: Every objective of the study.
        rivals: Members of the front.
    """

    rules: RaceRules
    contests: tuple[Contest, ...]
    rivals: tuple[Rival, ...]

    def drop(self, scores: Sequence[ItemScore]) -> Drop | None:
        """Decide after a rung; ``None`` lets the trial go on.

        Args:
            scores: Of the trial, on the items of the rungs so far.
        """
        columns = [Column.of(contest, scores) for contest in self.contests]
        winner = next((rival for rival in self.rivals if self._is_beaten(columns, rival)), None)
        if winner is None:
            return None
        n = sum(len(column.items) for column in columns)
        reason = f"trial {winner.number} is better on every objective (after {n} items)"
        return Drop(reason, tuple(column.estimate() for column in columns))

    def _is_beaten(self, columns: Sequence[Column], rival: Rival) -> bool:
        level = self.rules.error_rate / (len(self.rivals) * len(self.rules.rungs))
        return all(
            p_no_worse(c.sign * column.scores, c.sign * theirs.at(column.items)) <= level
            for c, column, theirs in zip(self.contests, columns, rival.columns, strict=True)
        )


def p_no_worse(trial: FloatArray, rival: FloatArray) -> float:
    """Test whether a trial is worse than a rival on average, both scored on the same items.

    Scores of 0 and 1 are tested exactly, on the items where the two differ (McNemar): were the
    trial no worse, it would win at least half of them. Other scores take a paired t-test.

    Args:
        trial: (n,) scores, more is better.
        rival: (n,) of the same items.

    Returns:
        One-sided p-value of "no worse"; 1 where there are too few items to say.

    Source:
        McNemar 1947, "Note on the sampling error of the difference between correlated proportions".
    """
    gains = trial - rival
    if np.isin(np.abs(np.concatenate([trial, rival])), (0, 1)).all():
        n_differ = int(np.count_nonzero(gains))
        return float(bdtr(np.count_nonzero(gains > 0), n_differ, 0.5)) if n_differ else 1.0
    n = len(gains)
    spread = float(np.std(gains, ddof=1)) if n >= _FEWEST_FOR_T else 0.0
    if spread == 0:
        return 1.0
    return float(stdtr(n - 1, float(np.mean(gains)) / (spread / n**0.5)))
