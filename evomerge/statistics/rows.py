"""Statistics of single rows: magnitudes at given ranks, divergence of softmaxed rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from evomerge.arrays import Float32Array, FloatArray
from evomerge.statistics.tally import EXACT

__all__ = ["RANK_KNOTS", "RowMagnitudes", "centred_ties", "magnitudes_at", "row_divergence"]


# Ranks at which a long row's magnitudes are kept for thresholds: even in the bulk, finer to the
# ends, where magnitudes change steeply and one even step would hold the whole tail.
_TAIL_RANKS: FloatArray = np.concatenate(
    [
        [0.0],
        np.geomspace(1e-3, 1 / 80, 8),
        np.linspace(1 / 64, 63 / 64, 63),
        1.0 - np.geomspace(1 / 80, 1e-5, 48),
        [1.0],
    ]
)


# Knots that masks by rank read: 8 intervals, which kernels search in three steps. Ranks of heavy
# tails are so found within 0.11, 0.02 on average; 17 knots halve that and cost a third more time.
RANK_KNOTS = 9
_APART = np.float32(1e-30)  # from zero, whose neighbours among the floats have no inverse


def magnitudes_at(tile: Float32Array, ranks: FloatArray) -> Float32Array:
    """Read the magnitudes of each row at given ranks.

    Args:
        tile: (rows, columns) float32.
        ranks: (K,) in [0, 1]; 0 is the smallest magnitude of a row, 1 the largest.

    Returns:
        (rows, K) float32, linear between neighbouring order statistics.
    """
    ordered = np.sort(np.abs(tile), axis=1)
    position = ranks * (tile.shape[1] - 1)
    left = np.floor(position).astype(np.int64)
    right = np.minimum(left + 1, tile.shape[1] - 1)
    step = (position - left).astype(np.float32)
    low = ordered[:, left]
    magnitudes: Float32Array = low + step * (ordered[:, right] - low)
    return magnitudes


def centred_ties(knots: Float32Array) -> Float32Array:
    """Part equal knots a little, so that their value has the middle of their ranks.

    A rank is read off by search and interpolation, which would find the last of equal knots. The
    middle one stays; those before it are lowered, those after it raised, by one float.

    Args:
        knots: (rows, K) float32, ascending along K.

    Returns:
        (rows, K) float32, ascending; knots that differ from their neighbours are as they were.
    """
    ascending = np.arange(knots.shape[1])
    equal = knots[:, :, None] == knots[:, None, :]
    first, last = equal.argmax(axis=2), ascending[-1] - equal[:, :, ::-1].argmax(axis=2)
    side = np.sign(2 * ascending - first - last)
    below = np.where(knots < _APART, knots - _APART, np.nextafter(knots, np.float32(-np.inf)))
    above = np.where(knots < _APART, knots + _APART, np.nextafter(knots, np.float32(np.inf)))
    parted: Float32Array = np.select([side < 0, side > 0], [below, above], knots)
    return parted


@dataclass(frozen=True, eq=False)
class RowMagnitudes:
    """Which magnitudes each row of a task vector has, for thresholds of its own.

    Exact for small tensors (``tally.EXACT``) and for short rows, of which nothing would be saved by
    keeping less; else linear between magnitudes at 121 ranks.

    Attributes:
        n: Elements in a row.
        values: (rows, K) float32, ascending; all n magnitudes of each row, or those at the ranks.
    """

    n: int
    values: Float32Array

    @classmethod
    def of(cls, tiles: Iterable[Float32Array], rows: int, columns: int) -> RowMagnitudes:
        """Measure a task vector that comes in tiles of (r, columns) float32."""
        if rows * columns <= EXACT or columns <= len(_TAIL_RANKS):
            return cls(columns, np.concatenate([np.sort(np.abs(tile), axis=1) for tile in tiles]))
        return cls(columns, np.concatenate([magnitudes_at(tile, _TAIL_RANKS) for tile in tiles]))

    def lower_edge(self, kept: int) -> Float32Array:
        """Find the smallest of the ``kept`` largest magnitudes of each row.

        Returns:
            (rows,) float32; 0 keeps all, infinity none.
        """
        return self._edge(self.n - kept, self.n - kept)

    def upper_edge(self, dropped: int) -> Float32Array:
        """Find the largest magnitude below the ``dropped`` largest of each row.

        Returns:
            (rows,) float32; infinity drops none, 0 all that is not zero.
        """
        return self._edge(self.n - dropped, self.n - dropped - 1)

    def _edge(self, cut: int, place: int) -> Float32Array:
        """Find the magnitude at a place next to the cut below which ``cut`` elements lie."""
        if not 0 < cut < self.n:
            return np.full(len(self.values), 0.0 if cut <= 0 else np.inf, np.float32)
        if self.values.shape[1] == self.n:
            return self.values[:, place].copy()
        rank = (cut - 0.5) / (self.n - 1)  # half-way between what lies below the cut and above
        right = int(np.clip(np.searchsorted(_TAIL_RANKS, rank), 1, len(_TAIL_RANKS) - 1))
        span = _TAIL_RANKS[right] - _TAIL_RANKS[right - 1]
        step = np.float32((rank - _TAIL_RANKS[right - 1]) / span)
        low = self.values[:, right - 1]
        edge: Float32Array = low + step * (self.values[:, right] - low)
        return edge


def row_divergence(expert: Float32Array, base: Float32Array) -> FloatArray:
    """Compute KL(softmax(expert row) ‖ softmax(base row)).

    Args:
        expert: (rows, columns) float32.
        base: (rows, columns) float32.

    Returns:
        (rows,) float64, in nats, not negative.
    """
    log_p, log_q = _log_softmax(expert), _log_softmax(base)
    divergence: FloatArray = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
    return np.maximum(divergence, 0.0)


def _log_softmax(rows: Float32Array) -> FloatArray:
    shifted = rows.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted
