"""Everything of cmaes: its searches, and the parts that are not public, used nowhere else."""

from __future__ import annotations

import numpy as np
from cmaes import CatCMAwM, COMOCatCMAwM

from evomerge.arrays import FloatArray

__all__ = [
    "COMOCatCMAwM",
    "CatCMAwM",
    "centre_of",
    "distance",
    "drawn_numbers",
    "origin_of",
]


def centre_of(search: CatCMAwM) -> FloatArray:
    """Return the mean of the numbers, (n,), as they are drawn."""
    centre: FloatArray = search._mean
    return centre


def distance(search: CatCMAwM, offset: FloatArray) -> float:
    """Measure an offset from the mean, (n,), in standard deviations of its direction."""
    axes, spreads = search._eigen_decomposition()
    return float(np.linalg.norm((axes.T @ (offset / search._A)) / (search._sigma * spreads)))


def drawn_numbers(
    solution: CatCMAwM.Solution | COMOCatCMAwM.Solution,
) -> FloatArray | None:
    """Return the numbers, (n,), before steps and bounds; ``None`` if those changed nothing."""
    drawn: FloatArray | None = solution._v_raw
    return drawn


def origin_of(solution: COMOCatCMAwM.Solution) -> tuple[int | None, int | None]:
    """Return the kernel that drew a solution, or else the one whose centre it is."""
    return solution._kernel_id, solution._incumbent_id
