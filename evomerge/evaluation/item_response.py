"""Item-response model of a run: how likely a candidate of some skill is to solve an item.

One skill per task; a candidate's skills are jointly normal over the run's candidates. Fitted on the
run's own scores of complete trials, it fills in the items that a candidate was not scored on. Items
that every candidate solves then carry no doubt, and what is seen in one task tells of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evomerge.arrays import FloatArray

__all__ = ["ItemResponse", "SkillCurves", "fit_item_response"]

BoolArray = NDArray[np.bool_]

_ROUNDS = 8  # of fitting items and skills in turn
_NEWTON_STEPS = 4
_SLOPE_VARIANCE = 1.0  # prior of slopes, around 1
_OFFSET_VARIANCE = 9.0  # prior of offsets, around 0
_PSEUDO_TRIALS = 5.0  # independent skills, errors as stated; beside those of the run


@dataclass(frozen=True)
class SkillCurves:
    """The items of one task: each is solved with probability ``sigmoid(slope * skill + offset)``.

    Attributes:
        slopes: (n,) how much skill tells.
        offsets: (n,) log odds at skill 0.
        low: Score that counts as 0.
        high: Score that counts as 1.
        dispersion: Variance of scores around the curve, as a share of that of a coin; 1 if every
            score is 0 or 1.
    """

    slopes: FloatArray
    offsets: FloatArray
    low: float = 0.0
    high: float = 1.0
    dispersion: float = 1.0

    def scaled(self, scores: FloatArray) -> FloatArray:
        """Put scores on the scale from 0 to 1."""
        clipped: FloatArray = np.clip((scores - self.low) / (self.high - self.low), 0.0, 1.0)
        return clipped

    def expected(self, skills: FloatArray | float) -> FloatArray:
        """Return expected scores from 0 to 1: (n,) of one skill, (t, n) of (t, 1) skills."""
        return _sigmoid(skills * self.slopes + self.offsets)


@dataclass(frozen=True)
class ItemResponse:
    """A fitted model.

    Attributes:
        tasks: Their items' curves.
        covariance: (tasks, tasks) of skills over the run's candidates; their mean is 0.
        scales: (tasks,) what standard errors are multiplied by: how much too small or large they
            would have been for the latest of the trials it was fitted on.
    """

    tasks: tuple[SkillCurves, ...]
    covariance: FloatArray
    scales: FloatArray

    def complete(
        self, scores: Sequence[FloatArray], seen: Sequence[BoolArray]
    ) -> tuple[FloatArray, FloatArray]:
        """Predict mean scores over all items from the scores of some.

        Args:
            scores: Per task (n,); only those that were seen are read.
            seen: Per task (n,).

        Returns:
            (tasks,) means of the scores seen and of those expected for the rest, and their
            (tasks, tasks) covariance: of the skills, and of the answers to the rest.
        """
        known = [
            t.scaled(np.where(s, y, t.low))
            for t, y, s in zip(self.tasks, scores, seen, strict=True)
        ]
        skills, doubt = self._skills(known, seen)
        means, slopes, noise = np.empty((3, len(self.tasks)))
        for i, (task, y, is_seen) in enumerate(zip(self.tasks, known, seen, strict=True)):
            width = task.high - task.low
            p = task.expected(skills[i])
            variance = np.where(is_seen, 0.0, p * (1 - p))
            means[i] = task.low + width * np.mean(np.where(is_seen, y, p))
            slopes[i] = width * np.mean(task.slopes * variance)
            noise[i] = width**2 * task.dispersion * np.mean(variance) / len(p)
        covariance = slopes[:, None] * doubt * slopes + np.diag(noise)
        return means, self.scales[:, None] * covariance * self.scales

    def _skills(
        self, known: Sequence[FloatArray], seen: Sequence[BoolArray]
    ) -> tuple[FloatArray, FloatArray]:
        """Find the most probable skills, and their covariance (Laplace)."""
        prior = np.linalg.inv(self.covariance)
        skills = np.zeros(len(self.tasks))
        for _ in range(2 * _NEWTON_STEPS):
            slope, curvature = np.empty((2, len(skills)))
            for i, (task, y, is_seen) in enumerate(zip(self.tasks, known, seen, strict=True)):
                p = task.expected(skills[i])
                slope[i] = np.sum(task.slopes * (y - p) * is_seen) / task.dispersion
                curvature[i] = np.sum(task.slopes**2 * p * (1 - p) * is_seen) / task.dispersion
            precision = prior + np.diag(curvature)
            step = np.linalg.solve(precision, slope - prior @ skills)
            skills = skills + np.clip(step, -1.0, 1.0)  # far off, a full Newton step overshoots
        return skills, np.linalg.inv(precision)


def fit_item_response(scores: Sequence[FloatArray]) -> ItemResponse:
    """Fit a model on candidates that were scored on all items.

    Intervals are checked forward in time, as they will be used: a model of the first two thirds
    of the trials predicts the others from every third item.

    Args:
        scores: Per task (trials, n), in the order of the trials; at least six of them.

    Source:
        Birnbaum 1968, the two-parameter logistic model, in Lord & Novick, "Statistical Theories of
        Mental Test Scores"; fitted here by penalised maximum likelihood, items and skills in turn.
    """
    n = 2 * len(scores[0]) // 3
    early = _fit([table[:n] for table in scores])
    seen = [np.arange(table.shape[1]) % 3 == 0 for table in scores]
    squares = []  # of errors, in standard errors
    for trial in range(n, len(scores[0])):
        means, covariance = early.complete([table[trial] for table in scores], seen)
        truth = np.array([np.mean(table[trial]) for table in scores])
        squares.append((means - truth) ** 2 / np.diag(covariance))
    total = np.sum(squares, axis=0) + _PSEUDO_TRIALS
    return replace(_fit(scores), scales=np.sqrt(total / (len(squares) + _PSEUDO_TRIALS)))


def _fit(scores: Sequence[FloatArray]) -> ItemResponse:
    fitted = [_fit_task(table) for table in scores]
    skills = np.stack([s for _, s in fitted], axis=1)
    total = skills.T @ skills + _PSEUDO_TRIALS * np.eye(len(scores))
    covariance = total / (len(skills) + _PSEUDO_TRIALS)
    return ItemResponse(tuple(t for t, _ in fitted), covariance, np.ones(len(scores)))


def _fit_task(table: FloatArray) -> tuple[SkillCurves, FloatArray]:
    """Fit the curves of one task, and the (trials,) skills, of mean 0 and variance 1."""
    low, high = min(0.0, float(table.min())), max(1.0, float(table.max()))
    n_trials, n_items = table.shape
    task = SkillCurves(np.ones(n_items), np.zeros(n_items), low, high)
    y = task.scaled(table)
    skills = _standardised(_log_odds(y.sum(axis=1), n_items))
    task = replace(task, offsets=_log_odds(y.sum(axis=0), n_trials))
    for _ in range(_ROUNDS):
        task = _fit_items(task, y, skills)
        skills = _standardised(_fit_skills(task, y, skills))
    if not np.isin(y, (0.0, 1.0)).all():
        p = task.expected(skills[:, None])
        dispersion = float(np.sum((y - p) ** 2) / np.sum(p * (1 - p)))
        task = replace(task, dispersion=max(dispersion, 1e-3))
    return task, skills


def _fit_items(task: SkillCurves, y: FloatArray, skills: FloatArray) -> SkillCurves:
    """Improve all curves at once: Newton's steps in slope and offset, 2 x 2 systems."""
    slopes, offsets = task.slopes, task.offsets
    x = skills[:, None]
    for _ in range(_NEWTON_STEPS):
        p = _sigmoid(x * slopes + offsets)
        w = p * (1 - p)
        by_slope = np.sum(x * (y - p), axis=0) - (slopes - 1) / _SLOPE_VARIANCE
        by_offset = np.sum(y - p, axis=0) - offsets / _OFFSET_VARIANCE
        a = np.sum(x**2 * w, axis=0) + 1 / _SLOPE_VARIANCE
        b, c = np.sum(x * w, axis=0), np.sum(w, axis=0) + 1 / _OFFSET_VARIANCE
        determinant = a * c - b**2
        slopes = slopes + np.clip((c * by_slope - b * by_offset) / determinant, -1.0, 1.0)
        offsets = offsets + np.clip((a * by_offset - b * by_slope) / determinant, -1.0, 1.0)
    return replace(task, slopes=slopes, offsets=offsets)


def _fit_skills(task: SkillCurves, y: FloatArray, skills: FloatArray) -> FloatArray:
    """Improve all skills at once, under a standard normal prior."""
    for _ in range(_NEWTON_STEPS):
        p = task.expected(skills[:, None])
        curvature = np.sum(task.slopes**2 * p * (1 - p), axis=1) + 1
        slope = np.sum(task.slopes * (y - p), axis=1) - skills
        skills = skills + np.clip(slope / curvature, -1.0, 1.0)
    return skills


def _standardised(skills: FloatArray) -> FloatArray:
    centred = skills - np.mean(skills)
    return np.asarray(centred / (np.std(centred) + 1e-9))


def _log_odds(total: FloatArray, n: int) -> FloatArray:
    return np.asarray(np.log((total + 0.5) / (n - total + 0.5)))


def _sigmoid(x: FloatArray) -> FloatArray:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -30.0, 30.0))))
