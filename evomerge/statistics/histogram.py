"""Magnitude histogram of a task vector: one pass now, any trim threshold later without sorting.

Buckets are the top 16 bits of the float32 magnitude (sign excluded): 2**15 of them, 128 per power
of two, at absolute positions. So histograms of several tensors add up to that of their union.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["MagnitudeHistogram"]

_BUCKETS = 1 << 15


@dataclass(frozen=True)
class MagnitudeHistogram:
    """How many elements of a task vector have which magnitude.

    Attributes:
        counts: (32768,) int64 elements per bucket; bucket b holds magnitudes whose float32 bits
            lie in [b · 2**16, (b + 1) · 2**16).
    """

    counts: NDArray[np.int64]

    @classmethod
    def of(cls, task_vector: NDArray[np.float32]) -> MagnitudeHistogram:
        """Count one task vector.

        Args:
            task_vector: (n,) float32, finite.
        """
        bits = task_vector.view(np.uint32) & np.uint32(0x7FFFFFFF)
        return cls(np.bincount(bits >> np.uint32(16), minlength=_BUCKETS).astype(np.int64))

    def __add__(self, other: MagnitudeHistogram) -> MagnitudeHistogram:
        return MagnitudeHistogram(self.counts + other.counts)

    @property
    def n(self) -> int:
        """Number of elements counted, exact zeros included."""
        return int(self.counts.sum())

    def threshold(self, density: float) -> float:
        """Find the magnitude that a given share of the elements reaches.

        Args:
            density: Share of elements to keep, in [0, 1], of all n elements.

        Returns:
            The smallest magnitude kept, interpolated inside its bucket; 0 keeps all, infinity none.
        """
        target = density * self.n
        if density >= 1.0:
            return 0.0
        if target < 0.5:
            return float("inf")
        kept_from = np.cumsum(self.counts[::-1])[::-1]  # elements at or above each bucket
        bucket = int(np.flatnonzero(kept_from >= target)[-1])
        above = int(kept_from[bucket + 1]) if bucket + 1 < _BUCKETS else 0
        low, high = _bucket_edges(bucket)
        share = (target - above) / int(self.counts[bucket])
        return float(high - share * (high - low))


def _bucket_edges(bucket: int) -> tuple[float, float]:
    bits = np.array([bucket << 16, min((bucket + 1) << 16, 0x7F7FFFFF)], np.uint32)
    low, high = bits.view(np.float32)
    return float(low), float(high)
