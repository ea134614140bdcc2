"""NuSLERP: spherical interpolation of two task vectors, or of two models if there is no base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evomerge.arrays import FloatArray
from evomerge.errors import Fault
from evomerge.kernels.plan import Table, TensorPlan
from evomerge.methods.base import Method, ParameterValue, PerExpert, TensorContext, shared
from evomerge.methods.parameters import coefficient, lambda_scale, shares

__all__ = ["NuSlerp"]


_COLINEAR = 1e-16  # of sin²Ω: below it the arc is straight to double precision


@dataclass(frozen=True, kw_only=True)
class NuSlerp(Method):
    """Interpolate at the second expert's share of the coefficients.

    With a base the task vectors are interpolated and added to it; without one the models are. By
    ``row_wise`` each row turns on its own arc, by ``column_wise`` each column; a 1-D tensor is one
    row, and turns as a whole either way.
    """

    name: ClassVar[str] = "nuslerp"
    summary: ClassVar[str] = "spherical interpolation of two task vectors (or models)"
    formula: ClassVar[str] = (
        "θ = θ₀ + λ [sin((1−t)Ω) τ₁ + sin(tΩ) τ₂] / sin Ω,  t = c₂/(c₁+c₂), cos Ω = cos(τ₁, τ₂)"
    )
    source: ClassVar[str] = "Goddard et al. 2024, Arcee's MergeKit, arXiv:2403.13257 (nuslerp)"
    statistics: ClassVar[tuple[str, ...]] = ("task_gram", "row_task_gram", "column_task_gram")
    needs_base: ClassVar[bool] = False
    n_experts: ClassVar[tuple[int, int | None]] = (2, 2)

    coefficient: PerExpert = coefficient("share of each expert, before normalising")
    lambda_: float = lambda_scale()
    row_wise: bool = shared(False, "interpolate each row by itself")
    column_wise: bool = shared(False, "interpolate each column by itself")

    @classmethod
    def faults(cls, values: Mapping[str, ParameterValue], experts: Sequence[str]) -> list[Fault]:
        """See ``Method.faults``."""
        found = super().faults(values, experts)
        if values.get("row_wise") is values.get("column_wise") is True:
            found.append(
                Fault(("column_wise",), "expected one of row_wise and column_wise, got both")
            )
        return found

    def statistics_used(self) -> tuple[str, ...]:
        """See ``Method.statistics_used``."""
        if self.column_wise:
            return ("column_task_gram", "task_gram")
        return ("row_task_gram",) if self.row_wise else ("task_gram",)

    def lower(self, tensor: TensorContext) -> TensorPlan:
        """See ``Method.lower``."""
        by_column = self.column_wise and len(tensor.statistics.shape) > 1
        factors = arc_factors(shares(self.coefficient)[1], self._gram(tensor, by_column=by_column))
        tables = tuple(Table(row) for row in factors)
        is_whole = not (self.row_wise or by_column)
        return TensorPlan(
            coefficients=tuple(map(float, factors[:, 0])) if is_whole else (1.0, 1.0),
            delta=tensor.has_base,
            base_coefficient=1.0 if tensor.has_base else 0.0,
            row_scale=tables if self.row_wise else None,
            column_scale=tables if by_column else None,
            scale=self.lambda_,
        )

    def _gram(self, tensor: TensorContext, *, by_column: bool) -> FloatArray:
        """Return the inner products of each pair that turns on an arc of its own."""
        statistics = tensor.statistics
        if by_column:
            return statistics.column_task_gram
        return statistics.row_task_gram if self.row_wise else statistics.task_gram[None]


def arc_factors(t: float, gram: FloatArray) -> FloatArray:
    """Compute the factors of spherical interpolation for many pairs of vectors at once.

    Args:
        t: Position, 0 the first vector, 1 the second.
        gram: (m, 2, 2) inner products of each pair.

    Returns:
        (2, m) factors of the first and second vectors, applied to them unnormalised. Colinear and
        zero vectors interpolate linearly.
    """
    lengths = np.sqrt(gram[:, 0, 0] * gram[:, 1, 1])
    cosine = np.divide(gram[:, 0, 1], lengths, out=np.ones_like(lengths), where=lengths > 0)
    cosine = np.clip(cosine, -1.0, 1.0)
    arc = 1.0 - cosine**2 > _COLINEAR
    omega = np.where(arc, np.arccos(cosine), 1.0)
    along = np.stack([np.sin((1.0 - t) * omega), np.sin(t * omega)]) / np.sin(omega)
    straight = np.array([[1.0 - t], [t]])
    factors: FloatArray = np.where(arc, along, straight)
    return factors
