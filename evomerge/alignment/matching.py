"""Which unit goes where: coordinate descent over groups of units, each an assignment problem.

Source: Ainsworth et al. 2023, Git Re-Basin, arXiv:2209.04836, Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evomerge.models.units import IntArray, ModelUnits, UnitGroup
from evomerge.seeds import seed_for

__all__ = ["FloatArray", "Likeness", "Orders", "matched"]

FloatArray = NDArray[np.float64]
Orders = Mapping[str, IntArray]
"""By axis: the expert's position that goes to each position."""

_LEAST_GAIN = 1e-6  # of all likeness; less is rounding


class Likeness(Protocol):
    """Tells how much units are alike."""

    def __call__(self, group: UnitGroup, orders: Orders) -> FloatArray:
        """Compare the units of a group.

        Args:
            group: Whose units.
            orders: Where all units of the expert are so far.

        Returns:
            (units, units): of the base's in each place with the expert's that is now in another.
        """


def matched(units: ModelUnits, groups: Sequence[UnitGroup], likeness: Likeness) -> Orders:
    """Put every unit where the base has its like.

    Groups are taken in random order (of a fixed seed); each gets its best assignment given all
    others, until none gains. The result is a local optimum.

    Args:
        units: Of both models.
        groups: Those whose units may move.
        likeness: What is to be large, summed over all places.

    Returns:
        Of every axis that a group has.
    """
    orders = {axis: np.arange(units.sizes[axis]) for group in groups for axis in group.members}
    draws = np.random.default_rng(seed_for(0, "alignment"))
    waiting, touched = list(groups), {id(group): set(units.tensors(group)) for group in groups}
    while waiting:
        group = waiting.pop(draws.integers(len(waiting)))
        best = _best(likeness(group, orders))
        if best is None:
            continue
        for axis, members in group.members.items():
            orders[axis][members] = orders[axis][members[best]]
        waiting += [
            other
            for other in groups
            if other is not group
            and not touched[id(other)].isdisjoint(touched[id(group)])
            and not any(other is one for one in waiting)
        ]
    return orders


def _best(alike: FloatArray) -> IntArray | None:
    """Find which of the units belongs in each place; ``None`` if they are best left alone."""
    from scipy.optimize import linear_sum_assignment  # slow to import

    _, found = linear_sum_assignment(alike, maximize=True)
    places = np.arange(len(alike))
    gain = alike[places, found].sum() - alike.trace()
    return found if gain > _LEAST_GAIN * np.abs(alike).max(axis=1).sum() else None
