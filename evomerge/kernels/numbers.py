"""The numbers of a plan, laid out as arguments of a compiled kernel."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from evomerge.arrays import Float32Array
from evomerge.kernels.masks import keep_threshold
from evomerge.kernels.plan import (
    Band,
    Clamp,
    Conflict,
    Consensus,
    ElementGate,
    RandomMask,
    RankedMask,
    RowBand,
    Sparsifier,
    Table,
    TensorPlan,
    UniqueShared,
    Variance,
)
from evomerge.kernels.structure import alike

__all__ = ["Each", "Numbers", "Shared"]


class Each(IntEnum):
    """Columns of ``Numbers.each``: what every expert has of its own."""

    COEFFICIENT = 0
    MIXING = 1
    LOW = 2  # of a band or of a keep probability; the limit of a clamp
    HIGH = 3  # of a band; of a keep probability, the span above LOW
    RATIO = 4
    UNIQUE = 5


class Shared(IntEnum):
    """Positions in ``Numbers.shared``: what the experts have in common."""

    BASE_COEFFICIENT = 0
    OFFSET = 1
    SCALE = 2
    GATE = 3


@dataclass(frozen=True)
class Numbers:
    """The numbers of a plan, laid out for any kernel.

    Attributes:
        each: (n_experts, 6) float32, columns as in ``Each``.
        shared: (4,) float32, positions as in ``Shared``.
        keys: (n_experts, 3) uint32: low and high word of the mask's key, bound of the hash.
        tables: Flat float32 arrays, in the order of ``Structure.tables``.
    """

    each: Float32Array
    shared: Float32Array
    keys: NDArray[np.uint32]
    tables: tuple[Float32Array, ...]

    @classmethod
    def of(cls, plan: TensorPlan) -> Numbers:
        """Lay out the numbers of a plan."""
        n = len(plan.coefficients)
        sparse = alike(plan)
        each = np.zeros((n, len(Each)), np.float32)
        each[:, Each.COEFFICIENT] = plan.coefficients
        each[:, Each.MIXING] = plan.coefficients if plan.mixing is None else plan.mixing
        each[:, [Each.LOW, Each.HIGH]] = [_bounds(what) for what in sparse]
        if isinstance(plan.gate, Consensus):
            each[:, Each.RATIO] = plan.gate.ratios
        if isinstance(plan.combine, UniqueShared):
            each[:, Each.UNIQUE] = plan.combine.unique
        gate = _gate_bound(plan.gate)
        shared = np.array([plan.base_coefficient, plan.offset, plan.scale, gate], np.float32)
        keys = np.array([_key(what) for what in sparse], np.uint32)
        return cls(each, shared, keys, tuple(_tables(plan, sparse)))


def _bounds(what: Sparsifier | None) -> tuple[float, float]:
    match what:
        case Band(low=low, high=high):
            return low, high
        case RankedMask(low=low, high=high):
            return low, high - low
        case Clamp(limit=limit):
            return limit, 0.0
        case _:
            return 0.0, 0.0


def _key(what: Sparsifier | None) -> tuple[int, int, int]:
    match what:
        case RandomMask(key=key, keep=keep):
            return key & 0xFFFFFFFF, (key >> 32) & 0xFFFFFFFF, keep_threshold(keep)
        case RankedMask(key=key):
            return key & 0xFFFFFFFF, (key >> 32) & 0xFFFFFFFF, 0
        case _:
            return 0, 0, 0


def _gate_bound(gate: ElementGate | None) -> float:
    match gate:
        case Variance(at_least=bound) | Consensus(at_least=bound):
            return bound
        case Conflict(at_most=bound):
            return bound
        case None:
            return 0.0


def _tables(plan: TensorPlan, sparse: tuple[Sparsifier | None, ...]) -> list[Float32Array]:
    found: list[Table | None] = []
    for i, what in enumerate(sparse):
        if isinstance(what, RowBand):
            found += [what.low, what.high]
        if isinstance(what, RankedMask):
            found.append(what.knots)
        found.append(plan.row_scale[i] if plan.row_scale else None)
        found.append(plan.column_scale[i] if plan.column_scale else None)
    return [
        np.require(table.values.reshape(-1), np.float32, ["C", "W"])
        for table in found
        if table is not None
    ]
