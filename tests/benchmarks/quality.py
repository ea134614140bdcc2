"""What a search is worth: judged by true values of what its noisy ones pick."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evomerge import pareto

__all__ = ["picked", "quality", "stays_from"]

FloatArray = NDArray[np.float64]


def picked(seen: FloatArray, low: FloatArray, n: int) -> tuple[list[int], int]:
    """Pick what a user would take home.

    Args:
        seen: (trials, objectives) as the search saw them, larger is better.
        low: (objectives,) where hypervolumes are measured from.
        n: At most so many of the front: those that, one after the other, add most as seen.

    Returns:
        Positions of the front, and of the best mean.
    """
    front: list[int] = np.flatnonzero(pareto.non_dominated(seen)).tolist()
    return _thinned(front, seen, low, n), int(seen.mean(axis=1).argmax())


def quality(front: FloatArray, best: FloatArray, parents: FloatArray) -> tuple[float, float]:
    """Judge what was picked.

    Args:
        front: (members, objectives) true values of the front as seen.
        best: (objectives,) those of the trial with the best mean as seen.
        parents: (parents, objectives) those of base, experts and average.

    Returns:
        Hypervolume of the front, 0 being the worst parent and 1 a model as good as the best parent
        on every objective; and the best one's mean objective.
    """
    low, high = parents.min(axis=0), parents.max(axis=0)
    scaled = (front - low) / (high - low)
    return pareto.volume(scaled, np.zeros(len(low))), float(best.mean())


def stays_from(values: FloatArray, goal: float) -> int | None:
    """Find the look from which values are, and stay, as good as a goal; ``None``: not at the end.

    What is picked by noisy scores may get worse again.
    """
    below = np.flatnonzero(values < goal)
    first = 0 if not below.size else int(below[-1]) + 1
    return first if first < len(values) else None


def _thinned(front: list[int], seen: FloatArray, low: FloatArray, n: int) -> list[int]:
    if len(front) <= n:
        return front
    kept: list[int] = []
    left = front
    while len(kept) < n:
        volumes = [pareto.volume(seen[[*kept, one]], low) for one in left]
        kept.append(left[int(np.argmax(volumes))])
        left = [one for one in left if one != kept[-1]]
    return sorted(kept)
