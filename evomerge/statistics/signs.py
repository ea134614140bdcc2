"""Where experts pull the same parameter in opposite directions: pairs of signs, counted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.arrays import Float32Array

__all__ = ["SignCounts"]

Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SignCounts:
    """How often experts change the same element, and how often in opposite directions.

    Attributes:
        shared: (k, k) int64 elements that both experts of a pair change; on the diagonal those
            that one changes.
        opposed: (k, k) int64 of them those whose signs differ.
        contested: Elements that some expert raises and another lowers.
        touched: Elements that any expert changes.
    """

    shared: Counts
    opposed: Counts
    contested: int
    touched: int

    @classmethod
    def of(cls, tiles: Iterable[Float32Array], least: Sequence[float]) -> SignCounts:
        """Count task vectors that come in tiles.

        Args:
            tiles: (k, m) float32 each.
            least: Per expert, the smallest magnitude that is a change; zeros never are.
        """
        k = len(least)
        low = np.array(least, np.float32)[:, None]
        agreed, opposed = np.zeros((k, k), np.int64), np.zeros((k, k), np.int64)
        contested = touched = 0
        for tile in tiles:
            is_change = np.abs(tile) >= low
            up, down = is_change & (tile > 0), is_change & (tile < 0)
            a, b = up.astype(np.float32), down.astype(np.float32)  # counts in a tile are exact
            across = a @ b.T
            agreed += (a @ a.T + b @ b.T).astype(np.int64)
            opposed += (across + across.T).astype(np.int64)
            raised, lowered = up.any(axis=0), down.any(axis=0)
            contested += int(np.count_nonzero(raised & lowered))
            touched += int(np.count_nonzero(raised | lowered))
        return cls(agreed + opposed, opposed, contested, touched)

    def __add__(self, other: SignCounts) -> SignCounts:
        return SignCounts(
            self.shared + other.shared,
            self.opposed + other.opposed,
            self.contested + other.contested,
            self.touched + other.touched,
        )
