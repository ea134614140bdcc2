"""How results of kernels are compared."""

from __future__ import annotations

import math

import numpy as np
import torch

from evomerge.kernels.scalars import Scalars

__all__ = ["flat", "same_bytes", "slope_error"]


def same_bytes(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Bitwise equality, except that any NaN equals any NaN."""
    integer = torch.int32 if one.dtype == torch.float32 else torch.int16
    equal = one.view(integer) == other.view(integer)
    return bool(torch.all(equal | (one.isnan() & other.isnan())))


def flat(slopes: Scalars) -> np.ndarray:
    """All slopes in a row."""
    tables = [table.reshape(-1) for table in slopes.tables if table is not None]
    return np.concatenate([slopes.each.reshape(-1), slopes.shared, *tables])


def slope_error(ours: Scalars, theirs: Scalars, n: int) -> float:
    """How far slopes are apart; errors of a sum grow with what is summed, not with the sum.

    Args:
        ours: Some kernel's.
        theirs: Another's.
        n: Elements summed over.
    """
    one, other = flat(ours), flat(theirs)
    assert one.shape == other.shape
    return float(np.abs(one - other).max()) / max(float(np.abs(other).max()), math.sqrt(max(n, 1)))
