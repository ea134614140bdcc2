"""NaN and infinity in a checkpoint are refused by name before they spread into every candidate."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

__all__ = ["count_non_finite", "non_finite_fault"]


def count_non_finite(values: NDArray[np.float32] | Iterable[NDArray[np.float32]]) -> int:
    """Count NaN and infinite numbers in an array, or in one that comes in tiles."""
    bad = 0
    with np.errstate(invalid="ignore", over="ignore"):
        for tile in [values] if isinstance(values, np.ndarray) else values:
            # A sum is finite only if all terms are: one cheap pass for the usual case.
            if not np.isfinite(tile.sum()):
                bad += int((~np.isfinite(tile)).sum())
    return bad


def non_finite_fault(name: str, file: str, n_bad: int, n: int) -> str:
    """Say which tensor of which file holds NaN or infinity.

    Args:
        name: Tensor name.
        file: Where it was read from.
        n_bad: How many of its elements are NaN or infinite.
        n: How many elements it has.
    """
    return (
        f"expected finite numbers, got {n_bad} NaN or infinite out of {n} in tensor {name} of "
        f"{file}; repair or replace that file"
    )
