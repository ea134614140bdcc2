"""Blocks of rows: how to compute a large tensor without temporaries of its size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from types import EllipsisType

__all__ = ["row_blocks"]

_TILE = 1 << 18  # elements


def row_blocks(shape: Sequence[int]) -> Iterator[slice | EllipsisType]:
    """Cut a tensor into blocks along its first dimension.

    Args:
        shape: Shape of the tensor.

    Yields:
        Indices of blocks of about a quarter million elements, at least one row each, in order.
    """
    if not shape:
        yield ...
        return
    step = max(1, _TILE // max(1, math.prod(shape[1:])))
    yield from (slice(start, start + step) for start in range(0, shape[0], step))
