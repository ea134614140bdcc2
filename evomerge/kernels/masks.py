"""Counter-based random masks: a hash of (key, element index), the same on every device and tiling.

Two rounds of the 32-bit mixer "lowbias32" (C. Wellons, "Prospecting for Hash Functions", 2018). The
key enters between them, so that compiled kernels share the first round among experts; so do the
high 32 bits of the index, which may exceed 2**32.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["MASK_BITS", "hash24", "keep_threshold"]

MASK_BITS = 24
_MULTIPLY_1, _MULTIPLY_2, _HIGH_WORD = 0x21F0AAAD, 0x735A2D97, 0x9E3779B1
_WORD = 0xFFFFFFFF


def keep_threshold(keep: float) -> int:
    """Turn a keep probability into the bound that a 24-bit hash must stay below."""
    return math.ceil(float(np.float32(keep)) * (1 << MASK_BITS))


def hash24(key: int, index: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """Hash element indices to uniform 24-bit integers.

    Args:
        key: 64-bit name of the stream.
        index: (n,) uint64 element indices.

    Returns:
        (n,) uint32 in [0, 2**24); the element is kept iff it is below ``keep_threshold(keep)``.
    """
    low = (index & np.uint64(_WORD)).astype(np.uint32)
    high = (index >> np.uint64(32)).astype(np.uint32)
    keyed = _mix(low) ^ np.uint32(key & _WORD)
    mixed = _mix(keyed + np.uint32((key >> 32) & _WORD) + high * np.uint32(_HIGH_WORD))
    return mixed >> np.uint32(32 - MASK_BITS)


def _mix(x: NDArray[np.uint32]) -> NDArray[np.uint32]:
    x = (x ^ (x >> np.uint32(16))) * np.uint32(_MULTIPLY_1)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(_MULTIPLY_2)
    return x ^ (x >> np.uint32(15))
