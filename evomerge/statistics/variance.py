"""Where experts differ: a histogram of the variance across them, with each one's energy (SCE)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from evomerge.arrays import Float32Array, FloatArray
from evomerge.statistics.histogram import MagnitudeHistogram
from evomerge.statistics.tally import Tally, bucket_edges

__all__ = ["VarianceHistogram", "variance_across"]

_BELOW_TIES = 1 - 1e-6  # kernels round to float32, and equal variances must stay together
_SMALLEST = float(np.finfo(np.float32).smallest_subnormal)


def variance_across(task_vectors: Float32Array) -> Float32Array:
    """Compute the variance over experts, element by element.

    Args:
        task_vectors: (k, n) float32.

    Returns:
        (n,) float32, divided by k − 1; exactly 0 where all agree, and for a single expert. Float64
        inside, since the float32 mean of equal numbers need not equal them.
    """
    k = len(task_vectors)
    if k < 2:
        return np.zeros(task_vectors.shape[1], np.float32)
    deviation = task_vectors - task_vectors.mean(axis=0, dtype=np.float64)
    variance: FloatArray = np.einsum("kn,kn->n", deviation, deviation) / (k - 1)
    return variance.astype(np.float32)


@dataclass(frozen=True, eq=False)
class VarianceHistogram:
    """How many elements have which variance across experts, and how much energy they hold.

    Attributes:
        buckets: (m,) int64 non-empty buckets, ascending (``tally.buckets_of``).
        counts: (m,) int64 elements in each.
        bucket_energies: (k, m) float64 sums of τ_i² in each.
    """

    buckets: NDArray[np.int64]
    counts: NDArray[np.int64]
    bucket_energies: FloatArray

    @classmethod
    def of(cls, tiles: Iterable[Float32Array], k: int) -> VarianceHistogram:
        """Measure task vectors that come in tiles of (k, m) float32."""
        tally = Tally(n_weights=k)
        for tile in tiles:
            tally.add(variance_across(tile), tile.astype(np.float64) ** 2)
        return cls(*tally.result())

    @classmethod
    def union(cls, parts: Sequence[VarianceHistogram]) -> VarianceHistogram:
        """Add histograms of the same experts up, e.g. those of all tensors of a model."""
        tally = Tally(n_weights=len(parts[0].bucket_energies))
        for part in parts:
            tally.add_buckets(part.buckets, part.counts, part.bucket_energies)
        return cls(*tally.result())

    def threshold(self, share: float) -> float:
        """Find the variance that a share of the elements with nonzero variance reaches.

        Whole elements are counted, rounded down, as the authors do.

        Args:
            share: In [0, 1], of the elements whose variance is not zero.

        Returns:
            The smallest variance kept; infinity keeps nothing, 0 everything, and is returned only
            where no element varies.
        """
        histogram = self._histogram
        n_varying = histogram.n - histogram.n_zero
        if n_varying == 0:
            return 0.0
        threshold = histogram.lower_edge(int(share * n_varying))
        return max(threshold * _BELOW_TIES, _SMALLEST)

    def count(self, threshold: float) -> float:
        """Count the elements whose variance is at least ``threshold``."""
        return self._histogram.kept_count(threshold)

    def energies(self, threshold: float) -> FloatArray:
        """Sum τ_i² over the elements whose variance is at least ``threshold``.

        Returns:
            (k,) float64, one per expert; proportional inside the bucket of the threshold.
        """
        low, high = bucket_edges(self.buckets)
        width = high - low
        share = np.where(width > 0, (high - threshold) / np.where(width > 0, width, 1.0), 1.0)
        kept = np.where(high >= threshold, np.clip(share, 0.0, 1.0), 0.0)
        energies: FloatArray = self.bucket_energies @ kept
        return energies

    @cached_property
    def _histogram(self) -> MagnitudeHistogram:
        return MagnitudeHistogram(self.buckets, self.counts)
