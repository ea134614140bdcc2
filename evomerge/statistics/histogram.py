"""Magnitude histogram of a task vector: one pass now, any trim threshold later without sorting.

Its buckets are those of ``tally``: thresholds of small tensors are exact.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from evomerge.arrays import Float32Array, FloatArray
from evomerge.statistics.tally import Tally, bucket_edges

__all__ = ["MagnitudeHistogram", "kept_from", "share_of", "value_reached"]


def share_of(n: int, share: float) -> int:
    """Count the whole elements in a share of n: rounded down, one at least of what is not 0."""
    return max(1, int(share * n)) if share > 0.0 else 0


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
        buckets: (m,) int64 non-empty buckets, ascending (``tally.buckets_of``).
        counts: (m,) int64 elements in each.
    """

    buckets: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, values: Float32Array | Iterable[Float32Array]) -> MagnitudeHistogram:
        """Count one array, or an array that comes in tiles.

        Args:
            values: float32, finite, any sign.
        """
        tally = Tally()
        for tile in [values] if isinstance(values, np.ndarray) else values:
            tally.add(tile)
        return cls._counted(tally)

    @classmethod
    def union(cls, parts: Iterable[MagnitudeHistogram]) -> MagnitudeHistogram:
        """Add histograms up, e.g. those of all tensors of a model."""
        tally = Tally()
        for part in parts:
            tally.add_buckets(part.buckets, part.counts)
        return cls._counted(tally)

    @classmethod
    def _counted(cls, tally: Tally) -> MagnitudeHistogram:
        buckets, counts, _ = tally.result()
        return cls(buckets, counts)

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
        """Find the magnitude that a given share of the elements reaches (``share_of``).

        Args:
            density: Share of elements to keep, in [0, 1], of all n elements.

        Returns:
            See ``lower_edge``.
        """
        return 0.0 if density >= 1.0 else self.lower_edge(share_of(self.n, density))

    def lower_edge(self, kept: int) -> float:
        """Find the smallest of the ``kept`` largest magnitudes.

        Returns:
            0 keeps all, infinity none. Where the count ends among equal magnitudes, all of those
            are kept.
        """
        if kept <= 0:
            return float("inf")
        return 0.0 if kept >= self.n else value_reached(self._edges, self._kept_from, kept)

    def upper_edge(self, dropped: int) -> float:
        """Find the largest magnitude below the ``dropped`` largest.

        Returns:
            Infinity drops none, 0 all that is not zero. Where the count ends among equal
            magnitudes, all of those are kept.
        """
        if dropped <= 0:
            return float("inf")
        return 0.0 if dropped >= self.n else self.at(self.n - 1 - dropped)

    def at(self, place: int) -> float:
        """Find the magnitude at a place of the ascending order, from 0; 0 where there are none."""
        if self.n == 0:
            return 0.0
        return value_reached(self._edges, self._kept_from, min(max(self.n - place, 1), self.n))

    def quantile(self, q: float) -> float:
        """Find the magnitude at the share ``q`` of the ascending order, without interpolation."""
        return self.at(int(q * (self.n - 1)))

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
