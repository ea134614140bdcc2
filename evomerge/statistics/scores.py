"""Scores of parameter competition (PCB-Merging): who is strong and agrees with the others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.arrays import Float32Array, FloatArray
from evomerge.statistics.histogram import MagnitudeHistogram, kept_from, value_reached
from evomerge.statistics.tally import Tally, bucket_edges

__all__ = ["ScoreStatistics", "clips", "competition_scores"]


_ROUNDING = 2e-6  # of a score, relative: kernels compute it in float32


def competition_scores(
    task_vectors: Float32Array, low: Sequence[float], high: Sequence[float]
) -> Float32Array:
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
    scores: Float32Array = np.tanh(task_vectors * total)
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

    Places in the ascending order are those of the authors' code, which counts from 0 and clips at
    least the largest: n · clip and n · (1 − clip) − 1, rounded down.

    Args:
        magnitudes: One histogram per expert.
        clip: Share of the magnitudes clipped at either end, in [0, 0.5).
    """
    low = tuple(found.at(int(found.n * clip)) for found in magnitudes)
    return low, tuple(found.at(int(found.n * (1 - clip) - 1)) for found in magnitudes)


@dataclass(frozen=True, eq=False)
class ScoreStatistics:
    """Distribution of the scores of each expert on one tensor.

    Attributes:
        low: Per expert, the lower clip of its magnitudes.
        high: Per expert, the upper clip.
        top: Per expert, the largest score.
        buckets: (k, m) int64 buckets in ascending order of score: ``tally.buckets_of`` the
            magnitude, negated for negative scores. Short rows are filled up with empty ones.
        counts: (k, m) int64 elements in each.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    top: tuple[float, ...]
    buckets: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def of(
        cls, tiles: Iterable[Float32Array], low: Sequence[float], high: Sequence[float]
    ) -> ScoreStatistics:
        """Score task vectors that come in tiles of (k, m) float32."""
        top = np.full(len(low), -np.inf)
        tallies = [(Tally(), Tally()) for _ in low]
        for tile in tiles:
            scores = competition_scores(tile, low, high)
            top = np.maximum(top, scores.max(axis=1, initial=-np.inf))
            for (negative, positive), score in zip(tallies, scores, strict=True):
                negative.add(score[score < 0])
                positive.add(score[score >= 0])
        return cls._counted(low, high, top, tallies)

    @classmethod
    def union(cls, parts: Sequence[ScoreStatistics]) -> ScoreStatistics:
        """Add statistics with the same clips up, e.g. those of all tensors of a model."""
        first = parts[0]
        tallies = [(Tally(), Tally()) for _ in first.low]
        for part in parts:
            for each, buckets, counts in zip(tallies, part.buckets, part.counts, strict=True):
                for tally, sign in zip(each, (buckets < 0, buckets >= 0), strict=True):
                    tally.add_buckets(np.abs(buckets[sign]), counts[sign])
        top = np.max([part.top for part in parts], axis=0)
        return cls._counted(first.low, first.high, top, tallies)

    @classmethod
    def _counted(
        cls,
        low: Sequence[float],
        high: Sequence[float],
        top: FloatArray,
        tallies: Sequence[tuple[Tally, Tally]],
    ) -> ScoreStatistics:
        rows = [_signed(*each) for each in tallies]
        m = max(len(buckets) for buckets, _ in rows)
        buckets = np.stack([np.pad(row, (0, m - len(row)), "maximum") for row, _ in rows])
        counts = np.stack([np.pad(row, (0, m - len(row))) for _, row in rows])
        return cls(tuple(low), tuple(high), tuple(top.tolist()), buckets, counts)

    def cut(self, ratio: float) -> tuple[float, ...]:
        """Find, per expert, the score that a share of the elements reaches, and a hair more.

        The element at the cut counts nothing. Without the hair, kernels that round its score up
        would count it as a whole, wherever no other expert scores.

        Args:
            ratio: Share of all elements that compete, in [0, 1]; never beyond the largest score.
                The place in the ascending order is the authors', n · (1 − ratio) rounded down.
        """
        n = int(self.counts[0].sum())
        target = min(max(n - int(n * (1 - ratio)), 1), n)
        values = [
            value_reached(_edges(row), kept_from(counts), target)
            for row, counts in zip(self.buckets, self.counts, strict=True)
        ]
        raised = [value + abs(value) * _ROUNDING for value in values]
        return tuple(min(value, top) for value, top in zip(raised, self.top, strict=True))


def _signed(negative: Tally, positive: Tally) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Join the buckets of negative and of other scores, ascending."""
    down, n_down, _ = negative.result()
    up, n_up, _ = positive.result()
    return np.concatenate([-down[::-1], up]), np.concatenate([n_down[::-1], n_up])


def _edges(buckets: NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
    near, far = bucket_edges(np.abs(buckets))
    return np.where(buckets < 0, -far, near), np.where(buckets < 0, -near, far)
