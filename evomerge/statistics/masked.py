"""Sums over what a random mask keeps, for any keep probability (norm-matching rescale)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from evomerge.arrays import Float32Array, FloatArray
from evomerge.kernels.masks import MASK_BITS, hash24, keep_threshold
from evomerge.statistics.tally import EXACT

__all__ = ["MaskedSums"]


_STEPS = 1 << 12
_STEP_BITS = MASK_BITS - 12


@dataclass(frozen=True, eq=False)
class MaskedSums:
    """Σ|τ| and Στ² over the elements that one random stream keeps, by keep probability.

    Exact for small tensors (``tally.EXACT``); for others, proportional inside 4,096 steps of the
    probability.

    Attributes:
        bounds: (m,) ascending bounds on the hash; elements below the bound are kept.
        l1: (m,) sum of |τ| over the elements kept.
        l2: (m,) sum of τ² over the elements kept.
    """

    bounds: FloatArray
    l1: FloatArray
    l2: FloatArray

    @classmethod
    def of(cls, tiles: Iterable[Float32Array], key: int, n: int) -> MaskedSums:
        """Sum over the mask named ``key``.

        Args:
            tiles: Consecutive parts of a task vector.
            key: As in ``RandomMask``.
            n: Number of elements in all.
        """
        return cls._exact(np.concatenate([*tiles]), key) if n <= EXACT else cls._steps(tiles, key)

    @classmethod
    def _exact(cls, tau: Float32Array, key: int) -> MaskedSums:
        hashes = hash24(key, np.arange(tau.size, dtype=np.uint64)).astype(np.float64)
        order = np.argsort(hashes, kind="stable")
        magnitude: FloatArray = np.abs(tau[order]).astype(np.float64)
        # Bounds are whole numbers: at a hash its element is still out, one above it is in.
        bounds = np.stack([hashes[order], hashes[order] + 1], axis=1).reshape(-1)
        return cls(bounds, _steps_up(magnitude), _steps_up(magnitude * magnitude))

    @classmethod
    def _steps(cls, tiles: Iterable[Float32Array], key: int) -> MaskedSums:
        sums = np.zeros((2, _STEPS))
        start = 0
        for tau in tiles:
            index = np.arange(start, start + tau.size, dtype=np.uint64)
            step = hash24(key, index) >> np.uint32(_STEP_BITS)
            magnitude = np.abs(tau).astype(np.float64)
            sums[0] += np.bincount(step, weights=magnitude, minlength=_STEPS)
            sums[1] += np.bincount(step, weights=magnitude * magnitude, minlength=_STEPS)
            start += tau.size
        below: FloatArray = np.concatenate([np.zeros((2, 1)), np.cumsum(sums, axis=1)], axis=1)
        bounds: FloatArray = np.arange(_STEPS + 1).astype(np.float64) * (1 << _STEP_BITS)
        return cls(bounds, below[0], below[1])

    def kept_l1(self, keep: float) -> float:
        """Sum |τ| over the elements kept with probability ``keep``."""
        return float(np.interp(keep_threshold(keep), self.bounds, self.l1))

    def kept_l2(self, keep: float) -> float:
        """Sum τ² over the elements kept with probability ``keep``."""
        return float(np.interp(keep_threshold(keep), self.bounds, self.l2))


def _steps_up(values: FloatArray) -> FloatArray:
    after = np.cumsum(values)
    return np.stack([after - values, after], axis=1).reshape(-1)
