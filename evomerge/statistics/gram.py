"""Inner products between the base and the task vectors of one tensor.

Every norm, angle and spherical interpolation between models follows from this small matrix.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["gram_matrix"]

FloatArray = NDArray[np.float64]
_TILE = 1 << 20


def gram_matrix(vectors: Sequence[NDArray[np.float32]]) -> FloatArray:
    """Compute all inner products of flattened tensors.

    Args:
        vectors: k arrays, (n,) float32 each.

    Returns:
        (k, k) float64; products and sums are float64, tile by tile.
    """
    total = np.zeros((len(vectors), len(vectors)))
    for start in range(0, vectors[0].size, _TILE):
        tile = np.stack([v[start : start + _TILE] for v in vectors]).astype(np.float64)
        total += tile @ tile.T
    return total
