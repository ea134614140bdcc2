"""How far each column or row of an expert moved from the base (WIDEN)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from evomerge.arrays import Float32Array, FloatArray

__all__ = ["column_scores", "row_scores"]


def column_scores(tiles: Iterable[Float32Array], k: int, columns: int) -> FloatArray:
    """Compare the columns of experts with those of the base.

    Args:
        tiles: (k + 1, rows, columns) float32 each, the base first; rows in any portions.
        k: Number of experts.
        columns: Columns per matrix.

    Returns:
        (2, k, columns) float64: first |‖θ_i‖ − ‖θ0‖| per column, then 1 − cos(θ_i, θ0); a column of
        zeros counts as having the base's direction.
    """
    squares, dots = np.zeros((k + 1, columns)), np.zeros((k, columns))
    for tile in tiles:
        wide = tile.astype(np.float64)
        squares += np.einsum("krc,krc->kc", wide, wide)
        dots += np.einsum("krc,rc->kc", wide[1:], wide[0])
    norms = np.sqrt(squares)
    lengths = norms[1:] * norms[0]
    cosines = np.where(lengths > 0, dots / np.where(lengths > 0, lengths, 1.0), 1.0)
    return np.stack([np.abs(norms[1:] - norms[0]), np.clip(1.0 - cosines, 0.0, 2.0)])


def row_scores(tiles: Iterable[Float32Array], k: int) -> FloatArray:
    """Compare the rows of experts with those of the base; see ``column_scores``.

    Returns:
        (2, k, rows) float64.
    """
    turned = (column_scores([tile.swapaxes(1, 2)], k, tile.shape[1]) for tile in tiles)
    return np.concatenate(list(turned), axis=2)
