"""Magnitude histogram of a task vector: one pass now, any trim threshold later without sorting.

A magnitude belongs to the top 16 bits of its float32 form, 128 steps per power of two, at absolute
positions: histograms of several tensors add up to that of their union. Each step is split in two:
the numbers that need no lower bits, and the rest. Differences of bfloat16 numbers are nearly all of
the first kind, so their many ties are held exactly, where interpolation would cut through them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "N_BUCKETS",
    "MagnitudeHistogram",
    "bucket_edges",
    "buckets_of",
    "kept_from",
    "value_reached",
]

FloatArray = NDArray[np.float64]

N_BUCKETS = 1 << 16
_SIGN_FREE, _LOW_HALF = np.uint32(0x7FFFFFFF), np.uint32(0xFFFF)
_LARGEST = np.uint32(0x7F7FFFFF)  # bits of the largest finite float32


def buckets_of(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Find the bucket of every magnitude.

    Args:
        values: (n,) finite; the sign is ignored.

    Returns:
        (n,) bucket numbers below ``N_BUCKETS``, ascending with the magnitude: 2b for exactly the
        number whose top bits are b, 2b + 1 for those between it and the next.
    """
    bits = values.view(np.uint32) & _SIGN_FREE
    ceiling = (bits + _LOW_HALF) >> np.uint32(16)
    bits >>= np.uint32(16)
    bits += ceiling
    return bits


def bucket_edges(buckets: NDArray[np.integer]) -> tuple[FloatArray, FloatArray]:
    """Return the smallest and largest magnitude of each bucket, float64; equal for even buckets."""
    low = (buckets >> 1).astype(np.uint32) << np.uint32(16)
    high = low + ((buckets & 1).astype(np.uint32) << np.uint32(16))
    edges = np.minimum(np.stack([low, high]), _LARGEST).view(np.float32).astype(np.float64)
    return edges[0], edges[1]


def kept_from(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count the elements in each bucket or above it, along the last axis."""
    kept: NDArray[np.int64] = np.cumsum(counts[..., ::-1], axis=-1)[..., ::-1]
    return kept


def value_reached(
    edges: tuple[FloatArray, FloatArray], kept: NDArray[np.int64], target: float
) -> float:
    """Find the value that ``target`` elements reach.

    Args:
        edges: Low and high edges of the buckets, ascending.
        kept: Elements in each bucket or above it (``kept_from``).
        target: Number of elements, positive and at most ``kept[0]``.

    Returns:
        A value inside the bucket where the count is reached, by proportion.
    """
    place = int(np.searchsorted(-kept, -target, side="right")) - 1
    above = int(kept[place + 1]) if place + 1 < len(kept) else 0
    low, high = float(edges[0][place]), float(edges[1][place])
    return high - (target - above) / (int(kept[place]) - above) * (high - low)


@dataclass(frozen=True, eq=False)
class MagnitudeHistogram:
    """How many elements of a task vector have which magnitude.

    Attributes:
        buckets: (m,) int32 non-empty buckets, ascending (``buckets_of``).
        counts: (m,) int64 elements in each.
    """

    buckets: NDArray[np.int32]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, values: NDArray[np.float32] | Iterable[NDArray[np.float32]]) -> MagnitudeHistogram:
        """Count one array, or an array that comes in tiles.

        Args:
            values: float32, finite, any sign.
        """
        total = np.zeros(N_BUCKETS, np.int64)
        for tile in [values] if isinstance(values, np.ndarray) else values:
            total += np.bincount(buckets_of(tile), minlength=N_BUCKETS)
        return cls.from_dense(total)

    @classmethod
    def union(cls, parts: Iterable[MagnitudeHistogram]) -> MagnitudeHistogram:
        """Add histograms up, e.g. those of all tensors of a model."""
        total = np.zeros(N_BUCKETS, np.int64)
        for part in parts:
            total[part.buckets] += part.counts
        return cls.from_dense(total)

    @classmethod
    def from_dense(cls, counts: NDArray[np.int64]) -> MagnitudeHistogram:
        """Keep the non-empty ones of all ``N_BUCKETS`` counts."""
        buckets = np.flatnonzero(counts)
        return cls(buckets.astype(np.int32), counts[buckets])

    def __add__(self, other: MagnitudeHistogram) -> MagnitudeHistogram:
        return self.union([self, other])

    @cached_property
    def n(self) -> int:
        """Number of elements counted, exact zeros included."""
        return int(self.counts.sum())

    @property
    def n_zero(self) -> int:
        """Number of exact zeros."""
        return int(self.counts[0]) if len(self.buckets) and self.buckets[0] == 0 else 0

    def threshold(self, density: float) -> float:
        """Find the magnitude that a given share of the elements reaches.

        Args:
            density: Share of elements to keep, in [0, 1], of all n elements.

        Returns:
            The smallest magnitude kept; 0 keeps all, infinity none. Where the share ends among
            equal magnitudes, all of those are kept.
        """
        target = density * self.n
        if density >= 1.0:
            return 0.0
        if target < 0.5:
            return float("inf")
        return value_reached(self._edges, self._kept_from, target)

    def upper(self, share: float) -> float:
        """Find the magnitude that all but a given share of the elements stay below or at.

        Args:
            share: Share of all n elements to drop from the top, in [0, 1].

        Returns:
            The largest magnitude kept; infinity drops none. Where the share ends among equal
            magnitudes, all of those are kept.
        """
        value = self.threshold(share)
        if not 0.0 < value < float("inf") or self.kept_count(value) - share * self.n >= 0.5:
            return value
        return float(np.nextafter(np.float32(value), np.float32(0.0)))  # all that reach it go

    def quantile(self, q: float) -> float:
        """Find the magnitude below which a share ``q`` lies; ends at the smallest and largest."""
        if self.n == 0:
            return 0.0
        low, high = self._edges
        return float(min(max(self.threshold(1.0 - q), low[0]), high[-1]))

    @property
    def l1(self) -> float:
        """Σ|τ|, within 0.01 %."""
        return self.kept_l1(0.0)

    @property
    def l2(self) -> float:
        """Στ², the squared norm and not its root, within 0.01 %."""
        return self.kept_l2(0.0)

    def kept_l1(self, low: float, high: float = float("inf")) -> float:
        """Sum |τ| over the elements with low ≤ |τ| ≤ high."""
        share, a, b = self._overlap(low, high)
        return float((share * self.counts) @ ((a + b) / 2))

    def kept_l2(self, low: float, high: float = float("inf")) -> float:
        """Sum τ² over the elements with low ≤ |τ| ≤ high."""
        share, a, b = self._overlap(low, high)
        return float((share * self.counts) @ ((a * a + a * b + b * b) / 3))

    def kept_count(self, low: float, high: float = float("inf")) -> float:
        """Count the elements with low ≤ |τ| ≤ high, interpolated inside buckets."""
        return float(self._overlap(low, high)[0] @ self.counts)

    def _overlap(self, low: float, high: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the share of each bucket inside a band, and the ends of that part."""
        first, last = self._edges
        a, b = np.maximum(first, low), np.minimum(last, high)
        width = last - first
        share = np.where(width > 0, (b - a) / np.where(width > 0, width, 1.0), 1.0)
        inside = b >= a
        return np.where(inside, share, 0.0), np.where(inside, a, 0.0), np.where(inside, b, 0.0)

    @cached_property
    def _edges(self) -> tuple[FloatArray, FloatArray]:
        return bucket_edges(self.buckets)

    @cached_property
    def _kept_from(self) -> NDArray[np.int64]:
        return kept_from(self.counts)
