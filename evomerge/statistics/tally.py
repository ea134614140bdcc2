"""How many elements have which magnitude: exactly for small tensors, in fine steps for large ones.

This is where it is decided which tensors are small. Up to ``EXACT`` elements every distinct
magnitude has a bucket of its own, so that each order statistic is that of a sort. Beyond, a
magnitude belongs to the top 16 bits of its float32 form, 128 steps per power of two. Each step is
split in two: the numbers that need no lower bits, and the rest. Differences of bfloat16 numbers are
nearly all of the first kind, so their many ties are held exactly, where interpolation would cut
through them.

Buckets are numbered alike in both cases, so tallies of several tensors add up to that of their
union: 2b is exactly the number whose float32 bits are b, and 2b + 1 (b without low bits) are the
numbers between that one and the next without low bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evomerge.arrays import Float32Array, FloatArray

__all__ = ["EXACT", "Tally", "bucket_edges", "buckets_of"]

Buckets = NDArray[np.int64]

EXACT = 1 << 16
"""Elements up to which a tensor is small: what can be sorted is sorted, and nothing estimated."""

_STEPS = 1 << 16  # two per value of the top bits
_SIGN_FREE, _LOW_HALF = np.uint32(0x7FFFFFFF), np.uint32(0xFFFF)
_LARGEST = np.uint32(0x7F7FFFFF)  # bits of the largest finite float32


def buckets_of(values: Float32Array, *, exact: bool) -> Buckets:
    """Find the bucket of every magnitude.

    Args:
        values: (n,) finite; the sign is ignored.
        exact: Whether every magnitude has a bucket of its own.

    Returns:
        (n,) bucket numbers, ascending with the magnitude.
    """
    if exact:
        return (values.view(np.uint32) & _SIGN_FREE).astype(np.int64) << 1
    return _bucket_of_step(_steps_of_values(values))


def bucket_edges(buckets: Buckets) -> tuple[FloatArray, FloatArray]:
    """Return the smallest and largest magnitude of each bucket, float64; equal for even buckets."""
    low = buckets >> 1
    high = low + ((buckets & 1) << 16)
    edges = np.minimum(np.stack([low, high]).astype(np.uint32), _LARGEST).view(np.float32)
    wide = edges.astype(np.float64)
    return wide[0], wide[1]


class Tally:
    """Counts magnitudes by bucket, and adds up what else each of them brings along.

    Args:
        n_weights: How many numbers come with each magnitude.
    """

    def __init__(self, n_weights: int = 0) -> None:
        self._n = 0
        self._parts: list[tuple[Buckets, NDArray[np.int64], FloatArray]] = []  # while small
        self._counts: NDArray[np.int64] = np.zeros(0, np.int64)  # by step, once large
        self._weights: FloatArray = np.zeros((n_weights, 0))

    def add(self, values: Float32Array, weights: FloatArray | None = None) -> None:
        """Count more magnitudes.

        Args:
            values: (m,) finite; the sign is ignored.
            weights: (n_weights, m).
        """
        weights = np.empty((0, values.size)) if weights is None else weights
        if self._n + values.size <= EXACT:
            ones = np.ones(values.size, np.int64)
            self.add_buckets(buckets_of(values, exact=True), ones, weights)
            return
        self._n += values.size
        self._grow()
        self._add_steps(_steps_of_values(values), None, weights)

    def add_buckets(
        self, buckets: Buckets, counts: NDArray[np.int64], weights: FloatArray | None = None
    ) -> None:
        """Count what another tally has counted.

        Args:
            buckets: (m,) bucket numbers.
            counts: (m,) elements in each.
            weights: (n_weights, m) sums over each.
        """
        weights = np.empty((0, buckets.size)) if weights is None else weights
        self._n += int(counts.sum())
        self._parts.append((buckets, counts, weights))
        if self._n > EXACT:
            self._grow()

    def result(self) -> tuple[Buckets, NDArray[np.int64], FloatArray]:
        """Return the non-empty buckets, ascending: their numbers, counts, and sums of weights."""
        if self._counts.size:
            used = np.flatnonzero(self._counts)
            return _bucket_of_step(used), self._counts[used], self._weights[:, used]
        nothing = np.zeros(0, np.int64)
        parts = zip((nothing, nothing, self._weights), *self._parts, strict=True)
        buckets, counts, weights = (np.concatenate(part, axis=-1) for part in parts)
        distinct, place = np.unique(buckets, return_inverse=True)
        sums = np.zeros((len(weights), distinct.size))
        for i, row in enumerate(weights):
            sums[i] = _add_up(place, row, distinct.size)
        return distinct, _add_up(place, counts, distinct.size).astype(np.int64), sums

    def _grow(self) -> None:
        """Turn to steps, for what came before, too."""
        if not self._counts.size:
            self._counts = np.zeros(_STEPS, np.int64)
            self._weights = np.zeros((len(self._weights), _STEPS))
        for buckets, counts, weights in self._parts:
            self._add_steps(_steps_of_buckets(buckets), counts, weights)
        self._parts = []

    def _add_steps(
        self, steps: NDArray[np.integer], counts: NDArray[np.int64] | None, weights: FloatArray
    ) -> None:
        self._counts += _add_up(steps, counts, _STEPS).astype(np.int64)
        for i, row in enumerate(weights):
            self._weights[i] += _add_up(steps, row, _STEPS)


def _add_up(
    places: NDArray[np.integer], amounts: NDArray[np.generic] | None, size: int
) -> NDArray[np.generic]:
    """Sum what falls on each place; ``None`` counts. Sums of counts are exact below 2**53."""
    return np.bincount(places, weights=amounts, minlength=size)


def _steps_of_values(values: Float32Array) -> NDArray[np.uint32]:
    bits = values.view(np.uint32) & _SIGN_FREE
    ceiling = (bits + _LOW_HALF) >> np.uint32(16)
    bits >>= np.uint32(16)
    bits += ceiling
    return bits


def _steps_of_buckets(buckets: Buckets) -> Buckets:
    """2 · (top bits), and one more for what lies above the number that has no others."""
    above = (buckets & 1) | ((buckets >> 1) & 0xFFFF != 0)
    steps: Buckets = ((buckets >> 17) << 1) + above
    return steps


def _bucket_of_step(steps: NDArray[np.integer]) -> Buckets:
    wide = steps.astype(np.int64)
    buckets: Buckets = ((wide >> 1) << 17) + (wide & 1)
    return buckets
