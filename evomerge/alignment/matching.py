"""Which unit goes where: coordinate descent over groups of units, each an assignment problem.

Source: Ainsworth et al. 2023, Git Re-Basin, arXiv:2209.04836, Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from evomerge.arrays import FloatArray, IntArray
from evomerge.models.units import ModelUnits, UnitGroup
from evomerge.seeds import seed_for

__all__ = ["Likeness", "Orders", "matched", "most_alike"]

Orders = Mapping[str, IntArray]
"""By axis: the expert's position that goes to each position."""

_LEAST_GAIN = 1e-6  # of all likeness; less is rounding


class Likeness(Protocol):
    """Tells how much units are alike."""

    def __call__(self, group: UnitGroup, orders: Orders) -> FloatArray:
        """Compare the units of a group.

        Args:
            group: Whose units.
            orders: Where the expert's units are so far; those on axes that move and are not here
                are not yet to be compared with.

        Returns:
            (units, units): of the base's in each place with the expert's that is now in another.
        """


def matched(
    units: ModelUnits,
    groups: Sequence[UnitGroup],
    likeness: Likeness,
    at_first: Likeness | None = None,
) -> Orders:
    """Put every unit where the base has its like.

    Groups are taken once from first to last, each compared by what is in place already; then in
    random order (of a fixed seed), given all others, until none gains. The result is a local
    optimum.

    Args:
        units: Of both models.
        groups: Those whose units may move, from the outside to the inside.
        likeness: What is to be large, summed over all places.
        at_first: What is compared the first time instead, if anything else.

    Returns:
        Of every axis that a group has.
    """
    orders: dict[str, IntArray] = {}
    for group in groups:
        orders |= {a: np.arange(units.sizes[a]) for a in group.members if a not in orders}
        _improve(orders, group, at_first or likeness)
    draws = np.random.default_rng(seed_for(0, "alignment"))
    waiting, touched = list(groups), {id(group): set(units.tensors(group)) for group in groups}
    while waiting:
        group = waiting.pop(draws.integers(len(waiting)))
        if _improve(orders, group, likeness):
            near = [g for g in groups if touched[id(g)] & touched[id(group)] and g is not group]
            waiting += [g for g in near if not any(g is one for one in waiting)]
    return orders


def _improve(orders: Orders, group: UnitGroup, likeness: Likeness) -> bool:
    """Put the units of one group in their best places; tell whether that is a gain."""
    if (best := _best(likeness(group, orders))) is None:
        return False
    for axis, members in group.members.items():
        orders[axis][members] = orders[axis][members[best]]
    return True


def most_alike(alike: FloatArray) -> float:
    """Sum the likeness of the best pairs."""
    return float(alike[_assigned(alike)].sum())


def _assigned(alike: FloatArray) -> tuple[IntArray, IntArray]:
    from scipy.optimize import linear_sum_assignment  # slow to import

    rows, columns = linear_sum_assignment(alike, maximize=True)
    return rows, columns


def _best(alike: FloatArray) -> IntArray | None:
    """Find which of the units belongs in each place; ``None`` if they are best left alone."""
    places, found = _assigned(alike)
    gain = alike[places, found].sum() - alike.trace()
    return found if gain > _LEAST_GAIN * np.abs(alike).max(axis=1).sum() else None
