"""Tensors read as float32 tiles, so that no statistic holds more than a few small copies."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["TILE", "flat_tiles", "read_tile", "row_tiles"]

TILE = 1 << 18  # elements; the temporaries of one tile stay in the processor's cache


def flat_tiles(n: int) -> Iterator[slice]:
    """Cut n flattened elements into tiles."""
    for start in range(0, n, TILE):
        yield slice(start, min(start + TILE, n))


def row_tiles(rows: int, columns: int) -> Iterator[slice]:
    """Cut a matrix into tiles of whole rows.

    Yields:
        Slices of rows; one row at least, however long it is.
    """
    step = max(1, TILE // max(1, columns))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def read_tile(tensor: torch.Tensor, positions: slice) -> NDArray[np.float32]:
    """Read elements of a flat tensor of any floating dtype.

    Args:
        tensor: Flat.
        positions: Which flattened elements.

    Returns:
        (m,) float32; may share memory with the tensor, so never write into it.
    """
    array: NDArray[np.float32] = tensor[positions].to("cpu", torch.float32).numpy()
    return array
