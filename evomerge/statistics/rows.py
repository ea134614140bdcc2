"""Statistics of single rows: magnitudes at given ranks, divergence of softmaxed rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["TAIL_RANKS", "row_divergence", "row_magnitudes", "row_thresholds"]

FloatArray = NDArray[np.float64]

# Ranks at which a row's magnitudes are kept for thresholds: even in the bulk, finer to the ends,
# where magnitudes change steeply and one even step would hold the whole tail.
TAIL_RANKS: FloatArray = np.concatenate(
    [
        [0.0],
        np.geomspace(1e-3, 1 / 80, 8),
        np.linspace(1 / 64, 63 / 64, 63),
        1.0 - np.geomspace(1 / 80, 1e-5, 48),
        [1.0],
    ]
)


def row_magnitudes(tile: NDArray[np.float32], ranks: FloatArray) -> NDArray[np.float32]:
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
    magnitudes: NDArray[np.float32] = low + step * (ordered[:, right] - low)
    return magnitudes


def row_thresholds(
    magnitudes: NDArray[np.float32], columns: int, density: float
) -> NDArray[np.float32]:
    """Find the magnitude that a given share of each row reaches.

    Args:
        magnitudes: (rows, K) at ``TAIL_RANKS``.
        columns: Length of a row.
        density: Share to keep, in [0, 1].

    Returns:
        (rows,) float32; 0 keeps all, infinity none.
    """
    rows = len(magnitudes)
    if density >= 1.0:
        return np.zeros(rows, np.float32)
    if density * columns < 0.5:
        return np.full(rows, np.inf, np.float32)
    # Half-way between the smallest kept and the largest dropped of density · columns elements.
    rank = np.clip(((1.0 - density) * columns - 0.5) / max(columns - 1, 1), 0.0, 1.0)
    right = int(np.clip(np.searchsorted(TAIL_RANKS, rank), 1, len(TAIL_RANKS) - 1))
    span = TAIL_RANKS[right] - TAIL_RANKS[right - 1]
    step = np.float32((rank - TAIL_RANKS[right - 1]) / span)
    low = magnitudes[:, right - 1]
    thresholds: NDArray[np.float32] = low + step * (magnitudes[:, right] - low)
    return thresholds


def row_divergence(expert: NDArray[np.float32], base: NDArray[np.float32]) -> FloatArray:
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


def _log_softmax(rows: NDArray[np.float32]) -> FloatArray:
    shifted = rows.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted
