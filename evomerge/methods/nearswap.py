"""NearSwap: move the base towards another model, where the two are near already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from evomerge.kernels.plan import Clamp, TensorPlan
from evomerge.methods.base import Method, TensorContext, shared

__all__ = ["NearSwap"]


@dataclass(frozen=True, kw_only=True)
class NearSwap(Method):
    """Take the expert's value where it is within ``limit``; elsewhere go that far towards it.

    Interpolating with min(1, limit/|τ|), as published, is the same as limiting |τ|.
    """

    name: ClassVar[str] = "nearswap"
    summary: ClassVar[str] = "take small changes whole, limit large ones"
    formula: ClassVar[str] = "θ = θ₀ + min(1, limit/|τ₁|) τ₁ = θ₀ + clip(τ₁, −limit, limit)"
    source: ClassVar[str] = "Alchemonaut 2024, NearSwap (QuartetAnemoi-70B model card)"
    n_experts: ClassVar[tuple[int, int | None]] = (1, 1)

    limit: float = shared(
        1e-3, "largest change of one parameter", low=0.0, high=1e6, search=(1e-5, 1e-2), slope=True
    )

    def lower(self, tensor: TensorContext) -> TensorPlan:
        """See ``Method.lower``."""
        return TensorPlan(coefficients=(1.0,), sparse=(Clamp(self.limit),))
