"""Which experts change the same elements: co-activation counts (RAM), conflict (TATR)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from evomerge.arrays import Float32Array

__all__ = ["activity_counts", "conflict"]


def activity_counts(tiles: Iterable[Float32Array], k: int, epsilon: float) -> NDArray[np.int64]:
    """Count the elements by the set of experts that change them.

    Args:
        tiles: (k, m) float32 task vectors.
        k: Number of experts.
        epsilon: A change is a magnitude above it.

    Returns:
        (2**k,) int64; bit i of the position is set iff expert i changes the element.
    """
    bits = (1 << np.arange(k)).astype(np.int64)
    counts = np.zeros(1 << k, np.int64)
    for tile in tiles:
        sets = bits @ (np.abs(tile) > np.float32(epsilon))
        counts += np.bincount(sets, minlength=1 << k)
    return counts


def conflict(task_vectors: Float32Array) -> Float32Array:
    """Compute Ω = Σ_{i≠j} |τ_i||τ_j|, element by element.

    Args:
        task_vectors: (k, n) float32.

    Returns:
        (n,) float32; exactly 0 where at most one expert changes the element.
    """
    omega = np.zeros(task_vectors.shape[1], np.float32)
    before = np.zeros_like(omega)  # Σ |τ_j| of the experts so far
    for magnitude in np.abs(task_vectors):
        omega += 2 * magnitude * before
        before += magnitude
    return omega
