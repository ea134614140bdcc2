"""What of a plan shapes the code of a compiled kernel, apart from its numbers.

A search changes coefficients, densities and keys with every candidate, but meets few structures:
kernels are compiled once per structure, and numbers reach them as arguments.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch

from evomerge.kernels.job import MergeJob, SlopeJob
from evomerge.kernels.plan import (
    Agree,
    Band,
    Clamp,
    Elect,
    ElementGate,
    RandomMask,
    RankedMask,
    RowBand,
    ScoreMean,
    Sparsifier,
    Sum,
    Table,
    TensorPlan,
)

__all__ = ["RankedKind", "Structure", "alike", "has_compiled_slopes", "is_supported"]

SparseKind = Literal["above", "band", "row_band", "random", "clamp"]
_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
_MAX_KNOTS = 17  # the search for a rank is unrolled


@dataclass(frozen=True)
class RankedKind:
    """Shape of a ``RankedMask``."""

    knots: int
    rescale: bool


@dataclass(frozen=True)
class Structure:
    """The shape of a merge; equal structures run the same code.

    Attributes:
        base: Element type of the base (bfloat16, float16 or float32); ``None`` if it is not read.
        experts: Element type of each expert.
        out: Element type of the output.
        delta: Whether sources are differences to the base.
        adds_base: Whether the base takes part in the output.
        adds_offset: Whether there is an offset.
        sparse: Per expert, what decides which elements are kept.
        row_scale: Per expert, whether rows have factors.
        column_scale: Per expert, whether columns have factors.
        gate: Kind of the gate.
        combine: Kind of the combination.
        vote: What an election sums.
        zero: Sign that a vote of zero elects.
        normalizes: Whether the sum is divided by the surviving mixing coefficients.
    """

    base: str | None
    experts: tuple[str, ...]
    out: str
    delta: bool
    adds_base: bool
    adds_offset: bool
    sparse: tuple[SparseKind | RankedKind | None, ...]
    row_scale: tuple[bool, ...]
    column_scale: tuple[bool, ...]
    gate: type[ElementGate] | None
    combine: type
    vote: Literal["weighted", "unweighted", "count"]
    zero: Literal[-1, 0, 1]
    normalizes: bool

    @classmethod
    def of(cls, job: MergeJob) -> Structure:
        """Read the structure off a job."""
        plan, n = job.plan, len(job.plan.coefficients)
        base = job.base if plan.reads_base else None
        return cls(
            base=None if base is None else _name(base.dtype),
            experts=tuple(_name(expert.dtype) for expert in job.experts),
            out=_name(job.out.dtype),
            delta=plan.delta and base is not None,
            adds_base=plan.base_coefficient != 0.0 and base is not None,
            adds_offset=plan.offset != 0.0,
            sparse=_kinds(alike(plan)),
            row_scale=_present(plan.row_scale, n),
            column_scale=_present(plan.column_scale, n),
            gate=None if plan.gate is None else type(plan.gate),
            combine=type(plan.combine),
            vote=plan.combine.vote if isinstance(plan.combine, Elect) else "weighted",
            zero=plan.combine.zero if isinstance(plan.combine, (Elect, Agree)) else 0,
            normalizes=plan.normalize_by_mask and isinstance(plan.combine, (Sum, Elect)),
        )

    @classmethod
    def of_slopes(cls, job: SlopeJob) -> Structure:
        """Read the structure off a job; ``out`` is the gradient.

        What a factor of zero leaves out of a merge has a slope all the same.
        """
        base = None if job.base is None else _name(job.base.dtype)
        read = cls.of(job.merge)
        return replace(read, base=base, adds_base=base is not None, adds_offset=True)

    @property
    def n_experts(self) -> int:
        """Number of experts."""
        return len(self.experts)

    @property
    def has_rows(self) -> bool:
        """Whether some number differs between rows or columns."""
        tables = any(self.row_scale) or any(self.column_scale)
        return tables or any(s == "row_band" or isinstance(s, RankedKind) for s in self.sparse)

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables, in the order of ``Numbers.tables``."""
        names: list[str] = []
        for i, what in enumerate(self.sparse):
            if what == "row_band":
                names += [f"lows{i}", f"highs{i}"]
            if isinstance(what, RankedKind):
                names.append(f"knots{i}")
            names += [f"rows{i}"] if self.row_scale[i] else []
            names += [f"columns{i}"] if self.column_scale[i] else []
        return tuple(names)


def is_supported(job: MergeJob) -> bool:
    """Whether compiled kernels can run a job; if not, the eager kernel must."""
    plan, tensors = job.plan, [job.out, *job.experts, *([] if job.base is None else [job.base])]
    if any(tensor.dtype not in _DTYPES for tensor in tensors):
        return False
    if isinstance(plan.combine, ScoreMean):
        return False  # exp and tanh differ between libraries in the last bit
    masks = [what for what in plan.sparse or () if isinstance(what, RankedMask)]
    return all(mask.knots.values.shape[1] <= _MAX_KNOTS for mask in masks)


def has_compiled_slopes(job: SlopeJob) -> bool:
    """Whether compiled kernels can find the slopes of a job; if not, the eager kernel must."""
    plan = job.plan
    tables = (*(plan.row_scale or ()), *(plan.column_scale or ()))
    return is_supported(job.merge) and all(
        table is None for table in tables
    )  # slopes along tables are no plain sums


def alike(plan: TensorPlan) -> tuple[Sparsifier | None, ...]:
    """Sparsifiers with ``None`` written as the band or mask that keeps all, if others have one.

    So a density that reaches 1 for some experts does not make a new structure.
    """
    sparse = plan.sparse or (None,) * len(plan.coefficients)
    keeps_all: Sparsifier | None = None
    if any(isinstance(what, Band) for what in sparse):
        keeps_all = Band(0.0)
    elif any(isinstance(what, RandomMask) for what in sparse):
        keeps_all = RandomMask(key=0, keep=1.0)
    return tuple(keeps_all if what is None else what for what in sparse)


def _kinds(sparse: tuple[Sparsifier | None, ...]) -> tuple[SparseKind | RankedKind | None, ...]:
    kinds = tuple(_kind(what) for what in sparse)
    if any(isinstance(what, Band) and what.high != float("inf") for what in sparse):
        return kinds
    return tuple("above" if kind == "band" else kind for kind in kinds)


def _kind(what: Sparsifier | None) -> SparseKind | RankedKind | None:
    match what:
        case None:
            return None
        case Band():
            return "band"
        case RowBand():
            return "row_band"
        case RandomMask():
            return "random"
        case RankedMask(knots=knots, rescale=rescale):
            return RankedKind(knots.values.shape[1], rescale)
        case Clamp():
            return "clamp"


def _present(tables: tuple[Table | None, ...] | None, n: int) -> tuple[bool, ...]:
    return (False,) * n if tables is None else tuple(table is not None for table in tables)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
