"""Trade-offs between objectives: how good a result is for one, and which one the front lacks.

A preference is a direction of improvement (objectives,) from the worst baselines on, its largest
share 1. Of two results the better one for it is the one that gets farther along it before the
first objective falls behind (Tchebycheff).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evomerge.arrays import FloatArray
from evomerge.pareto import along, gains, non_dominated
from evomerge.samplers.results import Result

__all__ = ["Yardstick", "lacking", "voices", "yardstick_of"]

_BELOW = 0.1  # where progress is measured from, below the worst baseline: parents have some, too
_WHISPER = 0.05  # what an objective that is far ahead has of the voice, at least
_FARTHER = 0.05  # how much may be reached beyond what there is, as a share of the progress
_LEAST = 0.05  # share of an objective in a preference
_CANDIDATES = 64  # looked at by one ask
_SHARPNESS = 2.0  # an objective that is this many times its share ahead has 1/e of the voice


@dataclass(frozen=True)
class Yardstick:
    """Losses as progress: 0 a tenth below the worst baseline, 1.1 at the best one.

    Attributes:
        worst: (objectives,) loss of the worst baseline.
        width: (objectives,) from there to the best one.
    """

    worst: FloatArray
    width: FloatArray

    def progress(self, losses: Sequence[Sequence[float]]) -> FloatArray:
        """Return the progress (n, objectives) of losses (n, objectives); more is better."""
        rows = np.array(losses, dtype=np.float64).reshape(len(losses), len(self.worst))
        return np.asarray((self.worst - rows) / self.width + _BELOW)

    def along(self, losses: Sequence[float], preference: FloatArray) -> float:
        """Say how far a result gets along a preference."""
        (progress,) = self.progress([losses])
        return along(progress, preference)

    @property
    def zero(self) -> FloatArray:
        """Return the losses (objectives,) at no progress."""
        return np.asarray(self.worst + _BELOW * self.width)


def yardstick_of(results: Sequence[Result], n_objectives: int) -> Yardstick:
    """Put losses on the scale of the baselines, or of all results where those are too few.

    Args:
        results: Those without losses are left out.
        n_objectives: Of the study.
    """
    rows = np.array([r.losses for r in results if r.losses is not None]).reshape(-1, n_objectives)
    given = np.array([r.queued for r in results if r.losses is not None], dtype=np.bool_)
    if not len(rows):
        return Yardstick(np.zeros(n_objectives), np.ones(n_objectives))
    worst, width = rows.max(axis=0), np.ptp(rows, axis=0)
    if given.any():
        spans = np.ptp(rows[given], axis=0) > 0
        worst = np.where(spans, rows[given].max(axis=0), worst)
        width = np.where(spans, np.ptp(rows[given], axis=0), width)
    return Yardstick(worst, np.where(width > 0, width, 1.0))


def lacking(
    progress: FloatArray, aimed_at: Sequence[FloatArray], rng: np.random.Generator
) -> FloatArray:
    """Choose the preference along which a front may gain most hypervolume.

    What may be reached is a little beyond the members of the front, and beyond the middle of any
    two: merges of merges come to there, as a rule.

    Args:
        progress: (n, objectives) of the results so far, n may be 0.
        aimed_at: Preferences of chains under way; what is near one of them counts the less.
        rng: Draws what is looked at, where it is much.

    Returns:
        (objectives,), largest share 1.
    """
    n_objectives = progress.shape[1]
    front = progress[non_dominated(progress)]
    if n_objectives == 1 or not len(front):
        return np.ones(n_objectives)
    one, other = np.triu_indices(len(front))
    drawn = rng.permutation(len(one))[:_CANDIDATES]
    points = (1 + _FARTHER) * (front[one[drawn]] + front[other[drawn]]) / 2
    preferences = np.maximum(points / points.max(axis=1, keepdims=True), _LEAST)
    gained = gains(points, front, np.zeros(n_objectives)) * _apart(preferences, aimed_at)
    return np.asarray(preferences[gained.argmax()])


def voices(progress: FloatArray | None, preference: FloatArray) -> FloatArray:
    """Weigh the objectives of a climb: those that are behind most, the others a little.

    Args:
        progress: (objectives,) where it starts, as far as that is known.
        preference: (objectives,), where it is to go.

    Returns:
        (objectives,), positive; sums to 1.
    """
    if progress is None:
        return np.asarray(preference / preference.sum())
    ahead = progress / preference
    spread = max(float(np.abs(ahead).mean()), 1e-9)
    shares = np.exp(-_SHARPNESS * (ahead - ahead.min()) / spread) + _WHISPER
    return np.asarray(shares / shares.sum())


def _apart(preferences: FloatArray, others: Sequence[FloatArray]) -> FloatArray:
    """Return how far (n,) preferences point away from the nearest of others: a sine."""
    if not others:
        return np.ones(len(preferences))
    rows = np.array(others)
    cosines = (preferences @ rows.T) / np.outer(
        np.linalg.norm(preferences, axis=1), np.linalg.norm(rows, axis=1)
    )
    return np.asarray(np.sqrt(np.clip(1 - cosines.max(axis=1) ** 2, 0, 1)))
