"""Units compared by what they are made of: the sum of products of their rows and columns."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import torch

from evomerge.alignment.matching import Likeness, Orders
from evomerge.alignment.placing import placed
from evomerge.arrays import FloatArray, IntArray
from evomerge.models.units import ModelUnits, UnitGroup

__all__ = ["squared_lengths", "weight_likeness"]

_Read = Callable[[str], torch.Tensor]


def weight_likeness(
    units: ModelUnits, ours: _Read, theirs: _Read, moving: Collection[str]
) -> Likeness:
    """Compare units by inner products.

    The sum over matched units is largest where base and permuted expert are nearest (L2). Memory:
    two tensors in float32 at a time, and (units, units).

    Args:
        units: Of both models.
        ours: Returns a tensor of the base.
        theirs: Returns one of the expert.
        moving: The axes whose positions may move.

    Source:
        Ainsworth et al. 2023, arXiv:2209.04836, section 3.2.
    """

    def likeness(group: UnitGroup, orders: Orders) -> FloatArray:
        total = np.zeros((group.n, group.n))
        unknown = {axis for axis in moving if axis not in orders}
        for name in units.tensors(group):
            if not unknown.isdisjoint(units.axes[name]):
                continue
            maps = [_map(orders, axis) for axis in units.axes[name]]
            both = ours(name).float(), placed(theirs(name).float(), maps)
            for a, b in zip(*(_rows(t, name, units, group) for t in both), strict=True):
                total += (a @ b.T).double().numpy()
        return total

    return likeness


def squared_lengths(units: ModelUnits, group: UnitGroup, read: _Read) -> FloatArray:
    """Sum the squares of all numbers of each unit of a group: (units,)."""
    total = np.zeros(group.n)
    for name in units.tensors(group):
        for rows in _rows(read(name).float(), name, units, group):
            total += rows.square().sum(1).double().numpy()
    return total


def _map(orders: Orders, axis: str | None) -> torch.Tensor | None:
    return torch.from_numpy(orders[axis]) if axis is not None and axis in orders else None


def _rows(
    tensor: torch.Tensor, name: str, units: ModelUnits, group: UnitGroup
) -> list[torch.Tensor]:
    """Take all numbers of each unit, once for each dimension that has units: (units, numbers)."""
    return [
        _members(tensor.movedim(dim, 0), group.members[axis])
        for dim, axis in enumerate(units.axes[name])
        if axis is not None and axis in group.members
    ]


def _members(tensor: torch.Tensor, members: IntArray) -> torch.Tensor:
    return tensor[torch.from_numpy(members)].reshape(len(members), -1)
