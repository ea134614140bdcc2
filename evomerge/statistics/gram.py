"""Inner products between models or task vectors, of whole tensors, or by row or column.

Every norm, angle and spherical interpolation between models follows from these small matrices.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from evomerge.arrays import Float32Array, FloatArray

__all__ = ["gram_of_columns", "gram_of_rows", "gram_of_tiles"]


def gram_of_tiles(tiles: Iterable[Float32Array], k: int) -> FloatArray:
    """Compute all inner products of k vectors that come in tiles of (k, m) float32."""
    total = np.zeros((k, k))
    for tile in tiles:
        wide = tile.astype(np.float64)
        total += wide @ wide.T
    return total


def gram_of_rows(tile: Float32Array) -> FloatArray:
    """Compute the inner products of k matrices row by row.

    Args:
        tile: (k, rows, columns) float32.

    Returns:
        (rows, k, k) float64.
    """
    wide = np.ascontiguousarray(tile.transpose(1, 0, 2), dtype=np.float64)
    gram: FloatArray = wide @ wide.transpose(0, 2, 1)
    return gram


def gram_of_columns(tiles: Iterable[Float32Array], k: int, columns: int) -> FloatArray:
    """Compute the inner products of k matrices column by column.

    Args:
        tiles: (k, rows, columns) float32 each; rows in any portions.
        k: Number of matrices.
        columns: Columns of each.

    Returns:
        (columns, k, k) float64.
    """
    total = np.zeros((columns, k, k))
    for tile in tiles:
        total += gram_of_rows(tile.swapaxes(1, 2))
    return total
