"""NaN and infinity in a checkpoint are counted, before they spread into every candidate."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

__all__ = ["count_non_finite"]


def count_non_finite(values: NDArray[np.float32] | Iterable[NDArray[np.float32]]) -> int:
    """Count NaN and infinite numbers in an array, or in one that comes in tiles."""
    bad = 0
    with np.errstate(invalid="ignore", over="ignore"):
        for tile in [values] if isinstance(values, np.ndarray) else values:
            # A sum is finite only if all terms are: one cheap pass for the usual case.
            if not np.isfinite(tile.sum()):
                bad += int((~np.isfinite(tile)).sum())
    return bad
