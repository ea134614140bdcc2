"""Sums, extremes and what follows from them: means, variances, norms."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from evomerge.arrays import Float32Array

__all__ = ["Moments"]


@dataclass(frozen=True)
class Moments:
    """Moments of one array.

    Attributes:
        n: Number of elements.
        sum: Sum of the elements.
        abs_sum: Sum of the magnitudes.
        square_sum: Sum of the squares.
        max: Largest element.
        min: Smallest element.
    """

    n: int
    sum: float
    abs_sum: float
    square_sum: float
    max: float
    min: float

    @classmethod
    def of(cls, values: Float32Array | Iterable[Float32Array]) -> Moments:
        """Measure one array, or an array that comes in tiles; sums are float64."""
        n, total, abs_total, square_total = 0, 0.0, 0.0, 0.0
        largest, smallest = -np.inf, np.inf
        for tile in [values] if isinstance(values, np.ndarray) else values:
            if tile.size == 0:
                continue
            wide = tile.astype(np.float64)
            n += wide.size
            total += float(wide.sum())
            square_total += float(wide @ wide)
            largest, smallest = max(largest, float(wide.max())), min(smallest, float(wide.min()))
            abs_total += float(np.abs(wide, out=wide).sum())
        return cls(n, total, abs_total, square_total, largest, smallest)

    @property
    def mean(self) -> float:
        """Mean of the elements."""
        return self.sum / self.n if self.n else 0.0

    @property
    def variance(self) -> float:
        """Variance around the mean (divided by n)."""
        return max(0.0, self.square_sum / self.n - self.mean**2) if self.n else 0.0
