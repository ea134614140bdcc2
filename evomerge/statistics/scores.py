"""Scores of parameter competition (PCB-Merging): who is strong and agrees with the others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from evomerge.statistics.histogram import (
    N_BUCKETS,
    MagnitudeHistogram,
    bucket_edges,
    buckets_of,
    kept_from,
    value_reached,
)

__all__ = ["ScoreStatistics", "clips", "competition_scores"]

FloatArray = NDArray[np.float64]


def competition_scores(
    task_vectors: NDArray[np.float32], low: Sequence[float], high: Sequence[float]
) -> NDArray[np.float32]:
    """Compute exp(k · u_i²) · tanh(τ_i · Σ_j τ_j), u_i = (clip(|τ_i|) − low_i) / (high_i − low_i).

    Args:
        task_vectors: (k, n) float32.
        low: Per expert, where its magnitudes are clipped from below.
        high: Per expert, where they are clipped from above; where equal to low, u_i is 0.

    Returns:
        (k, n) float32, of either sign.

    Source:
        Du et al. 2024, "Parameter Competition Balancing for Model Merging", arXiv:2410.02396.
    """
    k = len(task_vectors)
    total = task_vectors.sum(axis=0)
    scores: NDArray[np.float32] = np.tanh(task_vectors * total)
    for i, tau in enumerate(task_vectors):
        span = high[i] - low[i]
        if span > 0:
            u = (np.clip(np.abs(tau), low[i], high[i]) - np.float32(low[i])) / np.float32(span)
            scores[i] *= np.exp(k * u * u)
    return scores


def clips(
    magnitudes: Sequence[MagnitudeHistogram], clip: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Find where the magnitudes of each expert are clipped, from below and from above.

    Args:
        magnitudes: One histogram per expert.
        clip: Share of the magnitudes clipped at either end, in [0, 0.5).
    """
    low = tuple(histogram.quantile(clip) for histogram in magnitudes)
    return low, tuple(histogram.quantile(1.0 - clip) for histogram in magnitudes)


@dataclass(frozen=True, eq=False)
class ScoreStatistics:
    """Distribution of the scores of each expert on one tensor.

    Attributes:
        low: Per expert, the lower clip of its magnitudes.
        high: Per expert, the upper clip.
        top: Per expert, the largest score.
        buckets: (m,) int32 buckets in ascending order of score: ``histogram.buckets_of`` the
            magnitude, negated for negative scores.
        counts: (k, m) int64 elements of each expert in each bucket.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    top: tuple[float, ...]
    buckets: NDArray[np.int32]
    counts: NDArray[np.int64]

    @classmethod
    def of(
        cls, tiles: Iterable[NDArray[np.float32]], low: Sequence[float], high: Sequence[float]
    ) -> ScoreStatistics:
        """Score task vectors that come in tiles of (k, m) float32."""
        k = len(low)
        counts, top = np.zeros((k, 2 * N_BUCKETS), np.int64), np.full(k, -np.inf)
        for tile in tiles:
            scores = competition_scores(tile, low, high)
            top = np.maximum(top, scores.max(axis=1, initial=-np.inf))
            for i, score in enumerate(scores):
                signed = np.copysign(buckets_of(score), score).astype(np.int64) + N_BUCKETS
                counts[i] += np.bincount(signed, minlength=2 * N_BUCKETS)
        return cls._from_dense(low, high, top, counts)

    @classmethod
    def union(cls, parts: Sequence[ScoreStatistics]) -> ScoreStatistics:
        """Add statistics with the same clips up, e.g. those of all tensors of a model."""
        first = parts[0]
        counts = np.zeros((len(first.low), 2 * N_BUCKETS), np.int64)
        for part in parts:
            counts[:, part.buckets + N_BUCKETS] += part.counts
        top = np.max([part.top for part in parts], axis=0)
        return cls._from_dense(first.low, first.high, top, counts)

    @classmethod
    def _from_dense(
        cls, low: Sequence[float], high: Sequence[float], top: FloatArray, counts: NDArray[np.int64]
    ) -> ScoreStatistics:
        used = np.flatnonzero(counts.any(axis=0))
        buckets = (used - N_BUCKETS).astype(np.int32)
        return cls(tuple(low), tuple(high), tuple(top.tolist()), buckets, counts[:, used])

    def cut(self, ratio: float) -> tuple[float, ...]:
        """Find, per expert, the score that a share of the elements reaches.

        Args:
            ratio: Share of all elements that compete, in [0, 1]; never beyond the largest score.
        """
        kept = kept_from(self.counts)
        n = int(kept[0, 0])
        target = min(max(ratio * n, 0.5), n)
        values = [value_reached(self._edges, row, target) for row in kept]
        return tuple(min(value, top) for value, top in zip(values, self.top, strict=True))

    @cached_property
    def _edges(self) -> tuple[FloatArray, FloatArray]:
        near, far = bucket_edges(np.abs(self.buckets))
        negative = self.buckets < 0
        return np.where(negative, -far, near), np.where(negative, -near, far)
