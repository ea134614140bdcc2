"""NuSLERP: spherical interpolation of two task vectors, or of two models if there is no base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from evomerge.kernels.plan import Table, TensorPlan
from evomerge.methods.base import Method, PerExpert, TensorContext, shared
from evomerge.methods.parameters import coefficient, lambda_scale, shares

__all__ = ["NuSlerp"]

FloatArray = NDArray[np.float64]

_COLINEAR = 1e-16  # of sin²Ω: below it the arc is straight to double precision


@dataclass(frozen=True, kw_only=True)
class NuSlerp(Method):
    """Interpolate at the second expert's share of the coefficients.

    With a base the task vectors are interpolated and added to it; without one the models are. By
    ``row_wise`` each row turns on its own arc.
    """

    name: ClassVar[str] = "nuslerp"
    summary: ClassVar[str] = "spherical interpolation of two task vectors (or models)"
    formula: ClassVar[str] = (
        "θ = θ₀ + λ [sin((1−t)Ω) τ₁ + sin(tΩ) τ₂] / sin Ω,  t = c₂/(c₁+c₂), cos Ω = cos(τ₁, τ₂)"
    )
    source: ClassVar[str] = "Goddard et al. 2024, Arcee's MergeKit, arXiv:2403.13257 (nuslerp)"
    statistics: ClassVar[tuple[str, ...]] = ("task_gram", "row_task_gram")
    needs_base: ClassVar[bool] = False
    n_experts: ClassVar[tuple[int, int | None]] = (2, 2)

    coefficient: PerExpert = coefficient("share of each expert, before normalising")
    lambda_: float = lambda_scale()
    row_wise: bool = shared(False, "interpolate each row by itself")

    def statistics_used(self) -> tuple[str, ...]:
        """See ``Method.statistics_used``."""
        return ("row_task_gram",) if self.row_wise else ("task_gram",)

    def lower(self, tensor: TensorContext) -> TensorPlan:
        """See ``Method.lower``."""
        t = shares(self.coefficient)[1]
        statistics = tensor.statistics
        gram = statistics.row_task_gram if self.row_wise else statistics.task_gram[None]
        factors = arc_factors(t, gram)
        tables = tuple(Table(row) for row in factors)
        return TensorPlan(
            coefficients=(1.0, 1.0) if self.row_wise else tuple(map(float, factors[:, 0])),
            delta=tensor.has_base,
            base_coefficient=1.0 if tensor.has_base else 0.0,
            row_scale=tables if self.row_wise else None,
            scale=self.lambda_,
        )


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
