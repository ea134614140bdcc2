"""Which points no other one beats, and how much they cover; the only file that imports moocore.

Points are rows of (n, objectives), float64, and more is better in every column.
"""

from __future__ import annotations

import moocore
import numpy as np
from numpy.typing import NDArray

from evomerge.arrays import FloatArray

__all__ = ["along", "gains", "non_dominated", "volume"]

_AUGMENTATION = 0.05  # of the mean: breaks ties that the objective that is behind leaves


def non_dominated(points: FloatArray) -> NDArray[np.bool_]:
    """Tell (n,) which points no other point beats; of equal ones none beats another."""
    if not len(points):
        return np.zeros(0, dtype=np.bool_)
    return np.asarray(moocore.is_nondominated(points, maximise=True, keep_weakly=True))


def volume(points: FloatArray, reference: FloatArray) -> float:
    """Measure the hypervolume between a reference and the points.

    Args:
        points: (n, objectives); those that are not above the reference in all add nothing.
        reference: (objectives,).

    Source:
        Zitzler & Thiele 1999, "Multiobjective evolutionary algorithms: a comparative case study".
    """
    return float(moocore.hypervolume(points, ref=reference, maximise=True))


def along(point: FloatArray, preference: FloatArray) -> float:
    """Say how far a point (objectives,) gets along a preference before the first falls behind.

    Args:
        point: Progress from 0 on.
        preference: (objectives,) positive: the direction that is wanted.

    Source:
        Steuer & Choo 1983, "An interactive weighted Tchebycheff procedure for multiple objective
        programming": the augmented norm.
    """
    return float((point / preference).min() + _AUGMENTATION * point.mean())


def gains(points: FloatArray, front: FloatArray, reference: FloatArray) -> FloatArray:
    """Measure what each point alone would add to the hypervolume of a front.

    Args:
        points: (n, objectives).
        front: (members, objectives).
        reference: (objectives,) where hypervolumes are measured from.

    Returns:
        (n,) as a share of the front's own; infinite where that is 0.
    """
    measure = moocore.Hypervolume(ref=reference, maximise=True)
    before = measure(front)
    added = np.array([measure(np.vstack([front, point])) for point in points]) - before
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.maximum(added, 0.0) / before  # rounding must not show a loss
    return np.asarray(np.nan_to_num(shares, nan=0.0, posinf=np.inf))
