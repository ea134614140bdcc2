"""The numbers of a plan that an objective has slopes along."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

import numpy as np

from evomerge.arrays import FloatArray
from evomerge.kernels.numbers import Each, Shared
from evomerge.kernels.plan import Clamp, Sparsifier, Table, TensorPlan, UniqueShared

__all__ = ["Scalars", "held"]

FactorTables = tuple[FloatArray | None, ...]

_SCALARS = ("coefficients", "mixing", "base_coefficient", "offset", "scale")
_MIXED = ("sparse", "row_scale", "column_scale", "combine")  # hold scalars and other things
_HELD = tuple(f.name for f in fields(TensorPlan) if f.name not in (*_SCALARS, *_MIXED))


@dataclass(frozen=True, eq=False)
class Scalars:
    """The scalars of a plan, or the slopes along them; laid out like ``Numbers``.

    Scalars are coefficients, mixing coefficients, factors of lone changes, the limits of clamps,
    the factors of rows and columns, and what the experts share: factor of the base, offset, scale.
    All else in a plan (``held``) decides which elements take part, in jumps: masks, gates, scores
    and elected signs have no slopes. They are held as they are.

    Attributes:
        each: (n_experts, 6) float64, columns as in ``Each``; those without slopes are 0.
        shared: (4,) float64, positions as in ``Shared``; those without slopes are 0.
        tables: Row factors of every expert, then column factors; ``None`` where there are none.
    """

    each: FloatArray
    shared: FloatArray
    tables: FactorTables

    @classmethod
    def of(cls, plan: TensorPlan) -> Scalars:
        """Read the scalars of a plan."""
        n = len(plan.coefficients)
        each = np.zeros((n, len(Each)))
        each[:, Each.COEFFICIENT] = plan.coefficients
        each[:, Each.MIXING] = plan.coefficients if plan.mixing is None else plan.mixing
        if isinstance(plan.combine, UniqueShared):
            each[:, Each.UNIQUE] = plan.combine.unique
        for i, what in enumerate(plan.sparse or ()):
            if isinstance(what, Clamp):
                each[i, Each.LOW] = what.limit
        shared = np.array([plan.base_coefficient, plan.offset, plan.scale, 0.0])
        tables = [None if t is None else t.values.astype(np.float64) for t in _tables(plan)]
        return cls(each, shared, tuple(tables))

    @classmethod
    def named(cls, found: Mapping[str, float], n_experts: int) -> Scalars:
        """Lay out slopes named as in formulas, e.g. ``coefficient0``; those not named are 0."""
        own = [[found.get(f"{c.name.lower()}{i}", 0.0) for c in Each] for i in range(n_experts)]
        shared = [found.get(position.name.lower(), 0.0) for position in Shared]
        return cls(np.array(own), np.array(shared), (None,) * (2 * n_experts))

    @classmethod
    def sum(cls, parts: Iterable[Scalars]) -> Scalars:
        """Add up, e.g. the slopes of several batches of items."""
        first, *others = parts
        for part in others:
            tables = zip(first.tables, part.tables, strict=True)
            first = cls(
                first.each + part.each,
                first.shared + part.shared,
                tuple(None if a is None or b is None else a + b for a, b in tables),
            )
        return first

    def along(self, start: Scalars, end: Scalars) -> float:
        """Return how much an objective with these slopes changes on the way between two plans."""
        total = np.vdot(self.each, end.each - start.each)
        total += np.vdot(self.shared, end.shared - start.shared)
        for own, a, b in zip(self.tables, start.tables, end.tables, strict=True):
            if own is not None and a is not None and b is not None:
                total += np.vdot(own, b - a)
        return float(total)


def held(plan: TensorPlan) -> tuple[object, ...]:
    """Return the part of a plan that slopes hold as it is, to be compared: all but its scalars."""
    n, combine = len(plan.coefficients), plan.combine
    return (
        n,
        *(getattr(plan, name) for name in _HELD),
        plan.sparse and tuple(map(_held_sparsifier, plan.sparse)),
        _present(plan.row_scale),
        _present(plan.column_scale),
        UniqueShared((0.0,) * n) if isinstance(combine, UniqueShared) else combine,
    )


def _held_sparsifier(what: Sparsifier | None) -> Sparsifier | None:
    return Clamp(0.0) if isinstance(what, Clamp) else what


def _present(tables: tuple[Table | None, ...] | None) -> tuple[bool, ...] | None:
    return None if tables is None else tuple(table is not None for table in tables)


def _tables(plan: TensorPlan) -> tuple[Table | None, ...]:
    nothing = (None,) * len(plan.coefficients)
    return (*(plan.row_scale or nothing), *(plan.column_scale or nothing))
