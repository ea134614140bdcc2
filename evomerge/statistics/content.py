"""What a tensor holds, in short: a hash to find its statistics by, and whether it is finite."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xxhash

from evomerge.arrays import Float32Array
from evomerge.statistics.reading import flat_tiles, read_tile

__all__ = ["Content", "Origin", "content_of"]


@dataclass(frozen=True)
class Origin:
    """Where a tensor came from, so that its content need not be looked at again.

    Attributes:
        files: The files that decide its values: one, or several for deltas and adapters.
        label: Which values of those files: the tensor name, and anything else that decides them.
    """

    files: tuple[Path, ...]
    label: str


@dataclass(frozen=True)
class Content:
    """What a tensor holds.

    Attributes:
        digest: Hash of dtype, shape and values (XXH3), 32 hexadecimal digits.
        non_finite: How many elements are NaN or infinite.
    """

    digest: str
    non_finite: int


def content_of(tensor: torch.Tensor) -> Content:
    """Look at a tensor of any dtype and layout."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    digest = xxhash.xxh3_128(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    digest.update(flat.view(torch.uint8).numpy().data)
    tiles = (read_tile(flat, part) for part in flat_tiles(flat.numel()))
    return Content(digest.hexdigest(), _non_finite(tiles))


def _non_finite(tiles: Iterable[Float32Array]) -> int:
    """Count NaN and infinite numbers before they spread into every candidate."""
    bad = 0
    with np.errstate(invalid="ignore", over="ignore"):
        for tile in tiles:
            # A sum is finite only if all terms are: one cheap pass for the usual case.
            if not np.isfinite(tile.sum()):
                bad += int((~np.isfinite(tile)).sum())
    return bad
